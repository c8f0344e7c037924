"""What is known of how well earlier statements held, read for one day.

What belongs here: reading evaluation_report, response_calibration, experiment_report and what was refused, and summing up the
track record. What does not: wording or drawing it (trust.py, trust_charts.py), scoring (evaluation).

Reads evaluation_report TRACK_DAYS back; response_calibration 14 days; clean and rejected rows 28 days; experiment_report of
the day.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import polars as pl

from marketing_assets.report.figures import landed_rows
from marketing_assets.report.queries import reasons_query, track_query
from marketing_assets.warehouse import Reader

TRACK_DAYS = 56
CALIBRATION_DAYS = 14
QUALITY_DAYS = 28
REFUSED_SHARE = 0.05

LATE_METRICS = ("ad_revenue", "cvr", "roas")
LOWER_IS_BETTER = ("wrmsse", "rmsse", "scaled_pinball_loss", "pinball_loss", "log_loss", "churn_log_loss", "click_log_loss")


@dataclass(frozen=True)
class TrustFacts:
    """track: newest statement of each outcome (segment 'all', not immature ones). maturity: outcome_date, maturity of late figures."""

    track: pl.DataFrame
    maturity: pl.DataFrame
    calibration: pl.DataFrame
    landed: pl.DataFrame
    reasons: pl.DataFrame
    experiments: pl.DataFrame


def trust_facts(reader: Reader, day: date) -> TrustFacts:
    frame = track_query(reader, day - timedelta(days=TRACK_DAYS - 1), day)
    key = ["concept", "metric", "horizon_days", "segment_type", "segment", "outcome_date"]
    newest = (
        frame.cast({"as_of_date": pl.Date, "outcome_date": pl.Date})
        .sort(*key, "as_of_date")
        .unique(key, keep="last", maintain_order=True)
    )
    # any of these: a day without a conversion has no revenue to state, and is as late as the others
    late = newest.filter(pl.col("concept") == "ads", pl.col("metric").is_in(LATE_METRICS)).unique("outcome_date", maintain_order=True)
    if late.is_empty():
        late = newest.filter(pl.col("concept") == "shop", pl.col("metric") == "revenue")
    reasons = reasons_query(reader, day - timedelta(days=QUALITY_DAYS - 1), day)
    return TrustFacts(
        newest,
        late.filter(pl.col("outcome_date") > day - timedelta(days=21))
        .select("outcome_date", "maturity", "is_mature")
        .sort("outcome_date"),
        reader.window("response_calibration", day - timedelta(days=CALIBRATION_DAYS - 1), day),
        landed_rows(reader, day - timedelta(days=QUALITY_DAYS - 1), day),
        reasons.sort("rows", "source", "kind", descending=[True, False, False]),
        reader.window("experiment_report", day, day),
    )


# --- track record -----------------------------------------------------------------------------------------------------


def track_record(track: pl.DataFrame) -> list[dict[str, Any]]:
    """Per predicted metric: mean over mature outcomes of value and baseline, how many, and on how many we were better."""
    rows = track.filter(
        pl.col("is_mature"),
        pl.col("concept").is_in(["demand", "recommendations", "profiles"]) | (pl.col("metric") == "click_log_loss"),
        pl.col("value").is_not_null(),
        pl.col("baseline_value").is_not_null(),
        ~pl.col("metric").str.contains("calibration|coverage|promise|delivery|pacing|novelty"),
    )
    is_lower = pl.col("metric").is_in(LOWER_IS_BETTER)
    better = (
        pl.when(is_lower).then(pl.col("value") < pl.col("baseline_value")).otherwise(pl.col("value") > pl.col("baseline_value"))
    )
    summed = rows.group_by("concept", "metric", "horizon_days", "segment").agg(
        value=pl.col("value").mean(),
        baseline_value=pl.col("baseline_value").mean(),
        baseline=pl.col("baseline").drop_nulls().sort().first(),
        windows=pl.len(),
        won=better.sum(),
        is_lower=is_lower.first(),
    )
    return summed.sort("concept", "metric", "horizon_days", "segment").to_dicts()
