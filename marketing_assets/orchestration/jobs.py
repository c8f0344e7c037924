"""Jobs: the selections people and sensors run, named for what they bring about.

What belongs here: which assets a job takes. What does not: when it runs (schedules.py, sensors.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import dagster as dg

from marketing_assets.config import Store
from marketing_assets.control import LEARNING_TABLES
from marketing_assets.orchestration.mending import catch_up_changes
from marketing_assets.orchestration.partitions import daily_partitions
from marketing_assets.orchestration.trying import what_if
from marketing_assets.pipeline import steps_of, steps_to_remake

PLANNING = ("response_rates", "ad_plan")


def refit_selection(store: Store, assets: Sequence[str]) -> list[str]:
    """What a refit of these tables re-makes, as assets."""
    return [table for step in steps_to_remake(store, assets) for table in step.tables]


Job: TypeAlias = "dg.UnresolvedAssetJobDefinition | dg.JobDefinition"


def jobs_of(store: Store) -> list[Job]:
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
        catch_up_changes(),
        what_if(),
    ]


def _siblings(store: Store, tables: Sequence[str]) -> dg.AssetSelection:
    """All tables made by the steps of these."""
    names = [name for step in steps_of(store) if set(step.tables) & set(tables) for name in step.tables]
    overrides = ["raw_plan_overrides", *(table for step in steps_of(store) if step.name == "cleaning" for table in step.tables)]
    return dg.AssetSelection.assets(*overrides, *names)
