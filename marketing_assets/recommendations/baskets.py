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
from marketing_assets.recommendations.lists import levels, places_of_best
from marketing_assets.recommendations.scores import Popular, Retrieval, score
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
    held = np.unique(owner[known] * len(catalogue.items) + place[known])
    own = (held // len(catalogue.items), held % len(catalogue.items), np.ones(len(held)))
    basket = sp.csr_array((own[2].astype(np.float32), own[:2]), shape=(len(names), len(catalogue.items)))
    popularity = catalogue.popularity(day)[None, :]
    allowed = np.flatnonzero(catalogue.may_recommend)
    most = length + max((len(items) for items in baskets.values()), default=0)
    common = places_of_best(np.zeros_like(allowed), levels(popularity[0, allowed]), allowed, 1, most)
    popular = Popular(
        np.zeros(len(names), dtype=np.int64), popularity, np.where(common >= 0, allowed[common], -1), np.full(1, -1, dtype=np.float32)
    )
    scored = score(basket, own, links.matrix, popular, Retrieval(own=0.0, linked=1.0, popular=0.01))
    kept = np.flatnonzero(catalogue.may_recommend[scored.item] & (scored.own == 0))
    place = places_of_best(scored.row[kept], levels(scored.blend[kept]), scored.item[kept], len(names), length)
    item = np.where(place >= 0, scored.item[kept][place], -1)
    row, rank = np.nonzero(item >= 0)
    return pl.DataFrame(
        {
            "basket_id": pl.Series([names[number] for number in row.tolist()], dtype=pl.String),
            "rank": rank.astype(np.int64) + 1,
            "item_id": catalogue.items.gather(item[row, rank]),
            "score": np.round(scored.blend[kept][place[row, rank]].astype(np.float64), 6),
        }
    )
