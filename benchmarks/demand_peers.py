"""Public forecasters on the panels of bench_forecasting.py: statsforecast's classics and a plain mlforecast LightGBM.

What belongs here: calling peers as their own pages show. What does not: scoring (bench_forecasting.py), anything of ours.
Each returns the mean (n, horizon) and, where it gives intervals, quantiles (n, horizon, 9) at the M5 levels.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]
INTERVALS = (50.0, 67.0, 95.0, 99.0)


@dataclass(frozen=True)
class PeerForecast:
    """seconds: CPU seconds, imports and compilation left out."""

    mean: Floats
    quantiles: Floats | None
    seconds: float


def long_frame(units: Floats, dates: Sequence[Any]) -> pl.DataFrame:
    """unique_id, ds, y; each series from its first sale on."""
    count, known = units.shape
    frame = pl.DataFrame(
        {
            "unique_id": np.repeat([f"s{row:06d}" for row in range(count)], known),
            "ds": pl.Series(list(dates) * count),
            "y": units.ravel(),
        }
    )
    begun = np.arange(known) >= np.where((units > 0).any(axis=1), (units > 0).argmax(axis=1), 0)[:, None]
    return frame.filter(pl.Series(begun.ravel()))


def _quantiles(rows: pl.DataFrame, name: str, shape: tuple[int, int]) -> Floats | None:
    if f"{name}-lo-50.0" not in rows.columns:
        return None
    middle = f"{name}-median" if f"{name}-median" in rows.columns else name
    columns = [f"{name}-lo-{level}" for level in INTERVALS[::-1]] + [middle] + [f"{name}-hi-{level}" for level in INTERVALS]
    values: Floats = np.maximum(rows.select(columns).to_numpy(), 0.0).reshape(*shape, 9)
    return np.sort(values, axis=2)


def statsforecast_peers(
    units: Floats, dates: Sequence[Any], horizon: int, names: Sequence[str], season: int = 7, freq: str = "1d"
) -> dict[str, PeerForecast]:
    """names: classes of statsforecast.models."""
    from statsforecast import StatsForecast, models

    made: dict[str, Any] = {
        "SeasonalNaive": lambda: models.SeasonalNaive(season), "AutoETS": lambda: models.AutoETS(season_length=season),
        "DynamicOptimizedTheta": lambda: models.DynamicOptimizedTheta(season_length=season), "CrostonSBA": models.CrostonSBA,
        "TSB": lambda: models.TSB(0.2, 0.2), "ADIDA": models.ADIDA, "IMAPA": models.IMAPA,
    }  # fmt: skip
    frame = long_frame(units, dates)
    result = {}
    for name in names:
        started = time.process_time()
        has_intervals = name in ("SeasonalNaive", "AutoETS", "DynamicOptimizedTheta")
        forecaster = StatsForecast(models=[made[name]()], freq=freq, n_jobs=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = forecaster.forecast(df=frame, h=horizon, **({"level": list(INTERVALS)} if has_intervals else {}))
        rows = rows.sort("unique_id", "ds")
        mean = np.maximum(np.nan_to_num(rows[name].to_numpy().reshape(len(units), horizon)), 0.0)
        result[name] = PeerForecast(mean, _quantiles(rows, name, mean.shape), time.process_time() - started)
    return result


def mlforecast_peer(
    units: Floats, dates: Sequence[Any], horizon: int, drivers: dict[str, Floats] | None = None, threads: int = 1, freq: str = "1d"
) -> PeerForecast:
    """A LightGBM on lags, rolling means and calendar, as mlforecast's own guide has it. drivers: (n, known + horizon) known in advance."""
    import lightgbm
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import RollingMean

    started = time.process_time()
    known = units.shape[1]
    frame = long_frame(units, dates[:known])
    future = None
    if drivers:
        whole = pl.DataFrame(
            {
                "unique_id": np.repeat([f"s{row:06d}" for row in range(len(units))], known + horizon),
                "ds": pl.Series(list(dates[: known + horizon]) * len(units)),
                **{name: values.ravel() for name, values in drivers.items()},
            }
        )
        frame = frame.join(whole, on=["unique_id", "ds"])
        future = whole.filter(pl.col("ds") > dates[known - 1])
    weekly = freq != "1d"
    short, long = (4, 13) if weekly else (7, 28)
    forecaster = MLForecast(
        models={"lgb": lightgbm.LGBMRegressor(n_estimators=200, learning_rate=0.05, verbosity=-1, n_jobs=threads, random_state=0)},
        freq=freq, lags=[1, 2, 4, 8] if weekly else [1, 7, 14, 28], lag_transforms={1: [RollingMean(short), RollingMean(long)]},
        date_features=["month"] if weekly else ["weekday", "month"],
    )  # fmt: skip
    forecaster.fit(frame, static_features=[])
    rows = forecaster.predict(horizon, X_df=future).sort("unique_id", "ds")
    mean = np.maximum(rows["lgb"].to_numpy().reshape(-1, horizon), 0.0)
    return PeerForecast(mean, None, time.process_time() - started)
