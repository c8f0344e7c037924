"""Off-policy estimators: plain-loop oracles, known truth, coverage, bootstrap against the full bootstrap, bad input."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from marketing_assets.intervals import poisson_weights, seeded
from marketing_assets.off_policy import (
    WITH_MODEL,
    WITHOUT_MODEL,
    DirectMethod,
    DoublyRobust,
    Ips,
    Log,
    OffPolicyError,
    SelfNormalisedDoublyRobust,
    ShrunkDoublyRobust,
    Snips,
    SubGaussianDoublyRobust,
    SubGaussianIps,
    SwitchDoublyRobust,
    bootstrap,
    bootstrap_interval,
    effective_sample_size,
    evaluate,
    log_of_distributions,
    support,
)

ACTIONS = 4


def softmax(scores: Any) -> Any:
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def synthetic(seed: int, rows: int, users: int | None = None) -> tuple[Log, dict[str, Any]]:
    """A contextual log; with `users`, each user's rows share most of their context."""
    generator = np.random.default_rng(seed)
    code = None if users is None else generator.integers(0, users, rows)
    own = (
        generator.normal(size=rows)
        if code is None
        else generator.normal(size=users)[code] * 0.8 + generator.normal(size=rows) * 0.6
    )
    taste = np.linspace(-1, 1, ACTIONS)
    logging, target = softmax(0.5 * own[:, None] * taste), softmax(own[:, None] * taste + 0.5 * taste)
    action = (logging.cumsum(axis=1) > generator.random(rows)[:, None]).argmax(axis=1)
    truth = 1 / (1 + np.exp(2.5 - 0.7 * own[:, None] * taste))
    reward = (generator.random(rows) < truth[np.arange(rows), action]).astype(float)
    q = np.full_like(truth, 0.1) + 0.05 * taste
    log = log_of_distributions(reward, action, logging[np.arange(rows), action], target, q, code)
    return log, {"value": (target * truth).sum(axis=1), "target": target, "logging": logging, "action": action, "q": q}


def value(estimator: Any, log: Log) -> float:
    num, den = estimator.terms(log)
    return float(num.sum() / den.sum())


def test_every_estimator_equals_a_plain_loop() -> None:
    log, parts = synthetic(1, 300)
    rows = range(300)
    w = [parts["target"][i][parts["action"][i]] / parts["logging"][i][parts["action"][i]] for i in rows]
    r = log.reward
    q = [parts["q"][i][parts["action"][i]] for i in rows]
    m = [sum(parts["target"][i][a] * parts["q"][i][a] for a in range(ACTIONS)) for i in rows]
    mean = sum(w) / 300
    expected = {
        Ips(): sum(w[i] * r[i] for i in rows) / 300,
        Ips(1.5): sum(min(w[i], 1.5) * r[i] for i in rows) / 300,
        Snips(): sum(w[i] * r[i] for i in rows) / sum(w),
        DirectMethod(): sum(m) / 300,
        DoublyRobust(): sum(m[i] + w[i] * (r[i] - q[i]) for i in rows) / 300,
        DoublyRobust(1.2): sum(m[i] + min(w[i], 1.2) * (r[i] - q[i]) for i in rows) / 300,
        SelfNormalisedDoublyRobust(): sum(m[i] + w[i] / mean * (r[i] - q[i]) for i in rows) / 300,
        SwitchDoublyRobust(1.1): sum(m[i] + (w[i] if w[i] <= 1.1 else 0) * (r[i] - q[i]) for i in rows) / 300,
        ShrunkDoublyRobust(2.0): sum(m[i] + 2 * w[i] / (w[i] ** 2 + 2) * (r[i] - q[i]) for i in rows) / 300,
        SubGaussianIps(0.3): sum(w[i] / (0.7 + 0.3 * w[i]) * r[i] for i in rows) / 300,
        SubGaussianDoublyRobust(0.3): sum(m[i] + w[i] / (0.7 + 0.3 * w[i]) * (r[i] - q[i]) for i in rows) / 300,
    }
    for estimator, answer in expected.items():
        assert value(estimator, log) == pytest.approx(answer, rel=1e-12), estimator


def test_limits_of_the_tuned_forms() -> None:
    """No switching and no shrinkage is doubly robust; full switching and no mix are the others' ends."""
    log, _ = synthetic(2, 500)
    plain = value(DoublyRobust(), log)
    assert value(SwitchDoublyRobust(), log) == pytest.approx(plain) == value(ShrunkDoublyRobust(), log)
    assert value(SwitchDoublyRobust(0.0), log) == pytest.approx(value(DirectMethod(), log))
    assert value(SubGaussianIps(0.0), log) == pytest.approx(value(Ips(), log))


def test_the_logging_policy_is_worth_its_mean_reward() -> None:
    log, _ = synthetic(3, 400)
    same = Log(log.reward, log.logging_propensity, log.logging_propensity)
    for estimator in WITHOUT_MODEL:
        assert value(estimator, same) == pytest.approx(log.reward.mean())
    assert effective_sample_size(same) == pytest.approx(400)


def test_estimates_approach_the_truth() -> None:
    log, parts = synthetic(4, 400_000)
    truth = parts["value"].mean()
    for estimator in (*WITHOUT_MODEL, *WITH_MODEL):
        if estimator.name not in ("direct_method",):  # its model is wrong on purpose
            assert value(estimator, log) == pytest.approx(truth, rel=0.03), estimator
    assert abs(value(DirectMethod(), log) / truth - 1) > 0.01


@pytest.mark.parametrize("users", [None, 300])
def test_intervals_cover_the_truth(users: int | None) -> None:
    """95 % intervals on small logs; with repeated users the rows are dependent and must be resampled by user."""
    truth = float(
        np.concatenate(
            [synthetic(10_000 + part, 200_000, None if users is None else 100_000)[1]["value"] for part in range(4)]
        ).mean()
    )
    estimators = [Ips(), Snips(), DoublyRobust()]
    hits = np.zeros(3)
    runs = 250
    for run in range(runs):
        log, _ = synthetic(run, 2000, users)
        assert effective_sample_size(log) > 200
        hits += [estimate.ci_low <= truth <= estimate.ci_high for estimate in evaluate(log, estimators, replicates=400, seed=run)]
    assert (hits / runs > 0.91).all() and (hits / runs < 0.99).all(), hits / runs


def test_ignoring_repeated_users_would_be_wrong() -> None:
    """The guard against dropping the clusters: intervals by row are too short where users repeat."""
    log, _ = synthetic(5, 4000, users=80)
    by_user, by_row = (
        evaluate(log, [Ips()])[0],
        evaluate(Log(log.reward, log.logging_propensity, log.target_propensity), [Ips()])[0],
    )
    assert by_user.value == by_row.value and by_user.clusters <= 80
    assert by_user.ci_high - by_user.ci_low > 1.1 * (by_row.ci_high - by_row.ci_low)


def test_fast_bootstrap_equals_the_full_one() -> None:
    """Few rows one by one and the rest by their normal limit: quantiles as of weights for every row."""
    log, _ = synthetic(6, 5000)
    for estimator in (Ips(), Snips(), DoublyRobust()):
        num, den = estimator.terms(log)
        weights = poisson_weights(seeded(1), 4000, 5000).astype(float)
        full = (weights @ num) / (weights @ den)
        fast = bootstrap(num, den, 20_000, seeded(2))
        spread = full.std()
        for share in (0.025, 0.1, 0.5, 0.9, 0.975):
            assert np.quantile(fast, share) == pytest.approx(np.quantile(full, share), abs=0.09 * spread)
        assert fast.std() == pytest.approx(spread, rel=0.04)


def test_rare_rewards_keep_a_skewed_interval() -> None:
    """46 clicks in 10,000 rows: the interval leans upwards and never turns negative."""
    reward = np.zeros(10_000)
    reward[:46] = 1
    log = Log(reward, np.full(10_000, 0.02), np.full(10_000, 0.02))
    found = evaluate(log, [Ips()], replicates=4000)[0]
    assert found.value == 0.0046 and 0 < found.ci_low < 0.0046 < found.ci_high
    assert found.ci_high - 0.0046 > 0.0046 - found.ci_low


def test_support_tells_what_the_log_cannot_say() -> None:
    log, _ = synthetic(7, 3000)
    assert support(log).is_supported
    elsewhere = Log(log.reward, log.logging_propensity, np.where(np.arange(3000) < 5, 1.0, 0.0))
    told = support(elsewhere, unsupported_share=0.4)
    assert told.effective_sample_size <= 5 and told.mean_weight < 0.1 and not told.is_supported


def test_no_overlap_at_all_gives_no_number() -> None:
    log, _ = synthetic(8, 100)
    nowhere = Log(log.reward, log.logging_propensity, np.zeros(100), log.q_logged, log.q_target)
    found = {estimate.estimator: estimate for estimate in evaluate(nowhere, [Snips(), SelfNormalisedDoublyRobust()])}
    assert np.isnan(found["snips"].value) and np.isnan(found["self_normalised_doubly_robust"].value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": np.array([])}, "the log is empty"),
        ({"logging_propensity": np.array([0.5, 0.0, 0.5])}, r"logging_propensity: must lie in \(0, 1\]"),
        ({"logging_propensity": np.array([0.5, 1.2, 0.5])}, r"logging_propensity: must lie in \(0, 1\]"),
        ({"target_propensity": np.array([0.5, -0.1, 0.5])}, "target_propensity: must not be negative"),
        ({"reward": np.array([1.0, np.nan, 0.0])}, "reward: row 1 is not finite"),
        ({"target_propensity": np.array([0.5])}, "target_propensity: expected one value for each of 3 rows"),
        ({"q_logged": np.zeros(3)}, "give both or neither"),
    ],
)
def test_bad_logs_are_refused_with_their_reason(change: dict[str, Any], message: str) -> None:
    good = {"reward": np.array([1.0, 0.0, 1.0]), "logging_propensity": np.full(3, 0.5), "target_propensity": np.full(3, 0.5)}
    with pytest.raises(OffPolicyError, match=message):
        Log(**{**good, **change})


def test_a_model_is_asked_for_by_name() -> None:
    log = Log(np.ones(3), np.full(3, 0.5), np.full(3, 0.5))
    with pytest.raises(OffPolicyError, match="doubly_robust needs a reward model"):
        evaluate(log, [DoublyRobust()])


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(-5, 5), st.floats(0.1, 4))
def test_values_follow_shift_and_scale_of_the_reward(seed: int, shift: float, scale: float) -> None:
    """snips and the direct method are equivariant; so is doubly robust when its model moves along."""
    log, _ = synthetic(seed, 60)
    assert log.q_logged is not None and log.q_target is not None
    total = log.target_propensity / log.target_propensity
    moved = Log(
        scale * log.reward + shift,
        log.logging_propensity,
        log.target_propensity,
        scale * log.q_logged + shift * total,
        scale * log.q_target + shift,
    )
    for estimator in (Snips(), DirectMethod(), DoublyRobust(), SwitchDoublyRobust(1.0)):
        assert value(estimator, moved) == pytest.approx(scale * value(estimator, log) + shift, abs=1e-9)


def test_same_seed_same_interval_other_order_same_value() -> None:
    log, _ = synthetic(9, 1000)
    num, den = Snips().terms(log)
    first = bootstrap_interval(num, den, generator=seeded(1))
    assert first == bootstrap_interval(num, den, generator=seeded(1))
    assert bootstrap_interval(np.zeros(5), np.ones(5), generator=seeded(1)) == (0.0, 0.0)
    assert np.isnan(bootstrap_interval(np.ones(1), np.ones(1), generator=seeded(1))).all()


@pytest.mark.skipif("MARKETING_DATA" not in os.environ, reason="MARKETING_DATA is not set: the open_bandit logs are not here")
def test_open_bandit_the_random_log_contains_the_value_of_the_other_policy() -> None:
    """The value of the Thompson sampling policy, estimated from the uniform log, must hold its own log's click rate."""
    folder = Path(os.environ["MARKETING_DATA"]) / "open_bandit"
    random, bts = (pl.read_csv(folder / f"{name}_women_women.csv.gz") for name in ("random", "bts"))
    shares = (
        bts.group_by("position", "item_id")
        .agg(shown=pl.len())
        .with_columns(target=pl.col("shown") / pl.col("shown").sum().over("position"))
    )
    joined = random.join(shares, on=["position", "item_id"], how="left", maintain_order="left").with_columns(
        pl.col("target").fill_null(0.0)
    )
    log = Log(joined["click"].to_numpy().astype(float), joined["propensity_score"].to_numpy(), joined["target"].to_numpy())
    truth = float(bts["click"].to_numpy().mean())
    assert support(log).mean_weight == pytest.approx(1, abs=0.05)
    for found in evaluate(log, [Ips(), Snips()]):
        assert found.ci_low < truth < found.ci_high
