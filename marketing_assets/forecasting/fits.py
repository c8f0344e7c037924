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

import numpy as np

from marketing_assets.config import Store
from marketing_assets.forecasting.competition import (
    PANEL,
    Contest,
    Names,
    Scoring,
    compete,
    forecast_by_group,
    losses,
    told,
)  # fmt: skip
from marketing_assets.forecasting.features import FEATURES
from marketing_assets.forecasting.history import DemandHistory
from marketing_assets.forecasting.learned import (
    FEWEST_KNOWN,
    MEAN_TREES,
    MOST_ROWS,
    QUANTILE_TREES,
    PanelModel,
    fit_panel_model,
    origins,
    training_rows,
)  # fmt: skip
from marketing_assets.forecasting.level_calendar import fit_levels
from marketing_assets.forecasting.panel import Flags, Floats, Forecast, Panel
from marketing_assets.model_store import Comparison, ModelHistory, compare, held_out, new_fit, rollbacks
from marketing_assets.warehouse import Reader, Trigger

DEMAND = "forecasting.demand"
TABLES = ("demand_forecasts",)


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

    def forecast(self, panel: Panel, threads: int) -> tuple[Forecast, Names]:
        return forecast_by_group(panel, self.winners, Scoring(self.panel, threads))


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
    """The contest on the newest complete origin, with a panel model that has seen nothing after it; then the panel model on everything."""
    column = panel.known - panel.horizon
    if column < FEWEST_KNOWN:
        return DemandModel({}, None), Contest({}, {})
    early = None
    if PANEL in candidates:
        # outcomes that the contest's own origin may know, the newest of them kept to choose the number of trees
        known = [each for each in origins(panel.until(column, panel.horizon))]
        if len(known) > 1:
            cut = max(1, len(known) // 4)
            rows, kept = training_rows(panel, is_learnt, seed, known[cut:]), training_rows(panel, is_learnt, seed, known[:cut])
            if rows is not None:
                early = fit_panel_model(rows, seed, threads, kept)
    if early is None:
        candidates = [name for name in candidates if name != PANEL]
    contest = compete(panel, candidates, Scoring(early, threads))
    final = None
    if PANEL in contest.winners.values():
        rows = training_rows(panel, is_learnt, seed)
        assert rows is not None, "the contest had fewer origins to learn from"
        final = fit_panel_model(rows, seed, threads, like=early)
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
        # a model without any contest behind it has nothing to defend
        is_promoted = verdict.is_better or (not DemandModel.from_text(stored.model).winners and bool(model.winners))
    models.add(
        new_fit(
            DEMAND, day, trigger, is_promoted=is_promoted, model=model.as_text(), model_format="json",
            parameters={
                "winners": dict(model.winners), "rows": MOST_ROWS, "mean": MEAN_TREES, "quantiles": QUANTILE_TREES,
                **({} if model.panel is None else {"rounds": model.panel.rounds, "share": model.panel.share}),
            },
            features=FEATURES, metrics=metrics, seconds=time.process_time() - started,
        )
    )  # fmt: skip


def _verdict(challenger: DemandModel, champion: DemandModel, panel: Panel, is_held: Flags, store: Store) -> Comparison:
    """Scaled errors of both over the newest complete origin, on held-out series."""
    column = panel.known - panel.horizon
    if column < FEWEST_KNOWN:
        return compare([], [], seed=store.seed)
    past = panel.until(column, panel.horizon)
    alive = np.asarray((past.units > 0).any(axis=1))
    past, truth = past.rows(alive), told(panel, column)[alive]
    held = is_held[alive]
    levels = fit_levels(past)

    def loss(model: DemandModel) -> Floats:
        forecast, _ = model.forecast(past, store.threads)
        found = losses(past, truth, forecast, levels)
        total: Floats = found.squared[held] + 2 * found.pinball[held]
        return total

    return compare(loss(challenger), loss(champion), seed=store.seed)
