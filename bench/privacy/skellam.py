"""Renyi DP of Skellam noise on integer vectors, alone or beside Gaussian releases.

The Skellam distribution of variance mu is the difference of two independent Poisson variables of mean mu/2; a sum of
independent ones is one again, of the sum of the variances. For a vector of integers whose value changes by z with
|z|_2 <= D2 and |z|_1 <= D1, a release with independent Skellam noise in every coordinate has, for every integer
alpha > 1,

    eps(alpha) <= alpha D2^2 / (2 mu) + min( ((2 alpha - 1) D2^2 + 6 D1) / (4 mu^2),  3 D1 / (2 mu) )

(Agarwal, Kairouz and Liu 2021, "The Skellam Mechanism for Differentially Private Federated Learning", corollary 3.6).
Releases add up order by order (Mironov 2017, proposition 1), adaptively; epsilon at delta is ``dp_accounting``'s
conversion (Canonne, Kamath and Steinke 2020, proposition 12), an upper bound. No sampling is assumed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.core.errors import UsageError
from bench.defense.parts import Mechanism
from bench.privacy.accountant import MAX_CALIBRATED_EPSILON, Composition
from bench.privacy.kinds import Refused

#: integers, as the bound asks for; Gaussian releases have the bound alpha / (2 sigma^2) at every order
ORDERS = (*range(2, 64), *range(64, 256, 8), 256, 384, 512, 768, 1024, 2048, 4096)

_PARAMS = ("variance", "sensitivity", "dimension")


@dataclass(frozen=True)
class Skellam:
    """One release: ``variance`` of the noise per value, ``sensitivity`` (L2, of integers), ``dimension`` (values)."""

    variance: float
    sensitivity: float
    dimension: int

    @classmethod
    def of(cls, mechanism: Mechanism) -> Skellam:
        """From a logged mechanism. Raises Refused where a parameter is missing or out of range."""
        try:
            variance, sensitivity, dimension = (float(mechanism.params[name]) for name in _PARAMS)
        except KeyError as error:
            raise Refused(f"a logged '{mechanism.kind}' lacks {error}") from None
        sizes = 0 <= variance < math.inf and 0 < sensitivity < math.inf
        if not sizes or not 1 <= dimension < math.inf or dimension != int(dimension):
            raise Refused(f"a logged '{mechanism.kind}' is out of range: {dict(mechanism.params)}")
        if variance == 0:
            raise Refused(f"a logged '{mechanism.kind}' added no noise")
        return cls(variance, sensitivity, int(dimension))

    @property
    def sensitivity_l1(self) -> float:
        """The most that |z|_1 can be: sqrt(d) |z|_2, and of integers |z|_2^2."""
        return self.sensitivity * min(math.sqrt(self.dimension), self.sensitivity)

    def rdp(self, alpha: int) -> float:
        """The bound above. Infinite without noise."""
        mu, two, one = self.variance, self.sensitivity**2, self.sensitivity_l1
        if mu <= 0:
            return math.inf
        return alpha * two / (2 * mu) + min(((2 * alpha - 1) * two + 6 * one) / (4 * mu**2), 3 * one / (2 * mu))


def epsilon_skellam(releases: Sequence[Skellam], delta: float, gaussian: Composition = ()) -> float:
    """Epsilon at ``delta`` of all releases and of ``gaussian`` ones besides, which must be unsampled (rate 1).

    Raises ValueError for sampled ones, and for a delta that is not in (0, 1).
    """
    from dp_accounting.rdp import rdp_privacy_accountant

    if not 0 < delta < 1 or any(rate != 1 for rate, _, _ in gaussian):
        raise ValueError(f"no such bound for delta {delta} and {gaussian}")
    if not releases and not gaussian:
        return 0.0
    costs = [
        sum(one.rdp(alpha) for one in releases) + sum(alpha * count / (2 * sigma**2) for _, sigma, count in gaussian)
        for alpha in ORDERS
    ]
    finite = [(alpha, cost) for alpha, cost in zip(ORDERS, costs, strict=True) if math.isfinite(cost)]
    if not finite:
        return math.inf
    orders, bounded = zip(*finite, strict=True)
    found, _ = rdp_privacy_accountant.compute_epsilon(orders, bounded, delta)
    return float(found)


def calibrate_skellam(target: float, delta: float, sensitivity: float, dimension: int, rounds: int) -> float:
    """The smallest variance, to 1 in 1,000, with which ``rounds`` releases cost at most ``target``.

    Raises UsageError for a target above ``MAX_CALIBRATED_EPSILON``, ValueError for arguments out of range.
    """
    if not 0 < target <= MAX_CALIBRATED_EPSILON:
        raise UsageError(
            f"No noise is calibrated to epsilon {target:g}: "
            f"give one above 0 and at most {MAX_CALIBRATED_EPSILON:g}, or fix sigma instead."
        )
    if not sensitivity > 0 or dimension < 1 or rounds < 1 or not 0 < delta < 1:
        raise ValueError(f"can't calibrate for {sensitivity}, {dimension}, {rounds}, {delta}")

    def cost(variance: float) -> float:
        return epsilon_skellam([Skellam(variance, sensitivity, dimension)] * rounds, delta)

    high = sensitivity**2
    while cost(high) > target:
        high *= 2
    low = high
    while cost(low) <= target:
        low, high = low / 2, low
    while high > low * 1.001:
        middle = math.sqrt(low * high)
        if cost(middle) <= target:
            high = middle
        else:
            low = middle
    return high
