"""Writing: a window replaced in one transaction, verified, hashed and entered in the ledger.

What belongs here: everything that changes the warehouse. What does not: what the numbers mean.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import polars as pl

from marketing_assets.config import KEYFRAME_DAYS, Store
from marketing_assets.schemas import TABLES, Table
from marketing_assets.warehouse.built import Built
from marketing_assets.warehouse.copies import LEDGER_SCHEMA, ledger_copy, replace_file, verdict_copy
from marketing_assets.warehouse.errors import InvalidTable
from marketing_assets.warehouse.reader import Engine, Reader, days_between
from marketing_assets.warehouse.tables import DUCKDB_TYPES, create_tables, hash_terms, insert_model, verification_rules

if TYPE_CHECKING:
    import ibis.expr.types as ir


PIECE_ROWS = 122_880
"""Rows one thread writes at a time: as many as the engine keeps in a block."""
RANGE_ROWS = 2_000_000
"""Landed events and impressions that are computed and laid down together, at least; their rows lie in no order of days."""


@dataclass(frozen=True)
class LedgerRow:
    """What the ledger knows of one table's partition; see DESIGN of the ledger in docs/architecture.md."""

    table_name: str
    partition_date: date
    rows: int
    content_hash: str
    state_hash: str
    input_fingerprint: str
    code_version: str
    run_id: str
    built_at: datetime
    degraded: str | None

    def same_result(self, other: LedgerRow | None) -> bool:
        """Whether the partition came out as before; run_id and built_at are left out."""
        return other is not None and (
            (self.rows, self.content_hash, self.state_hash, self.input_fingerprint, self.code_version, self.degraded)
            == (other.rows, other.content_hash, other.state_hash, other.input_fingerprint, other.code_version, other.degraded)
        )


Ledger = dict[tuple[str, date], LedgerRow]


def digest(*parts: object) -> str:
    """A short stable digest of texts and numbers."""
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def cut_by_rows(days: Sequence[date], rows: Mapping[date, int]) -> list[list[date]]:
    """A window as pieces of RANGE_ROWS landed rows or KEYFRAME_DAYS days, whichever is longer.

    This bounds what a later day reads beyond its own rows, however long the range was: it looks back that far anyway.
    """
    pieces: list[list[date]] = []
    held = 0
    for day in days:
        if not pieces or (held >= RANGE_ROWS and len(pieces[-1]) >= KEYFRAME_DAYS):
            pieces.append([])
            held = 0
        pieces[-1].append(day)
        held += rows.get(day, 0)
    return pieces


class Warehouse:
    """The open warehouse of one shop. One process holds it at a time; use `open_warehouse`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, store: Store, path: Path | None) -> None:
        self.connection = connection
        self.store = store
        self.path = path
        self._engine = Engine(connection)
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET preserve_insertion_order = false")
        connection.execute("SET dynamic_or_filter_threshold = 10000")  # a join with few keys reads only the blocks that hold them
        create_tables(connection)
        self.ledger: Ledger = {}
        self._undo: dict[tuple[str, date], LedgerRow | None] = {}
        for row in connection.execute("SELECT * FROM partition_ledger").fetchall():
            entry = LedgerRow(*row)
            self.ledger[entry.table_name, entry.partition_date] = entry

    def reader(self, last_day: date) -> Reader:
        return Reader(self.connection, self.store, last_day, self._engine)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is committed together, or nothing is."""
        self.connection.execute("BEGIN TRANSACTION")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(duckdb.Error):
                self.connection.execute("ROLLBACK")
            for key, row in self._undo.items():
                if row is None:
                    del self.ledger[key]
                else:
                    self.ledger[key] = row
            self._undo.clear()
            raise
        if self._undo:
            self._undo.clear()
            self.copy_ledger()

    def replace_window(self, step: str, names: Sequence[str], days: Sequence[date], built: Built) -> dict[str, dict[date, tuple[int, str]]]:
        """Inside a transaction: replace the window of every table of a step, and its fits. Returns rows and content hash by table and day.

        Raises InvalidTable naming table, column, rule and examples; the caller's transaction then rolls back.
        """
        start, end = days[0], days[-1]
        if missing := set(names) - set(built.tables):
            raise InvalidTable(f"step {step}: no rows handed over for {', '.join(sorted(missing))}")
        results: dict[str, dict[date, tuple[int, str]]] = {}
        for name in names:
            spec = TABLES[name]
            self.connection.execute(f"DELETE FROM {name} WHERE {spec.partition_column} BETWEEN ? AND ?", [start, end])
            inserted = self._insert(spec, built.tables[name])
            if not inserted:  # nothing to look at: most nights most inputs have no rows
                results[name] = dict.fromkeys(days_between(start, end), (0, digest(0)))
                continue
            self._verify(spec, start, end)
            results[name] = self.partition_hashes(spec, start, end)
            if strays := inserted - sum(rows for rows, _ in results[name].values()):
                raise InvalidTable(f"table {name}: {strays} rows without {spec.partition_column} in {start}...{end}; nothing was published")
        self.connection.execute("DELETE FROM fitted_models WHERE step = ? AND as_of_date BETWEEN ? AND ?", [step, start, end])
        for model in sorted(built.models, key=lambda fit: (fit.fitted_as_of, fit.model_name, fit.model_version, fit.trigger)):
            insert_model(self.connection, model, step)
        return results

    def _insert(self, spec: Table, rows: pl.DataFrame | ir.Table) -> int:
        """How many rows were written."""
        columns = spec.columns
        found = list(rows.columns)
        if set(found) != set(columns):
            raise InvalidTable(
                f"table {spec.name}: columns differ from its schema; missing {sorted(set(columns) - set(found))}, "
                f"unexpected {sorted(set(found) - set(columns))}"
            )
        chosen = ", ".join(f"CAST({column} AS {DUCKDB_TYPES[type(kind).__name__]}) AS {column}" for column, kind in columns.items())
        if isinstance(rows, pl.DataFrame):
            if rows.height:
                # in even pieces, or a second thread waits for the first, and takes as much time at it
                whole = rows.rechunk()
                pieces = pl.concat([whole.slice(first, PIECE_ROWS) for first in range(0, rows.height, PIECE_ROWS)], rechunk=False)
                self.connection.register("incoming", pieces.to_arrow(compat_level=pl.CompatLevel.newest()))
                self.connection.execute(f"INSERT INTO {spec.name} SELECT {chosen} FROM incoming")
                self.connection.unregister("incoming")
            return rows.height
        from marketing_assets.compiled import compiled

        written = self.connection.execute(f"INSERT INTO {spec.name} SELECT {chosen} FROM ({compiled(rows)})").fetchone()
        return int(written[0]) if written else 0

    def _verify(self, spec: Table, start: date, end: date) -> None:
        """The pandera model's rules in the engine; where one is broken, pandera itself names the failing rows."""
        rules = verification_rules(spec)
        window = f"{spec.partition_column} BETWEEN $start AND $end"
        given = {"start": start, "end": end}
        # each rule by itself: the engine knows least, largest and missing values of every block and looks only into those it has to
        found = self.connection.execute(
            " UNION ALL ".join(f"SELECT 1 FROM {spec.name} WHERE {window} AND ({rule})" for rule in rules.values()) + " LIMIT 1", given
        ).fetchone()
        if found:
            counts = self.connection.execute(
                f"SELECT {', '.join(f'count(*) FILTER (WHERE {rule})' for rule in rules.values())} FROM {spec.name} WHERE {window}", given
            ).fetchone()
            broken = {name: count for name, count in zip(rules, counts or (), strict=True) if count}
            raise InvalidTable(f"table {spec.name}, {start}...{end}, nothing was published: {self._failures(spec, start, end, broken)}")
        if spec.group not in ("sources", "cleaning"):  # unique there by construction, and too many rows to ask again
            self._check_keys(spec, start, end)

    def _check_keys(self, spec: Table, start: date, end: date) -> None:
        """No key twice. Digests of keys are counted first: much faster, and equal ones of unlike keys only cost the second look."""
        key = ", ".join(dict.fromkeys((spec.partition_column, *spec.key)))
        window = f"{spec.partition_column} BETWEEN ? AND ?"
        digests = self.connection.execute(f"SELECT hash({key}) FROM {spec.name} WHERE {window}", [start, end]).pl().to_series()
        if digests.n_unique() == len(digests):
            return
        twice = self.connection.execute(
            f"SELECT {key}, count(*) FROM {spec.name} WHERE {window} GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL LIMIT 3", [start, end]
        ).fetchall()
        if twice:
            raise InvalidTable(f"table {spec.name}, nothing was published: keys ({key}) appear twice, such as {twice}")

    def _failures(self, spec: Table, start: date, end: date, broken: Mapping[str, int]) -> str:
        import ibis
        import pandera.errors

        backend = ibis.duckdb.from_connection(self.connection)
        table = backend.table(spec.name)
        try:
            spec.model.validate(table.filter(table[spec.partition_column].between(start, end)), lazy=True)
        except pandera.errors.SchemaErrors as error:
            cases = error.failure_cases.head(5).to_dict("records")
            return "; ".join(f"{case['column']}: {case['check']}: {case['failure_case']}" for case in cases)
        return "; ".join(f"{rule}: {count} rows" for rule, count in broken.items())

    def partition_hashes(self, spec: Table, start: date, end: date) -> dict[date, tuple[int, str]]:
        """Rows and an order-free content hash by day. Floats count at single precision, measured columns not at all."""
        rows = self.connection.execute(
            f"""SELECT {spec.partition_column}, count(*), sum(h::HUGEINT), bit_xor(h) FROM (
                    SELECT {spec.partition_column}, hash({", ".join(hash_terms(spec))}) AS h FROM {spec.name}
                    WHERE {spec.partition_column} BETWEEN ? AND ?) GROUP BY 1""",
            [start, end],
        ).fetchall()
        found = {day: (count, digest(count, total, xor)) for day, count, total, xor in rows}
        return {day: found.get(day, (0, digest(0))) for day in days_between(start, end)}

    def states(self, name: str, days: Sequence[date], results: Mapping[date, tuple[int, str]]) -> dict[date, str]:
        """What readers of `name` can still see of its past at the end of each day of a window, as a digest.

        Change logs: every entity's newest entry since the last keyframe, whatever its day; issues: the newest issue; day
        tables carry nothing. Inside the publishing transaction.
        """
        spec = TABLES[name]
        if spec.kind == "day":
            return dict.fromkeys(days, "")
        if spec.kind == "issue":
            state, found, earlier = "", {}, days[0] - timedelta(days=1)
            while earlier >= self.store.first_day:
                row = self.ledger.get((name, earlier))
                if row is not None and row.rows:
                    state = row.content_hash
                    break
                earlier -= timedelta(days=1)
            for day in days:
                state = results[day][1] if results[day][0] else state
                found[day] = state
            return found
        reader = self.reader(days[-1])
        keyframe = reader.keyframe_before(days[0])
        keyframes = sorted({reader.keyframe_before(day) for day in days})
        entity = ", ".join(spec.entity)
        rows = self.connection.execute(
            f"""SELECT day, sum(entry - before)::VARCHAR FROM (
                    SELECT as_of_date AS day, entry, coalesce(lag(entry) OVER (
                        PARTITION BY {entity}, list_last(list_filter($keyframes::DATE[], k -> k <= as_of_date)) ORDER BY as_of_date), 0) AS before
                    FROM (SELECT {entity}, as_of_date, sum(hash({", ".join(hash_terms(spec, "as_of_date"))})::HUGEINT) AS entry
                          FROM {name} WHERE as_of_date BETWEEN $start AND $stop GROUP BY ALL))
                GROUP BY day""",
            {"keyframes": keyframes, "start": keyframe, "stop": days[-1]},
        ).fetchall()
        moved = {day: int(total) for day, total in rows}
        total, found = 0, {}
        for day in days_between(keyframe, days[-1]):
            total = moved.get(day, 0) + (0 if day in keyframes else total)
            found[day] = digest(total)
        return {day: found[day] for day in days}

    def model_versions(self) -> list[tuple[str, str, str, date, str]]:
        """Every fit on record, newest first: step, model, version, day fitted, and what became of it."""
        return self.connection.execute(
            """SELECT step, model_name, model_version, fitted_as_of,
                      CASE WHEN is_promoted THEN 'in use from ' || promoted_as_of ELSE 'not promoted' END
               FROM fitted_models ORDER BY fitted_as_of DESC, model_name, model_version, trigger"""
        ).fetchall()

    def models_in_force(self, step: str, days: Sequence[date]) -> dict[date, str]:
        """For each day of a window, a digest of the versions of a step's models that scoring uses at its end."""
        rows = self.connection.execute(
            """SELECT as_of_date, model_name, model_version FROM fitted_models WHERE step = ? AND is_promoted AND as_of_date <= ?
               ORDER BY promoted_as_of, as_of_date, trigger = 'rollback', model_version""",
            [step, days[-1]],
        ).fetchall()
        in_force: dict[str, str] = {}
        found, position = {}, 0
        for day in days:
            while position < len(rows) and rows[position][0] <= day:
                in_force[rows[position][1]] = rows[position][2]
                position += 1
            found[day] = digest(*(f"{model}={version}" for model, version in sorted(in_force.items())))
        return found

    def stage_ledger(self, rows: Sequence[LedgerRow]) -> list[LedgerRow]:
        """Inside a transaction: what the ledger will say. Rows that came out as before keep their run and time.

        Returns the changed ones. They count at once for what is computed next; a rollback takes them back.
        """
        changed = [row for row in rows if not row.same_result(self.ledger.get((row.table_name, row.partition_date)))]
        for row in changed:
            key = row.table_name, row.partition_date
            self._undo.setdefault(key, self.ledger.get(key))
            self.ledger[key] = row
        return changed

    def write_staged(self) -> None:
        """Inside a transaction: the staged ledger rows go to the table."""
        if not self._undo:
            return
        frame = pl.DataFrame([vars(self.ledger[key]) for key in self._undo], schema=LEDGER_SCHEMA, orient="row")
        self.connection.register("incoming", frame.to_arrow())
        if any(before is not None for before in self._undo.values()):
            self.connection.execute(
                "DELETE FROM partition_ledger USING incoming WHERE partition_ledger.table_name = incoming.table_name "
                "AND partition_ledger.partition_date = incoming.partition_date"
            )
        self.connection.execute("INSERT INTO partition_ledger BY NAME SELECT * FROM incoming")
        self.connection.unregister("incoming")

    def copy_ledger(self) -> None:
        """Write ledger.parquet beside the warehouse by atomic rename: what sensors and `marketing status` read."""
        if self.path is None:
            return
        target = ledger_copy(self.store)
        frame = self.connection.execute("SELECT * FROM partition_ledger ORDER BY table_name, partition_date").pl()
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        frame.select(pl.col(name).cast(kind) for name, kind in LEDGER_SCHEMA.items()).write_parquet(temporary)
        os.replace(temporary, target)

    def copy_verdict(self) -> None:
        """Write verdict.json beside the warehouse by atomic rename: the drifted rows of the newest judged day, for the sensor."""
        if self.path is None:
            return
        newest = max((day for table, day in self.ledger if table == "drift_report"), default=None)
        if newest is None:
            return
        rows = self.connection.execute(
            """SELECT verdict_id, any_value(cause), any_value(action), any_value(assets_to_refresh), min(since_date)::VARCHAR,
                      list(metric ORDER BY metric), sum(effect_value)
               FROM drift_report WHERE as_of_date = ? AND verdict_id IS NOT NULL GROUP BY verdict_id ORDER BY verdict_id""", [newest]
        ).fetchall()
        names = ("verdict_id", "cause", "action", "assets_to_refresh", "since_date", "metrics", "effect_value")
        content = {"as_of_date": newest.isoformat(), "verdicts": [dict(zip(names, row, strict=True)) for row in rows]}
        replace_file(verdict_copy(self.store), json.dumps(content, indent=1))
