"""The panel: units of many series over the same days, with what is known of each day.

What belongs here: the shape of what every forecaster reads and gives. What does not: how a panel is read (history.py) or
forecast (the other modules).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from marketing_assets.schemas import QUANTILE_COLUMNS

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

LEVELS: Floats = np.array(list(QUANTILE_COLUMNS), dtype=np.float64)
"""The quantile levels of demand_forecasts, rising."""
UNLIKELY = 4.6
"""Expected days with a sale after which it is one chance in a hundred that there was none (Poisson)."""


@dataclass(frozen=True)
class Panel:
    """Units of n series over T known days, and what is known of those and of the `horizon` days after them.

    series: series_id, item_id, location_id, category, unit_price; one row per series, in the order of the rows of units.
    start: first known day. units: (n, T). is_blocked: (n, T), days on which nothing could be sold, so that sales are no
    measure of demand. is_holiday, is_promotion: (T + horizon,) for the shop as a whole. drivers: name -> (n, T + horizon), nan
    where unknown. signals: name -> (n, T) counts that run ahead of sales, such as views. first_seen: (n,) column from which a series is
    known to be on offer, where that is told; else it is from its first sale. step_days: days per column, 7 for weekly
    data; season: columns per season. Units are never negative and a series appears once: ValueError names what breaks that.
    """

    series: pl.DataFrame
    start: date
    units: Floats
    is_blocked: Flags
    is_holiday: Flags
    is_promotion: Flags
    horizon: int
    drivers: dict[str, Floats] = field(default_factory=dict)
    signals: dict[str, Floats] = field(default_factory=dict)
    first_seen: Integers | None = None
    step_days: int = 1
    season: int = 7

    def __post_init__(self) -> None:
        count, known = self.units.shape
        if self.series.height != count or self.is_blocked.shape != self.units.shape:
            raise ValueError(f"panel: {self.series.height} series, units {self.units.shape}, is_blocked {self.is_blocked.shape}")
        whole = known + self.horizon
        for name, flags in (("is_holiday", self.is_holiday), ("is_promotion", self.is_promotion)):
            if flags.shape != (whole,):
                raise ValueError(f"panel: {name} has shape {flags.shape}, needed is ({whole},)")
        for name, values in self.drivers.items():
            if values.shape != (count, whole):
                raise ValueError(f"panel: driver {name} has shape {values.shape}, needed is ({count}, {whole})")
        for name, values in self.signals.items():
            if values.shape != (count, known):
                raise ValueError(f"panel: signal {name} has shape {values.shape}, needed is ({count}, {known})")
        if self.series["series_id"].is_duplicated().any():
            twice = self.series.filter(pl.col("series_id").is_duplicated())["series_id"].unique().sort().to_list()
            raise ValueError(f"panel: series that appear twice, add them up first: {', '.join(twice[:5])}")
        if not (self.units >= 0).all():
            names = self.series.filter(pl.Series(~(self.units >= 0).all(axis=1)))["series_id"].to_list()
            raise ValueError(f"panel: units below zero or missing, as of {', '.join(names[:5])}; what comes back is no demand below zero")

    @property
    def count(self) -> int:
        return int(self.units.shape[0])

    @property
    def known(self) -> int:
        """Number of known days."""
        return int(self.units.shape[1])

    @property
    def end(self) -> date:
        """The last known day."""
        return self.start + timedelta(days=(self.known - 1) * self.step_days)

    @property
    def season_place(self) -> Integers:
        """Of each known and future column its place in the season: the weekday (Monday 0) for daily data."""
        first = self.start.weekday() if self.step_days == 1 and self.season == 7 else 0
        return (first + np.arange(self.known + self.horizon)) % self.season

    @property
    def first_sale(self) -> Integers:
        """Column of each series' first sale; T where there is none."""
        is_sold = self.units > 0
        return np.where(is_sold.any(axis=1), is_sold.argmax(axis=1), self.known)

    @property
    def begins(self) -> Integers:
        """Column from which a series says something of demand: it is on offer, or sold.

        A catalogue may list an item long before it can be had. Where a series that sells as this one has since its first sale would
        hardly have been without one for so long (a chance of e^-UNLIKELY), it begins with that sale.
        """
        first_sale = self.first_sale
        if self.first_seen is None:
            return first_sale
        silent, since = np.maximum(first_sale - self.first_seen, 0), np.maximum(self.known - first_sale, 1)
        again = np.maximum((self.units > 0).sum(axis=1) - 1, 0) / since
        return np.where(again * silent > UNLIKELY, first_sale, np.minimum(first_sale, self.first_seen))

    def rows(self, chosen: Sequence[int] | Integers | Flags) -> Panel:
        """The panel of some of the series."""
        places = np.flatnonzero(chosen) if np.asarray(chosen).dtype == np.bool_ else np.asarray(chosen, dtype=np.int64)
        return replace(
            self, series=self.series[places], units=self.units[places], is_blocked=self.is_blocked[places],
            drivers={name: values[places] for name, values in self.drivers.items()},
            signals={name: values[places] for name, values in self.signals.items()},
            first_seen=None if self.first_seen is None else self.first_seen[places],
        )

    def until(self, columns: int, horizon: int) -> Panel:
        """What was known after the first `columns` days, to be forecast `horizon` days ahead: a rolling origin."""
        whole = columns + horizon
        if not 0 < columns <= self.known or whole > self.known + self.horizon:
            raise ValueError(f"panel: no origin at column {columns} with horizon {horizon}; known are {self.known} + {self.horizon}")
        return replace(
            self, units=self.units[:, :columns], is_blocked=self.is_blocked[:, :columns], is_holiday=self.is_holiday[:whole],
            is_promotion=self.is_promotion[:whole], horizon=horizon,
            drivers={name: values[:, :whole] for name, values in self.drivers.items()},
            signals={name: values[:, :columns] for name, values in self.signals.items()},
        )


@dataclass(frozen=True)
class Forecast:
    """mean: (n, horizon) expected units; quantiles: (n, horizon, len(LEVELS)), rising along the last axis, never negative."""

    mean: Floats
    quantiles: Floats
