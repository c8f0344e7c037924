"""The evaluation report: hand-computed figures, restating, no leakage, one range or many days, independent oracles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from scipy.stats import gamma

from marketing_assets.config import Store
from marketing_assets.evaluation import build_evaluation, build_off_policy, outlooks, what_if
from marketing_assets.evaluation.demand import series_errors, summarise
from marketing_assets.evaluation.outlooks import score_outlooks
from marketing_assets.evaluation.propensities import score_binary
from marketing_assets.evaluation.windows import arrival, by_cell_and_cluster, expand, scored_windows, stack
from marketing_assets.intervals import clustered, clustered_means, poisson_weights, seeded
from marketing_assets.schemas import QUANTILE_COLUMNS, TABLES
from marketing_assets.warehouse import FittedModel, Reader, days_between, polars_schema, reader_over

FIRST = date(2026, 1, 1)
SOURCE = {"files": "f_{date}.csv", "columns": {"*": "*"}}


def shop(**changes: Any) -> Store:
    sources = {name: SOURCE for name in ("events", "impressions", "conversions", "items")}
    settings: dict[str, Any] = {
        "name": "test",
        "timezone": "Europe/Berlin",
        "currency": "EUR",
        "first_day": FIRST,
        "maturity_days": 5,
        "sources": sources,
        "profiles": {"horizon_days": 7, "churn_horizon_days": 14, "clv_horizon_days": 21},
        "evaluation": {"at_k": (2, 3), "bootstrap_replicates": 50},
    }
    return Store.model_validate({**settings, **changes})


def conform(name: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    schema = polars_schema(name)
    frame = pl.DataFrame(rows, infer_schema_length=None) if rows else pl.DataFrame()
    return frame.select(
        [
            (pl.col(column) if column in frame.columns else pl.lit(None)).cast(kind).alias(column)
            for column, kind in schema.items()
        ]
    )


@cache
def lived_shop() -> dict[str, pl.DataFrame]:
    """Sixty days of sixty users, with rows and conversions that land late, lists, profiles, plans and forecasts."""
    generator, other = np.random.default_rng(7), np.random.default_rng(8)
    days = days_between(FIRST, FIRST + timedelta(days=59))
    items = [f"i{number}" for number in range(8)]
    events, sessions, impressions, conversions, item_days = [], [], [], [], []
    audiences, lists, profiles, plans, rates, forecasts, catalogue, stock = [], [], [], [], [], [], [], []
    for number, day in enumerate(days):
        for item in items if number % 28 == 0 else []:
            catalogue.append(
                {
                    "as_of_date": day,
                    "item_id": item,
                    "category": "a" if item < "i4" else "b",
                    "unit_price": 10,
                    "unit_cost": 6,
                    "first_seen_date": FIRST,
                    "is_service": False,
                }
            )
        users = [f"u{user}" for user in range(60) if generator.random() < 0.3]
        entries = [f"u{user}" for user in range(60)] if number % 7 == 0 else users
        for user in [*entries, "unknown"]:
            ranked = generator.permutation(items)[:3]
            lists += [
                {
                    "as_of_date": day,
                    "user_id": user,
                    "rank": rank + 1,
                    "item_id": item,
                    "score": 1.0,
                    "reason": "test",
                    "policy_id": "held_out" if user.endswith("0") else "ranker",
                    "is_holdout": user.endswith("0"),
                    "logging_propensity": 1.0,
                    "issued_date": day,
                }
                for rank, item in enumerate(ranked)
            ]
        for user in entries:
            profiles.append(
                {
                    "as_of_date": day,
                    "user_id": user,
                    "issued_date": day,
                    "frequency": int(other.integers(0, 4)),
                    "monetary": int(other.integers(0, 5)),
                    "recency_days": int(other.integers(0, 15)),
                    "churn_probability": float(other.uniform(0.05, 0.6)),
                    "clv_90d": (value := float(other.integers(0, 60))),
                    "clv_90d_low": value * 0.3,
                    "clv_90d_high": value * 2 + 5,
                    "segment": "loyal",
                    "purchase_propensity": float(generator.uniform(0.1, 0.9)),
                    "preferred_category": (None, "a", "b")[(int(user[1:]) + number // 5) % 3],
                    "model_version": "1",
                }
            )
            audiences.append(
                {
                    "as_of_date": day,
                    "user_id": user,
                    "audience_id": "everyone",
                    "priority": 1,
                    "is_holdout": user < "u3",
                    "issued_date": day,
                }
            )
        for user in users:
            landed = day + timedelta(days=int(generator.random() < 0.1) * int(generator.integers(1, 4)))
            at = datetime(day.year, day.month, day.day, 12)
            device = "mobile" if user < "u3" else "desktop"
            bought = generator.random() < 0.5
            item = str(generator.choice(items))
            name = f"{user}-{number}"
            base = {
                "landed_date": landed,
                "event_date": day,
                "event_at": at,
                "user_id": user,
                "session_id": name,
                "item_id": item,
                "device": device,
                "is_bot": user == "u7",
                "is_service": False,
                "raw_row_id": name,
                "revenue": 0,
            }
            events.append({**base, "event_id": f"v{name}", "event_type": "view_item"})
            units = int(generator.integers(1, 4))
            if bought:
                events.append(
                    {
                        **base,
                        "event_id": f"p{name}",
                        "event_type": "purchase",
                        "order_id": name,
                        "quantity": units,
                        "revenue": 10 * units,
                    }
                )
                item_days.append(
                    {
                        "landed_date": landed,
                        "event_date": day,
                        "item_id": item,
                        "units_sold": units,
                        "units_returned": 0,
                        "orders": 1,
                        "revenue": 10 * units,
                        "views": 1,
                        "carts": 0,
                    }
                )
            sessions.append(
                {
                    "as_of_date": landed,
                    "session_id": name,
                    "user_id": user,
                    "started_at": at,
                    "ended_at": at,
                    "events": 1 + bought,
                    "views": 1,
                    "searches": 0,
                    "wishlists": 0,
                    "carts": 0,
                    "checkouts": 0,
                    "purchases": int(bought),
                    "revenue": 10 * units * bought,
                    "device": device,
                    "is_bot": user == "u7",
                }
            )
            for place in ("home", "search"):
                shown = f"{place}{name}"
                clicked = bool(generator.random() < 0.4)
                impressions.append(
                    {
                        "landed_date": day,
                        "impression_date": day,
                        "impression_id": shown,
                        "shown_at": at,
                        "hour": 13,
                        "user_id": user,
                        "audience_id": "everyone",
                        "campaign_id": "c",
                        "creative_id": f"k{generator.integers(2)}",
                        "item_id": item,
                        "placement_id": place,
                        "policy_id": "log",
                        "plan_id": "p",
                        "logging_propensity": 0.5,
                        "spend": 1,
                        "is_clicked": clicked,
                        "raw_row_id": shown,
                        "context": f'{{"device": "{device}"}}',
                    }
                )
                if clicked and generator.random() < 0.6:
                    conversions.append(
                        {
                            "landed_date": day + timedelta(days=int(generator.integers(0, 5))),
                            "conversion_id": f"c{shown}",
                            "impression_id": shown,
                            "converted_at": at,
                            "conversion_value": 10,
                            "attribution_rule": "reported",
                            "is_refunded": False,
                        }
                    )
        for place in ("home", "search"):
            for creative in ("k0", "k1"):
                plans.append(
                    {
                        "as_of_date": day,
                        "plan_date": day + timedelta(days=1),
                        "plan_id": "p",
                        "audience_id": "everyone",
                        "campaign_id": "c",
                        "creative_id": creative,
                        "placement_id": place,
                        "hour": 13,
                        "planned_impressions": 6.0,
                        "planned_spend": 6.0,
                        "expected_clicks": 2.4,
                        "expected_conversions": 1.4,
                        "expected_revenue": 14.0,
                        "logging_propensity": 0.5,
                        "is_exploration": False,
                    }
                )
                rates.append(
                    {
                        "as_of_date": day,
                        "audience_id": "everyone",
                        "creative_id": creative,
                        "placement_id": place,
                        "hour": 13,
                        "campaign_id": "c",
                        "item_id": "i0",
                        "ctr": 0.4,
                        "cvr": 0.6,
                        "evidence": "ad_log",
                    }
                )
        if number % 7 == 0:
            for ahead in range(1, 36):
                for item in items:
                    mean = float(generator.uniform(0.2, 2))
                    forecasts.append(
                        {
                            "as_of_date": day,
                            "level": "item",
                            "series_id": item,
                            "item_id": item,
                            "date": day + timedelta(days=ahead),
                            "horizon_days": ahead,
                            "demand_mean": mean,
                            "model": "m",
                            **{column: mean * 2 * share for share, column in QUANTILE_COLUMNS.items()},
                        }
                    )
                for level, series in (("category", "a"), ("category", "b"), ("shop", "shop")):
                    forecasts.append(
                        {
                            "as_of_date": day,
                            "level": level,
                            "series_id": series,
                            "date": day + timedelta(days=ahead),
                            "horizon_days": ahead,
                            "demand_mean": 8.0,
                            "model": "m",
                            **{column: 16 * share for share, column in QUANTILE_COLUMNS.items()},
                        }
                    )
    tables = {
        "clean_events": events,
        "sessions": sessions,
        "clean_impressions": impressions,
        "attributed_conversions": conversions,
        "item_days": item_days,
        "recommendations": lists,
        "user_profiles": profiles,
        "audiences": audiences,
        "ad_plan": plans,
        "response_rates": rates,
        "demand_forecasts": forecasts,
        "items": catalogue,
        "inventory_plan": stock,
    }
    return {name: conform(name, rows) for name, rows in tables.items()}


PROPENSITY_FIT = FittedModel(
    "profiles.propensity", "1", FIRST, "first", True, FIRST, {"threshold": 0.6}, [], {}, "json", "{}"
)


def reader_until(day: date, store: Store, frames: dict[str, pl.DataFrame] | None = None) -> Reader:
    known = {name: frame.filter(pl.col(TABLES[name].partition_column) <= day) for name, frame in (frames or lived_shop()).items()}
    return reader_over(known, store, day, [PROPENSITY_FIT])


def report(days: Sequence[date], store: Store | None = None, table: str = "evaluation_report") -> pl.DataFrame:
    store = store or shop()
    built = build_evaluation(reader_until(days[-1], store), days, store).tables[table]
    assert isinstance(built, pl.DataFrame)
    return built


@cache
def whole_range() -> dict[str, pl.DataFrame]:
    store = shop()
    days = days_between(FIRST, FIRST + timedelta(days=59))
    return evaluated(reader_until(days[-1], store), days, store)


def evaluated(reader: Reader, days: list[date], store: Store) -> dict[str, pl.DataFrame]:
    return {**build_evaluation(reader, days, store).tables, **build_off_policy(reader, days, store).tables}  # type: ignore[dict-item]


def row(frame: pl.DataFrame, day: date, metric: str, **keys: Any) -> dict[str, Any]:
    keys = {"segment_type": "all", "policy_id": "all", "horizon_days": 1, "outcome_date": day, **keys}
    chosen = frame.filter(
        pl.col("as_of_date") == day, pl.col("metric") == metric, *[pl.col(name) == value for name, value in keys.items()]
    )
    assert chosen.height == 1, (metric, keys, chosen)
    return chosen.row(0, named=True)


@pytest.mark.parametrize("number", [0, 1, 9, 30, 59])
def test_a_day_alone_equals_the_day_in_a_range_and_sees_nothing_later(number: int) -> None:
    day = FIRST + timedelta(days=number)
    store = shop()
    alone = evaluated(reader_until(day, store), [day], store)
    for name, frame in whole_range().items():
        assert_frame_equal(alone[name], frame.filter(pl.col("as_of_date") == day), rel_tol=1e-9)  # type: ignore[arg-type]


def test_every_table_keeps_its_schema_and_unique_keys() -> None:
    for name, frame in whole_range().items():
        assert dict(frame.schema) == polars_schema(name)
        assert frame.unique(TABLES[name].key).height == frame.height
        assert frame.height > 0


def test_shop_figures_by_plain_loops() -> None:
    day = FIRST + timedelta(days=40)
    events = (
        lived_shop()["clean_events"]
        .filter(pl.col("landed_date") <= day, pl.col("event_date") == day, ~pl.col("is_bot"))
        .to_dicts()
    )
    bought = [event for event in events if event["event_type"] == "purchase"]
    result = whole_range()["evaluation_report"]
    assert row(result, day, "orders")["value"] == len({event["order_id"] for event in bought})
    assert row(result, day, "revenue")["value"] == pytest.approx(sum(float(event["revenue"]) for event in bought))
    assert row(result, day, "average_order_value")["value"] == pytest.approx(
        np.mean([float(event["revenue"]) for event in bought])
    )
    sessions = {event["session_id"] for event in events}
    rate = row(result, day, "session_conversion_rate")
    assert (rate["numerator"], rate["denominator"]) == (len({event["session_id"] for event in bought}), len(sessions))
    assert rate["ci_low"] < rate["value"] < rate["ci_high"]
    mobile = row(result, day, "session_conversion_rate", segment_type="device", segment="mobile")
    assert mobile["denominator"] == len({event["session_id"] for event in events if event["device"] == "mobile"})
    # the baseline: the same weekday of four weeks, as known now
    past = [day - timedelta(days=lag) for lag in (7, 14, 21, 28)]
    known = lived_shop()["clean_events"].filter(pl.col("landed_date") <= day, pl.col("event_date").is_in(past), ~pl.col("is_bot"))
    before = known.filter(pl.col("event_type") == "purchase")["session_id"].n_unique() / known["session_id"].n_unique()
    assert rate["baseline_value"] == pytest.approx(before)


@pytest.mark.parametrize(("views", "purchases"), [(0, 1), (1, 0)])
def test_orders_alone_and_looks_alone_tell_no_conversion(views: int, purchases: int) -> None:
    """A shop that lands orders alone would be told that every session buys, one that lands looks or reviews alone that none does."""
    store = shop()
    days = [FIRST + timedelta(days=place) for place in range(40)]
    none = {**dict.fromkeys(("searches", "wishlists", "carts", "checkouts", "refunds", "reviews"), 0), "revenue": 0, "events": 1, "is_bot": False}
    rows = [
        {"as_of_date": day, "session_id": f"{day} {one}", "started_at": datetime.combine(day, datetime.min.time()), "views": views, **none}
        | {"purchases": purchases}
        for day in days
        for one in range(3)
    ]
    # one session of the other kind lands on the fourth day, and tells for four weeks
    rows.append({**rows[9], "session_id": "other", "views": 1, "purchases": 1 - purchases})
    frames = {name: frame.clear() for name, frame in lived_shop().items()} | {"sessions": conform("sessions", rows)}
    scored = build_evaluation(reader_until(days[-1], store, frames), days, store).tables["evaluation_report"]
    assert isinstance(scored, pl.DataFrame)
    of_all = scored.filter(pl.col("segment_type") == "all", pl.col("outcome_date") == pl.col("as_of_date"))
    told = {metric: sorted(part["as_of_date"]) for (metric,), part in of_all.group_by("metric")}
    assert told["sessions"] == days
    assert told["session_conversion_rate"] == days[3:31]


def test_late_rows_restate_the_past_from_the_day_they_land() -> None:
    """A figure must be corrected by new rows of later days, never in the past partition."""
    result = whole_range()["evaluation_report"].filter(
        pl.col("metric") == "cvr", pl.col("segment_type") == "all", pl.col("policy_id") == "all"
    )
    outcome = FIRST + timedelta(days=30)
    restated = result.filter(pl.col("outcome_date") == outcome).sort("as_of_date")
    assert restated["as_of_date"][0] == outcome and not restated["is_mature"][0]
    assert restated["is_mature"][-1] and restated["is_mature"].sum() == 1
    assert restated["numerator"].is_sorted() and restated["numerator"][-1] > restated["numerator"][0]
    assert (restated["as_of_date"].max() - outcome).days <= 5  # type: ignore[operator]
    shown = lived_shop()["clean_impressions"].filter(pl.col("impression_date") == outcome)
    for as_of, conversions in restated.select("as_of_date", "numerator").iter_rows():
        landed = lived_shop()["attributed_conversions"].filter(pl.col("landed_date") <= as_of)
        assert conversions == shown.join(landed, on="impression_id").height


def test_ad_figures_by_plain_loops() -> None:
    day = FIRST + timedelta(days=33)
    shown = lived_shop()["clean_impressions"].filter(pl.col("impression_date") == day)
    result = whole_range()["evaluation_report"].filter(pl.col("concept").is_in(["ads", "plan"]))
    home = shown.filter(pl.col("placement_id") == "home")
    ctr = row(result, day, "ctr", segment_type="placement", segment="home")
    assert (ctr["numerator"], ctr["denominator"], ctr["n"]) == (home["is_clicked"].sum(), home.height, home["user_id"].n_unique())
    mobile = row(result, day, "ctr", segment_type="device", segment="mobile")
    assert mobile["denominator"] == shown.filter(pl.col("context").str.contains("mobile")).height
    assert row(result, day, "ctr", policy_id="log")["denominator"] == shown.height
    assert row(result, day, "spend")["value"] == shown.height
    ratio = row(result, day, "ctr_calibration_ratio")
    assert ratio["numerator"] == pytest.approx(0.4 * shown.height) and ratio["denominator"] == shown["is_clicked"].sum()
    final = result.filter(
        pl.col("outcome_date") == day, pl.col("is_mature"), pl.col("policy_id") == "all", pl.col("segment_type") == "all"
    )
    value = {metric: number for metric, number in final.select("metric", "value").iter_rows()}
    paid = shown.join(lived_shop()["attributed_conversions"], on="impression_id").height
    assert value["ad_revenue"] == 10 * paid
    assert value["roas"] == pytest.approx(10 * paid / shown.height)
    assert value["roi"] == pytest.approx((10 * paid * 0.4 - shown.height) / shown.height)  # a margin of 0.4 of the price
    assert value["clicks_promise_ratio"] == pytest.approx(shown["is_clicked"].sum() / 9.6)
    assert value["conversions_promise_ratio"] == pytest.approx(paid / 5.6)


@pytest.mark.parametrize(
    ("sources", "told"),
    [
        ({"impressions": ["is_clicked"]}, ()),  # a rate of conversions of zero was once told of such logs
        ({"impressions": ["is_clicked"], "events": ["unit_price"]}, ()),  # purchases find no clicks without people
        ({"impressions": ["is_clicked", "is_converted"]}, ("cvr",)),
        ({"impressions": ["is_clicked", "user_id"], "events": ["item_id"]}, ("cvr",)),
        ({"impressions": ["is_clicked"], "conversions": ["conversion_value"]}, ("cvr", "ad_revenue", "roas", "roi")),
        ({"ad_reports": ["clicks", "spend"]}, ()),
        ({"ad_reports": ["clicks", "spend", "conversions"]}, ("cvr",)),
        ({"ad_reports": ["clicks", "spend", "conversions", "conversion_value"]}, ("cvr", "ad_revenue", "roas")),
    ],
)  # fmt: skip
def test_outcomes_that_nothing_tells_have_no_figures(sources: dict[str, list[str]], told: tuple[str, ...]) -> None:
    blocks = {name: {"files": "f_{date}.csv", "columns": dict.fromkeys(columns, "x")} for name, columns in sources.items()}
    store, day = shop(sources=blocks), FIRST + timedelta(days=33)
    reader = reader_until(day, store)
    if "ad_reports" in sources:
        row = {"date": day, "landed_date": day, "campaign_id": "c", "impressions": 100, "clicks": 10, "spend": 5, "conversions": 2}
        nothing = {name: pl.lit(None, pl.Int64 if name == "hour" else pl.String) for name in ("creative_id", "placement_id", "audience_id", "hour")}
        reports = pl.DataFrame([row]).with_columns(**nothing, conversion_value=pl.lit(30))
        reader.accepted = lambda source, start, end: reports if source == "ad_reports" else pl.DataFrame()  # type: ignore[assignment,method-assign,misc]
    found = build_evaluation(reader, [day], store).tables["evaluation_report"]
    assert isinstance(found, pl.DataFrame)
    metrics = set(found.filter(pl.col("concept").is_in(["ads", "plan"]))["metric"])
    late = {"cvr", "ad_revenue", "roas", "roi", "cvr_calibration_ratio", "conversions_promise_ratio", "revenue_promise_ratio"}
    more = {"conversions_promise_ratio", "cvr_calibration_ratio"} if "cvr" in told and "impressions" in sources else set()
    more |= {"revenue_promise_ratio"} if "roas" in told and "impressions" in sources else set()
    assert "ctr" in metrics and metrics & late == set(told) | more


def test_impressions_without_an_audience_count_for_the_users_of_the_evening_before() -> None:
    """The rates of a cell are held against the impressions the response model counts there, not against 'unknown'."""
    from marketing_assets.evaluation.what_if import read_log

    day, store = FIRST + timedelta(days=33), shop()
    nameless = {**lived_shop(), "clean_impressions": lived_shop()["clean_impressions"].with_columns(audience_id=pl.lit(None, pl.String))}
    own = build_evaluation(reader_until(day, store, nameless), [day], store).tables["evaluation_report"]
    given = report([day])
    assert isinstance(own, pl.DataFrame)
    chosen = pl.col("concept").is_in(["ads", "plan"]) & (pl.col("outcome_date") == day)
    assert_frame_equal(own.filter(chosen), given.filter(chosen), rel_tol=1e-9)
    log, named = (read_log(reader_until(day, store, frames), day, day) for frames in (nameless, lived_shop()))
    assert_frame_equal(log, named)


def test_pacing_is_month_to_date_over_days_with_a_plan() -> None:
    day = date(2026, 2, 10)
    shown = lived_shop()["clean_impressions"].filter(pl.col("impression_date").is_between(date(2026, 2, 1), day))
    pacing = row(whole_range()["evaluation_report"], day, "pacing_ratio", horizon_days=10)
    assert pacing["value"] == pytest.approx(shown.height / (10 * 24.0))
    assert pacing["issued_date"] == date(2026, 1, 31)


def test_an_exported_plan_is_the_one_scored() -> None:
    store, day = shop(), FIRST + timedelta(days=20)
    reader = reader_until(day, store)
    issued = reader.window("ad_plan", day - timedelta(days=1), day - timedelta(days=1))
    exported = issued.with_columns(planned_spend=pl.lit(1000.0)).write_json()
    reader.connection.execute(
        "INSERT INTO exported_decisions VALUES ('e', 'ad_plan', ?, TIMESTAMP '2026-01-20 20:00:00', 'h', ?)",
        [day - timedelta(days=1), exported],
    )
    built = build_evaluation(reader, [day], store).tables["evaluation_report"]
    assert row(built, day, "spend_delivery_ratio")["denominator"] == 4000.0  # type: ignore[arg-type]


@pytest.mark.parametrize("horizon", [1, 7])
def test_list_metrics_by_plain_loops(horizon: int) -> None:
    day = FIRST + timedelta(days=38)
    issued = day - timedelta(days=horizon)
    frames = lived_shop()
    bought: dict[str, set[str]] = {}
    purchases = frames["clean_events"].filter(
        pl.col("event_type") == "purchase",
        ~pl.col("is_bot"),
        pl.col("landed_date") <= day,
        pl.col("event_date") > issued,
        pl.col("event_date") <= day,
    )
    for user, item in purchases.select("user_id", "item_id").iter_rows():
        bought.setdefault(user, set()).add(item)
    lists = reader_until(day, shop()).log_as_of("recommendations", issued)
    scores: dict[str, list[float]] = {name: [] for name in ("precision", "recall", "f1", "ndcg", "hit_rate")}
    popular = lists.filter(pl.col("user_id") == "unknown").sort("rank")["item_id"].to_list()[:2]
    baseline = []
    for user, items in bought.items():
        listed = lists.filter(pl.col("user_id") == user).sort("rank")["item_id"].to_list()[:2]
        hits = [item in items for item in listed]
        precision, recall = sum(hits) / 2, sum(hits) / min(2, len(items))
        ideal = sum(1 / math.log2(place + 2) for place in range(min(2, len(items))))
        scores["precision"].append(precision)
        scores["recall"].append(recall)
        scores["f1"].append(2 * precision * recall / (precision + recall) if sum(hits) else 0.0)
        scores["ndcg"].append(sum(hit / math.log2(place + 2) for place, hit in enumerate(hits)) / ideal)
        scores["hit_rate"].append(float(any(hits)))
        baseline.append(sum(item in items for item in popular) / min(2, len(items)))
    result = whole_range()["evaluation_report"]
    for name, values in scores.items():
        found = row(result, day, f"{name}_at_2", horizon_days=horizon)
        assert found["value"] == pytest.approx(np.mean(values)) and found["n"] == len(values)
    recall = row(result, day, "recall_at_2", horizon_days=horizon)
    assert recall["baseline"] == "popularity" and recall["baseline_value"] == pytest.approx(np.mean(baseline))
    shown = set()
    for user in bought:
        shown |= set(lists.filter(pl.col("user_id") == user, pl.col("rank") <= 2)["item_id"])
    assert row(result, day, "coverage_at_2", horizon_days=horizon)["value"] == pytest.approx(len(shown) / 8)


@pytest.mark.parametrize("horizon", [1, 7])
def test_choices_by_plain_loops(horizon: int) -> None:
    """Looks at listed items and what came of them, for the list served and for the popularity list, of people who have both."""
    day = FIRST + timedelta(days=38)
    issued = day - timedelta(days=horizon)
    events = lived_shop()["clean_events"].filter(
        ~pl.col("is_bot"), pl.col("landed_date") <= day, pl.col("event_date").is_between(issued + timedelta(days=1), day)
    )
    looked: dict[tuple[str, str], bool] = {}
    for user, item in events.filter(pl.col("event_type") == "view_item").select("user_id", "item_id").iter_rows():
        chosen = events.filter(pl.col("user_id") == user, pl.col("item_id") == item, pl.col("event_type") == "purchase")
        looked[user, item] = chosen.height > 0
    lists = reader_until(day, shop()).log_as_of("recommendations", issued).filter(pl.col("rank") <= 2)
    popular = lists.filter(pl.col("user_id") == "unknown")["item_id"].to_list()
    counts = {"all": [0, 0], "popular": [0, 0], "ranker": [0, 0]}
    for (user, item), is_chosen in looked.items():
        own = lists.filter(pl.col("user_id") == user)
        if own.is_empty():
            continue
        names = ["all"] * (item in own["item_id"].to_list()) + ["popular"] * (item in popular)
        names += ["ranker"] * ("all" in names and own["policy_id"][0] == "ranker")
        for name in names:
            counts[name][0] += is_chosen
            counts[name][1] += 1
    found = row(whole_range()["evaluation_report"], day, "choice_rate_at_2", horizon_days=horizon)
    assert [found["numerator"], found["denominator"]] == counts["all"] and counts["all"][1] > 2
    assert found["baseline_value"] == pytest.approx(counts["popular"][0] / counts["popular"][1])
    assert found["ci_low"] <= found["value"] <= found["ci_high"]
    by_policy = row(whole_range()["evaluation_report"], day, "choice_rate_at_2", horizon_days=horizon, policy_id="ranker")
    assert [by_policy["numerator"], by_policy["denominator"]] == counts["ranker"]


@pytest.mark.parametrize("horizon", [1, 7])
def test_preferred_categories_by_plain_loops(horizon: int) -> None:
    day = FIRST + timedelta(days=30)
    issued = day - timedelta(days=horizon)
    events = lived_shop()["clean_events"].filter(
        pl.col("event_date").is_between(issued + timedelta(days=1), day), pl.col("landed_date") <= day, ~pl.col("is_bot")
    )
    looks = events.filter(pl.col("event_type").is_in(["view_item", "purchase"])).select("user_id", "item_id").unique()
    profiles = lived_shop()["user_profiles"].filter(pl.col("as_of_date") <= issued)
    category_of = dict(lived_shop()["items"].select("item_id", "category").iter_rows())
    seen, hits = [], 0
    for user, item in looks.sort("user_id", "item_id").iter_rows():
        said = profiles.filter(pl.col("user_id") == user).sort("as_of_date")["preferred_category"].to_list()
        if said and said[-1] is not None:
            seen.append(category_of[item])
            hits += category_of[item] == said[-1]
    found = row(whole_range()["evaluation_report"], day, "preferred_category_rate", horizon_days=horizon)
    assert [found["numerator"], found["denominator"]] == [hits, len(seen)] and 0 < hits < len(seen)
    assert found["baseline_value"] == pytest.approx(max(seen.count(name) for name in set(seen)) / len(seen))
    assert found["ci_low"] <= found["value"] <= found["ci_high"]


def test_demand_by_plain_loops() -> None:
    issue = FIRST + timedelta(days=28)
    day = issue + timedelta(days=7)
    sold = lived_shop()["item_days"]
    forecasts = lived_shop()["demand_forecasts"].filter(pl.col("as_of_date") == issue, pl.col("horizon_days") <= 7)
    top = bottom = naive_top = 0.0
    for item in sorted(forecasts["item_id"].drop_nulls().unique()):
        history = [
            int(sold.filter(pl.col("item_id") == item, pl.col("landed_date") == past)["units_sold"].sum())
            for past in days_between(FIRST, issue)
        ]
        first = next(index for index, units in enumerate(history) if units)
        scale = np.mean(np.diff(history[first:]) ** 2)
        weight = float(
            sold.filter(pl.col("item_id") == item, pl.col("landed_date").is_between(issue - timedelta(days=27), issue))[
                "revenue"
            ].sum()
        )
        truth = [
            int(
                sold.filter(pl.col("item_id") == item, pl.col("event_date") == when, pl.col("landed_date") <= day)[
                    "units_sold"
                ].sum()
            )
            for when in days_between(issue + timedelta(days=1), day)
        ]
        mean = forecasts.filter(pl.col("item_id") == item).sort("date")["demand_mean"].to_numpy()
        top += weight * math.sqrt(np.mean((truth - mean) ** 2) / scale)
        naive_top += weight * math.sqrt(np.mean((np.array(truth) - history[-7:]) ** 2) / scale)
        bottom += weight
    found = row(whole_range()["evaluation_report"], day, "wrmsse", horizon_days=7, segment_type="level", segment="item")
    assert found["value"] == pytest.approx(top / bottom, rel=1e-9)
    assert found["baseline_value"] == pytest.approx(naive_top / bottom, rel=1e-9)
    assert (
        row(whole_range()["evaluation_report"], day, "rmsse", horizon_days=7, segment_type="level", segment="category")["n"] == 2
    )


def test_pinball_and_coverage_of_one_series() -> None:
    truth = np.array([[0.0, 4.0]])
    quantiles = np.tile(np.array(list(QUANTILE_COLUMNS)) * 4, (1, 2, 1))
    errors = series_errors(truth, np.full((1, 2), 2.0), quantiles, np.full((1, 2), 1.0), np.ones(1), np.full(1, 2.0), np.ones(1))
    from marketing_assets.schemas import M5_QUANTILES

    expected = np.mean([max(q * (y - 4 * q), (q - 1) * (y - 4 * q)) for y in (0.0, 4.0) for q in M5_QUANTILES])
    assert errors["pinball"][0] == pytest.approx(expected)
    assert errors["scaled_pinball"][0] == pytest.approx(expected / 2)
    assert errors["coverage_80"][0] == 0.0  # 0 < 0.4 and 4 > 3.6
    assert errors["rmsse"][0] == pytest.approx(2.0)
    metrics = {entry["metric"]: entry["value"] for entry in summarise(errors, np.ones(1, dtype=bool), 1.96)}
    assert metrics["calibration_ratio"] == pytest.approx(1.0)


def test_propensity_metrics_equal_scikit_learns() -> None:
    from sklearn.metrics import log_loss, roc_auc_score

    generator = np.random.default_rng(3)
    p = np.round(generator.uniform(0.05, 0.95, 500), 2)  # ties on purpose
    bought = (generator.random(500) < p).astype(float)
    table = pl.DataFrame(
        {
            "as_of_date": [FIRST] * 500,
            "outcome_date": [FIRST] * 500,
            "issued_date": [FIRST] * 500,
            "horizon_days": [7] * 500,
            "p": p,
            "bought": bought,
            "segment": ["loyal"] * 500,
        }
    )
    scored = {
        entry["metric"]: entry
        for entry in score_binary(table, ["as_of_date", "outcome_date", "issued_date", "horizon_days"], 0.95)
        .filter(pl.col("segment_type") == "all")
        .to_dicts()
    }
    assert scored["log_loss"]["value"] == pytest.approx(log_loss(bought, p), rel=1e-12)
    assert scored["auc"]["value"] == pytest.approx(roc_auc_score(bought, p), rel=1e-12)
    assert scored["calibration_ratio"]["value"] == pytest.approx(p.sum() / bought.sum())
    # DeLong's variance by its definition, pair by pair
    positive, negative = p[bought == 1], p[bought == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    spread = math.sqrt(wins.mean(axis=1).var(ddof=1) / len(positive) + wins.mean(axis=0).var(ddof=1) / len(negative))
    assert scored["auc"]["ci_high"] - scored["auc"]["ci_low"] == pytest.approx(2 * 1.959964 * spread, rel=1e-5)


def test_profiles_are_scored_over_their_horizon() -> None:
    day = FIRST + timedelta(days=50)
    issued = day - timedelta(days=7)
    profiles = reader_until(day, shop()).log_as_of("user_profiles", issued)
    purchases = lived_shop()["clean_events"].filter(
        pl.col("event_type") == "purchase",
        ~pl.col("is_bot"),
        pl.col("landed_date") <= day,
        pl.col("event_date") > issued,
        pl.col("event_date") <= day,
    )
    found = row(whole_range()["evaluation_report"], day, "calibration_ratio", horizon_days=7, concept="profiles")
    assert found["numerator"] == pytest.approx(profiles["purchase_propensity"].sum())
    assert found["denominator"] == purchases.filter(pl.col("user_id").is_in(profiles["user_id"].implode()))["user_id"].n_unique()


def outlook(day: date, horizon: int, as_of: date | None = None) -> pl.DataFrame:
    """Everyone's entry of `horizon` days before `day`, with whether the user ordered since and the margin brought, by plain sums."""
    issued = day - timedelta(days=horizon)
    events = lived_shop()["clean_events"].filter(
        ~pl.col("is_bot"), pl.col("landed_date") <= (as_of or day), pl.col("event_date") > issued, pl.col("event_date") <= day
    )
    bought = events.filter(pl.col("event_type") == "purchase").group_by("user_id").agg(
        margin=pl.col("revenue").cast(pl.Float64).sum() - 6 * pl.col("quantity").sum()
    )
    profiles = lived_shop()["user_profiles"].filter(pl.col("as_of_date") == issued, pl.col("user_id") != "unknown")
    return profiles.join(bought, on="user_id", how="left").with_columns(
        ordered=pl.col("margin").is_not_null(), margin=pl.col("margin").fill_null(0.0)
    )


def test_called_buyers_equal_scikit_learns() -> None:
    from sklearn.metrics import f1_score, precision_score, recall_score

    day = FIRST + timedelta(days=35 + 7)
    people = outlook(day, 7)
    ordered = people["ordered"].to_numpy()
    found = {
        metric: row(whole_range()["evaluation_report"], day, metric, horizon_days=7, concept="profiles") for metric in ("precision", "recall", "f1")
    }
    for calls, column in ((people["purchase_propensity"] >= 0.6, "value"), (people["recency_days"] < 7, "baseline_value")):
        called = calls.to_numpy()
        assert found["precision"][column] == pytest.approx(precision_score(ordered, called))
        assert found["recall"][column] == pytest.approx(recall_score(ordered, called))
        assert found["f1"][column] == pytest.approx(f1_score(ordered, called))
    assert all(entry["ci_low"] < entry["value"] < entry["ci_high"] and entry["baseline"] == "recent_buyers" for entry in found.values())


def test_churn_is_scored_among_buyers_over_its_own_horizon() -> None:
    from sklearn.metrics import log_loss, roc_auc_score

    day = FIRST + timedelta(days=28 + 14)
    people = outlook(day, 14).filter(pl.col("frequency") > 0)
    left, chance = (~people["ordered"]).to_numpy(), people["churn_probability"].to_numpy()
    report = whole_range()["evaluation_report"]
    assert row(report, day, "churn_log_loss", horizon_days=14)["value"] == pytest.approx(log_loss(left, chance))
    assert row(report, day, "churn_auc", horizon_days=14)["value"] == pytest.approx(roc_auc_score(left, chance))
    assert row(report, day, "churn_calibration_ratio", horizon_days=14)["value"] == pytest.approx(chance.sum() / left.sum())


def test_life_time_values_by_plain_loops() -> None:
    day = FIRST + timedelta(days=28 + 21)
    people = outlook(day, 21)
    report = whole_range()["evaluation_report"]
    margin = people["margin"].to_numpy()
    total = row(report, day, "clv_calibration_ratio", horizon_days=21)
    assert total["numerator"] == pytest.approx(people["clv_90d"].sum()) and total["denominator"] == pytest.approx(margin.sum())
    assert row(report, day, "clv_calibration_ratio", horizon_days=21, segment_type="segment", segment="loyal")["value"] == total["value"]
    stated = report.filter(
        pl.col("metric") == "clv_calibration_ratio", pl.col("segment_type") == "all", pl.col("outcome_date") == day, pl.col("as_of_date") > day
    )
    sums = {as_of: outlook(day, 21, as_of)["margin"].sum() for as_of in stated["as_of_date"]}  # stated again as late rows land
    assert stated["denominator"].to_list() == pytest.approx(list(sums.values())) and max(sums.values()) > total["denominator"]
    inside = [low <= brought <= high for low, high, brought in zip(people["clv_90d_low"], people["clv_90d_high"], margin, strict=True)]
    coverage = row(report, day, "clv_coverage", horizon_days=21)
    assert (coverage["value"], coverage["baseline_value"], coverage["n"]) == (pytest.approx(np.mean(inside)), 0.9, people.height)
    share = row(report, day, "clv_top_fifth_share", horizon_days=21)
    places = people.height / 5
    for column, said in (("clv_90d", "value"), ("monetary", "baseline_value")):
        taken, brought = 0.0, 0.0
        for value in sorted(set(people[column].to_list()), reverse=True):  # those of equal value share the places left
            alike = margin[(people[column] == value).to_numpy()]
            part = min(1.0, max(0.0, (places - taken) / len(alike)))
            taken, brought = taken + len(alike), brought + part * alike.sum()
        assert share[said] == pytest.approx(brought / margin.sum())


def test_outlooks_are_scored_once_a_week() -> None:
    report = whole_range()["evaluation_report"]
    told = report.filter(pl.col("metric").is_in(["f1", "churn_auc", "clv_coverage"]))
    assert set((told["issued_date"] - FIRST).dt.total_days() % 7) == {0}
    assert set(told["metric"]) == {"f1", "churn_auc", "clv_coverage"}


def test_outlooks_do_not_depend_on_how_many_windows_are_scored_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    together = whole_range()["evaluation_report"]
    monkeypatch.setattr(outlooks, "ROWS_AT_ONCE", 130)  # three windows of 60 people at a time
    store, days = shop(), days_between(FIRST, FIRST + timedelta(days=59))
    few = evaluated(reader_until(days[-1], store), days, store)["evaluation_report"]
    assert_frame_equal(few, together)


def test_margins_take_refunds_and_known_costs_off() -> None:
    """Three units at 10 that cost 6, one sent back: 8 of margin; an item without a cost is all margin; a fee is no order."""
    store, day = shop(), FIRST + timedelta(days=21)
    said = {"as_of_date": FIRST, "issued_date": FIRST, "segment": "loyal", "purchase_propensity": 0.5, "model_version": "none",
            "frequency": 1, "monetary": 1, "churn_probability": 0.5, "clv_90d": 10.0, "clv_90d_low": 0.0, "clv_90d_high": 9.0}  # fmt: skip
    base = {"landed_date": day, "event_date": day, "is_bot": False, "is_service": False, "event_type": "purchase"}
    events = [
        {**base, "user_id": "a", "item_id": "i", "quantity": 3, "revenue": 30},
        {**base, "user_id": "a", "item_id": "i", "quantity": 1, "revenue": -10, "event_type": "refund"},
        {**base, "user_id": "b", "item_id": "unknown", "quantity": 1, "revenue": 12},
        {**base, "user_id": "c", "item_id": "fee", "quantity": 1, "revenue": 2, "is_service": True},
        {**base, "user_id": "d", "item_id": "i", "quantity": 9, "revenue": 90, "is_bot": True},
    ]
    reader = reader_over(
        {
            "user_profiles": conform("user_profiles", [{**said, "user_id": user} for user in "abcd"]),
            "clean_events": conform("clean_events", events),
            "items": conform("items", [{"as_of_date": FIRST, "item_id": "i", "unit_cost": 6, "first_seen_date": FIRST, "is_service": False}]),
        },
        store, day,
    )  # fmt: skip
    seen = arrival(pl.DataFrame(schema={"event_date": pl.Date, "landed_date": pl.Date, "rows": pl.Int64}), [day], store, is_cold_start_mature=True)
    found = score_outlooks(reader, [day], store, seen)
    total = row(found, day, "clv_calibration_ratio", horizon_days=21)
    assert (total["numerator"], total["denominator"]) == (40.0, 8.0 + 12.0 + 2.0)
    assert row(found, day, "clv_coverage", horizon_days=21)["value"] == 0.75  # 12 lies above 9
    assert found.filter(pl.col("metric").is_in(["precision", "recall", "f1"])).is_empty()  # a model without a threshold calls nobody
    churn = shop(profiles={"horizon_days": 7, "churn_horizon_days": 21, "clv_horizon_days": 21})
    assert row(score_outlooks(reader, [day], churn, seen), day, "churn_calibration_ratio", horizon_days=21)["denominator"] == 2.0  # c and d left


def test_arrival_is_the_chain_ladder_by_hand() -> None:
    """Two event days: of 10 rows 8 land at once and 2 a day later; the newest day's rows must not count as complete."""
    store = shop(maturity_days=2)
    delays = pl.DataFrame(
        {
            "event_date": [FIRST, FIRST, FIRST + timedelta(days=1)],
            "landed_date": [FIRST, FIRST + timedelta(days=1), FIRST + timedelta(days=1)],
            "rows": [8, 2, 8],
        }
    )
    curve = arrival(delays, [FIRST + timedelta(days=1)], store, is_cold_start_mature=True).curve
    now = curve.filter(pl.col("as_of_date") == FIRST + timedelta(days=1)).sort("age_days")["maturity"].to_list()
    assert now == pytest.approx([0.8, 1.0])
    before = curve.filter(pl.col("as_of_date") == FIRST).sort("age_days")["maturity"].to_list()
    assert before == [1.0, 1.0]
    cold = arrival(delays, [FIRST + timedelta(days=1)], store, is_cold_start_mature=False).curve
    assert cold.filter(pl.col("as_of_date") == FIRST + timedelta(days=1))["maturity"].max() < 0.98  # type: ignore[operator]


def test_nothing_late_means_nothing_restated() -> None:
    delays = pl.DataFrame({"event_date": days_between(FIRST, FIRST + timedelta(days=30))}).with_columns(
        landed_date="event_date", rows=pl.lit(5)
    )
    days = [FIRST + timedelta(days=30)]
    windows = scored_windows(days, [1, 7], arrival(delays, days, shop(), is_cold_start_mature=True), FIRST)
    assert windows["outcome_date"].unique().to_list() == days and windows["is_mature"].all()


def test_a_figure_stated_again_without_news_is_computed_once() -> None:
    """Sums per window and part equal plain loops over what had landed; days without news share the cell of the day before."""
    generator = np.random.default_rng(4)
    days = days_between(FIRST, FIRST + timedelta(days=9))
    event = generator.integers(0, 10, 400)
    rows = pl.DataFrame(
        {
            "event_date": [days[number] for number in event],
            "landed_date": [days[min(number + late, 9)] for number, late in zip(event, generator.choice([0, 0, 0, 3], 400), strict=True)],
            "cluster": [f"u{number}" for number in generator.integers(0, 9, 400)],
            "device": generator.choice(["phone", "desk"], 400),
            "money": generator.random(400),
        }
    )
    nothing_yet = arrival(rows.clear(), days[5:], shop(), is_cold_start_mature=False)
    windows = scored_windows(days[5:], [1, 3], nothing_yet, FIRST)
    cells = expand(stack(rows, {"device": "device"}, ["money"]), windows, ["money"])
    told = cells.names.join(cells.rows, on="cell")
    assert cells.names["cell"].n_unique() < cells.names.height
    for name in cells.names.sample(40, seed=1).iter_rows(named=True):
        known = rows.filter(
            pl.col("landed_date") <= name["as_of_date"],
            pl.col("event_date").is_between(name["outcome_date"] - timedelta(days=name["horizon_days"] - 1), name["outcome_date"]),
            (pl.lit(name["segment_type"]) == "all") | (pl.col("device") == name["segment"]),
        )
        expected = dict(known.group_by("cluster").agg(pl.col("money").sum()).iter_rows())
        found = told.filter(pl.all_horizontal(pl.col(key) == value for key, value in name.items())).select("cluster", "money")
        assert dict(found.iter_rows()) == pytest.approx(expected)


# --- intervals --------------------------------------------------------------------------------------------------------


def test_intervals_cover_with_repeated_users() -> None:
    """Users repeat their own rate; intervals that ignored it would cover far less than they say."""
    hits = {"rate": 0, "ratio": 0}
    runs = 200
    for run in range(runs):
        generator = np.random.default_rng(run)
        rate = generator.beta(2, 6, 150)
        trials = generator.integers(1, 12, 150)
        wins = generator.binomial(trials, rate)
        rows = pl.DataFrame(
            {
                "cell": ["x"] * 150,
                "cluster": [f"u{number}" for number in range(150)],
                "num": wins.astype(float),
                "den": trials.astype(float),
            }
        )
        for kind in ("rate", "ratio"):
            found = clustered(rows, ["cell"], kind, seed=run).row(0, named=True)  # type: ignore[arg-type]
            hits[kind] += found["ci_low"] <= 0.25 <= found["ci_high"]
    assert 0.90 <= hits["rate"] / runs <= 0.99
    assert 0.90 <= hits["ratio"] / runs <= 0.99


def test_a_rate_of_zero_keeps_an_upper_end() -> None:
    rows = pl.DataFrame(
        {"cell": ["x"] * 20, "cluster": [f"u{number}" for number in range(20)], "num": [0.0] * 20, "den": [1.0] * 20}
    )
    found = clustered(rows, ["cell"], "rate").row(0, named=True)
    assert found["value"] == 0 and found["ci_low"] == 0 and 0.1 < found["ci_high"] < 0.2  # Wilson for 0 of 20: 0.161


def test_bootstrap_and_delta_method_agree() -> None:
    generator = np.random.default_rng(0)
    rows = pl.DataFrame(
        {
            "cell": ["x"] * 1500,
            "cluster": [f"u{number:04d}" for number in range(1500)],
            "num": generator.gamma(2, 10, 1500),
            "den": generator.integers(1, 4, 1500),
        }
    )
    found = clustered(rows, ["cell"], "ratio", replicates=2000).row(0, named=True)
    residual = (rows["num"] - found["value"] * rows["den"]).to_numpy()
    spread = 1.96 * math.sqrt((residual**2).sum()) / found["denominator"]
    assert found["ci_high"] - found["ci_low"] == pytest.approx(2 * spread, rel=0.06)


def test_a_total_is_a_compound_poisson_sum() -> None:
    rows = pl.DataFrame({"cell": ["x", "x"], "cluster": ["a", "b"], "num": [3.0, 4.0], "den": [0.0, 0.0]})
    found = clustered(rows, ["cell"], "total").row(0, named=True)
    assert (found["value"], found["n"]) == (7.0, 2)
    # mean 7 and variance 25 below, above with one more event of 4: mean 11, variance 41
    assert found["ci_low"] == pytest.approx(25 / 7 * gamma.ppf(0.025, 49 / 25))
    assert found["ci_high"] == pytest.approx(41 / 11 * gamma.ppf(0.975, 121 / 41))
    refunded = clustered(rows.with_columns(num=pl.Series([7.0, -1.0])), ["cell"], "total").row(0, named=True)
    assert refunded["ci_high"] - 6 == pytest.approx(1.959964 * 50**0.5)


def test_totals_of_a_few_unequal_orders_cover() -> None:
    """Two orders a day of skewed value: an interval that took their sum for normal would hold the truth on 85 days of 100."""
    generator = np.random.default_rng(3)
    truth = 2.2 * math.exp(0.7**2 / 2)
    counts = generator.poisson(2.2, 1500)
    cells = np.repeat(np.arange(1500), counts)
    rows = pl.DataFrame(
        {"cell": cells, "cluster": [f"{number:05d}" for number in range(cells.size)], "num": generator.lognormal(0, 0.7, cells.size), "den": 0.0}
    )
    found = clustered(rows, ["cell"], "total")
    covers = (found["ci_low"] <= truth) & (found["ci_high"] >= truth)
    assert 0.925 < covers.mean() < 0.98  # type: ignore[operator]


def test_poisson_weights_have_the_right_moments() -> None:
    weights = poisson_weights(seeded(1), 500, 400)
    assert weights.mean() == pytest.approx(1, abs=0.01) and weights.var() == pytest.approx(1, abs=0.02)


@hypothesis_settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.integers(0, 5)), min_size=1, max_size=40), st.randoms())
def test_the_order_of_rows_changes_nothing(entries: list[tuple[str, int, int]], random: Any) -> None:
    rows = pl.DataFrame(
        {
            "cell": ["x"] * len(entries),
            "cluster": [entry[0] for entry in entries],
            "num": [float(entry[1]) for entry in entries],
            "den": [float(entry[2]) for entry in entries],
        }
    )
    order = list(range(len(entries)))
    random.shuffle(order)
    assert_frame_equal(clustered(rows, ["cell"], "ratio", seed=1), clustered(rows[order], ["cell"], "ratio", seed=1))


def test_means_share_weights_across_metrics() -> None:
    generator = np.random.default_rng(1)
    values = generator.random(30)
    rows = pl.DataFrame(
        {"cell": ["x"] * 30, "cluster": [f"{number:02d}" for number in range(30)], "first": values, "second": 2 * values}
    )
    found = clustered_means(rows, ["cell"], ["first", "second"]).sort("metric")
    assert found["value"][1] == pytest.approx(2 * found["value"][0])
    assert found["ci_high"][1] == pytest.approx(2 * found["ci_high"][0])


# --- missing inputs, what-if ------------------------------------------------------------------------------------------


def test_a_shop_with_events_only() -> None:
    store = shop(sources={"events": SOURCE})
    day = FIRST + timedelta(days=20)
    frames = {name: lived_shop()[name] for name in ("clean_events", "sessions")}
    built = build_evaluation(reader_until(day, store, frames), [day], store)
    report = built.tables["evaluation_report"]
    assert set(report["concept"]) == {"shop"}  # type: ignore[index]
    plans = build_off_policy(reader_until(day, store, frames), [day], store)
    assert plans.degraded["off_policy_report"] == "needs source 'impressions'"
    assert plans.tables["off_policy_report"].height == 0  # type: ignore[union-attr]


def test_platform_reports_alone_give_the_ad_figures() -> None:
    """A newer report of the same day and campaign replaces the older one; nothing is counted twice."""
    store = shop(sources={"events": SOURCE, "ad_reports": SOURCE})
    day = FIRST + timedelta(days=3)
    reader = reader_until(day, store, {})
    reports = pl.DataFrame(
        {
            "date": [day, day - timedelta(days=1), day - timedelta(days=1)],
            "campaign_id": ["c"] * 3,
            "impressions": [100, 80, 90],
            "clicks": [10, 4, 9],
            "spend": [5, 4, 4],
            "conversions": [1, 0, 2],
            "conversion_value": [20, 0, 30],
            "landed_date": [day, day - timedelta(days=1), day],
            **dict.fromkeys(("creative_id", "placement_id", "audience_id"), [None] * 3),
            "hour": [None] * 3,
        },
        schema_overrides={"creative_id": pl.String, "placement_id": pl.String, "audience_id": pl.String, "hour": pl.Int64},
    )
    reader.accepted = lambda source, start, end: reports if source == "ad_reports" else pl.DataFrame()  # type: ignore[assignment,method-assign,misc]
    built = build_evaluation(reader, [day], store).tables["evaluation_report"]
    assert row(built, day, "ctr")["value"] == pytest.approx(0.1)  # type: ignore[arg-type]
    yesterday = built.filter(
        pl.col("outcome_date") == day - timedelta(days=1), pl.col("metric") == "cvr", pl.col("segment_type") == "all"
    )  # type: ignore[union-attr]
    assert yesterday["value"].to_list() == pytest.approx([2 / 9])


def test_what_if_values_a_plan_on_the_log() -> None:
    """A plan that would show what the log showed, in the same shares, is worth what the log brought."""
    store, day = shop(), FIRST + timedelta(days=45)
    reader = reader_until(day, store)
    result = what_if(reader, day, store).filter(pl.col("outcome") == "clicks")
    ips = result.filter(pl.col("estimator") == "snips").row(0, named=True)
    assert ips["mean_weight"] == pytest.approx(1, abs=0.1)
    assert ips["unsupported_share"] == 0
    assert ips["ci_low"] < ips["logged_value"] < ips["ci_high"]
    assert ips["value_per_day"] == pytest.approx(24 * ips["value"])
    nowhere = reader.window("ad_plan", day, day).with_columns(creative_id=pl.lit("never shown"))
    unsupported = what_if(reader, day, store, nowhere)
    assert unsupported["unsupported_share"].to_list() == [1.0] * unsupported.height
    assert not unsupported["is_supported"].any()
    assert set(what_if(reader, day, store)["outcome"]) == {"clicks", "conversions", "revenue"}
    for columns, outcomes in ((["is_clicked"], {"clicks"}), (["is_clicked", "is_converted"], {"clicks", "conversions"})):
        told = shop(sources={"impressions": {"files": "f_{date}.csv", "columns": dict.fromkeys(columns, "x")}})
        assert set(what_if(reader, day, told)["outcome"]) == outcomes


def test_holdout_report_compares_the_arms_by_plain_loops() -> None:
    day = FIRST + timedelta(days=59)
    result = whole_range()["experiment_report"].filter(
        pl.col("as_of_date") == day, pl.col("experiment") == "ads_holdout", pl.col("method") == "plain"
    )
    orders = (
        lived_shop()["clean_events"]
        .filter(
            pl.col("event_type") == "purchase", ~pl.col("is_bot"), pl.col("landed_date") <= day, pl.col("event_date") > FIRST
        )["user_id"]
        .to_list()
    )
    held = [f"u{user}" for user in range(60) if f"u{user}" < "u3"]
    others = [f"u{user}" for user in range(60) if f"u{user}" >= "u3"]
    found = result.filter(pl.col("metric") == "orders").row(0, named=True)
    assert (found["treated_users"], found["control_users"]) == (len(others), len(held))
    assert found["treated_mean"] == pytest.approx(np.mean([orders.count(user) for user in others]))
    assert found["control_mean"] == pytest.approx(np.mean([orders.count(user) for user in held]))
    conversion = result.filter(pl.col("metric") == "conversion").row(0, named=True)
    assert conversion["control_mean"] == pytest.approx(np.mean([user in orders for user in held]))
    assert not found["is_sample_ratio_ok"]  # 23 of 60 held out where 5 % were meant


def test_where_nobody_bought_the_arms_are_not_compared() -> None:
    """Nothing in both arms made an interval from zero to zero, as if it were known that the lists bring nothing."""
    day = FIRST + timedelta(days=59)
    frames = lived_shop()
    looks = frames["clean_events"].filter(pl.col("event_type") != "purchase")
    scored = [
        build_evaluation(reader_until(day, shop(), known), [day], shop()).tables["experiment_report"]
        for known in (frames, frames | {"clean_events": looks})
    ]
    assert [isinstance(found, pl.DataFrame) and found.height > 0 for found in scored] == [True, False]


def test_a_query_is_compiled_once_and_never_looks_ahead() -> None:
    from marketing_assets.evaluation.business import delays_query
    from marketing_assets.warehouse import WarehouseError

    store, day = shop(), FIRST + timedelta(days=20)
    reader = reader_until(day, store)
    events = lived_shop()["clean_events"]
    for start, end in ((FIRST, FIRST + timedelta(days=5)), (FIRST + timedelta(days=6), day)):
        expected = events.filter(pl.col("landed_date").is_between(start, end)).height
        assert delays_query(reader, start, end)["rows"].sum() == expected
    with pytest.raises(WarehouseError, match="after the newest day of the window"):
        delays_query(reader, FIRST, day + timedelta(days=1))


def test_formulas_by_hand() -> None:
    from marketing_assets import metrics

    outcome, probability = np.array([1.0, 0.0]), np.array([0.8, 0.4])
    assert metrics.log_loss(outcome, probability) == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)
    assert metrics.normalised_entropy(outcome, probability) == pytest.approx(metrics.log_loss(outcome, probability) / math.log(2))
    assert metrics.calibration_ratio(outcome, probability) == pytest.approx(1.2)
    assert metrics.roi(30, 20) == 0.5 and math.isnan(metrics.roi(1, 0)) and metrics.pacing_ratio(5, 10) == 0.5
    assert metrics.psi(np.array([10.0, 10.0]), np.array([20.0, 20.0])) == pytest.approx(0, abs=1e-3)
    assert metrics.psi_noise(3, 100, 400) == pytest.approx(2 * (0.01 + 0.0025))


def test_sums_by_cell_and_cluster_are_the_same_for_names_and_numbers() -> None:
    """Also where a row has no name, and in the same order."""
    rows = pl.DataFrame({"cell": [1, 0, 1, 0, 1, 0], "cluster": ["b", "c", None, "a", "b", None], "clicks": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]})
    plain = by_cell_and_cluster(rows, ["clicks"])
    coded = by_cell_and_cluster(rows.with_columns(pl.col("cluster").cast(pl.Enum(["a", "b", "c"]))), ["clicks"])
    expected = [(0, None, 32.0), (0, "a", 8.0), (0, "c", 2.0), (1, None, 4.0), (1, "b", 17.0)]
    for found in (plain, coded):
        assert found.with_columns(pl.col("cluster").cast(pl.String)).select("cell", "cluster", "clicks").rows() == expected
