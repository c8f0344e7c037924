"""Fingerprints of what feeds a landed day.

What belongs here: telling whether the files of a day changed. Their content decides; size and time only tell whether it
has to be read again.
"""

from __future__ import annotations

import functools
import hashlib
import json
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from marketing_assets.config import Store
from marketing_assets.sources.files import files_of_day, source_blocks, undated_files
from marketing_assets.warehouse import digest, reader_over

_YEAR = 366


def file_fingerprint(store: Store, source: str, day: date) -> str:
    """A digest of the mapping of an input and of the content of what lands of it on `day`.

    Of dated files their bytes count, of undated ones and inline rows the mapped rows that land on that day, so that rows
    appended to a file change the days they are of and no other. A missing file has a fingerprint, too.
    """
    parts: list[object] = [source, _mapping_digest(store, source)]
    for block in source_blocks(store, source):
        for layout in (block, *block.join.values()) if block.is_dated else ():
            for file in files_of_day(store, layout, day):
                stat = file.path.stat()
                parts += [file.name, _content(str(file.path), stat.st_size, stat.st_mtime_ns)]
    if any(not block.is_dated for block in source_blocks(store, source)):
        parts.append(_undated(store, source, _year_of(store, day)).get(day, "none"))
    return digest(*parts)


@functools.lru_cache(maxsize=100_000)
def _content(path: str, size: int, modified: int) -> str:
    """Digest of a file's bytes; size and modified only key the cache."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _mapping_digest(store: Store, source: str) -> str:
    blocks = [block.model_dump(mode="json") for block in source_blocks(store, source)]
    for block in blocks:
        block["files"] = None if block["files"] is None else Path(block["files"]).name
        block["rows"] = None
        for joined in block["join"].values():
            joined["files"] = Path(joined["files"]).name
        for later in ("unroll", "join", "skip_lines"):
            if not block[later]:  # as before there was such a key: older warehouses stay as they are
                del block[later]
    return digest(json.dumps(blocks, sort_keys=True), store.timezone)


def _year_of(store: Store, day: date) -> date:
    """The end of the year, counted from first_day, that `day` lies in; last_day where that comes before.

    A shop that goes on has no last day, and a zone's changes of clock up to the end of all days would make queries of
    gigabytes: their size grows with the square of the changes.
    """
    end = store.first_day + timedelta(days=_YEAR * ((day - store.first_day).days // _YEAR + 1) - 1)
    return end if store.last_day is None else min(end, store.last_day)


def _undated(store: Store, source: str, last: date) -> dict[date, str]:
    """Landed day up to `last` -> digest of the mapped rows of undated files and inline rows."""
    stats = []
    for block in source_blocks(store, source):
        for layout in (block, *block.join.values()) if block.rows is None and not block.is_dated else ():
            for file in undated_files(store, layout):
                stat = file.path.stat()
                stats.append((str(file.path), stat.st_size, stat.st_mtime_ns))
    return _landed_content(store.model_dump_json(include={"sources"}), tuple(stats), _Held(store), source, last)


class _Held:
    """Carries the store past the cache, whose key already holds all of it that matters."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __hash__(self) -> int:
        return hash((str(self.store.path), self.store.timezone, self.store.first_day, self.store.last_day))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and hash(self) == hash(other)


@functools.lru_cache(maxsize=256)
def _landed_content(
    sources: str, files: tuple[tuple[str, int, int], ...], held: _Held, source: str, last: date
) -> dict[date, str]:
    from marketing_assets.sources.engine import Staging
    from marketing_assets.sources.landing import landed_rows

    store = held.store
    undated = [block for block in source_blocks(store, source) if not block.is_dated]
    alone = store.model_copy(update={"sources": {**store.sources, source: undated}})
    # every landed day of the file at once: the window spans all days up to `last`
    reader = reader_over({}, alone, last)
    days = [store.first_day + timedelta(days=offset) for offset in range((last - store.first_day).days + 1)]
    rows = landed_rows(Staging(reader, f"landing_{source}"), days, alone, source)
    if isinstance(rows, pl.DataFrame):  # no rows at all
        return {}
    counted = rows.group_by("landed_date").agg(count=rows.count(), ids=rows.raw_row_id.hash().bit_xor())
    reader_rows = counted.to_polars().rows()
    reader.connection.close()
    return {day: digest(*values) for day, *values in reader_rows}
