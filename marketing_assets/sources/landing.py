"""One input's landing files of a window -> its raw table.

What belongs here: reading, landed day, row ids. A row that cannot be read becomes a raw row with `source_error` and its
text, so that every line of a file is somewhere.
"""

from __future__ import annotations

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
from marketing_assets.config import FileLayout, SourceBlock, Store
from marketing_assets.privacy.marks import check_retained
from marketing_assets.privacy.people import without_erased
from marketing_assets.schemas import FURTHER, INPUTS, TABLES
from marketing_assets.sources.engine import Staging, hexadecimal, row_hash, rows_in
from marketing_assets.sources.errors import SourceError
from marketing_assets.sources.files import LandingFile, files_of_window, source_blocks
from marketing_assets.sources.instants import parse_instant, to_local
from marketing_assets.sources.joined import Beside, hash_of, rows_beside, stand_beside
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
from marketing_assets.sources.reading import (
    Opened,
    by_header,
    first_lines,
    in_file_order,
    not_an_object,
    opened,
    refused_lines,
    unrolled,
    with_files,
    with_keys,
)
from marketing_assets.sources.unpacking import Ready, ready
from marketing_assets.warehouse import Built

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from marketing_assets.warehouse import Reader

_PIECE = 1 << 40
"""Positions of the rows of one piece start at a multiple of this."""
_ID = {"events": "event_id", "impressions": "impression_id"}
"""Inputs whose rows need an id, and the column that may give it."""


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


def _file_pieces(
    staging: Staging, days: Sequence[date], store: Store, source: str, block: SourceBlock, mapping: Mapping, number: int
) -> list[Piece]:
    import ibis

    files = files_of_window(store, source, block, days)
    if not files:
        return []
    folder = Path(tempfile.mkdtemp(prefix="landing-"))
    try:
        made = _ready(files, block, folder, store)
        beside: dict[str, Beside] = {}
        for name, joined in block.join.items():
            within = folder / name
            within.mkdir()
            listed = _ready(files_of_window(store, source, joined, days), joined, within, store)
            with _told(source, listed):
                beside[name] = rows_beside(staging, source, name, joined, mapping.joins[name][1], listed, number)
        pieces = []
        for header, group in by_header(made, block):
            pieces += _read_group(staging, days, store, source, block, mapping, number, header, group, beside)
        for broken in (rows for one in beside.values() for rows in one.broken):
            # as those of the block itself: where nothing says of which day a line is, it lands on the first
            rows = broken if block.is_dated else broken.mutate(landed_date=ibis.literal(store.first_day, type="date"))
            pieces.append(Piece(_landing_within(rows, days), number))
        return pieces
    finally:
        shutil.rmtree(folder)


def _ready(files: Sequence[LandingFile], block: FileLayout, folder: Path, store: Store) -> list[Ready]:
    with ThreadPoolExecutor(max_workers=store.threads) as pool:
        return list(pool.map(lambda pair: ready(pair[1], block, folder, pair[0]), enumerate(files)))


@contextmanager
def _told(source: str, files: Sequence[Ready]) -> Iterator[None]:
    """What the engine says of files, with their names and what to do."""
    import ibis

    listed = ", ".join(dict.fromkeys(file.file.name for file in files[:3])) + (", ..." if len(files) > 3 else "")
    try:
        yield
    except (duckdb.Error, ibis.IbisError) as error:
        raise SourceError(
            f"sources.{source}: files {listed} could not be read as store.yaml says: {first_lines(error)} "
            "Expressions that may fail on a value need TRY_CAST or try_strptime."
        ) from error


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
    beside: dict[str, Beside],
) -> list[Piece]:
    """Files of one header: their good rows, and their lines that could not be read."""
    import ibis
    import ibis.expr.operations as ops

    with _told(source, files):
        found = opened(staging, block, header, files)
        landing, columns, carried = _view(staging, source, block, mapping, number, found, files, beside)
        query, names = selection(mapping, source, columns, files[0].file.name, "landing", carried)
        types = {**{name: landing[name].type() for name in carried}, **dict.fromkeys(names, "string"), KEPT: "boolean"}
        # its columns are known; asking the engine for them takes longer than reading a small file
        mapped = ops.SQLStringView(parent=landing.alias("landing").op(), query=query, schema=ibis.schema(types)).to_expr()
        if block.format == "json":
            mapped = mapped.mutate(source_error=not_an_object(mapped)).drop("landing_kind", "landing_text")
        if not block.is_dated:
            mapped = mapped.mutate(landed_date=landed_day(mapped, source, store, days[-1]))
        with in_file_order(staging.reader):
            staged = staging.keep(mapped, "rows")
    broken = refused_lines(staging, found, staged, files, block)
    rows = with_files(staging, staged, files, block, broken)
    rows = rows.filter(rows[KEPT])
    if not block.is_dated:
        rows = _landing_within(rows, days)
    pieces = [Piece(rows, number)]
    if broken is not None:
        if not block.is_dated:
            broken = broken.with_columns(landed_date=pl.lit(store.first_day)).filter(pl.lit(store.first_day in days))
        if broken.height:
            pieces.append(Piece(with_files(staging, staging.keep(broken, "broken"), files, block, None), number))
    return pieces


def _view(
    staging: Staging,
    source: str,
    block: SourceBlock,
    mapping: Mapping,
    number: int,
    found: Opened,
    files: Sequence[Ready],
    beside: dict[str, Beside],
) -> tuple[ir.Table, list[str], list[str]]:
    """Files with their landing_hash; the columns expressions may use; the columns to carry along."""
    import ibis

    landing, columns = found.rows, list(found.own)
    carried = ["landing_file", "landing_hash"]
    content = list(found.own)
    if block.format == "parquet":
        carried.append("landing_line")
    if block.unroll is not None:
        landing = unrolled(landing, block, found.own, files[0].file.name)
        columns.append(SOURCE_ELEMENT)
        carried.append("landing_element")
        content.append("landing_element")
    if block.format == "json":
        keys = [*mapping.needs, *(INPUTS[source].columns if mapping.takes_same_names else ())]
        keys = [name for name in dict.fromkeys(keys) if name.lower() not in (SOURCE_LINE, SOURCE_ELEMENT)]
        landing = with_keys(landing, keys)
        columns = [*keys, SOURCE_LINE, *columns[1:]]
        carried += ["landing_kind", "landing_text"]
    if mapping.uses(SOURCE_FILE):
        by_number = {int(file.path.name[:6]): file.file.name for file in files}
        listed = ibis.array([by_number.get(place, "") for place in range(max(by_number) + 1)])
        landing = landing.mutate(**{SOURCE_FILE: listed[landing.landing_file]})
    if mapping.joins:
        landing = stand_beside(staging, landing, columns, mapping, beside, files, source)
        columns += mapping.joins
        content += map(hash_of, mapping.joins)
        carried.append("landing_position")
    landing = landing.mutate(landing_hash=row_hash({"block": ibis.literal(number), **{name: landing[name] for name in content}}))
    return landing, columns, carried


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
