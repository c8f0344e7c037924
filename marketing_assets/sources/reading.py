"""Landing files as tables of the engine: what is written in them, where, and the lines that could not be read.

What belongs here: the engine's readers, headers, and telling lines apart. What does not: what columns mean (mapping.py), days and ids (landing.py).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from marketing_assets.config import FileLayout, SourceBlock
from marketing_assets.sources.engine import Staging, json_elements, json_kind, json_values
from marketing_assets.sources.errors import SourceError
from marketing_assets.sources.mapping import SOURCE_ELEMENT, SOURCE_LINE
from marketing_assets.sources.unpacking import MAX_LINE_BYTES, Ready

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from marketing_assets.warehouse import Reader

TEXT_LIMIT = 2_000
"""Characters kept of a line that could not be read."""
_NO_DELIMITER = "\x01"
_REJECTS = {
    "scan_id": "uint64", "file_id": "uint64", "line": "uint64", "csv_line": "string", "error_type": "string", "error_message": "string"
}
_SCANS = {"scan_id": "uint64", "file_id": "uint64", "file_path": "string"}
"""Columns of the engine's two tables of refused lines, as far as they are read."""
_HINTS = {
    "INVALID ENCODING": "not valid UTF-8; if the whole file is in another encoding, set 'encoding'",
    "LINE SIZE OVER MAXIMUM": f"longer than {MAX_LINE_BYTES} bytes",
}


@contextmanager
def in_file_order(reader: Reader) -> Iterator[None]:
    """Rows keep the order of their file inside, so that positions tell lines."""
    found = reader.connection.execute("SELECT current_setting('preserve_insertion_order')").fetchone()
    reader.connection.execute("SET preserve_insertion_order = true")
    yield
    # not after an error: a transaction that is broken takes no setting, and would tell of that instead of what went wrong
    if found and not found[0]:
        reader.connection.execute("SET preserve_insertion_order = false")


# --- opening -----------------------------------------------------------------------------------------------------------


def by_header(files: Sequence[Ready], block: FileLayout) -> list[tuple[tuple[str, ...], list[Ready]]]:
    """Columns, and the files that have them: a column moved, added or of another type from some day on is read rightly.

    The engine would read all files as the types of the first: amounts rounded where those of the first day were whole.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Ready]] = {}
    for file in files:
        if block.format == "csv":
            columns = tuple((name, "") for name in _csv_header(file, block))
        elif block.format == "json":
            columns = ()
        else:
            columns = _parquet_columns(file)
        groups.setdefault(columns, []).append(file)
    return [(tuple(name for name, _ in columns), group) for columns, group in groups.items()]


def _csv_header(file: Ready, block: FileLayout) -> tuple[str, ...]:
    if block.header is not None:
        return tuple(block.header)
    try:
        line = file.first_line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(f"{file.file.name}: the header is not in UTF-8: {error}; set 'encoding'") from error
    if file.long_lines and file.long_lines[0][0] == 1:
        raise SourceError(f"{file.file.name}: the first line is longer than {MAX_LINE_BYTES} bytes; a header was expected")
    names = next(csv.reader([line], delimiter=block.delimiter), [])
    header = [name.strip() or f"column{place}" for place, name in enumerate(names)]
    lowered = [name.lower() for name in header]
    if twice := [name for name in header if lowered.count(name.lower()) > 1]:
        raise SourceError(f"{file.file.name}: column {twice[0]!r} appears twice in the header: {', '.join(header)[:500]}")
    if not header:
        raise SourceError(f"{file.file.name}: the first line is empty; a header was expected")
    return tuple(header)


def _parquet_columns(file: Ready) -> tuple[tuple[str, str], ...]:
    """Names and types."""
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(file.path)
    except (OSError, pyarrow.ArrowException) as error:
        raise SourceError(f"{file.file.name}: not readable as parquet: {error}. Deliver it again.") from error
    return tuple((str(field.name), str(field.type)) for field in schema)


@dataclass(frozen=True)
class Opened:
    """Files of one header as a table: their columns `own`, as they are written (of json the line alone, as landing_text), landing_file, of parquet
    landing_line and of json landing_kind. rejects: the engine's tables of lines it refuses."""

    rows: ir.Table
    own: tuple[str, ...]
    rejects: tuple[str, str]


def opened(staging: Staging, block: FileLayout, header: tuple[str, ...], files: Sequence[Ready]) -> Opened:
    """Files as a table, read when it is asked for its rows."""
    backend = staging.reader.ibis
    view, rejects = staging.name("view"), (staging.name("rejects"), staging.name("scans"))
    paths = [str(file.path) for file in files]
    if block.format == "parquet":
        landing = backend.read_parquet(paths, table_name=view, filename="landing_path", file_row_number=True)
        landing = landing.mutate(landing_line=landing.file_row_number + 1)
        own = header
    else:
        is_csv = block.format == "csv"
        own = header if is_csv else ("landing_text",)
        landing = backend.read_csv(
            paths,
            table_name=view,
            columns=dict.fromkeys(own, "VARCHAR"),
            header=block.has_header_line,
            filename="landing_path",
            delim=block.delimiter if is_csv else _NO_DELIMITER,
            quote='"' if is_csv else "",
            escape='"' if is_csv else "",
            max_line_size=MAX_LINE_BYTES + 100,
            store_rejects=True,
            rejects_table=rejects[0],
            rejects_scan=rejects[1],
        )
    landing = landing.mutate(landing_file=landing.landing_path.right(len(f"000000.{block.format}")).left(6).cast("int32"))
    if block.format == "json":
        landing = landing.mutate(landing_kind=json_kind(landing.landing_text).fill_null("no valid JSON"))
    return Opened(landing, tuple(own), rejects)


def with_keys(landing: ir.Table, keys: Sequence[str]) -> ir.Table:
    """Of json the values of these keys, and the whole object as SOURCE_LINE."""
    import ibis

    is_object = landing.landing_kind == "OBJECT"
    landing = landing.mutate(**{SOURCE_LINE: ibis.ifelse(is_object, landing.landing_text, ibis.null("string"))})
    if not keys:
        return landing
    values = ibis.ifelse(is_object, json_values(landing.landing_text, list(keys)), ibis.null("array<string>"))
    landing = landing.mutate(landing_values=values)
    return landing.mutate(**{name: landing.landing_values[place] for place, name in enumerate(keys)})


def not_an_object(rows: ir.Table) -> Any:
    """Of json why a line is no row, null where it is one."""
    import ibis

    problem = ibis.literal("expected a JSON object, found ") + rows.landing_kind + ": " + rows.landing_text.left(TEXT_LIMIT)
    return ibis.ifelse(rows.landing_kind == "OBJECT", ibis.null("string"), problem)


def unrolled(landing: ir.Table, block: SourceBlock, header: Sequence[str], file_name: str) -> ir.Table:
    """A row for each element of a list, as SOURCE_ELEMENT, and one with null where there is none; landing_element counts them from 0."""
    import ibis

    assert block.unroll is not None
    if block.format == "json":
        found = ibis.ifelse(landing.landing_kind == "OBJECT", json_elements(landing.landing_text, block.unroll), ibis.null("array<string>"))
    else:
        found = _inner(landing, block.unroll)
        if found is None or not found.type().is_array():
            raise SourceError(f"{file_name}: no list {block.unroll!r}, named by 'unroll'. The file has: {', '.join(header)[:1000]}.")
    nothing = ibis.array([ibis.null(found.type().value_type)])
    landing = landing.mutate(landing_elements=ibis.ifelse(found.length() > 0, found, nothing))
    # side by side in one projection, which keeps the order of the file; a join of the lists would not
    places = ibis.range(0, landing.landing_elements.length()).unnest()
    return landing.mutate(landing_element=places, **{SOURCE_ELEMENT: landing.landing_elements.unnest()}).drop("landing_elements")


def _inner(landing: ir.Table, path: str) -> Any:
    """The value at a dotted path of a table with structs, None where there is none."""
    first, *steps = path.split(".")
    found: Any = landing[first] if first in landing.columns else None
    for step in steps:
        found = found[step] if found is not None and found.type().is_struct() and step in found.type().names else None
    return found


# --- lines -------------------------------------------------------------------------------------------------------------


def check_lines(
    reader: Reader, landing: ir.Table, header: Sequence[str], staged: ir.Table, files: Sequence[Ready], broken: pl.DataFrame,
    block: FileLayout,
) -> None:
    """Every line of every file was read or refused; raises SourceError where the engine lost one without a word."""
    lines = staged.filter(staged.landing_element == 0) if "landing_element" in staged.columns else staged
    read = dict(reader.frame(lines.group_by("landing_file").agg(rows=lines.count())).iter_rows())
    refused = dict(broken.group_by("landing_file").len().iter_rows())
    for file in files:
        number = int(file.path.name[:6])
        found = read.get(number, 0) + refused.get(number, 0) + block.has_header_line
        if found >= file.lines:
            continue
        # lines within quotes, and empty ones, are rare enough to be counted only now
        own = landing.filter(landing.landing_file == number)
        breaks = 0
        for column in header if block.format == "csv" else ():
            text = own[column]
            breaks += int((text.length() - text.replace("\n", "").length()).sum().fill_null(0).execute())
        with open(file.path, "rb") as stream:
            empty = sum(not line.strip() for line in stream)
        if found + breaks + empty < file.lines:
            is_open = (pl.col("landing_file") == number) & pl.col("source_error").str.contains("quote")
            places = broken.filter(is_open)["landing_line"].to_list()
            raise SourceError(
                f"{file.file.name}: {file.lines - found - breaks - empty} of {file.lines} lines could be neither read nor "
                f"refused, probably after a quote that is not closed (see line {min(places, default=0) + block.skip_lines}). Correct the file."
            )


def refused_lines(staging: Staging, found: Opened, staged: ir.Table, files: Sequence[Ready], block: FileLayout) -> pl.DataFrame | None:
    """The lines that could not be read, None where there are none. Raises SourceError where the engine lost one without a word."""
    if block.format == "parquet":
        return None
    broken = unread_lines(staging, found.rejects, files)
    check_lines(staging.reader, found.rows, found.own, staged, files, broken, block)
    return broken if broken.height else None


def first_lines(error: Exception) -> str:
    return " ".join(str(error).split("\n")[:3])[:600]


def unread_lines(staging: Staging, rejects: tuple[str, str], files: Sequence[Ready]) -> pl.DataFrame:
    """landing_file, landing_hash, landing_line, source_error of every line the reader refused or the copy left out."""
    errors = staging.table(rejects[0], _REJECTS)
    scans = staging.table(rejects[1], _SCANS).distinct()
    joined = errors.join(scans, ["scan_id", "file_id"])
    found = staging.reader.frame(joined.select("file_path", "line", "csv_line", "error_type", "error_message"))
    for name in rejects:
        staging.drop(name)
    by_path = {str(file.path): int(file.path.name[:6]) for file in files}
    rows = (
        found.with_columns(landing_file=pl.col("file_path").replace_strict(by_path, return_dtype=pl.Int32))
        .sort("landing_file", "line", "error_type", "error_message")
        .unique(["landing_file", "line"], keep="first", maintain_order=True)
    )
    # a quote that is never closed takes many lines with it; each is a row of its own
    rows = rows.with_columns(csv_line=pl.col("csv_line").fill_null("").str.strip_suffix("\n").str.split("\n"))
    rows = rows.with_columns(inner=pl.int_ranges(pl.col("csv_line").list.len())).explode("csv_line", "inner")
    rows = rows.with_columns(line=pl.col("line").cast(pl.Int64) + pl.col("inner")).unique(
        ["landing_file", "line"], keep="first", maintain_order=True
    )
    why = pl.col("error_type").replace_strict(_HINTS, default=pl.col("error_message"), return_dtype=pl.String)
    rows = rows.select(
        "landing_file",
        landing_hash=pl.col("csv_line").map_elements(_hash_of_text, return_dtype=pl.UInt64),
        landing_line=pl.col("line"),
        source_error=why + ": " + pl.col("csv_line").str.slice(0, TEXT_LIMIT),
    )
    long = [
        (
            int(file.path.name[:6]),
            _hash_of_text(f"{length}:{start}"),
            line,
            f"longer than {MAX_LINE_BYTES} bytes ({length}): {start}",
        )
        for file in files
        for line, length, start in file.long_lines
    ]
    if long:
        rows = pl.concat([rows, pl.DataFrame(long, schema=rows.schema, orient="row")])
    result: pl.DataFrame = rows.sort("landing_file", "landing_line", "landing_hash")
    return result


def _hash_of_text(text: str) -> int:
    import hashlib

    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def with_files(
    staging: Staging, staged: ir.Table, files: Sequence[Ready], block: FileLayout, broken: pl.DataFrame | None
) -> ir.Table:
    """Staged rows with source_file, source_row and, for dated files, landed_date."""
    import ibis

    listed = pl.DataFrame(
        {
            "listed_file": [int(file.path.name[:6]) for file in files],
            "source_file": [file.file.name for file in files],
            "listed_date": [file.file.day for file in files],
        },
        schema={"listed_file": pl.Int32, "source_file": pl.String, "listed_date": pl.Date},
    )
    if "landing_position" not in staged.columns:
        staged = staged.mutate(landing_position=staged.rowid())
    if "landing_line" not in staged.columns:
        first = staging.reader.frame(staged.group_by("landing_file").agg(first=staged.landing_position.min()))
        listed = listed.join(first, left_on="listed_file", right_on="landing_file", how="left")
    else:
        listed = listed.with_columns(first=pl.lit(0, dtype=pl.Int64))
    table = staging.keep(listed, "files")
    joined = staged.join(table, staged.landing_file == table.listed_file)
    if "landing_line" in staged.columns:
        line = joined.landing_line
    else:
        place: Any = joined.landing_position - joined["first"]
        if "landing_element" in joined.columns:  # elements of one list stand in one line
            before = ibis.window(group_by=joined.landing_file, order_by=joined.landing_position, following=0)
            place = (joined.landing_element == 0).cast("int64").sum().over(before) - 1
        joined = joined.mutate(place=place)
        line = joined.place + 1 + int(block.has_header_line)
        if broken is not None:
            joined, line = _past_broken_lines(staging, joined, broken, block)
    joined = joined.mutate(source_row=(line + block.skip_lines if block.skip_lines else line).cast("int64"))
    if block.is_dated:
        joined = joined.mutate(landed_date=joined.listed_date)
    if "source_error" not in joined.columns:
        joined = joined.mutate(source_error=ibis.null("string"))
    return joined


def _past_broken_lines(staging: Staging, rows: ir.Table, broken: pl.DataFrame, block: FileLayout) -> tuple[ir.Table, Any]:
    """Line numbers of good rows in files where lines were refused: each refused line before a row moves it by one."""
    header = int(block.has_header_line)
    steps = (
        broken.sort("landing_file", "landing_line")
        .select(
            step_file="landing_file",
            refused=pl.int_range(1, pl.len() + 1).over("landing_file"),
            line=pl.col("landing_line"),
        )
        .with_columns(step_place=pl.col("line") - header - pl.col("refused"))
    )
    steps = steps.group_by("step_file", "step_place").agg(pl.col("refused").max()).sort("step_file", "step_place")
    table = staging.keep(steps.select("step_file", "step_place", "refused"), "steps")
    joined = rows.asof_join(table, on=rows.place >= table.step_place, predicates=[rows.landing_file == table.step_file])
    return joined, joined.place + 1 + header + joined.refused.fill_null(0)
