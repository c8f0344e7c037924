"""One input's landing files of a window -> its raw table.

What belongs here: reading, landed day, row ids. A row that cannot be read becomes a raw row with `source_error` and its
text, so that every line of a file is somewhere.
"""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl

from marketing_assets.compiled import written
from marketing_assets.config import SourceBlock, Store
from marketing_assets.privacy.marks import check_retained
from marketing_assets.privacy.people import without_erased
from marketing_assets.schemas import FURTHER, INPUTS, TABLES
from marketing_assets.sources.engine import Staging, hexadecimal, json_elements, json_kind, json_values, row_hash, rows_in
from marketing_assets.sources.errors import SourceError
from marketing_assets.sources.files import files_of_window, source_blocks
from marketing_assets.sources.instants import parse_instant, to_local
from marketing_assets.sources.mapping import (
    KEPT,
    SOURCE_ELEMENT,
    SOURCE_FILE,
    SOURCE_LINE,
    Mapping,
    further_names,
    mapping_of,
    selection,
)
from marketing_assets.sources.unpacking import MAX_LINE_BYTES, Ready, ready
from marketing_assets.warehouse import Built

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from marketing_assets.warehouse import Reader

TEXT_LIMIT = 2_000
"""Characters kept of a line that could not be read."""
_NO_DELIMITER = "\x01"
_PIECE = 1 << 40
"""Positions of the rows of one piece start at a multiple of this."""
_ID = {"events": "event_id", "impressions": "impression_id"}
"""Inputs whose rows need an id, and the column that may give it."""
_REJECTS = {
    "scan_id": "uint64", "file_id": "uint64", "line": "uint64", "csv_line": "string", "error_type": "string", "error_message": "string"
}
_SCANS = {"scan_id": "uint64", "file_id": "uint64", "file_path": "string"}
"""Columns of the engine's two tables of refused lines, as far as they are read."""
_HINTS = {
    "INVALID ENCODING": "not valid UTF-8; if the whole file is in another encoding, set 'encoding'",
    "LINE SIZE OVER MAXIMUM": f"longer than {MAX_LINE_BYTES} bytes",
}


def build_sources(reader: Reader, days: Sequence[date], store: Store, source: str) -> Built:
    """raw_<source> for a contiguous window of days, from the landing files alone.

    Returns an Ibis expression over temporary tables of the reader's connection, valid until the next call for the same
    input. A shop without the input gets an empty, degraded table. People who were erased stay out. Raises SourceError naming
    file and what to do, Expired where the rows of a day were deleted after retention_days.
    """
    name = f"raw_{source}"
    if not source_blocks(store, source):
        empty = pl.DataFrame(schema={column: pl.String for column in TABLES[name].columns})
        return Built(
            {name: empty.cast({"landed_date": pl.Date, "source_row": pl.Int64})}, degraded={name: f"needs source '{source}'"}
        )
    check_retained(store, name, days, (name,))
    staging = Staging(reader, f"landing_{source}")
    return Built({name: without_erased(staging, landed_rows(staging, days, store, source), source)})


def landed_rows(staging: Staging, days: Sequence[date], store: Store, source: str) -> ir.Table | pl.DataFrame:
    """What the landing files themselves say of a window: every mapped row, whoever was erased since."""
    pieces: list[Piece] = []
    for number, block in enumerate(source_blocks(store, source)):
        mapping = mapping_of(store, source, block)
        if block.rows is not None:
            pieces += _inline_pieces(staging, days, store, source, block, number)
        elif block.is_dated or INPUTS[source].landed_by or store.first_day in days:
            pieces += _file_pieces(staging, days, store, source, block, mapping, number)
    return _raw_rows(staging, pieces, source, days, store)


@dataclass
class Piece:
    """Staged rows read in one go, with columns row_hash, landed_date (or file and landing by file), source_row and the mapped."""

    rows: ir.Table
    block: int


# --- reading ----------------------------------------------------------------------------------------------------------


@contextmanager
def _in_file_order(reader: Reader) -> Iterator[None]:
    """Rows keep the order of their file inside, so that positions tell lines."""
    found = reader.connection.execute("SELECT current_setting('preserve_insertion_order')").fetchone()
    reader.connection.execute("SET preserve_insertion_order = true")
    yield
    # not after an error: a transaction that is broken takes no setting, and would tell of that instead of what went wrong
    if found and not found[0]:
        reader.connection.execute("SET preserve_insertion_order = false")


def _file_pieces(
    staging: Staging, days: Sequence[date], store: Store, source: str, block: SourceBlock, mapping: Mapping, number: int
) -> list[Piece]:
    files = files_of_window(store, source, block, days)
    if not files:
        return []
    folder = Path(tempfile.mkdtemp(prefix="landing-"))
    try:
        with ThreadPoolExecutor(max_workers=store.threads) as pool:
            made = list(pool.map(lambda pair: ready(pair[1], block, folder, pair[0]), enumerate(files)))
        pieces = []
        for header, group in _by_header(made, block):
            pieces += _read_group(staging, days, store, source, block, mapping, number, header, group)
        return pieces
    finally:
        shutil.rmtree(folder)


def _by_header(files: Sequence[Ready], block: SourceBlock) -> list[tuple[tuple[str, ...], list[Ready]]]:
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


def _csv_header(file: Ready, block: SourceBlock) -> tuple[str, ...]:
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


def _read_group(
    staging: Staging,
    days: Sequence[date],
    store: Store,
    source: str,
    block: SourceBlock,
    mapping: Mapping,
    number: int,
    header: tuple[str, ...],
    files: list[Ready],
) -> list[Piece]:
    """Files of one header: their good rows, and their lines that could not be read."""
    import ibis
    import ibis.expr.operations as ops

    view, rejects = staging.name("view"), (staging.name("rejects"), staging.name("scans"))
    listed = ", ".join(dict.fromkeys(file.file.name for file in files[:3])) + (", ..." if len(files) > 3 else "")
    try:
        landing, columns, carried = _view(staging, source, block, mapping, number, header, files, view, rejects)
        query, names = selection(mapping, source, columns, files[0].file.name, "landing", carried)
        types = {**{name: landing[name].type() for name in carried}, **dict.fromkeys(names, "string"), KEPT: "boolean"}
        # its columns are known; asking the engine for them takes longer than reading a small file
        mapped = ops.SQLStringView(parent=landing.alias("landing").op(), query=query, schema=ibis.schema(types)).to_expr()
        if block.format == "json":
            problem = (
                ibis.literal("expected a JSON object, found ") + mapped.landing_kind + ": " + mapped.landing_text.left(TEXT_LIMIT)
            )
            mapped = mapped.mutate(source_error=ibis.ifelse(mapped.landing_kind == "OBJECT", ibis.null("string"), problem))
            mapped = mapped.drop("landing_kind", "landing_text")
        if not block.is_dated:
            mapped = mapped.mutate(landed_date=landed_day(mapped, source, store, days[-1]))
        with _in_file_order(staging.reader):
            staged = staging.keep(mapped, "rows")
    except (duckdb.Error, ibis.IbisError) as error:
        raise SourceError(
            f"sources.{source}: files {listed} could not be read as store.yaml says: {_first_lines(error)} "
            "Expressions that may fail on a value need TRY_CAST or try_strptime."
        ) from error
    broken = None
    if block.format != "parquet":
        broken = _unread_lines(staging, rejects, files, block, number)
        _check_lines(staging.reader, landing, header, staged, files, broken, block)
    rows = _with_files(staging, staged, files, block, broken)
    rows = rows.filter(rows[KEPT])
    if not block.is_dated:
        rows = _landing_within(rows, days)
    pieces = [Piece(rows, number)]
    if broken is not None and broken.height:
        if not block.is_dated:
            broken = broken.with_columns(landed_date=pl.lit(store.first_day)).filter(pl.lit(store.first_day in days))
        if broken.height:
            pieces.append(Piece(_with_files(staging, staging.keep(broken, "broken"), files, block, None), number))
    return pieces


def _view(
    staging: Staging,
    source: str,
    block: SourceBlock,
    mapping: Mapping,
    number: int,
    header: tuple[str, ...],
    files: Sequence[Ready],
    view: str,
    rejects: tuple[str, str],
) -> tuple[ir.Table, Sequence[str], list[str]]:
    """Files as a table with landing_file and landing_hash; the columns expressions may use; the columns to carry along."""
    import ibis

    backend = staging.reader.ibis
    paths = [str(file.path) for file in files]
    carried = ["landing_file", "landing_hash"]
    if block.format == "parquet":
        landing = backend.read_parquet(paths, table_name=view, filename="landing_path", file_row_number=True)
        landing = landing.mutate(landing_line=landing.file_row_number + 1)
        own: Sequence[str] = header
        carried.append("landing_line")
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
    file_number = landing.landing_path.right(len(f"000000.{block.format}")).left(6).cast("int32")
    landing = landing.mutate(landing_file=file_number)
    columns = list(own)
    if block.format == "json":
        kind = json_kind(landing.landing_text)
        landing = landing.mutate(landing_kind=kind.fill_null("no valid JSON"))
        carried += ["landing_kind", "landing_text"]
    if block.unroll is not None:
        landing = _unrolled(landing, block, header, files[0].file.name)
        columns.append(SOURCE_ELEMENT)
        carried.append("landing_element")
    content = {name: landing[name] for name in [*own, *(["landing_element"] if block.unroll is not None else [])]}
    landing = landing.mutate(landing_hash=row_hash({"block": ibis.literal(number), **content}))
    if block.format == "json":
        keys = [*mapping.needs, *(INPUTS[source].columns if mapping.takes_same_names else ())]
        keys = [name for name in dict.fromkeys(keys) if name.lower() not in (SOURCE_LINE, SOURCE_ELEMENT)]
        is_object = landing.landing_kind == "OBJECT"
        line = ibis.ifelse(is_object, landing.landing_text, ibis.null("string"))
        landing = landing.mutate(**{SOURCE_LINE: line})
        if keys:
            values = ibis.ifelse(is_object, json_values(landing.landing_text, keys), ibis.null("array<string>"))
            landing = landing.mutate(landing_values=values)
            landing = landing.mutate(**{name: landing.landing_values[place] for place, name in enumerate(keys)})
        columns = [*keys, SOURCE_LINE, *columns[1:]]
    if mapping.uses(SOURCE_FILE):
        by_number = {int(file.path.name[:6]): file.file.name for file in files}
        listed = ibis.array([by_number.get(place, "") for place in range(max(by_number) + 1)])
        landing = landing.mutate(**{SOURCE_FILE: listed[landing.landing_file]})
    return landing, columns, carried


def _unrolled(landing: ir.Table, block: SourceBlock, header: Sequence[str], file_name: str) -> ir.Table:
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


def _check_lines(
    reader: Reader, landing: ir.Table, header: Sequence[str], staged: ir.Table, files: Sequence[Ready], broken: pl.DataFrame,
    block: SourceBlock,
) -> None:
    """Every line of every file was read or refused; raises SourceError where the engine lost one without a word."""
    lines = staged.filter(staged.landing_element == 0) if block.unroll is not None else staged
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
                f"refused, probably after a quote that is not closed (see line {min(places, default=0)}). Correct the file."
            )


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).split("\n")[:3])[:600]


def _unread_lines(staging: Staging, rejects: tuple[str, str], files: Sequence[Ready], block: SourceBlock, number: int) -> pl.DataFrame:
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


def _with_files(
    staging: Staging, staged: ir.Table, files: Sequence[Ready], block: SourceBlock, broken: pl.DataFrame | None
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
        if block.unroll is not None:  # elements of one list stand in one line
            before = ibis.window(group_by=joined.landing_file, order_by=joined.landing_position, following=0)
            place = (joined.landing_element == 0).cast("int64").sum().over(before) - 1
        joined = joined.mutate(place=place)
        line = joined.place + 1 + int(block.has_header_line)
        if broken is not None and broken.height:
            joined, line = _past_broken_lines(staging, joined, broken, block)
    joined = joined.mutate(source_row=line.cast("int64"))
    if block.is_dated:
        joined = joined.mutate(landed_date=joined.listed_date)
    if "source_error" not in joined.columns:
        joined = joined.mutate(source_error=ibis.null("string"))
    return joined


def _past_broken_lines(staging: Staging, rows: ir.Table, broken: pl.DataFrame, block: SourceBlock) -> tuple[ir.Table, Any]:
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


# --- inline rows ------------------------------------------------------------------------------------------------------


def _inline_pieces(
    staging: Staging, days: Sequence[date], store: Store, source: str, block: SourceBlock, number: int
) -> list[Piece]:
    known = INPUTS[source].columns
    assert block.rows is not None
    told: list[dict[str, Any]] = []
    for place, row in enumerate(block.rows, start=1):
        own = further_names(source, row, f"{store.path}: sources.{source}.rows, row {place}")
        told.append({**row, FURTHER: {name: row[name] for name in own}} if own else row)
    texts = [{name: _text(row.get(name)) for name in known} for row in told]
    frame = pl.DataFrame(texts, schema=dict.fromkeys(known, pl.String)).with_columns(
        source_row=pl.int_range(1, len(texts) + 1, dtype=pl.Int64),
        source_file=pl.lit(store.path.name),
        source_error=pl.lit(None, dtype=pl.String),
    )
    held = staging.keep(frame, "inline")
    rows = held.mutate(landing_hash=row_hash({"block": number, **{name: held[name] for name in known}}))
    landed = staging.keep(rows.mutate(landed_date=landed_day(rows, source, store, days[-1])), "rows")
    return [Piece(_landing_within(landed.mutate(landing_position=landed.rowid()), days), number)]


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else str(value)


# --- landed day and row ids -------------------------------------------------------------------------------------------


def landed_day(rows: ir.Table, source: str, store: Store, last: date) -> Any:
    """The landed day of rows without a dated file: see "Two dates" of docs/architecture.md."""
    import ibis

    column = INPUTS[source].landed_by
    first_day = ibis.literal(store.first_day, type="date")
    if column is None or column not in rows.columns:
        return first_day
    if INPUTS[source].columns[column] == "day":
        day = rows[column].try_cast("date")
    else:
        first, end = store.first_day - timedelta(days=2), last + timedelta(days=2)
        day = to_local(parse_instant(rows[column], store.timezone, first, end), store.timezone, first, end).date()
    inside = day >= first_day
    if store.last_day is not None:
        inside = inside & (day <= ibis.literal(store.last_day, type="date"))
    return ibis.ifelse(inside.fill_null(False), day, first_day)


def _landing_within(rows: ir.Table, days: Sequence[date]) -> ir.Table:
    import ibis

    return rows.filter(rows.landed_date.between(ibis.literal(days[0], type="date"), ibis.literal(days[-1], type="date")))


def _raw_rows(
    staging: Staging, pieces: Sequence[Piece], source: str, days: Sequence[date], store: Store
) -> ir.Table | pl.DataFrame:
    """The raw table: staged rows with their ids. Only rows that are not unique in their day are numbered by a sort."""
    import ibis

    columns = INPUTS[source].columns
    if not pieces:
        empty = pl.DataFrame(schema={column: pl.String for column in TABLES[f"raw_{source}"].columns})
        return empty.cast({"landed_date": pl.Date, "source_row": pl.Int64})
    parts = []
    for place, piece in enumerate(pieces):
        rows = piece.rows
        parts.append(
            rows.select(
                "landed_date",
                "landing_hash",
                "source_file",
                "source_row",
                "source_error",
                landing_block=ibis.literal(piece.block, type="int32"),
                landing_position=rows.landing_position + place * _PIECE,
                **{name: rows[name] if name in rows.columns else ibis.null("string") for name in columns},
            )
        )
    every = ibis.union(*parts) if len(parts) > 1 else parts[0]
    twins = every.group_by("landing_hash").having(every.count() > 1).agg(twins=every.count())
    twins = staging.keep(twins, "twins")
    number: Any = ibis.literal(1, type="int64")
    if rows_in(twins):
        copies = every.semi_join(twins, "landing_hash").select(
            "landed_date", "landing_hash", "landing_block", "source_file", "source_row", "source_error", "landing_position"
        )
        place_among = ibis.row_number().over(
            ibis.window(
                group_by=[copies.landed_date, copies.landing_hash],
                order_by=[copies.landing_block, copies.source_file, copies.source_row, copies.source_error],
            )
        )
        numbers = staging.keep(
            copies.select(copy="landing_position", landing_number=place_among + 1).filter(lambda t: t.landing_number > 1),
            "numbers",
        )
        every = every.left_join(numbers, every.landing_position == numbers["copy"])
        number = every.landing_number.fill_null(1)
    every = every.mutate(landing_number=number)
    return written(f"landed_{source}", None, every, lambda rows: _identified(rows, source))


def _identified(rows: ir.Table, source: str) -> ir.Table:
    """Landed rows with their ids, as columns of the raw table."""
    import ibis

    identity = row_hash({
        "source": ibis.literal(source), "day": rows.landed_date, "row": rows.landing_hash, "number": rows.landing_number
    })  # fmt: skip
    stand_in: Any = ibis.null("string")
    if (given := _ID.get(source)) is not None:
        is_missing = rows[given].isnull() | (rows[given] == "")
        stand_in = ibis.ifelse(is_missing, hexadecimal(rows.landing_hash), None)
    return rows.select(
        "landed_date",
        raw_row_id=hexadecimal(identity),
        source_file=rows.source_file,
        source_row=rows.source_row,
        row_hash=stand_in,
        source_error=rows.source_error,
        **{name: rows[name] for name in INPUTS[source].columns},
    )
