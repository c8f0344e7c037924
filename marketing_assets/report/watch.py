"""The section on change: what drifted, why, and which models were made again.

What belongs here: wording drift_report and the fits of models. What does not: the verdicts (drift).

Reads drift_report and the fits of the last MODEL_DAYS days.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import polars as pl

from marketing_assets.report.pieces import Action, Block, Cell, Grid, Section
from marketing_assets.report.words import Words, capital
from marketing_assets.warehouse import Reader

MODEL_DAYS = 28
RECENT_DAYS = 7


@dataclass(frozen=True)
class WatchFacts:
    """drift: rows of the day. recent: drifted rows of the last week. fits: of the last four weeks, newest first."""

    drift: pl.DataFrame
    recent: pl.DataFrame
    fits: pl.DataFrame


def watch_facts(reader: Reader, day: date) -> WatchFacts:
    recent = reader.window("drift_report", day - timedelta(days=RECENT_DAYS - 1), day)
    fits = reader.fits(day - timedelta(days=MODEL_DAYS - 1), day).select(
        "as_of_date", "model_name", "model_version", "trigger", "is_promoted", "fitted_as_of"
    )
    return WatchFacts(
        recent.filter(pl.col("as_of_date") == day),
        recent.filter("is_drifted"),
        fits.sort("as_of_date", "model_name", "model_version", descending=[True, False, False]),
    )


def verdicts(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """One entry per verdict: cause, action, metrics, first day, effect in money, assets."""
    named = rows.filter("is_drifted")
    if named.is_empty():
        return []
    return (
        named.sort("metric")
        .group_by("verdict_id", maintain_order=True)
        .agg(
            pl.col("cause").first(),
            pl.col("action").first(),
            metrics="metric",
            since=pl.col("since_date").min(),
            effect=pl.col("effect_value").first(),
            assets=pl.col("assets_to_refresh").first(),
            day=pl.col("as_of_date").max(),
        )
        .sort("day", "verdict_id", descending=[True, False])
        .to_dicts()
    )


def verdict_sentence(verdict: dict[str, Any], words: Words) -> str:
    text = words(
        "{cause} since {since}, seen in {metrics}.",
        "自 {since} 起{cause}，见于 {metrics}。",
        cause=capital(words.term(verdict["cause"] or "alert")),
        since=words.short_day(verdict["since"]) if verdict["since"] else "?",
        metrics=words.items([words.series(name) for name in verdict["metrics"]]),
    )
    if verdict["effect"] is not None and abs(verdict["effect"]) >= 0.01:
        text += words(" Worth {m} a day.", "每日影响 {m}。", m=words.money(verdict["effect"]))
    assets = words.items([words.term(name) for name in (verdict["assets"] or "").split(",") if name], 4)
    if verdict["action"] == "refit" and assets:
        text += words(" Made again tonight: {a}.", "今晚将重新训练：{a}。", a=assets)
    elif verdict["action"] == "stop_learning":
        text += words(
            " Learning stops for {a} until the data is mended.", "{a} 暂停学习，直到数据修复。", a=assets or words.term("all")
        )
    else:
        text += words(" Nothing is re-made; look into it.", "不重新训练，请人工查看。")
    return text


def watch_actions(facts: WatchFacts, words: Words) -> list[Action]:
    return [
        Action(verdict_sentence(verdict, words), "watch", "bad" if verdict["action"] == "stop_learning" else "warn")
        for verdict in verdicts(facts.drift)
    ]


def watch_section(facts: WatchFacts, day: date, words: Words) -> Section:
    found = verdicts(facts.recent)
    today = [verdict for verdict in found if verdict["day"] == day]
    lead = words(
        "{n} series are watched. Verdicts: {d} today, {w} within a week.",
        "监测 {n} 个指标；今日 {d} 个判定，一周内 {w} 个。",
        n=words.number(facts.drift.height),
        d=len(today),
        w=len(found),
    )
    blocks: list[Block] = []
    if found:
        blocks.append(
            Grid(
                words("Verdicts of the last week", "近一周判定"),
                [
                    words("Day", "日期"),
                    words("Cause", "原因"),
                    words("Since", "开始于"),
                    words("Seen in", "见于"),
                    words("Action", "措施"),
                    words("Concerns", "涉及"),
                    words("Money a day", "日影响"),
                ],
                [
                    [
                        words.short_day(verdict["day"]),
                        words.term(verdict["cause"] or "–"),
                        words.short_day(verdict["since"]) if verdict["since"] else "–",
                        Cell(
                            words.items([words.series(name) for name in verdict["metrics"]]),
                            detail=", ".join(verdict["metrics"]),
                        ),
                        words.term(verdict["action"] or "–"),
                        words.items([words.term(name) for name in (verdict["assets"] or "–").split(",")], 4),
                        words.money(verdict["effect"]),
                    ]
                    for verdict in found
                ],
                frozenset({6}),
            )
        )
    if facts.drift.height:
        rows = facts.drift.with_columns(
            distance=pl.when(pl.col("threshold") > 0).then(
                (pl.col("value") - pl.col("reference_value")).abs() / pl.col("threshold")
            )
        ).sort("is_drifted", pl.col("since_date").is_not_null(), "metric", descending=[True, True, False])
        blocks.append(
            Grid(
                words("Every watched series", "全部监测指标"),
                [
                    words("Series", "指标"),
                    words("Now", "当前"),
                    words("Usual", "参照"),
                    words("Counts from", "阈值"),
                    words("Beyond since", "超出自"),
                    words("Verdict", "判定"),
                ],
                [
                    [
                        words.series(row["metric"]),
                        words.number(row["value"]),
                        words.number(row["reference_value"]),
                        words.number(row["threshold"]),
                        words.short_day(row["since_date"]) if row["since_date"] else "–",
                        Cell(words.term(row["cause"] or "alert"), "warn")
                        if row["is_drifted"]
                        else Cell(words("quiet", "平稳"), "muted"),
                    ]
                    for row in rows.to_dicts()
                ],
                frozenset({1, 2, 3}),
                shown=30,
                is_open=False,
            )
        )
    if facts.fits.height:
        blocks.append(
            Grid(
                words("Models made in the last four weeks", "近四周训练的模型"),
                [
                    words("Day", "日期"),
                    words("Model", "模型"),
                    words("Why", "原因"),
                    words("In use", "启用"),
                    words("Version", "版本"),
                ],
                [
                    [
                        words.short_day(row["as_of_date"]),
                        row["model_name"],
                        words.term(row["trigger"]),
                        Cell(words("yes", "是"), "good")
                        if row["is_promoted"]
                        else Cell(words("no, did not win", "否，未胜出"), "muted"),
                        row["model_version"].rpartition("@")[2],
                    ]
                    for row in facts.fits.to_dicts()
                ],
                frozenset(),
                shown=20,
                is_open=False,
            )
        )
    return Section("watch", words("What changed, and what was made again", "变化与重训"), lead, blocks)
