"""Randomised comparisons: effect of a treatment against a held-out group, and how to plan such a test.

What belongs here: difference and lift of means with intervals, variance reduction with pre-period data, the sample-ratio
check, test design and intervals that may be looked at daily. What does not: which users are held out (profiles and
recommendations decide by salted hash), reading tables (evaluation/holdouts.py), and uplift by user (uplift.py).

One value per user: users are the unit of randomisation, so sums per user need no further clustering.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from marketing_assets.intervals import Floats, normal_quantile


class ExperimentError(ValueError):
    """A comparison that cannot be made; the message says what is missing."""


@dataclass(frozen=True)
class Comparison:
    """Treated against control.

    uplift: difference of means, in the metric's unit per user. lift: ratio of means - 1, with Fieller's interval (nan ends
    where the control's mean cannot be told from zero). sequential_*: interval of the uplift valid at every look at once.
    """

    treated_users: int
    control_users: int
    treated_mean: float
    control_mean: float
    uplift: float
    uplift_low: float
    uplift_high: float
    lift: float
    lift_low: float
    lift_high: float
    sequential_low: float
    sequential_high: float
    variance_reduction: float = 0.0


def compare(treated: Floats, control: Floats, *, level: float = 0.95) -> Comparison:
    """Difference and ratio of means of independent users. Raises ExperimentError below 2 users an arm.

    Both arms are given the spread of all users about their arm's mean. A treatment moves sums per user by little of their spread,
    and a small arm on its own seldom holds any of the few who spend most: by its own variance it would be far too sure.
    """
    for name, values in (("treated", treated), ("control", control)):
        if values.size < 2:
            raise ExperimentError(f"{name}: at least 2 users are needed, found {values.size}")
        if not np.isfinite(values).all():
            raise ExperimentError(f"{name}: a value is not finite")
    mean_t, mean_c = float(treated.mean()), float(control.mean())
    squares = float(((treated - mean_t) ** 2).sum()) + float(((control - mean_c) ** 2).sum())
    spread_of_all = squares / (treated.size + control.size - 2)
    var_t, var_c = spread_of_all / treated.size, spread_of_all / control.size
    z = normal_quantile(level)
    difference, spread = mean_t - mean_c, z * (var_t + var_c) ** 0.5
    lift_low, lift_high = fieller(mean_t, var_t, mean_c, var_c, z)
    radius = sequential_radius(var_t + var_c, 1 - level, typical=_typical_variance(treated, control))
    return Comparison(
        int(treated.size),
        int(control.size),
        mean_t,
        mean_c,
        difference,
        difference - spread,
        difference + spread,
        mean_t / mean_c - 1 if mean_c != 0 else float("nan"),
        lift_low,
        lift_high,
        difference - radius,
        difference + radius,
    )


def fieller(mean_t: float, var_t: float, mean_c: float, var_c: float, z: float) -> tuple[float, float]:
    """Interval of mean_t / mean_c - 1 for independent means (Fieller 1954); nan where it is unbounded."""
    g = z**2 * var_c / mean_c**2 if mean_c != 0 else float("inf")
    if g >= 1:
        return float("nan"), float("nan")
    ratio = mean_t / mean_c
    root = z / abs(mean_c) * (var_t * (1 - g) + ratio**2 * var_c) ** 0.5
    return (ratio - root) / (1 - g) - 1, (ratio + root) / (1 - g) - 1


def cuped(outcome: Floats, before: Floats) -> tuple[Floats, float]:
    """Outcome with what the pre-period explains taken off, and the share of variance removed (Deng et al. 2013).

    outcome, before: one value per user of all arms together; `before` must predate the assignment. The mean is unchanged.
    """
    variance = float(before.var())
    if variance == 0 or float(outcome.var()) == 0:
        return outcome.copy(), 0.0
    centred = before - before.mean()
    slope = float((centred * (outcome - outcome.mean())).mean()) / variance
    adjusted: Floats = outcome - slope * centred
    return adjusted, 1 - float(adjusted.var()) / float(outcome.var())


def compare_with_past(
    outcome: Floats, is_treated: np.typing.NDArray[np.bool_], before: Floats, *, level: float = 0.95
) -> tuple[Comparison, Comparison]:
    """The plain comparison and the one reduced by the pre-period (CUPED)."""
    plain = compare(outcome[is_treated], outcome[~is_treated], level=level)
    adjusted, reduction = cuped(outcome, before)
    reduced = compare(adjusted[is_treated], adjusted[~is_treated], level=level)
    return plain, Comparison(**{**vars(reduced), "variance_reduction": reduction})


# --- sequential looks -------------------------------------------------------------------------------------------------


def sequential_radius(variance: float, alpha: float, *, typical: float) -> float:
    """Half-width of an interval valid at all looks together (normal mixture; Robbins 1970, Johari et al. 2015).

    variance: of the estimate now. typical: mixing variance, the squared effect the sequence is tightest for; it must not
    depend on the data seen after the test began. radius^2 = V (V + T) / T * (2 log(1 / alpha) + log((V + T) / V)).
    """
    if variance <= 0:
        return 0.0
    total = variance + typical
    return float(np.sqrt(variance * total / typical * (2 * np.log(1 / alpha) + np.log(total / variance))))


TYPICAL_USERS = 5000
"""Users of both arms at which sequential intervals are tightest."""


def _typical_variance(treated: Floats, control: Floats) -> float:
    """Mixing variance: the one that makes the interval tightest at TYPICAL_USERS split as the arms are.

    The optimum is V* (2 log(1 / alpha) + log(2 log(1 / alpha)) + 1), 8.8 V* at 95 %; wide of it the loss is small.
    """
    pooled = float(np.concatenate([treated, control]).var(ddof=1))
    share = control.size / (control.size + treated.size)
    return max(8.8 * pooled * (1 / share + 1 / (1 - share)) / TYPICAL_USERS, 1e-12)


# --- checks and design ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SampleRatio:
    """Whether the arms have the sizes the design says. p_value below 0.001 means the assignment or the logging is broken."""

    expected_share: float
    observed_share: float
    p_value: float

    @property
    def is_ok(self) -> bool:
        return self.p_value >= 0.001


def sample_ratio(control_users: int, all_users: int, expected_share: float) -> SampleRatio:
    """Sample-ratio mismatch check (Fabijan et al. 2019): exact binomial test of the control's share."""
    if all_users == 0:
        raise ExperimentError("sample ratio: no users")
    if not 0 < expected_share < 1:
        return SampleRatio(expected_share, control_users / all_users, 1.0 if control_users == all_users * expected_share else 0.0)
    return SampleRatio(expected_share, control_users / all_users, exact_binomial(control_users, all_users, expected_share))


def exact_binomial(successes: int, trials: int, share: float) -> float:
    """Two-sided exact p-value: probability of all counts no likelier than the one seen (Clopper and Pearson 1934).

    Counts further than 40 standard deviations away add nothing. scipy.stats has it too, and takes seconds to import.
    """
    from scipy.special import gammaln

    reach = 40.0 * math.sqrt(trials * share * (1 - share)) + 40.0
    low = max(0, math.floor(min(trials * share - reach, successes)))
    high = min(trials, math.ceil(max(trials * share + reach, successes)))
    counts = np.arange(low, high + 1, dtype=np.float64)
    ways = gammaln(trials + 1) - gammaln(counts + 1) - gammaln(trials - counts + 1)
    chance = np.exp(ways + counts * math.log(share) + (trials - counts) * math.log1p(-share))
    return min(1.0, float(chance[chance <= chance[successes - low] * (1 + 1e-7)].sum()))


@dataclass(frozen=True)
class Design:
    """How large and long a test must be. users: both arms together; days: nan where traffic never reaches it."""

    users: int
    control_users: int
    days: float
    minimum_detectable_uplift: float


def users_needed(
    uplift: float,
    variance: float,
    *,
    control_share: float = 0.5,
    power: float = 0.8,
    level: float = 0.95,
    variance_reduction: float = 0.0,
) -> int:
    """Users of both arms to see `uplift` (difference of means) with `power`: (z_level + z_power)^2 V (1/s + 1/(1-s)) / uplift^2.

    variance: of one user's value (p (1 - p) for a rate); variance_reduction: what CUPED removes, 0..1.
    """
    from scipy.special import ndtri

    if uplift == 0:
        raise ExperimentError("uplift: a difference of zero can never be shown")
    if not 0 < control_share < 1:
        raise ExperimentError(f"control_share: must lie between 0 and 1, found {control_share}")
    z = normal_quantile(level) + float(ndtri(power))
    spread = variance * (1 - variance_reduction) * (1 / control_share + 1 / (1 - control_share))
    return int(np.ceil(z**2 * spread / uplift**2))


def detectable_uplift(
    users: int,
    variance: float,
    *,
    control_share: float = 0.5,
    power: float = 0.8,
    level: float = 0.95,
    variance_reduction: float = 0.0,
) -> float:
    """The smallest difference of means that `users` show with `power`; inverse of `users_needed`."""
    from scipy.special import ndtri

    z = normal_quantile(level) + float(ndtri(power))
    spread = variance * (1 - variance_reduction) * (1 / control_share + 1 / (1 - control_share))
    return float(z * np.sqrt(spread / max(users, 1)))


def design(
    uplift: float,
    variance: float,
    users_by_day: Floats,
    *,
    control_share: float = 0.5,
    power: float = 0.8,
    level: float = 0.95,
    variance_reduction: float = 0.0,
) -> Design:
    """Users and days for a test. users_by_day: distinct users reached by day 1, 2, ... (returning users count once)."""
    needed = users_needed(
        uplift, variance, control_share=control_share, power=power, level=level, variance_reduction=variance_reduction
    )
    enough = np.flatnonzero(users_by_day >= needed)
    most = int(users_by_day.max()) if users_by_day.size else 0
    return Design(
        needed,
        round(needed * control_share),
        float(enough[0] + 1) if enough.size else float("nan"),
        detectable_uplift(
            most, variance, control_share=control_share, power=power, level=level, variance_reduction=variance_reduction
        ),
    )
