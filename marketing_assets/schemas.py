"""One pandera model per table, and the columns of every input.

What belongs here: names, types, limits and meaning of columns, and what makes a table's rows distinct. What does not:
how rows come about (the concept modules) or reach disk (warehouse.py). A model's docstring says "One row per ...".
Instants are UTC, money is DECIMAL(18, 4) in the shop's currency, rates are fractions 0..1.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import ibis.expr.datatypes as dt
import pandera.ibis as pa

from marketing_assets.config import CONTROL_INPUTS as CONTROL_INPUTS

Kind = Literal["day", "log", "issue"]

Day: TypeAlias = dt.Date
Instant = Annotated[dt.Timestamp, None, 6, True]
Money = Annotated[dt.Decimal, 18, 4, True]

Model = TypeVar("Model", bound=type[pa.DataFrameModel])


@dataclass(frozen=True)
class Table:
    """What the warehouse needs to know of a table.

    kind: 'day' (the partition holds that day's rows), 'log' (a change log: the newest entry of an entity replaces its
    earlier ones) or 'issue' (written on cadence days, in force until the next).
    key: columns that together name a row within the table; partition column included where rows repeat by day.
    entity: for logs, the columns that name what an entry is about; all rows of one entity and day are one entry.
    measured: columns left out of hashes and comparisons.
    """

    name: str
    kind: Kind
    partition_column: str
    key: tuple[str, ...]
    entity: tuple[str, ...]
    measured: tuple[str, ...]
    group: str
    model: type[pa.DataFrameModel]

    @property
    def one_row_per(self) -> str:
        return " ".join((self.model.__doc__ or "").split())

    @property
    def columns(self) -> dict[str, dt.DataType]:
        """Column name -> Ibis type, in the table's order."""
        return {name: column.dtype.type for name, column in self.model.to_schema().columns.items()}

    @property
    def descriptions(self) -> dict[str, str]:
        return {name: column.description or "" for name, column in self.model.to_schema().columns.items()}


TABLES: dict[str, Table] = {}


def table(
    *,
    group: str,
    key: tuple[str, ...],
    kind: Kind = "day",
    partition: str = "as_of_date",
    entity: tuple[str, ...] = (),
    measured: tuple[str, ...] = (),
) -> Callable[[Model], Model]:
    """Register a model under its snake_case name."""

    def register(model: Model) -> Model:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", model.__name__).lower()
        TABLES[name] = Table(name, kind, partition, key, entity, measured, group, model)
        return model

    return register


def column(description: str, *, nullable: bool = False, **checks: Any) -> Any:
    return pa.Field(description=description, nullable=nullable, **checks)


def share(description: str, *, nullable: bool = False) -> Any:
    return column(description, nullable=nullable, ge=0, le=1)


# --- inputs -----------------------------------------------------------------------------------------------------------

InputType = Literal["text", "instant", "day", "money", "integer", "real", "boolean"]
TYPES: dict[str, dt.DataType] = {
    "text": dt.String(),
    "instant": dt.Timestamp(scale=6),
    "day": dt.Date(),
    "money": dt.Decimal(18, 4),
    "integer": dt.Int64(),
    "real": dt.Float64(),
    "boolean": dt.Boolean(),
}


@dataclass(frozen=True)
class Input:
    """An input table: its columns, which of them a row must have, and which column dates a row's landing.

    key: for keyed inputs, the columns of which the newest non-null value per key counts; () where every row counts.
    """

    name: str
    doc: str
    columns: dict[str, InputType]
    required: tuple[str, ...]
    landed_by: str | None = None
    key: tuple[str, ...] = ()
    one_of: tuple[str, ...] = field(default=())


def _columns(text: str) -> dict[str, InputType]:
    """'a:text b:money' -> {'a': 'text', 'b': 'money'}"""
    pairs = (part.split(":") for part in text.split())
    return {name: kind for name, kind in pairs}  # type: ignore[misc]


INPUTS: dict[str, Input] = {
    source.name: source
    for source in (
        Input(
            "events", "One row per thing a user did: viewed, searched, put in the cart, bought, returned, reviewed.",
            _columns(
                "event_at:instant user_id:text event_type:text item_id:text event_id:text session_id:text order_id:text "
                "quantity:integer unit_price:money discount:money rating:real review_text:text dwell_seconds:real "
                "search_query:text device:text channel:text location_id:text refunds_event_id:text"
            ),
            ("event_at", "user_id", "event_type", "item_id"), landed_by="event_at",
        ),
        Input(
            "impressions", "One row per ad or slot shown.",
            _columns(
                "shown_at:instant placement_id:text item_id:text creative_id:text is_clicked:boolean impression_id:text "
                "opportunity_id:text user_id:text audience_id:text campaign_id:text plan_id:text position:integer "
                "policy_id:text logging_propensity:real spend:money clicked_at:instant is_converted:boolean "
                "converted_at:instant conversion_value:money is_holdout:boolean context:text"
            ),
            ("shown_at", "placement_id", "is_clicked"), landed_by="shown_at", one_of=("item_id", "creative_id"),
        ),
        Input(
            "conversions", "One row per conversion an ad platform or the shop reports.",
            _columns("converted_at:instant impression_id:text user_id:text order_id:text conversion_value:money"),
            ("converted_at",), landed_by="converted_at", one_of=("impression_id", "user_id"),
        ),
        Input(
            "ad_reports", "One row per campaign and day, finer where the platform gives it.",
            _columns(
                "date:day campaign_id:text impressions:integer clicks:integer spend:money creative_id:text "
                "placement_id:text hour:integer audience_id:text conversions:integer conversion_value:money"
            ),
            ("date", "campaign_id", "impressions", "clicks", "spend"), landed_by="date",
        ),
        Input(
            "items", "One row per item as the catalogue has it.",
            _columns(
                "item_id:text title:text category:text brand:text unit_price:money unit_cost:money stock_on_hand:integer "
                "stock_on_order:integer lead_time_days:integer pack_size:integer minimum_order_quantity:integer"
            ),
            ("item_id",), key=("item_id",),
        ),
        Input(
            "item_drivers", "One row per item and day of what is known of it in advance: price, promotion, availability.",
            _columns(
                "item_id:text date:day known_at:instant location_id:text unit_price:money is_promotion:boolean "
                "is_available:boolean planned_ad_spend:money"
            ),
            ("item_id", "date", "known_at"), landed_by="known_at", key=("item_id", "date", "location_id"),
        ),
        Input(
            "market_days", "One row per calendar day of what is known of it in advance.",
            _columns("date:day known_at:instant is_holiday:boolean is_promotion:boolean"),
            ("date",), landed_by="known_at", key=("date",),
        ),
        Input(
            "campaigns", "One row per campaign.",
            _columns("campaign_id:text start_date:day end_date:day budget:money budget_period:text objective:text"),
            ("campaign_id",), key=("campaign_id",),
        ),
        Input(
            "creatives", "One row per creative.",
            _columns("creative_id:text campaign_id:text item_id:text start_date:day end_date:day"),
            ("creative_id", "campaign_id"), key=("creative_id",),
        ),
        Input(
            "placements", "One row per placement, by hour where capacity or price differ.",
            _columns("placement_id:text hour:integer capacity:integer pricing:text price:money valid_from:day"),
            ("placement_id",), key=("placement_id", "hour", "valid_from"),
        ),
        Input("identities", "One row per identity known to be another's person.",
              _columns("from_user_id:text user_id:text"), ("from_user_id", "user_id"), key=("from_user_id",)),
        Input("contacts", "One row per user with contact data.",
              _columns("user_id:text email:text phone:text country:text has_marketing_consent:boolean"),
              ("user_id",), key=("user_id",)),
        Input("erasures", "One row per request to be forgotten.",
              _columns("user_id:text requested_at:instant"), ("user_id",), landed_by="requested_at"),
        Input("surveys", "One row per answered survey.",
              _columns("answered_at:instant user_id:text score:real"), ("answered_at",), landed_by="answered_at"),
        Input(
            "refit_requests", "One row per request to refit, stop or resume learning, or roll back (control/refit_requests).",
            _columns(
                "requested_for_date:day asset:text action:text model_version:text verdict_id:text reason:text requested_at:instant"
            ),
            ("requested_for_date", "asset", "action"), landed_by="requested_for_date",
        ),
        Input(
            "plan_overrides", "One row per hand-set limit on plan cells (control/plan_overrides).",
            _columns(
                "audience_id:text campaign_id:text creative_id:text placement_id:text hour:integer minimum:real maximum:real "
                "is_excluded:boolean author:text reason:text valid_from:day valid_to:day"
            ),
            ("author", "reason", "valid_from"), landed_by="valid_from",
        ),
    )
}
EVENT_TYPES = ("view_item", "search", "add_to_wishlist", "add_to_cart", "begin_checkout", "purchase", "refund", "review")


def _raw_model(source: Input) -> type[pa.DataFrameModel]:
    """Raw tables hold the mapped columns as text, so that a value that is refused can still be read."""
    fields: dict[str, Any] = {
        "landed_date": column("day the row became known"),
        "raw_row_id": column("hash of input, landed day, full source row and a running number among identical rows"),
        "source_file": column("file, relative to data_root"),
        "source_row": column("line or row within the file, from 1", ge=0),
        "row_hash": column("hash of the full source row, where it stands in for a missing id", nullable=True),
        "source_error": column("why the file's row could not be read", nullable=True),
    }
    annotations: dict[str, Any] = {
        "landed_date": Day, "raw_row_id": str, "source_file": str, "source_row": int, "row_hash": str, "source_error": str
    }
    for name in source.columns:
        fields[name] = column("as mapped from the source, text", nullable=True)
        annotations[name] = str
    name = "Raw" + "".join(part.title() for part in source.name.split("_"))
    doc = f"One row per landed row of {source.name}, exactly as mapped."
    return type(name, (pa.DataFrameModel,), {**fields, "__annotations__": annotations, "__doc__": doc, "__module__": __name__})


for _source in INPUTS.values():
    table(group="sources", key=("landed_date", "raw_row_id"), partition="landed_date", measured=("source_row",))(_raw_model(_source))


# --- clean ------------------------------------------------------------------------------------------------------------


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


# --- features ---------------------------------------------------------------------------------------------------------


@table(group="features", kind="log", key=("as_of_date", "item_id"), entity=("item_id",))
class Items(pa.DataFrameModel):
    """One row per item that was new or changed that day."""

    as_of_date: Day = column("knowledge through the end of this day")
    item_id: str = column("item")
    title: str = column("name", nullable=True)
    category: str = column("category", nullable=True)
    brand: str = column("brand", nullable=True)
    unit_price: Money = column("list price, else the newest price paid", nullable=True, ge=0)
    unit_cost: Money = column("purchase cost per unit", nullable=True, ge=0)
    stock_on_hand: int = column("units in stock", nullable=True)
    stock_on_order: int = column("units ordered, not yet arrived", nullable=True)
    lead_time_days: int = column("days from order to arrival", nullable=True, ge=0)
    pack_size: int = column("units per pack", nullable=True, ge=1)
    minimum_order_quantity: int = column("smallest order, units", nullable=True, ge=0)
    has_list_price: bool = column("whether unit_price is the catalogue's, not a price paid")
    first_seen_date: Day = column("first day the item was known")
    is_service: bool = column("a fee or postage, not an item")


@table(group="features", kind="log", key=("as_of_date", "session_id"), entity=("session_id",))
class Sessions(pa.DataFrameModel):
    """One row per session that had an event landing that day, with its totals so far."""

    as_of_date: Day = column("knowledge through the end of this day")
    session_id: str = column("session")
    user_id: str = column("the person", nullable=True)
    started_at: Instant = column("first event, UTC")
    ended_at: Instant = column("last event so far, UTC")
    events: int = column("events", ge=1)
    views: int = column("item views", ge=0)
    searches: int = column("searches", ge=0)
    wishlists: int = column("wishlist additions", ge=0)
    carts: int = column("cart additions", ge=0)
    checkouts: int = column("checkouts begun", ge=0)
    purchases: int = column("purchase rows", ge=0)
    refunds: int = column("refund rows", ge=0)
    reviews: int = column("reviews", ge=0)
    revenue: Money = column("revenue, refunds taken off")
    device: str = column("device of the first event", nullable=True)
    channel: str = column("channel of the first event", nullable=True)
    is_bot: bool = column("any event flagged as a program's")
    is_new: bool = column("whether this is the session's first entry")


@table(group="features", key=("landed_date", "event_date", "item_id", "location_id"), partition="landed_date")
class ItemDays(pa.DataFrameModel):
    """One row per item, event day and location of what landed that day: increments to add up."""

    landed_date: Day = column("day the increments became known")
    event_date: Day = column("shop-local day they belong to")
    item_id: str = column("item")
    location_id: str = column("store or region", nullable=True)
    units_sold: int = column("units", ge=0)
    units_returned: int = column("units", ge=0)
    orders: int = column("purchase rows", ge=0)
    revenue: Money = column("revenue, refunds taken off")
    gross_revenue: Money = column("revenue before refunds", ge=0)
    views: int = column("views by people", ge=0)
    carts: int = column("cart additions by people", ge=0)
    reviews: int = column("reviews by people", ge=0)
    ratings: int = column("ratings by people", ge=0)
    rating_total: float = column("sum of those ratings")
    unit_price: Money = column("newest price: of item_drivers, else the mean paid", nullable=True, ge=0)
    is_available: bool = column("could be bought, where known", nullable=True)
    is_promotion: bool = column("on promotion, where known", nullable=True)


@table(group="features", kind="log", key=("as_of_date", "user_id"), entity=("user_id",))
class UserFeatures(pa.DataFrameModel):
    """One row per user seen that day (everyone of the last 400 days on re-issue days), with totals so far."""

    as_of_date: Day = column("knowledge through the end of this day")
    user_id: str = column("the person")
    issued_date: Day = column("day the totals were last brought up to date")
    first_seen_date: Day = column("first event day")
    last_seen_date: Day = column("last event day")
    first_order_date: Day = column("first day with a purchase", nullable=True)
    last_order_date: Day = column("last day with a purchase", nullable=True)
    recency_days: int = column("days since last order", nullable=True, ge=0)
    active_days: int = column("landed days with an event", ge=0)
    order_days: int = column("landed days with a purchase", ge=0)
    orders: int = column("orders", ge=0)
    units: int = column("units bought", ge=0)
    revenue: Money = column("spend, refunds taken off")
    gross_revenue: Money = column("spend before refunds", ge=0)
    refunds: int = column("refund rows", ge=0)
    sessions: int = column("sessions begun", ge=0)
    events: int = column("events", ge=0)
    views: int = column("item views", ge=0)
    searches: int = column("searches", ge=0)
    wishlists: int = column("wishlist additions", ge=0)
    carts: int = column("cart additions", ge=0)
    reviews: int = column("reviews", ge=0)
    ratings: int = column("ratings given", ge=0)
    mean_rating: float = column("mean of ratings given", nullable=True)
    browse_seconds: float = column("dwell time in all, seconds", ge=0)
    purchase_frequency: float = column("orders per 30 days since first seen", ge=0)
    mean_days_between_orders: float = column("days from first to last order / (order days - 1)", nullable=True, ge=0)
    orders_decayed_7: float = column("orders, halved every 7 days", ge=0)
    orders_decayed_30: float = column("orders, halved every 30 days", ge=0)
    orders_decayed_90: float = column("orders, halved every 90 days", ge=0)
    revenue_decayed_30: float = column("gross spend, halved every 30 days", ge=0)
    revenue_decayed_90: float = column("gross spend, halved every 90 days", ge=0)
    views_decayed_7: float = column("views, halved every 7 days", ge=0)
    views_decayed_30: float = column("views, halved every 30 days", ge=0)
    carts_decayed_7: float = column("cart additions, halved every 7 days", ge=0)
    carts_decayed_30: float = column("cart additions, halved every 30 days", ge=0)


@table(group="features", kind="log", key=("as_of_date", "user_id", "preference_type", "preference_value"), entity=("user_id",))
class UserPreferences(pa.DataFrameModel):
    """One row per user, kind and value of what the user leans to, for users with an entry that day."""

    as_of_date: Day = column("knowledge through the end of this day")
    user_id: str = column("the person")
    preference_type: str = column("category, price_band, channel, device or hour_block; null for an empty set", nullable=True)
    preference_value: str = column("the value", nullable=True)
    weight: float = column("events, purchases counting 5 and carts 3, halved every 90 days", ge=0)
    share: float = column("weight over all of the user's weights of that kind", ge=0, le=1)


@table(group="features", kind="log", key=("as_of_date", "item_id"), entity=("item_id",))
class ItemFeatures(pa.DataFrameModel):
    """One row per item seen that day (everything of the last 400 days on re-issue days), with totals so far."""

    as_of_date: Day = column("knowledge through the end of this day")
    item_id: str = column("item")
    issued_date: Day = column("day the totals were last brought up to date")
    first_seen_date: Day = column("first event day")
    last_seen_date: Day = column("last event day")
    last_sold_date: Day = column("last day with a sale", nullable=True)
    selling_days: int = column("landed days with a sale", ge=0)
    units_sold: int = column("units", ge=0)
    units_returned: int = column("units", ge=0)
    orders: int = column("purchase rows", ge=0)
    revenue: Money = column("revenue, refunds taken off")
    gross_revenue: Money = column("revenue before refunds", ge=0)
    views: int = column("views by people", ge=0)
    carts: int = column("cart additions by people", ge=0)
    reviews: int = column("reviews", ge=0)
    ratings: int = column("ratings", ge=0)
    mean_rating: float = column("mean rating", nullable=True)
    mean_unit_price: float = column("revenue before refunds / units", nullable=True, ge=0)
    units_decayed_7: float = column("units, halved every 7 days", ge=0)
    units_decayed_30: float = column("units, halved every 30 days", ge=0)
    units_decayed_90: float = column("units, halved every 90 days", ge=0)
    views_decayed_7: float = column("views, halved every 7 days", ge=0)
    views_decayed_30: float = column("views, halved every 30 days", ge=0)


# --- profiles ---------------------------------------------------------------------------------------------------------


@table(group="profiles", kind="log", key=("as_of_date", "user_id"), entity=("user_id",))
class UserProfiles(pa.DataFrameModel):
    """One row per user with a new feature entry that day: who they are and what to expect of them."""

    as_of_date: Day = column("knowledge through the end of this day")
    user_id: str = column("the person")
    issued_date: Day = column("day the scores were computed")
    recency_days: int = column("days since last order", nullable=True, ge=0)
    frequency: int = column("orders", ge=0)
    monetary: Money = column("spend, refunds taken off")
    segment: str = column("RFM segment")
    purchase_propensity: float = share("P(order within the horizon), calibrated")
    churn_probability: float = share("P(no order within the churn horizon)")
    clv_90d: float = column("expected margin (revenue without costs) of the next 90 days")
    clv_90d_low: float = column("lower end of its interval")
    clv_90d_median: float = column("half of like users bring in less: the value with the least absolute error")
    clv_90d_high: float = column("upper end of its interval")
    profile_score: float = column("U = sum of w_i x_i, weights in profile_weights")
    top_reasons: str = column("largest contributions to the score, in words")
    preferred_category: str = column("category leaned to most", nullable=True)
    preferred_price_band: str = column("price band leaned to most", nullable=True)
    preferred_channel: str = column("channel leaned to most", nullable=True)
    preferred_hour_block: str = column("part of day leaned to most", nullable=True)
    model_version: str = column("version of the propensity model used")


@table(group="profiles", key=("as_of_date", "feature"))
class ProfileWeights(pa.DataFrameModel):
    """One row per feature of the profile score in force that day."""

    as_of_date: Day = column("knowledge through the end of this day")
    feature: str = column("feature; 'intercept' for w_0")
    weight: float = column("weight w_i on the standardised feature")
    mean: float = column("mean taken off the feature before weighting")
    scale: float = column("what the feature is divided by before weighting", gt=0)
    model_version: str = column("fit the weights come from")


@table(group="profiles", kind="log", key=("as_of_date", "user_id", "audience_id"), entity=("user_id",))
class Audiences(pa.DataFrameModel):
    """One row per user and audience the user belongs to; one row with no audience for a user in none."""

    as_of_date: Day = column("knowledge through the end of this day")
    user_id: str = column("the person")
    audience_id: str = column("audience; null for a user in none", nullable=True)
    priority: int = column("the smallest counts in the plan", nullable=True)
    is_holdout: bool = column("random by salted hash, never targeted")
    issued_date: Day = column("day the membership was computed")


# --- recommendations --------------------------------------------------------------------------------------------------


@table(group="recommendations", kind="log", key=("as_of_date", "user_id", "rank"), entity=("user_id",))
class Recommendations(pa.DataFrameModel):
    """One row per user and rank; one row without item for a user with an empty list."""

    as_of_date: Day = column("knowledge through the end of this day")
    user_id: str = column("the person; 'unknown' for anyone we cannot recognise")
    rank: int = column("place in the list, from 1", ge=1)
    item_id: str = column("item; null for an empty list", nullable=True)
    score: float = column("ranking score, larger is better", nullable=True)
    reason: str = column("why, in words")
    policy_id: str = column("policy that made the list")
    is_holdout: bool = column("held out: gets the popularity list")
    logging_propensity: float = column("P(this item at this rank) under the policy", gt=0, le=1)
    issued_date: Day = column("day the list was computed")


@table(group="recommendations", kind="log", key=("as_of_date", "item_id", "rank"), entity=("item_id",))
class ItemRecommendations(pa.DataFrameModel):
    """One row per item and rank of what goes with it; one row without item for an empty list."""

    as_of_date: Day = column("knowledge through the end of this day")
    item_id: str = column("item whose page it is")
    rank: int = column("place in the list, from 1", ge=1)
    recommended_item_id: str = column("item that goes with it; null for an empty list", nullable=True)
    score: float = column("strength, larger is better", nullable=True)
    issued_date: Day = column("day the list was computed")


# --- demand -----------------------------------------------------------------------------------------------------------

M5_QUANTILES = (0.005, 0.025, 0.165, 0.25, 0.5, 0.75, 0.835, 0.975, 0.995)
QUANTILE_COLUMNS = {
    0.005: "demand_q005", 0.025: "demand_q025", 0.05: "demand_p05", 0.1: "demand_p10", 0.165: "demand_q165",
    0.25: "demand_q250", 0.5: "demand_q500", 0.75: "demand_q750", 0.835: "demand_q835", 0.9: "demand_p90",
    0.95: "demand_p95", 0.975: "demand_q975", 0.995: "demand_q995",
}


@table(group="demand", kind="issue", key=("as_of_date", "level", "series_id", "date"))
class DemandForecasts(pa.DataFrameModel):
    """One row per series and future day, written on issue days."""

    as_of_date: Day = column("knowledge through the end of this day")
    level: str = column("item, category or shop", isin=["item", "category", "shop"])
    series_id: str = column("item (and location), category, or 'shop'")
    item_id: str = column("item, on level item", nullable=True)
    location_id: str = column("store or region, where the data has one", nullable=True)
    date: Day = column("day forecast")
    horizon_days: int = column("days after as_of_date", ge=1)
    demand_mean: float = column("expected units", ge=0)
    demand_q005: float = column("0.5 % quantile, units", ge=0)
    demand_q025: float = column("2.5 % quantile", ge=0)
    demand_p05: float = column("5 % quantile", ge=0)
    demand_p10: float = column("10 % quantile", ge=0)
    demand_q165: float = column("16.5 % quantile", ge=0)
    demand_q250: float = column("25 % quantile", ge=0)
    demand_q500: float = column("median", ge=0)
    demand_q750: float = column("75 % quantile", ge=0)
    demand_q835: float = column("83.5 % quantile", ge=0)
    demand_p90: float = column("90 % quantile", ge=0)
    demand_p95: float = column("95 % quantile", ge=0)
    demand_q975: float = column("97.5 % quantile", ge=0)
    demand_q995: float = column("99.5 % quantile", ge=0)
    model: str = column("forecaster that won its group's competition")


@table(group="demand", key=("as_of_date", "item_id", "location_id"))
class InventoryPlan(pa.DataFrameModel):
    """One row per item (and location) with a stock record, a forecast or both."""

    as_of_date: Day = column("knowledge through the end of this day")
    item_id: str = column("item")
    location_id: str = column("store or region", nullable=True)
    stock_on_hand: int = column("units in stock, where known", nullable=True)
    stock_on_order: int = column("units on order, where known", nullable=True)
    lead_time_days: int = column("days from order to arrival", ge=0)
    safety_stock: float = column("units above the mean of lead-time demand")
    reorder_point: float = column("quantile of demand over lead time and review, units", ge=0)
    order_quantity: int = column("units to order now", ge=0)
    order_cost: Money = column("order_quantity x unit_cost, where known", nullable=True)
    sellable_units: int = column("units that may be promised tomorrow; null where stock is unknown", nullable=True)
    days_of_cover: float = column("days the stock lasts at expected demand", nullable=True, ge=0)
    stockout_probability: float = column("P(demand over the lead time exceeds stock)", nullable=True, ge=0, le=1)


# --- ads --------------------------------------------------------------------------------------------------------------


@table(group="response", key=("as_of_date", "audience_id", "creative_id", "placement_id", "hour"))
class ResponseRates(pa.DataFrameModel):
    """One row per plan cell: audience x creative x placement x hour."""

    as_of_date: Day = column("knowledge through the end of this day")
    audience_id: str = column("audience; 'unknown' without a user")
    creative_id: str = column("creative")
    placement_id: str = column("placement")
    hour: int = column("shop-local hour", ge=0, le=23)
    campaign_id: str = column("campaign", nullable=True)
    item_id: str = column("item advertised", nullable=True)
    ctr: float = share("P(click)")
    cvr: float = share("P(conversion given click)")
    ctr_low: float = share("lower end of its interval")
    ctr_high: float = share("upper end of its interval")
    cvr_low: float = share("lower end of its interval")
    cvr_high: float = share("upper end of its interval")
    available_impressions: float = column("impressions expected to be on offer tomorrow to this audience there", ge=0)
    cost_per_impression: float = column("expected cost", ge=0)
    value_per_conversion: float = column("expected value, of the kind store.yaml names")
    evidence: str = column("what the rates rest on", isin=["ad_log", "ad_reports", "prior"])


@table(group="response", key=("as_of_date", "segment_type", "segment"))
class ResponseCalibration(pa.DataFrameModel):
    """One row per placement, block of hours and in all: what the day brought against the rates issued the day before."""

    as_of_date: Day = column("day scored, and knowledge through its end")
    segment_type: str = column("all, placement or hour_block", isin=["all", "placement", "hour_block"])
    segment: str = column("value of the segment; 'all'")
    impressions: int = column("impressions shown and landed that day in cells with a rate", ge=0)
    clicks: int = column("their clicks", ge=0)
    predicted_clicks: float = column("impressions x ctr", ge=0)
    log_loss: float = column("total log-loss of the click probabilities", ge=0)
    conversions: int = column("conversions credited that day", ge=0)
    predicted_conversions: float = column("the day's clicks x cvr: what they should bring sooner or later", ge=0)


@table(group="planning", key=("as_of_date", "plan_id", "audience_id", "creative_id", "placement_id", "hour"))
class AdPlan(pa.DataFrameModel):
    """One row per plan cell used tomorrow."""

    as_of_date: Day = column("knowledge through the end of this day")
    plan_date: Day = column("day the plan is for")
    plan_id: str = column("plan")
    audience_id: str = column("audience")
    campaign_id: str = column("campaign", nullable=True)
    creative_id: str = column("creative")
    item_id: str = column("item advertised", nullable=True)
    placement_id: str = column("placement")
    hour: int = column("shop-local hour", ge=0, le=23)
    planned_impressions: float = column("impressions to buy", gt=0)
    planned_spend: float = column("their expected cost", ge=0)
    expected_clicks: float = column("impressions x ctr", ge=0)
    expected_conversions: float = column("impressions x ctr x cvr", ge=0)
    expected_revenue: float = column("conversions x value")
    logging_propensity: float = column("P(creative given audience, placement, hour)", gt=0, le=1)
    is_exploration: bool = column("bought to learn")


@table(group="planning", key=("as_of_date", "plan_id", "constraint_name"))
class AdPlanConstraints(pa.DataFrameModel):
    """One row per limit of a plan."""

    as_of_date: Day = column("knowledge through the end of this day")
    plan_id: str = column("plan")
    constraint_name: str = column("limit")
    limit_value: float = column("the limit")
    used_value: float = column("how much of it the plan uses")
    shadow_price: float = column("change of the objective per extra unit of the limit")
    is_binding: bool = column("whether it holds the plan back")
    relaxation_needed: float = column("how far it had to be relaxed for a plan to exist", ge=0)
    relaxation_alone: float = column("how far it would have to be relaxed if nothing else were; null where not asked or no help", nullable=True, ge=0)
    unit: str = column("unit of the limit", isin=["money", "impressions", "conversions"])
    is_relaxable: bool = column("whether it may give way where no plan exists")


@table(group="planning", key=("as_of_date", "plan_id", "budget"))
class AdPlanScenarios(pa.DataFrameModel):
    """One row per budget level."""

    as_of_date: Day = column("knowledge through the end of this day")
    plan_id: str = column("plan")
    budget: float = column("daily budget tried", ge=0)
    expected_conversions: float = column("conversions of the best plan under it", ge=0)
    expected_revenue: float = column("revenue of that plan")
    marginal_revenue: float = column("revenue per extra unit of budget there")
    is_current: bool = column("the budget in force")


@table(group="planning", key=("as_of_date", "plan_id"), measured=("seconds",))
class AdPlanRuns(pa.DataFrameModel):
    """One row per solve."""

    as_of_date: Day = column("knowledge through the end of this day")
    plan_id: str = column("plan")
    status: str = column("optimal, relaxed, no_inputs or refused")
    objective: float = column("value reached", nullable=True)
    upper_bound: float = column("value no plan can exceed", nullable=True)
    gap: float = column("(upper_bound - objective) / |upper_bound|", nullable=True)
    solver: str = column("solver that ran")
    seconds: float = column("time it took", ge=0)
    probability_of_target: float = column("P(conversions >= target)", nullable=True, ge=0, le=1)
    is_relaxed: bool = column("whether a limit had to give way")
    note: str = column("what a person should know", nullable=True)


@table(group="planning", key=("as_of_date", "plan_id", "audience_id", "creative_id", "placement_id"))
class PlanDiff(pa.DataFrameModel):
    """One row per audience, creative and placement whose impressions changed since yesterday's plan."""

    as_of_date: Day = column("knowledge through the end of this day")
    plan_id: str = column("plan")
    audience_id: str = column("audience")
    creative_id: str = column("creative")
    placement_id: str = column("placement")
    impressions_change: float = column("planned impressions, more (+) or fewer (-) than yesterday")
    spend_change: float = column("planned spend, more (+) or less (-)")
    reason: str = column("what moved most", isin=["new", "gone", "value", "price", "supply", "competition"])
    input_change: float = column("relative change of the input that moved most", ge=0)


@table(group="planning", key=("as_of_date", "subject_type", "subject"))
class CampaignProposals(pa.DataFrameModel):
    """One row per category or item worth a campaign, with the audience it should address."""

    as_of_date: Day = column("knowledge through the end of this day")
    subject_type: str = column("category or item", isin=["category", "item"])
    subject: str = column("what the campaign is for")
    audience_id: str = column("audience to address")
    reach: float = column("users who may be addressed and can be", ge=0)
    participation: float = share("expected share of them who click at least once a day")
    expected_cost: float = column("cost of a day", ge=0)
    expected_conversions: float = column("conversions of a day", ge=0)
    expected_value: float = column("their value, of the kind store.yaml names")
    uplift: float = column("conversions per user reached above what the audience's average creative brings")


@table(group="planning", key=("as_of_date", "user_id", "creative_id", "placement_id"))
class UserAdPlan(pa.DataFrameModel):
    """One row per user, creative and owned placement planned user by user."""

    as_of_date: Day = column("knowledge through the end of this day")
    plan_date: Day = column("day the plan is for")
    plan_id: str = column("plan")
    user_id: str = column("the person")
    creative_id: str = column("creative")
    placement_id: str = column("placement")
    planned_impressions: float = column("impressions", gt=0, le=1)
    expected_conversions: float = column("impressions x ctr x cvr for this user", ge=0)
    expected_revenue: float = column("their value")


# --- evaluation and drift ---------------------------------------------------------------------------------------------


@table(
    group="evaluation",
    key=("as_of_date", "outcome_date", "issued_date", "horizon_days", "concept", "metric", "segment_type", "segment", "policy_id"),
)
class EvaluationReport(pa.DataFrameModel):
    """One row per outcome day, issue, metric and segment."""

    as_of_date: Day = column("knowledge through the end of this day")
    outcome_date: Day = column("last day of the window scored")
    issued_date: Day = column("day of issue of what is scored; the day before the window for plain outcomes")
    horizon_days: int = column("days of the window", ge=1)
    concept: str = column("shop, ads, recommendations, profiles, demand, plan, satisfaction")
    metric: str = column("metric, as in the contract")
    segment_type: str = column("all, audience, placement, category, device, level, ...")
    segment: str = column("value of the segment; 'all'")
    policy_id: str = column("policy scored; 'all' where it does not apply")
    value: float = column("value", nullable=True)
    numerator: float = column("its numerator", nullable=True)
    denominator: float = column("its denominator", nullable=True)
    baseline: str = column("what it is compared with", nullable=True)
    baseline_value: float = column("that value", nullable=True)
    ci_low: float = column("lower end of the interval", nullable=True)
    ci_high: float = column("upper end of the interval", nullable=True)
    n: int = column("independent units behind it (users, sessions, series)", ge=0)
    maturity: float = share("share of conversions expected to have arrived")
    is_mature: bool = column("whether it counts for drift")


@table(group="evaluation", key=("as_of_date", "experiment", "metric", "method"))
class ExperimentReport(pa.DataFrameModel):
    """One row per experiment, metric and method: treated users against those held out, so far in the period."""

    as_of_date: Day = column("knowledge through the end of this day")
    experiment: str = column("ads_holdout or recommendations_holdout")
    metric: str = column("conversion, orders or revenue per user")
    method: str = column("plain, or cuped: reduced by the weeks before", isin=["plain", "cuped"])
    start_date: Day = column("first day counted")
    end_date: Day = column("last day counted")
    treated_users: int = column("users treated", ge=0)
    control_users: int = column("users held out", ge=0)
    treated_mean: float = column("mean per treated user")
    control_mean: float = column("mean per user held out")
    uplift: float = column("difference of the means")
    uplift_low: float = column("lower end of its interval")
    uplift_high: float = column("upper end of its interval")
    lift: float = column("ratio of the means minus one", nullable=True)
    lift_low: float = column("lower end of its interval; null where unbounded", nullable=True)
    lift_high: float = column("upper end of its interval; null where unbounded", nullable=True)
    sequential_low: float = column("lower end of the interval of the uplift that holds at every look")
    sequential_high: float = column("upper end of it")
    variance_reduction: float = column("share of variance the weeks before explain", le=1)
    crossover_users: int = column("users seen in both arms, left out", ge=0)
    expected_control_share: float = share("share the design holds out")
    sample_ratio_p_value: float = share("how likely arms this uneven are by chance")
    is_sample_ratio_ok: bool = column("false: assignment or logging is broken, do not read the effect")
    minimum_detectable_uplift: float = column("smallest difference these users would show four times in five", ge=0)


@table(group="evaluation", key=("as_of_date", "policy_id", "outcome", "estimator"))
class OffPolicyReport(pa.DataFrameModel):
    """One row per plan, outcome and estimator: what the weeks logged would have brought under that plan."""

    as_of_date: Day = column("knowledge through the end of this day")
    policy_id: str = column("plan valued")
    outcome: str = column("clicks, conversions or revenue", isin=["clicks", "conversions", "revenue"])
    estimator: str = column("ips, snips, direct_method, doubly_robust, ...")
    start_date: Day = column("first day of the log used")
    end_date: Day = column("last day of the log used")
    value: float = column("expected outcome per impression of the plan", nullable=True)
    ci_low: float = column("lower end of the interval, clustered by user", nullable=True)
    ci_high: float = column("upper end of the interval", nullable=True)
    value_per_day: float = column("value times the plan's impressions", nullable=True)
    logged_value: float = column("what an impression of the log itself brought")
    n: int = column("impressions used", ge=0)
    users: int = column("users (or requests) they came from", ge=0)
    effective_sample_size: float = column("users the weighted log is worth", ge=0)
    mean_weight: float = column("mean importance weight; 1 where the log covers the plan", ge=0)
    max_weight: float = column("largest importance weight", ge=0)
    unsupported_share: float = share("share of the plan's impressions the log never tried")
    is_supported: bool = column("whether the log can speak for this plan")


@table(group="drift", key=("as_of_date", "metric"))
class DriftReport(pa.DataFrameModel):
    """One row per watched metric."""

    as_of_date: Day = column("knowledge through the end of this day")
    verdict_id: str = column("names the verdict this metric led to; null where quiet", nullable=True)
    metric: str = column("watched metric")
    value: float = column("newest value", nullable=True)
    reference_value: float = column("what it is compared with", nullable=True)
    threshold: float = column("distance that counts", nullable=True)
    since_date: Day = column("first day beyond the threshold", nullable=True)
    is_drifted: bool = column("verdict")
    cause: str = column("mix, data_quality, calibration, taste, price, stock, season", nullable=True)
    effect_value: float = column("what it costs a day, in money, where that can be said", nullable=True)
    action: str = column("what to do", nullable=True, isin=["refit", "stop_learning", "resume", "alert"])
    assets_to_refresh: str = column("smallest set to make again, comma-separated", nullable=True)


# --- service and report -----------------------------------------------------------------------------------------------

COMPLAINT_THEMES = ("delivery", "defect", "size", "price", "description", "other")


@table(group="service", key=("as_of_date", "ticket_id"))
class ServiceTickets(pa.DataFrameModel):
    """One row per complaint that became known that day, with what to do about it."""

    as_of_date: Day = column("day the review became known, and knowledge through its end")
    ticket_id: str = column("event_id of the review")
    event_date: Day = column("shop-local day it was written")
    user_id: str = column("who wrote it", nullable=True)
    item_id: str = column("item complained of", nullable=True)
    order_id: str = column("newest order of that person with that item, where there is one", nullable=True)
    order_date: Day = column("day of that order", nullable=True)
    rating: float = column("stars or points as given", nullable=True)
    complaint_probability: float = share("P(complaint) by its text alone; null without text or without a model", nullable=True)
    theme: str = column("what it is about", isin=list(COMPLAINT_THEMES))
    other_themes: str = column("further themes it touches, comma-separated", nullable=True)
    language: str = column("language of the text", isin=["en", "zh"])
    excerpt: str = column("first words of the review, personal data taken out", nullable=True)
    theme_7d: int = column("complaints of this theme known in the last 7 days", ge=0)
    theme_trend: float = column("theme_7d over a usual week of the 28 days before, one complaint added to both sides", ge=0)
    item_28d: int = column("complaints of this item known in the last 28 days", ge=0)
    priority: str = column("how soon to answer", isin=["urgent", "high", "normal", "low"])
    priority_score: float = column("what the priority rests on, larger is sooner", ge=0)
    reasons: str = column("what made up that score, in words")
    suggested_answer: str = column("answer from a template, to be read by a person before it is sent")


@table(group="report", key=("as_of_date", "figure"))
class DailyReport(pa.DataFrameModel):
    """One row per headline figure of the day's page."""

    as_of_date: Day = column("knowledge through the end of this day")
    figure: str = column("headline figure, such as revenue")
    figure_date: Day = column("day the figure speaks of: for late figures the newest that is mature, for plans the next day")
    value: float = column("value; null where nothing happened that could be counted", nullable=True)
    previous_value: float = column("the same figure as known a day before", nullable=True)
    baseline_value: float = column("what is usual: the same weekdays of the four weeks before", nullable=True)
    ci_low: float = column("lower end of the interval", nullable=True)
    ci_high: float = column("upper end of the interval", nullable=True)
    unit: str = column("how to read the value", isin=["money", "count", "rate", "ratio", "points"])
    maturity: float = share("share of what it counts expected to have arrived")


@table(group="registry", key=("as_of_date", "model_name", "model_version", "trigger"), measured=("seconds",))
class ModelRegistry(pa.DataFrameModel):
    """One row per model fitted, promoted or rolled back that day."""

    as_of_date: Day = column("day of the event")
    model_name: str = column("model")
    model_version: str = column("version")
    is_promoted: bool = column("whether scoring uses it from that day")
    promoted_as_of: Day = column("day from which it is used", nullable=True)
    fitted_as_of: Day = column("day through which it learnt")
    trigger: str = column("first, cadence, request or rollback", isin=["first", "cadence", "request", "rollback"])
    parameters: str = column("settings, JSON")
    features: str = column("features, JSON")
    metrics: str = column("held-back scores of challenger and champion, JSON")
    model_format: str = column("lightgbm, json or table", isin=["lightgbm", "json", "table"])
    model: str = column("the model as text")
    seconds: float = column("time the fit took", ge=0)
