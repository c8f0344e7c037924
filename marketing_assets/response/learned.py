"""Trained click and conversion models: candidates compete on later days, the winner is recalibrated on them.

What belongs here: fitting, choosing, storing and applying models. What does not: sums over the log (build) or the shrunken
effects (shrinkage), which are one of the candidates and win where nothing beats them.

A cadence day D cuts its log in two. Candidates learn from what landed up to D - 7 and are scored on the 7 days after; the
best is recalibrated there (beta calibration), takes the place of the model in force where it loses less on the same days,
and learns again from everything. Position is a factor of every candidate, set to the placement's usual mix when scoring.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from marketing_assets.config import Store
from marketing_assets.model_store import ModelHistory, compare, fit_days, new_fit, rollbacks
from marketing_assets.response.calibration import BetaCalibration, fit_beta, normalised_entropy
from marketing_assets.response.changes import Outcome
from marketing_assets.response.shrinkage import MAXIMUM_RATE, Effects
from marketing_assets.response.statistics import LATER_DAYS, Floats, Integers
from marketing_assets.warehouse import FittedModel, Reader, Trigger

if TYPE_CHECKING:
    from marketing_assets.response.build import Day, Pool

LEAST_EVENTS = 30
"""Fewer events than this on either side of the cut: no competition, the shrunken rates serve uncorrected."""
WINDOWS = (14, 28, 56)
PENALTIES = (1.0, 10.0)
TREES = 40
LEAST_FOR_TREES = 300
"""Fewer earlier events than this teach trees nothing."""
SETTLED_DAYS = 28
"""After a change the shrunken rates of the whole history serve alone and uncorrected for so long: they learn a level day by day,
trained models from fit to fit."""
SURE = 0.99
"""Share of bootstrap replicates in which a candidate must beat the shrunken rates of the whole history: six try, and one in
twenty of them would by chance at 0.95."""
SURE_GAIN = 3.9
"""Log-likelihood a recalibration must gain on its own days: half the 95 % point of chi-square with its three parameters. Less is
what chance alone gives, and would move every rate by it."""
MODELS: dict[str, Outcome] = {"response_clicks": "clicks", "response_conversions": "conversions"}

Candidate = Callable[["Day", Mapping[str, Integers]], Floats]


@dataclass(frozen=True)
class Spec:
    """What a stored model says: kind and settings, learned numbers, and the calibration laid over them."""

    kind: str
    window_days: int
    penalty: float
    calibration: BetaCalibration
    content: dict[str, Any]

    def as_text(self) -> str:
        cal = self.calibration
        return json.dumps(
            {
                "kind": self.kind,
                "window_days": self.window_days,
                "penalty": self.penalty,
                "calibration": [cal.a, cal.b, cal.c],
                "content": self.content,
            },
            sort_keys=True,
        )

    @staticmethod
    def from_text(text: str) -> Spec:
        raw = json.loads(text)
        return Spec(raw["kind"], raw["window_days"], raw["penalty"], BetaCalibration(*raw["calibration"]), raw["content"])


class LearnedResponse:
    """The models of one window: `refit` on their days, `adjust` the rates of every day by the models in force."""

    def __init__(self, reader: Reader, days: Sequence[date], store: Store, pooled: Pool) -> None:
        self.store, self.pooled = store, pooled
        self.history = ModelHistory(reader, days[0])
        self.triggers: dict[date, Trigger] = fit_days(reader, days, store, "response_rates", store.response.cadence_days)
        self.rollbacks = rollbacks(reader, days, "response_rates")

    @property
    def models(self) -> list[FittedModel]:
        return self.history.models

    def refit(self, day: date, statistics: Day) -> None:
        """Fit where `day` calls for it, and put back in force what a person asked for."""
        trigger = self.triggers.get(day)
        if trigger is not None:
            earlier = self.pooled.on(day - timedelta(days=LATER_DAYS), known=day)
            for name, outcome in MODELS.items():
                self.history.add(self._fit(name, outcome, day, trigger, statistics, earlier))
        for version in self.rollbacks.get(day, []):
            self.history.roll_back(version, day, list(MODELS))

    def _fit(self, name: str, outcome: Outcome, day: date, trigger: Trigger, whole: Day, earlier: Day) -> FittedModel:
        started = time.perf_counter()
        cut = day - timedelta(days=LATER_DAYS)
        later = self.pooled.on(day, cut + timedelta(days=1), apart=(outcome, cut))
        champion = self.history.in_force(name, day)
        events, exposure = _outcome(later, outcome)
        earlier_events = float(_outcome(earlier, outcome)[0].sum())
        metrics: dict[str, Any] = {"later_events": float(events.sum()), "earlier_events": earlier_events}
        spec = Spec("shrunk", self.store.response.history_days, 0.0, BetaCalibration(), {})
        promoted = champion is None
        if min(float(events.sum()), earlier_events) >= LEAST_EVENTS:
            spec, raw, scores = self._compete(outcome, day, earlier, later, events, exposure)
            # days from before a change say nothing of how rates as low (or high) as the new ones are to be corrected
            calibration = BetaCalibration() if _is_unsettled(later, outcome, day) else _recalibrated(raw, events, exposure)
            spec = Spec(spec.kind, spec.window_days, spec.penalty, calibration, spec.content)
            metrics.update(scores)
            metrics["normalised_entropy"] = _finite(normalised_entropy(raw, events, exposure))
            if champion is not None:
                # the newcomer as learned before the cut and uncorrected, the champion as it stands: both blind to these days
                before = Spec.from_text(champion.model)
                theirs = before.calibration.apply(self._predict(before, outcome, day, later))
                result = compare(
                    _losses(raw, events, exposure), _losses(theirs, events, exposure), seed=self.store.seed, confidence=0.5
                )
                metrics.update(result.as_metrics())
                promoted = result.is_better or trigger == "request"
            spec = Spec(spec.kind, spec.window_days, spec.penalty, spec.calibration, self._learn(spec, outcome, whole))
        elif champion is not None:
            promoted = False
        parameters = {"kind": spec.kind, "window_days": spec.window_days, "penalty": spec.penalty, "later_days": LATER_DAYS}
        return new_fit(
            name,
            day,
            trigger,
            is_promoted=promoted,
            model=spec.as_text(),
            model_format="json",
            parameters=parameters,
            features=list(_factors(outcome)),
            metrics=metrics,
            seconds=time.perf_counter() - started,
        )

    def _compete(
        self, outcome: Outcome, day: date, earlier: Day, later: Day, events: Floats, exposure: Floats
    ) -> tuple[Spec, Floats, dict[str, float]]:
        """The candidate that loses least on the later days, its predictions there, and every candidate's mean loss."""
        scores: dict[str, float] = {}
        history = self.store.response.history_days
        spec = Spec("shrunk", history, 0.0, BetaCalibration(), {})
        raw = self._predict(spec, outcome, day, later)
        best = _losses(raw, events, exposure)
        scores[f"loss_shrunk_{history}"] = float(best.mean())
        if _is_unsettled(later, outcome, day):
            return spec, raw, scores
        trained = [Spec("shrunk", window, 0.0, BetaCalibration(), {}) for window in WINDOWS if window < history]
        trained += [Spec("logistic", history, penalty, BetaCalibration(), {}) for penalty in PENALTIES]
        if outcome == "clicks" and float(earlier.clicks.sum()) >= LEAST_FOR_TREES:
            trained.append(Spec("lightgbm", history, 0.0, BetaCalibration(), {}))
        for candidate in trained:
            learned = Spec(
                candidate.kind,
                candidate.window_days,
                candidate.penalty,
                candidate.calibration,
                self._learn(candidate, outcome, earlier),
            )
            predicted = self._predict(learned, outcome, day, later)
            losses = _losses(predicted, events, exposure)
            setting = candidate.penalty or (candidate.window_days if candidate.kind == "shrunk" else 0)
            scores[f"loss_{candidate.kind}{f'_{setting:g}' if setting else ''}"] = float(losses.mean())
            if compare(losses, best, seed=self.store.seed, confidence=SURE).is_better:
                spec, raw, best = learned, predicted, losses
        return spec, raw, scores

    def _learn(self, spec: Spec, outcome: Outcome, statistics: Day) -> dict[str, Any]:
        """The learned numbers of a trained model; the shrunken rates keep none, they are sums of the log."""
        if spec.kind == "logistic":
            return _fit_logistic(statistics, outcome, spec.penalty, self.store)
        if spec.kind == "lightgbm":
            return _fit_trees(statistics, outcome, self.store)
        return {}

    def _predict(self, spec: Spec, outcome: Outcome, day: date, target: Day) -> Floats:
        """Uncalibrated rates of the later cells of a fit of `day`, by what was known before them."""
        if spec.kind == "shrunk":
            cut = day - timedelta(days=LATER_DAYS)
            known = self.pooled.on(cut, cut - timedelta(days=spec.window_days - 1), known=day)
            effects: Effects = _shrunk(known, outcome, self.store)
            return effects.rate(target.learned_as(outcome, _factors(outcome)), along=target.dearness)
        if spec.kind == "logistic":
            return _score_logistic(spec.content, _learned_names(target, outcome, _factors(outcome)), None)
        return _score_trees(spec.content, _learned_names(target, outcome, TREE_FACTORS), None)

    def adjust(
        self,
        day: date,
        codes: dict[str, Integers],
        dear: Floats,
        statistics: Day,
        ctr: Floats,
        cvr: Floats,
        ctr_sd: Floats,
        cvr_sd: Floats,
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """Rates of plan cells by the models in force; the plain ones where there is none."""
        result = {"clicks": ctr, "conversions": cvr}
        for name, outcome in MODELS.items():
            model = self.history.in_force(name, day)
            if model is None:
                continue
            spec = Spec.from_text(model.model)
            result[outcome] = np.minimum(
                spec.calibration.apply(self._rates(spec, outcome, day, codes, dear, statistics, result[outcome])), MAXIMUM_RATE
            )
        return result["clicks"], result["conversions"], ctr_sd, cvr_sd

    def _rates(
        self,
        spec: Spec,
        outcome: Outcome,
        day: date,
        codes: dict[str, Integers],
        dear: Floats,
        statistics: Day,
        plain: Floats,
    ) -> Floats:
        from marketing_assets.response.build import CLICK_FACTORS, slot_effect

        factors = [name for name in _factors(outcome) if name != "position"]
        if spec.kind == "shrunk":
            if spec.window_days == self.store.response.history_days:
                return plain
            known = self.pooled.on(day, day - timedelta(days=spec.window_days - 1))
            effects = _shrunk(known, outcome, self.store)
            rate = effects.rate(codes, factors, dear)
            if outcome == "clicks":
                slot = slot_effect(effects, known)
                rate = rate * np.where(codes["placement_id"] >= 0, slot[np.maximum(codes["placement_id"], 0)], 1.0)
            return np.asarray(np.minimum(rate, MAXIMUM_RATE))
        mix = _position_mix(statistics)
        if spec.kind == "logistic":
            return _score_logistic(
                spec.content, _named(codes, statistics.levels, factors), mix if "position" in CLICK_FACTORS else None
            )
        return _score_trees(
            spec.content, _named(codes, statistics.levels, [name for name in TREE_FACTORS if name != "position"]), mix
        )


def _is_unsettled(statistics: Day, outcome: Outcome, day: date) -> bool:
    """Whether a segment's rate changed within SETTLED_DAYS."""
    return any(one.outcome == outcome and one.since > day - timedelta(days=SETTLED_DAYS) for one in statistics.changed)


TREE_FACTORS = ("placement_id", "hour", "position", "audience_id", "campaign_id", "creative_id")


def _factors(outcome: Outcome) -> tuple[str, ...]:
    from marketing_assets.response.build import CLICK_FACTORS, CONVERSION_FACTORS

    return CLICK_FACTORS if outcome == "clicks" else CONVERSION_FACTORS


def _outcome(statistics: Day, outcome: Outcome) -> tuple[Floats, Floats]:
    """Events and exposure per cell; exposure is at least the events."""
    if outcome == "clicks":
        return statistics.clicks, statistics.impressions
    return statistics.conversions, np.maximum(statistics.click_exposure, statistics.conversions)


def _losses(probability: Floats, events: Floats, exposure: Floats) -> Floats:
    p = np.clip(probability, 1e-9, 1 - 1e-9)
    losses: Floats = -(events * np.log(p) + (exposure - events) * np.log1p(-p))
    return losses


def _recalibrated(raw: Floats, events: Floats, exposure: Floats) -> BetaCalibration:
    """The recalibration these days ask for; the identity where they are no surer than chance."""
    found = fit_beta(raw, events, exposure)
    gain = float((_losses(raw, events, exposure) - _losses(found.apply(raw), events, exposure)).sum())
    return found if gain >= SURE_GAIN else BetaCalibration()


def _shrunk(statistics: Day, outcome: Outcome, store: Store) -> Effects:
    from marketing_assets.response.build import fit_clicks, fit_conversions

    return fit_clicks(statistics, store) if outcome == "clicks" else fit_conversions(statistics, store)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


@dataclass(frozen=True)
class Named:
    """A factor's level in each row by name, which outlasts a window's codes. at: its place in names, -1 where it was never seen;
    names: those that occur, in order."""

    at: Integers
    names: list[str]

    def looked_up(self, table: Mapping[str, float], missing: float) -> Floats:
        """What the table has for each row's name; `missing` where it has nothing, or there is no name."""
        return np.array([*(table.get(name, missing) for name in self.names), missing], dtype=np.float64)[self.at]


def _named(codes: Mapping[str, Integers], levels: Mapping[str, list[Any]], factors: Sequence[str]) -> dict[str, Named]:
    """Levels by name; pairs as 'left|right'."""
    from marketing_assets.response.build import PAIRS

    result: dict[str, Named] = {}
    for name in factors:
        if name in PAIRS:
            left, right = PAIRS[name]
            width = max(len(levels[right]), 1)
            of_row = np.where((codes[left] >= 0) & (codes[right] >= 0), codes[left] * width + codes[right], -1)
        else:
            of_row = codes[name]
        seen, at = np.unique(np.maximum(of_row, -1), return_inverse=True)
        known = seen[seen >= 0].tolist()
        if name in PAIRS:
            names = [f"{levels[left][joint // width]}|{levels[right][joint % width]}" for joint in known]
        else:
            names = [str(levels[name][number]) for number in known]
        place = np.empty(len(names) + 1, dtype=np.int64)
        place[np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.int64)] = np.arange(len(names))
        place[-1] = -1
        result[name] = Named(place[at - (seen.size - len(names))], sorted(names))
    return result


def _learned_names(statistics: Day, outcome: Outcome, factors: Sequence[str]) -> dict[str, Named]:
    """Level names of the rows of the log, those from before a change under their earlier name."""
    return _named({**statistics.codes, **statistics.learned_as(outcome, factors)}, statistics.levels, factors)


def _position_mix(statistics: Day) -> dict[str, float]:
    """Share of impressions by position, over all placements: the slots a cell of the plan will meet."""
    totals = np.bincount(
        statistics.codes["position"], weights=statistics.impressions, minlength=len(statistics.levels["position"])
    )
    every = float(totals.sum())
    return {
        str(level): float(total / every) for level, total in zip(statistics.levels["position"], totals, strict=True) if total > 0
    }


def _fit_logistic(statistics: Day, outcome: Outcome, penalty: float, store: Store) -> dict[str, Any]:
    """Ridge logistic regression on one-hot factors and pairs, by Newton steps: intercept and coefficients by level name."""
    import scipy.sparse as sp
    from scipy.optimize import minimize

    names = _factors(outcome)
    events, exposure = _outcome(statistics, outcome)
    named = _learned_names(statistics, outcome, names)
    blocks, columns = [], []
    for name in names:
        at, levels = named[name].at, named[name].names
        rows = np.flatnonzero(at >= 0)
        blocks.append(sp.csr_array((np.ones(rows.size), (rows, at[rows])), shape=(events.size, len(levels))))
        columns += [(name, level) for level in levels]
    design = sp.hstack(blocks).tocsr()
    total = float(exposure.sum())
    start = np.zeros(len(columns) + 1)
    rate = (float(events.sum()) + 1.0) / (total + 2.0)
    start[-1] = np.log(rate / (1 - rate))

    def loss(theta: Floats) -> tuple[float, Floats]:
        score = design @ theta[:-1] + theta[-1]
        mean = 1.0 / (1.0 + np.exp(-score))
        value = float((exposure * np.logaddexp(0.0, score) - events * score).sum() + 0.5 * penalty * (theta[:-1] ** 2).sum())
        residual = exposure * mean - events
        return value, np.append(design.T @ residual + penalty * theta[:-1], residual.sum())

    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200, "ftol": 1e-11, "gtol": 1e-6})
    theta = np.round(found.x, 9)
    coefficients: dict[str, dict[str, float]] = {name: {} for name in names}
    for (name, level), value in zip(columns, theta[:-1].tolist(), strict=True):
        coefficients[name][level] = value
    return {"intercept": float(theta[-1]), "coefficients": coefficients}


def _score_logistic(content: Mapping[str, Any], named: Mapping[str, Named], mix: Mapping[str, float] | None) -> Floats:
    """Rates by name; with `mix` the mean over positions at those shares."""
    score = np.full(next(iter(named.values())).at.size, content["intercept"])
    for name, levels in named.items():
        score += levels.looked_up(content["coefficients"].get(name, {}), 0.0)
    shifts = content["coefficients"].get("position", {}) if mix is not None and "position" not in named else {}
    if not shifts or mix is None:
        return np.asarray(1.0 / (1.0 + np.exp(-score)))
    rates = [share / (1.0 + np.exp(-(score + shifts.get(level, 0.0)))) for level, share in mix.items()]
    return np.asarray(np.sum(rates, axis=0))


def _fit_trees(statistics: Day, outcome: Outcome, store: Store) -> dict[str, Any]:
    """LightGBM on the factors as categories, two weighted rows per cell; the model in its own text form."""
    import lightgbm

    events, exposure = _outcome(statistics, outcome)
    named = _learned_names(statistics, outcome, TREE_FACTORS)
    tables = {name: {level: i for i, level in enumerate(levels.names)} for name, levels in named.items()}
    matrix = np.column_stack([named[name].at for name in TREE_FACTORS]).astype(float)
    rows = np.vstack([matrix, matrix])
    label = np.concatenate([np.ones(events.size), np.zeros(events.size)])
    weight = np.concatenate([events, exposure - events])
    kept = weight > 0
    data = lightgbm.Dataset(
        rows[kept],
        label[kept],
        weight=weight[kept],
        categorical_feature=list(range(len(TREE_FACTORS))),
        params={"verbosity": -1, "min_data_in_bin": 1, "max_bin": 255},
        free_raw_data=True,
    )
    booster = lightgbm.train(
        {
            "objective": "binary",
            "learning_rate": 0.05,
            "num_leaves": 15,
            "min_data_in_leaf": 1,
            "min_sum_hessian_in_leaf": 5.0,
            "lambda_l2": 10.0,
            "cat_smooth": 20.0,
            "cat_l2": 20.0,
            "verbosity": -1,
            "seed": store.seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
        },
        data,
        num_boost_round=TREES,
    )
    return {"trees": booster.model_to_string(), "levels": tables}


def _score_trees(content: Mapping[str, Any], named: Mapping[str, Named], mix: Mapping[str, float] | None) -> Floats:
    import lightgbm

    booster = lightgbm.Booster(model_str=content["trees"])
    tables = content["levels"]
    columns = {name: levels.looked_up(tables[name], -1) for name, levels in named.items()}
    size = next(iter(columns.values())).size

    def predict(position: Floats) -> Floats:
        matrix = np.column_stack([position if name == "position" else columns[name] for name in TREE_FACTORS])
        return np.asarray(booster.predict(matrix, num_threads=1), dtype=np.float64)

    if "position" in named:
        return predict(columns["position"])
    shares = mix or {}
    if not shares:
        return predict(np.full(size, -1.0))
    return np.asarray(np.sum([share * predict(np.full(size, tables["position"].get(level, -1.0))) for level, share in shares.items()], axis=0))
