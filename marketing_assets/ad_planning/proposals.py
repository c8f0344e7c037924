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
    day: date, rates: pl.DataFrame, items: pl.DataFrame, users: Mapping[str, float], store: Store
) -> pl.DataFrame:
    """campaign_proposals rows: the best audience for each category (item, where it has none), most valuable first.

    For an audience shown the subject's creatives wherever it is on offer, up to frequency_cap impressions a user:
    reach (users who may be addressed and for whom there is an impression), participation (share of them who click at
    least once), cost of a day, conversions, and uplift: conversions per user reached, above what the audience's average
    creative brings. The newest catalogue entry by `day` names the category.
    """
    schema = polars_schema("campaign_proposals")
    offered = rates.lazy()
    known = (
        items.lazy()
        .filter(pl.col("as_of_date") <= day)
        .unique("item_id", keep="last", maintain_order=True)
        .select("item_id", "category")
    )
    rows = offered.join(known, on="item_id", how="left").with_columns(
        subject_type=pl.when(pl.col("category").is_not_null()).then(pl.lit("category")).otherwise(pl.lit("item")),
        subject=pl.coalesce("category", "item_id", "creative_id"),
    )
    sizes = pl.LazyFrame(
        {"audience_id": list(users), "users": list(users.values())}, schema={"audience_id": pl.String, "users": pl.Float64}
    )
    weight = pl.col("available_impressions")

    def mean(name: str) -> pl.Expr:
        return (pl.col(name) * weight).sum() / weight.sum()

    every = offered.join(sizes, on="audience_id").with_columns(rate=pl.col("ctr") * pl.col("cvr"))
    usual = every.group_by("audience_id").agg(usual=mean("rate"))
    supply = (
        offered.select("audience_id", "placement_id", "hour", "available_impressions")
        .unique()
        .group_by("audience_id")
        .agg(offered=pl.col("available_impressions").sum())
    )
    summed = (
        rows.join(sizes.filter(pl.col("users") > 0), on="audience_id")
        .with_columns(rate=pl.col("ctr") * pl.col("cvr"))
        .group_by("subject_type", "subject", "audience_id")
        .agg(
            ctr=mean("ctr"),
            rate=mean("rate"),
            price=mean("cost_per_impression"),
            value=mean("value_per_conversion"),
            users=pl.col("users").first(),
        )
    )
    found = (
        summed.join(usual, on="audience_id")
        .join(supply, on="audience_id")
        .with_columns(reach=pl.min_horizontal("users", "offered"))
        .with_columns(impressions=pl.min_horizontal("offered", pl.col("reach") * store.ad_planning.frequency_cap))
        .with_columns(per_user=pl.col("impressions") / pl.col("reach"))
    )
    scored = (
        found.filter(pl.col("impressions") > 0)
        .with_columns(
            as_of_date=pl.lit(day),
            participation=1 - (1 - pl.col("ctr")) ** pl.col("per_user"),
            expected_cost=pl.col("impressions") * pl.col("price"),
            expected_conversions=pl.col("impressions") * pl.col("rate"),
            uplift=(pl.col("rate") - pl.col("usual")) * pl.col("per_user"),
        )
        .with_columns(expected_value=pl.col("expected_conversions") * pl.col("value"))
        .with_columns(net=(pl.col("expected_value") - pl.col("expected_cost")).round(9))
    )
    best = scored.sort("subject_type", "subject", pl.col("net") * -1, "audience_id").unique(
        ["subject_type", "subject"], keep="first", maintain_order=True
    )
    ranked = best.sort(pl.col("net") * -1, "subject_type", "subject").head(store.ad_planning.proposals)
    return ranked.select(pl.col(name).cast(kind) for name, kind in schema.items()).collect()
