"""Item-to-item links: what people turn to after, before or along with an item.

What belongs here: counting pairs, weighing them, keeping the strongest, and the links' text form. What does not: who gets
what (scores.py).

People come as visits in order, each visit a set of items (one item each in a plain sequence). A pair of items counts the
more the closer their visits: `within` in the same visit, decay^(gap - 1) for `gap` visits on, that times `backward` for the
way back. The count of a -> b is divided by powers of how often a and b occur, so that neither common nor rare items win
by that alone (a damped cosine).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import scipy.sparse as sp

from marketing_assets.recommendations.history import Floats, Integers, expand
from marketing_assets.recommendations.lists import BLOCK_CELLS, DECIMALS, Singles, best

LEVELS = 9999
"""A link is kept as a whole number of 1 / LEVELS of its item's strongest, so that its text is short and says all."""


DENSE_SHARE = 0.05
"""Where more pairs than this share of items x items occur, rows are searched as dense ones."""


@dataclass(frozen=True)
class LinkSettings:
    """within, backward: weight of the same visit and of the way back; decay: per visit between; span: visits looked ahead.

    from_power, to_power: powers of the counts of a and b that a -> b is divided by. neighbours: links kept per item.
    large_visit: a visit of n items weighs (n)^-large_visit per item, so that one huge basket does not link everything.
    """

    within: float = 1.0
    decay: float = 0.8
    backward: float = 0.5
    span: int = 2
    from_power: float = 0.5
    to_power: float = 0.4
    neighbours: int = 40
    large_visit: float = 0.5


@dataclass(frozen=True)
class Links:
    """items: ids. matrix[a, b]: strength of a -> b, rows sorted by falling strength within the CSR arrays."""

    items: pl.Series
    matrix: sp.csr_array

    @classmethod
    def kept(cls, items: pl.Series, matrix: sp.csr_array) -> Links:
        """Links at the precision of their text, so that nothing differs between the day of the fit and later days."""
        best, levels = _levels(matrix)
        lengths = np.diff(matrix.indptr)
        return cls(
            items, sp.csr_array((levels / LEVELS * np.repeat(best, lengths), matrix.indices, matrix.indptr), shape=matrix.shape)
        )

    def as_text(self) -> str:
        """Per item its strongest link, and 'place:level' of all, strongest first."""
        best, levels = _levels(self.matrix)
        row = np.repeat(np.arange(len(self.items)), np.diff(self.matrix.indptr))
        pairs = pl.DataFrame({"row": row, "place": self.matrix.indices, "level": levels})
        texts = pairs.group_by("row", maintain_order=True).agg(text=pl.format("{}:{}", "place", "level").str.join(" "))
        lines = dict(zip(texts["row"].to_list(), texts["text"].to_list(), strict=True))
        links = [lines.get(place, "") for place in range(len(self.items))]
        return json.dumps({"items": self.items.to_list(), "best": best.tolist(), "links": links}, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Links:
        stored = json.loads(text)
        n = len(stored["items"])
        words = pl.DataFrame({"row": np.arange(n), "text": stored["links"]}, schema={"row": pl.Int64, "text": pl.String})
        pairs = words.filter(pl.col("text") != "").with_columns(pl.col("text").str.split(" ")).explode("text")
        fields = pairs.select("row", pl.col("text").str.split_exact(":", 1).struct.unnest())
        row, place, level = (fields.to_series(column).cast(pl.Int64).to_numpy() for column in range(3))
        indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n))])
        strength = level / LEVELS * np.asarray(stored["best"], dtype=np.float64)[row]
        items = pl.Series("item_id", stored["items"], dtype=pl.String)
        return cls(items, sp.csr_array((strength, place, indptr), shape=(n, n)))

    def over(self, items: pl.Series) -> sp.csr_array:
        """The links between places of another list of ids; items it lacks are dropped."""
        where = pl.DataFrame({"item_id": items, "place": np.arange(len(items))}, schema={"item_id": pl.String, "place": pl.Int64})
        new = self.items.to_frame("item_id").join(where, on="item_id", how="left", maintain_order="left")["place"]
        places = new.fill_null(-1).to_numpy()
        source = np.repeat(places, np.diff(self.matrix.indptr))
        target = places[self.matrix.indices]
        kept = (source >= 0) & (target >= 0)
        order = np.argsort(source[kept], kind="stable")
        source, target, data = source[kept][order], target[kept][order], self.matrix.data[kept][order]
        indptr = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=len(items)))])
        return sp.csr_array((data, target, indptr), shape=(len(items), len(items)))


def fit_links(
    user: Integers, visit: Integers, item: Integers, strength: Floats, items: int, settings: LinkSettings
) -> sp.csr_array:
    """Links from visits: parallel arrays sorted by user, then visit (any number that rises with time), one row per item of it.

    strength: above 0, at most 1 counted. Returns items x items, the strongest `neighbours` of each row, strongest first.
    """
    if not len(user):
        return sp.csr_array((items, items))
    starts = np.concatenate([[True], (user[1:] != user[:-1]) | (visit[1:] != visit[:-1])])
    number = np.cumsum(starts) - 1
    size = np.bincount(number)
    value = np.minimum(strength, 1.0) * size[number].astype(np.float64) ** -settings.large_visit
    visits = sp.csr_array((value.astype(np.float32), (number, item)), shape=(len(size), items))
    owner = user[starts]
    earlier = _earlier_visits(owner, settings)
    occurs = np.bincount(item, weights=np.minimum(strength, 1.0), minlength=items).astype(np.float64) + 1
    return _strongest_links(visits, sp.csr_array(earlier @ visits), occurs, settings)


def _strongest_links(visits: sp.csr_array, before: sp.csr_array, occurs: Floats, settings: LinkSettings) -> sp.csr_array:
    """The heaviest links of each item, from visits x items and, per visit, what came before it.

    Items are taken in blocks, so that memory stays small however many pairs occur. Weights are rounded to a millionth of
    their item's largest; ties go to the first in order.
    """
    items = visits.shape[1]
    # (before + c visits)' visits + backward x its transpose counts the same visit c (1 + backward) times
    before = sp.csr_array(before + visits * (settings.within / (1 + settings.backward)))
    onward, back = sp.csr_array(before.T), sp.csr_array(visits.T)
    to_weight = (occurs**-settings.to_power).astype(np.float32)
    from_weight = occurs**-settings.from_power
    pairs = np.bincount(back.indices, minlength=visits.shape[0]) * np.bincount(before.nonzero()[0], minlength=visits.shape[0])
    choose = _best_of_many if pairs.sum() > DENSE_SHARE * items * items else _best_of_few
    columns, values, lengths = [], [], np.zeros(items, dtype=np.int64)
    block = max(1, BLOCK_CELLS // items)
    if choose is _best_of_few:
        block = max(block, int(BLOCK_CELLS / max(float(pairs.sum()), 1.0) * items))
    for start in range(0, items, block):
        end = min(items, start + block)
        counts = sp.csr_array(onward[start:end] @ visits)
        if settings.backward:
            counts = sp.csr_array(counts + settings.backward * (back[start:end] @ before))
        row, column, value, largest = choose(counts, start, to_weight, settings.neighbours)
        lengths[start:end] = np.bincount(row, minlength=end - start)
        columns.append(column)
        values.append(value * largest[row] * from_weight[start + row])
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return sp.csr_array((np.concatenate(values).astype(np.float64), np.concatenate(columns), indptr), shape=(items, items))


Chosen = tuple[Integers, Integers, Floats, Floats]
"""row, column and value (over the row's largest) of the heaviest entries, heaviest first; and the rows' largest."""


def _best_of_many(counts: sp.csr_array, start: int, to_weight: Singles, neighbours: int) -> Chosen:
    """For blocks where much of a row is filled."""
    dense = counts.toarray()
    dense *= to_weight
    dense[np.arange(len(dense)), np.arange(start, start + len(dense))] = 0.0
    largest = dense.max(axis=1, keepdims=True)
    found = best(dense, dense > 0, neighbours, np.where(largest > 0, largest, np.float32(1)))
    row = np.repeat(np.arange(len(dense)), found.item.shape[1])
    is_link = found.score.ravel() > 0
    return row[is_link], found.item.ravel()[is_link], found.score.ravel()[is_link], largest[:, 0].astype(np.float64)


def _best_of_few(counts: sp.csr_array, start: int, to_weight: Singles, neighbours: int) -> Chosen:
    """The same for blocks where little of a row is filled."""
    row = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    column, value = counts.indices.astype(np.int64), counts.data * to_weight[counts.indices]
    kept = (column != row + start) & (value > 0)
    row, column, value = row[kept], column[kept], value[kept]
    lengths = np.bincount(row, minlength=counts.shape[0])
    starts = np.cumsum(lengths) - lengths
    largest = np.zeros(counts.shape[0], dtype=np.float32)
    if len(row):
        largest[lengths > 0] = np.maximum.reduceat(value, starts[lengths > 0])
    share = np.rint(value / (largest[row] * np.float32(10.0**-DECIMALS))) / 10**DECIMALS
    order = np.lexsort((column, -share, row))
    row, column, share = row[order], column[order], share[order]
    kept = (np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths) < neighbours) & (share > 0)
    return row[kept], column[kept], share[kept], largest.astype(np.float64)


def _earlier_visits(owner: Integers, settings: LinkSettings) -> sp.csr_array:
    """visits x visits: how much each earlier visit of the same user counts for a visit."""
    n = len(owner)
    places = np.arange(n)
    rows, columns, weights = [], [], []
    for gap in range(1, min(settings.span, n - 1) + 1):
        same = owner[gap:] == owner[:-gap]
        if not same.any():
            break
        rows.append(places[gap:][same])
        columns.append(places[:-gap][same])
        weights.append(np.full(int(same.sum()), settings.decay ** (gap - 1)))
    if not rows:
        return sp.csr_array((n, n))
    return sp.csr_array(
        (np.concatenate(weights).astype(np.float32), (np.concatenate(rows), np.concatenate(columns))), shape=(n, n)
    )


def _levels(matrix: sp.csr_array) -> tuple[Floats, Integers]:
    """Per row its strongest link (rounded to 9 digits), per link its level, at least 1."""
    lengths = np.diff(matrix.indptr)
    best = np.zeros(matrix.shape[0])
    filled = lengths > 0
    first = matrix.data[matrix.indptr[:-1][filled]]
    digits = 9 - np.ceil(np.log10(first))
    best[filled] = np.rint(first * 10.0**digits) / 10.0**digits
    levels = np.rint(matrix.data / np.repeat(best, lengths) * LEVELS).astype(np.int64)
    return best, np.clip(levels, 1, LEVELS)


class LinkViews:
    """Links between the items of a catalogue, and what is derived from them once per fit rather than once per block of users."""

    def __init__(self, onward: sp.csr_array) -> None:
        self.onward = sp.csr_array(onward.astype(np.float32))

    @cached_property
    def back(self) -> sp.csr_array:
        """b, a: strength of a -> b."""
        return sp.csr_array(self.onward.T)

    @cached_property
    def any(self) -> sp.csr_array:
        """1 where there is a link."""
        ones = np.ones_like(self.onward.data)
        return sp.csr_array((ones, self.onward.indices, self.onward.indptr), shape=self.onward.shape)

    @cached_property
    def pairs(self) -> Pairs:
        return Pairs(self.onward)


class Pairs:
    """A sparse matrix as sorted keys, to be read element by element."""

    def __init__(self, matrix: sp.csr_array) -> None:
        self._columns = matrix.shape[1]
        key = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr)) * self._columns + matrix.indices
        order = np.argsort(key, kind="stable")
        self._key, self._value = key[order], matrix.data[order]

    def at(self, rows: Integers, columns: Integers) -> Floats:
        """matrix[rows, columns] element by element, 0 where nothing is stored."""
        if not len(self._key):
            return np.zeros(len(rows))
        asked = rows * self._columns + columns
        place = np.minimum(np.searchsorted(self._key, asked), len(self._key) - 1)
        return np.where(self._key[place] == asked, self._value[place], 0.0)


def links_of(matrix: sp.csr_array, sources: Integers) -> tuple[Integers, Integers, Floats]:
    """(place in sources, target, strength) of these items' links, strongest first."""
    owner, row = expand(matrix.indptr[sources].astype(np.int64), matrix.indptr[sources + 1].astype(np.int64))
    return owner, matrix.indices[row].astype(np.int64), matrix.data[row]
