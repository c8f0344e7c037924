"""Columns of a file set -> contract columns: finding them by name and values together, and wording their expressions.

What belongs here: one column at a time. What does not: what a file as a whole is (recognition.py), lists of names (names.py), or
judging values (values.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from marketing_assets.onboarding import names
from marketing_assets.onboarding.looking import Column, FileSet, Joined
from marketing_assets.onboarding.values import NO_ONE, Profile
from marketing_assets.schemas import INPUTS
from marketing_assets.sources.mapping import parse


@dataclass(frozen=True)
class Mapped:
    """One line of `columns`. comment: what was guessed, for a person to confirm."""

    contract: str
    expression: str
    comment: str = ""


@dataclass
class Block:
    """One source block to be written. used: names of file columns it reads. is_beside: rests on the files of another block.
    person: where user_id is a device, the column that says in some rows who uses it."""

    source: str
    files: FileSet
    columns: list[Mapped] = field(default_factory=list)
    where: str | None = None
    where_comment: str = ""
    used: set[str] = field(default_factory=set)
    is_beside: bool = False
    person: Column | None = None
    notes: list[str] = field(default_factory=list)

    def add(self, contract: str, column: Column | None, expression: str | None = None, comment: str = "") -> None:
        """Map a contract column, by default to the column as it is."""
        if column is not None:
            self.used.add(column.name)
            self.columns.append(Mapped(contract, expression or column.expression, comment))

    def constant(self, contract: str, expression: str, comment: str) -> None:
        self.columns.append(Mapped(contract, expression, comment))

    def has(self, contract: str) -> bool:
        return any(mapped.contract == contract for mapped in self.columns)

    def expression(self, contract: str) -> str | None:
        return next((mapped.expression for mapped in self.columns if mapped.contract == contract), None)

    @property
    def joined(self) -> list[Joined]:
        """Files beside its own that it reads, and those by which they are found."""
        texts = [mapped.expression for mapped in self.columns] + ([self.where] if self.where else [])
        needs = {name for text in texts if text != "*" for name in parse(text, "").needs}
        chosen: list[Joined] = []
        for one in reversed(self.files.joined):
            if one.name in needs:
                chosen.insert(0, one)
                needs |= set(parse(one.by, "").needs)
        return chosen

    @property
    def left_over(self) -> list[str]:
        return [column.name for column in self.files.columns if column.name not in self.used]


Fits = Callable[[Profile], bool]


PER_LINE = ("item_id", "event_id", "quantity", "unit_price", "discount", "title", "category", "brand", "is_clicked", "position")
"""Contract columns of a line: what stands beside lines is of all of them together."""


def pick(files: FileSet, known: Sequence[str], fits: Fits, taken: set[str] = frozenset()) -> Column | None:  # type: ignore[assignment]
    """The column whose name says most that it is one of `known` and whose values fit; None where none does."""
    best: tuple[float, Column] | None = None
    for column in files.columns:
        score = names.likeness(column.name, list(known))
        if (
            score > 0
            and column.name not in taken
            and column.profile.kind != "empty"
            and fits(column.profile)
            and (best is None or score > best[0])
        ):
            best = (score, column)
    return None if best is None else best[1]


# --- what values may be -----------------------------------------------------------------------------------------------


def is_id(profile: Profile) -> bool:
    return profile.kind in ("text", "integer", "epoch", "boolean") and profile.mean_length <= 100


def is_number(profile: Profile) -> bool:
    return profile.kind in ("integer", "decimal", "boolean")


def is_count(profile: Profile) -> bool:
    return profile.kind in ("integer", "boolean") or (profile.kind == "decimal" and profile.most < 1e6)


def is_word(profile: Profile) -> bool:
    return profile.kind in ("text", "integer", "boolean")


def is_flag(profile: Profile) -> bool:
    return profile.is_flag


def is_share(profile: Profile) -> bool:
    return is_number(profile) and profile.least >= 0 and profile.most <= 1


def is_text(profile: Profile) -> bool:
    return profile.kind == "text"


def is_prose(profile: Profile) -> bool:
    return profile.kind == "text" and profile.mean_length > 12


def is_rating(profile: Profile) -> bool:
    return is_number(profile) and profile.least >= 0 and profile.most <= 100 and profile.distinct <= 101


def is_type(profile: Profile) -> bool:
    """Most values are words for event types."""
    if profile.kind not in ("text", "integer") or profile.distinct > 60:
        return False
    return (
        sum(share for value, share in zip(profile.values, profile.shares, strict=True) if names.event_type_of(value) is not None)
        > 0.5
    )


FITS: dict[str, Fits] = {
    "user_id": lambda profile: (is_id(profile) or profile.kind == "decimal") and profile.distinct > 1,
    "item_id": lambda profile: is_id(profile) and profile.distinct > 1,
    "event_id": lambda profile: is_id(profile) and profile.is_unique,
    "session_id": is_id,
    "order_id": is_id,
    "quantity": is_count,
    "unit_price": is_number,
    "discount": lambda profile: is_number(profile) and profile.least >= 0,
    "rating": is_rating,
    "review_text": is_prose,
    "dwell_seconds": is_number,
    "search_query": is_text,
    "device": is_text,
    "channel": is_word,
    "location_id": is_word,
    "is_clicked": is_flag,
    "placement_id": is_id,
    "creative_id": is_id,
    "impression_id": is_id,
    "opportunity_id": is_id,
    "audience_id": is_id,
    "campaign_id": is_id,
    "position": lambda profile: is_count(profile) and profile.least >= 1,
    "policy_id": is_text,
    "logging_propensity": lambda profile: is_share(profile) and profile.kind == "decimal",
    "spend": is_number,
    "is_converted": is_flag,
    "conversion_value": is_number,
    "is_holdout": is_flag,
    "impressions": is_count,
    "clicks": is_count,
    "hour": lambda profile: is_count(profile) and profile.most <= 23,
    "conversions": is_count,
    "title": is_text,
    "category": is_word,
    "brand": is_text,
    "unit_cost": is_number,
    "stock_on_hand": is_count,
    "stock_on_order": is_count,
    "lead_time_days": is_count,
    "pack_size": is_count,
    "minimum_order_quantity": is_count,
    "email": is_text,
    "phone": is_word,
    "country": is_text,
    "has_marketing_consent": is_flag,
    "budget": is_number,
    "budget_period": is_text,
    "objective": is_text,
    "start_date": lambda profile: profile.is_temporal,
    "end_date": lambda profile: profile.is_temporal,
    "is_promotion": is_flag,
    "is_available": is_flag,
    "planned_ad_spend": is_number,
    "is_holiday": is_flag,
}


# --- expressions ------------------------------------------------------------------------------------------------------


def time_expression(column: Column, clock: Column | None = None) -> str:
    """An instant: as it stands where the engine reads it, else parsed. clock: a column with the time of the day."""
    text, profile = column.expression, column.profile
    if profile.kind == "epoch":
        number = text if profile.native else f"TRY_CAST({text} AS DOUBLE)"
        return f"to_timestamp({number})" if profile.per_second == 1 else f"to_timestamp({number} / {profile.per_second})"
    if clock is not None:
        day = f"strftime({text}, '%Y-%m-%d')" if profile.native else text
        joined = f"{day} || ' ' || {clock.expression}"
        if profile.time_format:
            seconds = all(value.count(":") == 2 for value in clock.profile.values)
            return f"try_strptime({joined}, '{profile.time_format} %H:%M{':%S' if seconds else ''}')"
        return joined
    if profile.time_format is None:
        return text
    read = f"try_strptime({text}, '{profile.time_format}')"
    # the sign is read as a letter like any other
    return f"CAST({read} AS VARCHAR) || '+00'" if profile.time_format.endswith("SZ") else read


def day_expression(column: Column) -> str:
    """A date."""
    text = time_expression(column)
    return (
        f"CAST({text} AS DATE)" if column.profile.time_format or column.profile.kind == "epoch" else f"TRY_CAST({text} AS DATE)"
    )


def id_expression(column: Column, *, is_user: bool = False) -> str:
    """An id as text: without '.0' behind it; for users, null where the export writes that nobody is known."""
    text, profile = column.expression, column.profile
    if profile.is_whole_float:
        text = f"CAST(CAST({text} AS BIGINT) AS VARCHAR)" if profile.native else f"regexp_replace({text}, '\\.0$', '')"
    if is_user:
        nobody = [value for value in profile.values[:20] if value.lower() in NO_ONE and not _may_be_a_user(profile, value)]
        plain = [value[:-2] if profile.is_whole_float and value.endswith(".0") else value for value in nobody]
        whole = f"CAST({text} AS VARCHAR)" if profile.native else text
        for value in dict.fromkeys(plain):
            whole = text = f"nullif({whole}, '{value}')"
    return text


def _may_be_a_user(profile: Profile, value: str) -> bool:
    """0 is a user like any other unless it stands in far more rows than the next."""
    if value.removesuffix(".0") != "0":
        return False
    others = [share for other, share in zip(profile.values, profile.shares, strict=True) if other != value]
    return profile.shares[profile.values.index(value)] < 3 * max(others, default=1.0)


def number_expression(column: Column) -> str:
    """A number; currency signs and separators taken out."""
    text, profile = column.expression, column.profile
    if profile.symbol is None:
        return text
    digits = f"regexp_replace({text}, '[^0-9,.-]', '', 'g')"
    return f"replace(replace({digits}, '.', ''), ',', '.')" if profile.decimal_comma else f"replace({digits}, ',', '')"


def flag_expression(column: Column) -> str:
    return (
        f"regexp_replace({column.expression}, '\\.0$', '')"
        if any(value.endswith(".0") for value in column.profile.values)
        else column.expression
    )


def find_time(files: FileSet, known: Sequence[str]) -> tuple[Column, Column | None] | None:
    """The column that says when, and one with the time of the day where that stands apart. Finer times win over days."""
    found = [
        (names.likeness(column.name, list(known)) + (0.3 if column.profile.has_time else 0), column)
        for column in files.columns
        if column.profile.is_temporal and column.profile.filled > 0.5
    ]
    named = [one for one in found if one[0] > 0 and names.likeness(one[1].name, list(known)) > 0]
    # an epoch may be an id as long as its name does not say otherwise
    fallback = [one for one in found if one[1].profile.kind == "instant"]
    chosen = max(named or fallback, key=lambda one: one[0], default=None)
    if chosen is None:
        return None
    column = chosen[1]
    clock = None
    if column.profile.kind == "instant" and not column.profile.has_time:
        clock = pick(files, names.CLOCKS, lambda profile: profile.kind == "clock")
    return column, clock


def _expression_for(contract: str, kind: str, column: Column) -> str:
    if contract == "user_id":
        return id_expression(column, is_user=True)
    if kind == "text":
        return id_expression(column) if contract.endswith("_id") else column.expression
    if kind == "boolean":
        return flag_expression(column)
    if kind == "day":
        return day_expression(column)
    return time_expression(column) if kind == "instant" else number_expression(column)


def fill(block: Block, known: dict[str, list[str]], only: Sequence[str] | None = None, aside: Collection[str] = ()) -> None:
    """Map every contract column of `known` that a column is found for; a file column serves one contract column. aside: columns with amounts
    of whole orders, which are none of a line."""
    kinds = INPUTS[block.source].columns
    wanted = [
        (names.likeness(column.name, list(listed)), contract, column)
        for contract, listed in known.items()
        if (only is None or contract in only) and not block.has(contract)
        for column in block.files.columns
        if column.profile.kind != "empty" and column.name not in block.used and FITS[contract](column.profile)
        if ((column.is_element or not block.files.has_lines) and column.name not in aside) or contract not in PER_LINE
    ]
    for score, contract, column in sorted(wanted, key=lambda one: (-one[0], one[1], one[2].name)):
        if score > 0 and column.name not in block.used and not block.has(contract):
            block.add(contract, column, _expression_for(contract, kinds[contract], column))


def column_of(block: Block, contract: str) -> Column | None:
    """The column a contract column is mapped to, None where it is another expression."""
    text = block.expression(contract)
    found = (column for column in block.files.columns if column.name in block.used)
    return next((column for column in found if text in (column.expression, id_expression(column), number_expression(column))), None)
