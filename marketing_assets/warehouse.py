"""How tables are stored: read a window, replace a window in one transaction, the ledger, the lock.

What belongs here: everything that knows the warehouse is DuckDB. What does not: what the numbers mean.

Readers get a `Reader`; concept functions take one as their only door to data. Writers hand a `Built` to
`Warehouse.publish`, which validates it against the pandera models and replaces the window, the fitted models and the
ledger rows in one transaction, or changes nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import duckdb
import polars as pl

from marketing_assets.config import KEYFRAME_DAYS, Store
from marketing_assets.schemas import INPUTS, TABLES, TYPES, Table

if TYPE_CHECKING:
    import ibis.expr.types as ir

Trigger = Literal["first", "cadence", "request", "rollback"]


class WarehouseError(Exception):
    """Base of what can go wrong with the warehouse; the message says where and what to do."""


class WarehouseBusy(WarehouseError):
    """Another process holds the warehouse."""


class MissingPartitions(WarehouseError):
    """A day before the window, or an input of it, was never built."""


class InvalidTable(WarehouseError):
    """A computed table breaks its schema; nothing was published."""


@dataclass(frozen=True)
class FittedModel:
    """One fit (or rollback) of a model. `model` is text: LightGBM's own format, JSON, or a table as CSV."""

    model_name: str
    model_version: str
    fitted_as_of: date
    trigger: Trigger
    is_promoted: bool
    promoted_as_of: date | None
    parameters: Mapping[str, Any]
    features: Sequence[str]
    metrics: Mapping[str, Any]
    model_format: Literal["lightgbm", "json", "table"]
    model: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Built:
    """What a concept function made for a window of days.

    tables: table name -> every row of the window, as a Polars frame or an Ibis expression; all the concept's tables.
    models: fits and rollbacks of the window. degraded: table -> the source it lacks, for tables left empty.
    metrics: table -> day -> name -> number worth plotting (counts, errors, seconds).
    """

    tables: Mapping[str, pl.DataFrame | ir.Table]
    models: Sequence[FittedModel] = ()
    degraded: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[date, Mapping[str, float]]] = field(default_factory=dict)


_DUCKDB_TYPES = {"String": "VARCHAR", "Int64": "BIGINT", "Float64": "DOUBLE", "Boolean": "BOOLEAN", "Date": "DATE",
                 "Timestamp": "TIMESTAMP", "Decimal": "DECIMAL(18, 4)"}
_POLARS_TYPES: dict[str, Any] = {"String": pl.String, "Int64": pl.Int64, "Float64": pl.Float64, "Boolean": pl.Boolean,
                 "Date": pl.Date, "Timestamp": pl.Datetime("us"), "Decimal": pl.Decimal(18, 4)}

_INTERNAL = """
CREATE TABLE IF NOT EXISTS fitted_models (
    model_name VARCHAR NOT NULL, model_version VARCHAR NOT NULL, fitted_as_of DATE NOT NULL, trigger VARCHAR NOT NULL,
    is_promoted BOOLEAN NOT NULL, promoted_as_of DATE, parameters VARCHAR NOT NULL, features VARCHAR NOT NULL,
    metrics VARCHAR NOT NULL, model_format VARCHAR NOT NULL, model VARCHAR NOT NULL, seconds DOUBLE NOT NULL,
    as_of_date DATE NOT NULL, step VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS exported_decisions (
    export_id VARCHAR NOT NULL, table_name VARCHAR NOT NULL, partition_date DATE NOT NULL, exported_at TIMESTAMP NOT NULL,
    content_hash VARCHAR NOT NULL, decision VARCHAR NOT NULL);
CREATE TABLE IF NOT EXISTS partition_ledger (
    table_name VARCHAR NOT NULL, partition_date DATE NOT NULL, rows BIGINT NOT NULL, content_hash VARCHAR NOT NULL,
    state_hash VARCHAR NOT NULL, input_fingerprint VARCHAR NOT NULL, code_version VARCHAR NOT NULL, run_id VARCHAR NOT NULL,
    built_at TIMESTAMP NOT NULL, degraded VARCHAR);
"""


def engine() -> Any:
    """Ibis, told not to merge nested selections: merging takes longer than most of our queries, and the database does it anyway."""
    import ibis

    ibis.options.sql.fuse_selects = False
    return ibis


_SCHEMAS: dict[str, Any] = {}
"""Types of published tables as the database has them; looked up once, since asking takes longer than most queries."""


def _declared(backend: Any, name: str) -> ir.Table:
    """A published table as an Ibis expression, without asking the database for its columns again."""
    import ibis.expr.operations as ops

    if name not in _SCHEMAS:
        _SCHEMAS[name] = backend.table(name).schema()
    expression: ir.Table = ops.DatabaseTable(name=name, schema=_SCHEMAS[name], source=backend).to_expr()
    return expression


def polars_schema(name: str) -> dict[str, Any]:
    """Column -> Polars type of a table, in order: `pl.DataFrame(rows, schema=polars_schema('ad_plan'))`."""
    return {column: _POLARS_TYPES[type(kind).__name__] for column, kind in TABLES[name].columns.items()}


def days_between(start: date, end: date) -> list[date]:
    """Every day from start to end, both included."""
    return [start + timedelta(days=offset) for offset in range((end - start).days + 1)]


class Reader:
    """The door to data for concept functions: published tables up to the newest day of the window, nothing later.

    Frames come sorted by the table's key, so that no result depends on the order of rows on disk.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, store: Store, last_day: date) -> None:
        self.connection = connection
        self.store = store
        self.last_day = last_day
        self._ibis: Any = None

    @property
    def ibis(self) -> Any:
        """The Ibis backend over the same connection and transaction."""
        if self._ibis is None:
            ibis = engine()
            self._ibis = ibis.duckdb.from_connection(self.connection)
        return self._ibis

    def table(self, name: str) -> ir.Table:
        """A published table as an Ibis expression, days up to last_day only."""
        expression = _declared(self.ibis, name)
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
        types: dict[Any, Any] = {name: _POLARS_TYPES[type(TYPES[kind]).__name__] for name, kind in spec.columns.items()}
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


def create_tables(connection: duckdb.DuckDBPyConnection, names: Iterable[str] = TABLES) -> None:
    """Create every table that is not there yet."""
    for name in names:
        columns = ", ".join(f"{column} {_DUCKDB_TYPES[type(kind).__name__]}" for column, kind in TABLES[name].columns.items())
        connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")
    for statement in filter(str.strip, _INTERNAL.split(";")):
        connection.execute(statement)


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


def insert_model(connection: duckdb.DuckDBPyConnection, model: FittedModel, step: str = "") -> None:
    """Write one fit (or rollback) under the day it took effect, or was made where it was not promoted."""
    connection.execute(
        "INSERT INTO fitted_models VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [model.model_name, model.model_version, model.fitted_as_of, model.trigger, model.is_promoted, model.promoted_as_of,
         json.dumps(dict(model.parameters), sort_keys=True), json.dumps(list(model.features)),
         json.dumps(dict(model.metrics), sort_keys=True), model.model_format, model.model, model.seconds,
         model.promoted_as_of or model.fitted_as_of, step],
    )


# --- writing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LedgerRow:
    """What the ledger knows of one table's partition; see DESIGN of the ledger in docs/architecture.md."""

    table_name: str
    partition_date: date
    rows: int
    content_hash: str
    state_hash: str
    input_fingerprint: str
    code_version: str
    run_id: str
    built_at: datetime
    degraded: str | None

    def same_result(self, other: LedgerRow | None) -> bool:
        """Whether the partition came out as before; run_id and built_at are left out."""
        return other is not None and (
            (self.rows, self.content_hash, self.state_hash, self.input_fingerprint, self.code_version, self.degraded)
            == (other.rows, other.content_hash, other.state_hash, other.input_fingerprint, other.code_version, other.degraded)
        )


Ledger = dict[tuple[str, date], LedgerRow]


def digest(*parts: object) -> str:
    """A short stable digest of texts and numbers."""
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).hexdigest()


class Warehouse:
    """The open warehouse of one shop. One process holds it at a time; use `open_warehouse`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, store: Store, path: Path | None) -> None:
        self.connection = connection
        self.store = store
        self.path = path
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET preserve_insertion_order = false")
        create_tables(connection)
        self.ledger: Ledger = {}
        self._undo: dict[tuple[str, date], LedgerRow | None] = {}
        for row in connection.execute("SELECT * FROM partition_ledger").fetchall():
            entry = LedgerRow(*row)
            self.ledger[entry.table_name, entry.partition_date] = entry

    def reader(self, last_day: date) -> Reader:
        return Reader(self.connection, self.store, last_day)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is committed together, or nothing is."""
        self.connection.execute("BEGIN TRANSACTION")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(duckdb.Error):
                self.connection.execute("ROLLBACK")
            for key, row in self._undo.items():
                if row is None:
                    del self.ledger[key]
                else:
                    self.ledger[key] = row
            self._undo.clear()
            raise
        if self._undo:
            self._undo.clear()
            self.copy_ledger()

    def replace_window(self, step: str, names: Sequence[str], days: Sequence[date], built: Built) -> dict[str, dict[date, tuple[int, str]]]:
        """Inside a transaction: replace the window of every table of a step, and its fits. Returns rows and content hash by table and day.

        Raises InvalidTable naming table, column, rule and examples; the caller's transaction then rolls back.
        """
        start, end = days[0], days[-1]
        if missing := set(names) - set(built.tables):
            raise InvalidTable(f"step {step}: no rows handed over for {', '.join(sorted(missing))}")
        results: dict[str, dict[date, tuple[int, str]]] = {}
        for name in names:
            spec = TABLES[name]
            self.connection.execute(f"DELETE FROM {name} WHERE {spec.partition_column} BETWEEN ? AND ?", [start, end])
            self._insert(spec, built.tables[name])
            self._verify(spec, start, end)
            results[name] = self._hashes(spec, start, end)
        self.connection.execute("DELETE FROM fitted_models WHERE step = ? AND as_of_date BETWEEN ? AND ?", [step, start, end])
        for model in sorted(built.models, key=lambda fit: (fit.fitted_as_of, fit.model_name, fit.model_version, fit.trigger)):
            insert_model(self.connection, model, step)
        return results

    def _insert(self, spec: Table, rows: pl.DataFrame | ir.Table) -> None:
        columns = spec.columns
        found = list(rows.columns)
        if set(found) != set(columns):
            raise InvalidTable(
                f"table {spec.name}: columns differ from its schema; missing {sorted(set(columns) - set(found))}, "
                f"unexpected {sorted(set(found) - set(columns))}"
            )
        chosen = ", ".join(f"CAST({column} AS {_DUCKDB_TYPES[type(kind).__name__]}) AS {column}" for column, kind in columns.items())
        if isinstance(rows, pl.DataFrame):
            if rows.height:
                self.connection.register("incoming", rows.to_arrow())
                self.connection.execute(f"INSERT INTO {spec.name} SELECT {chosen} FROM incoming")
                self.connection.unregister("incoming")
            return
        from marketing_assets.compiled import compiled

        self.connection.execute(f"INSERT INTO {spec.name} SELECT {chosen} FROM ({compiled(rows)})")

    def _verify(self, spec: Table, start: date, end: date) -> None:
        """The pandera model's rules in one scan; where one is broken, pandera itself names the failing rows."""
        rules = verification_rules(spec)
        window = f"{spec.partition_column} BETWEEN ? AND ?"
        counts = self.connection.execute(
            f"SELECT {', '.join(f'count(*) FILTER (WHERE {rule})' for rule in rules.values())} FROM {spec.name} WHERE {window}", [start, end]
        ).fetchone()
        broken = {name: count for name, count in zip(rules, counts or (), strict=True) if count}
        if broken:
            raise InvalidTable(f"table {spec.name}, {start}...{end}, nothing was published: {self._failures(spec, start, end, broken)}")
        stray = self.connection.execute(
            f"SELECT count(*) FROM {spec.name} WHERE {spec.partition_column} IS NULL").fetchone()
        if stray and stray[0]:
            raise InvalidTable(f"table {spec.name}: {stray[0]} rows without {spec.partition_column}")
        if spec.group not in ("sources", "cleaning"):  # unique there by construction, and too many rows to ask again
            key = ", ".join(dict.fromkeys((spec.partition_column, *spec.key)))
            twice = self.connection.execute(
                f"SELECT {key}, count(*) FROM {spec.name} WHERE {window} GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL LIMIT 3", [start, end]
            ).fetchall()
            if twice:
                raise InvalidTable(f"table {spec.name}, nothing was published: keys ({key}) appear twice, such as {twice}")

    def _failures(self, spec: Table, start: date, end: date, broken: Mapping[str, int]) -> str:
        import ibis
        import pandera.errors

        backend = ibis.duckdb.from_connection(self.connection)
        table = backend.table(spec.name)
        try:
            spec.model.validate(table.filter(table[spec.partition_column].between(start, end)), lazy=True)
        except pandera.errors.SchemaErrors as error:
            cases = error.failure_cases.head(5).to_dict("records")
            return "; ".join(f"{case['column']}: {case['check']}: {case['failure_case']}" for case in cases)
        return "; ".join(f"{rule}: {count} rows" for rule, count in broken.items())

    def _hashes(self, spec: Table, start: date, end: date) -> dict[date, tuple[int, str]]:
        """Rows and an order-free content hash by day. Floats count at single precision, measured columns not at all."""
        rows = self.connection.execute(
            f"""SELECT {spec.partition_column}, count(*), sum(h::HUGEINT), bit_xor(h) FROM (
                    SELECT {spec.partition_column}, hash({", ".join(_hash_terms(spec))}) AS h FROM {spec.name}
                    WHERE {spec.partition_column} BETWEEN ? AND ?) GROUP BY 1""",
            [start, end],
        ).fetchall()
        found = {day: (count, digest(count, total, xor)) for day, count, total, xor in rows}
        return {day: found.get(day, (0, digest(0))) for day in days_between(start, end)}

    def states(self, name: str, days: Sequence[date], results: Mapping[date, tuple[int, str]]) -> dict[date, str]:
        """What readers of `name` can still see of its past at the end of each day of a window, as a digest.

        Change logs: every entity's newest entry since the last keyframe, whatever its day; issues: the newest issue; day
        tables carry nothing. Inside the publishing transaction.
        """
        spec = TABLES[name]
        if spec.kind == "day":
            return dict.fromkeys(days, "")
        if spec.kind == "issue":
            state, found, earlier = "", {}, days[0] - timedelta(days=1)
            while earlier >= self.store.first_day:
                row = self.ledger.get((name, earlier))
                if row is not None and row.rows:
                    state = row.content_hash
                    break
                earlier -= timedelta(days=1)
            for day in days:
                state = results[day][1] if results[day][0] else state
                found[day] = state
            return found
        reader = self.reader(days[-1])
        keyframe = reader.keyframe_before(days[0])
        keyframes = sorted({reader.keyframe_before(day) for day in days})
        entity = ", ".join(spec.entity)
        rows = self.connection.execute(
            f"""SELECT day, sum(entry - before)::VARCHAR FROM (
                    SELECT as_of_date AS day, entry, coalesce(lag(entry) OVER (
                        PARTITION BY {entity}, list_last(list_filter($keyframes::DATE[], k -> k <= as_of_date)) ORDER BY as_of_date), 0) AS before
                    FROM (SELECT {entity}, as_of_date, sum(hash({", ".join(_hash_terms(spec, "as_of_date"))})::HUGEINT) AS entry
                          FROM {name} WHERE as_of_date BETWEEN $start AND $stop GROUP BY ALL))
                GROUP BY day""",
            {"keyframes": keyframes, "start": keyframe, "stop": days[-1]},
        ).fetchall()
        moved = {day: int(total) for day, total in rows}
        total, found = 0, {}
        for day in days_between(keyframe, days[-1]):
            total = moved.get(day, 0) + (0 if day in keyframes else total)
            found[day] = digest(total)
        return {day: found[day] for day in days}

    def model_versions(self) -> list[tuple[str, str, str, date, str]]:
        """Every fit on record, newest first: step, model, version, day fitted, and what became of it."""
        return self.connection.execute(
            """SELECT step, model_name, model_version, fitted_as_of,
                      CASE WHEN is_promoted THEN 'in use from ' || promoted_as_of ELSE 'not promoted' END
               FROM fitted_models ORDER BY fitted_as_of DESC, model_name, model_version, trigger"""
        ).fetchall()

    def models_in_force(self, step: str, days: Sequence[date]) -> dict[date, str]:
        """For each day of a window, a digest of the versions of a step's models that scoring uses at its end."""
        rows = self.connection.execute(
            """SELECT as_of_date, model_name, model_version FROM fitted_models WHERE step = ? AND is_promoted AND as_of_date <= ?
               ORDER BY promoted_as_of, as_of_date, trigger = 'rollback', model_version""",
            [step, days[-1]],
        ).fetchall()
        in_force: dict[str, str] = {}
        found, position = {}, 0
        for day in days:
            while position < len(rows) and rows[position][0] <= day:
                in_force[rows[position][1]] = rows[position][2]
                position += 1
            found[day] = digest(*(f"{model}={version}" for model, version in sorted(in_force.items())))
        return found

    def stage_ledger(self, rows: Sequence[LedgerRow]) -> list[LedgerRow]:
        """Inside a transaction: what the ledger will say. Rows that came out as before keep their run and time.

        Returns the changed ones. They count at once for what is computed next; a rollback takes them back.
        """
        changed = [row for row in rows if not row.same_result(self.ledger.get((row.table_name, row.partition_date)))]
        for row in changed:
            key = row.table_name, row.partition_date
            self._undo.setdefault(key, self.ledger.get(key))
            self.ledger[key] = row
        return changed

    def write_staged(self) -> None:
        """Inside a transaction: the staged ledger rows go to the table."""
        if not self._undo:
            return
        frame = pl.DataFrame([vars(self.ledger[key]) for key in self._undo], schema=_LEDGER_SCHEMA, orient="row")
        self.connection.register("incoming", frame.to_arrow())
        self.connection.execute(
            "DELETE FROM partition_ledger USING incoming WHERE partition_ledger.table_name = incoming.table_name "
            "AND partition_ledger.partition_date = incoming.partition_date"
        )
        self.connection.execute("INSERT INTO partition_ledger BY NAME SELECT * FROM incoming")
        self.connection.unregister("incoming")

    def copy_ledger(self) -> None:
        """Write ledger.parquet beside the warehouse by atomic rename: what sensors and `marketing status` read."""
        if self.path is None:
            return
        target = ledger_copy(self.store)
        frame = pl.DataFrame([vars(row) for row in self.ledger.values()], schema=_LEDGER_SCHEMA, orient="row")
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        frame.sort("table_name", "partition_date").write_parquet(temporary)
        os.replace(temporary, target)

    def copy_verdict(self) -> None:
        """Write verdict.json beside the warehouse by atomic rename: the drifted rows of the newest judged day, for the sensor."""
        if self.path is None:
            return
        newest = max((day for table, day in self.ledger if table == "drift_report"), default=None)
        if newest is None:
            return
        rows = self.connection.execute(
            """SELECT verdict_id, any_value(cause), any_value(action), any_value(assets_to_refresh), min(since_date)::VARCHAR,
                      list(metric ORDER BY metric), sum(effect_value)
               FROM drift_report WHERE as_of_date = ? AND verdict_id IS NOT NULL GROUP BY verdict_id ORDER BY verdict_id""", [newest]
        ).fetchall()
        names = ("verdict_id", "cause", "action", "assets_to_refresh", "since_date", "metrics", "effect_value")
        content = {"as_of_date": newest.isoformat(), "verdicts": [dict(zip(names, row, strict=True)) for row in rows]}
        replace_file(verdict_copy(self.store), json.dumps(content, indent=1))


def _hash_terms(spec: Table, *without: str) -> list[str]:
    """What is hashed of a row: all but measured columns, floats at single precision so that the last bits do not count."""
    return [
        f"({column} + 0.0)::FLOAT" if type(kind).__name__ == "Float64" else column
        for column, kind in spec.columns.items() if column not in spec.measured and column not in without
    ]


def replace_file(path: Path, content: str) -> None:
    """Write a text file whole or not at all."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(content, encoding="utf-8")
    os.replace(temporary, path)


_LEDGER_SCHEMA: dict[str, Any] = {
    "table_name": pl.String, "partition_date": pl.Date, "rows": pl.Int64, "content_hash": pl.String, "state_hash": pl.String,
    "input_fingerprint": pl.String, "code_version": pl.String, "run_id": pl.String, "built_at": pl.Datetime("us"), "degraded": pl.String,
}


def verification_rules(spec: Table) -> dict[str, str]:
    """Rule name -> SQL condition of a row that breaks it, from the pandera model's own declarations."""
    comparisons = {
        "greater_than_or_equal_to": ("min_value", "<"), "greater_than": ("min_value", "<="),
        "less_than_or_equal_to": ("max_value", ">"), "less_than": ("max_value", ">="),
    }
    rules: dict[str, str] = {}
    for name, declared in spec.model.to_schema().columns.items():
        if not declared.nullable:
            rules[f"{name} not_nullable"] = f"{name} IS NULL"
        if type(spec.columns[name]).__name__ == "Float64":
            rules[f"{name} finite"] = f"NOT isfinite({name})"
        for check in declared.checks:
            if check.name in comparisons:
                statistic, opposite = comparisons[check.name]
                rules[f"{name} {check.error}"] = f"{name} {opposite} {check.statistics[statistic]}"
            elif check.name == "isin":
                allowed = ", ".join("'" + str(value).replace("'", "''") + "'" for value in check.statistics["allowed_values"])
                rules[f"{name} {check.error}"] = f"{name} NOT IN ({allowed})"
            else:
                raise InvalidTable(f"table {spec.name}, column {name}: no rule known for pandera check {check.name!r}")
    return rules


# --- opening ----------------------------------------------------------------------------------------------------------


def warehouse_path(store: Store, environment: Mapping[str, str] = os.environ) -> Path:
    """MARKETING_WAREHOUSE, or warehouse.duckdb beside store.yaml."""
    return Path(environment.get("MARKETING_WAREHOUSE") or store.folder / "warehouse.duckdb").resolve()


def ledger_copy(store: Store) -> Path:
    return warehouse_path(store).with_name("ledger.parquet")


def verdict_copy(store: Store) -> Path:
    return warehouse_path(store).with_name("verdict.json")


def read_verdict_copy(store: Store) -> dict[str, Any] | None:
    """The newest drift verdict as last committed, without opening the warehouse; None before the first."""
    path = verdict_copy(store)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def read_ledger_copy(store: Store) -> pl.DataFrame:
    """The ledger as last committed, without opening the warehouse; empty before the first run."""
    path = ledger_copy(store)
    return pl.read_parquet(path) if path.exists() else pl.DataFrame(schema=_LEDGER_SCHEMA)


@contextlib.contextmanager
def warehouse_lock(path: Path, holder: str, wait_seconds: float, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the warehouse alone. Waits up to `wait_seconds`, telling who holds it; then raises WarehouseBusy.

    The operating system drops the lock when its process ends, however it ends.
    """
    lock_path = path.with_name(path.name + ".lock")
    lock_path.parent.mkdir(parents=True, exist_ok=True)
    with open(lock_path, "a+", encoding="utf-8") as lock:
        deadline = time.monotonic() + wait_seconds
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                lock.seek(0)
                who = lock.read().strip() or "another process"
                if not told:
                    tell(f"{path} is held by {who}; waiting up to {wait_seconds:.0f} s")
                    told = True
                if time.monotonic() >= deadline:
                    raise WarehouseBusy(f"{path} is held by {who}. Wait until it ends, or end that process.") from None
                time.sleep(0.2)
        lock.seek(0)
        lock.truncate()
        lock.write(f"{holder}, process {os.getpid()}, since {datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}")
        lock.flush()
        try:
            yield
        finally:
            lock.seek(0)
            lock.truncate()


@contextlib.contextmanager
def open_warehouse(
    store: Store, holder: str = "marketing", wait_seconds: float = 900, tell: Callable[[str], None] = print, in_memory: bool = False
) -> Iterator[Warehouse]:
    """The shop's warehouse, locked for this process and with its ledger copy repaired."""
    if in_memory:
        connection = duckdb.connect(":memory:", config={"threads": str(store.threads)})
        try:
            yield Warehouse(connection, store, None)
        finally:
            connection.close()
        return
    from marketing_assets.compiled import texts_beside

    path = warehouse_path(store)
    with warehouse_lock(path, holder, wait_seconds, tell), texts_beside(path):
        connection = duckdb.connect(str(path), config={"threads": str(store.threads), "memory_limit": "4GB"})
        try:
            warehouse = Warehouse(connection, store, path)
            warehouse.copy_ledger()
            warehouse.copy_verdict()
            yield warehouse
        finally:
            connection.close()
