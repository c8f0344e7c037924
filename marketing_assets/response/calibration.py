"""Whether predicted clicks and conversions meet observed ones: scores of yesterday's rates, the gate, and recalibration.

What belongs here: predicted against observed, by placement and hour block. What does not: making predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl

from marketing_assets.config import GATE_DAYS, ResponseSettings
from marketing_assets.response.statistics import CELL, Floats, Log
from marketing_assets.warehouse import polars_schema

HOUR_BLOCK = 6
"""Hours per block: night, morning, afternoon, evening."""
GATE_Z = 3.0
"""A rate counts as uncalibrated only where even this many standard errors do not bring it within the limits."""
SHIFT_EVENTS = 300.0
SUMS = ("impressions", "clicks", "predicted_clicks", "log_loss", "conversions", "predicted_conversions")


def score_rates(log: Log, rates: pl.DataFrame, days: Sequence[date]) -> pl.DataFrame:
    """response_calibration rows of a window: what the rates issued the day before each of `days` said of what that day brought.

    rates: response_rates. Only impressions that landed on and were shown on a day count, the rates' own target.
    Conversions are those credited on it, against those the clicks of the day should bring sooner or later: equal on
    average while traffic is steady. One row in all, per placement and per block of hours.
    """
    schema = polars_schema("response_calibration")
    keys = ["as_of_date", *CELL]
    issued = rates.lazy().select(pl.col("as_of_date").dt.offset_by("1d"), *CELL, "ctr", "cvr")
    shown = log.shown.lazy().filter(
        pl.col("landed_date").is_between(days[0], days[-1]), pl.col("impression_date") == pl.col("landed_date"), pl.col("hour") >= 0
    )
    cells = shown.rename({"impression_date": "as_of_date"}).group_by(keys).agg(pl.col("impressions", "clicks").sum()).join(issued, on=keys)
    ctr = pl.col("ctr").clip(1e-9, 1 - 1e-9)
    scored = cells.with_columns(
        predicted_clicks=pl.col("impressions") * ctr,
        predicted_conversions=pl.col("clicks") * pl.col("cvr"),
        log_loss=-(pl.col("clicks") * ctr.log() + (pl.col("impressions") - pl.col("clicks")) * (1 - ctr).log()),
        conversions=pl.lit(0.0),
    )
    credited = (
        log.converted.lazy()
        .filter(pl.col("credited_date").is_between(days[0], days[-1]), pl.col("hour") >= 0)
        .rename({"credited_date": "as_of_date"})
        .group_by(keys)
        .agg(conversions=pl.col("conversions").sum().cast(pl.Float64))
        .join(issued.select(keys), on=keys)
    )
    both = (
        pl.concat([scored.select(*keys, *(pl.col(name).cast(pl.Float64) for name in SUMS)), credited], how="diagonal")
        .with_columns(pl.col(SUMS).fill_null(0.0))
        .sort(keys)
        .collect()
    )
    segments = {"all": pl.lit("all"), "placement": pl.col("placement_id"), "hour_block": hour_block("hour")}
    parts = [
        both.group_by("as_of_date", segment=expression, maintain_order=True)
        .agg(pl.col(SUMS).sum())
        .with_columns(segment_type=pl.lit(kind))
        for kind, expression in segments.items()
    ]
    rows = pl.concat(parts).select(pl.col(name).cast(kind) for name, kind in schema.items())
    return rows.sort("as_of_date", "segment_type", "segment")


def hour_block(column: str) -> pl.Expr:
    """'00-05', '06-11', '12-17' or '18-23'."""
    start = pl.col(column) // HOUR_BLOCK * HOUR_BLOCK
    return pl.format("{}-{}", start.cast(pl.String).str.zfill(2), (start + HOUR_BLOCK - 1).cast(pl.String).str.zfill(2))


@dataclass(frozen=True)
class Verdict:
    """Whether a plan may rest on the rates. reasons: what is wrong, in words; empty where all is well or nothing is known."""

    is_calibrated: bool
    reasons: tuple[str, ...]


def calibration_verdict(calibration: pl.DataFrame, day: date, settings: ResponseSettings) -> Verdict:
    """Judge the last GATE_DAYS of response_calibration up to `day`, in all, by placement and by block of hours.

    The ratio is predicted over observed. It breaches where it lies outside [min_calibration, max_calibration] by more than
    GATE_Z standard errors (Poisson, of the logarithm): too few events say nothing, and nothing is refused for that.
    """
    recent = calibration.filter(pl.col("as_of_date").is_between(day - timedelta(days=GATE_DAYS - 1), day))
    totals = recent.group_by("segment_type", "segment").agg(pl.col(SUMS).sum()).sort("segment_type", "segment")
    reasons = []
    for row in totals.to_dicts():
        where = "" if row["segment_type"] == "all" else f" of {row['segment_type']} {row['segment']}"
        for outcome in ("clicks", "conversions"):
            predicted, observed = float(row[f"predicted_{outcome}"]), float(row[outcome])
            if _breaches(predicted, observed, settings):
                reasons.append(
                    f"{outcome}{where}: {predicted:.1f} predicted, {observed:.0f} observed in {GATE_DAYS} days, "
                    f"ratio {predicted / max(observed, 0.5):.2f} is outside {settings.min_calibration:g} to "
                    f"{settings.max_calibration:g}"
                )
    return Verdict(not reasons, tuple(reasons))


def _breaches(predicted: float, observed: float, settings: ResponseSettings) -> bool:
    too_many = predicted / settings.max_calibration  # observed would have to be at least this
    too_few = predicted / settings.min_calibration  # observed may be at most this
    if observed < too_many:
        return bool(too_many - observed > GATE_Z * np.sqrt(max(too_many, 1.0)))
    return bool(observed - too_few > GATE_Z * np.sqrt(max(observed, 1.0))) if observed > too_few else False


@dataclass(frozen=True)
class BetaCalibration:
    """logit p' = a log p - b log(1 - p) + c (Kull, Silva Filho and Flach 2017); the identity is a = b = 1, c = 0."""

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def apply(self, probability: Floats) -> Floats:
        p = np.clip(probability, 1e-9, 1 - 1e-9)
        z = self.a * np.log(p) - self.b * np.log1p(-p) + self.c
        return 1.0 / (1.0 + np.exp(-z))


def fit_beta(probability: Floats, events: Floats, exposure: Floats, prior_events: float = 50.0) -> BetaCalibration:
    """Fit by penalised maximum likelihood: the penalty pulls to the identity as `prior_events` events would.

    probability, events, exposure: per cell; events of exposure trials. At click rates near zero log(1 - p) carries nothing,
    so b moves with a only where rates are large; the overall shift is held back by SHIFT_EVENTS, because a week's level is
    mostly chance. Newton's method, at most 50 steps.
    """
    p = np.clip(probability, 1e-9, 1 - 1e-9)
    offset = np.log(p) - np.log1p(-p)
    centre = float(np.average(np.log(p), weights=exposure)) if exposure.sum() > 0 else 0.0
    design = np.column_stack([np.log(p) - centre, -np.log1p(-p), np.ones_like(p)])
    penalty = np.diag([prior_events, prior_events, SHIFT_EVENTS])
    theta = np.zeros(3)
    for _ in range(50):
        mean = 1.0 / (1.0 + np.exp(-(offset + design @ theta)))
        gradient = design.T @ (events - exposure * mean) - penalty @ theta
        weight = exposure * mean * (1 - mean)
        step = np.linalg.solve(design.T @ (design * weight[:, None]) + penalty, gradient)
        step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        theta += step
        if float(np.abs(step).max()) < 1e-9:
            break
    return BetaCalibration(float(1 + theta[0]), float(1 + theta[1]), float(theta[2] - theta[0] * centre))


def log_loss(probability: Floats, events: Floats, exposure: Floats) -> float:
    """Total -log likelihood of events among exposure trials per cell."""
    p = np.clip(probability, 1e-9, 1 - 1e-9)
    return float(-(events * np.log(p) + (exposure - events) * np.log1p(-p)).sum())


def normalised_entropy(probability: Floats, events: Floats, exposure: Floats) -> float:
    """Log-loss over that of the base rate (He et al. 2014); nan where one outcome only was seen."""
    total, positive = float(exposure.sum()), float(events.sum())
    base = positive / total if total else 0.0
    if not 0 < base < 1:
        return float("nan")
    return log_loss(probability, events, exposure) / log_loss(np.full(len(events), base), events, exposure)
