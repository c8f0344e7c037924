"""One day's export: files in exports/<day>/, their manifest, and the decisions frozen as given out.

What belongs here: order and record of an export. What does not: what is in the files (decisions.py, audiences.py).

The decision is recorded in the warehouse before a file is written, so that nothing can be acted on that is not frozen; an
export that was cut off is finished by running it again. The same decision exported again changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from marketing_assets.config import Store
from marketing_assets.exports.approval import ApprovalNeeded, is_plan_approved, read_approval
from marketing_assets.exports.audiences import addressable
from marketing_assets.exports.decisions import Decision, audiences_decision, lists_decision, orders_decision, plan_decision
from marketing_assets.exports.errors import ExportError
from marketing_assets.exports.files import ExportFile, write_file
from marketing_assets.warehouse import Reader, Warehouse, digest

KINDS: dict[str, Callable[[Reader, date, Store, pl.DataFrame], Decision]] = {
    "plan": plan_decision,
    "lists": lists_decision,
    "audiences": audiences_decision,
    "orders": orders_decision,
}
MANIFEST = "manifest.json"
CHECKSUMS = "checksums.sha256"

_TABLES = """
CREATE TABLE IF NOT EXISTS export_manifest (
    export_id VARCHAR NOT NULL, partition_date DATE NOT NULL, kind VARCHAR NOT NULL, path VARCHAR NOT NULL, rows BIGINT NOT NULL,
    bytes BIGINT NOT NULL, sha256 VARCHAR NOT NULL, exported_at TIMESTAMP NOT NULL, approved_by VARCHAR)
"""


class ExportConflict(ExportError):
    """What was exported for this day has changed since."""


@dataclass(frozen=True)
class Exported:
    """What an export did. unchanged: kinds that had been given out exactly so before. skipped: kind -> why nothing went out."""

    folder: Path
    manifest: dict[str, Any]
    written: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def export_folder(store: Store, day: date) -> Path:
    return store.folder / "exports" / day.isoformat()


def export_day(
    warehouse: Warehouse,
    day: date,
    store: Store,
    exported_at: datetime,
    kinds: Sequence[str] = tuple(KINDS),
    *,
    is_replacement: bool = False,
) -> Exported:
    """Export the decisions of `day`.

    exported_at: instant of this export, UTC without zone. is_replacement: give out a decision that differs from the one
    exported before. Raises ApprovalNeeded where the plan waits for a person, ExportConflict where a decision changed since
    it was exported, ExportError where the day was never built.
    """
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise ExportError(f"export: no such kind: {', '.join(unknown)}; there are {', '.join(KINDS)}")
    reader = warehouse.reader(day)
    # consent counts as of now, not as of the day exported: what was withdrawn since holds
    newest = max((built for table, built in warehouse.ledger if table == "raw_contacts"), default=day)
    contacts = addressable(warehouse.reader(max(day, newest)), max(day, newest))
    decisions = [_decide(warehouse, reader, day, store, kind, contacts) for kind in KINDS if kind in kinds]
    folder = export_folder(store, day)
    skipped = {decision.kind: decision.nothing for decision in decisions if decision.nothing is not None}
    given = [decision for decision in decisions if decision.nothing is None]
    warehouse.connection.execute(_TABLES)
    written: list[str] = []
    unchanged: list[str] = []
    entries: dict[str, dict[str, Any]] = {}
    with warehouse.transaction():
        for decision in given:
            entry, is_new = _record(warehouse, decision, day, store, exported_at, is_replacement)
            entries[decision.kind] = entry
            (written if is_new else unchanged).append(decision.kind)
    manifest = _write(folder, day, store, given, entries)
    return Exported(folder, manifest, written, unchanged, skipped)


def _decide(warehouse: Warehouse, reader: Reader, day: date, store: Store, kind: str, contacts: pl.DataFrame) -> Decision:
    decision = KINDS[kind](reader, day, store, contacts)
    if warehouse.ledger and (decision.table, day) not in warehouse.ledger:
        raise ExportError(f"export: {decision.table} of {day} was never built; materialise that day first")
    if kind == "plan" and decision.nothing is None and not is_plan_approved(reader, day, store):
        approval = read_approval(store, day)
        why = (
            "has not been approved"
            if approval is None
            else f"changed since {approval.approved_by} approved it on {approval.approved_at}"
        )
        raise ApprovalNeeded(f"the plan of {day} {why}; read the report, then run: marketing approve --day {day} --by NAME")
    return decision


def hash_of(decision: Decision) -> str:
    """Of what is frozen and of every file that does not merely restate it in another form."""
    return digest(
        decision.kind,
        decision.text,
        *(f"{file.path} {file.sha256}" for file in decision.files if not file.path.endswith(".parquet")),
    )


def _record(
    warehouse: Warehouse, decision: Decision, day: date, store: Store, exported_at: datetime, is_replacement: bool
) -> tuple[dict[str, Any], bool]:
    """Inside a transaction: freeze the decision, unless it is frozen already. Returns its manifest entry and whether it is new."""
    content_hash = hash_of(decision)
    export_id = digest(day, content_hash)[:12]
    earlier = warehouse.connection.execute(
        "SELECT export_id, content_hash, exported_at FROM exported_decisions WHERE table_name = ? AND partition_date = ? "
        "ORDER BY exported_at DESC, export_id DESC LIMIT 1",
        [decision.table, day],
    ).fetchone()
    is_new = earlier is None or earlier[1] != content_hash
    if earlier is not None and is_new and not is_replacement:
        raise ExportConflict(
            f"the {decision.kind} of {day} was exported at {earlier[2]:%Y-%m-%d %H:%M} UTC and has changed since; people may have acted on it. "
            "Export with replacement to give out the new one"
        )
    at = exported_at if is_new or earlier is None else earlier[2]
    approval = read_approval(store, day) if decision.kind == "plan" and store.ad_planning.needs_approval else None
    if is_new:
        warehouse.connection.execute(
            "INSERT INTO exported_decisions VALUES (?, ?, ?, ?, ?, ?)",
            [export_id, decision.table, day, at, content_hash, decision.text],
        )
        warehouse.connection.executemany(
            "INSERT INTO export_manifest VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                [
                    export_id,
                    day,
                    decision.kind,
                    file.path,
                    file.rows,
                    len(file.content),
                    file.sha256,
                    at,
                    approval.approved_by if approval else None,
                ]
                for file in decision.files
            ],
        )
    entry: dict[str, Any] = {
        "export_id": export_id,
        "exported_at": at.isoformat(timespec="seconds") + "Z",
        "table": decision.table,
        "content_hash": content_hash,
        **decision.facts,
        "files": [file_entry(file) for file in decision.files],
    }
    if approval is not None:
        entry["approved_by"], entry["approved_at"] = approval.approved_by, approval.approved_at
    return entry, is_new


def file_entry(file: ExportFile) -> dict[str, Any]:
    return {"path": file.path, "rows": file.rows, "bytes": len(file.content), "sha256": file.sha256}


def _write(
    folder: Path, day: date, store: Store, given: Sequence[Decision], entries: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Files first, manifest last: a manifest never names a file that is not there. Other kinds of the day keep their entries."""
    path = folder / MANIFEST
    before = json.loads(path.read_text(encoding="utf-8"))["exports"] if path.exists() else {}
    exports: dict[str, dict[str, Any]] = dict(sorted({**before, **entries}.items()))
    manifest: dict[str, Any] = {"shop": store.name, "as_of_date": day.isoformat(), "exports": exports}
    if not exports:
        return manifest
    for decision in given:
        for file in decision.files:
            write_file(folder / file.path, file.content)
        kept = {file.path for file in decision.files}
        for stale in before.get(decision.kind, {}).get("files", []):
            if stale["path"] not in kept:
                (folder / stale["path"]).unlink(missing_ok=True)
    write_manifest(path, manifest)
    return manifest


def write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """The manifest and, before it, the checksums of what it names."""
    lines = sorted(f"{file['sha256']}  {file['path']}\n" for entry in manifest["exports"].values() for file in entry["files"])
    write_file(path.with_name(CHECKSUMS), "".join(lines).encode())
    write_file(path, (json.dumps(manifest, ensure_ascii=False, indent=2) + "\n").encode())
