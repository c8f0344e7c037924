"""Demand forecasts: what each item, category and the shop will sell on each of the coming days, with quantiles.

What belongs here: everything from item history and known drivers to rows of demand_forecasts. What does not: features of
items (features/), orders (inventory.py), how far off forecasts were (evaluation/).

history.py and drivers.py say what an issue may see, panel.py its form; calendar.py what a day is worth, level_calendar.py the
fast forecaster; rows.py makes the levels coherent; build.py issues.
"""

from marketing_assets.forecasting.build import build_demand

__all__ = ["build_demand"]
