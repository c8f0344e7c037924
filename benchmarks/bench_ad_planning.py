"""The ad plan: exactness, speed and value, solvers and simple rules beside us on the same input.

    python benchmarks/bench_ad_planning.py [daily] [users N] [peer N] [value SEEDS] [value_on_log SEEDS]

daily: 100,000 cells, ours against cvxpy with HiGHS. users N: N users x 10 candidates with budget, target, 200 placement-hours
and frequency caps; peer N: the same by cvxpy with HiGHS interior point (run it in a process of its own for its memory).
value: true revenue at equal spend on the sample shop (value_on_log: on a larger log with known truth), against uniform, greedy by
p q per cost, and proportional to past revenue; and the plan made with the true probabilities. CPU seconds, one thread.
"""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.ad_truth import AdTruth
from benchmarks.shop_truth import lived, rates_of
from marketing_assets.ad_planning import Cells, Limits, Model
from marketing_assets.ad_planning.solve import state_plan
from marketing_assets.ad_planning.user_level import solve_users
from marketing_assets.ad_planning.user_problem import UserProblem
from marketing_assets.response import build_response
from marketing_assets.warehouse import reader_over

GIB = 2**20


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB


def random_cells(seed: int, audiences: int, creatives: int, placements: int, hours: int) -> Cells:
    rng = np.random.default_rng(seed)
    keys = (
        pl.DataFrame({"audience_id": [f"a{i}" for i in range(audiences)]})
        .join(pl.DataFrame({"creative_id": [f"c{i:03}" for i in range(creatives)]}), how="cross")
        .join(pl.DataFrame({"placement_id": [f"p{i:02}" for i in range(placements)]}), how="cross")
        .join(pl.DataFrame({"hour": list(range(hours))}), how="cross")
        .sort("audience_id", "creative_id", "placement_id", "hour")
    )
    n = keys.height
    groups = keys.select(pl.struct("audience_id", "placement_id", "hour").rank("dense") - 1).to_series().to_numpy()
    frame = keys.with_columns(
        campaign_id=pl.format("k{}", pl.col("creative_id").str.slice(1).cast(pl.Int64) % 10),
        item_id=pl.col("creative_id"),
        ctr=pl.Series(rng.uniform(0.001, 0.02, n)),
        cvr=pl.Series(rng.uniform(0.01, 0.1, n)),
        cost_per_impression=pl.Series(rng.uniform(0.001, 0.02, n)),
        value_per_conversion=pl.Series(rng.uniform(5, 50, n)),
        available_impressions=pl.Series(rng.uniform(0, 200, int(groups.max()) + 1)[groups]),
    )
    return Cells(frame)


def daily(repeats: int = 3) -> None:
    """Plan and eight scenarios at 100,800 cells; cvxpy with its default HiGHS, and with interior point, once each."""
    import cvxpy as cp

    limits = Limits(
        budget=700.0, target=5.0, audience_users={f"a{i}": 3000.0 for i in range(4)}, exploration_share=0.05, hourly_share=0.25
    )
    ours = []
    for seed in range(repeats):
        cells = random_cells(seed, 6, 50, 14, 24)
        started = time.process_time()
        model = Model(cells, limits)
        solution = model.solve()
        plan = time.process_time() - started
        for level in (0.0, 0.25, 0.5, 0.75, 1.25, 1.5, 2.0):
            model.at_budget(700.0 * level)
        ours.append((plan, time.process_time() - started))
        print(
            f"  {cells.n} cells: plan {plan:.2f} s, with seven scenarios {ours[-1][1]:.2f} s, certified gap "
            f"{(solution.upper_bound - solution.objective) / solution.objective:.1e}"
        )
    for name, options in (("interior point", {"solver": "ipm", "run_crossover": "off"}),):
        started = time.process_time()
        value = state_plan(cells, limits).problem.solve(solver=cp.HIGHS, highs_options={"threads": 1, **options})
        seconds = time.process_time() - started
        print(
            f"cvxpy HiGHS {name}: {seconds:.2f} s, ratio {seconds / np.mean([p for p, _ in ours]):.1f}, "
            f"objective differs by {abs(value - solution.objective) / value:.1e}"
        )


def user_instance(users: int, seed: int = 0, width: int = 10, slots: int = 200) -> UserProblem:
    rng = np.random.default_rng(seed)
    slot = rng.integers(0, slots, (users, width)).astype(np.int32)
    value, cost = rng.gamma(2, 0.5, (users, width)), rng.uniform(0.05, 0.3, (users, width))
    conversions = value * rng.uniform(0.02, 0.05, (users, width))
    return UserProblem(
        slot, value, cost, conversions, 2, rng.uniform(0.3, 1.2, slots) * 2 * users / slots, 0.18 * users, 0.06 * users
    )


def users(count: int, seeds: int = 1) -> None:
    for seed in range(seeds):
        problem = user_instance(count, seed)
        started = time.process_time()
        plan = solve_users(problem)
        first = time.process_time() - started
        changed = replace(problem, budget=problem.budget * 1.05)  # type: ignore[operator]
        started = time.process_time()
        again = solve_users(changed, start=plan.prices)
        second = time.process_time() - started
        print(
            f"ours, {problem.value.size:.0e} variables, seed {seed}: {first:.1f} s, objective {plan.objective:.6f}, "
            f"gap {plan.gap:.1e}, free {plan.free_share:.3f}; after 5 % more budget {second:.1f} s ({second / first:.2f}), "
            f"gap {again.gap:.1e}; peak {peak():.2f} GiB"
        )


def peer(count: int, seed: int = 0) -> None:
    import cvxpy as cp

    problem = user_instance(count, seed)
    n, width = problem.value.size, problem.value.shape[1]
    started = time.process_time()
    x = cp.Variable(n, bounds=[0, 1])
    per_user = sp.csr_array((np.ones(n), (np.repeat(np.arange(problem.users), width), np.arange(n))))
    per_slot = sp.csr_array((np.ones(n), (problem.slot.ravel(), np.arange(n))))
    task = cp.Problem(
        cp.Maximize(problem.value.ravel() @ x),
        [
            per_user @ x <= problem.cap,
            per_slot @ x <= problem.inventory,
            problem.cost.ravel() @ x <= problem.budget,
            problem.conversions.ravel() @ x >= problem.target,
        ],
    )
    task.solve(solver=cp.HIGHS, highs_options={"solver": "ipm", "run_crossover": "off", "threads": 1})
    print(
        f"cvxpy with HiGHS interior point, {n:.0e} variables: {time.process_time() - started:.1f} s, objective {task.value:.6f}, "
        f"{task.status}, peak {peak():.2f} GiB"
    )


def value(seeds: int) -> None:
    """The sample shop, after a past under common practice."""
    results = []
    for seed in range(1, seeds + 1):
        with lived(seed) as past:
            store = past.store("plain")
            with past.opened(store) as warehouse:
                reader = warehouse.reader(past.day)
                cells = past.truth(rates_of(past, reader, store)[0], reader)
                frames = {
                    "clean_impressions": reader.window("clean_impressions", None, past.day, ["impression_id", "creative_id", "placement_id"]),
                    "attributed_conversions": reader.window("attributed_conversions", None, past.day, ["impression_id", "conversion_value"]),
                }
        results.append(compared(cells, frames, f"seed {seed}"))
    summary("sample shop", results)


def value_on_log(seeds: int) -> None:
    """A larger log with effects of its own."""
    results = []
    for seed in range(seeds):
        truth = AdTruth(seed)
        store = truth.store("plain", value="revenue")
        frames = truth.frames()
        rates = build_response(reader_over(frames, store, truth.last_day), [truth.last_day], store).tables["response_rates"]
        true = {"true_ctr": truth.ctr(rates), "true_cvr": truth.cvr(rates), "true_value": truth.value(rates).astype(float)}
        cells = rates.with_columns(*(pl.Series(name, numbers) for name, numbers in true.items()), true_cost="cost_per_impression")
        results.append(compared(cells, frames, f"seed {seed}"))
    summary("log", results)


def compared(rates: pl.DataFrame, frames: dict[str, pl.DataFrame], title: str) -> dict[str, float]:
    """True revenue of our plan at equal true spend over the others', and what it promised over what is true.

    The budget is a quarter of what all impressions would cost; no limit holds that the simple rules do not know.
    """
    cells = Cells(rates)
    true_ctr, true_cost = rates["true_ctr"].to_numpy(), rates["true_cost"].to_numpy()
    true_orders = true_ctr * rates["true_cvr"].to_numpy()
    true_value = true_orders * rates["true_value"].to_numpy()
    slots = rates.group_by("audience_id", "placement_id", "hour").agg(pl.col("available_impressions").first(), pl.col("true_cost").mean())
    limits = Limits(budget=0.25 * float((slots["available_impressions"] * slots["true_cost"]).sum()))
    x = Model(cells, limits).solve().x
    known = rates.with_columns(
        ctr="true_ctr", cvr="true_cvr", value_per_conversion="true_value", cost_per_impression="true_cost"
    )
    spend = float(true_cost @ x)
    plans = {
        "true probabilities": Model(Cells(known), limits).solve().x,
        "uniform": uniform(cells),
        "greedy by p q per cost": greedy(cells, float(cells.cost @ x)),
        "proportional to past revenue": proportional(cells, frames),
    }
    ours = float(true_value @ x)
    row = {
        f"over {name}": ours / (float(true_value @ plan) * min(1.0, spend / max(float(true_cost @ plan), 1e-12))) - 1
        for name, plan in plans.items()
    }
    row["clicks promised / true"] = float(cells.ctr @ x) / float(true_ctr @ x)
    row["conversions promised / true"] = float(cells.conversions @ x) / float(true_orders @ x)
    print(" ", title, {name: round(number, 3) for name, number in row.items()}, flush=True)
    return row


def summary(title: str, results: list[dict[str, float]]) -> None:
    for name in results[0]:
        numbers = np.array([row[name] for row in results])
        error = 1.96 * numbers.std(ddof=1) / np.sqrt(len(numbers)) if len(numbers) > 1 else np.nan
        print(f"{title}, {name}: {numbers.mean():+.3f} +- {error:.3f} (worst {numbers.min():+.3f}, best {numbers.max():+.3f})")


def uniform(cells: Cells) -> Any:
    """Every creative alike wherever there is room."""
    return cells.available[cells.group] / cells.groups["creatives"].to_numpy()[cells.group]


def greedy(cells: Cells, spend: float) -> Any:
    """Best p q per cost first until the money is gone, a group's impressions going to its best."""
    score = cells.conversions / np.maximum(cells.cost, 1e-12)
    x, left, money = np.zeros(cells.n), cells.available.copy(), spend
    for cell in np.argsort(-score, kind="stable"):
        amount = min(left[cells.group[cell]], money / max(cells.cost[cell], 1e-12))
        if amount > 0:
            x[cell] = amount
            left[cells.group[cell]] -= amount
            money -= amount * cells.cost[cell]
        if money <= 1e-9:
            break
    return x


def proportional(cells: Cells, frames: dict[str, pl.DataFrame]) -> Any:
    """Impressions by creative and placement in proportion to the revenue each brought, over audiences and hours alike."""
    paid = (
        frames["attributed_conversions"]
        .select("impression_id", "conversion_value")
        .join(frames["clean_impressions"], on="impression_id")
    )
    past = paid.group_by("creative_id", "placement_id").agg(past=pl.col("conversion_value").sum())
    share = (
        cells.frame.select("creative_id", "placement_id")
        .join(past, on=["creative_id", "placement_id"], how="left", maintain_order="left")["past"]
        .fill_null(0.0)
        .to_numpy()
        .astype(float)
    )
    weight = share * cells.available[cells.group]
    return weight / (cells.members @ weight)[cells.group].clip(1e-12) * cells.available[cells.group] * (share / share.max())


if __name__ == "__main__":
    words = sys.argv[1:] or ["daily", "users", "100000", "value", "5"]
    while words:
        what = words.pop(0)
        number = int(words.pop(0)) if words and words[0].isdigit() else None
        {
            "daily": lambda _: daily(),
            "users": lambda n: users(n or 100_000),
            "peer": lambda n: peer(n or 100_000),
            "value": lambda n: value(n or 20),
            "value_on_log": lambda n: value_on_log(n or 20),
        }[what](number)
