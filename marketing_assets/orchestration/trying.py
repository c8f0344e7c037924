"""Trying another budget, horizon or price as a job: its run configuration, and how the UI shows the outcome.

What belongs here: the job. What does not: the figures (try_out.py).
"""

from datetime import date

import dagster as dg
from pydantic import Field

from marketing_assets.forecasting import WhatIfError, read_drivers
from marketing_assets.orchestration.resources import ShopResource
from marketing_assets.running import newest_closed_day
from marketing_assets.try_out import try_out


class WhatIfConfig(dg.Config):
    """What to try. Nothing is published: the answer stands in the run, and the shop's settings stay as they are.

    Every field has a default that leaves it out, so that the UI fills them all in for a person to change.
    """

    daily_budget: float = Field(0.0, ge=0, description="ad money for tomorrow, in the shop's currency; 0: the plan is left out")
    horizon_days: int = Field(0, ge=0, le=365, description="days ahead demand is forecast; 0: the forecast is left out")
    drivers: str = Field(
        "", description="other prices, promotions or ad spend, as CSV lines: a header of item_id, date and any of end_date, location_id, "
        "unit_price, is_promotion, planned_ad_spend, then a line per item and day or range of days; empty: left out"
    )  # fmt: skip
    day: str = Field("", description="day it is asked of, YYYY-MM-DD, which must have been built; empty: the newest closed one")


@dg.op(name="try_out", description="Makes plan or forecast again with the budget, horizon or prices of the run configuration; publishes nothing.")
def ask(context: dg.OpExecutionContext, config: WhatIfConfig, shop: ShopResource) -> None:
    """The figures as set and as tried, in the log and as a table beside the op."""
    if not config.daily_budget and not config.horizon_days and not config.drivers.strip():
        raise dg.Failure("nothing to try: give daily_budget, horizon_days or drivers in the run configuration")
    closed = newest_closed_day(shop.warehouse.ledger, shop.store)
    day = date.fromisoformat(config.day) if config.day else closed
    if day is None or ("ad_plan", day) not in shop.warehouse.ledger:
        raise dg.Failure(f"{day or 'no day'} was not built: build it first, or name another one")
    try:
        drivers = read_drivers(config.drivers.encode(), "drivers") if config.drivers.strip() else None
        tried = try_out(shop.warehouse.reader(day), day, shop.store, config.daily_budget or None, config.horizon_days or None, drivers)
    except WhatIfError as error:
        raise dg.Failure(str(error)) from error
    lines = ["| figure | as set | as tried | 90 % interval |", "|---|---|---|---|"]
    for one in tried:
        before, after = ("unknown" if value is None else f"{value:,.2f}" for value in (one.as_set, one.as_tried))
        interval = "" if one.low is None or one.high is None else f"{one.low:,.2f} to {one.high:,.2f}"
        context.log.info(f"{day} {one.figure}: {before} as set, {after} as tried{interval and f' ({interval})'}")
        lines.append(f"| {one.figure} | {before} | {after} | {interval} |")
    context.add_output_metadata({"day": day.isoformat(), "outcome": dg.MetadataValue.md("\n".join(lines))})


def what_if() -> dg.JobDefinition:
    """The job."""

    @dg.job(name="what_if", description="Tries another ad budget, forecast horizon or prices on a day that was built; publishes nothing.")
    def job() -> None:
        ask()

    return job
