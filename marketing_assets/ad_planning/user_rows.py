"""The user-level plan's rows: who could get what in the owned placements, what it is worth, and the plan as a table.

What belongs here: candidates of a day. What does not: the solver (user_level).
"""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl

from marketing_assets.ad_planning.user_level import solve_users
from marketing_assets.ad_planning.user_problem import UserProblem
from marketing_assets.config import Store
from marketing_assets.warehouse import Reader, polars_schema

CANDIDATES = 10
"""Creative and placement pairs kept per user: those of the highest value in the user's audience."""
LEAST, MOST = 0.2, 5.0
"""Range of a user's purchase propensity over the audience's mean that scales the audience's conversion rate."""


def user_plan_rows(reader: Reader, day: date, rates: pl.DataFrame, store: Store) -> pl.DataFrame:
    """user_ad_plan rows of `day`: one impression per user, creative and placement, holdouts left out.

    A user's conversion rate is the audience's, scaled by the user's purchase_propensity over the audience's mean. The
    placements' forecast impressions and the frequency cap hold; the money budget and the target are the group plan's.
    """
    schema = polars_schema("user_ad_plan")
    offered = rates.filter(pl.col("placement_id").is_in(list(store.ad_planning.user_level_placements)))
    log = reader.log_as_of("audiences", day, ["user_id", "audience_id", "priority", "is_holdout"])
    users = (
        log.filter(pl.col("audience_id").is_not_null())
        .sort("user_id", "priority", "audience_id")
        .unique("user_id", keep="first", maintain_order=True)
        .filter(~pl.col("is_holdout"))
    )
    if offered.is_empty() or users.is_empty():
        return pl.DataFrame(schema=schema)
    weight = pl.col("available_impressions")
    pairs = (
        offered.group_by("audience_id", "creative_id", "placement_id")
        .agg(
            rate=((pl.col("ctr") * pl.col("cvr")) * weight).sum() / weight.sum(),
            value=(pl.col("value_per_conversion") * weight).sum() / weight.sum(),
            cost=(pl.col("cost_per_impression") * weight).sum() / weight.sum(),
        )
        .with_columns(worth=(pl.col("rate") * pl.col("value")).round(12))
        .sort("audience_id", pl.col("worth") * -1, "creative_id", "placement_id")
    )
    pairs = pairs.with_columns(place=pl.int_range(pl.len()).over("audience_id")).filter(pl.col("place") < CANDIDATES)
    profiles = reader.log_as_of("user_profiles", day, ["user_id", "purchase_propensity"])
    users = users.join(profiles, on="user_id", how="left", maintain_order="left").with_columns(
        scale=(pl.col("purchase_propensity") / pl.col("purchase_propensity").mean().over("audience_id"))
        .fill_null(1.0)
        .fill_nan(1.0)
        .clip(LEAST, MOST)
        .round(9)
    )
    users = users.join(pairs.select("audience_id").unique(), on="audience_id", how="semi", maintain_order="left")
    if users.is_empty():
        return pl.DataFrame(schema=schema)
    audiences = pairs["audience_id"].unique().sort().to_list()
    placements = pairs["placement_id"].unique().sort().to_list()
    shape = (len(audiences), CANDIDATES)
    slot = np.full(shape, -1, dtype=np.int32)
    rate, value, cost = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    names = np.full(shape, None, dtype=object)
    for row in pairs.to_dicts():
        at = audiences.index(row["audience_id"]), row["place"]
        slot[at], rate[at], value[at], cost[at] = placements.index(row["placement_id"]), row["rate"], row["value"], row["cost"]
        names[at] = row["creative_id"]
    which = users["audience_id"].replace_strict(audiences, list(range(len(audiences))), return_dtype=pl.Int64).to_numpy()
    scale = users["scale"].to_numpy()[:, None]
    conversions = rate[which] * scale
    supply = (
        offered.unique(["audience_id", "placement_id", "hour"])
        .group_by("placement_id")
        .agg(pl.col("available_impressions").sum())
    )
    inventory = np.floor(np.array([float(dict(supply.iter_rows())[name]) for name in placements]))
    problem = UserProblem(
        slot[which], conversions * value[which], cost[which], conversions, store.ad_planning.frequency_cap, inventory
    )
    plan = solve_users(problem, seed=store.seed)
    rows, columns = np.nonzero(plan.x > 1e-6)
    amount = np.minimum(np.round(plan.x[rows, columns], 9), 1.0)
    creative = names[which[rows], columns]
    expected = amount * conversions[rows, columns]
    frame = pl.DataFrame(
        {
            "user_id": users["user_id"].gather(rows),
            "creative_id": creative.tolist(),
            "placement_id": [placements[i] for i in problem.slot[rows, columns].tolist()],
            "planned_impressions": amount,
            "expected_conversions": expected,
            "expected_revenue": expected * value[which[rows], columns],
        },
        schema_overrides={"creative_id": pl.String, "placement_id": pl.String},
    ).with_columns(as_of_date=pl.lit(day), plan_date=pl.lit(day + timedelta(days=1)), plan_id=pl.lit(f"plan-{day}"))
    return frame.select(pl.col(name).cast(kind) for name, kind in schema.items()).sort("user_id", "creative_id", "placement_id")
