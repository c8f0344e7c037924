"""Drift of the catalogue: what of the assortment cannot be bought, and what became dearer or cheaper.

What belongs here: daily figures of stock and list prices. What does not: what customers do about them (signals.py), and prices paid,
which offers move every week.

Items count by what they brought in over the four weeks before a day, so that goods nobody buys weigh nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from marketing_assets.drift.panels import HISTORY
from marketing_assets.evaluation.queries import Tables, query
from marketing_assets.warehouse import Reader

Floats = npt.NDArray[np.float64]

WEIGHING_DAYS = 28
"""What an item brought in over so many days before a day is its weight on it."""
PRICE_DAYS = 7
"""Prices of a day are held against those so many days before."""
LARGEST_CHANGE = float(np.log(2))
"""A price more than doubled or halved counts as that: of one item it is more often a slip."""


@query
def items_query(table: Tables, start: date, end: date) -> Any:
    items = table("items")
    known = items.filter(items.as_of_date.between(start, end), ~items.is_service)
    price = known.has_list_price.ifelse(known.unit_price.cast("float64"), None)
    return known.select("as_of_date", "item_id", price=price, stock=known.stock_on_hand)


@query
def sold_query(table: Tables, start: date, end: date) -> Any:
    days = table("item_days")
    days = days.filter(days.landed_date.between(start, end))
    said = (days.event_date == days.landed_date).ifelse(days.is_available, None)
    nowhere = (~said).any().fill_null(False) & ~said.any().fill_null(False)
    return days.group_by("landed_date", "item_id").agg(revenue=days.gross_revenue.cast("float64").sum(), is_gone=nowhere)


def read_catalogue(reader: Reader, days: Sequence[date]) -> pl.DataFrame:
    """signals.HISTORY rows of `days`, each as known at its end.

    items.unavailable_share: share of what sells whose stock is 0 or that was said to be available nowhere, where either is known.
    items.price_change: mean log ratio of list prices to those PRICE_DAYS before, of items with both.
    """
    first = max(reader.store.first_day, days[0] - timedelta(days=WEIGHING_DAYS + PRICE_DAYS))
    known = items_query(reader, reader.keyframe_before(first), days[-1])
    sold = sold_query(reader, first, days[-1])
    width = (days[-1] - first).days + 1
    names = pl.concat([known["item_id"], sold["item_id"]]).unique().sort()
    at = pl.DataFrame({"item_id": names, "row": pl.int_range(len(names), eager=True)})
    known = known.join(at, on="item_id").with_columns(column=(pl.col("as_of_date") - first).dt.total_days().clip(0)).sort("as_of_date")
    sold = sold.join(at, on="item_id").with_columns(column=(pl.col("landed_date") - first).dt.total_days())

    def in_force(name: str) -> Floats:
        """items x days: the newest entry up to each day, nan before the first."""
        grid = np.full((len(names), width), np.nan)
        seen = np.zeros(grid.shape, dtype=bool)
        place = known["row"].to_numpy(), known["column"].to_numpy()
        grid[place], seen[place] = known[name].cast(pl.Float64).fill_null(np.nan).to_numpy(), True
        newest = np.maximum.accumulate(np.where(seen, np.arange(width), 0), axis=1)
        return np.take_along_axis(grid, newest, axis=1)

    def laid_out(name: str) -> Floats:
        grid = np.zeros((len(names), width))
        grid[sold["row"].to_numpy(), sold["column"].to_numpy()] = sold[name].cast(pl.Float64).to_numpy()
        return grid

    total = np.cumsum(np.pad(laid_out("revenue"), ((0, 0), (WEIGHING_DAYS + 1, 0))), axis=1)
    weight = np.round(total[:, WEIGHING_DAYS:-1] - total[:, :-WEIGHING_DAYS - 1], 4)
    stock, price, told = in_force("stock"), in_force("price"), laid_out("is_gone") > 0
    is_known = np.isfinite(stock) | told
    price = np.where(price > 0, price, np.nan)
    change = np.clip(np.log(price[:, PRICE_DAYS:] / price[:, :-PRICE_DAYS]), -LARGEST_CHANGE, LARGEST_CHANGE)
    change = np.pad(change, ((0, 0), (min(PRICE_DAYS, width), 0)), constant_values=np.nan)
    figures = [
        ("items.unavailable_share", "stock", "level", (stock <= 0) | told, np.where(is_known, weight, 0.0)),
        ("items.price_change", "price", "distance", np.nan_to_num(change), np.where(np.isfinite(change), weight, 0.0)),
    ]
    dates = pl.select(date=pl.date_range(first, days[-1])).to_series()
    frames = []
    for metric, family, shape, value, by in figures:
        top, bottom = (value * by).sum(axis=0), by.sum(axis=0)
        rows = pl.DataFrame({"date": dates, "observed": top, "expected": bottom}).filter(pl.col("expected") > 0, pl.col("date") >= days[0])
        heads = {"metric": metric, "family": family, "shape": shape, "segment_type": "all", "segment": "all"}
        share = (pl.col("observed") / pl.col("expected")).round(9) + 0.0  # no -0.0
        rows = rows.with_columns(known_date="date", value=share, variance=pl.lit(0.0), **{name: pl.lit(text) for name, text in heads.items()})
        frames.append(rows.select(list(HISTORY)).cast(HISTORY))
    return pl.concat(frames)
