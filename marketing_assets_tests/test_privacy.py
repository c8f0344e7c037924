"""Forgetting: nobody erased is found anywhere, nothing is rebuilt because of it, and days go on being built."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from marketing_assets import cli
from marketing_assets.config import JoinedFiles, Store, load_store
from marketing_assets.exports import export_day
from marketing_assets.pipeline import steps_of
from marketing_assets.privacy import erase as erase_module
from marketing_assets.privacy import expire as expire_module
from marketing_assets.privacy.beside import erase_from_history
from marketing_assets.privacy.erase import erase_users
from marketing_assets.privacy.expire import expire
from marketing_assets.privacy.marks import Expired, PrivacyError, check_retained, marks_path, read_marks
from marketing_assets.privacy.people import BLANKED, REMOVED
from marketing_assets.report import write_report
from marketing_assets.running import Fingerprints, mend, run_days, run_step, stale_days
from marketing_assets.schemas import INPUTS, TABLES
from marketing_assets.warehouse import days_between, open_warehouse, read_ledger_copy, warehouse_path
from marketing_assets.warehouse.compacting import compact
from marketing_assets_tests.conftest import FIRST

pytestmark = pytest.mark.timeout(600)
NOON = datetime(2026, 8, 12, 12, tzinfo=UTC).replace(tzinfo=None)
TODAY = date(2026, 8, 12)
NEXT = FIRST + timedelta(days=4)
"""Newest day of the shop that is copied."""
AFTER = NEXT + timedelta(days=1)
"""The night after."""


def quiet(text: str) -> None:
    """Progress nobody reads."""


@pytest.fixture(scope="module")
def built(lived: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The tiny shop built and exported up to the day before its last; read only."""
    folder = tmp_path_factory.mktemp("private")
    shutil.copytree(lived / "landing", folder / "landing")
    shutil.copy(lived / "store.yaml", folder / "store.yaml")
    store = load_store(folder / "store.yaml")
    with open_warehouse(store, "test", tell=quiet) as warehouse:
        run_days(warehouse, days_between(FIRST, NEXT), "test", quiet)
        write_report(warehouse.reader(NEXT), NEXT, store)
        export_day(warehouse, NEXT, store, NOON)
    yield store


@pytest.fixture
def shop(built: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.delenv("MARKETING_WAREHOUSE", raising=False)
    monkeypatch.delenv("MARKETING_DAGSTER_STORAGE", raising=False)
    shutil.copytree(built.folder, tmp_path / "shop")
    return load_store(tmp_path / "shop" / "store.yaml")


def asked(store: Store, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(warehouse_path(store)), read_only=True) as connection:
        return connection.execute(query).fetchall()


def somebody(store: Store) -> tuple[str, str]:
    """user_id and e-mail of a person who left traces everywhere: bought, saw ads, consented, is in a file that was given out."""
    named = {json.loads(line)["user_id"] for line in (store.folder / "exports" / str(NEXT) / "lists_by_user.jsonl").open()}
    rows = asked(
        store,
        """SELECT user_id, min(email) FROM raw_contacts
           WHERE has_marketing_consent = 'true' AND email IS NOT NULL
             AND user_id IN (SELECT user_id FROM raw_events WHERE event_type = 'purchase')
             AND user_id IN (SELECT user_id FROM raw_impressions)
             AND user_id IN (SELECT user_id FROM audiences WHERE NOT is_holdout)
           GROUP BY 1 ORDER BY 1""",
    )
    user_id, email = next(row for row in rows if row[0] in named)
    return str(user_id), str(email)


def traces(store: Store, *texts: str) -> dict[str, int]:
    """'table.column' -> cells that hold one of the texts, as the whole value or as a word of a longer one; files alike."""
    pattern = "(^|[^\\w-])(" + "|".join(map(re.escape, texts)) + ")($|[^\\w-])"
    found: dict[str, int] = {}
    with duckdb.connect(str(warehouse_path(store)), read_only=True) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE data_type = 'VARCHAR'"
        ).fetchall()
        for table, column in columns:
            count = connection.execute(f"SELECT count(*) FROM {table} WHERE regexp_matches({column}, ?)", [pattern]).fetchone()
            if count and count[0]:
                found[f"{table}.{column}"] = count[0]
    for part in ("exports", "reports", "control", "warehouse.duckdb.queries.json"):
        place = store.folder / part
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            if path.is_file() and re.search(pattern, path.read_text(encoding="utf-8", errors="replace")):
                found[str(path.relative_to(store.folder))] = 1
    return found


def ledger(store: Store) -> pl.DataFrame:
    return read_ledger_copy(store).drop("run_id", "built_at").sort("table_name", "partition_date")


def forget(store: Store, *user_ids: str) -> erase_module.Erasure:
    with open_warehouse(store, "test", tell=quiet) as warehouse:
        return erase_users(warehouse, user_ids, TODAY)


def test_a_draft_of_an_answer_goes_with_the_person(shop: Store) -> None:
    """It may say again what they wrote; drafts for others and ad copy stay."""
    user_id, _ = somebody(shop)
    with duckdb.connect(str(warehouse_path(shop))) as connection:
        connection.execute("INSERT INTO service_tickets BY NAME SELECT ? AS as_of_date, 'theirs' AS ticket_id, ? AS user_id", [NEXT, user_id])
    path = shop.folder / "drafts" / f"{NEXT}.json"
    path.parent.mkdir()
    drafts = {"answers": [{"subject": "theirs", "text": "a"}, {"subject": "other", "text": "b"}], "ad_copy": [{"subject": "i1", "text": "c"}]}
    path.write_text(json.dumps(drafts), encoding="utf-8")
    assert forget(shop, user_id).drafts == 1
    assert json.loads(path.read_text(encoding="utf-8")) == {**drafts, "answers": drafts["answers"][1:]}


# --- erasure ----------------------------------------------------------------------------------------------------------


def test_an_erased_person_is_nowhere(shop: Store) -> None:
    user_id, email = somebody(shop)
    before = traces(shop, user_id, email)
    assert {"raw_events.user_id", "raw_contacts.email", "clean_events.user_id", "user_profiles.user_id", "recommendations.user_id"} <= set(before)
    done = forget(shop, user_id)
    assert traces(shop, user_id, email) == {}
    assert done.rows["raw_contacts"] >= 1 and done.rows["clean_impressions"] >= 1 and done.rows["recommendations"] >= 1
    assert any("landing files" in text and "events" in text for text in done.remaining)
    assert any(str(NEXT) in text for text in done.remaining), "copies of what was given out are others' to erase"
    compact(shop, "test", tell=quiet)
    assert email.encode() not in warehouse_path(shop).read_bytes(), "nor in blocks of the file that nothing uses any more"
    assert traces(shop, user_id, email) == {}
    assert read_marks(shop).erased, "kept out when files are read again"
    assert user_id not in marks_path(shop).read_text(encoding="utf-8")


def test_exports_stay_whole_without_them(shop: Store) -> None:
    """Checksums hold, nobody else's line moved, and the same export again gives out exactly what now lies there."""
    import hashlib

    folder = shop.folder / "exports" / str(NEXT)
    before = (folder / "lists_by_user.jsonl").read_text(encoding="utf-8").splitlines()
    user_id, _ = somebody(shop)
    done = forget(shop, user_id)
    after = (folder / "lists_by_user.jsonl").read_text(encoding="utf-8").splitlines()
    assert after == [line for line in before if json.loads(line)["user_id"] != user_id] and len(after) == len(before) - 1
    assert done.lines[f"{NEXT}/lists_by_user.jsonl"] == 1
    assert sum(count for path, count in done.lines.items() if "audiences/" in path) == 2, "a Google Ads and a Meta file"
    for line in (folder / "checksums.sha256").read_text(encoding="utf-8").splitlines():
        digest, path = line.split("  ")
        assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == digest, path
    with open_warehouse(shop, "test", tell=quiet) as warehouse:
        again = export_day(warehouse, NEXT, shop, NOON + timedelta(hours=1))
    assert not again.written and set(again.unchanged) >= {"lists", "audiences"}


def test_nothing_is_stale_because_of_an_erasure_and_files_read_again_bring_nobody_back(shop: Store) -> None:
    user_id, email = somebody(shop)
    forget(shop, user_id)
    after = ledger(shop)
    days = days_between(FIRST, NEXT)
    with open_warehouse(shop, "test", tell=quiet) as warehouse:
        assert not mend(warehouse, days, "mending", quiet).rebuilt
        steps = {step.name: step for step in steps_of(shop)}
        for name in ("source_events", "source_impressions", "source_contacts", "source_identities", "source_erasures", "source_surveys"):
            assert not run_step(warehouse, steps[name], days, "again").changed, name
        cleaned = run_step(warehouse, steps["cleaning"], days, "again")
        sold = run_step(warehouse, steps["item_days"], days, "again")
    assert not {table for table, _ in cleaned.changed} & {"clean_impressions"}
    assert not sold.changed, "what was sold is counted as before: sales lost their person, not themselves"
    assert traces(shop, user_id, email) == {}
    assert set(after["table_name"]) == set(ledger(shop)["table_name"])


def test_the_ledger_agrees_with_the_tables(shop: Store) -> None:
    before = ledger(shop)
    forget(shop, somebody(shop)[0])
    counts = dict(read_ledger_copy(shop).group_by("table_name").agg(pl.col("rows").sum()).iter_rows())
    for table, rows in counts.items():
        assert asked(shop, f"SELECT count(*) FROM {table}") == [(rows,)], table
    assert counts["raw_events"] == before.filter(pl.col("table_name") == "raw_events")["rows"].sum()
    assert counts["user_profiles"] < before.filter(pl.col("table_name") == "user_profiles")["rows"].sum()


def test_what_was_stale_stays_stale(shop: Store) -> None:
    """A file that changed before the erasure and was not read yet is still read afterwards."""
    import gzip

    path = shop.folder / "landing" / "events" / f"{NEXT}.csv.gz"
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    path.write_bytes(gzip.compress(b"".join(lines[:-1])))
    forget(shop, somebody(shop)[0])
    with open_warehouse(shop, "test", tell=quiet) as warehouse:
        stale = [step.name for step in steps_of(shop) if stale_days(warehouse, Fingerprints(warehouse), step, [NEXT])]
    assert stale == ["source_events"]


def test_erasing_twice_changes_nothing(shop: Store) -> None:
    user_id, _ = somebody(shop)
    forget(shop, user_id)
    before, marks = ledger(shop), marks_path(shop).read_bytes()
    done = forget(shop, user_id)
    assert not done.rows and not done.lines and not done.pages
    assert ledger(shop).equals(before) and marks_path(shop).read_bytes() == marks


def test_a_run_cut_off_changes_no_table_and_the_next_one_finishes(shop: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Audience files are searched by contacts that the tables lose last."""
    user_id, email = somebody(shop)
    before = ledger(shop)

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(erase_module, "_erase_rejected", fail)
        forget(shop, user_id)
    assert ledger(shop).equals(before)
    assert asked(shop, f"SELECT count(*) FROM raw_contacts WHERE user_id = '{user_id}'") != [(0,)]
    forget(shop, user_id)
    assert traces(shop, user_id, email) == {}
    with open_warehouse(shop, "test", tell=quiet) as warehouse:
        assert not export_day(warehouse, NEXT, shop, NOON).written


def test_a_request_that_landed_is_carried_out_with_every_identity(shop: Store) -> None:
    """A visitor's cookie and account are one person: a request by either takes both."""
    user_id, _ = somebody(shop)
    with open_warehouse(shop, "test", tell=quiet) as warehouse:
        columns = "landed_date, raw_row_id, source_file, source_row"
        place = f"DATE '{NEXT}', 'x', 'f', 1"
        warehouse.connection.execute(f"INSERT INTO raw_identities ({columns}, from_user_id, user_id) VALUES ({place}, 'cookie-1', '{user_id}')")
        warehouse.connection.execute(f"INSERT INTO raw_erasures ({columns}, user_id) VALUES ({place}, 'cookie-1')")
        assert "cookie-1" in erase_module.requested(warehouse)
        done = erase_users(warehouse, None, TODAY)
        assert done.ids > done.users
        assert {read_marks(shop).hashed(one) for one in (user_id, "cookie-1")} <= set(read_marks(shop).erased)
        assert erase_module.requested(warehouse) == []
    assert traces(shop, user_id, "cookie-1") == {}


def test_refused_rows_lose_their_person(shop: Store) -> None:
    """A refused row is kept as JSON, and its reason may quote what was wrong with it."""
    row = {"source_error": None, "event_at": "never", "user_id": "u-9", "event_type": "search", "search_query": "my name"}
    with open_warehouse(shop, "test", tell=quiet) as warehouse:
        warehouse.connection.execute(
            "INSERT INTO rejected_rows SELECT ?, 'events', 'r', 'f', 1, ?, ?",
            [NEXT, "search_query 'my name' of u-9 is odd", json.dumps(row)],
        )
        done = erase_users(warehouse, ["u-9"], TODAY)
    assert done.rows == {"rejected_rows": 1}
    ((reason, text),) = asked(shop, "SELECT reason, row FROM rejected_rows WHERE raw_row_id = 'r'")
    assert reason == "search_query '(erased)' of (erased) is odd"
    assert json.loads(text) == {**row, "user_id": None, "search_query": None}


def test_previews_in_dagsters_history_lose_their_lines(shop: Store) -> None:
    folder = shop.folder / "dagster" / "history" / "runs"
    folder.mkdir(parents=True)
    preview = "| user_id | n |\n| --- | --- |\n| u-1 | 1 |\n| u-11 | 2 |\n| " + "f" * 39 + "… | 3 |"
    text = json.dumps({"metadata": {"preview": preview}, "message": "u-1 said by a person"})
    with sqlite3.connect(folder / "index.db") as connection:
        connection.execute("CREATE TABLE event_logs (id INTEGER, event TEXT)")
        connection.execute("INSERT INTO event_logs VALUES (1, ?)", [text])
    connection.close()
    assert erase_from_history(shop, ["u-1", "f" * 64]) == 2, "a long id is cut where it is shown"
    assert erase_from_history(shop, ["u-1", "f" * 64]) == 0
    with sqlite3.connect(folder / "index.db") as connection:
        (content,) = connection.execute("SELECT event FROM event_logs").fetchone()
    connection.close()
    assert json.loads(content)["metadata"]["preview"] == "| user_id | n |\n| --- | --- |\n| u-11 | 2 |"


def test_every_column_that_names_a_person_is_dealt_with() -> None:
    """A new input or table with people in it must say what becomes of them."""
    people = {"user_id", "from_user_id", "email", "phone"}
    for name, spec in INPUTS.items():
        if people & set(spec.columns):
            assert name in BLANKED or name in REMOVED, name
    for name, columns in BLANKED.items():
        assert people & set(INPUTS[name].columns) <= set(columns), name
    facts = {f"raw_{name}" for name in (*BLANKED, *REMOVED)} | {"clean_events", "clean_impressions"}
    holders = {name for name, spec in TABLES.items() if people & set(spec.columns)}
    assert holders == facts | set(erase_module._tables_of_people())
    assert not any({"email", "phone"} & set(TABLES[name].columns) for name in holders - facts)


def test_nobody_in_particular_cannot_be_erased(shop: Store) -> None:
    with pytest.raises(PrivacyError, match="nobody to erase"):
        forget(shop, "unknown")


def test_a_list_that_cannot_be_read_stops_everything(shop: Store) -> None:
    """Without it erased people would come back unseen."""
    marks_path(shop).parent.mkdir(exist_ok=True)
    marks_path(shop).write_text("{", encoding="utf-8")
    step = next(step for step in steps_of(shop) if step.name == "source_events")
    with open_warehouse(shop, "test", tell=quiet) as warehouse, pytest.raises(PrivacyError, match="put it back from a backup"):
        run_step(warehouse, step, [NEXT], "test")


def test_the_command_says_what_went_and_what_is_left(shop: Store, capsys: pytest.CaptureFixture[str]) -> None:
    user_id, _ = somebody(shop)
    assert cli.main(["erase", "--store", str(shop.path), "--user-id", user_id]) == 0
    said = capsys.readouterr().out
    assert "erased: 1 people" in said and "raw_events" in said and "landing files" in said
    assert cli.main(["status", "--store", str(shop.path)]) in (0, 1)
    assert cli.main(["expire", "--store", str(shop.path)]) == 0
    assert "no retention_days" in capsys.readouterr().out


def test_files_that_stand_beside_are_named_as_well(shop: Store) -> None:
    (events,) = shop.blocks("events")
    joined = JoinedFiles(files="orders/{date}.csv", by="order_id")
    beside = shop.model_copy(update={"sources": {**shop.sources, "events": events.model_copy(update={"join": {"orders": joined}})}})
    (said,) = [text for text in forget(beside, somebody(shop)[0]).remaining if text.startswith("landing files")]
    assert "(orders/{date}.csv, " in said


# --- retention --------------------------------------------------------------------------------------------------------


@pytest.fixture
def short(shop: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The shop with three days of retention; a month is the least that a real one may keep."""
    monkeypatch.setattr(expire_module, "LATE_DAYS", 1)
    return with_retention(shop, 3)


def with_retention(store: Store, days: int | None) -> Store:
    lines = [line for line in store.path.read_text(encoding="utf-8").splitlines() if not line.startswith("retention_days")]
    store.path.write_text("\n".join([*lines, *([f"retention_days: {days}"] if days else [])]) + "\n", encoding="utf-8")
    return load_store(store.path)


def test_rows_run_out_nothing_is_stale_and_the_next_day_is_built(short: Store) -> None:
    """Of somebody erased the day before, too: the next night builds every table without them."""
    user_id, email = somebody(short)
    forget(short, user_id)
    through = NEXT - timedelta(days=3)
    totals = asked(short, "SELECT count(*), sum(revenue) FROM item_days")
    (short.folder / "drafts").mkdir()
    for day in (through, through + timedelta(days=1)):
        (short.folder / "drafts" / f"{day}.json").write_text('{"answers": []}', encoding="utf-8")
    with open_warehouse(short, "test", tell=quiet) as warehouse:
        done = expire(warehouse)
        assert done.through == through
        assert [path.stem for path in (short.folder / "drafts").iterdir()] == [str(through + timedelta(days=1))]
        assert not mend(warehouse, days_between(FIRST, NEXT), "mending", quiet).rebuilt
        assert not expire(warehouse).rows, "again changes nothing"
        run_days(warehouse, [AFTER], "next", quiet)
    for table in ("raw_events", "raw_impressions", "clean_events", "clean_impressions"):
        assert done.rows[table] > 0
        assert asked(short, f"SELECT min(landed_date) > '{through}' FROM {table}") == [(True,)], table
    assert asked(short, f"SELECT count(*) > 0 FROM ad_plan WHERE as_of_date = '{AFTER}'") == [(True,)]
    assert asked(short, f"SELECT count(*), sum(revenue) FROM item_days WHERE landed_date < '{AFTER}'") == totals
    assert "recommendations reads clean_events" in " ".join(done.shortened)
    assert traces(short, user_id, email) == {}


def test_change_logs_keep_what_is_in_force(short: Store) -> None:
    """Entries before the last keyframe go; none that a reader of a kept day needs."""
    with open_warehouse(short, "test", tell=quiet) as warehouse:
        before = warehouse.reader(NEXT).log_as_of("user_profiles", NEXT)
        expire(warehouse)
        assert warehouse.reader(NEXT).log_as_of("user_profiles", NEXT).equals(before)


def test_an_older_day_says_what_building_it_again_would_need(short: Store) -> None:
    with open_warehouse(short, "test", tell=quiet) as warehouse:
        expire(warehouse)
        steps = {step.name: step for step in steps_of(short)}
        for name in ("source_events", "cleaning", "item_days", "response"):
            with pytest.raises(Expired, match=r"deleted after retention_days. It would need retention_days raised .* landing files"):
                run_step(warehouse, steps[name], [FIRST], "again")
        assert not run_step(warehouse, steps["source_items"], [FIRST], "again").changed, "an input without people"
        check_retained(short, "demand", [FIRST], ("item_days", "demand_forecasts"))
    longer = with_retention(short, None)
    with open_warehouse(longer, "test", tell=quiet) as warehouse:
        expire(warehouse)
        run_days(warehouse, days_between(FIRST, NEXT), "again", quiet, ("source_events", "cleaning"))
    assert asked(longer, f"SELECT min(landed_date) = '{FIRST}' FROM clean_events") == [(True,)]


def test_landing_files_of_days_that_ran_out_may_be_cleared_away(short: Store) -> None:
    """Else a deleted file would count as changed for ever, and changed days come before new ones."""
    from marketing_assets.catch_up import what_landed

    with open_warehouse(short, "test", tell=quiet) as warehouse:
        expire(warehouse)
    (short.folder / "landing" / "events" / f"{FIRST}.csv.gz").unlink()
    now = datetime(2026, 8, 9, 12, tzinfo=UTC)
    found = what_landed(short, read_ledger_copy(short), now)
    assert found.changed is None and found.new == (AFTER, AFTER)
    with open_warehouse(short, "test", tell=quiet) as warehouse:
        assert not mend(warehouse, days_between(FIRST, NEXT), "mending", quiet).rebuilt
    (short.folder / "landing" / "events" / f"{NEXT}.csv.gz").unlink()
    assert what_landed(short, read_ledger_copy(short), now).changed == (NEXT, NEXT)


def test_too_short_a_retention_is_refused(shop: Store) -> None:
    with open_warehouse(with_retention(shop, 10), "test", tell=quiet) as warehouse, pytest.raises(PrivacyError, match="30 days back"):
        expire(warehouse)
