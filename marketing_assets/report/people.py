"""The section on people: how audiences moved within a week, and whether what was said of people came.

What belongs here: wording and drawing audiences, user_profiles and their evaluation. What does not: making them (profiles, evaluation).

Reads audiences and user_profiles in force on the day and a week before, and two weeks of evaluation_report.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import polars as pl

from marketing_assets.config import Store
from marketing_assets.report.drawing import ACCENT, MAIN, MUTED, bars
from marketing_assets.report.needs import lacks
from marketing_assets.report.pieces import Action, Block, Cell, Chart, Grid, Section
from marketing_assets.report.words import Words
from marketing_assets.warehouse import Reader

WEEK = 7
LARGE_MOVE = 0.1
SMALL_AUDIENCE = 30
KEPT = ("calibration_ratio", "churn_calibration_ratio", "clv_calibration_ratio", "clv_coverage")
"""What was said of people and can be held against what came."""


@dataclass(frozen=True)
class PeopleFacts:
    """audiences: audience_id, users, before, came, went, holdout. segments: segment, users, propensity, churn, value.

    kept: the newest mature row of evaluation_report of each of KEPT.
    """

    audiences: pl.DataFrame
    segments: pl.DataFrame
    has_before: bool
    kept: pl.DataFrame


def people_facts(reader: Reader, day: date, store: Store) -> PeopleFacts:
    columns = ["user_id", "audience_id", "is_holdout"]
    now = reader.log_as_of("audiences", day, columns).drop_nulls("audience_id")
    week_ago = day - timedelta(days=WEEK)
    has_before = week_ago >= store.first_day
    before = reader.log_as_of("audiences", week_ago, columns).drop_nulls("audience_id") if has_before else now.clear()
    both = (
        now.with_columns(now=pl.lit(True))
        .join(
            before.select("user_id", "audience_id", before=pl.lit(True)), on=["user_id", "audience_id"], how="full", coalesce=True
        )
        .with_columns(pl.col("now", "before").fill_null(False))
    )
    moved = (
        both.group_by("audience_id")
        .agg(
            users=pl.col("now").sum(),
            before=pl.col("before").sum(),
            came=(pl.col("now") & ~pl.col("before")).sum(),
            went=(pl.col("before") & ~pl.col("now")).sum(),
            holdout=(pl.col("now") & pl.col("is_holdout").fill_null(False)).sum(),
        )
        .cast({name: pl.Int64 for name in ("users", "before", "came", "went", "holdout")})
        .sort("users", "audience_id", descending=[True, False])
    )
    profiles = reader.log_as_of(
        "user_profiles", day, ["user_id", "segment", "purchase_propensity", "churn_probability", "clv_90d"]
    )
    segments = (
        profiles.group_by("segment")
        .agg(
            users=pl.len().cast(pl.Int64),
            propensity=pl.col("purchase_propensity").mean(),
            churn=pl.col("churn_probability").mean(),
            value=pl.col("clv_90d").sum(),
        )
        .sort("users", "segment", descending=[True, False])
    )
    kept = reader.window("evaluation_report", day - timedelta(days=2 * WEEK - 1), day).filter(
        pl.col("concept") == "profiles", pl.col("metric").is_in(KEPT), pl.col("segment_type") == "all", pl.col("is_mature")
    )
    kept = kept.sort("outcome_date", "as_of_date").unique("metric", keep="last", maintain_order=True)
    return PeopleFacts(moved, segments, has_before, kept)


def _change(row: dict[str, int]) -> float | None:
    return row["users"] / row["before"] - 1 if row["before"] else None


def people_actions(facts: PeopleFacts, words: Words) -> list[Action]:
    """The audiences that grew or shrank most, where that is a tenth or more."""
    if not facts.has_before:
        return []
    moved = [
        (row, change)
        for row in facts.audiences.to_dicts()
        if (change := _change(row)) is not None
        and abs(change) >= LARGE_MOVE
        and max(row["users"], row["before"]) >= SMALL_AUDIENCE
    ]
    moved.sort(key=lambda pair: (-abs(pair[1]), pair[0]["audience_id"]))
    if not moved:
        return []
    names = [
        words("{a} {c} to {n}", "{a} {c} 至 {n} 人", a=words.audience(row["audience_id"]), c=words.signed(change), n=words.number(row["users"]))
        for row, change in moved
    ]
    return [
        Action(words("Audiences moved within a week: {names}.", "一周内受众变化：{names}。", names=words.items(names)), "people")
    ]


def people_section(facts: PeopleFacts, store: Store, words: Words) -> Section:
    title = words("People", "用户")
    missing = lacks(store, words, ("events",))
    if missing:
        return Section("people", title, missing=missing)
    if facts.audiences.is_empty():
        return Section("people", title, words("Nobody is known yet.", "尚无已知用户。"))
    total = int(facts.segments["users"].sum()) if facts.segments.height else int(facts.audiences["users"][0])
    lead = words("{n} people are known.", "已知用户 {n} 人。", n=words.number(total))
    lead += "" if facts.has_before else words(" There is no week before to compare with.", "暂无一周前数据可比。")
    blocks: list[Block] = [_audiences(facts, words)]
    if facts.segments.height:
        blocks.append(_segments(facts.segments, words))
    if facts.kept.height:
        blocks.append(_kept(facts.kept, words))
    return Section("people", title, lead, blocks)


def _audiences(facts: PeopleFacts, words: Words) -> Chart:
    rows: list[dict[str, Any]] = []
    table: list[list[Cell | str]] = []
    for row in facts.audiences.to_dicts():
        change = _change(row)
        # fewer people at risk are no bad news, so that growth is not coloured as good
        tone = MUTED if change is None or abs(change) < 0.02 else ACCENT
        name = words.audience(row["audience_id"])
        net = row["users"] - row["before"] if facts.has_before else row["users"]
        rows.append({"label": name, "value": net, "tone": tone if facts.has_before else ACCENT})
        table.append(
            [
                name if name == row["audience_id"] else f"{name}（{row['audience_id']}）",
                words.number(row["users"]),
                words.number(row["before"]) if facts.has_before else "–",
                Cell(
                    "–" if change is None else words.signed(change),
                    "muted" if change is None or abs(change) < LARGE_MOVE else "plain",
                ),
                words.number(row["came"]) if facts.has_before else "–",
                words.number(row["went"]) if facts.has_before else "–",
                words.number(row["holdout"]),
            ]
        )
    measure = (
        words("People more or fewer than a week ago", "与一周前相比的人数变化") if facts.has_before else words("People", "人数")
    )
    shape = bars(label=words("Audience", "受众"), value=measure, rows=len(rows[:15]))
    grid = Grid(
        words("Audiences", "受众"),
        [
            words("Audience", "受众"),
            words("People", "人数"),
            words("A week ago", "一周前"),
            words("Change", "变化"),
            words("Came", "新进"),
            words("Left", "离开"),
            words("Held out", "对照组"),
        ],
        table,
        frozenset(range(1, 7)),
    )
    alt = words(
        "Bars of how many people each audience gained or lost within a week; the largest audience is {a} with {n}.",
        "各受众一周内人数增减条形图；最大的受众是 {a}，共 {n} 人。",
        a=rows[0]["label"],
        n=words.number(facts.audiences["users"][0]),
    )
    return Chart("people-audiences", words("Audiences that moved", "受众变化"), alt, shape, {MAIN: rows[:15]}, grid)


def _segments(segments: pl.DataFrame, words: Words) -> Chart:
    rows = [
        {"label": words.term(row["segment"]), "value": row["value"], "tone": ACCENT}
        for row in segments.sort("value", "segment", descending=[True, False]).to_dicts()
    ]
    margin = words("Expected margin of 90 days, {c}", "90 天预期毛利（{c}）", c=words.currency)
    shape = bars(label=words("Segment", "分层"), value=margin, rows=len(rows))
    grid = Grid(
        words("Segments", "用户分层"),
        [
            words("Segment", "分层"),
            words("People", "人数"),
            words("Chance to order", "下单概率"),
            words("Chance to leave", "流失概率"),
            words("Expected margin, 90 days", "90 天预期毛利"),
        ],
        [
            [
                words.term(row["segment"]),
                words.number(row["users"]),
                words.rate(row["propensity"]),
                words.rate(row["churn"]),
                words.money(row["value"]),
            ]
            for row in segments.to_dicts()
        ],
        frozenset(range(1, 5)),
    )
    alt = words(
        "Bars of the margin expected within 90 days by segment, {s} first.",
        "各分层 90 天预期毛利条形图，{s} 最高。",
        s=rows[0]["label"],
    )
    return Chart("people-segments", words("What segments are worth", "分层价值"), alt, shape, {MAIN: rows}, grid)


def _kept(kept: pl.DataFrame, words: Words) -> Grid:
    table: list[list[Cell | str]] = []
    for row in sorted(kept.to_dicts(), key=lambda each: KEPT.index(each["metric"])):
        is_share = row["metric"] == "clv_coverage"
        show = words.rate if is_share else words.money if row["metric"] == "clv_calibration_ratio" else words.number
        expected, came = (row["baseline_value"], row["value"]) if is_share else (row["numerator"], row["denominator"])
        ratio = "–"
        if not is_share and row["ci_low"] is not None:
            value, low, high = (words.number(row[name], 2) for name in ("value", "ci_low", "ci_high"))
            ratio = words("{v} ({a} to {b})", "{v}（{a} 至 {b}）", v=value, a=low, b=high)
        table.append([_what(row["metric"], row["horizon_days"], words), words.day(row["outcome_date"]), show(expected), show(came), ratio])
    return Grid(
        words("What was said of people, and what came", "对用户的预测与实际"),
        [
            words("Said", "预测"),
            words("Until", "截至"),
            words("Expected", "预期"),
            words("Came", "实际"),
            words("Expected over what came", "预期/实际"),
        ],
        table,
        frozenset(range(2, 5)),
    )


def _what(metric: str, days: int, words: Words) -> str:
    """What one of KEPT counts."""
    if metric == "calibration_ratio":
        return words("People who order within {d} days", "{d} 天内下单的用户", d=days)
    if metric == "churn_calibration_ratio":
        return words("Buyers without an order for {d} days", "{d} 天内不再下单的老客户", d=days)
    if metric == "clv_calibration_ratio":
        return words("Margin of {d} days", "{d} 天毛利", d=days)
    return words("People whose margin of {d} days lies within their interval", "{d} 天毛利落在预测区间内的用户", d=days)
