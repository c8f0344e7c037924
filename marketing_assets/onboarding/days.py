"""On which days rows of an input land, and what values some of its columns take: asked of the real sources, not of a reader of its own.

What belongs here: counting landed rows in a store that may still lack its first and last day. What does not: reading files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import polars as pl

from marketing_assets.config import SourceBlock, Store
from marketing_assets.schemas import INPUTS
from marketing_assets.warehouse import days_between, reader_over

EARLIEST = date(1970, 1, 2)
LATEST = date(2099, 12, 31)
_THIN = 0.01
"""A day at the edge with less than this share of a usual day's rows is taken for wrong dates ..."""
_FEW = 0.005
"""... as long as all days cut off hold less than this share of the rows."""
_JUMP = 20
"""So many times more rows on the next day tell a first day from a wrong date."""
_FAR_DAYS = 60
"""Days without any row after which what lies beyond is likelier a wrong date than a pause."""


@dataclass(frozen=True)
class Landing:
    """Landed rows by day. undated: rows without a readable day within EARLIEST...LATEST. broken: lines that could not be read."""

    rows: Mapping[date, int]
    undated: int
    broken: int
    broken_example: str | None

    @property
    def total(self) -> int:
        return sum(self.rows.values()) + self.undated + self.broken


def landing_of(store: Store, source: str, blocks: list[SourceBlock]) -> Landing:
    """Rows per landed day of undated blocks over all days there can be. Raises SourceError where a file cannot be read.

    Clock changes of a zone over a century make an expression no engine likes, so all days are counted on UTC's clock first, and
    those of the main stretch then again on the shop's.
    """
    spec = INPUTS[source]
    blocks = [block.model_copy(update={"columns": _only(block, spec.landed_by)}) for block in blocks if block.rows is None]
    wide = _landed(store, source, blocks, EARLIEST, LATEST, "UTC")
    rows, broken, example = wide.pop(EARLIEST, (0, 0, None))
    found = {day: count for day, (count, _, _) in wide.items()}
    stretch = main_stretch(found)
    if stretch is not None and store.timezone != "UTC":
        start, end = stretch[0] - timedelta(days=1), stretch[1] + timedelta(days=1)
        # the first day of a window also takes what lies outside of it, so it is one that is not counted
        own = _landed(store, source, blocks, start - timedelta(days=1), end, store.timezone)
        found = {day: count for day, count in found.items() if not start <= day <= end}
        found |= {day: count for day, (count, _, _) in own.items() if start <= day <= end}
    return Landing(dict(sorted(found.items())), rows - broken, broken, example)


def _landed(
    store: Store, source: str, blocks: list[SourceBlock], first: date, last: date, timezone: str
) -> dict[date, tuple[int, int, str | None]]:
    """Landed day -> rows, of these broken lines, and why one of them is."""
    from marketing_assets.sources import build_sources

    changes = {"sources": {source: blocks}, "first_day": first, "last_day": last, "timezone": timezone}
    window = store.model_copy(update=changes)
    reader = reader_over({}, window, last)
    try:
        table: Any = build_sources(reader, days_between(first, last), window, source).tables[f"raw_{source}"]
        if isinstance(table, pl.DataFrame):  # no rows at all
            return {}
        counted = table.group_by("landed_date").agg(
            rows=table.count(), broken=table.source_error.count(), example=table.source_error.min()
        )
        return {day: (rows, broken, example) for day, rows, broken, example in counted.to_polars().iter_rows()}
    finally:
        reader.connection.close()


def _only(block: SourceBlock, dated_by: str | None) -> dict[str, str]:
    """The column that dates a row alone, where it is mapped: the others cost time and say nothing here."""
    return {name: text for name, text in block.columns.items() if name == dated_by} or block.columns


def main_stretch(rows: Mapping[date, int]) -> tuple[date, date] | None:
    """First and last day that rows belong to, without the few that lie far off or alone at the edges. None without rows."""
    days = sorted(rows)
    if not days:
        return None
    total = sum(rows.values())
    usual = sorted(rows.values())[len(days) // 2]
    spare = _FEW * total
    start, end = 0, len(days) - 1
    # what lies beyond a long silence, first from the left, then from the right
    while start < end and (cut := _far(days, rows, start, end, spare)) is not None:
        lost, start, end = cut
        spare -= lost
    start += (early := _thin(days[start : end + 1], rows, usual, spare))
    spare -= sum(rows[day] for day in days[start - early : start])
    end -= _thin(days[start : end + 1][::-1], rows, usual, spare)
    return days[start], days[end]


def _thin(days: list[date], rows: Mapping[date, int], usual: int, spare: float) -> int:
    """How many days at this edge are dirt: thin all of them, with a jump behind them. A shop that grows has no jump."""
    cut, lost, most = 0, 0, 0
    for place, day in enumerate(days[:-1]):
        lost, most = lost + rows[day], max(most, rows[day])
        if most >= _THIN * usual or lost > spare:
            break
        if rows[days[place + 1]] > _JUMP * most:
            cut = place + 1
    return cut


def _far(days: list[date], rows: Mapping[date, int], start: int, end: int, spare: float) -> tuple[int, int, int] | None:
    """Rows lost and the new ends, where a side cut off at a long silence holds few enough rows."""
    for place in range(start, end):
        if days[place + 1] - days[place] <= timedelta(days=_FAR_DAYS):
            continue
        before = sum(rows[day] for day in days[start : place + 1])
        after = sum(rows[day] for day in days[place + 1 : end + 1])
        if before <= spare:
            return before, place + 1, end
        if after <= spare:
            return after, start, place
    return None
