"""How far demand forecasts were off, by level, over 1, 7 and 28 days after their issue.

What belongs here: RMSSE, WRMSSE, pinball loss, coverage and bias of `demand_forecasts` beside the seasonal naive. What does
not: making forecasts (forecasting.py).

The newest issue is scored every day one day ahead, and over 7 and 28 days from the day it was issued. Errors are scaled by
the series' own naive errors since its first sale (Hyndman and Koehler 2006; M5), over at most HISTORY_DAYS of units as they
landed; weights are revenue of the 28 days before the issue. Days without a sale count as zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from marketing_assets.config import Store
from marketing_assets.evaluation.queries import Tables, query
from marketing_assets.evaluation.windows import REPORT, Arrival, empty_report, finish, scored_windows
from marketing_assets.intervals import normal_quantile
from marketing_assets.schemas import M5_QUANTILES, QUANTILE_COLUMNS
from marketing_assets.warehouse import Reader

Floats = npt.NDArray[np.float64]

HORIZONS = (1, 7, 28)
HISTORY_DAYS = 400
WEIGHT_DAYS = 28
CHUNK_DAYS = 112
"""Days whose history of units is held at once."""
FORECAST_CHUNK_DAYS = 28
"""Days whose forecasts are held at once."""
KEY_MARK = "\x1f"
"""Between an item and its location in a series' key."""
ISSUE_LOOK_BACK = 35
"""A forecast is written at least this often; older ones no longer reach the day scored."""
ESTABLISHED = {"selling_days": 10, "first_sale_days": 56, "last_sale_days": 28}
"""Items of segment history = established at issue: enough selling days, old enough, still selling."""


def look_back(store: Store) -> int:
    """Days of item_days read before the first day of a window (demand_forecasts: ISSUE_LOOK_BACK + 28 + maturity_days)."""
    return HISTORY_DAYS + max(HORIZONS) + store.maturity_days + ISSUE_LOOK_BACK


class History:
    """Units and revenue per series and landed day, with the running sums that scales and weights need.

    units: series x days, by landed day from `start`. Everything asked as of a day uses columns up to that day only.
    """

    def __init__(self, units: Floats, revenue: Floats, start: date) -> None:
        self.units, self.start = units, start
        steps = np.diff(units, axis=1, prepend=units[:, :1])
        self.squared = np.cumsum(steps**2, axis=1)
        self.absolute = np.cumsum(np.abs(steps), axis=1)
        self.revenue = np.cumsum(revenue, axis=1)
        self.selling = np.cumsum(units > 0, axis=1)
        days = units.shape[1]
        sold_at = np.where(units > 0, np.arange(days), days)
        self.next_sale = np.minimum.accumulate(sold_at[:, ::-1], axis=1)[:, ::-1]
        self.last_sale = np.maximum.accumulate(np.where(units > 0, np.arange(days), -1), axis=1)

    def column(self, day: date) -> int:
        return (day - self.start).days

    def scales(self, day: date) -> tuple[Floats, Floats]:
        """Mean squared and mean absolute one-step naive error from the first sale to `day`; nan without two days of history."""
        end = self.column(day)
        first = self.next_sale[:, max(0, end - HISTORY_DAYS + 1)]
        steps = end - first
        rows = np.arange(first.size)
        at = np.minimum(first, end)
        with np.errstate(divide="ignore", invalid="ignore"):
            squared = np.where(steps > 0, (self.squared[:, end] - self.squared[rows, at]) / steps, np.nan)
            absolute = np.where(steps > 0, (self.absolute[:, end] - self.absolute[rows, at]) / steps, np.nan)
        return np.where(squared > 0, squared, np.nan), np.where(absolute > 0, absolute, np.nan)

    def weights(self, day: date) -> Floats:
        """Revenue of the last WEIGHT_DAYS, never negative."""
        end = self.column(day)
        weights: Floats = np.maximum(self.revenue[:, end] - self.revenue[:, max(0, end - WEIGHT_DAYS)], 0.0)
        return weights

    def established(self, day: date) -> npt.NDArray[np.bool_]:
        end = self.column(day)
        begin = max(0, end - HISTORY_DAYS + 1)
        before = self.selling[:, begin - 1] if begin else 0
        flags: npt.NDArray[np.bool_] = (
            (self.selling[:, end] - before >= ESTABLISHED["selling_days"])
            & (end - self.next_sale[:, begin] >= ESTABLISHED["first_sale_days"])
            & (end - self.last_sale[:, end] <= ESTABLISHED["last_sale_days"])
        )
        return flags

    def seasonal_naive(self, day: date, steps: int) -> Floats:
        """The same weekday of the newest known week, series x steps."""
        end = self.column(day)
        columns = [end - 6 + (step % 7) for step in range(steps)]
        return np.stack([self.units[:, column] if column >= 0 else np.zeros(len(self.units)) for column in columns], axis=1)

    def grouped(self, groups: npt.NDArray[np.int64], count: int) -> History:
        """The history of groups of series (-1: none)."""
        daily = np.diff(self.revenue, axis=1, prepend=0.0)
        return History(sum_rows(self.units, groups, count), sum_rows(daily, groups, count), self.start)


def sum_rows(values: Floats, groups: npt.NDArray[np.int64], count: int) -> Floats:
    """Rows added up by group; group -1 is left out."""
    return np.stack([values[groups == group].sum(axis=0) for group in range(count)])


def score_demand(reader: Reader, days: Sequence[date], store: Store, seen: Arrival) -> pl.DataFrame:
    """Report rows of the concept 'demand'."""
    frames = [_score_chunk(reader, days[first : first + CHUNK_DAYS], store, seen) for first in range(0, len(days), CHUNK_DAYS)]
    return pl.concat(frames)


@dataclass(frozen=True)
class Sales:
    """Units by item (and location): the history by landed day, and increments by event day for outcomes."""

    index: pl.DataFrame
    history: History
    rows: npt.NDArray[np.int64]
    units: Floats
    event_day: npt.NDArray[np.int64]
    landed_day: npt.NDArray[np.int64]

    def outcomes(self, as_of: date, first: date, steps: int) -> Floats:
        """Units per item and day of a window as known at as_of."""
        begin = self.history.column(first)
        part = slice(*np.searchsorted(self.event_day, [begin, begin + steps]))
        known = self.landed_day[part] <= self.history.column(as_of)
        at = self.rows[part][known] * steps + self.event_day[part][known] - begin
        items = self.index.height
        return np.bincount(at, self.units[part][known], items * steps).astype(np.float64).reshape(items, steps)


def _windows(reader: Reader, days: Sequence[date], store: Store, seen: Arrival) -> pl.DataFrame:
    """Windows with the issue they score: one day ahead of the newest issue, longer ones from the day of issue."""
    windows = scored_windows(days, HORIZONS, seen, store.first_day).filter(pl.col("issued_date") >= store.first_day)
    if windows.height == 0:
        return windows.with_columns(issue="issued_date")
    oldest = windows["issued_date"].min() - timedelta(days=ISSUE_LOOK_BACK)  # type: ignore[operator]
    issues = issues_query(reader, oldest, windows["issued_date"].max()).sort("issue")
    return (
        windows.sort("issued_date")
        .join_asof(issues, left_on="issued_date", right_on="issue", coalesce=False)
        .filter(pl.col("issue").is_not_null(), (pl.col("horizon_days") == 1) | (pl.col("issue") == pl.col("issued_date")))
    )


def _score_chunk(reader: Reader, days: Sequence[date], store: Store, seen: Arrival) -> pl.DataFrame:
    windows = _windows(reader, days, store, seen)
    if windows.height == 0:
        return empty_report()
    issues = windows["issue"].unique().sort().to_list()
    forecast = forecast_items_query(reader, issues[0], issues[-1])
    has_location = forecast["location_id"].is_not_null().any()
    sales = _read_sales(reader, issues[0] - timedelta(days=HISTORY_DAYS), days[-1], forecast, has_location)
    groups: dict[bytes, History] = {}
    rows: list[dict[str, object]] = []
    z = normal_quantile(store.evaluation.interval)
    blocks: dict[int, list[date]] = {}
    for issue in issues:
        blocks.setdefault((issue - issues[0]).days // FORECAST_CHUNK_DAYS, []).append(issue)
    for block in blocks.values():
        scored = windows.filter(pl.col("issue").is_in(block))
        said = forecasts_query(reader, has_location, block[0], block[-1], scored["start_date"].min(), scored["outcome_date"].max())
        parts = said.filter(pl.col("as_of_date").is_in(block)).partition_by("as_of_date", "level", as_dict=True)
        for issue, level in sorted(parts):
            of_issue = scored.filter(pl.col("issue") == issue).sort("as_of_date", "outcome_date", "horizon_days").to_dicts()
            rows += _score_issue(reader, issue, level, parts[issue, level], of_issue, sales, groups, z)
    if not rows:
        return empty_report()
    frame = pl.DataFrame(rows, schema_overrides={name: REPORT[name] for name in rows[0]}, infer_schema_length=None)
    return finish(frame.with_columns(concept=pl.lit("demand"), policy_id=pl.lit("all")), windows)


@query
def issues_query(table: Tables, start: date, end: date) -> Any:
    forecasts = table("demand_forecasts")
    return forecasts.filter(forecasts.as_of_date.between(start, end)).select(issue="as_of_date").distinct()


@query
def forecasts_query(table: Tables, has_location: bool, first_issue: date, last_issue: date, start: date, end: date) -> Any:
    """Issues of [first_issue, last_issue] for dates of [start, end]; key: the item (and location) or the series."""
    import ibis

    forecasts = table("demand_forecasts")
    chosen = forecasts.filter(
        forecasts.as_of_date.between(first_issue, last_issue),
        forecasts.date.between(start, end),
        forecasts.date <= forecasts.as_of_date + ibis.interval(days=ISSUE_LOOK_BACK),
    )
    item = chosen.item_id + KEY_MARK + ibis.coalesce(chosen.location_id, "") if has_location else chosen.item_id
    key = ibis.ifelse(chosen.level == "item", item, chosen.series_id)
    return chosen.select("as_of_date", "level", "date", "demand_mean", *QUANTILE_COLUMNS.values(), key=key)


@query
def forecast_items_query(table: Tables, start: date, end: date) -> Any:
    forecasts = table("demand_forecasts")
    chosen = forecasts.filter(forecasts.as_of_date.between(start, end), forecasts.level == "item")
    return chosen.select("item_id", "location_id").distinct()


@query
def units_query(table: Tables, has_location: bool, start: date, end: date) -> Any:
    sold = table("item_days")
    sold = sold.filter(sold.landed_date.between(start, end))
    by = ["item_id", *(["location_id"] if has_location else []), "event_date", "landed_date"]
    return sold.group_by(by).agg(units=sold.units_sold.sum(), revenue=sold.revenue.sum().cast("float64"))


def _read_sales(reader: Reader, start: date, end: date, forecast: pl.DataFrame, has_location: bool) -> Sales:
    """Sales of every item sold or forecast; an item without a sale so far has a row of zeros."""
    units = units_query(reader, has_location, start, end).with_columns(key=_item_key(has_location))
    keys = pl.concat([units["key"], forecast.select(key=_item_key(has_location))["key"]])
    index = pl.DataFrame({"key": keys.unique().sort()}).with_row_index("row")
    units = units.join(index, on="key", how="left").sort("event_date", "row", "landed_date")
    row = units["row"].to_numpy().astype(np.int64)
    event_day, landed_day = ((units[name] - start).dt.total_days().to_numpy() for name in ("event_date", "landed_date"))
    width = (end - start).days + 1

    def grid(column: str) -> Floats:
        values = units[column].to_numpy().astype(float)
        return np.bincount(row * width + landed_day, values, index.height * width).astype(np.float64).reshape(index.height, width)

    return Sales(
        index, History(grid("units"), grid("revenue"), start), row, units["units"].to_numpy().astype(float), event_day, landed_day
    )


def _score_issue(
    reader: Reader,
    issue: date,
    level: str,
    part: pl.DataFrame,
    windows: list[dict[str, Any]],
    sales: Sales,
    cache: dict[bytes, History],
    z: float,
) -> list[dict[str, object]]:
    """Report rows of one issue and level."""
    if level == "item":
        keys, series, groups = sales.index, sales.history, None
    else:
        keys = pl.DataFrame({"key": part["key"].unique().sort()}).with_row_index("row")
        groups = (
            _category_of(reader, issue, sales.index, keys)
            if level == "category"
            else np.zeros(sales.index.height, dtype=np.int64)
        )
        name = groups.tobytes()
        if name not in cache:
            cache[name] = sales.history.grouped(groups, keys.height)
        series = cache[name]
    quantiles, mean, present, first_day = _forecast_grid(part, keys)
    scales, weights = series.scales(issue), series.weights(issue)
    rows: list[dict[str, object]] = []
    for window in windows:
        steps = window["horizon_days"]
        offset = (window["start_date"] - first_day).days
        if offset < 0 or offset + steps > mean.shape[1]:
            continue
        days = slice(offset, offset + steps)
        usable: npt.NDArray[np.bool_] = np.asarray(present[:, days].all(axis=1))
        if not usable.any():
            continue
        truth = sales.outcomes(window["as_of_date"], window["start_date"], steps)
        if groups is not None:
            truth = sum_rows(truth, groups, keys.height)
        naive = series.seasonal_naive(issue, (window["outcome_date"] - issue).days)[:, -steps:]
        errors = series_errors(truth, mean[:, days], quantiles[:, days], naive, *scales, weights)
        segments: dict[tuple[str, str], npt.NDArray[np.bool_]] = {("level", level): usable}
        if level == "item":
            segments["history", "established"] = usable & series.established(issue)
        head = {name: window[name] for name in ("as_of_date", "outcome_date", "issued_date", "horizon_days")}
        for (segment_type, segment), mask in segments.items():
            rows += [{**head, "segment_type": segment_type, "segment": segment, **row} for row in summarise(errors, mask, z)]
    return rows


def _item_key(has_location: bool) -> pl.Expr:
    return pl.concat_str("item_id", pl.col("location_id").fill_null(""), separator=KEY_MARK) if has_location else pl.col("item_id")


def _category_of(reader: Reader, issue: date, index: pl.DataFrame, keys: pl.DataFrame) -> npt.NDArray[np.int64]:
    """Row of each item's category as the catalogue had it at issue; -1 where it has none that was forecast."""
    catalogue = reader.log_as_of("items", issue, ["item_id", "category"])
    joined = (
        index.with_columns(item_id=pl.col("key").str.split(KEY_MARK).list.first())
        .join(catalogue, on="item_id", how="left")
        .join(keys.rename({"row": "group", "key": "category"}), on="category", how="left")
        .sort("row")
    )
    return joined["group"].cast(pl.Int64).fill_null(-1).to_numpy()


def _forecast_grid(part: pl.DataFrame, keys: pl.DataFrame) -> tuple[Floats, Floats, npt.NDArray[np.bool_], date]:
    """Quantiles (series x days x quantile), means and presence (series x days) of one issue and level."""
    first: date = part["date"].min()  # type: ignore[assignment]
    last: date = part["date"].max()  # type: ignore[assignment]
    width = (last - first).days + 1
    placed = part.join(keys, on="key", how="inner")
    at = (placed["row"].to_numpy().astype(np.int64), (placed["date"] - first).dt.total_days().to_numpy())
    quantiles = np.zeros((keys.height, width, len(QUANTILE_COLUMNS)))
    quantiles[at] = placed.select(QUANTILE_COLUMNS.values()).to_numpy()
    mean = np.zeros((keys.height, width))
    mean[at] = placed["demand_mean"].to_numpy()
    present = np.zeros((keys.height, width), dtype=bool)
    present[at] = True
    return quantiles, mean, present, first


_LEVELS = np.array(list(QUANTILE_COLUMNS))
_M5 = np.isin(_LEVELS, M5_QUANTILES)


def series_errors(
    truth: Floats, mean: Floats, quantiles: Floats, naive: Floats, squared_scale: Floats, absolute_scale: Floats, weights: Floats
) -> dict[str, Floats]:
    """Per series: errors of a forecast and of the naive over one window.

    truth, mean, naive: series x days; quantiles: series x days x len(QUANTILE_COLUMNS).
    """
    difference = truth[:, :, None] - quantiles[:, :, _M5]
    pinball = np.maximum(_LEVELS[_M5] * difference, (_LEVELS[_M5] - 1) * difference).mean(axis=(1, 2))
    naive_pinball = np.abs(truth - naive).mean(axis=1) * 0.5  # the nine levels average one half

    def inside(low: float, high: float) -> Floats:
        lower, upper = quantiles[:, :, list(_LEVELS).index(low)], quantiles[:, :, list(_LEVELS).index(high)]
        shares: Floats = ((truth >= lower) & (truth <= upper)).mean(axis=1)
        return shares

    return {
        "rmsse": np.sqrt(((truth - mean) ** 2).mean(axis=1) / squared_scale),
        "naive_rmsse": np.sqrt(((truth - naive) ** 2).mean(axis=1) / squared_scale),
        "pinball": pinball,
        "naive_pinball": naive_pinball,
        "scaled_pinball": pinball / absolute_scale,
        "naive_scaled_pinball": naive_pinball / absolute_scale,
        "coverage_80": inside(0.1, 0.9),
        "coverage_90": inside(0.05, 0.95),
        "predicted": mean.sum(axis=1),
        "observed": truth.sum(axis=1),
        "naive_predicted": naive.sum(axis=1),
        "weight": weights,
    }


def summarise(errors: dict[str, Floats], mask: npt.NDArray[np.bool_], z: float) -> list[dict[str, object]]:
    """Rows of one segment: each metric as a (weighted) mean over series with a linearised interval over series."""
    scaled = mask & np.isfinite(errors["rmsse"])
    one = np.ones(mask.size)
    weight = errors["weight"]
    weighted = weight if float(weight[scaled].sum()) > 0 else one
    metrics = [
        ("wrmsse", errors["rmsse"] * weighted, weighted, scaled, "seasonal_naive", errors["naive_rmsse"] * weighted),
        ("rmsse", errors["rmsse"], one, scaled, "seasonal_naive", errors["naive_rmsse"]),
        (
            "scaled_pinball_loss",
            errors["scaled_pinball"] * weighted,
            weighted,
            scaled,
            "seasonal_naive",
            errors["naive_scaled_pinball"] * weighted,
        ),
        ("pinball_loss", errors["pinball"], one, mask, "seasonal_naive", errors["naive_pinball"]),
        ("coverage_80", errors["coverage_80"], one, mask, "nominal", 0.8 * one),
        ("coverage_90", errors["coverage_90"], one, mask, "nominal", 0.9 * one),
        ("calibration_ratio", errors["predicted"], errors["observed"], mask, "seasonal_naive", errors["naive_predicted"]),
    ]
    rows: list[dict[str, object]] = []
    for metric, num, den, chosen, baseline, base in metrics:
        count = int(chosen.sum())
        if count == 0:
            continue
        top, bottom = num[chosen], den[chosen]
        numerator, denominator = float(top.sum()), float(bottom.sum())
        value = low = high = reference = None
        if denominator > 0:
            value, reference = numerator / denominator, float(base[chosen].sum()) / denominator
            if count > 1:
                spread = z * float(np.sqrt(((top - value * bottom) ** 2).sum() * count / (count - 1))) / denominator
                low, high = value - spread, value + spread
        rows.append(
            {
                "metric": metric,
                "value": value,
                "numerator": numerator,
                "denominator": denominator,
                "baseline": baseline,
                "baseline_value": reference,
                "ci_low": low,
                "ci_high": high,
                "n": count,
            }
        )
    return rows
