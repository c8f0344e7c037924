"""The whole of Dagster's view of one shop: what workspace.yaml and `dagster ... -m marketing_assets.definitions` name.

What belongs here: assembling. What does not: anything else.
"""

from __future__ import annotations

import dagster as dg

from marketing_assets.config import Store, load_store
from marketing_assets.orchestration.assets import assets_of
from marketing_assets.orchestration.checks import is_fresh
from marketing_assets.orchestration.jobs import jobs_of
from marketing_assets.orchestration.resources import ShopResource
from marketing_assets.orchestration.schedules import schedules_of
from marketing_assets.orchestration.sensors import sensors_of


def definitions_of(store: Store) -> dg.Definitions:
    """Assets, checks, jobs, schedules and sensors of a shop. One run writes at a time, in one process."""
    jobs = jobs_of(store)
    return dg.Definitions(
        assets=assets_of(store),
        asset_checks=[is_fresh(store)],
        jobs=jobs,
        schedules=schedules_of(store, jobs),
        sensors=sensors_of(store, jobs),
        resources={"shop": ShopResource(store_file=str(store.path))},
        executor=dg.in_process_executor,
    )


defs = definitions_of(load_store())
