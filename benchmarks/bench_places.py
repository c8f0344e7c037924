"""Stock in several places on held-out sales: how orders are shared and what transfers save, beside simpler rules and one pooled stock.

    MARKETING_DATA=... python benchmarks/bench_places.py [--every 4]

online_retail, its customers dealt by hash to six places of unequal size, whose demand is forecast for each; every fourth item of
those that bench_inventory.py takes. From 2011-05-19 on, 20 weeks: each week the whole item is ordered up to its reorder point, lead
time 7 days, shared among the places; each night transfers are proposed, which arrive after a day; unmet demand is lost. All rules
order by the same reorder points and start from the same stock, so that they differ in lost sales far more than in stock. Shares of
the past: of each place in the item's sales so far. By what is missing: in proportion to reorder point less what a place has. One
stock: all places sell from it, the bound of what sharing and moving can reach. The interval: 90 %, bootstrap over items.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bench_forecasting import FEE, Floats, data_folder, series_of
from benchmarks.bench_inventory import LEAD, REVIEW, START, WEEKS
from marketing_assets.config import Store
from marketing_assets.forecasting.calendar import public_holidays
from marketing_assets.forecasting.level_calendar import forecast_level_calendar
from marketing_assets.forecasting.panel import Panel
from marketing_assets.inventory import Demand, Supply, knot_values, simulate
from marketing_assets.inventory.places import PLACE, allocations, short_term, transfers

SIZES = (0.30, 0.25, 0.18, 0.13, 0.09, 0.05)
RULES = ("shares of the past", "by what is missing", "ours, nothing moved", "ours", "one stock")


@dataclass
class Week:
    """Forecasts in force for a week: of every item and place, item by item. point: (items,) of the whole; points, safety: (items, places)."""

    demand: Demand
    series: pl.DataFrame
    point: Floats
    points: Floats
    safety: Floats


@dataclass
class Sales:
    """names: items; units: (items, places, days from `first`); price: (items,); share: (items, places) of the past; begin: days past."""

    names: list[str]
    units: Floats
    price: Floats
    share: Floats
    first: date
    begin: int


def sales_by_place(every: int) -> Sales:
    files = str(data_folder() / "online_retail" / "events" / "*.csv.gz")
    rows = pl.scan_csv(files, schema_overrides={"InvoiceNo": pl.String, "StockCode": pl.String, "CustomerID": pl.String}).unique()
    sold = rows.filter(
        pl.col("Quantity") > 0, pl.col("UnitPrice") > 0, ~pl.col("InvoiceNo").str.starts_with("C"),
        ~pl.col("StockCode").str.strip_chars().str.to_uppercase().str.contains(FEE),
    )  # fmt: skip
    daily = sold.select(
        item=pl.col("StockCode").str.strip_chars().str.to_uppercase(), day=pl.col("InvoiceDate").cast(pl.String).str.slice(0, 10).str.to_date(),
        buyer=pl.coalesce("CustomerID", "InvoiceNo"), units="Quantity", revenue=pl.col("Quantity") * pl.col("UnitPrice"),
    ).collect()  # fmt: skip
    draw = (daily["buyer"].str.replace(r"\.0$", "").str.to_integer(strict=False).fill_null(0).to_numpy() * 2654435761 % 2**32) / 2**32
    place = np.minimum(np.searchsorted(np.cumsum(SIZES), draw, side="right"), len(SIZES) - 1)
    items, first = daily["item"].unique().sort(), daily["day"].min()
    assert isinstance(first, date)
    row = daily["item"].rank("dense").to_numpy().astype(np.int64) - 1
    day = (daily["day"] - first).dt.total_days().to_numpy()
    shape = len(items), len(SIZES), int(day.max()) + 1
    units = np.bincount(np.ravel_multi_index((row, place, day), shape), daily["units"].to_numpy(), int(np.prod(shape))).reshape(shape)
    revenue = np.bincount(row, daily["revenue"].to_numpy(), shape[0])
    begin = (START - first).days + 1
    whole = units.sum(axis=1)
    is_sold = whole[:, :begin] > 0
    first_sale = np.where(is_sold.any(axis=1), is_sold.argmax(axis=1), begin)
    chosen = np.flatnonzero((is_sold.sum(axis=1) >= 10) & (begin - 1 - first_sale >= 56) & is_sold[:, -28:].any(axis=1))[::every]
    past = units[chosen, :, :begin].sum(axis=2) + 0.5
    price = revenue[chosen] / whole[chosen].sum(axis=1)
    return Sales(np.array(items)[chosen].tolist(), units[chosen].astype(np.float64), price, past / past.sum(axis=1, keepdims=True), first, begin)


def week_of(sales: Sales, end: int, store: Store) -> Week:
    (items, places), first = sales.share.shape, sales.first
    closed = public_holidays("GB", first, first + timedelta(days=400))
    dates = [first + timedelta(days=number) for number in range(end + 28)]
    series = series_of([f"{name}|{place}" for name in sales.names for place in range(places)]).with_columns(
        item_id=pl.col("series_id").str.split("|").list.first(), location_id=pl.col("series_id").str.split("|").list.last()
    )
    flat = sales.units[:, :, :end].reshape(items * places, end)
    is_closed, none = np.array([day in closed for day in dates]), np.zeros(end + 28, dtype=bool)
    panel = Panel(series, first, flat, np.zeros(flat.shape, dtype=bool), is_closed, none, 28)
    forecast = forecast_level_calendar(panel)
    knots = knot_values(forecast.mean, forecast.quantiles).astype(np.float32)
    demand = Demand(dates[end - 1], series.select("item_id", "location_id"), forecast.mean, knots)
    totals = [list(range(item * places, (item + 1) * places)) for item in range(items)]
    rows = items * places + items
    lead, span = np.full(rows, LEAD, dtype=np.int64), np.full(rows, LEAD + REVIEW, dtype=np.int64)
    found = simulate(demand, totals, [Supply(0, np.full(rows, np.nan), lead, span, np.full(rows, store.inventory.service_level))], store)[0]
    points = found.reorder_point[: items * places].reshape(items, places)
    expected = forecast.mean[:, : LEAD + REVIEW].sum(axis=1).reshape(items, places)
    return Week(demand, series.select("item_id", "location_id"), found.reorder_point[items * places :], points, points - expected)


def placed(week: Week, day: date, **columns: Floats) -> pl.DataFrame:
    frame = week.series.with_columns(pl.lit(day).alias("as_of_date"))
    return frame.with_columns(pl.Series(name, values.ravel()) for name, values in columns.items())


def run(rule: str, sales: Sales, weeks: list[Week], store: Store) -> tuple[Floats, Floats, float]:
    """Units lost and average stock by item, and units moved."""
    share, (items, places) = sales.share, sales.share.shape
    stock = np.ceil(weeks[0].points)
    coming = np.zeros((LEAD + 1, items, places))
    arriving = np.zeros((items, places))  # moved, and there in the morning
    lost, held, moved = np.zeros(items), np.zeros(items), 0.0
    days = WEEKS * REVIEW
    for step in range(days):
        week = weeks[step // REVIEW]
        night = week.demand.issue + timedelta(days=step % REVIEW)
        if step % REVIEW == 0:
            position = (stock + coming.sum(axis=0) + arriving).sum(axis=1)
            ordered = np.maximum(np.ceil(week.point - position), 0.0)
            coming[LEAD] += _shared(rule, ordered, week, stock, coming.sum(axis=0) + arriving, share, night)
        morning = stock + arriving
        arriving = np.zeros_like(stock)
        if rule == "ours":
            told = placed(week, night, stock_on_hand=morning).with_columns(pl.col("stock_on_hand").cast(pl.Int64), is_room=pl.lit(False))
            found = transfers(told, short_term(week.demand, told, [night], store))
            quantity = told.join(found, on=PLACE, how="left", maintain_order="left")["transfer_quantity"].to_numpy().reshape(items, places)
            arriving = np.maximum(quantity, 0).astype(np.float64)
            morning = morning - np.maximum(-quantity, 0)
            moved += float(arriving.sum())
        stock = morning + coming[0]
        coming = np.concatenate([coming[1:], np.zeros((1, items, places))])
        asked = sales.units[:, :, sales.begin + step]
        if rule == "one stock":
            have = stock.sum(axis=1)
            sold = np.minimum(have, asked.sum(axis=1))
            lost += asked.sum(axis=1) - sold
            stock = (have - sold)[:, None] * share
        else:
            sold = np.minimum(stock, asked)
            lost += (asked - sold).sum(axis=1)
            stock = stock - sold
        held += stock.sum(axis=1)
    return lost, held / days, moved


def _shared(rule: str, ordered: Floats, week: Week, stock: Floats, coming: Floats, share: Floats, night: date) -> Floats:
    """(items, places) of the order of each item."""
    if rule in ("shares of the past", "one stock"):
        return _whole(ordered[:, None] * share, ordered)
    missing = np.maximum(week.points - stock - coming, 0.0)
    if rule == "by what is missing":
        total = missing.sum(axis=1, keepdims=True)
        return _whole(ordered[:, None] * np.where(total > 0, missing / np.where(total > 0, total, 1.0), share), ordered)
    told = placed(week, night, stock_on_hand=stock, stock_on_order=coming).with_columns(transfer_quantity=pl.lit(0), is_room=pl.lit(False))
    series = placed(week, night, reorder_point=week.points, safety_stock=week.safety)
    orders = told.select("as_of_date", "item_id").unique(maintain_order=True).with_columns(order_quantity=pl.Series(ordered.astype(np.int64)))
    found = allocations(orders, series, told)
    units = told.join(found, on=PLACE, how="left", maintain_order="left")["allocated_quantity"]
    return units.to_numpy().reshape(stock.shape).astype(np.float64)


def _whole(parts: Floats, totals: Floats) -> Floats:
    """Whole units by largest remainder."""
    base = np.floor(parts)
    rank = np.argsort(np.argsort(-(parts - base), axis=1, kind="stable"), axis=1, kind="stable")
    whole: Floats = base + (rank < np.round(totals - base.sum(axis=1))[:, None])
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--every", type=int, default=4, help="every so many items")
    given = parser.parse_args()
    sales = sales_by_place(given.every)
    store = Store.model_validate({"name": "b", "timezone": "UTC", "currency": "GBP", "first_day": sales.first, "sources": {"events": {"rows": [{}]}}})
    started = time.process_time()
    weeks = [week_of(sales, sales.begin + number * REVIEW, store) for number in range(WEEKS)]
    seconds = time.process_time() - started
    print(f"{len(sales.names)} items in {len(SIZES)} places, {WEEKS * REVIEW} days from {START}; forecasts {seconds:.0f} CPU s", flush=True)
    asked = sales.units[:, :, sales.begin : sales.begin + WEEKS * REVIEW].sum(axis=(1, 2))
    draws = np.random.default_rng(1).integers(0, len(sales.names), (500, len(sales.names)))
    base: Floats | None = None
    for rule in RULES:
        started = time.process_time()
        lost, held, moved = run(rule, sales, weeks, store)
        worth = lost * sales.price
        base = worth if base is None else base
        low, high = np.quantile(worth[draws].sum(axis=1) / base[draws].sum(axis=1), (0.05, 0.95))
        print(
            f"{rule:20s} lost {worth.sum() / (asked * sales.price).sum():.4f} of sales, "
            f"{worth.sum() / base.sum():.3f} [{low:.3f}, {high:.3f}] of the first's; stock {(held * sales.price).sum():,.0f}; "
            f"moved {moved / asked.sum():.3f} of units asked for; {time.process_time() - started:.0f} CPU s",
            flush=True,
        )


if __name__ == "__main__":
    main()
