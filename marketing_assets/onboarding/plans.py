"""Files that tell plans by item or by day: prices, promotions, opening days and calendars.

What belongs here: telling such a file from what happened. What does not: campaigns of ads and everything else (recognition.py).
"""

from __future__ import annotations

import re
from datetime import date

from marketing_assets.onboarding import names
from marketing_assets.onboarding.columns import (
    FITS,
    Block,
    Fits,
    day_expression,
    fill,
    id_expression,
    is_flag,
    is_id,
    is_number,
    is_type,
    pick,
    time_expression,
)
from marketing_assets.onboarding.grain import meets_the_next
from marketing_assets.onboarding.looking import Column, FileSet
from marketing_assets.onboarding.values import Profile
from marketing_assets.schemas import INPUTS, OWN_NAME

_BY_NAME = "taken from the file's name"
_OPEN = f"'{date.max}'"
"""An end_date that never comes."""


def item_drivers(files: FileSet) -> Block | None:
    """A plan of prices, promotions or opening days by item: nobody buys anything, and a column or the file's name says it is a plan."""
    item = pick(files, names.EVENTS["item_id"], FITS["item_id"])
    block = None if item is None else _plan("item_drivers", files, _is_day, item)
    if item is None or block is None:
        return None
    block.add("item_id", item, id_expression(item))
    if not block.has("known_at"):
        is_catalogue = item.profile.is_key and block.expression("end_date") in (None, _OPEN)
        if is_catalogue or not files.says(names.PLANS):
            return None
        if files.is_dated:
            block.constant("known_at", _day_of_file(files.pattern), "told by the day of the file")
        else:
            block.constant("known_at", block.expression("date") or "", "known on the day itself; earlier, where the plan says so")
    before = len(block.columns)
    fill(block, names.PLANNED)
    if {mapped.contract for mapped in block.columns[before:]} <= {"location_id"}:
        if not files.says(names.PROMOTIONS):
            return None
        block.constant("is_promotion", "true", _BY_NAME)
    return block


def _day_of_file(pattern: str) -> str:
    """The day in a file's name as an expression."""
    if "{date}" in pattern:
        return r"TRY_CAST(regexp_extract(source_file, '.*(\d{4}-\d{2}-\d{2})', 1) AS DATE)"
    between = [re.escape(text) for text in re.split(r"\{yyyy\}|\{mm\}|\{dd\}", pattern)[1:3]]
    parts = rf"(\d{{4}}){between[0]}(\d{{2}}){between[1]}(\d{{2}})"
    return rf"TRY_CAST(regexp_replace(source_file, '.*{parts}.*', '\1-\2-\3') AS DATE)"


def market_days(files: FileSet) -> Block | None:
    """A calendar: one row a day or range of days, no item, place or person. Its other flags are kept under their own names.

    Other numbers, too, where a column says since when they are known: without one, outcomes of a day would be known years ahead.
    Where there are none at all, its name says what its days are.
    """
    block = _plan("market_days", files, lambda profile: _is_day(profile) and profile.is_unique, None)
    if block is None or any(pick(files, names.EVENTS[name], is_id, block.used) for name in ("item_id", "location_id")):
        return None
    fill(block, names.MARKET_DAYS)
    if not block.has("is_holiday") and not files.says(names.CALENDARS | names.PROMOTIONS):
        return None
    fits = is_number if block.has("known_at") else is_flag
    for column in files.columns:
        own = names.plain(column.name)
        is_free = column.name not in block.used and own not in INPUTS["market_days"].columns and not block.has(own)
        if is_free and fits(column.profile) and column.profile.symbol is None and re.fullmatch(OWN_NAME, own):
            block.add(own, column, None, "of your own; taken for known in advance" if fits is is_flag else "of your own")
    if {mapped.contract for mapped in block.columns} <= {"date", "end_date", "known_at"}:
        told = (("school_holiday", "1", names.SCHOOL), ("is_holiday", "true", names.HOLIDAYS), ("is_promotion", "true", names.PROMOTIONS))
        said = next(((contract, value) for contract, value, words in told if files.says(words)), None)
        if said is None:
            return None
        block.constant(*said, _BY_NAME)
    return block


def _is_day(profile: Profile) -> bool:
    return profile.is_temporal and not profile.has_time


def _plan(source: str, files: FileSet, fits: Fits, item: Column | None) -> Block | None:
    """A block with the day or days a row is about and, where a column says so, when it was known; None where somebody did something."""
    taken = set() if item is None else {item.name}
    known = pick(files, names.KNOWN, lambda profile: profile.is_temporal, taken)
    block = Block(source, files, used=taken if known is None else taken | {known.name})
    since = pick(files, names.STARTS, lambda profile: profile.is_temporal, block.used)
    last = None if since is None else pick(files, names.ENDS, lambda profile: profile.is_temporal, block.used | {since.name})
    is_of_changes = last is None and source == "item_drivers" and _is_of_prices(files, block.used)
    day = since if last is not None or is_of_changes else None
    is_held = is_of_changes and (day is not None or files.says(names.CHANGES))
    if day is None:
        day = pick(files, names.TIMES, fits, block.used)
    if day is None or _somebody_acts(files, block.used | {day.name} | (set() if last is None else {last.name})):
        return None
    first = day_expression(day)
    block.add("date", day, first)
    if last is not None:
        end, comment = day_expression(last), "the last day, itself included"
        if since is not None and meets_the_next(files, item, since, last):
            end, comment = f"{end} - 1", "the day before the next row begins"
        if source == "item_drivers" and last.profile.filled < 1:
            end, comment = f"coalesce({end}, {_OPEN})", f"{comment}; where it is open, until the item's next row"
        block.add("end_date", last, end, comment)
    elif is_held:
        block.constant("end_date", _OPEN, "until the item's next row")
    block.add("known_at", known, None if known is None else time_expression(known))
    return block


def _is_of_prices(files: FileSet, taken: set[str]) -> bool:
    """Whether rows tell prices that are not those of promotions, which end by themselves."""
    return pick(files, names.PLANNED["unit_price"], is_number, taken) is not None and not files.says(names.PROMOTIONS)


def _somebody_acts(files: FileSet, taken: set[str]) -> bool:
    """Whether rows say who did something, what, how much of it or for how much in all (a discount is no such amount)."""
    discount = pick(files, names.EVENTS["discount"], is_number, taken)
    taken = taken | ({discount.name} if discount else set())
    acts = ("user_id", "session_id", "order_id", "quantity", "rating")
    if any(pick(files, names.EVENTS[name], FITS[name], taken) for name in acts) or pick(files, names.TOTALS, is_number, taken):
        return True
    return pick(files, names.EVENTS["event_type"], is_type, taken) is not None
