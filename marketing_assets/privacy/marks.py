"""What must stay out when rows are read again: control/privacy.json beside store.yaml.

What belongs here: reading and writing that file, and refusing days that ran out. What does not: taking anything out (people.py,
erase.py, expire.py). The file holds no id: users stand in it as salted hashes, so that it survives what it is for.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from marketing_assets.config import Store
from marketing_assets.schemas import TABLES
from marketing_assets.warehouse import WarehouseError, replace_file

EXPIRING_INPUTS = ("events", "impressions", "conversions", "surveys")
"""Inputs with a row per thing a person did: what retention_days takes away."""
EXPIRING_DAYS = (
    *(f"raw_{name}" for name in EXPIRING_INPUTS),
    "clean_events", "clean_impressions", "attributed_conversions", "service_tickets", "user_ad_plan",
)  # fmt: skip
"""Tables whose days run out whole. rejected_rows keeps those of other inputs, without which refused rows would count again."""


def expiring_logs() -> list[str]:
    """Change logs about people: days no reader of a kept day looks back to run out."""
    return [name for name, spec in TABLES.items() if spec.kind == "log" and "user_id" in spec.columns]


class PrivacyError(WarehouseError):
    """Somebody or something cannot be forgotten as asked, or the list of those who were cannot be read."""


class Expired(PrivacyError):
    """A day cannot be built again, because its rows were deleted after retention_days."""


@dataclass(frozen=True)
class Marks:
    """erased: salted hash of a user_id -> day of the erasure. expired_through: newest day whose rows ran out."""

    salt: str = ""
    erased: Mapping[str, str] = field(default_factory=dict)
    expired_through: date | None = None

    def hashed(self, user_id: str) -> str:
        return hashlib.sha256((self.salt + user_id).encode()).hexdigest()

    def with_erased(self, user_ids: Collection[str], day: date) -> Marks:
        """These users too; the first day of an erasure stays."""
        salted = self if self.salt else replace(self, salt=secrets.token_hex(16))
        added = {salted.hashed(user_id): day.isoformat() for user_id in user_ids}
        return replace(salted, erased=dict(sorted({**added, **salted.erased}.items())))


def marks_path(store: Store) -> Path:
    return store.folder / "control" / "privacy.json"


def read_marks(store: Store) -> Marks:
    """The marks of a shop; empty ones where nothing was ever forgotten. Raises PrivacyError where the file cannot be read."""
    path = marks_path(store)
    if not path.exists():
        return Marks()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        through = content["expired_through"]
        return Marks(content["salt"], content["erased"], None if through is None else date.fromisoformat(through))
    except (ValueError, KeyError, TypeError) as error:
        # going on without it would bring erased people back
        raise PrivacyError(f"{path}: not readable: {error!r}; put it back from a backup, it names whom to keep out") from error


def write_marks(store: Store, marks: Marks) -> None:
    path = marks_path(store)
    path.parent.mkdir(parents=True, exist_ok=True)
    through = marks.expired_through
    content = {"salt": marks.salt, "erased": dict(marks.erased), "expired_through": through.isoformat() if through else None}
    replace_file(path, json.dumps(content, indent=1) + "\n")


def retained(store: Store, days: Sequence[date], tables: Collection[str]) -> list[date]:
    """The days whose rows of these tables were not deleted after retention_days."""
    through = read_marks(store).expired_through
    if through is None or not {*EXPIRING_DAYS, *expiring_logs()}.intersection(tables):
        return list(days)
    return [day for day in days if day > through]


def check_retained(store: Store, what: str, days: Sequence[date], tables: Collection[str]) -> None:
    """Raises Expired, naming what a rebuild would need, where rows of these tables and days were deleted after retention_days.

    tables: what a computation reads and writes; those without rows of people can be built again at any time.
    """
    kept = retained(store, days, tables)
    if len(kept) == len(days):
        return
    through = read_marks(store).expired_through
    last = days[len(days) - len(kept) - 1]
    raise Expired(
        f"{what} of {days[0]}...{last} cannot be built again: rows of events, impressions, conversions and surveys through {through} "
        f"were deleted after retention_days. It would need retention_days raised (or taken out) in {store.path}, 'marketing expire' "
        f"to move that mark back, and all steps built anew from their landing files: dagster asset materialize "
        f"-m marketing_assets.definitions --select '*' --partition-range {days[0]}...{last}"
    )
