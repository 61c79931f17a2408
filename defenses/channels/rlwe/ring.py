"""Arithmetic in Z_q[X] / (X^N + 1) with q a power of two of at most 2**54: public elements, and exact products.

Arrays of coefficients are ``uint64``, to be read modulo q; additions may wrap around at 2**64, which q divides.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from defenses.channels.rlwe.parameters import DEGREE
from defenses.channels.secagg.masks import stream

_HALF = 27
#: relative error of a double's rounding
_EPSILON = 2.0**-53
#: absolute error of a root of unity, NumPy's and ours: at most 4 roundings
_ROOT = 4 * _EPSILON
#: L2 norm of an element's halves as complex numbers: N coefficients of at most sqrt(2) * 2**26
_HALVES_NORM = math.sqrt(DEGREE) * math.sqrt(2) * 2 ** (_HALF - 1)
_DIGIT_BITS = 6


def expand(seed: bytes, first: int, count: int) -> NDArray[np.complex128]:
    """Public uniform ring elements ``first`` to ``first + count - 1`` of ``seed`` (32 bytes): (count, N).

    The key stream of AES-256 in counter mode, as FrodoKEM makes its matrix from AES (Alkim et al. 2020).
    A coefficient low + 2**27 high is held as the complex number low + i high with both in [-2**26, 2**26): balanced
    digits, which name every residue modulo 2**54 exactly once, so uniform digits are a uniform residue.
    """
    words = stream(seed, first * DEGREE, count * DEGREE, 2 * _HALF).view("<i4")
    halves = np.right_shift(words, 32 - _HALF).astype(np.float64)
    return np.asarray(halves.view(np.complex128).reshape(count, DEGREE))


def coefficients(element: NDArray[np.complex128]) -> NDArray[np.uint64]:
    """low + 2**27 high, modulo 2**64, of elements in ``expand``'s form (or of such products, rounded to integers)."""
    halves = np.rint(element.view(np.float64)).astype(np.int64).view(np.uint64)
    low, high = halves[..., 0::2], halves[..., 1::2]
    return low + (high << np.uint64(_HALF))


def error_bound(norm: float) -> float:
    """An upper bound on the error of a computed coefficient of a product with a polynomial of L2 norm ``norm``.

    Percival 2003 (Theorem 5.1; proof corrected by Brent, Percival and Zimmermann 2007) bounds a convolution of 2**k
    complex numbers through three transforms by |x| |y| ((1+u)**3k (1+u sqrt 5)**(3k+1) (1+r)**3k - 1), u the rounding
    and r the error of the roots of unity. The three multiplications by powers of exp(i pi / N), which make the
    convolution negacyclic, each add a factor (1 + u sqrt 5)(1 + r).
    """
    layers = 3 * int(math.log2(DEGREE))
    exponent = layers * math.log1p(_EPSILON) + (layers + 4) * math.log1p(_EPSILON * math.sqrt(5))
    exponent += (layers + 3) * math.log1p(_ROOT)
    return float(_HALVES_NORM * norm * math.expm1(exponent))


@cache
def twist() -> NDArray[np.complex128]:
    """exp(i pi k / N) for k = 0..N-1. The second half is i times the first, exactly: smaller angles err less."""
    angle = np.arange(DEGREE // 2) * (math.pi / DEGREE)
    quarter = np.cos(angle) + 1j * np.sin(angle)
    return np.concatenate([quarter, -quarter.imag + 1j * quarter.real])


class Multiplier:
    """Exact products of public elements with one small polynomial, a key or a sum of keys.

    One complex transform carries both halves of an element. Where the polynomial is so large that ``error_bound``
    does not stay below 1/2, it is cut into digits of 6 bits, whose products are exact.
    """

    def __init__(self, small: NDArray[np.int64]) -> None:
        """``small``: (N,) integers, of absolute value below 2**53."""
        self._parts = [(shift, np.fft.fft(digits * twist())) for shift, digits in _exact_parts(small)]

    def times(self, elements: NDArray[np.complex128]) -> NDArray[np.uint64]:
        """(count, N) coefficients of each element times the polynomial, modulo 2**64 (so right modulo 2**54)."""
        spectrum = np.fft.fft(elements * twist())
        total = np.zeros(elements.shape, dtype=np.uint64)
        for shift, part in self._parts:
            product = np.fft.ifft(spectrum * part)
            product *= twist().conj()
            total += coefficients(product) << np.uint64(shift)
        return total


def _exact_parts(small: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """(shift, digits) with small = sum of 2**shift digits, each of a norm for which products are exact."""
    if error_bound(float(np.linalg.norm(small.astype(np.float64)))) < 0.5:
        return [(0, small)]
    half = 1 << (_DIGIT_BITS - 1)
    digits = ((small + half) & (2 * half - 1)) - half
    rest = _exact_parts((small - digits) >> _DIGIT_BITS)
    return [(0, digits), *((shift + _DIGIT_BITS, part) for shift, part in rest)]
