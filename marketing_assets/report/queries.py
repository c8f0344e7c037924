"""What the report asks of the warehouse, compiled once per process.

What belongs here: sums and selections by the engine. What does not: what is done with them.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from marketing_assets.evaluation.queries import Tables, query

EVALUATED_COLUMNS = (
    "as_of_date",
    "outcome_date",
    "concept",
    "metric",
    "horizon_days",
    "value",
    "baseline_value",
    "ci_low",
    "ci_high",
    "maturity",
    "is_mature",
)


@query
def evaluated_query(table: Tables, concepts: tuple[str, ...], metrics: tuple[str, ...], start: date, end: date) -> Any:
    report = table("evaluation_report")
    return report.filter(
        report.as_of_date.between(start, end),
        report.segment_type == "all",
        report.policy_id == "all",
        report.concept.isin(concepts),
        report.metric.isin(metrics),
    ).select(*EVALUATED_COLUMNS)


@query
def track_query(table: Tables, start: date, end: date) -> Any:
    """Whole-shop rows, and demand by level."""
    report = table("evaluation_report")
    return report.filter(
        report.as_of_date.between(start, end),
        report.policy_id == "all",
        (report.segment_type == "all") | ((report.concept == "demand") & (report.segment_type == "level")),
    ).select(*EVALUATED_COLUMNS, "segment_type", "segment", "baseline", "n")


@query
def planned_query(table: Tables, columns: tuple[str, ...], start: date, end: date) -> Any:
    plan = table("ad_plan")
    plan = plan.filter(plan.as_of_date.between(start, end))
    return plan.group_by("as_of_date").agg(**{name: plan[name].sum() for name in columns})


@query
def shop_forecasts_query(table: Tables, start: date, end: date) -> Any:
    forecasts = table("demand_forecasts")
    return forecasts.filter(forecasts.as_of_date.between(start, end), forecasts.level == "shop").select(
        "as_of_date", "date", "demand_mean", "demand_p10", "demand_p90"
    )


@query
def newest_issue_query(table: Tables, start: date, end: date) -> Any:
    forecasts = table("demand_forecasts")
    return forecasts.filter(forecasts.as_of_date.between(start, end)).agg(issued=forecasts.as_of_date.max())


@query
def wide_forecasts_query(table: Tables, issued: date, day: date) -> Any:
    """Forecasts of one issue above item level, of days after `day`."""
    forecasts = table("demand_forecasts")
    return forecasts.filter(forecasts.as_of_date == issued, forecasts.level != "item", forecasts.date > day).select(
        "level", "series_id", "date", "demand_mean", "demand_p10", "demand_p90", "model"
    )


@query
def sold_query(table: Tables, start: date, end: date) -> Any:
    days = table("item_days")
    days = days.filter(days.landed_date.between(start, end))
    return days.group_by("landed_date", "event_date").agg(units=days.units_sold.sum().cast("float64"))


@query
def reviews_query(table: Tables, start: date, end: date) -> Any:
    days = table("item_days")
    return days.filter(days.landed_date.between(start, end)).agg(reviews=days.reviews.sum())


@query
def orders_query(table: Tables, start: date, end: date) -> Any:
    import ibis

    plan = table("inventory_plan")
    plan = plan.filter(plan.as_of_date.between(start, end))
    return plan.group_by("as_of_date").agg(
        items=ibis.ifelse(plan.order_quantity > 0, 1, 0).sum().cast("float64"), cost=plan.order_cost.sum().cast("float64")
    )


@query
def accepted_query(table: Tables, name: str, start: date, end: date) -> Any:
    rows = table(name)
    rows = rows.filter(rows.landed_date.between(start, end))
    return rows.group_by("landed_date").agg(accepted=rows.count())


@query
def refused_query(table: Tables, start: date, end: date) -> Any:
    rows = table("rejected_rows")
    rows = rows.filter(rows.landed_date.between(start, end))
    return rows.group_by("landed_date", "source").agg(rejected=rows.count())


@query
def reasons_query(table: Tables, start: date, end: date) -> Any:
    """Values differ from row to row; what stands before the first of them is the kind of fault."""
    rows = table("rejected_rows")
    rows = rows.filter(rows.landed_date.between(start, end))
    rows = rows.mutate(kind=rows.reason.re_replace(r"[:(].*$", "").re_replace(r"'[^']*'", "…"))
    return rows.group_by("source", "kind").agg(rows=rows.count(), example=rows.reason.min(), file=rows.source_file.max())
