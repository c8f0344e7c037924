"""Item-to-item links: what people turn to after, before or along with an item.

What belongs here: counting pairs, weighing them, keeping the strongest, and the links' text form. What does not: who gets
what (scores.py).

People come as visits in order, each visit a set of items (one item each in a plain sequence). A pair of items counts the
more the closer their visits: `within` in the same visit, decay^(gap - 1) for `gap` visits on, that times `backward` for the
way back. The count of a -> b is divided by powers of how often a and b occur, so that neither common nor rare items win
by that alone (a damped cosine).

Pairs are counted in whole numbers. So a count of last week brought up to date by the visits that changed since is the very
count that starting over would give, and nothing depends on how days are grouped into runs.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp

from marketing_assets.assignment import scattered
from marketing_assets.recommendations.history import Floats, Integers, expand
from marketing_assets.recommendations.lists import BLOCK_CELLS, DECIMALS, Singles, largest_of, least_of_best, places_of_best
from marketing_assets.recommendations.tastes import Tastes
from marketing_assets.warehouse import WarehouseError

WHOLE = 1 << 12
"""An item's weight in its visit is kept in so many parts,"""
GAP_WHOLE = 1 << 12
"""what a gap counts for in so many,"""
BACK_WHOLE = 1 << 6
"""and the way back in so many."""


class OtherForm(WarehouseError):
    """A stored model is of a form or of features that this version of the code does not read."""


@dataclass(frozen=True)
class LinkSettings:
    """within, backward: weight of the same visit and of the way back; decay: per visit between; span: visits looked ahead.

    from_power, to_power: powers of the counts of a and b that a -> b is divided by. neighbours: links kept per item.
    large_visit: a visit of n items weighs (n)^-large_visit per item, so that one huge basket does not link everything.
    kinds: gaps counted apart, by name, as (first, last), 0 the same visit; a re-ranker looks at each kind by itself.
    """

    within: float = 1.0
    decay: float = 0.8
    backward: float = 0.5
    span: int = 2
    from_power: float = 0.5
    to_power: float = 0.4
    neighbours: int = 40
    large_visit: float = 0.5
    kinds: tuple[tuple[str, int, int], ...] = ()

    def weights(self) -> dict[int, int]:
        """What a pair counts by gap, in parts of GAP_WHOLE; the same visit is met from both sides, hence its divisor."""
        found = {gap: round(self.decay ** (gap - 1) * GAP_WHOLE) for gap in range(1, self.span + 1)}
        return {0: round(self.within / (1 + self.backward) * GAP_WHOLE)} | found

    def groups(self) -> list[dict[int, int]]:
        """The gaps by kind, those of no kind together at the end."""
        weights = self.weights()
        found = [{gap: weights.pop(gap) for gap in range(low, high + 1) if gap in weights} for _, low, high in self.kinds]
        return [*found, weights] if weights else found


@dataclass(frozen=True)
class Visits:
    """Visits in order of user and time: whose, and visits x items of their items' weights in parts of WHOLE."""

    user: Integers
    visit: Integers
    content: sp.csr_array

    @classmethod
    def of(cls, user: Integers, visit: Integers, item: Integers, strength: Floats, items: int, large_visit: float) -> Visits:
        starts = np.ones(len(user), dtype=bool)
        starts[1:] = (user[1:] != user[:-1]) | (visit[1:] != visit[:-1])
        number = np.cumsum(starts) - 1
        size = np.bincount(number) if len(number) else np.zeros(0, dtype=np.int64)
        value = np.minimum(strength, 1.0) * size[number].astype(np.float64) ** -large_visit
        parts = np.rint(value * WHOLE).astype(np.int64)
        indptr = np.concatenate([[0], np.cumsum(size)])
        return cls(user[starts], visit[starts], sp.csr_array((parts, item, indptr), shape=(len(size), items)))

    def before(self, gaps: Mapping[int, int], rows: Integers) -> sp.csr_array:
        """For these visits, what came so many visits before them, weighed: len(rows) x items."""
        n = len(self.user)
        found, source, weight = [], [], []
        for gap, parts in sorted(gaps.items()):
            earlier = rows - gap
            same = (earlier >= 0) & (self.user[np.maximum(earlier, 0)] == self.user[rows])
            found.append(np.flatnonzero(same))
            source.append(earlier[same])
            weight.append(np.full(int(same.sum()), parts, dtype=np.int64))
        pairs = sp.coo_array((np.concatenate(weight), (np.concatenate(found), np.concatenate(source))), shape=(len(rows), n))
        which: sp.csr_array = sp.csr_array(pairs)
        return sp.csr_array(which @ self.content)

    def pairs(self, gaps: Mapping[int, int], rows: Integers) -> sp.csr_array:
        """items x items: how often b came in one of these visits after (or with) a."""
        counts = sp.csr_array(sp.csr_array(self.before(gaps, rows).T) @ self.content[rows])
        counts.sort_indices()
        return counts

    def marks(self, span: int) -> npt.NDArray[np.uint64]:
        """A number per visit that tells it, its items and its `span` predecessors from any other."""
        row = np.repeat(np.arange(len(self.user)), np.diff(self.content.indptr))
        mixed = scattered(self.content.indices.astype(np.uint64) * np.uint64(1 << 32) + self.content.data.astype(np.uint64))
        total = np.zeros(len(self.user), dtype=np.uint64)
        np.add.at(total, row, mixed)
        mark = scattered(total + np.uint64(1))
        result = mark.copy()
        for gap in range(1, min(span, len(mark) - 1) + 1):
            same = self.user[gap:] == self.user[:-gap]
            result[gap:] = scattered(result[gap:] + np.where(same, mark[:-gap], np.uint64(0)))
        return result


class PairCounts:
    """Counted pairs of items, brought up to date fit by fit."""

    def __init__(self, items: int, settings: LinkSettings) -> None:
        self.settings = settings
        self.items = items
        empty = sp.csr_array(sp.coo_array((items, items), dtype=np.int64))
        self._both = empty
        """items x items: a before (or with) b, and the way back for its part."""
        self._groups = [empty for _ in settings.groups()] if settings.kinds else []
        """By kind, without the way back."""
        none = np.zeros(0, dtype=np.int64)
        self._visits = Visits.of(none, none, none, np.zeros(0), items, 0.0)
        self._marks = np.zeros(0, dtype=np.uint64)
        self.occurs = np.zeros(items, dtype=np.int64)

    def update(self, user: Integers, visit: Integers, item: Integers, strength: Floats) -> None:
        """Make it the count over these rows: parallel arrays sorted by user, then visit (any number that rises with time)."""
        how = self.settings
        visits = Visits.of(user, visit, item, strength, self.items, how.large_visit)
        marks = visits.marks(how.span)
        gone, come = _changed(self._visits, self._marks, visits, marks)
        changes = []
        for place, gaps in enumerate(how.groups() if how.kinds else [how.weights()]):
            change = visits.pairs(gaps, come)
            if len(gone):
                change = sp.csr_array(change - self._visits.pairs(gaps, gone))
            changes.append(change)
            if how.kinds:
                self._groups[place] = _without_zeros(self._groups[place] + change)
        change = changes[0]
        for more in changes[1:]:
            change = sp.csr_array(change + more)
        back = sp.csr_array(change.T)
        back.sort_indices()
        self._both = _without_zeros(self._both + (change * BACK_WHOLE + back * round(how.backward * BACK_WHOLE)))
        self._visits, self._marks = visits, marks
        parts = np.rint(np.minimum(strength, 1.0) * WHOLE)
        self.occurs = np.bincount(item, weights=parts, minlength=self.items).astype(np.int64)

    def links(self) -> tuple[sp.csr_array, dict[str, Singles]]:
        """items x items with the strongest `neighbours` of each row, strongest first; and each kind's strength of these links."""
        how, items = self.settings, self.items
        often = self.occurs / WHOLE + 1.0
        to_weight = (often**-how.to_power).astype(np.float32)
        columns, values, lengths = [], [], np.zeros(items, dtype=np.int64)
        block = max(1, int(BLOCK_CELLS / max(1.0, self._both.nnz / max(items, 1))))
        for start in range(0, items, block):
            counts = self._both[start : start + block]
            row, column, value = _strongest(counts, start, to_weight, how.neighbours)
            lengths[start : start + block] = np.bincount(row, minlength=counts.shape[0])
            columns.append(column)
            values.append(value)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        target = np.concatenate(columns) if columns else np.zeros(0, dtype=np.int64)
        strength = np.concatenate(values).astype(np.float64) if values else np.zeros(0)
        source = np.repeat(np.arange(items), lengths)
        strength *= often[source] ** -how.from_power / (_UNIT * BACK_WHOLE)
        return sp.csr_array((strength, target, indptr), shape=(items, items)), self._kinds(source, target, often)

    def _kinds(self, source: Integers, target: Integers, often: Floats) -> dict[str, Singles]:
        if not self.settings.kinds:
            return {}
        found: dict[str, Floats] = {}
        before, total = np.zeros(len(source)), np.zeros(len(source))
        for (name, low, _), group in zip(self.settings.kinds, self._groups, strict=False):
            pairs = Pairs(group)
            there, here = pairs.at(source, target) / _UNIT, pairs.at(target, source) / _UNIT
            found[name] = there * often[source] ** -0.5
            before += here if low > 0 else 0.0
            total += there + here
        found["before"] = before * often[source] ** -0.5
        found["cosine"] = total / np.sqrt(often[source] * often[target])
        return {name: values.astype(np.float32) for name, values in found.items()}


_UNIT = GAP_WHOLE * float(WHOLE) ** 2


def _without_zeros(matrix: sp.csr_array) -> sp.csr_array:
    whole = sp.csr_array(matrix)
    whole.eliminate_zeros()
    return whole


def _changed(
    old: Visits, old_marks: npt.NDArray[np.uint64], new: Visits, new_marks: npt.NDArray[np.uint64]
) -> tuple[Integers, Integers]:
    """Places of the old visits that are no more, and of the new ones that were not: by user, time and mark."""
    if not len(old.user):
        return np.zeros(0, dtype=np.int64), np.arange(len(new.user))
    keys = [scattered(scattered(v.user.astype(np.uint64)) + v.visit.astype(np.int64).view(np.uint64)) + m
            for v, m in ((old, old_marks), (new, new_marks))]  # fmt: skip
    return np.flatnonzero(~np.isin(keys[0], keys[1])), np.flatnonzero(~np.isin(keys[1], keys[0]))


def _strongest(counts: sp.csr_array, start: int, to_weight: Singles, count: int) -> tuple[Integers, Integers, Singles]:
    """row, column and value of the heaviest entries of each row, heaviest first, rounded to a millionth of the heaviest; ties
    go to the first in order. An item is no link of its own."""
    rows = counts.shape[0]
    row = np.repeat(np.arange(rows), np.diff(counts.indptr))
    value = counts.data.astype(np.float32) * to_weight[counts.indices]
    value[counts.indices == row + start] = 0.0
    unit = largest_of(row, value, rows) * np.float32(10.0**-DECIMALS)
    kept = np.flatnonzero(value >= (np.maximum(least_of_best(row, value, rows, count, 0.0) - 2 * unit, unit / 2))[row])
    row, column = row[kept], counts.indices[kept].astype(np.int64)
    level = np.rint(value[kept] / unit[row]).astype(np.int64)
    found = places_of_best(row, level, column, rows, count).ravel()
    at = found[found >= 0]
    return row[at], column[at], (level[at] * unit[row[at]]).astype(np.float32)


def fit_links(
    user: Integers, visit: Integers, item: Integers, strength: Floats, items: int, settings: LinkSettings
) -> tuple[sp.csr_array, dict[str, Singles]]:
    """Links from visits, counted from nothing; see PairCounts."""
    counts = PairCounts(items, settings)
    counts.update(user, visit, item, strength)
    return counts.links()


@dataclass(frozen=True)
class Links:
    """items: ids. matrix[a, b]: strength of a -> b, rows sorted by falling strength within the CSR arrays.

    next_visits: items x items, how much of the next visit each item speaks for (next_visits.py), empty where that was not asked.
    kinds: by name, a number per stored link. facts: by name, a number per item, known when the links were counted. tastes: directions
    of taste over the items; familiar: what it makes of an item that a person had to do with it before (worth.py).
    """

    items: pl.Series
    matrix: sp.csr_array
    kinds: dict[str, Singles]
    facts: dict[str, Singles]
    tastes: Tastes
    familiar: Singles
    next_visits: sp.csr_array

    @classmethod
    def kept(
        cls,
        items: pl.Series,
        matrix: sp.csr_array,
        kinds: Mapping[str, Singles],
        facts: Mapping[str, Singles],
        tastes: Tastes | None = None,
        familiar: Singles | None = None,
        next_visits: sp.csr_array | None = None,
    ) -> Links:
        """Links at the precision of their text, so that nothing differs between the day of the fit and later days."""
        single = sp.csr_array((matrix.data.astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)
        effects = _no_effects(len(items)) if next_visits is None else next_visits
        return cls(
            items, single, {name: _short(values) for name, values in kinds.items()},
            {name: _short(values) for name, values in facts.items()},
            Tastes.none(len(items)) if tastes is None else Tastes(**{name: _short(values) for name, values in vars(tastes).items()}),
            np.ones(4, dtype=np.float32) if familiar is None else _short(familiar),
            sp.csr_array((_short(effects.data), effects.indices, effects.indptr), shape=effects.shape),
        )  # fmt: skip

    def as_text(self) -> str:
        """JSON; arrays as base64 of little-endian numbers: link counts and targets int32, strengths float32, the rest float16."""
        stored = {
            "items": self.items.to_list(),
            "lengths": _packed(np.diff(self.matrix.indptr), "<i4"),
            "targets": _packed(self.matrix.indices, "<i4"),
            "strengths": _packed(self.matrix.data, "<f4"),
            "kinds": {name: _packed(values, "<f2") for name, values in self.kinds.items()},
            "facts": {name: _packed(values, "<f2") for name, values in self.facts.items()},
            **{name: _packed(values, "<f2") for name, values in vars(self.tastes).items()},
            "familiar": _packed(self.familiar, "<f2"),
            "next_lengths": _packed(np.diff(self.next_visits.indptr), "<i4"),
            "next_targets": _packed(self.next_visits.indices, "<i4"),
            "next_effects": _packed(self.next_visits.data, "<f2"),
        }
        return json.dumps(stored, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Links:
        stored = json.loads(text)
        if "liked" not in stored:
            raise OtherForm("recommendations.links: stored by an earlier version of the code; build recommendations again from the first day")
        n = len(stored["items"])

        def matrix(values: Singles, targets: str, lengths: str) -> sp.csr_array:
            indptr = np.concatenate([[0], np.cumsum(_unpacked(stored[lengths], "<i4"))])
            return sp.csr_array((values, _unpacked(stored[targets], "<i4"), indptr), shape=(n, n))

        effects = _unpacked(stored["next_effects"], "<f2").astype(np.float32)
        shorts = {
            part: {name: _unpacked(values, "<f2").astype(np.float32) for name, values in stored[part].items()}
            for part in ("kinds", "facts")
        }

        tastes = {field.name: _unpacked(stored[field.name], "<f2").astype(np.float32) for field in fields(Tastes)}
        for name, apart in (("along", "apart"), ("liked", "liked_apart")):
            tastes[name] = tastes[name].reshape(n, len(tastes[apart]))
        return cls(pl.Series("item_id", stored["items"], dtype=pl.String),
                   matrix(_unpacked(stored["strengths"], "<f4"), "targets", "lengths"), **shorts, tastes=Tastes(**tastes),
                   familiar=_unpacked(stored["familiar"], "<f2").astype(np.float32),
                   next_visits=matrix(effects, "next_targets", "next_lengths"))  # fmt: skip

    def over(self, items: pl.Series) -> Links:
        """The same over the places of another list of ids; items it lacks are dropped, facts and tastes of new ones are 0."""
        where = pl.DataFrame({"item_id": items, "place": np.arange(len(items))}, schema={"item_id": pl.String, "place": pl.Int64})
        new = self.items.to_frame("item_id").join(where, on="item_id", how="left", maintain_order="left")["place"]
        places = new.fill_null(-1).to_numpy()
        matrix, kept = _moved(self.matrix, places, len(items))
        facts = {name: np.zeros(len(items), dtype=np.float32) for name in self.facts}
        for name, values in self.facts.items():
            facts[name][places[places >= 0]] = values[places >= 0]
        tastes = self.tastes.over(places, len(items))
        return Links(
            items,
            matrix,
            {name: values[kept] for name, values in self.kinds.items()},
            facts,
            tastes,
            self.familiar,
            _moved(self.next_visits, places, len(items))[0],
        )

    @cached_property
    def pairs(self) -> Pairs:
        return Pairs(self.matrix)


def _moved(matrix: sp.csr_array, places: Integers, n: int) -> tuple[sp.csr_array, Integers]:
    """The entries between items that have a place (-1: none), over n items, and which entries those are; order within rows
    unchanged."""
    source, target = np.repeat(places, np.diff(matrix.indptr)), places[matrix.indices]
    kept = np.flatnonzero((source >= 0) & (target >= 0))
    kept = kept[np.argsort(source[kept], kind="stable")]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(source[kept], minlength=n))])
    return sp.csr_array((matrix.data[kept], target[kept], indptr), shape=(n, n)), kept


def _no_effects(n: int) -> sp.csr_array:
    none = (np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.int64), np.zeros(n + 1, dtype=np.int64))
    return sp.csr_array(none, shape=(n, n))


def no_links(items: pl.Series) -> Links:
    return Links.kept(items, _no_effects(len(items)), {}, {})


def _short(values: Singles) -> Singles:
    return values.astype(np.float16).astype(np.float32)


def _packed(values: npt.NDArray[Any], kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values.astype(kind)).tobytes()).decode()


def _unpacked(text: str, kind: str) -> npt.NDArray[Any]:
    return np.frombuffer(base64.b64decode(text), dtype=kind)


class Pairs:
    """A sparse matrix as sorted keys, to be read element by element."""

    def __init__(self, matrix: sp.csr_array) -> None:
        self._columns = matrix.shape[1]
        key = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr)) * self._columns + matrix.indices
        self._key, self._value = key, matrix.data
        if len(key) > 1 and not (key[1:] > key[:-1]).all():
            order = np.argsort(key)
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
