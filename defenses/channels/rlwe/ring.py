"""Arithmetic in Z_q[X] / (X^N + 1) with q a power of two of at most 2**54: public elements, and exact products.

Arrays of coefficients are ``uint64``, to be read modulo q; additions may wrap around at 2**64, which q divides.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from defenses.channels import negacyclic
from defenses.channels.rlwe.parameters import DEGREE
from defenses.channels.secagg.masks import stream

_HALF = 27
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


#: an upper bound on the error of a computed coefficient of a product with a polynomial of that L2 norm
error_bound = partial(negacyclic.error_bound, DEGREE, _HALF)
twist = partial(negacyclic.twist, DEGREE)


class Multiplier:
    """Exact products of public elements with one small polynomial, a key or a sum of keys.

    One complex transform carries both halves of an element. Where the polynomial is so large that ``error_bound``
    does not stay below 1/2, it is cut into digits of 6 bits, whose products are exact.
    """

    def __init__(self, small: NDArray[np.int64]) -> None:
        """``small``: (N,) integers, of absolute value below 2**53."""
        self._parts = [(shift, negacyclic.transform(digits)) for shift, digits in _exact_parts(small)]

    def times(self, elements: NDArray[np.complex128]) -> NDArray[np.uint64]:
        """(count, N) coefficients of each element times the polynomial, modulo 2**64 (so right modulo 2**54)."""
        spectrum = negacyclic.transform(elements)
        total = np.zeros(elements.shape, dtype=np.uint64)
        for shift, part in self._parts:
            total += coefficients(negacyclic.inverse(spectrum * part)) << np.uint64(shift)
        return total


def _exact_parts(small: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """(shift, digits) with small = sum of 2**shift digits, each of a norm for which products are exact."""
    if error_bound(float(np.linalg.norm(small.astype(np.float64)))) < 0.5:
        return [(0, small)]
    half = 1 << (_DIGIT_BITS - 1)
    digits = ((small + half) & (2 * half - 1)) - half
    rest = _exact_parts((small - digits) >> _DIGIT_BITS)
    return [(0, digits), *((shift + _DIGIT_BITS, part) for shift, part in rest)]
