"""Items: the catalogue as known on each day, as a log of what is new or changed.

What belongs here: one entry per item from the catalogue input and from what events show of items the catalogue lacks.
What does not: what happens with items (item_days.py, item_features.py).

Of each catalogue column the newest non-null value counts. Where the catalogue gives no price, the newest price paid
stands in: taken when the item first appears, and brought up to date on re-issue days only, so that bargaining does not
re-write the catalogue every day. `newest` means landed last, then happened last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from marketing_assets.cleaning import accepted_landed
from marketing_assets.cleaning.typed import mapped_columns
from marketing_assets.config import KEYFRAME_DAYS, REISSUE_DAYS, Store
from marketing_assets.features.running import day_literal, days_of, earlier_entries, stack
from marketing_assets.schemas import TABLES
from marketing_assets.warehouse import Built

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from marketing_assets.warehouse import Reader

_GIVEN = {
    "title": "string",
    "category": "string",
    "brand": "string",
    "unit_cost": "decimal(18, 4)",
    "stock_on_hand": "int64",
    "stock_on_order": "int64",
    "lead_time_days": "int64",
    "pack_size": "int64",
    "minimum_order_quantity": "int64",
    "stock_by_location": "string",
}
_BY_LOCATION = ("stock_on_hand", "stock_on_order")
_NEWEST = (*_GIVEN, "list_price", "paid_price")
_TYPES = {
    "item_id": "string",
    "day": "date",
    **_GIVEN,
    "list_price": "decimal(18, 4)",
    "paid_price": "decimal(18, 4)",
    "first_price": "decimal(18, 4)",
    "first_seen_date": "date",
    "is_service": "boolean",
}


def build_items(reader: Reader, days: Sequence[date], store: Store) -> Built:
    """items of a contiguous window of days.

    Reads the items input that landed in the window; clean_events of the window and of REISSUE_DAYS before it; and the own
    log back to the last keyframe before the window.
    """
    return Built({"items": items(reader, days, store)})


def items(reader: Reader, days: Sequence[date], store: Store) -> ir.Table:
    """The entries of the window as an expression with the columns of items."""
    import ibis

    start = days[0]
    keyframes = [day for day in days if store.is_cadence_day(day, KEYFRAME_DAYS)]
    reissues = [day for day in days if store.is_cadence_day(day, REISSUE_DAYS)]
    parts = shown_items(reader, days, store)
    if reader.has_source("items"):
        parts.append(catalogue_items(reader, start, days[-1], store))
    news = stack([part.select("item_id") for part in parts], {"item_id": "string"}).distinct()
    log = earlier_entries(reader, "items", start, "item_id", only=None if keyframes or reissues else news, is_reissued=False)
    if log is not None:
        parts.append(
            log.mutate(
                day=log.as_of_date,
                list_price=ibis.ifelse(log.has_list_price, log.unit_price, None),
                paid_price=ibis.ifelse(log.has_list_price, None, log.unit_price),
            )
        )
    if keyframes:
        known = stack([part.select("item_id") for part in parts], {"item_id": "string"}).distinct()
        parts.append(known.cross_join(days_of(keyframes)))
    rows = stack(parts, _TYPES)
    daily = rows.group_by("item_id", "day").agg(
        is_service=rows.is_service.any(), **{name: rows[name].max() for name in (*_NEWEST, "first_price", "first_seen_date")}
    )
    so_far = ibis.window(group_by=daily.item_id, order_by=daily.day, preceding=None, following=0)
    daily = daily.mutate(first_seen_date=daily.first_seen_date.min().over(so_far))
    daily = daily.filter(daily.first_seen_date.notnull())
    daily = daily.mutate(
        paid_price=daily.paid_price.coalesce(ibis.ifelse(daily.day == daily.first_seen_date, daily.first_price, None))
    )
    so_far = ibis.window(group_by=daily.item_id, order_by=daily.day, preceding=None, following=0)
    # what no catalogue column says stays unknown, and costs no window over the rows
    mapped = mapped_columns(store, "items")
    if "location_id" in mapped:
        mapped.add("stock_by_location")
    given = [name for name in _GIVEN if name in mapped]
    known = {*given, "paid_price", *(["list_price"] if "unit_price" in mapped else [])}
    newest = {name: _newest(daily[name], daily.day).over(so_far) if name in known else daily[name] for name in _NEWEST}
    state = daily.select("item_id", "day", "first_seen_date", is_service=daily.is_service.any().over(so_far), **newest)
    full = state.mutate(
        as_of_date=state.day,
        unit_price=state.list_price.coalesce(state.paid_price),
        has_list_price=state.list_price.notnull(),
        is_service=state.is_service.fill_null(False),
    )
    by_day = ibis.window(group_by=full.item_id, order_by=full.day)
    is_due = full.day.lag().over(by_day).isnull()
    for name in ("unit_price", "has_list_price", "is_service", *given):
        is_due = is_due | ~full[name].identical_to(full[name].lag().over(by_day))
    if keyframes:
        is_due = is_due | full.day.isin([day_literal(day) for day in keyframes])
    full = full.mutate(is_due=is_due)
    return full.filter(full.day >= day_literal(start), full.is_due).select(*TABLES["items"].columns)


def _newest(value: ir.Column, day: ir.Column) -> Any:
    """The last non-null value."""
    import ibis

    return value.argmax(ibis.ifelse(value.notnull(), day, None))


def catalogue_items(reader: Reader, start: date, end: date, store: Store) -> ir.Table:
    """What the catalogue said by item and landed day: of each column the last non-null value of the day."""
    import ibis

    rows = accepted_landed(reader, "items", start, end)
    rank = ibis.struct({"file": rows.source_file, "row": rows.source_row, "id": rows.raw_row_id})
    mapped = mapped_columns(store, "items")
    given = {name: column for name, column in {**{name: name for name in _GIVEN}, "list_price": "unit_price"}.items() if column in mapped}
    grouped = rows.group_by("item_id", day=rows.landed_date).agg(
        **{name: rows[column].argmax(ibis.ifelse(rows[column].notnull(), rank, None)) for name, column in given.items()}
    )
    if "location_id" in mapped:
        grouped = _with_stock_by_location(grouped, rows, rank)
    pattern = store.cleaning.service_item_pattern
    is_fee = grouped.item_id.re_search(pattern) if pattern else ibis.literal(False)
    return grouped.mutate(first_seen_date=grouped.day, is_service=is_fee)


def _with_stock_by_location(grouped: ir.Table, rows: ir.Table, rank: Any) -> ir.Table:
    """grouped, by item_id and day, with stock_by_location, and with stock summed over the places told that day.

    rows: accepted rows of the items input; those of an item that land on a day name all its places. Stock told that day without a place counts
    where no place is told; it leaves stock_by_location an empty list.
    """
    import ibis

    of_place = {name: rows[name].argmax(ibis.ifelse(rows[name].notnull(), rank, None)) for name in _BY_LOCATION}
    places = rows.filter(rows.location_id.notnull()).group_by("item_id", "location_id", day=rows.landed_date).agg(**of_place)
    places = places.filter(places.stock_on_hand.notnull() | places.stock_on_order.notnull())
    told = ibis.struct({name: places[name] for name in ("location_id", *_BY_LOCATION)})
    summed = places.group_by(place_item="item_id", place_day="day").agg(
        by_location=told.collect(order_by=places.location_id).cast("json").cast("string"),
        **{f"placed_{name}": places[name].sum() for name in _BY_LOCATION},
    )
    joined = grouped.left_join(summed, [grouped.item_id == summed.place_item, grouped.day == summed.place_day])
    is_told = joined.by_location.notnull()
    stock = {
        name: ibis.ifelse(is_told, joined[f"placed_{name}"], joined[name]) if name in grouped.columns else joined[f"placed_{name}"]
        for name in _BY_LOCATION
    }
    elsewhere = ibis.ifelse(stock["stock_on_hand"].notnull(), "[]", ibis.null("string"))
    kept = [name for name in grouped.columns if name not in _BY_LOCATION]
    return joined.select(*kept, stock_by_location=joined.by_location.coalesce(elsewhere), **stock)


def stock_of_places(entries: pl.DataFrame) -> pl.DataFrame:
    """item_id, location_id, stock_on_hand and stock_on_order, and the other columns, of entries of items that tell stock by place."""
    place = pl.Struct({"location_id": pl.String, "stock_on_hand": pl.Int64, "stock_on_order": pl.Int64})
    told = entries.filter(pl.col("stock_by_location").is_not_null()).drop(_BY_LOCATION, strict=False)
    listed = told.with_columns(pl.col("stock_by_location").str.json_decode(pl.List(place)))
    return listed.explode("stock_by_location").filter(pl.col("stock_by_location").is_not_null()).unnest("stock_by_location")


def shown_items(reader: Reader, days: Sequence[date], store: Store) -> list[ir.Table]:
    """What events show of items: on which day they first appear, from when on they are fees, and prices paid where they count."""
    import ibis

    start, end = days[0], days[-1]
    # prices paid since the re-issue day before count on the next one
    since = start
    while since > store.first_day and not store.is_cadence_day(since - timedelta(days=1), REISSUE_DAYS):
        since -= timedelta(days=1)
    events = reader.table("clean_events")
    landed = events.filter(events.landed_date.between(day_literal(start), day_literal(end)), events.item_id.notnull())
    seen = landed.group_by("item_id").agg(
        day=landed.landed_date.min(), service_day=landed.landed_date.min(where=landed.is_service)
    )
    sold = events.filter(
        events.landed_date.between(day_literal(since), day_literal(end)),
        events.item_id.notnull(),
        events.event_type == "purchase",
        events.unit_price.notnull(),
    )
    rank = ibis.struct({"event_at": sold.event_at, "event_id": sold.event_id})
    paid = sold.group_by("item_id", "landed_date").agg(price=sold.unit_price.argmax(rank))
    first_prices = paid.select(priced_item="item_id", priced_day="landed_date", first_price="price")
    first = seen.left_join(first_prices, [seen.item_id == first_prices.priced_item, seen.day == first_prices.priced_day])
    parts = [
        first.select("item_id", "day", "first_price", first_seen_date=first.day),
        seen.filter(seen.service_day.notnull()).select("item_id", day=seen.service_day, is_service=ibis.literal(True)),
    ]
    if reissues := [day for day in days if store.is_cadence_day(day, REISSUE_DAYS)]:
        due = days_of(reissues)
        periods = due.mutate(since=due.day.lag().over(ibis.window(order_by=due.day)))
        current = paid.join(
            periods, [paid.landed_date <= periods.day, periods.since.isnull() | (paid.landed_date > periods.since)]
        )
        parts.append(current.group_by("item_id", "day").agg(paid_price=current.price.argmax(current.landed_date)))
    return parts


def items_in_force(reader: Reader, days: Sequence[date], columns: Mapping[str, Callable[[ir.Table], Any]]) -> ir.Table:
    """item_id, from_date, until_date (excluded) and `columns`: what held of each item from when to when, within the window.

    Entries between which none of the columns changes are one row.
    """
    import ibis

    log = reader.table("items")
    log = log.filter(log.as_of_date.between(day_literal(reader.keyframe_before(days[0])), day_literal(days[-1])))
    chosen = log.select("item_id", from_date="as_of_date", **{name: make(log) for name, make in columns.items()})
    by_day = ibis.window(group_by=chosen.item_id, order_by=chosen.from_date)
    is_changed = chosen.from_date.lag().over(by_day).isnull()
    for name in columns:
        is_changed = is_changed | ~chosen[name].identical_to(chosen[name].lag().over(by_day))
    chosen = chosen.mutate(is_changed=is_changed)
    changes = chosen.filter(chosen.is_changed)
    by_day = ibis.window(group_by=changes.item_id, order_by=changes.from_date)
    far = day_literal(days[-1] + timedelta(days=1))
    return changes.select("item_id", "from_date", *columns, until_date=changes.from_date.lead().over(by_day).fill_null(far))
