"""The learned re-ranking: a LightGBM LambdaRank over what the retrievers found.

What belongs here: which candidates there are, what is looked at, fitting and predicting. What does not: when it is fitted and
whether it is used (fits.py). Ids are no feature; what is looked at are relations of user and item in counts and days.
Burges (2010) describes LambdaRank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from marketing_assets.recommendations.history import Flags, Floats, Integers
from marketing_assets.recommendations.links import LinkViews
from marketing_assets.recommendations.lists import Ranked, best
from marketing_assets.recommendations.scores import Retrieval, Scored, Singles, Taste

PARAMETERS: dict[str, Any] = {
    "objective": "lambdarank",
    "learning_rate": 0.1,
    "num_leaves": 15,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.7,
    "lambda_l2": 5.0,
    "lambdarank_truncation_level": 20,
    "verbose": -1,
    "deterministic": True,
    "force_row_wise": True,
}
ROUNDS = 80
DECIMALS = 5


FACT_HALF_LIVES = (7, 28, 90)
ItemFacts = dict[str, Singles]
"""What a day knows of items by themselves: name -> one number per item."""


def item_facts(item: Integers, age: Integers, strength: Floats, items: int) -> ItemFacts:
    """From signs with their age in days: how much of all interest is in each item, at several decays, and whether it rises."""
    facts: dict[str, Floats] = {}
    for half_life in FACT_HALF_LIVES:
        counted = np.bincount(item, weights=strength * 0.5 ** (age / half_life), minlength=items)
        facts[f"popular_{half_life}"] = counted / max(float(counted.sum()), 1e-9) * max(int((counted > 0).sum()), 1)
    short, middle, long = (facts[f"popular_{half_life}"] for half_life in FACT_HALF_LIVES)
    facts["rise"] = (short + 0.1) / (middle + 0.1)
    facts["long_rise"] = (middle + 0.1) / (long + 0.1)
    newest = np.full(items, 9999.0)
    np.minimum.at(newest, item, age.astype(np.float64))
    oldest = np.full(items, -1.0)
    np.maximum.at(oldest, item, age.astype(np.float64))
    facts["item_days_since"], facts["item_age"] = newest, oldest
    return {name: np.round(values, DECIMALS).astype(np.float32) for name, values in facts.items()}


@dataclass(frozen=True)
class Candidates:
    """Pairs of user and item, sorted by user: what the re-ranker chooses from."""

    user: Integers
    item: Integers


def candidates(seen: Taste, scored: Scored, allowed: Flags, how: Retrieval) -> Candidates:
    """The best of each retriever together. allowed: 1 x items or users x items."""
    users = seen.shape[0]
    chosen: list[tuple[Integers, Integers]] = []
    rows = np.arange(users)
    for matrix, count in ((scored.own, how.own_candidates), (scored.linked, how.linked_candidates)):
        if count:
            dense: Singles = np.asarray(matrix.toarray(), dtype=np.float32)
            found = best(dense, np.asarray(allowed & (dense > 0)), count)
            chosen.append(_pairs(rows, found))
    if how.popular_candidates:
        popular = np.broadcast_to(scored.popular.astype(np.float32), seen.shape)
        found = best(popular, allowed & (popular > 0), how.popular_candidates)
        chosen.append(_pairs(rows, found))
    key = np.unique(np.concatenate([user * seen.shape[1] + item for user, item in chosen]))
    return Candidates(key // seen.shape[1], key % seen.shape[1])


def _pairs(rows: Integers, found: Ranked) -> tuple[Integers, Integers]:
    user = np.repeat(rows, found.item.shape[1])
    item = found.item.ravel()
    return user[item >= 0], item[item >= 0]


def look(
    seen: Taste, scored: Scored, links: LinkViews, facts: ItemFacts, pairs: Candidates, following: LinkViews | None = None
) -> tuple[list[str], Singles]:
    """Names and values (pairs x features) of what the re-ranker looks at.

    following: links of the very next visit alone, where order within a history says much.
    """
    user, item = pairs.user, pairs.item
    columns: dict[str, npt.NDArray[Any]] = {}

    def gathered(matrix: sp.csr_array) -> Singles:
        return np.asarray(matrix.toarray()[user, item], dtype=np.float32)

    place = np.rint(gathered(seen.matrix(np.arange(1, len(seen.user) + 1)))).astype(np.int64) - 1
    is_own = place >= 0
    at = np.maximum(place, 0)

    def own(values: Floats, missing: float) -> Floats:
        return np.where(is_own, values[at] if len(values) else 0.0, missing)

    times = own(seen.times, 0.0)
    visits = np.maximum(seen.visits[user], 1)
    columns["own"] = own(seen.own, 0.0)
    columns["recent"] = own(seen.recent, 0.0)
    columns["times"] = times
    columns["bought"] = own(seen.bought, 0.0)
    columns["share_of_visits"] = times / visits
    last, first = own(seen.last, 9999.0), own(seen.first, 9999.0)
    columns["days_since"] = last
    columns["rate_since_first"] = times / (first + 7)
    gap = np.where(times > 1, (first - last) / np.maximum(times - 1, 1), 9999.0)
    columns["usual_gap"] = gap
    columns["overdue"] = np.where(times > 1, (last + 1) / (gap + 1), -1.0)
    columns["in_last_visit"] = own(seen.at_last.astype(np.float64), 0.0)

    recent, at_last = seen.matrix(seen.recent), seen.matrix(seen.at_last)
    at_last.eliminate_zeros()
    linked = gathered(sp.csr_array(recent @ links.onward))
    columns["linked"] = linked
    columns["linked_share"] = gathered(scored.linked)
    columns["linked_at_last"] = gathered(sp.csr_array(at_last @ links.onward))
    columns["linked_ever"] = gathered(sp.csr_array(seen.matrix(np.ones(len(seen.user))) @ links.onward))
    columns["links"] = gathered(sp.csr_array(seen.matrix(np.ones(len(seen.user))) @ links.any))
    columns["links_at_last"] = gathered(sp.csr_array(at_last @ links.any))
    columns["links_back"] = gathered(sp.csr_array(recent @ links.back))
    if following is not None:
        columns["follows_last"] = gathered(sp.csr_array(at_last @ following.onward))
        columns["follows"] = gathered(sp.csr_array(recent @ following.onward))
    columns["blend"] = scored.blend[user, item]
    columns["linked_rank"] = _rank(user, linked)
    columns["own_rank"] = _rank(user, columns["own"])
    columns["blend_rank"] = _rank(user, columns["blend"])
    for name, values in facts.items():
        columns[name] = values[item]
    columns["user_visits"] = visits
    columns["user_items"] = seen.items[user]
    columns["user_basket"] = seen.items[user] / visits
    columns["user_last_visit"] = seen.last_visit[user]
    columns["user_gap"] = (seen.first_visit[user] - seen.last_visit[user]) / np.maximum(visits - 1, 1)
    names = list(columns)
    return names, np.column_stack([np.round(columns[name], DECIMALS).astype(np.float32) for name in names])


def _rank(user: Integers, values: npt.NDArray[Any]) -> Floats:
    """Place of each pair among its user's, 0 the largest value; equal values share the first place."""
    order = np.lexsort((-values, user))
    sorted_user, sorted_value = user[order], values[order]
    position = np.arange(len(order))
    new_user = np.ones(len(order), dtype=bool)
    new_user[1:] = sorted_user[1:] != sorted_user[:-1]
    start = np.maximum.accumulate(np.where(new_user, position, 0))
    new_value = new_user.copy()
    new_value[1:] |= sorted_value[1:] != sorted_value[:-1]
    first = np.maximum.accumulate(np.where(new_value, position, 0))
    ranks = np.empty(len(order))
    ranks[order] = first - start
    return ranks


def fit_ranker(features: Singles, names: list[str], label: Integers, group: Integers, seed: int, threads: int) -> str:
    """The model's text. label: 0 and up, larger is better; group: sizes of runs of rows ranked against each other."""
    import lightgbm  # here, because importing it takes seconds

    data = lightgbm.Dataset(features, label, group=group, feature_name=names, free_raw_data=True)
    booster = lightgbm.train({**PARAMETERS, "seed": seed, "num_threads": threads}, data, ROUNDS)
    return str(booster.model_to_string())


class Ranker:
    """A fitted re-ranker, read from its text once."""

    def __init__(self, text: str) -> None:
        import lightgbm

        self._booster = lightgbm.Booster(model_str=text)

    def scores(self, features: Singles, threads: int) -> Floats:
        if not len(features):
            return np.zeros(0)
        return np.asarray(np.round(np.asarray(self._booster.predict(features, num_threads=threads)), 6), dtype=np.float64)


def ranked(pairs: Candidates, scores: Floats, users: int, count: int) -> Ranked:
    """The `count` best candidates of each user, ties to the item that comes first."""
    order = np.lexsort((pairs.item, -scores, pairs.user))
    user = pairs.user[order]
    lengths = np.bincount(user, minlength=users)
    place = np.arange(len(user)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kept = place < count
    found, value = np.full((users, count), -1, dtype=np.int64), np.zeros((users, count))
    found[user[kept], place[kept]] = pairs.item[order][kept]
    value[user[kept], place[kept]] = scores[order][kept]
    return Ranked(found, value)
