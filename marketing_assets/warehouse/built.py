"""What a computation hands over to be published.

What belongs here: rows, models and metrics as values. What does not: writing them (writing.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

if TYPE_CHECKING:
    import ibis.expr.types as ir


Trigger = Literal["first", "cadence", "request", "rollback"]


@dataclass(frozen=True)
class FittedModel:
    """One fit (or rollback) of a model. `model` is text: LightGBM's own format, JSON, or a table as CSV."""

    model_name: str
    model_version: str
    fitted_as_of: date
    trigger: Trigger
    is_promoted: bool
    promoted_as_of: date | None
    parameters: Mapping[str, Any]
    features: Sequence[str]
    metrics: Mapping[str, Any]
    model_format: Literal["lightgbm", "json", "table"]
    model: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Built:
    """What a concept function made for a window of days.

    tables: table name -> every row of the window, as a Polars frame or an Ibis expression; all the concept's tables.
    models: fits and rollbacks of the window. degraded: table -> the source it lacks, for tables left empty.
    metrics: table -> day -> name -> number worth plotting (counts, errors, seconds).
    """

    tables: Mapping[str, pl.DataFrame | ir.Table]
    models: Sequence[FittedModel] = ()
    degraded: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[date, Mapping[str, float]]] = field(default_factory=dict)
