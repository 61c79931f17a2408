"""Arithmetic in Z_Q[X] / (X^N + 1), Q a power of two: elements in limbs, exact products with small polynomials.

An element is an array of shape (..., limbs, N) of integers d, which stands for the coefficients
sum_k 2**(width k) d_k modulo 2**(limbs width). It is *reduced* where every limb lies in [0, 2**width).
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from defenses.channels.negacyclic import Spectrum, error_bound, inverse, twist
from defenses.channels.negacyclic import transform as small_spectrum
from defenses.channels.secagg.masks import stream
from defenses.channels.secagg.packing import pack, unpack
from defenses.channels.threshold_ckks.parameters import Parameters

__all__ = ["error_bound", "small_spectrum", "twist"]

Limbs = NDArray[np.int64]

_DOMAIN = b"silobench threshold-ckks public element 1"


def public_element(seed: bytes, parameters: Parameters) -> Limbs:
    """The uniform element a that ``seed`` (public bytes) names: (limbs, N), reduced. AES-256 in counter mode."""
    p = parameters
    words = stream(hashlib.sha256(_DOMAIN + seed).digest(), 0, p.limbs * p.degree, 32)
    mask = np.uint32(2**p.width - 1)
    return (words & mask).astype(np.int64).reshape(p.limbs, p.degree)


def reduce(limbs: Limbs, width: int) -> Limbs:
    """Carries in place, so that every limb is in [0, 2**width); returns the same array."""
    mask = (1 << width) - 1
    count = limbs.shape[-2]
    for k in range(count):
        if k + 1 < count:
            limbs[..., k + 1, :] += limbs[..., k, :] >> width
        limbs[..., k, :] &= mask
    return limbs


def spectrum(limbs: NDArray[Any], width: int) -> Spectrum:
    """(..., limbs / 2, N): the transform of a reduced element, two neighbouring limbs as one complex number."""
    half = 1 << (width - 1)
    balanced = reduce(limbs.astype(np.int64) + half, width) - half
    paired = balanced[..., 0::2, :] + 1j * balanced[..., 1::2, :]
    return small_spectrum(paired)


def product(element: Spectrum, small: Spectrum) -> Limbs:
    """(..., limbs, N) the exact product, not reduced, of ``spectrum`` (..., limbs / 2, N) and the ``small_spectrum``
    of small polynomials (..., N): limbs of at most N 2**(width-1) times the largest of their coefficients."""
    found = inverse(element * small[..., None, :])
    limbs = np.empty((*found.shape[:-2], 2 * found.shape[-2], found.shape[-1]), dtype=np.int64)
    limbs[..., 0::2, :] = np.rint(found.real)
    limbs[..., 1::2, :] = np.rint(found.imag)
    return limbs


def rescaled(limbs: Limbs, parameters: Parameters, dither: Limbs | None = None) -> NDArray[np.uint64]:
    """(..., N) floor((coefficient + r) / P) modulo 2**sent; changes ``limbs``.

    ``dither``: (..., limbs, N) the limbs of r, in [0, P). None: r = P / 2, which rounds to the nearest.
    """
    p = parameters
    if dither is None:
        limb, bit = divmod(p.flood - 1, p.width)
        limbs[..., limb, :] += 1 << bit
    else:
        limbs += dither
    reduce(limbs, p.width)
    upper = limbs[..., -1, :].astype(np.uint64) << np.uint64(p.width)
    upper |= limbs[..., -2, :].astype(np.uint64)
    return np.asarray(upper >> np.uint64(2 * p.width - p.sent), dtype=np.uint64)


def to_bytes(limbs: NDArray[Any], parameters: Parameters) -> bytes:
    """One reduced element (limbs, N), ``parameters.element`` bytes."""
    return pack(limbs.reshape(-1).astype(np.uint32), parameters.width)


def from_bytes(frame: bytes, parameters: Parameters) -> Limbs:
    """The inverse of ``to_bytes``: every such string is a reduced element. Raises SiloBenchError for another length."""
    p = parameters
    if len(frame) != p.element:
        raise SiloBenchError(f"a frame of {len(frame)} bytes is no ring element of {p.element}")
    return unpack(frame, p.limbs * p.degree, p.width).astype(np.int64).reshape(p.limbs, p.degree)
