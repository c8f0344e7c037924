"""Tables of lists: for users and for item pages."""

import pandera.ibis as pa

from marketing_assets.schemas.table import Day, column, table


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
    """One row per item and rank of what its page may show; one row without item for an empty list."""

    as_of_date: Day = column("knowledge through the end of this day")
    item_id: str = column("item whose page it is")
    rank: int = column("place in the list, from 1", ge=1)
    recommended_item_id: str = column("item for its page; null for an empty list", nullable=True)
    score: float = column("strength, larger is better", nullable=True)
    issued_date: Day = column("day the list was computed")
    reason: str = column("why, in words; null in rows older than this column", nullable=True)
