"""The section on how far to trust all this: calibration, coverage, track record, data quality, maturity, experiments.

What belongs here: what the section and the first screen say of it. What does not: reading the record (record.py), drawing it
(trust_charts.py).
"""

from __future__ import annotations

from datetime import date

import polars as pl

from marketing_assets.config import Store
from marketing_assets.report.figures import PLAN_SOURCES
from marketing_assets.report.needs import lacks
from marketing_assets.report.pieces import Action, Block, Notes, Section
from marketing_assets.report.record import REFUSED_SHARE, TrustFacts, track_record
from marketing_assets.report.trust_charts import (
    calibration_chart,
    coverage_chart,
    experiments_table,
    lists_chart,
    maturity_chart,
    quality_chart,
    reasons_table,
    track_chart,
)
from marketing_assets.report.words import Words


def trust_actions(facts: TrustFacts, day: date, words: Words) -> list[Action]:
    """The few lines of the first screen that say how far to trust it."""
    lines_ = []
    today = facts.landed.filter(pl.col("landed_date") == day)
    rejected, accepted = int(today["rejected"].sum()), int(today["accepted"].sum())
    if rejected + accepted:
        share = rejected / (rejected + accepted)
        lines_.append(
            Action(
                words(
                    "{n} rows landed, {r} of them refused.",
                    "今日入库 {n} 行，其中 {r} 被拒。",
                    n=words.number(rejected + accepted),
                    r=words.rate(share),
                ),
                "trust",
                "bad" if share > REFUSED_SHARE else "plain",
            )
        )
    else:
        lines_.append(Action(words("No events or impressions landed today.", "今日没有事件或展示入库。"), "trust", "warn"))
    total = facts.calibration.filter(pl.col("segment_type") == "all")
    clicks, predicted = int(total["clicks"].sum()), float(total["predicted_clicks"].sum())
    if clicks:
        ratio = predicted / clicks
        lines_.append(
            Action(
                words(
                    "Clicks: predicted over observed {x} in 14 days.", "点击：14 天预测/实际为 {x}。", x=words.number(ratio, 2)
                ),
                "trust",
                "plain" if 0.8 <= ratio <= 1.25 else "warn",
            )
        )
    record = [row for row in track_record(facts.track) if row["windows"] >= 3]
    if record:
        won = sum(row["won"] * 2 > row["windows"] for row in record)
        lines_.append(
            Action(
                words(
                    "Better than its simple baseline in {w} of {n} scored ways.",
                    "{n} 项评分中有 {w} 项优于简单基线。",
                    w=won,
                    n=len(record),
                ),
                "trust",
                "plain" if won * 2 >= len(record) else "warn",
            )
        )
    immature = facts.maturity.filter(~pl.col("is_mature"))
    if immature.height:
        lines_.append(
            Action(
                words(
                    "Conversions of the last {n} day{s} are still arriving.",
                    "最近 {n} 天的转化仍在陆续到达。",
                    n=immature.height,
                    s="s" if immature.height > 1 else "",
                ),
                "trust",
            )
        )
    return lines_


def trust_section(facts: TrustFacts, day: date, store: Store, words: Words) -> Section:
    blocks: list[Block] = []
    for block in (
        track_chart(facts, words),
        lists_chart(facts, words),
        calibration_chart(facts, words),
        coverage_chart(facts, words),
        maturity_chart(facts, words),
        quality_chart(facts, words),
    ):
        if block is not None:
            blocks.append(block)
    if facts.reasons.height:
        blocks.append(reasons_table(facts.reasons, words))
    # without ads there is nothing that people held out of them could lack
    experiments = facts.experiments.filter((pl.col("experiment") != "ads_holdout") | (lacks(store, words, PLAN_SOURCES) is None))
    if experiments.height:
        blocks.append(experiments_table(experiments, words))
    blocks.append(
        Notes(
            words("How to read this", "如何解读"),
            [
                words(
                    "An interval of {p} holds the true value in about that share of days; users, not clicks, count as independent.",
                    "{p} 区间约以该概率包含真值；以用户而非点击为独立单位。",
                    p=words.rate(store.evaluation.interval, 0),
                ),
                words(
                    "A figure is mature once {p} of what it counts should have landed. Immature figures are restated on later days.",
                    "应到数据达到 {p} 后数字才算成熟；未成熟的数字会在之后重述。",
                    p=words.rate(store.evaluation.mature_share, 0),
                ),
                words(
                    "What is scored was issued before the day it is scored on: the track record is what a person would have had.",
                    "所有评分对象都在结果发生之前发布，因此成绩与实际使用一致。",
                ),
            ],
            "muted",
        )
    )
    return Section(
        "trust",
        words("How far to trust this", "可信程度"),
        words("Everything below was issued before the outcome it is scored on.", "以下均为结果发生前发布、事后评分。"),
        blocks,
    )
