"""The shop's total: its recent level with bulk orders, its trend, its course a year ago; and items moved to it.

What belongs here: what only the sum of items can tell. What does not: quantiles of sums (rows.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from marketing_assets.forecasting.panel import Floats, Panel
from marketing_assets.forecasting.quantiles import recency_weights

if TYPE_CHECKING:
    from marketing_assets.forecasting.level_calendar import Levels

TOTAL_HALF_LIFE = 42.0
"""Half-life, in days, of the level of the shop as a whole."""
FORGOTTEN = 6
"""Half-lives after which a day no longer counts."""
TOTAL_BOUNDS = (0.5, 2.0)
MONEY_DAYS = 28
LEAST_IMPORTANCE = 0.05
"""What moves to an item for the shop's sake is held back by its sales in money, which count for at least this share of the mean item's."""
TREND_SEASONS, FEWEST_SEASONS = 12, 6
"""The trend rests on so many of the newest seasons (weeks), and there is none on fewer."""
TREND_NOISE = 9.0
"""A trend counts by 1 - this / t^2: nothing up to three times its standard error."""
OUTLYING = 4.5
"""Logs of seasons are cut where they lie further from their median than so many median deviations (three standard ones)."""
TREND_DAMPING = 0.9
"""What the trend of a week is worth in the next (Gardner and McKenzie 1985)."""
LARGEST_COURSE = 0.7
"""Log of the course is kept within this."""
YEAR_DAYS, YEAR_WINDOW, AROUND_DAYS = 364, 28, 10
"""A year ago, each day of the horizon is the mean of the days around it, against the window that ended there; so is today's level."""
YEARLY_DEVIATION, YEARLY_NOISE = 0.3, 0.15
"""Standard deviation of a shop's yearly rises, and of what differs from year to year, in logs."""
LARGEST_SEASON_DAYS = 31


def to_total(panel: Panel, levels: Levels, mean: Floats, is_course_learnt: bool = False) -> Floats:
    """mean (n, horizon), bulk orders cut, moved so that the shop's total goes on from its recent level, bulk orders included.

    is_course_learnt: whether the mean says already how the level goes on; then bulk orders alone are missing in it.

    Cutting bulk orders is right for the one item that is not to be the next one's, but the shop as a whole sees them again and again.
    The missing part goes to items by variance over sales in money, where it costs least in weighted errors (Wickramasuriya et al.
    2019, with weights).
    """
    half_life = TOTAL_HALF_LIFE / panel.step_days
    newest = slice(max(0, panel.known - round(FORGOTTEN * half_life)), panel.known)
    weight = recency_weights(panel.known, half_life)[newest]
    seen, units = levels.is_observed[:, newest], panel.units[:, newest]
    fitted = levels.level[:, None] * levels.worth[:, newest] * seen
    recent = float((units * seen).sum(axis=0) @ weight)
    expected = float((levels.units[:, newest] * seen if is_course_learnt else fitted).sum(axis=0) @ weight)
    if expected <= 0:
        return mean
    ahead = levels.worth[:, panel.known :]
    ratio = float(np.clip(recent / expected, *TOTAL_BOUNDS))
    present = mean.sum(axis=0)
    wanted = ratio * (present if is_course_learnt else (levels.level[:, None] * ahead).sum(axis=0))
    mean = mean * np.minimum(np.divide(wanted, present, out=np.ones_like(present), where=present > 0), 1.0)
    missing = np.maximum(wanted - present, 0.0)
    spread = (units * seen - fitted) ** 2 @ weight / np.maximum(seen.astype(np.float64) @ weight, 1e-9)
    money = recent_money(panel)
    spread /= np.maximum(money, LEAST_IMPORTANCE * money.mean() + 1e-9)
    # an item with no forecast at all gets none of it
    share = np.where(levels.level[:, None] > 0, spread[:, None] * ahead, 0.0)
    total = share.sum(axis=0)
    moved: Floats = mean + np.divide(share * missing, total, out=np.zeros_like(mean), where=total > 0)
    return moved


def recent_money(panel: Panel) -> Floats:
    """(n,) sales of the newest MONEY_DAYS at today's price; every price counts as 1 where it is unknown."""
    price = panel.series["unit_price"].cast(float).fill_null(1.0).to_numpy()
    newest = panel.units[:, max(0, panel.known - max(MONEY_DAYS // panel.step_days, 1)) :]
    return np.asarray(newest.sum(axis=1) * np.maximum(price, 0.0), dtype=np.float64)


def course(panel: Panel, sold: Floats, worth: Floats) -> Floats:
    """(horizon,) the shop's level on each day ahead over its recent level: as a year ago, drawn to 1; else its damped trend.

    sold: (T,) units of the shop, bulk orders cut; worth: (T,) of its days. The recent level is that of TOTAL_HALF_LIFE.
    """
    flat = np.ones(panel.horizon)
    season = panel.season
    count = min(TREND_SEASONS, panel.known // season)
    if count < FEWEST_SEASONS or season * panel.step_days > LARGEST_SEASON_DAYS or sold.sum() <= 0:
        return flat
    newest = slice(panel.known - count * season, panel.known)
    top, bottom = (values[newest].reshape(count, season).sum(axis=1) for values in (sold, worth))
    told = (top > 0) & (bottom > season / 4)
    if told.sum() < FEWEST_SEASONS:
        return flat
    level, place = np.log(top[told] / bottom[told]), np.arange(count)[told] - (count - 1)
    # one odd week is no trend
    usual = float(np.median(level))
    spread = OUTLYING * float(np.median(np.abs(level - usual)))
    level = np.clip(level, usual - spread, usual + spread)
    centred = place - place.mean()
    slope = float((centred * level).sum() / (centred**2).sum())
    noise = float(((level - level.mean() - slope * centred) ** 2).sum()) / (told.sum() - 2)
    ahead = (np.arange(panel.horizon) + 1) / season
    yearly = _yearly(panel, sold, worth, noise)
    if yearly is not None:
        return np.asarray(np.round(np.exp(np.clip(yearly, -LARGEST_COURSE, LARGEST_COURSE)), 6), dtype=np.float64)
    error = noise / float((centred**2).sum())
    slope *= max(0.0, 1 - TREND_NOISE * error / slope**2) if slope else 0.0
    weight = recency_weights(panel.known, TOTAL_HALF_LIFE / panel.step_days) * worth
    age = float((weight * np.arange(panel.known)[::-1]).sum() / weight.sum()) / season if weight.sum() > 0 else 0.0
    log = slope * (age + (1 - TREND_DAMPING**ahead) / (1 - TREND_DAMPING))
    return np.asarray(np.round(np.exp(np.clip(log, -LARGEST_COURSE, LARGEST_COURSE)), 6), dtype=np.float64)


def _yearly(panel: Panel, sold: Floats, worth: Floats, noise: float) -> Floats | None:
    """(horizon,) log of how the shop went on a year ago, drawn to 0 by how uncertain that is; None where it is not known.

    noise: variance of the log of a season's total.
    """
    year, window, around = (max(1, round(days / panel.step_days)) for days in (YEAR_DAYS, YEAR_WINDOW, AROUND_DAYS))
    begin = panel.known - year
    if begin - window < 0 or begin + panel.horizon > panel.known:
        return None

    def rate(first: int, last: int) -> float:
        exposure = float(worth[max(first, 0) : last].sum())
        return float(sold[max(first, 0) : last].sum()) / exposure if exposure > 0 else 0.0

    before, here = rate(begin - window, begin), rate(panel.known - window, panel.known)
    weight = recency_weights(panel.known, TOTAL_HALF_LIFE / panel.step_days)
    recent = float((weight * sold).sum()) / max(float((weight * worth).sum()), 1e-9)
    ahead = np.array([rate(begin + step - around, min(begin + step + around + 1, panel.known)) for step in range(panel.horizon)])
    if min(before, here, recent) <= 0 or not (ahead > 0).all():
        return None
    seasons = max(window / panel.season, 1.0), max((2 * around + 1) / panel.season, 1.0)
    variance = noise * sum(1 / each for each in seasons) + YEARLY_NOISE**2
    # a course by the year goes on from the newest window, where a flat one goes on from the longer mean
    found: Floats = np.log(ahead / before * here / recent) * YEARLY_DEVIATION**2 / (YEARLY_DEVIATION**2 + variance)
    return found
