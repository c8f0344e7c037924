"""Files people and the drift sensor write under control/ beside store.yaml: requests to refit, stop, resume or roll back.

What belongs here: writing those files so that a reader never sees half of one, and asking twice changes nothing. What does
not: what a request does (model_store.py), or reading the files (sources/, like any other input).
"""

from __future__ import annotations

import csv
import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

from marketing_assets.config import Store
from marketing_assets.schemas import INPUTS

Action = Literal["refit", "stop_learning", "resume", "rollback"]
ACTIONS: tuple[Action, ...] = ("refit", "stop_learning", "resume", "rollback")
LEARNING_TABLES = ("user_profiles", "audiences", "demand_forecasts", "recommendations", "response_rates", "service_tickets")
"""Tables whose models refit on a cadence and may be asked to do otherwise."""


class ControlError(Exception):
    """A request that cannot be made; the message says what is allowed."""


# --- why --------------------------------------------------------------------------------------------------------------

_REASON = re.compile(r"(?P<cause>[a-z_ ]+) since (?P<since>\d{4}-\d\d-\d\d)(?:: (?P<metrics>.+))?")
_METRIC = re.compile(r"(?P<name>[^\s,\[\]]+)(?:\[(?:(?P<kind>[^\[\]=]+)=)?(?P<level>[^\[\]]*)\])?")


@dataclass(frozen=True)
class Reason:
    """A request's reason that models can heed: '<cause> since <day>: <metric>, <metric>[<kind>=<level>]'.

    Metrics are named as in drift_report. Any other reason is text for people, and is only kept.
    """

    cause: str
    since: date
    metrics: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.cause} since {self.since}" + (f": {', '.join(self.metrics)}" if self.metrics else "")

    @property
    def segments(self) -> list[tuple[str, tuple[str, str] | None]]:
        """Per metric its name, and kind and level of the segment it is of."""
        found = [match for match in map(_METRIC.fullmatch, self.metrics) if match]
        return [(match["name"], (match["kind"], match["level"]) if match["kind"] else None) for match in found]


def read_reason(text: str) -> Reason | None:
    """The reason a text says in that form; None where it is in another one."""
    match = _REASON.fullmatch(text)
    if match is None:
        return None
    metrics = tuple(found[0] for found in _METRIC.finditer(match["metrics"] or ""))
    if ", ".join(metrics) != (match["metrics"] or ""):
        return None
    try:
        return Reason(match["cause"], date.fromisoformat(match["since"]), metrics)
    except ValueError:
        return None


def reason_of(cause: str, since: date, metrics: Sequence[str], most: int = 3) -> Reason:
    """The reason of a verdict: the segments that explain it first, and no more than `most` metrics beyond those."""
    explaining = [name for name in metrics if name.split("[")[0].endswith("_calibration_ratio") and "[" in name]
    others = [name for name in metrics if name not in explaining]
    return Reason(cause, since, (*explaining, *others[: max(0, most - len(explaining))]))


# --- requests ---------------------------------------------------------------------------------------------------------


def request_file(store: Store, day: date) -> Path:
    return store.folder / "control" / "refit_requests" / f"{day}.csv"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time: the sensor, the UI and the command line may ask at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(".lock"), "a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def request_refit(
    store: Store, day: date, asset: str, action: Action = "refit", *, reason: str, model_version: str = "", verdict_id: str = "",
    now: datetime | None = None,
) -> bool:
    """Add a request for `day` to control/refit_requests/<day>.csv. False where the same request already stands there.

    asset: one of LEARNING_TABLES. model_version: for a rollback, the version to put back. Raises ControlError otherwise.
    """
    if asset not in LEARNING_TABLES:
        raise ControlError(f"{asset!r} has no models of its own; allowed: {', '.join(LEARNING_TABLES)}")
    if action not in ACTIONS:
        raise ControlError(f"{action!r} is no action; allowed: {', '.join(ACTIONS)}")
    if action == "rollback" and not model_version:
        raise ControlError("a rollback names the model_version to put back; take one from model_registry ('marketing models')")
    if day < store.first_day:
        raise ControlError(f"no day {day} is ever built: the shop's first_day is {store.first_day}")
    path = request_file(store, day)
    columns = list(INPUTS["refit_requests"].columns)
    with _locked(path):
        rows = read_requests(path)
        asked = {"asset": asset, "action": action, "model_version": model_version, "verdict_id": verdict_id}
        if any(all((row.get(name) or "") == value for name, value in asked.items()) for row in rows):
            return False
        stamp = (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        rows.append({**asked, "requested_for_date": day.isoformat(), "reason": " ".join(reason.split()), "requested_at": stamp})
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with open(temporary, "w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    return True


def read_requests(path: Path) -> list[dict[str, str]]:
    """The rows of a request file; [] where there is none."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as stream:
        return [{name: value for name, value in row.items() if name} for row in csv.DictReader(stream)]


def is_requested(store: Store, verdict_id: str, around: date, days: int = 2) -> bool:
    """Whether a verdict already led to a request within some days of `around`."""
    return any(
        row.get("verdict_id") == verdict_id
        for offset in range(-days, days + 1)
        for row in read_requests(request_file(store, around + timedelta(days=offset)))
    )


# --- verdicts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """One cause found on a day: what to do about it and to which tables. since: the day it set in, or the data were sound again."""

    verdict_id: str
    cause: str
    action: str
    assets: tuple[str, ...]
    since: date
    metrics: tuple[str, ...]

    @property
    def reason(self) -> Reason:
        if self.action == "resume":
            return Reason("data sound", self.since)
        return reason_of(self.cause, self.since, self.metrics)


def request_verdict(store: Store, day: date, verdict: Verdict, *, is_given_out: bool = False, now: datetime | None = None) -> bool:
    """Write what a verdict of `day` asks for, once. True where that is for `day` itself, whose tables are to be made again.

    A refit or a stop is for `day`, or for the day after where the decisions of `day` were given out. Learning goes on the day
    after, where the newest word on a table is a stop that a verdict asked for; one asked for by hand ends by hand.
    """
    tomorrow = day + timedelta(days=1)
    if verdict.action == "resume":
        for asset in verdict.assets:
            if stopped_by(store, asset, tomorrow):
                request_refit(store, tomorrow, asset, "resume", reason=str(verdict.reason), verdict_id=verdict.verdict_id, now=now)
        return False
    if verdict.action == "alert" or not verdict.assets:
        return False
    if is_requested(store, verdict.verdict_id, day, store.drift.cool_down_days + 1):
        return False
    action: Action = "stop_learning" if verdict.action == "stop_learning" else "refit"
    for asset in verdict.assets:
        request_refit(
            store, tomorrow if is_given_out else day, asset, action, reason=str(verdict.reason), verdict_id=verdict.verdict_id, now=now
        )
    return not is_given_out


def stopped_by(store: Store, asset: str, day: date) -> str | None:
    """The verdict whose stop is in force for a table on `day`; None where it learns, or was stopped by hand."""
    folder = request_file(store, day).parent
    rows = [
        (path.stem, row.get("requested_at") or "", row.get("action") or "", row.get("verdict_id") or "")
        for path in folder.glob("*.csv")
        if path.stem <= day.isoformat()
        for row in read_requests(path)
        if row.get("asset") == asset and row.get("action") in ("stop_learning", "resume")
    ]
    if not rows:
        return None
    _, _, action, verdict_id = max(rows)
    return verdict_id or None if action == "stop_learning" else None
