"""The drift sensor's part outside Dagster: from a day's verdicts to requests, and the run that follows them.

What belongs here: what trials and the drift benchmark need to close the loop without a daemon. What does not: the verdict
(drift/), what a request does (model_store.py), the sensor itself (orchestration/sensors.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import polars as pl

from marketing_assets.config import Store
from marketing_assets.control import is_requested, request_refit
from marketing_assets.pipeline import Step, run_step, steps_of, tables_after
from marketing_assets.warehouse import Reader, Warehouse

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Verdict:
    """One cause found on a day: what to do about it and to which tables."""

    verdict_id: str
    cause: str
    action: str
    assets: tuple[str, ...]
    since: date
    metrics: tuple[str, ...]


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


def steps_to_remake(store: Store, assets: Sequence[str]) -> list[Step]:
    """The steps of a run over these tables: the requests, what accepts them, the tables' own steps and what follows up to the plan."""
    steps = steps_of(store)
    wanted = {table for step in steps if set(step.tables) & set(assets) for table in step.tables}
    following = set(tables_after(store, wanted))
    chosen = []
    for step in steps:
        if step.name in ("source_refit_requests", "cleaning") or set(step.tables) & following:
            chosen.append(step)
        if "ad_plan" in step.tables:
            break
    return chosen


def act_on_verdicts(warehouse: Warehouse, day: date, run_id: str, tell: Tell = lambda text: None) -> list[Verdict]:
    """Do what the sensor does once `day` is closed: request what its verdicts name, once, and re-make it. Returns those acted on."""
    store = warehouse.store
    acted = []
    stamp = datetime.combine(day, time(23, 59), UTC)
    for verdict in verdicts_of(warehouse.reader(day), day):
        if verdict.action == "alert" or not verdict.assets or is_requested(store, verdict.verdict_id, day, store.drift.cool_down_days):
            continue
        reason = f"{verdict.cause} since {verdict.since}: {', '.join(verdict.metrics[:3])}"
        for asset in verdict.assets:
            request_refit(
                store, day, asset, "stop_learning" if verdict.action == "stop_learning" else "refit", reason=reason,
                verdict_id=verdict.verdict_id, now=stamp,
            )
        acted.append(verdict)
    if acted:
        assets = sorted({asset for verdict in acted for asset in verdict.assets})
        for step in steps_to_remake(store, assets):
            run_step(warehouse, step, [day], run_id)
        tell(f"{day}: " + "; ".join(f"{verdict.cause}: {verdict.action} {', '.join(verdict.assets)}" for verdict in acted))
    return acted


def resume_when_sound(warehouse: Warehouse, stopped: dict[str, date], day: date) -> None:
    """What a person does after a 'stop_learning': let a table learn again once its data have been sound for a cool-down.

    stopped: table -> newest day its data were called broken; entries that resume are taken out.
    """
    store = warehouse.store
    for verdict in verdicts_of(warehouse.reader(day), day):
        if verdict.action == "stop_learning":
            stopped.update(dict.fromkeys(verdict.assets, day))
    for asset, last in sorted(stopped.items()):
        if day - last >= timedelta(days=store.drift.cool_down_days):
            stamp = datetime.combine(day, time(23, 59), UTC)
            request_refit(store, day + timedelta(days=1), asset, "resume", reason=f"data sound since {last}", now=stamp)
            del stopped[asset]
