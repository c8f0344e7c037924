"""Is drift found, is its cause right, is it quiet otherwise, and does the repair repair? On the sample shop, over many seeds.

    python benchmarks/bench_drift.py [--seeds 40] [--first-seed 1] [--history 70] [--after 14] [--seen 6]
        [--kinds taste,...] [--out FOLDER] [--jobs 2]

A seed's history is lived and built once under common practice; every drift is a branch of it, lived and built as one range: quiet
ones for `after` more days, those that are to be found for `seen`, one that is to be repaired for three days longer. Printed: share
found within 3 days of the first mature figure that can show it, share with the right cause, false verdicts on quiet days (the
history from day 42 on, the branch without drift, the one with a season), for causes a refit mends the error against the true click
probabilities with the requested runs and with learning stopped, and whether tables not named kept their content hashes. A finished
seed is a file in `out` and is not run again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import as_completed
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from marketing_assets.intervals import mean_interval, normal_quantile, wilson  # noqa: E402
from marketing_assets.trial.run import processes  # noqa: E402

QUIET_FROM = 42
FOUND_WITHIN = 3
REPAIRED_WITHIN = 7
KINDS = ("none", "season", "taste", "placement_collapse", "tracking_bug", "mix", "price", "stock")
QUIET = ("none", "season")
REPAIRED = "placement_collapse"
ERRORS = ("in clicks per thousand", "over the day's mean rate", "relative")
"""What rate_error returns, in its order."""
RIGHT = {
    "taste": {"taste"}, "placement_collapse": {"calibration"}, "tracking_bug": {"data_quality"}, "mix": {"mix"},
    "price": {"price"}, "stock": {"stock"},
}  # fmt: skip
SHOWS = {
    "taste": ("recommendations", ("ndcg_at_10", "hit_rate_at_10")),
    "placement_collapse": ("ads", ("ctr_calibration_ratio",)),
    "tracking_bug": ("shop", ("session_conversion_rate",)),
    "mix": ("shop", ("session_conversion_rate",)),
    "price": ("shop", ("average_order_value", "session_conversion_rate")),
    "stock": ("shop", ("session_conversion_rate",)),
}
"""Kind -> the figures of evaluation_report that can show it; the first mature one of a day after the drift begins the count."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--history", type=int, default=70)
    parser.add_argument("--after", type=int, default=14)
    parser.add_argument("--seen", type=int, default=6)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "bench_drift")
    parser.add_argument("--jobs", type=int, default=1, help="seeds lived side by side, each in a process of its own")
    given = parser.parse_args()
    kinds = given.kinds.split(",")
    given.out.mkdir(parents=True, exist_ok=True)
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    missing = [seed for seed in seeds if not (given.out / f"{seed}.json").exists()]
    began = time.perf_counter()
    with processes(max(min(given.jobs, len(missing)), 1)) as pool:
        asked = {pool.submit(to_file, seed, given, kinds): seed for seed in missing}
        for future in as_completed(asked):
            print(f"seed {asked[future]}: {future.result():.0f} CPU seconds", flush=True)
    print(f"{len(missing)} seeds in {(time.perf_counter() - began) / 60:.0f} minutes")
    done = [json.loads((given.out / f"{seed}.json").read_text(encoding="utf-8")) for seed in seeds]
    tell(done)


def to_file(seed: int, given: argparse.Namespace, kinds: Sequence[str]) -> float:
    """Live a seed and write what came of it. Returns CPU seconds."""
    from marketing_assets.compiled import texts_beside

    began, out = time.process_time(), given.out
    with tempfile.TemporaryDirectory(dir=out) as temporary, texts_beside(out / "bench_drift"):
        found = one_seed(seed, given.history, given.after, given.seen, kinds, Path(temporary))
    seconds = time.process_time() - began
    (out / f"{seed}.json").write_text(json.dumps({**found, "cpu_seconds": seconds}), encoding="utf-8")
    return seconds


def one_seed(seed: int, history: int, after: int, seen: int, kinds: Sequence[str], folder: Path) -> dict[str, Any]:
    """Live a seed: verdicts of every kind of drift, quiet days, and the repair of what a refit mends."""
    from marketing_assets.running import run_days
    from marketing_assets.sample_shop import Drift
    from marketing_assets.trial import TrialShop
    from marketing_assets.trial.loop import opened, steps_used, store_of
    from marketing_assets.warehouse import days_between

    began, cpu = time.perf_counter(), time.process_time()
    shop = TrialShop(folder / "past", seed)
    before = days_between(shop.first_day, shop.first_day + timedelta(days=history - 1))
    for day in before:
        shop.live(day)
    store = store_of(folder / "past", {})
    with opened(folder / "past", store) as warehouse:
        run_days(warehouse, before, "bench", steps=steps_used(store))
        spent = [(time.perf_counter() - began) / history, (time.process_time() - cpu) / history]
        quiet = first_verdicts(warehouse.reader(before[-1]), before[QUIET_FROM:])
    result: dict[str, Any] = {
        "seed": seed, "quiet_days": max(0, history - QUIET_FROM), "after": after,
        "false": [[row["cause"], row["metrics"]] for row in quiet], "kinds": {}, "seconds_per_day": spent,
    }  # fmt: skip
    start = before[-1] + timedelta(days=1)
    for kind in kinds:
        length = after if kind in QUIET else seen + (FOUND_WITHIN if kind == REPAIRED else 0)
        days = days_between(start, start + timedelta(days=length - 1))
        place = folder / kind
        twin = shop.branch(place)
        if kind != "none":
            twin.with_drifts([Drift(kind, start)])  # type: ignore[arg-type]
        for day in days:
            twin.live(day)
        shutil.copy2(folder / "past" / "warehouse.duckdb", place / "warehouse.duckdb")
        kind_store = store_of(place, {})
        with opened(place, kind_store) as warehouse:
            run_days(warehouse, days, "bench", steps=steps_used(kind_store))
            reader = warehouse.reader(days[-1])
            known = {row["verdict_id"] for row in first_verdicts(reader, before)}
            verdicts = [row for row in first_verdicts(reader, days) if row["verdict_id"] not in known]
            mature = first_mature(reader, kind, start)
        row = {"verdicts": [[str(one["day"]), one["cause"], one["action"], one["metrics"]] for one in verdicts], "delay": None, "is_right": None}
        if kind in RIGHT and mature is not None and verdicts:
            row["delay"] = (verdicts[0]["day"] - mature).days
            row["is_right"] = any(one["cause"] in RIGHT[kind] for one in verdicts if one["day"] == verdicts[0]["day"])
        if kind == REPAIRED and verdicts:
            row["repair"] = repair(place, before[-7:], days, verdicts)
        result["kinds"][kind] = row
        shutil.rmtree(place, ignore_errors=True)
    return result


def first_verdicts(reader: Any, days: Sequence[date]) -> list[dict[str, Any]]:
    """Verdicts by the day they were first given: day, verdict_id, cause, action, metrics."""
    rows = reader.connection.execute(
        """SELECT min(as_of_date) AS day, verdict_id, any_value(cause) AS cause, any_value(action) AS action,
               list(DISTINCT metric ORDER BY metric) AS metrics FROM drift_report
           WHERE verdict_id IS NOT NULL AND is_drifted AND as_of_date BETWEEN ? AND ? GROUP BY verdict_id ORDER BY 1, 2""",
        [days[0], days[-1]],
    ).pl()
    return list(rows.iter_rows(named=True))


def first_mature(reader: Any, kind: str, start: date) -> date | None:
    """The first day on which a mature figure of a day from `start` on was known that can show this drift."""
    if kind not in SHOWS:
        return None
    concept, metrics = SHOWS[kind]
    marks = ", ".join("?" * len(metrics))
    found = reader.connection.execute(
        f"""SELECT min(as_of_date) FROM evaluation_report WHERE is_mature AND concept = ? AND metric IN ({marks})
            AND outcome_date >= ? AND horizon_days = 1""",
        [concept, *metrics, start],
    ).fetchone()
    return found[0] if found else None


# --- repair -----------------------------------------------------------------------------------------------------------


def repair(place: Path, usual: Sequence[date], days: Sequence[date], verdicts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Error of the click rates against the truth, by day: before, repaired as the verdicts ask for, and with learning stopped.

    Verdicts are acted on, on the day they are given, up to the first with the right cause: later ones of the branch judge rates that
    were never repaired. A day reads nothing after it, so both arms build anew, over what the branch was built to, only what comes to
    differ, up to a week after the last of them.
    """
    from marketing_assets.control import request_refit
    from marketing_assets.pipeline import tables_after
    from marketing_assets.running import run_days
    from marketing_assets.trial import act_on_verdicts
    from marketing_assets.trial.loop import opened, store_of

    store = store_of(place, {})
    shutil.copy2(place / "warehouse.duckdb", place / "built.duckdb")
    right = min((one["day"] for one in verdicts if one["cause"] in RIGHT[REPAIRED]), default=days[-1])
    told = sorted({one["day"] for one in verdicts if one["day"] <= right})
    days = [day for day in days if day <= told[-1] + timedelta(days=REPAIRED_WITHIN)]
    kept = True
    with opened(place, store) as warehouse:
        for number, day in enumerate(told):
            if number:
                run_days(warehouse, [one for one in days if told[number - 1] < one <= day], "bench", steps=["response"])
            before = {key: row.content_hash for key, row in warehouse.ledger.items() if key[1] == day}
            acted = act_on_verdicts(warehouse, day, "bench")
            named = set(tables_after(store, {asset for verdict in acted for asset in verdict.assets})) | {"raw_refit_requests"}
            kept &= all(warehouse.ledger[key].content_hash == value for key, value in before.items() if key[0] not in named)
        if told[-1] < days[-1]:
            run_days(warehouse, [day for day in days if day > told[-1]], "bench", steps=["response"])
        reader = warehouse.reader(days[-1])
        errors = {"repaired": {str(day): rate_error(reader, place, day) for day in days}}
        errors["before"] = {str(day): rate_error(reader, place, day) for day in usual}
    shutil.move(place / "built.duckdb", place / "warehouse.duckdb")
    shutil.rmtree(place / "control", ignore_errors=True)
    request_refit(store, days[0], "response_rates", "stop_learning", reason="never learns again")
    with opened(place, store) as warehouse:
        run_days(warehouse, days[:1], "bench", steps=["source_refit_requests", "cleaning"])
        run_days(warehouse, days, "bench", steps=["response"])
        reader = warehouse.reader(days[-1])
        errors["never"] = {str(day): rate_error(reader, place, day) for day in days}
    return {"found": str(told[-1]), "hashes_kept": kept, "errors": errors}


def rate_error(reader: Any, place: Path, day: date) -> tuple[float, float, float]:
    """Three errors of the click rates issued for `day` over placements and creatives, by impressions.

    In clicks per thousand impressions, mean |predicted - true|, which is what a refit can bring back to its level. Beside it the
    same over the day's mean true rate, which is itself a third lower once the largest placement has collapsed; and relative,
    mean |predicted / true - 1|, in which that placement weighs as much as before, with a third of the clicks to learn from.
    """
    truth = place / "truth" / "impressions" / f"{day}.parquet"
    row = reader.connection.execute(
        f"""WITH rates AS (SELECT placement_id, creative_id, hour, sum(ctr * available_impressions) / sum(available_impressions) AS ctr
                FROM response_rates WHERE as_of_date = ? AND available_impressions > 0 GROUP BY ALL),
            cells AS (SELECT s.placement_id, s.creative_id, count(*) AS shown, avg(t.click_probability) AS truth, avg(r.ctr) AS said
                FROM clean_impressions s JOIN read_parquet('{truth}') t USING (impression_id)
                JOIN rates r USING (placement_id, creative_id, hour) WHERE s.impression_date = ? GROUP BY ALL)
            SELECT 1000 * sum(shown * abs(said - truth)) / sum(shown), sum(shown * abs(said - truth)) / sum(shown * truth),
                sum(shown * abs(said / truth - 1)) / sum(shown) FROM cells""",
        [day - timedelta(days=1), day],
    ).fetchone()
    if row is None or row[0] is None:
        return (float("nan"),) * 3
    return float(row[0]), float(row[1]), float(row[2])


def tell(done: Sequence[dict[str, Any]]) -> None:
    """Print what came of the seeds, with 95 % intervals."""
    quiet = sum(seed["quiet_days"] for seed in done)
    false = [cause for seed in done for cause, _ in seed["false"]]
    for kind in QUIET:
        for seed in done:
            if kind in seed["kinds"]:
                quiet += seed["after"]
                false += [cause for _, cause, *_ in seed["kinds"][kind]["verdicts"]]
    wall, cpu = np.mean([seed["seconds_per_day"] for seed in done], axis=0)
    print(f"a shop-day of history {wall:.2f} s in a process of its own, {cpu:.2f} CPU s")
    causes = ", ".join(sorted(false)) or "none"
    low, high = (quiet / count if count else float("inf") for count in reversed(poisson_interval(len(false))))
    print(f"quiet days {quiet}, false verdicts {len(false)} ({causes}):")
    print(f"  one per {quiet / max(len(false), 1):.0f} days ({low:.0f} to {high:.0f}); bar 60")
    for kind in RIGHT:
        rows = [seed["kinds"][kind] for seed in done if kind in seed["kinds"]]
        if not rows:
            continue
        late = [row["delay"] for row in rows if row["delay"] is not None]
        within = share(sum(delay <= FOUND_WITHIN for delay in late), len(rows))
        right = share(sum(bool(row["is_right"]) for row in rows), len(rows))
        causes = sorted({cause for row in rows for _, cause, *_ in row["verdicts"]})
        print(f"{kind:20} found {len(late)}, within {FOUND_WITHIN} days {within}, right cause {right}")
        print(f"{'':20} days {dict(sorted(Counter(late).items()))}; causes given in all {causes}")
    mended = [seed["kinds"][REPAIRED].get("repair") for seed in done if REPAIRED in seed["kinds"]]
    mended = [row for row in mended if row]
    if mended:
        for at, name in enumerate(ERRORS):
            usual = np.array([np.mean([day[at] for day in row["errors"]["before"].values()]) for row in mended])
            weeks = {arm: [week_after(row, arm, at) for row in mended] for arm in ("repaired", "never")}
            back = share(sum(min(week) <= 1.05 * level for week, level in zip(weeks["repaired"], usual, strict=True)), len(mended))
            print(f"repair, {name}: error within 5 % of its level on a day of the week after the verdict {back}")
            for arm, errors in weeks.items():
                ratio = np.array([np.mean(week) for week in errors]) / usual
                low, high = mean_interval(ratio, 0.95)
                print(f"  {arm:9} mean error of that week over the week before the drift {ratio.mean():.2f} ({low:.2f} to {high:.2f})")
        kept = share(sum(row["hashes_kept"] for row in mended), len(mended))
        print(f"  tables not named kept their hashes {kept}")
    seconds = [seed["cpu_seconds"] for seed in done]
    print(f"CPU seconds a seed {np.mean(seconds):.0f} ({min(seconds):.0f} to {max(seconds):.0f})")


def week_after(row: dict[str, Any], arm: str, at: int) -> list[float]:
    """The arm's errors, the one at place `at` of ERRORS, on the seven days after the verdict, as far as they were lived."""
    found = date.fromisoformat(row["found"])
    return [day[at] for name, day in row["errors"][arm].items() if 0 < (date.fromisoformat(name) - found).days <= REPAIRED_WITHIN]


def share(count: int, of: int) -> str:
    """'38 of 40 (.84 to .99)', Wilson's interval."""
    low, high = wilson(np.array([float(count)]), np.array([float(of)]), normal_quantile(0.95))
    return f"{count} of {of} ({low[0]:.2f} to {high[0]:.2f})"


def poisson_interval(count: int) -> tuple[float, float]:
    """Exact (Garwood 1936)."""
    from scipy.stats import chi2

    return (chi2.ppf(0.025, 2 * count) / 2 if count else 0.0), chi2.ppf(0.975, 2 * count + 2) / 2


if __name__ == "__main__":
    main()
