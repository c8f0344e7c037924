"""What the system would have planned on past days, against what was done and against simple rules, as a regret curve.

What belongs here: the rules, valuing them day by day, and the curve with its file and page. What does not: the estimators
(off_policy.py), turning a plan and a log into their inputs (evaluation/what_if.py), and the plans (they were issued by the
days themselves; a range that was built is its own backtest).

Every policy spends what that day's plan would have spent. Two values stand beside each other and are labelled as what they are:

* model: impressions times the response rates as issued the evening before. It speaks of every policy, but it is the plan's own
  opinion: a plan that picks the highest rates picks their errors too, so its model value flatters it.
* doubly_robust: from the impressions logged on the day itself and what became of them, weighted by the logged propensities.
  It is what really happened, as far as the log tried what the policy wanted (unsupported_share, effective_sample_size).
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from marketing_assets.config import Store
from marketing_assets.evaluation.ads import exported_or_issued
from marketing_assets.evaluation.what_if import CELL, read_log, weighted_log
from marketing_assets.evaluation.windows import frame_of
from marketing_assets.off_policy import DoublyRobust, Log, effective_sample_size, evaluate
from marketing_assets.response.audience import entries_since, with_audience
from marketing_assets.warehouse import MissingPartitions, Reader, Warehouse, replace_file

PAST_DAYS = 28
PRIOR_IMPRESSIONS = 2000.0
"""Impressions by which a creative's past results are shrunk to those of all."""
DONE, PLAN = "what_was_done", "system_plan"
RULES = ("uniform", "proportional_to_past", "greedy_on_past")
POLICIES = (DONE, PLAN, *RULES)
OUTCOMES = ("clicks", "revenue")
KEY = ["audience_id", "placement_id", "hour", "creative_id"]
GROUP = KEY[:3]

Tell = Callable[[str], None]

REPLAY_REPORT = pl.Schema(
    {
        "date": pl.Date,
        "policy_id": pl.String,
        "outcome": pl.String,
        "estimator": pl.String,
        "value": pl.Float64,
        "cumulative_value": pl.Float64,
        "regret": pl.Float64,
        "cumulative_low": pl.Float64,
        "cumulative_high": pl.Float64,
        "planned_spend": pl.Float64,
        "effective_sample_size": pl.Float64,
        "unsupported_share": pl.Float64,
        "n": pl.Int64,
    }
)
"""One row per day, policy, outcome and estimator. regret: what the best simple rule (chosen once for the whole range, in
hindsight) had brought by then, less this policy. cumulative_low, cumulative_high: interval of the sum over the range, on its last
day, clustered by user; null for model values, which have none that could be trusted."""


@dataclass(frozen=True)
class Valued:
    """A policy's value on one day. log: the day's log as the policy sees it, scaled so that the mean of its rows is the value."""

    day: date
    policy: str
    outcome: str
    estimator: str
    value: float
    spend: float
    unsupported: float = 0.0
    log: Log | None = None


def replay_range(warehouse: Warehouse, start: date, end: date, tell: Tell = print) -> pl.DataFrame:
    """Replay the plans for the days start...end and write replay_report.parquet and replay_report.html beside store.yaml.

    Returns the report's rows. Raises MissingPartitions where a day of the range was never built.
    """
    store = warehouse.store
    if end < start:
        raise MissingPartitions(f"replay: the range {start}...{end} ends before it begins")
    closed = max((day for table, day in warehouse.ledger if table == "attributed_conversions"), default=None)
    first = store.first_day + timedelta(days=1)
    if start < first or closed is None or end > closed:
        raise MissingPartitions(
            f"replay {start}...{end}: plans are issued the evening before, so days {first}...{closed} can be replayed; build the others first"
        )
    reader = warehouse.reader(closed)
    report = replay(reader, start, end, closed, store)
    folder = store.folder / "replay" / f"{start}_{end}"
    folder.mkdir(parents=True, exist_ok=True)
    _write_parquet(folder / "replay_report.parquet", report)
    replace_file(folder / "replay_report.html", as_page(report, store))
    for line in as_lines(report, store):
        tell(line)
    tell(f"written: {folder / 'replay_report.html'}, replay_report.parquet")
    return report


def _write_parquet(path: Path, frame: pl.DataFrame) -> None:
    started = path.with_suffix(".part")
    frame.write_parquet(started)
    started.replace(path)


def replay(reader: Reader, start: date, end: date, known: date, store: Store) -> pl.DataFrame:
    """Rows of the report. known: outcomes landed by this day count."""
    plans = exported_or_issued(reader, "ad_plan", start - timedelta(days=1), end - timedelta(days=1))
    log = read_log(reader, start - timedelta(days=PAST_DAYS + 1), known)
    costs = _spend(reader, start, end)
    days = [start + timedelta(days=number) for number in range((end - start).days + 1)]
    valued: list[Valued] = []
    for day in days:
        evening = day - timedelta(days=1)
        rates = reader.window("response_rates", evening, evening)
        shown = log.filter(pl.col("impression_date") == day)
        policies = policies_on(day, rates, plans.filter(pl.col("as_of_date") == evening), log, _done(reader, day), costs.get(day, 0.0))
        for name, frame in policies.items():
            valued += value_by_model(day, name, frame, rates)
            valued += value_by_log(day, name, frame, shown, known)
    return curve(valued, store)


def _spend(reader: Reader, start: date, end: date) -> dict[date, float]:
    rows = reader.connection.execute(
        "SELECT impression_date, sum(spend)::DOUBLE FROM clean_impressions WHERE impression_date BETWEEN ? AND ? AND landed_date <= ? GROUP BY ALL",
        [start, end, reader.last_day],
    ).fetchall()
    return {day: spend or 0.0 for day, spend in rows}


def _done(reader: Reader, day: date) -> pl.DataFrame:
    """What was served on a day, in the shape of a plan."""
    import ibis

    shown = reader.table("clean_impressions")
    entries = reader.table("audiences").filter(lambda log: log.as_of_date >= entries_since(reader, day))
    shown = with_audience(shown.filter(shown.impression_date == day), entries, reader.store.anchor)
    served = shown.group_by("audience_id", "placement_id", "hour", creative_id=ibis.coalesce(shown.creative_id, shown.item_id)).agg(
        planned_impressions=shown.count().cast("float64"), planned_spend=ibis.coalesce(shown.spend.sum(), 0).cast("float64")
    )
    return frame_of(served).sort(KEY)


# --- the rules --------------------------------------------------------------------------------------------------------


def policies_on(
    day: date, rates: pl.DataFrame, plan: pl.DataFrame, log: pl.DataFrame, done: pl.DataFrame, spent: float
) -> dict[str, pl.DataFrame]:
    """Each policy's day: KEY, planned_impressions, planned_spend. Rules know what the evening before knew.

    Their budget is the plan's spend, or what was spent where there was no plan.
    """
    columns = [*KEY, "planned_impressions", "planned_spend"]
    policies = {DONE: done.select(columns)} if done.height else {}
    budget = spent
    if plan.height:
        policies[PLAN] = plan.select(columns)
        budget = float(plan["planned_spend"].sum())
    cells = rates.filter(pl.col("available_impressions") > 0).select(*KEY, "available_impressions", "cost_per_impression").sort(KEY)
    if cells.is_empty() or budget <= 0:
        return policies
    past = past_results(log, day)
    cells = cells.join(past, on=["placement_id", "creative_id"], how="left", maintain_order="left").with_columns(
        pl.col("result").fill_null(past["result"].mean() if past.height else 0.0)
    )
    equal = cells.with_columns(share=1 / pl.len().over(GROUP))
    policies["uniform"] = _spend_evenly(equal, budget).select(columns)
    total = pl.col("result").sum().over(GROUP)
    likely = cells.with_columns(share=pl.when(total > 0).then(pl.col("result") / total).otherwise(1 / pl.len().over(GROUP)))
    policies["proportional_to_past"] = _spend_evenly(likely, budget).select(columns)
    policies["greedy_on_past"] = _spend_greedily(cells, budget).select(columns)
    return policies


def past_results(log: pl.DataFrame, day: date) -> pl.DataFrame:
    """Revenue per impression by placement and creative over the PAST_DAYS before, as known the evening before, shrunk to that of all."""
    evening = day - timedelta(days=1)
    window = log.filter(pl.col("landed_date") <= evening, pl.col("impression_date") > evening - timedelta(days=PAST_DAYS))
    credited = pl.when(pl.col("credited_date") <= evening).then(pl.col("revenue")).otherwise(0.0)
    sums = window.group_by("placement_id", "creative_id").agg(shown=pl.col("impression").n_unique(), revenue=credited.sum())
    overall = float(sums["revenue"].sum()) / max(float(sums["shown"].sum()), 1.0)
    return sums.select(
        pl.col("placement_id", "creative_id").cast(pl.String),
        result=(pl.col("revenue").clip(0) + PRIOR_IMPRESSIONS * overall) / (pl.col("shown") + PRIOR_IMPRESSIONS),
    ).sort("placement_id", "creative_id")  # fmt: skip


def _spend_evenly(cells: pl.DataFrame, budget: float) -> pl.DataFrame:
    """Every group gets the same part of its offer, its creatives as `share` says, within the budget."""
    offered = cells.with_columns(planned_impressions=pl.col("available_impressions") * pl.col("share"))
    cost = float((offered["planned_impressions"] * offered["cost_per_impression"]).sum())
    part = min(1.0, budget / cost) if cost > 0 else 1.0
    return offered.with_columns(pl.col("planned_impressions") * part).with_columns(
        planned_spend=pl.col("planned_impressions") * pl.col("cost_per_impression")
    )


def _spend_greedily(cells: pl.DataFrame, budget: float) -> pl.DataFrame:
    """The creative with the best results takes its whole group; groups by result for money until the budget is gone."""
    best = cells.sort("result", "creative_id", descending=[True, False]).unique(GROUP, keep="first", maintain_order=True)
    ranked = best.with_columns(worth=pl.col("result") / pl.col("cost_per_impression").clip(1e-9)).sort("worth", *KEY, descending=[True, *[False] * 4])
    cost = ranked["available_impressions"] * ranked["cost_per_impression"]
    left = (budget - (cost.cum_sum() - cost)).clip(0.0)
    part = pl.select(pl.when(cost > 0).then(pl.min_horizontal(left / cost, pl.lit(1.0))).otherwise(1.0)).to_series()
    return (
        ranked.with_columns(planned_impressions=ranked["available_impressions"] * part)
        .filter(pl.col("planned_impressions") > 0)
        .with_columns(planned_spend=pl.col("planned_impressions") * pl.col("cost_per_impression"))
    )


# --- values -----------------------------------------------------------------------------------------------------------


def value_by_model(day: date, policy: str, frame: pl.DataFrame, rates: pl.DataFrame) -> list[Valued]:
    """By the rates issued the evening before; cells without a rate count nothing."""
    joined = frame.join(rates.select(*KEY, "ctr", "cvr", "value_per_conversion"), on=KEY, how="left")
    clicks = (joined["planned_impressions"] * joined["ctr"]).fill_null(0.0)
    revenue = (clicks * joined["cvr"] * joined["value_per_conversion"]).fill_null(0.0)
    unknown = float(joined.filter(pl.col("ctr").is_null())["planned_impressions"].sum()) / max(float(joined["planned_impressions"].sum()), 1e-9)
    spend = float(frame["planned_spend"].sum())
    return [
        Valued(day, policy, outcome, "model", float(values.sum()), spend, unknown)
        for outcome, values in (("clicks", clicks), ("revenue", revenue))
    ]


def value_by_log(day: date, policy: str, frame: pl.DataFrame, shown: pl.DataFrame, known: date) -> list[Valued]:
    """By what became of the day's own impressions; what was done is simply counted."""
    if shown.is_empty() or frame.is_empty():
        return []
    rows = (
        shown.with_columns(pl.when(pl.col("credited_date") <= known).then("revenue").otherwise(0.0).alias("revenue"))
        .group_by("impression", maintain_order=True)
        .agg(
            pl.col("cluster", "fold", "pair", *CELL, "creative_id", "logging_propensity", "is_clicked").first(), pl.col("revenue").sum()
        )
    )
    spend, planned = float(frame["planned_spend"].sum()), float(frame["planned_impressions"].sum())
    result = []
    for outcome in OUTCOMES:
        reward = rows["is_clicked"].cast(pl.Float64) if outcome == "clicks" else rows["revenue"].cast(pl.Float64).fill_null(0.0)
        if policy == DONE:
            ones = np.ones(rows.height)
            nothing = np.zeros(rows.height)
            user = rows["cluster"].rank("dense").cast(pl.Int64).to_numpy()
            log = Log(reward.to_numpy().astype(float), ones, ones, nothing, nothing, user)
            unsupported = 0.0
        else:
            log, unsupported = weighted_log(rows.with_columns(reward=reward), frame)
        scaled = _scaled(log, planned)
        num, _ = DoublyRobust().terms(scaled)
        result.append(Valued(day, policy, outcome, "doubly_robust", float(num.sum()) / rows.height, spend, unsupported, scaled))
    return result


def _scaled(log: Log, factor: float) -> Log:
    """The same log, its mean estimate multiplied."""
    assert log.q_target is not None
    return replace(log, target_propensity=log.target_propensity * factor, q_target=log.q_target * factor)


def _joined(logs: Sequence[Log]) -> Log:
    """Days of one policy as one log whose mean is the mean over its rows of what each day's mean should add: the sum over days."""
    rows = sum(len(log.reward) for log in logs)
    parts = [_scaled(log, rows / len(log.reward)) for log in logs]

    def together(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])

    columns = {name: together(name) for name in ("reward", "logging_propensity", "target_propensity", "q_logged", "q_target")}

    # a user's rows of different days are numbered anew by day: days are independent given their rates
    offsets = np.cumsum([0, *(int(part.cluster.max()) + 1 for part in parts if part.cluster is not None)])[: len(parts)]
    cluster = np.concatenate([part.cluster + offset for part, offset in zip(parts, offsets, strict=True) if part.cluster is not None])
    return Log(**columns, cluster=cluster)


def curve(valued: Sequence[Valued], store: Store) -> pl.DataFrame:
    """Rows of the report: running sums, regret against the best simple rule of the range, and the interval of the whole sum."""
    rows: list[dict[str, Any]] = []
    series: dict[tuple[str, str, str], list[Valued]] = {}
    for one in valued:
        series.setdefault((one.outcome, one.estimator, one.policy), []).append(one)
    for (outcome, estimator, policy), days in sorted(series.items()):
        running, interval, size = 0.0, (None, None), None
        logs = [one.log for one in days if one.log is not None]
        if logs:
            whole = _joined(logs)
            settings = store.evaluation
            found = evaluate(
                whole, [DoublyRobust()], level=settings.interval, replicates=settings.bootstrap_replicates, seed=store.seed
            )[0]
            size = effective_sample_size(whole)
            if np.isfinite(found.ci_low):
                interval = (found.ci_low, found.ci_high)  # type: ignore[assignment]
        for one in days:
            running += one.value
            is_last = one is days[-1]
            rows.append({
                "date": one.day, "policy_id": policy, "outcome": outcome, "estimator": estimator, "value": one.value,
                "cumulative_value": running, "regret": None, "cumulative_low": interval[0] if is_last else None,
                "cumulative_high": interval[1] if is_last else None, "planned_spend": one.spend,
                "effective_sample_size": size if is_last else None, "unsupported_share": one.unsupported,
                "n": 0 if one.log is None else len(one.log.reward),
            })  # fmt: skip
    report = pl.DataFrame(rows, schema=REPLAY_REPORT)
    return _with_regret(report).sort("outcome", "estimator", "policy_id", "date")


def _with_regret(report: pl.DataFrame) -> pl.DataFrame:
    keys = ["outcome", "estimator"]
    last = report.filter(pl.col("policy_id").is_in(RULES)).sort("date").group_by(*keys, "policy_id", maintain_order=True).last()
    best = last.sort("cumulative_value", "policy_id", descending=[True, False]).unique(keys, keep="first", maintain_order=True)
    reference = report.join(best.select(*keys, "policy_id"), on=[*keys, "policy_id"]).select(*keys, "date", reference="cumulative_value")
    joined = report.drop("regret").join(reference, on=[*keys, "date"], how="left")
    return joined.with_columns(regret=pl.col("reference") - pl.col("cumulative_value")).select(list(REPLAY_REPORT))


# --- words and page ---------------------------------------------------------------------------------------------------

LABELS: Mapping[str, str] = {
    "model": "by the rates issued the evening before: the plan's own opinion, which flatters the plan",
    "doubly_robust": "by what became of the impressions logged on those days, as far as the log tried what the policy wanted",
}


def _ends(report: pl.DataFrame) -> pl.DataFrame:
    spent = report.group_by("outcome", "estimator", "policy_id").agg(
        spend=pl.col("planned_spend").sum(), unsupported=pl.col("unsupported_share").mean(), days=pl.len()
    )
    last = report.sort("date").group_by("outcome", "estimator", "policy_id", maintain_order=True).last()
    return last.join(spent, on=["outcome", "estimator", "policy_id"]).sort("outcome", "estimator", "policy_id")


def as_lines(report: pl.DataFrame, store: Store) -> list[str]:
    """The end of each curve as text."""
    lines = []
    for (outcome, estimator), part in sorted(_ends(report).group_by("outcome", "estimator")):
        lines.append(f"{outcome}, {estimator} ({LABELS[str(estimator)]}):")
        for row in part.sort("policy_id").iter_rows(named=True):
            interval = "" if row["cumulative_low"] is None else f" ({row['cumulative_low']:,.1f} to {row['cumulative_high']:,.1f})"
            lines.append(
                f"  {row['policy_id']:22} {row['cumulative_value']:>12,.1f}{interval}  regret {row['regret'] or 0.0:+,.1f}  "
                f"spend {row['spend']:,.0f} {store.currency}  not in the log {row['unsupported']:.0%}"
            )
    return lines or ["nothing was shown or planned in that range"]


_COLOURS = dict(zip(POLICIES, ("#555555", "#0b6e4f", "#c05621", "#6b46c1", "#2b6cb0"), strict=True))


def as_page(report: pl.DataFrame, store: Store) -> str:
    """The regret curves as a page that needs nothing else."""
    parts = []
    for (outcome, estimator), part in sorted(report.group_by("outcome", "estimator")):
        parts.append(f"<h2>{html.escape(str(outcome))}, {html.escape(str(estimator))}</h2>")
        parts.append(f"<p>{html.escape(LABELS[str(estimator)])}</p>")
        parts.append(_drawing(part))
    text = "\n".join(html.escape(line) for line in as_lines(report, store))
    dates = report["date"].unique().sort().to_list()
    days = f"{dates[0]} to {dates[-1]}" if dates else "no day"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Replay</title><style>body{font:15px/1.5 system-ui,sans-serif;'
        "max-width:62rem;margin:2rem auto;padding:0 1rem}svg{max-width:100%;height:auto}pre{overflow-x:auto}</style></head><body>"
        f"<h1>{html.escape(store.name)}: replay of {days}</h1><p>Regret against the best simple rule of the range, chosen in hindsight; "
        f"below zero is better than every one of them.</p>{''.join(parts)}<pre>{text}</pre></body></html>\n"
    )


def _drawing(part: pl.DataFrame) -> str:
    width, height, left, bottom = 760, 280, 70, 30
    dates: list[date] = part["date"].unique().sort().to_list()
    first, last = dates[0], dates[-1]
    low, high = min(0.0, float(part["regret"].min() or 0.0)), max(0.0, float(part["regret"].max() or 0.0))  # type: ignore[arg-type]
    span, reach = max((last - first).days, 1), max(high - low, 1e-9)

    def place(day: date, value: float) -> tuple[float, float]:
        return left + (day - first).days / span * (width - left - 10), 10 + (high - value) / reach * (height - bottom - 20)

    zero = place(first, 0.0)[1]
    drawn = [f'<line x1="{left}" x2="{width - 10}" y1="{zero:.1f}" y2="{zero:.1f}" stroke="#bbb"/>']
    for level in sorted({low, 0.0, high}):
        y = place(first, level)[1]
        drawn.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end" font-size="11">{level:,.1f}</text>')
    for number, policy in enumerate(POLICIES):
        rows = part.filter(pl.col("policy_id") == policy, pl.col("regret").is_not_null()).sort("date")
        points = " ".join("{:.1f},{:.1f}".format(*place(day, value)) for day, value in rows.select("date", "regret").iter_rows())
        colour = _COLOURS[policy]
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"><title>{policy}</title></polyline>')
        drawn.append(f'<text x="{left + number * 140}" y="{height - 6}" font-size="12" fill="{colour}">{policy.replace("_", " ")}</text>')
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="regret by day and policy">{"".join(drawn)}</svg>'
