"""People in what lies beside the warehouse: pages, drafts of answers, and previews in Dagster's history.

What belongs here: finding ids in those files and taking them out. What does not: tables (erase.py) and exports (exports/).
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

from marketing_assets.config import PREVIEW_CHARACTERS, Store, dagster_folder
from marketing_assets.warehouse import Warehouse, replace_file

_HISTORY = (("event_logs", "id", "event"), ("asset_keys", "id", "last_materialization"))
"""Tables of Dagster's event log that hold metadata: table, key, column with JSON."""



def _named(ids: Collection[str]) -> re.Pattern[str]:
    """Any of these ids as a word of its own; of a long one what a preview shows of it. A line too many does no harm there."""
    shown = PREVIEW_CHARACTERS - 1
    parts = [re.escape(one[:shown]) + ("" if len(one) > shown else r"(?![\w-])") for one in sorted(ids, key=len, reverse=True)]
    return re.compile(r"(?<![\w-])(?:" + "|".join(parts) + ")")


def erase_pages(store: Store, ids: Collection[str]) -> list[date]:
    """Delete the pages that name one of these ids; returns their days, to be written again from tables without them."""
    pattern, days = _named(ids), []
    for path in sorted((store.folder / "reports").glob("*.html")):
        if pattern.search(path.read_text(encoding="utf-8")):
            days.append(date.fromisoformat(path.stem))
            path.unlink()
    return days


def rewrite_pages(warehouse: Warehouse, days: Sequence[date]) -> None:
    for day in days:
        from marketing_assets.report import write_report  # takes seconds, and mostly no page names anybody

        write_report(warehouse.reader(day), day, warehouse.store)


def erase_drafts(store: Store, tickets: Collection[str]) -> int:
    """Take the answers to these tickets out of what a language model worded; returns how many."""
    gone = 0
    for path in sorted((store.folder / "drafts").glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        kept = [draft for draft in content["answers"] if draft["subject"] not in tickets]
        if len(kept) < len(content["answers"]):
            gone += len(content["answers"]) - len(kept)
            replace_file(path, json.dumps({**content, "answers": kept}, ensure_ascii=False, indent=2) + "\n")
    return gone


def expire_drafts(store: Store, through: date) -> None:
    """Delete what a language model worded on days up to `through`: its answers quote reviews and orders of then."""
    for path in sorted((store.folder / "drafts").glob("*.json")):
        if date.fromisoformat(path.stem) <= through:
            path.unlink()


def erase_from_history(store: Store, ids: Collection[str]) -> int:
    """Take lines of previews that name one of these ids out of Dagster's SQLite files; returns how many lines."""
    pattern = _named(ids)
    return sum(_erase_from(path, pattern) for path in sorted(dagster_folder(store.folder).rglob("*.db")))


def _erase_from(path: Path, pattern: re.Pattern[str]) -> int:
    gone = 0
    with closing(sqlite3.connect(path, timeout=60)) as connection, connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for table, key, column in _HISTORY:
            if table not in tables:
                continue
            rows = connection.execute(f"SELECT {key}, {column} FROM {table} WHERE {column} LIKE '%| %'").fetchall()
            for number, text in rows:
                if not pattern.search(text):
                    continue
                content, lines = _without_lines(json.loads(text), pattern)
                if lines:
                    connection.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", [json.dumps(content), number])
                    gone += lines
    return gone


def _without_lines(value: Any, pattern: re.Pattern[str]) -> tuple[Any, int]:
    """A JSON value without the lines of markdown tables that match, and how many there were."""
    if isinstance(value, str):
        lines = value.split("\n")
        kept = [line for line in lines if not (line.startswith("| ") and pattern.search(line))]
        return ("\n".join(kept), len(lines) - len(kept)) if len(kept) < len(lines) else (value, 0)
    if isinstance(value, dict):
        parts = {name: _without_lines(part, pattern) for name, part in value.items()}
        return {name: part for name, (part, _) in parts.items()}, sum(lines for _, lines in parts.values())
    if isinstance(value, list):
        found = [_without_lines(part, pattern) for part in value]
        return [part for part, _ in found], sum(lines for _, lines in found)
    return value, 0
