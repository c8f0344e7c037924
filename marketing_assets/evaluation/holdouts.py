"""What the system itself brings: everyone else against the users held out by salted hash.

What belongs here: experiment_report from the holdouts of ads (audiences) and lists (recommendations). What does not: the
statistics (experiments.py).

Holdouts never end, so they are reported in periods of PERIOD_DAYS counted from the cadence anchor; sequential intervals hold
over all looks within a period. A user counts from the day after the first entry that stated the assignment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from marketing_assets.config import KEYFRAME_DAYS, UNKNOWN_USER, Store
from marketing_assets.evaluation.queries import Tables, query
from marketing_assets.experiments import Comparison, compare_with_past, detectable_uplift, sample_ratio
from marketing_assets.intervals import Floats
from marketing_assets.warehouse import Reader, polars_schema

Ints = npt.NDArray[np.int64]

PERIOD_DAYS = 84
BEFORE_DAYS = 84
MINIMUM_USERS = 20
"""Fewest users of an arm for a comparison to be reported."""


def look_back(store: Store) -> int:
    """Days of events, audiences and recommendations read before the first day of a window."""
    return PERIOD_DAYS + max(BEFORE_DAYS, KEYFRAME_DAYS) + 1


def period_start(day: date, store: Store) -> date:
    """The day before the first outcome day of the period that holds `day`."""
    return max(store.first_day, store.anchor + timedelta(days=((day - store.anchor).days - 1) // PERIOD_DAYS * PERIOD_DAYS))


def score_holdouts(reader: Reader, days: Sequence[date], store: Store) -> pl.DataFrame:
    """experiment_report rows."""
    schema = polars_schema("experiment_report")
    experiments = {
        "ads_holdout": ("audiences", store.profiles.holdout_share),
        "recommendations_holdout": ("recommendations", store.recommendations.holdout_share),
    }
    periods: dict[date, list[date]] = {}
    for day in days:
        if day > (start := period_start(day, store)):
            periods.setdefault(start, []).append(day)
    rows: list[dict[str, Any]] = []
    for start, members in sorted(periods.items()):
        orders = read_orders(reader, start - timedelta(days=BEFORE_DAYS), members[-1])
        for experiment, (table, share) in experiments.items():
            if share > 0:
                trial = Trial.of(read_assignment(reader, table, start, members[-1]), orders, start)
                for day in members:
                    rows += compare_day(trial, start, day, share, experiment, store.evaluation.interval)
    return pl.DataFrame(rows, schema=schema)


def read_orders(reader: Reader, start: date, end: date) -> pl.DataFrame:
    """landed_date, event_date, user_id, orders, revenue (refunds taken off) of people, without services."""
    return orders_query(reader, start, end).sort("event_date", "user_id", "landed_date")


@query
def orders_query(table: Tables, start: date, end: date) -> Any:
    import ibis

    events = table("clean_events")
    money = events.filter(
        events.landed_date.between(start, end),
        events.event_type.isin(["purchase", "refund"]),
        ~events.is_bot,
        ~events.is_service,
        events.user_id.notnull(),
    )
    order = ibis.coalesce(money.order_id, money.session_id, money.event_id)
    return (
        money.mutate(bought=ibis.ifelse(money.event_type == "purchase", order, ibis.null("string")))
        .group_by("landed_date", "event_date", "user_id")
        .agg(orders=lambda t: t.bought.nunique(), revenue=lambda t: t.revenue.sum().cast("float64"))
    )


@query
def assignment_query(table: Tables, name: str, start: date, end: date) -> Any:
    log = table(name)
    log = log.filter(log.as_of_date.between(start, end), log.user_id != UNKNOWN_USER)
    return log.group_by("user_id", "is_holdout").agg(since=log.as_of_date.min())


def read_assignment(reader: Reader, table: str, start: date, end: date) -> pl.DataFrame:
    """user_id, since (first day the assignment was in force, at the earliest the period's start), is_holdout."""
    states = assignment_query(reader, table, reader.keyframe_before(start), end)
    return states.sort("user_id", "since", "is_holdout").with_columns(pl.max_horizontal("since", pl.lit(start, pl.Date)))


@dataclass(frozen=True)
class Trial:
    """Users of one experiment and period and what they did, days counted from the period's start.

    since: first day a user's arm was in force; crossed: day the other arm was, past every day where it never was.
    """

    since: Ints
    crossed: Ints
    is_held: npt.NDArray[np.bool_]
    user: Ints
    event_day: Ints
    landed_day: Ints
    orders: Floats
    revenue: Floats

    @staticmethod
    def of(states: pl.DataFrame, orders: pl.DataFrame, start: date) -> Trial:
        """states: user_id, since, is_holdout sorted by user and since; orders as from `read_orders`."""

        def days(column: str) -> pl.Expr:
            return (pl.col(column) - start).dt.total_days()

        users = states.group_by("user_id", maintain_order=True).agg(
            since=days("since").first(),
            crossed=days("since").get(1, null_on_oob=True).fill_null(10**6),
            is_held=pl.col("is_holdout").first(),
        )
        rows = orders.join(users.select("user_id").with_row_index("user"), on="user_id", how="inner", maintain_order="left")
        rows = rows.with_columns(event_day=days("event_date"), landed_day=days("landed_date"))
        whole = [rows[name].cast(pl.Int64).to_numpy() for name in ("user", "event_day", "landed_day")]
        money = [rows[name].cast(pl.Float64).to_numpy() for name in ("orders", "revenue")]
        return Trial(users["since"].to_numpy(), users["crossed"].to_numpy(), users["is_held"].to_numpy(), *whole, *money)


def compare_day(trial: Trial, start: date, day: date, share: float, experiment: str, level: float) -> list[dict[str, Any]]:
    """Rows of one experiment on one day: conversion, orders and revenue per user, plain and with CUPED.

    Users seen in both arms are left out and counted as crossovers. Nothing where an arm has fewer than MINIMUM_USERS, or where nobody of
    either has bought: an interval from zero to zero would say that there is no effect.
    """
    today = (day - start).days
    has_crossed = (trial.since < today) & (trial.crossed < today)
    included = (trial.since < today) & ~has_crossed
    held = trial.is_held[included]
    if min(held.sum(), (~held).sum()) < MINIMUM_USERS:
        return []
    known = (trial.landed_day <= today) & (trial.event_day <= today)
    after = known & (trial.event_day > trial.since[trial.user])
    earlier = known & (trial.event_day > -BEFORE_DAYS) & (trial.event_day <= 0)

    def per_user(rows: npt.NDArray[np.bool_], values: Floats) -> Floats:
        return np.bincount(trial.user[rows], values[rows], trial.since.size).astype(np.float64)[included]

    bought, before = per_user(after, trial.orders), per_user(earlier, trial.orders)
    if not bought.any():
        return []
    outcomes = {
        # how often someone bought says more of whether they will again than that they did
        "conversion": ((bought > 0).astype(float), np.log1p(before)),
        "orders": (bought, before),
        "revenue": (per_user(after, trial.revenue), per_user(earlier, trial.revenue)),
    }
    ratio = sample_ratio(int(held.sum()), held.size, share)
    rows = []
    for metric, (outcome, past) in outcomes.items():
        plain, reduced = compare_with_past(outcome, ~held, past, level=level)
        for method, comparison in (("plain", plain), ("cuped", reduced)):
            rows.append(
                {
                    "as_of_date": day,
                    "experiment": experiment,
                    "metric": metric,
                    "method": method,
                    "start_date": start + timedelta(days=1),
                    "end_date": day,
                    **_values(comparison),
                    "crossover_users": int(has_crossed.sum()),
                    "expected_control_share": share,
                    "sample_ratio_p_value": ratio.p_value,
                    "is_sample_ratio_ok": ratio.is_ok,
                    "minimum_detectable_uplift": detectable_uplift(
                        held.size,
                        float(outcome.var()),
                        control_share=float(held.mean()),
                        level=level,
                        variance_reduction=max(0.0, comparison.variance_reduction),
                    ),
                }
            )
    return rows


def _values(comparison: Comparison) -> dict[str, float | int | None]:
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value for name, value in vars(comparison).items()
    }
