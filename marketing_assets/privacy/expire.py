"""Rows whose time is over: what people did longer ago than retention_days.

What belongs here: up to which day rows go, and taking them out. What does not: the ledger's side (ledger.py).

Totals, forecasts, plans and their evaluation are about no single person and stay for ever. Days after the mark are built and
built again from what is kept; days up to it cannot be (marks.check_retained says what that would need).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

from marketing_assets.config import LATE_DAYS
from marketing_assets.pipeline import steps_of
from marketing_assets.privacy.beside import expire_drafts
from marketing_assets.privacy.ledger import removing
from marketing_assets.privacy.marks import EXPIRING_DAYS, EXPIRING_INPUTS, PrivacyError, expiring_logs, read_marks, write_marks
from marketing_assets.running import Fingerprints, newest_closed_day
from marketing_assets.schemas import TABLES
from marketing_assets.warehouse import Warehouse


@dataclass(frozen=True)
class Expiry:
    """through: newest day whose rows ran out, None where all are kept. rows: table -> rows deleted. shortened: 'step reads table N
    days back' of each step for which that is longer than what is kept, so that it rests on less."""

    through: date | None = None
    rows: dict[str, int] = field(default_factory=dict)
    shortened: list[str] = field(default_factory=list)


def expire(warehouse: Warehouse, tell: Callable[[str], None] = lambda text: None) -> Expiry:
    """Delete what is older than retention_days before the newest closed day. Doing it again changes nothing.

    With retention_days raised or taken out the mark moves back, so that days can be built again from landing files. Raises
    PrivacyError where fewer days would be kept than late rows and duplicates are sought in.
    """
    store = warehouse.store
    marks = read_marks(store)
    kept = store.retention_days
    closed = newest_closed_day(warehouse.ledger, store)
    if kept is not None and kept < LATE_DAYS:
        raise PrivacyError(
            f"{store.path}: retention_days is {kept}, but duplicates and open sessions are sought {LATE_DAYS} days back: keep at least those")
    through = None if kept is None or closed is None else closed - timedelta(days=kept)
    if through is not None and through < store.first_day:
        through = None
    write_marks(store, replace(marks, expired_through=through))
    if through is None or kept is None:
        return Expiry()
    oldest_log = warehouse.reader(through).keyframe_before(through)
    with removing(warehouse) as removal:
        for table in EXPIRING_DAYS:
            removal.delete(table, f"{TABLES[table].partition_column} <= ?", [through])
        inputs = ", ".join(f"'{name}'" for name in EXPIRING_INPUTS)
        removal.delete("rejected_rows", f"landed_date <= ? AND source IN ({inputs})", [through])
        for table in expiring_logs():
            # what is in force on the first day kept was written since its keyframe
            removal.delete(table, "as_of_date < ?", [oldest_log])
    expire_drafts(store, through)
    tell(f"rows through {through} have run out: {sum(removal.rows.values())} rows of {len(removal.rows)} tables")
    return Expiry(through, removal.rows, _shortened(warehouse, kept, closed or through))


def _shortened(warehouse: Warehouse, kept: int, day: date) -> list[str]:
    """Steps that would look further back than what is kept, each by its longest look-back of the last four weeks."""
    fingerprints = Fingerprints(warehouse)
    days = [one for one in (day - timedelta(days=offset) for offset in range(28)) if one >= warehouse.store.first_day]
    found = []
    for step in steps_of(warehouse.store):
        reach = {
            table: max(fingerprints.look_back(back, one) for one in days) for table, back in step.reads.items() if table in EXPIRING_DAYS
        }
        furthest = max(reach, key=lambda table: reach[table], default=None)
        if furthest is not None and reach[furthest] > kept:
            found.append(f"{step.name} reads {furthest} {reach[furthest]} days back")
    return found
