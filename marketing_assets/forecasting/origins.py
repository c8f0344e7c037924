"""Past origins of a panel: what was known after some day, and what came of it.

What belongs here: which days are looked back to, and what is worked out there once for fits and contests alike. What does not:
learning (learned.py and its parts), judging (competition.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marketing_assets.forecasting.features import Matrix, matrix_of
from marketing_assets.forecasting.level_calendar import Levels, fit_levels
from marketing_assets.forecasting.panel import Floats, Integers, Panel
from marketing_assets.forecasting.silences import silences

ORIGIN_GAP, MOST_ORIGINS = 14, 10
"""Origins lie at least so many columns apart; so many of them at most, spread over what is known."""
FEWEST_KNOWN = 56
"""Columns an origin must have behind it."""
ALIVE_DAYS = 112
"""Series without a sale for so long before an origin are left out."""


def origin_columns(panel: Panel, most: int = MOST_ORIGINS) -> list[int]:
    """Columns after which past forecasts are made, newest first: the whole horizon lies within what is known."""
    newest = panel.known - panel.horizon
    gap = max(ORIGIN_GAP, (newest - FEWEST_KNOWN) // (most - 1)) if newest > FEWEST_KNOWN else ORIGIN_GAP
    return list(range(newest, FEWEST_KNOWN - 1, -gap))[:most]


@dataclass(frozen=True)
class Origin:
    """rows: places of the series alive there; past: their panel; truth: (n, horizon) units after it, nan on days that say nothing."""

    column: int
    rows: Integers
    past: Panel
    levels: Levels
    matrix: Matrix
    truth: Floats


class Origins:
    """Origins of one panel, each worked out when it is first asked for."""

    def __init__(self, panel: Panel) -> None:
        self.panel = panel
        self._lasting = silences(panel.units, panel.is_blocked).lasting
        self._found: dict[int, Origin] = {}

    def at(self, column: int) -> Origin:
        """The origin after the first `column` days."""
        if column not in self._found:
            whole = self.panel.until(column, self.panel.horizon)
            newest = whole.units[:, max(0, column - ALIVE_DAYS // whole.step_days) :]
            rows = np.flatnonzero((newest > 0).any(axis=1))
            past = whole.rows(rows)
            levels = fit_levels(past)
            self._found[column] = Origin(column, rows, past, levels, matrix_of(past, levels), self._told(column)[rows])
        return self._found[column]

    def _told(self, column: int) -> Floats:
        """(n, horizon) units after an origin, nan where nothing could be sold, and where a silence lasts to this day."""
        part = slice(column, column + self.panel.horizon)
        units = self.panel.units[:, part]
        return np.where(self._lasting[:, part] | (self.panel.is_blocked[:, part] & (units == 0)), np.nan, units)
