"""Mending as a job: after landed files changed, rebuild what rests on them and nothing else.

What belongs here: the job and what it reports to Dagster. What does not: which days are stale (running.py), when to look
(sensors.py).

It is one op and no selection of assets, because an asset that has nothing to rebuild would have to be skipped, and Dagster
skips everything behind a skipped asset.
"""

from datetime import date
from typing import Any

import dagster as dg
from pydantic import Field

from marketing_assets.orchestration.assets import numbers_of, of_newest, write_pages
from marketing_assets.orchestration.checks import check_results, check_specs
from marketing_assets.orchestration.resources import ShopResource
from marketing_assets.pipeline import Step, steps_of
from marketing_assets.running import StepResult, mend_step, newest_closed_day
from marketing_assets.warehouse import days_between

MEND = "mend"


class MendConfig(dg.Config):
    """Which days to look at; what changed on one of them is followed to the last."""

    start: str | None = Field(None, description="first day, YYYY-MM-DD; default: the shop's first")
    end: str | None = Field(None, description="last day, YYYY-MM-DD; default: the newest closed one")


def mend_request(start: date, end: date) -> dict[str, Any]:
    """Run configuration of catch_up_changes for a window."""
    return {"ops": {MEND: {"config": {"start": start.isoformat(), "end": end.isoformat()}}}}


@dg.op(name=MEND, description="Rebuilds the days whose inputs changed, step by step, until the hashes agree.")
def mend(context: dg.OpExecutionContext, config: MendConfig, shop: ShopResource) -> None:
    """Every rebuilt partition is reported as materialised, with its checks."""
    warehouse = shop.warehouse
    end = date.fromisoformat(config.end) if config.end else newest_closed_day(warehouse.ledger, shop.store)
    if end is None:
        context.log.info("no day is closed yet: nothing to mend")
        return
    days = days_between(date.fromisoformat(config.start) if config.start else shop.store.first_day, end)
    for step in steps_of(shop.store):
        results = mend_step(warehouse, step, days, context.run_id, context.log.info)
        if not results:
            context.log.info(f"{step.name}: up to date, nothing rebuilt")
            continue
        if step.name == "report":
            write_pages(shop, [day for result in results for day in result.days], context.log.info)
        _report(context, shop, step, results)


def _report(context: dg.OpExecutionContext, shop: ShopResource, step: Step, results: list[StepResult]) -> None:
    newest = results[-1].days[-1]
    for table in step.tables:
        for result in results:
            for day in result.days:
                metadata = numbers_of(result, table, day) | (of_newest(shop, table, result) if day == newest else {})
                context.log_event(dg.AssetMaterialization(table, partition=day.isoformat(), metadata=metadata))
    keys = [dg.AssetCheckKey(spec.asset_key, spec.name) for spec in check_specs(step)]
    for outcome in check_results(shop.warehouse, step, results, keys):
        assert outcome.asset_key is not None and outcome.check_name is not None
        context.instance.report_runless_asset_event(dg.AssetCheckEvaluation(
            asset_key=outcome.asset_key, check_name=outcome.check_name, passed=outcome.passed, severity=outcome.severity,
            metadata=dict(outcome.metadata),
        ))


def catch_up_changes() -> dg.JobDefinition:
    """The job."""

    @dg.job(
        name="catch_up_changes",
        description="After landed files changed: rebuild what rests on them until the hashes agree, and nothing else.",
    )
    def job() -> None:
        mend()

    return job
