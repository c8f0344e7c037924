"""Profiles and audiences: formulas against independent oracles, hand-made users, and a small shop over time."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from marketing_assets.config import Audience, ProfileSettings, SourceBlock, Store
from marketing_assets.model_store import Comparison
from marketing_assets.profiles import SEGMENTS, AudienceError, build_audiences, build_profiles
from marketing_assets.profiles.audiences import check_audiences, fit_limits, memberships
from marketing_assets.profiles.build import reasons
from marketing_assets.profiles.fits import first_order
from marketing_assets.profiles.hazard import state
from marketing_assets.profiles.lifetime import PurchaseModel, SpendModel, fit_purchases, fit_spend
from marketing_assets.profiles.linear import Calibration, LinearScore, fit_calibration, fit_linear_score, log_losses, sigmoid
from marketing_assets.profiles.matrix import COLUMNS, FEATURE_NAMES, LINEAR_NAMES, Counts, counts, matrix
from marketing_assets.profiles.propensity import (
    PropensityModel,
    best_threshold,
    fit_propensity,
    losses,
    prior_model,
    prior_probability,
)
from marketing_assets.profiles.segments import SegmentLimits, fit_segment_limits, segment_names
from marketing_assets.profiles.training import Training, outcomes, running_totals
from marketing_assets.profiles.value import FirstOrder, ValueModel, checked, fit_value, order_day_quantile, total_interval
from marketing_assets.warehouse import Built, FittedModel, days_between, insert_model, polars_schema, reader_over

FIRST = date(2024, 1, 1)


# --- formulas ---------------------------------------------------------------------------------------------------------


def test_bg_nbd_expectation_equals_the_papers_equation() -> None:
    """The transformed series must be equation 10 of Fader, Hardie and Lee (2005) as printed."""
    from scipy.special import hyp2f1

    r, alpha, a, b, t = 0.243, 4.414, 0.793, 2.426, 39.0
    x, t_x, age = np.array([0.0, 2.0, 7.0]), np.array([0.0, 30.43, 12.0]), np.array([38.86, 38.86, 30.0])
    z = t / (alpha + age + t)
    growth = 1 - ((alpha + age) / (alpha + age + t)) ** (r + x) * hyp2f1(r + x, b + x, a + b + x - 1, z)
    odds = np.where(x > 0, a / (b + x - 1) * ((alpha + age) / (alpha + t_x)) ** (r + x), 0.0)
    printed = (a + b + x - 1) / (a - 1) * growth / (1 + odds)
    ours = PurchaseModel(r, alpha, a, b).expected_orders(x, t_x, age, t)
    np.testing.assert_allclose(ours, printed, rtol=1e-9)
    assert ours[1] == pytest.approx(1.226, abs=1e-3)  # the paper's customer 0001


def simulate(model: PurchaseModel, users: int, weeks: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    rate, leaving = generator.gamma(model.r, 1 / model.alpha, users), generator.beta(model.a, model.b, users)
    x, last = np.zeros(users), np.zeros(users)
    for user in range(users):
        now = 0.0
        while True:
            now += generator.exponential(1 / rate[user])
            if now > weeks:
                break
            x[user], last[user] = x[user] + 1, now
            if generator.random() < leaving[user]:
                break
    return x, last, np.full(users, weeks)


def test_bg_nbd_fit_finds_what_it_was_simulated_from() -> None:
    truth = PurchaseModel(0.8, 6.0, 0.6, 3.0)
    x, last, age = simulate(truth, 4000, 52.0, seed=3)
    found = fit_purchases(x, last, age)
    expected = truth.expected_orders(x, last, age, 26.0)
    assert found.expected_orders(x, last, age, 26.0).sum() == pytest.approx(expected.sum(), rel=0.06)
    assert found.r == pytest.approx(0.8, rel=0.2)
    with pytest.raises(ValueError, match="no customers"):
        fit_purchases(np.zeros(0), np.zeros(0), np.zeros(0))


def test_bg_nbd_on_cdnow_agrees_with_lifetimes() -> None:
    """Parameters and total that lifetimes 0.11.3 finds on the 23,570 customers' first 39 weeks."""
    folder = os.environ.get("MARKETING_DATA")
    if not folder:
        pytest.skip("MARKETING_DATA is not set: the public sets are not at hand")
    with gzip.open(Path(folder) / "cdnow" / "cdnow_master.txt.gz", "rt") as lines:
        rows = [line.split()[:2] for line in lines if line.strip()][1:]
    cut = date(1997, 9, 30)
    days = pl.DataFrame(rows, schema=["user", "day"], orient="row").with_columns(pl.col("day").str.to_date("%Y%m%d")).unique()
    users = (
        days.filter(pl.col("day") <= cut).group_by("user").agg(first=pl.col("day").min(), last=pl.col("day").max(), n=pl.len())
    )
    x = users["n"].to_numpy().astype(float) - 1
    last = (users["last"] - users["first"]).dt.total_days().to_numpy() / 7
    age = users.select((pl.lit(cut) - pl.col("first")).dt.total_days().alias("age"))["age"].to_numpy() / 7
    found = fit_purchases(x, last, age)
    assert (found.r, found.alpha, found.a, found.b) == pytest.approx((0.2516, 4.7889, 0.7234, 2.1611), rel=0.02)
    assert found.expected_orders(x, last, age, 39.0).sum() == pytest.approx(16_874, rel=0.005)


def test_gamma_gamma_fit_finds_the_mean_and_shrinks_to_it() -> None:
    generator = np.random.default_rng(5)
    n = generator.integers(1, 9, 3000).astype(float)
    truth = SpendModel(6.0, 4.0, 15.0)
    nu = generator.gamma(truth.q, 1 / truth.gamma, 3000)
    mean = generator.gamma(truth.p * n, 1 / nu) / n
    found = fit_spend(n, mean)
    assert found.expected_value(np.zeros(1), np.zeros(1))[0] == pytest.approx(6.0 * 15.0 / 3.0, rel=0.06)
    once, often = found.expected_value(np.array([1.0, 50.0]), np.array([100.0, 100.0]))
    assert 30 < once < often < 100


def test_quantiles_of_order_days_equal_scipys() -> None:
    from scipy.stats import nbinom

    generator = np.random.default_rng(1)
    x = generator.integers(0, 12, 200).astype(float)
    age = generator.uniform(10, 40, 200)
    seen = Counts(x, np.where(x > 0, age * generator.uniform(0.2, 1, 200), 0.0), age, x + 1, np.ones(200))
    model = PurchaseModel(0.5, 8.0, 0.7, 2.5)
    mean = model.expected_orders(seen.repeats, seen.last, seen.age, 20.0)
    alive = model.alive(seen.repeats, seen.last, seen.age)
    for quantile in (0.05, 0.5, 0.95):
        within = (quantile - (1 - alive)) / alive
        shape = model.r + x
        oracle = np.where(
            within <= 0, 0.0, np.maximum(nbinom.ppf(np.clip(within, 0, 1), shape, shape / (shape + mean / alive)), 0)
        )
        np.testing.assert_array_equal(order_day_quantile(model, seen, mean, 20.0, quantile), oracle)


def test_ridge_logistic_equals_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(2)
    rows = generator.normal(size=(400, 3)) * [1, 5, 0.1] + [0, 2, -1]
    outcome = (generator.random(400) < sigmoid(rows @ [1.0, -0.2, 3.0] + 2)).astype(float)
    weight = generator.uniform(0.2, 1.0, 400)
    ours = fit_linear_score(("a", "b", "c"), rows, outcome, weight, 4.0)
    peer = LogisticRegression(C=0.25, tol=1e-10, max_iter=1000).fit(ours.standardised(rows), outcome, sample_weight=weight)
    np.testing.assert_allclose(ours.weights, peer.coef_[0], rtol=1e-4, atol=1e-5)
    constant = fit_linear_score(("a", "k"), np.column_stack([rows[:, 0], np.full(400, 3.0)]), outcome, weight, 4.0)
    assert constant.weights[1] == 0.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(-50, 50), min_size=3, max_size=3), min_size=1, max_size=5))
def test_contributions_and_intercept_add_up_to_the_score(rows: list[list[float]]) -> None:
    score = LinearScore(("a", "b", "c"), np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]), np.array([0.5, -1.0, 2.0]), 0.25)
    values = np.array(rows)
    by_hand = [0.25 + 0.5 * (a - 1) - (b - 2) / 2 + 2 * (c - 3) / 4 for a, b, c in rows]
    np.testing.assert_allclose(score.score(values), by_hand, atol=1e-9)
    np.testing.assert_allclose(score.contributions(values).sum(axis=1) + score.intercept, by_hand, atol=1e-9)


def test_calibration_mends_a_skewed_forecast_and_leaves_a_good_one() -> None:
    generator = np.random.default_rng(4)
    truth = generator.beta(2, 5, 20_000)
    outcome = (generator.random(20_000) < truth).astype(float)
    one = np.ones(20_000)
    good = fit_calibration(truth, outcome, one)
    assert np.abs(good.apply(truth) - truth).max() < 0.03
    mended = fit_calibration(truth**2, outcome, one).apply(truth**2)
    assert np.abs(mended - truth).mean() < 0.02
    assert fit_calibration(np.zeros(0), np.zeros(0), np.zeros(0)) == Calibration()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 99), st.booleans()), min_size=1, max_size=12))
def test_threshold_is_the_best_by_trying_all(rows: list[tuple[int, bool]]) -> None:
    chance = np.array([value / 100 for value, _ in rows])
    outcome = np.array([float(hit) for _, hit in rows])

    def f1(limit: float) -> float:
        said = chance >= limit - 1e-9
        return float(2 * (said * outcome).sum() / (said.sum() + outcome.sum()))

    if outcome.sum():
        # Ties in probability must fall on one side, so the chosen cut can fall short of no other cut by more than a tie.
        assert f1(best_threshold(chance, outcome)) >= max(f1(limit) for limit in set(chance)) - 1e-9 or len(set(chance)) < len(
            chance
        )
    else:
        assert best_threshold(chance, outcome) == 0.5


def test_total_interval_narrows_with_the_horizon_and_widens_with_restless_weeks() -> None:
    expected = np.full(1000, 2.0)
    calm = 100 + np.array([1.0, -1.0] * 13)
    restless = 100 + np.array([30.0, -30.0, 25.0, -20.0] * 6 + [10.0, -10.0])
    narrow, wide = (total_interval(expected, weeks, 12.0, 0.9) for weeks in (calm, restless))
    assert narrow[0] < 2000 < narrow[1]
    assert narrow[1] - narrow[0] < wide[1] - wide[0]
    assert total_interval(np.zeros(0), calm, 12.0, 0.9) == (0.0, 0.0)


# --- users by hand ----------------------------------------------------------------------------------------------------


def user(user_id: str, **values: object) -> dict[str, object]:
    """A user_features row: nothing done but seen today."""
    day = values.pop("as_of_date", date(2024, 6, 30))
    row: dict[str, object] = {
        "as_of_date": day,
        "user_id": user_id,
        "issued_date": day,
        "first_seen_date": day,
        "last_seen_date": day,
        "order_days": 0,
        "orders": 0,
        "revenue": 0,
        "gross_revenue": 0,
        "refunds": 0,
        "searches": 0,
        **{name: 0.0 for name in COLUMNS if "_decayed_" in name},
    }
    return {**row, **values}


def entries(*rows: dict[str, object]) -> pl.DataFrame:
    schema = {name: kind for name, kind in polars_schema("user_features").items() if name in COLUMNS}
    return pl.DataFrame(list(rows), schema=schema).select(COLUMNS)


def buyer(user_id: str, days_ago: int, order_days: int, spend: int, first_days_ago: int = 300) -> dict[str, object]:
    day = date(2024, 6, 30)
    last = day - timedelta(days=days_ago)
    first = day - timedelta(days=max(first_days_ago, days_ago))
    return user(
        user_id,
        first_seen_date=first,
        last_seen_date=last,
        first_order_date=first if order_days > 1 else last,
        last_order_date=last,
        order_days=order_days,
        orders=order_days,
        revenue=spend,
        gross_revenue=spend,
        mean_days_between_orders=(last - first).days / (order_days - 1) if order_days > 1 else None,
    )


LIMITS = SegmentLimits((10.0, 30.0, 90.0, 180.0), (1.0, 2.0, 4.0, 8.0), (20.0, 50.0, 150.0, 500.0))


def test_segments_by_hand() -> None:
    rows = entries(
        buyer("champion", 2, 12, 900),
        buyer("newcomer", 2, 1, 15, first_days_ago=2),
        buyer("rises", 2, 3, 60),
        buyer("back", 2, 1, 15),
        buyer("loyal", 60, 6, 400),
        buyer("asleep", 60, 1, 10),
        buyer("slipping", 120, 6, 400),
        buyer("lost_great", 250, 12, 900),
        buyer("gone", 250, 1, 10),
        user("window", first_seen_date=date(2024, 6, 20)),
        user("never", first_seen_date=date(2024, 1, 1)),
    )
    assert segment_names(rows, LIMITS).to_list() == [
        "champions",
        "new",
        "potential_loyalist",
        "promising",
        "loyal",
        "about_to_sleep",
        "at_risk",
        "cannot_lose",
        "hibernating",
        "visitor",
        "never_bought",
    ]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 20), st.integers(0, 2000)), min_size=1, max_size=15))
def test_a_users_segment_depends_on_the_user_alone(rows: list[tuple[int, int, int]]) -> None:
    frame = entries(*(buyer(f"u{i}", *row) for i, row in enumerate(rows)))
    together = segment_names(frame, LIMITS).to_list()
    assert together == [segment_names(frame[i : i + 1], LIMITS)[0] for i in range(len(rows))]
    assert set(together) <= set(SEGMENTS)


def test_segment_limits_move_from_the_prior_to_the_shops_own() -> None:
    assert fit_segment_limits(entries()).recency == (14.0, 30.0, 90.0, 180.0)
    many = pl.DataFrame({"recency_days": [1, 2, 3, 4, 5] * 2000, "order_days": [1] * 10_000, "revenue": [10.0] * 10_000})
    limits = fit_segment_limits(many)
    assert limits.recency[3] < 7 and list(limits.recency) == sorted(limits.recency)


def test_cold_and_one_event_users_get_an_honest_answer() -> None:
    """Nobody crashes a model: a visitor gets the prior, a first buyer a wide interval around a small value."""
    rows = entries(user("cold"), buyer("once", 0, 1, 40, first_days_ago=0))
    model = prior_model(rows, 30)
    chance = model.probability(rows)
    assert ((chance > 0.05) & (chance < 0.3)).all()
    value = fit_value(rows, 90, 0.9, 1.0)
    expected, low, middle, high = value.score(rows, FirstOrder(chance, 30))
    assert low[1] == 0.0 <= middle[1] <= high[1] and high[1] > 1.5 * expected[1] > 0
    assert low[0] == 0.0 < expected[0] < high[0]  # may yet buy, as likely as the propensity says
    nobody = entries()
    nothing = np.zeros(0)
    assert len(prior_model(nobody, 30).probability(nobody)) == 0
    assert len(fit_value(nobody, 90, 0.9, 1.0).score(nobody, FirstOrder(nothing, 30))[0]) == 0


def test_who_never_bought_is_worth_what_the_propensity_says() -> None:
    """BG/NBD's new customer at the pace that makes P(order within 30 days) come out; over the same 30 days, order days exceed it."""
    purchases = PurchaseModel(0.8, 6.0, 0.7, 2.5)
    nothing = np.zeros(1)
    for chance in (0.02, 0.3, 0.9):
        pace = purchases.alpha * ((1 - chance) ** (-1 / purchases.r) - 1) / 30  # weeks of the model for each day
        assert purchases.order_probability(nothing, nothing, nothing, pace * 30)[0] == pytest.approx(chance)
        model = ValueModel(90, 0.9, purchases, SpendModel(6.0, 4.0, 15.0), 0.5, level=2.0, first_level=0.8)
        days = purchases.expected_orders(nothing, nothing, nothing, pace * 90)[0]
        rows = entries(user("looks"), buyer("buys", 3, 4, 100))
        first = FirstOrder(np.array([chance, chance]), 30)
        assert model.order_days(rows, first)[0] == pytest.approx(days) and days > chance
        assert model.expected(rows, first)[0] == pytest.approx(days * 0.5 * 0.8 * 6.0 * 15.0 / 3.0)
        unread = FirstOrder(np.array([chance, 0.0]), 30)  # who bought is told by orders alone
        assert model.expected(rows, first)[1] == model.expected(rows, unread)[1] > 0
    assert (np.diff(model.expected(entries(*(user(f"u{n}") for n in range(5))), FirstOrder(np.linspace(0, 1, 5), 30))) > 0).all()


def test_only_who_never_bought_is_asked_of_the_propensity() -> None:
    rows = entries(user("looks"), buyer("buys", 3, 4, 100), user("looked", last_seen_date=date(2024, 5, 1), first_seen_date=date(2024, 3, 1)))
    model = prior_model(rows, 30)
    first = first_order(model, rows, shop())
    np.testing.assert_array_equal(first.chance, np.where([True, False, True], model.probability(rows), 0.0))
    assert first.days == 30 and first.chance[0] > first.chance[2] > 0


def test_levels_of_buyers_and_of_who_never_bought_are_learnt_apart() -> None:
    """Buyers brought half of what was expected, others thrice; each pulled to 1 as if 200 had been right."""
    rows = entries(*(buyer(f"b{n}", 5, 4, 100) for n in range(400)), *(user(f"v{n}") for n in range(400)))
    model = ValueModel(90, 0.9, PurchaseModel(0.8, 6.0, 0.7, 2.5), SpendModel(6.0, 4.0, 15.0))
    first = FirstOrder(np.full(800, 0.2), 30)
    outcome = model.expected(rows, first) * np.repeat([0.5, 3.0], 400)
    learnt = checked(model, Training(rows, outcome, np.zeros(800), np.zeros(800, dtype=bool)), first)
    assert learnt.level == pytest.approx((400 * 0.5 + 200) / 600) and learnt.first_level == pytest.approx((400 * 3 + 200) / 600)
    few = Training(rows[:420], outcome[:420], np.zeros(420), np.zeros(420, dtype=bool))
    assert checked(model, few, FirstOrder(first.chance[:420], 30)).first_level == 1.0  # twenty tell nothing


def test_a_text_of_before_first_levels_is_still_read() -> None:
    stored = json.loads(ValueModel(90, 0.9, PurchaseModel(0.8, 6.0, 0.7, 2.5), None, first_level=0.5).as_text())
    del stored["first_level"]
    assert ValueModel.from_text(json.dumps({**stored, "never_bought_value": 3.0})).first_level == 1.0


def test_prior_probability_by_hand() -> None:
    """60 days of the shop's rate and the user's own: shape 0.3 + 2 over 60 + 140 days, 30 days ahead."""
    row = entries(buyer("u", 0, 3, 90, first_days_ago=140))
    assert prior_probability(row, 0.005, 30)[0] == pytest.approx(1 - (200 / 230) ** 2.3)


def test_who_never_bought_is_the_less_likely_to_the_longer_unseen() -> None:
    """The rate fades to 1/e in 30 days without a visit; how long ago the first one was is no reason by itself."""
    day = date(2024, 6, 30)
    rows = entries(*(user(f"u{n}", last_seen_date=day - timedelta(days=n), first_seen_date=day - timedelta(days=60)) for n in (0, 30)), user("new"))
    chance = prior_probability(rows, 0.005, 30)
    np.testing.assert_allclose(chance, [1 - 1.5**-0.3, 1 - (1 + 0.5 / np.e) ** -0.3, 1 - 1.5**-0.3])


def test_before_any_outcome_buyers_are_told_by_bg_nbd() -> None:
    known = entries(*(buyer(f"u{n}", 5 + n, 2 + n % 4, 50, first_days_ago=60 + n) for n in range(40)), user("looks"))
    model = prior_model(known, 30)
    seen = counts(known)
    assert not model.is_start and prior_model(known[:3], 30).is_start
    chance = model.rhythm.order_probability(seen.repeats, seen.last, seen.age, 30 / 7)
    np.testing.assert_allclose(model.probability(known)[:40], chance[:40], atol=1e-6)
    assert model.probability(known)[40] == pytest.approx(prior_probability(known, model.daily_rate, 30)[40], abs=1e-6)


def test_outcomes_of_few_origins_teach_nothing() -> None:
    """Who came on three first days ordered nearly all; a model of them would expect it of everybody."""
    rows = entries(*(user(f"u{n}", as_of_date=date(2024, 5, 1 + n % 3)) for n in range(300)))
    training = Training(rows, (np.arange(300) % 5 > 0).astype(float), np.zeros(300), np.zeros(300, dtype=bool))
    assert fit_propensity(training, rows, 30, shop()).model.kind == "prior"
    more = entries(*(user(f"u{n}", as_of_date=date(2024, 5, 1 + n % 4)) for n in range(300)))
    assert fit_propensity(replace(training, entries=more), more, 30, shop()).model.kind == "linear"


def test_matrix_is_finite_and_named() -> None:
    rows = entries(user("cold"), buyer("u", 3, 4, 100), buyer("returns_all", 3, 1, 0))
    values = matrix(rows, PurchaseModel(0.5, 10.0, 0.5, 3.0), 30 / 7)
    assert values.shape == (3, len(FEATURE_NAMES)) and np.isfinite(values).all()
    assert values[1][FEATURE_NAMES.index("days_since_order")] == pytest.approx(np.log(4), abs=1e-6)


def test_reasons_name_the_largest_contributions_in_words() -> None:
    linear = LinearScore(("days_since_order", "order_days"), np.zeros(2), np.ones(2), np.array([-1.0, 0.5]), 0.0)
    said = reasons(linear, np.array([[2.0, 1.0], [-0.5, 3.0], [0.0, 0.0]])).to_list()
    assert said == [
        "no order for long (-2.0); came back to order many times (+0.5)",
        "came back to order many times (+1.5); ordered recently (+0.5)",
        "nothing stands out yet",
    ]


def test_outcomes_by_hand() -> None:
    """The origin's own day is history; the horizon's last day counts; refunds lower the value but are no order."""
    asked = pl.DataFrame({"as_of_date": [FIRST, FIRST, FIRST + timedelta(days=3)], "user_id": ["a", "b", "a"]})
    orders = pl.DataFrame(
        [("a", 0, 1, 10.0), ("a", 5, 2, 20.0), ("a", 6, 0, -4.0), ("b", 6, 1, 7.0)],
        orient="row",
        schema=["user_id", "day", "orders", "revenue"],
    ).select("user_id", "orders", "revenue", event_date=pl.lit(FIRST) + pl.duration(days=pl.col("day")))
    found = outcomes(asked, running_totals(orders), 5)
    assert found["ordered"].to_list() == [1.0, 0.0, 1.0]
    assert found["revenue_after"].to_list() == [20.0, 0.0, 16.0]


def test_order_days_of_trees_are_averaged_with_bg_nbds() -> None:
    rows = entries(buyer("a", 3, 4, 100), buyer("b", 80, 2, 30))
    now = state(rows, purchases := PurchaseModel(0.8, 6.0, 0.7, 2.5))
    import lightgbm

    weekly = np.tile([0.2, 0.6], 100)  # orders of a and of b per week, whatever the lead
    data = lightgbm.Dataset(np.column_stack([np.tile(now, (100, 1)), np.zeros(200)]), weekly)
    trees = lightgbm.train({"objective": "poisson", "min_data_in_leaf": 1, "verbosity": -1}, data, num_boost_round=300).model_to_string()
    first = FirstOrder(np.zeros(2), 30)
    plain = ValueModel(90, 0.9, purchases, None).order_days(rows, first)
    both = ValueModel(90, 0.9, purchases, None, trees=trees).order_days(rows, first)
    np.testing.assert_allclose(both, np.sqrt(plain * np.array([0.2, 0.6]) * 90 / 7), rtol=1e-3)


def test_models_survive_their_text() -> None:
    rows = entries(*(buyer(f"u{i}", i, 1 + i % 5, 10 * i) for i in range(60)))
    model = prior_model(rows, 30)
    assert PropensityModel.from_text(model.as_text()).as_text() == model.as_text()
    value = fit_value(rows, 90, 0.9, 0.4)
    again = ValueModel.from_text(value.as_text())
    first = FirstOrder(np.zeros(60), 30)
    np.testing.assert_array_equal(value.score(rows, first)[0], again.score(rows, first)[0])


def test_search_takes_trees_where_they_earn_it_and_stays_within_its_trials() -> None:
    """Who orders in a middle band of recency and only there: no line can say that, a tree can."""
    pytest.importorskip("marketing_assets.assignment")
    generator = np.random.default_rng(9)
    parts, outcome = [], []
    for week in range(16):
        day = date(2024, 6, 30) - timedelta(days=7 * (15 - week))
        ago, times = generator.integers(0, 200, 250), generator.integers(1, 9, 250)
        rows = entries(*(buyer(f"u{i:03d}", int(a), int(n), 50, 250) for i, (a, n) in enumerate(zip(ago, times, strict=True))))
        moved = [name for name, kind in rows.schema.items() if kind == pl.Date]
        back = (date(2024, 6, 30) - day).days
        parts.append(rows.with_columns(pl.col(name) - pl.duration(days=back) for name in moved))
        outcome.append((generator.random(250) < np.where((ago > 50) & (ago < 110), 0.7, 0.1)).astype(float))
    rows = pl.concat(parts)
    age = rows.select(age=(pl.lit(date(2024, 6, 30)) - pl.col("as_of_date")).dt.total_days().cast(pl.Float64))["age"]
    training = Training(rows, np.concatenate(outcome), age.to_numpy(), np.zeros(len(rows), dtype=bool))
    fit = fit_propensity(training, rows.tail(250), 14, shop("learned"))
    assert fit.parameters["kind"] == "trees" and fit.metrics["judged_loss"] < fit.metrics["base_rate_loss"]
    assert len(fit.metrics["trials"]) <= shop().profiles.search_trials
    again = PropensityModel.from_text(fit.model.as_text())
    np.testing.assert_array_equal(again.probability(rows), fit.model.probability(rows))
    plain = fit_propensity(training, rows.tail(250), 14, shop())
    assert losses(fit.model, training).mean() < losses(plain.model, training).mean() - 0.02


# --- audiences --------------------------------------------------------------------------------------------------------


def profiles(users: int = 100) -> pl.DataFrame:
    """Users 0..n-1 with propensity i/n and value i; every tenth is a champion, every second has bought."""
    index = np.arange(users)
    day = date(2024, 6, 30)
    return pl.DataFrame(
        {
            "as_of_date": [day] * users,
            "user_id": [f"u{i:03d}" for i in index],
            "recency_days": [int(i) for i in index],
            "frequency": [int(i % 2) for i in index],
            "monetary": [float(i) for i in index],
            "segment": ["champions" if i % 10 == 0 else "loyal" for i in index],
            "purchase_propensity": index / users,
            "churn_probability": 1 - index / users,
            "clv_90d": index.astype(float),
            "profile_score": index / 10,
            "first_sign_date": [day - timedelta(days=int(i)) for i in index],
        }
    )


def members(found: pl.DataFrame, audience_id: str) -> list[str]:
    return found.filter(pl.col("audience_id") == audience_id)["user_id"].to_list()


def test_audience_rules_by_hand() -> None:
    rules = (
        Audience(audience_id="best", rule="segment", priority=1, segments=("champions",)),
        Audience(audience_id="likely", rule="propensity_top", priority=2, share=0.1),
        Audience(audience_id="valued", rule="clv_top", priority=3, share=0.05),
        Audience(audience_id="leaving", rule="churn_risk", priority=4, share=0.02),
        Audience(audience_id="fresh", rule="new_users", priority=5),
        Audience(audience_id="alike", rule="look_alike", priority=6, share=0.1, seed_audience_id="likely"),
        Audience(audience_id="all", rule="everyone", priority=7),
    )
    known = profiles()
    limits = fit_limits(known, rules)
    found = memberships(known, rules, limits)
    assert members(found, "best") == [f"u{i:03d}" for i in range(0, 100, 10)]
    assert members(found, "likely") == [f"u{i:03d}" for i in range(90, 100)]
    assert members(found, "valued") == [f"u{i:03d}" for i in range(95, 100)]
    assert members(found, "leaving") == ["u001", "u003"]  # only who has bought can be lost
    assert members(found, "fresh") == [f"u{i:03d}" for i in range(30)]
    assert members(found, "alike") == [f"u{i:03d}" for i in range(80, 90)]  # the next best, never the seeds themselves
    assert len(members(found, "all")) == 100
    alone = memberships(known[95:96], rules, limits)
    assert_frame_equal(alone, found.filter(pl.col("user_id") == "u095"))
    assert type(limits).from_text(limits.as_text()).limits == limits.limits


def test_a_user_in_no_audience_has_one_row_without_one() -> None:
    rules = (Audience(audience_id="best", rule="segment", priority=1, segments=("champions",)),)
    found = memberships(profiles(3), rules, fit_limits(profiles(3), rules))
    assert found.select("user_id", "audience_id", "priority").rows() == [
        ("u000", "best", 1),
        ("u001", None, None),
        ("u002", None, None),
    ]


@pytest.mark.parametrize(
    ("audience", "message"),
    [
        (Audience(audience_id="a", rule="segment", priority=1), "needs 'segments'"),
        (Audience(audience_id="a", rule="look_alike", priority=1), "needs 'seed_audience_id'"),
        (Audience(audience_id="a", rule="look_alike", priority=1, seed_audience_id="a"), "a look-alike itself"),
    ],
)
def test_audiences_that_cannot_be_used_are_named(audience: Audience, message: str) -> None:
    with pytest.raises(AudienceError, match=message):
        check_audiences([audience])


# --- a small shop over time -------------------------------------------------------------------------------------------

LAST = FIRST + timedelta(days=104)


def shop(methods: str = "plain") -> Store:
    return Store(
        name="shop",
        timezone="UTC",
        currency="EUR",
        first_day=FIRST,
        methods=methods,
        threads=1,
        sources={"events": SourceBlock(rows=[])},
        profiles=ProfileSettings(
            horizon_days=14,
            churn_horizon_days=28,
            clv_horizon_days=28,
            search_trials=4,
            audiences=(
                Audience(audience_id="likely", rule="propensity_top", priority=1, share=0.2),
                Audience(audience_id="alike", rule="look_alike", priority=2, share=0.1, seed_audience_id="likely"),
                Audience(audience_id="new", rule="new_users", priority=3),
            ),
        ),
    )


@cache
def purchases() -> pl.DataFrame:
    """Order rows of 240 users with very different rates, some of whom leave; a tenth of the rows land two days late."""
    generator = np.random.default_rng(11)
    rows = []
    for number in range(240):
        start, rate = int(generator.integers(0, 60)), float(generator.gamma(1.0, 0.08))
        leaves = start + int(generator.exponential(60)) + 1
        for day in range(start, 105):
            if day == start or (day < leaves and generator.random() < rate):
                late = 2 if generator.random() < 0.1 else 0
                amount = round(float(generator.gamma(2.0, 20.0)) + 1, 2)
                rows.append((f"u{number:03d}", FIRST + timedelta(days=day), FIRST + timedelta(days=day + late), amount))
    return pl.DataFrame(rows, schema=["user_id", "event_date", "landed_date", "amount"], orient="row").filter(
        pl.col("landed_date") <= LAST
    )


def feature_log(store: Store, known: pl.DataFrame) -> pl.DataFrame:
    """user_features as its contract words it, the plain way: one group_by per day."""
    parts = []
    for day in days_between(FIRST, LAST):
        past = known.filter(pl.col("landed_date") <= day)
        if not store.is_cadence_day(day, 7):
            seen = past.filter(pl.col("landed_date") == day)["user_id"].unique()
            past = past.filter(pl.col("user_id").is_in(seen.implode()))
        age = (pl.lit(day) - pl.col("event_date")).dt.total_days()
        decayed = {
            **{f"orders_decayed_{h}": (0.5 ** (age / h)).sum().round(6) for h in (7, 30, 90)},
            **{f"revenue_decayed_{h}": (pl.col("amount") * 0.5 ** (age / h)).sum().round(6) for h in (30, 90)},
        }
        parts.append(
            past.group_by("user_id")
            .agg(
                first_seen_date=pl.col("event_date").min(),
                last_seen_date=pl.col("event_date").max(),
                first_order_date=pl.col("event_date").min(),
                last_order_date=pl.col("event_date").max(),
                order_days=pl.col("event_date").n_unique(),
                orders=pl.len(),
                revenue=pl.col("amount").sum().round(2),
                **decayed,
            )
            .with_columns(as_of_date=pl.lit(day), issued_date=pl.lit(day))
        )
    log = pl.concat(parts).with_columns(
        gross_revenue="revenue",
        mean_days_between_orders=pl.when(pl.col("order_days") > 1).then(
            (pl.col("last_order_date") - pl.col("first_order_date")).dt.total_days() / (pl.col("order_days") - 1)
        ),
    )
    schema = polars_schema("user_features")
    given = {name: pl.col(name).cast(kind) for name, kind in schema.items() if name in log.columns}
    zero = {name: pl.lit(0).cast(kind) for name, kind in schema.items() if name not in log.columns}
    return log.select(**{name: given.get(name, zero.get(name)) for name in schema})


def frames(store: Store, end: date) -> dict[str, pl.DataFrame]:
    known = purchases().filter(pl.col("landed_date") <= end)
    events = known.with_row_index("number").select(
        "user_id",
        "event_date",
        "landed_date",
        event_id=pl.col("number").cast(pl.String),
        event_type=pl.lit("purchase"),
        revenue=pl.col("amount").cast(pl.Decimal(18, 4)),
        is_bot=pl.lit(False),
        is_service=pl.lit(False),
    )
    preferences = pl.DataFrame(
        {
            "as_of_date": [FIRST] * 3,
            "user_id": ["u000"] * 3,
            "preference_type": ["category", "category", "channel"],
            "preference_value": ["toys", "books", "mail"],
            "weight": [1.0, 3.0, 1.0],
            "share": [0.25, 0.75, 1.0],
        }
    )
    log = feature_log(store, purchases()).filter(pl.col("as_of_date") <= end)
    return {"user_features": log, "clean_events": events, "user_preferences": preferences}


def frame(built: Built, name: str) -> pl.DataFrame:
    found = built.tables[name]
    assert isinstance(found, pl.DataFrame)
    return found


def run(store: Store, ends: Sequence[date]) -> tuple[dict[str, pl.DataFrame], list[FittedModel]]:
    """The window up to the last of `ends`, cut after each of them; every part sees nothing that landed after its end."""
    parts: dict[str, list[pl.DataFrame]] = {"user_profiles": [], "profile_weights": [], "audiences": []}
    models: list[FittedModel] = []
    start = FIRST
    for end in ends:
        reader = reader_over(
            {**frames(store, end), **{name: pl.concat(done) for name, done in parts.items() if done}}, store, end, models
        )
        days = days_between(start, end)
        built = build_profiles(reader, days, store)
        rows = frame(built, "user_profiles")
        reader.connection.register("incoming", rows.to_arrow())
        reader.connection.execute("INSERT INTO user_profiles BY NAME SELECT * FROM incoming")
        for model in built.models:
            insert_model(reader.connection, model)
        chosen = build_audiences(reader, days, store)
        models += [*built.models, *chosen.models]
        for name, made in (
            ("user_profiles", rows),
            ("profile_weights", frame(built, "profile_weights")),
            ("audiences", frame(chosen, "audiences")),
        ):
            parts[name].append(made)
        start = end + timedelta(days=1)
    return {name: pl.concat(done) for name, done in parts.items()}, models


@pytest.fixture(scope="module")
def whole() -> tuple[dict[str, pl.DataFrame], list[FittedModel]]:
    pytest.importorskip("marketing_assets.assignment")
    return run(shop(), [LAST])


def test_profiles_have_exactly_the_users_of_the_features(whole: tuple[dict[str, pl.DataFrame], list[FittedModel]]) -> None:
    tables, _ = whole
    keys = frames(shop(), LAST)["user_features"].select("as_of_date", "user_id").sort("as_of_date", "user_id")
    assert_frame_equal(tables["user_profiles"].select("as_of_date", "user_id"), keys)
    assert_frame_equal(tables["audiences"].select("as_of_date", "user_id").unique(maintain_order=True), keys)
    for name, rows in tables.items():
        assert dict(rows.schema) == polars_schema(name)
    first = tables["user_profiles"].filter(pl.col("as_of_date") == FIRST, pl.col("user_id") == "u000")
    if first.height:
        assert first.select("preferred_category", "preferred_channel", "preferred_hour_block").row(0) == ("books", "mail", None)


def test_profile_numbers_keep_their_limits(whole: tuple[dict[str, pl.DataFrame], list[FittedModel]]) -> None:
    rows = whole[0]["user_profiles"]
    assert rows.select(pl.col("purchase_propensity").is_between(0, 1).all()).item()
    assert rows.select((pl.col("churn_probability") <= 1 - pl.col("purchase_propensity") + 1e-6).all()).item()
    assert rows.select(
        (pl.col("clv_90d_low") <= pl.col("clv_90d_median")).all()
        & (pl.col("clv_90d_median") <= pl.col("clv_90d_high")).all()
        & (pl.col("clv_90d") <= pl.col("clv_90d_high")).all()
    ).item()
    assert rows.null_count().select("segment", "top_reasons", "model_version").sum_horizontal()[0] == 0


def test_score_is_the_sum_of_published_weights(whole: tuple[dict[str, pl.DataFrame], list[FittedModel]]) -> None:
    """Anyone can redo U from profile_weights and user_features: sum of w (x - mean) / scale plus the intercept."""
    tables, models = whole
    day = max(d for d in tables["user_profiles"]["as_of_date"].unique() if shop().is_cadence_day(d, 7) and d <= LAST)
    weights = {row["feature"]: row for row in tables["profile_weights"].filter(pl.col("as_of_date") == day).to_dicts()}
    assert set(weights) == {*LINEAR_NAMES, "intercept"}
    version = weights["intercept"]["model_version"]
    model = PropensityModel.from_text(next(m.model for m in models if m.model_version == version))
    rows = frames(shop(), LAST)["user_features"].filter(pl.col("as_of_date") == day).sort("user_id").select(COLUMNS)
    values = dict(zip(FEATURE_NAMES, matrix(rows, model.rhythm, 2.0).T, strict=True))
    score = weights["intercept"]["weight"] + sum(
        weights[name]["weight"] * (values[name] - weights[name]["mean"]) / weights[name]["scale"] for name in LINEAR_NAMES
    )
    ours = tables["user_profiles"].filter(pl.col("as_of_date") == day).sort("user_id")["profile_score"].to_numpy()
    np.testing.assert_allclose(ours, score, atol=2e-6)


def test_learnt_propensity_tells_buyers_from_others_and_is_on_level(
    whole: tuple[dict[str, pl.DataFrame], list[FittedModel]],
) -> None:
    tables, models = whole
    origin = LAST - timedelta(days=14)
    origin = max(d for d in days_between(FIRST, origin) if shop().is_cadence_day(d, 7))
    rows = tables["user_profiles"].filter(pl.col("as_of_date") == origin)
    later = (
        purchases().filter(pl.col("event_date") > origin, pl.col("event_date") <= origin + timedelta(days=14))["user_id"].unique()
    )
    outcome = rows["user_id"].is_in(later.implode()).to_numpy().astype(float)
    chance = rows["purchase_propensity"].to_numpy()
    base = np.full(len(outcome), outcome.mean())
    assert log_losses(outcome, chance).mean() < log_losses(outcome, base).mean()
    assert 0.6 < chance.sum() / outcome.sum() < 1.6
    kinds = [m.parameters["kind"] for m in models if m.model_name == "profiles.propensity"]
    assert kinds[0] == "prior" and kinds[-1] == "linear"


def test_first_fit_is_promoted_at_once_and_every_fit_is_recorded(
    whole: tuple[dict[str, pl.DataFrame], list[FittedModel]],
) -> None:
    fits = [m for m in whole[1] if m.model_name == "profiles.value"]
    assert [(m.fitted_as_of - FIRST).days for m in fits] == [0, 7, 14, 21, 28, 35, 42, 49, 56, 84]  # weekly in the first eight weeks
    assert fits[0].is_promoted and fits[0].trigger == "first"
    assert all("holdout_loss" in m.metrics for m in fits[1:])
    # eight weeks and a day: that day alone is no week, beside which the others look like a boom
    old = fits[8].metrics
    assert 0.5 * old["total"] < old["total_low"] < old["total_high"] < 1.5 * old["total"]
    used = set(whole[0]["user_profiles"]["model_version"].unique())
    assert used <= {m.model_version for m in whole[1] if m.is_promoted}


def test_a_start_gives_way_to_the_first_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """On its first day a shop has no repeat orders; the few of that day cannot say that what is fitted later is better."""
    lost = Comparison(False, 2.0, 1.0, 1.0, 0.5, 1.5, 40)
    monkeypatch.setattr("marketing_assets.profiles.fits.compare", lambda *_, **__: lost)
    models = run(shop(), [LAST])[1]
    values = [m for m in models if m.model_name == "profiles.value"]
    is_start = [ValueModel.from_text(m.model).is_start for m in values]
    assert is_start == sorted(is_start, reverse=True) and is_start[0] and not is_start[-1]
    assert [k for k, m in enumerate(values) if m.is_promoted] == [0, is_start.index(False)]
    orders = [m for m in models if m.model_name == "profiles.churn"]
    assert [PropensityModel.from_text(m.model).is_start for m in orders if m.is_promoted] == [True, False]


@pytest.mark.parametrize("methods", ["plain", "learned"])
def test_day_by_day_and_as_a_range_give_the_same_rows(methods: str) -> None:
    """Each part of the cut run is built with everything that landed after it deleted: this is the leak test as well."""
    pytest.importorskip("marketing_assets.assignment")
    store = shop(methods)
    one, one_models = run(store, [LAST])
    cuts = [
        FIRST,
        FIRST + timedelta(days=1),
        FIRST + timedelta(days=55),
        FIRST + timedelta(days=56),
        FIRST + timedelta(days=60),
        LAST,
    ]
    many, many_models = run(store, cuts)
    for name in one:
        assert_frame_equal(one[name], many[name], rel_tol=1e-9, abs_tol=1e-12)
    assert sorted((m.model_version, m.is_promoted) for m in one_models) == sorted(
        (m.model_version, m.is_promoted) for m in many_models
    )


def test_without_events_tables_are_empty_and_say_why() -> None:
    store = shop().model_copy(update={"sources": {"impressions": SourceBlock(rows=[])}})
    reader = reader_over({}, store, FIRST)
    built = build_profiles(reader, [FIRST], store)
    assert frame(built, "user_profiles").is_empty() and built.degraded["user_profiles"] == "needs source 'events'"
    assert build_audiences(reader, [FIRST], store).degraded == {"audiences": "needs source 'events'"}


def test_days_without_anybody_are_built_and_empty() -> None:
    pytest.importorskip("marketing_assets.assignment")
    store = shop()
    reader = reader_over({}, store, FIRST + timedelta(days=40))
    days = days_between(FIRST, FIRST + timedelta(days=40))
    built = build_profiles(reader, days, store)
    assert frame(built, "user_profiles").is_empty()
    assert frame(built, "profile_weights").height == 41 * (len(LINEAR_NAMES) + 1)
    assert frame(build_audiences(reader, days, store), "audiences").is_empty()
