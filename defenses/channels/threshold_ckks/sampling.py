"""Secrets, errors and flooding from a party's secret randomness. Generators must be cryptographic."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from defenses.channels.threshold_ckks.parameters import ETA, Parameters


def ternary(generator: np.random.Generator, *shape: int) -> NDArray[np.int8]:
    """Independent uniform values of {-1, 0, 1}."""
    return generator.integers(-1, 2, shape, dtype=np.int8)


def centred_binomial(generator: np.random.Generator, *shape: int) -> NDArray[np.int64]:
    """Integers in [-ETA, ETA]: the ones among 2 ETA = 42 fair bits, less ETA."""
    bits = generator.integers(0, 2 ** (2 * ETA), shape, dtype=np.uint64)
    return np.bitwise_count(bits).astype(np.int64) - ETA


def flooding(generator: np.random.Generator, parameters: Parameters, count: int) -> NDArray[np.int64]:
    """(count, limbs, N) the limbs of integers that are uniform in [0, 2**flood)."""
    p = parameters
    limbs = np.zeros((count, p.limbs, p.degree), dtype=np.int64)
    for k in range(p.limbs):
        bits = min(p.width, p.flood - k * p.width)
        if bits > 0:
            limbs[:, k] = generator.integers(0, 2**bits, (count, p.degree), dtype=np.uint32)
    return limbs
