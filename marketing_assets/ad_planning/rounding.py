"""Whole impressions: what a platform can book, close to the plan and within its limits.

What belongs here: rounding and its repair. What does not: deciding what to buy.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from marketing_assets.ad_planning.constraints import Block
from marketing_assets.ad_planning.inputs import Cells, Flags, Floats, Integers

MOST_TRIED = 50
"""Cells tried for one impression that a minimum lacks, and for one to give for it."""


def whole_impressions(x: Floats, cells: Cells, blocks: list[Block], relaxed: list[Floats], seed: int) -> Floats:
    """Round so that every run of neighbouring cells keeps its sum within one impression, then give back what breaks a limit.

    Systematic rounding with one random start (Madow 1949) over cells in order of group: a cell's chance of an extra
    impression is its fraction, so that what is bought to learn is not rounded away. Limits of the form <= then lose the
    least valuable impressions until they hold; what then lacks of a minimum that a person set is bought, in place of others
    where there is no room. The target and exploration hold within an impression of each run, which is why the rounded plan
    can be worth a little more than the exact one. x: impressions per cell; seed: of the random start. Returns whole numbers.
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
    minima = [
        (block.matrix.toarray().ravel(), float(block.limit[0] - extra[0]))
        for block, extra in zip(blocks, relaxed, strict=True)
        if block.kind == "override_minimum"
    ]
    if any(_lacks(result, row, limit) for row, limit in minima):
        _make_up(result, minima, cells, _upper_limits(cells, blocks, relaxed), worth)
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


def _lacks(x: Floats, row: Floats, limit: float) -> bool:
    return float(row @ x) < limit - 1e-6 * max(abs(limit), 1.0)


def _upper_limits(cells: Cells, blocks: list[Block], relaxed: list[Floats]) -> tuple[sp.csc_array, Floats]:
    """Every limit of the form <=: rows of all, by cell, and their bounds with the leeway of a rounding error."""
    rows, bounds = [], []
    for block, extra in zip(blocks, relaxed, strict=True):
        if block.sense == "<=":
            rows.append(block.matrix if block.on == "cells" else block.matrix @ cells.members)
            bounds.append(block.limit + extra + 1e-9 * np.maximum(np.abs(block.limit + extra), 1.0))
    return sp.csc_array(sp.vstack(rows)), np.concatenate(bounds)


def _make_up(
    x: Floats, minima: list[tuple[Floats, float]], cells: Cells, upper: tuple[sp.csc_array, Floats], worth: Floats
) -> None:
    """Buy, in place, what minima lack, one impression after the other. A minimum that no single exchange helps stays short."""
    matrix, bound = upper
    room = bound - matrix @ x
    is_asked = np.any([row > 0 for row, _ in minima], axis=0)
    for row, limit in minima:
        while _lacks(x, row, limit):
            found = _exchange(x, np.flatnonzero(row > 0), is_asked, cells, matrix, room, worth)
            if found is None:
                break
            cell, other, change = found
            x[cell] += 1
            if other is not None:
                x[other] -= 1
            room -= change


def _exchange(
    x: Floats, wanted: Integers, is_asked: Flags, cells: Cells, matrix: sp.csc_array, room: Floats, worth: Floats
) -> tuple[int, int | None, Floats] | None:
    """Which of the wanted cells to buy one more impression of, the most valuable first, where to give one up for it, if
    anywhere, and what that takes of the limits. What no minimum asks for is given up: the least valuable of the cell's
    group, else of all. None where the limits allow no such exchange."""
    spare = np.flatnonzero((x >= 1) & ~is_asked)
    spare = spare[np.argsort(worth[spare], kind="stable")]
    for cell in wanted[np.argsort(-worth[wanted], kind="stable")][:MOST_TRIED].tolist():
        bought = matrix[:, [cell]].toarray().ravel()
        if (bought <= room).all():
            return cell, None, bought
        own = spare[cells.group[spare] == cells.group[cell]]
        for other in [*own[:MOST_TRIED].tolist(), *spare[:MOST_TRIED].tolist()]:
            change = bought - matrix[:, [other]].toarray().ravel()
            if (change <= room).all():
                return cell, other, change
    return None
