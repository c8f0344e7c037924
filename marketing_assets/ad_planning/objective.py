"""What the plan maximises: value of expected conversions, less what repetition loses.

What belongs here: objective terms and the counts they imply. What does not: limits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from marketing_assets.ad_planning.inputs import Cells, Floats, Limits, indicator


@dataclass(frozen=True)
class Repetition:
    """Diminishing returns: beyond a number of impressions per user of an audience, a creative's conversions count for less.

    Conversions lost by audience and creative r: sum over steps k of drop_k q_r max(0, N_r - start_k users_r), convex in
    the impressions N_r = (matrix @ x)_r; q_r is the mean of p q over r's cells, weighted by what is on offer.
    """

    matrix: sp.csr_array
    starts: Floats
    conversions_lost: Floats
    value_lost: Floats

    @property
    def is_empty(self) -> bool:
        return self.matrix.shape[0] == 0

    def lost(self, impressions: Floats, weights: Floats) -> float:
        """What these impressions lose, in conversions or value."""
        return 0.0 if self.is_empty else float(weights @ np.maximum(self.matrix @ impressions - self.starts, 0.0))

    def kept_share(self, impressions: Floats, cells: Cells) -> Floats:
        """Share of each cell's conversions kept, the loss spread over an audience and creative's cells alike."""
        if self.is_empty:
            return np.ones(cells.n)
        lost = self.conversions_lost * np.maximum(self.matrix @ impressions - self.starts, 0.0)
        counted = self.matrix.sign()
        planned = counted @ (impressions * cells.conversions)
        share = np.divide(lost, planned, out=np.zeros_like(lost), where=planned > 0)
        return np.asarray(np.clip(1.0 - counted.T @ share, 0.0, 1.0))


def repetition(cells: Cells, limits: Limits) -> Repetition:
    """The repetition terms of the day; empty where none is set or no audience's size is known."""
    steps = [
        (start, before - after)
        for (start, after), before in zip(
            limits.diminishing, [1.0, *(efficiency for _, efficiency in limits.diminishing)], strict=False
        )
        if before > after
    ]
    audiences, audience = cells.by("audience_id")
    creatives, creative = cells.by("creative_id")
    users = np.array([limits.audience_users.get(str(name), np.nan) for name in audiences])
    known = np.isfinite(users)
    pair = np.where(known[audience], audience * len(creatives) + creative, -1)
    levels = np.unique(pair[pair >= 0])
    if not steps or not levels.size:
        return Repetition(sp.csr_array((0, cells.n)), np.zeros(0), np.zeros(0), np.zeros(0))
    index = np.where(pair >= 0, np.searchsorted(levels, pair), -1)
    members = indicator(index, levels.size)
    weight = cells.available[cells.group]
    offered = np.maximum(members @ weight, 1e-300)
    conversions = (members @ (weight * cells.conversions)) / offered
    value = (members @ (weight * cells.value)) / offered
    reach = users[levels // len(creatives)]
    return Repetition(
        sp.vstack([members] * len(steps)).tocsr(),
        np.concatenate([start * reach for start, _ in steps]),
        np.concatenate([drop * conversions for _, drop in steps]),
        np.concatenate([drop * value for _, drop in steps]),
    )


def expected_value(x: Any, cells: Cells, losses: Repetition) -> Any:
    """Sum of x p q v less what repetition loses, as a cvxpy expression."""
    total = cells.value @ x
    return total if losses.is_empty else total - losses.value_lost @ _pos(losses.matrix @ x - losses.starts)


def expected_conversions(x: Any, cells: Cells, losses: Repetition) -> Any:
    """Sum of x p q less what repetition loses, as a cvxpy expression."""
    total = cells.conversions @ x
    return total if losses.is_empty else total - losses.conversions_lost @ _pos(losses.matrix @ x - losses.starts)


def _pos(expression: Any) -> Any:
    """max(0, expression), convex."""
    import cvxpy

    cp: Any = cvxpy
    return cp.pos(expression)
