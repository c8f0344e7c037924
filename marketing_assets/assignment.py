"""Random by salted hash: who is held out, whose list explores, which rows a fit may learn from.

What belongs here: turning an id and a salt into a number that looks random and never changes. What does not: what is done
with it (the concept modules), or shares and salts (config.py).
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import polars as pl


def scattered(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Each number scattered over 64 bits: one step of SplitMix64 (Steele, Lea and Flood 2014)."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)


def salted_share(ids: pl.Series, salt: str) -> pl.Series:
    """A number in [0, 1) per id, uniform over ids, independent between salts, the same on every machine. Null ids: null.

    `salted_share(ids, salt) < share` picks that share of users; a larger share keeps everyone a smaller one picked. The
    first 8 bytes of BLAKE2b (RFC 7693) of the id, keyed by the salt, over 2^64, cut to 53 bits so that 1 is never reached.
    """
    key = hashlib.blake2b(salt.encode(), digest_size=32).digest()
    texts = ids.cast(pl.String)
    # Frames repeat their users on many days: each is hashed once.
    distinct = texts.drop_nulls().unique()
    digests = b"".join([hashlib.blake2b(text.encode(), key=key, digest_size=8).digest() for text in distinct.to_list()])
    shares = (np.frombuffer(digests, dtype=">u8") >> np.uint64(11)).astype(np.float64) / (1 << 53)
    return texts.replace_strict(distinct, pl.Series(shares), default=None, return_dtype=pl.Float64).alias(ids.name)
