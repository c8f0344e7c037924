"""Running state of a change log, computed over a window of days at once.

What belongs here: how yesterday's entries and a window's increments become the entries of the window, whichever entity
they are about. What does not: what is counted (users.py, preferences.py, items_state.py) or how tables are stored.

Every entry of the window is the cumulative sum, by entity in order of days, over three kinds of rows: the entity's
newest earlier entry, what landed on each day, and empty rows on the days an entry is due without anything new. Decayed
sums are carried with their weights rebased to the first day of the window, so that they add up like any other count:
with half-life h, an event of day e weighs 2^((e - start) / h) inside and 2^(-(day - start) / h) turns the sum into that day's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from marketing_assets.config import ACTIVE_DAYS, KEYFRAME_DAYS, REISSUE_DAYS, Store

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from marketing_assets.warehouse import Reader

MONEY = "decimal(38, 4)"


@dataclass(frozen=True)
class Decay:
    """A decayed sum: `value` of each event, halved every `half_life` days after the day it happened."""

    value: str
    half_life: int


@dataclass(frozen=True)
class State:
    """What is carried per entity, and how: counts, money and reals add up, earliest and latest days extend.

    decayed: column -> what it sums and how fast it fades; its increments come weighted by `weight`.
    seen: the latest-day column that tells how long ago the entity was last seen.
    """

    entity: tuple[str, ...]
    counts: tuple[str, ...] = ()
    money: tuple[str, ...] = ()
    reals: tuple[str, ...] = ()
    earliest: tuple[str, ...] = ()
    latest: tuple[str, ...] = ()
    decayed: Mapping[str, Decay] = field(default_factory=dict)
    seen: str = "last_seen_date"

    @property
    def types(self) -> dict[str, str]:
        """Column -> Ibis type of every carried column."""
        return {
            **dict.fromkeys(self.counts, "int64"),
            **dict.fromkeys(self.money, MONEY),
            **dict.fromkeys(self.reals, "float64"),
            **dict.fromkeys(self.decayed, "float64"),
            **dict.fromkeys((*self.earliest, *self.latest), "date"),
        }

    def merged(self, column: ir.Column) -> Any:
        """The aggregate that merges two states of this column."""
        name = column.get_name()
        if name in self.earliest:
            return column.min()
        return column.max() if name in self.latest else column.sum()


def days_of(days: Iterable[date]) -> ir.Table:
    """A table with one column `day`."""
    import ibis

    return ibis.literal(list(days), type="array<date>").unnest().name("day").as_table()


def day_literal(day: date) -> ir.DateValue:
    import ibis

    return ibis.literal(day, type="date")


def age_days(later: Any, earlier: Any) -> Any:
    """Whole days from `earlier` to `later`."""
    return later.delta(earlier, unit="day").cast("int64")


def weight(day: Any, start: date, half_life: int) -> Any:
    """2^((day - start) / half_life): the weight of something that happened on `day`, seen from `start`."""
    return (age_days(day, day_literal(start)).cast("float64") * (math.log(2) / half_life)).exp()


def due_days(days: Sequence[date], store: Store) -> tuple[list[date], list[date]]:
    """The days of a window on which everyone active gets an entry, and those of them that are keyframes."""
    keyframes = [day for day in days if store.is_cadence_day(day, KEYFRAME_DAYS)]
    return [day for day in days if day in keyframes or store.is_cadence_day(day, REISSUE_DAYS)], keyframes


def earlier_entries(
    reader: Reader, name: str, start: date, entity: str, only: ir.Table | None = None, is_reissued: bool = True
) -> ir.Table | None:
    """The log's entries in force before `start`; None on the shop's first day.

    Reads back to the last re-issue day where everyone has an entry on it (is_reissued, and no one can be unseen for
    longer than ACTIVE_DAYS yet), else to the last keyframe. only: a table with the entity's column; where given, entries
    of other entities are left aside.
    """
    import ibis

    store = reader.store
    if start <= store.first_day:
        return None
    log = reader.table(name)
    before = start - timedelta(days=1)
    reissue = max(store.first_day, store.cadence_day_before(before, REISSUE_DAYS))
    since = reissue if is_reissued and (reissue - store.first_day).days <= ACTIVE_DAYS else reader.keyframe_before(before)
    log = log.filter(log.as_of_date.between(day_literal(since), day_literal(before)))
    if only is not None:
        log = log.semi_join(only, entity)
    newest = log.mutate(newest_date=log.as_of_date.max().over(ibis.window(group_by=log[entity])))
    return newest.filter(newest.as_of_date == newest.newest_date).drop("newest_date")


def stack(tables: Iterable[ir.Table], types: Mapping[str, str]) -> ir.Table:
    """Union of tables over the columns of `types`; what a table lacks is null."""
    import ibis

    parts = [
        part.select(**{name: (part[name] if name in part.columns else ibis.null()).cast(kind) for name, kind in types.items()})
        for part in tables
    ]
    return ibis.union(*parts, distinct=False) if len(parts) > 1 else parts[0]


def carried(state: State, entries: ir.Table, start: date) -> ir.Table:
    """Entries of before the window as rows to add up: `day` before the window, decayed sums rebased to `start`."""
    rebased = {name: entries[name] * weight(entries.issued_date, start, decay.half_life) for name, decay in state.decayed.items()}
    return entries.mutate(**rebased).mutate(day=day_literal(start - timedelta(days=1)), carried_date=entries.issued_date)


def entries(
    state: State, increments: ir.Table, before: ir.Table | None, days: Sequence[date], store: Store, moved: ir.Table | None = None
) -> ir.Table:
    """Every entry of the window: the entity, `as_of_date`, `issued_date` and the state's columns as of issued_date.

    increments: one row per entity and `day` of what landed, columns of the state (any may be missing). before: `carried`
    rows. moved: user_id and `moved_date`, from which a user has no more entries.
    An entity has an entry on the days something landed for it; on re-issue days if seen within ACTIVE_DAYS; on keyframe
    days always, where one seen longer ago keeps its issued_date and totals.
    """
    import ibis

    start, end = days[0], days[-1]
    due, keyframes = due_days(days, store)
    keys = list(state.entity)
    types = {**dict.fromkeys(keys, "string"), "day": "date", "carried_date": "date", **state.types}
    rows = stack([increments, *([before] if before is not None else [])], types)
    if due:
        rows = rows.join(_due_counts(days, due), "day")
    so_far = ibis.window(group_by=[rows[key] for key in keys], order_by=rows.day, preceding=None, following=0)
    by_day = ibis.window(group_by=[rows[key] for key in keys], order_by=rows.day)
    changes = rows.select(
        *keys,
        "day",
        "carried_date",
        is_new=rows.day >= day_literal(start),
        **({"due_passed": rows.due_passed, "due_until": rows.due_before.lead().over(by_day).fill_null(len(due))} if due else {}),
        **{name: state.merged(rows[name]).over(so_far).cast(kind) for name, kind in state.types.items()},
    )
    kept = [*keys, "day", "carried_date", "is_new", *state.types]
    found = changes.select(*kept)
    if due:
        # what holds from one landing to the next is repeated on the due days between them
        repeated = changes.filter(changes.due_passed < changes.due_until)
        repeated = repeated.mutate(place=ibis.range(repeated.due_passed, repeated.due_until).unnest()).drop(
            "day", "is_new", "carried_date"
        )
        repeated = repeated.join(_due_list(due), "place").mutate(is_new=ibis.literal(False), carried_date=ibis.null("date"))
        found = found.union(repeated.select(*kept))
    if (end - store.first_day).days > ACTIVE_DAYS:
        found = _long_unseen(state, found, keyframes)
    else:
        found = found.mutate(issued_date=found.day)
    found = found.filter(found.day >= day_literal(start))
    if moved is not None:
        gone = moved.group_by(mover=moved.user_id).agg(first_moved_date=moved.moved_date.min())
        found = found.left_join(gone, found.user_id == gone.mover)
        found = found.filter(found.first_moved_date.isnull() | (found.day < found.first_moved_date))
    columns = {
        name: found[name] if name in (*state.earliest, *state.latest) else found[name].fill_null(0) for name in state.types
    }
    for name, decay in state.decayed.items():
        columns[name] = columns[name] / weight(found.issued_date, start, decay.half_life)
    return found.select(*keys, "issued_date", as_of_date=found.day, **columns)


def _long_unseen(state: State, found: ir.Table, keyframes: Sequence[date]) -> ir.Table:
    """Adds issued_date; of entities not seen for ACTIVE_DAYS only the keyframes stay, issued when last active."""
    import ibis

    is_active = found.is_new | (age_days(found.day, found[state.seen]) <= ACTIVE_DAYS)
    found = found.mutate(is_active=is_active)
    so_far = ibis.window(group_by=[found[key] for key in state.entity], order_by=found.day, preceding=None, following=0)
    issued = found.carried_date.coalesce(ibis.ifelse(found.is_active, found.day, None)).max().over(so_far)
    found = found.mutate(issued_date=issued)
    if keyframes:
        return found.filter(found.is_active | found.day.isin([day_literal(day) for day in keyframes]))
    return found.filter(found.is_active)


def _due_counts(days: Sequence[date], due: Sequence[date]) -> ir.Table:
    """day, due_before, due_passed: how many due days lie before each day of the window, and up to it."""
    import ibis

    calendar = [days[0] - timedelta(days=1), *days]
    rows = [
        {"day": day, "due_before": sum(each < day for each in due), "due_passed": sum(each <= day for each in due)}
        for day in calendar
    ]
    kind = "array<struct<day: date, due_before: int64, due_passed: int64>>"
    return ibis.literal(rows, type=kind).unnest().name("row").as_table().unpack("row")


def _due_list(due: Sequence[date]) -> ir.Table:
    """place (from 0), day."""
    import ibis

    rows = [{"place": place, "day": day} for place, day in enumerate(due)]
    return ibis.literal(rows, type="array<struct<place: int64, day: date>>").unnest().name("row").as_table().unpack("row")
