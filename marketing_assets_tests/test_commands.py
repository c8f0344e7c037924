"""The `marketing` command as people type it: every command line shown in README and docs is understood, those on a built shop run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from marketing_assets import cli
from marketing_assets.config import REPOSITORY_ROOT, Store, load_store
from marketing_assets.running import run_days
from marketing_assets.warehouse import days_between, open_warehouse
from marketing_assets_tests.conftest import FIRST, LAST
from marketing_assets_tests.test_reviews import stand_in

PAGES = [REPOSITORY_ROOT / "README.md", *sorted((REPOSITORY_ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^(?:\.venv/bin/)?(marketing|dagster|make|python) (.+)$")


def shown_commands(page: Path) -> list[list[str]]:
    """Command lines of a page: in fenced shell blocks, indented, or in code spans with arguments."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += [line.strip() for line in text.splitlines() if line.startswith("    ")] + re.findall(r"`([^`\n]+)`", text)
    found = [COMMAND.match(re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line).split(" || ")[0]) for line in lines]
    return [shlex.split(f"{match[1]} {match[2]}", comments=True) for match in found if match]


def test_pages_are_read_for_their_commands() -> None:
    """Guards the reader above: what it finds on README is what README shows."""
    shown = {" ".join(words[:2]) for words in shown_commands(PAGES[0])}
    assert {"make demo", "make test", "make ui", "make history", "marketing export", "marketing what-if"} <= shown
    assert sum(len(shown_commands(page)) for page in PAGES) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_command_lines_on_the_pages_are_understood(page: Path) -> None:
    """A renamed option or target would send a reader into an error; values in capitals or <> stand for a reader's own."""
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY_ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for program, *words in shown_commands(page):
        if program == "make":
            assert set(words) <= targets, f"{page.name}: make {words}"
        elif program == "marketing":
            given = [word.replace("YYYY-MM-DD", "2026-01-01").replace("...", "why") for word in words]
            if len(given) == 1 and given[0] in ("--help", "approve", "refit", "resume", "rollback", "stop-learning", "init-store", "replay"):
                continue  # named in a sentence, without what it needs
            assert cli.parser().parse_args(given), f"{page.name}: marketing {words}"
        elif program == "python":
            module = words[1].replace(".", "/") + ".py" if words[0] == "-m" else words[0]
            script = (REPOSITORY_ROOT / module).read_text(encoding="utf-8")
            for word in words:
                assert not word.startswith("--") or f'"{word}"' in script, f"{page.name}: {module} has no {word}"


def test_make_targets_call_what_exists() -> None:
    """`make demo` itself takes minutes; this says what it would call, and the calls are run by the tests of the pages."""
    shown = subprocess.run(
        ["make", "-n", "demo", "ui"], cwd=REPOSITORY_ROOT, capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin"}
    ).stdout
    assert "marketing sample-shop" in shown and "days=$(.venv/bin/marketing days) &&" in shown and "--select '*' --partition-range $days" in shown
    assert "dagster dev --host 127.0.0.1 --port 3000 --workspace workspace.yaml" in shown
    assert (REPOSITORY_ROOT / "workspace.yaml").is_file() and (REPOSITORY_ROOT / "dagster.yaml").is_file()


@pytest.fixture(scope="module")
def built(lived: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The tiny sample shop, all of its days built."""
    import shutil

    folder = tmp_path_factory.mktemp("commands") / "shop"
    shutil.copytree(lived, folder)
    store = load_store(folder / "store.yaml")
    with open_warehouse(store, "test") as warehouse:
        run_days(warehouse, days_between(FIRST, LAST), "test")
    return store


def ran(store: Store, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command on the built shop; what it said."""
    code = cli.main([words[0], "--store", str(store.path), *words[1:]])
    output = capsys.readouterr()
    assert code == 0, output.err
    return output.out


def test_look_around(built: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """README's commands on the sample shop, and what the pages show beside them."""
    assert ran(built, capsys, "days") == f"{FIRST}...{LAST}\n"
    assert "up to date" in ran(built, capsys, "status", "--files")
    assert f"{LAST}.html" in ran(built, capsys, "report")
    assert "new plan, lists, audiences, orders" in ran(built, capsys, "export")
    assert "as before plan, lists, audiences, orders" in ran(built, capsys, "export"), "the same again changes nothing"
    assert "doubly_robust" in ran(built, capsys, "what-if")
    carts = built.folder / "carts.csv"
    carts.write_text("basket_id,item_id\n1,i00000\n2,i00001\n2,i00002\n", encoding="utf-8")
    listed = ran(built, capsys, "basket", "--file", str(carts), "--count", "3").splitlines()
    assert listed[0] == "basket_id,rank,item_id,title,score,reason" and len(listed) == 1 + 2 * 3
    table = ran(built, capsys, "basket", "i00001", "i00002", "--count", "3").splitlines()
    assert [line.split()[1] for line in table] == [line.split(",")[2] for line in listed[4:]]
    drivers = built.folder / "drivers.csv"
    drivers.write_text(f"item_id,date,unit_price\ni00001,{LAST + timedelta(days=1)},1.5\n", encoding="utf-8")
    said = ran(built, capsys, "what-if", "--drivers", str(drivers)).splitlines()
    assert said[0].startswith(f"28 days from {LAST}, in EUR: as known, as tried (90 %") and said[2].startswith("i00001 ")
    figures = [re.findall(r"[-\d.]+, [-\d.]+ \([-\d.]+ to [-\d.]+\)", line) for line in said[2:]]
    assert said[3].startswith("all") and figures[0] == figures[1] and len(figures[0]) == 3, "one item is all"
    drivers.write_text("item_id,date,unit_price\ni00001,tomorrow,1.5\n", encoding="utf-8")
    assert cli.main(["what-if", "--store", str(built.path), "--drivers", str(drivers)]) == 1
    assert "line 2: date 'tomorrow' cannot be used" in capsys.readouterr().err
    for words in (["what-if", "--drivers"], ["basket", "--file"]):
        assert cli.main([*words, str(built.folder), "--store", str(built.path)]) == 1
        assert f"error: {built.folder}: cannot be read as CSV" in capsys.readouterr().err, "a folder is no file"
    assert "system_plan" in ran(built, capsys, "replay", str(date(2026, 8, 9)), str(LAST))
    assert "approved by me" in ran(built, capsys, "approve", "--by", "me")
    models = ran(built, capsys, "models")
    for action in ("refit", "stop-learning", "resume"):
        assert "asked: " in ran(built, capsys, action, "response_rates", "--reason", "a test"), models
    assert "already asked" in ran(built, capsys, "refit", "response_rates", "--reason", "a test")
    assert "nothing runs out" in ran(built, capsys, "expire")


@pytest.mark.parametrize("words", [["report"], ["what-if"], ["export"], ["approve", "--by", "me"], ["basket", "i00001"]])
def test_a_day_that_was_never_built_is_refused_by_name(built: Store, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """A page of such a day was written, and looked like any other."""
    for day in (FIRST - timedelta(days=1), LAST + timedelta(days=30)):
        assert cli.main([words[0], "--store", str(built.path), "--day", str(day), *words[1:]]) == 1
        assert f"{day} was never built; built are days of {FIRST}...{LAST}" in capsys.readouterr().err
    assert not (built.folder / "reports" / f"{LAST + timedelta(days=30)}.html").exists()


def test_numbers_and_days_that_make_no_sense_are_refused(built: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for count in ("0", "-3", "ten"):
        with pytest.raises(SystemExit, match="2"):
            cli.main(["basket", "i00001", "--count", count])
        assert f"a whole number above 0 is needed, found '{count}'" in capsys.readouterr().err
    early = str(FIRST - timedelta(days=1))
    assert cli.main(["refit", "response_rates", "--store", str(built.path), "--reason", "why", "--day", early]) == 1
    assert f"no day {early} is ever built: the shop's first_day is {FIRST}" in capsys.readouterr().err


def test_drafts_need_a_model_that_is_turned_on(built: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """Off by default and said so; with a stand-in on this machine the drafts are written with what they cost."""
    assert cli.main(["drafts", "--store", str(built.path)]) == 1
    assert "is_enabled" in capsys.readouterr().err
    with stand_in(["Worded by a stand-in."]) as (address, asked):
        other = built.path.with_name("with_model.yaml")
        settings = f"service: {{language_model: {{is_enabled: true, address: '{address}', price_per_million_input: 1.0}}}}\n"
        other.write_text(built.path.read_text(encoding="utf-8") + settings, encoding="utf-8")
        said = ran(load_store(other), capsys, "drafts")
    written = json.loads((built.folder / "drafts" / f"{LAST}.json").read_text(encoding="utf-8"))
    assert asked and written["usage"]["requests"] == len(asked) and f"{len(asked)} requests" in said


def test_another_budget_and_horizon_are_tried_without_publishing(built: Store) -> None:
    """The job a person starts in the UI: with the settings in force it gives what was published, with half the money less."""
    from marketing_assets.definitions import definitions_of
    from marketing_assets.forecasting import in_money, read_drivers, what_if
    from marketing_assets.try_out import try_out

    with open_warehouse(built, "test") as warehouse:
        kept = dict(warehouse.ledger)
        reader, days = warehouse.reader(LAST), built.forecasting.horizon_days
        item = reader.window("demand_forecasts", FIRST, LAST).filter(pl.col("level") == "item").sort("demand_mean")["item_id"][-1]
        same = try_out(reader, LAST, built, built.ad_planning.daily_budget, days)
        half = (same[0].as_set or 0.0) / 2
        other = {one.figure: (one.as_set or 0.0, one.as_tried or 0.0) for one in try_out(reader, LAST, built, half, 2 * days)}
    assert all(one.as_tried == pytest.approx(one.as_set) for one in same) and len(same) == len(other) == 7
    assert 0 < other["planned_spend"][1] <= half + 1e-6 and other["expected_revenue"][1] < other["expected_revenue"][0]
    assert other["expected_units"][1] > other["expected_units"][0] > 0
    job = definitions_of(built).resolve_job_def("what_if")
    settings = {"daily_budget": half, "horizon_days": 2 * days}
    outcome = job.execute_in_process(run_config={"ops": {"try_out": {"config": settings}}})
    put_out = next(event for event in outcome.all_events if event.event_type_value == "STEP_OUTPUT")
    table = str(put_out.step_output_data.metadata["outcome"].value)
    assert f"| expected_revenue | {other['expected_revenue'][0]:,.2f} | {other['expected_revenue'][1]:,.2f} |" in table
    tomorrow, end = LAST + timedelta(days=1), LAST + timedelta(days=7)
    drivers = f"item_id,date,end_date,unit_price\n{item},{tomorrow},{end},1\n"
    outcome = job.execute_in_process(run_config={"ops": {"try_out": {"config": {"drivers": drivers}}}})
    put_out = next(event for event in outcome.all_events if event.event_type_value == "STEP_OUTPUT")
    rows = [line.strip("| ").split(" | ") for line in str(put_out.step_output_data.metadata["outcome"].value).splitlines()[2:]]
    assert [row[0] for row in rows] == [f"{name}_of_1_items" for name in ("units", "revenue", "margin")]
    with open_warehouse(built, "test") as warehouse:
        reader = warehouse.reader(LAST)
        money = in_money(reader, LAST, what_if(reader, LAST, built, read_drivers(drivers.encode(), "test")))[1]
    for name, row in zip(("units", "revenue", "margin"), rows, strict=True):
        before, after, low, high = (f"{money[f'{name}{end}']:,.2f}" for end in ("_before", "", "_low", "_high"))
        assert row[1:] == [before, after, f"{low} to {high}"] and low != high
    with open_warehouse(built, "test") as warehouse:
        assert warehouse.ledger == kept, "nothing is published"
    wrong = job.execute_in_process(run_config={"ops": {"try_out": {"config": {"drivers": "item,price"}}}}, raise_on_error=False)
    assert not wrong.success
    failed = job.execute_in_process(raise_on_error=False)
    assert not failed.success, "nothing to try is said, not answered"


def test_errors_are_one_line_and_usage_errors_say_how(built: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["status", "--store", str(tmp_path / "none.yaml")]) == 1
    assert re.fullmatch(r"error: .*none\.yaml.*\n", capsys.readouterr().err)
    assert cli.main(["report", "--store", str(built.path), "--day", "2026-01-01"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    with pytest.raises(SystemExit, match="2"):
        cli.main(["refit", "response_rates"])
