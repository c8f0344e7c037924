"""Why an entry is in a list, in words.

What belongs here: which retriever speaks for an entry, and the sentence. What does not: scores.
"""

from __future__ import annotations

import polars as pl

OWN, BOUGHT, LINKED, POPULAR, RANDOM, CHOSEN, LIKED = range(7)
"""Codes of the kinds of reasons. OWN: showed interest; BOUGHT: bought before; LINKED: goes with an item; RANDOM: explored; CHOSEN:
oftener than others put in the cart once looked at; LIKED: to the taste of those who look at a page."""
NOTHING = "nothing may be recommended"
"""Said of an empty list."""
_PAGES = {LINKED: "goes with it", CHOSEN: "often chosen once looked at", LIKED: "liked by those who look at it"}


def sentences(rows: pl.DataFrame) -> pl.Series:
    """rows: kind (code), times (days bought), days_ago (since the last sign), anchor (title of the item it goes with) -> text."""
    ago = (
        pl.when(pl.col("days_ago") <= 0)
        .then(pl.lit("today"))
        .when(pl.col("days_ago") == 1)
        .then(pl.lit("yesterday"))
        .otherwise(pl.format("{} days ago", pl.col("days_ago")))
    )
    once = pl.when(pl.col("times") == 1).then(pl.format("bought {}", ago))
    text = (
        pl.when(pl.col("kind") == BOUGHT)
        .then(once.otherwise(pl.format("bought on {} days, last {}", pl.col("times"), ago)))
        .when(pl.col("kind") == OWN)
        .then(pl.format("looked at {}", ago))
        .when((pl.col("kind") == LINKED) & pl.col("anchor").is_not_null())
        .then(pl.format("goes with {}", pl.col("anchor")))
        .when(pl.col("kind") == RANDOM)
        .then(pl.lit("shown to learn"))
        .when(pl.col("kind") == CHOSEN)
        .then(pl.lit("often chosen once looked at"))
        .otherwise(pl.lit("popular now"))
    )
    return rows.select(text.alias("reason"))["reason"]


def of_pages(kinds: pl.Series) -> pl.Series:
    """Codes of entries on items' pages, -1 for an empty list -> text."""
    return kinds.replace_strict(_PAGES, default=NOTHING, return_dtype=pl.String).alias("reason")
