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
from marketing_assets.evaluation.ad_log import enumerated
from marketing_assets.evaluation.queries import Tables, query
from marketing_assets.evaluation.windows import CELL, Arrival, empty_report, finish, frame_of, in_force, scored_windows
from marketing_assets.intervals import clustered_means
from marketing_assets.warehouse import Reader

POPULARITY_DAYS = 90


def look_back(store: Store) -> int:
    """Days of lists, purchases and item days read before the first day of a window."""
    return max(KEYFRAME_DAYS, POPULARITY_DAYS) + max(store.evaluation.list_windows_days) + store.maturity_days + 2


def score_lists(reader: Reader, days: Sequence[date], store: Store, seen: Arrival) -> pl.DataFrame:
    """Report rows of the concept 'recommendations'.

    Windows, users, items and lists are numbers from here on: a user's purchase counts in many windows.
    """
    windows = list_windows(days, store, seen)
    if windows.height == 0:
        return empty_report()
    bought = read_bought(reader, days, store)
    bought = bought.with_columns(enumerated(bought[name]) for name in ("user_id", "item_id"))
    relevant = known_within(windows, bought).select("window", "user_id", "item_id").unique()
    if relevant.height == 0:
        return empty_report()
    people = relevant.group_by("window", "user_id").agg(bought=pl.len().cast(pl.Int64))
    served, names = lists_in_force(reader, people.join(windows.select("window", "issued_date"), on="window"))
    if served.height == 0:
        return empty_report()
    lists = read_lists(reader, names)
    ks = store.evaluation.at_k
    hits = lists.with_columns(pl.col("item_id").cast(bought.schema["item_id"], strict=False)).drop_nulls()
    # one user in both roles: the list served, and the popularity list as the baseline
    scores = list_scores(relevant, served, hits, ks)
    popular = served.filter(pl.col("popular").is_not_null()).with_columns(list="popular")
    baseline = list_scores(relevant, popular, hits, ks)
    details = novelty_and_coverage(reader, served.filter("is_known"), lists, days, ks)
    return assemble(scores, baseline, *details, windows, store)


def list_windows(days: Sequence[date], store: Store, seen: Arrival) -> pl.DataFrame:
    """The windows lists are scored on, numbered by the column window."""
    windows = scored_windows(days, store.evaluation.list_windows_days, seen, store.first_day)
    return windows.filter(pl.col("issued_date") >= store.first_day).with_row_index("window")


def known_within(windows: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """What happened in each window and had landed by its as_of_date: rows (event_date, landed_date, ...) once per window, with window."""
    return (
        windows.select("window", "as_of_date", event_date=pl.date_ranges("start_date", "outcome_date"))
        .explode("event_date")
        .join(rows, on="event_date", how="inner")
        .filter(pl.col("landed_date") <= pl.col("as_of_date"))
    )


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


def lists_in_force(reader: Reader, users: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """For each window and user the list in force at issued_date; those without one get that of unknown users.

    users: window, user_id (an Enum), issued_date, and what else there is. Returns these with list, is_known, popular (null where there is no list
    of unknown users) and policy_id, of users with either list; and list, user_id, as_of_date of the lists named.
    """
    first, last = users["issued_date"].min(), users["issued_date"].max()
    heads = heads_query(reader, reader.keyframe_before(first), last)  # type: ignore[arg-type]
    heads = heads.sort("as_of_date", "user_id").with_row_index("list")
    popular = heads.filter(pl.col("user_id") == UNKNOWN_USER).select("as_of_date", popular="list", popular_policy="policy_id")
    own = heads.with_columns(pl.col("user_id").cast(users.schema["user_id"], strict=False)).drop_nulls("user_id")
    joined = in_force(reader, in_force(reader, users, own, by="user_id"), popular).with_columns(
        is_known=pl.col("list").is_not_null(),
        list=pl.coalesce("list", "popular"),
        policy_id=pl.when(pl.col("list").is_not_null()).then("policy_id").otherwise("popular_policy"),
    )
    joined = joined.drop_nulls("list").select(*users.columns, "list", "is_known", "popular", "policy_id")
    named = pl.concat([joined["list"], joined["popular"].drop_nulls()]).unique()
    return joined, heads.filter(pl.col("list").is_in(named.implode())).select("list", "user_id", "as_of_date")


def read_lists(reader: Reader, names: pl.DataFrame) -> pl.DataFrame:
    """The lists named: list, rank, item_id. names: list, user_id, as_of_date."""
    import ibis

    table = reader.table("recommendations")
    chosen = table.filter(table.as_of_date >= names["as_of_date"].min(), table.item_id.notnull()).inner_join(
        ibis.memtable(names.with_columns(pl.col("list").cast(pl.Int64)).to_arrow()), ["user_id", "as_of_date"]
    )
    return frame_of(chosen.select("list", "rank", "item_id")).with_columns(pl.col("list").cast(pl.UInt32))


def list_scores(relevant: pl.DataFrame, served: pl.DataFrame, lists: pl.DataFrame, ks: Sequence[int]) -> pl.DataFrame:
    """Per window and user: precision, recall, f1, ndcg and hit rate at each k.

    recall@k = hits / min(k, bought); nDCG@k with gain 1 and the ideal list of min(k, bought) hits (Järvelin and Kekäläinen
    2002); precision@k = hits / k.
    """
    by = ["window", "user_id"]
    hits = relevant.join(served.select(*by, "list"), on=by, how="inner").join(lists, on=["list", "item_id"], how="inner")
    gain = 1 / (pl.col("rank") + 1).log(2)
    found = hits.group_by(by).agg(
        *[(pl.col("rank") <= k).sum().alias(f"hits_{k}") for k in ks],
        *[pl.when(pl.col("rank") <= k).then(gain).otherwise(0.0).sum().alias(f"dcg_{k}") for k in ks],
    )
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, max(ks) + 2)))])
    table = (
        served.select(*by, "policy_id", "is_known", "bought")
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
    reader: Reader, served: pl.DataFrame, lists: pl.DataFrame, days: Sequence[date], ks: Sequence[int]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Per window and user: mean self-information of the items listed, in bits; and per window the share of items listed.

    novelty = mean of -log2((orders of the item + 1) / (orders of all items + items)) over POPULARITY_DAYS of landed item days
    up to issued_date (Vargas and Castells 2011). coverage = distinct items in the scored lists / items known by then.
    served: rows of `lists_in_force` of known users. Returns window, user_id, novelty_at_k; and window, metric, num, den.
    """
    if served.height == 0:
        novelty = served.select("window", "user_id", *[pl.lit(0.0).alias(f"novelty_at_{k}") for k in ks])
        return novelty, pl.DataFrame(schema={"window": pl.UInt32, "metric": pl.String, "num": pl.Float64, "den": pl.Float64})
    lists = lists.with_columns(enumerated(lists["item_id"]))
    first: date = served["issued_date"].min()  # type: ignore[assignment]
    sold = sold_query(reader, first - timedelta(days=POPULARITY_DAYS), days[-1]).sort("landed_date", "item_id")
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
    shown = served.select("issued_date", "list").unique().join(lists, on="list", how="inner")
    pairs = (
        shown.select("issued_date", "item_id")
        .unique()
        .with_columns(oldest=pl.col("issued_date").dt.offset_by(f"-{POPULARITY_DAYS}d"))
    )
    totals = sold.select("landed_date", pl.col("item_id").cast(lists.schema["item_id"], strict=False), "orders").drop_nulls()
    totals = totals.select("landed_date", "item_id", total=pl.col("orders").cum_sum().over("item_id"))
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
    top = [pl.col("rank") <= k for k in ks]
    of_list = (
        shown.join(popularity, on=["issued_date", "item_id"], how="left")
        .group_by("issued_date", "list")
        .agg(pl.col("bits").filter(chosen).mean().alias(f"novelty_at_{k}") for k, chosen in zip(ks, top, strict=True))
    )
    novelty = served.select("window", "user_id", "issued_date", "list").join(of_list, on=["issued_date", "list"], how="inner")
    of_window = served.select("window", "list").unique().join(lists, on="list", how="inner")
    of_window = of_window.group_by("window", "item_id").agg(pl.col("rank").min())
    listed = of_window.group_by("window").agg(chosen.sum().cast(pl.Float64).alias(f"{k}") for k, chosen in zip(ks, top, strict=True))
    sizes = served.select("window", "issued_date").unique().join(catalogue, on="issued_date", how="left")
    sizes = sizes.select("window", den=pl.col("catalogue").cast(pl.Float64))
    coverage = pl.concat(
        [listed.select("window", metric=pl.lit(f"coverage_at_{k}"), num=pl.col(f"{k}")) for k in ks]
    ).filter(pl.col("num") > 0)
    return novelty.drop("issued_date", "list").drop_nulls(), coverage.join(sizes, on="window")


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
    scores: pl.DataFrame, baseline: pl.DataFrame, novelty: pl.DataFrame, coverage: pl.DataFrame, windows: pl.DataFrame, store: Store
) -> pl.DataFrame:
    """Means over users with intervals, beside the popularity list's mean over the same users."""
    metrics = [name for name in scores.columns if "_at_" in name]
    by = ["window", "user_id"]
    compared = baseline.select(*by, *[pl.col(name).alias(f"base_{name}") for name in metrics])
    table = scores.join(compared, on=by, how="left")
    known = table.filter("is_known")
    policies = known["policy_id"].drop_nulls().unique().sort()
    # of every window: everyone with a list, those of each policy, and those without a list
    parts = pl.DataFrame(
        {
            "part": range(policies.len() + 2),
            "segment_type": ["all", *["all"] * policies.len(), "user_type"],
            "segment": ["all", *["all"] * policies.len(), "new"],
            "policy_id": ["all", *policies, "all"],
        }
    )
    of_policy = parts[1:-1].select("policy_id", "part")
    cells = pl.concat(
        [
            part.select(
                (pl.col("window").cast(pl.Int64) * parts.height + pl.col("part")).alias("cell"),
                pl.col("user_id").alias("cluster"),
                *metrics,
                *compared.columns[2:],
            )
            for part in (
                known.with_columns(part=pl.lit(0)),
                known.join(of_policy, on="policy_id"),
                table.filter(~pl.col("is_known")).with_columns(part=pl.lit(parts.height - 1)),
            )
        ]
    )
    settings = store.evaluation

    def means(of: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
        return clustered_means(
            of, ["cell"], names, level=settings.interval, replicates=settings.bootstrap_replicates, seed=store.seed
        )

    base = (
        cells.group_by("cell")
        .agg(pl.col(f"base_{name}").mean().alias(name) for name in metrics)
        .unpivot(metrics, index="cell", variable_name="metric", value_name="baseline_value")
    )
    of_window = pl.col("window").cast(pl.Int64) * parts.height
    told = novelty.select(of_window.alias("cell"), pl.col("user_id").alias("cluster"), pl.exclude("window", "user_id"))
    people = known.group_by("window").agg(n=pl.len().cast(pl.Int64))
    covered = coverage.filter(pl.col("den") > 0).join(people, on="window")
    frames = [
        means(cells, metrics)
        .join(base, on=["cell", "metric"], how="left")
        .with_columns(baseline=pl.when(pl.col("baseline_value").is_not_null()).then(pl.lit("popularity"))),
        means(told, sorted(told.columns[2:])),
        covered.select(
            of_window.alias("cell"), "metric", "n", numerator="num", denominator="den", value=pl.col("num") / pl.col("den")
        ),
    ]
    rows = pl.concat(frames, how="diagonal").with_columns(
        window=(pl.col("cell") // parts.height).cast(pl.UInt32), part=pl.col("cell") % parts.height, concept=pl.lit("recommendations")
    )
    named = rows.join(windows.select("window", *CELL[:4]), on="window").join(parts, on="part")
    return finish(named.select(pl.exclude("window", "part", "cell")), windows)
