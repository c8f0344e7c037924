"""Calibrated click and conversion probabilities of every plan cell, what it costs, what it brings and how often it is on offer.

What belongs here: impressions, credited conversions and platform reports turned into `response_rates`, and how well
yesterday's rates met today's clicks (`response_calibration`). What does not: how many impressions to buy (ad_planning),
which conversion belongs to which impression (cleaning), or the value of other plans (off_policy).
"""

from __future__ import annotations

from marketing_assets.response.bids import Bid, WinCurve, fit_win_curve, suggest_bid
from marketing_assets.response.build import build_response
from marketing_assets.response.calibration import BetaCalibration, calibration_verdict, fit_beta
from marketing_assets.response.shrinkage import Effects, fit_effects

__all__ = [
    "BetaCalibration",
    "Bid",
    "Effects",
    "WinCurve",
    "build_response",
    "calibration_verdict",
    "fit_beta",
    "fit_effects",
    "fit_win_curve",
    "suggest_bid",
]
