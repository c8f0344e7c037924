"""Demand forecasts against public forecasters on the same series, origins and hours.

    MARKETING_DATA=... python benchmarks/bench_forecasting.py [online_retail rossmann dominicks_beer speed] [--quick]

online_retail: 28 days from four origins; items with 10 selling days, first sale 56 days and last sale within 28 days before; the
origin day is history; weights are revenue of the last 28 days. WRMSSE of items, RMSSE of their sum, pinball loss over the nine M5
quantiles by the item's mean naive error, weighted likewise. Settings of ours were chosen on origins up to 2011-05-12. --quick leaves
out the peers that take minutes (AutoETS, Theta). The oracle knows each item's own mean and quantiles over the test's open days; "told"
are our learned forecasts drawn to what each item sells in the first 7 or 14 days of the test, on which they are scored, too: no forecaster,
but a measure of what a bar asks.
Needs the bench extra: statsforecast, mlforecast.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.demand_peers import PeerForecast, mlforecast_peer, statsforecast_peers
from marketing_assets.forecasting.calendar import public_holidays
from marketing_assets.forecasting.fits import fit_demand
from marketing_assets.forecasting.level_calendar import fit_levels, forecast_level_calendar
from marketing_assets.forecasting.panel import LEVELS, Panel
from marketing_assets.schemas import M5_QUANTILES

Floats = npt.NDArray[np.float64]
M5 = np.array(M5_QUANTILES)
IS_M5 = np.isin(LEVELS, M5_QUANTILES)
ORIGINS = (date(2011, 6, 16), date(2011, 7, 14), date(2011, 8, 18), date(2011, 9, 15))
HORIZON = 28
CANDIDATES = ("panel", "level_calendar", "seasonal_naive")
FEE = r"^(POST|DOT|M|C2|D|S|B|BANK CHARGES|AMAZONFEE|CRUK|PADS|GIFT_.*)$"
QUICK = ("SeasonalNaive", "CrostonSBA", "TSB", "ADIDA", "IMAPA")
SLOW = ("DynamicOptimizedTheta", "AutoETS")


def data_folder() -> Path:
    folder = os.environ.get("MARKETING_DATA")
    if not folder:
        sys.exit("set MARKETING_DATA to the folder of the public data sets")
    return Path(folder)


def series_of(names: Iterable[str], **columns: Any) -> pl.DataFrame:
    names = list(names)
    frame = pl.DataFrame({"series_id": names, "item_id": names})
    given = {"location_id": pl.lit(None, pl.String), "category": pl.lit(None, pl.String), "unit_price": pl.lit(1.0), **columns}
    return frame.with_columns(**given)


@dataclass(frozen=True)
class Case:
    """A panel at an origin, what came after it, and the weights of series."""

    panel: Panel
    truth: Floats
    weight: Floats
    dates: list[date]

    def score(self, mean: Floats, quantiles: Floats | None) -> dict[str, float]:
        """Definitions as in M5 (Makridakis et al. 2022), written out here apart from the system's own."""
        units = self.panel.units
        begun = np.arange(1, units.shape[1]) > self.panel.first_sale[:, None]
        steps = np.diff(units, axis=1)
        squared = (steps**2 * begun).sum(axis=1) / begun.sum(axis=1)
        absolute = (np.abs(steps) * begun).sum(axis=1) / begun.sum(axis=1)
        rmsse = np.sqrt(((self.truth - mean) ** 2).mean(axis=1) / squared)
        total = np.sqrt(((self.truth.sum(axis=0) - mean.sum(axis=0)) ** 2).mean() / (np.diff(units.sum(axis=0)) ** 2).mean())
        result = {"item_wrmsse": float((rmsse * self.weight).sum() / self.weight.sum()), "shop_rmsse": float(total)}
        if quantiles is not None:
            difference = self.truth[:, :, None] - quantiles
            pinball = np.maximum(M5 * difference, (M5 - 1) * difference).mean(axis=(1, 2)) / absolute
            result["pinball"] = float((pinball * self.weight).sum() / self.weight.sum())
        return result


def retail_units() -> tuple[list[str], Floats, Floats, date]:
    """Items, units and revenue by day, read here apart from the system's own cleaning."""
    files = str(data_folder() / "online_retail" / "events" / "*.csv.gz")
    rows = pl.scan_csv(files, schema_overrides={"InvoiceNo": pl.String, "StockCode": pl.String, "CustomerID": pl.String}).unique()
    sold = rows.filter(
        pl.col("Quantity") > 0, pl.col("UnitPrice") > 0, ~pl.col("InvoiceNo").str.starts_with("C"),
        ~pl.col("StockCode").str.strip_chars().str.to_uppercase().str.contains(FEE),
    )  # fmt: skip
    item, day = pl.col("StockCode").str.strip_chars().str.to_uppercase(), pl.col("InvoiceDate").cast(pl.String).str.slice(0, 10)
    daily = (
        sold.group_by(item=item, day=day.str.to_date())
        .agg(units=pl.col("Quantity").sum(), revenue=(pl.col("Quantity") * pl.col("UnitPrice")).sum())
        .sort("item", "day")
        .collect()
    )
    items = daily["item"].unique().sort()
    first, last = daily["day"].min(), daily["day"].max()
    assert isinstance(first, date)
    assert isinstance(last, date)
    at = (daily["item"].rank("dense").to_numpy() - 1, (daily["day"] - first).dt.total_days().to_numpy())
    units, revenue = (np.zeros((len(items), (last - first).days + 1)) for _ in range(2))
    units[at], revenue[at] = daily["units"].to_numpy(), daily["revenue"].to_numpy()
    return items.to_list(), units, revenue, first


def retail_case(origin: date, data: tuple[list[str], Floats, Floats, date]) -> Case:
    items, units, revenue, first = data
    end = (origin - first).days + 1
    past = units[:, :end]
    is_sold = past > 0
    first_sale = np.where(is_sold.any(axis=1), is_sold.argmax(axis=1), end)
    last_sale = np.where(is_sold.any(axis=1), end - 1 - is_sold[:, ::-1].argmax(axis=1), -end)
    chosen = (is_sold.sum(axis=1) >= 10) & (end - 1 - first_sale >= 56) & (end - 1 - last_sale <= 28)
    dates = [first + timedelta(days=number) for number in range(end + HORIZON)]
    closed = public_holidays("GB", dates[0], dates[-1])
    paid = revenue[chosen, :end].sum(axis=1) / past[chosen].sum(axis=1)
    panel = Panel(
        series_of(np.array(items)[chosen].tolist(), unit_price=pl.Series(paid)), first, past[chosen], np.zeros((int(chosen.sum()), end), dtype=bool),
        np.array([day in closed for day in dates]), np.zeros(end + HORIZON, dtype=bool), HORIZON,
    )  # fmt: skip
    weight = np.maximum(revenue[chosen, max(0, end - 28) : end].sum(axis=1), 0.0)
    return Case(panel, units[chosen, end : end + HORIZON], weight, dates)


def baselines(case: Case) -> dict[str, PeerForecast]:
    """Two honest simple ones, and the oracle."""
    panel, known = case.panel, case.panel.known
    is_open = (panel.units > 0).any(axis=0)
    weekday = np.array([day.weekday() for day in case.dates])
    shape = np.zeros(7)
    totals = panel.units.sum(axis=0)
    for place in range(7):
        days = np.flatnonzero((weekday[:known] == place) & is_open)[-12:]
        shape[place] = totals[days].mean() if days.size > 2 else 0.0
    shape /= shape[shape > 0].mean()
    opened = PeerForecast(*_croston_on_open_days(panel.units[:, is_open], case.dates), 0.0)
    result = {"CrostonSBA on open days x weekday": PeerForecast(opened.mean[:, :1] * shape[weekday[known:]], None, 0.0)}
    for window in (28, 112):
        flat = np.quantile(panel.units[:, -window:], M5, axis=1).T
        mean = np.repeat(panel.units[:, -window:].mean(axis=1, keepdims=True), HORIZON, axis=1)
        result[f"flat quantiles of {window} days"] = PeerForecast(mean, np.repeat(flat[:, None], HORIZON, axis=1), 0.0)
    test_open = (case.truth > 0).any(axis=0)
    mean = case.truth[:, test_open].mean(axis=1, keepdims=True) * test_open
    flat = np.quantile(case.truth[:, test_open], M5, axis=1, method="inverted_cdf").T
    result["oracle"] = PeerForecast(mean, flat[:, None] * test_open[:, None], 0.0)
    return result


def told(case: Case, forecast: PeerForecast, days: int) -> PeerForecast:
    """The forecast times what each item sells in the first days of the test over what was expected, drawn to 1 as by a prior as strong as they."""
    sold, expected = (units[:, :days].sum(axis=1, keepdims=True) for units in (case.truth, forecast.mean))
    factor = np.divide(sold + expected, 2 * expected, out=np.ones_like(sold), where=expected > 0)
    quantiles = None if forecast.quantiles is None else forecast.quantiles * factor[:, :, None]
    return PeerForecast(forecast.mean * factor, quantiles, 0.0)


def _croston_on_open_days(units: Floats, dates: list[date]) -> tuple[Floats, None]:
    found = statsforecast_peers(units, dates[: units.shape[1]], 1, ("CrostonSBA",))
    return found["CrostonSBA"].mean, None


def ours(panel: Panel, threads: int) -> dict[str, PeerForecast]:
    started = time.process_time()
    plain = forecast_level_calendar(panel, fit_levels(panel))
    middle = time.process_time()
    model, _ = fit_demand(panel, CANDIDATES, 1, threads, np.ones(panel.count, dtype=np.bool_))
    learned, used = model.forecast(panel, threads)
    print(f"    winners {model.winners}; series by forecaster {dict(zip(*np.unique(used, return_counts=True), strict=True))}")
    return {
        "ours, plain": PeerForecast(plain.mean, plain.quantiles[:, :, IS_M5], middle - started),
        "ours, learned": PeerForecast(learned.mean, learned.quantiles[:, :, IS_M5], time.process_time() - middle),
    }


def online_retail(quick: bool, threads: int) -> None:
    data = retail_units()
    table: dict[str, list[dict[str, float]]] = {}
    for origin in ORIGINS:
        case = retail_case(origin, data)
        print(f"{origin}: {case.panel.count} items")
        calibration(case, forecast_level_calendar(case.panel).quantiles)
        found = {**ours(case.panel, threads), **baselines(case)}
        found |= {f"told the first {days} days": told(case, found["ours, learned"], days) for days in (7, 14)}
        found["mlforecast LightGBM"] = mlforecast_peer(case.panel.units, case.dates, HORIZON, threads=threads)
        found |= statsforecast_peers(case.panel.units, case.dates[: case.panel.known], HORIZON, QUICK if quick else QUICK + SLOW)
        for name, forecast in found.items():
            scores = {**case.score(forecast.mean, forecast.quantiles), "cpu": forecast.seconds}
            table.setdefault(name, []).append(scores)
            print(f"    {name:36s} " + "  ".join(f"{key} {value:.4f}" for key, value in scores.items()), flush=True)
    print("averaged over origins, in brackets the spread:")
    means = {}
    for name, rows in table.items():
        means[name] = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        spread = {key: float(np.std([row[key] for row in rows])) for key in rows[0]}
        print(f"    {name:36s} " + "  ".join(f"{key} {value:.4f} ({spread[key]:.3f})" for key, value in means[name].items()))
    peers = [name for name in means if not name.startswith(("ours", "oracle", "told", "CrostonSBA on", "flat"))]
    for kind in ("plain", "learned"):
        mine = means[f"ours, {kind}"]
        for key, bar in (("item_wrmsse", 0.90), ("shop_rmsse", 0.85), ("pinball", 0.60)):
            best = min((name for name in peers if key in means[name]), key=lambda name: means[name][key])
            oracle, *of_told = (means[name][key] / means[best][key] for name in ("oracle", *(f"told the first {days} days" for days in (7, 14))))
            print(
                f"    {kind}: {key} {mine[key] / means[best][key]:.3f} x {best} (bar {bar}), oracle {oracle:.3f} x, "
                f"told 7 days {of_told[0]:.3f} x, told 14 days {of_told[1]:.3f} x"
            )
        simple = means["CrostonSBA on open days x weekday"]["item_wrmsse"]
        flat = min(means[f"flat quantiles of {window} days"]["pinball"] for window in (28, 112))
        item, pinball = mine["item_wrmsse"] / simple, mine["pinball"] / flat
        print(f"    {kind}: item {item:.3f} x CrostonSBA on open days (bar 0.97), pinball {pinball:.3f} x flat (bar 0.88)")


def distribution(quantiles: Floats, value: Floats) -> Floats:
    """P(units <= value) by the quantiles (m, levels) of m days: the level reached, linear between distinct quantiles, 0 below zero."""
    levels = np.concatenate([LEVELS, [1.0]])
    knots = np.concatenate([quantiles, quantiles[:, -1:] * 2 + 1], axis=1)
    upper = (knots <= value[:, None]).sum(axis=1)
    row = np.arange(len(value))
    below = np.where(upper > 0, levels[np.maximum(upper - 1, 0)], 0.0)
    low = np.where(upper > 0, knots[row, np.maximum(upper - 1, 0)], -1.0)
    high, above = knots[row, np.minimum(upper, len(levels) - 1)], levels[np.minimum(upper, len(levels) - 1)]
    share = np.clip((value - low) / np.maximum(high - low, 1e-9), 0.0, 1.0)
    return np.where(value < 0, 0.0, below + share * (above - below))


def calibration(case: Case, quantiles: Floats) -> None:
    """Coverage of the 80 and 90 % intervals on open days by volume class, of the last 112 days: randomised PIT, and plain.

    exact: what the same randomised PIT finds for quantiles that are exact, those of an item's last 112 days for days drawn from them.
    """
    rng = np.random.default_rng(0)
    is_open = (case.truth > 0).any(axis=0)
    past = case.panel.units[:, -112:]
    past = past[:, (past > 0).any(axis=0)]
    drawn = past[:, rng.integers(0, past.shape[1], int(is_open.sum()))]
    known = np.quantile(past, LEVELS, axis=1, method="inverted_cdf").T
    truth, found = case.truth[:, is_open], quantiles[:, is_open]
    rate = case.panel.units[:, -112:].mean(axis=1) * 112 / np.maximum((case.panel.units[:, -112:] > 0).any(axis=0).sum(), 1)
    for low, high in ((0.0, 0.5), (0.5, 2.0), (2.0, 10.0), (10.0, np.inf)):
        ours = (rate >= low) & (rate < high)
        y, q = truth[ours].ravel(), found[ours].reshape(-1, len(LEVELS))
        if not y.size:
            continue

        def covered(y: Floats, q: Floats) -> list[float]:
            before, after = distribution(q, y - 1), distribution(q, y)
            place = before + rng.random(y.size) * (after - before)
            return [float(((place >= tail) & (place <= 1 - tail)).mean()) for tail in (0.1, 0.05)]

        pit, exact = covered(y, q), covered(drawn[ours].ravel(), np.repeat(known[ours], drawn.shape[1], axis=0))
        index = [list(LEVELS).index(level) for level in (0.1, 0.9, 0.05, 0.95)]
        plain = [float(((y >= q[:, index[side]]) & (y <= q[:, index[side + 1]])).mean()) for side in (0, 2)]
        print(f"    {low}-{high} a day, {int(ours.sum())} items: PIT 80 % {pit[0]:.3f}, 90 % {pit[1]:.3f} (exact {exact[0]:.3f}, {exact[1]:.3f}); "
              f"plain {plain[0]:.3f}, {plain[1]:.3f}")


def rossmann(threads: int, weeks_back: int = 0) -> None:
    """The last six weeks, known drivers given; days without sales do not count, as in the competition. weeks_back: an earlier window."""
    rows = pl.read_parquet(data_folder() / "rossmann" / "train.parquet")
    newest = rows["Date"].max()
    assert isinstance(newest, date)
    last, horizon = newest - timedelta(weeks=weeks_back), 42
    origin = last - timedelta(days=horizon)
    known = min(850, (origin - date(2013, 1, 1)).days + 1)
    dates = [origin - timedelta(days=known - 1 - number) for number in range(known + horizon)]
    rows = rows.filter(pl.col("Date").is_between(dates[0], last)).sort("Store", "Date")
    stores = rows.group_by("Store").agg(kind=pl.concat_str("StoreType", "Assortment").first()).sort("Store")
    at = (rows["Store"].rank("dense").to_numpy() - 1, (rows["Date"] - dates[0]).dt.total_days().to_numpy())

    def grid(values: pl.Expr) -> Floats:
        found = np.zeros((stores.height, known + horizon))
        found[at] = rows.select(values.cast(pl.Float64)).to_series().to_numpy()
        return found

    day = pl.col("Date")
    age = (day.dt.year() - pl.col("CompetitionOpenSinceYear")) * 12 + day.dt.month() - pl.col("CompetitionOpenSinceMonth")
    month = day.dt.strftime("%b").replace("Sep", "Sept")
    began = pl.col("Promo2SinceYear") * 53 + pl.col("Promo2SinceWeek") <= day.dt.iso_year() * 53 + day.dt.week()
    drivers = {
        "promotion": grid(pl.col("Promo")), "closed": 1.0 - grid(pl.col("Open")), "school_holiday": grid(pl.col("SchoolHoliday")),
        "state_holiday": grid(pl.col("StateHoliday").fill_null("0") != "0"),
        "competition_months": grid(pl.when(pl.col("CompetitionOpenSinceYear") > 0).then(age.clip(-6, 36)).otherwise(-7)),
        "second_promotion": grid((pl.col("Promo2") == 1) & began & pl.col("PromoInterval").fill_null("").str.contains(month, literal=True)),
    }  # fmt: skip
    sales = grid(pl.col("Sales"))
    panel = Panel(
        series_of(map(str, stores["Store"]), category=stores["kind"]), dates[0], sales[:, :known], drivers["closed"][:, :known] > 0,
        np.zeros(known + horizon, dtype=bool), np.zeros(known + horizon, dtype=bool), horizon, drivers,
    )  # fmt: skip
    truth = sales[:, known:]
    counted = truth > 0
    found = ours(panel, threads)
    found["mlforecast LightGBM, same drivers"] = mlforecast_peer(panel.units, dates, horizon, drivers, threads)
    found |= statsforecast_peers(panel.units, dates[:known], horizon, ("SeasonalNaive",))
    for name, forecast in found.items():
        error = float(np.sqrt((((truth - forecast.mean) / np.where(counted, truth, 1.0))[counted] ** 2).mean()))
        print(f"    {name:36s} RMSPE {error:.4f}  cpu {forecast.seconds:.1f}", flush=True)


def dominicks_beer(threads: int, weeks_back: int = 0) -> None:
    """Eight weeks ahead, prices known; store x product series sold in the last eight weeks and 26 weeks or more in all.

    weeks_back: an earlier window, on which settings may be chosen.
    """
    rows = pl.read_parquet(data_folder() / "dominicks_beer" / "sales.parquet").sort("STORE", "UPC", "WEEK")
    horizon, known = 8, 156
    last = int(rows["WEEK"].max()) - weeks_back  # type: ignore[operator]
    first = last - horizon - known + 1
    rows = rows.filter(pl.col("WEEK").is_between(first, last)).with_columns(name=pl.concat_str("STORE", "UPC", separator="|")).sort("name", "WEEK")
    names = rows["name"].unique().sort()
    at = (rows["name"].rank("dense").to_numpy() - 1, rows["WEEK"].to_numpy() - first)
    units, price = np.zeros((len(names), known + horizon)), np.full((len(names), known + horizon), np.nan)
    units[at], price[at] = rows["MOVE"].to_numpy(), rows["PRICE"].to_numpy()
    chosen = ((units[:, :known] > 0).sum(axis=1) >= 26) & (units[:, known - 8 : known] > 0).any(axis=1)
    units, price = units[chosen], price[chosen]
    start = date(1989, 9, 14) + timedelta(weeks=first - 1)
    panel = Panel(
        series_of(names.filter(pl.Series(chosen)).to_list()), start, units[:, :known], np.zeros((len(units), known), dtype=bool),
        np.zeros(known + horizon, dtype=bool), np.zeros(known + horizon, dtype=bool), horizon, {"price": price}, step_days=7, season=1,
    )  # fmt: skip
    weight = np.ones(len(units))
    dates = [start + timedelta(weeks=week) for week in range(known + horizon)]
    case = Case(panel, units[:, known:], weight, dates)
    levels = fit_levels(panel)
    place = levels.effects.names.index("price")
    slope = levels.effects.pooled[place] + levels.effects.own[:, place]
    volume = panel.units[:, -52:].sum(axis=1)
    print(f"    {panel.count} series; price response negative for {volume[slope < 0].sum() / volume.sum():.3f} of the volume (bar 0.9)")
    filled = np.nan_to_num(np.where(np.isnan(price), np.nanmedian(price, axis=1, keepdims=True), price))
    found = ours(panel, threads)
    found["mlforecast LightGBM, same drivers"] = mlforecast_peer(panel.units, dates, horizon, {"price": filled}, threads, freq="1w")
    found |= statsforecast_peers(panel.units, dates[:known], horizon, QUICK, season=1, freq="1w")
    for name, forecast in found.items():
        scores = {**case.score(forecast.mean, forecast.quantiles), "cpu": forecast.seconds}
        print(f"    {name:36s} " + "  ".join(f"{key} {value:.4f}" for key, value in scores.items()), flush=True)


def speed(threads: int) -> None:
    """Fit and 28-day quantiles; the bar is 15 s and 2 GiB for 3,000 items x 250 days, and cost linear to 30,000 items."""
    import resource

    for count in (3_000, 30_000):
        rng = np.random.default_rng(count)
        level = rng.lognormal(0, 1.2, (count, 1))
        units = rng.negative_binomial(1, 1 / (1 + level), (count, 250)).astype(float)
        panel = Panel(
            series_of([f"i{row:05d}" for row in range(count)]), date(2025, 1, 6), units, np.zeros(units.shape, dtype=bool),
            np.zeros(278, dtype=bool), np.zeros(278, dtype=bool), HORIZON,
        )  # fmt: skip
        wall = time.perf_counter()
        for name, forecast in ours(panel, threads).items():
            print(f"    {count} items x 250 days, {name}: {forecast.seconds:.1f} CPU seconds")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"    both {time.perf_counter() - wall:.1f} s wall, at most {peak:.2f} GiB so far")
        if count == 3_000:
            part = units[:100]
            dates = [date(2025, 1, 6) + timedelta(days=number) for number in range(250)]
            statsforecast_peers(part[:2], dates, HORIZON, ("AutoETS",))
            seconds = statsforecast_peers(part, dates, HORIZON, ("AutoETS",))["AutoETS"].seconds * count / len(part)
            print(f"    statsforecast AutoETS, from 100 items: {seconds:.0f} CPU seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description="demand forecasts beside public forecasters")
    parser.add_argument("sets", nargs="*", default=["online_retail", "rossmann", "dominicks_beer", "speed"])
    parser.add_argument("--quick", action="store_true", help="without the peers that take minutes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--weeks-back", type=int, default=0, help="rossmann, dominicks_beer: an earlier window, on which settings may be chosen")
    given = parser.parse_args()
    for name in given.sets:
        print(name)
        if name == "online_retail":
            online_retail(given.quick, given.threads)
        elif name == "speed":
            speed(given.threads)
        else:
            {"dominicks_beer": dominicks_beer, "rossmann": rossmann}[name](given.threads, given.weeks_back)


if __name__ == "__main__":
    main()
