"""Response rates against known truth, peers beside us on the same log: explained share and calibration.

    python benchmarks/bench_response.py [history DAYS] [first SEED] [shop SEEDS] [log SEEDS] [open_bandit]

shop: the sample shop's own past and truth, seeds from `first` (1) on. log: a larger log with effects of its own. Peers: logistic
regression on the same one-hot features, and a raw LightGBM. All learn from the same days (`history`, the store's default) and
predict the cells of the next; the score is against the true probabilities, cells weighted by the impressions on offer. Beside
them stands what the log's clicks allow: the truth itself, but for its level by placement and block of hours, which is taken
from the clicks. open_bandit needs MARKETING_DATA.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.ad_truth import AdTruth
from benchmarks.shop_truth import lived, rates_of
from marketing_assets.response import build_response, fit_effects
from marketing_assets.response.calibration import log_loss, normalised_entropy
from marketing_assets.response.statistics import read_log
from marketing_assets.warehouse import days_between, reader_over

FEATURES = ["audience_id", "creative_id", "placement_id", "hour"]


def explained(true: Any, rate: Any, weight: Any) -> float:
    """(LL_base - LL_rate) / (LL_base - LL_truth), expected log losses, the base being the one true rate of all."""
    base = log_loss(np.full(len(true), np.average(true, weights=weight)), true * weight, weight)
    return (base - log_loss(rate, true * weight, weight)) / (base - log_loss(true, true * weight, weight))


def worst_ratio(cells: pl.DataFrame, true: Any, rate: Any, weight: Any) -> float:
    """Largest distance from 1 of predicted over true clicks, over placements and blocks of six hours."""
    scored = cells.select("placement_id", block=pl.col("hour") // 6).with_columns(
        true=pl.Series(true * weight), rate=pl.Series(rate * weight)
    )
    ratios = [group["rate"].sum() / group["true"].sum() for key in ("placement_id", "block") for _, group in scored.group_by(key)]
    return max(abs(ratio - 1) for ratio in ratios)


def peers(table: pl.DataFrame, cells: pl.DataFrame) -> dict[str, tuple[Any, float]]:
    """Rates of `cells` and CPU seconds by name. table: FEATURES, position, clicks, shown."""
    import lightgbm
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import OneHotEncoder

    rows = pl.concat([table, table])
    label = np.concatenate([np.ones(table.height), np.zeros(table.height)])
    weight = np.concatenate([table["clicks"].to_numpy(), (table["shown"] - table["clicks"]).to_numpy()])
    result = {}
    started = time.process_time()
    encoder = OneHotEncoder(handle_unknown="ignore")
    design = encoder.fit_transform(rows.select(*FEATURES, "position").to_numpy())
    model = LogisticRegression(max_iter=500).fit(design, label, sample_weight=weight)
    predicted = np.mean(
        [
            model.predict_proba(encoder.transform(cells.select(FEATURES).with_columns(position=pl.lit(slot)).to_numpy()))[:, 1]
            for slot in (1, 2, 3)
        ],
        axis=0,
    )
    result["logistic regression"] = (predicted, time.process_time() - started)
    started = time.process_time()
    levels = {name: {value: i for i, value in enumerate(rows[name].unique().sort().to_list())} for name in FEATURES}

    def matrix(frame: pl.DataFrame) -> Any:
        return np.column_stack(
            [frame[name].replace_strict(levels[name], return_dtype=pl.Int64).to_numpy() for name in FEATURES]
            + [frame["position"].to_numpy()]
        )

    data = lightgbm.Dataset(matrix(rows), label, weight=weight, categorical_feature=[0, 1, 2])
    booster = lightgbm.train({"objective": "binary", "verbosity": -1, "num_threads": 1, "seed": 1}, data, num_boost_round=100)
    predicted = np.mean(
        [booster.predict(matrix(cells.select(FEATURES).with_columns(position=pl.lit(slot)))) for slot in (1, 2, 3)], axis=0
    )
    result["raw LightGBM"] = (predicted, time.process_time() - started)
    return result


Row = tuple[str, float, float, float]


def on_log(seeds: int) -> None:
    rows: list[Row] = []
    for seed in range(seeds):
        truth = AdTruth(seed)
        frames = truth.frames()
        for methods in ("plain", "learned"):
            store = truth.store(methods)
            reader = reader_over(frames, store, truth.last_day)
            days = days_between(
                truth.last_day - timedelta(days=7 if methods == "learned" else 0), truth.last_day
            )  # a cadence day in it
            started = time.process_time()
            rates = build_response(reader, days, store).tables["response_rates"].filter(pl.col("as_of_date") == truth.last_day)
            seconds = time.process_time() - started
            true, weight = truth.ctr(rates), np.ones(rates.height)
            rows.append(score(f"ours, {methods}", rates, true, rates["ctr"].to_numpy(), weight, seconds))
        shown = frames["clean_impressions"].group_by(*FEATURES, "position").agg(clicks=pl.col("is_clicked").sum(), shown=pl.len())
        for name, (rate, seconds) in peers(shown.sort(*FEATURES, "position"), rates).items():
            rows.append(score(name, rates, true, rate, weight, seconds))
    tell("log", rows)


def levels_of_the_log(log: pl.DataFrame, cells: pl.DataFrame) -> Any:
    """True rates of `cells`, raked until clicks by placement and by block of hours are those of the log (Deming and Stephan 1940):
    what one would have who knew everything but these levels."""
    seen = log.group_by(FEATURES).agg(pl.col("clicks", "impressions").sum())
    seen = seen.join(cells.select(*FEATURES, "true_ctr"), on=FEATURES)
    both = pl.concat([seen.select(FEATURES), cells.select(FEATURES)])
    levels = [both["placement_id"].rank("dense").to_numpy() - 1, both["hour"].to_numpy() // 6]
    clicks, rate = seen["clicks"].to_numpy(), np.concatenate([seen["true_ctr"], cells["true_ctr"]])
    for level in levels * 20:
        expected = np.bincount(level[: seen.height], weights=(rate[: seen.height] * seen["impressions"].to_numpy()))
        observed = np.bincount(level[: seen.height], weights=clicks)
        rate = rate * np.divide(observed, expected, out=np.ones(expected.size), where=expected > 0)[level]
    return rate[seen.height :]


def on_shop(seeds: int, first: int = 1, history: int | None = None) -> None:
    rows: list[Row] = []
    for seed in range(first, first + seeds):
        with lived(seed) as past:
            for methods in ("plain", "learned"):
                store = past.store(methods, history)
                with past.opened(store) as warehouse:
                    reader = warehouse.reader(past.day)
                    rates, seconds = rates_of(past, reader, store)
                    cells = past.truth(rates, reader)
                    log = read_log(reader, past.day - timedelta(days=store.response.history_days - 1), past.day).shown
                true, weight = cells["true_ctr"].to_numpy(), cells["on_offer"].to_numpy()
                rows.append(score(f"ours, {methods}", cells, true, cells["ctr"].to_numpy(), weight, seconds))
            shown = log.group_by(*FEATURES, "position").agg(pl.col("clicks").sum(), shown=pl.col("impressions").sum())
            for name, (rate, seconds) in peers(shown.sort(*FEATURES, "position"), cells).items():
                rows.append(score(name, cells, true, rate, weight, seconds))
            rows.append(score("what the clicks allow", cells, true, levels_of_the_log(log, cells), weight, 0.0))
            found = ", ".join(f"{name} {share:.3f} {worst:.3f}" for name, share, worst, _ in rows[-5:])
            print(f"  seed {seed}, {int(log['clicks'].sum())} clicks: {found}", flush=True)
    tell("sample shop", rows)


def score(name: str, cells: pl.DataFrame, true: Any, rate: Any, weight: Any, seconds: float) -> Row:
    low, high = cells["ctr_low"].to_numpy(), cells["ctr_high"].to_numpy()
    if name.startswith("ours"):
        print(f"  {name}: 90 % interval covers {np.average((low <= true) & (true <= high), weights=weight):.2f}")
    return name, explained(true, rate, weight), worst_ratio(cells, true, rate, weight), seconds


def tell(title: str, rows: list[Row]) -> None:
    """Means over seeds with their 95 % interval, and the worst calibration of any placement, block and seed."""
    table = pl.DataFrame(rows, schema=["method", "explained", "worst_ratio", "cpu"], orient="row")
    for (name,), part in table.group_by("method", maintain_order=True):
        error = 1.96 * float(part["explained"].std() or 0.0) / np.sqrt(part.height)
        print(
            f"{title}, {name}: explained {part['explained'].mean():.3f} +- {error:.3f} (worst {part['explained'].min():.3f}), "
            f"worst calibration off by {part['worst_ratio'].max():.3f} (mean {part['worst_ratio'].mean():.3f}), "
            f"{part['cpu'].mean():.2f} CPU s, {part.height} seeds"
        )


def on_open_bandit(folder: Path) -> None:
    """Random log, first 70 % of days learn, the rest score; the interval of the entropy is a bootstrap over impressions."""
    log = pl.read_csv(folder / "random_women_women.csv.gz", columns=["timestamp", "item_id", "position", "click"]).sort(
        "timestamp"
    )
    days = log["timestamp"].str.slice(0, 10)
    cut = sorted(days.unique())[int(days.n_unique() * 0.7)]
    early, late = log.filter(days < cut), log.filter(days >= cut)
    clicks, events = early["click"].to_numpy().astype(float), late["click"].to_numpy().astype(float)
    size = int(log["item_id"].max()) + 1  # type: ignore[arg-type,operator]
    fit = fit_effects(
        clicks,
        np.ones(len(clicks)),
        {"position": early["position"].to_numpy() - 1, "item": early["item_id"].to_numpy()},
        {"position": 3, "item": size},
        0.005,
        200,
    )
    ours = fit.rate({"position": late["position"].to_numpy() - 1, "item": late["item_id"].to_numpy()})
    shown = np.bincount(early["item_id"].to_numpy(), minlength=size)
    per_item = ((np.bincount(early["item_id"].to_numpy(), weights=clicks, minlength=size) + 1e-3) / (shown + 1))[
        late["item_id"].to_numpy()
    ]
    rng = np.random.default_rng(1)
    draws = [rng.integers(0, len(events), len(events)) for _ in range(400)]
    one = np.ones(len(events))
    for name, rate in (("ours", ours), ("per-item rate", per_item)):
        spread = np.quantile([normalised_entropy(rate[d], events[d], one) for d in draws], [0.025, 0.975])
        print(
            f"open_bandit {name}: normalised entropy {normalised_entropy(rate, events, one):.4f} "
            f"(95 % {spread[0]:.4f} to {spread[1]:.4f}), {int(clicks.sum())} clicks to learn from, {int(events.sum())} to score"
        )


if __name__ == "__main__":
    words = sys.argv[1:] or ["shop", "5", "log", "3", "open_bandit"]
    options: dict[str, int] = {}
    while words:
        what = words.pop(0)
        number = int(words.pop(0)) if words and words[0].isdigit() else 5
        if what in ("history", "first"):
            options[what] = number
        elif what == "open_bandit":
            on_open_bandit(Path(os.environ["MARKETING_DATA"]) / "open_bandit")
        elif what == "shop":
            on_shop(number, **options)
        else:
            on_log(number)
