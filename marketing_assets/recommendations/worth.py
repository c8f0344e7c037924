"""What it is worth to put an item before someone: how often looks at it turn into carts, and what its like is to them.

What belongs here: an item's rate after a look, what someone did with it before, and the worth that follows. What does not: tastes
(tastes.py, leanings.py), and what people will buy anyway (scores.py, ranker.py).

Someone who will buy an item anyway gains nothing from being shown it. What is shown and looked at brings its rate after a
look, which differs by what the person did with it before, and whether it is looked at hangs on taste; hence worth = rate x
familiarity x taste^TASTE_POWER.
"""

from __future__ import annotations

import numpy as np

from marketing_assets.recommendations.history import Flags, Floats, History, Integers
from marketing_assets.recommendations.lists import DECIMALS, Singles
from marketing_assets.recommendations.scores import Taste

TASTE_POWER = 0.5
"""Looks of one's own go by taste in full; of what is put before people, following and carting go by it in part."""
LARGEST_CUT = 1.0
"""Prices further from the list price, as log ratio, count as this far: they are more often slips than offers."""
MOST_RESPONSE = 4.0
"""No response to a price is believed to be stronger: exponent of the price ratio."""
LEAST_SPREAD = 0.01
"""Rates of items or categories are never taken to differ less than this (variance of the rate over its mean)."""
FAMILIAR_PRIOR = 10.0
"""Carts or orders by which what people do with familiar items is drawn to what they do with any."""


def turn_rates(looks: Floats, turned: Floats, category: Integers, price: Singles | None = None) -> Floats:
    """Per item how often a look turns into a cart or an order, over the shop's rate; 0 throughout where none ever did.

    An item's rate is drawn to its category's and that to what its price lets expect, each by the spread there is (gamma-Poisson
    empirical Bayes with moment estimates: Clayton and Kaldor 1987). category: code, -1 without one. price: log of 1 + it, 0 where
    unknown, which counts as the usual one.
    """
    if not (looks.sum() > 0 and turned.sum() > 0):
        return np.zeros(len(looks))
    priced = np.ones(len(looks)) if price is None else _by_price(looks, turned, price.astype(np.float64))
    expected = looks * priced * (float(turned.sum()) / float((looks * priced).sum()))
    group = category + 1
    of_group = priced * _drawn(group, turned, expected)[group]
    rate = of_group * _drawn(np.arange(len(looks)), turned, expected * of_group / priced)
    return np.asarray(np.round(rate * (float(looks.sum()) / float((looks * priced).sum())), 9), dtype=np.float64)


def _by_price(looks: Floats, turned: Floats, price: Floats) -> Floats:
    """Per item exp(slope x (its price - the usual price)), in logs, with the slope of a Poisson regression that is drawn to 0."""
    known = price > 0
    if not (looks * known).any():
        return np.ones(len(looks))
    apart = np.where(known, price - np.average(price[known], weights=looks[known]), 0.0)
    every = np.zeros(len(looks), dtype=np.int64)
    return np.asarray(np.exp(price_response(every, looks, turned, apart) * apart), dtype=np.float64)


def price_cuts(price: Floats, listed: Floats) -> Floats:
    """Log of prices over list prices, at most LARGEST_CUT either way; 0 where either is unknown (nan, 0)."""
    known = np.isfinite(price) & (listed > 0)
    ratio = np.log(np.where(known, price, 1.0) / np.where(known, listed, 1.0))
    return np.asarray(np.clip(ratio, -LARGEST_CUT, LARGEST_CUT), dtype=np.float64)


def price_response(item: Integers, looks: Floats, turned: Floats, apart: Floats) -> float:
    """b such that looks turn exp(b x apart) times as often, within items; drawn to 0 as by a standard deviation of 1, and cut at MOST_RESPONSE.

    Rows: days of items. Poisson regression with a level for each item, which drops out: what an item turned in all is split over
    its days by looks x exp(b x apart) (Hausman, Hall and Griliches 1984); Newton's steps.
    """
    moved = np.flatnonzero(apart != 0)
    if not moved.size:
        return 0.0
    touched = np.isin(item, item[moved])  # other items say nothing of it
    _, item = np.unique(item[touched], return_inverse=True)
    looks, turned, apart = looks[touched], turned[touched], apart[touched]
    total = np.bincount(item, weights=turned)
    response = 0.0
    for _ in range(25):
        weight = looks * np.exp(response * apart)
        whole = np.maximum(np.bincount(item, weights=weight), 1e-12)
        mean = np.bincount(item, weights=weight * apart) / whole
        spread = np.maximum(np.bincount(item, weights=weight * apart**2) / whole - mean**2, 0.0)
        step = (float((turned * apart).sum()) - float((total * mean).sum()) - response) / (float((total * spread).sum()) + 1.0)
        response = float(np.clip(response + step, -MOST_RESPONSE, MOST_RESPONSE))
        if abs(step) < 1e-9:
            break
    return round(response, 6)


def _drawn(group: Integers, turned: Floats, expected: Floats) -> Floats:
    """Per group its turned over its expected, drawn to 1."""
    counted, expected = (np.bincount(group, weights=values).astype(np.float64) for values in (turned, expected))
    spread = (float(((counted - expected) ** 2).sum()) - float(expected.sum())) / max(float((expected**2).sum()), 1e-12)
    prior = 1 / max(spread, LEAST_SPREAD)
    return np.asarray((counted + prior) / (expected + prior), dtype=np.float64)


STRANGE, LOOKED_AT, CARTED, BOUGHT = range(4)
"""What a person did with an item before, by the strongest sign."""


def familiarity(history: History, rows: Integers, taste: Floats) -> Singles:
    """By STRANGE to BOUGHT: how often looks turn into carts or orders, over what the items' rates and tastes promise; drawn to 1 by as
    many as FAMILIAR_PRIOR.

    Where things are bought again and again BOUGHT is large, where they are bought once it is small. rows: places in the history;
    taste: of each row's person for its item, as from `Tastes.of_pairs`.
    """
    pair = history.user[rows] * len(history.items) + history.item[rows]
    order = np.lexsort((history.happened[rows], pair))
    at, pair = rows[order], pair[order]
    before = np.ones(len(at), dtype=bool)
    before[1:] = pair[1:] != pair[:-1]
    start = np.maximum.accumulate(np.where(before, np.arange(len(at)), 0))

    def earlier(flags: Flags) -> Flags:
        """Whether the same person did it with the same item on an earlier row."""
        count: Integers = np.cumsum(flags) - flags
        return np.asarray(count > count[start], dtype=bool)

    bought, carted = earlier(history.is_bought[at]), earlier(history.is_wanted[at])
    sign = np.where(bought, BOUGHT, np.where(carted, CARTED, np.where(before, STRANGE, LOOKED_AT)))
    looked = np.flatnonzero(history.views[at] > 0)
    views, turned = history.views[at][looked].astype(np.float64), history.is_wanted[at][looked].astype(np.float64)
    if not turned.any():
        return np.ones(4, dtype=np.float32)
    item = history.item[at][looked]
    seen = np.bincount(item, weights=views).astype(np.float64)
    rate = turn_rates(seen, np.bincount(item, weights=turned).astype(np.float64), np.full(len(seen), -1)) * turned.sum() / views.sum()
    promised = views * rate[item] * taste[order][looked] ** TASTE_POWER
    promised *= turned.sum() / promised.sum()
    counted, expected = (np.bincount(sign[looked], weights=values, minlength=4) for values in (turned, promised))
    return np.asarray((counted + FAMILIAR_PRIOR) / (expected + FAMILIAR_PRIOR), dtype=np.float32)


def signs(seen: Taste) -> Integers:
    """STRANGE to BOUGHT of each pair a person had."""
    return np.where(seen.bought > 0, BOUGHT, np.where(seen.wanted > 0, CARTED, np.where(seen.views > 0, LOOKED_AT, STRANGE)))


def worth(rate: Floats, familiar: Singles, taste: Floats) -> Singles:
    """What it is worth to show these pairs, over showing an average item to anyone; parallel arrays."""
    return np.round(rate * familiar * taste**TASTE_POWER, DECIMALS).astype(np.float32)
