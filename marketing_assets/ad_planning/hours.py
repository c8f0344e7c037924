"""Hours of which nothing tells one from another: what is bought there is bought evenly.

What belongs here: spreading an optimal plan over hours that are alike. What does not: rounding (rounding.py), and pacing as a limit
(constraints.py).

Reports without hours, and placements nothing was shown on yet, make every hour of a placement alike. A solver then buys some
corner of the many plans that are equally good, a few hours picked by nothing. Where such hours change places the plan is worth the
same, and so is the mean over all orders of them. Only the pacing of the whole day's spend tells these hours apart, since other
placements are bought in some of them: the plan goes as far towards the mean as that allows.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from marketing_assets.ad_planning.inputs import Floats
from marketing_assets.ad_planning.solve import Model, Solution, used
from marketing_assets.response.statistics import GROUP

_PLACE = ["audience_id", "placement_id"]


def even_over_hours(solution: Solution, model: Model) -> Solution:
    """The same plan, spread as evenly as its limits allow over the hours of each audience and placement whose hours are all alike.

    Alike: in what is on offer and, creative by creative, in cost, conversions and value per impression. Left as it is where a
    person's override names an hour.
    """
    cells = model.cells
    if any(override.hour is not None for override in model.limits.overrides):
        return solution
    groups = cells.groups.select(*GROUP, total=pl.Series(solution.total), available=pl.Series(cells.available))
    alike = groups.group_by(_PLACE).agg(hours=pl.len(), amounts=pl.col("available").n_unique())
    alike = alike.filter(pl.col("hours") > 1, pl.col("amounts") == 1).select(*_PLACE, "hours")
    if alike.is_empty():  # asked first: it tells nearly all logs, and costs nothing
        return solution
    terms = {"cost": cells.cost, "conversions": cells.conversions, "value": cells.value}
    bought = cells.frame.select(*_PLACE, "creative_id", x=pl.Series(solution.x), **{name: pl.Series(term) for name, term in terms.items()})
    of_creative = [*_PLACE, "creative_id"]
    uneven = bought.join(alike, on=_PLACE).filter(
        pl.any_horizontal(pl.len().over(of_creative) != pl.col("hours"), *(pl.col(name).n_unique().over(of_creative) > 1 for name in terms))
    )
    alike = alike.join(uneven, on=_PLACE, how="anti").with_columns(is_even=pl.lit(True)).drop("hours")
    if alike.is_empty():
        return solution

    def spread(rows: pl.DataFrame, amount: str, over: list[str]) -> pl.Series:
        marked = rows.join(alike, on=_PLACE, how="left", maintain_order="left")
        return marked.select(pl.when("is_even").then(pl.col(amount).mean().over(over)).otherwise(amount)).to_series()

    x, total = spread(bought, "x", of_creative).to_numpy(), spread(groups, "total", _PLACE).to_numpy()
    step = _step(solution, model, x, total)
    return replace(solution, x=solution.x + step * (x - solution.x), total=solution.total + step * (total - solution.total))


def _step(solution: Solution, model: Model, x: Floats, total: Floats) -> float:
    """How far, 0 to 1, a plan may go towards another one until it meets a limit."""
    step = 1.0
    for block, extra in zip(model.statement.blocks, solution.relaxed, strict=True):
        if block.sense == "<=":
            here, there = used(block, solution.x, solution.total, 0.0), used(block, x, total, 0.0)
            limit = np.maximum(block.limit + extra, here)
            over = there > limit + 1e-9 * np.maximum(np.abs(limit), 1.0)
            step = min(step, float(((limit - here)[over] / (there - here)[over]).min(initial=1.0)))
    return step
