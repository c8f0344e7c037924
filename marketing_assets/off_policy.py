"""What a policy that never ran would have brought, from logs of one that did.

What belongs here: estimators on logged actions with propensities, their diagnostics and intervals. What does not: reading
logs and plans (evaluation/what_if.py) and randomised comparisons (experiments.py).

Notation of one logged row i: context x, action a with reward r, chosen with probability b(a|x) by the logging policy; the
target policy would choose it with probability e(a|x); w = e / b. q(x, a) is a model of the expected reward. Every estimator
is a quotient of sums over rows, so that one bootstrap serves them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from marketing_assets.intervals import Floats, normal_quantile, poisson_weights, seeded

EXACT_ROWS = 256
"""Rows or users with the largest influence that the bootstrap resamples one by one; see `bootstrap`."""


class OffPolicyError(ValueError):
    """A log that cannot be evaluated; the message says which input is wrong and how."""


@dataclass(frozen=True)
class Log:
    """A log under one policy, seen through another. All arrays have one entry per logged row.

    reward: observed. logging_propensity: b(a|x), in (0, 1]. target_propensity: e(a|x), >= 0.
    q_logged: q(x, a) of the action taken. q_target: sum over actions of e(a'|x) q(x, a'). cluster: user of the row, where
    rows of a user are not independent. Raises OffPolicyError on lengths, ranges or values that are not finite.
    """

    reward: Floats
    logging_propensity: Floats
    target_propensity: Floats
    q_logged: Floats | None = None
    q_target: Floats | None = None
    cluster: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        size = len(self.reward)
        if size == 0:
            raise OffPolicyError("reward: the log is empty")
        for name in ("reward", "logging_propensity", "target_propensity", "q_logged", "q_target", "cluster"):
            values = getattr(self, name)
            if values is None:
                continue
            if values.shape != (size,):
                raise OffPolicyError(f"{name}: expected one value for each of {size} rows, found shape {values.shape}")
            if name != "cluster" and not np.isfinite(values).all():
                raise OffPolicyError(f"{name}: row {int(np.flatnonzero(~np.isfinite(values))[0])} is not finite")
        if ((self.logging_propensity <= 0) | (self.logging_propensity > 1)).any():
            raise OffPolicyError("logging_propensity: must lie in (0, 1]; rows logged without one cannot be used")
        if (self.target_propensity < 0).any():
            raise OffPolicyError("target_propensity: must not be negative")
        if (self.q_logged is None) != (self.q_target is None):
            raise OffPolicyError("q_logged and q_target: give both or neither")

    @cached_property
    def weight(self) -> Floats:
        """Importance weights w = e / b."""
        return self.target_propensity / self.logging_propensity

    @cached_property
    def codes(self) -> npt.NDArray[np.int64] | None:
        """The clusters numbered 0, 1, ... in their order."""
        if self.cluster is None:
            return None
        lowest, highest = int(self.cluster.min()), int(self.cluster.max())
        if highest - lowest > 8 * self.cluster.size:
            return np.unique(self.cluster, return_inverse=True)[1]
        is_met = np.bincount(self.cluster - lowest) > 0
        return np.asarray((np.cumsum(is_met) - 1)[self.cluster - lowest])

    def model(self, estimator: str) -> tuple[Floats, Floats]:
        if self.q_logged is None or self.q_target is None:
            raise OffPolicyError(f"{estimator} needs a reward model: q_logged and q_target")
        return self.q_logged, self.q_target


def log_of_distributions(
    reward: Floats,
    action: npt.NDArray[np.int64],
    logging_propensity: Floats,
    target: Floats,
    q: Floats | None = None,
    cluster: npt.NDArray[np.int64] | None = None,
) -> Log:
    """A Log from whole distributions: target and q are rows x actions."""
    rows = np.arange(len(reward))
    if q is None:
        return Log(reward, logging_propensity, target[rows, action], cluster=cluster)
    return Log(reward, logging_propensity, target[rows, action], q[rows, action], (target * q).sum(axis=1), cluster)


class Estimator(Protocol):
    """An estimator: its name and its per-row numerators and denominators; the value is their quotient of sums."""

    @property
    def name(self) -> str: ...

    def terms(self, log: Log) -> tuple[Floats, Floats]: ...


def _ones(log: Log) -> Floats:
    return np.ones(len(log.reward))


@dataclass(frozen=True)
class Ips:
    """Inverse propensity score: mean of min(w, clip) r (Horvitz and Thompson 1952; clipping: Strehl et al. 2010)."""

    clip: float = np.inf
    name: str = field(default="ips", init=False)

    def terms(self, log: Log) -> tuple[Floats, Floats]:
        return np.minimum(log.weight, self.clip) * log.reward, _ones(log)


@dataclass(frozen=True)
class Snips:
    """Self-normalised: sum of w r over sum of w (Swaminathan and Joachims 2015)."""

    clip: float = np.inf
    name: str = field(default="snips", init=False)

    def terms(self, log: Log) -> tuple[Floats, Floats]:
        weight = np.minimum(log.weight, self.clip)
        return weight * log.reward, weight


@dataclass(frozen=True)
class DirectMethod:
    """Mean of the modelled reward under the target policy (Beygelzimer and Langford 2009)."""

    name: str = field(default="direct_method", init=False)

    def terms(self, log: Log) -> tuple[Floats, Floats]:
        return log.model(self.name)[1].copy(), _ones(log)


@dataclass(frozen=True)
class DoublyRobust:
    """Modelled reward plus w (r - q): right where either the model or the propensities are (Dudik et al. 2014)."""

    clip: float = np.inf
    name: str = field(default="doubly_robust", init=False)

    def terms(self, log: Log) -> tuple[Floats, Floats]:
        q_logged, q_target = log.model(self.name)
        return q_target + np.minimum(log.weight, self.clip) * (log.reward - q_logged), _ones(log)


@dataclass(frozen=True)
class SelfNormalisedDoublyRobust:
    """Doubly robust with weights divided by their mean (Kallus and Uehara 2019)."""

    clip: float = np.inf
    name: str = field(default="self_normalised_doubly_robust", init=False)

    def terms(self, log: Log) -> tuple[Floats, Floats]:
        q_logged, q_target = log.model(self.name)
        weight = np.minimum(log.weight, self.clip)
        mean = float(weight.mean())
        if mean == 0:  # nothing of the target policy was logged: no value, where the plain form would return the model's
            return np.full(len(weight), np.nan), _ones(log)
        return q_target + weight / mean * (log.reward - q_logged), _ones(log)


@dataclass(frozen=True)
class SwitchDoublyRobust:
    """Doubly robust where w <= threshold, the model alone elsewhere (Wang, Agarwal and Dudik 2017)."""

    threshold: float = np.inf
    name: str = field(default="switch", init=False)

    def terms(self, log: Log) -> tuple[Floats, Floats]:
        q_logged, q_target = log.model(self.name)
        weight = np.where(log.weight <= self.threshold, log.weight, 0.0)
        return q_target + weight * (log.reward - q_logged), _ones(log)


@dataclass(frozen=True)
class ShrunkDoublyRobust:
    """Doubly robust with optimistic shrinkage, w -> strength w / (w^2 + strength) (Su et al. 2020)."""

    strength: float = np.inf
    name: str = field(default="shrunk_doubly_robust", init=False)

    def terms(self, log: Log) -> tuple[Floats, Floats]:
        q_logged, q_target = log.model(self.name)
        weight = log.weight
        shrunk = weight if np.isinf(self.strength) else self.strength * weight / (weight**2 + self.strength)
        return q_target + shrunk * (log.reward - q_logged), _ones(log)


@dataclass(frozen=True)
class SubGaussianIps:
    """IPS with weights w / (1 - mix + mix w), whose tails are bounded (Metelli et al. 2021)."""

    mix: float = 0.0
    name: str = field(default="sub_gaussian_ips", init=False)

    def terms(self, log: Log) -> tuple[Floats, Floats]:
        return _sub_gaussian(log.weight, self.mix) * log.reward, _ones(log)


@dataclass(frozen=True)
class SubGaussianDoublyRobust:
    """Doubly robust with the same bounded weights."""

    mix: float = 0.0
    name: str = field(default="sub_gaussian_doubly_robust", init=False)

    def terms(self, log: Log) -> tuple[Floats, Floats]:
        q_logged, q_target = log.model(self.name)
        return q_target + _sub_gaussian(log.weight, self.mix) * (log.reward - q_logged), _ones(log)


def _sub_gaussian(weight: Floats, mix: float) -> Floats:
    bounded: Floats = weight / (1 - mix + mix * weight)
    return bounded


WITHOUT_MODEL: tuple[Estimator, ...] = (Ips(), Snips())
WITH_MODEL: tuple[Estimator, ...] = (
    DirectMethod(),
    DoublyRobust(),
    SelfNormalisedDoublyRobust(),
    SwitchDoublyRobust(10.0),
    ShrunkDoublyRobust(10.0),
)


@dataclass(frozen=True)
class Estimate:
    """A value with its interval and what it rests on."""

    estimator: str
    value: float
    ci_low: float
    ci_high: float
    n: int
    clusters: int
    effective_sample_size: float


@dataclass(frozen=True)
class Support:
    """How far the log can speak for the target policy.

    mean_weight: 1 in expectation where every action of the target policy could be logged; well below means it wants what
    was never shown. max_weight_share: the largest row's share of all weight.
    """

    effective_sample_size: float
    mean_weight: float
    max_weight: float
    max_weight_share: float
    unsupported_share: float

    @property
    def is_supported(self) -> bool:
        """Enough to act on: 200 effective rows, weights that add up, nearly nothing outside the log."""
        return self.effective_sample_size >= 200 and 0.8 <= self.mean_weight <= 1.25 and self.unsupported_share <= 0.05


def support(log: Log, unsupported_share: float = 0.0) -> Support:
    """Diagnostics. unsupported_share: share of the target policy's mass on actions the log never took, where known."""
    weight = log.weight
    total = float(weight.sum())
    return Support(
        effective_sample_size=effective_sample_size(log),
        mean_weight=float(weight.mean()),
        max_weight=float(weight.max()),
        max_weight_share=float(weight.max()) / total if total > 0 else 0.0,
        unsupported_share=unsupported_share,
    )


def effective_sample_size(log: Log) -> float:
    """Kish's (1965) (sum w)^2 / sum w^2, over clusters where the log has them."""
    weight = log.weight
    if log.codes is not None:
        weight = np.bincount(log.codes, weight).astype(np.float64)
    squares = float((weight**2).sum())
    return float(weight.sum()) ** 2 / squares if squares > 0 else 0.0


def evaluate(
    log: Log, estimators: Sequence[Estimator], *, level: float = 0.95, replicates: int = 1000, seed: int = 0
) -> list[Estimate]:
    """Every estimator's value with a bootstrap interval, resampled by cluster where the log has clusters."""
    codes = log.codes
    size = effective_sample_size(log)
    estimates = []
    for estimator in estimators:
        num, den = estimator.terms(log)
        if codes is not None:
            num, den = np.bincount(codes, num).astype(np.float64), np.bincount(codes, den).astype(np.float64)
        value = float(num.sum() / den.sum()) if den.sum() != 0 else float("nan")
        low, high = bootstrap_interval(num, den, level=level, replicates=replicates, generator=seeded(seed, estimator.name))
        estimates.append(Estimate(estimator.name, value, low, high, len(log.reward), len(num), size))
    return estimates


def bootstrap(num: Floats, den: Floats, replicates: int, generator: np.random.Generator, exact_rows: int = EXACT_ROWS) -> Floats:
    """Bootstrap copies of sum(num) / sum(den), rows (or clusters) weighted by independent Poisson(1).

    The `exact_rows` rows of largest influence |num - value den| are drawn one by one. The rest is many small independent
    terms; their weighted sums are drawn at once from their normal limit with exact mean and covariance
    (sum of x, sum of x x'). A log of 10,000 rows costs a few hundred draws per copy instead of 10,000.
    """
    if den.sum() == 0:
        return np.full(replicates, np.nan)
    value = num.sum() / den.sum()
    influence = np.abs(num - value * den)
    if num.size <= 2 * exact_rows:
        top = np.arange(num.size)
        rest = np.array([], dtype=np.int64)
    else:
        # negated: rows without a reward tie, and partitioning is slow with the ties on the wanted side
        order = np.argpartition(-influence, exact_rows)
        top, rest = np.sort(order[:exact_rows]), order[exact_rows:]
    weights = poisson_weights(generator, replicates, top.size).astype(np.float32)
    sums = (weights @ np.column_stack([num[top], den[top]]).astype(np.float32)).astype(np.float64)
    if rest.size:
        small = np.column_stack([num[rest], den[rest]])
        covariance = small.T @ small
        scale = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
        correlation = float(np.clip(covariance[0, 1] / (scale[0] * scale[1]), -1, 1))
        draws = generator.standard_normal((replicates, 2))
        draws[:, 0] = correlation * draws[:, 1] + np.sqrt(1 - correlation**2) * draws[:, 0]
        sums += small.sum(axis=0) + draws * scale
    with np.errstate(divide="ignore", invalid="ignore"):
        copies: Floats = sums[:, 0] / sums[:, 1]
    return copies


def bootstrap_interval(
    num: Floats,
    den: Floats,
    *,
    level: float = 0.95,
    replicates: int = 1000,
    generator: np.random.Generator,
    method: Literal["bca", "percentile"] = "bca",
) -> tuple[float, float]:
    """Bootstrap interval of sum(num) / sum(den); nan for fewer than two rows.

    bca: bias-corrected and accelerated (Efron 1987), which follows the skew of rare rewards and large weights and is a few
    percent wider for it. percentile: the plain quantiles, as most packages give.
    """
    if num.size < 2 or den.sum() == 0 or not np.isfinite(num).all():
        return float("nan"), float("nan")
    value = num.sum() / den.sum()
    residual = num - value * den
    squared = residual * residual
    squares = float(squared.sum())
    if squares == 0:
        return float(value), float(value)
    copies = bootstrap(num, den, replicates, generator)
    copies = np.sort(copies[np.isfinite(copies)])
    z = normal_quantile(level)
    if method == "percentile":
        low, high = np.quantile(copies, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)
    acceleration = float((squared * residual).sum()) / (6 * squares**1.5)
    from scipy.special import ndtr, ndtri

    below = (np.searchsorted(copies, value, side="left") + np.searchsorted(copies, value, side="right")) / 2 / copies.size
    bias = float(ndtri(np.clip(below, 0.5 / copies.size, 1 - 0.5 / copies.size)))
    shifted = bias + np.array([-z, z])
    low, high = np.quantile(copies, ndtr(bias + shifted / (1 - acceleration * shifted)))
    return float(low), float(high)
