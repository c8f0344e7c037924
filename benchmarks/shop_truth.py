"""The sample shop for the response and plan benchmarks: a past under common practice, built up to the rates, and the truth.

What belongs here: living and building the past, and joining rates to what is true. What does not: scores (the benchmarks).
True rates of a plan cell are means over the people of its audience, times the fatigue of its hour as it was in the last weeks:
people shown several ads a day click less on each, which the shop's oracle leaves out.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from marketing_assets.config import Store, load_store
from marketing_assets.pipeline import steps_of
from marketing_assets.response import build_response
from marketing_assets.running import run_days
from marketing_assets.sample_shop import SampleShop
from marketing_assets.trial import TrialShop
from marketing_assets.trial.loop import opened
from marketing_assets.warehouse import Reader, days_between

CELL = ["audience_id", "creative_id", "placement_id", "hour"]
GROUPS = ("sources", "cleaning", "features", "profiles")
"""Groups of steps the rates rest on."""
LEVEL_DAYS = 28


@dataclass(frozen=True)
class Past:
    """A shop that has lived and been built up to its audiences; `day` is the last of its days."""

    folder: Path
    shop: SampleShop
    day: date

    def store(self, methods: str, history: int | None = None) -> Store:
        """The shop's settings; history: days the rates learn from, where not as set."""
        store = load_store(self.folder / "store.yaml")
        settings = store.response.model_copy(update={} if history is None else {"history_days": history})
        return store.model_copy(update={"threads": 1, "methods": methods, "response": settings})

    def opened(self, store: Store) -> opened:
        return opened(self.folder, store)

    def truth(self, rates: pl.DataFrame, reader: Reader) -> pl.DataFrame:
        """Rows of `rates` whose cell can be served tomorrow, with true_ctr, true_cvr, true_value, true_cost and on_offer impressions."""
        audiences = reader.log_as_of("audiences", self.day, ["user_id", "audience_id", "priority", "is_holdout"])
        true = self.shop.oracle().cell_rates(self.day + timedelta(days=1), audiences).select(
            *CELL[:3], pl.col("hour").cast(pl.Int64), true_ctr="ctr", true_cvr="cvr", true_value="value_per_conversion",
            true_cost="cost_per_impression", on_offer="available_impressions",
        )  # fmt: skip
        joined = rates.with_columns(pl.col("hour").cast(pl.Int64)).join(true, on=CELL).join(self.fatigue(reader), on="hour")
        # nobody advertises what is sold out, and the plan's sellable units are not what is measured here
        joined = joined.filter(pl.col("true_cvr") > 0)
        per_click = [name for name, is_paid in zip(self.shop.world.placement_ids, self.shop.world.is_per_click, strict=True) if is_paid]
        return joined.with_columns(
            true_ctr=pl.col("true_ctr") * pl.col("fatigue"),
            true_cost=pl.col("true_cost") * pl.when(pl.col("placement_id").is_in(per_click)).then("fatigue").otherwise(1.0),
        ).sort(CELL)

    def fatigue(self, reader: Reader) -> pl.DataFrame:
        """hour, fatigue: mean factor of the last weeks' impressions; a person's n-th of a day is clicked fatigue^(n-1) times as often."""
        p, days = self.shop.parameters, days_between(self.day - timedelta(days=LEVEL_DAYS - 1), self.day)
        person = pl.concat([self.shop.impression_truth(day).select("impression_id", "person") for day in days])
        shown = reader.window("clean_impressions", days[0], days[-1], ["impression_id", "impression_date", "shown_at", "hour"])
        nth = pl.int_range(pl.len()).over("impression_date", "person", order_by="shown_at")
        factor = pl.max_horizontal(p.fatigue**nth, p.fatigue_floor)
        return (
            shown.join(person, on="impression_id")
            .with_columns(fatigue=factor)
            .group_by(hour=pl.col("hour").cast(pl.Int64))
            .agg(pl.col("fatigue").mean())
        )


@contextmanager
def lived(seed: int, days: int = 84) -> Iterator[Past]:
    """A shop's past, and built what the rates rest on; a minute of CPU.

    Kept in the folder that MARKETING_BENCH_SHOPS names, and found there the next time; without it thrown away.
    """
    kept = os.environ.get("MARKETING_BENCH_SHOPS")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(kept or temporary) / f"{seed}-{days}"
        if (folder / "state").is_dir():
            shop: SampleShop = TrialShop.resume(folder)
            yield Past(folder, shop, shop.next_day - timedelta(days=1))
            return
        shutil.rmtree(folder, ignore_errors=True)
        shop = TrialShop(folder, seed)
        past = days_between(shop.first_day, shop.first_day + timedelta(days=days - 1))
        for day in past:
            shop.live(day)
        found = Past(folder, shop, past[-1])
        store = found.store("plain")
        with found.opened(store) as warehouse:
            run_days(warehouse, past, "bench", steps=[step.name for step in steps_of(store) if step.group in GROUPS])
        shop.save()
        yield found


def rates_of(past: Past, reader: Reader, store: Store) -> tuple[pl.DataFrame, float]:
    """response_rates of the last day, for learned methods with a cadence day within the week before, and their CPU seconds."""
    days = days_between(past.day - timedelta(days=7 if store.methods == "learned" else 0), past.day)
    began = time.process_time()
    rates = build_response(reader, days, store).tables["response_rates"]
    return rates.filter(pl.col("as_of_date") == past.day), time.process_time() - began
