"""Watched series side by side: a row for each metric, a column for each day.

What belongs here: laying history rows out once, and what of them a day knows. What does not: testing them (verdict.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

HISTORY = pl.Schema(
    {
        "metric": pl.String,
        "family": pl.String,
        "shape": pl.String,
        "segment_type": pl.String,
        "segment": pl.String,
        "date": pl.Date,
        "known_date": pl.Date,
        "value": pl.Float64,
        "observed": pl.Float64,
        "expected": pl.Float64,
        "variance": pl.Float64,
    }
)
"""family: quality, volume, input, calibration, ranking, forecast, promise, business, price or stock. shape: how the series
is tested: count (observed against expected), rate (counts out of trials, against its own past), mean (against its own past),
level (against its own past, no sampling model), distance (already a distance from the reference, such as PSI) or volume
(against the same weekdays)."""

_NEVER = date.max.toordinal()


@dataclass(frozen=True)
class Panel:
    """Series of one shape side by side: metrics x days, nan where nothing is known.

    known: the day each entry became known, as an ordinal; past every day where there is none.
    """

    heads: dict[str, list[str]]
    value: Floats
    observed: Floats
    expected: Floats
    variance: Floats
    known: Ints
    first_day: date

    @property
    def days(self) -> int:
        return int(self.value.shape[1])

    @property
    def families(self) -> list[str]:
        return self.heads["family"]

    def of_days(self, first: date, days: int) -> Panel | None:
        """`days` days from `first` on as they were known at the end of the last; None where nothing was. Metrics unknown then are left out."""
        begin = (first - self.first_day).days
        inside = slice(min(max(begin, 0), self.days), min(max(begin + days, 0), self.days))
        is_known = self.known[:, inside] <= first.toordinal() + days - 1
        rows = np.flatnonzero(is_known.any(axis=1))
        if not rows.size:
            return None
        missing = max(0, -begin)  # days before the first that anything is known of
        at = slice(missing, missing + is_known.shape[1])

        def cut(values: Floats) -> Floats:
            grid = np.full((rows.size, days), np.nan)
            grid[:, at] = np.where(is_known[rows], values[rows, inside], np.nan)
            return grid

        grids = {name: cut(getattr(self, name)) for name in ("value", "observed", "expected", "variance")}
        heads = {name: [values[row] for row in rows] for name, values in self.heads.items()}
        return replace(self, heads=heads, first_day=first, known=self.known[rows], **grids)


@dataclass(frozen=True)
class Series:
    """Every watched series, by shape."""

    by_shape: dict[str, Panel]

    @staticmethod
    def of(history: pl.DataFrame | Series) -> Series:
        """history: signals.HISTORY rows, one per metric and date."""
        if isinstance(history, Series):
            return history
        panels = {}
        for (shape,), rows in sorted(history.group_by("shape")):
            rows = rows.sort("metric", "date")
            names = rows["metric"].to_numpy()
            begins = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
            row = np.repeat(np.arange(begins.size), np.diff(np.r_[begins, names.size]))
            first: date = rows["date"].min()  # type: ignore[assignment]
            last: date = rows["date"].max()  # type: ignore[assignment]
            column = (rows["date"] - first).dt.total_days().to_numpy()
            size = (begins.size, (last - first).days + 1)
            grids = {}
            for name in ("value", "observed", "expected", "variance"):
                grids[name] = np.full(size, np.nan)
                grids[name][row, column] = rows[name].to_numpy()
            known = np.full(size, _NEVER)
            known[row, column] = (rows["known_date"] - first).dt.total_days().to_numpy() + first.toordinal()
            heads = {name: rows[name].gather(begins).to_list() for name in ("metric", "family", "segment_type", "segment")}
            panels[str(shape)] = Panel(heads, **grids, known=known, first_day=first)
        return Series(panels)

    def panels(self, first: date, days: int) -> dict[str, Panel]:
        """Shape -> what was known of `days` days from `first` on at the end of the last of them."""
        found = {shape: panel.of_days(first, days) for shape, panel in self.by_shape.items()}
        return {shape: panel for shape, panel in found.items() if panel is not None}
