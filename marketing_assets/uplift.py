"""Whom a treatment changes: models of the effect by user, how to judge them, and whom to treat under a budget.

What belongs here: S, T, X and DR learners on LightGBM, curves and coefficients of uplift, and the cost-aware choice among
arms. What does not: average effects (experiments.py) and which users a plan may address.

Arms are integers: 0 is control, 1..K are treatments given at random. Predictions are users x K differences against control.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from marketing_assets.intervals import Floats, poisson_weights, seeded

Ints = npt.NDArray[np.int64]

SETTINGS: Mapping[str, Any] = {
    "learning_rate": 0.05,
    "num_leaves": 8,
    "min_child_samples": 200,
    "reg_lambda": 10.0,
    "subsample": 0.8,
    "subsample_freq": 1,
    "colsample_bytree": 0.8,
    "n_estimators": 80,
}
"""Shallow, slow and heavily averaged: effects are an order smaller than the outcome's noise."""


class UpliftError(ValueError):
    """Data no uplift model can be learned from or judged on; the message says why."""


def _check(arm: Ints, outcome: Floats) -> int:
    arms = np.unique(arm)
    if arms.size < 2 or arms[0] != 0 or not np.array_equal(arms, np.arange(arms.size)):
        raise UpliftError(f"arm: expected 0 (control) and 1..K, each with users, found {arms.tolist()}")
    if outcome.shape != arm.shape or not np.isfinite(outcome).all():
        raise UpliftError("outcome: expected one finite value per user")
    return int(arms.size - 1)


def _regressor(
    features: Floats, target: Floats, seed: int, weight: Floats | None = None, settings: Mapping[str, Any] = SETTINGS
) -> Any:
    from lightgbm import LGBMRegressor

    model = LGBMRegressor(**settings, random_state=seed, n_jobs=1, deterministic=True, force_row_wise=True, verbosity=-1)
    return model.fit(features, target, sample_weight=weight)


def _predicted(model: Any, features: Floats) -> Floats:
    return np.asarray(model.predict(features), dtype=np.float64)


class Learner(Protocol):
    """fit on features (users x columns, nan allowed), arm and outcome; predict users x K uplifts."""

    @property
    def name(self) -> str: ...

    def fit(self, features: Floats, arm: Ints, outcome: Floats) -> Model: ...


@dataclass(frozen=True)
class Model:
    """A fitted learner: predicts users x K."""

    predictors: Sequence[Any]

    def predict(self, features: Floats) -> Floats:
        return np.column_stack([predictor(features) for predictor in self.predictors])


@dataclass(frozen=True)
class SLearner:
    """One model of the outcome with the arm as a feature (Künzel et al. 2019)."""

    seed: int = 0
    name: str = field(default="s_learner", init=False)

    def fit(self, features: Floats, arm: Ints, outcome: Floats) -> Model:
        count = _check(arm, outcome)
        model = _regressor(np.column_stack([features, _dummies(arm, count)]), outcome, self.seed)

        def predictor(treatment: int) -> Any:
            def predict(users: Floats) -> Floats:
                given = _dummies(np.full(len(users), treatment), count)
                return _predicted(model, np.column_stack([users, given])) - _predicted(
                    model, np.column_stack([users, np.zeros_like(given)])
                )

            return predict

        return Model([predictor(treatment) for treatment in range(1, count + 1)])


def _dummies(arm: Ints, count: int) -> Floats:
    dummies: Floats = (arm[:, None] == np.arange(1, count + 1)).astype(np.float64)
    return dummies


@dataclass(frozen=True)
class TLearner:
    """One model of the outcome per arm; their difference."""

    seed: int = 0
    name: str = field(default="t_learner", init=False)

    def fit(self, features: Floats, arm: Ints, outcome: Floats) -> Model:
        count = _check(arm, outcome)
        models = [_regressor(features[arm == value], outcome[arm == value], self.seed) for value in range(count + 1)]

        def predictor(treatment: int) -> Any:
            return lambda users: _predicted(models[treatment], users) - _predicted(models[0], users)

        return Model([predictor(treatment) for treatment in range(1, count + 1)])


@dataclass(frozen=True)
class XLearner:
    """Effects imputed across arms, modelled on both sides and averaged by the share of each arm (Künzel et al. 2019)."""

    seed: int = 0
    name: str = field(default="x_learner", init=False)

    def fit(self, features: Floats, arm: Ints, outcome: Floats) -> Model:
        count = _check(arm, outcome)
        control = arm == 0
        base = _regressor(features[control], outcome[control], self.seed)

        def predictor(treatment: int) -> Any:
            treated = arm == treatment
            other = _regressor(features[treated], outcome[treated], self.seed)
            on_treated = _regressor(features[treated], outcome[treated] - _predicted(base, features[treated]), self.seed)
            on_control = _regressor(features[control], _predicted(other, features[control]) - outcome[control], self.seed)
            share = treated.sum() / (treated.sum() + control.sum())
            return lambda users: share * _predicted(on_control, users) + (1 - share) * _predicted(on_treated, users)

        return Model([predictor(treatment) for treatment in range(1, count + 1)])


@dataclass(frozen=True)
class DrLearner:
    """Regression of cross-fitted doubly robust pseudo-outcomes (Kennedy 2023)."""

    seed: int = 0
    folds: int = 5
    name: str = field(default="dr_learner", init=False)

    def fit(self, features: Floats, arm: Ints, outcome: Floats) -> Model:
        count = _check(arm, outcome)
        fold = seeded(self.seed, "folds").permutation(len(arm)) % self.folds
        means = np.zeros((len(arm), count + 1))
        for held_out in range(self.folds):
            for value in range(count + 1):
                learn = (fold != held_out) & (arm == value)
                model = _regressor(features[learn], outcome[learn], self.seed)
                means[fold == held_out, value] = _predicted(model, features[fold == held_out])
        shares = np.bincount(arm, minlength=count + 1) / len(arm)
        taken = means[np.arange(len(arm)), arm]
        residual = (outcome - taken) / shares[arm]

        def predictor(treatment: int) -> Any:
            sign = (arm == treatment).astype(float) - (arm == 0).astype(float)
            pseudo = means[:, treatment] - means[:, 0] + sign * residual
            model = _regressor(features, pseudo, self.seed)
            return lambda users: _predicted(model, users)

        return Model([predictor(treatment) for treatment in range(1, count + 1)])


@dataclass(frozen=True)
class MeanLearner:
    """Mean of several learners, each scaled to one unit of spread so that none outweighs the rest."""

    learners: tuple[Learner, ...]
    name: str = field(default="mean_learner", init=False)

    def fit(self, features: Floats, arm: Ints, outcome: Floats) -> Model:
        count = _check(arm, outcome)
        models = [learner.fit(features, arm, outcome) for learner in self.learners]
        spreads = [np.maximum(model.predict(features).std(axis=0), 1e-12) for model in models]
        typical = np.exp(np.mean(np.log(spreads), axis=0))

        def predictor(column: int) -> Any:
            def predict(users: Floats) -> Floats:
                parts = [model.predict(users)[:, column] / spread[column] for model, spread in zip(models, spreads, strict=True)]
                average: Floats = np.mean(parts, axis=0) * typical[column]
                return average

            return predict

        return Model([predictor(column) for column in range(count)])


def default_learner(seed: int = 0) -> MeanLearner:
    """What campaigns use: the mean of all four."""
    return MeanLearner((SLearner(seed), TLearner(seed), XLearner(seed), DrLearner(seed)))


# --- metrics ----------------------------------------------------------------------------------------------------------


def _steps(outcome: Floats, uplift: Floats, is_treated: npt.NDArray[np.bool_]) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Cumulative counts and sums down the ranking, at the ends of ties: all, treated, control, outcome of each."""
    order = np.argsort(uplift, kind="mergesort")[::-1]
    outcome, uplift, treated = outcome[order], uplift[order], is_treated[order].astype(float)
    ends = np.r_[np.flatnonzero(np.diff(uplift)), uplift.size - 1]
    treated_count = np.cumsum(treated)[ends]
    count = ends + 1.0
    return (
        count,
        treated_count,
        count - treated_count,
        np.cumsum(outcome * treated)[ends],
        np.cumsum(outcome * (1 - treated))[ends],
    )


def _divide(top: Floats, bottom: Floats) -> Floats:
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom != 0)


def _from_origin(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    return np.r_[0.0, x], np.r_[0.0, y]


def qini_curve(outcome: Floats, uplift: Floats, is_treated: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Users targeted, and incremental outcomes among them: Y_t - Y_c N_t / N_c (Radcliffe 2007)."""
    count, treated, control, outcome_t, outcome_c = _steps(outcome, uplift, is_treated)
    return _from_origin(count, outcome_t - _divide(outcome_c * treated, control))


def uplift_curve(outcome: Floats, uplift: Floats, is_treated: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Users targeted, and (Y_t / N_t - Y_c / N_c) N (Gutierrez and Gérardy 2017)."""
    count, treated, control, outcome_t, outcome_c = _steps(outcome, uplift, is_treated)
    return _from_origin(count, (_divide(outcome_t, treated) - _divide(outcome_c, control)) * count)


def _area(x: Floats, y: Floats) -> float:
    return float(np.trapezoid(y, x))


def _normalised(actual: tuple[Floats, Floats], perfect: tuple[Floats, Floats]) -> float:
    random = 0.5 * actual[0][-1] * actual[1][-1]
    best = _area(*perfect) - random
    return (_area(*actual) - random) / best if best != 0 else float("nan")


def qini_coefficient(outcome: Floats, uplift: Floats, is_treated: npt.NDArray[np.bool_]) -> float:
    """Area between the Qini curve and random, over that of the perfect order of a binary outcome."""
    _check_binary(outcome, is_treated)
    treated = is_treated.astype(float)
    perfect = qini_curve(outcome, outcome * treated - outcome * (1 - treated), is_treated)
    return _normalised(qini_curve(outcome, uplift, is_treated), perfect)


def uplift_auc(outcome: Floats, uplift: Floats, is_treated: npt.NDArray[np.bool_]) -> float:
    """Area between the uplift curve and random, over that of the perfect order of a binary outcome (AUUC, normalised)."""
    _check_binary(outcome, is_treated)
    treated = is_treated.astype(float)
    converted_controls = float((outcome * (1 - treated)).sum())
    idle_treated = float(((1 - outcome) * treated).sum())
    tie = outcome if converted_controls > idle_treated else treated
    perfect = uplift_curve(outcome, 2 * (outcome == treated) + tie, is_treated)
    return _normalised(uplift_curve(outcome, uplift, is_treated), perfect)


def _check_binary(outcome: Floats, is_treated: npt.NDArray[np.bool_]) -> None:
    if not np.isin(outcome, (0.0, 1.0)).all():
        raise UpliftError("outcome: the perfect curve is known for outcomes 0 and 1 only")
    if is_treated.all() or not is_treated.any():
        raise UpliftError("is_treated: both arms are needed")


def uplift_at(
    outcome: Floats,
    uplift: Floats,
    is_treated: npt.NDArray[np.bool_],
    share: float,
    by: Literal["overall", "by_group"] = "overall",
) -> float:
    """Difference of mean outcomes among the `share` of users ranked first: of all users, or of each arm by itself."""
    order = np.argsort(uplift, kind="mergesort")[::-1]
    outcome, treated = outcome[order], is_treated[order]
    if by == "overall":
        top = int(outcome.size * share)
        outcome, treated = outcome[:top], treated[:top]
        first_t, first_c = outcome[treated], outcome[~treated]
    else:
        arm_t, arm_c = outcome[treated], outcome[~treated]
        first_t, first_c = arm_t[: int(arm_t.size * share)], arm_c[: int(arm_c.size * share)]
    if not first_t.size or not first_c.size:
        raise UpliftError(f"share: the first {share:.0%} hold no user of one arm")
    return float(first_t.mean() - first_c.mean())


@dataclass(frozen=True)
class Judged:
    """A metric with its bootstrap interval over users."""

    value: float
    ci_low: float
    ci_high: float


def qini_interval(
    outcome: Floats,
    uplift: Floats,
    is_treated: npt.NDArray[np.bool_],
    *,
    level: float = 0.95,
    replicates: int = 500,
    seed: int = 0,
) -> Judged:
    """qini_coefficient with a percentile Poisson bootstrap over users; the ranking is sorted once, users only re-weighted."""
    value = qini_coefficient(outcome, uplift, is_treated)
    generator = seeded(seed, "qini")
    treated = is_treated.astype(float)
    perfect = outcome * treated - outcome * (1 - treated)
    copies = []
    orders = [(np.argsort(score, kind="mergesort")[::-1], score) for score in (uplift, perfect)]
    ends = [np.r_[np.flatnonzero(np.diff(score[order])), score.size - 1] for order, score in orders]
    chunk = max(1, 2_000_000 // outcome.size)
    for start in range(0, replicates, chunk):
        weights = poisson_weights(generator, min(chunk, replicates - start), outcome.size).astype(np.float64)
        areas = []
        for (order, _), last in zip(orders, ends, strict=True):
            w = weights[:, order]
            t, y = treated[order], outcome[order]
            count, n_t = np.cumsum(w, axis=1)[:, last], np.cumsum(w * t, axis=1)[:, last]
            y_t, y_c = np.cumsum(w * t * y, axis=1)[:, last], np.cumsum(w * (1 - t) * y, axis=1)[:, last]
            curve = y_t - _divide(y_c * n_t, count - n_t)
            x = np.concatenate([np.zeros((len(w), 1)), count], axis=1)
            area = np.trapezoid(np.concatenate([np.zeros((len(w), 1)), curve], axis=1), x, axis=1)
            areas.append(area - 0.5 * count[:, -1] * curve[:, -1])
        copies.append(areas[0] / areas[1])
    low, high = np.quantile(np.concatenate(copies), [(1 - level) / 2, (1 + level) / 2])
    return Judged(value, float(low), float(high))


# --- whom to treat ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """arm: the arm for each user, 0 for none. cost, gain: totals expected; price: money a further unit of budget would earn."""

    arm: Ints
    cost: float
    gain: float
    price: float


def choose_arms(uplift: Floats, value: Floats | float, cost: Sequence[float], budget: float | None = None) -> Choice:
    """The arm of each user that maximises uplift x value - cost, within a budget.

    uplift: users x K. value: money of one outcome, per user or for all. cost: of each arm per user. Under a budget the arms
    are chosen at the price at which it just suffices (Lagrange; exact up to one user's cost), users of equal merit by index.
    """
    gains = uplift * np.reshape(value, (-1, 1))
    costs = np.asarray(cost, dtype=float)
    if costs.shape != (uplift.shape[1],) or (costs < 0).any():
        raise UpliftError(f"cost: expected {uplift.shape[1]} costs of at least 0, one per arm")

    def at(price: float) -> tuple[Ints, float]:
        net = np.column_stack([np.zeros(len(gains)), gains - costs * (1 + price)])
        arm = net.argmax(axis=1)
        return arm.astype(np.int64), float(np.r_[0.0, costs][arm].sum())

    arm, spent = at(0.0)
    price = 0.0
    if budget is not None and spent > budget:
        low, high = 0.0, 1.0
        while at(high)[1] > budget:
            low, high = high, high * 2
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if at(middle)[1] > budget else (low, middle)
        price = high
        arm, spent = at(price)
        # between the two prices users are indifferent: fill what is left of the budget in order of gain over cost
        richer = at(low)[0]
        for user in np.flatnonzero(richer != arm):
            extra = float(np.r_[0.0, costs][richer[user]] - np.r_[0.0, costs][arm[user]])
            if 0 < extra <= budget - spent:
                arm[user] = richer[user]
                spent += extra
    chosen = np.column_stack([np.zeros(len(gains)), gains])[np.arange(len(gains)), arm]
    return Choice(arm, spent, float(chosen.sum()), price)
