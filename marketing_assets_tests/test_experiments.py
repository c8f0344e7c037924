"""Randomised comparisons: hand-computed answers, coverage, daily looks, design, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from marketing_assets.experiments import (
    ExperimentError,
    compare,
    compare_with_past,
    cuped,
    design,
    detectable_uplift,
    exact_binomial,
    fieller,
    sample_ratio,
    sequential_radius,
    users_needed,
)


def test_a_comparison_by_hand() -> None:
    found = compare(np.array([2.0, 4.0, 6.0]), np.array([1.0, 3.0]))
    assert (found.treated_mean, found.control_mean, found.uplift, found.lift) == (4.0, 2.0, 2.0, 1.0)
    spread = 1.959963985 * ((8 + 2) / 3 * (1 / 3 + 1 / 2)) ** 0.5  # 8 and 2 squared about the arms' means, 3 degrees of freedom
    assert found.uplift_high - 2 == pytest.approx(spread)
    assert found.sequential_high > found.uplift_high
    # a control mean that cannot be told from zero leaves the lift unbounded
    assert np.isnan(compare(np.array([2.0, 4.0, 6.0]), np.array([1.0, 4.0])).lift_low)


def test_fieller_against_the_definition() -> None:
    """The ends are the ratios at which treated - ratio x control is exactly z standard errors from zero."""
    low, high = fieller(5.0, 0.04, 4.0, 0.09, 1.96)
    for end in (low, high):
        ratio = 1 + end
        assert abs(5.0 - ratio * 4.0) == pytest.approx(1.96 * (0.04 + ratio**2 * 0.09) ** 0.5, rel=1e-9)


def test_intervals_of_uplift_and_lift_cover() -> None:
    hits = np.zeros(2)
    for run in range(400):
        generator = np.random.default_rng(run)
        treated, control = generator.gamma(1, 1.1, 600), generator.gamma(1, 1.0, 400)
        found = compare(treated, control)
        hits += [found.uplift_low <= 0.1 <= found.uplift_high, found.lift_low <= 0.1 <= found.lift_high]
    assert (hits / 400 > 0.925).all() and (hits / 400 < 0.98).all()


def test_a_small_arm_without_the_biggest_spenders_is_not_taken_at_its_word() -> None:
    """Spending is skewed: one user in twenty held out, the arm's own variance would exclude a true zero four times too often."""
    generator = np.random.default_rng(0)
    spent = generator.lognormal(2.0, 1.8, 1200) * (generator.random(1200) < 0.6)
    before = spent * generator.lognormal(0.0, 0.8, 1200)
    hits = np.zeros(2)
    own = 0
    for _ in range(400):
        held = generator.random(1200) < 0.05
        for place, found in enumerate(compare_with_past(spent, ~held, before)):
            hits[place] += found.uplift_low <= 0 <= found.uplift_high
        own += abs(spent[~held].mean() - spent[held].mean()) <= 1.96 * (
            spent[~held].var(ddof=1) / (~held).sum() + spent[held].var(ddof=1) / held.sum()
        ) ** 0.5
    assert (hits / 400 > 0.925).all() and (hits / 400 < 0.985).all()
    assert own / 400 < 0.85  # what this guards against


def test_looking_every_day_is_safe_with_sequential_intervals_only() -> None:
    """Two equal arms over 60 daily looks: fixed intervals exclude zero at some look far too often."""
    fixed = sequential = 0
    runs = 200
    for run in range(runs):
        generator = np.random.default_rng(run)
        treated, control = generator.normal(size=6000), generator.normal(size=6000)
        looks = [compare(treated[: day * 100], control[: day * 100]) for day in range(1, 61)]
        fixed += any(look.uplift_low > 0 or look.uplift_high < 0 for look in looks)
        sequential += any(look.sequential_low > 0 or look.sequential_high < 0 for look in looks)
    assert fixed / runs > 0.15
    assert sequential / runs <= 0.05


def test_sequential_radius_by_its_formula() -> None:
    assert sequential_radius(0.25, 0.05, typical=1.0) == pytest.approx(
        (0.25 * 1.25 / 1.0 * (2 * np.log(20) + np.log(1.25 / 0.25))) ** 0.5
    )
    assert sequential_radius(0.0, 0.05, typical=1.0) == 0.0


def test_cuped_is_the_regression_residual() -> None:
    generator = np.random.default_rng(0)
    before = generator.gamma(2, 10, 500)
    outcome = 3 + 0.7 * before + generator.normal(size=500) * 5
    adjusted, reduction = cuped(outcome, before)
    slope, _ = np.polyfit(before, outcome, 1)
    assert np.allclose(adjusted, outcome - slope * (before - before.mean()))
    assert adjusted.mean() == pytest.approx(outcome.mean())
    assert reduction == pytest.approx(np.corrcoef(before, outcome)[0, 1] ** 2)


def test_cuped_narrows_without_bias() -> None:
    estimates, narrower = [], 0
    for run in range(200):
        generator = np.random.default_rng(run)
        before = generator.gamma(2, 10, 800)
        treated = generator.random(800) < 0.8
        outcome = before + generator.normal(size=800) * 5 + 2.0 * treated
        plain, reduced = compare_with_past(outcome, treated, before)
        estimates.append(reduced.uplift)
        narrower += reduced.uplift_high - reduced.uplift_low < plain.uplift_high - plain.uplift_low
    assert np.mean(estimates) == pytest.approx(2.0, abs=0.1)
    assert narrower == 200


def test_a_useless_past_changes_nothing() -> None:
    outcome = np.array([1.0, 2.0, 3.0, 4.0])
    adjusted, reduction = cuped(outcome, np.zeros(4))
    assert reduction == 0 and np.array_equal(adjusted, outcome)


def test_sample_ratio_is_the_binomial_test() -> None:
    assert sample_ratio(500, 10_000, 0.05).is_ok
    broken = sample_ratio(400, 10_000, 0.05)
    assert not broken.is_ok and broken.observed_share == 0.04
    from math import comb

    exact = sum(comb(20, k) * 0.05**k * 0.95 ** (20 - k) for k in range(4, 21))
    assert sample_ratio(4, 20, 0.05).p_value == pytest.approx(exact, rel=1e-9)  # no lower count is as unlikely


def test_design_has_the_power_it_says() -> None:
    """Simulated: at the users asked for, four tests in five see the effect."""
    users = users_needed(0.02, 0.1 * 0.9, control_share=0.5)
    assert users == 7064  # (1.96 + 0.8416)^2 x 0.09 x 4 / 0.02^2
    generator = np.random.default_rng(1)
    seen = 0
    for _ in range(400):
        control, treated = generator.binomial(users // 2, 0.1) / (users // 2), generator.binomial(users // 2, 0.12) / (users // 2)
        spread = 1.96 * ((control * (1 - control) + treated * (1 - treated)) / (users // 2)) ** 0.5
        seen += abs(treated - control) > spread
    assert 0.74 <= seen / 400 <= 0.86
    assert detectable_uplift(users, 0.09) == pytest.approx(0.02, rel=1e-3)


def test_days_needed_count_returning_users_once() -> None:
    reached = np.array([1000.0, 1800.0, 2400.0, 2800.0])
    plan = design(0.06, 0.25, reached)
    assert (plan.users, plan.control_users, plan.days) == (2181, 1090, 3)  # (1.96 + 0.8416)^2 x 0.25 x 4 / 0.06^2 = 2180.2
    assert np.isnan(design(0.001, 0.25, reached).days)
    assert design(0.2, 0.25, reached).days == 1


@hypothesis_settings(max_examples=50, deadline=None)
@given(st.floats(0.01, 0.5), st.floats(0.05, 0.95), st.floats(0.0, 0.9))
def test_design_and_its_inverse_agree(uplift: float, share: float, reduction: float) -> None:
    users = users_needed(uplift, 1.0, control_share=share, variance_reduction=reduction)
    assert detectable_uplift(users, 1.0, control_share=share, variance_reduction=reduction) <= uplift * (1 + 1e-9)
    assert users <= users_needed(uplift, 1.0, control_share=share)


def test_bad_input_is_refused_with_its_reason() -> None:
    with pytest.raises(ExperimentError, match="control: at least 2 users"):
        compare(np.ones(5), np.ones(1))
    with pytest.raises(ExperimentError, match="treated: a value is not finite"):
        compare(np.array([1.0, np.inf]), np.ones(3))
    with pytest.raises(ExperimentError, match="difference of zero"):
        users_needed(0.0, 1.0)
    with pytest.raises(ExperimentError, match="control_share"):
        users_needed(0.1, 1.0, control_share=1.0)
    with pytest.raises(ExperimentError, match="no users"):
        sample_ratio(0, 0, 0.05)


@pytest.mark.parametrize(
    ("successes", "trials", "share"),
    [(3, 60, 0.05), (0, 40, 0.05), (500, 10_000, 0.05), (40, 40, 0.5), (61, 900, 0.05), (23, 60, 0.05)],
)
def test_the_exact_binomial_equals_scipys(successes: int, trials: int, share: float) -> None:
    from scipy.stats import binomtest

    assert exact_binomial(successes, trials, share) == pytest.approx(binomtest(successes, trials, share).pvalue, rel=1e-9)
