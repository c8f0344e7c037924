"""Order proposals: what to keep, when to order and how much, from demand forecasts and stock.

What belongs here: reading what a day knows, reorder points, order quantities, what may be promised. What does not: lead-time
demand (simulation.py), what goes to which place (places.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from marketing_assets.config import InventorySettings, Store
from marketing_assets.features.items import items_in_force, stock_of_places
from marketing_assets.inventory.places import ITEM, PLACE, allocations, short_term, transfers
from marketing_assets.inventory.simulation import Demand, Floats, Integers, LeadTime, Supply, demand_of, no_demand, simulate
from marketing_assets.parallel import in_threads
from marketing_assets.schemas import QUANTILE_COLUMNS
from marketing_assets.warehouse import Built, Reader, polars_schema

if TYPE_CHECKING:
    import ibis.expr.types as ir

TABLE = "inventory_plan"
COVER_DAYS = 14
"""Days of the forecast that days of cover rest on; beyond them their mean goes on."""
ISSUES_AT_ONCE = 4
"""Issues read in one query."""
ISSUE_LOOK_BACK = 400
"""Days a forecast stays in force at most; where none is newer, there is none."""
DECIMALS = 4

_STOCK = ("stock_on_hand", "stock_on_order", "lead_time_days", "pack_size", "minimum_order_quantity", "unit_cost", "unit_price", "category",
          "stock_by_location")  # fmt: skip


def build_inventory(reader: Reader, days: Sequence[date], store: Store) -> Built:
    """inventory_plan of a contiguous window of days.

    Reads the demand_forecasts in force on each day (the newest issue within ISSUE_LOOK_BACK days) and the items log in force.
    """
    if not reader.has_source("events"):
        return Built({TABLE: pl.DataFrame(schema=polars_schema(TABLE))}, degraded={TABLE: "needs source 'events'"})
    catalogue = _catalogue(reader, days)
    frames = [pl.DataFrame(schema=polars_schema(TABLE))]
    metrics: dict[date, dict[str, float]] = {}

    def planned(run: tuple[list[date], Demand]) -> tuple[list[date], pl.DataFrame, float]:
        part, demand = run
        started = time.thread_time()
        return part, _plan_of_issue(demand, part, catalogue, store), time.thread_time() - started

    for part, rows, seconds in in_threads(planned, _runs(reader, days, catalogue, store), store.threads):
        frames.append(rows)
        counts = rows.group_by("as_of_date").agg(pl.len(), pl.col("order_quantity").sum())
        found = {day: (items, units) for day, items, units in counts.iter_rows()}
        for day in part:
            items, units = found.get(day, (0, 0))
            metrics[day] = {"items": float(items), "units_to_order": float(units), "scoring_seconds": seconds / len(part)}
    return Built({TABLE: pl.concat(frames)}, metrics={TABLE: metrics})


def _runs(
    reader: Reader, days: Sequence[date], catalogue: pl.DataFrame, store: Store
) -> Iterator[tuple[list[date], Demand]]:
    """Runs of days with the forecasts in force on them, as far as the days need them."""
    table = reader.table("demand_forecasts")
    since = days[0] - timedelta(days=ISSUE_LOOK_BACK)
    found = reader.frame(table.filter(table.as_of_date.between(since, days[-1])).select("as_of_date").distinct())
    issues = sorted(found["as_of_date"].to_list())
    runs: dict[date | None, list[date]] = {}
    for day in days:
        runs.setdefault(max((each for each in issues if each <= day), default=None), []).append(day)
    longest = max(int(catalogue["lead_time_days"].max() or 0), store.inventory.default_lead_time_days)  # type: ignore[arg-type]
    ahead = max(longest + store.inventory.review_period_days, COVER_DAYS, store.inventory.transfer_cover_days)
    dated = [(issue, part) for issue, part in runs.items() if issue is not None]
    if None in runs:
        yield runs[None], no_demand(runs[None][0], len(runs[None]) + ahead)
    for first in range(0, len(dated), ISSUES_AT_ONCE):
        block = dated[first : first + ISSUES_AT_ONCE]
        steps = {issue: (part[-1] - issue).days + ahead for issue, part in block}
        rows = _read_forecasts(reader, table, list(steps), max(steps.values()))
        for issue, part in block:
            yield part, demand_of(issue, rows.filter(pl.col("as_of_date") == issue), steps[issue])


def _read_forecasts(reader: Reader, table: ir.Table, issues: Sequence[date], steps: int) -> pl.DataFrame:
    chosen = table.filter(table.as_of_date.isin(issues), table.level == "item", table.horizon_days <= steps)
    names = ["as_of_date", "item_id", "location_id", "horizon_days", "demand_mean", *QUANTILE_COLUMNS.values()]
    return reader.frame(chosen.select(*names))


def _catalogue(reader: Reader, days: Sequence[date]) -> pl.DataFrame:
    """What the items log said of stock and supply: item_id, from_date, until_date (excluded) and columns of _STOCK; fees are no items."""
    columns = {name: (lambda log, name=name: log[name]) for name in (*_STOCK, "is_service")}
    frame = reader.frame(items_in_force(reader, days, columns))
    return frame.filter(~pl.col("is_service")).drop("is_service").sort("item_id", "from_date")


def _in_force(catalogue: pl.DataFrame, days: Sequence[date]) -> pl.DataFrame:
    """Entries that hold on each of the days, with the day as as_of_date."""
    near = catalogue.filter(pl.col("from_date") <= days[-1], pl.col("until_date") > days[0])
    dated = near.join(pl.DataFrame({"as_of_date": days}, schema={"as_of_date": pl.Date}), how="cross")
    return dated.filter(pl.col("as_of_date").is_between("from_date", "until_date", closed="left")).drop("from_date", "until_date")


def _plan_of_issue(demand: Demand, days: Sequence[date], catalogue: pl.DataFrame, store: Store) -> pl.DataFrame:
    """Rows of the days on which this issue is in force."""
    settings = store.inventory
    known = _in_force(catalogue, days)
    located = demand.series.with_row_index("place").filter(pl.col("location_id").is_not_null())["item_id"].unique().sort()
    members = (
        demand.series.with_row_index("place").filter(pl.col("item_id").is_in(located.implode()))
        .group_by("item_id").agg("place").sort("item_id")
    )
    totals = members["place"].to_list()
    rows = pl.concat([demand.series, members.select("item_id", location_id=pl.lit(None, pl.String))])
    # an item sold in places and without one has a series of its own without a place; its row is the total
    is_total = np.arange(rows.height) >= demand.series.height
    is_kept = pl.Series(is_total) | ~rows["item_id"].is_in(located.implode()) | rows["location_id"].is_not_null()
    mean = np.concatenate([demand.mean, *(demand.mean[place].sum(axis=0, keepdims=True) for place in totals)])
    dated = rows.with_columns(is_kept=is_kept, is_total=pl.Series(is_total))
    dated = dated.join(pl.DataFrame({"as_of_date": days}, schema={"as_of_date": pl.Date}), how="cross")
    dated = dated[np.arange(len(days) * rows.height).reshape(rows.height, len(days)).T.ravel()]
    of_place = stock_of_places(known.select("as_of_date", "item_id", "stock_by_location"))
    joined = dated.join(known, on=["as_of_date", "item_id"], how="left", maintain_order="left")
    joined = joined.join(of_place, on=PLACE, how="left", suffix="_of_place", maintain_order="left")
    whole = pl.col("location_id").is_null()
    frame = joined.with_columns(
        *(pl.when(whole).then(name).otherwise(f"{name}_of_place").alias(name) for name in ("stock_on_hand", "stock_on_order")),
        pl.col("lead_time_days").fill_null(settings.default_lead_time_days),
    ).drop("stock_by_location", "^.*_of_place$")
    span, service = targets(frame, settings)
    shape = len(days), rows.height
    stock = frame["stock_on_hand"].cast(pl.Float64).fill_null(float("nan")).to_numpy().reshape(shape)
    lead = frame["lead_time_days"].to_numpy().astype(np.int64).reshape(shape)
    supplies = [
        Supply((day - demand.issue).days, *parts)
        for day, *parts in zip(days, stock, lead, span.reshape(shape), service.reshape(shape), strict=True)
    ]
    found = simulate(demand, totals, supplies, store)
    forecast = _with_forecast(frame, mean, supplies, found)
    plan = forecast.filter("is_kept").drop("is_kept", "is_total")
    idle = known.filter(pl.col("stock_on_hand").is_not_null()).join(rows, on="item_id", how="anti").with_columns(
        pl.col("lead_time_days").fill_null(settings.default_lead_time_days),
        location_id=pl.lit(None, pl.String), reorder_point=0.0, safety_stock=0.0, tomorrow=0.0, days_of_cover=pl.lit(None, pl.Float64),
        stockout_probability=0.0,
    )
    orders = _orders(pl.concat([plan, idle.select(plan.columns)]))
    return _with_places(orders, forecast.filter(~pl.col("is_total")), of_place, demand, days, store)


def targets(frame: pl.DataFrame, settings: InventorySettings) -> tuple[Integers, Floats]:
    """(rows,) days that stock and orders must last, and the quantile of demand over them to be ready for.

    frame: as_of_date, lead_time_days, category, unit_price, unit_cost. Usually lead time and review period, at service_level. The
    last order that arrives before an item's season ends is a newsvendor's (Arrow, Harris and Marschak 1951): it must last to the
    end, at the quantile (price - cost) / (price - salvage), or at service_level where price or cost is unknown. Later ones come to nothing.
    """
    lead = frame["lead_time_days"].to_numpy().astype(np.int64)
    span = lead + settings.review_period_days
    service = np.full(frame.height, settings.service_level)
    ends = frame.select("as_of_date", "category", "unit_price", "unit_cost").with_columns(
        end=pl.lit(None, pl.Date), salvage=pl.lit(None, pl.Float64)
    )
    # the next season to end comes last, and so goes before later ones
    for season in sorted(settings.seasons, key=lambda each: each.last_day, reverse=True):
        is_in = (pl.col("category") == season.category) & (pl.col("as_of_date") <= season.last_day)
        ends = ends.with_columns(
            end=pl.when(is_in).then(pl.lit(season.last_day)).otherwise("end"),
            salvage=pl.when(is_in).then(pl.lit(season.salvage_share)).otherwise("salvage"),
        )
    if ends["end"].null_count() == ends.height:
        return span, service
    price, cost = pl.col("unit_price").cast(pl.Float64), pl.col("unit_cost").cast(pl.Float64)
    kept = price - pl.col("salvage") * cost
    ratio = ends.select(pl.when(kept > 0).then(((price - cost) / kept).clip(0.0, 1.0)))["unit_price"]
    left = (ends["end"] - ends["as_of_date"]).dt.total_days().fill_null(np.iinfo(np.int32).max).to_numpy()
    is_last = left <= span
    best = np.where(ratio.is_null().to_numpy(), service, ratio.fill_null(0.0).to_numpy())
    arrives = (lead < left) & (best > 0)
    return np.where(is_last, np.where(arrives, left, 0), span).astype(np.int64), np.where(is_last & arrives, best, service)


def _with_forecast(frame: pl.DataFrame, mean: Floats, supplies: Sequence[Supply], found: Sequence[LeadTime]) -> pl.DataFrame:
    """Adds what the forecast says of each row: reorder_point, safety_stock, tomorrow, days_of_cover, stockout_probability."""
    so_far = np.concatenate([np.zeros((len(mean), 1)), np.cumsum(mean, axis=1)], axis=1)
    rows = np.arange(len(mean))
    point = np.round(np.concatenate([each.reorder_point for each in found]), DECIMALS)
    expected = np.concatenate([so_far[rows, supply.offset + supply.span_days] - so_far[:, supply.offset] for supply in supplies])
    cover = [_cover(mean[:, supply.offset : supply.offset + COVER_DAYS], supply.stock_on_hand) for supply in supplies]
    return frame.with_columns(
        reorder_point=pl.Series(point), safety_stock=pl.Series(np.round(point - expected, DECIMALS)),
        tomorrow=pl.Series(np.concatenate([mean[:, supply.offset] for supply in supplies])),
        days_of_cover=pl.Series(np.concatenate(cover)).fill_nan(None),
        stockout_probability=pl.Series(np.round(np.concatenate([each.stockout_probability for each in found]), DECIMALS)).fill_nan(None),
    )


def _cover(mean: Floats, stock: Floats) -> Floats:
    """Days until expected demand has used up the stock, parts of days included; nan where stock is unknown or nothing is expected.

    Beyond the days given the mean of all of them goes on.
    """
    if np.isnan(stock).all():
        return np.full(len(mean), np.nan)
    stock = np.maximum(stock, 0.0)
    used = np.cumsum(mean, axis=1)
    steps = mean.shape[1]
    rows = np.arange(len(mean))
    day = (used < stock[:, None]).sum(axis=1)
    inside = np.minimum(day, steps - 1)
    before = np.where(inside > 0, used[rows, inside - 1], 0.0)
    share = np.divide(stock - before, mean[rows, inside], out=np.zeros(len(mean)), where=mean[rows, inside] > 0)
    rate = used[:, -1] / steps
    beyond = np.divide(stock - used[:, -1], rate, out=np.full(len(mean), np.nan), where=rate > 0)
    cover = np.where(day < steps, inside + share, steps + beyond)
    return np.where(np.isnan(stock), np.nan, np.round(cover, DECIMALS))


def _orders(plan: pl.DataFrame) -> pl.DataFrame:
    """Table rows: what to order to be back at the reorder point, in whole packs and no less than the minimum.

    Orders and what may be promised are of the whole item, not of its places (places.py says what is meant for each).
    """
    position = pl.when(pl.col("location_id").is_null()).then(pl.col("stock_on_hand") + pl.col("stock_on_order").fill_null(0))
    short = (pl.col("reorder_point") - position).ceil().clip(lower_bound=0).fill_null(0).cast(pl.Int64)
    least = pl.max_horizontal("short", pl.col("minimum_order_quantity").fill_null(0))
    pack = pl.col("pack_size").fill_null(1)
    ordered = plan.with_columns(short=short).with_columns(
        order_quantity=pl.when(pl.col("short") > 0).then((least + pack - 1) // pack * pack).otherwise(0)
    )
    left = (pl.col("stock_on_hand") - pl.col("tomorrow").round(0).cast(pl.Int64)).clip(lower_bound=0)
    return ordered.with_columns(
        sellable_units=pl.when(pl.col("location_id").is_null()).then(left),
        order_cost=pl.col("order_quantity").cast(pl.Decimal(18, 0)) * pl.col("unit_cost"),
    )


def _with_places(
    orders: pl.DataFrame, series: pl.DataFrame, of_place: pl.DataFrame, demand: Demand, days: Sequence[date], store: Store
) -> pl.DataFrame:
    """Adds transfers and what of an order is meant for each place, and a row of each store room that gives.

    series: forecast rows of every series and day. of_place: the stock told by place. A place where nothing at all is sold is a store room.
    """
    selling = demand.series["location_id"].drop_nulls().unique()
    told = (
        of_place.filter(pl.col("location_id").is_not_null(), pl.col("stock_on_hand").is_not_null())
        .join(series.filter(pl.col("location_id").is_not_null()), on=ITEM, how="semi")
        .with_columns(is_room=~pl.col("location_id").is_in(selling.implode()))
    )
    moved = pl.DataFrame(schema={**{name: told.schema[name] for name in PLACE}, "transfer_quantity": pl.Int64})
    if store.inventory.transfer_days is not None and told.height:
        moved = transfers(told, short_term(demand, told, days, store))
    told = told.join(moved, on=PLACE, how="left")
    whole = orders.filter(pl.col("location_id").is_null()).select(*ITEM, "order_quantity", "lead_time_days")
    meant = allocations(whole, series.join(told, on=ITEM, how="semi"), told)
    placed = orders.join(told.select(*PLACE, "transfer_quantity"), on=PLACE, how="left").join(meant, on=PLACE, how="left")
    rooms = told.filter("is_room", pl.col("transfer_quantity") < 0).join(whole.select(*ITEM, "lead_time_days"), on=ITEM)
    nothing = {name: pl.lit(0) for name in ("safety_stock", "reorder_point", "order_quantity", "stockout_probability")}
    rows = pl.concat([placed, rooms.select(pl.exclude("is_room"), **nothing)], how="diagonal_relaxed")
    schema = polars_schema(TABLE)
    return rows.select(pl.col(name).cast(kind) for name, kind in schema.items()).sort("as_of_date", "item_id", "location_id", nulls_last=False)
