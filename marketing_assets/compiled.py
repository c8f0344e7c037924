"""Ibis expressions as SQL text, compiled once per shape and filled with other dates afterwards.

What belongs here: knowing that two expressions differ in nothing but dates. What does not: any query, and running them.

Compiling an expression takes longer than a small shop's day of rows takes to compute, and from day to day only dates differ. An
expression's shape is everything in it but the values of its date literals; where two dates are equal is part of it. The text
of a shape is kept in this process with its dates as blanks.
"""

from __future__ import annotations

import datetime
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ibis.expr.types as ir

_TEXTS: dict[Hashable, list[str | int]] = {}
_MOST = 5_000
"""Texts kept; beyond them the oldest are forgotten."""


def compiled(expression: ir.Table) -> str:
    """DuckDB SQL of an expression, the same as `ibis.to_sql` gives but for layout."""
    shape, dates = _shape(expression.op())
    if shape is None:
        return _compile(expression)
    parts = _TEXTS.get(shape)
    if parts is None:
        parts = _blanks(_compile(expression), dates)
        while len(_TEXTS) >= _MOST:
            del _TEXTS[next(iter(_TEXTS))]
        _TEXTS[shape] = parts
    return "".join(part if isinstance(part, str) else _literal(dates[part]) for part in parts)


def _compile(expression: ir.Table) -> str:
    from marketing_assets.warehouse import engine

    return str(engine().to_sql(expression, dialect="duckdb", pretty=False))


def _literal(day: datetime.date) -> str:
    return f"MAKE_DATE({day.year}, {day.month}, {day.day})"


def _blanks(text: str, dates: list[datetime.date]) -> list[str | int]:
    """The text cut at its date literals: strings, and numbers of dates between them."""
    parts: list[str | int] = [text]
    for number, day in enumerate(dates):
        cut: list[str | int] = []
        for part in parts:
            if not isinstance(part, str):
                cut.append(part)
                continue
            for place, piece in enumerate(part.split(_literal(day))):
                cut += [number, piece] if place else [piece]
        parts = cut
    return parts


def _shape(root: Any) -> tuple[Hashable | None, list[datetime.date]]:
    """Everything of an expression but its dates, and the dates in order of appearance; None where rows in memory are part of it."""
    import ibis.expr.operations as ops

    numbers: dict[Any, int] = {}
    nodes: list[Hashable] = []
    dates: dict[datetime.date, int] = {}

    def of(value: Any) -> Hashable:
        if isinstance(value, ops.Node):
            found = numbers.get(value)
            return ("node", visit(value) if found is None else found)
        if isinstance(value, (tuple, list)):
            return tuple([of(each) for each in value])
        if isinstance(value, Mapping):
            return tuple([(name, of(each)) for name, each in value.items()])
        return value  # type: ignore[no-any-return]

    def visit(node: Any) -> int:
        kind = type(node)
        if isinstance(node, ops.InMemoryTable):
            raise _InMemory
        if isinstance(node, ops.Literal) and type(node.value) is datetime.date:
            arguments: Hashable = ("date", dates.setdefault(node.value, len(dates)), node.dtype)
        elif isinstance(node, ops.DatabaseTable):
            arguments = (node.name, node.schema, str(node.namespace))
        else:
            arguments = tuple([of(value) for value in node.__args__])
        is_own = isinstance(node, ops.ScalarUDF) or not kind.__module__.startswith("ibis.")
        nodes.append((_function(node) if is_own else kind, arguments))
        numbers[node] = len(nodes) - 1
        return len(nodes) - 1

    try:
        visit(root)
    except _InMemory:
        return None, []
    return tuple(nodes), list(dates)


class _InMemory(Exception):
    """Rows in memory are part of the expression: its text names them, so that it is of use only once."""


def _function(node: Any) -> Hashable:
    """A function the engine has built in, declared anew by each who calls it: its name and what it takes and gives."""
    return (getattr(node, "__func_name__", type(node).__name__), str(node.dtype), str(getattr(node, "__input_type__", "")))
