"""Files people and the drift sensor write under control/ beside store.yaml: requests to refit, stop, resume or roll back.

What belongs here: writing those files so that a reader never sees half of one, and asking twice changes nothing. What does
not: what a request does (model_store.py), or reading the files (sources/, like any other input).
"""

from __future__ import annotations

import csv
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
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
    from datetime import timedelta

    return any(
        row.get("verdict_id") == verdict_id
        for offset in range(-days, days + 1)
        for row in read_requests(request_file(store, around + timedelta(days=offset)))
    )
