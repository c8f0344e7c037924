"""Response rates: right on known truth, shrunk where data are thin, honest about lateness, the same day by day."""

from __future__ import annotations

import os
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from marketing_assets.config import ResponseSettings, SourceBlock, Store
from marketing_assets.response import (
    build_response,
    calibration_verdict,
    fit_beta,
    fit_effects,
    fit_win_curve,
    statistics,
    suggest_bid,
)
from marketing_assets.response.build import _offered
from marketing_assets.response.calibration import log_loss, normalised_entropy
from marketing_assets.response.changes import Change, changes_of
from marketing_assets.response.statistics import ANY_PLACEMENT, in_order, maturity_curve, read_log
from marketing_assets.response.supply import (
    FORGETTING,
    Seen,
    ShownLog,
    expected_cost,
    forecast_supply,
    on_offer,
    placement_prices,
)
from marketing_assets.schemas import INPUTS
from marketing_assets.warehouse import polars_schema, reader_over

FIRST = date(2026, 1, 1)
DATA = os.environ.get("MARKETING_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="MARKETING_DATA is not set: the public data sets are not here")


def shop(methods: str = "plain", sources: tuple[str, ...] = ("impressions",), **settings_: Any) -> Store:
    return Store.model_validate(
        {
            "name": "shop",
            "timezone": "UTC",
            "currency": "EUR",
            "first_day": FIRST,
            "methods": methods,
            "threads": 1,
            "sources": {name: {"rows": [dict.fromkeys(INPUTS[name].columns)]} for name in sources},
            **settings_,
        }
    )


AUDIENCES, CREATIVES, PLACEMENTS = ["champions", "everyone", "unknown"], [f"c{i}" for i in range(8)], ["home", "search"]


class Truth:
    """A log with known click probabilities: audience, creative, placement and slot multiply, the better slots by chance."""

    def __init__(self, days: int, per_day: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        n = days * per_day
        self.audience = dict(zip(AUDIENCES, [0.3, 0.0, -0.3], strict=True))
        self.creative = dict(zip(CREATIVES, rng.normal(0, 0.5, len(CREATIVES)).tolist(), strict=True))
        self.placement = {"home": 0.0, "search": 0.6}
        self.position = {1: 0.4, 2: 0.0, 3: -0.5}
        day = np.repeat(np.arange(days), per_day)
        pick = {
            "audience_id": rng.choice(AUDIENCES, n),
            "creative_id": rng.choice(CREATIVES, n),
            "placement_id": rng.choice(PLACEMENTS, n),
            "hour": rng.integers(9, 21, n),
            "position": rng.integers(1, 4, n),
        }
        # c0 is mostly shown in the first slot: what it gains there is no appeal
        pick["position"] = np.where((pick["creative_id"] == "c0") & (rng.random(n) < 0.8), 1, pick["position"])
        table = pl.DataFrame(pick)
        probability = self.rate(table) * np.exp(
            table["position"].replace_strict(self.position, return_dtype=pl.Float64).to_numpy()
        )
        clicked = rng.random(n) < probability
        dates = [FIRST + timedelta(days=int(d)) for d in day]
        self.impressions = table.with_columns(
            landed_date=pl.Series(dates),
            impression_date=pl.Series(dates),
            impression_id=pl.Series([f"m{i}" for i in range(n)]),
            shown_at=pl.Series([datetime(d.year, d.month, d.day, 12) for d in dates]),
            campaign_id=pl.lit("k"),
            item_id=pl.col("creative_id"),
            is_clicked=pl.Series(clicked),
            raw_row_id=pl.lit("r"),
            spend=pl.lit(0.01),
        )
        converted = self.impressions.filter("is_clicked").filter(pl.Series(rng.random(int(clicked.sum())) < 0.2))
        late = pl.Series(rng.integers(0, 6, converted.height))
        self.conversions = converted.select(
            landed_date=pl.col("landed_date").dt.offset_by("0d") + pl.duration(days=late),
            conversion_id="impression_id",
            impression_id="impression_id",
            converted_at="shown_at",
            conversion_value=pl.lit(20.0),
            attribution_rule=pl.lit("reported"),
            is_refunded=pl.lit(False),
        )

    def rate(self, cells: pl.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
        total = np.full(cells.height, np.log(0.02))
        for column, effects in (("audience_id", self.audience), ("creative_id", self.creative), ("placement_id", self.placement)):
            total += cells[column].replace_strict(effects, return_dtype=pl.Float64).to_numpy()
        return np.exp(total)

    def frames(self, until: date | None = None) -> dict[str, pl.DataFrame]:
        frames = {"clean_impressions": self.impressions, "attributed_conversions": self.conversions}
        return frames if until is None else {name: frame.filter(pl.col("landed_date") <= until) for name, frame in frames.items()}


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth(days=30, per_day=4000)


def explained_share(rates: pl.DataFrame, true: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """(LL_base - LL_model) / (LL_base - LL_truth), expected under the truth."""
    one = np.ones(len(true))
    base, model, best = (log_loss(p, true, one) for p in (np.full(len(true), true.mean()), rates["ctr"].to_numpy(), true))
    return (base - model) / (base - best)


# --- known answers ----------------------------------------------------------------------------------------------------


def test_rates_find_the_truth_and_leave_the_slot_out(truth: Truth) -> None:
    day = FIRST + timedelta(days=29)
    rates = build_response(reader_over(truth.frames(), shop(), day), [day], shop()).tables["response_rates"]
    assert rates.height == 3 * 8 * 2 * 12
    mean_slot = np.mean(np.exp(list(truth.position.values())))
    true = truth.rate(rates) * mean_slot * 1.03  # c0's many first slots lift the placement's usual mix by about 3 %
    assert explained_share(rates, true) > 0.9
    for _, group in rates.with_columns(true=pl.Series(true)).group_by("placement_id"):
        assert group["ctr"].mean() / group["true"].mean() == pytest.approx(1.0, abs=0.1)  # type: ignore[operator]
    # what c0 shows raw is inflated by its slots; its rate is not
    raw = truth.impressions.group_by("creative_id").agg(pl.col("is_clicked").mean()).sort("creative_id")["is_clicked"]
    ours = rates.group_by("creative_id").agg(pl.col("ctr").mean()).sort("creative_id")["ctr"]
    true_ratio = np.exp(truth.creative["c0"] - truth.creative["c1"])
    assert abs(ours[0] / ours[1] / true_ratio - 1) < abs(raw[0] / raw[1] / true_ratio - 1)
    assert rates["cvr"].mean() == pytest.approx(0.2, rel=0.15)
    inside = ((rates["ctr_low"].to_numpy() <= true) & (true <= rates["ctr_high"].to_numpy())).mean()
    assert inside > 0.75


def test_what_nothing_tells_of_conversions_is_not_taken_for_none(truth: Truth) -> None:
    """Thousands of clicks of a log without conversions once taught that no click ever converts, and that a conversion is worth nothing."""
    day, store = FIRST + timedelta(days=29), shop()

    def rates(columns: list[str], frames: dict[str, pl.DataFrame]) -> pl.DataFrame:
        block = SourceBlock(files="f_{date}.csv", columns=dict.fromkeys(columns, "x"))
        asked = store.model_copy(update={"sources": {"impressions": block}})
        made = build_response(reader_over(frames, asked, day), [day], asked).tables["response_rates"]
        assert isinstance(made, pl.DataFrame)
        return made

    log = {"clean_impressions": truth.impressions}
    untold, none = rates(["is_clicked"], log), rates(["is_clicked", "is_converted"], log)
    assert untold["cvr"].to_list() == pytest.approx([store.response.prior_cvr] * untold.height, rel=1e-6)
    assert none["cvr"].max() < 0.5 * store.response.prior_cvr  # type: ignore[operator]
    assert (untold["value_per_conversion"] == 1).all()
    worthless = {**log, "attributed_conversions": truth.conversions.with_columns(conversion_value=pl.lit(0.0))}
    assert (rates(["is_clicked", "is_converted"], worthless)["value_per_conversion"] == 1).all()
    assert (rates(["is_clicked", "is_converted", "conversion_value"], worthless)["value_per_conversion"] == 0).all()


@pytest.mark.parametrize("methods", ["plain", "learned"])
def test_a_range_is_the_same_as_its_days_and_sees_nothing_later(truth: Truth, methods: str) -> None:
    days = [FIRST + timedelta(days=i) for i in range(12, 16)]
    store = shop(methods)
    before = build_response(reader_over(truth.frames(), store, days[0] - timedelta(days=1)), [days[0] - timedelta(days=1)], store)
    known = {"response_rates": before.tables["response_rates"]}
    whole = build_response(reader_over({**truth.frames(), **known}, store, days[-1], before.models), days, store)
    models = list(before.models)
    for day in days:
        single = build_response(reader_over({**truth.frames(day), **known}, store, day, models), [day], store)
        for name, table in single.tables.items():
            assert_frame_equal(table, whole.tables[name].filter(pl.col("as_of_date") == day), rel_tol=1e-9)
        assert [model.model_version for model in single.models] == [
            m.model_version for m in whole.models if m.fitted_as_of == day
        ]
        models += single.models
        known = {"response_rates": single.tables["response_rates"]}
    for name, table in whole.tables.items():
        assert dict(table.schema) == polars_schema(name)


def landed(source: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Raw rows of an input; `day`: the landed day's number from FIRST."""
    schema, made = polars_schema(f"raw_{source}"), []
    for number, row in enumerate(rows):
        place = {"raw_row_id": f"{row['day']:03}-{number:03}", "source_file": "f", "source_row": number + 2}
        values = {**row, **place, "landed_date": FIRST + timedelta(days=row["day"])}
        made.append({name: values.get(name) for name in schema})
    return pl.DataFrame(made, schema=schema)


def test_campaigns_and_prices_that_land_again_speak_for_no_day_before(truth: Truth) -> None:
    """Shops send their lists anew every day: in a range each day knows what had landed by it, not only what landed last."""
    days = [FIRST + timedelta(days=i) for i in range(12, 16)]
    store = shop(sources=("impressions", "creatives", "campaigns", "placements"))
    ended = (14, "c0")
    creatives = [
        {"day": n, "creative_id": name, "campaign_id": "k", "item_id": name, "end_date": str(FIRST) if (n, name) == ended else None}
        for n in (0, 13, 14, 15)
        for name in CREATIVES
    ]
    prices = [{"day": n, "placement_id": name, "pricing": "cpm", "price": str(5 + n)} for n in (0, 14) for name in PLACEMENTS]
    raw = {
        "raw_creatives": landed("creatives", creatives),
        "raw_campaigns": landed("campaigns", [{"day": n, "campaign_id": "k", "budget": "10"} for n in (0, 13, 14, 15)]),
        "raw_placements": landed("placements", prices),
    }
    frames = {**truth.frames(), **raw}
    whole = build_response(reader_over(frames, store, days[-1]), days, store).tables["response_rates"]
    for day in days:
        known = {name: frame.filter(pl.col("landed_date") <= day) for name, frame in frames.items()}
        single = build_response(reader_over(known, store, day), [day], store).tables["response_rates"]
        assert_frame_equal(single, whole.filter(pl.col("as_of_date") == day), rel_tol=1e-9)
    by_day = whole.group_by("as_of_date").agg(pl.col("creative_id").n_unique(), pl.col("cost_per_impression").max())
    shown = by_day.sort("as_of_date")
    assert shown["creative_id"].to_list() == [8, 8, 7, 7]  # a value once given stands until another one lands
    assert shown["cost_per_impression"].to_list() == pytest.approx([0.005, 0.005, 0.019, 0.019])


def test_learned_models_compete_and_are_kept_as_text(truth: Truth) -> None:
    days = [FIRST + timedelta(days=i) for i in (0, *range(21, 29))]
    store = shop("learned")
    built = build_response(reader_over(truth.frames(), store, days[-1]), days[1:], store)
    clicks = [model for model in built.models if model.model_name == "response_clicks"]
    assert clicks and clicks[0].is_promoted and clicks[0].model_format == "json"
    assert {"loss_shrunk_56", "loss_logistic_10", "loss_lightgbm"} <= set(clicks[0].metrics)
    assert clicks[0].metrics["normalised_entropy"] < 1
    rates = built.tables["response_rates"].filter(pl.col("as_of_date") == days[-1])
    assert explained_share(rates, truth.rate(rates) * np.mean(np.exp(list(truth.position.values())))) > 0.8


def test_scores_of_yesterday_s_rates_add_up(truth: Truth) -> None:
    days = [FIRST + timedelta(days=i) for i in range(20, 25)]
    tables = build_response(reader_over(truth.frames(), shop(), days[-1]), days, shop()).tables
    scores = tables["response_calibration"].filter(pl.col("as_of_date") > days[0])
    whole = scores.filter(pl.col("segment_type") == "all")
    assert whole["impressions"].to_list() == [4000] * 4
    assert whole["predicted_clicks"].sum() == pytest.approx(whole["clicks"].sum(), rel=0.15)
    for kind in ("placement", "hour_block"):
        part = scores.filter(pl.col("segment_type") == kind)
        assert part["clicks"].sum() == whole["clicks"].sum()
        assert part["predicted_clicks"].sum() == pytest.approx(whole["predicted_clicks"].sum())


def test_shrinkage_by_hand() -> None:
    """Two levels with 30 and 10 clicks of 1000: base 0.02; strength m pulls both ratios (1.5, 0.5) to 1 by m expected clicks."""
    events, exposure = np.array([30.0, 10.0]), np.array([1000.0, 1000.0])
    fit = fit_effects(events, exposure, {"creative": np.array([0, 1])}, {"creative": 2}, prior_rate=0.02, prior_weight=1e-6)
    m = fit.strength["creative"]
    # moments: ((30-20)^2 - 20 + (10-20)^2 - 20) / (400 + 400) = 0.2 at precision 400; what is usual: 0.05 at precision 100
    assert m == pytest.approx(1 / 0.17, rel=1e-3)
    assert fit.effects["creative"] == pytest.approx([(30 + m) / (20 + m), (10 + m) / (20 + m)], rel=0.01)
    assert (fit.base * fit.effects["creative"] * 1000).sum() == pytest.approx(40, rel=1e-3)


def test_few_levels_that_happen_to_agree_are_no_proof_that_a_factor_explains_nothing() -> None:
    """Four levels as expected: the moments say tau^2 = -1 / E. With 10 expected each that leaves room, with 10,000 hardly any."""
    codes = {"c": np.arange(4)}
    few, many = (
        fit_effects(np.full(4, n), np.full(4, n * 100), codes, {"c": 4}, 0.01, 1e-6).strength["c"] for n in (10.0, 10_000.0)
    )
    assert 10 < few < 40
    assert many > 5_000


def test_a_rate_follows_its_price_and_so_do_levels_never_seen() -> None:
    rng = np.random.default_rng(3)
    along = rng.normal(0, 0.8, 40)
    exposure = np.full(40, 500.0)
    events = exposure * 0.05 * np.exp(-0.7 * along)
    fit = fit_effects(events, exposure, {"c": np.arange(40)}, {"c": 40}, 0.05, 1.0, along=along)
    assert fit.slope == pytest.approx(-0.7, abs=0.03)
    unseen = fit.rate({"c": np.array([-1, -1])}, along=np.array([0.0, 1.0]))
    assert unseen[1] / unseen[0] == pytest.approx(np.exp(fit.slope))
    assert fit.log_variance({"c": np.array([-1, -1])}, along=np.array([0.0, 1.0])) == pytest.approx(
        fit.base_variance + 1 / (1 + fit.strength["c"]) + fit.slope_variance * np.array([0.0, 1.0])
    )


def test_a_level_without_data_has_its_parents_rate_and_a_wide_interval() -> None:
    fit = fit_effects(np.array([30.0, 10.0]), np.array([1000.0, 1000.0]), {"c": np.array([0, 1])}, {"c": 2}, 0.02, 1.0)
    codes = {"c": np.array([0, -1])}
    assert fit.rate(codes)[1] == pytest.approx(fit.base)
    assert fit.log_variance(codes)[1] > fit.log_variance(codes)[0]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000))
def test_shrunken_rates_keep_the_total_and_ignore_row_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 40
    exposure = rng.integers(1, 500, n).astype(float)
    events = rng.binomial(exposure.astype(int), 0.05).astype(float)
    codes = {"a": rng.integers(0, 4, n), "b": rng.integers(0, 6, n)}
    levels = {"a": 4, "b": 6}
    fit = fit_effects(events, exposure, codes, levels, 0.05, 1.0)
    assert (fit.rate(codes) * exposure).sum() == pytest.approx(events.sum(), rel=0.02, abs=0.5)
    order = rng.permutation(n)
    again = fit_effects(events[order], exposure[order], {name: index[order] for name, index in codes.items()}, levels, 0.05, 1.0)
    assert again.effects["b"] == pytest.approx(fit.effects["b"], rel=1e-9)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    rows=st.lists(
        st.tuples(st.dates(FIRST, date(2026, 3, 1)), st.none() | st.sampled_from(["", "b", "B", "Ä", "ab"]), st.none() | st.integers(-3, 3)),
        max_size=40, unique=True,
    ),
    far=st.sampled_from([0, 2**61]),
)
def test_a_log_s_order_is_that_of_its_keys(rows: list[tuple[date, str | None, int | None]], far: int) -> None:
    """Also where a key has so many values that no one number could say all of them."""
    frame = pl.DataFrame([(*row, 7) for row in rows], schema={"day": pl.Date, "name": pl.String, "hour": pl.Int64, "clicks": pl.Int64}, orient="row")
    frame = frame.with_columns(pl.when(pl.col("hour") > 2).then(pl.col("hour") + far).otherwise("hour").alias("hour"))
    assert_frame_equal(in_order(frame, ["day", "name", "hour"]), frame.sort("day", "name", "hour"))


def test_maturity_curve_by_chain_ladder() -> None:
    """Two old cohorts of 100: 50 conversions the same day, 50 a day later. A cohort of today has shown half."""
    shown = np.array([0, 0, 1, 1, 10])
    credited = np.array([0, 1, 1, 2, 10])
    curve = maturity_curve(shown, credited, np.array([50.0, 50.0, 50.0, 50.0, 30.0]), today=10, window=3)
    assert curve[1:] == pytest.approx([1, 1, 1])
    assert curve[0] == pytest.approx(0.5, abs=0.01)


def test_late_conversions_do_not_look_like_a_fall(truth: Truth) -> None:
    """Conversions take up to five days; counting only what has arrived would put the newest days' rate far too low."""
    day = FIRST + timedelta(days=9)
    rates = build_response(reader_over(truth.frames(day), shop(), day), [day], shop()).tables["response_rates"]
    clicks = truth.impressions.filter(pl.col("landed_date") <= day)["is_clicked"].sum()
    arrived = truth.conversions.filter(pl.col("landed_date") <= day).height / clicks
    assert arrived < 0.17
    assert rates["cvr"].mean() > arrived * 1.1  # type: ignore[operator]


# --- supply, price, sources -------------------------------------------------------------------------------------------


def _seen(day: date, rows: list[dict[str, Any]]) -> Seen | None:
    """What rows of a log say of supply by `day`."""
    shown = pl.DataFrame(rows)
    return ShownLog(shown, shown, np.arange(shown.height)).on(day, slice(None))


def test_supply_follows_the_weekday_and_stops_at_capacity() -> None:
    """Mondays bring 200, other days 100; three weeks seen, tomorrow is a Monday; search holds only 60."""
    monday = date(2026, 1, 5)
    rows = []
    for offset in range(21):
        day = monday + timedelta(days=offset)
        for placement in ("home", "search"):
            rows.append(
                {
                    "landed_date": day,
                    "impression_date": day,
                    "audience_id": "a",
                    "creative_id": "c",
                    "placement_id": placement,
                    "hour": 10,
                    "position": 0,
                    "impressions": 200 if offset % 7 == 0 else 100,
                    "clicks": 0,
                    "spend": 0.0,
                    "planned": 0,
                }
            )
    prices = pl.DataFrame(
        {"placement_id": ["home", "search"], "hour": [10, 10], "capacity": [None, 60]},
        schema={"placement_id": pl.String, "hour": pl.Int64, "capacity": pl.Int64},
    )
    supply = forecast_supply(monday + timedelta(days=20), _seen(monday + timedelta(days=20), rows), prices)
    assert dict(supply.select("placement_id", "available_impressions").iter_rows()) == pytest.approx(
        {"home": 200.0, "search": 60.0}
    )


def test_supply_goes_to_the_audiences_people_are_in_now() -> None:
    """Nine weeks of new users who have since become regulars: tomorrow meets regulars, in hours as the whole window had them."""
    row = {"creative_id": "c", "placement_id": "p", "position": 0, "clicks": 0, "spend": 0.0, "planned": 0}
    rows = []
    for offset in range(70):
        day = FIRST + timedelta(days=offset)
        for audience, count in (("new", 90), ("regular", 10)) if offset < 63 else (("new", 10), ("regular", 90)):
            for hour, part in ((9, 0.25), (20, 0.75)):
                moment = {"landed_date": day, "impression_date": day, "audience_id": audience, "hour": hour}
                rows.append({**row, **moment, "impressions": int(400 * part * count / 100)})
    nothing = pl.DataFrame(schema={"placement_id": pl.String, "hour": pl.Int64, "capacity": pl.Int64})
    supply = forecast_supply(FIRST + timedelta(days=69), _seen(FIRST + timedelta(days=69), rows), nothing)
    found = {(name, hour): count for name, _, hour, count in supply.iter_rows()}
    assert found == pytest.approx({("new", 9): 10.0, ("new", 20): 30.0, ("regular", 9): 90.0, ("regular", 20): 270.0})


def test_supply_is_not_forgotten_while_a_plan_buys() -> None:
    """A plan bought 10 of the 100 on offer: tomorrow's forecast stays at the 100 of a week before, less the fading."""
    row = {
        "landed_date": FIRST,
        "impression_date": FIRST,
        "audience_id": "a",
        "creative_id": "c",
        "placement_id": "p",
        "hour": 10,
        "position": 0,
        "impressions": 10,
        "clicks": 0,
        "spend": 0.0,
        "planned": 10,
    }
    previous = pl.DataFrame(
        {"audience_id": ["a", "b"], "placement_id": ["p", "p"], "hour": [10, 10], "available_impressions": [100.0, 50.0]}
    )
    nothing = pl.DataFrame(schema={"placement_id": pl.String, "hour": pl.Int64, "capacity": pl.Int64})
    supply = forecast_supply(FIRST, _seen(FIRST, [row]), nothing, previous)
    assert supply["available_impressions"].to_list() == pytest.approx([96.5, 48.25])
    free = forecast_supply(FIRST, _seen(FIRST, [{**row, "planned": 0}]), nothing, previous)
    assert free["available_impressions"].to_list() == pytest.approx([10.0])


def test_reports_do_not_forget_what_a_plan_left() -> None:
    """Four weeks of 100 a day in two placements; then a plan buys the one alone, and reports cannot say that it did."""
    days = [FIRST + timedelta(days=number) for number in range(42)]
    told = pl.DataFrame(
        [
            {"date": day, "landed_date": day, "campaign_id": "k", "placement_id": placement, "impressions": 100, "clicks": 2, "spend": 1.0}
            for day in days for placement in ("p", "q") if placement == "p" or day < days[28]
        ]
    )  # fmt: skip
    # the first day is restated, with fewer impressions
    again = told.head(1).with_columns(landed_date=pl.lit(days[1]), impressions=pl.lit(90, pl.Int64))
    types = {"creative_id": pl.String, "hour": pl.Int64, "audience_id": pl.String, "conversions": pl.Int64, "conversion_value": pl.Float64}
    full = pl.concat([told, again]).with_columns(pl.lit(None).cast(kind).alias(name) for name, kind in types.items())
    store = shop(sources=("ad_reports",))
    reader = reader_over({}, store, days[-1])
    reader.accepted = lambda source, start, end: (  # type: ignore[method-assign]
        full.filter(pl.col("landed_date").is_between(start, end)) if source == "ad_reports" else type(reader).accepted(reader, source, start, end)
    )
    log = read_log(reader, days[0], days[-1]).shown
    assert log["planned"].equals(log["impressions"]) and log.filter(pl.col("landed_date") == days[1])["impressions"].min() == -10
    rates = build_response(reader, days, store).tables["response_rates"]
    left = on_offer(rates).filter(pl.col("placement_id") == "q").group_by("as_of_date").agg(pl.col("available_impressions").sum())
    offered = dict(left.iter_rows())
    assert offered[days[27]] == pytest.approx(100.0)
    # not a quarter less each week
    assert offered[days[41]] == pytest.approx(100 * (1 - FORGETTING) ** 2)


def test_what_is_on_offer_is_remembered_by_weekday() -> None:
    """The week before is read once for a window; of its days each speaks for its own weekday only."""
    rows = pl.DataFrame(
        [
            {"as_of_date": FIRST + timedelta(days=number), "audience_id": "a", "creative_id": creative, "placement_id": "p", "hour": 10,
             "available_impressions": float(number)}
            for number in range(10) if number != 6 for creative in ("c", "d")
        ]
    )  # fmt: skip
    store = shop()
    found = _offered(reader_over({"response_rates": rows}, store, FIRST + timedelta(days=9)), FIRST + timedelta(days=10))
    assert sorted(found) == [FIRST + timedelta(days=number) for number in (3, 4, 5, 7, 8, 9)]
    assert found[FIRST + timedelta(days=5)]["available_impressions"].to_list() == [5.0]


def test_a_closed_day_stays_without_offer_while_a_plan_buys() -> None:
    """Nothing is ever shown on Sundays; from the fourth week on a plan buys, and yesterday's supply is none of a Sunday's."""
    days = [FIRST + timedelta(days=number) for number in range(42)]
    log = Truth(len(days), 40)
    shown = log.impressions.filter(pl.col("impression_date").dt.weekday() < 7)
    shown = shown.with_columns(plan_id=pl.when(pl.col("impression_date") >= days[21]).then(pl.lit("p")))
    frames = {**log.frames(), "clean_impressions": shown}
    rates = build_response(reader_over(frames, shop(), days[-1]), days, shop()).tables["response_rates"]
    assert isinstance(rates, pl.DataFrame)
    offered = {day + timedelta(days=1) for day in rates.filter(pl.col("as_of_date") >= days[27])["as_of_date"]}
    assert offered == {day + timedelta(days=1) for day in days[27:] if (day + timedelta(days=1)).isoweekday() < 7}


def test_prices_by_pricing_and_hour() -> None:
    placements = pl.DataFrame(
        [
            {
                "placement_id": "p",
                "hour": None,
                "capacity": 10,
                "pricing": "cpm",
                "price": 5,
                "valid_from": None,
                "landed_date": FIRST,
            },
            {
                "placement_id": "p",
                "hour": 3,
                "capacity": 20,
                "pricing": "cpc",
                "price": 1,
                "valid_from": FIRST,
                "landed_date": FIRST,
            },
            {
                "placement_id": "p",
                "hour": 3,
                "capacity": 99,
                "pricing": "cpa",
                "price": 9,
                "valid_from": FIRST + timedelta(days=30),
                "landed_date": FIRST,
            },
        ],
        schema={
            "placement_id": pl.String,
            "hour": pl.Int64,
            "capacity": pl.Int64,
            "pricing": pl.String,
            "price": pl.Decimal(18, 4),
            "valid_from": pl.Date,
            "landed_date": pl.Date,
        },
    )
    prices = placement_prices(FIRST, placements)
    assert prices.height == 24 and prices.filter(pl.col("hour") == 3)["capacity"].to_list() == [20]
    cells = prices.filter(pl.col("hour").is_in([3, 4])).with_columns(
        pl.col("price").cast(pl.Float64), ctr=pl.lit(0.02), cvr=pl.lit(0.1)
    )
    cost = cells.select(expected_cost(pl.col("pricing"), pl.col("price"), pl.lit(None), pl.col("ctr"), pl.col("cvr"))).to_series()
    assert cost.to_list() == pytest.approx([0.02, 0.005])


def test_audience_comes_from_the_log_of_the_day_before() -> None:
    impressions = pl.DataFrame(
        {
            "landed_date": [FIRST + timedelta(days=2)] * 3,
            "impression_date": [FIRST + timedelta(days=2)] * 3,
            "impression_id": ["1", "2", "3"],
            "shown_at": [datetime(2026, 1, 3, 12)] * 3,
            "hour": [12] * 3,
            "user_id": ["u", "v", None],
            "creative_id": ["c"] * 3,
            "placement_id": ["p"] * 3,
            "is_clicked": [False] * 3,
            "raw_row_id": ["r"] * 3,
        }
    )
    audiences = pl.DataFrame(
        [
            {
                "as_of_date": FIRST,
                "user_id": "u",
                "audience_id": "second",
                "priority": 2,
                "is_holdout": False,
                "issued_date": FIRST,
            },
            {
                "as_of_date": FIRST,
                "user_id": "u",
                "audience_id": "first",
                "priority": 1,
                "is_holdout": False,
                "issued_date": FIRST,
            },
            {
                "as_of_date": FIRST + timedelta(days=2),
                "user_id": "v",
                "audience_id": "first",
                "priority": 1,
                "is_holdout": False,
                "issued_date": FIRST,
            },
        ]
    )
    day = FIRST + timedelta(days=2)
    log = read_log(reader_over({"clean_impressions": impressions, "audiences": audiences}, shop(), day), FIRST, day)
    assert dict(log.shown.select("audience_id", "impressions").iter_rows()) == {"first": 1, "unknown": 2}


def test_a_log_that_goes_on_is_the_log_read_at_once(truth: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    """Night by night one connection reads its new day alone, whatever was credited to the days before; a day built anew is read anew."""
    users = pl.Series([f"u{number % 60}" for number in range(truth.impressions.height)])
    unnamed = pl.Series(np.random.default_rng(3).random(truth.impressions.height) < 0.5)
    shown = truth.impressions.with_columns(
        user_id=users, audience_id=pl.when(unnamed).then(None).otherwise(pl.col("audience_id")),
        impression_date=pl.col("impression_date") - pl.duration(days=pl.int_range(pl.len()) % 3 // 2),  # a third lands a day late
    )  # fmt: skip
    named = pl.DataFrame([
        {"as_of_date": FIRST + timedelta(days=day), "user_id": f"u{number}", "audience_id": f"a{(number + day) % 3}", "priority": 1,
         "is_holdout": False, "issued_date": FIRST + timedelta(days=day)}
        for day in range(0, 12, 4) for number in range(60)
    ])  # fmt: skip
    frames = {"clean_impressions": shown, "attributed_conversions": truth.conversions, "audiences": named}
    last = FIRST + timedelta(days=12)
    reader = reader_over(frames, shop(), last)
    ledger = "INSERT INTO partition_ledger SELECT unnest(?), ?, 1, ?, '', '', '', '', now(), NULL"
    for number in range(13):
        reader.connection.execute(ledger, [list(frames), FIRST + timedelta(days=number), f"h{number}"])

    def assert_same(start: date, end: date) -> None:
        got, wanted = read_log(reader, start, end), read_log(reader_over(frames, shop(), last), start, end)
        assert_frame_equal(got.shown, wanted.shown)
        assert_frame_equal(got.converted, wanted.converted)
        assert got.converted.height

    for number in range(6, 12):
        assert_same(FIRST + timedelta(days=max(0, number - 8)), FIRST + timedelta(days=number))
    assert_same(FIRST + timedelta(days=3), FIRST + timedelta(days=11))  # the same night again
    reader.connection.execute("UPDATE clean_impressions SET is_clicked = true WHERE landed_date = ?", [FIRST + timedelta(days=5)])
    before = read_log(reader, FIRST + timedelta(days=3), last)
    reader.connection.execute(
        "UPDATE partition_ledger SET content_hash = 'new' WHERE table_name = 'clean_impressions' AND partition_date = ?", [FIRST + timedelta(days=5)]
    )
    after = read_log(reader, FIRST + timedelta(days=3), last)
    assert after.shown["clicks"].sum() > before.shown["clicks"].sum() + 1000, "only the ledger tells that a day was built anew"
    monkeypatch.setattr(statistics, "HELD_ROWS", after.shown.height - 1)
    reader.connection.execute("UPDATE clean_impressions SET is_clicked = false WHERE landed_date = ?", [FIRST + timedelta(days=5)])
    read_log(reader, FIRST + timedelta(days=3), last)  # goes on from what was held, and holds nothing itself
    assert read_log(reader, FIRST + timedelta(days=3), last).shown["clicks"].sum() < before.shown["clicks"].sum()


# --- changes and silences ---------------------------------------------------------------------------------------------


def request(day: date, action: str, reason: str, asset: str = "response_rates") -> dict[str, Any]:
    return {"in_force_from": day, "requested_for_date": day, "asset": asset, "action": action, "reason": reason}


def collapsed(truth: Truth, since: date, factor: float) -> dict[str, pl.DataFrame]:
    """The same log, but from `since` on only a share of the clicks in 'home' came about."""
    frames = truth.frames()
    lost = pl.Series(np.random.default_rng(5).random(truth.impressions.height) >= factor)
    is_lost = (pl.col("impression_date") >= since) & (pl.col("placement_id") == "home") & lost
    shown = truth.impressions.with_columns(is_clicked=pl.col("is_clicked") & ~is_lost)
    kept = frames["attributed_conversions"].join(shown.filter("is_clicked").select("impression_id"), on="impression_id", how="semi")
    return {"clean_impressions": shown, "attributed_conversions": kept}


def requested(rows: list[dict[str, Any]], reader: Any) -> Any:
    """A reader that has also accepted these requests."""
    frame = pl.DataFrame(
        [{**row, "landed_date": row["in_force_from"], "requested_at": None, "model_version": None, "verdict_id": "v"} for row in rows]
    ).drop("in_force_from")
    accepted = reader.accepted
    reader.accepted = lambda source, start, end: (
        frame.filter(pl.col("landed_date") <= end) if source == "refit_requests" else accepted(source, start, end)
    )
    return reader


NAMED = "calibration since {}: ads.ctr_calibration_ratio[placement=home], ads.ctr"


@pytest.mark.parametrize("methods", ["plain", "learned"])
def test_a_refit_forgets_the_level_a_segment_had(truth: Truth, methods: str) -> None:
    """Four days after a collapse the segment's rate is the new one; the others, their creatives and hours stay as they were."""
    store, since, day = shop(methods), FIRST + timedelta(days=24), FIRST + timedelta(days=27)
    frames = collapsed(truth, since, 0.25)
    days = [day - timedelta(days=1), day]
    rows = [request(day, "refit", NAMED.format(since))]
    tables = {}
    for name, reader in (
        ("never", reader_over(frames, store, day)), ("refit", requested(rows, reader_over(frames, store, day))),
    ):  # fmt: skip
        before = build_response(reader, days[:1], store)
        with_before = {**frames, "response_rates": before.tables["response_rates"]}
        again = reader_over(with_before, store, day, before.models)
        tables[name] = build_response(requested(rows, again) if name == "refit" else again, [day], store).tables["response_rates"]
    slots = np.mean(np.exp(list(truth.position.values())))
    ratio = {}
    for name, table in tables.items():
        true = truth.rate(table) * slots * np.where(table["placement_id"].to_numpy() == "home", 0.25, 1.0)
        by_place = table.with_columns(true=pl.Series(true)).group_by("placement_id").agg(pl.col("ctr", "true").mean())
        ratio[name] = {row["placement_id"]: row["ctr"] / row["true"] for row in by_place.to_dicts()}
    assert ratio["never"]["home"] > 2.5 and ratio["refit"]["home"] == pytest.approx(1.0, abs=0.25)
    assert ratio["refit"]["search"] == pytest.approx(1.0, abs=0.1)
    # which creatives people like in 'home' is still known from before
    home = tables["refit"].filter(pl.col("placement_id") == "home").group_by("creative_id").agg(pl.col("ctr").mean()).sort("creative_id")
    true = [truth.creative[name] for name in home["creative_id"]]
    assert np.corrcoef(np.log(home["ctr"].to_numpy()), true)[0, 1] > 0.9


@pytest.mark.parametrize("methods", ["plain", "learned"])
def test_a_request_changes_no_day_before_its_own(truth: Truth, methods: str) -> None:
    """A range over a request gives the days before it as they were without it, and every day as it is alone."""
    store = shop(methods)
    days = [FIRST + timedelta(days=number) for number in range(20, 25)]
    rows = [request(days[2], "refit", NAMED.format(days[0])), request(days[4], "stop_learning", f"data_quality since {days[3]}")]
    whole = build_response(requested(rows, reader_over(truth.frames(), store, days[-1])), days, store)
    quiet = build_response(reader_over(truth.frames(), store, days[-1]), days, store)
    rates = whole.tables["response_rates"]
    for day in days[:2]:
        assert_frame_equal(
            rates.filter(pl.col("as_of_date") == day),
            quiet.tables["response_rates"].filter(pl.col("as_of_date") == day), rel_tol=1e-9,
        )  # fmt: skip
    models = list(whole.models)
    for day in days[1:]:
        known = {"response_rates": rates.filter(pl.col("as_of_date") < day)}
        earlier = [model for model in models if model.fitted_as_of < day]
        reader = requested(rows, reader_over({**truth.frames(day), **known}, store, day, earlier))
        alone = build_response(reader, [day], store).tables["response_rates"]
        assert_frame_equal(alone, rates.filter(pl.col("as_of_date") == day), rel_tol=1e-9)


def test_days_of_broken_data_teach_nothing_now_or_later(truth: Truth) -> None:
    """While learning is stopped, and after it resumed, the days between count for nothing: as if they had not been."""
    broken, sound, day = FIRST + timedelta(days=20), FIRST + timedelta(days=23), FIRST + timedelta(days=27)
    frames = collapsed(truth, FIRST, 1.0)
    is_broken = pl.col("impression_date").is_between(broken, sound - timedelta(days=1))
    frames["clean_impressions"] = frames["clean_impressions"].with_columns(is_clicked=pl.col("is_clicked") & ~is_broken)
    rows = [
        request(broken + timedelta(days=2), "stop_learning", f"data_quality since {broken}: ads.ctr"),
        request(day, "resume", f"data sound since {sound}"),
    ]
    without = {**frames, "clean_impressions": frames["clean_impressions"].filter(~is_broken)}
    for end, expected in ((sound - timedelta(days=1), broken - timedelta(days=1)), (day, day)):
        found = read_rates(requested(rows, reader_over(frames, shop(), end)), end)
        known = {name: frame.filter(pl.col("landed_date") <= expected) for name, frame in without.items()}
        bar = read_rates(reader_over(known, shop(), end), end)
        both = found.join(bar, on=["creative_id", "placement_id"], suffix="_bar")
        assert both.height == bar.height
        assert np.allclose(both["ctr"], both["ctr_bar"], rtol=0.01), end


def read_rates(reader: Any, day: date) -> pl.DataFrame:
    rates = build_response(reader, [day], shop()).tables["response_rates"]
    return rates.group_by("creative_id", "placement_id").agg(pl.col("ctr").mean()).sort("creative_id", "placement_id")


def test_requests_as_changes_and_silences() -> None:
    day = FIRST + timedelta(days=9)
    text = "calibration since 2026-01-05: ads.cvr_calibration_ratio[audience=loyal], ads.ctr_calibration_ratio"
    found = changes_of([
        request(day, "refit", text), request(day, "refit", "asked for in the Dagster UI"),
        request(day, "stop_learning", "by hand"), request(day + timedelta(days=3), "resume", "by hand"),
        request(day + timedelta(days=5), "stop_learning", "data_quality since 2026-01-12: events.reject_rate"),
    ])  # fmt: skip
    since = date(2026, 1, 5)
    assert set(found.changes) == {
        Change("conversions", "audience_id", "loyal", since, day), Change("clicks", "placement_id", None, since, day),
    }  # fmt: skip
    assert found.on(day - timedelta(days=1)) == [] and len(found.on(day, "clicks")) == 1
    assert found.silent_on(day) == [(day, None)]
    assert found.silent_on(day + timedelta(days=6)) == [(day, day + timedelta(days=3)), (date(2026, 1, 12), None)]


def test_a_shop_without_ads_is_done_at_once() -> None:
    store = shop(sources=("events",))
    built = build_response(reader_over({}, store, FIRST), [FIRST], store)
    assert set(built.degraded) == {"response_rates", "response_calibration"}
    assert all(table.is_empty() for table in built.tables.values())


def test_without_a_log_the_priors_serve_and_say_so() -> None:
    store = shop(sources=("placements", "creatives"))
    reader = reader_over({}, store, FIRST)
    sources = {
        "placements": pl.DataFrame(
            [{"placement_id": "p", "hour": None, "capacity": 40, "pricing": "cpm", "price": 5, "valid_from": None}],
            schema={
                "placement_id": pl.String,
                "hour": pl.Int64,
                "capacity": pl.Int64,
                "pricing": pl.String,
                "price": pl.Decimal(18, 4),
                "valid_from": pl.Date,
            },
        ),
        "creatives": pl.DataFrame(
            [{"creative_id": "c", "campaign_id": "k", "item_id": "i", "start_date": None, "end_date": None}],
            schema={
                "creative_id": pl.String,
                "campaign_id": pl.String,
                "item_id": pl.String,
                "start_date": pl.Date,
                "end_date": pl.Date,
            },
        ),
    }
    plain = reader.accepted
    reader.accepted = lambda source, start, end: (  # type: ignore[method-assign]
        sources[source].with_columns(landed_date=pl.lit(FIRST)) if source in sources else plain(source, start, end)
    )
    rates = build_response(reader, [FIRST], store).tables["response_rates"]
    assert rates.height == 24 and set(rates["evidence"]) == {"prior"}
    assert rates["ctr"].to_list() == pytest.approx([store.response.prior_ctr] * 24)
    assert rates["cost_per_impression"].to_list() == pytest.approx([0.005] * 24)


def test_verdict_names_the_placement() -> None:
    schema = polars_schema("response_calibration")
    rows = [
        {
            "as_of_date": FIRST,
            "segment_type": "placement",
            "segment": "home",
            "impressions": 10_000,
            "clicks": 100,
            "predicted_clicks": 20.0,
            "log_loss": 1.0,
            "conversions": 0,
            "predicted_conversions": 0.0,
        }
    ]
    verdict = calibration_verdict(pl.DataFrame(rows, schema=schema), FIRST, ResponseSettings())
    assert not verdict.is_calibrated and "placement home" in verdict.reasons[0]
    assert calibration_verdict(pl.DataFrame(schema=schema), FIRST, ResponseSettings()).is_calibrated


def test_beta_calibration_mends_a_distorted_rate() -> None:
    rng = np.random.default_rng(1)
    true = rng.uniform(0.01, 0.3, 400)
    exposure = np.full(400, 500.0)
    events = rng.binomial(500, true).astype(float)
    distorted = np.clip(true**1.3 * 0.8, 1e-6, 1)
    mended = fit_beta(distorted, events, exposure).apply(distorted)
    assert (mended * exposure).sum() == pytest.approx(events.sum(), rel=0.05)
    assert log_loss(mended, events, exposure) < log_loss(distorted, events, exposure)
    assert normalised_entropy(true, events, exposure) < 1


# --- real data --------------------------------------------------------------------------------------------------------


@needs_data
def test_open_bandit_is_told_as_it_is() -> None:
    """First days of the random log predict the later ones: with some sixty clicks nothing better than a constant can be shown."""
    assert DATA is not None
    log = pl.read_csv(
        Path(DATA) / "open_bandit" / "random_women_women.csv.gz", columns=["timestamp", "item_id", "position", "click"]
    ).sort("timestamp")
    days = log["timestamp"].str.slice(0, 10)
    cut = sorted(days.unique())[int(days.n_unique() * 0.7)]
    early, late = log.filter(days < cut), log.filter(days >= cut)
    codes = {"position": early["position"].to_numpy() - 1, "item_id": early["item_id"].to_numpy()}
    levels = {"position": 3, "item_id": int(log["item_id"].max()) + 1}  # type: ignore[arg-type,operator]
    clicks = early["click"].to_numpy().astype(float)
    fit = fit_effects(clicks, np.ones(len(clicks)), codes, levels, 0.005, 200)
    events = late["click"].to_numpy().astype(float)
    ours = fit.rate({"position": late["position"].to_numpy() - 1, "item_id": late["item_id"].to_numpy()})
    totals = np.bincount(codes["item_id"], weights=clicks, minlength=levels["item_id"])
    per_item = (totals + 1e-3) / (np.bincount(codes["item_id"], minlength=levels["item_id"]) + 1)
    one = np.ones(len(events))
    entropy = normalised_entropy(ours, events, one)
    assert entropy < normalised_entropy(per_item[late["item_id"].to_numpy()], events, one)
    assert entropy < 1.03  # shrunk nearly to a constant: its distance from 1 is within chance


@needs_data
def test_reports_alone_give_rates_and_costs() -> None:
    assert DATA is not None
    table = pl.read_csv(Path(DATA) / "ad_spend" / "kag_conversion.csv.gz")
    reports = table.select(
        date=pl.lit(FIRST),
        campaign_id=pl.col("xyz_campaign_id").cast(pl.String),
        creative_id=pl.format("{} {} {}", "age", "gender", "interest"),
        impressions="Impressions",
        clicks="Clicks",
        spend=pl.col("Spent").cast(pl.Decimal(18, 4)),
        conversions="Approved_Conversion",
        landed_date=pl.lit(FIRST),
    )
    summed = reports.group_by("date", "campaign_id", "creative_id", "landed_date").agg(
        pl.col("impressions", "clicks", "conversions").sum(), pl.col("spend").sum()
    )
    store = shop(sources=("ad_reports",))
    reader = reader_over({}, store, FIRST)
    types = {"placement_id": pl.String, "hour": pl.Int64, "audience_id": pl.String, "conversion_value": pl.Decimal(18, 4)}
    full = summed.with_columns(pl.lit(None).cast(kind).alias(name) for name, kind in types.items())
    reader.accepted = lambda source, start, end: (  # type: ignore[method-assign]
        full if source == "ad_reports" else type(reader).accepted(reader, source, start, end)
    )
    rates = build_response(reader, [FIRST], store).tables["response_rates"]
    assert set(rates["evidence"]) == {"ad_reports"} and set(rates["placement_id"]) == {ANY_PLACEMENT}
    assert rates["available_impressions"].unique().len() >= 1
    paid = table["Spent"].sum() / table["Impressions"].sum()
    assert rates["cost_per_impression"].mean() == pytest.approx(paid, rel=1e-6)
    assert (
        table["Clicks"].sum() / table["Impressions"].sum() * 0.5
        < rates["ctr"].mean()
        < 2 * table["Clicks"].sum() / table["Impressions"].sum()
    )


@needs_data
def test_bids_on_a_real_auction_log() -> None:
    """The suggested bid's win rate and price, learned on every other auction, hold on the rest.

    From the file's first half to its second prices rise (win rate .84 to .76 at one bid), so a curve wants refitting.
    """
    assert DATA is not None
    log = pl.read_csv(
        Path(DATA) / "ipinyou" / "train.txt.gz",
        separator="\t",
        has_header=False,
        new_columns=["click", "price", "ctr", "exchange"],
    )
    prices = log["price"].to_numpy().astype(float)
    half = len(prices) // 2
    curve = fit_win_curve(prices[::2])
    bid = suggest_bid(curve, value=80.0, auctions=half)
    later = prices[1::2]
    assert bid.bid == 80.0
    assert (later <= 80).mean() == pytest.approx(bid.win_rate, abs=0.01)
    assert later[later <= 80].mean() == pytest.approx(bid.cost_per_win, rel=0.02)
    tight = suggest_bid(curve, value=80.0, auctions=half, budget=0.3 * curve.cost(80.0) * half)
    assert tight.bid < 80 and tight.cost_per_auction <= 0.3 * curve.cost(80.0)
