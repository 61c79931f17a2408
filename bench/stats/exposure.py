"""Exposure of a planted secret (Carlini et al. 2019, "The secret sharer", USENIX Security): by rank, by a sample of the
alternatives, and extrapolated. In bits; higher scores mean "more likely the one trained on".
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from bench.stats.intervals import Floats, Interval, clopper_pearson


def exposure(rank: float, candidates: int) -> float:
    """log2 |R| - log2 rank: bits of guessing that the scores save, in [0, log2 |R|].

    ``candidates`` = |R|: all secrets of the form, the planted one included; ``rank`` in [1, |R|] of the planted one, 1
    for the best score (``exposure_rank``: ties take the mean of their ranks, so constant scores give just under 1). A
    secret that was never planted has a uniform rank: an exposure of 1.44 bits on average, above b bits with chance at
    most 2^-b. Raises ValueError outside these ranges.
    """
    if candidates < 1 or not 1 <= rank <= candidates:
        raise ValueError(f"need 1 <= rank <= candidates, got rank {rank} of {candidates}")
    return math.log2(candidates) - math.log2(rank)


def exposure_rank(score: float, others: ArrayLike) -> float:
    """The rank of ``score`` among itself and ``others`` (k,): 1 + those higher + half of those equal. May end on 1/2.

    Raises ValueError for NaN.
    """
    array = _finite(score, others)
    return float(1 + (array > score).sum() + (array == score).sum() / 2)


def exposure_from_sample(score: float, others: ArrayLike, candidates: int, confidence: float = 0.95) -> Interval:
    """Exposure where the alternatives are too many to score: from ``others`` (k,), drawn at random from the rest of R.

    Value: that of the rank in the sample, log2(k + 1) - log2(rank) (Carlini et al. 2019, sec. 4.4), so never above
    log2(k + 1). Limits: log2 |R| - log2(1 + p (|R| - 1)) at the Clopper-Pearson limits of the share p of alternatives
    that score as high or higher (ties half); exact for k independent draws, without replacement no worse. Where the
    sample is all of R the value is exact and so are the limits. Raises ValueError for NaN, no alternative, or k >=
    candidates.
    """
    array = _finite(score, others)
    if not 0 < len(array) < candidates:
        raise ValueError(f"need between 1 and {candidates - 1} alternatives, got {len(array)}")
    rank = exposure_rank(score, array)
    value = exposure(rank, len(array) + 1)
    if len(array) == candidates - 1:
        return Interval(value, value, value, "every alternative was scored")
    share = clopper_pearson(rank - 1, len(array), confidence)
    assert share.low is not None  # there is a trial
    assert share.high is not None
    low, high = (exposure(1 + p * (candidates - 1), candidates) for p in (share.high, share.low))
    return Interval(value, low, high, f"from a sample of {len(array)} of {candidates - 1} alternatives")


def exposure_extrapolated(score: float, others: ArrayLike, candidates: int) -> Interval:
    """Exposure beyond the resolution of a sample: -log2 of a fitted skew-normal's tail above ``score``. An ESTIMATE.

    It rests on the assumption that scores of alternatives are skew-normal (Carlini et al. 2019, sec. 4.4), here fitted
    to mean, deviation and skewness of ``others`` (k >= 20) (Azzalini 1985; the skewness cut to +-0.99). Capped at log2
    ``candidates``. No limits; the note has the p value of a Kolmogorov-Smirnov test of the fit (too large, as the
    parameters come from the same data): don't believe the estimate where it is small. Raises ValueError for NaN, too
    few, or constant others.
    """
    from scipy.stats import kstest, skewnorm

    array = _finite(score, others)
    if len(array) < 20 or array.std() == 0:
        raise ValueError("a fit needs at least 20 alternatives, not all of one score")
    z = (array - array.mean()) / array.std()
    skewness = float(np.clip((z**3).mean(), -0.99, 0.99))
    ratio = (2 * abs(skewness) / (4 - math.pi)) ** (2 / 3)
    size = math.copysign(math.sqrt(math.pi / 2 * ratio / (1 + ratio)), skewness)
    scale = float(array.std()) / math.sqrt(1 - 2 * size**2 / math.pi)
    fitted = skewnorm(size / math.sqrt(1 - size**2), float(array.mean()) - scale * size * math.sqrt(2 / math.pi), scale)
    tail = float(fitted.sf(score))
    bits = min(math.log2(candidates), -math.log2(tail) if tail > 0 else math.inf)
    p = float(kstest(array, fitted.cdf).pvalue)
    return Interval(max(0.0, bits), None, None, f"extrapolated by a skew-normal fit (Kolmogorov-Smirnov p = {p:.2g})")


def _finite(score: float, others: ArrayLike) -> Floats:
    array = np.asarray(others, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"others must be a flat array, got shape {array.shape}")
    if math.isnan(score) or np.isnan(array).any():
        raise ValueError("a score is NaN")
    return array
