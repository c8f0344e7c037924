"""The ad log of a window, read once for all that is made of it.

What belongs here: impressions with their audience, and what was credited to them. What does not: what is counted (ads.py) and
what other plans would have brought (what_if.py).

Names are Enums in alphabetical order: grouping, joining and sorting them costs as much as numbers do. Those an impression shares
with many others (what was shown where, on which device) come from the engine as one number, and their texts once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl

from marketing_assets.config import UNKNOWN_USER
from marketing_assets.evaluation.queries import Tables, query
from marketing_assets.response.audience import entries_since, with_audience
from marketing_assets.warehouse import Reader


@dataclass(frozen=True)
class AdLog:
    """What landed in a window of days, in no particular order.

    shown: impression (its row), event_date (the day it was shown), landed_date, hour, names (cluster, audience, placement, creative,
    item_id, campaign, policy, device), fold (0 or 1: the half of the users one is in, by hash), is_clicked, is_planned, cost,
    logging_propensity. credited: impression, landed_date (the day credited), conversions (1, or 0 for a refund), value.
    """

    shown: pl.DataFrame
    credited: pl.DataFrame


def read_ad_log(reader: Reader, start: date, end: date) -> AdLog:
    """Impressions landed in [start, end], each with its own audience, else its user's of the evening before, else 'unknown'."""
    kinds = kinds_query(reader, start, end)
    looked_up = audiences_query(reader, entries_since(reader, start), reader.store.anchor.isoformat(), start, end)
    audiences = pl.concat([kinds["audience"], looked_up["of_user"], pl.Series([UNKNOWN_USER])])
    audience = pl.Enum(audiences.drop_nulls().unique().sort())
    texts = ("placement", "creative", "item_id", "campaign", "policy", "device")
    kinds = kinds.with_columns(pl.col("audience").cast(audience), *[enumerated(kinds[name]) for name in texts])
    shown = shown_query(reader, start, end)
    shown = shown.with_columns(enumerated(shown["cluster"])).with_columns(user=pl.when("has_user").then("cluster"))
    looked_up = looked_up.select("event_date", pl.col("user").cast(shown.schema["cluster"]), pl.col("of_user").cast(audience))
    shown = (
        shown.join(kinds, on="kind", how="left", maintain_order="left")
        .join(looked_up, on=["user", "event_date"], how="left", maintain_order="left")
        .with_columns(audience=pl.coalesce("audience", "of_user", pl.lit(UNKNOWN_USER, audience)))
        .with_row_index("impression")
    )
    known = shown.filter(pl.col("credited_id").is_not_null()).select("impression", impression_id="credited_id")
    credited = credited_query(reader, start, end).join(known, on="impression_id").drop("impression_id")
    return AdLog(shown.drop("kind", "has_user", "user", "of_user", "credited_id"), credited)


def enumerated(names: pl.Series) -> pl.Series:
    """Text as an Enum of its distinct values, in order."""
    return names.cast(pl.Enum(names.drop_nulls().unique().sort()))


_KIND = ("audience", "placement", "creative", "item_id", "campaign", "policy", "context", "is_planned")


def _kinds(table: Tables, start: date, end: date) -> tuple[Any, Any]:
    """Impressions landed in [start, end] with _KIND under the names of a report's segments, and the distinct ones, numbered."""
    import ibis

    shown = table("clean_impressions")
    shown = shown.filter(shown.landed_date.between(start, end)).mutate(
        audience=shown.audience_id, placement=shown.placement_id, creative=ibis.coalesce(shown.creative_id, shown.item_id),
        campaign=shown.campaign_id, policy=shown.policy_id, is_planned=shown.plan_id.notnull(),
    )  # fmt: skip
    kinds = shown.select(*_KIND).distinct()
    return shown, kinds.mutate(kind=ibis.row_number().over(order_by=[kinds[name] for name in _KIND]))


@query
def kinds_query(table: Tables, start: date, end: date) -> Any:
    _, kinds = _kinds(table, start, end)
    return kinds.mutate(device=kinds.context.cast("json")["device"].str).drop("context")


@query
def shown_query(table: Tables, start: date, end: date) -> Any:
    import ibis

    shown, kinds = _kinds(table, start, end)
    credited = table("attributed_conversions")
    credited = credited.filter(credited.landed_date.between(start, end))
    cluster = ibis.coalesce(shown.user_id, shown.opportunity_id, shown.impression_id)
    rows = shown.select(
        *_KIND, "landed_date", "hour", "is_clicked", "logging_propensity", event_date=shown.impression_date, cluster=cluster,
        has_user=shown.user_id.notnull(), fold=ibis.ifelse(cluster.hexdigest("md5").left(1) < "8", 0, 1),
        cost=ibis.coalesce(shown.spend, 0).cast("float64"),
        credited_id=ibis.ifelse(shown.impression_id.isin(credited.impression_id), shown.impression_id, ibis.null("string")),
    )  # fmt: skip
    found = rows.inner_join(kinds, [rows[name].identical_to(kinds[name]) for name in _KIND])
    return found.select("kind", *[name for name in rows.columns if name not in _KIND])


@query
def audiences_query(table: Tables, since: date, anchor: str, start: date, end: date) -> Any:
    """The audience of users on the days they were shown something without one.

    anchor: the day keyframes count from, as text: it need not be among the days a window may see.
    """
    entries, shown = table("audiences"), table("clean_impressions")
    shown = shown.filter(shown.landed_date.between(start, end), shown.audience_id.isnull(), shown.user_id.notnull())
    shown = shown.select("user_id", "audience_id", "impression_date").distinct()
    found = with_audience(shown, entries.filter(entries.as_of_date.between(since, end)), date.fromisoformat(anchor))
    return found.select(user="user_id", event_date="impression_date", of_user="audience_id")


@query
def credited_query(table: Tables, start: date, end: date) -> Any:
    """Conversions and refunds credited in [start, end]."""
    import ibis

    credited = table("attributed_conversions")
    return credited.filter(credited.landed_date.between(start, end)).select(
        "impression_id", "landed_date", conversions=ibis.ifelse(credited.is_refunded, 0, 1),
        value=credited.conversion_value.cast("float64"),
    )  # fmt: skip
