"""Ads: opportunities, who is shown what, true click and conversion probabilities, clicks.

What belongs here: the day's impressions under a plan or under common practice, and the truth about every cell. What does not:
learning anything from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from marketing_assets.sample_shop.interface import Decisions
from marketing_assets.sample_shop.lists import UNKNOWN, audience_of, codes
from marketing_assets.sample_shop.people import State
from marketing_assets.sample_shop.settings import CHANNELS
from marketing_assets.sample_shop.visits import COOKIE, NOBODY, Sessions, identity, price_effect
from marketing_assets.sample_shop.world import Flags, Floats, Integers, World, stream

UNITS_PER_CONVERSION = 1.0 + 0.12 * 2.0
COMMON_POLICY = "proportional_budget"
PLAN_POLICY = "ad_plan"


@dataclass
class Opportunities:
    """One entry per chance to show an ad: person, id seen under, device, placement, hour, second, slot from 1."""

    place: Integers
    who: Integers
    device: Integers
    placement: Integers
    hour: Integers
    second: Floats
    position: Integers


@dataclass
class Impressions:
    """What was shown: rows of Opportunities with creative, audience (name or null), propensity, truth and outcome."""

    shown: Opportunities
    creative: Integers
    audience: list[str | None]
    propensity: Floats
    plan_id: str | None
    policy_id: str
    click_chance: Floats
    conversion_chance: Floats
    is_clicked: Flags
    converts_after: Integers
    """Days from click to order, -1: never."""
    spend: Floats


def opportunities(world: World, state: State, day: date, number: int) -> Opportunities:
    p, rng = world.parameters, stream(world.seed, 20, number)
    level = p.weekday[day.weekday()] * np.exp(rng.normal(0, p.noise_sd))
    count = int(rng.poisson(world.size.opportunities * level))
    running = np.cumsum(state.ad_rate)
    place = np.searchsorted(running, rng.random(count) * running[-1], side="right").clip(0, state.people - 1)
    placement = rng.choice(len(world.placement_share), count, p=world.placement_share)
    hours = np.cumsum(world.placement_hours, axis=1)
    hour = (hours[placement] < rng.random(count)[:, None]).sum(axis=1).clip(0, 23)
    device, who = identity(world, state, number, place, rng)
    who = np.where(rng.random(count) < p.anonymous_ad_share, NOBODY, who)
    second = np.floor(hour * 3600 + rng.random(count) * 3600)
    # open_bandit's three slots come equally often
    return Opportunities(place, who, device, placement, hour, second, rng.integers(1, 4, count))


def click_chances(world: World, state: State, number: int, at: Opportunities, creative: Integers) -> Floats:
    """P(click) of each, before fatigue."""
    p = world.parameters
    match = world.true_match(state.theta[at.place], state.latent[at.place], world.creative_item[creative])
    total = (
        world.creative_click[creative]
        + world.hour_click[at.placement, at.hour]
        + np.array(p.position_click)[at.position - 1]
        + state.click[at.place]
        + p.match_on_click * match
    )
    rate = p.click_rate * world.placement_factor(number)[at.placement] * np.exp(total)
    return np.asarray(np.minimum(rate, p.most_click_rate), dtype=np.float64)


def conversion_chances(world: World, state: State, number: int, place: Integers, creative: Integers) -> Floats:
    """P(order | click) of each, if the item is in stock then."""
    p, item = world.parameters, world.creative_item[creative]
    match = world.true_match(state.theta[place], state.latent[place], item)
    total = (
        world.creative_conversion[creative]
        + p.match_on_conversion * match
        + 0.5 * state.buy[place]
        + price_effect(world, state, number, place, item)
        + p.price_on_conversion * np.log(world.base_price[item] / p.price_median)
    )
    chance = np.minimum(p.conversion_rate * np.exp(total), p.most_conversion_rate)
    return np.where(state.stock[item] > 0, chance, 0.0)


def show_ads(world: World, state: State, day: date, number: int, decisions: Decisions) -> Impressions:
    """The day's impressions, clicks and what they lead to."""
    p, rng = world.parameters, stream(world.seed, 21, number)
    every = opportunities(world, state, day, number)
    count = len(every.place)
    draws = rng.random((count, 6))
    lag = np.minimum(rng.geometric(p.conversion_day_decay, count), p.most_conversion_days)
    plan_id = None
    if decisions.ad_plan is None:
        kept, creative, propensity = _common_practice(world, state, draws)
        audience: list[str | None] = [None] * len(kept)
    else:
        kept, creative, propensity, audience = _by_plan(world, state, every, decisions, draws)
        plan_id = str(decisions.ad_plan["plan_id"][0]) if decisions.ad_plan.height else None
    shown = _rows(every, kept)
    chance = click_chances(world, state, number, shown, creative) * _fatigue(world, shown)
    conversion = conversion_chances(world, state, number, shown.place, creative)
    clicked = draws[kept, 2] < chance
    # what selected an impression must not decide what comes of it: each outcome has a draw of its own
    after = np.where(draws[kept, 5] < p.conversion_same_day, 0, lag[kept])
    converts = np.where(clicked & (draws[kept, 3] < conversion), after, -1)
    price = world.placement_price[shown.placement]
    spend = np.where(world.is_per_click[shown.placement], price * clicked, price / 1000)
    policy = COMMON_POLICY if decisions.ad_plan is None else PLAN_POLICY
    return Impressions(shown, creative, audience, propensity, plan_id, policy, chance, conversion, clicked, converts, spend)


def _rows(every: Opportunities, kept: Integers) -> Opportunities:
    return Opportunities(*(getattr(every, name)[kept] for name in Opportunities.__dataclass_fields__))


def common_shares(state: State) -> Floats:
    """Common practice: each creative's share is proportional to what its money brought, a quarter of an equal one at least."""
    returned = state.creative_value / state.creative_spend
    share = np.maximum(returned / returned.sum(), 0.25 / len(returned))
    return np.asarray(share / share.sum(), dtype=np.float64)


def _common_practice(world: World, state: State, draws: Floats) -> tuple[Integers, Integers, Floats]:
    """A fixed share of opportunities is bought, and filled by lot in proportion to past results."""
    kept = np.flatnonzero(draws[:, 0] < world.parameters.bought_share)
    chance = common_shares(state)
    creative = np.searchsorted(np.cumsum(chance), draws[kept, 1], side="right").clip(0, len(chance) - 1)
    return kept, creative, chance[creative]


def _by_plan(
    world: World, state: State, every: Opportunities, decisions: Decisions, draws: Floats
) -> tuple[Integers, Integers, Floats, list[str | None]]:
    """Each group (audience, placement, hour) gets what was planned, as far as there are opportunities; creatives by lot."""
    plan = decisions.ad_plan
    assert plan is not None
    names = [*sorted(set(plan["audience_id"].cast(pl.String)) - {UNKNOWN}), UNKNOWN]
    unknown, creatives = len(names) - 1, world.size.creatives
    seen = np.full(len(every.place), unknown)
    if decisions.audiences is not None:
        account, cookie = audience_of(state, decisions.audiences, names[:-1])
        known = np.where(every.who == COOKIE, cookie[every.place], account[every.place])
        seen = np.where(every.who == NOBODY, unknown, known)
    key = np.where(seen >= 0, (seen * world.size.placements + every.placement) * 24 + every.hour, -1)
    placement, creative = codes(plan["placement_id"], world.placement_ids), codes(plan["creative_id"], world.creative_ids)
    row = (codes(plan["audience_id"], names) * world.size.placements + placement) * 24 + plan["hour"].cast(pl.Int64).to_numpy()
    good = (placement >= 0) & (creative >= 0)
    planned = np.zeros(((unknown + 1) * world.size.placements * 24, creatives))
    np.add.at(planned, (row[good], creative[good]), plan["planned_impressions"].cast(pl.Float64).to_numpy()[good])
    order = np.lexsort((draws[:, 0], key))
    ranked = key[order]
    rank = np.arange(len(order)) - np.searchsorted(ranked, ranked)
    # a part of an impression is one by chance
    wanted = np.where(ranked >= 0, planned.sum(axis=1)[np.maximum(ranked, 0)], 0.0)
    kept = np.sort(order[rank + draws[order, 4] < wanted])
    chance = planned[key[kept]]
    chance = chance / chance.sum(axis=1, keepdims=True)
    creative = (np.cumsum(chance, axis=1) < draws[kept, 1][:, None]).sum(axis=1).clip(0, creatives - 1)
    return kept, creative, chance[np.arange(len(kept)), creative], [names[number] for number in seen[kept]]


def _fatigue(world: World, shown: Opportunities) -> Floats:
    """Factor on the click rate of a person's second and further impression of a day."""
    p = world.parameters
    order = np.lexsort((np.arange(len(shown.place)), shown.second, shown.place))
    ranked = shown.place[order]
    nth = np.empty(len(order))
    nth[order] = np.arange(len(order)) - np.searchsorted(ranked, ranked)
    return np.maximum(p.fatigue**nth, p.fatigue_floor)


def ad_sessions(shown: Impressions) -> tuple[Sessions, Integers]:
    """The visit that follows each click, and the row of its impression."""
    rows = np.flatnonzero(shown.is_clicked)
    at = shown.shown
    count = len(rows)
    channel = np.full(count, CHANNELS.index("ads"), dtype=np.int64)
    return Sessions(at.place[rows], at.who[rows], at.device[rows], channel, at.second[rows] + 5), rows


def true_cells(world: World, state: State, number: int, members: dict[str, Integers]) -> pl.DataFrame:
    """Oracle.cell_rates: means over each audience's people, weighted by their opportunities.

    Fatigue of an ordinary day is left out: it falls on all creatives alike.
    """
    p, frames = world.parameters, []
    creatives = np.arange(len(world.creative_ids))
    price = world.prices(number)[1]
    slot = float(np.exp(p.position_click).mean())
    total = float(state.ad_rate.sum())
    hour = np.exp(world.hour_click) * world.placement_factor(number)[:, None]
    for name in sorted(members):
        places = members[name]
        weight = state.ad_rate[places]
        if name != UNKNOWN:
            weight = weight * (1 - p.anonymous_ad_share)
        if weight.sum() <= 0:
            continue
        match = world.match_table(state.theta[places], state.latent[places], world.creative_item)
        person = np.exp(state.click[places][:, None] + p.match_on_click * match) * np.exp(world.creative_click)
        clicks = weight @ person / weight.sum()
        rows, columns = np.repeat(places, len(creatives)), np.tile(creatives, len(places))
        q = conversion_chances(world, state, number, rows, columns).reshape(len(places), len(creatives))
        orders = weight @ (person * q) / weight.sum() / clicks
        ctr = p.click_rate * slot * clicks[:, None, None] * hour[None]
        share = weight.sum() / total * (p.anonymous_ad_share if name == UNKNOWN else 1.0)
        on_offer = world.size.opportunities * share * world.placement_share[:, None] * world.placement_hours
        grid = np.meshgrid(creatives, np.arange(world.size.placements), np.arange(24), indexing="ij")
        k, at, h = (axis.ravel() for axis in grid)
        rate = np.minimum(ctr.ravel(), p.most_click_rate)
        item = world.creative_item[k]
        cost = np.where(world.is_per_click[at], world.placement_price[at] * rate, world.placement_price[at] / 1000)
        frames.append(
            pl.DataFrame(
                {
                    "audience_id": [name] * len(k),
                    "creative_id": np.array(world.creative_ids)[k],
                    "placement_id": np.array(world.placement_ids)[at],
                    "hour": h,
                    "campaign_id": np.array(world.campaign_ids)[world.campaign_of[k]],
                    "item_id": np.array(world.item_ids)[item],
                    "ctr": rate,
                    "cvr": orders[k],
                    "available_impressions": on_offer[at, h],
                    "cost_per_impression": cost,
                    "value_per_conversion": price[item] * UNITS_PER_CONVERSION,
                }
            )
        )
    return (
        pl.concat(frames).filter(pl.col("available_impressions") > 0).sort("audience_id", "creative_id", "placement_id", "hour")
    )
