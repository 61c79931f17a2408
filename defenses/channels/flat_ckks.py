"""Sums under CKKS (Cheon et al. 2017), one flat vector over all tensors, with the smallest parameters that will do.

Only what is on the round's public support is encrypted. The prime of the ciphertexts is the smallest at which a sum is
off by at most ``error`` and holds what values up to ``largest`` add up to (``seal_parameters.choose_ckks``); there are
no further levels, since a sum needs none: the key holders divide in clear. A value costs half a data prime's bits in
bytes (16 bytes at 32 bits), whatever it is.

Security. Ciphertexts are pseudorandom under ring-LWE with a ternary secret, at 128 bits by SEAL's table. That is
security against chosen plaintexts (IND-CPA), and CKKS promises no more: its decryptions carry the noise of the
ciphertexts, so who sees sums of ciphertexts *and* the exact values they decrypt to can solve for the key (Li and
Micciancio 2021, IND-CPA-D). A server that relays the sums and is then shown what was opened from them to full
precision is in that position. Rounding what is released helps only if it hides the noise entirely, which at an error
of 1e-4 it usually does not; the exact channels (``bfv``) do not have this leak.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import CannotOpen, SiloBenchError
from bench.core.update import Form, Update
from defenses.channels.homomorphic import HomomorphicSum, KeyHolder, chunks, gather
from defenses.channels.seal_parameters import Parameters, choose_ckks
from defenses.channels.secagg.packing import largest


def check_values(values: NDArray[Any], weight: int, most: float, channel: str) -> None:
    """Raises SiloBenchError for values that are not finite, or above ``most`` times their ``weight``."""
    share = most * weight
    if not np.isfinite(values).all():
        raise SiloBenchError(f"an update holds values that are not finite; {channel} can't encrypt it")
    if largest(values) > share:
        raise SiloBenchError(
            f"an update holds a value above {share:g}, its weight times 'largest' ({most:g}), so that a sum could wrap "
            "around: set it higher."
        )


class FlatCKKS(HomomorphicSum):
    """``error``: what a value of an opened sum may be off by, absolutely. ``largest``: the magnitude that a silo's
    values may have per unit of its public weight, so that sums are right up to ``largest`` times all weights.
    ``degree``: of the ring; more is slower and allows larger moduli. Raises UsageError where the parameters would break
    the security table, or none would do for three silos of weight 1."""

    def __init__(
        self, error: float = 1e-4, largest: float = 4.0, key_holder: KeyHolder = "silos", degree: int = 4096
    ) -> None:
        super().__init__(key_holder)
        self.error, self.largest, self.degree = error, largest, degree
        self.bytes_per_value = self.for_silos(3).parameters().data_bits / 2

    def parameters(self) -> Parameters:
        return choose_ckks(self.error, self.largest * self.weight, self.silos, self.symmetric, self.degree)

    def encode(self, update: Update) -> Iterator[NDArray[Any]]:
        if update.grid is not None:
            raise SiloBenchError("the CKKS channel takes real values only")
        yield from chunks(self.checked(update), self.codec().parameters.slots)

    def checked(self, update: Update) -> NDArray[np.float64]:
        """An update's values in float64, finite and within ``largest`` times its weight. Raises SiloBenchError."""
        check_values(update.values, update.weight, self.largest, "the CKKS channel")
        return update.values.astype(np.float64)

    def decode(self, numbers: Iterator[NDArray[Any]], form: Form, count: int) -> NDArray[Any]:
        if form.grid is not None:
            raise CannotOpen("the header names values on a grid, which this channel never sends")
        values = gather(numbers, form.count, np.float64)
        if not np.isfinite(values).all():
            raise CannotOpen("a ciphertext does not decrypt to finite values")
        return values
