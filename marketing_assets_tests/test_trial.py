"""The closed-loop trial: that arms see what they should, that a cut trial goes on, that the sensor's part is played once."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from polars.testing import assert_frame_equal

from marketing_assets.assignment import salted_share
from marketing_assets.cli import parser
from marketing_assets.config import REPOSITORY_ROOT, Store
from marketing_assets.control import Verdict, read_requests, request_file, request_refit, request_verdict, stopped_by
from marketing_assets.pipeline import steps_of, steps_to_remake
from marketing_assets.running import run_days
from marketing_assets.sample_shop import Decisions, KnowingShop, SampleShop
from marketing_assets.trial import TrialError, act_on_verdicts, loop, run_trial, verdicts_of
from marketing_assets.trial.arms import (
    SystemDecisions,
    ad_conversions,
    for_day,
    held_out_from_ads,
    held_out_from_lists,
    true_orders,
    true_plan,
)
from marketing_assets.trial.figures import summarise
from marketing_assets.trial.loop import Plan, opened, salted, store_of, told_of_people, with_target
from marketing_assets.trial.page import tables_of
from marketing_assets.trial.run import processes
from marketing_assets.trial.shops import branch, make_shop, shop_class, truth_of
from marketing_assets.warehouse import Warehouse, days_between, open_warehouse, polars_schema, reader_over


class TinyShop(SampleShop):
    """The sample shop at its smallest."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, seed, size="tiny")

    def write_store(self, last_day: date | None = None, **sections: Any) -> Path:
        """As the sample shop's, without the inputs no arm's decisions rest on: they would cost time only."""
        path = super().write_store(last_day, **sections)
        content = yaml.safe_load(path.read_text())
        for name in ("contacts", "surveys", "erasures", "identities", "item_drivers", "market_days"):
            del content["sources"][name]
        path.write_text(yaml.safe_dump(content))
        return path


class LoneShop:
    """Only what a trial must ask of a shop: no branch, no oracle."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._inner = TinyShop(folder, seed)
        self.folder, self.first_day = self._inner.folder, self._inner.first_day
        self.live, self.truth = self._inner.live, self._inner.truth


TINY, LONE = (f"marketing_assets_tests.test_trial:{name}" for name in ("TinyShop", "LoneShop"))
QUICK: dict[str, Any] = {"methods": "plain"}
DAYS, LAST = 2, 3


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trial of one seed and a few days."""
    out = tmp_path_factory.mktemp("trial")
    run_trial(TINY, 1, DAYS, out, lambda text: None, warm_up_days=4, renew_days=2, settings=QUICK)
    return out


def test_a_trial_reports_every_arm_and_leaves_only_its_files(finished: Path) -> None:
    summary = json.loads((finished / "trial.json").read_text())
    assert sorted(path.name for path in finished.iterdir()) == ["seeds", "trial.html", "trial.json", "trial.md", "trial.queries.json"]
    assert set(summary["figures"]["ad_revenue"]["arms"]) == {"common_practice", "system", "oracle"}
    assert {row["figure"] for row in summary["claims"]} == {"session_conversion_rate", "ad_revenue"}
    assert summary["seeds"] == 1 and summary["days"] == DAYS
    seed = json.loads((finished / "seeds" / "1.json").read_text())
    assert all(len(days) == DAYS for days in seed["truth"].values())
    # the arms are the same shop up to what was decided: same sessions on the first day but for those ads brought
    first = {arm: days[0] for arm, days in seed["truth"].items()}
    assert first["common_practice"]["more"]["retail_sessions"] == first["oracle"]["more"]["retail_sessions"]
    # held out from ads, people see those for unknown people only
    assert 0 < first["system_held_out_from_ads"]["impressions"] < first["system"]["impressions"]
    # what was decided once is ordered once, though lists and plan hold for two days
    ordered = [day["more"]["units_ordered"] for day in seed["truth"]["system"]]
    assert ordered[0] > 0 and ordered[1] == 0
    for name in ("trial.html", "trial.md"):
        report = (finished / name).read_text()
        assert "nan" not in report and "fewer than 20 users held out" in report  # a shop of 60 people has three


def test_a_cut_trial_goes_on_and_another_one_is_refused(finished: Path) -> None:
    told: list[str] = []
    again = run_trial(TINY, 1, DAYS, finished, told.append, warm_up_days=4, renew_days=2, settings=QUICK)
    assert told == [] and again["seeds"] == 1
    with pytest.raises(TrialError, match="of another trial"):
        run_trial(TINY, 1, DAYS + 1, finished, told.append, warm_up_days=4, renew_days=2, settings=QUICK)


def test_seeds_live_side_by_side_and_come_out_as_alone(tmp_path: Path) -> None:
    told: list[str] = []
    both = run_trial(TINY, 2, 1, tmp_path / "both", told.append, warm_up_days=2, jobs=2, settings=QUICK)
    assert both["seeds"] == 2 and len(told) == 2 and sorted(path.name for path in (tmp_path / "both" / "seeds").iterdir()) == ["1.json", "2.json"]
    run_trial(TINY, 1, 1, tmp_path / "alone", told.append, warm_up_days=2, first_seed=2, settings=QUICK)
    one, other = (json.loads((tmp_path / name / "seeds" / "2.json").read_text()) for name in ("both", "alone"))
    assert one["truth"] == other["truth"] and one["figures"] == other["figures"]


def test_a_seed_s_process_gives_polars_one_thread() -> None:
    before = os.environ.get("POLARS_MAX_THREADS")
    with processes(1) as pool:
        assert pool.submit(pl.thread_pool_size).result() == int(before or 1)
    assert os.environ.get("POLARS_MAX_THREADS") == before


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are found in /proc")
def test_seeds_end_with_the_trial_that_was_killed(tmp_path: Path) -> None:
    """Nothing goes on behind the back of a person who stopped it, or who starts it again beside it."""
    program = (
        "from pathlib import Path; from marketing_assets.trial import run_trial; from marketing_assets_tests.test_trial import QUICK, TINY;"
        f"run_trial(TINY, 2, 60, Path({str(tmp_path)!r}), warm_up_days=60, jobs=2, settings=QUICK)"
    )
    guarded = f"if __name__ == '__main__':\n    {program}\n"
    (tmp_path / "killed.py").write_text(guarded, encoding="utf-8")
    trial = subprocess.Popen([sys.executable, str(tmp_path / "killed.py")], env={**os.environ, "PYTHONPATH": str(REPOSITORY_ROOT)})
    try:
        until = time.monotonic() + 60
        while len(list(tmp_path.glob("seed-*"))) < 2 and time.monotonic() < until:
            time.sleep(0.2)
        children = Path(f"/proc/{trial.pid}/task/{trial.pid}/children").read_text(encoding="ascii").split()
    finally:
        trial.kill()
        trial.wait()
    assert len(children) >= 2
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < until:
        time.sleep(0.2)
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


def test_a_shop_with_the_smallest_interface_can_be_named(tmp_path: Path) -> None:
    """Without branch the past is lived again, and comes out the same; without an oracle there is no third arm."""
    make = shop_class(LONE)
    shop = make_shop(make, tmp_path / "one", 3)
    day = shop.first_day
    shop.live(day)
    twin = branch(shop, make, 3, tmp_path / "other", lambda one: one.live(day))
    assert twin.truth(day) == shop.truth(day)
    assert not isinstance(shop, KnowingShop)
    with pytest.raises(TrialError, match="no shop: it needs"):
        make_shop(lambda folder, seed: object(), tmp_path / "none", 3)  # type: ignore[arg-type,return-value]


def test_the_truth_of_a_day_is_plain_numbers(tmp_path: Path) -> None:
    """A shop that counts in numpy lost its seed when the seed was written, after all its days; a NaN would spoil every mean."""

    class Counting(LoneShop):
        def __init__(self, folder: Path, seed: int, **changes: Any) -> None:
            super().__init__(folder, seed)
            self.truth = lambda day: replace(self._inner.truth(day), **changes)

    def told(name: str, **changes: Any) -> Any:
        shop = Counting(tmp_path / name, 3, **changes)
        shop.live(shop.first_day)
        return truth_of(shop, shop.first_day)

    plain = told("counted", sessions=np.int64(7), revenue=np.float32(1.5), more={"rows": np.int64(2)})
    assert json.loads(json.dumps([plain.sessions, plain.revenue, plain.more])) == [7, 1.5, {"rows": 2}]
    for name, value in (("ad_spend", float("nan")), ("profit", None)):
        with pytest.raises(TrialError, match=f"{name} is {value}, where a finite number is needed"):
            told(name, **{name: value})


@pytest.mark.parametrize(
    ("name", "message"),
    [("SampleShop", "module:Class"), ("no_such_module:Shop", "PYTHONPATH"), ("marketing_assets.sample_shop:NoShop", "no class NoShop")],
)
def test_a_shop_that_cannot_be_found_is_named(name: str, message: str) -> None:
    with pytest.raises(TrialError, match=message):
        shop_class(name)


# --- decisions --------------------------------------------------------------------------------------------------------


def test_true_orders_fill_up_to_the_quantile_in_whole_packs() -> None:
    """Poisson demand of 2 a day over 3 + 7 days: the 95 % quantile of Poisson(20) is 28; 28 - 10 - 5 = 13, in packs of 6: 18."""
    stock = pl.DataFrame({
        "item_id": ["a", "b", "c"], "stock_on_hand": [10, 100, None], "stock_on_order": [5, None, 0], "lead_time_days": [3, 3, 3],
        "pack_size": [6, 6, 1], "minimum_order_quantity": [0, 0, 0],
    })  # fmt: skip
    demand = pl.DataFrame({"item_id": ["a", "b", "c"], "demand_mean": [2.0, 2.0, 2.0]})
    orders = true_orders(demand, stock, 1.0, _store())
    assert orders is not None and orders.rows() == [("a", 18), ("b", 0)]
    wider = true_orders(demand, stock, 4.0, _store())
    assert wider is not None and wider["order_quantity"][0] > 18


@pytest.mark.parametrize(("status", "refused"), [("refused", 1), ("no_inputs", 0)])
def test_a_day_with_nothing_on_offer_is_no_refused_plan(status: str, refused: int) -> None:
    """A shop without ads, or closed on Sundays, was reported as one whose plans the gate refuses."""

    class Tables:
        def window(self, name: str, start: date, end: date, columns: Any = None) -> pl.DataFrame:
            return pl.DataFrame({"status": [status]}) if name == "ad_plan_runs" else pl.DataFrame(schema=polars_schema(name))

        def log_as_of(self, name: str, day: date, columns: list[str]) -> pl.DataFrame:
            return pl.DataFrame(schema=polars_schema(name)).select(columns)

    system = SystemDecisions()
    decided = system.on(Tables(), _store().first_day)  # type: ignore[arg-type]
    assert decided.ad_plan is None and len(system.refused_days) == refused


def test_the_true_plan_buys_the_best_cells_within_the_budget() -> None:
    cells = pl.DataFrame({
        "audience_id": ["unknown"] * 4, "creative_id": ["x", "y"] * 2, "placement_id": ["p", "p", "q", "q"], "hour": [9, 9, 9, 9],
        "campaign_id": ["k"] * 4, "item_id": ["a", "b"] * 2, "ctr": [0.02, 0.01, 0.01, 0.005], "cvr": [0.1] * 4,
        "available_impressions": [100.0, 100.0, 50.0, 50.0], "cost_per_impression": [0.01] * 4, "value_per_conversion": [30.0] * 4,
    })  # fmt: skip
    store = _store(ad_planning={"daily_budget": 1.2, "max_hourly_share": 1.0})
    plan = true_plan(cells, None, _store().first_day, store)
    found = plan.sort("placement_id").select("placement_id", "creative_id", "planned_impressions").rows()
    assert found == [("p", "x", 100.0), ("q", "x", 20.0)]
    assert float(plan["planned_spend"].sum()) == pytest.approx(1.2)
    # one who knows the truth is held to the campaign's budget for the day as the system is
    within = true_plan(cells, None, _store().first_day, store, {"k": 0.7})
    assert within.select("placement_id", "creative_id", "planned_impressions").rows() == [("p", "x", 70.0)]


def test_the_true_plan_reaches_the_target_of_conversions() -> None:
    """By revenue the dear item gets every impression; the target takes from it just what conversions need."""
    cells = pl.DataFrame({
        "audience_id": ["unknown"] * 2, "creative_id": ["cheap", "dear"], "placement_id": ["p"] * 2, "hour": [9] * 2, "campaign_id": ["k"] * 2,
        "item_id": ["a", "b"], "ctr": [0.02] * 2, "cvr": [0.1, 0.02], "available_impressions": [2000.0] * 2,
        "cost_per_impression": [0.01] * 2, "value_per_conversion": [3.0, 100.0],
    })  # fmt: skip
    limits = {"daily_budget": 10.0, "max_hourly_share": 1.0}
    free = true_plan(cells, None, _store().first_day, _store(ad_planning=limits))
    bound = true_plan(cells, None, _store().first_day, _store(ad_planning={**limits, "target_conversions": 1.2}))
    assert free.select("creative_id", "planned_impressions").rows() == [("dear", 1000.0)]
    assert bound.sort("creative_id")["planned_impressions"].to_list() == [500.0, 500.0]  # .0004 x + .002 y = 1.2, x + y = 1,000
    # what cannot be reached with the money there is must not take more of it
    beyond = true_plan(cells, None, _store().first_day, _store(ad_planning={**limits, "target_conversions": 3.0}))
    assert float(beyond["planned_spend"].sum()) == pytest.approx(10.0) and beyond["creative_id"].to_list() == ["cheap"]


def test_the_target_is_counted_from_what_ads_brought() -> None:
    store = _store()
    days = days_between(store.first_day, store.first_day + timedelta(days=3))
    credited = pl.DataFrame({
        "landed_date": [days[0], days[1], days[3], days[3]], "impression_id": ["i", "j", "k", "i"],
        "conversion_value": [10.0, 20.0, 60.0, -10.0], "is_refunded": [False, False, False, True],
    })  # fmt: skip
    assert ad_conversions(reader_over({"attributed_conversions": credited}, store, days[-1]), days) == (0.75, 30.0)
    assert ad_conversions(reader_over({}, store, days[-1]), days) == (0.0, 0.0)


def test_the_system_s_plans_seek_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From what ads brought in the warm-up to the limits of the plans that were carried out."""
    monkeypatch.setattr(loop, "ad_conversions", lambda reader, days: (0.02, 30.0))
    settings = {**QUICK, "ad_planning": _store(ad_planning={"daily_budget": 10.0}).ad_planning}
    plan = Plan(1, warm_up_days=4, conversion_target=1.5, conversion_worth=0.5, settings=settings)
    loop.live_seed(shop_class(TINY), 1, plan, tmp_path, lambda text: None)
    with opened(tmp_path / loop.SYSTEM, store_of(tmp_path / loop.SYSTEM, settings)) as warehouse:
        newest = max(day for table, day in warehouse.ledger if table == "ad_plan_constraints")
        limits = warehouse.reader(newest).window("ad_plan_constraints", newest, newest)
    assert limits.filter(pl.col("constraint_name") == "target_conversions")["limit_value"].to_list() == pytest.approx([0.03])


def test_a_shop_s_own_target_stands() -> None:
    plan = Plan(DAYS, conversion_target=1.5, conversion_worth=0.5)
    sought = with_target(_store(), plan, 2.0, 30.0).ad_planning
    assert (sought.target_conversions, sought.most_per_conversion) == (3.0, 15.0)
    assert with_target(_store(), replace(plan, conversion_worth=None), 2.0, 30.0).ad_planning.most_per_conversion is None
    own = _store(ad_planning={"target_conversions": 0.8})
    assert with_target(own, plan, 2.0, 30.0) == own


def test_the_command_asks_for_what_the_function_does() -> None:
    given = parser().parse_args(["trial"])
    assert (given.conversion_target, given.conversion_worth) == (Plan(DAYS).conversion_target, Plan(DAYS).conversion_worth) == (1.5, 0.5)
    assert parser().parse_args(["trial", "--conversion-worth", "none"]).conversion_worth is None


@pytest.mark.parametrize("times", [-1.0, float("nan"), float("inf")])
def test_a_target_that_is_none_is_refused(times: float, tmp_path: Path) -> None:
    with pytest.raises(TrialError, match="conversion target"):
        run_trial(TINY, 1, DAYS, tmp_path / "none", conversion_target=times)
    with pytest.raises(TrialError, match="conversion worth"):
        run_trial(TINY, 1, DAYS, tmp_path / "none", conversion_worth=times)


def test_each_seed_holds_out_people_of_its_own() -> None:
    """By one salt the same ids were held out in every seed, and what they are like was taken for chance twenty times."""
    people = pl.Series([f"u{number:06}" for number in range(900)])
    for section in ("profiles", "recommendations"):
        held = [
            set(people.filter(salted_share(people, getattr(salted(_store(), seed), section).holdout_salt) < 0.05)) for seed in (1, 2)
        ]
        assert all(30 < len(ids) < 60 for ids in held) and len(held[0] & held[1]) < 10


def test_the_copies_hold_everyone_out_and_leave_the_rest() -> None:
    lists = pl.DataFrame({
        "user_id": ["u1", "u1", "u2", "u2", "unknown"], "rank": [1, 2, 1, 2, 1], "item_id": ["a", "b", "c", "d", "e"],
        "policy_id": ["learned", "learned", "popular", "popular", "popular"], "is_holdout": [False, False, True, True, False],
    })  # fmt: skip
    audiences = pl.DataFrame({"user_id": ["u1", "u2"], "audience_id": ["new", "new"], "priority": [1, 1], "is_holdout": [False, True]})
    plan = pl.DataFrame(schema=polars_schema("ad_plan"))
    decisions = Decisions(ad_plan=plan, audiences=audiences, recommendations=lists)
    without = held_out_from_lists(decisions).recommendations
    assert without is not None and held_out_from_lists(decisions).audiences is audiences
    assert without.filter(pl.col("user_id") == "u1").sort("rank")["item_id"].to_list() == ["c", "d"]
    assert without.filter(pl.col("user_id") == "unknown")["item_id"].to_list() == ["e"]
    held = held_out_from_ads(decisions)
    assert held.audiences is not None and held.audiences["is_holdout"].to_list() == [True, True]
    # the ads themselves stay: those for unknown people reach who is held out as well
    assert held.ad_plan is plan and held.recommendations is lists
    assert for_day(None, _store().first_day) is None


def _store(**sections: Any) -> Store:
    events = {"files": "x", "columns": {"*": "*"}}
    content = {"name": "t", "timezone": "UTC", "currency": "EUR", "first_day": date(2026, 1, 1), "sources": {"events": events}}
    return Store.model_validate({**content, **sections})


# --- figures ----------------------------------------------------------------------------------------------------------


def _day(rate: float, revenue: float) -> dict[str, Any]:
    names = (
        "expected_profit", "profit", "ad_spend", "expected_clicks", "expected_ad_conversions", "revenue", "stocked_out_items",
        "lost_revenue", "ad_revenue",
    )  # fmt: skip
    return {
        "sessions": 100, "expected_session_conversion_rate": rate, "session_conversion_rate": rate, "expected_ad_revenue": revenue,
        **dict.fromkeys(names, 1.0),
    }  # fmt: skip


def _seed(number: int, common: float, system: float, oracle: float) -> dict[str, Any]:
    truth = {"common_practice": [_day(common, 10)], "system": [_day(system, 11)], "oracle": [_day(oracle, 12)]}
    effects = [{
        "experiment": "ads_holdout", "metric": "orders", "method": "plain", "is_covered": number != 2, "believed": 0.1, "low": 0.0,
        "high": 0.2, "truth": 0.1, "treated_mean": 0.5, "control_users": 40,
    }]  # fmt: skip
    return {"seed": number, "truth": truth, "effects": effects, "figures": [], "verdicts": [], "refused_days": []}


def test_a_copy_told_of_people_alone_says_the_same_of_them(tmp_path: Path) -> None:
    """Ads, conversions, goods and campaigns change nothing about who did what, people with two ids among them."""
    shop = SampleShop(tmp_path, 5, size="tiny")
    days = days_between(shop.first_day, shop.first_day + timedelta(days=4))
    for day in days:
        shop.live(day)
    with gzip.open(tmp_path / "landing" / "identities" / f"{days[2]}.csv.gz", "wt") as file:
        file.write("from_user_id,user_id\nu000011,u000039\n")
    whole = store_of(tmp_path, QUICK)
    said = []
    for store, name in ((whole, "whole"), (told_of_people(whole), "people")):
        (tmp_path / name).mkdir()
        with opened(tmp_path / name, store) as warehouse:
            run_days(warehouse, days, "test", steps=[step.name for step in steps_of(store) if step.group in ("sources", "cleaning")])
            said.append(warehouse.reader(days[-1]).window("clean_events", days[0], days[-1]))
            left = warehouse.connection.execute("SELECT table_name FROM duckdb_tables() WHERE temporary").fetchall()
            assert not left, "a step's temporary tables are gone with it"
    assert_frame_equal(*said)
    assert "u000011" not in said[0].filter(pl.col("landed_date") >= days[2])["user_id"]
    assert len(steps_of(told_of_people(whole))) < len(steps_of(whole))


def test_lifts_and_shares_by_hand() -> None:
    summary = summarise([_seed(1, 0.05, 0.06, 0.07), _seed(2, 0.04, 0.05, 0.06), _seed(3, 0.06, 0.08, 0.10)])
    entry = summary["figures"]["session_conversion_rate"]
    assert entry["arms"]["common_practice"]["value"] == pytest.approx(0.05)
    assert entry["system_lift"]["value"] == pytest.approx(0.19 / 0.15 - 1)
    assert entry["share_of_oracle_gain"]["value"] == pytest.approx(0.5)
    assert np.allclose(entry["share_of_oracle_gain"]["interval"], 0.5)  # the same in every seed: pairs leave no doubt
    share = next(row for row in summary["claims"] if row["figure"] == "session_conversion_rate" and "oracle" in row["what"])
    assert not share["is_met"]
    assert summary["effects"][0]["covered"] == 2 and summary["effects"][0]["seeds"] == 3
    alone = summarise([_seed(1, 0.05, 0.06, 0.07)])
    assert alone["figures"]["session_conversion_rate"]["system_lift"] == {"value": pytest.approx(0.2), "interval": None}
    assert not any(row["is_met"] for row in alone["claims"])
    for found, met in ((summary, {"yes", "no"}), (alone, {"no interval"})):
        bars = next(rows for title, _, rows in tables_of(found) if title.startswith("Bars"))
        assert {row[-1] for row in bars} == met, "one seed says nothing of the spread, and missed no bar"


def test_no_share_of_a_gain_where_the_oracle_does_worse() -> None:
    """Where ads bring many visits that buy little, all arms convert less than common practice: losing most was 'bar met'."""
    seeds = [_seed(number, 0.10, 0.06, 0.08) for number in (1, 2, 3)]
    for seed in seeds:
        for arm, lost in (("common_practice", 9.0), ("system", 6.0), ("oracle", 5.0)):
            seed["truth"][arm][0]["lost_revenue"] = lost
    summary = summarise(seeds)
    assert summary["figures"]["session_conversion_rate"]["share_of_oracle_gain"] == {"value": None, "interval": None}
    claim = next(row for row in summary["claims"] if row["figure"] == "session_conversion_rate" and "oracle" in row["what"])
    assert not claim["is_met"]
    assert summary["figures"]["lost_revenue"]["share_of_oracle_gain"]["value"] == pytest.approx(0.75)  # less is a gain here


# --- repair -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Path]:
    """A tiny shop of a few days, built up to the plan."""
    from marketing_assets.config import load_store

    folder = tmp_path_factory.mktemp("built")
    shop = TinyShop(folder, 5)
    for number in range(LAST + 1):
        shop.live(shop.first_day + timedelta(days=number))
    store = load_store(folder / "store.yaml").model_copy(update={"threads": 1, "methods": "plain"})
    with opened(folder, store) as warehouse:
        names = [step.name for step in steps_of(store)]
        days = days_between(store.first_day, store.first_day + timedelta(days=LAST))
        run_days(warehouse, days, "test", steps=names[: names.index("ad_planning") + 1])
    return store, folder


def _with_verdict(warehouse: Warehouse, action: str, assets: str, verdict: str) -> None:
    day = warehouse.store.first_day + timedelta(days=LAST)
    row = dict.fromkeys(polars_schema("drift_report"))
    row |= {
        "as_of_date": day, "verdict_id": verdict, "metric": f"ads.{verdict}", "is_drifted": True, "cause": "calibration",
        "since_date": day - timedelta(days=2), "action": action, "assets_to_refresh": assets,
    }  # fmt: skip
    frame = pl.DataFrame([row], schema=polars_schema("drift_report"))
    warehouse.connection.register("incoming", frame.to_arrow())
    warehouse.connection.execute("INSERT INTO drift_report BY NAME SELECT * FROM incoming")
    warehouse.connection.unregister("incoming")


def test_a_verdict_is_acted_on_once_and_only_what_it_names_is_made_again(built: tuple[Store, Path]) -> None:
    store, folder = built
    day = store.first_day + timedelta(days=LAST)
    with opened(folder, store) as warehouse:
        _with_verdict(warehouse, "refit", "response_rates", "v1")
        _with_verdict(warehouse, "alert", "", "v2")
        before = dict(warehouse.ledger)
        acted = act_on_verdicts(warehouse, day, "again")
        assert [verdict.verdict_id for verdict in acted] == ["v1"]
        assert {verdict.verdict_id for verdict in verdicts_of(warehouse.reader(day), day)} == {"v1", "v2"}
        assert [row["asset"] for row in read_requests(request_file(store, day))] == ["response_rates"]
        rows = warehouse.connection.execute("SELECT model_name, trigger FROM fitted_models WHERE as_of_date = ?", [day]).fetchall()
        assert all(trigger in ("request", "cadence") for _, trigger in rows)
        names = {step.name for step in steps_to_remake(store, ["response_rates"])}
        assert names == {"source_refit_requests", "cleaning", "response", "ad_planning"}
        made_again = {table for step in steps_to_remake(store, ["response_rates"]) for table in step.tables}
        for key, row in before.items():
            if key[0] not in made_again or key[1] != day:
                assert warehouse.ledger[key] is row, key
        for table in ("clean_events", "clean_impressions", "attributed_conversions", "rejected_rows"):
            assert warehouse.ledger[table, day].content_hash == before[table, day].content_hash
        assert act_on_verdicts(warehouse, day, "third") == []
        again = store.model_copy(update={"drift": store.drift.model_copy(update={"cool_down_days": 3})})
        assert again.drift.cool_down_days == 3 and not request_verdict(again, day, acted[0])  # an open verdict asks once


def test_learning_goes_on_once_the_data_are_sound(built: tuple[Store, Path]) -> None:
    """A stop a verdict asked for ends with the verdict that says so, from the next day on; one by hand ends by hand."""
    store, folder = built
    day = store.first_day + timedelta(days=LAST)
    control = folder / "elsewhere"
    elsewhere = store.model_copy(update={"path": control / "store.yaml"})
    stop = Verdict("s1", "data_quality", "stop_learning", ("user_profiles", "recommendations"), day, ("events.reject_rate",))
    sound = Verdict("s2", "data_quality", "resume", ("user_profiles",), day + timedelta(days=1), ("learning[user_profiles]",))
    assert not request_verdict(elsewhere, day, sound)  # nothing was stopped
    assert read_requests(request_file(elsewhere, day + timedelta(days=1))) == []
    assert request_verdict(elsewhere, day, stop)
    later = day + timedelta(days=7)
    assert not request_verdict(elsewhere, later, sound) and not request_verdict(elsewhere, later, sound)
    (row,) = read_requests(request_file(elsewhere, later + timedelta(days=1)))
    assert (row["asset"], row["action"], row["verdict_id"]) == ("user_profiles", "resume", "s2")
    assert row["reason"] == f"data sound since {day + timedelta(days=1)}"
    request_refit(elsewhere, later, "recommendations", "stop_learning", reason="by hand")
    assert stopped_by(elsewhere, "recommendations", later) is None and stopped_by(elsewhere, "recommendations", day) == "s1"
    request_verdict(elsewhere, later, replace(sound, assets=("recommendations",)))
    assert len(read_requests(request_file(elsewhere, later + timedelta(days=1)))) == 1


def test_the_warehouse_of_an_arm_is_the_ordinary_one(built: tuple[Store, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    store, folder = built
    monkeypatch.setenv("MARKETING_WAREHOUSE", str(folder / "warehouse.duckdb"))
    with open_warehouse(store) as warehouse:
        assert ("ad_plan", store.first_day) in warehouse.ledger
