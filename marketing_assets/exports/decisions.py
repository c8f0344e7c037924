"""The rows of a day that others act on, as files: the plan, lists, orders.

What belongs here: one function per kind, from published tables to files and the decision to freeze. What does not: writing
and recording (build.py). Each takes `contacts`, the people who may be addressed at the time of the export.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import polars as pl

from marketing_assets.config import Store
from marketing_assets.exports.audiences import audience_files, plan_audiences
from marketing_assets.exports.files import ExportFile, frame_csv, json_lines, json_text, parquet_bytes
from marketing_assets.inventory.places import moves
from marketing_assets.warehouse import Reader


@dataclass(frozen=True)
class Decision:
    """What goes out of one kind. text: what is frozen in exported_decisions; rows of the table where evaluation scores them.

    nothing: why there is nothing to export, None where there is something.
    """

    kind: str
    table: str
    files: list[ExportFile] = field(default_factory=list)
    text: str = "[]"
    facts: dict[str, Any] = field(default_factory=dict)
    nothing: str | None = None


def plan_decision(reader: Reader, day: date, store: Store, contacts: pl.DataFrame) -> Decision:
    """plan.csv, plan.parquet, plan.json, and plan_by_user.jsonl where owned placements are planned user by user."""
    plan = reader.window("ad_plan", day, day)
    if plan.is_empty():
        runs = reader.window("ad_plan_runs", day, day)
        why = "; ".join(f"{row['status']}: {row['note']}" for row in runs.to_dicts()) or "no solve"
        return Decision("plan", "ad_plan", nothing=f"there is no plan of {day} ({why})")
    limits = reader.window("ad_plan_constraints", day, day)
    body = {
        "plan_id": plan["plan_id"][0],
        "plan_date": plan["plan_date"][0],
        "as_of_date": day,
        "shop": store.name,
        "timezone": store.timezone,
        "currency": store.currency,
        "cells": plan.to_dicts(),
        "limits": limits.filter(~pl.col("constraint_name").str.starts_with("availability")).to_dicts(),
    }
    files = [
        ExportFile("plan.csv", frame_csv(plan), plan.height),
        ExportFile("plan.parquet", parquet_bytes(plan), plan.height),
        ExportFile(
            "plan.json", (json.dumps(json.loads(json_text(body)), ensure_ascii=False, indent=1) + "\n").encode(), plan.height
        ),
    ]
    facts: dict[str, Any] = {"plan_id": plan["plan_id"][0], "plan_date": str(plan["plan_date"][0])}
    by_user = reader.window("user_ad_plan", day, day)
    if by_user.height:
        allowed = by_user.join(contacts.select("user_id"), on="user_id", how="semi").sort(
            "user_id", "creative_id", "placement_id"
        )
        files.append(ExportFile("plan_by_user.jsonl", json_lines(allowed), allowed.height))
        facts["users_without_consent"] = int(by_user["user_id"].n_unique() - allowed["user_id"].n_unique())
    return Decision("plan", "ad_plan", files, json_text(plan.to_dicts()), facts)


def lists_decision(reader: Reader, day: date, store: Store, contacts: pl.DataFrame) -> Decision:
    """lists_by_user.jsonl and lists_by_item.jsonl: everything in force at the end of the day, one line per user (item)."""
    lists = reader.log_as_of("recommendations", day)
    by_item = reader.log_as_of("item_recommendations", day)
    if lists.is_empty() and by_item.is_empty():
        return Decision("lists", "recommendations", nothing=f"there are no lists in force on {day}")
    entry = pl.struct("rank", "item_id", "score", "reason", "logging_propensity").filter(pl.col("item_id").is_not_null())
    users = lists.group_by("user_id", maintain_order=True).agg(
        pl.col("issued_date", "policy_id", "is_holdout").first(), items=entry
    )
    shown = pl.col("recommended_item_id")
    other = pl.struct("rank", shown.alias("item_id"), "score", "reason").filter(shown.is_not_null())
    items = by_item.group_by("item_id", maintain_order=True).agg(pl.col("issued_date").first(), items=other)
    files = [
        ExportFile("lists_by_user.jsonl", json_lines(users), users.height),
        ExportFile("lists_by_item.jsonl", json_lines(items), items.height),
    ]
    return Decision("lists", "recommendations", files, digests(files), {"users": users.height, "items": items.height})


def audiences_decision(reader: Reader, day: date, store: Store, contacts: pl.DataFrame) -> Decision:
    """A Google Ads and a Meta file per audience."""
    if not reader.has_source("contacts"):
        return Decision(
            "audiences", "audiences", nothing="audiences can only be exported with a source 'contacts' (email, phone, consent)"
        )
    matched = audience_files(plan_audiences(reader, day), contacts)
    if not matched.files:
        return Decision("audiences", "audiences", nothing=f"there are no audiences in force on {day}")
    return Decision("audiences", "audiences", matched.files, digests(matched.files), {"left_out": matched.left_out})


def orders_decision(reader: Reader, day: date, store: Store, contacts: pl.DataFrame) -> Decision:
    """orders.csv: what to order now; order_places.csv: for which places; transfers.csv: what to move between them. Those with rows only."""
    decided = pl.col("order_quantity") > 0, pl.col("allocated_quantity") > 0, pl.col("transfer_quantity") != 0
    plan = reader.window("inventory_plan", day, day).filter(pl.any_horizontal(*decided))
    if plan.is_empty():
        return Decision("orders", "inventory_plan", nothing=f"nothing is to be ordered or moved on {day}")
    items = reader.log_as_of("items", day, ["item_id", "title", "brand", "unit_cost", "pack_size"])
    titled = plan.join(items, on="item_id", how="left", maintain_order="left")
    rows = titled.filter(decided[0]).select(
        "item_id",
        "title",
        "brand",
        "location_id",
        "order_quantity",
        "pack_size",
        "unit_cost",
        "order_cost",
        currency=pl.lit(store.currency),
        expected_date=pl.lit(day) + pl.duration(days=1) * pl.col("lead_time_days"),
        stock_on_hand="stock_on_hand",
        stock_on_order="stock_on_order",
        reorder_point="reorder_point",
        stockout_probability="stockout_probability",
    )
    of_places = titled.filter(decided[1]).select("item_id", "title", "location_id", "allocated_quantity")
    moved = moves(plan).join(items.select("item_id", "title"), on="item_id", how="left", maintain_order="left")
    moved = moved.select("item_id", "title", "from_location", "to_location", "units")
    named = {"orders.csv": rows, "order_places.csv": of_places, "transfers.csv": moved}
    files = [ExportFile(name, frame_csv(frame), frame.height) for name, frame in named.items() if frame.height]
    return Decision("orders", "inventory_plan", files, json_text(plan.to_dicts()), {"orders": rows.height, "transfers": moved.height})


def digests(files: list[ExportFile]) -> str:
    """What is frozen of files about people: their checksums, not their content."""
    return json_text([{"path": file.path, "rows": file.rows, "sha256": file.sha256} for file in files])
