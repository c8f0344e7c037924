"""The catalogue day by day: what is known of each item, what may be recommended, and how popular it is.

What belongs here: rules that depend on the item and the day alone. What does not: rules about one user's list (lists.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from marketing_assets.config import Store
from marketing_assets.recommendations.history import (
    STRENGTHS,
    Flags,
    Floats,
    Integers,
    choices,
    item_day_counts,
    ordinal,
    ordinals,
)
from marketing_assets.recommendations.lists import Singles
from marketing_assets.recommendations.traits import Traits, traits_of
from marketing_assets.recommendations.worth import price_cuts, price_response, turn_rates

if TYPE_CHECKING:
    from marketing_assets.warehouse import Reader

POPULARITY_DAYS = 90
"""Days of sales, carts and views that popularity looks back over."""
POPULARITY_SHARES = {"orders": 0.6, "carts": 0.3, "views": 0.1}
"""What each kind adds to popularity, as a share of its own total; kinds a shop lacks give theirs to the others."""
_COLUMNS = [
    "as_of_date",
    "item_id",
    "title",
    "category",
    "brand",
    "unit_price",
    "unit_cost",
    "stock_on_hand",
    "is_service",
    "first_seen_date",
]


class Catalogue:
    """State of every item known up to the end of a window, moved from day to day by `at`.

    items: ids, in an order that settles ties. Per item: entry (row of `entries` in force, -1 before it is known), category
    (code, -1 without one), price (log of 1 + it, 0 where unknown), may_recommend, turn (see _turn). entries keeps titles and categories as text.
    """

    def __init__(self, reader: Reader, days: Sequence[date], store: Store, since: date | None = None) -> None:
        """since: day from which popularity must be known, where that is before the window."""
        self.store = store
        self.entries = reader.window("items", reader.keyframe_before(days[0]), days[-1], _COLUMNS)
        self.items = in_tie_order(self.entries["item_id"].unique())
        n = len(self.items)
        places = pl.DataFrame({"item_id": self.items, "place": np.arange(n)}, schema={"item_id": pl.String, "place": pl.Int64})
        self._place = places
        self._entry_item = self.places(self.entries["item_id"])
        self._entry_day = ordinals(self.entries["as_of_date"])
        self.categories = self.entries["category"].drop_nulls().unique().sort()
        codes = pl.DataFrame(
            {"category": self.categories, "code": np.arange(len(self.categories))},
            schema={"category": pl.String, "code": pl.Int64},
        )
        joined = self.entries.join(codes, on="category", how="left", maintain_order="left")
        self._entry_category = joined["code"].fill_null(-1).to_numpy()
        self._entry_allowed = self._allowed(self.entries)
        price = self.entries["unit_price"].cast(pl.Float64).fill_null(0.0).clip(0.0).to_numpy()
        self._entry_price = np.round(np.log1p(price), DECIMALS).astype(np.float32)
        self._entry_stock = self.entries["stock_on_hand"].cast(pl.Float64).fill_null(np.inf).to_numpy()
        self.entry = np.full(n, -1, dtype=np.int64)
        self.category = np.full(n, -1, dtype=np.int64)
        self.price = np.zeros(n, dtype=np.float32)
        self.may_recommend = np.zeros(n, dtype=bool)
        self.is_promoted = np.zeros(n, dtype=bool)
        self.turn = np.zeros(n)
        self._next = 0
        self._sellable = self._read_sellable(reader, days)
        counted_from = (since or days[0]) - timedelta(days=POPULARITY_DAYS - 1)
        self._counts = item_day_counts(reader, counted_from, days[-1])
        self._count_item = self.places(self._counts["item_id"])
        self._count_day = ordinals(self._counts["landed_date"])
        self._by_worth = bool((self._counts["views"] > 0).any()) and store.recommendations.objective != "purchases"
        """Whether lists are ordered by what a look brings."""
        self._drivers = self._read_drivers(reader, counted_from, days[-1])
        self._announced = _announced_prices(self._drivers)
        self._choices = self._with_prices(choices(reader, counted_from, days[-1])) if self._by_worth else None

    def places(self, ids: pl.Series) -> Integers:
        found = ids.to_frame("item_id").join(self._place, on="item_id", how="left", maintain_order="left")["place"]
        return found.fill_null(-1).to_numpy()

    def _allowed(self, entries: pl.DataFrame) -> Flags:
        """Neither a fee, nor of an excluded category, nor below the minimum margin where price and cost are known."""
        settings = self.store.recommendations
        is_excluded = pl.col("category").is_in(list(settings.excluded_categories)).fill_null(False)
        price, cost = pl.col("unit_price").cast(pl.Float64), pl.col("unit_cost").cast(pl.Float64)
        is_poor = pl.lit(False)
        if settings.minimum_margin_share > 0:
            is_poor = (price - cost < settings.minimum_margin_share * price).fill_null(False)
        return entries.select(kept=~(pl.col("is_service") | is_excluded | is_poor))["kept"].to_numpy().astype(bool)

    def _read_sellable(self, reader: Reader, days: Sequence[date]) -> dict[date, tuple[Integers, Flags]]:
        """Day -> items whose sellable units the inventory plan knows, and whether there are any."""
        plan = reader.window("inventory_plan", days[0], days[-1], ["as_of_date", "item_id", "location_id", "sellable_units"])
        known = plan.filter(pl.col("sellable_units").is_not_null())
        total = known.group_by("as_of_date", "item_id").agg(pl.col("sellable_units").sum()).sort("as_of_date", "item_id")
        total = total.join(self._place, on="item_id", how="inner", maintain_order="left")
        return {
            part["as_of_date"][0]: (part["place"].to_numpy(), (part["sellable_units"] > 0).to_numpy())
            for part in total.partition_by("as_of_date", maintain_order=True)
        }

    def _read_drivers(self, reader: Reader, start: date, end: date) -> pl.DataFrame | None:
        """What item_drivers said of days from `start` on before they began: item_id, place, date, landed_date, is_promotion and unit_price;
        None where lists heed neither."""
        if not reader.has_source("item_drivers") or not (self._by_worth or self.store.recommendations.promoted_share > 0):
            return None
        from marketing_assets.cleaning import accepted_landed, by_day

        told, day = accepted_landed(reader, "item_drivers", None, end), timedelta(days=1)
        told = by_day(told, "item_drivers", self.store, start, end + day, start - day)
        told = told.filter(told.landed_date < told.date)
        rows = reader.frame(told.select("item_id", "date", "is_promotion", "unit_price", "held_since", "landed_date", "raw_row_id"))
        ordered = rows.join(self._place, on="item_id", how="inner").sort("held_since", "landed_date", "raw_row_id")
        return ordered.with_columns(pl.col("unit_price").cast(pl.Float64))

    def _prices_on(self, wanted: pl.DataFrame) -> Floats:
        """Prices that item_drivers had announced for these (item_id, date); nan where they had not."""
        if self._announced is None:
            return np.full(wanted.height, np.nan)
        found = wanted.join(self._announced, on=["item_id", "date"], how="left", maintain_order="left")
        return found["unit_price"].fill_null(np.nan).to_numpy()

    def _with_prices(self, counts: pl.DataFrame) -> pl.DataFrame:
        """counts of known items with their places and the prices announced."""
        known = counts.join(self._place, on="item_id", how="inner", maintain_order="left")
        return known.with_columns(price=self._prices_on(known.select("item_id", date="event_date")))

    def at(self, day: date) -> None:
        """Bring the state to the end of `day`; days only go forward."""
        until = int(np.searchsorted(self._entry_day, ordinal(day), side="right"))
        fresh = np.arange(self._next, until)
        self._next = until
        item = self._entry_item[fresh]
        self.entry[item] = fresh  # sorted by day, so the newest entry of an item is written last
        self.category[item] = self._entry_category[fresh]
        self.price[item] = self._entry_price[fresh]
        known = self.entry >= 0
        self.may_recommend = (
            known & self._entry_allowed[self.entry] & (self._entry_stock[self.entry] > 0) if len(self.entry) else known
        )
        if day in self._sellable:
            place, has_units = self._sellable[day]
            ours = known[place] & self._entry_allowed[self.entry[place]]
            self.may_recommend[place] = ours & has_units
        self.turn = self._turn(day)
        if self._drivers is not None and self.store.recommendations.promoted_share > 0:
            told = self._drivers.filter(pl.col("date") == day + timedelta(days=1), pl.col("is_promotion").is_not_null())
            newest = told.group_by("place").agg(pl.col("is_promotion").last(), pl.col("landed_date").last())
            self.is_promoted = np.zeros(len(self.items), dtype=bool)
            self.is_promoted[newest["place"].to_numpy()] = newest["is_promotion"].to_numpy()

    def _rows(self, day: date) -> tuple[slice, Flags]:
        """Rows of the item days of the POPULARITY_DAYS up to `day`, and which of them are of known items."""
        rows = _lately(self._count_day, day)
        return rows, self._count_item[rows] >= 0

    def popularity(self, day: date) -> Floats:
        """Per item, 0..1: shares of orders, carts and views of the last POPULARITY_DAYS, halved every half_life_days."""
        rows, kept = self._rows(day)
        item = self._count_item[rows][kept]
        faded = 0.5 ** ((ordinal(day) - self._count_day[rows][kept]) / self.store.recommendations.half_life_days)
        total = np.zeros(len(self.items))
        for kind, share in POPULARITY_SHARES.items():
            counted = np.bincount(item, weights=self._counts[kind].to_numpy()[rows][kept] * faded, minlength=len(self.items))
            whole = float(counted.sum())
            if whole > 0:
                total += share * counted / whole
        largest = float(total.max(initial=0.0))
        return np.round(total / largest, 9) if largest > 0 else total

    def pull(self, day: date) -> Floats:
        """Per item how often a view ends in an order (a cart counts for CART_PULL), over the shop's rate; 1 without any view, and
        where more is ordered than viewed.

        What is much seen sells much; of two items seen as often, the one that sells more is the better to show.
        """
        rows, kept = self._rows(day)
        item, counts = self._count_item[rows][kept], {kind: self._counts[kind].to_numpy()[rows][kept] for kind in POPULARITY_SHARES}
        seen = np.bincount(item, weights=counts["views"], minlength=len(self.items))
        done = np.bincount(item, weights=counts["orders"] + CART_PULL * counts["carts"], minlength=len(self.items))
        if not 0 < done.sum() <= seen.sum():
            return np.ones(len(self.items))
        rate = float(done.sum()) / float(seen.sum())
        return np.asarray(np.round((done + PRIOR_ORDERS) / (seen * rate + PRIOR_ORDERS), 9), dtype=np.float64)

    def _turn(self, day: date) -> Floats:
        """Per item how often a look turns into a cart (an order, where the shop sees more of those) at tomorrow's price, over the
        shop's rate; 0 throughout where lists are not ordered by it, or there were fewer than LEAST_TURNED.

        To a price two things respond: how often a look turns into a cart, and how often a cart is bought."""
        if self._choices is None:
            return np.zeros(len(self.items))
        lately = self._choices[_lately(ordinals(self._choices["event_date"]), day)]
        item, price, looked = (lately[name].to_numpy() for name in ("place", "price", "people"))
        is_known = {name: lately[name].to_numpy() <= ordinal(day) for name in ("looked", "carted", "bought")}
        looked = looked * is_known["looked"]
        carted, bought = looked * is_known["carted"], looked * is_known["bought"]
        both = carted * is_known["bought"]
        turned, kept = (carted, both) if carted.sum() >= bought.sum() else (bought, bought)
        turned = turned * (turned.sum() >= LEAST_TURNED)
        listed = np.expm1(self.price.astype(np.float64))
        cut = price_cuts(price, listed[item])
        tomorrow = self._prices_on(pl.DataFrame({"item_id": self.items}).with_columns(date=pl.lit(day + timedelta(days=1))))
        response = price_response(item, looked, turned, cut)
        at_list = np.bincount(item, weights=looked * np.exp(response * cut), minlength=len(self.items)).astype(np.float64)
        of_item = np.bincount(item, weights=turned, minlength=len(self.items)).astype(np.float64)
        rate = turn_rates(at_list, of_item, self.category, self.price)
        response += price_response(item, turned, kept, cut)
        return np.round(rate * np.exp(response * price_cuts(tomorrow, listed)), 9)

    def traits(self) -> Traits:
        """What is said of items as the catalogue stands; nothing of those not known yet."""
        said = self.entries.select("category", "brand", "title").with_row_index("entry")
        of_item = pl.DataFrame({"entry": self.entry}, schema={"entry": pl.Int64})
        return traits_of(of_item.join(said.with_columns(pl.col("entry").cast(pl.Int64)), on="entry", how="left", maintain_order="left"))

    def everyone(self, day: date) -> Floats:
        """Per category its share of all interest of the last POPULARITY_DAYS."""
        rows, kept = self._rows(day)
        item = self._count_item[rows][kept]
        counts = {kind: self._counts[kind].to_numpy()[rows][kept] for kind in POPULARITY_SHARES}
        known = self.category[item] >= 0
        total = np.bincount(self.category[item[known]], weights=_strength(counts)[known], minlength=len(self.categories))
        return np.round(total / max(float(total.sum()), 1e-9), 9)

    def facts(self, day: date) -> dict[str, Singles]:
        """What the re-ranker looks at of items by themselves."""
        rows, kept = self._rows(day)
        item, age = self._count_item[rows][kept], ordinal(day) - self._count_day[rows][kept]
        counts = {kind: self._counts[kind].to_numpy()[rows][kept] for kind in POPULARITY_SHARES}
        return item_facts(item, age, counts, len(self.items)) | {"price": self.price}


def _lately(days: Integers, day: date) -> slice:
    """Of rows sorted by these days, those of the POPULARITY_DAYS up to `day`."""
    ends = np.searchsorted(days, [ordinal(day) - POPULARITY_DAYS, ordinal(day)], side="right")
    return slice(int(ends[0]), int(ends[1]))


def _announced_prices(drivers: pl.DataFrame | None) -> pl.DataFrame | None:
    """item_id, date and the newest unit_price announced for it."""
    if drivers is None:
        return None
    newest = drivers.filter(pl.col("unit_price") > 0).unique(["item_id", "date"], keep="last", maintain_order=True)
    return newest.select("item_id", "date", "unit_price")


FACT_HALF_LIVES = (2, 7, 28, 90)
PRIOR_VIEWS = 30.0
"""A rate per view is drawn to the shop's own as by so many views."""
PRIOR_ORDERS = 10.0
"""What an item pulls is drawn to what the shop's items do as by so many orders."""
CART_PULL = 0.3
LEAST_TURNED = 300
"""Carts or orders that tell one item's rate from another's; a shop with fewer goes by popularity."""
DECIMALS = 5


def item_facts(item: Integers, age: Integers, counts: dict[str, Floats], items: int) -> dict[str, Singles]:
    """From orders, carts and views with their age in days: how much of all interest is in each item, at several decays, whether
    it rises, and how often a view ends in a cart or an order."""
    facts: dict[str, Floats] = {}
    strength = _strength(counts)
    for half_life in FACT_HALF_LIVES:
        counted = np.bincount(item, weights=strength * 0.5 ** (age / half_life), minlength=items)
        facts[f"popular_{half_life}"] = counted / max(float(counted.sum()), 1e-9) * max(int((counted > 0).sum()), 1)
    short, middle, long = (facts[f"popular_{half_life}"] for half_life in FACT_HALF_LIVES[1:])
    facts["rise"] = (short + 0.1) / (middle + 0.1)
    facts["long_rise"] = (middle + 0.1) / (long + 0.1)
    newest = np.full(items, 9999.0)
    np.minimum.at(newest, item, age.astype(np.float64))
    oldest = np.full(items, -1.0)
    np.maximum.at(oldest, item, age.astype(np.float64))
    facts["item_days_since"], facts["item_age"] = newest, oldest
    for kind in ("carts", "orders"):
        facts[f"{kind}_per_view"] = per_view(item, counts[kind], counts["views"], items)
    return {name: np.round(values, DECIMALS).astype(np.float32) for name, values in facts.items()}


def _strength(counts: dict[str, Floats]) -> Floats:
    return (
        STRENGTHS["purchase"] * counts["orders"] + STRENGTHS["add_to_cart"] * counts["carts"] + STRENGTHS["view_item"] * counts["views"]
    )


def per_view(item: Integers, count: Floats, views: Floats, items: int) -> Floats:
    """Per item its count over its views, drawn to the rate of the whole shop; 0 where nothing is viewed."""
    seen = np.bincount(item, weights=views, minlength=items)
    if not seen.any():
        return np.zeros(items)
    done = np.bincount(item, weights=count, minlength=items)
    rate = float(done.sum()) / float(seen.sum())
    return np.asarray((done + PRIOR_VIEWS * rate) / (seen + PRIOR_VIEWS), dtype=np.float64)


def in_tie_order(items: pl.Series) -> pl.Series:
    """Ids ordered by a hash: of two equal items the first is taken, and ids themselves often tell the order of appearance."""
    from marketing_assets.assignment import salted_share

    frame = pl.DataFrame({"item_id": items, "number": salted_share(items, "recommendation-ties-1")})
    return frame.sort("number", "item_id")["item_id"]
