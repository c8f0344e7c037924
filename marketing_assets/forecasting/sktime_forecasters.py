"""Our forecasters behind sktime's interface, for one series or a whole panel in pandas form.

What belongs here: the translation between pandas and Panel. What does not: forecasting. A panel is forecast at once, without a loop
over its series.
"""

from __future__ import annotations

from datetime import date
from typing import Any, ClassVar

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
from sktime.forecasting.base import BaseForecaster

from marketing_assets.forecasting.competition import BASELINE, GROUPS, PANEL, Scoring, forecast_by_group, forecast_with
from marketing_assets.forecasting.learned import PanelModel, fit_panel_model
from marketing_assets.forecasting.level_calendar import fit_levels
from marketing_assets.forecasting.origins import Origins, origin_columns
from marketing_assets.forecasting.panel import LEVELS, Floats, Forecast, Panel

LONGEST_HORIZON = 28


class LevelCalendarForecaster(BaseForecaster):  # type: ignore[misc]
    """Level x calendar over all series at once.

    Parameters
    ----------
    season : places of a season, 7 for daily data with a week.
    is_nonnegative : whether forecasts below zero become zero; units cannot be negative, other series can, and keep their sign by
        being lifted over zero while they are forecast.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from marketing_assets.forecasting.sktime_forecasters import LevelCalendarForecaster
    >>> forecaster = LevelCalendarForecaster(season=12).fit(load_airline(), fh=[1, 2, 3])
    >>> len(forecaster.predict())
    3
    """

    _tags: ClassVar[dict[str, Any]] = {
        "authors": ["marketing_assets"],
        "scitype:y": "both",
        "y_inner_mtype": ["pd.DataFrame", "pd-multiindex", "pd_multiindex_hier"],
        "X_inner_mtype": ["pd.DataFrame", "pd-multiindex", "pd_multiindex_hier"],
        "capability:exogenous": False,
        "requires-fh-in-fit": False,
        "capability:missing_values": False,
        "capability:pred_int": True,
        "capability:pred_int:insample": False,
        "capability:insample": False,
        "enforce_index_type": None,
    }

    _config: ClassVar[dict[str, Any]] = {"remember_data": True}

    def __init__(self, season: int = 7, is_nonnegative: bool = False) -> None:
        self.season = season
        self.is_nonnegative = is_nonnegative
        super().__init__()

    def _fit(self, y: Any, X: Any, fh: Any) -> LevelCalendarForecaster:
        return self

    def _update(self, y: Any, X: Any = None, update_params: bool = True) -> LevelCalendarForecaster:
        return self

    def _forecast(self, panel: Panel) -> Forecast:
        return forecast_by_group(panel, fit_levels(panel), {}, Scoring(None, 1))[0]

    def _predict(self, fh: Any, X: Any) -> Any:
        steps = fh.to_relative(self.cutoff).to_numpy().astype(np.int64)
        index = fh.to_absolute_index(self.cutoff)
        return self._framed(lambda forecast: forecast.mean[:, steps - 1, None], int(steps.max()), index, self._columns())

    def _predict_quantiles(self, fh: Any, X: Any, alpha: Any) -> Any:
        steps = fh.to_relative(self.cutoff).to_numpy().astype(np.int64)
        index = fh.to_absolute_index(self.cutoff)
        name = self._get_varnames()[0]
        columns = pd.MultiIndex.from_product([[name], alpha])

        def chosen(forecast: Forecast) -> Floats:
            return np.stack([_at_level(forecast.quantiles[:, steps - 1], level) for level in alpha], axis=2)

        return self._framed(chosen, int(steps.max()), index, columns)

    def _columns(self) -> Any:
        return self._y.columns

    def _framed(self, choose: Any, longest: int, index: Any, columns: Any) -> Any:
        """Forecast the panel and give `choose(forecast)` (n, steps, columns) the index pandas expects."""
        y = self._y
        if y.index.nlevels == 1:
            values, lift = _lifted(y.to_numpy(dtype=float).T, self.is_nonnegative)
            forecast = self._forecast(_panel(values, longest, self.season))
            return pd.DataFrame(choose(forecast)[0] - lift[0], index=index, columns=columns)
        names = y.index.droplevel(-1).unique()
        series = [y.xs(name, level=list(range(y.index.nlevels - 1)) if isinstance(name, tuple) else 0).iloc[:, 0].to_numpy(float) for name in names]
        width = max(len(each) for each in series)
        padded = np.stack([np.concatenate([np.full(width - len(each), np.nan), each]) for each in series])
        values, lift = _lifted(padded, self.is_nonnegative)
        forecast = self._forecast(_panel(values, longest, self.season))
        found = choose(forecast) - lift[:, :, None]
        frames = [pd.DataFrame(found[row], index=index, columns=columns) for row in range(len(names))]
        return pd.concat(frames, keys=list(names), names=y.index.names)

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Settings sktime's own checks try."""
        return [{}, {"season": 4, "is_nonnegative": True}]


class PanelForecaster(LevelCalendarForecaster):
    """LightGBM corrections learnt over all series at once; level x calendar where the panel is too short to learn from.

    Parameters
    ----------
    season, is_nonnegative : as in LevelCalendarForecaster.
    seed : of the draw of training rows and of the trees.
    threads : of LightGBM.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from marketing_assets.forecasting.sktime_forecasters import PanelForecaster
    >>> forecaster = PanelForecaster(season=12).fit(load_airline(), fh=[1, 2, 3])
    >>> len(forecaster.predict())
    3
    """

    def __init__(self, season: int = 7, is_nonnegative: bool = False, seed: int = 0, threads: int = 1) -> None:
        self.seed = seed
        self.threads = threads
        super().__init__(season=season, is_nonnegative=is_nonnegative)

    def _forecast(self, panel: Panel) -> Forecast:
        model: PanelModel | None = None
        past = panel if panel.horizon == LONGEST_HORIZON else _panel(panel.units, min(LONGEST_HORIZON, max(1, panel.known // 4)), self.season)
        if columns := origin_columns(past):
            model = fit_panel_model(Origins(past), columns, np.ones(past.count, dtype=np.bool_), self.seed, self.threads)
        winners = {} if model is None else dict.fromkeys(GROUPS, PANEL)
        return forecast_by_group(panel, fit_levels(panel), winners, Scoring(model, self.threads))[0]


class ClassicForecaster(LevelCalendarForecaster):
    """A textbook candidate of the contest, over all series at once.

    Parameters
    ----------
    candidate : 'seasonal_naive', 'croston_sba' or 'ar', as in store.yaml.
    season, is_nonnegative : as in LevelCalendarForecaster.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from marketing_assets.forecasting.sktime_forecasters import ClassicForecaster
    >>> forecaster = ClassicForecaster("ar", season=12).fit(load_airline(), fh=[1, 2, 3])
    >>> len(forecaster.predict())
    3
    """

    def __init__(self, candidate: str = BASELINE, season: int = 7, is_nonnegative: bool = False) -> None:
        self.candidate = candidate
        super().__init__(season=season, is_nonnegative=is_nonnegative)

    def _forecast(self, panel: Panel) -> Forecast:
        return forecast_with(self.candidate, panel, fit_levels(panel), Scoring(None, 1))

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Settings sktime's own checks try."""
        return [{"candidate": name, "season": 4} for name in (BASELINE, "croston_sba", "ar")]


def _panel(values: Floats, horizon: int, season: int) -> Panel:
    whole = values.shape[1] + horizon
    nothing = pl.lit(None, pl.String)
    names = [str(row) for row in range(len(values))]
    series = pl.DataFrame({"series_id": names, "item_id": names}).with_columns(
        location_id=nothing, category=nothing, unit_price=pl.lit(None, pl.Float64)
    )
    return Panel(
        series, date(2000, 1, 3), np.nan_to_num(values), np.isnan(values), np.zeros(whole, dtype=np.bool_), np.zeros(whole, dtype=np.bool_),
        horizon, season=season,
    )  # fmt: skip


def _lifted(values: Floats, is_nonnegative: bool) -> tuple[Floats, Floats]:
    """Values lifted over zero where a series goes below it, and by how much, (n, 1)."""
    lift = np.where(np.nanmin(values, axis=1, keepdims=True) < 0, -np.nanmin(values, axis=1, keepdims=True), 0.0)
    if is_nonnegative:
        lift = np.zeros_like(lift)
        values = np.where(values < 0, 0.0, values)
    return values + lift, lift


def _at_level(quantiles: Floats, level: float) -> Floats:
    """(n, steps) quantile at any level, linear between those forecast."""
    upper = int(np.clip(np.searchsorted(LEVELS, level), 1, len(LEVELS) - 1))
    share = float(np.clip((level - LEVELS[upper - 1]) / (LEVELS[upper] - LEVELS[upper - 1]), 0.0, 1.0))
    between: Floats = quantiles[:, :, upper - 1] * (1 - share) + quantiles[:, :, upper] * share
    return between
