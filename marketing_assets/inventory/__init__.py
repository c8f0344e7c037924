"""What to keep, when to order and how much.

What belongs here: lead-time demand, reorder points, order quantities, what may be promised. What does not: demand itself
(forecasting/), what an item advertised may cost (ad_planning/).
"""

from marketing_assets.inventory.build import build_inventory, targets
from marketing_assets.inventory.simulation import Demand, Supply, knot_values, path_weights, simulate

__all__ = ["Demand", "Supply", "build_inventory", "knot_values", "path_weights", "simulate", "targets"]
