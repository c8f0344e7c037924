"""Tables as DuckDB, Ibis and Polars see them.

What belongs here: types, creating tables, and rules and hashes of rows as SQL. What does not: the models themselves (schemas/).
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl

from marketing_assets.schemas import TABLES, Table
from marketing_assets.warehouse.built import FittedModel
from marketing_assets.warehouse.errors import InvalidTable, WarehouseError

if TYPE_CHECKING:
    import ibis.expr.types as ir


DUCKDB_TYPES = {"String": "VARCHAR", "Int64": "BIGINT", "Float64": "DOUBLE", "Boolean": "BOOLEAN", "Date": "DATE",
                 "Timestamp": "TIMESTAMP", "Decimal": "DECIMAL(18, 4)"}
POLARS_TYPES: dict[str, Any] = {"String": pl.String, "Int64": pl.Int64, "Float64": pl.Float64, "Boolean": pl.Boolean,
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


def text_literal(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"


@functools.cache
def _ibis_schema(name: str) -> Any:
    """Types of a published table as the database has them; not asked of it, since asking takes longer than most queries."""
    import ibis

    return ibis.schema(TABLES[name].columns)


def declared(backend: Any, name: str) -> ir.Table:
    """A published table as an Ibis expression."""
    import ibis.expr.operations as ops

    expression: ir.Table = ops.DatabaseTable(name=name, schema=_ibis_schema(name), source=backend).to_expr()
    return expression


def polars_schema(name: str) -> dict[str, Any]:
    """Column -> Polars type of a table, in order: `pl.DataFrame(rows, schema=polars_schema('ad_plan'))`."""
    return {column: POLARS_TYPES[type(kind).__name__] for column, kind in TABLES[name].columns.items()}


def create_tables(connection: duckdb.DuckDBPyConnection, names: Iterable[str] = TABLES) -> None:
    """Create every table that is not there yet, and give older ones the columns that came since.

    Raises WarehouseError where rows from before cannot do without such a column, or a table has others in another order.
    """
    there = connection.execute(
        "SELECT table_name, list(column_name ORDER BY column_index) FROM duckdb_columns() WHERE database_name = current_database() GROUP BY ALL"
    )
    known: dict[str, list[str]] = dict(there.fetchall())
    for name in names:
        columns = {column: DUCKDB_TYPES[type(kind).__name__] for column, kind in TABLES[name].columns.items()}
        found = known.get(name)
        if found is None:
            connection.execute(f"CREATE TABLE {name} ({', '.join(f'{column} {kind}' for column, kind in columns.items())})")
        elif found != list(columns):
            later = list(columns)[len(found) :]
            if found != list(columns)[: len(found)] or not all(TABLES[name].model.to_schema().columns[column].nullable for column in later):
                raise WarehouseError(
                    f"{name} was built with the columns {', '.join(found)}; this version of the code has {', '.join(columns)}. "
                    "Move the warehouse file away and build again: tables are made from the landing files"
                )
            for column in later:
                connection.execute(f"ALTER TABLE {name} ADD COLUMN {column} {columns[column]}")
    for statement in filter(str.strip, _INTERNAL.split(";")):
        connection.execute(statement)


def insert_model(connection: duckdb.DuckDBPyConnection, model: FittedModel, step: str = "") -> None:
    """Write one fit (or rollback) under the day it took effect, or was made where it was not promoted."""
    connection.execute(
        "INSERT INTO fitted_models VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [model.model_name, model.model_version, model.fitted_as_of, model.trigger, model.is_promoted, model.promoted_as_of,
         json.dumps(dict(model.parameters), sort_keys=True), json.dumps(list(model.features)),
         json.dumps(dict(model.metrics), sort_keys=True), model.model_format, model.model, model.seconds,
         model.promoted_as_of or model.fitted_as_of, step],
    )


def hash_terms(spec: Table, *without: str) -> list[str]:
    """What is hashed of a row: all but measured columns, floats at single precision so that the last bits do not count."""
    return [
        f"({column} + 0.0)::FLOAT" if type(kind).__name__ == "Float64" else column
        for column, kind in spec.columns.items() if column not in spec.measured and column not in without
    ]


@functools.cache
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
            rules[f"{name} finite"] = f"{name} < -{sys.float_info.max!r} OR {name} > {sys.float_info.max!r}"  # not a number is above all
        for check in declared.checks:
            if check.name in comparisons:
                statistic, opposite = comparisons[check.name]
                rules[f"{name} {check.error}"] = f"{name} {opposite} {check.statistics[statistic]}"
            elif check.name == "isin":
                allowed = ", ".join(map(text_literal, check.statistics["allowed_values"]))
                rules[f"{name} {check.error}"] = f"{name} NOT IN ({allowed})"
            else:
                raise InvalidTable(f"table {spec.name}, column {name}: no rule known for pandera check {check.name!r}")
    return rules
