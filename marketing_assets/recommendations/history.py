"""Who did what with which item, by day, as arrays; and which users and items have an entry on which day.

What belongs here: reading, and what each kind of event counts for. What does not: any score.

A row is a user, an item, the day it happened and the day from which it is known. Signs of interest of one day are one row:
a purchase counts 1, a cart .6, a wish .4, views .2 x log2(1 + views), added up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from marketing_assets.config import ACTIVE_DAYS
from marketing_assets.features.identities import moves
from marketing_assets.features.running import day_literal
from marketing_assets.sources.engine import Staging

if TYPE_CHECKING:
    from marketing_assets.warehouse import Reader

HISTORY_DAYS = ACTIVE_DAYS
"""How many landed days of events lists are made from."""
STRENGTHS = {"purchase": 1.0, "add_to_cart": 0.6, "add_to_wishlist": 0.4, "view_item": 0.2}

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

EPOCH = date(1970, 1, 1)
_SPAN = 1 << 20
"""Room for days below a user's number."""


def ordinal(day: date) -> int:
    """Days since 1970-01-01, as numpy and Arrow count them."""
    return (day - EPOCH).days


def ordinals(days: pl.Series) -> Integers:
    return days.cast(pl.Date).cast(pl.Int32).to_numpy().astype(np.int64)


@dataclass(frozen=True)
class History:
    """Interactions sorted by user, day known, day happened, item.

    users: sorted ids; items: ids; user, item: positions in them. known, happened: ordinal days. moment: minute of the last sign
    (since 1970). strength: above 0. views: how many. is_bought: whether a purchase is among the signs; is_wanted: a purchase or
    a cart. spent: what was paid.
    """

    users: pl.Series
    items: pl.Series
    user: Integers
    item: Integers
    known: Integers
    happened: Integers
    moment: Integers
    strength: Floats
    views: Integers
    is_bought: Flags
    is_wanted: Flags
    spent: Floats

    @cached_property
    def _key(self) -> Integers:
        return self.user * _SPAN + self.known

    def rows_known(self, users: Integers, day: int | Integers) -> tuple[Integers, Integers]:
        """(place in `users`, row) of all these users did that was known at the end of `day` (ordinal, one or one per user), within HISTORY_DAYS."""
        start = np.searchsorted(self._key, users * _SPAN + day - HISTORY_DAYS + 1, side="left")
        end = np.searchsorted(self._key, users * _SPAN + day, side="right")
        return expand(start, end)


def expand(start: Integers, end: Integers) -> tuple[Integers, Integers]:
    """Every position of the ranges [start, end), and which range it is of."""
    lengths = end - start
    owner = np.repeat(np.arange(len(start)), lengths)
    offset = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return owner, offset + np.repeat(start, lengths)


def read_history(reader: Reader, items: pl.Series, start: date, days: Sequence[date], users: pl.DataFrame | None) -> History:
    """What people did with items from HISTORY_DAYS before `start` to the end of the window.

    items: ids of the catalogue; others are left aside. users: a frame with user_id, or None for everyone's.
    """
    events = reader.table("clean_events")
    since = start - timedelta(days=HISTORY_DAYS - 1)
    ours = events.filter(
        events.landed_date.between(day_literal(since), day_literal(days[-1])),
        events.event_type.isin(list(STRENGTHS)),
        events.user_id.notnull(),
        events.item_id.notnull(),
        ~events.is_bot,
        ~events.is_service,
    )
    moved = moves(reader, days)
    if users is not None:
        wanted = Staging(reader, "history").keep(users.select("user_id").unique(), "users")
        if moved is not None:
            former = moved.semi_join(wanted.select(to_user_id="user_id"), "to_user_id").select("user_id")
            wanted = wanted.union(former, distinct=True)
        ours = ours.semi_join(wanted, "user_id")
    table = ours.group_by("user_id", "item_id", "landed_date", "event_date").agg(
        bought=(ours.event_type == "purchase").any(),
        carted=(ours.event_type == "add_to_cart").any(),
        wished=(ours.event_type == "add_to_wishlist").any(),
        views=(ours.event_type == "view_item").sum(),
        spent=ours.revenue.sum().cast("float64"),
        last_at=ours.event_at.max(),
    )
    rows = reader.frame(table)
    if moved is not None:
        rows = with_former_rows(rows, reader.frame(moved))
    return arrays(rows, items)


def with_former_rows(rows: pl.DataFrame, moved: pl.DataFrame) -> pl.DataFrame:
    """Rows of users who turned out to be others, repeated for the new owner from the day that was known."""
    later = rows.join(moved, on="user_id", how="inner").filter(pl.col("landed_date") < pl.col("moved_date"))
    own = later.with_columns(user_id="to_user_id", landed_date="moved_date").select(rows.columns)
    return pl.concat([rows, own])


def arrays(rows: pl.DataFrame, items: pl.Series) -> History:
    """rows: user_id, item_id, landed_date, event_date, bought, carted, wished, views, spent, last_at -> History over `items`."""
    places = pl.DataFrame({"item_id": items, "item": np.arange(len(items))}, schema={"item_id": pl.String, "item": pl.Int64})
    people = rows["user_id"].unique().sort()
    users = pl.DataFrame({"user_id": people, "user": np.arange(len(people))}, schema={"user_id": pl.String, "user": pl.Int64})
    strength = (
        STRENGTHS["purchase"] * pl.col("bought").cast(pl.Float64)
        + STRENGTHS["add_to_cart"] * pl.col("carted").cast(pl.Float64)
        + STRENGTHS["add_to_wishlist"] * pl.col("wished").cast(pl.Float64)
        + STRENGTHS["view_item"] * (pl.col("views") + 1).cast(pl.Float64).log(2)
    )
    found = (
        rows.join(places, on="item_id", how="inner")
        .join(users, on="user_id", how="inner")
        .group_by("user", "item", "landed_date", "event_date")
        .agg(pl.col("bought", "carted", "wished").any(), pl.col("views", "spent").sum(), pl.col("last_at").max())
        .sort("user", "landed_date", "event_date", "item")
        .with_columns(strength=strength.round(6))
    )
    return History(
        users=people,
        items=items,
        user=found["user"].to_numpy().astype(np.int64),
        item=found["item"].to_numpy().astype(np.int64),
        known=ordinals(found["landed_date"]),
        happened=ordinals(found["event_date"]),
        moment=found["last_at"].dt.epoch("s").fill_null(0).to_numpy().astype(np.int64) // 60,
        strength=found["strength"].to_numpy().astype(np.float64),
        views=found["views"].to_numpy().astype(np.int64),
        is_bought=found["bought"].to_numpy().astype(bool),
        is_wanted=(found["bought"] | found["carted"]).to_numpy().astype(bool),
        spent=found["spent"].fill_null(0.0).to_numpy().astype(np.float64),
    )


def due_entries(reader: Reader, days: Sequence[date], features: str, entity: str) -> pl.DataFrame:
    """as_of_date, entity, is_active: who has an entry on which day of the window, as the features' log has them.

    is_active: false for those a keyframe restates although they were last seen more than ACTIVE_DAYS before.
    """
    log = reader.window(features, days[0], days[-1], ["as_of_date", entity, "issued_date"])
    return log.select("as_of_date", entity, is_active=pl.col("issued_date") == pl.col("as_of_date")).sort("as_of_date", entity)


def item_day_counts(reader: Reader, start: date, end: date) -> pl.DataFrame:
    """landed_date, item_id, orders, carts, views by people in [start, end], sorted."""
    table = reader.table("item_days")
    ours = table.filter(table.landed_date.between(day_literal(start), day_literal(end)))
    daily = ours.group_by("landed_date", "item_id").agg(orders=ours.orders.sum(), carts=ours.carts.sum(), views=ours.views.sum())
    frame: Any = reader.frame(daily)
    counts: pl.DataFrame = frame.with_columns(pl.col("orders", "carts", "views").cast(pl.Float64))
    return counts.sort("landed_date", "item_id")


FAR = 1 << 20
"""A day that does not come, where something did not happen."""


def choices(reader: Reader, start: date, end: date) -> pl.DataFrame:
    """event_date, item_id, people who looked at the item that day, and the days (ordinal, FAR for never) from which that it was looked
    at, put into the cart and bought on that day is known: looked, carted, bought. Sorted; of [start, end], as known at its end.

    Only of those who looked: whoever orders by a form says nothing of what looks bring. Once a day: who looks again and again is
    fond of the item already. People without a name count by their session. Known by kind, since logs of visits and of orders may land apart.
    """
    events = reader.table("clean_events")
    kinds = {"looked": "view_item", "carted": "add_to_cart", "bought": "purchase"}
    ours = events.filter(
        events.event_date.between(day_literal(start), day_literal(end)),
        events.landed_date <= day_literal(end),
        events.event_type.isin(list(kinds.values())),
        events.item_id.notnull(),
        ~events.is_bot,
        ~events.is_service,
    ).mutate(person=events.user_id.coalesce(events.session_id))
    ours = ours.filter(ours.person.notnull())
    known = {name: ours.landed_date.min(where=ours.event_type == kind) for name, kind in kinds.items()}
    of_person = ours.group_by("event_date", "item_id", "person").agg(**known)
    counted = of_person.filter(of_person.looked.notnull()).group_by("event_date", "item_id", *kinds).agg(people=lambda rows: rows.count())
    frame: Any = reader.frame(counted)
    days = pl.col(list(kinds)).cast(pl.Date).cast(pl.Int32).fill_null(FAR)
    found: pl.DataFrame = frame.with_columns(days, pl.col("people").cast(pl.Float64))
    return found.sort("event_date", "item_id", *kinds)
