"""What looks at the items of a list came to: the rate that lists ordered by what showing an item brings are made for.

What belongs here: choice_rate_at_k of `recommendations`, beside the popularity list on the same people. What does not: whether
lists name what people buy of themselves (lists.py), and what lists cause (holdouts.py).

Of the items a user looked at in the window (distinct, no services), those on their list; chosen are those put into the cart or
bought by the window's end. choice_rate_at_k = chosen / looked at among the first k of the lists, over all users. People chose these
looks themselves, so the rate says how well a list tells what is worth a look, not what the list brought.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import polars as pl

from marketing_assets.config import Store
from marketing_assets.evaluation.ad_log import enumerated
from marketing_assets.evaluation.lists import known_within, list_windows, lists_in_force, read_lists
from marketing_assets.evaluation.queries import Tables, query
from marketing_assets.evaluation.windows import CELL, Arrival, empty_report, finish
from marketing_assets.intervals import clustered
from marketing_assets.warehouse import Reader


def score_choices(reader: Reader, days: Sequence[date], store: Store, seen: Arrival) -> pl.DataFrame:
    """Report rows of the metrics choice_rate_at_k of 'recommendations', over all known users and by policy."""
    windows = list_windows(days, store, seen)
    if windows.height == 0:
        return empty_report()
    first: date = windows["start_date"].min()  # type: ignore[assignment]
    told = signs_query(reader, first - timedelta(days=1), first, days[-1])
    if told.is_empty():
        return empty_report()
    told = told.with_columns(enumerated(told[name]) for name in ("user_id", "item_id"))
    looked = (
        known_within(windows, told)
        .group_by("window", "user_id", "item_id")
        .agg(pl.col("is_look", "is_choice").any())
        .filter("is_look")
    )
    people = looked.select("window", "user_id").unique()
    served, names = lists_in_force(reader, people.join(windows.select("window", "issued_date"), on="window"))
    served = served.filter("is_known", pl.col("popular").is_not_null())
    if served.height == 0:
        return empty_report()
    lists = read_lists(reader, names).with_columns(pl.col("item_id").cast(told.schema["item_id"], strict=False)).drop_nulls()
    ks = store.evaluation.at_k
    own, popular = (choices(looked, served, role, lists, ks) for role in ("list", "popular"))
    by = ["window", "policy_id", "metric"]
    rates = clustered(
        own, by, "rate", level=store.evaluation.interval, replicates=store.evaluation.bootstrap_replicates, seed=store.seed
    )
    base = popular.group_by(by).agg(pl.col("num", "den").sum()).filter(pl.col("den") > 0)
    rates = rates.join(base.select(*by, baseline_value=pl.col("num") / pl.col("den")), on=by, how="left")
    named = rates.join(windows.select("window", *CELL[:4]), on="window").with_columns(
        concept=pl.lit("recommendations"), segment_type=pl.lit("all"), segment=pl.lit("all"),
        baseline=pl.when(pl.col("baseline_value").is_not_null()).then(pl.lit("popularity")),
    )  # fmt: skip
    return finish(named, windows)


@query
def signs_query(table: Tables, landed_from: date, start: date, end: date) -> Any:
    """Looks, carts and purchases by day of what a user looked at within these days."""
    events = table("clean_events")
    told = events.filter(
        events.event_date.between(start, end),
        events.landed_date.between(landed_from, end),
        events.event_type.isin(("view_item", "add_to_cart", "purchase")),
        ~events.is_bot,
        ~events.is_service,
        events.user_id.notnull(),
        events.item_id.notnull(),
    )
    told = told.semi_join(told.filter(told.event_type == "view_item"), ["user_id", "item_id"])
    is_look = told.event_type == "view_item"
    return told.group_by("event_date", "landed_date", "user_id", "item_id").agg(is_look=is_look.any(), is_choice=(~is_look).any())


def choices(looked: pl.DataFrame, served: pl.DataFrame, role: str, lists: pl.DataFrame, ks: Sequence[int]) -> pl.DataFrame:
    """window, policy_id ('all' and each), metric, cluster (user), num (chosen) and den (looked at) of the lists of this role."""
    by = ["window", "user_id"]
    of_list = served.select(*by, "policy_id", list=pl.col(role))
    found = looked.join(of_list, on=by, how="inner").join(lists, on=["list", "item_id"], how="inner")
    counted = [
        found.filter(pl.col("rank") <= k)
        .group_by(*by, "policy_id")
        .agg(num=pl.col("is_choice").sum().cast(pl.Float64), den=pl.len().cast(pl.Float64))
        .with_columns(metric=pl.lit(f"choice_rate_at_{k}"))
        for k in ks
    ]
    each = pl.concat(counted)
    both = pl.concat([each.with_columns(policy_id=pl.lit("all")), each.filter(pl.col("policy_id").is_not_null())])
    return both.select("window", "policy_id", "metric", "num", "den", cluster=pl.col("user_id").cast(pl.String))
