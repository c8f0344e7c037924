"""From scores to the list a person gets: the best items under the shop's rules, the exploration share, the holdout.

What belongs here: choosing and ordering. What does not: scores (scores.py), or which items may be recommended (catalogue.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

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
T = TypeVar("T", np.int64, np.float32)


@dataclass(frozen=True)
class Ranked:
    """rows x places, best first: item (-1 where there is no more), score, and where it stands in what was scored (-1)."""

    item: Integers
    score: Floats
    place: Integers


def largest_of(row: Integers, value: Singles, rows: int) -> Singles:
    """The largest value of each row, 1 where there is none above 0; rows in order."""
    largest = np.zeros(rows, dtype=np.float32)
    lengths = np.bincount(row, minlength=rows)
    filled = lengths > 0
    if len(row):
        largest[filled] = np.maximum.reduceat(value, (np.cumsum(lengths) - lengths)[filled])
    return np.where(largest > 0, largest, np.float32(1))


def levels(scores: npt.NDArray[Any]) -> Integers:
    """Scores in whole parts of 10^-DECIMALS, so that nothing hangs on the last digits."""
    return np.rint(scores.astype(np.float64) * 10.0**DECIMALS).astype(np.int64)


def places_of_best(row: Integers, level: Integers, item: Integers, rows: int, count: int) -> Integers:
    """Where the `count` highest levels of each row stand, highest first, ties to the lower item: rows x count, -1 where none is.

    row, level, item: parallel, no item twice in a row. Sorted as one number each, which is several times as fast as by three.
    """
    found = np.full((rows, count), -1, dtype=np.int64)
    if not len(row):
        return found
    low, high = int(level.min()), int(level.max())
    items = int(item.max()) + 1
    assert rows * (high - low + 1) * items < 1 << 63, "more rows, levels and items than one number tells apart"
    some = np.flatnonzero(level >= least_of_best(row, level, rows, count, low)[row])
    row, level, item = row[some], level[some], item[some]
    order = np.argsort((row * (high - low + 1) + (high - level)) * items + item)
    sorted_row = row[order]
    place = _places(sorted_row, rows)
    kept = place < count
    found[sorted_row[kept], place[kept]] = some[order[kept]]
    return found


def least_of_best(row: Integers, value: npt.NDArray[T], rows: int, count: int, lowest: float) -> npt.NDArray[T]:
    """Per row a number that its `count` best reach, so that the rest need no sorting; `lowest` where it has no more than that.

    The values are dealt into groups; of a row's groups' largest, the count-th is reached by count values at least.
    """
    groups = GROUPS_PER_ENTRY * count
    if len(row) <= groups * rows:
        return np.full(rows, lowest, dtype=value.dtype)
    largest = np.full(rows * groups, lowest, dtype=value.dtype)
    np.maximum.at(largest, row * groups + np.arange(len(row)) % groups, value)
    return np.asarray(np.partition(largest.reshape(rows, groups), groups - count, axis=1)[:, groups - count])


def _places(rows: Integers, count: int) -> Integers:
    """How many of the same row stand before each; rows sorted."""
    lengths = np.bincount(rows, minlength=count)
    return np.asarray(np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths))


def with_promoted(best: Integers, promoted: Integers) -> Integers:
    """The best places of each row followed by the best promoted ones that are not among them."""
    is_there = (promoted[:, :, None] == best[:, None, :]).any(axis=2)
    return np.hstack([best, np.where(is_there, -1, promoted)])


def wanted(settings: RecommendationSettings) -> int:
    """How many of the best items to look at, so that the rules below still find a full list."""
    spread = 1 if settings.max_per_category >= settings.list_length else 4
    return settings.list_length * spread + EXPLORED_POOL


def under_rules(
    ranked: Ranked, category: Integers, is_promoted: Flags, settings: RecommendationSettings
) -> tuple[Ranked, Ranked]:
    """(the list, the next best): at most max_per_category of a category, promoted_share of the places for promoted items.

    category, is_promoted: of each place, category -1 without one (not counted). Promoted items come in by their own score, so
    that a list holds the best.
    """
    valid = ranked.item >= 0
    if settings.max_per_category < settings.list_length:
        for place in range(1, valid.shape[1]):
            same = (category[:, :place] == category[:, place : place + 1]) & valid[:, :place]
            full = (same.sum(axis=1) >= settings.max_per_category) & (category[:, place] >= 0)
            valid[:, place] &= ~full
    reserved_places = int(settings.promoted_share * settings.list_length)
    promoted = valid & is_promoted
    reserved = promoted & (np.cumsum(promoted, axis=1) <= reserved_places)
    others = valid & ~reserved
    room = settings.list_length - reserved.sum(axis=1, keepdims=True)
    listed = reserved | (others & (np.cumsum(others, axis=1) <= room))
    return _compact(ranked, listed, settings.list_length), _compact(ranked, valid & ~listed, EXPLORED_POOL)


def _compact(ranked: Ranked, kept: Flags, length: int) -> Ranked:
    """The kept places moved to the front, order unchanged, cut to `length`."""
    order = np.argsort(~kept, axis=1, kind="stable")[:, :length]
    is_kept = np.take_along_axis(kept, order, axis=1)
    item, place = (np.where(is_kept, np.take_along_axis(of, order, axis=1), -1) for of in (ranked.item, ranked.place))
    return Ranked(item, np.take_along_axis(ranked.score, order, axis=1), place)


@dataclass(frozen=True)
class Explored:
    """The list with its random entries: items, scores, where they stand in what was scored, P(item at this rank) under the
    policy, which entries are random."""

    item: Integers
    score: Floats
    place: Integers
    propensity: Floats
    is_random: Flags


def explore(listed: Ranked, pool: Ranked, chance: Floats, may: Flags, settings: RecommendationSettings) -> Explored:
    """Give every EXPLORED_EVERY-th rank of the exploring users to a random item of the pool.

    The policy: a user explores with probability e = exploration_share; then the explored ranks hold distinct items drawn
    uniformly from the pool of M. So P = e / M for what was drawn, 1 - e for the usual item there, 1 elsewhere. A pool with
    fewer items than explored ranks is left alone, and so is a list without a full rank there. chance: per row uniform in
    [0, 1); it decides both who explores and what is drawn. may: rows the policy explores for.
    """
    users, length = listed.item.shape
    ranks = np.arange(EXPLORED_EVERY - 1, length, EXPLORED_EVERY)
    share = settings.exploration_share
    item, score, place = listed.item.copy(), listed.score.copy(), listed.place.copy()
    propensity = np.ones((users, length))
    is_random = np.zeros((users, length), dtype=bool)
    pool_size = (pool.item >= 0).sum(axis=1)
    able = may & (pool_size >= len(ranks)) & (len(ranks) > 0)
    if share <= 0 or not able.any():
        return Explored(item, score, place, propensity, is_random)
    full = (listed.item[:, ranks] >= 0) & able[:, None]
    propensity[:, ranks] = np.where(full, 1 - share, 1.0)
    for user in np.flatnonzero((chance < share) & able):
        seed = int(chance[user] * (1 << 53))
        drawn = np.random.default_rng(seed).permutation(int(pool_size[user]))[: len(ranks)]
        at = ranks[full[user]]
        taken = drawn[: len(at)]
        item[user, at] = pool.item[user, taken]
        score[user, at] = pool.score[user, taken]
        place[user, at] = pool.place[user, taken]
        propensity[user, at] = share / pool_size[user]
        is_random[user, at] = True
    return Explored(item, score, place, propensity, is_random)


def is_held_out(users: pl.Series, settings: RecommendationSettings) -> Flags:
    """Who gets the popularity list for good: a salted hash of the user."""
    return (salted_share(users, settings.holdout_salt) < settings.holdout_share).to_numpy().astype(bool)
