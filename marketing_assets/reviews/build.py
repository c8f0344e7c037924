"""The window function: the day's complaints as tickets, with theme, trend, priority and a suggested answer.

What belongs here: reading the window once, what counts as a complaint, priorities. What does not: the text model
(complaints.py), vocabularies (themes.py), templates (answers.py).

Look-backs from day D: clean_events of D; their reviews service.history_days back on days the text model refits; purchases of
the authors service.order_days back; items and user_profiles to the last keyframe; own tickets of the 34 days before; own model.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import polars as pl

from marketing_assets.config import Store
from marketing_assets.model_store import ModelHistory, compare, fit_days, held_out, new_fit, rollbacks
from marketing_assets.reviews.answers import suggested_answer
from marketing_assets.reviews.complaints import ComplaintModel, fit_complaints
from marketing_assets.reviews.text import Language, language_of, redact
from marketing_assets.reviews.themes import themes_of
from marketing_assets.warehouse import Built, Reader, Trigger, polars_schema

TABLE = "service_tickets"
MODEL = "service.complaints"
EXCERPT_LETTERS = 280
RECENT_DAYS, USUAL_DAYS, ITEM_DAYS = 7, 28, 28
VALUED_SEGMENTS = ("champions", "loyal", "cannot_lose")
TREND = 2.0
"""A theme whose week holds at least so many times its usual complaints is rising."""

_WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "lowest": "lowest rating",
        "low": "low rating",
        "reads": "reads like a complaint",
        "safety": "mentions harm to health",
        "legal": "mentions fraud or law",
        "order": "order known",
        "valued": "valued customer",
        "item": "{n} complaints about this item in 28 days",
        "theme": "complaints of this kind are rising",
    },
    "zh": {
        "lowest": "最低评分",
        "low": "低评分",
        "reads": "内容像投诉",
        "safety": "提到身体伤害",
        "legal": "提到欺诈或法律",
        "order": "订单可查",
        "valued": "重要客户",
        "item": "该商品 28 天内有 {n} 起投诉",
        "theme": "此类投诉正在增加",
    },
}


def build_service_tickets(reader: Reader, days: Sequence[date], store: Store) -> Built:
    """service_tickets of `days`: one row per review that became known on a day and is a complaint.

    A complaint is a review rated at or below service.complaint_rating, or a text that reads like one where the rating is
    missing or at most service.neutral_rating. With methods 'plain', or before a first fit, only ratings count.
    """
    schema = polars_schema(TABLE)
    if not reader.has_source("events"):
        return Built({TABLE: pl.DataFrame(schema=schema)}, degraded={TABLE: "needs source 'events'"})
    history = _fits(reader, days, store)
    reviews = _reviews(reader, days[0], days[-1])
    complaints = _complaints(reviews, history, days, store)
    themed = pl.concat([complaints, themes_of(complaints["review_text"])], how="horizontal")
    placed = _with_segments(reader, _with_titles(reader, _with_orders(reader, themed, store), days), days)
    rows = _prioritised(_with_trends(reader, placed, days, store), store)
    rows = rows.select(pl.col(name).cast(kind) for name, kind in schema.items()).sort("as_of_date", "ticket_id")
    counted = rows.group_by("as_of_date").agg(
        tickets=pl.len(), urgent=(pl.col("priority") == "urgent").sum(), items=pl.col("item_id").n_unique()
    )
    metrics = {row.pop("as_of_date"): {name: float(value) for name, value in row.items()} for row in counted.to_dicts()}
    quiet = {"tickets": 0.0, "urgent": 0.0, "items": 0.0}
    return Built({TABLE: rows}, models=history.models, metrics={TABLE: {day: metrics.get(day, quiet) for day in days}})


def _reviews(reader: Reader, start: date, end: date) -> pl.DataFrame:
    """Reviews by people that landed in [start, end], sorted; a review has a rating or a text."""
    events = reader.table("clean_events")
    rows = events.filter(
        events.landed_date.between(start, end),
        events.event_type == "review",
        ~events.is_bot,
        events.rating.notnull() | events.review_text.notnull(),
    ).select("landed_date", "event_date", "event_id", "user_id", "item_id", "rating", "review_text")
    frame = reader.frame(rows)
    return (
        frame.cast({"landed_date": pl.Date, "event_date": pl.Date, "rating": pl.Float64, "review_text": pl.String})
        .with_columns(review_text=pl.when(pl.col("review_text").str.strip_chars() != "").then("review_text"))
        .sort("landed_date", "event_id")
    )


# --- the text model ---------------------------------------------------------------------------------------------------


def _fits(reader: Reader, days: Sequence[date], store: Store) -> ModelHistory:
    """Fits and rollbacks of the text model in the window."""
    history = ModelHistory(reader, days[0])
    if store.methods == "plain":
        return history
    triggers = fit_days(reader, days, store, TABLE, store.service.cadence_days)
    back = rollbacks(reader, days, TABLE)
    span = timedelta(days=store.service.history_days - 1)
    past = _reviews(reader, min(triggers) - span, max(triggers)) if triggers else None
    for day in days:
        if day in triggers and past is not None:
            _refit(history, past.filter(pl.col("landed_date").is_between(day - span, day)), day, triggers[day], store)
        for version in back.get(day, []):
            history.roll_back(version, day, [MODEL])
    return history


def _refit(history: ModelHistory, past: pl.DataFrame, day: date, trigger: Trigger, store: Store) -> None:
    """Fit on everyone but the held-out authors; the newcomer replaces the model in force where it loses less on them."""
    started = time.perf_counter()
    known = past.drop_nulls(["rating", "review_text"]).with_columns(author=pl.col("user_id").fill_null(pl.col("event_id")))
    is_complaint = (known["rating"] <= store.service.complaint_rating).to_numpy()
    kept_out = held_out(known["author"]).to_numpy()
    texts, authors = known["review_text"].to_list(), known["author"].to_list()

    def chosen(values: list[str], mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[str]:
        return [value for value, is_kept in zip(values, mask, strict=True) if is_kept]

    model = fit_complaints(chosen(texts, ~kept_out), is_complaint[~kept_out], chosen(authors, ~kept_out), store.seed)
    if model is None:
        return
    held, champion = chosen(texts, kept_out), history.in_force(MODEL, day)
    metrics: dict[str, float | int] = {"reviews": len(texts), "complaints": int(is_complaint.sum()), "threshold": model.threshold}
    is_promoted = True
    if champion is not None:
        verdict = compare(
            _losses(model, held, is_complaint[kept_out]),
            _losses(ComplaintModel.from_text(champion.model), held, is_complaint[kept_out]),
            seed=store.seed,
        )
        is_promoted, metrics = verdict.is_better, {**metrics, **verdict.as_metrics()}
    history.add(
        new_fit(
            MODEL,
            day,
            trigger,
            is_promoted=is_promoted,
            model=model.as_text(),
            model_format="json",
            parameters={"terms": len(model.vocabulary), "history_days": store.service.history_days},
            features=["review_text"],
            metrics=metrics,
            seconds=time.perf_counter() - started,
        )
    )


def _losses(model: ComplaintModel, texts: list[str], is_complaint: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[float]:
    probability = np.clip(model.probability(texts), 1e-6, 1 - 1e-6)
    return [float(loss) for loss in -np.log(np.where(is_complaint, probability, 1 - probability))]


def _complaints(reviews: pl.DataFrame, history: ModelHistory, days: Sequence[date], store: Store) -> pl.DataFrame:
    """The reviews that are complaints, with complaint_probability."""
    parts = []
    by_version: dict[str, list[date]] = {}
    for day in days:
        fit = history.in_force(MODEL, day)
        by_version.setdefault("" if fit is None else fit.model_version, []).append(day)
    service = store.service
    is_bad = (pl.col("rating") <= service.complaint_rating).fill_null(False)
    may_be = pl.col("rating").is_null() | (pl.col("rating") <= service.neutral_rating)
    for version, of_version in by_version.items():
        rows = reviews.filter(pl.col("landed_date").is_in(of_version))
        fit = history.in_force(MODEL, of_version[0])
        if version and fit is not None:
            model = ComplaintModel.from_text(fit.model)
            has_text = rows["review_text"].is_not_null()
            scores = np.full(rows.height, np.nan)
            scores[has_text.to_numpy()] = model.probability(rows.filter(has_text)["review_text"].to_list())
            rows = rows.with_columns(complaint_probability=pl.Series(scores, dtype=pl.Float64).fill_nan(None))
            reads_bad = (pl.col("complaint_probability") >= model.threshold).fill_null(False)
        else:
            rows = rows.with_columns(complaint_probability=pl.lit(None, pl.Float64))
            reads_bad = pl.lit(False)
        parts.append(rows.filter(is_bad | (may_be & reads_bad)))
    found = pl.concat(parts) if parts else reviews.with_columns(complaint_probability=pl.lit(None, pl.Float64)).clear()
    return found.with_columns(as_of_date="landed_date", ticket_id="event_id").sort("as_of_date", "ticket_id")


# --- what a ticket concerns -------------------------------------------------------------------------------------------


def _with_orders(reader: Reader, tickets: pl.DataFrame, store: Store) -> pl.DataFrame:
    """order_id and order_date: the author's newest purchase of that item known by then, not after the review."""
    empty = [pl.lit(None, pl.String).alias("order_id"), pl.lit(None, pl.Date).alias("order_date")]
    keyed = tickets.drop_nulls(["user_id", "item_id"])
    if keyed.height == 0:
        return tickets.with_columns(empty)
    import ibis

    pairs = ibis.memtable(keyed.select("user_id", "item_id").unique().sort("user_id", "item_id"))
    events = reader.table("clean_events")
    first = keyed["as_of_date"].min() - timedelta(days=store.service.order_days)  # type: ignore[operator]
    bought = events.filter(
        events.landed_date.between(first, keyed["as_of_date"].max()), events.event_type == "purchase", events.order_id.notnull()
    )
    rows = bought.semi_join(pairs, ["user_id", "item_id"]).select(
        "user_id", "item_id", "order_id", order_date=bought.event_date, order_landed=bought.landed_date
    )
    orders = reader.frame(rows)
    orders = orders.cast({"order_date": pl.Date, "order_landed": pl.Date})
    newest = (
        keyed.select("ticket_id", "user_id", "item_id", "as_of_date", "event_date")
        .join(orders, on=["user_id", "item_id"], how="inner")
        .filter(
            pl.col("order_landed") <= pl.col("as_of_date"),
            pl.col("order_date") <= pl.col("event_date"),
            pl.col("order_landed") >= pl.col("as_of_date") - pl.duration(days=store.service.order_days),
        )
        .sort("ticket_id", "order_date", "order_id")
        .unique("ticket_id", keep="last", maintain_order=True)
    )
    return tickets.join(newest.select("ticket_id", "order_id", "order_date"), on="ticket_id", how="left", maintain_order="left")


def _in_force(reader: Reader, tickets: pl.DataFrame, days: Sequence[date], table: str, key: str, column: str) -> pl.DataFrame:
    """Add `column` of the log entry in force on each ticket's day, null where there is none since the last keyframe."""
    import ibis

    wanted = tickets.select(key).drop_nulls().unique().sort(key)
    if wanted.height == 0:
        return tickets.with_columns(pl.lit(None, pl.String).alias(column))
    log = reader.table(table)
    log = log.filter(log.as_of_date.between(reader.keyframe_before(days[0]), days[-1]))
    entries: pl.DataFrame = log.semi_join(ibis.memtable(wanted), key).select(key, column, "as_of_date").to_polars()
    entries = entries.select(key, column, entry_date=pl.col("as_of_date").cast(pl.Date)).sort("entry_date", key)
    keyframes = pl.DataFrame(
        {"as_of_date": list(days), "keyframe": [reader.keyframe_before(day) for day in days]},
        schema={"as_of_date": pl.Date, "keyframe": pl.Date},
    )
    return (
        tickets.sort("as_of_date", "ticket_id")
        .join_asof(
            entries.with_columns(listed="entry_date"), left_on="as_of_date", right_on="listed", by=key, check_sortedness=False
        )
        .join(keyframes, on="as_of_date", how="left", maintain_order="left")
        .with_columns(pl.when(pl.col("entry_date") >= pl.col("keyframe")).then(column).alias(column))
        .drop("entry_date", "keyframe", "listed", strict=False)
    )


def _with_titles(reader: Reader, tickets: pl.DataFrame, days: Sequence[date]) -> pl.DataFrame:
    return _in_force(reader, tickets, days, "items", "item_id", "title")


def _with_segments(reader: Reader, tickets: pl.DataFrame, days: Sequence[date]) -> pl.DataFrame:
    return _in_force(reader, tickets, days, "user_profiles", "user_id", "segment")


def _with_trends(reader: Reader, tickets: pl.DataFrame, days: Sequence[date], store: Store) -> pl.DataFrame:
    """theme_7d, theme_trend and item_28d, from the window's tickets and those published before it."""
    columns = ["as_of_date", "ticket_id", "theme", "item_id"]
    before = days[0] - timedelta(days=RECENT_DAYS + USUAL_DAYS - 1)
    earlier = reader.window(TABLE, before, days[0] - timedelta(days=1), columns)
    known = pl.concat([earlier, tickets.select(columns)]).with_columns(known_date="as_of_date").drop("as_of_date")
    today = tickets.select("as_of_date", "theme").unique()
    age = (pl.col("as_of_date") - pl.col("known_date")).dt.total_days()
    by_theme = (
        today.join(known, on="theme", how="inner")
        .filter(age >= 0, age < RECENT_DAYS + USUAL_DAYS)
        .group_by("as_of_date", "theme")
        .agg(theme_7d=(age < RECENT_DAYS).sum().cast(pl.Int64), earlier=(age >= RECENT_DAYS).sum())
    )
    weeks = ((pl.col("as_of_date") - pl.lit(store.first_day)).dt.total_days() - RECENT_DAYS + 1).clip(0, USUAL_DAYS) / 7
    by_theme = by_theme.with_columns(
        theme_trend=pl.when(weeks >= 1).then((pl.col("theme_7d") + 1) / (pl.col("earlier") / weeks + 1)).otherwise(1.0).round(6)
    ).drop("earlier")
    by_item = (
        tickets.select("as_of_date", "item_id")
        .drop_nulls()
        .unique()
        .join(known, on="item_id", how="inner")
        .filter(age >= 0, age < ITEM_DAYS)
        .group_by("as_of_date", "item_id")
        .agg(item_28d=pl.len().cast(pl.Int64))
    )
    return (
        tickets.join(by_theme, on=["as_of_date", "theme"], how="left", maintain_order="left")
        .join(by_item, on=["as_of_date", "item_id"], how="left", maintain_order="left")
        .with_columns(pl.col("item_28d").fill_null(1))
    )


# --- priority and answer ----------------------------------------------------------------------------------------------


def _prioritised(tickets: pl.DataFrame, store: Store) -> pl.DataFrame:
    """priority, priority_score, reasons, language, excerpt and suggested_answer.

    Points: harm to health 4, fraud or law 3, lowest rating 2 (low 1, a text alone 1), item with 3 (6) complaints 1 (2), known
    order 1, valued customer 1, rising theme 1. Urgent from 6, high from 4, normal from 2.
    """
    words = _WORDS[store.language]
    rating, item = pl.col("rating"), pl.col("item_28d")
    is_lowest = (rating <= 1).fill_null(False)
    is_low = (rating <= store.service.complaint_rating).fill_null(False)
    rules = [
        (pl.col("is_safety"), pl.lit(4.0), pl.lit(words["safety"])),
        (pl.col("is_legal"), pl.lit(3.0), pl.lit(words["legal"])),
        (is_lowest, pl.lit(2.0), pl.lit(words["lowest"])),
        (is_low & ~is_lowest, pl.lit(1.0), pl.lit(words["low"])),
        (~is_low, pl.lit(1.0), pl.lit(words["reads"])),
        (item >= 3, pl.when(item >= 6).then(2.0).otherwise(1.0), pl.format(words["item"].replace("{n}", "{}"), item)),
        ((pl.col("theme_trend") >= TREND) & (pl.col("theme_7d") >= 3), pl.lit(1.0), pl.lit(words["theme"])),
        (pl.col("segment").is_in(VALUED_SEGMENTS).fill_null(False), pl.lit(1.0), pl.lit(words["valued"])),
        (pl.col("order_id").is_not_null(), pl.lit(1.0), pl.lit(words["order"])),
    ]
    scored = tickets.with_columns(
        priority_score=pl.sum_horizontal([pl.when(holds).then(points).otherwise(0.0) for holds, points, _ in rules]),
        reasons=pl.concat_str([pl.when(holds).then(text) for holds, _, text in rules], separator="; ", ignore_nulls=True),
        language=pl.Series([language_of(text, store.language) for text in tickets["review_text"]], dtype=pl.String),
        excerpt=pl.Series([_excerpt(text) for text in tickets["review_text"]], dtype=pl.String),
    )
    score = pl.col("priority_score")
    scored = scored.with_columns(
        priority=pl.when(score >= 6)
        .then(pl.lit("urgent"))
        .when(score >= 4)
        .then(pl.lit("high"))
        .when(score >= 2)
        .then(pl.lit("normal"))
        .otherwise(pl.lit("low"))
    )
    answers = [
        suggested_answer(
            row["theme"],
            row["language"],
            shop=store.name,
            title=row["title"],
            order_id=row["order_id"],
            is_safety=row["is_safety"],
        )
        for row in scored.select("theme", "language", "title", "order_id", "is_safety").iter_rows(named=True)
    ]
    return scored.with_columns(suggested_answer=pl.Series(answers, dtype=pl.String))


def _excerpt(text: str | None) -> str | None:
    if text is None:
        return None
    # cut far behind the excerpt's end, so that no address is cut in two where it could be seen
    plain = redact(" ".join(text[: 4 * EXCERPT_LETTERS].split()))
    return plain if len(plain) <= EXCERPT_LETTERS else plain[:EXCERPT_LETTERS].rsplit(" ", 1)[0] + " …"
