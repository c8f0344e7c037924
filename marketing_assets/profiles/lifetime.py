"""Purchase counts and spend of customers over time: BG/NBD and Gamma-Gamma, vectorised.

What belongs here: the two models' likelihoods, expectations and quantiles on arrays. What does not: where the counts come
from or how intervals are checked against what happened (value.py).

Fader, Hardie and Lee (2005), "Counting Your Customers" the Easy Way; Fader and Hardie (2013), The Gamma-Gamma Model of
Monetary Value. Time is in weeks; x repeat purchase occasions, t_x the age at the last, T the age now.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PurchaseModel:
    """BG/NBD: purchase rate ~ Gamma(r, alpha), P(leaving after a purchase) ~ Beta(a, b)."""

    r: float
    alpha: float
    a: float
    b: float

    def alive(self, x: Floats, t_x: Floats, age: Floats) -> Floats:
        """P(still a customer); 1 for those who bought once, because leaving only follows a repeat purchase."""
        exponent = np.minimum((self.r + x) * (np.log(self.alpha + age) - np.log(self.alpha + t_x)), 700.0)
        odds = np.where(x > 0, self.a / np.maximum(self.b + x - 1, 1e-9) * np.exp(exponent), 0.0)
        return np.asarray(1 / (1 + odds), dtype=np.float64)

    def order_probability(self, x: Floats, t_x: Floats, age: Floats, weeks: float) -> Floats:
        """P(at least one purchase in the next `weeks`)."""
        none = np.exp((self.r + x) * (np.log(self.alpha + age) - np.log(self.alpha + age + weeks)))
        return np.asarray(self.alive(x, t_x, age) * (1 - none), dtype=np.float64)

    def expected_orders(self, x: Floats, t_x: Floats, age: Floats, weeks: float | Floats) -> Floats:
        """E(purchases in the next `weeks`), equation 10 with Euler's transformation of 2F1, which keeps its arguments small."""
        from scipy.special import hyp2f1

        a = self.a if abs(self.a - 1) > 1e-6 else 1 + 1e-6
        share = (self.alpha + age) / (self.alpha + age + weeks)
        series = hyp2f1(a + self.b - 1 - self.r, a - 1, a + self.b + x - 1, 1 - share)
        growth = (a + self.b + x - 1) / (a - 1) * (1 - share ** (a - 1) * series)
        return np.asarray(np.maximum(growth, 0.0) * self.alive(x, t_x, age), dtype=np.float64)


TEXTBOOK = PurchaseModel(0.5, 10.0, 0.5, 3.0)
"""A weak start for a shop without repeat orders: about one order in ten weeks of a new buyer, and fading."""


def _log_likelihood(parameters: Floats, x: Floats, t_x: Floats, age: Floats, count: Floats) -> float:
    from scipy.special import gammaln

    r, alpha, a, b = np.exp(parameters)
    first = gammaln(r + x) - gammaln(r) + r * np.log(alpha)
    second = gammaln(a + b) + gammaln(b + x) - gammaln(b) - gammaln(a + b + x)
    staying = -(r + x) * np.log(alpha + age)
    leaving = np.where(x > 0, np.log(a) - np.log(np.maximum(b + x - 1, 1e-12)) - (r + x) * np.log(alpha + t_x), -np.inf)
    return float(count @ (first + second + np.logaddexp(staying, leaving)))


def _minimise(
    loss: Callable[[Floats], Any], start: Floats, bounds: list[tuple[float, float]], has_gradient: bool = False
) -> Floats:
    """Where the loss is least. has_gradient: the loss returns its gradient too."""
    from scipy.optimize import minimize

    settings: Any = {"jac": has_gradient, "options": {"maxiter": 200, "ftol": 1e-11, "gtol": 1e-6}}
    found = minimize(loss, start, method="L-BFGS-B", bounds=bounds, **settings)
    return np.asarray(np.round(found.x, 6), dtype=np.float64)


def fit_purchases(x: Floats, t_x: Floats, age: Floats, ridge: float = 2.0) -> PurchaseModel:
    """BG/NBD by maximum likelihood over the distinct (x, t_x, T), with a weak pull of the log parameters towards 0.

    x: repeat occasions; t_x, age: weeks, 0 <= t_x <= age. ridge: strength of the pull, in
    nats over all customers. Raises ValueError where there is nobody to learn from.
    """
    if not len(x):
        raise ValueError("fit_purchases: no customers to learn from")
    customers = np.column_stack([x, t_x, age])
    return _fit_purchases(customers.tobytes(), ridge)


@functools.lru_cache(maxsize=4)
def _fit_purchases(content: bytes, ridge: float) -> PurchaseModel:
    """Kept by what it is fitted on: on a day of fits three models ask for the same customers."""
    customers = np.frombuffer(content).reshape(-1, 3)
    distinct, count = np.unique(customers, axis=0, return_counts=True)
    share = count / count.sum()
    typical = np.log(max(float(np.mean(np.ascontiguousarray(customers[:, 2]))), 0.5))

    def loss(parameters: Floats) -> float:
        pull = ridge / len(customers) * float(np.sum((parameters - np.array([0.0, typical, 0.0, 1.0])) ** 2))
        return -_log_likelihood(parameters, distinct[:, 0], distinct[:, 1], distinct[:, 2], share) + pull

    best = _minimise(loss, np.array([-0.5, typical, -0.3, 1.0]), [(-6, 6), (-4, 9), (-6, 5), (-6, 8)])
    r, alpha, a, b = np.exp(best)
    return PurchaseModel(float(r), float(alpha), float(a), float(b))


@dataclass(frozen=True)
class SpendModel:
    """Gamma-Gamma: a purchase's value ~ Gamma(p, v), v ~ Gamma(q, gamma)."""

    p: float
    q: float
    gamma: float

    def expected_value(self, occasions: Floats, mean_value: Floats) -> Floats:
        """E(value of a purchase | mean over `occasions` of them); the population's mean where there was none."""
        return np.asarray(
            self.p * (self.gamma + np.where(occasions > 0, occasions * mean_value, 0.0)) / (self.p * occasions + self.q - 1),
            dtype=np.float64,
        )


def fit_spend(occasions: Floats, mean_value: Floats) -> SpendModel:
    """Gamma-Gamma by maximum likelihood on customers with at least one purchase of positive mean value.

    occasions: purchases behind the mean; mean_value: money. Values are scaled to a mean of 1 while fitting. q stays above
    1.05, so that the population mean exists. Raises ValueError where nobody has bought.
    """
    from scipy.special import digamma, gammaln

    chosen = (occasions > 0) & (mean_value > 0)
    if not chosen.any():
        raise ValueError("fit_spend: nobody has bought yet")
    n, scale = occasions[chosen], float(np.mean(mean_value[chosen]))
    m = mean_value[chosen] / scale

    log_m, log_total, centre = np.log(m), np.log(n * m), np.array([0.5, 0.5, 0.0])

    def loss(parameters: Floats) -> tuple[float, Floats]:
        p, excess, gamma = np.exp(parameters)
        q = 1.05 + excess
        scale_sum = gamma + n * m
        log_sum, both = np.log(scale_sum), p * n + q
        terms = gammaln(both) - gammaln(p * n) - gammaln(q) + q * np.log(gamma) - log_m + p * n * log_total - both * log_sum
        slope = digamma(both) - log_sum
        gradient = np.array(
            [
                p * np.mean(n * (slope - digamma(p * n) + log_total)),
                excess * (np.mean(slope) - digamma(q) + np.log(gamma)),
                q - gamma * np.mean(both / scale_sum),
            ]
        )
        away = parameters - centre
        return -float(np.mean(terms)) + 1e-4 * float(away @ away), -gradient + 2e-4 * away

    best = _minimise(loss, centre, [(-4, 6), (-6, 6), (-6, 8)], has_gradient=True)
    return SpendModel(float(np.exp(best[0])), float(1.05 + np.exp(best[1])), float(np.exp(best[2]) * scale))
