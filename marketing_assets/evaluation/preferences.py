"""Whether people look at what their profile says they lean to.

What belongs here: preferred_category_rate of `profiles`, beside one category for everybody. What does not: making preferences
(features), and whether lists name what people buy (lists.py).

Of the items a user looked at or bought in the window (distinct, no services), the share of the category that `user_profiles` in
force at issued_date calls preferred, over all users with one. The baseline is the best a single category could do on the same
looks, chosen in hindsight. People look at ten things for each one they buy, so a change of taste shows here first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import polars as pl

from marketing_assets.config import UNKNOWN_USER, Store
from marketing_assets.evaluation.business import with_category
from marketing_assets.evaluation.lists import known_within, list_windows
from marketing_assets.evaluation.queries import Tables, query
from marketing_assets.evaluation.windows import CELL, Arrival, empty_report, finish, in_force
from marketing_assets.intervals import clustered
from marketing_assets.warehouse import Reader

METRIC = "preferred_category_rate"


def score_preferences(reader: Reader, days: Sequence[date], store: Store, seen: Arrival) -> pl.DataFrame:
    """Report rows of the metric preferred_category_rate of 'profiles', over all users with a preference."""
    windows = list_windows(days, store, seen)
    if windows.height == 0:
        return empty_report()
    first: date = windows["start_date"].min()  # type: ignore[assignment]
    chosen = with_category(reader, chosen_query(reader, first - timedelta(days=1), first, days[-1]), days[-1]).drop_nulls("category")
    issued: date = windows["issued_date"].min()  # type: ignore[assignment]
    leanings = leanings_query(reader, reader.keyframe_before(issued), days[-1])
    looks = known_within(windows, chosen).unique(["window", "user_id", "item_id"], keep="any")
    looks = in_force(reader, looks.join(windows.select("window", "issued_date"), on="window"), leanings, by="user_id")
    looks = looks.drop_nulls("preferred_category")
    if looks.is_empty():
        return empty_report()
    rates = clustered(
        looks.select(
            "window", cluster="user_id", num=(pl.col("category") == pl.col("preferred_category")).cast(pl.Float64), den=pl.lit(1.0)
        ),
        ["window"], "rate",
        level=store.evaluation.interval, replicates=store.evaluation.bootstrap_replicates, seed=store.seed,
    )  # fmt: skip
    alike = looks.group_by("window", "category").agg(pl.len()).group_by("window").agg(baseline_value=pl.col("len").max() / pl.col("len").sum())
    named = rates.join(alike, on="window", how="left").join(windows.select("window", *CELL[:4]), on="window").with_columns(
        concept=pl.lit("profiles"), metric=pl.lit(METRIC), segment_type=pl.lit("all"), segment=pl.lit("all"), policy_id=pl.lit("all"),
        baseline=pl.lit("best_single_category"),
    )  # fmt: skip
    return finish(named, windows)


@query
def chosen_query(table: Tables, landed_from: date, start: date, end: date) -> Any:
    """What known people looked at or bought, by day and the day it first was known."""
    events = table("clean_events")
    chosen = events.filter(
        events.event_date.between(start, end),
        events.landed_date.between(landed_from, end),
        events.event_type.isin(("view_item", "purchase")),
        ~events.is_bot,
        ~events.is_service,
        events.user_id.notnull(),
        events.item_id.notnull(),
    )
    return chosen.group_by("event_date", "user_id", "item_id").agg(landed_date=chosen.landed_date.min())


@query
def leanings_query(table: Tables, start: date, end: date) -> Any:
    log = table("user_profiles")
    said = log.filter(log.as_of_date.between(start, end), log.user_id != UNKNOWN_USER)
    return said.select("as_of_date", "user_id", "preferred_category")
