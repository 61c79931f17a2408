"""Points of curves, without a plotting library: ROC (also for log axes), and leakage against utility along rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bench.stats.auc import checked, empty_class
from bench.stats.intervals import Floats


def roc(scores: ArrayLike, member: ArrayLike) -> tuple[Floats, Floats]:
    """(fpr, tpr), each (k + 1,), of "member where the score is at least t", for t above all and then each of the k
    different scores of ``scores`` (n,), falling.

    From (0, 0) to (1, 1), both rising; equal scores are one step, so the trapezoids below add up to ``auc``. Raises
    ValueError for NaN or where a class is empty.
    """
    array, labels = checked(scores, member)
    reason = empty_class(labels)
    if reason:
        raise ValueError(reason)
    different, codes = np.unique(-array[0], return_inverse=True)
    codes = codes.reshape(-1)
    sides = [np.bincount(codes[side], minlength=len(different)) for side in (~labels, labels)]
    fpr, tpr = (np.concatenate([[0], np.cumsum(side)]) / side.sum() for side in sides)
    return fpr, tpr


def log_roc(scores: ArrayLike, member: ArrayLike, per_decade: int = 20) -> tuple[Floats, Floats]:
    """(fpr, tpr), each (k,), for an axis of FPR that is logarithmic (Carlini et al. 2022, "Membership inference attacks
    from first principles"), from one false positive, 1 / n, to 1.

    ``per_decade`` even steps in log10 and every corner of the ROC; the TPR at each is the largest of a threshold whose
    FPR is no higher, never interpolated. Below 1 / n the records say nothing, so nothing is given there. Raises
    ValueError for NaN, an empty class or per_decade < 1.
    """
    if per_decade < 1:
        raise ValueError(f"per_decade must be at least 1, got {per_decade}")
    fpr, tpr = roc(scores, member)
    least = 1 / int((~np.asarray(member, dtype=np.bool_)).sum())
    even = np.logspace(math.log10(least), 0, 1 + max(1, round(-math.log10(least) * per_decade)))
    even[[0, -1]] = least, 1.0
    at = np.union1d(even, fpr[fpr > 0])
    return at, tpr[np.searchsorted(fpr, at + 1e-12, side="right") - 1]


@dataclass(frozen=True)
class RoundPoint:
    """One round's ``leakage`` and ``utility``; ``dominated``: another round has no more leakage and no worse utility,
    and is better in one of them."""

    round: int
    leakage: float
    utility: float
    dominated: bool


def along_rounds(
    leakage: Mapping[int, float], utility: Mapping[int, float], *, higher_is_better: bool
) -> tuple[RoundPoint, ...]:
    """Pairs two curves over the rounds that both have, in order; rounds that only one has are left out.

    ``higher_is_better`` is about the utility (False for perplexity). Which round to stop at is chosen after the fact:
    no interval covers that choice. Raises ValueError for NaN.
    """
    rounds = sorted(leakage.keys() & utility.keys())
    if any(math.isnan(curve[r]) for curve in (leakage, utility) for r in rounds):
        raise ValueError("a curve holds NaN")
    costs = {r: (leakage[r], -utility[r] if higher_is_better else utility[r]) for r in rounds}

    def dominated(r: int) -> bool:
        return any(costs[o][0] <= costs[r][0] and costs[o][1] <= costs[r][1] and costs[o] != costs[r] for o in rounds)

    return tuple(RoundPoint(r, leakage[r], utility[r], dominated(r)) for r in rounds)
