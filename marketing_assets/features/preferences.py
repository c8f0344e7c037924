"""User preferences: what each user leans to, by category, price band, channel, device and part of the day.

What belongs here: the weights of events, the values they speak for, and their decay. What does not: which users have an
entry (running.py), or what is concluded from leanings (profiles).

A purchase counts 5, a cart 3, a wish 2, a view 1, halved every 90 days. All values ever met are kept: leaving small ones
out would make the log depend on how days are grouped into runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from marketing_assets.config import Store
from marketing_assets.features.identities import needed_users, with_moves
from marketing_assets.features.items import items_in_force
from marketing_assets.features.running import Decay, State, carried, earlier_entries, stack, weight
from marketing_assets.schemas import TABLES
from marketing_assets.sources.instants import to_local

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from marketing_assets.warehouse import Reader

HALF_LIFE_DAYS = 90
POINTS = {"purchase": 5, "add_to_cart": 3, "add_to_wishlist": 2, "view_item": 1}
PRICE_BANDS = (*(Decimal(step).scaleb(power) for power in range(-1, 6) for step in (1, 2, 5)), Decimal(1_000_000))
"""Lower ends of the price bands: 1, 2 and 5 times the powers of ten, which suits any currency."""
HOUR_BLOCKS = ("night", "morning", "afternoon", "evening")
"""Parts of the day of six hours each, from midnight, shop time."""

LEANINGS = State(
    entity=("user_id", "preference_type", "preference_value"), decayed={"weight": Decay("points", HALF_LIFE_DAYS)}, seen=""
)
_KINDS = ("category", "price_band", "channel", "device", "hour_block")


def user_preferences(
    reader: Reader, people: ir.Table, features: ir.Table, days: Sequence[date], store: Store, moved: ir.Table | None
) -> ir.Table:
    """The entries of the window as an expression with the columns of user_preferences.

    A user has an entry on the days they have one in `features`, user_features of the window; one without any leaning has a row of nulls.
    """
    import ibis

    due = features.select("user_id", "as_of_date")
    known = known_leanings(reader, people, days, store, moved, needed_users(people, days, store, moved))
    # between two landings only time passes, so what held after one is joined to the due days up to the next
    kinds = until_next(
        known.group_by("user_id", "preference_type", "day").agg(weight=known.weight.sum()), ["user_id", "preference_type"]
    )
    kinds = kinds.select(holder="user_id", preference_type="preference_type", kind_from="day", kind_until="until", total="weight")
    of_kind = due.join(
        kinds,
        [
            due.user_id == kinds.holder,
            due.as_of_date >= kinds.kind_from,
            kinds.kind_until.isnull() | (due.as_of_date < kinds.kind_until),
        ],
    ).select("as_of_date", "user_id", "preference_type", "total")
    values = until_next(known, list(LEANINGS.entity)).rename(holder="user_id", kind="preference_type")
    told = of_kind.join(
        values,
        [
            of_kind.user_id == values.holder,
            of_kind.preference_type == values.kind,
            of_kind.as_of_date >= values.day,
            values.until.isnull() | (of_kind.as_of_date < values.until),
        ],
    )
    told = told.mutate(
        weight=told.weight / weight(told.as_of_date, days[0], HALF_LIFE_DAYS), share=ibis.least(told.weight / told.total, 1.0)
    )
    first = known.group_by(holder=known.user_id).agg(first_day=known.day.min())
    without = due.left_join(first, due.user_id == first.holder)
    without = without.filter(without.first_day.isnull() | (without.as_of_date < without.first_day))
    without = without.mutate(weight=ibis.literal(0.0), share=ibis.literal(0.0))
    columns = {"as_of_date": "date", **dict.fromkeys(LEANINGS.entity, "string"), "weight": "float64", "share": "float64"}
    return stack([told, without], columns).select(*TABLES["user_preferences"].columns)


def known_leanings(
    reader: Reader, people: ir.Table, days: Sequence[date], store: Store, moved: ir.Table | None, needed: ir.Table | None
) -> ir.Table:
    """user_id, preference_type, preference_value, day, weight: what landed in the window, and what was held before it."""
    landed = leaning_increments(reader, people, days, store)
    before = earlier_entries(reader, "user_preferences", days[0], "user_id", only=needed)
    if before is not None:
        # weights are always as of their as_of_date, whatever issued_date the features of the same user have
        before = carried(LEANINGS, before.filter(before.preference_type.notnull()).mutate(issued_date=before.as_of_date), days[0])
    if moved is not None:
        landed, before = with_moves(LEANINGS, landed, before, moved, days)
    types = {**dict.fromkeys(LEANINGS.entity, "string"), "day": "date", **LEANINGS.types}
    return stack([landed, *([before] if before is not None else [])], types)


def until_next(rows: ir.Table, keys: Sequence[str]) -> ir.Table:
    """weight becomes the sum so far by `keys`, which holds from `day` up to `until` (excluded; null: to the end)."""
    import ibis

    so_far = ibis.window(group_by=[rows[key] for key in keys], order_by=rows.day, preceding=None, following=0)
    by_day = ibis.window(group_by=[rows[key] for key in keys], order_by=rows.day)
    return rows.select(*keys, "day", weight=rows.weight.sum().over(so_far), until=rows.day.lead().over(by_day))


def leaning_increments(reader: Reader, people: ir.Table, days: Sequence[date], store: Store) -> ir.Table:
    """user_id, day, preference_type, preference_value, weight (rebased to the first day): what landed."""
    import ibis

    telling = people.filter(people.event_type.isin(list(POINTS)), people.item_id.notnull(), ~people.is_service)
    catalogue = items_in_force(
        reader, days, {"category": lambda items: items.category, "item_band": lambda items: price_band(items.unit_price)}
    )
    catalogue = catalogue.rename(known_item="item_id")
    joined = telling.left_join(
        catalogue,
        [
            telling.item_id == catalogue.known_item,
            telling.landed_date >= catalogue.from_date,
            telling.landed_date < catalogue.until_date,
        ],
    )
    points = joined.event_type.cases(*POINTS.items(), else_=0)
    # fold to what differs before anything is weighted: a visit shares its channel, device and part of the day
    folded = joined.select(
        "user_id",
        "landed_date",
        "event_date",
        "category",
        "channel",
        "device",
        price_band=price_band(joined.unit_price).coalesce(joined.item_band),
        hour_block=hour_block(joined.event_at, days[-1], store),
        points=points,
    )
    folded = folded.group_by("user_id", "landed_date", "event_date", *_KINDS).agg(points=folded.points.sum())
    folded = folded.mutate(weight=folded.points.cast("float64") * weight(folded.event_date, days[0], HALF_LIFE_DAYS))
    kinds = []
    for kind in _KINDS:
        named = folded.filter(folded[kind].notnull())
        kinds.append(
            named.group_by("user_id", day=named.landed_date, preference_value=named[kind])
            .agg(weight=named.weight.sum())
            .mutate(preference_type=ibis.literal(kind))
        )
    return stack(kinds, {**dict.fromkeys(LEANINGS.entity, "string"), "day": "date", "weight": "float64"})


def price_band(price: ir.Column) -> Any:
    """The band a price lies in, such as '10-20', '<0.1' or '1000000+'; null without a price."""
    import ibis

    names = [f"{low:f}-{high:f}" for low, high in pairwise(PRICE_BANDS)]
    cases = [(price < PRICE_BANDS[0], f"<{PRICE_BANDS[0]:f}")]
    cases += [(price < high, name) for high, name in zip(PRICE_BANDS[1:], names, strict=True)]
    cases.append((price.notnull(), f"{PRICE_BANDS[-1]:f}+"))
    return ibis.cases(*cases, else_=ibis.null("string"))


def hour_block(instant: ir.Column, end: date, store: Store) -> Any:
    """The part of the day of an instant (UTC), by the shop's clock."""
    local = to_local(instant, store.timezone, store.first_day - timedelta(days=2), end + timedelta(days=2))
    return (local.hour() // 6).cast("int64").cases(*enumerate(HOUR_BLOCKS[:-1]), else_=HOUR_BLOCKS[-1])
