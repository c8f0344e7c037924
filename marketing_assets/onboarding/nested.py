"""Objects laid flat: what is nested in a row of JSON or parquet, and how an expression names it.

What belongs here: paths, pairs of key and value, lists. What does not: reading files (looking.py), or what columns mean (columns.py).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from marketing_assets.onboarding import names

_MOST_PAIRS = 100
"""Pairs of a list of keys and values that are looked at."""
BESIDE = "(beside)"
"""Behind the name of a column that is of all lines together, where lines have one of the same name."""
_KEYWORDS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Nested:
    """Flat rows, and the expression of each column. elements: names of columns of the list `unroll`, whose elements are the rows."""

    columns_by_name: Mapping[str, str]
    rows: Sequence[Mapping[str, Any]]
    notes: tuple[str, ...] = ()
    unroll: str | None = None
    elements: frozenset[str] = frozenset()


@functools.cache
def quoted(name: str) -> str:
    """A column's name as an expression: quoted where it is no plain word, or one the language knows."""
    from marketing_assets.sources import SourceError
    from marketing_assets.sources.mapping import parse

    if _KEYWORDS.fullmatch(name):
        try:
            if parse(name, "").needs == (name,):
                return name
        except SourceError:
            pass
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def nested_rows(
    kind: Literal["json", "parquet"],
    contents: Sequence[Mapping[str, Any]],
    expressions: dict[str, str],
) -> Nested:
    """Objects as rows: what is nested by its path, pairs of key and value by their key, and a list of what was bought row by row."""
    row = _Flattening(kind, "", expressions)
    rows = [row.flat(content) for content in contents]
    lists = row.lists
    unroll = next((path for path in lists if names.plain(path.rsplit(".", 1)[-1]) in names.LISTS), None)
    notes = [f"lists nobody looked into: {', '.join(path for path in lists if path != unroll)}"] if set(lists) - {unroll} else []
    if unroll is None:
        return Nested(expressions, rows, tuple(notes))
    element = _Flattening(kind, "source_element", {})
    made = []
    for content, outer in zip(contents, rows, strict=True):
        found = _at(content, unroll)
        inner = [element.flat(one) for one in found if isinstance(one, dict)] if isinstance(found, list) else []
        made.append((outer, inner or [{}]))
    beside = {name: f"{name} {BESIDE}" for name in expressions if name in element.expressions}
    flat = [{**{beside.get(name, name): value for name, value in outer.items()}, **one} for outer, inner in made for one in inner]
    named = {beside.get(name, name): text for name, text in expressions.items()} | element.expressions
    return Nested(named, flat, tuple(notes), unroll, frozenset(element.expressions))


def _at(content: Any, path: str) -> Any:
    for step in path.split("."):
        content = content.get(step) if isinstance(content, dict) else None
    return content


@dataclass
class _Flattening:
    """Objects laid flat. root: the column they are in, '' for whole rows. expressions: name -> expression; lists: paths of lists of objects."""

    kind: Literal["json", "parquet"]
    root: str
    expressions: dict[str, str]
    lists: dict[str, None] = field(default_factory=dict)

    def flat(self, content: Mapping[str, Any]) -> dict[str, Any]:
        row: dict[str, Any] = {}
        self._into(row, content, ())
        return row

    def _into(self, row: dict[str, Any], content: Mapping[str, Any], above: tuple[str, ...]) -> None:
        for key, value in content.items():
            path = (*above, key)
            if isinstance(value, dict):
                if len(path) < 3:
                    self._into(row, value, path)
            elif isinstance(value, list):
                objects = [one for one in value if isinstance(one, dict)]
                if objects and not self._pairs(row, objects, path):
                    self.lists[".".join(path)] = None
            else:
                self._put(row, ".".join(path), self._expression(path), value)

    def _put(self, row: dict[str, Any], name: str, expression: str, value: Any) -> None:
        if self.kind == "json" and value is not None:
            value = json.dumps(value) if isinstance(value, bool) else str(value)
        row[name] = value
        self.expressions.setdefault(name, expression)

    def _expression(self, path: tuple[str, ...]) -> str:
        if self.kind == "parquet":
            return ".".join([*([self.root] if self.root else []), *map(quoted, path)])
        if len(path) == 1 and not self.root:
            return quoted(path[0])
        return f"({self.root or 'source_line'} ->> '{_json_path(path)}')"

    def _pairs(self, row: dict[str, Any], objects: Sequence[Mapping[str, Any]], path: tuple[str, ...]) -> bool:
        """A list of {key, value}: each key is a column."""
        named = next((name for name in ("key", "name") if all(name in one and "value" in one for one in objects)), None)
        if named is None:
            return False
        for one in objects[:_MOST_PAIRS]:
            steps, value = ["value"], one["value"]
            if isinstance(value, dict):  # a value by its type, the others null
                steps += [kind for kind, told in value.items() if told is not None][:1]
                value = value.get(steps[-1])
            if value is None or isinstance(value, dict | list):
                continue
            key = str(one[named])
            quote = literal(key)
            if self.kind == "parquet":
                text = f"list_filter({self._expression(path)}, lambda pair: pair.{quoted(named)} = {quote})[1].{'.'.join(map(quoted, steps))}"
            else:
                within = f"TRY_CAST({self.root or 'source_line'} -> '{_json_path(path)}' AS JSON[])"
                text = f"(list_filter({within}, lambda pair: pair ->> '$.{named}' = {quote})[1] ->> '{_json_path(steps)}')"
            self._put(row, ".".join((*path, key)), text, value)
        return True


def _json_path(path: Sequence[str]) -> str:
    """A path within an object, to stand between quotes."""
    return ("$" + "".join("." + (step if _KEYWORDS.fullmatch(step) else json.dumps(step)) for step in path)).replace("'", "''")
