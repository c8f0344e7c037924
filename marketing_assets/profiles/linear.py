"""Logistic regression and calibration in plain numpy: small, exact, the same on every machine.

What belongs here: fitting and applying linear models on arrays. What does not: what the columns mean (matrix.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_EDGE = 1e-6


def sigmoid(value: Floats) -> Floats:
    """1 / (1 + exp(-value)) without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * value)), dtype=np.float64)


def logit(probability: Floats) -> Floats:
    """ln(p / (1 - p)), p kept within [1e-6, 1 - 1e-6]."""
    clipped = np.clip(probability, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(clipped) - np.log1p(-clipped), dtype=np.float64)


def log_losses(outcome: Floats, probability: Floats) -> Floats:
    """-ln P(outcome) per row; probabilities kept within [1e-6, 1 - 1e-6]."""
    clipped = np.clip(probability, _EDGE, 1 - _EDGE)
    return np.asarray(-(outcome * np.log(clipped) + (1 - outcome) * np.log1p(-clipped)), dtype=np.float64)


def newton_logistic(
    design: Floats, outcome: Floats, weight: Floats, penalty: Floats, start: Floats, centre: Floats | None = None
) -> Floats:
    """Penalised maximum likelihood of P(outcome = 1) = sigmoid(design @ beta) by Newton's method with step halving.

    design: rows x columns. weight: per row, >= 0. penalty: per column, the precision of a normal prior around `centre`
    (default 0). start: first guess. Returns beta. Deterministic; at most 60 steps.
    """
    beta = start.copy()
    centre = np.zeros_like(beta) if centre is None else centre

    def objective(candidate: Floats) -> float:
        score = design @ candidate
        loss = np.logaddexp(0.0, score) - outcome * score
        return float(weight @ loss + 0.5 * penalty @ (candidate - centre) ** 2)

    value = objective(beta)
    for _ in range(60):
        chance = sigmoid(design @ beta)
        gradient = design.T @ (weight * (chance - outcome)) + penalty * (beta - centre)
        curvature = (design * (weight * np.maximum(chance * (1 - chance), 1e-9))[:, None]).T @ design + np.diag(penalty + 1e-9)
        step = np.linalg.solve(curvature, gradient)
        scale = 1.0
        while scale > 1e-6 and objective(beta - scale * step) > value:
            scale /= 2
        beta = beta - scale * step
        after = objective(beta)
        if value - after < 1e-10 * (1 + abs(value)):
            break
        value = after
    return beta


@dataclass(frozen=True)
class LinearScore:
    """U = intercept + sum of weight_i (x_i - mean_i) / scale_i, with the contribution of each feature known exactly."""

    features: tuple[str, ...]
    means: Floats
    scales: Floats
    weights: Floats
    intercept: float

    def standardised(self, rows: Floats) -> Floats:
        """rows x features, each with its mean taken off and divided by its scale."""
        return (rows - self.means) / self.scales

    def contributions(self, rows: Floats) -> Floats:
        """rows x features: weight_i times the standardised feature; with the intercept they add up to the score."""
        return self.standardised(rows) * self.weights

    def score(self, rows: Floats) -> Floats:
        """U per row."""
        return np.asarray(self.contributions(rows).sum(axis=1) + self.intercept, dtype=np.float64)

    def as_dict(self) -> dict[str, Any]:
        return {
            "features": list(self.features),
            "means": self.means.tolist(),
            "scales": self.scales.tolist(),
            "weights": self.weights.tolist(),
            "intercept": self.intercept,
        }

    @staticmethod
    def from_dict(content: dict[str, Any]) -> LinearScore:
        return LinearScore(
            tuple(content["features"]),
            np.array(content["means"]),
            np.array(content["scales"]),
            np.array(content["weights"]),
            float(content["intercept"]),
        )


def fit_linear_score(features: tuple[str, ...], rows: Floats, outcome: Floats, weight: Floats, ridge: float) -> LinearScore:
    """Ridge logistic regression on standardised columns.

    rows: users x features, finite. outcome: 0 or 1. weight: per row. ridge: precision of the normal prior on each weight
    (the intercept is free). A column that does not vary gets weight 0.
    """
    total = weight.sum()
    means = (weight @ rows) / total
    spread = np.sqrt(weight @ (rows - means) ** 2 / total)
    varies = spread > 1e-9
    # Rounded, so that the last bits of a sum never decide a digit that is stored.
    means = np.round(means, 9)
    scales = np.where(varies, np.maximum(np.round(spread, 9), 1e-9), 1.0)
    design = np.column_stack([np.ones(len(rows)), ((rows - means) / scales)[:, varies]])
    penalty = np.concatenate([[1e-6], np.full(int(varies.sum()), ridge)])
    base = float(np.clip(weight @ outcome / total, 1e-4, 1 - 1e-4))
    start = np.zeros(design.shape[1])
    start[0] = np.log(base / (1 - base))
    beta = newton_logistic(design, outcome, weight, penalty, start)
    weights = np.zeros(len(features))
    weights[varies] = beta[1:]
    return LinearScore(features, means, scales, weights, float(beta[0]))


@dataclass(frozen=True)
class Calibration:
    """Beta calibration: logit(p') = a ln p - b ln(1 - p) + c (Kull, Silva Filho and Flach 2017)."""

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def apply(self, probability: Floats) -> Floats:
        clipped = np.clip(probability, _EDGE, 1 - _EDGE)
        return sigmoid(self.a * np.log(clipped) - self.b * np.log1p(-clipped) + self.c)

    def as_dict(self) -> dict[str, float]:
        return {"a": self.a, "b": self.b, "c": self.c}


def fit_calibration(probability: Floats, outcome: Floats, weight: Floats, prior_rows: float = 50.0) -> Calibration:
    """Beta calibration pulled towards the identity as strongly as `prior_rows` rows would; identity without rows.

    Falls back on a = b (Platt's form) where the free fit would not rise with p.
    """
    if not len(probability) or weight.sum() <= 0:
        return Calibration()
    clipped = np.clip(probability, _EDGE, 1 - _EDGE)
    above, below, one = np.log(clipped), -np.log1p(-clipped), np.ones(len(clipped))
    strength = 0.1 * prior_rows
    beta = newton_logistic(
        np.column_stack([above, below, one]),
        outcome,
        weight,
        np.array([strength, strength, 0.1 * strength]),
        np.array([1.0, 1.0, 0.0]),
        centre=np.array([1.0, 1.0, 0.0]),
    )
    if beta[0] < 0 or beta[1] < 0:
        shape = newton_logistic(
            np.column_stack([above + below, one]),
            outcome,
            weight,
            np.array([strength, 0.1 * strength]),
            np.array([1.0, 0.0]),
            centre=np.array([1.0, 0.0]),
        )
        slope = max(float(shape[0]), 0.0)
        return Calibration(slope, slope, float(shape[1]))
    return Calibration(float(beta[0]), float(beta[1]), float(beta[2]))
