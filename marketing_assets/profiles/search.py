"""The automatic choice among propensity models: a bounded search on a split by time.

What belongs here: candidates, the split, the choice, pruning. What does not: what a model is (propensity.py), promotion
(model_store.compare on held-out users).

The newest origins are the judges; candidates learn from origins whose outcomes were complete before the first judge. The
winner is fitted again on all rows. The search is bounded by trials (store.profiles.search_trials), never by time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np

from marketing_assets.config import Store
from marketing_assets.profiles.lifetime import PurchaseModel
from marketing_assets.profiles.linear import Calibration, Floats, fit_calibration, log_losses, sigmoid
from marketing_assets.profiles.matrix import FEATURE_NAMES
from marketing_assets.profiles.propensity import HALF_LIFE_DAYS, RIDGE, PropensityModel, fit_linear, level_shift
from marketing_assets.profiles.training import Training

JUDGES = 6
"""Newest origins that judge."""
SEARCH_ROWS = 25_000
ROUNDS = (20, 40, 80, 120)
TREE_SHARES = (0.0, 0.5, 1.0)
PRUNE = 0.005
"""A smaller model is taken where it keeps all but this share of the log-loss the best one explains."""

_LINEAR: tuple[tuple[float, float], ...] = ((HALF_LIFE_DAYS, RIDGE), (HALF_LIFE_DAYS, 5.0), (120.0, 100.0), (30.0, RIDGE))
# Ordered so that a short search still sees different ones: leaves, smallest leaf, half-life.
_TREES: tuple[tuple[int, int, float], ...] = (
    (8, 100, HALF_LIFE_DAYS),
    (16, 200, HALF_LIFE_DAYS),
    (6, 50, 120.0),
    (24, 100, 120.0),
    (12, 400, 60.0),
    (8, 100, 365.0),
    (31, 50, 60.0),
    (4, 100, 60.0),
)


def search(
    rows: Training, design: Floats, rhythm: PurchaseModel, horizon_days: int, store: Store
) -> tuple[PropensityModel, dict[str, Any], dict[str, Any]]:
    """The winning model fitted on all rows, its settings, and what the search saw (every trial with its loss)."""
    fallback = fit_linear(rows, design, rhythm, horizon_days, HALF_LIFE_DAYS, RIDGE)
    settings = {"half_life_days": HALF_LIFE_DAYS, "ridge": RIDGE}
    days = rows.days
    judges = days[-JUDGES:]
    before = judges[0] - timedelta(days=horizon_days)
    origin = rows.entries["as_of_date"].to_numpy()
    is_old = origin <= np.datetime64(before)
    is_judge = origin >= np.datetime64(judges[0])
    positives = float(rows.outcome[is_old].sum())
    if min(positives, float(is_old.sum()) - positives) < 100 or not 0 < rows.outcome[is_judge].sum() < is_judge.sum():
        return fallback, settings, {"search": "too few mature origins for a split by time; the default is used"}
    old, judge = _thinned(rows, design, is_old), (rows.where(is_judge), design[is_judge])
    trials: list[dict[str, Any]] = []
    linear_trials = min(len(_LINEAR), max(1, store.profiles.search_trials // 3))
    linears = []
    for half_life, ridge in _LINEAR[:linear_trials]:
        model = fit_linear(old[0], old[1], rhythm, horizon_days, half_life, ridge)
        loss = _loss(model, old, judge, store.threads)
        linears.append((loss, half_life, ridge, model))
        trials.append({"kind": "linear", "half_life_days": half_life, "ridge": ridge, "loss": round(loss, 6)})
    best_linear = min(linears, key=lambda trial: trial[0])
    best = (best_linear[0], 0.0, 0, _TREES[0])
    options = [best]
    linear_logits = (best_linear[3].raw_logit(old[1]), best_linear[3].raw_logit(judge[1]))
    for leaves, smallest, half_life in _TREES[: max(0, store.profiles.search_trials - linear_trials)]:
        booster = fit_trees(old[0], old[1], leaves, smallest, half_life, ROUNDS[-1], store)
        for rounds in ROUNDS:
            tree_logits = tuple(
                np.asarray(booster.predict(rows_of, raw_score=True, num_iteration=rounds, num_threads=1))
                for rows_of in (old[1], judge[1])
            )
            for share in TREE_SHARES[1:]:
                mixed = [(1 - share) * line + share * tree for line, tree in zip(linear_logits, tree_logits, strict=True)]
                options.append((_logit_loss(mixed[0], old[0], mixed[1], judge[0]), share, rounds, (leaves, smallest, half_life)))
        tried = min(option for option in options if option[3] == (leaves, smallest, half_life) and option[2])
        trials.append(
            {
                "kind": "trees",
                "leaves": leaves,
                "smallest_leaf": smallest,
                "half_life_days": half_life,
                "rounds": tried[2],
                "tree_share": tried[1],
                "loss": round(tried[0], 6),
            }
        )
    base = float(np.mean(log_losses(judge[0].outcome, np.full(len(judge[0]), judge[0].outcome.mean()))))
    top = min(option[0] for option in options)
    allowed = top + PRUNE * max(base - top, 0.0)
    # Size first: no trees, then fewer rounds and leaves; ties by loss.
    chosen = min((option for option in options if option[0] <= allowed), key=lambda o: (o[2] * o[3][0], o[0], o[1]))
    _, share, rounds, (leaves, smallest, half_life) = chosen
    settings = {"half_life_days": best_linear[1], "ridge": best_linear[2]}
    metrics: dict[str, Any] = {
        "trials": trials,
        "judged_loss": round(chosen[0], 6),
        "best_loss": round(top, 6),
        "base_rate_loss": round(base, 6),
        "judges": len(judges),
        "judged_rows": len(judge[0]),
    }
    final = fit_linear(rows, design, rhythm, horizon_days, best_linear[1], best_linear[2])
    if not rounds:
        return final, settings, metrics
    # Trees look surer of rows they learnt from, so their calibration comes from the judges, on which the old fit is honest.
    trial = fit_trees(old[0], old[1], leaves, smallest, half_life, rounds, store)
    shape = _shape(replace(best_linear[3], trees=trial.model_to_string(), tree_share=share), judge, store.threads)
    wide = _thinned(rows, design, np.ones(len(rows), dtype=bool))
    text = str(fit_trees(wide[0], wide[1], leaves, smallest, half_life, rounds, store).model_to_string())
    settings = {
        **settings,
        "leaves": leaves,
        "smallest_leaf": smallest,
        "tree_half_life_days": half_life,
        "rounds": rounds,
        "tree_share": share,
    }
    return replace(final, kind="trees", trees=text, tree_share=share, calibration=shape), settings, metrics


def _thinned(rows: Training, design: Floats, mask: np.ndarray) -> tuple[Training, Floats]:
    """Rows of the mask, whole users dropped by hash beyond SEARCH_ROWS."""
    if mask.sum() > SEARCH_ROWS:
        from marketing_assets.assignment import salted_share

        share = salted_share(rows.entries["user_id"], "profile-search-1").to_numpy()
        mask = mask & (share < SEARCH_ROWS / mask.sum())
    return rows.where(mask), design[mask]


def _loss(model: PropensityModel, old: tuple[Training, Floats], judge: tuple[Training, Floats], threads: int) -> float:
    """Mean log-loss on the judges."""
    return _logit_loss(model.raw_logit(old[1], threads), old[0], model.raw_logit(judge[1], threads), judge[0])


def _logit_loss(old_score: Floats, old: Training, judge_score: Floats, judge: Training) -> float:
    """Mean log-loss on the judges, the level set on the newest rows the model learnt from."""
    return float(np.mean(log_losses(judge.outcome, sigmoid(judge_score + level_shift(old_score, old)))))


def _shape(model: PropensityModel, judge: tuple[Training, Floats], threads: int) -> Calibration:
    return fit_calibration(
        sigmoid(model.raw_logit(judge[1], threads)), judge[0].outcome, np.ones(len(judge[0])), prior_rows=500.0
    )


def fit_trees(rows: Training, design: Floats, leaves: int, smallest: int, half_life: float, rounds: int, store: Store) -> Any:
    """A small LightGBM classifier, a Booster. design: rows x FEATURE_NAMES."""
    import lightgbm

    parameters: Mapping[str, Any] = {
        "objective": "binary",
        "num_leaves": leaves,
        "min_data_in_leaf": smallest,
        "learning_rate": 0.05,
        "feature_fraction": 0.6,
        "lambda_l2": 5.0,
        "max_bin": 63,
        "seed": store.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,  # so little work that waiting for a second thread costs more than it saves
        "verbosity": -1,
    }
    data = lightgbm.Dataset(
        design, rows.outcome, weight=rows.weight(half_life), feature_name=list(FEATURE_NAMES), free_raw_data=False
    )
    return lightgbm.train(dict(parameters), data, num_boost_round=rounds)
