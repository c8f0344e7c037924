"""How much each item speaks to each user: what they had before, what goes with it, what is popular.

What belongs here: the retrievers over a block of lists asked for, and their blend. What does not: links themselves (links.py),
the learned re-ranking of what was retrieved (ranker.py), or rules (lists.py).

A row is a list asked for: a user as of a day. Days may differ within a block, and no row looks at another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from marketing_assets.recommendations.history import Flags, Floats, History, Integers
from marketing_assets.recommendations.lists import Singles, largest_of


@dataclass(frozen=True)
class Retrieval:
    """How retrievers look at a history, and how many candidates each hands to the re-ranker.

    own_half_life, link_half_life, look_half_life: days after which a sign counts half, for the item itself, for what goes with it,
    and a look as a sign of taste.
    lately, lately_minutes: what was looked at but not bought counts so much more at the user's newest sign, halved every so many
    minutes before it.
    own, linked, popular: weights of the plain blend, each retriever brought to 0..1 by row first.
    """

    own_half_life: float = 90.0
    link_half_life: float = 180.0
    look_half_life: float = 60.0
    lately: float = 3.0
    lately_minutes: float = 360.0
    own: float = 1.0
    linked: float = 0.5
    popular: float = 0.25
    own_candidates: int = 80
    linked_candidates: int = 80
    popular_candidates: int = 40


@dataclass(frozen=True)
class Taste:
    """What the users of a block of rows did, each as of its day.

    Pairs of row and item, sorted by both: row, item, own and recent (strength, halved every own_half_life and
    link_half_life days; own with `lately`), times (days with a sign), bought (days with a purchase), wanted (days with a purchase or a cart), views,
    looked (views halved every look_half_life days), spent (money),
    first and last (days ago), at_last and at_second (whether of the last and the second-last visit), minutes (of the newest
    sign before the row's newest), since_cart (a cart and no purchase since).
    Per row: visits (days with a sign), items, last_visit and first_visit (days ago).
    """

    rows: int
    items: int
    row: Integers
    item: Integers
    own: Floats
    recent: Floats
    times: Floats
    bought: Floats
    wanted: Floats
    views: Floats
    looked: Floats
    spent: Floats
    first: Floats
    last: Floats
    at_last: Flags
    at_second: Flags
    minutes: Floats
    row_visits: Floats
    row_items: Floats
    first_visit: Floats
    last_visit: Floats

    def matrix(self, values: npt.NDArray[Any]) -> sp.csr_array:
        """rows x items of one number per pair."""
        indptr = np.searchsorted(self.row, np.arange(self.rows + 1))
        return sp.csr_array((values.astype(np.float32), self.item, indptr), shape=(self.rows, self.items))


def taste(history: History, users: Integers, days: Integers, how: Retrieval) -> Taste:
    """users: places in history.users, -1 for people without any row. days: ordinal, one per row."""
    known = np.flatnonzero(users >= 0)
    owner, at = history.rows_known(users[known], days[known])
    owner = known[owner]
    n, items = len(users), len(history.items)
    order = np.argsort((owner * items + history.item[at]) * (1 << 20) + history.happened[at], kind="stable")
    owner, at = owner[order], at[order]
    item, strength, happened = history.item[at], history.strength[at], history.happened[at]
    age = np.maximum(days[owner] - happened, 0)
    starts = np.ones(len(at), dtype=bool)
    starts[1:] = (owner[1:] != owner[:-1]) | (item[1:] != item[:-1])
    first = np.flatnonzero(starts)
    last = np.append(first[1:], len(at)) - 1 if len(first) else first

    def summed(values: npt.NDArray[Any]) -> Floats:
        return np.add.reduceat(values.astype(np.float64), first) if len(first) else np.zeros(0)

    row = owner[first]
    visit = np.unique(owner * (1 << 20) + age)
    visitor, visit_age = visit >> 20, visit & ((1 << 20) - 1)
    lengths = np.bincount(visitor, minlength=n)
    place = np.arange(len(visit)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    newest, second, oldest = np.full(n, -1, dtype=np.int64), np.full(n, -1, dtype=np.int64), np.zeros(n, dtype=np.int64)
    newest[visitor[place == 0]] = visit_age[place == 0]
    second[visitor[place == 1]] = visit_age[place == 1]
    oldest[visitor] = visit_age  # ages rise within a row, so the oldest is written last
    moment = np.maximum.reduceat(history.moment[at], first) if len(first) else np.zeros(0, dtype=np.int64)
    latest = np.zeros(n, dtype=np.int64)
    np.maximum.at(latest, row, moment)
    recent = summed(strength * faded(age, how.link_half_life))
    minutes = (latest[row] - moment).astype(np.float64)
    bought = summed(history.is_bought[at])
    lately = np.where(bought == 0, how.lately * 0.5 ** (minutes / how.lately_minutes), 0.0)
    return Taste(
        rows=n,
        items=items,
        row=row,
        item=item[first],
        own=np.round(summed(strength * faded(age, how.own_half_life)) * (1 + lately), 9),
        recent=np.asarray(np.round(np.minimum(recent, 1.0), 9), dtype=np.float64),
        times=summed(np.ones(len(at))),
        bought=bought,
        wanted=summed(history.is_wanted[at]),
        views=summed(history.views[at]),
        looked=np.round(summed(history.views[at] * faded(age, how.look_half_life)), 9),
        spent=summed(history.spent[at]),
        first=age[first].astype(np.float64),
        last=age[last].astype(np.float64),
        at_last=age[last] == newest[row],
        at_second=age[last] == second[row],
        minutes=minutes,
        row_visits=lengths.astype(np.float64),
        row_items=np.bincount(row, minlength=n).astype(np.float64),
        first_visit=oldest.astype(np.float64),
        last_visit=newest.astype(np.float64),
    )


def faded(age: Integers, half_life: float) -> Floats:
    """What is left of 1 after so many days; whole days, so that each power is taken once."""
    if not len(age):
        return np.zeros(0)
    return np.asarray((0.5 ** (np.arange(int(age.max()) + 1) / half_life))[age], dtype=np.float64)


@dataclass(frozen=True)
class Scored:
    """Everything some retriever names, one entry per pair of row and item in no order: row, item, own and linked (0..1 by
    row), popular, blend. at[row, item]: where the pair stands, -1 where nothing names it."""

    row: Integers
    item: Integers
    own: Singles
    linked: Singles
    popular: Singles
    blend: Singles
    at: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Popular:
    """What is popular: the place of each row's day, days x items (0..1), and per day the most popular items that may be
    recommended and others (-1 where there are no more) that every list of the day can hold. floor: per day, blends below it are in no list
    and need not be looked at."""

    day: Integers
    score: Floats
    best: Integers
    floor: Singles


def score(
    recent: sp.csr_array,
    own: tuple[Integers, Integers, Floats],
    links: sp.csr_array,
    popular: Popular,
    how: Retrieval,
    also: tuple[Integers, Integers] | None = None,
) -> Scored:
    """The plain blend of own history, links and popularity; weights fixed, nothing fitted.

    recent: rows x items, how much of what goes with an item counts. own: row, item, strength, sorted. also: rows
    and items named by others.
    """
    rows, items = recent.shape
    reached = sp.csr_array(recent @ links)
    lengths = np.diff(reached.indptr)
    # millions of pairs are looked at to keep few: each by its place in arrays laid flat, which is read faster than by row and item
    place = np.repeat(np.arange(rows) * items, lengths) + reached.indices
    liked_by_day = popular.score.astype(np.float32)
    liked = liked_by_day.ravel().take(np.repeat(popular.day * items, lengths) + reached.indices)
    linked = np.asarray(reached.data / np.repeat(largest_in(reached), lengths), dtype=np.float32)
    at = np.full((rows, items), -1, dtype=np.int32)
    at[own[0], own[1]] = np.arange(len(own[0]), dtype=np.int32)
    mine = at.ravel().take(place)
    worth = np.float32(how.linked) * linked + np.float32(how.popular) * liked
    is_new = np.flatnonzero((mine < 0) & (worth >= np.repeat(popular.floor[popular.day], lengths)))
    is_mine = np.flatnonzero(mine >= 0)
    linked_of_own = np.zeros(len(own[0]), dtype=np.float32)
    linked_of_own[mine[is_mine]] = linked[is_mine]
    row, linked = place[is_new] // items, linked[is_new]
    item = place[is_new] - row * items
    at[row, item] = len(own[0]) + np.arange(len(row), dtype=np.int32)
    best = popular.best[popular.day]
    named = best >= 0
    more_row, more_item = np.repeat(np.arange(rows), best.shape[1])[named.ravel()], best[named]
    if also is not None:
        more_row, more_item = np.concatenate([more_row, also[0]]), np.concatenate([more_item, also[1]])
    fresh = np.flatnonzero(at[more_row, more_item] < 0)
    fresh = fresh[np.unique(more_row[fresh] * items + more_item[fresh], return_index=True)[1]]
    more_row, more_item = more_row[fresh], more_item[fresh]
    at[more_row, more_item] = len(own[0]) + len(row) + np.arange(len(fresh), dtype=np.int32)
    row, item = np.concatenate([own[0], row, more_row]), np.concatenate([own[1], item, more_item])
    nothing = np.zeros(len(fresh), dtype=np.float32)
    linked = np.concatenate([linked_of_own, linked, nothing])
    had = np.zeros(len(row), dtype=np.float32)
    had[: len(own[0])] = shares(own[0], own[2].astype(np.float32), rows)
    liked = liked_by_day[popular.day[row], item]
    blend = np.float32(how.own) * had + np.float32(how.linked) * linked + np.float32(how.popular) * liked
    return Scored(row, item, had, linked, liked, blend, at)


def largest_in(matrix: sp.csr_array) -> Singles:
    """The largest value stored of each row, 1 where there is none above 0."""
    largest = np.zeros(matrix.shape[0], dtype=np.float32)
    filled = np.diff(matrix.indptr) > 0
    if filled.any():
        largest[filled] = np.maximum.reduceat(matrix.data, matrix.indptr[:-1][filled])
    return np.where(largest > 0, largest, np.float32(1))


def shares(row: Integers, value: Singles, rows: int) -> Singles:
    """Each value over the largest of its row; rows in order."""
    return np.asarray(value / largest_of(row, value, rows)[row], dtype=np.float32)


def of_pairs(seen: Taste, scored: Scored, values: npt.NDArray[Any], missing: float = 0.0) -> Singles:
    """A number per pair a user had, laid out over everything named; what users had is named first."""
    found = np.full(len(scored.row), missing, dtype=np.float32)
    found[: len(seen.row)] = values
    return found
