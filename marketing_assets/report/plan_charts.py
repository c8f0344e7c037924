"""Charts, tables and wordings of the section on the ad plan.

What belongs here: drawing the plan, the budget curve and the limits, and saying what a limit costs. What does not: what is
read and what the section says (plan.py).
"""

from __future__ import annotations

from typing import Any

import polars as pl

from marketing_assets.config import Store
from marketing_assets.report.drawing import MAIN, curve, heat_map
from marketing_assets.report.pieces import Cell, Chart, Grid
from marketing_assets.report.words import Words, capital

MOST_PLACEMENTS = 14
MOST_AUDIENCES = 12


def value_name(store: Store, words: Words) -> str:
    """What the plan maximises, in words."""
    return {
        "conversions": words("conversions", "转化"),
        "revenue": words("revenue", "销售额"),
        "margin": words("margin", "毛利"),
    }[store.ad_planning.value]


def worth(value: float, store: Store, words: Words) -> str:
    """An amount of what the plan maximises."""
    return (
        words.number(value) + words(" conversions", " 次转化") if store.ad_planning.value == "conversions" else words.money(value)
    )


def limit_name(name: str, words: Words) -> str:
    """'frequency_cap:champions' -> 'frequency cap of audience champions'."""
    kind, _, what = name.partition(":")
    if kind == "availability" and what.count(":") == 2:
        audience, placement, hour = what.split(":")
        return words(
            "impressions on offer to {a} on {p} at {h}:00", "{p} 在 {h} 点可向“{a}”投放的展示", a=words.audience(audience), p=placement, h=hour
        )
    if kind == "hourly_pacing":
        return words("largest share of the budget in the hour from {h}:00", "{h} 点的预算占比上限", h=what)
    return f"{words.term(kind)} {words.audience(what) if kind == 'frequency_cap' else what}".strip()


def limit_sentence(row: dict[str, Any], store: Store, words: Words) -> str:
    """What one binding limit costs, in words."""
    name = limit_name(row["constraint_name"], words)
    name = name if words.is_chinese else capital(name)  # a Chinese name may begin with an id
    price = abs(row["shadow_price"])
    one = {
        "money": words("One more {c}", "每增加 1 {c}", c=store.currency),
        "impressions": words("One more impression", "每增加 1 次展示"),
        "conversions": words("One more unit", "每增加 1 件"),
    }[row["unit"]]
    limit = words.money(row["limit_value"]) if row["unit"] == "money" else words.number(row["limit_value"])
    kind = row["constraint_name"].partition(":")[0]
    most = store.ad_planning.most_per_conversion
    if kind == "target_conversions" and row["relaxation_needed"] > 0 and most is not None and price <= most * 1.001:
        return words(
            "{name} ({limit}): {by} of them are not sought, since one more would cost over {most}, or cannot be had.",
            "{name}（{limit}）：其中 {by} 次未争取，因为再多一次的代价会超过 {most}，或无法获得。",
            name=name,
            limit=limit,
            by=words.number(row["relaxation_needed"]),
            most=worth(most, store, words),
        )
    if row["relaxation_needed"] > 0:
        return words(
            "{name}: gave way by {by}, because no plan meets every limit.",
            "{name}：没有满足全部限制的计划，已放宽 {by}。",
            name=name,
            by=words.number(row["relaxation_needed"]),
        )
    if kind in ("target_conversions", "override_minimum", "change_down"):
        return words(
            "{name} ({limit}): asking for one less would be worth {price}.",
            "{name}（{limit}）：少要求 1 单位可多得 {price}。",
            name=name,
            limit=limit,
            price=worth(price, store, words),
        )
    return words(
        "{name} ({limit}) is used up. {one} would bring {price}.",
        "{name}（{limit}）已用尽。{one}，可多得 {price}。",
        name=name,
        limit=limit,
        one=one,
        price=worth(price, store, words),
    )


def heat_chart(plan: pl.DataFrame, store: Store, words: Words) -> Chart:
    spent = (
        plan.group_by("placement_id")
        .agg(pl.col("planned_spend").sum())
        .sort("planned_spend", "placement_id", descending=[True, False])
    )
    places = spent["placement_id"].to_list()[:MOST_PLACEMENTS]
    audiences = (
        plan.group_by("audience_id")
        .agg(pl.col("planned_spend").sum())
        .sort("planned_spend", "audience_id", descending=[True, False])["audience_id"]
        .to_list()
    )
    others = words("other placements", "其他广告位")
    named = plan.with_columns(
        placement=pl.when(pl.col("placement_id").is_in(places)).then("placement_id").otherwise(pl.lit(others)),
        audience=pl.col("audience_id").replace_strict(
            {name: words.audience(name) for name in audiences[:MOST_AUDIENCES]}, default=words.term("other"), return_dtype=pl.String
        ),
    )
    measures = (
        ("impressions", words("impressions", "展示")),
        ("spend", words("spend", "花费")),
        ("value", words("expected value", "预计价值")),
    )
    sums = [
        pl.col("planned_impressions").sum().alias("impressions"),
        pl.col("planned_spend").sum().alias("spend"),
        pl.col("expected_revenue").sum().alias("value"),
    ]
    rows = named.group_by("audience", "placement", "hour").agg(sums).sort("audience", "placement", "hour").to_dicts()
    shape = heat_map(
        hour=words("Hour", "小时"),
        placement=words("Placement", "广告位"),
        amount=words("Amount", "数值"),
        show=words("Show", "指标"),
        audience=words("Audience", "受众"),
        everyone=words("all audiences", "全部受众"),
        measures=measures,
        audiences=tuple(sorted({row["audience"] for row in rows})),
        places=len({row["placement"] for row in rows}),
    )
    by_place = (
        named.group_by("placement")
        .agg(
            *sums,
            best=pl.col("hour").sort_by("expected_revenue", "hour", descending=[True, False]).first(),
            hours=pl.col("hour").n_unique(),
        )
        .sort("spend", "placement", descending=[True, False])
    )
    best = by_place.row(0, named=True)
    grid = Grid(
        words("Plan by placement", "按广告位的计划"),
        [
            words("Placement", "广告位"),
            words("Impressions", "展示"),
            words("Spend", "花费"),
            words("Expected value", "预计价值"),
            words("Hours", "小时数"),
            words("Best hour", "最佳小时"),
        ],
        [
            [
                row["placement"],
                words.number(row["impressions"]),
                words.money(row["spend"]),
                worth(row["value"], store, words),
                str(row["hours"]),
                f"{row['best']:02d}:00",
            ]
            for row in by_place.to_dicts()
        ],
        frozenset({1, 2, 3, 4, 5}),
    )
    alt = words(
        "Heat map of the plan by placement and hour. Most money goes to {p}, its best hour begins at {h}:00.",
        "按广告位与小时的计划热力图。花费最多的是 {p}，最佳小时为 {h} 点。",
        p=best["placement"],
        h=f"{best['best']:02d}",
    )
    return Chart("plan-heat", words("Where and when", "投放位置与时段"), alt, shape, {MAIN: rows}, grid, is_wide=True)


def budget_chart(scenarios: pl.DataFrame, store: Store, words: Words) -> Chart:
    rows = scenarios.select(
        "budget", "is_current", value="expected_revenue", marginal="marginal_revenue", conversions="expected_conversions"
    ).to_dicts()
    name = value_name(store, words)
    budget, brings = words("Daily budget, {c}", "每日预算（{c}）", c=store.currency), words("Expected {n}", "预计{n}", n=name)
    axis = brings if store.ad_planning.value == "conversions" else words("{n}, {c}", "{n}（{c}）", n=brings, c=store.currency)
    current = next((row for row in rows if row["is_current"]), rows[-1])
    shape = curve(
        x=budget,
        y=axis,
        marginal=words("One more unit brings", "多投一单位带来"),
        conversions=words("Conversions", "转化"),
        current=words("now", "当前"),
    )
    marginal = worth(current["marginal"], store, words)
    alt = words(
        "Curve of expected {n} over the daily budget. Now {b}, bringing {v}; one more unit of budget brings {m}.",
        "预计{n}随每日预算变化的曲线。当前 {b}，带来 {v}；多投 1 单位带来 {m}。",
        n=name,
        b=words.money(current["budget"]),
        v=worth(current["value"], store, words),
        m=marginal,
    )
    grid = Grid(
        words("Budget levels", "预算水平"),
        [
            words("Budget", "预算"),
            brings,
            words("Conversions", "转化"),
            words("One more {c} brings", "多投 1 {c} 带来", c=store.currency),
        ],
        [
            [
                Cell(words.money(row["budget"]) + (" ◆" if row["is_current"] else "")),
                worth(row["value"], store, words),
                words.number(row["conversions"]),
                worth(row["marginal"], store, words),
            ]
            for row in rows
        ],
        frozenset({0, 1, 2, 3}),
    )
    note = words(
        "At {b} a day, one more {c} brings {m}.",
        "每日 {b} 时，多投 1 {c} 带来 {m}。",
        b=words.money(current["budget"]),
        c=store.currency,
        m=marginal,
    )
    return Chart(
        "plan-budget", words("What more or less money would bring", "增减预算的效果"), alt, shape, {MAIN: rows}, grid, note
    )


def totals_table(plan: pl.DataFrame, column: str, title: str, header: str, store: Store, words: Words) -> Grid:
    rows = (
        plan.group_by(column)
        .agg(
            pl.col("planned_impressions", "planned_spend", "expected_clicks", "expected_conversions", "expected_revenue").sum(),
            learning=pl.when("is_exploration").then("planned_impressions").otherwise(0.0).sum(),
        )
        .sort("planned_spend", column, descending=[True, False])
    )
    headers = [
        header,
        words("Impressions", "展示"),
        words("Spend", "花费"),
        words("Clicks", "点击"),
        words("Conversions", "转化"),
        words("Value", "价值"),
        words("To learn", "用于探索"),
    ]
    return Grid(
        title,
        headers,
        [
            [
                words.audience(row[column]) if column == "audience_id" else str(row[column]),
                words.number(row["planned_impressions"]),
                words.money(row["planned_spend"]),
                words.number(row["expected_clicks"]),
                words.number(row["expected_conversions"]),
                worth(row["expected_revenue"], store, words),
                words.rate(row["learning"] / max(row["planned_impressions"], 1e-9)),
            ]
            for row in rows.to_dicts()[:50]
        ],
        frozenset(range(1, 7)),
        shown=6,
        is_open=column == "audience_id",
    )


def limits_table(limits: pl.DataFrame, words: Words) -> Grid:
    rows = limits.filter(~pl.col("constraint_name").str.starts_with("availability") | pl.col("is_binding"))
    rows = rows.sort("is_binding", pl.col("shadow_price").abs(), "constraint_name", descending=[True, True, False]).head(80)

    def amount(row: dict[str, Any], column: str) -> str:
        return words.money(row[column]) if row["unit"] == "money" else words.number(row[column])

    return Grid(
        words("Every limit", "全部限制"),
        [
            words("Limit", "限制"),
            words("Allowed", "上限"),
            words("Used", "已用"),
            words("Price of one unit", "单位影子价格"),
            words("Binding", "起作用"),
        ],
        [
            [
                limit_name(row["constraint_name"], words),
                amount(row, "limit_value"),
                amount(row, "used_value"),
                words.number(row["shadow_price"]),
                Cell(words("yes", "是"), "warn") if row["is_binding"] else Cell(words("no", "否"), "muted"),
            ]
            for row in rows.to_dicts()
        ],
        frozenset({1, 2, 3}),
        shown=20,
        is_open=False,
    )


def changes_table(changes: pl.DataFrame, words: Words) -> Grid:
    rows = (
        changes.with_columns(size=pl.col("spend_change").abs())
        .sort("size", "audience_id", "creative_id", "placement_id", descending=[True, False, False, False])
        .head(40)
    )
    return Grid(
        words("Changes since yesterday's plan", "与昨日计划的差异"),
        [
            words("Audience", "受众"),
            words("Creative", "创意"),
            words("Placement", "广告位"),
            words("Impressions", "展示"),
            words("Spend", "花费"),
            words("Why", "原因"),
        ],
        [
            [
                words.audience(row["audience_id"]),
                row["creative_id"],
                row["placement_id"],
                _plus(row["impressions_change"], words.number(row["impressions_change"])),
                _plus(row["spend_change"], words.money(row["spend_change"])),
                words.term("reason_" + row["reason"]),
            ]
            for row in rows.to_dicts()
        ],
        frozenset({3, 4}),
        shown=12,
        is_open=False,
    )


def _plus(value: float, text: str) -> str:
    return f"+{text}" if value > 0 else text


def proposals_table(proposals: pl.DataFrame, store: Store, words: Words) -> Grid:
    rows = proposals.sort("expected_value", "subject", descending=[True, False]).head(10).to_dicts()
    return Grid(
        words("Campaigns worth starting", "值得开启的活动"),
        [
            words("For", "对象"),
            words("Audience", "受众"),
            words("Reach", "触达"),
            words("Taking part", "参与率"),
            words("Cost a day", "日花费"),
            words("Conversions", "转化"),
            words("Value", "价值"),
        ],
        [
            [
                f"{words.term(row['subject_type'])} {row['subject']}",
                words.audience(row["audience_id"]),
                words.number(row["reach"]),
                words.rate(row["participation"]),
                words.money(row["expected_cost"]),
                words.number(row["expected_conversions"]),
                worth(row["expected_value"], store, words),
            ]
            for row in rows
        ],
        frozenset(range(2, 7)),
        shown=10,
        is_open=False,
    )
