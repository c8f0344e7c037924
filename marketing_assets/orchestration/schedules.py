"""The nightly schedule.

What belongs here: when a day is built. What does not: what a day is.
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from marketing_assets.config import Store


def schedules_of(
    store: Store, jobs: Sequence[dg.UnresolvedAssetJobDefinition]
) -> list[dg.ScheduleDefinition | dg.UnresolvedPartitionedAssetScheduleDefinition]:
    """Every night, shop time, the day that just closed. A shop whose days have ended has its schedule switched off."""
    build_day = next(job for job in jobs if job.name == "build_day")
    status = dg.DefaultScheduleStatus.STOPPED if store.last_day is not None else dg.DefaultScheduleStatus.RUNNING
    return [
        dg.build_schedule_from_partitioned_job(
            build_day, name="nightly", hour_of_day=store.schedule_hour, minute_of_hour=15, default_status=status,
            description="Builds the day that just closed, in the shop's time zone.",
        )
    ]
