"""Item features: what has happened with each item so far.

What belongs here: totals per item and the columns that follow from them. What does not: the catalogue (items.py) and the
daily history itself (item_days.py), of which these are the sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

from marketing_assets.config import Store
from marketing_assets.features.running import Decay, State, carried, day_literal, due_days, earlier_entries, entries, weight
from marketing_assets.schemas import TABLES
from marketing_assets.warehouse import Built

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from marketing_assets.warehouse import Reader

ITEMS = State(
    entity=("item_id",),
    counts=("selling_days", "units_sold", "units_returned", "orders", "views", "carts", "reviews", "ratings"),
    money=("revenue", "gross_revenue"),
    reals=("rating_total",),
    earliest=("first_seen_date",),
    latest=("last_seen_date", "last_sold_date"),
    decayed={
        "units_decayed_7": Decay("units_sold", 7),
        "units_decayed_30": Decay("units_sold", 30),
        "units_decayed_90": Decay("units_sold", 90),
        "views_decayed_7": Decay("views", 7),
        "views_decayed_30": Decay("views", 30),
    },
)


def build_item_features(reader: Reader, days: Sequence[date], store: Store) -> Built:
    """item_features of a contiguous window of days.

    Reads item_days of the window and the own log back to the last keyframe before it.
    """
    return Built({"item_features": item_features(reader, days, store)})


def item_features(reader: Reader, days: Sequence[date], store: Store) -> ir.Table:
    """The entries of the window as an expression with the columns of item_features."""
    import ibis

    start = days[0]
    landed = item_increments(reader, days)
    only = None if due_days(days, store)[0] else landed.select("item_id").distinct()
    before = earlier_entries(reader, "item_features", start, "item_id", only=only)
    if before is not None:
        before = carried(ITEMS, before.mutate(rating_total=(before.mean_rating * before.ratings).fill_null(0.0)), start)
    found = entries(ITEMS, landed, before, days, store)
    units = found.units_sold.nullif(0).cast("float64")
    return found.mutate(
        mean_rating=found.rating_total / found.ratings.nullif(0).cast("float64"),
        mean_unit_price=ibis.ifelse(found.units_sold > 0, found.gross_revenue.cast("float64") / units, None),
    ).select(*TABLES["item_features"].columns)


def item_increments(reader: Reader, days: Sequence[date]) -> ir.Table:
    """What landed by item and day, columns of ITEMS."""
    history = reader.table("item_days")
    history = history.filter(history.landed_date.between(day_literal(days[0]), day_literal(days[-1])))
    is_sold = history.orders > 0
    added = (
        "units_sold",
        "units_returned",
        "orders",
        "views",
        "carts",
        "reviews",
        "ratings",
        "revenue",
        "gross_revenue",
        "rating_total",
    )
    return history.group_by("item_id", day=history.landed_date).agg(
        selling_days=is_sold.any().cast("int64"),
        first_seen_date=history.event_date.min(),
        last_seen_date=history.event_date.max(),
        last_sold_date=history.event_date.max(where=is_sold),
        **{name: history[name].sum() for name in added},
        **{
            name: (history[decay.value].cast("float64") * weight(history.event_date, days[0], decay.half_life)).sum()
            for name, decay in ITEMS.decayed.items()
        },
    )
