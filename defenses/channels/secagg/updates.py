"""The payload of secure aggregation proper: the updates themselves, integers on a grid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.streams import SecretStreams
from bench.core.update import Form, Update
from defenses.channels.secagg.packing import largest
from defenses.channels.secagg.payload import MAX_BITS, Agreed, Payload, Sealed, Shape


def modulus_bits(silos: int, levels: int) -> int:
    """The fewest bits that hold every sum of ``silos`` values of [-levels, levels]: 2 * silos * levels + 1 numbers."""
    return (2 * silos * levels).bit_length()


class Updates(Payload):
    """A value of the update is a value of the vector; only those on the public support travel."""

    def shape(self, form: Form, silos: int) -> Shape:
        if form.grid is None:
            raise SiloBenchError("secure aggregation sums integers on a grid: put a quantiser before it")
        bits = modulus_bits(silos, form.grid.levels)
        if bits > MAX_BITS:
            raise SiloBenchError(f"sums of {silos} values of {form.grid.bits} bits take more than {MAX_BITS} bits")
        return Shape(form.count, bits)

    def seal(self, update: Update, agreed: Agreed, secret: SecretStreams) -> Sealed:
        """Raises SiloBenchError where values are no integers of the grid."""
        values = update.values
        grid, count = update.grid, update.form.count
        if grid is None or values.dtype != np.int64 or values.shape != (count,):
            raise SiloBenchError("secure aggregation sums integers on a grid: put a quantiser before it")
        if largest(values) > grid.levels:
            raise SiloBenchError(f"an update holds values outside its grid of {grid.bits} bits")
        return Sealed(values.astype(np.int64, copy=False), iter(()))

    def open(
        self, vector: NDArray[np.int64], extras: Iterator[NDArray[Any]], form: Form, agreed: Agreed
    ) -> NDArray[np.float64]:
        """Raises SiloBenchError where a sum lies outside what the silos' values can give: a mask was left on it."""
        if form.grid is None:
            raise SiloBenchError("secure aggregation sums integers on a grid")
        limit = agreed.silos * form.grid.levels
        if largest(vector) > limit:
            raise SiloBenchError(
                f"the opened sum of round {agreed.round} holds values that no {agreed.silos} updates add up to: a "
                "share or an upload was wrong."
            )
        return form.spread(vector)
