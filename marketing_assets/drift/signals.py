"""The daily series drift is watched on: where each comes from and what kind it is.

What belongs here: reading evaluation, inputs and data quality into one long history. What does not: the verdict
(verdict.py).

A history row is one metric on one date: `observed` and `expected` (for rates: numerator and denominator; for counts against
a prediction: what happened and what was predicted), `value`, `variance` of the value by sampling alone, and `known_date`,
the day it became known and mature.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import polars as pl

from marketing_assets.config import Store
from marketing_assets.drift.catalogue import read_catalogue
from marketing_assets.drift.panels import HISTORY
from marketing_assets.drift.verdict import JUDGED_DAYS, LAG_DAYS, WATCHED_DAYS
from marketing_assets.evaluation.queries import Tables, query
from marketing_assets.intervals import normal_quantile
from marketing_assets.warehouse import Reader, days_between

INPUT_WINDOW_DAYS = 7
REFERENCE_LAG_DAYS = 7

_EVALUATED = (
    # concept, metric, horizon_days, family, shape, segment types
    ("ads", "ctr_calibration_ratio", 1, "calibration", "count", ("all", "placement", "audience")),
    ("ads", "cvr_calibration_ratio", 1, "calibration", "count", ("all", "placement", "audience")),
    ("ads", "ctr_calibration_ratio", 1, "calibration", "rate", ("device",)),
    ("ads", "cvr_calibration_ratio", 1, "calibration", "rate", ("device",)),
    ("ads", "ctr", 1, "business", "rate", ("all",)),
    ("ads", "cvr", 1, "business", "rate", ("all",)),
    ("plan", "clicks_promise_ratio", 1, "promise", "rate", ("all",)),
    ("plan", "conversions_promise_ratio", 1, "promise", "rate", ("all",)),
    ("plan", "spend_delivery_ratio", 1, "promise", "level", ("all",)),
    ("recommendations", "ndcg_at_{k}", 1, "ranking", "mean", ("all",)),
    ("recommendations", "hit_rate_at_{k}", 1, "ranking", "rate", ("all",)),
    ("profiles", "preferred_category_rate", 1, "ranking", "rate", ("all",)),
    ("profiles", "calibration_ratio", None, "calibration", "level", ("all",)),
    ("demand", "scaled_pinball_loss", 1, "forecast", "mean", ("level",)),
    ("shop", "session_conversion_rate", 1, "business", "rate", ("all", "device", "channel")),
    ("shop", "average_order_value", 1, "business", "mean", ("all",)),
    ("shop", "revenue", 1, "business", "volume", ("all",)),
    ("satisfaction", "mean_rating", 1, "business", "mean", ("all",)),
)


def metric_name(concept: str, metric: str, segment_type: str, segment: str) -> str:
    """'ads.ctr[placement=home]'; no bracket for the whole."""
    return f"{concept}.{metric}" if segment_type == "all" else f"{concept}.{metric}[{segment_type}={segment}]"


def evaluated(rows: pl.DataFrame, store: Store) -> pl.DataFrame:
    """History from evaluation_report rows: each figure once, as it stood when it first was mature."""
    k = store.evaluation.at_k[0]
    z = normal_quantile(store.evaluation.interval)
    first = (
        rows.filter("is_mature", pl.col("policy_id") == "all")
        .sort("as_of_date", maintain_order=True)
        .unique(
            ["outcome_date", "horizon_days", "concept", "metric", "segment_type", "segment"], keep="first", maintain_order=True
        )
    )
    frames = []
    for concept, metric, horizon, family, shape, kinds in _EVALUATED:
        name = metric.format(k=k)
        chosen = first.filter(
            pl.col("concept") == concept,
            pl.col("metric") == name,
            pl.col("segment_type").is_in(kinds),
            pl.col("horizon_days") == (horizon or store.profiles.horizon_days),
        )
        if concept == "demand":
            chosen = chosen.filter(pl.col("segment") == "item")
        if chosen.height == 0:
            continue
        # predictions are numerators of calibration ratios, promises are denominators of promise ratios
        observed, expected = ("denominator", "numerator") if family == "calibration" else ("numerator", "denominator")
        frames.append(
            chosen.select(
                metric=pl.when(pl.col("segment_type") == "all")
                .then(pl.lit(f"{concept}.{name}"))
                .otherwise(pl.format(f"{concept}.{name}[{{}}={{}}]", "segment_type", "segment")),
                family=pl.lit(family),
                shape=pl.lit(shape),
                segment_type="segment_type",
                segment="segment",
                date="outcome_date",
                known_date="as_of_date",
                value="value",
                observed=observed,
                expected=expected,
                variance=((pl.col("ci_high") - pl.col("ci_low")) / (2 * z)) ** 2,
            )
        )
    if not frames:
        return pl.DataFrame(schema=HISTORY)
    history = pl.concat(frames).cast(HISTORY)
    return _promises_at_delivery(history, first)


def _promises_at_delivery(history: pl.DataFrame, first: pl.DataFrame) -> pl.DataFrame:
    """A promise counts for what was delivered: expected clicks times delivered over planned impressions.

    It is held against its own past: what a shop serves otherwise than planned was promised at other rates, day after day.
    """
    delivery = first.filter(
        pl.col("concept") == "plan", pl.col("metric") == "impressions_delivery_ratio", pl.col("segment_type") == "all"
    ).select(date="outcome_date", delivered="value")
    if delivery.height == 0:
        return history.filter(~((pl.col("family") == "promise") & (pl.col("shape") == "rate")))
    scaled = (pl.col("family") == "promise") & (pl.col("shape") == "rate")
    return (
        history.join(delivery, on="date", how="left", maintain_order="left")
        .with_columns(expected=pl.when(scaled).then(pl.col("expected") * pl.col("delivered")).otherwise("expected"))
        .drop("delivered")
    )


def read_quality(reader: Reader, start: date, end: date, sources: Sequence[str]) -> pl.DataFrame:
    """Reject rate and landed rows by source and day."""
    refused = refused_query(reader, start, end)
    frames = []
    for source in sources:
        landed = landed_query(reader, f"raw_{source}", start, end)
        joined = landed.join(refused.filter(pl.col("source") == source), on="landed_date", how="left").with_columns(
            pl.col("refused").fill_null(0)
        )
        frames.append(
            joined.select(
                metric=pl.lit(f"{source}.reject_rate"),
                family=pl.lit("quality"),
                shape=pl.lit("level"),
                segment_type=pl.lit("source"),
                segment=pl.lit(source),
                date="landed_date",
                known_date="landed_date",
                value=pl.col("refused") / pl.col("landed"),
                observed=pl.col("refused"),
                expected=pl.col("landed"),
                variance=pl.lit(0.0),
            )
        )
    return pl.concat([frame.cast(HISTORY) for frame in frames]) if frames else pl.DataFrame(schema=HISTORY)


def read_inputs(reader: Reader, start: date, end: date) -> pl.DataFrame:
    """Counts by landed day, feature and bin: landed_date, source, feature, bin, rows, people.

    people counts users (rows without a user one each): PSI on it is not swayed by a few busy users. Not for features of which only
    the volume is watched.
    """
    features = [("events", events_query, name) for name in EVENT_FEATURES]
    if reader.has_source("impressions"):
        features += [("impressions", impressions_query, name) for name in IMPRESSION_FEATURES]
    frames = [
        counted(reader, name, name in (*SHIFTS, *NULLS), start, end).with_columns(source=pl.lit(source), feature=pl.lit(name))
        for source, counted, name in features
    ]
    rows = pl.concat(frames, how="diagonal_relaxed")
    return rows.select("landed_date", "source", "feature", "bin", "rows", pl.col("people").fill_null(0))


EVENT_FEATURES = ("event_type", "device", "channel", "price_band", "buying_device", "cart_device", "view_device")
IMPRESSION_FEATURES = ("placement", "audience", "clicking_device")
_DEVICE_OF = {"buying_device": "purchase", "cart_device": "add_to_cart", "view_device": "view_item"}


@query
def events_query(table: Tables, feature: str, with_people: bool, start: date, end: date) -> Any:
    import ibis

    events = table("clean_events")
    events = events.filter(events.landed_date.between(start, end), ~events.is_bot)
    if feature in _DEVICE_OF:
        events = events.filter(events.event_type == _DEVICE_OF[feature])
        value = ibis.coalesce(events.device, "(none)")
    elif feature == "price_band":
        events = events.filter(events.event_type == "purchase", events.unit_price > 0)
        value = (events.unit_price.cast("float64").log2() / 2).floor().cast("int64").cast("string")
    else:
        value = events[feature]
    counted = events.mutate(bin=value, person=ibis.coalesce(events.user_id, events.session_id, events.event_id))
    people = {"people": lambda t: t.person.nunique()} if with_people else {}
    return counted.group_by("landed_date", "bin").agg(rows=lambda t: t.count(), **people)


@query
def impressions_query(table: Tables, feature: str, with_people: bool, start: date, end: date) -> Any:
    import ibis

    shown = table("clean_impressions")
    shown = shown.filter(shown.landed_date.between(start, end))
    if feature == "clicking_device":
        shown = shown.filter(shown.is_clicked)
        value = ibis.coalesce(shown.context.cast("json")["device"].str, "(none)")
    else:
        value = shown.placement_id if feature == "placement" else shown.audience_id
    counted = shown.mutate(bin=value).group_by("landed_date", "bin")
    # an impression without a user is a person of its own, and there are far more of those than users to tell apart
    people = {"people": lambda t: t.user_id.nunique() + t.user_id.isnull().sum()} if with_people else {}
    return counted.agg(rows=lambda t: t.count(), **people)


@query
def refused_query(table: Tables, start: date, end: date) -> Any:
    rejected = table("rejected_rows")
    counted = rejected.filter(rejected.landed_date.between(start, end)).group_by("landed_date", "source")
    return counted.agg(refused=lambda t: t.count())


@query
def landed_query(table: Tables, name: str, start: date, end: date) -> Any:
    raw = table(name)
    return raw.filter(raw.landed_date.between(start, end)).group_by("landed_date").agg(landed=lambda t: t.count())


@query
def evaluation_query(table: Tables, concepts: tuple[str, ...], metrics: tuple[str, ...], start: date, end: date) -> Any:
    rows = table("evaluation_report")
    return rows.filter(
        rows.as_of_date.between(start, end),
        rows.concept.isin(concepts),
        rows.metric.isin(metrics),
        rows.is_mature,
        rows.policy_id == "all",
    )


SHIFTS = ("event_type", "device", "channel", "price_band", "placement", "audience")
SHARES = ("device", "channel")
VOLUMES = ("event_type", "buying_device", "cart_device", "view_device", "placement", "clicking_device")
NULLS = ("device", "channel", "audience")


def inputs(counts: pl.DataFrame, days: Sequence[date]) -> pl.DataFrame:
    """History of inputs: PSI, share of unseen values and of missing values by feature, share and volume by bin.

    PSI of the last 7 landed days against the four weeks before them, so both sides hold each weekday equally often; the
    expectation under no change, (bins - 1)(1/n + 1/m) (Yurdakul and Naranjo 2020), is taken off, never below 0.
    """
    frames = [_distances(counts, days), _shares(counts, days[0]), _volumes(counts)]
    return pl.concat([frame.cast(HISTORY) for frame in frames])


def _distances(counts: pl.DataFrame, days: Sequence[date]) -> pl.DataFrame:
    ends = pl.DataFrame({"date": list(days)}, schema={"date": pl.Date})
    span = INPUT_WINDOW_DAYS + 28

    def around(first: int, last: int, name: str) -> pl.DataFrame:
        dates = ends.with_columns(
            landed_date=pl.date_ranges(pl.col("date").dt.offset_by(f"-{first}d"), pl.col("date").dt.offset_by(f"-{last}d"))
        ).explode("landed_date")
        return (
            dates.join(counts, on="landed_date", how="inner")
            .group_by("date", "source", "feature", "bin")
            .agg(pl.col("people").sum().alias(name))
        )

    both = (
        around(INPUT_WINDOW_DAYS - 1, 0, "new")
        .join(
            around(span - 1, INPUT_WINDOW_DAYS, "old"),
            on=["date", "source", "feature", "bin"],
            how="full",
            coalesce=True,
            nulls_equal=True,
        )
        .with_columns(pl.col("new", "old").fill_null(0).cast(pl.Float64))
        .sort("date", "source", "feature", "bin")
    )
    by = ["date", "source", "feature"]

    def of_all(rows: pl.DataFrame) -> pl.DataFrame:
        sums = rows.with_columns(n=pl.col("new").sum().over(by), m=pl.col("old").sum().over(by))
        return sums.filter((pl.col("n") > 0) & (pl.col("m") > 0))

    head = {
        "segment_type": pl.lit("feature"),
        "segment": pl.col("feature"),
        "date": pl.col("date"),
        "known_date": pl.col("date"),
        "expected": pl.col("m"),
        "variance": pl.lit(0.0),
    }
    # a log that begins to say a value has not met other people: shares are of those it is said of
    named = of_all(both.filter(pl.col("bin").is_not_null(), pl.col("feature").is_in(SHIFTS)))
    p = (pl.col("new") + 0.5) / (pl.col("n") + 0.5)
    q = (pl.col("old") + 0.5) / (pl.col("m") + 0.5)
    psi = named.group_by([*by, "n", "m"]).agg(
        psi=((p - q) * (p / q).log()).sum(),
        noise=(pl.len() - 1) * (1 / pl.col("n").first() + 1 / pl.col("m").first()),
        unseen=pl.col("new").filter(pl.col("old") == 0).sum() / pl.col("n").first(),
    )
    shifted = psi.select(
        metric=pl.format("{}.psi[{}]", "source", "feature"),
        family=pl.when(pl.col("feature") == "price_band").then(pl.lit("price")).otherwise(pl.lit("input")),
        shape=pl.lit("distance"),
        value=(pl.col("psi") - pl.col("noise")).clip(0),
        observed=pl.col("n"),
        **head,
    )
    unseen = psi.filter(pl.col("feature") != "price_band").select(
        metric=pl.format("{}.unseen_values[{}]", "source", "feature"),
        family=pl.lit("quality"),
        shape=pl.lit("level"),
        value="unseen",
        observed=pl.col("n"),
        **head,
    )
    missing = of_all(both).filter(pl.col("bin").is_null(), pl.col("feature").is_in(NULLS)).select(
        metric=pl.format("{}.missing_values[{}]", "source", "feature"),
        family=pl.lit("quality"),
        shape=pl.lit("distance"),
        value=(pl.col("new") / pl.col("n") - pl.col("old") / pl.col("m")).clip(0),
        observed=pl.col("new"),
        **head,
    )
    return pl.concat([frame.select(list(HISTORY)).cast(HISTORY) for frame in (shifted, unseen, missing)])


def _shares(counts: pl.DataFrame, start: date) -> pl.DataFrame:
    """People by device and channel out of all: a change of who comes shows there in days, in the PSI of a week against four in a week or two."""
    chosen = counts.filter(pl.col("feature").is_in(SHARES), pl.col("bin").is_not_null(), pl.col("landed_date") >= start)
    everyone = pl.col("people").sum().over("landed_date", "source", "feature")
    return chosen.with_columns(everyone=everyone).select(
        metric=pl.format("{}.share[{}={}]", "source", "feature", "bin"),
        family=pl.lit("input"),
        shape=pl.lit("rate"),
        segment_type=pl.lit("feature"),
        segment="feature",
        date="landed_date",
        known_date="landed_date",
        value=pl.col("people") / pl.col("everyone"),
        observed=pl.col("people").cast(pl.Float64),
        expected=pl.col("everyone").cast(pl.Float64),
        variance=pl.lit(0.0),
    )


def _volumes(counts: pl.DataFrame) -> pl.DataFrame:
    chosen = counts.filter(pl.col("feature").is_in(VOLUMES), pl.col("bin").is_not_null())
    return chosen.select(
        metric=pl.format("{}.volume[{}={}]", "source", "feature", "bin"),
        family=pl.lit("volume"),
        shape=pl.lit("volume"),
        segment_type="feature",
        segment="bin",
        date="landed_date",
        known_date="landed_date",
        value=pl.col("rows").cast(pl.Float64),
        observed=pl.col("rows").cast(pl.Float64),
        expected=pl.lit(1.0),
        variance=pl.lit(0.0),
    )


def read_history(reader: Reader, days: Sequence[date], store: Store) -> pl.DataFrame:
    """All watched series as far back as a verdict on the first day looks, to the last day."""
    start = days[0] - timedelta(days=JUDGED_DAYS - 1)
    concepts = tuple(sorted({entry[0] for entry in _EVALUATED}))
    metrics = {entry[1].format(k=store.evaluation.at_k[0]) for entry in _EVALUATED} | {"impressions_delivery_ratio"}
    rows = evaluation_query(reader, concepts, tuple(sorted(metrics)), start, days[-1])
    # distances are watched as they are, or against their own past: no others count, and each takes five weeks to make
    compared = days[0] - timedelta(days=WATCHED_DAYS + LAG_DAYS + store.drift.reference_days)
    every_day = days_between(max(start, compared), days[-1])
    counts = read_inputs(reader, min(start, every_day[0] - timedelta(days=INPUT_WINDOW_DAYS + 27)), days[-1])
    sources = [source for source in ("events", "impressions", "conversions", "ad_reports") if reader.has_source(source)]
    parts = [
        evaluated(rows, store),
        read_quality(reader, start, days[-1], sources),
        inputs(counts, every_day).filter(pl.col("date") >= start),
        read_catalogue(reader, every_day),
    ]
    return without_holidays(pl.concat(parts), holidays_of(reader, start, days[-1], store)).sort("metric", "date")


def holidays_of(reader: Reader, start: date, end: date, store: Store) -> list[date]:
    """Holidays known by their day: of market_days, and public ones of the country named for forecasts."""
    known = reader.accepted("market_days", None, end)
    days = set(known.filter("is_holiday", pl.col("date").is_between(start, end))["date"])
    if store.forecasting.country:
        import holidays

        public = holidays.country_holidays(store.forecasting.country, years=range(start.year, end.year + 1))
        days |= {day for day in public if start <= day <= end}
    return sorted(days)


def without_holidays(history: pl.DataFrame, holidays: Sequence[date]) -> pl.DataFrame:
    """Volumes of holidays say nothing: their rows are kept without a value, also where nothing was sold at all."""
    is_volume = pl.col("shape") == "volume"
    closed = pl.DataFrame({"date": list(holidays)}, schema={"date": pl.Date})
    heads = history.filter(is_volume).select("metric", "family", "shape", "segment_type", "segment").unique()
    silent = heads.join(closed, how="cross").with_columns(
        known_date="date",
        value=pl.lit(None, pl.Float64),
        observed=pl.lit(0.0),
        expected=pl.lit(1.0),
        variance=pl.lit(0.0),
    )
    kept = history.filter(~(is_volume & pl.col("date").is_in(closed["date"].implode())))
    return pl.concat([kept, silent.select(list(HISTORY)).cast(HISTORY)])
