"""Any sktime forecaster as a candidate: fitted series by series on units over the worth of days.

What belongs here: finding a forecaster by its import path, running it over a panel. What does not: our own forecasters behind
sktime's interface (sktime_forecasters.py). Slow by nature: a loop over series costs some 20 to 500 milliseconds each.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np

from marketing_assets.forecasting.level_calendar import DECIMALS, Levels, fit_levels
from marketing_assets.forecasting.panel import LEVELS, Floats, Forecast, Panel

ARIMA = "sktime.forecasting.sarimax.SARIMAX"
ARIMA_ORDER = (1, 0, 1)


class UnknownForecaster(Exception):
    """forecasting.candidates of store.yaml names something that is no forecaster, or one whose package is missing."""


def load_forecaster(path: str, season: int) -> Any:
    """A new forecaster of the class at an import path; sp is set where the class has it. Raises UnknownForecaster."""
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
        from sktime.forecasting.base import BaseForecaster

        if not issubclass(kind, BaseForecaster):
            raise UnknownForecaster(f"forecasting.candidates: {path!r} is a {kind.__name__}, but no sktime forecaster")
        parameters = kind.get_param_names()
        given: dict[str, Any] = {"sp": season} if "sp" in parameters else {}
        if path == ARIMA:
            given = {"order": ARIMA_ORDER}
        return kind(**given)
    except (ImportError, ValueError, AttributeError) as error:
        raise UnknownForecaster(
            f"forecasting.candidates: {path!r} cannot be used: {error}. Give a name known to forecasting, or the import path of a "
            "sktime forecaster whose package is installed"
        ) from error


def forecast_by_sktime(panel: Panel, path: str, levels: Levels | None = None) -> Forecast:
    """One fit per series on open days only, so that its season is the shop's open week; quantiles from the forecaster where it gives them.

    A series on which the forecaster fails is a clear outcome, not a failure of the others: it keeps level x calendar.
    """
    import pandas as pd  # type: ignore[import-untyped]
    from sktime.base import BaseObject

    levels = fit_levels(panel) if levels is None else levels
    known = panel.known
    is_open = levels.shape > 0
    open_past, open_ahead = np.flatnonzero(is_open[:known]), np.flatnonzero(is_open[known:])
    per_week = max(1, round(float(is_open[:known].mean()) * panel.season))
    template: BaseObject = load_forecaster(path, per_week)
    ahead = levels.worth[:, known:]
    mean = levels.level[:, None] * ahead
    quantiles = levels.ratios[:, None, :] * ahead[:, :, None]
    rate = np.divide(panel.units, levels.worth[:, :known], out=np.zeros_like(panel.units), where=levels.worth[:, :known] > 0)
    has_quantiles = bool(template.get_tag("capability:pred_int"))
    horizon = np.arange(1, len(open_ahead) + 1)
    first = panel.first_sale
    for row in range(panel.count):
        series = rate[row, open_past[open_past >= first[row]]]
        if len(series) < 2 * per_week + 2 or not len(open_ahead):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                forecaster = template.clone().fit(pd.Series(series), fh=horizon)
                found = np.asarray(forecaster.predict(), dtype=np.float64).ravel()
                spread = _quantiles(forecaster, found, series, has_quantiles)
        except (ValueError, np.linalg.LinAlgError, NotImplementedError, ZeroDivisionError):
            continue
        if not (np.isfinite(found).all() and np.isfinite(spread).all()):
            continue
        worth = ahead[row, open_ahead]
        mean[row, open_ahead] = np.maximum(found, 0.0) * worth
        quantiles[row, open_ahead] = np.maximum(spread, 0.0) * worth[:, None]
    return Forecast(np.round(mean, DECIMALS), np.rint(np.sort(quantiles, axis=2)))


def _quantiles(forecaster: Any, mean: Floats, series: Floats, has_quantiles: bool) -> Floats:
    """(steps, LEVELS) from the forecaster, else from how the series has spread around its mean."""
    if has_quantiles:
        return np.asarray(forecaster.predict_quantiles(alpha=[float(level) for level in LEVELS]), dtype=np.float64)
    spread: Floats = mean[:, None] + np.quantile(series - series.mean(), LEVELS)[None, :]
    return spread
