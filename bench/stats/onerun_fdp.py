"""One-run audits by trade-off functions (Mahloujifar, Melis and Chaudhuri 2024, "Auditing f-differential privacy in one
run").

f-DP promises more than one (epsilon, delta): with fbar = 1 - f, P(S | canary in) <= fbar(P(S | canary out)) for every
event S, and the same with in and out exchanged. With m canaries by fair coins, r guesses, and p_t the chance that just
t are right, take a random canary, and S = "it was guessed, and right, and at least i are right". Turning its coin makes
that guess wrong and the number of right ones smaller by one, hence, fbar being concave,

    r_i <= fbar(h_(i-1)),   r_i = sum over t >= i of (t / m) p_t,   h_i = sum over t >= i of ((r - t) / m) p_t.

If P(at least v are right) were as large as the significance, these inequalities would force a total chance r_0 + h_0
above r / m: that is the contradiction looked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from bench.stats.onerun import Family, checked_counts, checked_family, checked_levels, largest

#: the least P(S | canary out) that allows a given P(S | canary in): the inverse of 1 - f, rising from [0, 1] to [0, 1]
Inverse = Callable[[float], float]


def gaussian_tradeoff(mu: float) -> Inverse:
    """mu-GDP (Dong, Roth and Su 2022): x -> Phi(Phi^-1(x) - mu). A Gaussian mechanism has mu = sensitivity / sd."""
    from scipy.special import ndtr, ndtri

    return lambda x: float(ndtr(ndtri(x) - mu))


def approximate_tradeoff(epsilon: float, delta: float) -> Inverse:
    """(epsilon, delta)-DP (Wasserman and Zhou 2010): x -> max(0, e^-epsilon (x - delta), 1 - delta - e^epsilon (1 -
    x)).
    """
    shrink = math.exp(-epsilon)
    return lambda x: max(0.0, shrink * (x - delta), 1 - delta - (1 - x) / shrink if shrink > 0 else 0.0)


def one_run_refuted(canaries: int, guesses: int, correct: int, significance: float, inverse: Inverse) -> bool:
    """Whether ``correct`` right of ``guesses`` refute the trade-off function behind ``inverse`` at ``significance``.

    Starts from P(at least v right) = significance, all of it at v, and adds for v - 1, ..., 0 the least chance that
    the inequality above demands: h_i = max(h_(i+1), inverse(r_(i+1))), r_i = r_(i+1) + i / (r - i) (h_i - h_(i+1)).
    Any true distribution with that tail has sums no smaller (docs/metrics.md), so it is refuted where r_0 + h_0
    exceeds r / m. Valid for trade-off functions that are alike both ways. Raises ValueError as ``one_run_epsilon``.
    """
    canaries, guesses, correct = checked_counts(canaries, guesses, correct)
    checked_levels(0.0, significance)
    if guesses == 0:
        return False
    total = guesses / canaries
    right, wrong = significance * correct / canaries, significance * (guesses - correct) / canaries
    for i in range(correct - 1, -1, -1):
        more = inverse(right)
        if more <= wrong:
            break  # nothing changes from here on
        right, wrong = right + i / (guesses - i) * (more - wrong), more
        if right + wrong > total:
            return True
    return right + wrong > total


def one_run_epsilon_fdp(
    canaries: int,
    guesses: int,
    correct: int,
    delta: float,
    significance: float = 0.05,
    family: Family = "gaussian",
) -> float:
    """The epsilon at ``delta`` of the leakiest member of ``family`` that is refuted at ``significance``; 0.0 for none.

    * ``gaussian``: mu-GDP, the largest mu refuted, as the epsilon that mu-GDP has at ``delta``. It refutes the claim
      "no leakier than a Gaussian mechanism of that epsilon", which says more than (epsilon, delta)-DP: by itself it
      does not prove a mechanism's (epsilon, delta) wrong. Needs delta > 0.
    * ``approximate``: (epsilon, delta)-DP as such. What it returns is proven as ``one_run_epsilon``'s is.

    Raises ValueError unless 0 <= correct <= guesses <= canaries, 0 <= delta < 1 and 0 < significance < 1.
    """
    from bench.stats.epsilons import gdp_epsilon

    canaries, guesses, correct = checked_counts(canaries, guesses, correct)
    checked_levels(delta, significance)
    checked_family(family, delta)

    def refuted(inverse: Inverse) -> bool:
        return one_run_refuted(canaries, guesses, correct, significance, inverse)

    if family == "approximate":
        return largest(lambda epsilon: refuted(approximate_tradeoff(epsilon, delta)))
    return gdp_epsilon(largest(lambda mu: refuted(gaussian_tradeoff(mu))), delta)
