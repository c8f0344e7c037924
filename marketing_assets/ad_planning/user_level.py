"""The plan user by user: who gets which creative in which placement, millions of variables, with a proof of its gap.

What belongs here: which users are solved for, in which order. What does not: the problem (user_problem), prices (user_prices),
exact plans (user_exact), and who is a user or what a creative is worth to one (user_rows).

maximise sum v x  subject to  0 <= x <= 1, at most `cap` impressions per user, impressions of a slot (placement and hour)
within its inventory, spend within the budget, conversions at least the target. Few limits couple the users, so prices of
those limits split the problem into one small choice per user. Any prices give an upper bound and any feasible plan a lower
one. Prices come from samples of users first, solved exactly or followed down the bound by Newton steps. At those prices most
users' choice is clear: they leave, and what they take is taken off the limits. On the rest, the core, prices are sharpened,
candidates clearly above or below what their user's cap asks are fixed, and what remains is solved exactly. The bound at
the new prices, over all users, shows whether anything was fixed wrongly.
"""

from __future__ import annotations

import numpy as np

from marketing_assets.ad_planning.inputs import Floats, Integers
from marketing_assets.ad_planning.user_exact import FREE_SHARE, exact
from marketing_assets.ad_planning.user_prices import CORE_BAND, SHARP_ON_SAMPLE, look, newton_step, polish, width_at
from marketing_assets.ad_planning.user_problem import Prices, Taken, UserPlan, UserProblem, blocks, edges, upper_bound

GAP = 2e-7
"""Relative gap at which the search for wrongly fixed candidates ends."""
FIRST_SAMPLE = 1_500
SAMPLE_GROWTH = 6
LARGEST_SAMPLE = 30_000
"""Users beyond which sharpening on all users is quicker than a larger sample."""
SMALL = 5_000
"""Users below which one exact solve is quicker than sharpening prices."""
FREE_POLISHED = 10_000
"""Candidates left open at sharpened prices: the more users there are, the nearer those prices come."""
MANY = 100_000
"""Users beyond which most are settled before prices are sharpened to the last."""
SHARPENED_SHARE = 0.1
"""Share of the users, and half of MANY at least, on whom prices are sharpened before all are looked at."""
CORE_SHARE, MOST_IN_CORE = 0.15, 0.5
"""Share of users whose choice stays in question at sharpened prices, and the most of them: beyond, all stay."""


def solve_users(problem: UserProblem, *, seed: int = 0, start: Prices | None = None, gap: float = GAP) -> UserPlan:
    """Solve to the gap asked. start: prices of a like problem solved before (yesterday's, or before a change of limits).

    Raises SolverFailed where HiGHS gives no answer. A target that cannot be reached is met as far as it can be, and
    `missing` says by how much it fails.
    """
    penalty = _target_penalty(problem)
    start = _sampled_prices(problem, seed, gap, penalty) if start is None else start
    if np.isnan(start.slot).any() or problem.users < SMALL:
        return exact(problem, start, gap, penalty)
    if problem.users > MANY:
        sample = np.random.default_rng([seed, problem.users]).permutation(problem.users)
        sample = sample[: max(MANY // 2, int(SHARPENED_SHARE * problem.users))]
        start = polish(problem.part(np.sort(sample)), start, penalty, sharp=SHARP_ON_SAMPLE)
        start, plan = _around(problem, start, gap, penalty)
        if plan is not None:
            return plan
    sharp = polish(problem, start, penalty)
    return exact(problem, sharp, gap, penalty, free_share=min(FREE_POLISHED / problem.slot.size, FREE_SHARE))


def _around(problem: UserProblem, prices: Prices, gap: float, penalty: float) -> tuple[Prices, UserPlan | None]:
    """Settle the users whose choice is clear, solve for the others, and prove the gap over all: prices nearer by a step, and
    the plan. None where the choice of too many hangs on the prices, as where many candidates are worth the same."""
    width = width_at(problem, prices, CORE_BAND)
    if width <= 0:
        return prices, None
    prices = newton_step(problem, prices, look(problem, prices, width), width, penalty)
    rows, core, x = _core(problem, prices)
    if rows.size > MOST_IN_CORE * problem.users:
        return prices, None
    sharp = polish(core, prices, penalty, CORE_BAND * problem.users / rows.size)
    found = exact(core, sharp, gap, penalty, rounds=2, free_share=min(FREE_POLISHED / core.slot.size, FREE_SHARE))
    x[rows] = found.x
    bound = upper_bound(problem, found.prices) + penalty * found.missing
    open_share = found.free_share * rows.size / problem.users
    plan = UserPlan(x, found.prices, found.objective, bound, found.missing, found.rounds, open_share)
    return prices, plan if plan.gap <= gap else None


def _core(problem: UserProblem, prices: Prices) -> tuple[Integers, UserProblem, Floats]:
    """The users whose choice hangs most on the prices: their rows, their problem, and everyone's choice as it is now.

    CORE_SHARE of the users, more where the others alone would take more than there is, everyone in the end.
    """
    x, slack, made = np.zeros(problem.slot.shape), np.empty(problem.users), Taken.nothing(problem)
    for first, block, reduced in blocks(problem, prices):
        margins, _ = edges(block, reduced)
        x[first : first + block.users] = margins > 0
        made += Taken.of(block, margins > 0)
        slack[first : first + block.users] = np.abs(margins, out=margins).min(axis=1)
    share = CORE_SHARE
    while share < 1:
        place = int(share * problem.users)
        rows = np.flatnonzero(slack <= np.partition(slack, place)[place])
        of_rows = problem.rows(rows)
        core = (made - Taken.of(of_rows, x[rows] > 0)).off(of_rows)
        if (core.inventory >= 0).all() and (core.budget is None or core.budget >= 0):
            return rows, core, x
        share *= 2
    return np.arange(problem.users), problem, x


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
        prices = exact(part, None if is_first else prices, 1e-4, penalty, rounds=2).prices
        is_first = False
        size *= SAMPLE_GROWTH
    return prices if not is_first else Prices(np.full(problem.inventory.size, np.nan))
