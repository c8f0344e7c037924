"""Which audience an impression counts for: one answer for rates, plans' promises and what is made of both afterwards.

What belongs here: the look-up, as an expression over impressions and the audiences log. What does not: who is in which
audience (profiles).
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

from marketing_assets.config import KEYFRAME_DAYS, LATE_DAYS, UNKNOWN_USER
from marketing_assets.warehouse import Reader

if TYPE_CHECKING:
    import ibis.expr.types as ir


def with_audience(shown: ir.Table, entries: ir.Table, anchor: date) -> ir.Table:
    """`shown` with its audience_id filled: its own, else the user's first by priority as of the day before, else 'unknown'.

    shown: user_id, audience_id, impression_date and more. entries: audiences rows from `entries_since` on. anchor: the day
    keyframes are counted from.
    """
    return filled(shown, audiences_of(shown, entries, anchor))


def filled(shown: ir.Table, found: ir.Table) -> ir.Table:
    """`with_audience` by what `audiences_of` found."""
    import ibis

    joined = shown.left_join(found, ["user_id", "impression_date"])
    return joined.mutate(audience_id=ibis.coalesce(joined.audience_id, joined.of_user, UNKNOWN_USER)).select(shown.columns)


def audiences_of(shown: ir.Table, entries: ir.Table, anchor: date) -> ir.Table:
    """user_id, impression_date, of_user: the audience of users on days they were shown something without one."""
    named = named_until(entries, anchor)
    wanted = shown.filter(shown.audience_id.isnull(), shown.user_id.notnull()).select("user_id", "impression_date").distinct()
    return wanted.inner_join(
        named,
        [wanted.user_id == named.user_id, wanted.impression_date > named.as_of_date, wanted.impression_date <= named.until],
    ).select("user_id", "impression_date", "of_user")


def named_until(entries: ir.Table, anchor: date) -> ir.Table:
    """user_id, as_of_date, until, of_user (null: in none), is_holdout: a user's first audience by priority from an entry on.

    An entry counts until the user's next one or the next keyframe, which names everyone still there.
    """
    import ibis

    first = entries.group_by("as_of_date", "user_id").agg(
        of_user=entries.audience_id.first(order_by=[entries.priority, entries.audience_id], include_null=True),
        is_holdout=entries.is_holdout.any(),
    )
    following = first.as_of_date.lead().over(group_by=first.user_id, order_by=first.as_of_date)
    start = ibis.literal(anchor)
    passed = ibis.greatest((first.as_of_date.delta(start, unit="day") / KEYFRAME_DAYS).floor() + 1, 0).cast("int64")
    keyframe = (start + (passed * KEYFRAME_DAYS).as_interval("D")).cast("date")
    return first.mutate(until=ibis.least(ibis.coalesce(following, keyframe), keyframe))


def entries_since(reader: Reader, start: date) -> date:
    """The first day of audiences rows that impressions landed from `start` on need: the keyframe before the latest of late ones."""
    return reader.keyframe_before(max(start - timedelta(days=LATE_DAYS + 1), reader.store.first_day))
