"""What a plan is made from: the cells of response_rates as arrays, and the shop's limits for one day.

What belongs here: the data every constraint and objective term reads. What does not: the constraints themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp

from marketing_assets.response.statistics import GROUP, UNKNOWN_AUDIENCE, code_of

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

DIGITS = 12
"""Significant digits of every coefficient: results do not hang on the last bits of what was summed upstream."""


class PlanError(Exception):
    """Base of what can go wrong with a plan; the message says what, where and what to do."""


class SolverFailed(PlanError):
    """The solver stopped without an answer it vouches for."""


@dataclass(frozen=True)
class Override:
    """A person's limit on the cells that match; None matches every value. minimum and maximum in impressions of all of them."""

    name: str
    audience_id: str | None = None
    campaign_id: str | None = None
    creative_id: str | None = None
    placement_id: str | None = None
    hour: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    is_excluded: bool = False
    reason: str = ""

    def matches(self, cells: pl.DataFrame) -> Flags:
        mask = np.ones(cells.height, dtype=bool)
        for column in ("audience_id", "campaign_id", "creative_id", "placement_id", "hour"):
            wanted = getattr(self, column)
            if wanted is not None:
                mask &= (cells[column] == wanted).fill_null(False).to_numpy()
        return mask


@dataclass(frozen=True)
class Limits:
    """The shop's limits for one day. None or an empty mapping: no such limit.

    budget, monthly_left, campaign_left: money; target: conversions; most_per_conversion: value given up for the last of them at
    most; audience_users: users who may be addressed, holdouts taken off; item_units: sellable units; previous_spend: yesterday's
    plan by campaign; hourly, placement and campaign shares: of the budget, or of the day's spend where no budget is set.
    """

    budget: float | None = None
    monthly_left: float | None = None
    campaign_left: Mapping[str, float] = field(default_factory=dict)
    target: float = 0.0
    most_per_conversion: float | None = None
    frequency_cap: int = 4
    audience_users: Mapping[str, float] = field(default_factory=dict)
    item_units: Mapping[str, float] = field(default_factory=dict)
    hourly_share: float = 1.0
    placement_share: float = 1.0
    campaign_share: float = 1.0
    max_change: float | None = None
    previous_spend: Mapping[str, float] = field(default_factory=dict)
    exploration_share: float = 0.0
    diminishing: Sequence[tuple[float, float]] = ()
    overrides: Sequence[Override] = ()
    weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Cells:
    """Plan cells in the order of their key, as arrays.

    frame: response_rates rows of one day that may be planned; available: impressions per group, holdouts taken off.
    """

    frame: pl.DataFrame
    is_cautious: bool = False
    available_whole: bool = False
    audience_share: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def ctr(self) -> Floats:
        return _rounded(self.frame["ctr_low" if self.is_cautious else "ctr"])

    @cached_property
    def conversions(self) -> Floats:
        """Expected conversions per impression, p q."""
        return _round(self.ctr * _rounded(self.frame["cvr_low" if self.is_cautious else "cvr"]))

    @cached_property
    def value_of_conversion(self) -> Floats:
        return _rounded(self.frame["value_per_conversion"])

    @cached_property
    def value(self) -> Floats:
        """Expected value per impression, p q v."""
        return _round(self.conversions * self.value_of_conversion)

    @cached_property
    def cost(self) -> Floats:
        return _rounded(self.frame["cost_per_impression"])

    @property
    def n(self) -> int:
        return self.frame.height

    @cached_property
    def group(self) -> Integers:
        """Group of each cell, numbered in order of the group's key."""
        numbered = self.groups.lazy().select(GROUP).with_row_index("group")
        found = self.frame.lazy().select(GROUP).join(numbered, on=GROUP, how="left", maintain_order="left").select("group").collect()
        return found["group"].to_numpy().astype(np.int64)

    @cached_property
    def groups(self) -> pl.DataFrame:
        """GROUP, available_impressions and creatives (number of cells), one row per group, in order."""
        grouped = self.frame.lazy().group_by(GROUP).agg(pl.col("available_impressions").max(), creatives=pl.len())
        return grouped.sort(GROUP).collect()

    @cached_property
    def available(self) -> Floats:
        """Impressions that may be planned per group: the forecast less the share of users held out, whole where asked."""
        free = np.array([self.audience_share.get(name, 1.0) for name in self.groups["audience_id"].to_list()])
        amount = _round(self.groups["available_impressions"].to_numpy() * free)
        return np.floor(amount + 1e-9) if self.available_whole else amount

    @cached_property
    def members(self) -> sp.csr_array:
        """Groups x cells: 1 where the cell is in the group."""
        return indicator(self.group, self.groups.height)

    def by(self, column: str) -> tuple[list[object], Integers]:
        """Levels of a column in order and each cell's index; -1 for null."""
        levels = self.frame[column].unique().drop_nulls().sort().to_list()
        return levels, code_of(self.frame[column], levels)


def indicator(index: Integers, rows: int, weights: Floats | None = None) -> sp.csr_array:
    """rows x len(index): weight (1) of each column in the row its index names; index -1 in none."""
    kept = np.flatnonzero(index >= 0)
    data = np.ones(kept.size) if weights is None else weights[kept]
    return sp.csr_array((data, (index[kept], kept)), shape=(rows, index.size))


def _rounded(column: pl.Series) -> Floats:
    return _round(column.to_numpy().astype(np.float64))


def _round(values: Floats) -> Floats:
    """To DIGITS significant digits."""
    with np.errstate(divide="ignore", invalid="ignore"):
        magnitude = np.where(values != 0, np.floor(np.log10(np.abs(values))), 0.0)
    scale = 10.0 ** (DIGITS - 1 - magnitude)
    result: Floats = np.round(values * scale) / scale
    return result


__all__ = ["GROUP", "UNKNOWN_AUDIENCE", "Cells", "Limits", "Override", "PlanError", "SolverFailed", "indicator"]
