"""Raw impressions -> clean impressions."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

from marketing_assets.cleaning.duplicates import duplicates
from marketing_assets.cleaning.events import Cleaned
from marketing_assets.cleaning.identities import as_persons
from marketing_assets.cleaning.typed import mapped_columns, typed
from marketing_assets.config import Store
from marketing_assets.schemas import TABLES
from marketing_assets.sources.engine import Staging
from marketing_assets.sources.instants import to_local

if TYPE_CHECKING:
    import ibis.expr.types as ir


def clean_impressions(staging: Staging, raw: ir.Table, start: date, end: date, store: Store, known: ir.Table | None) -> Cleaned:
    """clean_impressions of the window start...end, whose raw rows these are, and what was refused."""
    import ibis

    reader = staging.reader
    rows = as_persons(typed(raw, "impressions", store, end, mapped_columns(store, "impressions")), known)
    reach = (store.first_day - timedelta(days=2), end + timedelta(days=3 + store.cleaning.future_tolerance_days))
    rows = rows.mutate(
        impression_id=ibis.coalesce(rows.impression_id, rows.row_hash),
        impression_date=rows.local_date,
        hour=to_local(rows.shown_at, store.timezone, *reach).hour().cast("int64"),
    ).drop("row_hash", "local_date", "source_file", "source_row")
    staged = staging.keep(rows, "impressions")
    staged = staged.mutate(position_in_stage=staged.rowid())
    good = staged.filter(staged.refusal.isnull())
    refused = staged.filter(staged.refusal.notnull()).select("landed_date", "raw_row_id", reason="refusal")
    published = reader.table("clean_impressions")
    repeated = duplicates(
        staging,
        good.select("landed_date", "raw_row_id", row_id="impression_id", position="position_in_stage"),
        published.select("landed_date", row_id="impression_id"),
        start,
    )
    if repeated is not None:
        repeated = repeated.select(position_in_stage="position")
        twice = good.semi_join(repeated, "position_in_stage").select(
            "landed_date", "raw_row_id", reason=ibis.literal("duplicate")
        )
        refused = refused.union(twice)
        good = good.anti_join(repeated, "position_in_stage")
    return Cleaned(good.select(*TABLES["clean_impressions"].columns), refused)
