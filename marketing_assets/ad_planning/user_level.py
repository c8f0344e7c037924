"""The plan user by user: who gets which creative in which placement, millions of variables, with a proof of its gap.

What belongs here: the assignment problem of owned channels and its solution. What does not: who is a user or what a
creative is worth to one (user_rows).

maximise sum v x  subject to  0 <= x <= 1, at most `cap` impressions per user, impressions of a slot (placement and hour)
within its inventory, spend within the budget, conversions at least the target. Few limits couple the users, so prices of
those limits split the problem into one small choice per user. Any prices give an upper bound and any feasible plan a lower
one. Prices come from samples of users first, solved exactly or followed down the bound by Newton steps. At those prices most
users' choice is clear: they leave, and what they take is taken off the limits. On the rest, the core, prices are sharpened,
candidates clearly above or below what their user's cap asks are fixed, and what remains is solved exactly. The bound at
the new prices, over all users, shows whether anything was fixed wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from marketing_assets.ad_planning.inputs import Flags, Floats, Integers, SolverFailed

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
FREE_POLISHED = 10_000
"""Candidates left open at sharpened prices: the more users there are, the nearer those prices come."""
MANY = 100_000
"""Users beyond which most are settled before prices are sharpened to the last."""
SHARPENED_SHARE = 0.1
"""Share of the users, and half of MANY at least, on whom prices are sharpened before all are looked at."""
FREE_GROWTH = 5
"""Most by which the open candidates grow from round to round, besides those that were fixed wrongly."""
CORE_SHARE, MOST_IN_CORE = 0.15, 0.5
"""Share of users whose choice stays in question at sharpened prices, and the most of them: beyond, all stay."""
BLOCK = 16_384
"""Users looked at at a time: what is made of them stays in the processor's cache."""
POLISH_STEPS = 12
SHARP, SHARP_ON_SAMPLE = 1e-7, 1e-5
"""Relative change of the bound below which the steps are lost in what single users' choices do to it, and, on a sample, in
what its users are not like all."""
FIRST_BAND, CORE_BAND, LEAST_BAND, BAND_FALL = 0.08, 0.02, 0.005, 0.3
"""Share of the candidates in whose band around the edge the bound's curvature is seen: at first, on a core,
at last, and how it falls from step to step."""


@dataclass(frozen=True)
class UserProblem:
    """users x candidates arrays. slot: which inventory a candidate draws on, -1 for no candidate (padding).

    value, cost, conversions: per impression. cap: most impressions per user. inventory: per slot. budget None: no limit.
    settled: value that users bring who are no longer part of the problem, what they take being off its limits already.
    """

    slot: npt.NDArray[np.int32]
    value: Floats
    cost: Floats
    conversions: Floats
    cap: int
    inventory: Floats
    budget: float | None = None
    target: float = 0.0
    settled: float = 0.0

    @property
    def users(self) -> int:
        return int(self.slot.shape[0])

    def rows(self, rows: Integers | slice) -> UserProblem:
        """The problem of some of the users under the same limits."""
        return replace(
            self, slot=self.slot[rows], value=self.value[rows], cost=self.cost[rows], conversions=self.conversions[rows]
        )

    def part(self, rows: Integers) -> UserProblem:
        """The problem of some of the users, its limits in proportion."""
        share = rows.size / self.users
        return replace(
            self.rows(rows),
            inventory=self.inventory * share,
            budget=None if self.budget is None else self.budget * share,
            target=self.target * share,
            settled=self.settled * share,
        )


@dataclass(frozen=True)
class Taken:
    """What choices take of the limits, and what they bring."""

    slots: Floats
    money: float
    conversions: float
    value: float

    @staticmethod
    def nothing(problem: UserProblem) -> Taken:
        return Taken(np.zeros(problem.inventory.size), 0.0, 0.0, 0.0)

    @staticmethod
    def of(problem: UserProblem, chosen: Flags) -> Taken:
        """By the chosen of the problem's candidates: users x candidates."""
        place = np.flatnonzero(chosen)
        return Taken(
            np.bincount(problem.slot.ravel()[place], minlength=problem.inventory.size).astype(np.float64),
            *(float(each.ravel()[place].sum()) for each in (problem.cost, problem.conversions, problem.value)),
        )

    def __add__(self, other: Taken) -> Taken:
        return Taken(
            self.slots + other.slots,
            self.money + other.money,
            self.conversions + other.conversions,
            self.value + other.value,
        )

    def __sub__(self, other: Taken) -> Taken:
        return self + Taken(-other.slots, -other.money, -other.conversions, -other.value)

    def off(self, problem: UserProblem) -> UserProblem:
        """The problem with this taken off its limits."""
        return replace(
            problem,
            inventory=problem.inventory - self.slots,
            budget=None if problem.budget is None else problem.budget - self.money,
            target=problem.target - self.conversions if problem.target > 0 else 0.0,
            settled=problem.settled + self.value,
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
    # no candidate has slot -1, the last: 'wrap' spares the check of every place
    result: Floats = np.append(prices.slot, np.inf).take(problem.slot, mode="wrap")
    np.subtract(problem.value, result, out=result)
    if problem.budget is not None and prices.money:
        result -= prices.money * problem.cost
    if prices.conversion:
        result += prices.conversion * problem.conversions
    return result


def upper_bound(problem: UserProblem, prices: Prices) -> float:
    """Lagrangian bound: what every user's best choice is worth at these prices, plus the limits at their prices."""
    return _bound(problem, prices, sum(_gain(np.sort(reduced, axis=1), problem.cap) for *_, reduced in _blocks(problem, prices)))


def _blocks(problem: UserProblem, prices: Prices) -> Iterator[tuple[int, UserProblem, Floats]]:
    """First user, users and their candidates' worth, of one block of users after the other."""
    for first in range(0, problem.users, BLOCK):
        block = problem.rows(slice(first, first + BLOCK))
        yield first, block, worth(block, prices)


def _gain(ordered: Floats, cap: int) -> float:
    """What every user's best choice is worth, by the worth of their candidates in rising order."""
    return float(np.maximum(ordered[:, max(ordered.shape[1] - cap, 0) :], 0.0).sum())


def _bound(problem: UserProblem, prices: Prices, gain: float) -> float:
    total = problem.settled + gain + float(prices.slot @ problem.inventory) - prices.conversion * problem.target
    return total + (prices.money * problem.budget if problem.budget is not None else 0.0)


def _edges(problem: UserProblem, reduced: Floats) -> tuple[Floats, float]:
    """How far each candidate lies above (+) or below (-) the point where it would enter or leave its user's choice, and what
    the choices are worth in all."""
    width = reduced.shape[1]
    cap = problem.cap
    if cap >= width:
        return reduced, float(np.maximum(reduced, 0.0).sum())
    ordered = np.sort(reduced, axis=1)  # of so few, quicker than what only parts them
    outside = np.maximum(ordered[:, width - cap - 1], 0.0)  # the best candidate left out: those chosen must beat it
    inside = np.maximum(ordered[:, width - cap], 0.0)  # the worst chosen: those left out must beat it
    gain = _gain(ordered, cap)
    edge = np.where(reduced >= inside[:, None], outside[:, None], inside[:, None])
    return np.subtract(reduced, edge, out=edge), gain


def solve_users(problem: UserProblem, *, seed: int = 0, start: Prices | None = None, gap: float = GAP) -> UserPlan:
    """Solve to the gap asked. start: prices of a like problem solved before (yesterday's, or before a change of limits).

    Raises SolverFailed where HiGHS gives no answer. A target that cannot be reached is met as far as it can be, and
    `missing` says by how much it fails.
    """
    penalty = _target_penalty(problem)
    start = _sampled_prices(problem, seed, gap, penalty) if start is None else start
    if np.isnan(start.slot).any() or problem.users < SMALL:
        return _exact(problem, start, gap, penalty)
    if problem.users > MANY:
        sample = np.random.default_rng([seed, problem.users]).permutation(problem.users)
        sample = sample[: max(MANY // 2, int(SHARPENED_SHARE * problem.users))]
        start = polish(problem.part(np.sort(sample)), start, penalty, sharp=SHARP_ON_SAMPLE)
        start, plan = _around(problem, start, gap, penalty)
        if plan is not None:
            return plan
    sharp = polish(problem, start, penalty)
    return _exact(problem, sharp, gap, penalty, free_share=min(FREE_POLISHED / problem.slot.size, FREE_SHARE))


def _around(problem: UserProblem, prices: Prices, gap: float, penalty: float) -> tuple[Prices, UserPlan | None]:
    """Settle the users whose choice is clear, solve for the others, and prove the gap over all: prices nearer by a step, and
    the plan. None where the choice of too many hangs on the prices, as where many candidates are worth the same."""
    width = _width(problem, prices, CORE_BAND)
    if width <= 0:
        return prices, None
    prices = _newton_step(problem, prices, _look(problem, prices, width), width, penalty)
    rows, core, x = _core(problem, prices)
    if rows.size > MOST_IN_CORE * problem.users:
        return prices, None
    sharp = polish(core, prices, penalty, CORE_BAND * problem.users / rows.size)
    found = _exact(core, sharp, gap, penalty, rounds=2, free_share=min(FREE_POLISHED / core.slot.size, FREE_SHARE))
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
    for first, block, reduced in _blocks(problem, prices):
        margins, _ = _edges(block, reduced)
        x[first : first + BLOCK] = margins > 0
        made += Taken.of(block, margins > 0)
        slack[first : first + BLOCK] = np.abs(margins, out=margins).min(axis=1)
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


def polish(
    problem: UserProblem, prices: Prices, penalty: float = np.inf, band: float = FIRST_BAND, sharp: float = SHARP
) -> Prices:
    """Sharpen prices: Newton steps on the bound, the best of them kept, until one changes it by less than a share `sharp`.

    penalty: the most a conversion may cost. band: see FIRST_BAND.
    """
    at = best = prices
    lowest = np.inf
    for step in range(POLISH_STEPS + 1):
        width = _width(problem, at, band)
        view = _look(problem, at, width)
        bound = _bound(problem, at, view.gain)
        gained = lowest - bound
        if step == POLISH_STEPS or abs(gained) < sharp * abs(bound):
            return at if gained > 0 else best
        if gained < 0:  # too far: the bound is convex, nearer to the best prices it falls
            at = _between(best, at, 0.25)
            continue
        best, lowest = at, bound
        if width <= 0:
            return best
        at = _newton_step(problem, at, view, width, penalty)
        band = max(band * BAND_FALL, min(band, LEAST_BAND))
    return best


@dataclass(frozen=True)
class View:
    """What is seen at some prices. gain: what the choices are worth; excess: what they take of each limit beyond it (slots,
    money and conversions where limited); near, margins: candidates within a width of the edge of their user's choice."""

    gain: float
    excess: Floats
    near: Integers
    margins: Floats


def _look(problem: UserProblem, prices: Prices, width: float) -> View:
    size = problem.slot.shape[1]
    gains, near, margins_near, taken = 0.0, [], [], Taken.nothing(problem)
    for first, block, reduced in _blocks(problem, prices):
        margins, gain = _edges(block, reduced)
        gains += gain
        taken += Taken.of(block, margins > 0)
        close = np.flatnonzero(np.abs(margins) < width)
        near.append(close + first * size)
        margins_near.append(margins.ravel()[close])
    excess = [taken.slots - problem.inventory]
    if problem.budget is not None:
        excess.append(np.array([taken.money - problem.budget]))
    if problem.target > 0:
        excess.append(np.array([problem.target - taken.conversions]))
    return View(gains, np.concatenate(excess), np.concatenate(near), np.concatenate(margins_near))


def _width(problem: UserProblem, prices: Prices, share: float) -> float:
    """Margin within which this share of the candidates lies, by a part of the users."""
    some = problem.rows(slice(None, None, max(problem.users // 20_000, 1)))
    return _first_width(some, _edges(some, worth(some, prices))[0], share)


def _between(one: Prices, other: Prices, share: float) -> Prices:
    def mixed(a: Any, b: Any) -> Any:
        return a + share * (b - a)

    return Prices(mixed(one.slot, other.slot), mixed(one.money, other.money), mixed(one.conversion, other.conversion))


def _newton_step(problem: UserProblem, at: Prices, view: View, width: float, penalty: float) -> Prices:
    """Prices nearer to where every limit is just used up. The bound's slope is what is taken of a limit beyond it, negated."""
    slots, near = problem.inventory.size, view.near
    curvature = _curvature(problem, view, width)
    seen = np.diag(curvature).copy()
    # where nobody is near the edge nothing is known of the curvature: as if one were
    curvature[np.diag_indices(seen.size)] += np.where(seen > 0, 1e-6 * seen, 0.5 / width)
    price = np.concatenate(
        [at.slot, [at.money] if problem.budget is not None else [], [at.conversion] if problem.target > 0 else []]
    )
    move = _best_step(curvature, view.excess, price)
    change = np.append(move[:slots], 0.0)[problem.slot.ravel()[near]]
    for use, step in zip(_uses(problem, near), move[slots:], strict=True):
        change += use * step
    # no further than the band reaches in which the curvature was seen
    reach = float(np.quantile(np.abs(change), 0.9)) if near.size else 0.0
    scale = min(1.0, 2 * width / reach) if reach > 0 else 1.0
    new = np.maximum(price + scale * np.minimum(move, np.where(seen > 0, np.inf, 2 * width)), 0.0)
    rest = new[slots:].tolist()
    money = rest.pop(0) if problem.budget is not None else 0.0
    return Prices(new[:slots], money, min(rest[0], penalty) if rest else 0.0)


def _uses(problem: UserProblem, places: Integers) -> list[Floats]:
    """What candidates take of the limits of money and conversions, where there are such; conversions less than nothing."""
    uses = [problem.cost.ravel()[places]] if problem.budget is not None else []
    return [*uses, -problem.conversions.ravel()[places]] if problem.target > 0 else uses


def _curvature(problem: UserProblem, view: View, width: float) -> Floats:
    """The bound's second derivatives along the prices, by those near the edge of their user's choice (a kernel estimate).

    One at the edge of being worth anything adds the outer product of what it takes of the limits; two that compete for the
    last place under a user's cap add that of their difference.
    """
    slots, near = problem.inventory.size, view.near
    slot, uses = problem.slot.ravel()[near].astype(np.int64), _uses(problem, near)
    one, other = _rivals(near // problem.slot.shape[1], view.margins)
    crossed = _products(slots, slot[one], slot[other], [use[one] for use in uses], [use[other] for use in uses])
    return np.asarray((_products(slots, slot, slot, uses, uses) - crossed - crossed.T) / (2 * width))


def _rivals(user: Integers, margins: Floats) -> tuple[Integers, Integers]:
    """Pairs that compete for the last place under their user's cap: as far above the edge as the other lies below it.

    user, margins: of candidates, those of one user side by side. Returns the places of one and the other.
    """
    order = np.lexsort((np.abs(margins), user))
    users, distance, is_in = user[order], np.abs(margins)[order], margins[order] > 0
    hit = np.flatnonzero((users[1:] == users[:-1]) & (distance[1:] == distance[:-1]) & (is_in[1:] != is_in[:-1]))
    return order[hit], order[hit + 1]


def _products(slots: int, row: Integers, column: Integers, left: Sequence[Floats], right: Sequence[Floats]) -> Floats:
    """Sum of outer products of what candidates take of the limits: of one slot each, and of money and conversions."""
    size = slots + 1
    total = np.zeros((slots + len(left), slots + len(left)))
    total[:slots, :slots] = np.bincount(row * size + column, minlength=size * size).reshape(size, size)[:slots, :slots]
    for i, use in enumerate(left):
        total[slots + i, :slots] = np.bincount(column, weights=use, minlength=size)[:slots]
        total[slots + i, slots:] = [float(use @ other) for other in right]
    for i, use in enumerate(right):
        total[:slots, slots + i] = np.bincount(row, weights=use, minlength=size)[:slots]
    return total


def _best_step(curvature: Floats, excess: Floats, price: Floats) -> Floats:
    """The step d that minimises d' curvature d / 2 - excess d with price + d >= 0: non-negative least squares in price + d."""
    from scipy.optimize import nnls

    unit = 1.0 / np.sqrt(np.diag(curvature))
    scaled = curvature * unit[:, None] * unit
    root = np.linalg.cholesky(scaled)
    found, _ = nnls(root.T, np.linalg.solve(root, unit * excess + scaled @ (price / unit)), maxiter=50 * price.size)
    return np.asarray(found * unit - price)


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


def _first_width(problem: UserProblem, margins: Floats, free_share: float) -> float:
    """Margin within which this share of the candidates lies; they stay free."""
    rows = margins[:: max(problem.users // 20_000, 1)]
    seen = np.abs(rows[np.isfinite(rows)])
    return float(np.quantile(seen, free_share)) if seen.size else 0.0


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
