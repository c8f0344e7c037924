"""Who decides in each arm of a trial: common practice, this system, one that knows the truth, and the system with a part taken away.

What belongs here: from published tables, or from the truth, to the decisions of a day. What does not: living a day (loop.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

import numpy as np
import polars as pl

from marketing_assets.ad_planning import Cells, Limits, Model
from marketing_assets.ad_planning.build import plan_rows
from marketing_assets.ad_planning.rounding import whole_impressions
from marketing_assets.config import UNKNOWN_USER, Store
from marketing_assets.sample_shop import Decisions, Oracle
from marketing_assets.warehouse import Reader, polars_schema

DEMAND_DAYS = 28
_STOCK = ("item_id", "stock_on_hand", "stock_on_order", "lead_time_days", "pack_size", "minimum_order_quantity")


@dataclass
class SystemDecisions:
    """What this system has published, as decisions. On a day without a plan the last one goes on.

    refused_days: days whose plan its own gate refused; a day with nothing on offer, such as before a day off, is none of them.
    """

    plan: pl.DataFrame | None = None
    refused_days: list[date] = field(default_factory=list)

    def on(self, reader: Reader, day: date) -> Decisions:
        """Decisions for day + 1 from the tables of `day`."""
        plan = reader.window("ad_plan", day, day)
        if not plan.is_empty():
            self.plan = plan
        elif "refused" in reader.window("ad_plan_runs", day, day, ["status"])["status"]:
            self.refused_days.append(day)
        lists = reader.log_as_of("recommendations", day, ["user_id", "rank", "item_id", "policy_id", "is_holdout"])
        related = reader.log_as_of("item_recommendations", day, ["item_id", "rank", "recommended_item_id"])
        orders = reader.window("inventory_plan", day, day, ["item_id", "order_quantity"])
        return Decisions(
            ad_plan=for_day(self.plan, day + timedelta(days=1)),
            audiences=reader.log_as_of("audiences", day, ["user_id", "audience_id", "priority", "is_holdout"]),
            recommendations=_or_none(lists.filter(pl.col("item_id").is_not_null())),
            item_recommendations=_or_none(related.filter(pl.col("recommended_item_id").is_not_null())),
            orders=_or_none(orders.group_by("item_id").agg(pl.col("order_quantity").sum()).sort("item_id")),
        )


def for_day(plan: pl.DataFrame | None, day: date) -> pl.DataFrame | None:
    """A plan said again for another day."""
    return None if plan is None else plan.with_columns(plan_date=pl.lit(day))


def _or_none(frame: pl.DataFrame) -> pl.DataFrame | None:
    return frame if frame.height else None


def oracle_decisions(
    oracle: Oracle,
    day: date,
    system: Decisions,
    stock: pl.DataFrame,
    dispersion: float,
    store: Store,
    budgets: Mapping[str, float] | None = None,
) -> Decisions:
    """Decisions for `day` by one who knows: true lists, true rates in the same plan solver, true demand in the same stock rule.

    The truth says nothing of who is in which audience and of what goes with an item: there it does as the system does. Nobody
    is held out and nothing is bought to learn.
    """
    audiences = system.audiences
    if audiences is not None:
        audiences = audiences.with_columns(is_holdout=pl.lit(False))
    return Decisions(
        ad_plan=true_plan(oracle.cell_rates(day, audiences), audiences, day, store, budgets),
        audiences=audiences,
        recommendations=oracle.recommendations(day, store.recommendations.list_length),
        item_recommendations=system.item_recommendations,
        orders=true_orders(oracle.demand(day, DEMAND_DAYS), stock, dispersion, store),
    )


def true_plan(
    rates: pl.DataFrame, audiences: pl.DataFrame | None, day: date, store: Store, budgets: Mapping[str, float] | None = None
) -> pl.DataFrame:
    """The plan for `day` from true rates, within the limits of store.yaml and the campaigns' daily budgets; rows of ad_plan."""
    settings = store.ad_planning
    frame = rates.filter(pl.col("available_impressions") > 0).sort("audience_id", "creative_id", "placement_id", "hour")
    if frame.is_empty():
        return pl.DataFrame(schema=polars_schema("ad_plan"))
    limits = Limits(
        budget=settings.daily_budget,
        campaign_left=budgets or {},
        target=settings.target_conversions,
        most_per_conversion=settings.most_per_conversion,
        frequency_cap=settings.frequency_cap,
        audience_users=_people(audiences),
        hourly_share=settings.max_hourly_share,
        placement_share=settings.max_share_per_placement,
        campaign_share=settings.max_share_per_campaign,
        diminishing=settings.diminishing_returns,
        weights=settings.relaxation_weights,
    )
    cells = Cells(frame, available_whole=settings.whole_impressions)
    model = Model(cells, limits)
    solution = model.solve()
    x = solution.x
    if settings.whole_impressions:
        x = whole_impressions(x, cells, model.statement.blocks, solution.relaxed, store.seed + day.toordinal())
    return plan_rows(day - timedelta(days=1), cells, x, solution, model)


def _people(audiences: pl.DataFrame | None) -> Mapping[str, float]:
    """Users by the audience they count for in a plan."""
    if audiences is None:
        return {}
    first = (
        audiences.filter(pl.col("audience_id").is_not_null())
        .sort("user_id", "priority", "audience_id")
        .unique("user_id", keep="first", maintain_order=True)
    )
    return dict(first.group_by("audience_id").agg(pl.len().cast(pl.Float64)).sort("audience_id").iter_rows())


def true_orders(demand: pl.DataFrame, stock: pl.DataFrame, dispersion: float, store: Store) -> pl.DataFrame | None:
    """Orders that bring each item up to the quantile of true demand over lead time and review; rows item_id, order_quantity.

    stock: _STOCK columns as they stand. dispersion: variance of a day's demand over its mean; the total of the days is taken
    as negative binomial.
    """
    from scipy.stats import nbinom, poisson

    settings = store.inventory
    known = stock.filter(pl.col("stock_on_hand").is_not_null()).join(demand, on="item_id", how="inner").sort("item_id")
    if known.is_empty():
        return None
    lead = known["lead_time_days"].fill_null(settings.default_lead_time_days).to_numpy()
    mean = known["demand_mean"].to_numpy() * (lead + settings.review_period_days)
    spread = max(dispersion, 1.0)
    if spread > 1.001:
        level = nbinom.ppf(settings.service_level, np.maximum(mean, 1e-9) / (spread - 1), 1 / spread)
    else:
        level = poisson.ppf(settings.service_level, mean)
    position = (known["stock_on_hand"] + known["stock_on_order"].fill_null(0)).to_numpy()
    short = np.maximum(np.ceil(np.nan_to_num(level)) - position, 0)
    least = np.maximum(short, known["minimum_order_quantity"].fill_null(0).to_numpy())
    pack = known["pack_size"].fill_null(1).to_numpy()
    ordered = np.where(short > 0, np.ceil(least / pack) * pack, 0).astype(np.int64)
    return pl.DataFrame({"item_id": known["item_id"], "order_quantity": ordered})


def dispersion_of(reader: Reader, end: date) -> float:
    """Variance over mean of an item's daily units, pooled over items, from the item_days known by `end`."""
    days = (end - reader.store.first_day).days + 1
    sold = reader.window("item_days", None, end, ["event_date", "item_id", "units_sold"])
    daily = sold.group_by("item_id", "event_date").agg(pl.col("units_sold").sum())
    items = daily.group_by("item_id").agg(mean=pl.col("units_sold").sum() / days, square=(pl.col("units_sold") ** 2).sum() / days)
    mean = float(items["mean"].sum())
    return float((items["square"] - items["mean"] ** 2).sum()) / mean if mean > 0 else 1.0


def daily_budgets_of(reader: Reader, day: date) -> dict[str, float]:
    """Campaign -> its budget for a day, of campaigns that have one.

    Budgets for a month or in total bind an arm by what it has spent itself, which a day's truth does not tell by campaign.
    """
    campaigns = reader.accepted("campaigns", None, day)
    daily = campaigns.filter(pl.col("budget").is_not_null(), pl.col("budget_period").is_in(["day", "daily"]))
    return {name: float(budget) for name, budget in daily.select("campaign_id", "budget").sort("campaign_id").iter_rows()}


def ad_conversions(reader: Reader, days: Sequence[date]) -> tuple[float, float]:
    """Conversions credited to ads, those refunded later among them: how many a day of these, and what one brought (0 without any)."""
    credited = reader.window("attributed_conversions", days[0], days[-1], ["conversion_value", "is_refunded"])
    made = credited.filter(~pl.col("is_refunded"))["conversion_value"].cast(pl.Float64).fill_null(0.0)
    return len(made) / len(days), float(made.sum()) / max(len(made), 1)


def stock_of(reader: Reader, day: date) -> pl.DataFrame:
    """Stock and supply of every item as its newest landed row says: _STOCK columns."""
    return reader.accepted("items", None, day).select(_STOCK)


def held_out_from_lists(decisions: Decisions) -> Decisions:
    """The same decisions, but everyone sees what those held out from lists see."""
    lists = decisions.recommendations
    if lists is None:
        return decisions
    held = lists.filter("is_holdout", pl.col("user_id") != UNKNOWN_USER)
    if held.is_empty():
        return replace(decisions, recommendations=None)
    one = held.filter(pl.col("user_id") == held["user_id"].min())
    unknown = lists.filter(pl.col("user_id") == UNKNOWN_USER)
    everyone = lists.select(pl.col("user_id").unique().sort()).filter(pl.col("user_id") != UNKNOWN_USER)
    return replace(decisions, recommendations=pl.concat([everyone.join(one.drop("user_id"), how="cross"), unknown]))


def held_out_from_ads(decisions: Decisions) -> Decisions:
    """The same decisions, but nobody sees an ad meant for an audience. Who is seen under no id still sees those for unknown people."""
    if decisions.audiences is None:
        return decisions
    return replace(decisions, audiences=decisions.audiences.with_columns(is_holdout=pl.lit(True)))
