"""Rates of sparse cells as a product of shrunken effects: who, what, where, when, and which slot.

What belongs here: the estimator and its intervals. What does not: where its counts come from.

log rate(cell) = log base + sum over factors of the effect of the cell's level. Each factor's effects have a gamma prior
with mean 1 whose strength is estimated from the data (credibility theory: Buehlmann 1967; Gelman and Hill 2007, ch. 12),
so that a level with little data stays at its parents, and a factor that explains nothing vanishes. The slot (position)
is a factor of its own: what a creative gains by being shown higher is not taken for its appeal. A rate may also follow a
number, such as the logarithm of a price: its slope is learned along with the effects and is the parent of them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr

from marketing_assets.response.statistics import Floats, Integers, totals

MAXIMUM_RATE = 0.95
SWEEPS = 8
WEAKEST, STRONGEST = 0.05, 1e6
"""Range of a factor's prior strength, in expected events."""
USUAL_SPREAD, USUAL_SPREAD_SD = 0.05, 0.1
"""Variance of the logarithms of a factor's levels before the data speak, and how sure that is."""
SLOPE_SD = 1.0
"""Prior spread of a slope around none: price elasticities lie within about 2 of it."""
LOOSE = 1.0
"""Prior strength of levels known to have changed: what became of them is no draw from what the others are like."""


@dataclass(frozen=True)
class Effects:
    """A fit: base rate, and per factor the levels' multipliers and the variances of their logarithms.

    effects, variances: factor -> one value per level. strength: factor -> prior strength, in events. slope: of the logarithm
    of the rate along the number given to the fit.
    """

    base: float
    base_variance: float
    effects: dict[str, Floats]
    variances: dict[str, Floats]
    strength: dict[str, float]
    slope: float = 0.0
    slope_variance: float = 0.0

    def rate(self, codes: Mapping[str, Integers], factors: Sequence[str] | None = None, along: Floats | None = None) -> Floats:
        """Rates of cells given by level codes; code -1 is a level never seen, at its parents' rate. along: the cells' numbers."""
        log_rate = np.full(len(next(iter(codes.values()))), np.log(self.base))
        if along is not None:
            log_rate += self.slope * along
        for name in factors or self.effects:
            log_rate += _take(np.log(self.effects[name]), codes[name], 0.0)
        return np.asarray(np.minimum(np.exp(log_rate), MAXIMUM_RATE))

    def log_variance(
        self, codes: Mapping[str, Integers], factors: Sequence[str] | None = None, along: Floats | None = None
    ) -> Floats:
        """Variance of the logarithm of each rate, effects taken as independent; a level never seen has its prior's."""
        total = np.full(len(next(iter(codes.values()))), self.base_variance)
        if along is not None:
            total += self.slope_variance * along**2
        for name in factors or self.effects:
            total += _take(self.variances[name], codes[name], 1.0 / (1.0 + self.strength[name]))
        return total


def _take(values: Floats, codes: Integers, missing: float) -> Floats:
    if values.size == 0:
        return np.full(len(codes), missing)
    return np.asarray(np.where(codes >= 0, values[np.maximum(codes, 0)], missing))


def fit_effects(
    events: Floats,
    exposure: Floats,
    codes: Mapping[str, Integers],
    levels: Mapping[str, int],
    prior_rate: float,
    prior_weight: float,
    loose: Mapping[str, Integers] | None = None,
    along: Floats | None = None,
) -> Effects:
    """Fit the effects of every factor by sweeps over the factors, coarse ones first.

    events, exposure: clicks and impressions (conversions and clicks) per row. codes: factor -> level per row, -1 for none.
    levels: factor -> number of levels. prior_rate, prior_weight: the base's prior, in rate and exposure. Factors are
    fitted in the order of `codes`: put parents before children. loose: factor -> levels that learn from themselves alone.
    along: a number per row, around 0, that the rate may follow.
    """
    base = float((events.sum() + prior_weight * prior_rate) / (exposure.sum() + prior_weight))
    expected = base * exposure
    effects = {name: np.ones(levels[name]) for name in codes}
    strength = dict.fromkeys(codes, STRONGEST)
    variances = {name: np.zeros(levels[name]) for name in codes}
    usable = {name: np.flatnonzero(index >= 0) for name, index in codes.items()}
    seen = {name: totals(index[usable[name]], events[usable[name]], levels[name]) for name, index in codes.items()}
    slope, slope_precision = 0.0, 1.0 / SLOPE_SD**2
    for sweep in range(SWEEPS):
        moved = 0.0
        if along is not None:
            gradient = float(((events - expected) * along).sum()) - slope * slope_precision
            step = float(np.clip(gradient / (float((expected * along**2).sum()) + slope_precision), -SLOPE_SD / 2, SLOPE_SD / 2))
            slope += step
            expected = expected * np.exp(step * along)
            moved = abs(step)
        for name, index in codes.items():
            if levels[name] == 0 or not usable[name].size:
                continue
            rows = usable[name]
            whole = rows.size == index.size
            where = index if whole else index[rows]
            without = (expected if whole else expected[rows]) / effects[name][where]
            observed = seen[name]
            mean: Floats = totals(where, without, levels[name])
            if sweep < SWEEPS - 2:
                strength[name] = _strength(observed, mean)
            prior = np.full(levels[name], strength[name])
            if loose is not None and name in loose:
                prior[loose[name]] = np.minimum(prior[loose[name]], LOOSE)
            new = (observed + prior) / (mean + prior)
            ratio = new / effects[name]
            if whole:
                expected = expected * ratio[index]
            else:
                expected[rows] *= ratio[where]
            moved = max(moved, float(np.abs(ratio - 1).max()))
            effects[name] = new
            variances[name] = 1.0 / (observed + prior + 1.0)
        total = float(expected.sum())
        if total > 0:
            weight = prior_weight * prior_rate
            correction = (float(events.sum()) + weight) / (total + weight)
            base *= correction
            expected = expected * correction
        if moved < 1e-4:
            break
    slope_variance = 0.0 if along is None else 1.0 / (float((expected * along**2).sum()) + slope_precision)
    base_variance = 1.0 / (float(events.sum()) + prior_weight * prior_rate + 1.0)
    return Effects(base, base_variance, effects, variances, strength, slope, slope_variance)


def _strength(observed: Floats, expected: Floats) -> float:
    """Prior strength 1 / tau^2 of a factor, tau^2 being the mean of what it may be.

    Moments say tau^2 = sum((O - E)^2 - E) / sum(E^2), give or take sqrt(2 / sum(E^2)). With few levels that is often below
    zero, which is no proof that a factor explains nothing (Chung et al. 2013): the estimate is weighed against what
    factors are usually like, and the mean taken over the values above zero that remain possible.
    """
    seen = expected > 0
    if seen.sum() < 2:
        return STRONGEST
    squares = float((expected[seen] ** 2).sum())
    estimate = float((((observed - expected) ** 2 - expected)[seen]).sum()) / squares
    precision = squares / 2.0
    usual = 1.0 / USUAL_SPREAD_SD**2
    mean = (precision * estimate + usual * USUAL_SPREAD) / (precision + usual)
    deviation = float(1.0 / np.sqrt(precision + usual))
    z = mean / deviation
    tau2 = mean + deviation * float(np.exp(-z * z / 2 - log_ndtr(z)) / np.sqrt(2 * np.pi))
    return float(np.clip(1.0 / max(tau2, 1.0 / STRONGEST), WEAKEST, STRONGEST))
