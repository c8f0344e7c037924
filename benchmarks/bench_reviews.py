"""Complaints from review text against a TF-IDF logistic regression, on amazon_reviews (stars <= 2 are complaints).

    python -m benchmarks.bench_reviews

Reads MARKETING_DATA/amazon_reviews; about 85 CPU seconds.

Reviews that say the same word for word count once, and all reviews of a person lie in the same fold: the file repeats whole
reviews under several items, and a repeated review in training and test measures memory. Every method chooses its strength and
its threshold within its training part. Macro F1 is pooled over out-of-fold predictions; intervals are percentiles of a
bootstrap over people, the same draws for all methods, so that differences are paired.
"""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from marketing_assets.reviews.complaints import STRENGTHS, best_threshold, fit_complaints, macro_f1

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Method = Callable[[list[str], Flags, list[str], list[str]], Flags]
SEED = 20_240_101
REPLICATES = 1000


def read_reviews() -> tuple[list[str], Flags, list[str], Floats]:
    """Text, whether stars <= 2, author and year of each distinct review."""
    path = Path(os.environ["MARKETING_DATA"]) / "amazon_reviews" / "All_Beauty_5.jsonl.gz"
    seen: dict[str, tuple[str, bool, str, float]] = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            text = row.get("reviewText")
            if text and text.strip():
                year = datetime.fromtimestamp(row["unixReviewTime"], UTC).year
                seen.setdefault(" ".join(text.lower().split()), (text, row["overall"] <= 2, row["reviewerID"], year))
    texts, bad, authors, years = zip(*seen.values(), strict=True)
    return list(texts), np.array(bad), list(authors), np.array(years, dtype=float)


def ours(texts: list[str], bad: Flags, authors: list[str], unseen: list[str]) -> Flags:
    model = fit_complaints(texts, bad, authors, SEED)
    assert model is not None
    return model.probability(unseen) >= model.threshold


def tfidf(class_weight: str | None, *, is_tuned: bool) -> Method:
    """TF-IDF of words and pairs and a logistic regression; tuned: threshold from the same cross-validation as its strength."""

    def run(texts: list[str], bad: Flags, authors: list[str], unseen: list[str]) -> Flags:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedGroupKFold

        def probabilities(known: list[str], labels: Flags, asked: list[str], strengths: tuple[float, ...]) -> list[Floats]:
            vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
            rows, others = vectorizer.fit_transform(known), vectorizer.transform(asked)
            fits = [LogisticRegression(C=c, class_weight=class_weight, max_iter=2000).fit(rows, labels) for c in strengths]
            return [fit.predict_proba(others)[:, 1] for fit in fits]

        strengths = (*STRENGTHS, 30.0)
        held = np.zeros((len(strengths), len(texts)))
        for learnt, scored in StratifiedGroupKFold(5, shuffle=True, random_state=SEED).split(texts, bad, authors):
            held[:, scored] = probabilities([texts[i] for i in learnt], bad[learnt], [texts[i] for i in scored], strengths)
        thresholds = [best_threshold(bad, row) if is_tuned else 0.5 for row in held]
        scores = [macro_f1(bad, row >= threshold) for row, threshold in zip(held, thresholds, strict=True)]
        best = int(np.argmax(scores))
        return probabilities(texts, bad, unseen, (strengths[best],))[0] >= thresholds[best]

    return run


METHODS: dict[str, Method] = {
    "ours": ours,
    "tfidf + logistic": tfidf(None, is_tuned=False),
    "tfidf + logistic, balanced": tfidf("balanced", is_tuned=False),
    "tfidf + logistic, balanced, threshold tuned": tfidf("balanced", is_tuned=True),
}


def bootstrap(bad: Flags, said: dict[str, Flags], authors: list[str]) -> dict[str, Floats]:
    """Macro F1 of each method on REPLICATES resamples of people."""
    generator = np.random.default_rng(SEED)
    groups = np.unique(authors, return_inverse=True)[1]
    people = int(groups.max()) + 1
    scores: dict[str, list[float]] = {name: [] for name in said}
    for _ in range(REPLICATES):
        weight = np.bincount(generator.integers(0, people, people), minlength=people)[groups]
        rows = np.repeat(np.arange(bad.size), weight)
        for name, flags in said.items():
            scores[name].append(macro_f1(bad[rows], flags[rows]))
    return {name: np.array(values) for name, values in scores.items()}


def report(title: str, bad: Flags, said: dict[str, Flags], authors: list[str], seconds: dict[str, float]) -> None:
    print(f"\n{title}: {bad.size} reviews, {int(bad.sum())} complaints, {len(set(authors))} people")
    copies = bootstrap(bad, said, authors)
    for name, flags in said.items():
        low, high = np.quantile(copies[name], [0.025, 0.975])
        line = f"  {name:46s} macro F1 {macro_f1(bad, flags):.3f} [{low:.3f}, {high:.3f}]  {seconds[name]:5.1f} CPU s"
        if name != "ours":
            difference = copies["ours"] - copies[name]
            low, high = np.quantile(difference, [0.025, 0.975])
            line += f"  ours - this {macro_f1(bad, said['ours']) - macro_f1(bad, flags):+.3f} [{low:+.3f}, {high:+.3f}]"
        print(line, flush=True)


def main() -> None:
    from sklearn.model_selection import StratifiedGroupKFold

    texts, bad, authors, years = read_reviews()
    said = {name: np.zeros(bad.size, dtype=bool) for name in METHODS}
    seconds = dict.fromkeys(METHODS, 0.0)
    for learnt, scored in StratifiedGroupKFold(5, shuffle=True, random_state=SEED + 1).split(texts, bad, authors):
        for name, method in METHODS.items():
            started = time.process_time()
            said[name][scored] = method(
                [texts[i] for i in learnt], bad[learnt], [authors[i] for i in learnt], [texts[i] for i in scored]
            )
            seconds[name] += time.process_time() - started
    report("five folds by person", bad, said, authors, seconds)
    past, future = np.flatnonzero(years <= 2017), np.flatnonzero(years > 2017)
    known = {authors[i] for i in past}
    future = np.array([i for i in future if authors[i] not in known])
    later: dict[str, Flags] = {}
    for name, method in METHODS.items():
        started = time.process_time()
        later[name] = method([texts[i] for i in past], bad[past], [authors[i] for i in past], [texts[i] for i in future])
        seconds[name] = time.process_time() - started
    report("learnt to 2017, tested on new people of 2018", bad[future], later, [authors[i] for i in future], seconds)


if __name__ == "__main__":
    main()
