"""Which conversions are credited to which impression.

What belongs here: the three ways a shop may know of conversions, and taking them back on a refund. What does not: what they
are worth to a plan.

From `conversions` where the shop maps them, else from what the ad log itself claims (is_converted), else from purchases by
the last click of the same user within attribution_window_days. Each order is credited once, the first time.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

from marketing_assets.cleaning.duplicates import duplicates
from marketing_assets.cleaning.typed import mapped_columns
from marketing_assets.config import LATE_DAYS, Store
from marketing_assets.schemas import TABLES
from marketing_assets.sources.engine import Staging, rows_in
from marketing_assets.warehouse import Reader

if TYPE_CHECKING:
    import ibis.expr.types as ir

MONEY = "decimal(18, 4)"
_COLUMNS = ("landed_date", "conversion_id", "impression_id", "converted_at", "order_id", "conversion_value", "attribution_rule")


def attributed_conversions(
    staging: Staging, start: date, store: Store, events: ir.Table, impressions: ir.Table, conversions: ir.Table | None
) -> ir.Table:
    """attributed_conversions of the window that begins on `start`.

    events, impressions: the window's clean tables. conversions: its accepted conversions with raw_row_id, persons joined.
    """
    import ibis

    reader = staging.reader
    sales = staging.keep(
        events.filter(events.event_type.isin(("purchase", "refund"))).select(
            "landed_date",
            "event_id",
            "event_at",
            "event_type",
            "user_id",
            "order_id",
            "revenue",
            "refunds_event_id",
            "is_bot",
            "raw_row_id",
        ),
        "sales",
    )
    parts = []
    if reader.has_source("conversions"):
        if conversions is not None:
            parts.append(_reported(staging, conversions, start, impressions, store))
    elif "is_converted" in mapped_columns(reader.store, "impressions"):
        claimed = impressions.filter(impressions.is_converted.fill_null(False))
        parts.append(
            claimed.select(
                "landed_date",
                "impression_id",
                conversion_id=claimed.impression_id,
                converted_at=ibis.coalesce(claimed.converted_at, claimed.clicked_at, claimed.shown_at),
                order_id=ibis.null("string"),
                conversion_value=claimed.conversion_value.fill_null(0).cast(MONEY),
                attribution_rule=ibis.literal("impression_log"),
            )
        )
    else:
        bought = sales.filter(sales.event_type == "purchase", sales.user_id.notnull(), ~sales.is_bot)
        bought = bought.mutate(conversion_id=ibis.coalesce(bought.order_id, bought.event_id))
        orders = bought.group_by("landed_date", "conversion_id").agg(
            user_id=bought.user_id.min(),
            order_id=bought.order_id.min(),
            converted_at=bought.event_at.min(),
            conversion_value=bought.revenue.sum().cast(MONEY),
            raw_row_id=bought.raw_row_id.min(),
        )
        orders = staging.keep(orders, "orders")
        if rows_in(orders):
            clicked = _last_click(staging, orders, start, impressions, store)
            parts.append(clicked.mutate(attribution_rule=ibis.literal("last_click")))
    if parts:
        credited = staging.keep(_once(staging, parts[0].select(*_COLUMNS), start, store), "credited")
    else:
        credited = reader.table("attributed_conversions").select(*_COLUMNS).filter(ibis.literal(False))
    rows = credited.mutate(is_refunded=ibis.literal(False))
    if (taken := _taken_back(staging, sales, credited, start, store)) is not None:
        rows = rows.union(taken.select(*rows.columns))
    return rows.select(*TABLES["attributed_conversions"].columns)


def _reported(staging: Staging, conversions: ir.Table, start: date, impressions: ir.Table, store: Store) -> ir.Table:
    """Reported conversions: by their impression, else by the last click of their user."""
    import ibis

    named = ibis.coalesce(conversions.order_id, conversions.raw_row_id)
    conversions = conversions.mutate(conversion_id=named, conversion_value=conversions.conversion_value.fill_null(0).cast(MONEY))
    rule = ibis.literal("reported")
    direct = conversions.filter(conversions.impression_id.notnull()).mutate(attribution_rule=rule).select(*_COLUMNS)
    open_ones = conversions.filter(conversions.impression_id.isnull()).drop("impression_id")
    if not (staging.reader.has_source("impressions") and "user_id" in mapped_columns(staging.reader.store, "conversions")):
        return direct
    clicked = _last_click(staging, staging.keep(open_ones, "open"), start, impressions, store)
    return direct.union(clicked.mutate(attribution_rule=ibis.literal("last_click")).select(*_COLUMNS))


def _last_click(staging: Staging, conversions: ir.Table, start: date, impressions: ir.Table, store: Store) -> ir.Table:
    """Conversions (landed_date, conversion_id, user_id, converted_at, ...) with the impression their user clicked last before.

    Clicks known when the conversion landed, at most attribution_window_days before it; others drop out.
    """
    import ibis

    days = store.attribution_window_days
    reach = days + LATE_DAYS
    published = staging.reader.table("clean_impressions")
    published = published.filter(
        published.landed_date.between(
            ibis.literal(start - timedelta(days=reach), type="date"), ibis.literal(start - timedelta(days=1), type="date")
        )
    )
    parts = []
    for table in (published, impressions):
        clicks = table.filter(table.is_clicked, table.user_id.notnull()).semi_join(conversions, "user_id")
        parts.append(
            clicks.select(
                click_user="user_id",
                click_landed="landed_date",
                clicked=ibis.coalesce(clicks.clicked_at, clicks.shown_at),
                impression_id="impression_id",
            )
        )
    clicks = ibis.union(*parts)
    joined = conversions.join(clicks, [conversions.user_id == clicks.click_user, clicks.click_landed <= conversions.landed_date])
    joined = joined.filter(
        joined.clicked <= joined.converted_at,
        joined.clicked >= joined.converted_at - ibis.interval(days=days),
        joined.click_landed >= (joined.landed_date - ibis.interval(days=reach)).cast("date"),
    )
    rank = ibis.struct({"at": joined.clicked, "impression": joined.impression_id})
    last = joined.group_by("landed_date", "conversion_id", "raw_row_id").agg(impression_id=joined.impression_id.argmax(rank))
    last = last.select(last_date="landed_date", last_id="conversion_id", last_row="raw_row_id", impression_id="impression_id")
    return conversions.join(
        last,
        [
            conversions.landed_date == last.last_date,
            conversions.conversion_id == last.last_id,
            conversions.raw_row_id == last.last_row,
        ],
    ).drop("last_date", "last_id", "last_row")


def _once(staging: Staging, credited: ir.Table, start: date, store: Store) -> ir.Table:
    """The first credit of each conversion, however many rows report it within refund_match_days."""
    credits = staging.keep(credited, "credits")
    credits = credits.mutate(position=credits.rowid())
    # impression ids order credits of one conversion and day
    ids = credits.select("position", "landed_date", row_id="conversion_id", raw_row_id="impression_id")
    published = staging.reader.table("attributed_conversions")
    published = published.filter(~published.is_refunded).select("landed_date", row_id="conversion_id")
    repeated = duplicates(staging, ids, published, start, store.cleaning.refund_match_days)
    kept = credits if repeated is None else credits.anti_join(repeated, "position")
    return kept.drop("position")


def _earlier(reader: Reader, start: date, store: Store) -> ir.Table:
    import ibis

    table = reader.table("attributed_conversions")
    reach = store.cleaning.refund_match_days
    return table.filter(
        table.landed_date.between(
            ibis.literal(start - timedelta(days=reach), type="date"), ibis.literal(start - timedelta(days=1), type="date")
        ),
        ~table.is_refunded,
    )


def _taken_back(staging: Staging, sales: ir.Table, credited: ir.Table, start: date, store: Store) -> ir.Table | None:
    """A negative row per credited order and landed day with refunds of it; None without refunds."""
    import ibis

    reader = staging.reader
    refunds = sales.filter(sales.event_type == "refund")
    refunds = refunds.filter(refunds.order_id.notnull() | refunds.refunds_event_id.notnull())
    refunds = staging.keep(
        refunds.select("landed_date", "event_id", "event_at", "revenue", own_order="order_id", purchase_id="refunds_event_id"),
        "returns",
    )
    if not rows_in(refunds):
        return None
    since = ibis.literal(start - timedelta(days=store.cleaning.refund_match_days), type="date")
    published = reader.table("clean_events")
    published = published.filter(published.landed_date >= since, published.landed_date < ibis.literal(start, type="date"))
    parts = []
    for table in (published, sales):
        bought = table.filter(table.event_type == "purchase").semi_join(refunds, [("event_id", "purchase_id")])
        parts.append(
            bought.select(
                bought_id="event_id", bought_landed="landed_date", bought_as=ibis.coalesce(bought.order_id, bought.event_id)
            )
        )
    bought = ibis.union(*parts)
    matched = refunds.left_join(bought, [refunds.purchase_id == bought.bought_id, refunds.landed_date >= bought.bought_landed])
    matched = matched.mutate(conversion=ibis.coalesce(matched.bought_as, matched.own_order))
    returned = matched.group_by("landed_date", "conversion").agg(
        converted_at=matched.event_at.min(), conversion_value=matched.revenue.sum().cast(MONEY)
    )
    columns = {
        "credit_id": "conversion_id",
        "credit_landed": "landed_date",
        "impression": "impression_id",
        "credited_order": "order_id",
        "rule": "attribution_rule",
    }
    credits = _earlier(reader, start, store).select(**columns).union(credited.select(**columns))
    joined = returned.join(credits, [returned.conversion == credits.credit_id, returned.landed_date >= credits.credit_landed])
    reach = ibis.interval(days=store.cleaning.refund_match_days)
    joined = joined.filter(joined.credit_landed >= (joined.landed_date - reach).cast("date"))
    newest = joined.group_by("landed_date", "conversion", "converted_at", "conversion_value").agg(
        impression_id=joined.impression.argmax(joined.credit_landed),
        order_id=joined.credited_order.argmax(joined.credit_landed),
        attribution_rule=joined.rule.argmax(joined.credit_landed),
    )
    return newest.mutate(conversion_id=newest.conversion + "-refund", is_refunded=ibis.literal(True)).drop("conversion")
