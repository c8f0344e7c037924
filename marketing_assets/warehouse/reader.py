"""Reading: the one door to data for concept functions.

What belongs here: windows, logs and issues as of a day. What does not: writing (writing.py).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl

from marketing_assets.config import KEYFRAME_DAYS, Store
from marketing_assets.schemas import INPUTS, TABLES, TYPES
from marketing_assets.warehouse.built import FittedModel
from marketing_assets.warehouse.errors import WarehouseError
from marketing_assets.warehouse.tables import POLARS_TYPES, create_tables, declared, engine, insert_model, polars_schema

if TYPE_CHECKING:
    import ibis.expr.types as ir


def days_between(start: date, end: date) -> list[date]:
    """Every day from start to end, both included."""
    return [start + timedelta(days=offset) for offset in range((end - start).days + 1)]


class Engine:
    """Ibis over one connection, made when first asked for, and the published tables as it names them."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self._tables: dict[str, ir.Table] = {}

    @functools.cached_property
    def ibis(self) -> Any:
        return engine().duckdb.from_connection(self.connection)

    def table(self, name: str) -> ir.Table:
        if name not in self._tables:
            self._tables[name] = declared(self.ibis, name)
        return self._tables[name]


class Reader:
    """The door to data for concept functions: published tables up to the newest day of the window, nothing later.

    Frames come sorted by the table's key, so that no result depends on the order of rows on disk.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, store: Store, last_day: date, engine: Engine | None = None) -> None:
        self.connection = connection
        self.store = store
        self.last_day = last_day
        self._engine = engine or Engine(connection)

    @property
    def ibis(self) -> Any:
        """The Ibis backend over the same connection and transaction."""
        return self._engine.ibis

    def table(self, name: str, place: str | None = None) -> ir.Table:
        """A published table as an Ibis expression, days up to last_day only. place: a column of that name says where a row lies on disk."""
        expression = self._engine.table(name)
        if place:
            expression = expression.mutate(**{place: expression.rowid()})
        return expression.filter(expression[TABLES[name].partition_column] <= self.last_day)

    def has_source(self, source: str) -> bool:
        """Whether store.yaml maps this input."""
        return bool(self.store.blocks(source))

    def window(self, name: str, start: date | None, end: date, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Rows whose partition day lies in [start, end] (start None: from the beginning), sorted by key."""
        spec = TABLES[name]
        self._check(name, end)
        chosen = ", ".join(columns) if columns else ", ".join(spec.columns)
        condition = f"{spec.partition_column} <= ?" + ("" if start is None else f" AND {spec.partition_column} >= ?")
        order = ", ".join(f"{key} NULLS FIRST" for key in (spec.partition_column, *spec.key))
        query = f"SELECT {chosen} FROM {name} WHERE {condition} ORDER BY {order}"
        return self.connection.execute(query, [end] if start is None else [end, start]).pl()

    def log_as_of(self, name: str, day: date, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """A change log's entries in force at the end of `day`: the newest entry per entity since the last keyframe."""
        spec = TABLES[name]
        self._check(name, day)
        entity = ", ".join(spec.entity)
        chosen = ", ".join(columns) if columns else ", ".join(spec.columns)
        order = ", ".join(f"{key} NULLS FIRST" for key in spec.key if key != spec.partition_column)
        start = self.keyframe_before(day)
        query = f"""
            SELECT {chosen} FROM (
                SELECT *, max(as_of_date) OVER (PARTITION BY {entity}) AS newest FROM {name}
                WHERE as_of_date BETWEEN ? AND ?)
            WHERE as_of_date = newest ORDER BY {order}"""
        return self.connection.execute(query, [start, day]).pl()

    def keyframe_before(self, day: date) -> date:
        """The newest keyframe day at or before `day` (first_day, then every KEYFRAME_DAYS from cadence_anchor)."""
        return max(self.store.first_day, self.store.cadence_day_before(day, KEYFRAME_DAYS))

    def issue_as_of(self, name: str, day: date, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The newest issue at or before `day` of a table written on cadence days; empty where there is none."""
        spec = TABLES[name]
        self._check(name, day)
        newest = self.connection.execute(f"SELECT max(as_of_date) FROM {name} WHERE as_of_date <= ?", [day]).fetchone()
        issued = newest[0] if newest and newest[0] else None
        if issued is None:
            chosen = columns or list(spec.columns)
            return pl.DataFrame(schema={column: polars_schema(name)[column] for column in chosen})
        return self.window(name, issued, issued, columns)

    def frame(self, expression: ir.Table) -> pl.DataFrame:
        """The rows of an Ibis expression over this reader's tables, in the types Ibis says they have; in no order."""
        import ibis.expr.operations as ops

        from marketing_assets.compiled import compiled

        if expression.op().find(ops.InMemoryTable):  # Ibis has to lend the engine those rows first
            lent: pl.DataFrame = expression.to_polars()
            return lent
        rows: pl.DataFrame = self.connection.execute(compiled(expression)).pl()
        return rows.cast(expression.schema().to_polars())

    def contents(self, names: Sequence[str], start: date, end: date) -> str | None:
        """What the ledger says of the rows of these tables in [start, end], as one text; None where a day was never built."""
        rows = self.connection.execute(
            f"""SELECT string_agg(content_hash, '' ORDER BY table_name, partition_date), count(*) FROM partition_ledger
                WHERE table_name IN ({", ".join("?" * len(names))}) AND partition_date BETWEEN ? AND ?""",
            [*names, start, end],
        ).fetchone()
        return rows[0] if rows and rows[1] == len(names) * len(days_between(start, end)) else None

    def head(self, name: str, day: date, rows: int, columns: Sequence[str]) -> list[tuple[Any, ...]]:
        """The first rows of a partition, by key."""
        spec = TABLES[name]
        self._check(name, day)
        order = ", ".join(f"{key} NULLS FIRST" for key in spec.key)
        query = f"SELECT {', '.join(columns)} FROM {name} WHERE {spec.partition_column} = ? ORDER BY {order} LIMIT {int(rows)}"
        return self.connection.execute(query, [day]).fetchall()

    def rejected_counts(self, start: date, end: date) -> dict[tuple[str, date], int]:
        """(input, landed day) -> refused rows."""
        self._check("rejected_rows", end)
        rows = self.connection.execute(
            "SELECT source, landed_date, count(*) FROM rejected_rows WHERE landed_date BETWEEN ? AND ? GROUP BY ALL", [start, end]
        ).fetchall()
        return {(source, day): count for source, day, count in rows}

    def accepted(self, source: str, start: date | None, end: date) -> pl.DataFrame:
        """Accepted rows of an input, typed, that landed in [start, end], plus landed_date; [] where the shop lacks it.

        Of keyed inputs, the newest non-null value per key and column as of `end` (start is ignored).
        """
        spec = INPUTS[source]
        types: dict[Any, Any] = {name: POLARS_TYPES[type(TYPES[kind]).__name__] for name, kind in spec.columns.items()}
        if not self.has_source(source) or not self._has_rows(f"raw_{source}", end):
            return pl.DataFrame(schema=types | {"landed_date": pl.Date})
        frame = self.frame(self.accepted_table(source, None if spec.key else start, end))
        return frame.cast({**types, "landed_date": pl.Date}).sort([*(spec.key or frame.columns)], nulls_last=False)

    def _has_rows(self, name: str, end: date) -> bool:
        """Whether anything landed by `end`: asked before an expression is compiled, since most shops have inputs without rows."""
        self._check(name, end)
        return bool(self.connection.execute(f"SELECT 1 FROM {name} WHERE landed_date <= ? LIMIT 1", [end]).fetchall())

    def accepted_table(self, source: str, start: date | None, end: date) -> ir.Table:
        """`accepted` as an Ibis expression: columns of the input and landed_date."""
        from marketing_assets.cleaning import accepted_rows

        self._check(f"raw_{source}", end)
        return accepted_rows(self, source, start, end)

    def fitted(self, model_name: str, day: date) -> FittedModel | None:
        """The newest fit of this model promoted at or before `day`: what scoring uses."""
        row = self.connection.execute(
            """SELECT * EXCLUDE (as_of_date, step) FROM fitted_models WHERE model_name = ? AND is_promoted AND as_of_date <= ?
               ORDER BY promoted_as_of DESC, as_of_date DESC, (trigger = 'rollback') DESC, model_version DESC LIMIT 1""",
            [model_name, day],
        ).fetchone()
        return None if row is None else _fitted(row)

    def fitted_version(self, model_name: str, model_version: str) -> FittedModel | None:
        """One version of a model, promoted or not."""
        row = self.connection.execute(
            """SELECT * EXCLUDE (as_of_date, step) FROM fitted_models WHERE model_name = ? AND model_version = ?
               AND trigger <> 'rollback' LIMIT 1""",
            [model_name, model_version],
        ).fetchone()
        return None if row is None else _fitted(row)

    def fitted_parameters(self, model_name: str) -> dict[str, dict[str, Any]]:
        """Version -> parameters of every fit of a model so far: without what was learned, which takes long to read."""
        rows = self.connection.execute(
            "SELECT model_version, parameters FROM fitted_models WHERE model_name = ? AND as_of_date <= ? AND trigger <> 'rollback'",
            [model_name, self.last_day],
        ).fetchall()
        return {version: json.loads(parameters) for version, parameters in rows}

    def fits(self, start: date, end: date) -> pl.DataFrame:
        """Fits and rollbacks of every model in [start, end], with as_of_date, the day each took effect or was made."""
        self._check("fitted_models", end)
        return self.connection.execute(
            """SELECT * EXCLUDE (step) FROM fitted_models WHERE as_of_date BETWEEN ? AND ?
               ORDER BY as_of_date, model_name, model_version, trigger""",
            [start, end],
        ).pl()

    def _check(self, name: str, end: date) -> None:
        if end > self.last_day:
            raise WarehouseError(f"{name}: asked for {end}, after the newest day of the window, {self.last_day}")


def _fitted(row: tuple[Any, ...]) -> FittedModel:
    values = list(row)
    for index in (6, 7, 8):
        values[index] = json.loads(values[index])
    return FittedModel(*values)


def reader_over(frames: Mapping[str, pl.DataFrame], store: Store, last_day: date, models: Sequence[FittedModel] = ()) -> Reader:
    """A Reader over frames in memory, for tests, benchmarks and trials. Columns a frame lacks are null."""
    connection = duckdb.connect(":memory:", config={"threads": str(store.threads)})
    connection.execute("SET TimeZone = 'UTC'")
    create_tables(connection)
    for name, frame in frames.items():
        connection.register("incoming", frame.to_arrow())
        connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM incoming")
        connection.unregister("incoming")
    for model in models:
        insert_model(connection, model)
    return Reader(connection, store, last_day)
