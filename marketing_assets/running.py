"""Running steps: what is missing or stale, and publishing a window of a step in one transaction. The ledger's side of every run.

What belongs here: fingerprints, gaps, running and mending. What does not: which steps there are (pipeline.py), Dagster
(orchestration/), how bytes reach disk (warehouse/).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from marketing_assets.config import Store
from marketing_assets.pipeline import ALL, Days, Step, steps_of
from marketing_assets.privacy.marks import check_retained, retained
from marketing_assets.schemas import TABLES
from marketing_assets.warehouse import InvalidTable, LedgerRow, MissingPartitions, Warehouse, cut_by_rows, days_between, digest

Tell = Callable[[str], None]


# --- fingerprints -----------------------------------------------------------------------------------------------------


class Fingerprints:
    """What a step's partition rests on, as a digest, from the ledger alone.

    A window of days of a table is a sum of one hash per day, so that any window is a difference of two running sums.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse
        self.store = warehouse.store
        self._sums: dict[str, list[int]] = {}
        self._settings: dict[tuple[str, ...], str] = {}

    def forget(self, tables: Iterable[str], day: date) -> None:
        """After staging: what was summed up of these tables from `day` on no longer holds."""
        for name in tables:
            del self._sums.setdefault(name, [0])[(day - self.store.first_day).days + 1:]

    def _running(self, table: str, end: date) -> list[int]:
        """Sums over the days before first_day + i, for i = 0, 1, ..."""
        sums = self._sums.setdefault(table, [0])
        while len(sums) <= (end - self.store.first_day).days + 1:
            day = self.store.first_day + timedelta(days=len(sums) - 1)
            row = self.warehouse.ledger.get((table, day))
            part = digest(day, "none" if row is None else row.content_hash)
            sums.append((sums[-1] + int(part, 16)) % (1 << 128))
        return sums

    def window(self, table: str, start: date, end: date) -> int:
        sums = self._running(table, end)
        first = self.store.first_day
        return (sums[(end - first).days + 1] - sums[max(0, (start - first).days)]) % (1 << 128)

    def state(self, table: str, day: date) -> str:
        row = self.warehouse.ledger.get((table, day))
        return "none" if row is None else row.state_hash

    def look_back(self, days: Days, day: date) -> int:
        """Days a reader looks back from `day`, cut at the store's first day."""
        furthest = (day - self.store.first_day).days
        wanted = days if isinstance(days, int) else days(self.store, day)
        return furthest if wanted == ALL else min(wanted, furthest)

    def of(self, step: Step, day: date) -> str:
        """The digest of everything `step` reads for `day`: files, tables in their look-backs, states, its own yesterday."""
        if step.source is not None:
            from marketing_assets.sources import file_fingerprint

            return file_fingerprint(self.store, step.source, day)
        if step.settings not in self._settings:
            self._settings[step.settings] = _settings_digest(self.store, step.settings)
        parts: list[object] = [self._settings[step.settings]]
        for table, days in sorted(step.reads.items()):
            back = self.look_back(days, day)
            if table in step.tables:  # its own earlier days
                if back:
                    parts += [table, self.window(table, day - timedelta(days=back), day - timedelta(days=1))]
                continue
            start = day - timedelta(days=back)
            parts += [table, self.window(table, start, day)]
            if TABLES[table].kind != "day":
                parts.append(self.state(table, start))
        yesterday = day - timedelta(days=1)
        parts += [self.state(table, yesterday) for table in step.tables]
        return digest(*parts)


_ALWAYS = ("timezone", "currency", "first_day", "cadence_anchor", "methods", "seed", "attribution_window_days", "maturity_days")


def _settings_digest(store: Store, sections: tuple[str, ...]) -> str:
    """Settings that shape a step's rows; where data lies and how long the shop runs do not."""
    return digest(store.model_dump_json(include={*_ALWAYS, *sections}))


# --- what is missing, what is stale -----------------------------------------------------------------------------------


def missing_days(warehouse: Warehouse, table: str, start: date, end: date) -> list[date]:
    """Days of [start, end] the ledger has no row for. An empty day is built and empty, not missing."""
    return [day for day in days_between(start, end) if (table, day) not in warehouse.ledger]


def runs_of(days: Sequence[date]) -> list[list[date]]:
    """Sorted days as runs without gaps."""
    result: list[list[date]] = []
    for day in sorted(days):
        if result and day - result[-1][-1] == timedelta(days=1):
            result[-1].append(day)
        else:
            result.append([day])
    return result


def _listing(days: Sequence[date]) -> str:
    """'2026-08-03...2026-08-05, 2026-08-09' from a list of days."""
    runs = runs_of(days)
    shown = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}...{run[-1]}" for run in runs[:5])
    return shown + (f" and {len(runs) - 5} more stretches" if len(runs) > 5 else "")


def check_complete(warehouse: Warehouse, step: Step, days: Sequence[date]) -> None:
    """Raises MissingPartitions naming tables and days where a gap lies before the window or in what it reads, Expired where rows of
    these days were deleted after retention_days."""
    check_retained(warehouse.store, step.name, days, (*step.tables, *step.reads))
    first = warehouse.store.first_day
    if days[0] < first:
        raise MissingPartitions(f"{step.name}: {days[0]} lies before first_day, {first}")
    gaps: dict[str, list[date]] = {}
    if days[0] > first:
        for table in step.tables:
            if found := missing_days(warehouse, table, first, days[0] - timedelta(days=1)):
                gaps[table] = found
    for table in step.reads:
        if table not in step.tables and (found := missing_days(warehouse, table, first, days[-1])):
            gaps[table] = found
    if gaps:
        named = "; ".join(f"{table}: {_listing(found)}" for table, found in list(gaps.items())[:6])
        more = f" (and {len(gaps) - 6} more tables)" if len(gaps) > 6 else ""
        earliest = min(min(found) for found in gaps.values())
        raise MissingPartitions(
            f"{step.name} for {_listing(days)} needs partitions that were never built: {named}{more}. "
            f"Build them first: dagster asset materialize -m marketing_assets.definitions --select '*' "
            f"--partition-range {earliest}...{days[-1]}"
        )


def stale_days(warehouse: Warehouse, fingerprints: Fingerprints, step: Step, days: Sequence[date]) -> list[date]:
    """Days of the window whose inputs differ from those the ledger says they were built from, or that were never built.

    Days that ran out after retention_days stay as they are.
    """
    return [
        day for day in retained(warehouse.store, days, (*step.tables, *step.reads))
        if any(
            (row := warehouse.ledger.get((table, day))) is None or row.input_fingerprint != fingerprints.of(step, day)
            for table in step.tables
        )
    ]


# --- running ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepResult:
    """What a run of a step published.

    rows: table -> day -> rows. changed: (table, day) whose ledger row is new or differs. degraded: table -> lacking source.
    """

    step: Step
    days: Sequence[date]
    rows: Mapping[str, Mapping[date, int]]
    hashes: Mapping[str, Mapping[date, str]]
    metrics: Mapping[str, Mapping[date, Mapping[str, float]]]
    degraded: Mapping[str, str]
    changed: frozenset[tuple[str, date]]
    seconds: float
    cpu_seconds: float


def _windows(step: Step, warehouse: Warehouse, days: Sequence[date]) -> Sequence[Sequence[date]]:
    """A window cut into pieces that fit in memory and lie together on disk; range = days makes any cut give the same rows."""
    if step.source is not None:
        from marketing_assets.sources import chunks

        return chunks(warehouse.store, step.source, days)
    if step.group in ("cleaning", "features"):
        ledger, logs = warehouse.ledger, ("raw_events", "raw_impressions")
        return cut_by_rows(days, {day: sum(ledger[name, day].rows for name in logs if (name, day) in ledger) for day in days})
    return [days]


def run_step(warehouse: Warehouse, step: Step, days: Sequence[date], run_id: str, tell: Tell = lambda text: None) -> StepResult:
    """Compute a step for a contiguous window and publish it with its ledger rows in one transaction, or change nothing.

    Raises MissingPartitions for a gap before the window, and whatever the concept or the warehouse find wrong.
    """
    check_complete(warehouse, step, days)
    began, cpu = time.perf_counter(), time.process_time()
    label = f"{step.name} {days[0]}" + (f"...{days[-1]} ({len(days)} days)" if len(days) > 1 else "")
    tell(f"{label} ...")
    rows: dict[str, dict[date, int]] = {table: {} for table in step.tables}
    hashes: dict[str, dict[date, str]] = {table: {} for table in step.tables}
    metrics: dict[str, dict[date, Mapping[str, float]]] = {}
    degraded: dict[str, str] = {}
    changed: list[LedgerRow] = []
    fingerprints = Fingerprints(warehouse)
    with warehouse.transaction():
        for window in _windows(step, warehouse, days):
            built = step.make(warehouse, window)
            results = warehouse.replace_window(step.name, step.tables, window, built)
            if step.name == "cleaning":
                check_accounted(warehouse, window, results)
            states = {table: warehouse.states(table, window, results[table]) for table in step.tables}
            models = warehouse.models_in_force(step.name, window)
            built_at = datetime.now(UTC).replace(tzinfo=None)
            for day in window:
                entries = []
                # computed day by day: a day's fingerprint holds yesterday's state of the step itself
                fingerprint = fingerprints.of(step, day)
                for table in step.tables:
                    count, content = results[table][day]
                    rows[table][day], hashes[table][day] = count, content
                    entries.append(LedgerRow(
                        table, day, count, content, digest(states[table][day], models[day]), fingerprint, step.code_version,
                        run_id, built_at, built.degraded.get(table),
                    ))
                changed += warehouse.stage_ledger(entries)
                fingerprints.forget(step.tables, day)
            for table, by_day in built.metrics.items():
                metrics.setdefault(table, {}).update(by_day)
            degraded.update(built.degraded)
        warehouse.write_staged()
    if step.name == "drift":
        warehouse.copy_verdict()
    from marketing_assets.sources import release

    release(warehouse.reader(days[-1]))
    seconds, spent = time.perf_counter() - began, time.process_time() - cpu
    total = sum(sum(by_day.values()) for by_day in rows.values())
    note = "" if not degraded else "; empty: " + ", ".join(f"{table} ({why})" for table, why in sorted(degraded.items()))
    tell(f"{label}: {total:,} rows in {seconds:.1f} s{note}")
    return StepResult(step, days, rows, hashes, metrics, degraded,
                      frozenset((row.table_name, row.partition_date) for row in changed), seconds, spent)


def check_accounted(warehouse: Warehouse, days: Sequence[date], results: Mapping[str, Mapping[date, tuple[int, str]]]) -> None:
    """raw = clean + rejected for events and impressions, day by day. Raises InvalidTable naming source and day."""
    rejected = warehouse.reader(days[-1]).rejected_counts(days[0], days[-1])
    for source in ("events", "impressions"):
        for day in days:
            raw = warehouse.ledger.get((f"raw_{source}", day))
            clean = results[f"clean_{source}"][day][0]
            if raw is not None and raw.rows != clean + rejected.get((source, day), 0):
                raise InvalidTable(
                    f"{source} of {day}: {raw.rows} raw rows, but {clean} clean and {rejected.get((source, day), 0)} rejected; "
                    "nothing was published"
                )


@dataclass
class Mended:
    """What a mending run rebuilt, by step."""

    rebuilt: dict[str, list[date]] = field(default_factory=dict)
    changed: set[tuple[str, date]] = field(default_factory=set)


def mend_step(warehouse: Warehouse, step: Step, days: Sequence[date], run_id: str, tell: Tell = lambda text: None) -> list[StepResult]:
    """Rebuild the days of a window whose inputs changed, and no others; stops where hashes agree again.

    A rebuilt day may make the next one stale (its own state is carried), so days are looked at in order, run by run.
    """
    results: list[StepResult] = []
    position = 0
    window = list(days)
    while position < len(window):
        fingerprints = Fingerprints(warehouse)
        stale = stale_days(warehouse, fingerprints, step, window[position:])
        if not stale:
            break
        run = runs_of(stale)[0]
        results.append(run_step(warehouse, step, run, run_id, tell))
        position = window.index(run[-1]) + 1
    return results


def mend(warehouse: Warehouse, days: Sequence[date], run_id: str, tell: Tell = lambda text: None) -> Mended:
    """Bring every step of a window up to date with its inputs, in order."""
    done = Mended()
    for step in steps_of(warehouse.store):
        for result in mend_step(warehouse, step, days, run_id, tell):
            done.rebuilt.setdefault(step.name, []).extend(result.days)
            done.changed |= result.changed
    return done


def run_days(
    warehouse: Warehouse, days: Sequence[date], run_id: str, tell: Tell = lambda text: None, steps: Sequence[str] | None = None
) -> list[StepResult]:
    """Every step (or those named) over a window, one after the other, without Dagster: trials, replays and benchmarks."""
    return [
        run_step(warehouse, step, days, run_id, tell) for step in steps_of(warehouse.store) if steps is None or step.name in steps
    ]


def newest_closed_day(ledger: Mapping[tuple[str, date], Any], store: Store) -> date | None:
    """The newest day on which every table was built."""
    tables = [table for step in steps_of(store) for table in step.tables]
    days = {day for table, day in ledger if table == tables[-1]}
    return max((day for day in days if all((table, day) in ledger for table in tables)), default=None)
