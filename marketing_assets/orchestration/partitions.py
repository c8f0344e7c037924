"""Daily partitions in the shop's time zone.

What belongs here: which days a shop has and how a run names them. What does not: what is built on them.
"""

from __future__ import annotations

from datetime import date, timedelta

import dagster as dg

from marketing_assets.config import Store
from marketing_assets.warehouse import days_between


def daily_partitions(store: Store) -> dg.DailyPartitionsDefinition:
    """first_day to last_day, or to yesterday in the shop's time zone where the shop goes on."""
    end = None if store.last_day is None else (store.last_day + timedelta(days=1)).isoformat()
    return dg.DailyPartitionsDefinition(start_date=store.first_day.isoformat(), end_date=end, timezone=store.timezone)


def days_of(context: dg.AssetExecutionContext) -> list[date]:
    """The contiguous window of days a run is for."""
    keys = context.partition_key_range
    return days_between(date.fromisoformat(keys.start), date.fromisoformat(keys.end))
