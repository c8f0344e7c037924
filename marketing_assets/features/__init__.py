"""Features: from clean events to what is known of items, sessions and users on each day.

What belongs here: the tables items, sessions, item_days, user_features, user_preferences and item_features, written as Ibis
expressions over a window of days. What does not: cleaning, and anything that predicts.

Whether days are built one by one or as one range, the rows are the same: counts and money exactly, decayed sums to within
floating-point rounding. A window costs what landed in it, plus the entries of those concerned; only re-issue days
touch everyone.
"""

from marketing_assets.features.item_days import build_item_days
from marketing_assets.features.item_features import build_item_features
from marketing_assets.features.items import build_items
from marketing_assets.features.sessions import build_sessions
from marketing_assets.features.users import build_user_features

__all__ = ["build_item_days", "build_item_features", "build_items", "build_sessions", "build_user_features"]
