"""Every number of the sample shop's world, its sizes, and the drifts that can be switched on.

What belongs here: numbers and what they were set from. What does not: anything that draws or computes the world.

The closed-loop trial is judged on this world, so its parameters are frozen: `parameters_hash()` is pinned by a test.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import date
from typing import Literal

MODEL_VERSION = 1
"""Raised whenever the code draws or lives the world differently from the same parameters."""

DriftKind = Literal["taste", "placement_collapse", "tracking_bug", "season", "mix", "price", "stock"]
DRIFT_KINDS: tuple[DriftKind, ...] = ("taste", "placement_collapse", "tracking_bug", "season", "mix", "price", "stock")

DEVICES = ("phone", "desktop", "tablet")
CHANNELS = ("direct", "search", "mail", "social", "ads", "order_form")
CATEGORIES = ("kitchen", "garden", "lighting", "textiles", "toys", "stationery", "bath", "decoration")
STYLES = 3
GROUPS = len(CATEGORIES) * STYLES
FACTORS = 4
"""Latent dimensions of taste beyond category and style."""
PLACEMENTS = ("search_feed", "social_feed", "display_banner", "news_site", "video_preroll")


@dataclass(frozen=True)
class Drift:
    """A change of the world from the start of a day on.

    kind: 'taste' (people like other groups of goods), 'placement_collapse' (clicks in one placement fall), 'tracking_bug' (one
    device's purchases, or clicks, are no longer logged), 'season' (visits swing slowly and harmlessly), 'mix' (the crowd
    changes: more new users, on phones, from social media), 'price' (prices rise), 'stock' (a supplier's goods are withdrawn and no more come).
    target: the placement; the device, or 'device:purchase' and 'device:click'; empty for the usual one. strength: 1 as
    designed, 0 nothing.
    """

    kind: DriftKind
    from_day: date
    strength: float = 1.0
    target: str = ""

    def __post_init__(self) -> None:
        if self.kind not in DRIFT_KINDS:
            raise ValueError(f"no drift {self.kind!r}; known are {', '.join(DRIFT_KINDS)}")


@dataclass(frozen=True)
class Size:
    """How much of the world there is. Sessions and opportunities are means of an ordinary day; budget is money a day."""

    users: int
    items: int
    sessions: float
    opportunities: float
    campaigns: int
    creatives_per_campaign: int
    placements: int
    trade_share: float = 0.05

    @property
    def creatives(self) -> int:
        return self.campaigns * self.creatives_per_campaign


SIZES: dict[str, Size] = {
    "tiny": Size(60, 40, 48, 600, 2, 2, 2, 0.1),
    "trial": Size(900, 120, 420, 14_000, 3, 4, 3, 0.04),
    "demo": Size(1_500, 300, 760, 10_000, 3, 4, 3),
    "large": Size(60_000, 5_000, 30_000, 20_000, 6, 8, 5, 0.02),
}


@dataclass(frozen=True)
class Parameters:
    """The world. Comments name what a number was set from; moments that follow from several are tested as such."""

    # people
    lifetime_days: float = 400.0
    visit_shape: float = 0.9
    """Gamma shape of visits per user."""
    anonymous_share: float = 0.18
    """Sessions without a user; a quarter of online_retail's rows have none."""
    second_device_share: float = 0.3
    second_device_use: float = 0.35
    days_to_link: float = 25.0
    consent_share: float = 0.62
    taste_category_sd: float = 1.0
    taste_style_sd: float = 0.6
    buy_sd: float = 0.35
    price_sensitivity_sd: float = 0.35
    device_shares: tuple[float, ...] = (0.58, 0.34, 0.08)
    channel_shares: tuple[float, ...] = (0.38, 0.34, 0.14, 0.14)

    # visits: taobao has 5.4 views a session, rees46 3.4, medians 3 and 2
    views_median: float = 2.7
    views_sigma: float = 0.95
    most_views: int = 60
    dwell_median_seconds: float = 32.0
    dwell_sigma: float = 0.9
    search_share: float = 0.16
    revisit_share: float = 0.20
    """Views of something seen before; taobao: 0.21."""
    list_share: float = 0.34
    """Views that begin in a recommendation list, before the user decides by taste whether to follow."""
    related_share: float = 0.12
    list_length: int = 20
    list_decay: float = 0.85
    """Attention to each next place of a list."""

    # from view to purchase: taobao .059 carts and .023 purchases a view, rees46 .010 and .013
    cart_per_view: float = 0.029
    wishlist_per_view: float = 0.024
    purchase_per_cart: float = 0.37
    match_on_follow: float = 0.35
    match_on_cart: float = 0.36
    match_on_purchase: float = 0.12
    appeal_on_cart: float = 0.25
    elasticity: float = -1.8
    price_on_cart: float = -0.2
    extra_line_share: float = 0.16
    several_units_share: float = 0.12
    weekday: tuple[float, ...] = (1.02, 1.0, 0.99, 1.02, 0.95, 0.94, 1.08)
    yearly_amplitude: float = 0.12
    yearly_peak_day: int = 340
    holiday_factor: float = 0.75
    sale_factor: float = 1.12
    noise_sd: float = 0.05
    """Day-to-day spread of visits beyond chance."""

    # trade customers order from a form: lines, units and intervals of online_retail
    trade_gap_days: float = 48.0
    trade_gap_sigma: float = 0.45
    trade_lines_median: float = 15.0
    trade_lines_sigma: float = 1.1
    trade_most_lines: int = 110
    trade_units_median: float = 6.0
    trade_units_sigma: float = 1.15
    trade_usual_price: float = 8.0
    trade_price_on_units: float = -0.6
    """Dearer things are ordered in smaller numbers, and cheaper things more often."""
    trade_discount: float = 0.25
    trade_most_units: int = 240
    trade_assortment: int = 80
    trade_own_power: float = 1.6
    trade_workday: float = 1.2
    trade_weekend: float = 0.25
    trade_own_share: float = 0.55
    """Lines from the customer's own assortment; the rest are tried out."""

    # items
    popularity_sigma: float = 1.3
    """Spread of log popularity: Gini of lines .63, top tenth .45 of online_retail."""
    price_median: float = 14.0
    price_sigma: float = 0.75
    cost_share_low: float = 0.42
    cost_share_high: float = 0.66
    new_item_share: float = 0.12
    new_item_days: int = 150
    promotion_share: float = 0.05
    """Items on promotion in a week."""
    promotion_depths: tuple[float, ...] = (0.1, 0.15, 0.2, 0.3)
    promotion_notice_days: int = 10
    price_change_share: float = 0.015
    """Items whose price changes in a week."""
    sale_every_days: int = 35
    sale_days: int = 3
    refund_share: float = 0.05
    review_share: float = 0.12
    survey_share: float = 0.012

    # stock
    lead_times_days: tuple[int, ...] = (3, 5, 7, 10, 14)
    pack_sizes: tuple[int, ...] = (1, 4, 6, 12)
    reorder_cover_days: float = 12.0
    """Days of usual sales beyond the lead time at which common practice orders, fixed once; what it takes for usual is off by
    reorder_error."""
    order_cover_days: float = 21.0
    reorder_error: float = 0.35
    holding_cost_per_year: float = 0.22
    substitution_share: float = 0.25

    # ads: open_bandit's click rates by item .002 to .010, by position .0036 to .0052
    click_rate: float = 0.0052
    creative_click_sd: float = 0.35
    most_creative_click: float = 0.6
    placement_click_sd: float = 0.28
    most_placement_click: float = 0.33
    """Log effects are cut here: no placement is more than about twice as good as another."""
    hour_click_amplitude: float = 0.22
    user_click_sd: float = 0.3
    match_on_click: float = 0.28
    position_click: tuple[float, ...] = (0.16, 0.02, -0.18)
    fatigue: float = 0.93
    """Factor on the click rate of each further impression of a user and day, no lower than fatigue_floor."""
    fatigue_floor: float = 0.6
    most_click_rate: float = 0.05
    conversion_rate: float = 0.055
    """Orders per ad click; ad_spend has .028, published shops .02 to .09."""
    creative_conversion_sd: float = 0.28
    price_on_conversion: float = -0.7
    """Dearer things are bought less often after a click, as price^this around the median price."""
    match_on_conversion: float = 0.3
    most_conversion_rate: float = 0.4
    conversion_same_day: float = 0.68
    conversion_day_decay: float = 0.5
    most_conversion_days: int = 6
    report_delay_share: float = 0.25
    bought_share: float = 0.6
    """Share of opportunities the common practice's budget buys."""
    results_decay: float = 0.97
    results_prior_days: float = 14.0
    """Days of equal spend at an equal return that past results begin from."""
    anonymous_ad_share: float = 0.22
    prices_per_thousand: tuple[float, ...] = (2.6, 3.4, 1.7, 2.2, 4.5)
    per_click_placements: tuple[str, ...] = ("search_feed",)

    # dirt
    late_share: float = 0.01
    most_late_days: int = 3
    broken_share: float = 0.003
    duplicate_share: float = 0.005
    bots: float = 1.2
    bot_views: int = 90
    erasures: float = 0.05

    # drifts at strength 1
    drift_taste_share: float = 0.9
    drift_placement_factor: float = 0.3
    drift_tracking_loss: float = 0.95
    drift_season_amplitude: float = 0.3
    drift_season_days: int = 80
    drift_mix_renewal: float = 0.35
    drift_price_factor: float = 1.35
    drift_stock_share: float = 0.35


PARAMETERS = Parameters()


def parameters_hash(parameters: Parameters = PARAMETERS) -> str:
    """Digest of the world's numbers and sizes."""
    content = {
        "version": MODEL_VERSION,
        "parameters": asdict(parameters),
        "sizes": {name: asdict(size) for name, size in SIZES.items()},
    }
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()
