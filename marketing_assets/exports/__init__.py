"""What leaves the system for others to act on: the plan, lists, audiences and orders as files, with approval and a manifest.

What belongs here: formats of files, who may be in them, and the record of what was given out. What does not: deciding any of
it (the concept modules), or sending it anywhere.
"""

from marketing_assets.exports.approval import Approval, ApprovalNeeded, approve_plan, is_plan_approved, read_approval
from marketing_assets.exports.build import KINDS, ExportConflict, Exported, export_day, export_folder
from marketing_assets.exports.errors import ExportError

__all__ = [
    "KINDS",
    "Approval",
    "ApprovalNeeded",
    "ExportConflict",
    "ExportError",
    "Exported",
    "approve_plan",
    "export_day",
    "export_folder",
    "is_plan_approved",
    "read_approval",
]
