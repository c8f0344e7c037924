"""When models refit, which version is in force, when a later fit is promoted, and the registry of it all.

What belongs here: the life of a model over days, the same for every concept. What does not: fitting or scoring anything
(the concept modules), or how a fit reaches disk (warehouse/).

A concept's window function asks `fit_days` on which of its days it refits, fits there, decides by `compare` whether the
newcomer replaces the model in force, and scores each day with what `ModelHistory.in_force` (or `model_in_force`) names.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from marketing_assets.config import Store
from marketing_assets.warehouse import Built, FittedModel, Reader, Trigger, WarehouseError, digest, polars_schema

HOLDOUT_SALT = "model-comparison-1"
"""Salt of the hash that keeps the same users or items out of every fit, so that old and new models can be compared on them."""

Floats = npt.NDArray[np.float64]


class UnknownModelVersion(WarehouseError):
    """A rollback names a version that was never fitted for that asset by that day."""


# --- which days refit -------------------------------------------------------------------------------------------------

_ORDER_OF_ACTIONS = {"refit": 0, "rollback": 1, "resume": 2, "stop_learning": 3}
"""Of requests without an instant on one day; stop_learning last, because learning on bad data does more harm than waiting."""


def _requests(reader: Reader, end: date, assets: str | Sequence[str]) -> pl.DataFrame:
    """Accepted refit requests for these assets up to `end`, in the order in which they take effect."""
    names = [assets] if isinstance(assets, str) else list(assets)
    rows = reader.accepted("refit_requests", None, end)
    return rows.filter(pl.col("asset").is_in(names), pl.col("requested_for_date") <= end).with_columns(
        in_force_from=pl.max_horizontal("requested_for_date", "landed_date"),
        order=pl.col("action").replace_strict(_ORDER_OF_ACTIONS, default=9, return_dtype=pl.Int64),
    ).sort("in_force_from", "requested_at", "order", "model_version", "verdict_id", "reason", nulls_last=False)


def _is_punctual(row: Mapping[str, Any], day: date) -> bool:
    """A request counts for its own day only, and only where it had landed by then: later landings never change a past day."""
    return bool(row["requested_for_date"] == day and row["landed_date"] <= day)


def fit_days(
    reader: Reader, days: Sequence[date], store: Store, asset: str | Sequence[str], cadence_days: int
) -> dict[date, Trigger]:
    """The days of the window on which the models of `asset` refit, and why.

    'first' on the store's first day, 'cadence' on its cadence days, 'request' where an accepted refit_requests row asks
    for a refit of that day. While a 'stop_learning' is in force (from its day until a 'resume') only 'first' remains.

    asset: name of a table, or all tables of a concept whose models refit together. cadence_days: days between fits.
    """
    requests = _requests(reader, days[-1], asset).to_dicts()
    switches = [row for row in requests if row["action"] in ("stop_learning", "resume")]
    result: dict[date, Trigger] = {}
    for day in days:
        if day == store.first_day:
            result[day] = "first"
            continue
        so_far = [row["action"] for row in switches if row["in_force_from"] <= day]
        if so_far and so_far[-1] == "stop_learning":
            continue
        if store.is_cadence_day(day, cadence_days):
            result[day] = "cadence"
        elif any(row["action"] == "refit" and _is_punctual(row, day) for row in requests):
            result[day] = "request"
    return result


def rollbacks(reader: Reader, days: Sequence[date], asset: str | Sequence[str]) -> dict[date, list[str]]:
    """Day -> model versions that a person or the drift sensor put back in force on it, in order."""
    result: dict[date, list[str]] = {}
    wanted = set(days)
    for row in _requests(reader, days[-1], asset).to_dicts():
        day = row["requested_for_date"]
        if row["action"] != "rollback" or day not in wanted or not _is_punctual(row, day):
            continue
        if row["model_version"] is None:
            raise UnknownModelVersion(
                f"refit_requests: the rollback of {row['asset']} for {day} names no model_version; take one from model_registry"
            )
        result.setdefault(day, []).append(row["model_version"])
    return result


# --- versions and promotion -------------------------------------------------------------------------------------------


def model_version(model_name: str, fitted_as_of: date, parameters: Mapping[str, Any], model: str) -> str:
    """'name@day.digest': the same fit has the same version wherever and whenever it is made."""
    return f"{model_name}@{fitted_as_of}.{digest(json.dumps(dict(parameters), sort_keys=True, default=str), model)[:8]}"


def new_fit(
    model_name: str,
    day: date,
    trigger: Trigger,
    *,
    is_promoted: bool,
    model: str,
    model_format: Literal["lightgbm", "json", "table"],
    parameters: Mapping[str, Any],
    features: Sequence[str],
    metrics: Mapping[str, Any],
    seconds: float = 0.0,
) -> FittedModel:
    """A fit on data through the end of `day`, promoted that day or kept for the record. seconds: time the fit took."""
    return FittedModel(
        model_name=model_name, model_version=model_version(model_name, day, parameters, model), fitted_as_of=day,
        trigger=trigger, is_promoted=is_promoted, promoted_as_of=day if is_promoted else None, parameters=dict(parameters),
        features=list(features), metrics=dict(metrics), model_format=model_format, model=model, seconds=seconds,
    )


def held_out(ids: pl.Series, share: float = 0.15, salt: str = HOLDOUT_SALT) -> pl.Series:
    """Which users or items no fit may learn from, so that old and new models can be compared on them. Null ids: not held out."""
    from marketing_assets.assignment import salted_share

    return (salted_share(ids, salt) < share).fill_null(False)


@dataclass(frozen=True)
class Comparison:
    """Challenger against champion on the same held-out units; `difference` < 0 says the challenger loses less.

    low, high: 90 % bootstrap interval of the difference of mean losses. n: units.
    """

    is_better: bool
    challenger_loss: float
    champion_loss: float
    difference: float
    low: float
    high: float
    n: int

    def as_metrics(self) -> dict[str, float | int]:
        """For FittedModel.metrics; rounded, since threads add up in no fixed order."""
        found = {
            "holdout_loss": self.challenger_loss, "holdout_champion_loss": self.champion_loss,
            "holdout_difference": self.difference, "holdout_difference_low": self.low, "holdout_difference_high": self.high,
        }  # fmt: skip
        return {"holdout_n": self.n, **{name: round(value, 9) for name, value in found.items()}}


def compare(
    challenger_losses: npt.ArrayLike, champion_losses: npt.ArrayLike, *, seed: int, replicates: int = 200, confidence: float = 0.5
) -> Comparison:
    """Whether a newcomer replaces the model in force: paired bootstrap over held-out units (Efron 1979).

    challenger_losses, champion_losses: one loss per unit (smaller is better), same units in the same order, mature
    outcomes only. The newcomer wins where its mean loss is smaller and at least `confidence` of the replicates agree; a
    tie, or no units at all, leaves the champion in place. Raises ValueError where shapes differ or a loss is not finite.
    """
    challenger = np.asarray(challenger_losses, dtype=np.float64)
    champion = np.asarray(champion_losses, dtype=np.float64)
    if challenger.ndim != 1 or challenger.shape != champion.shape:
        raise ValueError(f"compare: one loss per unit and model is needed, found shapes {challenger.shape} and {champion.shape}")
    if not (np.isfinite(challenger).all() and np.isfinite(champion).all()):
        raise ValueError("compare: a loss is not finite; a model scored some held-out unit with NaN or infinity")
    n = challenger.size
    if n == 0:
        return Comparison(False, 0.0, 0.0, 0.0, 0.0, 0.0, 0)
    differences = challenger - champion
    generator = np.random.default_rng([seed, n])
    means = np.array([differences[generator.integers(0, n, n)].mean() for _ in range(replicates)])
    low, high = np.quantile(means, [0.05, 0.95])
    difference = float(differences.mean())
    wins = difference < 0 and float((means < 0).mean()) >= confidence
    return Comparison(wins, float(challenger.mean()), float(champion.mean()), difference, float(low), float(high), n)


def is_better(challenger_losses: npt.ArrayLike, champion_losses: npt.ArrayLike, *, seed: int) -> bool:
    """`compare(...).is_better`, for callers that need the verdict only."""
    return compare(challenger_losses, champion_losses, seed=seed).is_better


# --- what is in force -------------------------------------------------------------------------------------------------


def _rank(model: FittedModel) -> tuple[date, bool, str]:
    """Of two promotions the later day counts, on one day a rollback, then the version, as in Reader.fitted."""
    assert model.promoted_as_of is not None
    return model.promoted_as_of, model.trigger == "rollback", model.model_version


def _newest(models: Sequence[FittedModel], model_name: str, day: date) -> FittedModel | None:
    ours = [
        model for model in models
        if model.model_name == model_name and model.is_promoted
        and model.promoted_as_of is not None and model.promoted_as_of <= day
    ]
    return max(ours, key=_rank, default=None)


def model_in_force(
    reader: Reader, window_models: Sequence[FittedModel], model_name: str, day: date, start: date
) -> FittedModel | None:
    """What scoring on `day` uses: the newest promotion at or before it, None before the first.

    window_models: fits and rollbacks of the window so far. start: first day of the window; fits stored for that day or
    later belong to an earlier build of the same window and do not count.
    """
    newest = _newest(window_models, model_name, day)
    if newest is not None:
        return newest
    return reader.fitted(model_name, min(day, start - timedelta(days=1)))


class ModelHistory:
    """The models of one concept over one window: what was fitted before it, and what is fitted or rolled back in it."""

    def __init__(self, reader: Reader, start: date) -> None:
        self._reader = reader
        self._start = start
        self._before: dict[str, FittedModel | None] = {}
        self.models: list[FittedModel] = []

    def add(self, model: FittedModel) -> None:
        """Record a fit of the window, promoted or not."""
        self.models.append(model)

    def in_force(self, model_name: str, day: date) -> FittedModel | None:
        """What scoring on `day` uses; None before the first fit."""
        newest = _newest(self.models, model_name, day)
        if newest is not None:
            return newest
        if model_name not in self._before:
            self._before[model_name] = self._reader.fitted(model_name, self._start - timedelta(days=1))
        return self._before[model_name]

    def roll_back(self, version: str, day: date, model_names: Sequence[str]) -> FittedModel:
        """Put an older version back in force from `day`. Raises UnknownModelVersion where none of the models has it."""
        for name in model_names:
            found = next((model for model in self.models if model.model_name == name and model.model_version == version
                          and model.trigger != "rollback"), None)
            if found is None:
                found = self._reader.fitted_version(name, version)
                if found is not None and found.fitted_as_of >= self._start:
                    found = None
            if found is not None and found.fitted_as_of <= day:
                again = dataclasses.replace(found, trigger="rollback", is_promoted=True, promoted_as_of=day, seconds=0.0)
                self.models.append(again)
                return again
        raise UnknownModelVersion(
            f"refit_requests: the rollback for {day} names model_version {version!r}, which none of {', '.join(model_names)} "
            "has by that day; take one from model_registry"
        )


# --- the registry -----------------------------------------------------------------------------------------------------


def registry_rows(fits: pl.DataFrame) -> pl.DataFrame:
    """model_registry rows of fits, rollbacks and promotions as `Reader.fits` gives them, in the table's order of columns."""
    schema = polars_schema("model_registry")
    rows = fits.select(pl.col(name).cast(kind) for name, kind in schema.items())
    return rows.sort("as_of_date", "model_name", "model_version", "trigger")


def build_registry(reader: Reader, days: Sequence[date], store: Store) -> Built:
    """model_registry for the window: one row per model fitted, promoted or rolled back on each day."""
    rows = registry_rows(reader.fits(days[0], days[-1]))
    counts = {row["as_of_date"]: {"fits": float(row["len"]), "promoted": float(row["promoted"])}
              for row in rows.group_by("as_of_date").agg(pl.len(), promoted=pl.col("is_promoted").sum()).to_dicts()}
    return Built(tables={"model_registry": rows}, metrics={"model_registry": counts})
