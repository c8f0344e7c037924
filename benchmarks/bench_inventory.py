"""Stock kept on held-out sales: our reorder points against a normal-approximation safety stock on a moving average.

    MARKETING_DATA=... python benchmarks/bench_inventory.py [learned]

Both order once a week up to their own reorder point, lead time 7 days, unmet demand is lost; items as in bench_forecasting.py; from
2011-05-19 on, 20 weeks. The service level of each is moved until average stock, valued at the item's mean price, is that of the
other; lost sales are compared in value at equal stock. The peer: mean and standard deviation of the last 56 days' daily units,
reorder point = 14 mean + z sqrt(14) sd, the textbook's (Silver, Pyke and Thomas 2017). covered: share of items and weeks whose demand
over lead time and review stayed within the reorder point, which a calibrated one has at its service level.
"""

from __future__ import annotations

import sys
import time
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from scipy.special import ndtri

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bench_forecasting import CANDIDATES, Floats, retail_units, series_of
from marketing_assets.config import Store
from marketing_assets.forecasting.calendar import public_holidays
from marketing_assets.forecasting.fits import fit_demand
from marketing_assets.forecasting.level_calendar import forecast_level_calendar
from marketing_assets.forecasting.panel import Panel
from marketing_assets.inventory import Demand, Supply, knot_values, simulate

START, WEEKS, LEAD, REVIEW, WINDOW = date(2011, 5, 19), 20, 7, 7, 56
LEVELS = (0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995)


def run(units: Floats, points: Floats) -> tuple[Floats, Floats]:
    """Average stock and units lost per item. units: (n, days); points: (n, weeks) order-up-to level set at each week's start."""
    stock = points[:, 0].copy()
    arriving = np.zeros_like(stock)
    held, lost = np.zeros_like(stock), np.zeros_like(stock)
    for day in range(units.shape[1]):
        if day % REVIEW == 0:
            # what was ordered a week ago arrives before today's order goes out
            stock += arriving
            arriving = np.maximum(points[:, day // REVIEW] - stock, 0.0)
        sold = np.minimum(stock, units[:, day])
        lost += units[:, day] - sold
        stock -= sold
        held += stock
    return held / units.shape[1], lost


def main() -> None:
    methods = "learned" if "learned" in sys.argv[1:] else "plain"
    items, all_units, revenue, first = retail_units()
    begin = (START - first).days + 1
    past = all_units[:, :begin]
    is_sold = past > 0
    first_sale = np.where(is_sold.any(axis=1), is_sold.argmax(axis=1), begin)
    chosen = (is_sold.sum(axis=1) >= 10) & (begin - 1 - first_sale >= 56) & is_sold[:, -28:].any(axis=1)
    units = all_units[chosen]
    price = revenue[chosen].sum(axis=1) / np.maximum(units.sum(axis=1), 1.0)
    names = np.array(items)[chosen].tolist()
    paid = revenue[chosen, :begin].sum(axis=1) / past[chosen].sum(axis=1)
    series = series_of(names, unit_price=pl.Series(paid))
    closed = public_holidays("GB", first, first + timedelta(days=400))
    days = WEEKS * REVIEW
    future = units[:, begin : begin + days]
    mine = {level: np.zeros((len(units), WEEKS)) for level in LEVELS}
    peer = {level: np.zeros((len(units), WEEKS)) for level in LEVELS}
    model = None
    store = Store.model_validate(
        {"name": "b", "timezone": "UTC", "currency": "GBP", "first_day": first, "sources": {"events": {"rows": [{}]}}}
    )
    started = time.process_time()
    for week in range(WEEKS):
        end = begin + week * REVIEW
        dates = [first + timedelta(days=number) for number in range(end + 28)]
        panel = Panel(
            series, first, units[:, :end], np.zeros((len(units), end), dtype=bool), np.array([day in closed for day in dates]),
            np.zeros(end + 28, dtype=bool), 28,
        )  # fmt: skip
        if methods == "learned" and week % 4 == 0:
            model, _ = fit_demand(panel, CANDIDATES, 1, 1, np.ones(len(units), dtype=np.bool_))
        forecast = forecast_level_calendar(panel) if model is None else model.forecast(panel, 1)[0]
        knots = knot_values(forecast.mean, forecast.quantiles).astype(np.float32)
        demand = Demand(first + timedelta(days=end - 1), series.select("item_id", "location_id"), forecast.mean, knots)
        lead, span = np.full(len(units), LEAD, dtype=np.int64), np.full(len(units), LEAD + REVIEW, dtype=np.int64)
        supplies = [Supply(0, np.full(len(units), np.nan), lead, span, np.full(len(units), level)) for level in LEVELS]
        recent = units[:, end - WINDOW : end]
        mean, deviation = recent.mean(axis=1), recent.std(axis=1)
        for level, lead_time in zip(LEVELS, simulate(demand, [], supplies, store), strict=True):
            mine[level][:, week] = np.ceil(lead_time.reorder_point)
            peer[level][:, week] = np.ceil((LEAD + REVIEW) * mean + ndtri(level) * np.sqrt(LEAD + REVIEW) * deviation)
    seconds = time.process_time() - started
    sold = float((future * price[:, None]).sum())
    # what was asked for over lead time and review, from each week on
    asked = [future[:, start : start + LEAD + REVIEW].sum(axis=1) for start in range(0, days - LEAD - REVIEW + 1, REVIEW)]
    rows = []
    for name, policy in (("ours", mine), ("normal on moving average", peer)):
        for level in LEVELS:
            held, lost = run(future, policy[level])
            covered = float(np.mean([asked[week] <= policy[level][:, week] for week in range(len(asked))]))
            rows.append((name, level, covered, float((held * price).sum()), float((lost * price).sum()) / sold))
    table = pl.DataFrame(rows, schema=["policy", "service_level", "covered", "stock_value", "lost_share"], orient="row")
    print(f"{len(units)} items, {days} days from {START}, methods {methods}, {seconds:.0f} CPU seconds")
    with pl.Config(tbl_rows=40):
        print(table)
    ours, theirs = (table.filter(pl.col("policy") == name).sort("stock_value") for name in ("ours", "normal on moving average"))
    print("lost sales at equal average stock (bar 0.80):")
    for stock, lost, level in theirs.select("stock_value", "lost_share", "service_level").iter_rows():
        values = ours["stock_value"].to_numpy()
        if values[0] <= stock <= values[-1]:
            found = float(np.interp(stock, values, ours["lost_share"].to_numpy()))
            print(f"    peer at {level}: stock {stock:,.0f}, lost {lost:.4f}; ours {found:.4f}; ratio {found / lost:.3f}")


if __name__ == "__main__":
    main()
