"""When the shop sells: closed days, holidays and the pattern of the week, for the shop as a whole.

What belongs here: what a day is worth before any item is looked at. What does not: levels of items (level_calendar.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
from dateutil.easter import easter  # type: ignore[import-untyped]

from marketing_assets.forecasting.panel import Flags, Floats, Integers, Panel

CLOSED_OCCURRENCES = 6
"""Newest occurrences of a weekday looked at; one sale-less in all but one of them counts as closed."""
SHAPE_OCCURRENCES = 12
"""Newest occurrences of a weekday its share is taken from."""
SMALLEST_SHARE = 0.01
"""A day on which less of the usual trade was possible says nothing of the shop."""
BUSY_SERIES = 8
"""A day without any sale counts as closed where a usual day sees this many series sell; in a smaller shop it may be chance."""
LOCAL_DAYS = 14
"""A day is compared with the usual days within so many on either side."""
SHAPE_POWER = 0.9
"""The week's pattern is drawn a little towards flat: it rests on few weeks."""
FEAST_DAYS = 70
"""Feasts that move with Easter, from carnival to Corpus Christi, lie within so many days of it."""
HOLIDAY_PRIOR = 1.0
"""Days of usual trade (or of none, in a shop with closed weekdays) a holiday's effect is shrunk to."""

AROUND_HOLIDAY = 4
"""Days within so many of a holiday have a trade of their own."""
USUAL_NOISE = 4.0
"""What such a day did a year ago counts by 1 - this / t^2: nothing up to twice the noise of usual days."""
LARGEST_ODDITY = 2.0
"""Log of a day's units over what was usual around it is kept within this."""
NEARLY_ALWAYS = 0.9
"""A shop sells on at least this share of its open days, or one day of it says nothing."""


def public_holidays(country: str | None, start: date, end: date) -> set[date]:
    """Public holidays of a country that hold in at least half of its regions. country: ISO code; None gives none."""
    if country is None:
        return set()
    import holidays

    years = range(start.year, end.year + 1)
    national = holidays.country_holidays(country, years=years)
    regions = [holidays.country_holidays(country, subdiv=region, years=years) for region in national.subdivisions]
    candidates = set(national).union(*regions)
    widely = {day for day in candidates if day in national or 2 * sum(day in region for region in regions) >= len(regions)}
    return {day for day in widely if start <= day <= end}


def sale_less_days(panel: Panel) -> Flags:
    """(T,) known days on which the whole shop sold nothing although many series sell on a usual day."""
    selling = (panel.units > 0).sum(axis=0)
    if not (selling > 0).any() or float(np.median(selling[selling > 0])) < BUSY_SERIES:
        return np.zeros(panel.known, dtype=np.bool_)
    return np.asarray(selling == 0)


def day_shape(panel: Panel, totals: Floats | None = None, has_holidays: bool = True) -> Floats:
    """(T + horizon,) what each day is worth relative to a usual open day; 0 where the shop is closed.

    Known days are 0 exactly where the shop was closed. Future ones follow the weekday's newest occurrences and what past
    holidays did. totals: (T,) `present_totals` with bulk orders cut, else of the panel's own units. has_holidays: False for those
    who are open on holidays, which are then days of their week.
    """
    totals = present_totals(panel, panel.units) if totals is None else totals
    known, place = panel.known, panel.season_place
    is_closed = sale_less_days(panel)
    is_holiday = panel.is_holiday
    share = np.ones(panel.season)
    is_off = np.zeros(panel.season, dtype=np.bool_)
    usual = _local_level(totals, is_closed | is_holiday[:known])
    for season_place in range(panel.season):
        days = np.flatnonzero((place[:known] == season_place) & ~is_holiday[:known])
        newest = days[-CLOSED_OCCURRENCES:]
        is_off[season_place] = newest.size >= 2 and is_closed[newest].sum() >= max(2, newest.size - 1)
        sold = days[~is_closed[days]][-SHAPE_OCCURRENCES:]
        if sold.size >= 2 and usual[sold].sum() > 0:
            share[season_place] = (totals[sold].sum() / usual[sold].sum()) ** SHAPE_POWER
    share[is_off] = 0.0
    if (share > 0).any():
        share /= share[share > 0].mean()
    shape = share[place]
    if has_holidays:
        shape[is_holiday] *= _holiday_factor(totals, usual, share[place[:known]], is_holiday[:known], bool(is_off.any()))
    # what is known to have happened goes before what the week suggests
    shape[:known] = np.where(is_closed, 0.0, np.where(shape[:known] > 0, shape[:known], 1.0))
    return shape


def present_totals(panel: Panel, units: Floats) -> Floats:
    """(T,) units of the shop, as if every series could have been sold: days on which many are blocked weigh what the others sold."""
    usual = units.mean(axis=1)
    present = np.where(panel.is_blocked & (units == 0), 0.0, usual[:, None]).sum(axis=0)
    share = present / max(float(usual.sum()), 1e-12)
    totals: Floats = np.divide(units.sum(axis=0), share, out=np.zeros(panel.known), where=share > SMALLEST_SHARE)
    return totals


def around_holidays(panel: Panel, totals: Floats, worth: Floats) -> Floats:
    """(horizon,) what days around holidays ahead are worth over their usual: as around the same holiday a year ago; else 1.

    totals, worth: (T,) of the shop. 0 where it was closed then on a day that is not one of its closed weekdays, unless anything is
    told to be open now. What was sold then is drawn to the usual by the noise of days.
    """
    known, factor = panel.known, np.ones(panel.horizon)
    is_open = worth > 0
    is_sold = is_open & (totals > 0)
    then = _year_before(panel)
    steps = np.flatnonzero(then >= 0)
    if not steps.size or is_sold.sum() < NEARLY_ALWAYS * is_open.sum():
        return factor
    then = then[steps]
    rate = np.divide(totals, worth, out=np.zeros(known), where=is_open)
    usual = _local_level(rate, ~is_open)
    odd = np.log(np.divide(rate, usual, out=np.ones(known), where=is_sold))
    # of a normal distribution, the variance by the median deviation
    noise = (1.4826 * float(np.median(np.abs(odd[is_sold])))) ** 2
    told = odd[then] * np.maximum(1 - USUAL_NOISE * noise / np.maximum(odd[then] ** 2, 1e-12), 0.0)
    place = panel.season_place[:known]
    was_closed = ~is_open[then] & np.array([is_open[place == place[day]].mean() > 0.5 for day in then])
    if "closed" in panel.drivers:
        was_closed &= ~(panel.drivers["closed"][:, known + steps] == 0).any(axis=0)
    factor[steps] = np.round(np.where(was_closed, 0.0, np.exp(np.clip(told, -LARGEST_ODDITY, LARGEST_ODDITY))), 6)
    return factor


def _year_before(panel: Panel) -> Integers:
    """(horizon,) column of the day that lay as far from the same holiday a year before, -1 where there is none. Holidays themselves have none.

    The same holiday: on the same date, as far from Easter, or on the same weekday of about the same week.
    """
    found = np.full(panel.horizon, -1, dtype=np.int64)
    holidays = set(np.flatnonzero(panel.is_holiday).tolist())
    if panel.step_days != 1 or not holidays:
        return found
    days = future_days(panel.end, panel.horizon)
    moved = years_before(days, 1)
    for step, day in enumerate(days):
        column = panel.known + step
        if column in holidays:
            continue
        ordinals = (int(moved["date"][step, 0]), int(moved["feast"][step, 0]), day.toordinal() - 364, day.toordinal() - 371)
        for offset in sorted((each - column for each in holidays if abs(each - column) <= AROUND_HOLIDAY), key=lambda one: (abs(one), one)):
            places = [ordinal - panel.start.toordinal() for ordinal in ordinals]
            same = [place for place in places if 0 <= place < panel.known and place not in holidays and place + offset in holidays]
            if same:
                found[step] = same[0]
                break
    return found


def open_on_holidays(panel: Panel) -> Flags:
    """(n, T + horizon) holidays of the shop on which a series is told to be open, such as a place in a region that does not keep them."""
    closed = panel.drivers.get("closed", np.full((panel.count, panel.known + panel.horizon), np.nan))
    return np.asarray(panel.is_holiday[None, :] & (closed == 0))


def closed_ahead(panel: Panel) -> Flags:
    """(n, horizon) days on which a series is known not to be sold: announced, or as on nearly all its newest days of that weekday."""
    known, place = panel.known, panel.season_place
    announced = np.nan_to_num(panel.drivers.get("closed", np.zeros((panel.count, known + panel.horizon))))[:, known:] > 0
    idle = panel.is_blocked & (panel.units == 0)
    is_open_at_all = idle[:, max(0, known - CLOSED_OCCURRENCES * panel.season) :].mean(axis=1) < 0.5 if known else np.zeros(panel.count)
    regularly = np.zeros((panel.count, panel.season), dtype=np.bool_)
    for each in range(panel.season):
        days = np.flatnonzero(place[:known] == each)[-CLOSED_OCCURRENCES:]
        if len(days) >= 2:
            regularly[:, each] = (idle[:, days].sum(axis=1) >= max(2, len(days) - 1)) & is_open_at_all
    # an announced opening goes before the habit
    told = np.isfinite(panel.drivers["closed"][:, known:]) if "closed" in panel.drivers else np.zeros(announced.shape, dtype=np.bool_)
    return np.asarray(announced | (regularly[:, place[known:]] & ~told))


def _local_level(totals: Floats, is_unusual: Flags) -> Floats:
    """(T,) mean of the usual days within LOCAL_DAYS on either side."""
    days = np.arange(totals.size)
    low, high = np.maximum(days - LOCAL_DAYS, 0), np.minimum(days + LOCAL_DAYS + 1, totals.size)

    def around(values: Floats) -> Floats:
        running = np.concatenate([[0.0], np.cumsum(values)])
        sums: Floats = running[high] - running[low]
        return sums

    weight = around((~is_unusual).astype(np.float64))
    sums = around(np.where(is_unusual, 0.0, totals))
    level: Floats = np.divide(sums, weight, out=np.zeros_like(sums), where=weight > 0)
    return level


def _holiday_factor(totals: Floats, usual: Floats, share: Floats, is_holiday: npt.NDArray[np.bool_], has_days_off: bool) -> float:
    """Trade on holidays over what the weekday would have seen; 0 where every holiday so far was without a sale."""
    days = is_holiday & (share > 0)
    expected = float((usual * share)[days].sum())
    sold = float(totals[days].sum())
    if not days.any() or expected <= 0:
        return 0.0 if has_days_off else 1.0
    if sold <= 0.02 * expected:
        return 0.0
    weight = days.sum() / (days.sum() + HOLIDAY_PRIOR)
    return float(weight * min(sold / expected, 3.0) + (1 - weight))


def days_from_easter(days: Sequence[date]) -> Floats:
    """(len(days),) days since the nearest Easter Sunday of the western churches, negative before it."""
    return np.array([(day - _nearest_easter(day)).days for day in days], dtype=np.float64)


def years_before(days: Sequence[date], years: int) -> dict[str, npt.NDArray[np.int64]]:
    """'date', 'feast' -> (len(days), years): ordinals of the same date one or more years back, and of the day as far from Easter then.

    0 where the day lies further than FEAST_DAYS from Easter: what moves with it is then no feast.
    """
    found = {name: np.zeros((len(days), years), dtype=np.int64) for name in ("date", "feast")}
    for row, day in enumerate(days):
        sunday = _nearest_easter(day)
        for back in range(1, years + 1):
            # the 29th of February counts as the day after the 28th
            found["date"][row, back - 1] = date(day.year - back, day.month, 1).toordinal() + day.day - 1
            if abs((day - sunday).days) <= FEAST_DAYS:
                found["feast"][row, back - 1] = easter(sunday.year - back).toordinal() + (day - sunday).days
    return found


def _nearest_easter(day: date) -> date:
    sundays: list[date] = [easter(year) for year in (day.year - 1, day.year, day.year + 1)]
    return min(sundays, key=lambda sunday: abs((day - sunday).days))


def future_days(end: date, horizon: int) -> Sequence[date]:
    """The days forecast after `end`."""
    return [end + timedelta(days=step) for step in range(1, horizon + 1)]
