"""The closed-loop trial: the same shop run by common practice, by this system and by one who knows the truth.

What belongs here: arms, days, and what their truth says of the system. What does not: any shop (sample_shop/, or one named
as module:Class), and anything the system itself computes.
"""

from __future__ import annotations

from marketing_assets.control import Verdict
from marketing_assets.trial.repair import act_on_verdicts, verdicts_of
from marketing_assets.trial.run import run_trial
from marketing_assets.trial.shops import SHOP, TrialError, TrialShop

__all__ = ["SHOP", "TrialError", "TrialShop", "Verdict", "act_on_verdicts", "run_trial", "verdicts_of"]
