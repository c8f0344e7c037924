"""Landing files made ready for the engine: unpacked, in UTF-8, an object a line, without monstrous lines.

What belongs here: bytes. The engine reads a compressed CSV on one core without noticing that it is cut short, and drops
a line longer than its buffer without a word; both are caught here, while unpacking.
"""

from __future__ import annotations

import codecs
import itertools
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from marketing_assets.config import FileLayout
from marketing_assets.sources.errors import SourceError
from marketing_assets.sources.files import LandingFile

MAX_LINE_BYTES = 2_000_000
_CHUNK = 1 << 20


@dataclass
class Ready:
    """A file the engine can read. path: the link or copy it reads. first_line: its first line, without line end.

    long_lines: (line number, its length in bytes, its beginning) of lines left out of the copy.
    """

    file: LandingFile
    path: Path
    first_line: bytes = b""
    lines: int = 0
    long_lines: list[tuple[int, int, str]] = field(default_factory=list)


def ready(file: LandingFile, block: FileLayout, folder: Path, number: int) -> Ready:
    """Make one file ready under a name that starts with its number.

    Raises SourceError for a file that is empty, cut short, damaged, unreadable or in another encoding than the block says.
    """
    suffixes = file.path.suffixes
    target = folder / f"{number:06d}.{block.format}"
    if file.path.stat().st_size == 0:
        raise SourceError(
            f"{file.name}: the file is empty (0 bytes). A day without rows is a file with its header only, "
            "or no file and 'missing_file: empty'. Deliver it again."
        )
    if block.format == "parquet":
        _check_parquet(file)
        target.symlink_to(file.path.resolve())
        return Ready(file, target)
    packed = suffixes[-1] if suffixes and suffixes[-1] in (".gz", ".zst") else ""
    pieces = _unpacked(file, packed)
    if block.encoding != "utf-8":
        pieces = _decoded(pieces, file, block.encoding)
    start = next(pieces, b"")
    pieces = itertools.chain([start], pieces)
    is_array = block.format == "json" and start.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"["
    if is_array:
        pieces = _lines_of_array(b"".join(pieces), file)
    if block.skip_lines:
        pieces = _below(pieces, block.skip_lines)
    if packed or block.encoding != "utf-8" or is_array or block.skip_lines:
        result = _copy(pieces, file, target)
    else:
        result = _scan(pieces, file)
        if result.long_lines:
            result = _copy(_unpacked(file, ""), file, target)
        else:
            target.symlink_to(file.path.resolve())
    result.path = target
    if b"\x00" in result.first_line:
        raise SourceError(f"{file.name}: the first line holds zero bytes; if the file is in UTF-16, set 'encoding: utf-16'")
    return result


def _check_parquet(file: LandingFile) -> None:
    with open(file.path, "rb") as stream:
        head = stream.read(4)
        stream.seek(max(file.path.stat().st_size - 4, 0))
        if head != b"PAR1" or stream.read(4) != b"PAR1":
            raise SourceError(
                f"{file.name}: no parquet file, or cut short (its marks at start and end are missing). Deliver it again."
            )


def _unpacked(file: LandingFile, packed: str) -> Iterator[bytes]:
    if packed == ".gz":
        yield from _gunzipped(file)
    elif packed == ".zst":
        import pyarrow

        try:
            with pyarrow.input_stream(str(file.path), compression="zstd") as stream:
                while piece := stream.read(_CHUNK):
                    yield piece
        except (OSError, pyarrow.ArrowException) as error:
            raise SourceError(f"{file.name}: damaged or cut short: {error}. Deliver it again.") from error
    else:
        with open(file.path, "rb") as plain:
            while piece := plain.read(_CHUNK):
                yield piece


def _gunzipped(file: LandingFile) -> Iterator[bytes]:
    """The content of a gzip file of one or more members, lengths and checksums verified."""
    inflate = zlib.decompressobj(31)
    with open(file.path, "rb") as stream:
        try:
            while data := stream.read(_CHUNK):
                while data:
                    if inflate.eof:
                        inflate = zlib.decompressobj(31)
                    piece = inflate.decompress(data, 4 * _CHUNK)
                    data = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
                    if piece:
                        yield piece
                    elif not inflate.eof and not data:
                        break
        except zlib.error as error:
            raise SourceError(f"{file.name}: damaged gzip: {error}. Deliver it again.") from error
    if not inflate.eof:
        raise SourceError(f"{file.name}: gzip is cut short (its end mark is missing). Deliver it again.")


def _decoded(pieces: Iterator[bytes], file: LandingFile, encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for piece in pieces:
            yield decoder.decode(piece).encode("utf-8")
        yield decoder.decode(b"", final=True).encode("utf-8")
    except (UnicodeDecodeError, UnicodeError) as error:
        raise SourceError(f"{file.name}: not in {encoding}, as 'encoding' says: {error}") from error


def _below(pieces: Iterator[bytes], lines: int) -> Iterator[bytes]:
    """What stands below so many lines."""
    for piece in pieces:
        while lines and piece:
            end = piece.find(b"\n") + 1
            lines, piece = (lines - 1, piece[end:]) if end else (lines, b"")
        if piece:
            yield piece


def elements_of(text: str) -> Iterator[str]:
    """The elements of a JSON array, each on a line of its own, as they are written. Raises JSONDecodeError where it is broken or cut short."""
    decoder = json.JSONDecoder()
    place = _past_space(text, text.index("[") + 1)
    while text[place : place + 1] != "]":
        _, end = decoder.raw_decode(text, place)
        # within its texts an array holds no line ends
        yield text[place:end].replace("\r", " ").replace("\n", " ")
        place = _past_space(text, end)
        if text[place : place + 1] == ",":
            place = _past_space(text, place + 1)
        elif text[place : place + 1] != "]":
            raise json.JSONDecodeError("expected a comma or the end of the array", text, place)
    if (rest := _past_space(text, place + 1)) < len(text):
        raise json.JSONDecodeError("more behind the end of the array", text, rest)


def _past_space(text: str, place: int) -> int:
    while text[place : place + 1] in (" ", "\n", "\r", "\t"):
        place += 1
    return place


def _lines_of_array(content: bytes, file: LandingFile) -> Iterator[bytes]:
    """The elements of a file that is one array, a line each; the file as it is where each line is an array of its own."""
    text = content.decode("utf-8", "surrogateescape")
    try:
        lines = list(elements_of(text))
    except json.JSONDecodeError as error:
        first = text.split("\n", 1)[0]
        try:
            json.loads(first)
        except json.JSONDecodeError:
            raise SourceError(
                f"{file.name}: a JSON array that is broken or cut short at line {error.lineno}, character {error.colno}: {error.msg}. "
                "Deliver it again."
            ) from error
        yield content
        return
    for line in lines:
        yield f"{line}\n".encode("utf-8", "surrogateescape")


def _scan(pieces: Iterator[bytes], file: LandingFile) -> Ready:
    """Count lines and look for monstrous ones without copying."""
    result = Ready(file, file.path)
    first: list[bytes] = []
    since_end = 0
    last = b""
    for piece in pieces:
        if result.lines == 0:
            first.append(piece[: MAX_LINE_BYTES + 1])
        count = piece.count(b"\n")
        if count == 0:
            since_end += len(piece)
        else:
            since_end += piece.find(b"\n")
        if since_end > MAX_LINE_BYTES:
            result.long_lines.append((0, since_end, ""))
            return result
        if count:
            since_end = len(piece) - piece.rfind(b"\n") - 1
        result.lines += count
        last = piece
    result.lines += not last.endswith(b"\n")
    result.first_line = _first_line(b"".join(first))
    return result


def _copy(pieces: Iterator[bytes], file: LandingFile, target: Path) -> Ready:
    """Write the pieces, leaving out lines longer than MAX_LINE_BYTES."""
    result = Ready(file, target)
    first: list[bytes] = []
    held = b""  # the unfinished line at the end of what was read
    swallowed = 0  # bytes of a monstrous line already dropped
    with open(target, "wb") as out:
        for piece in pieces:
            cut = piece.rfind(b"\n") + 1
            if swallowed:
                end = piece.find(b"\n") + 1
                if not end:
                    swallowed += len(piece)
                    continue
                number, _, start = result.long_lines[-1]
                result.long_lines[-1] = (number, swallowed + end - 1, start)
                result.lines += 1
                swallowed = 0
                piece, cut = piece[end:], cut - end
            if not cut:
                held += piece
            else:
                whole, held = held + piece[:cut], piece[cut:]
                if result.lines == 0:
                    first.append(whole)
                result.lines += whole.count(b"\n")
                out.write(whole)
            if len(held) > MAX_LINE_BYTES:
                result.long_lines.append((result.lines + 1, 0, held[:200].decode("utf-8", "replace")))
                swallowed, held = len(held), b""
        if swallowed:
            number, _, start = result.long_lines[-1]
            result.long_lines[-1] = (number, swallowed, start)
            result.lines += 1
        if held:
            if result.lines == 0:
                first.append(held)
            out.write(held)
            result.lines += 1
    result.first_line = _first_line(b"".join(first))
    return result


def _first_line(start: bytes) -> bytes:
    return start.removeprefix(codecs.BOM_UTF8).split(b"\n", 1)[0].rstrip(b"\r")
