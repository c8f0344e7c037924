"""What lies beside the warehouse: its path, and copies that are read without opening it.

What belongs here: files of ledger and verdict, written whole. What does not: the lock (opening.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from marketing_assets.config import Store


def warehouse_path(store: Store, environment: Mapping[str, str] = os.environ) -> Path:
    """MARKETING_WAREHOUSE, or warehouse.duckdb beside store.yaml."""
    return Path(environment.get("MARKETING_WAREHOUSE") or store.folder / "warehouse.duckdb").resolve()


def ledger_copy(store: Store) -> Path:
    return warehouse_path(store).with_name("ledger.parquet")


def verdict_copy(store: Store) -> Path:
    return warehouse_path(store).with_name("verdict.json")


def read_verdict_copy(store: Store) -> dict[str, Any] | None:
    """The newest drift verdict as last committed, without opening the warehouse; None before the first."""
    path = verdict_copy(store)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def read_ledger_copy(store: Store) -> pl.DataFrame:
    """The ledger as last committed, without opening the warehouse; empty before the first run."""
    path = ledger_copy(store)
    # read whole at once: polars opens a path more than once, and a run may put another file in its place meanwhile
    return pl.read_parquet(path.read_bytes()) if path.exists() else pl.DataFrame(schema=LEDGER_SCHEMA)


LEDGER_SCHEMA: dict[str, Any] = {
    "table_name": pl.String, "partition_date": pl.Date, "rows": pl.Int64, "content_hash": pl.String, "state_hash": pl.String,
    "input_fingerprint": pl.String, "code_version": pl.String, "run_id": pl.String, "built_at": pl.Datetime("us"), "degraded": pl.String,
}


def replace_file(path: Path, content: str) -> None:
    """Write a text file whole or not at all."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(content, encoding="utf-8")
    os.replace(temporary, path)
