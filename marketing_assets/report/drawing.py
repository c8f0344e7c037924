"""Charts of the page, in Altair: shapes that several sections share.

What belongs here: marks, scales and tooltips. What does not: which numbers are drawn and what they mean (the sections).

A shape is a specification over named data sets and is made once per process: checking it takes longer than all else on the
page, and no number is in it. Colours are names of the page's styles, so that light, dark and print need no other chart.
Days are written as local midnights, so that no viewer's time zone moves them; `days` is how an axis writes one, as a format of d3.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cache
from typing import Any

import altair as alt

Spec = Mapping[str, Any]
Rows = Sequence[Mapping[str, Any]]
Pairs = tuple[tuple[str, str], ...]

HEAT = [f"var(--heat-{step})" for step in range(7)]
SERIES = [f"var(--series-{number})" for number in range(1, 7)]
DASHES = [[1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [10, 4], [4, 4]]
INK, MUTED, ACCENT, BAND, GOOD, BAD, WARN = (
    f"var(--{name})" for name in ("ink", "muted", "accent", "band", "good", "bad", "warn")
)
MAIN, AHEAD = "rows", "ahead"
"""Names of the data sets a shape draws: its rows, and for forecasts those still ahead."""


def plain(rows: Rows) -> list[dict[str, Any]]:
    """Rows as the page carries them: days as local midnights, floats cut to six figures (more than a picture can show)."""
    return [{key: _plain(value) for key, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, date):
        return f"{value.isoformat()}T00:00:00"
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _data(name: str = MAIN) -> Any:
    return alt.NamedData(name=name)


def _spec(chart: Any) -> Spec:
    """The chart as Vega-Lite, checked, without schema address and without settings of its own."""
    spec: dict[str, Any] = chart.to_dict()
    for key in ("$schema", "config"):
        spec.pop(key, None)
    return spec


def _days(day_format: str) -> alt.Axis:
    label = f"hours(datum.value) == 0 ? timeFormat(datum.value, '{day_format}') : ''"  # on few days ticks lie within days, too
    return alt.Axis(title=None, labelExpr=label, labelOverlap=True, grid=False, tickCount=8)


def _tip(field: str, title: str, kind: str = "Q", number_format: str = ",.4~r") -> alt.Tooltip:
    if kind == "T":
        return alt.Tooltip(f"{field}:T", title=title, format="%Y-%m-%d")
    return alt.Tooltip(f"{field}:{kind}", title=title, format=number_format if kind == "Q" else "")


def _rule(at: float, axis: str, scale: alt.Scale) -> alt.Chart:
    chart: alt.Chart = alt.Chart(alt.InlineData(values=[{"at": at}])).mark_rule(strokeDash=[4, 4], color=MUTED)
    channel = alt.X("at:Q", scale=scale) if axis == "x" else alt.Y("at:Q", scale=scale)
    return chart.encode(channel)


@cache
def band_and_line(*, day: str, actual: str, expected: str, low: str, high: str, unit: str, days: str) -> Spec:
    """rows: date, value. ahead: date, mean, low, high. A line that goes on as a dashed one within its band."""
    past = (
        alt.Chart(_data())
        .mark_line(point={"size": 22, "filled": True, "color": INK}, color=INK, strokeWidth=1.6)
        .encode(
            x=alt.X("date:T", axis=_days(days)),
            y=alt.Y("value:Q", title=unit),
            tooltip=[_tip("date", day, "T"), _tip("value", actual)],
        )
    )
    base = alt.Chart(_data(AHEAD))
    tooltip = [_tip("date", day, "T"), _tip("mean", expected), _tip("low", low), _tip("high", high)]
    area = base.mark_area(color=BAND).encode(x="date:T", y=alt.Y("low:Q", title=unit), y2="high:Q", tooltip=tooltip)
    line = base.mark_line(color=ACCENT, strokeDash=[5, 3], strokeWidth=2).encode(x="date:T", y="mean:Q", tooltip=tooltip)
    hover = base.mark_point(opacity=0, size=160, filled=True).encode(x="date:T", y="mean:Q", tooltip=tooltip)
    return _spec(alt.layer(area, past, line, hover).properties(height=260))


@cache
def heat_map(
    *,
    hour: str,
    placement: str,
    amount: str,
    show: str,
    audience: str,
    everyone: str,
    measures: Pairs,
    audiences: tuple[str, ...],
    places: int,
) -> Spec:
    """rows: audience, placement, hour and the measures. Two menus choose measure and audience."""
    names, labels = [name for name, _ in measures], [label for _, label in measures]
    chosen = alt.param(name="measure", value=names[0], bind=alt.binding_select(options=names, labels=labels, name=f"{show} "))
    who = alt.param(name="who", value=everyone, bind=alt.binding_select(options=[everyone, *audiences], name=f"{audience} "))
    scale = alt.Scale(type="quantize", range=HEAT, zero=True)
    return _spec(
        alt.Chart(_data())
        .add_params(chosen, who)
        .transform_filter(f"who == {json.dumps(everyone, ensure_ascii=False)} || datum.audience == who")
        .transform_calculate(chosen="datum[measure]")
        .transform_aggregate(total="sum(chosen)", groupby=["placement", "hour"])
        .mark_rect(stroke="var(--card)", strokeWidth=1.5, cornerRadius=2)
        .encode(
            x=alt.X(
                "hour:O", title=hour, scale=alt.Scale(domain=list(range(24))), axis=alt.Axis(labelAngle=0, labelOverlap=True)
            ),
            y=alt.Y(
                "placement:N",
                title=None,
                axis=alt.Axis(labelLimit=130),
                sort=alt.EncodingSortField("total", op="sum", order="descending"),
            ),
            color=alt.Color(
                "total:Q",
                title=None,
                scale=scale,
                legend=alt.Legend(orient="bottom", direction="horizontal", format=",.3~r", gradientLength=220),
            ),
            tooltip=[_tip("placement", placement, "N"), _tip("hour", hour, "O"), _tip("total", amount)],
        )
        .properties(height=max(120, 30 * places + 20))
    )


@cache
def curve(*, x: str, y: str, marginal: str, conversions: str, current: str) -> Spec:
    """rows: budget, value, marginal, conversions, is_current. A line with the point in force."""
    base = alt.Chart(_data())
    tooltip = [_tip("budget", x), _tip("value", y), _tip("marginal", marginal), _tip("conversions", conversions)]
    line = base.mark_line(color=ACCENT, strokeWidth=2, point={"color": ACCENT, "size": 45, "filled": True}).encode(
        x=alt.X("budget:Q", title=x, axis=alt.Axis(tickCount=6)), y=alt.Y("value:Q", title=y), tooltip=tooltip
    )
    here = base.transform_filter("datum.is_current")
    point = here.mark_point(size=170, filled=True, opacity=1, color=WARN, shape="diamond").encode(
        x="budget:Q", y="value:Q", tooltip=tooltip
    )
    label = here.mark_text(align="left", dx=11, dy=12, color=INK, fontWeight=600).encode(
        x="budget:Q", y="value:Q", text=alt.value(current)
    )
    return _spec(alt.layer(line, point, label).properties(height=240))


@cache
def bars(*, label: str, value: str, rows: int, wrap: str = "") -> Spec:
    """rows: label, value, tone (a style). Horizontal bars in the order of the rows; `rows` sets the height.

    wrap: where a label goes on in a second line, on a phone.
    """
    limit = alt.ExprRef("width < 500 ? 170 : 300")
    axis = alt.Axis(labelLimit=limit)
    if wrap:
        axis = alt.Axis(labelLimit=limit, labelLineHeight=12, labelOffset=alt.ExprRef("width < 500 ? -6 : 0"))
        axis.labelExpr = f"width < 500 ? split(datum.label, '{wrap}') : datum.label"
    return _spec(
        alt.Chart(_data())
        .mark_bar(cornerRadiusEnd=2, height={"band": 0.7})
        .encode(
            x=alt.X("value:Q", title=value, axis=alt.Axis(tickCount=5)),
            y=alt.Y("label:N", title=None, sort=None, axis=axis),
            color=alt.Color("tone:N", scale=None, legend=None),
            tooltip=[_tip("label", label, "N"), _tip("value", value)],
        )
        .properties(height=max(70, (30 if wrap else 26) * rows + 10))
    )


def _by_day(
    base: Any, x: str, day: str, value: str, days: str, colour: alt.Color, *more: alt.Tooltip, step: float = 0, **channels: Any
) -> Spec:
    """Marks over days, in one colour per row's tone or kind. step: least distance of ticks, 1 for things that are counted."""
    tooltip = [_tip("date", day, "T"), *more, _tip("value", value)]
    y = alt.Y("value:Q", title=value, axis=alt.Axis(tickCount=5, tickMinStep=step))
    return _spec(base.encode(x=alt.X(x, title=None, axis=_days(days)), y=y, color=colour, tooltip=tooltip, **channels).properties(height=200))


def _kinds(order: tuple[str, ...], symbol: str = "square") -> alt.Color:
    """A colour per kind, in this order, with a legend."""
    scale = alt.Scale(domain=list(order), range=SERIES[: len(order)])
    legend = alt.Legend(orient="bottom", columns=3, symbolType=symbol)
    return alt.Color("kind:N", title=None, sort=list(order), scale=scale, legend=legend)


@cache
def columns(*, day: str, value: str, days: str) -> Spec:
    """rows: date, value, tone (a style). A bar per day."""
    bar = alt.Chart(_data()).mark_bar(cornerRadiusEnd=2)
    return _by_day(bar, "yearmonthdate(date):T", day, value, days, alt.Color("tone:N", scale=None, legend=None))


@cache
def stacked_days(*, day: str, kind: str, value: str, order: tuple[str, ...], days: str) -> Spec:
    """rows: date, kind, value (a count). Bars by day, stacked by kind in `order`."""
    bar = alt.Chart(_data()).mark_bar(stroke="var(--card)", strokeWidth=1)
    return _by_day(bar, "yearmonthdate(date):T", day, value, days, _kinds(order), _tip("kind", kind, "N"), step=1)


@cache
def lines(*, day: str, kind: str, value: str, order: tuple[str, ...], days: str) -> Spec:
    """rows: date, kind, value. A line per kind, told apart by dashes as well as by colour."""
    line = alt.Chart(_data()).mark_line(point={"size": 30, "filled": True}, strokeWidth=1.8)
    dash = alt.StrokeDash("kind:N", title=None, sort=list(order), scale=alt.Scale(domain=list(order), range=DASHES[: len(order)]))
    return _by_day(line, "date:T", day, value, days, _kinds(order, "stroke"), _tip("kind", kind, "N"), strokeDash=dash)


@cache
def intervals(*, label: str, value: str, low: str, high: str, rule: float, rows: int) -> Spec:
    """rows: label, value, low, high, tone (a style). Points with whiskers, and a line at `rule`."""
    base = alt.Chart(_data())
    y = alt.Y("label:N", title=None, sort=None, axis=alt.Axis(labelLimit=170))
    scale = alt.Scale(zero=False)
    tone = alt.Color("tone:N", scale=None)
    tooltip = [_tip("label", label, "N"), _tip("value", value), _tip("low", low), _tip("high", high)]
    whisker = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title=value, scale=scale, axis=alt.Axis(tickCount=6)), x2="high:Q", y=y, color=tone, tooltip=tooltip
    )
    point = base.mark_point(filled=True, size=80, opacity=1).encode(
        x=alt.X("value:Q", scale=scale), y=y, color=tone, tooltip=tooltip
    )
    return _spec(alt.layer(_rule(rule, "x", scale), whisker, point).properties(height=max(70, 28 * rows + 10)))
