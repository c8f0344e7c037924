"""Daily history of items: what was sold, returned, viewed and put in carts, in increments by the day they landed.

What belongs here: increments by item, event day and location. What does not: totals (item_features.py) and demand (forecasting).

Purchases and refunds of everyone count, also without a user; views, carts and reviews only of people, not of bots. Fees
and postage are no items.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from marketing_assets.cleaning import accepted_landed, by_day, tells_ranges, with_ranges
from marketing_assets.config import ACTIVE_DAYS, Store
from marketing_assets.features.running import day_literal
from marketing_assets.schemas import TABLES
from marketing_assets.warehouse import Built

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from marketing_assets.warehouse import Reader


def build_item_days(reader: Reader, days: Sequence[date], store: Store) -> Built:
    """item_days of a contiguous window of days.

    Reads clean_events of the window; item_drivers and market_days landed in it and ACTIVE_DAYS before; all item_drivers where they may
    hold for more than a day.
    """
    start, end = days[0], days[-1]
    rows = increments(reader, start, end)
    rows = with_drivers(reader, rows, start, end)
    rows = with_promotions(reader, rows, start, end)
    paid = (rows.gross_revenue.cast("float64") / rows.units_sold.nullif(0).cast("float64")).round(4).cast("decimal(18, 4)")
    return Built({"item_days": rows.mutate(unit_price=rows.unit_price.coalesce(paid)).select(*TABLES["item_days"].columns)})


def increments(reader: Reader, start: date, end: date) -> ir.Table:
    """Counts and money by landed_date, event_date, item_id and location_id."""
    events = reader.table("clean_events")
    is_sale = events.event_type == "purchase"
    is_return = events.event_type == "refund"
    ours = events.filter(
        events.landed_date.between(day_literal(start), day_literal(end)),
        events.item_id.notnull(),
        ~events.is_service,
        is_sale | is_return | ~events.is_bot,
    )
    is_sale, is_return = ours.event_type == "purchase", ours.event_type == "refund"
    by_people = ~ours.is_bot
    return ours.group_by("landed_date", "event_date", "item_id", "location_id").agg(
        units_sold=ours.quantity.sum(where=is_sale).fill_null(0),
        units_returned=ours.quantity.sum(where=is_return).fill_null(0),
        orders=is_sale.sum(),
        revenue=ours.revenue.sum(),
        gross_revenue=ours.revenue.sum(where=is_sale).fill_null(0),
        views=(ours.event_type == "view_item").sum(),
        carts=(ours.event_type == "add_to_cart").sum(),
        reviews=((ours.event_type == "review") & by_people).sum(),
        ratings=ours.rating.count(where=by_people),
        rating_total=ours.rating.sum(where=by_people).fill_null(0.0),
    )


def with_drivers(reader: Reader, rows: ir.Table, start: date, end: date) -> ir.Table:
    """Adds unit_price, is_available and is_promotion as known of the event day on the landed day; null where unknown.

    A driver row without location holds for all; one of the row's own location goes before it.
    """
    import ibis

    if not reader.has_source("item_drivers"):
        return rows.mutate(
            unit_price=ibis.null("decimal(18, 4)"), is_available=ibis.null("boolean"), is_promotion=ibis.null("boolean")
        )
    # a price that still holds may have landed long ago
    has_ranges = tells_ranges(reader.store, "item_drivers")
    since = None if has_ranges else start - timedelta(days=ACTIVE_DAYS)
    drivers = with_ranges(accepted_landed(reader, "item_drivers", since, end))
    drivers = drivers.select(
        driver_item="item_id",
        driver_date="date",
        driver_end="end_date",
        held_since="held_since",
        driver_location="location_id",
        driver_landed="landed_date",
        known_at="known_at",
        driver_price="unit_price",
        driver_available="is_available",
        driver_promotion="is_promotion",
        raw_row_id="raw_row_id",
    )
    keys = ["landed_date", "event_date", "item_id", "location_id"]
    on_day: list[Any] = [rows.event_date == drivers.driver_date]
    if has_ranges:
        on_day = [rows.event_date >= drivers.driver_date, rows.event_date <= drivers.driver_end]
    joined = rows.select(*keys).join(drivers, [rows.item_id == drivers.driver_item, *on_day])
    age = joined.landed_date.delta(joined.driver_landed, unit="day")
    joined = joined.filter(
        age >= 0,
        (age <= ACTIVE_DAYS) | (joined.driver_end > joined.driver_date),
        joined.driver_location.isnull() | (joined.driver_location == joined.location_id),
    )
    rank = ibis.struct(
        {
            "is_own": joined.driver_location.notnull(),
            "since": joined.held_since,
            "landed": joined.driver_landed,
            "known_at": joined.known_at,
            "row": joined.raw_row_id,
        }
    )
    known = joined.group_by(*keys).agg(
        **{
            name: joined[column].argmax(ibis.ifelse(joined[column].notnull(), rank, None))
            for name, column in (
                ("unit_price", "driver_price"),
                ("is_available", "driver_available"),
                ("is_promotion", "driver_promotion"),
            )
        }
    )
    return _left(rows, known, keys, ["unit_price", "is_available", "is_promotion"])


def with_promotions(reader: Reader, rows: ir.Table, start: date, end: date) -> ir.Table:
    """is_promotion or'ed with the shop-wide one of market_days as known on the landed day."""
    import ibis

    if not reader.has_source("market_days"):
        return rows
    market = accepted_landed(reader, "market_days", start - timedelta(days=ACTIVE_DAYS), end)
    latest = end + timedelta(days=reader.store.cleaning.future_tolerance_days)
    market = by_day(market, "market_days", reader.store, date.min, latest, start)
    market = market.filter(market.is_promotion.notnull()).select(
        market_date="date",
        held_since="held_since",
        market_landed="landed_date",
        known_at="known_at",
        market_promotion="is_promotion",
        raw_row_id="raw_row_id",
    )
    dates = rows.select("landed_date", "event_date").distinct()
    joined = dates.join(market, dates.event_date == market.market_date)
    age = joined.landed_date.delta(joined.market_landed, unit="day")
    joined = joined.filter(age >= 0, age <= ACTIVE_DAYS)
    rank = ibis.struct(
        {"since": joined.held_since, "landed": joined.market_landed, "known_at": joined.known_at, "row": joined.raw_row_id}
    )
    known = joined.group_by("landed_date", "event_date").agg(shop_promotion=joined.market_promotion.argmax(rank))
    both = _left(rows, known, ["landed_date", "event_date"], ["shop_promotion"])
    either = ibis.ifelse(
        both.is_promotion.fill_null(False) | both.shop_promotion.fill_null(False),
        True,
        both.is_promotion.coalesce(both.shop_promotion),
    )
    return both.mutate(is_promotion=either)


def _left(rows: ir.Table, more: ir.Table, keys: Sequence[str], columns: Sequence[str]) -> ir.Table:
    """rows with `columns` of `more` where all keys are equal, nulls included."""
    other = more.rename({f"other_{key}": key for key in keys})
    joined = rows.left_join(other, [rows[key].identical_to(other[f"other_{key}"]) for key in keys])
    return joined.select(*rows.columns, *columns)
