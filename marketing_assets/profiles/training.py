"""What the profile models learn from: users as they looked on past days, and what they did afterwards.

What belongs here: origins, outcomes, weights by age, who is held out. What does not: the models.

A row is a user's feature entry on a past re-issue day O (the log holds everyone then). Its outcome over (O, O + h] counts
only where O + h <= D, the day of the fit, and only from events that had landed by D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np
import polars as pl

from marketing_assets.config import REISSUE_DAYS, Store
from marketing_assets.model_store import held_out
from marketing_assets.profiles.linear import Floats
from marketing_assets.profiles.matrix import COLUMNS, at_reading_day
from marketing_assets.warehouse import Reader

HISTORY_DAYS = 365
"""How far back origins lie at most."""
MAX_ORIGINS = 40
LEVEL_ORIGINS = 6
"""Origins that the weekly move of the level looks at."""
MAX_ROWS = 250_000
"""Rows beyond this are thinned by dropping users by hash, whole users at a time."""


@dataclass(frozen=True)
class Past:
    """What a window's fits may see: entries on re-issue days, and order days with what was spent and when it landed.

    entries: COLUMNS and is_held_out (users no fit learns from), sorted by as_of_date, user_id.
    orders: user_id, event_date, landed_date, orders, revenue (net).
    """

    entries: pl.DataFrame
    orders: pl.DataFrame
    _totals: dict[date, pl.DataFrame] = field(default_factory=dict, repr=False)

    def totals(self, day: date) -> pl.DataFrame:
        """running_totals of the orders that had landed by `day`; several models of one day ask for the same."""
        if day not in self._totals:
            self._totals.clear()
            self._totals[day] = running_totals(self.orders.filter(pl.col("landed_date") <= day))
        return self._totals[day]


def origin_days(store: Store, day: date) -> list[date]:
    """Re-issue days up to `day`, newest first, at most HISTORY_DAYS back and MAX_ORIGINS many."""
    found: list[date] = []
    candidate = day
    while candidate >= max(store.first_day, day - timedelta(days=HISTORY_DAYS)) and len(found) < MAX_ORIGINS:
        if store.is_cadence_day(candidate, REISSUE_DAYS):
            found.append(candidate)
        candidate -= timedelta(days=1)
    return found


def read_past(
    reader: Reader,
    store: Store,
    fit_days: Sequence[date],
    shortest_horizon: int,
    level_days: Sequence[date],
    horizons: Sequence[int],
) -> Past:
    """Everything the fits of a window need, read once.

    fit_days: days of full fits, which look back over all origins. level_days: days on which only the level moves, which look
    at the LEVEL_ORIGINS newest origins that are mature over each of `horizons`.
    """
    wanted = {day for fit in fit_days for day in origin_days(store, fit - timedelta(days=shortest_horizon))}
    wanted |= {
        day
        for level in level_days
        for horizon in horizons
        for day in origin_days(store, level - timedelta(days=horizon))[:LEVEL_ORIGINS]
    }
    origins = sorted(wanted)
    last = max([*fit_days, *level_days])
    earliest = origins[0] if origins else last
    if origins:
        features = reader.table("user_features")
        chosen = features.filter(features.as_of_date.isin(origins)).select(*COLUMNS)
        entries = reader.frame(chosen).sort("as_of_date", "user_id")
    else:
        entries = reader.window("user_features", last, last, COLUMNS).clear()
    entries = at_reading_day(entries).with_columns(is_held_out=held_out(entries["user_id"]))
    return Past(entries, read_orders(reader, earliest, last))


def read_orders(reader: Reader, start: date, end: date) -> pl.DataFrame:
    """Orders and net spend by user, event day and landing day, landed after `start`, by people and not for fees alone."""
    events = reader.table("clean_events")
    ours = events.filter(
        events.landed_date > start,
        events.landed_date <= end,
        events.user_id.notnull(),
        ~events.is_bot,
        events.event_type.isin(["purchase", "refund"]),
    )
    is_order = (ours.event_type == "purchase") & ~ours.is_service
    daily = ours.group_by("user_id", "event_date", "landed_date").agg(
        orders=is_order.cast("int64").sum(), revenue=ours.revenue.sum().cast("float64")
    )
    frame = reader.frame(daily)
    return frame.with_columns(pl.col("orders").cast(pl.Int64), pl.col("revenue").cast(pl.Float64).round(4)).sort(
        "user_id", "event_date", "landed_date"
    )


@dataclass(frozen=True)
class Training:
    """Mature rows for one fit. entries: feature entries, as_of_date the origin; outcome, age_days, is_held_out: per row."""

    entries: pl.DataFrame
    outcome: Floats
    age_days: Floats
    is_held_out: np.ndarray

    def __len__(self) -> int:
        return self.entries.height

    def weight(self, half_life_days: float) -> Floats:
        """1 for the newest origin, halved every half_life_days; rounded."""
        if not len(self):
            return np.zeros(0)
        return np.asarray(np.round(0.5 ** ((self.age_days - self.age_days.min()) / half_life_days), 9), dtype=np.float64)

    def where(self, mask: np.ndarray) -> Training:
        """The rows the mask keeps."""
        return Training(self.entries.filter(pl.Series(mask)), self.outcome[mask], self.age_days[mask], self.is_held_out[mask])

    @property
    def days(self) -> list[date]:
        """Distinct origins, oldest first."""
        return self.entries["as_of_date"].unique().sort().to_list()


def mature_rows(past: Past, store: Store, day: date, horizon_days: int, measure: str, newest: int = MAX_ORIGINS) -> Training:
    """Rows whose outcome over `horizon_days` is complete by `day`.

    measure: 'ordered' (1 where the user ordered) or 'revenue' (net spend, money as a float). newest: origins at most.
    """
    last = day - timedelta(days=horizon_days)
    origins = origin_days(store, last)[:newest]
    entries = past.entries.filter(pl.col("as_of_date").is_in(origins))
    if entries.height > MAX_ROWS:
        from marketing_assets.assignment import salted_share

        entries = entries.filter(salted_share(entries["user_id"], "profile-training-1") < MAX_ROWS / entries.height)
    frame = outcomes(entries, past.totals(day), horizon_days)
    age = frame.select(age=(pl.lit(day) - pl.col("as_of_date")).dt.total_days().cast(pl.Float64))["age"]
    return Training(
        frame.drop("ordered", "revenue_after", "is_held_out"),
        frame["ordered" if measure == "ordered" else "revenue_after"].to_numpy().astype(np.float64),
        age.to_numpy(),
        frame["is_held_out"].to_numpy().astype(bool),
    )


def running_totals(orders: pl.DataFrame) -> pl.DataFrame:
    """user_id, event_date, order_days (days with an order) and revenue (net spend, money), both summed up to that day.

    orders: user_id, event_date, orders, revenue. Sorted by day.
    """
    daily = (
        orders.group_by("user_id", "event_date")
        .agg(order_days=(pl.col("orders").sum() > 0).cast(pl.Float64), revenue=pl.col("revenue").sum().round(4))
        .sort("user_id", "event_date")
    )
    totals = (pl.col(name).cum_sum().over("user_id").round(4) for name in ("order_days", "revenue"))
    return daily.select("user_id", "event_date", *totals).sort("event_date", maintain_order=True)


def running_at(entries: pl.DataFrame, running: pl.DataFrame, days_ahead: int) -> tuple[Floats, Floats]:
    """Per row of entries, the user's order days and revenue through as_of_date + days_ahead; differences give a span.

    running: of running_totals.
    """
    asked = (
        entries.select("user_id", until=pl.col("as_of_date") + pl.duration(days=days_ahead)).with_row_index("row").sort("until")
    )
    joined = asked.join_asof(
        running, left_on="until", right_on="event_date", by="user_id", strategy="backward", check_sortedness=False
    ).sort("row")
    order_days, revenue = (joined[name].fill_null(0.0).to_numpy().astype(np.float64) for name in ("order_days", "revenue"))
    return order_days, revenue


def outcomes(entries: pl.DataFrame, running: pl.DataFrame, horizon_days: int) -> pl.DataFrame:
    """entries with `ordered` (0 or 1) and `revenue_after` over (as_of_date, as_of_date + horizon_days], same order of rows.

    entries: as_of_date, user_id. running: of running_totals.
    """
    before, after = running_at(entries, running, 0), running_at(entries, running, horizon_days)
    days, money = after[0] - before[0], after[1] - before[1]
    return entries.with_columns(ordered=pl.Series((days > 0).astype(np.float64)), revenue_after=pl.Series(np.round(money, 4)))
