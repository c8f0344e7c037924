"""The window function: one row per headline figure and day.

What belongs here: which figures make the first screen, and which day and comparison each has. What does not: the page.

Look-backs from day D: evaluation_report LATE_DAYS back (late figures show the newest mature day); ad_plan, inventory_plan,
drift_report, service_tickets, clean_events, clean_impressions and rejected_rows of D and D - 1; item_days 29 days back; demand_forecasts to the
issue in force on D - 1, at most forecasting.horizon_days back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

import polars as pl

from marketing_assets.config import Store
from marketing_assets.report.queries import (
    accepted_query,
    evaluated_query,
    orders_query,
    planned_query,
    refused_query,
    shop_forecasts_query,
    sold_query,
)
from marketing_assets.warehouse import Built, Reader, days_between, polars_schema

TABLE = "daily_report"
LATE_DAYS = 45
"""How far back the newest mature day of a late figure is sought."""
WEEKS = (1, 2, 3, 4)
"""Same weekdays a figure is held against."""
Unit = Literal["money", "count", "rate", "ratio", "points"]
AD_SOURCES = ("impressions", "ad_reports")
PLAN_SOURCES = ("impressions", "ad_reports", "placements")


@dataclass(frozen=True)
class Evaluated:
    """A figure that evaluation_report states. is_late: the newest mature day counts, not the newest day."""

    figure: str
    concept: str
    metric: str
    unit: Unit
    horizon_days: int = 1
    is_late: bool = False


EVALUATED = (
    Evaluated("revenue", "shop", "revenue", "money"),
    Evaluated("orders", "shop", "orders", "count"),
    Evaluated("average_order_value", "shop", "average_order_value", "money"),
    Evaluated("sessions", "shop", "sessions", "count"),
    Evaluated("session_conversion_rate", "shop", "session_conversion_rate", "rate"),
    Evaluated("ad_spend", "ads", "spend", "money"),
    Evaluated("ctr", "ads", "ctr", "rate"),
    Evaluated("ad_revenue", "ads", "ad_revenue", "money", is_late=True),
    Evaluated("roas", "ads", "roas", "ratio", is_late=True),
    Evaluated("mean_rating", "satisfaction", "mean_rating", "points", horizon_days=28),
)
SOURCES: dict[str, tuple[str, ...]] = {"shop": ("events",), "ads": AD_SOURCES, "satisfaction": ("events",)}
PLANNED: dict[str, tuple[str, Unit]] = {
    "planned_spend": ("planned_spend", "money"),
    "planned_impressions": ("planned_impressions", "count"),
    "expected_conversions": ("expected_conversions", "count"),
    "expected_revenue": ("expected_revenue", "money"),
}
COLUMNS = ("as_of_date", "figure", "figure_date", "value", "baseline_value", "ci_low", "ci_high", "unit", "maturity")


def build_daily_report(reader: Reader, days: Sequence[date], store: Store) -> Built:
    """daily_report of `days`: a row for every figure the shop's sources allow, its value null where nothing could be counted."""
    wanted = days_between(days[0] - timedelta(days=1), days[-1])
    calendar = pl.DataFrame({"as_of_date": wanted}, schema={"as_of_date": pl.Date})
    parts = [_evaluated(reader, calendar, store), _planned(reader, calendar, store), _demand(reader, calendar, store)]
    parts += [_stock(reader, calendar, store), _watched(reader, calendar, store)]
    known = pl.concat([part.select(COLUMNS) for part in parts])
    previous = known.select(pl.col("as_of_date") + pl.duration(days=1), "figure", previous_value="value")
    rows = known.filter(pl.col("as_of_date") >= days[0]).join(previous, on=["as_of_date", "figure"], how="left")
    schema = polars_schema(TABLE)
    rows = rows.select(pl.col(name).cast(kind) for name, kind in schema.items()).sort("as_of_date", "figure")
    stated: dict[date, dict[str, float]] = {}
    for row in rows.drop_nulls("value").to_dicts():
        stated.setdefault(row["as_of_date"], {})[row["figure"]] = float(row["value"])
    return Built({TABLE: rows}, metrics={TABLE: stated})


def _rows(
    calendar: pl.DataFrame, figure: str, unit: Unit, found: pl.DataFrame, *, offset: int = 0, fill: float | None = None
) -> pl.DataFrame:
    """A row per day; found: as_of_date, value and what else of COLUMNS is known. fill: value of days without a row."""
    given = {
        "figure_date": pl.col("as_of_date") + pl.duration(days=offset),
        "baseline_value": pl.lit(None, pl.Float64),
        "ci_low": pl.lit(None, pl.Float64),
        "ci_high": pl.lit(None, pl.Float64),
        "maturity": pl.lit(1.0),
    }
    joined = calendar.join(found, on="as_of_date", how="left", maintain_order="left")
    joined = joined.with_columns([expression.alias(name) for name, expression in given.items() if name not in found.columns])
    return joined.with_columns(
        pl.col("figure_date").fill_null(given["figure_date"]),
        pl.col("maturity").cast(pl.Float64).fill_null(1.0),
        pl.col("value").cast(pl.Float64).fill_null(fill) if fill is not None else pl.col("value").cast(pl.Float64),
        figure=pl.lit(figure),
        unit=pl.lit(unit),
    ).select(COLUMNS)


def _evaluated(reader: Reader, calendar: pl.DataFrame, store: Store) -> pl.DataFrame:
    chosen = [entry for entry in EVALUATED if any(reader.has_source(source) for source in SOURCES[entry.concept])]
    if not chosen:
        return _none()
    first, last = calendar["as_of_date"][0], calendar["as_of_date"][-1]
    concepts = tuple(sorted({entry.concept for entry in chosen}))
    metrics = tuple(sorted({entry.metric for entry in chosen}))
    frame = evaluated_query(reader, concepts, metrics, first - timedelta(days=LATE_DAYS), last)
    frame = frame.cast({"as_of_date": pl.Date, "outcome_date": pl.Date}).rename({"outcome_date": "figure_date"})
    parts = []
    for entry in chosen:
        ours = frame.filter(
            pl.col("concept") == entry.concept, pl.col("metric") == entry.metric, pl.col("horizon_days") == entry.horizon_days
        )
        if entry.is_late:
            mature = ours.filter("is_mature").rename({"as_of_date": "known_date"})
            found = (
                calendar.join(mature, how="cross")
                .filter(
                    pl.col("known_date") <= pl.col("as_of_date"),
                    pl.col("known_date") >= pl.col("as_of_date") - pl.duration(days=LATE_DAYS),
                )
                .sort("as_of_date", "figure_date", "known_date")
                .unique("as_of_date", keep="last", maintain_order=True)
            )
        else:
            found = ours.filter(pl.col("figure_date") == pl.col("as_of_date")).sort("as_of_date")
        parts.append(
            _rows(
                calendar,
                entry.figure,
                entry.unit,
                found.select("as_of_date", "figure_date", "value", "baseline_value", "ci_low", "ci_high", "maturity"),
            )
        )
    return pl.concat(parts)


def _planned(reader: Reader, calendar: pl.DataFrame, store: Store) -> pl.DataFrame:
    if not any(reader.has_source(source) for source in PLAN_SOURCES):
        return _none()
    columns = tuple(column for column, _ in PLANNED.values())
    sums = planned_query(reader, columns, calendar["as_of_date"][0], calendar["as_of_date"][-1])
    return pl.concat(
        [
            _rows(calendar, figure, unit, sums.select("as_of_date", value=column), offset=1)
            for figure, (column, unit) in PLANNED.items()
        ]
    )


def _demand(reader: Reader, calendar: pl.DataFrame, store: Store) -> pl.DataFrame:
    """Units expected on the next day by the issue in force."""
    if not reader.has_source("events"):
        return _none()
    first, last = calendar["as_of_date"][0], calendar["as_of_date"][-1]
    frame = shop_forecasts_query(reader, first - timedelta(days=store.forecasting.horizon_days), last)
    frame = frame.cast({"as_of_date": pl.Date, "date": pl.Date}).rename({"as_of_date": "issued_date"})
    issues = frame.select("issued_date").unique().sort("issued_date").with_columns(listed="issued_date")
    found = (
        calendar.sort("as_of_date")
        .join_asof(issues, left_on="as_of_date", right_on="listed")
        .with_columns(date=pl.col("as_of_date") + pl.duration(days=1))
        .join(frame, on=["issued_date", "date"], how="inner")
        .group_by("as_of_date")
        .agg(
            value=pl.col("demand_mean").sum(),
            series=pl.len(),
            ci_low=pl.col("demand_p10").sum(),
            ci_high=pl.col("demand_p90").sum(),
        )
        # quantiles of several series do not add up
        .with_columns(
            pl.when(pl.col("series") == 1).then("ci_low").alias("ci_low"),
            pl.when(pl.col("series") == 1).then("ci_high").alias("ci_high"),
        )
        .drop("series")
        .sort("as_of_date")
        .join(_usual_units(reader, calendar, store), on="as_of_date", how="left", maintain_order="left")
    )
    return _rows(calendar, "expected_units", "count", found, offset=1)


def _usual_units(reader: Reader, calendar: pl.DataFrame, store: Store) -> pl.DataFrame:
    """as_of_date, baseline_value: units sold on the next day's weekday, mean of the last four, as known by then."""
    first, last = calendar["as_of_date"][0], calendar["as_of_date"][-1]
    summed = sold_query(reader, first - timedelta(days=7 * len(WEEKS)), last)
    weeks = calendar.join(pl.DataFrame({"weeks": WEEKS}), how="cross").select(
        "as_of_date", event_date=pl.col("as_of_date") + pl.duration(days=1) - pl.duration(days=1) * (7 * pl.col("weeks"))
    )
    weeks = weeks.filter(pl.col("event_date") >= store.first_day)
    sold = weeks.join(summed.cast({"landed_date": pl.Date, "event_date": pl.Date}), on="event_date", how="inner")
    known = sold.filter(pl.col("landed_date") <= pl.col("as_of_date")).group_by("as_of_date").agg(units=pl.col("units").sum())
    counted = weeks.group_by("as_of_date").agg(seen=pl.len())
    return counted.join(known, on="as_of_date", how="inner").select("as_of_date", baseline_value=pl.col("units") / pl.col("seen"))


def _stock(reader: Reader, calendar: pl.DataFrame, store: Store) -> pl.DataFrame:
    if not reader.has_source("items"):
        return _none()
    frame = orders_query(reader, calendar["as_of_date"][0], calendar["as_of_date"][-1])
    frame = frame.cast({"as_of_date": pl.Date, "items": pl.Float64, "cost": pl.Float64}).sort("as_of_date")
    return pl.concat(
        [
            _rows(calendar, "items_to_order", "count", frame.select("as_of_date", value="items")),
            _rows(calendar, "order_cost", "money", frame.select("as_of_date", value="cost")),
        ]
    )


def _watched(reader: Reader, calendar: pl.DataFrame, store: Store) -> pl.DataFrame:
    """Drift verdicts, complaints and the share of refused rows."""
    first, last = calendar["as_of_date"][0], calendar["as_of_date"][-1]
    verdicts = reader.window("drift_report", first, last, ["as_of_date", "verdict_id", "is_drifted"]).filter("is_drifted")
    found = verdicts.group_by("as_of_date").agg(value=pl.col("verdict_id").n_unique().cast(pl.Float64)).sort("as_of_date")
    parts = [_rows(calendar, "drift_verdicts", "count", found, fill=0.0)]
    if reader.has_source("events"):
        tickets = reader.window("service_tickets", first, last, ["as_of_date", "priority"])
        counted = (
            tickets.group_by("as_of_date")
            .agg(value=pl.len().cast(pl.Float64), urgent=(pl.col("priority") == "urgent").sum().cast(pl.Float64))
            .sort("as_of_date")
        )
        parts.append(_rows(calendar, "complaints", "count", counted.select("as_of_date", "value"), fill=0.0))
        parts.append(_rows(calendar, "urgent_complaints", "count", counted.select("as_of_date", value="urgent"), fill=0.0))
    counts = (
        landed_rows(reader, first, last)
        .group_by(as_of_date="landed_date")
        .agg(value=pl.col("rejected").sum() / (pl.col("rejected").sum() + pl.col("accepted").sum()))
        .sort("as_of_date")
    )
    return pl.concat([*parts, _rows(calendar, "rejected_share", "rate", counts)])


def landed_rows(reader: Reader, start: date, end: date) -> pl.DataFrame:
    """landed_date, source ('events', 'impressions'), accepted and rejected rows, of sources the shop has."""
    parts = []
    rejected = refused_query(reader, start, end)
    for source, table in (("events", "clean_events"), ("impressions", "clean_impressions")):
        if not reader.has_source(source):
            continue
        accepted = accepted_query(reader, table, start, end)
        ours = rejected.filter(pl.col("source") == source).select(
            pl.col("landed_date").cast(pl.Date), pl.col("rejected").cast(pl.Int64)
        )
        accepted = accepted.select(pl.col("landed_date").cast(pl.Date), pl.col("accepted").cast(pl.Int64))
        parts.append(accepted.join(ours, on="landed_date", how="full", coalesce=True).with_columns(source=pl.lit(source)))
    if not parts:
        return pl.DataFrame(schema={"landed_date": pl.Date, "source": pl.String, "accepted": pl.Int64, "rejected": pl.Int64})
    return (
        pl.concat(parts)
        .select("landed_date", "source", pl.col("accepted", "rejected").fill_null(0))
        .sort("landed_date", "source")
    )


def _none() -> pl.DataFrame:
    kinds: dict[str, Any] = polars_schema(TABLE)
    return pl.DataFrame(schema={name: kinds[name] for name in COLUMNS})
