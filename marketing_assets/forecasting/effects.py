"""What known drivers do to demand: a factor per series and day from promotions, prices, ad spend and neighbouring closed days.

What belongs here: the log-linear part of demand, pooled over the panel and shrunk per series. What does not: the shop's calendar
(calendar.py), levels (level_calendar.py).

Units of series i on day t are taken as Poisson with mean local level x day's worth x exp(x_it (b + b_i)). The pooled b is fitted by
Newton steps on the panel, then each b_i with a normal prior around zero (a Poisson mixed model's modes; Breslow and Clayton 1993).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marketing_assets.forecasting.panel import Flags, Floats, Panel

LOCAL_DAYS = 28
"""The local level of a day is the mean over so many days on either side."""
SIGNS = {"price": -1, "promotion": 1, "item_promotion": 1, "shop_promotion": 1, "ad_spend": 1}
"""Which way demand goes, whatever chance says: nobody buys more because it is dearer."""
POOLED = {"price": (-1.0, 1.0), "promotion": (0.0, 0.3), "item_promotion": (0.0, 0.3), "shop_promotion": (0.0, 0.3)}
"""Prior mean and standard deviation of the pooled coefficients, (0, 1) for others. Demand falls with the price (Bijmolt, van Heerde and
Pieters 2005 find elasticities of -2.6 on average; -1 stays well short of that): it tells prices from promotions where both only move together."""
SERIES_DEVIATION = {"price": 1.0, "promotion": 0.3, "item_promotion": 0.3, "shop_promotion": 0.1, "ad_spend": 0.2, "before_closed": 0.1,
                    "after_closed": 0.1}  # fmt: skip
"""Prior standard deviation of a series' own coefficient around the pooled one."""
OVERDISPERSION = 5.0
"""Counts of a day vary more than Poisson: they count for this much less."""
NEWTON_STEPS = 3
"""Steps of one fit, which begins where the last one ended."""
LARGEST_EFFECT = 3.0
"""Log effects are kept within this."""


def driver_columns(panel: Panel, is_closed: Flags) -> dict[str, Floats]:
    """name -> (n, T + horizon): what is known of each day, 0 where usual or unknown; names without any variation are left out.

    promotion: of the item or of the whole shop; where there are both, each by itself as well, since only an item's has a price of its own.
    is_closed: (T + horizon,) days without trade in the whole shop.
    """
    count, known = panel.units.shape
    whole = known + panel.horizon
    columns: dict[str, Floats] = {}
    of_item = np.nan_to_num(panel.drivers.get("promotion", np.zeros((count, whole))))
    columns["promotion"] = np.maximum(of_item, panel.is_promotion[None, :])
    if panel.is_promotion[:known].any() and (of_item[:, :known] > 0).any():
        columns["item_promotion"] = of_item
        columns["shop_promotion"] = np.broadcast_to(panel.is_promotion, of_item.shape).astype(np.float64)
    if "price" in panel.drivers:
        columns["price"] = _relative_price(panel.drivers["price"], known)
    if "ad_spend" in panel.drivers:
        spend = np.maximum(np.nan_to_num(panel.drivers["ad_spend"]), 0.0)
        columns["ad_spend"] = np.log1p(spend / _usual_spend(spend[:, :known])[:, None])
    if not panel.drivers:
        return _varying(columns, known)
    shut = is_closed[None, :] | np.pad(panel.is_blocked & (panel.units == 0), ((0, 0), (0, panel.horizon)))
    if "closed" in panel.drivers:
        shut = shut | (np.nan_to_num(panel.drivers["closed"]) > 0)
    place = panel.season_place
    # a weekday that is always closed is part of the week, not news
    days = [place[:known] == each for each in range(panel.season)]
    always = np.stack([shut[:, :known][:, of].sum(axis=1) > 0.5 * max(of.sum(), 1) for of in days], axis=1)
    odd = (shut & ~always[:, place]).astype(np.float64)
    columns["before_closed"] = np.pad(odd[:, 1:], ((0, 0), (0, 1)))
    columns["after_closed"] = np.pad(odd[:, :-1], ((0, 0), (1, 0)))
    return _varying(columns, known)


def _varying(columns: dict[str, Floats], known: int) -> dict[str, Floats]:
    return {name: np.round(values, 6) for name, values in columns.items() if values.size and np.ptp(values[:, :known]) > 0}


def _relative_price(price: Floats, known: int) -> Floats:
    """Log of price over the series' median known price; an unknown price is the last one before it."""
    filled = _carried_forward(price)
    with np.errstate(invalid="ignore"):
        usual = np.array([np.nanmedian(row) if np.isfinite(row).any() else np.nan for row in price[:, :known]])
        relative = np.log(np.maximum(filled, 1e-6) / np.maximum(usual, 1e-6)[:, None])
    clipped: Floats = np.clip(np.nan_to_num(relative), -1.5, 1.5)
    return clipped


def _usual_spend(past: Floats) -> Floats:
    """(n,) mean of the days with any, of all series for one that had none; days ahead have no say, so that plans can be compared."""
    is_spent = past > 0
    days, total = is_spent.sum(axis=1), past.sum(axis=1)
    of_all = total.sum() / days.sum() if days.any() else 1.0
    usual: Floats = np.divide(total, days, out=np.full(len(past), of_all), where=days > 0)
    return usual


def _carried_forward(values: Floats) -> Floats:
    is_given = np.isfinite(values)
    newest = np.maximum.accumulate(np.where(is_given, np.arange(values.shape[1]), -1), axis=1)
    rows = np.arange(len(values))[:, None]
    carried: Floats = np.where(newest >= 0, values[rows, np.maximum(newest, 0)], np.nan)
    return carried


@dataclass(frozen=True)
class Effects:
    """What drivers do.

    names, pooled: (d,) coefficients; own: (n, d) deviations of the series; factor: (n, T + horizon), 1 on a usual day;
    columns: what `driver_columns` found.
    """

    names: tuple[str, ...]
    pooled: Floats
    own: Floats
    factor: Floats
    columns: dict[str, Floats]


def local_level(sold: Floats, worth: Floats) -> Floats:
    """(n, T) units per unit of worth over LOCAL_DAYS on either side of each day; worth is 0 where nothing could be seen."""
    known = sold.shape[1]
    days = np.arange(known)
    low, high = np.maximum(days - LOCAL_DAYS, 0), np.minimum(days + LOCAL_DAYS + 1, known)

    def around(values: Floats) -> Floats:
        running = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)
        sums: Floats = running[:, high] - running[:, low]
        return sums

    weight = around(worth)
    level: Floats = np.divide(around(sold), weight, out=np.zeros_like(sold), where=weight > 1e-9)
    return level


def fit_effects(panel: Panel, shape: Floats, units: Floats, is_observed: Flags, begun: Effects | None = None) -> Effects:
    """shape: (T + horizon,) or (n, T + horizon) worth of days; units: (n, T) with bulk orders cut; is_observed: (n, T); begun: an
    earlier fit to the same drivers, to go on from."""
    known = panel.known
    closed = np.asarray(shape <= 0 if shape.ndim == 1 else (shape <= 0).all(axis=0))
    columns = driver_columns(panel, closed)
    names = tuple(sorted(columns.keys() - ({"promotion"} if "item_promotion" in columns else set())))
    if not names:
        return Effects((), np.zeros(0), np.zeros((panel.count, 0)), np.ones((panel.count, known + panel.horizon)), {})
    design = np.stack([columns[name] for name in names], axis=2)
    seen = design[:, :known]
    worth = np.where(is_observed, np.broadcast_to(shape[..., :known], units.shape), 0.0)
    sold = np.where(is_observed, units, 0.0)
    prior = 1.0 / np.array([SERIES_DEVIATION[name] for name in names]) ** 2
    mean, deviation = np.array([POOLED.get(name, (0.0, 1.0)) for name in names]).T
    precision, signs = deviation**-2, np.array([SIGNS.get(name, 0) for name in names])
    pooled, own = (mean, np.zeros((panel.count, len(names)))) if begun is None else (begun.pooled, begun.own)
    factor = np.ones_like(units) if begun is None else begun.factor[:, :known]
    base = np.zeros_like(units)
    for _ in range(NEWTON_STEPS):
        # the level is what is left when the drivers' part is taken out, so both settle together
        base = local_level(sold, worth * factor) * worth
        expected = base * factor
        gradient = np.einsum("ntd,nt->nd", seen, sold - expected) / OVERDISPERSION
        curvature = np.einsum("ntd,nte,nt->nde", seen, seen, expected, optimize=True) / OVERDISPERSION
        pooled = pooled + np.linalg.solve(curvature.sum(axis=0) + np.diag(precision), gradient.sum(axis=0) - precision * (pooled - mean))
        factor = _factor(seen, pooled + own)
        expected = base * factor
        gradient = np.einsum("ntd,nt->nd", seen, sold - expected) / OVERDISPERSION - prior * own
        curvature = np.einsum("ntd,nte,nt->nde", seen, seen, expected, optimize=True) / OVERDISPERSION
        step = np.linalg.solve(curvature + np.eye(len(names)) * prior, gradient[:, :, None])[:, :, 0]
        own += np.clip(step, -1.0, 1.0)
        # what all series share belongs to the pooled part
        pooled, own = pooled + own.mean(axis=0), own - own.mean(axis=0)
        total = np.where(signs * (pooled + own) < 0, 0.0, pooled + own)
        pooled = np.where(signs * pooled < 0, 0.0, pooled)
        own = total - pooled
        factor = _factor(seen, pooled + own)
    return Effects(names, np.round(pooled, 9), np.round(own, 9), _factor(design, pooled + own), columns)


def _factor(design: Floats, coefficients: Floats) -> Floats:
    factor: Floats = np.exp(np.clip(np.einsum("ntd,nd->nt", design, coefficients), -LARGEST_EFFECT, LARGEST_EFFECT))
    return factor
