"""The sample shop: lives day by day, writes landing files, keeps the truth aside.

What belongs here: the order of a day and the state between days. What does not: how people behave (visits.py), ads
(adverts.py), rows and files (records.py, landing.py).
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from marketing_assets.config import UNKNOWN_USER
from marketing_assets.sample_shop import catalogue, records
from marketing_assets.sample_shop.adverts import UNITS_PER_CONVERSION, Impressions, ad_sessions, show_ads, true_cells
from marketing_assets.sample_shop.demand import fill_shelves, usual_units
from marketing_assets.sample_shop.interface import DayTruth, Decisions
from marketing_assets.sample_shop.lists import audience_of, lists_of, match_lists
from marketing_assets.sample_shop.orders import (
    AD_ORDERS,
    LED_ORDERS,
    TRADE_ORDERS,
    Fulfilled,
    fulfil,
    join_lines,
    place_orders,
    receive,
    returning_lines,
)
from marketing_assets.sample_shop.people import State, first_state, forget, live_and_die
from marketing_assets.sample_shop.settings import PARAMETERS, SIZES, Drift, Parameters, Size, parameters_hash
from marketing_assets.sample_shop.store import store_settings, write_settings
from marketing_assets.sample_shop.visits import (
    Sessions,
    Views,
    buying_table,
    look_around,
    retail_lines,
    retail_sessions,
    trade_lines,
)
from marketing_assets.sample_shop.world import Integers, World, stream

FIRST_DAY = date(2026, 8, 3)


class ShopError(Exception):
    """The shop was asked for a day it cannot live or tell; the message says which and what to do."""


class SampleShop:
    """A seeded shop; satisfies interface.Shop.

    folder: landing/, truth/ and state/ lie here. size: a name of SIZES or a Size. The same seed, drifts and decisions give
    the same files.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        size: str | Size = "demo",
        first_day: date = FIRST_DAY,
        drifts: Sequence[Drift] = (),
        parameters: Parameters = PARAMETERS,
    ) -> None:
        self.folder = Path(folder)
        self.seed, self.first_day = seed, first_day
        if isinstance(size, str) and size not in SIZES:
            raise ShopError(f"no size {size!r} of the sample shop; known are {', '.join(SIZES)}")
        self.size = SIZES[size] if isinstance(size, str) else size
        self.parameters = parameters
        self.world = World(seed, self.size, parameters, first_day, drifts)
        self.state = first_state(self.world, stream(seed, 5))
        fill_shelves(self.world, self.state, stream(seed, 7))

    @property
    def next_day(self) -> date:
        return self.first_day + timedelta(days=self.state.next_day)

    @property
    def common_budget(self) -> float:
        """Money common practice spends on ads on an ordinary day."""
        return self.world.common_budget

    def write_store(self, last_day: date | None = None, **sections: Any) -> Path:
        """Write the store.yaml that maps this shop's files; sections extend or replace its settings. Returns its path."""
        return write_settings(self.folder, store_settings(self.world, last_day, **sections))

    def with_drifts(self, drifts: Sequence[Drift]) -> None:
        """Switch drifts on; they must begin on a day not lived yet."""
        for drift in drifts:
            if drift.from_day < self.next_day:
                raise ShopError(f"drift {drift.kind} begins {drift.from_day}, but the shop has lived to {self.next_day}")
        self.world.drifts = (*self.world.drifts, *drifts)
        self.world.week_prices.cache_clear()

    # --- a day --------------------------------------------------------------------------------------------------------

    def live(self, day: date, decisions: Decisions | None = None) -> None:
        """Live `day` and write its landing files. Raises ShopError unless it is the day after the last."""
        if day != self.next_day:
            raise ShopError(f"the next day to live is {self.next_day}, not {day}; days are lived in order")
        decisions = decisions or Decisions()
        world, state, number = self.world, self.state, self.state.next_day
        newcomers = live_and_die(world, state, number, stream(self.seed, 6, number))
        receive(world, state, number)
        placed = place_orders(world, state, number, decisions)
        lists = lists_of(world, state, number, decisions)
        stock_before = state.stock.copy()

        sessions = retail_sessions(world, state, day, number)
        nothing = np.full(len(sessions.place), -1, dtype=np.int64)
        views = look_around(world, state, number, sessions, lists, nothing, False, 11)
        shown = show_ads(world, state, day, number, decisions)
        clicks, clicked_rows = ad_sessions(shown)
        led = look_around(world, state, number, clicks, lists, world.creative_item[shown.creative[clicked_rows]], True, 22)
        lines = [retail_lines(world, state, number, sessions, views, 0, 13)]
        lines.append(retail_lines(world, state, number, clicks, led, LED_ORDERS, 23))
        trade = trade_lines(world, state, day, number, TRADE_ORDERS)
        lines.append(trade)
        own_orders, returning = returning_lines(world, state, number, clicks, clicked_rows, shown, AD_ORDERS)
        lines.append(own_orders)
        joined = join_lines(lines)
        filled = fulfil(world, state, number, joined)

        kept = records.Day(world, state, day, number)
        kept.visits(sessions, views, 0)
        kept.visits(clicks, led, len(sessions.place))
        kept.purchases(filled, len(sessions.place))
        kept.bots()
        kept.impressions(shown)
        kept.conversions(filled, returning)
        if number == 0:
            newcomers = np.arange(state.people)
        tables, erased = catalogue.customers(world, state, day, number, newcomers, stream(self.seed, 41, number))
        kept.tables |= (
            tables | catalogue.catalogue(world, state, day, number, stock_before) | catalogue.calendar(world, day, number)
        )
        refused = kept.write(self.folder / "landing")
        if number == 0 and not (self.folder / "store.yaml").is_file():
            self.write_store()
        self._remember(day, number, sessions, views, shown, filled, refused, placed, kept)
        forget(world, state, erased, number + 1, stream(self.seed, 42, number))
        state.next_day = number + 1

    def _remember(
        self,
        day: date,
        number: int,
        sessions: Sessions,
        views: Views,
        shown: Impressions,
        filled: Fulfilled,
        refused: pl.DataFrame,
        placed: int,
        kept: records.Day,
    ) -> None:
        """Results that common practice goes by, and the day's truth."""
        world, state, p = self.world, self.state, self.parameters
        price = world.prices(number)[1]
        sold = np.bincount(filled.lines.item[filled.is_filled], filled.lines.quantity[filled.is_filled], world.size.items)
        state.sold_decayed = 0.95 * state.sold_decayed + sold
        spend = np.bincount(shown.creative, shown.spend, world.size.creatives)
        state.creative_spend = p.results_decay * state.creative_spend + spend
        state.creative_value = p.results_decay * state.creative_value + kept.creative_value

        margin = price - world.unit_cost
        units = UNITS_PER_CONVERSION * (1 + p.extra_line_share)
        item, worth = views.item, views.chance * units
        per_session = 1 - np.exp(np.bincount(views.session, np.log1p(-np.minimum(views.chance, 0.99)), len(sessions.place)))
        trade = filled.is_trade
        trade_orders = len(np.unique(filled.lines.order[trade]))
        ad_item = world.creative_item[shown.creative]
        orders = shown.click_chance * shown.conversion_chance * UNITS_PER_CONVERSION
        holding = float((state.stock * world.unit_cost).sum()) * p.holding_cost_per_year / 365
        kept_share = 1 - p.refund_share
        done = filled.is_filled
        gained = filled.lines.quantity * (filled.paid - world.unit_cost[filled.lines.item])
        expected_profit = float(
            kept_share * ((worth * margin[item]).sum() + (orders * margin[ad_item]).sum() + gained[done & trade].sum())
            - shown.spend.sum()
            - holding
        )
        expected_sessions = len(sessions.place) + trade_orders + float(shown.click_chance.sum())
        expected_orders = float(per_session.sum() + trade_orders + (shown.click_chance * shown.conversion_chance).sum())
        bought = len(np.unique(filled.lines.order[done]))
        came = (
            len(sessions.place)
            + int(shown.is_clicked.sum())
            + trade_orders
            + len(np.unique(filled.lines.order[filled.by_ad & (filled.lines.session < 0)]))
        )
        truth = DayTruth(
            day=day,
            sessions=came,
            expected_session_conversion_rate=expected_orders / max(expected_sessions, 1e-9),
            session_conversion_rate=bought / max(came, 1),
            revenue=float((filled.lines.quantity * filled.paid)[done].sum()),
            expected_profit=expected_profit,
            profit=float(gained[done].sum() - kept.refunded_margin - shown.spend.sum() - holding),
            impressions=len(shown.creative),
            expected_clicks=float(shown.click_chance.sum()),
            clicks=int(shown.is_clicked.sum()),
            expected_ad_conversions=float((shown.click_chance * shown.conversion_chance).sum()),
            expected_ad_revenue=float(kept_share * (orders * price[ad_item]).sum()),
            ad_revenue=kept.ad_value - kept.refunded_ad_value,
            ad_spend=float(shown.spend.sum()),
            stocked_out_items=int(((state.stock <= 0) & (world.launch <= number)).sum()),
            lost_units=int(filled.lost.sum()),
            lost_revenue=float((filled.lost * filled.paid).sum()),
            more={
                "list_views": float(views.listed.sum()),
                "views": float(len(views.item)),
                "expected_retail_orders": float(per_session.sum()),
                "retail_sessions": float(len(sessions.place)),
                "trade_revenue": float((filled.lines.quantity * filled.paid)[done & trade].sum()),
                "units_ordered": float(placed),
                "holding_cost": holding,
            },
        )
        folder = self.folder / "truth"
        for name in ("days", "impressions", "refused"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        _write(folder / "days" / f"{day}.json", json.dumps({**asdict(truth), "day": day.isoformat()}, indent=1).encode())
        at = shown.shown
        frame = pl.DataFrame(
            {
                "impression_id": kept.impression_ids,
                "click_probability": shown.click_chance,
                "conversion_probability": shown.conversion_chance,
                "person": state.number[at.place],
                "value": price[ad_item] * UNITS_PER_CONVERSION,
            }
        )
        frame.write_parquet(folder / "impressions" / f"{day}.parquet")
        refused.write_parquet(folder / "refused" / f"{day}.parquet")

    # --- the truth ------------------------------------------------------------------------------------------------------

    def truth(self, day: date) -> DayTruth:
        """What a day was really worth. Raises ShopError for a day not lived."""
        path = self.folder / "truth" / "days" / f"{day}.json"
        if not path.is_file():
            raise ShopError(f"{day} has no truth in {self.folder}: it was not lived there")
        return DayTruth(**{**json.loads(path.read_text(encoding="utf-8")), "day": day})

    def impression_truth(self, day: date) -> pl.DataFrame:
        """impression_id, click_probability, conversion_probability, person, value of every impression of a day."""
        return pl.read_parquet(self.folder / "truth" / "impressions" / f"{day}.parquet")

    def refused_rows(self, day: date) -> pl.DataFrame:
        """source, row_id, problem of every landed row of a day that must be refused."""
        return pl.read_parquet(self.folder / "truth" / "refused" / f"{day}.parquet")

    def oracle(self) -> SampleOracle:
        return SampleOracle(self)

    # --- keeping --------------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the state beside the landing files, so that `resume` goes on from here."""
        self.state.save(self.folder / "state")
        about = {**self.world.describe(), "size": asdict(self.size), "parameters": parameters_hash(self.parameters)}
        _write(self.folder / "state" / "world.json", json.dumps(about).encode())

    @staticmethod
    def resume(folder: Path, *, drifts: Sequence[Drift] = ()) -> SampleShop:
        """A saved shop with the standard parameters. Raises ShopError where they have changed since."""
        path = folder / "state" / "world.json"
        if not path.is_file():
            raise ShopError(f"{folder}: no saved sample shop; `save` writes one, `generate` makes a new one")
        about = json.loads(path.read_text(encoding="utf-8"))
        if about["parameters"] != parameters_hash():
            raise ShopError(f"{folder}: saved by a sample shop with other parameters; generate it anew")
        shop = SampleShop(
            folder, about["seed"], size=Size(**about["size"]), first_day=date.fromisoformat(about["first_day"]), drifts=drifts
        )
        shop.state = State.load(folder / "state")
        return shop

    def branch(self, folder: Path) -> SampleShop:
        """The same shop in another folder as it stands; store.yaml, landing files and truth go along (linked, not copied)."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("landing", "truth"):
            if (self.folder / name).is_dir():
                shutil.copytree(self.folder / name, folder / name, copy_function=_link, dirs_exist_ok=True)
        if (self.folder / "store.yaml").is_file():
            shutil.copy2(self.folder / "store.yaml", folder / "store.yaml")
        twin = copy.copy(self)
        twin.folder = Path(folder)
        twin.state = copy.deepcopy(self.state)
        twin.world = World(self.seed, self.size, self.parameters, self.first_day, self.world.drifts)
        return twin


class SampleOracle:
    """interface.Oracle of the sample shop: speaks of the day after the last one lived."""

    def __init__(self, shop: SampleShop) -> None:
        self.shop = shop

    def recommendations(self, day: date, length: int = 20) -> pl.DataFrame:
        world, state, number = self._at(day)
        best, _ = match_lists(world, state, number, length)
        names = np.array(world.item_ids)
        everyone = buying_table(world, state, number, np.arange(state.people)).mean(axis=0)
        general = np.argsort(-everyone, kind="stable")[:length]
        has_cookie = np.flatnonzero(state.second_device >= 0)
        users = pl.concat([state.account_ids(), state.cookie_ids().gather(has_cookie), pl.Series([UNKNOWN_USER])])
        items = np.concatenate([best, best[has_cookie], general[None, :]])
        rank = np.tile(np.arange(1, items.shape[1] + 1), len(items))
        user = users.gather(np.repeat(np.arange(len(items)), items.shape[1]))
        return pl.DataFrame({"user_id": user, "rank": rank, "item_id": names[items.ravel()]}).with_columns(
            policy_id=pl.lit("oracle")
        )

    def cell_rates(self, day: date, audiences: pl.DataFrame | None = None) -> pl.DataFrame:
        world, state, number = self._at(day)
        members: dict[str, Integers] = {UNKNOWN_USER: np.arange(state.people)}
        if audiences is not None:
            names = sorted(set(audiences["audience_id"].drop_nulls()) - {UNKNOWN_USER})
            account, _ = audience_of(state, audiences, names)
            members |= {name: np.flatnonzero(account == place) for place, name in enumerate(names) if (account == place).any()}
            members[UNKNOWN_USER] = np.flatnonzero(account >= 0)
        return true_cells(world, state, number, members)

    def demand(self, day: date, days: int) -> pl.DataFrame:
        world, state, number = self._at(day)
        season = np.mean([world.season(day + timedelta(days=ahead)) for ahead in range(days)])
        return pl.DataFrame({"item_id": world.item_ids, "demand_mean": usual_units(world, state, number) * season})

    def _at(self, day: date) -> tuple[World, State, int]:
        shop = self.shop
        if day != shop.next_day:
            raise ShopError(f"the oracle speaks of {shop.next_day}, the day after the last one lived, not of {day}")
        return shop.world, shop.state, shop.state.next_day


def _link(source: str, target: str) -> None:
    """Landing files are replaced, never written into, so that a link is as good as a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    started = path.with_name(f".{path.name}.part")
    started.write_bytes(content)
    os.replace(started, path)
