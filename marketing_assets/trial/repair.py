"""The drift sensor's part outside Dagster: from a day's verdicts to requests, and the run that follows them.

What belongs here: what trials and the drift benchmark need to close the loop without a daemon. What does not: the verdict
(drift/), what it asks for (control.py), what a request does (model_store.py), the sensor itself (orchestration/sensors.py).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time

import polars as pl

from marketing_assets.control import Verdict, request_verdict
from marketing_assets.pipeline import steps_to_remake
from marketing_assets.running import run_step
from marketing_assets.warehouse import Reader, Warehouse

Tell = Callable[[str], None]


def verdicts_of(reader: Reader, day: date) -> list[Verdict]:
    """The verdicts of a day, in order of their ids."""
    rows = reader.window("drift_report", day, day).filter(pl.col("verdict_id").is_not_null())
    found = []
    for (name,), part in sorted(rows.group_by("verdict_id")):
        first = part.sort("metric").row(0, named=True)
        assets = tuple(asset for asset in (first["assets_to_refresh"] or "").split(",") if asset)
        metrics = tuple(part["metric"].sort())
        found.append(Verdict(name, first["cause"], first["action"], assets, part["since_date"].min(), metrics))  # type: ignore[arg-type]
    return found


def act_on_verdicts(warehouse: Warehouse, day: date, run_id: str, tell: Tell = lambda text: None) -> list[Verdict]:
    """Do what the sensor does once `day` is closed: request what its verdicts ask for, once, and re-make it. Returns those acted on."""
    store = warehouse.store
    stamp = datetime.combine(day, time(23, 59), UTC)
    acted = [verdict for verdict in verdicts_of(warehouse.reader(day), day) if request_verdict(store, day, verdict, now=stamp)]
    if acted:
        assets = sorted({asset for verdict in acted for asset in verdict.assets})
        for step in steps_to_remake(store, assets):
            run_step(warehouse, step, [day], run_id)
        tell(f"{day}: " + "; ".join(f"{verdict.cause}: {verdict.action} {', '.join(verdict.assets)}" for verdict in acted))
    return acted
