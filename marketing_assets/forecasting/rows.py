"""From forecasts of series to rows of demand_forecasts, coherent from item over category to shop.

What belongs here: sums and quantiles of groups, and the table's form. What does not: forecasting series.
"""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl

from marketing_assets.forecasting.calendar import day_shape
from marketing_assets.forecasting.level_calendar import DECIMALS
from marketing_assets.forecasting.panel import LEVELS, Floats, Forecast, Integers, Panel
from marketing_assets.forecasting.quantiles import recency_weights, weighted_quantiles
from marketing_assets.schemas import QUANTILE_COLUMNS
from marketing_assets.warehouse import polars_schema

GROUP_HALF_LIFE = 83.0
"""Half-life, in days, of what the quantiles of a sum rest on."""
SUMMED = "bottom_up"
"""model of categories and the shop: their mean is the sum of their items'."""


def sum_groups(values: Floats, groups: Integers, count: int) -> Floats:
    """(count, columns) rows of `values` added up by group; group -1 is left out."""
    result = np.zeros((count, values.shape[1]))
    order = np.argsort(groups, kind="stable")
    order = order[groups[order] >= 0]
    if order.size:
        present, first = np.unique(groups[order], return_index=True)
        result[present] = np.add.reduceat(values[order], first, axis=0)
    return result


def grouped_forecast(panel: Panel, past: Floats, mean: Floats, groups: Integers, count: int) -> Forecast:
    """Categories, or the shop: the sum of means, with quantiles from how the sum of units has spread around its own level.

    past: (T,) what known days were worth.
    """
    units, mean = sum_groups(panel.units, groups, count), np.round(sum_groups(mean, groups, count), DECIMALS)
    is_open = past > 0
    ratio = np.divide(units, past, out=np.zeros_like(units), where=is_open)
    begun = np.arange(panel.known) >= np.where((units > 0).any(axis=1), (units > 0).argmax(axis=1), panel.known)[:, None]
    recency = recency_weights(panel.known, GROUP_HALF_LIFE)
    weights = np.where(is_open & begun, recency, 0.0)
    total = weights.sum(axis=1)
    usual = np.divide((ratio * weights).sum(axis=1), total, out=np.zeros(count), where=total > 0)
    spread = weighted_quantiles(ratio, weights > 0, recency[:, None])[:, :, 0]
    relative = np.divide(spread, usual[:, None], out=np.zeros((count, len(LEVELS))), where=usual[:, None] > 0)
    return Forecast(mean, np.rint(mean[:, :, None] * relative[:, None, :]))


def issue_rows(issue: date, panel: Panel, forecast: Forecast, models: pl.Series) -> pl.DataFrame:
    """demand_forecasts rows of one issue: items, their categories and the shop. models: name of the forecaster of each series."""
    horizon = panel.horizon
    parts = [_rows(issue, horizon, "item", panel.series.select("series_id", "item_id", "location_id"), forecast, models)]
    past = day_shape(panel)[: panel.known] if panel.count else np.zeros(panel.known)
    categories = panel.series["category"].drop_nulls().unique().sort()
    if categories.len():
        groups = panel.series.select(
            pl.col("category").replace_strict(categories, np.arange(categories.len()), default=-1, return_dtype=pl.Int64)
        )["category"].fill_null(-1).to_numpy()
        parts.append(_level(issue, panel, past, forecast.mean, "category", categories, groups))
    if panel.count:
        parts.append(_level(issue, panel, past, forecast.mean, "shop", pl.Series(["shop"]), np.zeros(panel.count, dtype=np.int64)))
    return pl.concat(parts)


def _level(issue: date, panel: Panel, past: Floats, mean: Floats, level: str, names: pl.Series, groups: Integers) -> pl.DataFrame:
    nothing = pl.lit(None, pl.String)
    series = pl.DataFrame({"series_id": names}).with_columns(item_id=nothing, location_id=nothing)
    model = pl.Series([SUMMED]).new_from_index(0, names.len())
    return _rows(issue, panel.horizon, level, series, grouped_forecast(panel, past, mean, groups, names.len()), model)


def _rows(issue: date, horizon: int, level: str, series: pl.DataFrame, forecast: Forecast, models: pl.Series) -> pl.DataFrame:
    steps = np.arange(1, horizon + 1)
    place = pl.Series(np.repeat(np.arange(series.height), horizon))
    days = pl.Series([issue + timedelta(days=int(step)) for step in steps])[np.tile(steps - 1, series.height)]
    schema = polars_schema("demand_forecasts")
    frame = series[place].with_columns(
        as_of_date=pl.lit(issue), level=pl.lit(level), date=days, horizon_days=pl.Series(np.tile(steps, series.height)),
        model=models.gather(place), demand_mean=pl.Series(forecast.mean.ravel()),
        **{name: pl.Series(np.ascontiguousarray(forecast.quantiles[:, :, k]).ravel()) for k, name in enumerate(QUANTILE_COLUMNS.values())},
    )
    return frame.select(pl.col(name).cast(kind) for name, kind in schema.items())
