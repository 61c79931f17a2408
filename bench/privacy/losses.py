"""Privacy loss distributions of composed Gaussian releases, Poisson-sampled or not.

What ``dp_accounting.pld.PLDAccountant`` computes, to the last bit, from the same library's loss, discretisation and
composition. Only the step between them is made here for all losses at once, where the library asks for each of up to a
million in a Python call of its own, which is nearly all of its time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from dp_accounting.pld import pld_pmf
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution, identity
from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss
from numpy.typing import NDArray

_Floats = NDArray[np.float64]


def composed(steps: Iterable[tuple[float, float, int]], interval: float) -> Any:
    """The distribution of the losses of all ``steps``, each (rate, sigma, how often), in multiples of ``interval`` and
    rounded against us."""
    found = identity(value_discretization_interval=interval)
    for rate, sigma, count in steps:
        if rate == 1:  # so many releases are one of less noise
            one = PrivacyLossDistribution(_losses(AdjacencyType.REMOVE, rate, sigma / math.sqrt(count), interval))
        else:
            both = (_losses(side, rate, sigma, interval) for side in (AdjacencyType.REMOVE, AdjacencyType.ADD))
            one = PrivacyLossDistribution(*both).self_compose(count)
        found = found.compose(one)
    return found


def _losses(side: AdjacencyType, rate: float, sigma: float, interval: float) -> Any:
    """The losses of one release in one direction (Doroshenko et al. 2022, "Connect the Dots")."""
    loss = GaussianPrivacyLoss(
        sigma, pessimistic_estimate=True, log_mass_truncation_bound=-50, sampling_prob=rate, adjacency_type=side
    )
    ends = loss.connect_dots_bounds()
    low, high = math.floor(ends.epsilon_lower / interval), math.ceil(ends.epsilon_upper / interval)
    excess = deltas(loss, sigma, np.arange(low, high + 1) * interval)
    return pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(interval, low, high, excess)


def deltas(loss: Any, sigma: float, epsilons: _Floats) -> _Floats:
    """``loss.get_delta_for_epsilon(epsilons)`` of a GaussianPrivacyLoss of sensitivity 1 and noise ``sigma``."""
    rate, found = loss.sampling_prob, np.zeros_like(epsilons)
    if rate == 1:
        reached = np.full(epsilons.shape, True)
    elif loss.adjacency_type == AdjacencyType.ADD:
        reached = epsilons < -math.log1p(-rate)
    else:
        reached = epsilons > math.log1p(-rate)
        found[~reached] = -np.expm1(epsilons[~reached])
    some = epsilons[reached]
    cutoffs = _cutoffs(loss.adjacency_type, rate, sigma, some)
    found[reached] = loss.mu_upper_cdf(cutoffs) - np.exp(some + loss.mu_lower_log_cdf(cutoffs))
    return np.clip(found, 0, 1)


def _cutoffs(side: AdjacencyType, rate: float, sigma: float, losses: _Floats) -> _Floats:
    """The largest values at which the loss is at least each of ``losses``."""
    if side == AdjacencyType.ADD:
        return 1 + _unsampled(-_amplified(rate, -losses), sigma) if rate < 1 else 1 + _unsampled(losses, sigma)
    return _unsampled(_amplified(rate, losses) if rate < 1 else losses, sigma)


def _unsampled(losses: _Floats, sigma: float) -> _Floats:
    return -0.5 - losses * (sigma**2)


def _amplified(rate: float, losses: _Floats) -> _Floats:
    """log(1 + (exp(loss) - 1) / rate): what an unsampled release would have lost. Raises ValueError for losses that
    sampling at ``rate`` can't have."""
    least = math.log(1 - rate)
    gap = np.log(1 / rate - 1) - (moved := losses + np.log(1 / rate))
    at_least = np.abs(losses - least) <= 1e-9 * np.maximum(np.abs(losses), abs(least))
    if not np.all(at_least | (gap < 0)):
        raise ValueError(f"sampling at {rate} leaves no loss below {least}")
    with np.errstate(divide="ignore", invalid="ignore"):
        found = moved + np.log1p(-np.exp(gap))
    found[losses == 0] = np.log(1 / rate + (1 - 1 / rate))
    found[at_least] = -np.inf
    return np.asarray(found, dtype=np.float64)
