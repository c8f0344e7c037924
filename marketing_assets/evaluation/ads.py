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
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from marketing_assets.cleaning import of_told, tells_conversions, tells_values
from marketing_assets.config import Store
from marketing_assets.evaluation.ad_log import AdLog, enumerated
from marketing_assets.evaluation.queries import Tables, query
from marketing_assets.evaluation.windows import (
    CELL,
    DELAY_HISTORY_DAYS,
    Cells,
    Increments,
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
    together,
)
from marketing_assets.intervals import clustered_sums
from marketing_assets.warehouse import Reader, polars_schema

DIMENSIONS = ("event_date", "cluster", "audience", "placement", "category", "device", "campaign", "policy", "is_planned")
SEGMENTS = {"audience": "audience", "placement": "placement", "category": "category", "device": "device", "campaign": "campaign"}
CALIBRATED = ("all", "placement", "audience", "device")
"""Segments predictions are held against what came of them in. Rates know nothing of devices: there the ratio may be any, but not change."""
NAMED = ("audience", "placement", "item_id", "campaign", "device", "policy", "is_planned")
PROMPT = ("impressions", "clicks", "spend", "predicted_clicks", "scored_clicks", "log_loss", "scored_impressions")
CREDITED = ("conversions", "ad_revenue", "margin", "unknown_margin", "scored_conversions")
LATE = ("clicks", "spend", "predicted_conversions", *CREDITED)
"""Measures of figures that are whole once impressions landed, those of conversions, and those of figures that wait for them."""

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


@dataclass(frozen=True)
class LogIncrements:
    """What impressions and conversions added (event_date is the day shown): one row each, with category.

    shown: of the days asked for, with what was predicted. clicked and paid (conversions and refunds): of days from `first` on,
    with cvr. spent: spend of those days. before: impressions, clicks and spend of all days; paid_before: conversions of all.
    """

    first: date
    rates: pl.DataFrame
    items: pl.DataFrame
    log: AdLog

    @staticmethod
    def read(reader: Reader, log: AdLog, first: date, end: date) -> LogIncrements:
        """first: the oldest day whose figures may still be stated; only those are added up user by user."""
        rates = rates_query(reader, first - timedelta(days=1), end).with_columns(event_date=pl.col("as_of_date").dt.offset_by("1d"))
        return LogIncrements(first, rates.drop("as_of_date"), read_items(reader, log.shown, end), log)

    def rated(self, shown: pl.DataFrame) -> pl.DataFrame:
        """Add ctr and cvr issued for an impression's cell the evening before, null where there were none."""
        cell = ("audience", "creative", "placement")
        # cells of which nothing was shown have names the log does not know
        known = self.rates.with_columns(pl.col(name).cast(shown.schema[name], strict=False) for name in cell).drop_nulls(cell)
        joined = shown.join(known, on=[*cell, "hour", "event_date"], how="left", maintain_order="left")
        return joined.with_columns(ctr=pl.col("ctr").clip(1e-9, 1 - 1e-9))

    def shown(self, days: pl.Series) -> pl.DataFrame:
        """PROMPT measures of the impressions shown on `days`."""
        rows = self.rated(self.log.shown.filter(pl.col("event_date").is_in(days.implode())))
        ctr, one = pl.col("ctr"), pl.col("is_clicked").cast(pl.Float64)
        rows = rows.select(
            "landed_date", "event_date", "cluster", *NAMED,
            impressions=pl.lit(1.0), clicks=one, spend="cost", predicted_clicks=ctr.fill_null(0.0),
            scored_clicks=pl.when(ctr.is_not_null()).then(one).otherwise(0.0),
            log_loss=pl.when("is_clicked").then(-ctr.log()).otherwise(-(1 - ctr).log()).fill_null(0.0),
            scored_impressions=ctr.is_not_null().cast(pl.Float64),
        )  # fmt: skip
        return with_item(rows, self.items)

    def paid(self) -> pl.DataFrame:
        """CREDITED measures of every conversion and refund, on the day it landed."""
        rows = self.rated(self.log.shown.join(self.log.credited.select("impression").unique(), on="impression", how="semi"))
        new = pl.col("conversions").cast(pl.Float64)
        rows = self.log.credited.join(rows.drop("landed_date"), on="impression").select(
            "landed_date", "event_date", "cluster", *NAMED,
            conversions=new, ad_revenue="value", scored_conversions=pl.when(pl.col("cvr").is_not_null()).then(new).otherwise(0.0),
        )  # fmt: skip
        return with_margin(with_item(rows, self.items))

    def late(self, paid: pl.DataFrame) -> Increments:
        """LATE measures of days from `first` on."""
        shown = self.log.shown.filter(pl.col("event_date") >= self.first)
        clicked = self.rated(shown.filter("is_clicked")).with_columns(
            clicks=pl.lit(1.0), predicted_conversions=pl.col("cvr").fill_null(0.0)
        )
        return together(
            [
                stack(with_item(shown.rename({"cost": "spend"}), self.items), SEGMENTS, ["spend"], "policy"),
                stack(with_item(clicked, self.items), SEGMENTS, ["clicks", "predicted_conversions"], "policy"),
                stack(paid.filter(pl.col("event_date") >= self.first), SEGMENTS, CREDITED, "policy"),
            ]
        )

    def in_total(self, paid: pl.DataFrame) -> Increments:
        """Impressions, clicks, spend and CREDITED measures of all days, without users."""
        measures = ["impressions", "clicks", "spend"]
        shown = self.log.shown.select(
            "landed_date", "event_date", *NAMED,
            impressions=pl.lit(1.0), clicks=pl.col("is_clicked").cast(pl.Float64), spend="cost",
        )  # fmt: skip
        shown = with_item(shown.group_by("landed_date", "event_date", *NAMED).agg(pl.col(measures).sum()), self.items)
        return together([stack(shown, SEGMENTS, measures, "policy"), stack(paid.drop("cluster"), SEGMENTS, CREDITED, "policy")])


@query
def rates_query(table: Tables, start: date, end: date) -> Any:
    rates = table("response_rates")
    return rates.filter(rates.as_of_date.between(start, end)).select(
        "as_of_date", "hour", "ctr", "cvr", audience=rates.audience_id, creative=rates.creative_id, placement=rates.placement_id
    )


@query
def items_query(table: Tables, start: date, end: date) -> Any:
    items = table("items")
    return items.filter(items.as_of_date.between(start, end)).select(
        "as_of_date", "item_id", "category", "unit_price", "unit_cost"
    )


def read_items(reader: Reader, shown: pl.DataFrame, end: date) -> pl.DataFrame:
    """Catalogue entries from the keyframe before the first impression on: as_of_date, item_id, category, and share: 1 - cost / price."""
    landed: date = shown["landed_date"].min() or end  # type: ignore[assignment]
    known = items_query(reader, reader.keyframe_before(max(landed, reader.store.first_day)), end)
    return known.select(
        "as_of_date",
        "item_id",
        enumerated(known["category"]),
        share=pl.when(pl.col("unit_price") > 0).then(1 - pl.col("unit_cost") / pl.col("unit_price")),
    ).sort("as_of_date", "item_id")


def with_item(rows: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Add category and share of the item advertised as the catalogue had them when the row landed."""
    wanted = rows.select("landed_date", "item_id").unique().drop_nulls().sort("landed_date", "item_id")
    found = wanted.with_columns(name=pl.col("item_id").cast(pl.String)).join_asof(
        items.rename({"item_id": "name"}), left_on="landed_date", right_on="as_of_date", by="name", check_sortedness=False
    )
    return rows.join(found.select("landed_date", "item_id", "category", "share"), on=["landed_date", "item_id"], how="left")


def with_margin(paid: pl.DataFrame) -> pl.DataFrame:
    """Add margin: ad revenue times the item's share, and revenue whose share is not known in a column of its own."""
    known = pl.col("share").is_not_null()
    return paid.with_columns(
        margin=pl.when(known).then(pl.col("ad_revenue") * pl.col("share")).otherwise(0.0),
        unknown_margin=pl.when(known).then(0.0).otherwise("ad_revenue"),
    )


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
        unknown_margin="conversion_value",
        **{name: pl.lit(0.0) for name in (*PROMPT[3:], "predicted_conversions", "margin", "scored_conversions")},
    )
    rows = changes(dimensioned, entity, DIMENSIONS, (*PROMPT, *LATE[2:]))
    delays = by_key.group_by(event_date="date", landed_date="landed_date").agg(rows=pl.len())
    return rows, delays


def score_ads(reader: Reader, days: Sequence[date], store: Store, log: AdLog | None) -> pl.DataFrame:
    """Report rows of the concepts 'ads' and 'plan'; empty where the shop has neither an ad log nor reports.

    What the shop's inputs do not tell, conversions or what they are worth, has no figures: it is unknown, and not zero.
    log: what landed from look_back days before the window on; None where the shop has none.
    """
    if log is not None:
        read = LogIncrements.read(reader, log, days[0] - timedelta(days=store.maturity_days), days[-1])
        paid = read.paid()
        late, in_total = read.late(paid), read.in_total(paid)
        delays = paid.group_by("event_date", "landed_date").agg(rows=pl.col("conversions").sum())
    elif reader.has_source("ad_reports"):
        rows, delays = report_increments(reader, days[0] - timedelta(days=look_back(store)), days[-1])
        late = stack(rows, SEGMENTS, (*PROMPT, *LATE[2:]), "policy")
        in_total = late.in_total(("impressions", *LATE))
    else:
        return empty_report()
    landing = in_total.only((pl.col("segment_type") == "all") & (pl.col("policy_id") == "all")).rows
    landing = landing.filter(pl.col("impressions") > 0).select("event_date", "landed_date", rows="impressions")
    windows = scored_windows(days, [1], arrival(landing, days, store, is_cold_start_mature=True), store.first_day)
    shown = read.shown(windows["outcome_date"].unique()) if log is not None else None
    prompt = late if shown is None else stack(shown, SEGMENTS, PROMPT, "policy")
    cells = expand(prompt, windows, PROMPT)
    totals = same_weekday_totals(in_total, windows, ["impressions", "clicks", "spend"])
    frames = [report("ads", PROMPT_METRICS, cells, windows, store, totals)]
    late_windows = scored_windows(days, [1], arrival(delays, days, store, is_cold_start_mature=False), store.first_day)
    late_cells = expand(late, late_windows, LATE)
    if tells_conversions(store):
        totals = same_weekday_totals(in_total, late_windows, ["clicks", "spend", *CREDITED])
        told = LATE_METRICS if tells_values(store) else LATE_METRICS[:1]
        frames.append(report("ads", told, late_cells, late_windows, store, totals))
    if tells_values(store):
        # where an item's cost is unknown its revenue earns the margin of the cell's other revenue
        known = pl.col("ad_revenue") - pl.col("unknown_margin")
        pooled = pl.when(known.sum().over("cell") != 0).then(pl.col("margin").sum().over("cell") / known.sum().over("cell"))
        filled = late_cells.rows.with_columns(margin=pl.col("margin") + pl.col("unknown_margin") * pooled).drop_nulls("margin")
        frames.append(report("ads", [ROI], late_cells.with_rows(filled), late_windows, store))
    if log is not None and shown is not None:
        frames.append(score_clicks(cells, windows, store))
        if tells_conversions(store):
            frames.append(score_conversions(late_cells, late_windows, store))
        frames.append(score_plan(reader, log, days, store, (windows, cells, shown), (late_windows, late_cells, paid)))
    return pl.concat(frames)


def score_conversions(cells: Cells, windows: pl.DataFrame, store: Store) -> pl.DataFrame:
    """Predicted over observed conversions of clicks in cells whose rate had been issued the day before."""
    cells = cells.only(pl.col("segment_type").is_in(CALIBRATED) & (pl.col("policy_id") == "all"))
    rows = cells.rows.filter(pl.col("predicted_conversions").sum().over("cell") > 0)
    return report("ads", [CVR_CALIBRATION], cells.with_rows(rows), windows, store).with_columns(
        baseline=pl.lit("calibrated"), baseline_value=pl.lit(1.0)
    )


def score_clicks(cells: Cells, windows: pl.DataFrame, store: Store) -> pl.DataFrame:
    """Predicted over observed clicks, and log-loss, of impressions served in cells whose rate had been issued the day before."""
    cells = cells.only(pl.col("segment_type").is_in(CALIBRATED) & (pl.col("policy_id") == "all"))
    rows = cells.rows.filter(pl.col("scored_impressions").sum().over("cell") > 0)
    ratio = report("ads", [CTR_CALIBRATION], cells.with_rows(rows), windows, store).with_columns(
        baseline=pl.lit("calibrated"), baseline_value=pl.lit(1.0)
    )
    loss = Ratio("click_log_loss", pl.col("log_loss"), pl.col("scored_impressions"), "ratio")
    rate = rows.group_by("cell").agg(rate=pl.col("scored_clicks").sum() / pl.col("scored_impressions").sum())
    observed = pl.col("rate")
    entropy = -(observed * observed.log() + (1 - observed) * (1 - observed).log())
    rate = cells.names.join(rate, on="cell").select(
        *CELL, entropy=pl.when((observed > 0) & (observed < 1)).then(entropy).otherwise(0.0)
    )
    losses = (
        report("ads", [loss], cells.with_rows(rows), windows, store)
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


def exported_or_issued(reader: Reader, name: str, start: date, end: date, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """A decision table's rows; of days whose decision was exported, the newest exported version.

    An export's decision is its rows as a JSON list of objects. columns: as_of_date and others; all where left out.
    """
    frame = reader.window(name, start, end, columns)
    kept = exports_query(reader, name, start, end)
    if kept.height == 0:
        return frame
    newest = kept.sort("partition_date", "exported_at", "export_id").unique("partition_date", keep="last", maintain_order=True)
    schema: dict[str, Any] = {column: kind for column, kind in polars_schema(name).items() if column in frame.columns}
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
    return pl.concat([part.select(frame.columns) for part in parts])


PROMISES = {
    "impressions": ("impressions_delivery_ratio", "planned_impressions"),
    "spend": ("spend_delivery_ratio", "planned_spend"),
    "clicks": ("clicks_promise_ratio", "expected_clicks"),
    "conversions": ("conversions_promise_ratio", "expected_conversions"),
    "ad_revenue": ("revenue_promise_ratio", "expected_revenue"),
}


Served = tuple[pl.DataFrame, Cells, pl.DataFrame]
"""Scored windows, what was served in them added up by part and user, and all that was served row by row."""


def score_plan(reader: Reader, log: AdLog, days: Sequence[date], store: Store, prompt: Served, late: Served) -> pl.DataFrame:
    """Outcome over promise of the plan for each day, and pacing: month's spend to date over planned to date.

    1 means the promise was kept. Where impressions carry a plan_id, only those count; else all of the day.
    """
    start = days[0] - timedelta(days=store.maturity_days + 33)
    promises = [promise for _, promise in PROMISES.values()]
    columns = ["as_of_date", "plan_date", "audience_id", "placement_id", "campaign_id", *promises]
    plan = exported_or_issued(reader, "ad_plan", start, days[-1] - timedelta(days=1), columns)
    if plan.height == 0:
        return empty_report()
    segments = {name: name for name in ("audience", "placement", "campaign")}
    promised = stack(
        plan.select(
            *[pl.col(name).cast(pl.Float64) for name in promises], event_date="plan_date", landed_date="as_of_date",
            audience="audience_id", placement="placement_id", campaign="campaign_id",
        ),
        segments,
        promises,
    )  # fmt: skip
    under_plan = log.shown.filter("is_planned").select("event_date", "landed_date").unique()
    frames = []
    credited = of_told(store, "conversions", "ad_revenue")
    for (windows, cells, rows), names in ((prompt, list(PROMISES)[:3]), *(((late, credited),) if credited else ())):
        totals = expand(promised, windows, promises, by_cluster=False)
        promise_of = totals.names.join(totals.rows, on="cell").drop("cell")
        has_plan, has_none = by_plan(windows, under_plan)
        every = cells.only(pl.col("segment_type").is_in(["all", *segments]) & (pl.col("policy_id") == "all"))
        if rows["is_planned"].all():
            served = [every]
        else:
            planned = expand(stack(rows.filter("is_planned"), segments, names), has_plan, names)
            served = [planned, every.within(has_none)]
        for name in names:
            metric, promise = PROMISES[name]
            actual = pl.concat([_totals(part, name, store.evaluation.interval) for part in served])
            ratio = (
                promise_of.filter(pl.col(promise) > 0)
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
    frames.append(score_pacing(promised, log, days, prompt[0], under_plan))
    return pl.concat(frames)


def by_plan(windows: pl.DataFrame, under_plan: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Windows in which something was known to be served under a plan, and the others. under_plan: event_date, landed_date of that."""
    dates = windows.with_columns(event_date=pl.date_ranges("start_date", "outcome_date")).explode("event_date")
    served = dates.join(under_plan, on="event_date").filter(pl.col("landed_date") <= pl.col("as_of_date"))
    key = ["as_of_date", "outcome_date", "horizon_days"]
    return windows.join(served, on=key, how="semi"), windows.join(served, on=key, how="anti")


def _totals(cells: Cells, measure: str, level: float) -> pl.DataFrame:
    """Sum of a measure by cell, with its interval over users: CELL, numerator, ci_low, ci_high, n."""
    values = cells.rows[measure].cast(pl.Float64).to_numpy()
    found = clustered_sums(cells.rows["cell"], cells.rows["cluster"], values, np.zeros(values.size), "total", level=level)
    return cells.names.join(found, on="cell").select(*CELL, "numerator", "ci_low", "ci_high", "n")


def score_pacing(
    promised: Increments, log: AdLog, days: Sequence[date], windows: pl.DataFrame, under_plan: pl.DataFrame
) -> pl.DataFrame:
    """Spend to date over planned spend to date of the calendar month, over the days that had a plan; n: users it was spent on."""
    month = (
        windows.filter(pl.col("outcome_date") == pl.col("as_of_date"))
        .with_columns(
            start_date=pl.col("outcome_date").dt.month_start(), horizon_days=pl.col("outcome_date").dt.day().cast(pl.Int64)
        )
        .with_columns(issued_date=pl.col("start_date").dt.offset_by("-1d"))
    )
    whole = promised.only(pl.col("segment_type") == "all")
    paid = log.shown.filter(pl.col("event_date") >= days[0].replace(day=1), pl.col("event_date").is_in(whole.rows["event_date"].implode()))
    served = zip((paid.filter("is_planned"), paid), by_plan(month, under_plan), strict=True)
    spent = pl.concat([_spent(rows, of) for rows, of in served])
    plan = expand(whole, month, ["planned_spend"], by_cluster=False)
    ratio = (
        plan.names.join(plan.rows, on="cell")
        .filter(pl.col("planned_spend") > 0)
        .join(spent, on=CELL, how="left")
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


def _spent(rows: pl.DataFrame, months: pl.DataFrame) -> pl.DataFrame:
    """What was spent in months to date, and on how many users: CELL, numerator, n."""
    spend = expand(stack(rows.drop("cluster").rename({"cost": "spend"}), {}, ["spend"]), months, ["spend"], by_cluster=False)
    # a user counts from the day on which the first of the month's spend on them was known
    since = rows.filter(pl.col("cost") != 0).group_by("cluster", start_date=pl.col("event_date").dt.month_start())
    new = since.agg(since=pl.max_horizontal("event_date", "landed_date").min()).group_by("start_date", "since").agg(n=pl.len())
    people = months.join(new, on="start_date").filter(pl.col("since") <= pl.col("as_of_date"))
    people = people.group_by("as_of_date", "start_date").agg(pl.col("n").sum().cast(pl.Int64))
    sums = spend.names.join(spend.rows, on="cell").join(months.select("as_of_date", "start_date"), on="as_of_date")
    return sums.join(people, on=["as_of_date", "start_date"], how="left").select(*CELL, numerator="spend", n=pl.col("n").fill_null(0))
