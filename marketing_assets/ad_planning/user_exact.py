"""Exact plans of users at prices: what is clear is fixed, the rest is a linear program, and the gap is proved.

What belongs here: fixing, the restricted program and its solver. What does not: sharper prices (user_prices) or which users are
solved for (user_level).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from marketing_assets.ad_planning.inputs import Flags, Floats, SolverFailed
from marketing_assets.ad_planning.user_problem import Prices, UserPlan, UserProblem, bound_at, edges, width_of, worth

ROUNDS = 12
FREE_SHARE = 0.06
"""Share of candidates left open at prices from a sample."""
FREE_GROWTH = 5
"""Most by which the open candidates grow from round to round, besides those that were fixed wrongly."""


def exact(
    problem: UserProblem, start: Prices | None, gap: float, penalty: float, rounds: int = ROUNDS, free_share: float = FREE_SHARE
) -> UserPlan:
    """Fix what is clear at the given prices, solve the rest, free what was fixed wrongly, until the gap is proved."""
    valid = problem.slot >= 0
    margins = np.zeros(problem.slot.shape)
    if start is None or np.isnan(start.slot).any():
        state = np.full(problem.slot.shape, 0, dtype=np.int8)
        state[~valid] = -1
        width = np.inf
    else:
        margins, _ = edges(problem, worth(problem, start))
        width = width_of(problem, margins, free_share)
        state = _fix(margins, width, valid)
    best: UserPlan | None = None
    for number in range(1, rounds + 1):
        while (crowded := _over_asked(problem, state)).any():  # what was fixed asks for more than there is: free more, there
            width *= 1.3
            near = (np.abs(margins) <= width) & np.append(crowded, False)[problem.slot]
            state[near] = 0
        answer = _restricted(problem, state, penalty)
        x, prices, missing = answer
        now, gain = edges(problem, worth(problem, prices))
        bound = bound_at(problem, prices, gain)
        objective = problem.settled + float((problem.value * x).sum())
        free = float((state == 0).sum()) / max(int(valid.sum()), 1)
        # at the price of a missing conversion the bound is that of plans which lack as many
        plan = UserPlan(x, prices, objective, bound + penalty * missing, missing, number, free)
        if best is None or plan.gap < best.gap:
            best = plan
        if plan.gap <= gap or not (state[valid] != 0).any():
            return plan
        wrong = ((state == 1) & (now < 0)) | ((state == -1) & (now > 0) & valid)
        if not wrong.any():
            return plan
        # those wrongly fixed, and others as close to the edge as the wrong ones turned out to be
        reach, distance = float(np.quantile(np.abs(now[wrong]), 0.9)), np.abs(now[valid])
        most = min(FREE_GROWTH * int((state == 0).sum()), distance.size - 1)
        reach = min(reach, float(np.partition(distance, most)[most]))
        state[wrong | ((np.abs(now) <= reach) & valid)] = 0
    assert best is not None
    return best


def _fix(margins: Floats, width: float, valid: Flags) -> npt.NDArray[np.int8]:
    state = np.where(margins > width, 1, np.where(margins < -width, -1, 0)).astype(np.int8)
    state[~valid] = -1
    return state


def _over_asked(problem: UserProblem, state: npt.NDArray[np.int8]) -> Flags:
    """Slots of which the candidates fixed as bought use more than there is; all of them where they cost more than the budget."""
    taken = state == 1
    over = np.bincount(problem.slot[taken], minlength=problem.inventory.size) > problem.inventory
    if problem.budget is not None and float(problem.cost[taken].sum()) > problem.budget:
        over[:] = True
    return over


def _restricted(problem: UserProblem, state: npt.NDArray[np.int8], penalty: float) -> tuple[Floats, Prices, float]:
    """Solve over the free candidates with the fixed ones' use taken off: x, prices and what the target lacks."""
    import highspy

    slots = problem.inventory.size
    taken = state == 1
    use = np.bincount(problem.slot[taken], minlength=slots).astype(float)
    left = problem.inventory - use
    money_left = None if problem.budget is None else problem.budget - float(problem.cost[taken].sum())
    wanted = problem.target - float(problem.conversions[taken].sum())
    index = np.flatnonzero(state.ravel() == 0)
    x = taken.astype(float)
    width = state.shape[1]
    users = index // width
    slot = problem.slot.ravel()[index]
    value, cost, conversions = (array.ravel()[index] for array in (problem.value, problem.cost, problem.conversions))
    room = problem.cap - taken.sum(axis=1)
    free_of_user = np.bincount(users, minlength=problem.users)
    needs_row = free_of_user > room
    row_of_user = np.cumsum(needs_row) - 1
    bound = needs_row[users]
    columns = np.arange(index.size)
    used_slots = np.unique(slot)
    slot_row = np.full(slots, -1)
    slot_row[used_slots] = np.arange(used_slots.size)
    rows = [slot_row[slot]]
    cols = [columns]
    data = [np.ones(index.size)]
    limits = [left[used_slots]]
    at = used_slots.size
    money_row = target_row = -1
    if money_left is not None:
        money_row = at
        rows.append(np.full(index.size, at))
        cols.append(columns)
        data.append(cost)
        limits.append(np.array([money_left]))
        at += 1
    has_target = problem.target > 0
    n = index.size + (1 if has_target else 0)
    if has_target:
        target_row = at
        rows += [np.full(index.size, at), np.array([at])]
        cols += [columns, np.array([index.size])]
        data += [-conversions, np.array([-1.0])]
        limits.append(np.array([-wanted]))
        at += 1
    rows.append(at + row_of_user[users[bound]])
    cols.append(columns[bound])
    data.append(np.ones(int(bound.sum())))
    limits.append(room[needs_row].astype(float))
    height = at + int(needs_row.sum())
    matrix = sp.csc_array((np.concatenate(data), (np.concatenate(rows), np.concatenate(cols))), shape=(height, n))
    worths = np.append(value, -penalty) if has_target else value
    tops = np.append(np.ones(index.size), highspy.kHighsInf) if has_target else np.ones(index.size)
    scale = float(np.abs(value).max()) if value.size else 1.0
    found, duals = _highs(matrix, -worths / scale, tops, np.concatenate(limits))
    duals = np.maximum(-duals * scale, 0.0)
    chosen = np.clip(found[: index.size], 0.0, 1.0)
    missing = max(float(found[index.size]), 0.0) if has_target else 0.0
    prices = np.zeros(slots)
    prices[used_slots] = duals[: used_slots.size]
    x.ravel()[index] = chosen
    _shrink_to_limits(problem, x)
    return (
        x,
        Prices(prices, float(duals[money_row]) if money_row >= 0 else 0.0, float(duals[target_row]) if target_row >= 0 else 0.0),
        (missing if missing > 1e-7 * max(problem.target, 1.0) else 0.0),
    )


def _highs(matrix: sp.csc_array, costs: Floats, tops: Floats, limits: Floats) -> tuple[Floats, Floats]:
    """minimise costs x, matrix x <= limits, 0 <= x <= tops: x and row duals, by interior point without crossover."""
    import highspy

    program: Any = highspy.HighsLp()
    program.num_col_, program.num_row_ = costs.size, limits.size
    program.col_cost_, program.col_lower_, program.col_upper_ = costs, np.zeros(costs.size), tops
    program.row_lower_, program.row_upper_ = np.full(limits.size, -highspy.kHighsInf), limits
    program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    program.a_matrix_.start_, program.a_matrix_.index_, program.a_matrix_.value_ = matrix.indptr, matrix.indices, matrix.data
    solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]
    for option, value in (
        ("output_flag", False),
        ("threads", 1),
        ("solver", "ipx"),
        ("run_crossover", "off"),
        ("ipm_optimality_tolerance", 1e-9),
        ("primal_feasibility_tolerance", 1e-9),
        ("dual_feasibility_tolerance", 1e-9),
    ):
        solver.setOptionValue(option, value)
    solver.passModel(program)
    solver.run()
    status = solver.getModelStatus()
    if status not in (highspy.HighsModelStatus.kOptimal, highspy.HighsModelStatus.kUnknown):
        raise SolverFailed(
            f"user-level plan: HiGHS stopped with {solver.modelStatusToString(status)!r} on {costs.size} free candidates"
        )
    answer = solver.getSolution()
    return np.asarray(answer.col_value), np.asarray(answer.row_dual)


def _shrink_to_limits(problem: UserProblem, x: Floats) -> None:
    """Take off what the solver's tolerance left above a limit, in place: users' caps, then slots, then money."""
    sums = x.sum(axis=1)
    over = sums > problem.cap
    x[over] *= (problem.cap / sums[over])[:, None]
    use = np.bincount(np.maximum(problem.slot, 0).ravel(), weights=x.ravel(), minlength=problem.inventory.size)
    factor = np.where(use > problem.inventory, problem.inventory / np.maximum(use, 1e-300), 1.0)
    if (factor < 1).any():
        x *= np.append(factor, 1.0)[problem.slot]
    if problem.budget is not None:
        spent = float((problem.cost * x).sum())
        if spent > problem.budget:
            x *= problem.budget / spent
