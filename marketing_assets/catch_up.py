"""What landed or changed since the ledger was written, and whether the shop is up to date: decisions, from files and the ledger's copy.

What belongs here: pure decisions a sensor or `marketing status` takes without opening the warehouse. What does not: running
anything (running.py, orchestration/).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl

from marketing_assets.config import CONTROL_INPUTS, Store
from marketing_assets.privacy.marks import retained
from marketing_assets.running import newest_closed_day
from marketing_assets.schemas import INPUTS
from marketing_assets.warehouse import days_between, digest


@dataclass(frozen=True)
class Landed:
    """What to run: `new` days to build, or `changed` days to mend up to the newest closed day. reason: in words.

    key names this state of the files: the same key asks for nothing twice.
    """

    new: tuple[date, date] | None
    changed: tuple[date, date] | None
    reason: str
    key: str


def fingerprints_of(ledger: pl.DataFrame) -> dict[tuple[str, date], str]:
    """(table, day) -> input fingerprint, from the ledger's copy."""
    columns = ledger.select("table_name", "partition_date", "input_fingerprint").iter_rows()
    return {(table, day): fingerprint for table, day, fingerprint in columns}


def last_closed_by_clock(store: Store, now: datetime) -> date:
    """The newest day that is over in the shop's time zone, at most last_day."""
    yesterday = now.astimezone(ZoneInfo(store.timezone)).date() - timedelta(days=1)
    return yesterday if store.last_day is None else min(yesterday, store.last_day)


def what_landed(store: Store, ledger: pl.DataFrame, now: datetime) -> Landed:
    """Compare the landing files with what the ledger was built from.

    Changed files of closed days come first, then days whose files have all landed. Files under control/ are requests, not landings.
    """
    from marketing_assets.sources import file_fingerprint, landing_days

    known = fingerprints_of(ledger)
    closed = newest_closed_day(known, store)
    sources = [name for name in INPUTS if name not in CONTROL_INPUTS and store.blocks(name)]
    if closed is not None:
        # days that ran out are not looked at: their landing files may be cleared away, too
        changed = sorted(
            ((source, day) for source in sources for day in retained(store, days_between(store.first_day, closed), (f"raw_{source}",))
             if file_fingerprint(store, source, day) != known.get((f"raw_{source}", day))),
            key=lambda one: one[1],
        )
        if changed:
            first = min(day for _, day in changed)
            key = digest(*((source, day, file_fingerprint(store, source, day)) for source, day in changed))
            names = ", ".join(f"{source} of {day}" for source, day in changed[:3]) + (" and more" if len(changed) > 3 else "")
            return Landed(None, (first, closed), f"changed since they were built: {names}", key)
    start = store.first_day if closed is None else closed + timedelta(days=1)
    end = _landed_through(store, landing_days(store), start, last_closed_by_clock(store, now))
    if end is None:
        return Landed(None, None, f"nothing new: closed through {closed}", "")
    key = digest(start, end, *(file_fingerprint(store, source, end) for source in sources))
    return Landed((start, end), None, f"landed: {start}" + (f"...{end}" if end > start else ""), key)


def _landed_through(store: Store, landed: Mapping[str, list[date]], start: date, last: date) -> date | None:
    """The newest day up to which every source that must land every day has landed and some file is there."""
    required, any_file = [], set()
    for source, days in landed.items():
        dated = [block for block in store.blocks(source) if block.is_dated]
        if not dated or source in CONTROL_INPUTS:
            continue
        any_file |= set(days)
        if all(block.missing_file == "error" for block in dated):
            required.append(set(days))
    if not any_file:  # only undated files: the clock decides
        return last if last >= start else None
    end = None
    for day in days_between(start, last) if last >= start else []:
        if any(day not in days for days in required):
            break
        if day in any_file:
            end = day
    return end


@dataclass(frozen=True)
class Freshness:
    """closed: newest day with every table built. expected: newest day that should be. is_fresh: whether it is."""

    closed: date | None
    expected: date
    is_fresh: bool


def freshness(store: Store, ledger: pl.DataFrame, now: datetime, grace_hours: int = 6) -> Freshness:
    """By the ledger, not by when something ran: a backfill of old days makes nothing fresh."""
    closed = newest_closed_day(fingerprints_of(ledger), store)
    expected = last_closed_by_clock(store, now - timedelta(hours=store.schedule_hour + grace_hours))
    return Freshness(closed, expected, closed is not None and closed >= expected)
