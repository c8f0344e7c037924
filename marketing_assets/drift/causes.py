"""Why something drifted, what it costs, and what to make again.

What belongs here: causes, effects in money and remedies. What does not: whether anything drifted (verdict.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date
from typing import Any

import numpy as np
import polars as pl

SUDDEN = 1.2
"""Log ratio beyond which a change in one device is a broken measurement rather than a change of people."""

PREFERRED = "profiles.preferred_category_rate"

MOST = 0.8
"""Share of the evidence for a change of the whole that one part shows by itself, from which on the change is the part's."""

REMEDIES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "data_quality": ("stop_learning", ()),
    "calibration": ("refit", ("response_rates",)),
    "taste": ("refit", ("recommendations",)),
    "price": ("refit", ("demand_forecasts",)),
    "stock": ("alert", ()),
    "mix": ("alert", ()),
    "season": ("alert", ()),
}
"""Cause -> action and the assets it names, before those of the drifted metrics themselves."""

LEARNERS = {
    "events": ("user_profiles", "recommendations", "demand_forecasts"),
    "impressions": ("response_rates",),
    "conversions": ("response_rates",),
    "ad_reports": ("response_rates",),
}
"""What learns from a source, and so must stop when the source is broken."""


def classify(beyond: pl.DataFrame, watched: pl.DataFrame, still_open: Collection[str] = ()) -> dict[str, str]:
    """Metric -> cause. still_open: causes of verdicts that are still cooling down ('calibration': of click or conversion rates).

    Broken data explains everything it touches; then stock and price, also if told some days before, explain demand; placements out of
    calibration explain ad figures; falling rankings mean tastes; shifted inputs without lost quality are mix; totals that move while all
    rates hold are season.
    """
    if beyond.height == 0:
        return {}
    rows = beyond.to_dicts()
    family = {row["metric"]: row["family"] for row in rows}
    families = set(family.values()) | ({"stock", "price"} & set(still_open))
    quality = [row for row in rows if row["family"] == "quality"]
    # a placement that collapsed takes along the devices it was looked at on, and its own evidence is spent
    is_spent, is_explained = "calibration" in still_open, bool(families & {"stock", "price"})
    excused = [row for row in rows if is_spent and row["metric"].startswith(("ads.", "impressions.")) and "device=" in row["metric"]]
    broken = quality or [row for row in rows if row not in excused and _is_broken_measurement(row, watched, is_explained)]
    if broken:
        return dict.fromkeys(family, "data_quality")
    causes: dict[str, str] = {}
    for row in rows:
        metric, of = row["metric"], row["family"]
        if of in ("stock", "price"):
            causes[metric] = of
        elif of == "forecast":
            causes[metric] = (
                "stock"
                if "stock" in families
                else "price"
                if "price" in families
                else "taste"
                if "ranking" in families
                else "season"
            )
        elif of == "calibration":
            causes[metric] = "taste" if metric.startswith("profiles.") and "ranking" in families else "calibration"
        elif of == "promise":
            # less was served than planned, or what was served brought less than expected
            causes[metric] = "mix" if "delivery" in metric else "calibration"
        elif of == "ranking":
            # what is gone is still looked at, or not, by whoever prefers it
            is_of_goods = metric != PREFERRED and "stock" in family.values()
            causes[metric] = "stock" if is_of_goods else "taste"
        elif of == "input":
            causes[metric] = "taste" if "ranking" in families else "mix"
        elif of == "volume":
            causes[metric] = "mix" if "input" in families else "season"
        else:
            causes[metric] = _business_cause(metric, families)
    return causes


def without_echoes(watched: pl.DataFrame) -> pl.DataFrame:
    """The series that are beyond, without those that only echo a change elsewhere.

    Placements, audiences and devices cut the same impressions in several ways, so one that changes shows, diluted, in the calibration of
    all of the other kinds: the change lies in the kind with the most evidence. And a rate of the whole shop falls with one of its devices
    or channels, which then shows most of it. Where nothing of that kind is beyond yet, it will be in a day or it was chance.
    """
    is_cut = (pl.col("family") == "calibration") & pl.col("metric").str.contains("[", literal=True) & pl.col("evidence").is_not_null()
    rows = watched.filter(is_cut).with_columns(ratio=pl.col("metric").str.split("[").list.first())
    most = rows.group_by("ratio", "segment_type").agg(pl.col("evidence").max())
    root = most.sort("ratio", "evidence", "segment_type", descending=[False, True, True]).unique("ratio", keep="first")
    echoes = rows.join(root, on=["ratio", "segment_type"], how="anti")
    parts = watched.filter(pl.col("family") == "business", pl.col("metric").str.contains("[", literal=True))
    parts = parts.group_by(metric=pl.col("metric").str.split("[").list.first()).agg(of_part=pl.col("evidence").max(), told=pl.col("is_beyond").any())
    waiting = watched.join(parts.filter(~pl.col("told")), on="metric").filter(pl.col("of_part") > MOST * pl.col("evidence"))
    return watched.filter("is_beyond", ~pl.col("metric").is_in(pl.concat([echoes["metric"], waiting["metric"]]).implode()))


def begun(cause: str, part: pl.DataFrame) -> date:
    """The day a cause set in: of a loss of calibration, as the segments it lies in show it, where any do.

    Every other series of the verdict contains the change diluted, and its run begins with days of chance.
    """
    is_root = pl.col("metric").str.contains("[", literal=True) & (pl.col("family") == "calibration")
    roots = part.filter(is_root) if cause == "calibration" else part.clear()
    first: date = (roots if roots.height else part)["since_date"].min()  # type: ignore[assignment]
    return first


def _business_cause(metric: str, families: set[str]) -> str:
    if metric == "shop.revenue":
        return "season"
    if metric.startswith("ads.") and families & {"calibration", "promise"}:
        return "calibration"
    for family, cause in (("stock", "stock"), ("price", "price"), ("ranking", "taste"), ("input", "mix")):
        if family in families:
            return cause
    return "calibration" if metric.startswith("ads.") else "mix"


_DEVICE_COUNTS = ("buying_device", "cart_device", "view_device", "clicking_device")


def _is_broken_measurement(row: Mapping[str, Any], watched: pl.DataFrame, is_explained: bool) -> bool:
    """A change no crowd of people makes.

    A kind of event or all conversions all but vanish; or one device's counts or rates jump while every other device holds, so that
    the whole shows little more of it than the device (else the others moved as well, only less clearly); or clicks change by the same
    factor in all of three or more placements at once. Impressions of a placement are where the plan buys them: as long as the plan is
    delivered, none there is no loss. is_explained: goods are gone or dearer, so that people with any device buy less, of one first.
    """
    effect = row["effect"] or 0.0
    of_kind = watched.filter(pl.col("segment_type") == row["segment_type"], pl.col("family") == row["family"])
    name = row["metric"].split("[")[0]
    siblings = of_kind.filter(pl.col("segment") != row["segment"], pl.col("metric").str.starts_with(name + "["))
    if row["family"] == "volume":
        delivered = watched.filter(pl.col("metric") == "plan.spend_delivery_ratio")
        if row["segment_type"] == "placement" and delivered.height and not delivered["is_beyond"].any():
            return False
        is_alone = siblings.height > 0 and not siblings["is_beyond"].any()
        is_device = row["segment_type"] in _DEVICE_COUNTS
        return effect < -SUDDEN or (is_device and is_alone and abs(effect) > SUDDEN / 2)
    if row["segment_type"] == "device":
        whole = watched.filter(pl.col("metric") == name)["evidence"].drop_nulls()
        is_own = whole.is_empty() or (row["evidence"] or 0.0) > MOST * whole[0]
        return abs(effect) > (SUDDEN if is_explained else SUDDEN / 2) and is_own and siblings.height > 0 and not siblings["is_beyond"].any()
    if name == "ads.cvr_calibration_ratio":
        return effect < -SUDDEN
    if name == "ads.ctr_calibration_ratio" and row["segment_type"] == "placement":
        effects = of_kind.filter(pl.col("metric").str.starts_with(name + "["), "is_beyond")["effect"].drop_nulls()
        everywhere = effects.len() >= 3 and effects.len() == siblings.height + 1
        return everywhere and abs(effect) > SUDDEN / 2 and float(effects.max()) - float(effects.min()) < 0.4  # type: ignore[arg-type]
    return False


def remedy(cause: str, part: pl.DataFrame) -> tuple[str, list[str]]:
    """Action and the smallest set of assets to make again (or to stop from learning)."""
    action, named = REMEDIES[cause]
    assets = set(named)
    metrics = part["metric"].to_list()
    if cause == "data_quality":
        for metric in metrics:
            source = "impressions" if metric.startswith(("impressions.", "ads.", "plan.")) else metric.split(".")[0]
            assets.update(LEARNERS.get(source, LEARNERS["events"]))
        return action, sorted(assets)
    if cause == "calibration":
        assets = {"user_profiles" if metric.startswith("profiles.") else "response_rates" for metric in metrics}
    if cause == "taste":
        if any(metric.startswith("profiles.calibration") for metric in metrics):
            assets.add("user_profiles")
        if any(metric.startswith("demand.") for metric in metrics):
            assets.add("demand_forecasts")
    return action, sorted(assets)


def money(cause: str, part: pl.DataFrame, daily_revenue: float | None) -> float | None:
    """What the change is worth a day, in money; negative is a loss. None where no series says it.

    A relative change of the session conversion rate or the order value moves revenue by as much; a change of revenue is one.
    """
    if daily_revenue is None or cause == "data_quality":
        return None
    revenue = part.filter(pl.col("metric") == "shop.revenue")
    if revenue.height:
        return daily_revenue * float(np.expm1(revenue["effect"][0]))
    rates = part.filter(pl.col("metric").is_in(["shop.session_conversion_rate", "shop.average_order_value"]))[
        "effect"
    ].drop_nulls()
    return daily_revenue * float(np.expm1(float(rates.sum()))) if rates.len() else None
