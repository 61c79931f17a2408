"""Intervals: for proportions, for means of values in [0, 1], over runs, and by bootstrap over clusters.

Everything takes clusters: records of one cluster (near-duplicates, or one person's) are not independent, so the cluster
is the unit that is counted and resampled. SciPy is imported inside functions, so that importing costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
#: clusters below which a bootstrap's limits miss too often to be given (docs/metrics.md)
BOOTSTRAP_CLUSTERS = 50
#: one label per record; records with equal labels belong together
Labels = Sequence[object] | NDArray[np.integer]


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval. ``value`` None where it cannot be given; ``note`` then says why."""

    value: float | None
    low: float | None
    high: float | None
    note: str = ""


def as_interval(value: Interval | float | None) -> Interval:
    """A plain number as an interval without limits."""
    return value if isinstance(value, Interval) else Interval(value, None, None)


def normal_quantile(probability: float) -> float:
    """The standard normal quantile."""
    from scipy.special import ndtri

    return float(ndtri(probability))


def clopper_pearson(successes: float, trials: float, confidence: float = 0.95) -> Interval:
    """Exact interval for a binomial proportion (Clopper and Pearson 1934), through quantiles of the beta distribution.

    ``successes`` and ``trials`` may be fractions, for effective counts (Korn and Graubard 1998). With no trial the
    value is None. Raises ValueError unless 0 <= successes <= trials.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"need 0 <= successes <= trials, got {successes} of {trials}")
    if trials == 0:
        return Interval(None, None, None, "no trial")
    return Interval(successes / trials, *binomial_limits(successes, trials, confidence))


def binomial_limits(successes: float, trials: float, confidence: float = 0.95) -> tuple[float, float]:
    """The limits of ``clopper_pearson``; (0, 1) for no trial."""
    from scipy.special import betaincinv

    tail, failures = (1 - confidence) / 2, trials - successes
    low = float(betaincinv(successes, failures + 1, tail)) if successes > 0 else 0.0
    high = float(betaincinv(successes + 1, failures, 1 - tail)) if failures > 0 else 1.0
    return low, high


def kish(sizes: ArrayLike) -> float:
    """Effective number of independent records in clusters of these sizes: (sum w)^2 / sum w^2 (Kish 1965).

    It supposes that records of a cluster agree entirely, so it never overstates what the records tell; 0 for none.
    """
    weights = np.asarray(sizes, dtype=np.float64)
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def unseen(pairs: int, confidence: float = 0.95) -> float:
    """The least chance of success that is not refuted by ``pairs`` independent successes in a row: (alpha/2)^(1/pairs).

    The Clopper-Pearson lower limit at ``pairs`` of ``pairs``; 0 for no pair.
    """
    return float(((1 - confidence) / 2) ** (1 / pairs)) if pairs > 0 else 0.0


def spread_floor(value: float, clusters: int, effective: float, confidence: float = 0.95) -> float:
    """What is added to the variance of a mean of values in [0, 1], so that few or tied values don't feign certainty.

    z^2/2 pseudo-clusters, each with the largest squared deviation that a mean of ``value`` permits, value (1 - value):
    the variance analogue of adding z^2/2 successes and failures (Agresti and Coull 1998). Falls as 1/clusters^2.
    """
    z = normal_quantile(1 - (1 - confidence) / 2)
    return z * z / 2 * value * (1 - value) / (effective * (clusters - 1))


def unit_interval(value: float, variance: float, least: float, confidence: float = 0.95) -> tuple[float, float]:
    """Limits for a mean (or AUC) in [0, 1] from its estimate and estimated variance; the hull of three intervals.

    1. Normal on the logit scale: logit(value) +- z sd / (value (1 - value)).
    2. Clopper-Pearson at the effective sample size value (1 - value) / variance (Korn and Graubard 1998): matters where
       there are only one or two inversions, where 1. leaves out values too near the end.
    3. [value * least, 1 - (1 - value) * least], ``least`` from ``unseen``: a failure too rare to have been seen. At the
       ends 0 and 1, where no variance can be estimated, this alone is the interval, and it is exact there.

    ``variance`` infinite or NaN (it cannot be estimated) leaves 3. alone.
    """
    low, high = value * least, 1 - (1 - value) * least
    if not 0 < value < 1 or not math.isfinite(variance):
        return low, high
    if variance > 0:
        z = normal_quantile(1 - (1 - confidence) / 2)
        centre = math.log(value / (1 - value))
        half = z * math.sqrt(variance) / (value * (1 - value))
        # beyond 10^12 the exact limits are the value itself, and the beta quantile is no longer computed well
        effective = min(value * (1 - value) / variance, 1e12)
        exact = binomial_limits(value * effective, effective, confidence)
        low = min(low, _expit(centre - half), exact[0])
        high = max(high, _expit(centre + half), exact[1])
    return low, high


def mean_interval(values: ArrayLike, cluster: Labels | None = None, confidence: float = 0.95) -> Interval:
    """The mean of ``values`` (n,) in [0, 1] over clusters, with the limits of ``unit_interval``.

    Variance of a ratio mean over clusters (Cochran 1977, sec. 9): I/(I-1) sum_c (sum of c - size of c * mean)^2 /
    n^2, plus ``spread_floor``. Where all values are 1 (or 0) the limits are exact: the chance that I independent
    clusters are all 1 is at most mean^I. Raises ValueError for values outside [0, 1].
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not ((array >= 0) & (array <= 1)).all():
        raise ValueError("values must be a flat array of numbers in [0, 1]")
    if not len(array):
        return Interval(None, None, None, "nothing was measured")
    codes, count = cluster_codes(cluster, len(array))
    sizes = np.bincount(codes, minlength=count)
    mean = min(1.0, float(array.mean()))
    variance = math.inf
    if count > 1:
        deviations = np.bincount(codes, weights=array - mean, minlength=count)
        variance = count / (count - 1) * float((deviations**2).sum()) / len(array) ** 2
        variance += spread_floor(mean, count, kish(sizes), confidence)
    low, high = unit_interval(mean, variance, unseen(count, confidence), confidence)
    return Interval(mean, low, high)


def combine(values: Sequence[Interval | float], *, minimum: float = -math.inf, maximum: float = math.inf) -> Interval:
    """The mean over runs (seeds), with a 95% interval over runs, cut to [minimum, maximum].

    Student's t, which rests on runs being alike and roughly normal. Runs that agree, say at an AUC near 1, feign
    certainty then (docs/metrics.md has the coverage), so where every value is an ``Interval`` with limits the result is
    the hull with ``mover``. One run has no such interval; no value gives None. Raises ValueError for values that are
    not finite.
    """
    from scipy.special import stdtrit

    figures = [as_interval(value) for value in values]
    array = np.array([math.nan if one.value is None else one.value for one in figures], dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError("values over runs must be finite")
    if not len(array):
        return Interval(None, None, None, "no run")
    mean = float(array.mean())
    if len(array) < 2:
        return Interval(mean, None, None, "an interval over runs needs at least two runs")
    half = float(stdtrit(len(array) - 1, 1 - (1 - 0.95) / 2) * array.std(ddof=1) / math.sqrt(len(array)))
    below, above = mover(figures) or (0.0, 0.0)
    return Interval(mean, max(minimum, mean - max(half, below)), min(maximum, mean + max(half, above)))


def mover(figures: Sequence[Interval], minus: Sequence[Interval] = ()) -> tuple[float, float] | None:
    """How far below and above its estimate the mean of independent ``figures``, less that of ``minus`` (as many or
    none), reaches by their own limits; None where some figure has none.

    Variance estimates recovered from limits (Zou and Donner 2008): sqrt(sum (value - low)^2 + (minus' high - value)^2)
    / runs below, likewise above.
    """
    below = above = 0.0
    for sign, group in ((1, figures), (-1, minus)):
        for one in group:
            if one.value is None or one.low is None or one.high is None:
                return None
            down, up = one.value - one.low, one.high - one.value
            below += (down if sign > 0 else up) ** 2
            above += (up if sign > 0 else down) ** 2
    return math.sqrt(below) / len(figures), math.sqrt(above) / len(figures)


def bootstrap(
    statistic: Callable[[Ints], float],
    cluster: Labels,
    rng: np.random.Generator,
    *,
    samples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """Expanded percentile bootstrap over clusters (Davison and Hinkley 1997, sec. 2.4 and 3.8; Hesterberg 2015).

    ``statistic`` gets row numbers, shape (m,), repeated where a cluster was drawn repeatedly, and returns a number, or
    NaN where it is undefined on a resample (say, an empty class). With C clusters the quantiles are taken at
    Phi(sqrt(C / (C - 1)) t), t that of Student's t with C - 1 degrees of freedom: wider than plain ones by a little.
    Refused (limits None) with fewer than ``BOOTSTRAP_CLUSTERS`` = 50 clusters, where more than 1% of the resamples are
    undefined, and where all are equal: none of these intervals would hold what they promise.
    """
    from scipy.special import ndtr, stdtrit

    codes, count = cluster_codes(cluster, len(cluster))
    value = float(statistic(np.arange(len(codes))))
    if count < BOOTSTRAP_CLUSTERS:
        return Interval(value, None, None, f"a bootstrap takes {BOOTSTRAP_CLUSTERS} clusters, there are {count}")
    order = np.argsort(codes, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(codes, minlength=count))[:-1])
    alone = count == len(codes)  # then a draw of clusters is one of rows: nothing to put together
    draws = (rng.integers(0, count, count) for _ in range(samples))
    picks = (order[draw] if alone else np.concatenate([rows[c] for c in draw]) for draw in draws)
    drawn = np.array([statistic(pick) for pick in picks])
    good = drawn[np.isfinite(drawn)]
    if len(good) < 0.99 * samples:
        return Interval(value, None, None, f"undefined on {samples - len(good)} of {samples} resamples")
    if np.ptp(good) < 1e-12:
        return Interval(value, None, None, f"all {samples} resamples are equal: no spread to make limits of")
    tail = float(ndtr(math.sqrt(count / (count - 1)) * stdtrit(count - 1, (1 - confidence) / 2)))
    low, high = np.quantile(good, [tail, 1 - tail])
    return Interval(value, float(low), float(high), f"percentile bootstrap, {samples} resamples of {count} clusters")


def cluster_codes(cluster: Labels | None, count: int) -> tuple[Ints, int]:
    """Cluster labels as codes 0..C-1 in order of first appearance, (count,), and C. None: every record its own."""
    if cluster is None:
        return np.arange(count), count
    if len(cluster) != count:
        raise ValueError(f"expected {count} cluster labels, got {len(cluster)}")
    known: dict[object, int] = {}
    labels = cluster.tolist() if isinstance(cluster, np.ndarray) else cluster
    codes = np.fromiter((known.setdefault(label, len(known)) for label in labels), dtype=np.int64, count=count)
    return codes, len(known)


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
