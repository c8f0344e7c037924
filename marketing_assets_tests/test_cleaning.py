"""Cleaning: what is refused and why, duplicates, sessions, refunds, bots, identities, credited conversions.

Hand-made rows with hand-computed answers, a plain loop as an oracle of the session rule, and the two properties everything
downstream rests on: a range equals its days one by one, and raw = clean + rejected.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import ibis
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marketing_assets.cleaning import accepted_landed, accepted_rows, build_cleaning, by_day
from marketing_assets.compiled import compiled
from marketing_assets.config import Store
from marketing_assets.schemas import INPUTS
from marketing_assets.sources.instants import parse_instant, to_local, to_utc, transitions
from marketing_assets.warehouse import Warehouse, days_between, polars_schema

FIRST = date(2026, 3, 1)
Rows = Sequence[Mapping[str, Any]]


def store_with(sources: Sequence[str] = ("events",), **changes: Any) -> Store:
    """A shop in London whose inputs map every contract column by its own name."""
    blocks = {name: {"files": f"{name}/{{date}}.csv", "columns": {c: c for c in INPUTS[name].columns}} for name in sources}
    values: dict[str, Any] = {
        "name": "test",
        "timezone": "Europe/London",
        "currency": "GBP",
        "first_day": FIRST,
        "last_day": date(2026, 12, 31),
        "sources": blocks,
        "path": Path("/nowhere/store.yaml"),
    }
    return Store.model_validate(values | changes)


def raw_rows(source: str, rows: Rows) -> pl.DataFrame:
    """Raw rows from the columns that matter: `landed` is a day or a number of days after FIRST."""
    made = []
    for number, row in enumerate(rows):
        values = {key: None if value is None else str(value) for key, value in row.items() if key not in ("landed", "id")}
        landed = row.get("landed", 0)
        made.append(
            {
                "landed_date": FIRST + timedelta(days=landed) if isinstance(landed, int) else landed,
                "raw_row_id": str(row.get("id", f"r{number:06d}")),
                "source_file": "f.csv",
                "source_row": number + 2,
                "row_hash": f"h{row.get('id', number)}",
                **values,
            }
        )
    schema = polars_schema(f"raw_{source}")
    return pl.DataFrame([{column: row.get(column) for column in schema} for row in made], schema=schema)


@contextmanager
def warehouse_of(store: Store, raw: Mapping[str, Rows]) -> Iterator[Warehouse]:
    connection = duckdb.connect(":memory:", config={"threads": "1"})
    warehouse = Warehouse(connection, store, None)
    for source, rows in raw.items():
        connection.register("incoming", raw_rows(source, rows).to_arrow())
        connection.execute(f"INSERT INTO raw_{source} BY NAME SELECT * FROM incoming")
        connection.unregister("incoming")
    yield warehouse
    connection.close()


def mapping_only(store: Store, raw: Mapping[str, Rows]) -> Store:
    """The shop mapping only what these rows hold, as a real one does."""
    blocks = {}
    for source in store.sources:
        columns = {name for row in raw.get(source, ()) for name in row} & set(INPUTS[source].columns)
        columns |= {*INPUTS[source].required, *INPUTS[source].one_of}
        blocks[source] = {"files": f"{source}/{{date}}.csv", "columns": {name: name for name in sorted(columns)}}
    return Store.model_validate({**store.model_dump(), "sources": blocks, "path": store.path})


TABLES = ("clean_events", "clean_impressions", "attributed_conversions", "rejected_rows")


def clean(store: Store, raw: Mapping[str, Rows], runs: Sequence[Sequence[date]] | None = None) -> dict[str, pl.DataFrame]:
    """Every table after publishing these windows one after the other (default: all days from FIRST on as one)."""
    store = mapping_only(store, raw)
    landed = [row.get("landed", 0) for rows in raw.values() for row in rows]
    runs = runs or [days_between(FIRST, FIRST + timedelta(days=max(landed, default=0)))]
    with warehouse_of(store, raw) as warehouse:
        for days in runs:
            built = build_cleaning(warehouse.reader(days[-1]), days, store)
            with warehouse.transaction():
                warehouse.replace_window("cleaning", TABLES, days, built)
        reader = warehouse.reader(runs[-1][-1])
        return {name: reader.window(name, None, runs[-1][-1]) for name in TABLES}


def event(at: str | datetime, user: str | None = "u", kind: str = "view_item", **more: Any) -> dict[str, Any]:
    return {"event_at": at, "user_id": user, "event_type": kind, "item_id": "i", **more}


def by_id(rows: pl.DataFrame, column: str) -> dict[str, Any]:
    return dict(rows.select("event_id", column).iter_rows())


def windows(*starts: int) -> list[list[date]]:
    """Windows that begin so many days after FIRST; the last number is the day after the last window."""
    return [
        days_between(FIRST + timedelta(days=start), FIRST + timedelta(days=stop - 1))
        for start, stop in itertools.pairwise(starts)
    ]


def test_the_ends_of_the_calendar_are_instants() -> None:
    """What stands for 'always' or 'never' is read, west and east of Greenwich; beyond it nothing is, and no row stops the others."""
    connection = ibis.duckdb.connect()
    written = ["0001-01-01 00:00:00", "9999-12-31 23:59:59", "2026-03-01 10:00:00", "infinity", "294247-01-10 04:00:54", "290309-12-22 (BC) 00:00:00"]
    table = connection.create_table("t", pl.DataFrame({"written": written}))
    for zone in ("America/New_York", "Europe/Berlin"):
        read = table.select("written", instant=parse_instant(table.written, zone, FIRST, FIRST))
        known = connection.con.execute(f"SELECT written FROM ({compiled(read)}) WHERE instant IS NOT NULL").fetchall()
        assert {text for (text,) in known} == set(written[:3])


# --- values -----------------------------------------------------------------------------------------------------------

BAD = [
    (event("yesterday"), "event_at 'yesterday' is no date and time"),
    (event(None), "event_at is missing"),
    (event("infinity"), "event_at 'infinity'"),
    (event("294247-01-10 04:00:54-05:00"), "event_at '294247-01-10 04:00:54-05:00' is no date and time"),  # the engine's last, and five hours
    (event("9999-12-31 00:00:00"), "event_at '9999-12-31 00:00:00' lies more than 1 day(s) after it landed"),
    (event("2026-02-28 23:59:59"), "event_at '2026-02-28 23:59:59' lies before first_day 2026-03-01"),
    (event("2026-03-03 00:00:00"), "lies more than 1 day(s) after it landed"),
    (event("2026-03-01 10:00:00", kind="bought"), "event_type 'bought' is none of view_item"),
    (event("2026-03-01 10:00:00", kind="purchase", unit_price="nan"), "unit_price 'nan' is no amount"),
    (event("2026-03-01 10:00:00", kind="purchase", unit_price="inf"), "unit_price 'inf' is no amount"),
    (event("2026-03-01 10:00:00", kind="purchase", unit_price="-1"), "unit_price '-1' is negative"),
    (event("2026-03-01 10:00:00", kind="purchase", unit_price="1e9"), "unit_price '1e9' is above 1e+06"),
    (event("2026-03-01 10:00:00", kind="purchase", unit_price="12,50"), "unit_price '12,50' is no amount"),
    (event("2026-03-01 10:00:00", kind="purchase", quantity="0"), "quantity '0' is zero"),
    (event("2026-03-01 10:00:00", kind="purchase", quantity="1.5"), "quantity '1.5' is no whole number"),
    (event("2026-03-01 10:00:00", kind="add_to_cart", quantity="-1"), "quantity '-1' is negative"),
    (event("2026-03-01 10:00:00", kind="purchase", quantity="99999999"), "quantity '99999999' is above 1000000"),
    (event("2026-03-01 10:00:00", kind="review", rating="NaN"), "rating 'NaN' is no finite number"),
    (event("2026-03-01 10:00:00", user="x" * 1_000_000), "user_id '" + "x" * 60 + "' ... is longer than 10000 characters"),
    ({**event("2026-03-01 10:00:00"), "item_id": None}, "item_id is missing"),
    ({**event("2026-03-01 10:00:00"), "item_id": ""}, "item_id is missing"),
    (event("2026-03-01 10:00:00", source_error="Expected 8 columns, found 7: a,b"), "Expected 8 columns, found 7: a,b"),
]


def test_every_bad_value_is_refused_with_column_and_value() -> None:
    result = clean(store_with(), {"events": [row for row, _ in BAD]})
    assert result["clean_events"].height == 0
    found = dict(result["rejected_rows"].select("source_row", "reason").iter_rows())
    for number, (_, expected) in enumerate(BAD):
        assert expected in found[number + 2]
    assert set(result["rejected_rows"]["source"]) == {"events"}
    assert '"event_type":"bought"' in "".join(result["rejected_rows"]["row"])


def test_good_values_pass_unchanged() -> None:
    """Formulas and markup are text like any other: neither run nor refused."""
    rows = [
        event(
            "2026-03-01 10:00:00", kind="review", event_id="a", review_text="=HYPERLINK(1)<b>", rating="4.5", item_id="<script>"
        ),
        event("2026-03-01 10:00:00", kind="search", event_id="b", item_id=None, search_query="shoes"),
        event("2026-03-02 20:00:00", event_id="c", quantity="2.0"),
        event("2026-03-01 10:00:00", user=None, kind="purchase", event_id="d", unit_price="2.5", quantity="3", discount="0.5"),
        event("2026-03-01 10:00:00", kind="purchase", event_id="e", unit_price="2.5"),
        event("2026-03-01 10:00:00", kind="purchase", event_id="f"),
    ]
    rows_by_id = {row["event_id"]: row for row in clean(store_with(), {"events": rows})["clean_events"].to_dicts()}
    assert len(rows_by_id) == 6
    assert (rows_by_id["a"]["review_text"], rows_by_id["a"]["item_id"]) == ("=HYPERLINK(1)<b>", "<script>")
    assert rows_by_id["b"]["item_id"] is None
    assert rows_by_id["c"]["quantity"] == 2
    assert rows_by_id["c"]["event_date"] == date(2026, 3, 2)  # tomorrow is within the tolerance
    assert rows_by_id["d"]["revenue"] == Decimal("7.0000")
    assert rows_by_id["d"]["user_id"] is None and rows_by_id["d"]["session_id"] is None
    assert (rows_by_id["e"]["quantity"], rows_by_id["e"]["revenue"]) == (1, Decimal("2.5000"))
    assert rows_by_id["f"]["revenue"] == Decimal(0)


def test_instants_with_and_without_zone() -> None:
    """London: winter time until 2026-03-29 01:00, then summer time; the hour from one to two does not exist."""
    texts = {
        "winter": ("2026-03-28 12:00:00", datetime(2026, 3, 28, 12)),
        "summer": ("2026-03-30 12:00:00", datetime(2026, 3, 30, 11)),
        "gap": ("2026-03-29 01:30:00", datetime(2026, 3, 29, 1, 30)),
        "after": ("2026-03-29T02:00:00", datetime(2026, 3, 29, 1)),
        "z": ("2026-03-30T12:00:00Z", datetime(2026, 3, 30, 12)),
        "utc": ("2026-03-30 12:00:00 UTC", datetime(2026, 3, 30, 12)),
        "east": ("2026-03-30 12:00:00+0530", datetime(2026, 3, 30, 6, 30)),
        "hours": ("2026-03-30 12:00-05", datetime(2026, 3, 30, 17)),
        "colon": ("2026-03-30 12:00:00.250+02:00", datetime(2026, 3, 30, 10, 0, 0, 250000)),
        "date": ("2026-03-30", datetime(2026, 3, 29, 23)),
        "fraction": ("2026-03-30 12:00:00.5", datetime(2026, 3, 30, 11, 0, 0, 500000)),
    }
    rows = [event(text, event_id=name, landed=29) for name, (text, _) in texts.items()]
    found = clean(store_with(), {"events": rows})["clean_events"]
    assert by_id(found, "event_at") == {name: expected for name, (_, expected) in texts.items()}
    assert by_id(found, "event_date")["date"] == date(2026, 3, 30)


@pytest.mark.parametrize("zone", ["Europe/London", "Asia/Tokyo", "America/New_York", "Australia/Lord_Howe", "UTC"])
def test_clock_agrees_with_the_zone_database(zone: str) -> None:
    """An hour-by-hour oracle, over both kinds of transition and a half-hour one."""
    import ibis

    first, last = date(2026, 1, 1), date(2027, 1, 1)
    hours = [datetime(2026, 1, 1) + timedelta(minutes=30 * step) for step in range(17_000)]
    table = ibis.memtable(pl.DataFrame({"at": hours}))
    found = table.mutate(local=to_local(table.at, zone, first, last), utc=to_utc(table.at, zone, first, last)).to_polars()
    utc, there = ZoneInfo("UTC"), ZoneInfo(zone)
    local = [hour.replace(tzinfo=utc).astimezone(there).replace(tzinfo=None) for hour in hours]
    back = [hour.replace(tzinfo=there).astimezone(utc).replace(tzinfo=None) for hour in hours]
    result = found.sort("at")
    assert result["local"].to_list() == local
    assert result["utc"].to_list() == back
    assert len(transitions(zone, first, last)[1]) == (0 if zone in ("Asia/Tokyo", "UTC") else 2)


# --- duplicates -------------------------------------------------------------------------------------------------------


def test_first_of_a_repeated_id_wins() -> None:
    rows = [
        event("2026-03-01 10:00:00", event_id="a", id="2"),
        event("2026-03-01 11:00:00", event_id="a", id="1"),
        event("2026-03-01 10:00:00", event_id="a", id="0", landed=5),
        event("2026-03-01 10:00:00", event_id="b", id="3"),
    ]
    result = clean(store_with(), {"events": rows})
    assert sorted(result["clean_events"]["raw_row_id"]) == ["1", "3"]
    assert result["rejected_rows"]["reason"].to_list() == ["duplicate", "duplicate"]


def test_duplicates_are_sought_thirty_landed_days_back() -> None:
    """Landed on days 0, 29, 30, 58, 60: the row of day 30 is accepted again, and the next 30 days count from it."""
    rows = [
        event(f"2026-03-0{n + 1} 10:00:00", event_id="a", id=str(day), landed=day) for n, day in enumerate((0, 29, 30, 58, 60))
    ]
    expected = ["0", "30", "60"]
    assert sorted(clean(store_with(), {"events": rows})["clean_events"]["raw_row_id"]) == expected
    assert (
        sorted(clean(store_with(), {"events": rows}, windows(0, 29, 30, 31, 58, 60, 61))["clean_events"]["raw_row_id"])
        == expected
    )


# --- sessions ---------------------------------------------------------------------------------------------------------


def sessions_of(rows: Rows, runs: Sequence[Sequence[date]] | None = None, store: Store | None = None) -> list[set[str]]:
    """Sets of event ids that share a session, sorted."""
    found = clean(store or store_with(), {"events": rows}, runs)["clean_events"]
    groups: dict[str, set[str]] = defaultdict(set)
    for name, session in found.select("event_id", "session_id").iter_rows():
        groups[session].add(name)
    return sorted(groups.values(), key=sorted)


def test_sessions_split_after_thirty_minutes_and_cross_midnight() -> None:
    rows = [
        event("2026-03-01 23:40:00", event_id="a"),
        event("2026-03-02 00:10:00", event_id="b", landed=1),
        event("2026-03-02 00:40:01", event_id="c", landed=1),
        event("2026-03-02 00:10:00", user="v", event_id="d", landed=1),
    ]
    single = [[FIRST], [FIRST + timedelta(days=1)]]
    assert sessions_of(rows) == sessions_of(rows, single) == [{"a", "b"}, {"c"}, {"d"}]


def test_late_events_join_what_is_there_and_never_merge() -> None:
    """a and b landed first, in two sessions. Of what lands later c looks back to a, d forward to b, e and f stand alone."""
    rows = [
        event("2026-03-02 10:00:00", event_id="a", landed=1),
        event("2026-03-02 11:00:00", event_id="b", landed=1),
        event("2026-03-02 10:30:00", event_id="c", landed=2),
        event("2026-03-02 10:31:00", event_id="d", landed=2),
        event("2026-03-02 08:00:00", event_id="e", landed=2),
        event("2026-03-02 08:20:00", event_id="f", landed=2),
        event("2026-03-02 08:10:00", event_id="g", landed=3),
        event("2026-03-02 11:20:00", event_id="h", landed=3),
    ]
    expected = [{"a", "c"}, {"b", "d", "h"}, {"e", "f"}, {"g"}]
    assert sessions_of(rows) == expected
    assert sessions_of(rows, [[FIRST + timedelta(days=day)] for day in range(4)]) == expected
    found = clean(store_with(), {"events": rows})["clean_events"]
    assert {name for name, late in by_id(found, "is_late").items() if late} == {"c", "d", "e", "f", "g"}


def test_given_sessions_are_kept_and_joined() -> None:
    """A server-side event without a session belongs to the visit it falls into."""
    rows = [
        event("2026-03-01 10:00:00", event_id="a", session_id="s1"),
        event("2026-03-01 10:20:00", event_id="b"),
        event("2026-03-01 12:00:00", event_id="c"),
        event("2026-03-01 12:01:00", event_id="d", session_id="s2"),
        event("2026-03-01 12:02:00", event_id="e"),
        event("2026-03-01 10:00:00", user=None, event_id="f", session_id="s3"),
    ]
    found = by_id(clean(store_with(), {"events": rows})["clean_events"], "session_id")
    assert (found["a"], found["b"], found["d"], found["e"], found["f"]) == ("s1", "s1", "s2", "s2", "s3")
    assert found["c"] not in ("s1", "s2", None)


def oracle_sessions(rows: Rows, gap: int = 30, late_days: int = 30, tolerance: int = 1) -> dict[str, int]:
    """The session rule as a plain loop: landed day by landed day, user by user."""
    sessions: dict[str, int] = {}
    on_time: dict[str, list[tuple[datetime, int, str, int]]] = defaultdict(list)  # user -> (at, landed, id, session)
    count = 0
    by_day: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for number, row in enumerate(rows):
        by_day[row["landed"]].append({**row, "id": f"r{number:06d}"})
    for landed in sorted(by_day):
        earlier = {user: [one for one in past if one[1] > landed - late_days] for user, past in on_time.items()}
        orphans: dict[str, tuple[datetime, int]] = {}
        newest: dict[str, tuple[datetime, int]] = {}
        for user, past in earlier.items():
            if past:
                top = max(past)
                newest[user] = (top[0], top[3])
        for row in sorted(by_day[landed], key=lambda row: (row["event_at"], row["id"])):
            at, user = row["event_at"], row["user_id"]
            past = earlier.get(user, [])
            too_old = (FIRST + timedelta(days=landed) - at.date()).days > late_days - 2 - tolerance
            if not too_old and all(at >= other[0] for other in past):
                last = newest.get(user)
                if last is not None and at - last[0] <= timedelta(minutes=gap):
                    session = last[1]
                else:
                    count += 1
                    session = count
                newest[user] = (at, session)
                on_time[user].append((at, landed, row["id"], session))
            else:
                near = [one for one in past if abs(one[0] - at) <= timedelta(minutes=gap)]
                before = [one for one in near if one[0] <= at]
                after = [one for one in near if one[0] > at]
                if near:
                    session = max(before)[3] if before else min(after)[3]
                else:
                    if user in orphans and at - orphans[user][0] <= timedelta(minutes=gap):
                        session = orphans[user][1]
                    else:
                        count += 1
                        session = count
                    orphans[user] = (at, session)
            sessions[row["event_id"]] = session
    return sessions


@st.composite
def event_logs(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Few users, few minutes, some landed days: ties, gaps and late rows all the time. London in March, before summer time."""
    size = draw(st.integers(1, 40))
    rows = []
    for number in range(size):
        landed = draw(st.integers(0, 5))
        day = max(0, landed - draw(st.sampled_from((0, 0, 0, 1, 2))))
        minute = draw(st.integers(0, 1439) if draw(st.booleans()) else st.sampled_from((0, 5, 30, 35, 61, 90, 1425, 1439)))
        rows.append(
            event(
                datetime(2026, 3, 1) + timedelta(days=day, minutes=minute),
                draw(st.sampled_from("uvw")),
                event_id=f"e{number}",
                landed=landed,
            )
        )
    return rows


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(event_logs())
def test_sessions_equal_a_plain_loop(rows: list[dict[str, Any]]) -> None:
    expected: dict[int, set[str]] = defaultdict(set)
    for name, session in oracle_sessions(rows).items():
        expected[session].add(name)
    assert sessions_of(rows) == sorted(expected.values(), key=sorted)


# --- refunds, services, bots, identities ------------------------------------------------------------------------------


def purchase(at: str, name: str, quantity: int, **more: Any) -> dict[str, Any]:
    return event(at, kind="purchase", event_id=name, quantity=quantity, unit_price="2", **more)


def test_refunds_find_their_purchase() -> None:
    rows = [
        purchase("2026-03-01 10:00:00", "old", 5),
        purchase("2026-03-02 10:00:00", "small", 1, landed=1),
        purchase("2026-03-02 12:00:00", "other", 9, landed=1, item_id="j"),
        purchase("2026-03-05 10:00:00", "later", 9, landed=4),
        purchase("2026-03-03 10:00:00", "back", -3, landed=2),
        purchase("2026-03-03 10:00:00", "far", -7, landed=2),
        event(
            "2026-03-03 11:00:00",
            kind="refund",
            event_id="given",
            quantity=1,
            unit_price="2",
            refunds_event_id="elsewhere",
            landed=2,
        ),
        event("2026-03-03 12:00:00", kind="refund", event_id="one", quantity=1, unit_price="2", landed=2),
    ]
    runs = [None, [[FIRST + timedelta(days=day)] for day in range(5)]]
    for run in runs:
        found = clean(store_with(), {"events": rows}, run)["clean_events"]
        matched = by_id(found, "refunds_event_id")
        assert (matched["back"], matched["far"], matched["given"], matched["one"]) == ("old", None, "elsewhere", "small")
        assert by_id(found, "event_type")["back"] == "refund"
        assert by_id(found, "quantity")["back"] == 3
        assert by_id(found, "revenue")["back"] == Decimal("-6.0000")
    short = store_with(cleaning={"refund_match_days": 1})
    assert by_id(clean(short, {"events": rows})["clean_events"], "refunds_event_id")["back"] is None


def test_services_are_marked() -> None:
    rows = [
        event("2026-03-01 10:00:00", event_id="a", item_id="POST"),
        event("2026-03-01 10:00:00", event_id="b", item_id="POSTER"),
    ]
    found = clean(store_with(cleaning={"service_item_pattern": "^(POST|M)$"}), {"events": rows})["clean_events"]
    assert by_id(found, "is_service") == {"a": True, "b": False}


def test_bots_are_flagged_by_what_they_do() -> None:
    start = datetime(2026, 3, 1, 10)
    rows = [event(start + timedelta(seconds=second), "fast", event_id=f"f{second}") for second in range(31)]
    rows += [event(start + timedelta(seconds=2 * second), "quick", event_id=f"q{second}") for second in range(31)]
    rows += [event(start + timedelta(seconds=60 * step), "endless", event_id=f"e{step}") for step in range(60)]
    rows += [event(start + timedelta(seconds=60 * step), "buyer", event_id=f"b{step}") for step in range(60)]
    rows += [event(start, "buyer", "purchase", event_id="b"), event(start + timedelta(days=1), "fast", event_id="next", landed=1)]
    rows += [event(start, "bulk", "purchase", event_id=f"p{line}") for line in range(40)]
    found = clean(store_with(cleaning={"bot_events_per_day": 50}), {"events": rows})["clean_events"]
    flagged = found.filter("is_bot")
    assert set(flagged["user_id"]) == {"fast", "endless"}
    assert flagged.height == 31 + 60  # the next day stands for itself


def test_what_a_bot_did_on_its_day_is_a_bots_however_late_it_lands() -> None:
    start = datetime(2026, 3, 1, 10)
    rows = [event(start + timedelta(seconds=second), "fast", event_id=f"f{second}") for second in range(31)]
    rows += [event(start + timedelta(minutes=day), "fast", event_id=f"late{day}", landed=day) for day in (1, 26, 27, 28)]
    rows += [event(start + timedelta(days=1), "fast", event_id="next", landed=2), event(start, "other", event_id="o", landed=1)]
    store = store_with(cleaning={"bot_events_per_day": 50})
    days = [FIRST + timedelta(days=day) for day in range(29)]
    for runs in ([days], [[day] for day in days], [days[:26], days[26:]]):
        found = clean(store, {"events": rows}, runs)["clean_events"].filter(~pl.col("is_bot"))
        assert set(found["event_id"]) == {"late28", "next", "o"}


def test_identities_join_from_the_day_they_land() -> None:
    rows = [event("2026-03-01 10:00:00", "cookie", event_id=f"e{day}", landed=day) for day in range(4)]
    identities = [
        {"from_user_id": "cookie", "user_id": "account", "landed": 1},
        {"from_user_id": "account", "user_id": "person", "landed": 2},
        {"from_user_id": "cookie", "user_id": "someone", "landed": 3},
        {"from_user_id": None, "user_id": "x", "landed": 3},
    ]
    store = store_with(("events", "identities"))
    for runs in (None, [[FIRST + timedelta(days=day)] for day in range(4)]):
        result = clean(store, {"events": rows, "identities": identities}, runs)
        assert by_id(result["clean_events"], "user_id") == {"e0": "cookie", "e1": "account", "e2": "person", "e3": "person"}
        assert result["rejected_rows"].select("source", "reason").rows() == [("identities", "from_user_id is missing")]


# --- impressions and conversions --------------------------------------------------------------------------------------


def shown(at: str, name: str, **more: Any) -> dict[str, Any]:
    return {
        "shown_at": at,
        "placement_id": "p",
        "creative_id": "c",
        "is_clicked": "false",
        "impression_id": name,
        "user_id": "u",
        **more,
    }


def test_impressions() -> None:
    rows = [
        shown("2026-03-30 00:30:00", "a", landed=29, logging_propensity="0.5", position="2", is_clicked="1"),
        shown("2026-03-30 00:30:00", "a", landed=29, id="z"),
        shown("2026-03-30 00:30:00", "b", landed=29, creative_id=None),
        shown("2026-03-30 00:30:00", "c", landed=29, logging_propensity="0"),
        shown("2026-03-30 00:30:00", "d", landed=29, is_clicked="maybe"),
    ]
    result = clean(store_with(("impressions",)), {"impressions": rows})
    (row,) = result["clean_impressions"].to_dicts()
    assert (row["shown_at"], row["impression_date"], row["hour"], row["is_clicked"]) == (
        datetime(2026, 3, 29, 23, 30),
        date(2026, 3, 30),
        0,
        True,
    )
    assert sorted(result["rejected_rows"]["reason"]) == [
        "duplicate",
        "is_clicked 'maybe' is no true or false",
        "logging_propensity '0' is not a probability above 0",
        "one of item_id and creative_id is needed",
    ]


def conversions_of(store: Store, raw: Mapping[str, Rows]) -> list[tuple[Any, ...]]:
    last = max(row.get("landed", 0) for rows in raw.values() for row in rows)
    whole = clean(store, raw)["attributed_conversions"]
    single = clean(store, raw, windows(*sorted({*range(0, last, 2), last, last + 1})))["attributed_conversions"]
    assert whole.equals(single)
    rows = whole.with_columns(day=(pl.col("landed_date") - FIRST).dt.total_days())
    return rows.select("day", "conversion_id", "impression_id", "conversion_value", "attribution_rule", "is_refunded").rows()


CLICKS = [
    shown("2026-03-01 09:00:00", "first", is_clicked="true"),
    shown("2026-03-02 09:00:00", "second", is_clicked="true", landed=1),
    shown("2026-03-02 10:00:00", "unclicked", landed=1),
    shown("2026-03-02 09:30:00", "other", user_id="v", is_clicked="true", landed=1),
]


@pytest.mark.parametrize(
    ("text", "is_good"),
    [('{"school":"1","rain_mm":null}', True), ('{"school": -0.5e-2, "fair": true}', True), ('{"school":" 3 ","fair":""}', True), ("{}", True),
     ('{"school":"yes"}', False), ('{"school":"nan"}', False), ('{"school":1e999}', False), ('{"a":{"b":1}}', False),
     ('{"Rain (mm)":1}', False), ("[1]", False), ("1", False)],
)  # fmt: skip
def test_numbers_of_the_shops_own_are_numbers(text: str, is_good: bool) -> None:
    raw = {"market_days": [{"date": "2026-03-02", "further": text}]}
    found = clean(store_with(("market_days",)), raw)["rejected_rows"]["reason"].to_list()
    assert found == ([] if is_good else [f"further '{text}' is no JSON object of numbers named in small letters, digits and _"])


@pytest.mark.parametrize(
    ("end", "reason"),
    [("2026-03-02", None), ("", None), ("9999-12-31", None), ("2026-03-01", "end_date '2026-03-01' lies before date"),
     ("soon", "end_date 'soon' is no date")],
)  # fmt: skip
def test_a_range_of_days_ends_where_it_begins_or_later(end: str, reason: str | None) -> None:
    raw = {"market_days": [{"date": "2026-03-02", "end_date": end, "is_holiday": "true"}]}
    assert clean(store_with(("market_days",)), raw)["rejected_rows"]["reason"].to_list() == ([] if reason is None else [reason])


def drivers_known(raw: Mapping[str, Rows], first: date, last: date, known_by: date) -> pl.DataFrame:
    """Rows of item_drivers by day, what counts last at the end."""
    store = mapping_only(store_with(("item_drivers",)), raw)
    with warehouse_of(store, raw) as warehouse:
        reader = warehouse.reader(last)
        rows = by_day(accepted_landed(reader, "item_drivers", None, last), "item_drivers", store, first, last, known_by)
        return reader.frame(rows).sort("held_since", "landed_date", "known_at", "raw_row_id")


def test_a_price_holds_until_the_next_one_and_a_plan_goes_before_it() -> None:
    def price(start: int, paid: int, landed: int, end: int | str = "9999-12-31") -> dict[str, Any]:
        last = end if isinstance(end, str) else FIRST + timedelta(days=end)
        return {"item_id": "a", "date": FIRST + timedelta(days=start), "known_at": f"{FIRST + timedelta(days=landed)} 06:00:00",
                "end_date": last, "unit_price": paid, "landed": landed}  # fmt: skip

    told = [price(-500, 8, 0), price(0, 10, 0), price(6, 9, 4), price(20, 12, 1), price(3, 5, 2, end=7), price(25, 0, 1, end="")]
    for as_of, expected in (
        (0, [10] * 30),
        (1, [10] * 20 + [12] * 5 + [0] + [12] * 4),
        (2, [10] * 3 + [5] * 5 + [10] * 12 + [12] * 5 + [0] + [12] * 4),
        (4, [10] * 3 + [5] * 5 + [9] * 12 + [12] * 5 + [0] + [12] * 4),  # the rise planned before the cut came still comes
    ):
        for known_by in range(as_of + 1):
            rows = drivers_known({"item_drivers": told}, FIRST, FIRST + timedelta(days=29), FIRST + timedelta(days=known_by))
            known = rows.filter(pl.col("landed_date") <= FIRST + timedelta(days=as_of)).group_by("date").agg(pl.col("unit_price").last())
            assert [int(paid) for paid in known.sort("date")["unit_price"]] == expected, (as_of, known_by)


@pytest.mark.parametrize("seed", range(8))
def test_what_a_day_is_told_agrees_with_going_through_the_rows_one_by_one(seed: int) -> None:
    generator = random.Random(seed)
    told: list[dict[str, Any]] = []
    for _ in range(60):
        start, landed, known = generator.choice([-450, *range(-5, 25)]), generator.randrange(15), generator.randrange(-9, 15)
        end = generator.choice(["", "9999-12-31", "9999-12-31", FIRST + timedelta(days=max(start, 0) + generator.randrange(20))])
        told.append({
            "item_id": generator.choice("ab"), "location_id": generator.choice([None, "n"]), "date": FIRST + timedelta(days=start),
            "known_at": f"{FIRST + timedelta(days=known)} 0{generator.randrange(10)}:00:00", "end_date": end, "landed": landed, "known": known,
            "unit_price": generator.choice([None, generator.randrange(100)]), "is_promotion": generator.choice([None, True, False]),
        })  # fmt: skip
    last, none = FIRST + timedelta(days=22), date.max
    columns = ("unit_price", "is_promotion")

    def counts(place: int) -> tuple[Any, ...]:
        row = told[place]
        is_open = str(row["end_date"]) > str(row["date"] + timedelta(days=400))
        return (row["date"] if is_open else none, row["landed"], row["known_at"], place)

    for known_by in (0, 7, 14):
        rows = drivers_known({"item_drivers": told}, FIRST, last, FIRST + timedelta(days=known_by))
        for as_of in range(known_by, 15):
            day_of = FIRST + timedelta(days=as_of)
            known = rows.filter(pl.col("landed_date") <= day_of, pl.col("known_at").dt.date() <= day_of)
            newest = known.group_by("item_id", "location_id", "date").agg(pl.col(name).drop_nulls().last() for name in columns)
            found = {row[:3]: row[3:] for row in newest.iter_rows()}
            for item, place, day in itertools.product("ab", (None, "n"), days_between(FIRST, last)):
                covering = [
                    place_of for place_of in sorted(range(len(told)), key=counts)
                    if max((row := told[place_of])["landed"], row["known"]) <= as_of and (row["item_id"], row["location_id"]) == (item, place)
                    and str(row["date"]) <= str(day) <= str(row["end_date"] or row["date"])
                ]  # fmt: skip
                expected = tuple(
                    next((told[place_of][name] for place_of in reversed(covering) if told[place_of][name] is not None), None) for name in columns
                )
                assert found.get((item, place, day), (None, None)) == expected


def test_purchases_are_credited_to_the_last_click_once() -> None:
    store = store_with(("events", "impressions"))
    events = [
        purchase("2026-03-02 11:00:00", "x", 1, landed=1, order_id="o1"),
        purchase("2026-03-02 11:00:00", "y", 2, landed=1, order_id="o1", item_id="j"),
        purchase("2026-03-03 11:00:00", "again", 1, landed=3, order_id="o1"),
        purchase("2026-03-01 08:00:00", "before", 1, order_id="o2"),
        purchase("2026-03-12 11:00:00", "too late", 1, landed=11, order_id="o3"),
        purchase("2026-03-12 11:00:00", "r", -1, landed=11, order_id="c1", item_id="j"),
        event(
            "2026-03-12 12:00:00", kind="refund", event_id="s", quantity=1, unit_price="2", order_id="o1", item_id="k", landed=11
        ),
    ]
    assert conversions_of(store, {"events": events, "impressions": CLICKS}) == [
        (1, "o1", "second", Decimal("6.0000"), "last_click", False),
        (11, "o1-refund", "second", Decimal("-4.0000"), "last_click", True),
    ]


def test_conversions_reported() -> None:
    store = store_with(("events", "impressions", "conversions"))
    reported = [
        {"converted_at": "2026-03-02 11:00:00", "impression_id": "first", "order_id": "o1", "conversion_value": "9", "landed": 2},
        {
            "converted_at": "2026-03-02 11:00:00",
            "impression_id": "second",
            "order_id": "o1",
            "conversion_value": "9",
            "landed": 4,
        },
        {"converted_at": "2026-03-02 09:30:00", "user_id": "u", "order_id": "o2", "conversion_value": "5", "landed": 2},
        {"converted_at": "2026-03-02 09:30:00", "user_id": "w", "order_id": "o3", "landed": 2},
        {"converted_at": "2026-03-02 09:30:00", "landed": 2},
    ]
    raw = {"conversions": reported, "impressions": CLICKS}
    assert conversions_of(store, raw) == [
        (2, "o1", "first", Decimal("9.0000"), "reported", False),
        (2, "o2", "second", Decimal("5.0000"), "last_click", False),
    ]
    assert clean(store, raw)["rejected_rows"]["reason"].to_list() == ["one of impression_id and user_id is needed"]


def test_conversions_of_the_ad_log_itself() -> None:
    rows = [
        shown("2026-03-01 09:00:00", "a", is_clicked="1", is_converted="1", conversion_value="3"),
        shown("2026-03-01 09:00:00", "b", is_converted="0"),
    ]
    assert conversions_of(store_with(("impressions",)), {"impressions": rows}) == [
        (0, "a", "a", Decimal("3.0000"), "impression_log", False)
    ]


def test_missing_sources_are_named() -> None:
    store = store_with(("items",))
    with warehouse_of(store, {"items": [{"item_id": "i"}]}) as warehouse:
        built = build_cleaning(warehouse.reader(FIRST), [FIRST], store)
    assert built.degraded == {
        "clean_events": "needs source 'events'",
        "clean_impressions": "needs source 'impressions'",
        "attributed_conversions": "needs source 'impressions'",
    }


# --- other inputs -----------------------------------------------------------------------------------------------------


def test_accepted_rows_take_the_newest_value_of_each_column() -> None:
    store = store_with(("items", "surveys"))
    items = [
        {"item_id": "a", "title": "old", "unit_price": "1", "landed": 0},
        {"item_id": "a", "title": None, "unit_price": "2", "landed": 1},
        {"item_id": "a", "title": "new", "unit_price": "-3", "landed": 2},
        {"item_id": "b", "title": "b", "landed": 2},
    ]
    surveys = [{"answered_at": "2026-03-01 10:00:00", "score": "9"}, {"answered_at": "2026-03-01 10:00:00", "score": "ten"}]
    with warehouse_of(store, {"items": items, "surveys": surveys}) as warehouse:
        days = days_between(FIRST, FIRST + timedelta(days=2))
        reader = warehouse.reader(days[-1])
        with warehouse.transaction():
            warehouse.replace_window("cleaning", TABLES, days, build_cleaning(reader, days, store))
        newest = accepted_rows(reader, "items", None, days[-1]).order_by("item_id").to_polars()
        assert newest.select("item_id", "title", "unit_price").rows() == [("a", "old", Decimal("2.0000")), ("b", "b", None)]
        before = reader.accepted("items", None, days[0])
        assert before.select("item_id", "title", "unit_price").rows() == [("a", "old", Decimal("1.0000"))]
        assert reader.accepted("surveys", days[0], days[0])["score"].to_list() == [9.0]
        assert reader.accepted("refit_requests", None, days[-1]).height == 0


# --- a range is its days ----------------------------------------------------------------------------------------------


def busy_shop(seed: int) -> dict[str, list[dict[str, Any]]]:
    """Seventy landed days of everything that happens to an event: late, repeated, refunded, broken, renamed, clicked."""
    chance = random.Random(seed)
    rows: list[dict[str, Any]] = []
    clicks: list[dict[str, Any]] = []
    for number in range(700):
        landed = chance.randrange(70)
        day = max(0, landed - chance.choice((0, 0, 0, 0, 1, 2, 26, 27, 28, 40)))
        at = datetime(2026, 3, 1) + timedelta(days=day, minutes=chance.choice((0, 10, 25, 50, 1430, chance.randrange(1440))))
        kind = chance.choice(("view_item", "view_item", "add_to_cart", "purchase", "purchase", "refund"))
        row = event(
            at,
            chance.choice((None, *"uvwxyz")),
            kind,
            item_id=chance.choice("ij"),
            landed=landed,
            event_id=f"e{chance.randrange(600)}",
            quantity=chance.choice((1, 2, -1)) if kind in ("purchase", "refund") else None,
            unit_price=chance.choice(("2", "3.5", "x")),
            order_id=f"o{chance.randrange(200)}" if kind == "purchase" else None,
            session_id=chance.choice((None,) * 9 + (f"s{number}",)),
        )
        rows.append(row)
        if chance.random() < 0.4:
            clicks.append(
                {
                    "shown_at": at,
                    "placement_id": "p",
                    "item_id": "i",
                    "is_clicked": chance.choice(("1", "0")),
                    "user_id": row["user_id"],
                    "impression_id": f"m{chance.randrange(250)}",
                    "landed": landed,
                }
            )
    names = [
        {"from_user_id": chance.choice("uvw"), "user_id": chance.choice("wxy"), "landed": chance.randrange(70)} for _ in range(5)
    ]
    return {"events": rows, "impressions": clicks, "identities": names}


def test_a_range_equals_its_days_and_any_split() -> None:
    """Guards every rule that looks back: duplicates, sessions, refunds, identities, clicks, refunds of credited orders."""
    raw = busy_shop(0)
    store = store_with(("events", "impressions", "identities"), cleaning={"refund_match_days": 20})
    whole = clean(store, raw)
    for runs in (windows(0, 9, 10, 11, 32, 41, 42, 57, 70),):
        again = clean(store, raw, runs)
        for name in TABLES:
            assert whole[name].equals(again[name]), name
    assert whole["attributed_conversions"].filter("is_refunded").height > 0
    assert whole["clean_events"].filter("is_late").height > 20
    counted = whole["clean_events"].height + whole["rejected_rows"].filter(pl.col("source") == "events").height
    assert counted == len(raw["events"])


def test_nothing_landed_later_matters() -> None:
    """Partition D comes out the same with everything after D deleted."""
    raw = {
        source: [{**row, "id": f"{source}{number}"} for number, row in enumerate(rows)] for source, rows in busy_shop(3).items()
    }
    store = store_with(("events", "impressions", "identities"))
    whole = clean(store, raw)
    cut = FIRST + timedelta(days=40)
    early = {source: [row for row in rows if row["landed"] <= 40] for source, rows in raw.items()}
    before = clean(store, early, [days_between(FIRST, cut)])
    for name in TABLES:
        expected = whole[name].filter(pl.col("landed_date") <= cut)
        measured = [column for column in expected.columns if column == "source_row"]
        assert expected.drop(measured).equals(before[name].drop(measured)), name


def test_order_of_rows_does_not_matter() -> None:
    raw = busy_shop(4)
    store = store_with(("events", "impressions", "identities"))
    named = {source: [{**row, "id": f"{source}{number}"} for number, row in enumerate(rows)] for source, rows in raw.items()}
    turned = {source: list(reversed(rows)) for source, rows in named.items()}
    one, two = clean(store, named), clean(store, turned)
    for name in ("clean_events", "clean_impressions", "attributed_conversions"):
        assert one[name].equals(two[name]), name
