"""Another budget, horizon or price on a day that was built: what plan and forecast would be, beside what is known and set.

What belongs here: asking plan and forecast again with one thing changed. What does not: how they are made (ad_planning,
forecasting), what logged weeks say of a plan (evaluation/what_if.py). Nothing is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import polars as pl

from marketing_assets.ad_planning import build_ad_plan
from marketing_assets.config import Store
from marketing_assets.forecasting import in_money, units_ahead, what_if
from marketing_assets.warehouse import Reader

PLANNED = ("planned_spend", "planned_impressions", "expected_clicks", "expected_conversions", "expected_revenue")


@dataclass(frozen=True)
class Tried:
    """A figure as it stands and as it would be; money in the shop's currency, None where there is no plan, price or cost.

    low, high: ends of the 90 % interval of as_tried, where the forecast gives one."""

    figure: str
    as_set: float | None
    as_tried: float | None
    low: float | None = None
    high: float | None = None


def try_out(
    reader: Reader, day: date, store: Store, daily_budget: float | None, horizon_days: int | None, drivers: pl.DataFrame | None = None
) -> list[Tried]:
    """Tomorrow's plan with another daily budget, the shop's demand over another horizon, and that of items under other prices,
    promotions or ad spend, as of the end of `day`.

    daily_budget: money; horizon_days: days ahead; drivers: as for forecasting.what_if; None leaves that part out. Totals of the plan,
    units over the horizon, and units, revenue and margin of the items named over the usual one.
    """
    tried = []
    if daily_budget is not None:
        settings = store.ad_planning.model_copy(update={"daily_budget": daily_budget})
        planned = build_ad_plan(reader, [day], store.model_copy(update={"ad_planning": settings})).tables["ad_plan"]
        assert isinstance(planned, pl.DataFrame)
        published = reader.window("ad_plan", day, day, list(PLANNED))
        tried += [Tried(name, _total(published, name), _total(planned, name)) for name in PLANNED]
    if horizon_days is not None:
        usual = store.forecasting.horizon_days
        units = units_ahead(reader, day, store, max(usual, horizon_days))
        tried.append(Tried("horizon_days", float(usual), float(horizon_days)))
        tried.append(Tried("expected_units", sum(units[:usual]), sum(units[:horizon_days])))
    if drivers is not None:
        named, total = in_money(reader, day, what_if(reader, day, store, drivers))
        for name in ("units", "revenue", "margin"):
            figures = (total[f"{name}{end}"] for end in ("_before", "", "_low", "_high"))
            tried.append(Tried(f"{name}_of_{named.height}_items", *figures))
    return tried


def _total(plan: pl.DataFrame, column: str) -> float | None:
    return float(plan[column].sum()) if plan.height else None
