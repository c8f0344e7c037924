"""Levels learnt over all series: which of an item's recent rates to believe.

What belongs here: one number per series and origin. What does not: what a day is worth (calendar.py), day by day corrections
(learned.py).

A level L is judged by the root mean squared error of L x worth over the whole horizon, over the series' naive error, weighted by sales
in money: what scaled error measures of whole forecasts count. First the rates of several windows get non-negative weights
(iteratively reweighted least squares), then trees move the log of the level where the past says so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from marketing_assets.forecasting.features import RATE_WINDOWS, SERIES_FEATURES, Matrix
from marketing_assets.forecasting.level_calendar import DECIMALS
from marketing_assets.forecasting.origins import Origins
from marketing_assets.forecasting.panel import Flags, Floats, Panel
from marketing_assets.forecasting.total import recent_money

SMALLEST_LEVEL = 1e-3
SMALLEST_ERROR = 0.05
"""Scaled errors below this count as this, so that no series is fitted at any price."""
LARGEST_MOVE = 1.5
"""Log levels move by at most this."""
FEWEST_WINDOWS = 300
STEPS = 30
ROUNDS = 60
TREES: dict[str, Any] = {
    "num_leaves": 7, "learning_rate": 0.05, "min_data_in_leaf": 100, "lambda_l2": 5.0, "feature_fraction": 0.5, "bagging_fraction": 0.7,
    "bagging_freq": 1, "max_bin": 63, "verbosity": -1, "deterministic": True, "force_row_wise": True,
}  # fmt: skip


@dataclass(frozen=True)
class Windows:
    """Series at origins: candidate rates (m, RATE_WINDOWS), the plain level, features, weight, and the sums that the error is made of:

    mean of units^2, of units x worth, of worth^2 over the days told, and the naive squared error. All (m,) but rates and features.
    """

    rates: Floats
    level: Floats
    features: Floats
    weight: Floats
    squares: Floats
    products: Floats
    worths: Floats
    scale: Floats

    def errors(self, level: Floats) -> Floats:
        """(m,) root mean squared scaled errors."""
        found: Floats = np.sqrt(np.maximum(self.squares - 2 * level * self.products + level**2 * self.worths, 0.0) / self.scale)
        return found


@dataclass(frozen=True)
class LevelModel:
    """weights: of the rates of RATE_WINDOWS; trees: LightGBM in text form, on the log of the level."""

    weights: tuple[float, ...]
    trees: str

    def as_text(self) -> str:
        return json.dumps({"weights": self.weights, "trees": self.trees})

    @classmethod
    def from_text(cls, text: str) -> LevelModel:
        found = json.loads(text)
        return cls(tuple(found["weights"]), found["trees"])

    def levels(self, matrix: Matrix, threads: int) -> Floats:
        """(n,) level of each series of a panel; 0 stays 0."""
        rates = _rates(matrix)
        return self.moved(matrix.levels.level, rates, _features(matrix, rates), threads)

    def moved(self, level: Floats, rates: Floats, features: Floats, threads: int) -> Floats:
        import lightgbm

        start = _start(level, rates, np.array(self.weights))
        log = np.asarray(lightgbm.Booster(model_str=self.trees).predict(_with_start(features, rates, start), num_threads=threads, raw_score=True))
        return np.where(level > 0, np.round(start * np.exp(np.clip(log, -LARGEST_MOVE, LARGEST_MOVE)), DECIMALS), 0.0)


def windows_of(origins: Origins, columns: Sequence[int], is_learnt: Flags) -> Windows | None:
    """Every series that may be learnt from, at every origin; None where there are too few that sold lately."""
    parts: list[list[Floats]] = []
    for column in columns:
        origin = origins.at(column)
        past, levels = origin.past, origin.levels
        worth = levels.worth[:, past.known :]
        is_told = np.isfinite(origin.truth)
        days = np.maximum(is_told.sum(axis=1), 1)
        truth, worth = np.where(is_told, origin.truth, 0.0), np.where(is_told, worth, 0.0)
        money = recent_money(past)
        scale = naive_squares(past)
        chosen = is_learnt[origin.rows] & (scale > 0) & (money > 0) & (levels.level > 0) & is_told.any(axis=1)
        if not chosen.any():
            continue
        rates = _rates(origin.matrix)
        found = [
            rates, levels.level, _features(origin.matrix, rates), money / money[chosen].sum(), (truth**2).sum(axis=1) / days,
            (truth * worth).sum(axis=1) / days, (worth**2).sum(axis=1) / days, scale,
        ]  # fmt: skip
        parts.append([values[chosen] for values in found])
    if sum(len(part[0]) for part in parts) < FEWEST_WINDOWS:
        return None
    return Windows(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def naive_squares(panel: Panel) -> Floats:
    """(n,) mean squared one-step naive error since the first sale (M5; Makridakis et al. 2022)."""
    steps = np.diff(panel.units, axis=1) ** 2
    begun = np.arange(1, panel.known) > panel.first_sale[:, None]
    return np.asarray((steps * begun).sum(axis=1) / np.maximum(begun.sum(axis=1), 1), dtype=np.float64)


def _rates(matrix: Matrix) -> Floats:
    """(n, RATE_WINDOWS) units per usual open day; 0 where a window saw no open day."""
    first = SERIES_FEATURES.index(f"rate_{RATE_WINDOWS[0]}")
    rates = matrix.of_series[:, first : first + len(RATE_WINDOWS)] * matrix.scale[:, None]
    return np.asarray(np.nan_to_num(rates), dtype=np.float64)


def _features(matrix: Matrix, rates: Floats) -> Floats:
    """What is known of a series, and its rates with bulk orders left in."""
    known = matrix.panel.known
    worth = matrix.levels.worth[:, :known] * matrix.levels.is_observed
    raw = []
    for days in RATE_WINDOWS:
        part = slice(max(0, known - days), known)
        exposure = worth[:, part].sum(axis=1)
        sold = (matrix.panel.units[:, part] * matrix.levels.is_observed[:, part]).sum(axis=1)
        raw.append(np.divide(sold, exposure, out=np.zeros(len(rates)), where=exposure > 0))
    return np.concatenate([matrix.of_series, np.stack(raw, axis=1)], axis=1)


def _start(level: Floats, rates: Floats, weights: Floats) -> Floats:
    start: Floats = np.maximum((level + rates @ weights) / 2, SMALLEST_LEVEL)
    return start


def _with_start(features: Floats, rates: Floats, start: Floats) -> Floats:
    """Features with rates, raw ones too, as logs over the start."""
    kept, raw = features[:, : -len(RATE_WINDOWS)], features[:, -len(RATE_WINDOWS) :]
    logs = np.log((np.concatenate([rates, raw], axis=1) + SMALLEST_LEVEL) / (start[:, None] + SMALLEST_LEVEL))
    return np.asarray(np.round(np.concatenate([np.clip(logs, -4.0, 4.0), kept], axis=1), DECIMALS), dtype=np.float64)


def fit_levels_model(windows: Windows, seed: int, threads: int) -> LevelModel:
    """Weights of the rates, then trees, both on the weighted sum of scaled errors."""
    import lightgbm

    weights = _combine(windows)
    start = _start(windows.level, windows.rates, weights)
    weight = windows.weight / windows.weight.mean()

    def objective(log: npt.NDArray[np.float64], data: Any) -> tuple[Floats, Floats]:
        level = start * np.exp(np.clip(log, -LARGEST_MOVE, LARGEST_MOVE))
        share = weight / (windows.scale * (windows.errors(level) + SMALLEST_ERROR))
        return share * (level * windows.worths - windows.products) * level, share * windows.worths * level**2 + 1e-3 * weight

    features = _with_start(windows.features, windows.rates, start)
    data = lightgbm.Dataset(features, np.zeros(len(features)), params={"max_bin": TREES["max_bin"], "verbosity": -1})
    booster = lightgbm.train({**TREES, "objective": objective, "seed": seed, "num_threads": threads}, data, ROUNDS)
    return LevelModel(tuple(float(each) for each in np.round(weights, DECIMALS)), booster.model_to_string())


def _combine(windows: Windows) -> Floats:
    """(RATE_WINDOWS,) non-negative weights with the least weighted sum of scaled errors, by iteratively reweighted least squares."""
    from scipy.optimize import nnls

    rates, weights = windows.rates, np.full(windows.rates.shape[1], 1 / windows.rates.shape[1])
    for _ in range(STEPS):
        share = windows.weight / (windows.scale * (windows.errors(rates @ weights) + SMALLEST_ERROR))
        gram = (rates * (share * windows.worths)[:, None]).T @ rates
        gram += 1e-6 * np.trace(gram) / len(gram) * np.eye(len(gram)) + 1e-12 * np.eye(len(gram))
        lower = np.linalg.cholesky(gram)
        weights, _ = nnls(lower.T, np.linalg.solve(lower, rates.T @ (share * windows.products)))
    return np.asarray(weights, dtype=np.float64)
