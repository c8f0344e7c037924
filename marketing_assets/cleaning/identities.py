"""Who a user is, as far as was known on a landed day.

What belongs here: the table of persons that cleaning joins to events and impressions. What features do with the history
of a user who turns out to be another is theirs.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from marketing_assets.cleaning.accepted import accepted_landed
from marketing_assets.sources.engine import Staging, rows_in

if TYPE_CHECKING:
    import ibis.expr.types as ir


CHAIN_LENGTH = 4
"""How many identities in a row are followed, such as cookie -> account -> customer."""


def links(rows: ir.Table) -> ir.Table:
    """identity_id, since, to_user_id: whom an identity is first said to be; what was merged stays merged."""
    rows = rows.filter(rows.from_user_id != rows.user_id)
    first = rows.group_by("from_user_id").agg(since=rows.landed_date.min())
    joined = rows.join(first, [rows.from_user_id == first.from_user_id, rows.landed_date == first.since])
    return joined.group_by(identity_id=joined.from_user_id, since=joined.since).agg(to_user_id=joined.user_id.min())


def persons(staging: Staging, new_links: ir.Table | None, start: date, end: date) -> ir.Table | None:
    """identity_id, since, until, person_id: who an identity is on landed days since...until; None where nobody is another.

    new_links: accepted identities of the window itself (from_user_id, user_id, landed_date), which the warehouse does not
    hold as accepted yet.
    """
    import ibis

    reader = staging.reader
    if not reader.has_source("identities"):
        return None
    parts = []
    if start > reader.store.first_day and rows_in(reader.table("raw_identities").limit(1)):
        parts.append(
            accepted_landed(reader, "identities", None, start - timedelta(days=1)).select(
                "from_user_id", "user_id", "landed_date"
            )
        )
    if new_links is not None:
        parts.append(new_links.select("from_user_id", "user_id", "landed_date"))
    if not parts:
        return None
    every = staging.keep(links(ibis.union(*parts) if len(parts) > 1 else parts[0]), "links")
    if not rows_in(every):
        return None
    path = every.mutate(depth=ibis.literal(0, type="int64"))
    steps = [path]
    follow = every.select(next_from="identity_id", next_since="since", next_to="to_user_id")
    for depth in range(1, CHAIN_LENGTH):
        joined = path.join(follow, path.to_user_id == follow.next_from)
        path = joined.filter(joined.next_to != joined.identity_id).select(
            "identity_id",
            since=ibis.greatest(joined.since, joined.next_since),
            to_user_id=joined.next_to,
            depth=ibis.literal(depth, type="int64"),
        )
        steps.append(path)
    stacked = ibis.union(*steps)
    best = stacked.group_by("identity_id", "since").agg(person_id=stacked.to_user_id.argmax(stacked.depth))
    by_identity = ibis.window(group_by=best.identity_id, order_by=best.since)
    until: Any = best.since.lead().over(by_identity)
    return staging.keep(best.mutate(until=until.fill_null(ibis.date(9999, 12, 31))), "persons")


def as_persons(rows: ir.Table, known: ir.Table | None) -> ir.Table:
    """Rows with user_id replaced by the person as known on their landed_date."""
    import ibis

    if known is None:
        return rows
    joined = rows.left_join(
        known,
        [rows.user_id == known.identity_id, rows.landed_date >= known.since, rows.landed_date < known.until],
    )
    person = ibis.coalesce(joined.person_id, joined.user_id)
    return joined.select(**{name: person if name == "user_id" else joined[name] for name in rows.columns})
