"""What the ads brought, how well the response rates were calibrated, and what the plan promised.

What belongs here: click and conversion rates, spend and return of impressions; predicted against observed clicks and
conversions; plan against outcome and pacing. What does not: what a conversion is (cleaning attributes it) and the value of
other plans (off_policy.py).

Figures belong to the day the impression was shown, whenever its click or conversion landed. Without an impression log the
same metrics come from platform reports, whose newest report of a day and campaign replaces earlier ones.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import polars as pl

from marketing_assets.config import Store
from marketing_assets.evaluation.queries import Tables, query
from marketing_assets.evaluation.windows import (
    CELL,
    DELAY_HISTORY_DAYS,
    Arrival,
    Ratio,
    arrival,
    changes,
    empty_report,
    expand,
    finish,
    report,
    same_weekday_totals,
    scored_windows,
    stack,
)
from marketing_assets.intervals import clustered
from marketing_assets.response.audience import entries_since, with_audience
from marketing_assets.warehouse import Reader, polars_schema

DIMENSIONS = ("event_date", "cluster", "audience", "placement", "category", "device", "campaign", "policy", "is_planned")
SEGMENTS = {"audience": "audience", "placement": "placement", "category": "category", "device": "device", "campaign": "campaign"}
SHOWN = (
    "impressions",
    "clicks",
    "spend",
    "predicted_clicks",
    "scored_clicks",
    "log_loss",
    "scored_impressions",
    "predicted_conversions",
)
CONVERTED = ("conversions", "ad_revenue", "margin", "scored_conversions")
MEASURES = (*SHOWN, *CONVERTED)

PROMPT_METRICS = (
    Ratio("ctr", pl.col("clicks"), pl.col("impressions"), "rate"),
    Ratio("impressions", pl.col("impressions"), None, "total"),
    Ratio("spend", pl.col("spend"), None, "total"),
)
LATE_METRICS = (
    Ratio("cvr", pl.col("conversions"), pl.col("clicks"), "rate"),
    Ratio("ad_revenue", pl.col("ad_revenue"), None, "total"),
    Ratio("roas", pl.col("ad_revenue"), pl.col("spend"), "ratio"),
)
ROI = Ratio("roi", pl.col("margin") - pl.col("spend"), pl.col("spend"), "ratio")
CTR_CALIBRATION = Ratio("ctr_calibration_ratio", pl.col("predicted_clicks"), pl.col("scored_clicks"), "ratio")
CVR_CALIBRATION = Ratio("cvr_calibration_ratio", pl.col("predicted_conversions"), pl.col("scored_conversions"), "ratio")


def look_back(store: Store) -> int:
    """Days of impressions, conversions and response rates read before the first day of a window."""
    return DELAY_HISTORY_DAYS + store.maturity_days + 4


def read_increments(reader: Reader, start: date, first: date, end: date) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Increments (event_date is the day shown) landed in [start, end]: by user for days shown from `first` on, in total for
    those before, and the delays of conversions.

    Sums are made in the engine; only days whose windows may still be stated come back user by user.
    """
    anchor, since = reader.store.anchor.isoformat(), entries_since(reader, start)
    log = (since, anchor, start, end)
    rates_from = first - timedelta(days=1)
    rows = [shown_query(reader, rates_from, first, *log), converted_query(reader, rates_from, first, *log)]
    older = [shown_before_query(reader, first, *log), converted_before_query(reader, first, *log)]
    numbers = [name for name in MEASURES if name != "margin"]

    def together(frames: list[pl.DataFrame]) -> pl.DataFrame:
        filled = pl.concat(frames, how="diagonal").with_columns(
            pl.lit(None, pl.Float64).alias(name) for name in numbers if not any(name in frame.columns for frame in frames)
        )
        return add_margin(reader, filled.with_columns(pl.col(numbers).cast(pl.Float64).fill_null(0.0)), end)

    # users are grouped and sorted by their place in the order of ids, not by their ids
    users = pl.Enum(pl.concat([frame["cluster"] for frame in rows]).unique().sort())
    rows = [frame.with_columns(pl.col("cluster").cast(users)) for frame in rows]
    delays = pl.concat([frame.select("event_date", "landed_date", "conversions") for frame in (rows[1], older[1])])
    delays = delays.group_by("event_date", "landed_date").agg(rows=pl.col("conversions").sum())
    return together(rows), together(older), delays


_KEYS = ["event_date", "audience", "placement", "item_id", "device", "campaign", "policy", "is_planned"]


def _shown(table: Tables, since: date, anchor: str, start: date, end: date, credited: Any = None) -> Any:
    """Impressions landed in [start, end] with their audience, by the names of the segments; of conversions credited, theirs only.

    anchor: the day keyframes count from, as text: it need not be among the days a window may see.
    """
    import ibis

    entries = table("audiences")
    shown = table("clean_impressions")
    shown = shown.filter(shown.landed_date.between(start, end))
    if credited is not None:
        shown = shown.semi_join(credited, "impression_id")
    shown = shown.select(
        "impression_id", "landed_date", "impression_date", "user_id", "audience_id", "creative_id", "item_id", "placement_id", "hour",
        "is_clicked", device=shown.context.cast("json")["device"].str, campaign=shown.campaign_id, policy=shown.policy_id,
        cluster=ibis.coalesce(shown.user_id, shown.opportunity_id, shown.impression_id), is_planned=shown.plan_id.notnull(),
        cost=ibis.coalesce(shown.spend, 0).cast("float64"),
    )  # fmt: skip
    shown = with_audience(shown, entries.filter(entries.as_of_date.between(since, end)), date.fromisoformat(anchor))
    return shown.mutate(event_date=shown.impression_date, audience=shown.audience_id, placement=shown.placement_id)


def _scored(
    table: Tables, rates_from: date, first: date, since: date, anchor: str, start: date, end: date, credited: Any = None
) -> Any:
    """Impressions shown from `first` on with the rates issued for their cell the day before."""
    import ibis

    shown = _shown(table, since, anchor, start, end, credited)
    shown = shown.filter(shown.impression_date >= first)
    shown = shown.mutate(creative=ibis.coalesce(shown.creative_id, shown.item_id))
    rates = table("response_rates")
    rates = rates.filter(rates.as_of_date.between(rates_from, end)).select(
        "ctr", "cvr", rated_audience=rates.audience_id, rated_creative=rates.creative_id, rated_placement=rates.placement_id,
        rated_hour=rates.hour, plan_date=rates.as_of_date + ibis.interval(days=1),
    )  # fmt: skip
    joined = shown.left_join(
        rates,
        [
            shown.audience == rates.rated_audience,
            shown.creative == rates.rated_creative,
            shown.placement == rates.rated_placement,
            shown.hour == rates.rated_hour,
            shown.impression_date == rates.plan_date,
        ],
    )
    return joined.mutate(ctr=joined.ctr.clip(lower=1e-9, upper=1 - 1e-9))


@query
def shown_query(table: Tables, rates_from: date, first: date, since: date, anchor: str, start: date, end: date) -> Any:
    import ibis

    base = _scored(table, rates_from, first, since, anchor, start, end)
    one = ibis.ifelse(base.is_clicked, 1, 0)
    scored = base.ctr.notnull()
    return base.group_by(["landed_date", "cluster", *_KEYS]).agg(
        impressions=base.count(),
        clicks=one.sum(),
        spend=base.cost.sum(),
        predicted_clicks=base.ctr.sum(),
        scored_clicks=ibis.ifelse(scored, one, 0).sum(),
        log_loss=ibis.ifelse(base.is_clicked, -base.ctr.ln(), -(1 - base.ctr).ln()).sum(),
        scored_impressions=ibis.ifelse(scored, 1, 0).sum(),
        predicted_conversions=ibis.ifelse(base.is_clicked, base.cvr, 0).sum(),
    )


def _credited(table: Tables, start: date, end: date) -> Any:
    """Conversions and refunds credited in [start, end]; new: 1 for a conversion."""
    import ibis

    credited = table("attributed_conversions")
    return credited.filter(credited.landed_date.between(start, end)).select(
        "impression_id", "conversion_value", "landed_date", new=ibis.ifelse(credited.is_refunded, 0, 1)
    )


@query
def converted_query(table: Tables, rates_from: date, first: date, since: date, anchor: str, start: date, end: date) -> Any:
    import ibis

    credited = _credited(table, start, end)
    shown = _scored(table, rates_from, first, since, anchor, start, end, credited)
    paid = credited.inner_join(shown.drop("landed_date"), "impression_id")
    return paid.group_by(["landed_date", "cluster", *_KEYS]).agg(
        conversions=paid.new.sum(),
        ad_revenue=paid.conversion_value.sum().cast("float64"),
        scored_conversions=ibis.ifelse(paid.cvr.notnull(), paid.new, 0).sum(),
    )


@query
def shown_before_query(table: Tables, first: date, since: date, anchor: str, start: date, end: date) -> Any:
    import ibis

    base = _shown(table, since, anchor, start, end)
    base = base.filter(base.impression_date < first)
    return base.group_by(["landed_date", *_KEYS]).agg(
        impressions=base.count(), clicks=ibis.ifelse(base.is_clicked, 1, 0).sum(), spend=base.cost.sum()
    )


@query
def converted_before_query(table: Tables, first: date, since: date, anchor: str, start: date, end: date) -> Any:
    credited = _credited(table, start, end)
    shown = _shown(table, since, anchor, start, end, credited)
    paid = credited.inner_join(shown.filter(shown.impression_date < first).drop("landed_date"), "impression_id")
    return paid.group_by(["landed_date", *_KEYS]).agg(
        conversions=paid.new.sum(), ad_revenue=paid.conversion_value.sum().cast("float64")
    )


@query
def spent_query(table: Tables, first: date, start: date, end: date) -> Any:
    """Spend by user, day shown and day landed, in all and of what a plan bought."""
    import ibis

    shown = table("clean_impressions")
    shown = shown.filter(shown.landed_date.between(start, end), shown.impression_date >= first)
    cost, planned = ibis.coalesce(shown.spend, 0).cast("float64"), shown.plan_id.notnull()
    cluster = ibis.coalesce(shown.user_id, shown.opportunity_id, shown.impression_id)
    return shown.group_by("landed_date", event_date=shown.impression_date, cluster=cluster).agg(
        impressions=shown.count(), planned_impressions=planned.sum(),
        spend=cost.sum(), planned_spend=ibis.ifelse(planned, cost, 0.0).sum(),
    )  # fmt: skip


@query
def items_query(table: Tables, start: date, end: date) -> Any:
    items = table("items")
    return items.filter(items.as_of_date.between(start, end)).select(
        "as_of_date", "item_id", "category", "unit_price", "unit_cost"
    )


def add_margin(reader: Reader, rows: pl.DataFrame, end: date) -> pl.DataFrame:
    """Add category and margin: ad revenue times 1 - unit_cost / unit_price of the item advertised, null where unknown."""
    if rows.height == 0:
        return rows.with_columns(category=pl.lit(None, pl.String), margin=pl.lit(0.0))
    first = reader.keyframe_before(max(rows["landed_date"].min(), reader.store.first_day))  # type: ignore[type-var, arg-type]
    known = items_query(reader, first, end)
    known = known.select(
        "as_of_date",
        "item_id",
        "category",
        share=pl.when(pl.col("unit_price") > 0).then(1 - pl.col("unit_cost") / pl.col("unit_price")),
    )
    joined = rows.sort("landed_date").join_asof(
        known.sort("as_of_date", "item_id"), left_on="landed_date", right_on="as_of_date", by="item_id", check_sortedness=False
    )
    return joined.with_columns(
        margin=pl.when(pl.col("ad_revenue") == 0).then(0.0).otherwise(pl.col("ad_revenue") * pl.col("share"))
    ).drop("as_of_date", "share", strict=False)


def report_increments(reader: Reader, start: date, end: date) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The same from platform reports: a campaign and day is a cluster, a newer report replaces the older."""
    reports = reader.accepted("ad_reports", start, end)
    entity = ["date", "campaign_id", "creative_id", "placement_id", "hour", "audience_id"]
    by_key = reports.group_by(*entity, "landed_date").agg(
        pl.col("impressions", "clicks", "conversions").sum().cast(pl.Float64),
        pl.col("spend", "conversion_value").sum().cast(pl.Float64),
    )
    dimensioned = by_key.with_columns(
        event_date="date",
        cluster=pl.format("{} {}", "campaign_id", "date"),
        audience="audience_id",
        placement="placement_id",
        category=pl.lit(None, pl.String),
        device=pl.lit(None, pl.String),
        campaign="campaign_id",
        policy=pl.lit(None, pl.String),
        is_planned=pl.lit(False),
        ad_revenue="conversion_value",
        margin=pl.lit(None, pl.Float64),
        **{name: pl.lit(0.0) for name in (*SHOWN[3:], "scored_conversions")},
    )
    rows = changes(dimensioned, entity, DIMENSIONS, MEASURES)
    delays = by_key.group_by(event_date="date", landed_date="landed_date").agg(rows=pl.len())
    return rows, delays


def score_ads(reader: Reader, days: Sequence[date], store: Store, _seen: Arrival) -> pl.DataFrame:
    """Report rows of the concepts 'ads' and 'plan'; empty where the shop has neither an ad log nor reports.

    Impressions and conversions have delays of their own, so those of events do not matter here.
    """
    start = days[0] - timedelta(days=look_back(store))
    first = days[0] - timedelta(days=store.maturity_days)
    has_log = reader.has_source("impressions")
    if not has_log and not reader.has_source("ad_reports"):
        return empty_report()
    if has_log:
        rows, older, delays = read_increments(reader, start, first, days[-1])
    else:
        rows, delays = report_increments(reader, start, days[-1])
        older = rows.clear().drop("cluster")
    late = arrival(delays, days, store, is_cold_start_mature=False)
    landing = pl.concat([frame.select("event_date", "landed_date", "impressions") for frame in (rows, older)])
    landing = landing.filter(pl.col("impressions") > 0).group_by("event_date", "landed_date").agg(rows=pl.col("impressions").sum())
    prompt_windows = scored_windows(days, [1], arrival(landing, days, store, is_cold_start_mature=True), store.first_day)
    late_windows = scored_windows(days, [1], late, store.first_day)
    measures = [*MEASURES, "unknown_margin"]
    rows, older = (_with_unknown_margin(frame) for frame in (rows, older))
    stacked = stack(rows, SEGMENTS, measures, "policy")
    before = stack(older.with_columns(cluster=pl.lit("")), SEGMENTS, measures, "policy")
    in_total = pl.concat([part.drop("cluster") for part in (stacked, before)])
    frames = []
    for windows, metrics in ((prompt_windows, PROMPT_METRICS), (late_windows, LATE_METRICS)):
        cells = expand(stacked, windows, measures)
        baselines = same_weekday_totals(in_total, windows, measures)
        frames.append(report("ads", metrics, cells, windows, store, baselines))
        if metrics is LATE_METRICS:
            # where an item's cost is unknown its revenue earns the margin of the cell's other revenue
            known = pl.col("ad_revenue") - pl.col("unknown_margin")
            pooled = pl.when(known.sum().over(CELL) != 0).then(pl.col("margin").sum().over(CELL) / known.sum().over(CELL))
            filled = cells.with_columns(margin=pl.col("margin") + pl.col("unknown_margin") * pooled).drop_nulls("margin")
            frames.append(report("ads", [ROI], filled, windows, store))
        if has_log:
            frames.append(score_calibration(cells, windows, store, is_late=metrics is LATE_METRICS))
    if has_log:
        frames.append(score_plan(reader, rows, days, store, prompt_windows, late_windows))
    return pl.concat(frames)


def _with_unknown_margin(rows: pl.DataFrame) -> pl.DataFrame:
    """Revenue whose margin is not known, in a column of its own."""
    unknown = pl.when(pl.col("margin").is_null()).then("ad_revenue").otherwise(0.0)
    return rows.with_columns(pl.col("margin").fill_null(0.0), unknown_margin=unknown)


def score_calibration(cells: pl.DataFrame, windows: pl.DataFrame, store: Store, *, is_late: bool) -> pl.DataFrame:
    """Predicted over observed positives of impressions served in cells whose rate had been issued the day before."""
    kept = cells.filter(pl.col("segment_type").is_in(["all", "placement", "audience"]), pl.col("policy_id") == "all")
    kept = kept.filter(pl.col("scored_impressions").sum().over(CELL) > 0)
    if is_late:
        kept = kept.filter(pl.col("predicted_conversions").sum().over(CELL) > 0)
        return report("ads", [CVR_CALIBRATION], kept, windows, store).with_columns(
            baseline=pl.lit("calibrated"), baseline_value=pl.lit(1.0)
        )
    ratio = report("ads", [CTR_CALIBRATION], kept, windows, store).with_columns(
        baseline=pl.lit("calibrated"), baseline_value=pl.lit(1.0)
    )
    loss = Ratio("click_log_loss", pl.col("log_loss"), pl.col("scored_impressions"), "ratio")
    observed = pl.col("numerator") / pl.col("denominator")
    entropy = -(observed * observed.log() + (1 - observed) * (1 - observed).log())
    rate = clustered(
        kept.select(*CELL, "cluster", num="scored_clicks", den="scored_impressions"),
        CELL,
        "rate",
        level=store.evaluation.interval,
    ).select(*CELL, entropy=pl.when((observed > 0) & (observed < 1)).then(entropy).otherwise(0.0))
    losses = (
        report("ads", [loss], kept, windows, store)
        .join(rate, on=CELL, how="left")
        .with_columns(baseline=pl.lit("constant_rate"), baseline_value="entropy")
        .drop("entropy")
    )
    return pl.concat([ratio, losses])


@query
def exports_query(table: Tables, name: str, start: date, end: date) -> Any:
    import ibis

    text = dict.fromkeys(("export_id", "table_name", "decision"), "string")
    # written by `marketing export`, no asset
    exports = ibis.table({**text, "partition_date": "date", "exported_at": "timestamp"}, name="exported_decisions")
    return exports.filter(exports.table_name == name, exports.partition_date.between(start, end))


def exported_or_issued(reader: Reader, name: str, start: date, end: date) -> pl.DataFrame:
    """A decision table's rows; of days whose decision was exported, the newest exported version.

    An export's decision is its rows as a JSON list of objects.
    """
    frame = reader.window(name, start, end)
    kept = exports_query(reader, name, start, end)
    if kept.height == 0:
        return frame
    newest = kept.sort("partition_date", "exported_at", "export_id").unique("partition_date", keep="last", maintain_order=True)
    schema: dict[str, Any] = polars_schema(name)
    parts = [frame.filter(~pl.col("as_of_date").is_in(newest["partition_date"].implode()))]
    for text in newest["decision"]:
        rows = pl.DataFrame(json.loads(text), infer_schema_length=None)
        parts.append(
            rows.select(
                [
                    (pl.col(column) if column in rows.columns else pl.lit(None)).cast(pl.String).str.to_date().alias(column)
                    if kind == pl.Date
                    else (pl.col(column) if column in rows.columns else pl.lit(None)).cast(kind).alias(column)
                    for column, kind in schema.items()
                ]
            )
        )
    return pl.concat(parts)


PROMISES = {
    "impressions": ("impressions_delivery_ratio", "planned_impressions"),
    "spend": ("spend_delivery_ratio", "planned_spend"),
    "clicks": ("clicks_promise_ratio", "expected_clicks"),
    "conversions": ("conversions_promise_ratio", "expected_conversions"),
    "ad_revenue": ("revenue_promise_ratio", "expected_revenue"),
}


def score_plan(
    reader: Reader, rows: pl.DataFrame, days: Sequence[date], store: Store, prompt: pl.DataFrame, late: pl.DataFrame
) -> pl.DataFrame:
    """Outcome over promise of the plan for each day, and pacing: month's spend to date over planned to date.

    1 means the promise was kept. Where impressions carry a plan_id, only those count; else all of the day.
    """
    start = days[0] - timedelta(days=store.maturity_days + 33)
    plan = exported_or_issued(reader, "ad_plan", start, days[-1] - timedelta(days=1))
    if plan.height == 0:
        return empty_report()
    promises = [promise for _, promise in PROMISES.values()]
    planned = plan.select(
        "as_of_date",
        "plan_date",
        audience="audience_id",
        placement="placement_id",
        campaign="campaign_id",
        **{name: pl.col(name) for name in promises},
    )
    keyed = planned.with_columns(
        event_date="plan_date", landed_date="as_of_date", cluster=pl.lit("plan"), policy=pl.lit(None, pl.String)
    )
    segments = {"audience": "audience", "placement": "placement", "campaign": "campaign"}
    promised = stack(keyed, segments, promises)
    names = tuple(PROMISES)
    split = rows.with_columns(pl.when("is_planned").then(name).otherwise(0.0).alias(f"planned_{name}") for name in names)
    both = [*names, *(f"planned_{name}" for name in names)]
    outcome = stack(split, segments, both)
    frames = []
    for windows, chosen in ((prompt, names[:3]), (late, names[3:])):
        totals = expand(promised, windows, promises, by_cluster=False)
        cells = only_planned(expand(outcome, windows, both), names)
        for name in chosen:
            metric, promise = PROMISES[name]
            actual = clustered(
                cells.select(*CELL, "cluster", num=name, den=pl.lit(0.0)), CELL, "total", level=store.evaluation.interval
            )
            ratio = (
                totals.filter(pl.col(promise) > 0)
                .select(*CELL, promised=promise)
                .join(actual, on=CELL, how="left")
                .with_columns(pl.col("numerator").fill_null(0.0), pl.col("n").fill_null(0))
            )
            frames.append(
                finish(
                    ratio.with_columns(
                        denominator="promised",
                        value=pl.col("numerator") / pl.col("promised"),
                        ci_low=pl.col("ci_low") / pl.col("promised"),
                        ci_high=pl.col("ci_high") / pl.col("promised"),
                        concept=pl.lit("plan"),
                        metric=pl.lit(metric),
                        baseline=pl.lit("promise_kept"),
                        baseline_value=pl.lit(1.0),
                    ),
                    windows,
                )
            )
    month = days[0].replace(day=1)
    spent = spent_query(reader, month, month - timedelta(days=1), days[-1]).with_columns(
        segment_type=pl.lit("all"), segment=pl.lit("all"), policy_id=pl.lit("all")
    )
    frames.append(score_pacing(promised, spent, prompt, store))
    return pl.concat(frames)


def only_planned(cells: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """What was served under a plan, or everything in windows where nothing carries a plan_id."""
    has_plan = pl.col("planned_impressions").sum().over("as_of_date", "outcome_date", "horizon_days") > 0
    return cells.with_columns(pl.when(has_plan).then(f"planned_{name}").otherwise(name).alias(name) for name in names)


def score_pacing(promised: pl.DataFrame, spent: pl.DataFrame, windows: pl.DataFrame, store: Store) -> pl.DataFrame:
    """Spend to date over planned spend to date of the calendar month, over the days that had a plan."""
    month = (
        windows.filter(pl.col("outcome_date") == pl.col("as_of_date"))
        .with_columns(
            start_date=pl.col("outcome_date").dt.month_start(), horizon_days=pl.col("outcome_date").dt.day().cast(pl.Int64)
        )
        .with_columns(issued_date=pl.col("start_date").dt.offset_by("-1d"))
    )
    whole = promised.filter(pl.col("segment_type") == "all")
    days_with_plan = whole["event_date"].unique().implode()
    plan = expand(whole, month, ["planned_spend"], by_cluster=False)
    measures = ["impressions", "planned_impressions", "spend", "planned_spend"]
    served = spent.filter(pl.col("event_date").is_in(days_with_plan))
    cells = only_planned(expand(served, month, measures), ["spend"])
    actual = clustered(
        cells.select(*CELL, "cluster", num="spend", den=pl.lit(0.0)), CELL, "total", level=store.evaluation.interval
    )
    ratio = (
        plan.filter(pl.col("planned_spend") > 0)
        .join(actual, on=CELL, how="left")
        .with_columns(pl.col("numerator").fill_null(0.0), pl.col("n").fill_null(0))
    )
    return finish(
        ratio.with_columns(
            denominator="planned_spend",
            value=pl.col("numerator") / pl.col("planned_spend"),
            ci_low=pl.lit(None, pl.Float64),
            ci_high=pl.lit(None, pl.Float64),
            concept=pl.lit("plan"),
            metric=pl.lit("pacing_ratio"),
            baseline=pl.lit("promise_kept"),
            baseline_value=pl.lit(1.0),
        ),
        month,
    )
