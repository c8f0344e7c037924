"""The steps of a day in their order, what each reads, and running them: the ledger's side of every run.

What belongs here: which concept makes which tables from which, how far back it looks, what is missing or stale, and publishing
a window of a step in one transaction. What does not: Dagster (orchestration/), what the numbers mean (the concept modules), how
bytes reach disk (warehouse/).
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from marketing_assets.config import (
    ACTIVE_DAYS,
    CONTROL_INPUTS,
    DELIVERY_DAYS,
    GATE_DAYS,
    KEYFRAME_DAYS,
    LATE_DAYS,
    PLAN_DAYS,
    RANKED_WEEKS,
    REISSUE_DAYS,
    Store,
)
from marketing_assets.privacy.marks import check_retained, retained
from marketing_assets.schemas import INPUTS, TABLES
from marketing_assets.warehouse import (
    Built,
    InvalidTable,
    LedgerRow,
    MissingPartitions,
    Warehouse,
    cut_by_rows,
    days_between,
    digest,
)

ALL = -1
"""A look-back to the store's first day."""

Days = int | Callable[[Store, date], int]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """One computation and the tables it publishes together.

    build: "module:function", imported when first needed, since heavy libraries make every start slow.
    reads: table -> how many days before the day itself are read of it (ALL: every earlier day). Of change logs and issues
    what is in force at the start of those days is read too. A step's own tables and models of the day before always count.
    settings: sections of store.yaml that shape the rows, besides those that shape everything.
    """

    name: str
    tables: tuple[str, ...]
    build: str
    reads: Mapping[str, Days]
    group: str
    settings: tuple[str, ...] = ()
    source: str | None = None

    def make(self, warehouse: Warehouse, days: Sequence[date]) -> Built:
        """The concept's rows for a window."""
        module, function = self.build.split(":")
        concept = getattr(importlib.import_module(module), function)
        reader = warehouse.reader(days[-1])
        built: Built = concept(reader, days, warehouse.store, *([self.source] if self.source else []))
        return built

    @property
    def code_version(self) -> str:
        """A digest of the concept's source and of what every step rests on."""
        return _code_version(self.build.split(":")[0])


@functools.cache
def _code_version(module: str) -> str:
    here = Path(__file__).resolve().parent
    concept = here / module.split(".")[1]
    files = sorted(concept.rglob("*.py")) if concept.is_dir() else [concept.with_suffix(".py")]
    hashed = hashlib.blake2b(digest_size=6)
    for file in (*files, *sorted((here / "schemas").glob("*.py")), here / "model_store.py", here / "assignment.py"):
        hashed.update(file.read_bytes())
    return hashed.hexdigest()


# --- look-backs that depend on the day --------------------------------------------------------------------------------


def _on_cadence(every: Callable[[Store], int], then: int, otherwise: int) -> Callable[[Store, date], int]:
    """`then` days on cadence days, `otherwise` on the others; a requested refit looks as far as a cadence day."""

    def look_back(store: Store, day: date) -> int:
        return then if store.is_cadence_day(day, every(store)) else otherwise

    return look_back


def _profile_fits(store: Store, day: date) -> int:
    """Profile models refit on their cadence and move their level on weekly re-issue days, both from a year of entries."""
    refits = store.is_cadence_day(day, store.profiles.cadence_days) or store.is_cadence_day(day, REISSUE_DAYS)
    return ACTIVE_DAYS if refits else 0


def _evaluation(module: str) -> Callable[[Store, date], int]:
    """The look-back an evaluation module declares itself."""

    def look_back(store: Store, day: date) -> int:
        found: int = importlib.import_module(f"marketing_assets.evaluation.{module}").look_back(store)
        return found

    return look_back


def _furthest(*parts: Days) -> Callable[[Store, date], int]:
    def look_back(store: Store, day: date) -> int:
        return max(part if isinstance(part, int) else part(store, day) for part in parts)

    return look_back


def _response(store: Store, day: date) -> int:
    return store.response.history_days + 7


def _spend(store: Store, day: date) -> int:
    return ACTIVE_DAYS if store.blocks("campaigns") else 31


def _demand(store: Store, day: date) -> int:
    """Forecasts are made on issue days only; between them nothing but the issue day's own table is read."""
    return store.forecasting.history_days if store.is_cadence_day(day, store.forecasting.cadence_days) else 0


def _lists(store: Store, day: date) -> int:
    """Lists score a long history; the ranking model also looks at what was known on its past cuts."""
    return ACTIVE_DAYS + (7 * RANKED_WEEKS if store.is_cadence_day(day, REISSUE_DAYS) else 0)


_REQUESTS: dict[str, Days] = {"raw_refit_requests": ALL}
_DRIVERS: dict[str, Days] = {"raw_item_drivers": ALL, "raw_market_days": ALL}
_CATALOGUE: dict[str, Days] = {"raw_campaigns": ALL, "raw_creatives": ALL, "raw_placements": ALL}

_CLEAN = ("clean_events", "clean_impressions", "attributed_conversions", "rejected_rows")


def _source_steps() -> list[Step]:
    return [
        Step(f"source_{name}", (f"raw_{name}",), "marketing_assets.sources:build_sources", {}, "sources", source=name)
        for name in INPUTS
    ]


_STEPS: tuple[Step, ...] = (
    *_source_steps(),
    Step(
        "cleaning", _CLEAN, "marketing_assets.cleaning:build_cleaning",
        {
            **{f"raw_{name}": 0 for name in INPUTS}, "raw_identities": ALL,
            "clean_events": lambda store, day: max(LATE_DAYS, store.cleaning.refund_match_days),
            "clean_impressions": lambda store, day: LATE_DAYS + store.attribution_window_days,
            "attributed_conversions": lambda store, day: store.cleaning.refund_match_days,
        },
        "cleaning",
        settings=("cleaning",),
    ),
    Step("items", ("items",), "marketing_assets.features:build_items",
         {"clean_events": REISSUE_DAYS, "raw_items": ALL, "rejected_rows": 0}, "features"),
    Step("sessions", ("sessions",), "marketing_assets.features:build_sessions", {"clean_events": LATE_DAYS}, "features", settings=("cleaning",)),
    Step("item_days", ("item_days",), "marketing_assets.features:build_item_days", {"clean_events": 0, **_DRIVERS}, "features"),
    Step(
        "user_features", ("user_features", "user_preferences"), "marketing_assets.features:build_user_features",
        {"clean_events": 0, "sessions": LATE_DAYS, "items": 0, "raw_identities": ALL}, "features",
        settings=("features",),
    ),
    Step("item_features", ("item_features",), "marketing_assets.features:build_item_features", {"item_days": 0}, "features", settings=("features",)),
    Step(
        "profiles", ("user_profiles", "profile_weights"), "marketing_assets.profiles:build_profiles",
        {"user_features": _profile_fits, "user_preferences": 0, "clean_events": _profile_fits, "items": 0, "item_features": 0,
         **_REQUESTS},
        "profiles",
        settings=("profiles", "cleaning"),
    ),
    Step("audiences", ("audiences",), "marketing_assets.profiles:build_audiences",
         {"user_profiles": REISSUE_DAYS, "user_features": REISSUE_DAYS, **_REQUESTS}, "profiles", settings=("profiles",)),
    Step(
        "demand", ("demand_forecasts",), "marketing_assets.forecasting:build_demand",
        {"item_days": _demand, "items": 0, **_DRIVERS, **_REQUESTS}, "demand",
        settings=("forecasting",),
    ),
    Step("inventory", ("inventory_plan",), "marketing_assets.inventory:build_inventory",
         {"demand_forecasts": 0, "items": 0, "item_days": 28}, "demand", settings=("inventory", "forecasting")),
    Step(
        "recommendations", ("recommendations", "item_recommendations"), "marketing_assets.recommendations:build_recommendations",
        {"clean_events": _lists, "raw_identities": ALL, "raw_item_drivers": ALL, "item_days": lambda store, day: 90 + 7 * RANKED_WEEKS,
         "items": 0, "item_features": 0, "user_features": 0, "user_profiles": 0,
         "user_preferences": 0, "inventory_plan": 0, **_REQUESTS},
        "recommendations",
        settings=("recommendations",),
    ),
    Step(
        "response", ("response_rates", "response_calibration"), "marketing_assets.response:build_response",
        {"clean_impressions": _response, "attributed_conversions": _response, "raw_ad_reports": _response,
         "audiences": lambda store, day: _response(store, day) + LATE_DAYS + KEYFRAME_DAYS, "items": 0, **_CATALOGUE, **_REQUESTS},
        "response",
        settings=("response", "ad_planning"),
    ),
    Step(
        "ad_planning",
        ("ad_plan", "ad_plan_constraints", "ad_plan_scenarios", "ad_plan_runs", "plan_diff", "campaign_proposals", "user_ad_plan"),
        "marketing_assets.ad_planning:build_ad_plan",
        {"response_rates": 1, "response_calibration": GATE_DAYS, "audiences": DELIVERY_DAYS + LATE_DAYS + KEYFRAME_DAYS, "user_profiles": 0,
         "inventory_plan": 0, "items": 0, "ad_plan": PLAN_DAYS, "clean_impressions": _spend, "raw_ad_reports": _spend,
         "raw_plan_overrides": ALL, **_CATALOGUE, **_REQUESTS},
        "planning",
        settings=("ad_planning", "response"),
    ),
    Step(
        "service", ("service_tickets",), "marketing_assets.reviews:build_service_tickets",
        {"clean_events": _on_cadence(lambda store: store.service.cadence_days, ACTIVE_DAYS, 180), "items": 0, "user_profiles": 0,
         "service_tickets": 34, **_REQUESTS},
        "service",
        settings=("service", "language"),
    ),
    Step(
        "evaluation", ("evaluation_report", "experiment_report"),
        "marketing_assets.evaluation:build_evaluation",
        {
            "clean_events": _furthest(_evaluation("business"), _evaluation("lists"), _evaluation("propensities"),
                                      _evaluation("holdouts")),
            "sessions": _evaluation("business"), "items": _evaluation("business"), "raw_surveys": _evaluation("business"),
            "clean_impressions": _evaluation("ads"), "attributed_conversions": _evaluation("ads"),
            "response_rates": _evaluation("ads"), "ad_plan": _evaluation("ads"),
            "recommendations": _furthest(_evaluation("lists"), _evaluation("holdouts")), "audiences": _evaluation("holdouts"),
            "user_profiles": _evaluation("propensities"), "item_days": _furthest(_evaluation("lists"), _evaluation("demand")),
            "demand_forecasts": _evaluation("demand"), "raw_ad_reports": _evaluation("ads"),
        },
        "evaluation",
        settings=("evaluation", "profiles", "recommendations", "forecasting"),
    ),
    Step(
        "off_policy", ("off_policy_report",), "marketing_assets.evaluation:build_off_policy",
        {name: _evaluation("what_if") for name in ("clean_impressions", "attributed_conversions", "ad_plan")}, "evaluation",
        settings=("evaluation",),
    ),
    Step(
        "drift", ("drift_report",), "marketing_assets.drift:build_drift",
        {"evaluation_report": 112, "clean_events": 112, "clean_impressions": 112, "rejected_rows": 112, "item_days": 112,
         **{f"raw_{name}": 112 for name in INPUTS if name not in CONTROL_INPUTS}, "raw_market_days": ALL},
        "drift",
        settings=("drift", "forecasting"),
    ),
    Step(
        "registry", ("model_registry",), "marketing_assets.model_store:build_registry",
        {"user_profiles": 0, "audiences": 0, "demand_forecasts": 0, "recommendations": 0, "response_rates": 0}, "registry",
    ),
    Step(
        "report", ("daily_report",), "marketing_assets.report:build_daily_report",
        {"evaluation_report": 46, "ad_plan": 1, "inventory_plan": 1, "drift_report": 1, "service_tickets": 1, "clean_events": 1,
         "clean_impressions": 1, "rejected_rows": 1, "demand_forecasts": lambda store, day: store.forecasting.horizon_days + 1,
         "item_days": 29, "ad_plan_runs": 1, "model_registry": 0, "experiment_report": 0},
        "report",
        settings=("evaluation", "forecasting"),
    ),
)


def steps_of(store: Store) -> tuple[Step, ...]:
    """The steps of a shop: of the landing files, those of inputs it maps; every other step always.

    A step reads the raw tables of mapped inputs only.
    """
    mapped = {f"raw_{name}" for name in INPUTS if store.blocks(name)}
    unmapped = {f"raw_{name}" for name in INPUTS} - mapped
    result = []
    for step in _STEPS:
        if step.source is not None and step.tables[0] not in mapped:
            continue
        reads = {name: days for name, days in step.reads.items() if name not in unmapped}
        result.append(replace(step, reads=reads))
    return tuple(result)


def step_of_table(store: Store) -> dict[str, Step]:
    """Table -> the step that makes it."""
    return {table: step for step in steps_of(store) for table in step.tables}


def tables_after(store: Store, tables: Iterable[str]) -> list[str]:
    """These tables and all that read them on the same day, in order of the steps."""
    found = set(tables)
    for step in steps_of(store):
        if found & (set(step.reads) | set(step.tables)):
            found |= set(step.tables)
    return [table for step in steps_of(store) for table in step.tables if table in found]


def steps_to_remake(store: Store, tables: Iterable[str]) -> list[Step]:
    """The steps of a run that refits these tables: the requests, what accepts them, the tables, and what follows up to the plan."""
    steps = steps_of(store)
    named = {table for step in steps if set(step.tables) & set(tables) for table in step.tables}
    following = set(tables_after(store, named))
    position = next(number for number, step in enumerate(steps) if "ad_plan" in step.tables)
    return [
        step for number, step in enumerate(steps)
        if step.name in ("source_refit_requests", "cleaning")
        or set(step.tables) & (following if number <= position else named)
    ]


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
    if step.source is not None or step.name == "cleaning":
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
