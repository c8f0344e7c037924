"""Demand forecasts: coherent, monotone, the same day by day, blind to the future; calendars, stock-outs and odd series."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from marketing_assets.config import Store
from marketing_assets.forecasting import build_demand
from marketing_assets.forecasting.calendar import day_shape, public_holidays
from marketing_assets.forecasting.history import series_name
from marketing_assets.forecasting.level_calendar import capped, forecast_level_calendar, weighted_quantiles
from marketing_assets.forecasting.panel import LEVELS, Panel
from marketing_assets.schemas import INPUTS, QUANTILE_COLUMNS, TABLES
from marketing_assets.warehouse import Built, Reader, days_between, polars_schema, reader_over

FIRST = date(2026, 1, 5)
"""A Monday."""
QUANTILES = list(QUANTILE_COLUMNS.values())


def shop(methods: str = "plain", sources: tuple[str, ...] = ("events",), **settings: Any) -> Store:
    return Store.model_validate(
        {
            "name": "shop",
            "timezone": "UTC",
            "currency": "EUR",
            "first_day": FIRST,
            "methods": methods,
            "threads": 1,
            "sources": {name: {"rows": [{}]} for name in sources},
            **settings,
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
    values, weights = generator.poisson(2, (5, 40)).astype(float), generator.random((5, 40))
    found = weighted_quantiles(values, [weights])[0]
    for row in range(5):
        pairs = sorted(zip(values[row], weights[row], strict=True))
        for column, level in enumerate(LEVELS):
            reached = 0.0
            for value, weight in pairs:
                reached += weight
                if reached >= level * weights[row].sum():
                    break
            assert found[row, column] == value


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


def test_every_input_of_a_known_driver_is_a_column_of_the_contract() -> None:
    from marketing_assets.forecasting.drivers import SERIES_DRIVERS

    assert set(SERIES_DRIVERS) <= set(INPUTS["item_drivers"].columns)
