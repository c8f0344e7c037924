"""What a bid buys: the chance to win at a price, and the bid worth making for a given value.

What belongs here: win curves from bid logs of second-price auctions. What does not: which cells to buy (ad_planning).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marketing_assets.response.statistics import Floats


@dataclass(frozen=True)
class WinCurve:
    """Distribution of the market price: prices in order, share of auctions at or below each, and total paid up to each."""

    prices: Floats
    win_rate: Floats
    paid_per_auction: Floats

    def win(self, bid: float) -> float:
        """P(win) at this bid: the share of auctions whose market price lies below or at it."""
        index = int(np.searchsorted(self.prices, bid, side="right")) - 1
        return float(self.win_rate[index]) if index >= 0 else 0.0

    def cost(self, bid: float) -> float:
        """Expected payment per auction entered at this bid, second price."""
        index = int(np.searchsorted(self.prices, bid, side="right")) - 1
        return float(self.paid_per_auction[index]) if index >= 0 else 0.0


@dataclass(frozen=True)
class Bid:
    """A suggested bid with what it should win and pay per auction entered; low and high: 90 % interval of the win rate."""

    bid: float
    win_rate: float
    cost_per_auction: float
    cost_per_win: float
    win_rate_low: float
    win_rate_high: float


def fit_win_curve(market_prices: Floats) -> WinCurve:
    """The empirical curve of observed market prices (every price seen, as in a log of won auctions at a bid above all)."""
    prices, counts = np.unique(np.asarray(market_prices, dtype=float), return_counts=True)
    total = counts.sum()
    if total == 0:
        raise ValueError("fit_win_curve: no market price was given")
    return WinCurve(prices, np.cumsum(counts) / total, np.cumsum(counts * prices) / total)


def suggest_bid(curve: WinCurve, value: float, auctions: int, budget: float | None = None, z: float = 1.645) -> Bid:
    """The bid for an impression worth `value`: the value itself (truthful, second price), lowered where the budget binds.

    auctions: how many are expected; budget: most that may be paid in all. Under a budget the best constant bid is the
    largest whose expected cost fits, value / (1 + shadow price of the budget).
    """
    bid = value
    if budget is not None and curve.cost(bid) * auctions > budget:
        fitting = np.flatnonzero(curve.paid_per_auction * auctions <= budget)
        bid = min(value, float(curve.prices[fitting[-1]])) if fitting.size else 0.0
    rate, cost = curve.win(bid), curve.cost(bid)
    spread = z * float(np.sqrt(rate * (1 - rate) / max(auctions, 1)))
    return Bid(bid, rate, cost, cost / rate if rate > 0 else 0.0, max(rate - spread, 0.0), min(rate + spread, 1.0))
