"""Which audience a new campaign for an item or category should address.

What belongs here: ranking audiences for what is advertised. What does not: the plan itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import polars as pl

from marketing_assets.config import Store
from marketing_assets.warehouse import polars_schema


def campaign_proposals(
    rates: pl.DataFrame, items: pl.DataFrame, users: Mapping[date, Mapping[str, float]], store: Store
) -> pl.DataFrame:
    """campaign_proposals rows: on each day of `rates` the best audience for each category (item, where it has none), most valuable first.

    For an audience shown the subject's creatives wherever it is on offer, up to frequency_cap impressions a user:
    reach (users who may be addressed and for whom there is an impression), participation (share of them who click at
    least once), cost of a day, conversions, and uplift: conversions per user reached, above what the audience's average
    creative brings. The newest catalogue entry by a day names the category. users: who may be addressed, by day and audience.
    """
    schema = polars_schema("campaign_proposals")
    offered = rates.lazy()
    known = items.lazy().select("as_of_date", "item_id", "category").sort("as_of_date")
    rows = (
        offered.sort("as_of_date")
        .join_asof(known, on="as_of_date", by="item_id", check_sortedness=False)
        .with_columns(
            subject_type=pl.when(pl.col("category").is_not_null()).then(pl.lit("category")).otherwise(pl.lit("item")),
            subject=pl.coalesce("category", "item_id", "creative_id"),
        )
    )
    sizes = pl.LazyFrame(
        [(day, audience, count) for day, of in users.items() for audience, count in of.items()],
        schema={"as_of_date": pl.Date, "audience_id": pl.String, "users": pl.Float64},
        orient="row",
    )
    of_audience = ["as_of_date", "audience_id"]
    weight = pl.col("available_impressions")

    def mean(name: str) -> pl.Expr:
        return (pl.col(name) * weight).sum() / weight.sum()

    every = offered.join(sizes, on=of_audience).with_columns(rate=pl.col("ctr") * pl.col("cvr"))
    usual = every.group_by(of_audience).agg(usual=mean("rate"))
    supply = (
        offered.select(*of_audience, "placement_id", "hour", "available_impressions")
        .unique()
        .group_by(of_audience)
        .agg(offered=pl.col("available_impressions").sum())
    )
    summed = (
        rows.join(sizes.filter(pl.col("users") > 0), on=of_audience)
        .with_columns(rate=pl.col("ctr") * pl.col("cvr"))
        .group_by("subject_type", "subject", *of_audience)
        .agg(
            ctr=mean("ctr"),
            rate=mean("rate"),
            price=mean("cost_per_impression"),
            value=mean("value_per_conversion"),
            users=pl.col("users").first(),
        )
    )
    found = (
        summed.join(usual, on=of_audience)
        .join(supply, on=of_audience)
        .with_columns(reach=pl.min_horizontal("users", "offered"))
        .with_columns(impressions=pl.min_horizontal("offered", pl.col("reach") * store.ad_planning.frequency_cap))
        .with_columns(per_user=pl.col("impressions") / pl.col("reach"))
    )
    scored = (
        found.filter(pl.col("impressions") > 0)
        .with_columns(
            participation=1 - (1 - pl.col("ctr")) ** pl.col("per_user"),
            expected_cost=pl.col("impressions") * pl.col("price"),
            expected_conversions=pl.col("impressions") * pl.col("rate"),
            uplift=(pl.col("rate") - pl.col("usual")) * pl.col("per_user"),
        )
        .with_columns(expected_value=pl.col("expected_conversions") * pl.col("value"))
        .with_columns(net=(pl.col("expected_value") - pl.col("expected_cost")).round(9))
    )
    best = scored.sort("subject_type", "subject", pl.col("net") * -1, "audience_id").unique(
        ["as_of_date", "subject_type", "subject"], keep="first", maintain_order=True
    )
    ranked = best.sort("as_of_date", pl.col("net") * -1, "subject_type", "subject")
    ranked = ranked.group_by("as_of_date", maintain_order=True).head(store.ad_planning.proposals)
    return ranked.select(pl.col(name).cast(kind) for name, kind in schema.items()).collect()
