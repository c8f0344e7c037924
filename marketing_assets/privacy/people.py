"""What is a person's in each input, and rows without those who asked to be forgotten.

What belongs here: which rows go and which stay without their person, the same for rows in the warehouse and for rows read again.
What does not: the other tables (erase.py).

Events, impressions, conversions and surveys stay, because the shop's totals rest on them: without user, session, words and
device they are about nobody, and no two of them can be joined to one person. Numbers of orders, events and impressions stay:
they name entries of the shop's books, not people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from marketing_assets.privacy.marks import read_marks
from marketing_assets.schemas import INPUTS

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from marketing_assets.sources.engine import Staging

BLANKED: dict[str, tuple[str, ...]] = {
    "events": ("user_id", "session_id", "review_text", "search_query", "device"),
    "impressions": ("user_id", "opportunity_id", "context"),
    "conversions": ("user_id",),
    "surveys": ("user_id",),
}
"""Input -> columns that are emptied in rows of an erased user."""
REMOVED: dict[str, tuple[str, ...]] = {
    "contacts": ("user_id",),
    "identities": ("from_user_id", "user_id"),
    "erasures": ("user_id",),
}
"""Input -> columns that name a user; a row that names an erased one goes."""


def without_erased(staging: Staging, rows: ir.Table | pl.DataFrame, source: str) -> ir.Table | pl.DataFrame:
    """Raw rows of an input as they may be published: those of erased users blanked or left out."""
    import ibis

    if source not in BLANKED and source not in REMOVED:
        return rows
    marks = read_marks(staging.reader.store)
    if not marks.erased or isinstance(rows, pl.DataFrame):  # a frame: no rows at all
        return rows
    listed = staging.keep(pl.DataFrame({"erased_hash": sorted(marks.erased)}), "erased")
    if source in REMOVED:
        for name in REMOVED[source]:
            names = listed.view()  # of its own: a second join would not know which of the two is meant
            rows = rows.anti_join(names, (ibis.literal(marks.salt) + rows[name]).hexdigest("sha256") == names.erased_hash)
        return rows
    joined = rows.left_join(listed, (ibis.literal(marks.salt) + rows.user_id).hexdigest("sha256") == listed.erased_hash)
    is_erased = joined.erased_hash.notnull()
    return joined.select(
        **{
            name: ibis.ifelse(is_erased, ibis.null("string"), joined[name]) if name in BLANKED[source] else joined[name]
            for name in rows.columns
        }
    )


assert all(set(columns) <= set(INPUTS[source].columns) for source, columns in {**BLANKED, **REMOVED}.items())
