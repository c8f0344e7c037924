"""The panel forecaster: one set of LightGBM models over all series, correcting level x calendar where the past says so.

What belongs here: training rows from rolling origins, the fits, and what they forecast. What does not: features (features.py), which
forecaster is used for whom (competition.py).

Means: a Tweedie model that starts from log(level x worth), averaged with the start itself in the share that did best on later
origins. Quantiles: one model per level that starts from the series' own history; the few lowest levels stay as they are, having
almost nothing to win.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from marketing_assets.forecasting.features import FEATURES, matrix_of
from marketing_assets.forecasting.level_calendar import DECIMALS, Levels, fit_levels, to_total
from marketing_assets.forecasting.panel import LEVELS, Flags, Floats, Forecast, Panel

LEARNED_LEVELS = (0.5, 0.75, 0.835, 0.9, 0.95, 0.975, 0.995)
ORIGIN_GAP, ORIGINS = 14, 10
"""Training origins lie at least so many columns apart; so many of them at most, spread over what is known."""
FEWEST_KNOWN = 56
"""Columns an origin must have behind it."""
MOST_ROWS = 25_000
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Weights of the learned mean against its start that are tried on the rows kept for it."""
LEAST_GAIN = 0.97
"""The learned mean is used where its squared error is at most this share of the start's."""
SMALLEST_LEVEL = 1e-3
WEIGHT_POWER = 0.5
"""Series count by (sales at their price)^this."""
TREES: dict[str, Any] = {
    "min_data_in_leaf": 200, "feature_fraction": 0.7, "lambda_l2": 5.0, "max_bin": 127,
    "verbosity": -1, "deterministic": True, "force_row_wise": True,
}  # fmt: skip
QUANTILE_TREES: dict[str, Any] = {**TREES, "objective": "quantile", "num_leaves": 7, "learning_rate": 0.06}
MEAN_TREES: dict[str, Any] = {
    **TREES, "objective": "tweedie", "tweedie_variance_power": 1.5, "num_leaves": 31, "learning_rate": 0.08,
    "monotone_constraints": [-1 if name == "price" else 1 if name in ("promotion", "ad_spend") else 0 for name in FEATURES],
}  # fmt: skip
USUAL_ROUNDS = {"mean": 30, "quantile": 30}
"""Rounds where no rows are kept to choose them on."""
MOST_ROUNDS = {"mean": 200, "quantile": 60}
PATIENCE = 12


@dataclass(frozen=True)
class PanelModel:
    """mean, quantiles: LightGBM models in text form, by what they correct; None where the start alone did better.

    share: weight of the learned mean against its start. rounds: trees of each model, 'mean' or the level.
    """

    mean: str | None
    quantiles: dict[float, str]
    share: float
    rounds: dict[str, int]

    def as_text(self) -> str:
        quantiles = {str(level): text for level, text in self.quantiles.items()}
        return json.dumps({"mean": self.mean, "quantiles": quantiles, "share": self.share, "rounds": self.rounds}, sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> PanelModel:
        found = json.loads(text)
        quantiles = {float(level): model for level, model in found["quantiles"].items()}
        return cls(found["mean"], quantiles, found["share"], found["rounds"])


@dataclass(frozen=True)
class Rows:
    """Pairs of series and day of past origins: features, what was sold, and what the start says."""

    features: Floats
    units: Floats
    scale: Floats
    start: Floats
    ratios: Floats
    worth: Floats
    weight: Floats


def origins(panel: Panel) -> list[int]:
    """Columns after which past forecasts are made, newest first: the whole horizon lies within what is known."""
    newest = panel.known - panel.horizon
    gap = max(ORIGIN_GAP, (newest - FEWEST_KNOWN) // (ORIGINS - 1)) if newest > FEWEST_KNOWN else ORIGIN_GAP
    return list(range(newest, FEWEST_KNOWN - 1, -gap))[:ORIGINS]


def _alive(panel: Panel) -> Flags:
    newest = panel.units[:, max(0, panel.known - 112 // panel.step_days) :]
    return np.asarray((newest > 0).any(axis=1))


def training_rows(panel: Panel, is_learnt: Flags, seed: int, columns: Sequence[int] | None = None) -> Rows | None:
    """Rows of past origins of the panel, at most MOST_ROWS of them by a seeded draw; None where there is no origin.

    is_learnt: (n,) series that may be learnt from.
    """
    columns = origins(panel) if columns is None else columns
    parts: list[list[Floats]] = []
    for column in columns:
        past = panel.until(column, panel.horizon)
        chosen = np.flatnonzero(_alive(past) & is_learnt)
        past = past.rows(chosen)
        levels = fit_levels(past)
        matrix = matrix_of(past, levels)
        truth = panel.units[chosen, column : column + panel.horizon]
        # a day out of stock without a sale says nothing; neither does a closed one
        is_told = (levels.worth[:, past.known :] > 0) & ~(panel.is_blocked[chosen, column : column + panel.horizon] & (truth == 0))
        series, steps = np.nonzero(is_told)
        generator = np.random.default_rng([seed, column])
        share = MOST_ROWS / len(columns) / max(len(series), 1)
        kept = generator.random(len(series)) < share
        series, steps = series[kept], steps[kept]
        worth = levels.worth[series, past.known + steps]
        price = past.series["unit_price"].cast(float).fill_null(1.0).to_numpy()
        weight = (levels.level * np.where(price > 0, price, 1.0) + 1e-3) ** WEIGHT_POWER
        parts.append(
            [matrix.rows(series, steps), truth[series, steps], matrix.scale[series], levels.level[series] * worth,
             levels.ratios[series], worth, weight[series]]
        )  # fmt: skip
    if not parts or not sum(len(part[0]) for part in parts):
        return None
    return Rows(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def fit_panel_model(rows: Rows, seed: int, threads: int, kept: Rows | None = None, like: PanelModel | None = None) -> PanelModel:
    """Fit the mean and the learned levels on the same rows.

    kept: rows of later origins on which the number of trees and the share of the learned mean are chosen. like: an earlier fit
    whose choices are taken over.
    """
    rounds: dict[str, int] = {}
    quantiles = {}
    binned = _binned(rows, kept, threads)
    for level in LEARNED_LEVELS:
        column = list(LEVELS).index(level)
        chosen = None if like is None else like.rounds[str(level)]
        booster, rounds[str(level)] = _boost(
            {**QUANTILE_TREES, "alpha": level, "seed": seed, "num_threads": threads}, binned, chosen, "quantile",
            partial(_own_quantile, column),
        )  # fmt: skip
        if booster is not None:
            quantiles[level] = booster.model_to_string()
    chosen = None if like is None else like.rounds["mean"]
    booster, rounds["mean"] = _boost({**MEAN_TREES, "seed": seed, "num_threads": threads}, binned, chosen, "mean", _log_start)
    share = 0.5 if like is None else like.share
    if booster is None:
        share = 0.0
    elif kept is not None:
        factor = np.exp(np.clip(np.asarray(booster.predict(kept.features, num_threads=threads, raw_score=True)), -1.5, 1.5))
        errors = {
            each: float((((kept.start * (1 - each + each * factor) - kept.units) / kept.scale) ** 2 * kept.weight).sum()) for each in SHARES
        }
        best = min(errors.values())
        worth_it = best < LEAST_GAIN * errors[0.0]
        share = min(each for each in SHARES if errors[each] <= best + 0.1 * (errors[0.0] - best)) if worth_it else 0.0
    return PanelModel(None if booster is None else booster.model_to_string(), quantiles, share, rounds)


def _own_quantile(column: int, rows: Rows) -> Floats:
    quantile: Floats = rows.ratios[:, column] * rows.worth / rows.scale
    return quantile


def _log_start(rows: Rows) -> Floats:
    start: Floats = np.log(np.maximum(rows.start, SMALLEST_LEVEL) / rows.scale)
    return start


def _binned(rows: Rows, kept: Rows | None, threads: int) -> list[tuple[Rows, Any]]:
    """Rows, and those kept, as LightGBM has them: binned once for all models."""
    import lightgbm  # takes seconds to import, needed on fit days and for scoring only

    parameters = {**TREES, "num_threads": threads}
    result: list[tuple[Rows, Any]] = []
    for part in (rows,) if kept is None else (rows, kept):
        data = lightgbm.Dataset(
            part.features, part.units / part.scale, weight=part.weight / part.weight.mean(), params=parameters, free_raw_data=False,
            feature_name=list(FEATURES), reference=result[0][1] if result else None,
        )  # fmt: skip
        result.append((part, data))
    return result


def _boost(
    parameters: dict[str, Any], binned: list[tuple[Rows, Any]], rounds: int | None, kind: str, start: Callable[[Rows], Floats]
) -> tuple[Any, int]:
    """A booster on units over scale that starts from `start`, and its number of trees; None and 0 where the start alone does best."""
    import lightgbm

    if rounds == 0:
        return None, 0
    for part, data in binned:
        data.set_init_score(start(part))
    learnt = binned[0][1]
    if len(binned) == 1:
        rounds = rounds or USUAL_ROUNDS[kind]
        return lightgbm.train(parameters, learnt, rounds), rounds
    kept = binned[1][1]
    callbacks: list[Callable[..., Any]] = [lightgbm.early_stopping(PATIENCE, verbose=False)]
    booster = lightgbm.train(parameters, learnt, MOST_ROUNDS[kind], valid_sets=[kept], callbacks=callbacks)
    return booster, booster.best_iteration


def forecast_panel(panel: Panel, model: PanelModel, threads: int, levels: Levels | None = None) -> Forecast:
    """Mean and quantiles of every series of the panel."""
    import lightgbm

    levels = fit_levels(panel) if levels is None else levels
    matrix = matrix_of(panel, levels)
    ahead = levels.worth[:, panel.known :]
    series, steps = np.nonzero(ahead > 0)
    start = levels.level[:, None] * ahead
    raw = levels.ratios[:, None, :] * ahead[:, :, None]
    if not len(series):
        return Forecast(np.zeros_like(start), np.zeros_like(raw))
    features, scale = matrix.rows(series, steps), matrix.scale[series]
    mean = np.zeros_like(start)
    factor = np.ones(len(series))
    if model.mean is not None:
        logs = lightgbm.Booster(model_str=model.mean).predict(features, num_threads=threads, raw_score=True)
        factor = 1 - model.share + model.share * np.exp(np.clip(np.asarray(logs), -1.5, 1.5))
    mean[series, steps] = start[series, steps] * factor
    quantiles = raw.copy()
    for level, text in model.quantiles.items():
        column = list(LEVELS).index(level)
        moved = np.asarray(lightgbm.Booster(model_str=text).predict(features, num_threads=threads))
        quantiles[series, steps, column] = raw[series, steps, column] + moved * scale
    quantiles = np.sort(np.maximum(quantiles, 0.0), axis=2)
    return Forecast(np.round(to_total(panel, levels, mean), DECIMALS), np.rint(quantiles))
