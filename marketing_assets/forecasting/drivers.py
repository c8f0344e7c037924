"""Drivers known in advance: price, promotion, availability and planned ad spend by item, holidays and promotions by day.

What belongs here: what item_drivers and market_days said by an issue day. What does not: what they do to demand (learned.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from marketing_assets.config import Store
from marketing_assets.forecasting.panel import Flags, Floats, Integers
from marketing_assets.schemas import FURTHER
from marketing_assets.warehouse import Reader

AVAILABLE = "is_available"
SERIES_DRIVERS = {"unit_price": "price", "is_promotion": "promotion", "planned_ad_spend": "ad_spend"}
"""Column of item_drivers -> driver of the panel."""
_ORDER = ("held_since", "landed_date", "known_date", "raw_row_id")
"""What is told of one day, what counts last."""


class Drivers:
    """Every row of item_drivers and market_days that the issues of a window may read."""

    def __init__(self, reader: Reader, store: Store, series: pl.DataFrame, origin: date, issues: Sequence[date], horizon: int) -> None:
        self._origin = origin
        until = issues[-1] + timedelta(days=horizon)
        self._market = _known(reader, store, "market_days", origin, until, issues, ["is_holiday", "is_promotion", FURTHER], [])
        self._market = self._market.with_columns(date=pl.date_ranges("date", "end_date")).explode("date")
        columns = [*SERIES_DRIVERS, AVAILABLE]
        rows = _known(reader, store, "item_drivers", origin, until, issues, columns, ["item_id", "location_id"])
        everywhere = rows.filter(pl.col("location_id").is_null()).drop("location_id")
        own = rows.filter(pl.col("location_id").is_not_null())
        # a row of the series' own location comes after, and so goes before, one that holds everywhere
        self._rows = pl.concat(
            [
                everywhere.join(series.select("row", "item_id"), on="item_id").with_columns(is_own=pl.lit(False)),
                own.join(series.select("row", "item_id", "location_id"), on=["item_id", "location_id"])
                .drop("location_id").with_columns(is_own=pl.lit(True)),
            ]
        ).sort("is_own", *_ORDER, "row", "date")

    def market(self, issue: date, days: Sequence[date]) -> dict[str, Flags]:
        """is_holiday and is_promotion of each day as known at the end of `issue`; unknown is False."""
        rows = self._market.filter(pl.col("landed_date") <= issue, pl.col("known_date") <= issue)
        result = {}
        for name in ("is_holiday", "is_promotion"):
            known = dict(rows.filter(pl.col(name).is_not_null()).select("date", name).iter_rows())
            result[name] = np.array([bool(known.get(day, False)) for day in days], dtype=np.bool_)
        return result

    def further(self, issue: date, days: Sequence[date]) -> dict[str, Floats]:
        """The shop's own numbers of each day as known at the end of `issue`, by name; nan where unknown."""
        place = {day: number for number, day in enumerate(days)}
        rows = self._market.filter(pl.col("landed_date") <= issue, pl.col("known_date") <= issue, pl.col("date").is_in(days))
        result: dict[str, Floats] = {}
        for day, text in rows.filter(pl.col(FURTHER).is_not_null()).select("date", FURTHER).iter_rows():
            for name, value in json.loads(text).items():
                if (number := _number(value)) is not None:  # in order: the newest is written last
                    result.setdefault(name, np.full(len(days), np.nan))[place[day]] = number
        return {f"market_{name}": result[name] for name in sorted(result)}

    def of_series(self, issue: date, chosen: Integers, offset: int, whole: int) -> dict[str, Floats]:
        """Drivers (len(chosen), whole) as known at the end of `issue`, nan where unknown. closed: 1 where marked not available, 0 where available."""
        if self._rows.is_empty():
            return {}
        rows = self._rows.filter(pl.col("landed_date") <= issue, pl.col("known_date") <= issue)
        place = np.full(int(max(chosen.max(initial=0), rows["row"].max() or 0)) + 1, -1)
        place[chosen] = np.arange(len(chosen))
        row = place[rows["row"].to_numpy()]
        start, end = ((rows[name] - self._origin).dt.total_days().to_numpy() - offset for name in ("date", "end_date"))
        start, end = np.maximum(start, 0), np.minimum(end + 1, whole)
        drivers = {}
        for column, name in (*SERIES_DRIVERS.items(), (AVAILABLE, "closed")):
            values = rows[column].cast(pl.Float64).to_numpy()
            given = (row >= 0) & (start < end) & ~np.isnan(values)
            if given.any():
                lengths = (end - start)[given]
                day = np.arange(lengths.sum()) + np.repeat(start[given] - np.cumsum(lengths) + lengths, lengths)
                drivers[name] = np.full((len(chosen), whole), np.nan)
                # in order: the newest is written last
                drivers[name][np.repeat(row[given], lengths), day] = np.repeat(values[given], lengths)
        if "closed" in drivers:
            drivers["closed"] = 1 - drivers["closed"]
        return drivers


def _known(
    reader: Reader, store: Store, source: str, origin: date, until: date, issues: Sequence[date], columns: Sequence[str], key: Sequence[str]
) -> pl.DataFrame:
    """Accepted rows about days in [origin, until] landed by the last issue, what counts last at the end; none where the shop lacks the source."""
    schema: dict[str, Any] = {
        **dict.fromkeys(key, pl.String),
        **dict.fromkeys(("date", "end_date", "held_since", "landed_date", "known_date"), pl.Date), "raw_row_id": pl.String,
        **{name: pl.Boolean if name.startswith("is_") else pl.String if name == FURTHER else pl.Float64 for name in columns},
    }
    if not reader.has_source(source):
        return pl.DataFrame(schema=schema)
    from marketing_assets.cleaning import accepted_landed, by_range

    accepted = by_range(accepted_landed(reader, source, None, issues[-1]), source, store, origin, until, issues[0])
    frame = reader.frame(accepted.select(*key, "date", "end_date", "held_since", "landed_date", "known_at", "raw_row_id", *columns))
    local = pl.col("known_at").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").dt.convert_time_zone(store.timezone).dt.date()
    known = frame.with_columns(known_date=local.fill_null(pl.col("landed_date")))
    known = known.select(pl.col(name).cast(kind) for name, kind in schema.items())
    return known.sort(_ORDER)


def _number(value: Any) -> float | None:
    """A number, or the text of one, as cleaning accepts them; None where there is none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return float({"true": True, "false": False}.get(value.strip(), value)) if isinstance(value, str) else float(value)
