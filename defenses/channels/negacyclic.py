"""Products modulo X^N + 1 of polynomials with complex coefficients, by transforms, and a bound on their errors."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Spectrum = NDArray[np.complex128]

#: relative error of a double's rounding
_EPSILON = 2.0**-53
#: absolute error of a root of unity, NumPy's and ours: at most 4 roundings
_ROOT = 4 * _EPSILON


def error_bound(degree: int, width: int, norm: float) -> float:
    """An upper bound on the error of a computed coefficient of the product of a polynomial of L2 norm ``norm`` with one
    whose real and imaginary parts are balanced numbers of ``width`` bits: of L2 norm sqrt(2 N) 2**(width - 1) at most.

    Percival 2003 (Theorem 5.1; proof corrected by Brent, Percival and Zimmermann 2007) bounds a convolution of 2**k
    complex numbers through three transforms by |x| |y| ((1+u)**3k (1+u sqrt 5)**(3k+1) (1+r)**3k - 1), u the rounding
    and r the error of the roots of unity. The three multiplications by powers of exp(i pi / N), which make the
    convolution negacyclic, each add a factor (1 + u sqrt 5)(1 + r).
    """
    layers = 3 * int(math.log2(degree))
    exponent = layers * math.log1p(_EPSILON) + (layers + 4) * math.log1p(_EPSILON * math.sqrt(5))
    exponent += (layers + 3) * math.log1p(_ROOT)
    halves = math.sqrt(degree) * math.sqrt(2) * 2 ** (width - 1)
    return float(halves * norm * math.expm1(exponent))


@cache
def twist(degree: int) -> Spectrum:
    """exp(i pi k / N) for k = 0..N-1. The second half is i times the first, exactly: smaller angles err less."""
    angle = np.arange(degree // 2) * (math.pi / degree)
    quarter = np.cos(angle) + 1j * np.sin(angle)
    return np.concatenate([quarter, -quarter.imag + 1j * quarter.real])


def transform(polynomials: NDArray[Any]) -> Spectrum:
    """(..., N) of the same shape: products of these are ``inverse``'s argument."""
    return np.fft.fft(polynomials * twist(polynomials.shape[-1]))


def inverse(spectrum: Spectrum) -> Spectrum:
    """(..., N) coefficients."""
    found = np.fft.ifft(spectrum)
    found *= twist(spectrum.shape[-1]).conj()
    return found
