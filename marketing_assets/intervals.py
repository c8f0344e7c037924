"""Confidence intervals of rates, ratios and totals whose observations are clustered by user.

What belongs here: turning per-user numerators and denominators into a value with an interval. What does not: which
numerators and denominators (evaluation/) and comparing two arms (experiments.py).

Three kinds, one shape of input (one row per cell and cluster, columns `num` and `den`):

* rate: a share of counts. Wilson's score interval on the effective sample size of the clustered design (Korn and
  Graubard 1998), so that 0 clicks still have an upper end.
* ratio: any other quotient, such as revenue per order. Percentiles of a Poisson bootstrap over clusters (Chamandy et al.
  2012) up to MAX_BOOTSTRAP_CLUSTERS, the linearised (delta-method) interval above, where both agree to plotting accuracy.
  A cluster's weights are its own, whichever cell, day or run it is in, so that all cells are one matrix product.
* total: a sum over users. The gamma interval of a compound Poisson sum (Fay and Feuer 1997), which holds for a handful of unequal
  amounts too; where some are negative (refunds), the normal one with variance = sum of squared user totals.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from marketing_assets.assignment import salted_share, scattered

Kind = Literal["rate", "ratio", "total"]
Floats = npt.NDArray[np.float64]

MAX_BOOTSTRAP_CLUSTERS = 2000
"""Above so many users in a cell the delta method replaces the bootstrap: it costs one pass and is as exact there."""
_CELL = "number of the cell"
_ROWS_AT_ONCE = 50_000
"""Rows whose clusters' weights are held in memory together."""


def normal_quantile(level: float) -> float:
    """z with P(|Z| <= z) = level."""
    from scipy.special import ndtri

    return float(ndtri(0.5 + level / 2))


@cache
def _poisson_table() -> npt.NDArray[np.uint8]:
    """65,536 equally likely values of a Poisson(1), so that a draw is a look-up of 16 random bits."""
    cumulative = np.cumsum([math.exp(-1) / math.factorial(count) for count in range(12)])
    return np.searchsorted(cumulative, (np.arange(65536) + 0.5) / 65536).astype(np.uint8)


def seeded(seed: int, *parts: object) -> np.random.Generator:
    """A generator that depends on the seed and the parts only, not on the order in which cells are visited."""
    text = "\x1f".join(map(str, (seed, *parts)))
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


def poisson_weights(generator: np.random.Generator, replicates: int, clusters: int) -> npt.NDArray[np.uint8]:
    """Poisson(1) bootstrap weights, replicates x clusters."""
    weights: npt.NDArray[np.uint8] = _poisson_table()[generator.integers(0, 65536, size=(replicates, clusters), dtype=np.uint16)]
    return weights


def cluster_starts(clusters: pl.Series, seed: int) -> npt.NDArray[np.uint64]:
    """Where each cluster's weights start: a hash of its name and the seed."""
    names = clusters.cast(pl.String).fill_null("")
    return (salted_share(names, f"bootstrap-{seed}").to_numpy() * 2.0**53).astype(np.uint64) << np.uint64(11)


def cluster_weights(start: npt.NDArray[np.uint64], replicates: int) -> npt.NDArray[np.uint8]:
    """Poisson(1) bootstrap weights of each cluster, clusters x replicates: the same for a cluster wherever it is met.

    start: of `cluster_starts`. 16 bits a weight from SplitMix64 (Steele, Lea and Flood 2014).
    """
    steps = np.arange((replicates + 3) // 4, dtype=np.uint64)
    mixed = scattered(start[:, None] + steps[None, :] * np.uint64(0x9E3779B97F4A7C15))
    weights: npt.NDArray[np.uint8] = _poisson_table()[np.ascontiguousarray(mixed).astype("<u8").view("<u2")[:, :replicates]]
    return weights


def _resampled(
    values: Sequence[Floats], counts: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64], clusters: pl.Series, replicates: int, seed: int
) -> Iterator[tuple[npt.NDArray[np.int64], list[Floats]]]:
    """For some of the cells at a time: their numbers, and per column of values its sums in every replicate, cells x replicates.

    values: columns over rows sorted by cell; counts: rows of each cell; chosen: the cells wanted; clusters: of each row.
    """
    from scipy.sparse import csr_array

    if not chosen.size:
        return
    ends = np.cumsum(counts)
    # rows without a cluster's name are one cluster, which sorts first
    distinct = clusters.unique().sort()
    numbers = pl.DataFrame({"name": distinct}).with_row_index("number")
    number = pl.DataFrame({"name": clusters}).join(numbers, on="name", nulls_equal=True, maintain_order="left")["number"].to_numpy()
    is_asked = np.bincount(number[np.repeat(np.isin(np.arange(counts.size), chosen), counts)], minlength=distinct.len()) > 0
    start = np.zeros(distinct.len(), dtype=np.uint64)
    start[is_asked] = cluster_starts(distinct.filter(pl.Series(is_asked)), seed)
    position = 0
    while position < chosen.size:
        upto = int(np.searchsorted(np.cumsum(counts[chosen[position:]]), _ROWS_AT_ONCE, side="right"))
        part = chosen[position : position + max(upto, 1)]
        position += part.size
        starts = np.concatenate([[0], np.cumsum(counts[part])])
        rows = np.arange(starts[-1]) + np.repeat(ends[part] - counts[part] - starts[:-1], counts[part])
        of_rows = number[rows]
        is_met = np.bincount(of_rows, minlength=distinct.len()) > 0
        column = (np.cumsum(is_met) - 1)[of_rows]
        weights = cluster_weights(start[is_met], replicates).astype(np.float64)
        shape = (part.size, weights.shape[0])
        found = []
        for of in values:
            kept = of[rows]
            is_some = kept != 0  # most users of most days bring nothing
            entries = csr_array((kept[is_some], column[is_some], np.concatenate([[0], np.cumsum(is_some)])[starts]), shape=shape)
            found.append(np.asarray(entries @ weights))
        yield part, found


def wilson(successes: Floats, trials: Floats, z: float) -> tuple[Floats, Floats]:
    """Wilson's (1927) score interval of a share; trials may be effective, not whole."""
    share = successes / trials
    spread = z * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    centre = share + z**2 / (2 * trials)
    scale = 1 + z**2 / trials
    return np.clip((centre - spread) / scale, 0, 1), np.clip((centre + spread) / scale, 0, 1)


def clustered(
    rows: pl.DataFrame,
    keys: Sequence[str],
    kind: Kind,
    *,
    level: float = 0.95,
    replicates: int = 200,
    seed: int = 0,
) -> pl.DataFrame:
    """Value and interval of every cell.

    rows: `keys`, `cluster` (text), `num`, `den`; several rows of a cell and cluster are added up. Returns `keys`,
    numerator, denominator, value, ci_low, ci_high, n (clusters that count). The interval is null where one cluster or
    fewer is behind it, and value is null where the denominator is 0.
    """
    summed, names = _by_cell_and_cluster(rows, keys)
    found = clustered_sums(
        summed[_CELL], summed["cluster"], summed["num"].to_numpy(), summed["den"].to_numpy(), kind,
        level=level, replicates=replicates, seed=seed,
    )  # fmt: skip
    return names.join(found, left_on=_CELL, right_on="cell", maintain_order="right").drop(_CELL)


def clustered_sums(
    cell: pl.Series,
    cluster: pl.Series,
    num: Floats,
    den: Floats,
    kind: Kind,
    *,
    level: float = 0.95,
    replicates: int = 200,
    seed: int = 0,
) -> pl.DataFrame:
    """As `clustered`, of rows in order of their cell's number and of their cluster, each cluster once per cell.

    Returns cell and what `clustered` does, of cells that have a row that counts.
    """
    counted = (num != 0) | (den != 0)
    if not counted.all():
        keep = pl.Series(counted)
        cell, cluster, num, den = cell.filter(keep), cluster.filter(keep), num[counted], den[counted]
    number = cell.to_numpy()
    first = np.flatnonzero(np.concatenate([np.ones(min(number.size, 1), dtype=bool), number[1:] != number[:-1]]))
    cells, counts = number[first], np.diff(first, append=number.size)
    at = np.repeat(np.arange(counts.size), counts)
    numerator, denominator = (np.bincount(at, of, counts.size).astype(np.float64) for of in (num, den))
    z = normal_quantile(level)
    low = np.full(counts.size, np.nan)
    high = np.full(counts.size, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "total":
            value = numerator.copy()
            denominator = np.ones(counts.size)
            if counts.size:
                largest = np.maximum.reduceat(num, np.cumsum(counts) - counts)
                low, high = _of_total(value, np.bincount(at, num**2, counts.size).astype(np.float64), largest, level)
                spread = z * np.sqrt(np.bincount(at, num**2, counts.size))
                has_negative = np.bincount(at, num < 0, counts.size) > 0
                low, high = np.where(has_negative, value - spread, low), np.where(has_negative, value + spread, high)
        else:
            value = np.where(denominator != 0, numerator / denominator, np.nan)
            residual = num - value[at] * den
            variance = np.bincount(at, residual**2, counts.size) * counts / np.maximum(counts - 1, 1) / denominator**2
            if kind == "rate":
                binomial = value * (1 - value)
                effective = np.where((variance > 0) & (binomial > 0), binomial / variance, np.minimum(counts, denominator))
                effective = np.maximum(np.minimum(effective, denominator), 1e-9)
                low, high = wilson(value * effective, effective, z)
            else:
                low, high = value - z * np.sqrt(variance), value + z * np.sqrt(variance)
                low[counts < 2] = high[counts < 2] = np.nan
                tails = [(1 - level) / 2, (1 + level) / 2]
                chosen = np.flatnonzero((counts >= 2) & (counts <= MAX_BOOTSTRAP_CLUSTERS))
                for part, (top, bottom) in _resampled([num, den], counts, chosen, cluster, replicates, seed):
                    copies, usable = _sorted_copies(top, bottom)
                    for quantile, ends in zip(tails, (low, high), strict=True):
                        found = _row_quantile(copies, usable, quantile)
                        ends[part] = np.where(usable >= replicates / 2, found, ends[part])

    def floats(values: Floats) -> pl.Series:
        return pl.Series(values, dtype=pl.Float64).fill_nan(None)

    return pl.DataFrame(
        {
            "cell": pl.Series(cells, dtype=cell.dtype),
            "numerator": pl.Series(numerator, dtype=pl.Float64),
            "denominator": floats(denominator),
            "n": pl.Series(counts, dtype=pl.Int64),
            "value": floats(value),
            "ci_low": floats(low),
            "ci_high": floats(high),
        }
    )


def _of_total(total: Floats, squares: Floats, largest: Floats, level: float) -> tuple[Floats, Floats]:
    """Fay and Feuer's (1997) interval of a sum of Poisson counts times weights: gamma with the sum's mean and variance, above with
    one more event of the largest weight."""
    from scipy.special import gammaincinv

    tail = (1 - level) / 2
    above, spread = total + largest, squares + largest**2
    low: Floats = squares / total * gammaincinv(total**2 / squares, tail)
    high: Floats = spread / above * gammaincinv(above**2 / spread, 1 - tail)
    return low, high


def _by_cell_and_cluster(rows: pl.DataFrame, keys: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sums per cell and cluster that are not all zero, sorted by both (_CELL, cluster, num, den), and the key of each _CELL.

    A cell's number stands for its key in grouping and sorting, which is what takes long on a large log.
    """
    counted = rows.filter((pl.col("num") != 0) | (pl.col("den") != 0))
    names = counted.select(keys).unique().sort(keys).with_row_index(_CELL)
    summed = (
        counted.join(names, on=list(keys), nulls_equal=True)
        .group_by(_CELL, "cluster")
        .agg(pl.col("num", "den").cast(pl.Float64).sum())
        .sort(_CELL, "cluster")
    )
    return summed, names


def clustered_means(
    rows: pl.DataFrame,
    keys: Sequence[str],
    metrics: Sequence[str],
    *,
    level: float = 0.95,
    replicates: int = 200,
    seed: int = 0,
) -> pl.DataFrame:
    """Means over users of several metrics at once, all on the same bootstrap weights.

    rows: `keys`, `cluster`, one column per metric; one row per cell and cluster. Returns one row per cell and metric: `keys`,
    metric, numerator (sum), denominator (users), value (mean), ci_low, ci_high, n.
    """
    ordered = rows.sort(*keys, "cluster")
    cells = ordered.group_by(*keys, maintain_order=True).agg(n=pl.len().cast(pl.Int64))
    counts = cells["n"].to_numpy()
    values = ordered.select(metrics).to_numpy().astype(np.float64)
    ends = np.cumsum(counts)
    sums = np.add.reduceat(values, ends - counts, axis=0) if counts.size else np.zeros((0, len(metrics)))
    means = sums / counts[:, None]
    low, high = np.full(means.shape, np.nan), np.full(means.shape, np.nan)
    z = normal_quantile(level)
    for index in np.flatnonzero(counts > MAX_BOOTSTRAP_CLUSTERS):
        part = values[ends[index] - counts[index] : ends[index]]
        spread = z * part.std(axis=0, ddof=1) / counts[index] ** 0.5
        low[index], high[index] = means[index] - spread, means[index] + spread
    chosen = np.flatnonzero((counts >= 2) & (counts <= MAX_BOOTSTRAP_CLUSTERS))
    columns = [np.ones(len(values)), *np.ascontiguousarray(values.T)]
    for cell, (people, *totals) in _resampled(columns, counts, chosen, ordered["cluster"], replicates, seed):
        for column, total in enumerate(totals):
            copies, usable = _sorted_copies(total, people)
            low[cell, column] = _row_quantile(copies, usable, (1 - level) / 2)
            high[cell, column] = _row_quantile(copies, usable, (1 + level) / 2)
    frames = [
        cells.with_columns(
            metric=pl.lit(metric),
            numerator=pl.Series(sums[:, column], dtype=pl.Float64),
            denominator=pl.col("n").cast(pl.Float64),
            value=pl.Series(means[:, column], dtype=pl.Float64),
            ci_low=pl.Series(low[:, column], dtype=pl.Float64).fill_nan(None),
            ci_high=pl.Series(high[:, column], dtype=pl.Float64).fill_nan(None),
        )
        for column, metric in enumerate(metrics)
    ]
    return pl.concat(frames)


def _sorted_copies(top: Floats, bottom: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Quotients of each row in order, those over nothing last, and how many of a row are not over nothing."""
    copies = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)
    usable: npt.NDArray[np.int64] = np.isfinite(copies).sum(axis=1)
    return np.sort(copies, axis=1), usable


def _row_quantile(ordered: Floats, usable: npt.NDArray[np.int64], share: float) -> Floats:
    """Linear quantile of the first `usable` values of each row, rows sorted."""
    position = share * (np.maximum(usable, 1) - 1)
    below = position.astype(np.int64)
    above = np.minimum(below + 1, np.maximum(usable, 1) - 1)
    rows = np.arange(len(ordered))
    quantile: Floats = ordered[rows, below] + (position - below) * (ordered[rows, above] - ordered[rows, below])
    return quantile


def mean_interval(values: Floats, level: float) -> tuple[float, float]:
    """Normal interval of the mean of independent values; (nan, nan) for fewer than two."""
    if values.size < 2:
        return float("nan"), float("nan")
    spread = normal_quantile(level) * float(values.std(ddof=1)) / values.size**0.5
    centre = float(values.mean())
    return centre - spread, centre + spread
