"""Ibis expressions as SQL text, compiled once per shape and filled with other dates afterwards.

What belongs here: knowing that two expressions differ in nothing but dates. What does not: any query, and running them.

Compiling an expression takes longer than a small shop's day of rows takes to compute, and from day to day only dates differ. An
expression's shape is everything in it but the values of its date literals; where two dates are equal is part of it. The text
of a shape is kept with its dates as blanks: in this process, and beside the warehouse for the next one (`texts_beside`).
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ibis.expr.types as ir

_TEXTS: dict[str, list[str | int]] = {}
_MOST = 1_000
"""Texts kept; beyond them those not used for longest are forgotten."""


@contextmanager
def texts_beside(warehouse: Path) -> Iterator[None]:
    """Use the texts that an earlier process left beside a warehouse, and leave there what this one adds.

    A file of other versions, or one that cannot be read, is ignored and written anew: it only saves time.
    """
    path = warehouse.with_name(f"{warehouse.name}.queries.json")
    made_with = [importlib.metadata.version(name) for name in ("ibis-framework", "sqlglot", "duckdb")]
    made_with.append(hashlib.blake2b(Path(__file__).read_bytes(), digest_size=6).hexdigest())
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["made_with"] == made_with:
            for key, parts in content["texts"].items():
                _TEXTS.setdefault(key, parts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        content = {"texts": {}}
    known = set(content["texts"])
    try:
        yield
    finally:
        if not known.issuperset(_TEXTS):
            from marketing_assets.warehouse import replace_file

            replace_file(path, json.dumps({"made_with": made_with, "texts": _TEXTS}))


def compiled(expression: ir.Table) -> str:
    """DuckDB SQL of an expression, the same as `ibis.to_sql` gives but for layout."""
    shape, dates = _shape(expression.op())
    if shape is None:
        return _compile(expression)
    # Types by name and values by their text: the same in every process. What is written with an address is of use in none.
    parts = _kept(shape, lambda: _blanks(_compile(expression), dates))
    return "".join(part if isinstance(part, str) else date_literal(dates[part]) for part in parts)


def _kept(key: Hashable, make: Callable[[], list[str | int]]) -> list[str | int]:
    """The text of a key, made where it is not known."""
    name = hashlib.blake2b(repr(key).encode(), digest_size=16).hexdigest()
    parts = _TEXTS.pop(name, None)
    if parts is None:
        parts = make()
        while len(_TEXTS) >= _MOST:
            del _TEXTS[next(iter(_TEXTS))]
    _TEXTS[name] = parts  # behind the others
    return parts


def written(name: str, key: Hashable, rows: ir.Table, build: Callable[[ir.Table], ir.Table]) -> ir.Table:
    """build(rows), where name and key say everything else the result depends on: put together once and kept as text.

    Putting a long expression together takes longer than finding its text. A name stands for one and the same `rows` in a query: the
    engine refuses a query where it does not.
    """
    import ibis.expr.operations as ops

    text, schema = _kept(("written", _code(), name, key, rows.schema()), lambda: _as_text(name, rows, build))
    return ops.SQLStringView(parent=rows.alias(name).op(), query=text, schema=_schema(schema)).to_expr()


def _as_text(name: str, rows: ir.Table, build: Callable[[ir.Table], ir.Table]) -> list[str | int]:
    """The text of build(rows), rows by this name, and its columns with their types."""
    import ibis

    expression = build(ibis.table(rows.schema(), name=name))
    # dates written otherwise than those of the query this becomes part of: only those are blanks
    text = re.sub(r"MAKE_DATE\((\d+), (\d+), (\d+)\)", lambda day: f"DATE '{datetime.date(*map(int, day.groups()))}'", _compile(expression))
    return [text, json.dumps({column: str(kind) for column, kind in expression.schema().items()})]


@functools.cache
def _code() -> str:
    """A digest of this package's source: a key says nothing of what build does."""
    hashed = hashlib.blake2b(digest_size=16)
    for file in sorted(Path(__file__).resolve().parent.rglob("*.py")):
        hashed.update(file.read_bytes())
    return hashed.hexdigest()


@functools.cache
def _schema(types: str) -> Any:
    import ibis

    return ibis.schema(json.loads(types))


def _compile(expression: ir.Table) -> str:
    import sqlglot
    from ibis.backends.sql.compilers import DuckDBCompiler

    from marketing_assets.warehouse import engine

    engine()  # for the options it sets
    query = DuckDBCompiler().to_sqlglot(expression)
    for shared in query.find_all(sqlglot.exp.CTE):
        if _is_published_table(shared.this):
            shared.set("materialized", False)
    return str(query.sql(dialect="duckdb", unsupported_level=sqlglot.ErrorLevel.RAISE))


def _is_published_table(query: Any) -> bool:
    """Whether a part of a query is `Reader.table` and nothing else: a table up to a day.

    Used twice in a query, Ibis names it once, and the engine would then read the table whole before anything is looked for in it.
    """
    from sqlglot import exp

    if not isinstance(query, exp.Select):
        return False
    parts = {name: part for name, part in query.args.items() if part}
    source, where = parts.pop("from_", None), parts.pop("where", None)
    return (
        set(parts) == {"expressions"}
        and source is not None and isinstance(source.this, exp.Table)
        and where is not None and isinstance(where.this, exp.LTE) and isinstance(where.this.this, exp.Column)
    )


def date_literal(day: datetime.date) -> str:
    """A day as compiled texts write it."""
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
            for place, piece in enumerate(part.split(date_literal(day))):
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
        if isinstance(value, (set, frozenset)):  # in no order of their own, another in every process
            return tuple(sorted(repr(of(each)) for each in value))
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
