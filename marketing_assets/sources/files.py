"""Which landing files there are.

What belongs here: patterns, days, paths, and splitting a window into pieces of a size that fits in memory. What does not:
what is in the files.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from marketing_assets.config import DAY_PARTS, FileLayout, SourceBlock, Store
from marketing_assets.schemas import INPUTS
from marketing_assets.sources.errors import SourceError

_PARTS = {"{yyyy}": (r"\d{4}", "????"), "{mm}": (r"\d{2}", "??"), "{dd}": (r"\d{2}", "??")}
"""Part of the landing day in a pattern -> as a regular expression, and as a wildcard."""
_WILD = re.compile(r"[*?\[]")
CHUNK_BYTES = 192 * 2**20
"""Landing bytes read at once, uncompressed as far as the name tells; see `chunks`."""


@dataclass(frozen=True)
class LandingFile:
    """A file of a block. day: its landing day by name, None for undated blocks. name: how people are told of it."""

    path: Path
    name: str
    day: date | None


def source_blocks(store: Store, source: str) -> list[SourceBlock]:
    """The blocks of an input. Raises SourceError for an input nobody knows."""
    if source not in INPUTS:
        raise SourceError(f"{store.path}: sources.{source}: no such input; known are {', '.join(INPUTS)}")
    return store.blocks(source)


def pattern_of(store: Store, block: FileLayout) -> str:
    """The block's file pattern as an absolute path, {date} written as its parts."""
    assert block.files is not None
    files = block.files.replace("{date}", "-".join(DAY_PARTS))
    return files if Path(files).is_absolute() else str(store.data_folder / files)


def _name(store: Store, path: Path) -> str:
    for root in (store.data_folder, store.folder):
        if path.is_relative_to(root):
            return str(path.relative_to(root))
    return str(path)


def files_of_day(store: Store, block: FileLayout, day: date) -> list[LandingFile]:
    """The files of a dated block that land on `day`, sorted by path."""
    pattern = pattern_of(store, block)
    for part, text in zip(DAY_PARTS, day.isoformat().split("-"), strict=True):
        pattern = pattern.replace(part, text)
    paths = [Path(found) for found in sorted(glob.glob(pattern))] if _WILD.search(pattern) else [Path(pattern)]
    return [LandingFile(path, _name(store, path), day) for path in paths if path.is_file()]


def undated_files(store: Store, block: FileLayout) -> list[LandingFile]:
    """The files of a block that names no landing day, sorted by path."""
    pattern = pattern_of(store, block)
    paths = [Path(found) for found in sorted(glob.glob(pattern))] if _WILD.search(pattern) else [Path(pattern)]
    return [LandingFile(path, _name(store, path), None) for path in paths if path.is_file()]


def files_of_window(store: Store, source: str, block: FileLayout, days: Sequence[date]) -> list[LandingFile]:
    """The files a window reads. Raises SourceError for a missing one where the block says 'error'."""
    if block.is_dated:
        by_day = {day: files_of_day(store, block, day) for day in days}
        missing = [day for day, found in by_day.items() if not found]
        if missing and block.missing_file == "error":
            raise SourceError(
                f"sources.{source}: {len(missing)} of {len(days)} days have no file {block.files}, such as "
                f"{', '.join(map(str, missing[:5]))} (looked in {store.data_folder}). "
                "Deliver the file, or set 'missing_file: empty' if such days are normal."
            )
        return [file for found in by_day.values() for file in found]
    found = undated_files(store, block)
    if not found and block.missing_file == "error":
        raise SourceError(
            f"sources.{source}: no file {block.files} in {store.data_folder}. Deliver it, correct 'data_root' or 'files', "
            "or set 'missing_file: empty'."
        )
    return found


def landing_days(store: Store) -> dict[str, list[date]]:
    """Input table -> days for which dated files lie there, sorted; [] for inputs whose files name none."""
    return {source: _days_of(store, source) for source in INPUTS if store.blocks(source)}


def _days_of(store: Store, source: str) -> list[date]:
    days: set[date] = set()
    for block in source_blocks(store, source):
        if not block.is_dated:
            continue
        pattern = pattern_of(store, block)
        expression = re.compile(_regular(pattern))
        wild = pattern
        for part, (_, sign) in _PARTS.items():
            wild = wild.replace(part, sign)
        for found in glob.glob(wild):
            match = expression.fullmatch(found)
            if match:
                try:
                    days.add(date(int(match["yyyy"]), int(match["mm"]), int(match["dd"])))
                except ValueError:
                    continue  # 2011-02-31 and the like name no day
    return sorted(days)


def _regular(pattern: str) -> str:
    """A regular expression of the paths a pattern means, with the parts of the landing day as groups."""
    pieces: list[str] = []
    for piece in re.split("(" + "|".join(map(re.escape, _PARTS)) + ")", pattern):
        if piece in _PARTS:
            name = piece.strip("{}")
            pieces.append(f"(?P={name})" if f"(?P<{name}>" in "".join(pieces) else f"(?P<{name}>{_PARTS[piece][0]})")
        else:
            pieces.append(re.escape(piece).replace(r"\*", "[^/]*").replace(r"\?", "[^/]"))
    return "".join(pieces)


def chunks(store: Store, source: str, days: Sequence[date], most_bytes: int = CHUNK_BYTES) -> list[list[date]]:
    """A window split into runs of days whose landing files hold about `most_bytes`, so that each fits in memory.

    Range = days makes any split give the same rows. A window with undated files is left whole: they are read once.
    """
    blocks = source_blocks(store, source)
    if any(block.files is not None and not block.is_dated for block in blocks):
        return [list(days)]
    pieces: list[list[date]] = []
    size = most_bytes
    for day in days:
        landing = 0
        for block in blocks:
            for layout in (block, *block.join.values()) if block.files is not None else ():
                for file in files_of_day(store, layout, day):
                    packed = file.path.suffix in (".gz", ".zst", ".parquet")
                    landing += file.path.stat().st_size * (6 if packed else 1)
        if not pieces or size + landing > most_bytes:
            pieces.append([])
            size = 0
        pieces[-1].append(day)
        size += landing
    return pieces
