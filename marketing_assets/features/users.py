"""User features: what each user has done so far.

What belongs here: what is counted per user and how the columns of user_features follow from it. What does not: how state
is carried from day to day (running.py), and what a user leans to (preferences.py).

People only: events of bots and events without a user do not count. Fees and postage count as spend, not as orders or units.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

from marketing_assets.config import LATE_DAYS, Store
from marketing_assets.features.identities import moves, needed_users, with_moves
from marketing_assets.features.preferences import user_preferences
from marketing_assets.features.running import Decay, State, age_days, carried, day_literal, earlier_entries, entries, weight
from marketing_assets.schemas import TABLES
from marketing_assets.sources.engine import Staging
from marketing_assets.warehouse import Built

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from marketing_assets.warehouse import Reader

USERS = State(
    entity=("user_id",),
    counts=(
        "active_days",
        "order_days",
        "orders",
        "units",
        "refunds",
        "sessions",
        "events",
        "views",
        "searches",
        "wishlists",
        "carts",
        "reviews",
        "ratings",
    ),
    money=("revenue", "gross_revenue"),
    reals=("rating_total", "browse_seconds"),
    earliest=("first_seen_date", "first_order_date"),
    latest=("last_seen_date", "last_order_date"),
    decayed={
        "orders_decayed_7": Decay("orders", 7),
        "orders_decayed_30": Decay("orders", 30),
        "orders_decayed_90": Decay("orders", 90),
        "revenue_decayed_30": Decay("gross_revenue", 30),
        "revenue_decayed_90": Decay("gross_revenue", 90),
        "views_decayed_7": Decay("views", 7),
        "views_decayed_30": Decay("views", 30),
        "carts_decayed_7": Decay("carts", 7),
        "carts_decayed_30": Decay("carts", 30),
    },
)
_MONTH_DAYS = 30


def build_user_features(reader: Reader, days: Sequence[date], store: Store) -> Built:
    """user_features and user_preferences of a contiguous window of days.

    Reads clean_events of the window and, for orders that land in pieces, of LATE_DAYS before it; sessions of the window;
    items in force; identities; and both tables' own entries back to the last keyframe before the window. Returns expressions over
    a temporary table of the reader's connection, valid until the next call.
    """
    people = people_events(reader, days)
    moved = moves(reader, days)
    features = Staging(reader, "user_features").keep(user_features(reader, people, days, store, moved), "entries")
    return Built({"user_features": features, "user_preferences": user_preferences(reader, people, features, days, store, moved)})


def people_events(reader: Reader, days: Sequence[date]) -> ir.Table:
    """Events by known people that landed in the window."""
    events = reader.table("clean_events")
    return events.filter(
        events.landed_date.between(day_literal(days[0]), day_literal(days[-1])), events.user_id.notnull(), ~events.is_bot
    )


def user_features(reader: Reader, people: ir.Table, days: Sequence[date], store: Store, moved: ir.Table | None) -> ir.Table:
    """The entries of the window as an expression with the columns of user_features."""
    start = days[0]
    increments = user_increments(reader, people, days)
    before = earlier_entries(reader, "user_features", start, "user_id", only=needed_users(increments, days, store, moved))
    if before is not None:
        before = carried(USERS, before.mutate(rating_total=(before.mean_rating * before.ratings).fill_null(0.0)), start)
    if moved is not None:
        increments, before = with_moves(USERS, increments, before, moved, days)
    return _columns(entries(USERS, increments, before, days, store, moved))


def user_increments(reader: Reader, people: ir.Table, days: Sequence[date]) -> ir.Table:
    """What landed by user and day, columns of USERS."""
    start, end = days[0], days[-1]
    is_purchase = people.event_type == "purchase"
    is_order = is_purchase & ~people.is_service
    by_event_day = people.group_by("user_id", "landed_date", "event_date").agg(
        events=people.count(),
        is_order=is_order.any(),
        units=people.quantity.sum(where=is_order),
        revenue=people.revenue.sum(),
        gross_revenue=people.revenue.sum(where=is_purchase),
        browse_seconds=people.dwell_seconds.sum(),
        ratings=people.rating.count(),
        rating_total=people.rating.sum(),
        **{
            column: (people.event_type == kind).sum()
            for column, kind in (
                ("refunds", "refund"),
                ("views", "view_item"),
                ("searches", "search"),
                ("wishlists", "add_to_wishlist"),
                ("carts", "add_to_cart"),
                ("reviews", "review"),
            )
        },
    )
    counted = ("events", "units", "refunds", "views", "searches", "wishlists", "carts", "reviews", "ratings")
    activity = by_event_day.group_by("user_id", day=by_event_day.landed_date).agg(
        active_days=1,
        order_days=by_event_day.is_order.any().cast("int64"),
        first_seen_date=by_event_day.event_date.min(),
        last_seen_date=by_event_day.event_date.max(),
        first_order_date=by_event_day.event_date.min(where=by_event_day.is_order),
        last_order_date=by_event_day.event_date.max(where=by_event_day.is_order),
        **{name: by_event_day[name].sum() for name in (*counted, "revenue", "gross_revenue", "rating_total", "browse_seconds")},
        **_decayed(by_event_day, start, ("views", "carts", "gross_revenue")),
    )
    placed = orders_placed(reader, start, end)
    orders = placed.group_by("user_id", day=placed.landed_date).agg(
        orders=placed.orders.sum(), **_decayed(placed, start, ("orders",))
    )
    sessions = reader.table("sessions")
    begun = sessions.filter(
        sessions.as_of_date.between(day_literal(start), day_literal(end)),
        sessions.is_new,
        ~sessions.is_bot,
        sessions.user_id.notnull(),
    )
    begun = begun.group_by("user_id", day=begun.as_of_date).agg(sessions=begun.count())
    # whoever placed an order or began a session was active that day, so nothing is lost by joining to activity
    orders, begun = (part.rename(who="user_id", on_day="day") for part in (orders, begun))
    both = activity.left_join(orders, [activity.user_id == orders.who, activity.day == orders.on_day]).drop("who", "on_day")
    every = both.left_join(begun, [both.user_id == begun.who, both.day == begun.on_day]).drop("who", "on_day")
    return every.select("user_id", "day", *USERS.types)


def orders_placed(reader: Reader, start: date, end: date) -> ir.Table:
    """user_id, landed_date, event_date, orders: orders by the day their first row landed.

    An order that lands in pieces counts once, as long as no more than LATE_DAYS lie between them. Purchases without
    order_id make one order per user and day they happened.
    """
    import ibis

    events = reader.table("clean_events")
    bought = events.filter(
        events.landed_date.between(day_literal(start - timedelta(days=LATE_DAYS)), day_literal(end)),
        events.event_type == "purchase",
        events.user_id.notnull(),
        ~events.is_bot,
        ~events.is_service,
    )
    bought = bought.mutate(order_key=ibis.coalesce(bought.order_id, bought.event_date.cast("string")))
    pieces = bought.group_by("user_id", "order_key", "landed_date").agg(event_date=bought.event_date.min())
    earlier = pieces.landed_date.lag().over(ibis.window(group_by=[pieces.user_id, pieces.order_key], order_by=pieces.landed_date))
    pieces = pieces.mutate(earlier_date=earlier)
    first = pieces.filter(
        pieces.landed_date >= day_literal(start),
        pieces.earlier_date.isnull() | (age_days(pieces.landed_date, pieces.earlier_date) > LATE_DAYS),
    )
    return first.group_by("user_id", "landed_date", "event_date").agg(orders=first.count())


def _decayed(rows: ir.Table, start: date, values: Sequence[str]) -> dict[str, ir.Column]:
    return {
        name: (rows[decay.value].cast("float64") * weight(rows.event_date, start, decay.half_life)).sum()
        for name, decay in USERS.decayed.items()
        if decay.value in values
    }


def _columns(found: ir.Table) -> ir.Table:
    """State -> the columns of user_features."""
    import ibis

    known_days = ibis.greatest(age_days(found.issued_date, found.first_seen_date) + 1, 1).cast("float64")
    between = age_days(found.last_order_date, found.first_order_date).cast("float64")
    full = found.mutate(
        recency_days=ibis.greatest(
            age_days(found.issued_date, found.last_order_date), ibis.ifelse(found.last_order_date.notnull(), 0, None)
        ),
        mean_rating=found.rating_total / found.ratings.nullif(0).cast("float64"),
        purchase_frequency=found.orders.cast("float64") / known_days * _MONTH_DAYS,
        mean_days_between_orders=ibis.ifelse(
            found.order_days > 1, between / (found.order_days - 1).nullif(0).cast("float64"), None
        ),
    )
    return full.select(*TABLES["user_features"].columns)
