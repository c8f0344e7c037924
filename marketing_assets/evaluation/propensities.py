"""Whether purchase propensities came true: log-loss, AUC and calibration over their horizon.

What belongs here: scoring `purchase_propensity` as issued. What does not: making it (profiles.py).

Everyone with a profile in force at issued_date is scored; the outcome is an order (no services, no bots) within the
horizon. One row per user and window, so users are independent and the intervals are closed forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import polars as pl

from marketing_assets.config import KEYFRAME_DAYS, UNKNOWN_USER, Store
from marketing_assets.evaluation.queries import Tables, query
from marketing_assets.evaluation.windows import CELL, Arrival, empty_report, finish, scored_windows
from marketing_assets.intervals import normal_quantile
from marketing_assets.warehouse import Reader

WINDOW = ["as_of_date", "outcome_date", "issued_date", "horizon_days"]
CHUNK_DAYS = 56
"""Days scored at once: everyone's propensity on every day is in memory together."""


def look_back(store: Store) -> int:
    """Days of profiles and events read before the first day of a window."""
    return store.profiles.horizon_days + store.maturity_days + KEYFRAME_DAYS + 1


def score_propensities(reader: Reader, days: Sequence[date], store: Store, seen: Arrival) -> pl.DataFrame:
    """Report rows of the concept 'profiles'."""
    frames = []
    for first in range(0, len(days), CHUNK_DAYS):
        chunk = days[first : first + CHUNK_DAYS]
        windows = scored_windows(chunk, [store.profiles.horizon_days], seen, store.first_day)
        windows = windows.filter(pl.col("issued_date") >= store.first_day)
        if windows.height:
            frames.append(_score(reader, chunk, windows, store))
    return pl.concat(frames) if frames else empty_report()


def _score(reader: Reader, days: Sequence[date], windows: pl.DataFrame, store: Store) -> pl.DataFrame:
    issues = windows["issued_date"].unique().sort()
    first, last = issues[0], issues[-1]
    entries = entries_query(reader, reader.keyframe_before(first), last).sort("user_id", "as_of_date")
    if entries.height == 0:
        return empty_report()
    keyframes = {day: reader.keyframe_before(day) for day in entries["as_of_date"].unique()}
    in_force = entries.with_columns(
        until=pl.min_horizontal(
            pl.col("as_of_date").shift(-1).over("user_id").dt.offset_by("-1d"),
            pl.lit(last, pl.Date),
            # the log is read back to the last keyframe only, so no entry outlives the day before the next one
            pl.col("as_of_date").replace_strict(
                list(keyframes), [_next_keyframe(reader, day) - timedelta(days=1) for day in keyframes], return_dtype=pl.Date
            ),
        ),
        since=pl.max_horizontal("as_of_date", pl.lit(first, pl.Date)),
    ).filter(pl.col("since") <= pl.col("until"))
    daily = in_force.select("user_id", "purchase_propensity", "segment", issued_date=pl.date_ranges("since", "until")).explode(
        "issued_date"
    )
    start: date = windows["start_date"].min()  # type: ignore[assignment]
    orders = orders_query(reader, start - timedelta(days=1), start, days[-1])
    buyers = (
        windows.with_columns(event_date=pl.date_ranges("start_date", "outcome_date"))
        .explode("event_date")
        .join(orders, on="event_date", how="inner")
        .filter(pl.col("landed_date") <= pl.col("as_of_date"))
        .select(*WINDOW, "user_id")
        .unique()
        .with_columns(bought=pl.lit(1.0))
    )
    table = (
        windows.select(WINDOW)
        .join(daily, on="issued_date", how="inner")
        .join(buyers, on=[*WINDOW, "user_id"], how="left")
        .with_columns(pl.col("bought").fill_null(0.0), p=pl.col("purchase_propensity").clip(1e-9, 1 - 1e-9))
    )
    return finish(score_binary(table, WINDOW, store.evaluation.interval), windows)


@query
def entries_query(table: Tables, start: date, end: date) -> Any:
    log = table("user_profiles")
    chosen = log.filter(log.as_of_date.between(start, end), log.user_id != UNKNOWN_USER)
    return chosen.select("user_id", "as_of_date", "purchase_propensity", "segment")


@query
def orders_query(table: Tables, landed_from: date, start: date, end: date) -> Any:
    events = table("clean_events")
    bought = events.filter(
        events.event_date.between(start, end),
        events.landed_date.between(landed_from, end),
        events.event_type == "purchase",
        ~events.is_bot,
        ~events.is_service,
        events.user_id.notnull(),
    )
    return bought.group_by("event_date", "user_id").agg(landed_date=bought.landed_date.min())


def _next_keyframe(reader: Reader, day: date) -> date:
    """The first keyframe day after `day`."""
    anchor = reader.store.anchor
    passed = max((day - anchor).days // KEYFRAME_DAYS + 1, 0)
    return anchor + timedelta(days=passed * KEYFRAME_DAYS)


def score_binary(table: pl.DataFrame, by: Sequence[str], level: float) -> pl.DataFrame:
    """log_loss, auc and calibration_ratio of probabilities `p` against outcomes `bought` (0.0 or 1.0), per window and segment.

    AUC with average ranks for ties and the variance of DeLong, DeLong and Clarke-Pearson (1988). calibration_ratio is
    predicted over observed positives. Baselines: the entropy of the window's base rate, 0.5, and 1.
    """
    z = normal_quantile(level)
    by = list(by)
    y, p = pl.col("bought"), pl.col("p")
    loss = -(y * p.log() + (1 - y) * (1 - p).log())
    whole = table.with_columns(rank=p.rank().over(by), rank_within=p.rank().over([*by, "bought"]))
    whole = whole.with_columns(pl.len().over(by).alias("n"), y.sum().over(by).alias("positives"))
    placement = (pl.col("rank") - pl.col("rank_within")) / pl.when(y == 1).then(pl.col("n") - pl.col("positives")).otherwise(
        pl.col("positives")
    )
    whole = whole.with_columns(loss=loss, placement=pl.when(y == 1).then(placement).otherwise(1 - placement))
    positive = pl.col("placement").filter(y == 1)
    negative = pl.col("placement").filter(y == 0)
    summary = (
        whole.group_by(by)
        .agg(
            n=pl.len().cast(pl.Int64),
            observed=y.sum(),
            log_loss=pl.col("loss").mean(),
            log_loss_se=pl.col("loss").std() / pl.len().sqrt(),
            auc=positive.mean(),
            auc_se=(positive.var() / positive.len() + negative.var() / negative.len()).sqrt(),
        )
        .with_columns(rate=pl.col("observed") / pl.col("n"))
        .with_columns(
            entropy=pl.when((pl.col("rate") > 0) & (pl.col("rate") < 1))
            .then(-(pl.col("rate") * pl.col("rate").log() + (1 - pl.col("rate")) * (1 - pl.col("rate")).log()))
            .otherwise(0.0)
        )
    )
    has_both = (pl.col("observed") > 0) & (pl.col("observed") < pl.col("n"))
    head = [*map(pl.col, by), *(pl.lit("all").alias(name) for name in ("segment_type", "segment", "policy_id"))]
    losses = summary.select(
        *head,
        metric=pl.lit("log_loss"),
        value="log_loss",
        numerator=pl.col("log_loss") * pl.col("n"),
        denominator=pl.col("n").cast(pl.Float64),
        baseline=pl.lit("base_rate"),
        baseline_value="entropy",
        ci_low=pl.col("log_loss") - z * pl.col("log_loss_se"),
        ci_high=pl.col("log_loss") + z * pl.col("log_loss_se"),
        n="n",
    )
    aucs = summary.filter(has_both).select(
        *head,
        metric=pl.lit("auc"),
        value="auc",
        numerator=pl.lit(None, pl.Float64),
        denominator=pl.lit(None, pl.Float64),
        baseline=pl.lit("base_rate"),
        baseline_value=pl.lit(0.5),
        ci_low=(pl.col("auc") - z * pl.col("auc_se")).clip(0, 1),
        ci_high=(pl.col("auc") + z * pl.col("auc_se")).clip(0, 1),
        n="n",
    )
    parts = [
        table.with_columns(segment_type=pl.lit("all"), segment=pl.lit("all")),
        table.with_columns(segment_type=pl.lit("segment")),
    ]
    ratios = []
    for part in parts:
        cell = [*by, "segment_type", "segment"]
        ratio = (
            part.group_by(cell)
            .agg(
                n=pl.len().cast(pl.Int64),
                numerator=p.sum(),
                denominator=y.sum(),
                pp=(p * p).sum(),
                py=(p * y).sum(),
            )
            .with_columns(value=pl.when(pl.col("denominator") > 0).then(pl.col("numerator") / pl.col("denominator")))
        )
        ratio = ratio.with_columns(
            se=(pl.col("pp") - 2 * pl.col("value") * pl.col("py") + pl.col("value") ** 2 * pl.col("denominator")).clip(0).sqrt()
            / pl.col("denominator")
        )
        ratios.append(
            ratio.select(
                *cell,
                policy_id=pl.lit("all"),
                metric=pl.lit("calibration_ratio"),
                value="value",
                numerator="numerator",
                denominator="denominator",
                baseline=pl.lit("calibrated"),
                baseline_value=pl.lit(1.0),
                ci_low=pl.col("value") - z * pl.col("se"),
                ci_high=pl.col("value") + z * pl.col("se"),
                n="n",
            )
        )
    names = [*CELL, "metric", "value", "numerator", "denominator", "baseline", "baseline_value", "ci_low", "ci_high", "n"]
    return pl.concat([part.select(names) for part in (losses, aucs, *ratios)]).with_columns(concept=pl.lit("profiles"))
