"""Instants, shop-local days and UTC, as expressions.

What belongs here: reading an instant from text and moving it between the shop's clock and UTC. Transitions of the zone
are put into the expression as numbers, so that every engine agrees on them and none looks a zone up row by row.
"""

from __future__ import annotations

import functools
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

_ZONED = r"^(.*:[0-9.]+) ?([Zz]|UTC|GMT|[+-][0-9]{2}(:?[0-9]{2})?)$"


@functools.lru_cache(maxsize=256)
def transitions(timezone: str, first: date, last: date) -> tuple[int, tuple[tuple[datetime, int, int], ...]]:
    """Seconds east of UTC at the start of `first`, and each change up to `last`: (instant UTC naive, seconds before, after)."""
    zone = ZoneInfo(timezone)

    def offset(instant: datetime) -> int:
        shift = instant.replace(tzinfo=UTC).astimezone(zone).utcoffset()
        assert shift is not None
        return int(shift.total_seconds())

    changes = []
    start = datetime.combine(first, time())
    end = datetime.combine(last, time())
    instant, before = start, offset(start)
    while instant < end:
        later = instant + timedelta(days=1)
        if (after := offset(later)) != before:
            low, high = instant, later
            while high - low > timedelta(seconds=1):
                middle = low + timedelta(seconds=int((high - low).total_seconds()) // 2)
                low, high = (middle, high) if offset(middle) == before else (low, middle)
            changes.append((high, before, after))
            before = after
        instant = later
    return offset(start), tuple(changes)


def _shift(instant: Any, steps: list[tuple[datetime, int]], last: int, sign: int) -> Any:
    """`instant` moved by the seconds of the first step it lies before, else by `last`."""
    import ibis

    def moved(seconds: int) -> Any:
        return instant + ibis.interval(seconds=sign * seconds) if seconds else instant

    if not steps:
        return moved(last)
    return ibis.cases(*((instant < ibis.literal(until), moved(seconds)) for until, seconds in steps), else_=moved(last))


def to_local(instant: Any, timezone: str, first: date, last: date) -> Any:
    """A UTC timestamp on the shop's clock. Exact from `first` to `last`; beyond, the nearest offset is used."""
    start, changes = transitions(timezone, first, last)
    return _shift(instant, [(at, before) for at, before, _ in changes], changes[-1][2] if changes else start, 1)


def to_utc(local: Any, timezone: str, first: date, last: date) -> Any:
    """A time on the shop's clock in UTC: of an hour that comes twice the first, an hour that never was moves forward."""
    start, changes = transitions(timezone, first, last)
    steps = [(at + timedelta(seconds=max(before, after)), before) for at, before, after in changes]
    return _shift(local, steps, changes[-1][2] if changes else start, -1)


def parse_instant(text: Any, timezone: str, first: date, last: date) -> Any:
    """Text -> UTC timestamp, null where it is none. With an offset, Z or UTC as it stands, else on the shop's clock."""
    import ibis

    def instant(written: Any) -> Any:
        found = written.try_cast("timestamp(6)")
        # within the years a calendar writes: at the end of those the engine can count, a shift by hours is an error
        return ibis.ifelse(found.between(ibis.literal(datetime.min), ibis.literal(datetime.max)), found, None)

    local = to_utc(instant(text), timezone, first, last)
    # 'YYYY-MM-DD HH:MM:SS' with or without Z or +00 is by far the most frequent; a regular expression per row costs more
    # than the rest together. The engine's own cast of a text with an offset drops the offset.
    has_seconds = text.substr(16, 1) == ":"
    is_plain = has_seconds & (text.length() == 19)
    ends_utc = text.endswith("Z") | text.endswith("+00") | text.endswith("+00:00") | text.endswith(" UTC")
    clock = instant(text.re_extract(_ZONED, 1))
    zone = text.re_extract(_ZONED, 2)
    hours = zone.substr(1, 2).try_cast("int64").fill_null(0)
    minutes = ibis.ifelse(zone.length() > 3, zone.right(2).try_cast("int64"), 0).fill_null(0)
    seconds = ibis.ifelse(zone.startswith("-"), -1, 1) * (hours * 3600 + minutes * 60)
    zoned = ibis.cases(
        (is_plain, ibis.null("timestamp(6)")),
        (has_seconds & ends_utc, instant(text)),
        (text.re_search(_ZONED), clock - seconds.cast("int64").as_interval("s")),
        else_=ibis.null("timestamp(6)"),
    )
    return zoned.coalesce(local)  # which is said once: with every clock change of years in it, it is most of the expression
