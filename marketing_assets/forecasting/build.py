"""demand_forecasts for a window of days.

What belongs here: on which days forecasts are issued and putting the table together. What does not: how a series is forecast.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import date

import polars as pl

from marketing_assets.config import Store
from marketing_assets.forecasting.fits import DEMAND, DemandModel, fit_window
from marketing_assets.forecasting.history import DemandHistory
from marketing_assets.forecasting.level_calendar import fit_levels
from marketing_assets.forecasting.panel import Panel
from marketing_assets.forecasting.rows import issue_rows
from marketing_assets.model_store import fit_days
from marketing_assets.parallel import in_threads
from marketing_assets.warehouse import Built, FittedModel, MissingPartitions, Reader, polars_schema

TABLE = "demand_forecasts"


def horizon_of(store: Store) -> int:
    """Days ahead of every issue: as set, and never less than until the next issue."""
    return max(store.forecasting.horizon_days, store.forecasting.cadence_days)


def build_demand(reader: Reader, days: Sequence[date], store: Store) -> Built:
    """demand_forecasts issued on the days of a contiguous window.

    Issue days are the store's first day, days of cadence_days, and days on which models refit. An issue reads item_days,
    item_drivers and market_days of forecasting.history_days up to it, and the items log back to the keyframe before those.
    """
    if not reader.has_source("events"):
        return Built({TABLE: pl.DataFrame(schema=polars_schema(TABLE))}, degraded={TABLE: "needs source 'events'"})
    fits = fit_days(reader, days, store, TABLE, store.forecasting.fit_cadence_days)
    # forecasts go on being issued where learning is stopped, so that none runs out
    issues = [day for day in days if day in fits or store.is_cadence_day(day, store.forecasting.cadence_days)]
    frames: list[pl.DataFrame] = [pl.DataFrame(schema=polars_schema(TABLE))]
    metrics: dict[date, dict[str, float]] = {}
    models: Sequence[FittedModel] = ()
    if issues:
        history = DemandHistory(reader, issues, store, horizon_of(store))
        fitted = None
        if store.methods == "learned":
            fitted = fit_window(reader, fits, days, store, history)
            models = fitted.models

        def asked() -> Iterator[tuple[date, Panel, DemandModel]]:
            in_force, version = DemandModel({}, None), ""
            for issue in issues:
                if fitted is not None:
                    stored = fitted.in_force(DEMAND, issue)
                    if stored is None:
                        raise MissingPartitions(f"{DEMAND}: no fit at or before {issue}; build the partitions from the store's first day on")
                    if stored.model_version != version:
                        in_force, version = DemandModel.from_text(stored.model), stored.model_version
                yield issue, history.panel(issue), in_force

        def answered(question: tuple[date, Panel, DemandModel]) -> tuple[pl.DataFrame, dict[str, float]]:
            issue, panel, in_force = question
            started = time.thread_time()
            levels = fit_levels(panel)
            forecast, used = in_force.forecast(panel, store.threads if len(issues) == 1 else 1, levels)
            rows = issue_rows(issue, panel, levels, forecast, pl.Series(used.tolist(), dtype=pl.String))
            return rows, {
                "series": float(panel.count), "units_expected": round(float(forecast.mean.sum()), 4),
                "scoring_seconds": time.thread_time() - started,
            }  # fmt: skip

        for issue, (rows, numbers) in zip(issues, in_threads(answered, asked(), store.threads), strict=True):
            frames.append(rows)
            metrics[issue] = numbers
    return Built({TABLE: pl.concat(frames)}, models=models, metrics={TABLE: metrics})
