"""Sources: every layout is read, every physical row ends up somewhere, nothing breaks without a named cause."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marketing_assets.config import Store
from marketing_assets.sources import SourceError, build_sources, chunks, file_fingerprint, landing_days
from marketing_assets.sources.mapping import parse
from marketing_assets.warehouse import Warehouse, days_between, open_warehouse

FIRST = date(2026, 3, 1)
HEADER = "at,who,what,item,price\n"
COLUMNS = {"event_at": "at", "user_id": "who", "event_type": "what", "item_id": "item", "unit_price": "price"}


def store_at(folder: Path, blocks: Any = None, source: str = "events", **changes: Any) -> Store:
    blocks = blocks or {"files": "{date}.csv", "columns": COLUMNS}
    values = {
        "name": "test",
        "timezone": "Europe/London",
        "currency": "GBP",
        "first_day": FIRST,
        "last_day": FIRST + timedelta(days=9),
        "data_root": str(folder),
        "sources": {source: blocks},
        "path": folder / "store.yaml",
    }
    return Store.model_validate(values | changes)


def land(store: Store, days: Sequence[date] = (FIRST,), source: str = "events") -> pl.DataFrame:
    """The raw table after publishing the window, in order of file and row."""
    connection = duckdb.connect(":memory:", config={"threads": "2"})
    warehouse = Warehouse(connection, store, None)
    built = build_sources(warehouse.reader(days[-1]), days, store, source)
    with warehouse.transaction():
        warehouse.replace_window("sources", [f"raw_{source}"], days, built)
    rows = warehouse.reader(days[-1]).window(f"raw_{source}", None, days[-1]).sort("landed_date", "source_file", "source_row")
    connection.close()
    return rows


def csv_file(folder: Path, content: str | bytes, name: str = "2026-03-01.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


GOOD = "2026-03-01 10:00:00,u,view_item,i,1.50\n"

# --- layouts ----------------------------------------------------------------------------------------------------------

ROWS = [
    {"at": "2026-03-01 10:00:00", "who": "u", "what": "view_item", "item": "i", "price": "1.50"},
    {"at": "2026-03-01 11:00:00", "who": None, "what": "purchase", "item": "j", "price": "2.00"},
]


def as_csv(delimiter: str = ",") -> str:
    return "".join(
        delimiter.join(row[name] or "" for name in COLUMNS.values()) + "\n"
        for row in [dict(zip(ROWS[0], ROWS[0], strict=True)), *ROWS]
    )


def as_json() -> str:
    return "".join(json.dumps(row) + "\n" for row in ROWS)


def zstd(text: str) -> bytes:
    return bytes(pa.compress(text.encode(), codec="zstd", asbytes=True))


LAYOUTS: dict[str, tuple[str, Mapping[str, Any], bytes]] = {
    "csv": ("{date}.csv", {}, as_csv().encode()),
    "windows line ends and byte order mark": ("{date}.csv", {}, b"\xef\xbb\xbf" + as_csv().replace("\n", "\r\n").encode()),
    "no line end at the end": ("{date}.csv", {}, as_csv().rstrip("\n").encode()),
    "gzip": ("{date}.csv.gz", {}, gzip.compress(as_csv().encode())),
    "two gzip members": ("{date}.csv.gz", {}, gzip.compress(as_csv()[:40].encode()) + gzip.compress(as_csv()[40:].encode())),
    "zstd": ("{date}.csv.zst", {}, zstd(as_csv())),
    "semicolons": ("{date}.txt", {"delimiter": ";"}, as_csv(";").encode()),
    "tabs": ("{date}.tsv", {"delimiter": "\t"}, as_csv("\t").encode()),
    "utf-16": ("{date}.csv", {"encoding": "utf-16"}, as_csv().encode("utf-16")),
    "latin-1": ("{date}.csv", {"encoding": "latin-1"}, as_csv().encode("latin-1")),
    "no header line": ("{date}.csv", {"header": list(COLUMNS.values())}, as_csv().partition("\n")[2].encode()),
    "json": ("{date}.jsonl", {"format": "json"}, as_json().encode()),
    "json, gzip": ("{date}.jsonl.gz", {"format": "json"}, gzip.compress(as_json().encode())),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path: Path, name: str) -> None:
    pattern, options, content = LAYOUTS[name]
    (tmp_path / pattern.replace("{date}", "2026-03-01")).write_bytes(content)
    rows = land(store_at(tmp_path, {"files": pattern, "columns": COLUMNS, **options}))
    assert rows.select("event_at", "user_id", "event_type", "item_id", "unit_price").rows() == [
        tuple(row[name] for name in COLUMNS.values()) for row in ROWS
    ]
    first = 1 if "json" in name or "no header" in name else 2
    assert rows["source_row"].to_list() == [first, first + 1]
    assert rows["source_file"].to_list() == [pattern.replace("{date}", "2026-03-01")] * 2
    assert rows["source_error"].null_count() == 2


def test_days_of_the_market_take_numbers_of_the_shops_own(tmp_path: Path) -> None:
    csv_file(tmp_path, "day,school,rain\n2026-03-02,1,0.5\n2026-03-03,,\n", "days.csv")
    own = {"date": "day", "school_holiday": "school", "rain_mm": "TRY_CAST(rain AS DOUBLE) * 10 -- of a gauge in cm"}
    rows = land(store_at(tmp_path, {"files": "days.csv", "columns": own}, "market_days"), source="market_days")
    assert [json.loads(text) for text in rows["further"]] == [{"school_holiday": "1", "rain_mm": "5.0"}, {"school_holiday": None, "rain_mm": None}]
    inline = {"rows": [{"date": "2026-03-02", "school_holiday": 1}, {"date": "2026-03-03", "is_holiday": True}]}
    rows = land(store_at(tmp_path, inline, "market_days"), source="market_days")
    assert rows.select("further", "is_holiday").rows() == [('{"school_holiday": 1}', None), (None, "true")]
    with pytest.raises(SourceError, match="'School Holiday' is no name for a column of your own"):
        land(store_at(tmp_path, {"files": "days.csv", "columns": {"date": "day", "School Holiday": "school"}}, "market_days"), source="market_days")
    with pytest.raises(SourceError, match="school is kept in 'further', which is mapped as well"):
        both = {"date": "day", "school": "school", "further": "json_object('a', 1)"}
        land(store_at(tmp_path, {"files": "days.csv", "columns": both}, "market_days"), source="market_days")
    with pytest.raises(SourceError, match=r"columns\.school: 'school \+' is no SQL expression"):
        land(store_at(tmp_path, {"files": "days.csv", "columns": {"date": "day", "school": "school +"}}, "market_days"), source="market_days")


def test_parquet_keeps_types_and_zones(tmp_path: Path) -> None:
    frame = pl.DataFrame({"ts": [1_772_359_200, None], "who": [7, 8], "price": [float("nan"), 1.5]})
    frame.write_parquet(tmp_path / "all.parquet")
    columns = {"event_at": "to_timestamp(ts)", "user_id": "who", "unit_price": "price", "event_type": "'view_item'"}
    rows = land(store_at(tmp_path, {"files": "all.parquet", "format": "parquet", "columns": columns}))
    assert rows.select("event_at", "user_id", "unit_price", "event_type", "source_row").rows() == [
        ("2026-03-01 10:00:00+00", "7", "nan", "view_item", 1),
        (None, "8", "1.5", "view_item", 2),
    ]


def test_parquet_types_may_change_from_some_day_on(tmp_path: Path) -> None:
    """Whole amounts first: the later ones were rounded, in a range and not day by day. A day without rows has columns of no type."""
    days = days_between(FIRST, FIRST + timedelta(days=3))
    kinds = [({"who": pl.Int64, "price": pl.Int64}, [(7, 2)]), ({"who": pl.Null, "price": pl.Null}, []),
             ({"who": pl.String, "price": pl.Float64}, [("u", 1.5)]), ({"who": pl.Null, "price": pl.Float64}, [(None, 2.5)])]  # fmt: skip
    for day, (schema, rows) in zip(days, kinds, strict=True):
        pl.DataFrame(rows, schema=schema, orient="row").write_parquet(tmp_path / f"{day}.parquet")
    columns = {"event_at": "'2026-03-01 10:00:00'", "user_id": "who", "unit_price": "price", "event_type": "'view_item'"}
    store = store_at(tmp_path, {"files": "{date}.parquet", "format": "parquet", "columns": columns})
    rows = land(store, days)
    assert rows.select("user_id", "unit_price").rows() == [("7", "2"), ("u", "1.5"), (None, "2.5")]
    assert rows.rows() == [row for day in days for row in land(store, [day]).rows()]


def test_an_expression_that_fails_is_told_inside_a_run(tmp_path: Path) -> None:
    """The broken transaction refused the next setting, and the message spoke of that."""
    csv_file(tmp_path, HEADER + GOOD)
    store = store_at(tmp_path, {"files": "{date}.csv", "columns": {**COLUMNS, "quantity": "CAST(who AS INTEGER)"}})
    with open_warehouse(store) as warehouse, pytest.raises(SourceError, match="Could not convert string 'u' to INT32"), warehouse.transaction():
        build_sources(warehouse.reader(FIRST), [FIRST], store, "events")


def test_columns_may_move_from_some_day_on(tmp_path: Path) -> None:
    csv_file(tmp_path, HEADER + GOOD)
    csv_file(tmp_path, "extra,price,item,what,who,at\n?,9,i,purchase,u,2026-03-02 10:00:00\n", "2026-03-02.csv")
    rows = land(store_at(tmp_path), days_between(FIRST, FIRST + timedelta(days=1)))
    assert rows["unit_price"].to_list() == ["1.50", "9"]


def test_several_blocks_and_conditions(tmp_path: Path) -> None:
    """One file over two tables; a row for which the condition cannot be decided is lost to neither."""
    csv_file(tmp_path, "kind,item,at\nevent,i,2026-03-01\nitem,j,\n,k,2026-03-01\n")
    event_block = {"files": "{date}.csv", "where": "kind = 'event'", "columns": {"event_at": "at", "item_id": "item"}}
    item_blocks = [
        {"files": "{date}.csv", "where": "kind = 'item'", "columns": {"item_id": "item"}},
        {"rows": [{"item_id": "x", "title": "Inline", "unit_price": 2.5}]},
    ]
    store = store_at(tmp_path, event_block).model_copy()
    store = Store.model_validate(
        {**store.model_dump(), "sources": {"events": event_block, "items": item_blocks}, "path": store.path}
    )
    assert land(store)["item_id"].to_list() == ["i", "k"]
    items = land(store, source="items")
    assert sorted(items["item_id"]) == ["j", "k", "x"]
    assert items.filter(pl.col("item_id") == "x")["unit_price"].to_list() == ["2.5"]


def test_the_file_name_is_a_column(tmp_path: Path) -> None:
    csv_file(tmp_path, HEADER + GOOD, "web-2026-03-01.csv")
    csv_file(tmp_path, HEADER + GOOD, "app-2026-03-01.csv")
    columns = {**COLUMNS, "channel": "regexp_extract(source_file, '^[a-z]+')"}
    assert land(store_at(tmp_path, {"files": "*-{date}.csv", "columns": columns}))["channel"].to_list() == ["app", "web"]


# --- landed day -------------------------------------------------------------------------------------------------------


def test_undated_files_land_on_the_shop_local_day(tmp_path: Path) -> None:
    """null, unreadable and outside days land on first_day; London summer time begins on 2026-03-29."""
    times = {
        "2026-03-30 23:30:00": 29,
        "2026-03-29 23:30:00Z": 29,
        "2026-03-29 22:30:00Z": 28,
        "": 0,
        "soon": 0,
        "2025-01-01": 0,
        "2026-05-01 00:00:00": 0,
        "9999-12-31 00:00:00": 0,
        "2026-04-30 12:00:00": 60,
    }
    csv_file(tmp_path, HEADER + "".join(f"{time},u,view_item,{number},1\n" for number, time in enumerate(times)), "all.csv")
    store = store_at(tmp_path, {"files": "all.csv", "columns": COLUMNS}, last_day=date(2026, 4, 30))
    days = days_between(FIRST, date(2026, 4, 30))
    whole = land(store, days)
    found = dict(whole.select("item_id", "landed_date").iter_rows())
    assert found == {str(number): FIRST + timedelta(days=day) for number, day in enumerate(times.values())}
    parts = pl.concat([land(store, days[:29]), land(store, days[29:30]), land(store, days[30:])])
    assert whole.equals(parts.sort("landed_date", "source_file", "source_row"))


def test_inputs_without_a_date_land_on_the_first_day(tmp_path: Path) -> None:
    store = store_at(tmp_path, {"rows": [{"campaign_id": "c", "start_date": date(2026, 3, 5), "budget": 10}]}, source="campaigns")
    assert land(store, source="campaigns")["start_date"].to_list() == ["2026-03-05"]
    assert land(store, [FIRST + timedelta(days=1)], source="campaigns").height == 0


def test_control_files_are_always_mapped(tmp_path: Path) -> None:
    folder = tmp_path / "control" / "refit_requests"
    folder.mkdir(parents=True)
    (folder / "2026-03-01.csv").write_text("requested_for_date,asset,action,reason\n2026-03-01,ad_plan,refit,drift\n")
    csv_file(tmp_path, HEADER)
    store = store_at(tmp_path)
    rows = land(store, days_between(FIRST, FIRST + timedelta(days=2)), "refit_requests")
    assert rows.select("landed_date", "asset", "action", "reason", "model_version").rows() == [
        (FIRST, "ad_plan", "refit", "drift", None)
    ]
    assert land(store, source="plan_overrides").height == 0


# --- lists, and days in parts -----------------------------------------------------------------------------------------

ORDERS: list[dict[str, Any]] = [
    {"id": place, "at": f"2026-03-01 1{place}:00:00", "who": {"id": f"u{place % 2}"}, "order": {"lines": [
        {"sku": f"s{line}", "price": "1.50"} for line in range(lines)
    ]}}
    for place, lines in enumerate((2, 0, 3, 1))
]  # fmt: skip
UNROLLED = {
    "event_at": "at", "user_id": "source_line ->> '$.who.id'", "event_type": "'purchase'", "order_id": "id",
    "item_id": "source_element ->> '$.sku'", "unit_price": "source_element ->> '$.price'",
}  # fmt: skip
LINES = [
    ("u0", "0", "s0", 1), ("u0", "0", "s1", 1), ("u1", "1", None, 2), ("u0", "2", "s0", 3), ("u0", "2", "s1", 3), ("u0", "2", "s2", 3),
    ("u1", "3", "s0", 4),
]  # fmt: skip
"""By hand: who, order, item and the line of the file, an order without lines being a row as well."""


def unrolled(folder: Path, name: str, content: bytes, **changes: Any) -> Store:
    (folder / name.replace("{date}", "2026-03-01")).write_bytes(content)
    return store_at(folder, {"files": name, "format": "json", "unroll": "order.lines", "columns": UNROLLED, **changes})


def objects(rows: Sequence[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def by_line(rows: pl.DataFrame) -> list[Any]:
    return rows.sort("source_row", "item_id").select("user_id", "order_id", "item_id", "source_row").rows()


@pytest.mark.parametrize("layout", ["lines", "array", "indented array", "array, gzip"])
def test_lists_are_unrolled_row_by_row(tmp_path: Path, layout: str) -> None:
    content = objects(ORDERS) if layout == "lines" else json.dumps(ORDERS, indent=2 if "indented" in layout else None).encode()
    name = "{date}.json.gz" if "gzip" in layout else "{date}.json"
    rows = land(unrolled(tmp_path, name, gzip.compress(content) if "gzip" in layout else content))
    assert by_line(rows) == LINES
    assert rows["raw_row_id"].n_unique() == rows["row_hash"].n_unique() == len(LINES) and rows["source_error"].null_count() == len(LINES)


def test_lists_of_parquet_are_unrolled_as_those_of_json(tmp_path: Path) -> None:
    pq = pa.Table.from_pylist(ORDERS)
    pa.parquet.write_table(pq, tmp_path / "2026-03-01.parquet")
    columns = UNROLLED | {"user_id": "who.id", "item_id": "source_element.sku", "unit_price": "source_element.price"}
    blocks = {"files": "{date}.parquet", "format": "parquet", "unroll": "order.lines", "columns": columns}
    assert by_line(land(store_at(tmp_path, blocks))) == LINES
    refused(store_at(tmp_path, {**blocks, "unroll": "order.items"}), "2026-03-01.parquet", "no list 'order.items'", "The file has: id, at")


def test_broken_lines_move_no_line_of_a_list(tmp_path: Path) -> None:
    broken = objects(ORDERS[:1]) + b'{"id": \n[1, 2]\n\xff\xfe{"id": 5}\n' + objects(ORDERS[1:])
    rows = land(unrolled(tmp_path, "{date}.json", broken))
    good = rows.filter(pl.col("source_error").is_null())
    assert by_line(good) == [(*row[:3], row[3] + 3 * (row[3] > 1)) for row in LINES]
    bad = rows.filter(pl.col("source_error").is_not_null()).sort("source_row")
    assert bad["source_row"].to_list() == [2, 3, 4]
    for row, said in zip(bad["source_error"], ("no valid JSON", "found ARRAY", "not valid UTF-8"), strict=True):
        assert said in row


def test_an_order_told_again_has_the_ids_it_had_and_equal_lines_are_two_rows(tmp_path: Path) -> None:
    twice = {**ORDERS[0], "order": {"lines": [{"sku": "s0", "price": "1"}] * 2}}
    rows = land(unrolled(tmp_path, "{date}.json", objects([twice, twice]))).sort("source_row")
    assert rows["raw_row_id"].n_unique() == 4 and rows["row_hash"].n_unique() == 2
    assert sorted(rows["row_hash"][:2]) == sorted(rows["row_hash"][2:])


def test_conditions_leave_out_rows_without_elements_and_scalars_are_elements_too(tmp_path: Path) -> None:
    content = objects([{**ORDERS[0], "order": {"lines": ["a", "b"]}}, ORDERS[1], {**ORDERS[2], "order": {"lines": "none"}}, {"at": "2026-03-01"}])
    store = unrolled(tmp_path, "{date}.json", content, columns=UNROLLED | {"item_id": "source_element ->> '$'"}, where="source_element IS NOT NULL")
    assert by_line(land(store)) == [("u0", "0", "a", 1), ("u0", "0", "b", 1)]


def test_a_broken_array_is_refused_as_a_whole_and_an_empty_one_is_an_empty_day(tmp_path: Path) -> None:
    cut = json.dumps(ORDERS, indent=1).encode()[:-60]
    refused(unrolled(tmp_path, "{date}.json", cut), "2026-03-01.json", "cut short at line", "Deliver it again")
    refused(unrolled(tmp_path, "{date}.json", b'[{"id": 1} {"id": 2}]'), "expected a comma")
    assert land(unrolled(tmp_path, "{date}.json", b" [ ] \n")).is_empty()
    # a first line that is an array of its own is a broken line among others
    assert len(land(unrolled(tmp_path, "{date}.json", b"[1, 2]\n" + objects(ORDERS)))) == len(LINES) + 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "csv", "unroll": "lines"}, "json or parquet"),
        ({"format": "json", "skip_lines": 2}, "'skip_lines' is of csv files"),
        ({"files": "{yyyy}-{mm}.csv"}, "either by {date} or by all of"),
        ({"files": "{date}/{yyyy}{mm}{dd}.csv"}, "either by {date} or by all of"),
    ],
)
def test_blocks_that_contradict_themselves(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        store_at(tmp_path, {"files": "{date}.csv", "columns": COLUMNS, **changes})


def test_elements_need_a_list(tmp_path: Path) -> None:
    refused(unrolled(tmp_path, "{date}.json", objects(ORDERS), unroll=None), "source_element", "'unroll'")


@pytest.mark.parametrize("pattern", ["x_{yyyy}{mm}{dd}.csv", "{yyyy}/{mm}/{dd}/*.csv", "year={yyyy}/month={mm}/day={dd}/{yyyy}.csv"])
def test_landing_days_may_be_written_in_parts(tmp_path: Path, pattern: str) -> None:
    for day, item in (("2026-03-01", "i"), ("2026-03-03", "j")):
        path = tmp_path / pattern.replace("*", "part-0").replace("{yyyy}", day[:4]).replace("{mm}", day[5:7]).replace("{dd}", day[8:])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEADER + f"{day} 10:00:00,u,view_item,{item},1.50\n")
    (tmp_path / "x_20260231.csv").write_text("names no day")
    store = store_at(tmp_path, {"files": pattern, "columns": COLUMNS, "missing_file": "empty"})
    assert landing_days(store)["events"] == [FIRST, FIRST + timedelta(days=2)]
    rows = land(store, days_between(FIRST, FIRST + timedelta(days=2)))
    assert rows.select("landed_date", "item_id").rows() == [(FIRST, "i"), (FIRST + timedelta(days=2), "j")]
    assert file_fingerprint(store, "events", FIRST) != file_fingerprint(store, "events", FIRST + timedelta(days=1))


HEADS = [("o1", "2026-03-01 10:00:00", "u1"), ("o2", "2026-03-01 11:00:00", None), ("o3", "2026-03-02 09:00:00", "u2")]
LINES_OF = [("o3", "i1", "3"), ("o1", "i1", "1"), ("o1", "i2", "2"), ("o9", "i1", "5"), ("o2", "i3", "4")]
"""Lines in another order than their orders; nothing says who ordered o9, or when."""
BESIDE = {
    "event_at": "orders.placed", "user_id": "orders.who", "event_type": "'purchase'", "item_id": "sku", "order_id": "number", "quantity": "qty"
}  # fmt: skip


def beside(folder: Path, layout: str, pattern: str = "{}.{}", **changes: Any) -> Store:
    """Lines and their orders in files of their own."""
    heads = [dict(zip(("id", "placed", "who"), row, strict=True)) for row in HEADS]
    lines = [dict(zip(("number", "sku", "qty"), row, strict=True)) for row in LINES_OF]
    for name, rows in (("orders", heads), ("lines", lines)):
        path = folder / pattern.replace("{date}", "2026-03-01").format(name, layout)
        if layout == "csv":
            pl.DataFrame(rows).write_csv(path)
        elif layout == "json":
            path.write_bytes(objects(rows))
        else:
            pa.parquet.write_table(pa.Table.from_pylist(rows), path)
    files = {name: pattern.replace("{}", name, 1).replace("{}", layout) for name in ("orders", "lines")}
    columns = {key: text.replace("orders.", "orders ->> '$.") + ("'" if "orders." in text else "") for key, text in BESIDE.items()}
    join = {"orders": {"files": files["orders"], "format": layout, "by": "number", "key": "id"}}
    blocks = {"files": files["lines"], "format": layout, "join": join, "columns": columns if layout == "json" else BESIDE}
    return store_at(folder, blocks | changes)


def told_beside(rows: pl.DataFrame) -> list[Any]:
    return rows.sort("source_row").select("source_row", "landed_date", "event_at", "user_id", "order_id", "item_id", "quantity").rows()


SECOND = FIRST + timedelta(days=1)
TOGETHER = [
    ("2026-03-02 09:00:00", "u2", "o3", "i1", "3"),
    ("2026-03-01 10:00:00", "u1", "o1", "i1", "1"),
    ("2026-03-01 10:00:00", "u1", "o1", "i2", "2"),
    (None, None, "o9", "i1", "5"),
    ("2026-03-01 11:00:00", None, "o2", "i3", "4"),
]


@pytest.mark.parametrize("layout", ["csv", "json", "parquet"])
def test_rows_of_other_files_stand_beside(tmp_path: Path, layout: str) -> None:
    first = 2 if layout == "csv" else 1
    rows = told_beside(land(beside(tmp_path, layout), [FIRST, SECOND]))
    assert rows == [(first + place, SECOND if place == 0 else FIRST, *row) for place, row in enumerate(TOGETHER)]
    (tmp_path / "dated").mkdir()
    dated = told_beside(land(beside(tmp_path / "dated", layout, "{}_{date}.{}")))
    assert dated == [(first + place, FIRST, *row) for place, row in enumerate(TOGETHER)]


def test_what_stands_beside_is_found_among_lists_and_by_what_was_found_before(tmp_path: Path) -> None:
    orders = [{"id": 7, "lines": [{"sku": "a"}, {"sku": "b"}], "customer": 3}, {"id": 8, "lines": [{"sku": "a"}], "customer": 4}]
    (tmp_path / "carts.json").write_text(json.dumps(orders))
    (tmp_path / "payments.csv").write_text("cart;day\n8;2026-03-01\n7;2026-03-02\n")
    (tmp_path / "people.json").write_bytes(objects([{"no": "C4", "name": "Ann"}, {"no": "C3", "name": "Bob"}]))
    store = store_at(tmp_path, {
        "files": "carts.json", "format": "json", "unroll": "lines",
        "join": {
            "payments": {"files": "payments.csv", "delimiter": ";", "by": "id", "key": "cart"},
            "people": {"files": "people.json", "format": "json", "by": "'C' || customer", "key": "no"},
        },
        "columns": {"event_at": "payments.day", "user_id": "people ->> '$.name'", "item_id": "source_element ->> '$.sku'"},
    })  # fmt: skip
    rows = land(store, [FIRST, SECOND]).sort("source_row", "item_id")
    found = rows.select("source_row", "landed_date", "user_id", "item_id").rows()
    assert found == [(1, SECOND, "Bob", "a"), (1, SECOND, "Bob", "b"), (2, FIRST, "Ann", "a")]


def test_of_rows_told_twice_the_last_stands_beside_and_ids_follow_what_stands_there(tmp_path: Path) -> None:
    store = beside(tmp_path, "csv")
    before = land(store, [FIRST, SECOND])
    prints = [file_fingerprint(store, "events", day) for day in (FIRST, SECOND)]
    with open(tmp_path / "orders.csv", "a") as stream:
        stream.write("o1,2026-03-01 12:00:00,u9\n")
    after = land(store, [FIRST, SECOND])
    assert after.filter(pl.col("order_id") == "o1")["user_id"].to_list() == ["u9", "u9"]
    changed = set(after["raw_row_id"]) - set(before["raw_row_id"])
    assert set(after.filter(pl.col("raw_row_id").is_in(changed))["order_id"]) == {"o1"}
    assert [file_fingerprint(store, "events", day) == print for day, print in zip((FIRST, SECOND), prints, strict=True)] == [False, True]


@pytest.mark.parametrize("layout", ["csv", "json"])
def test_lines_of_joined_files_that_cannot_be_read_are_rows_with_a_reason(tmp_path: Path, layout: str) -> None:
    for pattern in ("{}.{}", "{}_{date}.{}"):
        store = beside(tmp_path, layout, pattern)
        path = next(tmp_path.glob(f"orders{'_*' if 'date' in pattern else ''}.{layout}"))
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines[:2], "one,two,three,four" if layout == "csv" else "[1]", *lines[2:]]) + "\n")
        rows = land(store, [FIRST] if "date" in pattern else [FIRST, SECOND])
        bad = rows.filter(pl.col("source_error").is_not_null())
        assert bad.select("landed_date", "source_file", "source_row").rows() == [(FIRST, path.name, 3)]
        assert [row[2:] for row in told_beside(rows.filter(pl.col("source_error").is_null()))] == TOGETHER


def test_columns_of_joined_files_may_move_and_days_may_lack_them(tmp_path: Path) -> None:
    store = beside(tmp_path, "csv", "{}_{date}.{}", missing_file="empty")
    (tmp_path / "orders_2026-03-02.csv").write_text("who,placed,note,id\nu7,2026-03-02 08:00:00,x,o7\n")
    (tmp_path / "lines_2026-03-02.csv").write_text("number,sku,qty\no7,i1,1\no1,i1,1\n")
    (tmp_path / "lines_2026-03-03.csv").write_text("number,sku,qty\no7,i1,1\n")
    days = [FIRST, SECOND, SECOND + timedelta(days=1)]
    blocks = store.blocks("events")[0]
    lenient = blocks.model_copy(update={"join": {"orders": blocks.join["orders"].model_copy(update={"missing_file": "empty"})}})
    store = store.model_copy(update={"sources": {"events": lenient}})
    rows = land(store, days)
    found = rows.filter(pl.col("landed_date") > FIRST).sort("landed_date", "source_row").select("order_id", "user_id", "event_at").rows()
    # an order stands beside lines of its own day alone
    assert found == [("o7", "u7", "2026-03-02 08:00:00"), ("o1", None, None), ("o7", None, None)]
    assert land(store, [days[-1]]).select("order_id", "user_id").rows() == [("o7", None)]
    for day in days:  # a range gives the rows its days give
        assert sorted(land(store, [day])["raw_row_id"]) == sorted(rows.filter(pl.col("landed_date") == day)["raw_row_id"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"key": "nr"}, ("orders.csv", "'nr'", "sources.events.join.orders", "The file has: id, placed, who")),
        ({"by": "nr"}, ("lines.csv", "'nr'", "sources.events.join.orders.by")),
        ({"by": "(SELECT 1)"}, ("sources.events.join.orders.by", "no subqueries")),
        ({"files": "heads.csv"}, ("heads.csv",)),
    ],
)
def test_joins_that_cannot_be_made_are_told_by_name(tmp_path: Path, change: dict[str, str], said: tuple[str, ...]) -> None:
    join = {"orders": {"files": "orders.csv", "by": "number", "key": "id"} | change}
    refused(beside(tmp_path, "csv", join=join), *said)


def test_joined_files_are_named_and_dated_as_they_must_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'join.orders.files' must name a landing day where 'files' does"):
        beside(tmp_path, "csv", join={"orders": {"files": "orders_{date}.csv", "by": "number", "key": "id"}})
    refused(beside(tmp_path, "csv", join={"sku": {"files": "orders.csv", "by": "number", "key": "id"}}), "join.sku", "a column of that name")


@pytest.mark.parametrize("above", ["Report\n", 'sep=,\n\n"1, March"\n'])
def test_lines_above_the_header_are_no_rows_and_are_counted(tmp_path: Path, above: str) -> None:
    skip = above.count("\n")
    csv_file(tmp_path, above + HEADER + GOOD + "too,few\n" + GOOD)
    rows = land(store_at(tmp_path, {"files": "{date}.csv", "columns": COLUMNS, "skip_lines": skip}))
    assert rows["source_row"].to_list() == [skip + 2, skip + 3, skip + 4]
    assert rows["source_error"].is_null().to_list() == [True, False, True]
    refused(store_at(tmp_path, {"files": "{date}.csv", "columns": COLUMNS}), "2026-03-01.csv")
    assert land(store_at(tmp_path, {"files": "{date}.csv", "columns": COLUMNS, "skip_lines": skip, "header": list(COLUMNS.values())})).height == 4


def test_nested_values_alone_may_be_mapped(tmp_path: Path) -> None:
    (tmp_path / "2026-03-01.json").write_bytes(objects(ORDERS))
    rows = land(store_at(tmp_path, {"files": "{date}.json", "format": "json", "columns": {"user_id": "source_line ->> '$.who.id'"}}))
    assert rows["user_id"].to_list() == ["u0", "u1", "u0", "u1"]


# --- row ids ----------------------------------------------------------------------------------------------------------


def test_identical_rows_are_told_apart_and_ids_do_not_depend_on_order(tmp_path: Path) -> None:
    other = "2026-03-01 11:00:00,u,view_item,i,1.50\n"
    csv_file(tmp_path, HEADER + GOOD + other + GOOD + GOOD)
    first = land(store_at(tmp_path))
    csv_file(tmp_path, HEADER + GOOD + GOOD + GOOD + other)
    second = land(store_at(tmp_path))
    assert first["raw_row_id"].n_unique() == 4
    assert set(first["raw_row_id"]) == set(second["raw_row_id"])
    assert first["row_hash"].n_unique() == 2
    csv_file(tmp_path, HEADER + GOOD, "2026-03-02.csv")
    assert not set(land(store_at(tmp_path), [FIRST + timedelta(days=1)])["raw_row_id"]) & set(first["raw_row_id"])


# --- every physical row is somewhere ----------------------------------------------------------------------------------


def test_ragged_and_broken_lines_become_rows_with_a_reason(tmp_path: Path) -> None:
    content = (
        HEADER.encode()
        + GOOD.encode()
        + b"only,three,fields\n"
        + GOOD.encode()
        + b"1,2,3,4,5,6\n"
        + b"2026-03-01,\xff\xfe,view_item,i,1\n"
        + GOOD.encode()
        + b'2026-03-01,u,view_item,"=HYPERLINK(""x"")<b>",1\n'
    )
    csv_file(tmp_path, content)
    rows = land(store_at(tmp_path))
    assert rows.height == 7
    broken = {row["source_row"]: row["source_error"] for row in rows.filter(pl.col("source_error").is_not_null()).to_dicts()}
    assert set(broken) == {3, 5, 6}
    assert "only,three,fields" in broken[3] and "Expected Number of Columns: 5 Found: 3" in broken[3]
    assert "1,2,3,4,5,6" in broken[5]
    assert "UTF-8" in broken[6]
    good = rows.filter(pl.col("source_error").is_null())
    assert good["source_row"].to_list() == [2, 4, 7, 8]
    assert good["item_id"].to_list()[-1] == '=HYPERLINK("x")<b>'


def test_without_a_header_line_the_first_line_is_a_row_like_any_other(tmp_path: Path) -> None:
    """Broken it is refused, long it is refused; a list of names that does not fit the rows refuses every one of them."""
    names = {"files": "{date}.csv", "columns": COLUMNS, "header": list(COLUMNS.values())}
    csv_file(tmp_path, "only,two\n" + GOOD + '2026-03-01 10:00:00,"a\nb",view_item,i,1\n' + GOOD)
    rows = land(store_at(tmp_path, names))
    assert rows["source_row"].to_list() == [1, 2, 3, 4]
    assert rows["source_error"].is_not_null().to_list() == [True, False, False, False]
    csv_file(tmp_path, GOOD * 3)
    rows = land(store_at(tmp_path, names | {"header": [*COLUMNS.values(), "one too many"]}))
    assert rows["source_row"].to_list() == [1, 2, 3] and rows["source_error"].null_count() == 0
    with pytest.raises(ValueError, match="names column 'at' twice"):
        store_at(tmp_path, names | {"header": ["at", "AT"]})
    with pytest.raises(ValueError, match="names its own"):
        store_at(tmp_path, names | {"format": "json"})


def test_an_open_quote_swallows_no_other_row_unseen(tmp_path: Path) -> None:
    """A few lines after it are refused one by one; where the engine loses more, that is an error and not a short day."""
    lines = [GOOD.replace(",i,", f",i{number},") for number in range(40)]
    lines[30] = '2026-03-01 10:00:00,"u,view_item,i30,1.50\n'
    csv_file(tmp_path, HEADER + "".join(lines))
    rows = land(store_at(tmp_path))
    assert rows.height == 40
    assert rows["source_row"].to_list() == list(range(2, 42))
    assert rows["source_error"].null_count() == 30
    csv_file(tmp_path, HEADER + "".join(lines + lines[:30] * 100))
    refused(store_at(tmp_path), "2026-03-01.csv", "of 3041 lines could be neither read nor refused", "see line 32")


def test_line_ends_within_quotes(tmp_path: Path) -> None:
    csv_file(tmp_path, HEADER + GOOD + '2026-03-01 10:00:00,"a\nb\nc",view_item,i,1\n\n' + GOOD)
    assert land(store_at(tmp_path))["user_id"].to_list() == ["u", "a\nb\nc", "u"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_monstrous_line_is_one_refused_row(tmp_path: Path, packed: bool) -> None:
    """The engine drops a line longer than its buffer without a word."""
    content = (HEADER + GOOD + "x" * 5_000_000 + ",u,view_item,i,1\n" + GOOD).encode()
    pattern = "{date}.csv.gz" if packed else "{date}.csv"
    (tmp_path / pattern.replace("{date}", "2026-03-01")).write_bytes(gzip.compress(content, 1) if packed else content)
    rows = land(store_at(tmp_path, {"files": pattern, "columns": COLUMNS}))
    assert rows["source_row"].to_list() == [2, 3, 4]
    assert rows["source_error"].to_list()[1].startswith("longer than 2000000 bytes (5000016): xxx")


def test_a_monstrous_last_line_without_end(tmp_path: Path) -> None:
    csv_file(tmp_path, HEADER + GOOD + "x" * 3_000_000)
    assert land(store_at(tmp_path))["source_error"].null_count() == 1


def test_broken_json_lines(tmp_path: Path) -> None:
    content = as_json() + '{"at": "2026-03-01"\n' + "[1, 2]\n" + "null\n" + '{"at": "2026-03-01", "who": {"id": 5}}\n'
    csv_file(tmp_path, content, "2026-03-01.jsonl")
    rows = land(
        store_at(
            tmp_path,
            {
                "files": "{date}.jsonl",
                "format": "json",
                "columns": {**COLUMNS, "user_id": "coalesce(source_line ->> '$.who.id', who)"},
            },
        )
    )
    assert rows.height == 6
    errors = rows["source_error"].to_list()
    assert errors[:2] == [None, None] and errors[5] is None
    assert errors[2] == 'expected a JSON object, found no valid JSON: {"at": "2026-03-01"'
    assert errors[3].startswith("expected a JSON object, found ARRAY") and errors[4].startswith(
        "expected a JSON object, found NULL"
    )
    assert rows["user_id"].to_list()[5] == "5"


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    st.lists(st.lists(st.sampled_from(["a", "", "1", "x y", 'q"', "é", "=1+1"]), min_size=1, max_size=7), min_size=1, max_size=8)
)
def test_every_line_is_a_row(tmp_path_factory: pytest.TempPathFactory, lines: list[list[str]]) -> None:
    """Whatever the fields hold: as many raw rows as non-empty lines, read or refused."""
    folder = tmp_path_factory.mktemp("lines")
    texts = [
        ",".join(f'"{field.replace(chr(34), chr(34) * 2)}"' if '"' in field else field for field in fields) for fields in lines
    ]
    texts = [text for text in texts if text]
    csv_file(folder, HEADER + "".join(text + "\n" for text in texts))
    rows = land(store_at(folder))
    assert rows.height == len(texts)
    assert rows["raw_row_id"].n_unique() == len(texts)
    good = rows.filter(pl.col("source_error").is_null())
    assert good.height == sum(len(fields) == 5 for fields in lines if fields != [""])


# --- clear errors -----------------------------------------------------------------------------------------------------


def refused(store: Store, *words: str) -> None:
    with pytest.raises(SourceError) as caught:
        land(store)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_a_missing_file_is_an_error_or_an_empty_day(tmp_path: Path) -> None:
    refused(store_at(tmp_path), "sources.events", "{date}.csv", "2026-03-01", "missing_file: empty")
    assert land(store_at(tmp_path, {"files": "{date}.csv", "columns": COLUMNS, "missing_file": "empty"})).height == 0
    refused(store_at(tmp_path, {"files": "all.csv", "columns": COLUMNS}), "all.csv", "data_root")


def test_empty_file_and_header_only(tmp_path: Path) -> None:
    csv_file(tmp_path, "")
    refused(store_at(tmp_path), "2026-03-01.csv", "empty (0 bytes)")
    csv_file(tmp_path, HEADER)
    assert land(store_at(tmp_path)).height == 0


@pytest.mark.parametrize("cut", [-4, -30, 200, 12])
def test_truncated_gzip(tmp_path: Path, cut: int) -> None:
    """The engine reads what there is and says nothing."""
    content = gzip.compress((HEADER + "".join(GOOD.replace(",i,", f",{n * 7919},") for n in range(500))).encode())
    (tmp_path / "2026-03-01.csv.gz").write_bytes(content[:cut])
    refused(store_at(tmp_path, {"files": "{date}.csv.gz", "columns": COLUMNS}), "2026-03-01.csv.gz", "cut short")


def test_damaged_files(tmp_path: Path) -> None:
    content = bytearray(gzip.compress((HEADER + GOOD * 50).encode()))
    content[-6] ^= 255  # the checksum
    (tmp_path / "2026-03-01.csv.gz").write_bytes(bytes(content))
    refused(store_at(tmp_path, {"files": "{date}.csv.gz", "columns": COLUMNS}), "2026-03-01.csv.gz", "damaged gzip")
    (tmp_path / "2026-03-01.csv.gz").write_bytes((HEADER + GOOD).encode())
    refused(store_at(tmp_path, {"files": "{date}.csv.gz", "columns": COLUMNS}), "2026-03-01.csv.gz", "damaged gzip")
    (tmp_path / "2026-03-01.csv.zst").write_bytes(zstd(as_csv())[:-5])
    refused(store_at(tmp_path, {"files": "{date}.csv.zst", "columns": COLUMNS}), "2026-03-01.csv.zst")
    pl.DataFrame({"at": ["2026-03-01"]}).write_parquet(tmp_path / "2026-03-01.parquet")
    whole = (tmp_path / "2026-03-01.parquet").read_bytes()
    (tmp_path / "2026-03-01.parquet").write_bytes(whole[:-9])
    refused(
        store_at(tmp_path, {"files": "{date}.parquet", "format": "parquet", "columns": {"event_at": "at"}}),
        "2026-03-01.parquet",
        "cut short",
    )


def test_wrong_delimiter_and_missing_column(tmp_path: Path) -> None:
    csv_file(tmp_path, as_csv(";"))
    refused(store_at(tmp_path), "2026-03-01.csv", "'at' is missing", "columns.event_at", "';'", "delimiter")
    csv_file(tmp_path, HEADER.replace("price", "Preis") + GOOD)
    refused(
        store_at(tmp_path),
        "2026-03-01.csv",
        "'price' is missing",
        "sources.events.columns.unit_price",
        "at, who, what, item, Preis",
    )
    csv_file(tmp_path, HEADER.replace("price", "at") + GOOD)
    refused(store_at(tmp_path), "'at' appears twice")


def test_wrong_encoding(tmp_path: Path) -> None:
    csv_file(tmp_path, as_csv().encode("utf-16"))
    refused(store_at(tmp_path), "2026-03-01.csv", "encoding")
    csv_file(tmp_path, as_csv().encode() + b"x")
    refused(store_at(tmp_path, {"files": "{date}.csv", "columns": COLUMNS, "encoding": "utf-16"}), "2026-03-01.csv", "utf-16")


def test_an_expression_that_fails_names_file_and_remedy(tmp_path: Path) -> None:
    csv_file(tmp_path, HEADER + GOOD.replace("1.50", "cheap"))
    columns = {**COLUMNS, "unit_price": "CAST(price AS DOUBLE) * 2"}
    refused(store_at(tmp_path, {"files": "{date}.csv", "columns": columns}), "2026-03-01.csv", "cheap", "TRY_CAST")


def test_a_condition_that_is_neither_true_nor_false(tmp_path: Path) -> None:
    csv_file(tmp_path, HEADER + GOOD)
    refused(store_at(tmp_path, {"files": "{date}.csv", "where": "what", "columns": COLUMNS}), "2026-03-01.csv", "view", "TRY_CAST")


@pytest.mark.parametrize(
    "text",
    [
        "(SELECT max(x) FROM t)",
        "EXISTS (SELECT 1)",
        "sum(price)",
        "row_number() OVER ()",
        "read_text('/etc/passwd')",
        "random()",
        "now()",
        "current_date",
        "uuid()",
        "getenv('HOME')",
        "current_setting('threads')",
        "nextval('s')",
        "price; DROP TABLE x",
        "price FROM t",
        "((",
        "*",
        "glob('/*')",
        "query('SELECT 1')",
        "gen_random_uuid()",
        "pg_read_file('x')",
        "read_csv('/x')",
        "read_parquet('/x')",
        "unnest([1, 2])",
    ],
)
def test_expressions_read_their_own_row_only(text: str) -> None:
    with pytest.raises(SourceError, match=r"store\.yaml"):
        parse(text, "store.yaml: sources.events.columns.price")


def test_expressions_of_all_kinds_are_allowed(tmp_path: Path) -> None:
    csv_file(tmp_path, 'Wann,wer,was,Sache,"Preis (EUR)"\n01.03.2026 10:00,7.0,Kauf,SKU-9,"1.234,50"\n')
    columns = {
        "event_at": "strftime(try_strptime(Wann, '%d.%m.%Y %H:%M'), '%Y-%m-%d %H:%M:%S')",
        "user_id": "regexp_replace(wer, '\\.0$', '')",
        "event_type": "CASE was WHEN 'Kauf' THEN 'purchase' END",
        "item_id": "split_part(Sache, '-', 2)",
        "unit_price": "replace(replace(\"Preis (EUR)\", '.', ''), ',', '.')",
        "order_id": "md5(WANN || wer)",
        "channel": "'shop'",
    }
    (row,) = land(store_at(tmp_path, {"files": "{date}.csv", "columns": columns})).to_dicts()
    assert (row["event_at"], row["user_id"], row["event_type"], row["item_id"], row["unit_price"], row["channel"]) == (
        "2026-03-01 10:00:00",
        "7",
        "purchase",
        "9",
        "1234.50",
        "shop",
    )


def test_unknown_contract_columns(tmp_path: Path) -> None:
    csv_file(tmp_path, HEADER)
    refused(store_at(tmp_path, {"files": "{date}.csv", "columns": {"colour": "at"}}), "colour is no column", "event_at")
    refused(store_at(tmp_path, {"rows": [{"event_at": "2026-03-01", "colour": 1}]}), "row 1: colour")


# --- fingerprints and days --------------------------------------------------------------------------------------------


def test_fingerprints_follow_content(tmp_path: Path) -> None:
    import os

    store = store_at(tmp_path, {"files": "{date}.csv", "columns": COLUMNS, "missing_file": "empty"})
    none = file_fingerprint(store, "events", FIRST)
    path = csv_file(tmp_path, HEADER + GOOD)
    first = file_fingerprint(store, "events", FIRST)
    assert first != none
    assert file_fingerprint(store, "events", FIRST + timedelta(days=1)) == none
    os.utime(path, (1, 1))
    assert file_fingerprint(store, "events", FIRST) == first  # touched, not changed
    csv_file(tmp_path, HEADER + GOOD.replace("1.50", "1.51"))
    assert file_fingerprint(store, "events", FIRST) != first


def test_fingerprints_of_undated_files_are_per_landed_day(tmp_path: Path) -> None:
    """Rows appended for the third day change its fingerprint and no other."""
    store = store_at(tmp_path, {"files": "all.csv", "columns": COLUMNS})
    csv_file(tmp_path, HEADER + GOOD, "all.csv")
    days = days_between(FIRST, FIRST + timedelta(days=3))
    before = [file_fingerprint(store, "events", day) for day in days]
    csv_file(tmp_path, HEADER + GOOD + GOOD.replace("03-01", "03-03"), "all.csv")
    after = [file_fingerprint(store, "events", day) for day in days]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, True, False, True]


def test_fingerprints_of_a_shop_without_end_ask_for_few_changes_of_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred years of summer times in a query took a minute and gigabytes, for each input without dated files."""
    from marketing_assets import compiled

    lengths: list[int] = []
    inner = compiled.compiled

    def measured(expression: Any) -> str:
        text = inner(expression)
        lengths.append(len(text))
        return text

    monkeypatch.setattr(compiled, "compiled", measured)
    later = FIRST + timedelta(days=400)
    block = {"files": "all.csv", "columns": COLUMNS}
    csv_file(tmp_path, HEADER + GOOD + GOOD.replace("2026-03-01", f"{later}"), "all.csv")
    going_on, ending = store_at(tmp_path, block, last_day=None), store_at(tmp_path, block, last_day=later)
    first, second, last = (file_fingerprint(going_on, "events", day) for day in (FIRST, FIRST + timedelta(days=1), later))
    assert file_fingerprint(ending, "events", FIRST) == first != second
    assert last not in (first, second)
    assert lengths and max(lengths) < 100_000


def test_landing_days_and_chunks(tmp_path: Path) -> None:
    for name in ("2026-03-01.csv", "2026-03-04.csv", "2026-02-31.csv", "2026-03-05.csv.bak"):
        csv_file(tmp_path, HEADER + GOOD, name)
    store = store_at(tmp_path)
    assert landing_days(store)["events"] == [FIRST, FIRST + timedelta(days=3)]
    days = days_between(FIRST, FIRST + timedelta(days=4))
    assert chunks(store, "events", days) == [days]
    assert chunks(store, "events", days, most_bytes=70) == [days[:3], days[3:]]


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    csv_file(tmp_path, HEADER)
    store = store_at(tmp_path)
    connection = duckdb.connect(":memory:")
    built = build_sources(Warehouse(connection, store, None).reader(FIRST), [FIRST], store, "items")
    assert built.degraded == {"raw_items": "needs source 'items'"}
    with pytest.raises(SourceError, match="no such input"):
        build_sources(Warehouse(connection, store, None).reader(FIRST), [FIRST], store, "things")
