"""Which rows repeat an id.

What belongs here: the rule of duplicates for events and impressions.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

import polars as pl

from marketing_assets.config import LATE_DAYS
from marketing_assets.sources.engine import Staging, rows_in

if TYPE_CHECKING:
    import ibis.expr.types as ir


def duplicates(staging: Staging, rows: ir.Table, published: ir.Table, start: date, days: int = LATE_DAYS) -> ir.Table | None:
    """`position` of rows whose id an accepted row of the last `days` landed days already has; None where there are none.

    rows: position, row_id, landed_date, raw_row_id of the window's good rows. published: row_id and landed_date of earlier
    landed days. Of rows with one id the first by (landed_date, raw_row_id) is accepted, and again the first one that
    landed `days` or more after the last accepted one.
    """
    import ibis

    since = ibis.literal(start - timedelta(days=days - 1), type="date")
    earlier = published.filter(published.landed_date.between(since, ibis.literal(start - timedelta(days=1), type="date")))
    known = staging.keep(earlier.select("row_id", "landed_date").semi_join(rows, "row_id"), "known")
    repeated = rows.group_by("row_id").having(rows.count() > 1).agg(times=rows.count()).select("row_id")
    suspects = staging.keep(repeated.union(known.select("row_id"), distinct=True), "suspects")
    if not rows_in(suspects):
        return None
    own = rows.semi_join(suspects, "row_id").select("position", "row_id", "landed_date", "raw_row_id")
    old = known.select(position=ibis.null("int64"), row_id="row_id", landed_date="landed_date", raw_row_id=ibis.literal(""))
    both = own.union(old)
    order = ibis.window(group_by=both.row_id, order_by=[both.landed_date, both.raw_row_id])
    ranked = both.mutate(
        place=ibis.row_number().over(order), first_date=both.landed_date.min().over(ibis.window(group_by=both.row_id))
    )
    age = ranked.landed_date.delta(ranked.first_date, unit="day")
    ranked = staging.keep(ranked.mutate(age=age.cast("int64")), "ranked")
    is_repeat = ranked.position.notnull() & (ranked.place > 0)
    soon = ranked.filter(is_repeat, ranked.age < days).select("position")
    later = ranked.filter(is_repeat, ranked.age >= days).select("row_id").distinct()
    if not rows_in(later):
        return staging.keep(soon, "duplicates")
    # an id that comes back after so many days: which of its rows are accepted depends on the one accepted before
    chains = ranked.semi_join(later, "row_id").select("position", "row_id", "landed_date", "raw_row_id").to_polars()
    refused = []
    for (_,), chain in chains.sort("row_id", "landed_date", "raw_row_id").group_by("row_id", maintain_order=True):
        accepted: date | None = None
        for position, _, landed, _ in chain.iter_rows():
            if accepted is not None and (landed - accepted).days < days:
                if position is not None:
                    refused.append(position)
            else:
                accepted = landed
    slow = staging.keep(pl.DataFrame({"position": refused}, schema={"position": pl.Int64}), "chains")
    quick = ranked.filter(is_repeat, ranked.age < days).anti_join(later, "row_id").select("position")
    return staging.keep(quick.union(slow), "duplicates")
