"""Exact sums of integers under BFV (Brakerski 2012; Fan and Vercauteren 2012), several values to a slot.

A slot holds a number modulo the plain modulus t. Values v in [-L, L] (L the grid's levels) travel as v + L in base
B = 2 n L + 1, as many digits as fit below t: a digit of the sum of n uploads is at most 2 n L, so no digit ever carries
into the next, and the whole stays below t. t is the largest prime of SEAL's at which decryption of n summed uploads
cannot fail, by a bound on the noise that always holds (``seal_parameters.choose_bfv``). Nothing is left to chance:
what opens is the sum. With three silos and 8 bits five values share a slot, and a value costs 3.07 bytes.

Security. As for CKKS, 128 bits against chosen plaintexts by SEAL's table. Decryptions are exact and never fail, so they
say nothing about the noise: publishing them gives nothing away beyond the sums themselves (the attack of Li and
Micciancio 2021 has nothing to work on). The integers of one silo are on a public grid; clipping and rounding them is
the quantiser's business and shows in utility, not here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import CannotOpen, SiloBenchError, UsageError, raising
from bench.core.update import Form, Grid, Update
from bench.defense.parts import Transform
from defenses.channels.homomorphic import HomomorphicSum, KeyHolder, chunks, gather
from defenses.channels.seal_parameters import Parameters, choose_bfv
from defenses.channels.secagg.packing import largest
from defenses.transforms.quantize import Quantise


class BFV(HomomorphicSum):
    """``bits``, ``clip``: of the quantiser that is put before this channel where it would be handed real values (see
    ``Quantise``). Grids of other widths are taken as they come, if one digit of their sum fits into a slot."""

    accepts = frozenset({"grid"})
    error = 0.0
    bytes_per_value = 3.1
    quantiser: Transform | None = None

    def __init__(self, bits: int = 8, clip: float | None = None, key_holder: KeyHolder = "silos") -> None:
        super().__init__(key_holder)
        self.quantiser = Quantise(bits, clip)

    def parameters(self) -> Parameters:
        return choose_bfv(self.silos, self.symmetric)

    def base(self, grid: Grid) -> int:
        """What a digit of a sum of ``silos`` uploads stays below."""
        return 2 * self.silos * grid.levels + 1

    def digits(self, grid: Grid) -> int:
        """How many values share a slot. Raises UsageError where not even one fits."""
        room, base = self.codec().plain_modulus, self.base(grid)
        digits = 0
        while base ** (digits + 1) <= room:
            digits += 1
        if not digits:
            raise UsageError(
                f"a sum of {self.silos} silos on a grid of {grid.bits} bits needs numbers up to {base}, and BFV slots "
                f"for so many silos hold up to {room}: take fewer bits."
            )
        return digits

    def encode(self, update: Update) -> Iterator[NDArray[Any]]:
        """Raises SiloBenchError for values off a grid or beyond its levels."""
        if update.grid is None:
            raise SiloBenchError("the BFV channel takes integers on a grid only")
        levels, digits = update.grid.levels, self.digits(update.grid)
        values = update.values
        if values.dtype.kind != "i" or largest(values) > levels:
            raise SiloBenchError("an update holds values beyond its grid, and their sum could carry over")
        modulus = self.codec().plain_modulus
        slots = self.codec().parameters.slots
        for part in chunks(values, slots * digits):
            packed = pack_digits(part + levels, digits, self.base(update.grid))
            # SEAL's encoder takes the representatives around 0
            yield np.where(packed > modulus // 2, packed - modulus, packed)

    def decode(self, numbers: Iterator[NDArray[Any]], form: Form, count: int) -> NDArray[Any]:
        if form.grid is None:
            raise CannotOpen("the header names real values, which this channel never sends")
        with raising(CannotOpen, of=UsageError):
            digits = self.digits(form.grid)
        base, modulus = self.base(form.grid), self.codec().plain_modulus
        packed = gather(numbers, -(-form.count // digits), np.int64) % modulus
        if packed.max(initial=0) >= base**digits:
            raise CannotOpen("a slot holds more than any sum of uploads does")
        sums = unpack_digits(packed, digits, base)[: form.count] - count * form.grid.levels
        if largest(sums) > count * form.grid.levels:
            raise CannotOpen("a value lies beyond what so many uploads can sum to")
        return sums


def pack_digits(values: NDArray[np.int64], digits: int, base: int) -> NDArray[np.int64]:
    """Each ``digits`` values in [0, base) as one number, the first one least; missing ones count as 0."""
    padded = np.pad(values, (0, -len(values) % digits))
    weights = np.array([base**i for i in range(digits)], dtype=np.int64)
    packed: NDArray[np.int64] = padded.reshape(-1, digits) @ weights
    return packed


def unpack_digits(packed: NDArray[np.int64], digits: int, base: int) -> NDArray[np.int64]:
    """The inverse of ``pack_digits``, the padding included."""
    out = np.empty((len(packed), digits), dtype=np.int64)
    rest = packed
    for i in range(digits):
        rest, out[:, i] = np.divmod(rest, base)
    return out.reshape(-1)
