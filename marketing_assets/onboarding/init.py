"""A first store.yaml for a folder of exports.

What belongs here: what holds for the whole shop (days, clock, currency), and writing the file. What does not: what single
files and columns mean (columns.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import yaml

from marketing_assets.config import SourceBlock, Store, StoreError, load_store
from marketing_assets.onboarding import names
from marketing_assets.onboarding.columns import FITS, Block, is_count, pick
from marketing_assets.onboarding.days import Landing, landing_of, main_stretch
from marketing_assets.onboarding.looking import FileSet, Folder, look_into
from marketing_assets.onboarding.nested import literal
from marketing_assets.onboarding.places import CURRENCIES, Place, place_of
from marketing_assets.onboarding.recognition import blocks_of, of_its_days
from marketing_assets.onboarding.together import aligned, together
from marketing_assets.onboarding.values import SYMBOLS
from marketing_assets.onboarding.writing import Draft, store_text
from marketing_assets.schemas import INPUTS

Tell = Callable[[str], None]

_BEHAVIOUR = ("events", "impressions", "ad_reports", "conversions")
"""Inputs whose days are the shop's days."""
_HAPPENS = ("events", "impressions")
"""Of these, inputs whose rows say when they happened; a report restates days that are over."""
_LIVE_DAYS = 14
"""Files that end no longer ago than this belong to a shop that goes on."""
_SERVICE = re.compile(
    r"^(POST|POSTAGE|DOT|DOTCOM.*|SHIP|SHIPPING.*|DELIVERY.*|FREIGHT|FEE|FEES|HANDLING|BANK ?CHARGES|AMAZON ?FEE|DISCOUNT.*|COUPON.*|"
    r"VOUCHER.*|GIFT.?CARD.*|GIFT_.*|TIP|TIPS|MANUAL|ADJUST.*|SURCHARGE|DEPOSIT|COMMISSION|TAX|VAT|ROUNDING|M|D|S|B)$",
    re.IGNORECASE,
)


def init_store(folder: Path, target: Path | None, tell: Tell, *, overwrite: bool = False, today: date | None = None) -> Path:
    """Write a first store.yaml for the exports in `folder`, by default into it. Returns its path.

    today: the day to judge by whether the shop goes on (default: the clock's). Raises FileExistsError where the file stands and
    `overwrite` is not set, FileNotFoundError without folder, StoreError where nothing in the folder can be an input.
    """
    folder = folder.resolve()
    target = (target or folder / "store.yaml").resolve()
    if target.is_dir():
        target = target / "store.yaml"
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} is already there and is kept; name another file with --out, or move it away")
    found = look_into(folder)
    blocks = _understood(found, tell)
    if not blocks:
        listed = (
            "; ".join(f"{name}: {why}" for name, why in list(found.unused.items())[:8])
            or "no csv, tsv, json or parquet file there"
        )
        raise StoreError(f"{folder}: nothing that could be an input. {listed}")
    draft = _draft(folder, target, found, blocks, today or datetime.now(UTC).date(), tell)
    _write(target, store_text(draft))
    for note in draft.notes:
        tell(f"note: {note}")
    return target


def _understood(found: Folder, tell: Tell) -> list[Block]:
    """Blocks of every file set, said aloud; sets that are nothing go to `unused`."""
    blocks: list[Block] = []
    found.sets = together(found.sets)
    beside = {joined.files.pattern for files in found.sets for joined in files.joined}
    for place, files in enumerate(found.sets):
        made = blocks_of(files)
        if made and made[0].source in _HAPPENS:
            found.sets[place] = files = of_its_days(files)
            made = blocks_of(files)
        if not made:
            if files.pattern not in beside:
                found.unused[files.pattern] = _why_nothing(files)
            continue
        blocks += made
        size = f"{len(files.files)} files" if len(files.files) > 1 else "1 file"
        tell(
            f"{files.pattern} ({size}, {files.format}): "
            + ", ".join(f"{block.source} ({', '.join(mapped.contract for mapped in block.columns)})" for block in made)
        )
    blocks = _one_catalogue(blocks)
    aligned(blocks, tell)
    if not any(block.source in _BEHAVIOUR for block in blocks):
        return []
    shown = [block for block in blocks if block.source == "impressions"]
    for block in shown if len(shown) > 1 else []:
        if block.has("logging_propensity") and not block.has("policy_id"):
            stem = re.split(r"[.{*]", Path(block.files.pattern).name)[0]
            block.constant("policy_id", literal(stem), "a guess: each file was logged under a policy of its own")
    for name, why in found.unused.items():
        tell(f"{name}: not used, {why}")
    return blocks


def _temporal(files: FileSet) -> bool:
    return any(column.profile.is_temporal for column in files.columns)


def _why_nothing(files: FileSet) -> str:
    item = pick(files, names.EVENTS["item_id"], FITS["item_id"])
    stock = pick(files, names.ITEMS["stock_on_hand"], is_count)
    is_stock = not any(pick(files, names.EVENTS[name], FITS[name]) for name in ("user_id", "order_id", "unit_price"))
    if item is not None and stock is not None and is_stock and not item.profile.is_key and not _temporal(files):
        return f"{item.name} names an item in several rows: add {stock.name} up to one row an item"
    columns = ", ".join(column.name for column in files.columns[:12])
    if not _temporal(files):
        return f"no column of dates or times that can be read among {columns}"
    return f"columns do not say what the rows are: {columns}"


def _one_catalogue(blocks: list[Block]) -> list[Block]:
    """Where a file is a catalogue, what event exports say about items is left to it as far as it says the same."""
    whole = [
        block
        for block in blocks
        if block.source == "items" and not any(other.files is block.files and other.source == "events" for other in blocks)
    ]
    told = {mapped.contract for block in whole for mapped in block.columns}
    return [
        block
        for block in blocks
        if block.source != "items" or block in whole or not {mapped.contract for mapped in block.columns} <= told
    ]


# --- the whole shop ---------------------------------------------------------------------------------------------------


def _draft(folder: Path, target: Path, found: Folder, blocks: list[Block], today: date, tell: Tell) -> Draft:
    notes = [
        f"{files.pattern}: {note}"
        for files in found.sets
        for note in files.notes
        if any(block.files is files for block in blocks)
    ]
    place, timezone, timezone_comment = _clock(blocks)
    currency, currency_comment = _currency(blocks, place)
    trial = _trial_store(folder, target, blocks, timezone)
    stretch, day_notes, counts = _days(trial, blocks, tell)
    notes += day_notes
    first, last = stretch
    live = last >= today - timedelta(days=_LIVE_DAYS)
    for block in blocks:
        if block.source not in _BEHAVIOUR and block.files.is_dated and not any(first <= day <= last for day in block.files.days):
            note = f"made on no day of {first}...{last}, so it is taken for known from the first day"
            notes.append(f"{block.files.pattern}: {note}")
            block.files = block.files.as_one(note)
    notes += _apart(blocks)
    service, examples = _service_codes(blocks)
    if examples and service is None:
        notes.append(
            f"item ids unlike the others: {', '.join(examples[:8])}; if they are fees or postage, name them in cleaning.service_item_pattern"
        )
    beside = target.parent
    root = os.path.relpath(folder, beside) if folder.is_relative_to(beside) else str(folder)
    return Draft(
        name=re.sub(r"[^a-z0-9]+", "_", folder.name.lower()).strip("_") or "shop",
        timezone=timezone,
        timezone_comment=timezone_comment,
        currency=currency,
        currency_comment=currency_comment,
        first_day=first,
        first_day_comment=counts,
        last_day=None if live else last,
        last_day_comment="files end recently, so the shop goes on"
        if live
        else "remove it where files keep coming: it ends the shop's days",
        data_root=root,
        blocks=[(block, *_gaps(block, first, last)) for block in blocks],
        country=place.code if place else None,
        service_pattern=service,
        service_examples=examples,
        tells_money=any(block.has("unit_price") or block.has("conversion_value") for block in blocks),
        notes=notes,
        unused=list(found.unused.items()),
    )


def _apart(blocks: Sequence[Block]) -> list[str]:
    """Orders in one file and their lines in another: neither says who bought what."""
    orders = [block for block in blocks if block.source == "events" and block.has("order_id")]
    heads = [block for block in orders if block.expression("item_id") == "'all'"]
    lines = [block for block in orders if not block.has("user_id")]
    return [
        f"{head.files.pattern} says who ordered, {line.files.pattern} what: join them by order into one file before they land, "
        "or people's tastes stay unknown and orders count twice"
        for head in heads
        for line in lines
    ]


def _clock(blocks: Sequence[Block]) -> tuple[Place | None, str, str]:
    """(country, time zone, why)."""
    place = None
    seen = ""
    for block in blocks:
        for column in block.files.columns:
            profile = column.profile
            if place is None and names.likeness(column.name, names.COUNTRIES) > 0.4 and profile.kind == "text":
                place = place_of(profile.values, profile.shares)
                seen = f"a guess: {column.name} is {profile.values[0]} in {profile.shares[0]:.0%} of the rows" if place else ""
    if place and place.timezone:
        return place, place.timezone, seen
    times = [
        column.profile
        for block in blocks
        for column in block.files.columns
        if column.profile.is_temporal and column.profile.has_time
    ]
    if any(profile.is_zoned for profile in times):
        why = "times are given with their zone; put the shop's own here, its days run from midnight to midnight on that clock"
    else:
        why = "nothing says in which zone times are written: put the shop's here, such as Europe/Berlin"
    return place, "UTC", why


def _currency(blocks: Sequence[Block], place: Place | None) -> tuple[str, str]:
    for block in blocks:
        for column in block.files.columns:
            profile = column.profile
            if names.likeness(column.name, names.CURRENCIES) > 0.5 and profile.values and profile.values[0].upper() in CURRENCIES:
                return profile.values[0].upper(), f"from column {column.name}" + (
                    ", which holds others, too" if profile.distinct > 1 else ""
                )
            if profile.symbol and (code := SYMBOLS.get(profile.symbol, profile.symbol)) in CURRENCIES:
                return code, f"from {profile.symbol} in {column.name}"
            if (word := re.search(r"(?<![A-Za-z])([A-Z]{3}|[a-z]{3})(?![A-Za-z])\)?$", column.name)) and word[
                1
            ].upper() in CURRENCIES:
                return word[1].upper(), f"from the name of column {column.name}"
    if place:
        return place.currency, "a guess from the country"
    return "USD", "nothing in the files says so: put the shop's currency here"


def _source_block(block: Block, missing: str = "empty") -> SourceBlock:
    files = block.files
    return SourceBlock.model_validate(
        {
            "files": files.pattern,
            "format": files.format,
            "delimiter": files.delimiter,
            "encoding": files.encoding,
            "skip_lines": files.skip_lines,
            "unroll": files.unroll,
            "join": {
                one.name: {
                    "files": one.files.pattern,
                    "format": one.files.format,
                    "delimiter": one.files.delimiter,
                    "encoding": one.files.encoding,
                    "skip_lines": one.files.skip_lines,
                    "missing_file": missing,
                    "by": one.by,
                    "key": one.key,
                }
                for one in block.joined
            },
            "where": block.where,
            "columns": {mapped.contract: mapped.expression for mapped in block.columns},
            "missing_file": missing,
        }
    )


def _trial_store(folder: Path, target: Path, blocks: Sequence[Block], timezone: str) -> Store:
    """A store whose days are not known yet."""
    sources: dict[str, list[SourceBlock]] = {}
    for block in blocks:
        sources.setdefault(block.source, []).append(_source_block(block))
    return Store.model_validate(
        {
            "name": "trial",
            "timezone": timezone,
            "currency": "USD",
            "first_day": date(1970, 1, 2),
            "data_root": str(folder),
            "sources": sources,
            "path": target,
        }
    )


def _days(store: Store, blocks: list[Block], tell: Tell) -> tuple[tuple[date, date], list[str], str]:
    """((first, last day), notes, what the stretch rests on) from dated names, else from the rows themselves."""
    notes: list[str] = []
    stretches: list[tuple[date, date]] = []
    counts = ""
    for block in list(blocks):
        if block.source not in _BEHAVIOUR:
            continue
        if block.files.is_dated and block.files.days:
            stretches.append((block.files.days[0], block.files.days[-1]))
            counts = counts or "by the files' names"
            continue
        tell(f"{block.files.pattern}: reading it for its days ...")
        landing = _landing(store, block, notes)
        stretch = main_stretch(landing.rows)
        if stretch is None:
            raise StoreError(
                f"{block.files.pattern}: of {landing.total} rows none has a readable {INPUTS[block.source].landed_by} "
                f"({block.expression(INPUTS[block.source].landed_by or '')}). {landing.broken_example or ''}".strip()
            )
        stretches.append(stretch)
        outside = sum(count for day, count in landing.rows.items() if not stretch[0] <= day <= stretch[1])
        counts = counts or f"{landing.total:,} rows, {stretch[0]}...{stretch[1]}"
        for count, what in (
            (outside, f"lie outside {stretch[0]}...{stretch[1]}, where nearly all are, and will be refused by name"),
            (landing.undated, "have no readable date and will be refused"),
            (landing.broken, f"cannot be read: {landing.broken_example}"),
        ):
            if count:
                notes.append(f"{block.files.pattern}: {count:,} of {landing.total:,} rows {what}")
    first, last = min(start for start, _ in stretches), max(end for _, end in stretches)
    if (last - first).days > 1500:
        notes.append(f"{(last - first).days:,} days are many partitions: a later first_day makes the first run shorter")
    return (first, last), notes, counts


def _landing(store: Store, block: Block, notes: list[str]) -> Landing:
    """Rows per day; where much of a file turns out not to be in UTF-8, it is read as latin-1."""
    landing = landing_of(store, block.source, [_source_block(block, "error")])
    if block.files.encoding == "utf-8" and landing.broken_example and "UTF-8" in landing.broken_example:
        import dataclasses

        block.files = dataclasses.replace(block.files, encoding="latin-1")
        again = landing_of(store, block.source, [_source_block(block, "error")])
        notes.append(f"{block.files.pattern}: not valid UTF-8 further down, so read as latin-1")
        return again
    return landing


def _gaps(block: Block, first: date, last: date) -> tuple[bool, str]:
    """(whether days without a file are normal, why)."""
    files = block.files
    if not files.is_dated:
        return False, ""
    absent = (last - first).days + 1 - sum(first <= day <= last for day in files.days)
    if absent == 0:
        return False, "every day has a file; a day without one is an error"
    return True, f"{absent} of {(last - first).days + 1} days have none; 'error' where each day must have one"


def _service_codes(blocks: Sequence[Block]) -> tuple[str | None, list[str]]:
    """(pattern of codes that are fees or postage, ids it rests on): ids without a digit where nearly all have one."""
    for block in blocks:
        text = block.expression("item_id")
        if block.source != "events" or text is None:
            continue
        column = next((column for column in block.files.columns if column.name in block.used and column.expression == text), None)
        if column is None or column.profile.kind != "text":
            continue
        ids = sorted({str(row.get(column.name) or "").strip() for row in block.files.rows} - {""})
        odd = [one for one in ids if not any(sign.isdigit() for sign in one)]
        if not odd or len(odd) > 0.05 * len(ids):
            continue
        known = [one for one in odd if _SERVICE.match(one)]
        if not known:
            return None, odd
        return "^(" + "|".join(re.escape(one).replace("\\ ", " ") for one in known) + ")$", known
    return None, []


def _write(target: Path, text: str) -> None:
    """Put the file in place once it loads as a store."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{target}: cannot be written ({error.strerror}); name a file elsewhere with --out") from error
    try:
        load_store(temporary)
        os.replace(temporary, target)
    except (StoreError, yaml.YAMLError) as error:
        raise StoreError(
            f"{target}: the draft does not load, which is a fault of init-store, not of the files: {error}"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
