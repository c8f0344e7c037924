"""The columns of every input, and the raw tables that hold them as text."""

from dataclasses import dataclass, field
from typing import Any, Literal

import ibis.expr.datatypes as dt
import pandera.ibis as pa

from marketing_assets.schemas.table import Day, column, table

InputType = Literal["text", "instant", "day", "money", "integer", "real", "boolean", "numbers"]
TYPES: dict[str, dt.DataType] = {
    "text": dt.String(),
    "instant": dt.Timestamp(scale=6),
    "day": dt.Date(),
    "money": dt.Decimal(18, 4),
    "integer": dt.Int64(),
    "real": dt.Float64(),
    "boolean": dt.Boolean(),
    "numbers": dt.String(),
}
FURTHER, OWN_NAME = "further", "[a-z][a-z0-9_]{0,59}"
"""Where an input has this column (numbers by name, a JSON object), a shop may map columns of its own beside the contract's; they are kept in it."""


RANGE_DAYS = 400
"""A row whose end_date lies further from its date holds until further notice: until one like it begins later."""


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


def column_of(source: str, name: str) -> str | None:
    """The input's column that holds what a shop maps under this name; None where it has no place for it."""
    columns = INPUTS[source].columns
    return name if name in columns else FURTHER if FURTHER in columns else None


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
            "items", "One row per item as the catalogue has it, or per item and place with the stock there.",
            _columns(
                "item_id:text title:text category:text brand:text unit_price:money unit_cost:money stock_on_hand:integer "
                "stock_on_order:integer lead_time_days:integer pack_size:integer minimum_order_quantity:integer location_id:text"
            ),
            ("item_id",), key=("item_id", "location_id"),
        ),
        Input(
            "item_drivers", "One row per item and day, or range of days, of what is known of it in advance: price, promotion, availability.",
            _columns(
                "item_id:text date:day known_at:instant location_id:text unit_price:money is_promotion:boolean "
                "is_available:boolean planned_ad_spend:money end_date:day"
            ),
            ("item_id", "date", "known_at"), landed_by="known_at", key=("item_id", "date", "location_id"),
        ),
        Input(
            "market_days", "One row per calendar day, or range of days, of what is known of it in advance.",
            _columns(f"date:day known_at:instant is_holiday:boolean is_promotion:boolean {FURTHER}:numbers end_date:day"),
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
