"""Recommendations against strong simple peers on the same users and days.

sequences, Amazon Beauty (leave-one-out, all items ranked, history excluded, item ids permuted on load because they are numbered
by first appearance): the shop's own links and re-ranker. Trained for the second-last item of each sequence, reported on the last;
settings were chosen one step earlier (trained for the third-last, judged on the second-last).

online_retail: items bought in the 7 days after each cut date, users with history, repeats allowed; recall@20 over min(20, bought)
and nDCG@10. taobao: carts and purchases of the next day. Peers beside us: BM25 and ALS (implicit), EASE with own recency, own
frequency filled with 28-day popularity. Ours, plain, are the lists in force on the cut day, as build_recommendations issues them in
one range; learned, those of a store with a fit that day.

baskets: of each online_retail order of those 7 days half is given and the other half sought, guests' orders included. Peers: BM25 and
cosine of implicit item to item, EASE over orders, what is popular. Settings were chosen at 2011-03-10 and 2011-04-07.

Run: MARKETING_DATA=... python benchmarks/bench_recommendations.py sequences [--validate]
     MARKETING_DATA=... python benchmarks/bench_recommendations.py online_retail|taobao [--methods plain,learned] [--cuts ...]
     MARKETING_DATA=... python benchmarks/bench_recommendations.py baskets [--cuts ...]
     python benchmarks/bench_recommendations.py speed [--users 100000] [--items 20000] [--looks]
Needs: implicit beside the project's own packages.
"""

from __future__ import annotations

import argparse
import gzip
import os
import resource
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

import numpy as np  # noqa: E402
import polars as pl  # noqa: E402
import scipy.sparse as sp  # noqa: E402

from marketing_assets.config import CONTROL_INPUTS, REPOSITORY_ROOT, Store, load_store  # noqa: E402
from marketing_assets.recommendations import build_recommendations  # noqa: E402
from marketing_assets.recommendations.history import History  # noqa: E402
from marketing_assets.recommendations.links import Links, LinkSettings, fit_links  # noqa: E402
from marketing_assets.recommendations.lists import levels, places_of_best  # noqa: E402
from marketing_assets.recommendations.looks import look_at_links, table_of  # noqa: E402
from marketing_assets.recommendations.ranker import Candidates, Ranker, candidates, fit_ranker  # noqa: E402
from marketing_assets.recommendations.scores import Popular, Retrieval, score, taste  # noqa: E402

K_NDCG, K_RECALL = 10, 20
IDEAL = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, K_NDCG + 2)))])


def data_folder() -> Path:
    folder = os.environ.get("MARKETING_DATA")
    if not folder:
        sys.exit("set MARKETING_DATA to the folder of the public data sets")
    return Path(folder)


def interval(differences: np.ndarray, seed: int = 1, replicates: int = 1000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over users."""
    generator = np.random.default_rng(seed)
    n = len(differences)
    means = [differences[generator.integers(0, n, n)].mean() for _ in range(replicates)]
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


# --- sequences ----------------------------------------------------------------------------------------------------------

SEQUENCE_LINKS = LinkSettings(
    within=0.0, decay=0.8, backward=0.25, span=19, from_power=0.29, to_power=0.07, neighbours=100, large_visit=0.0,
    kinds=(("next", 1, 1), ("soon", 2, 4), ("later", 5, 19)),
)  # fmt: skip
SEQUENCE_RETRIEVAL = Retrieval(
    link_half_life=float(np.log(0.5) / np.log(0.52)), own=0.0, popular=0.0, own_candidates=0, linked_candidates=80,
    popular_candidates=0,
)  # fmt: skip
SEQUENCE_TREES = {"rounds": 60, "learning_rate": 0.13, "max_bin": 63}
STAGES = 2
"""The re-ranker learns from so many of the last items that are known."""


def load_sequences(seed: int) -> tuple[list[np.ndarray], int]:
    with gzip.open(data_folder() / "amazon_sequences" / "s3rec_Beauty.txt.gz", "rt") as lines:
        sequences = [np.array(line.split()[1:], dtype=np.int64) for line in lines if line.strip()]
    items = 1 + max(int(sequence.max()) for sequence in sequences)
    order = np.random.default_rng(seed).permutation(items)
    return [order[sequence] for sequence in sequences], items


class Stage:
    """Everything known before the `held_back` last items of each sequence: a step is a day, the last known one is day 0."""

    def __init__(self, sequences: Sequence[np.ndarray], items: int, held_back: int) -> None:
        sequences = [sequence for sequence in sequences if len(sequence) > held_back]
        lengths = np.array([len(sequence) - held_back for sequence in sequences])
        user = np.repeat(np.arange(len(sequences)), lengths)
        position = np.arange(len(user)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        item = np.concatenate([sequence[: len(sequence) - held_back] for sequence in sequences])
        happened = position - lengths[user] + 1
        self.users, self.items = len(sequences), items
        self.target = np.array([sequence[len(sequence) - held_back] for sequence in sequences])
        self.last = np.array([sequence[len(sequence) - held_back - 1] for sequence in sequences])
        ones, yes = np.ones(len(user)), np.ones(len(user), dtype=bool)
        self.history = History(
            users=pl.Series("user_id", [f"{number:06}" for number in range(len(sequences))]),
            items=pl.Series("item_id", [f"{number:06}" for number in range(items)]),
            user=user, item=item, known=happened, happened=happened, moment=happened, strength=ones,
            views=np.zeros(len(user), dtype=np.int64), is_bought=yes, is_wanted=yes, spent=np.zeros(len(user)),
        )  # fmt: skip
        matrix, kinds = fit_links(user, position, item, ones, items, SEQUENCE_LINKS)
        occurs = np.bincount(item, minlength=items)
        often = np.maximum(occurs, 1)
        facts = {
            "occurs": occurs,
            "share_late": np.bincount(item[happened > -3], minlength=items) / often,
            "share_newest": np.bincount(item[happened == 0], minlength=items) / often,
            "share_first": np.bincount(item[position == 0], minlength=items) / often,
            "position": np.bincount(item, weights=position, minlength=items) / often,
        }
        self.links = Links.kept(self.history.items, matrix, kinds, {name: values.astype(np.float32) for name, values in facts.items()})
        self.popular = Popular(
            np.zeros(0, dtype=np.int64), np.zeros((1, items)), np.zeros((1, 0), dtype=np.int64), np.full(1, -1, dtype=np.float32)
        )

    def block(self, block: np.ndarray, only_reached: bool):  # type: ignore[no-untyped-def]
        """Users, candidates, names and values of features, scores of the single retriever."""
        today = np.zeros(len(block), dtype=np.int64)
        seen = taste(self.history, block, today, SEQUENCE_RETRIEVAL)
        popular = replace(self.popular, day=today)
        scored = score(seen.matrix(seen.recent), (seen.row, seen.item, seen.own), self.links.matrix, popular, SEQUENCE_RETRIEVAL)
        allowed = np.ones(len(scored.row), dtype=bool)
        allowed[: len(seen.row)] = False  # what a user had is named first
        pairs = candidates(seen, scored, allowed, SEQUENCE_RETRIEVAL)
        if only_reached:
            reached = np.zeros(len(block), dtype=bool)
            reached[pairs.row[hits(self, pairs, block)]] = True
            kept = reached[pairs.row]
            pairs = Candidates(pairs.place[kept], pairs.row[kept], pairs.item[kept])
        columns: dict[str, np.ndarray] = {}
        look_at_links(columns, seen, scored, self.links, pairs, SEQUENCE_RETRIEVAL)
        last = self.last[block][pairs.row]
        for name in ("occurs", "share_late", "position"):
            columns[f"{name}_of_last"] = self.links.facts[name][last]
        best = np.zeros(len(block), dtype=np.float32)
        np.maximum.at(best, pairs.row, columns["linked"])
        columns["best_linked"] = best[pairs.row]
        columns["length"] = seen.row_items[pairs.row]
        names, values = table_of(columns)
        return block, pairs, names, values, scored.linked[pairs.place]

    def blocks(self, only_reached: bool, threads: int):  # type: ignore[no-untyped-def]
        """Blocks of users in order, `threads` of them at a time."""
        parts = [np.arange(start, min(self.users, start + BLOCK)) for start in range(0, self.users, BLOCK)]
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(lambda part: self.block(part, only_reached), parts)


BLOCK = 128


def hits(stage: Stage, pairs: Candidates, block: np.ndarray) -> np.ndarray:
    return pairs.item == stage.target[block][pairs.row]


def run_sequences(args: argparse.Namespace) -> None:
    import lightgbm  # noqa: F401 - imported before the clock starts, as in a running service

    sequences, items = load_sequences(args.seed)
    judge = 2 if args.validate else 1
    started, cpu = time.perf_counter(), time.process_time()
    parts, labels, groups = [], [], []
    names: list[str] = []
    for held_back in range(judge + 1, judge + 1 + STAGES):
        stage = Stage(sequences, items, held_back)
        for block, pairs, names, values, _ in stage.blocks(True, args.threads):  # noqa: B007
            parts.append(values)
            labels.append(hits(stage, pairs, block).astype(np.int64))
            sizes = np.bincount(pairs.row, minlength=len(block))
            groups.append(sizes[sizes > 0])
    text = fit_ranker(np.vstack(parts), names, np.concatenate(labels), np.concatenate(groups), 1, args.threads, **SEQUENCE_TREES)
    del parts
    fitted = time.perf_counter(), time.process_time()
    ranker, stage = Ranker(text), Stage(sequences, items, judge)
    places = {"links": np.full(stage.users, 10_000), "re-ranked": np.full(stage.users, 10_000)}
    for block, pairs, _, values, single in stage.blocks(False, args.threads):
        for name, scores in (("links", single), ("re-ranked", ranker.scores(values, args.threads))):
            best = places_of_best(pairs.row, levels(scores), pairs.item, len(block), 10)
            found = (best >= 0) & (pairs.item[best] == stage.target[block][:, None])
            places[name][block] = np.where(found.any(axis=1), found.argmax(axis=1), 10_000)
    wall, spent = time.perf_counter() - started, time.process_time() - cpu
    gains = {name: np.where(place < 10, 1 / np.log2(place + 2), 0.0) for name, place in places.items()}
    for name, place in places.items():
        print(f"{name:10s} nDCG@10 {gains[name].mean():.4f}  recall@10 {(place < 10).mean():.4f}")
    low, high = interval(gains["re-ranked"] - gains["links"])
    print(f"gain of the re-ranker in nDCG@10, 95 %: {low:.4f} to {high:.4f}")
    print(
        f"fit {fitted[1] - cpu:.1f} CPU s, {fitted[0] - started:.1f} s wall; all {spent:.1f} CPU s, {wall:.1f} s wall; "
        f"{args.threads} threads, permutation {args.seed}"
    )


# --- shops --------------------------------------------------------------------------------------------------------------


def prepared(name: str, methods: str, last: date):  # type: ignore[no-untyped-def]
    """Store and reader of a shop with everything lists are made from, built by the project's own steps."""
    import duckdb

    from marketing_assets import features
    from marketing_assets.cleaning import build_cleaning
    from marketing_assets.sources import build_sources
    from marketing_assets.warehouse import Warehouse, days_between

    store = load_store(REPOSITORY_ROOT / "data" / "stores" / name / "store.yaml")
    days = days_between(store.first_day, last)
    warehouse = Warehouse(duckdb.connect(":memory:", config={"threads": "2"}), store, None)
    clean = ("clean_events", "clean_impressions", "attributed_conversions", "rejected_rows")
    steps = [((f"raw_{source}",), lambda reader, source=source: build_sources(reader, days, store, source))
             for source in (*store.sources, *CONTROL_INPUTS)]  # fmt: skip
    steps.append((clean, lambda reader: build_cleaning(reader, days, store)))
    for names, step in (
        (("items",), features.build_items), (("sessions",), features.build_sessions), (("item_days",), features.build_item_days),
        (("user_features", "user_preferences"), features.build_user_features), (("item_features",), features.build_item_features),
    ):  # fmt: skip
        steps.append((names, lambda reader, step=step: step(reader, days, store)))
    for names, step in steps:
        with warehouse.transaction():
            warehouse.replace_window(names[0], names, days, step(warehouse.reader(days[-1])))
    how = store.recommendations.model_copy(update={"holdout_share": 0.0, "exploration_share": 0.0})
    return store.model_copy(update={"methods": methods, "recommendations": how}), warehouse, days


def learned_lists(reader, store: Store, cut: date):  # type: ignore[no-untyped-def]
    """Lists of `methods: learned` where the cut day is a fit day: (lists, what the registry says of the re-ranker)."""
    import json

    from marketing_assets.model_store import ModelHistory
    from marketing_assets.recommendations.catalogue import Catalogue
    from marketing_assets.recommendations.fits import LINKS, RANKER, LinkFits, cut_days, fit_shop_ranker
    from marketing_assets.recommendations.history import read_history
    from marketing_assets.recommendations.window import UserLists

    past = sorted(cut_days(store, cut)[0])
    catalogue = Catalogue(reader, [cut], store, past[0])
    catalogue.at(cut)
    history = read_history(reader, catalogue.items, past[0], [cut], None)
    models = ModelHistory(reader, cut)
    fits, links = LinkFits(models, history, store, catalogue), {}
    for day in [*past, cut]:
        fits.fit(day, "cadence")
        links[day] = Links.from_text(models.models[-1].model).over(catalogue.items)
    models.models = [model for model in models.models if model.model_name == LINKS and model.fitted_as_of == cut]
    fit_shop_ranker(models, lambda day: links[day], history, catalogue, cut, "cadence", store)
    stored = models.models[-1]
    assert stored.model_name == RANKER
    booster = json.loads(stored.model)["booster"]
    due = pl.DataFrame({"as_of_date": [cut] * len(history.users), "user_id": history.users})
    lists = UserLists(store, catalogue, history, due)
    lists.use(links[cut], Ranker(booster) if booster else None)
    lists.add(cut)
    return lists.rows(), stored.metrics


def per_user(lists: pl.DataFrame, wanted: pl.DataFrame) -> pl.DataFrame:
    """user_id, ndcg, recall, f1 of lists (user_id, item_id, rank) for users with something wanted (user_id, item_id)."""
    gain = pl.when(pl.col("rank") <= K_NDCG).then(1 / (pl.col("rank") + 1).log(2)).otherwise(0.0)
    found = (
        wanted.join(lists.filter(pl.col("rank") <= K_RECALL), on=["user_id", "item_id"])
        .group_by("user_id")
        .agg(hits=pl.len(), dcg=gain.sum())
    )
    table = wanted.group_by("user_id").agg(n=pl.len()).join(found, on="user_id", how="left").fill_null(0).sort("user_id")
    most = np.minimum(table["n"].to_numpy(), K_RECALL)
    recall, precision = table["hits"].to_numpy() / most, table["hits"].to_numpy() / K_RECALL
    both = np.maximum(recall + precision, 1e-12)
    return table.select("user_id").with_columns(
        ndcg=pl.Series(table["dcg"].to_numpy() / IDEAL[np.minimum(table["n"].to_numpy(), K_NDCG)]),
        recall=pl.Series(recall),
        f1=pl.Series(2 * precision * recall / both),
    )


def top_lists(scores: np.ndarray, users: np.ndarray, items: np.ndarray) -> pl.DataFrame:
    order = np.argsort(-scores, axis=1, kind="stable")[:, :K_RECALL]
    return pl.DataFrame(
        {
            "user_id": np.repeat(users, K_RECALL),
            "item_id": items[order.ravel()],
            "rank": np.tile(np.arange(1, K_RECALL + 1), len(users)),
        }
    )


def peers(past: pl.DataFrame, asked: np.ndarray, cut: date) -> dict[str, pl.DataFrame]:
    """past: user_id, item_id, event_date, value of what was known at the cut. Lists for the users asked for."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from implicit.als import AlternatingLeastSquares
    from implicit.nearest_neighbours import BM25Recommender

    users, items = past["user_id"].unique().sort().to_numpy(), past["item_id"].unique().sort().to_numpy()
    row, column = np.searchsorted(users, past["user_id"].to_numpy()), np.searchsorted(items, past["item_id"].to_numpy())
    age = past.select(age=(pl.lit(cut) - pl.col("event_date")).dt.total_days())["age"].to_numpy()
    value = past["value"].to_numpy()
    shape = (len(users), len(items))
    counts = sp.csr_matrix((value, (row, column)), shape=shape)
    recency = sp.csr_matrix((value * 0.5 ** (age / 60), (row, column)), shape=shape)
    popular = np.bincount(column, weights=value * (age < 28), minlength=len(items))
    where = np.searchsorted(users, asked)
    lists: dict[str, pl.DataFrame] = {}
    own = counts[where].toarray()
    lists["own frequency, popular"] = top_lists(own + popular / (popular.max() + 1.0), asked, items)
    bm25 = BM25Recommender(K=100, num_threads=1)
    bm25.fit(counts, show_progress=False)
    ids, _ = bm25.recommend(where, counts[where], N=K_RECALL, filter_already_liked_items=False)
    lists["implicit BM25"] = listed(ids, asked, items)
    als = AlternatingLeastSquares(factors=64, regularization=0.05, alpha=10.0, iterations=15, random_state=1, num_threads=1)
    als.fit(counts, show_progress=False)
    ids, _ = als.recommend(where, counts[where], N=K_RECALL, filter_already_liked_items=False)
    lists["implicit ALS"] = listed(ids, asked, items)
    # EASE, plus own recency-weighted counts
    binary, frequent, weights = ease(counts, 200.0)
    scores = recency[where].toarray()
    scores[:, frequent] += binary[where] @ weights
    lists["EASE, own recency"] = top_lists(scores, asked, items)
    return lists


def ease(counts: sp.csr_matrix, ridge: float, most: int = 6000) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """EASE (Steck 2019) over the `most` frequent items: whether each was had, which they are, and what one says of another."""
    frequent = np.sort(np.argsort(-np.asarray((counts > 0).sum(axis=0)).ravel(), kind="stable")[:most])
    binary = (counts[:, frequent] > 0).astype(np.float64)
    gram = (binary.T @ binary).toarray()
    gram[np.diag_indices_from(gram)] += ridge
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    weights[np.diag_indices_from(weights)] = 0.0
    return binary, frequent, weights


def listed(ids: np.ndarray, users: np.ndarray, items: np.ndarray) -> pl.DataFrame:
    count = ids.shape[1]
    flat = ids.ravel()
    return pl.DataFrame(
        {"user_id": np.repeat(users, count), "item_id": items[flat], "rank": np.tile(np.arange(1, count + 1), len(users))}
    ).filter(pl.Series(flat >= 0))


CUTS = {
    "online_retail": ["2011-05-05", "2011-06-09", "2011-07-07", "2011-08-04", "2011-09-01", "2011-10-06"],
    "taobao": ["2017-12-01", "2017-12-02"],
}
VALUES = {"purchase": 1.0, "add_to_cart": 0.6, "add_to_wishlist": 0.4, "view_item": 0.2}


def run_shop(args: argparse.Namespace) -> None:
    name = args.what
    cuts = [date.fromisoformat(cut) for cut in (args.cuts.split(",") if args.cuts else CUTS[name])]
    horizon = 7 if name == "online_retail" else 1
    kinds = ["purchase"] if name == "online_retail" else ["purchase", "add_to_cart"]
    store = load_store(REPOSITORY_ROOT / "data" / "stores" / name / "store.yaml")
    assert store.last_day is not None
    plain, warehouse, days = prepared(name, "plain", min(store.last_day, max(cuts) + timedelta(days=horizon)))
    events = warehouse.connection.execute(
        "SELECT user_id, item_id, event_date, event_type FROM clean_events WHERE user_id IS NOT NULL AND NOT is_bot "
        "AND NOT is_service AND item_id IS NOT NULL ORDER BY event_id"
    ).pl()
    ours: dict[str, pl.DataFrame] = {}
    started = time.process_time()
    until = [day for day in days if day <= max(cuts)]
    built = build_recommendations(warehouse.reader(until[-1]), until, plain)
    ours["ours, plain"] = built.tables["recommendations"]  # type: ignore[assignment]
    print(f"plain: {len(until)} days as one range in {time.process_time() - started:.1f} CPU s")
    if "learned" in args.methods:
        learned = plain.model_copy(update={"methods": "learned"})
        started, parts = time.process_time(), []
        for cut in cuts:
            rows, said = learned_lists(warehouse.reader(cut), learned, cut)
            parts.append(rows)
            gain = {key: round(said[key], 4) for key in ("gain", "gain_low", "gain_high") if key in said}
            print(f"  re-ranker of {cut}: used {said['gain_low'] > 0}, gain over {said.get('best_retriever', 'nothing')}: {gain}")
        ours["ours, learned"] = pl.concat(parts)
        print(f"learned: {len(cuts)} fits with all lists in {time.process_time() - started:.1f} CPU s")
    means: dict[str, list[dict[str, float]]] = {}
    for cut in cuts:
        past = events.filter(pl.col("event_date") <= cut).with_columns(
            value=pl.col("event_type").replace_strict(VALUES, default=0.0)
        )
        past = (
            past.filter(pl.col("value") > 0)
            .group_by("user_id", "item_id", "event_date")
            .agg(pl.col("value").max())
            .sort("user_id", "item_id", "event_date")
        )
        after = pl.col("event_date").is_between(cut + timedelta(days=1), cut + timedelta(days=horizon))
        wanted = events.filter(after, pl.col("event_type").is_in(kinds)).select("user_id", "item_id").unique()
        wanted = wanted.join(past.select("user_id").unique(), on="user_id", how="semi")
        asked = wanted["user_id"].unique().sort().to_numpy()
        lists = peers(past, asked, cut)
        for label, table in ours.items():
            in_force = table.filter(pl.col("as_of_date") <= cut, pl.col("item_id").is_not_null())
            newest = in_force.filter(pl.col("as_of_date") == pl.col("as_of_date").max().over("user_id"))
            lists[label] = newest.select("user_id", "item_id", "rank")
        scores = {label: per_user(table, wanted) for label, table in lists.items()}
        best = max((label for label in scores if not label.startswith("ours")), key=lambda label: scores[label]["ndcg"].mean())
        print(f"{cut}, {len(asked)} users")
        for label, table in scores.items():
            row = {column: float(table[column].mean()) for column in ("ndcg", "recall", "f1")}  # type: ignore[arg-type]
            means.setdefault(label, []).append(row)
            print(f"  {label:24s} nDCG@10 {row['ndcg']:.4f}  recall@20 {row['recall']:.4f}  F1@20 {row['f1']:.4f}", end="")
            low, high = interval((table["ndcg"] - scores[best]["ndcg"]).to_numpy())
            print(f"  nDCG against {best}: {low:+.4f} to {high:+.4f}" if label.startswith("ours") else "")
    print("averaged over the cut dates")
    average = {label: {k: float(np.mean([row[k] for row in rows])) for k in rows[0]} for label, rows in means.items()}
    tops = {k: max(row[k] for label, row in average.items() if not label.startswith("ours")) for k in ("ndcg", "recall", "f1")}
    for label, row in average.items():
        ratios = "  ".join(f"{k} {row[k]:.4f} ({row[k] / tops[k]:.3f} x)" for k in row)
        print(f"  {label:24s} {ratios}")


# --- baskets ------------------------------------------------------------------------------------------------------------

def basket_peers(past: pl.DataFrame, given: pl.DataFrame, cut: date) -> dict[str, pl.DataFrame]:
    """Lists for the baskets given, from those before the cut: item-to-item of implicit, EASE over baskets, popularity."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from implicit.nearest_neighbours import BM25Recommender, CosineRecommender

    baskets, items = past["basket_id"].unique().sort(), past["item_id"].unique().sort().to_numpy()
    asked = given["basket_id"].unique().sort().to_numpy()

    def matrix(rows: pl.DataFrame, names: np.ndarray) -> sp.csr_matrix:
        at = np.searchsorted(names, rows["basket_id"].to_numpy()), np.searchsorted(items, rows["item_id"].to_numpy())
        return sp.csr_matrix((np.ones(rows.height), at), shape=(len(names), len(items)))

    counts, held = matrix(past, baskets.to_numpy()), matrix(given, asked)
    lists = {}
    for label, peer in (("implicit BM25", BM25Recommender(K=100, num_threads=1)), ("implicit cosine", CosineRecommender(K=100, num_threads=1))):
        peer.fit(counts, show_progress=False)
        ids, _ = peer.recommend(np.arange(len(asked)), held, N=K_RECALL, filter_already_liked_items=True)
        lists[label] = listed(ids, asked, items)
    lately = past.filter(pl.col("event_date") > cut - timedelta(days=28))
    popular = np.tile(np.bincount(np.searchsorted(items, lately["item_id"].to_numpy()), minlength=len(items)).astype(float), (len(asked), 1))
    _, frequent, weights = ease(counts, 100.0)
    together = np.zeros(held.shape)
    together[:, frequent] = held[:, frequent] @ weights
    for label, scores in (("popular of 28 days", popular), ("EASE over baskets", together)):
        scores[held.nonzero()] = -np.inf
        lists[label] = top_lists(scores, asked, items)
    return lists


def run_baskets(args: argparse.Namespace) -> None:
    """Half of each basket of the days after a cut is given, the other half is to be found."""
    from marketing_assets.recommendations import for_basket

    cuts = [date.fromisoformat(cut) for cut in (args.cuts.split(",") if args.cuts else CUTS["online_retail"])]
    store, warehouse, _ = prepared("online_retail", "plain", max(cuts) + timedelta(days=7))
    baskets = warehouse.connection.execute(
        "SELECT order_id AS basket_id, item_id, max(event_date) AS event_date FROM clean_events WHERE event_type = 'purchase' "
        "AND NOT is_bot AND NOT is_service AND item_id IS NOT NULL AND order_id IS NOT NULL GROUP BY ALL ORDER BY ALL"
    ).pl()
    means: dict[str, list[tuple[float, float]]] = {}
    for cut in cuts:
        past = baskets.filter(pl.col("event_date") <= cut)
        after = baskets.filter(pl.col("event_date").is_between(cut + timedelta(days=1), cut + timedelta(days=7)))
        after = after.join(past.select("item_id").unique(), on="item_id", how="semi").filter(pl.len().over("basket_id") > 1)
        drawn = after.with_columns(turn=pl.struct("basket_id", "item_id").hash(7)).sort("basket_id", "turn")
        is_given = pl.int_range(pl.len()).over("basket_id") < (pl.len().over("basket_id") + 1) // 2
        given, wanted = drawn.filter(is_given), drawn.filter(~is_given).select("item_id", user_id="basket_id")
        lists = basket_peers(past, given, cut)
        started = time.process_time()
        asked = {str(key[0]): rows["item_id"].to_list() for key, rows in given.group_by("basket_id")}
        ours = for_basket(warehouse.reader(cut), cut, store, asked, K_RECALL)
        spent = time.process_time() - started
        lists["ours"] = ours.select("item_id", "rank", user_id="basket_id")
        scores = {label: per_user(table, wanted) for label, table in lists.items()}
        best = max((label for label in scores if label != "ours"), key=lambda label: scores[label]["ndcg"].mean())
        low, high = interval((scores["ours"]["ndcg"] - scores[best]["ndcg"]).to_numpy())
        print(f"{cut}, {len(asked)} baskets, ours in {spent:.1f} CPU s; nDCG against {best}: {low:+.4f} to {high:+.4f}")
        for label, table in scores.items():
            row = float(table["ndcg"].mean()), float(table["recall"].mean())  # type: ignore[arg-type]
            means.setdefault(label, []).append(row)
            print(f"  {label:24s} nDCG@10 {row[0]:.4f}  recall@20 {row[1]:.4f}")
    print("averaged over the cut dates")
    average = {label: np.mean(rows, axis=0) for label, rows in means.items()}
    tops = np.max([row for label, row in average.items() if label != "ours"], axis=0)
    for label, row in average.items():
        print(f"  {label:24s} nDCG@10 {row[0]:.4f} ({row[0] / tops[0]:.3f} x)  recall@20 {row[1]:.4f} ({row[1] / tops[1]:.3f} x)")


# --- speed --------------------------------------------------------------------------------------------------------------


def run_speed(args: argparse.Namespace) -> None:
    """One re-issue day over a large shop: everyone's list, links counted anew. Frames are made here, reading is included."""
    from marketing_assets.config import SourceBlock
    from marketing_assets.warehouse import polars_schema, reader_over

    generator = np.random.default_rng(1)
    day, first = date(2024, 12, 26), date(2024, 1, 4)
    n = args.users * args.events
    user = np.repeat(np.arange(args.users), args.events)
    popularity = 1 / np.arange(1, args.items + 1) ** 0.8
    item = generator.choice(args.items, size=n, p=popularity / popularity.sum())
    ago = np.minimum((generator.exponential(90, n)).astype(int), 350)
    if args.looks:  # of ten events eight are looks, one a cart, one a purchase, both of what is looked at next
        number = np.arange(n)
        seen = np.minimum(np.where(number % 10 < 2, number - number % 10 + 2, number), n - 1)
        item, ago = item[seen], ago[seen]
    dates = np.datetime64(day) - ago
    kind = pl.lit("purchase")
    if args.looks:
        tenth = pl.col("number") % 10
        kind = pl.when(tenth == 0).then(kind).when(tenth == 1).then(pl.lit("add_to_cart")).otherwise(pl.lit("view_item"))
    base = pl.DataFrame({"number": np.arange(n), "u": user, "i": item, "d": dates})
    ids = base.select(
        user_id=pl.format("u{}", "u"), item_id=pl.format("i{}", "i"), event_date=pl.col("d").cast(pl.Date), number="number"
    )
    events = ids.with_columns(
        landed_date="event_date",
        event_id=pl.col("number").cast(pl.String),
        event_type=kind,
        event_at=pl.col("event_date").cast(pl.Datetime("us", "UTC")),
        is_bot=pl.lit(False),
        is_service=pl.lit(False),
    ).drop("number")
    shown = {"as_of_date": pl.lit(day), "issued_date": pl.lit(day)}
    items = ids.select("item_id").unique()
    frames = {
        "clean_events": events,
        "user_features": ids.select("user_id").unique().with_columns(**shown),
        "item_features": items.with_columns(**shown),
        "items": items.with_columns(
            as_of_date=pl.lit(day), is_service=pl.lit(False), first_seen_date=pl.lit(first),
            category=pl.format("c{}", pl.col("item_id").hash(1) % 200),
        ),
        "item_days": events.group_by("item_id", "event_date").agg(
            orders=(pl.col("event_type") == "purchase").sum(), carts=(pl.col("event_type") == "add_to_cart").sum(),
            views=(pl.col("event_type") == "view_item").sum(),
        ).with_columns(landed_date="event_date"),
    }
    store = Store(name="speed", timezone="UTC", currency="EUR", first_day=first, methods="plain", threads=2,
                  sources={"events": SourceBlock(files="x", columns={"event_at": "event_at"})})  # fmt: skip
    assert store.is_cadence_day(day, 7)
    reader = reader_over(
        {name: frame.select(c for c in polars_schema(name) if c in frame.columns) for name, frame in frames.items()}, store, day
    )
    del frames, events, ids, base
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    started, cpu = time.perf_counter(), time.process_time()
    built = build_recommendations(reader, [day], store)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{args.users:,} users, {args.items:,} items, {n:,} events: {time.perf_counter() - started:.1f} s wall, "
        f"{time.process_time() - cpu:.1f} CPU s, peak {peak:.2f} GB (inputs alone {before:.2f})"
    )
    lists = built.tables["recommendations"]
    assert isinstance(lists, pl.DataFrame)
    print(f"{lists.height:,} rows, by {', '.join(sorted(lists['policy_id'].drop_nulls().unique()))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parts = {"sequences": run_sequences, "online_retail": run_shop, "taobao": run_shop, "baskets": run_baskets, "speed": run_speed}
    parser.add_argument("what", nargs="?", choices=list(parts), help="default: all, one after the other")
    parser.add_argument("--validate", action="store_true", help="sequences: judge on the second-last item")
    parser.add_argument("--seed", type=int, default=7, help="sequences: permutation of the ids")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", default="plain,learned")
    parser.add_argument("--cuts", default="", help="dates, comma-separated")
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--events", type=int, default=30, help="speed: events per user")
    parser.add_argument("--looks", action="store_true", help="speed: a shop that records looks and carts, too")
    args = parser.parse_args()
    for what in [args.what] if args.what else parts:
        print(f"= {what}", flush=True)
        parts[what](argparse.Namespace(**{**vars(args), "what": what}))


if __name__ == "__main__":
    main()
