"""What chance alone gives: the permutation null of the AUC, when the game's draw is all that tells members apart.

The game draws whole clusters. Under "the scores know nothing of the draw" every choice of as many clusters is equally
likely, which fixes the null's mean and variance exactly, whatever the scores, ties and cluster sizes are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bench.stats.auc import checked, empty_class, midranks
from bench.stats.intervals import Bools, Floats, Labels, cluster_codes, kish, normal_quantile


@dataclass(frozen=True)
class NullTest:
    """``z``: (AUC - 1/2) over its standard deviation ``sd`` under the null, 0 where sd is 0. ``p``: of "no better than
    chance", one-sided; ``p_two_sided``: of "neither better nor worse"."""

    z: float
    sd: float
    p: float
    p_two_sided: float


def null_test(scores: ArrayLike, member: ArrayLike, cluster: Labels | None = None) -> NullTest:
    """Tests ``scores`` (n,) against the draw of whole clusters. Raises ValueError where a class is empty or a cluster
    is partly of one class and partly of the other.

    With midranks r, Z_c = sum over cluster c of r - (n+1)/2: members x non-members x (AUC - 1/2) is the sum of Z_c
    over the member clusters, a sum of c1 of C drawn without replacement, of mean 0 and variance c1 c0 sum Z_c^2 / (C
    (C-1)). (With one record per cluster and no tie that is Mann and Whitney's (m+n+1)/(12 m n).) The p value is
    normal: such a sum of bounded terms has lighter tails than the normal out where p is 10^-6
    (tests/stats/test_null.py enumerates it).
    """
    array, labels = checked(scores, member)
    sums, drawn = _cluster_sums(array[0], labels, cluster)
    m, n, count, c1 = int(labels.sum()), int((~labels).sum()), len(sums), int(drawn.sum())
    if count < 2:
        raise ValueError("a draw of clusters needs at least two of them")
    spread = math.sqrt(c1 * (count - c1) * float(sums @ sums) / (count * (count - 1)))
    z = float(sums[drawn].sum()) / spread if spread > 1e-9 else 0.0
    return NullTest(z, spread / (m * n), normal_tail(z), min(1.0, 2 * normal_tail(abs(z))))


def null_margin(
    member: ArrayLike, cluster: Labels | None = None, scores: ArrayLike | None = None, p: float = 1e-6
) -> float:
    """How far from 1/2 an AUC may lie by chance: it is exceeded, in either direction, with probability ``p`` at most.

    For given ``scores`` from ``null_test``'s variance; without them for untied scores, and for clusters whose records
    all score alike, the widest case: (m+n+1)/(12 m n) times the records per effective (Kish) cluster.
    """
    labels = np.asarray(member, dtype=np.bool_)
    z = -normal_quantile(p / 2)
    if scores is not None:
        return z * null_test(scores, labels, cluster).sd
    reason = empty_class(labels)
    if reason:
        raise ValueError(reason)
    m, n = int(labels.sum()), int((~labels).sum())
    codes, count = cluster_codes(cluster, len(labels))
    inflation = (m + n) / kish(np.bincount(codes, minlength=count))
    return z * math.sqrt((m + n + 1) / (12 * m * n) * inflation)


def normal_tail(z: float) -> float:
    """The chance of a standard normal above ``z``, exact far out."""
    from scipy.special import log_ndtr

    return float(math.exp(log_ndtr(-z)))


def _cluster_sums(scores: Floats, labels: Bools, cluster: Labels | None) -> tuple[Floats, Bools]:
    reason = empty_class(labels)
    if reason:
        raise ValueError(reason)
    codes, count = cluster_codes(cluster, len(labels))
    sizes, inside = np.bincount(codes, minlength=count), np.bincount(codes, weights=labels, minlength=count)
    if ((inside > 0) & (inside < sizes)).any():
        raise ValueError("a cluster holds members and non-members: the draw was not of whole clusters")
    centred = midranks(scores) - (len(scores) + 1) / 2
    sums: Floats = np.bincount(codes, weights=centred, minlength=count).astype(np.float64)
    return sums, inside > 0
