"""What people would buy if everything were in stock: for the oracle, and for the planners' first guess.

What belongs here: expected units by item, and the shelves of the first day. What does not: what is bought (visits.py, orders.py).
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from marketing_assets.sample_shop.people import State, trade_units
from marketing_assets.sample_shop.visits import cart_and_buy
from marketing_assets.sample_shop.world import Floats, World

_PEOPLE = 400
"""Retail customers looked at: a sample, since it takes people x items."""
_QUANTILES = 9
_SOLD_DAYS = 20.0
"""Days of sales that lie in the decayed sums popularity lists go by."""


def usual_units(world: World, state: State, number: int) -> Floats:
    """Units of each item wanted on a day of ordinary season at the prices of day `number`."""
    return _retail(world, state, number) + _trade(world, state, number)


def _retail(world: World, state: State, number: int) -> Floats:
    """Everyone taken to look around by themselves: lists move which items are seen, hardly how many."""
    p = world.parameters
    retail = np.flatnonzero(~state.is_trade)
    places = retail[:: max(1, len(retail) // _PEOPLE)]
    items = np.arange(world.size.items)
    seen = np.exp(state.theta[places])[:, world.group] * np.where(world.launch <= number, world.popularity, 0.0)
    seen /= seen.sum(axis=1, keepdims=True)
    match = world.match_table(state.theta[places], state.latent[places], items)
    rows, columns = np.repeat(places, len(items)), np.tile(items, len(places))
    cart, buy = cart_and_buy(world, state, number, rows, columns, match.ravel())
    views = state.visit_rate[places] * p.views_median * np.exp(p.views_sigma**2 / 2)
    per_line = (1 + 2 * p.several_units_share) * (1 + p.extra_line_share)
    total = views @ (seen * (cart * buy).reshape(seen.shape))
    return np.asarray(total * per_line * len(retail) / len(places), dtype=np.float64)


def _trade(world: World, state: State, number: int) -> Floats:
    """Each item is in an order with the chance that one of its lines, drawn independently, names it."""
    p, items = world.parameters, world.size.items
    places = np.flatnonzero(state.is_trade)
    open_ = np.where(world.launch <= number, world.popularity, 0.0)
    tried = np.exp(state.theta[places])[:, world.group] * open_
    tried /= tried.sum(axis=1, keepdims=True)
    steps = (np.arange(p.trade_assortment + 1) / p.trade_assortment) ** (1 / p.trade_own_power)
    own = np.zeros((len(places), items))
    np.add.at(own, (np.arange(len(places))[:, None], state.assortment[places]), np.diff(steps))
    line = p.trade_own_share * own + (1 - p.trade_own_share) * tried
    lines = p.trade_lines_median * np.exp(p.trade_lines_sigma * ndtri((np.arange(_QUANTILES) + 0.5) / _QUANTILES))
    lines = np.clip(np.round(lines), 1, min(p.trade_most_lines, items // 3))
    chance = np.mean([1 - (1 - line) ** count for count in lines], axis=0)
    # fewer orders at weekends, see visits.trade_lines
    orders = 1 - np.exp(-state.order_rate[places] * (5 * p.trade_workday + 2 * p.trade_weekend) / 7)
    units = trade_units(world) * np.exp(p.trade_units_sigma**2 / 2)
    return np.asarray((orders @ chance) * units * (world.launch <= number), dtype=np.float64)


def fill_shelves(world: World, state: State, rng: np.random.Generator) -> None:
    """Stock, reorder levels and order sizes of common practice, set once by a guess of what usually sells."""
    p, items = world.parameters, world.size.items
    later = world.launch > 0
    usual = usual_units(world, state, int(max(world.launch.max(), 0)))
    guess = np.where(later, 0.6, 1.0) * usual * np.exp(rng.normal(0, p.reorder_error, items))
    state.reorder_level = np.ceil(guess * (p.reorder_cover_days + world.lead_time)).astype(np.int64)
    packs = np.ceil(np.maximum(guess * p.order_cover_days, 1) / world.pack_size)
    state.order_units = (packs * world.pack_size).astype(np.int64)
    state.stock = state.reorder_level + rng.integers(0, state.order_units + 1)
    state.sold_decayed = np.where(later, 0.0, usual * _SOLD_DAYS)
