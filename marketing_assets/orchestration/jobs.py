"""Jobs: the selections people and sensors run, named for what they bring about.

What belongs here: which assets a job takes. What does not: when it runs (schedules.py, sensors.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from marketing_assets.config import Store
from marketing_assets.control import LEARNING_TABLES
from marketing_assets.orchestration.partitions import daily_partitions
from marketing_assets.pipeline import steps_of, tables_after

PLANNING = ("response_rates", "ad_plan")


def plan_tables(store: Store) -> list[str]:
    """Tables of the steps up to and with the plan, in order."""
    tables: list[str] = []
    for step in steps_of(store):
        tables += step.tables
        if "ad_plan" in step.tables:
            break
    return tables


def refit_selection(store: Store, assets: Sequence[str]) -> list[str]:
    """What a refit of these tables re-makes: the requests, what decides on them, the tables and what follows up to the plan."""
    steps = steps_of(store)
    reading = [table for step in steps if step.name in ("source_refit_requests", "cleaning") for table in step.tables]
    wanted = {table for step in steps if set(step.tables) & set(assets) for table in step.tables}
    until_plan = set(plan_tables(store))
    following = [table for table in tables_after(store, wanted) if table in until_plan]
    return list(dict.fromkeys([*reading, *following]))


def jobs_of(store: Store) -> list[dg.UnresolvedAssetJobDefinition]:
    """The jobs of a shop."""
    partitions = daily_partitions(store)
    return [
        dg.define_asset_job(
            "build_day", dg.AssetSelection.all(), partitions_def=partitions,
            description="Everything for one landed day: from its files to tomorrow's plan, the evaluation and the report.",
        ),
        dg.define_asset_job(
            "plan_tomorrow", dg.AssetSelection.assets(*PLANNING).upstream(depth=0) | _siblings(store, PLANNING),
            partitions_def=partitions,
            description="Response rates and the ad plan again, after a change of budget, limits or overrides.",
        ),
        dg.define_asset_job(
            "refit_now", dg.AssetSelection.assets(*refit_selection(store, LEARNING_TABLES)), partitions_def=partitions,
            description="Fit the models named in the run configuration (raw_refit_requests: refit) anew, and re-make what follows up to the plan.",
        ),
        dg.define_asset_job(
            "catch_up_changes", dg.AssetSelection.all(), partitions_def=partitions,
            description="After landed files changed: rebuild what rests on them until the hashes agree, and nothing else.",
        ),
    ]


def _siblings(store: Store, tables: Sequence[str]) -> dg.AssetSelection:
    """All tables made by the steps of these."""
    names = [name for step in steps_of(store) if set(step.tables) & set(tables) for name in step.tables]
    overrides = ["raw_plan_overrides", *(table for step in steps_of(store) if step.name == "cleaning" for table in step.tables)]
    return dg.AssetSelection.assets(*overrides, *names)
