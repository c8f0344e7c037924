"""Sessions: one row per visit with its totals so far, re-emitted whenever an event of it lands.

What belongs here: adding up a session's events. What does not: which events make a session (cleaning).

Sessions of bots are kept and marked. Totals are carried from the session's own earlier entry as long as no more than
LATE_DAYS lie between the two landings; a session_id used again later starts anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

from marketing_assets.config import LATE_DAYS, Store
from marketing_assets.features.running import MONEY, age_days, day_literal, stack
from marketing_assets.schemas import TABLES
from marketing_assets.warehouse import Built

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from marketing_assets.warehouse import Reader

_COUNTED = {
    "views": "view_item",
    "searches": "search",
    "wishlists": "add_to_wishlist",
    "carts": "add_to_cart",
    "checkouts": "begin_checkout",
    "purchases": "purchase",
    "refunds": "refund",
    "reviews": "review",
}
_TYPES = {
    "session_id": "string",
    "day": "date",
    "first": "struct<user_id: string, device: string, channel: string>",
    "started_at": "timestamp(6)",
    "ended_at": "timestamp(6)",
    "events": "int64",
    **dict.fromkeys(_COUNTED, "int64"),
    "revenue": MONEY,
    "is_bot": "boolean",
}


def build_sessions(reader: Reader, days: Sequence[date], store: Store) -> Built:
    """sessions of a contiguous window of days.

    Reads clean_events of the window and the own log of LATE_DAYS before it.
    """
    return Built({"sessions": sessions(reader, days)})


def sessions(reader: Reader, days: Sequence[date]) -> ir.Table:
    """The entries of the window as an expression with the columns of sessions."""
    import ibis

    start, end = days[0], days[-1]
    landed = landed_parts(reader, start, end)
    log = reader.table("sessions")
    earlier = log.filter(
        log.as_of_date.between(day_literal(start - timedelta(days=LATE_DAYS)), day_literal(start - timedelta(days=1)))
    ).semi_join(landed, "session_id")
    newest = earlier.mutate(newest_date=earlier.as_of_date.max().over(ibis.window(group_by=earlier.session_id)))
    newest = newest.filter(newest.as_of_date == newest.newest_date)
    before = newest.mutate(day=newest.as_of_date, first=_first(newest))
    parts = stack([landed, before], _TYPES)
    # nearly all sessions land in one piece and need no adding up
    pieces = parts.group_by("session_id").agg(pieces=parts.count())
    whole = parts.semi_join(pieces.filter(pieces.pieces == 1), "session_id").mutate(is_new=ibis.literal(True))
    totals = added_up(parts.semi_join(pieces.filter(pieces.pieces > 1), "session_id"))
    types = {**_TYPES, "is_new": "boolean"}
    found = stack([whole, totals], types)
    found = found.filter(found.day >= day_literal(start))
    return found.mutate(
        as_of_date=found.day, user_id=found["first"].user_id, device=found["first"].device, channel=found["first"].channel
    ).select(*TABLES["sessions"].columns)


def added_up(parts: ir.Table) -> ir.Table:
    """Parts of sessions -> their totals so far, and whether each is the first of its session."""
    import ibis

    of_session = ibis.window(group_by=parts.session_id, order_by=parts.day)
    gap = age_days(parts.day, parts.day.lag().over(of_session))
    parts = parts.mutate(is_new=gap.isnull() | (gap > LATE_DAYS))
    of_session = ibis.window(group_by=parts.session_id, order_by=parts.day, preceding=None, following=0)
    parts = parts.mutate(visit=parts.is_new.cast("int64").sum().over(of_session))
    so_far = ibis.window(group_by=[parts.session_id, parts.visit], order_by=parts.day, preceding=None, following=0)
    earliest = ibis.struct({"started_at": parts.started_at, "day": parts.day, "first": parts["first"]}).min().over(so_far)
    return parts.select(
        "session_id",
        "day",
        "is_new",
        first=earliest["first"],
        started_at=parts.started_at.min().over(so_far),
        ended_at=parts.ended_at.max().over(so_far),
        is_bot=parts.is_bot.any().over(so_far),
        **{name: parts[name].sum().over(so_far) for name in ("events", *_COUNTED, "revenue")},
    )


def landed_parts(reader: Reader, start: date, end: date) -> ir.Table:
    """What landed of each session by day; user, device and channel are those of the earliest event, by time, then id."""
    import ibis

    events = reader.table("clean_events")
    events = events.filter(events.landed_date.between(day_literal(start), day_literal(end)), events.session_id.notnull())
    return events.group_by("session_id", day=events.landed_date).agg(
        first=ibis.struct({"event_at": events.event_at, "event_id": events.event_id, "first": _first(events)}).min()["first"],
        started_at=events.event_at.min(),
        ended_at=events.event_at.max(),
        events=events.count(),
        revenue=events.revenue.sum(),
        is_bot=events.is_bot.any(),
        **{name: (events.event_type == kind).sum() for name, kind in _COUNTED.items()},
    )


def _first(rows: ir.Table) -> ir.StructValue:
    import ibis

    return ibis.struct({"user_id": rows.user_id, "device": rows.device, "channel": rows.channel})
