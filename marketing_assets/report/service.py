"""The section on complaints: what people are unhappy with and whom to answer first.

What belongs here: wording and drawing service_tickets. What does not: reading reviews (reviews).

Reads service_tickets TREND_DAYS back, and item_features in force for whether the shop has reviews at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from marketing_assets.config import Store
from marketing_assets.report.drawing import MAIN, stacked_days
from marketing_assets.report.needs import lacks
from marketing_assets.report.pieces import Action, Block, Cell, Chart, Grid, Section, Tone
from marketing_assets.report.queries import reviews_query
from marketing_assets.report.words import Words
from marketing_assets.schemas import COMPLAINT_THEMES
from marketing_assets.warehouse import Reader

TREND_DAYS = 35
MOST_TICKETS = 60
_ORDER = {"urgent": 0, "high": 1, "normal": 2, "low": 3}


@dataclass(frozen=True)
class ServiceFacts:
    """tickets: of the last TREND_DAYS days. titles: item_id, title. has_reviews: whether any review was ever seen."""

    tickets: pl.DataFrame
    titles: pl.DataFrame
    has_reviews: bool


def service_facts(reader: Reader, day: date) -> ServiceFacts:
    tickets = reader.window("service_tickets", day - timedelta(days=TREND_DAYS - 1), day)
    has_reviews = tickets.height > 0
    if not has_reviews:
        counted = reviews_query(reader, day - timedelta(days=TREND_DAYS - 1), day)
        has_reviews = bool(counted["reviews"][0])
    titles = (
        reader.log_as_of("items", day, ["item_id", "title"])
        if tickets.height
        else pl.DataFrame(schema={"item_id": pl.String, "title": pl.String})
    )
    return ServiceFacts(tickets, titles, has_reviews)


def service_actions(facts: ServiceFacts, day: date, words: Words) -> list[Action]:
    today = facts.tickets.filter(pl.col("as_of_date") == day)
    actions = []
    urgent = today.filter(pl.col("priority") == "urgent")
    if urgent.height:
        themes = urgent["theme"].value_counts(sort=True).sort("count", "theme", descending=[True, False])["theme"].to_list()
        actions.append(
            Action(
                words(
                    "Urgent complaints to answer: {n} ({themes}).",
                    "优先回复 {n} 起紧急投诉（{themes}）。",
                    n=urgent.height,
                    themes=words.items([words.term(theme) for theme in themes]),
                ),
                "service",
                "bad",
            )
        )
    rising = today.filter(pl.col("theme_trend") >= 2, pl.col("theme_7d") >= 5).unique("theme").sort("theme")
    for row in rising.to_dicts():
        actions.append(
            Action(
                words(
                    "Complaints about {t} are {x} times the usual: {n} within a week.",
                    "关于{t}的投诉是平时的 {x} 倍：一周 {n} 起。",
                    t=words.term(row["theme"]),
                    x=words.number(row["theme_trend"], 1),
                    n=row["theme_7d"],
                ),
                "service",
                "warn",
            )
        )
    return actions


def service_section(facts: ServiceFacts, day: date, store: Store, words: Words) -> Section:
    title = words("Complaints in reviews", "评价中的投诉")
    missing = lacks(store, words, ("events",))
    if missing is None and not facts.has_reviews:
        missing = words(
            "This part needs reviews: events of type “review” with a rating or a review_text in the source “events”. None landed in {n} days.",
            "此部分需要评价：数据源“events”中类型为“review”且含 rating 或 review_text 的事件。近 {n} 天没有。",
            n=TREND_DAYS,
        )
    if missing:
        return Section("service", title, missing=missing)
    today = facts.tickets.filter(pl.col("as_of_date") == day)
    lead = words(
        "New complaints: {n} today, {w} within a week.",
        "今日新增投诉 {n} 起，一周内 {w} 起。",
        n=today.height,
        w=facts.tickets.filter(pl.col("as_of_date") > day - timedelta(days=7)).height,
    )
    blocks: list[Block] = []
    if facts.tickets.height:
        blocks += [_trend(facts.tickets, day, words), _items(facts, day, words)]
    if today.height:
        blocks.append(_tickets(today, facts.titles, words))
    return Section("service", title, lead, blocks)


def _trend(tickets: pl.DataFrame, day: date, words: Words) -> Chart:
    days = pl.DataFrame({"date": pl.date_range(day - timedelta(days=TREND_DAYS - 1), day, eager=True)})
    counts = tickets.group_by("theme", date="as_of_date").agg(complaints=pl.len().cast(pl.Int64)).sort("date", "theme")
    present = [theme for theme in COMPLAINT_THEMES if theme in set(counts["theme"])]
    rows = [{"date": row["date"], "kind": words.term(row["theme"]), "value": row["complaints"]} for row in counts.to_dicts()]
    # both ends of the period, so that the picture spans it however few days had a complaint
    rows += [{"date": end, "kind": words.term(present[0]), "value": 0} for end in (days["date"][0], day)]
    shape = stacked_days(
        day=words("Day", "日期"),
        kind=words("About", "类别"),
        value=words("Complaints", "投诉"),
        order=tuple(words.term(theme) for theme in present),
        days=words.day_of_axis,
    )
    wide = (
        days.join(counts, on="date", how="left")
        .group_by("date")
        .agg([pl.col("complaints").filter(pl.col("theme") == theme).sum().alias(theme) for theme in present])
        .sort("date", descending=True)
    )
    grid = Grid(
        words("Complaints by day", "每日投诉"),
        [words("Day", "日期"), *[words.term(theme) for theme in present]],
        [[words.day(row["date"]), *[words.number(row[theme]) for theme in present]] for row in wide.to_dicts()],
        frozenset(range(1, len(present) + 1)),
        shown=60,
    )
    most = (
        counts.group_by("theme")
        .agg(pl.col("complaints").sum())
        .sort("complaints", "theme", descending=[True, False])
        .row(0, named=True)
    )
    alt = words(
        "Bars of complaints a day over {d} days by theme; most are about {t} ({n}).",
        "近 {d} 天每日投诉按类别的柱状图；最多的是{t}（{n} 起）。",
        d=TREND_DAYS,
        t=words.term(most["theme"]),
        n=most["complaints"],
    )
    return Chart("service-trend", words("Complaints by theme", "投诉类别趋势"), alt, shape, {MAIN: rows}, grid)


def _items(facts: ServiceFacts, day: date, words: Words) -> Grid:
    recent = facts.tickets.filter(pl.col("as_of_date") > day - timedelta(days=28), pl.col("item_id").is_not_null())
    rows = (
        recent.group_by("item_id")
        .agg(
            complaints=pl.len(),
            orders=pl.col("order_id").n_unique(),
            theme=pl.col("theme").sort().mode().sort().first(),
            newest=pl.col("as_of_date").max(),
        )
        .join(facts.titles, on="item_id", how="left")
        .sort("complaints", "item_id", descending=[True, False])
        .head(20)
    )
    return Grid(
        words("Items complained of most, 28 days", "28 天内投诉最多的商品"),
        [words("Item", "商品"), words("Complaints", "投诉"), words("Mostly", "主要类别"), words("Last", "最近")],
        [
            [
                f"{row['title']} ({row['item_id']})" if row["title"] else row["item_id"],
                str(row["complaints"]),
                words.term(row["theme"]),
                words.short_day(row["newest"]),
            ]
            for row in rows.to_dicts()
        ],
        frozenset({1}),
        shown=8,
    )


def _tickets(today: pl.DataFrame, titles: pl.DataFrame, words: Words) -> Grid:
    rows = today.join(titles, on="item_id", how="left", maintain_order="left").with_columns(
        place=pl.col("priority").replace_strict(_ORDER, return_dtype=pl.Int64)
    )
    rows = rows.sort("place", "priority_score", "ticket_id", descending=[False, True, False])
    tone: dict[str, Tone] = {"urgent": "bad", "high": "warn"}
    table = [
        [
            Cell(words.term(row["priority"]), tone.get(row["priority"], "plain")),
            words.term(row["theme"]),
            Cell(
                row["excerpt"] or words("(rating only: {r})", "（仅评分：{r}）", r=words.number(row["rating"])),
                detail=row["suggested_answer"],
            ),
            row["title"] or row["item_id"] or "–",
            row["order_id"] or "–",
            row["reasons"],
        ]
        for row in rows.head(MOST_TICKETS).to_dicts()
    ]
    left = rows.height - len(table)
    return Grid(
        words("Whom to answer first", "优先回复"),
        [
            words("Priority", "优先级"),
            words("About", "类别"),
            words("What was said, with a suggested answer", "内容与建议回复"),
            words("Item", "商品"),
            words("Order", "订单"),
            words("Why this priority", "优先理由"),
        ],
        table,
        shown=8,
        note=words("{n} more today.", "今日另有 {n} 起。", n=left) if left > 0 else None,
    )
