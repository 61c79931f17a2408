"""Between the numbers in a ciphertext's slots and the coefficients of its plaintext (Cheon et al. 2017, section 3.2).

A plaintext M of Z[X]/(X^N + 1) holds in slot j the value M(zeta^(3^j)), zeta = exp(i pi / N), times 1/scale. TenSEAL
decodes to the real parts. These depend on M(X) + M(1/X) alone, that is on the n = N/2 integers

    x_0 = M_0,    x_i = M_i - M_(N-i)  for 0 < i < n,

and with theta_k = pi (2k + 1) / N they are sum_i x_i cos(i theta_k): a cosine transform (DCT-III) of the x, invertible.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Integers = NDArray[np.int64]


class Slots:
    """The embedding at degree N."""

    def __init__(self, degree: int) -> None:
        self.degree, self.count = degree, degree // 2

    @cached_property
    def _angles(self) -> NDArray[np.int64]:
        """k of each slot."""
        powers, at = np.empty(self.count, dtype=np.int64), 1
        for j in range(self.count):
            powers[j] = min(at, 2 * self.degree - at)
            at = at * 3 % (2 * self.degree)
        return (powers - 1) // 2

    def by_angle(self, slots: Float) -> Float:
        """Numbers in the order of slots, in that of angles."""
        ordered = np.empty_like(slots)
        ordered[self._angles] = slots
        return ordered

    def values(self, x: NDArray[np.generic]) -> Float:
        """Real parts in the order of angles, from x."""
        from scipy.fft import dct

        half = x.astype(np.float64) / 2
        half[0] *= 2
        return np.asarray(dct(half, type=3))

    def solve(self, values: Float) -> Float:
        """The inverse of ``values``, not rounded."""
        found = self.projected(values) * (2 / self.count)
        found[0] /= 2
        return found

    def projected(self, values: Float) -> Float:
        """(n,) sum_k values_k cos(i theta_k)."""
        from scipy.fft import dct

        return np.asarray(dct(values, type=2)) / 2

    def folded(self, coefficients: Integers) -> Integers:
        """x from all N coefficients."""
        x = coefficients[: self.count].copy()
        x[1:] -= coefficients[: self.count : -1]
        return x

    def unfolded(self, x: Integers) -> Integers:
        """The coefficients of M(X) + M(1/X)."""
        whole = np.zeros(self.degree, dtype=np.int64)
        whole[0] = 2 * x[0]
        whole[1 : self.count] = x[1:]
        whole[: self.count : -1] = -x[1:]
        return whole

    def read(self, coefficients: Integers) -> Float:
        """The real parts in the order of slots, times the scale."""
        return np.asarray(self.values(self.folded(coefficients))[self._angles])
