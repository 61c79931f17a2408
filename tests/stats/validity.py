"""How often bounds on epsilon exceed the true one, by enumeration: ``python -m tests.stats.validity``.

Prints a table of docs/metrics.md. The tests run the same functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import binom

from bench import stats

Floats = NDArray[np.float64]
Bound = Callable[[int, int, int, float, float], float]
EPSILONS = (0.0, 0.5, 1.0, 3.0, 6.0)
GUESSES = (1, 5, 20, 100, 400)
MUS = (0.2, 1.0, 2.0, 4.0)
DELTAS = (0.0, 0.001, 0.02)


def right_guesses(guesses: int, accuracy: float) -> Floats:
    """Chances of 0, ..., ``guesses`` right ones."""
    chances: Floats = binom.pmf(np.arange(guesses + 1), guesses, accuracy)
    return chances


def leaky_response(guesses: int, epsilon: float, delta: float) -> tuple[Floats, Floats]:
    """Chances of 0, ..., ``guesses`` right ones for two (epsilon, delta)-DP mechanisms: epsilon-randomised response of
    each canary that bares each with chance delta, and one that bares all together with chance delta."""
    accuracy = 1 / (1 + math.exp(-epsilon))
    each = right_guesses(guesses, delta + (1 - delta) * accuracy)
    together = (1 - delta) * right_guesses(guesses, accuracy)
    together[-1] += delta
    return each, together


def exceeded(
    bound: Bound,
    chances: Floats,
    canaries: int,
    epsilon: float,
    delta: float,
    significance: float = 0.05,
) -> float:
    """The chance that ``bound`` lies above ``epsilon``, over ``chances`` (guesses + 1,) of right guesses."""
    guesses = len(chances) - 1
    above = [bound(canaries, guesses, v, delta, significance) > epsilon + 1e-7 for v in range(guesses + 1)]
    return float(chances @ np.array(above, dtype=np.float64))


def gaussian_exceeded(mu: float, guesses: int, canaries: int, delta: float = 1e-5) -> float:
    """For an independent Gaussian mechanism of mu on each canary, guessed by the likelier side."""
    chances = right_guesses(guesses, float(ndtr(mu / 2)))
    return exceeded(stats.one_run_epsilon_fdp, chances, canaries, stats.gdp_epsilon(mu, delta), delta)


def runs_exceeded(epsilon: float, delta: float, positives: int, negatives: int, tpr: float) -> float:
    """For ``clopper_pearson_epsilon`` on a test with the least FPR that (epsilon, delta)-DP permits at ``tpr``."""
    fpr = max((tpr - delta) / math.exp(epsilon), 1 - delta - (1 - tpr) * math.exp(epsilon), 1e-12)
    return stats.clopper_pearson_power(tpr, fpr, positives, negatives, epsilon + 1e-7, delta)


def gaussian_runs_exceeded(mu: float, cut: float, size: int, delta: float = 1e-5) -> float:
    """For ``clopper_pearson_epsilon`` of the Gaussian family, a Gaussian mechanism of mu, threshold at ``cut`` mu."""
    tpr, fpr, epsilon = float(ndtr(mu * (1 - cut))), float(ndtr(-mu * cut)), stats.gdp_epsilon(mu, delta)
    return stats.clopper_pearson_power(tpr, fpr, size, size, epsilon + 1e-7, delta, family="gaussian")


def approximate(m: int, r: int, v: int, delta: float, significance: float) -> float:
    return stats.one_run_epsilon_fdp(m, r, v, delta, significance, family="approximate")


def main() -> None:
    print("| bound at significance 0.05 | true mechanisms | exceeds the true epsilon in at most |\n|---|---|---|")
    cases = [(g, e, d) for g in GUESSES for e in EPSILONS for d in DELTAS]
    for name, bound in (("one run", stats.one_run_epsilon), ("one run, f-DP, approximate", approximate)):
        for kind, which in (("each canary", 0), ("all canaries together", 1)):
            worst = max(exceeded(bound, leaky_response(g, e, d)[which], g, e, d) for g, e, d in cases)
            print(f"| {name} | randomised response, baring {kind} with chance delta | {worst:.3f} |", flush=True)
    worst = max(gaussian_exceeded(mu, g, c * g) for g in GUESSES for mu in MUS for c in (1, 4))
    print(f"| one run, f-DP, gaussian | Gaussian mechanism on each canary | {worst:.3f} |")
    rates, sizes = (0.02, 0.3, 0.7, 0.98), ((5, 5), (30, 30), (200, 50), (500, 500))
    worst = max(runs_exceeded(e, d, p, n, t) for p, n in sizes for e in EPSILONS for d in DELTAS for t in rates)
    print(f"| many runs, Clopper-Pearson | tests on the border of (epsilon, delta)-DP | {worst:.3f} |")
    worst = max(gaussian_runs_exceeded(mu, cut, n) for mu in MUS for cut in (0.2, 0.5, 0.8) for n in (5, 30, 500))
    print(f"| many runs, Clopper-Pearson, gaussian | Gaussian mechanism | {worst:.3f} |")


if __name__ == "__main__":
    main()
