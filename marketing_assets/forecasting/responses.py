"""How far it is open what drivers do: draws of their coefficients, and of the response to other drivers on days ahead.

What belongs here: the uncertainty of effects.py. What does not: the effects themselves, forecasts under other drivers (what_if.py).

What all series share is known as well as it holds when one week at a time is left out, in one step (the jackknife form of clustered
standard errors, CR3, with degrees of freedom of its own; Bell and McCaffrey 2002): what a whole week has in common counts once, however
many series show it. What a series has of its own is known by the curvature at its mode. Where the past tells nothing, priors are left.
"""

from __future__ import annotations

import numpy as np

from marketing_assets.forecasting.effects import LARGEST_EFFECT, OVERDISPERSION, POOLED, SERIES_DEVIATION, SIGNS, local_level
from marketing_assets.forecasting.level_calendar import Levels
from marketing_assets.forecasting.panel import Floats, Integers, Singles

WEEK = 7
FEWEST_FREEDOM = 2.0


def drawn_responses(before: Levels, after: Levels, rows: Integers, draws: int, seed: int) -> Singles:
    """(len(rows), horizon, draws) what the drivers of `after` do to demand beyond those of `before`, over what the fit says they do.

    Both are levels of daily panels that differ on days ahead alone; rows: series asked for.
    """
    effects, known = before.effects, before.units.shape[1]
    surprise = drawn_coefficients(before, rows, draws, seed) - (effects.pooled + effects.own[rows])
    moved = np.stack([(after.effects.columns[name] - effects.columns[name])[rows, known:] for name in effects.names], axis=2)
    log = np.einsum("ihd,rid->ihr", moved, surprise, optimize=True)
    response: Singles = np.exp(np.clip(log, -LARGEST_EFFECT, LARGEST_EFFECT)).astype(np.float32)
    return response


def drawn_coefficients(levels: Levels, rows: Integers, draws: int, seed: int) -> Floats:
    """(draws, len(rows), d) coefficients of the series `rows`, pooled and own together, never of the wrong sign."""
    effects, known = levels.effects, levels.units.shape[1]
    count = len(effects.names)
    worth, sold = np.where(levels.is_observed, levels.worth[:, :known], 0.0), np.where(levels.is_observed, levels.units, 0.0)
    expected = local_level(sold, worth) * worth
    # what does not differ from the days around it is level, and tells nothing
    columns = [effects.columns[name][:, :known] for name in effects.names]
    apart = np.stack([values - local_level(values * expected, expected) for values in columns], axis=2)
    weeks = np.arange(0, known, WEEK)
    score = np.add.reduceat(np.einsum("ntd,nt->td", apart, sold - expected), weeks) / OVERDISPERSION
    curvature = np.add.reduceat(np.einsum("ntd,nte,nt->tde", apart, apart, expected, optimize=True), weeks) / OVERDISPERSION
    prior = np.diag(np.array([POOLED.get(name, (0.0, 1.0))[1] for name in effects.names]) ** -2)
    whole = curvature.sum(axis=0) + prior
    left_out = np.linalg.solve(whole - curvature, score[:, :, None])[:, :, 0]
    inverse = np.linalg.inv(whole)
    covariance = inverse @ prior @ inverse + (len(weeks) - 1) / len(weeks) * left_out.T @ left_out
    told = np.einsum("cdd->cd", curvature)
    spread = np.divide(told.sum(axis=0) ** 2, (told**2).sum(axis=0), out=np.zeros(count), where=told.any(axis=0))
    freedom = np.maximum(spread - 1, FEWEST_FREEDOM)
    own_prior = np.diag(np.array([SERIES_DEVIATION[name] for name in effects.names]) ** -2)
    own_curvature = np.einsum("ntd,nte,nt->nde", apart[rows], apart[rows], expected[rows], optimize=True) / OVERDISPERSION + own_prior
    random = np.random.default_rng(seed)
    tails = np.sqrt(freedom / random.chisquare(freedom, (draws, count)))
    pooled = random.standard_normal((draws, count)) @ np.linalg.cholesky(covariance).T * tails
    own = np.einsum("nde,ine->ind", np.linalg.cholesky(np.linalg.inv(own_curvature)), random.standard_normal((draws, len(rows), count)))
    total = effects.pooled + effects.own[rows] + pooled[:, None, :] + own
    signs = np.array([SIGNS.get(name, 0) for name in effects.names])
    return np.where(signs * total < 0, 0.0, total)
