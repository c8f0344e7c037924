"""Tables of features: the catalogue, sessions, days of items, and what is known of users and items."""

import pandera.ibis as pa

from marketing_assets.schemas.table import Day, Instant, Money, column, table


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
    stock_on_hand: int = column("units in stock, in all places", nullable=True)
    stock_on_order: int = column("units ordered, not yet arrived", nullable=True)
    lead_time_days: int = column("days from order to arrival", nullable=True, ge=0)
    pack_size: int = column("units per pack", nullable=True, ge=1)
    minimum_order_quantity: int = column("smallest order, units", nullable=True, ge=0)
    has_list_price: bool = column("whether unit_price is the catalogue's, not a price paid")
    first_seen_date: Day = column("first day the item was known")
    is_service: bool = column("a fee or postage, not an item")
    stock_by_location: str = column("JSON list of location_id, stock_on_hand, stock_on_order; null or [] where not told by place", nullable=True)


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
