"""File sets that are one input together: orders in one, their lines in another.

What belongs here: finding which rows stand beside which. What does not: what the columns mean (recognition.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import sqlglot
import sqlglot.expressions as sge

from marketing_assets.onboarding import names
from marketing_assets.onboarding.columns import FITS, find_time, id_expression, is_id, pick
from marketing_assets.onboarding.looking import BESIDE, Column, FileSet, Joined, literal
from marketing_assets.sources.mapping import SOURCE_LINE, parse

_SHARED = 0.02
"""Of the orders seen in samples of both files, so many must be in both: large files need not be sorted alike."""
_ORDERS = "orders"


def together(sets: Sequence[FileSet]) -> list[FileSet]:
    """The sets, lines with their orders beside them in the place of both."""
    result = list(sets)
    for lines in sets:
        found = [match for head in result if head is not lines and (match := _match(lines, head)) is not None]
        if found:
            _, head, order, key = max(found, key=lambda one: one[0])
            result[result.index(lines)] = _beside(lines, head, order, key)
            result.remove(head)
    return result


def _match(lines: FileSet, head: FileSet) -> tuple[tuple[bool, float], FileSet, Column, Column] | None:
    """((whether it says who, share of orders in both), orders, column of lines, column of orders) where the one are lines of the other."""
    if lines.has_lines or head.has_lines:
        return None
    order = pick(lines, names.EVENTS["order_id"], is_id)
    item = pick(lines, names.EVENTS["item_id"], FITS["item_id"], {order.name} if order else set())
    if order is None or item is None or order.profile.is_key:
        return None
    is_whole = pick(lines, names.EVENTS["user_id"], FITS["user_id"], {order.name, item.name}) and find_time(lines, names.TIMES)
    if is_whole or find_time(head, names.TIMES) is None or pick(head, names.EVENTS["item_id"], FITS["item_id"]):
        return None
    wanted = _values(lines, order)
    shares = [
        (len(wanted & own) / min(len(wanted), len(own)), head, order, column)
        for column in head.columns
        if column.profile.is_key and is_id(column.profile) and (own := _values(head, column)) and wanted
    ]
    share, _, order, key = max(shares, key=lambda one: one[0], default=(0.0, head, order, order))
    says_who = pick(head, names.EVENTS["user_id"], FITS["user_id"], {key.name}) is not None
    return ((says_who, share), head, order, key) if share >= _SHARED else None


def _values(files: FileSet, column: Column) -> set[str]:
    return {_plain(row.get(column.name)) for row in files.rows} - {""}


def _plain(value: Any) -> str:
    return "" if value is None else str(value).strip().removesuffix(".0")


def _beside(lines: FileSet, head: FileSet, order: Column, key: Column) -> FileSet:
    """Lines with the columns of their orders."""
    if lines.is_dated != head.is_dated:
        note = "one of two files that belong together names a day, the other none, so both are read as one"
        lines, head = (one.as_one(note) if one.is_dated else one for one in (lines, head))
    taken = {column.name for column in lines.columns}
    called = {column.name: f"{column.name} {BESIDE}" if column.name in taken else column.name for column in head.columns}
    columns = [dataclasses.replace(column, is_element=True) for column in lines.columns]
    for column in head.columns:
        profile = dataclasses.replace(column.profile, is_key=False)
        columns.append(Column(called[column.name], within(column.expression, _ORDERS, head.format), profile))
    by_key = {_plain(row.get(key.name)): row for row in head.rows}
    rows = []
    for row in lines.rows:
        found = by_key.get(_plain(row.get(order.name)), {})
        rows.append({**{called[name]: value for name, value in found.items() if name in called}, **row})
    joined = Joined(_ORDERS, head, id_expression(order), id_expression(key))
    notes = (*lines.notes, *(f"{head.pattern}: {note}" for note in head.notes))
    return dataclasses.replace(lines, columns=tuple(columns), rows=tuple(rows), notes=notes, joined=(joined,))


def within(expression: str, name: str, kind: str) -> str:
    """An expression over the columns of files, said of the row of them that stands beside as `name`."""

    def of_row(node: sge.Expr) -> sge.Expr:
        if not isinstance(node, sge.Column):
            return node
        first = node.parts[0].name
        if kind != "json":
            return sqlglot.parse_one(f"{name}.{node.sql(dialect='duckdb')}", dialect="duckdb")
        if first.lower() == SOURCE_LINE:
            return sge.column(name)
        path = f'$."{first}"'
        return sqlglot.parse_one(f"({name} ->> {literal(path)})", dialect="duckdb")

    text: str = parse(expression, "").parsed.transform(of_row).sql(dialect="duckdb")
    return text
