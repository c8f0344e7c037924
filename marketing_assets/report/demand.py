"""The section on demand and stock: what will sell, and what to order.

What belongs here: wording and drawing demand_forecasts and inventory_plan. What does not: forecasting or ordering.

Reads the demand_forecasts in force, item_days HISTORY_DAYS back, inventory_plan of the day and items to the last keyframe.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import polars as pl

from marketing_assets.config import Store
from marketing_assets.inventory.places import moves
from marketing_assets.report.drawing import ACCENT, AHEAD, MAIN, band_and_line, bars
from marketing_assets.report.needs import lacks
from marketing_assets.report.pieces import Action, Block, Cell, Chart, Grid, Section
from marketing_assets.report.queries import newest_issue_query, sold_query, wide_forecasts_query
from marketing_assets.report.words import Words
from marketing_assets.warehouse import Reader

HISTORY_DAYS = 42
MOST_ITEMS = 100
LIKELY = 0.5
"""A place that runs out with this probability or a higher one is shown, an item marked."""


@dataclass(frozen=True)
class DemandFacts:
    """sold: date, value. shop, categories: forecasts still ahead. orders: items to order, most urgent first.
    places: of items whose stock is told by place, places likely to run out, most likely first, with the stock elsewhere.
    transfers: item_id, title, from_location, to_location, units, with stock_on_hand and days_of_cover where they go, least cover first."""

    sold: pl.DataFrame
    shop: pl.DataFrame
    categories: pl.DataFrame
    issued_date: date | None
    orders: pl.DataFrame
    places: pl.DataFrame
    transfers: pl.DataFrame
    items: int
    has_stock: bool


def demand_facts(reader: Reader, day: date) -> DemandFacts:
    start = day - timedelta(days=HISTORY_DAYS - 1)
    increments = sold_query(reader, start, day).filter(pl.col("event_date").is_between(start, day))
    sold = increments.group_by(date="event_date").agg(value=pl.col("units").sum()).sort("date")
    if sold.height:  # a day without a sale is a zero, not a gap, from the first day seen
        every = pl.DataFrame({"date": pl.date_range(sold["date"][0], day, eager=True)})
        sold = every.join(sold, on="date", how="left", maintain_order="left").with_columns(pl.col("value").fill_null(0.0))
    issued = newest_issue_query(reader, reader.store.first_day, day)["issued"][0]
    ahead = wide_forecasts_query(reader, issued or day, day).sort("level", "series_id", "date")
    shop = (
        ahead.filter(pl.col("level") == "shop")
        .group_by("date")
        .agg(
            mean=pl.col("demand_mean").sum(),
            low=pl.col("demand_p10").sum(),
            high=pl.col("demand_p90").sum(),
            model=pl.col("model").first(),
        )
        .sort("date")
    )
    week = ahead.filter(pl.col("level") == "category", pl.col("date") <= day + timedelta(days=7))
    categories = (
        week.group_by("series_id").agg(value=pl.col("demand_mean").sum()).sort("value", "series_id", descending=[True, False])
    )
    plan = reader.window("inventory_plan", day, day)
    titles = reader.log_as_of("items", day, ["item_id", "title"])
    orders = (
        plan.filter(pl.col("order_quantity") > 0)
        .join(titles, on="item_id", how="left", maintain_order="left")
        .sort(pl.col("stockout_probability").fill_null(0.0), pl.col("order_quantity"), "item_id", descending=[True, True, False])
    )
    return DemandFacts(
        sold,
        shop,
        categories,
        issued,
        orders,
        _running_out(plan).join(titles, on="item_id", how="left", maintain_order="left"),
        _transfers(plan).join(titles, on="item_id", how="left", maintain_order="left"),
        plan["location_id"].null_count(),
        bool(plan["stock_on_hand"].is_not_null().any()) if plan.height else False,
    )


def item_name(row: dict[str, Any]) -> str:
    return f"{row['title']} ({row['item_id']})" if row.get("title") else str(row["item_id"])


def demand_actions(facts: DemandFacts, words: Words) -> list[Action]:
    return [*_ordering(facts, words), *_moving(facts, words)]


def _ordering(facts: DemandFacts, words: Words) -> list[Action]:
    if facts.orders.is_empty():
        return []
    cost = facts.orders["order_cost"].cast(pl.Float64).sum() if facts.orders["order_cost"].is_not_null().any() else None
    names = [row["title"] or row["item_id"] for row in facts.orders.head(3).to_dicts()]
    names += [""] * (facts.orders.height - len(names))
    text = words(
        "Order {n} item{s}{cost}: first {names}.",
        "补货 {n} 种商品{cost}：优先 {names}。",
        n=words.number(facts.orders.height),
        s="s" if facts.orders.height > 1 else "",
        cost=words(" for {c}", "，共 {c}", c=words.money(cost)) if cost else "",
        names=words.items(names),
    )
    return [Action(text, "demand", "warn")]


def _moving(facts: DemandFacts, words: Words) -> list[Action]:
    if facts.transfers.is_empty():
        return []
    first = facts.transfers.row(0, named=True)
    text = words(
        "Move {n} units between places: first {units} of {item} from {start} to {end}.",
        "在地点之间调拨 {n} 件：优先将 {item} {units} 件从 {start} 调往 {end}。",
        n=words.number(facts.transfers["units"].sum(), 0), units=words.number(first["units"], 0),
        item=first["title"] or first["item_id"], start=first["from_location"], end=first["to_location"],
    )  # fmt: skip
    return [Action(text, "demand", "warn")]


def demand_section(facts: DemandFacts, day: date, store: Store, words: Words) -> Section:
    title = words("Demand and stock", "需求与库存")
    missing = lacks(store, words, ("events",))
    if missing:
        return Section("demand", title, missing=missing)
    blocks: list[Block] = []
    lead = words("No forecast has been issued yet.", "尚未发布预测。")
    if facts.shop.height:
        week = facts.shop.filter(pl.col("date") <= day + timedelta(days=7))
        lead = words(
            "The next {n} days should sell {units} units (forecast of {issued}).",
            "未来 {n} 天预计销售 {units} 件（{issued} 发布的预测）。",
            n=week.height,
            units=words.number(week["mean"].sum(), 0),
            issued=words.day(facts.issued_date or day),
        )
        blocks.append(_forecast(facts, words))
    if facts.categories.height > 1:
        blocks.append(_categories(facts.categories, words))
    if facts.orders.height:
        lead += words(
            " {n} of {all} items should be ordered now.",
            "{all} 种商品中有 {n} 种需要立即补货。",
            n=words.number(facts.orders.height),
            all=words.number(facts.items),
        )
        blocks.append(_orders(facts.orders, words))
    elif not facts.has_stock:
        lead += words(
            " Stock is unknown: map stock_on_hand in the source “items” to get orders.",
            "库存未知：请在数据源“items”中配置 stock_on_hand。",
        )
    else:
        lead += words(" Nothing needs to be ordered.", "无需补货。")
    if facts.transfers.height:
        lead += words(
            " {n} units should be moved between places.", " {n} 件应在地点之间调拨。", n=words.number(facts.transfers["units"].sum(), 0)
        )
        blocks.append(_moves(facts.transfers, words))
    if facts.places.height:
        blocks.append(_places(facts.places, words))
    return Section("demand", title, lead, blocks)


def _running_out(plan: pl.DataFrame) -> pl.DataFrame:
    """Rows of places that run out before an order arrives with probability LIKELY or more."""
    whole = plan.filter(pl.col("location_id").is_null()).select("item_id", whole="stock_on_hand")
    placed = plan.filter(pl.col("location_id").is_not_null(), pl.col("stockout_probability") >= LIKELY)
    placed = placed.join(whole, on="item_id", how="left").with_columns(elsewhere=pl.col("whole") - pl.col("stock_on_hand"))
    return placed.sort("stockout_probability", "reorder_point", "item_id", "location_id", descending=[True, True, False, False])


def _transfers(plan: pl.DataFrame) -> pl.DataFrame:
    there = plan.filter(pl.col("location_id").is_not_null()).select("item_id", "location_id", "stock_on_hand", "days_of_cover")
    moved = moves(plan).join(there, left_on=["item_id", "to_location"], right_on=["item_id", "location_id"], how="left")
    return moved.sort("days_of_cover", "units", "item_id", "to_location", "from_location", descending=[False, True, False, False, False])


def _forecast(facts: DemandFacts, words: Words) -> Chart:
    shape = band_and_line(
        day=words("Day", "日期"),
        actual=words("Units sold", "实际销量"),
        expected=words("Expected", "预测"),
        low=words("Lower end", "下限"),
        high=words("Upper end", "上限"),
        unit=words("Units a day", "每日件数"),
        days=words.day_of_axis,
    )
    data = {MAIN: facts.sold.to_dicts(), AHEAD: facts.shop.select("date", "mean", "low", "high").to_dicts()}
    rows = [[words.day(row["date"]), words.number(row["value"], 0), "–", "–", "–"] for row in facts.sold.to_dicts()]
    rows += [
        [words.day(row["date"]), "–", words.number(row["mean"], 0), words.number(row["low"], 0), words.number(row["high"], 0)]
        for row in facts.shop.to_dicts()
    ]
    grid = Grid(
        words("Units by day", "每日件数"),
        [words("Day", "日期"), words("Sold", "已售"), words("Expected", "预测"), words.rate(0.1, 0), words.rate(0.9, 0)],
        rows,
        frozenset({1, 2, 3, 4}),
        shown=200,
    )
    first, last = facts.shop.row(0, named=True), facts.shop.row(-1, named=True)
    alt = words(
        "Units sold a day over {past} days, and the forecast to {last} with its 80 % band; tomorrow {mean}, between {low} and {high}.",
        "过去 {past} 天每日销量曲线，及至 {last} 的预测和 80% 区间；明天 {mean}，区间 {low} 至 {high}。",
        past=facts.sold.height,
        last=words.day(last["date"]),
        mean=words.number(first["mean"], 0),
        low=words.number(first["low"], 0),
        high=words.number(first["high"], 0),
    )
    note = words(
        "Solid: sold. Dashed: expected. Shaded: eight days in ten should fall inside. Forecaster: {m}.",
        "实线：已售。虚线：预测。阴影：十天中约八天落入。预测器：{m}。",
        m=words.term(first["model"]),
    )
    return Chart(
        "demand-forecast",
        words("Units a day, and what is expected", "每日销量与预测"),
        alt,
        shape,
        data,
        grid,
        note,
        is_wide=True,
    )


def _categories(categories: pl.DataFrame, words: Words) -> Chart:
    top = categories.head(10)
    rows = [{"label": row["series_id"], "value": row["value"], "tone": ACCENT} for row in top.to_dicts()]
    shape = bars(label=words("Category", "品类"), value=words("Units, next 7 days", "未来 7 天件数"), rows=len(rows))
    grid = Grid(
        words("Expected units by category, next 7 days", "未来 7 天各品类预计件数"),
        [words("Category", "品类"), words("Units", "件数")],
        [[row["series_id"], words.number(row["value"], 0)] for row in categories.to_dicts()],
        frozenset({1}),
    )
    alt = words(
        "Bars of expected units by category for the next 7 days, {top} first.",
        "未来 7 天各品类预计件数条形图，{top} 最多。",
        top=rows[0]["label"],
    )
    return Chart("demand-categories", words("By category", "按品类"), alt, shape, {MAIN: rows}, grid)


def _orders(orders: pl.DataFrame, words: Words) -> Grid:
    rows: list[list[Cell | str]] = []
    for row in orders.head(MOST_ITEMS).to_dicts():
        risk = row["stockout_probability"]
        rows.append(
            [
                item_name(row),
                words.number(row["order_quantity"], 0),
                words.money(None if row["order_cost"] is None else float(row["order_cost"])),
                words.number(row["stock_on_hand"], 0),
                words.number(row["stock_on_order"], 0),
                words.number(row["reorder_point"], 0),
                words.number(row["days_of_cover"], 1),
                Cell(words.rate(risk, 0), "bad" if (risk or 0) >= LIKELY else "plain"),
            ]
        )
    left = orders.height - len(rows)
    note = words("{n} more are in the export of orders.", "另有 {n} 项见补货导出文件。", n=left) if left > 0 else None
    return Grid(
        words("Items to order now", "需要补货的商品"),
        [
            words("Item", "商品"),
            words("Order", "补货量"),
            words("Cost", "成本"),
            words("In stock", "库存"),
            words("On order", "在途"),
            words("Order below", "补货点"),
            words("Days of cover", "可售天数"),
            words("Chance to run out", "缺货概率"),
        ],
        rows,
        frozenset(range(1, 8)),
        shown=10,
        note=note,
    )


def _moves(transfers: pl.DataFrame, words: Words) -> Grid:
    rows: list[list[Cell | str]] = [
        [
            item_name(row),
            row["from_location"],
            row["to_location"],
            words.number(row["units"], 0),
            words.number(row["stock_on_hand"], 0),
            words.number(row["days_of_cover"], 1),
        ]
        for row in transfers.head(MOST_ITEMS).to_dicts()
    ]
    left = transfers.height - len(rows)
    note = words("{n} more are in the export of orders.", "另有 {n} 项见补货导出文件。", n=left) if left > 0 else None
    return Grid(
        words("Units to move between places", "地点间调拨"),
        [
            words("Item", "商品"),
            words("From", "调出"),
            words("To", "调入"),
            words("Units", "件数"),
            words("In stock where they go", "调入地库存"),
            words("Days of cover there", "当地可售天数"),
        ],
        rows,
        frozenset(range(3, 6)),
        shown=10,
        note=note,
    )


def _places(places: pl.DataFrame, words: Words) -> Grid:
    rows: list[list[Cell | str]] = [
        [
            item_name(row),
            row["location_id"],
            words.number(row["stock_on_hand"], 0),
            words.number(row["stock_on_order"], 0),
            words.number(row["elsewhere"], 0),
            words.number(row["days_of_cover"], 1),
            Cell(words.rate(row["stockout_probability"], 0), "bad"),
        ]
        for row in places.head(MOST_ITEMS).to_dicts()
    ]
    left = places.height - len(rows)
    note = words("{n} more are in inventory_plan.", "另有 {n} 项见 inventory_plan。", n=left) if left > 0 else None
    return Grid(
        words("Places that run out before an order arrives", "补货到达前可能缺货的地点"),
        [
            words("Item", "商品"),
            words("Place", "地点"),
            words("In stock there", "当地库存"),
            words("On order", "在途"),
            words("In stock elsewhere", "其他地点库存"),
            words("Days of cover", "可售天数"),
            words("Chance to run out", "缺货概率"),
        ],
        rows,
        frozenset(range(2, 7)),
        shown=10,
        note=note,
    )
