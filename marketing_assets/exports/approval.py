"""A person's approval of a plan: a file under control/ beside store.yaml that names the exact plan it is for.

What belongs here: writing, reading and checking approvals. What does not: exporting (build.py).
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path

from marketing_assets.config import Store
from marketing_assets.exports.errors import ExportError
from marketing_assets.warehouse import Reader, digest

PLAN_TABLE = "ad_plan"


class ApprovalNeeded(ExportError):
    """store.yaml asks for a person's approval, and this plan has none."""


@dataclass(frozen=True)
class Approval:
    """Who approved which plan. plan_hash: digest of the plan's rows, so that a plan made again is not approved by mistake."""

    as_of_date: str
    plan_hash: str
    approved_by: str
    approved_at: str
    note: str | None = None


def approval_path(store: Store, day: date) -> Path:
    return store.folder / "control" / "plan_approvals" / f"{day}.json"


def plan_hash(reader: Reader, day: date) -> str:
    """Digest of the plan's rows of `day`: the same rows have the same digest wherever they were made."""
    return digest(reader.window(PLAN_TABLE, day, day).write_csv(float_precision=9))


def approve_plan(
    reader: Reader, day: date, store: Store, approved_by: str, approved_at: datetime, note: str | None = None
) -> Approval:
    """Approve the plan of `day` as it stands. Raises ExportError where there is none, or nobody is named."""
    if not approved_by.strip():
        raise ExportError("approve: say who approves the plan")
    if reader.window(PLAN_TABLE, day, day, ["plan_id"]).is_empty():
        raise ExportError(f"approve: there is no plan of {day}; ad_plan_runs of that day says why")
    approval = Approval(
        day.isoformat(), plan_hash(reader, day), approved_by.strip(), approved_at.isoformat(timespec="seconds"), note
    )
    path = approval_path(store, day)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(asdict(approval), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return approval


def read_approval(store: Store, day: date) -> Approval | None:
    """The approval of the plan of `day`, None where there is none. Raises ExportError where the file cannot be read."""
    path = approval_path(store, day)
    if not path.exists():
        return None
    try:
        return Approval(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ExportError(f"{path}: not an approval: {error}; delete it and approve the plan again") from error


def is_plan_approved(reader: Reader, day: date, store: Store) -> bool:
    """Whether the plan of `day`, as it stands, was approved, or needs no approval."""
    if not store.ad_planning.needs_approval:
        return True
    approval = read_approval(store, day)
    return approval is not None and approval.plan_hash == plan_hash(reader, day)
