"""True-positive rate at a false-positive rate, and advantage, with thresholds set on the other fold.

A rule is a score and a threshold; it says "member" where the score is strictly above. The rule that a fold reports
was chosen on the other fold. Counts of both folds are added up; proportions have Clopper-Pearson limits at effective
counts:

* records of a cluster count as one, as if they always agreed: Kish's (sum w)^2 / sum w^2 in place of the records.
  With one record per cluster, or clusters of one size that do agree, this is exact; else it errs on the wide side;
* where the folds' rules differ and each was chosen on labels of both classes, the folds are not independent
  (``bench.stats.crossfit``): the count is divided by 1 + r, r in [0, 1] from how far the rules disagree.

The TPR of one score at an FPR is free of the second: thresholds depend on non-members alone, so given these the true
positives are independent trials, of one chance per fold, and Clopper-Pearson is exact for their mean (Hoeffding 1956: a
sum of unlike trials is spread no wider in the tails).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from bench.stats.auc import checked, empty_class, midranks
from bench.stats.crossfit import Folds, TooFewClusters, split
from bench.stats.intervals import Bools, Floats, Interval, Ints, Labels, binomial_limits, cluster_codes, kish

#: false positives that an FPR must promise among all non-members before a TPR at it is given
RESOLVED = 5


@dataclass(frozen=True)
class Rates:
    """What the cross-fitted rule achieved. ``chosen[f]``: the score of the rule that is reported on fold f.

    ``tpr``, ``fpr``: of both folds together. ``advantage``: tpr - fpr. All None with a note where refused.
    """

    tpr: Interval
    fpr: Interval
    advantage: Interval
    true_positives: int = 0
    false_positives: int = 0
    chosen: tuple[str, str] = ("", "")


def refusal(fpr: float, member: ArrayLike) -> str:
    """Why no TPR at ``fpr`` can be given on these candidates, or an empty string."""
    labels = np.asarray(member, dtype=np.bool_)
    reason = empty_class(labels)
    nonmembers = int((~labels).sum())
    if not reason and fpr * nonmembers < RESOLVED - 1e-9:
        needed = math.ceil(RESOLVED / fpr - 1e-9)
        reason = f"an FPR of {fpr:.1%} takes at least {needed} non-members to resolve, there are {nonmembers}"
    return reason


def threshold(nonmembers: ArrayLike, fpr: float) -> float:
    """The j-th largest of ``nonmembers`` (n,), j = floor(fpr (n + 1)); infinity where j is 0.

    A new non-member lies strictly above it with a chance of at most j / (n + 1) <= ``fpr`` (the conformal quantile).
    """
    values = np.sort(np.asarray(nonmembers, dtype=np.float64))
    j = math.floor(fpr * (len(values) + 1) + 1e-9)
    return float(values[-j]) if j else math.inf


def crossfit_tpr(
    scores: Mapping[str, ArrayLike], member: ArrayLike, cluster: Labels | None, fpr: float, folds: Folds
) -> Rates:
    """TPR at ``fpr`` of the score with the highest TPR at ``fpr`` on the other fold (ties: higher AUC, then name)."""
    reason = refusal(fpr, member)
    if reason:
        return _refused(reason)

    def rule(members: Floats, nonmembers: Floats) -> tuple[float, float]:
        cut = threshold(nonmembers, fpr)
        return float((members > cut).mean()), cut

    return _crossfit(scores, member, cluster, folds, rule, exact=len(scores) == 1)


def tpr_at_fpr(
    scores: ArrayLike, member: ArrayLike, fpr: float, cluster: Labels | None = None, folds: Folds | None = None
) -> Interval:
    """TPR of one score (n,) at ``fpr`` in (0, 1), threshold set on the other fold; the note gives the realised FPR.

    ``folds``: of ``split`` where not given. Refused (None) where fpr x non-members < 5, both folds together.
    """
    dealt = _dealt(member, cluster, folds)
    return dealt if isinstance(dealt, Interval) else crossfit_tpr({"": scores}, member, cluster, fpr, dealt).tpr


def _dealt(member: ArrayLike, cluster: Labels | None, folds: Folds | None) -> Folds | Interval:
    """The folds, or the refused figure of records that can't be dealt into two."""
    if folds is not None:
        return folds
    try:
        return split(range(np.size(member)) if cluster is None else cluster, member)
    except TooFewClusters as error:
        return Interval(None, None, None, str(error))


def crossfit_advantage(
    scores: Mapping[str, ArrayLike], member: ArrayLike, cluster: Labels | None, folds: Folds
) -> Rates:
    """The largest TPR - FPR over scores and thresholds on one fold, as it comes out on the other."""
    reason = empty_class(member)
    return _refused(reason) if reason else _crossfit(scores, member, cluster, folds, best_threshold, exact=False)


def advantage(
    scores: ArrayLike, member: ArrayLike, cluster: Labels | None = None, folds: Folds | None = None
) -> Interval:
    """Membership advantage (Yeom et al. 2018) of one score (n,): TPR - FPR, in [-1, 1], threshold from the other
    fold (of ``split`` where ``folds`` are not given).
    """
    dealt = _dealt(member, cluster, folds)
    return dealt if isinstance(dealt, Interval) else crossfit_advantage({"": scores}, member, cluster, dealt).advantage


def best_threshold(members: Floats, nonmembers: Floats) -> tuple[float, float]:
    """The largest TPR - FPR of "score > t", and the highest t among the scores that attains it (0 at the top score)."""
    cuts = np.unique(np.concatenate([members, nonmembers]))
    gain = np.searchsorted(np.sort(nonmembers), cuts, side="right") / len(nonmembers)
    gain -= np.searchsorted(np.sort(members), cuts, side="right") / len(members)
    best = len(cuts) - 1 - int(np.argmax(np.round(gain[::-1], 12)))
    return float(gain[best]), float(cuts[best])


def newcombe(first: Interval, second: Interval) -> Interval:
    """``first`` - ``second``, two independent proportions, from their limits (Newcombe 1998, method 10)."""
    parts = (first.value, first.low, first.high, second.value, second.low, second.high)
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return Interval(None, None, None, first.note or second.note)
    a, a_low, a_high, b, b_low, b_high = known
    low, high = a - b - math.hypot(a - a_low, b_high - b), a - b + math.hypot(a_high - a, b - b_low)
    return Interval(a - b, max(-1.0, low), min(1.0, high))


def _refused(reason: str) -> Rates:
    nothing = Interval(None, None, None, reason)
    return Rates(nothing, nothing, nothing)


def _crossfit(
    scores: Mapping[str, ArrayLike],
    member: ArrayLike,
    cluster: Labels | None,
    folds: Folds,
    rule: Callable[[Floats, Floats], tuple[float, float]],
    exact: bool,
) -> Rates:
    names = sorted(scores)
    matrix, labels = checked(np.stack([np.asarray(scores[name], dtype=np.float64) for name in names]), member)
    codes, _ = cluster_codes(cluster, len(labels))
    rules = [_choose(matrix[:, folds == f], labels[folds == f], rule) for f in (0, 1)]
    says = np.stack([matrix[row] > cut for row, cut in rules])
    # row 0: what is reported, by the other fold's rule; row 1: what the fold's own rule would say
    says = np.where(folds == 0, says[::-1], says)
    tpr = _proportion(says[:, labels], codes[labels], None if exact else folds[labels])
    fpr = _proportion(says[:, ~labels], codes[~labels], folds[~labels])
    positives = int(says[0, labels].sum()), int(says[0, ~labels].sum())
    note = f"realised FPR {positives[1]}/{(~labels).sum()}, 95% interval {fpr.low:.3g} to {fpr.high:.3g}"
    chosen = names[rules[1][0]], names[rules[0][0]]
    return Rates(replace(tpr, note=note), fpr, newcombe(tpr, fpr), *positives, chosen)


def _choose(matrix: Floats, labels: Bools, rule: Callable[[Floats, Floats], tuple[float, float]]) -> tuple[int, float]:
    """The row and threshold of the rule with the largest gain on one fold; ties by AUC (rank sum), then first row."""
    if empty_class(labels):
        raise ValueError("a fold lacks a class")
    found = []
    for row, values in enumerate(matrix):
        gain, cut = rule(values[labels], values[~labels])
        found.append((round(gain, 12), float(midranks(values)[labels].sum()), -row, cut))
    best = max(found)
    return -best[2], best[3]


def _proportion(says: Bools, codes: Ints, folds: Folds | None) -> Interval:
    """The share of ``says[0]`` (says: (2, n)) with limits at the effective count; ``folds`` None: independent."""
    effective = kish(np.bincount(codes)) / (1 + (_tied(says, folds) if folds is not None else 0.0))
    share = float(says[0].mean())
    return Interval(share, *binomial_limits(share * effective, effective))


def _tied(says: Bools, folds: Folds) -> float:
    """r: the covariance that the choice of rules can bring between folds, at most, over the variance without it."""
    sides = [says[:, folds == f].astype(np.float64) for f in (0, 1)]
    own = sum(side.shape[1] * float(side[0].var()) for side in sides)
    apart = math.prod(side.shape[1] * float(((side[0] - side[1]) / 2).var()) for side in sides)
    if apart <= 0:
        return 0.0
    return min(1.0, 2 * math.sqrt(apart) / own) if own > 0 else 1.0
