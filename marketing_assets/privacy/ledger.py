"""Taking rows out of published tables without anything counting as changed.

What belongs here: one transaction around a deletion, with hashes, states and fingerprints of the ledger brought to what is left.
What does not: which rows go (erase.py, expire.py).

What was up to date before is up to date after, so that nothing is rebuilt because of it; what was stale stays stale.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from marketing_assets.pipeline import steps_of
from marketing_assets.running import Fingerprints
from marketing_assets.schemas import TABLES
from marketing_assets.warehouse import Warehouse, days_between, digest


@dataclass
class Removal:
    """Rows taken out of tables inside one transaction. rows: table -> rows deleted or blanked."""

    warehouse: Warehouse
    rows: dict[str, int] = field(default_factory=dict)
    days: dict[str, set[date]] = field(default_factory=dict)

    def delete(self, table: str, condition: str, parameters: Sequence[Any] = ()) -> None:
        self._change(table, condition, parameters, f"DELETE FROM {table} WHERE {condition}")

    def blank(self, table: str, columns: Iterable[str], condition: str, parameters: Sequence[Any] = ()) -> None:
        """Empty these columns of the rows that meet a condition."""
        emptied = ", ".join(f"{name} = NULL" for name in columns)
        self._change(table, condition, parameters, f"UPDATE {table} SET {emptied} WHERE {condition}")

    def _change(self, table: str, condition: str, parameters: Sequence[Any], statement: str) -> None:
        query = f"SELECT {TABLES[table].partition_column}, count(*) FROM {table} WHERE {condition} GROUP BY 1"
        found = self.warehouse.connection.execute(query, parameters).fetchall()
        if found:
            self.note(table, {day: count for day, count in found})
            self.warehouse.connection.execute(statement, parameters)

    def note(self, table: str, rows: dict[date, int]) -> None:
        """Rows of a table that were changed by a statement of the caller's own, by day."""
        self.rows[table] = self.rows.get(table, 0) + sum(rows.values())
        self.days.setdefault(table, set()).update(rows)


@contextmanager
def removing(warehouse: Warehouse) -> Iterator[Removal]:
    """One transaction: rows are taken out inside, the ledger follows at its end, or nothing happened."""
    fresh = _up_to_date(warehouse)
    removal = Removal(warehouse)
    with warehouse.transaction():
        yield removal
        _rehash(warehouse, removal)
        _refresh(warehouse, fresh)
        warehouse.write_staged()


def _up_to_date(warehouse: Warehouse) -> list[tuple[str, date]]:
    """Partitions whose inputs are those they were built from. Landing files are none of the ledger's, and stay as they are."""
    fingerprints = Fingerprints(warehouse)
    built: dict[str, list[date]] = {}
    for table, day in sorted(warehouse.ledger):
        built.setdefault(table, []).append(day)
    found = []
    for step in steps_of(warehouse.store):
        if step.source is not None:
            continue
        for day in built.get(step.tables[0], []):
            expected = fingerprints.of(step, day)
            for table in step.tables:
                row = warehouse.ledger.get((table, day))
                if row is not None and row.input_fingerprint == expected:
                    found.append((table, day))
    return found


def _rehash(warehouse: Warehouse, removal: Removal) -> None:
    """Rows, content and state of every table that lost something; of change logs the days after the first loss, too."""
    step_of = {table: step for step in steps_of(warehouse.store) for table in step.tables}
    for table, touched in removal.days.items():
        spec = TABLES[table]
        held = sorted(day for name, day in warehouse.ledger if name == table and day >= min(touched))
        if not held or table not in step_of:
            continue
        days = days_between(held[0], held[-1])
        results = warehouse.partition_hashes(spec, days[0], days[-1])
        states = warehouse.states(table, days, results)
        models = warehouse.models_in_force(step_of[table].name, days)
        rows = []
        for day in held:
            count, content = results[day]
            state = digest(states[day], models[day])
            rows.append(replace(warehouse.ledger[table, day], rows=count, content_hash=content, state_hash=state))
        warehouse.stage_ledger(rows)


def _refresh(warehouse: Warehouse, fresh: Sequence[tuple[str, date]]) -> None:
    fingerprints = Fingerprints(warehouse)
    step_of = {table: step for step in steps_of(warehouse.store) for table in step.tables}
    known: dict[tuple[str, date], str] = {}
    rows = []
    for table, day in fresh:
        step = step_of[table]
        if (step.name, day) not in known:
            known[step.name, day] = fingerprints.of(step, day)
        rows.append(replace(warehouse.ledger[table, day], input_fingerprint=known[step.name, day]))
    warehouse.stage_ledger(rows)
