"""What last month would have brought under another plan, from the impressions logged with propensities.

What belongs here: turning an ad log and a plan into the inputs of off_policy.py, and off_policy_report. What does not: the
estimators.

A plan decides two things: how much to buy in each cell (audience, placement, block of the day) and which creative to show
there. Logged impressions are weighted by the plan's share of the cell over the log's, times the plan's probability of the
creative over the logged one; so the value is per impression of the plan, and times its impressions per day.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from marketing_assets.config import Store
from marketing_assets.evaluation.ads import exported_or_issued
from marketing_assets.evaluation.queries import Tables, query
from marketing_assets.off_policy import WITH_MODEL, WITHOUT_MODEL, Log, evaluate, support
from marketing_assets.warehouse import Reader, polars_schema

WINDOW_DAYS = 28
HOUR_BLOCK = 6
PRIOR_WEIGHT = 200.0
"""Impressions by which a cell's modelled reward is shrunk to its placement's, and that to the mean of all."""
FOLDS = 2
CELL = ["audience_id", "placement_id", "block"]


def look_back(store: Store) -> int:
    """Days of impressions, conversions and plans read before the first day of a window."""
    return WINDOW_DAYS + store.maturity_days + 1


def read_log(reader: Reader, start: date, end: date) -> pl.DataFrame:
    """Impressions with a propensity: impression_date, landed_date, cluster, cell, creative_id, logging_propensity, is_clicked,
    and the conversions and value credited to them by day of landing (one row per impression and such day)."""
    log, paid = shown_query(reader, start, end), paid_query(reader, start, end)
    log = _with_audience(reader, log, start, end).drop("user_id")
    return log.join(paid, on="impression_id", how="left").sort("impression_id", "credited_date")


def _with_audience(reader: Reader, log: pl.DataFrame, start: date, end: date) -> pl.DataFrame:
    """Where an impression names no audience: the user's first by priority as of the day before it was shown, else 'unknown'."""
    log = log.sort("impression_id")
    nameless = log.filter(pl.col("audience_id").is_null(), pl.col("user_id").is_not_null())
    found = pl.DataFrame(schema={"impression_id": pl.String, "of_user": pl.String})
    if nameless.height:
        since = reader.keyframe_before(max(start, reader.store.first_day))
        entries = reader.window("audiences", since, end, ["as_of_date", "user_id", "audience_id", "priority"])
        first = entries.sort("as_of_date", "user_id", "priority", "audience_id", nulls_last=True).unique(
            ["as_of_date", "user_id"], keep="first", maintain_order=True
        )
        found = (
            nameless.select("impression_id", "user_id", evening=pl.col("impression_date").dt.offset_by("-1d"))
            .sort("evening", "user_id", "impression_id")
            .join_asof(
                first.select("as_of_date", "user_id", of_user="audience_id"),
                left_on="evening", right_on="as_of_date", by="user_id", check_sortedness=False,
            )
            .select("impression_id", "of_user")
        )  # fmt: skip
    joined = log.join(found, on="impression_id", how="left", maintain_order="left")
    return joined.with_columns(audience_id=pl.coalesce("audience_id", "of_user", pl.lit("unknown"))).drop("of_user")


@query
def shown_query(table: Tables, start: date, end: date) -> Any:
    import ibis

    shown = table("clean_impressions")
    shown = shown.filter(shown.landed_date.between(start, end), shown.logging_propensity.notnull())
    return shown.select(
        "impression_id",
        "impression_date",
        "landed_date",
        "placement_id",
        "logging_propensity",
        "is_clicked",
        "user_id",
        "audience_id",
        cluster=ibis.coalesce(shown.user_id, shown.opportunity_id, shown.impression_id),
        creative_id=ibis.coalesce(shown.creative_id, shown.item_id),
        block=shown.hour // HOUR_BLOCK,
    )


@query
def paid_query(table: Tables, start: date, end: date) -> Any:
    credited = table("attributed_conversions")
    credited = credited.filter(credited.landed_date.between(start, end))
    return credited.group_by("impression_id", credited_date=credited.landed_date).agg(
        conversions=(~credited.is_refunded).sum(), revenue=credited.conversion_value.sum().cast("float64")
    )


def score_plans(reader: Reader, days: Sequence[date], store: Store) -> pl.DataFrame:
    """off_policy_report rows: on each day the plan issued the day before, valued on the WINDOW_DAYS of log before that.

    Clicks use the newest days, conversions and revenue end maturity_days earlier.
    """
    schema = polars_schema("off_policy_report")
    if not reader.has_source("impressions"):
        return pl.DataFrame(schema=schema)
    log = read_log(reader, days[0] - timedelta(days=look_back(store)), days[-1])
    if log.height == 0:
        return pl.DataFrame(schema=schema)
    plans = exported_or_issued(reader, "ad_plan", days[0] - timedelta(days=1), days[-1] - timedelta(days=1))
    rows = []
    for day in days:
        plan = plans.filter(pl.col("as_of_date") == day - timedelta(days=1))
        if plan.height:
            rows += [{"as_of_date": day, **row} for row in value_plan(log, plan, day, store)]
    return pl.DataFrame(rows, schema=schema)


def what_if(reader: Reader, day: date, store: Store, plan: pl.DataFrame | None = None) -> pl.DataFrame:
    """What the month up to `day` would have brought under `plan` (default: the newest plan issued at or before `day`)."""
    if plan is None:
        plan = exported_or_issued(reader, "ad_plan", day - timedelta(days=7), day)
        plan = plan.filter(pl.col("as_of_date") == pl.col("as_of_date").max())
    log = read_log(reader, day - timedelta(days=look_back(store)), day)
    rows = [{"as_of_date": day, **row} for row in value_plan(log, plan, day, store)] if log.height and plan.height else []
    return pl.DataFrame(rows, schema=polars_schema("off_policy_report"))


def value_plan(log: pl.DataFrame, plan: pl.DataFrame, day: date, store: Store) -> list[dict[str, Any]]:
    """Rows for one plan: each outcome by each estimator, with the logged value, interval and support."""
    rows = []
    for outcome, end in (
        ("clicks", day),
        ("conversions", day - timedelta(days=store.maturity_days)),
        ("revenue", day - timedelta(days=store.maturity_days)),
    ):
        start = end - timedelta(days=WINDOW_DAYS - 1)
        window = log.filter(pl.col("landed_date") <= day, pl.col("impression_date").is_between(start, end))
        shown = (
            window.with_columns(
                pl.when(pl.col("credited_date") <= day).then(pl.col("conversions", "revenue").cast(pl.Float64)).otherwise(0.0)
            )
            .group_by("impression_id", maintain_order=True)
            .agg(
                pl.col("cluster", *CELL, "creative_id", "logging_propensity", "is_clicked").first(),
                pl.col("conversions", "revenue").sum(),
            )
        )
        if shown.height == 0:
            continue
        reward = shown["is_clicked"].cast(pl.Float64) if outcome == "clicks" else shown[outcome].cast(pl.Float64).fill_null(0.0)
        seen, unsupported = weighted_log(shown.with_columns(reward=reward), plan)
        diagnostics = support(seen, unsupported)
        planned = float(plan["planned_impressions"].sum())
        for estimate in evaluate(
            seen,
            [*WITHOUT_MODEL, *WITH_MODEL],
            level=store.evaluation.interval,
            replicates=store.evaluation.bootstrap_replicates,
            seed=store.seed,
        ):
            finite = {
                name: getattr(estimate, name) if np.isfinite(getattr(estimate, name)) else None
                for name in ("value", "ci_low", "ci_high")
            }
            rows.append(
                {
                    "policy_id": plan["plan_id"][0],
                    "outcome": outcome,
                    "estimator": estimate.estimator,
                    "start_date": start,
                    "end_date": end,
                    **finite,
                    "value_per_day": None if finite["value"] is None else finite["value"] * planned,
                    "logged_value": float(reward.to_numpy().mean()),
                    "n": estimate.n,
                    "users": estimate.clusters,
                    "effective_sample_size": diagnostics.effective_sample_size,
                    "mean_weight": diagnostics.mean_weight,
                    "max_weight": diagnostics.max_weight,
                    "unsupported_share": diagnostics.unsupported_share,
                    "is_supported": diagnostics.is_supported,
                }
            )
    return rows


def weighted_log(shown: pl.DataFrame, plan: pl.DataFrame) -> tuple[Log, float]:
    """The log as the plan sees it, and the share of the plan's impressions in cells and creatives the log never showed.

    shown: cluster, CELL, creative_id, logging_propensity, reward; plan: ad_plan rows.
    """
    target = (
        plan.with_columns(block=pl.col("hour") // HOUR_BLOCK)
        .group_by(*CELL, "creative_id")
        .agg(pl.col("planned_impressions").sum())
    )
    total = float(target["planned_impressions"].sum())
    target = target.with_columns(
        cell_share=pl.col("planned_impressions").sum().over(CELL) / total,
        choice=pl.col("planned_impressions") / pl.col("planned_impressions").sum().over(CELL),
    ).sort(*CELL, "creative_id")
    shown = shown.with_columns(logged_share=pl.len().over(CELL) / shown.height, fold=_fold(shown["cluster"]))
    known = target.join(
        shown.select(*CELL, "creative_id").unique(), on=[*CELL, "creative_id"], how="left", coalesce=False, suffix="_seen"
    )
    unsupported = float(known.filter(pl.col("creative_id_seen").is_null())["planned_impressions"].sum()) / total
    joined = shown.join(target, on=[*CELL, "creative_id"], how="left", maintain_order="left").with_columns(
        pl.col("choice").fill_null(0.0)
    )
    cells = target.select(*CELL, "cell_share").unique()
    ratio = (
        joined.drop("cell_share")
        .join(cells, on=CELL, how="left", maintain_order="left")
        .select(pl.col("cell_share").fill_null(0.0) / pl.col("logged_share"))
        .to_series()
        .to_numpy()
    )
    q_logged, q_target = _modelled(shown, target)
    log = Log(
        reward=shown["reward"].to_numpy().astype(float),
        logging_propensity=shown["logging_propensity"].to_numpy(),
        target_propensity=joined["choice"].to_numpy() * ratio,
        q_logged=q_logged,
        q_target=q_target * ratio,
        cluster=shown["cluster"].rank("dense").cast(pl.Int64).to_numpy(),
    )
    return log, unsupported


def _fold(cluster: pl.Series) -> pl.Series:
    """Users dealt to folds in the order of their ids: fixed, and independent of their rewards."""
    return ((cluster.rank("dense") - 1) % FOLDS).cast(pl.Int64).alias("fold")


def _modelled(shown: pl.DataFrame, target: pl.DataFrame) -> tuple[np.typing.NDArray[np.float64], np.typing.NDArray[np.float64]]:
    """Cross-fitted expected reward of the creative shown, and of the plan's mix of creatives in the cell.

    q(placement, creative): mean reward shrunk to the placement's, and that to the overall mean, learned on the other fold.
    """
    logged = np.zeros(shown.height)
    expected = np.zeros(shown.height)
    folds = shown["fold"].to_numpy()
    for fold in range(FOLDS):
        learn = shown.filter(pl.col("fold") != fold)
        overall = float(learn["reward"].mean() or 0.0) if learn.height else 0.0  # type: ignore[arg-type]
        place = learn.group_by("placement_id").agg(
            base=(pl.col("reward").sum() + PRIOR_WEIGHT * overall) / (pl.len() + PRIOR_WEIGHT)
        )
        pair = learn.group_by("placement_id", "creative_id").agg(total=pl.col("reward").sum(), rows=pl.len())

        def predict(
            frame: pl.DataFrame, place: pl.DataFrame = place, pair: pl.DataFrame = pair, overall: float = overall
        ) -> pl.Series:
            found = (
                frame.select("placement_id", "creative_id")
                .join(place, on="placement_id", how="left", maintain_order="left")
                .join(pair, on=["placement_id", "creative_id"], how="left", maintain_order="left")
                .with_columns(pl.col("base").fill_null(overall))
            )
            return found.select(
                (pl.col("total").fill_null(0.0) + PRIOR_WEIGHT * pl.col("base")) / (pl.col("rows").fill_null(0) + PRIOR_WEIGHT)
            ).to_series()

        mask = folds == fold
        part = shown.filter(pl.Series(mask))
        logged[mask] = predict(part).to_numpy()
        mixed = target.with_columns(q=predict(target)).group_by(CELL).agg(q=(pl.col("choice") * pl.col("q")).sum())
        expected[mask] = part.join(mixed, on=CELL, how="left", maintain_order="left")["q"].fill_null(0.0).to_numpy()
    return logged, expected
