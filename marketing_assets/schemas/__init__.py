"""One pandera model per table, and the columns of every input, by concept.

What belongs here: names, types, limits and meaning of columns, and what makes a table's rows distinct. What does not:
how rows come about (the concept modules) or reach disk (warehouse/). A model's docstring says "One row per ...".
Instants are UTC, money is DECIMAL(18, 4) in the shop's currency, rates are fractions 0..1.
"""

# ruff: noqa: F401, I001 - importing registers, and tables are registered in the order of the flow
from marketing_assets.schemas.table import TABLES, Table
from marketing_assets.schemas.inputs import EVENT_TYPES, FURTHER, INPUTS, OWN_NAME, RANGE_DAYS, TYPES, column_of
import marketing_assets.schemas.clean
import marketing_assets.schemas.features
import marketing_assets.schemas.profiles
import marketing_assets.schemas.recommendations
from marketing_assets.schemas.demand import M5_QUANTILES, QUANTILE_COLUMNS
import marketing_assets.schemas.ads
import marketing_assets.schemas.evaluation
from marketing_assets.schemas.service import COMPLAINT_THEMES

__all__ = [
    "COMPLAINT_THEMES", "EVENT_TYPES", "FURTHER", "INPUTS", "M5_QUANTILES", "OWN_NAME", "QUANTILE_COLUMNS", "RANGE_DAYS", "TABLES", "TYPES",
    "Table", "column_of",
]  # fmt: skip
