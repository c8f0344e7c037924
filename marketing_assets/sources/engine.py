"""Functions of the engine that Ibis has no name for, and temporary tables.

What belongs here: thin wrappers shared by sources and cleaning. What does not: anything about shops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import duckdb
import polars as pl

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from marketing_assets.warehouse import Reader


def _built_in(name: str, arguments: tuple[Any, ...], result: Any) -> Callable[..., Any]:
    """A function the engine has, with the types it is called with here."""
    import ibis

    def one(value: Any) -> Any: ...

    def two(value: Any, other: Any) -> Any: ...

    function: Callable[..., Any] = ibis.udf.scalar.builtin(
        one if len(arguments) == 1 else two, name=name, signature=(arguments, result)
    )
    return function


def row_hash(columns: Mapping[str, Any]) -> Any:
    """A 64-bit hash of named values, unsigned.

    64 bits keep ids at sixteen characters. They have to be distinct within a landed day (raw_row_id) or within the days
    in which duplicates are sought (a missing event_id): with a hundred million rows there, the chance that any two
    different rows collide is below 0.03 %. The engine's own hash is used because a cryptographic one costs more than
    reading the file; its values hold for one engine version, which the lock file pins.
    """
    import ibis
    import ibis.expr.datatypes as dt

    packed = ibis.struct(dict(columns))
    return _built_in("hash", (packed.type(),), dt.uint64)(packed)


def hexadecimal(number: Any) -> Any:
    """An unsigned number as hexadecimal text without leading zeros."""
    import ibis.expr.datatypes as dt

    return _built_in("to_hex", (dt.uint64,), dt.string)(number)


def leading(text: Any, characters: int) -> Any:
    """The first characters of a text. What Ibis writes for it is long, and reading that takes the engine longer than a day's rows."""
    import ibis.expr.datatypes as dt

    return _built_in("left", (dt.string, dt.int64), dt.string)(text, characters)


def json_values(text: Any, keys: list[str]) -> Any:
    """The values of an object's keys as an array of texts; parsed once per row. `text` must be valid JSON."""
    import ibis
    import ibis.expr.datatypes as dt

    paths = ibis.array(["$." + '"' + key.replace('"', '\\"') + '"' for key in keys])
    return _built_in("json_extract_string", (dt.string, dt.Array(dt.string)), dt.Array(dt.string))(text, paths)


def json_elements(text: Any, path: str) -> Any:
    """The elements of the list at a dotted path of an object, as JSON; empty where there is none. `text` must be valid JSON."""
    import ibis
    import ibis.expr.datatypes as dt

    steps = "".join("." + '"' + step.replace('"', '\\"') + '"' for step in path.split("."))
    return _built_in("json_extract", (dt.string, dt.string), dt.Array(dt.json))(text, ibis.literal(f"${steps}[*]")).cast("array<string>")


def json_kind(text: Any) -> Any:
    """OBJECT, ARRAY, ... of a JSON text; null where it is not valid JSON."""
    import ibis
    import ibis.expr.datatypes as dt

    is_valid = _built_in("json_valid", (dt.string,), dt.boolean)
    kind = _built_in("json_type", (dt.string,), dt.string)
    return ibis.ifelse(is_valid(text), kind(text), ibis.null("string"))


_HELD: WeakKeyDictionary[duckdb.DuckDBPyConnection, dict[str, None]] = WeakKeyDictionary()
"""Temporary tables by connection: asking the engine which there are takes longer than most of them took to make."""


class Staging:
    """Temporary tables of one computation, under a common prefix. Making a new one drops what its last use left."""

    def __init__(self, reader: Reader, prefix: str) -> None:
        self.reader = reader
        self.prefix = f"staged_{prefix}_" if prefix else "staged_"
        self.counts: dict[str, int] = {}
        self.held = _HELD.setdefault(reader.connection, {})
        for name in [name for name in self.held if name.startswith(self.prefix)]:
            self.drop(name)

    def name(self, what: str) -> str:
        # counted by kind, so that one table more or less changes no other's name and no compiled text that names it
        self.counts[what] = self.counts.get(what, 0) + 1
        found = f"{self.prefix}{what}_{self.counts[what]}"
        self.held[found] = None
        return found

    def keep(self, rows: pl.DataFrame | ir.Table, what: str) -> ir.Table:
        """Compute an expression (or take a frame) once and hold its rows."""
        import ibis

        from marketing_assets.compiled import compiled

        name, connection = self.name(what), self.reader.connection
        if isinstance(rows, pl.DataFrame):
            schema = ibis.Schema.from_polars(rows.schema)
            connection.register("incoming", rows.to_arrow())
            connection.execute(f"CREATE TEMPORARY TABLE {name} AS SELECT * FROM incoming")
            connection.unregister("incoming")
        else:
            schema = rows.schema()
            connection.execute(f"CREATE TEMPORARY TABLE {name} AS {compiled(rows)}")
        return self.table(name, schema)

    def table(self, name: str, schema: Any) -> ir.Table:
        """A temporary table whose columns are known: asking the engine for them takes longer than most queries here."""
        import ibis
        import ibis.expr.operations as ops

        place = ops.Namespace(catalog="temp", database="main")
        found: ir.Table = ops.DatabaseTable(name=name, schema=ibis.schema(schema), source=self.reader.ibis, namespace=place).to_expr()
        return found

    def drop(self, name: str) -> None:
        import contextlib

        del self.held[name]
        for kind in ("TABLE", "VIEW"):
            with contextlib.suppress(duckdb.CatalogException):
                self.reader.connection.execute(f"DROP {kind} IF EXISTS {name}")
                return


def release(reader: Reader) -> None:
    """Drop every temporary table of a step, once what was built from them is published."""
    Staging(reader, "")


def rows_in(table: ir.Table) -> int:
    """How many rows an expression has."""
    import ibis.expr.operations as ops

    from marketing_assets.compiled import compiled

    operation = table.op()
    # staged: no expression to compile
    text = operation.name if isinstance(operation, ops.DatabaseTable) else f"({compiled(table)})"
    return int(table.get_backend().con.execute(f"SELECT count(*) FROM {text}").fetchone()[0])
