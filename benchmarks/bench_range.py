"""online_retail as one range through Dagster, and one small day: our own work, Dagster's event log, and the rest.

    python benchmarks/bench_range.py [--methods plain|learned] [--last 2011-10-14] [--small]

Needs MARKETING_DATA. The range is run by `dagster asset materialize` into a new warehouse. Own work is the sum of what the
steps took by their own clock (computing, verifying, publishing); the rest is Dagster's log, imports and starting. `--small` times
one more day of a tiny sample shop instead. Bars: own work 90 s and 4 minutes in all with plain methods; 15 s for the small day.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STEP = re.compile(r"- (\w+) (\d{4}-\d\d-\d\d)(?:\.\.\.\S+ \(\d+ days\))?: [\d,]+ rows in ([\d.]+) s")


def materialize(store: Path, *days: str) -> tuple[float, float, dict[str, float]]:
    """Wall seconds, CPU seconds and own seconds by step of one command. Raises RuntimeError where it fails."""
    environment = {
        **os.environ, "MARKETING_STORE": str(store), "PYTHONWARNINGS": "ignore",
        "MARKETING_DAGSTER_STORAGE": str(store.parent / "dagster"),
    }
    command = [str(Path(sys.executable).parent / "dagster"), "asset", "materialize", "-m", "marketing_assets.definitions", "--select", "*", *days]
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(done.stdout[-3000:])
    own = {step: float(seconds) for step, _, seconds in STEP.findall(done.stdout)}
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, cpu, own


def report(name: str, wall: float, cpu: float, own: dict[str, float]) -> None:
    for step, seconds in own.items():
        if seconds >= 0.2:
            print(f"  {step:24s} {seconds:6.1f} s")
    print(f"{name}: own work {sum(own.values()):.1f} s, in all {wall:.1f} s wall, {cpu:.1f} s CPU", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--methods", choices=("plain", "learned"), default="plain")
    parser.add_argument("--last", default="2011-10-14")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--repeats", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        store = Path(temporary) / "store.yaml"
        if given.small:
            text = (ROOT / "data/sample_shop/store.yaml").read_text(encoding="utf-8").replace("last_day: 2026-10-30", "last_day: 2026-08-20")
            store.write_text(text, encoding="utf-8")
            subprocess.run([str(Path(sys.executable).parent / "marketing"), "sample-shop", "--size", "tiny", "--store", str(store)], check=True)
            materialize(store, "--partition-range", "2026-08-03...2026-08-13")
            for day in range(14, 14 + min(given.repeats, 7)):
                report(f"one small day, {day} August", *materialize(store, "--partition", f"2026-08-{day}"))
            return
        ready = (ROOT / "data/stores/online_retail/store.yaml").read_text(encoding="utf-8")
        store.write_text(f"{ready}\nmethods: {given.methods}\n", encoding="utf-8")
        report(f"online_retail, {given.methods}", *materialize(store, "--partition-range", f"2010-12-01...{given.last}"))


if __name__ == "__main__":
    main()
