"""The lists the shop shows: those it was given, or popularity lists.

What belongs here: from decisions to arrays over people. What does not: what people do with lists (visits.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from marketing_assets.sample_shop.interface import Decisions
from marketing_assets.sample_shop.people import State
from marketing_assets.sample_shop.settings import CATEGORIES
from marketing_assets.sample_shop.world import Flags, Floats, Integers, World

RELATED = 5
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Lists:
    """items: lists x places, -1 past the end. account, cookie: row of each person's list by the id they are seen under;
    unknown: row for nobody known. related: items x RELATED."""

    items: Integers
    length: Integers
    account: Integers
    cookie: Integers
    unknown: int
    related: Integers


def lists_of(world: World, state: State, number: int, decisions: Decisions) -> Lists:
    """What is shown on day `number`: where a decision is missing, the most sold items."""
    launched = world.launch <= number
    sold = np.where(launched, state.sold_decayed, -1.0)
    order = np.argsort(-sold, kind="stable")
    popular = order[launched[order]][: world.parameters.list_length]
    people = state.people
    nobody = np.zeros(people, dtype=np.int64)
    related = _related(world, order, launched, decisions)
    frame = decisions.recommendations
    if frame is None:
        return Lists(popular[None, :], np.array([len(popular)]), nobody, nobody, 0, related)
    item = codes(frame["item_id"], world.item_ids)
    users = frame["user_id"].unique().sort()
    user = codes(frame["user_id"], users.to_list())
    rank = frame["rank"].to_numpy().astype(np.int64) - 1
    width = int(rank.max(initial=-1)) + 1
    table = np.full((users.len() + 1, max(width, len(popular))), -1, dtype=np.int64)
    table[-1, : len(popular)] = popular
    table[user, rank] = item
    # places without an item close up, so that attention follows what is seen
    place = np.argsort(table < 0, axis=1, kind="stable")
    table = np.take_along_axis(table, place, axis=1)
    length = (table >= 0).sum(axis=1)
    empty = np.flatnonzero(length == 0)
    last = len(table) - 1
    table[empty], length[empty] = table[last], length[last]
    unknown = users.to_list().index(UNKNOWN) if UNKNOWN in users else last
    account, cookie = (_rows(ids, users, unknown) for ids in (state.account_ids(), state.cookie_ids()))
    return Lists(table, length, account, cookie, unknown, related)


def _related(world: World, order: Integers, launched: Flags, decisions: Decisions) -> Integers:
    """Items shown on each item's page: given, else the most sold of its category."""
    count = world.size.items
    table = np.full((count, RELATED), -1, dtype=np.int64)
    for category in range(len(CATEGORIES)):
        best = order[(world.category[order] == category) & launched[order]][: RELATED + 1]
        members = np.flatnonzero(world.category == category)
        for member in members:
            others = best[best != member][:RELATED]
            table[member, : len(others)] = others
    frame = decisions.item_recommendations
    if frame is not None:
        frame = frame.filter(pl.col("rank") <= RELATED, pl.col("recommended_item_id").is_not_null())
        item, other = codes(frame["item_id"], world.item_ids), codes(frame["recommended_item_id"], world.item_ids)
        good = (item >= 0) & (other >= 0)
        table[np.unique(item[good])] = -1
        table[item[good], frame["rank"].to_numpy()[good] - 1] = other[good]
    return table


def codes(values: pl.Series, names: list[str]) -> Integers:
    """Place of each value among the names, -1 where it is none of them."""
    table = pl.DataFrame({"name": names, "code": np.arange(len(names))}, schema={"name": pl.String, "code": pl.Int64})
    joined = pl.DataFrame({"name": values.cast(pl.String)}).join(table, on="name", how="left", maintain_order="left")
    return joined["code"].fill_null(-1).to_numpy().astype(np.int64)


def _rows(ids: pl.Series, users: pl.Series, unknown: int) -> Integers:
    found = codes(ids, users.to_list())
    return np.where(found >= 0, found, unknown)


def audience_of(state: State, frame: pl.DataFrame, names: list[str]) -> tuple[Integers, Integers]:
    """Audience of each person by account and by cookie: a place among names, len(names) where in none of them, -1 held out."""
    first = frame.sort("user_id", "priority", "audience_id", nulls_last=True).unique("user_id", keep="first", maintain_order=True)
    code = codes(first["audience_id"], names)
    code = np.where(code < 0, len(names), code)
    # the last entry stands for people no audience speaks of
    code = np.append(np.where(first["is_holdout"].fill_null(False).to_numpy(), -1, code), len(names))
    users = first["user_id"].to_list()
    account, cookie = (code[codes(ids, users)] for ids in (state.account_ids(), state.cookie_ids()))
    return account, cookie


def match_lists(world: World, state: State, number: int, length: int) -> tuple[Integers, Floats]:
    """The truly best list of each person: items by probability of following, carting and buying. people x length."""
    from marketing_assets.sample_shop.visits import buying_table

    chance = buying_table(world, state, number, np.arange(state.people))
    best = np.argpartition(-chance, min(length, chance.shape[1] - 1), axis=1)[:, :length]
    values = np.take_along_axis(chance, best, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1).astype(np.int64), np.take_along_axis(values, order, axis=1)
