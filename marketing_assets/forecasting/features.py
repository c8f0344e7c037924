"""What the learned forecaster looks at: scaled rates, shares and quantiles of a series, and what is known of the day forecast.

What belongs here: matrices. What does not: the models on them (learned.py).

Everything in units is divided by the series' own scale, so that one model serves series of any volume.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from marketing_assets.forecasting.calendar import LARGEST_ODDITY, days_from_easter, years_before
from marketing_assets.forecasting.effects import local_level
from marketing_assets.forecasting.level_calendar import Levels
from marketing_assets.forecasting.panel import LEVELS, Flags, Floats, Integers, Panel

RATE_WINDOWS = (7, 14, 28, 56, 112, 400)
SIZE_WINDOWS = (28, 112)
SHOWN_LEVELS = (0.25, 0.5, 0.75, 0.9, 0.975, 0.995)
SEASON_DAYS = 84
"""A series' own weekdays are averaged over so many days."""
LIKE_WINDOWS = (42, 196, 364)
"""Days of the same weekday, with or without a promotion alike, are averaged over so many days."""
MOST_SEEN = 112
"""Days seen count up to this: more would tell one origin from another, not one series from another."""
FAR = 60.0
"""Days to and since an event count up to this."""
YEARLY_DAYS = 400
"""From so many known days on the day of the year says something."""
YEARS_BACK = 2
"""The same day is looked up in so many years before."""
DRIVERS = ("promotion", "price", "ad_spend", "before_closed", "after_closed")
EVENTS = ("promotion", "closed")
SIGNALS = ("views", "carts")
KNOWN_DRIVERS = {*DRIVERS, "closed"}
DECIMALS = 6
SERIES_FEATURES = (
    *(f"rate_{days}" for days in RATE_WINDOWS), *(f"selling_share_{days}" for days in RATE_WINDOWS),
    *(f"size_{days}" for days in SIZE_WINDOWS), *(f"quantile_{level}" for level in SHOWN_LEVELS),
    "largest", "days_since_sale", "days_seen", "log_scale", "log_level", "trend_28_112", "trend_7_28", "log_price",
    *(f"{name}_{what}" for name in SIGNALS for what in ("trend_7_28", "trend_28_112", "per_sale")),
)  # fmt: skip
DAY_FEATURES = (
    "worth", "days_ahead", "season_place", "own_season_rate", *(f"own_like_day_rate_{days}" for days in LIKE_WINDOWS), "year_ago_rate",
    *(f"like_day_{days}_to_start" for days in LIKE_WINDOWS), "season_to_start", "year_ago_rise", "day_of_month", "day_of_year",
    "days_from_easter", "same_date_oddity", "same_feast_oddity",
    *(f"{where}_{event}" for event in EVENTS for where in ("since", "to")), *DRIVERS,
)  # fmt: skip
FEATURES = (*SERIES_FEATURES, *DAY_FEATURES)


def feature_names(panel: Panel) -> tuple[str, ...]:
    """FEATURES, and what else the panel knows of its days in advance."""
    return (*FEATURES, *sorted(set(panel.drivers) - KNOWN_DRIVERS))


def scales(panel: Panel) -> Floats:
    """(n,) mean absolute one-step naive error since the first sale (Hyndman and Koehler 2006); 1 where that is 0."""
    steps = np.abs(np.diff(panel.units, axis=1))
    begun = np.arange(1, panel.known) > panel.first_sale[:, None]
    count = begun.sum(axis=1)
    mean = np.divide((steps * begun).sum(axis=1), count, out=np.zeros(panel.count), where=count > 0)
    return np.where(mean > 0, mean, 1.0)


@dataclass(frozen=True)
class Matrix:
    """Features of a panel at its end.

    of_series: (n, SERIES_FEATURES); season: (n, season) own recent units by place; like_day: days -> (n, season, 2) the same over
    other windows, without and with a promotion; events: name -> (n, T + horizon) days since and days to one; scale: (n,).
    oddity: (n, T) log of what days were over what was usual around them, nan where nothing is known.
    """

    of_series: Floats
    season: Floats
    like_day: dict[int, Floats]
    events: dict[str, Floats]
    oddity: Floats
    scale: Floats
    panel: Panel
    levels: Levels

    def rows(self, series: Integers, steps: Integers) -> Floats:
        """(len(series), feature_names) of pairs of series and step ahead (0: the first day forecast)."""
        column = self.panel.known + steps
        place = self.panel.season_place[column]
        year = column - round(364 / self.panel.step_days)
        week = max(self.panel.season, 2)
        start = self.levels.level[series] * self.levels.worth[series, column] / self.scale[series]
        promotion = (self._driver("promotion", series, column) > 0).astype(np.int64)
        like_day = [rates[series, place, promotion] for rates in self.like_day.values()]
        year_ago = self._around(series, year, week)
        # how the season moved from here on a year ago
        here = self._around(series, np.full(len(series), self.panel.known - 1 - round(364 / self.panel.step_days)), 2 * week)

        def to(top: Floats, bottom: Floats) -> Floats:
            ratio: Floats = np.divide(top, bottom, out=np.full(len(series), np.nan), where=bottom > 1e-6)
            return np.clip(ratio, 0.1, 10.0)

        day = [
            self.levels.worth[series, column], steps + 1.0, place.astype(np.float64), self.season[series, place],
            *like_day, year_ago, *(to(rates, start) for rates in like_day), to(self.season[series, place], start), to(year_ago, here),
            *(days[column] for days in self._dates()), *self._years_before(series, column),
            *(self.events[f"{where}_{event}"][series, column] for event in EVENTS for where in ("since", "to")),
            *(self._driver(name, series, column) for name in DRIVERS),
            *(self.panel.drivers[name][series, column] for name in feature_names(self.panel)[len(FEATURES) :]),
        ]
        return np.concatenate([self.of_series[series], np.round(np.stack(day, axis=1), DECIMALS)], axis=1)

    def _dates(self) -> tuple[Floats, Floats]:
        """(T + horizon,) day of the month, and of the year where a year is known; 0 where it says nothing."""
        dates = _dates_of(self.panel)
        of_month = [day.day if self.panel.step_days == 1 else 0 for day in dates]
        of_year = [day.timetuple().tm_yday if _is_yearly(self.panel) else 0 for day in dates]
        return np.array(of_month, dtype=np.float64), np.array(of_year, dtype=np.float64)

    def _years_before(self, series: Integers, column: Integers) -> list[Floats]:
        """Days from Easter; how odd the same date, and the same day from Easter, were for the series in the years before. nan: unknown."""
        if not _is_yearly(self.panel):
            return [np.full(len(series), np.nan)] * 3
        dates = _dates_of(self.panel)
        found = [days_from_easter(dates)[column]]
        for ordinals in years_before(dates, YEARS_BACK).values():
            place = (ordinals - self.panel.start.toordinal()) // self.panel.step_days
            place = np.where((place >= 0) & (place < self.panel.known), place, -1)[column]
            then = np.where(place >= 0, self.oddity[series[:, None], place], np.nan)
            is_told = np.isfinite(then)
            count, total = is_told.sum(axis=1), np.where(is_told, then, 0.0).sum(axis=1)
            found.append(np.divide(total, count, out=np.full(len(series), np.nan), where=count > 0))
        return found

    def _driver(self, name: str, series: Integers, column: Integers) -> Floats:
        values = self.levels.effects.columns.get(name)
        return np.zeros(len(series)) if values is None else values[series, column]

    def _around(self, series: Integers, column: Integers, width: int) -> Floats:
        """Scaled rate in a season around a known column; nan where it lies before the panel."""
        units = np.concatenate([np.zeros((self.panel.count, 1)), np.cumsum(self.levels.units * self.levels.is_observed, axis=1)], axis=1)
        worth = self.levels.worth[:, : self.panel.known] * self.levels.is_observed
        worth = np.concatenate([np.zeros((self.panel.count, 1)), np.cumsum(worth, axis=1)], axis=1)
        low, high = column - width, column + width + 1
        is_known = low >= 0
        low, high = np.clip(low, 0, self.panel.known), np.clip(high, 0, self.panel.known)
        weight = worth[series, high] - worth[series, low]
        rate = np.divide(units[series, high] - units[series, low], weight, out=np.full(len(series), np.nan), where=weight > 0)
        return np.where(is_known, rate / self.scale[series], np.nan)


def matrix_of(panel: Panel, levels: Levels) -> Matrix:
    """The features of a panel at its end."""
    known, scale = panel.known, scales(panel)
    is_sold = (panel.units > 0) & levels.is_observed
    worth = levels.is_observed * levels.worth[:, :known]
    sold = np.where(levels.is_observed, levels.units, 0.0)

    def recent(values: Floats, days: int) -> Floats:
        sums: Floats = values[:, max(0, known - days) :].sum(axis=1)
        return sums

    def ratio(top: Floats, bottom: Floats) -> Floats:
        result: Floats = np.divide(top, bottom, out=np.full(panel.count, np.nan), where=bottom > 0)
        return result

    rates = {days: ratio(recent(sold, days), recent(worth, days)) for days in RATE_WINDOWS}
    days_seen = levels.is_observed.astype(np.float64)
    columns = [rates[days] / scale for days in RATE_WINDOWS]
    columns += [ratio(recent(is_sold.astype(np.float64), days), recent(days_seen, days)) for days in RATE_WINDOWS]
    columns += [ratio(recent(panel.units * is_sold, days), recent(is_sold.astype(np.float64), days)) / scale for days in SIZE_WINDOWS]
    columns += [levels.ratios[:, list(LEVELS).index(level)] / scale for level in SHOWN_LEVELS]
    since = np.where(is_sold.any(axis=1), is_sold[:, ::-1].argmax(axis=1), known).astype(np.float64)
    price = panel.series["unit_price"].cast(float).fill_null(float("nan")).to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        columns += [
            panel.units.max(axis=1, initial=0.0) / scale, since, np.minimum(days_seen.sum(axis=1), MOST_SEEN), np.log(scale),
            np.log(np.maximum(levels.level, 1e-3)), rates[28] / np.maximum(rates[112], 1e-6),
            rates[7] / np.maximum(rates[28], 1e-6), np.log(np.where(price > 0, price, np.nan)),
        ]  # fmt: skip
    for name in SIGNALS:
        counts = panel.signals.get(name, np.zeros_like(panel.units))
        week, month, season = (recent(counts, days) / min(days, known) for days in (7, 28, 112))
        columns += [ratio(week, month), ratio(month, season), np.where(season > 0, ratio(month, recent(sold, 28) / min(28, known)), np.nan)]
    promotion = levels.effects.columns.get("promotion", np.zeros((panel.count, known + panel.horizon)))[:, :known] > 0

    def by_place(days: int, which: Flags | None = None) -> Floats:
        newest = slice(max(0, known - days), known)
        seen = levels.is_observed if which is None else levels.is_observed & which
        seen, place = seen[:, newest], panel.season_place[:known][newest]
        units = sold[:, newest] * seen
        found = [ratio(units[:, place == each].sum(axis=1), seen[:, place == each].sum(axis=1) * 1.0) for each in range(panel.season)]
        return np.stack(found, axis=1) / scale[:, None]

    season = by_place(SEASON_DAYS)
    like_day = {days: np.stack([by_place(days, ~promotion), by_place(days, promotion)], axis=2) for days in LIKE_WINDOWS}
    of_series = np.asarray(np.round(np.stack(columns, axis=1), DECIMALS), dtype=np.float64)
    return Matrix(of_series, season, like_day, _events(panel, levels), _oddity(panel, levels), scale, panel, levels)


def _dates_of(panel: Panel) -> list[date]:
    return [panel.start + timedelta(days=number * panel.step_days) for number in range(panel.known + panel.horizon)]


def _is_yearly(panel: Panel) -> bool:
    return panel.known * panel.step_days >= YEARLY_DAYS


def _oddity(panel: Panel, levels: Levels) -> Floats:
    """(n, T) log of units over what the day's worth and the level around it say; nan where nothing could be sold."""
    if not _is_yearly(panel):
        return np.full(panel.units.shape, np.nan)
    worth = np.where(levels.is_observed, levels.worth[:, : panel.known], 0.0)
    usual = local_level(np.where(levels.is_observed, panel.units, 0.0), worth) * worth
    ratio = np.divide(panel.units, usual, out=np.full(usual.shape, np.nan), where=usual > 0)
    return np.asarray(np.clip(np.log(np.maximum(ratio, 1e-9)), -LARGEST_ODDITY, LARGEST_ODDITY), dtype=np.float64)


def _events(panel: Panel, levels: Levels) -> dict[str, Floats]:
    """since_ and to_ (n, T + horizon) of EVENTS: days since a promotion began and until one is on; since and to days oddly closed."""
    whole = (panel.count, panel.known + panel.horizon)
    promotion = levels.effects.columns.get("promotion")
    found: dict[str, Floats] = {f"{where}_{event}": np.full(whole, FAR) for event in EVENTS for where in ("since", "to")}
    if promotion is not None:
        is_on = promotion > 0
        begins = is_on & ~np.pad(is_on[:, :-1], ((0, 0), (1, 0)))
        found |= {"since_promotion": _since(begins), "to_promotion": _since(is_on[:, ::-1])[:, ::-1]}
    after = levels.effects.columns.get("after_closed")
    if after is not None:
        before = levels.effects.columns.get("before_closed", np.zeros(whole))
        found |= {"since_closed": _since(after > 0), "to_closed": _since(before[:, ::-1] > 0)[:, ::-1]}
    return found


def _since(flags: Flags) -> Floats:
    """Columns since the newest flag at or before each, FAR at most."""
    newest = np.maximum.accumulate(np.where(flags, np.arange(flags.shape[1]), -int(FAR) - 1), axis=1)
    since: Floats = np.minimum(np.arange(flags.shape[1]) - newest, FAR).astype(np.float64)
    return since
