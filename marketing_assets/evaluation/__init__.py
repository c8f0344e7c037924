"""What was issued against what happened, every day, with baselines, intervals and maturity.

What belongs here: the evaluation report, and the reports of experiments and of plans valued on logs. What does not: the
verdict on drift (drift.py), estimators (off_policy.py, experiments.py) and formulas (metrics.py).

Partition D scores, on outcomes landed by D, what was issued on or before D - 1: windows that end on D and, restated, those
of the last maturity_days that were not mature a day earlier. A window is mature once `mature_share` of what it counts is
expected to have landed; figures without late arrivals are mature at once and never restated.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import polars as pl

from marketing_assets.config import Store
from marketing_assets.evaluation.ad_log import read_ad_log
from marketing_assets.evaluation.ads import look_back as ads_days
from marketing_assets.evaluation.ads import score_ads
from marketing_assets.evaluation.business import event_arrival, score_satisfaction, score_shop
from marketing_assets.evaluation.choices import score_choices
from marketing_assets.evaluation.demand import score_demand
from marketing_assets.evaluation.holdouts import score_holdouts
from marketing_assets.evaluation.lists import score_lists
from marketing_assets.evaluation.outlooks import score_outlooks
from marketing_assets.evaluation.preferences import score_preferences
from marketing_assets.evaluation.propensities import score_propensities
from marketing_assets.evaluation.what_if import build_off_policy, what_if
from marketing_assets.evaluation.windows import CELL, REPORT
from marketing_assets.warehouse import Built, Reader

__all__ = ["build_evaluation", "build_off_policy", "what_if"]


def build_evaluation(reader: Reader, days: Sequence[date], store: Store) -> Built:
    """evaluation_report and experiment_report for a window of days."""
    seen = event_arrival(reader, days, store)
    log = None
    if reader.has_source("impressions"):
        log = read_ad_log(reader, days[0] - timedelta(days=ads_days(store)), days[-1])
    parts = [
        score(reader, days, store, seen)
        for score in (
            score_shop, score_satisfaction, score_lists, score_choices, score_preferences, score_propensities, score_outlooks, score_demand,
        )
    ]
    parts.append(score_ads(reader, days, store, log))
    rows = pl.concat([part.select([pl.col(name).cast(kind) for name, kind in REPORT.items()]) for part in parts])
    rows = rows.sort(*CELL, "concept", "metric")
    return Built({"evaluation_report": rows, "experiment_report": score_holdouts(reader, days, store)})
