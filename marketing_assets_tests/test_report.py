"""The daily report: figures by hand, day by day as in one range, and a page that is complete, safe and honest."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from datetime import date, timedelta
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from marketing_assets.config import Store
from marketing_assets.report import build_daily_report, render_report, write_report
from marketing_assets.report.plan import said_note
from marketing_assets.report.words import Words
from marketing_assets.schemas import QUANTILE_COLUMNS
from marketing_assets.warehouse import Reader, days_between, open_warehouse, polars_schema, reader_over

FIRST = date(2026, 9, 1)
DAYS = days_between(FIRST, FIRST + timedelta(days=34))
LAST = DAYS[-1]
SOURCE = {"rows": [{"any": 1}]}
EVIL = "</script><script>alert('x')</script><img src=x onerror=alert(1)>"


def shop(folder: Path = Path("/nowhere"), **changes: Any) -> Store:
    sources = {name: SOURCE for name in ("events", "impressions", "conversions", "items", "placements")}
    base: dict[str, Any] = {
        "name": "Lantern & Oak",
        "timezone": "Europe/Berlin",
        "currency": "EUR",
        "first_day": FIRST,
        "sources": sources,
        "path": folder / "store.yaml",
    }
    return Store.model_validate({**base, **changes})


def conform(name: str, rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, infer_schema_length=None) if rows else pl.DataFrame()
    return frame.select(
        [
            (pl.col(column) if column in frame.columns else pl.lit(None)).cast(kind).alias(column)
            for column, kind in polars_schema(name).items()
        ]
    )


def evaluated(
    as_of: date, concept: str, metric: str, value: float | None, usual: float | None = None, **more: Any
) -> dict[str, Any]:
    base = {
        "as_of_date": as_of,
        "outcome_date": as_of,
        "issued_date": as_of - timedelta(days=1),
        "horizon_days": 1,
        "concept": concept,
        "metric": metric,
        "segment_type": "all",
        "segment": "all",
        "policy_id": "all",
        "value": value,
        "baseline": "same_weekday_4_weeks",
        "baseline_value": usual,
        "ci_low": None if value is None else value * 0.9,
        "ci_high": None if value is None else value * 1.1,
        "n": 100,
        "maturity": 1.0,
        "is_mature": True,
    }
    return {**base, **more}


@cache
def published(items: int = 40) -> dict[str, pl.DataFrame]:
    """Every table the page reads, five weeks of a shop where some of everything happens."""
    generator = np.random.default_rng(3)
    names = [f"SKU-{number:05d}" for number in range(items)]
    report, plan, limits, scenarios, runs, changes, proposals, calibration = ([] for _ in range(8))  # type: ignore[var-annotated]
    events, sold, refused, forecasts, stock, tickets, audiences, profiles, drift = ([] for _ in range(9))  # type: ignore[var-annotated]
    for number, day in enumerate(DAYS):
        wave = 1 + 0.2 * np.sin(number)
        report += [
            evaluated(day, "shop", "revenue", 5000 * wave, 4800.0),
            evaluated(day, "shop", "orders", 150.0, 149.0),
            evaluated(day, "shop", "average_order_value", 33.0, 32.0),
            evaluated(day, "shop", "sessions", 3000.0, 3100.0),
            evaluated(day, "shop", "session_conversion_rate", 0.05 if day < LAST else 0.03, 0.05),
            evaluated(day, "ads", "spend", 96.0, 95.0),
            evaluated(day, "ads", "ctr", 0.012, 0.011),
            evaluated(day, "satisfaction", "mean_rating", 4.3, 4.4, horizon_days=28),
            evaluated(day, "recommendations", "ndcg_at_10", 0.12, 0.09, horizon_days=7, baseline="popularity"),
            evaluated(
                day, "demand", "wrmsse", 0.7, 0.8, horizon_days=7, baseline="seasonal_naive", segment_type="level", segment="item"
            ),
            evaluated(
                day, "demand", "coverage_80", 0.79, 0.8, horizon_days=7, baseline="nominal", segment_type="level", segment="item"
            ),
        ]
        for age in range(min(number + 1, 12)):
            arrived = min(1.0, 0.6 + 0.05 * age)
            late = {"outcome_date": day - timedelta(days=age), "maturity": arrived, "is_mature": arrived >= 0.98}
            report += [
                evaluated(day, "ads", "ad_revenue", 400 * arrived + (number - age), 390.0, **late),
                evaluated(day, "ads", "roas", 4.0 * arrived, 4.1, **late),
            ]
        for place in ("home", "search", "mail"):
            for hour in range(8, 22):
                shown = float(generator.integers(5, 60))
                plan.append(
                    {
                        "as_of_date": day,
                        "plan_date": day + timedelta(days=1),
                        "plan_id": f"plan-{day}",
                        "audience_id": ["champions", "everyone"][hour % 2],
                        "campaign_id": "c1",
                        "creative_id": f"cr{hour % 3}",
                        "item_id": names[hour % 3],
                        "placement_id": place,
                        "hour": hour,
                        "planned_impressions": shown,
                        "planned_spend": shown * 0.01,
                        "expected_clicks": shown * 0.01,
                        "expected_conversions": shown * 0.001,
                        "expected_revenue": shown * 0.03,
                        "logging_propensity": 0.9,
                        "is_exploration": hour % 5 == 0,
                    }
                )
        limits += [
            {
                "as_of_date": day,
                "plan_id": f"plan-{day}",
                "constraint_name": name,
                "limit_value": 100.0,
                "used_value": used,
                "shadow_price": price,
                "is_binding": price > 0,
                "relaxation_needed": 0.0,
                "unit": unit,
                "is_relaxable": True,
            }
            for name, used, price, unit in [
                ("budget", 100.0, 3.2, "money"),
                ("frequency_cap:champions", 100.0, 0.01, "impressions"),
                ("sellable_units:SKU-00001", 4.0, 0.0, "conversions"),
                (f"campaign_budget:{EVIL}", 100.0, 0.1, "money"),
            ]
        ]
        scenarios += [
            {
                "as_of_date": day,
                "plan_id": f"plan-{day}",
                "budget": float(level),
                "expected_conversions": level / 10,
                "expected_revenue": 50.0 * np.sqrt(level),
                "marginal_revenue": 25 / np.sqrt(max(level, 1)),
                "is_current": level == 100,
            }
            for level in (0, 50, 100, 200)
        ]
        runs.append(
            {
                "as_of_date": day,
                "plan_id": f"plan-{day}",
                "status": "optimal",
                "objective": 500.0,
                "upper_bound": 500.1,
                "gap": 0.0002,
                "solver": "highs",
                "seconds": 1.0,
                "probability_of_target": 0.9,
                "is_relaxed": False,
                "note": "whole impressions change the value by -0.0100",
            }
        )
        changes.append(
            {
                "as_of_date": day,
                "plan_id": f"plan-{day}",
                "audience_id": "champions",
                "creative_id": "cr1",
                "placement_id": "home",
                "impressions_change": 12.0,
                "spend_change": 0.5,
                "reason": "price",
                "input_change": 0.1,
            }
        )
        proposals.append(
            {
                "as_of_date": day,
                "subject_type": "category",
                "subject": EVIL,
                "audience_id": "everyone",
                "reach": 100.0,
                "participation": 0.1,
                "expected_cost": 5.0,
                "expected_conversions": 1.0,
                "expected_value": 30.0,
                "uplift": 0.1,
            }
        )
        for kind, segment, factor in (("all", "all", 1.0), ("placement", "home", 1.5), ("placement", EVIL, 0.98)):
            calibration.append(
                {
                    "as_of_date": day,
                    "segment_type": kind,
                    "segment": segment,
                    "impressions": 1000,
                    "clicks": 20,
                    "predicted_clicks": 20 * factor,
                    "log_loss": 50.0,
                    "conversions": 2,
                    "predicted_conversions": 2.0,
                }
            )
        for item in names[:30]:
            sold.append(
                {
                    "landed_date": day,
                    "event_date": day,
                    "item_id": item,
                    "units_sold": int(generator.poisson(4)),
                    "units_returned": 0,
                    "orders": 1,
                    "revenue": 1,
                    "gross_revenue": 1,
                    "views": 9,
                    "carts": 1,
                    "reviews": 1,
                    "ratings": 1,
                    "rating_total": 4.0,
                }
            )
        events += [
            {
                "landed_date": day,
                "event_date": day,
                "event_id": f"e{number}-{k}",
                "event_type": "view_item",
                "revenue": 0,
                "raw_row_id": "r",
            }
            for k in range(19)
        ]
        refused.append(
            {
                "landed_date": day,
                "source": "events",
                "raw_row_id": f"r{number}",
                "source_file": "events.csv",
                "source_row": 1,
                "reason": f"unit_price: '{EVIL}{number}' is no number",
                "row": "{}",
            }
        )
        if number % 7 == 0:
            for level, series in (("shop", "shop"), ("category", EVIL), ("category", "lamps")):
                for ahead in range(1, 29):
                    forecasts.append(
                        {
                            "as_of_date": day,
                            "level": level,
                            "series_id": series,
                            "date": day + timedelta(days=ahead),
                            "horizon_days": ahead,
                            "demand_mean": 100.0 + ahead,
                            "model": "panel",
                            **{column: 100.0 + ahead + 40 * (quantile - 0.5) for quantile, column in QUANTILE_COLUMNS.items()},
                        }
                    )
        for place, item in enumerate(names if day >= DAYS[-2] else []):
            stock.append(
                {
                    "as_of_date": day,
                    "item_id": item,
                    "stock_on_hand": 5,
                    "stock_on_order": 0,
                    "lead_time_days": 7,
                    "safety_stock": 2.0,
                    "reorder_point": 20.0,
                    "order_quantity": 24 if place % 4 == 0 else 0,
                    "order_cost": 48 if place % 4 == 0 else 0,
                    "sellable_units": 3,
                    "days_of_cover": 2.0,
                    "stockout_probability": place / len(names),
                }
            )
        for k in range(2 if number < 30 else 5):
            tickets.append(
                {
                    "as_of_date": day,
                    "ticket_id": f"t{number}-{k}",
                    "event_date": day,
                    "item_id": names[k],
                    "order_id": f"o{k}",
                    "rating": 1.0,
                    "theme": ["delivery", "defect"][k % 2],
                    "language": "en",
                    "excerpt": EVIL,
                    "theme_7d": 9,
                    "theme_trend": 2.4,
                    "item_28d": 4,
                    "priority": ["urgent", "normal"][k % 2],
                    "priority_score": 6.0,
                    "reasons": "lowest rating",
                    "suggested_answer": f"Hello {EVIL}",
                }
            )
    for day in (FIRST, FIRST + timedelta(days=28), LAST):
        for user in range(200):
            inside = user < (80 if day < LAST else 120)
            audiences.append(
                {
                    "as_of_date": day,
                    "user_id": f"u{user}",
                    "audience_id": "champions" if inside else "everyone",
                    "priority": 1,
                    "is_holdout": user % 20 == 0,
                    "issued_date": day,
                }
            )
            profiles.append(
                {
                    "as_of_date": day,
                    "user_id": f"u{user}",
                    "issued_date": day,
                    "segment": ["champions", EVIL][user % 2],
                    "purchase_propensity": 0.2,
                    "churn_probability": 0.3,
                    "clv_90d": 12.0,
                    "model_version": "1",
                }
            )
    drift += [
        {"as_of_date": LAST, "metric": name, "value": 1.0, "reference_value": 1.0, "threshold": 0.2, "is_drifted": False}
        for name in ("ads.ctr", "shop.revenue")
    ]
    drift.append(
        {
            "as_of_date": LAST,
            "verdict_id": "v1",
            "metric": "ads.ctr_calibration_ratio[home]",
            "value": 1.5,
            "reference_value": 1.0,
            "threshold": 0.25,
            "since_date": LAST - timedelta(days=3),
            "is_drifted": True,
            "cause": "calibration",
            "effect_value": -12.5,
            "action": "refit",
            "assets_to_refresh": "response_rates",
        }
    )
    experiments = [
        {
            "as_of_date": LAST,
            "experiment": "ads_holdout",
            "metric": "revenue",
            "method": "cuped",
            "start_date": FIRST,
            "end_date": LAST,
            "treated_users": 190,
            "control_users": 10,
            "uplift": 0.5,
            "sequential_low": 0.1,
            "sequential_high": 0.9,
            "is_sample_ratio_ok": True,
        }
    ]
    catalogue = [
        {
            "as_of_date": day,
            "item_id": item,
            "title": EVIL if place == 0 else f"Lamp {place}",
            "first_seen_date": FIRST,
            "is_service": False,
        }
        for day in (FIRST, FIRST + timedelta(days=28))
        for place, item in enumerate(names)
    ]
    tables = {
        "evaluation_report": report,
        "ad_plan": plan,
        "ad_plan_constraints": limits,
        "ad_plan_scenarios": scenarios,
        "ad_plan_runs": runs,
        "plan_diff": changes,
        "campaign_proposals": proposals,
        "response_calibration": calibration,
        "clean_events": events,
        "item_days": sold,
        "rejected_rows": refused,
        "demand_forecasts": forecasts,
        "inventory_plan": stock,
        "service_tickets": tickets,
        "audiences": audiences,
        "user_profiles": profiles,
        "drift_report": drift,
        "experiment_report": experiments,
        "items": catalogue,
    }
    return {name: conform(name, rows) for name, rows in tables.items()}


def figures(reader: Reader, days: list[date], store: Store) -> pl.DataFrame:
    rows = build_daily_report(reader, days, store).tables["daily_report"]
    assert isinstance(rows, pl.DataFrame)
    return rows


# --- figures ----------------------------------------------------------------------------------------------------------


def test_figures_by_hand() -> None:
    store = shop()
    rows = figures(reader_over(published(), store, LAST), [LAST], store)
    found = {row["figure"]: row for row in rows.to_dicts()}
    revenue = found["revenue"]
    assert revenue["value"] == pytest.approx(5000 * (1 + 0.2 * np.sin(34))) and revenue["previous_value"] == pytest.approx(
        5000 * (1 + 0.2 * np.sin(33))
    )
    assert (revenue["baseline_value"], revenue["unit"], revenue["figure_date"]) == (4800.0, "money", LAST)
    # ads: day D - 8 is the newest whose conversions are complete (.6 + .05 x 8 = 1); 400 x 1 + its number, 26
    assert (found["ad_revenue"]["figure_date"], found["ad_revenue"]["value"], found["ad_revenue"]["maturity"]) == (
        LAST - timedelta(days=8),
        426.0,
        1.0,
    )
    plan = published()["ad_plan"].filter(pl.col("as_of_date") == LAST)
    assert found["planned_spend"]["value"] == pytest.approx(plan["planned_spend"].sum()) and found["planned_spend"][
        "figure_date"
    ] == LAST + timedelta(days=1)
    # the issue of day 28 in force, seven days ahead: mean 107, 10 % and 90 % quantiles 16 off
    assert (
        found["expected_units"]["value"],
        found["expected_units"]["ci_low"],
        found["expected_units"]["ci_high"],
    ) == pytest.approx((107.0, 91.0, 123.0))
    sold = dict(published()["item_days"].group_by("event_date").agg(pl.col("units_sold").sum()).iter_rows())
    usual = sum(sold[LAST + timedelta(days=1 - 7 * week)] for week in (1, 2, 3, 4)) / 4
    assert found["expected_units"]["baseline_value"] == pytest.approx(usual)
    assert (found["items_to_order"]["value"], found["order_cost"]["value"]) == (10.0, 480.0)
    assert (found["complaints"]["value"], found["complaints"]["previous_value"], found["urgent_complaints"]["value"]) == (
        5.0,
        5.0,
        3.0,
    )
    assert found["rejected_share"]["value"] == pytest.approx(1 / 20) and found["drift_verdicts"]["value"] == 1.0


def test_one_range_is_day_by_day_and_nothing_later_is_read() -> None:
    store, frames = shop(), published()
    whole = figures(reader_over(frames, store, LAST), DAYS, store)
    for day in (FIRST, DAYS[9], DAYS[20], LAST):
        known = {
            name: frame.filter(pl.col("landed_date" if "landed_date" in frame.columns else "as_of_date") <= day)
            for name, frame in frames.items()
        }
        alone = figures(reader_over(known, store, day), [day], store)
        assert_frame_equal(alone, whole.filter(pl.col("as_of_date") == day), rel_tol=1e-9)


def test_figures_pass_their_schema_and_follow_the_sources() -> None:
    store = shop(sources={"events": SOURCE})
    made = build_daily_report(reader_over({}, store, LAST), DAYS[-3:], store)
    rows = made.tables["daily_report"]
    assert isinstance(rows, pl.DataFrame)
    assert {"revenue", "complaints"} <= set(rows["figure"]) and not {"ad_spend", "planned_spend", "items_to_order"} & set(
        rows["figure"]
    )
    assert rows.filter(pl.col("figure") == "revenue")["value"].is_null().all(), (
        "a day without sales has no figure rather than an invented zero"
    )
    with open_warehouse(store, in_memory=True) as warehouse, warehouse.transaction():
        warehouse.replace_window("report", ["daily_report"], DAYS[-3:], made)


# --- the page ---------------------------------------------------------------------------------------------------------


class Reading(HTMLParser):
    """Elements, and the text of scripts, as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text: list[str] = []
        self._script: dict[str, str | None] | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self._script = dict(attributes) if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts.append((self._script, data))
        else:
            self.text.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def page_of(store: Store, frames: dict[str, pl.DataFrame] | None = None) -> str:
    return render_report(reader_over(published() if frames is None else frames, store, LAST), LAST, store)


def test_text_from_data_stays_text() -> None:
    """Titles, excerpts, reasons and names that hold markup are shown as they are and make no element; nor do they end a script."""
    reading = Reading(page_of(shop(name=EVIL)))
    assert reading.count("img") == 0
    assert [kind.get("type") for kind, _ in reading.scripts if kind.get("type") != "application/json"] == [None, None]
    assert sum(EVIL in text for text in reading.text) > 5
    for attributes, text in reading.scripts:
        if attributes.get("type") == "application/json":
            json.loads(text)


def test_nothing_is_fetched_and_only_its_own_scripts_may_run() -> None:
    page = page_of(shop())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    rules = html.unescape(policy.group(1))
    assert (
        rules.startswith("default-src 'none'")
        and rules.count("'sha256-") == 2
        and "unsafe-eval" not in rules
        and "http" not in rules
    )
    for name, attributes in Reading(page).elements:
        assert not attributes.get("src") and name not in ("iframe", "object", "embed")
        assert name not in ("link", "a") or (attributes["href"] or "").startswith(("#", "data:,"))


def test_every_chart_has_words_and_its_numbers_as_a_table() -> None:
    reading = Reading(page_of(shop()))
    plots = [attributes for name, attributes in reading.elements if name == "div" and attributes.get("class") == "plot"]
    assert len(plots) >= 10 and all(len(plot.get("aria-label") or "") > 30 and plot["role"] == "img" for plot in plots)
    charts = [attributes["data-chart"] for attributes, _ in reading.scripts if attributes.get("data-chart")]
    assert charts == [plot["id"] for plot in plots]
    figures_ = [name for name, _ in reading.elements if name == "figure"]
    assert len(figures_) == len(plots) and reading.count("caption") >= len(plots) and reading.count("h1") == 1
    identifiers = [attributes["id"] for _, attributes in reading.elements if attributes.get("id")]
    assert len(identifiers) == len(set(identifiers))
    anchors = {(attributes["href"] or "")[1:] for name, attributes in reading.elements if name == "a"}
    assert anchors <= set(identifiers)


def test_the_first_screen_says_what_to_do() -> None:
    text = " ".join(Reading(page_of(shop(ad_planning={"needs_approval": True}))).text)
    for expected in (
        "marketing approve --day 2026-10-05",
        "Order 10 items for €480.00",
        "Urgent complaints to answer: 3",
        "Rates out of calibration since 2 Oct",
        "Made again tonight: response rates",
        "champions +50",
        "2.4 times the usual",
        "One more EUR would bring €3.20",
        "Run the plan for Tue 6 Oct 2026",
        "at €100.00 a day one more EUR still brings €2.50",
    ):
        assert expected in text.replace("\u00a0", " "), expected


def test_what_was_said_of_people_is_held_against_what_came() -> None:
    frames = published()
    week = LAST - timedelta(days=3)
    said = [
        evaluated(week, "profiles", "calibration_ratio", 1.25, numerator=150.0, denominator=120.0, horizon_days=30),
        evaluated(week, "profiles", "clv_calibration_ratio", 0.8, numerator=4000.0, denominator=5000.0, horizon_days=90),
        evaluated(week, "profiles", "clv_coverage", 0.95, 0.9, horizon_days=90),
        evaluated(LAST, "profiles", "calibration_ratio", 9.0, numerator=9.0, denominator=1.0, horizon_days=30, is_mature=False),
        evaluated(week, "profiles", "clv_calibration_ratio", 7.0, horizon_days=90, segment_type="segment", segment="loyal"),
    ]
    assert "What was said of people, and what came" not in page_of(shop(), frames)
    kept = frames | {"evaluation_report": pl.concat([frames["evaluation_report"], conform("evaluation_report", said)])}
    text = [each.strip().replace("\u00a0", " ") for each in Reading(page_of(shop(), kept)).text if each.strip()]
    when = "Fri 2 Oct 2026"
    for name, cells in (
        ("People who order within 30 days", [when, "150", "120", "1.25 (1.12 to 1.38)"]),
        ("Margin of 90 days", [when, "€4,000", "€5,000", "0.80 (0.72 to 0.88)"]),
        ("People whose margin of 90 days lies within their interval", [when, "90.0 %", "95.0 %", "–"]),
    ):
        place = text.index(name)
        assert text[place + 1 : place + 5] == cells
    assert "Buyers without an order for 90 days" not in text
    assert "90 天内不再下单的老客户" not in page_of(shop(language="zh"), kept) and "30 天内下单的用户" in page_of(shop(language="zh"), kept)


def test_places_that_run_out_are_told_with_the_stock_elsewhere() -> None:
    frames = published()
    assert "Places that run out" not in page_of(shop(), frames)
    stock = frames["inventory_plan"]
    first = stock.filter(pl.col("as_of_date") == LAST)["item_id"].sort()[0]
    of_place = stock.filter(pl.col("as_of_date") == LAST, pl.col("item_id") == first).with_columns(
        stock_on_hand=pl.lit(2, pl.Int64), order_quantity=pl.lit(0, pl.Int64), stockout_probability=pl.lit(0.75)
    )
    places = [of_place.with_columns(location_id=pl.lit(name)) for name in (EVIL, "south")]
    places.append(of_place.with_columns(location_id=pl.lit("north"), stockout_probability=pl.lit(0.4)))
    text = [each.strip() for each in Reading(page_of(shop(), frames | {"inventory_plan": pl.concat([stock, *places])})).text if each.strip()]
    assert "north" not in text
    place = text.index("south")
    assert text[place + 1 : place + 4] == ["2", "0", "3"]  # 5 in all
    assert text[place + 5].replace("\u00a0", " ") == "75 %"
    title = text.index("Places that run out before an order arrives")
    assert EVIL in text[title : text.index("People", title)]
    count = stock.filter(pl.col("as_of_date") == LAST).height
    assert f"10 of {count} items" in " ".join(text)


def test_units_to_move_are_told_from_where_to_where_and_are_something_to_do() -> None:
    frames = published()
    stock = frames["inventory_plan"]
    assert "Units to move" not in page_of(shop(), frames)
    first = stock.filter(pl.col("as_of_date") == LAST)["item_id"].sort()[0]
    of_item = stock.filter(pl.col("as_of_date") == LAST, pl.col("item_id") == first).with_columns(order_quantity=pl.lit(0, pl.Int64))
    places = [
        of_item.with_columns(location_id=pl.lit(name), stock_on_hand=pl.lit(units), days_of_cover=pl.lit(cover), transfer_quantity=pl.lit(moved))
        for name, units, cover, moved in ((EVIL, 3, 0.4, 7), ("south", 9, 1.5, 4), ("store room", 90, None, -11), ("west", 6, 3.0, 0))
    ]
    placed = frames | {"inventory_plan": pl.concat([stock, *places], how="vertical_relaxed")}
    text = [each.strip() for each in Reading(page_of(shop(), placed)).text if each.strip()]
    title = text.index("Units to move between places")
    head = title + 1 + text[title + 1 :].index("Days of cover there")
    assert [text[head + 2 : head + 7], text[head + 8 : head + 13]] == [
        ["store room", EVIL, "7", "3", "0.4"], ["store room", "south", "4", "9", "1.5"]
    ]  # fmt: skip
    whole = " ".join(text).replace("\u00a0", " ")
    assert "11 units should be moved between places." in whole and "Move 11 units between places: first 7 of" in whole
    assert "地点间调拨" in page_of(shop(language="zh"), placed)


def test_a_figure_that_fell_beyond_chance_is_something_to_look_at() -> None:
    """Guards a green "All quiet" over red tiles; the other way round, and within chance, nothing is said."""
    frames = published()
    day = pl.col("as_of_date") == LAST
    is_revenue = day & (pl.col("concept") == "shop") & (pl.col("metric") == "revenue")
    usual = {"fell": 1e6, "within": None, "rose": 1.0}
    said = {}
    for name, value in usual.items():
        report = frames["evaluation_report"]
        if value is not None:
            report = report.with_columns(baseline_value=pl.when(is_revenue).then(value).otherwise("baseline_value"))
        said[name] = " ".join(Reading(page_of(shop(), frames | {"evaluation_report": report})).text)
    assert "Worse than usual, beyond chance: Revenue" in said["fell"]
    assert "Worse than usual, beyond chance: Revenue" not in said["within"] + said["rose"]


def test_a_shop_without_ads_or_reviews_shows_no_figure_of_theirs() -> None:
    """No tile that could only ever be a dash, and no experiment on ads nobody runs."""
    frames = published()
    text = " ".join(Reading(page_of(shop(sources={"events": SOURCE}), frames)).text)
    assert "What the system itself brings" in " ".join(Reading(page_of(shop(), frames)).text)
    assert "What the system itself brings" not in text, "only ads_holdout is in the table"
    report = frames["evaluation_report"].filter(pl.col("metric") != "mean_rating")
    assert "Rating, 28 days" not in " ".join(Reading(page_of(shop(), frames | {"evaluation_report": report})).text)


def test_limits_in_a_note_go_by_their_names() -> None:
    note = "no plan meets every limit; relaxed: target_conversions -0.68. By itself would do: target_conversions -0.68"
    note += ", or frequency_cap:at_risk +1.00"
    assert said_note(note, Words(shop())).endswith("target of conversions −0.68, or frequency cap of audience at_risk +1.00.")
    assert said_note(note, Words(shop(language="zh"))).endswith("单独放宽其一即可：转化目标 −0.68，或受众频次上限 有流失风险 +1.00。")
    assert said_note(None, Words(shop())) == ""


def test_chinese_page_has_no_english_sentence_of_ours() -> None:
    """Every sentence is worded twice; what stays Latin comes from data or names a thing of the system."""
    page = page_of(shop(language="zh"))
    assert '<html lang="zh-Hans">' in page and "今日要务" in page and "可信程度" in page
    text = " ".join(Reading(page).text).replace(EVIL, "")
    for word in ("Order value", "What to do", " should ", " would ", " of them", "Every limit", "usual"):
        assert word not in text, word


def test_sections_without_their_source_say_which() -> None:
    page = page_of(shop(sources={"impressions": SOURCE}), {})
    text = " ".join(Reading(page).text)
    assert text.count("needs the source “events”") == 3
    text = " ".join(Reading(page_of(shop(sources={"events": SOURCE}), {})).text)
    assert "“impressions” or “ad_reports” or “placements”" in text and "needs reviews" in text and "Stock is unknown" in text


def test_a_day_with_nothing_at_all_still_has_a_page() -> None:
    for language in ("en", "zh"):
        assert "<h1>" in page_of(shop(language=language), {})


def test_a_refused_plan_is_the_first_thing_said() -> None:
    frames = dict(published())
    refused = {
        "as_of_date": LAST,
        "plan_id": "p",
        "status": "refused",
        "solver": "none",
        "seconds": 0.0,
        "is_relaxed": False,
        "note": "clicks: 9 predicted, 90 observed",
    }
    frames["ad_plan_runs"] = conform("ad_plan_runs", [refused])
    frames["ad_plan"] = frames["ad_plan"].filter(pl.col("as_of_date") < LAST)
    text = " ".join(Reading(page_of(shop(), frames)).text)
    assert "No plan for tomorrow. Clicks: 9 predicted, 90 observed." in text and "Run the plan" not in text


def test_a_plan_without_ads_says_why_and_is_not_to_be_run() -> None:
    frames = dict(published())
    runs = frames["ad_plan_runs"].with_columns(note=pl.lit("no cell is worth anything"))
    frames |= {"ad_plan_runs": runs, "ad_plan": frames["ad_plan"].filter(pl.col("as_of_date") < LAST)}
    text = " ".join(Reading(page_of(shop(), frames)).text)
    assert "No ads are planned for tomorrow. No cell is worth anything." in text
    assert "Run the plan" not in text and "of the ad budget" not in text


def test_the_last_money_of_a_budget_is_spoken_of_where_it_is_spent() -> None:
    frames = dict(published())
    spent = float(frames["ad_plan"].filter(pl.col("as_of_date") == LAST)["planned_spend"].cast(pl.Float64).sum())

    def told(budget: float) -> bool:
        current = pl.when("is_current")
        scenarios = frames["ad_plan_scenarios"].with_columns(
            budget=current.then(budget).otherwise("budget"), marginal_revenue=current.then(0.5).otherwise("marginal_revenue")
        )
        return "of the ad budget brings only" in " ".join(Reading(page_of(shop(), {**frames, "ad_plan_scenarios": scenarios})).text)

    assert told(spent) and not told(2 * spent)


def test_the_file_is_written_whole_and_is_the_same_again(tmp_path: Path) -> None:
    store = shop(tmp_path)
    reader = reader_over(published(), store, LAST)
    path = write_report(reader, LAST, store)
    first = path.read_bytes()
    assert path == tmp_path / "reports" / "2026-10-05.html" and write_report(reader, LAST, store).read_bytes() == first
    assert [entry.name for entry in path.parent.glob("[!.]*")] == [path.name]


def test_a_large_shop_fits_into_five_megabytes() -> None:
    assert len(page_of(shop(), published(20_000)).encode()) < 5_000_000
