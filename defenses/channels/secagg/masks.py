"""Masks: the key stream of AES-256 in counter mode, read as unsigned words, from any value on.

A mask of ``bits`` bits per value is the lowest bits of words of 8, 16, 32 or 64 (``packing.dtype_of``): words are added
modulo a power of two that ``2**bits`` divides, and cut to ``bits`` at the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from defenses.channels.secagg.packing import Words, dtype_of

_BLOCK = 16


@dataclass(frozen=True)
class Mask:
    """A key stream, and whether it is added or subtracted. A key belongs to one round and one use."""

    key: bytes
    minus: bool = False

    @property
    def opposite(self) -> Mask:
        return Mask(self.key, not self.minus)


def stream(key: bytes, start: int, count: int, bits: int) -> Words:
    """Words ``start`` to ``start + count`` of the key stream; ``start`` a multiple of 16."""
    dtype = dtype_of(bits)
    first, rest = divmod(start * dtype.itemsize, _BLOCK)
    if rest:
        raise ValueError(f"word {start} does not begin a block of the cipher")
    counter = modes.CTR(first.to_bytes(_BLOCK, "big"))
    size = count * dtype.itemsize
    return np.frombuffer(Cipher(algorithms.AES(key), counter).encryptor().update(bytes(size)), dtype=dtype)


def apply(words: Words, masks: Iterable[Mask], start: int, bits: int) -> None:
    """Add (or subtract) ``masks`` to ``words`` in place; ``words`` are those from ``start`` on, of ``dtype_of(bits)``.
    One mask is held at a time."""
    for mask in masks:
        pad = stream(mask.key, start, len(words), bits)
        (np.subtract if mask.minus else np.add)(words, pad, out=words)
