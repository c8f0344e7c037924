"""Demand over a lead time, simulated from the forecast's joint paths.

What belongs here: paths, their quantiles, the chance that stock does not last. What does not: what is ordered (build.py).

Each path draws one quantile per day of the forecast in force, and days of a path lean the same way, because a forecast that is
too low today is too low tomorrow. Adding up daily quantiles would assume every day is a bad one; adding up variances would
assume the forecast is never wrong twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

from marketing_assets.config import Store
from marketing_assets.schemas import QUANTILE_COLUMNS

PATH_CORRELATION = 0.3
"""Share of a day's surprise that the days of one path have in common."""
CHUNK = 32
"""Series simulated at once: so few that their paths stay in the processor's cache, and that no threads are started for a small product."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]
_LEVELS = np.array(list(QUANTILE_COLUMNS))
_KNOTS = np.concatenate([[0.0], _LEVELS, [1.0]])


def path_weights(steps: int, simulations: int, seed: int, correlation: float = PATH_CORRELATION) -> Singles:
    """(steps, knots, simulations): what each path takes of each knot of a day's quantile function.

    Every day uses every one of `simulations` equal slices of probability once; a Gaussian copula with this correlation between
    all days of a path says in which path. The same for every series, so that a path is a path of the shop.
    """
    common = np.random.default_rng([seed, simulations]).standard_normal(simulations)
    # a step has its own generator, so that a path does not depend on how far it is followed
    own = np.stack([np.random.default_rng([seed, simulations, step]).standard_normal(simulations) for step in range(steps)])
    score = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own
    place = score.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    level = (place + 0.5) / simulations
    upper = np.clip(np.searchsorted(_KNOTS, level, side="left"), 1, len(_KNOTS) - 1)
    share = (level - _KNOTS[upper - 1]) / (_KNOTS[upper] - _KNOTS[upper - 1])
    weights = np.zeros((steps, len(_KNOTS), simulations), dtype=np.float32)
    step, path = np.indices(place.shape)
    weights[step, upper - 1, path] = 1 - share
    weights[step, upper, path] += share
    return weights


def knot_values(mean: Floats, quantiles: Floats) -> Floats:
    """(n, steps, knots) the quantile function of each day.

    mean: (n, steps); quantiles: (n, steps, levels). Between levels it is linear. Above the last it rises once more by as much as
    between the last two. Where every quantile is 0, all of the mean lies there; elsewhere the mean has no say: it is held to the
    shop's total, bulk orders of single customers included, and to stock up for those costs more than it saves.
    """
    last = quantiles[:, :, -1:]
    values = np.concatenate([quantiles[:, :, :1], quantiles, last + (last - quantiles[:, :, -2:-1])], axis=2)
    values[:, :, -1] += np.where(last[:, :, 0] > 0, 0.0, mean / ((1 - _KNOTS[-2]) / 2))
    return values


@dataclass(frozen=True)
class Demand:
    """The forecast of one issue. series: item_id, location_id, sorted; mean: (n, steps); knots: (n, steps, knots)."""

    issue: date
    series: pl.DataFrame
    mean: Floats
    knots: Singles


def no_demand(issue: date, steps: int) -> Demand:
    """Where nothing was forecast."""
    nothing = pl.DataFrame(schema={"item_id": pl.String, "location_id": pl.String})
    return Demand(issue, nothing, np.zeros((0, steps)), np.zeros((0, steps, len(_KNOTS)), dtype=np.float32))


def demand_of(issue: date, rows: pl.DataFrame, steps: int) -> Demand:
    """Item forecasts of an issue for `steps` days; beyond its horizon the last week repeats itself."""
    if rows.is_empty():
        return no_demand(issue, steps)
    series = rows.select("item_id", "location_id").unique().sort("item_id", "location_id", nulls_last=False)
    placed = rows.join(series.with_row_index("row"), on=["item_id", "location_id"], nulls_equal=True)
    given = int(rows["horizon_days"].max() or 1)  # type: ignore[arg-type]
    at = (placed["row"].to_numpy(), placed["horizon_days"].to_numpy() - 1)
    mean = np.zeros((series.height, given))
    quantiles = np.zeros((series.height, given, len(_LEVELS)))
    mean[at] = placed["demand_mean"].to_numpy()
    quantiles[at] = placed.select(QUANTILE_COLUMNS.values()).to_numpy()
    week = min(7, given)
    column = np.array([step if step < given else given - week + (step - given) % week for step in range(steps)], dtype=np.int64)
    return Demand(issue, series, mean[:, column], knot_values(mean, quantiles).astype(np.float32)[:, column])


@dataclass(frozen=True)
class Supply:
    """What a day's rows ask of demand: one value per row of (rows,). stock_on_hand: nan where unknown; lead_time_days: whole days.

    span_days: days that stock and orders must last; service: the quantile of demand over them to be ready for.
    """

    offset: int
    stock_on_hand: Floats
    lead_time_days: Integers
    span_days: Integers
    service: Floats


@dataclass(frozen=True)
class LeadTime:
    """(rows,) reorder_point: quantile of demand over span_days; stockout_probability: P(demand over the lead time exceeds stock)."""

    reorder_point: Floats
    stockout_probability: Floats


def simulate(demand: Demand, totals: Sequence[Sequence[int]], supplies: Sequence[Supply], store: Store) -> list[LeadTime]:
    """Lead-time demand on each of several days after one issue.

    Rows are the series of `demand` and then one row per entry of totals: the sum of the series it names, whose paths are
    shuffled against each other. supplies: one per day, over all rows.
    """
    simulations = store.inventory.simulations
    furthest = [supply.offset + int(days.max(initial=1)) for supply in supplies for days in (supply.span_days, supply.lead_time_days)]
    weights = path_weights(min(max(furthest), demand.knots.shape[1]), simulations, store.seed)
    rows = demand.series.height + len(totals)
    asked = _Asked.of(supplies, simulations)
    found = LeadTime(np.zeros((len(supplies), rows)), np.full((len(supplies), rows), np.nan))
    buffer = np.zeros((len(weights) + 1, CHUNK, simulations), dtype=np.float32)
    for first in range(0, demand.series.height, CHUNK):
        part = slice(first, min(first + CHUNK, demand.series.height))
        _measure(_paths(demand.knots[part], weights, buffer), part, asked, found)
    for place, members in enumerate(totals, start=demand.series.height):
        shuffled = np.zeros((len(weights) + 1, 1, simulations), dtype=np.float32)
        for turn, member in enumerate(members):
            order = np.random.default_rng([store.seed, turn]).permutation(simulations)
            shuffled[:, 0] += _paths(demand.knots[[member]], weights, buffer)[:, 0][:, order]
        _measure(shuffled, slice(place, place + 1), asked, found)
    return [LeadTime(*each) for each in zip(found.reorder_point, found.stockout_probability, strict=True)]


def _paths(knots: Singles, weights: Singles, buffer: Singles) -> Singles:
    """(steps + 1, n, simulations) units sold up to each step, written over what `buffer` held."""
    paths = buffer[:, : len(knots)]
    np.matmul(np.ascontiguousarray(knots[:, : len(weights)].transpose(1, 0, 2)), weights, out=paths[1:])
    for step in range(len(weights)):  # numpy's cumsum along the first axis takes several times as long
        paths[step + 1] += paths[step]
    return paths


@dataclass(frozen=True)
class _Asked:
    """Supplies of all days as arrays of (days, rows). start: (days, 1) steps passed by then; end, arrival: steps passed when stock
    and orders must have lasted, and when an order arrives; place: which of the sorted paths is asked for."""

    start: Integers
    end: Integers
    arrival: Integers
    place: Integers
    stock: Floats

    @classmethod
    def of(cls, supplies: Sequence[Supply], simulations: int) -> _Asked:
        start = np.array([[supply.offset] for supply in supplies])
        span, lead, service, stock = (
            np.stack([getattr(supply, name) for supply in supplies]) for name in ("span_days", "lead_time_days", "service", "stock_on_hand")
        )
        place = np.maximum(np.ceil(np.round(service * simulations, 6)).astype(np.int64) - 1, 0)
        return cls(start, start + span, start + lead, place, stock)


def _measure(paths: Singles, part: slice, asked: _Asked, found: LeadTime) -> None:
    """Fill the rows `part` of what was found, (days, rows) each, from their paths."""
    rows = np.arange(paths.shape[1])
    before = paths[asked.start, rows]
    total = paths[asked.end[:, part], rows] - before
    place = asked.place[:, part]
    total.partition(np.unique(place), axis=2)
    found.reorder_point[:, part] = np.take_along_axis(total, place[:, :, None], axis=2)[:, :, 0]
    stock = asked.stock[:, part]
    day, row = np.nonzero(~np.isnan(stock))
    if len(day):
        until = paths[asked.arrival[:, part][day, row], row] - before[day, row]
        found.stockout_probability[:, part][day, row] = (until > stock[day, row][:, None] + 0.5).mean(axis=1)
