"""What there is in the sample shop whatever day it is: items, creatives, placements, the calendar, and what they do to people.

What belongs here: draws made once from the seed. What does not: people (people.py) and what happens (visits.py, adverts.py).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from marketing_assets.sample_shop.settings import (
    CATEGORIES,
    FACTORS,
    GROUPS,
    PLACEMENTS,
    STYLES,
    Drift,
    Parameters,
    Size,
)

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

TIMEZONE = "Europe/Berlin"
_NOUNS = {
    "kitchen": ("bowl", "jug", "cake tin", "chopping board", "tea towel", "mug"),
    "garden": ("planter", "bird feeder", "watering can", "lantern stake", "trowel", "wind chime"),
    "lighting": ("table lamp", "string lights", "candle holder", "night light", "lantern", "pendant"),
    "textiles": ("cushion", "throw", "tablecloth", "napkin set", "rug", "curtain"),
    "toys": ("puzzle", "spinning top", "doll", "building blocks", "kite", "card game"),
    "stationery": ("notebook", "gift wrap", "pencil case", "calendar", "card set", "sticker roll"),
    "bath": ("soap dish", "towel", "bath mat", "hand soap", "hook rail", "storage jar"),
    "decoration": ("picture frame", "vase", "wall clock", "garland", "mirror", "ornament"),
}
_STYLES = ("classic", "nordic", "retro")
_COLOURS = ("blue", "red", "green", "cream", "grey", "yellow", "rose", "black")
_BRANDS = ("Ahrens", "Bellweather", "Corvo", "Dahlke", "Estrel", "Fjordly")
MOST_MATCH = 2.5
HOURS_OPEN = np.array([0, 0, 0, 0, 0, 0, 3, 6, 9, 11, 12, 12, 13, 12, 11, 12, 13, 14, 15, 17, 18, 16, 11, 5], dtype=float)
"""Weight of each hour in visits and ad opportunities: nothing is for sale at night."""


def _cut(match: Floats) -> Floats:
    return np.asarray(np.clip(match, -MOST_MATCH, MOST_MATCH), dtype=np.float64)


def stream(seed: int, *numbers: int) -> np.random.Generator:
    """A generator of its own for a purpose, so that what one arm draws more of does not shift another purpose's draws."""
    return np.random.default_rng([seed, *numbers])


class World:
    """Items, ads and calendar of one seed."""

    def __init__(self, seed: int, size: Size, parameters: Parameters, first_day: date, drifts: Sequence[Drift] = ()) -> None:
        self.seed, self.size, self.parameters, self.first_day = seed, size, parameters, first_day
        self.drifts = tuple(drifts)
        self._items(stream(seed, 1))
        self._ads(stream(seed, 2))
        self.taste_swap = stream(seed, 3).permutation(GROUPS)

    def number(self, day: date) -> int:
        """Days since the first."""
        return (day - self.first_day).days

    # --- items --------------------------------------------------------------------------------------------------------

    def _items(self, rng: np.random.Generator) -> None:
        p, count = self.parameters, self.size.items
        self.item_ids = [f"i{number:05d}" for number in range(count)]
        group = np.concatenate([rng.permutation(GROUPS) for _ in range(count // GROUPS + 1)])[:count]
        self.group: Integers = group.astype(np.int64)
        self.category = self.group // STYLES
        self.style = self.group % STYLES
        self.factors: Floats = rng.normal(0, 1, (count, FACTORS)) / np.sqrt(FACTORS)
        self.popularity: Floats = np.exp(rng.normal(0, p.popularity_sigma, count))
        self.appeal: Floats = rng.normal(0, 1, count)
        self.base_price: Floats = np.maximum(
            np.round(p.price_median * np.exp(rng.normal(0, p.price_sigma, count)), 1) - 0.05, 0.95
        )
        self.unit_cost: Floats = np.round(self.base_price * rng.uniform(p.cost_share_low, p.cost_share_high, count), 2)
        self.lead_time: Integers = rng.choice(p.lead_times_days, count).astype(np.int64)
        self.pack_size: Integers = rng.choice(p.pack_sizes, count).astype(np.int64)
        self.quality: Floats = np.clip(rng.beta(6, 2, count), 0.2, 0.98)
        is_new = rng.random(count) < p.new_item_share
        self.launch: Integers = np.where(is_new, rng.integers(1, p.new_item_days, count), -1).astype(np.int64)
        self.supplier_fails: Flags = rng.random(count) < p.drift_stock_share
        self.dearer: Flags = rng.random(count) < 0.6
        nouns = rng.integers(0, 6, count)
        colours, brands = rng.integers(0, len(_COLOURS), count), rng.integers(0, len(_BRANDS), count)
        self.brands = [_BRANDS[number] for number in brands]
        self.titles = [
            f"{_STYLES[self.style[i]]} {_COLOURS[colours[i]]} {_NOUNS[CATEGORIES[self.category[i]]][nouns[i]]} {i:03d}".capitalize()
            for i in range(count)
        ]
        order = np.lexsort((np.arange(count), self.group))
        self.by_group: Integers = order.astype(np.int64)
        self.group_start: Integers = np.searchsorted(self.group[order], np.arange(GROUPS + 1)).astype(np.int64)

    @functools.lru_cache(maxsize=4)  # noqa: B019 - a world lives as long as its shop
    def shelf(self, number: int) -> tuple[Floats, Floats, Flags]:
        """On day `number`: cumulative popularity over items sorted by group, weight of each group, and who is launched."""
        launched = self.launch <= number
        weight = np.where(launched, self.popularity, 0.0)[self.by_group]
        totals = np.add.reduceat(np.append(weight, 0.0), np.minimum(self.group_start[:-1], len(weight)))
        totals = np.where(np.diff(self.group_start) > 0, totals, 0.0)
        return np.cumsum(weight), totals, launched

    def pick(self, number: int, group: Integers, chance: Floats) -> Integers:
        """An item of each group by popularity; chance is uniform in [0, 1)."""
        running, totals, _ = self.shelf(number)
        before = np.append(0.0, running)[self.group_start[group]]
        place = np.searchsorted(running, before + chance * totals[group], side="right")
        inside = np.clip(place, self.group_start[group], self.group_start[group + 1] - 1)
        return self.by_group[inside]

    # --- prices and calendar --------------------------------------------------------------------------------------------

    @functools.lru_cache(maxsize=64)  # noqa: B019
    def week_prices(self, week: int) -> tuple[Floats, Floats]:
        """List price factor and promotion depth (0: none) of each item in a week; promotions run the whole week."""
        p, count = self.parameters, self.size.items
        rng = stream(self.seed, 4, week + 10)
        before = self.week_prices(week - 1)[0] if week > 0 else np.ones(count)
        changes = rng.random(count) < p.price_change_share
        factor = np.where(changes, np.clip(before * np.exp(rng.normal(0, 0.08, count)), 0.8, 1.25), before)
        depth = np.where(rng.random(count) < p.promotion_share, rng.choice(p.promotion_depths, count), 0.0)
        return factor, depth

    def week(self, number: int) -> int:
        """Weeks begin on Mondays; the first day's is 0."""
        return (number + self.first_day.weekday()) // 7

    def prices(self, number: int) -> tuple[Floats, Floats]:
        """List price and selling price of each item."""
        factor, depth = self.week_prices(self.week(number))
        listed = self.base_price * factor
        for drift in self.active("price", number):
            listed = np.where(self.dearer, listed * (1 + (self.parameters.drift_price_factor - 1) * drift.strength), listed)
        listed = np.round(listed, 2)
        return listed, np.round(listed * (1 - depth), 2)

    def active(self, kind: str, number: int) -> list[Drift]:
        """The drifts of a kind that have begun."""
        return [drift for drift in self.drifts if drift.kind == kind and self.number(drift.from_day) <= number]

    def is_holiday(self, day: date) -> bool:
        return (day.month, day.day) in {(1, 1), (5, 1), (10, 3), (12, 25), (12, 26)}

    def is_sale(self, number: int) -> bool:
        """Shop-wide sale days."""
        return number % self.parameters.sale_every_days >= self.parameters.sale_every_days - self.parameters.sale_days

    def season(self, day: date) -> float:
        """Factor on visits: weekday, year, holiday, sale, and a swing that is switched on."""
        p, number = self.parameters, self.number(day)
        factor = p.weekday[day.weekday()]
        factor *= 1 + p.yearly_amplitude * np.cos(2 * np.pi * (day.timetuple().tm_yday - p.yearly_peak_day) / 365.25)
        factor *= p.holiday_factor if self.is_holiday(day) else 1.0
        factor *= p.sale_factor if self.is_sale(number) else 1.0
        for drift in self.active("season", number):
            age = number - self.number(drift.from_day)
            factor *= 1 + drift.strength * p.drift_season_amplitude * np.sin(2 * np.pi * age / p.drift_season_days)
        return float(factor)

    @functools.lru_cache(maxsize=8)  # noqa: B019
    def offsets(self, day: date) -> Floats:
        """Seconds east of UTC in each hour of a day's clock, and in the hours of the next day."""
        zone = ZoneInfo(TIMEZONE)
        hours = []
        for later in range(48):
            when = day + timedelta(days=later // 24)
            shift = datetime(when.year, when.month, when.day, later % 24, 30, tzinfo=zone).utcoffset()
            assert shift is not None
            hours.append(shift.total_seconds())
        return np.array(hours)

    # --- ads ----------------------------------------------------------------------------------------------------------

    def _ads(self, rng: np.random.Generator) -> None:
        p, size = self.parameters, self.size
        count = size.creatives
        self.campaign_ids = [f"k{number}" for number in range(size.campaigns)]
        self.creative_ids = [f"a{number:02d}" for number in range(count)]
        self.placement_ids = list(PLACEMENTS[: size.placements])
        self.campaign_of: Integers = np.repeat(np.arange(size.campaigns), size.creatives_per_campaign)
        old = np.flatnonzero(self.launch < 0)
        weight = np.sqrt(self.popularity[old])
        self.creative_item: Integers = rng.choice(old, count, replace=False, p=weight / weight.sum()).astype(np.int64)
        clicks = rng.normal(0, p.creative_click_sd, count)
        self.creative_click: Floats = np.clip(clicks, -p.most_creative_click, p.most_creative_click)
        self.creative_conversion: Floats = rng.normal(0, p.creative_conversion_sd, count)
        better = rng.normal(0, p.placement_click_sd, size.placements)
        self.placement_click: Floats = np.clip(better, -p.most_placement_click, p.most_placement_click)
        # two humps a day, shifted from placement to placement
        phase = rng.uniform(0, 2 * np.pi, size.placements)
        hours = np.arange(24) / 24 * 2 * np.pi
        self.hour_click: Floats = p.hour_click_amplitude * np.sin(hours[None, :] + phase[:, None])
        spread = rng.normal(0, 0.25, (size.placements, 24))
        curve = HOURS_OPEN[None, :] * np.exp(spread)
        self.placement_hours: Floats = curve / curve.sum(axis=1, keepdims=True)
        share = rng.dirichlet(np.full(size.placements, 8.0))
        self.placement_share: Floats = share
        self.is_per_click: Flags = np.array([name in p.per_click_placements for name in self.placement_ids])
        thousand = np.array(p.prices_per_thousand[: size.placements]) * np.exp(rng.normal(0, 0.1, size.placements))
        # a click's price is what a thousand impressions would cost at the usual click rate
        self.placement_price: Floats = np.where(
            self.is_per_click, np.round(thousand / 1000 / p.click_rate, 2), np.round(thousand, 1)
        )

    def placement_factor(self, number: int) -> Floats:
        """Factor on the click rate of each placement, collapses included."""
        factor = np.exp(self.placement_click)
        for drift in self.active("placement_collapse", number):
            usual = self.placement_ids[int(np.argmax(self.placement_share))]
            at = self.placement_ids.index(drift.target or usual)
            factor[at] *= 1 - (1 - self.parameters.drift_placement_factor) * drift.strength
        return np.asarray(factor, dtype=np.float64)

    @property
    def common_budget(self) -> float:
        """Money common practice spends on ads on an ordinary day."""
        p = self.parameters
        cost = np.where(self.is_per_click, self.placement_price * p.click_rate, self.placement_price / 1000)
        return float(self.size.opportunities * p.bought_share * (self.placement_share * cost).sum())

    def capacity(self) -> Integers:
        """Opportunities a placement expects in each hour of an ordinary day: what its owner quotes."""
        total = self.size.opportunities * self.placement_share[:, None] * self.placement_hours
        return np.ceil(total * 1.0).astype(np.int64)

    def true_match(self, theta: Floats, latent: Floats, items: Integers) -> Floats:
        """How well each person's taste (rows of theta, latent) fits each item, about N(0, 1), cut at MOST_MATCH; pairwise."""
        total = 0.8 * theta[np.arange(len(items)), self.group[items]] + 0.6 * (latent * self.factors[items]).sum(axis=1)
        return _cut(total)

    def match_table(self, theta: Floats, latent: Floats, items: Integers) -> Floats:
        """The same for every person and every one of the items: people x items."""
        return _cut(0.8 * theta[:, self.group[items]] + 0.6 * latent @ self.factors[items].T)

    def describe(self) -> dict[str, Any]:
        """What identifies this world, for the state on disk."""
        return {"seed": self.seed, "first_day": self.first_day.isoformat()}
