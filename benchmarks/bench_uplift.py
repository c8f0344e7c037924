"""Uplift on hillstrom beside class transformation on LightGBM and CatBoost, and metrics beside scikit-uplift.

    python benchmarks/bench_uplift.py [metrics] [hillstrom]

Peers: scikit-uplift 0.5.1, catboost 1.2 (in the environment that runs this). hillstrom reads MARKETING_DATA/hillstrom.
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

from marketing_assets.uplift import (
    DrLearner,
    SLearner,
    TLearner,
    XLearner,
    default_learner,
    qini_coefficient,
    qini_interval,
    uplift_at,
    uplift_auc,
)

warnings.filterwarnings("ignore")
SEEDS = 20


def metrics() -> None:
    from sklift.metrics import qini_auc_score, uplift_at_k, uplift_auc_score

    worst = dict.fromkeys(("qini_coefficient", "uplift_auc", "uplift_at overall", "uplift_at by_group"), 0.0)
    for seed in range(50):
        generator = np.random.default_rng(seed)
        users = 2000
        score = np.round(generator.normal(size=users), 1 if seed % 2 else 8)
        treated = generator.random(users) < 0.4
        outcome = (generator.random(users) < 0.2 + 0.05 * treated * (score > 0)).astype(float)
        arm = treated.astype(int)
        differences = {
            "qini_coefficient": qini_coefficient(outcome, score, treated) - qini_auc_score(outcome, score, arm),
            "uplift_auc": uplift_auc(outcome, score, treated) - uplift_auc_score(outcome, score, arm),
            "uplift_at overall": uplift_at(outcome, score, treated, 0.1)
            - uplift_at_k(outcome, score, arm, strategy="overall", k=0.1),
            "uplift_at by_group": uplift_at(outcome, score, treated, 0.1, by="by_group")
            - uplift_at_k(outcome, score, arm, strategy="by_group", k=0.1),
        }
        worst = {name: max(worst[name], abs(difference)) for name, difference in differences.items()}
    print("metrics against scikit-uplift, 50 samples with and without ties: largest absolute difference")
    for name, difference in worst.items():
        print(f"  {name:20s} {difference:.1e} {'ok' if difference <= 1e-12 else 'DIFFERS'}")


def hillstrom_data() -> tuple[Any, Any, Any] | None:
    folder = os.environ.get("MARKETING_DATA")
    if not folder:
        print("hillstrom: left out, MARKETING_DATA is not set")
        return None
    path = next((Path(folder) / "hillstrom").iterdir())
    data = pl.read_csv(path, infer_schema_length=None)
    names = ["recency", "history_segment", "history", "mens", "womens", "zip_code", "newbie", "channel"]
    features = data.select(
        pl.col(name).cast(pl.Float64) if data[name].dtype.is_numeric() else pl.col(name).rank("dense").cast(pl.Float64)
        for name in names
    ).to_numpy()
    arm = (
        data.select(
            pl.when(pl.col("segment") == "Mens E-Mail").then(1).when(pl.col("segment") == "Womens E-Mail").then(2).otherwise(0)
        )
        .to_series()
        .to_numpy()
        .astype(np.int64)
    )
    return features, arm, data["visit"].to_numpy().astype(np.float64)


def class_transformation(model: Any, features: Any, arm: Any, outcome: Any) -> Any:
    """P(Z = 1) with Z = 1 for treated buyers and untreated non-buyers (Jaskowski and Jaroszewicz 2012)."""
    fitted = model.fit(features, (outcome == arm).astype(int))
    return lambda users: fitted.predict_proba(users)[:, 1]


def hillstrom() -> None:
    from catboost import CatBoostClassifier
    from lightgbm import LGBMClassifier

    loaded = hillstrom_data()
    if loaded is None:
        return
    features, arm, outcome = loaded
    peers = {
        "class transformation, catboost": lambda seed: CatBoostClassifier(
            iterations=100, random_state=seed, verbose=False, thread_count=1, allow_writing_files=False
        ),
        "class transformation, lightgbm": lambda seed: LGBMClassifier(random_state=seed, n_jobs=1, verbosity=-1),
    }
    ours = {
        "s_learner": SLearner,
        "t_learner": TLearner,
        "x_learner": XLearner,
        "dr_learner": DrLearner,
        "default": default_learner,
    }
    for treatment, label in ((1, "men's e-mail"), (2, "women's e-mail")):
        chosen = (arm == 0) | (arm == treatment)
        x, t, y = features[chosen], (arm[chosen] == treatment).astype(np.int64), outcome[chosen]
        at_ten: dict[str, list[float]] = {}
        qini: dict[str, list[float]] = {}
        seconds: dict[str, float] = {}
        last: tuple[Any, Any, Any] | None = None
        for seed in range(SEEDS):
            order = np.random.default_rng(seed).permutation(len(t))
            cut = int(0.7 * len(t))
            train, test = order[:cut], order[cut:]
            scores: dict[str, Any] = {}
            for name, learner in ours.items():
                started = time.process_time()
                scores[name] = learner(seed).fit(x[train], t[train], y[train]).predict(x[test])[:, 0]
                seconds[name] = seconds.get(name, 0.0) + time.process_time() - started
            for name, model in peers.items():
                started = time.process_time()
                scores[name] = class_transformation(model(seed), x[train], t[train], y[train])(x[test])
                seconds[name] = seconds.get(name, 0.0) + time.process_time() - started
            for name, score in scores.items():
                at_ten.setdefault(name, []).append(uplift_at(y[test], score, t[test] == 1, 0.1))
                qini.setdefault(name, []).append(qini_coefficient(y[test], score, t[test] == 1))
            last = (y[test], scores["default"], t[test] == 1)
        print(
            f"hillstrom, {label}, {SEEDS} seeds, 70/30: "
            "uplift in visits at 10 % (mean, 95 % interval over seeds) | qini | CPU s a fit"
        )
        for name in at_ten:
            value = np.array(at_ten[name])
            spread = 1.96 * value.std(ddof=1) / SEEDS**0.5
            print(
                f"  {name:32s} {value.mean():.4f} [{value.mean() - spread:.4f}, {value.mean() + spread:.4f}] | "
                f"{np.mean(qini[name]):.4f} | "
                f"{seconds[name] / SEEDS:.2f}"
            )
        for name in peers:
            difference = np.array(at_ten["default"]) - np.array(at_ten[name])
            spread = 1.96 * difference.std(ddof=1) / SEEDS**0.5
            print(
                f"  default - {name:28s} {difference.mean():+.4f} "
                f"[{difference.mean() - spread:+.4f}, {difference.mean() + spread:+.4f}] paired"
            )
        assert last is not None
        judged = qini_interval(*last)
        print(
            f"  qini of the last split with its bootstrap interval: {judged.value:.4f} "
            f"[{judged.ci_low:.4f}, {judged.ci_high:.4f}]"
        )


if __name__ == "__main__":
    for part in sys.argv[1:] or ["metrics", "hillstrom"]:
        {"metrics": metrics, "hillstrom": hillstrom}[part]()
