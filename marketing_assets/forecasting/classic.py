"""Classic forecasters, panel-wise: seasonal naive, Croston with the SBA correction, AR(p) by least squares.

What belongs here: textbook methods as candidates and baselines. What does not: the default forecasters (level_calendar.py,
learned.py), anything that loops over series (sktime_bridge.py).
"""

from __future__ import annotations

import numpy as np

from marketing_assets.forecasting.level_calendar import DECIMALS, Levels, fit_levels
from marketing_assets.forecasting.panel import Flags, Floats, Forecast, Panel
from marketing_assets.forecasting.quantiles import recency_weights, weighted_quantiles

RESIDUAL_HALF_LIFE = 83.0
CROSTON_SMOOTHING = 0.1
AR_ORDER = 7
AR_RIDGE = 5.0


def spread_of(panel: Panel, residuals: Floats, is_counted: Flags) -> Floats:
    """(n, LEVELS) recency-weighted quantiles of past residuals (n, T)."""
    return weighted_quantiles(residuals, is_counted, recency_weights(panel.known, RESIDUAL_HALF_LIFE)[:, None])[:, :, 0]


def around(panel: Panel, mean: Floats, residuals: Floats, is_counted: Flags) -> Forecast:
    """Quantiles of past residuals (n, T) put around a mean (n, horizon), whole units, never negative."""
    spread = spread_of(panel, residuals, is_counted)
    return Forecast(np.round(mean, DECIMALS), np.rint(np.maximum(mean[:, :, None] + spread[:, None, :], 0.0)))


def forecast_seasonal_naive(panel: Panel) -> Forecast:
    """The same place of the newest known season; quantiles from past seasonal differences."""
    season, known = panel.season, panel.known
    columns = known - season + np.arange(panel.horizon) % season
    mean = np.where(columns >= 0, panel.units[:, np.maximum(columns, 0)], 0.0)
    differences = np.zeros_like(panel.units)
    differences[:, season:] = panel.units[:, season:] - panel.units[:, :-season]
    begun = np.arange(known) >= panel.first_sale[:, None] + season
    return around(panel, mean, differences, begun)


def forecast_croston_sba(panel: Panel, levels: Levels | None = None) -> Forecast:
    """Smoothed sizes over smoothed intervals between sales, times 1 - smoothing / 2 (Syntetos and Boylan 2005), on open days only,
    times the worth of the day; quantiles as level x calendar has them."""
    levels = fit_levels(panel) if levels is None else levels
    size, interval, since = np.zeros(panel.count), np.ones(panel.count), np.ones(panel.count)
    has_begun = np.zeros(panel.count, dtype=np.bool_)
    worth = levels.worth
    for column in range(panel.known):
        seen = levels.is_observed[:, column]
        units = np.divide(panel.units[:, column], worth[:, column], out=np.zeros(panel.count), where=worth[:, column] > 0)
        is_sale = seen & (units > 0)
        first = is_sale & ~has_begun
        size = np.where(first, units, np.where(is_sale, size + CROSTON_SMOOTHING * (units - size), size))
        interval = np.where(is_sale & has_begun, interval + CROSTON_SMOOTHING * (since - interval), interval)
        since = np.where(is_sale, 1.0, since + seen)
        has_begun |= is_sale
    level = np.where(has_begun, (1 - CROSTON_SMOOTHING / 2) * size / interval, 0.0)
    ahead = worth[:, panel.known :]
    return Forecast(np.round(level[:, None] * ahead, DECIMALS), np.rint(levels.ratios[:, None, :] * ahead[:, :, None]))


def forecast_ar(panel: Panel, levels: Levels | None = None, order: int = AR_ORDER) -> Forecast:
    """AR(p) with a constant by ridge least squares per series (Hamilton 1994, ch. 5), on units over the worth of the day.

    Days without trade carry the series' mean, so that they neither pull nor push.
    """
    levels = fit_levels(panel) if levels is None else levels
    worth = levels.worth[:, : panel.known]
    rate = np.divide(levels.units, worth, out=np.zeros_like(levels.units), where=worth > 0)
    count = levels.is_observed.sum(axis=1)
    mean = np.divide((rate * levels.is_observed).sum(axis=1), count, out=np.zeros(panel.count), where=count > 0)
    centred = np.where(levels.is_observed, rate - mean[:, None], 0.0)
    fitted = np.zeros_like(centred)
    path = np.zeros((panel.count, panel.horizon))
    if panel.known > 2 * order:
        lagged = np.stack([centred[:, order - lag : panel.known - lag] for lag in range(1, order + 1)], axis=2)
        target = centred[:, order:]
        scale = (target**2).mean(axis=1) + 1e-12
        gram = np.einsum("ntp,ntq->npq", lagged, lagged, optimize=True) + (AR_RIDGE * scale)[:, None, None] * np.eye(order)
        weights = np.linalg.solve(gram, np.einsum("ntp,nt->np", lagged, target)[:, :, None])[:, :, 0]
        fitted[:, order:] = np.einsum("ntp,np->nt", lagged, weights)
        newest = centred[:, panel.known - order :][:, ::-1]
        for step in range(panel.horizon):
            path[:, step] = (newest * weights).sum(axis=1)
            newest = np.concatenate([path[:, step : step + 1], newest[:, :-1]], axis=1)
    ahead = levels.worth[:, panel.known :]
    rates = np.maximum(mean[:, None] + path, 0.0)
    residual = np.divide(panel.units, worth, out=np.zeros_like(panel.units), where=worth > 0) - mean[:, None] - fitted
    spread = spread_of(panel, residual, levels.is_observed)
    quantiles = np.maximum(rates[:, :, None] + spread[:, None, :], 0.0) * ahead[:, :, None]
    return Forecast(np.round(rates * ahead, DECIMALS), np.rint(quantiles))
