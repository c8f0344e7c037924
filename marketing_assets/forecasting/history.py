"""What was known of demand on each issue day: sales so far, the catalogue, what blocked sales, known drivers.

What belongs here: reading, once per window, and cutting what one issue may see out of it. What does not: forecasting.

An issue of day O sees item_days landed up to O, drivers and market days known by O, and the items log in force at O.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import polars as pl

from marketing_assets.config import Store
from marketing_assets.features.items import stock_of_places
from marketing_assets.forecasting.calendar import public_holidays
from marketing_assets.forecasting.drivers import Drivers
from marketing_assets.forecasting.panel import Flags, Floats, Integers, Panel
from marketing_assets.forecasting.silences import reopening, silences
from marketing_assets.warehouse import Reader, days_between

ENDED_DAYS = 112
"""An item without a sale for so long has ended, unless it sold at this time of the last year."""
RETURN_DAYS = 28
"""An ended item returns where it sold in the year-old counterpart of the horizon, widened by so many days."""
NEW_DAYS = 56
"""An item first seen within so many days is forecast before its first sale."""
YEAR = 364
SIGNALS = ("views", "carts")
"""Columns of item_days that run ahead of sales."""


def series_name(item_id: str, location_id: str | None) -> str:
    """The item, and the location where the data has one; '|' in an id is doubled, so that no two pairs share a name."""
    if location_id is None:
        return item_id
    return f"{item_id.replace('|', '||')}|{location_id.replace('|', '||')}"


class DemandHistory:
    """All that the issues of a window read; `panel(issue)` gives what one of them may see."""

    def __init__(self, reader: Reader, issues: Sequence[date], store: Store, horizon: int) -> None:
        self._reader, self._store, self._horizon = reader, store, horizon
        self._length = store.forecasting.history_days
        self._origin = max(store.first_day, issues[0] - timedelta(days=self._length - 1))
        last = issues[-1]
        since = self._origin - timedelta(days=store.cleaning.future_tolerance_days)
        columns = ["landed_date", "event_date", "item_id", "location_id", "units_sold", *SIGNALS]
        sold = reader.window("item_days", since, last, columns).filter(pl.col("event_date") >= self._origin)
        # an item not sold yet is one series without a place
        unsold = self._catalogue(last).select("item_id", location_id=pl.lit(None, pl.String))
        series = pl.concat([sold.filter(pl.col("units_sold") > 0).select("item_id", "location_id"), unsold]).unique()
        self._series = series.sort("item_id", "location_id", nulls_last=False).with_row_index("row")
        names = [series_name(*pair) for pair in self._series.select("item_id", "location_id").iter_rows()]
        self._series = self._series.with_columns(series_id=pl.Series(names, dtype=pl.String))
        self._item: Integers = self._series["item_id"].rank("dense").to_numpy().astype(np.int64) - 1
        placed = sold.join(self._series, on=["item_id", "location_id"], how="inner", nulls_equal=True).sort("landed_date", "event_date", "row")
        self._row: Integers = placed["row"].to_numpy().astype(np.int64)
        self._day: Integers = (placed["event_date"] - self._origin).dt.total_days().to_numpy().astype(np.int64)
        self._landed: Integers = (placed["landed_date"] - self._origin).dt.total_days().to_numpy().astype(np.int64)
        self._units: Floats = placed["units_sold"].to_numpy().astype(np.float64)
        self._signals = {name: placed[name].to_numpy().astype(np.float64) for name in SIGNALS if placed[name].sum()}
        self._drivers = Drivers(reader, store, self._series, self._origin, issues, horizon)
        self._items = _ItemsLog(reader, self._series, self._origin, last)
        self._holidays = public_holidays(store.forecasting.country, self._origin, last + timedelta(days=horizon))

    def _catalogue(self, day: date) -> pl.DataFrame:
        """item_id, category, unit_price, first_seen_date in force at the end of `day`; fees are no items."""
        columns = ["item_id", "category", "unit_price", "first_seen_date", "is_service"]
        items = self._reader.log_as_of("items", day, columns).filter(~pl.col("is_service"))
        return items.drop("is_service").with_columns(pl.col("unit_price").cast(pl.Float64))

    def panel(self, issue: date) -> Panel:
        """The panel as known at the end of `issue`: series still alive, sorted by item and location."""
        start = max(self._store.first_day, issue - timedelta(days=self._length - 1))
        offset, known = (start - self._origin).days, (issue - start).days + 1
        whole = known + self._horizon
        upto = int(np.searchsorted(self._landed, offset + known, side="left"))
        day = self._day[:upto]
        inside = (day >= offset) & (day < offset + known)
        at = self._row[:upto][inside] * known + day[inside] - offset
        count = self._series.height
        units = np.bincount(at, self._units[:upto][inside], count * known).astype(np.float64).reshape(count, known)
        # views and carts have no place, so that every place of an item has the item's
        at = self._item[self._row[:upto][inside]] * known + day[inside] - offset
        signals = {
            name: np.bincount(at, values[:upto][inside], count * known).astype(np.float64).reshape(count, known)
            for name, values in self._signals.items()
        }
        catalogue = self._catalogue(issue)
        described = self._series.join(catalogue, on="item_id", how="left", maintain_order="left")
        chosen = np.flatnonzero(alive(units, self._horizon) | self._is_new(described, units, issue))
        days = days_between(start, issue + timedelta(days=self._horizon))
        market = self._drivers.market(issue, days)
        is_holiday = np.array([each in self._holidays for each in days], dtype=np.bool_) | market["is_holiday"]
        drivers = self._drivers.of_series(issue, chosen, offset, whole)
        unavailable = drivers["closed"][:, :known] == 1 if "closed" in drivers else np.zeros((len(chosen), known), dtype=np.bool_)
        prices = self._items.list_prices(chosen, offset, known, self._horizon)
        if "price" in drivers:
            prices = np.where(np.isnan(drivers["price"]), prices, drivers["price"])
        if (np.fmax.reduce(prices, axis=1) > np.fmin.reduce(prices, axis=1)).any():  # what never moved says nothing
            drivers["price"] = prices
        for name, values in self._drivers.further(issue, days).items():
            drivers[name] = np.broadcast_to(values, (len(chosen), whole))
        blocked = self._items.blocked(chosen, offset, known) | unavailable
        silent = silences(units[chosen], blocked)
        blocked |= silent.past
        if "closed" in drivers:
            ending, drivers["closed"] = reopening(silent.lasting, drivers["closed"])
            blocked |= ending
        series = described[chosen].select("series_id", "item_id", "location_id", "category", "unit_price")
        # a place may take up an item long after the shop did
        since = pl.when(pl.col("location_id").is_null()).then((pl.col("first_seen_date") - start).dt.total_days())
        first_seen = described[chosen].select(since.fill_null(known).clip(0, known)).to_series().to_numpy().astype(np.int64)
        return Panel(
            series=series, start=start, units=units[chosen], is_blocked=blocked, is_holiday=is_holiday,
            is_promotion=market["is_promotion"], horizon=self._horizon, drivers=drivers,
            signals={name: values[self._item[chosen]] for name, values in signals.items()}, first_seen=first_seen,
        )

    def _is_new(self, described: pl.DataFrame, units: Floats, issue: date) -> Flags:
        """Series of items first seen lately and not sold anywhere."""
        since = issue - timedelta(days=NEW_DAYS)
        is_fresh = (described["first_seen_date"] > since).fill_null(False) & described["location_id"].is_null()
        sold_items = np.bincount(self._item, (units > 0).any(axis=1), self._series.height)
        return np.asarray(is_fresh.to_numpy() & (sold_items[self._item] == 0))


def alive(units: Floats, horizon: int) -> Flags:
    """(n,) series with a sale in the last ENDED_DAYS, or a year before the horizon."""
    known = units.shape[1]
    recent = (units[:, max(0, known - ENDED_DAYS) :] > 0).any(axis=1)
    begin, end = known - YEAR - RETURN_DAYS, known - YEAR + horizon + RETURN_DAYS
    if end <= 0:
        return np.asarray(recent)
    return np.asarray(recent | (units[:, max(0, begin) : end] > 0).any(axis=1))


class _ItemsLog:
    """What the items log said of series day by day: days that ended and had begun without stock, and list prices."""

    def __init__(self, reader: Reader, series: pl.DataFrame, origin: date, last: date) -> None:
        table = reader.table("items")
        log = table.filter(table.as_of_date.between(reader.keyframe_before(max(origin, reader.store.first_day)), last))
        entries = reader.frame(log.select("as_of_date", "item_id", "unit_price", "has_list_price", "stock_on_hand", "stock_by_location"))
        if not entries["stock_on_hand"].count() and not entries["has_list_price"].any():
            entries = entries.clear()
        placed = stock_of_places(entries).select("as_of_date", "item_id", "location_id", of_place="stock_on_hand")
        by_place = pl.col("location_id").is_not_null() & ~pl.col("stock_by_location").fill_null("[]").eq("[]")
        stock = pl.when(by_place).then("of_place").otherwise("stock_on_hand")
        self._changes = (
            entries.join(series.select("row", "item_id", "location_id"), on="item_id", how="inner")
            .join(placed, on=["as_of_date", "item_id", "location_id"], how="left")
            .select(
                pl.col("row").cast(pl.Int64),
                day=(pl.col("as_of_date") - pl.lit(origin)).dt.total_days(),
                is_out=(stock <= 0).fill_null(False),
                list_price=pl.when("has_list_price").then(pl.col("unit_price").cast(pl.Float64)),  # a price paid follows demand
            )
            .sort("row", "day")
        )

    def blocked(self, chosen: Integers, offset: int, known: int) -> Flags:
        """(len(chosen), known) whether nothing could be sold."""
        blocked = np.zeros((len(chosen), known), dtype=np.bool_)
        if self._changes["is_out"].any():
            newest, is_out = self._newest(chosen, offset, known), self._changes["is_out"].to_numpy()
            at_end = np.where(newest >= 0, is_out[newest], False)
            blocked[:, 1:] = at_end[:, 1:] & at_end[:, :-1]
        return blocked

    def list_prices(self, chosen: Integers, offset: int, known: int, horizon: int) -> Floats:
        """(len(chosen), known + horizon) the list price in force on each day, nan where there is none; the last one goes on."""
        if not self._changes["list_price"].count():
            return np.full((len(chosen), known + horizon), np.nan)
        newest, price = self._newest(chosen, offset, known), self._changes["list_price"].fill_null(np.nan).to_numpy()
        prices = np.where(newest >= 0, price[newest], np.nan)
        return np.concatenate([prices, np.repeat(prices[:, -1:], horizon, axis=1)], axis=1)

    def _newest(self, chosen: Integers, offset: int, known: int) -> Integers:
        """(len(chosen), known) the newest change at or before each day, -1 before the first."""
        newest = np.full((len(chosen), known), -1, dtype=np.int64)
        place = np.full(int(max(chosen.max(initial=0), self._changes["row"].max() or 0)) + 1, -1)
        place[chosen] = np.arange(len(chosen))
        upto = np.flatnonzero((self._changes["day"] < offset + known).to_numpy())
        row = place[self._changes["row"].to_numpy()[upto]]
        day = np.maximum(self._changes["day"].to_numpy()[upto] - offset, 0)
        ours = row >= 0
        # a change holds until the next: carried along each row as its place among the changes, which are sorted by day
        np.maximum.at(newest, (row[ours], day[ours]), upto[ours])
        return np.maximum.accumulate(newest, axis=1)
