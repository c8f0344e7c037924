"""Tables of profiles: who users are, what to expect of them, and audiences."""

import pandera.ibis as pa

from marketing_assets.schemas.table import Day, Money, column, share, table


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
