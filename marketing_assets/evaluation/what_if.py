"""What last month would have brought under another plan, from the impressions logged with propensities.

What belongs here: turning an ad log and a plan into the inputs of off_policy.py, and off_policy_report. What does not: the
estimators.

A plan decides two things: how much to buy in each cell (audience, placement, block of the day) and which creative to show
there. Logged impressions are weighted by the plan's share of the cell over the log's, times the plan's probability of the
creative over the logged one; so the value is per impression of the plan, and times its impressions per day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from marketing_assets.cleaning import of_told
from marketing_assets.config import Store
from marketing_assets.evaluation.ad_log import AdLog, read_ad_log
from marketing_assets.evaluation.ads import exported_or_issued
from marketing_assets.intervals import Floats
from marketing_assets.off_policy import WITH_MODEL, WITHOUT_MODEL, Log, evaluate, support
from marketing_assets.warehouse import Built, Reader, polars_schema

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
    """`weighable` rows of what landed in [start, end]."""
    return weighable(read_ad_log(reader, start, end))


def weighable(log: AdLog) -> pl.DataFrame:
    """Impressions with a propensity: impression, impression_date, landed_date, cluster, cell, creative_id, logging_propensity,
    is_clicked, and the conversions and value credited to them by day of landing (one row per impression and such day).

    fold: the half of the users one is in. is_first: whether a row is the first of its impression. Sorted by day.
    """
    shown = log.shown.filter(pl.col("logging_propensity").is_not_null()).select(
        "impression", "landed_date", "cluster", "fold", "logging_propensity", "is_clicked", impression_date="event_date",
        audience_id="audience", placement_id="placement", creative_id="creative", block=pl.col("hour") // HOUR_BLOCK,
    )  # fmt: skip
    shown = numbered(shown).sort("impression_date", "cluster", "pair", "logging_propensity", "is_clicked", "landed_date")
    credited = log.credited.group_by("impression", credited_date="landed_date").agg(
        pl.col("conversions").sum(), revenue=pl.col("value").sum()
    )
    rows = shown.join(credited.sort("impression", "credited_date"), on="impression", how="left", maintain_order="left_right")
    return rows.with_columns(is_first=pl.col("impression").ne_missing(pl.col("impression").shift(1)))


def numbered(log: pl.DataFrame) -> pl.DataFrame:
    """Numbers in place of names that would be compared over and over: cluster, in the order of ids, and pair, of cell and creative.

    The names are Enums.
    """

    def code(name: str) -> pl.Expr:
        return pl.col(name).to_physical().cast(pl.Int64).fill_null(size(name) - 1)

    def size(name: str) -> int:
        return len(log.schema[name].categories) + 1  # type: ignore[attr-defined]

    pair = (code("audience_id") * size("placement_id") + code("placement_id")) * 24 + pl.col("block")
    return log.with_columns(cluster=code("cluster"), pair=pair * size("creative_id") + code("creative_id"))


def build_off_policy(reader: Reader, days: Sequence[date], store: Store) -> Built:
    """off_policy_report for a window of days: on each the plan issued the day before, valued on the WINDOW_DAYS of log before that.

    Clicks use the newest days, conversions and revenue end maturity_days earlier.
    """
    has_log = reader.has_source("impressions")
    plans = exported_or_issued(reader, "ad_plan", days[0] - timedelta(days=1), days[-1] - timedelta(days=1))
    log = read_log(reader, days[0] - timedelta(days=look_back(store)), days[-1]) if has_log and plans.height else None
    rows = []
    if log is not None and log.height:
        for day in days:
            plan = plans.filter(pl.col("as_of_date") == day - timedelta(days=1))
            if plan.height:
                rows += [{"as_of_date": day, **row} for row in value_plan(log, plan, day, store)]
    table = pl.DataFrame(rows, schema=polars_schema("off_policy_report"))
    return Built({"off_policy_report": table}, degraded={} if has_log else {"off_policy_report": "needs source 'impressions'"})


def what_if(reader: Reader, day: date, store: Store, plan: pl.DataFrame | None = None) -> pl.DataFrame:
    """What the month up to `day` would have brought under `plan` (default: the newest plan issued at or before `day`)."""
    if plan is None:
        plan = exported_or_issued(reader, "ad_plan", day - timedelta(days=7), day)
        plan = plan.filter(pl.col("as_of_date") == pl.col("as_of_date").max())
    log = read_log(reader, day - timedelta(days=look_back(store)), day)
    rows = [{"as_of_date": day, **row} for row in value_plan(log, plan, day, store)] if log.height and plan.height else []
    return pl.DataFrame(rows, schema=polars_schema("off_policy_report"))


def value_plan(log: pl.DataFrame, plan: pl.DataFrame, day: date, store: Store) -> list[dict[str, Any]]:
    """Rows for one plan: each outcome by each estimator, with the logged value, interval and support; none of what the shop's inputs do not tell.

    log: as from `weighable`.
    """
    rows = []
    settled = day - timedelta(days=store.maturity_days)
    planned = float(plan["planned_impressions"].sum())
    for end, outcomes in ((day, ["clicks"]), (settled, of_told(store, "conversions", "revenue"))):
        start = end - timedelta(days=WINDOW_DAYS - 1)
        first, last = log["impression_date"].search_sorted(start), log["impression_date"].search_sorted(end, side="right")
        window = log[first:last].filter(pl.col("landed_date") <= day)
        shown = window.filter("is_first")
        if shown.height == 0 or not outcomes:
            continue
        position = np.cumsum(window["is_first"].to_numpy()) - 1
        credited = (window["credited_date"] <= day).fill_null(False).to_numpy()
        weighted = Weighted.of(shown, plan)
        diagnostics = None
        for outcome in outcomes:
            if outcome == "clicks":
                reward = shown["is_clicked"].cast(pl.Float64).to_numpy()
            else:
                reward = np.bincount(position[credited], window[outcome].cast(pl.Float64).to_numpy()[credited], shown.height).astype(float)
            seen = weighted.log(reward)
            diagnostics = diagnostics or support(seen, weighted.unsupported)
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
                        "logged_value": float(reward.mean()),
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

    shown: rows of `read_log`, one per impression, with their reward; plan: ad_plan rows.
    """
    weighted = Weighted.of(shown, plan)
    return weighted.log(shown["reward"].cast(pl.Float64).to_numpy()), weighted.unsupported


@dataclass(frozen=True)
class Weighted:
    """A log as a plan sees it, before any reward.

    Everything but the rewards is the same for all impressions of a pair of cell and creative, so it is computed by pair: pairs,
    ratio of the plan's share of the cell to the log's, and choice, the plan's probability of the creative there. target: the plan
    by cell and creative. place: the pair of each impression. unsupported: share of the plan the log never showed.
    """

    shown: pl.DataFrame
    pairs: pl.DataFrame
    target: pl.DataFrame
    place: npt.NDArray[np.int64]
    ratio: Floats
    unsupported: float

    @staticmethod
    def of(shown: pl.DataFrame, plan: pl.DataFrame) -> Weighted:
        """shown: rows of `weighable`, one per impression; plan: ad_plan rows."""
        names = {name: shown.schema[name] for name in ("audience_id", "placement_id", "creative_id")}
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
        pairs = shown.group_by("pair").agg(pl.col(*CELL, "creative_id").first(), rows=pl.len()).sort("pair")
        pairs = pairs.with_columns(pl.col(name).cast(pl.String) for name in names)
        missed = target.join(pairs, on=[*CELL, "creative_id"], how="anti")
        pairs = (
            pairs.with_columns(logged_share=pl.col("rows").sum().over(CELL) / shown.height)
            .join(target.select(*CELL, "creative_id", "choice"), on=[*CELL, "creative_id"], how="left", maintain_order="left")
            .join(target.select(*CELL, "cell_share").unique(), on=CELL, how="left", maintain_order="left")
            .with_columns(pl.col("choice", "cell_share").fill_null(0.0))
        )
        ratio = (pairs["cell_share"] / pairs["logged_share"]).to_numpy()
        place = np.searchsorted(pairs["pair"].to_numpy(), shown["pair"].to_numpy())
        return Weighted(shown, pairs, target, place, ratio, float(missed["planned_impressions"].sum()) / total)

    def log(self, reward: Floats) -> Log:
        fold = self.shown["fold"].to_numpy()
        q_logged, q_target = _modelled(self.pairs, self.target, self.place, fold, reward)
        return Log(
            reward=reward,
            logging_propensity=self.shown["logging_propensity"].to_numpy(),
            target_propensity=(self.pairs["choice"].to_numpy() * self.ratio)[self.place],
            q_logged=q_logged[fold, self.place],
            q_target=(q_target * self.ratio)[fold, self.place],
            cluster=self.shown["cluster"].to_numpy(),
        )


def _modelled(
    pairs: pl.DataFrame, target: pl.DataFrame, place: npt.NDArray[np.int64], fold: npt.NDArray[np.int64], reward: Floats
) -> tuple[Floats, Floats]:
    """Cross-fitted expected reward of each pair's creative, and of the plan's mix of creatives in its cell: folds x pairs.

    q(placement, creative): mean reward shrunk to the placement's, and that to the overall mean, learned on the other folds.
    place: the pair of each impression.
    """
    every = pl.concat([frame.select(*CELL, "creative_id") for frame in (pairs, target)])

    def coded(*columns: str) -> npt.NDArray[np.int64]:
        return every.select(pl.struct(columns).rank("dense").cast(pl.Int64)).to_series().to_numpy() - 1

    placement, shown_as, cell = coded("placement_id"), coded("placement_id", "creative_id"), coded(*CELL)
    count, own = pairs.height, slice(0, pairs.height)
    logged, expected = np.zeros((FOLDS, count)), np.zeros((FOLDS, count))
    for of in range(FOLDS):
        learn = fold != of
        sums, rows = np.bincount(place[learn], reward[learn], count), np.bincount(place[learn], minlength=count)
        overall = float(sums.sum() / rows.sum()) if rows.sum() else 0.0

        def by(code: npt.NDArray[np.int64], values: npt.ArrayLike) -> Floats:
            return np.asarray(np.bincount(code[own], values, int(code.max()) + 1), dtype=np.float64)

        base = (by(placement, sums) + PRIOR_WEIGHT * overall) / (by(placement, rows) + PRIOR_WEIGHT)
        q = (by(shown_as, sums)[shown_as] + PRIOR_WEIGHT * base[placement]) / (by(shown_as, rows)[shown_as] + PRIOR_WEIGHT)
        mixed = np.bincount(cell[count:], target["choice"].to_numpy() * q[count:], int(cell.max()) + 1)
        logged[of], expected[of] = q[own], mixed[cell[own]]
    return logged, expected
