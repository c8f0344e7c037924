"""The way in: a first store.yaml from a folder of exports, and what a store.yaml makes of the files it names.

What belongs here: looking at files a shop already has, guessing what their columns mean, and saying what was understood. What
does not: reading landing files for the tables (sources/) or deciding what a good row is (cleaning/); both are used as they are.
"""

from __future__ import annotations

from marketing_assets.onboarding.check import CheckReport, Refused, SourceCheck, check_store
from marketing_assets.onboarding.init import init_store

__all__ = ["CheckReport", "Refused", "SourceCheck", "check_store", "init_store"]
