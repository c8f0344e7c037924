"""Forecasts under other prices and promotions: what a response rests on, what may be tried, and what it comes to in money."""

from __future__ import annotations

from datetime import date, timedelta
from importlib import import_module
from typing import Any

import numpy as np
import polars as pl
import pytest

from marketing_assets.config import SourceBlock
from marketing_assets.forecasting import WhatIfError, in_money, read_drivers, what_if
from marketing_assets.forecasting.competition import BASELINE, GROUPS
from marketing_assets.forecasting.effects import driver_columns, fit_effects
from marketing_assets.forecasting.fits import DemandModel
from marketing_assets.forecasting.history import DemandHistory
from marketing_assets.forecasting.level_calendar import fit_levels
from marketing_assets.forecasting.responses import drawn_coefficients
from marketing_assets.warehouse import days_between, reader_over
from marketing_assets_tests.test_forecasting import FIRST, conform, panel_of, promoted_shop, raw_drivers, reader_until, shop

LAST = FIRST + timedelta(days=119)
AHEAD = [LAST + timedelta(days=number) for number in range(1, 29)]
ELASTICITY = -1.5
MAPPED = dict.fromkeys(("item_id", "date", "known_at", "unit_price", "is_promotion"), "x")
STORE = shop().model_copy(update={"sources": {
    "item_drivers": SourceBlock(files="d{date}.csv", columns=MAPPED),
    "market_days": SourceBlock(files="m{date}.csv", columns={"date": "x", "is_promotion": "x"}),
}})  # fmt: skip


def shop_of_prices(seed: int = 1) -> dict[str, pl.DataFrame]:
    """20 items at a list price of 10. Drivers tell of prices on promotions only, 5 to 40 % off; the whole shop sells half as much again on
    sale days at usual prices. A promotion does nothing but for its price."""
    rng = np.random.default_rng(seed)
    sold, drivers = [], []
    for number, day in enumerate(days_between(FIRST, LAST)):
        is_sale = number % 10 == 0
        for item in range(20):
            is_on = (number + 3 * item) % 7 == 0
            price = round(10 * (1 - float(rng.choice([0.05, 0.1, 0.2, 0.4]))), 2) if is_on else 10.0
            units = int(rng.poisson(12 * (price / 10) ** ELASTICITY * (1.5 if is_sale else 1.0)))
            sold.append({"landed_date": day, "event_date": day, "item_id": f"i{item}", "units_sold": units, "revenue": units, "gross_revenue": units})
            if is_on:
                drivers.append({"landed_date": day, "item_id": f"i{item}", "date": day, "known_at": f"{day} 08:00:00", "unit_price": price,
                                "is_promotion": True})  # fmt: skip
    zeros = dict.fromkeys(("units_returned", "orders", "views", "carts", "reviews", "ratings", "rating_total"), 0)
    market = [{"landed_date": FIRST, "date": day, "is_promotion": number % 10 == 0} for number, day in enumerate(days_between(FIRST, LAST))]
    items = [
        {"as_of_date": FIRST + timedelta(days=28 * turn), "item_id": f"i{item}", "title": f"item {item}", "unit_price": 10, "unit_cost": 6,
         "has_list_price": True, "first_seen_date": FIRST, "is_service": False}
        for turn in range(5) for item in range(20)
    ]  # fmt: skip
    return {
        "item_days": conform("item_days", [{**row, **zeros} for row in sold]), "raw_item_drivers": raw_drivers(drivers),
        "raw_market_days": raw_drivers(market), "items": conform("items", items),
    }


def tried(frames: dict[str, pl.DataFrame], **driver: Any) -> float:
    """Expected units of all items over 28 days with this driver throughout, over what they are expected to be as known."""
    rows = pl.DataFrame([{"item_id": f"i{item}", "date": day, **driver} for item in range(20) for day in AHEAD])
    found = what_if(reader_over(frames, STORE, LAST), LAST, STORE, rows)
    return float(found["demand_mean"].sum() / found["demand_mean_before"].sum())


def test_a_response_to_prices_is_learnt_from_promotions_though_drivers_tell_no_usual_price() -> None:
    """The usual price was taken for that of the last promotion, and a cut of 20 % for no change."""
    frames = shop_of_prices()
    assert tried(frames, unit_price=8.0) == pytest.approx(0.8**ELASTICITY, rel=0.08)
    assert tried(frames, unit_price=12.0) == pytest.approx(1.2**ELASTICITY, rel=0.08)
    assert tried(frames, unit_price=10.0) == pytest.approx(1.0, abs=1e-9)
    assert tried(frames, is_promotion=True) < 1.1, "promotions do nothing but for their prices, whatever sales of the whole shop do"


def test_days_without_a_told_price_have_the_list_price_in_force() -> None:
    frames = shop_of_prices()
    dearer = pl.when(pl.col("as_of_date") >= FIRST + timedelta(days=56)).then(12).otherwise(10)
    frames["items"] = frames["items"].with_columns(unit_price=dearer.cast(frames["items"].schema["unit_price"]))
    for issues in ([LAST], [LAST - timedelta(days=70), LAST]):
        panel = DemandHistory(reader_until(LAST, STORE, frames), issues, STORE, 28).panel(LAST)
        usual = np.nan_to_num(panel.drivers["promotion"]) == 0
        day = np.broadcast_to(np.arange(usual.shape[1]) + (panel.start - FIRST).days, usual.shape)
        assert set(panel.drivers["price"][usual & (day < 56)]) == {10.0} and set(panel.drivers["price"][usual & (day >= 56)]) == {12.0}
    early = DemandHistory(reader_until(LAST, STORE, frames), issues, STORE, 28).panel(issues[0])
    assert set(early.drivers["price"][np.nan_to_num(early.drivers["promotion"]) == 0]) == {10.0}, "nothing of later prices"
    for items in (frames["items"].clear(), frames["items"].with_columns(has_list_price=pl.lit(False))):
        panel = DemandHistory(reader_until(LAST, STORE, {**frames, "items": items}), [LAST], STORE, 28).panel(LAST)
        assert np.isnan(panel.drivers["price"][np.nan_to_num(panel.drivers["promotion"]) == 0]).all(), "it is unknown without a list"


def test_list_prices_that_move_are_a_driver_of_their_own() -> None:
    """No item_drivers: half of the items grow dearer, the others cheaper, and demand follows."""
    rng = np.random.default_rng(4)
    usual, later, change = [10.0] * 20, [13.0 if item % 2 else 8.0 for item in range(20)], FIRST + timedelta(days=60)
    prices = {day: usual if day < change else later for day in days_between(FIRST, LAST)}
    frames = shop_of_prices()
    sold = pl.DataFrame([
        {"event_date": day, "item_id": f"i{item}", "sold": int(rng.poisson(12 * (price / 10) ** ELASTICITY))}
        for day, row in prices.items() for item, price in enumerate(row)
    ])  # fmt: skip
    days = frames["item_days"].join(sold, on=["event_date", "item_id"]).with_columns(units_sold=pl.col("sold").cast(pl.Int64)).drop("sold")
    moved = pl.DataFrame([
        {"as_of_date": day, "item_id": f"i{item}", "price": prices[day][item]}
        for day in [FIRST + timedelta(days=number) for number in (0, 28, 56, 60, 84, 112)] for item in range(20)
    ])  # fmt: skip
    items = moved.join(frames["items"].unique("item_id").drop("as_of_date", "unit_price"), on="item_id").rename({"price": "unit_price"})
    reader = reader_over({"item_days": days, "items": conform("items", items)}, shop(), LAST)
    panel = DemandHistory(reader, [LAST], shop(), 28).panel(LAST)
    assert panel.drivers["price"][:2, [0, 59, 60, -1]].tolist() == [[10, 10, 8, 8], [10, 10, 13, 13]]
    rows = pl.DataFrame([{"item_id": "i1", "date": day, "unit_price": 10.0} for day in AHEAD])
    found = what_if(reader, LAST, shop(), rows)
    ratio = float(found["demand_mean"].sum() / found["demand_mean_before"].sum())
    assert 1.15 < ratio < (10 / 13) ** ELASTICITY, "what lasts is taken for a change of the level in part"
    still = conform("items", items.with_columns(unit_price=pl.lit(10.0)))
    reader = reader_over({"item_days": days, "items": still}, shop(), LAST)
    with pytest.raises(WhatIfError, match="no unit_price that moved"):
        what_if(reader, LAST, shop(), rows)


def test_nobody_buys_more_because_it_is_dearer() -> None:
    """By chance demand rose with prices: no response is what is left, for the shop and for each item."""
    rng = np.random.default_rng(2)
    price = rng.choice([8.0, 10.0, 12.0], (15, 120))
    units = rng.poisson(5 * (price[:, :113] / 10) ** 1.5)
    units[0] = rng.poisson(20 * (price[0, :113] / 10) ** -2.0)
    effects = fit_levels(panel_of(units, drivers={"price": price})).effects
    place = effects.names.index("price")
    total = effects.pooled[place] + effects.own[:, place]
    assert effects.pooled[place] == 0, "that of an item is not drawn to a wrong one either"
    assert (total <= 0).all() and (total[1:] > -0.5).all() and np.median(total) == 0
    assert total[0] == pytest.approx(-2.0, abs=0.4), "the one that demand did fall for keeps it"


def test_what_if_moves_only_what_it_names_and_refuses_what_it_cannot_try() -> None:
    store, day = shop(sources=("events", "item_drivers")), FIRST + timedelta(days=77)
    reader = reader_over(promoted_shop(), store, day)
    target = day + timedelta(days=1)  # day 78: item 2 is on promotion
    found = what_if(reader, day, store, pl.DataFrame({"item_id": ["i2", "i3"], "date": [target, target], "is_promotion": [False, True]}))
    of_day = {row["item_id"]: row for row in found.filter(pl.col("date") == target).to_dicts()}
    assert of_day["i2"]["demand_mean"] < 0.7 * of_day["i2"]["demand_mean_before"]
    assert of_day["i3"]["demand_mean"] > 1.5 * of_day["i3"]["demand_mean_before"]
    with pytest.raises(WhatIfError, match="nobody"):
        what_if(reader, day, store, pl.DataFrame({"item_id": ["nobody"], "date": [target], "is_promotion": [True]}))
    with pytest.raises(WhatIfError, match="unit_price"):
        what_if(reader, day, store, pl.DataFrame({"item_id": ["i1"], "date": [target], "unit_price": [3.0]}))
    with pytest.raises(WhatIfError, match="within 28 days"):
        what_if(reader, day, store, pl.DataFrame({"item_id": ["i1"], "date": [day], "is_promotion": [True]}))


def test_rows_that_name_no_place_or_stand_twice() -> None:
    frames = shop_of_prices()
    reader = reader_over(frames, STORE, LAST)
    twice = pl.DataFrame({"item_id": ["i1", "i1"], "date": AHEAD[:1] * 2, "unit_price": [5.0, 10.0]})
    found = what_if(reader, LAST, STORE, twice)
    assert found["demand_mean"].to_list() == pytest.approx(found["demand_mean_before"].to_list()), "the last row counts"
    with pytest.raises(WhatIfError, match="i1 is not forecast in north"):
        what_if(reader, LAST, STORE, twice.with_columns(location_id=pl.lit("north")))


def test_money_is_units_times_the_price_of_each_day() -> None:
    frames = shop_of_prices()
    frames["items"] = frames["items"].with_columns(
        unit_cost=pl.when(pl.col("item_id") != "i2").then("unit_cost"), title=pl.when(pl.col("item_id") != "i2").then("title")
    )
    reader = reader_over(frames, STORE, LAST)
    rows = pl.DataFrame({"item_id": ["i1"] * 28 + ["i2"] * 7, "date": AHEAD + AHEAD[:7], "unit_price": [8.0] * 28 + [9.0] * 7})
    found = what_if(reader, LAST, STORE, rows)
    items, total = in_money(reader, LAST, found)
    money = {row["item_id"]: row for row in items.to_dicts()}
    units = {name: part["demand_mean"].to_numpy() for (name,), part in found.group_by("item_id", maintain_order=True)}
    before = {name: part["demand_mean_before"].to_numpy() for (name,), part in found.group_by("item_id", maintain_order=True)}
    assert money["i1"]["title"] == "item 1" and money["i2"]["title"] == "i2"
    assert money["i1"]["units"] == pytest.approx(units["i1"].sum()) and money["i1"]["units_before"] == pytest.approx(before["i1"].sum())
    assert money["i1"]["revenue"] == pytest.approx(8 * units["i1"].sum()) and money["i1"]["margin"] == pytest.approx(2 * units["i1"].sum())
    assert money["i1"]["revenue_before"] == pytest.approx(10 * before["i1"].sum())
    assert money["i1"]["margin_before"] == pytest.approx(4 * before["i1"].sum())
    assert money["i2"]["revenue"] == pytest.approx(9 * units["i2"][:7].sum() + 10 * units["i2"][7:].sum())
    assert total["margin"] is None and total["margin_low"] is None
    assert total["units"] == pytest.approx(units["i1"].sum() + units["i2"].sum())
    assert money["i2"]["margin"] is None and money["i2"]["margin_before"] is None, "its cost is not known"
    drawn = found.select("item_id", "unit_price", pl.col("demand_drawn").arr.to_list()).to_dicts()
    worlds = [sum(row["demand_drawn"][world] * row["unit_price"] for row in drawn if row["item_id"] == "i1") for world in range(400)]
    assert [money["i1"]["revenue_low"], money["i1"]["revenue_high"]] == pytest.approx(np.quantile(worlds, [0.05, 0.95]), rel=1e-5)
    worlds = [sum(row["demand_drawn"][world] for row in drawn) for world in range(400)]
    assert [total["units_low"], total["units_high"]] == pytest.approx(np.quantile(worlds, [0.05, 0.95]), rel=1e-5)


def test_where_drivers_tell_no_prices_money_is_of_list_prices() -> None:
    store, day = shop(sources=("events", "item_drivers")), FIRST + timedelta(days=77)
    frames = {**promoted_shop(), "items": shop_of_prices()["items"]}
    rows = pl.DataFrame({"item_id": ["i3"], "date": [day + timedelta(days=1)], "is_promotion": [True]})
    reader = reader_until(day, store, frames)
    found = what_if(reader, day, store, rows)
    money = in_money(reader, day, found)[0].row(0, named=True)
    assert money["revenue"] == pytest.approx(10 * found["demand_mean"].sum()) and money["revenue"] > money["revenue_before"]


def test_a_file_of_drivers_is_read_and_refused_by_line() -> None:
    text = b"item_id,date,end_date,unit_price,is_promotion\n001,2026-05-05,2026-05-07,9.5,Yes\n2,2026-05-05,,,0\n"
    rows = read_drivers(text, "x.csv")
    assert rows["item_id"].to_list() == ["001", "001", "001", "2"] and rows["unit_price"].to_list() == [9.5, 9.5, 9.5, None]
    assert rows["date"].to_list() == [date(2026, 5, 5), date(2026, 5, 6), date(2026, 5, 7), date(2026, 5, 5)]
    assert rows["is_promotion"].to_list() == [True, True, True, False]
    for line, said in (
        ("a,05.05.2026,,1,", "line 2: date '05.05.2026' cannot be used"), ("a,2026-05-05,soon,1,", "line 2: end_date 'soon' cannot be used"),
        ("a,2026-05-05,,cheap,", "line 2: unit_price 'cheap' cannot be used"), ("a,2026-05-05,,0,", "line 2: unit_price '0' cannot be used"),
        ("a,2026-05-05,,nan,", "line 2: unit_price 'nan' cannot be used"), ("a,2026-05-05,,1,maybe", "line 2: is_promotion 'maybe' cannot be used"),
        (",2026-05-05,,1,", "line 2 lacks item_id or date"), ("a,,,1,", "line 2 lacks item_id or date"),
        ("a,2026-05-05,2026-05-01,1,", "line 2 ends before it begins"),
    ):  # fmt: skip
        with pytest.raises(WhatIfError) as refused:
            read_drivers(f"item_id,date,end_date,unit_price,is_promotion\n{line}\n".encode(), "x.csv")
        assert str(refused.value) == f"x.csv: {said}"
    with pytest.raises(WhatIfError, match=r"x.csv: columns must be item_id, date and any of .*; found item_id, price"):
        read_drivers(b"item_id,price\na,1\n", "x.csv")
    with pytest.raises(WhatIfError, match=r"x.csv: cannot be read as CSV"):
        read_drivers(b"", "x.csv")


def trading(seed: int, weekly: float = 0.0) -> tuple[Any, float]:
    """A panel of 20 items with one price course for all, and its elasticity; weeks differ by chance, all items alike."""
    rng = np.random.default_rng(seed)
    elasticity = float(rng.uniform(-2.5, -0.5))
    price = np.full(127, 10.0)
    for first in range(int(rng.integers(0, 10)), 120, 14):
        price[first : first + 3] = 10 * (1 - rng.choice([0.1, 0.2, 0.3]))
    price = np.where(rng.random((20, 127)) < 0.02, 0.95 * price, price)
    week = np.repeat(weekly * rng.standard_normal(18), 7)[:120]
    return panel_of(rng.poisson(8 * (price[:, :120] / 10) ** elasticity * np.exp(week)), drivers={"price": price}), elasticity


def test_the_interval_of_a_response_holds_what_is_true_though_whole_weeks_differ() -> None:
    """Counted day by day and item by item, chance that a week has in common would look like knowledge."""
    held, widths = 0, []
    for seed in range(40):
        panel, elasticity = trading(seed, weekly=0.2)
        drawn = drawn_coefficients(fit_levels(panel), np.arange(20), 400, seed)[:, :, 0].mean(axis=1)
        low, high = np.quantile(drawn, [0.05, 0.95])
        held += low <= elasticity <= high
        widths.append(high - low)
    assert 32 <= held <= 40, "36 of 40 are asked for"
    calm = [np.ptp(np.quantile(drawn_coefficients(fit_levels(trading(seed)[0]), np.arange(20), 400, seed)[:, :, 0].mean(axis=1), [0.05, 0.95]))
            for seed in range(40)]  # fmt: skip
    assert np.median(calm) < 0.6 * np.median(widths), "and it is as wide as chance makes it"


def test_the_spread_of_what_series_share_is_that_of_fits_without_a_week() -> None:
    panel, _ = trading(3, weekly=0.2)
    levels = fit_levels(panel)
    fits = []
    for week in range(0, 120, 7):
        seen = levels.is_observed.copy()
        seen[:, week : week + 7] = False
        fits.append(fit_effects(panel, levels.shape, levels.units, seen).pooled[0])
    refitted = np.sqrt((len(fits) - 1) * np.var(fits))
    drawn = drawn_coefficients(levels, np.arange(20), 4000, 1)[:, :, 0].mean(axis=1)
    # tails of a t: its middle is compared
    assert np.ptp(np.quantile(drawn, [0.16, 0.84])) / 2 == pytest.approx(refitted, rel=0.25)


def test_where_the_past_tells_nothing_the_prior_is_what_is_left() -> None:
    panel = panel_of(np.full((4, 113), 0), drivers={"price": np.where(np.arange(120) % 5 == 0, 9.0, 10.0) * np.ones((4, 1))})
    drawn = drawn_coefficients(fit_levels(panel), np.arange(4), 4000, 1)[:, :, 0]
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    # -1 +- 1 of all and +- 1 of its own, never above 0
    assert np.all(high == 0) and low == pytest.approx(np.full(4, -1 - 1.645 * 2**0.5), rel=0.35)


def test_what_does_not_look_at_drivers_answers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reader_over(shop_of_prices(), STORE, LAST)
    rows = pl.DataFrame({"item_id": ["i1"] * 28, "date": AHEAD, "unit_price": [8.0] * 28})
    spread = what_if(reader, LAST, STORE, rows)["demand_drawn"].to_numpy()
    assert (np.ptp(spread, axis=1) > 0).all()
    winners = dict.fromkeys(GROUPS, BASELINE)
    monkeypatch.setattr(import_module("marketing_assets.forecasting.what_if"), "_in_force", lambda *_: DemandModel(winners, None))
    found = what_if(reader, LAST, STORE, rows)
    drawn = found["demand_drawn"].to_numpy()
    assert np.ptp(drawn, axis=1).max() == 0 and drawn[:, 0] == pytest.approx(found["demand_mean"].to_numpy(), rel=1e-6)


def test_a_promotion_is_tried_only_where_one_was_seen() -> None:
    """Drivers tell of promotions, and there never was one."""
    frames = shop_of_prices()
    frames["raw_item_drivers"] = frames["raw_item_drivers"].with_columns(is_promotion=pl.lit(False))
    rows = pl.DataFrame({"item_id": ["i1"], "date": AHEAD[:1], "is_promotion": [True]})
    store = STORE.model_copy(update={"sources": {"item_drivers": STORE.sources["item_drivers"]}})
    with pytest.raises(WhatIfError, match="no is_promotion that moved"):
        what_if(reader_over(frames, store, LAST), LAST, store, rows)


def test_ad_spend_that_is_planned_does_not_change_what_past_spend_was_worth() -> None:
    spend = np.where(np.arange(120) % 4 == 0, 50.0, 0.0) * np.ones((3, 1))
    spend[2] = 0.0
    usual = driver_columns(panel_of(np.ones((3, 113)), drivers={"ad_spend": spend}), np.zeros(120, dtype=bool))["ad_spend"]
    spend[:, 113:] = 500.0
    planned = driver_columns(panel_of(np.ones((3, 113)), drivers={"ad_spend": spend}), np.zeros(120, dtype=bool))["ad_spend"]
    assert (usual[:, :113] == planned[:, :113]).all()
    assert planned[:, 113:] == pytest.approx(np.log(11)), "ten times the usual day's, of all items for one that had none"
