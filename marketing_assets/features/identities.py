"""Users who turn out to be other users.

What belongs here: which user's history belongs to whom from which day on. What does not: who is who in an event
(cleaning), nor what a history holds.

When an identity (from -> to) lands on D, all that `from` had gathered by then is added to what `to` has, from D on, and
`from` has no further entries. Counts of days add up, so a day on which both were active counts twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

from marketing_assets.cleaning import accepted_landed
from marketing_assets.config import Store
from marketing_assets.features.running import State, day_literal, due_days, stack

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from marketing_assets.warehouse import Reader

CHAIN_LENGTH = 4
"""How many identities in a row are followed, such as cookie -> account -> customer."""


def moves(reader: Reader, days: Sequence[date]) -> ir.Table | None:
    """user_id, moved_date, to_user_id: from which day on whom a user's history belongs to; None without identities.

    A user of a chain has a row per day on which the end of the chain, as far as known, changes.
    """
    import ibis

    if not reader.has_source("identities"):
        return None
    rows = accepted_landed(reader, "identities", None, days[-1])
    rows = rows.filter(rows.from_user_id != rows.user_id)
    # the first landing counts: what was merged stays merged, and a full dump each day moves nobody twice
    first = rows.group_by("from_user_id").agg(moved_date=rows.landed_date.min())
    links = first.join(rows, [first.from_user_id == rows.from_user_id, first.moved_date == rows.landed_date])
    links = links.group_by(user_id=links.from_user_id, moved_date=links.moved_date).agg(to_user_id=links.user_id.min())
    path = links.mutate(depth=0)
    steps = [path]
    follow = links.select(link_from="user_id", link_date="moved_date", link_to="to_user_id")
    for depth in range(1, CHAIN_LENGTH):
        joined = path.join(follow, path.to_user_id == follow.link_from)
        path = joined.filter(joined.link_to != joined.user_id).select(
            "user_id",
            moved_date=ibis.greatest(joined.moved_date, joined.link_date),
            to_user_id=joined.link_to,
            depth=ibis.literal(depth),
        )
        steps.append(path)
    every = stack(steps, {"user_id": "string", "moved_date": "date", "to_user_id": "string", "depth": "int64"})
    return every.group_by("user_id", "moved_date").agg(to_user_id=every.to_user_id.argmax(every.depth))


def needed_users(increments: ir.Table, days: Sequence[date], store: Store, moved: ir.Table | None) -> ir.Table | None:
    """user_id: whose earlier entries a window needs; None for everyone's, where the window has a re-issue day.

    On other days: of those who did something, who moved, and whom they moved to.
    """
    if due_days(days, store)[0]:
        return None
    if moved is None:
        return increments.select("user_id").distinct()
    now = moved.filter(moved.moved_date.between(day_literal(days[0]), day_literal(days[-1])))
    owners = moved.semi_join(increments, "user_id")
    parts = [
        increments.select("user_id"),
        now.select("user_id"),
        now.select(user_id="to_user_id"),
        owners.select(user_id="to_user_id"),
    ]
    return stack(parts, {"user_id": "string"}).distinct()


def first_moves(moved: ir.Table) -> ir.Table:
    """user_id, moved_date: the day from which a user has no more entries of their own."""
    return moved.group_by("user_id").agg(moved_date=moved.moved_date.min())


def with_moves(
    state: State, increments: ir.Table, before: ir.Table | None, moved: ir.Table, days: Sequence[date]
) -> tuple[ir.Table, ir.Table | None]:
    """Increments and earlier entries with the moves of the window played out.

    A row of a user moved later is repeated for the new owner on the day of the move; one of a user already moved goes to
    the owner; rows of one owner and day are merged. Earlier entries of users moved before the window are dropped: their new
    owners' entries hold them.
    """
    import ibis

    others = [key for key in state.entity if key != "user_id"]
    types = {**dict.fromkeys(state.entity, "string"), "day": "date", **state.types}
    plan = moved.select(mover="user_id", moved_date="moved_date", owner="to_user_id")
    rows = increments
    if before is not None:
        first = first_moves(moved).select(mover="user_id", first_date="moved_date")
        kept = before.left_join(first, before.user_id == first.mover)
        before = kept.filter(kept.first_date.isnull() | (kept.first_date >= day_literal(days[0]))).select(*before.columns)
        rows = stack([increments, before], types)
    # whose the row is on its own day: the newest move up to then
    joined = increments.left_join(plan, [increments.user_id == plan.mover, increments.day >= plan.moved_date])
    numbered = joined.mutate(newest=joined.moved_date.max().over(ibis.window(group_by=[joined.user_id, joined.day])))
    own = numbered.filter(numbered.moved_date.isnull() | (numbered.moved_date == numbered.newest)).select(
        *others, "day", *state.types, user_id=ibis.coalesce(numbered.owner, numbered.user_id)
    )
    later = rows.join(plan, [rows.user_id == plan.mover, rows.day < plan.moved_date])
    later = later.filter(later.moved_date.between(day_literal(days[0]), day_literal(days[-1]))).select(
        *others, *state.types, user_id=later.owner, day=later.moved_date
    )
    rows = stack([own, later], types)
    return rows.group_by(*state.entity, "day").agg(**{name: state.merged(rows[name]) for name in state.types}), before
