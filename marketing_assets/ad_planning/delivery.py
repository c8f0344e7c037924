"""What recent plans found on offer: where less was delivered than planned, less is there, whatever the log's mix said.

What belongs here: planned beside delivered impressions of past plans, and the factor on an audience's supply they speak for.
What does not: the forecast of supply itself (response/supply.py), which a log bought by plans cannot teach.

While a plan buys, what is bought tells what was planned. What is left of the truth is censored: a group that got less than
planned had as much as it got, one that got all had at least that. Impressions on offer are taken as Poisson with mean f times the
forecast, f one factor per audience, found by expectation-maximisation (Dempster, Laird and Rubin 1977) with PRIOR impressions
that say f = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl
from scipy.stats import poisson

from marketing_assets.ad_planning.inputs import GROUP, Floats
from marketing_assets.config import DELIVERY_DAYS
from marketing_assets.response.audience import entries_since, with_audience
from marketing_assets.response.changes import Changes, read_changes
from marketing_assets.warehouse import Reader

PRIOR = 200.0
"""Impressions an audience's forecast counts for."""
PROBE = 1.15
"""So many times what the forecast says of an hour of a placement may be asked for where plans got all they asked for and no capacity is quoted:
the forecast knows what was bought, and a plan that kept to it could never buy more."""
STEPS = 12
"""Most steps of the expectation-maximisation."""

PLANNED = ["as_of_date", "plan_id", *GROUP, "planned_impressions"]
"""Columns of ad_plan that `planned_groups` looks at."""


@dataclass(frozen=True)
class Deliveries:
    """delivered: landed_date, impression_date, plan_id, GROUP, delivered. changes: days that must not teach."""

    delivered: pl.DataFrame
    changes: Changes

    @staticmethod
    def read(reader: Reader, days: Sequence[date]) -> Deliveries:
        """What landed from DELIVERY_DAYS before the window on of impressions a plan bought."""
        schema = {
            "landed_date": pl.Date, "impression_date": pl.Date, "plan_id": pl.String, "audience_id": pl.String, "placement_id": pl.String,
            "hour": pl.Int64, "delivered": pl.Int64,
        }  # fmt: skip
        changes = read_changes(reader, days[-1])
        if not reader.has_source("impressions"):
            return Deliveries(pl.DataFrame(schema=schema), changes)
        start = days[0] - timedelta(days=DELIVERY_DAYS - 1)
        shown, entries = reader.table("clean_impressions"), reader.table("audiences")
        shown = shown.filter(shown.landed_date.between(start, days[-1]), shown.plan_id.notnull())
        entries = entries.filter(entries.as_of_date.between(entries_since(reader, start), days[-1]))
        rows = with_audience(shown, entries, reader.store.anchor)
        sums = rows.group_by("landed_date", "impression_date", "plan_id", *GROUP).agg(delivered=rows.count())
        return Deliveries(reader.frame(sums).select(schema.keys()).cast(pl.Schema(schema)).sort(list(schema)), changes)

    def on(self, day: date) -> pl.DataFrame:
        """impression_date, plan_id, GROUP, delivered: of the last DELIVERY_DAYS by `day`, days that must not teach left out."""
        first = day - timedelta(days=DELIVERY_DAYS)
        lately = pl.all_horizontal(pl.col("landed_date", "impression_date").is_between(first, day, closed="right"))
        known = self.delivered.filter(lately)
        for since, until in self.changes.silent_on(day):
            known = known.filter(~pl.col("impression_date").is_between(since, until or day + timedelta(days=1), closed="left"))
        return known.group_by("impression_date", "plan_id", *GROUP).agg(pl.col("delivered").sum())


def planned_groups(plan: pl.DataFrame) -> pl.DataFrame:
    """as_of_date, plan_id, GROUP, planned of ad_plan rows."""
    key = ["as_of_date", "plan_id", *GROUP]
    return plan.lazy().group_by(key).agg(planned=pl.col("planned_impressions").sum()).sort(key).collect()


def as_delivered(
    rates: pl.DataFrame, planned: pl.DataFrame, delivered: pl.DataFrame, free_share: dict[str, float], quoted: pl.Series
) -> pl.DataFrame:
    """`rates` with available_impressions as recent plans found it; unchanged where no plan was carried out.

    planned: rows of `planned_groups`. delivered: `Deliveries.on`. free_share: part of an audience's users that may be
    addressed. quoted: placements whose capacity was told. An hour of theirs never has more in all than before: what one audience has
    more, others have less. One of others may have up to PROBE times as much.
    """
    factor = supply_factors(rates, planned, delivered, free_share)
    if not factor:
        return rates
    found = pl.col("available_impressions") * pl.col("audience_id").replace_strict(factor, default=1.0, return_dtype=pl.Float64)
    groups = rates.lazy().group_by(GROUP).agg(pl.col("available_impressions").max())
    hour = ["placement_id", "hour"]
    most = pl.when(pl.col("placement_id").is_in(quoted.unique().implode())).then(1.0).otherwise(PROBE)
    scale = groups.group_by(hour).agg(scale=pl.col("available_impressions").sum() / found.sum())
    scale = scale.with_columns((pl.col("scale") * most).clip(0, 1))
    return (
        rates.lazy()
        .join(scale, on=hour, how="left", maintain_order="left")
        .with_columns(available_impressions=found * pl.col("scale"))
        .drop("scale")
        .collect()
    )


def supply_factors(
    rates: pl.DataFrame, planned: pl.DataFrame, delivered: pl.DataFrame, free_share: dict[str, float]
) -> dict[str, float]:
    """Audience -> how many times the forecast of `rates` was on offer on the days of `delivered`, of audiences plans bought."""
    # a placement in which nothing at all was bought under a plan is bought by other means: it says nothing
    carried_out = delivered.lazy().select("impression_date", "plan_id", "placement_id").unique()
    offered = rates.lazy().group_by(GROUP).agg(pl.col("available_impressions").max())
    rows = (
        planned.lazy()
        .join(carried_out, on=["plan_id", "placement_id"])
        .join(delivered.lazy(), on=["impression_date", "plan_id", *GROUP], how="left")
        .join(offered, on=GROUP)
        .with_columns(
            pl.col("delivered").fill_null(0).cast(pl.Float64),
            expected=pl.col("available_impressions")
            * pl.col("audience_id").replace_strict(free_share, default=1.0, return_dtype=pl.Float64),
        )
        .filter(pl.col("expected") > 0)
        .sort("audience_id", "impression_date", "plan_id", *GROUP[1:])
        .collect()
    )
    if rows.is_empty():
        return {}
    audiences, place = np.unique(rows["audience_id"].to_numpy(), return_inverse=True)
    got, expected = rows["delivered"].to_numpy(), rows["expected"].to_numpy()
    is_all = got >= np.floor(rows["planned"].to_numpy())
    total = np.bincount(place, expected) + PRIOR
    factor = np.ones(len(audiences))
    for _ in range(STEPS):
        offered_then = np.where(is_all, at_least(got, factor[place] * expected), got)
        after = (np.bincount(place, offered_then) + PRIOR) / total
        done = np.abs(after - factor).max() < 1e-3
        factor = after
        if done:
            break
    return {str(name): round(float(one), 6) for name, one in zip(audiences, factor, strict=True)}


def at_least(count: Floats, mean: Floats) -> Floats:
    """E[N | N >= count] for a Poisson N: mean P(N >= count - 1) / P(N >= count), `count` where that is not to be expected at all."""
    some = poisson.sf(count - 1, mean)
    return np.maximum(np.where(some > 1e-12, mean * poisson.sf(count - 2, mean) / np.maximum(some, 1e-12), count), count)
