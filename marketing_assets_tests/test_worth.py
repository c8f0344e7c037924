"""What showing an item is worth: rates after looks, directions of taste and familiarity against plain loops, and lists ordered by it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from polars.testing import assert_frame_equal

from marketing_assets.recommendations import build_recommendations, worth
from marketing_assets.recommendations.history import History
from marketing_assets.recommendations.scores import Retrieval, taste
from marketing_assets.recommendations.worth import (
    BOUGHT,
    CARTED,
    LOOKED_AT,
    STRANGE,
    directions,
    familiarity,
    interest,
    turn_rates,
)
from marketing_assets.warehouse import days_between, reader_over
from marketing_assets_tests.test_recommendations import FIRST, PLAIN, Event, build_in_parts, frames_of, shop_store


def test_rates_are_drawn_to_their_category_and_come_nearer_to_the_truth() -> None:
    rng = np.random.default_rng(1)
    category = np.repeat(np.arange(10), 40)
    truth = np.exp(rng.normal(0, 0.4, 10))[category] * np.exp(rng.normal(0, 0.2, 400))
    looks = np.exp(rng.normal(5, 1, 400)).round()
    turned = rng.poisson(looks * 0.03 * truth).astype(np.float64)
    truth *= looks.sum() * 0.03 / turned.sum()
    found = turn_rates(looks, turned, category)
    raw = turned / looks * looks.sum() / turned.sum()
    without_category = turn_rates(looks, turned, np.full(400, -1))

    def error(rate: Any) -> float:
        return float(np.average((rate - truth) ** 2))

    assert error(found) < 0.7 * error(without_category) < 0.7 * error(raw)
    assert abs(np.average(found, weights=looks) - 1) < 0.03, "drawing moves rates, not the shop's level"


def test_nothing_looked_at_or_carted_tells_no_rates() -> None:
    none = np.zeros(3)
    assert turn_rates(none, none, np.array([0, 1, -1])).tolist() == [0.0, 0.0, 0.0]
    assert turn_rates(np.array([5.0, 1.0, 0.0]), none, np.array([0, 1, -1])).tolist() == [0.0, 0.0, 0.0]
    alone = turn_rates(np.array([5.0]), np.array([1.0]), np.array([-1]))
    assert alone.tolist() == [1.0], "a single item is the shop"


def looks_of(rows: list[tuple[int, int, int, int, bool, bool]], items: int) -> History:
    """rows: user, day, item, views, is_carted, is_bought; sorted by user, day, item."""
    user, day, item, views, carted, bought = (np.array(column) for column in zip(*sorted(rows), strict=True))
    people = int(user.max()) + 1
    return History(
        users=pl.Series([f"u{place:03}" for place in range(people)]), items=pl.Series([f"i{place:03}" for place in range(items)]),
        user=user.astype(np.int64), item=item.astype(np.int64), known=day.astype(np.int64), happened=day.astype(np.int64),
        moment=day.astype(np.int64) * 1440, strength=views * 0.2, views=views.astype(np.int64),
        is_bought=bought.astype(bool), is_wanted=(carted | bought).astype(bool),
        spent=bought * 1.0,
    )  # fmt: skip


def two_tastes(seed: int, people: int, items: int, per_person: int) -> History:
    """Even people look at even items nine times of ten, odd ones at odd items."""
    rng = np.random.default_rng(seed)
    rows: dict[tuple[int, int], int] = {}
    for person in range(people):
        for _ in range(per_person):
            kind = person % 2 if rng.random() < 0.9 else 1 - person % 2
            key = (person, 2 * int(rng.integers(0, items // 2)) + kind)
            rows[key] = rows.get(key, 0) + 1
    return looks_of([(person, 1, item, views, False, False) for (person, item), views in rows.items()], items)


def matrix_of(history: History) -> sp.csr_array:
    return sp.csr_array(sp.coo_array((history.views.astype(float), (history.user, history.item)), (len(history.users), len(history.items))))


def test_interest_carries_over_to_items_never_looked_at() -> None:
    history = two_tastes(2, 300, 40, 30)
    found = interest(taste(history, np.arange(-1, 300), np.full(301, 1), Retrieval()), directions(matrix_of(history)))
    assert (found[0] == 1).all(), "nothing is known of strangers"
    unseen = matrix_of(history).toarray() == 0
    alike = (np.arange(300)[:, None] - np.arange(40)) % 2 == 0
    assert found[1:][unseen & alike].mean() > 1.5 * found[1:][unseen & ~alike].mean()


def test_directions_are_those_of_correspondence_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without priors and with all directions the counts come back: n_ui = n_u n_i / n x interest."""
    monkeypatch.setattr(worth, "ITEM_PRIOR", 0.0)
    monkeypatch.setattr(worth, "USER_PRIOR", 0.0)
    rng = np.random.default_rng(3)
    counts = rng.poisson(3.0, (30, 12)).astype(float) + 1
    along = directions(sp.csr_array(counts)).astype(float)
    assert along.shape == (12, 10)
    share = counts / counts.sum(axis=1, keepdims=True)
    back = counts.sum(axis=1, keepdims=True) * (counts.sum(axis=0) / counts.sum()) * (1 + share @ along @ along.T)
    largest = np.linalg.svd((counts - np.outer(counts.sum(1), counts.sum(0)) / counts.sum())
                            / np.sqrt(np.outer(counts.sum(1), counts.sum(0))))[1]  # fmt: skip
    assert np.abs(back - counts).max() < 1.0 and largest[10] < largest[0] / 3, "but for the one direction left out"
    monkeypatch.setattr(worth, "DENSE_ITEMS", 0)
    sparse = directions(sp.csr_array(counts)).astype(float)
    np.testing.assert_allclose(sparse @ sparse.T, along @ along.T, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (2, 2), (40, 3), (3, 40)])
def test_few_people_or_items_have_few_directions(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    for dense in (512, 0):
        monkeypatch.setattr(worth, "DENSE_ITEMS", dense)
        found = directions(sp.csr_array(np.ones(shape)))
        assert found.shape == (shape[1], max(0, min(shape) - 2)) and np.isfinite(found).all()
        assert np.abs(found).max(initial=0.0) < 1e-6, "everyone looks at everything alike"
    assert directions(sp.csr_array(shape)).shape == (shape[1], 0)


def test_familiarity_counts_by_what_went_before() -> None:
    rng = np.random.default_rng(4)
    rate = {STRANGE: 0.02, LOOKED_AT: 0.03, CARTED: 0.08, BOUGHT: 0.2}
    rows = []
    for person in range(15_000):
        for item in range(4):
            state = STRANGE
            for day in range(int(rng.integers(1, 6))):
                carted = bool(rng.random() < rate[state])
                bought = carted and bool(rng.random() < 0.5)
                rows.append((person, day, item, 1, carted, bought))
                state = BOUGHT if bought or state == BOUGHT else CARTED if carted or state == CARTED else LOOKED_AT
    history = looks_of(rows, 4)
    found = familiarity(history, np.arange(len(rows)))
    mean = sum(carted for *_, carted, _ in rows) / len(rows)
    for sign, true in rate.items():
        assert found[sign] == pytest.approx(true / mean, rel=0.15)
    nothing = looks_of([(0, 1, 0, 3, False, False)], 2)
    assert familiarity(nothing, np.arange(1)).tolist() == [1.0] * 4


def shop_of_looks(seed: int, days: int) -> list[Event]:
    """'fad' is looked at by everyone and carted by few; 'gem' is seldom looked at and carted by half who do."""
    rng = np.random.default_rng(seed)
    events: list[Event] = []
    items = ["fad"] * 8 + ["gem"] + [f"item{place}" for place in range(6)]
    chance = {"fad": 0.03, "gem": 0.5}
    for day in range(days):
        for visit in range(40):
            user = f"user{int(rng.integers(0, 60))}"
            for item in sorted(set(rng.choice(items, 3).tolist())):
                events.append((day, user, "view_item", item))
                if rng.random() < chance.get(item, 0.15):
                    events.append((day, user, "add_to_cart", item))
                    if visit % 2 == 0:
                        events.append((day, user, "purchase", item))
    return events


def test_lists_go_by_what_showing_is_worth_once_enough_was_carted() -> None:
    """Young shops and those told to go by purchases; day by day equals the range."""
    how = PLAIN.model_copy(update={"holdout_share": 0.2})
    days = days_between(FIRST, FIRST + timedelta(days=30))
    # of ned nothing is known but that he was there
    events: list[Event] = [*shop_of_looks(5, len(days)), (len(days) - 1, "ned", "begin_checkout", "fad")]
    frames = frames_of(events, days, shop_store(how))
    built = build_recommendations(reader_over(frames, shop_store(how), days[-1]), days, shop_store(how)).tables
    lists = built["recommendations"]
    assert isinstance(lists, pl.DataFrame)
    first, last = (lists.filter(pl.col("as_of_date") == day) for day in (days[0], days[-1]))
    assert set(first["policy_id"]) == {"popularity", "blend"} and set(last["policy_id"]) == {"popularity", "worth"}
    assert set(last.filter("is_holdout")["policy_id"]) == {"popularity"}
    unknown = last.filter(pl.col("user_id") == "unknown").sort("rank")
    assert set(unknown["policy_id"]) == {"worth"} and unknown["item_id"][0] == "gem", "strangers too are shown what looks turn into carts"
    ordered = last.filter(pl.col("policy_id") == "worth")
    place = ordered.group_by("item_id").agg(pl.col("rank").mean(), n=pl.len()).sort("rank")
    assert place["item_id"][0] == "gem" and place.filter(pl.col("item_id") == "gem")["n"].item() == ordered["user_id"].n_unique()
    said = dict(ordered.filter(pl.col("user_id") == "ned").select("item_id", "reason").iter_rows())
    assert said["gem"] == "often chosen once looked at" and said.get("fad", "popular now") == "popular now"
    assert (last.filter(pl.col("policy_id") == "popularity")["reason"] == "popular now").all()
    related = built["item_recommendations"]
    assert isinstance(related, pl.DataFrame)
    beside = related.filter(pl.col("as_of_date") == days[-1], pl.col("rank") == 1, pl.col("item_id") != "gem")
    assert set(beside["recommended_item_id"]) == {"gem"}
    in_parts, _ = build_in_parts(frames, [days[:20], *[[day] for day in days[20:]]], shop_store(how))
    for name, rows in in_parts.items():
        whole = built[name]
        assert isinstance(whole, pl.DataFrame)
        assert_frame_equal(whole, rows)
    other = shop_store(how.model_copy(update={"objective": "purchases"}))
    bought = build_recommendations(reader_over(frames, other, days[-1]), days, other).tables["recommendations"]
    assert isinstance(bought, pl.DataFrame)
    assert set(bought["policy_id"]) == {"popularity", "blend"}
