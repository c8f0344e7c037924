"""Supply as recent plans found it: factors from censored deliveries, days that must not teach, ranges and days alike."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy.stats import poisson

from marketing_assets.ad_planning import build_ad_plan
from marketing_assets.ad_planning.delivery import (
    PROBE,
    Deliveries,
    as_delivered,
    at_least,
    planned_groups,
    supply_factors,
)
from marketing_assets.config import DELIVERY_DAYS, Store
from marketing_assets.response.changes import Changes, Silence
from marketing_assets.warehouse import polars_schema, reader_over

DAY = date(2026, 9, 30)
AUDIENCES = ("loyal", "new")
TRUE_FACTOR = {"loyal": 1.5, "new": 0.4}
FORECAST = 40.0
HOURS = 24


def rates() -> pl.DataFrame:
    """Cells of one creative, FORECAST impressions in each group; 'hidden' is never planned."""
    rows = [
        {"audience_id": audience, "placement_id": "home", "hour": hour, "creative_id": "c", "available_impressions": FORECAST}
        for audience in (*AUDIENCES, "hidden")
        for hour in range(HOURS)
    ]
    return pl.DataFrame(rows)


def lived(share: float = 1.0, seed: int = 1) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(planned, delivered) of DELIVERY_DAYS on which each group is planned at `share` of the forecast and TRUE_FACTOR is on offer."""
    rng = np.random.default_rng(seed)
    planned, delivered = [], []
    for ago in range(DELIVERY_DAYS):
        shown_on = DAY - timedelta(days=ago)
        name = f"plan-{shown_on - timedelta(days=1)}"
        for audience in AUDIENCES:
            for hour in range(HOURS):
                group = {"plan_id": name, "audience_id": audience, "placement_id": "home", "hour": hour}
                planned.append({"as_of_date": shown_on - timedelta(days=1), **group, "planned": share * FORECAST})
                got = min(int(rng.poisson(TRUE_FACTOR[audience] * FORECAST)), int(share * FORECAST))
                if got:
                    delivered.append({"impression_date": shown_on, **group, "delivered": got})
    return pl.DataFrame(planned), pl.DataFrame(delivered)


def test_factors_are_found_through_what_plans_cut_off() -> None:
    planned, delivered = lived()
    factors = supply_factors(rates(), planned, delivered, {})
    # 'loyal' got all it was planned almost always: that says at least 1, and no more than what can be told from it
    assert factors["new"] == pytest.approx(TRUE_FACTOR["new"], abs=0.03)
    assert 1.0 < factors["loyal"] < TRUE_FACTOR["loyal"] + 0.1
    mean = delivered["delivered"].sum() / planned["planned"].sum()
    assert set(factors) == set(AUDIENCES) and factors["new"] < mean < factors["loyal"]


def test_what_is_planned_below_what_is_there_takes_nothing_away() -> None:
    planned, delivered = lived(share=0.25)
    factors = supply_factors(rates(), planned.filter(pl.col("audience_id") == "loyal"), delivered, {})
    assert factors["loyal"] == pytest.approx(1.0, abs=0.01)


def test_groups_that_got_nothing_count() -> None:
    planned, delivered = lived()
    some = supply_factors(rates(), planned, delivered.filter(pl.col("hour") < HOURS // 2), {})
    assert some["new"] == pytest.approx(TRUE_FACTOR["new"] / 2, abs=0.03)


def test_a_placement_bought_by_other_means_says_nothing() -> None:
    planned, delivered = lived()
    elsewhere = planned.with_columns(placement_id=pl.lit("search"))
    cells = pl.concat([rates(), rates().with_columns(placement_id=pl.lit("search"))])
    assert supply_factors(cells, pl.concat([planned, elsewhere]), delivered, {}) == supply_factors(rates(), planned, delivered, {})


def test_people_held_out_are_not_missing() -> None:
    """Half of an audience is held out: half the forecast delivered is all there is."""
    planned, delivered = lived()
    halved = supply_factors(rates(), planned, delivered, {"new": TRUE_FACTOR["new"]})
    assert halved["new"] == pytest.approx(1.0, abs=0.05)


QUOTED = pl.Series(["home", "home"])


def test_supply_follows_and_no_hour_has_more_than_is_quoted() -> None:
    planned, delivered = lived()
    before = rates()
    after = as_delivered(before, planned, delivered, {}, QUOTED)
    assert after.select(pl.exclude("available_impressions")).equals(before.select(pl.exclude("available_impressions")))
    by_audience = dict(after.group_by("audience_id").agg(pl.col("available_impressions").sum()).iter_rows())
    assert by_audience["new"] == pytest.approx(TRUE_FACTOR["new"] * FORECAST * HOURS, rel=0.1)
    assert by_audience["hidden"] == pytest.approx(FORECAST * HOURS)
    raised = as_delivered(before.filter(pl.col("audience_id") != "new"), planned, delivered, {}, QUOTED)
    assert raised["available_impressions"].sum() == pytest.approx(2 * FORECAST * HOURS)
    assert as_delivered(before, planned, delivered.clear(), {}, QUOTED).equals(before)


def test_where_no_capacity_is_quoted_a_plan_that_got_all_may_ask_for_more() -> None:
    """Half as much again is there of what was forecast of the loyal: a plan that kept to the forecast would never know. What is not there of
    the new is asked for no more all the same."""
    planned, delivered = lived()
    loyal = rates().filter(pl.col("audience_id") == "loyal")
    for quoted, most in ((QUOTED, 1.0), (QUOTED.clear(), PROBE)):
        after = as_delivered(loyal, planned, delivered, {}, quoted)
        assert after["available_impressions"].to_list() == pytest.approx([most * FORECAST] * HOURS)
    new = as_delivered(rates().filter(pl.col("audience_id") == "new"), planned, delivered, {}, QUOTED.clear())
    assert new["available_impressions"].mean() == pytest.approx(TRUE_FACTOR["new"] * FORECAST, rel=0.1)


def test_days_that_must_not_teach_and_old_days_do_not() -> None:
    _, delivered = lived()
    landed = delivered.with_columns(landed_date="impression_date")
    broken = Silence(since=DAY - timedelta(days=3), in_force_from=DAY - timedelta(days=2))
    heard = Deliveries(landed, Changes(silences=(broken,)))
    assert heard.on(DAY)["impression_date"].max() == DAY - timedelta(days=4)
    assert heard.on(DAY - timedelta(days=3))["impression_date"].max() == DAY - timedelta(days=3)
    # a row may land a day before its own date: a range that saw it must not know more than the day by itself
    early = delivered.with_columns(landed_date=pl.col("impression_date") - timedelta(days=1))
    assert Deliveries(early, Changes()).on(DAY)["impression_date"].min() == DAY - timedelta(days=DELIVERY_DAYS - 2)
    later = Deliveries(landed, Changes()).on(DAY + timedelta(days=5))
    assert later["impression_date"].min() == DAY + timedelta(days=6 - DELIVERY_DAYS)


@pytest.mark.parametrize("mean", [0.01, 3.0, 40.0, 900.0])
def test_expected_count_given_at_least_so_many(mean: float) -> None:
    counts = np.array([0.0, 1.0, np.ceil(mean), np.ceil(mean + 3 * np.sqrt(mean)) + 2])
    many = np.arange(0, int(mean + 40 * np.sqrt(mean)) + 60)
    chance = poisson.pmf(many, mean)
    plain = [float((many * chance)[many >= count].sum() / chance[many >= count].sum()) for count in counts]
    np.testing.assert_allclose(at_least(counts, np.full(counts.size, mean)), plain, rtol=1e-6)
    assert at_least(np.array([1000.0]), np.array([0.5]))[0] == 1000.0


def test_plans_of_a_range_follow_deliveries_as_those_of_single_days_do() -> None:
    days = [DAY + timedelta(days=number) for number in range(5)]
    store = Store.model_validate(
        {
            "name": "shop", "timezone": "UTC", "currency": "EUR", "first_day": DAY, "methods": "plain",
            "sources": {"impressions": {"rows": [{}]}}, "ad_planning": {"daily_budget": 1.0, "exploration_share": 0.0},
        }
    )  # fmt: skip
    cells = rates().filter(pl.col("audience_id") != "hidden").with_columns(
        ctr=0.1, ctr_low=0.1, ctr_high=0.1, cvr=0.1, cvr_low=0.1, cvr_high=0.1, cost_per_impression=0.001, value_per_conversion=10.0,
        campaign_id=pl.lit("k"), item_id=pl.lit("i"), evidence=pl.lit("ad_log"),
    )  # fmt: skip
    every = pl.concat([cells.with_columns(as_of_date=pl.lit(day)) for day in days]).select(
        pl.col(name).cast(kind) for name, kind in polars_schema("response_rates").items()
    )
    shown: list[dict[str, Any]] = []
    for day in days[1:]:
        for hour in range(HOURS):
            for audience, there in (("loyal", 40), ("new", 10)):
                one = {"landed_date": day, "impression_date": day, "plan_id": f"plan-{day - timedelta(days=1)}", "placement_id": "home",
                       "hour": hour, "audience_id": audience}  # fmt: skip
                shown += [{**one, "impression_id": f"{day}-{hour}-{audience}-{n}", "is_clicked": False} for n in range(there)]
    schema = polars_schema("clean_impressions")
    frames = {
        "response_rates": every,
        "clean_impressions": pl.DataFrame([{name: row.get(name) for name in schema} for row in shown], schema=schema),
    }
    whole = build_ad_plan(reader_over(frames, store, days[-1]), days, store).tables
    new = whole["ad_plan"].filter(pl.col("audience_id") == "new").group_by("as_of_date").agg(pl.col("planned_impressions").sum())
    planned = dict(new.iter_rows())
    assert planned[days[-1]] < 0.5 * planned[days[0]]
    for day in days:
        known = {
            name: frame.filter(pl.col("landed_date" if name == "clean_impressions" else "as_of_date") <= day)
            for name, frame in frames.items()
        }
        known["ad_plan"] = whole["ad_plan"].filter(pl.col("as_of_date") < day)
        single = build_ad_plan(reader_over(known, store, day), [day], store).tables["ad_plan"]
        assert_frame_equal(single, whole["ad_plan"].filter(pl.col("as_of_date") == day), rel_tol=1e-9)
    groups = planned_groups(whole["ad_plan"])
    assert groups["planned"].sum() == pytest.approx(whole["ad_plan"]["planned_impressions"].sum())


def test_a_capacity_counts_from_the_day_it_is_told() -> None:
    """All of each plan is delivered: more is asked for until the fourth day tells what the placement holds; an empty cell tells nothing."""
    days = [DAY + timedelta(days=number) for number in range(5)]
    store = Store.model_validate(
        {
            "name": "shop", "timezone": "UTC", "currency": "EUR", "first_day": DAY, "methods": "plain",
            "sources": {"impressions": {"rows": [{}]}, "placements": {"rows": [{}]}},
            "ad_planning": {"daily_budget": 10.0, "exploration_share": 0.0, "frequency_cap": 1_000},
        }
    )  # fmt: skip
    cells = rates().filter(pl.col("audience_id") == "loyal").with_columns(
        ctr=0.1, ctr_low=0.1, ctr_high=0.1, cvr=0.1, cvr_low=0.1, cvr_high=0.1, cost_per_impression=0.001, value_per_conversion=10.0,
        campaign_id=pl.lit("k"), item_id=pl.lit("i"), evidence=pl.lit("ad_log"),
    )  # fmt: skip
    every = pl.concat([cells.with_columns(as_of_date=pl.lit(day)) for day in days]).select(
        pl.col(name).cast(kind) for name, kind in polars_schema("response_rates").items()
    )
    shown = [
        {"landed_date": day, "impression_date": day, "plan_id": f"plan-{day - timedelta(days=1)}", "placement_id": "home", "hour": hour,
         "audience_id": "loyal", "impression_id": f"{day}-{hour}-{number}", "is_clicked": False}
        for day in days[1:] for hour in range(HOURS) for number in range(int(PROBE * FORECAST))
    ]  # fmt: skip
    told = [{"landed_date": days[0], "placement_id": "home", "capacity": ""}, {"landed_date": days[3], "placement_id": "home", "capacity": "40"}]
    schemas = {name: polars_schema(name) for name in ("clean_impressions", "raw_placements")}
    frames = {"response_rates": every} | {
        name: pl.DataFrame([{column: row.get(column) for column in schemas[name]} for row in rows], schema=schemas[name])
        for name, rows in (("clean_impressions", shown), ("raw_placements", told))
    }
    whole = build_ad_plan(reader_over(frames, store, days[-1]), days, store).tables["ad_plan"]
    planned = whole.group_by("as_of_date").agg(pl.col("planned_impressions").sum()).sort("as_of_date")["planned_impressions"].to_list()
    asked, more = FORECAST * HOURS, PROBE * FORECAST * HOURS
    assert planned == pytest.approx([asked, more, more, asked, asked])
