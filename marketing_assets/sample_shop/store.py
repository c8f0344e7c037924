"""The store.yaml of a generated shop: how its landing files become the inputs.

What belongs here: the mapping and the settings that follow from the world. What does not: the demo's own file, which stands in
data/sample_shop/ and says the same with comments.
"""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from marketing_assets.sample_shop.records import SERVICE_ITEM
from marketing_assets.sample_shop.world import TIMEZONE, World

_EVERY_DAY = ("events", "conversions", "items", "market_days")
_SOMETIMES = ("item_drivers", "campaigns", "creatives", "placements", "identities", "contacts", "surveys", "erasures")


def store_settings(world: World, last_day: date | None = None, **sections: Any) -> dict[str, Any]:
    """The content of a store.yaml; sections extend or replace what would stand there."""
    mapped: dict[str, Any] = {
        name: {"files": f"landing/{name}/{{date}}.csv.gz", "columns": {"*": "*"}} for name in (*_EVERY_DAY, *_SOMETIMES)
    }
    for name in _SOMETIMES:
        mapped[name]["missing_file"] = "empty"
    mapped["impressions"] = {
        "files": "landing/impressions/{date}.csv.gz",
        "columns": {"*": "*", "context": "json_object('device', device)"},
    }
    content: dict[str, Any] = {
        "name": "sample_shop",
        "timezone": TIMEZONE,
        "currency": "EUR",
        "first_day": world.first_day,
        "sources": mapped,
        "cleaning": {"service_item_pattern": f"^{SERVICE_ITEM}$"},
        "ad_planning": {"daily_budget": round(world.common_budget, 2)},
    }
    if last_day is not None:
        content["last_day"] = last_day
    for name, value in sections.items():
        both = isinstance(value, dict) and isinstance(content.get(name), dict)
        content[name] = {**content[name], **value} if both else value
    return content


def write_settings(folder: Path, settings: dict[str, Any]) -> Path:
    """folder/store.yaml, whole or not at all. Returns its path."""
    path = folder / "store.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    started = path.with_name(".store.yaml.part")
    started.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    os.replace(started, path)
    return path
