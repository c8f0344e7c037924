"""What a trial found: figures of each arm, differences in pairs and their intervals.

What belongs here: from days of truth to a summary. What does not: living the days (loop.py) and drawing them (page.py).

Intervals are percentiles of a bootstrap over seeds (Efron 1979): a seed is drawn with all its arms, so that differences stay
paired. With few seeds they are rough, and the summary says how many there were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

COMMON, SYSTEM, ORACLE = "common_practice", "system", "oracle"
Floats = npt.NDArray[np.float64]
REPLICATES = 2000
FEWEST_SEEDS = 3
"""With fewer nothing can be said of the spread, and no bar is met."""

Totals = Mapping[str, Floats]
"""Sums over days and seeds, one value per draw of seeds."""
Measure = Callable[[Totals], Floats]


def _rate(numerator: str, denominator: str) -> Measure:
    return lambda sums: np.asarray(sums[numerator] / np.maximum(sums[denominator], 1e-12))


def _per_day(name: str) -> Measure:
    return lambda sums: np.asarray(sums[name] / sums["days"])


FIGURES: dict[str, tuple[str, Measure]] = {
    "session_conversion_rate": ("true session conversion rate", _rate("expected_converting_sessions", "sessions")),
    "ad_revenue": ("true ad revenue a day, net of refunds", _per_day("expected_ad_revenue")),
    "profit": ("profit a day, by what came out", _per_day("profit")),
    "expected_profit": ("profit a day, by expectation", _per_day("expected_profit")),
    "ad_spend": ("ad spend a day", _per_day("ad_spend")),
    "clicks": ("true clicks a day", _per_day("expected_clicks")),
    "ad_conversions": ("true ad conversions a day", _per_day("expected_ad_conversions")),
    "revenue": ("revenue a day, by what came out", _per_day("revenue")),
    "stocked_out_items": ("items out of stock, mean", _per_day("stocked_out_items")),
    "lost_revenue": ("revenue lost to stock-outs a day", _per_day("lost_revenue")),
    "realised_session_conversion_rate": ("session conversion rate that came out", _rate("converting_sessions", "sessions")),
    "realised_ad_revenue": ("ad revenue a day that came out", _per_day("ad_revenue")),
}
FEWER_IS_BETTER = ("stocked_out_items", "lost_revenue")
CLAIMS = {"session_conversion_rate": 0.15, "ad_revenue": 0.20}
GAIN_BAR = 0.60
COVERAGE_BAR = 0.90
"""Share of seeds whose interval must hold the truth: 18 of 20."""


def totals(days: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Sums over the days of one arm and seed."""
    sums = {"days": float(len(days)), "expected_converting_sessions": 0.0, "converting_sessions": 0.0}
    for day in days:
        for name, value in day.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                sums[name] = sums.get(name, 0.0) + value
        sums["expected_converting_sessions"] += day["expected_session_conversion_rate"] * day["sessions"]
        sums["converting_sessions"] += day["session_conversion_rate"] * day["sessions"]
    return sums


def _stacked(seeds: Sequence[Mapping[str, Any]], arm: str) -> dict[str, Floats]:
    per_seed = [totals(seed["truth"][arm]) for seed in seeds]
    names = sorted({name for sums in per_seed for name in sums})
    return {name: np.array([sums.get(name, 0.0) for sums in per_seed]) for name in names}


def _spread(value: float, copies: Floats, level: float) -> dict[str, Any]:
    """A value and the interval of its copies; none of it where it cannot be said, such as a lift over nothing."""
    if not np.isfinite(value) or not np.isfinite(copies).all():
        return {"value": value if np.isfinite(value) else None, "interval": None}
    tail = (1 - level) / 2
    return {"value": value, "interval": [float(end) for end in np.quantile(copies, [tail, 1 - tail])]}


def summarise(seeds: Sequence[Mapping[str, Any]], level: float = 0.95) -> dict[str, Any]:
    """The trial's summary from its finished seeds: arms, lifts over common practice, share of the oracle's gain, own belief."""
    arms = [arm for arm in (COMMON, SYSTEM, ORACLE) if all(arm in seed["truth"] for seed in seeds)]
    sums = {arm: _stacked(seeds, arm) for arm in arms}
    # the first draw is every seed once: the value itself; the others draw as many seeds again, with all their arms
    counts = np.random.default_rng([20_240_101, len(seeds)]).multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), REPLICATES)
    counts = np.vstack([np.ones((1, len(seeds))), counts])
    drawn = {arm: {name: counts @ values for name, values in sums[arm].items()} for arm in arms}

    def spread(measure: Callable[[Mapping[str, Totals]], Floats]) -> dict[str, Any]:
        values = measure(drawn)
        return _spread(float(values[0]), values[1:] if len(seeds) >= FEWEST_SEEDS else np.full(1, np.nan), level)

    figures = {name: _entry(name, label, of, arms, spread) for name, (label, of) in FIGURES.items()}
    return {
        "seeds": len(seeds), "days": int(len(seeds[0]["truth"][COMMON])), "level": level, "figures": figures,
        "claims": _claims(figures), "effects": _effects(seeds), "evaluation": _evaluation(seeds),
        "verdicts": [{"seed": seed["seed"], **verdict} for seed in seeds for verdict in seed["verdicts"]],
        "refused_plans": sum(len(seed["refused_days"]) for seed in seeds),
    }  # fmt: skip


def _entry(name: str, label: str, of: Measure, arms: Sequence[str], spread: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """A figure in every arm, its lifts over common practice, and the share of the oracle's gain."""

    def of_arm(arm: str) -> Callable[[Mapping[str, Totals]], Floats]:
        return lambda sums: of(sums[arm])

    def lift_of(arm: str) -> Callable[[Mapping[str, Totals]], Floats]:
        return lambda sums: _lift(of(sums[arm]), of(sums[COMMON]))

    entry: dict[str, Any] = {"label": label, "arms": {arm: spread(of_arm(arm)) for arm in arms}}
    entry |= {f"{arm}_lift": spread(lift_of(arm)) for arm in arms[1:]}
    if ORACLE in arms:
        entry["share_of_oracle_gain"] = spread(lambda sums: _share(name, of(sums[SYSTEM]), of(sums[COMMON]), of(sums[ORACLE])))
    return entry


def _lift(value: Floats, base: Floats) -> Floats:
    lift: Floats = np.divide(value, base, out=np.full(value.shape, np.nan), where=base != 0) - 1
    return lift


def _share(name: str, system: Floats, common: Floats, oracle: Floats) -> Floats:
    """Of a gain only: where knowing everything does worse, doing worse still is no share of it above 1."""
    gain = oracle - common
    is_gain = gain < 0 if name in FEWER_IS_BETTER else gain > 0
    share: Floats = np.divide(system - common, gain, out=np.full(gain.shape, np.nan), where=is_gain)
    return share


def _claims(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, claim in CLAIMS.items():
        asked = [("system_lift", "lift over common practice", claim), ("share_of_oracle_gain", "share of the oracle's gain", GAIN_BAR)]
        for key, what, bar in asked:
            if key in figures[name]:
                found = figures[name][key]
                is_met = found["interval"] is not None and found["interval"][0] >= bar
                rows.append({"figure": name, "what": what, "bar": bar, **found, "is_met": is_met})
    return rows


def _effects(seeds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Per experiment, metric and method: mean belief, mean truth, and in how many seeds the interval held the truth."""
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for seed in seeds:
        for row in seed["effects"]:
            found.setdefault((row["experiment"], row["metric"], row["method"]), []).append(row)
    return [
        {
            "experiment": experiment, "metric": metric, "method": method, "seeds": len(rows),
            "covered": sum(bool(row["is_covered"]) for row in rows),
            **{name: float(np.mean([row[name] for row in rows])) for name in ("believed", "low", "high", "truth", "treated_mean", "control_users")},
        }
        for (experiment, metric, method), rows in sorted(found.items())
    ]  # fmt: skip


def _evaluation(seeds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for seed in seeds:
        for row in seed["figures"]:
            found.setdefault(row["metric"], []).append(row)
    return [
        {
            "metric": metric, "believed": float(np.mean([row["believed"] for row in rows])),
            "truth": float(np.mean([row["truth"] for row in rows])), "days": sum(row["days"] for row in rows),
            "days_covered": sum(row["days_covered"] for row in rows),
        }
        for metric, rows in sorted(found.items())
    ]  # fmt: skip
