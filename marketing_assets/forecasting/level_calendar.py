"""Level x calendar: each item's recent rate per usual open day times what the day is worth.

What belongs here: the fast forecaster of `methods: plain`, in closed form over the whole panel, which is also where the learned
one starts from. What does not: the calendar (calendar.py), drivers (effects.py), learned corrections (learned.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from marketing_assets.forecasting.calendar import around_holidays, closed_ahead, day_shape, open_on_holidays, present_totals
from marketing_assets.forecasting.effects import Effects, fit_effects, local_level
from marketing_assets.forecasting.new_items import with_prior
from marketing_assets.forecasting.panel import Flags, Floats, Forecast, Panel
from marketing_assets.forecasting.quantiles import HISTORY_SHARES, history_quantiles, pooled_quantiles, rising
from marketing_assets.forecasting.total import course, to_total

LEVEL_WINDOWS = ((28, 0.5), (112, 0.5))
"""(days, weight) of the rates whose mean is an item's level."""
LEAST_SEEN = 0.25
"""Share of a window's days that a rate rests on at least, reaching further back where fewer could be seen."""
CAP_QUANTILE, CAP_FACTOR, CAP_MEDIANS = 0.9, 1.5, 4.0
"""A day's units count up to CAP_FACTOR x this quantile of the item's selling days, and always up to CAP_MEDIANS x their median."""
SHAPE_ROUNDS = 2
"""Times the shop's week and what drivers do are fitted to what the other leaves."""
OWN_WEEK_DAYS = 224
"""A series' own week rests on so many days."""
OWN_WEEK_GUESS, FEWEST_PURCHASES = (0.05, 200.0), 1.0
"""Variance among own weeks before any is seen, and the purchases it counts for; a series' weekday with fewer than FEWEST says nothing of it."""
DECIMALS = 6


def capped(units: Floats) -> Floats:
    """units (n, T) with bulk orders cut."""
    is_sold = units > 0
    selling = is_sold.sum(axis=1)
    ordered = np.sort(np.where(is_sold, units, np.inf), axis=1)
    rows = np.arange(len(units))

    def quantile(level: float) -> Floats:
        place = np.clip(np.ceil(level * selling).astype(np.int64) - 1, 0, units.shape[1] - 1)
        found: Floats = np.where(selling > 0, ordered[rows, place], 0.0)
        return found

    limit = np.maximum(CAP_FACTOR * quantile(CAP_QUANTILE), CAP_MEDIANS * quantile(0.5))
    return np.minimum(units, limit[:, None])


def observed(panel: Panel, shape: Floats) -> Flags:
    """(n, T) days that say something of demand: on offer or sold already, shop open, item to be had (or sold all the same)."""
    begun = np.arange(panel.known) >= panel.begins[:, None]
    return begun & (shape[: panel.known] > 0) & (~panel.is_blocked | (panel.units > 0))


@dataclass(frozen=True)
class Levels:
    """What the panel says without any learning.

    shape: (T + horizon,) of the shop; effects: of drivers; worth: (n, T + horizon) both together and the shop's course ahead, 0 where closed;
    around: (horizon,) what of it is told by a holiday near.
    is_observed: (n, T); units: (n, T) with bulk orders cut; level: (n,) units per usual open day;
    histories: (n, LEVELS, HISTORIES) quantiles of units over worth, the last of them pooled; ratios: (n, LEVELS) those of HISTORY_SHARES.
    """

    shape: Floats
    effects: Effects
    worth: Floats
    around: Floats
    is_observed: Flags
    units: Floats
    level: Floats
    histories: Floats
    ratios: Floats


def fit_levels(panel: Panel) -> Levels:
    """Calendar, drivers, rates per usual open day, and quantiles of what is left. Fast enough to be made anew for every issue."""
    units = capped(panel.units)
    totals = present_totals(panel, units)
    is_open = open_on_holidays(panel)
    shape, of_series = _shapes(panel, totals, is_open)
    is_observed = observed(panel, shape)
    effects = fit_effects(panel, of_series, units, is_observed)
    for _ in range(SHAPE_ROUNDS if effects.names else 0):
        # a weekday that promotions prefer is no better day by itself
        shape, of_series = _shapes(panel, totals / of_shop(effects, units), is_open)
        effects = fit_effects(panel, of_series, units, is_observed, effects)
    worth = of_series * effects.factor
    worth *= own_week(panel, worth[:, : panel.known], units, is_observed)[:, panel.season_place]
    # what drivers did is no course: a promotion of a year ago is not this year's
    usual = shape[: panel.known] * of_shop(effects, units)
    around = around_holidays(panel, totals, usual)
    worth[:, panel.known :] *= course(panel, totals, usual) * around
    worth[:, panel.known :][closed_ahead(panel)] = 0.0
    exposure = is_observed * worth[:, : panel.known]
    sold = np.where(is_observed, units, 0.0)
    level, total_weight = np.zeros(panel.count), np.zeros(panel.count)
    # place of each day among those seen, newest first
    newest = np.cumsum(is_observed[:, ::-1], axis=1)[:, ::-1]
    for days, weight in LEVEL_WINDOWS:
        # an item that could hardly be had in a window is judged by days before it as well
        part = (np.arange(panel.known) >= panel.known - days // panel.step_days) | (newest <= LEAST_SEEN * days // panel.step_days)
        opened = np.where(part, exposure, 0.0).sum(axis=1)
        level += np.where(opened > 0, weight * np.where(part, sold, 0.0).sum(axis=1) / np.where(opened > 0, opened, 1.0), 0.0)
        total_weight += np.where(opened > 0, weight, 0.0)
    level = np.divide(level, total_weight, out=np.zeros(panel.count), where=total_weight > 0)
    histories = history_quantiles(panel, worth[:, : panel.known], is_observed)
    level, histories = with_prior(panel, level, histories, exposure.sum(axis=1))
    pooled = pooled_quantiles(panel, level, histories, is_observed)
    histories = np.round(np.concatenate([histories, pooled[:, :, None]], axis=2), DECIMALS)
    ratios = rising(np.round((histories * HISTORY_SHARES).sum(axis=2), DECIMALS))
    return Levels(shape, effects, worth, around, is_observed, units, np.round(level, DECIMALS), histories, ratios)


def _shapes(panel: Panel, totals: Floats, is_open: Flags) -> tuple[Floats, Floats]:
    """(T + horizon,) worth of the shop's days, and (T + horizon,) or (n, T + horizon) that of its series: holidays are days of their
    week for those who are open on them."""
    shape = day_shape(panel, totals)
    return shape, np.where(is_open, day_shape(panel, totals, has_holidays=False), shape) if is_open.any() else shape


def of_shop(effects: Effects, units: Floats) -> Floats:
    """(T,) what drivers did to the shop as a whole: the mean of their factors, weighted by what series usually sell."""
    usual = units.mean(axis=1)
    if not effects.names or usual.sum() <= 0:
        return np.ones(units.shape[1])
    factor: Floats = usual @ effects.factor[:, : units.shape[1]] / usual.sum()
    return factor


def own_week(panel: Panel, worth: Floats, units: Floats, is_observed: Flags) -> Floats:
    """(n, season) how a series' own week differs from the shop's: 1 where there is too little to tell.

    A gamma prior around 1 whose variance is how much series differ on that weekday beyond chance (moments of the negative binomial;
    Breslow 1984). Bulk orders make purchases fewer than units: by the variance over the mean within weekdays.
    """
    newest = slice(max(0, panel.known - OWN_WEEK_DAYS), panel.known)
    seen = is_observed[:, newest]
    sold, worth = np.where(seen, units[:, newest], 0.0), np.where(seen, worth[:, newest], 0.0)
    expected = local_level(sold, worth) * worth
    days = np.eye(panel.season)[panel.season_place[: panel.known][newest]]
    count, top, bottom = (values @ days for values in (seen.astype(np.float64), sold, expected))
    # what a weekday's days have in common is no chance
    shared = np.divide((top - bottom) ** 2, count, out=np.zeros_like(top), where=count > 0).sum(axis=1)
    free = seen.sum(axis=1) / np.maximum(seen.sum(axis=1) - (count > 0).sum(axis=1), 1)
    spread = (((sold - expected) ** 2).sum(axis=1) - shared) * free
    dispersion = np.maximum(np.divide(spread, expected.sum(axis=1), out=np.ones(panel.count), where=expected.sum(axis=1) > 0), 1.0)
    top, bottom = top / dispersion[:, None], bottom / dispersion[:, None]
    told = bottom > FEWEST_PURCHASES
    beyond = np.where(told, (top - bottom) ** 2 / np.where(told, bottom, 1.0) - 1, 0.0).sum(axis=0)
    guess, weight = OWN_WEEK_GUESS
    variance = np.maximum(beyond + guess * weight, 0.0) / (np.where(told, bottom, 0.0).sum(axis=0) + weight)
    return np.asarray(np.round((top * variance + 1) / (bottom * variance + 1), DECIMALS), dtype=np.float64)


def level_forecast(panel: Panel, levels: Levels) -> Forecast:
    """Mean: level x worth, bulk orders cut. Quantiles: the item's own recency-weighted history over worth, times the day's worth, whole units."""
    ahead = levels.worth[:, panel.known :]
    return Forecast(np.round(levels.level[:, None] * ahead, DECIMALS), np.rint(levels.ratios[:, None, :] * ahead[:, :, None]))


def reconciled(panel: Panel, levels: Levels, forecast: Forecast, is_course_learnt: bool = False) -> Forecast:
    """The forecast of a whole panel with means moved to the shop's total."""
    return replace(forecast, mean=np.round(to_total(panel, levels, forecast.mean, is_course_learnt), DECIMALS))


def forecast_level_calendar(panel: Panel, levels: Levels | None = None) -> Forecast:
    """`level_forecast` of every series, reconciled."""
    levels = fit_levels(panel) if levels is None else levels
    return reconciled(panel, levels, level_forecast(panel, levels))
