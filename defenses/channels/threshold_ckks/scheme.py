"""The scheme on arrays: key shares, public-key encryption under the sum of all silos' keys, decryption shares.

After Mouchet, Troncoso-Pastoriza, Bossuat and Hubaux 2021 ("Multiparty homomorphic encryption from
ring-learning-with-errors", PETS), for CKKS with values as coefficients. ``K`` secret polynomials per silo share one
random half c1 (Peikert, Vaikuntanathan and Waters 2008): polynomial k of a group of values is sealed under key k.

    key        b_i[k] = -(a s_i[k]) + e_i[k]                  b[k] = sum of all silos' b_i[k]
    upload     c1 = a u + e1,  c0[k] = round((b[k] u + e0[k]) / P) + m[k]
    share      d_i[k] = floor(((sum of c1) s_i[k] + f) / P),  f uniform in [0, P): the flooding
    sum        (sum of c0[k]) + (sum of d_i[k]) = (sum of m[k]) + at most 2 units a silo
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from defenses.channels.negacyclic import Spectrum
from defenses.channels.secagg import packing
from defenses.channels.threshold_ckks import ring
from defenses.channels.threshold_ckks.parameters import Parameters
from defenses.channels.threshold_ckks.ring import Limbs
from defenses.channels.threshold_ckks.sampling import centred_binomial, flooding, ternary

#: polynomials that are transformed at a time, so that they stay in a processor's cache
_BATCH = 8

Tops = NDArray[np.uint64]


def key_share(
    parameters: Parameters, element: Limbs, secrets: NDArray[np.int8], generator: np.random.Generator
) -> Iterator[Limbs]:
    """The public keys b_i[k] of secrets (K, N), one after the other: (limbs, N), reduced."""
    p = parameters
    spectrum = ring.spectrum(element, p.width)
    for secret in secrets:
        limbs = -ring.product(spectrum, ring.small_spectrum(secret))
        limbs[0] += centred_binomial(generator, p.degree)
        yield ring.reduce(limbs, p.width)


class Sealer:
    """Seals groups of values under the collective key. ``collective``: (K, limbs, N), reduced; ``generator``: secret
    and fresh for each upload."""

    def __init__(
        self, parameters: Parameters, element: Limbs, collective: NDArray[np.uint32], generator: np.random.Generator
    ) -> None:
        self._parameters, self._generator = parameters, generator
        self._element = ring.spectrum(element, parameters.width)
        batches = (collective[start : start + _BATCH] for start in range(0, len(collective), _BATCH))
        self._keys: list[Spectrum] = [ring.spectrum(batch, parameters.width) for batch in batches]

    def group(self, units: NDArray[np.int64]) -> tuple[Limbs, Tops]:
        """c1 (limbs, N), reduced, and c0 (count,) modulo 2**sent, of ``units`` (count,), at most K N of them."""
        p, generator = self._parameters, self._generator
        randomness = ring.small_spectrum(ternary(generator, p.degree))
        first = ring.product(self._element, randomness)
        first[0] += centred_binomial(generator, p.degree)
        tops = np.empty(len(units), dtype=np.uint64)
        for batch, start in enumerate(range(0, len(units), _BATCH * p.degree)):
            part = units[start : start + _BATCH * p.degree]
            limbs = ring.product(self._keys[batch][: -(-len(part) // p.degree)], randomness)
            limbs[:, 0] += centred_binomial(generator, len(limbs), p.degree)
            tops[start : start + len(part)] = ring.rescaled(limbs, p).reshape(-1)[: len(part)]
        tops += units.view(np.uint64)
        tops &= np.uint64(2**p.sent - 1)
        return ring.reduce(first, p.width), tops


def decryption_share(
    parameters: Parameters,
    first: Limbs,
    secrets: NDArray[np.int8],
    count: int,
    generator: np.random.Generator | None,
) -> Tops:
    """(count,) a silo's share for c1 ``first`` (limbs, N), reduced. ``secrets``: (K, N). ``generator``: secret and
    fresh; None leaves the flooding out and rounds instead, for a coalition that opens with keys that it holds."""
    p = parameters
    spectrum = ring.spectrum(first, p.width)
    tops = np.empty(count, dtype=np.uint64)
    for start in range(0, count, _BATCH * p.degree):
        stop = min(count, start + _BATCH * p.degree)
        chosen = secrets[start // p.degree : -(-stop // p.degree)]
        limbs = ring.product(spectrum, ring.small_spectrum(chosen))
        dither = None if generator is None else flooding(generator, p, len(chosen))
        tops[start:stop] = ring.rescaled(limbs, p, dither).reshape(-1)[: stop - start]
    return tops


def centred(tops: Tops, parameters: Parameters) -> NDArray[np.int64]:
    """Representatives modulo 2**sent in [-2**(sent-1), 2**(sent-1))."""
    return packing.centred(tops, parameters.sent)
