"""Dagster's side: the graph as a snapshot, the rules of who imports what, jobs, the schedule and every sensor's decision."""

from __future__ import annotations

import ast
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from marketing_assets.catch_up import freshness, last_closed_by_clock, what_landed
from marketing_assets.config import REPOSITORY_ROOT, Store, load_store
from marketing_assets.control import ControlError, read_reason, read_requests, reason_of, request_file, request_refit
from marketing_assets.definitions import definitions_of
from marketing_assets.orchestration.jobs import jobs_of, refit_selection
from marketing_assets.orchestration.mending import mend_request
from marketing_assets.orchestration.resources import PROCESS_TAG, process_mark
from marketing_assets.orchestration.sensors import fail_dead_runs, sensors_of
from marketing_assets.pipeline import steps_of
from marketing_assets.running import Fingerprints, run_days, stale_days
from marketing_assets.schemas import TABLES
from marketing_assets.warehouse import LEDGER_SCHEMA, days_between, ledger_copy, open_warehouse, verdict_copy
from marketing_assets_tests.conftest import FIRST, LAST

PACKAGE = REPOSITORY_ROOT / "marketing_assets"
SNAPSHOT = Path(__file__).parent / "snapshots" / "graph.json"
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def graph_of(store: Store) -> dict[str, Any]:
    definitions = definitions_of(store)
    graph = definitions.resolve_asset_graph()
    assets = {
        key.to_user_string(): {
            "group": graph.get(key).group_name, "deps": sorted(parent.to_user_string() for parent in graph.get(key).parent_keys),
            "checks": sorted(check.name for check in graph.get(key).check_keys), "kinds": sorted(graph.get(key).kinds),
        }
        for key in sorted(graph.get_all_asset_keys(), key=lambda one: one.to_user_string())
    }
    jobs = sorted(job.name for job in definitions.resolve_all_job_defs() if not job.name.startswith("__"))
    return {"assets": assets, "jobs": jobs, "schedules": sorted(one.name for one in definitions.schedules or []),
            "sensors": sorted(one.name for one in definitions.sensors or [])}  # fmt: skip


def test_the_graph_is_the_one_on_record(lived: Path) -> None:
    """Keys, dependencies, groups, checks and automation. To accept a change: UPDATE_SNAPSHOTS=1 pytest, and read the diff."""
    found = graph_of(load_store(lived / "store.yaml"))
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOT.parent.mkdir(exist_ok=True)
        SNAPSHOT.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    assert found == json.loads(SNAPSHOT.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["online_retail", "taobao", "rees46", "open_bandit"])
def test_definitions_load_for_every_ready_store(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MARKETING_DATA", str(tmp_path))
    store = load_store(REPOSITORY_ROOT / "data" / "stores" / name / "store.yaml")
    definitions = definitions_of(store)
    graph = definitions.resolve_asset_graph()
    tables = {table for step in steps_of(store) for table in step.tables}
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == tables
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.partitions_def is not None and node.backfill_policy == dg.BackfillPolicy.single_run()
        assert node.description == TABLES[key.to_user_string()].one_row_per
        assert "dagster/column_schema" in node.metadata and node.owners
    dg.Definitions.validate_loadable(definitions)


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_only_orchestration_imports_dagster() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name != "orchestration" and path.name != "definitions.py":
            assert not any(name.split(".")[0] == "dagster" for name in imports_of(path)), path


def test_assets_hold_no_frames_and_no_sql() -> None:
    """An asset body runs a step and reports; logic belongs to the concepts."""
    for path in (PACKAGE / "orchestration").glob("*.py"):
        assert not {name.split(".")[0] for name in imports_of(path)} & {"polars", "duckdb", "ibis", "numpy", "lightgbm", "cvxpy"}, path
        assert "SELECT " not in path.read_text(encoding="utf-8"), path


ORDER = ("sources", "cleaning", "features", "profiles", "forecasting", "inventory", "recommendations", "response", "ad_planning",
         "reviews", "evaluation", "drift", "exports", "report")  # fmt: skip


def test_imports_point_up_the_flow() -> None:
    """Data flows down the list, imports point up: a concept imports none that comes after it."""
    for position, concept in enumerate(ORDER):
        later = {f"marketing_assets.{name}" for name in ORDER[position + 1 :]}
        paths = sorted((PACKAGE / concept).rglob("*.py")) or [PACKAGE / f"{concept}.py"]
        for path in paths:
            for name in imports_of(path):
                assert ".".join(name.split(".")[:2]) not in later, (path, name)
            above = ("marketing_assets.orchestration", "marketing_assets.pipeline", "marketing_assets.running")
            assert not any(name.startswith(above) for name in imports_of(path)), path


def test_every_table_says_what_a_row_is_and_what_its_columns_mean() -> None:
    for name, table in TABLES.items():
        assert table.one_row_per.startswith("One row per"), name
        assert all(table.descriptions.values()), name
        assert set(table.key) <= set(table.columns) and table.partition_column in table.columns, name


# --- decisions --------------------------------------------------------------------------------------------------------


def ledger_through(store: Store, end: date | None) -> pl.DataFrame:
    """A ledger that says every table was built from the files as they lie, up to `end`."""
    from marketing_assets.sources import file_fingerprint

    rows = []
    for step in steps_of(store):
        for table in step.tables:
            for offset in range(0 if end is None else (end - FIRST).days + 1):
                day = FIRST + timedelta(days=offset)
                fingerprint = file_fingerprint(store, step.source, day) if step.source else "f"
                rows.append((table, day, 1, "c", "s", fingerprint, "v", "run", datetime(2026, 1, 1), None))
    return pl.DataFrame(rows, schema=LEDGER_SCHEMA, orient="row")


def test_landed_days_are_asked_for_from_the_first_missing_one(shop_at: Callable[..., Store]) -> None:
    store = shop_at()
    assert what_landed(store, ledger_through(store, None), NOON).new == (FIRST, LAST)
    assert what_landed(store, ledger_through(store, LAST - timedelta(days=2)), NOON).new == (LAST - timedelta(days=1), LAST)
    done = what_landed(store, ledger_through(store, LAST), NOON)
    assert done.new is None and done.changed is None and "nothing new" in done.reason


def test_a_day_waits_for_every_required_file_and_for_its_end(shop_at: Callable[..., Store]) -> None:
    store = shop_at()
    ledger = ledger_through(store, LAST - timedelta(days=1))
    before_midnight = datetime(LAST.year, LAST.month, LAST.day, 20, tzinfo=UTC)
    assert what_landed(store, ledger, before_midnight).new is None
    (store.folder / "landing" / "impressions" / f"{LAST}.csv.gz").unlink()
    assert what_landed(store, ledger, NOON).new is None


def test_a_changed_file_of_a_closed_day_comes_first(shop_at: Callable[..., Store]) -> None:
    store = shop_at()
    ledger = ledger_through(store, LAST - timedelta(days=1))
    changed = store.folder / "landing" / "events" / f"{FIRST + timedelta(days=2)}.csv.gz"
    changed.write_bytes((store.folder / "landing" / "events" / f"{FIRST}.csv.gz").read_bytes())
    found = what_landed(store, ledger, NOON)
    assert found.changed == (FIRST + timedelta(days=2), LAST - timedelta(days=1)) and found.new is None
    assert f"events of {FIRST + timedelta(days=2)}" in found.reason
    assert what_landed(store, ledger, NOON).key == found.key


def test_freshness_goes_by_the_newest_closed_day(shop_at: Callable[..., Store]) -> None:
    store = shop_at().model_copy(update={"last_day": None})
    ledger = ledger_through(store, LAST)
    assert last_closed_by_clock(store, datetime(2026, 8, 12, 21, 59, tzinfo=UTC)) == date(2026, 8, 11)
    assert last_closed_by_clock(store, datetime(2026, 8, 12, 22, 1, tzinfo=UTC)) == date(2026, 8, 12)  # midnight in Berlin
    assert freshness(store, ledger, datetime(2026, 8, 12, 12, tzinfo=UTC)).is_fresh
    assert not freshness(store, ledger, datetime(2026, 8, 13, 12, tzinfo=UTC)).is_fresh
    partial = ledger.filter(~((pl.col("table_name") == "ad_plan") & (pl.col("partition_date") == LAST)))
    assert freshness(store, partial, datetime(2026, 8, 12, 12, tzinfo=UTC)).closed == LAST - timedelta(days=1)


def test_requests_are_written_once_and_refused_where_senseless(shop_at: Callable[..., Store]) -> None:
    store = shop_at()
    assert request_refit(store, LAST, "response_rates", reason="placement\ncollapsed", verdict_id="v1", now=NOON)
    assert not request_refit(store, LAST, "response_rates", reason="again", verdict_id="v1", now=NOON)
    assert request_refit(store, LAST, "recommendations", "stop_learning", reason="broken", now=NOON)
    rows = read_requests(request_file(store, LAST))
    assert [(row["asset"], row["action"], row["reason"]) for row in rows] == [
        ("response_rates", "refit", "placement collapsed"), ("recommendations", "stop_learning", "broken"),
    ]  # fmt: skip
    assert rows[0]["requested_at"] == "2026-11-01T12:00:00Z"
    with pytest.raises(ControlError, match="allowed: user_profiles"):
        request_refit(store, LAST, "clean_events", reason="x")
    with pytest.raises(ControlError, match="model_version"):
        request_refit(store, LAST, "response_rates", "rollback", reason="x")


def test_a_reason_models_can_heed_reads_as_it_was_written() -> None:
    since = date(2026, 8, 9)
    metrics = ["ads.ctr", "ads.ctr_calibration_ratio", "ads.ctr_calibration_ratio[placement=home, left]", "events.psi[device]", "x.y"]
    reason = reason_of("calibration", since, metrics)
    assert str(reason) == "calibration since 2026-08-09: ads.ctr_calibration_ratio[placement=home, left], ads.ctr, ads.ctr_calibration_ratio"
    assert read_reason(str(reason)) == reason
    assert reason.segments[:2] == [("ads.ctr_calibration_ratio", ("placement", "home, left")), ("ads.ctr", None)]
    assert read_reason(str(reason_of("data_quality", since, ["events.psi[device]"]))) is not None
    assert read_reason("data sound since 2026-08-09") is not None
    for text in ("", "placement collapsed", "calibration since yesterday", "calibration since 2026-13-09", "calibration since 2026-08-09: a b"):
        assert read_reason(text) is None, text


# --- sensors ----------------------------------------------------------------------------------------------------------


def sensor(store: Store, name: str) -> dg.SensorDefinition:
    return next(one for one in sensors_of(store, jobs_of(store)) if one.name == name)


def tick(store: Store, name: str, instance: dg.DagsterInstance, cursor: str | None = None) -> Any:
    context = dg.build_sensor_context(instance=instance, cursor=cursor, definitions=definitions_of(store))
    return sensor(store, name)(context)


def test_the_landing_sensor_builds_and_mends(shop_at: Callable[..., Store]) -> None:
    store = shop_at()
    with dg.DagsterInstance.ephemeral() as instance:
        asked = tick(store, "landing_files", instance)
        assert asked.job_name == "build_day" and asked.tags["dagster/asset_partition_range_end"] == LAST.isoformat()
        ledger_through(store, LAST - timedelta(days=1)).write_parquet(ledger_copy(store))
        asked = tick(store, "landing_files", instance)
        assert (asked.job_name, asked.partition_key) == ("build_day", LAST.isoformat())
        file = store.folder / "landing" / "events" / f"{FIRST}.csv.gz"
        file.write_bytes((store.folder / "landing" / "events" / f"{LAST}.csv.gz").read_bytes())
        asked = tick(store, "landing_files", instance)
        assert asked.job_name == "catch_up_changes" and asked.run_config == mend_request(FIRST, LAST - timedelta(days=1))
        instance.create_run_for_job(dg.job(name="j")(lambda: None), status=dg.DagsterRunStatus.STARTED)
        assert isinstance(tick(store, "landing_files", instance), dg.SkipReason)


def test_a_day_whose_run_ended_half_way_is_asked_for_again_but_not_for_ever(shop_at: Callable[..., Store]) -> None:
    """Dagster starts no second run under the same key: without a new one a day lost with the daemon waited for the next day's files."""
    store = shop_at()
    ledger_through(store, LAST - timedelta(days=1)).write_parquet(ledger_copy(store))
    job = definitions_of(store).resolve_job_def("build_day")
    with dg.DagsterInstance.ephemeral() as instance:
        keys = []
        for _ in range(3):
            asked = tick(store, "landing_files", instance)
            assert asked.partition_key == LAST.isoformat()
            keys.append(asked.run_key)
            instance.create_run_for_job(job, tags=asked.tags, status=dg.DagsterRunStatus.FAILURE)
        assert len(set(keys)) == 3
        given_up = tick(store, "landing_files", instance)
        assert isinstance(given_up, dg.SkipReason) and "a person has to look" in str(given_up.skip_message)
        # files that land in its place are another matter
        file = store.folder / "landing" / "events" / f"{LAST}.csv.gz"
        file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()) + b"\n"))
        assert tick(store, "landing_files", instance).partition_key == LAST.isoformat()


def test_a_catch_up_that_failed_is_asked_for_again_but_not_for_ever(shop_at: Callable[..., Store]) -> None:
    """Its files may have been read before it ended: then they no longer count as changed, though nothing else was rebuilt."""
    store = shop_at()
    ledger_through(store, LAST).write_parquet(ledger_copy(store))
    job, config = definitions_of(store).resolve_job_def("catch_up_changes"), mend_request(FIRST, LAST)
    with dg.DagsterInstance.ephemeral() as instance:
        assert isinstance(tick(store, "landing_files", instance), dg.SkipReason)
        for attempt in range(3):
            run = instance.create_run_for_job(job, run_config=config, status=dg.DagsterRunStatus.FAILURE)
            asked = tick(store, "landing_files", instance)
            if attempt < 2:
                assert (asked.job_name, asked.run_config, asked.run_key) == ("catch_up_changes", config, f"again {run.run_id}")
        assert isinstance(asked, dg.SkipReason)
        instance.create_run_for_job(job, run_config=config, status=dg.DagsterRunStatus.SUCCESS)
        assert isinstance(tick(store, "landing_files", instance), dg.SkipReason)


def test_a_changed_file_is_mended_through_dagster(shop_at: Callable[..., Store]) -> None:
    """The day and all that rests on it are rebuilt and reported; inputs that are as before are not, and stop nobody."""
    store = shop_at()
    days = days_between(FIRST, FIRST + timedelta(days=1))
    with open_warehouse(store) as warehouse:
        run_days(warehouse, days, "first")
    file = store.folder / "landing" / "events" / f"{days[0]}.csv.gz"
    lines = gzip.decompress(file.read_bytes()).splitlines(keepends=True)
    file.write_bytes(gzip.compress(b"".join(line for place, line in enumerate(lines) if place == 0 or place % 3)))
    job = definitions_of(store).resolve_job_def("catch_up_changes")
    with dg.DagsterInstance.ephemeral() as instance:
        assert job.execute_in_process(run_config=mend_request(*days), instance=instance).success
        reported = {
            (record.asset_key.to_user_string(), record.partition_key)
            for key in instance.all_asset_keys()
            for record in instance.fetch_materializations(key, limit=50).records
        }
        assert {("raw_events", str(days[0])), ("clean_events", str(days[0])), ("user_features", str(days[1]))} <= reported
        assert not {("raw_campaigns", str(days[0])), ("raw_events", str(days[1])), ("raw_impressions", str(days[0]))} & reported
        assert instance.event_log_storage.get_latest_asset_check_execution_by_key(
            [dg.AssetCheckKey(dg.AssetKey("clean_events"), "schema_holds")]
        )
    with open_warehouse(store) as warehouse:
        for step in steps_of(store):
            assert not stale_days(warehouse, Fingerprints(warehouse), step, days), step.name


def write_verdict(store: Store, day: date, action: str, assets: str) -> None:
    verdict = {"verdict_id": "abc", "cause": "calibration", "action": action, "assets_to_refresh": assets,
               "since_date": "2026-08-09", "metrics": ["ads.ctr"], "effect_value": None}  # fmt: skip
    verdict_copy(store).write_text(json.dumps({"as_of_date": day.isoformat(), "verdicts": [verdict]}), encoding="utf-8")


def live_ledger(store: Store, instance: dg.DagsterInstance, tags: dict[str, str], job: str = "build_day") -> None:
    run = instance.create_run_for_job(dg.job(name=job)(lambda: None), tags=tags, status=dg.DagsterRunStatus.SUCCESS)
    ledger = ledger_through(store, LAST).with_columns(run_id=pl.lit(run.run_id))
    ledger.write_parquet(ledger_copy(store))


def test_the_drift_sensor_requests_what_the_verdict_names_once(shop_at: Callable[..., Store]) -> None:
    store = shop_at()
    with dg.DagsterInstance.ephemeral() as instance:
        live_ledger(store, instance, {"dagster/partition": LAST.isoformat()})
        write_verdict(store, LAST, "refit", "response_rates")
        result = tick(store, "drift_verdicts", instance)
        (asked,) = result.run_requests
        assert (asked.run_key, asked.partition_key) == ("abc", LAST.isoformat())
        keys = {key.to_user_string() for key in asked.asset_selection}
        assert {"raw_refit_requests", "response_rates", "ad_plan"} <= keys
        assert not keys & {"user_profiles", "demand_forecasts", "recommendations", "evaluation_report", "drift_report"}
        assert "calibration since 2026-08-09" in asked.tags["marketing/reason"]
        (row,) = read_requests(request_file(store, LAST))
        assert (row["asset"], row["action"], row["verdict_id"]) == ("response_rates", "refit", "abc")
        again = tick(store, "drift_verdicts", instance, result.cursor)
        assert not again.run_requests and len(read_requests(request_file(store, LAST))) == 1


def test_a_refit_whose_run_ended_half_way_is_asked_for_again_but_not_for_ever(shop_at: Callable[..., Store]) -> None:
    """The request is written once; without another run the models it names would never be made."""
    store = shop_at()
    job = definitions_of(store).resolve_job_def("build_day")
    with dg.DagsterInstance.ephemeral() as instance:
        live_ledger(store, instance, {"dagster/partition": LAST.isoformat()})
        write_verdict(store, LAST, "refit", "response_rates")
        keys = []
        for _ in range(3):
            (asked,) = tick(store, "drift_verdicts", instance).run_requests
            keys.append(asked.run_key)
            instance.create_run_for_job(job, tags=asked.tags, status=dg.DagsterRunStatus.FAILURE)
        assert len(set(keys)) == 3 and len(read_requests(request_file(store, LAST))) == 1
        assert not tick(store, "drift_verdicts", instance).run_requests
    with dg.DagsterInstance.ephemeral() as instance:
        live_ledger(store, instance, {"dagster/partition": LAST.isoformat()})
        instance.create_run_for_job(job, tags={"marketing/verdict": "abc"}, status=dg.DagsterRunStatus.SUCCESS)
        assert not tick(store, "drift_verdicts", instance).run_requests


def test_an_exported_plan_stays_and_the_request_is_for_tomorrow(shop_at: Callable[..., Store]) -> None:
    store = shop_at()
    manifest = store.folder / "exports" / LAST.isoformat() / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}", encoding="utf-8")
    with dg.DagsterInstance.ephemeral() as instance:
        live_ledger(store, instance, {"dagster/partition": LAST.isoformat()})
        write_verdict(store, LAST, "refit", "response_rates")
        assert not tick(store, "drift_verdicts", instance).run_requests
    assert read_requests(request_file(store, LAST)) == []
    assert len(read_requests(request_file(store, LAST + timedelta(days=1)))) == 1


@pytest.mark.parametrize("tags", [{}, {"dagster/partition": LAST.isoformat(), "dagster/backfill": "b"}])
def test_verdicts_of_a_backfill_are_shown_and_not_acted_on(shop_at: Callable[..., Store], tags: dict[str, str]) -> None:
    store = shop_at()
    with dg.DagsterInstance.ephemeral() as instance:
        live_ledger(store, instance, tags)
        write_verdict(store, LAST, "refit", "response_rates")
        assert isinstance(tick(store, "drift_verdicts", instance), dg.SkipReason)
    assert not request_file(store, LAST).exists()


def test_a_verdict_found_by_a_catch_up_is_acted_on(shop_at: Callable[..., Store]) -> None:
    store = shop_at()
    with dg.DagsterInstance.ephemeral() as instance:
        live_ledger(store, instance, {}, "catch_up_changes")
        write_verdict(store, LAST, "refit", "response_rates")
        assert len(tick(store, "drift_verdicts", instance).run_requests) == 1


def test_an_alert_asks_for_no_run(shop_at: Callable[..., Store]) -> None:
    store = shop_at()
    with dg.DagsterInstance.ephemeral() as instance:
        live_ledger(store, instance, {"dagster/partition": LAST.isoformat()})
        write_verdict(store, LAST, "alert", "")
        result = tick(store, "drift_verdicts", instance)
        assert not result.run_requests and result.cursor == "abc"


def test_the_drift_sensor_lets_a_table_learn_again(shop_at: Callable[..., Store]) -> None:
    store = shop_at()
    assert request_refit(store, FIRST, "user_profiles", "stop_learning", reason="data_quality since 2026-08-01", verdict_id="stop")
    with dg.DagsterInstance.ephemeral() as instance:
        live_ledger(store, instance, {"dagster/partition": LAST.isoformat()})
        write_verdict(store, LAST, "resume", "user_profiles")
        assert not tick(store, "drift_verdicts", instance).run_requests
        assert not tick(store, "drift_verdicts", instance).run_requests
    (row,) = read_requests(request_file(store, LAST + timedelta(days=1)))
    assert (row["asset"], row["action"], row["reason"]) == ("user_profiles", "resume", "data sound since 2026-08-09")


def test_runs_of_dead_processes_are_failed_and_living_ones_left() -> None:
    dead = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    mark = process_mark(dead.pid)
    assert mark is not None
    with dg.DagsterInstance.ephemeral() as instance:
        job = dg.job(name="j")(lambda: None)
        gone = instance.create_run_for_job(job, tags={PROCESS_TAG: mark}, status=dg.DagsterRunStatus.STARTED)
        mine = process_mark(os.getpid())
        assert mine is not None
        here = instance.create_run_for_job(job, tags={PROCESS_TAG: mine}, status=dg.DagsterRunStatus.STARTED)
        assert fail_dead_runs(instance) == []
        dead.kill()
        dead.wait()
        assert fail_dead_runs(instance) == [gone.run_id[:8]]
        statuses = {run.run_id: run.status for run in instance.get_runs()}
        assert statuses == {gone.run_id: dg.DagsterRunStatus.FAILURE, here.run_id: dg.DagsterRunStatus.STARTED}
    assert process_mark(dead.pid) is None


def test_a_refit_selects_the_named_branch_up_to_the_plan(lived: Path) -> None:
    store = load_store(lived / "store.yaml")
    chosen = refit_selection(store, ["response_rates"])
    assert chosen[0] == "raw_refit_requests" and "ad_plan" in chosen and "user_profiles" not in chosen
    assert "demand_forecasts" in refit_selection(store, ["demand_forecasts"])
    assert "inventory_plan" in refit_selection(store, ["demand_forecasts"])


def test_the_schedule_is_off_where_the_days_have_ended(lived: Path) -> None:
    store = load_store(lived / "store.yaml")
    (ended,) = definitions_of(store).schedules or []
    (going_on,) = definitions_of(store.model_copy(update={"last_day": None})).schedules or []
    statuses = [definitions_of(one).get_schedule_def("nightly").default_status for one in (store, store.model_copy(update={"last_day": None}))]
    assert statuses == [dg.DefaultScheduleStatus.STOPPED, dg.DefaultScheduleStatus.RUNNING]
    assert ended.name == going_on.name == "nightly"


def test_asset_events_of_a_run_are_stored_as_a_batch(tmp_path: Path) -> None:
    """A batch that cannot be stored is stored event by event instead, which Dagster only says on stderr and takes ten times as long."""
    from dagster._core.events import DagsterEvent, DagsterEventType, StepMaterializationData
    from dagster._core.events.log import EventLogEntry
    from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

    from marketing_assets.orchestration.storage import ShopStorage

    storage = ShopStorage.from_local(str(tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:
        storage.register_instance(instance)
        entries = []
        for day in days_between(FIRST, LAST):
            data = StepMaterializationData(dg.AssetMaterialization("items", partition=day.isoformat()))
            happened = DagsterEvent(DagsterEventType.ASSET_MATERIALIZATION.value, "job", event_specific_data=data)
            entries.append(EventLogEntry(None, 20, "made", "run", 1.0, None, None, happened))
        before = SqliteEventLogStorage.store_event
        SqliteEventLogStorage.store_event = lambda self, event: pytest.fail("stored one by one")  # type: ignore[assignment]
        try:
            storage.event_log_storage.store_event_batch(entries)
        finally:
            SqliteEventLogStorage.store_event = before  # type: ignore[method-assign]
        key = dg.AssetKey("items")
        assert storage.event_log_storage.get_materialized_partitions(key) == {str(day) for day in days_between(FIRST, LAST)}
    storage.event_log_storage.dispose()


def test_checks_stored_in_a_batch_are_found_as_if_stored_one_by_one(tmp_path: Path) -> None:
    """Planned and judged in one batch with an asset's events: one record, in its last state."""
    from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluation, AssetCheckEvaluationPlanned
    from dagster._core.events import DagsterEvent, DagsterEventType, StepMaterializationData
    from dagster._core.events.log import EventLogEntry

    from marketing_assets.orchestration.storage import ShopStorage

    key = dg.AssetCheckKey(dg.AssetKey("items"), "schema_holds")
    happened = [
        (DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED, AssetCheckEvaluationPlanned(asset_key=key.asset_key, check_name=key.name)),
        (DagsterEventType.ASSET_MATERIALIZATION, StepMaterializationData(dg.AssetMaterialization("items"))),
        (DagsterEventType.ASSET_CHECK_EVALUATION, AssetCheckEvaluation(asset_key=key.asset_key, check_name=key.name, passed=True, metadata={})),
    ]
    entries = [
        EventLogEntry(None, 20, "", "run", 1.0, None, None, DagsterEvent(kind.value, "job", event_specific_data=data)) for kind, data in happened
    ]
    found = {}
    with dg.DagsterInstance.ephemeral() as instance:
        for name in ("batch", "single"):
            storage = ShopStorage.from_local(str(tmp_path / name))
            storage.register_instance(instance)
            log = storage.event_log_storage
            if name == "batch":
                log.store_event_batch(entries)
            else:
                for entry in entries:
                    log.store_event(entry)
            records = log.get_asset_check_execution_history(key, limit=9)
            found[name] = [(record.status, record.run_id) for record in records], len(log.get_logs_for_run("run"))
            log.dispose()
    assert found["batch"] == found["single"]
    assert [status.value for status, _ in found["batch"][0]] == ["SUCCEEDED"] and found["batch"][1] == 3
