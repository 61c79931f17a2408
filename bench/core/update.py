"""What travels, before protection: the layout of an adapter and an update to it.

An *adapter* is the LoRA state as one flat float32 array of ``Layout.size`` values, in canonical order (the
order of the model's own parameters, lora_A before lora_B). An *update* is a delta to the global adapter. An aggregator
may sum something of another layout, and let the global adapter carry more than a silo trains (``bench.defense.parts``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError

Array = NDArray[np.float32]
#: What an update holds: real values, or integers on a grid.
Values = Literal["real", "grid"]
#: A linear combination of summands: sorted (round, silo, coefficient), coefficients not 0.
Terms = tuple[tuple[int, str, int], ...]


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the adapter's tensors, in canonical order."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Start of each tensor in the flat array, and the total size last."""
        sizes = [int(np.prod(shape)) for shape in self.shapes]
        return tuple(int(x) for x in np.concatenate([[0], np.cumsum(sizes)]))

    @property
    def size(self) -> int:
        """Number of values of the flat adapter."""
        return self.offsets[-1]

    def tensors(self, flat: NDArray[np.floating]) -> Iterator[tuple[str, NDArray[np.floating]]]:
        """Views (not copies) of ``flat``, one per tensor, as (name, array of that tensor's shape)."""
        if flat.shape != (self.size,):
            raise ValueError(f"expected a flat adapter of {self.size} values, got shape {flat.shape}")
        for i, (name, shape) in enumerate(zip(self.names, self.shapes, strict=True)):
            yield name, flat[self.offsets[i] : self.offsets[i + 1]].reshape(shape)

    def coordinates(self, wanted: Callable[[str], bool]) -> NDArray[np.int64]:
        """The sorted indices, in the flat array, of the tensors whose name is ``wanted``."""
        chosen = np.array([wanted(name) for name in self.names], dtype=np.bool_)
        return np.flatnonzero(np.repeat(chosen, np.diff(self.offsets))).astype(np.int64)

    def to_json(self) -> dict[str, object]:
        return {"names": list(self.names), "shapes": [list(s) for s in self.shapes]}

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.to_json()).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Grid:
    """Values are integers in [-levels, levels], each worth ``clip / levels``; ``levels = 2**(bits-1) - 1``."""

    bits: int
    clip: float

    @property
    def levels(self) -> int:
        return int(2 ** (self.bits - 1) - 1)

    @property
    def step(self) -> float:
        """What one unit is worth."""
        return self.clip / self.levels


@dataclass(frozen=True)
class Update:
    """What one silo wants to contribute in one round.

    ``values``: float32, or int64 within the grid's levels where ``grid`` is set; shape (layout.size,), or
    (len(support),) where a public ``support`` (sorted indices into the flat adapter, the same for every silo of the
    round) is set: what is not on it is not sent, and stays as it is. ``weight``: public positive integer.
    ``norm_bound``: an upper bound on the L2 norm of ``values`` that holds whatever the records are, or None. ``silo``:
    whose it is; empty where that does not matter.
    """

    values: NDArray[np.float32] | NDArray[np.int64]
    layout: Layout
    weight: int = 1
    grid: Grid | None = None
    support: NDArray[np.int64] | None = None
    norm_bound: float | None = None
    silo: str = ""

    @property
    def norm(self) -> float:
        """The L2 norm, in real units."""
        unit = 1.0 if self.grid is None else self.grid.step
        return float(np.linalg.norm(self.values.astype(np.float64))) * unit

    @property
    def form(self) -> Form:
        return Form(self.layout, self.grid, self.support)

    def restricted(self, support: NDArray[np.int64]) -> Update:
        """The same update on those indices of ``support`` (sorted) that are on its own."""
        if self.support is None:
            return replace(self, values=self.values[support], support=support)
        kept = np.isin(self.support, support, assume_unique=True)
        return replace(self, values=self.values[kept], support=self.support[kept])

    def dense(self) -> NDArray[np.floating]:
        """(layout.size,) float32: real values over the whole layout, 0 where unsent."""
        if self.grid is None and self.support is None:
            return np.asarray(self.values, dtype=np.float32)
        return self.form.spread(self.values).astype(np.float32)


@dataclass(frozen=True)
class Form:
    """What the opener of a sum must know of its summands. Public, and the same for all silos of a round.

    It travels as a short JSON header (``header``), in which a support is named by its digest only: everybody can derive
    it from public things.
    """

    layout: Layout
    grid: Grid | None = None
    support: NDArray[np.int64] | None = None

    @property
    def count(self) -> int:
        """How many values travel."""
        return self.layout.size if self.support is None else len(self.support)

    def header(self) -> bytes:
        value: dict[str, object] = {"values": self.count}
        if self.grid is not None:
            value |= {"bits": self.grid.bits, "clip": self.grid.clip}
        if self.support is not None:
            value["support"] = support_digest(self.support)
        return json.dumps(value).encode()

    @classmethod
    def read(cls, header: bytes, layout: Layout, support: NDArray[np.int64] | None) -> Form:
        """The inverse of ``header``, given the round's own ``support``. Raises SiloBenchError where they differ."""
        try:
            value = json.loads(header[:MAX_HEADER])
            grid = Grid(_bits(value["bits"]), _clip(value["clip"])) if "bits" in value else None
            named = value.get("support")
            count = value["values"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise SiloBenchError(f"a message's header is malformed: {error}") from None
        form = cls(layout, grid, support)
        if count != form.count or named != (None if support is None else support_digest(support)):
            raise SiloBenchError("a message's header names other coordinates than the round's public support")
        return form

    def spread(self, sent: NDArray[np.number]) -> NDArray[np.float64]:
        """(layout.size,) float64 from the ``count`` values that travelled: times the grid's step, 0 where unsent."""
        values = sent.astype(np.float64) * (1.0 if self.grid is None else self.grid.step)
        if self.support is None:
            return values
        full = np.zeros(self.layout.size)
        full[self.support] = values
        return full


MAX_HEADER = 4096


def support_digest(support: NDArray[np.int64]) -> str:
    """16 hexadecimal digits of SHA-256 over one bit per coordinate, the first in the highest bit of the first byte, up
    to the byte of the last index. Raises SiloBenchError unless they ascend from 0 on, each standing once."""
    if len(support) and (support[0] < 0 or not (support[1:] > support[:-1]).all()):
        raise SiloBenchError("a public support's indices must ascend, each standing once")
    bits = np.zeros(int(support[-1]) + 1 if len(support) else 0, dtype=np.bool_)
    bits[support] = True
    return hashlib.sha256(np.packbits(bits).tobytes()).hexdigest()[:16]


def _bits(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 2 <= value <= 62:
        raise ValueError(f"bits={value!r}")
    return value


def _clip(value: object) -> float:
    if not isinstance(value, float | int) or not 0 < value < 1e30:
        raise ValueError(f"clip={value!r}")
    return float(value)
