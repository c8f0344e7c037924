"""From forecasts of series to rows of demand_forecasts, coherent from item over category to shop.

What belongs here: sums and quantiles of groups, and the table's form. What does not: forecasting series.
"""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl

from marketing_assets.forecasting.level_calendar import DECIMALS, Levels
from marketing_assets.forecasting.panel import LEVELS, Flags, Floats, Forecast, Integers, Panel
from marketing_assets.forecasting.quantiles import recency_weights, weighted_quantiles
from marketing_assets.schemas import QUANTILE_COLUMNS
from marketing_assets.warehouse import polars_schema

GROUP_HALF_LIFE = 83.0
"""Half-life, in days, of what the quantiles of a sum rest on."""
LEVEL_HALF_LIFE, WEEK = 28.0, 7
"""A sum is held against its level of this half-life as known before, alike for all days of a week ahead."""
FEWEST_BEFORE, FEWEST_HELD = 14, 112
"""That level is known after so many open days; with fewer of those than FEWEST_HELD to hold against it, the sum's level is one."""
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


def usual_units(panel: Panel, levels: Levels) -> Floats:
    """(n, T) what each series usually sells in what its known days were worth; 0 where it could not be sold.

    Days before its first sale count as well: others were sold in its place.
    """
    recency = recency_weights(panel.known, GROUP_HALF_LIFE)
    could_sell = ~panel.is_blocked | (panel.units > 0)
    worth = levels.worth[:, : panel.known] * could_sell
    exposure, sold = worth @ recency, np.where(worth > 0, panel.units, 0.0) @ recency
    rate = np.divide(sold, exposure, out=np.zeros(panel.count), where=exposure > 0)
    return np.asarray(rate[:, None] * worth)


def grouped_forecast(panel: Panel, usual: Floats, fitted: int, mean: Floats, groups: Integers, count: int) -> Forecast:
    """Categories, or the shop: the sum of means, with quantiles from how far the sum of units has been from its level known before.

    usual: `usual_units`, of which `fitted` numbers of each group were fitted on the same days: deviations are stretched by
    sqrt(m / (m - fitted)), m being the effective number of days (Kish 1965). See `_no_surer_than_chance` for groups of few days.
    """
    units, past, mean = (sum_groups(values, groups, count) for values in (panel.units, usual, mean))
    mean = np.round(mean, DECIMALS)
    begun = np.cumsum(units, axis=1) > 0
    is_open = (past > 0) & begun
    ratio = np.divide(units, past, out=np.zeros_like(units), where=is_open)
    level = _levels_known(np.where(is_open, units, 0.0), np.where(is_open, past, 0.0))
    recency = recency_weights(panel.known, GROUP_HALF_LIFE)
    quantiles = np.zeros((*mean.shape, len(LEVELS)))
    for first in range(0, panel.horizon, WEEK):
        steps = min(first + WEEK // 2 + 1, panel.horizon, panel.known)
        before = np.pad(level, ((0, 0), (steps, 0)))[:, : panel.known]
        held = is_open & (before > 0)
        is_long = (held.sum(axis=1) >= FEWEST_HELD)[:, None]
        counted = np.where(is_long, held, is_open)
        error = np.divide(ratio, before, out=ratio.copy(), where=is_long & held)
        weight = np.where(counted, recency, 0.0)
        total, squares = weight.sum(axis=1), (weight**2).sum(axis=1)
        centre = np.divide((error * weight).sum(axis=1), total, out=np.zeros(count), where=total > 0)[:, None]
        spread = weighted_quantiles(error, counted, recency[:, None])[:, :, 0]
        relative = np.divide(spread, centre, out=np.zeros_like(spread), where=centre > 0)
        days = np.divide(total**2, squares, out=np.zeros(count), where=squares > 0)
        stretch = np.sqrt(np.divide(days, np.maximum(days - fitted, days / 4), out=np.ones(count), where=days > 0))[:, None]
        relative = np.where(centre > 0, np.maximum(1 + (relative - 1) * stretch, 0.0), 0.0)
        quantiles[:, first : first + WEEK] = np.round(relative, DECIMALS)[:, None, :]
    return Forecast(mean, _no_surer_than_chance(mean, np.rint(mean[:, :, None] * quantiles), is_open.sum(axis=1) < FEWEST_BEFORE))


def _no_surer_than_chance(mean: Floats, quantiles: Floats, is_short: Flags) -> Floats:
    """Quantiles, those of groups with few days no closer to the mean than independent purchases would leave them (Poisson)."""
    if is_short.any():
        from scipy.stats import poisson

        chance = poisson.ppf(LEVELS, mean[is_short][:, :, None])
        quantiles[is_short] = np.where(LEVELS < 0.5, np.minimum(quantiles[is_short], chance), np.maximum(quantiles[is_short], chance))
    return quantiles


def _levels_known(units: Floats, past: Floats) -> Floats:
    """(count, T) the level at the end of each day, as a share of the usual; 0 where too few days were open before."""
    from scipy.signal import lfilter

    keep = [1.0, -(0.5 ** (1 / LEVEL_HALF_LIFE))]
    top, bottom = (lfilter([1.0], keep, values, axis=1) for values in (units, past))
    is_known = np.cumsum(past > 0, axis=1) >= FEWEST_BEFORE
    return np.divide(top, bottom, out=np.zeros_like(units), where=is_known & (bottom > 0))


def issue_rows(issue: date, panel: Panel, levels: Levels, forecast: Forecast, models: pl.Series) -> pl.DataFrame:
    """demand_forecasts rows of one issue: items, their categories and the shop. models: name of the forecaster of each series."""
    parts = [_rows(issue, panel.horizon, "item", panel.series.select("series_id", "item_id", "location_id"), forecast, models)]
    usual = usual_units(panel, levels)

    def add(level: str, names: pl.Series, groups: Integers) -> None:
        nothing = pl.lit(None, pl.String)
        series = pl.DataFrame({"series_id": names}).with_columns(item_id=nothing, location_id=nothing)
        model = pl.Series([SUMMED]).new_from_index(0, names.len())
        fitted = panel.season + len(levels.effects.names)
        parts.append(_rows(issue, panel.horizon, level, series, grouped_forecast(panel, usual, fitted, forecast.mean, groups, names.len()), model))

    categories = panel.series["category"].drop_nulls().unique().sort()
    if categories.len():
        groups = panel.series.select(
            pl.col("category").replace_strict(categories, np.arange(categories.len()), default=-1, return_dtype=pl.Int64)
        )["category"].fill_null(-1).to_numpy()
        add("category", categories, groups)
    if panel.count:
        add("shop", pl.Series(["shop"]), np.zeros(panel.count, dtype=np.int64))
    return pl.concat(parts)


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
