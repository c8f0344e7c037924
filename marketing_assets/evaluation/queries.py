"""Ibis queries compiled once per process and run with other dates.

What belongs here: the decorator. What does not: any query (they stand beside the figures they feed).

Compiling an Ibis expression takes about as long as a small shop's whole day of figures. A query differs from day to day in
its dates only, so it is compiled once with stand-in dates, which are then put in as literals of the compiled text.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from datetime import date
from typing import Any

import polars as pl

from marketing_assets.compiled import compiled, date_literal
from marketing_assets.schemas import TABLES
from marketing_assets.warehouse import Reader, WarehouseError

Tables = Callable[[str], Any]
"""Name -> the published table as an Ibis expression without rows of its own; a query filters it by its dates."""

_STAND_INS = [date(1800, month, 1) for month in range(1, 13)]
_COMPILED: dict[tuple[Hashable, ...], str] = {}


def _unbound(name: str) -> Any:
    import ibis

    return ibis.table(TABLES[name].columns, name=name)


def query(build: Callable[..., Any]) -> Callable[..., pl.DataFrame]:
    """Make `build(table, *arguments) -> Ibis expression` a function `(reader, *arguments) -> frame`.

    Arguments are dates, used as they are (no arithmetic on them inside, the expression is built once), and hashable options.
    Every date must lie within what the reader may see, and the query must filter each table's partition column by one.
    Sums come back as 64-bit numbers. Rows come in no particular order.
    """

    @functools.wraps(build)
    def run(reader: Reader, *arguments: Hashable) -> pl.DataFrame:
        days = [value for value in arguments if isinstance(value, date)]
        if late := [day for day in days if day > reader.last_day]:
            raise WarehouseError(f"{build.__name__}: asked for {late[0]}, after the newest day of the window, {reader.last_day}")
        key = (build.__module__, build.__qualname__, *("day" if isinstance(value, date) else value for value in arguments))
        if key not in _COMPILED:
            stand_ins = iter(_STAND_INS)
            given = [next(stand_ins) if isinstance(value, date) else value for value in arguments]
            _COMPILED[key] = compiled(build(_unbound, *given))
        text = _COMPILED[key]
        for stand_in, day in zip(_STAND_INS, days, strict=False):
            text = text.replace(date_literal(stand_in), date_literal(day))
        return plain_numbers(reader.connection.execute(text).pl())

    return run


def plain_numbers(frame: pl.DataFrame) -> pl.DataFrame:
    """Decimals as floats and integers of any width (sums are decimals without fraction) as 64 bits."""
    casts: dict[str, type[pl.Int64] | type[pl.Float64]] = {}
    for name, kind in frame.schema.items():
        if isinstance(kind, pl.Decimal):
            casts[name] = pl.Int64 if kind.scale == 0 else pl.Float64
        elif kind.is_integer():
            casts[name] = pl.Int64
    return frame.cast({**casts})  # type: ignore[dict-item]
