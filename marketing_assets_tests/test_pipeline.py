"""The whole graph on a tiny shop: no leakage, range = days, idempotence, gaps, mending, kills, and two runs at once."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from marketing_assets import pipeline
from marketing_assets.config import REPOSITORY_ROOT, Store
from marketing_assets.pipeline import step_of_table, steps_of, tables_after
from marketing_assets.running import mend, run_days, run_step
from marketing_assets.schemas import TABLES
from marketing_assets.warehouse import (
    MissingPartitions,
    Warehouse,
    WarehouseBusy,
    WarehouseError,
    create_tables,
    cut_by_rows,
    days_between,
    open_warehouse,
    read_ledger_copy,
    warehouse_path,
    writing,
)
from marketing_assets_tests.conftest import FIRST, LAST

pytestmark = pytest.mark.timeout(900)
SPLIT = LAST - timedelta(days=2)
DATA_PATH = ("cleaning", "items", "sessions", "item_days")


def quiet(text: str) -> None:
    """Progress nobody reads."""


def build(store: Store, days: list[date], steps: tuple[str, ...] | None = None) -> None:
    with open_warehouse(store, "test", tell=quiet) as warehouse:
        run_days(warehouse, days, "test", quiet, steps)


CHILD = """
import sys
from datetime import date
from pathlib import Path
from marketing_assets.config import load_store
from marketing_assets_tests.test_pipeline import build
build(load_store(Path(sys.argv[1]) / "store.yaml"), [date.fromisoformat(sys.argv[2])], tuple(sys.argv[3:]))
"""
"""What a child process runs until it is killed; a fork would not do, engines do not survive one."""


def ledger_hashes(store: Store) -> dict[tuple[str, date], str]:
    frame = read_ledger_copy(store)
    return {(table, day): content for table, day, content in frame.select("table_name", "partition_date", "content_hash").iter_rows()}


def read(store: Store, table: str, day: date) -> pl.DataFrame:
    spec = TABLES[table]
    chosen = ", ".join(name for name in spec.columns if name not in spec.measured)
    with duckdb.connect(str(warehouse_path(store)), read_only=True) as connection:
        order = ", ".join(f"{key} NULLS FIRST" for key in spec.key)
        return connection.execute(f"SELECT {chosen} FROM {table} WHERE {spec.partition_column} = ? ORDER BY {order}", [day]).pl()


def assert_same(one: Store, other: Store, tables: list[str], days: list[date]) -> None:
    """Equal keys, integers, decimals and text; floating-point numbers within 1e-9 relative."""
    left, right = ledger_hashes(one), ledger_hashes(other)
    for table in tables:
        for day in days:
            if left[table, day] != right[table, day]:  # single precision may round the two ways
                assert_frame_equal(read(one, table, day), read(other, table, day), rel_tol=1e-9, abs_tol=1e-9, check_exact=False)


def all_tables(store: Store) -> list[str]:
    return [table for step in steps_of(store) for table in step.tables]


@pytest.fixture(scope="module")
def whole(lived: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The tiny shop built as one range; read only."""
    from marketing_assets.config import load_store

    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(lived / "landing", folder / "landing")
    shutil.copy(lived / "store.yaml", folder / "store.yaml")
    store = load_store(folder / "store.yaml")
    build(store, days_between(FIRST, LAST))
    yield store


def copy_of(store: Store, target: Path) -> Store:
    from marketing_assets.config import load_store

    shutil.copytree(store.folder, target)
    return load_store(target / "store.yaml")


def test_every_table_is_built_for_every_day_and_most_hold_rows(whole: Store) -> None:
    """An empty table in the sample shop would be a step that reads nothing."""
    ledger = read_ledger_copy(whole)
    counts = dict(ledger.group_by("table_name").agg(pl.col("rows").sum()).iter_rows())
    assert set(counts) == set(all_tables(whole))
    assert ledger.height == len(counts) * len(days_between(FIRST, LAST))
    empty = {table for table, rows in counts.items() if rows == 0}
    assert empty <= {
        "raw_refit_requests", "raw_plan_overrides", "user_ad_plan", "service_tickets", "off_policy_report", "experiment_report",
        "raw_erasures", "raw_identities", "raw_surveys", "attributed_conversions", "raw_conversions", "drift_report",
    }  # fmt: skip
    assert not ledger["degraded"].drop_nulls().len()


def test_no_leak_and_days_equal_a_range(whole: Store, shop_at: Callable[..., Store]) -> None:
    """Each of the last days is built alone, before anything later has landed: every partition must be the range's."""
    store = shop_at("days", until=SPLIT)
    build(store, days_between(FIRST, SPLIT))
    for day in days_between(SPLIT + timedelta(days=1), LAST):
        build(shop_at("days", until=day), [day])
    assert_same(whole, store, all_tables(whole), days_between(FIRST, LAST))
    columns = ["table_name", "partition_date", "state_hash", "input_fingerprint"]
    ledgers = [read_ledger_copy(one).select(columns).filter(~pl.col("table_name").str.starts_with("raw_")) for one in (whole, store)]
    assert_frame_equal(*ledgers)  # so that mending finds nothing to do after either


def test_a_long_range_is_cut_into_pieces(whole: Store, shop_at: Callable[..., Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces hold rows or days enough, none is lost, and what is published is what one piece gives."""
    days = days_between(FIRST, LAST)
    assert cut_by_rows(days, dict.fromkeys(days, writing.RANGE_ROWS)) == [days]  # days enough for no second piece
    monkeypatch.setattr(writing, "KEYFRAME_DAYS", 2)
    monkeypatch.setattr(writing, "RANGE_ROWS", 5)
    rows = {day: number for number, day in enumerate(days)}
    pieces = cut_by_rows(days, rows)
    assert [day for piece in pieces for day in piece] == days and len(pieces) > 1
    assert all(len(piece) >= 2 and sum(rows[day] for day in piece) >= 5 for piece in pieces[:-1])
    store = shop_at("pieces")
    steps = ("cleaning", "items", "sessions", "item_days", "user_features", "item_features")
    build(store, days, (*(f"source_{name}" for name in store.sources), "source_refit_requests", "source_plan_overrides", *steps))
    assert_same(whole, store, [table for step in steps_of(store) if step.name in steps for table in step.tables], days)


def test_running_again_changes_nothing(whole: Store, tmp_path: Path) -> None:
    store = copy_of(whole, tmp_path / "again")
    before = read_ledger_copy(store)
    with open_warehouse(store, "test", tell=quiet) as warehouse:
        for result in run_days(warehouse, [LAST], "another run", quiet):
            assert not result.changed, result.step.name
        assert not mend(warehouse, days_between(FIRST, LAST), "mending", quiet).rebuilt
    assert_frame_equal(before, read_ledger_copy(store))


def test_ledger_tells_what_the_tables_hold(whole: Store) -> None:
    with duckdb.connect(str(warehouse_path(whole)), read_only=True) as connection:
        for (table,), rows in read_ledger_copy(whole).group_by("table_name"):
            held = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            assert held == (rows["rows"].sum(),), table


def test_raw_is_clean_plus_rejected(whole: Store) -> None:
    counts = {(table, day): rows for table, day, rows in read_ledger_copy(whole).select("table_name", "partition_date", "rows").iter_rows()}
    refused = pl.concat([read(whole, "rejected_rows", day) for day in days_between(FIRST, LAST)])
    for source in ("events", "impressions"):
        for day in days_between(FIRST, LAST):
            bad = refused.filter(pl.col("source") == source, pl.col("landed_date") == day).height
            assert counts[f"raw_{source}", day] == counts[f"clean_{source}", day] + bad


def test_a_gap_is_an_error_that_names_it(shop_at: Callable[..., Store]) -> None:
    store = shop_at()
    with open_warehouse(store, "test", tell=quiet) as warehouse:
        run_days(warehouse, [FIRST], "test", quiet, [f"source_{name}" for name in store.sources])
        with pytest.raises(MissingPartitions, match=r"raw_events: 2026-08-04\.\.\.2026-08-05"):
            run_step(warehouse, step_of_table(store)["raw_events"], [FIRST + timedelta(days=3)], "test")
        with pytest.raises(MissingPartitions, match="raw_refit_requests: 2026-08-03"):
            run_step(warehouse, step_of_table(store)["clean_events"], [FIRST], "test")
        assert not [key for key in warehouse.ledger if key[1] > FIRST]


def rewrite(store: Store, day: date, change: Callable[[list[str]], list[str]]) -> None:
    path = store.folder / "landing" / "events" / f"{day}.csv.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    path.write_bytes(gzip.compress(("\n".join(change(lines)) + "\n").encode()))


def test_a_changed_file_rebuilds_what_follows_and_nothing_else(whole: Store, tmp_path: Path) -> None:
    """A line is taken out of one day's file; the mended shop must equal one built anew from the changed files."""
    changed = LAST - timedelta(days=1)
    store = copy_of(whole, tmp_path / "mended")
    before = ledger_hashes(store)
    rewrite(store, changed, lambda lines: lines[:40] + lines[41:])
    with open_warehouse(store, "test", tell=quiet) as warehouse:
        done = mend(warehouse, days_between(FIRST, LAST), "mending", quiet)
    after = ledger_hashes(store)
    assert done.rebuilt["source_events"] == [changed]
    assert min(min(days) for days in done.rebuilt.values()) == changed
    assert {key for key in after if after[key] != before[key]} <= done.changed
    assert not any(step.startswith("source_") and step != "source_events" for step in done.rebuilt)
    anew = copy_of(store, tmp_path / "anew")
    for name in ("warehouse.duckdb", "ledger.parquet"):
        (anew.folder / name).unlink()
    build(anew, days_between(FIRST, LAST), tuple(step.name for step in steps_of(anew) if step.group in ("sources", "cleaning", "features")))
    tables = [table for step in steps_of(anew) if step.group in ("sources", "cleaning", "features") for table in step.tables]
    assert_same(store, anew, tables, days_between(FIRST, LAST))


def test_killed_at_any_moment_every_table_is_old_or_new(shop_at: Callable[..., Store]) -> None:
    """SIGKILL at 20 random moments of a run that replaces a day; afterwards the next run mends what is left."""
    store, day = shop_at(), FIRST + timedelta(days=1)
    steps = (*(f"source_{name}" for name in (*store.sources, "refit_requests", "plan_overrides")), *DATA_PATH)
    build(store, [FIRST, day], steps)
    old = ledger_hashes(store)
    rewrite(store, day, lambda lines: lines[: len(lines) // 2])
    copy = store.folder.parent / "new"
    shutil.copytree(store.folder, copy)
    from marketing_assets.config import load_store

    newer = load_store(copy / "store.yaml")
    def started(folder: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-W", "ignore", "-c", CHILD, str(folder), str(day), *steps], cwd=REPOSITORY_ROOT)

    began = time.monotonic()
    assert started(newer.folder).wait() == 0
    seconds = time.monotonic() - began
    new = ledger_hashes(newer)
    assert new[("clean_events", day)] != old[("clean_events", day)]
    chance = random.Random(5)
    outcomes = set()
    spare = store.folder / "spare.duckdb"
    shutil.copy(warehouse_path(store), spare)
    for attempt in range(20):
        if attempt % 2 == 0:  # every other kill from the old state again; between them from whatever a kill left
            shutil.copy(spare, warehouse_path(store))
        child = started(store.folder)
        time.sleep(chance.uniform(0.3, 1.05) * seconds)
        child.kill()
        child.wait()
        with open_warehouse(store, "test", wait_seconds=5, tell=quiet) as warehouse:
            for table in (table for step in steps_of(store) if step.name in steps for table in step.tables):
                held = warehouse.ledger[table, day].content_hash
                assert held in (old[table, day], new[table, day]), table
                outcomes.add((table, held == new[table, day]))
                recomputed = warehouse.partition_hashes(TABLES[table], day, day)[day]
                assert recomputed == (warehouse.ledger[table, day].rows, held), table
    assert len(outcomes) > len({table for table, _ in outcomes}), "no kill fell between two steps"
    build(store, [day], steps)
    assert {key: value for key, value in ledger_hashes(store).items() if key[1] == day} == {
        key: value for key, value in new.items() if key[1] == day
    }


def test_a_failing_step_publishes_nothing(shop_at: Callable[..., Store], monkeypatch: pytest.MonkeyPatch) -> None:
    store = shop_at()
    build(store, [FIRST], ("source_events",))
    before = read_ledger_copy(store)
    with open_warehouse(store, "test", tell=quiet) as warehouse:
        def fails(*_: object) -> dict[str, object]:
            raise RuntimeError("late failure")

        monkeypatch.setattr(Warehouse, "states", fails)
        with pytest.raises(RuntimeError, match="late failure"):
            run_step(warehouse, step_of_table(store)["raw_items"], [FIRST], "test")
        assert ("raw_items", FIRST) not in warehouse.ledger
        assert warehouse.connection.execute("SELECT count(*) FROM raw_items").fetchone() == (0,)
    assert_frame_equal(before, read_ledger_copy(store))


def test_a_second_run_waits_or_is_refused_by_name(shop_at: Callable[..., Store]) -> None:
    store = shop_at()
    heard: list[str] = []
    with open_warehouse(store, "the first run", tell=quiet):
        child = os.fork()
        if child == 0:
            try:
                with open_warehouse(store, "the second run", wait_seconds=0.5, tell=heard.append):
                    os._exit(1)
            except WarehouseBusy as error:
                os._exit(0 if "the first run" in str(error) and heard and "waiting" in heard[0] else 2)
            finally:
                os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with open_warehouse(store, "the third run", wait_seconds=0.5, tell=quiet):
        pass


def test_tables_after_names_all_that_read_a_table(whole: Store) -> None:
    after = tables_after(whole, ["response_rates"])
    assert after[0] == "response_rates" and {"ad_plan", "evaluation_report", "drift_report", "daily_report"} <= set(after)
    assert "clean_events" not in after and "demand_forecasts" not in after


def test_steps_read_only_what_earlier_steps_make(whole: Store) -> None:
    """The order of steps is the order of the graph; a step may read its own past."""
    made: set[str] = set()
    for step in steps_of(whole):
        for table in step.reads:
            assert table in made or table in step.tables, (step.name, table)
        made |= set(step.tables)
    assert {table for table in TABLES if not table.startswith("raw_")} >= made - {name for name in made if name.startswith("raw_")}


def test_code_versions_follow_the_source() -> None:
    step = next(step for step in pipeline._STEPS if step.name == "drift")
    assert step.code_version == pipeline._code_version("marketing_assets.drift")
    assert step.code_version != pipeline._code_version("marketing_assets.evaluation")


def test_a_failed_write_of_many_rows_says_why_and_leaves_nothing() -> None:
    """What goes wrong in one of the engine's threads is what the caller is told."""
    from marketing_assets.warehouse import Built, polars_schema

    store = Store.model_validate({
        "name": "many", "timezone": "UTC", "currency": "EUR", "first_day": "2026-01-01", "threads": 2,
        "sources": {"events": {"files": "{date}.csv", "columns": {"*": "*"}}},
    })  # fmt: skip
    many = 200_000
    keys = pl.DataFrame({"as_of_date": [store.first_day] * many, "feature": [str(number) for number in range(many)]})
    bad = keys.select(name if name in keys.columns else pl.lit("no number").alias(name) for name in polars_schema("profile_weights"))
    with open_warehouse(store, in_memory=True) as warehouse:
        with pytest.raises(duckdb.ConversionException, match="no number"), warehouse.transaction():
            warehouse.replace_window("profiles", ["profile_weights"], [store.first_day], Built({"profile_weights": bad}))
        assert warehouse.connection.execute("SELECT count(*) FROM profile_weights").fetchone() == (0,)


@pytest.mark.parametrize("stray", [None, FIRST + timedelta(days=1)])
def test_rows_of_no_day_or_another_are_refused(stray: date | None) -> None:
    from marketing_assets.warehouse import Built, InvalidTable, polars_schema

    store = Store.model_validate({
        "name": "stray", "timezone": "UTC", "currency": "EUR", "first_day": FIRST,
        "sources": {"events": {"files": "{date}.csv", "columns": {"*": "*"}}},
    })  # fmt: skip
    rows = pl.DataFrame({"as_of_date": [FIRST, stray], "item_id": ["a", "b"], "first_seen_date": FIRST, "is_service": False, "has_list_price": False})
    rows = pl.concat([pl.DataFrame(schema=polars_schema("items")), rows], how="diagonal_relaxed").select(*polars_schema("items"))
    with open_warehouse(store, in_memory=True) as warehouse:
        with pytest.raises(InvalidTable, match="1 rows without as_of_date in 2026-08-03"), warehouse.transaction():
            warehouse.replace_window("items", ["items"], [FIRST], Built({"items": rows}))
        assert warehouse.connection.execute("SELECT count(*) FROM items").fetchone() == (0,)


@pytest.mark.parametrize(
    ("column", "bad"),
    [("demand_p90", float("nan")), ("demand_p90", float("inf")), ("demand_mean", None), ("demand_mean", -0.5), ("horizon_days", 0),
     ("level", "planet"), ("series_id", None)],
)  # fmt: skip
@pytest.mark.parametrize("place", [0, 150_000, 299_999])
def test_one_bad_row_among_many_is_found_wherever_it_lies(column: str, bad: object, place: int) -> None:
    """The engine skips blocks whose known limits keep a rule: one that does not must never be among them, not even with nan in it."""
    from marketing_assets.warehouse import Built, InvalidTable, polars_schema

    store = Store.model_validate({
        "name": "many", "timezone": "UTC", "currency": "EUR", "first_day": "2026-01-01",
        "sources": {"events": {"files": "{date}.csv", "columns": {"*": "*"}}},
    })  # fmt: skip
    many, schema = 300_000, polars_schema("demand_forecasts")
    numbers = pl.int_range(many, eager=True)
    good = pl.DataFrame({"series_id": numbers.cast(pl.String), "demand_mean": numbers / 7}).with_columns(
        as_of_date=pl.lit(store.first_day), level=pl.lit("item"), date=pl.lit(store.first_day), horizon_days=pl.lit(1, pl.Int64), model=pl.lit("one"),
        item_id=pl.lit(None, pl.String), location_id=pl.lit(None, pl.String),
        **{name: pl.lit(2.0) for name in schema if name.startswith("demand_") and name != "demand_mean"},
    ).select(pl.col(name).cast(kind) for name, kind in schema.items())
    is_there = pl.int_range(pl.len()) == place
    broken = good.with_columns(pl.when(is_there).then(pl.lit(bad, schema[column])).otherwise(pl.col(column)).alias(column))
    with open_warehouse(store, in_memory=True) as warehouse:
        with warehouse.transaction():
            warehouse.replace_window("demand", ["demand_forecasts"], [store.first_day], Built({"demand_forecasts": good}))
        with pytest.raises(InvalidTable, match=column), warehouse.transaction():
            warehouse.replace_window("demand", ["demand_forecasts"], [store.first_day], Built({"demand_forecasts": broken}))


def test_a_warehouse_from_before_is_given_new_columns_and_other_changes_are_told() -> None:
    connection = duckdb.connect(":memory:")
    create_tables(connection)
    columns = list(TABLES["raw_market_days"].columns)
    connection.execute(f"INSERT INTO raw_market_days (landed_date, raw_row_id) VALUES ('{FIRST}', 'r')")
    connection.execute(f"ALTER TABLE raw_market_days DROP COLUMN {columns[-1]}")
    create_tables(connection)
    assert [name for name, *_ in connection.execute("DESCRIBE raw_market_days").fetchall()] == columns
    assert connection.execute(f"SELECT raw_row_id, {columns[-1]} FROM raw_market_days").fetchall() == [("r", None)]
    connection.execute(f"ALTER TABLE raw_market_days DROP COLUMN {columns[-2]}")
    with pytest.raises(WarehouseError, match=r"raw_market_days was built with the columns .* Move the warehouse file away"):
        create_tables(connection)
    connection.execute("DROP TABLE raw_market_days")
    connection.execute("CREATE TABLE raw_market_days (landed_date DATE, raw_row_id VARCHAR)")
    with pytest.raises(WarehouseError, match="Move the warehouse file away"):  # a day landed without its file has no place
        create_tables(connection)
