"""The text of a first store.yaml, with a comment beside every guess.

What belongs here: words and YAML. What does not: any guess.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import yaml

from marketing_assets.onboarding.columns import Block
from marketing_assets.onboarding.looking import FileSet

WIDTH = 118


@dataclass(frozen=True)
class Draft:
    """What goes into the file. *_comment: why. service_pattern: of item ids that are no items. tells_money: whether anything says what
    is paid. notes: what could not be told."""

    name: str
    timezone: str
    timezone_comment: str
    currency: str
    currency_comment: str
    first_day: date
    first_day_comment: str
    last_day: date | None
    last_day_comment: str
    data_root: str
    blocks: Sequence[tuple[Block, bool, str]]
    """(block, whether days without a file are normal, why)"""
    country: str | None
    service_pattern: str | None
    service_examples: Sequence[str]
    tells_money: bool
    notes: Sequence[str]
    unused: Sequence[tuple[str, str]]


def scalar(value: str) -> str:
    """A text as YAML on one line."""
    style = '"' if "'" in value[:1] and "\\" not in value else None  # "'all'" reads better than '''all'''
    dumped: str = yaml.safe_dump(value, width=10**6, allow_unicode=True, default_style=style)
    return dumped.removesuffix("\n...\n").removesuffix("\n")


def _commented(text: str, comment: str, indent: int = 0) -> str:
    return " " * indent + text + (f"    # {' '.join(comment.split())}" if comment else "")


def _mapping(key: str, value: str, comment: str, indent: int) -> list[str]:
    """'key: value', folded over lines where it is long."""
    line = _commented(f"{key}: {scalar(value)}", comment, indent)
    if len(line) <= WIDTH:
        return [line]
    head = [" " * indent + f"# {comment}"] if comment else []
    if len(value) <= 70 or '"' in value or "  " in value or "\\" in value:  # folding would change what is quoted or doubly spaced
        return [*head, " " * indent + f"{key}: {scalar(value)}"]
    folded = textwrap.wrap(value, WIDTH - indent - 2, break_long_words=False, break_on_hyphens=False)
    return [*head, " " * indent + f"{key}: >-", *(" " * (indent + 2) + part for part in folded)]


def _layout(files: FileSet, may_be_missing: bool, why_missing: str, indent: int) -> list[str]:
    pad = " " * indent
    lines = [f"{pad}files: {scalar(files.pattern)}"]
    if files.format != "csv":
        lines.append(f"{pad}format: {files.format}")
    if files.format == "csv" and files.delimiter != ",":
        delimiter = '"\\t"' if files.delimiter == "\t" else f'"{files.delimiter}"'
        lines.append(f"{pad}delimiter: {delimiter}")
    if files.encoding != "utf-8":
        lines.append(f"{pad}encoding: {files.encoding}")
    if files.skip_lines:
        lines.append(f"{pad}skip_lines: {files.skip_lines}")
    if files.is_dated:
        lines.append(_commented(f"missing_file: {'empty' if may_be_missing else 'error'}", why_missing, indent))
    return lines


def _block(block: Block, may_be_missing: bool, why_missing: str, indent: int, first: str) -> list[str]:
    files = block.files
    pad = " " * indent
    lines = _layout(files, may_be_missing, why_missing, indent)
    lines[0] = f"{' ' * (indent - len(first))}{first}{lines[0].strip()}"
    if files.unroll is not None:
        lines.append(_commented(f"unroll: {scalar(files.unroll)}", "each of its elements is a row, source_element", indent))
    if block.joined:
        lines.append(f"{pad}join:")
    for joined in block.joined:
        lines.append(f"{pad}  {joined.name}:")
        lines += _layout(joined.files, may_be_missing, "", indent + 4)
        lines += _mapping("by", joined.by, "", indent + 4)
        lines += _mapping("key", joined.key, "", indent + 4) if joined.key != joined.by else []
    if block.where:
        lines += _mapping("where", block.where, block.where_comment, indent)
    lines.append(f"{pad}columns:")
    for mapped in block.columns:
        lines += _mapping(scalar(mapped.contract), mapped.expression, mapped.comment, indent + 2)
    if not block.is_beside and (left := block.left_over):
        listed = textwrap.wrap(
            "not used: " + ", ".join(left[:40]) + (", ..." if len(left) > 40 else ""), WIDTH - indent - 4, break_on_hyphens=False
        )
        lines += [f"{pad}  # {part}" for part in listed]
    return lines


def store_text(draft: Draft) -> str:
    """The whole file."""
    lines = [
        f"# {draft.name}: a first mapping, written by 'marketing init-store' from names and values of the files' columns.",
        "# Look over every line with a comment, then let 'marketing check-store' read the files with it.",
        f"name: {scalar(draft.name)}",
        _commented(f"timezone: {draft.timezone}", draft.timezone_comment),
        _commented(f"currency: {draft.currency}", draft.currency_comment),
        _commented(f"first_day: {draft.first_day}", draft.first_day_comment),
    ]
    if draft.last_day is not None:
        lines.append(_commented(f"last_day: {draft.last_day}", draft.last_day_comment))
    else:
        lines.append(f"# no last_day: {draft.last_day_comment}")
    lines += [f"data_root: {scalar(draft.data_root)}", "", "sources:"]
    for source in dict.fromkeys(block.source for block, _, _ in draft.blocks):
        own = [entry for entry in draft.blocks if entry[0].source == source]
        lines.append(f"  {source}:")
        for block, may_be_missing, why in own:
            many = len(own) > 1
            lines += _block(block, may_be_missing, why, 6 if many else 4, "- " if many else "")
            lines += [f"    # {part}" for note in block.notes for part in textwrap.wrap(note, WIDTH - 6)]
    lines += [""]
    if draft.service_pattern is not None:
        lines += [
            "cleaning:",
            _commented(
                f"service_item_pattern: {scalar(draft.service_pattern)}",
                "codes that are no items, such as " + ", ".join(draft.service_examples[:4]),
                2,
            ),
        ]
    if draft.country:
        lines += ["forecasting:", _commented(f"country: {draft.country}", "its public holidays are known in advance", 2)]
    plan = "daily_budget: 100.0, target_conversions: 0, needs_approval: true"
    if not draft.tells_money:
        why = "nothing says what a conversion is worth, so plans seek the most of them; with prices or values: revenue"
        lines += ["ad_planning:", _commented("value: conversions", why, 2), f"  # often wanted: {plan}"]
    lines += [
        "# Every other setting has a safe default; docs/tune.md lists them. Often wanted:",
        "# methods: plain               # fast and simple everywhere, to see the whole graph quickly",
        *([f"# ad_planning: {{{plan}}}"] if draft.tells_money else []),
        "# profiles: {holdout_share: 0.05}",
    ]
    if draft.notes or draft.unused:
        lines += ["", "# What could not be told:"]
        for note in draft.notes:
            wrapped = textwrap.wrap(note, WIDTH - 4)
            lines += [f"# - {wrapped[0]}", *(f"#   {part}" for part in wrapped[1:])]
        lines += [f"# - {name}: {why}" for name, why in draft.unused]
    return "\n".join(lines) + "\n"
