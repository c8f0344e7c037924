"""How sure the plan's promise is.

What belongs here: the distribution of the plan's conversions. What does not: making the plan.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri

from marketing_assets.ad_planning.inputs import Cells, Floats


def probability_of_target(x: Floats, kept: Floats, cells: Cells, target: float, interval: float) -> float:
    """P(conversions >= target): normal, with the Poisson noise of conversions and the uncertainty of the rates.

    The intervals of ctr and cvr (nominal coverage `interval`) give each cell's relative error; errors of one creative's
    cells are taken as one and the same, those of different creatives as independent. kept: share of conversions that
    repetition leaves. Half a conversion is taken off the target: conversions are whole.
    """
    if target <= 0:
        return 1.0
    frame = cells.frame
    mean = x * kept * frame["ctr"].to_numpy() * frame["cvr"].to_numpy()
    z = float(ndtri(0.5 + interval / 2)) if 0 < interval < 1 else 1.645
    errors = np.zeros(cells.n)
    for rate in ("ctr", "cvr"):
        low, high = frame[f"{rate}_low"].to_numpy(), frame[f"{rate}_high"].to_numpy()
        spread = np.log(np.maximum(high, 1e-12)) - np.log(np.maximum(low, 1e-12))
        errors += (spread / (2 * z)) ** 2
    _, creative = cells.by("creative_id")
    by_creative = np.bincount(creative, weights=mean * np.sqrt(errors))
    variance = float(mean.sum() + (by_creative**2).sum())
    expected = float(mean.sum())
    if variance <= 0:
        return 0.0
    return float(ndtr((expected - (target - 0.5)) / np.sqrt(variance)))
