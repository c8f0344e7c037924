"""How tastes differ: directions along which people are apart in what they look at, and what they make of a person's interest.

What belongs here: directions by items, and a person's taste for an item from its looks. What does not: directions by what is said of
items (traits.py), leanings to categories (leanings.py), and what showing an item is worth (worth.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from marketing_assets.recommendations.history import Floats, Integers
from marketing_assets.recommendations.lists import Singles

DIRECTIONS = 16
"""Tastes are told apart along so many directions."""
DENSE_ITEMS = 512
"""Up to so many items the directions come from the whole matrix, beyond from Lanczos iterations."""
ITEM_PRIOR, USER_PRIOR = 100.0, 20.0
"""Looks by which rare items and people are held back when directions are sought."""
PAIRS_AT_ONCE = 1 << 16
"""Interest is taken for so many pairs at once, which bounds memory."""
MOST, LEAST = 5.0, 0.2
"""No history speaks more for or against an item than by this."""


def whereabouts(looked: sp.csr_array, apart: Singles, along: Singles) -> Singles:
    """people x directions: where looks put each person, drawn to everyone's; looked: people x items.

    n looks put a person somewhere along a direction with a variance of 1 / n, people are apart by apart^2: so what looks say is
    drawn to everyone's as by 1 / apart^2 looks (the linear Bayes estimate), the more the less a direction tells people apart.
    """
    variance, total = apart.astype(np.float64) ** 2, np.asarray(looked.sum(axis=1), dtype=np.float64).ravel()
    found = np.asarray(looked @ along.astype(np.float64)) * variance / (total[:, None] * variance + 1)
    return found.astype(np.float32)


def interest(where: Singles, along: Singles, person: Integers, item: Integers) -> Singles:
    """How much more often than everyone each pair's person would look at its item, LEAST to MOST; 1 for strangers. where: as from
    `whereabouts`; person: its rows."""
    found = np.ones(len(person), dtype=np.float32)
    for start in range(0, len(person), PAIRS_AT_ONCE):
        part = slice(start, start + PAIRS_AT_ONCE)
        found[part] += np.einsum("pk,pk->p", where[person[part]], along[item[part]])
    return np.clip(found, LEAST, MOST)


@dataclass(frozen=True)
class Tastes:
    """The directions of taste: by items, and by what is said of them (traits.py); how far people are apart along each. items x directions
    each; none by items where nothing was looked at, none by traits where nothing is said that people differ in."""

    along: Singles
    apart: Singles
    liked: Singles
    liked_apart: Singles

    @classmethod
    def none(cls, items: int) -> Tastes:
        nothing = np.zeros((items, 0), dtype=np.float32), np.zeros(0, dtype=np.float32)
        return cls(*nothing, *nothing)

    def of_items(self, rows: Integers) -> Tastes:
        """Of these items alone."""
        return replace(self, along=self.along[rows], liked=self.liked[rows])

    def over(self, places: Integers, items: int) -> Tastes:
        """Over other places of the items (-1: none); 0 for items that are new there."""
        kept = np.flatnonzero(places >= 0)
        along, liked = (np.zeros((items, old.shape[1]), dtype=np.float32) for old in (self.along, self.liked))
        along[places[kept]], liked[places[kept]] = self.along[kept], self.liked[kept]
        return replace(self, along=along, liked=liked)

    def of_pairs(self, looked: sp.csr_array, person: Integers, item: Integers, leaning: Singles | None = None) -> Floats:
        """How far each pair's item is to the person's taste, over everyone's. looked: people x items; leaning: to its category.

        Looks are read twice: by items, as leaning x interest, and by what is said of them. Of items of which something
        is said the first counts by its root, as most of what it says is said by the second.
        """
        by_items, by_traits = (whereabouts(looked, apart, along) for along, apart in self._kinds())
        return self._taste(by_items, by_traits, person, item, leaning)

    def of_those_who_look(self, at: Integers, item: Integers) -> Floats:
        """How far each pair's second item is to the taste of those who look at the first, over everyone's: where all of them
        together are says an item's place, and how far people are apart."""
        by_items, by_traits = ((along * apart**2).astype(np.float32) for along, apart in self._kinds())
        return self._taste(by_items, by_traits, at, item, None)

    def _kinds(self) -> tuple[tuple[Singles, Singles], tuple[Singles, Singles]]:
        return (self.along, self.apart), (self.liked, self.liked_apart)

    def _taste(self, by_items: Singles, by_traits: Singles, person: Integers, item: Integers, leaning: Singles | None) -> Floats:
        taste = interest(by_items, self.along, person, item).astype(np.float64)
        taste *= 1.0 if leaning is None else leaning
        liking = interest(by_traits, self.liked, person, item)
        return np.where(np.asarray(self.liked.any(axis=1))[item], np.sqrt(taste) * liking, taste)


def directions(looked: sp.csr_array) -> tuple[Singles, Singles]:
    """items x up to DIRECTIONS: standard coordinates of a correspondence analysis (Greenacre 1984) of users x items looks; and how
    far people are apart along each, as a standard deviation.

    A person whose looks, as shares, have the mean coordinates f looks at item i 1 + f . row i times as often as everyone does.
    """
    users, items = looked.shape
    count = min(DIRECTIONS, users - 2, items - 2)
    by_user, by_item = np.asarray(looked.sum(axis=1)).ravel(), np.asarray(looked.sum(axis=0)).ravel()
    total = float(by_item.sum())
    if count < 1 or total <= 0:
        return np.zeros((items, 0), dtype=np.float32), np.zeros(0, dtype=np.float32)
    item_weight = 1 / np.sqrt(by_item + ITEM_PRIOR)
    scaled = sp.csr_array(sp.diags_array(1 / np.sqrt(by_user + USER_PRIOR)) @ looked @ sp.diags_array(item_weight))
    strength, found = _strongest(scaled, count + 1)
    # the first direction is how much each item is looked at by everyone
    of_users, of_items = (n[n > 0] / (n[n > 0] + prior) for n, prior in ((by_user, USER_PRIOR), (by_item, ITEM_PRIOR)))
    apart = _beyond_chance(strength[1:], of_items.mean() * of_users.sum() / total, of_users.mean() * of_items.sum() / total)
    along = found[:, 1:] * (apart > 0) * item_weight[:, None] * np.sqrt(total)
    return along.astype(np.float32), apart.astype(np.float32)


def _beyond_chance(strength: Floats, column: float, row: float) -> Floats:
    """Singular values without what chance adds to them, 0 where it explains them alone (Gavish and Donoho 2017); column, row: the
    squares that chance puts into a whole column and a whole row on average."""
    left = np.maximum(strength**2 - column - row, 0.0) ** 2 - 4 * column * row
    return np.asarray(np.sqrt(np.maximum(left, 0.0)) / np.maximum(strength, 1e-12), dtype=np.float64)


def _strongest(matrix: sp.csr_array, count: int) -> tuple[Floats, Floats]:
    """The largest singular values, falling, and their right vectors: items x count."""
    if matrix.shape[1] <= DENSE_ITEMS:
        square, vectors = np.linalg.eigh((matrix.T @ matrix).toarray())
        return np.sqrt(np.maximum(square[::-1][:count], 0.0)), vectors[:, ::-1][:, :count]
    from scipy.sparse.linalg import svds

    _, strength, vectors = svds(matrix, k=count, v0=np.ones(min(matrix.shape)))
    order = np.argsort(-strength, kind="stable")
    return np.asarray(strength[order], dtype=np.float64), np.asarray(vectors[order].T, dtype=np.float64)
