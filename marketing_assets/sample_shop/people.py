"""The people of the sample shop and everything else that changes from day to day.

What belongs here: drawing people, renewing those who leave, the state between days, saving and loading it. What does not: what
people do (visits.py, adverts.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import polars as pl

from marketing_assets.sample_shop.settings import DEVICES, FACTORS, GROUPS, STYLES
from marketing_assets.sample_shop.world import Flags, Floats, Integers, World

NEVER = 1 << 30
"""A day number that does not come."""
LATER = ("pending", "pending_conversions", "pending_reports")


@dataclass
class State:
    """Arrays over people (one place each, a newcomer takes the place of who leaves), items, campaigns; and what is under way.

    number: of the person, in their ids. theta, latent: taste, see World.true_match. linked: day a second device is known to be
    theirs. under_way: item, units and day of arrival of orders to suppliers. catalogue: stock, units on order and price of each item
    as last published. pending: event rows that land on a later day (`lands`); pending_conversions: orders that earlier ad clicks
    will bring; pending_reports: conversions reported late.
    """

    next_day: int
    next_person: int
    number: Integers
    born: Integers
    theta: Floats
    latent: Floats
    visit_rate: Floats
    buy: Floats
    price_sense: Floats
    click: Floats
    ad_rate: Floats
    device: Integers
    second_device: Integers
    linked: Integers
    channel: Integers
    has_consent: Flags
    is_trade: Flags
    order_rate: Floats
    assortment: Integers
    last_views: Integers
    stock: Integers
    reorder_level: Integers
    order_units: Integers
    under_way: Integers
    sold_decayed: Floats
    creative_spend: Floats
    creative_value: Floats
    catalogue: Floats
    events_written: int = 0
    pending: list[pl.DataFrame] = field(default_factory=list)
    pending_conversions: list[pl.DataFrame] = field(default_factory=list)
    pending_reports: list[pl.DataFrame] = field(default_factory=list)

    @property
    def people(self) -> int:
        return len(self.number)

    def account_ids(self) -> pl.Series:
        return pl.Series(self.number).cast(pl.String).str.zfill(6).str.replace("^", "u")

    def cookie_ids(self) -> pl.Series:
        return pl.Series(self.number).cast(pl.String).str.zfill(6).str.replace("^", "c")

    def save(self, folder: Path) -> None:
        """Plain arrays in state.npz, rows under way in parquet, numbers in state.json."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays, numbers = {}, {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, np.ndarray):
                arrays[entry.name] = value
            elif isinstance(value, int):
                numbers[entry.name] = value
            else:
                for old in folder.glob(f"{entry.name}-*.parquet"):
                    old.unlink()
                for place, frame in enumerate(value):
                    frame.write_parquet(folder / f"{entry.name}-{place:04d}.parquet")
        np.savez(folder / "state.npz", **arrays)  # type: ignore[arg-type]
        (folder / "state.json").write_text(json.dumps(numbers), encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> State:
        with np.load(folder / "state.npz", allow_pickle=False) as arrays:
            values = {name: arrays[name] for name in arrays.files}
        values |= json.loads((folder / "state.json").read_text(encoding="utf-8"))
        for name in LATER:
            values[name] = [pl.read_parquet(path) for path in sorted(folder.glob(f"{name}-*.parquet"))]
        return State(**values)


def first_state(world: World, rng: np.random.Generator) -> State:
    """People of all ages on the eve of the first day, nothing on order; shelves are filled in demand.py."""
    p, size = world.parameters, world.size
    people, items = size.users, size.items
    trade = np.zeros(people, dtype=bool)
    trade[: round(people * size.trade_share)] = True
    empty = np.zeros(people, dtype=np.int64)
    state = State(
        next_day=0,
        next_person=0,
        number=empty.copy(),
        born=empty.copy(),
        theta=np.zeros((people, GROUPS)),
        latent=np.zeros((people, FACTORS)),
        visit_rate=np.zeros(people),
        buy=np.zeros(people),
        price_sense=np.zeros(people),
        click=np.zeros(people),
        ad_rate=np.zeros(people),
        device=empty.copy(),
        second_device=empty.copy(),
        linked=empty.copy(),
        channel=empty.copy(),
        has_consent=np.zeros(people, dtype=bool),
        is_trade=trade,
        order_rate=np.zeros(people),
        assortment=np.zeros((people, p.trade_assortment), dtype=np.int64),
        last_views=np.full((people, 6), -1, dtype=np.int64),
        stock=np.zeros(items, dtype=np.int64),
        reorder_level=np.zeros(items, dtype=np.int64),
        order_units=np.zeros(items, dtype=np.int64),
        under_way=np.zeros((0, 3), dtype=np.int64),
        sold_decayed=np.zeros(items),
        creative_spend=np.full(size.creatives, p.results_prior_days * world.common_budget / size.creatives),
        creative_value=np.full(size.creatives, 3 * p.results_prior_days * world.common_budget / size.creatives),
        catalogue=np.full((items, 3), -1.0),
    )
    renew(world, state, np.arange(people), 0, rng)
    state.born = -np.floor(rng.exponential(p.lifetime_days, people)).astype(np.int64)
    state.linked = np.where(state.linked < NEVER, np.maximum(state.linked + state.born // 4, 1), NEVER)
    return state


def renew(world: World, state: State, places: Integers, number: int, rng: np.random.Generator, *, is_mix: bool = False) -> None:
    """Put newcomers in these places. is_mix: the crowd that a drift of the mix brings: phones and social media."""
    p, count = world.parameters, len(places)
    state.number[places] = state.next_person + np.arange(count)
    state.next_person += count
    state.born[places] = number
    category = rng.normal(0, p.taste_category_sd, (count, GROUPS // STYLES))
    style = rng.normal(0, p.taste_style_sd, (count, STYLES))
    group = np.repeat(category, STYLES, axis=1) + np.tile(style, (1, GROUPS // STYLES)) + rng.normal(0, 0.3, (count, GROUPS))
    state.theta[places] = group / np.sqrt(p.taste_category_sd**2 + p.taste_style_sd**2 + 0.09)
    state.latent[places] = rng.normal(0, 1, (count, FACTORS))
    trade = state.is_trade[places]
    retail = max(int((~state.is_trade).sum()), 1)
    mean = world.size.sessions / retail
    state.visit_rate[places] = np.where(trade, 0.0, rng.gamma(p.visit_shape, mean / p.visit_shape, count))
    state.ad_rate[places] = np.where(trade, 0.05, 1.0) * rng.gamma(2.0, 0.5, count)
    state.buy[places] = rng.normal(0, p.buy_sd, count)
    state.price_sense[places] = np.exp(rng.normal(0, p.price_sensitivity_sd, count))
    state.click[places] = rng.normal(0, p.user_click_sd, count)
    shares = np.array([0.85, 0.1, 0.05]) if is_mix else np.array(p.device_shares)
    channels = np.array([0.1, 0.1, 0.05, 0.75]) if is_mix else np.array(p.channel_shares)
    state.device[places] = np.where(trade, 1, rng.choice(len(DEVICES), count, p=shares))
    other = (state.device[places] + rng.integers(1, len(DEVICES), count)) % len(DEVICES)
    has_two = ~trade & (rng.random(count) < p.second_device_share)
    state.second_device[places] = np.where(has_two, other, -1)
    link = number + 1 + np.floor(rng.exponential(p.days_to_link, count)).astype(np.int64)
    state.linked[places] = np.where(has_two, link, NEVER)
    state.channel[places] = rng.choice(4, count, p=channels)
    state.has_consent[places] = rng.random(count) < p.consent_share
    state.order_rate[places] = np.where(trade, np.exp(rng.normal(0, p.trade_gap_sigma, count)) / p.trade_gap_days, 0.0)
    state.last_views[places] = -1
    for place in places[trade]:
        group_weight = np.exp(0.5 * state.theta[place])[world.group] * world.popularity / world.base_price
        key = rng.exponential(1.0, world.size.items) / group_weight
        kept = np.argsort(key, kind="stable")[: p.trade_assortment]
        state.assortment[place] = np.resize(kept, p.trade_assortment)


def live_and_die(world: World, state: State, number: int, rng: np.random.Generator) -> Integers:
    """Places of who left before the day and was replaced; mix drifts renew more on their first days."""
    p = world.parameters
    chance = rng.random(state.people)
    gone = np.flatnonzero(chance < 1 / p.lifetime_days)
    if gone.size:
        renew(world, state, gone, number, rng)
    mixed = np.zeros(0, dtype=np.int64)
    for drift in world.active("mix", number):
        age = number - world.number(drift.from_day)
        if age < 4:
            share = p.drift_mix_renewal * drift.strength / 2
            mixed = np.flatnonzero(~state.is_trade & (rng.random(state.people) < share))
            renew(world, state, mixed, number, rng, is_mix=True)
    for drift in world.active("taste", number):
        if world.number(drift.from_day) == number:
            share = p.drift_taste_share * drift.strength
            state.theta = (1 - share) * state.theta + share * state.theta[:, world.taste_swap]
            state.latent = (1 - share) * state.latent - share * state.latent[:, ::-1]
    return np.union1d(gone, mixed)


def forget(world: World, state: State, places: Integers, number: int, rng: np.random.Generator) -> None:
    """Who asked to be forgotten leaves; nothing of theirs lands any more."""
    if not places.size:
        return
    gone = pl.concat([state.account_ids().gather(places), state.cookie_ids().gather(places)]).implode()
    state.pending = [frame.filter(~pl.col("user_id").is_in(gone).fill_null(False)) for frame in state.pending]
    renew(world, state, places, number, rng)


def trade_units(world: World) -> Floats:
    """Median units of each item in a trade order's line."""
    p = world.parameters
    return np.asarray(p.trade_units_median * (world.base_price / p.trade_usual_price) ** p.trade_price_on_units)
