"""A whole history under common practice.

What belongs here: what `make demo`, tests and trials start from. What does not: how a day is lived (shop.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from marketing_assets.sample_shop.settings import Drift, Size
from marketing_assets.sample_shop.shop import FIRST_DAY, SampleShop

DEMO_DAYS = 89
DEMO_SEED = 7


def generate(
    folder: Path,
    first_day: date = FIRST_DAY,
    days: int = DEMO_DAYS,
    seed: int = DEMO_SEED,
    size: str | Size = "demo",
    drifts: Sequence[Drift] = (),
    report: Callable[[int, int], None] | None = None,
) -> SampleShop:
    """Live `days` days under common practice in `folder` (landing/, truth/, state/), anew. report: told (days done, days).

    Older files of other days are removed, so that the folder holds this history alone.
    """
    shop = SampleShop(folder, seed, size=size, first_day=first_day, drifts=drifts)
    for name in ("landing", "truth"):
        for old in sorted((folder / name).rglob("*")):
            if old.is_file():
                old.unlink()
    for number in range(days):
        shop.live(first_day + timedelta(days=number))
        if report is not None:
            report(number + 1, days)
    shop.save()
    return shop


def write_store(shop: SampleShop, last_day: date | None = None, **sections: Any) -> Path:
    """Write store.yaml into the shop's folder, see SampleShop.write_store. Returns its path."""
    return shop.write_store(last_day, **sections)
