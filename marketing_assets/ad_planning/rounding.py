"""Whole impressions: what a platform can book, close to the plan and within its limits.

What belongs here: rounding and its repair. What does not: deciding what to buy.
"""

from __future__ import annotations

import numpy as np

from marketing_assets.ad_planning.constraints import Block
from marketing_assets.ad_planning.inputs import Cells, Floats


def whole_impressions(x: Floats, cells: Cells, blocks: list[Block], relaxed: list[Floats], seed: int) -> Floats:
    """Round so that every run of neighbouring cells keeps its sum within one impression, then give back what breaks a limit.

    Systematic rounding with one random start (Madow 1949) over cells in order of group: a cell's chance of an extra
    impression is its fraction, so that what is bought to learn is not rounded away. Limits of the form <= then lose the
    least valuable impressions until they hold; those of the form >= (target, exploration) hold within an impression of each
    run, which is why the rounded plan can be worth a little more than the exact one. x: impressions per cell; seed: of the
    random start. Returns whole numbers.
    """
    order = np.lexsort((np.arange(cells.n), cells.group))
    start = float(np.random.default_rng([seed, 77]).random())
    # rounded first, so that a group's whole sum stays whole in floating point
    totals = np.floor(np.round(np.cumsum(x[order]), 7) + start)
    result = np.empty(cells.n)
    result[order] = np.diff(totals, prepend=np.floor(start))
    worth = cells.value - 1e-12 * np.arange(cells.n)
    for block, extra in zip(blocks, relaxed, strict=True):
        if block.sense != "<=":
            continue
        matrix = block.matrix if block.on == "cells" else block.matrix @ cells.members
        limit = block.limit + extra
        for row in np.flatnonzero(matrix @ result > limit + 1e-9 * np.maximum(np.abs(limit), 1.0)):
            _give_back(result, matrix[[row]].toarray().ravel(), float(limit[row]), worth)
    return result


def _give_back(x: Floats, row: Floats, limit: float, worth: Floats) -> None:
    """Take impressions off, in place, cells with the least value per unit of the limit first, until row @ x <= limit."""
    over = float(row @ x) - limit
    candidates = np.flatnonzero((row > 0) & (x > 0))
    for cell in candidates[np.argsort(worth[candidates] / row[candidates], kind="stable")]:
        if over <= 1e-9 * max(abs(limit), 1.0):
            return
        taken = min(x[cell], np.ceil(over / row[cell] - 1e-9))
        x[cell] -= taken
        over -= taken * row[cell]
