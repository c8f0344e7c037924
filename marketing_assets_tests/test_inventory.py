"""Order proposals: lead-time demand from joint paths, orders in packs, what may be promised, the same day by day."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, timedelta
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from scipy.stats import nbinom, norm, poisson

from marketing_assets.config import Store
from marketing_assets.inventory import Demand, Supply, build_inventory, knot_values, path_weights, simulate, targets
from marketing_assets.inventory.places import allocations, moves, shared, transfers
from marketing_assets.schemas import QUANTILE_COLUMNS, TABLES
from marketing_assets.warehouse import days_between, polars_schema, reader_over

FIRST = date(2026, 1, 5)
LEVELS = np.array(list(QUANTILE_COLUMNS))


def shop(sources: tuple[str, ...] = ("events",), **inventory: Any) -> Store:
    return Store.model_validate(
        {
            "name": "shop", "timezone": "UTC", "currency": "EUR", "first_day": FIRST, "methods": "plain", "threads": 1,
            "sources": {name: {"rows": [{}]} for name in sources}, "inventory": inventory,
        }
    )  # fmt: skip


def conform(name: str, rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    schema = polars_schema(name)
    frame = pl.DataFrame(list(rows), infer_schema_length=None)
    return frame.select((pl.col(c) if c in frame.columns else pl.lit(None)).cast(kind).alias(c) for c, kind in schema.items())


def forecasts(issue: date, means: dict[tuple[str, str | None], float], horizon: int = 28) -> list[dict[str, Any]]:
    """Poisson demand with these means on every day."""
    return [
        {
            "as_of_date": issue, "level": "item", "series_id": f"{item}|{place}", "item_id": item, "location_id": place,
            "date": issue + timedelta(days=step), "horizon_days": step, "demand_mean": mean, "model": "m",
            **{column: float(poisson.ppf(level, mean)) for level, column in QUANTILE_COLUMNS.items()},
        }
        for (item, place), mean in means.items()
        for step in range(1, horizon + 1)
    ]  # fmt: skip


def item(day: date, name: str, **given_: Any) -> dict[str, Any]:
    return {"as_of_date": day, "item_id": name, "has_list_price": True, "first_seen_date": FIRST, "is_service": False, **given_}


@cache
def lived_shop() -> dict[str, pl.DataFrame]:
    means = {("a", None): 3.0, ("b", None): 0.4, ("c", "north"): 2.0, ("c", "south"): 1.0, ("d", None): 5.0}
    rows = [row for week in range(4) for row in forecasts(FIRST + timedelta(days=7 * week), means)]
    log = [
        item(FIRST, "a", stock_on_hand=10, stock_on_order=5, lead_time_days=5, pack_size=12, minimum_order_quantity=24, unit_cost=2),
        item(FIRST, "b", stock_on_hand=0, unit_cost=3), item(FIRST, "c", stock_on_hand=50, lead_time_days=3), item(FIRST, "d"),
        item(FIRST, "idle", stock_on_hand=7),
        item(FIRST + timedelta(days=12), "c", stock_on_hand=50, lead_time_days=3, stock_by_location=json.dumps([
            {"location_id": "north", "stock_on_hand": 4, "stock_on_order": 2}, {"location_id": "store room", "stock_on_hand": 46},
        ])),
        item(FIRST + timedelta(days=10), "a", stock_on_hand=200, lead_time_days=9, pack_size=12),
    ]  # fmt: skip
    return {"demand_forecasts": conform("demand_forecasts", rows), "items": conform("items", log)}


def plan(days: Sequence[date], store: Store | None = None) -> pl.DataFrame:
    store = store or shop()
    known = {name: frame.filter(pl.col(TABLES[name].partition_column) <= days[-1]) for name, frame in lived_shop().items()}
    built = build_inventory(reader_over(known, store, days[-1]), days, store).tables["inventory_plan"]
    assert isinstance(built, pl.DataFrame)
    return built


def row(table: pl.DataFrame, day: date, name: str, place: str | None = None) -> dict[str, Any]:
    chosen = table.filter(pl.col("as_of_date") == day, pl.col("item_id") == name, pl.col("location_id").eq_missing(place))
    assert chosen.height == 1
    return chosen.row(0, named=True)


def test_every_item_with_stock_or_forecast_has_a_row_and_places_have_their_own() -> None:
    table = plan([FIRST])
    assert table.select("item_id", "location_id").rows() == [
        ("a", None), ("b", None), ("c", None), ("c", "north"), ("c", "south"), ("d", None), ("idle", None)
    ]  # fmt: skip
    assert row(table, FIRST, "c", "north")["stock_on_hand"] is None
    assert row(table, FIRST, "idle")["reorder_point"] == 0


def test_a_place_has_its_own_stock_where_it_is_told_and_orders_are_of_the_whole() -> None:
    day = FIRST + timedelta(days=12)
    table = plan([day])
    whole, north, south = (row(table, day, "c", place) for place in (None, "north", "south"))
    assert (north["stock_on_hand"], north["stock_on_order"], south["stock_on_hand"]) == (4, 2, None)
    assert north["days_of_cover"] == pytest.approx(2.0)
    assert north["stockout_probability"] == pytest.approx(1 - poisson.cdf(4, 6), abs=0.1)
    assert (north["order_quantity"], north["sellable_units"]) == (0, None)
    assert (whole["stock_on_hand"], whole["sellable_units"]) == (50, 47)
    assert whole["order_quantity"] == max(0, np.ceil(whole["reorder_point"] - 50))


def test_orders_fill_up_to_the_reorder_point_in_packs_and_no_less_than_the_minimum() -> None:
    found = row(plan([FIRST]), FIRST, "a")
    short = np.ceil(found["reorder_point"] - 15)
    assert found["order_quantity"] == max(24, int(np.ceil(short / 12)) * 12)
    assert float(found["order_cost"]) == 2 * found["order_quantity"]
    assert found["safety_stock"] == pytest.approx(found["reorder_point"] - 12 * 3.0, abs=1e-3)
    assert row(plan([FIRST + timedelta(days=10)]), FIRST + timedelta(days=10), "a")["order_quantity"] == 0


def test_cover_promise_and_stock_out() -> None:
    table = plan([FIRST])
    a, b, d = (row(table, FIRST, name) for name in "abd")
    assert a["days_of_cover"] == pytest.approx(10 / 3, abs=1e-3)
    assert a["sellable_units"] == 7
    assert a["stockout_probability"] == pytest.approx(1 - poisson.cdf(10, 15), abs=0.15)  # days that lean the same way spread it
    assert (b["sellable_units"], b["days_of_cover"]) == (0, 0)
    assert (d["sellable_units"], d["stockout_probability"], d["order_cost"], d["order_quantity"]) == (None, None, None, 0)


def test_without_correlation_the_reorder_point_is_the_quantile_of_the_sum() -> None:
    """Independent Poisson days add up to a Poisson; adding daily 95 % quantiles would give far more."""
    for mean in (0.4, 3.0, 20.0):
        quantiles = poisson.ppf(LEVELS, mean)[None, None].repeat(14, axis=1)
        knots = knot_values(np.full((1, 14), mean), quantiles)
        paths = np.einsum("nsk,skp->np", knots, path_weights(14, 4000, 1, correlation=0.0))
        assert np.quantile(paths[0], 0.95) == pytest.approx(poisson.ppf(0.95, 14 * mean), rel=0.07, abs=1.0)
        assert paths.mean() == pytest.approx(14 * mean, rel=0.2)  # whole-unit quantiles, joined by lines


def test_an_item_without_any_quantile_keeps_its_mean_in_rare_sales_and_no_other_is_stretched_to_it() -> None:
    quantiles = np.zeros((2, 1, len(LEVELS)))
    quantiles[1] = 3.0
    knots = knot_values(np.array([[0.002], [50.0]]), quantiles)
    paths = np.einsum("nsk,skp->np", knots, path_weights(1, 4000, 1))
    assert paths[0].mean() == pytest.approx(0.002, rel=0.05)
    assert (paths[0] > 0).mean() <= 0.005
    np.testing.assert_allclose(paths[1], 3.0, rtol=1e-6)


def test_days_of_a_path_lean_the_same_way() -> None:
    knots = knot_values(np.full((1, 14), 5.0), nbinom.ppf(LEVELS, 2, 2 / 7)[None, None].repeat(14, axis=1))
    spread = [np.einsum("nsk,skp->np", knots, path_weights(14, 2000, 1, rho))[0].std() for rho in (0.0, 0.3)]
    assert spread[1] > 1.5 * spread[0]


def test_a_place_about_to_run_out_is_filled_up_from_the_store_room() -> None:
    """North may sell its 4 units before a transfer decided tomorrow arrives. It is brought to what it sells within five days; the room has plenty."""
    day = FIRST + timedelta(days=12)
    table = plan([day])
    north, south, room = (row(table, day, "c", place) for place in ("north", "south", "store room"))
    assert north["transfer_quantity"] + 4 == pytest.approx(nbinom_of_lean_days(2.0, 5), abs=1)
    assert room["transfer_quantity"] == -north["transfer_quantity"]
    assert (room["stock_on_hand"], room["reorder_point"], room["order_quantity"], room["allocated_quantity"]) == (46, 0, 0, None)
    assert (south["transfer_quantity"], south["allocated_quantity"]) == (None, None)  # its stock is not told
    assert (north["allocated_quantity"], row(table, day, "c")["allocated_quantity"]) == (row(table, day, "c")["order_quantity"], None)
    kept = plan([day], shop(transfer_days=None))
    assert kept.filter(item_id="c").height == 3 and kept["transfer_quantity"].null_count() == kept.height
    far = plan([day], shop(transfer_cover_days=16))  # further ahead than any order looks; what south needs stays in the room
    assert 0 < row(far, day, "c", "north")["transfer_quantity"] < 46 - 16


def nbinom_of_lean_days(mean: float, days: int) -> float:
    """The 95 % quantile of the sum of Poisson days that lean the same way, by plain simulation."""
    generator = np.random.default_rng(1)
    score = np.sqrt(0.3) * generator.standard_normal((40000, 1)) + np.sqrt(0.7) * generator.standard_normal((40000, days))
    return float(np.quantile(poisson.ppf(norm.cdf(score), mean).sum(axis=1), 0.95))


def test_an_order_is_shared_among_places_and_what_is_sold_without_one() -> None:
    """Nothing is in stock: 'sold elsewhere' counts as one place, and all are brought to the same share of their reorder point."""
    means = {("c", "north"): 3.0, ("c", "south"): 1.0, ("c", None): 2.0, ("e", "north"): 1.0}
    told = [{"location_id": place, "stock_on_hand": 0, "stock_on_order": 0} for place in ("north", "south")]
    log = [item(FIRST, "c", stock_on_hand=0, stock_on_order=0, stock_by_location=json.dumps(told)), item(FIRST, "e", stock_on_hand=1)]
    tables = {"demand_forecasts": conform("demand_forecasts", forecasts(FIRST, means)), "items": conform("items", log)}
    table = build_inventory(reader_over(tables, shop(), FIRST), [FIRST], shop()).tables["inventory_plan"]
    assert isinstance(table, pl.DataFrame)
    whole, north, south = (row(table, FIRST, "c", place) for place in (None, "north", "south"))
    third = whole["order_quantity"] - north["allocated_quantity"] - south["allocated_quantity"]
    assert third == pytest.approx(whole["order_quantity"] * 2 / 6, rel=0.1)
    ratios = [place["allocated_quantity"] / place["reorder_point"] for place in (north, south)]
    assert 0.8 < ratios[0] < 1 and ratios[0] == pytest.approx(ratios[1], abs=1 / south["reorder_point"])
    assert (north["transfer_quantity"], south["transfer_quantity"]) == (0, 0)  # there is nothing to move
    assert row(table, FIRST, "e", "north")["allocated_quantity"] is None


def placed_plan(means: dict[tuple[str, str | None], float], stock: dict[str, int | None], **given_: Any) -> pl.DataFrame:
    """The plan of FIRST where item c has this stock by place and these means of demand."""
    told = [{"location_id": place, "stock_on_hand": units, "stock_on_order": 0} for place, units in stock.items()]
    whole = sum(units or 0 for units in stock.values())
    log = [item(FIRST, "c", stock_on_hand=whole, stock_by_location=json.dumps(told), lead_time_days=7)]
    tables = {"demand_forecasts": conform("demand_forecasts", forecasts(FIRST, means)), "items": conform("items", log)}
    table = build_inventory(reader_over(tables, shop(**given_), FIRST), [FIRST], shop(**given_)).tables["inventory_plan"]
    assert isinstance(table, pl.DataFrame)
    return table


def test_goods_come_from_places_that_sell_less_of_the_item_not_from_those_where_its_demand_is_unknown() -> None:
    means = {("c", "north"): 2.0, ("c", "south"): 0.2, ("e", "outlet"): 3.0}
    table = placed_plan(means, {"north": 5, "south": 30, "outlet": 50})
    north, south = (row(table, FIRST, "c", place) for place in ("north", "south"))
    assert north["transfer_quantity"] == -south["transfer_quantity"] > 5
    assert table.filter(item_id="c")["location_id"].to_list() == [None, "north", "south"]  # outlet sells other things: it keeps its 50
    kiosk = placed_plan({**means, ("c", "kiosk"): 4.0}, {"north": 5, "south": 30, "kiosk": None})
    assert row(kiosk, FIRST, "c", "north")["transfer_quantity"] == 0  # what sells in the kiosk comes from south


@pytest.mark.parametrize(("stock", "days", "comes"), [(5, 1, True), (9, 1, False), (9, 3, True)])
def test_a_place_that_lasts_until_the_next_transfer_waits(stock: int, days: int, comes: bool) -> None:
    """Of 2 a day, 5 units last one day with 98 %, two days with 79 %; 9 units last two days with 99 %, four days with 72 %."""
    table = placed_plan({("c", "north"): 2.0, ("c", "south"): 0.2}, {"north": stock, "south": 90}, transfer_days=days)
    assert (row(table, FIRST, "c", "north")["transfer_quantity"] > 0) is comes


def test_an_order_for_many_rare_sellers_is_meant_for_one_of_them() -> None:
    """Each place alone would keep nothing of the item, all of them together a unit or two."""
    places = [f"p{number}" for number in range(8)]
    table = placed_plan({("c", place): 0.004 for place in places}, dict.fromkeys(places, 0), review_period_days=1)
    assert table.filter(pl.col("location_id").is_not_null())["reorder_point"].max() == 0
    assert table["allocated_quantity"].sum() == row(table, FIRST, "c")["order_quantity"] > 0


def test_what_is_moved_or_on_order_counts_where_an_order_is_shared() -> None:
    """20 units are held or come, 10 are ordered: both places are to hold 15. North has 5, 4 on order and gets 2 moved."""
    base = {"as_of_date": FIRST, "item_id": "i"}
    series = pl.DataFrame([{**base, "location_id": place, "reorder_point": 12.0, "safety_stock": 4.0} for place in ("north", "south")])
    told = pl.DataFrame(
        [{**base, "location_id": place, "stock_on_hand": stock, "stock_on_order": order, "transfer_quantity": moved, "is_room": False}
         for place, stock, order, moved in (("north", 5, 4, 2), ("south", 11, None, -2))]
    )  # fmt: skip
    found = allocations(pl.DataFrame({**base, "order_quantity": 10}), series, told)
    assert dict(found.select("location_id", "allocated_quantity").iter_rows()) == {"north": 4, "south": 6}


def held_frame(rows: Sequence[tuple[str, float, float]], total: int) -> pl.DataFrame:
    frame = pl.DataFrame(list(rows), schema={"location_id": pl.String, "weight": pl.Float64, "held": pl.Float64}, orient="row")
    return frame.with_columns(as_of_date=pl.lit(FIRST), item_id=pl.lit("i"), total=total)


@pytest.mark.parametrize(("total", "expected"), [(0, [0, 0, 0]), (12, [0, 12, 0]), (31, [4, 27, 0]), (60, [8, 37, 15])])
def test_units_go_to_the_poorest_until_all_hold_the_same_multiple(total: int, expected: list[int]) -> None:
    """By hand: 12 leave b at 0.6 of its weight, below a's 1; 31 bring a and b to 41 / 30, c stays above; 60 bring all to 110 / 60."""
    frame = held_frame([("a", 10, 10), ("b", 20, 0), ("c", 30, 41 if total < 60 else 40)], total)
    found = shared(frame, weight="weight", held="held", total="total").sort("location_id")
    assert found["share"].to_list() == expected


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(-5, 80)), min_size=1, max_size=7), st.integers(0, 200))
def test_shares_are_whole_complete_and_level(places: list[tuple[int, int]], total: int) -> None:
    frame = held_frame([(f"p{number}", *place) for number, place in enumerate(places)], total)
    found = shared(frame, weight="weight", held="held", total="total").sort("location_id")["share"].to_numpy()
    weight, held = (np.array([place[side] for place in places], dtype=float) for side in (0, 1))
    low, high = -10.0, 300.0
    for _ in range(100):  # the level by bisection
        level = (low + high) / 2
        low, high = (level, high) if np.maximum(level * weight - held, 0).sum() < total else (low, level)
    assert found.sum() == total and found.min() >= 0
    assert np.abs(found - np.maximum(high * weight - held, 0)).max() < 1 + 1e-6


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-2, 30), st.one_of(st.none(), st.integers(0, 20)), st.booleans()), min_size=1, max_size=8), st.integers(0, 30)
)
def test_transfers_take_only_what_is_spare_and_bring_no_more_than_is_kept(places: list[tuple[int, int | None, bool]], reserved: int) -> None:
    """keeps None: a store room, or, where the flag is set, a place that sells other things and so gives nothing."""
    base = {"as_of_date": FIRST, "item_id": "i"}
    told = [
        {**base, "location_id": f"p{number}", "stock_on_hand": stock, "is_room": keeps is None and not flag}
        for number, (stock, keeps, flag) in enumerate(places)
    ]
    needed: list[dict[str, Any]] = [
        {**base, "location_id": f"p{number}", "keeps": float(keeps), "runs_out": flag}
        for number, (_, keeps, flag) in enumerate(places)
        if keeps is not None
    ]
    needed.append({**base, "location_id": None, "keeps": float(reserved), "runs_out": None})  # sold without a place
    schema = {"as_of_date": pl.Date, "item_id": pl.String, "location_id": pl.String}
    moved = transfers(
        pl.DataFrame(told, schema={**schema, "stock_on_hand": pl.Int64, "is_room": pl.Boolean}),
        pl.DataFrame(needed, schema={**schema, "keeps": pl.Float64, "runs_out": pl.Boolean}),
    )
    found = dict(moved.select("location_id", "transfer_quantity").iter_rows())
    wants, spare = 0, 0
    for number, (stock, keeps, flag) in enumerate(places):
        quantity = found.get(f"p{number}")
        if keeps is None and flag:
            assert quantity is None
            continue
        least, stock = keeps or 0, max(stock, 0)
        assert quantity is not None and (quantity <= 0 or (flag and stock + quantity <= least)) and (quantity >= 0 or stock + quantity >= least)
        wants += max(least - stock, 0) if flag and keeps is not None else 0
        spare += max(stock - least, 0)
    assert sum(found.values()) == 0
    assert sum(quantity for quantity in found.values() if quantity > 0) == min(wants, max(spare - reserved, 0))
    parcels = moves(moved)
    assert parcels.height <= max(sum(quantity != 0 for quantity in found.values()) - 1, 0)
    assert parcels.is_empty() or parcels["units"].min() > 0  # type: ignore[operator]
    for name, sign in (("from_location", -1), ("to_location", 1)):
        sent = parcels.group_by(name).agg(pl.col("units").sum())
        assert dict(sent.iter_rows()) == {place: sign * quantity for place, quantity in found.items() if sign * quantity > 0}


def test_those_with_most_to_spare_give_first_and_the_scarce_is_shared() -> None:
    base = {"as_of_date": FIRST, "item_id": "i"}
    stock, keeps = {"a": 0, "b": 2, "c": 9, "d": 14}, {"a": 10.0, "b": 10.0, "c": 8.0, "d": 8.0}
    told = pl.DataFrame([{**base, "location_id": name, "stock_on_hand": units, "is_room": False} for name, units in stock.items()])
    needed = pl.DataFrame([{**base, "location_id": name, "keeps": units, "runs_out": name in "ab"} for name, units in keeps.items()])
    # 18 are wanted, 7 can be spared: a and b are brought to 4.5 of 10
    assert dict(transfers(told, needed).select("location_id", "transfer_quantity").iter_rows()) in (
        {"a": 5, "b": 2, "c": -1, "d": -6}, {"a": 4, "b": 3, "c": -1, "d": -6}
    )  # fmt: skip
    few = told.with_columns(stock_on_hand=pl.Series([8, 9, 9, 14]))  # 3 are wanted: one place gives them
    assert dict(transfers(few, needed).select("location_id", "transfer_quantity").iter_rows()) == {"a": 2, "b": 1, "c": 0, "d": -3}


def test_cover_that_ends_before_goods_arrive_is_refused() -> None:
    with pytest.raises(ValueError, match="transfer_cover_days must be more than transfer_days"):
        shop(transfer_days=5)


def test_the_total_of_places_is_less_than_the_sum_of_their_reorder_points() -> None:
    table = plan([FIRST])
    places = [row(table, FIRST, "c", place)["reorder_point"] for place in ("north", "south")]
    assert max(places) < row(table, FIRST, "c")["reorder_point"] < sum(places)


@pytest.mark.parametrize("number", [0, 6, 7, 12, 27])
def test_a_day_alone_equals_the_day_in_a_range(number: int) -> None:
    day = FIRST + timedelta(days=number)
    whole = plan(days_between(FIRST, FIRST + timedelta(days=27)))
    assert_frame_equal(whole.filter(pl.col("as_of_date") == day), plan([day]), rel_tol=1e-9)


def test_stock_without_any_forecast_still_has_its_rows() -> None:
    store = shop()
    built = build_inventory(reader_over({"items": lived_shop()["items"]}, store, FIRST + timedelta(days=10)), [FIRST], store)
    table = built.tables["inventory_plan"]
    assert isinstance(table, pl.DataFrame)
    assert table.select("item_id", "order_quantity", "sellable_units").rows() == [
        ("a", 0, 10), ("b", 0, 0), ("c", 0, 50), ("idle", 0, 7)
    ]  # fmt: skip


def test_without_events_the_table_is_empty_and_says_so() -> None:
    store = shop(sources=("items",))
    built = build_inventory(reader_over({}, store, FIRST), [FIRST], store)
    assert built.degraded == {"inventory_plan": "needs source 'events'"}


def test_the_last_order_of_a_season_is_a_newsvendors() -> None:
    """Price 10, cost 4, half of it kept: (10 - 4) / (10 - 2) = 0.75. Lead time and review are 7 days each."""
    season = {"category": "cards", "last_day": FIRST + timedelta(days=20), "salvage_share": 0.5}
    later = {"category": "cards", "last_day": FIRST + timedelta(days=385)}
    numbers = [0, 6, 12, 13, 20, 21]
    frame = pl.DataFrame(
        {
            "as_of_date": [FIRST + timedelta(days=number) for number in numbers] + [FIRST + timedelta(days=6)] * 3,
            "lead_time_days": 7, "category": ["cards"] * 8 + ["mugs"],
            "unit_price": [10.0] * 6 + [None, 4.0, 10.0], "unit_cost": [4.0] * 8 + [4.0],
        }
    )  # fmt: skip
    span, service = targets(frame, shop(seasons=[later, season]).inventory)
    # 20 days to go: another order will still arrive; 14 and 8 to go: the last one; then none arrives in time; the day after it is a new year
    assert span.tolist() == [14, 14, 8, 0, 0, 14, 14, 0, 14]
    assert service[[1, 2]].tolist() == [0.75, 0.75]
    assert service[6] == 0.95, "without a price the service level stands in"
    assert set(service[[0, 3, 4, 5, 8]].tolist()) == {0.95}


def test_what_would_come_after_the_season_is_not_ordered() -> None:
    frames = {**lived_shop(), "items": lived_shop()["items"].with_columns(category=pl.lit("cards"), unit_price=pl.lit(8).cast(pl.Decimal(18, 4)))}
    store = shop(seasons=[{"category": "cards", "last_day": FIRST + timedelta(days=5)}])
    table = build_inventory(reader_over(frames, store, FIRST), [FIRST], store).tables["inventory_plan"]
    assert isinstance(table, pl.DataFrame)
    # 'a' takes 5 days to come; 'c' takes 3 and has two days to sell, at (8 - cost) / 8, its cost being unknown at the service level
    assert row(table, FIRST, "a")["order_quantity"] == 0
    assert 0 < row(table, FIRST, "c", "north")["reorder_point"] < row(plan([FIRST]), FIRST, "c", "north")["reorder_point"]


@settings(max_examples=40, deadline=None)
@given(
    mean=st.floats(0, 50), stock=st.integers(0, 300), lead=st.integers(0, 14), level=st.sampled_from([0.6, 0.9, 0.99]),
)  # fmt: skip
def test_more_service_needs_no_less_stock(mean: float, stock: int, lead: int, level: float) -> None:
    quantiles = poisson.ppf(LEVELS, mean)[None, None].repeat(21, axis=1)
    series = pl.DataFrame({"item_id": ["a"], "location_id": [None]}, schema={"item_id": pl.String, "location_id": pl.String})
    demand = Demand(FIRST, series, np.full((1, 21), mean), knot_values(np.full((1, 21), mean), quantiles).astype(np.float32))
    supplies = [Supply(0, np.array([float(stock)]), np.array([lead]), np.array([lead + 7]), np.array([share])) for share in (level, 0.995)]
    low, high = simulate(demand, [], supplies, shop())
    assert 0 <= low.reorder_point[0] <= high.reorder_point[0]
    assert 0 <= low.stockout_probability[0] <= 1
