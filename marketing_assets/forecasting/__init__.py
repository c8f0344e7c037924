"""Demand forecasts: what each item, category and the shop will sell on each of the coming days, with quantiles.

What belongs here: everything from item history and known drivers to rows of demand_forecasts. What does not: features of
items (features/), orders (inventory/), how far off forecasts were (evaluation/).

history.py and drivers.py say what an issue may see, panel.py its form; calendar.py what a day is worth, effects.py what drivers
do, quantiles.py what an item's history says, level_calendar.py is the fast forecaster, total.py what the shop's total adds;
origins.py, features.py, learned_levels.py and learned.py make the learned one, classic.py and sktime_bridge.py the others;
competition.py and fits.py decide who is used; rows.py makes the levels coherent; build.py issues, what_if.py asks again.
sktime_forecasters.py offers ours through sktime's interface and is imported only where that is wanted.
"""

from marketing_assets.forecasting.build import build_demand
from marketing_assets.forecasting.sktime_bridge import UnknownForecaster
from marketing_assets.forecasting.what_if import WhatIfError, in_money, read_drivers, units_ahead, what_if

__all__ = ["UnknownForecaster", "WhatIfError", "build_demand", "in_money", "read_drivers", "units_ahead", "what_if"]
