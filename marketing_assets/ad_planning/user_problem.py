"""What is planned user by user, and what prices of its limits say of it.

What belongs here: the problem, its limits, what choices take of them, and every user's best choice at given prices. What does
not: finding prices (user_prices), solving (user_exact) or the order of both (user_level).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from marketing_assets.ad_planning.inputs import Flags, Floats, Integers

BLOCK = 16_384
"""Users looked at at a time: what is made of them stays in the processor's cache."""


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
    return bound_at(problem, prices, sum(gain_of(np.sort(reduced, axis=1), problem.cap) for *_, reduced in blocks(problem, prices)))


def blocks(problem: UserProblem, prices: Prices) -> Iterator[tuple[int, UserProblem, Floats]]:
    """First user, users and their candidates' worth, of one block of users after the other."""
    for first in range(0, problem.users, BLOCK):
        block = problem.rows(slice(first, first + BLOCK))
        yield first, block, worth(block, prices)


def gain_of(ordered: Floats, cap: int) -> float:
    """What every user's best choice is worth, by the worth of their candidates in rising order."""
    return float(np.maximum(ordered[:, max(ordered.shape[1] - cap, 0) :], 0.0).sum())


def bound_at(problem: UserProblem, prices: Prices, gain: float) -> float:
    total = problem.settled + gain + float(prices.slot @ problem.inventory) - prices.conversion * problem.target
    return total + (prices.money * problem.budget if problem.budget is not None else 0.0)


def edges(problem: UserProblem, reduced: Floats) -> tuple[Floats, float]:
    """How far each candidate lies above (+) or below (-) the point where it would enter or leave its user's choice, and what
    the choices are worth in all."""
    width = reduced.shape[1]
    cap = problem.cap
    if cap >= width:
        return reduced, float(np.maximum(reduced, 0.0).sum())
    ordered = np.sort(reduced, axis=1)  # of so few, quicker than what only parts them
    outside = np.maximum(ordered[:, width - cap - 1], 0.0)  # the best candidate left out: those chosen must beat it
    inside = np.maximum(ordered[:, width - cap], 0.0)  # the worst chosen: those left out must beat it
    gain = gain_of(ordered, cap)
    edge = np.where(reduced >= inside[:, None], outside[:, None], inside[:, None])
    return np.subtract(reduced, edge, out=edge), gain


def width_of(problem: UserProblem, margins: Floats, free_share: float) -> float:
    """Margin within which this share of the candidates lies; they stay free."""
    rows = margins[:: max(problem.users // 20_000, 1)]
    seen = np.abs(rows[np.isfinite(rows)])
    return float(np.quantile(seen, free_share)) if seen.size else 0.0
