"""The report of a trial: markdown and a page of its own, from the summary.

What belongs here: words and tables. What does not: any figure (figures.py).
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from marketing_assets.evaluation.holdouts import MINIMUM_USERS

EFFECTS = "What the system believed of its own effect, per user"
NOTHING = {EFFECTS: f"nothing: it compares no fewer than {MINIMUM_USERS} users held out with as many others"}
"""What stands where a table has no rows, if more than 'nothing' can be said."""
ARMS = {"common_practice": "common practice", "system": "this system", "oracle": "oracle"}
_PERCENT = ("session_conversion_rate", "realised_session_conversion_rate")


def _number(name: str, value: float) -> str:
    return f"{value:.3%}" if name in _PERCENT else f"{value:,.2f}"


def _share(entry: Mapping[str, Any] | None) -> str:
    if entry is None or entry["value"] is None:
        return "-"
    if entry["interval"] is None:
        return f"{entry['value']:+.1%}"
    low, high = entry["interval"]
    return f"{entry['value']:+.1%} ({low:+.1%} to {high:+.1%})"


def tables_of(summary: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Heading, columns and rows of every table of the report."""
    arms = list(next(iter(summary["figures"].values()))["arms"])
    figures = []
    for name, entry in summary["figures"].items():
        row = [entry["label"], *(_number(name, entry["arms"][arm]["value"]) for arm in arms), _share(entry["system_lift"])]
        if "oracle" in arms:
            row += [_share(entry["oracle_lift"]), _share(entry["share_of_oracle_gain"])]
        figures.append(row)
    heads = ["figure", *(ARMS[arm] for arm in arms), "this system's lift"]
    if "oracle" in arms:
        heads += ["oracle's lift", "share of the oracle's gain"]
    claims = [
        [row["figure"], row["what"], f"{row['bar']:.0%}", _share(row), "yes" if row["is_met"] else "no" if row["interval"] else "no interval"]
        for row in summary["claims"]
    ]
    effects = [
        [
            row["experiment"], row["metric"], row["method"], f"{row['believed']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f})",
            f"{row['truth']:+.4f}", f"{row['control_users']:.0f}", f"{row['covered']} of {row['seeds']}",
        ]
        for row in summary["effects"]
    ]  # fmt: skip
    evaluation = [
        [row["metric"], f"{row['believed']:,.5g}", f"{row['truth']:,.5g}", f"{row['days_covered']} of {row['days']}"]
        for row in summary["evaluation"]
    ]
    verdicts = [
        [str(row["seed"]), row["day"], row["cause"], row["action"], ", ".join(row["assets"])] for row in summary["verdicts"]
    ]
    believed = ["experiment", "metric", "method", "believed", "truth", "held out", "interval holds the truth"]
    said = ["metric", "said", "truth", "days whose interval holds it"]
    return [
        ("What came of it", heads, figures),
        ("Bars, at the lower end of the interval", ["figure", "measure", "bar", "found", "met"], claims),
        (EFFECTS, believed, effects),
        ("What the evaluation said of the system's days", said, evaluation),
        ("What drift made it do", ["seed", "day", "cause", "action", "tables"], verdicts),
    ]


def _opening(summary: Mapping[str, Any]) -> list[str]:
    wanted = summary["conversion_target"]
    aim = f", expecting {wanted:g} times the conversions a day that ads brought before" if wanted else ""
    if wanted and (worth := summary["conversion_worth"]) is not None:
        aim += f" where the last costs no more than {worth:g} times what one brought"
    return [
        f"{summary['shop']}: {summary['seeds']} seeds, {summary['days']} days each after {summary['warm_up_days']} days of common practice; "
        f"decisions renewed every {summary['renew_days']} day(s), judged every {summary['judge_days']}. "
        f"Intervals: {summary['level']:.0%}, bootstrap over seeds, arms paired.",
        f"Plans seek ad revenue within the budget{aim}. Refused by the system's own gate: {summary['refused_plans']}.",
    ]


def as_markdown(summary: Mapping[str, Any]) -> str:
    """The report as markdown."""
    lines = ["# Closed-loop trial", "", *(line for text in _opening(summary) for line in (text, ""))]
    for heading, columns, rows in tables_of(summary):
        lines += [f"## {heading}", "", *(_markdown_table(columns, rows) if rows else [NOTHING.get(heading, "nothing")]), ""]
    return "\n".join(lines)


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (columns, ["---"] * len(columns), *rows)]


_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:78rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.5rem 0 2rem}th,td{padding:.3rem .7rem;border-bottom:1px solid #ddd;text-align:left}
td:not(:first-child){font-variant-numeric:tabular-nums}"""


def as_page(summary: Mapping[str, Any]) -> str:
    """The report as a page that needs nothing else."""
    parts = [f"<p>{html.escape(text)}</p>" for text in _opening(summary)]
    for heading, columns, rows in tables_of(summary):
        parts.append(f"<h2>{html.escape(heading)}</h2>")
        head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if rows else f"<p>{NOTHING.get(heading, 'nothing')}</p>")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Closed-loop trial</title><style>{_STYLE}</style></head>'
        f"<body><h1>Closed-loop trial</h1>{''.join(parts)}</body></html>\n"
    )
