"""RFM segments with names a marketer knows.

What belongs here: scores of recency, frequency and spend, and the map from scores to names. What does not: predictions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

NEW_DAYS = 30
"""Never bought and first seen within so many days: 'visitor'; longer ago: 'never_bought'."""

# Rows: recency score 5 (most recent) to 1; columns: mean of frequency and spend scores, 1 to 5.
_GRID: dict[int, tuple[str, str, str, str, str]] = {
    5: ("new", "potential_loyalist", "potential_loyalist", "champions", "champions"),
    4: ("promising", "potential_loyalist", "potential_loyalist", "loyal", "loyal"),
    3: ("about_to_sleep", "about_to_sleep", "need_attention", "loyal", "loyal"),
    2: ("hibernating", "hibernating", "at_risk", "at_risk", "at_risk"),
    1: ("hibernating", "hibernating", "hibernating", "cannot_lose", "cannot_lose"),
}
SEGMENTS = (
    "champions",
    "loyal",
    "potential_loyalist",
    "new",
    "promising",
    "need_attention",
    "about_to_sleep",
    "at_risk",
    "cannot_lose",
    "hibernating",
    "visitor",
    "never_bought",
)


@dataclass(frozen=True)
class SegmentLimits:
    """Four limits per dimension, rising; the score is 1 + the number of limits passed (for recency: not passed).

    recency: days since last order. frequency: order days. monetary: spend net of refunds, in the shop's currency.
    """

    recency: tuple[float, ...]
    frequency: tuple[float, ...]
    monetary: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        return {"recency": list(self.recency), "frequency": list(self.frequency), "monetary": list(self.monetary)}

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> SegmentLimits:
        return SegmentLimits(tuple(content["recency"]), tuple(content["frequency"]), tuple(content["monetary"]))


def _fifths(values: pl.Series, fallback: tuple[float, ...], prior_users: float) -> tuple[float, ...]:
    """The 20, 40, 60 and 80 % quantiles, mixed with the fallback as if `prior_users` users had it; rising."""
    if not len(values):
        return fallback
    found = np.quantile(values.to_numpy().astype(np.float64), [0.2, 0.4, 0.6, 0.8], method="lower")
    trust = len(values) / (len(values) + prior_users)
    mixed = np.maximum.accumulate(trust * found + (1 - trust) * np.array(fallback))
    return tuple(float(value) for value in np.round(mixed, 2))


def fit_segment_limits(buyers: pl.DataFrame) -> SegmentLimits:
    """Fifths among buyers. buyers: recency_days, order_days, revenue of everyone known who has bought.

    A young shop's recencies are all small; so limits start from a month, a quarter and half a year and give way to the
    shop's own as buyers grow in number.
    """
    if buyers.is_empty():
        return SegmentLimits((14.0, 30.0, 90.0, 180.0), (1.0, 2.0, 4.0, 8.0), (20.0, 50.0, 150.0, 500.0))
    spend = buyers["revenue"].cast(pl.Float64)
    middle = float(np.median(spend.to_numpy()))
    middle = middle if middle > 0 else 1.0
    return SegmentLimits(
        _fifths(buyers["recency_days"], (14.0, 30.0, 90.0, 180.0), 50),
        _fifths(buyers["order_days"], (1.0, 2.0, 4.0, 8.0), 50),
        _fifths(spend, (0.4 * middle, 0.8 * middle, 1.5 * middle, 3 * middle), 50),
    )


def _score(value: pl.Expr, limits: tuple[float, ...]) -> pl.Expr:
    return pl.lit(1) + sum((value > limit).cast(pl.Int64) for limit in limits)


def segment_names(entries: pl.DataFrame, limits: SegmentLimits) -> pl.Series:
    """Name per user. entries: as_of_date, first_seen_date, last_order_date, order_days, revenue."""
    recency = (pl.col("as_of_date") - pl.col("last_order_date")).dt.total_days()
    tenure = (pl.col("as_of_date") - pl.col("first_seen_date")).dt.total_days()
    frame = entries.select(
        r=6 - _score(recency, limits.recency),
        # Halves go up: a frequent buyer of small baskets is worth no less than the middle.
        fm=(_score(pl.col("order_days"), limits.frequency) + _score(pl.col("revenue").cast(pl.Float64), limits.monetary) + 1)
        // 2,
        has_bought=pl.col("last_order_date").is_not_null(),
        is_new=tenure < NEW_DAYS,
        is_known=tenure >= 3 * NEW_DAYS,
    )
    cell = pl.lit("hibernating")
    for r, names in _GRID.items():
        for fm, name in enumerate(names, start=1):
            cell = pl.when((pl.col("r") == r) & (pl.col("fm") == fm)).then(pl.lit(name)).otherwise(cell)
    # A small first order long ago and one now is no newcomer.
    cell = pl.when((cell == "new") & pl.col("is_known")).then(pl.lit("promising")).otherwise(cell)
    never = pl.when("is_new").then(pl.lit("visitor")).otherwise(pl.lit("never_bought"))
    return frame.select(segment=pl.when("has_bought").then(cell).otherwise(never))["segment"]
