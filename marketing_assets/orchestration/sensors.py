"""Sensors: what starts runs by itself, and what looks after runs that died.

What belongs here: turning a decision into a run request, once. What does not: the decisions (catch_up.py, drift/), and the
database: sensors read files and the copies of ledger and verdict beside the warehouse.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg

from marketing_assets.alerts import AlertError, send_alert
from marketing_assets.catch_up import fingerprints_of, what_landed
from marketing_assets.config import MEND_ATTEMPTS, Store
from marketing_assets.control import Verdict, request_verdict
from marketing_assets.orchestration.checks import freshness_evaluation
from marketing_assets.orchestration.jobs import refit_selection
from marketing_assets.orchestration.mending import mend_request
from marketing_assets.orchestration.resources import PROCESS_TAG, process_mark
from marketing_assets.running import newest_closed_day
from marketing_assets.warehouse import read_ledger_copy, read_verdict_copy

IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_RANGE_START, _RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
LANDED_TAG, VERDICT_TAG = "marketing/landed", "marketing/verdict"
"""Of runs that landed files, or a verdict, asked for: which."""


def _busy(instance: dg.DagsterInstance) -> str | None:
    runs = instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS), limit=1)
    return f"run {runs[0].run_id[:8]} is in progress" if runs else None


def _next_try(instance: dg.DagsterInstance, tag: str, value: str) -> tuple[str | None, bool]:
    """Run key for another run of what this tag asks for, None after MEND_ATTEMPTS; and whether the newest one ended without success.

    Dagster starts no second run under a key: what was lost with a run, or with the daemon that was starting it, needs a new one.
    """
    tries = instance.get_runs(dg.RunsFilter(tags={tag: value}))
    is_lost = bool(tries) and tries[0].status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
    if len(tries) >= MEND_ATTEMPTS:
        return None, is_lost
    return (f"{value} {len(tries)}" if tries else value), is_lost


def _unfinished_mend(instance: dg.DagsterInstance) -> dg.RunRequest | None:
    """The newest catch-up again, where it ended without success: the files it was for may be read already, what rests on them not."""
    runs = instance.get_runs(dg.RunsFilter(job_name="catch_up_changes"), limit=MEND_ATTEMPTS)
    if not runs or runs[0].status != dg.DagsterRunStatus.FAILURE:
        return None
    if len(runs) == MEND_ATTEMPTS and all(run.status == dg.DagsterRunStatus.FAILURE for run in runs):
        return None  # a person has to look
    tags = {"marketing/reason": f"run {runs[0].run_id[:8]} ended before everything was mended"}
    return dg.RunRequest(run_key=f"again {runs[0].run_id}", job_name="catch_up_changes", run_config=dict(runs[0].run_config), tags=tags)


def _request(job: str, days: tuple[date, date], key: str, tags: dict[str, str]) -> dg.RunRequest:
    start, end = days
    if start == end:
        return dg.RunRequest(run_key=key, job_name=job, partition_key=start.isoformat(), tags=tags)
    span = {_RANGE_START: start.isoformat(), _RANGE_END: end.isoformat()}
    return dg.RunRequest(run_key=key, job_name=job, tags={**tags, **span})


def sensors_of(store: Store, jobs: Sequence[Any]) -> list[dg.SensorDefinition]:
    """The sensors of a shop."""
    named = {job.name: job for job in jobs}
    # a shop that goes on is looked after at once; one whose days have ended is there to be looked at
    status = dg.DefaultSensorStatus.STOPPED if store.last_day is not None else dg.DefaultSensorStatus.RUNNING

    @dg.sensor(
        name="landing_files", jobs=[named["build_day"], named["catch_up_changes"]], minimum_interval_seconds=60, default_status=status,
        description="Builds days whose files have landed, and mends closed days whose files changed.",
    )
    def landing_files(context: dg.SensorEvaluationContext) -> dg.SkipReason | dg.RunRequest:
        if busy := _busy(context.instance):
            return dg.SkipReason(f"waiting: {busy}")
        found = what_landed(store, read_ledger_copy(store), datetime.now(UTC))
        if found.changed:
            return dg.RunRequest(
                run_key=found.key, job_name="catch_up_changes", run_config=mend_request(*found.changed),
                tags={"marketing/reason": found.reason},
            )
        if again := _unfinished_mend(context.instance):
            return again
        if found.new:
            key, _ = _next_try(context.instance, LANDED_TAG, found.key)
            if key is None:
                return dg.SkipReason(f"{found.reason}; {MEND_ATTEMPTS} runs did not build it: a person has to look")
            return _request("build_day", found.new, key, {"marketing/reason": found.reason, LANDED_TAG: found.key})
        return dg.SkipReason(found.reason)

    @dg.sensor(
        name="drift_verdicts", job=named["build_day"], minimum_interval_seconds=60, default_status=status,
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
        name="freshness", minimum_interval_seconds=600, default_status=status,
        description="Says by the ledger whether the newest closed day is the one it should be.",
    )
    def fresh(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        evaluation = freshness_evaluation(store)
        if not evaluation.passed and context.cursor != str(evaluation.metadata["expected"].value):
            text = f"{store.name}: closed through {evaluation.metadata['closed'].value}, expected {evaluation.metadata['expected'].value}"
            if not _tell(store, "not fresh", text, context):
                return dg.SensorResult(asset_events=[evaluation], cursor=context.cursor)
        return dg.SensorResult(asset_events=[evaluation], cursor=str(evaluation.metadata["expected"].value))

    return [landing_files, drift_verdicts, dead_runs, fresh]


def _is_live(instance: dg.DagsterInstance, ledger: Any, day: date) -> bool:
    """Whether the day's verdict was made by a run of that day alone, by landed files or by a catch-up, not by a backfill."""
    rows = ledger.filter((ledger["table_name"] == "drift_report") & (ledger["partition_date"] == day))
    run = instance.get_run_by_id(rows["run_id"][0]) if rows.height else None
    if run is None or "dagster/backfill" in run.tags:
        return False
    return run.job_name == "catch_up_changes" or LANDED_TAG in run.tags or run.tags.get("dagster/partition") == day.isoformat()


def _act(store: Store, day: date, verdicts: Sequence[dict[str, Any]], context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Write what each new verdict asks for, ask for one run of what is to be re-made, and tell people."""
    is_given_out = (store.folder / "exports" / day.isoformat() / "manifest.json").exists()
    told = set(filter(None, (context.cursor or "").split(",")))
    requests = []
    for row in verdicts:
        verdict = _verdict(row, day)
        key, is_lost = _next_try(context.instance, VERDICT_TAG, verdict.verdict_id)
        is_new = request_verdict(store, day, verdict, is_given_out=is_given_out)
        if (is_new or is_lost) and key is not None:
            requests.append(dg.RunRequest(
                run_key=key, partition_key=day.isoformat(),
                asset_selection=[dg.AssetKey(table) for table in refit_selection(store, verdict.assets)],
                tags={VERDICT_TAG: verdict.verdict_id, "marketing/reason": str(verdict.reason)[:250], "marketing/action": verdict.action},
            ))
        if verdict.verdict_id not in told:
            text = f"{store.name} {day}: {verdict.reason}; {verdict.action} {', '.join(verdict.assets)}".strip()
            if _tell(store, f"drift: {verdict.cause}", text, context):
                told.add(verdict.verdict_id)
    cursor = ",".join(sorted(told)[-200:])
    return dg.SensorResult(run_requests=requests, cursor=cursor)


def _verdict(row: dict[str, Any], day: date) -> Verdict:
    """A verdict as its copy beside the warehouse has it."""
    assets = tuple(asset.strip() for asset in (row["assets_to_refresh"] or "").split(",") if asset.strip())
    since = date.fromisoformat(row["since_date"]) if row["since_date"] else day
    return Verdict(row["verdict_id"], row["cause"], row["action"], assets, since, tuple(row["metrics"]))


def _tell(store: Store, subject: str, text: str, context: dg.SensorEvaluationContext) -> bool:
    """Alert people. False where nobody could be told, which is tried again at the next tick: no decision waits for a mail server."""
    try:
        send_alert(store, subject, text)
    except AlertError as error:
        context.log.error(str(error))
        return bool(error.told)
    return True


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
