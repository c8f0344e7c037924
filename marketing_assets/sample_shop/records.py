"""What a day leaves behind: rows of events, impressions, conversions, customers, catalogue and calendar.

What belongs here: from what happened to rows, and which rows come later. What does not: what happens (visits.py, adverts.py), text,
dirt and files (landing.py).
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from marketing_assets.sample_shop.adverts import Impressions
from marketing_assets.sample_shop.landing import EVENT_COLUMNS, IMPRESSION_COLUMNS, instants, with_dirt, write_csv
from marketing_assets.sample_shop.orders import AD_ORDERS, LED_ORDERS, Fulfilled, impression_ids
from marketing_assets.sample_shop.people import State
from marketing_assets.sample_shop.settings import CATEGORIES, CHANNELS, DEVICES, Drift
from marketing_assets.sample_shop.texts import SEARCHES, review, theme_and_stars
from marketing_assets.sample_shop.visits import COOKIE, NOBODY, Sessions, Views
from marketing_assets.sample_shop.world import Flags, Floats, Integers, World, stream

SERVICE_ITEM = "POSTAGE"
_EVENTS = pl.Schema(
    {
        "second": pl.Float64,
        "event_at": pl.String,
        "user_id": pl.String,
        "event_type": pl.String,
        "item_id": pl.String,
        "session_id": pl.String,
        "order_id": pl.String,
        "quantity": pl.Int64,
        "unit_price": pl.Float64,
        "discount": pl.Float64,
        "rating": pl.Float64,
        "review_text": pl.String,
        "dwell_seconds": pl.Float64,
        "search_query": pl.String,
        "device": pl.String,
        "channel": pl.String,
        "refunds_event_id": pl.String,
        "is_ad": pl.Boolean,
    }
)
"""Event rows before they have an id. event_at is filled in on the day they happen; is_ad is never written."""
_CONVERSIONS = pl.Schema(
    {
        "converted_at": pl.String,
        "impression_id": pl.String,
        "user_id": pl.String,
        "order_id": pl.String,
        "conversion_value": pl.Float64,
    }
)


class Day:
    """Collects one day's rows, then writes them. The figures beside the rows are for the truth."""

    def __init__(self, world: World, state: State, day: date, number: int) -> None:
        self.world, self.state, self.day, self.number = world, state, day, number
        self.rng = stream(world.seed, 40, number)
        # what is not logged must not change what happens
        self.loss_rng = stream(world.seed, 43, number)
        self.listed, self.price = world.prices(number)
        self.events: list[pl.DataFrame] = []
        self.tables: dict[str, pl.DataFrame] = {}
        self.people = pl.concat([state.account_ids(), state.cookie_ids(), pl.Series([None], dtype=pl.String)])
        self.items = pl.Series([*world.item_ids, SERVICE_ITEM])
        self.impression_ids = pl.Series([], dtype=pl.String)
        self.creative_value: Floats = np.zeros(world.size.creatives)
        self.ad_value = self.refunded_ad_value = self.refunded_margin = 0.0

    def _users(self, place: Integers, who: Integers) -> pl.Series:
        people = self.state.people
        return self.people.gather(np.where(who == NOBODY, 2 * people, place + people * (who == COOKIE)))

    def _lost_devices(self, what: str) -> list[tuple[str, float]]:
        """Devices whose clicks or purchases are no longer logged, and the share lost."""
        found = []
        for drift in self.world.active("tracking_bug", self.number):
            device, _, kind = _target(drift).partition(":")
            if kind == what:
                found.append((device, self.world.parameters.drift_tracking_loss * drift.strength))
        return found

    # --- events -------------------------------------------------------------------------------------------------------

    def _add(self, second: Floats, event_type: str, **columns: Any) -> None:
        named = pl.Series([event_type], dtype=pl.String).new_from_index(0, len(second))
        self.events.append(pl.DataFrame({"second": second, "event_type": named, **columns}))

    def visits(self, sessions: Sessions, views: Views, offset: int) -> None:
        """Views, searches, wishes and carts. offset: sessions of the day before these."""
        users = self._users(sessions.place, sessions.who)
        named = pl.select(pl.lit(f"s{self.number:04d}-") + pl.int_range(offset, offset + len(sessions.place)).cast(pl.String))
        unknown = pl.Series(sessions.who == NOBODY)
        columns = pl.DataFrame(
            {
                "user_id": users,
                "session_id": pl.select(pl.when(unknown).then(named.to_series())).to_series(),
                "device": pl.Series(DEVICES).gather(sessions.device),
                "channel": pl.Series(CHANNELS).gather(sessions.channel),
            }
        )

        def of(session: Integers) -> dict[str, pl.Series]:
            return columns[session].to_dict()

        price = self.listed[views.item]
        self._add(
            views.second, "view_item", item_id=self.items.gather(views.item), dwell_seconds=views.dwell, unit_price=price,
            **of(views.session),
        )  # fmt: skip
        for chosen, kind, when in ((views.is_wished, "add_to_wishlist", 0.5), (views.is_carted, "add_to_cart", 0.7)):
            rows = np.flatnonzero(chosen)
            self._add(
                np.floor(views.second[rows] + when * views.dwell[rows]) + 1,
                kind,
                item_id=self.items.gather(views.item[rows]),
                unit_price=price[rows],
                quantity=np.ones(len(rows), dtype=np.int64) if kind == "add_to_cart" else None,
                **of(views.session[rows]),
            )
        begins = np.unique(views.session, return_index=True)[1]
        searched = np.flatnonzero(self.rng.random(len(begins)) < self.world.parameters.search_share)
        item = views.item[begins[searched]]
        forms = self.rng.integers(0, len(SEARCHES), len(searched))
        queries = [self._query(SEARCHES[form], int(name)) for form, name in zip(forms, item, strict=True)]
        second = np.maximum(sessions.second[searched] - 6, 0.0)
        self._add(second, "search", search_query=pl.Series(queries, dtype=pl.String), **of(searched))

    def _query(self, form: str, item: int) -> str:
        style, colour, *noun, _ = self.world.titles[item].lower().split()
        category = CATEGORIES[self.world.category[item]]
        return form.format(style=style, colour=colour, noun=" ".join(noun), category=category)

    def purchases(self, filled: Fulfilled, offset: int) -> None:
        """Carts that no view left behind, checkouts and purchases of what could be filled."""
        done = np.flatnonzero(filled.is_filled)
        lines = filled.lines
        from_ad = lines.order >= LED_ORDERS
        is_trade = filled.is_trade
        session = lines.session + np.where(from_ad, offset, 0)
        has_session = (lines.who == NOBODY) & (lines.session >= 0)
        names = pl.select(pl.lit(f"s{self.number:04d}-") + pl.Series(session).cast(pl.String)).to_series()
        columns = pl.DataFrame(
            {
                "user_id": self._users(lines.place, lines.who),
                "session_id": pl.select(pl.when(pl.Series(has_session)).then(names)).to_series(),
                "device": pl.Series(DEVICES).gather(lines.device),
                "channel": pl.Series(CHANNELS).gather(lines.channel),
                "item_id": self.items.gather(lines.item),
                "order_id": pl.select(
                    pl.lit(f"o{self.number:04d}-") + pl.Series(lines.order).cast(pl.String).str.zfill(7)
                ).to_series(),
                "quantity": lines.quantity,
                "unit_price": self.listed[lines.item],
                "discount": np.round((self.listed[lines.item] - filled.paid) * lines.quantity, 2),
                "is_ad": lines.order >= AD_ORDERS,
            }
        )
        browsed = columns.drop("order_id", "discount", "is_ad")
        back = done[(lines.order[done] >= AD_ORDERS) & (lines.session[done] < 0)]
        self._add(lines.second[back] - 90, "view_item", **browsed.drop("quantity")[back].to_dict())
        straight = done[is_trade[done] | (lines.order[done] >= AD_ORDERS)]
        self._add(lines.second[straight] - 40, "add_to_cart", **browsed[straight].to_dict())
        first = done[np.unique(lines.order[done], return_index=True)[1]]
        self._add(
            lines.second[first] - 20, "begin_checkout", **columns.drop("quantity", "unit_price", "discount")[first].to_dict()
        )
        self._add(lines.second[done], "purchase", **columns[done].to_dict())
        sent = first[is_trade[first] & (self.rng.random(len(first)) < 0.35)]
        postage = columns[sent].with_columns(
            item_id=pl.lit(SERVICE_ITEM), quantity=pl.lit(1), unit_price=pl.lit(7.9), discount=pl.lit(0.0)
        )
        self._add(lines.second[sent], "purchase", **postage.to_dict())

    def bots(self) -> None:
        """Programs that read page after page within a minute or two."""
        p = self.world.parameters
        for number in range(int(self.rng.poisson(p.bots * min(1.0, self.world.size.sessions / 400)))):
            count = p.bot_views
            second = np.sort(np.floor(self.rng.integers(3600, 80_000) + self.rng.uniform(0, 100, count)))
            item = self.rng.choice(np.flatnonzero(self.world.launch <= self.number), count)
            self._add(
                second,
                "view_item",
                user_id=pl.Series([f"b{self.number:04d}{number}"] * count),
                item_id=self.items.gather(item),
                device=pl.Series(["desktop"] * count),
                channel=pl.Series(["direct"] * count),
                unit_price=self.listed[item],
            )

    def _finished_events(self) -> pl.DataFrame:
        """Today's rows with ids, those that had been waiting among them; later ones go to the state."""
        world, state, number = self.world, self.state, self.number
        schema = pl.DataFrame(schema=_EVENTS)
        happened = pl.concat([schema, *self.events], how="diagonal_relaxed").cast(_EVENTS)
        happened = happened.with_columns(event_at=instants(world, self.day, happened["second"].to_numpy()))
        waiting = [frame.filter(pl.col("lands") > number) for frame in state.pending]
        due = pl.concat([frame.filter(pl.col("lands") == number) for frame in state.pending]) if state.pending else None
        if due is not None:
            fresh = due.filter(pl.col("event_at").is_null())
            self._take_back(fresh.filter(pl.col("event_type") == "refund"))
            now = fresh.with_columns(event_at=instants(world, self.day, fresh["second"].to_numpy()))
            happened = pl.concat([happened, now.select(_EVENTS.names())])
        happened = happened.sort("second", maintain_order=True)
        ids = pl.select(
            pl.lit("e") + pl.int_range(state.events_written, state.events_written + happened.height).cast(pl.String).str.zfill(9)
        ).to_series()
        state.events_written += happened.height
        happened = happened.with_columns(event_id=ids)
        self._later(happened.filter(pl.col("event_type") == "purchase", pl.col("item_id") != SERVICE_ITEM))
        p = world.parameters
        lost = np.zeros(happened.height, dtype=bool)
        for device, share in self._lost_devices("purchase"):
            mine = (happened["device"] == device) & (happened["event_type"] == "purchase")
            lost |= mine.fill_null(False).to_numpy() & (self.loss_rng.random(happened.height) < share)
        late = np.where(
            self.rng.random(happened.height) < p.late_share, self.rng.integers(1, p.most_late_days + 1, happened.height), 0
        )
        late = np.maximum(late, (happened["second"].to_numpy() >= 86_400).astype(np.int64))
        kept = happened.filter(pl.Series(~lost & (late == 0)))
        put_off = happened.with_columns(lands=pl.Series(number + late)).filter(pl.Series(~lost & (late > 0)))
        if due is not None:
            kept = pl.concat([kept, due.filter(pl.col("event_at").is_not_null()).select(kept.columns)])
        columns = [*_EVENTS.names(), "event_id", "lands"]
        state.pending = [frame for frame in [*waiting, put_off.select(columns)] if frame.height]
        if self.later.height:
            state.pending.append(self.later.select(columns))
        if len(state.pending) > 8:
            state.pending = [pl.concat(state.pending)]
        return kept

    def _later(self, bought: pl.DataFrame) -> None:
        """Refunds and reviews that today's purchases will lead to."""
        p, rng = self.world.parameters, self.rng
        item = (bought["item_id"].str.slice(1).cast(pl.Int64)).to_numpy()
        quality = self.world.quality[item]
        refunded = rng.random(bought.height) < p.refund_share * (1.75 - quality)
        reviewed = (rng.random(bought.height) < p.review_share) & bought["user_id"].is_not_null().to_numpy()
        frames = []
        for chosen, kind, first in ((refunded, "refund", 2), (reviewed, "review", 3)):
            rows = np.flatnonzero(chosen)
            frame = bought[rows]
            frame = frame.with_columns(
                event_type=pl.lit(kind),
                event_at=pl.lit(None, pl.String),
                session_id=pl.lit(None, pl.String),
                lands=pl.Series(self.number + rng.integers(first, 15, len(rows)), dtype=pl.Int64),
                second=pl.Series(np.floor(rng.uniform(8, 22, len(rows)) * 3600), dtype=pl.Float64),
            )
            if kind == "refund":
                # the back office names the purchase only half of the time
                frame = frame.with_columns(
                    refunds_event_id=pl.select(
                        pl.when(pl.Series(rng.random(len(rows)) < 0.5)).then(frame["event_id"])
                    ).to_series()
                )
            else:
                written = [theme_and_stars(float(quality[row]), rng) for row in rows]
                texts = [
                    review(theme, self._query("{noun}", int(item[row])), rng)
                    for (theme, _), row in zip(written, rows, strict=True)
                ]
                frame = frame.with_columns(
                    quantity=pl.lit(None, pl.Int64), discount=pl.lit(None, pl.Float64), unit_price=pl.lit(None, pl.Float64),
                    order_id=pl.lit(None, pl.String), rating=pl.Series([float(stars) for _, stars in written], dtype=pl.Float64),
                    review_text=pl.Series(texts, dtype=pl.String),
                )  # fmt: skip
            frames.append(frame)
        self.later = pl.concat(frames)

    def _take_back(self, refunds: pl.DataFrame) -> None:
        """Returned goods go back on the shelf, and their margin is gone."""
        if not refunds.height:
            return
        item = refunds["item_id"].str.slice(1).cast(pl.Int64).to_numpy()
        units = refunds["quantity"].to_numpy()
        np.add.at(self.state.stock, item, units)
        paid = refunds["quantity"].to_numpy() * refunds["unit_price"].to_numpy() - refunds["discount"].fill_null(0).to_numpy()
        self.refunded_margin = float((paid - units * self.world.unit_cost[item]).sum())
        self.refunded_ad_value = float(paid[refunds["is_ad"].fill_null(False).to_numpy()].sum())

    # --- ads ----------------------------------------------------------------------------------------------------------

    def impressions(self, shown: Impressions) -> None:
        world, at = self.world, shown.shown
        self.impression_ids = impression_ids(self.number, len(shown.creative))
        clicked: Flags = shown.is_clicked.copy()
        device = pl.Series(DEVICES).gather(at.device)
        for name, share in self._lost_devices("click"):
            clicked &= ~((device == name).to_numpy() & (self.loss_rng.random(len(clicked)) < share))
        rows = np.flatnonzero(clicked)
        clicked_at = pl.Series([None], dtype=pl.String).new_from_index(0, len(clicked))
        clicked_at = clicked_at.scatter(rows, instants(world, self.day, at.second[rows] + 3))
        frame = pl.DataFrame(
            {
                "impression_id": self.impression_ids,
                "shown_at": instants(world, self.day, at.second),
                "user_id": self._users(at.place, at.who),
                "audience_id": pl.Series(shown.audience, dtype=pl.String),
                "campaign_id": pl.Series(world.campaign_ids).gather(world.campaign_of[shown.creative]),
                "creative_id": pl.Series(world.creative_ids).gather(shown.creative),
                "item_id": pl.Series(world.item_ids).gather(world.creative_item[shown.creative]),
                "placement_id": pl.Series(world.placement_ids).gather(at.placement),
                "position": at.position,
                "policy_id": [shown.policy_id] * len(clicked),
                "plan_id": pl.Series([shown.plan_id] * len(clicked), dtype=pl.String),
                "logging_propensity": np.round(np.maximum(shown.propensity, 1e-6), 8),
                "spend": np.round(shown.spend, 4),
                "is_clicked": pl.Series(clicked),
                "clicked_at": clicked_at,
                "device": device,
            },
        )
        self.tables["impressions"] = frame.select(IMPRESSION_COLUMNS)

    def conversions(self, filled: Fulfilled, returning: pl.DataFrame) -> None:
        """Orders that ads brought today, as the ad platforms report them: some a day later."""
        lines = filled.lines
        rows = np.flatnonzero(filled.is_filled & (lines.order >= AD_ORDERS))
        value = filled.paid[rows] * lines.quantity[rows]
        orders = pl.DataFrame(
            {
                "order": lines.order[rows],
                "converted_at": instants(self.world, self.day, lines.second[rows]),
                "user_id": self._users(lines.place[rows], lines.who[rows]),
                "device": pl.Series(DEVICES).gather(lines.device[rows]),
                "conversion_value": np.round(value, 2),
            }
        ).join(returning, on="order", maintain_order="left")
        self.ad_value = float(value.sum())
        self.creative_value = np.bincount(orders["creative"].to_numpy(), value, self.world.size.creatives).astype(np.float64)
        lost = np.zeros(orders.height, dtype=bool)
        for device, share in self._lost_devices("purchase"):
            lost |= (orders["device"] == device).to_numpy() & (self.loss_rng.random(orders.height) < share)
        orders = orders.filter(pl.Series(~lost, dtype=pl.Boolean)).with_columns(
            order_id=pl.format(f"o{self.number:04d}-{{}}", pl.col("order").cast(pl.String).str.zfill(7))
        )
        late = self.rng.random(orders.height) < self.world.parameters.report_delay_share
        reported = orders.select(pl.col(name).cast(kind) for name, kind in _CONVERSIONS.items())
        due = [frame.select(_CONVERSIONS.names()) for frame in self.state.pending_reports]
        self.tables["conversions"] = pl.concat([*due, reported.filter(pl.Series(~late, dtype=pl.Boolean))])
        put_off = reported.filter(pl.Series(late, dtype=pl.Boolean))
        self.state.pending_reports = [put_off] if put_off.height else []

    # --- files --------------------------------------------------------------------------------------------------------

    def write(self, folder: Path) -> pl.DataFrame:
        """The landing files of the day. Returns source, row_id, problem of the rows that must be refused."""
        p, refused = self.world.parameters, []
        events = self._finished_events().select(EVENT_COLUMNS)
        whole, record = with_dirt(events, "events", "event_id", p.broken_share, p.duplicate_share, self.rng)
        write_csv(whole, folder, "events", self.day)
        refused.append(record)
        whole, record = with_dirt(
            self.tables.pop("impressions"), "impressions", "impression_id", p.broken_share / 3, p.duplicate_share / 3, self.rng
        )
        write_csv(whole, folder, "impressions", self.day)
        refused.append(record)
        for name, frame in self.tables.items():
            write_csv(frame, folder, name, self.day)
        return pl.concat(refused)


def _target(drift: Drift) -> str:
    """'device:what'; a device alone means its purchases."""
    name = drift.target or "phone"
    return name if ":" in name else f"{name}:purchase"
