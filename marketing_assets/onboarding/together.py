"""File sets that belong together: orders and their lines, what was bought and the catalogue.

What belongs here: finding which rows speak of the same. What does not: what columns mean taken by themselves (recognition.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import sqlglot
import sqlglot.expressions as sge

from marketing_assets.onboarding import names
from marketing_assets.onboarding.columns import FITS, Block, column_of, find_time, id_expression, is_id, pick
from marketing_assets.onboarding.looking import Column, FileSet, Joined
from marketing_assets.onboarding.nested import BESIDE, literal
from marketing_assets.sources.mapping import SOURCE_LINE, parse

_SHARED = 0.02
"""Of the orders seen in samples of both files, so many must be in both: large files need not be sorted alike."""
_ALIGNED = 0.5
"""Share of the items events name that a catalogue's column must hold to be theirs."""
_ORDERS, _PEOPLE = "orders", "people"


def together(sets: Sequence[FileSet]) -> list[FileSet]:
    """The sets, lines with their orders beside them in the place of both, and people beside orders that name an account each."""
    result = list(sets)
    for lines in sets:
        found = [match for head in result if head is not lines and (match := _match(lines, head)) is not None]
        if found:
            _, head, order, key = max(found, key=lambda one: one[0])
            result[result.index(lines)] = _beside(lines, head, order, key)
            result.remove(head)
    return [_with_people(files, [other for other in sets if other is not files]) for files in result]


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


def _with_people(files: FileSet, others: Sequence[FileSet]) -> FileSet:
    """Where each order names a customer of its own, the person another file says stands behind them."""
    user = pick(files, names.EVENTS["user_id"], FITS["user_id"])
    order = pick(files, names.EVENTS["order_id"], is_id)
    if user is None or order is None:
        return files
    wanted, orders = _values(files, user), len(_values(files, order))
    if not 0.98 * orders <= len(wanted) <= 1.02 * orders:
        return files
    for other in (one for one in others if one.is_dated == files.is_dated):
        for key in (column for column in other.columns if column.profile.is_key and is_id(column.profile)):
            if len(wanted & _values(other, key)) < _SHARED * len(wanted):
                continue
            person = pick(other, names.EVENTS["user_id"], lambda profile: FITS["user_id"](profile) and not profile.is_key, {key.name})
            if person is not None:
                joined = Joined(_PEOPLE, other, user.expression, id_expression(key))
                behind = {_plain(row.get(key.name)): row.get(person.name) for row in other.rows}
                rows = [{**row, person.name: behind.get(_plain(row.get(user.name)))} for row in files.rows]
                column = Column(person.name, within(person.expression, _PEOPLE, other.format), person.profile)
                kept = [one for one in files.columns if one.name not in (user.name, person.name)]
                return dataclasses.replace(files, columns=(*kept, column), rows=tuple(rows), joined=(*files.joined, joined))
    return files


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


def aligned(blocks: Sequence[Block], tell: Callable[[str], None]) -> None:
    """Where ids of a catalogue are not those that events name, though another of its columns is, or another of theirs: takes that one.

    A shop may number its goods twice: `id` and `sku` in the catalogue, `product_id` or `sku` in orders.
    """
    events = [block for block in blocks if block.source == "events" and block.has("item_id")]
    for items in (block for block in blocks if block.source == "items" and not block.is_beside):
        for block in (one for one in events if one.files is not items.files):
            bought, listed = column_of(block, "item_id"), column_of(items, "item_id")
            if bought is None or listed is None or _share(block.files, bought, items.files, listed) >= _ALIGNED:
                continue
            ours = [one for one in block.files.lines.columns if names.likeness(one.name, names.EVENTS["item_id"]) > 0 and is_id(one.profile)]
            theirs = [one for one in items.files.columns if one.profile.is_key and is_id(one.profile)]
            pairs = [(_share(block.files, one, items.files, other), one is bought, one, other) for one in ours for other in theirs]
            share, _, one, other = max(pairs, key=lambda pair: pair[:2], default=(0.0, True, bought, listed))
            if share >= _ALIGNED:
                beside = [made for made in blocks if made.is_beside and made.files is block.files]
                for changed in (block, *beside):
                    _renamed(changed, bought, one)
                _renamed(items, listed, other)
                tell(f"{block.files.pattern}: {one.name} is {other.name} of {items.files.pattern}, so both are taken for the item")


def _share(files: FileSet, column: Column, others: FileSet, other: Column) -> float:
    """Share of a column's values that are among another's."""
    wanted = _values(files, column)
    return len(wanted & _values(others, other)) / max(len(wanted), 1)


def _renamed(block: Block, old: Column, new: Column) -> None:
    """Takes another column for the item."""
    if new is old:
        return
    block.columns = [mapped for mapped in block.columns if mapped.contract == "item_id" or mapped.expression != new.expression]
    block.columns = [
        dataclasses.replace(mapped, expression=id_expression(new)) if mapped.contract == "item_id" else mapped for mapped in block.columns
    ]
    block.used = block.used - {old.name} | {new.name}


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
