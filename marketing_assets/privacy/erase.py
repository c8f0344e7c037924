"""Erasing people: out of every table, exported file, page and preview, in one go that can be repeated.

What belongs here: who is meant (a person's other identities too), the order of the work, and an account of it. What does not:
what is a person's in an input (people.py), keeping the ledger consistent (ledger.py).

The order makes a run that was cut off harmless: first the list that keeps them out of what is read again, then files, then all
tables in one transaction; what is needed to find them goes last. Run it again and the rest is done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import polars as pl

from marketing_assets.config import UNKNOWN_USER
from marketing_assets.exports.erasing import ErasedLines, erase_from_exports
from marketing_assets.privacy.beside import erase_drafts, erase_from_history, erase_pages, rewrite_pages
from marketing_assets.privacy.ledger import Removal, removing
from marketing_assets.privacy.marks import PrivacyError, read_marks, write_marks
from marketing_assets.privacy.people import BLANKED, REMOVED
from marketing_assets.schemas import TABLES
from marketing_assets.warehouse import Warehouse

_CLEAN_OF = {"events": "clean_events", "impressions": "clean_impressions"}


@dataclass(frozen=True)
class Erasure:
    """What an erasure did. users: how many people were asked for, ids: with their other identities. rows: table -> rows deleted or
    blanked. lines: exported file -> lines. pages: days written again. drafts: answers of a language model. previews: rows of previews
    in Dagster's history. remaining: what it could not reach, in words."""

    users: int = 0
    ids: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    pages: list[date] = field(default_factory=list)
    drafts: int = 0
    previews: int = 0
    remaining: list[str] = field(default_factory=list)


def erase_users(
    warehouse: Warehouse, user_ids: Collection[str] | None, today: date, tell: Callable[[str], None] = lambda text: None
) -> Erasure:
    """Forget these users, or everyone whose request has landed in `erasures` where None.

    today: day that is put on record. Doing it again changes nothing. Raises PrivacyError for an id that is nobody's.
    """
    asked = set(requested(warehouse) if user_ids is None else user_ids)
    if asked & {"", UNKNOWN_USER}:
        raise PrivacyError(f"'' and {UNKNOWN_USER!r} stand for people nobody knows: there is nobody to erase")
    if not asked:
        return Erasure()
    ids = sorted(asked | _identities(warehouse, asked))
    store = warehouse.store
    _list(warehouse, ids)
    contacts = warehouse.connection.execute(
        "SELECT email, phone, country FROM raw_contacts WHERE user_id IN (SELECT user_id FROM erasing)").pl()
    landed = _landed_files(warehouse)
    write_marks(store, read_marks(store).with_erased(ids, today))
    tell(f"{len(ids)} ids are on the list that landing files are read against")
    lines = erase_from_exports(warehouse, store, ids, contacts)
    previews = erase_from_history(store, ids)
    pages = erase_pages(store, ids)
    tickets = warehouse.connection.execute("SELECT ticket_id FROM service_tickets WHERE user_id IN (SELECT user_id FROM erasing)").fetchall()
    drafts = erase_drafts(store, {ticket for (ticket,) in tickets})
    with removing(warehouse) as removal:
        _erase_inputs(removal)
        _erase_rejected(removal, set(ids))
        for table in _tables_of_people():
            removal.delete(table, "user_id IN (SELECT user_id FROM erasing)")
    warehouse.connection.execute("DROP TABLE erasing")
    tell(f"{sum(removal.rows.values())} rows of {len(removal.rows)} tables")
    rewrite_pages(warehouse, pages)
    return Erasure(len(asked), len(ids), removal.rows, lines.lines, pages, drafts, previews, _remaining(warehouse, ids, landed, lines))


def requested(warehouse: Warehouse) -> list[str]:
    """Users whose request to be forgotten has landed and was not carried out yet."""
    newest = max((day for table, day in warehouse.ledger if table == "raw_erasures"), default=None)
    if newest is None:
        return []
    found = warehouse.reader(newest).accepted("erasures", None, newest)["user_id"]
    return sorted(set(found.drop_nulls()))


def _identities(warehouse: Warehouse, asked: Collection[str]) -> set[str]:
    """Every other id of these people: an identity is whom it was first said to be, as cleaning reads it."""
    rows = warehouse.connection.execute(
        """SELECT from_user_id, min(user_id) FROM (
               SELECT *, min(landed_date) OVER (PARTITION BY from_user_id) AS first FROM raw_identities
               WHERE from_user_id <> user_id)
           WHERE landed_date = first GROUP BY 1"""
    ).fetchall()
    beside: dict[str, set[str]] = {}
    for one, other in rows:
        beside.setdefault(one, set()).add(other)
        beside.setdefault(other, set()).add(one)
    found, open_ones = set(asked), list(asked)
    while open_ones:
        new = beside.get(open_ones.pop(), set()) - found
        found |= new
        open_ones += new
    return found


def _list(warehouse: Warehouse, ids: Sequence[str]) -> None:
    frame = pl.DataFrame({"user_id": list(ids)})
    warehouse.connection.register("incoming", frame.to_arrow())
    warehouse.connection.execute("CREATE OR REPLACE TEMPORARY TABLE erasing AS SELECT * FROM incoming")
    warehouse.connection.unregister("incoming")


def _is_theirs(columns: Sequence[str]) -> str:
    return " OR ".join(f"{name} IN (SELECT user_id FROM erasing)" for name in columns)


def _landed_files(warehouse: Warehouse) -> list[str]:
    """What is joined to landing files with rows of these people, which may be what names them, and those files."""
    told = {**dict.fromkeys(BLANKED, ("user_id",)), **REMOVED}
    parts = [f"SELECT '{name}', source_file FROM raw_{name} WHERE {_is_theirs(columns)}" for name, columns in told.items()]
    rows = warehouse.connection.execute(" UNION ".join(parts) + " ORDER BY 2, 1").fetchall()
    blocks = [block for source in dict.fromkeys(source for source, _ in rows) for block in warehouse.store.blocks(source)]
    return list(dict.fromkeys([*(joined.files for block in blocks for joined in block.join.values()), *(name for _, name in rows)]))


def _tables_of_people() -> list[str]:
    """Computed tables with rows about single users: those rows go."""
    facts = {*(f"raw_{name}" for name in (*BLANKED, *REMOVED)), *_CLEAN_OF.values()}
    return [name for name, spec in TABLES.items() if "user_id" in spec.columns and name not in facts]


def _erase_inputs(removal: Removal) -> None:
    for source, columns in BLANKED.items():
        for table in (f"raw_{source}", _CLEAN_OF.get(source)):
            if table is not None:
                removal.blank(table, columns, _is_theirs(["user_id"]))
    for source, columns in REMOVED.items():
        removal.delete(f"raw_{source}", _is_theirs(columns))


def _erase_rejected(removal: Removal, ids: Collection[str]) -> None:
    """Refused rows are kept as JSON and with a reason that may quote them."""
    connection = removal.warehouse.connection
    for source, columns in {**dict.fromkeys(BLANKED, ("user_id",)), **REMOVED}.items():
        theirs = " OR ".join(f"json_extract_string(row, '$.{name}') IN (SELECT user_id FROM erasing)" for name in columns)
        if source in REMOVED:
            removal.delete("rejected_rows", f"source = ? AND ({theirs})", [source])
            continue
        found = connection.execute(
            f"SELECT landed_date, raw_row_id, reason, row FROM rejected_rows WHERE source = ? AND ({theirs})", [source]).fetchall()
        counts: dict[date, int] = {}
        for day, raw_row_id, reason, row in found:
            content: dict[str, Any] = json.loads(row)
            gone = {name: content[name] for name in BLANKED[source] if content.get(name) is not None}
            for value in sorted({*map(str, gone.values()), *ids}, key=len, reverse=True):
                reason = reason.replace(value, "(erased)")
            text = json.dumps({**content, **dict.fromkeys(gone)}, ensure_ascii=False, separators=(",", ":"))
            connection.execute(
                "UPDATE rejected_rows SET reason = ?, row = ? WHERE landed_date = ? AND source = ? AND raw_row_id = ?",
                [reason, text, day, source, raw_row_id],
            )
            counts[day] = counts.get(day, 0) + 1
        if counts:
            removal.note("rejected_rows", counts)


def _remaining(warehouse: Warehouse, ids: Collection[str], landed: Sequence[str], lines: ErasedLines) -> list[str]:
    """What is beyond reach, for a person to see to."""
    found = []
    if landed:
        shown = ", ".join(landed[:5]) + (f" and {len(landed) - 5} more" if len(landed) > 5 else "")
        found.append(f"landing files: {len(landed)} hold rows of them ({shown}); they are blanked or left out whenever these are read again")
    unread = 0
    for source in (*BLANKED, *REMOVED):
        texts = warehouse.connection.execute(f"SELECT source_error FROM raw_{source} WHERE source_error IS NOT NULL").fetchall()
        unread += sum(any(user_id in text for user_id in ids) for (text,) in texts)
    if unread:
        found.append(f"{unread} lines that could not be read, and may name them: correct the landing files, and those days are built again")
    if lines.given_out:
        days = ", ".join(map(str, lines.given_out[:5])) + (f" and {len(lines.given_out) - 5} more days" if len(lines.given_out) > 5 else "")
        found.append(f"copies of exported files that others hold: those of {days} named them")
    found.append("backups of the warehouse and of the landing files")
    return found
