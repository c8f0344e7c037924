"""The window function of cleaning: raw tables -> clean tables and rejected rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import polars as pl

from marketing_assets.cleaning.attribution import attributed_conversions
from marketing_assets.cleaning.events import clean_events
from marketing_assets.cleaning.identities import as_persons, persons
from marketing_assets.cleaning.impressions import clean_impressions
from marketing_assets.cleaning.outcomes import missing_for_conversions
from marketing_assets.cleaning.typed import mapped_columns, typed
from marketing_assets.config import Store
from marketing_assets.privacy.marks import check_retained
from marketing_assets.schemas import INPUTS, TABLES
from marketing_assets.sources.engine import Staging, rows_in
from marketing_assets.warehouse import Built, polars_schema

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from marketing_assets.warehouse import Reader


def build_cleaning(reader: Reader, days: Sequence[date], store: Store) -> Built:
    """clean_events, clean_impressions, attributed_conversions and rejected_rows of a contiguous window of landed days.

    Reads: every raw table of the window; raw_identities from the beginning; clean_events and clean_impressions of the
    last LATE_DAYS landed days (clicks attribution_window_days longer); where refunds landed, purchases in clean_events and
    credits in attributed_conversions refund_match_days back. Returns Ibis expressions over temporary tables of the
    reader's connection, valid until the next call. Raises Expired where rows of these days were deleted after retention_days.
    """
    import ibis

    check_retained(store, "cleaning", days, ("clean_events", "clean_impressions"))
    start, end = days[0], days[-1]
    staging = Staging(reader, "cleaning")
    inputs = [name for name in INPUTS if reader.has_source(name)]
    landed = {name: _landed(reader, name, start, end) for name in inputs}
    landed = {name: rows for name, rows in landed.items() if rows_in(rows)}
    good: dict[str, ir.Table] = {}
    refused: list[tuple[str, ir.Table]] = []
    for name, rows in landed.items():
        if name not in ("events", "impressions"):
            checked = typed(rows, name, store, end, mapped_columns(store, name))
            bad = staging.keep(
                checked.filter(checked.refusal.notnull()).select("landed_date", "raw_row_id", reason="refusal"), f"bad_{name}"
            )
            refused.append((name, bad))
            good[name] = checked.filter(checked.refusal.isnull())
    known = persons(staging, good.get("identities"), start, end)

    tables: dict[str, Any] = {}
    degraded: dict[str, str] = {}
    clean: dict[str, ir.Table] = {}
    for source, make in (("events", clean_events), ("impressions", clean_impressions)):
        name = f"clean_{source}"
        if source in landed:
            made = make(staging, landed[source], start, end, store, known)
            clean[source] = made.clean
            refused.append((source, staging.keep(made.refused, f"refused_{source}")))
        else:
            # an empty expression, so that what follows need not ask
            clean[source] = reader.table(name).filter(ibis.literal(False))
            if source not in inputs:
                degraded[name] = f"needs source '{source}'"
        tables[name] = clean[source] if source in landed else pl.DataFrame(schema=polars_schema(name))
    conversions = as_persons(good["conversions"], known) if "conversions" in good else None
    if lacking := missing_for_conversions(store):
        degraded["attributed_conversions"] = lacking
    if lacking or not {"events", "impressions", "conversions"} & set(landed):
        tables["attributed_conversions"] = pl.DataFrame(schema=polars_schema("attributed_conversions"))
    else:
        tables["attributed_conversions"] = attributed_conversions(
            staging, start, store, clean["events"], clean["impressions"], conversions
        )
    tables["rejected_rows"] = _rejected(landed, [(source, rows) for source, rows in refused if rows_in(rows)])
    return Built(tables, degraded=degraded)


def _landed(reader: Reader, source: str, start: date, end: date) -> ir.Table:
    """The window's raw rows of an input."""
    import ibis

    raw = reader.table(f"raw_{source}")
    return raw.filter(raw.landed_date.between(ibis.literal(start, type="date"), ibis.literal(end, type="date")))


def _rejected(landed: Mapping[str, ir.Table], refused: Sequence[tuple[str, ir.Table]]) -> ir.Table | pl.DataFrame:
    """Refused rows of every input with file, row, reason and the mapped row as JSON."""
    import ibis

    parts = []
    for source, rows in refused:
        raw = landed[source]
        why = rows.select(why_date="landed_date", why_row="raw_row_id", reason="reason")
        raw = raw.rename({f"raw_{name}": name for name in ("reason",) if name in raw.columns})
        joined = raw.join(why, [raw.landed_date == why.why_date, raw.raw_row_id == why.why_row])
        names = {name: f"raw_{name}" if name == "reason" else name for name in ("source_error", *INPUTS[source].columns)}
        packed = ibis.struct({name: joined[column] for name, column in names.items()})
        joined = joined.mutate(source=ibis.literal(source), row=packed.cast("json").cast("string"))
        parts.append(joined.select(*TABLES["rejected_rows"].columns))
    if not parts:
        return pl.DataFrame(schema=polars_schema("rejected_rows"))
    return ibis.union(*parts) if len(parts) > 1 else parts[0]
