"""Does a day cost more the longer the history? Day 51 against day 247, same number of events.

    python benchmarks/bench_one_day.py [--events-per-day 20000] [--repeats 5] [--threads 1]

Two warehouses of one shop, one built up to the day before day 51, one to the day before day 247. Neither is a cadence day,
both lie equally far from the last keyframe. Then the day alone is built in each, in turn, several times, and rolled back.
Printed: CPU and wall seconds of each step and day, and their ratio. Bar: 1.2.
"""


from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from bench_data_path import FIRST, MAPPED, MEMORY_LIMIT, make_events  # noqa: E402

DAYS = (50, 246)


class RolledBack(Exception):
    """Ends a transaction without its changes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--events-per-day", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()

    import duckdb

    from marketing_assets import cleaning, features
    from marketing_assets.config import KEYFRAME_DAYS, REISSUE_DAYS, Store
    from marketing_assets.warehouse import Warehouse, cut_by_rows, days_between

    store = Store.model_validate({
        "name": "bench", "timezone": "Europe/London", "currency": "GBP", "first_day": FIRST, "threads": given.threads,
        "sources": {"events": {"files": "{date}.csv", "columns": {name: name for name in MAPPED}}},
        "cleaning": {"service_item_pattern": "^(POST|FEE)"},
    })  # fmt: skip
    clean = ("clean_events", "clean_impressions", "attributed_conversions", "rejected_rows")
    steps: dict[str, tuple[Sequence[str], Any]] = {
        "cleaning": (clean, cleaning.build_cleaning), "items": (("items",), features.build_items),
        "sessions": (("sessions",), features.build_sessions), "item_days": (("item_days",), features.build_item_days),
        "user_features": (("user_features", "user_preferences"), features.build_user_features),
        "item_features": (("item_features",), features.build_item_features),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = make_events(folder, given.events_per_day * (DAYS[-1] + 1), DAYS[-1] + 1, 1, given.threads)
        print(f"{rows:,} raw events over {DAYS[-1] + 1} days, {given.threads} threads, {given.repeats} repeats")

        def build(warehouse: Warehouse, days: Sequence[date], step: str) -> None:
            names, make = steps[step]
            warehouse.replace_window(step, names, days, make(warehouse.reader(days[-1]), days, store))

        shops = {}
        for number in DAYS:
            day = FIRST + timedelta(days=number)
            assert not store.is_cadence_day(day, REISSUE_DAYS)
            assert number % KEYFRAME_DAYS == DAYS[0] % KEYFRAME_DAYS
            con = duckdb.connect(
                str(folder / f"shop{number}.duckdb"), config={"threads": str(given.threads), "memory_limit": MEMORY_LIMIT}
            )
            shops[number] = Warehouse(con, store, None)
            con.execute(f"ATTACH '{folder / 'raw.duckdb'}' AS given (READ_ONLY)")
            con.execute(
                "INSERT INTO raw_events BY NAME SELECT * FROM given.raw_events WHERE landed_date <= ? ORDER BY landed_date", [day]
            )
            con.execute("DETACH given")
            landed = dict(con.execute("SELECT landed_date, count(*) FROM raw_events GROUP BY ALL").fetchall())
            for step in steps:
                with shops[number].transaction():
                    for window in cut_by_rows(days_between(FIRST, day - timedelta(days=1)), landed):
                        build(shops[number], window, step)
            con.execute("CHECKPOINT")
        cpu: dict[int, dict[str, list[float]]] = {number: {step: [] for step in steps} for number in DAYS}
        wall: dict[int, list[float]] = {number: [] for number in DAYS}
        for repeat in range(given.repeats + 1):
            for number, warehouse in shops.items():
                began = time.perf_counter()
                try:
                    with warehouse.transaction():
                        for step in steps:
                            before = time.process_time()
                            build(warehouse, [FIRST + timedelta(days=number)], step)
                            if repeat:  # the first one warms caches
                                cpu[number][step].append(time.process_time() - before)
                        raise RolledBack
                except RolledBack:
                    if repeat:
                        wall[number].append(time.perf_counter() - began)
    first, last = (cpu[number] for number in DAYS)
    for step in steps:
        one, other = statistics.median(first[step]), statistics.median(last[step])
        print(f"  {step:15s} CPU {one:6.2f} s on day {DAYS[0] + 1}, {other:6.2f} s on day {DAYS[1] + 1}: {other / one:.2f}")
    totals = [[sum(parts) for parts in zip(*days.values(), strict=True)] for days in (first, last)]
    ratios = [other / one for one, other in zip(*totals, strict=True)]
    print(
        f"all CPU  {statistics.median(totals[0]):.2f} s, then {statistics.median(totals[1]):.2f} s: {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}), bar 1.2"
    )
    print(f"all wall {statistics.median(wall[DAYS[0]]):.2f} s, then {statistics.median(wall[DAYS[1]]):.2f} s")


if __name__ == "__main__":
    main()
