"""Tomorrow's ad plan: which audience sees which creative in which placement at which hour, for how much money, and why.

What belongs here: the optimisation, its limits and prices, scenarios, differences, proposals, and the plan user by user.
What does not: response rates (response), measuring what a plan brought (evaluation), or serving ads.
"""

from __future__ import annotations

from marketing_assets.ad_planning.build import build_ad_plan
from marketing_assets.ad_planning.constraints import ALL_CONSTRAINTS, Block, PlanConstraint
from marketing_assets.ad_planning.inputs import Cells, Limits, Override, PlanError, SolverFailed
from marketing_assets.ad_planning.solve import Model, Solution, solve_plan, state_plan

__all__ = [
    "ALL_CONSTRAINTS",
    "Block",
    "Cells",
    "Limits",
    "Model",
    "Override",
    "PlanConstraint",
    "PlanError",
    "Solution",
    "SolverFailed",
    "build_ad_plan",
    "solve_plan",
    "state_plan",
]
