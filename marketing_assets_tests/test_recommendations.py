"""Recommendations: links and choosing against plain loops, the shop's rules on hand-made users, and a small shop over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from marketing_assets import features
from marketing_assets.assignment import salted_share
from marketing_assets.config import RecommendationSettings, SourceBlock, Store
from marketing_assets.recommendations import build_recommendations
from marketing_assets.recommendations.catalogue import Catalogue
from marketing_assets.recommendations.fits import LINKS, RANKER, user_facts
from marketing_assets.recommendations.history import History, ordinal, read_history
from marketing_assets.recommendations.leanings import Leanings
from marketing_assets.recommendations.links import Links, LinkSettings, PairCounts, Pairs, fit_links
from marketing_assets.recommendations.lists import Ranked, explore, levels, places_of_best, under_rules
from marketing_assets.recommendations.next_visits import HALF_LIFE, RIDGE, expected, next_visits
from marketing_assets.recommendations.scores import Popular, Retrieval, score, taste
from marketing_assets.warehouse import Built, FittedModel, days_between, polars_schema, reader_over

FIRST = date(2024, 1, 1)
PLAIN = RecommendationSettings(list_length=6, holdout_share=0.0, exploration_share=0.0)


# --- links ------------------------------------------------------------------------------------------------------------


def links_by_loops(baskets: Mapping[int, Sequence[Sequence[int]]], items: int, how: LinkSettings) -> np.ndarray:
    """The definition, pair by pair. baskets: user -> visits in order, each a list of distinct items."""
    counts, occurs = np.zeros((items, items)), np.ones(items)
    for visits in baskets.values():
        for place, visit in enumerate(visits):
            for b in visit:
                occurs[b] += 1
                for gap in range(1, how.span + 1):
                    if place - gap < 0:
                        break
                    earlier = visits[place - gap]
                    for a in earlier:
                        weight = how.decay ** (gap - 1) * (len(earlier) * len(visit)) ** -how.large_visit
                        counts[a, b] += weight
                        counts[b, a] += how.backward * weight
                for a in visit:
                    counts[a, b] += how.within * len(visit) ** (-2 * how.large_visit)
    np.fill_diagonal(counts, 0)
    return counts * occurs[:, None] ** -how.from_power * occurs[None, :] ** -how.to_power


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.integers(0, 4),
        st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True), min_size=1, max_size=6),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(
        [LinkSettings(), LinkSettings(within=0, span=19, backward=0.25, large_visit=0.0), LinkSettings(backward=0, span=1)]
    ),
)
def test_links_equal_counting_pair_by_pair(baskets: dict[int, list[list[int]]], how: LinkSettings) -> None:
    rows = [
        (user, place, item) for user in sorted(baskets) for place, visit in enumerate(baskets[user]) for item in sorted(visit)
    ]
    user, visit, item = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    found, _ = fit_links(user, visit, item, np.ones(len(rows)), 6, how)
    # weights are counted in whole parts of 1 / 4096
    np.testing.assert_allclose(found.toarray(), links_by_loops(baskets, 6, how), rtol=1e-3, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([(), (("together", 0, 0), ("next", 1, 1))]))
def test_links_brought_up_to_date_equal_links_counted_from_nothing(seed: int, kinds: tuple[tuple[str, int, int], ...]) -> None:
    """Rows come, some of them on earlier days, and the oldest go: the same to the last digit, or a range would not equal days."""
    generator = np.random.default_rng(seed)
    known = np.sort(generator.integers(0, 60, 300))
    user, item = generator.integers(0, 8, 300), generator.integers(0, 12, 300)
    visit = np.maximum(known - generator.integers(0, 9, 300), 0)
    strength = generator.choice([0.2, 0.6, 1.0], 300)
    how = LinkSettings(kinds=kinds, neighbours=5)
    counts = PairCounts(12, how)
    for day in (10, 11, 30, 59):
        rows = np.flatnonzero((known <= day) & (known > day - 25))
        rows = rows[np.lexsort((item[rows], visit[rows], user[rows]))]
        counts.update(user[rows], visit[rows], item[rows], strength[rows])
        matrix, strengths = counts.links()
        fresh, fresh_strengths = fit_links(user[rows], visit[rows], item[rows], strength[rows], 12, how)
        np.testing.assert_array_equal(matrix.toarray(), fresh.toarray())
        assert set(strengths) == set(fresh_strengths) == ({"together", "next", "before", "cosine"} if kinds else set())
        for name, values in strengths.items():
            np.testing.assert_array_equal(values, fresh_strengths[name])


def test_kinds_of_links_are_counted_apart() -> None:
    """One person, visits {0, 1} then {2}: 0 and 1 come together, 2 comes next to both, and 0 before 2."""
    user, visit, item = np.array([0, 0, 0]), np.array([0, 0, 1]), np.array([0, 1, 2])
    how = LinkSettings(large_visit=0.0, kinds=(("together", 0, 0), ("next", 1, 1), ("soon", 2, 2)))
    matrix, kinds = fit_links(user, visit, item, np.ones(3), 3, how)
    row = np.repeat(np.arange(3), np.diff(matrix.indptr))
    found = {name: {(a, b): round(float(v), 3) for a, b, v in zip(row.tolist(), matrix.indices.tolist(), values, strict=True) if v}
             for name, values in kinds.items()}  # fmt: skip
    root = round(2**-0.5, 3)  # every item occurs once, and one is added
    together = round(1 / 1.5 / 2**0.5, 3)
    assert found["together"] == {(0, 1): pytest.approx(together, abs=2e-3), (1, 0): pytest.approx(together, abs=2e-3)}
    assert found["next"] == {(0, 2): root, (1, 2): root} and found["soon"] == {}
    assert found["before"] == {(2, 0): root, (2, 1): root}, "the same visit is not before"
    assert found["cosine"][(0, 2)] == found["cosine"][(2, 0)] == 0.5


def test_links_keep_the_strongest_and_survive_their_text() -> None:
    generator = np.random.default_rng(3)
    user = np.sort(generator.integers(0, 40, 600))
    visit = np.zeros(600, dtype=np.int64)
    item = generator.integers(0, 30, 600)
    full = fit_links(user, visit, item, np.ones(600), 30, LinkSettings(neighbours=29))[0].toarray()
    few, kinds = fit_links(user, visit, item, np.ones(600), 30, LinkSettings(neighbours=5, kinds=(("together", 0, 0),)))
    assert np.diff(few.indptr).max() == 5
    for row in range(30):
        kept = few[[row]].toarray()[0]
        assert kept[kept > 0].min() >= np.sort(full[row])[-5] * (1 - 1e-5)
        strengths = few.data[few.indptr[row] : few.indptr[row + 1]]
        assert (np.diff(strengths) <= 0).all()
    names = pl.Series("item_id", [f"i{place:02}" for place in range(30)])
    effects = sp.random_array((30, 30), density=0.2, rng=generator, format="csr")
    links = Links.kept(names, few, kinds, {"often": np.arange(30, dtype=np.float32)}, next_visits=effects)
    again = Links.from_text(links.as_text())
    np.testing.assert_array_equal(again.next_visits.toarray(), links.next_visits.toarray())
    np.testing.assert_allclose(links.next_visits.toarray(), effects.toarray(), rtol=1e-3)
    assert again.items.to_list() == names.to_list()
    np.testing.assert_array_equal(again.matrix.toarray(), links.matrix.toarray())
    np.testing.assert_array_equal(again.kinds["cosine"], links.kinds["cosine"])
    np.testing.assert_array_equal(again.facts["often"], np.arange(30))
    np.testing.assert_allclose(links.matrix.toarray(), few.toarray(), rtol=1e-6)
    np.testing.assert_allclose(links.kinds["cosine"], kinds["cosine"], rtol=1e-3)
    shuffled = pl.Series("item_id", ["other", *names.sample(fraction=1.0, shuffle=True, seed=1).to_list()[5:]])
    moved = links.over(shuffled)
    over = moved.matrix.toarray()
    cosine = {(a, b): c for a, b, c in zip(np.repeat(np.arange(30), np.diff(links.matrix.indptr)).tolist(),
                                           links.matrix.indices.tolist(), links.kinds["cosine"].tolist(), strict=True)}  # fmt: skip
    ids = shuffled.to_list()
    for a, b, c in zip(np.repeat(np.arange(len(ids)), np.diff(moved.matrix.indptr)).tolist(), moved.matrix.indices.tolist(),
                       moved.kinds["cosine"].tolist(), strict=True):  # fmt: skip
        assert c == cosine[int(ids[a][1:]), int(ids[b][1:])]
    assert moved.facts["often"].tolist() == [0.0, *[float(name[1:]) for name in ids[1:]]]
    places = {name: place for place, name in enumerate(names.to_list())}
    for a, source in enumerate(shuffled.to_list()):
        for b, target in enumerate(shuffled.to_list()):
            expected = 0.0 if "other" in (source, target) else links.matrix.toarray()[places[source], places[target]]
            assert over[a, b] == pytest.approx(expected)
            told = 0.0 if "other" in (source, target) else links.next_visits.toarray()[places[source], places[target]]
            assert moved.next_visits.toarray()[a, b] == told


def test_pairs_read_a_matrix_element_by_element() -> None:
    dense = np.array([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0]])
    pairs = Pairs(sp.csr_array(dense))
    row, column = np.indices(dense.shape)
    np.testing.assert_array_equal(pairs.at(row.ravel(), column.ravel()), dense.ravel())
    assert Pairs(sp.csr_array((2, 3))).at(np.array([1]), np.array([2])).tolist() == [0.0]


# --- choosing -----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 40), st.integers(1, 12), st.integers(0, 1000))
def test_the_best_places_are_those_of_sorting_everything(users: int, items: int, count: int, seed: int) -> None:
    """Ties, missing pairs, negative scores and short rows included: scores are drawn from few values."""
    generator = np.random.default_rng(seed)
    scores = generator.integers(-2, 3, (users, items)) / 4
    row, item = np.nonzero(generator.random((users, items)) < 0.7)
    mixed = generator.permutation(len(row))
    row, item = row[mixed], item[mixed]
    found = places_of_best(row, levels(scores[row, item]), item, users, count)
    for user in range(users):
        mine = item[row == user].tolist()
        order = sorted(mine, key=lambda item: (-scores[user, item], item))[:count]
        places = found[user][found[user] >= 0]
        assert item[places].tolist() == order and (row[places] == user).all()


def ranked(*items: int) -> Ranked:
    return Ranked(np.array([items]), np.linspace(1, 0.5, len(items))[None, :], np.array([items]))


def test_no_more_of_a_category_than_allowed_and_items_without_one_are_free() -> None:
    category = np.array([0, 0, 0, 1, -1, -1, -1])
    how = RecommendationSettings(list_length=5, max_per_category=2)
    best = ranked(0, 1, 2, 4, 5, 3, 6)
    listed, rest = under_rules(best, category[best.item], np.zeros((1, 7), dtype=bool), how)
    assert listed.item[0].tolist() == [0, 1, 4, 5, 3]
    assert [item for item in rest.item[0].tolist() if item >= 0] == [6]


def test_promoted_items_get_their_share_of_places_and_no_more() -> None:
    is_promoted = np.array([False, False, False, False, True, True, True])
    how = RecommendationSettings(list_length=4, promoted_share=0.5)
    best = ranked(0, 1, 2, 3, 4, 5, 6)
    listed, _ = under_rules(best, np.full((1, 7), -1), is_promoted[best.item], how)
    assert listed.item[0].tolist() == [0, 1, 4, 5]
    best = ranked(4, 5, 6, 0, 1, 2, 3)
    listed, _ = under_rules(best, np.full((1, 7), -1), is_promoted[best.item], how)
    assert listed.item[0].tolist() == [4, 5, 6, 0], "a good promoted item needs no reservation"


def test_logged_propensities_are_how_often_an_entry_comes() -> None:
    """Over many users with the same scores, each entry appears at its rank as often as its propensity says."""
    how = RecommendationSettings(list_length=10, exploration_share=0.5)
    users = 20_000
    ten, eight = np.tile(np.arange(10), (users, 1)), np.tile(np.arange(10, 18), (users, 1))
    listed, pool = Ranked(ten, np.tile(np.linspace(1, 0.5, 10), (users, 1)), ten), Ranked(eight, np.full((users, 8), 0.4), eight)
    chance = salted_share(pl.Series([str(user) for user in range(users)]), "test").to_numpy()
    lists = explore(listed, pool, chance, np.ones(users, dtype=bool), how)
    kept = explore(listed, pool, chance, np.zeros(users, dtype=bool), how)
    assert (kept.item == listed.item).all() and (kept.propensity == 1).all(), "who may not explore is left alone"
    assert (lists.item[:, [0, 1, 2, 3, 5, 6, 7, 8]] == listed.item[:, [0, 1, 2, 3, 5, 6, 7, 8]]).all()
    assert all(len(set(row)) == 10 for row in lists.item[:200].tolist())
    for rank in (4, 9):
        for item in (rank, *range(10, 18)):
            shown = lists.item[:, rank] == item
            expected = 0.5 if item == rank else 0.5 / 8
            assert shown.mean() == pytest.approx(expected, abs=0.012)
            np.testing.assert_allclose(lists.propensity[shown, rank], expected)
    assert (lists.propensity[:, 0] == 1).all()


# --- a shop ---------------------------------------------------------------------------------------------------------------


def shop_store(how: RecommendationSettings = PLAIN, methods: str = "plain", **more: Any) -> Store:
    return Store(
        name="test",
        timezone="UTC",
        currency="EUR",
        first_day=FIRST,
        methods=methods,
        threads=1,
        recommendations=how,  # type: ignore[arg-type]
        sources={"events": SourceBlock(files="{date}.csv", columns={"event_at": "event_at"})},
        **more,
    )


Event = tuple[int, str, str, str]
"""Day number, user, what they did, item."""


def clean_events(events: Sequence[Event]) -> pl.DataFrame:
    rows = [
        {
            "landed_date": FIRST + timedelta(days=day), "event_date": FIRST + timedelta(days=day), "event_id": f"e{number:06}",
            "event_at": datetime.combine(FIRST + timedelta(days=day), time(12)), "user_id": user,
            "session_id": f"{user}-{day}", "event_type": kind, "item_id": item,
            "order_id": f"{user}-{day}" if kind == "purchase" else None,
            "quantity": 1 if kind == "purchase" else None, "unit_price": 10 if kind == "purchase" else None,
            "revenue": 10 if kind == "purchase" else 0, "is_bot": False, "is_service": False, "is_late": False,
            "raw_row_id": f"r{number}",
        }
        for number, (day, user, kind, item) in enumerate(events)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=polars_schema("clean_events"), orient="row")


def frames_of(
    events: Sequence[Event], days: Sequence[date], store: Store, catalogue: pl.DataFrame | None = None
) -> dict[str, pl.DataFrame]:
    """Every table lists are made from, by the project's own features."""
    frames = {"clean_events": clean_events(events)}
    steps: list[Any] = [features.build_items, features.build_sessions, features.build_item_days, features.build_user_features,
                        features.build_item_features]  # fmt: skip
    for step in steps:
        made: Built = step(reader_over(frames, store, days[-1]), days, store)
        for name, table in made.tables.items():
            rows = table if isinstance(table, pl.DataFrame) else table.to_polars()
            schema = polars_schema(name)
            frames[name] = rows.select(pl.col(column).cast(kind) for column, kind in schema.items())
    return frames


@cache
def basket_frames(last: int, more: tuple[Event, ...] = ()) -> dict[str, pl.DataFrame]:
    """Features of BASKETS, computed once for all tests that only differ in rules."""
    return frames_of([*BASKETS, *more], days_between(FIRST, FIRST + timedelta(days=last)), shop_store())


def lists_of(
    more_events: tuple[Event, ...],
    last: int,
    how: RecommendationSettings = PLAIN,
    catalogue: pl.DataFrame | None = None,
    more: Mapping[str, pl.DataFrame] | None = None,
) -> pl.DataFrame:
    """recommendations of the last day, built as one range."""
    store = shop_store(how)
    days = days_between(FIRST, FIRST + timedelta(days=last))
    frames = {**basket_frames(last, more_events), **(more or {})}
    if catalogue is not None:
        items = frames["items"].drop(*[column for column in catalogue.columns if column != "item_id"])
        schema = polars_schema("items")
        items = items.join(catalogue, on="item_id", how="left").select(pl.col(name).cast(kind) for name, kind in schema.items())
        frames = {**frames, "items": items}
    built = build_recommendations(reader_over(frames, store, days[-1]), days, store)
    rows = built.tables["recommendations"]
    assert isinstance(rows, pl.DataFrame)
    return rows.filter(pl.col("as_of_date") == days[-1])


def items_of(rows: pl.DataFrame, user: str) -> list[str | None]:
    return rows.filter(pl.col("user_id") == user).sort("rank")["item_id"].to_list()


BASKETS: list[Event] = [
    *[(day, f"u{day}", "purchase", item) for day in range(4) for item in ("tea", "cup")],
    *[(day, f"v{day}", "purchase", item) for day in range(4) for item in ("pen", "ink")],
    (5, "ann", "purchase", "tea"),
    (5, "bob", "purchase", "pen"),
]


def test_what_goes_with_a_purchase_comes_next_and_says_so() -> None:
    rows = lists_of((), 5)
    assert items_of(rows, "ann")[:2] == ["tea", "cup"]
    assert items_of(rows, "bob")[:2] == ["pen", "ink"]
    reasons = rows.filter(pl.col("user_id") == "ann").sort("rank")["reason"].to_list()
    assert reasons[:3] == ["bought today", "goes with tea", "popular now"]
    assert rows.filter(pl.col("user_id") == "unknown")["policy_id"].unique().to_list() == ["popularity"]
    assert sorted(rows["user_id"].unique().to_list()) == ["ann", "bob", "unknown"], "seen that day, and the list for the unknown"


def test_bought_items_are_left_out_where_they_are_not_repeatable() -> None:
    rows = lists_of((), 5, PLAIN.model_copy(update={"is_repeatable": False}))
    assert "tea" not in items_of(rows, "ann") and items_of(rows, "ann")[0] == "cup"


def test_rules_of_the_catalogue_hold_for_every_list() -> None:
    """Sold out by stock record, excluded category, too little margin; unknown cost is no reason to hide an item."""
    catalogue = pl.DataFrame(
        {
            "item_id": ["tea", "cup", "pen", "ink"],
            "category": ["drinks", None, "office", "office"],
            "unit_price": [10.0, 10.0, 10.0, None],
            "unit_cost": [5.0, None, 9.5, 1.0],
            "stock_on_hand": [5, 0, 5, None],
        }
    )
    thin = PLAIN.model_copy(update={"minimum_margin_share": 0.2})
    assert set(items_of(lists_of((), 5, thin, catalogue), "ann")) == {"tea", "ink"}
    no_office = PLAIN.model_copy(update={"excluded_categories": ("office",)})
    assert set(items_of(lists_of((), 5, no_office, catalogue), "ann")) == {"tea"}


def test_the_inventory_plan_decides_over_the_stock_record() -> None:
    day = FIRST + timedelta(days=5)
    known = {"as_of_date": day, "lead_time_days": 1, "safety_stock": 0.0, "reorder_point": 0.0, "order_quantity": 0}
    plan = pl.DataFrame(
        [{**known, "item_id": "tea", "sellable_units": 0}, {**known, "item_id": "cup", "sellable_units": 3}],
        schema_overrides={"as_of_date": pl.Date},
    )
    catalogue = pl.DataFrame({"item_id": ["tea", "cup"], "stock_on_hand": [5, 0]})
    rows = lists_of((), 5, PLAIN, catalogue, {"inventory_plan": plan})
    assert "tea" not in rows["item_id"].to_list() and items_of(rows, "ann")[0] == "cup"


def test_a_list_nothing_may_be_in_is_one_row_without_item() -> None:
    catalogue = pl.DataFrame({"item_id": ["tea", "cup", "pen", "ink"], "stock_on_hand": [0, 0, 0, 0]})
    rows = lists_of((), 5, PLAIN, catalogue).filter(pl.col("user_id") == "ann")
    assert rows.select("rank", "item_id", "score", "logging_propensity").to_dicts() == [
        {"rank": 1, "item_id": None, "score": None, "logging_propensity": 1.0}
    ]


def test_held_out_users_get_the_popularity_list() -> None:
    rows = lists_of((), 5, PLAIN.model_copy(update={"holdout_share": 1.0}))
    ann = rows.filter(pl.col("user_id") == "ann")
    assert ann["is_holdout"].all() and ann["policy_id"].unique().to_list() == ["popularity"]
    assert items_of(rows, "ann") == items_of(rows, "unknown")


def test_views_and_carts_count_where_nothing_was_bought() -> None:
    rows = lists_of(((5, "eve", "view_item", "cup"), (5, "eve", "add_to_cart", "ink")), 5)
    assert items_of(rows, "eve")[0] == "ink" and "cup" in items_of(rows, "eve")
    assert (
        rows.filter(pl.col("user_id") == "eve", pl.col("item_id").is_in(["ink", "cup"]))["reason"].unique().item()
        == "looked at today"
    )


def random_events(seed: int, days: int, users: int = 25, items: int = 20) -> list[Event]:
    generator = np.random.default_rng(seed)
    events: list[Event] = []
    for day in range(days):
        for user in generator.choice(users, size=4, replace=False):
            liked = (user * 3 + generator.integers(0, 6, size=3)) % items
            for item in sorted(set(liked.tolist())):
                kind = ("purchase", "view_item", "add_to_cart")[int(generator.integers(0, 3))]
                events.append((day, f"user{user}", kind, f"item{item}"))
    return events


def build_in_parts(
    frames: Mapping[str, pl.DataFrame], parts: Sequence[Sequence[date]], store: Store
) -> tuple[dict[str, pl.DataFrame], list[FittedModel]]:
    """Each part of the days from frames that end with it and from what the parts before published."""
    tables: dict[str, list[pl.DataFrame]] = {"recommendations": [], "item_recommendations": []}
    models: list[FittedModel] = []
    for days in parts:
        known = {
            name: rows.filter(pl.col("landed_date" if "landed_date" in rows.columns else "as_of_date") <= days[-1])
            for name, rows in frames.items()
        }
        known |= {name: pl.concat(made) for name, made in tables.items() if made}
        built = build_recommendations(reader_over(known, store, days[-1], models), days, store)
        for name, made in tables.items():
            rows = built.tables[name]
            assert isinstance(rows, pl.DataFrame)
            made.append(rows)
        models += built.models
    return {name: pl.concat(made) for name, made in tables.items()}, models


@pytest.mark.parametrize(("methods", "objective"), [("plain", "conversion"), ("learned", "conversion"), ("learned", "purchases")])
def test_day_by_day_equals_one_range_and_nothing_comes_from_later(methods: str, objective: str) -> None:
    """Days are built from frames that end with them, so that equality with the range also shows there is no leak."""
    how = PLAIN.model_copy(update={"holdout_share": 0.1, "exploration_share": 0.3, "cadence_days": 14, "objective": objective})
    store = shop_store(how, methods)
    days = days_between(FIRST, FIRST + timedelta(days=30))
    frames = frames_of(random_events(1, len(days)), days, store)
    built = build_recommendations(reader_over(frames, store, days[-1]), days, store)
    # a cadence day, a keyframe and plain days one by one, after a range
    parts = [days[:24], *[[day] for day in days[24:]]]
    in_parts, models = build_in_parts(frames, parts, store)
    for name, rows in in_parts.items():
        whole = built.tables[name]
        assert isinstance(whole, pl.DataFrame)
        assert_frame_equal(whole, rows, check_exact=False, rel_tol=1e-9)
        assert whole.columns == list(polars_schema(name))
    assert [model.model_version for model in models] == [model.model_version for model in built.models]
    if methods == "learned":
        assert any(model.model_name == RANKER for model in models)
        effects = Links.from_text([model for model in models if model.model_name == LINKS][-1].model).next_visits
        assert bool(effects.nnz) == (objective == "purchases"), "what is ordered by worth needs none"


def test_entries_are_due_as_the_feature_logs_have_them() -> None:
    store = shop_store()
    days = days_between(FIRST, FIRST + timedelta(days=15))
    frames = frames_of(random_events(2, len(days)), days, store)
    built = build_recommendations(reader_over(frames, store, days[-1]), days, store)
    for table, log, entity in (
        ("recommendations", "user_features", "user_id"),
        ("item_recommendations", "item_features", "item_id"),
    ):
        rows = built.tables[table]
        assert isinstance(rows, pl.DataFrame)
        ours = rows.filter(pl.col(entity) != "unknown").select("as_of_date", entity).unique().sort("as_of_date", entity)
        assert_frame_equal(ours, frames[log].select("as_of_date", entity).sort("as_of_date", entity))
        ranks = rows.group_by("as_of_date", entity).agg(first=pl.col("rank").min(), last=pl.col("rank").max(), n=pl.len())
        assert ((ranks["first"] == 1) & (ranks["last"] == ranks["n"])).all()
    lists = built.tables["recommendations"]
    assert isinstance(lists, pl.DataFrame)
    assert lists.filter(pl.col("user_id") == "unknown")["as_of_date"].n_unique() == len(days)
    assert (built.tables["item_recommendations"].filter(pl.col("item_id") == pl.col("recommended_item_id"))).is_empty()  # type: ignore[union-attr]


def test_a_keyframe_restates_long_unseen_users_as_they_were_issued() -> None:
    """Seen last 400 days ago and more: the keyframe copies the list with its issued_date, in a range and day by day."""
    events: list[Event] = [(0, "old", "purchase", "tea"), *[(day, "new", "purchase", "cup") for day in range(0, 430, 5)]]
    store = shop_store()
    last = 28 * 15
    days = days_between(FIRST, FIRST + timedelta(days=last))
    frames = frames_of(events, days, store)
    built = build_recommendations(reader_over(frames, store, days[-1]), days, store)
    rows = built.tables["recommendations"]
    assert isinstance(rows, pl.DataFrame)
    restated = rows.filter(pl.col("user_id") == "old", pl.col("as_of_date") == days[-1])
    issued = restated["issued_date"].unique().item()
    assert (days[-1] - issued).days < 28 and (issued - FIRST).days <= 400
    original = rows.filter(pl.col("user_id") == "old", pl.col("as_of_date") == issued)
    assert_frame_equal(restated.drop("as_of_date"), original.drop("as_of_date"))
    earlier = {name: table.filter(pl.col("as_of_date") < days[-1]) for name, table in built.tables.items()}  # type: ignore[union-attr]
    alone = build_recommendations(
        reader_over({**frames, **earlier}, store, days[-1], [model for model in built.models if model.fitted_as_of < days[-1]]),
        days[-1:],
        store,
    )
    assert_frame_equal(alone.tables["recommendations"], rows.filter(pl.col("as_of_date") == days[-1]))  # type: ignore[arg-type]


def test_without_events_both_tables_are_empty_and_say_why() -> None:
    store = shop_store().model_copy(update={"sources": {"items": SourceBlock(files="items.csv", columns={"item_id": "item_id"})}})
    built = build_recommendations(reader_over({}, store, FIRST), [FIRST], store)
    assert set(built.degraded) == set(built.tables) == {"recommendations", "item_recommendations"}
    assert built.degraded["recommendations"] == "needs source 'events'"


def test_a_day_without_any_event_still_has_the_list_of_unknown_users() -> None:
    store = shop_store()
    built = build_recommendations(reader_over({}, store, FIRST), [FIRST], store)
    rows = built.tables["recommendations"]
    assert isinstance(rows, pl.DataFrame)
    assert rows.select("user_id", "rank", "item_id").to_dicts() == [{"user_id": "unknown", "rank": 1, "item_id": None}]
    seen = pl.DataFrame({"as_of_date": [FIRST], "issued_date": [FIRST], "user_id": ["ann"]})
    built = build_recommendations(reader_over({"user_features": seen}, store, FIRST), [FIRST], store)
    lists = built.tables["recommendations"]
    assert isinstance(lists, pl.DataFrame)
    assert lists.select("user_id", "item_id", "policy_id").rows() == [("ann", None, "blend"), ("unknown", None, "popularity")]


# --- what speaks to whom --------------------------------------------------------------------------------------------------


def history_of(rows: Sequence[tuple[int, int, int, int, bool, int]], items: int) -> History:
    """rows: user, item, day, minute of the day, whether bought, views."""
    rows = sorted(rows, key=lambda row: (row[0], row[2], row[1]))
    user, item, day, minute, bought, views = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    return History(
        users=pl.Series("user_id", [f"u{number}" for number in range(int(user.max()) + 1)]),
        items=pl.Series("item_id", [f"i{number}" for number in range(items)]),
        user=user, item=item, known=day, happened=day, moment=day * 1440 + minute,
        strength=np.where(bought > 0, 1.0, 0.2), views=views, is_bought=bought > 0, is_wanted=bought > 0,
        spent=np.where(bought > 0, 5.0, 0.0),
    )  # fmt: skip


def test_what_was_looked_at_last_and_not_bought_counts_most() -> None:
    """Two items seen on one day, six hours apart, and one bought beside the later: half the bonus, all of it, none."""
    history = history_of([(0, 0, 9, 600, False, 1), (0, 1, 9, 960, False, 1), (0, 2, 9, 960, True, 0)], 3)
    how = Retrieval(own_half_life=10.0, lately=3.0, lately_minutes=360.0)
    seen = taste(history, np.array([0, 0]), np.array([9, 19]), how)
    assert seen.row.tolist() == [0, 0, 0, 1, 1, 1] and seen.item.tolist() == [0, 1, 2, 0, 1, 2]
    np.testing.assert_allclose(seen.own[:3], [0.2 * 2.5, 0.2 * 4, 1.0])
    np.testing.assert_allclose(seen.own[3:], seen.own[:3] / 2)
    assert seen.minutes[:3].tolist() == [360.0, 0.0, 0.0] and seen.at_last.all() and seen.row_visits.tolist() == [1.0, 1.0]


def test_rows_of_a_block_do_not_look_at_each_other() -> None:
    """The same user as of two days, and one without any row, asked together and alone."""
    generator = np.random.default_rng(5)
    rows = {(int(u), int(i), int(d)): (int(u), int(i), int(d), 10, bool(b), 1) for u, i, d, b in
            zip(*(generator.integers(0, top, 200) for top in (6, 15, 40, 2)), strict=True)}  # fmt: skip
    history = history_of(list(rows.values()), 15)
    matrix = sp.random_array((15, 15), density=0.4, rng=generator, format="csr").astype(np.float32)
    users, days, popular = np.array([3, -1, 3, 0]), np.array([39, 39, 20, 39]), generator.random((1, 15))

    def blends(which: list[int]) -> list[dict[int, float]]:
        place = np.zeros(len(which), dtype=np.int64)
        seen = taste(history, users[which], days[which], Retrieval())
        best = np.argsort(-popular[0])[None, :4]
        scored = score(seen.matrix(seen.recent), (seen.row, seen.item, seen.own), sp.csr_array(matrix),
                       Popular(place, popular, best, np.full(1, -1, dtype=np.float32)), Retrieval())  # fmt: skip
        assert (scored.at[scored.row, scored.item] == np.arange(len(scored.row))).all()
        assert len(set(zip(scored.row.tolist(), scored.item.tolist(), strict=True))) == len(scored.row)
        return [dict(zip(scored.item[scored.row == row].tolist(), scored.blend[scored.row == row].tolist(), strict=True))
                for row in range(len(which))]  # fmt: skip

    together = blends([0, 1, 2, 3])
    assert together == [blends([row])[0] for row in range(4)]
    assert set(together[1]) == set(np.argsort(-popular[0])[:4].tolist()), "nothing is known of them: what is popular"


def test_blends_below_the_floor_are_those_no_list_needs() -> None:
    """With and without the floor the best items of every row are the same."""
    generator = np.random.default_rng(6)
    rows = {(u, i): (u, i, int(generator.integers(0, 30)), 0, bool(generator.integers(0, 2)), 1)
            for u in range(8) for i in generator.integers(0, 60, 5).tolist()}  # fmt: skip
    history = history_of(list(rows.values()), 60)
    links = sp.csr_array(sp.random_array((60, 60), density=0.3, rng=generator, format="csr").astype(np.float32))
    popular, zeros = np.round(generator.random((1, 60)), 6), np.zeros(8, dtype=np.int64)
    best = np.argsort(-popular[0])[None, :10]
    seen = taste(history, np.arange(8), zeros + 30, Retrieval())
    found = []
    for floor in (-1.0, Retrieval().popular * popular[0, best[0, -1]] - 2e-6):
        named = Popular(zeros, popular, best, np.full(1, floor, dtype=np.float32))
        scored = score(seen.matrix(seen.recent), (seen.row, seen.item, seen.own), links, named, Retrieval())
        places = places_of_best(scored.row, levels(scored.blend), scored.item, 8, 10)
        found.append((scored.item[places].tolist(), len(scored.row)))
    assert found[0][0] == found[1][0] and found[1][1] < found[0][1]


def test_leanings_weigh_categories_against_everyone() -> None:
    """Eight purchases of one category, two of another: shares .8 and .2 drawn to everyone's .5 and .5 by five purchases."""
    history = history_of([(0, item, 0, 0, True, 0) for item in range(10)], 11)
    seen = taste(history, np.array([0, -1]), np.array([0, 0]), Retrieval())
    category = np.array([[0] * 8 + [1, 1, -1]])
    leaning = Leanings.of(seen, category, np.zeros(2, dtype=np.int64), 2)
    row, asked, half = np.array([0, 0, 0, 1]), np.array([0, 1, -1, 0]), np.array([0.5, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(leaning.pull(row, asked, half), [(8 + 2.5) / 7.5, (2 + 2.5) / 7.5, 1.0, 1.0], rtol=1e-6)
    assert leaning.strongest(2, 3).tolist() == [[0, 1, -1], [-1, -1, -1]]
    assert leaning.items.tolist() == [8.0, 2.0]


def purchases(seed: int, users: int, items: int, days: int, each: int) -> list[tuple[int, int, int, int, bool, int]]:
    """Rows of history_of: purchases and looks at random, at most one a user, item and day."""
    generator = np.random.default_rng(seed)
    drawn = zip(*(generator.integers(0, top, users * each) for top in (users, items, days)), strict=True)
    return [(u, i, d, 10, bool(generator.random() < 0.7), 1) for u, i, d in sorted({(int(u), int(i), int(d)) for u, i, d in drawn})]


def effects_of(history: History, day: int) -> sp.csr_array:
    rows = np.flatnonzero(history.known <= day)
    order = np.lexsort((history.item[rows], history.happened[rows], history.user[rows]))
    return next_visits(history, rows[order], day)


def test_the_next_visit_is_regressed_on_what_was_had_before_it() -> None:
    """Against the ridge regression written down visit by visit; what was only looked at is had, but in no visit."""
    rows, day = purchases(4, 12, 9, 40, 25), 30
    history = history_of(rows, 9)
    before, held, weight = [], [], []
    for user in range(12):
        theirs = [row for row in rows if row[0] == user and row[2] <= day]
        for visit in sorted({row[2] for row in theirs if row[4]}):
            had = {row[1] for row in theirs if row[2] < visit}
            if had:
                before.append([(item in had) / len(had) ** 0.5 for item in range(9)])
                held.append([float(any(row[1] == item and row[2] == visit and row[4] for row in theirs)) for item in range(9)])
                weight.append(0.5 ** ((day - visit) / HALF_LIFE))
    x, y, w = np.array(before), np.array(held), np.diag(weight)
    square = x.T @ w @ x
    truth = np.linalg.solve(square + RIDGE * np.diag(square).mean() * np.eye(9), x.T @ w @ y)
    np.testing.assert_allclose(effects_of(history, day).toarray(), truth, rtol=1e-6)
    later = history_of([row for row in rows if row[2] <= day], 9)
    np.testing.assert_array_equal(effects_of(later, day).toarray(), effects_of(history, day).toarray())
    seen = taste(history, np.array([3, -1]), np.array([day, day]), Retrieval())
    had = np.isin(np.arange(9), [row[1] for row in rows if row[0] == 3 and row[2] <= day])
    np.testing.assert_allclose(expected(seen, effects_of(history, day)).toarray()[0], had / had.sum() ** 0.5 @ truth, rtol=1e-5)
    assert not expected(seen, effects_of(history, day)).toarray()[1].any()


def test_what_was_paid_is_known_by_item_as_of_a_day() -> None:
    """Of purchases alone: a cart and a look cost nothing."""
    days = days_between(FIRST, FIRST + timedelta(days=4))
    events = [(1, "ann", "purchase", "tea"), (3, "ann", "purchase", "tea"), (3, "ann", "add_to_cart", "cup"), (4, "ann", "view_item", "tea")]
    reader = reader_over({"clean_events": clean_events(events)}, shop_store(), days[-1])
    history = read_history(reader, pl.Series("item_id", ["cup", "tea"]), FIRST, days, None)
    seen = taste(history, np.array([0, 0]), np.array([ordinal(days[2]), ordinal(days[4])]), Retrieval())
    assert list(zip(seen.row.tolist(), seen.item.tolist(), seen.spent.tolist(), strict=True)) == [(0, 1, 10.0), (1, 0, 0.0), (1, 1, 20.0)]
    assert user_facts(history, np.arange(len(history.user)))["line"].tolist() == pytest.approx([0.0, np.log(11)])


def test_what_people_come_back_to_speaks_for_itself() -> None:
    """Everyone buys item 0 again and again, and item 1, 2, 3 ... once each."""
    rows = [(user, item, visit * 7, 10, True, 0) for user in range(30) for visit in range(4) for item in (0, 1 + visit)]
    effects = effects_of(history_of(rows, 5), 21).toarray()
    assert effects[0, 0] > 5 * effects[1, 1] and effects[1, 2] > effects[2, 1], "what was had before, not after"
    assert not effects_of(history_of(rows[:2], 5), 21).nnz, "a first visit teaches nothing"


def test_of_two_items_seen_as_often_the_one_that_sells_comes_first() -> None:
    """Both were viewed by the same strangers; what sells per view leads the list of the unknown, though views are equal."""
    views = [(day, f"x{number}", "view_item", item) for day in range(4) for number in range(6) for item in ("tea", "pen")]
    sales = [(day, f"x{number}", "purchase", "pen") for day in range(4) for number in range(6)]
    days = days_between(FIRST, FIRST + timedelta(days=4))
    store = shop_store()
    built = build_recommendations(reader_over(frames_of([*views, *sales], days, store), store, days[-1]), days, store)
    rows = built.tables["recommendations"]
    assert isinstance(rows, pl.DataFrame)
    catalogue = Catalogue(reader_over(frames_of([*views, *sales], days, store), store, days[-1]), days, store)
    catalogue.at(days[-1])
    pull = dict(zip(catalogue.items.to_list(), catalogue.pull(days[-1]).tolist(), strict=True))
    # 48 views, 24 orders: a rate of 1/2; pen 24 orders of 12 expected, tea none of 12, each drawn in by ten orders
    assert pull == {"pen": pytest.approx(34 / 22), "tea": pytest.approx(10 / 22)}
    assert items_of(rows.filter(pl.col("as_of_date") == days[-1]), "unknown") == ["pen", "tea"]


def test_the_ranking_model_looks_no_further_back_than_the_pipeline_says() -> None:
    from marketing_assets.pipeline import step_of_table
    from marketing_assets.recommendations.catalogue import POPULARITY_DAYS
    from marketing_assets.recommendations.fits import cut_days
    from marketing_assets.recommendations.history import HISTORY_DAYS

    store = shop_store()
    day = store.first_day + timedelta(days=400)
    while not store.is_cadence_day(day, store.recommendations.cadence_days):
        day += timedelta(days=1)
    cuts, _ = cut_days(store, day)
    back = (day - min(cuts)).days
    reads = step_of_table(store)["recommendations"].reads
    declared = {name: days if isinstance(days, int) else days(store, day) for name, days in reads.items()}
    assert declared["clean_events"] >= back + HISTORY_DAYS - 1 and declared["item_days"] >= back + POPULARITY_DAYS - 1
