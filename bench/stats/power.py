"""What could have been seen: the smallest AUC and difference that so many records show, and the power of audits.

A report that found nothing says with these what it would have missed. Records of a cluster count as one: give effective
numbers (``kish``) where there are clusters.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from bench.stats.epsilons import epsilon_of_rates, gdp_mu, mu_of_rates
from bench.stats.intervals import Bools, Ints, normal_quantile
from bench.stats.onerun import Bound, Family, at_least, checked_counts, checked_family, checked_levels, one_run_epsilon


def auc_variance(auc: float, members: float, nonmembers: float) -> float:
    """The variance of an estimated AUC (Hanley and McNeil 1982): Q1 = A / (2 - A), Q2 = 2 A^2 / (1 + A),

        (A (1 - A) + (m - 1)(Q1 - A^2) + (n - 1)(Q2 - A^2)) / (m n).

    It is that of exponential scores; of the two ways round (who is the wider class) the larger is given. Raises
    ValueError unless 0 <= auc <= 1 and both numbers are at least 1.
    """
    if not 0 <= auc <= 1 or min(members, nonmembers) < 1:
        raise ValueError(f"need an AUC in [0, 1] and records of both classes, got {auc}, {members}, {nonmembers}")
    one, other = auc / (2 - auc) - auc**2, 2 * auc**2 / (1 + auc) - auc**2
    sides = (members - 1) * one + (nonmembers - 1) * other, (members - 1) * other + (nonmembers - 1) * one
    return (auc * (1 - auc) + max(sides)) / (members * nonmembers)


def least_auc(members: float, nonmembers: float, level: float = 0.05, power: float = 0.8) -> float | None:
    """The smallest AUC above 1/2 that a two-sided test at ``level`` calls better than chance with chance ``power``.

    A with A - 1/2 = z_(1 - level/2) sd_0 + z_power sd_A; sd_0^2 = (m + n + 1) / (12 m n) (Mann and Whitney 1947), sd_A
    from ``auc_variance``. None where no AUC up to 1 would do. Normal approximation. Raises ValueError for levels
    outside (0, 1) or less than one record a class.
    """
    z, z_power = _quantiles(level, power)
    null = math.sqrt((members + nonmembers + 1) / (12 * members * nonmembers)) if min(members, nonmembers) >= 1 else 0.0

    def enough(auc: float) -> bool:
        return auc - 0.5 >= z * null + z_power * math.sqrt(auc_variance(auc, members, nonmembers))

    return _least(enough, 0.5, 1.0)


def least_auc_difference(members: float, nonmembers: float, auc: float, correlation: float = 0.0) -> float | None:
    """The smallest d so that AUCs of ``auc`` and ``auc`` - d, on the same records, are told apart; None where none is.

    Two-sided at 5% with a chance of 80%: d = (z_0.975 + z_0.8) sqrt(V_1 + V_2 - 2 rho sd_1 sd_2)
    (Hanley and McNeil 1983), V from ``auc_variance``, rho the ``correlation`` of the two estimates: 0 errs on the large
    side where scores agree at all. It speaks of two models on these records, not of defenses. Raises ValueError for
    arguments out of range.
    """
    z, z_power = _quantiles(0.05, 0.8)
    if not -1 <= correlation <= 1:
        raise ValueError(f"correlation must be in [-1, 1], got {correlation}")
    first = auc_variance(auc, members, nonmembers)

    def enough(d: float) -> bool:
        second = auc_variance(auc - d, members, nonmembers)
        spread = first + second - 2 * correlation * math.sqrt(first * second)
        return d >= (z + z_power) * math.sqrt(max(0.0, spread))

    return _least(enough, 0.0, auc)


def one_run_least_correct(
    canaries: int,
    guesses: int,
    epsilon: float,
    delta: float,
    significance: float = 0.05,
    bound: Bound = one_run_epsilon,
) -> int | None:
    """The fewest right ones of ``guesses`` that put ``bound`` above a claim of ``epsilon``; None where all won't do."""
    checked_counts(canaries, guesses, guesses)
    checked_levels(delta, significance)

    def refuted(correct: int) -> bool:
        return bound(canaries, guesses, correct, delta, significance) > epsilon

    return bisect_left(range(guesses), True, key=refuted) if refuted(guesses) else None


def one_run_power(
    canaries: int,
    guesses: int,
    accuracy: float,
    epsilon: float,
    delta: float,
    significance: float = 0.05,
    bound: Bound = one_run_epsilon,
) -> float:
    """The chance that a one-run audit puts ``bound`` above a claim of ``epsilon``, if each guess is right with
    ``accuracy``.

    P(Binomial(guesses, accuracy) >= ``one_run_least_correct``): for guesses that are right independently.
    ``gaussian_accuracy`` is that of a leak of mu-GDP. Raises ValueError for arguments out of range.
    """
    if not 0 <= accuracy <= 1:
        raise ValueError(f"accuracy must be in [0, 1], got {accuracy}")
    least = one_run_least_correct(canaries, guesses, epsilon, delta, significance, bound)
    return 0.0 if least is None else float(at_least(np.array([least]), guesses, accuracy)[0])


def gaussian_accuracy(mu: float, share: float = 1.0) -> float:
    """How often the surest ``share`` in (0, 1] of guesses is right, if a canary leaks mu-GDP: scores are N(0, 1) of
    those out and N(mu, 1) of those in, by a fair coin.

    Guessed where the score is at least t away from mu / 2, on either side: Phi(mu / 2 - t) / share, with Phi(mu / 2 -
    t) + Phi(-mu / 2 - t) = share. With all guessed, Phi(mu / 2). Raises ValueError for mu < 0 or share outside (0, 1].
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr

    if not mu >= 0 or not 0 < share <= 1:
        raise ValueError(f"need mu >= 0 and a share in (0, 1], got {mu} and {share}")

    def excess(t: float) -> float:
        return float(ndtr(mu / 2 - t) + ndtr(-mu / 2 - t)) - share

    t = 0.0 if share == 1 else float(brentq(excess, 0.0, mu / 2 + 40))
    return float(ndtr(mu / 2 - t) / (ndtr(mu / 2 - t) + ndtr(-mu / 2 - t)))


@lru_cache(maxsize=256)
def clopper_pearson_power(
    tpr: float,
    fpr: float,
    positives: int,
    negatives: int,
    epsilon: float,
    delta: float,
    significance: float = 0.05,
    family: Family = "approximate",
) -> float:
    """The chance that ``clopper_pearson_epsilon`` exceeds a claim of ``epsilon``, for a test of these true rates.

    By enumeration of all (positives + 1) x (negatives + 1) outcomes: more alarms never show more. Raises ValueError for
    arguments out of range.
    """
    from scipy.special import betaincinv
    from scipy.stats import binom

    if not (0 <= tpr <= 1 and 0 <= fpr <= 1 and positives >= 0 and negatives >= 0):
        raise ValueError("rates must be in [0, 1] and numbers of runs at least 0")
    checked_levels(delta, significance)
    checked_family(family, delta)
    hits, alarms = np.arange(positives + 1.0), np.arange(negatives + 1.0)
    low, high = np.zeros(positives + 1), np.ones(negatives + 1)
    low[1:] = betaincinv(hits[1:], positives - hits[1:] + 1, significance / 2)
    high[:-1] = betaincinv(alarms[:-1] + 1, negatives - alarms[:-1], 1 - significance / 2)
    if family == "gaussian":
        mu = gdp_mu(epsilon, delta)
        enough = _leading(lambda rows, columns: mu_of_rates(low[rows], high[columns]) > mu, low.size, high.size)
    else:
        enough = _leading(
            lambda rows, columns: epsilon_of_rates(low[rows], high[columns], delta) > epsilon, low.size, high.size
        )
    flagged = np.arange(high.size) < enough[:, None]
    return float(binom.pmf(hits, positives, tpr) @ flagged @ binom.pmf(alarms, negatives, fpr))


def _leading(holds: Callable[[Ints, Ints], Bools], rows: int, columns: int) -> Ints:
    """(rows,) in how many columns ``holds`` of each row, where it does in the first ones and in no other."""
    every, last = np.arange(rows), np.full(rows, columns)
    first = np.zeros(rows, dtype=np.int64)
    while np.any(first < last):
        middle = (first + last) // 2
        inside = first < last
        yes = holds(every, np.minimum(middle, columns - 1)) & inside
        first, last = np.where(yes, middle + 1, first), np.where(inside & ~yes, middle, last)
    return first


def _quantiles(level: float, power: float) -> tuple[float, float]:
    if not (0 < level < 1 and 0 < power < 1):
        raise ValueError(f"level and power must be in (0, 1), got {level} and {power}")
    return normal_quantile(1 - level / 2), normal_quantile(power)


def _least(enough: Callable[[float], bool], low: float, high: float) -> float | None:
    """The least x in (low, high] with ``enough``, by bisection to 1e-9; None where ``high`` is not enough."""
    if not enough(high):
        return None
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
