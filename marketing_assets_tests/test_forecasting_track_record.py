"""The system's own evaluation of issued forecasts says what the benchmark says of the same issue, on a small shop and a real one."""

from __future__ import annotations

import os
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from benchmarks import bench_forecasting as bench
from marketing_assets.config import Store
from marketing_assets.evaluation.demand import score_demand
from marketing_assets.evaluation.windows import arrival
from marketing_assets.forecasting import build_demand
from marketing_assets.schemas import QUANTILE_COLUMNS
from marketing_assets.warehouse import polars_schema, reader_over

Floats = npt.NDArray[np.float64]


def item_days(items: list[str], units: Floats, revenue: Floats, first: date) -> pl.DataFrame:
    """Everything lands on its own day."""
    row, column = np.nonzero(units)
    days = pl.Series([first + timedelta(days=number) for number in range(units.shape[1])])[column]
    zeros = dict.fromkeys(("units_returned", "orders", "views", "carts", "reviews", "ratings", "rating_total"), 0)
    frame = pl.DataFrame(
        {
            "landed_date": days, "event_date": days, "item_id": pl.Series(items)[row], "units_sold": units[row, column],
            "revenue": revenue[row, column], "gross_revenue": revenue[row, column],
        }
    ).with_columns(**{name: pl.lit(value) for name, value in zeros.items()})  # fmt: skip
    schema = polars_schema("item_days")
    return frame.select((pl.col(name) if name in frame.columns else pl.lit(None)).cast(kind).alias(name) for name, kind in schema.items())


def both_ways(items: list[str], units: Floats, revenue: Floats, first: date, issue: date, **settings: Any) -> None:
    """One issue, scored by the system 28 days later and by the benchmark."""
    store = Store.model_validate(
        {"name": "s", "timezone": "UTC", "currency": "GBP", "first_day": first, "methods": "plain", "threads": 1,
         "sources": {"events": {"rows": [{}]}}, "cadence_anchor": issue, "forecasting": settings}
    )  # fmt: skip
    sold = item_days(items, units, revenue, first)
    known = sold.filter(pl.col("landed_date") <= issue)
    issued = build_demand(reader_over({"item_days": known}, store, issue), [issue], store).tables["demand_forecasts"]
    assert isinstance(issued, pl.DataFrame)
    day = issue + timedelta(days=28)
    reader = reader_over({"item_days": sold.filter(pl.col("landed_date") <= day), "demand_forecasts": issued}, store, day)
    delays = sold.group_by("event_date", "landed_date").len("rows")
    report = score_demand(reader, [day], store, arrival(delays, [day], store, is_cold_start_mature=True))
    report = report.filter(pl.col("outcome_date") == day, pl.col("issued_date") == issue, pl.col("horizon_days") == 28)

    case = bench.retail_case(issue, (items, units, revenue, first))
    ours = issued.filter(pl.col("level") == "item").sort("item_id", "date").filter(pl.col("item_id").is_in(case.panel.series["item_id"].implode()))
    mean = ours["demand_mean"].to_numpy().reshape(case.panel.count, 28)
    quantiles = ours.select(list(QUANTILE_COLUMNS.values())).to_numpy().reshape(case.panel.count, 28, -1)
    found = case.score(mean, quantiles[:, :, bench.IS_M5])

    def reported(segment_type: str, segment: str, metric: str) -> float:
        rows = report.filter(pl.col("segment_type") == segment_type, pl.col("segment") == segment, pl.col("metric") == metric)
        assert rows.height == 1
        return float(rows["value"][0])

    assert reported("history", "established", "wrmsse") == pytest.approx(found["item_wrmsse"], rel=1e-6)
    assert reported("history", "established", "scaled_pinball_loss") == pytest.approx(found["pinball"], rel=1e-6)
    if case.panel.count == len(items):
        assert reported("level", "shop", "rmsse") == pytest.approx(found["shop_rmsse"], rel=1e-6)


def test_the_report_of_an_issue_agrees_with_the_benchmark() -> None:
    generator = np.random.default_rng(4)
    level = generator.lognormal(0.5, 1.0, (40, 1))
    units = generator.negative_binomial(1, 1 / (1 + level), (40, 140)).astype(float)
    units[:, 5::7] = 0
    units[:, 0] = 1.0
    units[:, 105] = 2.0
    first = date(2011, 1, 3)
    both_ways([f"i{row:02d}" for row in range(40)], units, units * generator.uniform(1, 9, (40, 1)).round(2), first, first + timedelta(days=111))


@pytest.mark.skipif("MARKETING_DATA" not in os.environ, reason="needs the public data sets: MARKETING_DATA is not set")
def test_the_report_of_an_issue_of_a_real_shop_agrees_with_the_benchmark() -> None:
    items, units, revenue, first = bench.retail_units()
    both_ways(items, units, revenue, first, date(2011, 5, 5), country="GB")
