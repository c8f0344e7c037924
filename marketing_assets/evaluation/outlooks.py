"""Whether what profiles said of the weeks to come held: who was called a buyer, who was said to leave, what users brought in.

What belongs here: precision, recall and F1 at the propensity's threshold, churn probabilities and life-time values. What does not:
making them (profiles), and the propensity as a probability (propensities.py).

Scored are entries of re-issue days, when everyone known has one, over the horizon that each column speaks of: a window a week.
What a user brought in is revenue net of refunds and of the cost of the items, where that is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from typing import Any

import polars as pl

from marketing_assets.config import REISSUE_DAYS, UNKNOWN_USER, Store
from marketing_assets.evaluation.propensities import score_binary
from marketing_assets.evaluation.queries import Tables, query
from marketing_assets.evaluation.windows import REPORT, Arrival, empty_report, finish, scored_windows
from marketing_assets.intervals import Kind, clustered
from marketing_assets.profiles.fits import PROPENSITY
from marketing_assets.warehouse import Reader

WINDOW = ["as_of_date", "outcome_date", "issued_date", "horizon_days"]
CELLS = [*WINDOW, "segment_type", "segment"]
TOP_SHARE = 0.2
ROWS_AT_ONCE = 200_000
"""People of windows scored together, about: a window alone costs much more than its rows do."""


def look_back(store: Store) -> int:
    """Days of profiles and events read before the first day of a window."""
    settings = store.profiles
    return max(settings.horizon_days, settings.churn_horizon_days, settings.clv_horizon_days) + store.maturity_days + 1


def score_outlooks(reader: Reader, days: Sequence[date], store: Store, seen: Arrival) -> pl.DataFrame:
    """Report rows of the concept 'profiles' for windows that follow a re-issue day."""
    settings = store.profiles
    scores = {_score_calls: settings.horizon_days, _score_churn: settings.churn_horizon_days, _score_value: settings.clv_horizon_days}
    frames = [empty_report()]
    for horizon in sorted(set(scores.values())):
        windows = scored_windows(days, [horizon], seen, store.first_day).filter(pl.col("issued_date") >= store.first_day)
        for people in _batches(_outcomes(reader, windows, store)):
            found = (score(people, store) for score, over in scores.items() if over == horizon)
            frames += [finish(scored, windows) for scored in found if scored is not None]
    return pl.concat(frames)


def _batches(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The frames one below the other, as many at a time as have ROWS_AT_ONCE rows."""
    held: list[pl.DataFrame] = []
    for frame in frames:
        held.append(frame)
        if sum(each.height for each in held) >= ROWS_AT_ONCE:
            yield pl.concat(held)
            held = []
    if held:
        yield pl.concat(held)


def _outcomes(reader: Reader, windows: pl.DataFrame, store: Store) -> Iterator[pl.DataFrame]:
    """Per window that follows a re-issue day, everyone's entry of that day with what the user did in the window.

    Adds WINDOW, cluster, ordered (0.0 or 1.0), margin (money) and threshold, of the model that said it; null where it has none.
    """
    thresholds = {version: found.get("threshold") for version, found in reader.fitted_parameters(PROPENSITY).items()}
    for window in windows.to_dicts():
        issued, as_of = window["issued_date"], window["as_of_date"]
        if not store.is_cadence_day(issued, REISSUE_DAYS):
            continue
        said = entries_query(reader, issued).sort("user_id")
        start, end = window["start_date"], window["outcome_date"]
        costs = reader.log_as_of("items", as_of, ["item_id", "unit_cost"]).drop_nulls("unit_cost").cast({"unit_cost": pl.Float64})
        done = outcomes_query(reader, start, end, start - timedelta(days=1), as_of, not costs.is_empty())
        brought = (
            done.join(costs, on="item_id", how="left", nulls_equal=False)
            .group_by("user_id")
            .agg(
                ordered=(pl.col("orders").sum() > 0).cast(pl.Float64),
                margin=(pl.col("revenue") - pl.col("units") * pl.col("unit_cost").fill_null(0.0)).sum().round(6),
            )
        )
        yield said.join(brought, on="user_id", how="left", maintain_order="left").with_columns(
            pl.col("ordered", "margin").fill_null(0.0),
            *(pl.lit(window[name]).alias(name) for name in WINDOW),
            cluster="user_id",
            threshold=pl.col("model_version").replace_strict(thresholds, default=None, return_dtype=pl.Float64),
        ).cast({name: REPORT[name] for name in WINDOW})


@query
def entries_query(table: Tables, day: date) -> Any:
    log = table("user_profiles")
    return log.filter(log.as_of_date == day, log.user_id != UNKNOWN_USER).select(
        "user_id", "segment", "recency_days", "frequency", "monetary", "purchase_propensity", "churn_probability", "clv_90d", "clv_90d_low",
        "clv_90d_high", "model_version",
    )  # fmt: skip


@query
def outcomes_query(table: Tables, start: date, end: date, landed_from: date, landed_to: date, by_item: bool) -> Any:
    """What known people bought and sent back, by user and, where asked, by item."""
    import ibis

    events = table("clean_events")
    ours = events.filter(
        events.event_date.between(start, end),
        events.landed_date.between(landed_from, landed_to),
        events.event_type.isin(("purchase", "refund")),
        ~events.is_bot,
        events.user_id.notnull(),
    )
    sign = (ours.event_type == "purchase").ifelse(1, -1)
    item = ours.item_id if by_item else ibis.null("string")
    return ours.mutate(item_id=item).group_by("user_id", "item_id").agg(
        orders=((ours.event_type == "purchase") & ~ours.is_service).sum(),
        units=(ours.quantity * sign).sum(),
        revenue=ours.revenue.sum(),
    )


def _score_calls(people: pl.DataFrame, store: Store) -> pl.DataFrame | None:
    """precision, recall and f1 of calling those buyers whose propensity reaches the threshold of its model's fit; beside them, of
    calling those who ordered within as many days before. None while models answer from rates and have no threshold."""
    called = people.drop_nulls("threshold").with_columns(
        called=(pl.col("purchase_propensity") >= pl.col("threshold")).cast(pl.Float64),
        recent=(pl.col("recency_days") < pl.col("horizon_days")).fill_null(False).cast(pl.Float64),
    )
    if called.is_empty():
        return None
    bought = pl.col("ordered")
    hit, recent = pl.col("called") * bought, pl.col("recent") * bought
    return pl.concat(
        _quotient(called, store, metric, "rate", num, den, "recent_buyers", base, among)
        for metric, num, den, base, among in (
            ("precision", hit, pl.col("called"), recent, pl.col("recent")),
            ("recall", hit, bought, recent, bought),
            ("f1", 2 * hit, pl.col("called") + bought, 2 * recent, pl.col("recent") + bought),
        )
    )


def _score_churn(people: pl.DataFrame, store: Store) -> pl.DataFrame | None:
    """churn_log_loss, churn_auc and churn_calibration_ratio among those who have bought: nobody else can leave."""
    buyers = people.filter(pl.col("frequency") > 0, pl.col("churn_probability").is_not_null())
    if buyers.is_empty():
        return None
    table = buyers.with_columns(bought=1 - pl.col("ordered"), p=pl.col("churn_probability").clip(1e-9, 1 - 1e-9))
    return score_binary(table, WINDOW, store.evaluation.interval).with_columns(metric="churn_" + pl.col("metric"))


def _score_value(people: pl.DataFrame, store: Store) -> pl.DataFrame | None:
    """clv_calibration_ratio (expected over what came, by segment too), clv_coverage (whose margin lies within the user's interval) and
    clv_top_fifth_share (of all margin, what the fifth with the highest value brought; beside it, the fifth that had spent most)."""
    told = people.drop_nulls("clv_90d")
    if told.is_empty():
        return None
    slack = 5e-4  # ends are rounded
    inside = pl.col("margin").is_between(pl.col("clv_90d_low") - slack, pl.col("clv_90d_high") + slack).cast(pl.Float64)
    told = told.with_columns(top=_in_top("clv_90d", TOP_SHARE), spent=_in_top("monetary", TOP_SHARE))
    margin = pl.col("margin")
    return pl.concat(
        [
            _quotient(told, store, "clv_calibration_ratio", "ratio", pl.col("clv_90d"), margin, "calibrated", pl.lit(1.0), pl.lit(1.0), "segment"),
            _quotient(told, store, "clv_coverage", "rate", inside, pl.lit(1.0), "nominal", pl.lit(store.profiles.interval), pl.lit(1.0)),
            _quotient(told, store, "clv_top_fifth_share", "ratio", pl.col("top") * margin, margin, "top_spenders", pl.col("spent") * margin, margin),
        ]
    )


def _in_top(column: str, share: float) -> pl.Expr:
    """1 for rows among the `share` of their window with the largest values, 0 for others; those of equal value at the edge share the
    places left."""
    places = share * pl.len().over(WINDOW)
    above = pl.col(column).rank("min", descending=True).over(WINDOW) - 1
    alike = pl.len().over(*WINDOW, column)
    return ((places - above) / alike).clip(0.0, 1.0)


def _quotient(
    people: pl.DataFrame, store: Store, metric: str, kind: Kind, num: pl.Expr, den: pl.Expr, baseline: str, base: pl.Expr, among: pl.Expr,
    segments: str | None = None,
) -> pl.DataFrame:  # fmt: skip
    """A metric as the sum of `num` over that of `den`, beside `base` over `among`: over everyone and, where asked, by `segments`."""
    settings = store.evaluation
    parts = [people.with_columns(segment_type=pl.lit("all"), segment=pl.lit("all"))]
    if segments:
        parts.append(people.with_columns(segment_type=pl.lit(segments), segment=pl.col(segments)))
    both = pl.concat(parts).with_columns(
        num=num.cast(pl.Float64), den=den.cast(pl.Float64), base=base.cast(pl.Float64), among=among.cast(pl.Float64)
    )
    scored = clustered(both, CELLS, kind, level=settings.interval, replicates=settings.bootstrap_replicates, seed=store.seed)
    beside = both.group_by(CELLS).agg(baseline_value=pl.when(pl.col("among").sum() > 0).then(pl.col("base").sum() / pl.col("among").sum()))
    return scored.join(beside, on=CELLS, how="left").with_columns(
        concept=pl.lit("profiles"), metric=pl.lit(metric), policy_id=pl.lit("all"), baseline=pl.lit(baseline)
    )
