"""Sufficient statistics of the ad log: impressions, clicks, spend and conversions by day and cell.

What belongs here: reading the log into small frames, once per window. What does not: rates.

A cell-day is (landed_date, impression_date, audience_id, creative_id, placement_id, hour, position). Everything the rates
of a day need is a sum over cell-days that had landed by it, so that a day's cost is bounded by history_days.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from weakref import WeakKeyDictionary

import duckdb
import numpy as np
import numpy.typing as npt
import polars as pl

from marketing_assets.config import UNKNOWN_USER
from marketing_assets.response.audience import audiences_of, entries_since, filled
from marketing_assets.sources.engine import Staging
from marketing_assets.warehouse import Reader

UNKNOWN_AUDIENCE = UNKNOWN_USER
"""Audience of impressions without a user, or of users in none."""
ANY_PLACEMENT = "all"
"""placement_id where a report does not name one."""
CELL = ("audience_id", "creative_id", "placement_id", "hour")
GROUP = ("audience_id", "placement_id", "hour")
"""Creatives compete for the impressions of one audience in one placement and hour."""
EPOCH = date(1970, 1, 1)
LATER_DAYS = 7
"""Days before a fit that trained models are scored on."""
HELD_ROWS = 2_000_000
"""Cell-days that are held from one night to the next, some 300 MB: those of a larger shop are read again, and leave the steps after
them their memory."""
KEYS = ("landed_date", "impression_date", *CELL, "position")

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Log:
    """What landed in a window, summed.

    shown: KEYS, campaign_id, item_id, impressions, clicks, spend, planned (bought by a plan, as far as that is told). converted: the same keys,
    credited_date (day the credit landed), conversions (new ones), conversion_value (refunds taken off). Both sorted, so
    that sums are reproducible.
    evidence: 'ad_log' or 'ad_reports'.
    """

    shown: pl.DataFrame
    converted: pl.DataFrame
    evidence: str


SHOWN_SCHEMA: dict[str, Any] = {
    "landed_date": pl.Date,
    "impression_date": pl.Date,
    "audience_id": pl.String,
    "creative_id": pl.String,
    "placement_id": pl.String,
    "hour": pl.Int64,
    "position": pl.Int64,
    "campaign_id": pl.String,
    "item_id": pl.String,
    "impressions": pl.Int64,
    "clicks": pl.Int64,
    "spend": pl.Float64,
    "planned": pl.Int64,
}
CONVERTED_SCHEMA: dict[str, Any] = {
    **{name: SHOWN_SCHEMA[name] for name in KEYS},
    "credited_date": pl.Date,
    "conversions": pl.Int64,
    "conversion_value": pl.Float64,
}


def read_log(reader: Reader, start: date, end: date) -> Log:
    """The ad log's cell-days landed in [start, end]; platform reports where the shop has no ad log."""
    if reader.has_source("impressions"):
        return _impression_log(reader, start, end)
    return _report_log(reader, start, end)


def _impression_log(reader: Reader, start: date, end: date) -> Log:
    """Landed days do not change once they are built: of those this connection read last, only what they have been credited since is asked
    for. A night reads its own day then, wherever one process builds many."""
    known = _READ.get(reader.connection)
    kept = None if known is None else known.of(reader, start, end)
    since = start if kept is None else kept.end + timedelta(days=1)
    log = _landed(reader, start, since, end)
    if kept is not None:
        shown, converted = (rows.filter(pl.col("landed_date") >= start) for rows in (kept.log.shown, kept.log.converted))
        log = Log(  # days that landed later come after all others in the order of shown
            pl.concat([shown, log.shown], rechunk=True), in_order(pl.concat([converted, log.converted]), (*KEYS, "credited_date")), log.evidence
        )
    _READ.pop(reader.connection, None)
    if log.shown.height <= HELD_ROWS:
        _READ[reader.connection] = _Read(start, end, reader.contents(_LOGGED, reader.store.first_day, end), log)
    return log


@dataclass(frozen=True)
class _Read:
    """What was read of a connection's ad log last, and what the ledger said then of all that a landed day rests on."""

    start: date
    end: date
    contents: str | None
    log: Log

    def of(self, reader: Reader, start: date, end: date) -> _Read | None:
        """Itself where [start, end] goes on from it and nothing it rests on was built anew."""
        if self.contents is None or not self.start <= start <= self.end <= end:
            return None
        return self if reader.contents(_LOGGED, reader.store.first_day, self.end) == self.contents else None


_READ: WeakKeyDictionary[duckdb.DuckDBPyConnection, _Read] = WeakKeyDictionary()
_LOGGED = ("clean_impressions", "attributed_conversions", "audiences")


def _landed(reader: Reader, start: date, since: date, end: date) -> Log:
    """What landed or was credited in [since, end], of impressions landed in [start, end]."""
    import ibis

    landed = reader.table("clean_impressions")
    landed = landed.filter(landed.landed_date.between(start, end))
    credited = reader.table("attributed_conversions")
    credited = credited.filter(credited.landed_date.between(since, end)).select(
        "impression_id", "conversion_value", "is_refunded", credited_date=credited.landed_date
    )
    # few impressions convert: they are picked out before anything is looked up for them
    converting = landed.semi_join(credited, "impression_id")
    entries = reader.table("audiences")
    entries = entries.filter(entries.as_of_date.between(entries_since(reader, start), end))
    fresh, asked = landed, landed
    if since > start:
        fresh = landed.filter(landed.landed_date >= since)
        asked = fresh.union(converting)
    # looked up first: not knowing how few rows these are, the engine would join the long way round
    found = Staging(reader, "response").keep(audiences_of(asked, entries, reader.store.anchor), "audiences")

    def keyed(rows: Any) -> Any:
        rows = filled(rows, found)
        return rows.mutate(creative_id=ibis.coalesce(rows.creative_id, rows.item_id), position=ibis.coalesce(rows.position, 0))

    rows = keyed(fresh)
    shown = rows.group_by(list(KEYS)).agg(
        campaign_id=rows.campaign_id.max(),
        item_id=rows.item_id.max(),
        impressions=rows.count(),
        clicks=rows.is_clicked.cast("int64").sum(),
        spend=ibis.coalesce(rows.spend, 0).sum(),
        planned=rows.plan_id.notnull().sum(),
    )
    paid = credited.inner_join(keyed(converting).select("impression_id", *KEYS), "impression_id")
    converted = paid.group_by([*KEYS, "credited_date"]).agg(
        conversions=ibis.ifelse(paid.is_refunded, 0, 1).sum(), conversion_value=paid.conversion_value.sum()
    )
    return Log(
        in_order(reader.frame(shown).cast(pl.Schema(SHOWN_SCHEMA)).select(SHOWN_SCHEMA.keys()), KEYS),
        in_order(reader.frame(converted).cast(pl.Schema(CONVERTED_SCHEMA)).select(CONVERTED_SCHEMA.keys()), (*KEYS, "credited_date")),
        "ad_log",
    )


def in_order(rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """rows.sort(keys) where no two rows have the same keys: texts, days and whole numbers of few values each.

    One number stands for all keys of a row, so that numbers are sorted and no texts, which takes far longer on a log.
    """
    place, places = np.zeros(rows.height, dtype=np.int64), 1
    for name in keys:
        column = rows[name]
        if column.dtype == pl.String:
            levels = column.drop_nulls().unique().sort()
            codes, size = column.cast(pl.Enum(levels)).to_physical(), len(levels)
        else:
            codes = column.to_physical()
            lowest: Any = codes.min() or 0
            highest: Any = codes.max() or 0
            codes, size = codes - lowest, highest - lowest + 1
        places *= size + 1
        if places >= 1 << 63:
            return rows.sort(keys)
        place = place * (size + 1) + (codes.cast(pl.Int64) + 1).fill_null(0).to_numpy()
    return rows[np.argsort(place, kind="stable")]


def _report_log(reader: Reader, start: date, end: date) -> Log:
    """The same from platform reports: the newest report of a day and key replaces earlier ones, as increments by landed day.

    A report without an hour is spread over the day (hour -1 here), without a creative it stands for its campaign. No report says
    whether a plan bought: all of it counts as planned, or a plan's supply would shrink to what it bought.
    """
    reports = reader.accepted("ad_reports", start, end)
    if reports.is_empty():
        return Log(pl.DataFrame(schema=SHOWN_SCHEMA), pl.DataFrame(schema=CONVERTED_SCHEMA), "ad_reports")
    keyed = reports.with_columns(
        impression_date=pl.col("date"),
        creative_id=pl.coalesce("creative_id", "campaign_id"),
        placement_id=pl.col("placement_id").fill_null(ANY_PLACEMENT),
        audience_id=pl.col("audience_id").fill_null(UNKNOWN_AUDIENCE),
        hour=pl.col("hour").fill_null(-1),
        position=pl.lit(0, pl.Int64),
        item_id=pl.lit(None, pl.String),
    )
    measures = ["impressions", "clicks", "spend", "conversions", "conversion_value"]
    entity = [name for name in KEYS if name != "landed_date"]
    summed = (
        keyed.group_by(KEYS)
        .agg(
            pl.col("campaign_id").max(),
            pl.col("item_id").max(),
            *(pl.col(name).cast(pl.Float64).fill_null(0.0).sum() for name in measures),
        )
        .sort(KEYS)
    )
    steps = summed.with_columns(
        pl.col(name) - pl.col(name).shift(1).over(entity, order_by="landed_date").fill_null(0.0) for name in measures
    )
    shown = steps.with_columns(planned="impressions").select(pl.col(name).cast(kind) for name, kind in SHOWN_SCHEMA.items())
    converted = steps.filter((pl.col("conversions") != 0) | (pl.col("conversion_value") != 0)).with_columns(
        credited_date="landed_date"
    )
    return Log(
        shown.sort(KEYS),
        converted.select(pl.col(name).cast(kind) for name, kind in CONVERTED_SCHEMA.items()).sort(*KEYS, "credited_date"),
        "ad_reports",
    )


def code(frame: pl.DataFrame, names: Sequence[str], levels: dict[str, list[Any]]) -> dict[str, Integers]:
    """Codes of each column against given levels: see `code_of`."""
    return {name: code_of(frame[name], levels[name]) for name in names}


def code_of(column: pl.Series, levels: Sequence[Any]) -> Integers:
    """The place of each value among levels, none of them twice and numbers in order; -1 where it is none of them."""
    if column.dtype == pl.String:
        return column.cast(pl.Enum(levels), strict=False).to_physical().cast(pl.Int64).fill_null(-1).to_numpy()
    known = np.asarray(levels, dtype=np.int64)
    if not known.size:
        return np.full(len(column), -1, dtype=np.int64)
    values = column.cast(pl.Int64).fill_null(int(known[0]) - 1).to_numpy()
    place = np.minimum(np.searchsorted(known, values), known.size - 1)
    return np.where(known[place] == values, place, -1).astype(np.int64)


def day_numbers(frame: pl.DataFrame, column: str) -> Integers:
    """Days since EPOCH."""
    return frame[column].cast(pl.Int32).to_numpy().astype(np.int64)


def totals(index: Integers, weights: Floats, size: int) -> Floats:
    """Sum of the weights at each index 0..size - 1."""
    return np.asarray(np.bincount(index, weights=weights, minlength=size), dtype=np.float64)


def maturity_curve(shown_day: Integers, credited_day: Integers, conversions: Floats, today: int, window: int) -> Floats:
    """Share of a day's conversions credited within a days of landing, for a = 0..window, by chain ladder (Mack 1993).

    shown_day, credited_day: day numbers; conversions: new ones. Each development factor compares cohorts old enough for
    both ages; half a conversion is added on either side so that a thin log claims neither 0 nor 1. Returns window + 1 shares.
    """
    delay = np.clip(credited_day - shown_day, 0, window)
    age = today - shown_day
    seen = (credited_day <= today) & (age >= 0)
    curve = np.ones(window + 1)
    for a in range(window, 0, -1):
        cohort = seen & (age >= a)
        earlier = float(conversions[cohort & (delay < a)].sum())
        until = earlier + float(conversions[cohort & (delay == a)].sum())
        curve[a - 1] = curve[a] * (earlier + 0.5) / (until + 0.5)
    return curve
