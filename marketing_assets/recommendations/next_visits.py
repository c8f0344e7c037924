"""What the next visit holds, regressed on what people had before it.

What belongs here: fitting the regression and what it expects of a block of lists. What does not: links that are counted (links.py),
or the order of what was found (ranker.py).

Every visit but a user's first is an example: which items it held, against which items the user had had until then. A ridge
regression of all items at once tells how much each item had speaks for each item next, the item itself among them: so it learns
which items people come back to, where EASE (Steck 2019), which leaves an item out of its own prediction, learns only what goes
together.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from marketing_assets.recommendations.history import Floats, History, Integers, expand
from marketing_assets.recommendations.lists import BLOCK_CELLS
from marketing_assets.recommendations.scores import Taste, faded

ITEMS = 2_000
"""Regressed are the items in most visits, so many of them,"""
VISITS = 50_000
"""on so many newest visits,"""
HALF_LIFE = 90
"""which count half after so many days."""
RIDGE = 7.0
"""The penalty, in times of the mean square of an item."""
KEPT = 200
"""Of each item the strongest effects are kept, so many of them."""
_SPAN = 1 << 20
"""Room for a day below a user's number."""


def next_visits(history: History, rows: Integers, day: int) -> sp.csr_array:
    """items x items: how much having had one speaks for the other next, rows without any entry where there is nothing to learn.

    rows: of the history, sorted by user, day happened and item. day: the ordinal day of the fit.
    """
    n = len(history.items)
    wanted = rows[history.is_wanted[rows]]
    often = np.bincount(history.item[wanted], minlength=n)
    chosen = np.sort(np.argsort(-often, kind="stable")[:ITEMS])
    chosen = chosen[often[chosen] > 0]
    place = np.full(n, -1, dtype=np.int64)
    place[chosen] = np.arange(len(chosen))
    first_key, first_item = _first_signs(history, rows)
    visit = np.unique(history.user[wanted] * _SPAN + history.happened[wanted])
    start = np.searchsorted(first_key, visit // _SPAN * _SPAN)
    size = np.searchsorted(first_key, visit) - start
    newest = np.argsort(-(visit[size > 0] % _SPAN), kind="stable")[:VISITS]
    kept = np.sort(np.flatnonzero(size > 0)[newest])
    visit, start, size = visit[kept], start[kept], size[kept]
    if not len(visit):
        return sp.csr_array((n, n), dtype=np.float64)
    key = history.user[wanted] * _SPAN + history.happened[wanted]
    at = np.minimum(np.searchsorted(visit, key), len(visit) - 1)
    ours = np.flatnonzero((visit[at] == key) & (place[history.item[wanted]] >= 0))
    held = ones(at[ours], place[history.item[wanted[ours]]], len(visit), len(chosen))
    weight = np.sqrt(faded(day - visit % _SPAN, HALF_LIFE))
    square, cross = np.zeros((len(chosen), len(chosen))), np.zeros((len(chosen), len(chosen)))
    block = np.unique(np.searchsorted(np.cumsum(size), np.arange(0, int(size.sum()), BLOCK_CELLS)))
    for low, high in zip(block, [*block[1:], len(visit)], strict=True):
        owner, sign = expand(start[low:high], start[low:high] + size[low:high])
        column = place[first_item[sign]]
        inside = column >= 0
        before = ones(owner[inside], column[inside], high - low, len(chosen))
        before = sp.csr_array(sp.diags_array(weight[low:high] * size[low:high] ** -0.5) @ before)
        square += (before.T @ before).toarray()
        cross += (before.T @ (sp.diags_array(weight[low:high]) @ held[low:high])).toarray()
    return _strongest(_solved(square, cross), chosen, n)


def _first_signs(history: History, rows: Integers) -> tuple[Integers, Integers]:
    """When each user first had to do with each item: user and day in one sorted number, and the item."""
    pair = history.user[rows] * len(history.items) + history.item[rows]
    first = rows[np.unique(pair, return_index=True)[1]]  # rows of a pair rise with the day, so that the first is the earliest
    key = history.user[first] * _SPAN + history.happened[first]
    order = np.lexsort((history.item[first], key))
    return key[order], history.item[first[order]]


def ones(row: Integers, column: Integers, rows: int, columns: int) -> sp.csr_array:
    """1 at each of these places, however often it is named."""
    matrix = sp.csr_array(sp.coo_array((np.ones(len(row)), (row, column)), shape=(rows, columns)))
    matrix.data[:] = 1.0
    return matrix


def _solved(square: Floats, cross: Floats) -> Floats:
    from scipy.linalg import cho_factor, cho_solve  # here, because importing it takes a while

    square[np.diag_indices_from(square)] += RIDGE * float(np.mean(np.diag(square))) + 1e-9
    return np.asarray(cho_solve(cho_factor(square, lower=True, overwrite_a=True, check_finite=False), cross, check_finite=False))


def _strongest(effects: Floats, chosen: Integers, items: int) -> sp.csr_array:
    """The KEPT largest effects of each item either way, and its own."""
    size = np.abs(effects)
    size[np.diag_indices_from(size)] = np.inf
    least = np.partition(size, -KEPT, axis=1)[:, [-KEPT]] if len(chosen) > KEPT else np.zeros((len(chosen), 1))
    row, column = np.nonzero(size >= least)
    lengths = np.zeros(items, dtype=np.int64)
    lengths[chosen] = np.bincount(row, minlength=len(chosen))
    return sp.csr_array((effects[row, column], chosen[column], np.concatenate([[0], np.cumsum(lengths)])), shape=(items, items))


def expected(seen: Taste, effects: sp.csr_array) -> sp.csr_array:
    """rows x items: how much of each item the next visit of each row should hold."""
    return sp.csr_array(seen.matrix(seen.row_items[seen.row] ** -0.5) @ effects)
