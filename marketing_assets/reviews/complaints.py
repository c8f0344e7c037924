"""Whether a text reads like a complaint: a regularised logistic regression on words and fragments, carried as JSON.

What belongs here: fitting, scoring and writing the text model. What does not: when it refits (build.py), what a complaint is
about (themes.py).

Features are log-scaled term frequencies weighted by how differently complaints and other reviews use a term (the log-count
ratio of Wang and Manning 2012), scaled to unit length; strength of regularisation and threshold come from cross-validation
grouped by author. Reviews that say the same word for word count once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from marketing_assets.reviews.text import features

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

MINIMUM_REVIEWS = 200
MINIMUM_COMPLAINTS = 20
MAXIMUM_TERMS = 20_000
STRENGTHS = (0.3, 1.0, 3.0, 10.0)
FOLDS = 5
DECIMALS = 6


@dataclass(frozen=True)
class ComplaintModel:
    """P(complaint) = logistic(weights . x + intercept); a text at or above `threshold` reads like a complaint."""

    vocabulary: dict[str, int]
    weights: Floats
    intercept: float
    threshold: float

    def probability(self, texts: list[str]) -> Floats:
        """P(complaint) of each text, rounded so that scores do not depend on the order of summation."""
        if not texts:
            return np.zeros(0)
        rows = matrix(texts, self.vocabulary)
        return np.round(1 / (1 + np.exp(-(rows @ self.weights + self.intercept))), DECIMALS)

    def as_text(self) -> str:
        terms = sorted(self.vocabulary, key=self.vocabulary.__getitem__)
        return json.dumps(
            {"terms": terms, "weights": self.weights.tolist(), "intercept": self.intercept, "threshold": self.threshold},
            ensure_ascii=False,
        )

    @classmethod
    def from_text(cls, text: str) -> ComplaintModel:
        held = json.loads(text)
        return cls(
            {term: place for place, term in enumerate(held["terms"])},
            np.array(held["weights"]),
            held["intercept"],
            held["threshold"],
        )


def matrix(texts: list[str], vocabulary: dict[str, int]) -> sp.csr_array:
    """texts x terms: 1 + log(count), rows of unit length."""
    starts: list[int] = [0]
    columns: list[int] = []
    values: list[Floats] = []
    for text in texts:
        counts: dict[int, int] = {}
        for term in features(text):
            place = vocabulary.get(term)
            if place is not None:
                counts[place] = counts.get(place, 0) + 1
        columns += counts
        row = 1 + np.log(np.array(list(counts.values()), dtype=np.float64))
        values.append(row / np.sqrt(max(float(row @ row), 1e-12)))
        starts.append(len(columns))
    data = np.concatenate(values) if values else np.zeros(0)
    return sp.csr_array(
        (data, np.array(columns, dtype=np.int32), np.array(starts, dtype=np.int32)), shape=(len(texts), len(vocabulary))
    )


def terms_of(texts: list[str]) -> dict[str, int]:
    """The most common terms that at least two texts hold, numbered in the order of the alphabet."""
    counts: dict[str, int] = {}
    for text in texts:
        for term in set(features(text)):
            counts[term] = counts.get(term, 0) + 1
    common = sorted((term for term, count in counts.items() if count >= 2), key=lambda term: (-counts[term], term))[
        :MAXIMUM_TERMS
    ]
    return {term: place for place, term in enumerate(sorted(common))}


def log_count_ratio(rows: sp.csr_array, is_complaint: Flags) -> Floats:
    """log of (share of a term among complaints) over (its share among others), one added to each count."""
    has_term = (rows > 0).astype(np.float64)
    bad = 1 + np.asarray(has_term[is_complaint].sum(axis=0)).ravel()
    good = 1 + np.asarray(has_term[~is_complaint].sum(axis=0)).ravel()
    ratio: Floats = np.log((bad / bad.sum()) / (good / good.sum()))
    return ratio


def _fit(rows: sp.csr_array, is_complaint: Flags, strength: float) -> tuple[Floats, float]:
    from sklearn.linear_model import LogisticRegression

    ratio = log_count_ratio(rows, is_complaint)
    regression = LogisticRegression(C=strength, solver="liblinear", tol=1e-5, max_iter=2000, random_state=0)
    regression.fit(sp.csr_array(rows.multiply(ratio)), is_complaint)
    return regression.coef_[0] * ratio, float(regression.intercept_[0])


def macro_f1(is_complaint: Flags, said: Flags) -> float:
    """Mean of the F1 of complaints and the F1 of everything else."""
    scores = []
    for truth, guess in ((is_complaint, said), (~is_complaint, ~said)):
        hits = float((truth & guess).sum())
        scores.append(2 * hits / max(float(truth.sum() + guess.sum()), 1.0))
    return float(np.mean(scores))


def best_threshold(is_complaint: Flags, probability: Floats) -> float:
    """The middle of the best tenth of thresholds by macro F1, which moves less between samples than the best one."""
    candidates = np.unique(np.quantile(probability, np.linspace(0.5, 0.999, 120)))
    scores = np.array([macro_f1(is_complaint, probability >= threshold) for threshold in candidates])
    near = candidates[scores >= scores.max() - 0.01]
    return float(np.round(np.median(near), DECIMALS))


def fit_complaints(texts: list[str], is_complaint: Flags, authors: list[str], seed: int) -> ComplaintModel | None:
    """A model of which texts are complaints, None where there is too little to learn from.

    texts, is_complaint, authors: one per review, in any order. Cross-validation keeps all reviews of an author together.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    first: dict[str, int] = {}
    for place in sorted(range(len(texts)), key=lambda place: (texts[place], authors[place], bool(is_complaint[place]))):
        first.setdefault(" ".join(texts[place].lower().split()), place)
    kept = list(first.values())
    texts, authors, truth = [texts[i] for i in kept], [authors[i] for i in kept], np.asarray(is_complaint, dtype=bool)[kept]
    if len(texts) < MINIMUM_REVIEWS or truth.sum() < MINIMUM_COMPLAINTS or (~truth).sum() < MINIMUM_COMPLAINTS:
        return None
    vocabulary = terms_of(texts)
    rows = matrix(texts, vocabulary)
    folds = list(StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed % 2**32).split(rows, truth, authors))
    losses, probabilities = [], []
    for strength in STRENGTHS:
        probability = np.zeros(len(texts))
        for learnt, scored in folds:
            weights, intercept = _fit(rows[learnt], truth[learnt], strength)
            probability[scored] = 1 / (1 + np.exp(-(rows[scored] @ weights + intercept)))
        clipped = np.clip(probability, 1e-9, 1 - 1e-9)
        losses.append(-float(np.mean(np.where(truth, np.log(clipped), np.log(1 - clipped)))))
        probabilities.append(probability)
    best = int(np.argmin(np.round(losses, 9)))
    weights, intercept = _fit(rows, truth, STRENGTHS[best])
    return ComplaintModel(
        vocabulary, np.round(weights, DECIMALS), round(intercept, DECIMALS), best_threshold(truth, probabilities[best])
    )
