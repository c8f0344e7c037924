"""What the values of one column look like: instants, dates, counts, money, flags, ids.

What belongs here: judging a sample of values. What does not: what a column means (columns.py), or reading files (looking.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

Kind = Literal["instant", "epoch", "clock", "boolean", "integer", "decimal", "text", "empty"]

_ISO = re.compile(r"\d{4}[-/]\d{1,2}[-/]\d{1,2}([ T]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?)?( ?(Z|z|UTC|GMT|[+-]\d{2}(:?\d{2})?))?")
_ZONE = re.compile(r".*:[0-9.]+ ?(Z|z|UTC|GMT|[+-]\d{2}(:?\d{2})?)")
_CLOCK = re.compile(r"([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d)?")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_MONEY = re.compile(r"[-+]?\s*[^\d\s.,+-]{0,3}\s*[-+]?[\d.,' ]*\d\s*[^\d\s.,+-]{0,3}")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(,\d{3})*(\.\d+)?")
_FORMATS = [
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%m/%d/%y %H:%M",
    "%m/%d/%Y",
    "%m/%d/%y",
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%d/%m/%y %H:%M",
    "%d/%m/%Y",
    "%d/%m/%y",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
    "%d.%m.%y",
    "%d-%m-%Y %H:%M:%S",
    "%d-%m-%Y %H:%M",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d-%m-%y",
    "%m-%d-%y",
    "%Y.%m.%d",
    "%Y%m%d",
    "%Y%m%d%H%M%S",
    "%Y%m%d %H:%M:%S",
    "%Y年%m月%d日",
    "%m %d, %Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%d %b %Y",
    "%d %B %Y",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%b-%d-%y",
    "%b-%d-%Y",
    "%b %d, %Y %H:%M:%S",
    "%d %b %Y %H:%M:%S",
    "%d %b %Y %H:%M",
    "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%Y %I:%M %p",
    "%m/%d/%y %I:%M %p",
    "%Y-%m-%d %I:%M:%S %p",
    "%Y-%m-%d %I:%M %p",
    "%a, %d %b %Y %H:%M:%S",
    "%a %b %d %H:%M:%S %Y",
    "%m/%d/%Y, %I:%M:%S %p",
    "%m/%d/%Y, %I:%M %p",
    "%m/%d/%y, %I:%M %p",
    "%m/%d/%Y, %H:%M:%S",
    "%d/%m/%Y, %H:%M:%S",
    "%d/%m/%Y, %H:%M",
    "%d.%m.%Y, %H:%M:%S",
    "%d.%m.%Y, %H:%M",
    "%b %d, %Y, %I:%M:%S %p",
    "%b %d, %Y, %I:%M %p",
    "%b %d, %Y %I:%M %p",
    "%B %d, %Y %I:%M %p",
    "%B %d, %Y %H:%M",
    "%d %B %Y %H:%M",
    "%d-%b-%Y %H:%M:%S",
    "%d-%b-%y %H:%M",
    "%Y年%m月%d日 %H:%M:%S",
    "%Y年%m月%d日 %H:%M",
    "%Y%m%dT%H%M%S",
    "%Y%m%dT%H%M%SZ",
    "%a, %d %b %Y %H:%M:%S %Z",
    "%a, %d %b %Y %H:%M:%S %z",
    "%d/%b/%Y:%H:%M:%S %z",
]
_EPOCHS = ((1, 9), (1_000, 12), (1_000_000, 15), (1_000_000_000, 18))
"""(units per second, digits of such a number less one): seconds, milliseconds, microseconds, nanoseconds."""
_FLAGS = frozenset(["0", "1", "true", "false", "t", "f", "yes", "no", "y", "n"])
NO_ONE = (
    "",
    "0",
    "-1",
    "null",
    "none",
    "nan",
    "na",
    "n/a",
    "nil",
    "guest",
    "anonymous",
    "unknown",
    "(not set)",
    "undefined",
    "-",
)
"""Ways exports write 'no user'."""
_NOTHING = frozenset(["null", "nan", "n/a", "#n/a", "undefined", "(not set)", "\\n"])
"""Ways exports write that a value is missing, where no shop means the word."""
SYMBOLS = {
    "€": "EUR",
    "£": "GBP",
    "$": "USD",
    "¥": "JPY",
    "￥": "CNY",
    "元": "CNY",
    "₹": "INR",
    "₩": "KRW",
    "zł": "PLN",
    "R$": "BRL",
    "CHF": "CHF",
}
_ENOUGH = 0.98
"""Share of the values that must be of a kind; the rest is dirt, which cleaning refuses row by row."""


@dataclass(frozen=True)
class Profile:
    """A sample of one column.

    filled: share of rows with a value. distinct: different values among `count` rows. least, most: of numbers. time_format: strptime
    format where the engine would not read the text by itself. per_second: units of an epoch. has_time, is_zoned: of instants.
    is_whole_float: whole numbers written '17850.0'. decimal_comma: of money. symbol: sign or code beside amounts, '' for amounts
    without one that are no plain numbers either, None for plain numbers. native: read from parquet with its own type. nothing: words found
    that say that a value is missing; they count as missing everywhere else. is_key: no value twice in any one file.
    """

    kind: Kind
    count: int = 0
    filled: float = 0.0
    distinct: int = 0
    least: float = 0.0
    most: float = 0.0
    mean_length: float = 0.0
    time_format: str | None = None
    is_month_first_unsure: bool = False
    per_second: int = 1
    has_time: bool = False
    is_zoned: bool = False
    is_whole_float: bool = False
    decimal_comma: bool = False
    symbol: str | None = None
    native: bool = False
    nothing: tuple[str, ...] = ()
    is_key: bool = False
    values: tuple[str, ...] = ()
    """Distinct values as text, most frequent first, at most 60."""
    shares: tuple[float, ...] = ()

    @property
    def is_numeric(self) -> bool:
        return self.kind in ("integer", "decimal")

    @property
    def is_temporal(self) -> bool:
        return self.kind in ("instant", "epoch")

    @property
    def is_flag(self) -> bool:
        """Only 0 and 1, or words for them."""
        return self.kind == "boolean"

    @property
    def is_unique(self) -> bool:
        return self.count > 1 and self.distinct >= 0.98 * self.count * self.filled > 0


def profile_of(values: Sequence[Any]) -> Profile:
    """Judge a sample of values, text or typed as parquet has them."""
    from collections import Counter

    present = [
        value
        for value in values
        if value is not None and not (isinstance(value, float) and value != value) and str(value).strip()
    ]
    nothing = {value for value in present if isinstance(value, str) and value.strip().lower() in _NOTHING}
    present = [value for value in present if value not in nothing] if nothing else present
    if not present:
        return Profile("empty", len(values))
    texts = [value.isoformat(sep=" ") if isinstance(value, datetime) else str(value).strip() for value in present]
    counted = Counter(texts).most_common()
    shared: dict[str, Any] = {
        "count": len(values),
        "filled": len(present) / len(values),
        "distinct": len(counted),
        "mean_length": sum(map(len, texts)) / len(texts),
        "nothing": tuple(sorted(nothing)),
        "values": tuple(value for value, _ in counted[:60]),
        "shares": tuple(count / len(texts) for _, count in counted[:60]),
    }
    if isinstance(present[0], datetime | date):
        first = present[0]
        if isinstance(first, datetime):
            return Profile("instant", has_time=True, is_zoned=first.tzinfo is not None, native=True, **shared)
        return Profile("instant", native=True, **shared)
    if isinstance(present[0], bool):
        return Profile("boolean", native=True, **shared)
    found = _instants(texts) or _numbers(texts) or _money(texts)
    if found is None:
        kind: Kind = "boolean" if {text.lower() for text in texts} <= _FLAGS else "text"
        if _share(texts, _CLOCK) >= _ENOUGH:
            kind = "clock"
        found = {"kind": kind}
    return Profile(**{"native": not isinstance(present[0], str), **shared, **found})


def day_of(value: Any, profile: Profile) -> date | None:
    """The day of a value of a temporal column, as it is written or on UTC's clock; None where it cannot be read."""
    if isinstance(value, date):
        return value.date() if isinstance(value, datetime) else value
    text = str(value).strip()
    try:
        if profile.kind == "epoch":
            return datetime.fromtimestamp(float(text) / profile.per_second, UTC).date()
        if profile.time_format:
            return datetime.strptime(text, profile.time_format).replace(tzinfo=UTC).date()
        return date.fromisoformat(text[:10].replace("/", "-"))
    except (ValueError, OverflowError, OSError):
        return None


def _share(texts: Sequence[str], expression: re.Pattern[str]) -> float:
    return sum(expression.fullmatch(text) is not None for text in texts) / len(texts)


def _instants(texts: Sequence[str]) -> dict[str, Any] | None:
    if _share(texts, _ISO) >= _ENOUGH:
        is_iso_day = all(re.match(r"\d{4}[-/]\d{2}[-/]\d{2}", text) for text in texts[:500])
        zoned = _share(texts, _ZONE) >= 0.5
        timed = any(":" in text for text in texts)
        if is_iso_day or zoned:
            return {"kind": "instant", "has_time": timed, "is_zoned": zoned}
    sample = sorted(set(texts))
    sample = sample[:: max(1, len(sample) // 300)]
    digits_only = all(text.isdigit() for text in sample)
    if digits_only and not all(re.match(r"(19|20)\d{2}(0[1-9]|1[0-2])", text) for text in sample):
        return None
    read: list[tuple[str, list[datetime]]] = []
    for pattern in _FORMATS:
        if digits_only and pattern not in ("%Y%m%d", "%Y%m%d%H%M%S"):
            continue
        if digits_only and len(sample[0]) != (8 if pattern == "%Y%m%d" else 14):
            continue
        if not any(_read(text, pattern) for text in sample[:5]):
            continue
        times = [time for text in sample if (time := _read(text, pattern)) is not None]
        if len(times) >= _ENOUGH * len(sample):
            read.append((pattern, times))
    if not read:
        return None
    # where day and month could be either, the reading in which the dates lie closer together is the likelier
    read.sort(key=lambda one: (max(one[1]) - min(one[1]), len({time.strftime("%Y%m") for time in one[1]})))
    pattern, times = read[0]
    rivals = [other for other, _ in read[1:] if sorted(other) == sorted(pattern)]
    return {
        "kind": "instant",
        "time_format": pattern,
        "has_time": "%M" in pattern,
        "is_zoned": pattern.endswith(("%z", "Z")),
        "is_month_first_unsure": bool(rivals),
    }


def _read(text: str, pattern: str) -> datetime | None:
    try:
        return datetime.strptime(text, pattern).replace(tzinfo=UTC)
    except ValueError:
        return None


def _numbers(texts: Sequence[str]) -> dict[str, Any] | None:
    if _share(texts, _NUMBER) < _ENOUGH:
        return None
    numbers = [float(text) for text in texts if _NUMBER.fullmatch(text)]
    least, most = min(numbers), max(numbers)
    found: dict[str, Any] = {"least": least, "most": most}
    whole = all(number == int(number) for number in numbers if abs(number) < 1e18)
    if least >= 4e8 and most <= 4.2e9 and not whole:
        return {"kind": "epoch", "has_time": True, "is_zoned": True, **found}
    if whole and set(numbers) <= {0.0, 1.0}:
        return {"kind": "boolean", **found}
    if whole:
        middle = sorted(numbers)[len(numbers) // 2]
        # so long a number is an id, unless it stands for a time no finer than a clock's
        fine = 1e9 if _share(texts, re.compile(r"\d+000")) >= _ENOUGH else 1e8
        for per_second, digits in (one for one in _EPOCHS if one[0] <= fine):
            if 10**digits <= middle / 0.4 and 4e8 <= middle / per_second <= 4.2e9:
                found["per_second"] = per_second
                return {
                    "kind": "epoch",
                    "has_time": True,
                    "is_zoned": True,
                    "is_whole_float": any("." in text for text in texts[:50]),
                    **found,
                }
        return {"kind": "integer", "is_whole_float": any(text.endswith(".0") for text in texts), **found}
    return {"kind": "decimal", **found}


def _money(texts: Sequence[str]) -> dict[str, Any] | None:
    """'£3.40', '1.234,50 €', '12,5'."""
    if _share(texts, _MONEY) < _ENOUGH:
        return None
    symbols = {symbol for symbol in SYMBOLS if any(symbol in text for text in texts)}
    comma = sum(re.search(r",\d{1,2}\D*$", text) is not None for text in texts)
    point = sum(re.search(r"\.\d{1,2}\D*$", text) is not None for text in texts)
    if not symbols and not comma and not point and _share(texts, _THOUSANDS) < _ENOUGH:
        return None
    decimal_comma = comma > point
    numbers = [number for text in texts if (number := money_of(text, decimal_comma)) is not None]
    if len(numbers) < _ENOUGH * len(texts):
        return None
    symbol = max(symbols, key=lambda one: (len(one), one)) if symbols else None
    if symbol is None and (code := re.fullmatch(r"[^A-Z]*([A-Z]{3})[^A-Z]*", texts[0])):
        symbol = code[1]
    return {
        "kind": "decimal",
        "least": min(numbers),
        "most": max(numbers),
        "decimal_comma": decimal_comma,
        "symbol": symbol or "",
        "native": False,
    }


def money_of(text: str, decimal_comma: bool) -> float | None:
    """The number in a written amount, as the expression in store.yaml will read it; None where there is none."""
    digits = re.sub(r"[^0-9,.\-]", "", text)
    digits = digits.replace(".", "").replace(",", ".") if decimal_comma else digits.replace(",", "")
    try:
        return float(digits)
    except ValueError:
        return None
