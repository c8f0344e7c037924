"""The column expressions of store.yaml.

What belongs here: parsing them, refusing what could read elsewhere or differ from run to run, and finding the columns they
need. What does not: running them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlglot
import sqlglot.expressions as sge
from sqlglot.errors import SqlglotError

from marketing_assets.config import SourceBlock, Store
from marketing_assets.schemas import FURTHER, INPUTS, OWN_NAME, column_of
from marketing_assets.sources.errors import SourceError

SOURCE_FILE = "source_file"
SOURCE_LINE = "source_line"
"""The whole object, as JSON, where the format is json: `source_line ->> '$.customer.id'` reads what is nested."""
SOURCE_ELEMENT = "source_element"
"""Where a list is unrolled, its element: `source_element ->> '$.sku'` of json, `source_element.sku` of parquet, null where it is empty."""
KEPT = "landing_kept"
"""Of a mapped row: whether it satisfies the block's condition."""
EVERY = "*"
"""`columns: {"*": "*"}` maps each contract column the file has under the same name."""

_REFUSED = (
    sge.Query,
    sge.Table,
    sge.Exists,
    sge.AggFunc,
    sge.Window,
    sge.Command,
    sge.Placeholder,
    sge.Parameter,
    sge.Star,
    sge.UDTF,
    sge.Explode,
    sge.ReadCSV,
    sge.ReadParquet,
    sge.Rand,
    sge.Uuid,
    sge.CurrentTimestamp,
    sge.CurrentDate,
    sge.CurrentTime,
    sge.CurrentDatetime,
    sge.CurrentUser,
)


@functools.cache
def _plain_functions() -> frozenset[str]:
    """The engine's functions of one row that give the same result for the same values."""
    import duckdb

    with duckdb.connect(":memory:") as connection:
        found = connection.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() "
            "WHERE function_type IN ('scalar', 'macro') AND coalesce(stability, 'CONSISTENT') = 'CONSISTENT'"
        ).fetchall()
    return frozenset(name.lower() for (name,) in found) - {"getenv", "query", "query_table", "current_setting", "getvariable"}


@dataclass(frozen=True)
class Expression:
    """A parsed expression. needs: the file's columns it reads, as written."""

    text: str
    parsed: sge.Expr
    needs: tuple[str, ...]


def parse(text: str, where: str) -> Expression:
    """Parse one expression. Raises SourceError, starting with `where`, for what cannot be parsed or is not allowed."""
    try:
        parsed = sqlglot.parse_one(text, dialect="duckdb")
    except SqlglotError as error:
        problem = str(error).split("\n")[0]
        raise SourceError(f"{where}: {text!r} is no SQL expression: {problem}") from error
    for node in parsed.walk():
        if isinstance(node, _REFUSED):
            raise SourceError(
                f"{where}: {text!r} uses {node.sql(dialect='duckdb')[:60]!r}; only functions of the row's own columns are "
                "allowed, no subqueries, aggregates, windows, file functions, or what differs from run to run"
            )
        if isinstance(node, sge.Anonymous) and node.name.lower() not in _plain_functions():
            raise SourceError(f"{where}: {text!r} calls {node.name}(), which is no function of a row's values")
    needs = dict.fromkeys(column.parts[0].name for column in parsed.find_all(sge.Column))
    return Expression(text, parsed, tuple(needs))


@dataclass(frozen=True)
class Mapping:
    """A block's expressions by contract column, and its condition. joins: name of joined files -> what finds a row, of the block and of them."""

    columns: dict[str, Expression]
    where: Expression | None
    takes_same_names: bool
    joins: dict[str, tuple[Expression, Expression]]

    @property
    def _chosen(self) -> list[Expression]:
        return [*self.columns.values(), *([self.where] if self.where else []), *(by for by, _ in self.joins.values())]

    @property
    def needs(self) -> list[str]:
        """Every column of the block's own files that is read."""
        beside = {SOURCE_FILE, *self.joins}
        return list(dict.fromkeys(name for expression in self._chosen for name in expression.needs if name.lower() not in beside))

    def columns_of(self, name: str) -> list[str]:
        """The columns of joined files that are read, of json none."""
        columns = [column for expression in self._chosen for column in expression.parsed.find_all(sge.Column)]
        return list(dict.fromkeys(column.parts[1].name for column in columns if len(column.parts) > 1 and column.parts[0].name.lower() == name))

    def uses(self, name: str) -> bool:
        """Whether an expression reads this column of the file."""
        return any(needed.lower() == name for expression in self._chosen for needed in expression.needs)


def mapping_of(store: Store, source: str, block: SourceBlock) -> Mapping:
    """The block's mapping. Raises SourceError for contract columns nobody knows and for expressions not allowed."""
    where_columns = f"{store.path}: sources.{source}.columns"
    columns = {name: text for name, text in block.columns.items() if name != EVERY}
    further = further_names(source, columns, where_columns)
    parsed = {name: parse(text, f"{where_columns}.{name}") for name, text in columns.items()}
    if further:
        pairs = ", ".join(f"'{name}', CAST(({parsed.pop(name).parsed.sql(dialect='duckdb')}) AS TEXT)" for name in further)
        parsed[FURTHER] = parse(f"json_object({pairs})", f"{where_columns}.{FURTHER}")
    where = parse(block.where, f"{store.path}: sources.{source}.where") if block.where else None
    joins = {}
    for name, joined in block.join.items():
        where_join = f"{store.path}: sources.{source}.join.{name}"
        joins[name] = (parse(joined.by, f"{where_join}.by"), parse(joined.key or joined.by, f"{where_join}.{'key' if joined.key else 'by'}"))
    mapping = Mapping(parsed, where, EVERY in block.columns, joins)
    if block.format == "json" and block.unroll is None and mapping.uses(SOURCE_ELEMENT):
        raise SourceError(f"{store.path}: sources.{source}: {SOURCE_ELEMENT} is an element of a list; say of which with 'unroll', such as line_items")
    return mapping


def further_names(source: str, names: Collection[str], where: str) -> list[str]:
    """Those of the names that are the shop's own, kept together in FURTHER. Raises SourceError, starting with `where`, where they can't be."""
    own = [name for name in names if name not in INPUTS[source].columns]
    for name in own:
        if column_of(source, name) is None:
            raise SourceError(f"{where}: {name} is no column of this input; allowed: {', '.join(INPUTS[source].columns)}")
        if not re.fullmatch(OWN_NAME, name):
            raise SourceError(f"{where}: {name!r} is no name for a column of your own; use small letters, digits and _, such as school_holiday")
        if FURTHER in names:
            raise SourceError(f"{where}: {name} is kept in {FURTHER!r}, which is mapped as well; map one of them")
    return own


def selection(
    mapping: Mapping, source: str, found: Sequence[str], file_name: str, relation: str, carried: Sequence[str]
) -> tuple[str, list[str]]:
    """The query that maps a relation with these columns, and the contract columns it gives, as texts; `carried` ones come along as they are.

    KEPT tells whether the row is this table's; where the condition cannot be decided it is, so that no row is lost to every
    table. The rows are not filtered yet, because their place in the file is still to be taken. Raises SourceError
    where the file lacks a column, naming file, column, expression and what the file has.
    """
    by_lower = {name.lower(): name for name in found}
    for contract, expression in [*mapping.columns.items(), *([("where", mapping.where)] if mapping.where else [])]:
        check_needs(expression, by_lower, file_name, f"sources.{source}.{'' if contract == 'where' else 'columns.'}{contract}")
    chosen = {name: _named(expression, by_lower) for name, expression in mapping.columns.items()}
    if mapping.takes_same_names:
        for name in INPUTS[source].columns:
            if name not in chosen and name.lower() in by_lower:
                chosen[name] = sge.column(by_lower[name.lower()], quoted=True)
    text = sge.DataType.build("text", dialect="duckdb")
    columns = [sge.column(name, quoted=True) for name in carried]
    mapped = [sge.alias_(sge.Cast(this=expression, to=text), name, quoted=True) for name, expression in chosen.items()]
    condition: sge.Expr = sge.true()
    if mapping.where:
        decided = sge.Cast(this=sge.Paren(this=_named(mapping.where, by_lower)), to=sge.DataType.build("boolean"))
        condition = sge.Coalesce(this=decided, expressions=[sge.true()])
    kept_rows = sge.alias_(condition, KEPT, quoted=True)
    query = sge.Select().select(*columns, *mapped, kept_rows).from_(sge.to_identifier(relation, quoted=True))
    return query.sql(dialect="duckdb"), list(chosen)


def check_needs(expression: Expression, by_lower: dict[str, str], file_name: str, where: str) -> None:
    """Raises SourceError where a file lacks a column that an expression reads, naming file, column, expression and what the file has."""
    for name in expression.needs:
        if name.lower() not in by_lower and name.lower() != SOURCE_FILE:
            found = list(by_lower.values())
            raise SourceError(
                f"{file_name}: column {name!r} is missing, needed by {where}: {expression.text!r}. "
                f"The file has: {', '.join(found)[:1000]}.{_hint(found)}"
            )


def with_text(expression: Expression, name: str, found: Sequence[str], relation: str) -> str:
    """The query that gives a relation's columns, and an expression over those of the file as a text beside them."""
    by_lower = {column.lower(): column for column in found}
    text = sge.Cast(this=_named(expression, by_lower), to=sge.DataType.build("text", dialect="duckdb"))
    query = sge.Select().select(sge.Star(), sge.alias_(text, name, quoted=True)).from_(sge.to_identifier(relation, quoted=True))
    return query.sql(dialect="duckdb")


def _named(expression: Expression, by_lower: dict[str, str]) -> sge.Expr:
    """The expression with the file's own column names, quoted: a column may be called 'at' or 'order'."""
    parsed = expression.parsed.copy()
    for column in list(parsed.find_all(sge.Column)):
        first = column.parts[0]
        first.replace(sge.to_identifier(by_lower.get(first.name.lower(), first.name.lower()), quoted=True))
    return parsed


def _hint(found: Sequence[str]) -> str:
    if len(found) == 1:
        for delimiter in (";", "\t", "|", ","):
            if delimiter in found[0]:
                return f" It looks as if the delimiter were {delimiter!r}: set 'delimiter'."
    return " Correct the expression, or the export."
