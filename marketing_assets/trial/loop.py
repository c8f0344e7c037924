"""One seed of a trial: a past lived once under common practice, then the same days lived by every arm.

What belongs here: the order of days and evenings. What does not: what an arm decides (arms.py), what the figures say
(figures.py).

The arms of a seed share users, visits and chance, so that they are compared in pairs. The system sees its own landing files
and nothing else; its warehouse is built over the past as one range, then day by day.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb

from marketing_assets.config import Store, load_store
from marketing_assets.pipeline import step_of_table, steps_of
from marketing_assets.running import run_days, run_step
from marketing_assets.sample_shop import Decisions, KnowingShop, Shop
from marketing_assets.trial.arms import (
    SystemDecisions,
    ad_conversions,
    daily_budgets_of,
    dispersion_of,
    for_day,
    held_out_from_ads,
    held_out_from_lists,
    oracle_decisions,
    stock_of,
)
from marketing_assets.trial.believed import believed_effects, believed_figures
from marketing_assets.trial.repair import act_on_verdicts
from marketing_assets.trial.shops import MakeShop, branch, make_shop, truth_of
from marketing_assets.warehouse import Warehouse, days_between

COMMON, SYSTEM, ORACLE = "common_practice", "system", "oracle"
HELD_OUT = {"ads_holdout": "system_held_out_from_ads", "recommendations_holdout": "system_held_out_from_lists"}
"""Experiment -> the copy of the shop in which everyone is held out: what would have been without what it measures."""
JUDGING_STEPS = ("evaluation", "drift")
UNUSED_STEPS = ("service", "off_policy", "registry", "report")
"""Steps no decision and no figure of a trial rests on."""

CONVERSION_TARGET = 1.5
"""Ads that bring the most revenue sell few dear things; a shop that wants customers as well asks for so many times the conversions.
The more it asks for the more revenue goes."""
CONVERSION_WORTH = 0.5
"""What the last conversion of the target may cost, over what one brings: where few dear things bring most, a target at any price costs
more than the customers can be worth."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How a seed is lived. warm_up_days: days under common practice before; one holdout period, so that it ends with them.

    renew_days: every so many days the system builds the days that landed and decides anew; judge_days: every so many it
    evaluates what it did and looks for drift. 1 is how both are meant to run; more only holds the system back.
    conversion_target: conversions a plan must expect of its ads, over what they brought on a day of the warm-up; 0 for none.
    conversion_worth: value given up at most for one more of them, over what one brought; None for no limit. A target in store.yaml stands.
    """

    days: int
    warm_up_days: int = 84
    renew_days: int = 1
    judge_days: int = 1
    conversion_target: float = CONVERSION_TARGET
    conversion_worth: float | None = CONVERSION_WORTH
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class Lived:
    """What became of a seed: truth by arm and day, what the system believed, what it did about drift, and CPU seconds by step."""

    seed: int
    truth: dict[str, list[dict[str, Any]]]
    effects: list[dict[str, Any]]
    figures: list[dict[str, Any]]
    verdicts: list[dict[str, Any]]
    refused_days: list[str]
    cpu_seconds_by_step: dict[str, float]


def live_seed(make: MakeShop, seed: int, plan: Plan, folder: Path, tell: Tell) -> Lived:
    """Live one seed in `folder`, which is emptied first. Returns its figures; the folder may be thrown away then."""
    shutil.rmtree(folder, ignore_errors=True)
    past = folder / "past"
    shop = make_shop(make, past, seed)
    before = days_between(shop.first_day, shop.first_day + timedelta(days=plan.warm_up_days - 1))

    def lived(one: Shop) -> None:
        for day in before:
            one.live(day)

    lived(shop)
    truth_of(shop, before[-1])  # a figure that is none is told before anything is built
    store = salted(store_of(past, plan.settings), seed)
    with opened(past, store) as warehouse:
        built = run_days(warehouse, before, f"trial-{seed}", steps=steps_used(store))
        dispersion = dispersion_of(warehouse.reader(before[-1]), before[-1])
        brought = ad_conversions(warehouse.reader(before[-1]), before)
    arms = {
        name: branch(shop, make, seed, folder / name, lived)
        for name in (COMMON, SYSTEM, *((ORACLE,) if isinstance(shop, KnowingShop) else ()), *HELD_OUT.values())
    }
    for name in (SYSTEM, ORACLE, *HELD_OUT.values()):
        if name in arms:
            shutil.copy2(past / "warehouse.duckdb", folder / name / "warehouse.duckdb")
    tell(f"seed {seed}: {len(before)} days lived and built in {sum(result.cpu_seconds for result in built):.0f} CPU seconds")
    days = days_between(before[-1] + timedelta(days=1), before[-1] + timedelta(days=plan.days))
    gc.collect()
    gc.freeze()  # what libraries have made by now lasts: no day from here on looks through it for what could go
    try:
        return _live_arms(arms, days, plan, seed, dispersion, brought, folder, tell)
    finally:
        gc.unfreeze()


def _live_arms(
    arms: dict[str, Shop], days: Sequence[date], plan: Plan, seed: int, dispersion: float, brought: tuple[float, float], folder: Path, tell: Tell
) -> Lived:
    store = with_target(salted(store_of(folder / SYSTEM, plan.settings), seed), plan, *brought)
    system = SystemDecisions()
    verdicts: list[dict[str, Any]] = []
    cpu: dict[str, float] = {}
    run_id = f"trial-{seed}"
    with opened(folder / SYSTEM, store) as warehouse:
        stock = _Stock(folder / ORACLE, plan) if ORACLE in arms else None
        decided = system.on(warehouse.reader(days[0] - timedelta(days=1)), days[0] - timedelta(days=1))
        budgets = daily_budgets_of(warehouse.reader(days[0] - timedelta(days=1)), days[0] - timedelta(days=1))
        waiting: list[date] = []
        unjudged: list[date] = []
        deciding = [name for name in steps_used(store) if name not in JUDGING_STEPS]

        def build(window: Sequence[date], steps: Sequence[str]) -> None:
            for result in run_days(warehouse, window, run_id, steps=steps):
                cpu[result.step.name] = cpu.get(result.step.name, 0.0) + result.cpu_seconds

        for number, day in enumerate(days):
            today = _for_day(decided, day)
            arms[COMMON].live(day)
            arms[SYSTEM].live(day, today)
            arms[HELD_OUT["ads_holdout"]].live(day, held_out_from_ads(today))
            arms[HELD_OUT["recommendations_holdout"]].live(day, held_out_from_lists(today))
            oracle = arms.get(ORACLE)
            if isinstance(oracle, KnowingShop) and stock is not None:
                known = stock.on(day - timedelta(days=1))
                oracle.live(day, oracle_decisions(oracle.oracle(), day, today, known, dispersion, store, budgets))
            decided = _ordered(decided)
            waiting.append(day)
            unjudged.append(day)
            if len(waiting) >= plan.renew_days or day == days[-1]:
                build(waiting, deciding)
                waiting = []
                if len(unjudged) >= plan.judge_days or day == days[-1]:
                    build(unjudged, JUDGING_STEPS)
                    unjudged = []
                    for verdict in act_on_verdicts(warehouse, day, run_id, tell):
                        verdicts.append({**asdict(verdict), "day": day.isoformat(), "since": verdict.since.isoformat()})
                decided = system.on(warehouse.reader(day), day)
                budgets = daily_budgets_of(warehouse.reader(day), day)
            if (number + 1) % 10 == 0 or day == days[-1]:
                tell(f"seed {seed}: {number + 1} of {len(days)} days")
        figures = believed_figures(warehouse.reader(days[-1]), days, arms[SYSTEM])
        effects = []
        for experiment, name in HELD_OUT.items():
            with opened(folder / name, told_of_people(store_of(folder / name, plan.settings))) as other:
                run_days(other, days, run_id, steps=[step.name for step in steps_of(other.store) if step.group in ("sources", "cleaning")])
                effects += believed_effects(warehouse.reader(days[-1]), other.reader(days[-1]), experiment, days)
        if stock is not None:
            stock.close()
    truth = {name: [{**asdict(truth_of(shop, day)), "day": day.isoformat()} for day in days] for name, shop in arms.items()}
    return Lived(seed, truth, effects, figures, verdicts, [day.isoformat() for day in system.refused_days], cpu)


def _for_day(decided: Decisions, day: date) -> Decisions:
    return Decisions(**{**vars(decided), "ad_plan": for_day(decided.ad_plan, day)})


def _ordered(decided: Decisions) -> Decisions:
    """The same decisions on the day after: lists and plan stay, goods were ordered."""
    return decided if decided.orders is None else replace(decided, orders=decided.orders.clear())


class _Stock:
    """The oracle's own stock, read from its landing files as the system reads its."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.store = store_of(folder, plan.settings)
        self.connection = duckdb.connect(str(folder / "warehouse.duckdb"), config={"threads": str(self.store.threads)})
        self.warehouse = Warehouse(self.connection, self.store, None)
        self.step = step_of_table(self.store)["raw_items"]

    def on(self, day: date) -> Any:
        """stock_of the end of `day`."""
        if ("raw_items", day) not in self.warehouse.ledger:
            run_step(self.warehouse, self.step, [day], "trial")
        return stock_of(self.warehouse.reader(day), day)

    def close(self) -> None:
        self.connection.close()


class opened:
    """The warehouse of one arm, in its own folder: nothing else opens it, so neither lock nor ledger copy is needed."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.path, self.store = folder / "warehouse.duckdb", store

    def __enter__(self) -> Warehouse:
        self.connection = duckdb.connect(str(self.path), config={"threads": str(self.store.threads), "memory_limit": "4GB"})
        self.connection.execute("SET enable_progress_bar = false")  # a process of its own looks to the engine like a prompt
        self.connection.execute("SET checkpoint_threshold = '1GB'")  # thrown away after: laid down once, when it is closed
        return Warehouse(self.connection, self.store, None)

    def __exit__(self, *error: object) -> None:
        self.connection.close()


def store_of(folder: Path, settings: Mapping[str, Any]) -> Store:
    """The shop's own store.yaml with the trial's settings on top; one thread, since seeds run side by side, and no what-if of budgets."""
    store = load_store(folder / "store.yaml")
    planning = store.ad_planning.model_copy(update={"scenario_levels": ()})
    return store.model_copy(update={"threads": 1, "ad_planning": planning, **settings})


def with_target(store: Store, plan: Plan, conversions: float, value: float) -> Store:
    """The same settings with the plan's target, where ads brought so many conversions a day of that value; a target the shop has of its
    own stands as it is."""
    if store.ad_planning.target_conversions:
        return store
    most = None if plan.conversion_worth is None else plan.conversion_worth * value
    sought = {"target_conversions": plan.conversion_target * conversions, "most_per_conversion": most}
    return store.model_copy(update={"ad_planning": store.ad_planning.model_copy(update=sought)})


def told_of_people(store: Store) -> Store:
    """The same settings where nothing but what people did is read: all that a copy is asked for."""
    return store.model_copy(update={"sources": {name: store.sources[name] for name in ("events", "identities") if name in store.sources}})


def salted(store: Store, seed: int) -> Store:
    """The same settings with people of this seed's own held out: ids are alike in all seeds, and by one salt the same would be, in each."""
    def own(section: Any) -> Any:
        return section.model_copy(update={"holdout_salt": f"{section.holdout_salt}-{seed}"})

    return store.model_copy(update={"profiles": own(store.profiles), "recommendations": own(store.recommendations)})


def steps_used(store: Store) -> list[str]:
    """The steps that decisions and figures of a trial rest on, by name."""
    return [step.name for step in steps_of(store) if step.name not in UNUSED_STEPS]
