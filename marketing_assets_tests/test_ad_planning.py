"""The ad plan: exact against HiGHS through cvxpy, priced right, honest where nothing is feasible, the same day by day."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from marketing_assets.ad_planning import Cells, Limits, Model, Override, build_ad_plan, solve_plan, user_level, user_prices
from marketing_assets.ad_planning import solve as solve_module
from marketing_assets.ad_planning.build import TABLES, audience_reach
from marketing_assets.ad_planning.constraints import all_blocks
from marketing_assets.ad_planning.hours import even_over_hours
from marketing_assets.ad_planning.objective import repetition
from marketing_assets.ad_planning.risk import probability_of_target
from marketing_assets.ad_planning.rounding import whole_impressions
from marketing_assets.ad_planning.solve import used
from marketing_assets.ad_planning.user_level import solve_users
from marketing_assets.ad_planning.user_problem import Prices, UserProblem, upper_bound
from marketing_assets.config import KEYFRAME_DAYS, Store
from marketing_assets.warehouse import polars_schema, reader_over

DAY = date(2026, 3, 10)


def one_group(
    ctr: list[float], cost: list[float], value: list[float], available: float = 100.0, cvr: float = 1.0
) -> pl.DataFrame:
    """Creatives c0, c1, ... competing for one audience, placement and hour."""
    return frame(
        [
            ("everyone", f"c{i}", "home", 10, p, cvr, c, v, available)
            for i, (p, c, v) in enumerate(zip(ctr, cost, value, strict=True))
        ]
    )


def frame(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    """response_rates rows from (audience, creative, placement, hour, ctr, cvr, cost, value, available)."""
    names = [
        "audience_id",
        "creative_id",
        "placement_id",
        "hour",
        "ctr",
        "cvr",
        "cost_per_impression",
        "value_per_conversion",
        "available_impressions",
    ]
    table = pl.DataFrame(rows, schema=names, orient="row").with_columns(
        as_of_date=pl.lit(DAY),
        campaign_id=pl.format("k{}", pl.col("creative_id").str.slice(1).cast(pl.Int64) % 2),
        item_id=pl.format("i{}", pl.col("creative_id").str.slice(1)),
        ctr_low=pl.col("ctr") * 0.8,
        ctr_high=(pl.col("ctr") * 1.25).clip(0, 1),
        cvr_low=pl.col("cvr") * 0.8,
        cvr_high=(pl.col("cvr") * 1.25).clip(0, 1),
        evidence=pl.lit("ad_log"),
    )
    return table.select(pl.col(name).cast(kind) for name, kind in polars_schema("response_rates").items()).sort(
        "audience_id", "creative_id", "placement_id", "hour"
    )


def random_cells(
    seed: int, audiences: int = 2, creatives: int = 3, placements: int = 2, hours: int = 2, *, degenerate: bool = False
) -> Cells:
    rng = np.random.default_rng(seed)
    rows = []
    for a in range(audiences):
        for p in range(placements):
            for h in range(hours):
                available = float(rng.choice([0.0, 50.0, 100.0])) if degenerate else float(rng.uniform(1, 200))
                for c in range(creatives):
                    if degenerate:
                        rates = (0.01, 0.05, 0.01, 10.0)
                    else:
                        rates = (rng.uniform(0.001, 0.05), rng.uniform(0.01, 0.2), rng.uniform(0.001, 0.05), rng.uniform(1, 50))
                    rows.append((f"a{a}", f"c{c}", f"p{p}", h, *map(float, rates), available))
    return Cells(frame(rows))


def random_limits(seed: int) -> Limits:
    rng = np.random.default_rng([seed, 1])
    draw = rng.uniform
    return Limits(
        budget=None if draw() < 0.15 else float(draw(0, 8)) if draw() > 0.1 else 0.0,
        target=float(draw(0, 1.5)) if draw() < 0.6 else 0.0,
        frequency_cap=int(rng.integers(1, 5)),
        audience_users={"a0": float(draw(5, 100))} if draw() < 0.6 else {},
        item_units={"i0": float(draw(0, 0.3))} if draw() < 0.4 else {},
        hourly_share=float(draw(0.3, 1)) if draw() < 0.5 else 1.0,
        placement_share=0.7 if draw() < 0.3 else 1.0,
        campaign_left={"k0": float(draw(0, 4))} if draw() < 0.4 else {},
        max_change=0.5 if draw() < 0.3 else None,
        previous_spend={"k0": float(draw(0, 3)), "k1": float(draw(0, 3))},
        exploration_share=float(rng.choice([0.0, 0.05, 0.3])),
        overrides=(Override("o", creative_id="c1", minimum=float(draw(0, 30)), reason="brand"),) if draw() < 0.3 else (),
        diminishing=((1.0, 0.8), (2.0, 0.4)) if draw() < 0.3 else (),
    )


def violations(model: Model, solution: Any) -> float:
    """Largest relative violation of any limit, relaxed as the solution says."""
    cells, losses = model.cells, model.statement.losses
    conversions = float(cells.conversions @ solution.x) - losses.lost(solution.x, losses.conversions_lost)
    worst = float(max(-solution.x.min(initial=0.0), 0.0))
    for block, extra in zip(model.statement.blocks, solution.relaxed, strict=True):
        use = used(block, solution.x, solution.total, conversions)
        over = use - block.limit - extra if block.sense == "<=" else block.limit - extra - use
        scale = np.maximum(np.abs(block.limit), np.abs(block.matrix) @ (solution.x if block.on == "cells" else solution.total))
        worst = max(worst, float((over / np.maximum(scale, 1e-3)).max(initial=0.0)))
    return worst


# --- the problem and its answer ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(24))
def test_hours_that_nothing_tells_apart_are_bought_evenly_at_no_loss(seed: int) -> None:
    """p0's hours are alike; p1's are not. Of reports without hours a plan once bought a few hours picked by nothing."""
    table = random_cells(seed, hours=4).frame
    key, terms = ["audience_id", "creative_id"], ["ctr", "cvr", "cost_per_impression", "value_per_conversion"]
    is_flat = pl.col("placement_id") == "p0"
    flat = [pl.when(is_flat).then(pl.col(name).first().over([*key, "placement_id"])).otherwise(name).alias(name) for name in terms]
    amount = pl.col("available_impressions").first().over(["audience_id", "placement_id"])
    cells = Cells(table.with_columns(*flat, available_impressions=pl.when(is_flat).then(amount).otherwise("available_impressions")))
    limits = random_limits(seed)
    model = Model(cells, limits)
    before = model.solve()
    after = even_over_hours(before, model)
    losses = model.statement.losses
    worth = [float(cells.value @ plan.x) - losses.lost(plan.x, losses.value_lost) for plan in (before, after)]
    assert worth[1] == pytest.approx(worth[0], rel=1e-9, abs=1e-9)
    assert violations(model, after) < 1e-6
    assert after.total == pytest.approx(cells.members @ after.x, abs=1e-6)
    rows = cells.frame.select(*key, "placement_id", x=pl.Series(after.x), x_before=pl.Series(before.x))
    assert rows.filter(~is_flat).select((pl.col("x") == pl.col("x_before")).all()).item()
    spread = rows.filter(is_flat).group_by(key).agg((pl.col("x").max() - pl.col("x").min()).alias("gap"), pl.col("x", "x_before").sum())
    if limits.hourly_share == 1:  # else what p1's hours leave of the day's pacing may not be even
        assert spread["gap"].max() < 1e-9 * 200
    assert spread["x"].to_list() == pytest.approx(spread["x_before"].to_list())
    named = Model(cells, replace(limits, overrides=(Override("night", hour=3, maximum=1.0),)))
    assert even_over_hours(before, named) is before


def test_budget_buys_the_best_value_per_cost_first() -> None:
    """c0: 0.02 a click worth 10 for 0.01 (20 per unit); c1: 0.03 for 0.03 (10). Budget 1.6 buys 100, mixed at the margin."""
    solution = solve_plan(Cells(one_group([0.02, 0.03], [0.01, 0.03], [10, 10])), Limits(budget=1.6))
    # all 100 impressions are used; 1.6 = 0.01 a + 0.03 (100 - a), so a = 70
    assert solution.x == pytest.approx([70, 30])
    assert solution.objective == pytest.approx(70 * 0.2 + 30 * 0.3)


def test_shadow_price_of_the_budget_is_what_the_next_unit_brings() -> None:
    """Swapping one impression of c0 for c1 costs 0.02 and brings 0.1: 5 per unit of money."""
    model = Model(Cells(one_group([0.02, 0.03], [0.01, 0.03], [10, 10])), Limits(budget=1.6))
    solution = model.solve()
    assert model.statement.blocks[0].kind == "budget"
    assert solution.duals[0][0] == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("limits", "objective"),
    [
        (Limits(budget=0.0), 0.0),
        (Limits(budget=None), 100 * 0.3),
        (Limits(budget=1e9, target=0.0), 100 * 0.3),
        (Limits(budget=1.0, item_units={"i0": 0.0, "i1": 0.0}), 0.0),
        (Limits(budget=None, frequency_cap=2, audience_users={"everyone": 10.0}), 20 * 0.3),
        (Limits(budget=None, overrides=(Override("x", creative_id="c1", maximum=40, reason="r"),)), 40 * 0.3 + 60 * 0.2),
    ],
)
def test_extremes_work(limits: Limits, objective: float) -> None:
    assert solve_plan(Cells(one_group([0.02, 0.03], [0.01, 0.03], [10, 10])), limits).objective == pytest.approx(
        objective, abs=1e-9
    )


def test_all_cells_equal_and_zero_supply_work() -> None:
    assert solve_plan(Cells(one_group([0.02] * 4, [0.01] * 4, [10] * 4)), Limits(budget=0.5)).objective == pytest.approx(50 * 0.2)
    assert solve_plan(Cells(one_group([0.02] * 4, [0.01] * 4, [10] * 4, available=0.0)), Limits(budget=0.5)).objective == 0.0


@pytest.mark.parametrize("start", range(0, 200, 50))
def test_exact_on_200_random_instances(start: int) -> None:
    """Objective within 1e-6 of what cvxpy's own HiGHS finds, limits kept to 1e-9, and the certificate closes."""
    import cvxpy as cp

    for seed in range(start, start + 50):
        cells = random_cells(seed, degenerate=seed % 5 == 0)
        limits = random_limits(seed)
        model = Model(cells, limits)
        solution = model.solve()
        assert violations(model, solution) <= 1e-9, seed
        if not solution.is_relaxed:
            best = solve_module.state_plan(cells, limits).problem.solve(solver=cp.HIGHS)
            assert solution.objective == pytest.approx(best, rel=1e-6, abs=1e-8), seed
        else:
            problem = solve_module.state_plan(cells, limits).problem
            problem.solve(solver=cp.HIGHS)
            assert problem.status in ("infeasible", "infeasible_or_unbounded"), seed
        assert solution.upper_bound == pytest.approx(solution.objective, rel=1e-6, abs=1e-6), seed


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_shadow_prices_lie_between_finite_differences(seed: int) -> None:
    """Right difference <= price <= left difference of the best value as a limit moves (a concave function of it)."""
    cells, limits = random_cells(seed), replace(random_limits(seed), target=0.0, overrides=(), max_change=None)
    if limits.budget is None or limits.budget < 0.1:
        limits = replace(limits, budget=2.0)
    model = Model(cells, limits)
    solution = model.solve()
    step = 1e-4
    for block, start, duals in zip(model.statement.blocks, model.block_starts, solution.duals, strict=True):
        if block.kind == "availability":
            continue
        for row in range(len(block.names)):
            values = {}
            for sign in (-1, 1):
                fresh = Model(cells, limits)
                fresh._set_bound(start + row, fresh.original[start + row] + sign * step)
                values[sign] = fresh.solve()
            if values[-1].is_relaxed:
                continue
            right = (values[1].objective - solution.objective) / step
            left = (solution.objective - values[-1].objective) / step
            slack = 1e-5 * max(1.0, abs(duals[row]))
            assert right - slack <= duals[row] <= left + slack, (block.names[row], left, duals[row], right)


def test_column_generation_finds_the_whole_problem_s_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(4):
        cells, limits = (
            random_cells(seed, 3, 12, 2, 3),
            replace(random_limits(seed), budget=3.0, target=2.5 if seed == 3 else 0.1),
        )
        whole = solve_plan(cells, limits)
        monkeypatch.setattr(solve_module, "COLUMNS_ABOVE", 10)
        part = solve_plan(cells, limits)
        monkeypatch.undo()
        assert part.objective == pytest.approx(whole.objective, rel=1e-9)
        for one, other in zip(part.relaxed, whole.relaxed, strict=True):
            assert one.sum() == pytest.approx(other.sum(), abs=1e-6)


def test_warm_scenarios_equal_fresh_solves_and_are_concave() -> None:
    cells, limits = random_cells(7, 3, 4, 2, 3), Limits(budget=2.0, hourly_share=0.5, exploration_share=0.05)
    model = Model(cells, limits)
    model.solve()
    values = []
    for budget in (0.0, 1.0, 2.0, 4.0, 8.0):
        warm = model.at_budget(budget)
        assert warm.objective == pytest.approx(solve_plan(cells, replace(limits, budget=budget)).objective, rel=1e-9, abs=1e-9)
        values.append(warm.objective)
    slopes = np.diff(values) / np.diff([0.0, 1.0, 2.0, 4.0, 8.0])
    assert (np.diff(slopes) <= 1e-9).all()


def test_infeasible_says_the_smallest_change() -> None:
    """30 conversions need 30 / 0.03 impressions, 100 are on offer: at most 3. Budget 1.5 cannot pay 100 of c1 (3.0)."""
    cells = Cells(one_group([0.02, 0.03], [0.01, 0.03], [10, 10]))
    unreachable = solve_plan(cells, Limits(budget=10.0, target=30.0))
    assert unreachable.is_relaxed
    assert unreachable.alone == pytest.approx({"target_conversions": 27.0})
    assert unreachable.objective == pytest.approx(30.0)
    dear = solve_plan(cells, Limits(budget=1.5, target=3.0))
    assert dear.alone["budget"] == pytest.approx(1.5)
    # with 1.5: 1.5 = 0.01 a + 0.03 (100 - a) gives a = 75, 2.25 conversions
    assert dear.alone["target_conversions"] == pytest.approx(0.75)


def test_exploration_reaches_every_creative_and_is_logged() -> None:
    solution = solve_plan(Cells(one_group([0.02, 0.03, 0.01], [0.01] * 3, [10] * 3)), Limits(budget=0.9, exploration_share=0.1))
    shares = solution.x / solution.total[0]
    assert solution.total[0] == pytest.approx(90)
    assert shares == pytest.approx([0.1 / 3, 0.9 + 0.1 / 3, 0.1 / 3])


def test_repetition_is_a_falling_return() -> None:
    """10 users, full worth up to 1 impression each, half beyond: 100 of one creative keep 10 + 90 / 2 of their worth."""
    cells = Cells(one_group([0.02], [0.01], [10]))
    limits = Limits(budget=None, frequency_cap=100, audience_users={"everyone": 10.0}, diminishing=((1.0, 0.5),))
    model = Model(cells, limits)
    solution = model.solve()
    assert solution.objective == pytest.approx((10 + 45) * 0.2)
    assert model.statement.losses.kept_share(solution.x, cells) == pytest.approx([0.55])


def test_repetition_spreads_over_creatives() -> None:
    """A second, slightly worse creative is bought before the first is repeated at half its worth."""
    limits = Limits(budget=0.2, frequency_cap=100, audience_users={"everyone": 10.0}, diminishing=((1.0, 0.5),))
    assert solve_plan(Cells(one_group([0.02, 0.019], [0.01, 0.01], [10, 10])), limits).x == pytest.approx([10, 10])


def test_whole_impressions_keep_sums_and_limits() -> None:
    cells = replace(random_cells(3, 3, 5, 2, 3), available_whole=True)
    limits = Limits(budget=2.0, exploration_share=0.2, hourly_share=0.5)
    model = Model(cells, limits)
    solution = model.solve()
    x = whole_impressions(solution.x, cells, model.statement.blocks, solution.relaxed, seed=1)
    assert np.array_equal(x, np.round(x)) and (x >= 0).all()
    for block in all_blocks(cells, limits):
        use = used(block, x, cells.members @ x, 0.0)
        assert (use <= block.limit * (1 + 1e-9) + 1e-9).all(), block.kind
    assert abs(x.sum() - solution.x.sum()) < 30
    assert cells.value @ x > 0.9 * solution.objective


@pytest.mark.parametrize("seed", range(6))
def test_whole_impressions_keep_what_a_person_set(seed: int) -> None:
    """Rounding, and giving back what breaks a limit, once left a minimum of 60 at 55."""
    frame_ = random_cells(seed, 3, 6, 3, 24).frame.with_columns(pl.col("available_impressions") / 8)
    cells = Cells(frame_, available_whole=True)
    fixed = Override("fixed", creative_id="c3", minimum=200.0, maximum=200.0)
    least = Override("least", creative_id="c1", placement_id="p1", minimum=60.0)
    limits = Limits(budget=30.0, target=0.2, exploration_share=0.05, hourly_share=0.25, overrides=(fixed, least))
    model = Model(cells, limits)
    solution = model.solve()
    assert not solution.is_relaxed
    x = whole_impressions(solution.x, cells, model.statement.blocks, solution.relaxed, seed)
    assert x[fixed.matches(frame_)].sum() == 200 and x[least.matches(frame_)].sum() >= 60
    for block in model.statement.blocks:
        if block.sense == "<=":
            assert (used(block, x, cells.members @ x, 0.0) <= block.limit + 1e-6 * np.maximum(block.limit, 1.0)).all()
    assert (x == np.round(x)).all() and x.min() >= 0
    assert cells.value @ x >= 0.97 * (cells.value @ solution.x)


@pytest.mark.parametrize("diminishing", [(), ((0.5, 0.6), (2.0, 0.2))])
def test_a_target_is_missed_where_its_last_conversion_costs_too_much(diminishing: tuple[tuple[float, float], ...]) -> None:
    """What is left is the plan of most value plus the worth of its conversions, whatever the target."""
    dear = 0
    for seed in range(12):
        cells = random_cells(seed, creatives=4)
        limits = Limits(budget=4.0, target=0.0, audience_users={"a0": 40.0, "a1": 60.0}, diminishing=diminishing)
        target = 0.98 * solve_plan(Cells(cells.frame.with_columns(value_per_conversion=1.0)), limits).objective
        kept = repetition(cells, limits)

        def conversions(x: Any, cells: Cells = cells, kept: Any = kept) -> float:
            return float(cells.conversions @ x) - kept.lost(x, kept.conversions_lost)

        hard = solve_plan(cells, replace(limits, target=target))
        assert not hard.is_relaxed
        price = -float(next(d for d, b in zip(hard.duals, all_blocks(cells, replace(limits, target=target)), strict=True)
                            if b.kind == "target_conversions")[0])  # fmt: skip
        same = solve_plan(cells, replace(limits, target=target, most_per_conversion=1.01 * price + 1e-6))
        assert same.objective == pytest.approx(hard.objective) and not same.is_relaxed
        if price < 1e-6:
            continue
        most = 0.4 * price
        soft = solve_plan(cells, replace(limits, target=target, most_per_conversion=most))
        worth = Cells(cells.frame.with_columns(value_per_conversion=pl.col("value_per_conversion") + most))
        best = solve_plan(worth, limits)
        assert soft.objective + most * conversions(soft.x) == pytest.approx(best.objective, rel=1e-6)
        missed = sum(float(amounts.sum()) for amounts in soft.relaxed)
        assert soft.is_relaxed and missed == pytest.approx(target - conversions(soft.x), rel=1e-5) and missed > 0
        assert soft.objective > hard.objective
        assert soft.upper_bound >= soft.objective * (1 - 1e-9)
        dear += 1
    assert dear >= 5


def test_probability_of_target() -> None:
    """Without uncertain rates conversions are Poisson: P(N >= 1 | mean 4) is about 0.98; the normal says 0.96."""
    cells = Cells(one_group([0.04], [0.01], [10]).with_columns(ctr_low="ctr", ctr_high="ctr", cvr_low="cvr", cvr_high="cvr"))
    x, kept = np.array([100.0]), np.ones(1)
    assert probability_of_target(x, kept, cells, 0.0, 0.9) == 1.0
    assert 0.93 < probability_of_target(x, kept, cells, 1.0, 0.9) < 0.99
    vague = Cells(one_group([0.04], [0.01], [10]))
    assert probability_of_target(x, kept, vague, 1.0, 0.9) < probability_of_target(x, kept, cells, 1.0, 0.9)


# --- user by user -----------------------------------------------------------------------------------------------------


def user_problem(users: int, seed: int, *, slots: int = 8, width: int = 5, target: float = 0.0) -> UserProblem:
    rng = np.random.default_rng(seed)
    slot = rng.integers(0, slots, (users, width)).astype(np.int32)
    value, cost = rng.gamma(2, 0.5, (users, width)), rng.uniform(0.05, 0.3, (users, width))
    return UserProblem(
        slot,
        value,
        cost,
        value * rng.uniform(0.02, 0.05, (users, width)),
        2,
        rng.uniform(0.4, 1.2, slots) * 2 * users / slots,
        0.18 * users,
        target * users,
    )


def linprog_optimum(problem: UserProblem) -> float:
    """The same problem written down plainly for scipy."""
    from scipy.optimize import linprog

    n, width = problem.slot.size, problem.slot.shape[1]
    users = np.repeat(np.arange(problem.users), width)
    rows = [
        sp.csr_array((np.ones(n), (users, np.arange(n)))),
        sp.csr_array((np.ones(n), (problem.slot.ravel(), np.arange(n))), shape=(problem.inventory.size, n)),
        sp.csr_array(problem.cost.reshape(1, -1)),
        sp.csr_array(-problem.conversions.reshape(1, -1)),
    ]
    limits = np.concatenate([np.full(problem.users, problem.cap), problem.inventory, [problem.budget], [-problem.target]])
    found = linprog(-problem.value.ravel(), A_ub=sp.vstack(rows), b_ub=limits, bounds=(0, 1), method="highs")
    assert found.status == 0
    return float(-found.fun)


@pytest.mark.parametrize(("users", "target"), [(300, 0.0), (300, 0.05), (6_000, 0.0)])
def test_user_plan_is_exact_and_feasible(users: int, target: float) -> None:
    problem = user_problem(users, users, target=target)
    plan = solve_users(problem)
    assert plan.objective == pytest.approx(linprog_optimum(problem), rel=1e-6)
    assert plan.gap <= 1e-6
    assert plan.x.min() >= 0 and plan.x.max() <= 1
    assert (plan.x.sum(axis=1) <= problem.cap * (1 + 1e-9)).all()
    assert (np.bincount(problem.slot.ravel(), weights=plan.x.ravel(), minlength=8) <= problem.inventory * (1 + 1e-9)).all()
    assert problem.budget is not None and (problem.cost * plan.x).sum() <= problem.budget * (1 + 1e-9)
    assert (problem.conversions * plan.x).sum() >= problem.target * (1 - 1e-8)


def test_any_prices_bound_the_user_plan() -> None:
    problem = user_problem(300, 5)
    best = linprog_optimum(problem)
    rng = np.random.default_rng(0)

    for _ in range(5):
        assert upper_bound(problem, Prices(rng.uniform(0, 2, 8), float(rng.uniform(0, 10)))) >= best


def test_user_plan_from_prices_of_a_like_problem_is_exact() -> None:
    problem = user_problem(6_000, 9, target=0.05)
    assert problem.budget is not None
    before = solve_users(problem)
    changed = replace(problem, budget=problem.budget * 0.95, inventory=problem.inventory * 1.05)
    plan = solve_users(changed, start=before.prices)
    assert plan.objective == pytest.approx(linprog_optimum(changed), rel=1e-6)
    assert plan.gap <= 1e-6


@pytest.mark.parametrize("target", [0.0, 0.05])
def test_user_plan_of_the_users_in_question_is_exact(target: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many users most are settled first; here of few, so that a whole solve can be compared."""
    monkeypatch.setattr(user_level, "MANY", 2_000)
    problem = user_problem(8_000, 12, target=target)
    assert problem.budget is not None
    plan = solve_users(problem)
    again = solve_users(replace(problem, budget=problem.budget * 1.05), start=plan.prices)
    for found, stated in ((plan, problem), (again, replace(problem, budget=problem.budget * 1.05))):
        assert found.objective == pytest.approx(linprog_optimum(stated), rel=1e-6)
        assert found.objective == pytest.approx(float((stated.value * found.x).sum()), rel=1e-12)
        assert found.gap <= 1e-6 and found.free_share < 0.1
        assert (found.x.sum(axis=1) <= stated.cap * (1 + 1e-9)).all()
        assert stated.budget is not None and (stated.cost * found.x).sum() <= stated.budget * (1 + 1e-9)
        used_slots = np.bincount(stated.slot.ravel(), weights=found.x.ravel(), minlength=8)
        assert (used_slots <= stated.inventory * (1 + 1e-9)).all()
        assert (stated.conversions * found.x).sum() >= stated.target * (1 - 1e-8)


@pytest.mark.parametrize("change", ["equal", "nothing", "no money", "empty", "wide cap"])
def test_user_plan_where_no_user_stands_out(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All candidates alike, no inventory, no money, users without candidates, and a cap that never binds."""
    monkeypatch.setattr(user_level, "MANY", 1_000)
    problem = user_problem(6_000, 3)
    one = np.ones_like(problem.value)
    problem = {
        "equal": replace(problem, value=one, cost=one, conversions=0.1 * one),
        "nothing": replace(problem, inventory=np.zeros(8)),
        "no money": replace(problem, budget=0.0),
        "empty": replace(problem, slot=np.where(np.arange(6_000)[:, None] % 2, problem.slot, -1).astype(np.int32)),
        "wide cap": replace(problem, cap=problem.slot.shape[1]),
    }[change]
    plan = solve_users(problem)
    someone = problem.rows(np.flatnonzero((problem.slot >= 0).all(axis=1)))
    assert plan.objective == pytest.approx(linprog_optimum(someone), rel=1e-6, abs=1e-9)
    assert plan.gap <= 1e-6
    assert not plan.x[problem.slot < 0].any()


def test_the_bound_s_curvature_is_that_of_its_slope() -> None:
    """Against the bound's own slope at prices moved a little, competition under the cap included."""
    problem = replace(user_problem(200_000, 4, slots=3), inventory=np.array([20_000.0, 30_000.0, 25_000.0]), budget=None)
    at, move = Prices(np.array([0.9, 0.8, 0.85])), np.array([0.02, -0.01, 0.03])
    view = user_prices.look(problem, at, 0.05)
    moved = user_prices.look(problem, Prices(at.slot + move), 0.05)
    curvature = user_prices._curvature(problem, view, 0.05)
    assert curvature @ move == pytest.approx(view.excess - moved.excess, rel=0.05)


@pytest.mark.parametrize("users", [300, 6_000])
def test_user_plan_meets_an_unreachable_target_as_far_as_it_can(users: int) -> None:
    """Candidates are fixed at prices first; what was fixed for its value must be freed where conversions are lacking."""
    problem = user_problem(users, 6)
    most = linprog_optimum(replace(problem, value=problem.conversions))
    plan = solve_users(replace(problem, target=1.2 * most))
    assert plan.missing == pytest.approx(0.2 * most, rel=1e-4)
    assert (problem.conversions * plan.x).sum() == pytest.approx(most, rel=1e-4)


# --- the window function ----------------------------------------------------------------------------------------------

DAYS = [DAY + timedelta(days=i) for i in range(4)]


def shop(sources: tuple[str, ...] = ("impressions",), **planning: Any) -> Store:
    return Store.model_validate(
        {
            "name": "shop",
            "timezone": "UTC",
            "currency": "EUR",
            "first_day": DAY,
            "methods": "plain",
            "sources": {name: {"rows": [{}]} for name in sources},
            "ad_planning": planning,
        }
    )


def history() -> dict[str, pl.DataFrame]:
    """Four days of rates that drift, an audience with a tenth held out, and calibration that is right."""
    rng = np.random.default_rng(0)
    base = random_cells(1, 2, 4, 2, 3).frame
    rates = pl.concat(
        [base.with_columns(as_of_date=pl.lit(day), ctr=(pl.col("ctr") * float(rng.uniform(0.8, 1.2)))) for day in DAYS]
    )
    audiences = pl.DataFrame(
        [
            {
                "as_of_date": DAY,
                "user_id": f"u{i:03}",
                "audience_id": f"a{i % 2}",
                "priority": i % 2,
                "is_holdout": i % 20 < 2,
                "issued_date": DAY,
            }
            for i in range(400)
        ],
        schema=polars_schema("audiences"),
    )
    return {"response_rates": rates, "audiences": audiences, "response_calibration": calibration(100.0, 100)}


def calibration(predicted: float, clicks: int) -> pl.DataFrame:
    rows = [
        {
            "as_of_date": DAY,
            "segment_type": "all",
            "segment": "all",
            "impressions": 10_000,
            "clicks": clicks,
            "predicted_clicks": predicted,
            "log_loss": 1.0,
            "conversions": 0,
            "predicted_conversions": 0.0,
        }
    ]
    return pl.DataFrame(rows, schema=polars_schema("response_calibration"))


def test_a_range_is_the_same_as_its_days_and_fits_the_schemas() -> None:
    store = shop(daily_budget=2.0, max_change=0.4, target_conversions=0.3, value="revenue")
    frames = history()
    whole = build_ad_plan(reader_over(frames, store, DAYS[-1]), DAYS, store).tables
    assert set(whole) == set(TABLES)
    for name, table in whole.items():
        assert dict(table.schema) == polars_schema(name)
    for day in DAYS:
        known = {name: table.filter(pl.col("as_of_date") <= day) for name, table in frames.items()}
        known["ad_plan"] = whole["ad_plan"].filter(pl.col("as_of_date") < day)
        single = build_ad_plan(reader_over(known, store, day), [day], store).tables
        for name, table in single.items():
            assert_frame_equal(
                table.drop("seconds", strict=False),
                whole[name].filter(pl.col("as_of_date") == day).drop("seconds", strict=False),
                rel_tol=1e-9,
            )


def test_a_campaign_that_lands_again_binds_each_day_as_it_stood() -> None:
    """Campaigns sent anew every day: in a range the newest list once hid the budgets of the days before it."""
    store = shop(("impressions", "campaigns"), daily_budget=50.0)
    budgets = {0: "1.5", 2: "0.5", 3: None}
    schema = polars_schema("raw_campaigns")
    rows = [
        {
            "landed_date": DAYS[number],
            "raw_row_id": f"r{number}",
            "source_file": "f",
            "source_row": number,
            "campaign_id": "k0",
            "budget": budget,
            "budget_period": "day",
        }
        for number, budget in budgets.items()
    ]
    campaigns = pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)
    frames = {**history(), "raw_campaigns": campaigns}
    tables = build_ad_plan(reader_over(frames, store, DAYS[-1]), DAYS, store).tables
    limit = tables["ad_plan_constraints"].filter(pl.col("constraint_name") == "campaign_budget:k0").sort("as_of_date")
    assert limit["as_of_date"].to_list() == DAYS
    assert limit["limit_value"].to_list() == [1.5, 1.5, 0.5, 0.5]


def test_plan_rows_keep_the_promises_of_their_columns() -> None:
    store = shop(daily_budget=2.0, exploration_share=0.1)
    tables = build_ad_plan(reader_over(history(), store, DAY), [DAY], store).tables
    plan = tables["ad_plan"]
    assert plan["planned_spend"].sum() <= 2.0 + 1e-9
    assert (plan["planned_impressions"] == plan["planned_impressions"].round()).all()
    run = tables["ad_plan_runs"].row(0, named=True)
    assert run["status"] == "optimal" and run["gap"] < 1e-6 and "whole impressions" in run["note"]
    limits = {row["constraint_name"]: row for row in tables["ad_plan_constraints"].to_dicts()}
    assert limits["budget"]["is_binding"] and limits["budget"]["shadow_price"] > 0
    assert limits["frequency_cap:a0"]["limit_value"] == 4 * 180  # 200 users, a tenth held out
    scenarios = tables["ad_plan_scenarios"].sort("budget")
    assert scenarios["expected_revenue"].diff().drop_nulls().min() >= -1e-9  # type: ignore[operator]
    assert scenarios.filter("is_current")["budget"].to_list() == [2.0]
    without = build_ad_plan(reader_over(history(), store, DAY), [DAY], shop(daily_budget=2.0, exploration_share=0.1, scenario_levels=())).tables
    assert without["ad_plan_scenarios"].is_empty() and without["ad_plan"].equals(plan)


def test_a_plan_says_what_of_its_target_was_too_dear() -> None:
    def planned(**more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        store = shop(**{"daily_budget": 2.0, **more})
        tables = build_ad_plan(reader_over(history(), store, DAY), [DAY], store).tables
        limits = {row["constraint_name"]: row for row in tables["ad_plan_constraints"].to_dicts()}
        return tables["ad_plan_runs"].row(0, named=True), limits.get("target_conversions", {})

    free, _ = planned()
    target = 0.95
    run, limit = planned(target_conversions=target)
    assert run["status"] == "optimal" and limit["shadow_price"] < -1.0
    capped, given = planned(target_conversions=target, most_per_conversion=0.5)
    assert capped["status"] == "relaxed" and f"{given['relaxation_needed']:.2f} conversions of the target are not sought" in capped["note"]
    assert "no plan meets every limit" not in capped["note"] and -given["shadow_price"] <= 0.5 * (1 + 1e-6)
    assert run["objective"] < capped["objective"] <= free["objective"] + 1e-6
    assert capped["gap"] < 1e-6
    # nor does another limit give way for one that is out of reach
    small: dict[str, Any] = {"target_conversions": 0.95, "daily_budget": 0.5, "relaxation_weights": {"budget": 0.001}}
    overspent, _ = planned(**small)
    assert "budget +" in overspent["note"]
    within, given = planned(**small, most_per_conversion=0.5)
    assert "budget" not in within["note"] and "are not sought" in within["note"] and given["used_value"] < 0.95


def test_reach_of_a_window_is_what_the_log_says_each_day() -> None:
    """Users change audiences, leave them, belong to two at once, and are stated anew, or no more, on keyframes."""
    rng, store = np.random.default_rng(5), shop()
    days = [DAY + timedelta(days=number) for number in range(70)]
    users = np.arange(40)
    rows = []
    for number, day in enumerate(days):
        is_keyframe = number == 0 or store.is_cadence_day(day, KEYFRAME_DAYS)
        users = users[rng.random(users.size) < 0.9] if is_keyframe else users
        for user in users if is_keyframe else users[rng.random(users.size) < 0.1]:
            chosen = rng.choice(3, size=rng.integers(0, 3), replace=False)
            for priority, audience in enumerate(chosen):
                rows.append((day, f"u{user:03}", f"a{audience}", int(priority), bool(user % 5 == 0), day))
            if not chosen.size:
                rows.append((day, f"u{user:03}", None, None, bool(user % 5 == 0), day))
    log = pl.DataFrame(rows, schema=["as_of_date", "user_id", "audience_id", "priority", "is_holdout", "issued_date"], orient="row")
    log = log.select(pl.col(name).cast(kind) for name, kind in polars_schema("audiences").items())
    reader = reader_over({"audiences": log}, store, days[-1])
    found = audience_reach(reader, days[20:])
    for day in days[20:]:
        stated = reader.log_as_of("audiences", day).filter(pl.col("audience_id").is_not_null()).sort("user_id", "priority")
        first = stated.unique("user_id", keep="first", maintain_order=True)
        assert found[day].users == {name: float(count) for name, count in first["audience_id"].value_counts().iter_rows()}
        free = first.filter(~pl.col("is_holdout"))["audience_id"].value_counts()
        assert {name: count for name, count in found[day].free.items() if count} == {name: float(count) for name, count in free.iter_rows()}


def test_uncalibrated_rates_are_refused_with_the_reason() -> None:
    store = shop(daily_budget=2.0)
    frames = {**history(), "response_calibration": calibration(400.0, 100)}
    tables = build_ad_plan(reader_over(frames, store, DAY), [DAY], store).tables
    run = tables["ad_plan_runs"].row(0, named=True)
    assert run["status"] == "refused" and "400.0 predicted, 100 observed" in run["note"]
    assert tables["ad_plan"].is_empty()


def test_too_little_evidence_is_no_reason_to_refuse() -> None:
    store = shop(daily_budget=2.0)
    tables = build_ad_plan(
        reader_over({**history(), "response_calibration": calibration(4.0, 1)}, store, DAY), [DAY], store
    ).tables
    assert tables["ad_plan_runs"]["status"].to_list() == ["optimal"]


def test_a_shop_without_ads_gets_empty_marked_tables() -> None:
    store = Store.model_validate(
        {"name": "s", "timezone": "UTC", "currency": "EUR", "first_day": DAY, "sources": {"events": {"rows": [{}]}}}
    )
    built = build_ad_plan(reader_over({}, store, DAYS[-1]), DAYS, store)
    assert built.tables["ad_plan"].is_empty() and "ad_plan" in built.degraded
    assert built.tables["ad_plan_runs"]["status"].to_list() == ["no_inputs"] * 4


def test_plan_diff_names_what_moved() -> None:
    store = shop(daily_budget=2.0, exploration_share=0.0, whole_impressions=False)
    frames = history()
    doubled = frames["response_rates"].with_columns(
        ctr=pl.when((pl.col("as_of_date") == DAYS[1]) & (pl.col("creative_id") == "c1"))
        .then(pl.col("ctr") * 3)
        .otherwise("ctr")
        .clip(0, 1)
    )
    tables = build_ad_plan(reader_over({**frames, "response_rates": doubled}, store, DAYS[1]), DAYS[:2], store).tables
    gained = tables["plan_diff"].filter(
        pl.col("as_of_date") == DAYS[1], pl.col("creative_id") == "c1", pl.col("impressions_change") > 0
    )
    assert gained.height and set(gained["reason"]) == {"value"}


def test_proposals_rank_audiences_by_what_they_bring() -> None:
    store = shop(daily_budget=2.0)
    proposals = build_ad_plan(reader_over(history(), store, DAY), [DAY], store).tables["campaign_proposals"]
    assert proposals["subject"].n_unique() == proposals.height == 4
    assert proposals["reach"].max() <= 180 and proposals["participation"].is_between(0, 1).all()  # type: ignore[operator]


def test_owned_placements_are_planned_user_by_user() -> None:
    store = shop(daily_budget=2.0, user_level_placements=["p0"])
    tables = build_ad_plan(reader_over(history(), store, DAY), [DAY], store).tables
    owned = tables["user_ad_plan"]
    assert set(owned["placement_id"]) == {"p0"} and "p0" not in set(tables["ad_plan"]["placement_id"])
    held_out = history()["audiences"].filter("is_holdout")["user_id"]
    assert not owned["user_id"].is_in(held_out.implode()).any()
