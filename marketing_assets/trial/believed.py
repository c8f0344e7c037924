"""What the system's own evaluation believed, beside the truth.

What belongs here: reading its reports and saying what they should have said. What does not: the reports (evaluation/).

An experiment report says what treated users brought more than those held out. The truth of that: the same users in a copy of
the shop that got everything but what the experiment measures. Chance is shared between the copies, so little of it is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import polars as pl

from marketing_assets.evaluation.holdouts import BEFORE_DAYS, Trial, compare_day, period_start, read_assignment, read_orders
from marketing_assets.sample_shop import Shop
from marketing_assets.trial.shops import truth_of
from marketing_assets.warehouse import Reader

_TABLES = {"ads_holdout": "audiences", "recommendations_holdout": "recommendations"}


def believed_effects(system: Reader, copy: Reader, experiment: str, days: Sequence[date]) -> list[dict[str, Any]]:
    """Per metric and method: believed uplift per user with its interval, the true one, and whether the interval holds it.

    system, copy: readers of the system's own warehouse and of the copy's. The report of the newest day is the one judged. Who is
    held out is treated alike in both: how control_mean differs from control_mean_in_copy is what treating the others does to them,
    by goods they find gone.
    """
    store, day = system.store, days[-1]
    said = system.window("experiment_report", day, day).filter(pl.col("experiment") == experiment)
    start = period_start(day, store)
    states = read_assignment(system, _TABLES[experiment], start, day)
    means = []
    for reader in (system, copy):
        orders = read_orders(reader, start - timedelta(days=BEFORE_DAYS), day)
        rows = compare_day(Trial.of(states, orders, start), start, day, 0.5, experiment, store.evaluation.interval)
        means.append({row["metric"]: row for row in rows if row["method"] == "plain"})
    result = []
    for row in said.iter_rows(named=True):
        if row["metric"] not in means[0] or row["metric"] not in means[1]:
            continue
        ours, without = (of[row["metric"]] for of in means)
        truth = ours["treated_mean"] - without["treated_mean"]
        result.append({
            "experiment": experiment, "metric": row["metric"], "method": row["method"], "treated_users": row["treated_users"],
            "control_users": row["control_users"], "believed": row["uplift"], "low": row["uplift_low"], "high": row["uplift_high"],
            "truth": truth, "treated_mean": ours["treated_mean"], "control_mean": ours["control_mean"],
            "control_mean_in_copy": without["control_mean"], "is_covered": row["uplift_low"] <= truth <= row["uplift_high"],
        })  # fmt: skip
    return result


def believed_figures(system: Reader, days: Sequence[date], shop: Shop) -> list[dict[str, Any]]:
    """Per figure: what the evaluation said of the trial's days as it stands now, the truth, and days whose interval holds it."""
    day = days[-1]
    rows = system.window("evaluation_report", days[0], day).filter(
        pl.col("segment_type") == "all", pl.col("policy_id") == "all", pl.col("horizon_days") == 1,
        pl.col("outcome_date").is_in(list(days)),
    )  # fmt: skip
    truth = {each: truth_of(shop, each) for each in days}
    result = []
    for concept, metric in (("shop", "session_conversion_rate"), ("ads", "ctr"), ("ads", "ad_revenue"), ("ads", "spend")):
        newest = (
            rows.filter(pl.col("concept") == concept, pl.col("metric") == metric)
            .sort("as_of_date")
            .unique("outcome_date", keep="last", maintain_order=True)
        )
        said, real, covered, held = 0.0, 0.0, 0, 0
        below, above = 0.0, 0.0
        for row in newest.iter_rows(named=True):
            one = truth[row["outcome_date"]]
            sessions, shown = max(one.sessions, 1), max(one.impressions, 1)
            expected, weight = {
                "session_conversion_rate": (one.expected_session_conversion_rate, sessions),
                "ctr": (one.expected_clicks / shown, shown),
                "ad_revenue": (one.expected_ad_revenue, 1),
                "spend": (one.ad_spend, 1),
            }[metric]
            below, above = below + (row["denominator"] or 0.0), above + (row["numerator"] or 0.0)
            said, real = said + weight, real + expected * weight
            if row["ci_low"] is not None:
                held += 1
                covered += row["ci_low"] <= expected <= row["ci_high"]
        if newest.height:
            rate = metric in ("session_conversion_rate", "ctr")
            result.append({
                "metric": f"{concept}.{metric}", "believed": above / below if rate and below else above,
                "truth": real / said if rate and said else real, "days": held, "days_covered": covered,
            })  # fmt: skip
    return result
