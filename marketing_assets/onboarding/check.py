"""What a store.yaml makes of the files it names: read by the real sources and cleaning, in memory, a few days of them.

What belongs here: counting what was understood and refused, and saying what to do. What does not: reading or cleaning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from marketing_assets.config import CONTROL_INPUTS, SourceBlock, Store, StoreError
from marketing_assets.onboarding.days import Landing, landing_of, main_stretch
from marketing_assets.onboarding.looking import columns_in
from marketing_assets.schemas import EVENT_TYPES, FURTHER, INPUTS
from marketing_assets.sources import SourceError, build_sources, landing_days, source_blocks
from marketing_assets.warehouse import InvalidTable, Warehouse, days_between

Tell = Callable[[str], None]

_BEHAVIOUR = ("events", "impressions", "conversions", "ad_reports")
_EXAMPLES = 3
_CLEAN = ("clean_events", "clean_impressions", "attributed_conversions", "rejected_rows")


@dataclass(frozen=True)
class Refused:
    """Rows refused for one reason. reason: the value taken out. examples: 'file, row: reason with the value'."""

    reason: str
    rows: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class SourceCheck:
    """What was understood of one input.

    files: that its patterns match. landed: first and last day its rows land on, of dated files by name. days: of these, days with
    rows. rows, clean: within the days read. strays: of the rows of undated files, those whose day is unknown or outside of the shop's:
    they all land on its first day. total: rows of these files on any day. missing: days without a file where one must be. unused:
    columns of the files that no expression reads. unmapped: contract columns without expression. facts: line -> text about the
    clean rows. error: why it could not be read.
    """

    source: str
    files: int = 0
    landed: tuple[date, date] | None = None
    days: int = 0
    rows: int = 0
    clean: int = 0
    strays: int = 0
    total: int = 0
    refused: tuple[Refused, ...] = ()
    missing: tuple[date, ...] = ()
    unused: tuple[str, ...] = ()
    unmapped: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None

    @property
    def refused_share(self) -> float:
        """Share of the rows that is refused. Strays, which are read whatever else is, are held against the rows of all days."""
        refused, strays = self.rows - self.clean, min(self.strays, self.rows - self.clean)
        others = (refused - strays) / (self.rows - strays) if self.rows > strays else 0.0
        return max(others, strays / self.total if strays else 0.0)


@dataclass(frozen=True)
class CheckReport:
    """read: the windows of landed days that were read. problems: what must be put right. notes: what should be looked at."""

    store: Store
    read: tuple[tuple[date, date], ...]
    sources: tuple[SourceCheck, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def is_ok(self) -> bool:
        return not self.problems


def check_store(store: Store, limit_days: int, tell: Tell) -> CheckReport:
    """Read at most `limit_days` landed days of every mapped input, the first and the newest ones, and say what was understood.

    Raises StoreError where the store cannot be read at all (an environment variable that is not set, a folder that is not there).
    """
    if limit_days < 1:
        raise StoreError(f"at least one day has to be read, not {limit_days}")
    folder = store.data_folder
    if not folder.is_dir():
        raise StoreError(f"{store.path}: data_root: no folder {folder}. Correct it; it is relative to {store.folder}")
    sources = [source for source in INPUTS if source not in CONTROL_INPUTS and store.blocks(source)]
    for source in store.sources:
        source_blocks(store, source)  # an input nobody knows is an error that names it
    tell(f"{store.name}: {store.path}, files in {folder}")
    layouts = {source: _layout(store, source, tell) for source in sources}
    windows = _windows(store, layouts, limit_days)
    checks, cleaning_problem = _read(store, layouts, windows, tell)
    for check in checks:
        for line in _lines(check, store):
            tell(line)
    problems, notes = _judged(store, checks, windows)
    problems += cleaning_problem
    for note in notes:
        tell(f"note: {note}")
    for problem in problems:
        tell(f"problem: {problem}")
    tell(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}" if problems else "ok: everything read can be used")
    return CheckReport(store, tuple((window[0], window[-1]) for window in windows), tuple(checks), tuple(problems), tuple(notes))


# --- files and days ---------------------------------------------------------------------------------------------------


@dataclass
class _Layout:
    """An input's files. landing: rows per day of its undated blocks."""

    files: int
    dated: list[date]
    landing: Landing | None
    missing: list[date]
    unused: list[str]
    unmapped: list[str]
    error: str | None


def _layout(store: Store, source: str, tell: Tell) -> _Layout:
    from marketing_assets.sources.files import files_of_day, undated_files
    from marketing_assets.sources.mapping import mapping_of, parse

    blocks = source_blocks(store, source)
    dated = [
        day for day in landing_days(store)[source] if day >= store.first_day and (store.last_day is None or day <= store.last_day)
    ]
    files, error, landing = 0, None, None
    missing: set[date] = set()
    unused: dict[str, None] = {}
    mapped: set[str] = set()
    try:
        for block in blocks:
            if block.rows is not None:
                mapped |= {name for row in block.rows for name in row}
                continue
            mapping = mapping_of(store, source, block)
            for layout in (*block.join.values(), block):  # the block's own files last: their columns are looked at
                if layout.is_dated:
                    own = {day: files_of_day(store, layout, day) for day in (dated or [])}
                    found = [file for listed in own.values() for file in listed]
                    if layout.missing_file == "error":
                        last = store.last_day or max(dated, default=store.first_day)
                        missing |= {day for day in days_between(store.first_day, last) if not own.get(day)}
                else:
                    found = undated_files(store, layout)
                    if not found and layout.missing_file == "error":
                        raise SourceError(
                            f"sources.{source}: no file {layout.files} in {store.data_folder}. Deliver it, or correct 'files'."
                        )
                files += len(found)
            names = columns_in(found[-1].path) if found else {}
            read = {name.lower() for name in mapping.needs}
            if mapping.takes_same_names:
                same = {name for name in INPUTS[source].columns if name in {one.lower() for one in names}}
                mapped |= same
                read |= same
            mapped |= set(mapping.columns)
            unused.update(
                dict.fromkeys(name for name, text in names.items() if not {one.lower() for one in parse(text, "").needs} & read)
            )
        undated = [block for block in blocks if block.files is not None and not block.is_dated]
        if undated and source in _BEHAVIOUR and files:
            tell(f"{source}: reading it for its days ...")
            landing = landing_of(store, source, undated)
    except SourceError as problem:
        error = str(problem)
    unmapped = [name for name in INPUTS[source].columns if name not in mapped and name != FURTHER]
    return _Layout(files, dated, landing, sorted(missing), list(unused), unmapped, error)


def _windows(store: Store, layouts: Mapping[str, _Layout], limit: int) -> list[list[date]]:
    """The first and the newest landed days, together at most `limit` with rows."""
    ends = [layout.dated[-1] for layout in layouts.values() if layout.dated]
    for layout in layouts.values():
        if layout.landing and (stretch := main_stretch(layout.landing.rows)):
            ends.append(stretch[1])
    end = max(ends, default=store.first_day)
    end = max(store.first_day, end if store.last_day is None else min(end, store.last_day))
    days = days_between(store.first_day, end)
    filled = sorted({day for layout in layouts.values() for day in _days_with_rows(layout) if store.first_day <= day <= end}) or days
    if len(filled) <= limit:
        return [days]
    newest = max(1, limit // 2)
    oldest = limit - newest
    starts = [days_between(store.first_day, filled[oldest - 1])] if oldest else []
    return [*starts, days_between(filled[-newest], end)]


def _days_with_rows(layout: _Layout) -> set[date]:
    return {*layout.dated, *(layout.landing.rows if layout.landing else ())}


# --- reading ----------------------------------------------------------------------------------------------------------


@contextmanager
def _memory(store: Store) -> Iterator[Warehouse]:
    """A warehouse that lives in memory, for the shop with files that may be missing."""
    import duckdb

    def lenient(block: SourceBlock) -> SourceBlock:
        joined = {name: one.model_copy(update={"missing_file": "empty"}) for name, one in block.join.items()}
        return block.model_copy(update={"missing_file": "empty", "join": joined})

    sources = {name: [lenient(block) for block in store.blocks(name)] for name in store.sources}
    connection = duckdb.connect(":memory:", config={"threads": str(store.threads)})
    try:
        yield Warehouse(connection, store.model_copy(update={"sources": sources}), None)
    finally:
        connection.close()


def _read(
    store: Store, layouts: Mapping[str, _Layout], windows: Sequence[Sequence[date]], tell: Tell
) -> tuple[list[SourceCheck], list[str]]:
    """Land and clean the windows, then count."""
    from marketing_assets.cleaning import build_cleaning

    errors: dict[str, str] = {source: layout.error for source, layout in layouts.items() if layout.error}
    problems: list[str] = []
    rows: dict[str, int] = dict.fromkeys(layouts, 0)
    with _memory(store) as warehouse:
        for window in windows:
            tell(f"reading {window[0]}" + (f"...{window[-1]}" if len(window) > 1 else "") + " ...")
            for source in layouts:
                if source in errors:
                    continue
                try:
                    landed = build_sources(warehouse.reader(window[-1]), window, warehouse.store, source)
                    with warehouse.transaction():
                        made = warehouse.replace_window(f"source_{source}", [f"raw_{source}"], window, landed)
                    rows[source] += sum(count for count, _ in made[f"raw_{source}"].values())
                except SourceError as problem:
                    errors[source] = str(problem)
            try:
                cleaned = build_cleaning(warehouse.reader(window[-1]), window, warehouse.store)
                with warehouse.transaction():
                    warehouse.replace_window("cleaning", _CLEAN, window, cleaned)
            except InvalidTable as problem:
                problems.append(f"what was read of {window[0]}...{window[-1]} cannot be published: {problem}")
        refused = _refused(warehouse, windows[-1][-1])
        checks = [
            _check(warehouse, store, source, layout, rows[source], refused.get(source, ()), windows[-1][-1], errors.get(source))
            for source, layout in layouts.items()
        ]
    return checks, problems


def _refused(warehouse: Warehouse, end: date) -> dict[str, tuple[Refused, ...]]:
    """Input -> why its rows were refused, most frequent first, with examples."""
    import ibis

    table = warehouse.reader(end).table("rejected_rows")
    # "quantity 'x' is no whole number" -> "quantity ... is no whole number"
    table = table.mutate(kind=table.reason.re_replace(r"(?s)^(\w+) '.*'( is| lies|\.\.\. is)", r"\1 ...\2"))
    # examples of different values before more of the same one
    alike = ibis.window(group_by=["source", "reason"], order_by=["source_file", "source_row", "raw_row_id"])
    table = table.mutate(again=ibis.row_number().over(alike))
    grouped = ibis.window(group_by=["source", "kind"], order_by=["again", "source_file", "source_row", "raw_row_id"])
    table = table.mutate(place=ibis.row_number().over(grouped), rows=table.count().over(ibis.window(group_by=["source", "kind"])))
    found = (
        table.filter(table.place < _EXAMPLES)
        .select("source", "kind", "rows", "place", "source_file", "source_row", "reason", "row")
        .to_polars()
    )
    result: dict[str, list[Refused]] = {}
    for (source, kind), own in found.sort("source", "kind", "place").group_by("source", "kind", maintain_order=True):
        shown = tuple(
            f"{file}, row {place}: {_value(reason) if reason != kind else _short(row)}"
            for file, place, reason, row in own.select("source_file", "source_row", "reason", "row").iter_rows()
        )
        result.setdefault(str(source), []).append(Refused(str(kind), int(own["rows"][0]), shown))
    return {source: tuple(sorted(listed, key=lambda one: (-one.rows, one.reason))) for source, listed in result.items()}


def _value(reason: str) -> str:
    """'event_type 'x' is none of ...' -> 'event_type 'x''."""
    return re.sub(r"(?s)^(\w+ '.*')( is| lies|\.\.\. is) .*", r"\1", reason)


def _short(row: str) -> str:
    """The mapped row without its empty columns."""
    filled = {name: value for name, value in json.loads(row).items() if value is not None}
    return ", ".join(f"{name}={str(value)[:30]!r}" for name, value in list(filled.items())[:6])


def _check(
    warehouse: Warehouse,
    store: Store,
    source: str,
    layout: _Layout,
    rows: int,
    refused: tuple[Refused, ...],
    end: date,
    error: str | None,
) -> SourceCheck:
    landed, days = _landed(layout)
    reader = warehouse.reader(end)
    facts: dict[str, str] = {}
    if source in ("events", "impressions"):
        clean = int(reader.table(f"clean_{source}").count().execute())
        if clean:
            facts = _event_facts(reader, store) if source == "events" else _impression_facts(reader)
    else:
        clean = rows - sum(one.rows for one in refused)
        if clean and INPUTS[source].key:
            raw = reader.table(f"raw_{source}")
            facts = {"different": f"{int(raw[INPUTS[source].key[0]].nunique().execute()):,} {INPUTS[source].key[0]}"}
    landing = layout.landing
    inside = sum(count for day, count in landing.rows.items() if store.first_day <= day <= (store.last_day or day)) if landing else 0
    return SourceCheck(
        source,
        layout.files,
        landed,
        days,
        rows,
        clean,
        landing.total - inside if landing else 0,
        landing.total if landing else 0,
        refused,
        tuple(layout.missing),
        tuple(layout.unused),
        tuple(layout.unmapped),
        facts,
        error,
    )


def _landed(layout: _Layout) -> tuple[tuple[date, date] | None, int]:
    days = sorted(_days_with_rows(layout))
    return ((days[0], days[-1]), len(days)) if days else (None, 0)


def _event_facts(reader: Any, store: Store) -> dict[str, str]:
    import ibis

    table = reader.table("clean_events")
    kinds = dict(table.group_by("event_type").agg(rows=table.count()).to_polars().iter_rows())
    total = sum(kinds.values())
    sold = table.event_type.isin(("purchase", "refund"))
    row = (
        table.agg(
            users=table.user_id.nunique(),
            nobody=table.user_id.isnull().sum(),
            items=table.item_id.nunique(),
            # as evaluation counts them
            orders=ibis.coalesce(table.order_id, table.session_id, table.event_id).nunique(where=table.event_type == "purchase"),
            unnamed=((table.event_type == "purchase") & table.order_id.isnull()).sum(),
            revenue=table.revenue.sum(),
            first=table.event_at.min(),
            last=table.event_at.max(),
            bots=table.is_bot.sum(),
            service=table.is_service.sum(),
            no_price=(sold & table.unit_price.isnull()).sum(),
        )
        .to_polars()
        .row(0, named=True)
    )
    zone = ZoneInfo(store.timezone)

    def local(instant: datetime) -> str:
        return instant.replace(tzinfo=ZoneInfo("UTC")).astimezone(zone).strftime("%Y-%m-%d %H:%M")

    facts = {
        "event types": ", ".join(f"{kind} {kinds[kind]:,}" for kind in EVENT_TYPES if kind in kinds),
        "users": f"{row['users']:,}; none in {row['nobody'] / total:.1%} of the rows",
        "items": f"{row['items']:,}" + (f"; fees and postage in {row['service']:,} rows" if row["service"] else ""),
        "times": f"{local(row['first'])} to {local(row['last'])}, {store.timezone}",
    }
    if kinds.get("purchase") or kinds.get("refund"):
        facts["sales"] = f"{row['orders']:,} orders, revenue {row['revenue']:,.2f} {store.currency}"
        if row["unnamed"]:
            facts["sales"] += f"; {row['unnamed']:,} purchases without an order_id, those of one visit taken for one order"
        if row["no_price"]:
            facts["sales"] += f"; no price in {row['no_price']:,} rows"
    if row["bots"]:
        facts["bots"] = f"{row['bots']:,} rows look like programs: kept, left out of features"
    return facts


def _impression_facts(reader: Any) -> dict[str, str]:
    table = reader.table("clean_impressions")
    row = (
        table.agg(
            rows=table.count(),
            clicks=table.is_clicked.sum(),
            users=table.user_id.nunique(),
            placements=table.placement_id.nunique(),
            spend=table.spend.sum(),
            logged=table.logging_propensity.count(),
        )
        .to_polars()
        .row(0, named=True)
    )
    facts = {
        "clicks": f"{row['clicks']:,}, {row['clicks'] / row['rows']:.2%} of impressions",
        "placements": f"{row['placements']:,}",
    }
    facts["propensities"] = f"logged in {row['logged'] / row['rows']:.0%} of the rows"
    facts["users"] = f"{row['users']:,}"
    if row["spend"] is not None:
        facts["spend"] = f"{row['spend']:,.2f}"
    return facts


# --- saying it --------------------------------------------------------------------------------------------------------


def _lines(check: SourceCheck, store: Store) -> list[str]:
    where = f"{check.files:,} file{'s' if check.files != 1 else ''}"
    if check.landed:
        where += f", {check.landed[0]}...{check.landed[1]}, rows on {check.days:,} days"
    lines = [f"{check.source}: {where}"]
    if check.error:
        return [*lines, f"  not readable: {check.error}"]
    refused = check.rows - check.clean
    share = f" ({refused / check.rows:.1%})" if check.rows else ""
    if check.strays:
        share += f"; {check.strays:,} of {check.total:,} rows are of no day of the shop"
    lines.append(f"  {check.rows:,} rows read: {check.clean:,} clean, {refused:,} refused{share}")
    for one in check.refused[:6]:
        lines.append(f"    {one.rows:,} x {one.reason}")
        lines += [f"      {example}"[:200] for example in one.examples]
    lines += [f"  {name}: {text}" for name, text in check.facts.items()]
    if check.unused:
        lines.append(
            f"  columns of the files not used: {', '.join(check.unused[:12])}" + (" ..." if len(check.unused) > 12 else "")
        )
    if check.unmapped:
        lines.append(f"  not mapped: {', '.join(check.unmapped)}")
    return lines


def _judged(store: Store, checks: Sequence[SourceCheck], windows: Sequence[Sequence[date]]) -> tuple[list[str], list[str]]:
    """(problems, notes)."""
    problems: list[str] = []
    notes: list[str] = []
    for check in checks:
        key = f"sources.{check.source}"
        if check.error:
            problems.append(check.error if check.error.startswith((key, str(store.path))) else f"{key}: {check.error}")
            continue
        spec = INPUTS[check.source]
        lacking = [
            name
            for name in spec.required
            if name in check.unmapped and name != "user_id" and (spec.name, name) != ("events", "item_id")
        ]
        if lacking:
            problems.append(
                f"{store.path}: {key}.columns.{lacking[0]} is not mapped, and no row can do without it: add an expression for it"
            )
        if check.missing:
            shown = ", ".join(map(str, check.missing[:5])) + (
                f" and {len(check.missing) - 5:,} more" if len(check.missing) > 5 else ""
            )
            problems.append(f"{key}: no file for {shown}. Deliver them, or set 'missing_file: empty' if such days are normal")
        if not check.rows and check.source in _BEHAVIOUR:
            problems.append(f"{key}: no row landed in the days read ({_said(windows)}); check 'files', 'where' and first_day")
        refused = check.rows - check.clean
        limit = store.drift.reject_rate_threshold
        if check.refused_share > limit:
            most = check.refused[0]
            problems.append(
                f"{key}: {check.refused_share:.1%} of the rows are refused (more than drift.reject_rate_threshold, {limit:.0%}), most for: "
                f"{most.reason}. Correct the expression, or leave such rows out with 'where'"
            )
        elif refused:
            notes.append(
                f"{key}: {refused:,} of {check.rows:,} rows refused; they are kept in rejected_rows with file, row and reason"
            )
        if check.source == "events" and check.clean:
            notes += _about_events(check)
    behaviour = [check for check in checks if check.source in _BEHAVIOUR]
    if not behaviour:
        problems.append(f"{store.path}: none of {', '.join(_BEHAVIOUR)} is mapped, so nothing can be learnt: map at least one")
    lands = [check.landed for check in behaviour if check.landed]
    if lands and min(start for start, _ in lands) > store.first_day:
        notes.append(
            f"first_day is {store.first_day}, rows begin on {min(start for start, _ in lands)}: the days before are built and empty"
        )
    if lands and store.last_day is not None and max(end for _, end in lands) < store.last_day:
        notes.append(f"last_day is {store.last_day}, rows end on {max(end for _, end in lands)}")
    lacks = [name for name in ("events", "impressions", "items") if not store.blocks(name)]
    if lacks:
        notes.append(f"not mapped: {', '.join(lacks)}; tables that need them stay empty and say so")
    return problems, notes


def _said(windows: Sequence[Sequence[date]]) -> str:
    return " and ".join(f"{window[0]}...{window[-1]}" if len(window) > 1 else str(window[0]) for window in windows)


def _about_events(check: SourceCheck) -> list[str]:
    notes = []
    kinds = check.facts.get("event types", "")
    if "purchase" not in kinds:
        notes.append("sources.events: no purchase in the days read; if these are sales, correct event_type")
    nobody = float(check.facts["users"].split("none in ")[1].split("%")[0])
    if nobody > 50:
        notes.append(f"sources.events: {nobody:.0f} % of the rows have no user; profiles and lists rest on the others")
    return notes
