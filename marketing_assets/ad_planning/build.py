"""The window function: tomorrow's plan with its limits, scenarios, changes and proposals, for every day of a window.

What belongs here: reading a day's limits, calling the solver, putting tables together. What does not: the problem
(constraints, objective), its solution (solve), rates (response).

Look-backs from day D: response_rates of D and D - 1; response_calibration 14 days; audiences to the last keyframe;
inventory_plan of D; clean_impressions and ad_reports to the first day of tomorrow's month, further for budgets of a whole
campaign; every refit_requests row; own ad_plan of D - 1, and PLAN_DAYS for what became of it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from marketing_assets.ad_planning.constraints import HARD
from marketing_assets.ad_planning.delivery import PLANNED, Deliveries, as_delivered, planned_groups
from marketing_assets.ad_planning.diff import plan_difference
from marketing_assets.ad_planning.hours import even_over_hours
from marketing_assets.ad_planning.inputs import Cells, Floats, Limits, Override
from marketing_assets.ad_planning.proposals import campaign_proposals
from marketing_assets.ad_planning.risk import probability_of_target
from marketing_assets.ad_planning.rounding import whole_impressions
from marketing_assets.ad_planning.solve import Model, Solution, used, without_overrides
from marketing_assets.cleaning import tells_values
from marketing_assets.config import ACTIVE_DAYS, GATE_DAYS, PLAN_DAYS, Store
from marketing_assets.response.audience import named_until
from marketing_assets.response.calibration import calibration_verdict
from marketing_assets.response.supply import AsKnown, read_landed
from marketing_assets.warehouse import Built, Reader, polars_schema

TABLES = (
    "ad_plan",
    "ad_plan_constraints",
    "ad_plan_scenarios",
    "ad_plan_runs",
    "plan_diff",
    "campaign_proposals",
    "user_ad_plan",
)

BEHIND = (
    "as_of_date", "audience_id", "creative_id", "placement_id", "hour", "item_id", "available_impressions", "ctr", "cvr",
    "value_per_conversion", "cost_per_impression",
)  # fmt: skip
"""Columns of the rates behind a plan that are kept until the window's plans are compared."""
_DAILY, _MONTHLY = ("day", "daily"), ("month", "monthly")
"""What a campaign's budget_period may be called; by any other name its budget is for all of its days."""


@dataclass(frozen=True)
class Facts:
    """What the window's days need beside the rates, read once: spend by landed day, campaigns, overrides, stock,
    what came of plans; quoted: landed_date, placement_id of rows that told a capacity."""

    spend: pl.DataFrame
    campaigns: AsKnown
    quoted: pl.DataFrame
    overrides: pl.DataFrame
    stock: pl.DataFrame
    calibration: pl.DataFrame
    items: pl.DataFrame
    deliveries: Deliveries
    reach: dict[date, Reach]


def build_ad_plan(reader: Reader, days: Sequence[date], store: Store) -> Built:
    """ad_plan and the tables that explain it, for `days`.

    A day without rates gets a run of status 'no_inputs', a day whose rates miss their outcomes one of status 'refused'
    that says why; both have no plan. Where no plan meets every limit, the smallest weighted relaxation is stated and the
    best plan under it is issued, status 'relaxed'.
    """
    before = days[0] - timedelta(days=1)
    rates = reader.window("response_rates", before, days[-1])
    by_day = {key[0]: frame for key, frame in rates.partition_by("as_of_date", as_dict=True, maintain_order=True).items()}
    has_rates = any(day in by_day for day in days)
    facts = read_facts(reader, days) if has_rates else None
    previous = reader.window("ad_plan", before, before)
    planned = planned_groups(reader.window("ad_plan", days[0] - timedelta(days=PLAN_DAYS), before, PLANNED))
    parts: dict[str, list[pl.DataFrame]] = {name: [pl.DataFrame(schema=polars_schema(name))] for name in TABLES}
    metrics: dict[date, dict[str, float]] = {}
    plans, offered = [previous], []
    for day in days:
        if day in by_day and facts is not None:
            made, behind = plan_day(reader, day, by_day[day], previous, planned, facts, store)
            if behind is not None:
                offered.append(behind)
        else:
            made = {
                "ad_plan_runs": _runs(day, status="no_inputs", note="no response rates: nothing is known of tomorrow's cells")
            }
        for name, frame in made.items():
            parts[name].append(frame)
        previous = made.get("ad_plan", pl.DataFrame(schema=polars_schema("ad_plan")))
        planned = pl.concat([planned, planned_groups(previous)])
        plans.append(previous)
        run = made["ad_plan_runs"].row(0, named=True)
        metrics[day] = {
            "cells": float(previous.height),
            "planned_spend": float(previous["planned_spend"].sum()),
            "expected_conversions": float(previous["expected_conversions"].sum()),
            "solver_seconds": float(run["seconds"]),
        }
    if offered and facts is not None:
        every = pl.concat(offered)
        parts["plan_diff"].append(plan_difference(pl.concat(plans), every, rates))
        free = {day: reach.free for day, reach in facts.reach.items()}
        parts["campaign_proposals"].append(campaign_proposals(every, facts.items, free, store))
    sources = ("impressions", "ad_reports", "placements")
    degraded = (
        {}
        if any(reader.has_source(name) for name in sources)
        else {name: "needs source 'impressions', 'ad_reports' or 'placements'" for name in TABLES}
    )
    return Built(
        tables={name: pl.concat(frames) for name, frames in parts.items()}, degraded=degraded, metrics={"ad_plan": metrics}
    )


def read_facts(reader: Reader, days: Sequence[date]) -> Facts:
    """Read once for the window what every day needs."""
    end = days[-1]
    campaigns = read_landed(reader, "campaigns", days)
    start = days[0].replace(day=1)
    if not campaigns.rows["budget_period"].fill_null("total").is_in([*_DAILY, *_MONTHLY]).all():
        start = min(start, days[0] - timedelta(days=ACTIVE_DAYS))
    stock = reader.window("inventory_plan", days[0], end, ["as_of_date", "item_id", "location_id", "sellable_units"])
    return Facts(
        spend=_spend(reader, start, end),
        campaigns=campaigns,
        quoted=reader.window("raw_placements", None, end, ["landed_date", "placement_id", "capacity"]).filter(pl.col("capacity") != ""),
        overrides=reader.accepted("plan_overrides", None, end),
        stock=stock.group_by("as_of_date", "item_id")
        .agg(pl.when(pl.col("sellable_units").count() > 0).then(pl.col("sellable_units").sum()).alias("units"))
        .drop_nulls()
        .sort("as_of_date", "item_id"),
        calibration=reader.window("response_calibration", days[0] - timedelta(days=GATE_DAYS), end),
        items=_categories(reader, days),
        deliveries=Deliveries.read(reader, days),
        reach=audience_reach(reader, days),
    )


def _spend(reader: Reader, start: date, end: date) -> pl.DataFrame:
    """landed_date, date, campaign_id, spend: from the ad log, else from reports (increments of newer reports over older)."""
    if reader.has_source("impressions"):
        shown = reader.table("clean_impressions")
        shown = shown.filter(shown.landed_date.between(start, end))
        sums = shown.group_by("landed_date", "campaign_id", date=shown.impression_date).agg(spend=shown.spend.sum())
        frame = reader.frame(sums)
    elif reader.has_source("ad_reports"):
        reports = reader.accepted("ad_reports", start, end)
        key = ["date", "campaign_id", "creative_id", "placement_id", "hour", "audience_id"]
        summed = reports.group_by(*key, "landed_date").agg(pl.col("spend").sum()).sort("landed_date")
        frame = summed.with_columns(
            pl.col("spend") - pl.col("spend").shift(1).over(key, order_by="landed_date").fill_null(0)
        ).select("landed_date", "date", "campaign_id", "spend")
    else:
        frame = pl.DataFrame(schema={"landed_date": pl.Date, "date": pl.Date, "campaign_id": pl.String, "spend": pl.Float64})
    return frame.select("landed_date", "date", "campaign_id", pl.col("spend").cast(pl.Float64).fill_null(0.0)).sort(
        "landed_date", "date", "campaign_id"
    )


def _categories(reader: Reader, days: Sequence[date]) -> pl.DataFrame:
    """as_of_date, item_id, category of catalogue entries since the last keyframe."""
    table = reader.table("items")
    rows = table.filter(table.as_of_date.between(reader.keyframe_before(days[0]), days[-1])).select(
        "as_of_date", "item_id", "category"
    )
    frame = reader.frame(rows)
    return frame.cast({"as_of_date": pl.Date, "item_id": pl.String, "category": pl.String}).sort("as_of_date", "item_id")


@dataclass(frozen=True)
class Reach:
    """Users of each plan audience: users in it (first by priority), and those who may be addressed, holdouts taken off."""

    users: dict[str, float]
    free: dict[str, float]

    @property
    def free_share(self) -> dict[str, float]:
        return {name: self.free.get(name, 0.0) / users for name, users in self.users.items() if users > 0}


def audience_reach(reader: Reader, days: Sequence[date]) -> dict[date, Reach]:
    """Users by their first audience by priority, as of each of `days`: those named by then less those whose entry ended."""
    log = reader.table("audiences")
    named = named_until(log.filter(log.as_of_date.between(reader.keyframe_before(days[0]), days[-1])), reader.store.anchor)
    named = named.filter(named.of_user.notnull())
    moves = []
    for when, sign in ((named.as_of_date, 1), (named.until, -1)):
        counts = reader.frame(named.group_by("of_user", day=when).agg(users=named.count(), free=(~named.is_holdout).sum()))
        moves.append(counts.select("of_user", "day", pl.col("users", "free") * sign))
    moved = pl.concat(moves).group_by("of_user", "day").agg(pl.col("users", "free").sum()).sort("of_user", "day")
    reach = {day: Reach({}, {}) for day in days}
    for (audience,), part in moved.partition_by("of_user", maintain_order=True, as_dict=True).items():
        users, free = part["users"].cum_sum(), part["free"].cum_sum()
        at = part["day"].search_sorted(pl.Series(days), side="right").cast(pl.Int64) - 1
        for day, place in zip(days, at, strict=True):
            if place >= 0 and users[place]:
                reach[day].users[audience], reach[day].free[audience] = float(users[place]), float(free[place])
    return reach


def limits_of(day: date, facts: Facts, reach: Reach, previous: pl.DataFrame, store: Store) -> Limits:
    """The limits of the plan made at the end of `day` for the next."""
    settings = store.ad_planning
    tomorrow = day + timedelta(days=1)
    spent = facts.spend.filter(pl.col("landed_date") <= day)
    month = spent.filter(pl.col("date").is_between(tomorrow.replace(day=1), day))
    days_left = ((tomorrow.replace(day=28) + timedelta(days=4)).replace(day=1) - tomorrow).days
    left = None
    budget = settings.daily_budget
    if settings.monthly_budget is not None:
        left = max(settings.monthly_budget - float(month["spend"].sum()), 0.0)
        if budget is None:
            budget = left / days_left  # a month without a daily budget is spread over what is left of it
    campaign_left = {}
    # no further back than a day by itself would look, so that a range gives the same
    of_whole = spent.filter(pl.col("landed_date") >= day - timedelta(days=ACTIVE_DAYS))
    for row in facts.campaigns.on(day).filter(pl.col("budget").is_not_null()).to_dicts():
        period = row["budget_period"] or "total"
        amount = float(row["budget"])
        ours = of_whole.filter(pl.col("campaign_id") == row["campaign_id"])
        if period in _MONTHLY:
            amount -= float(month.filter(pl.col("campaign_id") == row["campaign_id"])["spend"].sum())
        elif period not in _DAILY:
            amount -= float(ours["spend"].sum())
        campaign_left[str(row["campaign_id"])] = max(amount, 0.0)
    spend_before = (
        previous.filter(pl.col("campaign_id").is_not_null())
        .group_by("campaign_id")
        .agg(pl.col("planned_spend").sum())
        .sort("campaign_id")
    )
    return Limits(
        budget=budget,
        monthly_left=left,
        campaign_left=campaign_left,
        target=settings.target_conversions,
        most_per_conversion=settings.most_per_conversion,
        frequency_cap=settings.frequency_cap,
        audience_users=reach.free,
        item_units={
            row["item_id"]: float(max(row["units"], 0)) for row in facts.stock.filter(pl.col("as_of_date") == day).to_dicts()
        },
        hourly_share=settings.max_hourly_share,
        placement_share=settings.max_share_per_placement,
        campaign_share=settings.max_share_per_campaign,
        max_change=settings.max_change,
        previous_spend=dict(spend_before.iter_rows()),
        exploration_share=settings.exploration_share,
        diminishing=settings.diminishing_returns,
        overrides=_overrides(day, facts.overrides),
        weights=settings.relaxation_weights,
    )


def _overrides(day: date, rows: pl.DataFrame) -> list[Override]:
    """Overrides accepted by `day` and valid tomorrow, named by their place in that order."""
    tomorrow = day + timedelta(days=1)
    valid = rows.filter(
        pl.col("landed_date") <= day,
        pl.col("valid_from") <= tomorrow,
        pl.col("valid_to").is_null() | (pl.col("valid_to") >= tomorrow),
    )
    keys = ["audience_id", "campaign_id", "creative_id", "placement_id", "hour"]
    result = []
    for number, row in enumerate(valid.sort("valid_from", *keys, "author", "reason", nulls_last=False).to_dicts(), 1):
        what = ",".join(str(row[key]) for key in keys if row[key] is not None) or "everything"
        result.append(
            Override(
                f"{number}:{what}",
                **{key: row[key] for key in keys},
                minimum=row["minimum"],
                maximum=row["maximum"],
                is_excluded=bool(row["is_excluded"]),
                reason=row["reason"],
            )
        )
    return result


def plan_day(
    reader: Reader,
    day: date,
    rates: pl.DataFrame,
    previous: pl.DataFrame,
    planned: pl.DataFrame,
    facts: Facts,
    store: Store,
) -> tuple[dict[str, pl.DataFrame], pl.DataFrame | None]:
    """The tables' rows of one day that need no other day's, and the rates its plan rests on, where there is one."""
    started = time.perf_counter()
    settings = store.ad_planning
    verdict = calibration_verdict(facts.calibration.filter(pl.col("as_of_date") <= day), day, store.response)
    if not verdict.is_calibrated:
        note = "response rates do not meet what happened, so no plan rests on them: " + "; ".join(verdict.reasons)
        return {"ad_plan_runs": _runs(day, status="refused", note=note, seconds=time.perf_counter() - started)}, None
    reach = facts.reach[day]
    lately = planned.filter(pl.col("as_of_date") >= day - timedelta(days=PLAN_DAYS))
    quoted = facts.quoted.filter(pl.col("landed_date") <= day)["placement_id"]
    rates = as_delivered(rates, lately, facts.deliveries.on(day), reach.free_share, quoted)
    limits = limits_of(day, facts, reach, previous, store)
    cells = _cells(rates, limits, reach, store)
    if cells is None:
        note = "no cell is on offer tomorrow, or all are excluded"
        return {"ad_plan_runs": _runs(day, status="no_inputs", note=note, seconds=time.perf_counter() - started)}, None
    model = Model(cells, limits)
    solution = even_over_hours(model.solve(), model)
    x = solution.x
    if settings.whole_impressions:
        x = whole_impressions(x, cells, model.statement.blocks, solution.relaxed, store.seed + day.toordinal())
    plan = plan_rows(day, cells, x, solution, model)
    notes = _notes(model, solution, x, cells)
    if settings.value != "conversions" and not tells_values(store) and (rates["value_per_conversion"] == 1).all():
        notes.append("nothing says what a conversion is worth, so each counts as 1; map conversion_value, or set ad_planning.value to conversions")
    if limits.overrides:
        notes.append(_cost_of_overrides(rates, limits, reach, solution, store))
    kept = model.statement.losses.kept_share(x, cells)
    probability = probability_of_target(x, kept, cells, settings.target_conversions, store.response.interval)
    if settings.is_cautious:
        notes.append(f"cautious: planned on the lower ends of the rates' {store.response.interval:.0%} intervals")
    constraints = constraint_rows(day, model, solution, x)
    scenarios = scenario_rows(day, model, solution, store)
    bound = solution.upper_bound
    gap = max((bound - solution.objective) / abs(bound), 0.0) if bound - solution.objective > 1e-9 else 0.0
    run = _runs(
        day,
        status="relaxed" if solution.is_relaxed else "optimal",
        objective=solution.objective,
        upper_bound=bound,
        gap=gap,
        solver=solution.solver,
        probability=probability,
        note="; ".join(notes) or None,
        seconds=time.perf_counter() - started,
    )
    made = {"ad_plan": plan, "ad_plan_constraints": constraints, "ad_plan_scenarios": scenarios, "ad_plan_runs": run}
    if settings.user_level_placements:
        from marketing_assets.ad_planning.user_rows import user_plan_rows

        made["user_ad_plan"] = user_plan_rows(reader, day, rates, store)
    return made, rates.select(BEHIND)


def _cells(rates: pl.DataFrame, limits: Limits, reach: Reach, store: Store) -> Cells | None:
    """Cells that may be planned: on offer, not sold out, not excluded by a person, not planned user by user; None where there are none."""
    settings = store.ad_planning
    frame = rates.filter(pl.col("available_impressions") > 0, ~pl.col("placement_id").is_in(list(settings.user_level_placements)))
    keep = np.ones(frame.height, dtype=bool)
    for override in limits.overrides:
        if override.is_excluded:
            keep &= ~override.matches(frame)
    frame = frame.filter(pl.Series(keep, dtype=pl.Boolean))
    # what cannot be sold is not advertised, not even to learn: its share of the exploration would forbid every other creative too
    sold_out = [item for item, units in limits.item_units.items() if units <= 0]
    frame = frame.filter(~pl.col("item_id").is_in(sold_out).fill_null(False))
    return Cells(frame, settings.is_cautious, settings.whole_impressions, reach.free_share) if frame.height else None


def _cost_of_overrides(rates: pl.DataFrame, limits: Limits, reach: Reach, solution: Solution, store: Store) -> str:
    """What the plan would be worth more without what people set by hand, in words."""
    free = without_overrides(limits)
    cells = _cells(rates, free, reach, store)
    worth = 0.0 if cells is None else Model(cells, free).solve().objective
    reasons = ", ".join(f"{override.name} ({override.reason})" for override in limits.overrides)
    return f"overrides cost {max(worth - solution.objective, 0.0):.2f} of value: {reasons}"


def plan_id(day: date) -> str:
    return f"plan-{day}"


def plan_rows(day: date, cells: Cells, x: Floats, solution: Solution, model: Model) -> pl.DataFrame:
    """ad_plan rows of the cells bought. Propensities are those of the plan before rounding: they are what was intended."""
    group_total = np.maximum(solution.total[cells.group], 1e-300)
    propensity = np.clip(solution.x / group_total, 1e-12, 1.0)
    kept = model.statement.losses.kept_share(x, cells)
    share = model.limits.exploration_share
    creatives = cells.groups["creatives"].to_numpy()[cells.group]
    to_learn = (propensity <= share / creatives * (1 + 1e-9)) & (share > 0) & (creatives > 1)
    frame = (
        cells.frame.with_columns(
            as_of_date=pl.lit(day),
            plan_date=pl.lit(day + timedelta(days=1)),
            plan_id=pl.lit(plan_id(day)),
            planned_impressions=pl.Series(x),
            planned_spend=pl.Series(x * cells.cost),
            expected_clicks=pl.Series(x) * pl.col("ctr"),
            expected_conversions=pl.Series(x * kept) * pl.col("ctr") * pl.col("cvr"),
            logging_propensity=pl.Series(propensity),
            is_exploration=pl.Series(to_learn),
        )
        .with_columns(expected_revenue=pl.col("expected_conversions") * pl.col("value_per_conversion"))
        .filter(pl.col("planned_impressions") > 1e-9)
    )
    return frame.select(pl.col(name).cast(kind) for name, kind in polars_schema("ad_plan").items())


def constraint_rows(day: date, model: Model, solution: Solution, x: Floats) -> pl.DataFrame:
    """ad_plan_constraints rows: every limit with use, shadow price and relaxation."""
    cells = model.cells
    losses = model.statement.losses
    conversions = float(cells.conversions @ x) - losses.lost(x, losses.conversions_lost)
    total = cells.members @ x
    exact_total = solution.total
    exact = float(cells.conversions @ solution.x) - losses.lost(solution.x, losses.conversions_lost)
    parts = []
    for block, duals, relaxed in zip(model.statement.blocks, solution.duals, solution.relaxed, strict=True):
        use = used(block, x, total, conversions)
        tight = np.abs(used(block, solution.x, exact_total, exact) - block.limit) <= 1e-7 * np.maximum(np.abs(block.limit), 1e-3)
        parts.append(
            pl.DataFrame(
                {
                    "constraint_name": block.names,
                    "limit_value": block.limit.astype(float),
                    "used_value": use + 0.0,
                    "shadow_price": duals + 0.0,
                    "is_binding": (tight & (np.abs(duals) > 1e-12)) | (relaxed > 0),
                    "relaxation_needed": relaxed + 0.0,
                    "relaxation_alone": [solution.alone.get(name) for name in block.names],
                    "unit": [block.unit] * len(block.names),
                    "is_relaxable": [block.weight != HARD] * len(block.names),
                },
                schema_overrides={"relaxation_alone": pl.Float64},
            )
        )
    frame = pl.concat(parts).with_columns(as_of_date=pl.lit(day), plan_id=pl.lit(plan_id(day)))
    return frame.select(pl.col(name).cast(kind) for name, kind in polars_schema("ad_plan_constraints").items()).sort(
        "constraint_name"
    )


def scenario_rows(day: date, model: Model, solution: Solution, store: Store) -> pl.DataFrame:
    """ad_plan_scenarios rows: the best plan at each level of the budget (of the plan's spend where there is none), at none of it and at
    all of it; nothing where no level is asked for."""
    cells, losses = model.cells, model.statement.losses
    schema = polars_schema("ad_plan_scenarios")
    if not store.ad_planning.scenario_levels:
        return pl.DataFrame(schema=schema)
    current = model.limits.budget
    base = current if current is not None else float(cells.cost @ solution.x)
    rows: list[dict[str, Any]] = []
    for level in sorted({0.0, 1.0, *store.ad_planning.scenario_levels}):
        budget = base * level
        if any(row["budget"] == budget for row in rows):
            continue
        if current is None:
            if level != 1.0:
                continue
            found, marginal = solution, 0.0
        else:
            found = model.at_budget(budget)
            marginal = model.marginal_value(found)
        conversions = float(cells.conversions @ found.x) - losses.lost(found.x, losses.conversions_lost)
        rows.append(
            {
                "as_of_date": day,
                "plan_id": plan_id(day),
                "budget": budget,
                "expected_conversions": max(conversions, 0.0),
                "expected_revenue": found.objective,
                "marginal_revenue": marginal,
                "is_current": level == 1.0,
            }
        )
    return pl.DataFrame(rows, schema=schema)


def _notes(model: Model, solution: Solution, x: Floats, cells: Cells) -> list[str]:
    """What a person should know of the plan, in words."""
    notes, given, most = [], [], model.limits.most_per_conversion
    signs = {"<=": "+", ">=": "-"}
    for block, amounts in zip(model.statement.blocks, solution.relaxed, strict=True):
        for name, amount in zip(block.names, amounts, strict=True):
            if amount > 0 and block.kind == "target_conversions" and most is not None:
                notes.append(f"{amount:.2f} conversions of the target are not sought: one more would cost over {most} of value, or cannot be had")
            elif amount > 0:
                given.append(f"{name} {signs[block.sense]}{amount:.2f}")
    if given:
        sense = {name: signs[block.sense] for block in model.statement.blocks for name in block.names}
        single = [f"{name} {sense[name]}{amount:.2f}" for name, amount in sorted(solution.alone.items()) if amount > 1e-9]
        notes.append(
            "no plan meets every limit; relaxed: "
            + ", ".join(given)
            + (". By itself would do: " + ", or ".join(single) if single else "")
        )
    if not np.array_equal(x, solution.x):
        losses = model.statement.losses
        whole, exact = (float(cells.value @ amount) - losses.lost(amount, losses.value_lost) for amount in (x, solution.x))
        notes.append(f"whole impressions change the value by {whole - exact:+.4f}")
    if cells.value.max(initial=0.0) <= 0:
        notes.append("no cell is worth anything")
    return notes


def _runs(
    day: date,
    *,
    status: str,
    note: str | None,
    objective: float | None = None,
    upper_bound: float | None = None,
    gap: float | None = None,
    solver: str = "none",
    probability: float | None = None,
    seconds: float = 0.0,
) -> pl.DataFrame:
    row: dict[str, Any] = {
        "as_of_date": day,
        "plan_id": plan_id(day),
        "status": status,
        "objective": objective,
        "upper_bound": upper_bound,
        "gap": gap,
        "solver": solver,
        "seconds": seconds,
        "probability_of_target": probability,
        "is_relaxed": status == "relaxed",
        "note": note,
    }
    return pl.DataFrame([row], schema=polars_schema("ad_plan_runs"))
