"""Exports: what leaves is frozen, approved, complete, idempotent, checksummed, harmless in a spreadsheet, and consented to."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from marketing_assets.config import Store
from marketing_assets.evaluation.ads import exported_or_issued
from marketing_assets.exports import (
    ApprovalNeeded,
    ExportConflict,
    ExportError,
    approve_plan,
    export_day,
    export_folder,
    is_plan_approved,
    read_approval,
)
from marketing_assets.exports.audiences import e164, file_name, google_email, hashed, normal_email
from marketing_assets.exports.files import csv_bytes, neutral
from marketing_assets.warehouse import LedgerRow, Warehouse, open_warehouse, polars_schema

DAY = date(2026, 3, 2)
NOON = datetime(2026, 3, 2, 12)
SOURCE = {"rows": [{"any": 1}]}


def shop(folder: Path, **changes: Any) -> Store:
    base: dict[str, Any] = {
        "name": "Test",
        "timezone": "Europe/Berlin",
        "currency": "EUR",
        "first_day": DAY - timedelta(days=1),
        "sources": {name: SOURCE for name in ("events", "impressions", "items", "contacts", "erasures")},
        "path": folder / "store.yaml",
    }
    return Store.model_validate({**base, **changes})


def fill(warehouse: Warehouse, name: str, rows: list[dict[str, Any]]) -> None:
    frame = pl.DataFrame(rows, infer_schema_length=None)
    frame = frame.select(
        [(pl.col(c) if c in frame.columns else pl.lit(None)).cast(kind).alias(c) for c, kind in polars_schema(name).items()]
    )
    warehouse.connection.register("incoming", frame.to_arrow())
    warehouse.connection.execute(f"INSERT INTO {name} SELECT * FROM incoming")
    warehouse.connection.unregister("incoming")


def cell(**more: Any) -> dict[str, Any]:
    base = {
        "as_of_date": DAY,
        "plan_date": DAY + timedelta(days=1),
        "plan_id": "plan-1",
        "audience_id": "champions",
        "campaign_id": "=cmd|' /C calc'!A0",
        "creative_id": "c1",
        "item_id": "i1",
        "placement_id": "home",
        "hour": 9,
        "planned_impressions": 10.0,
        "planned_spend": 1.25,
        "expected_clicks": 0.1,
        "expected_conversions": 0.01,
        "expected_revenue": 0.5,
        "logging_propensity": 0.9,
        "is_exploration": False,
    }
    return {**base, **more}


def contact(number: int, **more: Any) -> dict[str, Any]:
    """A raw row: typed as text, like everything raw."""
    base = {
        "landed_date": DAY,
        "raw_row_id": f"c{number}",
        "source_file": "f",
        "source_row": number,
        "user_id": f"u{number}",
        "email": f"user{number}@example.com",
        "phone": None,
        "country": "DE",
        "has_marketing_consent": "true",
    }
    return {**base, **more}


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[Warehouse]:
    with open_warehouse(shop(tmp_path), in_memory=True) as opened:
        fill(opened, "ad_plan", [cell(), cell(hour=10, planned_impressions=5.0)])
        fill(
            opened,
            "ad_plan_constraints",
            [
                {
                    "as_of_date": DAY,
                    "plan_id": "plan-1",
                    "constraint_name": "budget",
                    "limit_value": 5.0,
                    "used_value": 5.0,
                    "shadow_price": 2.0,
                    "is_binding": True,
                    "relaxation_needed": 0.0,
                    "unit": "money",
                    "is_relaxable": True,
                }
            ],
        )
        fill(
            opened,
            "items",
            [
                {
                    "as_of_date": DAY - timedelta(days=1),
                    "item_id": f"i{n}",
                    "title": title,
                    "unit_cost": 2,
                    "first_seen_date": DAY,
                    "is_service": False,
                }
                for n, title in enumerate(["+Lamp", "Vase, “blue”\n2 pieces"])
            ],
        )
        fill(
            opened,
            "inventory_plan",
            [
                {
                    "as_of_date": DAY,
                    "item_id": f"i{n}",
                    "lead_time_days": 9,
                    "safety_stock": 1.0,
                    "reorder_point": 4.0,
                    "order_quantity": quantity,
                    "order_cost": quantity * 2,
                }
                for n, quantity in enumerate([12, 3, 0])
            ],
        )
        fill(
            opened,
            "recommendations",
            [
                {
                    "as_of_date": DAY,
                    "user_id": user,
                    "rank": rank,
                    "item_id": item,
                    "score": 1.0,
                    "reason": "bought together",
                    "policy_id": "p",
                    "is_holdout": False,
                    "logging_propensity": 1.0,
                    "issued_date": DAY,
                }
                for user, rank, item in [("u1", 1, "i1"), ("u1", 2, "i2"), ("u2", 1, None)]
            ],
        )
        fill(
            opened,
            "item_recommendations",
            [{"as_of_date": DAY, "item_id": "i1", "rank": 1, "recommended_item_id": "i2", "score": 0.5, "issued_date": DAY,
              "reason": "goes with it"}],
        )
        memberships = [
            ("u1", "champions", 1, False),
            ("u1", "everyone", 9, False),
            ("u2", "everyone", 9, False),
            ("u3", "everyone", 9, True),
            ("u4", "everyone", 9, False),
            ("u5", "everyone", 9, False),
            ("u6", "everyone", 9, False),
            ("u7", None, None, False),
            ("unknown", "everyone", 9, False),
        ]
        fill(
            opened,
            "audiences",
            [
                {
                    "as_of_date": DAY,
                    "user_id": user,
                    "audience_id": audience,
                    "priority": priority,
                    "is_holdout": held,
                    "issued_date": DAY,
                }
                for user, audience, priority, held in memberships
            ],
        )
        fill(
            opened,
            "raw_contacts",
            [
                contact(1, email=" User.1@GMail.com ", phone="0171 2345678"),
                contact(2, email=None, phone="+1 (415) 555-2671", country=None),
                contact(3),
                contact(4, has_marketing_consent="false"),
                contact(5, email="broken@", phone="12"),
                contact(6),
                contact(7),
                contact(0, user_id="unknown"),
            ],
        )
        fill(
            opened,
            "raw_erasures",
            [
                {
                    "landed_date": DAY,
                    "raw_row_id": "x1",
                    "source_file": "f",
                    "source_row": 1,
                    "user_id": "u6",
                    "requested_at": f"{DAY}T00:00:00",
                }
            ],
        )
        yield opened


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def export(warehouse: Warehouse, **more: Any) -> Any:
    return export_day(warehouse, DAY, warehouse.store, **{"exported_at": NOON, **more})


def test_everything_goes_out_with_manifest_and_checksums(warehouse: Warehouse) -> None:
    done = export(warehouse)
    assert done.written == ["plan", "lists", "audiences", "orders"] and not done.skipped
    listed = {file["path"]: file for entry in done.manifest["exports"].values() for file in entry["files"]}
    on_disk = {str(path.relative_to(done.folder)) for path in done.folder.rglob("*") if path.is_file()}
    assert on_disk == set(listed) | {"manifest.json", "checksums.sha256"}
    for path, file in listed.items():
        content = (done.folder / path).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (file["sha256"], file["bytes"])
    sums = dict(reversed(line.split("  ")) for line in (done.folder / "checksums.sha256").read_text().splitlines())
    assert sums == {path: file["sha256"] for path, file in listed.items()}
    assert json.loads((done.folder / "manifest.json").read_text()) == done.manifest
    rows = warehouse.connection.execute("SELECT path, rows FROM export_manifest ORDER BY path").fetchall()
    assert rows == sorted((path, file["rows"]) for path, file in listed.items())


def test_the_plan_is_the_same_in_three_forms(warehouse: Warehouse) -> None:
    folder = export(warehouse, kinds=["plan"]).folder
    plan = warehouse.reader(DAY).window("ad_plan", DAY, DAY)
    assert_frame_equal(pl.read_parquet(folder / "plan.parquet"), plan)
    body = json.loads((folder / "plan.json").read_text())
    assert [row["planned_impressions"] for row in body["cells"]] == [10.0, 5.0] and body["currency"] == "EUR"
    assert body["limits"][0]["shadow_price"] == 2.0
    rows = read_csv(folder / "plan.csv")
    assert [row["hour"] for row in rows] == ["9", "10"] and rows[0]["plan_date"] == "2026-03-03"
    assert rows[0]["campaign_id"].startswith("'="), "a formula must not run where the file is opened"


def test_lists_by_user_and_by_item(warehouse: Warehouse) -> None:
    folder = export(warehouse, kinds=["lists"]).folder
    users = [json.loads(line) for line in (folder / "lists_by_user.jsonl").read_text().splitlines()]
    assert [(row["user_id"], [item["item_id"] for item in row["items"]]) for row in users] == [("u1", ["i1", "i2"]), ("u2", [])]
    items = [json.loads(line) for line in (folder / "lists_by_item.jsonl").read_text().splitlines()]
    assert items[0]["item_id"] == "i1" and items[0]["items"] == [{"rank": 1, "item_id": "i2", "score": 0.5, "reason": "goes with it"}]


def test_audiences_hold_consented_people_outside_holdouts_only(warehouse: Warehouse) -> None:
    """u1 is champions' by priority, u2 everyone's; u3 is held out, u4 refused, u5 has no usable contact, u6 asked to be forgotten."""
    done = export(warehouse, kinds=["audiences"])
    google = read_csv(done.folder / "audiences/google_ads/champions.csv")
    assert google == [{"Email": hashed("user1@gmail.com"), "Phone": hashed("+491712345678")}]
    meta = read_csv(done.folder / "audiences/meta/champions.csv")
    assert meta == [{"email": hashed("user.1@gmail.com"), "phone": hashed("491712345678"), "country": hashed("de")}]
    assert read_csv(done.folder / "audiences/google_ads/everyone.csv") == [{"Email": "", "Phone": hashed("+14155552671")}]
    assert done.manifest["exports"]["audiences"]["left_out"]["everyone"] == {
        "held_out": 1,
        "no_consent": 2,
        "no_usable_contact": 1,
    }
    everything = b"".join(path.read_bytes() for path in done.folder.rglob("*") if path.is_file())
    assert b"gmail" not in everything and b"2345678" not in everything and b"user" not in everything


def test_consent_withdrawn_after_the_day_holds(warehouse: Warehouse) -> None:
    """An old day exported late must not reach people who have said no since."""
    later = DAY + timedelta(days=3)
    fill(warehouse, "raw_contacts", [contact(1, landed_date=later, raw_row_id="new", has_marketing_consent="false")])
    for table, day in (("audiences", DAY), ("raw_contacts", later)):
        warehouse.ledger[table, day] = LedgerRow(table, day, 1, "h", "s", "f", "1", "r", NOON, None)
    done = export(warehouse, kinds=["audiences"])
    assert read_csv(done.folder / "audiences/google_ads/champions.csv") == []


def test_orders_as_csv(warehouse: Warehouse) -> None:
    rows = read_csv(export(warehouse, kinds=["orders"]).folder / "orders.csv")
    assert [
        (row["item_id"], row["order_quantity"], row["order_cost"], row["currency"], row["expected_date"]) for row in rows
    ] == [
        ("i0", "12", "24.0000", "EUR", "2026-03-11"),
        ("i1", "3", "6.0000", "EUR", "2026-03-11"),
    ]
    assert rows[0]["title"] == "'+Lamp" and rows[1]["title"] == "Vase, “blue”\n2 pieces"


def test_what_an_order_is_meant_for_and_what_is_moved_goes_out_where_stock_is_told_by_place(warehouse: Warehouse) -> None:
    assert not (export(warehouse, kinds=["orders"]).folder / "transfers.csv").exists()
    later = DAY + timedelta(days=1)
    base = {"as_of_date": later, "item_id": "i0", "lead_time_days": 9, "safety_stock": 1.0, "reorder_point": 4.0, "order_quantity": 0}
    places = [("north", 5, 7), ("=south", -3, 0), ("west", 0, 2), ("store room", -2, None)]
    fill(
        warehouse, "inventory_plan",
        [{**base, "order_quantity": 9, "order_cost": 18}]
        + [{**base, "location_id": place, "transfer_quantity": moved, "allocated_quantity": meant} for place, moved, meant in places],
    )  # fmt: skip
    warehouse.ledger["inventory_plan", later] = LedgerRow("inventory_plan", later, 5, "h", "s", "f", "1", "r", NOON, None)
    folder = export_day(warehouse, later, warehouse.store, NOON, ["orders"]).folder
    assert [row["order_quantity"] for row in read_csv(folder / "orders.csv")] == ["9"]
    assert [(row["location_id"], row["allocated_quantity"]) for row in read_csv(folder / "order_places.csv")] == [("north", "7"), ("west", "2")]
    assert [tuple(row.values()) for row in read_csv(folder / "transfers.csv")] == [
        ("i0", "'+Lamp", "'=south", "north", "3"), ("i0", "'+Lamp", "store room", "north", "2")
    ]  # fmt: skip


def test_again_changes_nothing_and_repairs_what_is_missing(warehouse: Warehouse) -> None:
    first = export(warehouse)
    before = {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()}
    (first.folder / "plan.csv").unlink()
    again = export(warehouse, exported_at=NOON + timedelta(hours=5))
    assert again.unchanged == ["plan", "lists", "audiences", "orders"] and not again.written
    assert {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()} == before
    assert warehouse.connection.execute("SELECT count(*) FROM exported_decisions").fetchone() == (4,)


def test_what_was_given_out_is_frozen_and_scored(warehouse: Warehouse) -> None:
    """The plan is made again with other numbers after its export: evaluation still sees what people acted on."""
    issued = warehouse.reader(DAY).window("ad_plan", DAY, DAY)
    export(warehouse, kinds=["plan"])
    warehouse.connection.execute("UPDATE ad_plan SET planned_spend = 99")
    assert_frame_equal(exported_or_issued(warehouse.reader(DAY), "ad_plan", DAY, DAY), issued)
    with pytest.raises(ExportConflict, match="replacement"):
        export(warehouse, kinds=["plan"])
    replaced = export(warehouse, kinds=["plan"], is_replacement=True, exported_at=NOON + timedelta(hours=1))
    assert replaced.written == ["plan"]
    assert exported_or_issued(warehouse.reader(DAY), "ad_plan", DAY, DAY)["planned_spend"].to_list() == [99.0, 99.0]


def test_a_replacement_leaves_no_stale_file(warehouse: Warehouse) -> None:
    folder = export(warehouse).folder
    warehouse.connection.execute("DELETE FROM audiences WHERE audience_id = 'champions'")
    done = export(warehouse, kinds=["audiences"], is_replacement=True, exported_at=NOON + timedelta(hours=1))
    assert not (folder / "audiences/google_ads/champions.csv").exists() and (folder / "plan.csv").exists()
    assert "plan" in done.manifest["exports"] and "champions" not in (folder / "checksums.sha256").read_text()


def test_an_export_cut_off_after_its_record_is_finished_later(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr("marketing_assets.exports.build.write_file", fail)
        with pytest.raises(OSError):
            export(warehouse, kinds=["plan"])
    assert warehouse.connection.execute("SELECT count(*) FROM exported_decisions").fetchone() == (1,)
    done = export(warehouse, kinds=["plan"], exported_at=NOON + timedelta(hours=1))
    assert done.unchanged == ["plan"] and (done.folder / "plan.csv").exists()
    assert done.manifest["exports"]["plan"]["exported_at"] == "2026-03-02T12:00:00Z"


def test_a_plan_waits_for_approval_of_exactly_itself(tmp_path: Path, warehouse: Warehouse) -> None:
    store = shop(tmp_path, ad_planning={"needs_approval": True})
    with pytest.raises(ApprovalNeeded, match=f"marketing approve --day {DAY}"):
        export_day(warehouse, DAY, store, NOON)
    assert not export_folder(store, DAY).exists()
    with pytest.raises(ExportError, match="who"):
        approve_plan(warehouse.reader(DAY), DAY, store, " ", NOON)
    approve_plan(warehouse.reader(DAY), DAY, store, "Ada", NOON, "looks right")
    assert is_plan_approved(warehouse.reader(DAY), DAY, store)
    done = export_day(warehouse, DAY, store, NOON)
    assert done.manifest["exports"]["plan"]["approved_by"] == "Ada"
    warehouse.connection.execute("UPDATE ad_plan SET planned_spend = planned_spend + 1")
    assert not is_plan_approved(warehouse.reader(DAY), DAY, store)
    with pytest.raises(ApprovalNeeded, match="changed since Ada"):
        export_day(warehouse, DAY, store, NOON, is_replacement=True)


def test_nothing_to_export_is_said(warehouse: Warehouse, tmp_path: Path) -> None:
    other = DAY + timedelta(days=1)
    fill(
        warehouse,
        "ad_plan_runs",
        [
            {
                "as_of_date": other,
                "plan_id": "p",
                "status": "refused",
                "note": "rates off",
                "solver": "none",
                "seconds": 0.0,
                "is_relaxed": False,
            }
        ],
    )
    store = shop(tmp_path, sources={"events": SOURCE})
    done = export_day(warehouse, other, store, NOON, ["plan", "orders"])
    assert "refused: rates off" in done.skipped["plan"] and "nothing" in done.skipped["orders"] and not done.folder.exists()
    warehouse.store.sources.pop("contacts")
    assert "contacts" in export(warehouse, kinds=["audiences"]).skipped["audiences"]
    with pytest.raises(ExportError, match="no such kind"):
        export(warehouse, kinds=["recipes"])
    with pytest.raises(ExportError, match="no plan"):
        approve_plan(warehouse.reader(other), other, store, "Ada", NOON)


def test_a_day_never_built_is_an_error(warehouse: Warehouse) -> None:
    warehouse.ledger["ad_plan", DAY - timedelta(days=1)] = LedgerRow(
        "ad_plan", DAY - timedelta(days=1), 1, "h", "s", "f", "1", "r", NOON, None
    )
    with pytest.raises(ExportError, match="never built"):
        export(warehouse, kinds=["plan"])


def test_unreadable_approvals_are_named(tmp_path: Path) -> None:
    store = shop(tmp_path)
    path = tmp_path / "control" / "plan_approvals" / f"{DAY}.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(ExportError, match="not an approval"):
        read_approval(store, DAY)


@given(st.text(max_size=30))
@hypothesis_settings(max_examples=200, deadline=None)
def test_no_text_begins_like_a_formula_and_csv_reads_back(text: str) -> None:
    shown = neutral(text)
    assert not shown.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) and shown in (text, f"'{text}")
    if "\x00" not in text and "\r" not in text:
        assert list(csv.reader(io.StringIO(csv_bytes(["a", "b"], [[text, 1.5]]).decode(), newline=""))) == [
            ["a", "b"],
            [shown, "1.5"],
        ]


@pytest.mark.parametrize(
    ("phone", "country", "expected"),
    [
        ("0171 2345678", "DE", "+491712345678"),
        ("+44 20 7946 0958", None, "+442079460958"),
        ("(415) 555-2671", "us", "+14155552671"),
        ("12", "DE", None),
        ("0171 2345678", None, None),
        ("", "DE", None),
        ("abc", "Germany", None),
    ],
)
def test_numbers_in_e164(phone: str, country: str | None, expected: str | None) -> None:
    assert e164(phone, country) == expected


def test_addresses_as_the_platforms_want_them() -> None:
    assert (
        normal_email("  Jane.Doe@Example.COM ") == "jane.doe@example.com"
        and normal_email("nobody") is None
        and normal_email(None) is None
    )
    assert (
        google_email("jane.doe@googlemail.com") == "janedoe@googlemail.com"
        and google_email("jane.doe@example.com") == "jane.doe@example.com"
    )
    # the digest Google's help gives no example of, by the standard's own test vector (FIPS 180-4, "abc")
    assert hashed("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_audience_names_become_safe_and_distinct_file_names() -> None:
    taken: dict[str, str] = {}
    names = [file_name(name, taken) for name in ("a/b", "a b", "../etc", "A_B", "受众")]
    assert len({name.lower() for name in names}) == 5 and not any("/" in name or name.startswith(".") for name in names)
