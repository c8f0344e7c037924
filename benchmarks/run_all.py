"""Every benchmark, one after the other, each in a process of its own: `make bench`.

    python benchmarks/run_all.py [names ...]

A benchmark that needs the public sets is left out where MARKETING_DATA is not set, one that needs a peer which is not installed
says so. Speed is worth reading on an idle machine only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
NEEDS_DATA = {"bench_profiles", "bench_uplift", "bench_recommendations", "bench_forecasting", "bench_inventory", "bench_places", "bench_reviews"}


def main(wanted: list[str]) -> int:
    failed = []
    for path in sorted(HERE.glob("bench_*.py")):
        if wanted and path.stem not in wanted:
            continue
        if path.stem in NEEDS_DATA and "MARKETING_DATA" not in os.environ:
            print(f"== {path.stem}: left out, MARKETING_DATA is not set", flush=True)
            continue
        print(f"== {path.stem}", flush=True)
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-W", "ignore", str(path)], cwd=HERE.parent, check=False,
                              env={**os.environ, "PYTHONPATH": str(HERE.parent)})
        print(f"== {path.stem}: {'done' if done.returncode == 0 else 'FAILED'} after {time.perf_counter() - began:.0f} s", flush=True)
        if done.returncode:
            failed.append(path.stem)
    print(f"failed: {', '.join(failed)}" if failed else "all done")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
