"""Customer life-time value: what a user is expected to bring in over a horizon, with an interval that was checked.

What belongs here: expectation, correction by what happened, intervals of users and of totals. What does not: how order days
are forecast (lifetime.py, hazard.py).

Until outcomes over the horizon are mature, intervals come from the model (a count that is negative binomial while the user
is a customer, times a spend). Then they come from what happened to users with a like expectation: split-conformal quantiles.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from marketing_assets.profiles.hazard import expected_order_days
from marketing_assets.profiles.lifetime import TEXTBOOK, PurchaseModel, SpendModel, fit_purchases, fit_spend
from marketing_assets.profiles.linear import Floats
from marketing_assets.profiles.matrix import Counts, counts
from marketing_assets.profiles.training import Training

MINIMUM_BUYERS = 30
"""Fewer users with a mature outcome than this correct nothing and check no interval."""
LEVELS = 8


@dataclass(frozen=True)
class FirstOrder:
    """P(order within `days`) of users who never bought, one per row of entries; of others it is not read."""

    chance: Floats
    days: int


@dataclass(frozen=True)
class ValueModel:
    """expectation = level x margin_share x E(order days) x E(spend per order day); first_level in place of level for who never bought.

    E(order days) is BG/NBD's, or where `trees` holds LightGBM's text the geometric mean of theirs and BG/NBD's; who never bought
    begins as the order propensity says and goes on as a new customer. edges: expectations at which the interval is known, rising.
    low, middle, high: there, its ends and median as multiples of (expectation + floor). Empty edges: the model's own interval.
    """

    horizon_days: int
    interval: float
    purchases: PurchaseModel
    spend: SpendModel | None
    margin_share: float = 1.0
    level: float = 1.0
    first_level: float = 1.0
    floor: float = 1.0
    edges: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    middle: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    trees: str = ""

    @property
    def is_start(self) -> bool:
        """Whether there were too few repeat orders to fit anything on."""
        return self.purchases == TEXTBOOK

    def order_days(self, entries: pl.DataFrame, first: FirstOrder, threads: int = 1) -> Floats:
        """Expected order days over the horizon. first: of users who never bought, per row."""
        seen = counts(entries)
        days = self.purchases.expected_orders(seen.repeats, seen.last, seen.age, self.horizon_days / 7)
        if self.trees:
            days = np.sqrt(days * expected_order_days(self.trees, entries, self.purchases, self.horizon_days, threads))
        days[~seen.has_bought] = self._days_of_newcomers(first.chance[~seen.has_bought], first.days)
        return days

    def _days_of_newcomers(self, chance: Floats, within_days: int) -> Floats:
        """E(order days) of who never bought: those of BG/NBD's new customer, whose time runs as fast as makes P(order within_days)
        come out, so that who is likely to begin is also expected to go on."""
        pace = self.purchases.alpha * np.expm1(-np.log1p(-np.minimum(chance, 1 - 1e-6)) / self.purchases.r) / within_days
        nothing = np.zeros(len(pace))
        return self.purchases.expected_orders(nothing, nothing, nothing, pace * self.horizon_days)

    def expected(self, entries: pl.DataFrame, first: FirstOrder, threads: int = 1) -> Floats:
        """Expected margin over the horizon, money. first: of users who never bought, per row."""
        if self.spend is None or not entries.height:
            return np.zeros(entries.height)
        return self.order_days(entries, first, threads) * self._per_order(counts(entries))

    def _per_order(self, seen: Counts) -> Floats:
        if self.spend is None:
            return np.zeros(len(seen.repeats))
        level = np.where(seen.has_bought, self.level, self.first_level)
        return np.asarray(level * self.margin_share * self.spend.expected_value(seen.occasions, seen.mean_value), dtype=np.float64)

    def interval_of(self, seen: Counts, expected: Floats) -> tuple[Floats, Floats, Floats]:
        """Lower end, median and upper end per user, money."""
        if not self.edges:
            return self._model_interval(seen, expected)
        position = np.log(np.maximum(expected, 0) + self.floor)
        knots = np.log(np.array(self.edges) + self.floor)
        low, middle, high = (
            np.interp(position, knots, np.array(ends)) * (expected + self.floor) for ends in (self.low, self.middle, self.high)
        )
        low, high = np.minimum(low, expected), np.maximum(high, expected)
        return low, np.clip(middle, low, high), high

    def _model_interval(self, seen: Counts, expected: Floats) -> tuple[Floats, Floats, Floats]:
        if self.spend is None:
            nothing = np.zeros(len(expected))
            return nothing, nothing, nothing
        per_order = self._per_order(seen)
        orders = expected / np.maximum(per_order, 1e-9)
        tail = (1 - self.interval) / 2
        fewest, median, most = (
            order_day_quantile(self.purchases, seen, orders, self.horizon_days / 7, q) for q in (tail, 0.5, 1 - tail)
        )
        # One more order day and half as much again in spend: parameters are hardly known yet.
        low, high = np.minimum(fewest * per_order * 0.5, expected), np.maximum((most + 1) * per_order * 1.5, expected)
        return low, np.clip(median * per_order, low, high), high

    def score(self, entries: pl.DataFrame, first: FirstOrder, threads: int = 1) -> tuple[Floats, Floats, Floats, Floats]:
        """Expectation, low, median and high per row of entries, money to four decimals. first: of `expected`."""
        if not entries.height:
            return np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0)
        seen = counts(entries)
        expected = self.expected(entries, first, threads)
        low, middle, high = self.interval_of(seen, expected)
        return np.round(expected, 4), np.round(low, 4), np.round(middle, 4), np.round(high, 4)

    def as_text(self) -> str:
        content: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        content |= {name: list(getattr(self, name)) for name in _LISTS}
        content["purchases"] = [self.purchases.r, self.purchases.alpha, self.purchases.a, self.purchases.b]
        content["spend"] = None if self.spend is None else [self.spend.p, self.spend.q, self.spend.gamma]
        return json.dumps(content, sort_keys=True)

    @staticmethod
    def from_text(text: str) -> ValueModel:
        content: Mapping[str, Any] = json.loads(text)
        values: dict[str, Any] = {name: content[name] for name in _PLAIN if name in content}
        values |= {name: tuple(content[name]) for name in _LISTS}
        values["purchases"] = PurchaseModel(*content["purchases"])
        values["spend"] = None if content["spend"] is None else SpendModel(*content["spend"])
        return ValueModel(**values)


_PLAIN = ("horizon_days", "interval", "margin_share", "level", "first_level", "floor", "trees")
_LISTS = ("edges", "low", "middle", "high")


def order_day_quantile(purchases: PurchaseModel, seen: Counts, expected: Floats, weeks: float, quantile: float) -> Floats:
    """Quantile of the number of order days, whose mean is `expected`: none for who has left, else negative binomial."""
    from scipy.special import nbdtrik

    alive = np.clip(purchases.alive(seen.repeats, seen.last, seen.age), 1e-6, 1.0)
    shape = purchases.r + seen.repeats
    mean = np.maximum(expected, 1e-9) / alive
    within = (quantile - (1 - alive)) / alive
    success = shape / (shape + mean)
    none = success**shape
    asked = np.where(within <= none, 0.5, np.clip(within, 1e-12, 1 - 1e-9))
    found = np.ceil(nbdtrik(asked, shape, success) - 1e-9)
    return np.where(within <= none, 0.0, np.maximum(np.nan_to_num(found), 1.0))


def fit_value(known: pl.DataFrame, horizon_days: int, interval: float, margin_share: float) -> ValueModel:
    """BG/NBD and Gamma-Gamma on everyone known.

    known: entries in force on the day of the fit. interval: nominal coverage. margin_share: margin over revenue of the shop,
    1 where costs are unknown.
    """
    seen = counts(known)
    buyers = seen.has_bought
    spend = fit_spend(seen.occasions, seen.mean_value) if (buyers & (seen.mean_value > 0)).any() else None
    enough = seen.repeats[buyers].sum() >= MINIMUM_BUYERS
    purchases = fit_purchases(seen.repeats[buyers], seen.last[buyers], seen.age[buyers]) if enough else TEXTBOOK
    return ValueModel(horizon_days, interval, purchases, spend, margin_share)


def checked(model: ValueModel, rows: Training, first: FirstOrder, threads: int = 1) -> ValueModel:
    """The model with its levels and interval from what happened; as it is where too few outcomes are mature.

    rows: mature rows over the model's horizon of users not held out, outcome = net revenue. first: of `ValueModel.expected`.
    """
    if model.spend is None or len(rows) < MINIMUM_BUYERS:
        return model
    outcome, weight = rows.outcome * model.margin_share, rows.weight(60.0)
    buyers = counts(rows.entries).has_bought
    raw = model.expected(rows.entries, first, threads)
    levels = [_level(raw[part], outcome[part], weight[part]) for part in (buyers, ~buyers)]
    model = replace(model, level=levels[0], first_level=levels[1])
    if buyers.sum() < MINIMUM_BUYERS:
        return model
    expected = raw * np.where(buyers, *levels)
    floor = max(float(np.round(np.average(expected, weights=weight) * 0.1, 4)), 0.01)
    order = np.lexsort((outcome, np.round(expected, 6)))
    edges, ends = [], []
    tail = (1 - model.interval) / 2
    for part in np.array_split(order, min(LEVELS, max(1, len(order) // MINIMUM_BUYERS))):
        ratio = outcome[part] / (expected[part] + floor)
        # One more than the sample's quantile, so that coverage holds for the next user.
        n = len(part)
        low = float(np.quantile(ratio, max(tail * (n + 1) / n - 1 / n, 0.0), method="lower"))
        middle = float(np.quantile(ratio, 0.5, method="lower"))
        high = float(np.quantile(ratio, min((1 - tail) * (n + 1) / n, 1.0), method="higher"))
        edges.append(float(np.round(np.mean(expected[part]), 4)))
        ends.append((round(low, 6), round(middle, 6), round(high, 6)))
    lows, middles, highs = zip(*ends, strict=True)
    return replace(model, floor=floor, edges=tuple(np.maximum.accumulate(edges).tolist()), low=lows, middle=middles, high=highs)


def _level(expected: Floats, outcome: Floats, weight: Floats) -> float:
    """Outcome over expectation, shrunk as if 200 users had been right on average: one large buyer does not move everyone."""
    if len(expected) < MINIMUM_BUYERS or (weight * expected).sum() <= 0:
        return 1.0
    mean, mass = float(np.average(expected, weights=weight)), float(weight.sum())
    level = (float((weight * outcome).sum()) + 200 * mean) / (mean * (mass + 200))
    return float(np.round(np.clip(level, 0.4, 2.5), 9))


def deviances(expected: Floats, outcome: Floats) -> Floats:
    """Tweedie deviance of power 1.5 per row up to a term without the forecast, y / sqrt(m) + sqrt(m): least at the mean.

    Absolute errors would reward forecasting the median, which is 0 for most users. Expectations count as at least a
    hundredth of their mean, outcomes below 0 as 0.
    """
    if not len(expected):
        return np.zeros(0)
    root = np.sqrt(np.maximum(expected, max(float(expected.mean()) * 0.01, 1e-6)))
    return np.asarray(np.maximum(outcome, 0) / root + root, dtype=np.float64)


def total_interval(expected: Floats, weekly_totals: Floats, weeks: float, interval: float) -> tuple[float, float]:
    """Interval of the sum over users, symmetric: users' luck is small in a sum, good and bad seasons are not.

    expected: per user. weekly_totals: the same quantity over the shop's past weeks, oldest first; how far a week lies from
    the trend of the last 26, averaged over `weeks` to come and over the weeks behind the level, with its autocorrelation, is
    the season's part (30 % a week before eight are known).
    """
    from scipy.special import ndtri

    total = float(expected.sum())
    if total <= 0:
        return 0.0, 0.0
    recent = weekly_totals[-26:]
    spread = 0.3**2
    if len(recent) >= 8 and (recent > 0).all():
        time = np.arange(len(recent)) - (len(recent) - 1) / 2
        log = np.log(recent)
        rest = log - log.mean() - float(time @ log / (time @ time)) * time
        echo = float(np.clip(rest[1:] @ rest[:-1] / max(float(rest @ rest), 1e-12), 0.0, 0.8))
        spread = float(rest @ rest / (len(rest) - 2)) * (1 + echo) / (1 - echo)
    variance = spread * (1 / max(weeks, 1.0) + 1 / max(len(weekly_totals), 1)) + float((expected**2).sum()) / total**2
    width = min(float(ndtri(0.5 + interval / 2)) * float(np.sqrt(variance)), 1.0)
    return total * (1 - width), total * (1 + width)
