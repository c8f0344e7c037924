"""Tables of evaluation and drift."""

import pandera.ibis as pa

from marketing_assets.schemas.table import Day, column, share, table


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
