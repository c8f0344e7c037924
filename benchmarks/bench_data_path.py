"""From raw events to clean events, sessions, user, item and daily features, beside a bare DuckDB script and Polars.

    python benchmarks/bench_data_path.py [--events 2000000] [--days 56] [--repeats 3] [--threads 2] [--from raw|clean]

Each contender makes the same tables from the same events in a process of its own, in turn, several times; the order
rotates. Ours publishes through the warehouse (verified, hashed, in transactions). Printed: wall and CPU seconds, peak memory,
ratios to ours with their spread, and whether the contenders' tables agree. Bars: at most 1.3 x DuckDB, faster than
Polars, at most 4 GiB.
"""

# ruff: noqa: E501 - queries are easier to read whole
from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

FIRST = date(2024, 1, 1)
CONTENDERS = ("ours", "duckdb", "polars")
MEMORY_LIMIT = "2500MB"
CHECKS = {
    "sessions": "count(*), sum(events), sum(is_new::INT)",
    "item_days": "count(*), sum(units_sold), sum(views), sum(revenue)::DOUBLE",
    "user_features": "count(*), sum(orders), sum(revenue)::DOUBLE, sum(orders_decayed_30), sum(views_decayed_7), sum(sessions)",
    "user_preferences": "count(*), sum(weight), sum(share)",
    "item_features": "count(*), sum(units_sold), sum(units_decayed_90)",
    "items": "count(*)",
}


def make_events(folder: Path, events: int, days: int, seed: int, threads: int) -> int:
    """raw.duckdb (raw_events) and raw.parquet: sessions of a skewed crowd, as text; returns the number of rows.

    One row in a hundred is a duplicate, one in two hundred is broken, one in a hundred lands a day late, a tenth has no user.
    """
    import duckdb

    con = duckdb.connect(str(folder / "raw.duckdb"), config={"threads": threads, "memory_limit": MEMORY_LIMIT})
    visits, users, last = events // 9, max(50, events // 60), FIRST + timedelta(days=days - 1)

    def uniform(salt: int, of: str) -> str:
        return f"(hash({of}, {seed * 100 + salt}) % 1000003) / 1000003.0"

    con.execute(f"""
    CREATE TABLE raw_events AS
    WITH visits AS (
        SELECT i, CASE WHEN {uniform(1, "i")} >= 0.1 THEN 'u' || floor({users} * pow({uniform(2, "i")}, 2))::BIGINT END AS user_id,
            floor({uniform(3, "i")} * {days})::INT AS day, {uniform(4, "i")} * 86400 AS second,
            ['phone', 'desktop', 'tablet'][1 + floor({uniform(5, "i")} * 2.2)::INT] AS device,
            ['search', 'mail', 'ads', 'direct', 'social'][1 + floor({uniform(6, "i")} * 5)::INT] AS channel,
            least(60, 1 + floor(-8 * ln(1 - {uniform(7, "i")})))::INT AS steps
        FROM range({visits}) AS t(i)),
    steps AS (SELECT *, unnest(range(steps)) AS step FROM visits),
    drawn AS (
        SELECT *, floor(5000 * pow({uniform(8, "i, step")}, 3))::INT AS item, {uniform(9, "i, step")} AS kind, {uniform(10, "i, step")} AS chance
        FROM steps),
    typed AS (
        SELECT *, CASE WHEN kind < .80 THEN 'view_item' WHEN kind < .88 THEN 'search' WHEN kind < .90 THEN 'add_to_wishlist'
            WHEN kind < .955 THEN 'add_to_cart' WHEN kind < .97 THEN 'begin_checkout' WHEN kind < .99 THEN 'purchase'
            WHEN kind < .993 THEN 'refund' ELSE 'review' END AS event_type,
            TIMESTAMP '{FIRST}' + to_days(day) + to_microseconds((1e6 * (second + step * 45 + chance * 40))::BIGINT) AS moment
        FROM drawn),
    landed AS (
        SELECT *, least(moment::DATE + CASE WHEN chance < .01 THEN 1 ELSE 0 END, DATE '{last}') AS landed_date, unnest(range(CASE WHEN chance BETWEEN .5 AND .51
            THEN 2 ELSE 1 END)) AS copy FROM typed WHERE moment::DATE <= DATE '{last}')
    SELECT landed_date, md5(i || '-' || step || '-' || copy) AS raw_row_id, landed_date || '.csv' AS source_file, row_number() OVER () AS source_row,
        md5(i || '-' || step) AS row_hash, NULL::VARCHAR AS source_error, CASE WHEN chance BETWEEN .700 AND .705 THEN 'yesterday' ELSE moment::VARCHAR END AS event_at,
        user_id, event_type, CASE WHEN event_type <> 'search' THEN 'i' || item END AS item_id, 'e' || i || '-' || step AS event_id, NULL::VARCHAR AS session_id,
        CASE WHEN event_type IN ('purchase', 'refund') THEN 'o' || i END AS order_id,
        CASE WHEN event_type IN ('purchase', 'refund') THEN (1 + floor(chance * 3))::INT::VARCHAR END AS quantity,
        CASE WHEN event_type <> 'search' THEN (1 + (item % 97) * 1.25)::DECIMAL(18, 4)::VARCHAR END AS unit_price, NULL::VARCHAR AS discount,
        CASE WHEN event_type = 'review' THEN (1 + floor(chance * 5))::VARCHAR END AS rating, NULL::VARCHAR AS review_text,
        CASE WHEN event_type = 'view_item' THEN round(chance * 60, 1)::VARCHAR END AS dwell_seconds,
        CASE WHEN event_type = 'search' THEN 'query ' || item % 300 END AS search_query, device, channel, NULL::VARCHAR AS location_id,
        NULL::VARCHAR AS refunds_event_id
    FROM landed ORDER BY landed_date""")
    con.execute(f"COPY raw_events TO '{folder / 'raw.parquet'}' (FORMAT parquet, ROW_GROUP_SIZE 500000)")
    count = con.execute("SELECT count(*) FROM raw_events").fetchone()
    con.close()
    return int(count[0]) if count else 0


def prepare_clean(folder: Path, threads: int) -> None:
    """clean.duckdb and clean.parquet, by the bare script: the start of everyone where only features are measured."""
    import duckdb
    from data_path_peers import duckdb_clean

    con = duckdb.connect(str(folder / "clean.duckdb"), config={"threads": threads, "memory_limit": MEMORY_LIMIT})
    con.execute(f"ATTACH '{folder / 'raw.duckdb'}' AS raw (READ_ONLY); CREATE VIEW raw_events AS SELECT * FROM raw.raw_events")
    duckdb_clean(con)
    con.execute(
        "DROP VIEW raw_events; CREATE TABLE sorted AS SELECT * FROM clean_events ORDER BY landed_date; DROP TABLE clean_events; "
        "ALTER TABLE sorted RENAME TO clean_events"
    )
    con.execute(f"COPY clean_events TO '{folder / 'clean.parquet'}' (FORMAT parquet, ROW_GROUP_SIZE 500000)")
    con.close()


MAPPED = (
    *("event_at", "user_id", "event_type", "item_id", "event_id", "session_id", "order_id", "quantity", "unit_price", "discount"),
    *("rating", "review_text", "dwell_seconds", "search_query", "device", "channel", "location_id", "refunds_event_id"),
)


def ours(folder: Path, start: str, days: int, threads: int) -> dict[str, Any]:
    """Our functions, published through the warehouse into a new file."""
    import duckdb

    from marketing_assets import features
    from marketing_assets.config import Store
    from marketing_assets.warehouse import Warehouse, cut_by_rows, days_between

    store = Store.model_validate({
        "name": "bench", "timezone": "Europe/London", "currency": "GBP", "first_day": FIRST, "threads": threads,
        "sources": {"events": {"files": "{date}.csv", "columns": {name: name for name in MAPPED}}}, "cleaning": {"service_item_pattern": "^(POST|FEE)"},
    })  # fmt: skip
    target = folder / "ours.duckdb"
    target.unlink(missing_ok=True)
    con = duckdb.connect(
        str(target), config={"threads": threads, "memory_limit": MEMORY_LIMIT, "temp_directory": str(folder / "ours.tmp")}
    )
    warehouse = Warehouse(con, store, None)
    con.execute(f"ATTACH '{folder / f'{start}.duckdb'}' AS given (READ_ONLY)")
    con.execute(f"INSERT INTO {start}_events BY NAME SELECT * FROM given.{start}_events")
    con.execute("CHECKPOINT; DETACH given")
    landed = dict(con.execute(f"SELECT landed_date, count(*) FROM {start}_events GROUP BY ALL").fetchall())
    pieces = cut_by_rows(days_between(FIRST, FIRST + timedelta(days=days - 1)), landed)
    steps: dict[str, tuple[tuple[str, ...], Any]] = {}
    if start == "raw":
        from marketing_assets import cleaning

        names = ("clean_events", "clean_impressions", "attributed_conversions", "rejected_rows")
        steps["cleaning"] = (names, cleaning.build_cleaning)
    steps |= {
        "items": (("items",), features.build_items), "sessions": (("sessions",), features.build_sessions),
        "item_days": (("item_days",), features.build_item_days),
        "user_features": (("user_features", "user_preferences"), features.build_user_features),
        "item_features": (("item_features",), features.build_item_features),
    }  # fmt: skip
    seconds: dict[str, float] = {}
    before, cpu = time.perf_counter(), time.process_time()
    for step, (names, build) in steps.items():
        began = time.process_time()
        with warehouse.transaction():
            for piece in pieces:
                warehouse.replace_window(step, names, piece, build(warehouse.reader(piece[-1]), piece, store))
        seconds[step] = round(time.process_time() - began, 2)
    con.execute("CHECKPOINT")
    measured = {"wall": time.perf_counter() - before, "cpu": time.process_time() - cpu, "steps": seconds}
    return {**measured, "peak": peak_kilobytes(), "checks": _checks(con)}


def bare_duckdb(folder: Path, start: str, days: int, threads: int) -> dict[str, Any]:
    import duckdb
    from data_path_peers import duckdb_clean, duckdb_features

    target = folder / "peer.duckdb"
    target.unlink(missing_ok=True)
    con = duckdb.connect(
        str(target), config={"threads": threads, "memory_limit": MEMORY_LIMIT, "temp_directory": str(folder / "peer.tmp")}
    )
    con.execute(
        f"SET preserve_insertion_order = false; SET TimeZone = 'UTC'; ATTACH '{folder / f'{start}.duckdb'}' AS given (READ_ONLY)"
    )
    con.execute(f"CREATE TABLE {start}_events AS SELECT * FROM given.{start}_events")
    con.execute("CHECKPOINT; DETACH given")
    before, cpu = time.perf_counter(), time.process_time()
    if start == "raw":
        duckdb_clean(con)
    duckdb_features(con, FIRST, FIRST + timedelta(days=days - 1))
    con.execute("CHECKPOINT")
    measured = {"wall": time.perf_counter() - before, "cpu": time.process_time() - cpu, "peak": peak_kilobytes()}
    return {**measured, "checks": _checks(con)}


def with_polars(folder: Path, start: str, days: int, threads: int) -> dict[str, Any]:
    import duckdb
    from data_path_peers import polars_clean, polars_features

    out = folder / "polars"
    out.mkdir(exist_ok=True)
    before, cpu = time.perf_counter(), time.process_time()
    clean = folder / "clean.parquet"
    if start == "raw":
        clean = out / "clean_events.parquet"
        polars_clean(folder / "raw.parquet", clean)
    polars_features(clean, out, FIRST, FIRST + timedelta(days=days - 1))
    measured = {"wall": time.perf_counter() - before, "cpu": time.process_time() - cpu}
    peak = peak_kilobytes()
    con = duckdb.connect()
    for name in CHECKS:
        con.execute(f"CREATE VIEW {name} AS SELECT * FROM '{out / f'{name}.parquet'}'")
    return {**measured, "checks": _checks(con), "peak": peak}


def peak_kilobytes() -> int:
    """Largest resident memory of this process; getrusage would count what the starting process held."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def _checks(con: Any) -> dict[str, list[float]]:
    found = {name: con.execute(f"SELECT {columns} FROM {name}").fetchone() for name, columns in CHECKS.items()}
    return {name: [float(value) for value in row] for name, row in found.items()}


RUNS = {"ours": ours, "duckdb": bare_duckdb, "polars": with_polars}


def measure(name: str, folder: Path, start: str, days: int, threads: int) -> dict[str, Any]:
    """One contender in a process of its own."""
    command = [
        sys.executable,
        __file__,
        "--one",
        name,
        "--folder",
        str(folder),
        "--from",
        start,
        "--days",
        str(days),
        "--threads",
        str(threads),
    ]
    environment = {**os.environ, "POLARS_MAX_THREADS": str(threads), "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return {"failed": f"ended with {done.returncode}"}
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def agree(left: dict[str, list[float]], right: dict[str, list[float]], tolerance: float) -> list[str]:
    """Where totals differ. From raw events a few late rows may: the peers put them in order, ours leaves past sessions alone."""
    return [
        f"{name}: {left[name]} against {right[name]}" for name in left
        if any(abs(one - other) > tolerance * max(1.0, abs(one)) for one, other in zip(left[name], right[name], strict=True))
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--days", type=int, default=56)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--from", dest="start", choices=("raw", "clean"), default="raw")
    parser.add_argument("--without", nargs="*", default=[], choices=CONTENDERS)
    parser.add_argument("--folder", type=Path, help="where to work (default: a new folder, removed at the end)")
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        result = RUNS[given.one](given.folder, given.start, given.days, given.threads)
        result.setdefault("peak", peak_kilobytes())
        print(json.dumps(result))
        return
    names = [name for name in CONTENDERS if name not in given.without]
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        folder = Path(temporary)
        rows = make_events(folder, given.events, given.days, 1, given.threads)
        if given.start == "clean":
            prepare_clean(folder, given.threads)
        print(
            f"{rows:,} raw events over {given.days} days, {given.threads} threads, from {given.start} events, {given.repeats} repeats"
        )
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for repeat in range(given.repeats):
            for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
                result = measure(name, folder, given.start, given.days, given.threads)
                runs[name].append(result)
                if "failed" in result:
                    print(f"  {name:8s} {result['failed']}")
                    continue
                steps = "  ".join(f"{step} {seconds}" for step, seconds in result.get("steps", {}).items())
                print(
                    f"  {name:8s} wall {result['wall']:7.1f} s   CPU {result['cpu']:7.1f} s   peak {result['peak'] / 2**20:5.2f} GiB   {steps}",
                    flush=True,
                )
    reference = [run for run in runs.get("ours", []) if "failed" not in run]
    for name in names:
        done = [run for run in runs[name] if "failed" not in run]
        if name == "ours" or not done or not reference:
            continue
        for unit in ("wall", "cpu"):
            ratios = [mine[unit] / theirs[unit] for mine, theirs in zip(reference, done, strict=False)]
            print(f"ours / {name:7s} {unit:4s} {statistics.median(ratios):5.2f}   ({min(ratios):.2f} to {max(ratios):.2f})")
        for difference in agree(reference[0]["checks"], done[0]["checks"], 1e-6 if given.start == "clean" else 1e-4):
            print(f"  DIFFERS {name} {difference}")
    if reference:
        print(f"ours peak memory {max(run['peak'] for run in reference) / 2**20:.2f} GiB (bar 4)")


if __name__ == "__main__":
    main()
