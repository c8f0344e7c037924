"""Random by salted hash: who is held out, whose list explores, which rows a fit may learn from.

What belongs here: turning an id and a salt into a number that looks random and never changes. What does not: what is done
with it (the concept modules), or shares and salts (config.py).
"""

from __future__ import annotations

import hashlib

import polars as pl


def salted_share(ids: pl.Series, salt: str) -> pl.Series:
    """A number in [0, 1) per id, uniform over ids, independent between salts, the same on every machine. Null ids: null.

    `salted_share(ids, salt) < share` picks that share of users; a larger share keeps everyone a smaller one picked. The
    first 8 bytes of BLAKE2b (RFC 7693) of the id, keyed by the salt, over 2^64, cut to 53 bits so that 1 is never reached.
    """
    key = hashlib.blake2b(salt.encode(), digest_size=32).digest()

    def number(identifier: str) -> float:
        value = hashlib.blake2b(identifier.encode(), key=key, digest_size=8).digest()
        return (int.from_bytes(value, "big") >> 11) / (1 << 53)

    return pl.Series(ids.name, [None if value is None else number(value) for value in ids.cast(pl.String).to_list()], dtype=pl.Float64)
