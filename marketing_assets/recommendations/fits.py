"""Every fit and rollback of the recommendation models over a window of days.

What belongs here: on which days models refit and what the registry records. What does not: the models themselves.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp

from marketing_assets.config import RANKED_WEEKS, REISSUE_DAYS, Store
from marketing_assets.model_store import ModelHistory, compare, fit_days, held_out, new_fit
from marketing_assets.recommendations.catalogue import Catalogue
from marketing_assets.recommendations.history import HISTORY_DAYS, Flags, Floats, History, Integers, ordinal
from marketing_assets.recommendations.links import Links, LinkSettings, PairCounts
from marketing_assets.recommendations.lists import BLOCK_CELLS, Singles
from marketing_assets.recommendations.looks import look, with_factor
from marketing_assets.recommendations.next_visits import next_visits
from marketing_assets.recommendations.ranker import PARAMETERS, ROUNDS, Candidates, Ranker, candidates, fit_ranker
from marketing_assets.recommendations.scores import Retrieval
from marketing_assets.recommendations.states import DayState, States, look_at
from marketing_assets.recommendations.tastes import Tastes, directions
from marketing_assets.recommendations.traits import liked_directions
from marketing_assets.recommendations.worth import familiarity
from marketing_assets.warehouse import Reader, Trigger

LINKS = "recommendations.links"
RANKER = "recommendations.ranker"
MODELS = (LINKS, RANKER)
TABLES = ("recommendations", "item_recommendations")
SHOP_LINKS = LinkSettings()
KINDS = (("together", 0, 0), ("next", 1, 1), ("soon", 2, 2))
PRIOR_PEOPLE = 10.0
"""A share of people is drawn to the shop's own as by so many."""
_SPAN = 1 << 20
"""Room for a day below a user's number."""


def link_days(reader: Reader, days: Sequence[date], store: Store) -> dict[date, Trigger]:
    """Links are counted anew daily in a shop's first week, weekly in its first eight, then every second: the more is known, the
    less a day adds."""
    found: dict[date, Trigger] = {}
    start = 0
    for age, cadence in ((REISSUE_DAYS, 1), (8 * REISSUE_DAYS, REISSUE_DAYS), (None, 2 * REISSUE_DAYS)):
        until = len(days) if age is None else sum((day - store.first_day).days < age for day in days)
        if days[start:until]:
            found |= fit_days(reader, days[start:until], store, TABLES, cadence)
        start = max(start, until)
    return found


class LinkFits:
    """The link fits of a window, each from everything known at the end of its day; only what changed is counted anew."""

    def __init__(self, models: ModelHistory, history: History, store: Store, catalogue: Catalogue) -> None:
        self._models, self._history, self._catalogue = models, history, catalogue
        self._is_learned = store.methods == "learned"
        self._is_by_worth = store.recommendations.objective == "conversion"
        self._how = replace(SHOP_LINKS, kinds=KINDS) if self._is_learned else SHOP_LINKS
        self._counts = PairCounts(len(history.items), self._how)

    def fit(self, day: date, trigger: Trigger) -> None:
        """Promoted at once: links are counts and predict nothing by themselves. The catalogue stands at `day`."""
        started = time.process_time()
        history, items = self._history, self._history.items
        rows = np.flatnonzero((history.known <= ordinal(day)) & (history.known > ordinal(day) - HISTORY_DAYS))
        visit = history.user[rows] * _SPAN + history.happened[rows]
        rows = rows[np.argsort(visit * len(items) + history.item[rows], kind="stable")]
        self._counts.update(history.user[rows], history.happened[rows], history.item[rows], history.strength[rows])
        matrix, kinds = self._counts.links()
        is_by_worth = self._is_by_worth and bool(history.views[rows].any())  # there the order hangs on no re-ranker
        effects = next_visits(history, rows, ordinal(day)) if self._is_learned and not is_by_worth else None
        kept = np.flatnonzero(_has_entry(matrix) | (_has_entry(effects) if effects is not None else False))
        facts = {name: values[kept] for name, values in user_facts(history, rows).items()} if self._is_learned else {}
        effects = None if effects is None else _restricted(effects, kept)
        tastes, familiar = self._looked(rows, kept)
        links = Links.kept(items.gather(kept), _restricted(matrix, kept), kinds, facts, tastes, familiar, effects)
        self._models.add(
            new_fit(
                LINKS,
                day,
                trigger,
                is_promoted=True,
                model=links.as_text(),
                model_format="json",
                parameters=asdict(self._how),
                features=["purchases", "carts", "wishlists", "views"],
                metrics={"items": len(kept), "links": int(matrix.nnz)},
                seconds=time.process_time() - started,
            )
        )

    def _looked(self, rows: Integers, kept: Integers) -> tuple[Tastes, Singles] | tuple[None, None]:
        """What looks tell from these rows: tastes over the items kept, and familiarity. Nothing where lists do not go by it."""
        history = self._history
        is_looked = history.views[rows] > 0
        if not (self._is_by_worth and is_looked.any()):
            return None, None
        looked = rows[is_looked]
        user, place = np.unique(history.user[looked], return_inverse=True)
        views = history.views[looked].astype(np.float64)
        matrix = sp.csr_array((views, (place, history.item[looked])), shape=(len(user), len(history.items)))
        tastes = Tastes(*directions(matrix), *liked_directions(matrix, self._catalogue.traits()))
        taste = np.ones(len(rows))
        taste[is_looked] = tastes.of_pairs(matrix, place, history.item[looked])
        return tastes.of_items(kept), familiarity(history, rows, taste)


def user_facts(history: History, rows: Integers) -> dict[str, Singles]:
    """Of items, from these rows: how many had it, which share of them came back to it, on another day, and bought it again;
    and what a purchase of it is worth (log)."""
    items = len(history.items)
    found = {}
    for name, ours in (("had", rows), ("bought", rows[history.is_bought[rows]])):
        key, days = np.unique(history.user[ours] * items + history.item[ours], return_counts=True)
        people = np.bincount(key % items, minlength=items)
        again = np.bincount((key % items)[days > 1], minlength=items)
        share = float(again.sum()) / max(float(people.sum()), 1.0)
        found[f"{name}_by"] = np.log1p(people).astype(np.float32)
        found[f"{name}_again"] = ((again + PRIOR_PEOPLE * share) / (people + PRIOR_PEOPLE)).astype(np.float32)
    bought = rows[history.is_bought[rows]]
    spent = np.bincount(history.item[bought], weights=history.spent[bought], minlength=items)
    found["line"] = np.log1p(spent / np.maximum(np.bincount(history.item[bought], minlength=items), 1)).astype(np.float32)
    return found


def _has_entry(matrix: sp.csr_array) -> Flags:
    """Items with something in their row or column."""
    return np.asarray((np.diff(matrix.indptr) > 0) | (np.bincount(matrix.indices, minlength=matrix.shape[0]) > 0))


def _restricted(matrix: sp.csr_array, kept: Integers) -> sp.csr_array:
    """The rows and columns of these items, order within rows unchanged."""
    place = np.full(matrix.shape[0], -1, dtype=np.int64)
    place[kept] = np.arange(len(kept))
    lengths = np.diff(matrix.indptr)[kept]
    return sp.csr_array(
        (matrix.data, place[matrix.indices], np.concatenate([[0], np.cumsum(lengths)])), shape=(len(kept), len(kept))
    )


# --- the re-ranker ------------------------------------------------------------------------------------------------------

COMPARED_CUTS = 4
"""It is compared with the plain blend, and with the re-ranker in force, on the held-out users of so many newest."""
HORIZON_DAYS = 7
YOUNG_DAYS = 28
"""In a shop younger than this the re-ranker learns from what people did the day after, and its cuts are a day apart."""
MAX_USERS = 2_000
"""Users per cut beyond this are thinned by hash."""


def ranker_days(reader: Reader, days: Sequence[date], store: Store) -> dict[date, Trigger]:
    """Every cadence_days; in a shop's first weeks every REISSUE_DAYS."""
    young = [day for day in days if (day - store.first_day).days < YOUNG_DAYS]
    grown = days[len(young) :]
    found = fit_days(reader, young, store, TABLES, REISSUE_DAYS) if young else {}
    return found | (fit_days(reader, grown, store, TABLES, store.recommendations.cadence_days) if grown else {})


def cut_days(store: Store, day: date) -> tuple[list[date], int]:
    """Past days to learn from, newest first, and the days after each that count."""
    horizon = HORIZON_DAYS if (day - store.first_day).days >= YOUNG_DAYS else 1
    newest = day - timedelta(days=horizon)
    found = [newest - timedelta(days=horizon * back) for back in range(RANKED_WEEKS)]
    return [cut for cut in found if cut >= store.first_day], horizon


def outcomes(history: History, cut: int, horizon: int, day: int) -> tuple[Integers, Integers, Integers]:
    """user, item, label (2 bought, 1 put in the cart) of the days after `cut`, from what was known on `day`."""
    after = (history.happened > cut) & (history.happened <= cut + horizon) & (history.known <= day) & history.is_wanted
    rows = np.flatnonzero(after)
    key = history.user[rows] * len(history.items) + history.item[rows]
    label = np.where(history.is_bought[rows], 2, 1)
    order = np.lexsort((label, key))
    key, label = key[order], label[order]
    last = np.ones(len(key), dtype=bool)
    last[:-1] = key[1:] != key[:-1]
    return key[last] // len(history.items), key[last] % len(history.items), label[last]


@dataclass(frozen=True)
class Cut:
    """What one past day teaches: candidates of users who went on to do something, looked at as of that day.

    user: places in the history. pairs: users numbered within `user`. label per pair; wanted: items wanted per user. blend:
    what the plain blend makes of each pair.
    """

    user: Integers
    pairs: Candidates
    features: Singles
    names: list[str]
    label: Integers
    wanted: Integers


def read_cut(
    history: History, catalogue: Catalogue, links: Links, cut: date, horizon: int, day: date, how: Retrieval, store: Store
) -> Cut | None:
    """None where nobody known at the cut did anything after it."""
    user, item, label = outcomes(history, ordinal(cut), horizon, ordinal(day))
    people = np.unique(user)
    if len(people) > MAX_USERS:
        from marketing_assets.assignment import salted_share

        number = salted_share(history.users.gather(people), f"ranker {cut}").to_numpy()
        people = people[number < MAX_USERS / len(people)]
    owner, _ = history.rows_known(people, ordinal(cut))
    people = people[np.unique(owner)]
    if not len(people):
        return None
    state = States([replace(DayState.of(catalogue, cut, True), allowed=np.ones(len(history.items), dtype=bool))], store)
    rows, items, features, names = [], [], [], [""]
    size = max(1, BLOCK_CELLS // len(history.items))
    for start in range(0, len(people), size):
        users = people[start : start + size]
        first = np.zeros(len(users), dtype=np.int64)
        block = look_at(state, history, users, first, links, how, False)
        chosen = candidates(block.taste, block.scored, np.ones(len(block.scored.row), dtype=bool), how)
        names, values = look(block, links, state, first, chosen, how)
        rows.append(chosen.row + start)
        items.append(chosen.item)
        features.append(values)
    row = np.concatenate(rows)
    pairs = Candidates(np.arange(len(row)), row, np.concatenate(items))
    place = np.searchsorted(people, user)
    ours = (place < len(people)) & (people[np.minimum(place, len(people) - 1)] == user)
    place, item, label = place[ours], item[ours], label[ours]
    wanted_key = place * len(history.items) + item
    order = np.argsort(wanted_key, kind="stable")
    key = pairs.row * len(history.items) + pairs.item
    at = np.minimum(np.searchsorted(wanted_key[order], key), len(order) - 1)
    found = np.where(wanted_key[order][at] == key, label[order][at], 0)
    return Cut(people, pairs, np.vstack(features), names, found, np.bincount(place, minlength=len(people)))


def ndcg(pairs: Candidates, scores: Floats, label: Integers, wanted: Integers, k: int) -> Floats:
    """nDCG@k per user with gain 1 for every wanted item, over all wanted items, candidates or not."""
    order = np.lexsort((pairs.item, -scores, pairs.row))
    user = pairs.row[order]
    lengths = np.bincount(user, minlength=len(wanted))
    place = np.arange(len(user)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    gain = np.where((label[order] > 0) & (place < k), 1 / np.log2(place + 2), 0.0)
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
    return np.asarray(np.bincount(user, weights=gain, minlength=len(wanted)) / np.maximum(ideal[np.minimum(wanted, k)], 1e-9))


RETRIEVERS = ("blend", "own", "linked", "popular_28")
"""The plain blend and the single retrievers, as features: what a re-ranker must beat."""


def _of_retriever(name: str, cut: Cut) -> Floats:
    return np.asarray(cut.features[:, cut.names.index(name)], dtype=np.float64)


def fit_shop_ranker(
    models: ModelHistory,
    links_at: Callable[[date], Links],
    history: History,
    catalogue: Catalogue,
    day: date,
    trigger: Trigger,
    store: Store,
) -> None:
    """Fit on past cuts; use it where, learnt on the older ones, it beats the best single retriever on the newest beyond doubt.

    The held-out users teach nothing, so that it can be compared on them with the re-ranker in force.
    """
    started = time.process_time()
    how = Retrieval()
    days, horizon = cut_days(store, day)
    cuts = [cut for past in days if (cut := read_cut(history, catalogue, links_at(past), past, horizon, day, how, store)) is not None]
    held = held_out(history.users).to_numpy().astype(bool) if len(history.users) else np.zeros(0, dtype=bool)
    metrics: dict[str, Any] = {"cuts": len(cuts), "horizon_days": horizon}
    newest = cuts[: max(1, min(COMPARED_CUTS, len(cuts) // 3))]
    earned = _earns_its_place(cuts[len(newest) :], newest, store)
    metrics |= earned
    is_used = earned.get("gain_low", 0.0) > 0
    text = _fit_on([(cut, ~held[cut.user]) for cut in cuts], store) if is_used else ""
    stored = models.in_force(RANKER, day)
    is_promoted = stored is None
    champion = "" if stored is None else json.loads(stored.model)["booster"]
    if champion and cuts and Ranker(champion).names != cuts[0].names:
        is_promoted = True  # it looks at other numbers than this version of the code makes, and can neither be compared nor used
    elif stored is not None:
        compared = [(cut, held[cut.user]) for cut in newest]
        users = np.concatenate([cut.user[mask] for cut, mask in compared]) if compared else np.zeros(0, dtype=np.int64)
        both = [_by_user(users, _losses(compared, _scorer(booster, store))) for booster in (text, champion)]
        verdict = compare(both[0], both[1], seed=store.seed)
        metrics |= verdict.as_metrics()
        is_promoted = verdict.is_better
    models.add(
        new_fit(
            RANKER, day, trigger, is_promoted=is_promoted,
            model=json.dumps({"is_used": bool(text), "booster": text}),
            model_format="json", parameters={**PARAMETERS, "rounds": ROUNDS, **asdict(how)},
            features=cuts[0].names if cuts else [],
            metrics=metrics, seconds=time.process_time() - started,
        )
    )  # fmt: skip


MIN_ROWS = 2000
"""Fewer rows than this teach nothing."""
JUDGED_AT = 10
"""nDCG at this many places is what re-rankers are compared on."""


def _fit_on(cuts: list[tuple[Cut, Flags]], store: Store) -> str:
    """The text of a re-ranker fitted on these users of these cuts; '' where there is too little."""
    parts = [_rows_of(cut, mask) for cut, mask in cuts]
    if sum(len(label) for _, label, _ in parts) < MIN_ROWS:
        return ""
    features, label, group = (np.concatenate(column) for column in zip(*parts, strict=True))
    return fit_ranker(features, cuts[0][0].names, label, group, store.seed, 1)


def _earns_its_place(older: list[Cut], newest: list[Cut], store: Store) -> dict[str, Any]:
    """A re-ranker learnt on the older cuts against the best single retriever on the newest: gain in nDCG with its interval."""
    text = _fit_on([(cut, np.ones(len(cut.user), dtype=bool)) for cut in older], store)
    if not text:
        return {"gain_low": 0.0, "users": 0}
    everyone = [(cut, np.ones(len(cut.user), dtype=bool)) for cut in newest]
    users = np.concatenate([cut.user for cut in newest])
    losses = {name: _losses(everyone, partial(_of_retriever, name)) for name in RETRIEVERS}
    best_name = min(losses, key=lambda name: (float(losses[name].mean()), name))
    mine = _losses(everyone, _scorer(text, store))
    verdict = compare(_by_user(users, mine), _by_user(users, losses[best_name]), seed=store.seed)
    return {
        "best_retriever": best_name,
        "ndcg": round(1 - float(mine.mean()), 6),
        **{f"ndcg_{name}": round(1 - float(values.mean()), 6) for name, values in losses.items()},
        "gain": -verdict.difference,
        "gain_low": -verdict.high,
        "gain_high": -verdict.low,
        "users": verdict.n,
    }


def _scorer(booster: str, store: Store) -> Callable[[Cut], Floats]:
    """What a re-ranker, or without one the plain blend, makes of a cut's candidates."""
    if not booster:
        return partial(_of_retriever, "blend")
    ranker = Ranker(booster)
    return lambda cut: with_factor(ranker.scores(cut.features, store.threads), cut.features[:, cut.names.index("factor")])


def _rows_of(cut: Cut, mask: Flags) -> tuple[Singles, Integers, Integers]:
    """Features, label and group sizes of the users of `mask` with at least one wanted candidate."""
    hits = np.bincount(cut.pairs.row, weights=cut.label, minlength=len(cut.user)) > 0
    rows = (mask & hits)[cut.pairs.row]
    sizes = np.bincount(cut.pairs.row[rows], minlength=len(cut.user))
    return cut.features[rows], cut.label[rows], sizes[sizes > 0]


def _losses(compared: list[tuple[Cut, Flags]], scores: Callable[[Cut], Floats]) -> Floats:
    parts = [(1 - ndcg(cut.pairs, scores(cut), cut.label, cut.wanted, JUDGED_AT))[mask] for cut, mask in compared]
    return np.concatenate(parts) if parts else np.zeros(0)


def _by_user(users: Integers, losses: Floats) -> Floats:
    """Mean per user, because a user's cuts are no independent witnesses."""
    total, count = np.bincount(users, weights=losses), np.bincount(users)
    return np.asarray(total[count > 0] / count[count > 0])
