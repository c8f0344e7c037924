"""What requests say of the log: whose rates changed since when, and which days must not teach anything.

What belongs here: reading refit_requests of response_rates into changes and silences. What does not: the sums that heed them
(build.py), or when a model refits (model_store.py).

A refit that a verdict asked for names the segments that drifted and their first day (control.Reason). From the request on, a
segment's days before that one stand under a level of their own, 'home before 2026-08-09': they still say which creatives and
hours people like, and nothing of how often the segment is clicked now, neither in its cells nor in what those shrink to. While
'stop_learning' is in force, and for its days ever after, days since the data broke count for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import polars as pl

from marketing_assets.control import Reason, read_reason
from marketing_assets.warehouse import Reader

Outcome = Literal["clicks", "conversions"]
OUTCOMES: dict[str, Outcome] = {"ads.ctr_calibration_ratio": "clicks", "ads.cvr_calibration_ratio": "conversions"}
"""Metric of drift_report -> the rate it watches."""
FACTORS = {"placement": "placement_id", "audience": "audience_id"}
"""Kind of segment -> the factor of the rates it is a level of."""


@dataclass(frozen=True)
class Change:
    """Before `since` a level of a factor (level None: every placement) had another rate; known from `in_force_from` on."""

    outcome: Outcome
    factor: str
    level: str | None
    since: date
    in_force_from: date


@dataclass(frozen=True)
class Silence:
    """Days [since, until) teach nothing; until None: not over yet. Known from `in_force_from` on, its end from `ended_on` on."""

    since: date
    in_force_from: date
    until: date | None = None
    ended_on: date | None = None


@dataclass(frozen=True)
class Changes:
    """What the requests up to the end of a window say."""

    changes: tuple[Change, ...] = ()
    silences: tuple[Silence, ...] = ()

    def on(self, day: date, outcome: Outcome | None = None) -> list[Change]:
        """Changes known on a day, the latest first."""
        known = [one for one in self.changes if one.in_force_from <= day and outcome in (None, one.outcome)]
        return sorted(known, key=lambda one: (one.since, one.outcome, one.factor, one.level or ""), reverse=True)

    def silent_on(self, day: date) -> list[tuple[date, date | None]]:
        """[since, until) of the silences known on a day, with their ends where those are known."""
        return [
            (one.since, one.until if one.ended_on is not None and one.ended_on <= day else None)
            for one in self.silences
            if one.in_force_from <= day
        ]


def read_changes(reader: Reader, end: date, asset: str = "response_rates") -> Changes:
    """The changes and silences that accepted requests for `asset` up to `end` speak of."""
    rows = reader.accepted("refit_requests", None, end).filter(pl.col("asset") == asset, pl.col("requested_for_date") <= end)
    if rows.is_empty():
        return Changes()
    ordered = rows.with_columns(in_force_from=pl.max_horizontal("requested_for_date", "landed_date")).sort(
        "in_force_from", "requested_at", "action", "verdict_id", "reason", nulls_last=False
    )
    return changes_of(ordered.to_dicts())


def changes_of(requests: Sequence[dict[str, Any]]) -> Changes:
    """The same from rows: action, reason, requested_for_date, in_force_from, in the order in which they take effect."""
    changes: list[Change] = []
    silences: list[Silence] = []
    for row in requests:
        reason, since = read_reason(row["reason"] or ""), row["in_force_from"]
        if row["action"] == "refit" and reason is not None:
            changes += _changed(reason, since)
        elif row["action"] == "stop_learning" and (not silences or silences[-1].until is not None):
            silences.append(Silence(row["requested_for_date"] if reason is None else reason.since, since))
        elif row["action"] == "resume" and silences and silences[-1].until is None:
            begun = silences[-1]
            until = row["requested_for_date"] if reason is None else reason.since
            silences[-1] = Silence(begun.since, begun.in_force_from, max(until, begun.since), since)
    return Changes(tuple(dict.fromkeys(changes)), tuple(silences))


def _changed(reason: Reason, in_force_from: date) -> list[Change]:
    """The segments named, by rate; where a rate is named without a segment, every placement."""
    found: list[Change] = []
    for metric, outcome in OUTCOMES.items():
        named = [segment for name, segment in reason.segments if name == metric]
        inner = [segment for segment in named if segment is not None and segment[0] in FACTORS]
        found += [Change(outcome, FACTORS[kind], level, reason.since, in_force_from) for kind, level in inner]
        if named and not inner:
            found.append(Change(outcome, "placement_id", None, reason.since, in_force_from))
    return found
