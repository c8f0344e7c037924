"""Replay: what the rules buy, that values are what they say, and that a curve is a running sum with a reference of its own."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from marketing_assets.config import Store
from marketing_assets.evaluation.ad_log import enumerated
from marketing_assets.evaluation.what_if import numbered
from marketing_assets.replay import (
    DONE,
    PLAN,
    REPLAY_REPORT,
    RULES,
    Valued,
    as_page,
    curve,
    past_results,
    policies_on,
    replay_range,
    value_by_log,
    value_by_model,
)
from marketing_assets.schemas import TABLES
from marketing_assets.warehouse import MissingPartitions, Warehouse, create_tables, days_between, polars_schema

FIRST = date(2026, 5, 4)


def shop(folder: Path = Path()) -> Store:
    events = {"files": "x", "columns": {"*": "*"}}
    return Store.model_validate({
        "name": "t", "timezone": "UTC", "currency": "EUR", "first_day": FIRST, "threads": 1, "path": folder / "store.yaml",
        "sources": {"events": events, "impressions": events},
    })  # fmt: skip


def rates(day: date, available: float = 100.0) -> pl.DataFrame:
    """Two creatives, x twice as good as y, in one placement at 9 and at 10 o'clock."""
    rows = [
        {
            **dict.fromkeys(polars_schema("response_rates")), "as_of_date": day, "audience_id": "unknown", "creative_id": creative,
            "placement_id": "p", "hour": hour, "ctr": ctr, "cvr": 0.1, "available_impressions": available, "cost_per_impression": 0.01,
            "value_per_conversion": 20.0, "evidence": "ad_log", "campaign_id": "k", "item_id": "i",
            **dict.fromkeys(("ctr_low", "ctr_high"), ctr), **dict.fromkeys(("cvr_low", "cvr_high"), 0.1),
        }
        for creative, ctr in (("x", 0.2), ("y", 0.1)) for hour in (9, 10)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=polars_schema("response_rates"))


def plan(day: date) -> pl.DataFrame:
    """Only x, 60 impressions an hour."""
    rows = [
        {
            **dict.fromkeys(polars_schema("ad_plan")), "as_of_date": day, "plan_date": day + timedelta(days=1), "plan_id": f"plan-{day}",
            "audience_id": "unknown", "creative_id": "x", "campaign_id": "k", "item_id": "i", "placement_id": "p", "hour": hour,
            "planned_impressions": 60.0, "planned_spend": 0.6, "expected_clicks": 12.0, "expected_conversions": 1.2,
            "expected_revenue": 24.0, "logging_propensity": 1.0, "is_exploration": False,
        }
        for hour in (9, 10)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=polars_schema("ad_plan"))


def impressions(day: date, rows: int = 100) -> pl.DataFrame:
    """x and y by turns; every 5th of x and every 10th of y is clicked."""
    number = np.arange(rows)
    is_x = number % 2 == 0
    clicked = np.where(is_x, number % 10 == 0, number % 20 == 1)
    frame = pl.DataFrame({
        "landed_date": [day] * rows, "impression_date": [day] * rows, "impression_id": [f"{day}-{each:03d}" for each in number],
        "shown_at": [datetime(day.year, day.month, day.day, 9)] * rows, "hour": np.where(number < rows // 2, 9, 10),
        "user_id": [f"u{each // 2 % 20}" for each in number], "creative_id": np.where(is_x, "x", "y"), "placement_id": ["p"] * rows,
        "campaign_id": ["k"] * rows, "item_id": ["i"] * rows, "logging_propensity": [0.5] * rows, "spend": [0.012] * rows, "is_clicked": clicked,
    })  # fmt: skip
    schema = polars_schema("clean_impressions")
    return frame.select((pl.col(name) if name in frame.columns else pl.lit(None)).cast(kind).alias(name) for name, kind in schema.items())


def seen(day: date) -> pl.DataFrame:
    """impressions(day) as evaluation's log shows them: an order of 20 follows each click at once."""
    shown = impressions(day)
    clicked = pl.col("is_clicked")
    texts = {name: enumerated(values) for name, values in (("cluster", shown["user_id"]), ("placement_id", shown["placement_id"]),
             ("creative_id", shown["creative_id"]), ("audience_id", pl.repeat("unknown", shown.height, eager=True)))}  # fmt: skip
    return numbered(shown.select(
        "impression_date", "landed_date", "logging_propensity", "is_clicked", **texts, impression=pl.col("impression_id").rank("dense"),
        fold=pl.col("user_id").rank("dense") % 2, block=pl.col("hour") // 6,
        credited_date=pl.when(clicked).then("impression_date"),
        conversions=pl.when(clicked).then(1), revenue=pl.when(clicked).then(20.0),
    ))  # fmt: skip


def test_rules_spend_what_the_plan_spends() -> None:
    log = pl.concat([seen(FIRST), seen(FIRST + timedelta(days=1))])
    policies = policies_on(FIRST + timedelta(days=2), rates(FIRST), plan(FIRST), log, pl.DataFrame(), 0.0)
    assert set(policies) == {PLAN, *RULES}
    for frame in policies.values():
        assert frame["planned_spend"].sum() == pytest.approx(1.2)
    uniform, greedy = policies["uniform"].sort("hour", "creative_id"), policies["greedy_on_past"]
    assert uniform["planned_impressions"].to_list() == pytest.approx([30.0] * 4)
    assert set(greedy["creative_id"]) == {"x"} and greedy.sort("hour")["planned_impressions"].to_list() == pytest.approx([100.0, 20.0])
    likely = policies["proportional_to_past"].group_by("creative_id").agg(pl.col("planned_impressions").sum())
    amount = dict(likely.iter_rows())
    assert 1 < amount["x"] / amount["y"] < 2  # towards the better one, held back by how little was seen


def test_the_past_is_what_the_evening_before_knew() -> None:
    day = FIRST + timedelta(days=1)
    early, late = seen(FIRST), seen(FIRST).with_columns(credited_date=pl.lit(day))
    assert past_results(early, day)["result"].sum() > past_results(late, day)["result"].sum() == 0
    assert past_results(seen(day), day).is_empty()  # of the day itself nothing is known


def test_values_by_hand() -> None:
    """By the rates: 120 x .2 = 24 clicks. By the log: x was clicked in 10 of 50, of 120 impressions 24 again."""
    bought = plan(FIRST).select("audience_id", "placement_id", "hour", "creative_id", "planned_impressions", "planned_spend")
    day = FIRST + timedelta(days=1)
    modelled = {one.outcome: one.value for one in value_by_model(day, PLAN, bought, rates(FIRST))}
    assert modelled == {"clicks": pytest.approx(24.0), "revenue": pytest.approx(48.0)}
    valued = {one.outcome: one for one in value_by_log(day, PLAN, bought, seen(day), day)}
    assert valued["clicks"].value == pytest.approx(24.0, rel=0.15)
    assert valued["clicks"].unsupported == 0
    counted = {one.outcome: one.value for one in value_by_log(day, DONE, bought.with_columns(planned_impressions=50.0), seen(day), day)}
    assert counted == {"clicks": pytest.approx(15.0), "revenue": pytest.approx(300.0)}
    elsewhere = bought.with_columns(creative_id=pl.lit("never shown"))
    assert value_by_log(day, PLAN, elsewhere, seen(day), day)[0].unsupported == 1.0


def test_the_curve_is_a_running_sum_against_the_best_rule() -> None:
    values = {PLAN: (3.0, 4.0), "uniform": (1.0, 5.0), "greedy_on_past": (4.0, 1.0)}
    rows = [
        Valued(FIRST + timedelta(days=number), policy, "clicks", "model", value, 1.0)
        for policy, days in values.items() for number, value in enumerate(days)
    ]  # fmt: skip
    report = curve(rows, shop())
    assert report.schema == REPLAY_REPORT
    found = {row["policy_id"]: row for row in report.filter(pl.col("date") == FIRST + timedelta(days=1)).iter_rows(named=True)}
    assert found[PLAN]["cumulative_value"] == 7.0 and found[PLAN]["regret"] == -1.0  # uniform ends at 6 and is the reference
    assert found["uniform"]["regret"] == 0.0 and found["greedy_on_past"]["regret"] == 1.0
    assert "<polyline" in as_page(report, shop())


def built(folder: Path, days: int) -> Warehouse:
    import duckdb

    connection = duckdb.connect(":memory:")
    create_tables(connection)
    frames: dict[str, list[pl.DataFrame]] = {"clean_impressions": [], "response_rates": [], "ad_plan": []}
    for day in days_between(FIRST, FIRST + timedelta(days=days - 1)):
        frames["clean_impressions"].append(impressions(day))
        frames["response_rates"].append(rates(day))
        frames["ad_plan"].append(plan(day))
    for name, parts in frames.items():
        connection.register("incoming", pl.concat(parts).to_arrow())
        connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM incoming")
        connection.unregister("incoming")
    warehouse = Warehouse(connection, shop(folder), None)
    from marketing_assets.warehouse import LedgerRow

    for day in days_between(FIRST, FIRST + timedelta(days=days - 1)):
        key: tuple[Any, ...] = ("attributed_conversions", day)
        warehouse.ledger[key] = LedgerRow(*key, 0, "", "", "", "", "", datetime(2026, 1, 1), None)
    return warehouse


def test_a_range_is_replayed_into_files(tmp_path: Path) -> None:
    warehouse, told = built(tmp_path, 6), []
    start, end = FIRST + timedelta(days=2), FIRST + timedelta(days=5)
    report = replay_range(warehouse, start, end, told.append)
    folder = tmp_path / "replay" / f"{start}_{end}"
    assert pl.read_parquet(folder / "replay_report.parquet").equals(report)
    assert (folder / "replay_report.html").read_text().startswith("<!doctype html>")
    last = report.filter(pl.col("date") == end, pl.col("outcome") == "clicks", pl.col("estimator") == "doubly_robust")
    done = last.filter(pl.col("policy_id") == DONE).row(0, named=True)
    assert done["cumulative_value"] == pytest.approx(60.0) and done["cumulative_low"] < 60 < done["cumulative_high"]
    plan_row = last.filter(pl.col("policy_id") == PLAN).row(0, named=True)
    assert plan_row["cumulative_value"] == pytest.approx(96.0, rel=0.1)
    assert plan_row["regret"] <= 0 and any("system_plan" in line for line in told)
    assert TABLES.keys() >= {"ad_plan", "response_rates"}


@pytest.mark.parametrize(("start", "end"), [(0, 3), (3, 9), (4, 3)])
def test_a_range_that_was_never_built_is_refused(tmp_path: Path, start: int, end: int) -> None:
    with pytest.raises(MissingPartitions, match="replay"):
        replay_range(built(tmp_path, 6), FIRST + timedelta(days=start), FIRST + timedelta(days=end), lambda text: None)
