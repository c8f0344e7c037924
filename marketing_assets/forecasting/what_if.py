"""Forecasts that are asked for, not issued: under other prices and promotions, or over another horizon.

What belongs here: replacing drivers of the days ahead and forecasting both ways; other horizons. What does not: choosing prices.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl

from marketing_assets.config import Store
from marketing_assets.forecasting.build import horizon_of
from marketing_assets.forecasting.drivers import SERIES_DRIVERS
from marketing_assets.forecasting.fits import DEMAND, DemandModel
from marketing_assets.forecasting.history import DemandHistory
from marketing_assets.forecasting.panel import Integers, Panel
from marketing_assets.warehouse import Reader, days_between


class WhatIfError(Exception):
    """Drivers that cannot be tried: unknown columns, unknown series or days outside the horizon."""


def what_if(reader: Reader, day: date, store: Store, drivers: pl.DataFrame) -> pl.DataFrame:
    """Forecasts as of the end of `day`, as known and with `drivers` in place.

    drivers: item_id, date and any of unit_price, is_promotion, planned_ad_spend (null: as known); location_id where the data has
    one (null: everywhere). Returns one row per series named and day ahead: series_id, item_id, location_id, date, demand_mean,
    demand_mean_before. Raises WhatIfError naming what is wrong. Nothing is written.
    """
    panel = DemandHistory(reader, [day], store, horizon_of(store)).panel(day)
    model = _in_force(reader, day, store)
    changed, rows = with_drivers(panel, drivers)
    before, _ = model.forecast(panel, store.threads)
    after, _ = model.forecast(changed, store.threads)
    place = np.repeat(rows, panel.horizon)
    days = pl.Series(days_between(panel.end + timedelta(days=1), panel.end + timedelta(days=panel.horizon)))
    return panel.series[place].select("series_id", "item_id", "location_id").with_columns(
        date=days[np.tile(np.arange(panel.horizon), len(rows))],
        demand_mean=pl.Series(after.mean[rows].ravel()), demand_mean_before=pl.Series(before.mean[rows].ravel()),
    )  # fmt: skip


def units_ahead(reader: Reader, day: date, store: Store, horizon_days: int) -> list[float]:
    """Units the shop is expected to sell on each of `horizon_days` days after `day`, forecast as of its end. Nothing is written."""
    panel = DemandHistory(reader, [day], store, horizon_days).panel(day)
    forecast, _ = _in_force(reader, day, store).forecast(panel, store.threads)
    return [float(units) for units in forecast.mean.sum(axis=0)]


def _in_force(reader: Reader, day: date, store: Store) -> DemandModel:
    stored = reader.fitted(DEMAND, day) if store.methods == "learned" else None
    return DemandModel({}, None) if stored is None else DemandModel.from_text(stored.model)


def with_drivers(panel: Panel, drivers: pl.DataFrame) -> tuple[Panel, Integers]:
    """The panel with other drivers on days ahead, and the rows of the series they name."""
    unknown = sorted(set(drivers.columns) - {"item_id", "location_id", "date", *SERIES_DRIVERS})
    if unknown or not {"item_id", "date"} <= set(drivers.columns):
        raise WhatIfError(f"what_if: columns must be item_id, date and any of location_id, {', '.join(SERIES_DRIVERS)}; found {drivers.columns}")
    given = drivers if "location_id" in drivers.columns else drivers.with_columns(location_id=pl.lit(None, pl.String))
    strange = sorted(set(given["item_id"]) - set(panel.series["item_id"]))
    if strange:
        raise WhatIfError(f"what_if: not forecast on this day: {', '.join(strange[:5])}")
    ahead = (given["date"] - panel.end).dt.total_days()
    if not ahead.is_between(1, panel.horizon).all():
        raise WhatIfError(f"what_if: days must lie within {panel.horizon} days after {panel.end}")
    series = panel.series.with_row_index("row").select("row", "item_id", "location_id")
    joined = given.with_columns(ahead=ahead).join(series, on="item_id", suffix="_of_series")
    joined = joined.filter(pl.col("location_id").is_null() | pl.col("location_id").eq_missing(pl.col("location_id_of_series")))
    rows, column = joined["row"].to_numpy().astype(np.int64), panel.known - 1 + joined["ahead"].to_numpy()
    changed = dict(panel.drivers)
    for name, driver in SERIES_DRIVERS.items():
        if name not in joined.columns:
            continue
        if driver not in changed:
            raise WhatIfError(f"what_if: the shop's history has no {name}, so what it does to demand is unknown")
        values = joined[name].cast(pl.Float64).to_numpy()
        told = ~np.isnan(values)
        changed[driver] = changed[driver].copy()
        changed[driver][rows[told], column[told]] = values[told]
    return replace(panel, drivers=changed), np.unique(rows)
