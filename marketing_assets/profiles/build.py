"""From feature entries to profile rows, weights and audience rows for a window of days.

What belongs here: which models score a day, and putting the tables together. What does not: fitting (fits.py) or any formula
(the other modules of this package).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import date

import numpy as np
import polars as pl

from marketing_assets.config import REISSUE_DAYS, Store
from marketing_assets.model_store import ModelHistory, fit_days, new_fit, rollbacks
from marketing_assets.profiles.audiences import AudienceLimits, check_audiences, fit_limits, memberships
from marketing_assets.profiles.fits import CHURN, PROFILE_MODELS, PROFILE_TABLES, PROPENSITY, SEGMENT_LIMITS, VALUE, fit_window
from marketing_assets.profiles.linear import Floats, LinearScore
from marketing_assets.profiles.matrix import COLUMNS, DECIMALS, LINEAR_COLUMNS, WORDS, at_reading_day
from marketing_assets.profiles.propensity import PropensityModel
from marketing_assets.profiles.segments import SegmentLimits, segment_names
from marketing_assets.profiles.value import FirstOrder, ValueModel
from marketing_assets.warehouse import Built, FittedModel, Reader, polars_schema

AUDIENCE_LIMITS = "profiles.audience_limits"
REASONS = 3
SMALLEST_REASON = 0.05


def build_profiles(reader: Reader, days: Sequence[date], store: Store) -> Built:
    """user_profiles (one row per user_features row of the window) and profile_weights (one row per day and feature).

    Reads user_features and user_preferences of the window; on fit days also a year of user_features on re-issue days, a
    year of clean_events, the items and item_features in force.
    """
    if not reader.has_source("events"):
        return Built(
            tables={name: pl.DataFrame(schema=polars_schema(name)) for name in PROFILE_TABLES},
            degraded=dict.fromkeys(PROFILE_TABLES, "needs source 'events'"),
        )
    history = fit_window(reader, days, store)
    entries = reader.window("user_features", days[0], days[-1], COLUMNS)
    entries = at_reading_day(entries).sort("as_of_date", "user_id")
    parts: list[pl.DataFrame] = []
    weights: list[pl.DataFrame] = []
    seconds: dict[date, float] = {}
    for group in _days_by_models(history, days):
        started = time.process_time()
        models = _Models(history, group[0])
        rows = entries.filter(pl.col("as_of_date").is_between(group[0], group[-1]))
        parts.append(models.profiles(rows, store.threads))
        weights.append(models.weights(group))
        spent = (time.process_time() - started) / len(group)
        seconds.update(dict.fromkeys(group, spent))
    profiles = pl.concat(parts).join(_preferences(reader, days), on=["as_of_date", "user_id"], how="left", maintain_order="left")
    schema = polars_schema("user_profiles")
    profiles = profiles.select(pl.col(name).cast(kind) for name, kind in schema.items()).sort("as_of_date", "user_id")
    counted = {
        row["as_of_date"]: {"users": float(row["len"]), "mean_propensity": row["propensity"]}
        for row in profiles.group_by("as_of_date")
        .agg(pl.len(), propensity=pl.col("purchase_propensity").mean().round(6))
        .to_dicts()
    }
    metrics = {day: {**counted.get(day, {"users": 0.0}), "scoring_seconds": seconds[day]} for day in days}
    return Built(
        tables={"user_profiles": profiles, "profile_weights": pl.concat(weights)},
        models=history.models,
        metrics={"user_profiles": metrics},
    )


# --- scoring ----------------------------------------------------------------------------------------------------------


def _days_by_models(history: ModelHistory, days: Sequence[date], names: Sequence[str] = PROFILE_MODELS) -> list[list[date]]:
    """The window cut into runs of days that use the same versions."""
    groups: list[list[date]] = []
    before: tuple[str, ...] | None = None
    for day in days:
        versions = tuple(_in_force(history, name, day).model_version for name in names)
        if versions == before:
            groups[-1].append(day)
        else:
            groups.append([day])
        before = versions
    return groups


def _in_force(history: ModelHistory, name: str, day: date) -> FittedModel:
    model = history.in_force(name, day)
    if model is None:
        from marketing_assets.warehouse import MissingPartitions

        raise MissingPartitions(f"{name}: no fit at or before {day}; build the partitions from the store's first day on")
    return model


class _Models:
    """The models in force on a day, read from their text once."""

    def __init__(self, history: ModelHistory, day: date) -> None:
        stored = _in_force(history, PROPENSITY, day)
        self.version = stored.model_version
        self.propensity = PropensityModel.from_text(stored.model)
        self.churn = PropensityModel.from_text(_in_force(history, CHURN, day).model)
        self.value = ValueModel.from_text(_in_force(history, VALUE, day).model)
        self.limits = SegmentLimits.from_dict(json.loads(_in_force(history, SEGMENT_LIMITS, day).model))

    def profiles(self, entries: pl.DataFrame, threads: int) -> pl.DataFrame:
        """user_profiles rows without preferences, in the order of entries."""
        linear = self.propensity.linear
        rows = self.propensity.matrix(entries)[:, LINEAR_COLUMNS]
        chance = self.propensity.probability(entries, threads)
        churn = 1 - self.churn.probability(entries, threads)
        if self.churn.horizon_days >= self.propensity.horizon_days:
            churn = np.minimum(churn, 1 - chance)  # who orders within the shorter horizon orders within the longer
        expected, low, middle, high = self.value.score(entries, FirstOrder(chance, self.propensity.horizon_days), threads)
        return entries.select(
            "as_of_date",
            "user_id",
            issued_date=pl.col("as_of_date"),
            recency_days=(pl.col("as_of_date") - pl.col("last_order_date")).dt.total_days().clip(lower_bound=0),
            frequency="orders",
            monetary="revenue",
        ).with_columns(
            segment=segment_names(entries, self.limits),
            purchase_propensity=pl.Series(chance, dtype=pl.Float64),
            churn_probability=pl.Series(np.round(churn, DECIMALS), dtype=pl.Float64),
            clv_90d=pl.Series(expected, dtype=pl.Float64),
            clv_90d_low=pl.Series(low, dtype=pl.Float64),
            clv_90d_median=pl.Series(middle, dtype=pl.Float64),
            clv_90d_high=pl.Series(high, dtype=pl.Float64),
            profile_score=pl.Series(np.round(linear.score(rows), DECIMALS), dtype=pl.Float64),
            top_reasons=reasons(linear, rows),
            model_version=pl.lit(self.version),
        )

    def weights(self, days: Sequence[date]) -> pl.DataFrame:
        """profile_weights rows of these days."""
        linear = self.propensity.linear
        frame = (
            pl.DataFrame(
                {
                    "feature": [*linear.features, "intercept"],
                    "weight": [*linear.weights.tolist(), linear.intercept],
                    "mean": [*linear.means.tolist(), 0.0],
                    "scale": [*linear.scales.tolist(), 1.0],
                }
            )
            .with_columns(model_version=pl.lit(self.version))
            .sort("feature")
        )
        rows = pl.DataFrame({"as_of_date": list(days)}, schema={"as_of_date": pl.Date}).join(frame, how="cross")
        return rows.select(pl.col(name).cast(kind) for name, kind in polars_schema("profile_weights").items())


def reasons(linear: LinearScore, rows: Floats) -> pl.Series:
    """The largest contributions to U in words, with what each adds: 'ordered recently (+0.62); few orders (-0.31)'.

    rows: users x features. A feature says its `high` words where the user lies above the mean, else its `low` words.
    """
    n = len(rows)
    if not n:
        return pl.Series([], dtype=pl.String)
    contributions = np.round(linear.contributions(rows), 2)
    is_high = linear.standardised(rows) > 0
    order = np.argsort(-np.abs(contributions), axis=1, kind="stable")[:, :REASONS]
    words = np.array([[WORDS[name][1], WORDS[name][0]] for name in linear.features], dtype=object)
    pick = np.arange(n)
    parts = []
    for place in range(order.shape[1]):
        feature = order[:, place]
        value = contributions[pick, feature]
        phrase = pl.Series(words[feature, is_high[pick, feature].astype(np.int64)].tolist(), dtype=pl.String)
        frame = pl.DataFrame({"phrase": phrase, "value": value})
        sign = pl.when(pl.col("value") > 0).then(pl.lit("+")).otherwise(pl.lit("-"))
        text = pl.concat_str("phrase", pl.lit(" ("), sign, pl.col("value").abs().cast(pl.String), pl.lit(")"))
        kept = pl.when(pl.col("value").abs() >= SMALLEST_REASON).then(text)
        parts.append(frame.select(kept.alias(f"reason_{place}")))
    joined = pl.concat(parts, how="horizontal").select(text=pl.concat_str(pl.all(), separator="; ", ignore_nulls=True))["text"]
    return joined.to_frame().select(
        pl.when(pl.col("text") == "").then(pl.lit("nothing stands out yet")).otherwise(pl.col("text")).alias("text")
    )["text"]


_PREFERENCES = {
    "category": "preferred_category",
    "price_band": "preferred_price_band",
    "channel": "preferred_channel",
    "hour_block": "preferred_hour_block",
}


def _preferences(reader: Reader, days: Sequence[date]) -> pl.DataFrame:
    """as_of_date, user_id and the value with most weight of each kind; ties go to the first in the alphabet."""
    import ibis

    table = reader.table("user_preferences")
    chosen = table.filter(
        table.as_of_date.between(ibis.date(str(days[0])), ibis.date(str(days[-1]))),
        table.preference_type.isin(list(_PREFERENCES)),
        table.preference_value.notnull(),
    )
    chosen = chosen.mutate(points=chosen.weight.round(DECIMALS))
    of_kind = ibis.window(group_by=[chosen.as_of_date, chosen.user_id, chosen.preference_type])
    most = chosen.mutate(most=chosen.points.max().over(of_kind))
    best = most.filter(most.points == most.most)
    first = best.group_by("as_of_date", "user_id").agg(
        **{name: best.preference_value.min(where=best.preference_type == kind) for kind, name in _PREFERENCES.items()}
    )
    rows = reader.frame(first)
    return rows.cast({"as_of_date": pl.Date})


# --- audiences --------------------------------------------------------------------------------------------------------

_AUDIENCE_COLUMNS = (
    "as_of_date",
    "user_id",
    "recency_days",
    "frequency",
    "monetary",
    "segment",
    "purchase_propensity",
    "churn_probability",
    "clv_90d",
    "profile_score",
)


def build_audiences(reader: Reader, days: Sequence[date], store: Store) -> Built:
    """audiences: for each user with a user_profiles row on a day, one row per audience the user belongs to, or one without.

    Reads user_profiles and user_features of the window; on re-issue days both logs in force. Raises AudienceError where a
    definition lacks what its rule needs.
    """
    from marketing_assets.assignment import salted_share

    settings = store.profiles
    check_audiences(settings.audiences)
    schema = polars_schema("audiences")
    if not reader.has_source("events"):
        return Built(tables={"audiences": pl.DataFrame(schema=schema)}, degraded={"audiences": "needs source 'events'"})
    history = ModelHistory(reader, days[0])
    triggers = fit_days(reader, days, store, "audiences", REISSUE_DAYS)
    back = rollbacks(reader, days, "audiences")
    for day in days:
        if day in triggers:
            limits = fit_limits(_profiles_in_force(reader, day), settings.audiences)
            history.add(
                new_fit(
                    AUDIENCE_LIMITS,
                    day,
                    triggers[day],
                    is_promoted=True,
                    model=limits.as_text(),
                    model_format="json",
                    parameters={audience.audience_id: f"{audience.rule} {audience.share}" for audience in settings.audiences},
                    features=["user_profiles"],
                    metrics={"limits": len(limits.limits)},
                )
            )
        for version in back.get(day, []):
            history.roll_back(version, day, [AUDIENCE_LIMITS])
    profiles = reader.window("user_profiles", days[0], days[-1], _AUDIENCE_COLUMNS)
    first = _first_sign(
        reader.window("user_features", days[0], days[-1], ["as_of_date", "user_id", "first_order_date", "first_seen_date"])
    )
    profiles = profiles.join(first, on=["as_of_date", "user_id"], how="left", maintain_order="left")
    parts = [
        memberships(
            profiles.filter(pl.col("as_of_date").is_between(group[0], group[-1])),
            settings.audiences,
            AudienceLimits.from_text(_in_force(history, AUDIENCE_LIMITS, group[0]).model),
        )
        for group in _days_by_models(history, days, [AUDIENCE_LIMITS])
    ]
    rows = pl.concat(parts)
    rows = rows.with_columns(
        is_holdout=salted_share(rows["user_id"], settings.holdout_salt) < settings.holdout_share, issued_date="as_of_date"
    )
    rows = rows.select(pl.col(name).cast(kind) for name, kind in schema.items()).sort(
        "as_of_date", "user_id", "audience_id", nulls_last=False
    )
    counted = (
        rows.group_by("as_of_date").agg(users=pl.col("user_id").n_unique(), memberships=pl.col("audience_id").count()).to_dicts()
    )
    metrics = {row["as_of_date"]: {"users": float(row["users"]), "memberships": float(row["memberships"])} for row in counted}
    return Built(tables={"audiences": rows}, models=history.models, metrics={"audiences": metrics})


def _first_sign(entries: pl.DataFrame) -> pl.DataFrame:
    return entries.select("as_of_date", "user_id", first_sign_date=pl.coalesce("first_order_date", "first_seen_date"))


def _profiles_in_force(reader: Reader, day: date) -> pl.DataFrame:
    """Everyone's profile in force at the end of `day`; of these numbers only recency moves on reading."""
    profiles = reader.log_as_of("user_profiles", day, _AUDIENCE_COLUMNS)
    first = _first_sign(reader.log_as_of("user_features", day, ["as_of_date", "user_id", "first_order_date", "first_seen_date"]))
    moved = profiles.with_columns(recency_days=pl.col("recency_days") + (pl.lit(day) - pl.col("as_of_date")).dt.total_days())
    return (
        moved.join(first.drop("as_of_date"), on="user_id", how="left", maintain_order="left")
        .with_columns(as_of_date=pl.lit(day))
        .sort("user_id")
    )
