"""Confidence intervals of rates, ratios and totals whose observations are clustered by user.

What belongs here: turning per-user numerators and denominators into a value with an interval. What does not: which
numerators and denominators (evaluation/) and comparing two arms (experiments.py).

Three kinds, one shape of input (one row per cell and cluster, columns `num` and `den`):

* rate: a share of counts. Wilson's score interval on the effective sample size of the clustered design (Korn and
  Graubard 1998), so that 0 clicks still have an upper end.
* ratio: any other quotient, such as revenue per order. Percentiles of a Poisson bootstrap over clusters (Chamandy et al.
  2012) up to MAX_BOOTSTRAP_CLUSTERS, the linearised (delta-method) interval above, where both agree to plotting accuracy.
* total: a sum over users. Normal interval of a compound Poisson sum: variance = sum of squared user totals.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

Kind = Literal["rate", "ratio", "total"]
Floats = npt.NDArray[np.float64]

MAX_BOOTSTRAP_CLUSTERS = 2000
"""Above so many users in a cell the delta method replaces the bootstrap: it costs one pass and is as exact there."""
_CELL = "number of the cell"


def normal_quantile(level: float) -> float:
    """z with P(|Z| <= z) = level."""
    from scipy.special import ndtri

    return float(ndtri(0.5 + level / 2))


@cache
def _poisson_table() -> npt.NDArray[np.uint8]:
    """65,536 equally likely values of a Poisson(1), so that a draw is a look-up of 16 random bits."""
    from scipy.stats import poisson

    cumulative = poisson.cdf(np.arange(12), 1.0)
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


def bootstrap_ratios(num: Floats, den: Floats, replicates: int, generator: np.random.Generator) -> Floats:
    """`replicates` bootstrap copies of sum(num) / sum(den), clusters resampled; copies with a zero denominator are left out."""
    weights = poisson_weights(generator, replicates, num.size).astype(np.float64)
    sums = weights @ np.column_stack([num, den])
    usable = sums[:, 1] != 0
    copies: Floats = sums[usable, 0] / sums[usable, 1]
    return copies


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
    name: str = "",
) -> pl.DataFrame:
    """Value and interval of every cell.

    rows: `keys`, `cluster` (text), `num`, `den`; several rows of a cell and cluster are added up. Returns `keys`,
    numerator, denominator, value, ci_low, ci_high, n (clusters that count). The interval is null where one cluster or
    fewer is behind it, and value is null where the denominator is 0.
    """
    summed = _by_cell_and_cluster(rows, keys)
    cells = summed.group_by(_CELL, maintain_order=True).agg(
        pl.col(*keys).first(), numerator=pl.col("num").sum(), denominator=pl.col("den").sum(), n=pl.len().cast(pl.Int64)
    )
    cells = cells.drop(_CELL)
    if cells.height == 0:
        return cells.with_columns(
            value=pl.lit(None, pl.Float64), ci_low=pl.lit(None, pl.Float64), ci_high=pl.lit(None, pl.Float64)
        )
    num, den = summed["num"].to_numpy(), summed["den"].to_numpy()
    counts = cells["n"].to_numpy()
    cell = np.repeat(np.arange(counts.size), counts)
    numerator, denominator = cells["numerator"].to_numpy(), cells["denominator"].to_numpy()
    z = normal_quantile(level)
    low = np.full(counts.size, np.nan)
    high = np.full(counts.size, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "total":
            denominator = np.ones(counts.size)
            value = numerator.copy()
            spread = z * np.sqrt(np.bincount(cell, num**2, counts.size))
            low, high = value - spread, value + spread
        else:
            value = np.where(denominator != 0, numerator / denominator, np.nan)
            residual = num - value[cell] * den
            variance = np.bincount(cell, residual**2, counts.size) * counts / np.maximum(counts - 1, 1) / denominator**2
            if kind == "rate":
                binomial = value * (1 - value)
                effective = np.where((variance > 0) & (binomial > 0), binomial / variance, np.minimum(counts, denominator))
                effective = np.maximum(np.minimum(effective, denominator), 1e-9)
                low, high = wilson(value * effective, effective, z)
            else:
                low, high = value - z * np.sqrt(variance), value + z * np.sqrt(variance)
                low[counts < 2] = high[counts < 2] = np.nan
                ends = np.cumsum(counts)
                tails = [(1 - level) / 2, (1 + level) / 2]
                named = cells.select(keys).rows()
                for index in np.flatnonzero((counts >= 2) & (counts <= MAX_BOOTSTRAP_CLUSTERS)):
                    part = slice(ends[index] - counts[index], ends[index])
                    copies = bootstrap_ratios(num[part], den[part], replicates, seeded(seed, name, *named[index]))
                    if copies.size >= replicates / 2:
                        low[index], high[index] = np.quantile(copies, tails)

    def floats(values: Floats) -> pl.Series:
        return pl.Series(values, dtype=pl.Float64).fill_nan(None)

    return cells.with_columns(denominator=floats(denominator), value=floats(value), ci_low=floats(low), ci_high=floats(high))


def _by_cell_and_cluster(rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Sums per cell and cluster that are not all zero, sorted by key and cluster: _CELL (number of the key), keys, num, den.

    A cell's number stands for its key in grouping and sorting, which is what takes long on a large log.
    """
    counted = rows.filter((pl.col("num") != 0) | (pl.col("den") != 0))
    names = counted.select(keys).unique().sort(keys).with_row_index(_CELL)
    summed = (
        counted.join(names, on=list(keys), nulls_equal=True)
        .group_by(_CELL, "cluster")
        .agg(pl.col("num", "den").cast(pl.Float64).sum())
        .filter((pl.col("num") != 0) | (pl.col("den") != 0))
        .sort(_CELL, "cluster")
    )
    return summed.join(names, on=_CELL, maintain_order="left")


def clustered_means(
    rows: pl.DataFrame,
    keys: Sequence[str],
    metrics: Sequence[str],
    *,
    level: float = 0.95,
    replicates: int = 200,
    seed: int = 0,
    name: str = "",
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
    named = cells.select(keys).rows()
    for index in np.flatnonzero(counts >= 2):
        part = values[ends[index] - counts[index] : ends[index]]
        if counts[index] > MAX_BOOTSTRAP_CLUSTERS:
            spread = z * part.std(axis=0, ddof=1) / counts[index] ** 0.5
            low[index], high[index] = means[index] - spread, means[index] + spread
            continue
        weights = poisson_weights(seeded(seed, name, *named[index]), replicates, counts[index]).astype(np.float64)
        total = weights.sum(axis=1)
        copies = np.sort((weights @ part)[total > 0] / total[total > 0, None], axis=0)
        low[index], high[index] = _sorted_quantiles(copies, (1 - level) / 2), _sorted_quantiles(copies, (1 + level) / 2)
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


def _sorted_quantiles(ordered: Floats, share: float) -> Floats:
    """Linear quantile of each column of values sorted along axis 0."""
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    quantile: Floats = ordered[below] + (position - below) * (ordered[above] - ordered[below])
    return quantile


def mean_interval(values: Floats, level: float) -> tuple[float, float]:
    """Normal interval of the mean of independent values; (nan, nan) for fewer than two."""
    if values.size < 2:
        return float("nan"), float("nan")
    spread = normal_quantile(level) * float(values.std(ddof=1)) / values.size**0.5
    centre = float(values.mean())
    return centre - spread, centre + spread
