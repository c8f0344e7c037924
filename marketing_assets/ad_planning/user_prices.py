"""Sharper prices of the limits that users share, by Newton steps on the bound.

What belongs here: the bound's slope and curvature, and steps along them. What does not: plans (user_exact).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from marketing_assets.ad_planning.inputs import Floats, Integers
from marketing_assets.ad_planning.user_problem import Prices, Taken, UserProblem, blocks, bound_at, edges, width_of, worth

POLISH_STEPS = 12
SHARP, SHARP_ON_SAMPLE = 1e-7, 1e-5
"""Relative change of the bound below which the steps are lost in what single users' choices do to it, and, on a sample, in
what its users are not like all."""
FIRST_BAND, CORE_BAND, LEAST_BAND, BAND_FALL = 0.08, 0.02, 0.005, 0.3
"""Share of the candidates in whose band around the edge the bound's curvature is seen: at first, on a core,
at last, and how it falls from step to step."""


def polish(
    problem: UserProblem, prices: Prices, penalty: float = np.inf, band: float = FIRST_BAND, sharp: float = SHARP
) -> Prices:
    """Sharpen prices: Newton steps on the bound, the best of them kept, until one changes it by less than a share `sharp`.

    penalty: the most a conversion may cost. band: see FIRST_BAND.
    """
    at = best = prices
    lowest = np.inf
    for step in range(POLISH_STEPS + 1):
        width = width_at(problem, at, band)
        view = look(problem, at, width)
        bound = bound_at(problem, at, view.gain)
        gained = lowest - bound
        if step == POLISH_STEPS or abs(gained) < sharp * abs(bound):
            return at if gained > 0 else best
        if gained < 0:  # too far: the bound is convex, nearer to the best prices it falls
            at = _between(best, at, 0.25)
            continue
        best, lowest = at, bound
        if width <= 0:
            return best
        at = newton_step(problem, at, view, width, penalty)
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


def look(problem: UserProblem, prices: Prices, width: float) -> View:
    size = problem.slot.shape[1]
    gains, near, margins_near, taken = 0.0, [], [], Taken.nothing(problem)
    for first, block, reduced in blocks(problem, prices):
        margins, gain = edges(block, reduced)
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


def width_at(problem: UserProblem, prices: Prices, share: float) -> float:
    """Margin within which this share of the candidates lies, by a part of the users."""
    some = problem.rows(slice(None, None, max(problem.users // 20_000, 1)))
    return width_of(some, edges(some, worth(some, prices))[0], share)


def _between(one: Prices, other: Prices, share: float) -> Prices:
    def mixed(a: Any, b: Any) -> Any:
        return a + share * (b - a)

    return Prices(mixed(one.slot, other.slot), mixed(one.money, other.money), mixed(one.conversion, other.conversion))


def newton_step(problem: UserProblem, at: Prices, view: View, width: float, penalty: float) -> Prices:
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
