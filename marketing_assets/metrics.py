"""Formulas only: pure functions on arrays, each with its definition and, where it has one, its paper.

What belongs here: what a metric is. What does not: which rows it is taken over (evaluation/), intervals
(intervals.py), estimators from logs (off_policy.py).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


# --- business ---------------------------------------------------------------------------------------------------------


def share(part: float, whole: float) -> float:
    """part / whole, nan where there is no whole: ctr (clicks / impressions), cvr, session_conversion_rate, roas."""
    return part / whole if whole != 0 else float("nan")


def roi(margin: float, spend: float) -> float:
    """(margin - spend) / spend; nan without spend."""
    return share(margin - spend, spend)


def pacing_ratio(spend_to_date: float, planned_to_date: float) -> float:
    """Spend to date over planned spend to date; nan where nothing was planned."""
    return share(spend_to_date, planned_to_date)


# --- probabilities ----------------------------------------------------------------------------------------------------


def log_loss(outcome: Floats, probability: Floats) -> float:
    """Mean of -[y ln p + (1 - y) ln(1 - p)], probabilities kept 1e-9 off both ends. outcome: 0 or 1."""
    p = np.clip(probability, 1e-9, 1 - 1e-9)
    return float(-(outcome * np.log(p) + (1 - outcome) * np.log(1 - p)).mean())


def entropy(rate: float) -> float:
    """Log-loss of a constant probability equal to the rate itself: -[r ln r + (1 - r) ln(1 - r)]."""
    return float(-(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))) if 0 < rate < 1 else 0.0


def normalised_entropy(outcome: Floats, probability: Floats) -> float:
    """Log-loss over that of the base rate (He et al. 2014); below 1 is better than a constant, nan where all outcomes agree."""
    return share(log_loss(outcome, probability), entropy(float(outcome.mean())))


def calibration_ratio(outcome: Floats, probability: Floats) -> float:
    """Predicted over observed positives; nan where none was observed."""
    return share(float(probability.sum()), float(outcome.sum()))


# --- inputs -----------------------------------------------------------------------------------------------------------


def psi(new: Floats, old: Floats) -> float:
    """Population stability index of counts over fixed bins: sum of (p - q) ln(p / q).

    Half a count is added to each bin, so that an empty one does not make it infinite.
    """
    p, q = (new + 0.5) / (new.sum() + 0.5), (old + 0.5) / (old.sum() + 0.5)
    return float(((p - q) * np.log(p / q)).sum())


def psi_noise(bins: int, new: float, old: float) -> float:
    """Expected PSI of two samples of these sizes from one distribution: (bins - 1)(1 / n + 1 / m) (Yurdakul 2018)."""
    return (bins - 1) * (1 / new + 1 / old)
