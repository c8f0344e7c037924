"""Raw events -> clean events.

What belongs here: what an event means next to its neighbours: bots, refunds and their purchases, revenue. Duplicates,
sessions and identities have their own modules.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from marketing_assets.cleaning.duplicates import duplicates
from marketing_assets.cleaning.identities import as_persons
from marketing_assets.cleaning.sessions import days_to_wait, sessions
from marketing_assets.cleaning.typed import mapped_columns, typed
from marketing_assets.config import LATE_DAYS, Store
from marketing_assets.schemas import TABLES
from marketing_assets.sources.engine import Staging, rows_in

if TYPE_CHECKING:
    import ibis.expr.types as ir

MONEY = "decimal(18, 4)"
_SALES = ("purchase", "refund")


@dataclass(frozen=True)
class Cleaned:
    """clean: the clean table of the window. refused: landed_date, raw_row_id, reason of its other raw rows."""

    clean: ir.Table
    refused: ir.Table


def clean_events(staging: Staging, raw: ir.Table, start: date, end: date, store: Store, known: ir.Table | None) -> Cleaned:
    """clean_events of the window start...end, whose raw rows these are, and what was refused. known: see identities.persons."""
    import ibis

    reader = staging.reader
    published = reader.table("clean_events").filter(lambda t: t.landed_date < ibis.literal(start, type="date"))
    rows = as_persons(typed(raw, "events", store, end, mapped_columns(store, "events")), known)
    is_refund = (rows.event_type == "refund") | ((rows.event_type == "purchase") & (rows.quantity < 0))
    moves = rows.event_type.isin(_SALES)
    rows = rows.mutate(
        event_id=ibis.coalesce(rows.event_id, rows.row_hash),
        event_date=rows.local_date,
        event_type=ibis.ifelse(is_refund, "refund", rows.event_type),
        quantity=ibis.ifelse(moves, rows.quantity.abs().fill_null(1), rows.quantity),
    ).drop("row_hash", "local_date", "source_file", "source_row")
    staged = staging.keep(rows, "events")
    staged = staged.mutate(position=staged.rowid())
    good = staged.filter(staged.refusal.isnull())
    refused = staged.filter(staged.refusal.notnull()).select("landed_date", "raw_row_id", reason="refusal")

    repeated = duplicates(
        staging,
        good.select("position", "landed_date", "raw_row_id", row_id="event_id"),
        published.select("landed_date", row_id="event_id"),
        start,
    )
    if repeated is not None:
        twice = good.semi_join(repeated, "position").select("landed_date", "raw_row_id", reason=ibis.literal("duplicate"))
        refused = refused.union(twice)
        good = good.anti_join(repeated, "position")

    users = good.filter(good.user_id.notnull())
    placed = sessions(
        staging,
        users.select("position", "landed_date", "event_date", "event_at", "user_id", "session_id", "raw_row_id"),
        published,
        start,
        store,
    )
    placed = placed.select(placed_position="position", placed_session="session_id", placed_late="is_late")
    clean = good.left_join(placed, good.position == placed.placed_position)
    clean = clean.mutate(
        session_id=ibis.coalesce(clean.placed_session, clean.session_id), is_late=clean.placed_late.fill_null(False)
    )
    bots = _of_bots(staging, users, published, start, store)
    clean = clean.mutate(is_bot=ibis.literal(False) if bots is None else clean.position.isin(bots.position))
    matched = _refunded_purchases(staging, good, start, store)
    if matched is not None:
        clean = clean.left_join(matched, clean.position == matched.refund_position)
        clean = clean.mutate(refunds_event_id=ibis.coalesce(clean.refunds_event_id, clean.purchase_id))
    pattern = store.cleaning.service_item_pattern
    gross = clean.quantity * clean.unit_price - clean.discount.fill_null(0)
    revenue = ibis.cases(
        (clean.event_type == "purchase", gross), (clean.event_type == "refund", -gross), else_=ibis.null(gross.type())
    )
    clean = clean.mutate(
        is_service=clean.item_id.re_search(pattern).fill_null(False) if pattern else ibis.literal(False),
        revenue=revenue.fill_null(0).cast(MONEY),
    )
    return Cleaned(clean.select(*TABLES["clean_events"].columns), refused)


def _of_bots(staging: Staging, users: ir.Table, published: ir.Table, start: date, store: Store) -> ir.Table | None:
    """position of events of programs: all that landed on a day they behave like one, and what comes late of the days those are from."""
    import ibis

    waits = days_to_wait(store)
    since = ibis.literal(start - timedelta(days=LATE_DAYS), type="date")
    known = published.filter(published.landed_date >= since, published.is_bot).select("user_id", "event_date", "landed_date")
    known = staging.keep(known.distinct(), "known_bots")
    bots = _bots(staging, users, store)
    if bots is None and not rows_in(known):
        return None
    own = users.filter(ibis.literal(False)) if bots is None else users.semi_join(
        bots, [users.user_id == bots.bot_id, users.landed_date == bots.bot_date]
    )
    theirs = known.union(own.select("user_id", "event_date", "landed_date")).group_by(bot_id="user_id", bot_day="event_date")
    days = theirs.agg(bot_since=lambda t: t.landed_date.min())
    joined = users.join(days, [users.user_id == days.bot_id, users.event_date == days.bot_day, users.landed_date > days.bot_since])
    late = joined.filter(joined.event_date >= (joined.landed_date - ibis.interval(days=waits)).cast("date"))
    return staging.keep(own.select("position").union(late.select("position"), distinct=True), "of_bots")


def _bots(staging: Staging, users: ir.Table, store: Store) -> ir.Table | None:
    """bot_id, bot_date: users who on a landed day behave like programs; None where nobody does."""
    import ibis

    limits = store.cleaning
    browses = ~users.event_type.isin(_SALES)
    least = min(limits.bot_events_per_day, limits.bot_events_per_minute)
    days = users.group_by(bot_id=users.user_id, bot_date=users.landed_date).agg(
        browsed=users.count(where=browses), bought=users.count(where=users.event_type == "purchase")
    )
    busy = staging.keep(days.filter(days.browsed > least), "busy")
    if not rows_in(busy):
        return None
    theirs = users.filter(browses).join(busy, [users.user_id == busy.bot_id, users.landed_date == busy.bot_date])
    by_day = ibis.window(group_by=[theirs.user_id, theirs.landed_date], order_by=[theirs.event_at, theirs.raw_row_id])
    theirs = theirs.mutate(earlier=theirs.event_at.lag(limits.bot_events_per_minute).over(by_day))
    rapid = theirs.filter(theirs.event_at < theirs.earlier + ibis.interval(minutes=1)).select("bot_id", "bot_date")
    endless = busy.filter(busy.browsed > limits.bot_events_per_day, busy.bought == 0).select("bot_id", "bot_date")
    found = staging.keep(rapid.union(endless, distinct=True), "bots")
    return found if rows_in(found) else None


def _refunded_purchases(staging: Staging, good: ir.Table, start: date, store: Store) -> ir.Table | None:
    """refund_position, purchase_id: the newest purchase a refund can take back; None without refunds to match.

    The same user and item, at least the refund's quantity, at most refund_match_days before, known when the refund landed.
    """
    import ibis

    refunds = good.filter(
        good.event_type == "refund", good.refunds_event_id.isnull(), good.user_id.notnull(), good.item_id.notnull()
    ).select(
        refund_position="position",
        user="user_id",
        item="item_id",
        returned="quantity",
        refund_at="event_at",
        refund_landed="landed_date",
    )
    refunds = staging.keep(refunds, "refunds")
    if not rows_in(refunds):
        return None
    reach = store.cleaning.refund_match_days
    since, today = (ibis.literal(day, type="date") for day in (start - timedelta(days=reach), start))
    published = staging.reader.table("clean_events", place="place")
    published = published.filter(published.landed_date < today)
    columns = ("user_id", "item_id", "quantity", "event_at", "landed_date", "raw_row_id", "event_id")
    keys: list[Any] = [("user_id", "user"), ("item_id", "item")]
    own = good.filter(good.event_type == "purchase").semi_join(refunds, keys).select(*columns)
    # first where purchases of these users lie, then what they are: of a long history, few columns are read whole
    theirs = published.filter(published.landed_date >= since, published.event_type == "purchase").semi_join(refunds, [("user_id", "user")])
    places = staging.keep(theirs.select("place"), "places")
    old = staging.keep(published.semi_join(places, "place").select(*columns), "theirs")
    bought = own.union(old)
    joined = refunds.join(bought, [refunds.user == bought.user_id, refunds.item == bought.item_id])
    joined = joined.filter(
        joined.quantity >= joined.returned,
        joined.event_at <= joined.refund_at,
        joined.landed_date <= joined.refund_landed,
        joined.event_at >= joined.refund_at - ibis.interval(days=reach),
        joined.landed_date >= (joined.refund_landed - ibis.interval(days=reach)).cast("date"),
    )
    rank = ibis.struct({"at": joined.event_at, "landed": joined.landed_date, "row": joined.raw_row_id})
    return staging.keep(joined.group_by("refund_position").agg(purchase_id=joined.event_id.argmax(rank)), "matched")
