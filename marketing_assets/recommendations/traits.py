"""What people like of goods by what is said of them: category, brand, words of the title, and words within a category.

What belongs here: the traits of items, how far people are apart in each, and the directions of taste that follow. What does not: a
person's taste along directions (tastes.py).

One item is looked at by few, but what is said of it is said of others too: so tastes are told apart by traits long before items
tell. Of which traits people differ in, the looks say themselves: a trait nobody cares for is given next to no spread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy.sparse as sp

from marketing_assets.recommendations.history import Floats, Integers
from marketing_assets.recommendations.lists import Singles

FREQUENT = {"category": 48, "brand": 48, "word": 48, "word_in_category": 160}
"""So many traits of a kind, those of the most items."""
LEAST_ITEMS = {"category": 1, "brand": 2, "word": 5, "word_in_category": 2}
MOST_SHARE = 0.6
"""A word that more of the titles have tells nothing apart."""
PEOPLE = 4000
"""Spreads are learned from so many people."""
ROUNDS = 60
LIKED_DIRECTIONS = 24
LEAST_STRENGTH = 1e-4
"""Directions in which people differ less (variance of interest) are left out."""


@dataclass(frozen=True)
class Traits:
    """of: items x traits, 1 where an item has one. group: per trait the number of the spread it shares with others, from 0 on."""

    of: sp.csr_array
    group: Integers


def traits_of(said: pl.DataFrame) -> Traits:
    """said: category, brand and title of every item in order, null where unknown. None where no more than categories is said: to those
    people's leanings are known one by one (leanings.py)."""
    rows = said.select("category", "brand", "title").with_row_index("item")
    word = rows.select("item", "category", name=pl.col("title").str.to_lowercase().str.extract_all(r"\p{L}{3,}")).explode("name")
    word = word.filter(pl.col("name").is_not_null()).unique(["item", "name"], maintain_order=True)
    common = word.group_by("name").agg(items=pl.len()).filter(pl.col("items") <= MOST_SHARE * max(len(said), 1))
    word = word.join(_frequent(common, "word"), on="name", how="semi", maintain_order="left")
    within = word.filter(pl.col("category").is_not_null())
    kinds = {
        "category": rows.select("item", name="category", group=pl.lit("")),
        "brand": rows.select("item", name="brand", group=pl.lit("")),
        "word": word.select("item", "name", group="name"),
        "word_in_category": within.select("item", name=pl.concat_str("name", "category", separator="\n"), group="name"),
    }
    found = []
    for kind, pairs in kinds.items():
        known = pairs.filter(pl.col("name").is_not_null())
        kept = _frequent(known.group_by("name").agg(items=pl.len()), kind)
        found.append(known.join(kept, on="name", how="semi", maintain_order="left").with_columns(kind=pl.lit(kind)))
    if not any(len(frame) for frame in found[1:]):
        return Traits(sp.csr_array((len(said), 0)), np.zeros(0, dtype=np.int64))
    pairs = pl.concat([frame.select(pl.col("item").cast(pl.Int64), "kind", "name", "group") for frame in found])
    names = pairs.select("kind", "name", "group").unique().sort("kind", "name").with_row_index("trait")
    shared = names.select(pl.struct("kind", "group").rank("dense").cast(pl.Int64) - 1).to_series().to_numpy()
    trait = pairs.join(names, on=["kind", "name"], how="left", maintain_order="left")["trait"].to_numpy()
    matrix = sp.csr_array((np.ones(len(pairs)), (pairs["item"].to_numpy(), trait)), shape=(len(said), len(names)))
    return Traits(matrix, shared)


def _frequent(counted: pl.DataFrame, kind: str) -> pl.DataFrame:
    """Of name, items: the names of the most items, ties in order of names."""
    enough = counted.filter(pl.col("items") >= LEAST_ITEMS[kind])
    return enough.sort("items", "name", descending=[True, False]).head(FREQUENT[kind]).select("name")


def liked_directions(looked: sp.csr_array, traits: Traits) -> tuple[Singles, Singles]:
    """items x up to LIKED_DIRECTIONS along which people are apart by their likes and dislikes of traits, and how far, as a standard
    deviation; as `tastes.directions`. Items without any trait are at 0.

    looked: users x items. A person's interest in an item, over everyone's, is 1 + the sum of what the person makes of the item's
    traits, a draw with mean 0 and the spread of the trait's group. Spreads by the EM algorithm (Dempster, Laird and Rubin 1977) for
    random effects, with n looks scattered around a person's mean as those of all people are; then the principal axes.
    """
    none = np.zeros((looked.shape[1], 0), dtype=np.float32), np.zeros(0, dtype=np.float32)
    total = float(looked.sum())
    if not traits.of.shape[1] or total <= 0:
        return none
    share = np.asarray(looked.sum(axis=0)).ravel() / total
    apart = traits.of.toarray() - np.asarray(share @ traits.of)
    scatter = (apart * share[:, None]).T @ apart
    looks = np.asarray(looked.sum(axis=1)).ravel()
    some = np.flatnonzero(looks > 0)
    some = some[:: max(1, -(-len(some) // PEOPLE))]
    count = looks[some]
    toward = np.asarray(sp.csr_array(looked[some]) @ apart)
    size = np.bincount(traits.group)
    spread = np.full(len(traits.group), 0.3)
    for _ in range(ROUNDS):
        strength, axes = _axes(scatter, spread)
        sure = 1 / (count[:, None] * strength + 1)
        effect = ((toward @ axes) * sure) @ axes.T
        moment = (effect**2).mean(axis=0) + (axes**2) @ sure.mean(axis=0)
        spread = np.maximum((np.bincount(traits.group, weights=moment) / size)[traits.group], 1e-9)
    strength, axes = _axes(scatter, spread)
    order = np.argsort(-strength, kind="stable")[:LIKED_DIRECTIONS]
    kept = order[strength[order] > LEAST_STRENGTH]
    if not len(kept):
        return none
    along = apart @ axes[:, kept] / np.sqrt(strength[kept]) * (np.diff(traits.of.indptr) > 0)[:, None]
    return along.astype(np.float32), np.sqrt(strength[kept]).astype(np.float32)


def _axes(scatter: Floats, spread: Floats) -> tuple[Floats, Floats]:
    """Variance of interest along the principal axes, and the axes: traits x axes, with the prior's spread as their unit."""
    unit = np.sqrt(spread)
    strength, axes = np.linalg.eigh(unit[:, None] * scatter * unit)
    return np.maximum(strength, 0.0), unit[:, None] * axes
