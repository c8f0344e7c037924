"""A picture of a partition for the Dagster UI, where people would rather look than read.

What belongs here: small SVG drawings of the newest partition of a few tables. What does not: the page and its charts
(drawing.py). An SVG goes into the event log with every run, so it is drawn from a handful of numbers, by hand and without a
browser; its colours are legible on light and on dark ground.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from datetime import date
from html import escape

import polars as pl

from marketing_assets.warehouse import Reader

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 640, 240, 130, 16, 28
INK, MAIN, SOFT = "#7a828e", "#3b7dd8", "#3b7dd833"
MOST_ROWS = 14


def picture(reader: Reader, table: str, day: date) -> str | None:
    """Markdown with the picture of a table's partition, or None where there is nothing to draw."""
    draw = _PICTURES.get(table)
    if draw is None:
        return None
    drawn = draw(reader, day)
    if drawn is None:
        return None
    words, body = drawn
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="11" fill="{INK}">{"".join(body)}</svg>'
    )
    return f"![{words}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


Drawn = tuple[str, list[str]] | None


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _short(text: str, length: int = 20) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _curve(xs: Sequence[float], ys: Sequence[float], low: Sequence[float], high: Sequence[float], ends: tuple[str, str]) -> list[str]:
    """A line with a band around it; xs rise. ends: words under the first and last point."""
    top, span = max([*high, *ys]), (max(xs) - min(xs)) or 1.0

    def at(x: float, y: float) -> str:
        right, up = (x - min(xs)) / span, max(y, 0.0) / (top or 1.0)
        return f"{LEFT + right * (WIDTH - LEFT - 16):.1f},{HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - TOP):.1f}"

    band = [at(x, y) for x, y in zip(xs, high, strict=True)] + [at(x, y) for x, y in zip(reversed(xs), reversed(low), strict=True)]
    line = [at(x, y) for x, y in zip(xs, ys, strict=True)]
    return [
        f'<polygon points="{" ".join(band)}" fill="{SOFT}"/>',
        f'<polyline points="{" ".join(line)}" fill="none" stroke="{MAIN}" stroke-width="2"/>',
        f'<line x1="{LEFT}" y1="{HEIGHT - BOTTOM}" x2="{WIDTH - 16}" y2="{HEIGHT - BOTTOM}" stroke="{INK}"/>',
        _text(LEFT - 8, TOP + 8, f"{top:,.4g}", "end"),
        _text(LEFT - 8, HEIGHT - BOTTOM, "0", "end"),
        _text(LEFT, HEIGHT - 10, ends[0]),
        _text(WIDTH - 16, HEIGHT - 10, ends[1], "end"),
    ]


def _demand(reader: Reader, day: date) -> Drawn:
    columns = ["level", "date", "demand_mean", "demand_p10", "demand_p90"]
    rows = (
        reader.window("demand_forecasts", day, day, columns)
        .filter(pl.col("level") == "shop")
        .group_by("date")
        .agg(pl.col("demand_mean", "demand_p10", "demand_p90").sum())
        .sort("date")
    )
    if rows.height < 2:
        return None
    ends = (str(rows["date"][0]), str(rows["date"][-1]))
    mean, low, high = (rows[name].to_list() for name in ("demand_mean", "demand_p10", "demand_p90"))
    return f"units the shop will sell, {ends[0]} to {ends[1]}, with the 80 % band", _curve(range(rows.height), mean, low, high, ends)


def _plan(reader: Reader, day: date) -> Drawn:
    rows = (
        reader.window("ad_plan", day, day, ["placement_id", "hour", "planned_impressions"])
        .group_by("placement_id", "hour")
        .agg(pl.col("planned_impressions").sum())
    )
    if rows.is_empty() or not rows["planned_impressions"].sum():
        return None
    largest = rows.group_by("placement_id").agg(total=pl.col("planned_impressions").sum()).sort(-pl.col("total"), "placement_id")
    names = largest["placement_id"].head(MOST_ROWS).to_list()
    most = float(rows["planned_impressions"].max())  # type: ignore[arg-type]
    across, down = (WIDTH - LEFT - 16) / 24, (HEIGHT - TOP - BOTTOM) / len(names)
    body = [_text(LEFT - 8, TOP + (place + 0.6) * down, _short(name), "end") for place, name in enumerate(names)]
    body += [_text(LEFT + (hour + 0.5) * across, HEIGHT - 10, str(hour), "middle") for hour in range(0, 24, 3)]
    for name, hour, shown in rows.filter(pl.col("placement_id").is_in(names)).sort("placement_id", "hour").iter_rows():
        x, y = LEFT + hour * across, TOP + names.index(name) * down
        body.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{across - 1:.1f}" height="{down - 1:.1f}" fill="{MAIN}" '
            f'fill-opacity="{0.08 + 0.92 * shown / most:.2f}"/>'
        )
    return "planned impressions by placement and hour: the darker the more", body


def _budget(reader: Reader, day: date) -> Drawn:
    rows = reader.window("ad_plan_scenarios", day, day, ["budget", "expected_revenue", "is_current"]).sort("budget")
    if rows.height < 2:
        return None
    budgets, revenue = rows["budget"].cast(pl.Float64).to_list(), rows["expected_revenue"].cast(pl.Float64).to_list()
    current = rows.filter("is_current")["budget"].cast(pl.Float64)
    words = "expected revenue over the budget" + (f"; the plan spends up to {current[0]:,.2f}" if len(current) else "")
    return words, _curve(budgets, revenue, revenue, revenue, (f"{budgets[0]:,.0f}", f"{budgets[-1]:,.0f}"))


_PICTURES: dict[str, Callable[[Reader, date], Drawn]] = {
    "demand_forecasts": _demand,
    "ad_plan": _plan,
    "ad_plan_scenarios": _budget,
}
