"""Tables of advertising: response rates and everything of the plan."""

import pandera.ibis as pa

from marketing_assets.schemas.table import Day, column, share, table


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
    relaxation_needed: float = column("how far it had to be relaxed for a plan to exist, or the target was not sought for what it costs", ge=0)
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
