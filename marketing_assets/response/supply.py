"""What is on offer tomorrow and what it costs: cells, forecast impressions, prices.

What belongs here: which creatives, placements and hours tomorrow has, how many impressions each audience should see there,
and the expected price. What does not: whether anyone clicks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import polars as pl

from marketing_assets.response.statistics import ANY_PLACEMENT, UNKNOWN_AUDIENCE
from marketing_assets.schemas import INPUTS
from marketing_assets.warehouse import Reader

WEEK, WEEKS = 7, 4
"""Days after which a weekday comes again, and how many of them are behind a forecast of supply."""
FORGETTING = 0.035
"""Share by which last week's forecast of supply fades while nothing but plans buy."""
QUOTE_BELIEVED = 2.0
"""How many times what was served of a placement's hour a quoted capacity is taken at its word."""
MIX_DAYS = 7
"""Newest days that tell which audiences a placement meets."""
HOUR_WEIGHT = 200.0
"""Impressions a placement's own profile over hours and audiences counts for in one of its hours."""


@dataclass(frozen=True)
class Inventory:
    """The shop's campaigns, creatives and placements with landed_date, read once per window: see `read_landed`."""

    campaigns: pl.DataFrame
    creatives: pl.DataFrame
    placements: pl.DataFrame

    @staticmethod
    def read(reader: Reader, days: Sequence[date]) -> Inventory:
        return Inventory(*(read_landed(reader, name, days) for name in ("campaigns", "creatives", "placements")))

    def on(self, day: date) -> Inventory:
        """The same as known by the end of a day of the window."""
        names = ("campaigns", "creatives", "placements")
        return Inventory(*(known_by(day, name, getattr(self, name)) for name in names))


def read_landed(reader: Reader, source: str, days: Sequence[date]) -> pl.DataFrame:
    """What an input with a key says by the first of `days`, and every row accepted on the others, in the order they landed.

    A later row must not speak for the days before it, so that each day asks `known_by`.
    """
    from marketing_assets.cleaning import accepted_landed

    known = reader.accepted(source, None, days[0])
    if len(days) == 1 or not reader.has_source(source):
        return known
    rows = accepted_landed(reader, source, days[0] + timedelta(days=1), days[-1])
    later = reader.frame(rows.select(*INPUTS[source].columns, "landed_date", "raw_row_id")).sort("landed_date", "raw_row_id")
    return pl.concat([known, later.select(known.columns).cast(known.schema)])


def known_by(day: date, source: str, landed: pl.DataFrame) -> pl.DataFrame:
    """`Reader.accepted` of an input with a key as of `day`, from `read_landed`: of each column the newest value that is not null."""
    key = list(INPUTS[source].key)
    rows = landed.filter(pl.col("landed_date") <= day)
    newest = rows.group_by(key, maintain_order=True).agg(pl.all().exclude(key).drop_nulls().last())
    return newest.select(landed.columns).sort(key, nulls_last=False)


def creatives_of(day: date, inventory: Inventory, shown: pl.DataFrame) -> pl.DataFrame:
    """Creatives that may run on day + 1: creative_id, campaign_id, item_id. inventory: as known on `day`; where it has no
    creatives, those seen in the log."""
    tomorrow = day + timedelta(days=1)
    if inventory.creatives.is_empty():
        return shown.group_by("creative_id").agg(pl.col("campaign_id", "item_id").max()).sort("creative_id")
    running = inventory.creatives.filter(_is_running(tomorrow))
    closed = inventory.campaigns.filter(~_is_running(tomorrow)).select("campaign_id")
    running = running.join(closed, on="campaign_id", how="anti")
    return running.select("creative_id", "campaign_id", "item_id").sort("creative_id")


def _is_running(day: date) -> pl.Expr:
    start, end = pl.col("start_date"), pl.col("end_date")
    return (start.is_null() | (start <= day)) & (end.is_null() | (end >= day))


def placement_prices(day: date, placements: pl.DataFrame) -> pl.DataFrame:
    """Per placement and hour in force on day + 1: capacity, pricing, price. A row without hour holds for every hour left.

    placements: as known on `day`.
    """
    tomorrow = day + timedelta(days=1)
    valid = placements.filter(pl.col("valid_from").is_null() | (pl.col("valid_from") <= tomorrow))
    newest = valid.sort("placement_id", "hour", "valid_from", nulls_last=False).unique(
        ["placement_id", "hour"], keep="last", maintain_order=True
    )
    hourly = newest.filter(pl.col("hour").is_not_null())
    daily = (
        newest.filter(pl.col("hour").is_null())
        .drop("hour")
        .join(pl.DataFrame({"hour": range(24)}, schema={"hour": pl.Int64}), how="cross")
        .join(hourly.select("placement_id", "hour"), on=["placement_id", "hour"], how="anti")
    )
    columns = ["placement_id", "hour", "capacity", "pricing", "price"]
    return pl.concat([hourly.select(columns), daily.select(columns)]).sort("placement_id", "hour")


def forecast_supply(day: date, shown: pl.DataFrame, prices: pl.DataFrame, last_week: pl.DataFrame | None = None) -> pl.DataFrame:
    """Impressions expected on day + 1: audience_id, placement_id, hour, available_impressions. last_week: those expected a week before.

    A placement's day is the mean of its last WEEKS same weekdays; it is spread over hours as the window was and over audiences as
    its newest MIX_DAYS were, sparse cells leaning on the placement's own profile. Where a capacity is known it is the limit and,
    up to QUOTE_BELIEVED times what was seen, what is on offer: a log shows what was bought, not what could have been. Without
    any log the capacity itself is on offer to users of unknown audience. A report without hours is spread evenly over the day.
    """
    cell = ["audience_id", "placement_id", "hour"]
    schema: dict[str, Any] = {
        "audience_id": pl.String,
        "placement_id": pl.String,
        "hour": pl.Int64,
        "available_impressions": pl.Float64,
    }
    if shown.is_empty():
        offered = prices.filter(pl.col("capacity").is_not_null()).select(
            pl.lit(UNKNOWN_AUDIENCE).alias("audience_id"),
            "placement_id",
            "hour",
            available_impressions=pl.col("capacity").cast(pl.Float64),
        )
        return offered.filter(pl.col("available_impressions") > 0).cast(pl.Schema(schema))
    tomorrow = day + timedelta(days=1)
    per_day = (
        shown.group_by("placement_id", "impression_date")
        .agg(pl.col("impressions").sum())
        .filter(pl.col("impression_date") <= day)
    )
    first: date = per_day["impression_date"].min() or day  # type: ignore[assignment]
    newest: date = per_day["impression_date"].max() or day  # type: ignore[assignment]
    dates = [tomorrow - timedelta(days=7 * week) for week in range(1, WEEKS + 1)]
    same = [when for when in dates if when >= first]
    recent_days = min(7, (day - first).days + 1)
    # the level of the newest week, and the weekday's own level once two weeks were seen
    week = (
        per_day.filter(pl.col("impression_date") > day - timedelta(days=recent_days))
        .group_by("placement_id")
        .agg(level=pl.col("impressions").sum() / recent_days)
    )
    weekday = (
        per_day.filter(pl.col("impression_date").is_in(same))
        .group_by("placement_id")
        .agg(same_weekday=pl.col("impressions").sum() / max(len(same), 1))
    )
    totals = per_day.group_by("placement_id").agg(overall=pl.col("impressions").sum() / ((newest - first).days + 1))
    daily = (
        totals.join(week, on="placement_id", how="left")
        .join(weekday, on="placement_id", how="left")
        .with_columns(expected=(pl.col("same_weekday") if len(same) >= 2 else pl.coalesce("level", "overall")).fill_null(0.0))
        .sort("placement_id")
    )
    recent = pl.col("impressions").filter(pl.col("impression_date") > newest - timedelta(days=MIX_DAYS)).sum()
    hours = shown.group_by(cell).agg(pl.col("impressions").sum().cast(pl.Float64), recent=recent.cast(pl.Float64)).sort(cell)
    if (hours["hour"] < 0).any():
        whole = (
            hours.filter(pl.col("hour") < 0)
            .drop("hour")
            .join(pl.DataFrame({"hour": range(24)}, schema={"hour": pl.Int64}), how="cross")
            .with_columns(pl.col("impressions", "recent") / 24)
        )
        hours = (
            pl.concat([hours.filter(pl.col("hour") >= 0), whole.select(hours.columns)])
            .group_by(cell)
            .agg(pl.col("impressions", "recent").sum())
            .sort(cell)
        )
    of_placement = pl.col("impressions").sum().over("placement_id")
    of_hour = pl.col("impressions").sum().over("placement_id", "hour")
    # people move between audiences: who is met where is read off the newest week, when a placement is met off the whole window
    met = pl.when(pl.col("recent").sum().over("placement_id") > 0).then("recent").otherwise("impressions")
    spread = hours.with_columns(hour_share=of_hour / of_placement, met=met)
    share = pl.col("met").sum().over("placement_id", "audience_id") / pl.col("met").sum().over("placement_id")
    in_hour = pl.col("met").sum().over("placement_id", "hour")
    spread = spread.with_columns(mix=(pl.col("met") + HOUR_WEIGHT * share) / (in_hour + HOUR_WEIGHT))
    spread = spread.with_columns(pl.col("mix") / pl.col("mix").sum().over("placement_id", "hour"))
    offered = spread.join(daily.select("placement_id", "expected"), on="placement_id").with_columns(
        available_impressions=pl.col("expected") * pl.col("hour_share") * pl.col("mix")
    )
    offered = _not_forgotten(day, shown, offered.select(schema.keys()), last_week)
    if not prices.is_empty():
        offered = offered.join(
            prices.select("placement_id", "hour", "capacity"), on=["placement_id", "hour"], how="left"
        ).with_columns(total=pl.col("available_impressions").sum().over("placement_id", "hour"))
        # what was served is what was bought; up to QUOTE_BELIEVED times it a quoted capacity counts as on offer
        quoted = pl.min_horizontal(pl.col("capacity") / pl.col("total"), pl.lit(QUOTE_BELIEVED))
        offered = offered.with_columns(
            available_impressions=pl.when(pl.col("capacity").is_null() | (pl.col("total") <= 0))
            .then("available_impressions")
            .otherwise(pl.col("available_impressions") * quoted)
        )
        if ANY_PLACEMENT not in offered["placement_id"]:
            offered = offered.join(prices.select("placement_id").unique(), on="placement_id", how="semi")
    return offered.filter(pl.col("available_impressions") > 0).select(schema.keys()).cast(pl.Schema(schema)).sort(cell)


def on_offer(rates: pl.DataFrame) -> pl.DataFrame:
    """as_of_date, audience_id, placement_id, hour, available_impressions of response_rates rows: every creative has the same on offer."""
    return rates.group_by("as_of_date", "audience_id", "placement_id", "hour").agg(pl.col("available_impressions").max())


def _not_forgotten(day: date, shown: pl.DataFrame, offered: pl.DataFrame, last_week: pl.DataFrame | None) -> pl.DataFrame:
    """While a plan does the buying, what was served is what was bought, not what was on offer.

    A plan that learnt its supply from that would shrink to the cells it began with. So where most of the last week's
    impressions were bought by a plan, the forecast for the same weekday a week before stands where it is larger, less FORGETTING:
    of another day it would say that a shop sells ads on the day it is closed.
    """
    recent = shown.filter(pl.col("impression_date") > day - timedelta(days=WEEK))
    bought, every = int(recent["planned"].sum()), int(recent["impressions"].sum())
    if last_week is None or last_week.is_empty() or bought * 2 <= every:
        return offered
    key = ["audience_id", "placement_id", "hour"]
    before = last_week.select(*key, before=pl.col("available_impressions") * (1 - FORGETTING))
    return (
        offered.join(before, on=key, how="full", coalesce=True)
        .with_columns(available_impressions=pl.max_horizontal("available_impressions", "before"))
        .drop("before")
        .sort(key)
    )


def mean_costs(shown: pl.DataFrame) -> pl.DataFrame:
    """Spend per impression by placement: what was paid where the price list says nothing."""
    return (
        shown.group_by("placement_id")
        .agg(paid=pl.col("spend").sum() / pl.col("impressions").sum().clip(1, None))
        .sort("placement_id")
    )


def expected_cost(pricing: pl.Expr, price: pl.Expr, paid: pl.Expr, ctr: pl.Expr, cvr: pl.Expr) -> pl.Expr:
    """Cost of one impression: the list price turned into one by its rates, else what was paid, else 0 (own channels)."""
    listed = (
        pl.when(pricing == "cpm")
        .then(price / 1000)
        .when(pricing == "cpc")
        .then(price * ctr)
        .when(pricing == "cpa")
        .then(price * ctr * cvr)
    )
    return pl.coalesce(listed, paid, pl.lit(0.0)).clip(lower_bound=0.0)
