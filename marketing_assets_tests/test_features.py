"""Features: small cases worked out by hand, plain-loop oracles, and the same rows however days are grouped."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from marketing_assets import features
from marketing_assets.config import ACTIVE_DAYS, LATE_DAYS, Store
from marketing_assets.features import preferences, running
from marketing_assets.features.items import stock_of_places
from marketing_assets.schemas import TABLES
from marketing_assets.warehouse import Warehouse, days_between, open_warehouse, polars_schema

FIRST = date(2024, 3, 1)
STEPS = {
    "items": features.build_items,
    "sessions": features.build_sessions,
    "item_days": features.build_item_days,
    "user_features": features.build_user_features,
    "item_features": features.build_item_features,
}
MADE = {step: ("user_features", "user_preferences") if step == "user_features" else (step,) for step in STEPS}


def shop(*sources: str, **settings: Any) -> Store:
    mapped = {name: {"files": "{date}.csv", "columns": {"*": "*"}} for name in ("events", *sources)}
    return Store.model_validate(
        {
            "name": "test",
            "timezone": "Europe/London",
            "currency": "GBP",
            "first_day": FIRST,
            "sources": mapped,
            "threads": 1,
            **settings,
        }
    )


def day(number: int) -> date:
    """Day 1 is the shop's first."""
    return FIRST + timedelta(days=number - 1)


def event(
    number: int, happened: int, kind: str, user: str | None = "u", item: str | None = "a", landed: int | None = None, **more: Any
) -> dict[str, Any]:
    """An event of a day number; purchases and refunds move `quantity` at `unit_price`."""
    instant = datetime.combine(day(happened), datetime.min.time()) + timedelta(hours=more.pop("hour", 10), seconds=number)
    row: dict[str, Any] = {
        "landed_date": day(landed or happened),
        "event_date": day(happened),
        "event_id": f"e{number:05d}",
        "event_at": instant,
        "user_id": user,
        "session_id": f"{user}-{happened}" if user else None,
        "event_type": kind,
        "item_id": item,
        "revenue": Decimal(0),
        "is_bot": False,
        "is_service": False,
        "raw_row_id": f"r{number}",
        **more,
    }
    if kind in ("purchase", "refund"):
        row["quantity"] = row.get("quantity", 1)
        row["unit_price"] = row.get("unit_price", Decimal(1))
        row["revenue"] = row["quantity"] * row["unit_price"] * (1 if kind == "purchase" else -1)
    return row


def fill(warehouse: Warehouse, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    frame = pl.DataFrame(
        list(rows),
        schema_overrides={k: v for k, v in polars_schema(name).items() if any(k in row for row in rows)},
        infer_schema_length=None,
    )
    warehouse.connection.register("incoming", frame.to_arrow())
    warehouse.connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM incoming")
    warehouse.connection.unregister("incoming")


def raw(source: str, landed: int, number: int, **values: Any) -> tuple[str, dict[str, Any]]:
    return f"raw_{source}", {
        "landed_date": day(landed),
        "raw_row_id": f"{source}{number}",
        "source_file": f"{landed:03d}.csv",
        "source_row": number,
        "row_hash": "h",
        **{name: None if value is None else str(value) for name, value in values.items()},
    }


def built(
    store: Store,
    events: Sequence[Mapping[str, Any]],
    groups: Sequence[Sequence[date]],
    inputs: Sequence[tuple[str, dict[str, Any]]] = (),
    steps: Sequence[str] = tuple(STEPS),
) -> dict[str, pl.DataFrame]:
    """Every table after building the groups of days one after the other, sorted by key."""
    by_table: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name, row in inputs:
        by_table[name].append(row)
    with open_warehouse(store, in_memory=True) as warehouse:
        fill(warehouse, "clean_events", events)
        for name, rows in by_table.items():
            fill(warehouse, name, rows)
        for group in groups:
            for step in steps:
                made = STEPS[step](warehouse.reader(group[-1]), group, store)
                assert not made.models
                warehouse.replace_window(step, MADE[step], group, made)
        return {
            name: warehouse.connection.execute(f"SELECT * FROM {name}")
            .pl()
            .sort(list(dict.fromkeys((TABLES[name].partition_column, *TABLES[name].key))))
            for step in steps
            for name in MADE[step]
        }


def assert_same(left: pl.DataFrame, right: pl.DataFrame, name: str) -> None:
    assert left.height == right.height, name
    for column, kind in left.schema.items():
        if kind == pl.Float64:
            assert left[column].is_null().equals(right[column].is_null()), (name, column)
            for one, other in zip(left[column].drop_nulls(), right[column].drop_nulls(), strict=True):
                assert one == pytest.approx(other, rel=1e-9, abs=1e-12), (name, column)
        else:
            assert left[column].equals(right[column], null_equal=True), (name, column)


def random_log(seed: int, last: int) -> list[dict[str, Any]]:
    """A seeded log with everything that makes features hard: late rows, split orders, bots, fees, unknown users, ratings."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    users = ["ann", "bob", "cid", "dee", "eve", None]
    kinds = [
        "view_item",
        "view_item",
        "search",
        "add_to_wishlist",
        "add_to_cart",
        "begin_checkout",
        "purchase",
        "purchase",
        "refund",
        "review",
    ]
    for number in range(160):
        kind = rng.choice(kinds)
        user = rng.choices(users, weights=[5, 4, 3, 1, 1, 3])[0]
        happened = rng.randint(1, last)
        landed = min(last, happened + rng.choice([0, 0, 0, 1, 5, 33]))
        more: dict[str, Any] = {
            "hour": rng.randint(0, 23),
            "device": rng.choice([None, "phone", "desk"]),
            "channel": rng.choice(["ads", "mail", None]),
            "is_bot": rng.random() < 0.08,
            "location_id": rng.choice([None, "north"]),
            "dwell_seconds": rng.choice([None, rng.uniform(0, 100)]),
        }
        item = None if kind == "search" else rng.choice("abcdef")
        if kind in ("purchase", "refund"):
            more |= {
                "quantity": rng.randint(1, 5),
                "unit_price": Decimal(rng.randint(1, 9999)) / 100,
                "order_id": rng.choice([None, f"o-{user}-{rng.randint(1, 6)}"]),
            }
            if rng.random() < 0.1:
                more["is_service"], item = True, "POST"
        if kind == "review":
            more["rating"] = float(rng.randint(1, 5))
        if user is not None and rng.random() < 0.2:
            more["session_id"] = f"given-{user}"
        rows.append(event(number, happened, kind, user, item, landed, **more))
    return rows


# --- oracles: one entity and day at a time, from the whole log ---------------------------------------------------------


def orders_of(rows: Sequence[dict[str, Any]]) -> list[tuple[date, date]]:
    """(landed day, event day) of each order of one user."""
    pieces: dict[str, dict[date, date]] = defaultdict(dict)
    for row in rows:
        if row["event_type"] == "purchase" and not row["is_service"]:
            landed = pieces[row.get("order_id") or str(row["event_date"])]
            landed[row["landed_date"]] = min(row["event_date"], landed.get(row["landed_date"], row["event_date"]))
    found = []
    for landed in pieces.values():
        before = None
        for when in sorted(landed):
            if before is None or (when - before).days > LATE_DAYS:
                found.append((when, landed[when]))
            before = when
    return found


def decayed(values: Sequence[tuple[date, float]], at: date, half_life: int) -> float:
    return sum(value * 2 ** (-(at - when).days / half_life) for when, value in values)


def user_entry(rows: Sequence[dict[str, Any]], sessions: int, at: date) -> dict[str, Any]:
    """user_features of one user as of a day, from all their events known by then."""
    bought = [row for row in rows if row["event_type"] == "purchase" and not row["is_service"]]
    orders = [pair for pair in orders_of(rows) if pair[0] <= at]
    paid = [row for row in rows if row["event_type"] == "purchase"]
    ratings = [row["rating"] for row in rows if row.get("rating") is not None]
    first_seen, first_order = min(row["event_date"] for row in rows), min((row["event_date"] for row in bought), default=None)
    last_order = max((row["event_date"] for row in bought), default=None)
    order_days = len({row["landed_date"] for row in bought})

    def of(kind: str) -> list[tuple[date, float]]:
        return [(row["event_date"], 1.0) for row in rows if row["event_type"] == kind]

    spend = [(row["event_date"], float(row["revenue"])) for row in paid]
    return {
        "first_seen_date": first_seen,
        "last_seen_date": max(row["event_date"] for row in rows),
        "first_order_date": first_order,
        "last_order_date": last_order,
        "recency_days": None if last_order is None else max(0, (at - last_order).days),
        "active_days": len({row["landed_date"] for row in rows}),
        "order_days": order_days,
        "orders": len(orders),
        "units": sum(row["quantity"] for row in bought),
        "revenue": sum((row["revenue"] for row in rows), Decimal(0)),
        "gross_revenue": sum((row["revenue"] for row in paid), Decimal(0)),
        "refunds": len(of("refund")),
        "sessions": sessions,
        "events": len(rows),
        "views": len(of("view_item")),
        "searches": len(of("search")),
        "wishlists": len(of("add_to_wishlist")),
        "carts": len(of("add_to_cart")),
        "reviews": len(of("review")),
        "ratings": len(ratings),
        "mean_rating": sum(ratings) / len(ratings) if ratings else None,
        "browse_seconds": sum(row.get("dwell_seconds") or 0.0 for row in rows),
        "purchase_frequency": len(orders) / max(1, (at - first_seen).days + 1) * 30,
        "mean_days_between_orders": (last_order - first_order).days / (order_days - 1)
        if order_days > 1 and first_order and last_order
        else None,
        **{f"orders_decayed_{life}": decayed([(when, 1.0) for _, when in orders], at, life) for life in (7, 30, 90)},
        **{f"revenue_decayed_{life}": decayed(spend, at, life) for life in (30, 90)},
        **{f"views_decayed_{life}": decayed(of("view_item"), at, life) for life in (7, 30)},
        **{f"carts_decayed_{life}": decayed(of("add_to_cart"), at, life) for life in (7, 30)},
    }


def item_entry(rows: Sequence[dict[str, Any]], at: date) -> dict[str, Any]:
    sold = [row for row in rows if row["event_type"] == "purchase"]
    views = [(row["event_date"], 1.0) for row in rows if row["event_type"] == "view_item"]
    people = [row for row in rows if not row["is_bot"]]
    ratings = [row["rating"] for row in people if row.get("rating") is not None]
    units = [(row["event_date"], float(row["quantity"])) for row in sold]
    gross = sum((row["revenue"] for row in sold), Decimal(0))
    return {
        "first_seen_date": min(row["event_date"] for row in rows),
        "last_seen_date": max(row["event_date"] for row in rows),
        "last_sold_date": max((row["event_date"] for row in sold), default=None),
        "selling_days": len({row["landed_date"] for row in sold}),
        "units_sold": sum(row["quantity"] for row in sold),
        "units_returned": sum(row["quantity"] for row in rows if row["event_type"] == "refund"),
        "orders": len(sold),
        "revenue": sum((row["revenue"] for row in rows), Decimal(0)),
        "gross_revenue": gross,
        "views": len(views),
        "carts": sum(row["event_type"] == "add_to_cart" for row in rows),
        "reviews": sum(row["event_type"] == "review" for row in people),
        "ratings": len(ratings),
        "mean_rating": sum(ratings) / len(ratings) if ratings else None,
        "mean_unit_price": float(gross) / sum(row["quantity"] for row in sold) if sold else None,
        **{f"units_decayed_{life}": decayed(units, at, life) for life in (7, 30, 90)},
        **{f"views_decayed_{life}": decayed(views, at, life) for life in (7, 30)},
    }


def due(store: Store, landed: Sequence[tuple[date, date]], days: Sequence[date], active_days: int) -> Iterator[tuple[date, date]]:
    """(as_of_date, issued_date) of one entity's entries; `landed` holds (landed day, event day) of its events."""
    issued = None
    for when in days:
        known = [happened for arrived, happened in landed if arrived <= when]
        if not known:
            continue
        is_seen = any(arrived == when for arrived, _ in landed)
        is_keyframe = store.is_cadence_day(when, 28)
        if is_seen or ((is_keyframe or store.is_cadence_day(when, 7)) and (when - max(known)).days <= active_days):
            issued = when
            yield when, when
        elif is_keyframe:
            assert issued is not None
            yield when, issued


def session_entries(events: Sequence[dict[str, Any]], days: Sequence[date]) -> dict[tuple[date, str], dict[str, Any]]:
    """sessions by (day, session_id), one landed day after the other."""
    names = {
        "views": "view_item",
        "searches": "search",
        "wishlists": "add_to_wishlist",
        "carts": "add_to_cart",
        "checkouts": "begin_checkout",
        "purchases": "purchase",
        "refunds": "refund",
        "reviews": "review",
    }
    found: dict[tuple[date, str], dict[str, Any]] = {}
    so_far: dict[str, tuple[date, list[dict[str, Any]]]] = {}
    for when in days:
        arrived: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in events:
            if row["landed_date"] == when and row["session_id"] is not None:
                arrived[row["session_id"]].append(row)
        for session, rows in arrived.items():
            before = so_far.get(session)
            is_new = before is None or (when - before[0]).days > LATE_DAYS
            every = rows if is_new or before is None else before[1] + rows
            so_far[session] = (when, every)
            first = min(every, key=lambda row: (row["event_at"], row["landed_date"], row["event_id"]))
            found[when, session] = {
                "user_id": first["user_id"],
                "started_at": first["event_at"],
                "ended_at": max(row["event_at"] for row in every),
                "events": len(every),
                **{name: sum(row["event_type"] == kind for row in every) for name, kind in names.items()},
                "revenue": sum((row["revenue"] for row in every), Decimal(0)),
                "device": first.get("device"),
                "channel": first.get("channel"),
                "is_bot": any(row["is_bot"] for row in every),
                "is_new": is_new,
            }
    return found


def check(found: Mapping[str, Any], expected: Mapping[str, Any], where: object) -> None:
    for name, value in expected.items():
        if isinstance(value, float) and found[name] is not None:
            assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-12), (where, name)
        else:
            assert found[name] == value, (where, name)


@pytest.mark.parametrize(("seed", "anchor", "sizes"), [(1, 1, (1, 6, 1, 10, 13)), (2, 4, (20, 1, 27))])
def test_any_grouping_of_days_equals_the_plain_loop(
    seed: int, anchor: int, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards state carried between windows: keyframes, entities long unseen, late rows, orders and sessions in pieces."""
    active_days, last = 12, sum(sizes)
    monkeypatch.setattr(running, "ACTIVE_DAYS", active_days)
    store = shop(cadence_anchor=day(anchor))
    events = random_log(seed, last)
    days = days_between(day(1), day(last))
    groups = [days[sum(sizes[:place]) : sum(sizes[: place + 1])] for place in range(len(sizes))]
    whole, pieces = built(store, events, [days]), built(store, events, groups)
    for name, frame in whole.items():
        assert_same(frame, pieces[name], name)

    expected_sessions = session_entries(events, days)
    found = {(row["as_of_date"], row["session_id"]): row for row in whole["sessions"].to_dicts()}
    assert set(found) == set(expected_sessions)
    for key, row in expected_sessions.items():
        check(found[key], row, key)

    people = [row for row in events if row["user_id"] is not None and not row["is_bot"]]
    found = {(row["as_of_date"], row["user_id"]): row for row in whole["user_features"].to_dicts()}
    keys = set()
    for user in {row["user_id"] for row in people}:
        ours = [row for row in people if row["user_id"] == user]
        for when, issued in due(store, [(row["landed_date"], row["event_date"]) for row in ours], days, active_days):
            begun = sum(
                entry["is_new"] and not entry["is_bot"] and entry["user_id"] == user
                for (landed, _), entry in expected_sessions.items()
                if landed <= issued
            )
            keys.add((when, user))
            expected = {"issued_date": issued, **user_entry([row for row in ours if row["landed_date"] <= issued], begun, issued)}
            check(found[when, user], expected, (when, user))
    assert set(found) == keys
    leanings = whole["user_preferences"]
    assert set(leanings.select("as_of_date", "user_id").unique().iter_rows()) == keys
    for (when, user, kind), rows in leanings.filter(pl.col("preference_type").is_not_null()).group_by(
        "as_of_date", "user_id", "preference_type"
    ):
        assert rows["share"].sum() == pytest.approx(1.0)
        if kind == "device":
            for row in rows.to_dicts():
                told = [
                    (each["event_date"], float(preferences.POINTS[each["event_type"]]))
                    for each in people
                    if each["user_id"] == user
                    and each["landed_date"] <= when
                    and each["event_type"] in preferences.POINTS
                    and not each["is_service"]
                    and each.get("device") == row["preference_value"]
                ]
                assert row["weight"] == pytest.approx(decayed(told, when, 90), rel=1e-9)

    goods = [
        row
        for row in events
        if row["item_id"] is not None
        and not row["is_service"]
        and (not row["is_bot"] or row["event_type"] in ("purchase", "refund"))
    ]
    found = {(row["as_of_date"], row["item_id"]): row for row in whole["item_features"].to_dicts()}
    keys = set()
    for item in {row["item_id"] for row in goods}:
        ours = [row for row in goods if row["item_id"] == item]
        for when, issued in due(store, [(row["landed_date"], row["event_date"]) for row in ours], days, active_days):
            keys.add((when, item))
            expected = {"issued_date": issued, **item_entry([row for row in ours if row["landed_date"] <= issued], issued)}
            check(found[when, item], expected, (when, item))
    assert set(found) == keys
    assert whole["item_days"]["units_sold"].sum() == sum(row["quantity"] for row in goods if row["event_type"] == "purchase")


def test_nothing_landed_later_is_seen() -> None:
    """Guards the leak: a reader that holds later days must give the same partitions as one that does not."""
    store = shop()
    events = random_log(3, 30)
    days = days_between(day(1), day(20))
    short = built(store, [row for row in events if row["landed_date"] <= day(20)], [days])
    long = built(store, events, [days_between(day(1), day(30))])
    for name, frame in short.items():
        assert_same(frame, long[name].filter(pl.col(TABLES[name].partition_column) <= day(20)), name)


# --- cases by hand ------------------------------------------------------------------------------------------------------


def only(frame: pl.DataFrame, **values: Any) -> dict[str, Any]:
    rows = frame.filter(pl.all_horizontal(pl.col(name) == value for name, value in values.items())).to_dicts()
    assert len(rows) == 1, rows
    return rows[0]


def test_user_features_of_three_days() -> None:
    """Two orders, the first in two pieces; a refund; a bot; a fee; 30-day decay by the day it happened."""
    events = [
        event(1, 1, "view_item", dwell_seconds=4.0),
        event(2, 1, "purchase", order_id="o1", quantity=2, unit_price=Decimal("2.50")),
        event(3, 1, "purchase", order_id="o1", landed=2, item="b", unit_price=Decimal("10")),
        event(4, 1, "purchase", order_id="o1", item="POST", unit_price=Decimal("3"), is_service=True),
        event(5, 3, "purchase", order_id="o2", unit_price=Decimal("2")),
        event(6, 3, "refund", unit_price=Decimal("2.50")),
        event(7, 3, "view_item", is_bot=True),
        event(8, 3, "view_item", user=None),
    ]
    store = shop()
    days = days_between(day(1), day(3))
    features_ = built(store, events, [days], steps=("items", "sessions", "user_features"))["user_features"]
    assert features_["as_of_date"].to_list() == days  # day 2 because a piece of the order landed
    last = only(features_, as_of_date=day(3))
    expected = {
        "orders": 2,
        "order_days": 3,
        "active_days": 3,
        "units": 4,
        "revenue": Decimal("17.5"),
        "gross_revenue": Decimal("20"),
        "refunds": 1,
        "views": 1,
        "events": 6,
        "browse_seconds": 4.0,
        "first_order_date": day(1),
        "last_order_date": day(3),
        "recency_days": 0,
        "purchase_frequency": 20.0,
        "mean_days_between_orders": 1.0,
        "orders_decayed_30": 1 + 2 ** (-2 / 30),
        "revenue_decayed_90": 2 + 18 * 2 ** (-2 / 90),
        "views_decayed_7": 2 ** (-2 / 7),
        "sessions": 1,
    }
    check(last, expected, "day 3")


def test_session_grows_over_midnight_and_takes_its_first_event_from_a_late_row() -> None:
    events = [
        event(2, 1, "view_item", session_id="s", device="phone", hour=23),
        event(3, 2, "purchase", session_id="s", device="desk", hour=0, unit_price=Decimal("4")),
        event(1, 1, "search", session_id="s", device="tv", hour=22, landed=3, item=None),
        event(4, 40, "view_item", session_id="s"),
    ]
    for groups in ([days_between(day(1), day(40))], [[day(1)], [day(2)], [day(3)], days_between(day(4), day(39)), [day(40)]]):
        rows = built(shop(), events, groups, steps=("sessions",))["sessions"]
        assert rows.select("as_of_date", "events", "purchases", "revenue", "device", "is_new").rows() == [
            (day(1), 1, 0, Decimal(0), "phone", True),
            (day(2), 2, 1, Decimal(4), "phone", False),
            (day(3), 3, 1, Decimal(4), "tv", False),
            (day(40), 1, 0, Decimal(0), None, True),  # more than 30 days without a sign: the id is used anew
        ]


def test_items_prefer_the_catalogue_and_follow_prices_paid_weekly() -> None:
    events = [
        event(1, 2, "purchase", item="a", unit_price=Decimal("5")),
        event(2, 3, "purchase", item="a", unit_price=Decimal("6")),
        event(3, 4, "purchase", item="a", unit_price=Decimal("7")),
        event(4, 2, "purchase", item="b", unit_price=Decimal("9")),
        event(5, 5, "view_item", item="c"),
        event(6, 6, "purchase", item="POST", is_service=True, unit_price=Decimal("1")),
    ]
    inputs = [
        raw("items", 3, 1, item_id="b", title="Old", unit_price="8.0000"),
        raw("items", 4, 2, item_id="b", title="New", stock_on_hand=3),
        raw("items", 5, 3, item_id="b", title="New"),
        raw("items", 5, 4, item_id="DOT", title="<b>"),
        raw("items", 5, 5, item_id="b", title="Refused"),
        (
            "rejected_rows",
            {
                "landed_date": day(5),
                "source": "items",
                "raw_row_id": "items5",
                "source_file": "f",
                "source_row": 5,
                "reason": "r",
                "row": "{}",
            },
        ),
    ]
    store = shop("items", cleaning={"service_item_pattern": "^(POST|DOT)$"})
    days = days_between(day(1), day(29))
    whole = built(store, events, [days], inputs, steps=("items",))["items"]
    chosen = (
        whole.filter(pl.col("as_of_date") < day(29))
        .select("item_id", "as_of_date", "unit_price", "title", "stock_on_hand", "is_service")
        .sort("item_id", "as_of_date")
    )
    assert chosen.rows() == [
        ("DOT", day(5), None, "<b>", None, True),
        ("POST", day(6), Decimal(1), None, None, True),
        ("a", day(2), Decimal(5), None, None, False),
        ("a", day(8), Decimal(7), None, None, False),
        ("b", day(2), Decimal(9), None, None, False),
        ("b", day(3), Decimal(8), "Old", None, False),
        ("b", day(4), Decimal(8), "New", 3, False),
        ("c", day(5), None, None, None, False),
    ]
    assert whole.filter(pl.col("as_of_date") == day(29))["item_id"].to_list() == ["DOT", "POST", "a", "b", "c"]  # keyframe
    assert set(whole.filter(pl.col("item_id") == "a")["first_seen_date"]) == {day(2)}
    groups = [days[:2], days[2:3], days[3:4], days[4:7], days[7:8], days[8:28], days[28:]]
    assert_same(whole, built(store, events, groups, inputs, steps=("items",))["items"], "items")


def test_stock_is_summed_over_the_places_told_on_a_day() -> None:
    inputs = [
        raw("items", 2, 1, item_id="a", title="A", stock_on_hand=7),  # without a place, beside places: not one more of them
        raw("items", 2, 2, item_id="a", location_id='Köln "West"', stock_on_hand=2, stock_on_order=4),
        raw("items", 2, 3, item_id="a", location_id="Bonn", stock_on_hand=1),
        raw("items", 2, 4, item_id="a", location_id="Bonn", stock_on_hand=3),  # the last row of a place counts
        raw("items", 2, 5, item_id="b", location_id="Bonn", title="B"),
        raw("items", 4, 6, item_id="a", location_id="Bonn", stock_on_hand=5),
        raw("items", 5, 7, item_id="a", location_id="Bonn", title="C"),
        raw("items", 6, 8, item_id="a", stock_on_hand=9),
    ]
    days = days_between(day(1), day(7))
    seen = [event(1, 1, "view_item", item="z")]
    whole = built(shop("items"), seen, [days], inputs, steps=("items",))["items"]
    told = whole.filter(item_id="a").sort("as_of_date").select("as_of_date", "title", "stock_on_hand", "stock_on_order", "stock_by_location").rows()
    assert [row[:4] for row in told] == [(day(2), "A", 5, 4), (day(4), "A", 5, 4), (day(5), "C", 5, 4), (day(6), "C", 9, 4)]
    bonn, west = {"location_id": "Bonn", "stock_on_order": None}, {"location_id": 'Köln "West"', "stock_on_hand": 2, "stock_on_order": 4}
    now = [{**bonn, "stock_on_hand": 5}]
    assert [json.loads(row[4]) for row in told] == [[{**bonn, "stock_on_hand": 3}, west], now, now, []]
    assert whole.filter(item_id="b").select("title", "stock_on_hand", "stock_by_location").rows() == [("B", None, None)]
    assert stock_of_places(whole.filter(pl.col("as_of_date") <= day(2))).select("item_id", "location_id", "stock_on_hand").rows() == [
        ("a", "Bonn", 3), ("a", 'Köln "West"', 2)
    ]  # fmt: skip
    one_by_one = built(shop("items"), seen, [[one] for one in days], inputs, steps=("items",))["items"]
    assert_same(whole, one_by_one, "items")


def test_item_days_know_price_and_promotion_as_of_landing() -> None:
    events = [
        event(1, 2, "purchase", quantity=3, unit_price=Decimal("2")),
        event(2, 2, "purchase", unit_price=Decimal("1")),
        event(3, 2, "view_item", is_bot=True),
        event(4, 2, "add_to_cart", user=None),
        event(5, 2, "refund", landed=4, unit_price=Decimal("2")),
        event(6, 2, "purchase", item="POST", is_service=True),
        event(7, 3, "purchase", item="b", quantity=2, unit_price=Decimal("1.3333"), location_id="n"),
    ]
    inputs = [
        raw(
            "item_drivers",
            1,
            1,
            item_id="a",
            date=day(2),
            known_at=f"{day(1)} 00:00:00",
            unit_price="2.2000",
            is_promotion="false",
        ),
        raw(
            "item_drivers",
            3,
            2,
            item_id="a",
            date=day(2),
            known_at=f"{day(3)} 00:00:00",
            is_promotion="true",
            is_available="true",
        ),
        raw("item_drivers", 1, 3, item_id="b", date=day(3), known_at=f"{day(1)} 00:00:00", location_id="s", unit_price="9.0000"),
        raw("market_days", 1, 1, date=day(3), is_promotion="true"),
    ]
    rows = built(shop("item_drivers", "market_days"), events, [days_between(day(1), day(4))], inputs, steps=("item_days",))[
        "item_days"
    ]
    columns = [
        "landed_date",
        "event_date",
        "item_id",
        "units_sold",
        "units_returned",
        "revenue",
        "views",
        "carts",
        "unit_price",
        "is_available",
        "is_promotion",
    ]
    assert rows.select(columns).rows() == [
        (day(2), day(2), "a", 4, 0, Decimal(7), 0, 1, Decimal("2.2"), None, False),
        (day(3), day(3), "b", 2, 0, Decimal("2.6666"), 0, 0, Decimal("1.3333"), None, True),
        (day(4), day(2), "a", 0, 1, Decimal(-2), 0, 0, Decimal("2.2"), True, True),
    ]


def test_item_days_know_a_price_that_has_held_for_longer_than_anything_else_is_remembered() -> None:
    late = ACTIVE_DAYS + 30
    sales = [(late, late), (late + 2, late + 2), (late + 3, late), (late + 4, late + 4), (late + 5, late + 5)]
    events = [event(number, happened, "purchase", landed=landed, unit_price=Decimal("2")) for number, (landed, happened) in enumerate(sales)]

    def price(number: int, landed: int, first: int, paid: str, last: str) -> tuple[str, dict[str, Any]]:
        told = {"item_id": "a", "date": day(first), "known_at": f"{day(landed)} 00:00:00", "unit_price": paid, "end_date": last}
        return raw("item_drivers", landed, number, **told)

    inputs = [
        price(1, 1, 1, "9", "9999-12-31"),
        price(2, 2, late - 1, "7", f"{day(late)}"),  # a range told long before
        price(3, late + 2, late + 2, "8", "9999-12-31"),
        price(4, 3, late + 5, "3", ""),  # a day told too long ago
        price(5, late + 3, late + 1, "6", "9999-12-31"),  # what began later had taken its place before it was told
    ]
    groups = [days_between(day(1), day(late + 2)), days_between(day(late + 3), day(late + 5))]
    rows = built(shop("item_drivers"), events, groups, inputs, steps=("item_days",))["item_days"]
    assert rows.select("landed_date", "event_date", "unit_price").rows() == [
        (day(late), day(late), 7), (day(late + 2), day(late + 2), 8), (day(late + 3), day(late), 7), (day(late + 4), day(late + 4), 8),
        (day(late + 5), day(late + 5), 8),
    ]  # fmt: skip
    days = [one for group in groups for one in group]
    in_parts = built(shop("item_drivers"), events, [days[:-8], *([one] for one in days[-8:])], inputs, steps=("item_days",))
    assert_same(rows, in_parts["item_days"], "item_days")


def test_a_user_found_to_be_another_hands_over_everything() -> None:
    """cookie -> account -> customer: history moves on the day it is known, once, and the old name has no further entries."""
    events = [
        event(1, 1, "purchase", user="cookie", unit_price=Decimal("4")),
        event(2, 2, "purchase", user="account", unit_price=Decimal("1")),
        event(3, 5, "view_item", user="customer"),
        event(4, 8, "view_item", user="customer"),
    ]
    inputs = [
        raw("identities", 3, 1, from_user_id="cookie", user_id="account"),
        raw("identities", 4, 2, from_user_id="cookie", user_id="account"),
        raw("identities", 6, 3, from_user_id="account", user_id="customer"),
    ]
    store = shop("identities")
    days = days_between(day(1), day(9))
    steps = ("items", "sessions", "user_features")
    whole = built(store, events, [days], inputs, steps=steps)
    rows = whole["user_features"].select("as_of_date", "user_id", "orders", "revenue", "views").rows()
    assert rows == [
        (day(1), "cookie", 1, Decimal(4), 0),
        (day(2), "account", 1, Decimal(1), 0),
        (day(3), "account", 2, Decimal(5), 0),
        (day(5), "customer", 0, Decimal(0), 1),
        (day(6), "customer", 2, Decimal(5), 1),
        (day(8), "customer", 2, Decimal(5), 2),
    ]
    leanings = whole["user_preferences"].filter(pl.col("preference_type") == "hour_block", as_of_date=day(8))
    weight = 5 * 2 ** (-7 / 90) + 5 * 2 ** (-6 / 90) + 2 ** (-3 / 90) + 1
    assert leanings["weight"].to_list() == [pytest.approx(weight)]
    pieces = built(store, events, [days[:4], days[4:]], inputs, steps=steps)
    for name, frame in whole.items():
        assert_same(frame, pieces[name], name)


def test_preferences_know_category_band_and_the_shops_clock() -> None:
    """23:30 UTC in April is half past midnight in London; categories are those in force when the event landed."""
    spring = (date(2024, 4, 2) - FIRST).days + 1
    events = [
        event(1, spring, "purchase", item="a", hour=23, unit_price=Decimal("19.99"), channel="mail"),
        event(2, 2, "view_item", item="a", hour=23, unit_price=Decimal("0.05"), channel="ads"),
        event(3, 3, "search", user="searcher", item=None),
    ]
    events[0]["event_at"] = datetime(2024, 4, 1, 23, 30)
    inputs = [raw("items", 1, 1, item_id="a", category="Tea"), raw("items", 20, 2, item_id="a", category="Pots")]
    days = days_between(day(1), day(spring))
    tables = built(shop("items"), events, [days], inputs, steps=("items", "sessions", "user_features"))
    rows = (
        tables["user_preferences"]
        .filter(as_of_date=day(spring), user_id="u")
        .select("preference_type", "preference_value", "weight")
    )
    old = 2 ** (-(spring - 2) / 90)
    assert [(kind, value) for kind, value, _ in rows.rows()] == [
        ("category", "Pots"),
        ("category", "Tea"),
        ("channel", "ads"),
        ("channel", "mail"),
        ("hour_block", "evening"),
        ("hour_block", "night"),
        ("price_band", "10-20"),
        ("price_band", "<0.1"),
    ]
    assert rows["weight"].to_list() == pytest.approx([5, old, old, 5, old, 5, 5, old])
    empty = only(tables["user_preferences"], user_id="searcher", as_of_date=day(3))
    assert (empty["preference_type"], empty["preference_value"], empty["weight"], empty["share"]) == (None, None, 0.0, 0.0)
