"""What showing an item is worth: rates after looks and familiarity against plain loops, and lists ordered by it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy.optimize import minimize_scalar

from marketing_assets.config import SourceBlock, Store
from marketing_assets.recommendations import build_recommendations
from marketing_assets.recommendations import lists as lists_module
from marketing_assets.recommendations.catalogue import Catalogue
from marketing_assets.recommendations.history import FAR, History, choices, ordinal
from marketing_assets.recommendations.worth import (
    BOUGHT,
    CARTED,
    LOOKED_AT,
    STRANGE,
    TASTE_POWER,
    familiarity,
    price_response,
    turn_rates,
)
from marketing_assets.warehouse import days_between, reader_over
from marketing_assets_tests.test_forecasting import raw_drivers
from marketing_assets_tests.test_recommendations import FIRST, PLAIN, Event, build_in_parts, clean_events, frames_of, shop_store


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


def test_rates_of_rare_items_follow_what_their_price_lets_expect() -> None:
    rng = np.random.default_rng(2)
    price = np.where(rng.random(300) < 0.1, 0.0, rng.normal(3, 0.8, 300)).astype(np.float32)
    truth = np.exp(-0.5 * np.where(price > 0, price - 3, 0) + rng.normal(0, 0.1, 300))
    looks = rng.poisson(60, 300).astype(np.float64)
    turned = rng.poisson(looks * 0.05 * truth).astype(np.float64)
    truth *= looks.sum() * 0.05 / turned.sum()
    none = np.full(300, -1)
    found, blind = turn_rates(looks, turned, none, price), turn_rates(looks, turned, none)
    assert ((found - truth) ** 2).mean() < 0.4 * ((blind - truth) ** 2).mean()
    assert abs(np.average(found, weights=looks) - 1) < 0.03
    np.testing.assert_array_equal(turn_rates(looks, turned, none, np.zeros(300, dtype=np.float32)), blind)


def test_the_response_to_prices_is_the_one_most_likely_within_items() -> None:
    rng = np.random.default_rng(3)
    item = np.repeat(np.arange(30), 40)
    apart = np.where(rng.random(1200) < 0.2, np.log(rng.uniform(0.7, 0.95, 1200)), 0.0)
    looks = rng.poisson(20, 1200).astype(np.float64)
    turned = rng.poisson(looks * 0.1 * np.exp(rng.normal(0, 1, 30))[item] * np.exp(-2 * apart)).astype(np.float64)

    def less_likely(b: float) -> float:
        weight = looks * np.exp(b * apart)
        share = weight / np.bincount(item, weights=weight)[item]
        return float(-(turned * np.log(np.maximum(share, 1e-300))).sum() + b**2 / 2)

    found = price_response(item, looks, turned, apart)
    assert found == pytest.approx(minimize_scalar(less_likely, bounds=(-4, 4), method="bounded").x, abs=1e-4)
    assert -2.6 < found < -1.4
    assert price_response(item, looks, turned, np.zeros(1200)) == 0.0


@pytest.mark.parametrize(("carted", "bought", "is_held"), [((0.2, 0.6), (0.0, 0.0), False), ((0.4, 0.4), (0.2, 0.9), False),
                                                           ((0.2, 0.6), (0.0, 0.0), True)])  # fmt: skip
def test_what_will_be_cheaper_tomorrow_comes_first_where_lower_prices_sold(
    carted: tuple[float, float], bought: tuple[float, float], is_held: bool
) -> None:
    """Items are alike; each is a third off on announced days, and a look turns thrice as often into a cart then, or a cart is oftener
    bought. Unannounced prices say nothing. Prices are told day by day, or (is_held) where they change."""
    rng = np.random.default_rng(4)
    days = days_between(FIRST, FIRST + timedelta(days=42))
    items = [f"item{place}" for place in range(8)]
    events: list[Event] = []
    for number in range(len(days)):
        for _ in range(30):
            user = f"user{int(rng.integers(0, 50))}"
            for item in sorted(set(rng.choice(items, 3).tolist())):
                is_off = (number + int(item[4:])) % 8 == 0
                events.append((number, user, "view_item", item))
                if rng.random() < carted[is_off]:
                    events.append((number, user, "add_to_cart", item))
                    if rng.random() < bought[is_off]:
                        events.append((number, user, "purchase", item))
    # on the day after the last one it is item5's turn, and the news that item3 is cheap too land too late
    told = [
        {"landed_date": FIRST, "item_id": item, "date": FIRST + timedelta(days=number), "known_at": f"{FIRST} 08:00:00", "unit_price": 20}
        for number in range(1, len(days) + 1) for item in items if (number + int(item[4:])) % 8 == 0
    ]  # fmt: skip
    tomorrow = days[-1] + timedelta(days=1)
    told.append({**told[0], "item_id": "item3", "date": tomorrow, "landed_date": tomorrow})
    mapped = ["item_id", "date", "known_at", "unit_price"]
    if is_held:
        mapped.append("end_date")
        again = [{**row, "date": row["date"] + timedelta(days=1), "unit_price": 30, "landed_date": FIRST + timedelta(days=1)} for row in told]
        told = [{**row, "end_date": "9999-12-31"} for row in [*told, *again]]
    store = shop_store(PLAIN)
    block = SourceBlock(files="d{date}.csv", columns={name: name for name in mapped})
    informed = store.model_copy(update={"sources": {**store.sources, "item_drivers": block}})
    frames = frames_of(events, days, store)
    frames["items"] = frames["items"].with_columns(unit_price=pl.lit(30).cast(frames["items"].schema["unit_price"]))
    frames["raw_item_drivers"] = raw_drivers(told)

    def top(store: Store, known: dict[str, pl.DataFrame]) -> str:
        lists = build_recommendations(reader_over(known, store, days[-1]), days, store).tables["recommendations"]
        assert isinstance(lists, pl.DataFrame)
        return str(lists.filter(pl.col("as_of_date") == days[-1], pl.col("user_id") == "unknown", pl.col("rank") == 1)["item_id"].item())

    assert top(informed, frames) == "item5"
    assert top(store, frames) != "item5", "by chance it would be first anyway"
    in_parts, _ = build_in_parts(frames, [days[:25], *[[day] for day in days[25:]]], informed)
    whole = build_recommendations(reader_over(frames, informed, days[-1]), days, informed).tables["recommendations"]
    assert isinstance(whole, pl.DataFrame)
    assert_frame_equal(whole, in_parts["recommendations"])


def landing_late(events: pl.DataFrame, days: pl.Expr) -> pl.DataFrame:
    return events.with_columns(landed_date=pl.col("landed_date") + pl.duration(days=days))


def test_rates_are_of_people_who_looked_each_counted_once_a_day() -> None:
    days = days_between(FIRST, FIRST + timedelta(days=1))
    events: list[Event] = [
        *[(0, "fond", "view_item", "cup")] * 3, *[(0, "fond", "add_to_cart", "cup")] * 2, (1, "fond", "view_item", "cup"),
        (0, "idle", "view_item", "cup"), (0, "buyer", "view_item", "cup"), (0, "buyer", "add_to_cart", "cup"), (0, "buyer", "purchase", "cup"),
        *[(0, f"form{number}", kind, "cup") for number in range(5) for kind in ("add_to_cart", "purchase")],
    ]  # fmt: skip
    named = clean_events(events)
    # of two people without a name one has a session
    unnamed = named.filter(pl.col("user_id") == "fond").with_columns(user_id=pl.lit(None, dtype=pl.String))
    sessions = [unnamed.with_columns(session_id=pl.lit(session, dtype=pl.String), event_id=pl.lit(f"{session}") + pl.col("event_id"))
                for session in ("s1", None)]  # fmt: skip
    everyone = pl.concat([named, *sessions], how="diagonal_relaxed")
    # orders land a day later than visits
    late = landing_late(everyone, pl.when(event_type="purchase").then(1).otherwise(0))
    found = choices(reader_over({"clean_events": late}, shop_store(PLAIN), days[-1]), days[0], days[-1])
    first, second = (ordinal(day) for day in days)
    assert found.rows() == [
        (days[0], "cup", first, first, second, 1.0), (days[0], "cup", first, first, FAR, 2.0), (days[0], "cup", first, FAR, FAR, 1.0),
        (days[1], "cup", second, FAR, FAR, 2.0),
    ]  # fmt: skip


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
    found = familiarity(history, np.arange(len(rows)), np.ones(len(rows)))
    mean = sum(carted for *_, carted, _ in rows) / len(rows)
    for sign, true in rate.items():
        assert found[sign] == pytest.approx(true / mean, rel=0.15)
    nothing = looks_of([(0, 1, 0, 3, False, False)], 2)
    assert familiarity(nothing, np.arange(1), np.ones(1)).tolist() == [1.0] * 4


def test_what_taste_explains_is_no_familiarity() -> None:
    """Half of the people cart the first item four times as often, the others the second, and come back to it; what they do is no
    other after a look than before."""
    rng = np.random.default_rng(9)
    rows = [
        (person, day, item, 1, bool(rng.random() < (0.2 if person % 2 == item else 0.05)), False)
        for person in range(20_000) for item in range(2) for day in range(3 if person % 2 == item else 1)
    ]  # fmt: skip
    history = looks_of(rows, 2)
    blind = familiarity(history, np.arange(len(rows)), np.ones(len(rows)))
    found = familiarity(history, np.arange(len(rows)), np.where(history.user % 2 == history.item, 4.0, 1.0) ** (1 / TASTE_POWER))
    assert blind[LOOKED_AT] > 1.15 > 0.85 > blind[STRANGE]
    np.testing.assert_allclose(found, 1.0, atol=0.06)


def shop_of_looks(seed: int, days: int, fad: float = 0.03) -> list[Event]:
    """'fad' is looked at by everyone and carted by few (fad of them); 'gem' is seldom looked at and carted by half who do."""
    rng = np.random.default_rng(seed)
    events: list[Event] = []
    items = ["fad"] * 8 + ["gem"] + [f"item{place}" for place in range(6)]
    chance = {"fad": fad, "gem": 0.5}
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


def test_what_is_best_to_show_is_a_candidate_though_few_ever_looked_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of strangers nothing speaks for an item but the day itself; the one popular candidate is 'fad', which much is sold of."""
    monkeypatch.setattr(lists_module, "EXPLORED_POOL", 0)
    days = days_between(FIRST, FIRST + timedelta(days=30))
    store = shop_store(PLAIN.model_copy(update={"list_length": 1}))
    frames = frames_of(shop_of_looks(5, len(days), 0.3), days, store)
    lists = build_recommendations(reader_over(frames, store, days[-1]), days, store).tables["recommendations"]
    assert isinstance(lists, pl.DataFrame)
    ours = lists.filter(pl.col("user_id") == "unknown")
    assert ours.filter(pl.col("as_of_date") == days[0])["item_id"].item() == "fad", "before worth can be told"
    assert ours.filter(pl.col("as_of_date") == days[-1])["item_id"].item() == "gem"


def test_what_lands_late_counts_from_then_on_in_a_range_as_by_itself() -> None:
    days = days_between(FIRST, FIRST + timedelta(days=30))
    store = shop_store(PLAIN)
    frames = frames_of(shop_of_looks(6, len(days)), days, store)
    frames["clean_events"] = landing_late(frames["clean_events"], pl.col("event_id").hash(1) % 4)
    whole = build_recommendations(reader_over(frames, store, days[-1]), days, store).tables["recommendations"]
    assert isinstance(whole, pl.DataFrame) and "worth" in set(whole.filter(pl.col("as_of_date") == days[-4])["policy_id"])
    in_parts, _ = build_in_parts(frames, [days[:25], *[[day] for day in days[25:]]], store)
    assert_frame_equal(whole, in_parts["recommendations"])


def test_looks_of_a_part_of_the_traffic_tell_no_rates() -> None:
    """A shop that logs looks on its site but not in its app sold more than was looked at: what nobody looked at led the lists."""
    days = days_between(FIRST, FIRST + timedelta(days=12))
    app: list[Event] = []
    for day in range(len(days)):
        for number in range(170):
            app.append((day, f"user{number % 60}", "purchase", "staple" if number % 4 else f"item{number % 6}"))
        app.append((day, f"user{day}", "purchase", "rarity"))  # never looked at
    store = shop_store(PLAIN.model_copy(update={"holdout_share": 0.2}))
    frames = frames_of([*shop_of_looks(5, len(days)), *app], days, store)
    lists = build_recommendations(reader_over(frames, store, days[-1]), days, store).tables["recommendations"]
    assert isinstance(lists, pl.DataFrame)
    last = lists.filter(pl.col("as_of_date") == days[-1])
    assert "rarity" not in set(last.filter(pl.col("rank") == 1)["item_id"])
    assert set(last.filter(pl.col("rank") == 1, "is_holdout")["item_id"]) == {"staple"}
    catalogue = Catalogue(reader_over(frames, store, days[-1]), days, store)
    catalogue.at(days[-1])
    assert catalogue.pull(days[-1]).tolist() == [1.0] * len(catalogue.items)


def test_pages_show_what_is_worth_most_or_only_what_is_linked() -> None:
    """Two crowds that look at nothing of each other's; the one thing often carted is the second crowd's."""
    rng = np.random.default_rng(21)
    days = days_between(FIRST, FIRST + timedelta(days=30))
    events: list[Event] = []
    for number in range(len(days)):
        for visit in range(40):
            crowd = visit % 2
            for item in sorted(set(rng.choice([f"{'ab'[crowd]}{place}" for place in range(6)], 3).tolist())):
                events.append((number, f"user{crowd}{int(rng.integers(0, 30))}", "view_item", item))
                if rng.random() < (0.9 if item == "b0" else 0.15):
                    events.append((number, events[-1][1], "add_to_cart", item))
    frames = frames_of(events, days, shop_store(PLAIN))

    def page(how: str) -> pl.DataFrame:
        store = shop_store(PLAIN.model_copy(update={"page_items": how}))
        built = build_recommendations(reader_over(frames, store, days[-1]), days, store).tables["item_recommendations"]
        assert isinstance(built, pl.DataFrame)
        last = built.filter(pl.col("as_of_date") == days[-1]).sort("item_id", "rank")
        assert last.filter(pl.col("item_id") == pl.col("recommended_item_id")).is_empty()
        assert last.filter(pl.col("score").diff().over("item_id") > 0).is_empty()
        return last

    whole = page("any").with_columns(own=pl.col("item_id").str.head(1) == pl.col("recommended_item_id").str.head(1))
    first = whole.filter(pl.col("rank") == 1, pl.col("item_id") != "b0")
    assert set(first["recommended_item_id"]) == {"b0"}
    is_best = pl.col("recommended_item_id") == "b0"
    said = {kind: set(whole.filter(rows)["reason"]) for kind, rows in (("own", "own"), ("best", ~pl.col("own") & is_best))}
    assert said == {"own": {"goes with it"}, "best": {"often chosen once looked at"}}
    assert set(whole.filter(~pl.col("own") & ~is_best)["reason"]) <= {"often chosen once looked at", "liked by those who look at it"}
    linked = page("linked").with_columns(crowd=pl.col("item_id").str.head(1), other=pl.col("recommended_item_id").str.head(1))
    assert (linked["crowd"] == linked["other"]).all() and linked.height == 2 * 6 * 5
    assert set(linked["reason"]) == {"goes with it"}
    beside = linked.filter(pl.col("rank") == 1, pl.col("crowd") == "b", pl.col("item_id") != "b0")
    assert set(beside["recommended_item_id"]) == {"b0"}
