"""What each value of an input must look like.

What belongs here: text -> typed value, and the reason why a row is refused. The same expression decides both: a row is
good where its reason is null.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from marketing_assets.compiled import written
from marketing_assets.config import Store
from marketing_assets.schemas import EVENT_TYPES, INPUTS, OWN_NAME, TYPES, column_of
from marketing_assets.sources.engine import leading
from marketing_assets.sources.instants import parse_instant, to_local, transitions

if TYPE_CHECKING:
    import ibis.expr.types as ir

FREE_TEXT = ("review_text", "search_query", "title")
"""Texts that are cut to the limit; any other text beyond it refuses the row."""
_DATED = ("events", "impressions", "conversions", "ad_reports", "surveys")
"""Inputs whose rows happened: not before first_day, not after they landed."""
_NAMES = {
    "instant": "date and time",
    "day": "date",
    "money": "amount",
    "integer": "whole number",
    "real": "finite number",
    "boolean": "true or false",
    "numbers": "JSON object of numbers named in small letters, digits and _",
}
_NUMBER = r"-?([0-9]{1,30}(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,2})?|true|false"
_PAIR = rf'\s*"{OWN_NAME}"\s*:\s*(null|{_NUMBER}|"\s*({_NUMBER})?\s*")\s*'
_NUMBERS = rf"^\s*\{{({_PAIR}(,{_PAIR})*)?\}}\s*$"
"""Numbers by name, written as such or as texts; a name may have none."""
_NOT_NEGATIVE = (
    "discount",
    "dwell_seconds",
    "spend",
    "unit_cost",
    "lead_time_days",
    "minimum_order_quantity",
    "planned_ad_spend",
    "budget",
    "capacity",
    "price",
    "impressions",
    "clicks",
    "conversions",
    "minimum",
    "maximum",
)
_ALLOWED = {
    ("events", "event_type"): EVENT_TYPES,
    ("refit_requests", "action"): ("refit", "stop_learning", "resume", "rollback"),
    ("placements", "pricing"): ("cpm", "cpc", "cpa"),
}
_SHOWN = 60
"""Characters of a refused value that its reason repeats."""
CLOCK_YEARS = 5
"""Years around the window for which the clock changes of instants that need not lie in it are known."""


def typed_value(text: Any, kind: str, store: Store, first: date, last: date) -> Any:
    """A text as the kind of value it should be; null where it is none. Instants become UTC."""
    import ibis

    if kind == "text":
        return text
    if kind == "instant":
        return parse_instant(text, store.timezone, first, last)
    if kind == "real":
        number = text.try_cast("float64")
        return ibis.ifelse(number.isnan() | number.isinf(), None, number)
    if kind == "numbers":
        return ibis.ifelse(text.re_search(_NUMBERS), text, None)
    if kind == "integer":
        # a cast of 6.5 would round; 6.0 is how spreadsheets write 6
        exact = text.try_cast("decimal(18, 4)")
        return ibis.ifelse(
            text.contains("."), ibis.ifelse(exact == exact.floor(), exact.cast("int64"), None), text.try_cast("int64")
        )
    return text.try_cast(TYPES[kind])


def mapped_columns(store: Store, source: str) -> set[str]:
    """The columns of an input the shop maps: by an expression, by the same name, or inline."""
    columns: set[str] = set()
    for block in store.blocks(source):
        if "*" in block.columns:
            return set(INPUTS[source].columns)
        columns.update(block.columns, *(block.rows or ()))
    return {column_of(source, name) or name for name in columns}


def typed(
    raw: ir.Table, source: str, store: Store, last: date, columns: Collection[str] | None = None, judged: bool = True
) -> ir.Table:
    """Rows of a raw table -> their place and ids, local_date, the typed columns of the input and, where judged, refusal.

    refusal says why the row is refused, null where it is good. local_date is the shop-local day of the column that dates
    the input (null for inputs without one). `columns`: where given, the others are known to be null. `last` is the last
    landed day of the rows.
    """
    spec = INPUTS[source]
    tight = (store.first_day - timedelta(days=2), last + timedelta(days=3 + store.cleaning.future_tolerance_days))
    wide = (store.first_day - timedelta(days=365 * CLOCK_YEARS), last + timedelta(days=365 * CLOCK_YEARS))
    present = tuple(name for name in spec.columns if columns is None or name in columns)
    rules = (store.timezone, store.first_day, repr(store.cleaning), *(transitions(store.timezone, *reach) for reach in (tight, wide)))
    name = f"{'judged' if judged else 'kept'}_{source}"
    return written(name, (present, rules), raw, lambda rows: _typed(rows, source, store, present, judged, tight, wide))


def _typed(
    raw: ir.Table, source: str, store: Store, present: Sequence[str], judged: bool, tight: tuple[date, date], wide: tuple[date, date]
) -> ir.Table:
    """`typed`, of which nothing but these arguments and the clock changes within tight and wide is asked."""
    import ibis

    spec = INPUTS[source]
    texts = {name: raw[name].nullif("") for name in present}
    values = {}
    for name, kind in spec.columns.items():
        if name not in present:
            values[name] = ibis.null(TYPES[kind])
            continue
        reach = tight if name == spec.landed_by and source in _DATED else wide
        value = typed_value(texts[name], kind, store, *reach)
        values[name] = leading(value, store.cleaning.max_text_length) if name in FREE_TEXT else value
    rows = raw.select(
        "landed_date",
        "raw_row_id",
        "row_hash",
        "source_file",
        "source_row",
        "source_error",
        **{f"text_{name}": text for name, text in texts.items()},
        **values,
    )
    local_date: Any = ibis.null("date")
    if spec.landed_by and spec.columns[spec.landed_by] == "day":
        local_date = rows[spec.landed_by]
    elif spec.landed_by and source in _DATED:
        local_date = to_local(rows[spec.landed_by], store.timezone, *tight).date()
    rows = rows.mutate(local_date=local_date)
    kept = ("landed_date", "raw_row_id", "row_hash", "source_file", "source_row", "local_date", *spec.columns)
    return rows.select(*kept, refusal=_reason(rows, source, store, present)) if judged else rows.select(*kept)


def _reason(rows: ir.Table, source: str, store: Store, present: Sequence[str]) -> Any:
    """Why a row is refused, naming column and value; null where it is good."""
    import ibis

    spec = INPUTS[source]
    limits = store.cleaning
    cases: list[tuple[Any, Any]] = [(rows.source_error.notnull(), rows.source_error)]

    def shown(name: str, problem: str) -> Any:
        return ibis.literal(f"{name} '") + leading(rows[f"text_{name}"], _SHOWN) + ibis.literal(f"' {problem}")

    def refuse(condition: Any, name: str, problem: str) -> None:
        cases.append((condition, shown(name, problem)))

    for name in spec.required:
        optional = name == "user_id" and source in ("events", "impressions")
        if not optional and (source, name) != ("events", "item_id"):
            is_missing = rows[f"text_{name}"].isnull() if name in present else ibis.literal(True)
            cases.append((is_missing, ibis.literal(f"{name} is missing")))
    if source == "events":
        cases.append((rows.item_id.isnull() & (rows.event_type != "search"), ibis.literal("item_id is missing")))
    if spec.one_of:
        absent = ibis.and_(*(rows[name].isnull() for name in spec.one_of))
        cases.append((absent, ibis.literal(f"one of {' and '.join(spec.one_of)} is needed")))
    for name in present:
        kind = spec.columns[name]
        if kind != "text":
            refuse(rows[name].isnull() & rows[f"text_{name}"].notnull(), name, f"is no {_NAMES[kind]}")
        elif name not in FREE_TEXT:
            refuse(rows[name].length() > limits.max_text_length, name, f"... is longer than {limits.max_text_length} characters")
        if (source, name) in _ALLOWED:
            allowed = _ALLOWED[source, name]
            refuse(~rows[name].isin(allowed), name, f"is none of {', '.join(allowed)}")
        if name in _NOT_NEGATIVE and kind in ("money", "integer", "real"):
            refuse(rows[name] < 0, name, "is negative")
        if name == "unit_price":
            refuse(rows[name] < 0, name, "is negative")
            refuse(rows[name] > limits.max_unit_price, name, f"is above {limits.max_unit_price:g}")
        if name == "quantity":
            moves = rows.event_type.isin(("purchase", "refund"))
            refuse(rows[name] == 0, name, "is zero")
            refuse((rows[name] < 0) & ~moves, name, "is negative")
            refuse(rows[name].abs() > limits.max_quantity, name, f"is above {limits.max_quantity}")
        if name == "hour":
            refuse((rows[name] < 0) | (rows[name] > 23), name, "is not within 0 and 23")
        if name in ("position", "pack_size"):
            refuse(rows[name] < 1, name, "is below 1")
        if name == "end_date" and "date" in spec.columns:
            refuse(rows[name] < rows.date, name, "lies before date")
        if name == "logging_propensity":
            refuse((rows[name] <= 0) | (rows[name] > 1), name, "is not a probability above 0")
    if spec.landed_by and spec.landed_by in present and source in _DATED:
        refuse(
            rows.local_date < ibis.literal(store.first_day, type="date"),
            spec.landed_by,
            f"lies before first_day {store.first_day}",
        )
        latest = rows.landed_date + ibis.interval(days=limits.future_tolerance_days)
        refuse(
            rows.local_date > latest.cast("date"),
            spec.landed_by,
            f"lies more than {limits.future_tolerance_days} day(s) after it landed",
        )
    return ibis.cases(*cases, else_=ibis.null("string"))
