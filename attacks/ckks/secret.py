"""The secret key from two ciphertexts whose plaintexts' real parts are known exactly (Li and Micciancio 2021).

A ciphertext (c0, c1) of plaintext M under key s has c0 + c1 s = M. Adding the equation of the mirrored polynomials,
where f'(X) = f(1/X),

    c1 s + c1' s' = W - c0 - c0',      W = M + M',

which is linear in s and s'. Two ciphertexts give a 2 x 2 system at each root of unity. A right W gives s with
coefficients -1, 0 and 1; a wrong one gives uniform residues, of which none of N would be so small but by chance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attacks.ckks.blobs import Ciphertext, Words
from attacks.ckks.field import Field
from attacks.ckks.slots import Float, Integers, Slots
from bench.core.errors import CannotOpen


def solve(field: Field, slots: Slots, known: tuple[tuple[Ciphertext, Integers], tuple[Ciphertext, Integers]]) -> Words:
    """The key, transformed, from two ciphertexts and the integers behind them (``slots``). Raises CannotOpen where they
    give no ternary key."""
    right_a, right_b = (_right(field, slots, ciphertext, x) for ciphertext, x in known)
    a1, b1 = (ciphertext.words[1] for ciphertext, _ in known)
    determinant = field.minus(field.product(a1, b1[::-1]), field.product(a1[::-1], b1))
    if not determinant.all():
        raise CannotOpen("two sums give dependent equations")
    top = field.minus(field.product(right_a, b1[::-1]), field.product(right_b, a1[::-1]))
    key = field.product(top, field.inverse(determinant))
    if np.abs(field.centred(field.back(key))).max() > 1:
        raise CannotOpen("two sums give no ternary key")
    return key


def _right(field: Field, slots: Slots, ciphertext: Ciphertext, x: Integers) -> Words:
    """W - c0 - c0', transformed."""
    c0 = ciphertext.words[0]
    w = field.transform(field.from_integers(slots.unfolded(x)))
    return field.minus(w, field.plus(c0, c0[::-1]))


def opened(field: Field, ciphertext: Ciphertext, key: Words) -> NDArray[np.int64]:
    """(N,) the coefficients of a plaintext, of magnitude below q / 2."""
    c0, c1 = ciphertext.words
    return field.centred(field.back(field.plus(c0, field.product(c1, key))))


def read(field: Field, slots: Slots, ciphertext: Ciphertext, key: Words) -> Float:
    """The real parts of a ciphertext's slots, times its scale."""
    return slots.read(opened(field, ciphertext, key))
