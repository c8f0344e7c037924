"""The plan as a convex problem: stated in cvxpy, solved by HiGHS, re-solved from where it stands.

What belongs here: the statement, the compiled model, solving, relaxing, scenarios. What does not: what the limits mean.

The statement reads like the formula. cvxpy turns it into matrices once a day; HiGHS keeps the model and its basis, so that
another budget or a relaxed limit is a change of bounds and a few pivots, not a new problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from marketing_assets.ad_planning.constraints import ALL_CONSTRAINTS, HARD, Block, PlanConstraint, all_blocks
from marketing_assets.ad_planning.inputs import Cells, Floats, Integers, Limits, SolverFailed
from marketing_assets.ad_planning.objective import Repetition, expected_conversions, expected_value, repetition

TOLERANCE = 1e-9
COLUMNS_ABOVE = 4_000
"""Cells above which HiGHS is given columns as they prove useful."""


@dataclass(frozen=True)
class Statement:
    """The problem in cvxpy. exploit: impressions chosen; total: impressions by group; x: what is bought, an expression.

    spread: see exploration_spread.
    """

    problem: Any
    exploit: Any
    total: Any
    x: Any
    spread: sp.csr_array
    blocks: list[Block]
    constraints: list[Any]
    losses: Repetition


def exploration_spread(cells: Cells, share: float) -> sp.csr_array:
    """Cells x groups: the share of a group's impressions that each of its creatives gets to learn from, equally."""
    creatives = cells.groups["creatives"].to_numpy().astype(float)
    spread: sp.csr_array = (cells.members.T @ sp.diags_array(share / creatives)).tocsr()
    return spread


def state_plan(cells: Cells, limits: Limits, constraints: Sequence[PlanConstraint] = ALL_CONSTRAINTS) -> Statement:
    """maximise  sum x p q v  subject to the named constraints, over x = exploit + exploration share of each group's total."""
    import cvxpy

    cp: Any = cvxpy  # its stubs miss half of its names
    share = limits.exploration_share
    losses = repetition(cells, limits)
    blocks = all_blocks(cells, limits, constraints)

    exploit = cp.Variable(cells.n, nonneg=True, name="exploit")
    total = cp.Variable(cells.groups.height, nonneg=True, name="total")
    spread = exploration_spread(cells, share)
    x = exploit + spread @ total if share > 0 else exploit

    value = expected_value(x, cells, losses)
    conversions = expected_conversions(x, cells, losses)

    def side(block: Block) -> Any:
        if block.kind == "target_conversions":
            return cp.reshape(conversions, (1,), order="C")
        return block.matrix @ (x if block.on == "cells" else total)

    limited = [side(block) <= block.limit if block.sense == "<=" else side(block) >= block.limit for block in blocks]
    split: Any = cells.members @ exploit == (1 - share) * total
    problem = cp.Problem(cp.Maximize(value), [split, *limited])
    return Statement(problem, exploit, total, x, spread, blocks, limited, losses)


@dataclass(frozen=True)
class Solution:
    """A solved plan. x: impressions per cell; total: per group; duals: shadow price per block and row, in value per unit of
    the limit as it is written; upper_bound: value no feasible plan exceeds, from the duals; relaxed: per block, how far
    each limit gave way; alone: constraint name -> relaxation that would do by itself."""

    x: Floats
    total: Floats
    objective: float
    upper_bound: float
    duals: list[Floats]
    relaxed: list[Floats]
    alone: dict[str, float]
    solver: str
    is_relaxed: bool


class Model:
    """The compiled problem inside HiGHS. `solve` gives the plan; `at_budget` re-solves for another budget.

    Of many cells few are bought, so above COLUMNS_ABOVE cells HiGHS holds only those that some price could make best in
    their group; after each solve the rest are priced and those worth more than they cost join, until none is
    (column generation, Gilmore and Gomory 1961; the optimum is that of the whole problem).
    """

    def __init__(self, cells: Cells, limits: Limits, constraints: Sequence[PlanConstraint] = ALL_CONSTRAINTS) -> None:
        import cvxpy as cp

        self.cells, self.limits = cells, limits
        self.statement = state_plan(cells, limits, constraints)
        data, _, _ = self.statement.problem.get_problem_data(cp.HIGHS)
        compiled = data["param_prob"]
        columns = compiled.var_id_to_col
        self.exploit_at, self.total_at = columns[self.statement.exploit.id], columns[self.statement.total.id]
        self.cost = np.asarray(data["c"], dtype=float)
        self.scale = float(np.abs(self.cost).max()) or 1.0
        self.rows: sp.csr_array = sp.csr_array(data["A"])
        self.by_column: sp.csc_array = sp.csc_array(self.rows)
        self.bound = np.asarray(data["b"], dtype=float).copy()
        self.equalities = int(data["dims"].zero)
        lower = data["lower_bounds"]
        self.lower = np.full(self.cost.size, -np.inf) if lower is None else np.asarray(lower, dtype=float)
        starts, at = {}, 0
        for constraint in compiled.constraints:
            starts[constraint.id] = at
            at += constraint.size
        self.block_starts = [starts[constraint.id] for constraint in self.statement.constraints]
        self.original = self.bound.copy()
        self.seeking = self.cost / self.scale  # the costs HiGHS works with at present
        self._load()

    def _first_columns(self) -> Integers:
        """Columns HiGHS starts with: everything but cells, and per group the cells best at some price of money or impressions."""
        every = np.arange(self.cost.size, dtype=np.int64)
        cells = self.cells
        if cells.n <= COLUMNS_ABOVE:
            return every
        kept = np.ones(self.cost.size, dtype=bool)
        kept[self.exploit_at : self.exploit_at + cells.n] = False
        price = float(np.median(cells.value) / max(float(np.median(cells.cost)), 1e-12))
        scores = [cells.value - factor * price * cells.cost for factor in (0.0, 0.5, 1.0, 2.0)] + [cells.conversions, -cells.cost]
        for score in scores:
            kept[self.exploit_at + self._best(score, np.ones(cells.n, dtype=bool))] = True
        return every[kept]

    def _best(self, score: Floats, allowed: npt.NDArray[np.bool_]) -> Integers:
        """The allowed cell with the largest score in each group."""
        index = np.flatnonzero(allowed)
        order = index[np.lexsort((index, -score[index], self.cells.group[index]))]
        groups = self.cells.group[order]
        first = np.ones(order.size, dtype=bool)
        first[1:] = groups[1:] != groups[:-1]
        return order[first].astype(np.int64)

    def _load(self) -> None:
        import highspy

        self.held = self._first_columns()
        matrix = sp.csc_array(self.by_column[:, self.held])
        program = highspy.HighsLp()
        program.num_col_, program.num_row_ = self.held.size, self.bound.size
        program.col_cost_ = self.seeking[self.held]
        program.col_lower_ = self.lower[self.held]
        program.col_upper_ = np.full(self.held.size, highspy.kHighsInf)
        program.row_upper_ = self.bound
        program.row_lower_ = np.concatenate(
            [self.bound[: self.equalities], np.full(self.bound.size - self.equalities, -highspy.kHighsInf)]
        )
        program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        program.a_matrix_.start_, program.a_matrix_.index_, program.a_matrix_.value_ = matrix.indptr, matrix.indices, matrix.data
        solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]
        for option, value in (
            ("output_flag", False),
            ("threads", 1),
            ("primal_feasibility_tolerance", TOLERANCE),
            ("dual_feasibility_tolerance", TOLERANCE),
        ):
            solver.setOptionValue(option, value)
        solver.passModel(program)
        self._solver = solver
        self._slacks = 0

    def _optimise(self) -> bool:
        """Solve with all columns; True where optimal, False where the columns held allow nothing. Raises SolverFailed else."""
        import highspy

        solver = self._solver
        lost = (highspy.HighsModelStatus.kUnknown, highspy.HighsModelStatus.kNotset, highspy.HighsModelStatus.kSolveError)
        while True:
            solver.run()
            for option, value in (("presolve", "on"), ("simplex_strategy", 4), ("primal_feasibility_tolerance", 1e-7)):
                if solver.getModelStatus() not in lost:
                    break
                solver.clearSolver()  # lost its footing: from scratch, then by primal simplex, then a little less exactly
                solver.setOptionValue(option, value)
                solver.run()
            status = solver.getModelStatus()
            if status in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible):
                return False
            if status != highspy.HighsModelStatus.kOptimal:
                raise SolverFailed(
                    f"ad plan of {self.cells.n} cells: HiGHS stopped with {solver.modelStatusToString(status)!r}; "
                    "check response_rates for extreme values"
                )
            if self.held.size - self._slacks == self.cost.size or not self._price():
                return True

    def _price(self) -> bool:
        """Add the best missing cell of each group where one is worth more than the prices in force ask. False where none is."""
        duals = np.asarray(self._solver.getSolution().row_dual)
        worth = (self.rows.T @ duals - self.seeking)[self.exploit_at : self.exploit_at + self.cells.n]
        missing = np.ones(self.cost.size, dtype=bool)
        missing[self.held[self.held >= 0]] = False
        allowed = missing[self.exploit_at : self.exploit_at + self.cells.n] & (worth > TOLERANCE)
        if not allowed.any():
            return False
        new = self.exploit_at + self._best(worth, allowed)
        block = sp.csc_array(self.by_column[:, new])
        import highspy

        self._solver.addCols(
            new.size,
            self.seeking[new],
            np.zeros(new.size),
            np.full(new.size, highspy.kHighsInf),
            block.nnz,
            block.indptr[:-1].astype(np.int32),
            block.indices.astype(np.int32),
            block.data,
        )
        self.held = np.concatenate([self.held, new])
        return True

    def _seek(self, costs: Floats) -> None:
        """Give HiGHS other costs, in the order of the whole problem; slacks keep theirs."""
        self.seeking = costs
        at = np.flatnonzero(self.held >= 0).astype(np.int32)
        self._solver.changeColsCost(at.size, at, costs[self.held[at]])

    def _set_bound(self, row: int, value: float) -> None:
        import highspy

        self.bound[row] = value
        self._solver.changeRowBounds(row, -highspy.kHighsInf, value)

    def solve(self) -> Solution:
        """The best plan, or the best plan under the smallest weighted relaxation where there is none."""
        relaxed = [np.zeros(len(block.names)) for block in self.statement.blocks]
        alone: dict[str, float] = {}
        solution = self._solution(relaxed, alone, is_relaxed=False) if self._optimise() else None
        most = self.limits.most_per_conversion
        target = next((i for i, block in enumerate(self.statement.blocks) if block.kind == "target_conversions"), None)
        if most is not None and target is not None and (solution is None or -solution.duals[target][0] > most * (1 + TOLERANCE)):
            # out of reach or too dear: no other limit gives way for it
            solution = self._worth(target, most)
        if solution is not None:
            return solution
        smallest, alone = self._relax()
        # a hair more than the smallest, so that rounding does not close the door again; stated as part of it
        for hair in (1e-9, 1e-7, 1e-6):
            relaxed = [amounts.copy() for amounts in smallest]
            for block, start, amounts in zip(self.statement.blocks, self.block_starts, relaxed, strict=True):
                for row in np.flatnonzero(amounts):
                    amounts[row] += hair * max(amounts[row], abs(block.limit[row]), 1e-6)
                    self._set_bound(start + int(row), self.original[start + int(row)] + amounts[row])
            if self._optimise():
                break
            self._solver.clearSolver()
        else:
            raise SolverFailed("ad plan: infeasible even as relaxed; a hard limit is contradictory, such as a negative one")
        return self._solution(relaxed, alone, is_relaxed=any(amounts.any() for amounts in relaxed))

    def _worth(self, target: int, most: float) -> Solution | None:
        """The best plan whose last conversion costs `most`; None where no plan meets the other limits. target: the place of its block.

        Value is concave in the target, so that this is the plan of most value plus most x conversions, whatever the target
        (Everett 1963); the target gives way to what it expects.
        """
        import highspy

        row, relaxed = self.block_starts[target], [np.zeros(len(block.names)) for block in self.statement.blocks]
        counted = -self.rows[[row]].toarray().ravel()
        self._set_bound(row, highspy.kHighsInf)
        self._seek((self.cost - most * counted) / self.scale)
        is_feasible = self._optimise()
        expected = float(counted[self.held] @ np.asarray(self._solver.getSolution().col_value)) if is_feasible else 0.0
        if is_feasible:
            relaxed[target] = np.maximum(self.statement.blocks[target].limit - expected * (1 - TOLERANCE), 0.0)
        self._set_bound(row, float(self.original[row] + relaxed[target][0]))
        self._seek(self.cost / self.scale)
        if not is_feasible:
            return None
        if not self._optimise():
            raise SolverFailed(f"ad plan: no plan expects the {expected:g} conversions that one was found to expect")
        return self._solution(relaxed, {}, is_relaxed=True)

    def _relax(self) -> tuple[list[Floats], dict[str, float]]:
        """Smallest weighted relaxation: minimise sum of weight times slack over |limit|; and each named limit's by itself.

        Adds one slack column per relaxable row, solves for them, and takes them away again.
        """
        import highspy

        places, weights = [], []
        for i, block in enumerate(self.statement.blocks):
            if block.weight != HARD:
                places += [(i, row) for row in range(len(block.names))]
                weights += [block.weight / max(abs(float(limit)), 1.0) for limit in block.limit]
        if not places:
            raise SolverFailed("ad plan: no feasible plan, and no limit that may give way")
        solver, count = self._solver, len(places)
        rows = np.array([self.block_starts[i] + row for i, row in places], dtype=np.int32)
        opened, closed = np.full(count, highspy.kHighsInf), np.zeros(count)
        self._seek(np.zeros(self.cost.size))
        slacks = self.held.size + np.arange(count, dtype=np.int32)
        solver.addCols(
            count, np.asarray(weights), closed, opened, count, np.arange(count, dtype=np.int32), rows, np.full(count, -1.0)
        )
        self.held = np.concatenate([self.held, np.full(count, -1, dtype=np.int64)])
        self._slacks = count
        if not self._optimise():
            raise SolverFailed(
                "ad plan: no feasible plan even with every relaxable limit given up; look for contradictory overrides"
            )
        found = np.asarray(solver.getSolution().col_value)[slacks]
        relaxed = [np.zeros(len(block.names)) for block in self.statement.blocks]
        for (i, row), amount in zip(places, found, strict=True):
            limit = abs(float(self.statement.blocks[i].limit[row]))
            relaxed[i][row] = amount if amount > 1e-7 * max(limit, 1e-3) else 0.0
        alone = {}
        if any(amounts.any() for amounts in relaxed):
            for k, (i, row) in enumerate(places):
                if relaxed[i][row] == 0 and len(self.statement.blocks[i].names) > 1:
                    continue
                upper = closed.copy()
                upper[k] = highspy.kHighsInf
                solver.changeColsBounds(count, slacks, closed, upper)
                if self._optimise():
                    alone[self.statement.blocks[i].names[row]] = float(np.asarray(solver.getSolution().col_value)[slacks[k]])
        solver.deleteCols(count, slacks)
        self.held = np.delete(self.held, slacks)
        self._slacks = 0
        self._seek(self.cost / self.scale)
        return relaxed, alone

    def _solution(self, relaxed: list[Floats], alone: dict[str, float], *, is_relaxed: bool) -> Solution:
        answer = self._solver.getSolution()
        values = np.zeros(self.cost.size)
        values[self.held] = np.asarray(answer.col_value)
        row_dual = np.asarray(answer.row_dual) * self.scale
        cells, share = self.cells, self.limits.exploration_share
        exploit = np.maximum(values[self.exploit_at : self.exploit_at + cells.n], 0.0)
        if share < 1:
            total = (cells.members @ exploit) / (1 - share)
        else:
            total = np.maximum(values[self.total_at : self.total_at + len(cells.available)], 0.0)
        x = exploit + self.statement.spread @ total if share > 0 else exploit
        duals = [
            (-1.0 if block.sense == "<=" else 1.0) * row_dual[start : start + len(block.names)] + 0.0
            for block, start in zip(self.statement.blocks, self.block_starts, strict=True)
        ]
        losses = self.statement.losses
        objective = float(cells.value @ x) - losses.lost(x, losses.value_lost)
        solver = "highs simplex" if cells.n <= COLUMNS_ABOVE else "highs simplex with column generation"
        return Solution(x, total, objective, self._upper_bound(row_dual), duals, relaxed, alone, solver, is_relaxed)

    def _upper_bound(self, row_dual: Floats) -> float:
        """A value no plan exceeds, by weak duality, whatever the duals' accuracy.

        For prices y >= 0 of A x <= b: value <= b y + sum over columns of max(0, c_j - (A'y)_j) times a bound of the column.
        Chosen and total impressions of a group are bounded by what is on offer; other columns get no slack.
        """
        prices = -row_dual
        prices[self.equalities :] = np.maximum(prices[self.equalities :], 0.0)
        reduced = -self.cost - self.rows.T @ prices
        top = np.zeros(self.cost.size)
        top[self.exploit_at : self.exploit_at + self.cells.n] = self.cells.available[self.cells.group]
        top[self.total_at : self.total_at + len(self.cells.available)] = self.cells.available
        return float(self.bound @ prices + np.maximum(reduced, 0.0) @ top)

    def at_budget(self, budget: float) -> Solution:
        """The best plan under another daily budget and without what had to be bought, from the present basis.

        Limits that are shares of the budget move with it. The model keeps the new bounds: solve the plan itself first.
        """
        for block, start in zip(self.statement.blocks, self.block_starts, strict=True):
            if block.sense == ">=":
                for row in range(len(block.names)):
                    self._set_bound(start + row, 0.0)
            elif block.per_budget is not None:
                for row, slope in enumerate(block.per_budget):
                    self._set_bound(start + row, float(slope) * budget)
        if not self._optimise():
            raise SolverFailed(f"ad plan scenario at budget {budget}: infeasible although nothing has to be bought")
        return self._solution([np.zeros(len(block.names)) for block in self.statement.blocks], {}, is_relaxed=False)

    def marginal_value(self, solution: Solution) -> float:
        """Value per extra unit of daily budget: its shadow price and those of the limits that are shares of it."""
        return float(
            sum(
                block.per_budget @ duals
                for block, duals in zip(self.statement.blocks, solution.duals, strict=True)
                if block.per_budget is not None
            )
        )


def solve_plan(cells: Cells, limits: Limits, constraints: Sequence[PlanConstraint] = ALL_CONSTRAINTS) -> Solution:
    """State, compile and solve in one call."""
    return Model(cells, limits, constraints).solve()


def used(block: Block, x: Floats, total: Floats, conversions: float) -> Floats:
    """What a plan uses of each limit of a block."""
    if block.kind == "target_conversions":
        return np.array([conversions])
    result: Floats = block.matrix @ (x if block.on == "cells" else total)
    return result


def without_overrides(limits: Limits) -> Limits:
    """The same limits as if no person had set any."""
    return replace(limits, overrides=())
