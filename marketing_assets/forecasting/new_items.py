"""Items with little or no history: what items of their category and price usually sell.

What belongs here: the prior of a young series. What does not: which items are forecast at all (history.py).
"""

from __future__ import annotations

import numpy as np
import polars as pl

from marketing_assets.forecasting.panel import Flags, Floats, Panel

YOUNG_DAYS = 28
"""Series seen on fewer open days than this are drawn to their like."""
PRIOR_DAYS = 7.0
"""The usual rate counts for so many open days of a series' own."""
FEWEST_DONORS = 5
SETTLED_DAYS = 56
"""Of series on offer for YOUNG_DAYS to this many days, the share that sold tells how likely a new one is to sell at all."""
PRICE_BANDS_PER_TENFOLD = 3


def with_prior(panel: Panel, level: Floats, quantiles: Floats, exposure: Floats) -> tuple[Floats, Floats]:
    """level (n,) and quantiles (n, ...) of young series drawn to the median of older ones of their category and price band.

    exposure: (n,) open days seen, a busy day counting more. Fewer than FEWEST_DONORS older ones: the category, then the shop. Where
    nothing was sold yet, times the share of those before it that sold at all: a catalogue may hold much that never does.
    In a shop's first weeks all are young and are drawn to the mean over all days seen: an item sold out after its only day of
    sales is not one that sells as much every day.
    """
    is_young: Flags = np.asarray(exposure < YOUNG_DAYS)
    if not is_young.any() or not exposure.sum():
        return level, quantiles
    is_sold = panel.first_sale < panel.known
    if not (~is_young & is_sold).any():
        usual_level = np.full(panel.count, np.average(level, weights=exposure))
        usual = np.broadcast_to(np.average(quantiles, axis=0, weights=exposure), quantiles.shape)
    else:
        usual_level, usual = _of_like(panel, level, quantiles, is_young, ~is_young & is_sold)
        likely = np.where(is_sold, 1.0, _sold_share(panel, is_sold))
        usual_level, usual = usual_level * likely, usual * likely.reshape(-1, *[1] * (quantiles.ndim - 1))
    share = np.where(is_young, PRIOR_DAYS / (PRIOR_DAYS + exposure), 0.0)
    each = share.reshape(-1, *[1] * (quantiles.ndim - 1))
    return level + share * (usual_level - level), quantiles + each * (usual - quantiles)


def _sold_share(panel: Panel, is_sold: Flags) -> float:
    """Share of series lately put on offer that have sold since; 1 where there were too few to tell."""
    age = (panel.known - panel.begins) * panel.step_days
    settled = (age >= YOUNG_DAYS) & (age <= SETTLED_DAYS)
    return float(is_sold[settled].mean()) if settled.sum() >= FEWEST_DONORS else 1.0


def _of_like(panel: Panel, level: Floats, quantiles: Floats, is_young: Flags, is_donor: Flags) -> tuple[Floats, Floats]:
    """For young series, the median level and quantiles of donors, older ones that were sold, that are like them."""
    price = panel.series["unit_price"].cast(pl.Float64)
    band = (price.log(10) * PRICE_BANDS_PER_TENFOLD).floor()
    described = panel.series.select("category").with_columns(band=pl.when(price > 0).then(band), is_young=pl.Series(is_young))
    keys = [
        described.select(key=pl.concat_str(pl.col("category").fill_null(""), pl.col("band").cast(pl.String).fill_null(""), separator="\x1f")),
        described.select(key=pl.col("category").fill_null("")),
        described.select(key=pl.lit("")),
    ]
    usual_level, usual = np.zeros(panel.count), np.zeros_like(quantiles)
    is_open = is_young.copy()
    for frame in keys:
        code = frame["key"].rank("dense").to_numpy().astype(np.int64) - 1 if frame.height == panel.count else np.zeros(panel.count, dtype=np.int64)
        for group in np.unique(code[is_open]):
            donors = (code == group) & is_donor
            if donors.sum() < FEWEST_DONORS and frame is not keys[-1]:
                continue
            ours = (code == group) & is_open
            usual_level[ours] = np.median(level[donors])
            usual[ours] = np.median(quantiles[donors], axis=0)
            is_open &= ~ours
    return usual_level, usual
