"""Uplift: curves against plain loops, learners on data with a known effect, several arms, choice under a budget."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from marketing_assets.uplift import (
    DrLearner,
    SLearner,
    TLearner,
    UpliftError,
    XLearner,
    choose_arms,
    default_learner,
    qini_coefficient,
    qini_curve,
    qini_interval,
    uplift_at,
    uplift_auc,
    uplift_curve,
)


def sample(seed: int, users: int, arms: int = 1) -> tuple[Any, Any, Any, Any]:
    """Features, arm, binary outcome and the true effects users x arms: the effect sits in feature 1."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(users, 4))
    arm = generator.integers(0, arms + 1, users)
    effect = np.column_stack([0.15 * (features[:, 1] > 0) * (1 + number) / arms for number in range(arms)])
    base = 0.2 + 0.1 * (features[:, 0] > 0)
    rate = base + np.column_stack([np.zeros(users), effect])[np.arange(users), arm]
    return features, arm, (generator.random(users) < rate).astype(float), effect


def loop_curve(outcome: Any, score: Any, treated: Any, kind: str) -> list[tuple[float, float]]:
    """Down the ranking one user at a time, a point at the end of every tie."""
    order = sorted(range(len(score)), key=lambda user: (-score[user], -user))
    points = [(0.0, 0.0)]
    y_t = y_c = n_t = n_c = 0.0
    for place, user in enumerate(order):
        if treated[user]:
            n_t, y_t = n_t + 1, y_t + outcome[user]
        else:
            n_c, y_c = n_c + 1, y_c + outcome[user]
        if place + 1 == len(order) or score[order[place + 1]] != score[user]:
            if kind == "qini":
                points.append((place + 1, y_t - (y_c * n_t / n_c if n_c else 0.0)))
            else:
                points.append((place + 1, ((y_t / n_t if n_t else 0.0) - (y_c / n_c if n_c else 0.0)) * (place + 1)))
    return points


def area(points: list[tuple[float, float]]) -> float:
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))


@pytest.mark.parametrize("seed", range(4))
def test_curves_and_coefficients_equal_a_plain_loop(seed: int) -> None:
    generator = np.random.default_rng(seed)
    users = 200
    score = np.round(generator.normal(size=users), 1 if seed % 2 else 6)  # with and without ties
    treated = generator.random(users) < 0.4
    outcome = (generator.random(users) < 0.3).astype(float)
    for curve, kind in ((qini_curve, "qini"), (uplift_curve, "uplift")):
        x, y = curve(outcome, score, treated)
        assert np.allclose(np.column_stack([x, y]), loop_curve(outcome, score, treated, kind), atol=1e-12)
    perfect = loop_curve(outcome, [y if t else -y for y, t in zip(outcome, treated, strict=True)], treated, "qini")
    actual = loop_curve(outcome, score, treated, "qini")
    random = users * actual[-1][1] / 2
    assert qini_coefficient(outcome, score, treated) == pytest.approx(
        (area(actual) - random) / (area(perfect) - random), abs=1e-12
    )
    controls = sum(y == 1 and not t for y, t in zip(outcome, treated, strict=True))
    idle = sum(y == 0 and bool(t) for y, t in zip(outcome, treated, strict=True))
    best = [2 * float(y == t) + (y if controls > idle else float(t)) for y, t in zip(outcome, treated, strict=True)]
    actual, perfect = loop_curve(outcome, score, treated, "uplift"), loop_curve(outcome, best, treated, "uplift")
    random = users * actual[-1][1] / 2
    assert uplift_auc(outcome, score, treated) == pytest.approx((area(actual) - random) / (area(perfect) - random), abs=1e-12)


def test_uplift_at_by_hand() -> None:
    score = np.array([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    treated = np.array([True, False, True, False, True, False])
    outcome = np.array([1.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    assert uplift_at(outcome, score, treated, 0.5) == 0.5  # first three: treated 1, 0; control 0
    assert uplift_at(outcome, score, treated, 0.34, by="by_group") == 1.0  # first of each arm
    with pytest.raises(UpliftError, match="hold no user of one arm"):
        uplift_at(outcome, score, treated, 0.2)


@pytest.mark.parametrize(
    "learner", [SLearner(), TLearner(), XLearner(), DrLearner(), default_learner()], ids=lambda learner: learner.name
)
def test_learners_find_who_responds(learner: Any) -> None:
    features, arm, outcome, _ = sample(1, 6000)
    test_features, test_arm, test_outcome, test_effect = sample(2, 4000)
    predicted = learner.fit(features, arm, outcome).predict(test_features)[:, 0]
    assert np.corrcoef(predicted, test_effect[:, 0])[0, 1] > 0.5
    assert qini_coefficient(test_outcome, predicted, test_arm == 1) > 0.02
    again = learner.fit(features, arm, outcome).predict(test_features)[:, 0]
    assert np.array_equal(predicted, again)


def test_several_arms_are_told_apart() -> None:
    features, arm, outcome, _ = sample(3, 12_000, arms=2)
    predicted = default_learner().fit(features, arm, outcome).predict(features)
    responders = features[:, 1] > 0
    assert predicted.shape == (12_000, 2)
    assert predicted[responders, 1].mean() > predicted[responders, 0].mean() > predicted[~responders, 0].mean()


def test_qini_interval_covers_zero_for_a_random_score_and_not_for_the_truth() -> None:
    features, arm, outcome, effect = sample(4, 5000)
    noise = qini_interval(outcome, np.random.default_rng(0).random(5000), arm == 1, replicates=200)
    assert noise.ci_low < 0 < noise.ci_high
    truth = qini_interval(outcome, effect[:, 0] + 1e-6 * features[:, 2], arm == 1, replicates=200)
    assert 0 < truth.ci_low < truth.value < truth.ci_high
    assert truth.value == qini_coefficient(outcome, effect[:, 0] + 1e-6 * features[:, 2], arm == 1)


def test_choice_by_hand() -> None:
    """Values of 10: gains 3, 1 and 0.4 at a cost of 0.5 each, 0.9 for the dearer second arm."""
    uplift = np.array([[0.30, 0.35], [0.10, 0.20], [0.04, 0.04]])
    free = choose_arms(uplift, 10.0, [0.5, 0.9])
    assert free.arm.tolist() == [2, 2, 0]
    assert free.cost == pytest.approx(1.8) and free.gain == pytest.approx(5.5) and free.price == 0
    tight = choose_arms(uplift, 10.0, [0.5, 0.9], budget=1.0)
    assert tight.cost <= 1.0 and tight.price > 0
    assert tight.arm.tolist()[0] > 0


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 6.0))
def test_choice_under_a_budget_is_within_one_user_of_the_best(seed: int, budget: float) -> None:
    """Against all assignments of seven users to two arms or none."""
    generator = np.random.default_rng(seed)
    uplift = generator.normal(0.1, 0.15, size=(7, 2))
    cost = np.array([0.5, 0.9])
    found = choose_arms(uplift, 10.0, cost.tolist(), budget)
    assert found.cost <= budget + 1e-9
    best = 0.0
    gains = np.column_stack([np.zeros(7), uplift * 10 - cost])
    prices = np.r_[0.0, cost]
    for code in range(3**7):
        arms = [(code // 3**user) % 3 for user in range(7)]
        if prices[arms].sum() <= budget:
            best = max(best, float(gains[np.arange(7), arms].sum()))
    net = found.gain - found.cost
    assert best - net <= max(gains.max(), 0) + 1e-9


def test_bad_data_is_refused_with_its_reason() -> None:
    with pytest.raises(UpliftError, match=r"expected 0 \(control\)"):
        TLearner().fit(np.zeros((4, 1)), np.array([1, 1, 2, 2]), np.zeros(4))
    with pytest.raises(UpliftError, match="one finite value"):
        TLearner().fit(np.zeros((4, 1)), np.array([0, 1, 0, 1]), np.array([0.0, np.nan, 0, 1]))
    with pytest.raises(UpliftError, match="outcomes 0 and 1 only"):
        qini_coefficient(np.array([0.0, 2.0]), np.array([1.0, 0.0]), np.array([True, False]))
    with pytest.raises(UpliftError, match="both arms"):
        qini_coefficient(np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.array([True, True]))
    with pytest.raises(UpliftError, match="expected 1 costs"):
        choose_arms(np.zeros((2, 1)), 1.0, [0.1, 0.2])
