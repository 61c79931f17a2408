"""Epsilon of Gaussian releases, Poisson-sampled or not, and the noise for an epsilon.

Releases are composed as privacy loss distributions (Koskela et al. 2020; ``dp_accounting``'s pessimistic estimate, an
upper bound), with Renyi DP (Mironov 2017) beside them.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from bench.core.errors import UsageError

#: beyond this, a calibration is refused: such an epsilon promises nothing, and a sigma can be fixed instead
MAX_CALIBRATED_EPSILON = 10_000.0
#: Renyi orders. Below 2 the series for sampled Gaussians often fails to converge; leaving orders out only loosens
_ORDERS = (*(x / 10 for x in range(20, 110)), *range(11, 64), 128, 256, 512, 1024)

#: (rate, sigma, steps): one entry per distinct (rate, sigma)
Composition = tuple[tuple[float, float, int], ...]


def default_delta(n: int) -> float:
    """1 / (10 n), rounded down to one significant digit: 0.003 for 30 records. ``n`` is a positive count."""
    if n < 1:
        raise ValueError(f"delta needs a positive number of records, not {n}")
    exponent = len(str(10 * n - 1))
    return float(f"{10**exponent // (10 * n)}e-{exponent}")


def _event(steps: Composition) -> Any:
    import dp_accounting

    def one(rate: float, sigma: float, count: int) -> Any:
        release = dp_accounting.GaussianDpEvent(sigma)
        sampled = release if rate == 1 else dp_accounting.PoissonSampledDpEvent(rate, release)
        return dp_accounting.SelfComposedDpEvent(sampled, count)

    return dp_accounting.ComposedDpEvent([one(*entry) for entry in steps])


@lru_cache(maxsize=256)
def epsilon_rdp(steps: Composition, delta: float) -> float:
    """Epsilon at ``delta`` by Renyi DP: an upper bound, looser than ``epsilon`` and quick."""
    from dp_accounting.rdp import RdpAccountant

    if not steps:
        return 0.0
    accountant = RdpAccountant(orders=_ORDERS)
    accountant.compose(_event(steps))
    return float(accountant.get_epsilon(delta))


# memoised because every adversary asks again about the same few compositions, at up to a second each
@lru_cache(maxsize=256)
def epsilon(steps: Composition, delta: float, coarse: bool = False) -> float:
    """Epsilon at ``delta`` by privacy loss distributions: an upper bound in any case.

    The losses are discretised in steps of about 1/50,000 of epsilon (``coarse``: 1/5,000) and rounded against us: the
    time then does not grow with epsilon, as it would with steps of one size (minutes near 1,000).
    """
    from bench.privacy.losses import composed

    rough = epsilon_rdp(steps, delta)
    if rough == 0:
        return 0.0
    interval = 10.0 ** max(math.floor(math.log10(rough / 2)) - 4, -7)
    return float(composed(steps, interval * (10 if coarse else 1)).get_epsilon_for_delta(delta))


# memoised because a run asks in every round at every silo
@lru_cache(maxsize=256)
def calibrate(epsilon_target: float, delta: float, rate: float, steps: int) -> float:
    """The smallest sigma, to 1 in 1,000, whose ``steps`` Poisson-sampled Gaussian releases cost ``epsilon_target``.

    The result never costs more than the target. Raises UsageError above ``MAX_CALIBRATED_EPSILON``, where only a
    sigma can be given, and ValueError for arguments out of range.
    """
    if not 0 < rate <= 1 or steps < 1 or not 0 < delta < 1:
        raise ValueError(f"can't calibrate for rate {rate}, {steps} steps, delta {delta}")
    if not 0 < epsilon_target <= MAX_CALIBRATED_EPSILON:
        raise UsageError(
            f"No noise is calibrated to epsilon {epsilon_target:g}: "
            f"give one above 0 and at most {MAX_CALIBRATED_EPSILON:g}, or fix sigma instead."
        )

    def cost(sigma: float) -> float:
        return epsilon(((rate, sigma, steps),), delta, coarse=True)

    high = 0.5
    while epsilon_rdp(((rate, high, steps),), delta) > epsilon_target:
        high *= 1.5
    low = high / 1.5
    while cost(low) <= epsilon_target:
        low, high = low / 1.5, low
    while high > low * 1.001:
        middle = math.sqrt(low * high)
        if cost(middle) <= epsilon_target:
            high = middle
        else:
            low = middle
    # printed with 4 digits after the point at most, so that the figure is the sigma
    sigma = math.ceil(high * 1e4) / 1e4
    while epsilon(((rate, sigma, steps),), delta) > epsilon_target:
        sigma = math.ceil(sigma * 1.001 * 1e4) / 1e4
    return sigma
