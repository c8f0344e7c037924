"""SQL texts kept between processes, hashing by salt, and the pictures of partitions."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from xml.etree import ElementTree

import duckdb
import ibis
import polars as pl
import pytest

from marketing_assets import compiled as texts
from marketing_assets.assignment import salted_share
from marketing_assets.compiled import compiled, texts_beside, written
from marketing_assets.config import Store
from marketing_assets.report.pictures import picture
from marketing_assets.schemas import TABLES
from marketing_assets.warehouse import polars_schema, reader_over

DAY = date(2026, 8, 3)


def expression(day: date, other: date, dropped: tuple[str, ...] = ("b", "c", "d")) -> ibis.Table:
    table = ibis.table({"day": "date", "a": "int64", "b": "int64", "c": "int64", "d": "int64"}, name="t")
    return table.filter(table.day.between(ibis.date(str(day)), ibis.date(str(other)))).drop(*dropped)


def test_a_text_serves_other_dates_but_no_other_shape() -> None:
    """Two dates that are equal are another shape than two that differ: else one blank would be filled with the other's date."""
    first, same, later = date(2026, 1, 5), date(2026, 1, 5), date(2026, 2, 6)
    for asked in (expression(first, later), expression(first, same), expression(later, date(2027, 1, 1)), expression(first, later, ("b",))):
        assert compiled(asked) == str(ibis.to_sql(asked, dialect="duckdb", pretty=False))


def test_a_table_used_twice_is_not_read_whole() -> None:
    """Of both uses, the engine must see what is looked for before it reads: no scan may bring up other days."""
    store = Store.model_validate({
        "name": "s", "timezone": "UTC", "currency": "EUR", "first_day": DAY, "sources": {"events": {"files": "{date}.csv", "columns": {"*": "*"}}},
    })  # fmt: skip
    first_days = [DAY + timedelta(days=number) for number in range(20)]
    reader = reader_over({"sessions": pl.DataFrame({"as_of_date": first_days, "session_id": map(str, first_days)})}, store, first_days[-1])
    table = reader.table("sessions")
    both = ibis.union(*(table.filter(table.as_of_date == ibis.date(str(day))) for day in first_days[:2]))
    assert reader.frame(both).height == 2
    plan = str(reader.connection.execute(f"EXPLAIN (FORMAT JSON) {compiled(both)}").fetchall()[0][1])
    assert plan.count("SEQ_SCAN") == 2 and "CTE" not in plan


def test_a_written_expression_is_put_together_once_and_keeps_its_own_dates() -> None:
    """A date in it that the query around it has too must not become the query's: the next night asks for another."""
    made = []

    def build(rows: ibis.Table) -> ibis.Table:
        made.append(rows)
        return rows.mutate(is_late=rows.day > ibis.date(str(DAY)), share=ibis.literal(0.5))

    def asked(rows: ibis.Table, day: date) -> ibis.Table:
        return written("judged", "by day", rows.filter(rows.day >= ibis.date(str(day))), build)

    connection = ibis.duckdb.connect()
    rows = connection.create_table("t", pl.DataFrame({"day": [DAY + timedelta(days=number) for number in range(4)]}))
    for later in (0, 1, 3):
        day = DAY + timedelta(days=later)
        found = asked(rows, day)
        assert found.schema() == build(rows).schema()
        wanted = [(day + timedelta(days=number), later + number > 0, 0.5) for number in range(4 - later)]
        assert sorted(connection.con.execute(compiled(found)).fetchall()) == wanted
    assert len(made) == 1 + 3, "once for all nights, and once for each look at the columns"
    written("judged", "otherwise", rows, build)
    assert len(made) == 5
    both = asked(rows, DAY).union(asked(rows, DAY + timedelta(days=1)))
    with pytest.raises(duckdb.Error, match="judged"):
        connection.con.execute(compiled(both))


def test_texts_of_one_process_serve_the_next(tmp_path: Path) -> None:
    """The names of shapes hold in every process, however its sets are ordered; a broken file is no reason to stop."""
    warehouse = tmp_path / "warehouse.duckdb"
    program = (
        "import sys, datetime as d; from pathlib import Path; sys.path.insert(0, '.');"
        "from marketing_assets import compiled as c; from marketing_assets_tests.test_compiled import expression;"
        f"used = c.texts_beside(Path({str(warehouse)!r})); used.__enter__(); known = len(c._TEXTS);"
        "c.compiled(expression(d.date(2026, 1, 1 + known), d.date(2026, 5, 1))); print(known, len(c._TEXTS)); used.__exit__(None, None, None)"
    )
    root = Path(texts.__file__).parent.parent
    said = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=root, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        said.append(done.stdout.split())
    assert said == [["0", "1"], ["1", "1"]]
    kept = tmp_path / "warehouse.duckdb.queries.json"
    kept.write_text(kept.read_text(encoding="utf-8")[:50], encoding="utf-8")
    with texts_beside(warehouse):
        assert compiled(expression(DAY, DAY)).startswith("SELECT")


def test_salted_share_is_the_hash_it_says() -> None:
    """Repeated and missing ids included: BLAKE2b keyed by the salt, the first 53 of 64 bits."""
    ids = pl.Series("user_id", ["a", None, "b", "a", "ü"])
    key = hashlib.blake2b(b"salt", digest_size=32).digest()

    def by_hand(text: str) -> float:
        return (int.from_bytes(hashlib.blake2b(text.encode(), key=key, digest_size=8).digest(), "big") >> 11) / 2**53

    found = salted_share(ids, "salt")
    assert found.name == "user_id" and found.to_list() == [None if text is None else by_hand(text) for text in ids]
    assert salted_share(pl.Series("user_id", [], dtype=pl.String), "salt").len() == 0


@pytest.mark.parametrize("table", ["ad_plan", "ad_plan_scenarios", "demand_forecasts"])
def test_pictures_are_whole_and_escaped(table: str) -> None:
    """An SVG that parses, whatever a placement is called; nothing where nothing was published."""
    sources = {"events": {"files": "{date}.csv", "columns": {"event_at": "t"}}}
    store = Store.model_validate({"name": "s", "timezone": "UTC", "currency": "EUR", "first_day": DAY, "sources": sources})
    rows = {
        "ad_plan": [
            {"as_of_date": DAY, "placement_id": name, "hour": hour, "planned_impressions": 10.0 * hour}
            for name in ("<b>&", "home") for hour in (3, 20)
        ],
        "ad_plan_scenarios": [{"as_of_date": DAY, "budget": b, "expected_revenue": 2 * b, "is_current": b == 2} for b in (1, 2, 3)],
        "demand_forecasts": [
            {"as_of_date": DAY, "level": "shop", "date": date(2026, 8, day), "demand_mean": 5.0, "demand_p10": 2.0, "demand_p90": 9.0}
            for day in (4, 5, 6)
        ],
    }[table]  # fmt: skip
    frame = pl.DataFrame([dict.fromkeys(TABLES[table].columns) | row for row in rows], schema=polars_schema(table), strict=False)
    drawn = picture(reader_over({table: frame}, store, DAY), table, DAY)
    assert drawn is not None and drawn.startswith("![")
    svg = ElementTree.fromstring(base64.b64decode(drawn.split("base64,")[1].rstrip(")")))
    assert len(list(svg.iter())) > 5
    assert table != "ad_plan" or "<b>&" in [each.text for each in svg.iter()]
    assert picture(reader_over({table: frame.clear()}, store, DAY), table, DAY) is None
    assert picture(reader_over({}, store, DAY), "item_days", DAY) is None
