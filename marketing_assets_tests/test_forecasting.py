"""Demand forecasts: coherent, monotone, the same day by day, blind to the future; calendars, stock-outs and odd series."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from functools import cache
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from marketing_assets.config import SourceBlock, Store
from marketing_assets.forecasting import UnknownForecaster, build_demand, competition, learned
from marketing_assets.forecasting.calendar import (
    SHAPE_POWER,
    around_holidays,
    day_shape,
    days_from_easter,
    public_holidays,
    years_before,
)
from marketing_assets.forecasting.classic import forecast_ar, forecast_croston_sba, forecast_seasonal_naive
from marketing_assets.forecasting.competition import Scoring, compete, forecast_with
from marketing_assets.forecasting.features import feature_names, matrix_of
from marketing_assets.forecasting.fits import DemandModel, fit_demand
from marketing_assets.forecasting.history import DemandHistory, alive, series_name
from marketing_assets.forecasting.learned import NO_MODEL, fit_panel_model, forecast_panel
from marketing_assets.forecasting.level_calendar import capped, fit_levels, forecast_level_calendar, level_forecast, own_week
from marketing_assets.forecasting.origins import Origins, origin_columns
from marketing_assets.forecasting.panel import LEVELS, Floats, Panel
from marketing_assets.forecasting.quantiles import QUANTILE_HALF_LIVES, pooled_quantiles, weighted_quantiles
from marketing_assets.forecasting.rows import issue_rows
from marketing_assets.forecasting.silences import silences
from marketing_assets.forecasting.sktime_forecasters import ClassicForecaster, LevelCalendarForecaster, PanelForecaster
from marketing_assets.schemas import INPUTS, QUANTILE_COLUMNS, TABLES
from marketing_assets.warehouse import Built, Reader, days_between, polars_schema, reader_over

FIRST = date(2026, 1, 5)
"""A Monday."""
QUANTILES = list(QUANTILE_COLUMNS.values())


def shop(methods: str = "plain", sources: tuple[str, ...] = ("events",), **changes: Any) -> Store:
    return Store.model_validate(
        {
            "name": "shop",
            "timezone": "UTC",
            "currency": "EUR",
            "first_day": FIRST,
            "methods": methods,
            "threads": 1,
            "sources": {name: {"rows": [{}]} for name in sources},
            **changes,
        }
    )


def conform(name: str, rows: Sequence[dict[str, Any]] | pl.DataFrame) -> pl.DataFrame:
    """Rows as a frame with the table's columns and types; what is not given is null."""
    schema = polars_schema(name)
    frame = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(list(rows), infer_schema_length=None)
    return frame.select((pl.col(c) if c in frame.columns else pl.lit(None)).cast(kind).alias(c) for c, kind in schema.items())


@cache
def lived_shop() -> dict[str, pl.DataFrame]:
    """90 days, closed on Sundays: 12 items in two categories, some sold in two places, some sales landing three days late."""
    generator = np.random.default_rng(7)
    rows: list[dict[str, Any]] = []
    for number in range(90):
        day = FIRST + timedelta(days=number)
        if day.weekday() == 6:
            continue
        for item in range(12):
            for place in ["north", "south"] if item % 4 == 0 else [None]:
                units = int(generator.poisson(0.5 + item / 2))
                if units:
                    late = 3 if generator.random() < 0.1 else 0
                    rows.append(
                        {
                            "landed_date": day + timedelta(days=late), "event_date": day, "item_id": f"i{item:02d}", "location_id": place,
                            "units_sold": units, "units_returned": 0, "orders": 1, "revenue": 5 * units, "gross_revenue": 5 * units,
                            "views": 3, "carts": 1, "reviews": 0, "ratings": 0, "rating_total": 0.0,
                        }
                    )  # fmt: skip
    summed = pl.DataFrame(rows).group_by("landed_date", "event_date", "item_id", "location_id").sum()
    items = [
        {
            "as_of_date": day, "item_id": f"i{item:02d}", "category": "ab"[item % 2] if item < 10 else None, "unit_price": 5,
            "stock_on_hand": 20 + item, "unit_cost": 2, "pack_size": 6, "has_list_price": True, "first_seen_date": FIRST,
            "is_service": False,
        }
        for day in (FIRST, *(FIRST + timedelta(days=28 * turn) for turn in (1, 2, 3)))
        for item in range(12)
    ]  # fmt: skip
    return {"item_days": conform("item_days", summed), "items": conform("items", items)}


def reader_until(day: date, store: Store, frames: dict[str, pl.DataFrame] | None = None) -> Reader:
    known = {name: frame.filter(pl.col(TABLES[name].partition_column) <= day) for name, frame in (frames or lived_shop()).items()}
    return reader_over(known, store, day)


def issued(days: Sequence[date], store: Store, frames: dict[str, pl.DataFrame] | None = None) -> pl.DataFrame:
    built = build_demand(reader_until(days[-1], store, frames), days, store).tables["demand_forecasts"]
    assert isinstance(built, pl.DataFrame)
    return built


def panel_of(units: Any, horizon: int = 7, start: date = FIRST, **changes: Any) -> Panel:
    units = np.asarray(units, dtype=np.float64)
    names = [f"s{row}" for row in range(len(units))]
    nothing = pl.lit(None, pl.String)
    whole = units.shape[1] + horizon
    given: dict[str, Any] = {
        "series": pl.DataFrame({"series_id": names, "item_id": names}).with_columns(
            location_id=nothing, category=nothing, unit_price=pl.lit(None, pl.Float64)
        ),
        "start": start, "units": units, "is_blocked": np.zeros(units.shape, dtype=bool), "is_holiday": np.zeros(whole, dtype=bool),
        "is_promotion": np.zeros(whole, dtype=bool), "horizon": horizon, **changes,
    }  # fmt: skip
    return Panel(**given)


@cache
def whole_range(methods: str) -> Built:
    store = shop(methods, forecasting={"history_days": 80, "fit_cadence_days": 14, "horizon_days": 8})
    days = days_between(FIRST, FIRST + timedelta(days=89))
    return build_demand(reader_until(days[-1], store), days, store)


# --- the table --------------------------------------------------------------------------------------------------------


def test_issues_come_on_cadence_days_and_last_until_the_next_one() -> None:
    days = days_between(FIRST, FIRST + timedelta(days=20))
    table = issued(days, shop(forecasting={"cadence_days": 7, "horizon_days": 3}))
    assert table["as_of_date"].unique().sort().to_list() == [days[0], days[7], days[14]]
    assert table.group_by("as_of_date").agg(pl.col("date").max())["date"].sort().to_list() == [days[7], days[14], days[14] + timedelta(days=7)]


def test_levels_add_up_and_quantiles_rise_in_whole_units() -> None:
    table = issued([FIRST + timedelta(days=70)], shop())
    means = table.group_by("level", "date").agg(pl.col("demand_mean").sum())
    totals = {level: means.filter(pl.col("level") == level).sort("date")["demand_mean"].to_numpy() for level in ("item", "shop")}
    np.testing.assert_allclose(totals["item"], totals["shop"], rtol=1e-9)
    of_a = table.filter(pl.col("item_id").is_in([f"i{item:02d}" for item in (0, 2, 4, 6, 8)])).group_by("date").agg(pl.col("demand_mean").sum())
    category = table.filter(pl.col("level") == "category", pl.col("series_id") == "a").sort("date")
    np.testing.assert_allclose(of_a.sort("date")["demand_mean"].to_numpy(), category["demand_mean"].to_numpy(), rtol=1e-9)
    quantiles = table.select(QUANTILES).to_numpy()
    assert (np.diff(quantiles, axis=1) >= 0).all()
    assert (quantiles == np.rint(quantiles)).all()
    assert (quantiles >= 0).all()


@pytest.mark.parametrize("methods", ["plain", "learned"])
@pytest.mark.parametrize("number", [0, 28, 77, 84])
def test_a_day_alone_equals_the_day_in_a_range_and_sees_nothing_later(methods: str, number: int) -> None:
    store = shop(methods, forecasting={"history_days": 80, "fit_cadence_days": 14, "horizon_days": 8})
    day = FIRST + timedelta(days=number)
    whole = whole_range(methods)
    frames = {name: frame.filter(pl.col(TABLES[name].partition_column) <= day) for name, frame in lived_shop().items()}
    alone = build_demand(reader_over(frames, store, day, [fit for fit in whole.models if fit.fitted_as_of < day]), [day], store)
    table = whole.tables["demand_forecasts"].filter(pl.col("as_of_date") == day)  # type: ignore[union-attr, arg-type]
    assert_frame_equal(table, alone.tables["demand_forecasts"], rel_tol=1e-9)  # type: ignore[arg-type]
    assert [fit.model_version for fit in alone.models] == [fit.model_version for fit in whole.models if fit.fitted_as_of == day]
    if methods == "learned" and number == 84:
        assert alone.models[0].parameters["winners"]["steady"] in table["model"].to_list()


def test_rows_of_the_input_may_come_in_any_order() -> None:
    frames = {name: frame.sample(fraction=1, shuffle=True, seed=3) for name, frame in lived_shop().items()}
    day = FIRST + timedelta(days=77)
    assert_frame_equal(issued([day], shop()), issued([day], shop(), frames))


def test_without_events_the_table_is_empty_and_says_so() -> None:
    store = shop(sources=("items",))
    built = build_demand(reader_over({}, store, FIRST), [FIRST], store)
    assert built.degraded == {"demand_forecasts": "needs source 'events'"}
    assert built.tables["demand_forecasts"].schema == polars_schema("demand_forecasts")  # type: ignore[union-attr]


def test_a_shop_without_a_sale_yet_issues_nothing_and_does_not_fail() -> None:
    assert issued([FIRST], shop(), {"item_days": conform("item_days", [])}).is_empty()


def test_places_are_series_of_their_own_with_names_that_cannot_clash() -> None:
    table = issued([FIRST + timedelta(days=70)], shop())
    names = table.filter(pl.col("level") == "item", pl.col("item_id") == "i04")["series_id"].unique().sort().to_list()
    assert names == ["i04|north", "i04|south"]
    assert series_name("a|b", "c") != series_name("a", "b|c")


# --- calendar ---------------------------------------------------------------------------------------------------------


def test_public_holidays_hold_where_half_of_the_regions_keep_them() -> None:
    days = public_holidays("GB", date(2011, 1, 1), date(2011, 12, 31))
    assert {date(2011, 4, 22), date(2011, 4, 25), date(2011, 8, 29)} <= days
    assert date(2011, 11, 30) not in days  # St Andrew's Day, in Scotland only
    assert public_holidays(None, date(2011, 1, 1), date(2011, 12, 31)) == set()


def test_closed_weekdays_and_holidays_are_worth_nothing() -> None:
    units = np.ones((10, 56))
    units[:, 6::7] = 0  # Sundays
    is_holiday = np.zeros(70, dtype=bool)
    is_holiday[[30, 60]] = True
    units[:, 30] = 0
    shape = day_shape(panel_of(units, 14, is_holiday=is_holiday))
    assert (shape[56:][[6, 13]] == 0).all()
    assert shape[60] == 0
    np.testing.assert_allclose(np.delete(shape[56:], [4, 6, 13]), 1.0, atol=1e-9)


def test_in_a_small_shop_a_day_without_a_sale_is_no_closed_day() -> None:
    units = np.zeros((2, 56))
    units[0, ::3] = 1
    assert (day_shape(panel_of(units)) > 0).all()


# --- level and quantiles ----------------------------------------------------------------------------------------------


def test_bulk_orders_are_cut_to_what_an_item_usually_sells() -> None:
    units = np.zeros((1, 30))
    units[0, :20] = 2
    units[0, 25] = 500
    assert capped(units)[0, 25] == 8  # four times the median of 2 is more than 1.5 times the 90 % quantile of 2


def test_weighted_quantiles_agree_with_a_plain_loop() -> None:
    generator = np.random.default_rng(0)
    values, weights = generator.poisson(2, (5, 40)).astype(float) - 1, generator.random((40, 2))
    is_counted = generator.random((5, 40)) < 0.8
    found = weighted_quantiles(values, is_counted, weights)
    for row in range(5):
        for each in range(2):
            pairs = sorted((value, weight) for value, weight, counts in zip(values[row], weights[:, each], is_counted[row], strict=True) if counts)
            for column, level in enumerate(LEVELS):
                reached, place = 0.0, -1
                while reached < level * sum(weight for _, weight in pairs):
                    place += 1
                    reached += pairs[place][1]
                assert found[row, column, each] == pairs[place][0]


def test_the_tail_of_an_item_is_drawn_to_those_that_sell_as_often() -> None:
    """Twelve items of level 2 and a thirteenth of level 4: pooled, its quantile is twice theirs, whatever its own history says."""
    histories = np.full((13, len(LEVELS), len(QUANTILE_HALF_LIVES)), 6.0)
    histories[12] = 100.0
    level = np.r_[np.full(12, 2.0), 4.0]
    panel = panel_of(np.ones((13, 40)))
    pooled = pooled_quantiles(panel, level, histories, np.ones((13, 40), dtype=bool))
    np.testing.assert_allclose(pooled[12], 2 * pooled[0])
    ratios = np.r_[np.full(12, 3.0), 25.0]
    np.testing.assert_allclose(pooled[0], 2 * np.minimum(ratios, np.quantile(ratios, 0.98)).mean())
    rare = panel_of(np.vstack([np.ones((12, 40)), np.eye(1, 40)]))
    apart = pooled_quantiles(rare, level, histories, np.ones((13, 40), dtype=bool))
    np.testing.assert_allclose(apart[:12], 6.0)


def test_days_out_of_stock_do_not_lower_demand() -> None:
    units = np.full((12, 84), 4.0)
    is_blocked = np.zeros(units.shape, dtype=bool)
    units[0, 60:80], is_blocked[0, 60:80] = 0, True
    forecast = forecast_level_calendar(panel_of(units, is_blocked=is_blocked))
    np.testing.assert_allclose(forecast.mean, 4.0, rtol=0.01)  # the shop's total does fall a little


@pytest.mark.parametrize("odd", [np.zeros(84), np.full(84, 3.0), np.r_[np.zeros(83), 5.0], np.r_[500.0, np.zeros(83)]])
def test_an_odd_series_has_a_clear_outcome_and_spoils_no_other(odd: Any) -> None:
    usual = np.random.default_rng(1).poisson(3, (12, 84)).astype(float)
    alone = forecast_level_calendar(panel_of(usual))
    both = forecast_level_calendar(panel_of(np.vstack([usual, odd])))
    assert np.isfinite(both.mean).all()
    assert np.isfinite(both.quantiles).all()
    np.testing.assert_allclose(both.mean[:12].sum(axis=1), alone.mean.sum(axis=1), rtol=0.02)  # the week's pattern may move a little


def test_negative_or_missing_units_and_series_given_twice_are_refused_by_name() -> None:
    units = np.ones((3, 30))
    units[1, 4] = -2
    with pytest.raises(ValueError, match="below zero or missing, as of s1"):
        panel_of(units)
    with pytest.raises(ValueError, match="below zero or missing, as of s1"):
        panel_of(np.where(units < 0, np.nan, units))
    twice = panel_of(np.ones((2, 30))).series.with_columns(series_id=pl.lit("same"))
    with pytest.raises(ValueError, match="appear twice, add them up first: same"):
        panel_of(np.ones((2, 30)), series=twice)


def test_increments_of_one_item_and_day_add_up_whenever_they_land() -> None:
    """Rows of one item and day are parts of one series, not series of their own."""
    whole = lived_shop()["item_days"]
    half = whole["units_sold"] // 2
    parts = pl.concat([whole.with_columns(units_sold=part) for part in (half, whole["units_sold"] - half)])
    day = FIRST + timedelta(days=77)
    assert_frame_equal(issued([day], shop()), issued([day], shop(), {**lived_shop(), "item_days": parts}))


@pytest.mark.parametrize("name", ["level_calendar", "panel", "croston_sba", "ar", "seasonal_naive"])
def test_two_items_with_the_same_sales_get_the_same_forecast_and_gaps_are_zeros(name: str) -> None:
    generator = np.random.default_rng(11)
    units = generator.poisson(generator.lognormal(0.5, 1, (20, 1)), (20, 126)).astype(float)
    units[3, 30:90] = 0  # a gap
    units = np.vstack([units, units[:4]])
    panel = panel_of(units, 14)
    model, _ = fit_demand(panel, ("panel",), 1, 1, np.ones(24, dtype=bool))
    forecast = forecast_with(name, panel, fit_levels(panel), Scoring(model.panel or NO_MODEL, 1))
    np.testing.assert_allclose(forecast.mean[:4], forecast.mean[20:], rtol=1e-9)
    np.testing.assert_array_equal(forecast.quantiles[:4], forecast.quantiles[20:])


@pytest.mark.parametrize("methods", ["plain", "learned"])
def test_items_that_behave_oddly_do_not_spoil_the_others_from_landing_to_table(methods: str) -> None:
    """Short, constant, sold once, all returned, with a huge order: each is issued or left out, and the others hardly move."""
    days = [FIRST + timedelta(days=number) for number in range(90)]
    zeros = dict.fromkeys(("orders", "views", "carts", "reviews", "ratings", "rating_total"), 0)

    def sold(item: str, day: date, units: int, returned: int = 0) -> dict[str, Any]:
        return {"landed_date": day, "event_date": day, "item_id": item, "units_sold": units, "units_returned": returned,
                "revenue": units - returned, "gross_revenue": units, **zeros}  # fmt: skip

    odd = [
        *(sold("short", day, 3) for day in days[-2:]), *(sold("constant", day, 2) for day in days if day.weekday() != 6), sold("once", days[10], 1),
        *(sold("returned", day, 0, 4) for day in days[40:50]), *(sold("bulk", day, 5000 if day == days[80] else 1) for day in days[::3]),
    ]  # fmt: skip
    store = shop(methods, forecasting={"history_days": 89, "fit_cadence_days": 84, "horizon_days": 8})
    frames = lived_shop()
    both = {**frames, "item_days": pl.concat([frames["item_days"], conform("item_days", odd)])}
    usual, mixed = (issued([days[84]], store, each).filter(pl.col("level") == "item") for each in (frames, both))
    names = set(mixed["item_id"]) - set(usual["item_id"])
    assert names == {"constant", "once", "bulk"}, "nothing was ever sold of 'returned'; 'short' starts later"
    steady = mixed.filter(pl.col("item_id") == "constant", pl.col("date").dt.weekday() != 7)
    assert steady["demand_mean"].is_between(1.2, 3.0).all()
    joined = usual.join(mixed, on=["series_id", "date"], suffix="_mixed").group_by("series_id").agg(pl.col("demand_mean", "demand_mean_mixed").sum())
    assert joined.height == usual["series_id"].n_unique()
    assert ((joined["demand_mean_mixed"] / joined["demand_mean"]).log().abs() < 0.1).all()


# --- drivers ----------------------------------------------------------------------------------------------------------


def driven(seed: int = 0) -> Panel:
    """40 items of 20 units a day; every item is on promotion (x 1.6) and has its price changed (elasticity -2) at times of its own."""
    generator = np.random.default_rng(seed)
    promotion = (generator.random((40, 154)) < 0.15).astype(float)
    price = 10 * np.exp(generator.normal(0, 0.1, (40, 154)))
    mean = 20 * 1.6**promotion * (price / 10) ** -2.0
    units = generator.poisson(mean).astype(float)
    return panel_of(units[:, :140], 14, drivers={"promotion": promotion, "price": price})


def test_effects_of_promotion_and_price_are_found() -> None:
    panel = driven()
    effects = fit_levels(panel).effects
    found = dict(zip(effects.names, effects.pooled, strict=True))
    assert found["promotion"] == pytest.approx(np.log(1.6), abs=0.05)
    assert found["price"] == pytest.approx(-2.0, abs=0.1)
    on, off = (forecast_level_calendar(panel).mean[panel.drivers["promotion"][:, 140:] == flag].mean() for flag in (1, 0))
    assert on / off == pytest.approx(1.6, rel=0.12)


def test_a_weekday_that_promotions_prefer_is_no_better_day_by_itself() -> None:
    """Mondays to Wednesdays of every second week, half as much again; else every weekday is like any other."""
    days = np.arange(154)
    promotion = np.where((days % 7 < 3) & (days // 7 % 2 == 0), 1.0, 0.0) * np.ones((10, 1))
    units = np.random.default_rng(5).poisson(20 * np.where(promotion > 0, 1.5, 1.0)).astype(float)
    panel = panel_of(units[:, :140], 14, start=date(2026, 1, 5), drivers={"promotion": promotion})
    levels = fit_levels(panel)
    assert float(np.exp(levels.effects.pooled[0])) == pytest.approx(1.5, rel=0.03)
    assert levels.shape[-7:] == pytest.approx(np.ones(7), abs=0.04)
    assert level_forecast(panel, levels).mean.mean(axis=0) == pytest.approx(np.where(promotion[0, 140:] > 0, 30.0, 20.0), rel=0.08)


def raw_drivers(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """raw_item_drivers, as landed: everything is text."""
    frame = pl.DataFrame([{key: str(value) for key, value in row.items()} for row in rows])
    return frame.with_columns(
        landed_date=pl.col("landed_date").str.to_date(), raw_row_id=pl.int_range(pl.len()).cast(pl.String), source_file=pl.lit("f"),
        source_row=pl.lit(1),
    )  # fmt: skip


def promoted_shop(known: str = "2026-01-05") -> dict[str, pl.DataFrame]:
    """12 items sold twice as much on promotion, every fifth day; the plan of the days ahead is known from the first day on."""
    generator = np.random.default_rng(3)
    sold, drivers = [], []
    for number in range(110):
        day = FIRST + timedelta(days=number)
        for item in range(12):
            is_on = (number + item) % 5 == 0
            drivers.append({"landed_date": known, "item_id": f"i{item}", "date": day, "known_at": f"{known} 08:00:00", "is_promotion": is_on})
            if number < 90:
                units = int(generator.poisson(30 if is_on else 15))
                sold.append({"landed_date": day, "event_date": day, "item_id": f"i{item}", "units_sold": units, "revenue": units,
                             "gross_revenue": units})  # fmt: skip
    zeros = dict.fromkeys(("units_returned", "orders", "views", "carts", "reviews", "ratings", "rating_total"), 0)
    return {"item_days": conform("item_days", [{**row, **zeros} for row in sold]), "raw_item_drivers": raw_drivers(drivers)}


def test_promotions_known_in_advance_move_the_forecast_and_those_learnt_later_do_not() -> None:
    store = shop(sources=("events", "item_drivers"))
    day = FIRST + timedelta(days=77)
    rows = issued([day], store, promoted_shop()).filter(pl.col("level") == "item", pl.col("item_id") == "i0", pl.col("horizon_days") <= 14)
    is_on = (rows["date"] - FIRST).dt.total_days() % 5 == 0
    assert rows.filter(is_on)["demand_mean"].mean() > 1.6 * rows.filter(~is_on)["demand_mean"].mean()  # type: ignore[operator]
    late = issued([day], store, promoted_shop("2026-04-01")).filter(pl.col("level") == "item", pl.col("item_id") == "i0")
    assert late["demand_mean"].max() < 1.2 * late["demand_mean"].min()  # type: ignore[operator]


def test_a_promotion_told_by_its_first_and_last_day_is_one_of_each_of_its_days() -> None:
    day, frames = FIRST + timedelta(days=77), promoted_shop()
    ranged = [
        {"landed_date": "2026-01-05", "item_id": "i0", "date": first, "known_at": "2026-01-05 08:00:00", "is_promotion": True, "end_date": last}
        for first, last in ((FIRST + timedelta(days=80), FIRST + timedelta(days=83)), (FIRST + timedelta(days=85), ""))
    ]  # fmt: skip
    frames["raw_item_drivers"] = raw_drivers(ranged)
    mapped = dict.fromkeys(("item_id", "date", "known_at", "is_promotion", "end_date"), "x")
    store = shop().model_copy(update={"sources": {"item_drivers": SourceBlock(files="d{date}.csv", columns=mapped)}})
    panel = DemandHistory(reader_until(day, store, frames), [day], store, 28).panel(day)
    on = np.flatnonzero(np.nan_to_num(panel.drivers["promotion"][0]))
    assert [panel.start + timedelta(days=int(place)) for place in on] == [FIRST + timedelta(days=after) for after in (80, 81, 82, 83, 85)]


def test_a_price_told_when_it_changes_is_one_of_every_day_until_the_next() -> None:
    day, frames = FIRST + timedelta(days=77), promoted_shop()
    changes = [(-800, "2026-01-05", 10), (70, "2026-01-05", 12), (85, "2026-01-06", 9), (60, "2026-02-01", 11), (80, "2026-03-31", 1)]
    frames["raw_item_drivers"] = raw_drivers([
        {"landed_date": landed, "item_id": "i0", "date": FIRST + timedelta(days=after), "known_at": f"{landed} 08:00:00", "unit_price": paid,
         "end_date": "9999-12-31"}
        for after, landed, paid in changes
    ])  # fmt: skip
    mapped = dict.fromkeys(("item_id", "date", "known_at", "unit_price", "end_date"), "x")
    store = shop().model_copy(update={"sources": {"item_drivers": SourceBlock(files="d{date}.csv", columns=mapped)}})
    for issues in ([day], [day - timedelta(days=72), day]):
        panel = DemandHistory(reader_until(day, store, frames), issues, store, 28).panel(day)
        prices = panel.drivers["price"]
        after = np.arange(prices.shape[1]) + (panel.start - FIRST).days
        assert prices[0].tolist() == np.select([after >= 85, after >= 70, after >= 60], [9.0, 12.0, 11.0], 10.0).tolist()
        assert np.isnan(prices[1:]).all()
    early = DemandHistory(reader_until(day, store, frames), issues, store, 28).panel(issues[0])
    assert set(early.drivers["price"][0].tolist()) == {10.0}


def test_a_place_told_to_be_open_on_a_holiday_of_the_shop_is_forecast_as_open() -> None:
    """All twelve places keep two holidays; eleven also those after, one lies where nobody does. Guards chains over several regions."""
    week = np.array([4.0, 4, 4, 4, 4, 4, 2])
    units, closed = np.tile(week, (12, 12)), np.full((12, 91), np.nan)
    holidays = [17, 45, 73, 87]
    is_holiday = np.isin(np.arange(91), holidays)
    closed[:, holidays] = 1
    closed[11, holidays[2:]] = 0
    units[:11, holidays[:-1]] = units[11, holidays[:2]] = 0
    blocked = (np.nan_to_num(closed[:, :84]) > 0) & (units == 0)
    forecast = forecast_level_calendar(panel_of(units, drivers={"closed": closed}, is_holiday=is_holiday, is_blocked=blocked))
    assert (forecast.mean[:11, 3] == 0).all()
    assert forecast.mean[11] == pytest.approx(week, rel=0.1)
    untold = {"closed": np.where(np.arange(91) == 87, np.nan, closed)}
    forecast = forecast_level_calendar(panel_of(units, drivers=untold, is_holiday=is_holiday, is_blocked=blocked))
    assert forecast.mean[11, 3] < 3


def test_a_long_silence_of_a_steady_series_is_no_demand() -> None:
    """Rows: rebuilt for 30 days; a pause of ten; rare sales; gone; two sales far apart; closed by announcement, then and until now."""
    units = np.zeros((7, 100))
    units[0] = np.arange(100) % 7 < 6
    units[0, 40:70] = 0
    units[1], units[1, 40:50] = 1, 0
    units[2, ::9] = 1
    units[3, :60] = 1
    units[4, [20, 80]] = 1
    units[5], units[5, 40:70] = 1, 0
    units[6, :60] = 1
    blocked = np.zeros((7, 100), dtype=bool)
    blocked[5, 40:65] = blocked[6, 60:] = True
    past, lasting = silences(units, blocked)
    assert past.sum(axis=1).tolist() == [30, 0, 0, 0, 0, 0, 0]
    assert past[0, 40:70].all()
    assert lasting.sum(axis=1).tolist() == [0, 0, 0, 40, 0, 0, 0]
    assert lasting[3, 60:].all()


def test_a_silence_that_lasts_teaches_nothing_but_is_forecast_as_it_is() -> None:
    units = np.tile([3.0, 4, 5, 6, 7, 8, 9], (12, 40))
    units[:3, 200:] = 0
    panel = panel_of(units, horizon=28)
    newest = origin_columns(panel)[0]
    found = Origins(panel).at(newest)
    assert np.isnan(found.truth[np.isin(found.rows, [0, 1, 2])]).all()
    assert np.isfinite(found.truth[found.rows > 2]).all()
    before = Origins(panel).at(160)
    assert np.isfinite(before.truth).all()  # what it sold until then, it teaches
    assert (forecast_level_calendar(panel).mean[:3, :7] < [1, 2, 2, 2, 2, 2, 3]).all()


def test_what_an_issue_sees_of_openings_and_silences() -> None:
    """One place sends nothing for 20 days; another is told to be open on one day and closed on the next, of other days nothing is said."""
    day = FIRST + timedelta(days=69)
    sold = [
        {"landed_date": FIRST + timedelta(days=number), "event_date": FIRST + timedelta(days=number), "item_id": "i", "location_id": place,
         "units_sold": 5, "revenue": 5, "gross_revenue": 5,
         **dict.fromkeys(("units_returned", "orders", "views", "carts", "reviews", "ratings", "rating_total"), 0)}
        for number in range(70) for place in ("north", "south") if place == "south" or not 30 <= number < 50
    ]  # fmt: skip
    drivers = [{"landed_date": FIRST, "item_id": "i", "location_id": "south", "date": day + timedelta(days=ahead), "known_at": f"{FIRST} 08:00:00",
                "is_available": is_open} for ahead, is_open in ((1, True), (2, False))]  # fmt: skip
    frames = {"item_days": conform("item_days", sold), "raw_item_drivers": raw_drivers(drivers)}
    store = shop(sources=("events", "item_drivers"))
    panel = DemandHistory(reader_until(day, store, frames), [day], store, 28).panel(day)
    assert panel.series["location_id"].to_list() == ["north", "south"]
    assert np.flatnonzero(panel.is_blocked[0]).tolist() == list(range(30, 50))
    assert not panel.is_blocked[1].any()
    assert panel.drivers["closed"][1, 70:72].tolist() == [0, 1]
    assert np.isfinite(panel.drivers["closed"]).sum() == 2


@pytest.mark.parametrize("spoken", [True, False])
def test_a_silent_place_is_forecast_from_the_day_it_is_told_to_open_again(spoken: bool) -> None:
    """Three places; north is silent for 30 days and told to open on the fourth day ahead. Not where it was told to be open all the while."""
    day = FIRST + timedelta(days=79)
    sold = [
        {"landed_date": FIRST + timedelta(days=number), "event_date": FIRST + timedelta(days=number), "item_id": "i", "location_id": place,
         "units_sold": 5, "revenue": 5, "gross_revenue": 5,
         **dict.fromkeys(("units_returned", "orders", "views", "carts", "reviews", "ratings", "rating_total"), 0)}
        for number in range(80) for place in ("north", "south", "west") if place != "north" or number < 50
    ]  # fmt: skip
    told = [day + timedelta(days=ahead) for ahead in ((4, 5, -10) if spoken else (4, 5))]
    drivers = [{"landed_date": FIRST, "item_id": "i", "location_id": "north", "date": each, "known_at": f"{FIRST} 08:00:00", "is_available": True}
               for each in told]  # fmt: skip
    frames = {"item_days": conform("item_days", sold), "raw_item_drivers": raw_drivers(drivers)}
    store = shop(sources=("events", "item_drivers"))
    panel = DemandHistory(reader_until(day, store, frames), [day], store, 28).panel(day)
    mean = forecast_level_calendar(panel).mean[0]
    if spoken:
        assert mean.max() < 2.5
    else:
        assert (mean[:3] == 0).all()
        assert mean[3:] == pytest.approx(np.full(25, 5.0), rel=0.1)


def test_the_shops_own_numbers_of_days_reach_the_panel_as_known_then_and_teach_the_model() -> None:
    """School holidays raise sales by half; the last are announced late. The newest word counts, unless it is none."""
    generator = np.random.default_rng(5)
    days = days_between(FIRST, FIRST + timedelta(days=199))
    school = np.array([(day - FIRST).days // 10 % 3 == 2 for day in days])
    sold = [
        {"landed_date": day, "event_date": day, "item_id": f"i{item}", "units_sold": units, "revenue": units, "gross_revenue": units,
         **dict.fromkeys(("units_returned", "orders", "views", "carts", "reviews", "ratings", "rating_total"), 0)}
        for day, is_school in zip(days, school, strict=True) for item in range(30)
        if (units := int(generator.poisson(30 if is_school else 20)))
    ]  # fmt: skip
    market = [{"landed_date": FIRST, "date": day, "known_at": f"{FIRST} 08:00:00", "further": json.dumps({"school": str(flag).lower(), "fair": ""})}
              for day, flag in zip(days, school, strict=True)]  # fmt: skip
    day = days[169]
    later = days[172]
    market += [
        {"landed_date": day, "date": later, "known_at": f"{day} 09:00:00", "further": '{"school":"0.5"}'},
        {"landed_date": day, "date": later, "known_at": f"{day} 10:00:00", "further": '{"school":null}'},
        {"landed_date": day + timedelta(days=1), "date": later, "known_at": f"{day} 11:00:00", "further": '{"school":"9"}'},
    ]
    frames = {"item_days": conform("item_days", sold), "raw_market_days": raw_drivers(market)}
    store = shop("learned", sources=("events", "market_days"), forecasting={"history_days": 400})
    panel = DemandHistory(reader_until(days[-1], store, frames), [day], store, 28).panel(day)
    assert set(panel.drivers) == {"market_school"}
    expected = school[: panel.known + 28].astype(float)
    expected[172] = 0.5
    assert (panel.drivers["market_school"] == expected).all()
    model, _ = fit_demand(panel, ("panel", "level_calendar"), 1, 2, np.ones(30, dtype=bool))
    forecast, _ = model.forecast(panel, 2)
    ahead = expected[panel.known :]
    assert forecast.mean[:, ahead == 1].mean() / forecast.mean[:, ahead == 0].mean() == pytest.approx(1.5, abs=0.12)


def trade(days: Sequence[date], odd: Mapping[date, float], noise: float = 0.02) -> Floats:
    """(12, len(days)) units: more on Saturdays, none on Sundays, `odd` times as many on some days."""
    generator = np.random.default_rng(3)
    week = np.array([100.0, 100, 100, 100, 120, 150, 0])
    factor = np.array([week[day.weekday()] * odd.get(day, 1.0) for day in days])
    units: Floats = np.round(factor * np.exp(noise * generator.standard_normal(len(days))) * np.linspace(0.5, 2, 12)[:, None])
    return units


@pytest.mark.parametrize(
    ("end", "holidays", "odd", "expected"),
    [
        # Christmas Eve and New Year's Eve are half days, the shop stays closed on 27 December; 22 December was a Sunday a year ago
        (date(2024, 12, 15), [date(2023, 12, 25), date(2024, 1, 1), date(2024, 12, 25), date(2025, 1, 1)],
         {date(2023, 12, 23): 1.5, date(2023, 12, 27): 0.0, date(2023, 12, 30): 0.5},
         {date(2024, 12, 23): 1.5, date(2024, 12, 27): 0.0, date(2024, 12, 30): 0.5, date(2024, 12, 24): 1.0, date(2024, 12, 18): 1.0}),
        # the Saturday before Easter: 8 April 2023, 30 March 2024
        (date(2024, 3, 20), [date(2023, 4, 7), date(2023, 4, 10), date(2024, 3, 29), date(2024, 4, 1)],
         {date(2023, 4, 8): 1.8}, {date(2024, 3, 30): 1.8, date(2024, 4, 8): 1.0}),
        # the Friday after Thanksgiving: 24 November 2023, 29 November 2024
        (date(2024, 11, 20), [date(2023, 11, 23), date(2024, 11, 28)],
         {date(2023, 11, 24): 3.0}, {date(2024, 11, 29): 3.0, date(2024, 11, 22): 1.0}),
        # what is odd with no holiday near is not expected again
        (date(2024, 6, 1), [date(2023, 12, 25)], {date(2023, 6, 14): 2.0}, {date(2024, 6, 14): 1.0}),
    ],
)  # fmt: skip
def test_days_around_a_holiday_go_as_around_the_same_one_a_year_ago(
    end: date, holidays: list[date], odd: dict[date, float], expected: dict[date, float]
) -> None:
    days = days_between(end - timedelta(days=419), end + timedelta(days=28))
    is_holiday = np.isin(days, holidays)
    units = trade(days, {**odd, **dict.fromkeys(holidays, 0.0)})[:, :420]
    panel = panel_of(units, horizon=28, start=days[0], is_holiday=is_holiday)
    totals = units.sum(axis=0)
    shape = day_shape(panel)
    factor = around_holidays(panel, totals, shape[:420])
    for day, share in expected.items():
        assert factor[(day - end).days - 1] == pytest.approx(share, rel=0.15), day
    ahead = forecast_level_calendar(panel).mean[5] / forecast_level_calendar(replace(panel, is_holiday=np.zeros_like(is_holiday))).mean[5]
    for day, share in expected.items():
        if share != 1:
            assert ahead[(day - end).days - 1] == pytest.approx(share, rel=0.2), day
    # told to be open on all days, none is taken for closed
    opened = replace(panel, drivers={"closed": np.zeros((12, 448))})
    assert (around_holidays(opened, totals, shape[:420]) > 0).all()
    # where usual days differ as much, it is no news
    noisy = trade(days, {}, noise=0.8)[:, :420].sum(axis=0)
    assert np.isin(around_holidays(panel, noisy, shape[:420]), [0, 1]).mean() > 0.9


def test_the_learned_mean_leaves_days_alone_that_a_year_ago_tells_of() -> None:
    """Half of the trade two days before a holiday, a year ago and again; fairs raise it by half on other days, which is learnt."""
    generator = np.random.default_rng(4)
    days = days_between(date(2025, 1, 6), date(2025, 1, 6) + timedelta(days=449))
    holidays = [date(2025, 3, 20), date(2026, 3, 20)]
    fair = generator.random(450) < 0.2
    odd = np.isin(days, [day - timedelta(days=2) for day in holidays])
    fair[odd] = False
    expected = 40 * np.where(fair, 1.5, 1.0) * np.where(odd, 0.5, 1.0) * ~np.isin(days, holidays)
    units = generator.poisson(expected, (30, 450)).astype(float)
    drivers = {"market_fair": np.broadcast_to(fair.astype(float), (30, 450))}
    panel = panel_of(units[:, :422], horizon=28, start=days[0], is_holiday=np.isin(days, holidays), drivers=drivers)
    model, _ = fit_demand(panel, ("panel",), 1, 2, np.ones(30, dtype=bool))
    assert model.panel is not None
    levels = fit_levels(panel)
    moved = forecast_panel(panel, model.panel, 2, levels).mean / np.maximum(levels.level[:, None] * levels.worth[:, 422:], 1e-9)
    assert levels.around[odd[422:]] == pytest.approx([0.5], rel=0.3)
    assert moved[:, odd[422:]] == pytest.approx(1.0, abs=1e-5)
    assert moved[:, fair[422:]].mean() == pytest.approx(1.4, abs=0.12)


def test_a_panel_model_that_is_behind_is_given_an_allowance_but_must_beat_the_baseline() -> None:
    panel = weekly_panel()
    origins, scoring = Origins(panel), Scoring(NO_MODEL, 1)
    columns, names = origin_columns(panel)[:2], ("panel", "level_calendar")
    # a panel model of nothing is level x calendar: a draw, which the default wins
    assert set(compete(origins, columns, names, scoring).winners.values()) == {"level_calendar"}
    assert set(compete(origins, columns, names, scoring, 0.03).winners.values()) == {"panel"}
    # one that is worse than the seasonal naive gets none, and leaves its place to what is better
    bad = Scoring(replace(NO_MODEL, mix=(20 * np.array(NO_MODEL.mix)).tolist()), 1)
    found = compete(origins, columns, names, bad, 50.0)
    assert all(found.added[group]["panel"] < 0 < found.added[group]["level_calendar"] for group in found.winners)
    assert set(found.winners.values()) == {"level_calendar"}


def test_one_odd_window_does_not_say_no_to_the_model_of_the_log() -> None:
    """Fairs keep customers away in the weeks that are kept to choose on, and bring them at every other time."""
    generator = np.random.default_rng(7)
    fair = generator.random(448) < 0.3
    mean = np.where(fair, 90.0, 60.0)
    columns = origin_columns(panel_of(np.ones((1, 420)), 28))
    kept = next(column for column in columns if column <= columns[2] - 28)
    odd = slice(kept, kept + 28)
    mean[odd] = np.where(fair, 40.0, 60.0)[odd]
    units = generator.poisson(mean, (40, 448)).astype(float)
    panel = panel_of(units[:, :420], 28, drivers={"market_fair": np.broadcast_to(fair.astype(float), (40, 448))})
    model, _ = fit_demand(panel, ("panel",), 1, 2, np.ones(40, dtype=bool))
    assert model.panel is not None
    assert model.panel.mean is not None
    ahead = model.forecast(panel, 2)[0].mean
    assert ahead[:, fair[420:]].mean() > 1.3 * ahead[:, ~fair[420:]].mean()


@pytest.mark.parametrize("level", [2.0, 60.0])
def test_what_held_in_one_window_and_not_since_is_not_learnt(level: float) -> None:
    """Fairs brought customers until the contest's first origin; whether the mean is a Tweedie one or of the log, later origins say no."""
    generator = np.random.default_rng(9)
    fair = generator.random(420) < 0.3
    columns = origin_columns(panel_of(np.ones((1, 420)), 28))
    contested, known = columns[:3], [column for column in columns if column <= columns[2] - 28]
    mean = level * np.where(fair, np.where(np.arange(420) < contested[-1], 2.0, 0.4), 1.0)
    panel = panel_of(generator.poisson(mean, (40, 420)), 28, drivers={"market_fair": np.tile(np.pad(fair, (0, 28)).astype(float), (40, 1))})
    given = Origins(panel), known[1:], np.ones(40, dtype=bool), 1, 2, known[:1]
    unasked, asked = fit_panel_model(*given), fit_panel_model(*given, contested)
    assert unasked is not None
    assert asked is not None
    assert unasked.mean is not None
    assert asked.mean is None


def test_a_log_with_nothing_to_learn_is_not_learnt() -> None:
    units = np.random.default_rng(8).poisson(60, (40, 420)).astype(float)
    model, _ = fit_demand(panel_of(units, 28), ("panel",), 1, 2, np.ones(40, dtype=bool))
    assert model.panel is None or model.panel.mean is None


def test_where_every_day_sells_the_model_of_the_log_needs_no_other_to_do_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Tweedie model of a few rows found nothing; fairs are there to be learnt all the same."""
    generator = np.random.default_rng(6)
    fair = generator.random(448) < 0.3
    units = generator.poisson(np.where(fair, 90, 60), (40, 448)).astype(float)
    panel = panel_of(units[:, :420], horizon=28, drivers={"market_fair": np.broadcast_to(fair.astype(float), (40, 448))})
    boost = learned._boost
    monkeypatch.setattr(learned, "_boost", lambda *given: (None, 0) if given[3] == "mean" else boost(*given))
    model, _ = fit_demand(panel, ("panel",), 1, 2, np.ones(40, dtype=bool))
    assert model.panel is not None
    assert model.panel.mean is not None
    mean = model.forecast(panel, 2)[0].mean
    assert mean[:, fair[420:]].mean() > 1.3 * mean[:, ~fair[420:]].mean()  # nothing learnt is 1, all of it 1.5


def test_a_shop_of_one_day_does_not_know_the_next_one_exactly() -> None:
    """One day differs from itself by nothing: the band was once as narrow as that."""
    mean, low, high = shop_bands(panel_of(np.full((50, 1), 4.0), horizon=28))
    assert mean == pytest.approx(np.full(28, 200.0), rel=0.01)
    assert low == pytest.approx(mean - 1.28 * np.sqrt(mean), abs=1) and high == pytest.approx(mean + 1.28 * np.sqrt(mean), abs=1)


def test_a_young_shop_does_not_expect_of_what_never_sold_what_the_rest_sells() -> None:
    """A week of a shop where people look at five hundred items and buy forty of them: it once expected sales of all of them."""
    generator = np.random.default_rng(4)
    units = np.zeros((500, 8))
    units[:40] = generator.poisson(0.4, (40, 8))
    first_seen = generator.integers(0, 3, 500)
    panel = panel_of(units, horizon=28, first_seen=first_seen)
    daily = forecast_level_calendar(panel).mean.sum() / 28
    assert daily == pytest.approx(units[:, 2:].sum() / 6, rel=0.3)
    assert forecast_level_calendar(replace(panel, first_seen=None)).mean.sum() / 28 > 5 * daily
    # an item sold once counts its days on offer before
    once = np.eye(21)
    assert fit_levels(panel_of(once, first_seen=np.zeros(21, dtype=np.int64))).level == pytest.approx(np.full(21, 1 / 21), rel=0.05)
    assert fit_levels(panel_of(once)).level.mean() > 2 / 21
    # unless it was listed long before it could be had: three a day for a week, after five of nothing
    launched = np.concatenate([np.full((20, 42), 2.0), np.concatenate([np.zeros((20, 35)), np.full((20, 7), 3.0)], axis=1)])
    assert fit_levels(panel_of(launched, first_seen=np.zeros(40, dtype=np.int64))).level[20:].min() > 2.4


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_an_item_nothing_was_sold_of_is_expected_to_sell_as_the_ones_before_it_did(share: float) -> None:
    generator = np.random.default_rng(6)
    old, lately, fresh = generator.poisson(3.0, (100, 140)), generator.poisson(3.0, (60, 140)), np.zeros((50, 140))
    lately[:, :100] = 0
    lately[int(60 * share) :] = 0
    first_seen = np.concatenate([np.zeros(100), np.full(60, 100), np.full(50, 140)]).astype(np.int64)
    levels = fit_levels(panel_of(np.vstack([old, lately, fresh]), horizon=28, first_seen=first_seen))
    assert levels.level[160:].mean() == pytest.approx(3.0 * share, rel=0.1)
    assert np.median(levels.ratios[160:, 6]) == pytest.approx(3.0 * share, abs=0.5)
    assert levels.level[:100].mean() == pytest.approx(3.0, rel=0.05)


def test_days_on_offer_are_those_of_the_catalogue_where_a_series_has_no_place_of_its_own() -> None:
    frames = dict(lived_shop())
    day = FIRST + timedelta(days=60)
    store = shop()
    later = frames["items"].with_columns(first_seen_date=pl.lit(FIRST + timedelta(days=5)))
    panel = DemandHistory(reader_until(day, store, {**frames, "items": later}), [day], store, 28).panel(day)
    assert panel.first_seen is not None
    expected = [5 if place is None else panel.known for place in panel.series["location_id"]]
    assert panel.first_seen.tolist() == expected and len(set(expected)) == 2
    assert (panel.rows([1, 0]).begins == panel.begins[[1, 0]]).all()


def shop_bands(panel: Panel) -> tuple[Floats, Floats, Floats]:
    """Mean, 10 % and 90 % quantile of the shop on each day ahead."""
    levels = fit_levels(panel)
    rows = issue_rows(panel.end, panel, levels, forecast_level_calendar(panel, levels), pl.Series(["x"] * panel.count))
    rows = rows.filter(pl.col("level") == "shop").sort("date")
    mean, low, high = (rows[name].to_numpy() for name in ("demand_mean", "demand_p10", "demand_p90"))
    return mean, low, high


def test_what_the_shop_spreads_by_is_not_what_its_places_are_told_to_do() -> None:
    """Forty places, one of them open on Sundays, a promotion every other week: each day's band is about as wide as chance makes it."""
    generator = np.random.default_rng(2)
    days = np.arange(252 + 28)
    is_on = (days // 7 % 2 == 0).astype(float)
    is_open = np.where(days % 7 == 6, (np.arange(40) == 0)[:, None], True)
    expected = np.where(is_open, 200 * (1 + 0.6 * is_on) * generator.lognormal(0, 0.3, (40, 1)), 0.0)
    units = np.round(expected * generator.normal(1, 0.1, (1, 280)).clip(0.5) * generator.normal(1, 0.05, (40, 280)))
    drivers = {"promotion": np.broadcast_to(is_on, (40, 280)), "closed": np.where(is_open, 0.0, 1.0)}
    panel = panel_of(units[:, :252], horizon=28, drivers=drivers, is_blocked=~is_open[:, :252])
    mean, low, high = shop_bands(panel)
    truth = units[:, 252:].sum(axis=0)
    assert ((low <= truth) & (truth <= high)).mean() > 0.6
    width = (high - low) / mean
    assert width == pytest.approx(np.full(28, 2 * 1.2816 * 0.1), rel=0.5)


def test_the_band_of_a_sum_widens_ahead_where_its_level_wanders_and_not_where_it_stays() -> None:
    generator = np.random.default_rng(7)
    noise = generator.normal(1, 0.05, (10, 400))
    level = {"stays": np.ones(400), "wanders": np.exp(np.cumsum(generator.normal(0, 0.03, 400)))}
    width = {}
    for name, factor in level.items():
        mean, low, high = shop_bands(panel_of(np.round(300 * noise * factor), horizon=28))
        width[name] = (high - low) / mean
    assert width["wanders"][-7:].mean() > 1.4 * width["wanders"][:7].mean()
    assert width["stays"][-7:].mean() < 1.2 * width["stays"][:7].mean()
    assert width["stays"].mean() < 0.1


def test_days_announced_as_not_available_are_forecast_as_closed() -> None:
    units = np.full((12, 84), 4.0)
    closed = np.zeros((12, 91))
    closed[0, 85] = 1
    forecast = forecast_level_calendar(panel_of(units, drivers={"closed": closed}))
    assert forecast.mean[0, 1] == 0
    assert (forecast.mean[1:] > 3).all()


# --- candidates -------------------------------------------------------------------------------------------------------


def weekly_panel() -> Panel:
    generator = np.random.default_rng(5)
    week = np.array([1.0, 1.2, 1.1, 1.0, 1.6, 2.0, 0.4])
    level = generator.lognormal(1.5, 0.7, (60, 1))
    units = generator.poisson(level * week[np.arange(168) % 7]).astype(float)
    return panel_of(units, 14)


def test_the_winner_is_used_where_it_beats_the_seasonal_naive_and_model_says_so() -> None:
    panel = weekly_panel()
    model, contest = fit_demand(panel, ("panel", "level_calendar", "croston_sba", "ar"), 1, 1, np.ones(60, dtype=bool))
    for group, added in contest.added.items():
        assert added["seasonal_naive"] == 0
        assert added[contest.winners[group]] == max(added.values())
    forecast, used = model.forecast(panel, 1)
    assert set(used.tolist()) <= set(contest.winners.values())
    assert (np.diff(forecast.quantiles, axis=2) >= 0).all()
    again = DemandModel.from_text(model.as_text()).forecast(panel, 1)[0]
    np.testing.assert_array_equal(forecast.mean, again.mean)


def test_a_young_shop_is_not_handed_to_the_baseline_for_want_of_rivals() -> None:
    """One origin is complete and the panel model cannot be fitted yet: the seasonal naive would have met itself alone."""
    panel = weekly_panel()
    young = panel_of(panel.units[:, :70], 14)
    model, contest = fit_demand(young, ("panel", "seasonal_naive"), 1, 1, np.ones(60, dtype=bool))
    assert model.panel is None and contest.added
    assert set(model.winners.values()) == {"level_calendar"}


@pytest.mark.parametrize(("held_out", "is_promoted"), [(0, True), (5, False)])
def test_the_first_contest_does_not_pass_over_held_out_series(held_out: int, is_promoted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model without a contest behind it gives way unseen only where no held-out series can say whether the new one is better."""
    from marketing_assets.forecasting import fits
    from marketing_assets.model_store import ModelHistory, compare

    store, panel = shop("learned"), weekly_panel()
    models = ModelHistory(reader_over({}, store, FIRST), FIRST)
    models_of_days = iter([DemandModel({}, None), DemandModel({"steady": "seasonal_naive"}, None)])
    monkeypatch.setattr(fits, "fit_demand", lambda *args: (next(models_of_days), fits.Contest({}, {})))
    monkeypatch.setattr(fits, "_verdict", lambda *args: compare([2.0] * held_out, [1.0] * held_out, seed=1))
    for day in (FIRST, FIRST + timedelta(days=1)):
        fits._fit(models, panel, day, "cadence", store)
    assert [model.is_promoted for model in models.models] == [True, is_promoted]


def test_where_nothing_beats_the_seasonal_naive_it_is_used() -> None:
    units = np.tile(np.array([9.0, 0, 3, 7, 1, 0, 4]), (12, 24))
    units[::2] = np.roll(units[::2], 3, axis=1)  # every series repeats its own week exactly
    panel = panel_of(units, 14)
    contest = compete(Origins(panel), origin_columns(panel)[:3], ("croston_sba",), Scoring(None, 1))
    assert set(contest.winners.values()) == {"seasonal_naive"}


def test_one_odd_season_does_not_hand_a_group_to_the_seasonal_naive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors ten times those of other seasons, where the naive is ahead by a fifth: it is behind by half in the two others."""
    panel = panel_of(np.random.default_rng(4).poisson(20, (30, 300)), 28)
    columns = origin_columns(panel)[:3]
    scripted = dict(zip(columns, ((1.0, 0.5), (10.0, 12.0), (1.0, 0.5)), strict=True))

    def found(past: Panel, truth: Any, name: str, levels: Any) -> competition.Losses:
        error = np.full(past.count, scripted[past.known][name != "seasonal_naive"])
        return competition.Losses(error, error, np.ones(past.count))

    monkeypatch.setattr(competition, "forecast_with", lambda name, *given: name)
    monkeypatch.setattr(competition, "losses", found)
    contest = compete(Origins(panel), columns, ("level_calendar",), Scoring(None, 1))
    assert contest.winners == {"steady": "level_calendar"}
    assert contest.added["steady"]["level_calendar"] == pytest.approx(1 - (0.5 + 1.2 + 0.5) / 3, abs=1e-6)


def test_views_ahead_of_sales_are_seen_by_the_features_and_sales_alone_still_do() -> None:

    panel = weekly_panel()
    views = np.ones(panel.units.shape)
    views[0, -7:] = 8.0
    seen = replace(panel, signals={"views": views})
    column = feature_names(seen).index("views_trend_7_28")
    found = matrix_of(seen, fit_levels(seen)).of_series[:, column]
    assert found[0] == pytest.approx(8.0 / ((21 + 56) / 28), rel=1e-5)
    np.testing.assert_allclose(found[1:], 1.0)
    assert np.isnan(matrix_of(panel, fit_levels(panel)).of_series[:, column]).all()


def test_views_and_carts_of_an_item_are_read_for_each_of_its_places() -> None:
    day = FIRST + timedelta(days=77)
    panel = DemandHistory(reader_until(day, shop()), [day], shop(), 28).panel(day)
    rows = [row for row, item in enumerate(panel.series["item_id"]) if item == "i04"]
    assert len(rows) == 2
    views = lived_shop()["item_days"].filter(pl.col("item_id") == "i04", pl.col("landed_date") <= day)["views"].sum()
    assert panel.signals["views"][rows].sum(axis=1).tolist() == [views, views]


def test_the_panel_learns_which_rates_to_believe() -> None:
    """Levels jump every few weeks: the newest weeks say more than the longer mean, and the learnt levels find that out."""
    from marketing_assets.forecasting.learned_levels import fit_levels_model, windows_of

    generator = np.random.default_rng(8)
    levels = np.repeat(generator.lognormal(1.5, 1.0, (150, 9)), 28, axis=1)
    panel = panel_of(generator.poisson(levels[:, :238]).astype(float), 14)
    origins, columns = Origins(panel), origin_columns(panel)
    everyone = np.ones(150, dtype=bool)
    learnt, held = windows_of(origins, columns[3:], everyone), windows_of(origins, columns[:2], everyone)
    assert learnt is not None
    assert held is not None
    model = fit_levels_model(learnt, 1, 1)
    moved = model.moved(held.level, held.rates, held.features, 1)
    assert (held.errors(moved) * held.weight).sum() < 0.95 * (held.errors(held.level) * held.weight).sum()
    again = type(model).from_text(model.as_text()).moved(held.level, held.rates, held.features, 1)
    np.testing.assert_array_equal(moved, again)


def test_a_shop_that_grows_or_has_its_season_is_forecast_to_go_on() -> None:
    generator = np.random.default_rng(9)
    day = np.arange(420 + 28)
    seasonal = generator.poisson(6 * np.exp(0.8 * np.sin(2 * np.pi * day / 364)), (30, len(day))).astype(float)
    growing = generator.poisson(6 * np.exp(0.012 * day[:140]), (30, 140)).astype(float)
    for units in (seasonal, growing):
        known = units.shape[1] - 28
        forecast = forecast_level_calendar(panel_of(units[:, :known], 28)).mean.sum()
        recent, truth = units[:, known - 28 : known].sum(), units[:, known:].sum()
        assert abs(forecast - truth) < 0.6 * abs(recent - truth)
    steady = panel_of(generator.poisson(6, (30, 112)).astype(float), 28)
    assert forecast_level_calendar(steady).mean.sum() == pytest.approx(30 * 6 * 28, rel=0.04)


def test_an_unknown_candidate_is_an_error_that_says_what_to_do() -> None:
    panel = weekly_panel()
    for name, words in (("prophecy", "give one of"), ("no.such.Forecaster", "import path"), ("pathlib.Path", "no sktime forecaster")):
        with pytest.raises(UnknownForecaster, match=words):
            forecast_with(name, panel, fit_levels(panel), Scoring(None, 1))


def test_any_sktime_forecaster_can_be_a_candidate() -> None:
    panel = weekly_panel().rows([0, 1, 2])
    forecast = forecast_with("sktime.forecasting.naive.NaiveForecaster", panel, fit_levels(panel), Scoring(None, 1))
    assert np.isfinite(forecast.mean).all()
    assert forecast.mean.shape == (3, 14)


def test_croston_agrees_with_a_plain_loop() -> None:
    generator = np.random.default_rng(2)
    units = generator.poisson(0.4, (3, 60)) * generator.integers(1, 5, (3, 60)).astype(float)
    panel = panel_of(units)
    levels = fit_levels(panel)
    forecast = forecast_croston_sba(panel, replace(levels, worth=np.ones_like(levels.worth)))
    for row in range(3):
        size = interval = since = None
        for value in units[row]:
            if value > 0:
                size, interval = (value, 1.0) if size is None else (size + 0.1 * (value - size), interval + 0.1 * (since - interval))
                since = 1
            elif size is not None:
                since += 1
        assert forecast.mean[row, 0] == pytest.approx(0.95 * size / interval, rel=1e-5)


@pytest.mark.parametrize("name", ["seasonal_naive", "level_calendar", "croston_sba", "ar", "panel"])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_no_candidate_forecasts_nonsense(name: str, data: st.DataObject) -> None:
    seed, days = data.draw(st.integers(0, 10_000)), data.draw(st.integers(1, 120))
    generator = np.random.default_rng(seed)
    units = generator.poisson(generator.choice([0.0, 0.05, 1, 30], (9, 1)), (9, days)).astype(float)
    panel = panel_of(units, 10, is_blocked=generator.random((9, days)) < 0.1)
    forecast = forecast_with(name, panel, fit_levels(panel), Scoring(NO_MODEL, 1))
    for values in (forecast.mean, forecast.quantiles):
        assert np.isfinite(values).all()
        assert (values >= 0).all()
    assert (np.diff(forecast.quantiles, axis=2) >= 0).all()


@pytest.mark.parametrize("kind", [LevelCalendarForecaster, PanelForecaster, ClassicForecaster])
def test_ours_behave_like_sktime_forecasters(kind: Any) -> None:
    """The quick part of sktime's own checks; all of them take some minutes: check_estimator(LevelCalendarForecaster)."""
    from sktime.utils.estimator_checks import check_estimator

    wanted = ["test_constructor", "test_fit_idempotent", "test_predict_quantiles", "test_get_test_params", "test_class_has_doctest_example"]
    found = check_estimator(kind, raise_exceptions=False, tests_to_run=wanted, verbose=False)
    assert found
    assert {name: result for name, result in found.items() if result != "PASSED"} == {}


def test_classics_say_the_same_through_sktime() -> None:
    """A panel in pandas is forecast as the candidate of the contest forecasts it."""
    units = np.random.default_rng(5).poisson(np.array([4.0, 0.4])[:, None], (2, 120)).astype(float)
    index = pd.MultiIndex.from_product([["a", "b"], pd.date_range("2000-01-03", periods=120)])
    frame = pd.DataFrame({"units": units.ravel()}, index=index)
    panel = panel_of(units, horizon=14)
    for name, plainly in {"seasonal_naive": forecast_seasonal_naive, "croston_sba": forecast_croston_sba, "ar": forecast_ar}.items():
        forecast = plainly(panel)
        fitted = ClassicForecaster(name).fit(frame, fh=range(1, 15))
        np.testing.assert_allclose(fitted.predict().to_numpy().reshape(2, 14), forecast.mean, atol=1e-6)
        quantiles = fitted.predict_quantiles(alpha=[0.1, 0.5, 0.9]).to_numpy().reshape(2, 14, 3)
        np.testing.assert_allclose(quantiles, forecast.quantiles[:, :, np.isin(LEVELS, [0.1, 0.5, 0.9])], atol=1e-6)


# --- young and old items ----------------------------------------------------------------------------------------------


def test_a_new_item_is_forecast_like_its_category_and_price() -> None:
    units = np.random.default_rng(0).poisson(np.r_[np.full(8, 2.0), np.full(8, 20.0), 0, 0][:, None], (18, 84)).astype(float)
    series = panel_of(units).series.with_columns(
        category=pl.Series(["a"] * 8 + ["b"] * 8 + ["a", "b"]), unit_price=pl.lit(5.0)
    )  # fmt: skip
    forecast = forecast_level_calendar(panel_of(units, series=series))
    assert forecast.mean[16].mean() == pytest.approx(2.0, rel=0.2)
    assert forecast.mean[17].mean() == pytest.approx(20.0, rel=0.2)


def test_an_ended_item_is_left_out_and_a_seasonal_one_returns() -> None:
    units = np.zeros((3, 400))
    units[0, 100:110] = 5  # ended
    units[1, 30:60] = 5  # last year at this time
    units[2, -3] = 1  # alive
    assert alive(units, 28).tolist() == [False, True, True]


def test_stock_that_ran_out_is_read_from_the_items_log() -> None:
    frames = dict(lived_shop())
    day = FIRST + timedelta(days=63)
    rows = [
        {"as_of_date": FIRST + timedelta(days=number), "item_id": "i11", "stock_on_hand": stock, "has_list_price": True,
         "first_seen_date": FIRST, "is_service": False}
        for number, stock in ((0, 9), (28, 9), (40, 0), (50, 9), (56, 9))
    ]  # fmt: skip
    frames["items"] = conform("items", rows)
    panel = DemandHistory(reader_until(day, shop(), frames), [day], shop(), 28).panel(day)
    row = panel.series["item_id"].to_list().index("i11")
    assert np.flatnonzero(panel.is_blocked[row]).tolist() == list(range(41, 50))


def test_where_stock_is_told_by_place_one_that_ran_out_sold_nothing() -> None:
    frames, day = dict(lived_shop()), FIRST + timedelta(days=63)
    is_ours = pl.col("item_id") == "i11"
    north = frames["item_days"].with_columns(location_id=pl.when(is_ours).then(pl.lit("north")).otherwise("location_id"))
    frames["item_days"] = pl.concat([north, north.filter(is_ours).with_columns(location_id=pl.lit("south"))])
    places = (("north", 9, 0, 9, 9), ("south", 9, 9, 9, 0))
    frames["items"] = conform("items", [
        {"as_of_date": FIRST + timedelta(days=number), "item_id": "i11", "stock_on_hand": 9, "has_list_price": True, "first_seen_date": FIRST,
         "is_service": False,
         "stock_by_location": json.dumps([{"location_id": name, "stock_on_hand": stock[turn], "stock_on_order": None} for name, *stock in places])}
        for turn, number in enumerate((0, 40, 50, 56))
    ])  # fmt: skip
    panel = DemandHistory(reader_until(day, shop(), frames), [day], shop(), 28).panel(day)
    ours = panel.series.with_row_index("place").filter(item_id="i11").sort("location_id")["place"].to_list()
    assert [np.flatnonzero(panel.is_blocked[place]).tolist() for place in ours] == [list(range(41, 50)), list(range(57, 64))]


def test_every_input_of_a_known_driver_is_a_column_of_the_contract() -> None:
    from marketing_assets.forecasting.drivers import SERIES_DRIVERS

    assert set(SERIES_DRIVERS) <= set(INPUTS["item_drivers"].columns)


def test_in_a_shops_first_weeks_few_days_do_not_speak_for_themselves() -> None:
    """Sold out after its only day of sales, an item does not sell as much every day: nobody older is there to draw it to."""
    units = np.zeros((12, 8))
    units[:, 4:] = np.random.default_rng(5).poisson(0.5, (12, 4))
    units[:, 4] = np.maximum(units[:, 4], 1)
    units[0] = [0, 0, 0, 0, 9, 0, 0, 0]
    blocked = np.zeros((12, 8), dtype=bool)
    blocked[0, 5:8] = True
    levels = fit_levels(panel_of(units, is_blocked=blocked))
    usual = units[1:, 4:].mean()
    assert usual < levels.level[0] < 9 / 3
    assert abs(levels.level[1:].mean() / usual - 1) < 0.6


def test_own_weeks_are_followed_where_series_differ_and_chance_is_not() -> None:
    rng = np.random.default_rng(5)
    sunday = np.arange(224) % 7 == 6
    alike = rng.poisson(2.0, (40, 224)).astype(np.float64)
    week = fit_own_week(panel_of(alike))
    assert np.abs(week - 1).max() < 0.2
    assert week.std() < 0.05
    differing = np.where(sunday & (np.arange(40) < 20)[:, None], rng.poisson(6.0, (40, 224)), alike)
    week = fit_own_week(panel_of(differing))
    # of 18 a week 6 come on a Sunday, or 2 of 14; the shop has 4 of 16, drawn a little to flat
    usual = 2**SHAPE_POWER / (6 + 2**SHAPE_POWER)
    np.testing.assert_allclose([week[:20, 6].mean(), week[20:, 6].mean()], [6 / 18 / usual, 2 / 14 / usual], rtol=0.08)
    assert week[:, :6].std() < 0.1


def fit_own_week(panel: Panel) -> Any:
    """Of a shop open every day."""
    shape = np.broadcast_to(day_shape(panel)[: panel.known], panel.units.shape)
    return own_week(panel, shape, panel.units, np.ones(panel.units.shape, dtype=bool))


def test_an_item_long_sold_out_keeps_the_level_it_had_before() -> None:
    """Half a year without stock, then two odd days: they alone are not its level. Guards series that reopen just before an issue."""
    units = np.full((20, 300), 10.0)
    is_blocked = np.zeros(units.shape, dtype=bool)
    is_blocked[0, 110:298] = True
    units[0, 110:298], units[0, 298:] = 0.0, 2.0
    levels = fit_levels(panel_of(units, is_blocked=is_blocked))
    # 7 and 28 days are looked at in place of 28 and 112, two of them odd
    assert levels.level[0] == pytest.approx(((5 * 10 + 2 * 2) / 7 + (26 * 10 + 2 * 2) / 28) / 2, rel=0.02)
    np.testing.assert_allclose(levels.level[1:], 10.0, rtol=0.02)


def test_feasts_that_move_with_easter_and_dates_that_stay_find_their_like_in_years_before() -> None:
    days = [date(2026, 4, 5), date(2026, 2, 16), date(2026, 12, 24), date(2024, 2, 29)]
    assert days_from_easter(days).tolist()[:2] == [0.0, -48.0]
    found = {name: [[date.fromordinal(each) if each else None for each in row] for row in values] for name, values in years_before(days, 2).items()}
    assert found["feast"][0] == [date(2025, 4, 20), date(2024, 3, 31)]
    assert found["feast"][1] == [date(2025, 3, 3), date(2024, 2, 12)]
    assert found["feast"][2] == [None, None]
    assert found["date"][2] == [date(2025, 12, 24), date(2024, 12, 24)]
    assert found["date"][3] == [date(2023, 3, 1), date(2022, 3, 1)]


def test_what_a_series_did_on_a_feast_a_year_before_is_seen() -> None:
    """Carnival Monday halves the sales of one series and of no other: Easter tells the day, the year before tells the series."""
    start = date(2024, 2, 1)
    units = np.full((12, 740), 20.0)
    carnival = (date(2025, 3, 3) - start).days
    units[0, carnival] = 10.0
    panel = panel_of(units, 14, start)
    assert panel.end < date(2026, 2, 16) <= panel.end + timedelta(days=14)
    step = (date(2026, 2, 16) - panel.end).days - 1
    rows = matrix_of(panel, fit_levels(panel)).rows(np.array([0, 0, 1]), np.array([step, step - 1, step]))
    column = feature_names(panel).index("same_feast_oddity")
    # 2024's carnival lies too close to the start to be odd or not: it counts as usual, so that half of the log is left
    assert rows[0, column] == pytest.approx(np.log(0.5) / 2, abs=0.05)
    assert np.abs(rows[1:, column]).max() < 0.05
    short = panel.until(300, 14)
    assert np.isnan(matrix_of(short, fit_levels(short)).rows(np.array([0]), np.array([0]))[0, column])


def test_where_every_day_sells_much_the_log_is_learnt_and_beats_the_start() -> None:
    """The day after a promotion is weak, which level x calendar cannot say."""
    generator = np.random.default_rng(5)
    count, whole = 60, 420
    promotion = np.repeat(generator.random((count, whole // 7)) < 0.4, 7, axis=1).astype(float)
    after = np.pad(promotion[:, :-1] > promotion[:, 1:], ((0, 0), (1, 0)))
    mean = generator.lognormal(6, 0.5, (count, 1)) * np.exp(0.5 * promotion - 0.8 * after)
    truth = mean * np.exp(generator.normal(0, 0.05, mean.shape))
    known = whole - 28
    panel = panel_of(truth[:, :known], 28, drivers={"promotion": promotion})
    model, _ = fit_demand(panel, ["panel", "level_calendar"], 1, 1, np.ones(count, dtype=bool))
    assert model.panel is not None
    assert model.panel.is_much
    assert model.panel.lift == pytest.approx(1.0, abs=0.01)
    again = DemandModel.from_text(model.as_text())
    forecast = again.forecast(panel, 1)[0].mean
    start = forecast_level_calendar(panel).mean
    assert np.square(forecast / truth[:, known:] - 1).mean() < 0.5 * np.square(start / truth[:, known:] - 1).mean()
    assert forecast.sum() == pytest.approx(truth[:, known:].sum(), rel=0.05)


def test_a_promotion_of_a_year_ago_is_not_expected_again() -> None:
    """A price cut lifted the weeks after this day a year ago; none is known for this year, so that the shop goes on as it does."""
    generator = np.random.default_rng(12)
    known, horizon = 420, 28
    price = np.full((30, known + horizon), 10.0)
    for first in (known - 364, 200, 300):
        price[:, first : first + 14] = 7.0
    expected = 20 * (price / 10.0) ** -3
    panel = panel_of(generator.poisson(expected[:, :known]).astype(float), horizon, drivers={"price": price})
    assert forecast_level_calendar(panel).mean.sum() == pytest.approx(30 * 20 * horizon, rel=0.04)
