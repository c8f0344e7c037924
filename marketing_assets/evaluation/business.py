"""What the shop sold and what people said of it.

What belongs here: session conversion, orders, revenue, order value, refunds; ratings and surveys. What does not: ads
(ads.py) and anything that was predicted (the other modules of this package).

Only people count (no bots) and only items (no postage or fees). A refund counts on its own day: `revenue` is net of the
refunds of the day, `average_order_value` divides what was bought by the orders of the day.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import polars as pl

from marketing_assets.config import Store
from marketing_assets.evaluation.queries import Tables, query
from marketing_assets.evaluation.windows import (
    DELAY_HISTORY_DAYS,
    Arrival,
    Increments,
    Ratio,
    arrival,
    changes,
    empty_report,
    expand,
    report,
    same_weekday_totals,
    scored_windows,
    stack,
    together,
)
from marketing_assets.warehouse import Reader

SATISFACTION_WINDOWS = (1, 28)
TELLING_DAYS = 28
"""Days of sessions that must hold both some that bought and some that only looked, so that their share means something."""


def look_back(store: Store) -> int:
    """Days of events and sessions read before the first day of a window."""
    return DELAY_HISTORY_DAYS + store.maturity_days + 4


def event_arrival(reader: Reader, days: Sequence[date], store: Store) -> Arrival:
    """How fast events land, from clean_events."""
    delays = delays_query(reader, days[0] - timedelta(days=look_back(store)), days[-1])
    return arrival(delays, days, store, is_cold_start_mature=True)


@query
def delays_query(table: Tables, start: date, end: date) -> Any:
    events = table("clean_events")
    events = events.filter(events.landed_date.between(start, end))
    return events.group_by("event_date", "landed_date").agg(rows=events.count())


@query
def sessions_query(table: Tables, start: date, end: date) -> Any:
    sessions = table("sessions")
    looks = sessions.views + sessions.searches + sessions.wishlists + sessions.carts + sessions.checkouts
    return sessions.filter(sessions.as_of_date.between(start, end)).select(
        "as_of_date", "session_id", "user_id", "started_at", "purchases", "device", "channel", "is_bot", looks=looks
    )


@query
def purchases_query(table: Tables, by_item: bool, start: date, end: date) -> Any:
    """Without a catalogue there are no categories, and sums need not be split by item."""
    import ibis

    events = table("clean_events")
    money = events.filter(
        events.landed_date.between(start, end), events.event_type.isin(["purchase", "refund"]), ~events.is_bot, ~events.is_service
    )
    return (
        money.select(
            "landed_date",
            "event_date",
            "device",
            "channel",
            item_id=money.item_id if by_item else ibis.null("string"),
            cluster=ibis.coalesce(money.user_id, money.session_id, money.order_id, money.event_id),
            order_id=ibis.coalesce(money.order_id, money.session_id, money.event_id),
            gross=ibis.ifelse(money.event_type == "purchase", money.revenue, 0),
            back=ibis.ifelse(money.event_type == "refund", -money.revenue, 0),
        )
        .group_by("landed_date", "event_date", "cluster", "order_id", "device", "channel", "item_id")
        .agg(gross_revenue=ibis._.gross.sum().cast("float64"), refunded=ibis._.back.sum().cast("float64"))
    )


@query
def categories_query(table: Tables, start: date, end: date) -> Any:
    items = table("items")
    known = items.filter(items.as_of_date.between(start, end), items.category.notnull())
    return known.select("as_of_date", "item_id", "category")


@query
def ratings_query(table: Tables, start: date, end: date) -> Any:
    events = table("clean_events")
    rated = events.filter(events.landed_date.between(start, end), events.rating.notnull(), ~events.is_bot)
    return rated.select("landed_date", "event_date", "event_id", "user_id", "item_id", "rating")


def session_increments(sessions: pl.DataFrame, timezone: str) -> pl.DataFrame:
    """Sessions and sessions with a purchase, by the shop-local day the session began."""
    people = sessions.with_columns(
        landed_date="as_of_date",
        event_date=pl.col("started_at").dt.replace_time_zone("UTC").dt.convert_time_zone(timezone).dt.date(),
        cluster=pl.col("user_id").fill_null(pl.col("session_id")),
        sessions=(~pl.col("is_bot")).cast(pl.Int64),
        buying_sessions=(~pl.col("is_bot") & (pl.col("purchases") > 0)).cast(pl.Int64),
    )
    return changes(people, ["session_id"], ["event_date", "cluster", "device", "channel"], ["sessions", "buying_sessions"])


def days_that_tell_conversion(sessions: pl.DataFrame, days: Sequence[date]) -> list[date]:
    """Days by which, within TELLING_DAYS, somebody only looked and somebody bought: a shop that lands orders alone, or looks alone, tells no rate.

    sessions: as_of_date, looks, purchases of the days and of TELLING_DAYS before them.
    """
    landed = sessions.group_by("as_of_date").agg(
        looked=((pl.col("looks") > 0) & (pl.col("purchases") == 0)).any(), bought=(pl.col("purchases") > 0).any()
    )
    told = [set(landed.filter(kind)["as_of_date"]) for kind in ("looked", "bought")]
    return [day for day in days if all(any(day - timedelta(days=age) in kind for age in range(TELLING_DAYS)) for kind in told)]


def order_increments(purchases: pl.DataFrame, order_key: Sequence[str] = ("event_date", "order_id")) -> pl.DataFrame:
    """Orders, gross and net revenue and refunds by event day; an order counts on the day its first row landed.

    purchases: landed_date, event_date, cluster, order_id, device, channel, category, gross_revenue, refunded (positive).
    order_key: what makes an order one; with category in it, an order counts once in each of its categories.
    """
    dimensions = ["landed_date", "event_date", "cluster", "device", "channel", "category"]
    money = purchases.select(
        *dimensions, "gross_revenue", "refunded", orders=pl.lit(0, pl.Int64), revenue=pl.col("gross_revenue") - pl.col("refunded")
    )
    first = (
        purchases.filter(pl.col("gross_revenue") != 0)
        .sort("landed_date", maintain_order=True)
        .unique(order_key, keep="first", maintain_order=True)
    )
    counted = first.select(
        *dimensions, gross_revenue=pl.lit(0.0), refunded=pl.lit(0.0), orders=pl.lit(1, pl.Int64), revenue=pl.lit(0.0)
    )
    return pl.concat([money, counted])


def order_cells(purchases: pl.DataFrame) -> Increments:
    """Stacked order increments: whole, device and channel by order, category by order and category."""
    whole = stack(order_increments(purchases), {"device": "device", "channel": "channel"}, ORDER_MEASURES)
    split = stack(order_increments(purchases, ("event_date", "order_id", "category")), {"category": "category"}, ORDER_MEASURES)
    return together([whole, split.only(pl.col("segment_type") == "category")])


ORDER_MEASURES = ("orders", "revenue", "gross_revenue", "refunded")
ORDER_METRICS = (
    Ratio("orders", pl.col("orders"), None, "total"),
    Ratio("revenue", pl.col("revenue"), None, "total"),
    Ratio("average_order_value", pl.col("gross_revenue"), pl.col("orders"), "ratio"),
    Ratio("refund_rate", pl.col("refunded"), pl.col("gross_revenue"), "ratio"),
)
SESSION_METRICS = (
    Ratio("session_conversion_rate", pl.col("buying_sessions"), pl.col("sessions"), "rate"),
    Ratio("sessions", pl.col("sessions"), None, "total"),
)


def score_shop(reader: Reader, days: Sequence[date], store: Store, seen: Arrival) -> pl.DataFrame:
    """Report rows of the concept 'shop'."""
    start = days[0] - timedelta(days=look_back(store))
    windows = scored_windows(days, [1], seen, store.first_day)
    chosen = sessions_query(reader, start, days[-1])
    increments = session_increments(chosen, store.timezone)
    stacked = stack(increments, {"device": "device", "channel": "channel"}, ["sessions", "buying_sessions"])
    measures = ["sessions", "buying_sessions"]
    scored = _scored("shop", SESSION_METRICS, stacked, measures, windows, store)
    is_told = pl.col("as_of_date").is_in(days_that_tell_conversion(chosen, days))
    scored = scored.filter((pl.col("metric") != "session_conversion_rate") | is_told)
    orders = order_cells(read_purchases(reader, start, days[-1]))
    return pl.concat([scored, _scored("shop", ORDER_METRICS, orders, ORDER_MEASURES, windows, store)])


def _scored(
    concept: str, metrics: Sequence[Ratio], stacked: Increments, measures: Sequence[str], windows: pl.DataFrame, store: Store
) -> pl.DataFrame:
    """Report rows of windows beside the same weekdays before."""
    usual = same_weekday_totals(stacked.in_total(measures), windows, measures)
    return report(concept, metrics, expand(stacked, windows, measures), windows, store, usual)


def read_purchases(reader: Reader, start: date, end: date) -> pl.DataFrame:
    """Purchases and refunds by order and category: what `order_increments` takes."""
    rows = purchases_query(reader, reader.has_source("items"), start, end)
    rows = with_category(reader, rows, end)
    dimensions = ["landed_date", "event_date", "cluster", "order_id", "device", "channel", "category"]
    return rows.group_by(dimensions).agg(pl.col("gross_revenue", "refunded").sum()).sort(dimensions, nulls_last=False)


def with_category(reader: Reader, rows: pl.DataFrame, end: date) -> pl.DataFrame:
    """Add the category the catalogue gave an item when the row landed (null before it was known).

    The newest entry at or before landed_date counts; entries older than the keyframe of the window's first day come from
    that keyframe, which states every item.
    """
    if rows.height == 0:
        return rows.with_columns(category=pl.lit(None, pl.String))
    earliest = reader.keyframe_before(max(rows["landed_date"].min(), reader.store.first_day))  # type: ignore[type-var, arg-type]
    known = categories_query(reader, earliest, end)
    if known.height == 0:
        return rows.with_columns(category=pl.lit(None, pl.String))
    return (
        rows.sort("landed_date")
        .join_asof(
            known.sort("as_of_date", "item_id"),
            left_on="landed_date",
            right_on="as_of_date",
            by="item_id",
            check_sortedness=False,
        )
        .drop("as_of_date", strict=False)
    )


def score_satisfaction(reader: Reader, days: Sequence[date], store: Store, seen: Arrival) -> pl.DataFrame:
    """Report rows of the concept 'satisfaction': ratings of reviews, scores of surveys."""
    start = days[0] - timedelta(days=look_back(store) + max(SATISFACTION_WINDOWS))
    windows = scored_windows(days, SATISFACTION_WINDOWS, seen, store.first_day)
    rows = ratings_query(reader, start, days[-1])
    frames = []
    if rows.height:
        rows = with_category(reader, rows, days[-1]).with_columns(
            cluster=pl.col("user_id").fill_null(pl.col("event_id")), ratings=pl.lit(1, pl.Int64)
        )
        measures = ["rating", "ratings"]
        stacked = stack(rows, {"category": "category"}, measures)
        metrics = [Ratio("mean_rating", pl.col("rating"), pl.col("ratings"), "ratio")]
        frames.append(_scored("satisfaction", metrics, stacked, measures, windows, store))
    answers = reader.accepted("surveys", start, days[-1])
    if answers.height:
        answers = answers.filter(pl.col("score").is_not_null()).with_columns(
            event_date=pl.col("answered_at").dt.replace_time_zone("UTC").dt.convert_time_zone(store.timezone).dt.date(),
            cluster=pl.col("user_id").fill_null(pl.format("{} {}", "answered_at", "score")),
            answers=pl.lit(1, pl.Int64),
        )
        measures = ["score", "answers"]
        stacked = stack(answers, {}, measures)
        metrics = [Ratio("mean_survey_score", pl.col("score"), pl.col("answers"), "ratio")]
        frames.append(_scored("satisfaction", metrics, stacked, measures, windows, store))
    return pl.concat(frames) if frames else empty_report()
