"""Which outcomes of ads a shop's inputs can tell: conversions, and what they are worth.

What belongs here: asking the mapping. What does not: crediting (attribution.py). Where nothing tells of an outcome it is unknown,
and not zero: rates stay at their priors, and figures stay away.
"""

from __future__ import annotations

from marketing_assets.cleaning.typed import mapped_columns
from marketing_assets.config import Store


def missing_for_conversions(store: Store) -> str | None:
    """What the shop would have to map for conversions to be credited to impressions; None where it maps enough."""
    if store.blocks("conversions"):
        return None
    if not store.blocks("impressions"):
        return "needs source 'impressions'"
    shown = mapped_columns(store, "impressions")
    if "is_converted" in shown or (store.blocks("events") and "user_id" in shown):
        return None
    return "needs source 'conversions', impressions.is_converted, or 'events' and impressions.user_id"


def tells_conversions(store: Store) -> bool:
    """Whether anything says which ads were followed by a conversion."""
    if store.blocks("impressions"):
        return missing_for_conversions(store) is None
    return "conversions" in mapped_columns(store, "ad_reports")


def tells_values(store: Store) -> bool:
    """Whether anything says what such a conversion was worth, in the order in which conversions are credited."""
    if not tells_conversions(store):
        return False
    if not store.blocks("impressions"):
        return "conversion_value" in mapped_columns(store, "ad_reports")
    if store.blocks("conversions"):
        return "conversion_value" in mapped_columns(store, "conversions")
    if "is_converted" in (shown := mapped_columns(store, "impressions")):
        return "conversion_value" in shown
    return "unit_price" in mapped_columns(store, "events")


def of_told(store: Store, conversions: str, values: str) -> list[str]:
    """Of two names, of something about conversions and about what they are worth, those of which anything tells."""
    return [name for name, is_told in ((conversions, tells_conversions(store)), (values, tells_values(store))) if is_told]
