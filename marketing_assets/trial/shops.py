"""Which shop a trial is run on, named as module:Class.

What belongs here: finding the class, and the sample shop at the size of a trial. What does not: how a shop lives.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from marketing_assets.sample_shop import BranchingShop, DayTruth, Drift, SampleShop, Shop

SHOP = "marketing_assets.trial:TrialShop"

MakeShop = Callable[[Path, int], Shop]


class TrialError(Exception):
    """A trial that cannot be run; the message says what is wrong and what to do."""


class TrialShop(SampleShop):
    """The sample shop at the size trials are run at: some 900 people, 120 items, 14,000 ad opportunities a day."""

    FREQUENCY_CAP = 24
    """Common practice shows ads to whoever comes by, 8 a day on average; at the usual cap of 4 nobody could spend as much."""

    def __init__(self, folder: Path, seed: int, *, drifts: Sequence[Drift] = ()) -> None:
        super().__init__(folder, seed, size="trial", drifts=drifts)

    def write_store(self, last_day: date | None = None, **sections: Any) -> Path:
        """As the sample shop's, with a frequency cap under which the budget can be spent."""
        return super().write_store(last_day, **{"ad_planning": {"frequency_cap": self.FREQUENCY_CAP}, **sections})


def shop_class(name: str) -> MakeShop:
    """The class named 'module:Class', to be called with folder and seed. Raises TrialError where there is none."""
    module_name, colon, class_name = name.partition(":")
    if not colon or not class_name:
        raise TrialError(f"shop {name!r}: give it as module:Class, such as {SHOP}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise TrialError(f"shop {name!r}: {error}; is its folder on PYTHONPATH?") from error
    found: MakeShop | None = getattr(module, class_name, None)
    if not callable(found):
        raise TrialError(f"shop {name!r}: {module_name} has no class {class_name}")
    return found


def make_shop(make: MakeShop, folder: Path, seed: int) -> Shop:
    """A shop of its own in an empty folder. Raises TrialError where the class lacks a part of the interface."""
    shop = make(folder, seed)
    if not isinstance(shop, Shop):
        raise TrialError(f"{type(shop).__name__} is no shop: it needs folder, first_day, live and truth; see docs/trial.md")
    return shop


def truth_of(shop: Shop, day: date) -> DayTruth:
    """The truth of a day in plain numbers, whatever the shop counts in. Raises TrialError naming a figure that is none, such as a NaN."""
    told = vars(shop.truth(day))

    def plain(figures: Mapping[str, Any]) -> dict[str, Any]:
        for name, value in figures.items():
            if not isinstance(value, Real) or not math.isfinite(value):
                raise TrialError(f"{type(shop).__name__}.truth({day}): {name} is {value!r}, where a finite number is needed")
        return {name: int(value) if isinstance(value, Integral) else float(value) for name, value in figures.items()}

    figures = {name: value for name, value in told.items() if name not in ("day", "more")}
    return DayTruth(day=day, **plain(figures), more=plain(told["more"]))


def branch(shop: Shop, make: MakeShop, seed: int, folder: Path, lived: Callable[[Shop], None]) -> Shop:
    """The same shop with the same past in another folder: branched where it can be, else lived again by `lived`."""
    if isinstance(shop, BranchingShop):
        return shop.branch(folder)
    twin = make_shop(make, folder, seed)
    lived(twin)
    return twin
