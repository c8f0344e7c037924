"""What changed since yesterday's plan, and why.

What belongs here: comparing two plans and the rates behind them. What does not: making either.
"""

from __future__ import annotations

from datetime import date

import polars as pl

from marketing_assets.warehouse import polars_schema

CELL = ["audience_id", "creative_id", "placement_id"]
SMALLEST_CHANGE = 0.05
"""Changes of an input below this share are not called a reason."""


def plan_difference(
    day: date, plan: pl.DataFrame, previous: pl.DataFrame, rates: pl.DataFrame, rates_before: pl.DataFrame | None
) -> pl.DataFrame:
    """plan_diff rows: audience, creative and placement whose impressions changed, with the input that moved most.

    Hours are summed: an hour's shift within a placement is no change of plan. Reasons: 'new' or 'gone' (the cell was or is
    no longer on offer), 'value' (p q v), 'price' or 'supply' where that input changed most and by more than
    SMALLEST_CHANGE, else 'competition': other cells changed, and the budget went there.
    """
    schema = polars_schema("plan_diff")
    if previous.is_empty() and plan.is_empty():
        return pl.DataFrame(schema=schema)

    def totals(frame: pl.DataFrame, suffix: str) -> pl.LazyFrame:
        return frame.lazy().group_by(CELL).agg(
            pl.col("planned_impressions").sum().alias(f"impressions{suffix}"),
            pl.col("planned_spend").sum().alias(f"spend{suffix}"),
        )

    def inputs(frame: pl.DataFrame, suffix: str) -> pl.LazyFrame:
        weight = pl.col("available_impressions")
        return frame.lazy().group_by(CELL).agg(
            ((pl.col("ctr") * pl.col("cvr") * pl.col("value_per_conversion") * weight).sum() / weight.sum()).alias(
                f"worth{suffix}"
            ),
            ((pl.col("cost_per_impression") * weight).sum() / weight.sum()).alias(f"price{suffix}"),
            weight.sum().alias(f"supply{suffix}"),
        )

    rates_before = rates.clear() if rates_before is None else rates_before
    both = (
        totals(plan, "")
        .join(totals(previous, "_before"), on=CELL, how="full", coalesce=True)
        .with_columns(pl.col("impressions", "spend", "impressions_before", "spend_before").fill_null(0.0))
    )
    both = both.join(inputs(rates, ""), on=CELL, how="left").join(inputs(rates_before, "_before"), on=CELL, how="left").sort(CELL)
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
        as_of_date=pl.lit(day),
        plan_id=pl.lit(f"plan-{day}"),
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
