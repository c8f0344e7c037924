"""What a column is of: an item, a unit, a line or a whole order. Names often do not say; other rows of the same thing do.

What belongs here: comparing rows of a sample. What does not: names and expressions (columns.py, recognition.py).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import combinations, pairwise
from statistics import median
from typing import Any, Literal

from marketing_assets.onboarding.looking import Column, FileSet
from marketing_assets.onboarding.values import money_of

_FEW = 5
"""So many comparisons at least decide."""
_CLOSE = 0.02
"""Amounts that differ by no more than this share are taken for the same."""


def amount_of(value: Any, column: Column) -> float | None:
    """A value of a column of numbers as a number, None where it is none."""
    if value is None:
        return None
    if column.profile.symbol is not None:
        return money_of(str(value), column.profile.decimal_comma)
    try:
        return float(value)
    except ValueError:
        return None


def of_whole_orders(files: FileSet, order: Column | None, item: Column | None) -> set[str]:
    """Columns of numbers that are the same in all lines of an order, and others in the next: totals, fees and counts of the order."""
    if order is None or item is None or order.profile.is_unique:
        return set()
    orders: dict[str, list[Any]] = {}
    for row in files.rows:
        if (name := row.get(order.name)) not in (None, ""):
            orders.setdefault(str(name), []).append(row)
    several = [rows for rows in orders.values() if len({str(row.get(item.name)) for row in rows}) > 1]
    if len(several) < _FEW:
        return set()
    found = set()
    for column in files.columns:
        if column.profile.kind not in ("integer", "decimal", "boolean") or column.name in (order.name, item.name):
            continue
        same = sum(len({row.get(column.name) for row in rows}) == 1 for rows in several) / len(several)
        apart = sum(one[-1].get(column.name) != other[0].get(column.name) for one, other in pairwise(several))
        if same >= 0.95 and apart >= 0.5 * (len(several) - 1):
            found.add(column.name)
    return found


def is_of_items(files: FileSet, item: Column, column: Column) -> bool:
    """Whether rows of the same item mostly say the same in a column: a title of a review is none of what it is about."""
    told: dict[str, Counter[str]] = defaultdict(Counter)
    for row in files.rows:
        if (value := row.get(column.name)) not in (None, ""):
            told[str(row.get(item.name))][str(value)] += 1
    several = [counts for counts in told.values() if counts.total() > 1]
    rows = sum(counts.total() for counts in several)
    return rows < _FEW or sum(counts.most_common(1)[0][1] for counts in several) >= 0.6 * rows


def amount_is_of(files: FileSet, item: Column, quantity: Column, amount: Column) -> Literal["unit", "line"] | None:
    """Whether an amount grows with the quantity of the same item, None where the sample does not tell."""
    seen: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in files.rows:
        pieces, money = amount_of(row.get(quantity.name), quantity), amount_of(row.get(amount.name), amount)
        if pieces and money:
            seen[str(row.get(item.name))][abs(pieces)].append(abs(money))
    votes = {"unit": 0, "line": 0}
    for amounts in seen.values():
        for few, many in combinations(sorted(amounts), 2):
            grown = median(amounts[many]) / median(amounts[few])
            votes["unit"] += abs(grown - 1) <= _CLOSE
            votes["line"] += abs(grown / (many / few) - 1) <= _CLOSE
    if max(votes.values()) < _FEW or min(votes.values()) > 0.2 * max(votes.values()):
        return None
    return "line" if votes["line"] > votes["unit"] else "unit"


def meets_the_next(files: FileSet, of: Column | None, first: Column, last: Column) -> bool:
    """Whether most ranges, of the same item where there is one, end on the day on which the next begins: such an end is not itself included."""
    ranges = {(None if of is None else row.get(of.name), row.get(first.name), row.get(last.name)) for row in files.rows}
    starts = {(item, start) for item, start, _ in ranges}
    followed = len(starts) - len({item for item, _ in starts})
    return followed > 0 and sum(end != start and (item, end) in starts for item, start, end in ranges) > 0.5 * followed


def is_unique(files: FileSet, *columns: Column) -> bool:
    """Whether no two rows of the sample say the same in all of these columns."""
    said = [tuple(row.get(column.name) for column in columns) for row in files.rows]
    return len(set(said)) == len(said)
