"""Sensors: what starts runs by itself, and what looks after runs that died.

What belongs here: turning a decision into a run request, once. What does not: the decisions (catch_up.py, drift/), and the
database: sensors read files and the copies of ledger and verdict beside the warehouse.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg

from marketing_assets.alerts import send_alert
from marketing_assets.catch_up import fingerprints_of, what_landed
from marketing_assets.config import Store
from marketing_assets.control import is_requested, request_refit
from marketing_assets.orchestration.assets import MEND_TAG
from marketing_assets.orchestration.checks import freshness_evaluation
from marketing_assets.orchestration.jobs import refit_selection
from marketing_assets.orchestration.resources import PROCESS_TAG, process_mark
from marketing_assets.pipeline import newest_closed_day
from marketing_assets.warehouse import read_ledger_copy, read_verdict_copy

IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_RANGE_START, _RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def _busy(instance: dg.DagsterInstance) -> str | None:
    runs = instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS), limit=1)
    return f"run {runs[0].run_id[:8]} is in progress" if runs else None


def _request(job: str, days: tuple[date, date], key: str, tags: dict[str, str]) -> dg.RunRequest:
    start, end = days
    if start == end:
        return dg.RunRequest(run_key=key, job_name=job, partition_key=start.isoformat(), tags=tags)
    span = {_RANGE_START: start.isoformat(), _RANGE_END: end.isoformat()}
    return dg.RunRequest(run_key=key, job_name=job, tags={**tags, **span})


def sensors_of(store: Store, jobs: Sequence[Any]) -> list[dg.SensorDefinition]:
    """The sensors of a shop."""
    named = {job.name: job for job in jobs}

    @dg.sensor(
        name="landing_files", jobs=[named["build_day"], named["catch_up_changes"]], minimum_interval_seconds=60,
        description="Builds days whose files have landed, and mends closed days whose files changed.",
    )
    def landing_files(context: dg.SensorEvaluationContext) -> dg.SkipReason | dg.RunRequest:
        if busy := _busy(context.instance):
            return dg.SkipReason(f"waiting: {busy}")
        found = what_landed(store, read_ledger_copy(store), datetime.now(UTC))
        if found.changed:
            return _request("catch_up_changes", found.changed, found.key, {MEND_TAG: "true", "marketing/reason": found.reason})
        if found.new:
            return _request("build_day", found.new, found.key, {"marketing/reason": found.reason})
        return dg.SkipReason(found.reason)

    @dg.sensor(
        name="drift_verdicts", job=named["build_day"], minimum_interval_seconds=60,
        description="Re-makes what the newest verdict names, with its reason; alerts where nothing can be re-made.",
    )
    def drift_verdicts(context: dg.SensorEvaluationContext) -> dg.SkipReason | dg.SensorResult:
        ledger = read_ledger_copy(store)
        closed = newest_closed_day(fingerprints_of(ledger), store)
        verdict = read_verdict_copy(store)
        if closed is None or verdict is None or not verdict["verdicts"]:
            return dg.SkipReason("no verdict")
        day = date.fromisoformat(verdict["as_of_date"])
        if day != closed:
            return dg.SkipReason(f"the newest verdict is of {day}, the newest closed day is {closed}")
        if not _is_live(context.instance, ledger, day):
            return dg.SkipReason(f"{day} was built by a backfill: verdicts of the past are shown, not acted on")
        if busy := _busy(context.instance):
            return dg.SkipReason(f"waiting: {busy}")
        return _act(store, day, verdict["verdicts"], context)

    @dg.sensor(
        name="dead_runs", minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING,
        description="Fails runs whose process has ended, so that the queue moves on; the next run mends what they left.",
    )
    def dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        failed = fail_dead_runs(context.instance)
        return dg.SkipReason(f"failed: {', '.join(failed)}" if failed else "every run in progress has its process")

    @dg.sensor(
        name="freshness", minimum_interval_seconds=600,
        description="Says by the ledger whether the newest closed day is the one it should be.",
    )
    def fresh(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        evaluation = freshness_evaluation(store)
        if not evaluation.passed and context.cursor != str(evaluation.metadata["expected"].value):
            text = f"{store.name}: closed through {evaluation.metadata['closed'].value}, expected {evaluation.metadata['expected'].value}"
            send_alert(store, "not fresh", text)
        return dg.SensorResult(asset_events=[evaluation], cursor=str(evaluation.metadata["expected"].value))

    return [landing_files, drift_verdicts, dead_runs, fresh]


def _is_live(instance: dg.DagsterInstance, ledger: Any, day: date) -> bool:
    """Whether the day's verdict was made by a run of that day alone, as the schedule and the landing sensor start them."""
    rows = ledger.filter((ledger["table_name"] == "drift_report") & (ledger["partition_date"] == day))
    run = instance.get_run_by_id(rows["run_id"][0]) if rows.height else None
    return run is not None and run.tags.get("dagster/partition") == day.isoformat() and "dagster/backfill" not in run.tags


def _act(store: Store, day: date, verdicts: Sequence[dict[str, Any]], context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Write each new verdict's requests, alert, and ask for one run of what is to be re-made."""
    told = set(filter(None, (context.cursor or "").split(",")))
    requests = []
    for verdict in verdicts:
        name, action = verdict["verdict_id"], verdict["action"]
        assets = [asset.strip() for asset in (verdict["assets_to_refresh"] or "").split(",") if asset.strip()]
        reason = f"{verdict['cause']} since {verdict['since_date']}: {', '.join(verdict['metrics'][:3])}"
        if name not in told:
            send_alert(store, f"drift: {verdict['cause']}", f"{store.name} {day}: {reason}; {action} {', '.join(assets)}".strip())
            told.add(name)
        if action == "alert" or not assets or is_requested(store, name, day):
            continue
        exported = (store.folder / "exports" / day.isoformat() / "manifest.json").exists()
        for asset in assets:
            request_refit(store, day + timedelta(days=exported), asset, action, reason=reason, verdict_id=name)
        if not exported:
            requests.append(dg.RunRequest(
                run_key=name, partition_key=day.isoformat(),
                asset_selection=[dg.AssetKey(table) for table in refit_selection(store, assets)],
                tags={"marketing/verdict": name, "marketing/reason": reason[:250], "marketing/action": action},
            ))
    cursor = ",".join(sorted(told)[-200:])
    return dg.SensorResult(run_requests=requests, cursor=cursor)


def fail_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Fail every run in progress whose process is gone. Returns the runs failed."""
    failed = []
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING])):
        mark = run.tags.get(PROCESS_TAG)
        if mark is None:
            continue
        process_id = int(mark.split(":")[0])
        if process_mark(process_id) != mark:
            message = f"its process ({process_id}) has ended; what it had committed is whole, the next run mends the rest"
            instance.report_run_failed(run, message)
            failed.append(run.run_id[:8])
    return failed
