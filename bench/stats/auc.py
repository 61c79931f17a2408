"""The area under the ROC curve with ties and clusters: estimate, covariance, interval, paired comparison.

AUC = P(score of a member > score of a non-member) + P(equal) / 2, estimated by Mann and Whitney's statistic. Its
covariance is DeLong's (DeLong, DeLong and Clarke-Pearson 1988) extended to clusters by Obuchowski (1997,
"Nonparametric analysis of clustered ROC curve data", Biometrics 53): placement values are summed within clusters
before they are squared. Higher scores mean "more likely a member" throughout; only the order of scores counts, and
infinities are allowed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bench.stats.intervals import (
    Bools,
    Floats,
    Interval,
    Ints,
    Labels,
    cluster_codes,
    kish,
    normal_quantile,
    spread_floor,
    unit_interval,
    unseen,
)


def midranks(values: ArrayLike) -> Floats:
    """Ranks from 1, shape (n,); tied values share the mean of their ranks."""
    _, inverse, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Floats = (ends - (counts - 1) / 2)[inverse.reshape(-1)]
    return ranks


def checked(scores: ArrayLike, member: ArrayLike) -> tuple[Floats, Bools]:
    """``scores`` (S, n) or (n,) as (S, n) float64 without NaN, ``member`` (n,) as bool. Raises ValueError."""
    array = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    labels = np.asarray(member)
    if array.ndim != 2 or labels.shape != (array.shape[1],):
        raise ValueError(f"scores {np.shape(scores)} and member {labels.shape} do not describe the same candidates")
    if labels.dtype != np.bool_ and not np.isin(labels, (0, 1)).all():
        raise ValueError("member must hold booleans (or 0 and 1)")
    if np.isnan(array).any():
        raise ValueError("a score is NaN")
    return array, labels.astype(np.bool_)


@dataclass(frozen=True)
class Placements:
    """S AUCs on the same candidates, and what each cluster contributes to them.

    value: (S,). x: (S, C), per cluster the sum over its members of (share of non-members below - AUC) / members.
    y: (S, C), the same over its non-members with members above. members, nonmembers: (C,) records per cluster.
    """

    value: Floats
    x: Floats
    y: Floats
    members: Ints
    nonmembers: Ints

    def variance(self, weights: ArrayLike) -> float:
        """Obuchowski's variance of the combination ``weights`` (S,) of the AUCs; inf where a class has one cluster.

        With I10 clusters that hold members, I01 that hold non-members and I in all:
        I10/(I10-1) sum x^2 + I01/(I01-1) sum y^2 + 2 I/(I-1) sum x y.
        """
        w = np.atleast_1d(np.asarray(weights, dtype=np.float64))
        x, y = w @ self.x, w @ self.y
        i10, i01, total = int((self.members > 0).sum()), int((self.nonmembers > 0).sum()), len(self.members)
        if min(i10, i01) < 2:
            return math.inf
        own = i10 / (i10 - 1) * float(x @ x) + i01 / (i01 - 1) * float(y @ y)
        # a cross term so negative that the sum is below zero is rounding
        return max(0.0, own + 2 * total / (total - 1) * float(x @ y))

    @property
    def pairs(self) -> int:
        """How many (member, non-member) pairs can be drawn with no cluster used twice: independent comparisons."""
        mixed = int(((self.members > 0) & (self.nonmembers > 0)).sum())
        i10, i01 = int((self.members > 0).sum()), int((self.nonmembers > 0).sum())
        return min(i10, i01, (i10 + i01 - mixed) // 2)


def placements(scores: ArrayLike, member: ArrayLike, cluster: Labels | None = None) -> Placements:
    """Placements of ``scores`` (S, n) or (n,). Both classes must be there. Raises ValueError.

    By midranks (Sun and Xu 2014): O(S n log n), never a matrix of pairs.
    """
    array, labels = checked(scores, member)
    codes, count = cluster_codes(cluster, len(labels))
    m, n = int(labels.sum()), int((~labels).sum())
    if not m or not n:
        raise ValueError("AUC needs members and non-members")
    value, x, y = np.empty(len(array)), np.zeros((len(array), count)), np.zeros((len(array), count))
    for s, row in enumerate(array):
        ranks, inside, outside = midranks(row), midranks(row[labels]), midranks(row[~labels])
        below = ranks[labels] - inside  # non-members below each member, ties half; exact multiples of 1/2
        above = m - (ranks[~labels] - outside)
        value[s] = below.sum() / (m * n)
        x[s] = np.bincount(codes[labels], weights=(below / n - value[s]) / m, minlength=count)
        y[s] = np.bincount(codes[~labels], weights=(above / m - value[s]) / n, minlength=count)
    sizes = np.bincount(codes[labels], minlength=count), np.bincount(codes[~labels], minlength=count)
    return Placements(value, x, y, sizes[0].astype(np.int64), sizes[1].astype(np.int64))


def class_floor(value: float, members: Ints, nonmembers: Ints, confidence: float = 0.95) -> float:
    """``spread_floor`` at an AUC of ``value``, both classes together; inf where a class has one cluster.

    members, nonmembers: (C,) records per cluster.
    """
    total = 0.0
    for sizes in (members, nonmembers):
        clusters = int((sizes > 0).sum())
        if clusters < 2:
            return math.inf
        total += spread_floor(value, clusters, kish(sizes), confidence)
    return total


def empty_class(member: ArrayLike) -> str:
    """Why no AUC can be given, or an empty string."""
    labels = np.asarray(member, dtype=np.bool_)
    if not labels.any():
        return "there is no member"
    return "" if not labels.all() else "there is no non-member"


def auc(scores: ArrayLike, member: ArrayLike, cluster: Labels | None = None, confidence: float = 0.95) -> Interval:
    """AUC of ``scores`` (n,) with its interval over clusters; None with a note where a class is empty.

    Limits: ``unit_interval`` of the clustered DeLong variance plus ``spread_floor``, and ``unseen`` of the number of
    independent pairs. At AUC 1 that is [(alpha/2)^(1/k), 1] with k independent pairs, and it is exact: perfect
    separation needs all k pairs in order, whose chance is at most AUC^k (attained when the smaller class is always
    right with probability AUC and the other is constant). Likewise at 0. Clusters are taken as draws whose size says
    nothing about their scores. Raises ValueError for NaN or unequal lengths.
    """
    reason = empty_class(member)
    if reason:
        return Interval(None, None, None, reason)
    parts = placements(scores, member, cluster)
    value = float(parts.value[0])
    variance = parts.variance([1.0]) + class_floor(value, parts.members, parts.nonmembers, confidence)
    low, high = unit_interval(value, variance, unseen(parts.pairs, confidence), confidence)
    return Interval(value, low, high)


@dataclass(frozen=True)
class Difference:
    """A paired difference of two AUCs (first minus second), in [-1, 1], with a two-sided p value of "no difference"."""

    interval: Interval
    p: float | None


def paired_auc(
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    member: ArrayLike,
    cluster: Labels | None = None,
    confidence: float = 0.95,
) -> Difference:
    """AUC of ``scores_a`` minus AUC of ``scores_b`` on the same candidates.

    Both are correlated through the candidates: the variance is the clustered DeLong variance of the difference, the
    limits and p are normal (``difference``). It compares two models (or attacks) on these records, not defenses in
    general: that takes several runs.
    """
    reason = empty_class(member)
    if reason:
        return Difference(Interval(None, None, None, reason), None)
    parts = placements(np.stack([np.asarray(scores_a, float), np.asarray(scores_b, float)]), member, cluster)
    return difference(float(parts.value[0] - parts.value[1]), parts.variance([1.0, -1.0]), parts.pairs, confidence)


def difference(value: float, variance: float, pairs: int, confidence: float = 0.95) -> Difference:
    """Limits and two-sided p of a difference of AUCs from its variance and ``pairs`` independent comparisons.

    A comparison's difference lies in [-1, 1] and a difference too rare to have been seen moves the mean by at most
    1 - ``unseen``, so the limits reach at least that far; that makes them exact for two scores of the same order. A
    variance of zero at a difference that is not zero is no certainty: the limits are then the inversion of Hoeffding's
    (1963) bound for U-statistics, 2 exp(-pairs value^2 / 2). p is the smallest alpha whose limits leave 0 out: the
    larger of the normal (or Hoeffding's) p and 2 (1 - |value|)^pairs.
    """
    from scipy.special import ndtr

    reach = 1 - unseen(pairs, confidence)
    if not math.isfinite(variance) or (variance < 1e-24 and abs(value) > 1e-12):
        p = min(1.0, 2 * math.exp(-pairs * value**2 / 2))
        reach = max(reach, math.sqrt(2 * math.log(2 / (1 - confidence)) / max(1, pairs)))
    else:
        sd = math.sqrt(variance)
        p = float(2 * ndtr(-abs(value) / sd)) if abs(value) > 1e-12 else 1.0
        reach = max(reach, normal_quantile(1 - (1 - confidence) / 2) * sd)
    p = max(p, min(1.0, 2 * (1 - min(1.0, abs(value))) ** max(0, pairs)))
    return Difference(Interval(value, max(-1.0, value - reach), min(1.0, value + reach)), p)
