"""Lists for baskets: the regression against one item at a time, what counts as an order, and what is said beside an entry."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from marketing_assets.recommendations import BasketError, baskets, for_basket, read_baskets
from marketing_assets.warehouse import MissingPartitions, days_between, reader_over
from marketing_assets_tests.test_recommendations import FIRST, Event, frames_of, shop_store

DAYS = days_between(FIRST, FIRST + timedelta(days=20))
LAST = DAYS[-1]


PAIRS: list[Event] = [
    (day, f"{pair[0]}{number}", "purchase", item)
    for day in range(20) for number in range(4) for pair in (("tea", "cup"), ("pen", "ink")) for item in pair
]  # fmt: skip


def random_orders(seed: int, items: int = 7) -> list[Event]:
    """Orders of one to four items; even ones tend to come together."""
    rng = np.random.default_rng(seed)
    events: list[Event] = []
    for day in range(len(DAYS)):
        for order in range(6):
            liked = rng.choice(np.arange(0, items, 2) if rng.random() < 0.6 else np.arange(items), size=int(rng.integers(1, 5)), replace=False)
            events += [(day, f"user{order}", "purchase", f"i{item}") for item in sorted(set(liked.tolist()))]
    return events


def shares_by_hand(orders: dict[str, tuple[date, set[str]]], basket: set[str]) -> dict[str, float]:
    """Each item regressed on all others by itself: weighted ridge around the items' shares, with numpy's solver."""
    kept = [(day, held) for day, held in orders.values() if len(held) > 1]
    items = sorted(set().union(*(held for _, held in kept)))
    weight = np.array([0.5 ** ((LAST - day).days / baskets.HALF_LIFE) * len(held) ** -0.5 for day, held in kept])
    held = np.array([[item in content for item in items] for _, content in kept], dtype=float)
    share = weight @ held / weight.sum()
    centred = held - share
    found = {}
    for place, item in enumerate(items):
        others = [other for other in range(len(items)) if other != place]
        x, y = centred[:, others], centred[:, place]
        effects = np.linalg.solve(x.T @ (weight[:, None] * x) + baskets.RIDGE * np.eye(len(others)), x.T @ (weight * y))
        found[item] = share[place] + sum((float(items[other] in basket) - share[other]) * one for other, one in zip(others, effects, strict=True))
    return {item: value for item, value in found.items() if item not in basket}


def orders_of(events: pl.DataFrame) -> dict[str, tuple[date, set[str]]]:
    return {
        str(name): (part["event_date"].max(), set(part["item_id"]))  # type: ignore[misc]
        for (name,), part in events.filter(pl.col("event_type") == "purchase").group_by("order_id")
    }


@pytest.mark.parametrize("basket", [{"i0"}, {"i0", "i2"}, {"i1", "i4", "i6"}, set()])
def test_scores_equal_regressing_one_item_at_a_time(basket: set[str]) -> None:
    frames = frames_of(random_orders(3), DAYS, shop_store())
    rows = for_basket(reader_over(frames, shop_store(), LAST), LAST, shop_store(), {"b": sorted(basket)}, 20)
    expected = shares_by_hand(orders_of(frames["clean_events"]), basket)
    assert set(rows["item_id"]) == {item for item, value in expected.items() if value > 0}
    for item, value in rows.select("item_id", "score").iter_rows():
        assert value == pytest.approx(expected[item], abs=1e-6)
    assert rows["score"].is_sorted(descending=True) and rows["rank"].to_list() == list(range(1, rows.height + 1))


def test_only_what_landed_by_the_day_counts() -> None:
    store, frames = shop_store(), frames_of(random_orders(4), DAYS, shop_store())
    cut = DAYS[12]
    known = {name: rows.filter(pl.col("landed_date" if "landed_date" in rows.columns else "as_of_date") <= cut) for name, rows in frames.items()}
    asked = {"b": ["i0", "i3"]}
    rows = for_basket(reader_over(frames, store, LAST), cut, store, asked)
    assert rows.equals(for_basket(reader_over(known, store, cut), cut, store, asked))
    assert not rows.equals(for_basket(reader_over(frames, store, LAST), LAST, store, asked))


def test_a_basket_is_answered_by_what_goes_with_all_of_it_and_says_why() -> None:
    store, frames = shop_store(), frames_of(PAIRS, DAYS, shop_store())
    told: list[str] = []
    asked = {"one": ["tea"], "two": ["tea", "pen", "no such item"], "none": []}
    rows = for_basket(reader_over(frames, store, LAST), LAST, store, asked, 2, told.append)
    found = {name: rows.filter(pl.col("basket_id") == name).rows_by_key("item_id", named=True) for name in asked}
    assert rows.filter(pl.col("basket_id") == "one")["item_id"][0] == "cup" and "tea" not in found["one"]
    assert found["one"]["cup"][0]["reason"] == "goes with tea" and found["one"]["cup"][0]["title"] == "cup"
    assert set(found["two"]) == {"cup", "ink"} and found["two"]["ink"][0]["reason"] == "goes with pen"
    assert len(found["none"]) == 2 and {row[0]["reason"] for row in found["none"].values()} == {"popular now"}
    assert told == [f"not known at the end of {LAST}, left aside: 1 items, such as no such item"]


def test_guests_and_visits_without_order_numbers_teach_too_and_programs_do_not() -> None:
    """An order is what has one number; without numbers, a visit; without visits, what a person bought in a day."""
    store, frames = shop_store(), frames_of(PAIRS, DAYS, shop_store())
    whole = for_basket(reader_over(frames, store, LAST), LAST, store, {"b": ["tea"]})
    events, nobody, nothing = frames["clean_events"], pl.lit(None, pl.String).alias("user_id"), pl.lit(None, pl.String)
    no_order, no_visit = nothing.alias("order_id"), nothing.alias("session_id")
    for change in ([nobody], [pl.lit("one visit").alias("session_id")], [nobody, no_order], [no_order, no_visit]):
        other = {**frames, "clean_events": events.with_columns(change)}
        assert for_basket(reader_over(other, store, LAST), LAST, store, {"b": ["tea"]}).equals(whole)
    for change in ([pl.lit(True).alias("is_bot")], [nobody, no_order, no_visit]):
        other, told = {**frames, "clean_events": events.with_columns(change)}, []
        assert for_basket(reader_over(other, store, LAST), LAST, store, {"b": ["tea"]}, 10, told.append).is_empty()
        assert told == [f"no order is known at the end of {LAST}, so that nothing can be said of baskets"]


def test_where_every_order_holds_one_item_what_is_ordered_most_comes_first() -> None:
    single: list[Event] = [(day, f"u{day}", "purchase", "tea" if day % 3 else "cup") for day in range(len(DAYS))]
    store, frames = shop_store(), frames_of([*single, (0, "bob", "purchase", "pen")], DAYS, shop_store())
    rows = for_basket(reader_over(frames, store, LAST), LAST, store, {"b": ["pen"]})
    assert rows["item_id"].to_list() == ["tea", "cup"] and set(rows["reason"]) == {"popular now"}


def test_the_shops_rules_hold() -> None:
    frames = frames_of(PAIRS, DAYS, shop_store())
    frames["items"] = frames["items"].with_columns(
        stock_on_hand=pl.when(pl.col("item_id") == "cup").then(0).otherwise(5).cast(frames["items"].schema["stock_on_hand"])
    )
    rows = for_basket(reader_over(frames, shop_store(), LAST), LAST, shop_store(), {"b": ["tea"]})
    assert "cup" not in set(rows["item_id"]) and rows.height


def test_what_is_asked_about_is_regressed_however_rare_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for three of many items: the rare one asked about and what was ordered with it come first."""
    monkeypatch.setattr(baskets, "ITEMS", 3)
    rare: list[Event] = [(9, f"r{number}", "purchase", item) for number in range(2) for item in ("rare", "rarer")]
    frames = frames_of([*random_orders(5), *rare], DAYS, shop_store())
    rows = for_basket(reader_over(frames, shop_store(), LAST), LAST, shop_store(), {"b": ["rare"]}, 20)
    entry = rows.row(by_predicate=pl.col("item_id") == "rarer", named=True)
    assert entry["reason"] == "goes with rare"
    assert set(rows["item_id"]) == {"rarer", *(f"i{item}" for item in range(7))}, "the rest by its share of orders"


def test_a_day_before_any_item_is_refused() -> None:
    store = shop_store()
    with pytest.raises(MissingPartitions, match="none is known at the end of 2024-01-01; build the days up to it first"):
        for_basket(reader_over({}, store, FIRST), FIRST, store, {"b": ["tea"]})


def test_a_file_of_baskets_is_read_and_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "carts.csv"
    path.write_text("basket_id,item_id,more\n007,tea,x\n8,cup,y\n007,0012,z\n", encoding="utf-8")
    assert read_baskets(path) == {"007": ["tea", "0012"], "8": ["cup"]}, "ids are text"
    path.write_text("basket_id,item\n1,tea\n", encoding="utf-8")
    with pytest.raises(BasketError, match=r"carts.csv: has no column item_id, only basket_id, item"):
        read_baskets(path)
    path.write_text("basket_id,item_id\n1,tea\n2,\n", encoding="utf-8")
    with pytest.raises(BasketError, match=r"carts.csv: line 3 lacks basket_id or item_id"):
        read_baskets(path)
    for text in ("", "basket_id,item_id\n1,tea,2,3\n"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(BasketError, match=r"carts.csv: cannot be read as CSV"):
            read_baskets(path)
    with pytest.raises(BasketError, match=r"nowhere.csv: cannot be read as CSV"):
        read_baskets(tmp_path / "nowhere.csv")
