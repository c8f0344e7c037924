"""The steps of a day in their order, and what each reads.

What belongs here: which concept makes which tables from which, and how far back it looks. What does not: running a step
(running.py), Dagster (orchestration/), what the numbers mean (the concept modules).
"""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

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
from marketing_assets.schemas import INPUTS
from marketing_assets.warehouse import Built, Warehouse

ALL = -1
"""A look-back to the store's first day."""

Days = int | Callable[[Store, date], int]


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
         "audiences": lambda store, day: _response(store, day) + LATE_DAYS + KEYFRAME_DAYS, "items": 0, "response_rates": 7,
         **_CATALOGUE, **_REQUESTS},
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
                                      _evaluation("outlooks"), _evaluation("holdouts")),
            "sessions": _evaluation("business"), "items": _evaluation("business"), "raw_surveys": _evaluation("business"),
            "clean_impressions": _evaluation("ads"), "attributed_conversions": _evaluation("ads"),
            "response_rates": _evaluation("ads"), "ad_plan": _evaluation("ads"),
            "recommendations": _furthest(_evaluation("lists"), _evaluation("holdouts")), "audiences": _evaluation("holdouts"),
            "user_profiles": _furthest(_evaluation("propensities"), _evaluation("outlooks")),
            "item_days": _furthest(_evaluation("lists"), _evaluation("demand")),
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
        {"evaluation_report": 112, "clean_events": 112, "clean_impressions": 112, "rejected_rows": 112, "item_days": 112, "items": 112,
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
