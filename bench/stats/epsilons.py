"""Epsilon from many runs (a bound), and from fitted normal distributions (estimates that rest on an assumption)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from bench.stats.intervals import Floats, binomial_limits
from bench.stats.onerun import Family, checked_family, checked_levels, largest

#: beyond this many nats an epsilon is reported as infinite
_TOP = 1e12


def clopper_pearson_epsilon(
    true_positives: int,
    positives: int,
    false_positives: int,
    negatives: int,
    delta: float,
    significance: float = 0.05,
    family: Family = "approximate",
) -> float:
    """Lower bound on epsilon from a test's hits and false alarms over independent runs; 0.0 where nothing is shown.

    Jagielski, Ullman and Oprea 2020 and Nasr et al. 2021: (epsilon, delta)-DP keeps TPR <= e^epsilon FPR + delta and
    TNR <= e^epsilon FNR + delta. With the Clopper-Pearson limits TPR_low and FPR_high, each at significance / 2,

        max(ln((TPR_low - delta) / FPR_high), ln((1 - FPR_high - delta) / (1 - TPR_low))),

    which exceeds the true epsilon with a chance of at most ``significance``. ``family`` "gaussian" gives the epsilon at
    ``delta`` > 0 of the largest mu-GDP refuted, mu = Phi^-1(TPR_low) - Phi^-1(FPR_high) (Nasr et al. 2023, "Tight
    auditing of differentially private machine learning"): far stronger against a Gaussian mechanism's claim, and by
    itself no proof against (epsilon, delta). The counts must be of independent trials: runs, or canaries that can't
    influence each other and are not found through one another, with a threshold set elsewhere. Raises ValueError
    unless 0 <= true_positives <= positives, likewise false ones, 0 <= delta < 1 and 0 < significance < 1.
    """
    for count, trials in ((true_positives, positives), (false_positives, negatives)):
        if not 0 <= count <= trials:
            raise ValueError(f"need 0 <= count <= trials, got {count} of {trials}")
    checked_levels(delta, significance)
    checked_family(family, delta)
    low = binomial_limits(true_positives, positives, 1 - significance)[0]
    high = binomial_limits(false_positives, negatives, 1 - significance)[1]
    if family == "gaussian":
        return gdp_epsilon(float(mu_of_rates(np.array([low]), np.array([high]))[0]), delta)
    return float(epsilon_of_rates(np.array([low]), np.array([high]), delta)[0])


def clopper_pearson_epsilon_limit(
    positives: int, negatives: int, delta: float, significance: float = 0.05, family: Family = "approximate"
) -> float:
    """The largest epsilon that so many runs could have shown: no miss and no false alarm."""
    return clopper_pearson_epsilon(positives, positives, 0, negatives, delta, significance, family)


def mu_of_rates(tpr: Floats, fpr: Floats) -> Floats:
    """The least mu >= 0 whose mu-GDP admits a test of these rates (any shapes that broadcast), tpr < 1, fpr > 0."""
    from scipy.special import ndtri

    found: Floats = np.maximum(0.0, ndtri(tpr) - ndtri(fpr))
    return found


def epsilon_of_rates(tpr: Floats, fpr: Floats, delta: float) -> Floats:
    """The least epsilon >= 0 that admits a test of these rates (any shapes that broadcast), 0 < fpr, tpr < 1."""
    with np.errstate(divide="ignore"):
        one = np.log(np.maximum(tpr - delta, 0)) - np.log(fpr)
        other = np.log(np.maximum(1 - fpr - delta, 0)) - np.log1p(-tpr)
    found: Floats = np.maximum(0.0, np.maximum(one, other))
    return found


def gaussian_epsilon(mean_in: float, sd_in: float, mean_out: float, sd_out: float, delta: float) -> float:
    """Epsilon at ``delta`` between two normal distributions of scores, of canaries in and out: an ESTIMATE.

    It rests on the assumption that scores are normal with exactly these means and deviations, and that this score is
    all the adversary has; no bound and no interval comes with it, and it is never a proof (Andrew et al. 2024,
    "One-shot empirical privacy estimation for federated learning", ICLR). It is the smallest epsilon >= 0 at which
    P(L > epsilon) - e^epsilon Q(L > epsilon), L = ln(dP/dQ), is at most ``delta`` for (P, Q) = (in, out) and (out, in).
    L is quadratic, so these sets are intervals or their complements, and unequal deviations are exact too. With equal
    ones it is the Gaussian mechanism's (Balle and Wang 2018).

    At delta 0 it is 0 for equal distributions, else infinite. Raises ValueError unless both sds are positive, all is
    finite, and 0 <= delta < 1.
    """
    numbers = (mean_in, sd_in, mean_out, sd_out)
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"means and deviations must be finite, got {numbers}")
    if sd_in <= 0 or sd_out <= 0:
        raise ValueError(f"deviations must be positive, got {sd_in} and {sd_out}")
    checked_levels(delta, 0.5)
    if delta == 0:
        return 0.0 if (mean_in, sd_in) == (mean_out, sd_out) else math.inf
    one = (mean_in - mean_out) / sd_out, sd_in / sd_out
    other = (mean_out - mean_in) / sd_in, sd_out / sd_in
    return _crossing(lambda epsilon: max(hockey_stick(epsilon, *one), hockey_stick(epsilon, *other)), delta)


def gdp_epsilon(mu: float, delta: float) -> float:
    """The epsilon of mu-GDP at ``delta`` in (0, 1): ``gaussian_epsilon`` of N(mu, 1) and N(0, 1)."""
    return gaussian_epsilon(mu, 1.0, 0.0, 1.0, delta)


def gdp_mu(epsilon: float, delta: float) -> float:
    """The largest mu whose mu-GDP has at most ``epsilon`` >= 0 at ``delta`` in (0, 1); inverse of ``gdp_epsilon``."""
    if not epsilon >= 0 or not 0 < delta < 1:
        raise ValueError(f"need epsilon >= 0 and delta in (0, 1), got {epsilon} and {delta}")
    return largest(lambda mu: hockey_stick(epsilon, mu, 1.0) <= delta)


def one_shot_epsilon(cosines: ArrayLike, dimension: int, delta: float) -> float:
    """Epsilon at ``delta`` from the cosines of random canaries with what was released: an ESTIMATE.

    Andrew et al. 2024, algorithm 1: each canary adds a vector drawn uniformly from the sphere in ``dimension``
    dimensions; ``cosines`` (k,) are between those that took part and the release. Of one that did not, the cosine is
    N(0, 1 / dimension), known and not measured (so from 1,000 dimensions on); those that took part are taken as normal
    with their own mean and standard deviation (over k - 1). ``gaussian_epsilon`` of the two. It rests on that normality
    and on canaries that stand for the worst case.

    Raises ValueError for fewer than two cosines, any outside [-1, 1], cosines that are all equal, or fewer dimensions.
    """
    array = np.asarray(cosines, dtype=np.float64)
    if array.ndim != 1 or len(array) < 2 or not (np.abs(array) <= 1 + 1e-9).all():
        raise ValueError("cosines must be at least two numbers in [-1, 1]")
    if dimension < 1000:
        raise ValueError(f"dimension must be at least 1000 for cosines to be normal, got {dimension}")
    sd = float(array.std(ddof=1))
    if sd == 0:
        raise ValueError("the cosines are all equal: no normal distribution fits them")
    return gaussian_epsilon(float(array.mean()), sd, 0.0, 1 / math.sqrt(dimension), delta)


def hockey_stick(epsilon: float, shift: float, scale: float) -> float:
    """P(L > epsilon) - e^epsilon Q(L > epsilon) for P = N(shift, scale^2), Q = N(0, 1), L = ln(dP/dQ); in [0, 1]."""
    a = (1 - 1 / scale**2) / 2
    b = shift / scale**2
    c = -(shift**2) / (2 * scale**2) - math.log(scale) - epsilon
    if a == 0:
        if b == 0:
            return max(0.0, 1 - math.exp(epsilon)) if c > 0 else 0.0
        root = -c / b
        sets = [(root, math.inf) if b > 0 else (-math.inf, root)]
    else:
        inside = b * b - 4 * a * c
        if inside <= 0:
            return (
                0.0  # for a < 0 the ratio stays below; for a > 0 it exceeds e^epsilon >= 1 everywhere, by rounding only
            )
        q = -(b + math.copysign(math.sqrt(inside), b)) / 2
        low, high = sorted((q / a, c / q))
        sets = [(low, high)] if a < 0 else [(-math.inf, low), (high, math.inf)]
    p = sum(math.exp(_log_mass((lo - shift) / scale, (hi - shift) / scale)) for lo, hi in sets)
    q_scaled = sum(math.exp(min(700.0, epsilon + _log_mass(lo, hi))) for lo, hi in sets)
    return max(0.0, p - q_scaled)


def _log_mass(low: float, high: float) -> float:
    """ln P(low < Z < high) of a standard normal, accurate in both tails."""
    from scipy.special import log_ndtr

    if low > 0:
        low, high = -high, -low
    upper, lower = float(log_ndtr(high)), float(log_ndtr(low))
    if upper == -math.inf or lower >= upper:
        return -math.inf
    return upper + math.log1p(-math.exp(lower - upper))


def _crossing(falling: Callable[[float], float], level: float) -> float:
    """The least x >= 0 with falling(x) <= level, to 1e-12 of itself; infinite beyond ``_TOP``."""
    if falling(0.0) <= level:
        return 0.0
    low, high = 0.0, 1.0
    while falling(high) > level:
        low, high = high, 2 * high
        if high > _TOP:
            return math.inf
    while high - low > 1e-12 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (low, middle) if falling(middle) <= level else (middle, high)
    return high
