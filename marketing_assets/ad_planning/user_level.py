"""The plan user by user: who gets which creative in which placement, millions of variables, with a proof of its gap.

What belongs here: the assignment problem of owned channels and its solution. What does not: who is a user or what a
creative is worth to one (user_rows).

maximise sum v x  subject to  0 <= x <= 1, at most `cap` impressions per user, impressions of a slot (placement and hour)
within its inventory, spend within the budget, conversions at least the target. Few limits couple the users, so prices of
those limits split the problem into one small choice per user. Any prices give an upper bound and any feasible plan a lower
one. Prices come from small samples of users first; candidates whose worth at those prices is clearly above or below what
their user's cap asks are fixed, and the rest is solved exactly, with all of the fixed ones' use taken off the limits; the
new prices show whether anything was fixed wrongly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from marketing_assets.ad_planning.inputs import Floats, Integers, SolverFailed

GAP = 2e-7
"""Relative gap at which the search for wrongly fixed candidates ends."""
FIRST_SAMPLE = 1_500
SAMPLE_GROWTH = 6
LARGEST_SAMPLE = 30_000
"""Users beyond which sharpening on all users is quicker than a larger sample."""
SMALL = 5_000
"""Users below which one exact solve is quicker than sharpening prices."""
ROUNDS = 12
FREE_SHARE = 0.06
"""Share of candidates left open at prices from a sample."""
FREE_POLISHED = 20_000
"""Candidates left open at prices sharpened on all users: the more users there are, the nearer those prices come."""
SAMPLE_FOR_CHANGES = 50_000
"""Users on whom prices of a like problem are moved first to where they are wanted now."""
POLISH_STEPS = 12
DAMPING = 0.9


@dataclass(frozen=True)
class UserProblem:
    """users x candidates arrays. slot: which inventory a candidate draws on, -1 for no candidate (padding).

    value, cost, conversions: per impression. cap: most impressions per user. inventory: per slot. budget None: no limit.
    """

    slot: npt.NDArray[np.int32]
    value: Floats
    cost: Floats
    conversions: Floats
    cap: int
    inventory: Floats
    budget: float | None = None
    target: float = 0.0

    @property
    def users(self) -> int:
        return int(self.slot.shape[0])

    def part(self, rows: Integers) -> UserProblem:
        """The problem of some of the users, its limits in proportion."""
        share = rows.size / self.users
        return UserProblem(
            self.slot[rows],
            self.value[rows],
            self.cost[rows],
            self.conversions[rows],
            self.cap,
            self.inventory * share,
            None if self.budget is None else self.budget * share,
            self.target * share,
        )


@dataclass(frozen=True)
class Prices:
    """Prices of the coupling limits: per slot, of money, and of conversions (what one more is worth to reach the target)."""

    slot: Floats
    money: float = 0.0
    conversion: float = 0.0


@dataclass(frozen=True)
class UserPlan:
    """x: users x candidates; objective and the bound no plan exceeds that lacks no more; missing: conversions the target lacks."""

    x: Floats
    prices: Prices
    objective: float
    upper_bound: float
    missing: float
    rounds: int
    free_share: float

    @property
    def gap(self) -> float:
        return max(self.upper_bound - self.objective, 0.0) / max(abs(self.upper_bound), 1e-300)


def worth(problem: UserProblem, prices: Prices) -> Floats:
    """Value of each candidate at these prices; -inf where there is none."""
    result: Floats = problem.value - np.append(prices.slot, np.inf)[problem.slot]
    if problem.budget is not None and prices.money:
        result -= prices.money * problem.cost
    if prices.conversion:
        result += prices.conversion * problem.conversions
    return result


def upper_bound(problem: UserProblem, prices: Prices) -> float:
    """Lagrangian bound: what every user's best choice is worth at these prices, plus the limits at their prices."""
    return _bound(problem, prices, _edges(problem, worth(problem, prices))[1])


def _bound(problem: UserProblem, prices: Prices, gain: float) -> float:
    total = gain + float(prices.slot @ problem.inventory) - prices.conversion * problem.target
    return total + (prices.money * problem.budget if problem.budget is not None else 0.0)


def _edges(problem: UserProblem, reduced: Floats) -> tuple[Floats, float]:
    """How far each candidate lies above (+) or below (-) the point where it would enter or leave its user's choice, and what
    the choices are worth in all."""
    width = reduced.shape[1]
    cap = problem.cap
    if cap >= width:
        return reduced, float(np.maximum(reduced, 0.0).sum())
    ordered = np.partition(reduced, (width - cap - 1, width - cap), axis=1)
    outside = np.maximum(ordered[:, width - cap - 1], 0.0)  # the best candidate left out: those chosen must beat it
    inside = np.maximum(ordered[:, width - cap], 0.0)  # the worst chosen: those left out must beat it
    gain = float(np.maximum(ordered[:, width - cap :], 0.0).sum())
    edge = np.where(reduced >= inside[:, None], outside[:, None], inside[:, None])
    return np.subtract(reduced, edge, out=edge), gain


def solve_users(problem: UserProblem, *, seed: int = 0, start: Prices | None = None, gap: float = GAP) -> UserPlan:
    """Solve to the gap asked. start: prices of a like problem solved before (yesterday's, or before a change of limits).

    Raises SolverFailed where HiGHS gives no answer. A target that cannot be reached is met as far as it can be, and
    `missing` says by how much it fails.
    """
    penalty = _target_penalty(problem)
    if start is None:
        start = _sampled_prices(problem, seed, gap, penalty)
    elif problem.users > 2 * SAMPLE_FOR_CHANGES:
        sample = np.random.default_rng([seed, problem.users]).permutation(problem.users)[:SAMPLE_FOR_CHANGES]
        start = polish(problem.part(np.sort(sample)), start, gap)
    if np.isnan(start.slot).any() or problem.users < SMALL:
        return _exact(problem, start, gap, penalty)
    free = min(FREE_POLISHED / problem.slot.size, FREE_SHARE)
    return _exact(problem, polish(problem, start, gap), gap, penalty, free_share=free)


def polish(problem: UserProblem, prices: Prices, gap: float = GAP, steps: int = POLISH_STEPS) -> Prices:
    """Sharpen prices on all users: Newton steps on the bound, the best of them kept, until one gains less than `gap`."""
    at = best = prices
    lowest, share = np.inf, 0.08
    for step in range(steps + 1):
        margins, gain = _edges(problem, worth(problem, at))
        bound = _bound(problem, at, gain)
        gained = lowest - bound
        if step == steps or 0 <= gained < gap / 20 * abs(bound):
            best = at if gained > 0 else best
            break
        if gained < 0:  # too far: the bound is convex, nearer to the best prices it falls
            at = _between(best, at, 0.25)
            continue
        best, lowest = at, bound
        width = _first_width(problem, margins, share)
        if width <= 0:
            break
        at = _newton_step(problem, at, margins.ravel(), width)
        share = max(share * 0.8, 0.02)
    return best


def _between(one: Prices, other: Prices, share: float) -> Prices:
    def mixed(a: Any, b: Any) -> Any:
        return a + share * (b - a)

    return Prices(mixed(one.slot, other.slot), mixed(one.money, other.money), mixed(one.conversion, other.conversion))


def _newton_step(problem: UserProblem, at: Prices, margins: Floats, width: float) -> Prices:
    """Prices nearer to where every limit is just used up.

    The bound's slope is what the chosen candidates take of a limit beyond it, its curvature what those within `width` of the
    edge of their user's choice take (a kernel estimate). Slots meet in money and conversions only, so that the system is an
    arrow, solved by its Schur complement; that they also compete under a user's cap is left out, and damped for.
    """
    slots = problem.inventory.size
    slot_of = np.where(problem.slot >= 0, problem.slot, slots).ravel()
    taken, near = np.flatnonzero(margins > 0), np.flatnonzero(np.abs(margins) < width)
    excess = np.bincount(slot_of[taken], minlength=slots + 1)[:slots] - problem.inventory
    of_near = slot_of[near]
    count = np.bincount(of_near, minlength=slots + 1)[:slots]
    price, over, take = [], [], []
    for use, limit, now in (
        (problem.cost, problem.budget, at.money),
        (-problem.conversions, -problem.target if problem.target > 0 else None, at.conversion),
    ):
        if limit is not None:
            price.append(now)
            over.append(float(use.ravel()[taken].sum()) - limit)
            take.append(use.ravel()[near])
    border = np.array([np.bincount(of_near, weights=one, minlength=slots + 1)[:slots] for one in take]).reshape(-1, slots)
    corner = np.array([[float(one @ other) for other in take] for one in take]).reshape(len(take), len(take))
    # slots so little used that they would cost less than nothing cost nothing, whatever becomes of the other prices
    is_idle = (excess <= 0) & (at.slot * count + 2 * width * excess <= 0)
    curve = np.where(is_idle | (count == 0), np.inf, count)
    complement, wanted = corner - border @ (border / curve).T, np.array(over) - border @ (excess / curve)
    prices, shared, is_moved = np.array(price), np.zeros(len(take)), np.ones(len(take), dtype=bool)
    while is_moved.any():
        shared[is_moved] = np.linalg.lstsq(complement[np.ix_(is_moved, is_moved)], wanted[is_moved], rcond=None)[0]
        is_below = is_moved & (prices + 2 * width * shared < 0)
        if not is_below.any():
            break
        # the first whose price would fall below nothing stays at none, and the other is solved for again without it
        first = min(np.flatnonzero(is_below), key=lambda place: -prices[place] / shared[place])
        is_moved[first], shared[first] = False, 0.0
    moves = (excess - shared @ border) / curve
    change = np.append(moves, 0.0)[of_near] + sum(one * move for one, move in zip(take, shared, strict=True))
    # no further than the band reaches in which the curvature was seen
    scale = 2 * width * DAMPING
    reach = float(np.quantile(np.abs(change), 0.9)) * scale if near.size else 0.0
    scale *= min(1.0, 2 * width / reach) if reach > 0 else 1.0
    new = [max(now + scale * move, 0.0) if moved else 0.0 for now, move, moved in zip(price, shared, is_moved, strict=True)]
    money = new.pop(0) if problem.budget is not None else 0.0
    return Prices(np.where(is_idle, 0.0, np.maximum(at.slot + scale * moves, 0.0)), money, new[0] if new else 0.0)


def _target_penalty(problem: UserProblem) -> float:
    """What a missing conversion costs: more than any trade of value for conversions could."""
    seen = problem.conversions > 0
    if problem.target <= 0 or not seen.any():
        return 0.0
    sample = np.flatnonzero(seen.ravel())[:100_000]
    return 100.0 * float(np.max(problem.value.ravel()[sample] / problem.conversions.ravel()[sample]))


def _sampled_prices(problem: UserProblem, seed: int, gap: float, penalty: float) -> Prices:
    """Prices from samples of users, each larger sample starting from the smaller one's prices."""
    prices = Prices(np.zeros(problem.inventory.size))
    size = max(FIRST_SAMPLE, 20 * problem.inventory.size)
    order = np.random.default_rng([seed, problem.users]).permutation(problem.users)
    is_first = True
    while size * 4 <= problem.users and (is_first or size <= LARGEST_SAMPLE):
        part = problem.part(np.sort(order[:size]))
        prices = _exact(part, None if is_first else prices, 1e-4, penalty, rounds=2).prices
        is_first = False
        size *= SAMPLE_GROWTH
    return prices if not is_first else Prices(np.full(problem.inventory.size, np.nan))


def _exact(
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
        margins, _ = _edges(problem, worth(problem, start))
        width = _first_width(problem, margins, free_share)
        state = _fix(margins, width, valid)
    best: UserPlan | None = None
    for number in range(1, rounds + 1):
        while (crowded := _over_asked(problem, state)).any():  # what was fixed asks for more than there is: free more, there
            width *= 1.3
            near = (np.abs(margins) <= width) & np.append(crowded, False)[problem.slot]
            state[near] = 0
        answer = _restricted(problem, state, penalty)
        x, prices, missing = answer
        now, gain = _edges(problem, worth(problem, prices))
        bound = _bound(problem, prices, gain)
        objective = float((problem.value * x).sum())
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
        reach = float(np.quantile(np.abs(now[wrong]), 0.9))
        state[wrong | ((np.abs(now) <= reach) & valid)] = 0
    assert best is not None
    return best


def _first_width(problem: UserProblem, margins: Floats, free_share: float) -> float:
    """Margin within which this share of the candidates lies; they stay free."""
    rows = margins[:: max(problem.users // 20_000, 1)]
    seen = np.abs(rows[np.isfinite(rows)])
    return float(np.quantile(seen, free_share)) if seen.size else 0.0


def _fix(margins: Floats, width: float, valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.int8]:
    state = np.where(margins > width, 1, np.where(margins < -width, -1, 0)).astype(np.int8)
    state[~valid] = -1
    return state


def _over_asked(problem: UserProblem, state: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_]:
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
