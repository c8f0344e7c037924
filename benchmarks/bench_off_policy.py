"""Off-policy evaluation beside Open Bandit Pipeline: equality, speed of intervals, coverage, and the open_bandit women logs.

    python benchmarks/bench_off_policy.py [equality] [speed] [coverage] [open_bandit]

Peer: obp 0.5.7 (with torch 2.13.0), which declares Python < 3.11 but runs on 3.11: give it an environment of its own,
    pip install torch==2.13.0 scikit-learn pandas tqdm pyyaml seaborn matplotlib
    pip install --no-deps --ignore-requires-python obp==0.5.7
open_bandit reads MARKETING_DATA/open_bandit and is left out, saying so, where that is not set.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from marketing_assets.intervals import seeded
from marketing_assets.off_policy import (
    DirectMethod,
    DoublyRobust,
    Ips,
    Log,
    SelfNormalisedDoublyRobust,
    ShrunkDoublyRobust,
    Snips,
    SubGaussianDoublyRobust,
    SubGaussianIps,
    SwitchDoublyRobust,
    bootstrap_interval,
    effective_sample_size,
    evaluate,
    log_of_distributions,
)

warnings.filterwarnings("ignore")
REPLICATES = 1000


def softmax(scores: Any) -> Any:
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def synthetic(seed: int, rows: int, users: int | None = None, actions: int = 10) -> dict[str, Any]:
    """A contextual log with true values; with `users`, rows of a user share most of their context and some of their luck."""
    generator = np.random.default_rng(seed)
    code = None if users is None else generator.integers(0, users, rows)
    own = (
        generator.normal(size=rows)
        if code is None
        else generator.normal(size=users)[code] * 0.8 + generator.normal(size=rows) * 0.6
    )
    taste = np.linspace(-1, 1, actions)
    logging, target = softmax(0.5 * own[:, None] * taste), softmax(1.2 * own[:, None] * taste + 0.5 * taste)
    action = (logging.cumsum(axis=1) > generator.random(rows)[:, None]).argmax(axis=1)
    truth = 1 / (1 + np.exp(2.0 - 0.8 * own[:, None] * taste))
    reward = (generator.random(rows) < truth[np.arange(rows), action]).astype(float)
    return {
        "reward": reward,
        "action": action,
        "pscore": logging[np.arange(rows), action],
        "target": target,
        "q": np.full_like(truth, 0.12) + 0.04 * taste,
        "code": code,
        "value": float((target * truth).sum(axis=1).mean()),
    }


def pairs() -> list[tuple[str, Any, Any]]:
    import obp.ope as obp

    return [
        ("ips", Ips(), obp.InverseProbabilityWeighting()),
        ("ips, clip 2", Ips(2.0), obp.InverseProbabilityWeighting(lambda_=2.0)),
        ("snips", Snips(), obp.SelfNormalizedInverseProbabilityWeighting()),
        ("direct_method", DirectMethod(), obp.DirectMethod()),
        ("doubly_robust", DoublyRobust(), obp.DoublyRobust()),
        ("doubly_robust, clip 2", DoublyRobust(2.0), obp.DoublyRobust(lambda_=2.0)),
        ("self-normalised dr", SelfNormalisedDoublyRobust(), obp.SelfNormalizedDoublyRobust()),
        ("switch, 1.5", SwitchDoublyRobust(1.5), obp.SwitchDoublyRobust(lambda_=1.5)),
        ("shrinkage, 3", ShrunkDoublyRobust(3.0), obp.DoublyRobustWithShrinkage(lambda_=3.0)),
        ("sub-gaussian ips, 0.2", SubGaussianIps(0.2), obp.SubGaussianInverseProbabilityWeighting(lambda_=0.2)),
        ("sub-gaussian dr, 0.2", SubGaussianDoublyRobust(0.2), obp.SubGaussianDoublyRobust(lambda_=0.2)),
    ]


def peer_arguments(log: dict[str, Any], actions: int) -> dict[str, Any]:
    rows = len(log["reward"])
    return {
        "reward": log["reward"],
        "action": log["action"],
        "position": np.zeros(rows, dtype=int),
        "pscore": log["pscore"],
        "action_dist": log["target"][:, :, None],
        "estimated_rewards_by_reg_model": log["q"][:, :, None],
    }


def equality() -> None:
    print("equality with obp, 20 logs of 3,000 rows: largest relative difference")
    worst: dict[str, float] = {}
    for seed in range(20):
        log = synthetic(seed, 3000)
        ours = log_of_distributions(log["reward"], log["action"], log["pscore"], log["target"], log["q"])
        for name, mine, peer in pairs():
            num, den = mine.terms(ours)
            value = num.sum() / den.sum()
            other = peer.estimate_policy_value(**peer_arguments(log, 10))
            worst[name] = max(worst.get(name, 0.0), abs(value / other - 1))
    for name, difference in worst.items():
        print(f"  {name:24s} {difference:.1e} {'ok' if difference <= 1e-9 else 'DIFFERS'}")


def speed() -> None:
    """CPU seconds of a 95 % interval from 1,000 bootstrap samples of 10,000 rows, alternating, 7 repeats."""
    log = synthetic(1, 10_000)
    ours = log_of_distributions(log["reward"], log["action"], log["pscore"], log["target"], log["q"])
    bootstrap_interval(*Ips().terms(ours), replicates=REPLICATES, generator=seeded(0))  # imports and tables once
    print(f"95 % bootstrap interval, 10,000 rows, {REPLICATES} samples: CPU milliseconds, obp beside us")
    for name, mine, peer in pairs():
        if name not in ("ips", "snips", "doubly_robust", "switch, 1.5", "shrinkage, 3"):
            continue
        arguments = peer_arguments(log, 10)
        times: list[tuple[float, float]] = []
        for repeat in range(7):
            started = time.process_time()
            num, den = mine.terms(ours)
            interval = bootstrap_interval(num, den, replicates=REPLICATES, generator=seeded(repeat))
            middle = time.process_time()
            other = peer.estimate_interval(**arguments, n_bootstrap_samples=REPLICATES, random_state=repeat)
            times.append((middle - started, time.process_time() - middle))
        a, b = np.array(times).T * 1000
        ratios = b / a
        theirs = [other["95.0% CI (lower)"], other["95.0% CI (upper)"]]
        print(
            f"  {name:16s} {np.median(a):7.2f} against {np.median(b):7.1f}: "
            f"{np.median(ratios):5.0f} x ({ratios.min():.0f} to {ratios.max():.0f}); "
            f"width {interval[1] - interval[0]:.4f} against {theirs[1] - theirs[0]:.4f}"
        )


def coverage() -> None:
    """95 % intervals over 1,000 synthetic logs, rows independent and with repeated users."""
    estimators = [Ips(), Snips(), DirectMethod(), DoublyRobust(), SelfNormalisedDoublyRobust(), SubGaussianDoublyRobust(0.0)]
    for users in (None, 400):
        truth = float(
            np.mean([synthetic(10**6 + part, 200_000, None if users is None else 150_000)["value"] for part in range(20)])
        )
        hits = np.zeros(len(estimators))
        sizes = []
        for seed in range(1000):
            log = synthetic(seed, 2000, users)
            ours = log_of_distributions(log["reward"], log["action"], log["pscore"], log["target"], log["q"], log["code"])
            sizes.append(effective_sample_size(ours))
            hits += [found.ci_low <= truth <= found.ci_high for found in evaluate(ours, estimators, replicates=1000, seed=seed)]
        print(
            f"coverage of 95 % intervals, 1,000 logs of 2,000 rows, {'each row a user' if users is None else f'{users} users'}, "
            f"effective sample size {np.min(sizes):.0f} to {np.max(sizes):.0f}"
        )
        for estimator, share in zip(estimators, hits / 1000, strict=True):
            note = (
                " (its reward model is wrong on purpose: no interval can mend that)" if estimator.name == "direct_method" else ""
            )
            print(f"  {estimator.name:30s} {share:.1%}{note}")


def open_bandit() -> None:
    folder = os.environ.get("MARKETING_DATA")
    if not folder:
        print("open_bandit: left out, MARKETING_DATA is not set")
        return
    logs = {name: pl.read_csv(Path(folder) / "open_bandit" / f"{name}_women_women.csv.gz") for name in ("random", "bts")}
    for frame in logs.values():
        frame.columns = ["row", *frame.columns[1:]]
    random, bts = logs["random"], logs["bts"]
    actions = 46
    # the bts policy does not look at the user: its choice by position is the mean of its logged propensities by item
    print("open_bandit women: value of the bts policy from the random log")
    on_policy = float(bts["click"].mean())  # type: ignore[arg-type]
    clicks = int(bts["click"].sum())
    target = np.zeros((3, actions))
    for position in range(3):
        part = bts.filter(pl.col("position") == position + 1)
        weight = part.group_by("item_id").agg(shown=pl.len())
        target[position, weight["item_id"].to_numpy()] = weight["shown"].to_numpy() / part.height
    place = random["position"].to_numpy() - 1
    action = random["item_id"].to_numpy()
    reward = random["click"].to_numpy().astype(float)
    pscore = random["propensity_score"].to_numpy()
    q = cross_fitted(reward, action, actions)
    dist = target[place]
    rows = np.arange(len(reward))
    ours = Log(reward, pscore, dist[rows, action], q[rows, action], (dist * q).sum(axis=1))
    arguments = {
        "reward": reward,
        "action": action,
        "position": np.zeros(len(reward), dtype=int),
        "pscore": pscore,
        "action_dist": dist[:, :, None],
        "estimated_rewards_by_reg_model": q[:, :, None],
    }
    print(
        f"  random log: {len(reward):,} rows, {int(reward.sum())} clicks ({reward.mean():.4f}); "
        f"bts log: {clicks} clicks, on-policy {on_policy:.4f}"
    )
    print(f"  effective sample size {effective_sample_size(ours):.0f}")
    for name, mine, peer in pairs():
        if name not in ("ips", "snips", "direct_method", "doubly_robust", "self-normalised dr", "switch, 1.5", "shrinkage, 3"):
            continue
        found = evaluate(ours, [mine], replicates=10_000)[0]
        plain = bootstrap_interval(*mine.terms(ours), replicates=100_000, generator=seeded(1), method="percentile")
        other = peer.estimate_interval(**arguments, n_bootstrap_samples=20_000, random_state=1)
        value = peer.estimate_policy_value(**arguments)
        low, high = other["95.0% CI (lower)"], other["95.0% CI (upper)"]
        print(
            f"  {name:20s} {found.value:.5f} [{found.ci_low:.5f}, {found.ci_high:.5f}] "
            f"contains on-policy: {found.ci_low <= on_policy <= found.ci_high}; "
            f"error {abs(found.value / on_policy - 1):.3f} against obp's {abs(value / on_policy - 1):.3f}; "
            f"width {(found.ci_high - found.ci_low) / (high - low):.3f} x obp's, "
            f"percentile {(plain[1] - plain[0]) / (high - low):.3f} x"
        )
    spread = (on_policy * (1 - on_policy) * (1 / len(reward) + 1 / bts.height)) ** 0.5
    print(
        f"  what this can show: with so few clicks two logs of one policy already "
        f"differ by {1.96 * spread / on_policy:.0%} of its value by chance,"
    )
    print(
        "  so an error below that ranks no estimator; the logs can refute gross mistakes "
        "(wrong propensities, wrong positions), not more."
    )


def cross_fitted(reward: Any, action: Any, actions: int, prior: float = 200.0) -> Any:
    """Click rate by item shrunk to the overall rate, learned on the other half."""
    fold = np.arange(len(reward)) % 2
    q = np.zeros((len(reward), actions))
    for held_out in (0, 1):
        learn = fold != held_out
        count, total = np.bincount(action[learn], minlength=actions), np.bincount(action[learn], reward[learn], minlength=actions)
        q[fold == held_out] = (total + prior * reward[learn].mean()) / (count + prior)
    return q


if __name__ == "__main__":
    chosen = sys.argv[1:] or ["equality", "speed", "coverage", "open_bandit"]
    for part in chosen:
        {"equality": equality, "speed": speed, "coverage": coverage, "open_bandit": open_bandit}[part]()
