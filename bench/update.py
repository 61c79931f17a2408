"""What travels, before protection: the layout of an adapter and an update to it.

An *adapter* is the LoRA state as one flat float32 array of ``Layout.size`` values, in canonical order (the
order of the model's own parameters, lora_A before lora_B). An *update* is a delta to the global adapter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


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

    def to_json(self) -> dict[str, object]:
        return {"names": list(self.names), "shapes": [list(s) for s in self.shapes]}

    @classmethod
    def from_json(cls, value: dict[str, list[object]]) -> Layout:
        shapes = tuple(tuple(int(d) for d in s) for s in value["shapes"])  # type: ignore[attr-defined]
        return cls(tuple(str(n) for n in value["names"]), shapes)

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


@dataclass(frozen=True)
class Update:
    """What one silo wants to contribute in one round.

    ``values``: float32, or int64 where ``grid`` is set; shape (layout.size,), or (len(support),) where a public
    ``support`` (sorted indices into the flat adapter) is set. ``weight``: public positive integer.
    ``norm_bound``: an upper bound on the L2 norm of ``values`` that holds whatever the records are, or None.
    """

    values: NDArray[np.float32] | NDArray[np.int64]
    layout: Layout
    weight: int = 1
    grid: Grid | None = None
    support: NDArray[np.int64] | None = None
    norm_bound: float | None = None
