"""How good the recommendation lists in force were at naming what people went on to buy.

What belongs here: precision, recall, F1, nDCG, hit rate, coverage and novelty of `recommendations` over the windows after
their issue, beside the popularity list scored on the same people. What does not: making lists (recommendations.py).

A list counts as shown whole; relevant are the distinct items (no services) a user bought in the window. Users with a list
in force and at least one purchase are scored; those without one are scored on the list of unknown users, as segment
user_type = new.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from marketing_assets.config import KEYFRAME_DAYS, UNKNOWN_USER, Store
from marketing_assets.evaluation.queries import Tables, query
from marketing_assets.evaluation.windows import CELL, Arrival, empty_report, finish, frame_of, scored_windows
from marketing_assets.intervals import clustered_means
from marketing_assets.warehouse import Reader

POPULARITY_DAYS = 90
WINDOW = ["as_of_date", "outcome_date", "issued_date", "horizon_days"]


def look_back(store: Store) -> int:
    """Days of lists, purchases and item days read before the first day of a window."""
    return max(KEYFRAME_DAYS, POPULARITY_DAYS) + max(store.evaluation.list_windows_days) + store.maturity_days + 2


def score_lists(reader: Reader, days: Sequence[date], store: Store, seen: Arrival) -> pl.DataFrame:
    """Report rows of the concept 'recommendations'."""
    windows = scored_windows(days, store.evaluation.list_windows_days, seen, store.first_day)
    windows = windows.filter(pl.col("issued_date") >= store.first_day)
    if windows.height == 0:
        return empty_report()
    bought = read_bought(reader, days, store)
    relevant = (
        windows.with_columns(event_date=pl.date_ranges("start_date", "outcome_date"))
        .explode("event_date")
        .join(bought, on="event_date", how="inner")
        .filter(pl.col("landed_date") <= pl.col("as_of_date"))
        .select(*WINDOW, "user_id", "item_id")
        .unique()
    )
    if relevant.height == 0:
        return empty_report()
    users = relevant.select(*WINDOW, "user_id").unique()
    entries = entries_in_force(reader, users, store)
    if entries.height == 0:
        return empty_report()
    lists = read_lists(reader, entries)
    ks = store.evaluation.at_k
    # one user in both roles: the list served, and the popularity list as the baseline
    served = entries.with_columns(list_user=pl.when("is_known").then("user_id").otherwise(pl.lit(UNKNOWN_USER)))
    scores = list_scores(relevant, served, lists, ks)
    popular = entries.filter(pl.col("popular_entry").is_not_null()).with_columns(
        list_user=pl.lit(UNKNOWN_USER), entry="popular_entry"
    )
    baseline = list_scores(relevant, popular, lists, ks)
    details = novelty_and_coverage(reader, served, lists, days, store, ks)
    return assemble(scores, baseline, details, windows, store)


def read_bought(reader: Reader, days: Sequence[date], store: Store) -> pl.DataFrame:
    """event_date, user_id, item_id and the day that first became known, of purchases by people."""
    start = days[0] - timedelta(days=store.maturity_days + max(store.evaluation.list_windows_days) + 1)
    return bought_query(reader, start - timedelta(days=1), start, days[-1])


@query
def bought_query(table: Tables, landed_from: date, start: date, end: date) -> Any:
    events = table("clean_events")
    bought = events.filter(
        events.event_date.between(start, end),
        events.landed_date.between(landed_from, end),
        events.event_type == "purchase",
        ~events.is_bot,
        ~events.is_service,
        events.user_id.notnull(),
        events.item_id.notnull(),
    )
    return bought.group_by("event_date", "user_id", "item_id").agg(landed_date=bought.landed_date.min())


@query
def heads_query(table: Tables, start: date, end: date) -> Any:
    """Every list has a row of rank 1, an empty one too."""
    lists = table("recommendations")
    return lists.filter(lists.as_of_date.between(start, end), lists["rank"] == 1).select("user_id", "as_of_date", "policy_id")


@query
def sold_query(table: Tables, start: date, end: date) -> Any:
    sold = table("item_days")
    sold = sold.filter(sold.landed_date.between(start, end))
    return sold.group_by("landed_date", "item_id").agg(orders=sold.orders.sum())


@query
def catalogue_query(table: Tables, start: date, end: date) -> Any:
    items = table("items")
    return items.filter(items.as_of_date.between(start, end), ~items.is_service).select("as_of_date", "item_id").distinct()


def entries_in_force(reader: Reader, users: pl.DataFrame, store: Store) -> pl.DataFrame:
    """For each window and user, the day of the list entry in force at issued_date.

    Adds entry (null where there is none and no list of unknown users either), is_known, popular_entry, policy_id.
    """
    first, last = users["issued_date"].min(), users["issued_date"].max()
    start = reader.keyframe_before(first)  # type: ignore[arg-type]
    heads = heads_query(reader, start, last).sort("as_of_date", "user_id")
    issues = users.select("issued_date").unique().sort("issued_date")
    keyframes = issues.with_columns(
        keyframe=pl.Series([reader.keyframe_before(day) for day in issues["issued_date"]], dtype=pl.Date)
    )
    popular = issues.join_asof(
        heads.filter(pl.col("user_id") == UNKNOWN_USER).select(
            popular_entry="as_of_date", listed="as_of_date", popular_policy="policy_id"
        ),
        left_on="issued_date",
        right_on="listed",
    ).drop("listed", strict=False)
    joined = (
        users.sort("issued_date", "user_id")
        .join_asof(
            heads.select("user_id", "policy_id", listed="as_of_date", entry="as_of_date"),
            left_on="issued_date",
            right_on="listed",
            by="user_id",
            check_sortedness=False,
        )
        .drop("listed", strict=False)
    )
    joined = (
        joined.join(keyframes, on="issued_date", how="left")
        .join(popular, on="issued_date", how="left")
        .with_columns(
            entry=pl.when(pl.col("entry") >= pl.col("keyframe")).then("entry"),
            popular_entry=pl.when(pl.col("popular_entry") >= pl.col("keyframe")).then("popular_entry"),
        )
    )
    return (
        joined.with_columns(
            is_known=pl.col("entry").is_not_null(),
            entry=pl.coalesce("entry", "popular_entry"),
            policy_id=pl.when(pl.col("entry").is_not_null()).then("policy_id").otherwise("popular_policy"),
        )
        .filter(pl.col("entry").is_not_null())
        .drop("keyframe", "popular_policy")
    )


def read_lists(reader: Reader, entries: pl.DataFrame) -> pl.DataFrame:
    """The lists named by the entries: list_user, entry, rank, item_id."""
    import ibis

    known = entries.filter("is_known").select(user_id="user_id", as_of_date="entry")
    popular = entries.select(as_of_date="popular_entry").drop_nulls().unique().with_columns(user_id=pl.lit(UNKNOWN_USER))
    needed = pl.concat([known, popular.select("user_id", "as_of_date")]).unique()
    table = reader.table("recommendations")
    chosen = table.filter(table.as_of_date >= needed["as_of_date"].min(), table.item_id.notnull()).semi_join(
        ibis.memtable(needed.to_arrow()), ["user_id", "as_of_date"]
    )
    return frame_of(chosen.select(list_user="user_id", entry="as_of_date", rank="rank", item_id="item_id"))


def list_scores(relevant: pl.DataFrame, served: pl.DataFrame, lists: pl.DataFrame, ks: Sequence[int]) -> pl.DataFrame:
    """Per window and user: precision, recall, f1, ndcg and hit rate at each k.

    recall@k = hits / min(k, bought); nDCG@k with gain 1 and the ideal list of min(k, bought) hits (Järvelin and Kekäläinen
    2002); precision@k = hits / k.
    """
    by = [*WINDOW, "user_id"]
    bought = relevant.group_by(by).agg(bought=pl.len())
    hits = relevant.join(served, on=by, how="inner").join(lists, on=["list_user", "entry", "item_id"], how="inner")
    gain = 1 / (pl.col("rank") + 1).log(2)
    found = hits.group_by(by).agg(
        *[(pl.col("rank") <= k).sum().alias(f"hits_{k}") for k in ks],
        *[pl.when(pl.col("rank") <= k).then(gain).otherwise(0.0).sum().alias(f"dcg_{k}") for k in ks],
    )
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, max(ks) + 2)))])
    table = (
        served.select(*by, "policy_id", "is_known")
        .join(bought, on=by, how="left")
        .join(found, on=by, how="left")
        .with_columns(pl.col([f"hits_{k}" for k in ks]).fill_null(0), pl.col([f"dcg_{k}" for k in ks]).fill_null(0.0))
    )
    columns = {}
    for k in ks:
        most = np.minimum(table["bought"].to_numpy(), k)
        hit = table[f"hits_{k}"].to_numpy()
        precision, recall = hit / k, hit / most
        both = precision + recall
        columns[f"precision_at_{k}"] = precision
        columns[f"recall_at_{k}"] = recall
        columns[f"f1_at_{k}"] = np.divide(2 * precision * recall, both, out=np.zeros(both.size), where=both > 0)
        columns[f"ndcg_at_{k}"] = table[f"dcg_{k}"].to_numpy() / ideal[most]
        columns[f"hit_rate_at_{k}"] = (hit > 0).astype(float)
    return table.select(*by, "policy_id", "is_known").with_columns(pl.Series(name, values) for name, values in columns.items())


def novelty_and_coverage(
    reader: Reader, served: pl.DataFrame, lists: pl.DataFrame, days: Sequence[date], store: Store, ks: Sequence[int]
) -> pl.DataFrame:
    """Per window, user and k: mean self-information of the items listed, in bits; and per window the share of items listed.

    novelty = mean of -log2((orders of the item + 1) / (orders of all items + items)) over POPULARITY_DAYS of landed item days
    up to issued_date (Vargas and Castells 2011). coverage = distinct items in the scored lists / items known by then.
    Returns long rows: window, user_id (null for coverage), metric, num, den.
    """
    last = days[-1]
    first = served["issued_date"].min()
    start = first - timedelta(days=POPULARITY_DAYS)  # type: ignore[operator]
    sold = (
        sold_query(reader, start, last)
        .sort("landed_date", "item_id")
        .with_columns(total=pl.col("orders").cum_sum().over("item_id"))
    )
    issues = served.select("issued_date").unique().sort("issued_date")
    issue_days = issues["issued_date"].to_numpy()
    catalogue = issues.with_columns(catalogue=pl.Series(catalogue_sizes(reader, issues["issued_date"].to_list()), dtype=pl.Int64))
    all_orders = sold.group_by("landed_date").agg(pl.col("orders").sum()).sort("landed_date")
    running = np.concatenate([[0], np.cumsum(all_orders["orders"].to_numpy())])
    landed = all_orders["landed_date"].to_numpy()
    oldest = issue_days - np.timedelta64(POPULARITY_DAYS, "D")
    in_window = (
        running[np.searchsorted(landed, issue_days, side="right")] - running[np.searchsorted(landed, oldest, side="right")]
    )
    catalogue = catalogue.with_columns(all_orders=pl.Series(in_window).cast(pl.Int64))

    # popularity of the items in each list at each issue day: running totals at both ends of the trailing window
    shown = served.select("issued_date", "list_user", "entry").unique().join(lists, on=["list_user", "entry"], how="inner")
    pairs = (
        shown.select("issued_date", "item_id")
        .unique()
        .with_columns(oldest=pl.col("issued_date").dt.offset_by(f"-{POPULARITY_DAYS}d"))
    )
    totals = sold.select("landed_date", "item_id", "total")
    for column, name in (("issued_date", "upper"), ("oldest", "lower")):
        pairs = (
            pairs.sort(column, "item_id")
            .join_asof(
                totals.rename({"total": name}), left_on=column, right_on="landed_date", by="item_id", check_sortedness=False
            )
            .drop("landed_date", strict=False)
        )
    popularity = pairs.join(catalogue, on="issued_date", how="left").select(
        "issued_date",
        "item_id",
        bits=-(
            (pl.col("upper").fill_null(0) - pl.col("lower").fill_null(0) + 1)
            / (pl.col("all_orders") + pl.max_horizontal("catalogue", pl.lit(1)))
        ).log(2),
    )
    shown = shown.join(popularity, on=["issued_date", "item_id"], how="left")
    frames = []
    for k in ks:
        top = shown.filter(pl.col("rank") <= k)
        of_list = top.group_by("issued_date", "list_user", "entry").agg(num=pl.col("bits").sum(), den=pl.len().cast(pl.Float64))
        per_user = served.filter("is_known").join(of_list, on=["issued_date", "list_user", "entry"], how="inner")
        frames.append(
            per_user.select(
                *WINDOW, "user_id", metric=pl.lit(f"novelty_at_{k}"), num=pl.col("num") / pl.col("den"), den=pl.lit(1.0)
            )
        )
        listed = (
            served.filter("is_known")
            .select(*WINDOW, "list_user", "entry")
            .unique()
            .join(top.select("list_user", "entry", "item_id").unique(), on=["list_user", "entry"], how="inner")
            .group_by(WINDOW)
            .agg(num=pl.col("item_id").n_unique().cast(pl.Float64))
            .join(catalogue, on="issued_date", how="left")
        )
        frames.append(
            listed.select(
                *WINDOW,
                user_id=pl.lit(None, pl.String),
                metric=pl.lit(f"coverage_at_{k}"),
                num="num",
                den=pl.col("catalogue").cast(pl.Float64),
            )
        )
    return pl.concat(frames)


def catalogue_sizes(reader: Reader, issues: Sequence[date]) -> list[int]:
    """Items in force in the catalogue log at the end of each day: those with an entry since the keyframe before it."""
    entries = catalogue_query(reader, reader.keyframe_before(min(issues)), max(issues)).sort("as_of_date", "item_id")
    keyframe_of = {day: reader.keyframe_before(day) for day in {*entries["as_of_date"], *issues}}
    entries = entries.with_columns(keyframe=pl.Series([keyframe_of[day] for day in entries["as_of_date"]], dtype=pl.Date))
    new = entries.unique(["keyframe", "item_id"], keep="first", maintain_order=True)
    days_by_keyframe = {key[0]: part["as_of_date"].to_numpy() for key, part in new.group_by("keyframe")}
    none = np.array([], dtype="datetime64[D]")
    return [
        int(np.searchsorted(days_by_keyframe.get(keyframe_of[day], none), np.datetime64(day), side="right")) for day in issues
    ]


def assemble(
    scores: pl.DataFrame, baseline: pl.DataFrame, details: pl.DataFrame, windows: pl.DataFrame, store: Store
) -> pl.DataFrame:
    """Means over users with intervals, beside the popularity list's mean over the same users."""
    metrics = [name for name in scores.columns if "_at_" in name]
    by = [*WINDOW, "user_id"]
    compared = baseline.select(*by, *[pl.col(name).alias(f"base_{name}") for name in metrics])
    table = scores.join(compared, on=by, how="left")
    known = table.filter("is_known")
    parts = [
        known.with_columns(segment_type=pl.lit("all"), segment=pl.lit("all"), policy_id=pl.lit("all")),
        known.filter(pl.col("policy_id").is_not_null()).with_columns(segment_type=pl.lit("all"), segment=pl.lit("all")),
        table.filter(~pl.col("is_known")).with_columns(
            segment_type=pl.lit("user_type"), segment=pl.lit("new"), policy_id=pl.lit("all")
        ),
    ]
    cells = pl.concat([part.select(*CELL, *metrics, *[f"base_{name}" for name in metrics], cluster="user_id") for part in parts])
    settings = store.evaluation
    scored = clustered_means(
        cells,
        CELL,
        metrics,
        level=settings.interval,
        replicates=settings.bootstrap_replicates,
        seed=store.seed,
    )
    means = (
        cells.group_by(CELL)
        .agg(pl.col(f"base_{name}").mean().alias(name) for name in metrics)
        .unpivot(metrics, index=list(CELL), variable_name="metric", value_name="baseline_value")
    )
    frames = [
        scored.join(means, on=[*CELL, "metric"], how="left").with_columns(
            baseline=pl.when(pl.col("baseline_value").is_not_null()).then(pl.lit("popularity"))
        )
    ]
    details = details.with_columns(segment_type=pl.lit("all"), segment=pl.lit("all"), policy_id=pl.lit("all"))
    novelty = details.filter(pl.col("user_id").is_not_null()).rename({"user_id": "cluster"})
    names = novelty["metric"].unique().sort().to_list()
    wide = novelty.pivot("metric", index=[*CELL, "cluster"], values="num").drop_nulls()
    frames.append(
        clustered_means(wide, CELL, names, level=settings.interval, replicates=settings.bootstrap_replicates, seed=store.seed)
    )
    coverage = details.filter(pl.col("user_id").is_null(), pl.col("den") > 0)
    people = known.group_by(WINDOW).agg(n=pl.len().cast(pl.Int64))
    frames.append(
        coverage.join(people, on=WINDOW, how="left").select(
            *CELL, "metric", numerator="num", denominator="den", value=pl.col("num") / pl.col("den"), n="n"
        )
    )
    return finish(pl.concat(frames, how="diagonal").with_columns(concept=pl.lit("recommendations")), windows)
