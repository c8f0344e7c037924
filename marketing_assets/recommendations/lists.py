"""From scores to the list a person gets: the best items under the shop's rules, the exploration share, the holdout.

What belongs here: choosing and ordering. What does not: scores (scores.py), or which items may be recommended (catalogue.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from marketing_assets.assignment import salted_share
from marketing_assets.config import RecommendationSettings
from marketing_assets.recommendations.history import Flags, Floats, Integers

EXPLORED_EVERY = 5
"""Every so many ranks one may be given to a random entry."""
EXPLORED_POOL = 50
"""Random entries are drawn from so many next best items."""
BLOCK_CELLS = 4_000_000
"""Scores are held for so many users x items at a time."""
DECIMALS = 6
GROUPS_PER_ENTRY = 4
Singles = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Ranked:
    """users x places, best first: item (-1 where there is no more) and score."""

    item: Integers
    score: Floats


def best(scores: Singles, allowed: Flags, count: int, unit: Singles | None = None) -> Ranked:
    """The `count` best items of each row, by scores rounded to DECIMALS (of `unit`, per row); ties go to the first.

    scores: users x items; allowed: 1 x items or users x items.
    """
    users, items = scores.shape
    scores = np.where(allowed, scores, np.float32(-np.inf))
    step = np.float32(10.0**-DECIMALS) * (np.ones((users, 1), dtype=np.float32) if unit is None else unit)
    least = _least_of_best(scores, min(count, items)) - 2 * step
    user, item = np.nonzero((scores >= least) & (scores > -np.inf))
    value = np.rint(scores[user, item] / step[user, 0])
    order = np.lexsort((item, -value, user))
    place = _places(user, users)
    kept = place < count
    order, place = order[kept], place[kept]
    found = np.full((users, count), -1, dtype=np.int64)
    score = np.zeros((users, count))
    found[user[order], place] = item[order]
    score[user[order], place] = value[order] / 10**DECIMALS
    return Ranked(found, score)


def _least_of_best(scores: Singles, count: int) -> Singles:
    """Per row a number that at least `count` of its scores reach (-inf where it has no more): users x 1.

    The items are dealt into groups; of the groups' largest, the count-th is reached by count items at least. One pass.
    """
    users, items = scores.shape
    groups = min(GROUPS_PER_ENTRY * count, items)
    if not groups:
        return np.full((users, 1), -np.inf, dtype=np.float32)
    whole = items // groups * groups
    largest = scores[:, :whole].reshape(users, items // groups, groups).max(axis=1)
    rest = items - whole
    if rest:
        np.maximum(largest[:, :rest], scores[:, whole:], out=largest[:, :rest])
    return np.partition(largest, groups - count, axis=1)[:, groups - count, None]


def _places(rows: Integers, count: int) -> Integers:
    """How many of the same row stand before each; rows sorted."""
    lengths = np.bincount(rows, minlength=count)
    return np.asarray(np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths))


def with_promoted(ranked: Ranked, promoted: Ranked) -> Ranked:
    """The best items followed by the best promoted ones that are not among them."""
    is_there = (promoted.item[:, :, None] == ranked.item[:, None, :]).any(axis=2)
    item = np.hstack([ranked.item, np.where(is_there, -1, promoted.item)])
    return Ranked(item, np.hstack([ranked.score, promoted.score]))


def wanted(settings: RecommendationSettings) -> int:
    """How many of the best items to look at, so that the rules below still find a full list."""
    spread = 1 if settings.max_per_category >= settings.list_length else 4
    return settings.list_length * spread + EXPLORED_POOL


def under_rules(
    ranked: Ranked, category: Integers, is_promoted: Flags, settings: RecommendationSettings
) -> tuple[Ranked, Ranked]:
    """(the list, the next best): at most max_per_category of a category, promoted_share of the places for promoted items.

    category: per item, -1 without one (not counted). Promoted items come in by their own score, so that a list holds the best.
    """
    item = ranked.item
    valid = item >= 0
    category, is_promoted = np.append(category, -1), np.append(is_promoted, False)  # what place -1 finds
    if settings.max_per_category < settings.list_length:
        of_item = np.where(valid, category[item], -1)
        for place in range(1, item.shape[1]):
            same = (of_item[:, :place] == of_item[:, place : place + 1]) & valid[:, :place]
            full = (same.sum(axis=1) >= settings.max_per_category) & (of_item[:, place] >= 0)
            valid[:, place] &= ~full
    reserved_places = int(settings.promoted_share * settings.list_length)
    promoted = valid & is_promoted[item]
    reserved = promoted & (np.cumsum(promoted, axis=1) <= reserved_places)
    others = valid & ~reserved
    room = settings.list_length - reserved.sum(axis=1, keepdims=True)
    listed = reserved | (others & (np.cumsum(others, axis=1) <= room))
    return _compact(ranked, listed, settings.list_length), _compact(ranked, valid & ~listed, EXPLORED_POOL)


def _compact(ranked: Ranked, kept: Flags, length: int) -> Ranked:
    """The kept places moved to the front, order unchanged, cut to `length`."""
    order = np.argsort(~kept, axis=1, kind="stable")[:, :length]
    is_kept = np.take_along_axis(kept, order, axis=1)
    item = np.where(is_kept, np.take_along_axis(ranked.item, order, axis=1), -1)
    return Ranked(item, np.take_along_axis(ranked.score, order, axis=1))


@dataclass(frozen=True)
class Explored:
    """The list with its random entries: items, scores, P(item at this rank) under the policy, which entries are random."""

    item: Integers
    score: Floats
    propensity: Floats
    is_random: Flags


def explore(listed: Ranked, pool: Ranked, chance: Floats, settings: RecommendationSettings) -> Explored:
    """Give every EXPLORED_EVERY-th rank of the exploring users to a random item of the pool.

    The policy: a user explores with probability e = exploration_share; then the explored ranks hold distinct items drawn
    uniformly from the pool of M. So P = e / M for what was drawn, 1 - e for the usual item there, 1 elsewhere. A pool with
    fewer items than explored ranks is left alone, and so is a list without a full rank there. chance: per user uniform in
    [0, 1); it decides both who explores and what is drawn.
    """
    users, length = listed.item.shape
    ranks = np.arange(EXPLORED_EVERY - 1, length, EXPLORED_EVERY)
    share = settings.exploration_share
    item, score = listed.item.copy(), listed.score.copy()
    propensity = np.ones((users, length))
    is_random = np.zeros((users, length), dtype=bool)
    pool_size = (pool.item >= 0).sum(axis=1)
    able = pool_size >= len(ranks) if len(ranks) else np.zeros(users, dtype=bool)
    if share <= 0 or not able.any():
        return Explored(item, score, propensity, is_random)
    full = (listed.item[:, ranks] >= 0) & able[:, None]
    propensity[:, ranks] = np.where(full, 1 - share, 1.0)
    for user in np.flatnonzero((chance < share) & able):
        seed = int(chance[user] * (1 << 53))
        drawn = np.random.default_rng(seed).permutation(int(pool_size[user]))[: len(ranks)]
        at = ranks[full[user]]
        taken = drawn[: len(at)]
        item[user, at] = pool.item[user, taken]
        score[user, at] = pool.score[user, taken]
        propensity[user, at] = share / pool_size[user]
        is_random[user, at] = True
    return Explored(item, score, propensity, is_random)


def is_held_out(users: pl.Series, settings: RecommendationSettings) -> Flags:
    """Who gets the popularity list for good: a salted hash of the user."""
    return (salted_share(users, settings.holdout_salt) < settings.holdout_share).to_numpy().astype(bool)
