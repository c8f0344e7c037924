"""Charts and tables of the section on trust.

What belongs here: drawing the track record, calibration, coverage, maturity, data quality and experiments. What does not:
reading them (record.py) and what the section says (trust.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from marketing_assets.report.drawing import ACCENT, BAD, GOOD, MAIN, WARN, bars, columns, intervals, lines
from marketing_assets.report.pieces import Cell, Chart, Grid
from marketing_assets.report.record import QUALITY_DAYS, TRACK_DAYS, TrustFacts, track_record
from marketing_assets.report.words import Words


def _title(row: dict[str, Any], words: Words) -> str:
    return words(
        "{concept}{where}: {metric}, {n} d",
        "{concept}{where}：{metric}，{n} 天",
        concept=words.term(row["concept"]),
        where="" if row["segment"] == "all" else words(" {s}", "（{s}）", s=words.term(row["segment"])),
        metric=words.term(row["metric"]),
        n=row["horizon_days"],
    )


DRAWN_METRICS = ("wrmsse", "scaled_pinball_loss", "log_loss", "auc", "f1", "churn_log_loss", "clv_top_fifth_share", "click_log_loss")
DRAWN_LISTS = ("ndcg_at", "recall_at", "hit_rate_at", "choice_rate_at")
DRAWN_HORIZONS = {"demand": (7, 28), "recommendations": (7,)}
"""What the picture of the track record shows: the same metrics every day, whether they flatter or not; the table has all."""


def track_chart(facts: TrustFacts, words: Words) -> Chart | None:
    record = [row for row in track_record(facts.track) if row["baseline_value"] and row["value"] is not None]
    if not record:
        return None
    rows: list[dict[str, Any]] = []
    table: list[list[Cell | str]] = []
    for row in record:
        gain = (1 - row["value"] / row["baseline_value"]) if row["is_lower"] else (row["value"] / row["baseline_value"] - 1)
        is_drawn = row["metric"] in DRAWN_METRICS or (row["metric"].startswith(DRAWN_LISTS) and row["metric"].endswith("_10"))
        if is_drawn and row["horizon_days"] in DRAWN_HORIZONS.get(row["concept"], (row["horizon_days"],)):
            rows.append({"label": _title(row, words), "value": gain * 100, "tone": GOOD if gain > 0 else BAD})
        table.append(
            [
                _title(row, words),
                words.number(row["value"]),
                words.number(row["baseline_value"]),
                words.term(row["baseline"] or "–"),
                Cell(words.signed(gain), "good" if gain > 0 else "bad"),
                words("{w} of {n}", "{w}/{n}", w=row["won"], n=row["windows"]),
            ]
        )
    shape = bars(
        label=words("Scored", "评分项"),
        value=words("Better than the baseline, %", "优于基线，%"),
        rows=len(rows),
        wrap=words(": ", "："),
    )
    grid = Grid(
        words("Track record", "历史成绩"),
        [
            words("Scored", "评分项"),
            words("Ours", "本系统"),
            words("Baseline", "基线"),
            words("What it is", "基线说明"),
            words("Better by", "优于"),
            words("Windows won", "胜出窗口"),
        ],
        table,
        frozenset({1, 2, 4, 5}),
        shown=100,
    )
    if not rows:
        return None
    won = sum(float(row["value"]) > 0 for row in rows)
    alt = words(
        "Bars of how much better than its baseline each prediction was: {w} of {n} were better.",
        "各项预测相对基线的提升条形图：{n} 项中 {w} 项更好。",
        w=won,
        n=len(rows),
    )
    return Chart(
        "trust-track",
        words("Track record against simple baselines, {d} days", "相对简单基线的成绩（{d} 天）", d=TRACK_DAYS),
        alt,
        shape,
        {MAIN: rows},
        grid,
        is_wide=True,
    )


def lists_chart(facts: TrustFacts, words: Words) -> Chart | None:
    rows = facts.track.filter(
        pl.col("concept") == "recommendations",
        pl.col("metric").str.starts_with("ndcg_at"),
        pl.col("horizon_days") == 7,
        "is_mature",
        pl.col("value").is_not_null(),
    )
    if rows.height < 3:
        return None
    metric = rows["metric"].sort()[0]
    rows = rows.filter(pl.col("metric") == metric).sort("outcome_date")
    ours, theirs = words("these lists", "本系统列表"), words("popularity list", "热门榜")
    data = [
        {"date": row["outcome_date"], "kind": name, "value": row[column]}
        for row in rows.to_dicts()
        for name, column in ((ours, "value"), (theirs, "baseline_value"))
        if row[column] is not None
    ]
    shape = lines(day=words("Day", "日期"), kind=words("List", "列表"), value=words.term(metric), order=(ours, theirs), days=words.day_of_axis)
    grid = Grid(
        words.term(metric),
        [words("Window ends", "窗口结束"), ours, theirs, words("People", "人数")],
        [
            [
                words.day(row["outcome_date"]),
                words.number(row["value"]),
                words.number(row["baseline_value"]),
                words.number(row["n"]),
            ]
            for row in rows.to_dicts()
        ],
        frozenset({1, 2, 3}),
        shown=100,
    )
    alt = words(
        "Lines of {m} of the lists in force and of a popularity list on the same people, by day.",
        "列表与热门榜在相同人群上的 {m} 逐日曲线。",
        m=words.term(metric),
    )
    return Chart("trust-lists", words("Recommendations over time", "推荐效果走势"), alt, shape, {MAIN: data}, grid)


def calibration_chart(facts: TrustFacts, words: Words) -> Chart | None:
    rows = (
        facts.calibration.filter(pl.col("segment_type").is_in(["all", "placement", "hour_block"]))
        .group_by("segment_type", "segment")
        .agg(pl.col("impressions", "clicks", "predicted_clicks", "conversions", "predicted_conversions").sum())
    )
    rows = rows.filter(pl.col("clicks") > 0).sort("segment_type", "impressions", "segment", descending=[False, True, False])
    if rows.is_empty():
        return None
    data: list[dict[str, Any]] = []
    table: list[list[Cell | str]] = []
    for row in rows.to_dicts():
        ratio = row["predicted_clicks"] / row["clicks"]
        spread = float(np.exp(1.96 / np.sqrt(row["clicks"])))
        is_off = not ratio / spread <= 1 <= ratio * spread
        name = row["segment"]
        if row["segment_type"] != "placement":
            name = words.term("all") if name == "all" else words("hours {h}", "{h} 点", h=name.replace("-", "–"))
        data.append(
            {"label": name, "value": ratio, "low": ratio / spread, "high": ratio * spread, "tone": WARN if is_off else ACCENT}
        )
        table.append(
            [
                name,
                words.number(row["impressions"]),
                words.number(row["predicted_clicks"], 1),
                words.number(row["clicks"]),
                Cell(words.number(ratio, 2), "warn" if is_off else "plain"),
                words.number(row["predicted_conversions"], 1),
                words.number(row["conversions"]),
            ]
        )
    shape = intervals(
        label=words("Where", "位置"),
        value=words("Predicted / observed clicks", "预测/实际点击"),
        low=words("Lower end", "下限"),
        high=words("Upper end", "上限"),
        rule=1.0,
        rows=len(data[:20]),
    )
    grid = Grid(
        words("Calibration of click and conversion rates, 14 days", "14 天点击与转化校准"),
        [
            words("Where", "位置"),
            words("Impressions", "展示"),
            words("Clicks predicted", "预测点击"),
            words("Clicks", "点击"),
            words("Ratio", "比值"),
            words("Conversions predicted", "预测转化"),
            words("Conversions", "转化"),
        ],
        table,
        frozenset(range(1, 7)),
        shown=100,
    )
    off = sum(row["tone"] == WARN for row in data)
    alt = words(
        "Points with intervals of predicted over observed clicks by placement and block of hours; 1 is perfect, {n} of {all} lie clearly off.",
        "各广告位与时段预测/实际点击比值及区间；1 为完美，{all} 个中 {n} 个明显偏离。",
        n=off,
        all=len(data),
    )
    return Chart(
        "trust-calibration", words("Are predicted clicks met?", "预测点击是否兑现？"), alt, shape, {MAIN: data[:20]}, grid
    )


def coverage_chart(facts: TrustFacts, words: Words) -> Chart | None:
    rows = facts.track.filter(
        pl.col("concept") == "demand", pl.col("metric").str.starts_with("coverage_"), pl.col("value").is_not_null(), "is_mature"
    )
    summed = (
        rows.group_by("metric", "segment", "horizon_days")
        .agg(value=pl.col("value").mean(), windows=pl.len())
        .sort("metric", "segment", "horizon_days")
    )
    if summed.is_empty():
        return None
    data: list[dict[str, Any]] = []
    table: list[list[Cell | str]] = []
    for row in summed.to_dicts():
        nominal = float(row["metric"].rpartition("_")[2]) / 100
        name = words(
            "{p} band, {s}, {h} d",
            "{p} 区间，{s}，{h} 天",
            p=words.rate(nominal, 0),
            s=words.term(row["segment"]),
            h=row["horizon_days"],
        )
        spread = 1.96 * float(np.sqrt(max(row["value"] * (1 - row["value"]), 0.01) / max(row["windows"], 1)))
        data.append(
            {
                "label": name,
                "value": row["value"] * 100,
                "low": max(row["value"] - spread, 0) * 100,
                "high": min(row["value"] + spread, 1) * 100,
                "tone": WARN if row["value"] < nominal - 0.1 else ACCENT,
            }
        )
        table.append(
            [
                name,
                words.rate(nominal, 0),
                Cell(words.rate(row["value"]), "warn" if row["value"] < nominal - 0.1 else "plain"),
                words.number(row["windows"]),
            ]
        )
    shape = bars(label=words("Band", "区间"), value=words("Inside the band, %", "落入区间，%"), rows=len(data[:14]))
    grid = Grid(
        words("Coverage of forecast bands", "预测区间覆盖率"),
        [words("Band", "区间"), words("Should hold", "应覆盖"), words("Held", "实际覆盖"), words("Windows", "窗口数")],
        table,
        frozenset({1, 2, 3}),
        shown=100,
        note=words(
            "Bands of items that rarely sell hold more than their share: zero is inside most of them.",
            "低频商品的区间覆盖率偏高：零销量多在区间内。",
        ),
    )
    alt = words("Bars of how many outcomes fell inside the forecast bands.", "落入预测区间的结果占比条形图。")
    return Chart("trust-coverage", words("Do the bands hold?", "区间是否可靠？"), alt, shape, {MAIN: data[:14]}, grid)


def maturity_chart(facts: TrustFacts, words: Words) -> Chart | None:
    if facts.maturity.is_empty():
        return None
    rows = [
        {"date": row["outcome_date"], "value": row["maturity"] * 100, "tone": ACCENT if row["is_mature"] else WARN}
        for row in facts.maturity.to_dicts()
    ]
    shape = columns(day=words("Day", "日期"), value=words("Arrived, %", "已到达，%"), days=words.day_of_axis)
    grid = Grid(
        words("Share of late figures that should have arrived", "延迟数据应到达比例"),
        [words("Day", "日期"), words("Arrived", "已到达"), words("Mature", "成熟")],
        [
            [
                words.day(row["outcome_date"]),
                words.rate(row["maturity"]),
                words("yes", "是") if row["is_mature"] else words("no", "否"),
            ]
            for row in facts.maturity.sort("outcome_date", descending=True).to_dicts()
        ],
        frozenset({1}),
        shown=30,
    )
    alt = words("Bars of the share of conversions expected to have arrived, by day.", "各日转化应到达比例条形图。")
    return Chart(
        "trust-maturity", words("How complete are the last days?", "最近几天数据是否完整？"), alt, shape, {MAIN: rows}, grid
    )


def quality_chart(facts: TrustFacts, words: Words) -> Chart | None:
    if facts.landed.is_empty():
        return None
    names = sorted(set(facts.landed["source"]))
    data = [
        {
            "date": row["landed_date"],
            "kind": words.term(row["source"]),
            "value": 100 * row["rejected"] / max(row["rejected"] + row["accepted"], 1),
        }
        for row in facts.landed.to_dicts()
    ]
    shape = lines(
        day=words("Day", "日期"),
        kind=words("Source", "数据源"),
        value=words("Refused, %", "被拒，%"),
        order=tuple(words.term(name) for name in names),
        days=words.day_of_axis,
    )
    grid = Grid(
        words("Rows landed and refused", "入库与被拒行数"),
        [
            words("Day", "日期"),
            words("Source", "数据源"),
            words("Accepted", "接受"),
            words("Refused", "被拒"),
            words("Share", "占比"),
        ],
        [
            [
                words.day(row["landed_date"]),
                words.term(row["source"]),
                words.number(row["accepted"]),
                words.number(row["rejected"]),
                words.rate(row["rejected"] / max(row["rejected"] + row["accepted"], 1)),
            ]
            for row in facts.landed.sort("landed_date", "source", descending=[True, False]).to_dicts()
        ],
        frozenset({2, 3, 4}),
        shown=60,
    )
    worst = max(data, key=lambda row: (row["value"], row["date"]))
    alt = words(
        "Lines of the share of refused rows by source over {d} days; the highest was {p} on {day}.",
        "近 {d} 天各数据源被拒占比曲线；最高为 {day} 的 {p}。",
        d=QUALITY_DAYS,
        p=words.rate(worst["value"] / 100),
        day=words.short_day(worst["date"]),
    )
    return Chart("trust-quality", words("Rows refused on landing", "入库时被拒的行"), alt, shape, {MAIN: data}, grid)


def reasons_table(reasons: pl.DataFrame, words: Words) -> Grid:
    return Grid(
        words("Why rows were refused, {d} days", "被拒原因（{d} 天）", d=QUALITY_DAYS),
        [words("Source", "数据源"), words("Reason", "原因"), words("Rows", "行数"), words("Newest file", "最近文件")],
        [
            [
                words.term(row["source"]),
                Cell(row["kind"], detail=row["example"] if row["example"] != row["kind"] else None),
                words.number(row["rows"]),
                row["file"],
            ]
            for row in reasons.head(20).to_dicts()
        ],
        frozenset({2}),
        shown=20,
        is_open=False,
    )


def experiments_table(experiments: pl.DataFrame, words: Words) -> Grid:
    rows = experiments.filter(pl.col("method") == "cuped")
    rows = rows if rows.height else experiments
    table: list[list[Cell | str]] = []
    for row in rows.sort("experiment", "metric").to_dicts():
        is_clear = row["sequential_low"] > 0 or row["sequential_high"] < 0
        tone: Any = (
            "bad"
            if not row["is_sample_ratio_ok"]
            else "good"
            if row["sequential_low"] > 0
            else "bad"
            if row["sequential_high"] < 0
            else "muted"
        )
        verdict = (
            words("arms broken, do not read", "分组异常，勿读")
            if not row["is_sample_ratio_ok"]
            else words("clear", "显著")
            if is_clear
            else words("not clear yet", "尚不显著")
        )
        table.append(
            [
                words.term(row["experiment"]),
                words.term(row["metric"]),
                words.number(row["treated_users"]),
                words.number(row["control_users"]),
                words.number(row["uplift"]),
                f"{words.number(row['sequential_low'])} … {words.number(row['sequential_high'])}",
                Cell(verdict, tone),
            ]
        )
    return Grid(
        words("What the system itself brings: everyone else against people held out", "系统自身的贡献：非对照组与对照组"),
        [
            words("Experiment", "实验"),
            words("Per user", "每用户"),
            words("Treated", "实验组"),
            words("Held out", "对照组"),
            words("Difference", "差异"),
            words("Interval, valid every day", "随时有效区间"),
            words("Verdict", "结论"),
        ],
        table,
        frozenset({2, 3, 4, 5}),
        shown=20,
    )
