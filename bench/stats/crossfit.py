"""Choosing the strongest of many scores on one fold and reporting it on the other, both ways, over clusters.

The best of many scores on the records it is chosen on looks better than it is. Here each fold reports the score that
the *other* fold chose, and the two are averaged, so that the estimate is unbiased for the average of what was chosen.

The two halves of that average are not quite independent: each fold's records choose for the other. The part of the
errors that the chosen scores share is independent between the folds; only where the two choices differ does the choice
tie them, at most fully. So with D the difference of the two chosen scores' AUCs, the variance is

    (V_0 + V_1) / 4 + sd_0(D) sd_1(D) / 8,

(V_f: clustered DeLong variance on fold f of the score reported there), which is the plain independent one where both
folds choose alike, and the bound of full correlation for two opposite scores.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.stats.auc import Difference, Placements, auc, checked, class_floor, difference, placements
from bench.stats.intervals import Bools, Floats, Interval, Labels, cluster_codes, unit_interval, unseen

Folds = NDArray[np.int8]


class TooFewClusters(ValueError):
    """Two folds with both classes in each cannot be made."""


def split(cluster: Labels, member: ArrayLike) -> Folds:
    """The fold (0 or 1) of each record, shape (n,): whole clusters, half of them each, both classes in both.

    Clusters are dealt alternately in the order of a hash of their labels (``str(label)``), so the split depends on
    neither scores, nor the order of records, nor, but for redealing, on who is a member: it is dealt anew until each
    fold has at least a quarter of each class's clusters, rounded down, and at least one. Raises TooFewClusters where
    a class has fewer than two clusters, or none of 1,000 deals will do.
    """
    labels = np.asarray(member, dtype=np.bool_)
    codes, count = cluster_codes(cluster, len(labels))
    names = [""] * count
    for code, label in zip(codes, cluster, strict=True):
        names[code] = str(label)
    holds = np.stack([np.bincount(codes[side], minlength=count) > 0 for side in (labels, ~labels)])
    least = np.maximum(1, holds.sum(1) // 4)
    if (holds.sum(1) < 2).any():
        raise TooFewClusters("choosing on one fold and reporting on the other needs two clusters of each class")
    fold = np.empty(count, dtype=np.int8)
    for deal in range(1000):
        order = sorted(range(count), key=lambda c: hashlib.sha256(f"{deal}/{names[c]}".encode()).digest())
        fold[order] = np.arange(count) % 2
        if all((holds[:, fold == f].sum(1) >= least).all() for f in (0, 1)):
            return fold[codes]
    raise TooFewClusters("no deal of the clusters puts both classes in both folds")


@dataclass(frozen=True)
class Choice:
    """A cross-fitted AUC. ``chosen[f]``: the score reported on fold f, chosen on the other."""

    interval: Interval
    chosen: tuple[str, str]


def crossfit_auc(scores: Mapping[str, ArrayLike], member: ArrayLike, cluster: Labels, folds: Folds) -> Choice:
    """AUC of the strongest of ``scores`` (each (n,)), cross-fitted; a single score is not chosen: its plain ``auc``.

    The largest AUC on a fold is chosen, ties by name. Limits: ``unit_interval`` of the variance above plus
    ``class_floor``, with ``unseen`` of the k0 + k1 independent pairs of both folds. At AUC 1 (and likewise 0) the limit
    is exact in spite of the choice among S scores, by union: where both folds choose the same, the chance that some
    score of AUC under L separates all pairs is at most S L^(k0+k1); where they differ, that the other fold's choice
    separates a fold is at most L^k0 + L^k1 <= 2 L^min(k0,k1); each of the two gets half of alpha/2.
    """
    names = sorted(scores)
    if len(names) == 1:
        return Choice(auc(scores[names[0]], member, cluster), (names[0], names[0]))
    matrix, labels = checked(np.stack([np.asarray(scores[name], dtype=np.float64) for name in names]), member)
    parts = by_fold(matrix, labels, cluster, folds)
    picks = int(np.argmax(parts[1].value)), int(np.argmax(parts[0].value))
    value, variance = pooled(parts, [_unit(len(names), pick) for pick in picks])
    sizes = [np.concatenate([getattr(part, side) for part in parts]) for side in ("members", "nonmembers")]
    variance += class_floor(value, sizes[0], sizes[1])
    k, tail = [part.pairs for part in parts], (1 - 0.95) / 2
    least = unseen(k[0] + k[1])
    if value in (0, 1):
        least = unseen(k[0] + k[1], 1 - tail / len(names)) if picks[0] == picks[1] else unseen(min(k), 1 - tail / 2)
    low, high = unit_interval(value, variance, least)
    return Choice(Interval(value, low, high), (names[picks[0]], names[picks[1]]))


def folded_auc(
    scores: ArrayLike, member: ArrayLike, cluster: Labels, folds: Folds, confidence: float = 0.95
) -> Interval:
    """AUC of a score that on each fold comes from a classifier trained on the other: the average of the folds' AUCs.

    Scores of different classifiers are never compared. How well fold 0 predicts fold 1 and fold 1 predicts fold 0 can
    be one and the same number (it is for a kernel classifier), so the folds count as fully correlated: the standard
    deviation is the mean of the two folds'.
    """
    array, labels = checked(scores, member)
    parts = by_fold(array, labels, cluster, folds)
    value = float(np.mean([part.value[0] for part in parts]))
    floors = [class_floor(value, part.members, part.nonmembers, confidence) for part in parts]
    sds = [math.sqrt(part.variance([1.0]) + floor) for part, floor in zip(parts, floors, strict=True)]
    least = unseen(min(part.pairs for part in parts), 1 - (1 - confidence) / 2)
    return Interval(value, *unit_interval(value, (sum(sds) / 2) ** 2, least, confidence))


def crossfit_paired(
    scores_a: Mapping[str, ArrayLike],
    scores_b: Mapping[str, ArrayLike],
    member: ArrayLike,
    cluster: Labels,
    folds: Folds,
) -> Difference:
    """AUC of the strongest of ``scores_a`` minus that of the strongest of ``scores_b``, each cross-fitted, same
    folds.
    """
    names = [sorted(scores_a), sorted(scores_b)]
    rows = [scores_a[name] for name in names[0]] + [scores_b[name] for name in names[1]]
    matrix, labels = checked(np.stack([np.asarray(row, dtype=np.float64) for row in rows]), member)
    parts = by_fold(matrix, labels, cluster, folds)
    first, total = len(names[0]), len(rows)
    weights = [
        _unit(total, int(np.argmax(part.value[:first]))) - _unit(total, first + int(np.argmax(part.value[first:])))
        for part in reversed(parts)
    ]
    value, variance = pooled(parts, weights)
    k = [part.pairs for part in parts]
    alike = bool((weights[0] == weights[1]).all())
    return difference(value, variance, sum(k) if alike else min(k))


def by_fold(matrix: Floats, labels: Bools, cluster: Labels, folds: Folds) -> list[Placements]:
    """``placements`` of all scores on fold 0 and on fold 1. Raises ValueError where a fold lacks a class."""
    codes, _ = cluster_codes(cluster, len(labels))
    sides = [np.flatnonzero(folds == f) for f in (0, 1)]
    if set(codes[sides[0]]) & set(codes[sides[1]]):
        raise ValueError("a cluster lies in both folds")
    return [placements(matrix[:, side], labels[side], codes[side].tolist()) for side in sides]


def pooled(parts: Sequence[Placements], weights: Sequence[Floats]) -> tuple[float, float]:
    """The average over folds of the combination ``weights[f]`` (S,) of AUCs on fold f, and its variance (see the
    top).
    """
    value = float(np.mean([float(w @ part.value) for part, w in zip(parts, weights, strict=True)]))
    own = sum(part.variance(w) for part, w in zip(parts, weights, strict=True)) / 4
    apart = weights[0] - weights[1]
    tied = math.prod(math.sqrt(part.variance(apart)) for part in parts) / 8 if apart.any() else 0.0
    return value, own + tied


def _unit(size: int, index: int) -> Floats:
    vector = np.zeros(size)
    vector[index] = 1.0
    return vector
