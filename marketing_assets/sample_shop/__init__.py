"""A seeded shop with known truth, for the demo, tests and closed-loop trials.

What belongs here: the shop's world and how it lives day by day (see interface.py for what a trial asks of any shop). What does
not: anything that learns from it.
"""

from marketing_assets.sample_shop.generate import DEMO_DAYS, DEMO_SEED, generate, write_store
from marketing_assets.sample_shop.interface import BranchingShop, DayTruth, Decisions, KnowingShop, Oracle, Shop
from marketing_assets.sample_shop.settings import DRIFT_KINDS, PARAMETERS, SIZES, Drift, Parameters, Size, parameters_hash
from marketing_assets.sample_shop.shop import FIRST_DAY, SampleOracle, SampleShop, ShopError

__all__ = [
    "DEMO_DAYS",
    "DEMO_SEED",
    "DRIFT_KINDS",
    "FIRST_DAY",
    "PARAMETERS",
    "SIZES",
    "BranchingShop",
    "DayTruth",
    "Decisions",
    "Drift",
    "KnowingShop",
    "Oracle",
    "Parameters",
    "SampleOracle",
    "SampleShop",
    "Shop",
    "ShopError",
    "Size",
    "generate",
    "parameters_hash",
    "write_store",
]
