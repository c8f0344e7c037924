"""Every tunable number and the shop's settings, as frozen pydantic models read from a store.yaml.

What belongs here: settings, their defaults, their limits and what they mean. What does not: anything that computes.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
PositiveInt = Annotated[int, Field(ge=1)]
Methods = Literal["plain", "learned"]

REPOSITORY_ROOT = Path(__file__).resolve().parent.parent
UNKNOWN_USER = "unknown"
"""The user_id that carries the list for users we cannot recognise."""

KEYFRAME_DAYS = 28
"""Every so many days a change log re-states everyone, so that readers look back no further."""
REISSUE_DAYS = 7
"""Every so many days a change log re-computes everyone seen within ACTIVE_DAYS."""
ACTIVE_DAYS = 400
"""Users and items not seen for longer than this leave the change logs."""
LATE_DAYS = 30
"""How many landed days back duplicates and open sessions are sought."""
GATE_DAYS = 14
"""Days of outcomes by which it is judged whether a plan may be issued."""
DELIVERY_DAYS = 14
"""Days of what plans got of what they asked for that supply is told by."""
PLAN_DAYS = 28
"""Days of own plans looked back at: one in force longer than this less DELIVERY_DAYS teaches nothing of supply."""
RANKED_WEEKS = 13
"""How many past weeks the ranking model of lists learns from."""
PAGES = 7
"""Pages of so many newest days are written by a run; older ones when somebody asks."""
PREVIEW_ROWS, PREVIEW_COLUMNS, PREVIEW_CHARACTERS = 5, 10, 40
"""What the UI shows of a partition, and of a value in it."""
PRIVATE_COLUMNS = frozenset({"email", "phone", "review_text", "row"})
"""Never shown there: previews stay in Dagster's history."""
MEND_ATTEMPTS = 3
"""A catch-up that failed is asked for so many times in all."""
CONTROL_INPUTS = ("refit_requests", "plan_overrides")
"""Inputs every shop has: files under control/ beside store.yaml, written by people and by the drift sensor."""


class StoreError(Exception):
    """A store.yaml that cannot be used. The message names file, key and what is allowed."""


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


DAY_PARTS = ("{yyyy}", "{mm}", "{dd}")
"""Where the name of a landing file writes its day otherwise than as {date}."""


def is_dated(pattern: str) -> bool:
    """Whether a pattern of files names the landing day."""
    return "{date}" in pattern or all(part in pattern for part in DAY_PARTS)


class FileLayout(Settings):
    """How landing files are named and written."""

    files: str | None = Field(
        None, description="pattern relative to data_root; {date} is the landing day, 2026-03-01, {yyyy}, {mm} and {dd} are its parts, as in 20260301"
    )
    format: Literal["csv", "parquet", "json"] = Field("csv", description="json means one object per line, or one array of objects")
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    encoding: Literal["utf-8", "latin-1", "utf-16"] = "utf-8"
    header: list[Annotated[str, Field(min_length=1)]] | None = Field(
        None, min_length=1, description="names of a csv file's columns, in order, where its first line is a row already"
    )
    skip_lines: Annotated[int, Field(ge=0, le=100)] = Field(0, description="lines of a csv file above its header, such as the title of a report")
    missing_file: Literal["empty", "error"] = "error"

    @model_validator(mode="after")
    def _readable(self) -> FileLayout:
        parts = [part for part in DAY_PARTS if self.files is not None and part in self.files]
        if parts and (len(parts) < len(DAY_PARTS) or "{date}" in str(self.files)):
            raise ValueError(f"'files' names its landing day either by {{date}} or by all of {', '.join(DAY_PARTS)}, not by {', '.join(parts)}")
        if self.skip_lines and self.format != "csv":
            raise ValueError(f"'skip_lines' is of csv files; a {self.format} file has no lines above its rows")
        if self.header is not None:
            if self.format != "csv":
                raise ValueError(f"'header' names the columns of csv files; a {self.format} file names its own")
            lowered = [name.lower() for name in self.header]
            if twice := [name for name in self.header if lowered.count(name.lower()) > 1]:
                raise ValueError(f"'header' names column {twice[0]!r} twice")
        return self

    @property
    def has_header_line(self) -> bool:
        """Whether the first line of a file says what its columns are called."""
        return self.format == "csv" and self.header is None

    @property
    def is_dated(self) -> bool:
        return self.files is not None and is_dated(self.files)


class JoinedFiles(FileLayout):
    """Files whose rows stand beside a block's, such as orders beside their lines. With landing days in their names, those of the same day."""

    files: str = Field(description="as of the block; with a landing day where the block's files have one, without where they have none")
    by: str = Field(description="SQL expression over the block's columns, and over files joined before, that says which row stands beside")
    key: str | None = Field(None, description="SQL expression over the joined files' own columns that is found by it; null: as 'by'")


class SourceBlock(FileLayout):
    """One set of landing files and how its columns become the contract's."""

    unroll: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="of json and parquet: a list in each row, such as line_items or order.lines; each of its elements is a row, source_element"
    )
    join: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], JoinedFiles] = Field(
        default_factory=dict, description="name -> files whose rows stand beside, their columns read as name.column, of json as name ->> '$.key'"
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="contract column -> SQL expression over the file's own columns; '*': '*' takes same-named ones"
    )
    where: str | None = Field(None, description="SQL condition over the file's own columns; other rows are of another table")
    rows: list[dict[str, Any]] | None = Field(None, description="a small table written inline instead of files")

    @model_validator(mode="after")
    def _files_or_rows(self) -> SourceBlock:
        if (self.files is None) == (self.rows is None):
            raise ValueError("give either 'files' or 'rows'")
        if self.files is not None and not self.columns:
            raise ValueError("'columns' must map at least one contract column")
        if self.unroll is not None and (self.files is None or self.format == "csv"):
            raise ValueError("'unroll' names a list in each row of json or parquet files")
        for name, joined in self.join.items():
            if self.files is None or joined.is_dated != self.is_dated:
                raise ValueError(f"'join.{name}.files' must name a landing day where 'files' does, and none where it does not")
        return self


class CleaningSettings(Settings):
    session_gap_minutes: PositiveInt = 30
    future_tolerance_days: Annotated[int, Field(ge=0)] = Field(1, description="events dated later than this after landing are refused")
    max_unit_price: Annotated[float, Field(gt=0)] = 1_000_000
    max_quantity: PositiveInt = 1_000_000
    max_text_length: PositiveInt = Field(10_000, description="longest accepted id; review text is cut to it")
    service_item_pattern: str | None = Field(None, description="regular expression of item_ids that are no items (postage, fees)")
    refund_match_days: PositiveInt = Field(365, description="how far back a refund looks for its purchase")
    bot_events_per_day: PositiveInt = Field(500, description="more browsing events than this in a day without a purchase: a bot")
    bot_events_per_minute: PositiveInt = Field(30, description="more events than this, purchases and refunds aside, within one minute: a bot")


class FeatureSettings(Settings):
    half_lives_days: tuple[int, ...] = (7, 30, 90)


AudienceRule = Literal["segment", "propensity_top", "clv_top", "churn_risk", "new_users", "look_alike", "everyone"]


class Audience(Settings):
    audience_id: str
    rule: AudienceRule
    priority: int = Field(description="a user in several audiences belongs to the smallest priority in the plan")
    segments: tuple[str, ...] = ()
    share: Share = Field(0.2, description="for *_top, churn_risk and look_alike: share of known users taken")
    seed_audience_id: str | None = Field(None, description="for look_alike: the audience to resemble")


DEFAULT_AUDIENCES = (
    Audience(audience_id="champions", rule="segment", priority=10, segments=("champions", "loyal")),
    Audience(audience_id="at_risk", rule="segment", priority=20, segments=("at_risk", "cannot_lose")),
    Audience(audience_id="likely_buyers", rule="propensity_top", priority=30, share=0.2),
    Audience(audience_id="new_users", rule="new_users", priority=40),
    Audience(audience_id="everyone", rule="everyone", priority=90),
)


class ProfileSettings(Settings):
    horizon_days: PositiveInt = Field(30, description="purchase_propensity is P(order within these days)")
    churn_horizon_days: PositiveInt = Field(90, description="churn_probability is P(no order within these days)")
    clv_horizon_days: PositiveInt = 90
    cadence_days: PositiveInt = Field(28, description="days between fits of the profile models, which are weekly in a shop's first eight weeks")
    interval: Share = Field(0.9, description="nominal coverage of the life-time value interval")
    search_trials: PositiveInt = 12
    audiences: tuple[Audience, ...] = DEFAULT_AUDIENCES
    holdout_share: Share = 0.05
    holdout_salt: str = "holdout-1"


class RecommendationSettings(Settings):
    list_length: PositiveInt = 20
    cadence_days: PositiveInt = Field(28, description="days between fits of the ranking model")
    half_life_days: PositiveInt = 28
    objective: Literal["conversion", "purchases"] = Field(
        "conversion",
        description="order lists by what showing an item brings (needs views and carts or orders; without them as 'purchases'), or by "
        "what the user will buy next",
    )
    page_items: Literal["any", "linked"] = Field(
        "any",
        description="what an item's page may show where lists go by what showing brings: whatever is worth most to those who look there, "
        "or, of that, only what is linked to the item",
    )
    excluded_categories: tuple[str, ...] = ()
    minimum_margin_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    promoted_share: Share = Field(0.0, description="share of each list reserved for items on promotion")
    is_repeatable: bool = Field(True, description="whether items already bought may be recommended again")
    max_per_category: PositiveInt = Field(20, description="diversity: most items of one category in a list")
    exploration_share: Share = Field(0.02, description="share of users whose list carries logged random entries")
    holdout_share: Share = 0.05
    holdout_salt: str = "recommendations-1"


class ForecastSettings(Settings):
    horizon_days: PositiveInt = 28
    cadence_days: PositiveInt = Field(7, description="days between issues of forecasts")
    fit_cadence_days: PositiveInt = Field(28, description="days between fits and competitions of forecasters")
    history_days: PositiveInt = Field(800, description="days learnt from; two years and more tell how like one year is to the next")
    candidates: tuple[str, ...] = Field(
        ("panel", "seasonal_naive"), description="names known to forecasting.py, or import paths of sktime forecasters"
    )
    country: str | None = Field(None, description="ISO code whose public holidays are known in advance")


class Season(Settings):
    """Items of a category that are worth little after a day: Christmas cards, summer shoes."""

    category: str
    last_day: date
    salvage_share: Share = Field(0.0, description="share of unit_cost that what is left then still brings")


class InventorySettings(Settings):
    service_level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    default_lead_time_days: PositiveInt = 7
    review_period_days: PositiveInt = 7
    simulations: PositiveInt = 500
    transfer_days: PositiveInt | None = Field(1, description="days goods take from one place to another; null: none are moved")
    transfer_cover_days: PositiveInt = Field(
        5, description="a place that gets goods is filled up for, and one that gives keeps, what sells in so many days; more than transfer_days"
    )
    seasons: tuple[Season, ...] = Field((), description="their last order is a newsvendor's: up to the end of the season, at its critical ratio")

    @model_validator(mode="after")
    def _covers_the_way(self) -> InventorySettings:
        if self.transfer_days is not None and self.transfer_cover_days <= self.transfer_days:
            raise ValueError("inventory.transfer_cover_days must be more than transfer_days: goods that come later cover nothing")
        return self


class ResponseSettings(Settings):
    cadence_days: PositiveInt = 7
    history_days: PositiveInt = Field(84, description="days of impressions the rates learn from")
    prior_ctr: Annotated[float, Field(gt=0, lt=1)] = 0.005
    prior_cvr: Annotated[float, Field(gt=0, lt=1)] = 0.02
    prior_weight: Annotated[float, Field(gt=0)] = Field(200, description="impressions (clicks) the prior counts for")
    interval: Share = 0.9
    min_calibration: Annotated[float, Field(gt=0)] = 0.5
    max_calibration: Annotated[float, Field(gt=0)] = 2.0


class PlanSettings(Settings):
    daily_budget: Annotated[float, Field(ge=0)] | None = Field(100.0, description="null: no limit")
    monthly_budget: Annotated[float, Field(ge=0)] | None = None
    target_conversions: Annotated[float, Field(ge=0)] = 0.0
    most_per_conversion: Annotated[float, Field(ge=0)] | None = Field(
        None, description="value given up at most for one more conversion of the target, which is missed where it costs more; null: no limit"
    )
    value: Literal["conversions", "revenue", "margin"] = "revenue"
    frequency_cap: PositiveInt = Field(4, description="most impressions per user and day")
    exploration_share: Share = 0.05
    max_share_per_placement: Share = 1.0
    max_share_per_campaign: Share = 1.0
    max_hourly_share: Share = Field(0.25, description="pacing: largest share of the day's spend in one hour")
    max_change: Annotated[float, Field(ge=0)] | None = Field(None, description="largest change of a campaign's spend against yesterday, as a share")
    is_cautious: bool = False
    whole_impressions: bool = True
    scenario_levels: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
    diminishing_returns: tuple[tuple[float, float], ...] = Field(
        (), description="(impressions per user and day, efficiency beyond them): falling steps, such as [[1, 0.8], [3, 0.5]]"
    )
    relaxation_weights: dict[str, float] = Field(
        default_factory=dict, description="what a relaxation of one whole limit costs, by kind of constraint; see docs/ad_planning.md"
    )
    user_level_placements: tuple[str, ...] = Field((), description="owned placements (mail, push) that are planned user by user")
    proposals: PositiveInt = Field(10, description="campaign proposals a day")
    needs_approval: bool = False

    @model_validator(mode="after")
    def _falling_returns(self) -> PlanSettings:
        steps = self.diminishing_returns
        if any(later[0] <= earlier[0] or later[1] > earlier[1] for earlier, later in itertools.pairwise(steps)):
            raise ValueError("diminishing_returns: impressions must rise and efficiencies must not")
        if any(start < 0 or not 0 <= efficiency <= 1 for start, efficiency in steps):
            raise ValueError("diminishing_returns: impressions are at least 0, efficiencies 0 to 1")
        return self


class EvaluationSettings(Settings):
    list_windows_days: tuple[int, ...] = (1, 7)
    at_k: tuple[int, ...] = (10, 20)
    bootstrap_replicates: PositiveInt = 200
    interval: Share = 0.95
    mature_share: Share = Field(0.98, description="a figure is mature once this share of what it counts should have landed")


class DriftSettings(Settings):
    psi_threshold: Annotated[float, Field(gt=0)] = 0.2
    calibration_threshold: Annotated[float, Field(gt=0)] = Field(0.25, description="|log calibration ratio| that counts as drift")
    reject_rate_threshold: Share = 0.05
    volume_threshold: Annotated[float, Field(gt=0)] = Field(0.5, description="relative change of daily volume against its season-matched reference")
    error_ratio_threshold: Annotated[float, Field(gt=1)] = 1.3
    price_threshold: Annotated[float, Field(gt=0)] = Field(
        0.05, description="mean log ratio of list prices within a week: offers come and go, but a catalogue seldom becomes dearer by a twentieth"
    )
    stock_threshold: Share = Field(0.25, description="change of the share of items out of stock, weighed by what they sold lately")
    consecutive_days: PositiveInt = Field(2, description="hysteresis: breaches in a row before a verdict")
    cool_down_days: PositiveInt = 7
    reference_days: PositiveInt = 28


class LanguageModelSettings(Settings):
    """An OpenAI-compatible service that words answers and ad copy. Off unless store.yaml turns it on; no asset depends on it."""

    is_enabled: bool = False
    address: str = Field("http://127.0.0.1:8080/v1", description="base address; '/chat/completions' is added")
    model: str = "local"
    key_variable: str | None = Field(None, description="name of the environment variable that holds the key, where one is needed")
    price_per_million_input: Annotated[float, Field(ge=0)] = Field(0.0, description="money per million tokens sent")
    price_per_million_output: Annotated[float, Field(ge=0)] = Field(0.0, description="money per million tokens received")
    max_cost: Annotated[float, Field(ge=0)] = Field(1.0, description="money one command may spend; it stops before the request that could pass it")
    max_output_tokens: PositiveInt = 400
    timeout_seconds: Annotated[float, Field(gt=0)] = 30.0


class ServiceSettings(Settings):
    complaint_rating: float = Field(2.0, description="a rating at or below this is a complaint")
    neutral_rating: float = Field(3.0, description="up to this rating a text that reads like a complaint is one")
    cadence_days: PositiveInt = Field(28, description="days between fits of the text model")
    history_days: PositiveInt = Field(400, description="days of reviews the text model learns from")
    order_days: PositiveInt = Field(180, description="how far back the order behind a review is sought")
    language_model: LanguageModelSettings = LanguageModelSettings()


class AlertSettings(Settings):
    webhook_variable: str | None = Field(None, description="environment variable that holds a Slack-compatible webhook address")
    mail_to: tuple[str, ...] = ()
    mail_from: str = "marketing@localhost"
    mail_host: str = "127.0.0.1"
    mail_port: PositiveInt = 25
    mail_password_variable: str | None = Field(None, description="environment variable that holds the mail server's password")


class Store(Settings):
    """A shop: what it is called, where its exports lie, and every setting of the engine for it."""

    name: Annotated[str, Field(min_length=1)]
    timezone: str
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    first_day: date
    last_day: date | None = None
    data_root: str = "."
    language: Literal["en", "zh"] = "en"
    methods: Methods = "learned"
    seed: int = 20_240_101
    threads: PositiveInt = 2
    attribution_window_days: PositiveInt = 7
    maturity_days: PositiveInt = Field(14, description="after so many days a day's conversions count as complete")
    cadence_anchor: date | None = None
    retention_days: PositiveInt | None = None
    schedule_hour: Annotated[int, Field(ge=0, le=23)] = Field(2, description="shop-local hour at which the night's run starts")
    sources: dict[str, SourceBlock | list[SourceBlock]]
    cleaning: CleaningSettings = CleaningSettings()
    features: FeatureSettings = FeatureSettings()
    profiles: ProfileSettings = ProfileSettings()
    recommendations: RecommendationSettings = RecommendationSettings()
    forecasting: ForecastSettings = ForecastSettings()
    inventory: InventorySettings = InventorySettings()
    response: ResponseSettings = ResponseSettings()
    ad_planning: PlanSettings = PlanSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    drift: DriftSettings = DriftSettings()
    alerts: AlertSettings = AlertSettings()
    service: ServiceSettings = ServiceSettings()
    path: Path = Field(Path("store.yaml"), exclude=True, description="where this was read from; not a key of the file")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except Exception as error:
            raise ValueError(f"{value!r} is no IANA time zone, such as 'Europe/London'") from error
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Store:
        if self.last_day is not None and self.last_day < self.first_day:
            raise ValueError("last_day lies before first_day")
        if not self.sources:
            raise ValueError("at least one source is needed")
        names = [audience.audience_id for audience in self.profiles.audiences]
        if len(set(names)) != len(names):
            raise ValueError("profiles.audiences: an audience_id appears twice")
        return self

    @property
    def folder(self) -> Path:
        """The folder of store.yaml: warehouse, reports, exports and control files lie here."""
        return self.path.parent

    @property
    def anchor(self) -> date:
        return self.cadence_anchor or self.first_day

    def blocks(self, table: str) -> list[SourceBlock]:
        """The source blocks mapped to an input table, [] where the shop lacks it. Control inputs are always mapped."""
        if table in CONTROL_INPUTS and table not in self.sources:
            files = str(self.folder / "control" / table / "{date}.csv")
            return [SourceBlock(files=files, columns={"*": "*"}, missing_file="empty")]
        source = self.sources.get(table, [])
        return [source] if isinstance(source, SourceBlock) else list(source)

    @property
    def data_folder(self) -> Path:
        """data_root with its environment variables put in. Raises StoreError where one is not set."""
        missing = [name for name in re.findall(r"\$\{?(\w+)\}?", self.data_root) if name not in os.environ]
        if missing:
            raise StoreError(f"{self.path}: data_root names the environment variable {missing[0]}, which is not set")
        root = Path(os.path.expandvars(self.data_root))
        return root if root.is_absolute() else (self.folder / root)

    def is_cadence_day(self, day: date, every_days: int) -> bool:
        """first_day and cadence_anchor + k * every_days (k >= 0) are cadence days."""
        return day == self.first_day or (day >= self.anchor and (day - self.anchor).days % every_days == 0)

    def cadence_day_before(self, day: date, every_days: int) -> date:
        """The newest cadence day at or before `day`."""
        while not self.is_cadence_day(day, every_days):
            day -= timedelta(days=1)
            if day < self.first_day:
                raise ValueError(f"no cadence day at or before {day}: it lies before first_day {self.first_day}")
        return day


def store_path(environment: Mapping[str, str] = os.environ) -> Path:
    """MARKETING_STORE, or the sample shop's file; relative paths resolve from the repository root."""
    path = Path(environment.get("MARKETING_STORE", "data/sample_shop/store.yaml"))
    return path if path.is_absolute() else REPOSITORY_ROOT / path


def dagster_folder(folder: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Where Dagster keeps the history of the shop in `folder`: MARKETING_DAGSTER_STORAGE, or dagster/ in it."""
    return Path(environment.get("MARKETING_DAGSTER_STORAGE") or folder / "dagster")


def _allowed_keys(location: tuple[Any, ...]) -> str:
    model: Any = Store
    for part in location[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        model = SourceBlock if location[0] == "sources" and field is None else getattr(field, "annotation", None)
    fields = getattr(model, "model_fields", None)
    return "" if fields is None else "; allowed: " + ", ".join(sorted(set(fields) - {"path"}))


def load_store(path: Path | None = None) -> Store:
    """Read and validate a store.yaml. Raises StoreError naming file, key and what is allowed."""
    path = (path or store_path()).resolve()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"{path}: no such file; set MARKETING_STORE to a store.yaml, or run 'make demo'") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path}: expected keys such as 'name' and 'sources', found {type(content).__name__}")
    try:
        return Store.model_validate({**content, "path": path})
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"]) or "(top level)"
            if problem["type"] == "extra_forbidden":
                lines.append(f"{key}: unknown key{_allowed_keys(problem['loc'])}")
            else:
                lines.append(f"{key}: {problem['msg']} (found {problem.get('input')!r:.80})")
        raise StoreError(f"{path}: " + "\n  ".join(lines)) from error
