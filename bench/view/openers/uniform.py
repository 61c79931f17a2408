"""Whether bytes look like a stream cipher's output: an exact bound on the most frequent byte value."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bench.view.openers.layouts import Stream

Bytes = NDArray[np.uint8]

#: log10 below which bytes are called uneven; a view makes at most some 10^6 such tests
UNEVEN = -15.0
#: log10 above which bytes are called even, so that a stream cipher may have made them
EVEN = -4.0
SAMPLE = 4096


def surprises(samples: Bytes) -> NDArray[np.float64]:
    """log10 of a bound on the probability that independent uniform bytes are as uneven as each row of ``samples``.

    ``samples``: (rows, n). In each lane (positions of equal remainder modulo 4, 2 and 1; wider numbers show in the
    first) with m bytes, some value occurs k times or more with probability at most 256 C(m, k) 256^-k (union bound over
    values and positions); the smallest of these, times the number of lanes (Bonferroni). 0: nothing is surprising.
    """
    rows, n = samples.shape
    cells = _cells(rows, n) + samples
    counts = np.bincount(cells.ravel(), minlength=rows * 1024).reshape(rows, 4, 256)
    least = np.zeros(rows)
    for modulus in (4, 2, 1):
        counts = counts.reshape(rows, -1, modulus, 256).sum(1)
        longest = -(-n // modulus)
        least = np.minimum(least, [_log_tail(longest, int(most)) for most in counts.max((1, 2))])
    return np.minimum(0.0, least + math.log10(4 + 2 + 1))


@lru_cache(maxsize=8)
def _cells(rows: int, n: int) -> NDArray[np.int64]:
    """256 times the number of each byte's row and lane."""
    return (np.arange(rows, dtype=np.int64)[:, None] * 4 + np.arange(n, dtype=np.int64)[None, :] % 4) * 256


def surprise(sample: Bytes) -> float:
    """``surprises`` of one row."""
    return float(surprises(sample[None, :])[0]) if len(sample) else 0.0


@lru_cache(maxsize=4096)
def _log_tail(m: int, k: int) -> float:
    choose = math.lgamma(m + 1) - math.lgamma(k + 1) - math.lgamma(m - k + 1)
    return (choose + (1 - k) * math.log(256)) / math.log(10)


def middle(stream: Stream) -> Bytes:
    """Up to ``SAMPLE`` bytes from the middle, from an offset that is a multiple of 8: no header, any width aligned."""
    start = max(0, (stream.size - SAMPLE) // 2) // 8 * 8
    return np.frombuffer(stream.read(start, start + SAMPLE), dtype=np.uint8)
