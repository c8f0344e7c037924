"""What a closed-loop trial needs of a shop: any class with these few methods can take the sample shop's place.

What belongs here: the interface and what goes through it. What does not: any shop.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Protocol, runtime_checkable

import polars as pl


@dataclass(frozen=True)
class Decisions:
    """What was decided at the end of the day before, for the day to be lived. None: the shop's own common practice.

    ad_plan: rows of the table ad_plan whose plan_date is the day. audiences: user_id, audience_id, priority, is_holdout in force
    (the audiences uploaded to the ad platforms; a plan reaches nobody else but 'unknown'). recommendations: user_id, rank,
    item_id, policy_id, is_holdout in force; users without a list see that of user 'unknown'. item_recommendations: item_id,
    rank, recommended_item_id in force. orders: item_id, order_quantity of inventory_plan.
    """

    ad_plan: pl.DataFrame | None = None
    audiences: pl.DataFrame | None = None
    recommendations: pl.DataFrame | None = None
    item_recommendations: pl.DataFrame | None = None
    orders: pl.DataFrame | None = None


@dataclass(frozen=True)
class DayTruth:
    """What a day was really worth. Never part of the landing files.

    expected_* are expectations over the users' choices given what they were shown, realised ones are what came out. Ad
    figures belong to the day of the impression; ad revenue has expected refunds taken off, profit is margin less refunds, ad spend
    and the cost of holding stock.
    """

    day: date
    sessions: int
    expected_session_conversion_rate: float
    session_conversion_rate: float
    revenue: float
    expected_profit: float
    profit: float
    impressions: int
    expected_clicks: float
    clicks: int
    expected_ad_conversions: float
    expected_ad_revenue: float
    ad_revenue: float
    ad_spend: float
    stocked_out_items: int
    lost_units: int
    lost_revenue: float
    more: dict[str, float] = field(default_factory=dict)


class Oracle(Protocol):
    """The truth about the day to come, for an arm that knows it."""

    def recommendations(self, day: date, length: int = 20) -> pl.DataFrame:
        """user_id, rank, item_id, policy_id: the items each user would truly most likely buy."""
        ...

    def cell_rates(self, day: date, audiences: pl.DataFrame | None = None) -> pl.DataFrame:
        """audience_id, creative_id, placement_id, hour with campaign_id, item_id, true ctr, cvr, available_impressions,
        cost_per_impression and value_per_conversion."""
        ...

    def demand(self, day: date, days: int) -> pl.DataFrame:
        """item_id, demand_mean: units a day users would buy over the next days if everything were in stock."""
        ...


@runtime_checkable
class Shop(Protocol):
    """All a trial needs of a shop. Made as Shop(folder, seed); from its first day on, folder/store.yaml maps its landing files.

    The same seed and decisions give the same days. Shops of one seed should share users, visits and opportunities, so that arms
    can be compared in pairs.
    """

    folder: Path
    first_day: date

    def live(self, day: date, decisions: Decisions | None = None) -> None:
        """Live one day, first_day or the one after the last, and write its landing files. None, or parts: common practice."""
        ...

    def truth(self, day: date) -> DayTruth:
        """What a day that was lived was really worth."""
        ...


@runtime_checkable
class KnowingShop(Shop, Protocol):
    """A shop that also tells beforehand: a trial can then add an arm that knows everything."""

    def oracle(self) -> Oracle:
        """The truth about the day after the last one lived."""
        ...


@runtime_checkable
class BranchingShop(Shop, Protocol):
    """A shop whose history can be lived once for several arms; of others the trial lives it again."""

    def branch(self, folder: Path) -> Shop:
        """The same shop in another folder, as it stands, landing files and store.yaml included."""
        ...
