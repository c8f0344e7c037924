"""Level x calendar: each item's recent rate per usual open day times what the day is worth.

What belongs here: the fast forecaster of `methods: plain`, in closed form over the whole panel, which is also where the learned
one starts from. What does not: the calendar (calendar.py), drivers (effects.py), learned corrections (learned.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marketing_assets.forecasting.calendar import closed_ahead, day_shape
from marketing_assets.forecasting.effects import Effects, fit_effects, local_level
from marketing_assets.forecasting.new_items import with_prior
from marketing_assets.forecasting.panel import LEVELS, Flags, Floats, Forecast, Panel

LEVEL_WINDOWS = ((28, 0.5), (112, 0.5))
"""(days, weight) of the rates whose mean is an item's level."""
CAP_QUANTILE, CAP_FACTOR, CAP_MEDIANS = 0.9, 1.5, 4.0
"""A day's units count up to CAP_FACTOR x this quantile of the item's selling days, and always up to CAP_MEDIANS x their median."""
QUANTILE_HALF_LIVES = (20.0, 40.0, 80.0, 160.0)
"""Quantiles of an item's history are averaged over these half-lives, in days: the short ones follow, the long ones hold the tail."""
OWN_WEEK_DAYS = 112
OWN_WEEK_PRIOR = 20.0
"""A series' own week rests on so many days and is drawn to the shop's by so many purchases."""
TOTAL_HALF_LIFE = 42.0
"""Half-life, in days, of the level of the shop as a whole."""
TOTAL_BOUNDS = (0.5, 2.0)
DECIMALS = 6
SHARE_TOLERANCE = 1e-9
"""A share of weight this much short of a level has reached it: shares are sums of rounded numbers."""


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
    """(n, T) days that say something of demand: from the first sale on, shop open, item to be had (or sold all the same)."""
    begun = np.arange(panel.known) >= panel.first_sale[:, None]
    return begun & (shape[: panel.known] > 0) & (~panel.is_blocked | (panel.units > 0))


@dataclass(frozen=True)
class Levels:
    """What the panel says without any learning.

    shape: (T + horizon,) of the shop; effects: of drivers; worth: (n, T + horizon) both together, 0 where closed.
    is_observed: (n, T); units: (n, T) with bulk orders cut; level: (n,) units per usual open day;
    ratios: (n, LEVELS) quantiles of units over worth.
    """

    shape: Floats
    effects: Effects
    worth: Floats
    is_observed: Flags
    units: Floats
    level: Floats
    ratios: Floats


def fit_levels(panel: Panel) -> Levels:
    """Calendar, drivers, rates per usual open day, and quantiles of what is left. Fast enough to be made anew for every issue."""
    units = capped(panel.units)
    shape = day_shape(panel, units)
    is_observed = observed(panel, shape)
    effects = fit_effects(panel, shape, units, is_observed)
    worth = shape * effects.factor
    worth *= own_week(panel, worth[:, : panel.known], units, is_observed)[:, panel.season_place]
    worth[:, panel.known :][closed_ahead(panel)] = 0.0
    exposure = is_observed * worth[:, : panel.known]
    sold = np.where(is_observed, units, 0.0)
    level, total_weight = np.zeros(panel.count), np.zeros(panel.count)
    for days, weight in LEVEL_WINDOWS:
        part = slice(max(0, panel.known - days), panel.known)
        opened = exposure[:, part].sum(axis=1)
        # an item that could not be had in a window is judged by the others
        level += np.where(opened > 0, weight * sold[:, part].sum(axis=1) / np.where(opened > 0, opened, 1.0), 0.0)
        total_weight += np.where(opened > 0, weight, 0.0)
    level = np.divide(level, total_weight, out=np.zeros(panel.count), where=total_weight > 0)
    ratios = history_quantiles(panel, worth[:, : panel.known], is_observed)
    level, ratios = with_prior(panel, level, ratios, exposure.sum(axis=1))
    return Levels(shape, effects, worth, is_observed, units, np.round(level, DECIMALS), np.round(ratios, DECIMALS))


def own_week(panel: Panel, worth: Floats, units: Floats, is_observed: Flags) -> Floats:
    """(n, season) how a series' own week differs from the shop's: 1 where there is too little to tell.

    A gamma prior worth OWN_WEEK_PRIOR independent purchases around 1; bulk orders make purchases fewer than units (variance over mean).
    """
    newest = slice(max(0, panel.known - OWN_WEEK_DAYS), panel.known)
    seen = is_observed[:, newest]
    sold, worth = np.where(seen, units[:, newest], 0.0), np.where(seen, worth[:, newest], 0.0)
    expected = local_level(sold, worth) * worth
    spread = ((sold - expected) ** 2).sum(axis=1)
    dispersion = np.maximum(np.divide(spread, expected.sum(axis=1), out=np.ones(panel.count), where=expected.sum(axis=1) > 0), 1.0)
    place = panel.season_place[: panel.known][newest]
    top = np.stack([sold[:, place == each].sum(axis=1) for each in range(panel.season)], axis=1) / dispersion[:, None]
    bottom = np.stack([expected[:, place == each].sum(axis=1) for each in range(panel.season)], axis=1) / dispersion[:, None]
    return np.asarray(np.round((top + OWN_WEEK_PRIOR) / (bottom + OWN_WEEK_PRIOR), DECIMALS), dtype=np.float64)


def history_quantiles(panel: Panel, worth: Floats, is_observed: Flags) -> Floats:
    """(n, LEVELS) recency-weighted quantiles of units per unit of worth, averaged over QUANTILE_HALF_LIVES."""
    ratio = np.divide(panel.units, worth, out=np.zeros_like(panel.units), where=worth > 0)
    weights = [np.where(is_observed, recency_weights(panel.known, half_life), 0.0) for half_life in QUANTILE_HALF_LIVES]
    return np.asarray(np.round(np.mean(np.stack(weighted_quantiles(ratio, weights)), axis=0), DECIMALS), dtype=np.float64)


def weighted_quantiles(values: Floats, weights: list[Floats], levels: Floats = LEVELS) -> list[Floats]:
    """Per set of weights: (n, levels) smallest value of each row whose share of the row's weight reaches the level; 0 without weight."""
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    count, columns = values.shape
    row = np.arange(count)[:, None]
    results = []
    for each in weights:
        reached = np.cumsum(np.take_along_axis(each, order, axis=1), axis=1)
        total = reached[:, -1:]
        # one search over all rows: each row's running share lies in its own unit interval
        share = np.divide(reached, total, out=np.zeros_like(reached), where=total > 0) + row
        place = np.searchsorted(share.ravel(), (levels[None, :] - SHARE_TOLERANCE + row).ravel()).reshape(count, len(levels))
        result = ordered[row, np.clip(place - row * columns, 0, columns - 1)]
        results.append(np.where(total > 0, result, 0.0))
    return results


def recency_weights(known: int, half_life: float) -> Floats:
    """(known,) weight of each day, 1 for the newest."""
    weights: Floats = 0.5 ** (np.arange(known)[::-1] / half_life)
    return weights


def to_total(panel: Panel, levels: Levels, mean: Floats) -> Floats:
    """mean (n, horizon) moved so that the shop's total keeps its recent level, bulk orders included.

    Cutting bulk orders is right for the one item that is not to be the next one's, but the shop as a whole sees them again and again.
    The missing part goes to items by their variance, which costs least in scaled errors (Wickramasuriya et al. 2019, diagonal).
    """
    weight = recency_weights(panel.known, TOTAL_HALF_LIFE)
    fitted = np.where(levels.is_observed, levels.level[:, None] * levels.worth[:, : panel.known], 0.0)
    recent = float((np.where(levels.is_observed, panel.units, 0.0) * weight).sum())
    expected = float((fitted * weight).sum())
    if expected <= 0:
        return mean
    ratio = float(np.clip(recent / expected, *TOTAL_BOUNDS))
    if ratio <= 1:
        lowered: Floats = mean * ratio
        return lowered
    spread = np.where(levels.is_observed, (panel.units - fitted) ** 2 * weight, 0.0).sum(axis=1)
    # an item with no forecast at all gets none of it
    share = np.where(levels.level[:, None] > 0, spread[:, None] * levels.worth[:, panel.known :], 0.0)
    missing = (ratio - 1) * (levels.level[:, None] * levels.worth[:, panel.known :]).sum(axis=0)
    total = share.sum(axis=0)
    moved: Floats = mean + np.divide(share * missing, total, out=np.zeros_like(mean), where=total > 0)
    return moved


def forecast_level_calendar(panel: Panel, levels: Levels | None = None) -> Forecast:
    """Mean: level x worth. Quantiles: the item's own recency-weighted history over worth, times the day's worth, whole units."""
    levels = fit_levels(panel) if levels is None else levels
    ahead = levels.worth[:, panel.known :]
    mean = to_total(panel, levels, levels.level[:, None] * ahead)
    return Forecast(np.round(mean, DECIMALS), np.rint(levels.ratios[:, None, :] * ahead[:, :, None]))
