"""The lists of a window as they are made, whole weeks at a time, kept as arrays until the end.

What belongs here: gathering the rows that share links and order, having them scored, ranked and put under the rules, and
turning them into tables. What does not: which days are built and what is fitted (build.py), scores, rules, words.
"""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl

from marketing_assets.assignment import salted_share
from marketing_assets.config import UNKNOWN_USER, Store
from marketing_assets.recommendations import reasons
from marketing_assets.recommendations.catalogue import Catalogue
from marketing_assets.recommendations.history import Flags, Floats, History, Integers
from marketing_assets.recommendations.links import Links, OtherForm, links_of, no_links
from marketing_assets.recommendations.lists import (
    BLOCK_CELLS,
    Explored,
    Ranked,
    Singles,
    explore,
    is_held_out,
    levels,
    places_of_best,
    under_rules,
    wanted,
    with_promoted,
)
from marketing_assets.recommendations.looks import look, with_factor
from marketing_assets.recommendations.ranker import Ranker, candidates
from marketing_assets.recommendations.scores import Retrieval, Scored, Taste, of_pairs
from marketing_assets.recommendations.states import DayState, Seen, States, look_at
from marketing_assets.recommendations.worth import TASTE_POWER
from marketing_assets.warehouse import polars_schema

POPULARITY, BLEND, RERANKED, WORTH = "popularity", "blend", "reranked", "worth"
ITEM_LIST_LENGTH = 10
LINK_POWER = 0.25
"""On an item's page its strongest link counts 2^LINK_POWER as much as what is not linked."""
BEST_ITEMS = 100
"""So many items with the highest rate after a look are considered for every page."""
ANCHORS = 5
"""The item an entry goes with is sought among so many of the user's strongest."""
DAYS_TOGETHER = 28
"""No more days than this wait to be made together."""


class UserLists:
    """recommendations of a window."""

    def __init__(self, store: Store, catalogue: Catalogue, history: History, due: pl.DataFrame) -> None:
        """due: as_of_date, user_id of the window."""
        self._store, self._catalogue, self._history = store, catalogue, history
        self._how = Retrieval()
        self._links = no_links(catalogue.items)
        self._ranker: Ranker | None = None
        self._open: list[tuple[DayState, pl.DataFrame]] = []
        self._made: list[pl.DataFrame] = []
        places = pl.DataFrame(
            {"user_id": history.users, "place": np.arange(len(history.users))}, schema={"user_id": pl.String, "place": pl.Int64}
        )
        people = due.select("user_id").unique()
        people = people.with_columns(is_holdout=pl.Series(is_held_out(people["user_id"], store.recommendations)))
        rows = due.select("as_of_date", "user_id").join(people, on="user_id", how="left")
        rows = rows.join(places, on="user_id", how="left").with_columns(pl.col("place").fill_null(-1))
        rows = rows.sort("as_of_date", "user_id")
        self._due = {part["as_of_date"][0]: part for part in rows.partition_by("as_of_date", maintain_order=True)}
        self._unknown = pl.DataFrame(
            {"as_of_date": [None], "user_id": [UNKNOWN_USER], "is_holdout": [False], "place": [-1]}, schema=rows.schema
        )

    def use(self, links: Links, ranker: Ranker | None) -> None:
        """Links and order from here on; None: the plain blend."""
        if links is not self._links or ranker is not self._ranker:
            self._make()
            self._links, self._ranker = links, ranker

    def add(self, day: date) -> None:
        """Lists of those due on `day` and of 'unknown', by the catalogue as it stands."""
        due = self._due.get(day)
        users = self._unknown if due is None else pl.concat([due, self._unknown]).sort("user_id")
        self._open.append((DayState.of(self._catalogue, day, self._ranker is not None), users))
        if len(self._open) >= DAYS_TOGETHER:
            self._make()

    def rows(self) -> pl.DataFrame:
        """The table, in the order of day, user and rank."""
        self._make()
        rows = pl.concat(self._made)
        names = self._catalogue.entries.select(name=pl.coalesce("title", "item_id"))["name"]
        has_item = pl.col("item") >= 0
        rows = rows.with_columns(item_id=named(self._catalogue.items, rows["item"]), anchor=named(names, rows["anchor"]))
        rows = rows.with_columns(
            issued_date="as_of_date",
            score=pl.when(has_item).then("score"),
            reason=pl.when(has_item).then(reasons.sentences(rows)).otherwise(pl.lit(reasons.NOTHING)),
        )
        return rows.select(pl.col(name).cast(kind) for name, kind in polars_schema("recommendations").items())

    # --- whole blocks --------------------------------------------------------------------------------------------------

    def _make(self) -> None:
        """Every list of the open days."""
        opened, self._open = self._open, []
        if not opened:
            return
        users = pl.concat([due for _, due in opened])
        which = np.repeat(np.arange(len(opened)), [due.height for _, due in opened])
        chance = np.concatenate([salted_share(due["user_id"], f"exploration {state.day}").to_numpy() for state, due in opened])
        is_common = ((users["user_id"] == UNKNOWN_USER) | users["is_holdout"]).to_numpy()
        place = np.where(is_common, -1, users["place"].to_numpy())
        items = max(len(self._catalogue.items), 1)
        block = max(1, BLOCK_CELLS // items)
        state = States([day for day, _ in opened], self._store)
        for start in range(0, len(place), block):
            rows = slice(start, start + block)
            self._made.append(self._block(state, which[rows], place[rows], is_common[rows], chance[rows], users[rows]))

    def _block(
        self, state: States, which: Integers, place: Integers, is_common: Flags, chance: Floats, users: pl.DataFrame
    ) -> pl.DataFrame:
        settings = self._store.recommendations
        block = look_at(state, self._history, place, which, self._links, self._how, self._ranker is None and not state.is_by_worth.any())
        seen, scored = block.taste, block.scored
        allowed = state.allowed[which[scored.row], scored.item]
        if not settings.is_repeatable:
            allowed &= of_pairs(seen, scored, seen.bought) == 0
        by_worth = state.is_by_worth[which] & ~users["is_holdout"].to_numpy()
        order = self._order(state, which, block, allowed, is_common, by_worth)
        listed, pool = self._listed(state, which, scored, order, allowed & np.isfinite(order), len(place))
        lists = explore(listed, pool, chance, ~is_common, settings)
        policy = np.where(is_common, POPULARITY, BLEND if self._ranker is None else RERANKED)
        policy = np.where(by_worth, WORTH, policy)
        return self._rows(state, which, seen, scored, lists, users.with_columns(policy_id=pl.Series(policy)))

    def _order(
        self, state: States, which: Integers, block: Seen, allowed: Flags, is_common: Flags, by_worth: Flags
    ) -> Singles:
        """What the pairs are ordered by: what showing them is worth, the re-ranker's scores of its candidates, or the blend."""
        scored = block.scored
        is_worth = by_worth[scored.row]
        order = scored.blend
        may = allowed & ~is_worth & ~is_common[scored.row]
        if self._ranker is not None and may.any():
            order = self._reranked(state, which, block, may, is_common)
        return np.where(is_worth, state.worth(block, self._links), order) if is_worth.any() else order

    def _reranked(self, state: States, which: Integers, block: Seen, may: Flags, is_common: Flags) -> Singles:
        """The re-ranker's scores of its candidates, -inf elsewhere; the blend for lists common to many."""
        assert self._ranker is not None
        scored = block.scored
        chosen = candidates(block.taste, scored, may, self._how)
        names, values = look(block, self._links, state, which, chosen, self._how)
        if names != self._ranker.names:
            raise OtherForm(
                "recommendations.ranker: looks at other numbers than this version of the code makes; build recommendations again "
                "from the day of its fit, or ask for a refit of the newest day"
            )
        order = np.where(is_common[scored.row], scored.blend, np.float32(-np.inf))
        order[chosen.place] = with_factor(self._ranker.scores(values, self._store.threads), block.factor[chosen.place])
        return order

    def _listed(
        self, state: States, which: Integers, scored: Scored, order: Singles, allowed: Flags, rows: int
    ) -> tuple[Ranked, Ranked]:
        settings = self._store.recommendations
        kept = np.flatnonzero(allowed)
        level = levels(order[kept])

        def best(of: Integers, count: int) -> Integers:
            found = places_of_best(scored.row[kept[of]], level[of], scored.item[kept[of]], rows, count)
            return np.where(found >= 0, kept[of][found] if len(of) else -1, -1)

        places = best(np.arange(len(kept)), wanted(settings))
        promoted = state.promoted[which[scored.row[kept]], scored.item[kept]] if state.reserved else np.zeros(len(kept), dtype=bool)
        if promoted.any():
            places = with_promoted(places, best(np.flatnonzero(promoted), state.reserved))
        is_there = places >= 0
        item = np.where(is_there, scored.item[places], -1) if len(scored.item) else places
        value = np.where(is_there, order[places], 0.0) if len(scored.item) else np.zeros(places.shape)
        day = which[:, None]
        ranked = Ranked(item, np.asarray(np.round(value.astype(np.float64), 6), dtype=np.float64), places)
        return under_rules(ranked, np.where(is_there, state.category[day, item], -1) if is_there.any() else places,
                           is_there & state.promoted[day, item] if is_there.any() else is_there, settings)  # fmt: skip

    def _rows(
        self, state: States, which: Integers, seen: Taste, scored: Scored, lists: Explored, users: pl.DataFrame
    ) -> pl.DataFrame:
        rows, length = lists.item.shape
        flat = lists.item.ravel()
        rank = np.tile(np.arange(1, length + 1), rows)
        kept = np.flatnonzero((flat >= 0) | (rank == 1))
        row, pair = np.repeat(np.arange(rows), length)[kept], lists.place.ravel()[kept]
        whole = users[row]
        is_there = pair >= 0

        def of(values: Singles) -> Singles:
            return np.where(is_there, values[pair], np.float32(0)) if len(values) else np.zeros(len(pair), dtype=np.float32)

        bought = of(of_pairs(seen, scored, seen.bought))
        kind = _kinds(of(scored.own), of(scored.linked), of(scored.popular), bought, lists.is_random.ravel()[kept], self._how)
        # in lists by worth an item nothing of the person speaks for is there for its rate after a look
        unspoken = np.flatnonzero(is_there & (kind == reasons.POPULAR) & (whole["policy_id"] == WORTH).to_numpy())
        kind[unspoken[state.turn[which[row[unspoken]], flat[kept][unspoken]] > 1]] = reasons.CHOSEN
        days_ago = of(of_pairs(seen, scored, seen.last))
        anchor = self._anchors(state, which, seen, row, flat[kept], kind)
        return pl.DataFrame(
            {
                "as_of_date": pl.Series([day.day for day in state.days], dtype=pl.Date).gather(which[row]),
                "user_id": whole["user_id"],
                "rank": rank[kept],
                "item": flat[kept],
                "score": lists.score.ravel()[kept],
                "kind": kind,
                "times": np.rint(bought).astype(np.int64),
                "days_ago": np.rint(days_ago).astype(np.int64),
                "anchor": anchor,
                "policy_id": whole["policy_id"],
                "is_holdout": whole["is_holdout"],
                "logging_propensity": lists.propensity.ravel()[kept],
            }
        )

    def _anchors(
        self, state: States, which: Integers, seen: Taste, row: Integers, item: Integers, kind: Integers
    ) -> Integers:
        """For entries that go with something, the catalogue's entry of that item: of the user's strongest, the one that links
        most; -1 where none of them does."""
        anchor = np.full(len(row), -1, dtype=np.int64)
        linked = np.flatnonzero((item >= 0) & (kind == reasons.LINKED))
        if not len(linked) or not len(seen.row):
            return anchor
        strongest = places_of_best(seen.row, levels(seen.own), seen.item, seen.rows, ANCHORS)[row[linked]]
        best = np.zeros(len(linked))
        for place in range(ANCHORS):
            pair = strongest[:, place]
            source = seen.item[pair]
            value = np.where(pair >= 0, self._links.pairs.at(source, item[linked]) * seen.own[pair], 0.0)
            better = value > best
            best = np.where(better, value, best)
            anchor[linked] = np.where(better, state.entry[which[row[linked]], source], anchor[linked])
        return anchor


def _kinds(
    own: Singles, linked: Singles, popular: Singles, bought: Singles, is_random: Flags, how: Retrieval
) -> Integers:
    """Which retriever adds most to each entry, as a reason's code."""
    kind = np.where(own > 0, np.where(bought > 0, reasons.BOUGHT, reasons.OWN), reasons.LINKED)
    kind = np.where((own == 0) & (how.popular * popular >= how.linked * linked), reasons.POPULAR, kind)
    return np.where(is_random, reasons.RANDOM, kind).astype(np.int64)


def named(names: pl.Series, places: pl.Series) -> pl.Series:
    """names at places; null at -1."""
    return names.gather(places.set(places < 0, None)) if len(names) else pl.Series([None] * len(places), dtype=pl.String)


class ItemLists:
    """item_recommendations of a window: an item's links that may be recommended, strongest first; or, where that can be told, what it
    is worth most to show those who look at the item."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._best_items = BEST_ITEMS if catalogue.store.recommendations.page_items == "any" else 0
        self._made: list[pl.DataFrame] = []

    def add(self, day: date, items: pl.Series | None, links: Links) -> None:
        """items: ids, sorted; None: none are due."""
        if items is None:
            return
        catalogue = self._catalogue
        source = catalogue.places(items)
        owner, target, strength = links_of(links.matrix, source)
        kind = np.full(len(owner), reasons.LINKED)
        if catalogue.turn.any():
            owner, target, strength, kind = self._by_worth(source, owner, target, strength, links)
        allowed = catalogue.may_recommend[target]
        owner, target, strength, kind = owner[allowed], target[allowed], strength[allowed].astype(np.float64), kind[allowed]
        lengths = np.bincount(owner, minlength=len(items))
        rank = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 1
        kept = rank <= ITEM_LIST_LENGTH
        empty = np.flatnonzero(lengths == 0)
        order = np.argsort(np.concatenate([owner[kept], empty]), kind="stable")
        self._made.append(
            pl.DataFrame(
                {
                    "item": np.concatenate([source[owner[kept]], source[empty]])[order],
                    "rank": np.concatenate([rank[kept], np.ones(len(empty), dtype=np.int64)])[order],
                    "recommended": np.concatenate([target[kept], np.full(len(empty), -1, dtype=np.int64)])[order],
                    "score": np.concatenate([np.round(strength[kept], 6), np.zeros(len(empty))])[order],
                    "kind": np.concatenate([kind[kept], np.full(len(empty), -1)])[order],
                }
            ).with_columns(as_of_date=pl.lit(day))
        )

    def _by_worth(
        self, source: Integers, owner: Integers, target: Integers, strength: Floats, links: Links
    ) -> tuple[Integers, Integers, Floats, Integers]:
        """Each source's links and what is best after a look, by rate x taste of those who look at the source, linked ones before their
        equals: place of the source, item, worth and the kind of reason."""
        turn = np.where(self._catalogue.may_recommend, self._catalogue.turn, 0.0)
        best = np.argsort(-turn, kind="stable")[: self._best_items]
        linked, items = owner * len(turn) + target, len(turn)
        pair = np.union1d(linked, (np.arange(len(source))[:, None] * items + best).ravel())
        strongest = np.zeros(len(source))
        np.maximum.at(strongest, owner, strength)
        relative = np.zeros(len(pair))
        relative[np.searchsorted(pair, linked)] = strength / strongest[owner]
        owner, target = pair // items, pair % items
        taste = links.tastes.of_those_who_look(source[owner], target)
        value = np.where(source[owner] == target, 0.0, turn[target] * taste**TASTE_POWER * (1 + relative) ** LINK_POWER)
        order = np.lexsort((target, -levels(value), owner))
        order = order[value[order] > 0]
        kind = np.where(relative > 0, reasons.LINKED, np.where(turn[target] > 1, reasons.CHOSEN, reasons.LIKED))
        return owner[order], target[order], value[order], kind[order]

    def rows(self) -> pl.DataFrame:
        """The table, in the order of day, item and rank."""
        schema = polars_schema("item_recommendations")
        if not self._made:
            return pl.DataFrame(schema=schema)
        rows = pl.concat(self._made)
        rows = rows.with_columns(
            item_id=named(self._catalogue.items, rows["item"]),
            recommended_item_id=named(self._catalogue.items, rows["recommended"]),
            score=pl.when(pl.col("recommended") >= 0).then("score"),
            reason=reasons.of_pages(rows["kind"]),
            issued_date="as_of_date",
        )
        return rows.select(pl.col(name).cast(kind) for name, kind in schema.items())
