"""What released adapters say about the plaintexts of the round's sums, and how exactly.

A channel sums either whole weights (published FedShield) or updates to the global adapter, times public weights; what
is released is their mean, or the adapter before the round plus that mean. Both relations are tried: behind the right
one the coefficients come out as integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from attacks.ckks.slots import Float
from bench.core.errors import SiloBenchError
from bench.core.frames import decode_frame
from bench.defense.channel import Knowledge, Message

Precision = Literal["float64", "float32", "bfloat16", "float16"]
#: from fine to coarse, by the code in a frame's header
PRECISIONS: tuple[Precision, ...] = ("float64", "float32", "bfloat16", "float16")
_BY_CODE: Mapping[int, Precision] = {0: "float64", 1: "float32", 3: "bfloat16", 2: "float16"}
Relation = Literal["weights", "updates"]
RELATIONS: tuple[Relation, ...] = ("weights", "updates")


@dataclass(frozen=True)
class Published:
    """An adapter as it was sent: (size,) values, and the precision at which they were rounded."""

    values: Float
    precision: Precision

    def error(self, precision: Precision | None = None) -> Float:
        """The deviations of the values by rounding, uniform within half a step; ``precision``: had it been that one."""
        size = self.values
        if precision is not None and PRECISIONS.index(precision) < PRECISIONS.index(self.precision):
            # what was rounded to 0 was not 0
            size = np.maximum(np.abs(size), spacing(size, self.precision) / 4)
        return spacing(size, precision or self.precision) / 12**0.5


@dataclass(frozen=True)
class Round:
    """``after``: the adapter released after a round. ``before``: the one that it started from, or None. Training goes
    on in float32, so a start is known exactly where what was published of it has at least that precision."""

    after: Published
    before: Published | None

    def mean(self, relation: Relation) -> Float | None:
        """What the round's sum of weights or updates comes to, over the sum of all public weights."""
        if relation == "weights":
            return self.after.values
        return None if self.before is None else self.after.values - self.before.values

    def errors(self, relation: Relation, precision: Precision | None = None) -> Float:
        """The deviations of ``mean`` by rounding. ``precision``: had both adapters been released at that one."""
        error = self.after.error(precision)
        if relation == "updates" and self.before is not None:
            start = precision or self.before.precision
            if start not in ("float64", "float32"):
                error = np.hypot(error, self.before.error(precision))
        return error


def spacing(values: Float, precision: Precision) -> Float:
    """The distance of neighbouring numbers at ``values`` in that precision."""
    if precision == "bfloat16":
        return spacing(values, "float32") * 2.0**16
    with np.errstate(over="ignore"):
        near = np.abs(values.astype(precision))
    largest = np.finfo(precision).max
    return np.asarray(np.spacing(np.minimum(near, largest)), dtype=np.float64)


def rounds(knowledge: Knowledge) -> dict[int, Round]:
    """By round, what is published around it. Messages that are no adapters of the summands' layout are passed over."""
    size = knowledge.public.layout.size
    after: dict[int, Published] = {}
    before: dict[int, Published] = {}
    for message in knowledge.messages:
        if message.stage in ("release", "broadcast"):
            found = _adapter(message, size)
            if found is not None:
                (after if message.stage == "release" else before)[message.round] = found
    for round, found in after.items():
        trained = found.values.astype(np.float32).astype(np.float64)
        before.setdefault(round + 1, Published(trained, found.precision))
    return {round: Round(found, before.get(round)) for round, found in sorted(after.items())}


def _adapter(message: Message, size: int) -> Published | None:
    parts: list[NDArray[np.generic]] = []
    codes = set()
    try:
        if sum(message.lengths) > 8 * size + 64 * len(message.lengths):
            return None
        for frame in message.frames():
            parts.append(decode_frame(frame))
            codes.add(frame[4])
    except SiloBenchError:
        return None
    values = np.concatenate(parts).astype(np.float64) if parts else np.zeros(0)
    if len(codes) != 1 or not codes <= set(_BY_CODE) or values.shape != (size,) or not np.isfinite(values).all():
        return None
    return Published(values, _BY_CODE[codes.pop()])
