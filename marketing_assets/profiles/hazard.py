"""Order days to come, learnt from what users in a like state did next: boosted trees on rates by state and lead time.

What belongs here: rows by origin and lead, the fit, the expectation. What does not: BG/NBD (lifetime.py), money (value.py).

BG/NBD lets a customer leave for good after a purchase; shops see many who were silent for long come back. Here the rate of
order days is free to depend on the whole feature row and on how far ahead it is asked for, so that the fading of a cohort is
learnt, not assumed. Leads that no origin has lived through yet take the rate of the longest one that was.
"""

from __future__ import annotations

import itertools
from datetime import date, timedelta

import numpy as np
import polars as pl

from marketing_assets.config import Store
from marketing_assets.profiles.lifetime import PurchaseModel
from marketing_assets.profiles.linear import Floats
from marketing_assets.profiles.matrix import FEATURE_NAMES, counts, matrix
from marketing_assets.profiles.training import Past, origin_days, running_at

_SHARES = (0.0, 0.05, 0.1, 0.2, 0.33, 0.5, 0.67, 1.0)
MAX_HAZARD_ROWS = 600_000
ORIGIN_STEP = 3
"""Every third origin: neighbours repeat each other, and all users of few origins teach more than few users of all."""
ROUNDS = 80
RHYTHM_WEEKS = 30 / 7
NAMES = (*FEATURE_NAMES, "alive", "rate", "lead_days")


def lead_bins(horizon_days: int) -> list[tuple[int, int]]:
    """(after, until] in days ahead, finer where it is nearer; they cover the horizon."""
    edges = sorted({round(share * horizon_days) for share in _SHARES})
    return list(itertools.pairwise(edges))


def state(entries: pl.DataFrame, purchases: PurchaseModel) -> Floats:
    """users x features without the lead."""
    seen = counts(entries)
    alive = np.round(purchases.alive(seen.repeats, seen.last, seen.age), 6)
    rate = np.round((purchases.r + seen.repeats) / (purchases.alpha + seen.age), 6)
    return np.column_stack([matrix(entries, purchases, RHYTHM_WEEKS), alive, rate])


def fit_hazard(past: Past, store: Store, day: date, horizon_days: int, purchases: PurchaseModel, excluded: pl.Series) -> str:
    """LightGBM's text, '' where fewer than 200 order days can teach it.

    past: entries on origins and orders; only origins and leads complete by `day` count. excluded: users held out.
    """
    import lightgbm

    entries = past.entries.filter(pl.col("last_order_date").is_not_null(), ~pl.col("user_id").is_in(excluded.implode()))
    running = past.totals(day)
    bins = lead_bins(horizon_days)
    chosen = _origins(entries, store, day, bins)
    lived = [
        entries.filter(pl.col("as_of_date").is_in(chosen), pl.col("as_of_date") <= day - timedelta(days=until))
        for _, until in bins
    ]
    rows, rates, weights = [], [], []
    for (after, until), frame in zip(bins, lived, strict=True):
        if not frame.height:
            continue
        made = running_at(frame, running, until)[0] - running_at(frame, running, after)[0]
        rows.append(np.column_stack([state(frame, purchases), np.full(frame.height, (after + until) / 2)]))
        rates.append(made / (until - after))
        weights.append(np.full(frame.height, float(until - after)))
    if not rows or float(np.concatenate(rates) @ np.concatenate(weights)) < 200:
        return ""
    target = np.concatenate(rates) * 7
    data = lightgbm.Dataset(
        np.vstack(rows),
        target,
        weight=np.concatenate(weights) / 7,
        feature_name=list(NAMES),
        free_raw_data=False,
    )
    parameters = {
        "objective": "poisson",
        "num_leaves": 8,
        "learning_rate": 0.08,
        "min_data_in_leaf": max(50, min(2000, len(target) // 200)),
        "lambda_l2": 5.0,
        "max_bin": 63,
        "feature_fraction": 0.8,
        "seed": store.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,  # so little work that waiting for a second thread costs more than it saves
        "verbosity": -1,
    }
    return str(lightgbm.train(parameters, data, num_boost_round=ROUNDS).model_to_string())


def _origins(entries: pl.DataFrame, store: Store, day: date, bins: list[tuple[int, int]]) -> list[date]:
    """Every ORIGIN_STEP-th origin, newest first, until MAX_HAZARD_ROWS rows of origin, user and lead are reached."""
    users = dict(entries.group_by("as_of_date").len().iter_rows())
    chosen: list[date] = []
    rows = 0
    for origin in origin_days(store, day)[::ORIGIN_STEP]:
        rows += users.get(origin, 0) * sum(origin + timedelta(days=until) <= day for _, until in bins)
        if rows > MAX_HAZARD_ROWS and chosen:
            break
        chosen.append(origin)
    return sorted(chosen)


def expected_order_days(
    text: str, entries: pl.DataFrame, purchases: PurchaseModel, horizon_days: int, threads: int = 1
) -> Floats:
    """Order days expected over the horizon, per row of entries."""
    import lightgbm

    booster = lightgbm.Booster(model_str=text)
    now = state(entries, purchases)
    total = np.zeros(entries.height)
    for after, until in lead_bins(horizon_days):
        weekly = booster.predict(np.column_stack([now, np.full(len(now), (after + until) / 2)]), num_threads=threads)
        total += np.asarray(weekly) * (until - after) / 7
    return total
