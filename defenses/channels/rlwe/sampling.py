"""Keys and errors: centred binomial integers from a party's secret randomness."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from defenses.channels.rlwe.parameters import DEGREE, ETA


def centred_binomial(generator: np.random.Generator, count: int) -> NDArray[np.int64]:
    """(count,) integers in [-ETA, ETA]: a Binomial(2 ETA, 1/2) minus ETA, of variance ETA / 2.

    The number of ones among 2 ETA = 96 bits, a word of 64 and one of 32, minus 48 has the law of the difference of two
    sums of 48 bits.
    ``generator`` must be cryptographic (``SecretStreams.generator``).
    """
    wide = generator.integers(0, 2**64, count, dtype=np.uint64)
    narrow = generator.integers(0, 2**32, count, dtype=np.uint32)
    return np.bitwise_count(wide).astype(np.int64) + np.bitwise_count(narrow) - ETA


def fresh_key(generator: np.random.Generator) -> NDArray[np.int64]:
    """(N,) a key: as wide as the errors, because the sum of all keys becomes known (``docs/crypto.md``)."""
    return centred_binomial(generator, DEGREE)
