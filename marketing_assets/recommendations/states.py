"""What a block of lists needs to know of its days: the catalogue's state of each, as arrays of days x items.

What belongs here: popularity with pull, what may be recommended, categories, and what follows from them for every list of a
day. What does not: how the catalogue moves from day to day (catalogue.py), or any user (scores.py, leanings.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from marketing_assets.config import Store
from marketing_assets.recommendations.catalogue import Catalogue
from marketing_assets.recommendations.history import Flags, Floats, History, Integers, ordinal
from marketing_assets.recommendations.leanings import ITEMS_PER_CATEGORY, LEANED_TO, Leanings
from marketing_assets.recommendations.links import Links
from marketing_assets.recommendations.lists import Singles, places_of_best, wanted
from marketing_assets.recommendations.ranker import ItemFacts
from marketing_assets.recommendations.scores import Popular, Retrieval, Scored, Taste, of_pairs, score, taste
from marketing_assets.recommendations.worth import signs, worth


@dataclass(frozen=True)
class DayState:
    """A day's state of the catalogue."""

    day: date
    popularity: Floats
    pull: Floats
    turn: Floats
    everyone: Floats
    allowed: Flags
    promoted: Flags
    category: Integers
    entry: Integers
    facts: ItemFacts

    @classmethod
    def of(cls, catalogue: Catalogue, day: date, with_facts: bool) -> DayState:
        """Counts as of `day`, the rest as the catalogue stands."""
        return cls(
            day, catalogue.popularity(day), catalogue.pull(day), catalogue.turn, catalogue.everyone(day), catalogue.may_recommend.copy(),
            catalogue.is_promoted.copy(), catalogue.category.copy(), catalogue.entry.copy(), catalogue.facts(day) if with_facts else {},
        )  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """A block of rows: what its users did, what they lean to, everything the retrievers name, each named pair's factor, and the
    place of each row's day."""

    taste: Taste
    leaning: Leanings
    scored: Scored
    factor: Singles
    which: Integers


def look_at(
    state: States, history: History, users: Integers, which: Integers, links: Links, how: Retrieval, is_plain: bool
) -> Seen:
    """users: places in the history, -1 for people without any row; which: the place of each row's day. is_plain: nothing but
    the blend will order the pairs, so that those below every list are left out."""
    seen = taste(history, users, state.ordinals[which], how)
    leaning = Leanings.of(seen, state.category, which, state.categories)
    popular = Popular(which, state.popularity, state.popular, state.floor(how, is_plain))
    own = (seen.row, seen.item, seen.own)
    scored = score(seen.matrix(seen.recent), own, links.matrix, popular, how, state.of_leanings(leaning, which))
    factor = state.factor(leaning, which, scored)
    return Seen(seen, leaning, replace(scored, blend=scored.blend * factor), factor, which)


class States:
    """The states of several days as arrays, days x items."""

    def __init__(self, days: Sequence[DayState], store: Store) -> None:
        settings = store.recommendations
        self.days = days
        self.ordinals = np.array([ordinal(day.day) for day in days], dtype=np.int64)
        self.pull = np.stack([day.pull for day in days])
        self.turn = np.stack([day.turn for day in days])
        self.is_by_worth = np.asarray(self.turn.any(axis=1), dtype=bool)
        """Per day, whether lists can be ordered by what showing an item is worth."""
        popularity = np.stack([day.popularity for day in days]) * self.pull
        self.popularity = np.round(popularity / np.maximum(popularity.max(axis=1, keepdims=True, initial=0.0), 1e-9), 9)
        self.everyone = np.stack([day.everyone for day in days])
        self.categories = self.everyone.shape[1]
        self.allowed = np.stack([day.allowed for day in days])
        self.promoted = np.stack([day.promoted for day in days])
        self.category = np.stack([day.category for day in days])
        self.entry = np.stack([day.entry for day in days])
        self._is_plain = not self.categories and bool((self.pull == 1).all())
        self._by_category = _best_of_categories(self.popularity, self.allowed, self.category, self.categories)
        self.facts = {name: np.stack([day.facts[name] for day in days]) for name in days[0].facts}
        self.reserved = int(settings.promoted_share * settings.list_length)
        self._wanted = wanted(settings)
        count = self._wanted * (1 if settings.is_repeatable else 2)
        self.popular = _most_popular(self.popularity, self.allowed, count)
        if self.reserved and self.promoted.any():
            self.popular = np.hstack([self.popular, _most_popular(self.popularity, self.allowed & self.promoted, self.reserved)])
        if self.is_by_worth.any():  # what is best to show may be neither popular nor near to anything the user had
            self.popular = np.hstack([self.popular, _most_popular(self.turn, self.allowed & self.is_by_worth[:, None], count)])

    def floor(self, how: Retrieval, is_plain: bool) -> Singles:
        """As many popular items as a list looks at reach it, so that nothing below is in a list. A re-ranker looks at more."""
        if not (is_plain and self._is_plain):
            return np.full(len(self.days), -1, dtype=np.float32)
        least = self.popular[:, self._wanted - 1]
        known = np.take_along_axis(self.popularity, np.maximum(least, 0)[:, None], axis=1)[:, 0] if self.popularity.size else least
        floor = np.where(least >= 0, np.float32(how.popular) * known.astype(np.float32) - np.float32(2e-6), np.float32(-1))
        return floor.astype(np.float32)

    def of_leanings(self, leaning: Leanings, which: Integers) -> tuple[Integers, Integers] | None:
        """Rows and items: what is most popular in the categories each user leans to most."""
        if not self.categories:
            return None
        category = leaning.strongest(len(which), LEANED_TO)
        row, place = np.nonzero(category >= 0)
        item = self._by_category[which[row], category[row, place]]
        kept = item >= 0
        return np.repeat(row, item.shape[1])[kept.ravel()], item[kept]

    def factor(self, leaning: Leanings, which: Integers, scored: Scored) -> Singles:
        """What an item's pull and the user's leaning to its category make of each scored pair."""
        return self.pull[which[scored.row], scored.item].astype(np.float32) * self.leaning(leaning, which, scored)

    def leaning(self, leaning: Leanings, which: Integers, scored: Scored) -> Singles:
        """What the user's leaning to its category makes of each scored pair."""
        if not self.categories:
            return np.ones(len(scored.row), dtype=np.float32)
        day = which[scored.row]
        category = self.category[day, scored.item]
        return leaning.pull(scored.row, category, self.everyone[day, category])

    def worth(self, block: Seen, links: Links) -> Singles:
        """What it is worth to show each scored pair; 0 on days it cannot be told."""
        scored = block.scored
        rate = self.turn[block.which[scored.row], scored.item]
        leaning = self.leaning(block.leaning, block.which, scored)
        taste = links.tastes.of_pairs(block.taste.matrix(block.taste.looked), scored.row, scored.item, leaning)
        familiar = links.familiar[of_pairs(block.taste, scored, signs(block.taste)).astype(np.int64)]
        return worth(rate, familiar, taste)


def _best_of_categories(popularity: Floats, allowed: Flags, category: Integers, categories: int) -> Integers:
    """days x categories x ITEMS_PER_CATEGORY: the most popular items of each, -1 where there are no more."""
    days = len(popularity)
    day, item = np.nonzero(allowed & (category >= 0))
    row = day * categories + category[day, item]
    level = np.rint(popularity[day, item] * 1e9).astype(np.int64)
    found = places_of_best(row, level, item, days * categories, ITEMS_PER_CATEGORY)
    best = np.where(found >= 0, item[found], -1) if len(item) else found
    return best.reshape(days, categories, ITEMS_PER_CATEGORY)


def _most_popular(popularity: Floats, allowed: Flags, count: int) -> Integers:
    """days x count: the most popular items of each day, -1 where there are no more."""
    day, item = np.nonzero(allowed)
    found = places_of_best(day, np.rint(popularity[day, item] * 1e9).astype(np.int64), item, len(popularity), count)
    return np.where(found >= 0, item[found], -1) if len(item) else found
