"""The verdict on drift: a pure function from the history of watched series to rows of drift_report.

What belongs here: when a series has moved, since when, why, what it costs and what to make again. What does not: where the
series come from (signals.py) and acting on the verdict (the sensor).

Change is sought with CUSUMs of log-likelihood ratios (Page 1954) against shifts that would matter, so that the statistic
weighs effects by how much can be seen of them; p-values are not used. A series has drifted where the statistic exceeds
its alarm, the effect since its start exceeds the threshold of its family, and no single day could have brought it there
(hysteresis). Day-to-day noise beyond sampling is measured on the series' own past and divides the evidence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from marketing_assets.config import DriftSettings
from marketing_assets.drift.causes import PREFERRED, begun, classify, money, remedy, without_echoes
from marketing_assets.drift.panels import Panel, Series

Floats = npt.NDArray[np.float64]

ALARM = 10.0
"""Log-likelihood ratio at which a CUSUM counts as a change: evidence of 22,000 to 1, since some thirty series are watched every day."""
PLACEMENT_ALARM = 6.0
"""The same for clicks and conversions of a placement against what was predicted: placements are few, what should come is known and not
estimated from a past that moves by itself, and every day of a collapse costs money."""
PLACEMENT_DAILY = 2.0
"""Counts expected a day from which PLACEMENT_ALARM holds: of fewer, what one person does may be all there is."""
WATCHED_DAYS = 35
"""A change older than this is part of the reference by now."""
LAG_DAYS = 8
"""The reference of a day ends so many days before it, so that a change does not hide itself at once."""
JUDGED_DAYS = 98
"""Days of history a verdict reads."""
MINIMUM_REFERENCE = 14
SHIFTS = (-2.0, -1.2, -0.6, -0.3, 0.3, 0.6, 1.2)
"""Log ratios a change is sought at; those below the family's threshold are left out."""

WATCHED = pl.Schema(
    {
        "metric": pl.String,
        "family": pl.String,
        "segment_type": pl.String,
        "segment": pl.String,
        "value": pl.Float64,
        "reference_value": pl.Float64,
        "threshold": pl.Float64,
        "since_date": pl.Date,
        "is_beyond": pl.Boolean,
        "effect": pl.Float64,
        "gap": pl.Float64,
        "evidence": pl.Float64,
    }
)
"""effect: log ratio since since_date (difference for levels and distances). gap: observed minus expected a day. evidence: log-likelihood
ratio of a change, beyond or not; null for levels, distances and volumes."""

REPORT = pl.Schema(
    {
        "as_of_date": pl.Date,
        "verdict_id": pl.String,
        "metric": pl.String,
        "value": pl.Float64,
        "reference_value": pl.Float64,
        "threshold": pl.Float64,
        "since_date": pl.Date,
        "is_drifted": pl.Boolean,
        "cause": pl.String,
        "effect_value": pl.Float64,
        "action": pl.String,
        "assets_to_refresh": pl.String,
    }
)


def verdict_name(metrics: Sequence[str], since: date, cause: str) -> str:
    """A stable id of a verdict: digest of its metrics, its first day and its cause."""
    return hashlib.blake2b("\x1f".join([*sorted(metrics), since.isoformat(), cause]).encode(), digest_size=8).hexdigest()


def thresholds(settings: DriftSettings) -> dict[str, float]:
    """Family, or a metric that differs from its family -> effect that counts: log ratios, except quality and stock (differences) and PSI.

    Looks go into the category a profile prefers by chance as well: a change of what people prefer shows there at about half its size.
    """
    ratio = float(np.log(settings.error_ratio_threshold))
    return {
        "quality": settings.reject_rate_threshold,
        "volume": float(-np.log(max(1e-9, 1 - min(settings.volume_threshold, 0.999)))),
        "input": settings.psi_threshold,
        "price": settings.psi_threshold,
        "stock": settings.stock_threshold,
        "items.price_change": settings.price_threshold,
        PREFERRED: ratio / 2,
        "calibration": settings.calibration_threshold,
        "promise": settings.calibration_threshold,
        "ranking": ratio,
        "forecast": ratio,
        "business": settings.calibration_threshold,
    }


def judge(
    history: pl.DataFrame | Series, settings: DriftSettings, day: date, earlier: pl.DataFrame | None = None, propensity_days: int = 30
) -> pl.DataFrame:
    """drift_report rows of `day`.

    history: signals.HISTORY rows, or those laid out for judging many days; only those known by `day` count. earlier:
    drift_report rows of days before `day`: their verdicts reset the series they named, and while one of the last cool_down_days
    is open its cause raises no new one.
    propensity_days: horizon of the propensities; so long after a refit their outcomes are still those of the old ones.
    """
    past = pl.DataFrame(schema=REPORT) if earlier is None else earlier.filter(pl.col("as_of_date") < day)
    history = Series.of(history)
    watched = watch(history, settings, day, _resets(past, settings, propensity_days))
    rows = decide(watched, settings, day, past, _daily_money(history, day))
    return pl.concat([rows, sound_again(pl.concat([past, rows]), settings, day)])


def sound_again(reports: pl.DataFrame, settings: DriftSettings, day: date) -> pl.DataFrame:
    """Rows that say 'resume': one per table whose data were called broken, and for cool_down_days no more.

    reports: drift_report rows up to `day`. The row is repeated for two more cool-downs, in case nobody acted; it does nothing to
    a table that was not stopped, or was stopped by hand.
    """
    if not (reports["action"] == "stop_learning").any():
        return pl.DataFrame(schema=REPORT)
    broken = reports.filter(pl.col("action") == "stop_learning", "is_drifted").select("as_of_date", asset=pl.col("assets_to_refresh").str.split(","))
    last = broken.explode("asset").drop_nulls().group_by("asset").agg(pl.col("as_of_date").max()).sort("asset")
    rows = []
    for asset, newest in last.iter_rows():
        if settings.cool_down_days <= (day - newest).days < 3 * settings.cool_down_days:
            metric, since = f"learning[{asset}]", newest + timedelta(days=1)
            rows.append({
                **dict.fromkeys(REPORT), "as_of_date": day, "verdict_id": verdict_name([metric], since, "sound"), "metric": metric,
                "since_date": since, "is_drifted": False, "cause": "data_quality", "action": "resume", "assets_to_refresh": asset,
            })  # fmt: skip
    return pl.DataFrame(rows, schema=REPORT)


def _resets(past: pl.DataFrame, settings: DriftSettings, propensity_days: int) -> dict[str, date]:
    """Metric -> day of the newest verdict that named it: evidence up to then is spent.

    What a refit makes anew is made anew for every segment, so it resets all series of a metric: 'ads.ctr_calibration_ratio[]'; and what
    was told of the whole is told of each of its segments.
    Rates of ads that calibration explains stay where they fell, which is told once: they wait until their reference is of then.
    """
    if past.is_empty():
        return {}
    named = past.filter("is_drifted").group_by("verdict_id").agg(
        pl.col("metric").unique(), pl.col("cause", "action").first(), first=pl.col("as_of_date").min()
    )
    resets: dict[str, date] = {}
    for row in named.sort("first", "verdict_id").iter_rows(named=True):
        whole = [_all_segments(metric) for metric in row["metric"] if row["action"] == "refit" or "[" not in metric]
        for metric in [*row["metric"], *whole]:
            wait = propensity_days if row["action"] == "refit" and metric.startswith("profiles.") else 0
            resets[metric] = row["first"] + timedelta(days=wait)
        if row["cause"] == "calibration" and any(metric.startswith("ads.") for metric in row["metric"]):
            for metric in ("ads.ctr", "ads.cvr"):
                resets[metric] = row["first"] + timedelta(days=settings.reference_days + LAG_DAYS)
    return resets


def _all_segments(metric: str) -> str:
    return metric.split("[")[0] + "[]"


def _daily_money(history: Series, day: date) -> float | None:
    """Mean daily revenue of the four weeks before, for saying what a relative loss costs."""
    volumes = history.by_shape.get("volume")
    panel = None if volumes is None else volumes.of_days(day - timedelta(days=27), 28)
    if panel is None or "shop.revenue" not in panel.heads["metric"]:
        return None
    return float(np.nansum(panel.value[panel.heads["metric"].index("shop.revenue")])) / 28


def watch(history: pl.DataFrame | Series, settings: DriftSettings, day: date, resets: Mapping[str, date]) -> pl.DataFrame:
    """Every watched series as of `day`: newest value, reference, threshold, and whether it is beyond since when."""
    first = day - timedelta(days=JUDGED_DAYS - 1)
    panels = Series.of(history).panels(first, JUDGED_DAYS)
    if not panels:
        return pl.DataFrame(schema=WATCHED)
    tests = {
        "count": _watch_counts,
        "rate": _watch_rates,
        "mean": _watch_means,
        "level": _watch_levels,
        "distance": _watch_distances,
        "volume": _watch_volumes,
    }
    columns: dict[str, list[Any]] = {name: [] for name in WATCHED}
    for shape, panel in panels.items():
        earliest = JUDGED_DAYS - WATCHED_DAYS
        spent = [
            max(resets.get(name, date.min), resets.get(_all_segments(name), date.min)) for name in panel.heads["metric"]
        ]
        start = np.array([min(max(earliest, (day - first).days + 1), JUDGED_DAYS) for day in spent])
        for name, values in tests[shape](panel, settings, start).items():
            columns[name] += values
    return pl.DataFrame(columns, schema=WATCHED).sort("metric")


def _thresholds(panel: Panel, settings: DriftSettings) -> Floats:
    by_name = thresholds(settings)
    return np.array([by_name.get(metric, by_name[family]) for metric, family in zip(panel.heads["metric"], panel.families, strict=True)])


def _rolling_sum(values: Floats, days: int, lag: int) -> Floats:
    """Sum over the `days` days that end `lag` days before each day; nan counts as nothing."""
    running = np.cumsum(np.nan_to_num(values), axis=1)
    padded = np.concatenate([np.zeros((len(values), lag + days)), running], axis=1)
    width = values.shape[1]
    sums: Floats = padded[:, days : days + width] - padded[:, :width]
    return sums


def _cusum(steps: Floats, start: npt.NDArray[np.int64]) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Final CUSUM and the first day of its run, per series and shift. steps: series x days x shifts, finite.

    max(0, S + step) day by day ends at the sum of the steps less its smallest earlier value, and the run begins behind that.
    """
    days, first = steps.shape[1], int(start.min())
    active = np.arange(first, days)[None, :] >= start[:, None]
    sums = np.zeros((steps.shape[0], days - first + 1, steps.shape[2]))
    np.cumsum(np.where(active[:, :, None], steps[:, first:], 0.0), axis=1, out=sums[:, 1:])
    total: Floats = sums[:, -1] - sums.min(axis=1)
    behind = days - np.argmin(sums[:, ::-1], axis=1)
    return total, np.where(total > 0, behind, days)


def _shifts(threshold: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    shifts = np.array(SHIFTS)
    return shifts, np.abs(shifts)[None, :] >= threshold[:, None] * 0.9


def _sides(families: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which shifts count by family: rankings only fall, errors only rise."""
    falling = np.array(SHIFTS) < 0
    return np.stack(
        [
            falling if family == "ranking" else ~falling if family == "forecast" else np.ones(falling.size, dtype=bool)
            for family in families
        ]
    )


def _conclude(
    panel: Panel,
    settings: DriftSettings,
    steps: Floats,
    start: npt.NDArray[np.int64],
    above: Floats,
    below: Floats,
    reference: Floats,
    alarm: Floats | None = None,
) -> dict[str, list[Any]]:
    """Rows from CUSUM steps. above, below: what the ratio since the change is made of; reference: newest expected value.

    Where alarm is left out the reference is a past of reference_days, itself known by chance only: over n days a difference from it
    is (1 + n / reference_days) times as uncertain as from a known level, and the evidence counts for as much less.
    """
    threshold = _thresholds(panel, settings)
    needed = np.full(threshold.shape, ALARM) if alarm is None else alarm
    _, usable = _shifts(threshold)
    usable = usable & _sides(panel.families)
    steps = np.where(usable[:, None, :], np.where(np.isfinite(steps), steps, 0.0), -1e9)
    # no single day may raise the alarm alone: evidence is capped for the alarm, and whole for which shift it was since when
    most = needed / max(settings.consecutive_days, 1) * 1.1
    statistic = _cusum(np.minimum(steps, most[:, None, None]), start)[0].max(axis=1)
    total, since = _cusum(steps, start)
    evidence = total.max(axis=1)
    begun = since[np.arange(len(total)), total.argmax(axis=1)]
    inside = (np.arange(panel.days)[None, :] >= begun[:, None]) & np.isfinite(above) & np.isfinite(below)
    top, bottom = np.where(inside, above, 0.0).sum(axis=1), np.where(inside, below, 0.0).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = np.log(np.maximum(top, 0.5 * (bottom > 0)) / bottom)
    seen = inside.sum(axis=1)
    if alarm is None:
        needed = needed * (1 + seen / settings.reference_days)
    beyond = (statistic > needed) & (np.abs(effect) > threshold) & (seen >= settings.consecutive_days)
    gap = np.where(seen > 0, (top - bottom) / np.maximum(seen, 1), np.nan)
    return _rows(panel, _newest(panel.value), _newest(reference), threshold, begun, beyond, effect, gap, evidence)


def _newest(values: Floats) -> Floats:
    """The last known value of each row."""
    at = np.where(np.isfinite(values), np.arange(values.shape[1]), -1).max(axis=1)
    newest: Floats = np.where(at >= 0, values[np.arange(len(values)), at], np.nan)
    return newest


def _rows(
    panel: Panel,
    value: Floats,
    reference: Floats,
    threshold: Floats,
    begun: npt.NDArray[np.int64],
    beyond: npt.NDArray[np.bool_],
    effect: Floats,
    gap: Floats,
    evidence: Floats | None = None,
) -> dict[str, list[Any]]:
    def finite(values: Floats) -> list[float | None]:
        return [number if np.isfinite(number) else None for number in values.tolist()]

    since = [panel.first_day + timedelta(days=int(at)) if flag else None for at, flag in zip(begun, beyond, strict=True)]
    return {
        **panel.heads,
        "value": finite(value),
        "reference_value": finite(reference),
        "threshold": threshold.tolist(),
        "since_date": since,
        "is_beyond": beyond.tolist(),
        "effect": finite(effect),
        "gap": finite(gap),
        "evidence": [None] * len(begun) if evidence is None else finite(evidence),
    }


def _overdispersion(squares: Floats) -> Floats:
    """Variance of standardised residuals over the days before the watched ones, at least 1; 4 where too few are known."""
    old = squares[:, : JUDGED_DAYS - WATCHED_DAYS // 2]
    count = np.isfinite(old).sum(axis=1)
    mean = np.nansum(np.minimum(old, 25.0), axis=1) / np.maximum(count, 1)
    return np.where(count >= MINIMUM_REFERENCE, np.maximum(mean, 1.0), 4.0)


def _watch_counts(panel: Panel, settings: DriftSettings, start: npt.NDArray[np.int64]) -> dict[str, list[Any]]:
    """Observed against predicted counts: Poisson log-likelihood ratios, O * shift - E * (exp(shift) - 1)."""
    observed, expected = panel.observed, panel.expected
    threshold = _thresholds(panel, settings)
    shifts, _ = _shifts(threshold)
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = _overdispersion((observed - expected) ** 2 / np.maximum(expected, 1e-9))
    steps = (observed[:, :, None] * shifts - expected[:, :, None] * np.expm1(shifts)) / noise[:, None, None]
    daily = np.nansum(expected, axis=1) / np.maximum(np.isfinite(expected).sum(axis=1), 1)
    is_placement = np.array(panel.heads["segment_type"]) == "placement"
    alarm = np.where(is_placement & (daily >= PLACEMENT_DAILY), PLACEMENT_ALARM, ALARM)
    return _conclude(panel, settings, steps, start, observed, expected, np.ones_like(observed), alarm)


def _watch_rates(panel: Panel, settings: DriftSettings, start: npt.NDArray[np.int64]) -> dict[str, list[Any]]:
    """Counts out of trials against the pooled past: as counts against what the past rate would have brought.

    A normal likelihood would take a thin day without a success for certain knowledge of a rate near 0. A promise kept better than it
    used to be is no change: whatever lies between its past and 1 is as expected, such as once a shop begins to follow its plans.
    """
    reference = _pooled_past(panel, settings)
    expected = reference * panel.expected
    shifts, _ = _shifts(_thresholds(panel, settings))
    is_promise = np.array(panel.families)[:, None] == "promise"
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = _overdispersion((panel.observed - expected) ** 2 / np.maximum(expected, 1e-9))
        kept = np.clip(panel.observed, np.minimum(expected, panel.expected), np.maximum(expected, panel.expected))
        expected = np.where(is_promise, kept, expected)
    steps = (panel.observed[:, :, None] * shifts - expected[:, :, None] * np.expm1(shifts)) / noise[:, None, None]
    return _conclude(panel, settings, steps, start, panel.observed, expected, reference)


def _pooled_past(panel: Panel, settings: DriftSettings) -> Floats:
    """Quotient of sums over the reference days that end LAG_DAYS before each day; nan where too few are known."""
    days = settings.reference_days
    known = np.isfinite(panel.observed) & np.isfinite(panel.expected)
    top = _rolling_sum(np.where(known, panel.observed, np.nan), days, LAG_DAYS)
    bottom = _rolling_sum(np.where(known, panel.expected, np.nan), days, LAG_DAYS)
    count = _rolling_sum(known.astype(float), days, LAG_DAYS)
    with np.errstate(divide="ignore", invalid="ignore"):
        past: Floats = np.where((count >= MINIMUM_REFERENCE / 2) & (bottom > 0) & (top > 0), top / bottom, np.nan)
    return past


def _watch_means(panel: Panel, settings: DriftSettings, start: npt.NDArray[np.int64]) -> dict[str, list[Any]]:
    """Means against their own pooled past: normal log-likelihood ratios for relative shifts."""
    reference = _pooled_past(panel, settings)
    with np.errstate(divide="ignore", invalid="ignore"):
        # where a day's own interval collapses (no success at all), borrow the typical spread at its size
        spreads = np.where(panel.variance > 0, panel.variance * panel.expected, np.nan)
        spread = 0.25 * _medians(spreads)
        # sums of money have a few large ones: a day without any looks certain of a lower mean, and is not
        is_money = np.array(panel.families) == "business"
        seen = np.maximum(np.isfinite(spreads).sum(axis=1), 1)
        spread = np.where(is_money, np.nansum(spreads, axis=1) / seen, spread)
        variance = np.maximum(panel.variance, spread[:, None] / panel.expected)
        noise = _overdispersion((panel.value - reference) ** 2 / variance)
        shift = reference[:, :, None] * np.expm1(np.array(SHIFTS))
        steps = ((panel.value - reference)[:, :, None] * shift - shift**2 / 2) / (variance * noise[:, None])[:, :, None]
    usable = np.isfinite(reference)
    weight = np.where(usable, panel.expected, np.nan)
    return _conclude(panel, settings, steps, start, panel.value * weight, reference * weight, reference)


def _watch_levels(panel: Panel, settings: DriftSettings, start: npt.NDArray[np.int64]) -> dict[str, list[Any]]:
    """Levels without a sampling model: distance from the median of their reference days, on consecutive known days.

    Calibration and promises are ratios that should be 1 and whose distance is a log ratio, counted where it leads away from 1: a
    young shop's predictions get better. Others differ by addition, upwards only.
    """
    is_ratio = np.isin(panel.families, ["calibration", "promise"])
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where(is_ratio[:, None], np.log(np.maximum(panel.value, 1e-6)), panel.value)
    reference = _lagged_medians(values, settings.reference_days)
    distance = values - reference
    away = np.where(np.abs(values) > np.abs(reference), distance, np.where(np.isfinite(distance), 0.0, np.nan))
    distance = np.where(is_ratio[:, None], away, np.maximum(distance, 0.0))
    return _consecutive(panel, settings, start, distance, np.where(is_ratio[:, None], np.exp(reference), reference))


def _lagged_medians(values: Floats, days: int) -> Floats:
    """Median of the `days` days that end LAG_DAYS before each watched day; nan where fewer than half a fortnight are known."""
    medians = np.full(values.shape, np.nan)
    for column in range(values.shape[1] - WATCHED_DAYS, values.shape[1]):
        past = values[:, max(0, column - LAG_DAYS - days + 1) : column - LAG_DAYS + 1]
        medians[:, column] = np.where(np.isfinite(past).sum(axis=1) >= MINIMUM_REFERENCE / 2, _medians(past), np.nan)
    return medians


def _medians(values: Floats) -> Floats:
    """Median of what is known of each row; nan where nothing is. numpy's own warns of such rows."""
    ordered = np.sort(values, axis=1)  # nan sorts last
    count = np.isfinite(values).sum(axis=1)
    rows = np.arange(len(values))
    middle: Floats = (ordered[rows, np.maximum((count - 1) // 2, 0)] + ordered[rows, np.minimum(count // 2, values.shape[1] - 1)]) / 2
    return middle


def _watch_distances(panel: Panel, settings: DriftSettings, start: npt.NDArray[np.int64]) -> dict[str, list[Any]]:
    """Series that are distances from a reference already."""
    return _consecutive(panel, settings, start, panel.value, np.zeros_like(panel.value))


def _consecutive(
    panel: Panel, settings: DriftSettings, start: npt.NDArray[np.int64], distance: Floats, reference: Floats
) -> dict[str, list[Any]]:
    """Beyond where the newest `consecutive_days` known distances all exceed the threshold.

    Twice as many for what is delivered of a plan: where clicks are paid for it falls with them, and the clicks tell the cause.
    """
    threshold = _thresholds(panel, settings)
    needed = [settings.consecutive_days * (2 if "delivery" in metric else 1) for metric in panel.heads["metric"]]
    begun = np.full(len(threshold), panel.days)
    beyond = np.zeros(len(threshold), dtype=bool)
    effect = np.full(len(threshold), np.nan)
    for row in range(len(threshold)):
        columns = np.flatnonzero(np.isfinite(distance[row]) & (np.arange(panel.days) >= start[row]))
        if not columns.size:
            continue
        over = np.abs(distance[row, columns]) > threshold[row]
        quiet = np.flatnonzero(~over)
        run = columns[quiet[-1] + 1 :] if quiet.size else columns
        effect[row] = distance[row, columns[-1]]
        if run.size >= needed[row] and panel.days - columns[-1] <= LAG_DAYS:
            begun[row], beyond[row] = run[0], True
    return _rows(
        panel, _newest(panel.value), _newest(reference), threshold, begun, beyond, effect, np.full(len(threshold), np.nan)
    )


def _watch_volumes(panel: Panel, settings: DriftSettings, start: npt.NDArray[np.int64]) -> dict[str, list[Any]]:
    """Counts and sums against the same weekday of the four weeks before: outside their whole range, and not by noise."""
    # after a bin was first counted, no row means none; a row without a value is a closed day, which says nothing, before it least of all
    has_row = np.isfinite(panel.observed)
    seen = np.maximum.accumulate(np.isfinite(panel.value), axis=1)
    values = np.where(seen & ~has_row, 0.0, panel.value)
    lags = np.stack([np.concatenate([np.full((len(values), lag), np.nan), values[:, :-lag]], axis=1) for lag in (7, 14, 21, 28)])
    complete = np.isfinite(lags).sum(axis=0) >= 3
    with np.errstate(all="ignore"):
        low = np.where(complete, np.where(np.isfinite(lags), lags, np.inf).min(axis=0), np.nan)
        high = np.where(complete, np.where(np.isfinite(lags), lags, -np.inf).max(axis=0), np.nan)
        # the lower median of the three or four known weeks, without numpy's warnings on empty slices
        middle = np.where(complete, np.sort(lags, axis=0)[1], np.nan)
        nearest = np.where(values < low, low, np.where(values > high, high, values))
        ratio = np.log(np.maximum(values, 0.5) / np.maximum(nearest, 0.5))
        residual = (values - middle) ** 2 / np.maximum(middle, 1.0)
        # rises come in orders of many lines: what is usual for them is the mean square, which few days make
        known = [row[np.isfinite(row)] for row in residual]
        noise = {
            name: np.array([max(1.0, float(of(row))) if row.size else 1.0 for row in known])[:, None]
            for name, of in (("fall", np.median), ("rise", np.mean))
        }
        usual = np.where(values > nearest, noise["rise"], noise["fall"])
        is_clear = np.abs(values - nearest) > 3 * np.sqrt(np.maximum(nearest, 1.0) * usual)
    # a day far below its weekday's range counts twice as much when it is all but empty; small bins cannot show that
    distance = np.where(np.isfinite(nearest), np.where(is_clear, ratio, 0.0), np.nan)
    table = _consecutive(panel, settings, start, distance, middle)
    return table


def decide(
    watched: pl.DataFrame, settings: DriftSettings, day: date, past: pl.DataFrame, daily_revenue: float | None
) -> pl.DataFrame:
    """From what is beyond its threshold to verdicts: one per cause, with hysteresis done and cool-down still to apply."""
    beyond = without_echoes(watched)
    open_verdicts = _open(past, settings, day)
    causes = classify(beyond, watched, {cause for cause, part in open_verdicts if not part})
    rows = {
        row["metric"]: {
            **dict.fromkeys(REPORT),
            **{name: row[name] for name in ("metric", "value", "reference_value", "threshold", "since_date")},
            "as_of_date": day,
            "is_drifted": False,
        }
        for row in watched.select("metric", "value", "reference_value", "threshold", "since_date").iter_rows(named=True)
    }
    for branch in sorted({_branch(cause, metric) for metric, cause in causes.items()}):
        cause = branch[0]
        members = sorted(metric for metric, of in causes.items() if _branch(of, metric) == branch)
        part = beyond.filter(pl.col("metric").is_in(members))
        since = begun(cause, part)
        action, assets = remedy(cause, part)
        verdict = open_verdicts.get(branch) or verdict_name(members, since, cause)
        effect = money(cause, part, daily_revenue)
        for metric in members:
            is_season = cause == "season"
            rows[metric] |= {
                "cause": cause,
                "since_date": max(since, rows[metric]["since_date"]),
                "is_drifted": not is_season,
                "verdict_id": None if is_season else verdict,
                "effect_value": effect,
                "action": action,
                "assets_to_refresh": ",".join(assets) or None,
            }
    return pl.DataFrame([rows[metric] for metric in sorted(rows)], schema=REPORT)


def _branch(cause: str, metric: str) -> tuple[str, str]:
    """What one verdict is about: a cause, and of predictions that no longer fit, which ones: each has a refit of its own."""
    return cause, metric.split(".")[0] if cause == "calibration" and metric.startswith("profiles.") else ""


def _open(past: pl.DataFrame, settings: DriftSettings, day: date) -> dict[tuple[str, str], str]:
    """Cause and branch -> verdict still cooling down: the same cause stays that verdict and asks for nothing twice."""
    if past.is_empty():
        return {}
    firsts = past.filter("is_drifted").group_by("cause", "verdict_id").agg(
        first=pl.col("as_of_date").min(), metric=pl.col("metric").min()
    )
    recent = firsts.filter(pl.col("first") >= day - timedelta(days=settings.cool_down_days)).sort("first", "verdict_id")
    return {_branch(cause, metric): name for cause, name, metric in recent.select("cause", "verdict_id", "metric").iter_rows()}
