"""Every fit and rollback of the profile models over a window of days.

What belongs here: on which days models refit, what they are compared on, what the registry records. What does not: the
models themselves (propensity.py, value.py, segments.py), or scoring (build.py).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl

from marketing_assets.config import REISSUE_DAYS, Store
from marketing_assets.model_store import Comparison, ModelHistory, compare, fit_days, held_out, new_fit, rollbacks
from marketing_assets.profiles.hazard import fit_hazard
from marketing_assets.profiles.linear import Floats, log_losses
from marketing_assets.profiles.matrix import COLUMNS, at_reading_day
from marketing_assets.profiles.propensity import PropensityModel, fit_propensity, losses, with_level
from marketing_assets.profiles.segments import fit_segment_limits
from marketing_assets.profiles.training import LEVEL_ORIGINS, Past, Training, mature_rows, read_past
from marketing_assets.profiles.value import FirstOrder, ValueModel, checked, deviances, fit_value, total_interval
from marketing_assets.warehouse import Reader, Trigger

PROPENSITY = "profiles.propensity"
CHURN = "profiles.churn"
VALUE = "profiles.value"
SEGMENT_LIMITS = "profiles.segment_limits"
PROFILE_MODELS = (PROPENSITY, CHURN, VALUE, SEGMENT_LIMITS)
PROFILE_TABLES = ("user_profiles", "profile_weights")

COMPARED_ORIGINS = 4
"""Champion and challenger meet on the held-out users of so many newest mature origins."""
YOUNG_DAYS = 56
"""A shop learns most in its first weeks: until this age every weekly re-issue day is one of full fits."""
SHORTER_HORIZONS = (28, 7)
"""Where no outcome over the full horizon is mature yet, models that can answer for a shorter one are compared there."""


def fit_window(reader: Reader, days: Sequence[date], store: Store) -> ModelHistory:
    """Every fit and rollback of the window, in order of days."""
    settings = store.profiles
    history = ModelHistory(reader, days[0])
    triggers = fit_days(reader, days, store, PROFILE_TABLES, settings.cadence_days)
    back = rollbacks(reader, days, PROFILE_TABLES)
    weekly = fit_days(reader, days, store, PROFILE_TABLES, REISSUE_DAYS)
    triggers |= {day: trigger for day, trigger in weekly.items() if (day - store.first_day).days < YOUNG_DAYS and day not in triggers}
    levels = {day: trigger for day, trigger in weekly.items() if day not in triggers}
    horizons = (settings.horizon_days, settings.churn_horizon_days)
    past = None
    if triggers or levels:
        past = read_past(reader, store, sorted(triggers), min(SHORTER_HORIZONS), sorted(levels), horizons)
    for day in days:
        if day in levels and past is not None:
            for name, horizon in zip((PROPENSITY, CHURN), horizons, strict=True):
                _move_level(history, past, day, levels[day], store, name, horizon)
        if day in triggers and past is not None:
            known = known_users(reader, day)
            _fit_orders(history, past, known, day, triggers[day], store, PROPENSITY, settings.horizon_days)
            _fit_orders(history, past, known, day, triggers[day], store, CHURN, settings.churn_horizon_days)
            _fit_value(history, past, known, day, triggers[day], store, margin_share(reader, day))
            _fit_segments(history, known, day, triggers[day])
        for version in back.get(day, []):
            history.roll_back(version, day, PROFILE_MODELS)
    return history


def known_users(reader: Reader, day: date) -> pl.DataFrame:
    """Everyone's feature entry in force at the end of `day`, read as of that day; COLUMNS, sorted by user."""
    entries = reader.log_as_of("user_features", day, COLUMNS)
    return at_reading_day(entries.with_columns(as_of_date=pl.lit(day))).sort("user_id")


def margin_share(reader: Reader, day: date) -> float:
    """Margin over revenue of everything sold so far; items without a known cost count as all margin. 1 where none is known."""
    items = reader.log_as_of("items", day, ["item_id", "unit_cost"]).filter(pl.col("unit_cost").is_not_null())
    if items.is_empty():
        return 1.0
    sold = reader.log_as_of("item_features", day, ["item_id", "revenue", "units_sold", "units_returned"])
    revenue = float(sold["revenue"].sum() or 0)
    if revenue <= 0:
        return 1.0
    priced = sold.join(items, on="item_id", how="inner").sort("item_id")
    units = priced["units_sold"] - priced["units_returned"]
    cost = float((units.cast(pl.Decimal(18, 0)) * priced["unit_cost"]).cast(pl.Float64).sum())
    return float(np.round(np.clip(1 - cost / revenue, 0.01, 1.0), 6))


def _newest_held_out(training: Training) -> Training:
    is_newest = training.entries["as_of_date"].is_in(training.days[-COMPARED_ORIGINS:]).to_numpy()
    return training.where(training.is_held_out & is_newest)


def _by_user(training: Training, values: Floats) -> Floats:
    """Mean per user, because a user's rows on several origins are no independent witnesses."""
    frame = pl.DataFrame({"user_id": training.entries["user_id"], "value": values})
    return frame.group_by("user_id").agg(pl.col("value").mean()).sort("user_id")["value"].to_numpy()


def _compare(held: Training, loss: Callable[[int], Floats], seed: int) -> Comparison:
    """loss(0): the challenger's losses on the held-out rows, loss(1): the champion's."""
    return compare(_by_user(held, loss(0)), _by_user(held, loss(1)), seed=seed)


def _fit_orders(
    history: ModelHistory,
    past: Past,
    known: pl.DataFrame,
    day: date,
    trigger: Trigger,
    store: Store,
    name: str,
    horizon_days: int,
) -> None:
    """Fit P(order within horizon_days) on `day` and promote it where it wins."""
    started = time.process_time()
    training = mature_rows(past, store, day, horizon_days, "ordered")
    fit = fit_propensity(training, known, horizon_days, store)
    metrics = dict(fit.metrics)
    stored = history.in_force(name, day)
    is_promoted = stored is None
    if stored is not None:
        champion = PropensityModel.from_text(stored.model)
        models = (fit.model, champion)
        held = _newest_held_out(training)
        if not len(held) and all(model.kind == "prior" for model in models):
            models, held = _shorter(models, past, store, day)
        verdict = _compare(held, lambda which: losses(models[which], held, store.threads), store.seed)
        metrics.update(verdict.as_metrics())
        # The few of a shop's first days do not tell a start from a fit; that one of them has seen orders does.
        is_promoted = verdict.is_better or (champion.is_start and not fit.model.is_start)
    history.add(
        new_fit(
            name,
            day,
            trigger,
            is_promoted=is_promoted,
            model=fit.model.as_text(),
            model_format="json",
            parameters=fit.parameters,
            features=fit.model.linear.features,
            metrics=metrics,
            seconds=time.process_time() - started,
        )
    )


def _move_level(
    history: ModelHistory, past: Past, day: date, trigger: Trigger, store: Store, name: str, horizon_days: int
) -> None:
    """Between full fits, put the model in force on the level of the newest mature origins, where that wins."""
    started = time.process_time()
    stored = history.in_force(name, day)
    if stored is None:
        return
    champion = PropensityModel.from_text(stored.model)
    training = mature_rows(past, store, day, horizon_days, "ordered", newest=LEVEL_ORIGINS)
    if champion.kind == "prior" or not len(training):
        return
    rows = training.where(~training.is_held_out)
    model = with_level(champion, rows, champion.matrix(rows.entries), store.threads)
    held = _newest_held_out(training)
    raw = champion.raw_logit(champion.matrix(held.entries), store.threads)  # the two differ in their level alone
    verdict = _compare(
        held, lambda which: log_losses(held.outcome, (model, champion)[which].calibrated(raw)), store.seed
    )
    history.add(
        new_fit(
            name,
            day,
            trigger,
            is_promoted=verdict.is_better,
            model=model.as_text(),
            model_format="json",
            parameters={**stored.parameters, "level_of": stored.model_version},
            features=stored.features,
            metrics={"rows": len(rows), "level": model.calibration.c, **verdict.as_metrics()},
            seconds=time.process_time() - started,
        )
    )


def _shorter(
    models: tuple[PropensityModel, PropensityModel], past: Past, store: Store, day: date
) -> tuple[tuple[PropensityModel, PropensityModel], Training]:
    """Two models that answer from rates, and mature held-out rows over the longest horizon that has any."""
    held = mature_rows(past, store, day, SHORTER_HORIZONS[0], "ordered")
    for horizon in SHORTER_HORIZONS:
        held = _newest_held_out(mature_rows(past, store, day, horizon, "ordered"))
        models = (replace(models[0], horizon_days=horizon), replace(models[1], horizon_days=horizon))
        if len(held):
            break
    return models, held


def _fit_value(
    history: ModelHistory, past: Past, known: pl.DataFrame, day: date, trigger: Trigger, store: Store, margin: float
) -> None:
    """Fit the life-time value on `day` and promote it where it wins; the propensity in force says when people begin to buy."""
    started = time.process_time()
    horizon = store.profiles.clv_horizon_days
    orders = history.in_force(PROPENSITY, day)
    assert orders is not None  # fitted before on the same day
    propensity = PropensityModel.from_text(orders.model)
    mature = mature_rows(past, store, day, horizon, "revenue")
    model = fit_value(known, horizon, store.profiles.interval, margin)
    parameters: dict[str, object] = {
        "horizon_days": horizon,
        "interval": model.interval,
        "margin_share": margin,
        "orders": "bg_nbd",
    }
    metrics: dict[str, object] = {"rows": len(mature)}
    length, held = horizon, mature
    for length in (horizon, *SHORTER_HORIZONS):
        held = _newest_held_out(mature if length == horizon else mature_rows(past, store, day, length, "revenue"))
        if len(held):
            break
    first = first_order(propensity, held.entries, store)
    if store.methods == "learned" and len(held) and model.spend is not None:
        trees = fit_hazard(past, store, day, horizon, model.purchases, known.filter(held_out(known["user_id"]))["user_id"])
        other = replace(model, trees=trees)
        if trees and _shape_verdict(other, model, held, first, length, store).is_better:
            model, parameters["orders"] = other, "bg_nbd and trees"
    rows = mature.where(~mature.is_held_out)
    model = checked(model, rows, first_order(propensity, rows.entries, store), store.threads)
    expected = model.expected(known, first_order(propensity, known, store), store.threads)
    metrics |= {
        "level": model.level,
        "first_level": model.first_level,
        "size_bytes": len(model.as_text()),
        **_total(model, expected, past, day, store),
    }
    stored = history.in_force(VALUE, day)
    is_promoted = stored is None
    if stored is not None:
        champion = ValueModel.from_text(stored.model)
        pair = (replace(model, horizon_days=length), replace(champion, horizon_days=length))
        verdict = _compare(
            held, lambda which: deviances(pair[which].expected(held.entries, first, store.threads), held.outcome * margin), store.seed
        )
        metrics |= verdict.as_metrics()
        is_promoted = verdict.is_better or (champion.is_start and not model.is_start)
    history.add(
        new_fit(
            VALUE,
            day,
            trigger,
            is_promoted=is_promoted,
            model=model.as_text(),
            model_format="json",
            parameters=parameters,
            features=["order_days", "first_order_date", "last_order_date", "revenue"],
            metrics=metrics,
            seconds=time.process_time() - started,
        )
    )


def first_order(propensity: PropensityModel, entries: pl.DataFrame, store: Store) -> FirstOrder:
    """What the value model asks of users who never bought; 0 for others."""
    is_new = entries["last_order_date"].is_null()
    chance = np.zeros(entries.height)
    chance[is_new.to_numpy()] = propensity.probability(entries.filter(is_new), store.threads)
    return FirstOrder(chance, propensity.horizon_days)


def _total(model: ValueModel, expected: Floats, past: Past, day: date, store: Store) -> dict[str, float]:
    """The value of everyone known together, with its interval, for the record of the fit. expected: per user."""
    weekly = (
        past.orders.filter(pl.col("landed_date") <= day, pl.col("event_date") <= day)
        .group_by(week=(pl.lit(day) - pl.col("event_date")).dt.total_days() // 7)
        .agg(pl.col("revenue").sum())
        .filter(pl.col("week") < (day - store.first_day).days // 7)  # of the oldest, a part of a week would look like a crash
        .sort("week", descending=True)["revenue"]
        .to_numpy()
    )
    low, high = total_interval(expected, weekly, model.horizon_days / 7, model.interval)
    return {"total": round(float(expected.sum()), 2), "total_low": round(low, 2), "total_high": round(high, 2)}


def _shape_verdict(
    challenger: ValueModel, champion: ValueModel, held: Training, first: FirstOrder, length: int, store: Store
) -> Comparison:
    """Which forecast of order days tells users apart better: both are first put on the level of what happened."""

    def loss(model: ValueModel) -> Floats:
        days = replace(model, horizon_days=length).expected(held.entries, first, store.threads)
        return deviances(days * max(float(held.outcome.sum()), 0.0) / max(float(days.sum()), 1e-9), held.outcome)

    return _compare(held, lambda which: loss((challenger, champion)[which]), store.seed)


def _fit_segments(history: ModelHistory, known: pl.DataFrame, day: date, trigger: Trigger) -> None:
    """New limits are promoted at once: they describe the shop's users and predict nothing that could be compared."""
    buyers = known.filter(pl.col("last_order_date").is_not_null()).with_columns(
        recency_days=(pl.col("as_of_date") - pl.col("last_order_date")).dt.total_days()
    )
    limits = fit_segment_limits(buyers)
    history.add(
        new_fit(
            SEGMENT_LIMITS,
            day,
            trigger,
            is_promoted=True,
            model=json.dumps(limits.as_dict(), sort_keys=True),
            model_format="json",
            parameters={"fifths": 5},
            features=["recency_days", "order_days", "revenue"],
            metrics={"buyers": buyers.height},
        )
    )
