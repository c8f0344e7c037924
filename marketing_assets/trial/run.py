"""A whole trial: seed by seed, each a file when it is done, so that a trial that was cut goes on where it stopped.

What belongs here: the order of seeds, their files and the report. What does not: a seed's days (loop.py).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from marketing_assets.compiled import texts_beside
from marketing_assets.trial.figures import summarise
from marketing_assets.trial.loop import CONVERSION_TARGET, CONVERSION_WORTH, Plan, live_seed
from marketing_assets.trial.page import as_markdown, as_page
from marketing_assets.trial.shops import SHOP, TrialError, shop_class
from marketing_assets.warehouse import replace_file

Tell = Callable[[str], None]


def run_trial(
    shop: str = SHOP,
    seeds: int = 20,
    days: int = 60,
    out: Path = Path("trial"),
    tell: Tell = print,
    *,
    warm_up_days: int = 84,
    renew_days: int = 1,
    judge_days: int = 1,
    conversion_target: float = CONVERSION_TARGET,
    conversion_worth: float | None = CONVERSION_WORTH,
    first_seed: int = 1,
    jobs: int = 1,
    settings: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Run `seeds` seeds of `days` days and write trial.json, trial.md and trial.html into `out`. Returns the summary.

    A finished seed lies in out/seeds/<seed>.json and is not run again; seeds of another shop or other days there are an
    error. jobs: seeds lived side by side, each in a process of its own. settings: sections of store.yaml to replace, as Store
    takes them. conversion_target, conversion_worth: as of Plan; one below 0 or without end is an error.
    """
    shop_class(shop)  # a name that leads nowhere is told before anything is lived
    if not 0 <= conversion_target < float("inf"):
        raise TrialError(f"conversion target {conversion_target}: give it as times of what ads brought before, 0 for none")
    if conversion_worth is not None and not 0 <= conversion_worth < float("inf"):
        raise TrialError(f"conversion worth {conversion_worth}: give it as times of what an ad's conversion brought before")
    plan = Plan(days, warm_up_days, renew_days, judge_days, conversion_target, conversion_worth, settings or {})
    kind = {"shop": shop, **{name: value for name, value in asdict(plan).items() if name != "settings"}, "settings": repr(plan.settings)}
    (out / "seeds").mkdir(parents=True, exist_ok=True)
    done: dict[int, dict[str, Any]] = {}
    for seed in range(first_seed, first_seed + seeds):
        path = out / "seeds" / f"{seed}.json"
        if path.exists():
            done[seed] = json.loads(path.read_text(encoding="utf-8"))
            if done[seed]["kind"] != kind:
                raise TrialError(f"{path} is of another trial ({done[seed]['kind']}); choose another folder or remove it")
    missing = [seed for seed in range(first_seed, first_seed + seeds) if seed not in done]

    def finished(seed: int, content: dict[str, Any]) -> None:
        done[seed] = content
        tell(f"seed {seed}: done in {content['cpu_seconds']:.0f} CPU seconds")
        _write([done[one] for one in sorted(done)], kind, out)

    if min(jobs, len(missing)) <= 1:
        for seed in missing:
            finished(seed, _one_seed(shop, seed, plan, kind, out, tell))
    else:
        with processes(min(jobs, len(missing))) as pool:
            asked = {pool.submit(_one_seed, shop, seed, plan, kind, out, _told): seed for seed in missing}
            for future in as_completed(asked):
                finished(asked[future], future.result())
    return _write([done[seed] for seed in sorted(done)], kind, out)


@contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes for seeds. Each ends with this one, and gives Polars one thread, as a seed's settings give everything else: it
    asks its environment once, when it is imported."""
    threads = "POLARS_MAX_THREADS"
    is_own = threads not in os.environ
    os.environ.setdefault(threads, "1")
    try:
        with ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
            yield pool
    finally:
        if is_own:
            del os.environ[threads]


def _end_with_parent() -> None:
    """A process that lives seeds ends when the one that asked for them does, however it was ended; its seed is run again next time."""
    parent = parent_process()
    assert parent is not None, "started by a pool"

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _told(text: str) -> None:
    """What a seed in a process of its own says, seen at once."""
    print(text, flush=True)


def _one_seed(shop: str, seed: int, plan: Plan, kind: dict[str, Any], out: Path, tell: Tell) -> dict[str, Any]:
    """Live a seed in a folder of its own, which is removed, and write out/seeds/<seed>.json. Returns its content."""
    began, cpu = time.perf_counter(), time.process_time()
    folder = Path(tempfile.mkdtemp(prefix=f"seed-{seed}-", dir=out))
    try:
        with texts_beside(out / "trial"):
            lived = live_seed(shop_class(shop), seed, plan, folder, tell)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
    content: dict[str, Any] = json.loads(json.dumps({"kind": kind, **seconds, **asdict(lived)}))
    replace_file(out / "seeds" / f"{seed}.json", json.dumps(content))
    return content


def _write(done: list[dict[str, Any]], kind: dict[str, Any], out: Path) -> dict[str, Any]:
    summary = {**kind, **summarise(done), "cpu_seconds": sum(seed["cpu_seconds"] for seed in done)}
    replace_file(out / "trial.json", json.dumps(summary, indent=1))
    replace_file(out / "trial.md", as_markdown(summary))
    replace_file(out / "trial.html", as_page(summary))
    return summary
