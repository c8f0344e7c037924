"""Every fit of the demand models over a window of days: the contest, the panel model, and whether a newcomer takes over.

What belongs here: on which days models fit, what they are compared on, what is recorded. What does not: models (learned.py),
issues (build.py).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from marketing_assets.config import Store
from marketing_assets.forecasting.competition import PANEL, Contest, Names, Scoring, compete, forecast_by_group, losses
from marketing_assets.forecasting.features import feature_names
from marketing_assets.forecasting.history import DemandHistory
from marketing_assets.forecasting.learned import MEAN_TREES, MOST_ROWS, QUANTILE_TREES, PanelModel, fit_panel_model
from marketing_assets.forecasting.level_calendar import Levels, fit_levels
from marketing_assets.forecasting.origins import Origins, origin_columns
from marketing_assets.forecasting.panel import Flags, Floats, Forecast, Panel
from marketing_assets.model_store import Comparison, ModelHistory, compare, held_out, new_fit, rollbacks
from marketing_assets.warehouse import Reader, Trigger

DEMAND = "forecasting.demand"
TABLES = ("demand_forecasts",)
CONTESTS = 3
"""Candidates meet on at most so many of the newest origins."""
BEHIND = 0.03
"""Value added that the contest's panel model is given where origins lie more than a horizon apart, so that it is so far behind."""
FEWEST_ORIGINS = 2
"""Origins the contest's panel model needs before it; the contest takes fewer where that leaves too few."""


@dataclass(frozen=True)
class DemandModel:
    """winners: group of series -> forecaster; panel: the model behind 'panel', where one could be fitted."""

    winners: Mapping[str, str]
    panel: PanelModel | None

    def as_text(self) -> str:
        panel = None if self.panel is None else self.panel.as_text()
        return json.dumps({"winners": dict(self.winners), "panel": panel}, sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> DemandModel:
        found = json.loads(text)
        return cls(found["winners"], None if found["panel"] is None else PanelModel.from_text(found["panel"]))

    def forecast(self, panel: Panel, threads: int, levels: Levels | None = None) -> tuple[Forecast, Names]:
        """The forecast of every series, and whose it is. levels: those of the panel where they were fitted before."""
        levels = fit_levels(panel) if levels is None else levels
        return forecast_by_group(panel, levels, self.winners, Scoring(self.panel, threads))


def fit_window(reader: Reader, triggers: Mapping[date, Trigger], days: Sequence[date], store: Store, history: DemandHistory) -> ModelHistory:
    """Every fit and rollback of the window, in order of days."""
    models = ModelHistory(reader, days[0])
    back = rollbacks(reader, days, TABLES)
    for day in days:
        if day in triggers:
            _fit(models, history.panel(day), day, triggers[day], store)
        for version in back.get(day, []):
            models.roll_back(version, day, (DEMAND,))
    return models


def fit_demand(panel: Panel, candidates: Sequence[str], seed: int, threads: int, is_learnt: Flags) -> tuple[DemandModel, Contest]:
    """The contest on the newest complete origins, with a panel model that has seen nothing after them; then the panel model on everything."""
    columns = origin_columns(panel)
    if not columns:
        return DemandModel({}, None), Contest({}, {})
    origins = Origins(panel)
    early, contested = None, columns[:1]
    if PANEL in candidates:
        for count in range(min(CONTESTS, len(columns)), 0, -1):
            # outcomes that the earliest of the contest's origins may know, the newest of them kept to choose what is used
            known = [column for column in columns if column <= columns[count - 1] - panel.horizon]
            if len(known) < FEWEST_ORIGINS:
                continue
            cut = max(1, len(known) // 4)
            contested = columns[:count]
            early = fit_panel_model(origins, known[cut:], is_learnt, seed, threads, known[:cut], contested)
            break
    if early is None:
        candidates = [name for name in candidates if name != PANEL]
    # the contest's panel model knows less of the newest days than the one that will be used, where history is long much less
    is_behind = len(columns) > 1 and columns[0] - columns[1] > panel.horizon
    contest = compete(origins, contested, candidates, Scoring(early, threads), BEHIND if is_behind else 0.0)
    final = fit_panel_model(origins, columns, is_learnt, seed, threads, like=early) if PANEL in contest.winners.values() else None
    return DemandModel(contest.winners, final), contest


def _fit(models: ModelHistory, panel: Panel, day: date, trigger: Trigger, store: Store) -> None:
    """Fit on `day`, and promote where the newcomer does better on series no fit has learnt from."""
    started = time.process_time()
    is_held = held_out(panel.series["item_id"]).to_numpy()
    model, contest = fit_demand(panel, store.forecasting.candidates, store.seed, store.threads, ~is_held)
    metrics: dict[str, object] = {"series": panel.count, "value_added": contest.added}
    stored = models.in_force(DEMAND, day)
    is_promoted = stored is None
    if stored is not None:
        verdict = _verdict(model, DemandModel.from_text(stored.model), panel, is_held, store)
        metrics |= verdict.as_metrics()
        # a model without any contest behind it has nothing to defend, but for what held-out series say
        is_promoted = verdict.is_better or (not verdict.n and not DemandModel.from_text(stored.model).winners and bool(model.winners))
    models.add(
        new_fit(
            DEMAND, day, trigger, is_promoted=is_promoted, model=model.as_text(), model_format="json",
            parameters={
                "winners": dict(model.winners), "rows": MOST_ROWS, "mean": MEAN_TREES, "quantiles": QUANTILE_TREES,
                **({} if model.panel is None else {"rounds": model.panel.rounds, "share": model.panel.share, "mix": model.panel.mix}),
            },
            features=feature_names(panel), metrics=metrics, seconds=time.process_time() - started,
        )
    )  # fmt: skip


def _verdict(challenger: DemandModel, champion: DemandModel, panel: Panel, is_held: Flags, store: Store) -> Comparison:
    """Scaled errors of both over the newest complete origin, on held-out series."""
    columns = origin_columns(panel)
    if not columns:
        return compare([], [], seed=store.seed)
    origin = Origins(panel).at(columns[0])
    held = is_held[origin.rows]

    def loss(model: DemandModel) -> Floats:
        forecast, _ = model.forecast(origin.past, store.threads, origin.levels)
        found = losses(origin.past, origin.truth, forecast, origin.levels)
        total: Floats = found.squared[held] + 2 * found.pinball[held]
        return total

    return compare(loss(challenger), loss(champion), seed=store.seed)
