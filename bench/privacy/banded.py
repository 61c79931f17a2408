"""Banded Toeplitz matrices for noise that is correlated over steps, and their sensitivity.

A matrix mechanism releases C G + Z, where row t of G is the clipped sum of step t and Z has independent Gaussian
values; all that training shows is computed from it (``C^-1 (C G + Z) = G + C^-1 Z``). It is one Gaussian release, also
where the batches' gradients depend on what was released before (Denisov et al. 2022, on adaptive streams). C here is
lower triangular, Toeplitz and of ``bands`` bands; its first column is a prefix of that of the square root of the matrix
of prefix sums (Kalinin and Lampert 2024, "Banded Square Root Matrix Factorization"; without the cut it is the
factorisation of Fichtenberger et al. 2023).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def coefficients(bands: int) -> NDArray[np.float64]:
    """(bands,) the first column of C: binom(2j, j) / 4^j, from 1 downwards. ``bands`` is a positive count."""
    if bands < 1:
        raise ValueError(f"a matrix has at least one band, not {bands}")
    factors = [(2 * j - 1) / (2 * j) for j in range(1, bands)]
    return np.asarray(np.cumprod([1.0, *factors]), dtype=np.float64)


def sensitivity(bands: int, separation: int, steps: int) -> float:
    """The L2 norm by which one record can change C G, in units of the clip.

    steps: rows of C. separation: two participations of a record are at least so many steps apart. What a record gives
    in a step that it takes part in is any vector of norm 1 at most. With ``bands <= separation`` two columns that one
    record can reach have no row in common, so the square of the sensitivity is the largest sum of squared column norms
    over the allowed sets of steps (Choquette-Choo et al. 2023, "(Amplified) Banded Matrix Factorization", on b-min-sep
    participation). Columns only get shorter towards the end, where rows run out, so that set is steps 0, b, 2b, ...:
    the same that a fixed order with a period of ``separation`` has. Raises ValueError for more bands than that.
    """
    if not 1 <= bands <= separation:
        raise ValueError(f"{bands} bands need a separation of as many steps at least, not {separation}")
    if steps < 1:
        return 0.0
    reached = np.cumsum(coefficients(bands) ** 2)  # the squared norm of a column that has so many rows left
    participations = -(-steps // separation)
    last = steps - (participations - 1) * separation
    return math.sqrt((participations - 1) * float(reached[-1]) + float(reached[min(bands, last) - 1]))
