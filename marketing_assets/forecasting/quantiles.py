"""Quantiles of an item's own history, and of items like it.

What belongs here: weighted quantiles of past units over what their days were worth, and drawing rare ones to those of other items.
What does not: levels (level_calendar.py), learned corrections (learned.py).
"""

from __future__ import annotations

import numpy as np

from marketing_assets.forecasting.panel import LEVELS, Flags, Floats, Panel

QUANTILE_HALF_LIVES = (14.0, 28.0, 56.0, 112.0)
"""Quantiles of an item's history are taken at these half-lives, in days: the short ones follow, the long ones hold the tails."""
HISTORIES = len(QUANTILE_HALF_LIVES) + 1
"""Those, and the pooled one."""
TAIL = 0.1
"""Levels further out than this rest on the two longest half-lives, the others on the three shortest."""
POOLED, POOLED_TOP, TOP = 0.2, 0.5, 0.93
"""Share of the pooled quantile, and its share at levels above TOP, which an item's own history says little of."""
SELLING_SHARES = (0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Items are alike by the share of days with a sale, cut at these."""
SHARE_DAYS = 112
SMALLEST_LEVEL = 0.02
OUTLIER = 0.98
"""What is pooled is cut at this quantile of the like."""
KEY_PART = 0.999
SHARE_TOLERANCE = 1e-9
"""A share of weight this much short of a level has reached it: shares are sums of rounded numbers."""


def _shares(level: float) -> list[float]:
    pooled = POOLED_TOP if level > TOP else POOLED
    own = [0.0, 0.0, 1 / 2, 1 / 2] if min(level, 1 - level) < TAIL - SHARE_TOLERANCE else [1 / 3, 1 / 3, 1 / 3, 0.0]
    return [*((1 - pooled) * share for share in own), pooled]


HISTORY_SHARES: Floats = np.array([_shares(float(level)) for level in LEVELS])
"""(LEVELS, HISTORIES) weights of the histories whose sums are a level's quantile where nothing is learnt."""


def history_quantiles(panel: Panel, worth: Floats, is_observed: Flags) -> Floats:
    """(n, LEVELS, QUANTILE_HALF_LIVES) recency-weighted quantiles of units per unit of worth."""
    ratio = np.divide(panel.units, worth, out=np.zeros_like(panel.units), where=worth > 0)
    weights = np.stack([recency_weights(panel.known, half_life / panel.step_days) for half_life in QUANTILE_HALF_LIVES], axis=1)
    return weighted_quantiles(ratio, is_observed, weights)


def weighted_quantiles(values: Floats, is_counted: Flags, weights: Floats, levels: Floats = LEVELS) -> Floats:
    """(n, levels, sets) smallest value of each row (n, T) whose share of the row's weight reaches the level; 0 without weight.

    is_counted: (n, T); weights: (T, sets) of days. Most days of most items are zeros: they are one entry of their row, and only the
    others are sorted.
    """
    count = len(values)
    row, column = np.nonzero(is_counted & (values != 0))
    zeros = (is_counted & (values == 0)).astype(np.float64) @ weights
    rows = np.concatenate([row, np.arange(count)])
    entries = np.concatenate([values[row, column], np.zeros(count)])
    # one key by row and value sorts faster than two: values take the part after the point
    low = values.min(axis=1, initial=0.0)
    span = values.max(axis=1, initial=0.0) - low
    order = np.argsort(rows + KEY_PART * (entries - low[rows]) / np.where(span > 0, span, 1.0)[rows], kind="stable")
    rows, entries = rows[order], entries[order]
    starts = np.searchsorted(rows, np.arange(count))
    ends = np.append(starts[1:], len(rows)) - 1
    results = np.zeros((count, len(levels), weights.shape[1]))
    for each in range(weights.shape[1]):
        reached = np.cumsum(np.concatenate([weights[column, each], zeros[:, each]])[order])
        before = np.where(starts > 0, reached[starts - 1], 0.0)
        total = reached[ends] - before if count else before
        # one search over all rows: each row's running share lies in its own unit interval
        part = 1.0 / np.where(total > 0, total, np.inf)
        share = (reached - before[rows]) * part[rows] + rows
        place = np.searchsorted(share, (levels[None, :] - SHARE_TOLERANCE + np.arange(count)[:, None]).ravel()).reshape(count, len(levels))
        result = entries[np.clip(place, starts[:, None], ends[:, None])]
        results[:, :, each] = np.where(total[:, None] > 0, result, 0.0)
    return results


def rising(quantiles: Floats) -> Floats:
    """Quantiles of levels found apart from each other, made to rise along the last axis."""
    risen: Floats = np.maximum.accumulate(quantiles, axis=-1)
    return risen


def recency_weights(known: int, half_life: float) -> Floats:
    """(known,) weight of each day, 1 for the newest."""
    weights: Floats = 0.5 ** (np.arange(known)[::-1] / half_life)
    return weights


def pooled_quantiles(panel: Panel, level: Floats, histories: Floats, is_observed: Flags) -> Floats:
    """(n, LEVELS) each item's level times the mean ratio of quantile to level of the items that sell on as large a share of days."""
    own = (histories * HISTORY_SHARES[:, :-1]).sum(axis=2) / HISTORY_SHARES[:, :-1].sum(axis=1)
    scale = np.maximum(level, SMALLEST_LEVEL)[:, None]
    newest = slice(max(0, panel.known - SHARE_DAYS // panel.step_days), panel.known)
    seen = is_observed[:, newest]
    share = (seen & (panel.units[:, newest] > 0)).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    group = np.digitize(np.round(share, 9), SELLING_SHARES)
    pooled = own / scale
    for each in np.unique(group):
        like = pooled[group == each]
        pooled[group == each] = np.minimum(like, np.quantile(like, OUTLIER, axis=0)).mean(axis=0)
    drawn: Floats = pooled * scale
    return drawn
