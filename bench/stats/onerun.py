"""Lower bounds on epsilon from one training run (Steinke, Nasr and Jagielski 2023, "Privacy auditing with one (1)
training run", NeurIPS).

Each of m canaries is trained on or not by a fair coin of its own. The auditor sees what the run gave out, guesses the
coins of r canaries of its choice and abstains from the others; v guesses are right. Under (epsilon, delta)-DP towards
adding or removing a canary, many right guesses are unlikely, whatever the auditor does and however the canaries
influence each other. r is fixed before the scores are seen, or corrected for (``one_run_epsilon_chosen``).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from bench.stats.auc import checked
from bench.stats.intervals import Floats

#: (canaries, guesses, correct, delta, significance) -> epsilon
Bound = Callable[[int, int, int, float, float], float]
#: what a claim promises: mu-GDP, or (epsilon, delta)-DP alone
Family = Literal["gaussian", "approximate"]
#: no search goes beyond: no number of guesses that fits a machine refutes it
_TOP = 1024.0


def one_run_p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """The chance of at least ``correct`` right guesses, at most, under (``epsilon``, ``delta``)-DP; in [0, 1].

    Steinke et al. 2023, theorem 5.2 with m canaries, r guesses, v right: with X ~ Binomial(r, 1 / (1 + e^-epsilon)),

        P(X >= v) + 2 m delta max over i in 1..v of P(v - i <= X < v) / i.

    The first term is what epsilon-randomised response on each canary reaches. Raises ValueError unless 0 <= correct <=
    guesses <= canaries, epsilon >= 0 and 0 <= delta <= 1.
    """
    canaries, guesses, correct = checked_counts(canaries, guesses, correct)
    if not epsilon >= 0:
        raise ValueError(f"epsilon must be at least 0, got {epsilon}")
    if not 0 <= delta <= 1:
        raise ValueError(f"delta must be in [0, 1], got {delta}")
    if correct == 0:
        return 1.0
    accuracy = 1 / (1 + math.exp(-epsilon))
    least = float(at_least(np.array([correct]), guesses, accuracy)[0])
    if delta == 0:
        return least
    steps = np.arange(1, correct + 1)
    spread = (at_least(correct - steps, guesses, accuracy) - least) / steps
    return min(1.0, least + 2 * canaries * delta * max(0.0, float(spread.max())))


def one_run_epsilon(canaries: int, guesses: int, correct: int, delta: float, significance: float = 0.05) -> float:
    """The largest epsilon that ``correct`` right of ``guesses`` refute at ``significance``; 0.0 where they refute none.

    It exceeds the true epsilon (at ``delta``) with a chance of at most ``significance``, with no assumption but the
    canaries' coins. ``guesses`` must have been fixed beforehand. Raises ValueError unless 0 <= correct <= guesses <=
    canaries, 0 <= delta < 1 and 0 < significance < 1.
    """
    canaries, guesses, correct = checked_counts(canaries, guesses, correct)
    checked_levels(delta, significance)
    return largest(lambda epsilon: one_run_p_value(canaries, guesses, correct, epsilon, delta) <= significance)


def one_run_epsilon_limit(
    canaries: int, guesses: int, delta: float, significance: float = 0.05, bound: Bound = one_run_epsilon
) -> float:
    """The largest epsilon that ``guesses`` guesses could have shown: all of them right.

    At delta 0 it is ln(s / (1 - s)), s = significance^(1 / guesses): 3.5 for 100 guesses, 5.8 for 1,000.
    """
    return bound(canaries, guesses, guesses, delta, significance)


def one_run_epsilon_chosen(
    canaries: int,
    outcomes: Sequence[tuple[int, int]],
    delta: float,
    significance: float = 0.05,
    bound: Bound = one_run_epsilon,
) -> float:
    """The largest bound over several numbers of guesses, corrected for the choice.

    ``outcomes``: (guesses, correct) for every number of guesses that was considered, not only the best; the list of
    numbers itself must be fixed beforehand. Each is tested at significance / len(outcomes) (Bonferroni), so the result
    exceeds the true epsilon with a chance of at most ``significance``. Its limit is the same with all guesses right.
    Raises ValueError for no outcome, and as ``bound`` does.
    """
    if not outcomes:
        raise ValueError("no number of guesses was given")
    share = significance / len(outcomes)
    return max(bound(canaries, guesses, correct, delta, share) for guesses, correct in outcomes)


def one_run_guesses(scores: ArrayLike, member: ArrayLike, top: int, bottom: int = 0) -> tuple[int, int]:
    """(guesses, correct) of saying "trained on" for the ``top`` highest of ``scores`` (n,), "not" for the ``bottom``.

    Equal scores stand in the order they are given, so that order must owe nothing to the coins ``member`` (n,). Raises
    ValueError for negative numbers, or more guesses than scores.
    """
    array, labels = checked(scores, member)
    top, bottom = operator.index(top), operator.index(bottom)
    if min(top, bottom) < 0 or top + bottom > len(labels):
        raise ValueError(f"cannot guess {top} + {bottom} of {len(labels)} canaries")
    order = np.argsort(-array[0], kind="stable")
    right = int(labels[order[:top]].sum()) + int((~labels[order[len(labels) - bottom :]]).sum())
    return top + bottom, right


def checked_counts(canaries: int, guesses: int, correct: int) -> tuple[int, int, int]:
    """The three as int. Raises ValueError unless 0 <= correct <= guesses <= canaries, TypeError for fractions."""
    canaries, guesses, correct = operator.index(canaries), operator.index(guesses), operator.index(correct)
    if not 0 <= correct <= guesses <= canaries:
        raise ValueError(f"need 0 <= correct <= guesses <= canaries, got {correct}, {guesses}, {canaries}")
    return canaries, guesses, correct


def checked_levels(delta: float, significance: float) -> None:
    """Raises ValueError unless 0 <= delta < 1 and 0 < significance < 1."""
    if not 0 <= delta < 1:
        raise ValueError(f"delta must be in [0, 1), got {delta}")
    if not 0 < significance < 1:
        raise ValueError(f"significance must be in (0, 1), got {significance}")


def checked_family(family: Family, delta: float) -> None:
    """Raises ValueError for an unknown family, and for a Gaussian one at delta 0."""
    if family not in ("gaussian", "approximate"):
        raise ValueError(f"family must be 'gaussian' or 'approximate', got {family!r}")
    if family == "gaussian" and delta == 0:
        raise ValueError("a Gaussian mechanism has no finite epsilon at delta 0")


def at_least(counts: ArrayLike, trials: int, chance: float) -> Floats:
    """P(Binomial(trials, chance) >= count), one for each of ``counts`` (k,), each at most ``trials``."""
    from scipy.special import betainc

    needed = np.asarray(counts, dtype=np.float64)
    tails: Floats = np.ones_like(needed)
    some = needed > 0
    tails[some] = betainc(needed[some], trials - needed[some] + 1, chance)
    return tails


def largest(refuted: Callable[[float], bool]) -> float:
    """The largest number >= 0 that ``refuted`` holds for, by doubling and bisection to 1e-9; 0.0 where it never does.

    What is returned was itself refuted, so rounding never raises a bound.
    """
    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while high < _TOP and refuted(high):
        low, high = high, 2 * high
    while high - low > 1e-9 * max(1.0, low):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
