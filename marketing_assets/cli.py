"""The `marketing` command: what is not a materialisation.

What belongs here: arguments, messages, exit codes. What does not: any computation (each command calls one function). 0: done;
1: it could not be done, and why; 2: the command line itself is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marketing_assets.config import Store, StoreError, load_store, store_path

if TYPE_CHECKING:
    from marketing_assets.warehouse import Warehouse


def tell(text: str = "") -> None:
    """To the terminal; progress goes to stderr so that output can be piped."""
    sys.stdout.write(text + "\n")


def progress(text: str) -> None:
    sys.stderr.write((f"\x1b[2m{text}\x1b[0m" if sys.stderr.isatty() and "NO_COLOR" not in os.environ else text) + "\n")
    sys.stderr.flush()


def _coloured(text: str, colour: str) -> str:
    codes = {"red": 31, "green": 32, "yellow": 33}
    return f"\x1b[{codes[colour]}m{text}\x1b[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def _store(given: argparse.Namespace) -> Store:
    return load_store(Path(given.store) if getattr(given, "store", None) else store_path())


@contextmanager
def _opened(given: argparse.Namespace) -> Iterator[tuple[Store, Warehouse]]:
    """The shop and its warehouse, held under the name of the command."""
    from marketing_assets.warehouse import open_warehouse

    store = _store(given)
    with open_warehouse(store, f"marketing {given.command}", tell=progress) as warehouse:
        yield store, warehouse


def _newest(store: Store, given: date | None) -> date:
    """The day asked for, where anything was built of it, else the newest closed one."""
    from marketing_assets.catch_up import fingerprints_of
    from marketing_assets.running import newest_closed_day
    from marketing_assets.warehouse import read_ledger_copy

    ledger = fingerprints_of(read_ledger_copy(store))
    if given is not None:
        built = {day for _, day in ledger}
        if given in built:
            return given
        there = f"built are days of {min(built)}...{max(built)}" if built else "no day is built yet"
        raise StoreError(f"{store.path}: {given} was never built; {there}")
    closed = newest_closed_day(ledger, store)
    if closed is None:
        raise StoreError(f"{store.path}: no day is closed yet; build one first: dagster asset materialize "
                         "-m marketing_assets.definitions --select '*' --partition-range A...B")
    return closed


# --- commands ---------------------------------------------------------------------------------------------------------


def init_store(given: argparse.Namespace) -> int:
    from marketing_assets.onboarding import init_store as write

    path = write(Path(given.folder), Path(given.out) if given.out else None, tell, overwrite=given.overwrite)
    tell(f"wrote {path}; look it over, then: marketing check-store {path}")
    return 0


def check_store(given: argparse.Namespace) -> int:
    from marketing_assets.onboarding import check_store as check

    report = check(_store(given), given.days, tell)
    return 0 if report.is_ok else 1


def days(given: argparse.Namespace) -> int:
    from marketing_assets.catch_up import last_closed_by_clock

    store = _store(given)
    tell(f"{store.first_day}...{last_closed_by_clock(store, datetime.now(UTC))}")
    return 0


def status(given: argparse.Namespace) -> int:
    """What is built, what is missing, what is lacking, from the ledger's copy; works while a run holds the warehouse."""
    import polars as pl

    from marketing_assets.catch_up import freshness, what_landed
    from marketing_assets.pipeline import steps_of
    from marketing_assets.warehouse import read_ledger_copy, read_verdict_copy, warehouse_path

    store = _store(given)
    ledger = read_ledger_copy(store)
    state = freshness(store, ledger, datetime.now(UTC))
    word = _coloured("up to date", "green") if state.is_fresh else _coloured("behind", "yellow")
    tell(f"{store.name}: closed through {state.closed}, expected {state.expected}: {word}")
    tell(f"warehouse {warehouse_path(store)}")
    found = ledger.group_by("table_name").agg(
        days=pl.len(), rows=pl.col("rows").sum(), newest=pl.col("partition_date").max(), degraded=pl.col("degraded").last(),
        versions=pl.col("code_version").n_unique(), code=pl.col("code_version").sort_by("partition_date").last(),
    )
    known = {row["table_name"]: row for row in found.to_dicts()}
    tell(f"{'table':28}{'days':>6}{'rows':>13}  newest")
    for step in steps_of(store):
        for table in step.tables:
            row = known.get(table)
            if row is None:
                tell(f"{table:28}{'-':>6}{'-':>13}  never built")
                continue
            notes = [row["degraded"]] if row["degraded"] else []
            if row["versions"] > 1 or row["code"] != step.code_version:
                notes.append("partly built by other code")
            tell(f"{table:28}{row['days']:>6}{row['rows']:>13,}  {row['newest']}  {'; '.join(notes)}".rstrip())
    verdict = read_verdict_copy(store)
    for one in verdict["verdicts"] if verdict else []:
        tell(_coloured(f"drift {one['verdict_id']}: {one['cause']} since {one['since_date']}, {one['action']} "
                       f"{one['assets_to_refresh'] or ''}", "yellow"))
    if given.files:
        tell(f"files: {what_landed(store, ledger, datetime.now(UTC)).reason}")
    return 0 if state.is_fresh else 1


def request(given: argparse.Namespace) -> int:
    """refit, stop-learning, resume and rollback: a row in control/refit_requests, read by the next run of that day."""
    from datetime import timedelta

    from marketing_assets.control import request_file, request_refit

    store = _store(given)
    day = given.day or _newest(store, None) + timedelta(days=1)
    is_new = request_refit(store, day, given.asset, given.action, reason=given.reason, model_version=getattr(given, "version", "") or "")
    tell(f"{'asked' if is_new else 'already asked'}: {given.action} {given.asset} on {day} ({request_file(store, day)})")
    return 0


def models(given: argparse.Namespace) -> int:
    with _opened(given) as (_, warehouse):
        for row in warehouse.model_versions():
            tell("  ".join(str(value) for value in row))
    return 0


def export(given: argparse.Namespace) -> int:
    from marketing_assets.exports import export_day

    day, now = _newest(_store(given), given.day), datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    with _opened(given) as (store, warehouse):
        done = export_day(warehouse, day, store, now, is_replacement=given.replace)
    tell(f"{day}: new {', '.join(done.written) or 'nothing'}; as before {', '.join(done.unchanged) or 'nothing'}; in {done.folder}")
    for kind, why in done.skipped.items():
        tell(f"  {kind}: {why}")
    return 0


def approve(given: argparse.Namespace) -> int:
    from marketing_assets.exports import approve_plan
    from marketing_assets.report import write_report

    day = _newest(_store(given), given.day)
    with _opened(given) as (store, warehouse):
        approve_plan(warehouse.reader(day), day, store, given.by, datetime.now(UTC).replace(tzinfo=None), given.note)
        path = write_report(warehouse.reader(day), day, store)  # the page says who approved
    tell(f"plan of {day} approved by {given.by}; page: {path}")
    return 0


def report(given: argparse.Namespace) -> int:
    from marketing_assets.report import write_report

    day = _newest(_store(given), given.day)
    with _opened(given) as (store, warehouse):
        path = write_report(warehouse.reader(day), day, store)
    tell(f"report of {day}: {path}")
    return 0


def drafts(given: argparse.Namespace) -> int:
    """Answers and ad copy worded by the language model of store.yaml; refused where it is not turned on."""
    from marketing_assets.reviews.language_model import LanguageModel, write_drafts

    day = _newest(_store(given), given.day)
    with _opened(given) as (store, warehouse):
        path, usage = write_drafts(warehouse.reader(day), day, store, LanguageModel(store.service.language_model))
    tell(f"drafts of {day}: {path} ({usage.requests} requests, {usage.cost:.4f} {store.currency}); read them before you use them")
    return 0


def _account(rows: dict[str, int]) -> None:
    for table, count in sorted(rows.items()):
        tell(f"  {table:28}{count:>10,} rows")


def erase(given: argparse.Namespace) -> int:
    from marketing_assets.privacy.erase import erase_users
    from marketing_assets.warehouse.compacting import compact

    with _opened(given) as (store, warehouse):
        done = erase_users(warehouse, given.user_id, datetime.now(UTC).date(), progress)
    if not done.users:
        tell("nobody asks to be forgotten (no open row in 'erasures'; name somebody with --user-id)")
        return 0
    compact(store, "marketing erase", tell=progress)
    tell(f"erased: {done.users} people, {done.ids} ids")
    _account(done.rows)
    for path, count in done.lines.items():
        tell(f"  exports/{path}: {count} lines")
    if done.pages:
        tell(f"  reports: {len(done.pages)} pages written again")
    if done.drafts:
        tell(f"  drafts: {done.drafts} answers")
    if done.previews:
        tell(f"  dagster: {done.previews} lines of previews")
    tell("not within reach, see to it yourself:")
    for text in done.remaining:
        tell(f"  {text}")
    return 0


def expire(given: argparse.Namespace) -> int:
    from marketing_assets.privacy.expire import expire as delete_expired
    from marketing_assets.warehouse.compacting import compact

    with _opened(given) as (store, warehouse):
        done = delete_expired(warehouse, progress)
    if done.through is None:
        tell("nothing runs out" + ("" if store.retention_days else ": store.yaml has no retention_days"))
        return 0
    if done.rows:
        compact(store, "marketing expire", tell=progress)
    tell(f"rows of people through {done.through} are gone; days up to it cannot be built again")
    _account(done.rows)
    for text in done.shortened:
        tell(f"  rests on less: {text}")
    return 0


def sample_shop(given: argparse.Namespace) -> int:
    from marketing_assets.catch_up import last_closed_by_clock
    from marketing_assets.sample_shop import generate

    store = _store(given)
    days = (last_closed_by_clock(store, datetime.now(UTC)) - store.first_day).days + 1

    def said(done: int, total: int) -> None:
        if done % 10 == 0 or done == total:
            progress(f"sample shop: {done} of {total} days lived")

    generate(store.folder, store.first_day, days, seed=given.seed, size=given.size, report=said)
    tell(f"{days} days of landing files lie in {store.folder / 'landing'}, the truth behind them in {store.folder / 'truth'}")
    return 0


def replay(given: argparse.Namespace) -> int:
    from marketing_assets.replay import replay_range

    with _opened(given) as (store, warehouse):
        replay_range(warehouse, given.start, given.end or _newest(store, None), tell)
    return 0


def what_if(given: argparse.Namespace) -> int:
    """What the weeks logged would have brought under the newest plan: off-policy estimates with their intervals; or, with --drivers,
    what items would sell under other prices, promotions or ad spend."""
    if given.drivers:
        return _under_drivers(given)
    from marketing_assets.evaluation import what_if as value

    day = _newest(_store(given), given.day)
    with _opened(given) as (store, warehouse):
        rows = value(warehouse.reader(day), day, store)
    if rows.is_empty():
        tell(f"{day}: no impressions logged with a propensity, or no plan: nothing can be said")
        return 1
    tell(f"{'outcome':14}{'estimator':30}{'per impression':>16}{'95 % interval':>28}{'ess':>9}  supported")
    for row in rows.iter_rows(named=True):
        interval = f"{row['ci_low']:.6f} to {row['ci_high']:.6f}" if row["ci_low"] is not None else "-"
        value_text = "-" if row["value"] is None else f"{row['value']:.6f}"
        tell(f"{row['outcome']:14}{row['estimator']:30}{value_text:>16}{interval:>28}{row['effective_sample_size']:>9.0f}  {row['is_supported']}")
    return 0


def _under_drivers(given: argparse.Namespace) -> int:
    from marketing_assets.forecasting import in_money, read_drivers
    from marketing_assets.forecasting import what_if as forecast

    drivers = read_drivers(Path(given.drivers), given.drivers)
    day = _newest(_store(given), given.day)
    with _opened(given) as (store, warehouse):
        reader = warehouse.reader(day)
        rows, total = in_money(reader, day, forecast(reader, day, store, drivers))
    tell(f"{store.forecasting.horizon_days} days from {day}, in {store.currency}: as known, as tried (90 % interval of what drivers do)")
    tell(f"{'item':32}{'units':>36}{'revenue':>42}{'margin':>42}")
    for row in [*rows.iter_rows(named=True), {"item_id": "all", "title": "", **total}]:
        parts = [f"{row['item_id']} {row['title']}"[:31].ljust(32)]
        for name, width, digits in (("units", 36, 1), ("revenue", 42, 0), ("margin", 42, 0)):
            figures = (row[f"{name}{end}"] for end in ("_before", "", "_low", "_high"))
            before, after, low, high = ("-" if value is None else f"{value:,.{digits}f}" for value in figures)
            parts.append(f"{before}, {after} ({low} to {high})".rjust(width))
        tell("".join(parts))
    return 0


def basket(given: argparse.Namespace) -> int:
    """What goes with the items named, as a table; with --file a list for each basket of a CSV, as CSV."""
    from marketing_assets.exports.files import frame_csv
    from marketing_assets.recommendations import for_basket, read_baskets

    baskets = read_baskets(Path(given.file)) if given.file else {"": given.items}
    day = _newest(_store(given), given.day)
    with _opened(given) as (store, warehouse):
        rows = for_basket(warehouse.reader(day), day, store, baskets, given.count, progress)
    if given.file:
        sys.stdout.write(frame_csv(rows).decode())
        return 0
    for row in rows.iter_rows(named=True):
        tell(f"{row['rank']:>3}  {row['item_id']:20}{row['title']:40}{row['score']:>8.4f}  {row['reason']}")
    return 0


def trial(given: argparse.Namespace) -> int:
    from marketing_assets.trial import run_trial

    run_trial(
        given.shop, given.seeds, given.days, Path(given.out), progress, renew_days=given.renew_days, judge_days=given.judge_days,
        conversion_target=given.conversion_target, conversion_worth=given.conversion_worth, first_seed=given.first_seed, jobs=given.jobs,
    )  # fmt: skip
    return 0


# --- the command line -------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="marketing", description="Around the asset graph: set a shop up, look after it, take results away.")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Any, text: str, *, store: bool = True) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        made.set_defaults(run=run, command=name)
        if store:
            made.add_argument("--store", metavar="FILE", help="store.yaml (default: MARKETING_STORE, else the sample shop's)")
        return made

    def with_day(made: argparse.ArgumentParser, text: str = "day (default: the newest closed one)") -> argparse.ArgumentParser:
        made.add_argument("--day", type=date.fromisoformat, metavar="YYYY-MM-DD", help=text)
        return made

    made = add("init-store", init_store, "write a first store.yaml for a folder of exports", store=False)
    made.add_argument("folder")
    made.add_argument("--out", metavar="FILE", help="where to write it (default: store.yaml in the folder)")
    made.add_argument("--overwrite", action="store_true", help="replace a file that is already there")
    made = add("check-store", check_store, "read the mapped files and say what was understood", store=False)
    made.add_argument("store", nargs="?", metavar="FILE")
    made.add_argument("--days", type=_positive, default=7, help="landed days to read (default 7)")
    add("days", days, "the shop's days so far, as A...B for --partition-range")
    made = add("status", status, "what is built, what is missing, what drifted (from the ledger; 1 where behind)")
    made.add_argument("--files", action="store_true", help="also compare the landing files, which reads them")
    for name, action, text in (
        ("refit", "refit", "ask for a table's models to be fitted anew"),
        ("stop-learning", "stop_learning", "keep a table's models as they are until 'resume'"),
        ("resume", "resume", "let a table's models learn again"),
        ("rollback", "rollback", "put an older model version back in force"),
    ):
        made = add(name, request, text)
        made.add_argument("asset", help="table, such as response_rates")
        if action == "rollback":
            made.add_argument("version", help="model_version, see 'marketing models'")
        made.add_argument("--reason", required=True)
        with_day(made, "day it is for (default: the day after the newest closed one)")
        made.set_defaults(action=action)
    add("models", models, "every fitted model version, newest first")
    made = with_day(add("export", export, "write the plan, lists, audiences and orders of a day for others to act on"))
    made.add_argument("--replace", action="store_true", help="give out a decision that differs from the one exported before")
    made = with_day(add("approve", approve, "approve a day's plan, where store.yaml asks for it"))
    made.add_argument("--by", required=True, help="who approves")
    made.add_argument("--note")
    made = add("erase", erase, "forget people: everyone whose request landed, or those named")
    made.add_argument("--user-id", action="append", metavar="ID", help="may be given several times; default: open rows of 'erasures'")
    add("expire", expire, "delete rows of people that are older than retention_days")
    with_day(add("report", report, "write the page of a day again"))
    with_day(add("drafts", drafts, "let the language model of store.yaml word answers to complaints and ad copy"))
    made = with_day(add("what-if", what_if, "what the last weeks would have brought under a day's plan; with --drivers, what items would "
                        "sell under other prices, promotions or ad spend"))  # fmt: skip
    made.add_argument("--drivers", metavar="FILE", help="CSV of item_id, date and any of end_date, location_id, unit_price, is_promotion, "
                      "planned_ad_spend")  # fmt: skip
    made = with_day(add("basket", basket, "what goes with the items of a basket"))
    which = made.add_mutually_exclusive_group(required=True)
    which.add_argument("items", nargs="*", default=[], metavar="ITEM", help="item_id")
    which.add_argument("--file", metavar="FILE", help="CSV of basket_id and item_id: a list for each basket, as CSV")
    made.add_argument("--count", type=_positive, default=10, help="entries of a list (default 10)")
    made = add("replay", replay, "for a past range: what was planned against simple rules, as a regret curve")
    made.add_argument("start", type=date.fromisoformat)
    made.add_argument("end", type=date.fromisoformat, nargs="?")
    made = add("sample-shop", sample_shop, "generate the sample shop's landing files beside its store.yaml")
    made.add_argument("--seed", type=int, default=7)
    made.add_argument("--size", default="demo", choices=("demo", "trial", "tiny"))
    made = add("trial", trial, "closed-loop trial: common practice, this system and an oracle on the same shop", store=False)
    made.add_argument("--shop", default="marketing_assets.trial:TrialShop", metavar="MODULE:CLASS")
    made.add_argument("--seeds", type=_positive, default=20)
    made.add_argument("--first-seed", type=int, default=1)
    made.add_argument("--days", type=_positive, default=60)
    made.add_argument("--renew-days", type=_positive, default=1, help="decide anew every so many days (default 1)")
    made.add_argument("--judge-days", type=_positive, default=1, help="evaluate and look for drift every so many days (default 1)")
    made.add_argument("--conversion-target", type=float, default=1.5, metavar="TIMES",
                      help="conversions a plan must expect of its ads, over what they brought a day before; 0: none (default 1.5)")
    made.add_argument("--conversion-worth", type=_times_or_none, default=0.5, metavar="TIMES",
                      help="value given up at most for one more of them, over what one brought before; none: no limit (default 0.5)")
    made.add_argument("--jobs", type=_positive, default=1, help="seeds lived side by side, about 1 GB each (default 1)")
    made.add_argument("--out", default="trial", metavar="FOLDER")
    return top


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"a whole number above 0 is needed, found {text!r}")
    return int(text)


def _times_or_none(text: str) -> float | None:
    try:
        return None if text == "none" else float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"a number or 'none' is needed, found {text!r}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Every error of ours is one clear line, not a traceback."""
    given = parser().parse_args(arguments)
    try:
        result: int = given.run(given)
        return result
    except BrokenPipeError:
        return 1
    except Exception as error:
        from marketing_assets.control import ControlError
        from marketing_assets.exports.errors import ExportError
        from marketing_assets.forecasting import WhatIfError
        from marketing_assets.recommendations import BasketError
        from marketing_assets.reviews.language_model import LanguageModelError
        from marketing_assets.sources import SourceError
        from marketing_assets.trial import TrialError
        from marketing_assets.warehouse import WarehouseError

        known = (StoreError, ControlError, TrialError, SourceError, WarehouseError, ExportError, BasketError, WhatIfError,
                 LanguageModelError, FileNotFoundError, FileExistsError)  # fmt: skip
        if not isinstance(error, known):
            raise
        sys.stderr.write(_coloured("error", "red") + f": {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
