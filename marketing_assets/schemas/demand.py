"""Tables of demand and stock."""

import pandera.ibis as pa

from marketing_assets.schemas.table import Day, Money, column, table

M5_QUANTILES = (0.005, 0.025, 0.165, 0.25, 0.5, 0.75, 0.835, 0.975, 0.995)
QUANTILE_COLUMNS = {
    0.005: "demand_q005", 0.025: "demand_q025", 0.05: "demand_p05", 0.1: "demand_p10", 0.165: "demand_q165",
    0.25: "demand_q250", 0.5: "demand_q500", 0.75: "demand_q750", 0.835: "demand_q835", 0.9: "demand_p90",
    0.95: "demand_p95", 0.975: "demand_q975", 0.995: "demand_q995",
}


@table(group="demand", kind="issue", key=("as_of_date", "level", "series_id", "date"))
class DemandForecasts(pa.DataFrameModel):
    """One row per series and future day, written on issue days."""

    as_of_date: Day = column("knowledge through the end of this day")
    level: str = column("item, category or shop", isin=["item", "category", "shop"])
    series_id: str = column("item (and location), category, or 'shop'")
    item_id: str = column("item, on level item", nullable=True)
    location_id: str = column("store or region, where the data has one", nullable=True)
    date: Day = column("day forecast")
    horizon_days: int = column("days after as_of_date", ge=1)
    demand_mean: float = column("expected units", ge=0)
    demand_q005: float = column("0.5 % quantile, units", ge=0)
    demand_q025: float = column("2.5 % quantile", ge=0)
    demand_p05: float = column("5 % quantile", ge=0)
    demand_p10: float = column("10 % quantile", ge=0)
    demand_q165: float = column("16.5 % quantile", ge=0)
    demand_q250: float = column("25 % quantile", ge=0)
    demand_q500: float = column("median", ge=0)
    demand_q750: float = column("75 % quantile", ge=0)
    demand_q835: float = column("83.5 % quantile", ge=0)
    demand_p90: float = column("90 % quantile", ge=0)
    demand_p95: float = column("95 % quantile", ge=0)
    demand_q975: float = column("97.5 % quantile", ge=0)
    demand_q995: float = column("99.5 % quantile", ge=0)
    model: str = column("forecaster that won its group's competition")


@table(group="demand", key=("as_of_date", "item_id", "location_id"))
class InventoryPlan(pa.DataFrameModel):
    """One row per item with a stock record, a forecast or both, and per item and location with a forecast or with units to give; orders are of
    the whole item."""

    as_of_date: Day = column("knowledge through the end of this day")
    item_id: str = column("item")
    location_id: str = column("store or region", nullable=True)
    stock_on_hand: int = column("units in stock, where known", nullable=True)
    stock_on_order: int = column("units on order, where known", nullable=True)
    lead_time_days: int = column("days from order to arrival", ge=0)
    safety_stock: float = column("units above the mean of lead-time demand")
    reorder_point: float = column("quantile of demand over lead time and review, units", ge=0)
    order_quantity: int = column("units to order now; 0 of a location", ge=0)
    order_cost: Money = column("order_quantity x unit_cost, where known", nullable=True)
    sellable_units: int = column("units that may be promised tomorrow; null where stock is unknown, and of a location", nullable=True)
    days_of_cover: float = column("days the stock lasts at expected demand", nullable=True, ge=0)
    stockout_probability: float = column("P(demand over the lead time exceeds stock)", nullable=True, ge=0, le=1)
    transfer_quantity: int = column("of a location whose stock is told: units to bring there now, below 0 to take from there", nullable=True)
    allocated_quantity: int = column("of a location whose stock is told: units of the item's order meant for it", nullable=True, ge=0)
