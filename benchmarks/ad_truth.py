"""A seeded ad log with known truth, for the response and plan benchmarks: same shape of effects as published logs.

What belongs here: probabilities, a log drawn from them, and the true revenue of any plan. What does not: learning or planning.
Click rates lie near 0.002 to 0.010 by item and slot; no effect of placement, hour or audience exceeds a factor of about 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from marketing_assets.config import Store

FIRST = date(2026, 1, 1)
AUDIENCES = ("champions", "at_risk", "likely_buyers", "new_users", "everyone", "unknown")


@dataclass(frozen=True)
class Size:
    days: int = 56
    per_day: int = 30_000
    creatives: int = 24
    placements: int = 5


class AdTruth:
    """Click and conversion probabilities are products of effects with tastes of audiences for creatives on top."""

    def __init__(self, seed: int, size: Size | None = None) -> None:
        self.size = size or Size()
        rng = np.random.default_rng([seed, 2026])
        count = self.size.creatives
        self.creatives = [f"c{i:02}" for i in range(count)]
        self.placements = [f"p{i}" for i in range(self.size.placements)]
        self.click = {
            "audience_id": rng.normal(0, 0.25, len(AUDIENCES)),
            "creative_id": rng.normal(0, 0.35, count),
            "placement_id": rng.normal(0, 0.3, self.size.placements),
            "hour": 0.2 * np.sin(np.arange(24) / 24 * 2 * np.pi - 2),
        }
        self.taste = rng.normal(0, 0.2, (len(AUDIENCES), count))
        self.buy = {"audience_id": rng.normal(0, 0.3, len(AUDIENCES)), "creative_id": rng.normal(0, 0.3, count)}
        self.price = np.round(np.exp(rng.normal(3.2, 0.6, count)), 2)
        self.cpm = np.round(np.exp(rng.normal(np.log(2.0), 0.35, self.size.placements)), 2)
        self.position = np.array([0.35, 0.0, -0.35])
        self.base_ctr, self.base_cvr = 0.005, 0.04
        self.rng = rng

    def index(self, cells: pl.DataFrame) -> dict[str, Any]:
        names = {
            "audience_id": list(AUDIENCES),
            "creative_id": self.creatives,
            "placement_id": self.placements,
            "hour": list(range(24)),
        }
        return {
            name: cells[name].replace_strict(levels, list(range(len(levels))), return_dtype=pl.Int64).to_numpy()
            for name, levels in names.items()
        }

    def ctr(self, cells: pl.DataFrame) -> Any:
        """P(click) per cell, over the slots as they come."""
        at = self.index(cells)
        total = sum(self.click[name][at[name]] for name in self.click) + self.taste[at["audience_id"], at["creative_id"]]
        return self.base_ctr * np.exp(total) * np.exp(self.position).mean()

    def cvr(self, cells: pl.DataFrame) -> Any:
        at = self.index(cells)
        return np.minimum(self.base_cvr * np.exp(sum(self.buy[name][at[name]] for name in self.buy)), 0.5)

    def value(self, cells: pl.DataFrame) -> Any:
        return self.price[self.index(cells)["creative_id"]]

    def frames(self) -> dict[str, pl.DataFrame]:
        """clean_impressions and attributed_conversions of a log under a uniform random policy, and the sources' tables."""
        rng, size = self.rng, self.size
        n = size.days * size.per_day
        day = np.repeat(np.arange(size.days), size.per_day)
        hours = np.exp(0.5 * np.sin(np.arange(24) / 24 * 2 * np.pi - 2.2))
        table = pl.DataFrame(
            {
                "audience_id": np.array(AUDIENCES)[rng.choice(len(AUDIENCES), n, p=[0.06, 0.08, 0.12, 0.1, 0.34, 0.3])],
                "creative_id": np.array(self.creatives)[rng.integers(0, size.creatives, n)],
                "placement_id": np.array(self.placements)[rng.integers(0, size.placements, n)],
                "hour": rng.choice(24, n, p=hours / hours.sum()),
                "position": rng.integers(1, 4, n),
            }
        )
        click = self.ctr(table) / np.exp(self.position).mean() * np.exp(self.position[table["position"].to_numpy() - 1])
        clicked = rng.random(n) < click
        dates = pl.Series([FIRST + timedelta(days=i) for i in range(size.days)]).gather(day)
        cost = self.cpm[self.index(table)["placement_id"]] / 1000
        shown = table.with_columns(
            landed_date=dates,
            impression_date=dates,
            impression_id=pl.Series(np.arange(n)).cast(pl.String),
            raw_row_id=pl.lit("r"),
            shown_at=pl.lit(datetime(2026, 1, 1)),
            is_clicked=pl.Series(clicked),
            spend=pl.Series(cost),
            item_id=pl.col("creative_id"),
            campaign_id=pl.format("k{}", pl.col("creative_id").str.slice(1).cast(pl.Int64) // 6),
        )
        bought = shown.filter("is_clicked")
        bought = bought.filter(pl.Series(rng.random(bought.height) < self.cvr(bought)))
        late = pl.Series(np.minimum(rng.geometric(0.5, bought.height) - 1, 6))
        value = self.value(bought) * rng.gamma(8, 1 / 8, bought.height)
        converted = bought.select(
            landed_date=pl.col("landed_date") + pl.duration(days=late),
            conversion_id="impression_id",
            impression_id="impression_id",
            converted_at="shown_at",
            conversion_value=pl.Series(np.round(value, 2)),
            attribution_rule=pl.lit("reported"),
            is_refunded=pl.lit(False),
        )
        items = pl.DataFrame({"item_id": self.creatives, "unit_price": self.price}).with_columns(
            as_of_date=pl.lit(FIRST + timedelta(days=28 * ((size.days - 1) // 28))),
            first_seen_date=pl.lit(FIRST),
            is_service=pl.lit(False),
        )
        return {"clean_impressions": shown, "attributed_conversions": converted, "items": items}

    @property
    def last_day(self) -> date:
        return FIRST + timedelta(days=self.size.days - 1)

    def store(self, methods: str = "plain", **planning: Any) -> Store:
        return Store.model_validate(
            {
                "name": "truth",
                "timezone": "UTC",
                "currency": "EUR",
                "first_day": FIRST,
                "methods": methods,
                "threads": 1,
                "sources": {"impressions": {"rows": [{}]}},
                "ad_planning": planning,
            }
        )
