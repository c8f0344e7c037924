"""Accepted rows of any input: raw minus rejected, typed.

What belongs here: the one definition of which input rows count, for inputs that have no clean table of their own.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from marketing_assets.cleaning.typed import mapped_columns, typed
from marketing_assets.schemas import INPUTS

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from marketing_assets.warehouse import Reader


def accepted_landed(reader: Reader, source: str, start: date | None, end: date) -> ir.Table:
    """Every accepted row that landed in [start, end] (start None: from the beginning).

    Typed columns of the input, then landed_date, raw_row_id, source_file and source_row. Instants are UTC. A row that holds
    from date to end_date comes once for each of these days.
    """
    import ibis

    raw = reader.table(f"raw_{source}")
    rejected = reader.table("rejected_rows")
    raw = raw.filter(raw.landed_date <= ibis.literal(end, type="date"))
    rejected = rejected.filter(rejected.source == source, rejected.landed_date <= ibis.literal(end, type="date"))
    if start is not None:
        raw = raw.filter(raw.landed_date >= ibis.literal(start, type="date"))
        rejected = rejected.filter(rejected.landed_date >= ibis.literal(start, type="date"))
    kept = raw.anti_join(rejected, ["landed_date", "raw_row_id"])
    # the clock of the window's own last day decides, so that a row reads the same however far the reader sees
    rows = typed(kept, source, reader.store, end, judged=False)
    if {"date", "end_date"} <= mapped_columns(reader.store, source):
        day, first = ibis.interval(days=1), rows.date.cast("timestamp")
        days = ibis.range(first, rows.end_date.fill_null(rows.date).cast("timestamp") + day, day)
        rows = rows.mutate(date=days.unnest().cast("date"))
    return rows.select(*INPUTS[source].columns, "landed_date", "raw_row_id", "source_file", "source_row")


def accepted_rows(reader: Reader, source: str, start: date | None, end: date) -> ir.Table:
    """Accepted rows of an input as of `end`: its typed columns and landed_date.

    Rows landed in [start, end]; of inputs with a key, from the beginning, one row per key with the newest non-null value
    of each column, by (landed_date, raw_row_id), and the newest landed_date.
    """
    import ibis

    spec = INPUTS[source]
    rows = accepted_landed(reader, source, None if spec.key else start, end)
    if not spec.key:
        return rows.select(*spec.columns, "landed_date")
    rank = ibis.struct({"landed": rows.landed_date, "row": rows.raw_row_id})
    newest = rows.group_by(*spec.key).agg(
        landed_date=rows.landed_date.max(),
        **{
            name: rows[name].argmax(ibis.ifelse(rows[name].notnull(), rank, None))
            for name in spec.columns
            if name not in spec.key
        },
    )
    return newest.select(*spec.columns, "landed_date")
