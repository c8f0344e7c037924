"""Files whose rows stand beside those of a block: orders beside their lines.

What belongs here: finding the row that stands beside. What does not: reading files (reading.py), or what comes of a row (landing.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from marketing_assets.config import JoinedFiles
from marketing_assets.sources.engine import Staging, row_hash
from marketing_assets.sources.errors import SourceError
from marketing_assets.sources.mapping import SOURCE_LINE, Expression, Mapping, check_needs, with_text
from marketing_assets.sources.reading import (
    by_header,
    in_file_order,
    not_an_object,
    opened,
    refused_lines,
    with_files,
    with_keys,
)
from marketing_assets.sources.unpacking import Ready

if TYPE_CHECKING:
    import ibis.expr.types as ir


@dataclass
class Beside:
    """Rows by key, and by landing day where files are dated: beside_key, beside_day, beside, and beside_hash of all that is written there, whatever
    other files of the window hold. broken: lines that could not be read."""

    rows: ir.Table | None = None
    broken: list[ir.Table] = field(default_factory=list)


def rows_beside(
    staging: Staging, source: str, name: str, block: JoinedFiles, key: Expression, files: Sequence[Ready], number: int
) -> Beside:
    """The rows of joined files; of rows with the same key the last in the last file."""
    import ibis

    result = Beside()
    parts: list[ir.Table] = []
    for header, group in by_header(files, block):
        found = opened(staging, block, header, group)
        rows, columns = found.rows, list(found.own)
        if block.format == "json":
            columns = [column for column in key.needs if column.lower() != SOURCE_LINE] + [SOURCE_LINE]
            rows = with_keys(rows, columns[:-1])
        check_needs(key, {column.lower(): column for column in columns}, group[0].file.name, f"sources.{source}.join.{name}")
        rows = _expressed(rows, key, "beside_key", columns, "beside")
        if block.format == "json":
            told = {"beside": rows[SOURCE_LINE], "source_error": not_an_object(rows)}
            told["landing_hash"] = row_hash({"block": ibis.literal(number), "text": rows.landing_text})
        else:
            told = {"beside": ibis.struct({column: rows[column] for column in found.own})}
        carried = ["landing_line"] if block.format == "parquet" else []
        own = row_hash({column: rows[column] for column in found.own})
        kept = rows.select("landing_file", *carried, "beside_key", beside_hash=own, **told)
        with in_file_order(staging.reader):
            staged = staging.keep(kept, "beside")
        broken = refused_lines(staging, found, staged, group, block)
        if broken is not None:
            result.broken.append(with_files(staging, staging.keep(broken, "broken"), group, block, None))
        placed = with_files(staging, staged, group, block, broken)
        if block.format == "json":
            result.broken.append(placed.filter(placed.source_error.notnull()))
            placed = placed.filter(placed.source_error.isnull())
        parts.append(placed)
    if not parts:
        return result
    if block.format != "json":
        parts = _as_one_struct(parts)
    chosen = [part.select("beside_key", "beside", "beside_hash", "source_file", "source_row", beside_day=part.listed_date) for part in parts]
    every = ibis.union(*chosen) if len(chosen) > 1 else chosen[0]
    every = every.filter(every.beside_key.notnull())
    newest = ibis.window(
        group_by=[every.beside_key, every.beside_day], order_by=[ibis.desc(every.source_file), ibis.desc(every.source_row)]
    )
    every = every.mutate(place=ibis.row_number().over(newest))
    result.rows = staging.keep(every.filter(every.place == 0).select("beside_key", "beside_day", "beside", "beside_hash"), "joined")
    return result


def _as_one_struct(parts: Sequence[ir.Table]) -> list[ir.Table]:
    """Rows with the same columns in all parts: what a part lacks is null, what differs in type is a text."""
    import ibis

    if len(parts) == 1:
        return list(parts)
    types: dict[str, Any] = {}
    for part in parts:
        for name, kind in part.beside.type().items():
            types[name] = kind if types.get(name, kind) == kind else ibis.dtype("string")
    result = []
    for part in parts:
        own = part.beside
        values = {name: own[name].cast(kind) if name in own.type().names else ibis.null(kind) for name, kind in types.items()}
        result.append(part.mutate(beside=ibis.struct(values)))
    return result


def _expressed(rows: ir.Table, expression: Expression, name: str, columns: Sequence[str], relation: str) -> ir.Table:
    """Rows with an expression over some of their columns as a text. relation: a name nothing in `rows` has."""
    import ibis
    import ibis.expr.operations as ops

    query = with_text(expression, name, columns, relation)
    schema = ibis.schema({**dict(rows.schema().items()), name: "string"})
    result: ir.Table = ops.SQLStringView(parent=rows.alias(relation).op(), query=query, schema=schema).to_expr()
    return result


def hash_of(name: str) -> str:
    """The column that tells rows of joined files apart."""
    return f"landing_hash_of_{name}"


def stand_beside(
    staging: Staging,
    landing: ir.Table,
    columns: Sequence[str],
    mapping: Mapping,
    beside: dict[str, Beside],
    files: Sequence[Ready],
    source: str,
) -> ir.Table:
    """Rows of a block with a column for each join, null where no row stands beside, and its hash; landing_position tells their order from here on."""
    import ibis

    with in_file_order(staging.reader):
        rows = staging.keep(landing, "lines")
    days = {int(file.path.name[:6]): file.file.day for file in files}
    listed = ibis.array([ibis.literal(days.get(place), type="date") for place in range(max(days) + 1)])
    rows = rows.mutate(landing_position=rows.rowid(), landing_day=listed[rows.landing_file])
    found = list(columns)
    for name, (by, _) in mapping.joins.items():
        check_needs(by, {column.lower(): column for column in found}, files[0].file.name, f"sources.{source}.join.{name}.by")
        if name in (column.lower() for column in columns):
            raise SourceError(f"sources.{source}.join.{name}: {files[0].file.name} has a column of that name; give what is joined another")
        other = beside[name].rows
        if other is None:  # a window without such files, though expressions name their columns
            nothing = {column: ibis.null("string") for column in mapping.columns_of(name)}
            empty = ibis.struct(nothing) if nothing else ibis.null("string")
            rows = rows.mutate(**{name: empty, hash_of(name): ibis.null("uint64")})
        else:
            rows = _expressed(rows, by, "landing_by", found, f"before_{name}")
            joined = rows.left_join(other, [rows.landing_by == other.beside_key, rows.landing_day.identical_to(other.beside_day)])
            kept = [column for column in rows.columns if column != "landing_by"]
            rows = joined.select(*kept, **{name: other.beside, hash_of(name): other.beside_hash})
        found.append(name)
    return rows
