"""Which forecaster is used for which series: candidates meet on past origins, the seasonal naive is what they must beat.

What belongs here: names of candidates, groups of series, the contest. What does not: the forecasters themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from marketing_assets.forecasting.classic import forecast_ar, forecast_croston_sba, forecast_seasonal_naive
from marketing_assets.forecasting.features import scales
from marketing_assets.forecasting.learned import PanelModel, forecast_panel
from marketing_assets.forecasting.level_calendar import Levels, level_forecast, reconciled
from marketing_assets.forecasting.origins import Origins
from marketing_assets.forecasting.panel import LEVELS, Floats, Forecast, Panel
from marketing_assets.forecasting.sktime_bridge import ARIMA, UnknownForecaster, forecast_by_sktime
from marketing_assets.schemas import M5_QUANTILES

BASELINE = "seasonal_naive"
DEFAULT = "level_calendar"
PANEL = "panel"
GROUPS = ("steady", "intermittent", "sporadic", "new")
STEADY, SPORADIC, NEW_DAYS = 0.5, 0.1, 56
RECENT_DAYS = 112
WORST = 2.0
"""No error counts as more times that of the seasonal naive."""

Names = npt.NDArray[np.str_]
_IS_M5 = np.isin(LEVELS, M5_QUANTILES)


@dataclass(frozen=True)
class Scoring:
    """What candidates need beside the panel. model: of 'panel', None where it was never fitted."""

    model: PanelModel | None
    threads: int


def forecast_with(name: str, panel: Panel, levels: Levels, scoring: Scoring) -> Forecast:
    """The forecast of one candidate, series by series: the shop's total has no say yet. Raises UnknownForecaster for a name that is none."""
    simple: dict[str, Callable[[], Forecast]] = {
        DEFAULT: lambda: level_forecast(panel, levels), BASELINE: lambda: forecast_seasonal_naive(panel),
        "croston_sba": lambda: forecast_croston_sba(panel, levels), "ar": lambda: forecast_ar(panel, levels),
        "arima": lambda: forecast_by_sktime(panel, ARIMA, levels),
    }  # fmt: skip
    if name in simple:
        return simple[name]()
    if name == PANEL:
        if scoring.model is None:
            raise ValueError("the panel forecaster was asked for before it was fitted")
        return forecast_panel(panel, scoring.model, scoring.threads, levels)
    if "." in name:
        return forecast_by_sktime(panel, name, levels)
    known = ", ".join([PANEL, *simple])
    raise UnknownForecaster(f"forecasting.candidates: {name!r} is unknown; give one of {known}, or the import path of a sktime forecaster")


def groups_of(panel: Panel, levels: Levels) -> Names:
    """(n,) group of each series: by the share of recent open days with a sale, or 'new'."""
    newest = slice(max(0, panel.known - RECENT_DAYS), panel.known)
    seen = levels.is_observed[:, newest].sum(axis=1)
    share = ((panel.units > 0) & levels.is_observed)[:, newest].sum(axis=1) / np.maximum(seen, 1)
    group = np.where(share >= STEADY, "steady", np.where(share >= SPORADIC, "intermittent", "sporadic"))
    return np.where(levels.is_observed.sum(axis=1) * panel.step_days < NEW_DAYS * 0.5, "new", group)


@dataclass(frozen=True)
class Losses:
    """Per series of one origin: root mean squared and mean pinball error, both over the series' scale, and its weight."""

    squared: Floats
    pinball: Floats
    weight: Floats


def losses(panel: Panel, truth: Floats, forecast: Forecast, levels: Levels) -> Losses:
    """truth: (n, horizon) units, nan on days that say nothing. Levels of the pinball loss are the nine of the M5 competition."""
    scale = scales(panel)
    told = np.isfinite(truth)
    days = np.maximum(told.sum(axis=1), 1)
    error = np.where(told, truth - forecast.mean, 0.0)
    difference = np.where(told[:, :, None], truth[:, :, None] - forecast.quantiles[:, :, _IS_M5], 0.0)
    level = LEVELS[_IS_M5]
    pinball = np.maximum(level * difference, (level - 1) * difference).mean(axis=2).sum(axis=1) / days
    price = panel.series["unit_price"].cast(float).fill_null(1.0).to_numpy()
    return Losses(np.sqrt((error**2).sum(axis=1) / days) / scale, pinball / scale, levels.level * np.maximum(price, 1e-3) + 1e-6)


@dataclass(frozen=True)
class Contest:
    """winners: group -> candidate. added: group -> candidate -> forecast value added over the seasonal naive, as a share."""

    winners: Mapping[str, str]
    added: Mapping[str, Mapping[str, float]]


def compete(origins: Origins, columns: Sequence[int], candidates: Sequence[str], scoring: Scoring, allowance: float = 0.0) -> Contest:
    """Candidates and DEFAULT on past origins whose horizon is complete; a group without any series there keeps DEFAULT.

    scoring.model must not have seen anything after the earliest of them. The winner must beat the seasonal naive, else that is used.
    allowance: value added that PANEL is given for it.
    """
    names = list(dict.fromkeys([*candidates, DEFAULT, BASELINE]))  # where no candidate could be fitted yet, the baseline would beat itself
    ratios: dict[str, dict[str, list[float]]] = {group: {name: [] for name in names} for group in GROUPS}
    for column in columns:
        origin = origins.at(column)
        if not origin.past.count:
            continue
        found = {
            name: losses(origin.past, origin.truth, forecast_with(name, origin.past, origin.levels, scoring), origin.levels) for name in names
        }
        group = groups_of(origin.past, origin.levels)
        for each in np.unique(group).tolist():
            for name in names:
                ratios[each][name].append(_relative(found[name], found[BASELINE], group == each))
    winners: dict[str, str] = {}
    added: dict[str, dict[str, float]] = {}
    for each, by_name in ratios.items():
        if not by_name[BASELINE]:
            continue
        # a mean of ratios: an odd week, whose errors are several times those of others, has no more say than they
        added[each] = {name: round(1 - float(np.mean(found)), 6) for name, found in by_name.items()}
        given = allowance if added[each].get(PANEL, 0.0) > 0 else 0.0
        best = max(added[each], key=lambda name: (added[each][name] + given * (name == PANEL), name == DEFAULT, name))
        winners[each] = best if added[each][best] > 0 else BASELINE
    return Contest(winners, added)


def _relative(loss: Losses, base: Losses, ours: npt.NDArray[np.bool_]) -> float:
    """Half of the weighted squared error and half of the pinball error, each over that of the seasonal naive."""
    weight = base.weight[ours]
    parts = [
        (float((one[ours] * weight).sum()), float((other[ours] * weight).sum()))
        for one, other in ((loss.squared, base.squared), (loss.pinball, base.pinball))
    ]
    return sum(min(one / other, WORST) if other > 0 else (0.0 if one == 0 else WORST) for one, other in parts) / 2


def forecast_by_group(panel: Panel, levels: Levels, winners: Mapping[str, str], scoring: Scoring) -> tuple[Forecast, Names]:
    """Every series by the winner of its group (DEFAULT where there was no contest), moved to the shop's total; and whose forecast it is."""
    group = groups_of(panel, levels)
    used = np.array([winners.get(str(each), DEFAULT) for each in group], dtype=np.str_) if panel.count else np.zeros(0, dtype=np.str_)
    mean = np.zeros((panel.count, panel.horizon))
    quantiles = np.zeros((panel.count, panel.horizon, len(LEVELS)))
    for name in sorted(set(used.tolist())):
        ours = used == name
        forecast = forecast_with(name, panel, levels, scoring)
        mean[ours], quantiles[ours] = forecast.mean[ours], forecast.quantiles[ours]
    is_course_learnt = scoring.model is not None and scoring.model.mean is not None and PANEL in used
    return reconciled(panel, levels, Forecast(mean, quantiles), is_course_learnt), used
