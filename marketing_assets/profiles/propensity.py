"""P(order within a horizon) for every user, calibrated, and the linear profile score U behind it.

What belongs here: fitting, choosing, scoring and storing the propensity models. What does not: where rows come from
(training.py), what features mean (matrix.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from marketing_assets.config import Store
from marketing_assets.profiles.lifetime import TEXTBOOK, PurchaseModel, fit_purchases
from marketing_assets.profiles.linear import (
    Calibration,
    Floats,
    LinearScore,
    fit_linear_score,
    log_losses,
    logit,
    newton_logistic,
    sigmoid,
)
from marketing_assets.profiles.matrix import DECIMALS, LINEAR_COLUMNS, LINEAR_NAMES, counts, matrix
from marketing_assets.profiles.training import Training

PRIOR_DAILY_RATE = 0.005
"""Orders per user and day before the shop has shown its own: about one in 200 days."""
PRIOR_USER_DAYS = 60.0
"""How many days of a user's own history the shop's rate counts for, and how many users' the prior counts for the shop's."""
VISIT_FADES_DAYS = 30.0
"""Days without a visit after which who never bought is 1/e as likely to begin, before the shop has shown it."""
MINIMUM_POSITIVES = 20
"""Fewer mature orders (or non-orders) than this teach nothing; the prior answers."""


MINIMUM_ORIGINS = 4
"""Nor do outcomes after fewer origins: who comes on a shop's first days is unlike who comes later."""


@dataclass(frozen=True)
class PropensityModel:
    """P = calibration(sigmoid(mix of the linear score and the trees)); kind 'prior' answers from rates and dates of orders alone.

    rhythm: the purchase model behind the feature buying_rhythm. trees: LightGBM's text, '' where the model is linear.
    tree_share: weight of the trees' logit in the mix. daily_rate: the shop's orders per user and day, for kind 'prior'.
    """

    kind: str
    horizon_days: int
    linear: LinearScore
    rhythm: PurchaseModel
    calibration: Calibration = field(default_factory=Calibration)
    trees: str = ""
    tree_share: float = 0.0
    daily_rate: float = PRIOR_DAILY_RATE
    loaded: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def probability(self, entries: pl.DataFrame, threads: int = 1) -> Floats:
        """One probability per row of entries, rounded."""
        if not entries.height:
            return np.zeros(0)
        if self.kind == "prior":
            return np.round(self._from_rates(entries), DECIMALS)
        return self.calibrated(self.raw_logit(self.matrix(entries), threads))

    @property
    def is_start(self) -> bool:
        """Whether there were too few repeat orders to fit anything on."""
        return self.kind == "prior" and self.rhythm == TEXTBOOK

    def _from_rates(self, entries: pl.DataFrame) -> Floats:
        """BG/NBD's for who has bought, as soon as it could be fitted; else from daily_rate and the user's own."""
        chance = prior_probability(entries, self.daily_rate, self.horizon_days)
        if self.is_start:
            return chance
        seen = counts(entries)
        return np.where(seen.has_bought, self.rhythm.order_probability(seen.repeats, seen.last, seen.age, self.horizon_days / 7), chance)

    def calibrated(self, raw: Floats) -> Floats:
        """Probabilities from the mix before calibration, rounded."""
        return np.asarray(np.round(self.calibration.apply(sigmoid(raw)), DECIMALS), dtype=np.float64)

    def matrix(self, entries: pl.DataFrame) -> Floats:
        """users x FEATURE_NAMES; the linear score takes its LINEAR_COLUMNS."""
        return matrix(entries, self.rhythm, self.horizon_days / 7)

    def raw_logit(self, rows: Floats, threads: int = 1) -> Floats:
        """The mix before calibration."""
        score = self.linear.score(rows[:, LINEAR_COLUMNS])
        if not self.trees:
            return score
        import lightgbm

        if "trees" not in self.loaded:
            self.loaded["trees"] = lightgbm.Booster(model_str=self.trees)
        raw = self.loaded["trees"].predict(rows, raw_score=True, num_threads=threads)
        return np.asarray((1 - self.tree_share) * score + self.tree_share * raw, dtype=np.float64)

    def as_text(self) -> str:
        """JSON; a LightGBM part is its own text inside."""
        return json.dumps(
            {
                "kind": self.kind,
                "horizon_days": self.horizon_days,
                "linear": self.linear.as_dict(),
                "rhythm": [self.rhythm.r, self.rhythm.alpha, self.rhythm.a, self.rhythm.b],
                "calibration": self.calibration.as_dict(),
                "trees": self.trees,
                "tree_share": self.tree_share,
                "daily_rate": self.daily_rate,
            },
            sort_keys=True,
        )

    @staticmethod
    def from_text(text: str) -> PropensityModel:
        content = json.loads(text)
        return PropensityModel(
            content["kind"],
            content["horizon_days"],
            LinearScore.from_dict(content["linear"]),
            PurchaseModel(*content["rhythm"]),
            Calibration(**content["calibration"]),
            content["trees"],
            content["tree_share"],
            content["daily_rate"],
        )


def prior_probability(entries: pl.DataFrame, daily_rate: float, horizon_days: int) -> Floats:
    """1 - E(exp(-rate x horizon)) with the user's rate ~ Gamma(daily_rate x 60 + repeat orders, 60 + days known).

    Of who never bought, the days since the last visit tell more than the days known: the rate fades with them.
    """
    seen = counts(entries)
    unseen = entries.select((pl.col("as_of_date") - pl.col("last_seen_date")).dt.total_days().fill_null(0).alias("days"))["days"].to_numpy()
    shape = daily_rate * PRIOR_USER_DAYS + seen.repeats
    known = PRIOR_USER_DAYS + np.where(seen.has_bought, 7 * seen.age, 0.0)
    fading = np.where(seen.has_bought, 1.0, np.exp(-unseen / VISIT_FADES_DAYS))
    return np.asarray(-np.expm1(-shape * np.log1p(fading * horizon_days / known)), dtype=np.float64)


def shop_daily_rate(entries: pl.DataFrame) -> float:
    """Repeat order days per user-day among the users known, shrunk to the prior."""
    seen = counts(entries)
    pseudo = PRIOR_USER_DAYS * 20
    return float(np.round((PRIOR_DAILY_RATE * pseudo + seen.repeats.sum()) / (pseudo + 7 * seen.age.sum()), 9))


def fit_rhythm(entries: pl.DataFrame) -> PurchaseModel:
    """BG/NBD on users who have bought; TEXTBOOK where hardly anybody has come back yet."""
    seen = counts(entries)
    chosen = seen.has_bought
    if seen.repeats[chosen].sum() < MINIMUM_POSITIVES:
        return TEXTBOOK
    return fit_purchases(seen.repeats[chosen], seen.last[chosen], seen.age[chosen])


def prior_model(entries: pl.DataFrame, horizon_days: int) -> PropensityModel:
    """What to say before any outcome is mature: BG/NBD and rates shrunk to the prior; a score without weights."""
    rate = shop_daily_rate(entries)
    base = float(-np.expm1(-rate * horizon_days))
    size = len(LINEAR_NAMES)
    blank = LinearScore(
        LINEAR_NAMES, np.zeros(size), np.ones(size), np.zeros(size), float(np.round(np.log(base / (1 - base)), 9))
    )
    return PropensityModel("prior", horizon_days, blank, fit_rhythm(entries), daily_rate=rate)


@dataclass(frozen=True)
class Fit:
    """A fitted model with what the registry records of it."""

    model: PropensityModel
    parameters: dict[str, Any]
    metrics: dict[str, Any]


HALF_LIFE_DAYS = 60.0
RIDGE = 30.0
LEVEL_HALF_LIFE_DAYS = 10.0
LEVEL_PRIOR = 50.0
"""Precision of the prior that the level needs no correction, in units of rows x p(1 - p)."""


def fit_propensity(training: Training, known: pl.DataFrame, horizon_days: int, store: Store) -> Fit:
    """Learn from mature rows of users not held out.

    training: mature rows with outcome 0 or 1. known: entries in force on the day of the fit, for the purchase rhythm and
    the prior. `store.methods` decides: 'plain' a ridge logistic regression, 'learned' a search over it and trees; both are
    calibrated to the level of the newest origins.
    """
    rows = training.where(~training.is_held_out)
    positives = float(rows.outcome.sum()) if len(rows) else 0.0
    if min(positives, len(rows) - positives) < MINIMUM_POSITIVES or len(rows.days) < MINIMUM_ORIGINS:
        model = prior_model(known, horizon_days)
        return Fit(model, {"kind": "prior", "horizon_days": horizon_days}, {"rows": len(rows), "positives": int(positives)})
    rhythm = fit_rhythm(known)
    design = matrix(rows.entries, rhythm, horizon_days / 7)
    if store.methods == "learned":
        from marketing_assets.profiles.search import search

        model, parameters, metrics = search(rows, design, rhythm, horizon_days, store)
    else:
        model = fit_linear(rows, design, rhythm, horizon_days, HALF_LIFE_DAYS, RIDGE)
        parameters, metrics = {"half_life_days": HALF_LIFE_DAYS, "ridge": RIDGE}, {}
    model = with_level(model, rows, design, store.threads)
    newest = rows.weight(LEVEL_HALF_LIFE_DAYS) > 0.1
    chance = model.calibration.apply(sigmoid(model.raw_logit(design[newest], store.threads)))
    threshold = best_threshold(chance, rows.outcome[newest])
    return Fit(
        model,
        {"kind": model.kind, "horizon_days": horizon_days, "threshold": threshold, **parameters},
        {
            "rows": len(rows),
            "positives": int(positives),
            "origins": len(rows.days),
            "size_bytes": len(model.as_text()),
            **metrics,
        },
    )


def fit_linear(
    rows: Training, design: Floats, rhythm: PurchaseModel, horizon_days: int, half_life_days: float, ridge: float
) -> PropensityModel:
    """Ridge logistic regression on LINEAR_NAMES, newer origins counting more. design: rows x FEATURE_NAMES."""
    linear = fit_linear_score(LINEAR_NAMES, design[:, LINEAR_COLUMNS], rows.outcome, rows.weight(half_life_days), ridge)
    return PropensityModel("linear", horizon_days, linear, rhythm)


def with_level(model: PropensityModel, rows: Training, design: Floats, threads: int) -> PropensityModel:
    """The model with its level moved to what the newest origins showed: shops have seasons, and a year ago is not known yet."""
    score = logit(model.calibration.apply(sigmoid(model.raw_logit(design, threads))))
    shift = level_shift(score, rows)
    return replace(model, calibration=replace(model.calibration, c=float(np.round(model.calibration.c + shift, 9))))


def level_shift(score: Floats, rows: Training) -> float:
    """What to add to the logits so that the newest origins come out right, shrunk towards nothing."""
    return float(
        newton_logistic(
            np.column_stack([np.ones(len(score)), score]),
            rows.outcome,
            rows.weight(LEVEL_HALF_LIFE_DAYS),
            np.array([LEVEL_PRIOR, 1e9]),
            np.array([0.0, 1.0]),
            centre=np.array([0.0, 1.0]),
        )[0]
    )


def best_threshold(chance: Floats, outcome: Floats) -> float:
    """The probability from which on a yes gives the largest F1 on these rows; 0.5 where nobody ordered."""
    if not outcome.sum():
        return 0.5
    order = np.lexsort((outcome, -np.round(chance, DECIMALS)))
    hits = np.cumsum(outcome[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + outcome.sum())
    return float(np.round(chance[order][int(np.argmax(f1))], 4))


def losses(model: PropensityModel, training: Training, threads: int = 1) -> Floats:
    """Log-loss per row."""
    return log_losses(training.outcome, model.probability(training.entries, threads))
