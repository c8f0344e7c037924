"""The landing files of a day: tables of text, dirt added, written by atomic rename.

What belongs here: how rows look in files, and what is wrong with some of them. What does not: what happened (visits.py,
adverts.py).
"""

from __future__ import annotations

import os
from datetime import date, datetime
from pathlib import Path

import numpy as np
import polars as pl

from marketing_assets.sample_shop.world import Floats, World

EVENT_COLUMNS = (
    "event_id", "event_at", "user_id", "event_type", "item_id", "session_id", "order_id", "quantity", "unit_price", "discount",
    "rating", "review_text", "dwell_seconds", "search_query", "device", "channel", "refunds_event_id",
)  # fmt: skip
IMPRESSION_COLUMNS = (
    "impression_id", "shown_at", "user_id", "audience_id", "campaign_id", "creative_id", "item_id", "placement_id", "position",
    "policy_id", "plan_id", "logging_propensity", "spend", "is_clicked", "clicked_at", "device",
)  # fmt: skip
_FORMAT = "%Y-%m-%d %H:%M:%SZ"
_BROKEN_EVENTS: tuple[tuple[str, str], ...] = (
    ("event_at", "yesterday"),
    ("event_at", ""),
    ("event_at", "9999-12-31 00:00:00Z"),
    ("event_at", "2001-01-01 09:30:00Z"),
    ("event_type", "viewed"),
    ("event_type", ""),
    ("unit_price", "NaN"),
    ("unit_price", "-4.99"),
    ("unit_price", "inf"),
    ("quantity", "0"),
    ("dwell_seconds", "-1"),
)
"""Column and the value that makes a row one nobody can use."""
_BROKEN_IMPRESSIONS: tuple[tuple[str, str], ...] = (
    ("shown_at", "soon"),
    ("is_clicked", "maybe"),
    ("logging_propensity", "1.7"),
    ("placement_id", ""),
    ("spend", "-0.01"),
)


def instants(world: World, day: date, second: Floats) -> pl.Series:
    """UTC text of seconds on the shop's clock, counted from the day's midnight; the next day's hours may follow."""
    offset = world.offsets(day)[np.clip(second // 3600, 0, 47).astype(np.int64)]
    midnight = datetime(day.year, day.month, day.day)
    shifted = pl.Series(((second - offset) * 1_000_000).astype(np.int64)).cast(pl.Duration("us"))
    return (pl.select(pl.lit(midnight, pl.Datetime("us")) + shifted).to_series()).dt.strftime(_FORMAT)


def write_csv(frame: pl.DataFrame, folder: Path, source: str, day: date) -> None:
    """folder/source/<day>.csv.gz, whole or not at all."""
    target = folder / source / f"{day.isoformat()}.csv.gz"
    target.parent.mkdir(parents=True, exist_ok=True)
    started = target.with_name(f".{target.name}.part")
    frame.write_csv(started, compression="gzip", compression_level=1, check_extension=False)
    os.replace(started, target)


def with_dirt(
    frame: pl.DataFrame, source: str, key: str, broken_share: float, duplicate_share: float, rng: np.random.Generator
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Text rows with some broken and some repeated ones among them; and source, row_id, problem of what must be refused."""
    record_schema = {"source": pl.String, "row_id": pl.String, "problem": pl.String}
    text = frame.select(pl.all().cast(pl.String))
    if not text.height:
        return text, pl.DataFrame(schema=record_schema)
    kinds = _BROKEN_EVENTS if source == "events" else _BROKEN_IMPRESSIONS
    models = text[rng.integers(0, text.height, int(rng.poisson(broken_share * text.height)))].to_dicts()
    refused: list[tuple[str, str, str]] = []
    for row in models:
        column, value = kinds[int(rng.integers(len(kinds)))]
        row[key], row[column] = f"x{row[key]}-{len(refused)}", value
        refused.append((source, row[key], f"{column}={value}"))
    again = np.unique(rng.integers(0, text.height, int(rng.poisson(duplicate_share * text.height))))
    repeated = text[again]
    refused += [(source, name, "duplicate") for name in repeated[key]]
    whole = pl.concat([text, pl.DataFrame(models, schema=text.schema), repeated])
    return whole[rng.permutation(whole.height)], pl.DataFrame(refused, schema=record_schema, orient="row")
