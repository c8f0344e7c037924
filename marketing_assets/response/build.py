"""The window function: response_rates and response_calibration for every day of a window.

What belongs here: reading once per window, the loop over days, putting cells together. What does not: the estimators
(shrinkage, learned), supply and prices (supply), scores (calibration).

Look-backs from day D: clean_impressions, attributed_conversions and ad_reports history_days + 7 of landings; audiences to
the keyframe before the first of them; items to the last keyframe; every refit_requests row; own rates of D - 1; own models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
from scipy.special import ndtri

from marketing_assets.cleaning import tells_conversions, tells_values
from marketing_assets.config import Store
from marketing_assets.response.calibration import HOUR_BLOCK, score_rates
from marketing_assets.response.changes import Change, Changes, Outcome, read_changes
from marketing_assets.response.shrinkage import MAXIMUM_RATE, Effects, fit_effects
from marketing_assets.response.statistics import (
    CELL,
    EPOCH,
    LATER_DAYS,
    UNKNOWN_AUDIENCE,
    Flags,
    Floats,
    Integers,
    Log,
    code,
    code_of,
    day_numbers,
    maturity_curve,
    read_log,
    totals,
)
from marketing_assets.response.supply import (
    WEEK,
    AsKnown,
    Inventory,
    Seen,
    ShownLog,
    creatives_of,
    expected_cost,
    forecast_supply,
    on_offer,
    placement_prices,
)
from marketing_assets.warehouse import Built, Reader, polars_schema

TABLES = ("response_rates", "response_calibration")
SOURCES = ("impressions", "ad_reports", "placements")
CLICK_FACTORS = (
    "placement_id",
    "hour_block",
    "placement_block",
    "hour",
    "position",
    "audience_id",
    "campaign_id",
    "creative_id",
    "placement_creative",
    "audience_creative",
)
"""Parents before children: an hour is drawn to its block, the block's level is learned from all its hours."""
CONVERSION_FACTORS = ("placement_id", "audience_id", "campaign_id", "creative_id")
PAIRS = {
    "placement_creative": ("placement_id", "creative_id"),
    "audience_creative": ("audience_id", "creative_id"),
    "placement_block": ("placement_id", "hour_block"),
}
"""Pairs of factors with effects of their own: tastes, and the hours at which a placement is looked at."""
VALUE_WEIGHT = 20.0
"""Conversions a creative's expected value counts for before its own."""


def build_response(reader: Reader, days: Sequence[date], store: Store) -> Built:
    """response_rates and response_calibration of `days`.

    Plain: every day's rates are shrunken products of effects over the last history_days. Learned: the same and two
    trained models compete on later days at each cadence day, and the winner's rates are recalibrated; see learned.py.
    A shop with neither impressions, ad reports nor placements gets empty tables, marked.
    """
    if not any(reader.has_source(name) for name in SOURCES):
        missing = {name: "needs source 'impressions', 'ad_reports' or 'placements'" for name in TABLES}
        return Built(tables={name: pl.DataFrame(schema=polars_schema(name)) for name in TABLES}, degraded=missing)
    # a trained model's earlier part reaches LATER_DAYS further back than the rates of the day
    start = days[0] - timedelta(days=store.response.history_days - 1 + (LATER_DAYS if store.methods == "learned" else 0))
    log = read_log(reader, start, days[-1])
    inventory = Inventory.read(reader, days)
    items = read_items(reader, days, log, inventory)
    previous = reader.window("response_rates", days[0] - timedelta(days=1), days[0] - timedelta(days=1))
    offered = _offered(reader, days[0])
    pooled = Pool(log, store, read_changes(reader, days[-1]), items)
    history = None
    if store.methods == "learned":
        from marketing_assets.response.learned import LearnedResponse

        history = LearnedResponse(reader, days, store, pooled)
    rates_of = []
    for day in days:
        statistics = pooled.on(day)
        if history is not None:
            history.refit(day, statistics)
        cells = plan_cells(day, statistics, pooled.seen(day), inventory, store, offered.get(day - timedelta(days=WEEK)))
        rates = rates_on(day, statistics, cells, items, store, history)
        rates_of.append(rates)
        offered[day] = on_offer(rates)
    scores = score_rates(log, pl.concat([previous, *rates_of]), days)
    scored = scores.filter(pl.col("segment_type") == "all", pl.col("clicks") > 0)
    ratios = dict(scored.select("as_of_date", pl.col("predicted_clicks") / pl.col("clicks")).iter_rows())
    metrics = {
        day: {"cells": float(rates.height), **({"calibration_ratio": ratios[day]} if day in ratios else {})}
        for day, rates in zip(days, rates_of, strict=True)
    }
    return Built(
        tables={"response_rates": pl.concat(rates_of), "response_calibration": scores},
        models=[] if history is None else history.models,
        metrics={"response_rates": metrics},
    )


def _offered(reader: Reader, first: date) -> dict[date, pl.DataFrame]:
    """on_offer of each day of the week before `first`."""
    columns = ["as_of_date", "audience_id", "placement_id", "hour", "available_impressions"]
    rows = on_offer(reader.window("response_rates", first - timedelta(days=WEEK), first - timedelta(days=1), columns))
    return {part["as_of_date"][0]: part for part in rows.partition_by("as_of_date")}


@dataclass(frozen=True)
class Day:
    """What the log says as of one day, summed over history_days.

    cells: one row per (CELL, position) seen, with codes in `codes`; impressions, clicks; click_exposure (clicks weighted by
    the share of their conversions that should have arrived) and conversions. values: per creative conversions and value.
    shown: the cell-days themselves. dearness: of each cell's item, see `dearness`. before: (outcome, factor) -> codes under which
    rows from before a change are learned. changed: the changes known.
    """

    day: date
    cells: pl.DataFrame
    codes: dict[str, Integers]
    levels: dict[str, list[Any]]
    impressions: Floats
    clicks: Floats
    click_exposure: Floats
    conversions: Floats
    values: pl.DataFrame
    shown: pl.DataFrame
    evidence: str
    dearness: Floats
    before: dict[tuple[Outcome, str], Integers] = field(default_factory=dict)
    changed: tuple[Change, ...] = ()

    def learned_as(self, outcome: Outcome, names: Sequence[str]) -> dict[str, Integers]:
        """Codes of the rows for learning an outcome's rate: a level before it changed is a level of its own."""
        return {name: self.before.get((outcome, name), self.codes[name]) for name in names}

    def effects(self, outcome: Outcome, names: Sequence[str], prior_rate: float, prior_weight: float) -> Effects:
        """Shrunken rates of an outcome; levels that changed are held to nothing they were before."""
        events, exposure, along = self.clicks, self.impressions, None
        if outcome == "conversions":
            events, exposure, along = self.conversions, np.maximum(self.click_exposure, self.conversions), self.dearness
        sizes = {name: len(self.levels[name]) for name in names}
        loose = {
            factor: np.array([number for number, level in enumerate(self.levels[factor]) if level in set(named)], dtype=np.int64)
            for factor in {one.factor for one in self.changed}
            if (named := [one.level for one in self.changed if one.outcome == outcome and one.factor == factor])
        }
        return fit_effects(events, exposure, self.learned_as(outcome, names), sizes, prior_rate, prior_weight, loose, along)


class Pool:
    """The window's log, coded once; `on(day)` sums what had landed by it."""

    def __init__(self, log: Log, store: Store, changes: Changes, items: AsKnown) -> None:
        self.log, self.store, self.changes, self.items = log, store, changes, items
        self.tells_conversions = tells_conversions(store)
        shown, converted = log.shown, log.converted
        keys = [*CELL, "position"]
        self.cells = pl.concat([shown.select(keys), converted.select(keys)]).unique().sort(keys)
        campaigns = shown.group_by("creative_id").agg(pl.col("campaign_id").max(), pl.col("item_id").max())
        self.cells = self.cells.join(campaigns, on="creative_id", how="left", maintain_order="left").with_columns(
            hour_block=pl.col("hour") // HOUR_BLOCK
        )
        self.levels: dict[str, list[Any]] = {
            name: self.cells[name].drop_nulls().unique().sort().to_list()
            for name in ("placement_id", "hour", "hour_block", "position", "audience_id", "campaign_id", "creative_id")
        }
        self.codes = code(self.cells, list(self.levels), self.levels)
        for name, (left, right) in PAIRS.items():
            width = max(len(self.levels[right]), 1)
            joint = self.codes[left] * width + self.codes[right]
            self.levels[name] = np.unique(joint).tolist()
            self.codes[name] = np.searchsorted(np.asarray(self.levels[name], dtype=np.int64), joint).astype(np.int64)
        self.earlier = self._earlier_levels()
        index = self.cells.select(keys).with_row_index("row")
        self.shown_cell = _lookup(shown, index, keys)
        self.converted_cell = _lookup(converted, index, keys)
        self.landed = day_numbers(shown, "landed_date")
        self.clicks = shown["clicks"].to_numpy().astype(float)
        self.converted_landed = day_numbers(converted, "landed_date")
        self.credited = day_numbers(converted, "credited_date")
        self.conversions = converted["conversions"].to_numpy().astype(float)

        self.supply = ShownLog(shown, self.cells, self.shown_cell)
        self.shown_date, self.impressions = self.supply.date, self.supply.impressions
        self.converted_date = day_numbers(converted, "impression_date")

    def _earlier_levels(self) -> dict[tuple[str, str, date], int]:
        """(factor, level, since) -> the code of that level before `since`, added after the levels the log has."""
        wanted = {
            (one.factor, level, one.since)
            for one in self.changes.changes
            for level in (self.levels[one.factor] if one.level is None else [one.level])
            if level in self.levels[one.factor]
        }
        codes = {}
        for factor, level, since in sorted(wanted):
            codes[factor, level, since] = len(self.levels[factor])
            self.levels[factor].append(f"{level} before {since}")
        return codes

    def on(
        self, day: date, first: date | None = None, *, known: date | None = None, apart: tuple[Outcome, date] | None = None
    ) -> Day:
        """Sums over landings of [first, day]; first defaults to history_days before.

        known: the day whose requests are heeded, `day` itself by default. apart: an outcome and a day; what a segment showed
        after a change later than that day is left out, since nothing learned by then could know it.
        """
        first, known = first or day - timedelta(days=self.store.response.history_days - 1), known or day
        today, since = (day - EPOCH).days, (first - EPOCH).days
        start, stop = np.searchsorted(self.landed, [since, today + 1])
        rows = np.arange(start, stop)
        credit = np.flatnonzero((self.converted_landed >= since) & (self.credited <= today))
        window = self.store.attribution_window_days
        curve = maturity_curve(
            self.converted_landed[credit], self.credited[credit], self.conversions[credit], today, window
        )
        rows = rows[self._teaches(self.shown_date[rows], self.shown_cell[rows], known, apart)]
        credit = credit[self._teaches(self.converted_date[credit], self.converted_cell[credit], known, apart)]
        cell, index, credited, before = self._split(rows, credit, known)
        size = cell.size
        impressions = totals(index, self.impressions[rows], size)
        clicks = totals(index, self.clicks[rows], size)
        age = np.clip(today - self.landed[rows], 0, window)
        # where nothing tells of conversions, clicks without one teach nothing
        exposure = totals(index, self.clicks[rows] * curve[age], size) if self.tells_conversions else np.zeros(size)
        conversions = totals(credited, self.conversions[credit], size)
        kept = np.flatnonzero(impressions > 0)
        values = (
            self.log.converted[credit]
            .lazy()
            .group_by("creative_id")
            .agg(pl.col("conversions").sum(), pl.col("conversion_value").sum())
            .sort("creative_id")
            .collect()
        )
        return Day(
            day,
            self.cells[cell[kept]],
            {name: codes[cell[kept]] for name, codes in self.codes.items()},
            self.levels,
            impressions[kept],
            np.minimum(np.maximum(clicks[kept], 0.0), impressions[kept]),
            exposure[kept],
            np.maximum(conversions[kept], 0.0),
            values,
            self.log.shown[start:stop],
            self.log.evidence,
            dearness(day, self.cells, self.items)[cell[kept]],
            {key: codes[kept] for key, codes in before.items()},
            tuple(self.changes.on(known)),
        )

    def seen(self, day: date) -> Seen | None:
        """What the log of the last history_days says of supply."""
        since = (day - EPOCH).days - self.store.response.history_days + 1
        return self.supply.on(day, slice(*np.searchsorted(self.landed, [since, (day - EPOCH).days + 1])))

    def _teaches(self, shown: Integers, cell: Integers, known: date, apart: tuple[Outcome, date] | None) -> Flags:
        """Which rows (day shown, cell) count: none of silent days, and none of what `apart` leaves out."""
        teaches = np.ones(shown.size, dtype=bool)
        for since, until in self.changes.silent_on(known):
            teaches &= (shown < (since - EPOCH).days) | (shown >= (until - EPOCH).days if until else False)
        if apart is not None:
            for one in self.changes.on(known, apart[0]):
                if one.since > apart[1]:
                    teaches &= ~(self._is_of(one, cell) & (shown >= (one.since - EPOCH).days))
        return teaches

    def _is_of(self, one: Change, cell: Integers) -> Flags:
        """Which cells are of the segment a change is about."""
        if one.level is None:
            return np.ones(cell.size, dtype=bool)
        levels = self.levels[one.factor]
        return np.asarray(self.codes[one.factor][cell] == (levels.index(one.level) if one.level in levels else -2))

    def _split(
        self, rows: Integers, credit: Integers, known: date
    ) -> tuple[Integers, Integers, Integers, dict[tuple[Outcome, str], Integers]]:
        """Cells cut where their segment changed: cell numbers, the place of each row and credit in them, and their codes before."""
        shown_cell, converted_cell = self.shown_cell[rows], self.converted_cell[credit]
        changes = self.changes.on(known)
        if not changes:
            return np.arange(self.cells.height), shown_cell, converted_cell, {}
        cells = np.concatenate([shown_cell, converted_cell])
        shown = np.concatenate([self.shown_date[rows], self.converted_date[credit]])
        codes: dict[tuple[Outcome, str], Integers] = {}
        for one in changes:  # the latest first: a row from before two changes is from before the earlier one
            key = one.outcome, one.factor
            earlier = codes.setdefault(key, self.codes[one.factor][cells])
            is_before = self._is_of(one, cells) & (shown < (one.since - EPOCH).days)
            levels = [one.level] if one.level is not None else self.levels[one.factor]
            for level in levels:
                if (code_before := self.earlier.get((one.factor, level, one.since))) is not None:
                    own = is_before & (self.codes[one.factor][cells] == self.levels[one.factor].index(level))
                    codes[key] = earlier = np.where(own, code_before, earlier)
        joint = cells
        for (_, factor), of_rows in codes.items():
            joint = joint * (len(self.levels[factor]) + 1) + of_rows + 1
        _, first, place = np.unique(joint, return_index=True, return_inverse=True)
        place = place.astype(np.int64)
        split = {key: of_rows[first] for key, of_rows in codes.items()}
        return cells[first], place[: rows.size], place[rows.size :], split


ITEMS = {"as_of_date": pl.Date, "item_id": pl.String, "unit_price": pl.Float64, "unit_cost": pl.Float64}


def _lookup(frame: pl.DataFrame, index: pl.DataFrame, keys: list[str]) -> Integers:
    return (
        frame.select(keys)
        .join(index, on=keys, how="left", maintain_order="left", nulls_equal=True)["row"]
        .to_numpy()
        .astype(np.int64)
    )


def read_items(reader: Reader, days: Sequence[date], log: Log, inventory: Inventory) -> AsKnown:
    """Each item advertised as its newest entry by a day has it: item_id, unit_price, unit_cost. Read from the keyframe before the window."""
    wanted = pl.concat([log.shown["item_id"], inventory.creatives.rows["item_id"]]).drop_nulls().unique().sort().to_list()
    entries = pl.DataFrame(schema=ITEMS)
    if wanted:
        table = reader.table("items")
        rows = table.filter(table.as_of_date.between(reader.keyframe_before(days[0]), days[-1]), table.item_id.isin(wanted))
        entries = reader.frame(rows.select(list(ITEMS))).cast(pl.Schema(ITEMS)).sort("as_of_date", "item_id")
    return AsKnown(entries, "as_of_date", lambda rows: rows.unique("item_id", keep="last", maintain_order=True).drop("as_of_date"))


def dearness(day: date, cells: pl.DataFrame, items: AsKnown) -> Floats:
    """Logarithm of each cell's item price over the median of the items advertised so far; 0 where it is not known.

    cells: item_id. People look at dear things and buy cheap ones, so that a creative's conversion rate follows its price.
    """
    known = items.on(day).filter(pl.col("unit_price") > 0)
    if known.is_empty():
        return np.zeros(cells.height)
    logarithm = np.log(known["unit_price"].to_numpy())
    at = code_of(cells["item_id"], known["item_id"].to_list())
    return np.where(at >= 0, logarithm[at] - float(np.median(logarithm)), 0.0)


def fit_clicks(statistics: Day, store: Store) -> Effects:
    """Shrunken click rates of the day's sums."""
    return statistics.effects("clicks", CLICK_FACTORS, store.response.prior_ctr, store.response.prior_weight)


def fit_conversions(statistics: Day, store: Store) -> Effects:
    """Shrunken conversion rates given a click, late conversions allowed for."""
    return statistics.effects("conversions", CONVERSION_FACTORS, store.response.prior_cvr, store.response.prior_weight)


def plan_cells(
    day: date, statistics: Day, seen: Seen | None, inventory: Inventory, store: Store, last_week: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Cells that could be served tomorrow: CELL, campaign_id, item_id, available_impressions, pricing, price, paid.

    seen: what the log says of supply. last_week: on_offer of a week before.
    """
    shown = statistics.shown
    prices = placement_prices(day, inventory.placements.on(day))
    known = {audience.audience_id for audience in store.profiles.audiences} | {UNKNOWN_AUDIENCE}
    if seen is not None:
        known |= set(seen.groups["audience_id"])
    supply = forecast_supply(day, seen, prices, last_week).lazy().filter(pl.col("audience_id").is_in(sorted(known)))
    cells = supply.join(creatives_of(day, inventory, shown), how="cross")
    if statistics.evidence == "ad_reports" and not shown.is_empty():
        served = shown.lazy().select("creative_id", "placement_id").unique()
        cells = cells.join(served, on=["creative_id", "placement_id"], how="semi")
    if seen is None:
        cells = cells.with_columns(paid=pl.lit(None, pl.Float64))
    else:
        cells = cells.join(seen.placements.lazy(), on="placement_id", how="left")
    return (
        cells.join(prices.lazy().drop("capacity"), on=["placement_id", "hour"], how="left")
        .with_columns(pl.col("price").cast(pl.Float64))
        .sort(CELL)
        .collect()
    )


def rates_on(day: date, statistics: Day, cells: pl.DataFrame, items: AsKnown, store: Store, learned: Any = None) -> pl.DataFrame:
    """response_rates rows of one day. cells: see `plan_cells`."""
    schema = polars_schema("response_rates")
    if cells.is_empty():
        return pl.DataFrame(schema=schema)
    codes = cell_codes(cells, statistics)
    clicks, conversions = fit_clicks(statistics, store), fit_conversions(statistics, store)
    slot = slot_effect(clicks, statistics)
    factors = [name for name in CLICK_FACTORS if name != "position"]
    ctr = np.minimum(clicks.rate(codes, factors) * _at(slot, codes["placement_id"]), MAXIMUM_RATE)
    dear = dearness(day, cells, items)
    cvr = conversions.rate(codes, along=dear)
    ctr_sd = np.sqrt(clicks.log_variance(codes, factors))
    cvr_sd = np.sqrt(conversions.log_variance(codes, along=dear))
    if learned is not None:
        ctr, cvr, ctr_sd, cvr_sd = learned.adjust(day, codes, dear, statistics, ctr, cvr, ctr_sd, cvr_sd)
    z = float(ndtri(0.5 + store.response.interval / 2))
    values = conversion_values(day, cells, statistics, items, store)
    evidence = statistics.evidence if statistics.impressions.sum() > 0 else "prior"
    frame = cells.lazy().with_columns(
        as_of_date=pl.lit(day),
        ctr=pl.Series(ctr),
        cvr=pl.Series(cvr),
        ctr_low=pl.Series(ctr * np.exp(-z * ctr_sd)),
        ctr_high=pl.Series(np.minimum(ctr * np.exp(z * ctr_sd), 1.0)),
        cvr_low=pl.Series(cvr * np.exp(-z * cvr_sd)),
        cvr_high=pl.Series(np.minimum(cvr * np.exp(z * cvr_sd), 1.0)),
        value_per_conversion=pl.Series(values),
        evidence=pl.lit(evidence),
    ).with_columns(
        cost_per_impression=expected_cost(pl.col("pricing"), pl.col("price"), pl.col("paid"), pl.col("ctr"), pl.col("cvr"))
    )
    return frame.select(pl.col(name).cast(kind) for name, kind in schema.items()).collect()


def _at(values: Floats, codes: Integers) -> Floats:
    if values.size == 0:
        return np.ones(len(codes))
    return np.where(codes >= 0, values[np.maximum(codes, 0)], 1.0)


def cell_codes(cells: pl.DataFrame, statistics: Day) -> dict[str, Integers]:
    """Level codes of plan cells; -1 for levels the log has not shown. A report without hours has one level of hour for all."""
    names = ["placement_id", "hour", "hour_block", "audience_id", "campaign_id", "creative_id"]
    codes = code(cells.with_columns(hour_block=pl.col("hour") // HOUR_BLOCK), names, statistics.levels)
    if statistics.levels["hour"] == [-1]:
        codes["hour"] = codes["hour_block"] = np.zeros(cells.height, dtype=np.int64)
    for name, (left, right) in PAIRS.items():
        joint = codes[left] * max(len(statistics.levels[right]), 1) + codes[right]
        known = np.asarray(statistics.levels[name], dtype=np.int64)
        place = np.searchsorted(known, joint)
        hit = (codes[left] >= 0) & (codes[right] >= 0) & (place < known.size)
        hit &= known[np.minimum(place, max(known.size - 1, 0))] == joint if known.size else False
        codes[name] = np.where(hit, place, -1).astype(np.int64)
    return codes


def slot_effect(clicks: Effects, statistics: Day) -> Floats:
    """Mean position effect per placement, weighted by the slots its impressions took: what a cell of the plan will meet."""
    effect = clicks.effects["position"][statistics.codes["position"]]
    size = len(statistics.levels["placement_id"])
    total = np.bincount(statistics.codes["placement_id"], weights=statistics.impressions, minlength=size)
    weighted = np.bincount(statistics.codes["placement_id"], weights=statistics.impressions * effect, minlength=size)
    return np.where(total > 0, weighted / np.maximum(total, 1.0), 1.0)


def conversion_values(day: date, cells: pl.DataFrame, statistics: Day, items: AsKnown, store: Store) -> Floats:
    """Expected value of one conversion of each cell, of the kind store.ad_planning.value names.

    Revenue: a creative's mean conversion value, shrunk to what the item's price suggests (a line through all creatives'
    means where they follow the price), else to the overall mean. Margin: that times 1 - unit_cost / unit_price, items of
    unknown cost at the known items' mean share. Discounts and refunds are in the conversion values already. Where nothing tells
    what conversions bring, the mean price of the items; where that is unknown as well, 1, so that plans seek the most conversions.
    """
    if store.ad_planning.value == "conversions":
        return np.ones(cells.height)
    creatives = (
        cells.lazy()
        .select("creative_id", "item_id")
        .unique()
        .join(items.on(day).lazy(), on="item_id", how="left")
        .sort("creative_id")
        .collect()
    )
    valued = statistics.values if tells_values(store) else statistics.values.clear()
    creatives = creatives.join(valued, on="creative_id", how="left", maintain_order="left")
    n = creatives["conversions"].fill_null(0).to_numpy().astype(float)
    total = creatives["conversion_value"].fill_null(0.0).to_numpy().astype(float)
    every_n, every_total = float(valued["conversions"].sum()), float(valued["conversion_value"].sum())
    prices = creatives["unit_price"].to_numpy().astype(float)
    usual = every_total / every_n if every_n > 0 else float(np.nanmean(prices)) if np.isfinite(prices).any() else 1.0
    prior = np.full(len(n), usual)
    priced = np.isfinite(prices) & (n > 0)
    if n[priced].sum() >= 30 and priced.sum() >= 3:
        mean_price = np.average(prices[priced], weights=n[priced])
        spread = np.average((prices[priced] - mean_price) ** 2, weights=n[priced])
        mean_value = total[priced].sum() / n[priced].sum()
        slope = (
            np.average((prices[priced] - mean_price) * (total[priced] / n[priced] - mean_value), weights=n[priced]) / spread
            if spread > 0
            else 0.0
        )
        slope = max(slope, 0.0)
        prior = np.where(np.isfinite(prices), mean_value + slope * (prices - mean_price), usual)
    value = np.maximum((total + VALUE_WEIGHT * prior) / (n + VALUE_WEIGHT), 0.0)
    if store.ad_planning.value == "margin":
        costs = creatives["unit_cost"].to_numpy().astype(float)
        share = np.where((prices > 0) & np.isfinite(costs), 1 - costs / np.where(prices > 0, prices, 1.0), np.nan)
        usual_share = float(np.nanmean(share)) if np.isfinite(share).any() else 1.0
        value = value * np.where(np.isfinite(share), share, usual_share)
    return value[code_of(cells["creative_id"], creatives["creative_id"].to_list())]
