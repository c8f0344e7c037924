"""How much each item speaks to each user: what they had before, what goes with it, what is popular.

What belongs here: the retrievers over a block of users, and their blend. What does not: links themselves (links.py), the
learned re-ranking of what was retrieved (ranker.py), or rules (lists.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from marketing_assets.recommendations.history import Floats, History, Integers
from marketing_assets.recommendations.links import LinkViews

Singles = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Retrieval:
    """How retrievers look at a history, and how many candidates each hands to the re-ranker.

    own_half_life, link_half_life: days after which a sign counts half, for the item itself and for what goes with it.
    own, linked, popular: weights of the plain blend, each retriever brought to 0..1 by user first.
    """

    own_half_life: float = 60.0
    link_half_life: float = 180.0
    own: float = 1.0
    linked: float = 0.5
    popular: float = 0.1
    own_candidates: int = 80
    linked_candidates: int = 80
    popular_candidates: int = 40


@dataclass(frozen=True)
class Taste:
    """What a block of users did, as of an ordinal day.

    Pairs of user and item, sorted by both: user, item, own and recent (strength, halved every own_half_life and
    link_half_life days), times (days with a sign), bought (days with a purchase), first and last (days ago).
    Per user: visits (days with a sign), items, last_visit and first_visit (days ago). at_last: pairs of the last visit.
    """

    shape: tuple[int, int]
    user: Integers
    item: Integers
    own: Floats
    recent: Floats
    times: Floats
    bought: Floats
    first: Floats
    last: Floats
    visits: Floats
    items: Floats
    first_visit: Floats
    last_visit: Floats

    def matrix(self, values: npt.NDArray[Any]) -> sp.csr_array:
        """users x items of one number per pair."""
        indptr = np.searchsorted(self.user, np.arange(self.shape[0] + 1))
        return sp.csr_array((values.astype(np.float32), self.item, indptr), shape=self.shape)

    @property
    def at_last(self) -> Singles:
        """1 for the items of the user's last visit."""
        return np.asarray(self.last == self.last_visit[self.user], dtype=np.float32)


def taste(history: History, users: Integers, day: int, how: Retrieval) -> Taste:
    """users: places in history.users, -1 for people without any row. day: ordinal."""
    block = np.flatnonzero(users >= 0)
    owner, row = history.rows_known(users[block], day)
    owner = block[owner]
    n = len(users)
    items = len(history.items)
    order = np.lexsort((history.happened[row], history.item[row], owner))
    owner, row = owner[order], row[order]
    item, strength = history.item[row], history.strength[row]
    age = np.maximum(day - history.happened[row], 0).astype(np.float64)
    starts = np.ones(len(row), dtype=bool)
    starts[1:] = (owner[1:] != owner[:-1]) | (item[1:] != item[:-1])
    first = np.flatnonzero(starts)
    last = np.concatenate([first[1:], [len(row)]]).astype(np.int64) - 1 if len(first) else first

    def summed(values: Floats) -> Floats:
        return np.add.reduceat(values, first) if len(first) else np.zeros(0)

    user = owner[first]
    by_visit = np.unique(owner * (1 << 20) + age.astype(np.int64))
    visitor = by_visit >> 20
    visits = np.bincount(visitor, minlength=n).astype(np.float64)
    last_visit, first_visit = np.full(n, np.inf), np.zeros(n)
    np.minimum.at(last_visit, owner, age)
    np.maximum.at(first_visit, owner, age)
    return Taste(
        shape=(n, items),
        user=user,
        item=item[first],
        own=np.round(summed(strength * 0.5 ** (age / how.own_half_life)), 9),
        recent=np.asarray(np.round(np.minimum(summed(strength * 0.5 ** (age / how.link_half_life)), 1.0), 9), dtype=np.float64),
        times=summed(np.ones(len(row))),
        bought=summed(history.is_bought[row].astype(np.float64)),
        first=age[first],
        last=age[last],
        visits=visits,
        items=np.bincount(user, minlength=n).astype(np.float64),
        first_visit=first_visit,
        last_visit=np.where(np.isfinite(last_visit), last_visit, -1.0),
    )


@dataclass(frozen=True)
class Scored:
    """users x items: the retrievers' scores, each on 0..1 by user, and their blend."""

    own: sp.csr_array
    linked: sp.csr_array
    popular: Floats
    blend: Singles


def score(seen: Taste, links: LinkViews, popularity: Floats, how: Retrieval) -> Scored:
    """The plain blend of own history, links and popularity; weights fixed, nothing fitted."""
    own = scaled(seen.matrix(seen.own))
    linked = scaled(sp.csr_array(seen.matrix(seen.recent) @ links.onward))
    blend = (how.own * own + how.linked * linked).astype(np.float32).toarray()
    blend += (how.popular * popularity).astype(np.float32)
    return Scored(own, linked, popularity, blend)


def scaled(matrix: sp.csr_array) -> sp.csr_array:
    """Each row over its largest value."""
    lengths = np.diff(matrix.indptr)
    filled = lengths > 0
    largest = np.ones(matrix.shape[0], dtype=np.float32)
    largest[filled] = np.maximum.reduceat(matrix.data, matrix.indptr[:-1][filled])
    return sp.csr_array((matrix.data / np.repeat(largest, lengths), matrix.indices, matrix.indptr), shape=matrix.shape)
