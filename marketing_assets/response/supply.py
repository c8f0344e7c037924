"""What is on offer tomorrow and what it costs: cells, forecast impressions, prices.

What belongs here: which creatives, placements and hours tomorrow has, how many impressions each audience should see there,
and the expected price. What does not: whether anyone clicks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl

from marketing_assets.response.statistics import (
    ANY_PLACEMENT,
    EPOCH,
    GROUP,
    UNKNOWN_AUDIENCE,
    Floats,
    Integers,
    day_numbers,
    totals,
)
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


class AsKnown:
    """Rows in the order they came, and what they say by the end of a day: worked out anew only where more had come by then.

    came: the column with the day a row came. says: what rows say, of which there are never more.
    """

    def __init__(self, rows: pl.DataFrame, came: str, says: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        self.rows, self._says = rows, says
        self._came = day_numbers(rows, came)
        self._said: dict[int, pl.DataFrame] = {}

    def on(self, day: date) -> pl.DataFrame:
        by_then = self._came <= (day - EPOCH).days
        count = int(by_then.sum())
        if count not in self._said:
            self._said[count] = self._says(self.rows.filter(pl.Series(by_then, dtype=pl.Boolean)))
        return self._said[count]


@dataclass(frozen=True)
class Inventory:
    """The shop's campaigns, creatives and placements, each as known by the end of a day; read once per window."""

    campaigns: AsKnown
    creatives: AsKnown
    placements: AsKnown

    @staticmethod
    def read(reader: Reader, days: Sequence[date]) -> Inventory:
        return Inventory(*(read_landed(reader, name, days) for name in ("campaigns", "creatives", "placements")))


def read_landed(reader: Reader, source: str, days: Sequence[date]) -> AsKnown:
    """`Reader.accepted` of an input with a key as of each of `days`: of each column the newest value that is not null.

    A later row must not speak for the days before it: all that landed are kept, in the order they did.
    """
    from marketing_assets.cleaning import accepted_landed

    rows = reader.accepted(source, None, days[0])
    if len(days) > 1 and reader.has_source(source):
        later = accepted_landed(reader, source, days[0] + timedelta(days=1), days[-1])
        found = reader.frame(later.select(*INPUTS[source].columns, "landed_date", "raw_row_id")).sort("landed_date", "raw_row_id")
        rows = pl.concat([rows, found.select(rows.columns).cast(rows.schema)])
    key = list(INPUTS[source].key)

    def newest(landed: pl.DataFrame) -> pl.DataFrame:
        said = landed.group_by(key, maintain_order=True).agg(pl.all().exclude(key).drop_nulls().last())
        return said.select(landed.columns).sort(key, nulls_last=False)

    return AsKnown(rows, "landed_date", newest)


def creatives_of(day: date, inventory: Inventory, shown: pl.DataFrame) -> pl.LazyFrame:
    """Creatives that may run on day + 1: creative_id, campaign_id, item_id. Where the shop has no creatives, those seen in the log."""
    tomorrow, creatives = day + timedelta(days=1), inventory.creatives.on(day)
    if creatives.is_empty():
        return shown.lazy().group_by("creative_id").agg(pl.col("campaign_id", "item_id").max())
    closed = inventory.campaigns.on(day).lazy().filter(~_is_running(tomorrow)).select("campaign_id")
    running = creatives.lazy().filter(_is_running(tomorrow)).join(closed, on="campaign_id", how="anti")
    return running.select("creative_id", "campaign_id", "item_id")


def _is_running(day: date) -> pl.Expr:
    start, end = pl.col("start_date"), pl.col("end_date")
    return (start.is_null() | (start <= day)) & (end.is_null() | (end >= day))


def placement_prices(day: date, placements: pl.DataFrame) -> pl.DataFrame:
    """Per placement and hour in force on day + 1: capacity, pricing, price. A row without hour holds for every hour left.

    placements: as known on `day`.
    """
    tomorrow = day + timedelta(days=1)
    valid = placements.lazy().filter(pl.col("valid_from").is_null() | (pl.col("valid_from") <= tomorrow))
    newest = valid.sort("placement_id", "hour", "valid_from", nulls_last=False).unique(
        ["placement_id", "hour"], keep="last", maintain_order=True
    )
    hourly = newest.filter(pl.col("hour").is_not_null())
    daily = (
        newest.filter(pl.col("hour").is_null())
        .drop("hour")
        .join(pl.LazyFrame({"hour": range(24)}, schema={"hour": pl.Int64}), how="cross")
        .join(hourly.select("placement_id", "hour"), on=["placement_id", "hour"], how="anti")
    )
    columns = ["placement_id", "hour", "capacity", "pricing", "price"]
    return pl.concat([hourly.select(columns), daily.select(columns)]).sort("placement_id", "hour").collect()


@dataclass(frozen=True)
class Seen:
    """What landed in a window of days, summed: of GROUP in all and lately, of each placement by day.

    groups: GROUP, impressions, recent (of the newest MIX_DAYS). placements: placement_id, paid (spend per impression).
    by_day: impressions, placements x days from `first` to `newest`. is_planned: plans bought most of the newest WEEK.
    """

    groups: pl.DataFrame
    placements: pl.DataFrame
    by_day: Floats
    first: date
    newest: date
    is_planned: bool


class ShownLog:
    """The log's impressions by who saw them where and when, coded once; `on(day, rows)` sums a part of it."""

    def __init__(self, shown: pl.DataFrame, cells: pl.DataFrame, cell: Integers) -> None:
        """cells: GROUP of each cell; cell: the cell of each row of `shown`, which is a log's (see statistics.Log)."""
        self.groups = cells.select(GROUP).unique().sort(GROUP)
        self.placements = self.groups.select("placement_id").unique().sort("placement_id")
        of_group = cells.select(GROUP).join(self.groups.with_row_index("at"), on=GROUP, how="left", maintain_order="left")["at"]
        of_place = self.groups.join(self.placements.with_row_index("at"), on="placement_id", how="left", maintain_order="left")["at"]
        self.group = of_group.to_numpy().astype(np.int64)[cell]
        self.placement = of_place.to_numpy().astype(np.int64)[self.group] if self.groups.height else self.group
        self.date = day_numbers(shown, "impression_date")
        self.impressions, self.planned, self.spend = (shown[name].to_numpy().astype(float) for name in ("impressions", "planned", "spend"))

    def on(self, day: date, rows: slice) -> Seen | None:
        """What those rows show by the end of `day`; None where there are none."""
        group, placement, when, count = self.group[rows], self.placement[rows], self.date[rows], self.impressions[rows]
        if not group.size:
            return None
        today = (day - EPOCH).days
        by_today = when <= today
        first, newest = (int(when[by_today].min()), int(when[by_today].max())) if by_today.any() else (today, today)
        width, places = newest - first + 1, self.placements.height
        by_day = totals(placement[by_today] * width + when[by_today] - first, count[by_today], places * width).reshape(places, width)
        lately = when > today - WEEK
        groups = self.groups.with_columns(
            impressions=pl.Series(totals(group, count, self.groups.height)),
            recent=pl.Series(totals(group, count * (when > newest - MIX_DAYS), self.groups.height)),
        )
        paid = totals(placement, self.spend[rows], places) / np.maximum(totals(placement, count, places), 1.0)
        is_seen = np.bincount(placement, minlength=places) > 0
        return Seen(
            groups.filter(pl.Series(np.bincount(group, minlength=self.groups.height) > 0)),
            self.placements.with_columns(paid=pl.Series(paid)).filter(pl.Series(is_seen)),
            by_day[is_seen],
            EPOCH + timedelta(days=first),
            EPOCH + timedelta(days=newest),
            float(self.planned[rows][lately].sum()) * 2 > float(count[lately].sum()),
        )


def forecast_supply(day: date, seen: Seen | None, prices: pl.DataFrame, last_week: pl.DataFrame | None = None) -> pl.DataFrame:
    """Impressions expected on day + 1: audience_id, placement_id, hour, available_impressions. last_week: those expected a week before.

    A placement's day is the mean of its last WEEKS same weekdays; it is spread over hours as the window was and over audiences as
    its newest MIX_DAYS were, sparse cells leaning on the placement's own profile. Where a capacity is known it is the limit and,
    up to QUOTE_BELIEVED times what was seen, what is on offer: a log shows what was bought, not what could have been. Without
    any log the capacity itself is on offer to users of unknown audience. A report without hours is spread evenly over the day.
    """
    schema = pl.Schema({"audience_id": pl.String, "placement_id": pl.String, "hour": pl.Int64, "available_impressions": pl.Float64})
    if seen is None:
        quotes = prices.filter(pl.col("capacity") > 0)
        unknown = pl.lit(UNKNOWN_AUDIENCE).alias("audience_id")
        return quotes.select(unknown, "placement_id", "hour", available_impressions="capacity").cast(schema)
    hours = seen.groups.lazy()
    if (seen.groups["hour"] < 0).any():
        whole = (
            hours.filter(pl.col("hour") < 0)
            .drop("hour")
            .join(pl.LazyFrame({"hour": range(24)}, schema={"hour": pl.Int64}), how="cross")
            .with_columns(pl.col("impressions", "recent") / 24)
        )
        hours = (
            pl.concat([hours.filter(pl.col("hour") >= 0), whole.select(seen.groups.columns)])
            .group_by(GROUP)
            .agg(pl.col("impressions", "recent").sum())
            .sort(GROUP)
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
    daily = seen.placements.select("placement_id", expected=pl.Series(_expected(day, seen))).lazy()
    offered = spread.join(daily, on="placement_id", maintain_order="left").select(
        *GROUP, available_impressions=pl.col("expected") * pl.col("hour_share") * pl.col("mix")
    )
    if seen.is_planned and last_week is not None and not last_week.is_empty():
        offered = _not_forgotten(offered, last_week.lazy())
    if not prices.is_empty():
        offered = offered.join(
            prices.lazy().select("placement_id", "hour", "capacity"), on=["placement_id", "hour"], how="left", maintain_order="left"
        ).with_columns(total=pl.col("available_impressions").sum().over("placement_id", "hour"))
        # what was served is what was bought; up to QUOTE_BELIEVED times it a quoted capacity counts as on offer
        quoted = pl.min_horizontal(pl.col("capacity") / pl.col("total"), pl.lit(QUOTE_BELIEVED))
        offered = offered.with_columns(
            available_impressions=pl.when(pl.col("capacity").is_null() | (pl.col("total") <= 0))
            .then("available_impressions")
            .otherwise(pl.col("available_impressions") * quoted)
        )
    found = offered.select(schema.names()).cast(schema).sort(GROUP).collect()
    if not prices.is_empty() and ANY_PLACEMENT not in found["placement_id"]:
        found = found.filter(pl.col("placement_id").is_in(prices["placement_id"].unique().implode()))
    return found.filter(pl.col("available_impressions") > 0)


def _expected(day: date, seen: Seen) -> Floats:
    """Impressions expected on day + 1 of each placement: its mean on the last WEEKS same weekdays, the newest week's level before
    two of them were seen, and over all days where nothing was shown in that week."""
    def at(back: int) -> int:
        return (day - seen.first).days - back

    width = seen.by_day.shape[1]
    same = [at(7 * week - 1) for week in range(1, WEEKS + 1) if at(7 * week - 1) >= 0]
    levels: Floats
    if len(same) >= 2:
        levels = seen.by_day[:, [one for one in same if one < width]].sum(axis=1) / len(same)
        return levels
    recent_days = min(7, at(0) + 1)
    week = seen.by_day[:, max(at(recent_days - 1), 0) :]
    levels = np.where((week != 0).any(axis=1), week.sum(axis=1) / recent_days, seen.by_day.sum(axis=1) / width)
    return levels


def on_offer(rates: pl.DataFrame) -> pl.DataFrame:
    """as_of_date, audience_id, placement_id, hour, available_impressions of response_rates rows: every creative has the same on offer."""
    return rates.group_by("as_of_date", *GROUP).agg(pl.col("available_impressions").max())


def _not_forgotten(offered: pl.LazyFrame, last_week: pl.LazyFrame) -> pl.LazyFrame:
    """While a plan does the buying, what was served is what was bought, not what was on offer.

    A plan that learnt its supply from that would shrink to the cells it began with. So where most of the last week's
    impressions were bought by a plan, the forecast for the same weekday a week before stands where it is larger, less FORGETTING:
    of another day it would say that a shop sells ads on the day it is closed.
    """
    before = last_week.select(*GROUP, before=pl.col("available_impressions") * (1 - FORGETTING))
    return (
        offered.join(before, on=GROUP, how="full", coalesce=True)
        .with_columns(available_impressions=pl.max_horizontal("available_impressions", "before"))
        .drop("before")
        .sort(GROUP)
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
