"""From what people want to what they get: orders of customers against stock, and orders to suppliers.

What belongs here: stock and whether a line can be filled. What does not: why anyone wants anything (visits.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import polars as pl

from marketing_assets.sample_shop.adverts import Impressions
from marketing_assets.sample_shop.interface import Decisions
from marketing_assets.sample_shop.lists import codes
from marketing_assets.sample_shop.people import State
from marketing_assets.sample_shop.settings import CHANNELS
from marketing_assets.sample_shop.visits import ACCOUNT, NOBODY, Lines, Sessions
from marketing_assets.sample_shop.world import Flags, Floats, Integers, World, stream

LED_ORDERS, TRADE_ORDERS, AD_ORDERS = 1_000_000, 2_000_000, 3_000_000
"""Where the numbers begin of a day's orders: of people an ad led to the shop for other things, of trade, of goods advertised."""


@dataclass
class Fulfilled:
    """The day's lines in order of time with the units sold, what each line pays a unit, and the units it lost."""

    lines: Lines
    is_filled: Flags
    lost: Integers
    paid: Floats

    @property
    def is_trade(self) -> Flags:
        return (self.lines.order >= TRADE_ORDERS) & (self.lines.order < AD_ORDERS)

    @property
    def by_ad(self) -> Flags:
        return self.lines.order >= AD_ORDERS


def receive(world: World, state: State, number: int) -> None:
    """Deliveries due arrive in the morning; a failing supplier's do not, and what is left of its goods is withdrawn."""
    due = state.under_way[:, 2] <= number
    arriving = state.under_way[due]
    for drift in world.active("stock", number):
        arriving = arriving[~world.supplier_fails[arriving[:, 0]]]
        if world.number(drift.from_day) == number:
            state.stock = np.where(world.supplier_fails, 0, state.stock)
    np.add.at(state.stock, arriving[:, 0], arriving[:, 1])
    state.under_way = state.under_way[~due]


def on_order(world: World, state: State) -> Integers:
    """Units under way of each item."""
    return np.bincount(state.under_way[:, 0], state.under_way[:, 1], world.size.items).astype(np.int64)


def place_orders(world: World, state: State, number: int, decisions: Decisions) -> int:
    """Order from suppliers: as decided, else where stock and orders fall to the fixed level. Returns units ordered."""
    if decisions.orders is None:
        short = (state.stock + on_order(world, state) <= state.reorder_level) & (world.launch <= number + world.lead_time)
        quantity = np.where(short, state.order_units, 0)
    else:
        wanted = decisions.orders.filter(pl.col("order_quantity") > 0)
        item = codes(wanted["item_id"], world.item_ids)
        amount = wanted["order_quantity"].to_numpy().astype(np.int64)
        quantity = np.bincount(item[item >= 0], amount[item >= 0], world.size.items).astype(np.int64)
        # suppliers sell whole packs
        quantity = -(-quantity // world.pack_size) * world.pack_size
    slack = stream(world.seed, 30, number).integers(0, 2, world.size.items)
    item = np.flatnonzero(quantity)
    fresh = np.stack([item, quantity[item], number + world.lead_time[item] + slack[item]], axis=1)
    state.under_way = np.concatenate([state.under_way, fresh])
    return int(quantity.sum())


def returning_lines(
    world: World, state: State, number: int, clicks: Sessions, rows: Integers, shown: Impressions, orders: int
) -> tuple[Lines, pl.DataFrame]:
    """Lines that ads brought today: of today's clicks, and of earlier ones that are due; and the impression of each order.

    The frame has order, impression_id, creative. Later orders of today's clicks are kept for their day.
    """
    rng = stream(world.seed, 24, number)
    after = shown.converts_after[rows]
    names = _impression_names(number, rows)
    units = np.where(rng.random(len(rows)) < world.parameters.several_units_share, rng.integers(2, 5, len(rows)), 1)
    pause = np.floor(60 + 600 * rng.random(len(rows)))
    return_at = np.floor(rng.uniform(9, 22, len(rows)) * 3600)
    creative = shown.creative[rows]
    item = world.creative_item[creative]
    later = np.flatnonzero(after > 0)
    if later.size:
        state.pending_conversions.append(
            pl.DataFrame(
                {
                    "lands": number + after[later],
                    "person": state.number[clicks.place[later]],
                    "place": clicks.place[later],
                    # who came unknown orders with an account
                    "who": np.where(clicks.who[later] == NOBODY, ACCOUNT, clicks.who[later]),
                    "device": clicks.device[later],
                    "second": return_at[later],
                    "item": item[later],
                    "quantity": units[later],
                    "impression_id": pl.Series(names).gather(later),
                    "creative": creative[later],
                }
            )
        )
    due: list[pl.DataFrame] = []
    waiting = []
    for frame in state.pending_conversions:
        due.append(frame.filter(pl.col("lands") == number))
        if (rest := frame.filter(pl.col("lands") > number)).height:
            waiting.append(rest)
    state.pending_conversions = waiting
    direct = np.full(1, CHANNELS.index("direct"))
    today = np.flatnonzero(after == 0)
    back = pl.concat(due) if due else None
    if back is not None:
        # who left in between does not come back
        back = back.filter(pl.Series(state.number[back["place"].to_numpy()] == back["person"].to_numpy()))
    count = 0 if back is None else back.height

    def both(own: Any, column: str) -> Any:
        return own if back is None or not count else np.concatenate([own, back[column].to_numpy()])

    order = orders + np.arange(len(today) + count)
    lines = Lines(
        np.concatenate([today, np.full(count, -1)]),
        both(clicks.place[today], "place"),
        both(clicks.who[today], "who"),
        both(clicks.device[today], "device"),
        np.concatenate([clicks.channel[today], np.repeat(direct, count)]),
        both(clicks.second[today] + pause[today], "second"),
        both(item[today], "item"),
        both(units[today].astype(np.int64), "quantity"),
        order,
    )
    impression = [names[place] for place in today] + ([] if back is None else back["impression_id"].to_list())
    frame = pl.DataFrame(
        {"order": order, "impression_id": impression, "creative": both(creative[today], "creative")},
        schema={"order": pl.Int64, "impression_id": pl.String, "creative": pl.Int64},
    )
    return lines, frame


def _impression_names(number: int, rows: Integers) -> list[str]:
    return [f"m{number:05d}-{row:07d}" for row in rows]


def impression_ids(number: int, count: int) -> pl.Series:
    """Ids of a day's impressions in order."""
    return pl.select(pl.lit(f"m{number:05d}-") + pl.int_range(count).cast(pl.String).str.zfill(7)).to_series()


def join_lines(parts: Sequence[Lines]) -> Lines:
    """All lines of a day. Order numbers tell where a line came from."""
    return Lines(*(np.concatenate([getattr(part, entry.name) for part in parts]) for entry in fields(Lines)))


def fulfil(world: World, state: State, number: int, wanted: Lines) -> Fulfilled:
    """First come, first served. A line that cannot be filled whole is lost; trade customers take what there is."""
    order = np.lexsort((wanted.order, wanted.item, wanted.second))
    lines = Lines(*(getattr(wanted, entry.name)[order] for entry in fields(Lines)))
    by_item = np.lexsort((np.arange(len(order)), lines.item))
    item, units = lines.item[by_item], lines.quantity[by_item]
    filled = np.zeros(len(order), dtype=bool)
    running = np.cumsum(units)
    first = np.searchsorted(item, item)
    so_far = running - (running[first] - units[first])
    filled[by_item] = so_far <= state.stock[item]
    # where a large line failed, smaller ones after it may still be filled
    short = np.unique(lines.item[~filled])
    sold = lines.quantity.copy()
    is_trade = (lines.order >= TRADE_ORDERS) & (lines.order < AD_ORDERS)
    for name in short:
        rows = np.flatnonzero(lines.item == name)
        left = int(state.stock[name])
        for row in rows:
            if is_trade[row] and 0 < left < sold[row]:
                sold[row] = left
            filled[row] = sold[row] <= left
            left -= int(sold[row]) if filled[row] else 0
    lost = np.where(filled, lines.quantity - sold, lines.quantity)
    lines.quantity = sold
    state.stock = state.stock - np.bincount(lines.item[filled], sold[filled], world.size.items).astype(np.int64)
    price = world.prices(number)[1][lines.item]
    return Fulfilled(lines, filled, lost, np.where(is_trade, np.round(price * (1 - world.parameters.trade_discount), 2), price))
