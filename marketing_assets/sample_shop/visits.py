"""Visits: who comes, what they look at, put in the cart and want to buy.

What belongs here: the behaviour of retail and trade customers, given what the shop shows them. What does not: whether what
they want is in stock, and files (shop.py, landing.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from marketing_assets.sample_shop.lists import RELATED, Lists
from marketing_assets.sample_shop.people import State, trade_units
from marketing_assets.sample_shop.settings import CHANNELS
from marketing_assets.sample_shop.world import HOURS_OPEN, Flags, Floats, Integers, World, stream

ACCOUNT, COOKIE, NOBODY = 0, 1, 2
"""Under which id a person is seen."""
MATCH_OFFSET = 0.12
FOLLOW = 0.5
"""Share of attention to a list that turns into a view, at an ordinary match."""


@dataclass
class Sessions:
    """One entry per session: person, id seen under, device, channel, first second of the day."""

    place: Integers
    who: Integers
    device: Integers
    channel: Integers
    second: Floats


@dataclass
class Views:
    """One entry per item viewed: its session, second, dwell, whether a cart, a wish and a wanted purchase follow.

    chance: P(bought if in stock) as it truly is. listed: came from a list.
    """

    session: Integers
    item: Integers
    second: Floats
    dwell: Floats
    chance: Floats
    listed: Flags
    is_carted: Flags
    is_wished: Flags
    is_wanted: Flags


@dataclass
class Lines:
    """One entry per order line wanted. session -1: an order that goes back to an earlier click. impression: its row of the
    day's impressions or -1. order: lines with one number are one order."""

    session: Integers
    place: Integers
    who: Integers
    device: Integers
    channel: Integers
    second: Floats
    item: Integers
    quantity: Integers
    order: Integers


def seconds_of(rng: np.random.Generator, count: int) -> Floats:
    """Seconds of the day by the shop's hours."""
    hour = rng.choice(24, count, p=HOURS_OPEN / HOURS_OPEN.sum())
    return np.floor(hour * 3600 + rng.random(count) * 3600)


def identity(world: World, state: State, number: int, place: Integers, rng: np.random.Generator) -> tuple[Integers, Integers]:
    """Device used and id seen under by people who are recognised."""
    uses_second = (state.second_device[place] >= 0) & (rng.random(len(place)) < world.parameters.second_device_use)
    device = np.where(uses_second, state.second_device[place], state.device[place])
    return device, np.where(uses_second & (number < state.linked[place]), COOKIE, ACCOUNT)


def price_effect(world: World, state: State, number: int, place: Integers, item: Integers) -> Floats:
    """Log effect of today's price against the item's usual price."""
    ratio = np.log(world.prices(number)[1] / world.base_price)[item]
    return np.asarray(world.parameters.elasticity * state.price_sense[place] * ratio, dtype=np.float64)


def cart_and_buy(
    world: World, state: State, number: int, place: Integers, item: Integers, match: Floats
) -> tuple[Floats, Floats]:
    """P(cart | view) and P(wants to buy | cart)."""
    p = world.parameters
    price = price_effect(world, state, number, place, item)
    cart = p.match_on_cart * (match - MATCH_OFFSET) + p.appeal_on_cart * world.appeal[item] + 0.5 * state.buy[place]
    cart = cart + 0.6 * price + p.price_on_cart * np.log(world.base_price / p.price_median)[item]
    buy = p.match_on_purchase * (match - MATCH_OFFSET) + 0.5 * state.buy[place] + 0.4 * price
    return np.minimum(p.cart_per_view * np.exp(cart), 0.6), np.minimum(p.purchase_per_cart * np.exp(buy), 0.9)


def buying_table(world: World, state: State, number: int, places: Integers) -> Floats:
    """people x items: P(an item shown in a list is followed and bought), 0 where it cannot be."""
    items = np.arange(world.size.items)
    match = world.match_table(state.theta[places], state.latent[places], items)
    rows, columns = np.repeat(places, len(items)), np.tile(items, len(places))
    cart, buy = cart_and_buy(world, state, number, rows, columns, match.ravel())
    follow = np.minimum(FOLLOW * np.exp(world.parameters.match_on_follow * match.ravel()), 1.0)
    can = (state.stock > 0) & (world.launch <= number)
    return (cart * buy * follow * can[columns]).reshape(len(places), len(items))


def retail_sessions(world: World, state: State, day: date, number: int) -> Sessions:
    """Who comes today by themselves."""
    p, rng = world.parameters, stream(world.seed, 10, number)
    level = world.season(day) * np.exp(rng.normal(0, p.noise_sd))
    visits = rng.poisson(state.visit_rate * level)
    place = np.repeat(np.arange(state.people), visits)
    device, who = identity(world, state, number, place, rng)
    who = np.where(rng.random(len(place)) < p.anonymous_share, NOBODY, who)
    usual = rng.random(len(place)) < 0.7
    channel = np.where(usual, state.channel[place], rng.integers(0, 4, len(place)))
    return Sessions(place, who, device, channel, seconds_of(rng, len(place)))


def look_around(
    world: World, state: State, number: int, sessions: Sessions, lists: Lists, first_item: Integers, few: bool, salt: int
) -> Views:
    """What is viewed in each session. first_item: an item every session begins with, -1 where people begin as they like.

    few: sessions that follow an ad look at little else. Draws do not depend on what the lists hold.
    """
    p, rng = world.parameters, stream(world.seed, salt, number)
    count = len(sessions.place)
    views = np.exp(rng.normal(np.log(p.views_median), p.views_sigma, count))
    views = np.clip(np.floor(views * (0.4 if few else 1.0) + rng.random(count)), 1, p.most_views).astype(np.int64)
    session = np.repeat(np.arange(count), views)
    total = len(session)
    place = sessions.place[session]
    start = np.cumsum(views) - views
    nth = np.arange(total) - start[session]
    draws = rng.random((total, 8))
    item = _own_choice(world, state, number, place, draws[:, 0], draws[:, 1])
    # from a list, if what stands there appeals
    row = np.where(
        sessions.who[session] == ACCOUNT,
        lists.account[place],
        np.where(sessions.who[session] == COOKIE, lists.cookie[place], lists.unknown),
    )
    place_in_list = np.floor(np.log1p(-draws[:, 2] * (1 - p.list_decay ** lists.length[row])) / np.log(p.list_decay))
    offered = lists.items[row, np.minimum(place_in_list.astype(np.int64), lists.length[row] - 1)]
    appeal = world.true_match(state.theta[place], state.latent[place], offered)
    is_list = draws[:, 3] < p.list_share
    follows = draws[:, 4] < np.minimum(FOLLOW * np.exp(p.match_on_follow * appeal), 1.0)
    listed = is_list & follows
    item = np.where(listed, offered, item)
    # from the page just seen, or something seen before
    beside = lists.related[np.roll(item, 1), np.minimum((draws[:, 5] * RELATED).astype(np.int64), RELATED - 1)]
    turns = ~listed & (draws[:, 6] < p.related_share) & (nth > 0) & (beside >= 0)
    item = np.where(turns, beside, item)
    before = state.last_views[place, (draws[:, 5] * state.last_views.shape[1]).astype(np.int64)]
    again = ~listed & ~turns & (draws[:, 6] > 1 - p.revisit_share) & (before >= 0)
    item = np.where(again, before, item)
    led = (nth == 0) & (first_item[session] >= 0)
    item = np.where(led, first_item[session], item)
    match = world.true_match(state.theta[place], state.latent[place], item)
    cart, buy = cart_and_buy(world, state, number, place, item, match)
    length = np.exp(rng.normal(np.log(p.dwell_median_seconds), p.dwell_sigma, total) + 0.15 * match)
    dwell = np.asarray(np.round(np.minimum(length, 1500.0), 1), dtype=np.float64)
    steps = np.cumsum(dwell + 4) - (dwell + 4)
    second = np.floor(sessions.second[session] + steps - steps[start][session])
    can = (state.stock > 0) & (world.launch <= number)
    chance: Floats = np.where(led & few, 0.0, cart * buy * can[item])
    choice = rng.random((total, 3))
    carted = (choice[:, 0] < cart) & can[item] & ~(led & few)
    wanted = carted & (choice[:, 1] < buy)
    wished = (choice[:, 2] < p.wishlist_per_view * np.exp(0.3 * match)) & ~carted
    state.last_views[place, nth % state.last_views.shape[1]] = item
    return Views(session, item, second, dwell, chance, listed & ~led, carted, wished, wanted)


def _own_choice(world: World, state: State, number: int, place: Integers, first: Floats, second: Floats) -> Integers:
    """What people look for themselves: a group by taste and what it holds, an item of it by popularity."""
    _, totals, _ = world.shelf(number)
    weight = np.exp(state.theta) * totals
    running = np.cumsum(weight, axis=1)
    running /= running[:, -1:]
    group = (running[place] < first[:, None]).sum(axis=1)
    return world.pick(number, np.minimum(group, len(totals) - 1), second)


def retail_lines(world: World, state: State, number: int, sessions: Sessions, views: Views, orders: int, salt: int) -> Lines:
    """Order lines wanted: each wanted view, and for some orders one more item of the same kind. orders: numbers so far."""
    p, rng = world.parameters, stream(world.seed, salt, number)
    wanted = np.flatnonzero(views.is_wanted)
    session, item = views.session[wanted], views.item[wanted]
    more = np.flatnonzero(rng.random(len(wanted)) < p.extra_line_share)
    added = world.pick(number, world.group[item[more]], rng.random(len(more)))
    session, item = np.append(session, session[more]), np.append(item, added)
    units = np.where(rng.random(len(item)) < p.several_units_share, rng.integers(2, 5, len(item)), 1)
    ends = sessions.second.copy()
    np.maximum.at(ends, views.session, views.second + views.dwell)
    buyers, order = np.unique(session, return_inverse=True)
    # the same item twice in an order is one line
    keep = np.sort(np.unique(session * world.size.items + item, return_index=True)[1])
    session, item, units, order = session[keep], item[keep], units[keep], order[keep]
    return Lines(
        session,
        sessions.place[session],
        sessions.who[session],
        sessions.device[session],
        sessions.channel[session],
        np.floor(ends[session] + 45 + 60 * rng.random(len(buyers))[order]),
        item,
        units.astype(np.int64),
        orders + order,
    )


def trade_lines(world: World, state: State, day: date, number: int, orders: int) -> Lines:
    """Trade customers' orders: many lines, many units, mostly from what each of them always buys."""
    p, rng = world.parameters, stream(world.seed, 12, number)
    level = world.season(day) * (p.trade_weekend if day.weekday() >= 5 else p.trade_workday)
    buys = np.flatnonzero(rng.random(state.people) < 1 - np.exp(-state.order_rate * level))
    lines = np.exp(rng.normal(np.log(p.trade_lines_median), p.trade_lines_sigma, len(buys)))
    most = min(p.trade_most_lines, world.size.items // 3)
    lines = np.clip(np.round(lines), 1, most).astype(np.int64)
    order = np.repeat(np.arange(len(buys)), lines)
    place = buys[order]
    total = len(order)
    own = np.floor(p.trade_assortment * rng.random(total) ** p.trade_own_power).astype(np.int64)
    tried = _own_choice(world, state, number, place, rng.random(total), rng.random(total))
    item = np.where(rng.random(total) < p.trade_own_share, state.assortment[place, own], tried)
    amount = trade_units(world)[item] * np.exp(rng.normal(0, p.trade_units_sigma, total))
    units: Integers = np.clip(np.round(amount), 1, p.trade_most_units).astype(np.int64)
    second = np.floor(seconds_of(rng, len(buys)) * 0.6 + 6 * 3600 * 0.4)
    keep = np.sort(np.unique(order * world.size.items + item, return_index=True)[1])
    keep = keep[world.launch[item[keep]] <= number]
    order, place, item, units = order[keep], place[keep], item[keep], units[keep]
    return Lines(
        np.full(len(order), -1, dtype=np.int64),
        place,
        np.full(len(order), ACCOUNT, dtype=np.int64),
        state.device[place],
        np.full(len(order), CHANNELS.index("order_form"), dtype=np.int64),
        second[order],
        item,
        units,
        orders + order,
    )
