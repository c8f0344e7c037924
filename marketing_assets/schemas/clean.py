"""Tables of cleaning: events, impressions, conversions, and what was refused."""

import pandera.ibis as pa

from marketing_assets.schemas.inputs import EVENT_TYPES, INPUTS
from marketing_assets.schemas.table import Day, Instant, Money, column, table


@table(group="cleaning", key=("event_id",), partition="landed_date")
class CleanEvents(pa.DataFrameModel):
    """One row per valid, unique event."""

    landed_date: Day = column("day the event became known")
    event_date: Day = column("shop-local day it happened")
    event_id: str = column("the source's id, else the hash of its row")
    event_at: Instant = column("instant, UTC")
    user_id: str = column("the person, identities joined; null where the shop does not know", nullable=True)
    session_id: str = column("given, else by a gap of 30 minutes; null without a user", nullable=True)
    event_type: str = column("what happened", isin=list(EVENT_TYPES))
    item_id: str = column("item; null for a search", nullable=True)
    order_id: str = column("order, for purchases and refunds", nullable=True)
    quantity: int = column("units, positive also on refunds; null for events that move none", nullable=True, gt=0)
    unit_price: Money = column("price per unit", nullable=True, ge=0)
    discount: Money = column("discount on the whole row", nullable=True, ge=0)
    revenue: Money = column("quantity x unit_price - discount; negative for refunds, 0 for other events")
    rating: float = column("stars or points as given", nullable=True)
    review_text: str = column("text of a review", nullable=True)
    dwell_seconds: float = column("time spent, seconds", nullable=True, ge=0)
    search_query: str = column("what was searched for", nullable=True)
    device: str = column("device", nullable=True)
    channel: str = column("channel the visit came by", nullable=True)
    location_id: str = column("store or region", nullable=True)
    refunds_event_id: str = column("purchase event a refund takes back, where it could be matched", nullable=True)
    is_bot: bool = column("behaves like a program: kept, left out of features")
    is_service: bool = column("a fee or postage, not an item: kept, left out of item tables")
    is_late: bool = column("landed after something its user did later")
    raw_row_id: str = column("the raw row")


@table(group="cleaning", key=("impression_id",), partition="landed_date")
class CleanImpressions(pa.DataFrameModel):
    """One row per valid, unique impression."""

    landed_date: Day = column("day the impression became known")
    impression_date: Day = column("shop-local day it was shown")
    impression_id: str = column("the source's id, else the hash of its row")
    opportunity_id: str = column("request the impression answered", nullable=True)
    shown_at: Instant = column("instant, UTC")
    hour: int = column("shop-local hour", ge=0, le=23)
    user_id: str = column("the person, identities joined", nullable=True)
    audience_id: str = column("audience at that time", nullable=True)
    campaign_id: str = column("campaign", nullable=True)
    creative_id: str = column("creative", nullable=True)
    item_id: str = column("item shown", nullable=True)
    placement_id: str = column("placement")
    position: int = column("slot within the placement, from 1", nullable=True)
    policy_id: str = column("policy that chose", nullable=True)
    plan_id: str = column("plan it served", nullable=True)
    logging_propensity: float = column("P(this was shown) under that policy", nullable=True, gt=0, le=1)
    spend: Money = column("cost of the impression", nullable=True, ge=0)
    is_clicked: bool = column("whether it was clicked")
    clicked_at: Instant = column("instant of the click", nullable=True)
    is_converted: bool = column("conversion as the log itself claims it", nullable=True)
    converted_at: Instant = column("instant of that conversion", nullable=True)
    conversion_value: Money = column("value of that conversion", nullable=True)
    is_holdout: bool = column("whether the user was held out", nullable=True)
    context: str = column("further columns, JSON", nullable=True)
    raw_row_id: str = column("the raw row")


@table(group="cleaning", key=("landed_date", "conversion_id"), partition="landed_date")
class AttributedConversions(pa.DataFrameModel):
    """One row per conversion credited to an impression, or taken back by a refund."""

    landed_date: Day = column("day the conversion (or its refund) became known")
    conversion_id: str = column("order, event or impression it stands for, with a suffix for a refund")
    impression_id: str = column("impression credited")
    converted_at: Instant = column("instant of the conversion or refund, UTC")
    order_id: str = column("order", nullable=True)
    conversion_value: Money = column("value; negative where refunded")
    attribution_rule: str = column("how it was credited", isin=["reported", "impression_log", "last_click"])
    is_refunded: bool = column("whether this row takes a conversion back")


@table(group="cleaning", key=("landed_date", "source", "raw_row_id"), partition="landed_date", measured=("source_row",))
class RejectedRows(pa.DataFrameModel):
    """One row per refused row of any input, with the reason."""

    landed_date: Day = column("day the row landed")
    source: str = column("input table", isin=list(INPUTS))
    raw_row_id: str = column("the raw row")
    source_file: str = column("file")
    source_row: int = column("line or row within the file")
    reason: str = column("what is wrong, with the column and value")
    row: str = column("the mapped row as JSON")
