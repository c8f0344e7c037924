"""Profiles against strong simple peers on the same users and days.

Part one, Online Retail: P(order within 30 days) at the first of each month, from the profile log in force on that day, beside a
logistic regression on recency, frequency and spend and BG/NBD's probability (lifetimes), both fitted anew on each date on all
that was known. Settings of ours were chosen on origins up to 2011-05-15; dates after 2011-06-14 have outcomes never looked at
while choosing and are reported apart.

Part two, CDNOW: 39 weeks to learn, 39 to test, as in Fader, Hardie and Lee (2005), beside BG/NBD with Gamma-Gamma (lifetimes).

Run: MARKETING_DATA=... python benchmarks/bench_profiles.py [online_retail|cdnow] [--methods plain,learned]
Needs: lifetimes beside the project's own packages.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import os
import sys
import time
import warnings
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from marketing_assets.config import KEYFRAME_DAYS, ProfileSettings, SourceBlock, Store
from marketing_assets.profiles import build_audiences, build_profiles
from marketing_assets.profiles.lifetime import fit_purchases
from marketing_assets.profiles.linear import log_losses
from marketing_assets.profiles.matrix import counts
from marketing_assets.profiles.training import outcomes, running_totals
from marketing_assets.profiles.value import FirstOrder, ValueModel, total_interval
from marketing_assets.warehouse import days_between, polars_schema, reader_over

HORIZON = 30
CHOSEN_UNTIL = date(2011, 6, 14)


def data_folder() -> Path:
    folder = os.environ.get("MARKETING_DATA")
    if not folder:
        sys.exit("set MARKETING_DATA to the folder of the public data sets")
    return Path(folder)


# --- feature logs, written here independently of the system's own features ----------------------------------------------


def user_days(orders: pl.DataFrame) -> pl.DataFrame:
    """orders: user_id, event_date, order_id, is_order, amount -> one row per user and day."""
    bought = pl.col("is_order")
    return (
        orders.group_by("user_id", "event_date")
        .agg(
            orders=pl.col("order_id").filter(bought).n_unique().cast(pl.Int64),
            gross=pl.col("amount").filter(bought).sum().round(2),
            net=pl.col("amount").sum().round(2),
            refunds=(~bought).sum().cast(pl.Int64),
        )
        .sort("user_id", "event_date")
    )


def features_as_of(days: pl.DataFrame, day: date, seen_only: bool) -> pl.DataFrame:
    age = (pl.lit(day) - pl.col("event_date")).dt.total_days()
    ordered = pl.col("event_date").filter(pl.col("orders") > 0)
    decays = {
        **{f"orders_decayed_{h}": (pl.col("orders") * 0.5 ** (age / h)).sum().round(6) for h in (7, 30, 90)},
        **{f"revenue_decayed_{h}": (pl.col("gross") * 0.5 ** (age / h)).sum().round(6) for h in (30, 90)},
    }
    frame = (
        days.filter(pl.col("event_date") <= day)
        .group_by("user_id")
        .agg(
            first_seen_date=pl.col("event_date").min(),
            last_seen_date=pl.col("event_date").max(),
            first_order_date=ordered.min(),
            last_order_date=ordered.max(),
            order_days=(pl.col("orders") > 0).sum(),
            orders=pl.col("orders").sum(),
            revenue=pl.col("net").sum().round(2),
            gross_revenue=pl.col("gross").sum().round(2),
            refunds=pl.col("refunds").sum(),
            **decays,
        )
    )
    if seen_only:
        frame = frame.filter(pl.col("last_seen_date") == day)
    gap = (pl.col("last_order_date") - pl.col("first_order_date")).dt.total_days() / (pl.col("order_days") - 1)
    return frame.with_columns(
        as_of_date=pl.lit(day),
        issued_date=pl.lit(day),
        mean_days_between_orders=pl.when(pl.col("order_days") > 1).then(gap.round(6)),
    )


def feature_log(days: pl.DataFrame, store: Store, end: date, daily: bool) -> pl.DataFrame:
    parts = []
    for day in days_between(store.first_day, end):
        is_reissue = store.is_cadence_day(day, 7)
        if is_reissue or daily:
            parts.append(features_as_of(days, day, not is_reissue))
    log = pl.concat(parts, how="vertical_relaxed")
    schema = polars_schema("user_features")
    return log.select(
        (pl.col(name) if name in log.columns else pl.lit(0)).cast(kind).alias(name) for name, kind in schema.items()
    )


def clean_events(orders: pl.DataFrame) -> pl.DataFrame:
    return orders.with_row_index("number").select(
        "user_id",
        "order_id",
        "event_date",
        landed_date="event_date",
        event_id=pl.col("number").cast(pl.String),
        event_type=pl.when("is_order").then(pl.lit("purchase")).otherwise(pl.lit("refund")),
        revenue=pl.col("amount").cast(pl.Decimal(18, 4)),
        is_bot=pl.lit(False),
        is_service=pl.lit(False),
    )


# --- online retail ------------------------------------------------------------------------------------------------------


def online_retail() -> pl.DataFrame:
    parts = []
    for path in sorted((data_folder() / "online_retail" / "events").glob("*.csv.gz")):
        parts.append(pl.read_csv(path, infer_schema=False).with_columns(event_date=pl.lit(path.name[:10]).str.to_date()))
    rows = (
        pl.concat(parts)
        .unique(maintain_order=True)
        .with_columns(
            pl.col("Quantity").cast(pl.Int64, strict=False),
            pl.col("UnitPrice").cast(pl.Float64, strict=False),
            user_id=pl.col("CustomerID").str.replace(r"\.0$", ""),
        )
    )
    kept = rows.filter(pl.col("user_id").is_not_null(), pl.col("user_id") != "", pl.col("UnitPrice") > 0, pl.col("Quantity") != 0)
    return kept.select(
        "user_id",
        "event_date",
        order_id="InvoiceNo",
        is_order=pl.col("Quantity") > 0,
        amount=(pl.col("Quantity") * pl.col("UnitPrice")).round(2),
    )


def rfm(frame: pl.DataFrame) -> np.ndarray:
    tenure = (pl.col("as_of_date") - pl.col("first_seen_date")).dt.total_days()
    recency = (pl.col("as_of_date") - pl.col("last_order_date")).dt.total_days().fill_null(tenure)
    return frame.select(
        recency.cast(pl.Float64).log1p().alias("r"),
        pl.col("orders").cast(pl.Float64).log1p().alias("f"),
        pl.col("revenue").cast(pl.Float64).clip(lower_bound=0).log1p().alias("m"),
    ).to_numpy()


def rfm_logistic(past: list[tuple[pl.DataFrame, np.ndarray]], now: pl.DataFrame) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(np.vstack([rfm(frame) for frame, _ in past]), np.concatenate([outcome for _, outcome in past]))
    return np.asarray(model.predict_proba(rfm(now))[:, 1])


def repeat_counts(now: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    frame = now.select(
        x=(pl.col("order_days") - 1).clip(lower_bound=0).cast(pl.Float64),
        last=(pl.col("last_order_date") - pl.col("first_order_date")).dt.total_days().fill_null(0) / 7,
        age=(pl.col("as_of_date") - pl.coalesce("first_order_date", "first_seen_date")).dt.total_days() / 7,
    )
    return tuple(frame[name].to_numpy().astype(float) for name in ("x", "last", "age"))  # type: ignore[return-value]


def own_bg_nbd(now: pl.DataFrame) -> np.ndarray:
    """The same model by the project's own fit, which needs no penalty: the stronger peer where lifetimes' optimiser fails."""
    seen = counts(now)
    buyers = seen.has_bought
    model = fit_purchases(seen.repeats[buyers], seen.last[buyers], seen.age[buyers])
    return model.order_probability(seen.repeats, seen.last, seen.age, HORIZON / 7)


def bg_nbd(now: pl.DataFrame) -> np.ndarray:
    from lifetimes import BetaGeoFitter
    from lifetimes.utils import ConvergenceError

    x, last, age = repeat_counts(now)
    buyers = (now["order_days"] > 0).to_numpy()
    for penalty in (0.0, 1e-4, 1e-3, 1e-2):  # the smallest with which the peer's own optimiser ends
        model = BetaGeoFitter(penalizer_coef=penalty)
        try:
            model.fit(x[buyers], last[buyers], age[buyers])
            break
        except ConvergenceError:
            continue
    r, alpha = (float(model.params_[name]) for name in ("r", "alpha"))
    alive = np.asarray(model.conditional_probability_alive(x, last, age))
    return alive * (1 - ((alpha + age) / (alpha + age + HORIZON / 7)) ** (r + x))


def bench_online_retail(methods: list[str]) -> None:
    from sklearn.metrics import roc_auc_score

    orders = online_retail()
    days = user_days(orders)
    end = date(2011, 10, 14)
    base = Store(
        name="online retail",
        timezone="Europe/London",
        currency="GBP",
        first_day=date(2010, 12, 1),
        cadence_anchor=date(2010, 12, 2),
        last_day=end,
        sources={"events": SourceBlock(rows=[])},
    )
    log = feature_log(days, base, end, daily=True)
    ordered = days.select("user_id", "event_date", "orders", revenue="net")
    dates = [date(2011, month, 1) for month in range(3, 10)] + [date(2011, 9, 14)]
    forecasts: dict[str, list[np.ndarray]] = {name: [] for name in ("rfm logistic", "bg/nbd", "bg/nbd, own fit")}
    truth: list[np.ndarray] = []
    users: list[pl.Series] = []
    weekly = [day for day in days_between(base.anchor, end) if base.is_cadence_day(day, 7)]
    labelled = {}
    for day in weekly:
        frame = log.filter(pl.col("as_of_date") == day).sort("user_id")
        labelled[day] = (frame, outcomes(frame, running_totals(ordered), HORIZON)["ordered"].to_numpy())
    for day in dates:
        now = features_as_of(days, day, False).sort("user_id")
        users.append(now["user_id"])
        truth.append(outcomes(now, running_totals(ordered), HORIZON)["ordered"].to_numpy())
        past = [labelled[origin] for origin in weekly if origin + timedelta(days=HORIZON) <= day]
        forecasts["rfm logistic"].append(rfm_logistic(past, now))
        with contextlib.redirect_stdout(io.StringIO()):  # its optimiser prints where it fails
            forecasts["bg/nbd"].append(bg_nbd(now))
        forecasts["bg/nbd, own fit"].append(own_bg_nbd(now))
    thresholds: dict[str, list[float]] = {}
    for method in methods:
        store = base.model_copy(update={"methods": method})
        reader = reader_over({"user_features": log, "clean_events": clean_events(orders)}, store, end)
        window = days_between(store.first_day, end)
        started = time.process_time()
        built = build_profiles(reader, window, store)
        spent = time.process_time() - started
        profiles = built.tables["user_profiles"]
        assert isinstance(profiles, pl.DataFrame)
        reader.connection.register("incoming", profiles.to_arrow())
        reader.connection.execute("INSERT INTO user_profiles BY NAME SELECT * FROM incoming")
        started = time.process_time()
        build_audiences(reader, window, store)
        print(
            f"ours ({method}): {len(window)} days, {profiles.height} rows, profiles {spent:.1f} s CPU, "
            f"audiences {time.process_time() - started:.1f} s CPU"
        )
        forecasts[f"ours ({method})"], thresholds[f"ours ({method})"] = [], []
        for day, known in zip(dates, users, strict=True):
            newest = profiles.filter(pl.col("as_of_date") <= day).sort("as_of_date").group_by("user_id").last()
            joined = known.to_frame().join(newest, on="user_id", how="left", maintain_order="left")
            assert joined["purchase_propensity"].null_count() == 0
            forecasts[f"ours ({method})"].append(joined["purchase_propensity"].to_numpy())
            fits = [m for m in built.models if m.model_name == "profiles.propensity" and m.is_promoted and m.fitted_as_of <= day]
            thresholds[f"ours ({method})"].append(float(fits[-1].parameters.get("threshold", 0.5)))
    for title, chosen in (
        ("all dates", range(len(dates))),
        ("dates after the settings were chosen", [i for i, d in enumerate(dates) if d > CHOSEN_UNTIL]),
    ):
        chosen = list(chosen)
        print(f"\n{title}: {', '.join(str(dates[i]) for i in chosen)}; {sum(int(truth[i].sum()) for i in chosen)} buyers")
        print(f"{'':18} log-loss   AUC    F1/precision/recall   predicted/observed by fifth (expected positives)")
        for name, chances in forecasts.items():
            loss = np.mean([log_losses(truth[i], chances[i]).mean() for i in chosen])
            auc = np.mean([roc_auc_score(truth[i], chances[i]) for i in chosen])
            rates = ""
            if name in thresholds:
                said = np.concatenate([chances[i] >= thresholds[name][i] for i in chosen])
                real = np.concatenate([truth[i] for i in chosen])
                hit = (said * real).sum()
                rates = f"{2 * hit / (said.sum() + real.sum()):.3f}/{hit / said.sum():.3f}/{hit / real.sum():.3f}"
            print(
                f"{name:18} {loss:.4f}   {auc:.4f}   {rates:20}  "
                f"{fifths([truth[i] for i in chosen], [chances[i] for i in chosen])}"
            )
        for name in thresholds:
            for peer in ("rfm logistic", "bg/nbd", "bg/nbd, own fit"):
                print(f"{name} / {peer}: {compare_losses(truth, forecasts[name], forecasts[peer], users, chosen)}")


def fifths(truth: list[np.ndarray], chances: list[np.ndarray]) -> str:
    sums = np.zeros((5, 2))
    for real, chance in zip(truth, chances, strict=True):
        group = np.argsort(np.argsort(chance, kind="stable"), kind="stable") * 5 // len(chance)
        for k in range(5):
            sums[k] += chance[group == k].sum(), real[group == k].sum()
    return "  ".join(f"{predicted / observed:.2f} ({predicted:.0f})" for predicted, observed in sums)


def compare_losses(
    truth: list[np.ndarray], ours: list[np.ndarray], peer: list[np.ndarray], users: list[pl.Series], chosen: list[int]
) -> str:
    """Ratio of mean log-losses, with a 90 % interval by drawing users."""
    frame = (
        pl.concat(
            [
                pl.DataFrame(
                    {
                        "user": users[i],
                        "a": log_losses(truth[i], ours[i]) / len(users[i]),
                        "b": log_losses(truth[i], peer[i]) / len(users[i]),
                    }
                )
                for i in chosen
            ]
        )
        .group_by("user")
        .agg(pl.col("a").sum(), pl.col("b").sum())
        .sort("user")
    )
    a, b = frame["a"].to_numpy(), frame["b"].to_numpy()
    generator = np.random.default_rng(0)
    draws = [generator.integers(0, len(a), len(a)) for _ in range(400)]
    ratios = np.quantile([a[d].sum() / b[d].sum() for d in draws], [0.05, 0.95])
    better = sum(log_losses(truth[i], ours[i]).mean() < log_losses(truth[i], peer[i]).mean() for i in chosen)
    return f"log-loss ratio {a.sum() / b.sum():.4f} [{ratios[0]:.4f}, {ratios[1]:.4f}], lower on {better} of {len(chosen)} dates"


# --- cdnow --------------------------------------------------------------------------------------------------------------


def bench_cdnow(methods: list[str]) -> None:
    from lifetimes import BetaGeoFitter, GammaGammaFitter

    with gzip.open(data_folder() / "cdnow" / "cdnow_master.txt.gz", "rt") as lines:
        rows = [line.split() for line in lines if line.strip()][1:]
    orders = pl.DataFrame(rows, schema=["user_id", "day", "units", "amount"], orient="row").select(
        "user_id",
        event_date=pl.col("day").str.to_date("%Y%m%d"),
        order_id=pl.concat_str("user_id", "day"),
        is_order=pl.lit(True),
        amount=pl.col("amount").cast(pl.Float64),
    )
    days = user_days(orders)
    first, cut = date(1997, 1, 1), date(1997, 9, 30)
    horizon = 273
    after = (
        days.filter(pl.col("event_date") > cut, pl.col("event_date") <= cut + timedelta(days=horizon))
        .group_by("user_id")
        .agg(orders=pl.len(), spend=pl.col("net").sum())
    )
    now = features_as_of(days, cut, False).sort("user_id")
    actual = now.select("user_id").join(after, on="user_id", how="left", maintain_order="left").fill_null(0)
    real_orders, real_spend = actual["orders"].to_numpy().astype(float), actual["spend"].to_numpy()
    x, last, age = repeat_counts(now)
    purchases = BetaGeoFitter()
    purchases.fit(x, last, age)
    peer_orders = np.asarray(purchases.conditional_expected_number_of_purchases_up_to_time(horizon / 7, x, last, age))
    repeat = (
        days.filter(pl.col("event_date") <= cut)
        .with_columns(place=pl.col("event_date").rank("ordinal").over("user_id"))
        .filter(pl.col("place") > 1)
        .group_by("user_id")
        .agg(mean=pl.col("gross").mean())
    )
    mean = now.select("user_id").join(repeat, on="user_id", how="left", maintain_order="left")["mean"].fill_null(0.0).to_numpy()
    chosen = (x > 0) & (mean > 0)
    spend = GammaGammaFitter()
    spend.fit(x[chosen], mean[chosen])
    peer_spend = peer_orders * np.asarray(
        spend.conditional_expected_average_profit(np.where(chosen, x, 0), np.where(chosen, mean, 0))
    )
    known = days.filter(pl.col("event_date") <= cut)
    weekly = (
        known.with_columns(place=pl.col("event_date").rank("ordinal").over("user_id"))
        .filter(pl.col("place") > 1)
        .group_by(week=(pl.lit(cut) - pl.col("event_date")).dt.total_days() // 7)
        .len()
        .sort("week", descending=True)["len"]
        .to_numpy()
        .astype(float)
    )
    print(
        f"\ncdnow: {len(x)} customers, {real_orders.sum():.0f} repeat purchases and {real_spend.sum():.0f} spent "
        "in the test weeks"
    )
    report(
        "bg/nbd + gamma-gamma",
        (peer_orders, peer_orders),
        (peer_spend, peer_spend),
        real_orders,
        real_spend,
        peer_orders,
        peer_spend,
    )
    for method in methods:
        store = Store(
            name="cdnow",
            timezone="America/New_York",
            currency="USD",
            first_day=first,
            methods=method,
            cadence_anchor=cut - timedelta(days=9 * KEYFRAME_DAYS),
            sources={"events": SourceBlock(rows=[])},
            profiles=ProfileSettings(clv_horizon_days=horizon, cadence_days=9 * KEYFRAME_DAYS),
        )
        log = feature_log(known, store, cut, daily=False)
        reader = reader_over(
            {"user_features": log, "clean_events": clean_events(orders.filter(pl.col("event_date") <= cut))}, store, cut
        )
        started = time.process_time()
        built = build_profiles(reader, days_between(first, cut), store)
        seconds = time.process_time() - started
        profiles = built.tables["user_profiles"]
        assert isinstance(profiles, pl.DataFrame)
        ours = profiles.filter(pl.col("as_of_date") == cut).sort("user_id")
        fit = next(m for m in reversed(built.models) if m.model_name == "profiles.value" and m.is_promoted)
        model = ValueModel.from_text(fit.model)
        entries = log.filter(pl.col("as_of_date") == cut).sort("user_id")
        expected_orders = model.order_days(entries, FirstOrder(np.zeros(entries.height), horizon), store.threads)  # all have bought
        expected, middle = ours["clv_90d"].to_numpy(), ours["clv_90d_median"].to_numpy()
        per_order = np.where(expected > 0, expected / np.maximum(expected_orders, 1e-9), 1.0)
        report(
            f"ours ({method}), {fit.parameters['orders']}",
            (expected_orders, np.round(middle / per_order)),
            (expected, middle),
            real_orders,
            real_spend,
            peer_orders,
            peer_spend,
        )
        inside = (real_spend >= ours["clv_90d_low"].to_numpy()) & (real_spend <= ours["clv_90d_high"].to_numpy())
        low, high = total_interval(expected_orders, weekly, horizon / 7, 0.9)
        for name, total, ends, real in (
            ("purchases", expected_orders.sum(), (low, high), real_orders.sum()),
            ("spend", expected.sum(), (fit.metrics["total_low"], fit.metrics["total_high"]), real_spend.sum()),
        ):
            covers = "covers" if ends[0] <= real <= ends[1] else "misses"
            print(
                f"    total {name} {total:.0f}, 90 % interval {ends[0]:.0f} to {ends[1]:.0f} "
                f"(-{1 - ends[0] / total:.1%}, +{ends[1] / total - 1:.1%}) {covers} {real:.0f}"
            )
        print(f"    90 % intervals of customers cover {inside.mean():.3f}; {seconds:.1f} s CPU")


def report(
    name: str,
    orders: tuple[np.ndarray, np.ndarray],
    spend: tuple[np.ndarray, np.ndarray],
    real_orders: np.ndarray,
    real_spend: np.ndarray,
    peer_orders: np.ndarray,
    peer_spend: np.ndarray,
) -> None:
    """Squared error of the mean and absolute error of the median, each the forecast its error asks for, over the peer's."""
    generator = np.random.default_rng(0)
    draws = [generator.integers(0, len(real_orders), len(real_orders)) for _ in range(200)]
    for what, (mean, median), real, peer in (
        ("purchases", orders, real_orders, peer_orders),
        ("spend", spend, real_spend, peer_spend),
    ):
        terms = []
        for title, errors, base in (
            ("RMSE of the mean", (mean - real) ** 2, (peer - real) ** 2),
            ("MAE of the mean", np.abs(mean - real), np.abs(peer - real)),
            ("MAE of the median", np.abs(median - real), np.abs(peer - real)),
        ):
            power = 0.5 if title.startswith("RMSE") else 1.0
            spread = np.quantile([(errors[d].mean() / base[d].mean()) ** power for d in draws], [0.05, 0.95])
            terms.append(
                f"{title} {errors.mean() ** power:.3f} "
                f"({(errors.mean() / base.mean()) ** power:.3f} x [{spread[0]:.3f}, {spread[1]:.3f}])"
            )
        print(f"{name}: {what} " + ", ".join(terms))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["online_retail", "cdnow"], help="default: both")
    parser.add_argument("--methods", default="plain,learned")
    arguments = parser.parse_args()
    wanted = arguments.methods.split(",")
    if arguments.part in (None, "online_retail"):
        bench_online_retail(wanted)
    if arguments.part in (None, "cdnow"):
        bench_cdnow(wanted)
