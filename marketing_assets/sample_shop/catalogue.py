"""What a day's files say beside events and ads: customers, catalogue, prices known in advance, the ads' list, the calendar.

What belongs here: tables of one day as they land. What does not: events and impressions (records.py), text and files (landing.py).
"""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl

from marketing_assets.sample_shop.landing import instants
from marketing_assets.sample_shop.orders import on_order
from marketing_assets.sample_shop.people import State
from marketing_assets.sample_shop.settings import CATEGORIES
from marketing_assets.sample_shop.world import Integers, World

CALENDAR_DAYS = 60
_COUNTRIES = (("DE", "030 5550 "), ("AT", "+43 1 5550"), ("CH", "0041 44 555 "))
"""Where customers live, and how they write their telephone numbers up to the last four digits."""
Tables = dict[str, pl.DataFrame]


def customers(
    world: World, state: State, day: date, number: int, newcomers: Integers, rng: np.random.Generator
) -> tuple[Tables, Integers]:
    """Contacts of new customers, devices found to be someone's, answers to surveys, requests to be forgotten; and by whom."""
    accounts, cookies = state.account_ids(), state.cookie_ids()
    tables: Tables = {}
    erased = np.zeros(0, dtype=np.int64)
    if len(newcomers):
        country = rng.choice(len(_COUNTRIES), len(newcomers), p=[0.86, 0.09, 0.05])
        contact = pl.DataFrame({"user_id": accounts.gather(newcomers), "has_marketing_consent": state.has_consent[newcomers]})
        tables["contacts"] = contact.select(
            "user_id",
            email=pl.col("user_id") + "@example.org",
            phone=pl.Series([_COUNTRIES[at][1] for at in country]) + pl.col("user_id").str.slice(-4),
            country=pl.Series([_COUNTRIES[at][0] for at in country]),
            has_marketing_consent="has_marketing_consent",
        )
    found = np.flatnonzero(state.linked == number)
    if found.size:
        tables["identities"] = pl.DataFrame({"from_user_id": cookies.gather(found), "user_id": accounts.gather(found)})
    count = int(rng.poisson(world.parameters.survey_share * world.size.sessions))
    asked = rng.integers(0, state.people, count)
    if count:
        mood = 7.6 + 0.8 * state.buy[asked] + rng.normal(0, 2.0, count)
        tables["surveys"] = pl.DataFrame(
            {
                "answered_at": instants(world, day, np.floor(rng.uniform(8, 22, count) * 3600)),
                "user_id": accounts.gather(asked),
                "score": np.clip(np.round(mood), 0, 10),
            }
        )
    if number > 20:
        wishes = int(rng.poisson(world.parameters.erasures))
        erased = np.flatnonzero(~state.is_trade)[np.unique(rng.integers(0, int((~state.is_trade).sum()), wishes))]
        if wishes:
            tables["erasures"] = pl.DataFrame(
                {
                    "user_id": accounts.gather(erased),
                    "requested_at": instants(world, day, np.full(len(erased), 12 * 3600.0)),
                }
            )

    return tables, erased


def catalogue(world: World, state: State, day: date, number: int, at_opening: Integers) -> Tables:
    """Items that are new or whose stock, orders or price changed; prices known in advance; the ads' list on the first day."""
    listed = world.prices(number)[0]
    ids = pl.Series(world.item_ids)
    current = np.stack([state.stock, on_order(world, state), listed], axis=1).astype(np.float64)
    changed = np.flatnonzero((world.launch <= number) & (current != state.catalogue).any(axis=1))
    state.catalogue[changed] = current[changed]
    tables: Tables = {}
    tables["items"] = pl.DataFrame(
        {
            "item_id": ids.gather(changed),
            "title": pl.Series(world.titles).gather(changed),
            "category": pl.Series(CATEGORIES).gather(world.category[changed]),
            "brand": pl.Series(world.brands).gather(changed),
            "unit_price": listed[changed],
            "unit_cost": world.unit_cost[changed],
            "stock_on_hand": state.stock[changed],
            "stock_on_order": current[changed, 1].astype(np.int64),
            "lead_time_days": world.lead_time[changed],
            "pack_size": world.pack_size[changed],
            "minimum_order_quantity": world.pack_size[changed],
        }
    )
    drivers = _drivers(world, day, number, at_opening)
    if drivers.height:
        tables["item_drivers"] = drivers
    return tables | (_ad_inventory(world) if number == 0 else {})


def _drivers(world: World, day: date, number: int, at_opening: Integers) -> pl.DataFrame:
    """Promotions of the week that is announced today (on the first day of every week begun by then), and empty shelves."""
    notice, ids = world.parameters.promotion_notice_days, pl.Series(world.item_ids)
    week = world.week(number + notice)
    weeks = list(range(week + 1)) if number == 0 else [week] if world.week(number - 1 + notice) < week else []
    known = instants(world, day, np.array([6 * 3600.0]))[0]
    rows: list[pl.DataFrame] = []
    for coming in weeks:
        factor, depth = world.week_prices(coming)
        item = np.flatnonzero(depth > 0)
        price = np.round(np.round(world.base_price * factor, 2) * (1 - depth), 2)
        begin = coming * 7 - world.first_day.weekday()
        days = [world.first_day + timedelta(days=at) for at in range(begin, begin + 7) if at >= 0]
        rows.append(
            pl.DataFrame({"item_id": ids.gather(item), "unit_price": price[item]})
            .join(pl.DataFrame({"date": days}), how="cross")
            .with_columns(is_promotion=pl.lit(True), is_available=pl.lit(None, pl.Boolean))
        )
    gone = np.flatnonzero((world.launch <= number) & (at_opening <= 0))
    rows.append(
        pl.DataFrame({"item_id": ids.gather(gone), "date": [day] * len(gone)}, schema={"item_id": pl.String, "date": pl.Date})
        .with_columns(unit_price=pl.lit(None, pl.Float64), is_promotion=pl.lit(None, pl.Boolean), is_available=pl.lit(False))
    )  # fmt: skip
    frame = pl.concat([part.select("item_id", "date", "unit_price", "is_promotion", "is_available") for part in rows])
    return frame.with_columns(known_at=pl.lit(known))


def _ad_inventory(world: World) -> Tables:
    tables: Tables = {}
    count = world.size.campaigns
    tables["campaigns"] = pl.DataFrame(
        {
            "campaign_id": world.campaign_ids,
            "start_date": [world.first_day] * count,
            "budget": [round(1.6 * world.common_budget / count, 2)] * count,
            "budget_period": ["day"] * count,
            "objective": ["conversions"] * count,
        }
    )
    tables["creatives"] = pl.DataFrame(
        {
            "creative_id": world.creative_ids,
            "campaign_id": pl.Series(world.campaign_ids).gather(world.campaign_of),
            "item_id": pl.Series(world.item_ids).gather(world.creative_item),
            "start_date": [world.first_day] * len(world.creative_ids),
        }
    )
    placement, hour = np.divmod(np.arange(world.size.placements * 24), 24)
    tables["placements"] = pl.DataFrame(
        {
            "placement_id": pl.Series(world.placement_ids).gather(placement),
            "hour": hour,
            "capacity": world.capacity().ravel(),
            "pricing": pl.select(
                pl.when(pl.Series(world.is_per_click[placement])).then(pl.lit("cpc")).otherwise(pl.lit("cpm"))
            ).to_series(),
            "price": world.placement_price[placement],
            "valid_from": [world.first_day] * len(hour),
        }
    )

    return tables


def calendar(world: World, day: date, number: int) -> Tables:
    """Days of the next two months, each once: holidays and sales."""
    ahead = range(CALENDAR_DAYS + 1) if number == 0 else range(CALENDAR_DAYS, CALENDAR_DAYS + 1)
    dates = [day + timedelta(days=days) for days in ahead]
    table = pl.DataFrame(
        {
            "date": dates,
            "known_at": [instants(world, day, np.array([6 * 3600.0]))[0]] * len(dates),
            "is_holiday": [world.is_holiday(day) for day in dates],
            "is_promotion": [world.is_sale(world.number(day)) for day in dates],
        }
    )
    return {"market_days": table}
