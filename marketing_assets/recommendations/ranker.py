"""The learned re-ranking: a LightGBM LambdaRank over what the retrievers found.

What belongs here: which candidates there are, fitting and predicting. What does not: what is looked at (looks.py), when it is
fitted and whether it is used (fits.py). Burges (2010) describes LambdaRank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from marketing_assets.recommendations.history import Flags, Floats, Integers
from marketing_assets.recommendations.lists import Singles, levels, places_of_best
from marketing_assets.recommendations.scores import Retrieval, Scored, Taste

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
ROUNDS = 100
ItemFacts = dict[str, Singles]
"""What is known of items by themselves: name -> days x items."""


@dataclass(frozen=True)
class Candidates:
    """What the re-ranker chooses from, sorted by row and item: places in what was scored, rows, items."""

    place: Integers
    row: Integers
    item: Integers


def candidates(seen: Taste, scored: Scored, allowed: Flags, how: Retrieval) -> Candidates:
    """The best of each retriever together. allowed: one flag per scored pair."""
    chosen = []
    for values, count in (
        (scored.own, how.own_candidates), (scored.linked, how.linked_candidates), (scored.popular, how.popular_candidates)
    ):  # fmt: skip
        if count:
            named = np.flatnonzero(allowed & (values > 0))
            found = places_of_best(scored.row[named], levels(values[named]), scored.item[named], seen.rows, count).ravel()
            chosen.append(named[found[found >= 0]])
    place = np.unique(np.concatenate(chosen))
    place = place[np.argsort(scored.row[place] * seen.items + scored.item[place])]
    return Candidates(place, scored.row[place], scored.item[place])


def fit_ranker(features: Singles, names: list[str], label: Integers, group: Integers, seed: int, threads: int, **more: Any) -> str:
    """The model's text. label: 0 and up, larger is better; group: sizes of runs of rows ranked against each other."""
    import lightgbm  # here, because importing it takes seconds

    data = lightgbm.Dataset(features, label, group=group, feature_name=names, free_raw_data=True)
    rounds = more.pop("rounds", ROUNDS)
    booster = lightgbm.train({**PARAMETERS, **more, "seed": seed, "num_threads": threads}, data, rounds)
    return str(booster.model_to_string())


class Ranker:
    """A fitted re-ranker, read from its text once."""

    def __init__(self, text: str) -> None:
        import lightgbm

        self._booster = lightgbm.Booster(model_str=text)
        self.names: list[str] = self._booster.feature_name()
        """What it looks at."""

    def scores(self, features: Singles, threads: int) -> Floats:
        if not len(features):
            return np.zeros(0)
        return np.asarray(np.round(np.asarray(self._booster.predict(features, num_threads=threads)), 6), dtype=np.float64)
