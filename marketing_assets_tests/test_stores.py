"""The ready store files on the real files they are for: every row accounted for, and the traits the publishers describe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
import polars as pl
import pytest

from marketing_assets.cleaning import build_cleaning
from marketing_assets.config import CONTROL_INPUTS, REPOSITORY_ROOT, Store, load_store
from marketing_assets.sources import build_sources
from marketing_assets.warehouse import Reader, Warehouse, days_between

STORES = ("online_retail", "taobao", "rees46", "open_bandit")
CLEAN = ("clean_events", "clean_impressions", "attributed_conversions", "rejected_rows")
needs_data = pytest.mark.skipif(
    "MARKETING_DATA" not in os.environ, reason="MARKETING_DATA is not set: the public sets are not here"
)


def path_of(name: str) -> Path:
    return REPOSITORY_ROOT / "data" / "stores" / name / "store.yaml"


@dataclass(frozen=True)
class Shop:
    store: Store
    reader: Reader
    last: date

    def rows(self, table: str) -> pl.DataFrame:
        return self.reader.window(table, None, self.last)


def built(name: str) -> Iterator[Shop]:
    store = load_store(path_of(name))
    assert store.last_day is not None
    days = days_between(store.first_day, store.last_day)
    connection = duckdb.connect(":memory:", config={"threads": "2"})
    warehouse = Warehouse(connection, store, None)
    for source in (*store.sources, *CONTROL_INPUTS):
        with warehouse.transaction():
            warehouse.replace_window("s", [f"raw_{source}"], days, build_sources(warehouse.reader(days[-1]), days, store, source))
    with warehouse.transaction():
        warehouse.replace_window("c", CLEAN, days, build_cleaning(warehouse.reader(days[-1]), days, store))
    yield Shop(store, warehouse.reader(days[-1]), days[-1])
    connection.close()


@pytest.fixture(scope="module")
def online_retail() -> Iterator[Shop]:
    yield from built("online_retail")


@pytest.mark.parametrize("name", STORES)
def test_store_files_are_valid_wherever_the_data_lies(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MARKETING_DATA", str(tmp_path))
    store = load_store(path_of(name))
    assert store.name == name
    assert store.data_folder == tmp_path / name


def assert_all_accounted(shop: Shop, source: str, total: int) -> None:
    """raw = clean + rejected on every day."""
    raw = shop.rows(f"raw_{source}")
    assert raw.height == total
    refused = shop.rows("rejected_rows").filter(pl.col("source") == source)
    after = pl.concat(
        [shop.rows(f"clean_{source}").select("landed_date", "raw_row_id"), refused.select("landed_date", "raw_row_id")]
    )
    assert after.sort("landed_date", "raw_row_id").equals(
        raw.select("landed_date", "raw_row_id").sort("landed_date", "raw_row_id")
    )


@needs_data
def test_online_retail_accounts_for_every_row(online_retail: Shop) -> None:
    assert_all_accounted(online_retail, "events", 398_867)
    refused = online_retail.rows("rejected_rows").filter(pl.col("source") == "events")
    kinds = refused.group_by(pl.col("reason").str.extract(r"^(\w+)")).len().sort("len", descending=True)
    assert dict(kinds.iter_rows()) == {"duplicate": 3197, "event_type": 2076, "unit_price": 2}


@needs_data
def test_online_retail_events(online_retail: Shop) -> None:
    events = online_retail.rows("clean_events")
    assert set(events["event_type"]) == {"purchase", "refund"}
    assert events["landed_date"].equals(events["event_date"])
    refunds = events.filter(pl.col("event_type") == "refund")
    assert refunds["order_id"].str.starts_with("C").all()
    assert (refunds["revenue"] <= 0).all() and (events["quantity"] > 0).all()
    known = refunds.filter(pl.col("user_id").is_not_null(), ~pl.col("is_service"))
    assert known["refunds_event_id"].is_not_null().mean() > 0.7
    purchases = events.filter(pl.col("event_type") == "purchase").select("event_id", "user_id", "item_id", "event_at", "quantity")
    pairs = refunds.join(purchases, left_on="refunds_event_id", right_on="event_id", how="inner", suffix="_bought")
    assert pairs.height == refunds["refunds_event_id"].count()
    assert pairs.filter(
        (pl.col("user_id") != pl.col("user_id_bought"))
        | (pl.col("item_id") != pl.col("item_id_bought"))
        | (pl.col("event_at") < pl.col("event_at_bought"))
        | (pl.col("quantity") > pl.col("quantity_bought"))
    ).is_empty()
    assert not events["user_id"].drop_nulls().str.contains(r"\.").any()
    assert set(events.filter("is_service")["item_id"]) >= {"POST", "DOT", "M", "C2", "D", "BANK CHARGES", "AMAZONFEE", "CRUK"}
    assert events.filter("is_service")["item_id"].str.contains(r"^\d{5}").sum() == 0
    assert 0.2 < events["user_id"].is_null().mean() < 0.3
    first = events.filter(pl.col("order_id") == "536365").sort("item_id").row(0, named=True)
    assert (first["item_id"], first["user_id"], str(first["revenue"]), str(first["event_at"])) == (
        "21730", "17850", "25.5000", "2010-12-01 08:26:00",
    )  # fmt: skip
    summer = events.filter(pl.col("landed_date") == date(2011, 7, 1))["event_at"].dt.hour().min()
    assert summer is not None and summer < 8  # London is an hour ahead of UTC then


@needs_data
def test_online_retail_items_have_titles(online_retail: Shop) -> None:
    items = online_retail.reader.accepted("items", None, online_retail.last)
    sold = online_retail.rows("clean_events").filter(pl.col("event_type") == "purchase")["item_id"].unique()
    titled = items.filter(pl.col("title").is_not_null())["item_id"]
    assert sold.is_in(titled.implode()).mean() > 0.999


@needs_data
def test_taobao() -> None:
    for shop in built("taobao"):
        assert_all_accounted(shop, "events", 84_476)
        refused = shop.rows("rejected_rows")
        assert refused.height == 36
        assert set(refused["landed_date"]) == {date(2017, 11, 25)}
        events = shop.rows("clean_events")
        assert dict(events.group_by("event_type").len().iter_rows()) == {
            "view_item": 75_837, "add_to_wishlist": 2_356, "purchase": 1_750, "add_to_cart": 4_497,
        }  # fmt: skip
        assert events["user_id"].n_unique() == 815
        assert (events["landed_date"].min(), events["landed_date"].max()) == (date(2017, 11, 25), date(2017, 12, 3))
        assert shop.reader.accepted("items", None, shop.last)["category"].null_count() == 0


@needs_data
def test_rees46() -> None:
    for shop in built("rees46"):
        assert_all_accounted(shop, "events", 17_434)
        events = shop.rows("clean_events")
        assert shop.rows("rejected_rows")["reason"].to_list() == ["duplicate"] * 5
        given = shop.rows("raw_events").select("raw_row_id", given="session_id")
        assert events.join(given, on="raw_row_id").filter(pl.col("session_id") != pl.col("given")).is_empty()
        items = shop.reader.accepted("items", None, shop.last)
        assert items.filter(pl.col("item_id") == "3900821").select("category", "brand").row(0) == (
            "appliances.environment.water_heater", "aqua",
        )  # fmt: skip


@needs_data
def test_open_bandit() -> None:
    for shop in built("open_bandit"):
        assert_all_accounted(shop, "impressions", 20_000)
        shown = shop.rows("clean_impressions")
        assert dict(shown.group_by("policy_id").len().iter_rows()) == {"random": 10_000, "bts": 10_000}
        random = shown.filter(pl.col("policy_id") == "random")
        assert random["logging_propensity"].n_unique() == 1
        assert abs(float(random["logging_propensity"][0]) - 1 / 46) < 1e-9
        assert set(shown["placement_id"]) == {"position_1", "position_2", "position_3"}
        assert 0.002 < shown["is_clicked"].mean() < 0.01  # type: ignore[operator]
        assert shown["context"].str.json_path_match("$.user_feature_0").null_count() == 0
        assert shown["impression_date"].max() == date(2019, 12, 1)  # Tokyo is nine hours ahead of the log
        assert shop.rows("clean_events").is_empty()
