"""The page: headline tiles, what to do, sections; rendered to one HTML file.

What belongs here: putting the pieces together and writing the file. What does not: what a section says (its module), looks
(templates/).

Everything read lies at or before the day: daily_report HISTORY_DAYS back, and what each section names.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from marketing_assets.config import Store
from marketing_assets.report.demand import demand_actions, demand_facts, demand_section
from marketing_assets.report.figures import TABLE, build_daily_report
from marketing_assets.report.people import people_actions, people_facts, people_section
from marketing_assets.report.pieces import Action, Page, Tile, Tone
from marketing_assets.report.plan import plan_actions, plan_facts, plan_section
from marketing_assets.report.record import trust_facts
from marketing_assets.report.service import service_actions, service_facts, service_section
from marketing_assets.report.trust import trust_actions, trust_section
from marketing_assets.report.watch import watch_actions, watch_facts, watch_section
from marketing_assets.report.words import Words
from marketing_assets.warehouse import Reader, replace_file

HISTORY_DAYS = 28
HEADLINES = (
    "revenue",
    "orders",
    "session_conversion_rate",
    "average_order_value",
    "ad_spend",
    "roas",
    "expected_units",
    "mean_rating",
)
"""Figures that are tiles of the first screen, in order; those the shop's sources do not allow are left out."""
LESS_IS_BETTER = ("complaints", "urgent_complaints", "rejected_share", "drift_verdicts")
NO_DIRECTION = ("ad_spend", "sessions", "planned_spend", "planned_impressions", "order_cost", "items_to_order", "expected_units")
_FOLDER = Path(__file__).parent / "templates"


def report_path(store: Store, day: date) -> Path:
    return store.folder / "reports" / f"{day}.html"


def write_report(reader: Reader, day: date, store: Store) -> Path:
    """Render the page of `day` to reports/<day>.html beside store.yaml, by atomic rename. Returns its path."""
    path = report_path(store, day)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, render_report(reader, day, store))
    return path


def render_report(reader: Reader, day: date, store: Store) -> str:
    """The page of `day` as HTML, in the store's language."""
    words = Words(store)
    page = build_page(reader, day, store, words)
    scripts, style = (_bundle(report_path(store, day).parent), _script()), _style()
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    html: str = _template().render(
        page=page, words=words, style=style, scripts=scripts, policy=policy, as_json=_as_json
    )
    return html


def build_page(reader: Reader, day: date, store: Store, words: Words) -> Page:
    """What the page says, before it is HTML."""
    plan, demand, people = plan_facts(reader, day, store), demand_facts(reader, day), people_facts(reader, day, store)
    watch, service, trust = watch_facts(reader, day), service_facts(reader, day), trust_facts(reader, day)
    urgent = [*watch_actions(watch, words), *service_actions(service, day, words)]
    actions = [*plan_actions(plan, day, store, words), *demand_actions(demand, words), *urgent, *people_actions(people, words)]
    actions.sort(key=lambda action: {"bad": 0, "warn": 1, "plain": 2, "good": 2}.get(action.tone, 3))
    sections = [
        plan_section(plan, store, words),
        demand_section(demand, day, store, words),
        people_section(people, store, words),
        watch_section(watch, day, words),
        service_section(service, day, store, words),
        trust_section(trust, day, store, words),
    ]
    tiles = _tiles(reader, day, store, words)
    if worse := [f"{tile.label} {tile.value}" for tile in tiles if tile.tone == "bad"]:
        text = words("Worse than usual, beyond chance: {names}.", "明显差于平时：{names}。", names=words.items(worse, len(HEADLINES)))
        actions.insert(sum(action.tone == "bad" for action in actions), Action(text, "headlines", "warn"))
    status, tone = _status(actions, words)
    if not actions:
        actions = [Action(words("Nothing asks for you today.", "今天没有需要处理的事项。"), "trust")]
    return Page(
        title=words("{shop}: {day}", "{shop}：{day}", shop=store.name, day=words.day(day)),
        subtitle=words(
            "What is known at the end of the day, {zone} time", "截至当日结束的已知信息，时区 {zone}", zone=store.timezone
        ),
        status=status,
        status_tone=tone,
        tiles=tiles,
        actions=actions,
        trust=trust_actions(trust, day, words),
        sections=sections,
        labels=_labels(words),
        language="zh-Hans" if words.is_chinese else "en",
    )


def _status(actions: list[Action], words: Words) -> tuple[str, Tone]:
    bad, warn = sum(action.tone == "bad" for action in actions), sum(action.tone == "warn" for action in actions)
    if bad:
        return words("{n} to act on now", "{n} 项需立即处理", n=bad), "bad"
    if warn:
        return words("{n} to look at", "{n} 项需关注", n=warn), "warn"
    return words("All quiet", "一切正常"), "good"


def _labels(words: Words) -> dict[str, str]:
    return {
        "do": words("What to do today", "今日要务"),
        "trust": words("How far to trust it", "可信程度"),
        "table": words("The numbers", "查看数据"),
        "more": words("Show all {n}", "显示全部 {n} 项", n="{n}"),
        "answer": words("Details", "详情"),
        "contents": words("On this page", "目录"),
        "theme": words("Dark", "深色"),
        "skip": words("Skip to the figures", "跳到指标"),
        "bad": words("Act now:", "立即处理："),
        "warn": words("Look at:", "需关注："),
        "missing": words("Not available", "暂不可用"),
        "headlines": words("Headline figures", "核心指标"),
        "script": words(
            "Charts need JavaScript; every number is in the tables.", "图表需要 JavaScript；所有数字均可在表格中查看。"
        ),
    }


# --- headline tiles ---------------------------------------------------------------------------------------------------


def _tiles(reader: Reader, day: date, store: Store, words: Words) -> list[Tile]:
    published = reader.window(TABLE, day - timedelta(days=HISTORY_DAYS - 1), day)
    if published.filter(pl.col("as_of_date") == day).is_empty():
        made = build_daily_report(reader, [day], store).tables[TABLE]
        assert isinstance(made, pl.DataFrame)
        published = pl.concat([published, made])
    tiles = []
    for figure in HEADLINES:
        rows = published.filter(pl.col("figure") == figure).sort("as_of_date")
        today = rows.filter(pl.col("as_of_date") == day)
        by_day = dict(rows.select("as_of_date", "value").iter_rows())
        if today.is_empty() or not any(value is not None for value in by_day.values()):
            continue
        history = [by_day.get(day - timedelta(days=back)) for back in range(HISTORY_DAYS - 1, -1, -1)]
        tiles.append(_tile(today.row(0, named=True), history, day, words))
    return tiles


def _tile(row: Mapping[str, Any], history: list[float | None], day: date, words: Words) -> Tile:
    value, usual, low, high, unit = row["value"], row["baseline_value"], row["ci_low"], row["ci_high"], row["unit"]
    compared, against = (
        (usual, words("usual", "平时")) if usual is not None else (row["previous_value"], words("the day before", "前一日"))
    )
    change, tone = words("nothing to compare with", "暂无可比数据"), "muted"
    if value is not None and compared:
        share = value / compared - 1
        arrow = "▲" if share > 0.0005 else "▼" if share < -0.0005 else "■"
        change = words(
            "{arrow} {s} vs {against} ({v})",
            "{arrow} 较{against} {s}（{v}）",
            arrow=arrow,
            s=words.signed(share),
            against=against,
            v=words.figure(compared, unit),
        )
        is_clear = low is not None and high is not None and usual is not None and not low <= usual <= high
        if is_clear and row["figure"] not in NO_DIRECTION:
            tone = "good" if (share > 0) != (row["figure"] in LESS_IS_BETTER) else "bad"
            change += words(", beyond chance", "，超出正常波动")  # said, too, for those who do not see colours
    interval = ""
    if low is not None and high is not None:
        name = words("likely between", "可能介于") if row["figure"] == "expected_units" else words("interval", "区间")
        interval = f"{name} {words.figure(low, unit)} – {words.figure(high, unit)}"
    when = "" if row["figure_date"] == day else words.short_day(row["figure_date"])
    if row["maturity"] < 0.98:
        when = (when + " · " if when else "") + words("{p} arrived", "已到达 {p}", p=words.rate(row["maturity"], 0))
    return Tile(words.term(row["figure"]), words.figure(value, unit), change, tone, interval, when, history)  # type: ignore[arg-type]


# --- files ------------------------------------------------------------------------------------------------------------


@cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html")


@cache
def _style() -> str:
    return (_FOLDER / "report.css").read_text(encoding="utf-8")


@cache
def _bundle(folder: Path) -> str:
    """Vega, Vega-Lite and Vega-Embed in one text: made once per version, which takes seconds, then kept beside the pages."""
    kept = folder / f".vega-{importlib.metadata.version('vl-convert-python')}.js"
    if kept.is_file():
        return kept.read_text(encoding="utf-8")
    import vl_convert

    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", "<\\/script")
    if folder.is_dir():
        replace_file(kept, bundle)
    return bundle


@cache
def _script() -> str:
    return (_FOLDER / "report.js").read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _as_json(value: Any) -> str:
    """JSON that is safe inside a script element: nothing in it can close the element or open another."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return (
        text.replace("&", "\\u0026")
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )
