"""What the lattice sum sends through secure aggregation: its key as the masked vector, ring elements in the open.

Silo i draws a fresh key s_i in every round and uploads, for the round's public elements a_j,

    b_ij = a_j s_i + e_ij + 2**scale m_ij   (mod 2**modulus), rounded to a multiple of 2**dropped,

the symmetric scheme of Brakerski and Vaikuntanathan 2011 with one a_j for all silos. That masks made by learning with
errors add up, so that only short keys need to be summed securely, is used by Stevens et al. 2022. The server adds the
b_ij over silos, learns the sum of the s_i from secure aggregation, and takes a_j (sum of the s_i) off. Nothing here
authenticates the ring elements: they are malleable, as every ciphertext that can be added is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.streams import SecretStreams
from bench.core.update import Form, Update
from defenses.channels.rlwe.parameters import DEGREE, ELEMENTS, ETA, Parameters, choose
from defenses.channels.rlwe.ring import Multiplier, expand
from defenses.channels.rlwe.sampling import centred_binomial, fresh_key
from defenses.channels.rlwe.slots import from_slots, to_slots
from defenses.channels.secagg.packing import largest, pack, unpack
from defenses.channels.secagg.payload import Agreed, Payload, Sealed, Shape

_DOMAIN = b"silobench rlwe public elements 1"


def element_seed(randomness: bytes) -> bytes:
    """The seed of a round's public elements, from what all its silos contributed to: nobody chose it."""
    return hashlib.sha256(_DOMAIN + randomness).digest()


class LatticePayload(Payload):
    """Updates on a grid, summed exactly. Raises SiloBenchError on updates without one."""

    def shape(self, form: Form, silos: int) -> Shape:
        parameters = _parameters(form, silos)
        return Shape(DEGREE, parameters.key_bits, parameters.lengths(form.count))

    def seal(self, update: Update, agreed: Agreed, secret: SecretStreams) -> Sealed:
        parameters = _parameters(update.form, agreed.silos)
        values = _integers(update)
        key = fresh_key(secret.generator("rlwe/key", agreed.round))
        noise = secret.generator("rlwe/noise", agreed.round)
        return Sealed(key, seal_values(values, parameters, key, element_seed(agreed.randomness), noise))

    def add_extra(
        self, total: NDArray[Any] | None, index: int, frame: bytes, form: Form, silos: int
    ) -> NDArray[np.uint64]:
        parameters = _parameters(form, silos)
        part = unpack(frame, parameters.frames(form.count)[index], parameters.sent).astype(np.uint64)
        if total is None:
            return part
        return np.asarray(total + part, dtype=np.uint64)  # modulo 2**64, reduced when the sum is opened

    def open(
        self, vector: NDArray[np.int64], extras: Iterator[NDArray[Any]], form: Form, agreed: Agreed
    ) -> NDArray[np.float64]:
        parameters = _parameters(form, agreed.silos)
        sums = open_values(extras, form.count, parameters, vector, element_seed(agreed.randomness))
        return form.spread(sums)


def seal_values(
    values: NDArray[np.int64],
    parameters: Parameters,
    key: NDArray[np.int64],
    seed: bytes,
    noise: np.random.Generator,
) -> Iterator[bytes]:
    """The frames of one upload of ``values`` (count,), each within [-levels, levels], under ``key`` (N,).

    ``seed``: 32 public bytes that name the elements a_j; ``noise``: secret. Never seal twice with the same key.
    """
    multiplier = Multiplier(key)
    start = 0
    for number, slots in enumerate(parameters.frames(len(values))):
        part = values[start : start + slots * parameters.digits]
        start += slots * parameters.digits
        noisy = _masks(multiplier, seed, number, slots)
        noisy += centred_binomial(noise, slots).view(np.uint64)
        noisy += to_slots(part, parameters)
        yield pack(_rounded(noisy, parameters), parameters.sent)


def open_values(
    sums: Iterator[NDArray[np.uint64]],
    count: int,
    parameters: Parameters,
    key_sum: NDArray[np.int64],
    seed: bytes,
) -> NDArray[np.int64]:
    """(count,) the sum of the values of all uploads whose keys are summed in ``key_sum`` (N,).

    ``sums``: their frames, unpacked and added. Raises SiloBenchError where frames and key do not belong together.
    """
    if key_sum.shape != (DEGREE,) or largest(key_sum) > parameters.silos * ETA:
        raise SiloBenchError("a sum of keys is no small ring element: a share or an upload was wrong")
    multiplier = Multiplier(key_sum.astype(np.int64))
    values = np.empty(count, dtype=np.int64)
    start = 0
    for number, slots in enumerate(parameters.frames(count)):
        total = next(sums, None)
        if total is None or total.shape != (slots,):
            raise SiloBenchError(f"frame {number} of a sum does not hold the {slots} slots that the round's form needs")
        noisy = np.asarray(total, dtype=np.uint64) << np.uint64(parameters.dropped)
        noisy -= _masks(multiplier, seed, number, slots)
        stop = min(start + slots * parameters.digits, count)
        values[start:stop] = from_slots(noisy, stop - start, parameters)
        start = stop
    return values


def _masks(multiplier: Multiplier, seed: bytes, frame: int, slots: int) -> NDArray[np.uint64]:
    """(slots,) a_j times the key for the elements of one frame, modulo 2**64."""
    elements = expand(seed, frame * ELEMENTS, -(-slots // DEGREE))
    return multiplier.times(elements).reshape(-1)[:slots]


def _rounded(noisy: NDArray[np.uint64], parameters: Parameters) -> NDArray[np.uint64]:
    """The upper ``sent`` bits of numbers modulo 2**modulus, rounded to nearest: off by at most 2**(dropped-1)."""
    half = np.uint64(1 << parameters.dropped >> 1)
    return ((noisy + half) >> np.uint64(parameters.dropped)) & np.uint64((1 << parameters.sent) - 1)


def _parameters(form: Form, silos: int) -> Parameters:
    if form.grid is None:
        raise SiloBenchError("the lattice sum takes integers on a grid only")
    return choose(silos, form.grid.levels)


def _integers(update: Update) -> NDArray[np.int64]:
    """The values of an update on a grid, checked."""
    values, grid = update.values, update.grid
    assert grid is not None
    if values.dtype != np.int64 or values.shape != (update.form.count,) or largest(values) > grid.levels:
        raise SiloBenchError(f"an update is not {update.form.count} integers of its grid of {grid.bits} bits")
    return values.view(np.int64)
