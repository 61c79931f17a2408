"""Samples of the Skellam distribution, by integers alone.

The usual samplers (a difference of two Poisson variables from a library) decide by floating-point comparisons, and
their distance from the true distribution is not known. Here the distribution function is a table of 128-bit integers,
made by exact integer arithmetic, and a sample is the place in it of a uniform 128-bit number. A sample's total
variation distance from the Skellam distribution is below 2**-100: thresholds are rounded down to multiples of
2**-128, and the tails beyond ``Table.limit``, below 2**-126, are cut off. N samples add at most N (1 + e^epsilon)
times that to delta, which is below 2**-50 for 2**34 samples and epsilon 10.

pmf(k) = exp(-mu) I_|k|(mu), mu the variance. The Bessel functions come from their backward recurrence
I_{k-1} = I_{k+1} + (2k/mu) I_k (Miller's algorithm; Olver 1964), in fixed point; the factor exp(-mu) is never needed,
since the probabilities are known to add up to 1.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import UsageError

#: variances are multiples of 1 / PARTS
PARTS = 1024
#: the largest standard deviation: tables have about 27 entries per unit of it
MAX_DEVIATION = 2**16
_WORD = 64
_LOW = 2**_WORD - 1
#: bits of the smallest weight: what integer division drops of any weight is below 2**-_SCALE of it
_SCALE = 192
_TAIL_BITS = 128


@dataclass(frozen=True)
class Table:
    """``high``, ``low``: words of the thresholds t_j = floor(2**128 P(X <= j - limit)), j = 0 .. 2 limit - 1.
    ``limit``: the largest magnitude of a sample."""

    high: NDArray[np.uint64]
    low: NDArray[np.uint64]
    limit: int

    @property
    def thresholds(self) -> list[int]:
        return [(int(high) << _WORD) | int(low) for high, low in zip(self.high, self.low, strict=True)]

    def draw(self, count: int, uniform: np.random.Generator) -> NDArray[np.int64]:
        """(count,) int64: independent samples."""
        top = np.iinfo(np.uint64).max
        words = uniform.integers(0, top, size=count, dtype=np.uint64, endpoint=True)
        places = np.searchsorted(self.high, words, side="right").astype(np.int64)
        # where a word equals a threshold's, the lower word decides
        for at in np.flatnonzero(self.high[np.maximum(places - 1, 0)] == words):
            lower = int(uniform.integers(0, top, dtype=np.uint64, endpoint=True))
            places[at] = bisect_right(self.thresholds, (int(words[at]) << _WORD) | lower)
        return places - self.limit


def multiple(variance: float) -> int:
    """The least number of 1 / PARTS that is at least ``variance``, and at least 1."""
    return max(1, math.ceil(variance * PARTS))


@lru_cache(maxsize=4)
def table(parts: int) -> Table:
    """For the variance ``parts / PARTS``. Raises UsageError where a table would be too long."""
    variance = parts / PARTS
    if variance > MAX_DEVIATION**2:
        raise UsageError(
            f"integer noise of standard deviation {math.sqrt(variance):.3g} is wider than {MAX_DEVIATION}: "
            "take a coarser grid (a smaller scale) or less noise."
        )
    limit = tail(variance)
    weights = _weights(parts, limit)
    cumulated = list(accumulate([*reversed(weights), *weights[1:]]))
    total = cumulated.pop()
    thresholds = [(value << 2 * _WORD) // total for value in cumulated]
    high = np.array([t >> _WORD for t in thresholds], dtype=np.uint64)
    return Table(high, np.array([t & _LOW for t in thresholds], dtype=np.uint64), limit)


def tail(variance: float) -> int:
    """A k with P(|X| > k) < 2**-126, by Chernoff's bound: E exp(tX) = exp(mu (cosh t - 1)), at t = asinh(k / mu)."""

    def exponent(k: int) -> float:
        return k * math.asinh(k / variance) - variance * (math.sqrt(1 + (k / variance) ** 2) - 1)

    return bisect_left(range(2**40), _TAIL_BITS * math.log(2), key=exponent)


def _weights(parts: int, limit: int) -> list[int]:
    """Proportional to I_k(parts / PARTS) for k = 0 .. limit."""
    # started further out, where the recurrence has forgotten how it started by the time it reaches ``limit``
    start = limit + max(16, limit // 16)
    after, here = 0, 1 << _SCALE
    found = [here]
    for k in range(start, 0, -1):
        after, here = here, after + (2 * k * PARTS * here) // parts
        found.append(here)
    return found[::-1][: limit + 1]
