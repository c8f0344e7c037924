"""What changed since yesterday's plan, and why.

What belongs here: comparing two plans and the rates behind them. What does not: making either.
"""

from __future__ import annotations

import polars as pl

from marketing_assets.warehouse import polars_schema

CELL = ["audience_id", "creative_id", "placement_id"]
SMALLEST_CHANGE = 0.05
"""Changes of an input below this share are not called a reason."""


def plan_difference(plans: pl.DataFrame, rates: pl.DataFrame, issued: pl.DataFrame) -> pl.DataFrame:
    """plan_diff rows: audience, creative and placement whose impressions changed, with the input that moved most.

    plans: ad_plan rows of a window and of the day before it; rates: those that the plans of the window rest on, of the days
    compared; issued: response_rates from the day before the window on. Hours are summed: an hour's shift within a placement is no
    change of plan. Reasons: 'new' or 'gone' (the cell was or is no longer on offer), 'value' (p q v), 'price' or 'supply' where
    that input changed most and by more than SMALLEST_CHANGE, else 'competition': other cells changed, and the budget went there.
    """
    schema = polars_schema("plan_diff")
    key = ["as_of_date", *CELL]
    a_day_on = pl.col("as_of_date").dt.offset_by("1d")
    total = plans.lazy().group_by(key).agg(impressions=pl.col("planned_impressions").sum(), spend=pl.col("planned_spend").sum())
    before = total.select(a_day_on, *CELL, impressions_before="impressions", spend_before="spend")

    def inputs(frame: pl.DataFrame, suffix: str) -> pl.LazyFrame:
        weight = pl.col("available_impressions")
        return frame.lazy().group_by(key).agg(
            ((pl.col("ctr") * pl.col("cvr") * pl.col("value_per_conversion") * weight).sum() / weight.sum()).alias(
                f"worth{suffix}"
            ),
            ((pl.col("cost_per_impression") * weight).sum() / weight.sum()).alias(f"price{suffix}"),
            weight.sum().alias(f"supply{suffix}"),
        )

    both = (
        total.join(before, on=key, how="full", coalesce=True)
        .join(rates.lazy().select("as_of_date").unique(), on="as_of_date", how="semi")
        .with_columns(pl.col("impressions", "spend", "impressions_before", "spend_before").fill_null(0.0))
        .join(inputs(rates, ""), on=key, how="left")
        .join(inputs(issued, "_before").with_columns(a_day_on), on=key, how="left")
        .sort(key)
    )
    changes = [_relative(name) for name in ("worth", "price", "supply")]
    moved = both.with_columns(*changes)
    largest = pl.max_horizontal("worth_change", "price_change", "supply_change")
    reason = (
        pl.when(pl.col("supply_before").is_null())
        .then(pl.lit("new"))
        .when(pl.col("supply").is_null())
        .then(pl.lit("gone"))
        .when(largest < SMALLEST_CHANGE)
        .then(pl.lit("competition"))
        .when(pl.col("worth_change") == largest)
        .then(pl.lit("value"))
        .when(pl.col("price_change") == largest)
        .then(pl.lit("price"))
        .otherwise(pl.lit("supply"))
    )
    rows = moved.filter((pl.col("impressions") - pl.col("impressions_before")).abs() > 1e-6).with_columns(
        plan_id=pl.concat_str(pl.lit("plan-"), pl.col("as_of_date").cast(pl.String)),
        impressions_change=pl.col("impressions") - pl.col("impressions_before"),
        spend_change=pl.col("spend") - pl.col("spend_before"),
        reason=reason,
        input_change=largest,
    )
    return rows.select(pl.col(name).cast(kind) for name, kind in schema.items()).collect()


def _relative(name: str) -> pl.Expr:
    before = pl.col(f"{name}_before")
    return (
        pl.when(before > 0).then((pl.col(name) / before - 1).abs()).otherwise(0.0).fill_null(0.0).round(9).alias(f"{name}_change")
    )
