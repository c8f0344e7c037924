"""Stock that is told by place: what to move between places now, and how much of an item's order is meant for each.

What belongs here: shares of what there is. What does not: how much is ordered of the whole item (build.py).

A transfer helps sooner than an order, so it is about the next days only: a place that may run out before a transfer decided
tomorrow would arrive is filled up to what sells there within `transfer_cover_days`, at the service level, from places that keep
as much for themselves. An order is shared so that every place holds, with what it has and expects, the same multiple of its
reorder point: the rule of equal fractiles (Eppen and Schrage 1981) with the reorder point as the measure. Demand of places
whose stock is not told, and of sales without a place, is served from those that tell theirs: what it needs stays where it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
import polars as pl

from marketing_assets.config import Store
from marketing_assets.inventory.simulation import Demand, Supply, simulate

ITEM = ["as_of_date", "item_id"]
PLACE = [*ITEM, "location_id"]


def short_term(demand: Demand, told: pl.DataFrame, days: Sequence[date], store: Store) -> pl.DataFrame:
    """PLACE, keeps (units: what sells within transfer_cover_days, at the service level) and runs_out (whether stock may not last until a
    transfer decided a day later arrives) of every series of the items in `told`, per day.

    told: PLACE, stock_on_hand. days: on which the issue of `demand` is in force. Needs transfer_days.
    """
    settings = store.inventory
    where = demand.series["item_id"].is_in(told["item_id"].unique().implode()).arg_true().to_numpy()
    part = Demand(demand.issue, demand.series[where], demand.mean[where], demand.knots[where])
    dated = pl.DataFrame({"as_of_date": days}, schema={"as_of_date": pl.Date}).join(part.series, how="cross", maintain_order="left_right")
    rows = dated.join(told.select(*PLACE, "stock_on_hand"), on=PLACE, how="left", maintain_order="left")
    stock = rows["stock_on_hand"].cast(pl.Float64).fill_null(float("nan")).to_numpy().reshape(len(days), part.series.height)
    arrives, cover = (
        np.full(part.series.height, ahead, dtype=np.int64) for ahead in ((settings.transfer_days or 0) + 1, settings.transfer_cover_days)
    )
    service = np.full(part.series.height, settings.service_level)
    supplies = [Supply((day - demand.issue).days, held, arrives, cover, service) for day, held in zip(days, stock, strict=True)]
    found = simulate(part, [], supplies, store)
    chance = pl.Series(np.concatenate([each.stockout_probability for each in found]))
    return dated.with_columns(
        keeps=pl.Series(np.ceil(np.round(np.concatenate([each.reorder_point for each in found]), 6))), runs_out=chance > 1 - settings.service_level
    )


def transfers(told: pl.DataFrame, needed: pl.DataFrame) -> pl.DataFrame:
    """PLACE and transfer_quantity, whole units: above 0 comes, below 0 goes; an item's sum is 0. Of all places in `told` that sell or give.

    told: PLACE, stock_on_hand, is_room (nothing is sold there: all it holds may go). needed: as `short_term` gives it.
    Where less can be spared than is needed, all are brought to the same share of what they would keep. Those with most to spare give first.
    """
    places = told.select(*PLACE, "is_room", held=pl.col("stock_on_hand").clip(lower_bound=0)).join(needed, on=PLACE, how="left")
    places = places.filter(pl.col("keeps").is_not_null() | pl.col("is_room"))
    over = pl.col("held") - pl.col("keeps").fill_null(0.0)
    wants = pl.when(pl.col("runs_out")).then((-over).clip(lower_bound=0)).fill_null(0.0)
    elsewhere = needed.join(told, on=PLACE, how="anti").group_by(ITEM).agg(reserved=pl.col("keeps").sum())
    placed = (
        places.with_columns(wants=wants, spare=over.clip(lower_bound=0))
        .join(elsewhere, on=ITEM, how="left")
        .with_columns(free=(pl.col("spare").sum().over(ITEM) - pl.col("reserved").fill_null(0.0)).clip(lower_bound=0))
        .with_columns(moved=pl.min_horizontal(pl.col("wants").sum().over(ITEM), "free"))
        .sort(*ITEM, "spare", "location_id", descending=[False, False, True, False])
    )
    before = pl.col("spare").cum_sum().over(ITEM) - pl.col("spare")
    given = placed.select(*PLACE, gives=pl.min_horizontal("spare", (pl.col("moved") - before).clip(lower_bound=0)))
    got = shared(placed.filter(pl.col("wants") > 0), weight="keeps", held="held", total="moved")
    both = given.join(got, on=PLACE, how="left", maintain_order="left")
    return both.select(*PLACE, transfer_quantity=(pl.col("share").fill_null(0) - pl.col("gives")).cast(pl.Int64))


def allocations(orders: pl.DataFrame, series: pl.DataFrame, told: pl.DataFrame) -> pl.DataFrame:
    """PLACE and allocated_quantity, whole units of the item's order meant for each place that sells and tells its stock.

    orders: ITEM, order_quantity. series: PLACE, reorder_point, safety_stock of every series. told: PLACE, stock_on_hand, stock_on_order,
    is_room, transfer_quantity. What is left of an order is for demand of no told place: it counts as one place, which holds what the rooms hold.
    """
    weight = pl.max_horizontal("reorder_point", pl.col("reorder_point") - pl.col("safety_stock"))  # a rare seller's quantile may be 0
    holds = pl.col("stock_on_hand") + pl.col("stock_on_order").fill_null(0) + pl.col("transfer_quantity").fill_null(0)
    stock = told.select(*PLACE, "is_room", held=holds)
    sold = series.select(*PLACE, weight=weight).join(stock, on=PLACE, how="left")
    mine = sold.filter(pl.col("held").is_not_null()).select(*PLACE, "weight", "held")
    rooms = stock.filter("is_room").group_by(ITEM).agg(held=pl.col("held").sum())
    rest = sold.filter(pl.col("held").is_null()).group_by(ITEM).agg(location_id=pl.lit(None, pl.String), weight=pl.col("weight").sum())
    rest = rest.join(rooms, on=ITEM, how="left").with_columns(pl.col("held").fill_null(0))
    members = pl.concat([mine, rest.select(mine.columns)]).join(orders, on=ITEM)
    found = shared(members.filter(pl.col("weight") > 0), weight="weight", held="held", total="order_quantity")
    return mine.join(found, on=PLACE, how="left").select(*PLACE, allocated_quantity=pl.col("share").fill_null(0))


def shared(frame: pl.DataFrame, *, weight: str, held: str, total: str) -> pl.DataFrame:
    """PLACE and share: `total` whole units of each item given out so that all hold the same multiple of their weight, as far as
    those who hold more allow; halves of units go to the largest parts, and among equals by place.

    That multiple is the least over k of what the k poorest would reach if they alone shared: one more member lowers it
    exactly where it is below the others.
    """
    ranked = frame.with_columns(pl.col(weight, held, total).cast(pl.Float64)).sort(
        *ITEM, pl.col(held) / pl.col(weight), "location_id", nulls_last=True
    )
    reached = ((pl.col(total) + pl.col(held).cum_sum()) / pl.col(weight).cum_sum()).over(ITEM)
    exact = ranked.with_columns(level=reached).with_columns(
        exact=(pl.col("level").min().over(ITEM) * pl.col(weight) - pl.col(held)).clip(lower_bound=0)
    )
    whole = exact.with_columns(share=pl.col("exact").floor())
    parts = whole.with_columns(left=(pl.col(total) - pl.col("share").sum()).round().over(ITEM), part=pl.col("exact") - pl.col("share"))
    extra = pl.col("part").rank("ordinal", descending=True).over(ITEM) <= pl.col("left")
    return parts.select(*PLACE, share=(pl.col("share") + extra).cast(pl.Int64))


def moves(plan: pl.DataFrame) -> pl.DataFrame:
    """item_id, from_location, to_location, units of a day's inventory_plan: transfer_quantity as parcels, the largest of each item first.

    As few parcels as places involved, less one: both sides are laid out along the units moved, and each piece that two share is a parcel.
    """
    moved = plan.filter(pl.col("transfer_quantity") != 0).select("item_id", "location_id", units="transfer_quantity")

    def along(side: pl.DataFrame, name: str) -> pl.DataFrame:
        laid = side.sort("item_id", "units", "location_id", descending=[False, True, False])
        end = pl.col("units").cum_sum().over("item_id")
        return laid.select("item_id", pl.col("location_id").alias(name), (end - pl.col("units")).alias(f"{name}_start"), end.alias(f"{name}_end"))

    gives = along(moved.filter(pl.col("units") < 0).with_columns(-pl.col("units")), "from_location")
    gets = along(moved.filter(pl.col("units") > 0), "to_location")
    pairs = gives.join(gets, on="item_id").with_columns(
        units=pl.min_horizontal("from_location_end", "to_location_end") - pl.max_horizontal("from_location_start", "to_location_start")
    )
    return pairs.filter(pl.col("units") > 0).sort(
        "item_id", "from_location_start", "to_location_start"
    ).select("item_id", "from_location", "to_location", "units")
