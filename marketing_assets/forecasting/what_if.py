"""Forecasts that are asked for, not issued: under other prices and promotions, or over another horizon.

What belongs here: reading what is to be tried, replacing drivers of the days ahead and forecasting both ways, in units and in money;
other horizons. What does not: choosing prices.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from marketing_assets.config import Store
from marketing_assets.forecasting.build import horizon_of
from marketing_assets.forecasting.competition import BASELINE
from marketing_assets.forecasting.drivers import SERIES_DRIVERS
from marketing_assets.forecasting.fits import DEMAND, DemandModel
from marketing_assets.forecasting.history import DemandHistory
from marketing_assets.forecasting.level_calendar import fit_levels
from marketing_assets.forecasting.panel import Floats, Integers, Panel
from marketing_assets.forecasting.responses import drawn_responses
from marketing_assets.warehouse import Reader, days_between


class WhatIfError(Exception):
    """Drivers that cannot be tried: unknown columns, unknown series or days outside the horizon, or a file that cannot be read."""


_READ = {
    "date": pl.col("date").str.to_date("%Y-%m-%d", strict=False),
    "end_date": pl.col("end_date").str.to_date("%Y-%m-%d", strict=False),
    "unit_price": pl.col("unit_price").cast(pl.Float64, strict=False).replace([np.nan], None),
    "planned_ad_spend": pl.col("planned_ad_spend").cast(pl.Float64, strict=False).replace([np.nan], None),
    "is_promotion": pl.col("is_promotion").str.to_lowercase().replace_strict(
        {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}, default=None, return_dtype=pl.Boolean
    ),
}  # fmt: skip
DRAWS = 400
"""Draws of what drivers do."""
INTERVAL = (0.05, 0.95)
_LEAST = {"unit_price": 0.01, "planned_ad_spend": 0.0}


def read_drivers(given: Path | bytes, source: str) -> pl.DataFrame:
    """Rows of a CSV of drivers to try, a row per item and day: item_id, date and any of end_date (the row holds up to it), location_id,
    unit_price, is_promotion, planned_ad_spend; empty: as known. Raises WhatIfError naming `source` and line."""
    try:
        rows = pl.read_csv(given, infer_schema=False).with_row_index("line", offset=2)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise WhatIfError(f"{source}: cannot be read as CSV: {error}") from error
    _check_columns(rows.drop("line", "end_date", strict=False), source)
    for name, read in _READ.items():
        if name not in rows.columns:
            continue
        found = rows.with_columns(value=read)
        wrong = found.filter(pl.col(name).is_not_null() & (pl.col("value").is_null() | (pl.col("value") < _LEAST[name] if name in _LEAST else False)))
        if wrong.height:
            raise WhatIfError(f"{source}: line {wrong['line'][0]}: {name} {wrong[name][0]!r} cannot be used")
        rows = rows.with_columns(read)
    lacking = rows.filter(pl.col("item_id").is_null() | pl.col("date").is_null())
    if lacking.height:
        raise WhatIfError(f"{source}: line {lacking['line'][0]} lacks item_id or date")
    if "end_date" in rows.columns:
        rows = rows.with_columns(pl.col("end_date").fill_null(pl.col("date")))
        backwards = rows.filter(pl.col("end_date") < pl.col("date"))
        if backwards.height:
            raise WhatIfError(f"{source}: line {backwards['line'][0]} ends before it begins")
        rows = rows.with_columns(date=pl.date_ranges("date", "end_date")).explode("date").drop("end_date")
    return rows.drop("line")


def what_if(reader: Reader, day: date, store: Store, drivers: pl.DataFrame) -> pl.DataFrame:
    """Forecasts as of the end of `day`, as known and with `drivers` in place.

    drivers: item_id, date and any of unit_price, is_promotion, planned_ad_spend (null: as known); location_id where the data has
    one (null: everywhere); of rows of one day the last counts. Returns one row per series named and day ahead: series_id, item_id,
    location_id, date, demand_mean, demand_mean_before, demand_drawn (DRAWS values of demand_mean, as far as it is open what drivers
    do; the same draw in all rows is the same shop), unit_price, unit_price_before (null: unknown). Raises WhatIfError naming what is
    wrong. Nothing is written.
    """
    panel = DemandHistory(reader, [day], store, horizon_of(store)).panel(day)
    model = _in_force(reader, day, store)
    levels = fit_levels(panel)
    changed, rows = with_drivers(panel, drivers, set(levels.effects.columns))
    levels_after = fit_levels(changed)
    before, names = model.forecast(panel, store.threads, levels)
    after, _ = model.forecast(changed, store.threads, levels_after)
    drawn = drawn_responses(levels, levels_after, rows, DRAWS, store.seed)
    drawn[names[rows] == BASELINE] = 1.0  # it does not look at drivers
    drawn *= after.mean[rows][:, :, None]
    place = np.repeat(rows, panel.horizon)
    days = pl.Series(days_between(panel.end + timedelta(days=1), panel.end + timedelta(days=panel.horizon)))
    return panel.series[place].select("series_id", "item_id", "location_id").with_columns(
        date=days[np.tile(np.arange(panel.horizon), len(rows))],
        demand_mean=pl.Series(after.mean[rows].ravel()), demand_mean_before=pl.Series(before.mean[rows].ravel()),
        demand_drawn=pl.Series(drawn.reshape(-1, DRAWS)),
        unit_price=_prices_ahead(changed)[rows].ravel(), unit_price_before=_prices_ahead(panel)[rows].ravel(),
    ).with_columns(pl.col("unit_price", "unit_price_before").fill_nan(None))  # fmt: skip


def _prices_ahead(panel: Panel) -> Floats:
    """(n, horizon) price of each day ahead: told, else as the items have it; nan where neither is known."""
    listed = np.repeat(panel.series["unit_price"].cast(pl.Float64).fill_null(np.nan).to_numpy()[:, None], panel.horizon, axis=1)
    told = panel.drivers["price"][:, panel.known :] if "price" in panel.drivers else np.full(listed.shape, np.nan)
    return np.where(np.isnan(told), listed, told)


def in_money(reader: Reader, day: date, found: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, float | None]]:
    """What `what_if` found, a row per item, and over all of them: units, revenue and margin (revenue less unit_cost) over the horizon.

    The rows have item_id and title. Each figure is as tried, with _low and _high the ends of its 90 % interval, and with _before as
    known; null or None where a price or cost is not known. The interval says how far it is open what drivers do, not what chance does.
    """
    costs = reader.log_as_of("items", day, ["item_id", "title", "unit_cost"]).with_columns(pl.col("unit_cost").cast(pl.Float64))
    rows = found.join(costs, on="item_id", how="left", maintain_order="left").sort("item_id", maintain_order=True)
    items = rows.select("item_id", pl.coalesce("title", "item_id").alias("title")).unique("item_id", keep="first", maintain_order=True)
    starts = rows["item_id"].search_sorted(items["item_id"]).to_numpy()
    units, units_before, drawn = (rows[f"demand_{name}"].to_numpy() for name in ("mean", "mean_before", "drawn"))
    price, price_before, cost = (rows[name].fill_null(np.nan).to_numpy() for name in ("unit_price", "unit_price_before", "unit_cost"))
    one = np.ones(rows.height)
    total: dict[str, float | None] = {}
    for name, worth, worth_before in (("units", one, one), ("revenue", price, price_before), ("margin", price - cost, price_before - cost)):
        tried = np.add.reduceat(units * worth, starts), np.add.reduceat(drawn * worth[:, None], starts)
        before = np.add.reduceat(units_before * worth_before, starts)
        of_items = {name: tried[0], **_interval(name, tried[1]), f"{name}_before": before}
        of_all = {name: tried[0].sum(), **_interval(name, tried[1].sum(axis=0)), f"{name}_before": before.sum()}
        items = items.with_columns(pl.Series(key, values).fill_nan(None) for key, values in of_items.items())
        total |= {key: None if np.isnan(value) else float(value) for key, value in of_all.items()}
    return items, total


def _interval(name: str, drawn: Floats) -> dict[str, Floats]:
    low, high = np.quantile(drawn, INTERVAL, axis=-1)
    return {f"{name}_low": low, f"{name}_high": high}


def units_ahead(reader: Reader, day: date, store: Store, horizon_days: int) -> list[float]:
    """Units the shop is expected to sell on each of `horizon_days` days after `day`, forecast as of its end. Nothing is written."""
    panel = DemandHistory(reader, [day], store, horizon_days).panel(day)
    forecast, _ = _in_force(reader, day, store).forecast(panel, store.threads)
    return [float(units) for units in forecast.mean.sum(axis=0)]


def _in_force(reader: Reader, day: date, store: Store) -> DemandModel:
    stored = reader.fitted(DEMAND, day) if store.methods == "learned" else None
    return DemandModel({}, None) if stored is None else DemandModel.from_text(stored.model)


def with_drivers(panel: Panel, drivers: pl.DataFrame, known: set[str]) -> tuple[Panel, Integers]:
    """The panel with other drivers on days ahead, and the rows of the series they name. known: drivers whose effect the past tells."""
    _check_columns(drivers, "what_if")
    given = drivers if "location_id" in drivers.columns else drivers.with_columns(location_id=pl.lit(None, pl.String))
    strange = sorted(set(given["item_id"]) - set(panel.series["item_id"]))
    if strange:
        raise WhatIfError(f"what_if: not forecast on this day: {', '.join(strange[:5])}")
    ahead = (given["date"] - panel.end).dt.total_days()
    if not ahead.is_between(1, panel.horizon).all():
        raise WhatIfError(f"what_if: days must lie within {panel.horizon} days after {panel.end}")
    series = panel.series.with_row_index("row").select("row", "item_id", "location_id")
    joined = given.with_columns(ahead=ahead).join(series, on="item_id", suffix="_of_series", maintain_order="left")
    joined = joined.filter(pl.col("location_id").is_null() | pl.col("location_id").eq_missing(pl.col("location_id_of_series")))
    nowhere = given.filter(pl.col("location_id").is_not_null()).join(series, on=["item_id", "location_id"], how="anti")
    if nowhere.height:
        raise WhatIfError(f"what_if: {nowhere['item_id'][0]} is not forecast in {nowhere['location_id'][0]}")
    rows, column = joined["row"].to_numpy().astype(np.int64), panel.known - 1 + joined["ahead"].to_numpy()
    changed = dict(panel.drivers)
    for name, driver in SERIES_DRIVERS.items():
        if name not in joined.columns:
            continue
        if driver not in changed or driver not in known:
            raise WhatIfError(f"what_if: the shop's history has no {name} that moved, so what it does to demand is unknown")
        values = joined[name].cast(pl.Float64).to_numpy()
        told = ~np.isnan(values)
        changed[driver] = changed[driver].copy()
        changed[driver][rows[told], column[told]] = values[told]
    return replace(panel, drivers=changed), np.unique(rows)


def _check_columns(drivers: pl.DataFrame, source: str) -> None:
    unknown = sorted(set(drivers.columns) - {"item_id", "location_id", "date", *SERIES_DRIVERS})
    if unknown or not {"item_id", "date"} <= set(drivers.columns):
        raise WhatIfError(
            f"{source}: columns must be item_id, date and any of end_date, location_id, {', '.join(SERIES_DRIVERS)}; "
            f"found {', '.join(drivers.columns)}"
        )
