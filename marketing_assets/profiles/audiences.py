"""Who belongs to which audience.

What belongs here: the rules of config.Audience on profile rows, their limits and the look-alike score. What does not: how
profiles come about, or what audiences are shown.

Limits ("the top fifth") are fixed on re-issue days from everyone in force and carried, so that a user's membership depends
on the user and the limits, never on who else has an entry that day.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from marketing_assets.config import Audience
from marketing_assets.profiles.linear import Floats, LinearScore, fit_linear_score

NEW_DAYS = 30
"""new_users: first order, or first sight of who never ordered, at most so many days ago."""
MINIMUM_SEEDS = 10
"""A look-alike audience with fewer seed users than this stays empty."""
LOOK_ALIKE_FEATURES = ("recency", "frequency", "monetary", "propensity", "churn", "value", "score")


class AudienceError(Exception):
    """An audience whose definition cannot be used; the message names it and says what to change."""


@dataclass(frozen=True)
class AudienceLimits:
    """audience_id -> smallest value that belongs; for look-alikes also the score. No limit: a plain rule, or empty."""

    limits: dict[str, float]
    scores: dict[str, LinearScore]

    def as_text(self) -> str:
        return json.dumps(
            {"limits": self.limits, "scores": {name: score.as_dict() for name, score in self.scores.items()}}, sort_keys=True
        )

    @staticmethod
    def from_text(text: str) -> AudienceLimits:
        content: dict[str, Any] = json.loads(text)
        return AudienceLimits(
            content["limits"], {name: LinearScore.from_dict(score) for name, score in content["scores"].items()}
        )


def check_audiences(audiences: Sequence[Audience]) -> None:
    """Raises AudienceError where a rule lacks what it needs."""
    known = {audience.audience_id: audience for audience in audiences}
    for audience in audiences:
        where = f"profiles.audiences: {audience.audience_id}"
        if audience.rule == "segment" and not audience.segments:
            raise AudienceError(f"{where}: rule 'segment' needs 'segments'")
        if audience.rule == "look_alike":
            seed = known.get(audience.seed_audience_id or "")
            if seed is None:
                raise AudienceError(f"{where}: rule 'look_alike' needs 'seed_audience_id', one of {', '.join(sorted(known))}")
            if seed.rule == "look_alike":
                raise AudienceError(f"{where}: its seed {seed.audience_id} is a look-alike itself; name one that is not")


_MEASURES = {"propensity_top": "purchase_propensity", "clv_top": "clv_90d", "churn_risk": "churn_probability"}


def _eligible(audience: Audience) -> pl.Expr:
    """Who can belong at all: only who has bought can be lost."""
    return pl.col("frequency") > 0 if audience.rule == "churn_risk" else pl.lit(True)


def _features(profiles: pl.DataFrame) -> Floats:
    frame = profiles.select(
        recency=pl.col("recency_days").fill_null(365).cast(pl.Float64).log1p(),
        frequency=pl.col("frequency").cast(pl.Float64).log1p(),
        monetary=pl.col("monetary").cast(pl.Float64).clip(lower_bound=0).log1p(),
        propensity="purchase_propensity",
        churn="churn_probability",
        value=pl.col("clv_90d").clip(lower_bound=0).log1p(),
        score="profile_score",
    )
    return np.round(frame.to_numpy().astype(np.float64), 6)


def fit_limits(profiles: pl.DataFrame, audiences: Sequence[Audience]) -> AudienceLimits:
    """Limits from everyone in force. profiles: user_profiles rows with first_sign_date, one per user."""
    limits: dict[str, float] = {}
    scores: dict[str, LinearScore] = {}
    if profiles.is_empty():
        return AudienceLimits(limits, scores)
    for audience in audiences:
        if audience.rule in _MEASURES:
            values = profiles.filter(_eligible(audience))[_MEASURES[audience.rule]].to_numpy()
            limit = _limit(values, audience.share, profiles.height)
            if limit is not None:
                limits[audience.audience_id] = limit
    known = {audience.audience_id: audience for audience in audiences}
    for audience in audiences:
        if audience.rule != "look_alike":
            continue
        seed = profiles.select(is_seed=_belongs(known[audience.seed_audience_id or ""], AudienceLimits(limits, {})))["is_seed"]
        outcome = seed.to_numpy().astype(np.float64)
        if min(outcome.sum(), len(outcome) - outcome.sum()) < MINIMUM_SEEDS:
            continue
        rows = _features(profiles)
        score = fit_linear_score(LOOK_ALIKE_FEATURES, rows, outcome, np.ones(len(rows)), 5.0)
        limit = _limit(np.round(score.score(rows[outcome == 0]), 6), audience.share, profiles.height)
        if limit is not None:
            scores[audience.audience_id], limits[audience.audience_id] = score, limit
    return AudienceLimits(limits, scores)


def _limit(values: Floats, share: float, users: int) -> float | None:
    """The value that the top `share` of all users reach; None where that is nobody."""
    wanted = min(round(share * users), len(values))
    if wanted <= 0:
        return None
    return float(np.sort(values)[::-1][wanted - 1])


def _belongs(audience: Audience, limits: AudienceLimits) -> pl.Expr:
    """Membership by every rule but look_alike."""
    if audience.rule == "everyone":
        return pl.lit(True)
    if audience.rule == "segment":
        return pl.col("segment").is_in(list(audience.segments))
    if audience.rule == "new_users":
        return (pl.col("as_of_date") - pl.col("first_sign_date")).dt.total_days() < NEW_DAYS
    limit = limits.limits.get(audience.audience_id)
    return pl.lit(False) if limit is None else _eligible(audience) & (pl.col(_MEASURES[audience.rule]) >= limit)


def memberships(profiles: pl.DataFrame, audiences: Sequence[Audience], limits: AudienceLimits) -> pl.DataFrame:
    """One row per user and audience: as_of_date, user_id, audience_id, priority; null members for a user in none.

    profiles: user_profiles rows with first_sign_date (first order, else first sight).
    """
    keys = profiles.select("as_of_date", "user_id")
    known = {audience.audience_id: audience for audience in audiences}
    parts = []
    for audience in audiences:
        if audience.rule == "look_alike":
            score = limits.scores.get(audience.audience_id)
            if score is None:
                continue
            close = np.round(score.score(_features(profiles)), 6) >= limits.limits[audience.audience_id]
            seed = profiles.select(is_seed=_belongs(known[audience.seed_audience_id or ""], limits))["is_seed"]
            mask = pl.Series(close) & ~seed
        else:
            mask = profiles.select(mask=pl.repeat(True, pl.len()) & _belongs(audience, limits))["mask"]
        parts.append(
            keys.filter(mask).with_columns(
                audience_id=pl.lit(audience.audience_id), priority=pl.lit(audience.priority, dtype=pl.Int64)
            )
        )
    empty = keys.clear().with_columns(audience_id=pl.lit(None, pl.String), priority=pl.lit(None, pl.Int64))
    found = pl.concat([empty, *parts])
    none = keys.join(found, on=["as_of_date", "user_id"], how="anti").with_columns(
        audience_id=pl.lit(None, pl.String), priority=pl.lit(None, pl.Int64)
    )
    return pl.concat([found, none]).sort("as_of_date", "user_id", "audience_id", nulls_last=False)
