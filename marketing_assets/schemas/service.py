"""Tables of service, the daily report and the model registry."""

import pandera.ibis as pa

from marketing_assets.schemas.table import Day, column, share, table

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
