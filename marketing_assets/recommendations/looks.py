"""What the re-ranker looks at: numbers of user, item and pair.

What belongs here: features of candidates. What does not: choosing candidates and fitting (ranker.py). Ids are no feature; what is
looked at are relations of user and item in counts and days.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from marketing_assets.recommendations.history import Floats, Integers, expand
from marketing_assets.recommendations.links import Links
from marketing_assets.recommendations.lists import Singles
from marketing_assets.recommendations.next_visits import expected
from marketing_assets.recommendations.ranker import Candidates
from marketing_assets.recommendations.scores import Retrieval, Scored, Taste, faded, of_pairs
from marketing_assets.recommendations.states import Seen, States

DECIMALS = 5
FAR = 9999.0
"""Days, where there is no such day."""
SLOW = 4.0
"""A second, slower fading of what goes with a history: half-lives of so many times the first."""


def look(
    block: Seen, links: Links, state: States, which: Integers, chosen: Candidates, how: Retrieval
) -> tuple[list[str], Singles]:
    """Names and values (candidates x features) of what the re-ranker looks at. which: place of each row's day."""
    columns: dict[str, npt.NDArray[Any]] = {}
    seen, scored = block.taste, block.scored
    row, item = chosen.row, chosen.item
    day = which[row]
    look_at_links(columns, seen, scored, links, chosen, how)
    _own(columns, seen, scored, links, chosen)
    columns["expected"] = expected(seen, links.next_visits).toarray()[row, item]
    columns["expected_rank"] = ranks(row, columns["expected"])
    _leanings(columns, block, state, day, chosen)
    columns["blend"] = scored.blend[chosen.place]
    columns["blend_rank"] = ranks(row, columns["blend"])
    for name, values in state.facts.items():
        columns[name] = values[day, item]
    columns["user_visits"] = seen.row_visits[row]
    columns["user_items"] = seen.row_items[row]
    columns["user_returns"] = _shares_returned(seen)[row]
    columns["user_basket"] = (seen.row_items / np.maximum(seen.row_visits, 1))[row]
    columns["user_last_visit"] = seen.last_visit[row]
    columns["user_gap"] = ((seen.first_visit - seen.last_visit) / np.maximum(seen.row_visits - 1, 1))[row]
    return table_of(columns)


def table_of(columns: dict[str, npt.NDArray[Any]]) -> tuple[list[str], Singles]:
    """Names, and the columns side by side, rounded."""
    names = list(columns)
    values = np.empty((len(columns[names[0]]), len(names)), dtype=np.float32)
    for place, name in enumerate(names):
        values[:, place] = columns[name]
    return names, np.asarray(np.round(values, DECIMALS, out=values), dtype=np.float32)


def with_factor(scores: Floats, factor: Singles) -> Floats:
    """The re-ranker learns what people do of themselves; what is put before them is judged by the factor as well."""
    return np.asarray(np.round(scores + np.log(factor.astype(np.float64)), 6), dtype=np.float64)


def _leanings(columns: dict[str, npt.NDArray[Any]], block: Seen, state: States, day: Integers, chosen: Candidates) -> None:
    """The item's pull, and what the user did with its category and at its price."""
    seen, leaning = block.taste, block.leaning
    category = state.category[day, chosen.item]
    place = leaning.at(chosen.row, category)
    columns["factor"] = block.factor[chosen.place]
    columns["category_share"] = leaning.of_pairs(place, leaning.weight, 0.0) / np.maximum(leaning.total[chosen.row], 1e-9)
    columns["category_items"] = leaning.of_pairs(place, leaning.items, 0.0)
    columns["category_last"] = leaning.of_pairs(place, leaning.last, FAR)
    if "price" in state.facts:
        price = state.facts["price"]
        weight = np.bincount(seen.row, weights=seen.recent, minlength=seen.rows)
        paid = np.bincount(seen.row, weights=seen.recent * price[block.which[seen.row], seen.item], minlength=seen.rows)
        usual = paid / np.maximum(weight, 1e-9)
        columns["price_gap"] = np.where(weight[chosen.row] > 0, price[day, chosen.item] - usual[chosen.row], 0.0)


def look_at_links(columns: dict[str, npt.NDArray[Any]], seen: Taste, scored: Scored, links: Links, chosen: Candidates, how: Retrieval) -> None:
    """What goes with the history: every link from an item of the history to a candidate, added up in several ways, and what was
    known of the items when links were counted."""
    slot = np.full(len(scored.row), -1, dtype=np.int32)
    slot[chosen.place] = np.arange(len(chosen.place), dtype=np.int32)
    indptr, target = links.matrix.indptr.astype(np.int64), links.matrix.indices
    had, link = expand(indptr[seen.item], indptr[seen.item + 1])
    found = slot[scored.at[seen.row[had], target[link]]]
    kept = np.flatnonzero(found >= 0)
    had, link, found = had[kept], link[kept], found[kept]
    n = len(chosen.place)

    def summed(values: npt.NDArray[Any], at: Integers | npt.NDArray[np.int32] = found) -> Singles:
        return np.bincount(at, weights=values, minlength=n).astype(np.float32)

    recent = seen.recent.astype(np.float32)[had]
    strength = links.matrix.data[link]
    both = recent * strength
    columns["linked"] = summed(both)
    columns["linked_slow"] = summed(faded(seen.last.astype(np.int64), how.link_half_life * SLOW).astype(np.float32)[had] * strength)
    columns["links"] = np.bincount(found, minlength=n).astype(np.float32)
    strongest = np.zeros(n, dtype=np.float32)
    np.maximum.at(strongest, found, both)
    columns["linked_best"] = strongest
    for name, flags in (("last", seen.at_last), ("second", seen.at_second)):
        of = np.flatnonzero(flags[had])
        columns[f"linked_{name}"] = summed(strength[of], found[of])
        for kind, values in links.kinds.items():
            columns[f"{kind}_{name}"] = summed(values[link[of]], found[of])
    for kind, values in links.kinds.items():
        columns[f"{kind}"] = summed(recent * values[link])
    columns["linked_share"] = scored.linked[chosen.place]
    columns["linked_rank"] = ranks(chosen.row, columns["linked"])
    for name, values in links.facts.items():
        columns[name] = values[chosen.item]


def _own(columns: dict[str, npt.NDArray[Any]], seen: Taste, scored: Scored, links: Links, chosen: Candidates) -> None:
    """What the user did with the candidate itself."""

    def own(values: npt.NDArray[Any], missing: float = 0.0) -> Singles:
        return of_pairs(seen, scored, values, missing)[chosen.place]

    row = chosen.row
    times, last, first = own(seen.times), own(seen.last, FAR), own(seen.first, FAR)
    columns["own"] = own(seen.own)
    columns["recent"] = own(seen.recent)
    columns["times"] = times
    columns["bought"] = own(seen.bought)
    columns["wanted"] = own(seen.wanted)
    columns["views"] = own(seen.views)
    columns["minutes"] = own(np.log1p(seen.minutes), 20.0)
    columns["share_of_visits"] = times / np.maximum(seen.row_visits, 1)[row]
    columns["days_since"] = last
    columns["rate_since_first"] = times / (first + 7)
    gap = np.where(times > 1, (first - last) / np.maximum(times - 1, 1), FAR)
    columns["usual_gap"] = gap
    columns["overdue"] = np.where(times > 1, (last + 1) / (gap + 1), -1.0)
    columns["in_last_visit"] = own(seen.at_last)
    columns["own_rank"] = ranks(row, columns["own"])
    size = np.maximum(seen.row_items, 1)[row] ** -0.5
    columns["expected_again"] = np.where(times > 0, size * links.next_visits.diagonal()[chosen.item], 0.0)
    spent, bought = own(seen.spent), own(seen.bought)
    total = np.bincount(seen.row, weights=seen.spent, minlength=seen.rows)
    columns["spent_share"] = spent / np.maximum(total, 1e-9)[row]
    columns["spent_rank"] = ranks(row, spent)
    columns["paid"] = np.where(bought > 0, np.log1p(spent / np.maximum(bought, 1)), -1.0)
    columns["paid_gap"] = np.where(bought > 0, columns["paid"] - links.facts["line"][chosen.item], 0.0)
    columns["minutes_rank"] = ranks(row, -columns["minutes"])


def _shares_returned(seen: Taste) -> Floats:
    """Per row, which share of what the user did on all days was with items met on an earlier day."""
    times = np.bincount(seen.row, weights=seen.times, minlength=seen.rows)
    return np.asarray((times - seen.row_items) / np.maximum(times, 1))


def ranks(row: Integers, values: npt.NDArray[Any]) -> Singles:
    """Place of each candidate among its row's, 0 the largest value; equal values share the first place."""
    n = len(row)
    if not n:
        return np.zeros(0, dtype=np.float32)
    order = np.lexsort((-values, row))
    sorted_row, sorted_value = row[order], values[order]
    position = np.arange(n)
    new_row = np.ones(n, dtype=bool)
    new_row[1:] = sorted_row[1:] != sorted_row[:-1]
    start = np.maximum.accumulate(np.where(new_row, position, 0))
    new_value = new_row.copy()
    new_value[1:] |= sorted_value[1:] != sorted_value[:-1]
    first = np.maximum.accumulate(np.where(new_value, position, 0))
    found = np.empty(n, dtype=np.float32)
    found[order] = first - start
    return found
