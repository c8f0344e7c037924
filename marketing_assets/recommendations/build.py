"""From histories to recommendations and item_recommendations for a window of days.

What belongs here: which lists are due on which day, and putting the tables together. What does not: scores, rules, words
(the other modules of this package).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import polars as pl
import scipy.sparse as sp

from marketing_assets.assignment import salted_share
from marketing_assets.config import UNKNOWN_USER, Store
from marketing_assets.model_store import ModelHistory, rollbacks
from marketing_assets.recommendations import reasons
from marketing_assets.recommendations.catalogue import Catalogue
from marketing_assets.recommendations.fits import (
    LINKS,
    MODELS,
    RANKER,
    TABLES,
    cut_days,
    fit_shop_links,
    fit_shop_ranker,
    link_days,
    ranker_days,
)
from marketing_assets.recommendations.history import Flags, Floats, History, Integers, due_entries, ordinal, read_history
from marketing_assets.recommendations.links import Links, LinkViews, Pairs, links_of
from marketing_assets.recommendations.lists import (
    BLOCK_CELLS,
    Explored,
    Ranked,
    Singles,
    best,
    explore,
    is_held_out,
    under_rules,
    wanted,
    with_promoted,
)
from marketing_assets.recommendations.ranker import Candidates, ItemFacts, Ranker, candidates, look, ranked
from marketing_assets.recommendations.scores import Retrieval, Scored, Taste, score, taste
from marketing_assets.warehouse import Built, FittedModel, Reader, polars_schema

POPULARITY, BLEND, RERANKED = "popularity", "blend", "reranked"
ITEM_LIST_LENGTH = 10
ANCHORS = 8
"""The item an entry goes with is sought among so many of the user's last."""


def build_recommendations(reader: Reader, days: Sequence[date], store: Store) -> Built:
    """recommendations (a list per user_features row of the window, and one for 'unknown' a day) and item_recommendations (one per
    item_features row).

    Reads user_features, item_features and inventory_plan of the window; items in force; clean_events of HISTORY_DAYS and
    item_days of POPULARITY_DAYS before the last day; item_drivers and identities; on keyframe days both own logs back to the
    keyframe before, for those not seen within ACTIVE_DAYS.
    """
    if not reader.has_source("events"):
        return Built(
            tables={name: pl.DataFrame(schema=polars_schema(name)) for name in TABLES},
            degraded=dict.fromkeys(TABLES, "needs source 'events'"),
        )
    due_users = due_entries(reader, days, "user_features", "user_id")
    due_items = due_entries(reader, days, "item_features", "item_id")
    triggers = link_days(reader, days, store)
    learning = ranker_days(reader, days, store) if store.methods == "learned" else {}
    cuts = [cut for day in learning for cut in cut_days(store, day)[0]]
    catalogue = Catalogue(reader, days, store, min(cuts, default=days[0]))
    back = rollbacks(reader, days, TABLES)
    history = read_history(reader, catalogue.items, min(cuts, default=days[0]), days, None if triggers or learning else due_users)
    models = ModelHistory(reader, days[0])
    window = _Window(store, catalogue, history)
    links_at = _PastLinks(reader, models, catalogue.items, days[0])
    seconds: dict[date, float] = {}
    users_by_day = _by_day(due_users.filter("is_active"), "user_id")
    items_by_day = _by_day(due_items.filter("is_active"), "item_id")
    for day in days:
        started = time.process_time()
        catalogue.at(day)
        fresh = fit_shop_links(models, history, day, triggers[day]) if day in triggers else None
        if day in learning:
            fit_shop_ranker(models, links_at, history, catalogue, day, learning[day], store)
        for version in back.get(day, []):
            models.roll_back(version, day, MODELS)
            fresh = None
        window.use(models.in_force(LINKS, day), fresh)
        window.use_ranker(models.in_force(RANKER, day) if store.methods == "learned" else None)
        window.add_users(day, users_by_day.get(day, pl.Series("user_id", [], dtype=pl.String)))
        window.add_items(day, items_by_day.get(day, pl.Series("item_id", [], dtype=pl.String)))
        seconds[day] = time.process_time() - started
    tables = {"recommendations": window.user_rows(), "item_recommendations": window.item_rows()}
    for (name, rows), due in zip(tables.items(), (due_users, due_items), strict=True):
        tables[name] = _with_restated(reader, name, rows, due, days)
    return Built(
        tables=tables, models=models.models, metrics={"recommendations": _metrics(tables["recommendations"], days, seconds)}
    )


class _PastLinks:
    """The links that were in force on past days, as the re-ranker's features of those days need them."""

    def __init__(self, reader: Reader, models: ModelHistory, items: pl.Series, start: date) -> None:
        self._reader, self._models, self._items, self._start = reader, models, items, start
        self._read: dict[str, LinkViews] = {}

    def __call__(self, day: date) -> LinkViews:
        stored = self._models.in_force(LINKS, day) if day >= self._start else self._reader.fitted(LINKS, day)
        if stored is None:
            return LinkViews(sp.csr_array((len(self._items), len(self._items))))
        if stored.model_version not in self._read:
            self._read[stored.model_version] = LinkViews(Links.from_text(stored.model).over(self._items))
        return self._read[stored.model_version]


def _by_day(due: pl.DataFrame, entity: str) -> dict[date, pl.Series]:
    return {part["as_of_date"][0]: part[entity] for part in due.partition_by("as_of_date", maintain_order=True)}


def _metrics(rows: pl.DataFrame, days: Sequence[date], seconds: dict[date, float]) -> dict[date, dict[str, float]]:
    counted = rows.group_by("as_of_date").agg(
        lists=pl.col("user_id").n_unique(), entries=pl.col("item_id").count(), items=pl.col("item_id").n_unique()
    )
    found = {row.pop("as_of_date"): {name: float(value) for name, value in row.items()} for row in counted.to_dicts()}
    none = {"lists": 0.0, "entries": 0.0, "items": 0.0}
    return {day: {**found.get(day, none), "scoring_seconds": seconds[day]} for day in days}


def _with_restated(reader: Reader, name: str, rows: pl.DataFrame, due: pl.DataFrame, days: Sequence[date]) -> pl.DataFrame:
    """Adds, on keyframe days, the entries in force of those not seen within ACTIVE_DAYS, as they were issued."""
    old = due.filter(~pl.col("is_active"))
    entity = "user_id" if name == "recommendations" else "item_id"
    for part in old.partition_by("as_of_date", maintain_order=True):
        day = part["as_of_date"][0]
        ours = rows.filter(pl.col("as_of_date") < day).join(part.select(entity), on=entity, how="semi")
        if days[0] > reader.store.first_day:
            before = reader.log_as_of(name, days[0] - timedelta(days=1)).join(part.select(entity), on=entity, how="semi")
            ours = pl.concat([before, ours])
        newest = ours.filter(pl.col("as_of_date") == pl.col("as_of_date").max().over(entity))
        rows = pl.concat([rows, newest.with_columns(as_of_date=pl.lit(day))])
    return rows.sort("as_of_date", entity, "rank")


class _Window:
    """Lists of a window as they are made, kept as arrays until the end."""

    def __init__(self, store: Store, catalogue: Catalogue, history: History) -> None:
        self.store = store
        self.catalogue = catalogue
        self.history = history
        self._how = Retrieval()
        self.links = LinkViews(sp.csr_array((len(catalogue.items), len(catalogue.items))))
        self._version: str | None = None
        self._ranker: Ranker | None = None
        self._ranker_version: str | None = None
        self._facts: ItemFacts = {}
        self._users: list[pl.DataFrame] = []
        self._items: list[pl.DataFrame] = []

    def use(self, model: FittedModel | None, fresh: Links | None) -> None:
        """Take over the links in force. fresh: the same, where they were counted this day and need no reading."""
        if model is not None and model.model_version != self._version:
            links = fresh if fresh is not None else Links.from_text(model.model)
            self.links = LinkViews(links.over(self.catalogue.items))
            self._version = model.model_version

    def use_ranker(self, model: FittedModel | None) -> None:
        """Take over the re-ranker in force; None, or one that did not earn its place: the plain blend."""
        version = None if model is None else model.model_version
        if version != self._ranker_version:
            booster = "" if model is None else json.loads(model.model)["booster"]
            self._ranker = Ranker(booster) if booster else None
            self._ranker_version = version

    # --- users ---------------------------------------------------------------------------------------------------------

    def add_users(self, day: date, users: pl.Series) -> None:
        """Lists of these users (sorted) and of 'unknown'."""
        settings, catalogue = self.store.recommendations, self.catalogue
        popularity = catalogue.popularity(day)
        allowed = catalogue.may_recommend
        scores = popularity[None, :].astype(np.float32)
        listed, pool = self._listed(scores, np.asarray(allowed[None, :]))
        common = explore(listed, pool, np.ones(1), settings.model_copy(update={"exploration_share": 0.0}))
        self._keep(
            day, pl.Series("user_id", [UNKNOWN_USER]), common, np.full(common.item.shape, reasons.POPULAR), POPULARITY, False
        )
        if not len(users):
            return
        is_holdout = is_held_out(users, settings)
        treated = users.filter(pl.Series(~is_holdout))
        self._keep_common(day, users.filter(pl.Series(is_holdout)), common, POPULARITY, True)
        if not len(catalogue.items):  # people came, but no item is known yet: everyone's list is as empty
            self._keep_common(day, treated, common, BLEND, False)
            return
        if self._ranker is not None:
            self._facts = catalogue.facts(day)
        block = max(1, BLOCK_CELLS // 4 // len(catalogue.items))
        for start in range(0, len(treated), block):
            self._add_block(day, treated[start : start + block], popularity)

    def _keep_common(self, day: date, users: pl.Series, common: Explored, policy: str, is_holdout: bool) -> None:
        """The list of unknown users for each of these."""
        if not len(users):
            return
        again = np.zeros(len(users), dtype=np.int64)
        repeated = Explored(common.item[again], common.score[again], common.propensity[again], common.is_random[again])
        self._keep(day, users, repeated, np.full(repeated.item.shape, reasons.POPULAR), policy, is_holdout)

    def _listed(self, scores: Singles, allowed: Flags) -> tuple[Ranked, Ranked]:
        settings, catalogue = self.store.recommendations, self.catalogue
        found = best(scores, allowed, wanted(settings))
        reserved = int(settings.promoted_share * settings.list_length)
        if reserved and catalogue.is_promoted.any():
            found = with_promoted(found, best(scores, allowed & catalogue.is_promoted, reserved))
        return under_rules(found, catalogue.category, catalogue.is_promoted, settings)

    def _reranked(self, ranker: Ranker, seen: Taste, scored: Scored, allowed: Flags) -> tuple[Ranked, Ranked]:
        settings, catalogue = self.store.recommendations, self.catalogue
        pairs = candidates(seen, scored, allowed, self._how)
        _, features = look(seen, scored, self.links, self._facts, pairs)
        scores = ranker.scores(features, self.store.threads)
        users = scored.blend.shape[0]
        found = ranked(pairs, scores, users, wanted(settings))
        reserved = int(settings.promoted_share * settings.list_length)
        if reserved and catalogue.is_promoted.any():
            promoted = catalogue.is_promoted[pairs.item]
            of_these = Candidates(pairs.user[promoted], pairs.item[promoted])
            found = with_promoted(found, ranked(of_these, scores[promoted], users, reserved))
        return under_rules(found, catalogue.category, catalogue.is_promoted, settings)

    def _add_block(self, day: date, users: pl.Series, popularity: Floats) -> None:
        settings, catalogue, history = self.store.recommendations, self.catalogue, self.history
        place = (
            np.searchsorted(history.users.to_numpy(), users.to_numpy())
            if len(history.users)
            else np.zeros(len(users), dtype=np.int64)
        )
        at = np.minimum(place, max(len(history.users) - 1, 0))
        is_there = (history.users[at.tolist()] == users).to_numpy() if len(history.users) else np.zeros(len(users), dtype=bool)
        seen = taste(history, np.where(is_there, at, -1).astype(np.int64), ordinal(day), self._how)
        scored = score(seen, self.links, popularity, self._how)
        allowed = catalogue.may_recommend[None, :]
        if not settings.is_repeatable:
            allowed = allowed & (seen.matrix(seen.bought).toarray() == 0)
        if self._ranker is not None:
            listed, pool = self._reranked(self._ranker, seen, scored, allowed)
        else:
            listed, pool = self._listed(scored.blend, allowed)
        chance = salted_share(users, f"exploration {day}").to_numpy()
        lists = explore(listed, pool, chance, settings)
        kind = _kinds(scored, seen, lists, self._how)
        policy = BLEND if self._ranker is None else RERANKED
        self._keep(day, users, lists, kind, policy, False, self._details(day, seen, lists, kind))

    def _details(self, day: date, seen: Taste, lists: Explored, kind: Integers) -> dict[str, Integers]:
        """times, days_ago and anchor (entry row of the item gone with, -1) of each entry, flat."""
        user = np.repeat(np.arange(lists.item.shape[0]), lists.item.shape[1])
        item, flat = lists.item.ravel(), kind.ravel()
        of_own = (item >= 0) & ((flat == reasons.OWN) | (flat == reasons.BOUGHT))
        times, days_ago = np.zeros(len(item), dtype=np.int64), np.zeros(len(item), dtype=np.int64)
        times[of_own] = np.rint(Pairs(seen.matrix(seen.bought)).at(user[of_own], item[of_own])).astype(np.int64)
        days_ago[of_own] = np.rint(Pairs(seen.matrix(seen.last)).at(user[of_own], item[of_own])).astype(np.int64)
        anchor = np.full(len(item), -1, dtype=np.int64)
        linked = np.flatnonzero((item >= 0) & (flat == reasons.LINKED))
        if len(linked):
            recent, strength = _strongest_of_rows(seen.matrix(seen.own), ANCHORS)
            strongest = np.zeros(len(linked))
            for place in range(recent.shape[1]):
                source = recent[user[linked], place]
                value = np.where(source >= 0, self.links.pairs.at(np.maximum(source, 0), item[linked]), 0.0)
                value = value * strength[user[linked], place]
                better = value > strongest
                strongest = np.where(better, value, strongest)
                anchor[linked] = np.where(better, self.catalogue.entry[source], anchor[linked])
        return {"times": times, "days_ago": days_ago, "anchor": anchor}

    def _keep(
        self,
        day: date,
        users: pl.Series,
        lists: Explored,
        kind: Integers,
        policy: str,
        is_holdout: bool,
        details: dict[str, Integers] | None = None,
    ) -> None:
        count, length = lists.item.shape
        flat = lists.item.ravel()
        rank = np.tile(np.arange(1, length + 1), count)
        kept = (flat >= 0) | (rank == 1)
        zeros = np.zeros(len(flat), dtype=np.int64)
        details = details or {"times": zeros, "days_ago": zeros, "anchor": zeros - 1}
        self._users.append(
            pl.DataFrame(
                {
                    "user_id": users.gather(np.repeat(np.arange(count), length)[kept]),
                    "rank": rank[kept],
                    "item": flat[kept],
                    "score": lists.score.ravel()[kept],
                    "kind": kind.ravel()[kept],
                    "logging_propensity": lists.propensity.ravel()[kept],
                    **{name: values[kept] for name, values in details.items()},
                }
            ).with_columns(as_of_date=pl.lit(day), policy_id=pl.lit(policy), is_holdout=pl.lit(is_holdout))
        )

    def user_rows(self) -> pl.DataFrame:
        rows = pl.concat(self._users)
        names = self.catalogue.entries.select(name=pl.coalesce("title", "item_id"))["name"]
        rows = rows.with_columns(
            item_id=_named(self.catalogue.items, rows["item"]),
            anchor=_named(names, rows["anchor"]),
            issued_date="as_of_date",
        )
        rows = rows.with_columns(reason=reasons.sentences(rows), score=pl.when(pl.col("item") >= 0).then("score"))
        rows = rows.with_columns(
            reason=pl.when(pl.col("item") >= 0).then("reason").otherwise(pl.lit("nothing may be recommended"))
        )
        return rows.select(pl.col(name).cast(kind) for name, kind in polars_schema("recommendations").items()).sort(
            "as_of_date", "user_id", "rank"
        )

    # --- items ---------------------------------------------------------------------------------------------------------

    def add_items(self, day: date, items: pl.Series) -> None:
        """What goes with these items: their strongest links that may be recommended."""
        if not len(items):
            return
        catalogue = self.catalogue
        source = catalogue.places(items)
        owner, target, strength = links_of(self.links.onward, source)
        allowed = catalogue.may_recommend[target]
        owner, target, strength = owner[allowed], target[allowed], strength[allowed]
        lengths = np.bincount(owner, minlength=len(items))
        rank = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 1
        kept = rank <= ITEM_LIST_LENGTH
        empty = np.flatnonzero(lengths == 0)
        self._items.append(
            pl.DataFrame(
                {
                    "item": np.concatenate([source[owner[kept]], source[empty]]),
                    "rank": np.concatenate([rank[kept], np.ones(len(empty), dtype=np.int64)]),
                    "recommended": np.concatenate([target[kept], np.full(len(empty), -1, dtype=np.int64)]),
                    "score": np.concatenate([np.round(strength[kept], 6), np.zeros(len(empty))]),
                }
            ).with_columns(as_of_date=pl.lit(day))
        )

    def item_rows(self) -> pl.DataFrame:
        schema = polars_schema("item_recommendations")
        if not self._items:
            return pl.DataFrame(schema=schema)
        rows = pl.concat(self._items).sort("as_of_date", "item", "rank")
        rows = rows.with_columns(
            item_id=_named(self.catalogue.items, rows["item"]),
            recommended_item_id=_named(self.catalogue.items, rows["recommended"]),
            score=pl.when(pl.col("recommended") >= 0).then("score"),
            issued_date="as_of_date",
        )
        return rows.select(pl.col(name).cast(kind) for name, kind in schema.items())


def _named(names: pl.Series, places: pl.Series) -> pl.Series:
    """names at places; null at -1."""
    return names.gather(places.set(places < 0, None)) if len(names) else pl.Series([None] * len(places), dtype=pl.String)


def _kinds(scored: Scored, seen: Taste, lists: Explored, how: Retrieval) -> Integers:
    """Which retriever adds most to each entry, as a reason's code."""
    shape = lists.item.shape
    item = np.maximum(lists.item, 0).ravel()
    user = np.repeat(np.arange(shape[0]), shape[1])
    own, linked, bought = (Pairs(matrix).at(user, item) for matrix in (scored.own, scored.linked, seen.matrix(seen.bought)))
    popular = how.popular * scored.popular[item]
    kind = np.where(own > 0, np.where(bought > 0, reasons.BOUGHT, reasons.OWN), reasons.LINKED)
    kind = np.where((own == 0) & (popular >= linked), reasons.POPULAR, kind)
    return np.where(lists.is_random, reasons.RANDOM, kind.reshape(shape)).astype(np.int64)


def _strongest_of_rows(matrix: sp.csr_array, count: int) -> tuple[Integers, Floats]:
    """Per row the columns and values of its `count` largest entries, largest first; -1 and 0 where there are fewer."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -np.round(matrix.data, 9), row))
    lengths = np.diff(matrix.indptr)
    place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kept = place < count
    columns = np.full((matrix.shape[0], count), -1, dtype=np.int64)
    values = np.zeros((matrix.shape[0], count))
    columns[row[order][kept], place[kept]] = matrix.indices[order][kept]
    values[row[order][kept], place[kept]] = matrix.data[order][kept]
    return columns, values
