"""The way in: a folder of exports never seen before becomes a store.yaml that loads and whose rows come out clean."""

from __future__ import annotations

import gzip
import json
import os
import re
import tempfile
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marketing_assets.config import REPOSITORY_ROOT, Store, StoreError, load_store
from marketing_assets.onboarding import CheckReport, check_store, init_store
from marketing_assets.onboarding.days import main_stretch
from marketing_assets.onboarding.looking import look_into
from marketing_assets.onboarding.names import event_type_in, event_type_of, likeness, plain
from marketing_assets.onboarding.recognition import blocks_of
from marketing_assets.onboarding.values import money_of, profile_of
from marketing_assets.sources import build_sources
from marketing_assets.warehouse import Warehouse

TODAY = date(2026, 11, 24)
FIRST = datetime(2026, 3, 2, 9, 0)


def quiet(text: str) -> None:
    """Progress nobody reads here."""


def started(folder: Path, target: Path | None = None) -> Store:
    return load_store(init_store(folder, target, quiet, today=TODAY))


def columns(store: Store, source: str, place: int = 0) -> dict[str, str]:
    return store.blocks(source)[place].columns


def checked(store: Store, days: int = 30) -> CheckReport:
    return check_store(store, days, quiet)


def source(report: CheckReport, name: str):  # type: ignore[no-untyped-def]
    return next(check for check in report.sources if check.source == name)


# --- shops never seen before ------------------------------------------------------------------------------------------


def german_orders(folder: Path) -> None:
    """Semicolons, decimal commas, latin-1, day first, the time in a column of its own."""
    lines = ["Bestellnr;Kundennummer;Artikelnr;Bestelldatum;Uhrzeit;Menge;Einzelpreis;Bezeichnung"]
    for place in range(60):
        at = FIRST + timedelta(hours=place * 7)
        price = f"1.{place % 10}50,{place % 10}0 EUR"
        lines.append(
            f"{9000 + place // 2};{100 + place % 7};A{place % 9};{at:%d.%m.%Y};{at:%H:%M};{1 + place % 3};{price};Grüße {place % 9}"
        )
    (folder / "umsatz.csv").write_bytes("\n".join(lines).encode("latin-1"))


def millisecond_clicks(folder: Path) -> None:
    """RetailRocket's layout: milliseconds, camel-less names, 'transaction' for a purchase."""
    kinds = ("view", "view", "view", "addtocart", "transaction")
    lines = ["timestamp,visitorid,event,itemid,transactionid"]
    for place in range(100):
        at = int((FIRST + timedelta(minutes=place * 37)).replace(tzinfo=UTC).timestamp() * 1000)
        kind = kinds[place % 5]
        lines.append(f"{at},{place % 11},{kind},{place % 13},{place if kind == 'transaction' else ''}")
    (folder / "events.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def american_tabs(folder: Path) -> None:
    """Tabs, month first, twelve-hour clock, dollars, one file a month, whose names carry no usable day."""
    for month in (3, 4):
        lines = ["Invoice Number\tSKU\tCustomer ID\tTransaction Date\tUnits\tUnit Price"]
        for place in range(28):
            at = datetime(2026, month, 1 + place, 15, 30)
            who = place % 6 if place % 4 else "guest"
            lines.append(
                f"INV{month}{place}\tsku-{place % 5}\t{who}\t{at:%m/%d/%Y %I:%M %p}\t{place % 3 + 1}\t$1,2{place % 10}0.50"
            )
        (folder / f"sales_20260{month}01.tsv").write_text("\n".join(lines), encoding="utf-8")


def nested_lines(folder: Path) -> None:
    """JSON lines with the customer in an object, packed, one file a day."""
    for day in range(3):
        rows = []
        for place in range(20):
            at = FIRST + timedelta(days=day, minutes=place)
            rows.append(
                {
                    "created_at": at.isoformat() + "Z",
                    "customer": {"id": f"c{place % 5}"},
                    "event": ("page_view", "purchase", "remove_from_cart")[place % 3],
                    "product_id": f"p{place % 4}",
                    "price": 2.5,
                    "currency": "EUR",
                    "tags": ["x"],
                }
            )
        (folder / f"log-{(FIRST + timedelta(days=day)).date()}.jsonl.gz").write_bytes(
            gzip.compress("\n".join(map(json.dumps, rows)).encode())
        )


def typed_parquet(folder: Path) -> None:
    """Parquet with real types: floats for ids, a timestamp, partition folders."""
    for day in range(2):
        at = FIRST + timedelta(days=day)
        path = folder / f"dt={at.date()}" / "part-00000.parquet"
        path.parent.mkdir()
        pl.DataFrame(
            {
                "order_time": [at + timedelta(minutes=place) for place in range(40)],
                "customer_id": [float(place % 8) + 17000 for place in range(40)],
                "article_id": [place % 6 for place in range(40)],
                "total_price": [4.0 * (1 + place % 2) for place in range(40)],
                "qty": [1 + place % 2 for place in range(40)],
            }
        ).write_parquet(path)


SHOPS: dict[str, tuple[Callable[[Path], None], dict[str, object]]] = {
    "german": (
        german_orders,
        {"rows": 60, "revenue": None, "user_id": "Kundennummer", "currency": "EUR", "first": date(2026, 3, 2)},
    ),
    "clicks": (millisecond_clicks, {"rows": 100, "user_id": "visitorid", "currency": "USD", "first": date(2026, 3, 2)}),
    "tabs": (
        american_tabs,
        {"rows": 56, "user_id": "nullif(\"Customer ID\", 'guest')", "currency": "USD", "first": date(2026, 3, 1)},
    ),
    "nested": (
        nested_lines,
        {"rows": 42, "user_id": "(source_line ->> '$.customer.id')", "currency": "EUR", "first": date(2026, 3, 2)},
    ),
    "parquet": (
        typed_parquet,
        {"rows": 80, "user_id": "CAST(CAST(customer_id AS BIGINT) AS VARCHAR)", "currency": "USD", "first": date(2026, 3, 2)},
    ),
}


@pytest.mark.parametrize("name", SHOPS)
def test_a_folder_never_seen_becomes_a_store_whose_rows_are_clean(name: str, tmp_path: Path) -> None:
    make, expected = SHOPS[name]
    make(tmp_path)
    store = started(tmp_path)
    assert columns(store, "events")["user_id"] == expected["user_id"]
    assert store.currency == expected["currency"]
    assert store.first_day == expected["first"]
    report = checked(store, 90)
    events = source(report, "events")
    assert report.is_ok, report.problems
    assert events.clean == events.rows - sum(one.rows for one in events.refused)
    assert (events.clean, events.refused) == (expected["rows"], ())


def test_amounts_with_signs_and_commas_are_read_as_the_numbers_they_are(tmp_path: Path) -> None:
    german_orders(tmp_path)
    told: list[str] = []
    check_store(started(tmp_path), 90, told.append)
    # by hand: unit prices 1050,00 + 100 x digit in thousands notation '1.d50,d0'
    revenue = sum((1 + place % 3) * (1000 + (place % 10) * 100 + 50 + (place % 10) / 10) for place in range(60))
    assert any(f"revenue {revenue:,.2f} EUR" in line for line in told), told


def test_event_words_are_translated_and_what_has_no_counterpart_is_left_out(tmp_path: Path) -> None:
    nested_lines(tmp_path)
    store = started(tmp_path)
    block = store.blocks("events")[0]
    assert "remove_from_cart" in (block.where or "")
    assert block.files == "log-{date}.jsonl.gz" and block.format == "json" and block.missing_file == "error"
    facts = source(checked(store), "events").facts
    assert facts["event types"] == "view_item 21, purchase 21"
    # no order numbers: what one visit bought is one order, as everywhere else
    assert re.match(r"[1-9]\d* orders, .*; 21 purchases without an order_id, those of one visit taken for one order", facts["sales"])


def test_a_whole_shop_of_several_exports(tmp_path: Path) -> None:
    """Orders, page views, a catalogue, contacts, ad reports and campaigns, each in its own file."""

    def lines(name: str, header: str, rows: list[str]) -> None:
        (tmp_path / name).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")

    days = [(FIRST + timedelta(days=place % 20)).date() for place in range(200)]
    lines(
        "orders.csv",
        "order_id,created_at,customer_id,sku,quantity,price",
        [f"{place},{day} 10:{place // 20:02}:00,c{place % 30},s{place % 12},1,9.99" for place, day in enumerate(days)],
    )
    lines(
        "returns.csv",
        "order_id,created_at,customer_id,sku,quantity,price",
        [f"{place},{day} 18:{place // 20:02}:00,c{place % 30},s{place % 12},1,9.99" for place, day in enumerate(days[:20])],
    )
    lines(
        "views.csv",
        "time,visitor_id,product_id,device",
        [f"{day} 09:{place // 20:02}:00,c{place % 30},s{place % 12},phone" for place, day in enumerate(days)],
    )
    lines(
        "products.csv",
        "id,name,category,vendor,price,cost,stock",
        [f"s{place},Thing {place},toys,acme,9.99,4.00,{place}" for place in range(12)],
    )
    lines(
        "customers.csv",
        "id,email,phone,accepts_marketing",
        [f"c{place},u{place}@example.org,+49151{place:07},true" for place in range(30)],
    )
    lines(
        "ads.csv",
        "Day,Campaign,Impressions,Clicks,Amount spent (EUR)",
        [f"{day},spring {place % 3},{1000 + place},{place % 9},1.25" for place, day in enumerate(days)],
    )
    lines(
        "campaigns.csv",
        "campaign_id,start_date,budget",
        ["spring 0,2026-03-01,10", "spring 1,2026-03-01,10", "spring 2,2026-03-01,10"],
    )
    (tmp_path / "notes.xlsx").write_bytes(b"PK")
    told: list[str] = []
    store = load_store(init_store(tmp_path, None, told.append, today=TODAY))
    assert set(store.sources) == {"events", "items", "contacts", "ad_reports", "campaigns"}
    assert {columns(store, "events", place)["event_type"] for place in range(3)} == {"'purchase'", "'refund'", "'view_item'"}
    assert columns(store, "items") == {
        "item_id": "id",
        "title": "name",
        "category": "category",
        "brand": "vendor",
        "unit_price": "price",
        "unit_cost": "cost",
        "stock_on_hand": "stock",
    }
    assert columns(store, "ad_reports")["spend"] == '"Amount spent (EUR)"' and store.currency == "EUR"
    assert any("notes.xlsx: not used, a spreadsheet" in line for line in told)
    report = checked(store)
    assert report.is_ok, report.problems
    assert source(report, "events").facts["event types"] == "view_item 200, purchase 200, refund 20"


def test_files_that_already_speak_the_contract_are_taken_by_name(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    for day in (date(2026, 3, 2), date(2026, 3, 4)):
        (tmp_path / "events" / f"{day}.csv").write_text(
            f"event_at,user_id,event_type,item_id,colour\n{day} 10:00:00,u,view_item,i,red\n", encoding="utf-8"
        )
    store = started(tmp_path)
    block = store.blocks("events")[0]
    assert block.columns == {"*": "*"} and block.files == "events/{date}.csv"
    assert block.missing_file == "empty"  # one day of the three has no file
    assert source(checked(store), "events").unused == ("colour",)


def test_daily_totals_of_places_are_forecast_place_by_place(tmp_path: Path) -> None:
    rows = ["Store,Date,Sales,Open,Promo"] + [
        f"{shop},{(FIRST + timedelta(days=day)).date()},{100 * shop + day},1,{day % 2}"
        for day in range(20)
        for shop in range(1, 6)
    ]
    (tmp_path / "train.csv").write_text("\n".join(rows), encoding="utf-8")
    store = started(tmp_path)
    assert columns(store, "events")["item_id"] == "Store"
    assert {"is_promotion", "is_available"} <= set(columns(store, "item_drivers"))
    assert checked(store).is_ok


def recognised(folder: Path) -> dict[str, dict[str, str]]:
    """Input -> contract column -> expression, without reading whole files."""
    made = [block for files in look_into(folder).sets for block in blocks_of(files)]
    return {block.source: {mapped.contract: mapped.expression for mapped in block.columns} for block in made}


def test_plans_of_prices_and_calendars_are_no_sales(tmp_path: Path) -> None:
    """A price list by day and place was once taken for purchases of one unit each, days that had not come among them."""
    days = [date(2026, 3, 2) + timedelta(days=k) for k in range(30)]
    for day in days:
        rows = [f"{day} 18:0{k}:00,p{k},s{k % 2},{k + 1},2.5,{day}-{k}" for k in range(8)]
        (tmp_path / f"till_{day}.csv").write_text("\n".join(["at,product,shop,n,price,receipt", *rows]) + "\n")
    for day in days[::7]:
        rows = [f"{day + timedelta(days=7 + k)},p{item},s0,{2 + item / 10},{k % 2}" for k in range(7) for item in range(8)]
        (tmp_path / f"prices_{day}.csv").write_text("\n".join(["date,product,shop,price,promo", *rows]) + "\n")
    rows = [f"{day},2026-02-01,p{day.day % 3},1" for day in days]
    (tmp_path / "weeks.csv").write_text("\n".join(["date,known_at,sku,open", *rows]) + "\n")
    rows = [f"{day},{int(day.day == 6)},{day.day % 2},{day.day * 7}" for day in days]
    (tmp_path / "calendar.csv").write_text("\n".join(["date,Holiday,School Days,visits", *rows]) + "\n")
    store = started(tmp_path)
    assert len(store.blocks("events")) == 1 and columns(store, "events")["quantity"] == "n"
    prices, opening = ({**block.columns, "files": block.files} for block in store.blocks("item_drivers"))
    assert prices["files"] == "prices_{date}.csv" and {"location_id", "unit_price", "is_promotion"} <= set(prices)
    assert opening["known_at"] == "known_at" and opening["is_available"] == "open"
    assert set(columns(store, "market_days")) == {"date", "is_holiday", "school_days"}
    report = checked(store)
    assert not report.problems
    assert [(source(report, name).rows, source(report, name).clean) for name in ("events", "item_drivers", "market_days")] == [
        (240, 240),
        (5 * 56 + 30, 5 * 56 + 30),
        (30, 30),
    ]
    warehouse = Warehouse(duckdb.connect(":memory:"), store, None)
    with warehouse.transaction():
        built = build_sources(warehouse.reader(days[-1]), days, store, "item_drivers")
        warehouse.replace_window("raw_item_drivers", ("raw_item_drivers",), days, built)
    landed = warehouse.connection.table("raw_item_drivers").filter("starts_with(source_file, 'prices')").pl()
    assert len(landed) == 5 * 56
    assert (landed["known_at"].str.slice(0, 10) == landed["landed_date"].cast(pl.String)).all()


def test_a_calendar_without_numbers_of_its_own_lacks_none(tmp_path: Path) -> None:
    days = [date(2026, 3, 2) + timedelta(days=k) for k in range(30)]
    (tmp_path / "orders.csv").write_text("\n".join(["date,sku,qty", *(f"{day},p{k % 3},2" for k, day in enumerate(days))]) + "\n")
    (tmp_path / "holidays.csv").write_text("\n".join(["date,holiday", *(f"{day},{day.day % 2}" for day in days)]) + "\n")
    assert source(checked(started(tmp_path)), "market_days").unmapped == ("known_at", "is_promotion", "end_date")


def test_promotions_and_holidays_may_be_told_by_their_first_and_last_day(tmp_path: Path) -> None:
    days = [date(2026, 3, 2) + timedelta(days=k) for k in range(30)]
    (tmp_path / "orders.csv").write_text("\n".join(["date,sku,qty", *(f"{day},p{k % 3},2" for k, day in enumerate(days))]) + "\n")
    promotions = ["1,p0,05.03.2026,11.03.2026,20", "2,p1,20.03.2026,,10", "3,p2,25.03.2026,27.03.2026,15"]
    (tmp_path / "promotions.csv").write_text("\n".join(["id,sku,starts,promo_end,percent", *promotions]) + "\n")
    (tmp_path / "school_holidays.csv").write_text("name,from,to\nwinter,2026-03-05,2026-03-08\neaster,2026-03-28,2026-03-29\n")
    prices = ["p0,2026-03-02,2026-03-20,2.5", "p0,2026-03-21,2026-03-31,3", "p1,2026-03-02,2026-03-02,4"]
    (tmp_path / "prices.csv").write_text("\n".join(["sku,valid_from,valid_until,price", *prices]) + "\n")
    store = started(tmp_path)
    by_file = {str(block.files): block.columns for block in store.blocks("item_drivers")}
    assert set(by_file["promotions.csv"]) == {"item_id", "date", "end_date", "known_at", "is_promotion"}
    assert set(by_file["prices.csv"]) == {"item_id", "date", "end_date", "known_at", "unit_price"}
    assert columns(store, "market_days")["school_holiday"] == "1"
    report = checked(store)
    assert not report.problems
    assert [(source(report, name).rows, source(report, name).clean) for name in ("item_drivers", "market_days")] == [(6, 6), (2, 2)]
    warehouse = Warehouse(duckdb.connect(":memory:"), store, None)
    with warehouse.transaction():
        for name in ("item_drivers", "market_days"):
            built = build_sources(warehouse.reader(days[-1]), days, store, name)
            warehouse.replace_window(f"raw_{name}", (f"raw_{name}",), days, built)
    drivers = warehouse.reader(days[-1]).accepted("item_drivers", None, days[-1])
    on = drivers.filter("is_promotion").group_by("item_id").agg(pl.col("date").min().alias("first"), pl.col("date").max().alias("last"), pl.len())
    assert on.sort("item_id").rows() == [
        ("p0", date(2026, 3, 5), date(2026, 3, 11), 7),
        ("p1", date(2026, 3, 20), days[-1] + timedelta(days=400), 412),  # open: until told otherwise
        ("p2", date(2026, 3, 25), date(2026, 3, 27), 3),
    ]
    paid = drivers.filter(pl.col("unit_price").is_not_null(), pl.col("item_id") == "p0").sort("date")
    assert paid.height == 30 and set(paid["date"].diff().drop_nulls()) == {timedelta(days=1)}
    assert [float(price) for price in paid["unit_price"].unique(maintain_order=True)] == [2.5, 3]
    assert warehouse.reader(days[-1]).accepted("market_days", None, days[-1]).height == 6


@pytest.mark.parametrize(
    ("name", "header"),
    [("prices.csv", "sku,valid_from,price"), ("price_changes.csv", "sku,date,price"), ("preise.csv", "artikelnummer,gueltig_ab,preis"),
     ("price_list_{date}.csv", "sku,effective_date,price")],
)  # fmt: skip
def test_a_list_of_price_changes_holds_from_change_to_change(tmp_path: Path, name: str, header: str) -> None:
    days = [date(2026, 3, 2) + timedelta(days=k) for k in range(30)]
    (tmp_path / "orders.csv").write_text("\n".join(["date,sku,qty", *(f"{day},p{k % 3},2" for k, day in enumerate(days))]) + "\n")
    for landed in [days[0], days[5]] if "{date}" in name else [days[0]]:
        prices = ["p0,2024-03-02,2.5", "p0,2026-03-21,3", "p1,2025-12-01,4"]
        (tmp_path / name.format(date=landed)).write_text("\n".join([header, *prices]) + "\n")
    store = started(tmp_path)
    assert columns(store, "item_drivers")["end_date"] == "'9999-12-31'"
    assert not checked(store).problems
    warehouse = Warehouse(duckdb.connect(":memory:"), store, None)
    with warehouse.transaction():
        built = build_sources(warehouse.reader(days[-1]), days, store, "item_drivers")
        warehouse.replace_window("raw_item_drivers", ("raw_item_drivers",), days, built)
    told = warehouse.reader(days[-1]).accepted("item_drivers", None, days[-1]).filter(pl.col("date").is_in(days)).sort("item_id", "date")
    assert told["unit_price"].cast(pl.Float64).to_list() == [2.5] * 19 + [3] * 11 + [4] * 30


@pytest.mark.parametrize(("ends", "is_met"), [(("2026-03-21", "2026-03-25", ""), True), (("2026-03-20", "2026-03-24", "9999-12-31"), False)])
def test_a_range_that_ends_where_the_next_begins_ends_the_day_before(tmp_path: Path, ends: tuple[str, ...], is_met: bool) -> None:
    days = [date(2026, 3, 2) + timedelta(days=k) for k in range(30)]
    (tmp_path / "orders.csv").write_text("\n".join(["date,sku,qty", *(f"{day},p{k % 3},2" for k, day in enumerate(days))]) + "\n")
    starts = ("2024-01-01", "2026-03-21", "2026-03-25")
    lines = [f"p{item},{start},{end},{number + 1}" for item in range(3) for number, (start, end) in enumerate(zip(starts, ends, strict=True))]
    (tmp_path / "price_history.csv").write_text("\n".join(["sku,valid_from,valid_to,price", *lines]) + "\n")
    store = started(tmp_path)
    assert columns(store, "item_drivers")["end_date"].startswith("coalesce(TRY_CAST(valid_to AS DATE) - 1, " if is_met else "TRY_CAST(valid_to")
    warehouse = Warehouse(duckdb.connect(":memory:"), store, None)
    with warehouse.transaction():
        built = build_sources(warehouse.reader(days[-1]), days, store, "item_drivers")
        warehouse.replace_window("raw_item_drivers", ("raw_item_drivers",), days, built)
    told = warehouse.reader(days[-1]).accepted("item_drivers", None, days[-1]).filter(pl.col("date").is_in(days), item_id="p0").sort("date")
    assert told["unit_price"].cast(pl.Float64).to_list() == [1] * 19 + [2] * 4 + [3] * 7


@pytest.mark.parametrize(
    ("name", "header", "row"),
    [("promotions.csv", "sku,start_date,price", "{item},{day},2.5"), ("prices.csv", "sku,date,price", "{item},{day},2.5"),
     ("prices.csv", "sku,valid_from,price,title", "u{number},{day},2.5,A cup")],
)  # fmt: skip
def test_prices_of_promotions_and_of_days_hold_no_longer_than_told(tmp_path: Path, name: str, header: str, row: str) -> None:
    lines = [row.format(item=f"p{number % 3}", number=number, day=date(2026, 3, 2) + timedelta(days=number)) for number in range(30)]
    (tmp_path / name).write_text("\n".join([header, *lines]) + "\n")
    blocks = [block for files in look_into(tmp_path).sets for block in blocks_of(files)]
    assert all(block.expression("end_date") is None for block in blocks)


def test_campaigns_of_a_holiday_are_campaigns(tmp_path: Path) -> None:
    (tmp_path / "holiday_campaigns.csv").write_text("Campaign ID,Starts,Ends\nxmas,2026-12-01,2026-12-24\nsale,2026-12-27,2027-01-05\n")
    assert [block.source for files in look_into(tmp_path).sets for block in blocks_of(files)] == ["campaigns"]


@pytest.mark.parametrize(
    ("header", "row", "value"), [("date,sku,qty", "{day},p{k},2", "conversions"), ("date,sku,qty,price", "{day},p{k},2,{k}.5", "revenue")]
)
def test_a_shop_that_tells_no_money_plans_for_conversions(header: str, row: str, value: str, tmp_path: Path) -> None:
    rows = [row.format(day=date(2026, 3, 2) + timedelta(days=number), k=number % 3) for number in range(30)]
    (tmp_path / "orders.csv").write_text("\n".join([header, *rows]) + "\n")
    store = started(tmp_path)
    assert store.ad_planning.value == value
    assert ("  # often wanted: daily_budget" in (tmp_path / "store.yaml").read_text()) == (value == "conversions")


def test_what_names_amounts_or_people_is_no_plan_whatever_its_file_is_called(tmp_path: Path) -> None:
    for name, header, row in (
        ("sale_prices.csv", "date,sku,price,qty", "{day},p{k},2.5,3"),
        ("promo.csv", "date,sku,price,customer", "{day},p{k},2.5,u{k}"),
        ("prices.csv", "date,sku,revenue", "{day},p{k},2.5"),
    ):
        lines = [row.format(day=date(2026, 3, 2) + timedelta(days=k % 9), k=k % 7) for k in range(63)]
        (tmp_path / name).write_text("\n".join([header, *lines]) + "\n")
    assert {block.source for files in look_into(tmp_path).sets for block in blocks_of(files)} == {"events"}


def test_a_price_list_with_a_row_an_item_is_a_catalogue(tmp_path: Path) -> None:
    rows = [f"2026-03-02,p{k},Mug {k},2.5" for k in range(40)]
    (tmp_path / "prices.csv").write_text("\n".join(["date,sku,title,price", *rows]) + "\n")
    assert [block.source for files in look_into(tmp_path).sets for block in blocks_of(files)] == ["items"]


def test_other_numbers_of_a_calendar_are_taken_where_it_says_since_when_they_are_known(tmp_path: Path) -> None:
    """Visits of a day in a calendar without such a column would be known ahead of the day."""
    rows = [f"{date(2026, 3, 2) + timedelta(days=k)},2026-02-01,{k % 2},{k * 7}" for k in range(30)]
    (tmp_path / "calendar.csv").write_text("\n".join(["date,known_at,holiday,expected_visits", *rows]) + "\n")
    assert "expected_visits" in recognised(tmp_path)["market_days"]


def ga4_event(name: str, place: int, items: int, **more: object) -> dict[str, object]:
    def told(**value: object) -> dict[str, object]:
        return {"string_value": None, "int_value": None, "double_value": None} | value

    at = int((FIRST.replace(tzinfo=UTC) + timedelta(minutes=place)).timestamp() * 1e6)
    return {
        "event_date": "20260302",
        "event_timestamp": str(at),
        "event_name": name,
        "event_params": [
            {"key": "page_location", "value": told(string_value="https://shop.example/it's")},
            {"key": "ga_session_id", "value": told(int_value=str(1772442000 + place // 10))},
            *([{"key": "search_term", "value": told(string_value="red shoes")}] if "search" in name else []),
        ],
        "user_id": f"c{place % 4}" if place % 5 == 0 else None,
        "user_pseudo_id": f"{1000 + place % 4}.{1700000000 + place % 4}",
        "device": {"category": "mobile", "web_info": {"browser": "Chrome"}},
        "ecommerce": {"transaction_id": f"T{place}"} if name == "purchase" else {"transaction_id": "(not set)"},
        "items": [
            {"item_id": f"i{(place + line) % 6}", "item_name": "Shoe", "item_brand": "(not set)", "price": 9.5, "quantity": str(line + 1)}
            for line in range(items)
        ],
        **more,
    }


def ga4(folder: Path, name: str = "events_20260302.json") -> list[dict[str, object]]:
    """An export of Google Analytics 4: parameters as pairs, items in a list, the day in the name without dashes."""
    kinds = ("view_item", "add_to_cart", "purchase", "page_view", "session_start", "view_search_results", "view_item_list")
    counts = {"view_item": 1, "add_to_cart": 1, "purchase": 2, "view_item_list": 3}
    rows = [ga4_event(kinds[place % 7], place, counts.get(kinds[place % 7], 0)) for place in range(140)]
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return rows


def test_who_uses_a_device_is_not_known_before_it_is_said(tmp_path: Path) -> None:
    ga4(tmp_path, "events.json")
    assert "identities" not in started(tmp_path).sources


def test_an_export_of_analytics_with_pairs_and_lists(tmp_path: Path) -> None:
    ga4(tmp_path)
    store = started(tmp_path)
    block = store.blocks("events")[0]
    assert (block.files, block.unroll, store.first_day) == ("events_{yyyy}{mm}{dd}.json", "items", date(2026, 3, 2))
    assert block.columns["user_id"] == "user_pseudo_id" and block.columns["order_id"].startswith("nullif(")
    events = source(checked(store), "events")
    # by hand: of 20 each, looks, carts and searches have one row, purchases two; pages, starts of sessions and lists of items none
    assert (events.rows, events.clean) == (100, 100)
    assert events.facts["event types"] == "view_item 20, search 20, add_to_cart 20, purchase 40"
    assert events.facts["sales"].startswith(f"20 orders, revenue {20 * (1 + 2) * 9.5:,.2f}")
    rows = landed(store, "events")
    assert rows["search_query"].drop_nulls().unique().to_list() == ["red shoes"]
    persons = landed(store, "identities").select("from_user_id", "user_id").unique().sort("user_id")
    assert persons.rows() == [(f"{1000 + person}.{1700000000 + person}", f"c{person}") for person in range(4)]
    # the engine's second of two visitors' sessions is the same number; they are two sessions all the same
    assert rows["session_id"].n_unique() == len({(row["user_id"], row["session_id"]) for row in rows.iter_rows(named=True)}) > 14
    items = landed(store, "items")
    assert items["item_id"].null_count() == 0 and items["brand"].null_count() == len(items)


def landed(store: Store, name: str) -> pl.DataFrame:
    day = store.first_day
    connection = duckdb.connect(":memory:")
    warehouse = Warehouse(connection, store, None)
    with warehouse.transaction():
        warehouse.replace_window("sources", [f"raw_{name}"], [day], build_sources(warehouse.reader(day), [day], store, name))
    rows = warehouse.reader(day).window(f"raw_{name}", None, day)
    connection.close()
    return rows


def test_parquet_with_lists_says_the_same_as_json(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "json").mkdir()
    (tmp_path / "parquet").mkdir()
    rows = ga4(tmp_path / "json")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "parquet" / "events_20260302.parquet")
    stores = [started(tmp_path / name) for name in ("json", "parquet")]
    assert columns(stores[1], "events")["item_id"] == "source_element.item_id"
    told = [landed(store, "events").drop("landed_date", "raw_row_id", "source_file", "row_hash", "context", strict=False) for store in stores]
    same = [frame.sort(frame.columns).with_columns(pl.col("unit_price").cast(pl.Float64)) for frame in told]
    assert same[0].equals(same[1]), (same[0], same[1])


def test_orders_with_their_lines_in_an_array(tmp_path: Path) -> None:
    """As shops' interfaces give them: the order's own id and amounts beside those of its lines, people nested or missing."""
    orders = [
        {
            "id": 5000 + place, "name": f"#{1000 + place}", "created_at": (FIRST + timedelta(hours=place)).isoformat() + "+01:00",
            "financial_status": "paid", "currency": "EUR", "total_price": "99.00", "total_discounts": "5.00",
            "customer": None if place % 4 == 0 else {"id": 70 + place % 6, "email": f"a{place % 6}@example.org"},
            "shipping_lines": [{"id": place, "title": "Post", "price": "4.00"}],
            "line_items": [
                {"id": 10 * place + line, "product_id": 300 + (place + line) % 5, "title": "Tea", "quantity": line + 1, "price": "3.00"}
                for line in range(place % 3)
            ],
        }
        for place in range(60)
    ]  # fmt: skip
    (tmp_path / "orders.json").write_text(json.dumps(orders, indent=1), encoding="utf-8")
    store = started(tmp_path)
    mapped = columns(store, "events")
    assert (mapped["item_id"], mapped["unit_price"]) == ("(source_element ->> '$.product_id')", "(source_element ->> '$.price')")
    assert mapped["user_id"] == "(source_line ->> '$.customer.id')" and "discount" not in mapped
    assert mapped["event_id"] == "(source_element ->> '$.id')"
    text = (tmp_path / "store.yaml").read_text(encoding="utf-8")
    assert "lists nobody looked into: shipping_lines" in text
    events = source(checked(store, 90), "events")
    lines = [line for order in orders for line in order["line_items"]]  # type: ignore[attr-defined]
    assert (events.rows, events.clean) == (len(lines), len(lines))
    assert events.facts["sales"].startswith(f"40 orders, revenue {sum(3.0 * line['quantity'] for line in lines):,.2f} EUR")


def dump(folder: Path, name: str, days: int = 40) -> None:
    rows = [f"{place},{(FIRST + timedelta(days=place % days)).date()} 10:00,c{place % 7},s{place % 5},1,2.50" for place in range(200)]
    (folder / name).write_text("\n".join(["order_id,created_at,customer_id,sku,quantity,price", *rows]) + "\n", encoding="utf-8")


@pytest.mark.parametrize("name", ["orders_export_2026-04-11.csv", "orders-20260411.csv"])
def test_an_export_of_all_orders_named_after_today_holds_all_days(name: str, tmp_path: Path) -> None:
    dump(tmp_path, name)
    (tmp_path / "products_2026-04-11.csv").write_text("sku,title,cost,stock\n" + "".join(f"s{place},T,1.5,7\n" for place in range(5)))
    store = started(tmp_path)
    assert (store.first_day, store.last_day) == (date(2026, 3, 2), date(2026, 4, 10))
    report = checked(store, 90)
    assert report.is_ok and source(report, "events").clean == 200 and source(report, "items").clean == 5
    assert "the day in the name is not the day of the rows" in (tmp_path / "store.yaml").read_text(encoding="utf-8")


def test_a_file_a_day_stays_a_file_a_day_whatever_its_catalogue_says(tmp_path: Path) -> None:
    for day in range(3):
        at = FIRST + timedelta(days=day)
        rows = [f"{at + timedelta(minutes=place)},c{place % 7},s{place % 5},1,2.50" for place in range(50)]
        (tmp_path / f"orders_{at:%Y%m%d}.csv").write_text("\n".join(["created_at,customer_id,sku,quantity,price", *rows]) + "\n")
        items = [f"s{place},T{place},2019-05-01,{day}" for place in range(5)]
        (tmp_path / f"items_{at:%Y%m%d}.csv").write_text("\n".join(["sku,title,created_at,stock", *items]) + "\n")
    store = started(tmp_path)
    assert [store.blocks(name)[0].files for name in ("events", "items")] == ["orders_{yyyy}{mm}{dd}.csv", "items_{yyyy}{mm}{dd}.csv"]


def tables(folder: Path, layout: str = "csv", day: str = "") -> dict[str, pl.DataFrame]:
    """As a shop's database holds them: orders, their lines, payments and goods, each in a table of its own."""
    orders = [
        {
            "id": 9000 + place,
            "customer_id": None if place % 5 == 0 else place % 9,
            "status": "cancelled" if place % 10 == 7 else "complete",
            "created_at": f"{FIRST + timedelta(hours=11 * place if not day else place % 12)}",
            "total": 99.5,
        }
        for place in range(60)
    ]
    lines = [
        {"id": 3 * place + line, "order_id": 9000 + place, "product_id": 70 + (place + line) % 6, "quantity": line + 1, "price": 2.5}
        for place in range(60)
        for line in range(1 + place % 3)
    ]
    payments = [{"order_id": 9000 + place, "paid_at": f"{FIRST + timedelta(hours=11 * place)}", "method": "card"} for place in range(60)]
    goods = [{"id": 70 + place, "name": f"Tea {place}", "cost": 1.25} for place in range(6)]
    made = {"orders": orders, "order_lines": lines, "payments": payments, "products": goods}
    frames = {name: pl.DataFrame(rows) for name, rows in made.items()}
    for name, frame in frames.items():
        path = folder / f"{name}{'' if name == 'products' else day}.{layout}"
        if layout == "csv":
            frame.write_csv(path, separator=";")
        elif layout == "json":
            path.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dicts()), encoding="utf-8")
        else:
            frame.write_parquet(path)
    return frames


@pytest.mark.parametrize("layout", ["csv", "json", "parquet"])
@pytest.mark.parametrize("day", ["", "_20260302"])
def test_orders_and_their_lines_in_tables_of_their_own_are_one_input(layout: str, day: str, tmp_path: Path) -> None:
    made = tables(tmp_path, layout, day)
    store = started(tmp_path)
    (block,) = store.blocks("events")
    assert block.join["orders"].files == f"orders{'_{yyyy}{mm}{dd}' if day else ''}.{layout}"
    assert "total" not in str(block.columns) and block.columns["order_id"] == "order_id"
    kept = made["order_lines"].join(made["orders"].filter(pl.col("status") == "complete"), left_on="order_id", right_on="id")
    report = checked(store, 90)
    events = source(report, "events")
    assert report.is_ok and (events.rows, events.clean) == (kept.height, kept.height)
    sales = f"{kept['order_id'].n_unique()} orders, revenue {kept.select((pl.col('quantity') * pl.col('price')).sum()).item():,.2f} USD"
    assert events.facts["sales"].startswith(sales)
    assert events.facts["users"].startswith(f"{kept['customer_id'].drop_nulls().n_unique()};")
    assert source(report, "items").clean == 6


def test_accounts_that_each_order_once_are_joined_to_the_people_behind_them(tmp_path: Path) -> None:
    made = tables(tmp_path)
    orders = made["orders"].with_columns(customer_id=pl.format("a{}", "id"))
    orders.write_csv(tmp_path / "orders.csv")
    people = orders.select("customer_id", customer_unique_id=pl.format("p{}", pl.col("id") % 9), city=pl.lit("x"))
    people.write_csv(tmp_path / "customers.csv")
    store = started(tmp_path)
    (block,) = store.blocks("events")
    assert list(block.join) == ["orders", "people"] and block.columns["user_id"] == "people.customer_unique_id"
    assert "customers.csv:" not in (tmp_path / "store.yaml").read_text(encoding="utf-8")
    assert source(checked(store, 90), "events").facts["users"].startswith("9;")


@pytest.mark.parametrize("day", ["", "_20260302"])
def test_people_stand_beside_orders_that_hold_their_own_lines(day: str, tmp_path: Path) -> None:
    """Customers without a day in their name cannot stand beside orders with one: the accounts stay, and nothing breaks."""
    head = "order_id,customer_id,created_at,sku,quantity,price"
    rows = [f"{place // 2},a{place // 2},{FIRST + timedelta(minutes=place)},p{place % 4},1,2.5" for place in range(80)]
    (tmp_path / f"orders{day}.csv").write_text("\n".join([head, *rows]) + "\n")
    people = "".join(f"a{place},p{place % 9},x\n" for place in range(40))
    (tmp_path / "customers.csv").write_text(f"customer_id,customer_unique_id,city\n{people}")
    store = started(tmp_path)
    mapped = columns(store, "events")
    assert mapped["user_id"] == ("customer_id" if day else "people.customer_unique_id")
    assert {"order_id", "item_id", "quantity", "unit_price"} <= set(mapped)
    assert source(checked(store), "events").clean == 80


def test_lines_that_say_who_and_when_need_no_orders_beside_them(tmp_path: Path) -> None:
    rows = [f"{place // 2},c{place % 5},p{place % 4},1,2.0,2026-03-0{2 + place % 3}" for place in range(40)]
    (tmp_path / "lines.csv").write_text("\n".join(["order_id,customer_id,product_id,quantity,price,ordered_at", *rows]) + "\n")
    (tmp_path / "shipments.csv").write_text("order_id,shipped_at\n" + "".join(f"{place},2026-03-0{3 + place % 5}\n" for place in range(20)))
    assert started(tmp_path).blocks("events")[0].join == {}


def test_check_names_joined_files_that_are_missing(tmp_path: Path) -> None:
    tables(tmp_path)
    store = started(tmp_path)
    (tmp_path / "orders.csv").unlink()
    report = checked(store)
    assert not report.is_ok and "orders.csv" in report.problems[0]


def test_a_day_with_one_order_is_a_day_like_any_other(tmp_path: Path) -> None:
    for day in range(4):
        at = str(FIRST + timedelta(days=day))
        orders = [
            {"order_id": 10 * day + place, "created_at": at, "lines": [{"sku": f"s{place}", "qty": 1}, {"sku": "s9", "qty": 2}]}
            for place in range(1 if day == 2 else 5)
        ]
        (tmp_path / f"{FIRST + timedelta(days=day):%Y-%m-%d}.json").write_text("".join(json.dumps(order) + "\n" for order in orders))
    store = started(tmp_path)
    assert store.blocks("events")[0].unroll == "lines" and source(checked(store), "events").clean == 2 * 16


# --- layouts of well-known systems ------------------------------------------------------------------------------------

SOLD = [(place // 2, (place // 2 * 7) % 37, (place * 5) % 23, 1 + place % 3) for place in range(200)]
"""Order, person, item and quantity of each line; an item costs 5.50 plus its number."""
REVENUE = sum(quantity * (5.5 + item) for _, _, item, quantity in SOLD)


def sold(name: str, place: int) -> str:
    order, person, item, quantity = SOLD[place]
    at = FIRST + timedelta(hours=3 * order)
    return {
        "order": f"{5000 + order}", "person": f"{100 + person}", "email": f"c{person}@example.org", "item": f"{300 + item}",
        "sku": f"SK-{item}", "title": f"Thing {item}", "quantity": f"{quantity}", "pieces": f"{quantity}.0000", "price": f"{5.5 + item:.2f}",
        "dollars": f"${5.5 + item:.2f}",
        "amount": f"{quantity * (5.5 + item):.2f}", "basket": f"{100 + order}.00", "line": f"{place + 1}", "at": f"{at:%Y-%m-%d %H:%M:%S}",
        "day": f"{at:%Y-%m-%d}", "ebay": f"{at:%b-%d-%y}", "status": "Completed", "count": f"{1 + order % 4}",
    }[name]  # fmt: skip


SYSTEMS: dict[str, tuple[str, str]] = {
    # what each is here for: totals of the order beside lines; an `item_id` that numbers rows; words turned round; amounts of lines; dates
    "woocommerce": (",", "Order Number=order,Order Status=status,Order Date=at,Email (Billing)=email,Order Total Amount=basket,"
                         "Items in order=count,SKU=sku,Item Name=title,Quantity=quantity,Item Cost=price"),
    "magento": (",", "item_id=line,order_id=order,created_at=at,product_id=item,sku=sku,name=title,qty_ordered=pieces,price=price,"
                     "row_total=amount,customer_id=person"),
    "prestashop": (";", "id_order_detail=line,id_order=order,id_customer=person,date_add=at,product_id=item,product_name=title,"
                        "product_quantity=quantity,product_price=price,total_price_tax_incl=amount"),
    "amazon": ("\t", "order-id=order,order-item-id=line,purchase-date=at,buyer-email=email,sku=sku,product-name=title,quantity-purchased=quantity,"
                     "item-price=amount"),
    "ebay": (",", "Sales Record Number=line,Order Number=order,Buyer Username=email,Item Number=item,Item Title=title,Quantity=quantity,"
                  "Sold For=dollars,Sale Date=ebay"),
    "unit amounts": (",", "order_id=order,customer_id=person,date=day,sku=sku,qty=quantity,amount=price"),
    "french": (";", "Date commande=day,N° commande=order,Code client=person,Référence=sku,Désignation=title,Quantité=quantity,Prix unitaire=price,"
                    "Montant TTC=amount"),
    "italian": (";", "Data ordine=day,Numero ordine=order,Codice cliente=person,Codice articolo=sku,Descrizione=title,Quantità=quantity,"
                     "Prezzo unitario=price,Totale=amount"),
    "dutch": (";", "Besteldatum=day,Bestelnummer=order,Klantnummer=person,Artikelnummer=sku,Omschrijving=title,Aantal=quantity,"
                   "Prijs=price,Totaal=amount"),
}  # fmt: skip
"""Delimiter, and columns as each calls them with what is in them."""


@pytest.mark.parametrize("name", SYSTEMS)
def test_exports_of_well_known_systems_bring_the_same_sales(name: str, tmp_path: Path) -> None:
    delimiter, described = SYSTEMS[name]
    header, values = zip(*(pair.split("=") for pair in described.split(",")), strict=True)
    lines = [delimiter.join(sold(value, place) for value in values) for place in range(len(SOLD))]
    (tmp_path / "orders.csv").write_text("\n".join([delimiter.join(header), *lines]) + "\n", encoding="utf-8")
    store = started(tmp_path)
    assert {"order_id", "user_id", "item_id", "quantity", "unit_price"} <= set(columns(store, "events"))
    report = checked(store, 60)
    events = source(report, "events")
    assert report.is_ok and events.clean == 200
    assert events.facts["sales"].startswith(f"100 orders, revenue {REVENUE:,.2f} ")
    assert events.facts["users"].startswith("37;") and events.facts["items"] == "23"


def test_reports_of_ads_with_thousands_and_their_own_words(tmp_path: Path) -> None:
    rows = [
        f'2026-03-{1 + place % 28:02},"{1000 + place:,}",Brand {place % 3},{10 + place % 9},{3 + place % 9}.25,{place % 3}' for place in range(200)
    ]
    (tmp_path / "ads.csv").write_text("\n".join(["By Day,Impr.,Campaign,Clicks (destination),Cost,Conversions", *rows]) + "\n", encoding="utf-8")
    store = started(tmp_path)
    assert {"date", "impressions", "campaign_id", "clicks", "spend", "conversions"} == set(columns(store, "ad_reports"))
    assert source(checked(store, 60), "ad_reports").clean == 200


@pytest.mark.parametrize("packed", [False, True])
def test_a_report_with_a_title_above_its_header(packed: bool, tmp_path: Path) -> None:
    rows = [f"2026-03-{1 + place % 12:02}\tTotally {place // 12}\t{100 + place}\t{place}\t1.5" for place in range(120)]
    sums = ["Total: Campaigns\t--\t1266\t66\t18.0", "Total: Account\t--\t1266\t66\t18.0"]
    text = "\r\n".join(["Campaign report", "1 March 2026 - 12 March 2026", "", "Day\tCampaign\tImpr.\tClicks\tCost", *rows, *sums, ""])
    content = text.encode("utf-16")
    (tmp_path / f"report.csv{'.gz' if packed else ''}").write_bytes(gzip.compress(content) if packed else content)
    store = started(tmp_path)
    block = store.blocks("ad_reports")[0]
    assert (block.skip_lines, block.encoding, block.delimiter) == (3, "utf-16", "\t")
    report = source(checked(store), "ad_reports")
    assert (report.rows, report.clean) == (120, 120)


CATALOGUES: dict[str, tuple[str, str, dict[str, str]]] = {
    "shopify": (
        "products_export_1.csv",
        "Handle=handle,Title=sparse,Vendor=vendor,Type=kind,Variant SKU=sku,Variant Inventory Qty=stock,Variant Price=price,Cost per item=cost",
        {"item_id": "Variant SKU", "title": "Title", "stock_on_hand": "Variant Inventory Qty", "unit_price": "Variant Price"},
    ),
    "magento": (
        "catalog_product.csv",
        "sku=sku,product_type=simple,categories=kind,name=title,price=price,qty=pieces",
        {"item_id": "sku", "title": "name", "category": "categories", "stock_on_hand": "qty", "unit_price": "price"},
    ),
    "stock alone": ("inventory.csv", "sku=sku,qty=stock", {"item_id": "sku", "stock_on_hand": "qty"}),
    "german": (
        "lagerbestand.csv",
        "Artikelnummer=sku,Bestand=stock,Lieferzeit=days,EK-Preis=cost",
        {"item_id": "Artikelnummer", "stock_on_hand": "Bestand", "lead_time_days": "Lieferzeit", "unit_cost": "EK-Preis"},
    ),
}
"""File, columns as each calls them with what is in them, and which is which."""


@pytest.mark.parametrize("name", CATALOGUES)
def test_catalogues_and_stock_of_well_known_systems(name: str, tmp_path: Path) -> None:
    dump(tmp_path, "orders.csv")
    file, described, expected = CATALOGUES[name]
    header, values = zip(*(pair.split("=") for pair in described.split(",")), strict=True)

    def goods(value: str, place: int) -> str:
        return {
            "sku": f"s{place}", "handle": f"tea-{place // 2}", "sparse": f"Tea {place}" if place % 2 == 0 else "", "vendor": f"V{place % 3}",
            "kind": f"Kind {place % 4}", "stock": f"{place * 3 % 17}", "pieces": f"{place * 3 % 17}.0000", "price": f"{5 + place}.50",
            "cost": f"{2 + place}.10", "simple": "simple", "title": f"Tea {place}", "days": f"{3 + place % 4}",
        }[value]  # fmt: skip

    lines = [",".join(goods(value, place) for value in values) for place in range(40)]
    (tmp_path / file).write_text("\n".join([",".join(header), *lines]) + "\n", encoding="utf-8")
    store = started(tmp_path)
    mapped = {contract: text.strip('"') for contract, text in columns(store, "items").items()}
    assert {contract: mapped.get(contract) for contract in expected} == expected
    assert source(checked(store, 60), "items").clean == 40


def test_stock_by_place_is_summed(tmp_path: Path) -> None:
    dump(tmp_path, "orders.csv")
    places = ("Berlin", "Hamburg", "Web")
    lines = [f"cup-{item},Cup {item},sku{item},,{place},1,{item},{item + 2}" for item in range(20) for place in places]
    (tmp_path / "inventory_export.csv").write_text("Handle,Title,SKU,COO,Location,Incoming,Available,On hand\n" + "\n".join(lines) + "\n")
    store = started(tmp_path)
    found = columns(store, "items")
    assert (found["location_id"], found["stock_on_hand"], found["stock_on_order"]) == ("Location", '"On hand"', "Incoming")
    assert "category" not in found, "a handle is no category because an item has three rows"
    assert source(checked(store, 60), "items").clean == 60


def test_stock_in_several_rows_of_an_item_is_told_with_what_to_do(tmp_path: Path) -> None:
    dump(tmp_path, "orders.csv")
    (tmp_path / "stock.csv").write_text("sku,shelf,on_hand\n" + "".join(f"s{place // 2},w{place % 2},3\n" for place in range(20)))
    started(tmp_path)
    assert "sku names an item in several rows: add on_hand up" in (tmp_path / "store.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "written",
    [
        "%b %d, %Y, %I:%M:%S %p", "%m/%d/%y, %I:%M %p", "%d.%m.%Y, %H:%M:%S", "%d/%m/%Y, %H:%M:%S", "%B %d, %Y %H:%M", "%d-%b-%Y %H:%M:%S",
        "%Y年%m月%d日 %H:%M:%S", "%Y%m%dT%H%M%S", "%Y%m%dT%H%M%SZ", "%a, %d %b %Y %H:%M:%S GMT", "%a, %d %b %Y %H:%M:%S +0200",
        "%d/%b/%Y:%H:%M:%S +0200", "seconds", "nanoseconds",
    ],
)  # fmt: skip
def test_times_as_systems_write_them(written: str, tmp_path: Path) -> None:
    moments = [FIRST + timedelta(hours=5 * place, minutes=7 * place, seconds=place if "%S" in written else 0) for place in range(120)]
    since = [int(moment.replace(tzinfo=UTC).timestamp()) for moment in moments]
    told = {"seconds": [f"{one}.250" for one in since], "nanoseconds": [f"{one}000000000" for one in since]}
    times = told.get(written) or [moment.strftime(written) for moment in moments]
    rows = [f'"{time}",c{place % 7},s{place % 5},1,2.5,{2103807459595387001 + place % 5}' for place, time in enumerate(times)]
    (tmp_path / "orders.csv").write_text("\n".join(["created_at,customer_id,sku,quantity,price,category_id", *rows]) + "\n", encoding="utf-8")
    store = started(tmp_path)
    assert columns(store, "items") == {"item_id": "sku", "category": "category_id"}
    report = checked(store, 60)
    early = timedelta(hours=2 if "+0200" in written else 0)
    expected = f"{moments[0] - early:%Y-%m-%d %H:%M} to {moments[-1] - early:%Y-%m-%d %H:%M}, UTC"
    assert report.is_ok and source(report, "events").clean == 120 and source(report, "events").facts["times"] == expected


def test_headlines_of_reviews_are_no_titles_of_items(tmp_path: Path) -> None:
    rows = [
        f"{place},{FIRST + timedelta(hours=place)},p{place % 9},c{place % 31},{1 + place % 5},Headline {place},Brand {place % 9 % 2},"
        "A long text about it"
        for place in range(120)
    ]
    head = "review_id,created_at,product_handle,reviewer_email,rating,title,brand,body"
    (tmp_path / "reviews.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    store = started(tmp_path)
    assert columns(store, "events")["item_id"] == "product_handle"
    assert set(columns(store, "items")) == {"item_id", "brand"}


@pytest.mark.parametrize("told", ["sku", "product_id"])
def test_catalogue_and_orders_are_joined_by_the_ids_they_share(told: str, tmp_path: Path) -> None:
    rows = [
        f"{place},{FIRST + timedelta(hours=place)},c{place % 9},{f'S{place % 7}' if told == 'sku' else 50 + place % 7},1,2.5"
        for place in range(90)
    ]
    (tmp_path / "orders.csv").write_text("\n".join([f"order_id,created_at,customer_id,{told},quantity,price", *rows]) + "\n")
    (tmp_path / "products.csv").write_text("id,sku,name,cost\n" + "".join(f"{50 + place},S{place},Tea {place},1.5\n" for place in range(9)))
    store = started(tmp_path)
    assert (columns(store, "events")["item_id"], columns(store, "items")["item_id"]) == (told, "sku" if told == "sku" else "id")


def test_words_for_nothing_are_no_values(tmp_path: Path) -> None:
    rows = [
        f"{FIRST + timedelta(hours=place)},c{place % 7},s{place % 5},{'NULL' if place % 3 else 'blue'},{'NULL' if place % 9 else '1.5'},NULL"
        for place in range(60)
    ]
    (tmp_path / "orders.csv").write_text("\n".join(["created_at,customer_id,sku,brand,price,channel", *rows]) + "\n")
    store = started(tmp_path)
    assert columns(store, "events")["unit_price"] == "nullif(price, 'NULL')" and "channel" not in columns(store, "events")
    assert columns(store, "items")["brand"] == "nullif(brand, 'NULL')"
    assert source(checked(store, 90), "events").clean == 60


def test_shopify_orders(tmp_path: Path) -> None:
    """'Name' numbers orders there, it names no item."""
    rows = [
        f"#{1000 + place},u{place % 9}@example.org,paid,2026-03-0{1 + place % 9} 10:00:00 +0100,1,Mug {place % 5},12.50,MUG-{place % 5},Acme"
        for place in range(60)
    ]
    header = "Name,Email,Financial Status,Created at,Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku,Vendor"
    (tmp_path / "orders_export.csv").write_text("\n".join([header, *rows]), encoding="utf-8")
    found = recognised(tmp_path)
    assert (found["events"]["order_id"], found["events"]["user_id"], found["events"]["item_id"]) == (
        "Name",
        "Email",
        '"Lineitem sku"',
    )
    assert found["items"] == {"item_id": '"Lineitem sku"', "title": '"Lineitem name"', "brand": "Vendor"}


def test_chinese_headers_and_event_words(tmp_path: Path) -> None:
    rows = [
        f"{place % 9},{place % 7},{('浏览', '加购', '购买')[place % 3]},2026/03/0{1 + place % 9} 10:00:00" for place in range(60)
    ]
    (tmp_path / "行为.csv").write_text("\n".join(["用户id,商品id,行为类型,时间", *rows]), encoding="utf-8")
    events = recognised(tmp_path)["events"]
    assert (events["user_id"], events["item_id"], events["event_at"]) == ('"用户id"', '"商品id"', '"时间"')
    assert "'购买' THEN 'purchase'" in events["event_type"]


def test_things_with_ids_of_another_name(tmp_path: Path) -> None:
    """Films, books, songs: a column that ends as ids do and means nothing else is what people rated."""
    (tmp_path / "ratings.csv").write_text(
        "\n".join(
            [
                "userId,movieId,rating,timestamp",
                *(f"{place % 9},{place % 20},{1 + place % 5},{1_600_000_000 + place * 999}" for place in range(80)),
            ]
        ),
        encoding="utf-8",
    )
    (tmp_path / "movies.csv").write_text(
        "\n".join(["movieId,title,genres", *(f"{place},Film {place},Drama|War" for place in range(20))]), encoding="utf-8"
    )
    found = recognised(tmp_path)
    assert found["events"]["item_id"] == "movieId" and found["events"]["event_type"] == "'review'"
    assert found["items"] == {"item_id": "movieId", "title": "title"}


def test_orders_and_their_lines_in_two_files_are_said_to_belong_together(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text(
        "\n".join(
            [
                "order_id,customer_id,created_at",
                *(f"o{place},c{place % 9},2026-03-0{1 + place % 9} 10:00:00" for place in range(60)),
            ]
        ),
        encoding="utf-8",
    )
    (tmp_path / "order_lines.csv").write_text(
        "\n".join(
            ["order_id,sku,price,shipped_at", *(f"o{place},s{place % 5},9.90,2026-03-0{1 + place % 9}" for place in range(60))]
        ),
        encoding="utf-8",
    )
    started(tmp_path)
    assert "join them by order" in (tmp_path / "store.yaml").read_text(encoding="utf-8")


# --- what is refused, and how it is said ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"1,2,2026-03-01\n3,4,2026-03-02\n", "no header line"),
        ("a.csv", b"user_id,item_id,colour\nu,i,red\nv,j,blue\n", "no column of dates or times"),
        ("a.json", b'{"orders": [\n{"user_id": "u"}\n, {\n"user_id": "v"}], "next": 2}', r"around orders: .* jq -c '\.orders\[\]' FILE"),
        ("a.json", b'{"orders": [\n{"user_id": "u"}\n, {\n"user_id": "v"', "neither one object per line nor one array"),
        ("a.csv", b"", "an empty file"),
        ("a.csv", b"user_id,user_id,event_time\nu,u,2026-03-01\n", "appears twice"),
        ("a.zip", b"PK", "an archive"),
        ("a.csv.gz", gzip.compress(b"user_id,item_id\n" * 999, mtime=0)[:-20], "damaged"),
    ],
)
def test_files_that_can_be_no_input_are_named_with_what_to_do(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StoreError, match=said):
        started(tmp_path)
    assert not (tmp_path / "store.yaml").exists()


@example(b"{}")
@settings(deadline=None, max_examples=80)
@given(
    st.one_of(
        st.binary(max_size=400),
        st.text(max_size=400).map(str.encode),
        st.text(alphabet='ab,;"{}\n1-:', max_size=300).map(str.encode),
    )
)
def test_any_content_is_looked_at_without_a_crash(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.csv", "b.jsonl", "c.parquet", "d.tsv.gz"):
            (Path(folder) / name).write_bytes(content)
        found = look_into(Path(folder))
        for files in found.sets:
            blocks_of(files)


def test_nothing_is_overwritten_unless_told(tmp_path: Path) -> None:
    millisecond_clicks(tmp_path)
    started(tmp_path)
    (tmp_path / "store.yaml").write_text("mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match="kept"):
        started(tmp_path)
    assert (tmp_path / "store.yaml").read_text(encoding="utf-8") == "mine"
    init_store(tmp_path, None, quiet, overwrite=True, today=TODAY)
    assert load_store(tmp_path / "store.yaml").sources


def test_what_the_engine_wrote_beside_the_store_is_no_export(tmp_path: Path) -> None:
    millisecond_clicks(tmp_path)
    (tmp_path / "warehouse.duckdb").write_bytes(b"x")
    pl.DataFrame({"table_name": ["x"], "partition_date": [date(2026, 3, 1)]}).write_parquet(tmp_path / "ledger.parquet")
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "plan.csv").write_text("created_at,user_id,item_id\n2026-03-01,u,i\n", encoding="utf-8")
    assert [files.pattern for files in look_into(tmp_path).sets] == ["events.csv"]


def test_rows_of_no_day_of_the_shop_are_held_against_the_rows_of_all_days(tmp_path: Path) -> None:
    """They land on the first day, which is always read: few of many thousand once made half of the rows read, and check-store failed."""
    rows = [f"{date(2026, 3, 2) + timedelta(days=3 * k)},u{k % 7},p{k % 5},2" for k in range(400)]
    strays = [f"2019-01-{k + 1:02d},u1,p1,2" for k in range(2)]
    (tmp_path / "orders.csv").write_text("\n".join(["date,customer,sku,qty", *rows, *strays]) + "\n")
    store = started(tmp_path)
    report = checked(store, 3)
    events = source(report, "events")
    assert report.is_ok and (events.rows, events.clean, events.strays, events.total) == (5, 3, 2, 402)
    assert [(window[0], (window[1] - window[0]).days) for window in report.read] == [(date(2026, 3, 2), 3), (date(2029, 6, 11), 0)]
    (tmp_path / "orders.csv").write_text("\n".join(["date,customer,sku,qty", *rows, *strays * 15]) + "\n")
    report = checked(store, 3)
    assert "7.0% of the rows are refused" in report.problems[0]


def test_check_counts_refused_rows_by_reason_with_file_and_row(tmp_path: Path) -> None:
    rows = [f"2026-03-0{1 + place % 3} 10:00:{place % 60:02},u{place},i,{place + 1}" for place in range(50)]
    rows[4] = "2026-03-01 10:00:00,u,i,many"
    rows[7] = "2026-03-01 10:00:00,u,i,few"
    rows[9] = "2026-03-01 10:00:00,u,,1"
    rows[11] = rows[10]
    (tmp_path / "sales.csv").write_text("at,customer_id,sku,qty\n" + "\n".join(rows) + "\n", encoding="utf-8")
    (tmp_path / "store.yaml").write_text(
        "name: s\ntimezone: UTC\ncurrency: EUR\nfirst_day: 2026-03-01\nlast_day: 2026-03-03\nsources:\n  events:\n    files: sales.csv\n"
        "    columns: {event_at: at, user_id: customer_id, event_type: \"'purchase'\", item_id: sku, quantity: qty}\n",
        encoding="utf-8",
    )
    told: list[str] = []
    report = check_store(load_store(tmp_path / "store.yaml"), 9, told.append)
    events = source(report, "events")
    assert (events.rows, events.clean) == (50, 46)
    by_reason = {one.reason: one for one in events.refused}
    assert {reason: one.rows for reason, one in by_reason.items()} == {
        "quantity ... is no whole number": 2,
        "item_id is missing": 1,
        "duplicate": 1,
    }
    assert by_reason["quantity ... is no whole number"].examples == (
        "sales.csv, row 6: quantity 'many'",
        "sales.csv, row 9: quantity 'few'",
    )
    assert not report.is_ok and "8.0% of the rows are refused" in report.problems[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"files": "{date}.csv"}, "no file for 2026-03-03"),
        (
            {"columns": {"event_at": "at", "user_id": "nobody", "event_type": "'view_item'", "item_id": "item"}},
            "column 'nobody' is missing",
        ),
        (
            {"columns": {"event_at": "at", "user_id": "who", "event_kind": "'view_item'", "item_id": "item"}},
            "event_kind is no column",
        ),
        ({"columns": {"user_id": "who", "event_type": "'view_item'", "item_id": "item"}}, "columns.event_at is not mapped"),
        (
            {"columns": {"event_at": "at", "user_id": "who", "event_type": "'seen'", "item_id": "item"}},
            "event_type ... is none of",
        ),
        ({"delimiter": ";"}, "delimiter"),
        ({"files": "none-{date}.csv", "missing_file": "empty"}, "no row landed"),
    ],
)
def test_check_says_what_is_wrong_and_what_to_do(changes: dict[str, object], said: str, tmp_path: Path) -> None:
    for day in ("2026-03-01", "2026-03-02", "2026-03-04"):
        (tmp_path / f"{day}.csv").write_text(f"at,who,item\n{day} 10:00:00,u,i\n{day} 11:00:00,v,j\n", encoding="utf-8")
    block = {
        "files": "{date}.csv",
        "missing_file": "error",
        "columns": {"event_at": "at", "user_id": "who", "event_type": "'view_item'", "item_id": "item"},
    }
    store = Store.model_validate(
        {
            "name": "s",
            "timezone": "UTC",
            "currency": "EUR",
            "first_day": "2026-03-01",
            "last_day": "2026-03-04",
            "data_root": str(tmp_path),
            "sources": {"events": {**block, **changes}},
            "path": tmp_path / "store.yaml",
        }
    )
    report = checked(store, 4)
    assert any(said in problem for problem in report.problems), report.problems


def test_check_reads_first_and_newest_days_only(tmp_path: Path) -> None:
    for day in range(20):
        (tmp_path / f"{date(2026, 3, 1) + timedelta(days=day)}.csv").write_text(
            f"at,who,item\n2026-03-{1 + day:02} 10:00:00,u,i\n", encoding="utf-8"
        )
    store = started_by_hand(tmp_path)
    report = checked(store, 5)
    assert report.read == ((date(2026, 3, 1), date(2026, 3, 3)), (date(2026, 3, 19), date(2026, 3, 20)))
    assert source(report, "events").rows == 5


def started_by_hand(folder: Path) -> Store:
    return Store.model_validate(
        {
            "name": "s",
            "timezone": "UTC",
            "currency": "EUR",
            "first_day": "2026-03-01",
            "data_root": str(folder),
            "path": folder / "store.yaml",
            "sources": {
                "events": {
                    "files": "{date}.csv",
                    "columns": {"event_at": "at", "user_id": "who", "event_type": "'view_item'", "item_id": "item"},
                }
            },
        }
    )


# --- judging names and values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("Customer ID", "customer_id"),
        ("customerId", "customer_id"),
        ("SKUCode", "sku_code"),
        (" reviewerID ", "reviewer_id"),
        ("Amount spent (EUR)", "amount_spent_eur"),
    ],
)
def test_names_are_compared_without_their_spelling(written: str, said: str) -> None:
    assert plain(written) == said


def test_a_name_says_most_where_it_is_the_whole_name() -> None:
    known = ["user_id", "customer_id"]
    assert likeness("UserID", known) > likeness("CustomerID", known) > likeness("shopify_customer_id", known) > 0
    assert likeness("user-item_affinity_0", known) == likeness("customer_city", known) == 0


@pytest.mark.parametrize(
    ("word", "meaning"),
    [("pv", "view_item"), ("AddToCart", "add_to_cart"), ("Order Completed", "purchase"), ("remove_from_cart", ""), ("zzz", None)],
)
def test_words_for_event_types(word: str, meaning: str | None) -> None:
    assert event_type_of(word) == meaning


def test_file_names_speak_of_event_types() -> None:
    assert event_type_in("exports/returns_2026.csv") == "refund"
    assert event_type_in("shop/data.csv") is None


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["2026-03-01 10:00:00", None, "2026-03-02T11:00:00Z"], "instant"),
        (["1772000000", "1772003600"], "epoch"),
        (["1772000000123", "1772003600456"], "epoch"),
        (["20260301", "20260302"], "instant"),
        (["03/14/2026", "03/02/2026"], "instant"),
        (["1", "0", "1"], "boolean"),
        (["17850.0", "13047.0"], "integer"),
        (["£3.40", "£12.00"], "decimal"),
        (["1.234,50", "0,99"], "decimal"),
        (["red", "blue"], "text"),
        (["", None], "empty"),
        (["10:30", "23:59:01"], "clock"),
        (["85123A", "71053"], "text"),
        (["2024.5", "3"], "decimal"),
        ([date(2026, 3, 1)], "instant"),
        ([True, False], "boolean"),
    ],
)
def test_values_tell_what_they_are(values: list[object], kind: str) -> None:
    assert profile_of(values).kind == kind


def test_month_and_day_are_told_apart_by_how_close_the_dates_lie() -> None:
    weekly = [(date(2026, 3, 1) + timedelta(days=place)).strftime("%m/%d/%Y") for place in range(11)]
    found = profile_of(weekly)
    assert (found.time_format, found.is_month_first_unsure) == ("%m/%d/%Y", True)
    assert profile_of([*weekly, "03/31/2026"]).is_month_first_unsure is False


@settings(deadline=None, max_examples=60)
@given(st.decimals(min_value=0, max_value=9_999_999, places=2))
def test_written_amounts_come_back_as_they_were(amount: object) -> None:
    english = f"{amount:,.2f}"
    german = english.replace(",", " ").replace(".", ",").replace(" ", ".")
    assert money_of(f"£{english}", False) == money_of(f"{german} €", True) == float(f"{amount:.2f}")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(10, 1000), min_size=5, max_size=40), st.integers(100, 3000))
def test_a_few_wrong_dates_far_off_do_not_make_the_shop_older(counts: list[int], distance: int) -> None:
    start = date(2020, 1, 1)
    rows = {start + timedelta(days=place): count * 100 for place, count in enumerate(counts)}
    wrong = {start - timedelta(days=distance): 1, start + timedelta(days=len(counts) + distance): 1}
    assert main_stretch({**rows, **wrong}) == (start, start + timedelta(days=len(counts) - 1))


def test_quiet_first_days_of_a_growing_shop_are_kept() -> None:
    rows = {date(2020, 1, 1) + timedelta(days=place): 1 + place * place for place in range(40)}
    assert main_stretch(rows) == (date(2020, 1, 1), date(2020, 2, 9))


# --- public sets ------------------------------------------------------------------------------------------------------

DATA = os.environ.get("MARKETING_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="MARKETING_DATA is not set")

PUBLIC = {
    "online_retail": ("events", ["event_at", "user_id", "event_type", "item_id", "order_id", "quantity", "unit_price"]),
    "rees46": ("events", ["event_at", "user_id", "event_type", "item_id", "session_id", "quantity", "unit_price"]),
    "taobao": ("events", ["event_at", "user_id", "event_type", "item_id", "quantity"]),
    "open_bandit": (
        "impressions",
        ["shown_at", "item_id", "position", "logging_propensity", "is_clicked", "placement_id", "policy_id"],
    ),
    "amazon_reviews": ("events", ["event_at", "user_id", "event_type", "item_id", "rating", "review_text"]),
    "cdnow": ("events", ["event_at", "user_id", "event_type", "item_id", "quantity", "unit_price"]),
    "rossmann": ("events", ["event_at", "event_type", "item_id", "quantity", "unit_price"]),
    "ad_spend": ("ad_reports", ["date", "clicks", "impressions", "creative_id", "campaign_id", "conversions", "spend"]),
}


@needs_data
@pytest.mark.parametrize("name", ["rees46", "taobao", "online_retail", "open_bandit", "cdnow", "ad_spend"])
def test_public_sets_are_understood(name: str, tmp_path: Path) -> None:
    store = started(Path(str(DATA)) / name, tmp_path / "store.yaml")
    wanted, mapped = PUBLIC[name]
    assert list(columns(store, wanted)) == mapped
    if name in ("rees46", "online_retail", "ad_spend"):  # reading the others twice takes long and shows nothing new
        report = checked(store, 2)
        assert report.is_ok, report.problems
        assert source(report, wanted).clean > 0


@needs_data
@pytest.mark.parametrize("name", ["amazon_reviews", "rossmann"])
def test_larger_public_sets_are_recognised(name: str) -> None:
    (files,) = look_into(Path(str(DATA)) / name).sets
    wanted, mapped = PUBLIC[name]
    block = blocks_of(files)[0]
    assert (block.source, [one.contract for one in block.columns]) == (wanted, mapped)


@needs_data
@pytest.mark.parametrize("name", ["hillstrom", "ipinyou", "amazon_sequences"])
def test_public_sets_that_are_no_shop_are_refused_with_a_reason(name: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nothing that could be an input"):
        started(Path(str(DATA)) / name, tmp_path / "store.yaml")


@needs_data
@pytest.mark.parametrize("name", ["online_retail", "rees46"])
def test_the_ready_stores_check_out(name: str) -> None:
    assert checked(load_store(REPOSITORY_ROOT / "data" / "stores" / name / "store.yaml"), 1).is_ok
