"""The sample shop: its world as hard as the public sets say, its files exactly as dirty as it claims, its truth true."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest

from marketing_assets.cleaning import build_cleaning
from marketing_assets.config import CONTROL_INPUTS, REPOSITORY_ROOT, load_store
from marketing_assets.sample_shop import (
    DEMO_DAYS,
    DRIFT_KINDS,
    FIRST_DAY,
    PARAMETERS,
    SIZES,
    BranchingShop,
    Decisions,
    Drift,
    KnowingShop,
    SampleShop,
    Shop,
    ShopError,
    Size,
    generate,
    parameters_hash,
    write_store,
)
from marketing_assets.sample_shop.store import store_settings
from marketing_assets.schemas import INPUTS
from marketing_assets.sources import build_sources
from marketing_assets.warehouse import Warehouse, days_between

SMALL = Size(300, 100, 160, 3_000, 3, 4, 3, 0.05)
needs_data = pytest.mark.skipif(
    "MARKETING_DATA" not in os.environ, reason="MARKETING_DATA is not set: the public sets are not here"
)


def landed(folder: Path, source: str) -> pl.DataFrame:
    """Every landed row of a source, as text."""
    frames = [pl.read_csv(path, infer_schema_length=0) for path in sorted((folder / "landing" / source).glob("*.csv.gz"))]
    return pl.concat(frames)


def day_of(shop: SampleShop, number: int) -> date:
    return shop.first_day + timedelta(days=number)


def content(folder: Path) -> dict[str, bytes]:
    """Every landing and truth file by name, uncompressed."""
    paths = sorted(path for name in ("landing", "truth") for path in (folder / name).rglob("*") if path.is_file())
    read = {".gz": lambda path: gzip.decompress(path.read_bytes())}
    return {str(path.relative_to(folder)): read.get(path.suffix, Path.read_bytes)(path) for path in paths}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> SampleShop:
    """A small shop with 30 days of common practice."""
    return generate(tmp_path_factory.mktemp("shop"), days=30, seed=3, size=SMALL)


# --- the world is frozen and repeatable ---------------------------------------------------------------------------------


def test_parameters_are_frozen() -> None:
    """The closed-loop trial is judged on this world: whoever changes it must say so here, and live every trial anew."""
    assert parameters_hash() == "4c3045c551d5063a9829fde9a0518b18"
    assert parameters_hash(replace(PARAMETERS, click_rate=0.006)) != parameters_hash()


def test_same_seed_same_files(tmp_path: Path) -> None:
    first, second, other = (
        content(generate(tmp_path / name, days=4, seed=seed, size="tiny").folder) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == second
    assert first["landing/events/2026-08-03.csv.gz"] != other["landing/events/2026-08-03.csv.gz"]


def test_branches_and_resumed_shops_go_on_as_if_never_interrupted(tmp_path: Path) -> None:
    whole = generate(tmp_path / "whole", days=10, seed=5, size="tiny")
    history = generate(tmp_path / "history", days=6, seed=5, size="tiny")
    history.write_store()
    branch, resumed = history.branch(tmp_path / "branch"), SampleShop.resume(tmp_path / "history")
    for number in range(6, 10):
        branch.live(day_of(branch, number))
    assert not (history.folder / "landing" / "events" / "2026-08-09.csv.gz").exists()
    for number in range(6, 10):
        resumed.live(day_of(resumed, number))
    assert content(branch.folder) == content(whole.folder) == content(history.folder)
    assert (branch.folder / "store.yaml").is_file()


def test_generate_leaves_only_its_own_history(tmp_path: Path) -> None:
    generate(tmp_path, days=3, seed=1, size="tiny")
    generate(tmp_path, days=2, seed=1, size="tiny")
    assert len(list((tmp_path / "landing" / "events").iterdir())) == 2
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part")]


def test_is_a_shop_a_trial_can_run(shop: SampleShop) -> None:
    assert isinstance(shop, Shop) and isinstance(shop, KnowingShop) and isinstance(shop, BranchingShop)


def test_days_are_lived_in_order_and_errors_say_what_to_do(shop: SampleShop, tmp_path: Path) -> None:
    with pytest.raises(ShopError, match="next day to live is 2026-09-02"):
        shop.live(date(2026, 9, 3))
    with pytest.raises(ShopError, match="was not lived"):
        shop.truth(date(2027, 1, 1))
    with pytest.raises(ShopError, match="known are tiny, trial, demo, large"):
        SampleShop(tmp_path, 1, size="huge")
    with pytest.raises(ShopError, match="no saved sample shop"):
        SampleShop.resume(tmp_path)
    with pytest.raises(ShopError, match="has lived to"):
        shop.with_drifts([Drift("taste", shop.first_day)])
    with pytest.raises(ValueError, match="known are taste, placement_collapse"):
        Drift("gravity", date(2026, 9, 1))  # type: ignore[arg-type]


# --- files --------------------------------------------------------------------------------------------------------------


def test_the_demo_store_maps_what_is_generated(tmp_path: Path) -> None:
    """The committed file and the one written for other folders must not drift apart."""
    store = load_store(REPOSITORY_ROOT / "data" / "sample_shop" / "store.yaml")
    assert store.first_day == FIRST_DAY
    assert store.last_day == FIRST_DAY + timedelta(days=DEMO_DAYS - 1) == date(2026, 10, 30)
    written = store_settings(SampleShop(tmp_path, 7).world, store.last_day)
    assert set(store.sources) == set(written["sources"]) == set(INPUTS) - {"ad_reports", *CONTROL_INPUTS}
    for name, block in written["sources"].items():
        (mapped,) = store.blocks(name)
        assert (mapped.files, mapped.columns) == (block["files"], block["columns"])
    assert store.timezone == written["timezone"] and store.cleaning.service_item_pattern == "^POSTAGE$"
    budget = written["ad_planning"]["daily_budget"]
    assert store.ad_planning.daily_budget is not None and 0.5 * budget < store.ad_planning.daily_budget < budget


def test_store_settings_can_be_extended(tmp_path: Path) -> None:
    made = SampleShop(tmp_path, 1, size="tiny")
    store = load_store(write_store(made, date(2026, 9, 1), methods="plain", ad_planning={"exploration_share": 0.1}))
    assert store.methods == "plain" and store.last_day == date(2026, 9, 1)
    assert store.ad_planning.exploration_share == 0.1
    assert store.ad_planning.daily_budget == round(made.common_budget, 2)


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SampleShop, Any]]:
    """A tiny shop over the change of clocks (25 October), through sources and cleaning."""
    folder = tmp_path_factory.mktemp("cleaned")
    size = replace(SIZES["tiny"], opportunities=4_000)
    made = generate(folder, date(2026, 10, 16), 12, 11, size)
    store = load_store(write_store(made))
    needed = ("events", "impressions", "conversions", "identities")
    store = store.model_copy(update={"sources": {name: store.sources[name] for name in needed}})
    days = days_between(store.first_day, day_of(made, 11))
    connection = duckdb.connect(":memory:", config={"threads": "1"})
    warehouse = Warehouse(connection, store, None)
    for source in (*store.sources, *CONTROL_INPUTS):
        with warehouse.transaction():
            warehouse.replace_window("s", [f"raw_{source}"], days, build_sources(warehouse.reader(days[-1]), days, store, source))
    tables = ("clean_events", "clean_impressions", "attributed_conversions", "rejected_rows")
    with warehouse.transaction():
        warehouse.replace_window("c", tables, days, build_cleaning(warehouse.reader(days[-1]), days, store))
    reader = warehouse.reader(days[-1])
    yield made, lambda name: reader.window(name, None, days[-1])
    connection.close()


def test_refused_rows_are_exactly_those_written_broken(cleaned: tuple[SampleShop, Any]) -> None:
    made, table = cleaned
    refused = table("rejected_rows").with_columns(
        row_id=pl.coalesce(pl.col("row").str.json_path_match("$.event_id"), pl.col("row").str.json_path_match("$.impression_id"))
    )
    told = pl.concat([made.refused_rows(day_of(made, number)) for number in range(12)])
    assert told.height > 30
    assert (
        told.select("source", "row_id")
        .sort("source", "row_id")
        .equals(refused.select("source", "row_id").sort("source", "row_id"))
    )
    twice = pl.col("problem") == "duplicate"
    assert told.filter(twice).height == refused.filter(pl.col("reason") == "duplicate").height
    assert 0.002 < told.height / (table("raw_events").height + table("raw_impressions").height) < 0.02


def test_what_cleaning_makes_of_it(cleaned: tuple[SampleShop, Any]) -> None:
    made, table = cleaned
    events, shown = table("clean_events"), table("clean_impressions")
    assert set(events.filter("is_bot")["user_id"].str.slice(0, 1)) <= {"b"}
    on_time = pl.col("landed_date") == pl.col("event_date")
    assert events.filter(pl.col("user_id").str.starts_with("b"), on_time)["is_bot"].all()
    assert set(events.filter("is_service")["item_id"]) <= {"POSTAGE"}
    assert events.filter(pl.col("landed_date") > pl.col("event_date"))["event_id"].len() > 5  # late rows
    assert (events["landed_date"] >= events["event_date"]).all()
    anonymous = events.filter(pl.col("user_id").is_null())
    assert anonymous["session_id"].is_not_null().mean() > 0.9  # type: ignore[operator]
    refunds = events.filter(pl.col("event_type") == "refund")
    assert refunds.height == 0 or refunds.filter(pl.col("user_id").is_not_null())["refunds_event_id"].is_not_null().mean() > 0.9
    # nothing is shown at night, also on the day the clocks change: the hour is the shop's
    assert shown["hour"].min() == 6 and shown["hour"].max() == 23
    assert shown["context"].str.json_path_match("$.device").is_in(["phone", "desktop", "tablet"]).all()
    assert shown["campaign_id"].is_not_null().all() and shown["logging_propensity"].is_not_null().all()
    assert shown["plan_id"].null_count() == shown.height
    # every id of a second device that turned out to be someone's is joined from that day on
    found = landed(made.folder, "identities")
    after = events.filter(pl.col("user_id").is_in(found["from_user_id"].implode()), pl.col("landed_date") == day_of(made, 11))
    assert after.is_empty()
    credited = table("attributed_conversions").filter(~pl.col("is_refunded"))
    assert credited.height == landed(made.folder, "conversions").height >= 5
    assert set(credited["impression_id"]) <= set(shown.filter("is_clicked")["impression_id"])
    orders = events.filter(pl.col("event_type") == "purchase")["order_id"]
    assert credited["order_id"].is_in(orders.implode()).mean() > 0.9  # the rest land late


def test_every_input_of_the_contract_lands(shop: SampleShop) -> None:
    for source in set(INPUTS) - {"ad_reports", "erasures", *CONTROL_INPUTS}:
        frame = landed(shop.folder, source)
        assert frame.height > 0, source
        assert set(frame.columns) - {"device"} <= set(INPUTS[source].columns), source
    items = landed(shop.folder, "items")
    for column in ("unit_cost", "stock_on_hand", "stock_on_order", "lead_time_days", "pack_size"):
        assert items[column].is_not_null().all()
    drivers = landed(shop.folder, "item_drivers").filter(pl.col("is_promotion") == "true")
    known = drivers["known_at"].str.slice(0, 10).str.to_date()
    ahead = (drivers["date"].str.to_date() - known).dt.total_days()
    assert ahead.filter(known > shop.first_day).min() >= 9  # type: ignore[operator] - promotions are announced, not found out


def test_the_truth_is_in_no_landing_file(shop: SampleShop) -> None:
    told = set(shop.impression_truth(shop.first_day).columns) - {"impression_id"}
    for folder in (shop.folder / "landing").iterdir():
        header = gzip.decompress(next(folder.iterdir()).read_bytes()).split(b"\n")[0].decode().split(",")
        assert not told & set(header), folder.name


def test_promised_prices_are_the_prices_paid(shop: SampleShop) -> None:
    """What item_drivers announced is what a promoted item then costs in the shop."""
    drivers = landed(shop.folder, "item_drivers").filter(pl.col("is_promotion") == "true").select("item_id", "date", "unit_price")
    bought = landed(shop.folder, "events").filter(
        pl.col("event_type") == "purchase", pl.col("channel") != "order_form", pl.col("quantity") != "0"
    )
    paid = bought.with_columns(
        date=pl.col("event_at").str.slice(0, 10),
        paid=pl.col("unit_price").cast(pl.Float64, strict=False)
        - pl.col("discount").cast(pl.Float64) / pl.col("quantity").cast(pl.Float64),
    ).join(drivers.with_columns(promised=pl.col("unit_price").cast(pl.Float64)), on=["item_id", "date"])
    paid = paid.filter(pl.col("paid").is_finite(), pl.col("paid") > 0)
    assert paid.height > 10
    assert ((paid["paid"] - paid["promised"]).abs() < 0.011).mean() > 0.95  # broken rows aside


# --- the truth is true ----------------------------------------------------------------------------------------------------


def test_expectations_meet_outcomes(shop: SampleShop) -> None:
    """Realised clicks, orders and sessions lie where the probabilities kept aside say."""
    truths = [shop.truth(day_of(shop, number)) for number in range(30)]
    expected, clicks = sum(t.expected_clicks for t in truths), sum(t.clicks for t in truths)
    assert abs(clicks - expected) < 4 * np.sqrt(expected)
    sessions = sum(t.sessions for t in truths)
    rate = np.average([t.expected_session_conversion_rate for t in truths], weights=[t.sessions for t in truths])
    realised = np.average([t.session_conversion_rate for t in truths], weights=[t.sessions for t in truths])
    assert abs(realised - rate) < 4 * np.sqrt(rate / sessions)
    told = pl.concat([shop.impression_truth(day_of(shop, number)) for number in range(30)])
    logged = landed(shop.folder, "impressions").unique("impression_id").join(told, on="impression_id")
    assert logged.height == sum(t.impressions for t in truths)
    thirds = logged.with_columns(third=pl.col("click_probability").rank("ordinal") * 3 // (pl.len() + 1))
    for (name,), part in thirds.group_by("third"):
        hoped = float(part["click_probability"].sum())
        assert abs((part["is_clicked"] == "true").sum() - hoped) < 4 * np.sqrt(hoped), name


def test_logged_propensities_are_those_of_the_policy(shop: SampleShop) -> None:
    """Shown creatives come as often as their logged propensities say they would."""
    rows = landed(shop.folder, "impressions").unique("impression_id").filter(pl.col("logging_propensity") != "1.7")
    rows = rows.with_columns(p=pl.col("logging_propensity").cast(pl.Float64), day=pl.col("impression_id").str.slice(1, 5))
    by_day = rows.group_by("day", "creative_id").agg(pl.len(), p=pl.col("p").max())
    total = by_day.group_by("day").agg(n=pl.col("len").sum(), whole=pl.col("p").sum())
    joined = by_day.join(total, on="day").filter(pl.col("whole") > 0.999)
    assert joined.height > 300
    gap = (joined["len"] - joined["n"] * joined["p"]) / (joined["n"] * joined["p"] * (1 - joined["p"])).sqrt()
    assert 0.8 < float(gap.std()) < 1.2 and abs(float(gap.mean())) < 0.2  # type: ignore[arg-type]


def test_stock_explains_itself(shop: SampleShop) -> None:
    """Stock is never negative, and some shelves run empty under fixed reorder levels."""
    items = landed(shop.folder, "items").with_columns(pl.col("stock_on_hand", "stock_on_order", "pack_size").cast(pl.Int64))
    assert (items["stock_on_hand"] >= 0).all() and (items["stock_on_order"] >= 0).all()
    truths = [shop.truth(day_of(shop, number)) for number in range(30)]
    empty = np.mean([t.stocked_out_items for t in truths]) / SMALL.items
    assert 0.005 < empty < 0.15
    lost, sold = sum(t.lost_revenue for t in truths), sum(t.revenue for t in truths)
    assert 0 < lost < 0.25 * sold


def test_no_effect_is_larger_than_published_ones() -> None:
    """Placement, hour and audience move clicks by a factor of about two at most, items from .002 to .010 as in open_bandit."""
    from marketing_assets.sample_shop.people import first_state
    from marketing_assets.sample_shop.world import World, stream

    for seed in range(12):
        world = World(seed, SIZES["trial"], PARAMETERS, FIRST_DAY)
        state = first_state(world, stream(seed, 5))
        assert np.ptp(world.placement_click) <= np.log(2)
        assert np.ptp(world.hour_click, axis=1).max() <= np.log(2)
        users = pl.DataFrame({"user_id": state.account_ids(), "audience_id": np.array(["a", "b", "c"])[state.channel % 3]})
        made = SampleShop(Path("unused"), seed, size="trial")
        cells = made.oracle().cell_rates(FIRST_DAY, users.with_columns(priority=1, is_holdout=False))
        by = {name: cells.group_by(name).agg(pl.col("ctr").mean())["ctr"] for name in ("audience_id", "creative_id")}
        assert by["audience_id"].max() < 2 * by["audience_id"].min()  # type: ignore[operator]
        assert by["creative_id"].min() > 0.0015 and by["creative_id"].max() < 0.0125  # type: ignore[operator]
        assert 0.003 < float(cells["ctr"].mean()) < 0.0075  # type: ignore[arg-type]


# --- decisions ------------------------------------------------------------------------------------------------------------


def plan_of(cells: list[tuple[str, str, str, int, float]], day: date) -> pl.DataFrame:
    """ad_plan rows from (audience, creative, placement, hour, impressions)."""
    frame = pl.DataFrame(
        cells, schema=["audience_id", "creative_id", "placement_id", "hour", "planned_impressions"], orient="row"
    )
    total = pl.col("planned_impressions").sum().over("audience_id", "placement_id", "hour")
    return frame.with_columns(
        plan_date=pl.lit(day), plan_id=pl.lit("p1"), logging_propensity=pl.col("planned_impressions") / total
    )


def test_a_plan_is_served_as_planned(shop: SampleShop, tmp_path: Path) -> None:
    twin = shop.branch(tmp_path / "twin")
    day = twin.next_day
    accounts = twin.state.account_ids()
    audiences = pl.DataFrame(
        {
            "user_id": [*accounts[15:200], *accounts[15:40]],
            "audience_id": ["fans"] * 185 + ["others"] * 25,
            "priority": [20] * 185 + [10] * 25,
            "is_holdout": [False] * 150 + [True] * 35 + [False] * 25,
        }
    )
    places = twin.world.placement_ids
    plan = plan_of(
        [
            ("fans", "a00", places[0], 19, 6.0),
            ("fans", "a01", places[0], 19, 2.0),
            ("fans", "a02", places[1], 20, 100_000.0),
            ("others", "a03", places[0], 20, 1.0),
            ("unknown", "a04", places[1], 18, 5.0),
            ("nobody", "a05", places[1], 18, 5.0),
        ],
        day,
    )
    twin.live(day, Decisions(ad_plan=plan, audiences=audiences))
    rows = pl.read_csv(twin.folder / "landing" / "impressions" / f"{day}.csv.gz", infer_schema_length=0).unique("impression_id")
    rows = rows.filter(~pl.col("impression_id").str.starts_with("x"))
    assert set(rows["plan_id"]) == {"p1"} and set(rows["policy_id"]) == {"ad_plan"}
    counts = dict(rows.group_by("audience_id").len().iter_rows())
    assert counts["unknown"] == 5 and counts.get("others", 0) <= 1 and "nobody" not in counts
    fans = rows.filter(pl.col("audience_id") == "fans")
    mixed = fans.filter(pl.col("creative_id") != "a02")
    assert mixed.height == 8 and set(mixed["creative_id"]) <= {"a00", "a01"}
    propensity = dict(mixed.select("creative_id", pl.col("logging_propensity").cast(pl.Float64)).unique().iter_rows())
    assert all(propensity[name] == pytest.approx(share) for name, share in (("a00", 0.75), ("a01", 0.25)) if name in propensity)
    assert 0 < fans.filter(pl.col("creative_id") == "a02").height < 200  # no more than there were chances
    reached = set(fans["user_id"])
    assert reached <= set(accounts[40:165])  # members by priority only, nobody held out
    hours = rows["shown_at"].str.slice(11, 2).cast(pl.Int64) + 2
    assert set(hours) <= {18, 19, 20}


def test_an_empty_plan_buys_nothing(shop: SampleShop, tmp_path: Path) -> None:
    twin = shop.branch(tmp_path / "twin")
    day = twin.next_day
    twin.live(day, Decisions(ad_plan=plan_of([], day)))
    assert twin.truth(day).impressions == 0 and twin.truth(day).ad_spend == 0
    header = gzip.decompress((twin.folder / "landing" / "impressions" / f"{day}.csv.gz").read_bytes()).decode()
    assert header.startswith("impression_id,shown_at") and header.count("\n") == 1


def test_lists_move_sales_as_much_as_published_trials_say(shop: SampleShop, tmp_path: Path) -> None:
    """The best lists there are beat popularity lists by some 10 to 35 %; the worst ones lose. Visits stay the same."""
    rates: dict[str, list[float]] = {}
    arms = {name: shop.branch(tmp_path / name) for name in ("common", "best", "worst")}
    for _ in range(8):
        for name, arm in arms.items():
            day = arm.next_day
            decisions = Decisions()
            if name != "common":
                lists = arm.oracle().recommendations(day, SMALL.items)
                worst = lists.with_columns(rank=SMALL.items + 1 - pl.col("rank")).filter(pl.col("rank") <= 20)
                decisions = Decisions(recommendations=lists.filter(pl.col("rank") <= 20) if name == "best" else worst)
            arm.live(day, decisions)
            truth = arm.truth(day)
            rates.setdefault(name, []).append(truth.more["expected_retail_orders"] / truth.more["retail_sessions"])
    last = shop.next_day + timedelta(days=7)
    assert len({arm.truth(last).more["retail_sessions"] for arm in arms.values()}) == 1
    mean = {name: float(np.mean(values)) for name, values in rates.items()}
    assert 1.10 < mean["best"] / mean["common"] < 1.35
    assert mean["worst"] < mean["common"]


def test_ads_bring_visits_and_orders_that_would_not_have_been(shop: SampleShop, tmp_path: Path) -> None:
    arms = {name: shop.branch(tmp_path / name) for name in ("ads", "none")}
    for _ in range(10):
        for name, arm in arms.items():
            arm.live(arm.next_day, Decisions() if name == "ads" else Decisions(ad_plan=plan_of([], arm.next_day)))
    sums = {
        name: [
            sum(getattr(arm.truth(shop.next_day + timedelta(days=k)), field) for k in range(10))
            for field in ("sessions", "clicks")
        ]
        for name, arm in arms.items()
    }
    assert sums["none"][1] == 0 < sums["ads"][1]
    assert sums["ads"][0] - sums["none"][0] >= 0.9 * sums["ads"][1]


def test_orders_are_placed_in_packs_and_arrive_after_the_lead_time(shop: SampleShop, tmp_path: Path) -> None:
    twin = shop.branch(tmp_path / "twin")
    world = twin.world
    item = int(np.flatnonzero((world.pack_size == 6) & (world.launch < 0))[0])
    before = int(np.bincount(twin.state.under_way[:, 0], twin.state.under_way[:, 1], world.size.items)[item])
    order = pl.DataFrame({"item_id": [world.item_ids[item], "no such item"], "order_quantity": [13, 5]})
    start = twin.state.next_day
    twin.live(twin.next_day, Decisions(orders=order))
    rows = twin.state.under_way
    ours = rows[(rows[:, 0] == item) & (rows[:, 1] == 18)]
    assert len(ours) == 1 and 0 <= ours[0, 2] - start - world.lead_time[item] <= 1
    assert twin.truth(day_of(twin, start)).more["units_ordered"] == 18
    assert int(np.bincount(rows[:, 0], rows[:, 1], world.size.items)[item]) in (before + 18, 18)


def test_the_oracle_knows_the_cells(shop: SampleShop, tmp_path: Path) -> None:
    """True cell rates agree with the probabilities of the impressions then shown, fatigue aside."""
    twin = shop.branch(tmp_path / "twin")
    cells = twin.oracle().cell_rates(twin.next_day)
    assert set(cells["audience_id"]) == {"unknown"}
    told = []
    start = twin.next_day
    for _ in range(8):
        day = twin.next_day
        twin.live(day)
        rows = pl.read_csv(twin.folder / "landing" / "impressions" / f"{day}.csv.gz", infer_schema_length=0)
        told.append(rows.unique("impression_id").join(twin.impression_truth(day), on="impression_id"))
    by = pl.concat(told).group_by("creative_id").agg(p=pl.col("click_probability").mean(), n=pl.len()).sort("creative_id")
    weights = cells.with_columns(w=pl.col("available_impressions"))
    truth = weights.group_by("creative_id").agg(ctr=(pl.col("ctr") * pl.col("w")).sum() / pl.col("w").sum()).sort("creative_id")
    joined = by.join(truth, on="creative_id")
    assert np.corrcoef(joined["p"], joined["ctr"])[0, 1] > 0.97
    ratio = (joined["p"] / joined["ctr"]).to_numpy()
    assert ratio.min() > 0.6 and ratio.max() < 1.05  # repeated impressions tire people
    assert cells["available_impressions"].filter(cells["creative_id"] == "a00").sum() == pytest.approx(
        SMALL.opportunities * PARAMETERS.anonymous_ad_share, rel=0.01
    )
    with pytest.raises(ShopError, match="the oracle speaks of"):
        twin.oracle().cell_rates(start)


# --- drifts -----------------------------------------------------------------------------------------------------------------

BEFORE, AFTER = 2, 8


@pytest.fixture(scope="module")
def drifted(shop: SampleShop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, SampleShop]:
    """One branch per drift, beginning BEFORE days on, lived AFTER days into it; '' is quiet."""
    folder = tmp_path_factory.mktemp("drifts")
    arms = {}
    for kind in ("", *DRIFT_KINDS):
        arm = shop.branch(folder / (kind or "quiet"))
        if kind:
            arm.with_drifts([Drift(kind, shop.next_day + timedelta(days=BEFORE))])
        for _ in range(BEFORE + AFTER):
            arm.live(arm.next_day)
        arms[kind] = arm
    return arms


def drifting_days(arm: SampleShop) -> list[date]:
    return [day_of(arm, 30 + BEFORE + number) for number in range(AFTER)]


def rows_of(arm: SampleShop, source: str) -> pl.DataFrame:
    paths = [arm.folder / "landing" / source / f"{day}.csv.gz" for day in drifting_days(arm)]
    rows = pl.concat([pl.read_csv(path, infer_schema_length=0) for path in paths])
    return rows.filter(~rows.to_series(0 if source == "impressions" else rows.columns.index("event_id")).str.starts_with("x"))


def test_nothing_drifts_before_its_day(drifted: dict[str, SampleShop]) -> None:
    quiet = content(drifted[""].folder)
    last = day_of(drifted[""], 30 + BEFORE - 1).isoformat()
    for kind, arm in drifted.items():
        files = content(arm.folder)
        same = [name for name in quiet if name.split("/")[-1][:10] <= last]
        assert len(same) > 250
        # promotions of days to come are announced at today's prices, so only a price drift may show there
        assert [name for name in same if files[name] != quiet[name]] == [], kind
        assert files != quiet or not kind


def test_taste_and_season(drifted: dict[str, SampleShop]) -> None:
    quiet, taste, season = drifted[""], drifted["taste"], drifted["season"]
    match = np.corrcoef(quiet.state.theta.ravel(), taste.state.theta.ravel())[0, 1]
    assert match < 0.4
    days = drifting_days(quiet)
    visits = [season.truth(day).sessions / quiet.truth(day).sessions for day in days]
    assert visits[-1] > 1.1 > visits[0]
    rates = [np.mean([arm.truth(day).expected_session_conversion_rate for day in days]) for arm in (quiet, season)]
    assert rates[1] == pytest.approx(rates[0], rel=0.06)


def test_placement_collapse(drifted: dict[str, SampleShop]) -> None:
    quiet, broken = drifted[""], drifted["placement_collapse"]
    largest = quiet.world.placement_ids[int(np.argmax(quiet.world.placement_share))]
    ratios = {}
    for arm in (quiet, broken):
        truth = pl.concat([arm.impression_truth(day) for day in drifting_days(arm)])
        rows = rows_of(arm, "impressions").unique("impression_id").join(truth, on="impression_id")
        by = rows.group_by("placement_id").agg(pl.col("click_probability").mean())
        for name, rate in by.iter_rows():
            ratios.setdefault(name, []).append(rate)
    for name in quiet.world.placement_ids:
        before, after = ratios[name]
        assert after / before == pytest.approx(0.3 if name == largest else 1.0, abs=0.03)


@pytest.mark.parametrize("what", ["purchase", "click"])
def test_tracking_bug_hides_what_happens(shop: SampleShop, drifted: dict[str, SampleShop], tmp_path: Path, what: str) -> None:
    arm = drifted["tracking_bug"]
    if what == "click":
        arm = shop.branch(tmp_path / "click")
        arm.with_drifts([Drift("tracking_bug", shop.next_day + timedelta(days=BEFORE), target="desktop:click")])
        for _ in range(BEFORE + AFTER):
            arm.live(arm.next_day)
        rows, before = (rows_of(each, "impressions").filter(pl.col("is_clicked") == "true") for each in (arm, drifted[""]))
        counts, usual = (dict(each.group_by("device").len().iter_rows()) for each in (rows, before))
        assert counts.get("desktop", 0) < 0.2 * usual["desktop"] and counts["phone"] > 0.7 * usual["phone"]
    else:
        rows, before = (rows_of(each, "events").filter(pl.col("event_type") == "purchase") for each in (arm, drifted[""]))
        counts, usual = (dict(each.group_by("device").len().iter_rows()) for each in (rows, before))
        assert counts.get("phone", 0) < 0.25 * usual["phone"] and counts["desktop"] > 0.8 * usual["desktop"]
    # what people truly did is as before
    for day in drifting_days(arm):
        assert arm.truth(day).session_conversion_rate == drifted[""].truth(day).session_conversion_rate
        assert arm.truth(day).clicks == drifted[""].truth(day).clicks


def test_mix_price_and_stock(drifted: dict[str, SampleShop]) -> None:
    quiet = drifted[""]
    phones = [
        (rows_of(arm, "events").filter(pl.col("event_type") == "view_item")["device"] == "phone").mean()
        for arm in (quiet, drifted["mix"])
    ]
    assert phones[1] > phones[0] + 0.05  # type: ignore[operator]
    prices = [
        rows_of(arm, "events")
        .filter(pl.col("event_type") == "view_item")["unit_price"]
        .cast(pl.Float64, strict=False)
        .fill_nan(None)
        .mean()
        for arm in (quiet, drifted["price"])
    ]
    assert prices[1] > 1.1 * prices[0]  # type: ignore[operator]
    gone = [np.mean([arm.truth(day).stocked_out_items for day in drifting_days(arm)[4:]]) for arm in (quiet, drifted["stock"])]
    assert gone[1] > gone[0] + 20


# --- as hard as reality ---------------------------------------------------------------------------------------------------

TAOBAO = {"add_to_cart": 0.0593, "purchase": 0.0231, "views": 5.37, "conversion": 0.0952, "lines": 1.30}
REES46 = {"add_to_cart": 0.0097, "purchase": 0.0125, "views": 3.37, "conversion": 0.0395, "lines": 1.07}
"""Carts and purchases per view, views per session of 30 minutes, sessions with a purchase, lines of those. UserBehavior
(taobao), 2017-11-25 to 12-03; rees46, first hours of 2019-10-01 (its own sessions)."""
RETAIL = {
    "lines_median": 15.0, "lines_mean": 20.2, "lines_log_sd": 1.127, "units_median": 6.0, "units_mean": 13.5, "ones": 0.168,
    "gap_median": 17.0, "gap_mean": 21.8, "gap_cv": 0.80, "gini": 0.630, "top_tenth": 0.454, "top_fifth": 0.648, "sale_days": 0.257,
}  # fmt: skip
"""UCI Online Retail, 2010-12-01 to 2011-10-14, positive quantities of five-digit codes: lines and units of orders with a customer;
days between a customer's order days and the share of item-days with a sale within 90-day windows; lines by item."""
BANDIT = {"ctr": 0.0046, "first": 0.0052, "last": 0.0036}
"""Open Bandit, women, both policies: clicks per impression; of the Thompson policy in the first and the last slot."""


def gini(counts: np.ndarray[Any, Any]) -> float:
    ordered = np.sort(counts)
    n = len(ordered)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum()))


def funnel(rows: pl.DataFrame) -> dict[str, float]:
    """Moments of browsing. rows: who, at, event_type; sessions split where 30 minutes pass."""
    new = (pl.col("at") - pl.col("at").shift(1).over("who")).dt.total_seconds() > 1800
    rows = rows.sort("who", "at").with_columns(session=new.fill_null(True).cum_sum().over("who"))
    each = rows.group_by("who", "session").agg(
        views=(pl.col("event_type") == "view_item").sum(), bought=(pl.col("event_type") == "purchase").sum()
    )
    views = each["views"].sum()
    return {
        "add_to_cart": rows.filter(pl.col("event_type") == "add_to_cart").height / views,
        "purchase": each["bought"].sum() / views,
        "views": float(each["views"].mean()),  # type: ignore[arg-type]
        "conversion": float((each["bought"] > 0).mean()),  # type: ignore[arg-type]
        "lines": float(each.filter(pl.col("bought") > 0)["bought"].mean()),  # type: ignore[arg-type]
    }


def ordering(rows: pl.DataFrame) -> dict[str, float]:
    """Moments of orders. rows: who, order, item, units, date."""
    known = rows.filter(pl.col("who").is_not_null())
    lines = known.group_by("order").agg(n=pl.col("item").n_unique())["n"]
    return {
        "lines_median": float(lines.median()),  # type: ignore[arg-type]
        "lines_mean": float(lines.mean()),  # type: ignore[arg-type]
        "lines_log_sd": float(lines.log().std()),  # type: ignore[arg-type]
        "units_median": float(known["units"].median()),  # type: ignore[arg-type]
        "units_mean": float(known["units"].mean()),  # type: ignore[arg-type]
        "ones": float((known["units"] == 1).mean()),  # type: ignore[arg-type]
    }


def gaps(rows: pl.DataFrame) -> dict[str, float]:
    days = rows.filter(pl.col("who").is_not_null()).select("who", "date").unique().sort("who", "date")
    gap = days.with_columns(gap=(pl.col("date") - pl.col("date").shift(1).over("who")).dt.total_days())["gap"].drop_nulls()
    return {"gap_median": float(gap.median()), "gap_mean": float(gap.mean()), "gap_cv": float(gap.std() / gap.mean())}  # type: ignore[arg-type, operator]


def popularity(rows: pl.DataFrame) -> dict[str, float]:
    counts = np.sort(rows.group_by("item").len()["len"].to_numpy())[::-1]
    n, total = len(counts), counts.sum()
    return {"gini": gini(counts), "top_tenth": counts[: n // 10].sum() / total, "top_fifth": counts[: n // 5].sum() / total}


def sale_days(rows: pl.DataFrame) -> float:
    """Share of item-days with a sale, over items sold at all and open days."""
    sold = rows.group_by("item").agg(days=pl.col("date").n_unique())
    return float(sold["days"].mean()) / rows["date"].n_unique()  # type: ignore[arg-type]


def typed_events(folder: Path) -> pl.DataFrame:
    rows = landed(folder, "events").unique("event_id")
    rows = rows.filter(~pl.col("event_id").str.starts_with("x"), ~pl.col("user_id").fill_null("").str.starts_with("b"))
    rows = rows.with_columns(
        at=pl.col("event_at").str.to_datetime("%Y-%m-%d %H:%M:%SZ", strict=False), units=pl.col("quantity").cast(pl.Int64)
    )
    return rows.filter(pl.col("at").is_not_null(), pl.col("item_id").fill_null("") != "POSTAGE").with_columns(
        who=pl.coalesce("session_id", "user_id"), date=pl.col("at").dt.date(), order="order_id", item="item_id"
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("demo"), days=21, seed=7).folder


@pytest.fixture(scope="module")
def trade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hardly anyone but trade customers, over a quarter."""
    return generate(tmp_path_factory.mktemp("trade"), days=90, seed=7, size=Size(400, 600, 20, 20, 1, 2, 1, 0.4)).folder


def test_browsing_lies_between_the_public_sets(demo: Path) -> None:
    """Each funnel figure lies between taobao's and rees46's, which differ by a factor of 1.2 to 6."""
    browsing = pl.col("event_type").is_in(["view_item", "add_to_cart", "purchase", "add_to_wishlist", "search"])
    rows = typed_events(demo).filter(browsing, pl.col("channel") != "order_form", pl.col("who").is_not_null())
    for name, value in funnel(rows).items():
        low, high = sorted((TAOBAO[name], REES46[name]))
        assert low <= value <= high, f"{name}: {value:.4f} is not within {low} and {high}"


def test_clicks_are_as_rare_as_in_open_bandit(demo: Path) -> None:
    rows = landed(demo, "impressions").unique("impression_id").with_columns(click=(pl.col("is_clicked") == "true").cast(pl.Int64))
    assert float(rows["click"].mean()) == pytest.approx(BANDIT["ctr"], rel=0.25)  # type: ignore[arg-type]
    slots = dict(rows.group_by("position").agg(pl.col("click").mean()).iter_rows())
    assert slots["1"] / slots["3"] == pytest.approx(BANDIT["first"] / BANDIT["last"], rel=0.2)


def test_trade_orders_are_those_of_online_retail(trade: Path) -> None:
    rows = typed_events(trade).filter(pl.col("event_type") == "purchase", pl.col("channel") == "order_form")
    found = ordering(rows) | gaps(rows)
    tolerance = {"lines_log_sd": 0.15, "units_mean": 0.35, "gap_cv": 0.15, "ones": 0.35}
    for name, value in found.items():
        assert value == pytest.approx(RETAIL[name], rel=tolerance.get(name, 0.25)), name


def test_demand_is_as_skewed_and_intermittent_as_online_retail(demo: Path) -> None:
    rows = typed_events(demo).filter(pl.col("event_type") == "purchase")
    for name, value in popularity(rows).items():
        assert value == pytest.approx(RETAIL[name], rel=0.12), name
    assert sale_days(rows) == pytest.approx(RETAIL["sale_days"], rel=0.25)


@needs_data
def test_recorded_moments_of_taobao_and_rees46() -> None:
    folder = Path(os.environ["MARKETING_DATA"])
    names = {"pv": "view_item", "cart": "add_to_cart", "buy": "purchase", "fav": "add_to_wishlist"}
    taobao = (
        pl.read_parquet(folder / "taobao" / "user_behavior.parquet")
        .drop_nulls()
        .select(who="user_id", at=pl.from_epoch("ts"), event_type=pl.col("behavior").replace(names))
    )
    rees = pl.read_csv(folder / "rees46" / "2019-10-01.csv.gz").select(
        who="user_session",
        at=pl.lit("2019-10-01").str.to_datetime(),
        event_type=pl.col("event_type").replace({"view": "view_item", "cart": "add_to_cart"}),
    )
    for rows, recorded in ((taobao, TAOBAO), (rees, REES46)):
        assert funnel(rows) == pytest.approx(recorded, rel=0.02)


@needs_data
def test_recorded_moments_of_online_retail_and_open_bandit() -> None:
    folder = Path(os.environ["MARKETING_DATA"])
    files = sorted((folder / "online_retail" / "events").glob("*.csv.gz"))
    rows = pl.concat([pl.read_csv(path, infer_schema_length=0) for path in files])
    rows = rows.select(
        who=pl.col("CustomerID"),
        order="InvoiceNo",
        item="StockCode",
        units=pl.col("Quantity").cast(pl.Int64),
        price=pl.col("UnitPrice").cast(pl.Float64),
        date=pl.col("InvoiceDate").str.slice(0, 10).str.to_date(),
    ).filter(pl.col("item").str.contains(r"^\d{5}"), pl.col("units") > 0, pl.col("price") > 0)
    windows = [
        rows.filter(
            pl.col("date").is_between(date(2011, 2, 1) + timedelta(days=90 * k), date(2011, 5, 1) + timedelta(days=90 * k))
        )
        for k in (0, 1)
    ]
    found = ordering(rows) | popularity(rows)
    found |= {name: float(np.mean([gaps(part)[name] for part in windows])) for name in ("gap_median", "gap_mean", "gap_cv")}
    found["sale_days"] = float(np.mean([sale_days(part) for part in windows]))
    assert found == pytest.approx(RETAIL, rel=0.05)
    logs = [pl.read_csv(folder / "open_bandit" / f"{name}_women_women.csv.gz") for name in ("random", "bts")]
    assert float(pl.concat([log.select("click") for log in logs])["click"].mean()) == pytest.approx(BANDIT["ctr"], rel=0.02)  # type: ignore[arg-type]
    slots = dict(logs[1].group_by("position").agg(pl.col("click").mean()).iter_rows())
    assert (slots[1], slots[3]) == pytest.approx((BANDIT["first"], BANDIT["last"]), rel=0.02)


def test_truth_files_are_plain_json(shop: SampleShop) -> None:
    raw = json.loads((shop.folder / "truth" / "days" / f"{shop.first_day}.json").read_text())
    assert raw["day"] == "2026-08-03" and raw["sessions"] > 0
