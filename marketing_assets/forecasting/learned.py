"""The panel forecaster: one set of models over all series, correcting level x calendar where the past says so.

What belongs here: training rows from rolling origins, the fits day by day, and what they forecast. What does not: features
(features.py), levels (learned_levels.py), which forecaster is used for whom (competition.py).

Means: a model by day that starts from log(level x worth), where days have something to tell, averaged with the start in the share
that did best on later origins; else the learnt level x worth. It is a Tweedie one, or where every day sees a sale one of the log, whose
errors are relative ones. Quantiles: a learnt mix of the series' own histories, then one
model per level on what is left; the few lowest levels stay as they are, having almost nothing to win.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from marketing_assets.forecasting.effects import SIGNS
from marketing_assets.forecasting.features import feature_names, matrix_of
from marketing_assets.forecasting.learned_levels import LevelModel, fit_levels_model, windows_of
from marketing_assets.forecasting.level_calendar import DECIMALS, Levels, fit_levels
from marketing_assets.forecasting.origins import Origins, origin_columns
from marketing_assets.forecasting.panel import LEVELS, Flags, Floats, Forecast, Panel
from marketing_assets.forecasting.quantiles import HISTORY_SHARES, rising

LEARNED_LEVELS = (0.5, 0.75, 0.835, 0.9, 0.95, 0.975, 0.995)
MOST_ROWS = 25_000
FEWEST_ROWS = 600
"""Trees are not grown on fewer."""
MANY_ROWS, MANY_ORIGINS = 250_000, 24
"""Where days have much to tell, their model learns from more."""
MUCH = 0.9
"""Days have much to tell where the learned mean leaves at most this share of the start's squared error."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Weights of the learned mean against its start that are tried on the rows kept for it."""
LEAST_GAIN = 0.97
"""The learned mean is used where its squared error is at most this share of the start's."""
SMALLEST_LEVEL = 1e-3
WEIGHT_POWER = 0.5
"""Series count by (sales at their price)^this."""
LARGEST_MOVE = 1.5
TREES: dict[str, Any] = {
    "min_data_in_leaf": 200, "feature_fraction": 0.7, "lambda_l2": 5.0, "max_bin": 127,
    "verbosity": -1, "deterministic": True, "force_row_wise": True,
}  # fmt: skip
QUANTILE_TREES: dict[str, Any] = {**TREES, "objective": "quantile", "num_leaves": 7, "learning_rate": 0.06}
MEAN_TREES: dict[str, Any] = {**TREES, "objective": "tweedie", "num_leaves": 31, "learning_rate": 0.08}
VARIANCE_POWER, STEADY_POWER, STEADY = 1.5, 1.9, 0.95
"""Errors grow with the mean^(power / 2): in proportion, nearly, where at least this share of days sees a sale."""
LOG_TREES: dict[str, Any] = {
    **TREES, "objective": "regression", "num_leaves": 63, "learning_rate": 0.06, "min_data_in_leaf": 50, "feature_fraction": 0.25, "max_bin": 255,
}  # fmt: skip
LOG_ROUNDS, ALWAYS = 300, 0.99
"""Where at least this share of days sees a sale and days have much to tell, the log is learnt, in so many trees: the origins kept are too
few to stop by, since a single odd week of theirs ends it after ten."""
USUAL_ROUNDS = {"mean": 30, "quantile": 20}
"""Rounds where no rows are kept to choose them on."""
MOST_ROUNDS = {"mean": 400, "quantile": 20}
PATIENCE = 12
MIX_STEPS = 25
SMALLEST_ERROR = 0.02
"""Scaled errors below this count as this while histories are mixed."""


@dataclass(frozen=True)
class PanelModel:
    """levels: learnt levels; mean, quantiles: LightGBM models in text form, by what they correct; None where the start alone did better.

    mix: (LEVELS, HISTORIES) weights of histories. share: weight of the learned mean against its start. rounds: trees of each model,
    'mean' or the level. features: columns the trees look at. is_much: whether the mean learnt from MANY_ROWS. lift: mean over
    exp(mean of the log) where the log is learnt (Duan 1983), else 1.
    """

    levels: LevelModel | None
    mean: str | None
    mix: list[list[float]]
    quantiles: dict[float, str]
    share: float
    rounds: dict[str, int]
    features: tuple[str, ...]
    is_much: bool = False
    lift: float = 1.0

    def as_text(self) -> str:
        return json.dumps(
            {
                "levels": None if self.levels is None else self.levels.as_text(), "mean": self.mean, "mix": self.mix,
                "quantiles": {str(level): text for level, text in self.quantiles.items()}, "share": self.share, "rounds": self.rounds,
                "features": self.features, "is_much": self.is_much, "lift": self.lift,
            },
            sort_keys=True,
        )  # fmt: skip

    @classmethod
    def from_text(cls, text: str) -> PanelModel:
        found = json.loads(text)
        return cls(
            None if found["levels"] is None else LevelModel.from_text(found["levels"]), found["mean"], found["mix"],
            {float(level): model for level, model in found["quantiles"].items()}, found["share"], found["rounds"], tuple(found["features"]),
            found["is_much"], found.get("lift", 1.0),
        )  # fmt: skip


NO_MODEL = PanelModel(None, None, HISTORY_SHARES.tolist(), {}, 0.0, {}, ())
"""Level x calendar, as a panel model."""


@dataclass(frozen=True)
class Rows:
    """Pairs of series and day of past origins: features, what was sold, what the start says, and histories (m, LEVELS, HISTORIES) x worth."""

    features: Floats
    units: Floats
    scale: Floats
    start: Floats
    histories: Floats
    weight: Floats
    names: tuple[str, ...]


def training_rows(
    origins: Origins, columns: Sequence[int], is_learnt: Flags, seed: int, most: int = MOST_ROWS, with_histories: bool = True
) -> Rows | None:
    """Rows of past origins, at most `most` of them by a seeded draw; None where there are none.

    is_learnt: (n,) series of the panel that may be learnt from. with_histories: means do without.
    """
    parts: list[list[Floats]] = []
    for column in columns:
        origin = origins.at(column)
        past, levels = origin.past, origin.levels
        ahead = levels.worth[:, past.known :]
        # a day out of stock without a sale says nothing; neither does a closed one
        series, steps = np.nonzero((ahead > 0) & np.isfinite(origin.truth) & is_learnt[origin.rows][:, None])
        kept = np.random.default_rng([seed, column]).random(len(series)) < most / len(columns) / max(len(series), 1)
        series, steps = series[kept], steps[kept]
        worth = ahead[series, steps]
        price = past.series["unit_price"].cast(float).fill_null(1.0).to_numpy()
        weight = (levels.level * np.where(price > 0, price, 1.0) + 1e-3) ** WEIGHT_POWER
        histories = levels.histories[series] * worth[:, None, None] if with_histories else np.zeros((len(series), 0, 0))
        found = [
            origin.matrix.rows(series, steps), origin.truth[series, steps], origin.matrix.scale[series], levels.level[series] * worth,
            histories, weight[series],
        ]  # fmt: skip
        parts.append(found)
    if not parts or not sum(len(part[0]) for part in parts):
        return None
    features, units, scale, start, histories, weight = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Rows(features, units, scale, start, histories, weight, feature_names(origins.panel))


def fit_panel_model(
    origins: Origins, columns: Sequence[int], is_learnt: Flags, seed: int, threads: int, kept: Sequence[int] = (),
    contested: Sequence[int] = (), like: PanelModel | None = None,
) -> PanelModel | None:  # fmt: skip
    """Fit on what followed the origins `columns`; None where that is nothing.

    kept: later origins on which it is chosen what is used and how many trees. contested: origins later still, on which forecasters meet;
    the share of the learned mean is chosen on both. like: an earlier fit whose choices are taken over.
    """
    rows = training_rows(origins, columns, is_learnt, seed)
    if rows is None:
        return None
    held = training_rows(origins, kept, is_learnt, seed) if kept else None
    rounds: dict[str, int] = {}
    mix = _mixed(rows)
    quantiles: dict[float, str] = {}
    binned = _binned(rows, held, threads)
    for level in LEARNED_LEVELS:
        column = list(LEVELS).index(level)
        booster, rounds[str(level)] = _boost(
            {**QUANTILE_TREES, "alpha": level, "seed": seed, "num_threads": threads}, binned, None if like is None else like.rounds[str(level)],
            "quantile", partial(_own_quantile, column, mix[column]),
        )  # fmt: skip
        if booster is not None:
            quantiles[level] = booster.model_to_string()
    mean = _fit_mean(origins, columns, kept, contested, is_learnt, seed, threads, binned, like)
    rounds["mean"] = mean.rounds
    with_levels = mean.share == 0 and (like is None or like.levels is not None)
    levels = _fit_levels(origins, columns, kept, is_learnt, seed, threads) if with_levels else None
    mix = np.round(mix, DECIMALS).tolist()
    return PanelModel(levels, mean.model, mix, quantiles, mean.share, rounds, rows.names, mean.is_much, mean.lift)


@dataclass(frozen=True)
class Mean:
    """The model of the mean by day in text form, its share, its trees, whether it learnt from many rows, and its lift."""

    model: str | None = None
    share: float = 0.0
    rounds: int = 0
    is_much: bool = False
    lift: float = 1.0


NO_MEAN = Mean()


def _fit_mean(
    origins: Origins, columns: Sequence[int], kept: Sequence[int], contested: Sequence[int], is_learnt: Flags, seed: int, threads: int,
    binned: list[tuple[Rows, Any]], like: PanelModel | None,
) -> Mean:  # fmt: skip
    """NO_MEAN where its share is 0."""
    signs = [SIGNS.get(name, 0) for name in binned[0][0].names]
    selling = float((binned[0][0].units > 0).mean())
    common = {"monotone_constraints": signs, "seed": seed, "num_threads": threads}
    parameters = {**MEAN_TREES, "tweedie_variance_power": STEADY_POWER if selling >= STEADY else VARIANCE_POWER, **common}
    if like is not None and like.share == 0:
        return NO_MEAN
    is_always = selling >= ALWAYS
    # a single odd week says yes or no to what is the contrary in all others, so that every later origin is asked
    later = (training_rows(origins, [column], is_learnt, seed + 1, with_histories=False) for column in (*kept, *contested))
    parts = [rows for rows in later if rows is not None]
    if not (is_always if like is None else like.is_much):
        booster, rounds = _boost(parameters, binned, None if like is None else like.rounds["mean"], "mean", _log_start)
        share, gain = (0.0 if booster is None else like.share if like is not None else 0.5), 1.0
        if like is None and booster is not None and parts:
            share, gain = _share(booster, 1.0, parts, threads)
        if gain > MUCH or not share:
            return Mean(booster.model_to_string(), share, rounds) if share and booster is not None else NO_MEAN
    # all that is known, seen from origins that lie closer together
    first, last = max(columns), min(columns)
    closer = [column for column in origin_columns(origins.panel, MANY_ORIGINS) if last <= column <= first]
    many = training_rows(origins, closer, is_learnt, seed, MANY_ROWS, with_histories=False)
    assert many is not None, "the origins of the few rows are among them"
    if is_always:
        booster, lift = _fit_log(many, {**LOG_TREES, **common}, threads)
        if parts and not _share(booster, lift, parts, threads)[0]:
            return NO_MEAN
        # these origins are early ones: what could not yet see a year before holds its later self back, so that no share is chosen
        return Mean(booster.model_to_string(), 1.0, LOG_ROUNDS, True, lift)
    held = training_rows(origins, kept, is_learnt, seed + 1, with_histories=False) if kept else None
    booster, rounds = _boost(parameters, _binned(many, held, threads), None if like is None else like.rounds["mean"], "mean", _log_start)
    if booster is None:
        return NO_MEAN
    share = like.share if like is not None else _share(booster, 1.0, parts, threads)[0] if parts else 1.0
    return Mean(booster.model_to_string(), share, rounds, True) if share else NO_MEAN


def _fit_log(rows: Rows, parameters: dict[str, Any], threads: int) -> tuple[Any, float]:
    """A booster on the log of units over the start, every row alike, and its lift."""
    import lightgbm

    is_sold = rows.units > 0
    log = np.log(rows.units[is_sold] / np.maximum(rows.start[is_sold], SMALLEST_LEVEL))
    data = lightgbm.Dataset(rows.features[is_sold], np.clip(log, -LARGEST_MOVE, LARGEST_MOVE), params=parameters, feature_name=list(rows.names))
    booster = lightgbm.train(parameters, data, LOG_ROUNDS)
    left = log - np.asarray(booster.predict(rows.features[is_sold], num_threads=threads))
    return booster, round(float(np.exp(np.clip(left, -LARGEST_MOVE, LARGEST_MOVE)).mean() * is_sold.mean()), DECIMALS)


def _share(booster: Any, lift: float, parts: Sequence[Rows], threads: int) -> tuple[float, float]:
    """The share of the learned mean that does best, or 0 where none does well enough, and its squared error over the start's.

    Errors are a mean over the parts, each over that of the start there.
    """
    ratios: list[list[float]] = []
    for rows in parts:
        factor = _factor(booster, lift, rows.features, threads)
        errors = [float((((rows.start * (1 - each + each * factor) - rows.units) / rows.scale) ** 2 * rows.weight).sum()) for each in SHARES]
        if errors[0] > 0:
            ratios.append([error / errors[0] for error in errors])
    if not ratios:
        return 0.0, 1.0
    found = dict(zip(SHARES, np.mean(ratios, axis=0).tolist(), strict=True))
    best = min(found.values())
    if best >= LEAST_GAIN:
        return 0.0, 1.0
    return min(each for each in SHARES if found[each] <= best + 0.1 * (1 - best)), best


def _factor(booster: Any, lift: float, features: Floats, threads: int) -> Floats:
    """(m,) the learned mean over its start."""
    log = np.asarray(booster.predict(features, num_threads=threads, raw_score=True))
    factor: Floats = lift * np.exp(np.clip(log, -LARGEST_MOVE, LARGEST_MOVE))
    return factor


def _fit_levels(
    origins: Origins, columns: Sequence[int], kept: Sequence[int], is_learnt: Flags, seed: int, threads: int
) -> LevelModel | None:
    """Learnt levels, or None where the plain ones did better on the origins kept."""
    windows = windows_of(origins, columns, is_learnt)
    if windows is None:
        return None
    model = fit_levels_model(windows, seed, threads)
    held = windows_of(origins, kept, is_learnt) if kept else None
    if held is None and kept:
        return None
    if held is not None:
        moved = model.moved(held.level, held.rates, held.features, threads)
        if (held.errors(moved) * held.weight).sum() >= (held.errors(held.level) * held.weight).sum():
            return None
    return model


def _mixed(rows: Rows) -> Floats:
    """(LEVELS, HISTORIES) non-negative weights of histories with the least pinball loss, by majorisation (Hunter and Lange 2000)."""
    from scipy.optimize import nnls

    units, weight = rows.units / rows.scale, rows.weight / rows.weight.mean()
    mix = HISTORY_SHARES.copy()
    for place, level in enumerate(LEVELS):
        known = rows.histories[:, place] / rows.scale[:, None]
        if not known.any():
            continue
        for _ in range(MIX_STEPS):
            share = weight / (np.abs(units - known @ mix[place]) + SMALLEST_ERROR)
            gram = (known * share[:, None]).T @ known
            gram += 1e-4 * np.trace(gram) / len(gram) * np.eye(len(gram)) + 1e-12 * np.eye(len(gram))
            lower = np.linalg.cholesky(gram)
            towards = known.T @ (share * units + (2 * level - 1) * weight)
            mix[place], _ = nnls(lower.T, np.linalg.solve(lower, towards))
    # few origins have few kinds of days in them: half of what they say
    return (mix + HISTORY_SHARES) / 2


def _own_quantile(column: int, mix: Floats, rows: Rows) -> Floats:
    quantile: Floats = rows.histories[:, column] @ mix / rows.scale
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
            feature_name=list(part.names), reference=result[0][1] if result else None,
        )  # fmt: skip
        result.append((part, data))
    return result


def _boost(
    parameters: dict[str, Any], binned: list[tuple[Rows, Any]], rounds: int | None, kind: str, start: Callable[[Rows], Floats]
) -> tuple[Any, int]:
    """A booster on units over scale that starts from `start`, and its number of trees; None and 0 where the start alone does best."""
    import lightgbm

    if rounds == 0 or len(binned[0][0].units) < FEWEST_ROWS:
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
    """Mean and quantiles of every series of the panel, not yet moved to the shop's total."""
    import lightgbm

    levels = fit_levels(panel) if levels is None else levels
    ahead = levels.worth[:, panel.known :]
    own = rising((levels.histories * np.array(model.mix)).sum(axis=2))
    raw = own[:, None, :] * ahead[:, :, None]
    series, steps = np.nonzero(ahead > 0)
    if not len(series):
        return Forecast(np.zeros_like(ahead), np.zeros_like(raw))
    matrix = matrix_of(panel, levels)
    features, scale = _columns(matrix.rows(series, steps), feature_names(panel), model.features), matrix.scale[series]
    if model.levels is not None:
        levels = replace(levels, level=model.levels.levels(matrix, threads))
    mean = levels.level[:, None] * ahead
    if model.mean is not None:
        factor = _factor(lightgbm.Booster(model_str=model.mean), model.lift, features, threads)
        # what that very day did a year ago goes before what days like it do, which are few
        factor[levels.around[steps] != 1] = 1.0
        mean[series, steps] *= 1 - model.share + model.share * factor
    quantiles = raw.copy()
    for level, text in model.quantiles.items():
        column = list(LEVELS).index(level)
        moved = np.asarray(lightgbm.Booster(model_str=text).predict(features, num_threads=threads))
        quantiles[series, steps, column] = raw[series, steps, column] + moved * scale
    quantiles = np.sort(np.maximum(quantiles, 0.0), axis=2)
    return Forecast(np.round(mean, DECIMALS), np.rint(quantiles))


def _columns(features: Floats, found: Sequence[str], wanted: Sequence[str]) -> Floats:
    """Features in the order the model knows; nan where the panel does not know one, and what the model does not know is left out."""
    if tuple(found) == tuple(wanted):
        return features
    place = {name: column for column, name in enumerate(found)}
    missing = np.full(len(features), np.nan)
    return np.stack([features[:, place[name]] if name in place else missing for name in wanted], axis=1) if wanted else features
