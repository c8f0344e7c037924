"""What goes with a basket as it stands, asked for at any moment.

What belongs here: one list per basket from orders and rules in force. What does not: the tables (build.py), which are issued once
a day.

What orders hold is regressed item on item, all at once and no item on itself (EASE, Steck 2019), here around each item's share of
orders: where little was ordered together what is popular comes first, and of ten items of a basket that all speak for the same one
none counts what another has told already. Orders of guests tell as much as those of known people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse as sp

from marketing_assets.config import Store
from marketing_assets.features.running import day_literal
from marketing_assets.recommendations import reasons
from marketing_assets.recommendations.catalogue import Catalogue
from marketing_assets.recommendations.history import HISTORY_DAYS, Floats, Integers, expand, ordinal, ordinals
from marketing_assets.recommendations.lists import BLOCK_CELLS, levels, places_of_best
from marketing_assets.recommendations.next_visits import ones
from marketing_assets.recommendations.scores import faded
from marketing_assets.recommendations.window import named
from marketing_assets.warehouse import MissingPartitions, Reader

ORDERS = 100_000
"""Regressed are the newest orders of several items, so many of them,"""
ITEMS = 4_000
"""on so many items: those asked about, what was ordered with them most, and what is ordered most."""
HALF_LIFE = 90
"""An order counts half after so many days, and one of n items n^-1/2."""
RIDGE = 10.0
"""The penalty, in orders."""
GOES_WITH = 0.5
"""An entry is said to go with an item that adds so much of its share of orders to it; else it is popular."""


class BasketError(Exception):
    """A file of baskets that cannot be read; the text names file, row and what to do."""


def read_baskets(path: Path) -> dict[str, list[str]]:
    """basket_id -> item_ids of a CSV with these two columns, a row per item. Raises BasketError naming file and row."""
    try:
        rows = pl.read_csv(path, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise BasketError(f"{path}: cannot be read as CSV: {error}") from error
    lacking = [name for name in ("basket_id", "item_id") if name not in rows.columns]
    if lacking:
        raise BasketError(f"{path}: has no column {' or '.join(lacking)}, only {', '.join(rows.columns)}; give a row per item with both")
    empty = rows.with_row_index("row", offset=2).filter(pl.col("basket_id").is_null() | pl.col("item_id").is_null())
    if empty.height:
        raise BasketError(f"{path}: line {empty['row'][0]} lacks basket_id or item_id; fill it in or take the line out")
    return {str(name): part["item_id"].to_list() for (name,), part in rows.group_by("basket_id", maintain_order=True)}


def for_basket(
    reader: Reader,
    day: date,
    store: Store,
    baskets: Mapping[str, Sequence[str]],
    length: int = 10,
    tell: Callable[[str], None] = lambda _: None,
) -> pl.DataFrame:
    """basket_id, rank, item_id, title, score, reason: what goes with the items of each basket, those in it left out.

    score: the share of orders with such a basket that hold the item, as far as a regression tells. Orders and rules are those known
    at the end of `day`. Items that were not known then are left aside and told of; a basket of nothing else gets what is popular.
    Raises MissingPartitions where no item was known.
    """
    catalogue = Catalogue(reader, [day], store)
    if catalogue.items.is_empty():
        raise MissingPartitions(f"items: none is known at the end of {day}; build the days up to it first")
    catalogue.at(day)
    names = sorted(baskets)
    owner = np.repeat(np.arange(len(names)), [len(baskets[name]) for name in names])
    asked = pl.Series("item_id", [item for name in names for item in baskets[name]], dtype=pl.String)
    place = catalogue.places(asked)
    strange = asked.filter(place < 0).unique().sort()
    if len(strange):
        tell(f"not known at the end of {day}, left aside: {len(strange)} items, such as {', '.join(strange[:5])}")
    held = ones(owner[place >= 0], place[place >= 0], len(names), len(catalogue.items))
    together = _together(reader, day, catalogue, np.unique(held.indices))
    if not together.share.any():
        tell(f"no order is known at the end of {day}, so that nothing can be said of baskets")
    block = max(1, BLOCK_CELLS // len(catalogue.items))
    found = pl.concat([
        _best(together, catalogue, held[start : start + block], length).with_columns(pl.col("basket") + start)
        for start in range(0, max(len(names), 1), block)
    ])  # fmt: skip
    title = catalogue.entries.select(name=pl.coalesce("title", "item_id"))["name"]
    rows = found.with_columns(
        basket_id=pl.Series(names, dtype=pl.String).gather(found["basket"]), item_id=catalogue.items.gather(found["item"]),
        title=named(title, found["entry"]), anchor=named(title, found["anchor"]), times=pl.lit(0), days_ago=pl.lit(0),
    )  # fmt: skip
    return rows.select("basket_id", "rank", "item_id", "title", "score", reason=reasons.sentences(rows))


@dataclass(frozen=True)
class _Together:
    """share: per item of the catalogue its share of orders. place: its place among those regressed, -1 for none; effects[a, b]: by how
    much the share of b is larger in orders that hold a."""

    share: Floats
    place: Integers
    effects: Floats


def _together(reader: Reader, day: date, catalogue: Catalogue, asked: Integers) -> _Together:
    """What the orders known at the end of `day` tell. An order is what was bought under its number, else in a visit, else by a
    person in a day; one of a single item says nothing, unless all are."""
    events = reader.table("clean_events")
    ours = events.filter(
        events.landed_date.between(day_literal(day - timedelta(days=HISTORY_DAYS - 1)), day_literal(day)),
        events.event_type == "purchase", events.item_id.notnull(), ~events.is_bot, ~events.is_service,
    )  # fmt: skip
    ours = ours.mutate(basket=ours.order_id.coalesce(ours.session_id, ours.user_id.concat(" ", ours.event_date.cast("string"))))
    rows = reader.frame(ours.filter(ours.basket.notnull()).group_by("basket", "item_id").agg(event_date=ours.event_date.max()))
    orders = rows.group_by("basket").agg(pl.col("event_date").max(), size=pl.len())
    orders = orders.filter((pl.col("size") > 1) | (pl.col("size").max() == 1))
    orders = orders.sort("event_date", "basket", descending=[True, False]).head(ORDERS)
    kept = rows.join(orders.select("basket", number=pl.int_range(pl.len())), on="basket").sort("number", "item_id")
    n, column = len(catalogue.items), catalogue.places(kept["item_id"])
    content = ones(kept["number"].to_numpy()[column >= 0], column[column >= 0], orders.height, n)
    weight = faded(ordinal(day) - ordinals(orders["event_date"]), HALF_LIFE) * orders["size"].to_numpy() ** -0.5
    total = max(float(weight.sum()), 1e-9)
    share = np.asarray(content.T @ weight) / total
    near = content.T @ (content[:, asked].sum(axis=1) > 0).astype(np.float64)
    often = content.T @ np.ones(orders.height)
    chosen = np.lexsort((-often, -near, ~np.isin(np.arange(n), asked)))[:ITEMS]
    chosen = np.sort(chosen[often[chosen] > 0])
    place = np.full(n, -1, dtype=np.int64)
    place[chosen] = np.arange(len(chosen))
    part = content[:, chosen]
    square = (part.T @ sp.csr_array(sp.diags_array(weight) @ part)).toarray() - total * np.outer(share[chosen], share[chosen])
    square[np.diag_indices_from(square)] += RIDGE
    inverse = np.linalg.inv(square)
    effects = -inverse / np.diag(inverse)
    np.fill_diagonal(effects, 0.0)
    return _Together(share, place, effects)


def _best(together: _Together, catalogue: Catalogue, held: sp.csr_array, length: int) -> pl.DataFrame:
    """basket, rank, item, score, entry, kind, anchor (entry of the item it goes with, or -1) for baskets, the rows of held."""
    regressed = np.flatnonzero(together.place >= 0)
    value = np.tile(together.share, (held.shape[0], 1))
    usual = together.share[regressed] @ together.effects
    value[:, regressed] += held[:, regressed] @ together.effects - usual
    value[held.nonzero()] = 0.0
    row, item = np.nonzero(catalogue.may_recommend & (value > 0))
    best = places_of_best(row, levels(value[row, item]), item, held.shape[0], length)
    row, rank = np.nonzero(best >= 0)
    item = item[best[row, rank]]
    anchor = _anchors(together, held, row, item)
    return pl.DataFrame({
        "basket": row, "rank": rank + 1, "item": item, "score": np.round(value[row, item], 6), "entry": catalogue.entry[item],
        "kind": np.where(anchor >= 0, reasons.LINKED, reasons.POPULAR), "anchor": np.where(anchor >= 0, catalogue.entry[anchor], -1),
    })  # fmt: skip


def _anchors(together: _Together, held: sp.csr_array, row: Integers, item: Integers) -> Integers:
    """Of what is in each entry's basket, the item that it goes with most; -1 where it goes with none."""
    entry, at = expand(*(held.indptr[row + step].astype(np.int64) for step in (0, 1)))
    source = held.indices[at].astype(np.int64)
    inside = np.flatnonzero((together.place[source] >= 0) & (together.place[item[entry]] >= 0))
    entry, source = entry[inside], source[inside]
    said = together.effects[together.place[source], together.place[item[entry]]]
    best = places_of_best(entry, levels(said), source, len(row), 1)[:, 0]
    found = np.full(len(row), -1, dtype=np.int64)
    spoken = np.flatnonzero(best >= 0)
    spoken = spoken[said[best[spoken]] >= GOES_WITH * together.share[item[spoken]]]
    found[spoken] = source[best[spoken]]
    return found
