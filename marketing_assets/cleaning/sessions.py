"""Which session an event belongs to.

What belongs here: the rule of sessions. What does not: totals of sessions (features).

A given session_id is kept. Otherwise an event is on time where nothing of its user that landed earlier happened after it,
and it is not much older than its landing; events on time, in order, are split where more than the gap passes. An event
that comes late joins the session of the nearest event on time that landed before it, within the gap, first looking back,
then forward; late events of one landed day that find none form sessions of their own by the gap. So sessions never merge
and no earlier event changes its session.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from marketing_assets.config import LATE_DAYS, Store
from marketing_assets.sources.engine import Staging, hexadecimal, row_hash, rows_in

if TYPE_CHECKING:
    import ibis.expr.types as ir


def sessions(staging: Staging, rows: ir.Table, published: ir.Table, start: date, store: Store) -> ir.Table:
    """position, session_id, is_late of the window's events with a user.

    rows: position, landed_date, event_date, event_at, user_id, session_id (given or null), raw_row_id. published:
    clean_events of earlier landed days. The id of a session not given is the digest of its first event's user and instant.
    """
    import ibis

    given_only = rows.select("position", "session_id", is_late=ibis.literal(False))
    if not rows_in(rows.filter(rows.session_id.isnull()).limit(1)):
        return given_only
    gap = ibis.interval(minutes=store.cleaning.session_gap_minutes)
    old_days = days_to_wait(store)
    since, until = start - timedelta(days=LATE_DAYS - 1), start - timedelta(days=1)
    history = published.filter(
        published.landed_date.between(ibis.literal(since, type="date"), ibis.literal(until, type="date")),
        published.session_id.notnull(),
        published.user_id.notnull(),
        ~published.is_late,
    ).select("user_id", "landed_date", "event_at", "session_id", "raw_row_id")

    carried = staging.keep(_carried(history, rows), "carried")
    stream = rows.select(
        "position",
        "user_id",
        "landed_date",
        "event_at",
        "raw_row_id",
        given="session_id",
        timely_at=ibis.ifelse(
            rows.event_date < (rows.landed_date - ibis.interval(days=old_days)).cast("date"), None, rows.event_at
        ),
    )
    if rows_in(carried):
        stream = stream.union(
            carried.select(
                position=ibis.null("int64"),
                user_id="user_id",
                landed_date="landed_date",
                event_at="event_at",
                raw_row_id="raw_row_id",
                given="session_id",
                timely_at="event_at",
            )
        )
    order = [stream.landed_date, stream.event_at, stream.raw_row_id]
    before = stream.timely_at.max().over(ibis.window(group_by=stream.user_id, order_by=order, preceding=(None, 1)))
    stream = stream.mutate(before=before)
    stream = stream.mutate(late=(stream.timely_at.isnull() | (stream.event_at < stream.before)).fill_null(False))
    starts = ~stream.late & (stream.given.notnull() | stream.before.isnull() | (stream.event_at > stream.before + gap))
    stream = stream.mutate(starts_at=ibis.ifelse(starts, stream.event_at, None))
    order = [stream.landed_date, stream.event_at, stream.raw_row_id]
    started = stream.starts_at.max().over(ibis.window(group_by=stream.user_id, order_by=order, preceding=(None, 0)))
    placed = staging.keep(stream.mutate(started_at=started).drop("timely_at", "before", "starts_at"), "placed")

    named = _anchored(staging, placed)
    on_time = named.filter(named.position.notnull(), ~named.late | named.given.notnull()).select(
        "position", "user_id", "landed_date", "event_at", "raw_row_id", session_id="name"
    )
    result = on_time.select("position", "session_id", is_late=ibis.literal(False))
    late = staging.keep(placed.filter(placed.late, placed.given.isnull()), "late")
    if not rows_in(late):
        return result
    theirs = staging.keep(on_time.semi_join(late, "user_id").drop("position"), "on_time")
    return result.union(_late_sessions(staging, late, theirs.union(history.semi_join(late, "user_id")), gap))


def days_to_wait(store: Store) -> int:
    """Days between an event and its landing past which nothing else is asked about it, so that LATE_DAYS of history decide every other case."""
    return LATE_DAYS - 2 - store.cleaning.future_tolerance_days


def _carried(history: ir.Table, rows: ir.Table) -> ir.Table:
    """The newest event of each of the window's users from before the window, and its session."""
    import ibis

    theirs = history.semi_join(rows, "user_id")
    newest = ibis.struct({"at": theirs.event_at, "landed": theirs.landed_date, "row": theirs.raw_row_id, "session": theirs.session_id}).max()
    last = theirs.group_by("user_id").agg(newest=newest)
    return last.select(
        "user_id", event_at=last.newest.at, landed_date=last.newest.landed, session_id=last.newest.session, raw_row_id=last.newest.row
    )


def _anchored(staging: Staging, placed: ir.Table) -> ir.Table:
    """Rows with `name`: the session given to the event that started theirs, else the digest of user and start."""
    import ibis

    fresh = hexadecimal(row_hash({"user": placed.user_id, "start": placed.started_at}))
    anchors = placed.filter(placed.given.notnull(), ~placed.late).select(
        anchor_user="user_id", anchor_at="event_at", anchor_landed="landed_date", anchor_row="raw_row_id", anchor_session="given"
    )
    anchors = staging.keep(anchors, "anchors")
    if not rows_in(anchors):
        return placed.mutate(name=ibis.coalesce(placed.given, fresh))
    followers = placed.filter(placed.given.isnull(), ~placed.late)
    joined = followers.join(
        anchors,
        [
            followers.user_id == anchors.anchor_user,
            followers.started_at == anchors.anchor_at,
            followers.landed_date >= anchors.anchor_landed,
        ],
    )
    rank = ibis.struct({"landed": joined.anchor_landed, "row": joined.anchor_row})
    found = joined.group_by(follower=joined.position).agg(anchor_session=joined.anchor_session.argmax(rank))
    matched = placed.left_join(found, placed.position == found.follower)
    fresh = hexadecimal(row_hash({"user": matched.user_id, "start": matched.started_at}))
    return matched.select(*placed.columns, name=ibis.coalesce(matched.given, matched.anchor_session, fresh))


def _late_sessions(staging: Staging, late: ir.Table, known: ir.Table, gap: Any) -> ir.Table:
    """position, session_id, is_late of events that came late; `known` are events on time of any landed day."""
    import ibis

    other = known.select(
        other_user="user_id", other_landed="landed_date", other_at="event_at", other_session="session_id", other_row="raw_row_id"
    )
    joined = late.join(other, [late.user_id == other.other_user, other.other_landed < late.landed_date])
    joined = joined.filter(
        joined.other_landed > (joined.landed_date - ibis.interval(days=LATE_DAYS)).cast("date"),
        joined.other_at >= joined.event_at - gap,
        joined.other_at <= joined.event_at + gap,
    )
    rank = ibis.struct({"at": joined.other_at, "landed": joined.other_landed, "row": joined.other_row})
    is_before = joined.other_at <= joined.event_at
    found = joined.group_by(late_position=joined.position).agg(
        before=joined.other_session.argmax(rank, where=is_before), after=joined.other_session.argmin(rank, where=~is_before)
    )
    matched = late.left_join(found, late.position == found.late_position)
    matched = staging.keep(
        matched.mutate(session_id=ibis.coalesce(matched.before, matched.after)).select(
            "position", "user_id", "landed_date", "event_at", "raw_row_id", "session_id"
        ),
        "late_matched",
    )
    joined_in = matched.filter(matched.session_id.notnull()).select("position", "session_id", is_late=ibis.literal(True))
    alone = matched.filter(matched.session_id.isnull()).drop("session_id")
    by_batch = [alone.user_id, alone.landed_date]
    alone = alone.mutate(
        previous=alone.event_at.lag().over(ibis.window(group_by=by_batch, order_by=[alone.event_at, alone.raw_row_id]))
    )
    starts = alone.previous.isnull() | (alone.event_at > alone.previous + gap)
    alone = alone.mutate(starts_at=ibis.ifelse(starts, alone.event_at, None))
    window = ibis.window(
        group_by=[alone.user_id, alone.landed_date], order_by=[alone.event_at, alone.raw_row_id], preceding=(None, 0)
    )
    alone = alone.mutate(started_at=alone.starts_at.max().over(window))
    name = hexadecimal(row_hash({"user": alone.user_id, "start": alone.started_at, "landed": alone.landed_date}))
    return joined_in.union(alone.select("position", session_id=name, is_late=ibis.literal(True)))
