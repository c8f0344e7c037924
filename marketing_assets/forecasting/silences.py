"""Silences: stretches without a sale that neither chance nor anything known explains, as of a place being rebuilt.

What belongs here: finding them, and which end when a series is told to be open again. What does not: days known to be without stock
or closed (history.py).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from marketing_assets.forecasting.panel import Flags, Floats

SILENT_DAYS, STEADY, STEADY_DAYS = 14, 0.8, 28
"""A series that sells on at least this share of so many days or more, but on none of SILENT_DAYS, could not be sold on those. Days are columns."""


class Silences(NamedTuple):
    """past: (n, T) days of silences that a later sale ended, on which nothing could be sold. lasting: (n, T) those that last on the last
    day: the series may be back or have ended, so that its forecast goes on from what it sold, but what it did teaches others nothing.
    """

    past: Flags
    lasting: Flags


def silences(units: Floats, is_blocked: Flags) -> Silences:
    """The silences of each series, from its first sale on.

    The share of days with a sale (STEADY) is that of the other days from the first sale to the last. is_blocked: days known to be
    without any; a silence half of which they are is explained, and they are no part of the share.
    """
    known = units.shape[1]
    # the end is one more sale, of a silence that lasts
    row, column = np.nonzero(np.pad(units > 0, ((0, 0), (0, 1)), constant_values=True))
    gap = np.diff(column, prepend=0) - 1
    gap[np.diff(row, prepend=-1) > 0] = 0  # before a series' first sale
    blocked = np.pad(np.cumsum(is_blocked, axis=1), ((0, 0), (1, 0)))
    is_long = (gap >= SILENT_DAYS) & (2 * (blocked[row, column] - blocked[row, column - gap]) < gap)

    def stretches(chosen: Flags) -> Flags:
        change = np.zeros((units.shape[0], known + 1), dtype=np.int64)
        at = np.flatnonzero(chosen)
        np.add.at(change, (row[at], column[at] - gap[at]), 1)
        np.add.at(change, (row[at], column[at]), -1)
        return np.asarray(np.cumsum(change, axis=1)[:, :-1] > 0)

    past, lasting = stretches(is_long & (column < known)), stretches(is_long & (column == known))
    sold = np.cumsum(units > 0, axis=1)
    is_between = (sold > 0) & (sold < sold[:, -1:]) | (units > 0)
    usual = is_between & ~past & ~(is_blocked & (units == 0))
    days = usual.sum(axis=1)
    is_steady = ((days >= STEADY_DAYS) & ((units > 0).sum(axis=1) >= STEADY * days))[:, None]
    return Silences(np.asarray(past & is_steady), np.asarray(lasting & is_steady))


def reopening(lasting: Flags, closed: Floats) -> tuple[Flags, Floats]:
    """(n, T) days of those silences that last and are told to end, and (n, T + horizon) `closed` with the days ahead until then closed.

    A silence is told to end where the series is told to be open ahead, and was not while it was silent. closed: 1 closed, 0 open, nan untold.
    """
    known = lasting.shape[1]
    opens = closed[:, known:] == 0
    is_told = opens.any(axis=1) & ~(lasting & (closed[:, :known] == 0)).any(axis=1) & lasting.any(axis=1)
    is_before = np.pad(is_told[:, None] & (np.cumsum(opens, axis=1) == 0), ((0, 0), (known, 0)))
    return np.asarray(lasting & is_told[:, None]), np.where(is_before, 1.0, closed)
