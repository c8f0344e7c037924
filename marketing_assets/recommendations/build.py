"""From histories to recommendations and item_recommendations for a window of days.

What belongs here: which lists are due on which day, and putting the tables together. What does not: scores, rules, words
(the other modules of this package).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import date, timedelta

import polars as pl

from marketing_assets.config import RANKED_WEEKS, Store
from marketing_assets.model_store import ModelHistory, rollbacks
from marketing_assets.recommendations.catalogue import Catalogue
from marketing_assets.recommendations.fits import (
    LINKS,
    MODELS,
    RANKER,
    TABLES,
    LinkFits,
    cut_days,
    fit_shop_ranker,
    link_days,
    ranker_days,
)
from marketing_assets.recommendations.history import due_entries, read_history
from marketing_assets.recommendations.links import Links, no_links
from marketing_assets.recommendations.ranker import Ranker
from marketing_assets.recommendations.window import ItemLists, UserLists
from marketing_assets.warehouse import Built, FittedModel, Reader, polars_schema


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
    fits = LinkFits(models, history, store, catalogue)
    in_force = _InForce(reader, models, catalogue.items, days[0])
    users, items = UserLists(store, catalogue, history, due_users.filter("is_active")), ItemLists(catalogue)
    items_by_day = _by_day(due_items.filter("is_active"), "item_id")
    seconds: dict[date, float] = {}
    for day in days:
        started = time.process_time()
        catalogue.at(day)
        if day in triggers:
            fits.fit(day, triggers[day])
        if day in learning and not catalogue.turn.any():
            fit_shop_ranker(models, in_force.links, history, catalogue, day, learning[day], store)
        for version in back.get(day, []):
            models.roll_back(version, day, MODELS)
        links = in_force.links(day)
        users.use(links, in_force.ranker(day) if store.methods == "learned" else None)
        users.add(day)
        items.add(day, items_by_day.get(day), links)
        seconds[day] = time.process_time() - started
    tables = {"recommendations": users.rows(), "item_recommendations": items.rows()}
    for (name, rows), due in zip(tables.items(), (due_users, due_items), strict=True):
        tables[name] = _with_restated(reader, name, rows, due, days)
    return Built(
        tables=tables, models=models.models, metrics={"recommendations": _metrics(tables["recommendations"], days, seconds)}
    )


REMEMBERED = RANKED_WEEKS + 4
"""So many read models are kept: those a fit of the re-ranker looks back over, and a few more."""


class _InForce:
    """The links over the window's catalogue, and the re-ranker, in force on a day of the window or before it."""

    def __init__(self, reader: Reader, models: ModelHistory, items: pl.Series, start: date) -> None:
        self._reader, self._models, self._items, self._start = reader, models, items, start
        self._none = no_links(items)
        self._links: dict[str, Links] = {}
        self._rankers: dict[str, Ranker | None] = {}

    def _stored(self, name: str, day: date) -> FittedModel | None:
        return self._models.in_force(name, day) if day >= self._start else self._reader.fitted(name, day)

    def links(self, day: date) -> Links:
        stored = self._stored(LINKS, day)
        if stored is None:
            return self._none
        if stored.model_version not in self._links:
            self._links[stored.model_version] = Links.from_text(stored.model).over(self._items)
            if len(self._links) > REMEMBERED:
                del self._links[next(iter(self._links))]
        return self._links[stored.model_version]

    def ranker(self, day: date) -> Ranker | None:
        """None before the first, and where it did not earn its place: the plain blend."""
        stored = self._stored(RANKER, day)
        if stored is None:
            return None
        if stored.model_version not in self._rankers:
            booster = json.loads(stored.model)["booster"]
            self._rankers[stored.model_version] = Ranker(booster) if booster else None
        return self._rankers[stored.model_version]


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
    return rows.sort("as_of_date", entity, "rank") if len(old) else rows
