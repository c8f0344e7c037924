"""Accepted rows of any input: raw minus rejected, typed.

What belongs here: the one definition of which input rows count, for inputs that have no clean table of their own.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

from marketing_assets.cleaning.typed import mapped_columns, typed
from marketing_assets.config import Store
from marketing_assets.schemas import FURTHER, INPUTS, RANGE_DAYS

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from marketing_assets.warehouse import Reader


def accepted_landed(reader: Reader, source: str, start: date | None, end: date) -> ir.Table:
    """Every accepted row that landed in [start, end] (start None: from the beginning).

    Typed columns of the input, then landed_date, raw_row_id, source_file and source_row. Instants are UTC.
    """
    raw = reader.table(f"raw_{source}")
    rejected = reader.table("rejected_rows")
    raw = raw.filter(raw.landed_date <= end)
    rejected = rejected.filter(rejected.source == source, rejected.landed_date <= end)
    if start is not None:
        raw = raw.filter(raw.landed_date >= start)
        rejected = rejected.filter(rejected.landed_date >= start)
    kept = raw.anti_join(rejected, ["landed_date", "raw_row_id"])
    # the clock of the window's own last day decides, so that a row reads the same however far the reader sees
    rows = typed(kept, source, reader.store, end, judged=False)
    return rows.select(*INPUTS[source].columns, "landed_date", "raw_row_id", "source_file", "source_row")


def tells_ranges(store: Store, source: str) -> bool:
    """Whether rows of an input about days may hold for more than one."""
    return {"date", "end_date"} <= mapped_columns(store, source)


def with_ranges(rows: ir.Table) -> ir.Table:
    """Accepted rows with end_date filled and held_since, by which what counts comes later when rows of one day are sorted.

    A row that holds until further notice counts below all that is told of a day or a range of days; of two such, the one
    that begins later counts. held_since is its first day, and 31 December 9999 of all other rows.
    """
    import ibis

    end = rows.end_date.fill_null(rows.date)
    is_open = end > (rows.date + ibis.interval(days=RANGE_DAYS)).cast("date")
    return rows.mutate(end_date=end, held_since=ibis.ifelse(is_open, rows.date, date.max))


def by_range(rows: ir.Table, source: str, store: Store, first: date, last: date, known_by: date) -> ir.Table:
    """Accepted rows of an input about days, with held_since (as with_ranges), from date to end_date as far as they hold in [first, last].

    known_by: the first day as of whose end the rows are asked for. What was known by then and holds until further notice
    ends on the day before a later one took its place.
    """
    import ibis

    rows = with_ranges(rows.filter(rows.date <= last))
    if not tells_ranges(store, source):
        return rows.filter(rows.date >= first)
    spec = INPUTS[source]
    if FURTHER not in spec.columns:  # of these, a row may tell other numbers than the one before it
        told = [name for name in spec.columns if name not in (*spec.key, "known_at", "end_date")]
        # rows of one group are known as of the same days: those from known_by on
        is_old = rows.known_at.isnull() | (rows.known_at.date() < known_by - timedelta(days=1))
        group = ibis.window(
            group_by=[
                *(rows[name] for name in spec.key if name != "date"),
                *(rows[name].isnull() for name in told),
                rows.held_since == date.max,
                ibis.greatest(rows.landed_date, known_by),
                ibis.ifelse(is_old, None, rows.known_at),
            ],
            order_by=[rows.date, rows.landed_date, rows.known_at, rows.raw_row_id],
        )
        rows = rows.mutate(next_date=rows.date.lead().over(group), next_end=rows.end_date.lead().over(group))
        is_replaced = (rows.held_since < date.max) & (rows.next_end >= rows.end_date)
        rows = rows.mutate(end_date=ibis.ifelse(is_replaced, (rows.next_date - ibis.interval(days=1)).cast("date"), rows.end_date))
    rows = rows.mutate(date=ibis.greatest(rows.date, first), end_date=ibis.least(rows.end_date, last))
    return rows.filter(rows.date <= rows.end_date)


def by_day(rows: ir.Table, source: str, store: Store, first: date, last: date, known_by: date) -> ir.Table:
    """`by_range`, a row for each of its days."""
    import ibis

    rows, day = by_range(rows, source, store, first, last, known_by), ibis.interval(days=1)
    if not tells_ranges(store, source):
        return rows
    return rows.mutate(date=ibis.range(rows.date.cast("timestamp"), rows.end_date.cast("timestamp") + day, day).unnest().cast("date"))


def accepted_rows(reader: Reader, source: str, start: date | None, end: date) -> ir.Table:
    """Accepted rows of an input as of `end`: its typed columns and landed_date.

    Rows landed in [start, end]; of inputs with a key, from the beginning, one row per key with the newest non-null value
    of each column, by (landed_date, raw_row_id), and the newest landed_date. Rows that hold for several days come day by
    day, up to RANGE_DAYS after `end`, and count as with_ranges says.
    """
    import ibis

    spec = INPUTS[source]
    rows = accepted_landed(reader, source, None if spec.key else start, end)
    if not spec.key:
        return rows.select(*spec.columns, "landed_date")
    rank = ibis.struct({"landed": rows.landed_date, "row": rows.raw_row_id})
    if tells_ranges(reader.store, source):
        rows = by_day(rows, source, reader.store, date.min, end + timedelta(days=RANGE_DAYS), end)
        rank = ibis.struct({"since": rows.held_since, "landed": rows.landed_date, "row": rows.raw_row_id})
    newest = rows.group_by(*spec.key).agg(
        landed_date=rows.landed_date.max(),
        **{
            name: rows[name].argmax(ibis.ifelse(rows[name].notnull(), rank, None))
            for name in spec.columns
            if name not in spec.key
        },
    )
    return newest.select(*spec.columns, "landed_date")
