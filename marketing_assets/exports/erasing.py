"""Taking people out of files that were given out.

What belongs here: finding a person's lines in exports/, writing the files without them, and the record of both. What does not:
who is to be forgotten, or tables (privacy/). Copies that others hold are theirs to erase: the days are named.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from marketing_assets.config import Store
from marketing_assets.exports.audiences import e164, google_email, hashed, normal_email
from marketing_assets.exports.build import MANIFEST, file_entry, hash_of, write_manifest
from marketing_assets.exports.decisions import Decision, digests
from marketing_assets.exports.files import ExportFile, csv_bytes, write_file
from marketing_assets.warehouse import Warehouse


@dataclass(frozen=True)
class ErasedLines:
    """lines: path below exports/ -> lines taken out. given_out: days whose files named somebody, so that others hold copies."""

    lines: dict[str, int] = field(default_factory=dict)
    given_out: list[date] = field(default_factory=list)


def contact_hashes(contacts: pl.DataFrame) -> set[str]:
    """Every hash by which these people may stand in an audience file. contacts: email, phone, country."""
    found: set[str] = set()
    for row in contacts.select("email", "phone", "country").unique().iter_rows(named=True):
        email, phone = normal_email(row["email"]), e164(row["phone"], row["country"])
        if email:
            found |= {hashed(email), hashed(google_email(email))}
        if phone:
            found |= {hashed(phone), hashed(phone.removeprefix("+"))}
    return found


def erase_from_exports(warehouse: Warehouse, store: Store, user_ids: Collection[str], contacts: pl.DataFrame) -> ErasedLines:
    """Write every exported file of people without these, with manifest, checksums and the frozen record to match.

    contacts: what was known of them. Doing it again changes nothing.
    """
    result = ErasedLines()
    known = contact_hashes(contacts)
    for path in sorted((store.folder / "exports").glob(f"*/{MANIFEST}")):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        day = date.fromisoformat(manifest["as_of_date"])
        is_touched = False
        for kind, entry in manifest["exports"].items():
            files = [_without(file, user_ids, known) for file in _files(path.parent, entry)]
            named = {one["path"]: one for one in entry["files"]}
            # against the manifest, which is written last: a run that was cut off is finished by the next one
            changed = [file for file in files if _is_of_people(file.path) and file.sha256 != named[file.path]["sha256"]]
            if not changed:
                continue
            is_touched = True
            for file in changed:
                write_file(path.parent / file.path, file.content)
                result.lines[f"{day}/{file.path}"] = named[file.path]["rows"] - file.rows
            entry["content_hash"] = _restate(warehouse, day, kind, entry, files)
            entry["files"] = [file_entry(file) for file in files]
        if is_touched:
            write_manifest(path, manifest)
            result.given_out.append(day)
    return result


def _files(folder: Path, entry: dict[str, Any]) -> list[ExportFile]:
    """The files of one kind that are still there."""
    there = [one for one in entry["files"] if (folder / one["path"]).exists()]
    return [ExportFile(one["path"], (folder / one["path"]).read_bytes(), one["rows"]) for one in there]


def _is_of_people(path: str) -> bool:
    return path in ("lists_by_user.jsonl", "plan_by_user.jsonl") or path.startswith("audiences/")


def _without(file: ExportFile, user_ids: Collection[str], known: set[str]) -> ExportFile:
    """The file without lines of these people; as it is where it has none, or is not about people."""
    if not _is_of_people(file.path):
        return file
    if file.path.endswith(".jsonl"):
        lines = file.content.splitlines(keepends=True)
        kept = [line for line in lines if json.loads(line)["user_id"] not in user_ids]
        return ExportFile(file.path, b"".join(kept), len(kept))
    header, *rows = csv.reader(io.StringIO(file.content.decode()))
    left = [row for row in rows if not known.intersection(row[:2])]
    return ExportFile(file.path, csv_bytes(header, left), len(left))


def _restate(warehouse: Warehouse, day: date, kind: str, entry: dict[str, Any], files: list[ExportFile]) -> str:
    """The record of what was given out, as if these people had never been in it. Returns the decision's new content hash."""
    frozen = warehouse.connection.execute(
        "SELECT decision FROM exported_decisions WHERE export_id = ? AND table_name = ? AND partition_date = ?",
        [entry["export_id"], entry["table"], day],
    ).fetchone()
    # of files about people only their checksums are frozen
    text = digests(files) if kind in ("lists", "audiences") or frozen is None else str(frozen[0])
    new_hash = hash_of(Decision(kind, entry["table"], files, text))
    warehouse.connection.execute(
        "UPDATE exported_decisions SET content_hash = ?, decision = ? WHERE export_id = ? AND table_name = ? AND partition_date = ?",
        [new_hash, text, entry["export_id"], entry["table"], day],
    )
    for file in files:
        warehouse.connection.execute(
            "UPDATE export_manifest SET rows = ?, bytes = ?, sha256 = ? WHERE export_id = ? AND path = ?",
            [file.rows, len(file.content), file.sha256, entry["export_id"], file.path],
        )
    return new_hash
