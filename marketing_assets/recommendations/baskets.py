"""What goes with a basket as it stands, asked for at any moment.

What belongs here: one list per basket from the links and rules in force. What does not: the tables (build.py), which are
issued once a day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import polars as pl
import scipy.sparse as sp

from marketing_assets.config import Store
from marketing_assets.recommendations.catalogue import Catalogue
from marketing_assets.recommendations.fits import LINKS
from marketing_assets.recommendations.links import Links
from marketing_assets.recommendations.lists import best
from marketing_assets.warehouse import MissingPartitions, Reader


def for_basket(reader: Reader, day: date, store: Store, baskets: Mapping[str, Sequence[str]], length: int = 10) -> pl.DataFrame:
    """basket_id, rank, item_id, score: what goes with the items of each basket, those in it left out.

    Links and rules are those in force at the end of `day`; where links run out, popular items follow. Unknown items are left
    aside. Raises MissingPartitions where no links were counted by then.
    """
    stored = reader.fitted(LINKS, day)
    if stored is None:
        raise MissingPartitions(f"{LINKS}: no fit at or before {day}; build the recommendations up to that day first")
    catalogue = Catalogue(reader, [day], store)
    catalogue.at(day)
    links = Links.from_text(stored.model).over(catalogue.items)
    names = sorted(baskets)
    owner = np.repeat(np.arange(len(names)), [len(baskets[name]) for name in names])
    place = catalogue.places(pl.Series("item_id", [item for name in names for item in baskets[name]], dtype=pl.String))
    known = place >= 0
    shape = (len(names), len(catalogue.items))
    held = sp.csr_array((np.ones(int(known.sum())), (owner[known], place[known])), shape=shape)
    scores = (held @ links).toarray().astype(np.float32)
    largest = scores.max(axis=1, keepdims=True, initial=0.0)
    scores = np.divide(scores, largest, out=scores, where=largest > 0)
    scores += (0.01 * catalogue.popularity(day)).astype(np.float32)
    found = best(scores, catalogue.may_recommend[None, :] & (held.toarray() == 0), length)
    row, rank = np.nonzero(found.item >= 0)
    return pl.DataFrame(
        {
            "basket_id": pl.Series([names[number] for number in row.tolist()], dtype=pl.String),
            "rank": rank.astype(np.int64) + 1,
            "item_id": catalogue.items.gather(found.item[row, rank]),
            "score": found.score[row, rank],
        }
    )
