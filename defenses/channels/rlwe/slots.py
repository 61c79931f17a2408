"""Integers on a grid to slots and back: several signed digits side by side in one unsigned number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from defenses.channels.rlwe.parameters import Parameters


def to_slots(values: NDArray[np.int64], parameters: Parameters) -> NDArray[np.uint64]:
    """(slots,) the sums of 2**(width j) digit_j, modulo 2**64, scaled by 2**scale; slots = ceil(values / digits).

    Digit j of slot i is value j * slots + i; digits without a value are 0. Digits are signed: borrows run into higher
    digits and cancel when sums are taken apart.
    """
    slots = -(-len(values) // parameters.digits)
    words = values.view(np.uint64)
    found = np.zeros(slots, dtype=np.uint64)
    for digit in range(parameters.digits):  # summed modulo 2**64
        part = words[digit * slots : (digit + 1) * slots]
        found[: len(part)] += part << np.uint64(parameters.scale + parameters.width * digit)
    return found


def from_slots(slots: NDArray[np.uint64], count: int, parameters: Parameters) -> NDArray[np.int64]:
    """(count,) the values of a noisy sum of ``to_slots``, given modulo 2**modulus.

    Raises SiloBenchError where noise or a digit is larger than it can be in a sum of so many uploads: then the key
    sum and the ring elements do not belong together, or somebody sent what is no sealed update.
    """
    p = parameters
    base = 1 << (p.width - 1)
    # every digit becomes positive, so that no borrow is left
    offset = sum(base << (p.scale + p.width * j) for j in range(p.digits)) + (1 << (p.scale - 1))
    lifted = (slots + np.uint64(offset)) & np.uint64((1 << p.modulus) - 1)
    noise = (lifted & np.uint64((1 << p.scale) - 1)).astype(np.int64) - (1 << (p.scale - 1))
    shifts = np.uint64(p.scale) + np.uint64(p.width) * np.arange(p.digits, dtype=np.uint64)
    table = (lifted >> shifts[:, None]) & np.uint64((1 << p.width) - 1)
    digits = table.astype(np.int64) - base
    found = digits.reshape(-1)
    sizes = np.abs(noise).max(initial=0), np.abs(found).max(initial=0)
    if sizes[0] > p.noise or sizes[1] > p.silos * p.levels or found[count:].any():
        raise SiloBenchError("the ring elements of a sum do not open under the sum of the keys that came with them")
    return found[:count]
