"""The plan's limits, each a small named class that says which sums of impressions it bounds.

What belongs here: constraints and what breaking them would cost. What does not: solving.

A block bounds several sums at once: matrix @ x <= limit (or >=), one name per row. `on` tells whether the matrix speaks of
cells or of group totals, which keeps sums over all creatives of a group sparse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import scipy.sparse as sp

from marketing_assets.ad_planning.inputs import Cells, Floats, Limits, Override, indicator

HARD = float("inf")
DEFAULT_WEIGHTS = {
    "target_conversions": 1.0,
    "budget": 1.0,
    "monthly_budget": 2.0,
    "campaign_budget": 1.0,
    "override_minimum": 2.0,
    "override_maximum": 2.0,
    "change": 0.5,
    "hourly_pacing": 0.25,
    "placement_share": 0.5,
    "campaign_share": 0.5,
    "frequency_cap": 4.0,
}
"""What relaxing one whole limit costs, by kind; store.yaml may set others. Kinds not named here cannot be relaxed:
impressions that are not on offer and goods that are not in stock stay so."""


@dataclass(frozen=True)
class Block:
    """Rows matrix @ x <= limit, or >= for sense '>='.

    unit: money, impressions or conversions. per_budget: change of each limit per unit of daily budget. weight: cost of
    relaxing a row by its whole limit, HARD where it cannot be.
    """

    kind: str
    names: list[str]
    matrix: sp.csr_array
    limit: Floats
    sense: Literal["<=", ">="] = "<="
    on: Literal["cells", "groups"] = "cells"
    unit: str = "impressions"
    per_budget: Floats | None = None
    weight: float = HARD


class PlanConstraint(Protocol):
    """A limit of the plan: turns the day's data into blocks, none where it does not apply."""

    def blocks(self, cells: Cells, limits: Limits) -> list[Block]: ...


def _weight(kind: str, limits: Limits) -> float:
    return float(limits.weights.get(kind, DEFAULT_WEIGHTS.get(kind, HARD)))


def _one(kind: str, row: Floats, limit: float, limits: Limits, **more: object) -> Block:
    matrix = sp.csr_array(row.reshape(1, -1))
    return Block(kind, [kind], matrix, np.array([limit]), weight=_weight(kind, limits), **more)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Availability:
    """Impressions of a group <= what is forecast to be on offer to it."""

    def blocks(self, cells: Cells, limits: Limits) -> list[Block]:
        names = [
            f"availability:{a}:{p}:{h:02d}" for a, p, h in cells.groups.select("audience_id", "placement_id", "hour").iter_rows()
        ]
        return [Block("availability", names, sp.eye_array(len(names), format="csr"), cells.available, on="groups")]


@dataclass(frozen=True)
class DailyBudget:
    """Spend <= the day's budget."""

    def blocks(self, cells: Cells, limits: Limits) -> list[Block]:
        if limits.budget is None:
            return []
        return [_one("budget", cells.cost, limits.budget, limits, unit="money", per_budget=np.ones(1))]


@dataclass(frozen=True)
class MonthlyBudget:
    """Spend <= what is left of the month."""

    def blocks(self, cells: Cells, limits: Limits) -> list[Block]:
        if limits.monthly_left is None:
            return []
        return [_one("monthly_budget", cells.cost, limits.monthly_left, limits, unit="money")]


@dataclass(frozen=True)
class CampaignBudgets:
    """Spend of a campaign <= what is left of its budget."""

    def blocks(self, cells: Cells, limits: Limits) -> list[Block]:
        levels, index = cells.by("campaign_id")
        named = [i for i, level in enumerate(levels) if level in limits.campaign_left]
        if not named:
            return []
        matrix = indicator(index, len(levels), cells.cost)[named]
        bound = np.array([limits.campaign_left[str(levels[i])] for i in named])
        return [
            Block(
                "campaign_budget",
                [f"campaign_budget:{levels[i]}" for i in named],
                matrix,
                bound,
                unit="money",
                weight=_weight("campaign_budget", limits),
            )
        ]


@dataclass(frozen=True)
class TargetConversions:
    """Expected conversions >= the target. Stated by the objective's own count of conversions, see solve.py."""

    def blocks(self, cells: Cells, limits: Limits) -> list[Block]:
        if limits.target <= 0:
            return []
        return [_one("target_conversions", cells.conversions, limits.target, limits, unit="conversions", sense=">=")]


@dataclass(frozen=True)
class FrequencyCap:
    """Impressions of an audience <= cap x its users, where its size is known."""

    def blocks(self, cells: Cells, limits: Limits) -> list[Block]:
        audiences = cells.groups["audience_id"].to_list()
        known = sorted({name for name in audiences if name in limits.audience_users})
        if not known:
            return []
        place = {name: i for i, name in enumerate(known)}
        index = np.array([place.get(name, -1) for name in audiences], dtype=np.int64)
        bound = np.array([limits.frequency_cap * limits.audience_users[name] for name in known], dtype=float)
        return [
            Block(
                "frequency_cap",
                [f"frequency_cap:{name}" for name in known],
                indicator(index, len(known)),
                bound,
                on="groups",
                weight=_weight("frequency_cap", limits),
            )
        ]


@dataclass(frozen=True)
class SellableUnits:
    """Expected conversions of an item <= its sellable units."""

    def blocks(self, cells: Cells, limits: Limits) -> list[Block]:
        levels, index = cells.by("item_id")
        named = [i for i, level in enumerate(levels) if level in limits.item_units]
        if not named:
            return []
        matrix = indicator(index, len(levels), cells.conversions)[named]
        bound = np.array([limits.item_units[str(levels[i])] for i in named], dtype=float)
        return [Block("sellable_units", [f"sellable_units:{levels[i]}" for i in named], matrix, bound, unit="conversions")]


@dataclass(frozen=True)
class SpendShare:
    """Spend of each level of a column <= share of the budget, or of all spend where no budget is set.

    A share below one over the number of levels could only be met by spending less than planned; it is raised to that.
    """

    kind: str
    column: str
    setting: Literal["hourly_share", "placement_share", "campaign_share"]

    def blocks(self, cells: Cells, limits: Limits) -> list[Block]:
        levels, index = cells.by(self.column)
        share = max(float(getattr(limits, self.setting)), 1.0 / max(len(levels), 1))
        if share >= 1.0:
            return []
        matrix = indicator(index, len(levels), cells.cost)
        names = [f"{self.kind}:{level:02d}" if isinstance(level, int) else f"{self.kind}:{level}" for level in levels]
        weight = _weight(self.kind, limits)
        if limits.budget is not None:
            bound = np.full(len(levels), share * limits.budget)
            return [Block(self.kind, names, matrix, bound, unit="money", per_budget=np.full(len(levels), share), weight=weight)]
        every = sp.csr_array(np.outer(np.full(len(levels), share), cells.cost))
        return [Block(self.kind, names, (matrix - every).tocsr(), np.zeros(len(levels)), unit="money", weight=weight)]


@dataclass(frozen=True)
class ChangeLimit:
    """Spend of a campaign within max_change of yesterday's plan, for campaigns that were in it."""

    def blocks(self, cells: Cells, limits: Limits) -> list[Block]:
        if limits.max_change is None:
            return []
        levels, index = cells.by("campaign_id")
        named = [i for i, level in enumerate(levels) if limits.previous_spend.get(str(level), 0.0) > 0]
        if not named:
            return []
        matrix = indicator(index, len(levels), cells.cost)[named]
        before = np.array([limits.previous_spend[str(levels[i])] for i in named])
        weight = _weight("change", limits)
        return [
            Block(
                "change",
                [f"change_up:{levels[i]}" for i in named],
                matrix,
                before * (1 + limits.max_change),
                unit="money",
                weight=weight,
            ),
            Block(
                "change",
                [f"change_down:{levels[i]}" for i in named],
                matrix,
                before * max(1 - limits.max_change, 0.0),
                sense=">=",
                unit="money",
                weight=weight,
            ),
        ]


@dataclass(frozen=True)
class Overrides:
    """What a person fixed or bounded. Excluded cells are left out before the plan is stated."""

    def blocks(self, cells: Cells, limits: Limits) -> list[Block]:
        blocks = []
        for override in limits.overrides:
            if override.is_excluded:
                continue
            row = override.matches(cells.frame).astype(float)
            if override.minimum is not None:
                blocks.append(_one_override("override_minimum", override, row, override.minimum, ">=", limits))
            if override.maximum is not None:
                blocks.append(_one_override("override_maximum", override, row, override.maximum, "<=", limits))
        return blocks


def _one_override(kind: str, override: Override, row: Floats, limit: float, sense: Literal["<=", ">="], limits: Limits) -> Block:
    matrix = sp.csr_array(row.reshape(1, -1))
    return Block(kind, [f"{kind}:{override.name}"], matrix, np.array([float(limit)]), sense=sense, weight=_weight(kind, limits))


ALL_CONSTRAINTS: tuple[PlanConstraint, ...] = (
    DailyBudget(),
    MonthlyBudget(),
    CampaignBudgets(),
    TargetConversions(),
    FrequencyCap(),
    SellableUnits(),
    SpendShare("hourly_pacing", "hour", "hourly_share"),
    SpendShare("placement_share", "placement_id", "placement_share"),
    SpendShare("campaign_share", "campaign_id", "campaign_share"),
    ChangeLimit(),
    Overrides(),
    Availability(),
)


def all_blocks(cells: Cells, limits: Limits, constraints: Sequence[PlanConstraint] = ALL_CONSTRAINTS) -> list[Block]:
    """Every block of the plan, in order."""
    return [block for constraint in constraints for block in constraint.blocks(cells, limits)]
