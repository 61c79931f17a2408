"""Arithmetic modulo a prime of up to 61 bits on numpy words, and the negacyclic number-theoretic transform.

Products of two words have up to 122 bits; they are reduced after Montgomery (1985), with the high half of a product put
together from 32-bit halves. The transform evaluates a polynomial of Z_q[X]/(X^N + 1) at the N primitive 2N-th roots of
unity, in SEAL's bit-reversed order (Longa and Naehrig 2016): position i holds the value at psi^(2 rev(i) + 1), psi the
least primitive 2N-th root. Its mirror position N-1-i holds the value at the inverse of that root, so reversing the
array turns the transform of M(X) into that of M(1/X).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import CannotOpen

Words = NDArray[np.uint64]
_HALF = np.uint64(32)
_LOW = np.uint64(2**32 - 1)


class Field:
    """Z_q for a prime q = 1 mod 2 ``degree``, below 2**61. Arrays are uint64, reduced. Raises CannotOpen where q can't
    be such a prime."""

    def __init__(self, q: int, degree: int) -> None:
        if not 2 < q < 2**61 or (q - 1) % (2 * degree):
            raise CannotOpen(f"{q} is no prime with roots of unity of order {2 * degree}")
        self.q, self.degree = q, degree
        self._q = np.uint64(q)
        self._inverse = np.uint64(-pow(q, -1, 2**64) % 2**64)
        self._square = np.uint64(2**128 % q)
        psi = _least_root(q, 2 * degree)
        self._forward = self._powers(psi)
        self._backward = self._powers(pow(psi, -1, q))
        self._count = self.scaled(np.array([pow(degree, -1, q)], dtype=np.uint64))

    def _powers(self, root: int) -> Words:
        """root**rev(i), scaled by 2**64."""
        powers, at = np.empty(self.degree, dtype=np.uint64), 1
        for place in _reversed_bits(self.degree):
            powers[place] = at
            at = at * root % self.q
        return self.scaled(powers)

    def scaled(self, a: Words) -> Words:
        """a 2**64: what ``times`` takes as its second factor."""
        return self.times(a, self._square)

    def times(self, a: Words, scaled: Words | np.uint64) -> Words:
        """a b, for b given as ``scaled(b)``."""
        with np.errstate(over="ignore"):
            low = a * scaled
            high = _high(a, scaled)
            carry = high + _high(low * self._inverse, self._q) + (low != 0)
        return np.asarray(np.minimum(carry, carry - self._q))

    def product(self, a: Words, b: Words) -> Words:
        return self.times(a, self.scaled(b))

    def plus(self, a: Words, b: Words) -> Words:
        total = a + b
        return np.asarray(np.minimum(total, total - self._q))

    def minus(self, a: Words, b: Words) -> Words:
        total = a - b
        return np.asarray(np.minimum(total, total + self._q))

    def inverse(self, a: Words) -> Words:
        """1/a by Fermat; 0 for 0."""
        result, base = np.ones_like(a), a
        for bit in bin(self.q - 2)[:1:-1]:
            if bit == "1":
                result = self.product(result, base)
            base = self.product(base, base)
        return result

    def from_integers(self, values: NDArray[np.int64]) -> Words:
        """Residues of integers of magnitude below q."""
        words = values.astype(np.int64).view(np.uint64)
        with np.errstate(over="ignore"):
            return np.where(values < 0, words + self._q, words)

    def centred(self, a: Words) -> NDArray[np.int64]:
        """Representatives of least magnitude."""
        with np.errstate(over="ignore"):
            return np.where(a > self._q >> np.uint64(1), a - self._q, a).view(np.int64)

    def transform(self, coefficients: Words) -> Words:
        """(N,) coefficients to values."""
        a = coefficients.copy()
        groups = 1
        while groups < self.degree:
            pairs = a.reshape(groups, 2, -1)
            first = pairs[:, 0]
            second = self.times(pairs[:, 1], self._forward[groups : 2 * groups, None])
            a = np.stack([self.plus(first, second), self.minus(first, second)], axis=1).reshape(-1)
            groups *= 2
        return a

    def back(self, values: Words) -> Words:
        """The inverse of ``transform``."""
        a = values
        groups = self.degree // 2
        while groups >= 1:
            pairs = a.reshape(groups, 2, -1)
            difference = self.minus(pairs[:, 0], pairs[:, 1])
            turned = self.times(difference, self._backward[groups : 2 * groups, None])
            a = np.stack([self.plus(pairs[:, 0], pairs[:, 1]), turned], axis=1).reshape(-1)
            groups //= 2
        return self.times(a, self._count)


def _high(a: Words, b: Words | np.uint64) -> Words:
    """The high words of products of words."""
    a0, a1, b0, b1 = a & _LOW, a >> _HALF, b & _LOW, b >> _HALF
    cross, other = a0 * b1, a1 * b0
    middle = (a0 * b0 >> _HALF) + (cross & _LOW) + (other & _LOW)
    found: Words = a1 * b1 + (cross >> _HALF) + (other >> _HALF) + (middle >> _HALF)
    return found


def _reversed_bits(count: int) -> list[int]:
    bits = count.bit_length() - 1
    return [int(format(i, f"0{bits}b")[::-1], 2) for i in range(count)]


def _least_root(q: int, order: int) -> int:
    """The least primitive ``order``-th root of unity modulo q, ``order`` a power of two."""
    for base in range(2, 200):
        root = pow(base, (q - 1) // order, q)
        if pow(root, order // 2, q) == q - 1:
            break
    else:
        raise CannotOpen(f"{q} is no prime")
    least = at = root
    square = root * root % q
    for _ in range(order // 2 - 1):
        at = at * square % q
        least = min(least, at)
    return least
