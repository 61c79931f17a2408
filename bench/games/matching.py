"""How well guessed records match true ones: one-to-one assignment, ROUGE, exact match."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Grams = frozenset[tuple[Hashable, int]]


def overlap_f1(one: Grams, other: Grams) -> float:
    """F1 of two multisets (as ``grams`` writes them): 2 common / (size + size); 0 where both are empty."""
    total = len(one) + len(other)
    return 2 * len(one & other) / total if total else 0.0


def grams(tokens: Sequence[int], n: int) -> Grams:
    """The multiset of ``tokens``' n-grams as a set of (n-gram, how often it came before)."""
    seen: Counter[Hashable] = Counter()
    found = []
    for i in range(len(tokens) - n + 1):
        gram = tuple(tokens[i : i + n])
        found.append((gram, seen[gram]))
        seen[gram] += 1
    return frozenset(found)


def assign(truth: Sequence[Sequence[int]], guesses: Sequence[Sequence[int]]) -> list[int | None]:
    """For each true record the index of its guess, or None: one to one, no guess twice.

    Maximises the sum of unigram F1 + bigram F1 (as multisets of tokens) + 1 where equal, so that an exact guess goes
    to its record and order counts (Kuhn 1955, by SciPy's ``linear_sum_assignment``). One assignment serves all
    metrics.
    """
    from scipy.optimize import linear_sum_assignment

    if not truth or not guesses:
        return [None] * len(truth)
    total = np.zeros((len(truth), len(guesses)))
    for n in (1, 2):
        mine, theirs = ([grams(tokens, n) for tokens in side] for side in (truth, guesses))
        total += np.array([[overlap_f1(a, b) for b in theirs] for a in mine])
    total += np.array([[tuple(a) == tuple(b) for b in guesses] for a in truth])
    chosen: list[int | None] = [None] * len(truth)
    for row, column in zip(*linear_sum_assignment(total, maximize=True), strict=True):
        chosen[int(row)] = int(column)
    return chosen


class Rouge:
    """ROUGE-1, ROUGE-2 and ROUGE-L F1 (Lin 2004) by the package ``rouge_score``, without stemming.

    That package lower-cases and keeps runs of a-z and 0-9, so text in other scripts scores 0.
    """

    NAMES = ("rouge_1", "rouge_2", "rouge_l")

    def __init__(self) -> None:
        from rouge_score.rouge_scorer import RougeScorer

        self._scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)

    def f1(self, truth: str, guess: str) -> tuple[float, float, float]:
        """The three F1 in [0, 1]."""
        found = self._scorer.score(truth, guess)
        one, two, longest = (float(found[name].fmeasure) for name in ("rouge1", "rouge2", "rougeL"))
        return one, two, longest
