"""What lies in a folder: files that belong together, how they are written, their columns and some of their rows.

What belongs here: names, delimiters, encodings, headers and the first rows of files. What does not: reading whole files
(sources/), or what columns mean (columns.py).
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import dataclasses
import gzip
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

from marketing_assets.config import DAY_PARTS, is_dated
from marketing_assets.onboarding import names
from marketing_assets.onboarding.nested import Nested, literal, nested_rows, quoted
from marketing_assets.onboarding.values import Profile, profile_of

HEAD_BYTES = 2_000_000
"""Of a file, so much is looked at, unpacked."""
SAMPLE_ROWS = 10_000
SAMPLE_FILES = 6
"""Files of a set that are looked into, spread over its days."""
_DATA = (".csv", ".tsv", ".txt", ".tab", ".json", ".jsonl", ".ndjson", ".parquet", ".pq")
_MOST_ABOVE = 20
"""Lines among which a header is sought."""
_JSON = (".json", ".jsonl", ".ndjson")
_PACKED = (".gz", ".zst")
_OURS = ("store.yaml", "ledger.parquet", "verdict.json", "warehouse.duckdb")
_OUR_FOLDERS = ("reports", "exports", "control", "dagster", "truth", "state")
_UNREADABLE = {
    ".xlsx": "a spreadsheet: save its sheets as CSV",
    ".xls": "a spreadsheet: save its sheets as CSV",
    ".zip": "an archive: unpack it, or pack each file with gzip",
    ".7z": "an archive: unpack it",
    ".bz2": "packed with bzip2: pack it with gzip instead",
    ".sql": "a database dump: export its tables as CSV",
    ".feather": "Feather: save it as parquet",
    ".avro": "Avro: save it as parquet or JSON lines",
    ".orc": "ORC: save it as parquet",
    ".xml": "XML: export CSV or JSON lines",
}
_DAY = re.compile(r"(?<!\d)\d{4}-\d{2}-\d{2}(?!\d)")
_PARTS_OF_DAY = re.compile(
    r"(?<!\d)(?P<yyyy>(?:19|20)\d{2})(?P<a>[_./]?|/(?:month|mm?)=)(?P<mm>0[1-9]|1[0-2])(?P<b>[_./]?|/(?:day|dd?)=)(?P<dd>0[1-9]|[12]\d|3[01])(?!\d)"
)


class UnreadableFile(Exception):
    """A file that cannot be an input as it is; the message says why and what to do."""


@dataclass(frozen=True)
class Column:
    """A column of a file set. expression: how store.yaml names it. profile: what its values look like. is_element: of a line, where
    others are of all lines together."""

    name: str
    expression: str
    profile: Profile
    is_element: bool = False


@dataclass(frozen=True)
class Joined:
    """Files whose rows stand beside another set's. by, key: expressions over the columns of that one, and of these."""

    name: str
    files: FileSet
    by: str
    key: str


@dataclass(frozen=True)
class FileSet:
    """Files of one layout. pattern: relative to the folder, {date} and * put in. days: landing days in the names, sorted. unroll: a list
    in each row whose elements are rows. joined: files with what holds for several rows, such as orders beside their lines. skip_lines: lines
    above the header. sums: column and first word of rows that add up the others."""

    pattern: str
    files: tuple[Path, ...]
    days: tuple[date, ...]
    format: Literal["csv", "json", "parquet"]
    delimiter: str
    encoding: Literal["utf-8", "latin-1", "utf-16"]
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    unroll: str | None = None
    joined: tuple[Joined, ...] = ()
    skip_lines: int = 0
    sums: tuple[tuple[str, str], ...] = ()

    @property
    def has_lines(self) -> bool:
        """Whether some columns are of a line, and others of all lines together."""
        return self.unroll is not None or any(column.is_element for column in self.columns)

    @property
    def is_dated(self) -> bool:
        return is_dated(self.pattern)

    @property
    def lines(self) -> FileSet:
        """Without the columns that are of all lines together."""
        if not self.has_lines:
            return self
        return dataclasses.replace(self, columns=tuple(column for column in self.columns if column.is_element))

    def says(self, words: frozenset[str]) -> bool:
        """Whether its files' name says one of the words."""
        return not words.isdisjoint(re.split(r"[^a-z]+", self.pattern.lower()))

    def as_one(self, note: str) -> FileSet:
        """Without landing days in the name."""
        pattern = self.pattern
        for part in ("{date}", *DAY_PARTS):
            pattern = pattern.replace(part, "*")
        joined = tuple(dataclasses.replace(one, files=one.files.as_one(note)) for one in self.joined)
        return dataclasses.replace(self, pattern=pattern, days=(), notes=(*self.notes, note), joined=joined)

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)


@dataclass
class Folder:
    """sets: what can be an input. unused: file -> why it is none."""

    sets: list[FileSet] = field(default_factory=list)
    unused: dict[str, str] = field(default_factory=dict)


def look_into(folder: Path) -> Folder:
    """The file sets of a folder and its folders. Raises FileNotFoundError where there is no such folder."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    result = Folder()
    groups: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if not path.is_file() or any(part.startswith(".") for part in relative.parts) or _is_ours(folder, relative):
            continue
        suffix = _suffix(path)
        if suffix in _DATA:
            groups.setdefault(_template(relative), []).append(path)
        elif suffix in _UNREADABLE:
            result.unused[str(relative)] = _UNREADABLE[suffix]
    for template, files in sorted(groups.items()):
        pattern = template
        if not is_dated(template) and len(files) == 1:
            pattern = str(files[0].relative_to(folder))
        try:
            result.sets += _sets(folder, pattern, files)
        except UnreadableFile as problem:
            result.unused[pattern] = str(problem)
    return result


def _is_ours(folder: Path, relative: Path) -> bool:
    """What the engine itself wrote beside a store.yaml."""
    beside = folder / relative.parts[0] if len(relative.parts) > 1 else None
    if beside is not None and relative.parts[0] in _OUR_FOLDERS:
        return (folder / "store.yaml").exists() or (folder / "warehouse.duckdb").exists()
    return relative.name.startswith(_OURS) and len(relative.parts) == 1


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _template(relative: Path) -> str:
    """'events/2026-03-01_part-0001.csv' -> 'events/{date}_part-*.csv', 'ga_20260301.json' -> 'ga_{yyyy}{mm}{dd}.json'."""
    text = str(relative)
    found = _day_in(text)
    if found is not None:
        _, (start, end), written = found
        text = text.replace(text[start:end], written)
    return re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}|(?<![A-Za-z])\d{2,}(?![A-Za-z])|(?<=[-_])\d+", "*", text)


def _day_in(text: str) -> tuple[date, tuple[int, int], str] | None:
    """(day, where it stands, how a pattern writes it) of the last day a path names; None where it names none."""
    for expression in (_DAY, _PARTS_OF_DAY):
        for match in reversed(list(expression.finditer(text))):
            parts = match.groupdict()
            with contextlib.suppress(ValueError):
                if not parts:
                    return date.fromisoformat(match[0]), match.span(), "{date}"
                day = date(int(parts["yyyy"]), int(parts["mm"]), int(parts["dd"]))
                return day, match.span(), f"{{yyyy}}{parts['a']}{{mm}}{parts['b']}{{dd}}"
    return None


def _sets(folder: Path, pattern: str, files: Sequence[Path]) -> list[FileSet]:
    """The set of a pattern; where files in it have nothing in common, it cannot be one."""
    chosen = (
        list(files)
        if len(files) <= SAMPLE_FILES
        else [files[place * (len(files) - 1) // (SAMPLE_FILES - 1)] for place in range(SAMPLE_FILES)]
    )
    looks = [_look(path) for path in chosen]
    first = looks[0]
    common = set(first.columns_by_name)
    for look in looks[1:]:
        common &= set(look.columns_by_name)
    if not common:
        if len(files) == 1:
            raise UnreadableFile("no column has a name")
        if len(files) > SAMPLE_FILES or is_dated(pattern):
            raise UnreadableFile("files of this name have no column in common: put different exports into different folders")
        return [one for path in files for one in _sets(folder, str(path.relative_to(folder)), [path])]
    by_file = [look.rows[: SAMPLE_ROWS // len(looks) + 1] for look in looks]
    rows = [row for own in by_file for row in own]
    if not rows:
        raise UnreadableFile("a header without rows")
    listed = list(dict.fromkeys(name for look in looks for name in look.columns_by_name))
    notes = [note for look in looks for note in look.notes]
    if first.format == "json":  # a key that an object lacks is null
        listed = [name for name in listed if not any(other.startswith(f"{name}.") for other in listed)]
    elif absent := [name for name in listed if name not in common]:
        # a mapping may only name what every file has
        notes.append(f"not in every file, so not used: {', '.join(absent)}")
        listed = [name for name in listed if name in common]
    expressions = {name: text for look in reversed(looks) for name, text in look.columns_by_name.items()}
    elements = frozenset(name for look in looks for name in look.elements)
    columns = [_column(name, expressions[name], [[row.get(name) for row in own] for own in by_file], name in elements) for name in listed]
    named = (_day_in(str(path.relative_to(folder))) for path in files)
    days = sorted({found[0] for found in named if found is not None}) if is_dated(pattern) else []
    encodings = Counter(look.encoding for look in looks)
    encoding = "latin-1" if "latin-1" in encodings else first.encoding
    return [
        FileSet(
            pattern,
            tuple(files),
            tuple(days),
            first.format,
            first.delimiter,
            encoding,
            tuple(columns),
            tuple(rows),
            tuple(dict.fromkeys(notes)),
            next((look.unroll for look in looks if look.unroll is not None), None),
            skip_lines=first.skip_lines,
            sums=tuple(dict.fromkeys(one for look in looks for one in look.sums if one[0] in listed)),
        )
    ]


def _column(name: str, expression: str, by_file: Sequence[Sequence[Any]], is_element: bool) -> Column:
    profile = profile_of([value for values in by_file for value in values])
    is_key = profile.is_unique or (len(by_file) > 1 and all(profile_of(values).is_unique for values in by_file))
    profile = dataclasses.replace(profile, is_key=is_key)
    for word in () if profile.is_temporal else profile.nothing:
        expression = f"nullif({expression}, {literal(word)})"
    return Column(name, expression, profile, is_element)


@dataclass(frozen=True)
class _Look:
    """One file's layout and first rows. columns_by_name: name -> its expression. elements: names of those of the list `unroll`."""

    format: Literal["csv", "json", "parquet"]
    columns_by_name: Mapping[str, str]
    rows: Sequence[Mapping[str, Any]]
    delimiter: str = ","
    encoding: Literal["utf-8", "latin-1", "utf-16"] = "utf-8"
    notes: tuple[str, ...] = ()
    unroll: str | None = None
    elements: frozenset[str] = frozenset()
    skip_lines: int = 0
    sums: tuple[tuple[str, str], ...] = ()


def _look(path: Path) -> _Look:
    if path.stat().st_size == 0:
        raise UnreadableFile("an empty file")
    if _suffix(path) in (".parquet", ".pq"):
        return _parquet(path)
    text, encoding = _head(path)
    start = text.lstrip()[:1]
    is_json = start == "{" or (start == "[" and _suffix(path) in _JSON)
    try:
        return _json(text, encoding) if is_json else _csv(text, encoding)
    except csv.Error as error:
        raise UnreadableFile(f"not readable as a table: {error}") from error


def _head(path: Path) -> tuple[str, Literal["utf-8", "latin-1", "utf-16"]]:
    """The file's beginning as text, up to the end of a line, and its encoding."""
    try:
        with _opened(path) as stream:
            data = stream.read(HEAD_BYTES)
            is_whole = not stream.read(1)
    except (OSError, EOFError) as error:
        raise UnreadableFile(f"damaged: {error}. Deliver it again") from error
    encoding: Literal["utf-8", "latin-1", "utf-16"] = "utf-8"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
        text = data[: len(data) // 2 * 2].decode("utf-16", "replace")
    else:
        try:
            text = codecs.getincrementaldecoder("utf-8-sig")().decode(data, final=is_whole)
        except UnicodeDecodeError:
            encoding = "latin-1"
            text = data.decode("latin-1")
    if not is_whole and not text.lstrip().startswith("["):
        text = text[: text.rfind("\n") + 1]
    if "\x00" in text[:1000]:
        raise UnreadableFile("not a text file")
    return text, encoding


def _opened(path: Path) -> Any:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    if path.suffix == ".zst":
        import pyarrow

        return pyarrow.input_stream(str(path), compression="zstd")
    return open(path, "rb")


# --- formats ----------------------------------------------------------------------------------------------------------


def _parquet(path: Path) -> _Look:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        batch = next(file.iter_batches(batch_size=SAMPLE_ROWS), None)
    except (OSError, pyarrow.ArrowException) as error:
        raise UnreadableFile(f"not readable as parquet: {error}") from error
    contents = [] if batch is None else batch.to_pylist()
    nested = [found.name for found in file.schema_arrow if pyarrow.types.is_nested(found.type)]
    expressions = {found.name: quoted(found.name) for found in file.schema_arrow if found.name not in nested}
    return _laid_flat("parquet", nested_rows("parquet", contents, expressions), "utf-8")


def _json(text: str, encoding: Literal["utf-8", "latin-1", "utf-16"]) -> _Look:
    from marketing_assets.sources.unpacking import elements_of

    contents: list[Mapping[str, Any]] = []
    broken = 0
    lines = elements_of(text) if text.lstrip().startswith("[") else iter(filter(str.strip, text.split("\n")))
    with contextlib.suppress(json.JSONDecodeError):  # an array that goes on beyond the head
        for line in itertools.islice(lines, SAMPLE_ROWS):
            try:
                content = json.loads(line)
            except json.JSONDecodeError:
                broken += 1
                continue
            if isinstance(content, dict):
                contents.append(content)
    if len(contents) < 2 and (within := _lists_in(text)):
        raise UnreadableFile(
            f"one JSON object around {' and '.join(within)}: write the elements of a list one per line, such as with: "
            f"jq -c '.{within[0]}[]' FILE > FILE.jsonl"
        )
    if not contents or broken > len(contents):
        raise UnreadableFile(
            "JSON that is neither one object per line nor one array of objects: write it so, such as with: jq -c . FILE > FILE.jsonl"
        )
    return _laid_flat("json", nested_rows("json", contents, {}), encoding)


def _lists_in(text: str) -> list[str]:
    """The lists of objects of a text that is one JSON object, but for lines of an order, which may be the only one of its day."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        return []
    lists = content.items() if isinstance(content, dict) else ()
    within = [name for name, value in lists if isinstance(value, list) and value and all(isinstance(one, dict) for one in value)]
    return [name for name in within if names.plain(name) not in names.LISTS]


def _laid_flat(kind: Literal["json", "parquet"], found: Nested, encoding: Literal["utf-8", "latin-1", "utf-16"]) -> _Look:
    rows = found.rows[:SAMPLE_ROWS]
    return _Look(kind, found.columns_by_name, rows, encoding=encoding, notes=found.notes, unroll=found.unroll, elements=found.elements)


def _csv(text: str, encoding: Literal["utf-8", "latin-1", "utf-16"]) -> _Look:
    lines = [line.rstrip("\r") for line in text.split("\n") if line.strip()]
    if not lines:
        raise UnreadableFile("no line with content")
    sample = "\n".join(lines[:200])
    counted = {sign: _columns_by(sample, sign) for sign in (",", ";", "\t", "|")}
    delimiter = max(counted, key=lambda sign: counted[sign])
    if counted[delimiter] < 2:
        return _aligned(lines, encoding)
    table = list(itertools.islice(csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter), SAMPLE_ROWS + 1))
    above = next((place for place, row in enumerate(table[:_MOST_ABOVE]) if len(row) == counted[delimiter]), 0)
    skip = _place_of(text, lines[above]) if above else 0
    header = [name.strip() or f"column{place}" for place, name in enumerate(table[above])]
    _check_header(header)
    rows = [dict(zip(header, row, strict=False)) for row in table[above + 1 :] if len(row) == len(header)]
    sums: list[tuple[str, str]] = []
    while rows and (found := _adds_up(rows[-1])) is not None:
        sums.append(found)
        rows.pop()
    notes = (f"{skip} lines above the header are skipped",) if skip else ()
    return _Look("csv", {name: quoted(name) for name in header}, rows, delimiter, encoding, notes, skip_lines=skip, sums=tuple(sums))


def _adds_up(row: Mapping[str, str]) -> tuple[str, str] | None:
    """The column and the word by which a row says that it adds up those above it."""
    name, value = next(((name, value) for name, value in row.items() if value.strip()), ("", ""))
    match = re.match(names.SUMS, value)
    return None if match is None else (name, match[0])


def _place_of(text: str, line: str) -> int:
    """How many lines stand above one."""
    return next(place for place, one in enumerate(text.split("\n")) if one.rstrip("\r") == line)


def _columns_by(sample: str, delimiter: str) -> int:
    """Columns a delimiter gives, 1 where lines do not agree, but for those above a header."""
    widths = [len(row) for row in csv.reader(io.StringIO(sample), delimiter=delimiter)]
    width = Counter(widths).most_common(1)[0][0]
    below = widths[widths.index(width) if width in widths[:_MOST_ABOVE] else 0 :]
    return width if below.count(width) >= 0.9 * len(below) else 1


def _aligned(lines: Sequence[str], encoding: Literal["utf-8", "latin-1", "utf-16"]) -> _Look:
    """Columns kept apart by spaces: the whole line is one column to the engine, cut by the expressions."""
    table = [line.split() for line in lines[: SAMPLE_ROWS + 1]]
    widths = Counter(map(len, table))
    width, count = widths.most_common(1)[0]
    delimiter = next((sign for sign in "|;\t~" if not any(sign in line for line in lines)), None)
    if width < 2 or count < 0.95 * len(table) or len(table[0]) != width or delimiter is None:
        if _is_data([cell.strip() for cell in re.split(r"[\s,;|]+", lines[0]) if cell.strip()]):
            raise UnreadableFile(_NO_HEADER)
        raise UnreadableFile("lines without columns: no delimiter among , ; tab and | splits them evenly")
    _check_header(table[0])
    whole = quoted(lines[0].strip())
    expressions = {name: f"regexp_split_to_array(trim({whole}), '\\s+')[{place}]" for place, name in enumerate(table[0], 1)}
    rows = [dict(zip(table[0], row, strict=True)) for row in table[1:] if len(row) == width]
    return _Look(
        "csv", expressions, rows, delimiter, encoding, ("columns are kept apart by spaces; each line is cut in the expressions",)
    )


_NO_HEADER = "no header line: put one on top, with a name for each column, or name them in store.yaml ('header')"


def _is_data(cells: Sequence[str]) -> bool:
    """Whether a first line holds values, not names."""
    return any(re.fullmatch(r"[-+]?[\d.,:/ -]*\d[\d.,:/ -]*", cell.strip()) is not None for cell in cells)


def _check_header(header: Sequence[str]) -> None:
    lowered = [name.lower() for name in header]
    if _is_data(header):
        raise UnreadableFile(_NO_HEADER)
    if twice := sorted({name for name in lowered if lowered.count(name) > 1}):
        raise UnreadableFile(f"column {twice[0]!r} appears twice in the header: rename one")


def columns_in(path: Path) -> Mapping[str, str]:
    """Columns of a file and how an expression names them; {} where it cannot be looked into."""
    try:
        return _look(path).columns_by_name
    except UnreadableFile:
        return {}
