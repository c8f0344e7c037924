"""What users lean to beyond single items: categories, against what everyone leans to.

What belongs here: a user's share of interest by category and what it makes of an item. What does not: single items (scores.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marketing_assets.recommendations.history import Floats, Integers
from marketing_assets.recommendations.lists import Singles, levels, places_of_best
from marketing_assets.recommendations.scores import Taste

PRIOR = 5.0
"""A user's shares are drawn to everyone's as by so many purchases."""
LEANED_TO = 3
"""Popular items of so many categories are named to each user,"""
ITEMS_PER_CATEGORY = 10
"""so many of each."""
MOST, LEAST = 3.0, 1 / 3
"""No category speaks more for or against an item than by this."""


@dataclass(frozen=True)
class Leanings:
    """Pairs of row and category, sorted: row, category, weight (as Taste.recent), items (how many), last (days ago).

    key: row x categories + category of each pair. total: weight per row. categories: how many there are.
    """

    row: Integers
    category: Integers
    weight: Floats
    items: Floats
    last: Floats
    key: Integers
    total: Floats
    categories: int

    @classmethod
    def of(cls, seen: Taste, category: Integers, which: Integers, categories: int) -> Leanings:
        """category: days x items, -1 without one. which: place of each row's day."""
        of_pair = category[which[seen.row], seen.item]
        known = np.flatnonzero(of_pair >= 0)
        key, place = np.unique(seen.row[known] * max(categories, 1) + of_pair[known], return_inverse=True)
        weight = np.bincount(place, weights=seen.recent[known], minlength=len(key)).astype(np.float64)
        last = np.full(len(key), np.inf)
        np.minimum.at(last, place, seen.last[known])
        row = key // max(categories, 1)
        total = np.bincount(row, weights=weight, minlength=seen.rows).astype(np.float64)
        count = np.bincount(place, minlength=len(key)).astype(np.float64)
        return cls(row, key % max(categories, 1), weight, count, last, key, total, categories)

    def at(self, row: Integers, category: Integers) -> Integers:
        """Where the pairs stand, -1 where the user never met the category."""
        if not len(self.key):
            return np.full(len(row), -1, dtype=np.int64)
        asked = row * self.categories + category
        place = np.minimum(np.searchsorted(self.key, asked), len(self.key) - 1)
        return np.where((self.key[place] == asked) & (category >= 0), place, -1)

    def of_pairs(self, place: Integers, values: Floats, missing: float) -> Floats:
        """values at places, `missing` at -1."""
        return np.where(place >= 0, values[place], missing) if len(values) else np.full(len(place), missing)

    def pull(self, row: Integers, category: Integers, everyone: Floats) -> Singles:
        """The user's share of a category over everyone's (aligned), both drawn together by PRIOR; 1 without a category."""
        weight = self.of_pairs(self.at(row, category), self.weight, 0.0)
        share = np.maximum(everyone, 1e-9)
        ratio = (weight + PRIOR * share) / ((self.total[row] + PRIOR) * share)
        return np.where(category >= 0, np.clip(ratio, LEAST, MOST), 1.0).astype(np.float32)

    def strongest(self, rows: int, count: int) -> Integers:
        """rows x count: the categories a user leans to most, -1 where there are no more."""
        found = places_of_best(self.row, levels(self.weight), self.category, rows, count)
        return np.where(found >= 0, self.category[found], -1) if len(self.key) else found
