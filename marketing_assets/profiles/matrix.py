"""What the profile models look at: one row of numbers per user, from the user's feature entry alone.

What belongs here: the features x_i, how they are computed and what they are called in words. What does not: their weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from marketing_assets.profiles.lifetime import Floats, PurchaseModel

DECIMALS = 6
"""Features and scores are rounded to this many decimals, so that no last bit of a sum decides anything."""


@dataclass(frozen=True)
class Feature:
    """A number about a user; `high` and `low` say in words what a large and a small value mean."""

    name: str
    value: pl.Expr
    high: str
    low: str


def _log(expression: pl.Expr) -> pl.Expr:
    return expression.cast(pl.Float64).clip(lower_bound=0.0).log1p()


_TENURE = (pl.col("as_of_date") - pl.col("first_seen_date")).dt.total_days()
_RECENCY = (pl.col("as_of_date") - pl.col("last_order_date")).dt.total_days()
_SEEN = (pl.col("as_of_date") - pl.col("last_seen_date")).dt.total_days()
_GAP = pl.col("mean_days_between_orders")

FEATURES: tuple[Feature, ...] = (
    Feature("days_since_order", _log(_RECENCY.fill_null(_TENURE + 30)), "no order for long", "ordered recently"),
    Feature("days_since_seen", _log(_SEEN), "not seen for long", "seen recently"),
    Feature("orders", _log(pl.col("orders")), "many orders", "few orders"),
    Feature("order_days", _log(pl.col("order_days")), "came back to order many times", "seldom came back to order"),
    Feature("tenure", _log(_TENURE), "known for long", "known for a short time"),
    Feature("orders_last_week", _log(pl.col("orders_decayed_7")), "orders in the last days", "no orders in the last days"),
    Feature("orders_last_month", _log(pl.col("orders_decayed_30")), "orders in the last weeks", "few orders in the last weeks"),
    Feature(
        "orders_last_quarter", _log(pl.col("orders_decayed_90")), "orders in the last months", "few orders in the last months"
    ),
    Feature(
        "spend_last_month", _log(pl.col("revenue_decayed_30")), "high spend in the last weeks", "low spend in the last weeks"
    ),
    Feature(
        "spend_last_quarter", _log(pl.col("revenue_decayed_90")), "high spend in the last months", "low spend in the last months"
    ),
    Feature("spend", _log(pl.col("revenue")), "high spend in all", "low spend in all"),
    Feature(
        "spend_per_order",
        _log(pl.col("gross_revenue").cast(pl.Float64) / pl.col("orders").clip(lower_bound=1)),
        "large orders",
        "small orders",
    ),
    Feature(
        "order_rate",
        ((pl.col("order_days") + 0.3) / (_TENURE + 14)).log(),
        "orders at short intervals",
        "orders at long intervals",
    ),
    Feature("usual_gap", _log(_GAP.fill_null(90.0)), "long pauses between orders", "short pauses between orders"),
    Feature(
        "overdue",
        ((_RECENCY + 1) / (_GAP.fill_null(60.0) + 1)).log().clip(-4, 4).fill_null(0.0),
        "overdue by the user's own rhythm",
        "well within the user's own rhythm",
    ),
    Feature("one_order", (pl.col("order_days") == 1).cast(pl.Float64), "one order so far", "more than one order or none"),
    Feature("no_order", pl.col("last_order_date").is_null().cast(pl.Float64), "never ordered", "has ordered before"),
    Feature("refunds", _log(pl.col("refunds")), "sends things back", "sends little back"),
    Feature("views_last_week", _log(pl.col("views_decayed_7")), "views in the last days", "no views in the last days"),
    Feature("views_last_month", _log(pl.col("views_decayed_30")), "views in the last weeks", "few views in the last weeks"),
    Feature("carts_last_week", _log(pl.col("carts_decayed_7")), "cart filled in the last days", "no cart in the last days"),
    Feature("carts_last_month", _log(pl.col("carts_decayed_30")), "cart filled in the last weeks", "no cart in the last weeks"),
    Feature("searches", _log(pl.col("searches")), "searches often", "seldom searches"),
)
RHYTHM = "buying_rhythm"
"""The logit of the order probability that counts and dates alone imply (BG/NBD), used as one more feature."""
NEVER_BOUGHT_RHYTHM = -3.0
WORDS: dict[str, tuple[str, str]] = {
    **{feature.name: (feature.high, feature.low) for feature in FEATURES},
    RHYTHM: ("rhythm of orders points to another soon", "rhythm of orders points to none soon"),
}
FEATURE_NAMES: tuple[str, ...] = (*(feature.name for feature in FEATURES), RHYTHM)
LINEAR_NAMES: tuple[str, ...] = (
    "days_since_order",
    "days_since_seen",
    "order_days",
    "tenure",
    "orders_last_month",
    "orders_last_quarter",
    "spend_last_quarter",
    "spend_per_order",
    "overdue",
    "one_order",
    "no_order",
    "refunds",
    "views_last_week",
    "views_last_month",
    "carts_last_week",
    "carts_last_month",
    "searches",
    RHYTHM,
)
"""The features of the profile score: few enough to say different things, so that a weight can be read. Trees see all."""
LINEAR_COLUMNS: list[int] = [FEATURE_NAMES.index(name) for name in LINEAR_NAMES]
RFM_NAMES = ("days_since_order", "orders", "spend")

COLUMNS: tuple[str, ...] = (
    "as_of_date",
    "user_id",
    "issued_date",
    "first_seen_date",
    "last_seen_date",
    "first_order_date",
    "last_order_date",
    "order_days",
    "orders",
    "revenue",
    "gross_revenue",
    "refunds",
    "searches",
    "mean_days_between_orders",
    "orders_decayed_7",
    "orders_decayed_30",
    "orders_decayed_90",
    "revenue_decayed_30",
    "revenue_decayed_90",
    "views_decayed_7",
    "views_decayed_30",
    "carts_decayed_7",
    "carts_decayed_30",
)
"""The columns of user_features that profiles read."""


def at_reading_day(entries: pl.DataFrame) -> pl.DataFrame:
    """Entries with their decayed sums moved from issued_date to as_of_date; nothing else of a log entry moves on reading."""
    age = (pl.col("as_of_date") - pl.col("issued_date")).dt.total_days()
    decayed = [name for name in entries.columns if "_decayed_" in name]
    return entries.with_columns(pl.col(name) * (0.5 ** (age / int(name.rsplit("_", 1)[1]))) for name in decayed)


@dataclass(frozen=True)
class Counts:
    """What BG/NBD and Gamma-Gamma need of each user. Times in weeks; users who never bought have occasions 0."""

    repeats: Floats
    last: Floats
    age: Floats
    occasions: Floats
    mean_value: Floats

    @property
    def has_bought(self) -> np.ndarray:
        return np.asarray(self.occasions > 0)


def counts(entries: pl.DataFrame) -> Counts:
    """Repeat occasions x (order days after the first), their age t_x, the user's age T, and the mean spend of an order day.

    Spend is net of refunds, at least a hundredth of the gross, so that a returned basket counts as nearly nothing rather
    than as less than nothing.
    """
    spend = pl.max_horizontal(pl.col("revenue").cast(pl.Float64), pl.col("gross_revenue").cast(pl.Float64) * 0.01)
    frame = entries.select(
        repeats=(pl.col("order_days") - 1).clip(lower_bound=0).cast(pl.Float64),
        last=((pl.col("last_order_date") - pl.col("first_order_date")).dt.total_days().fill_null(0) / 7),
        age=((pl.col("as_of_date") - pl.coalesce("first_order_date", "first_seen_date")).dt.total_days().clip(lower_bound=0) / 7),
        occasions=pl.when(pl.col("last_order_date").is_null())
        .then(0.0)
        .otherwise(pl.col("order_days").clip(lower_bound=1).cast(pl.Float64)),
        mean_value=(spend / pl.col("order_days").clip(lower_bound=1)).round(4),
    )
    repeats, last, age, occasions, mean_value = (frame[name].to_numpy().astype(np.float64) for name in frame.columns)
    repeats = np.where(occasions > 0, repeats, 0.0)
    # A late row can date a first order after others; then the ages meet.
    return Counts(repeats, np.minimum(last, age), age, occasions, np.where(occasions > 0, mean_value, 0.0))


def matrix(entries: pl.DataFrame, rhythm: PurchaseModel, weeks: float, names: tuple[str, ...] = FEATURE_NAMES) -> Floats:
    """users x features, finite and rounded. rhythm: the purchase model behind buying_rhythm, over `weeks`."""
    known = {feature.name: feature.value for feature in FEATURES}
    frame = entries.select(
        known[name].cast(pl.Float64).fill_null(0.0).round(DECIMALS).alias(name) for name in names if name != RHYTHM
    )
    columns = [frame[name].to_numpy() if name != RHYTHM else rhythm_feature(entries, rhythm, weeks) for name in names]
    return np.column_stack(columns).astype(np.float64) if len(entries) else np.zeros((0, len(names)))


def rhythm_feature(entries: pl.DataFrame, rhythm: PurchaseModel, weeks: float) -> Floats:
    """logit of the order probability under the purchase model; NEVER_BOUGHT_RHYTHM for users who never bought."""
    seen = counts(entries)
    chance = np.clip(rhythm.order_probability(seen.repeats, seen.last, seen.age, weeks), 1e-4, 1 - 1e-4)
    value = np.where(seen.has_bought, np.log(chance) - np.log1p(-chance), NEVER_BOUGHT_RHYTHM)
    return np.asarray(np.round(value, DECIMALS), dtype=np.float64)
