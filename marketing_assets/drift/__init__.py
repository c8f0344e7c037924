"""Drift: has anything moved that matters, since when, why, and what should be made again.

What belongs here: building drift_report. What does not: acting on it (the sensor reads the verdict), and what is measured
(the evaluation).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import polars as pl

from marketing_assets.config import Store
from marketing_assets.drift.panels import Series
from marketing_assets.drift.signals import read_history
from marketing_assets.drift.verdict import REPORT, judge
from marketing_assets.warehouse import Built, Reader

__all__ = ["build_drift", "judge"]

OWN_DAYS = 60
"""Days of its own verdicts a verdict looks back on."""


def build_drift(reader: Reader, days: Sequence[date], store: Store) -> Built:
    """drift_report for a window of days: each day judged on what was known and mature by then."""
    history = Series.of(read_history(reader, days, store))
    before = reader.window("drift_report", days[0] - timedelta(days=OWN_DAYS), days[0] - timedelta(days=1))
    earlier = before.filter("is_drifted").select([pl.col(name).cast(kind) for name, kind in REPORT.items()])
    frames = []
    for day in days:
        recent = earlier.filter(pl.col("as_of_date") >= day - timedelta(days=OWN_DAYS))
        rows = judge(history, store.drift, day, recent, store.profiles.horizon_days)
        frames.append(rows)
        earlier = pl.concat([recent, rows.filter("is_drifted")])
    return Built({"drift_report": pl.concat(frames)})
