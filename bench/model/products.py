"""Products of LoRA factors: a layout that has, beside an adapter's A and B, the dense change B A of each target.

A *wide* state is an adapter followed by one dense matrix per pair of factors, in the adapter's order: a change of the
frozen weight, in units of B A (the model multiplies it by LoRA's scaling as it does B A). The effective change of a
target's weight under a wide state is scaling x (D + B A).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.update import Array, Layout

#: stands for a tensor's factor in the name of a dense change
PRODUCT = "lora_BA"


@dataclass(frozen=True)
class Pair:
    """One target's factors by their numbers in the adapter's layout: A (rank, inputs) and B (outputs, rank)."""

    prefix: str
    a: int
    b: int


def pairs(adapter: Layout) -> tuple[Pair, ...]:
    """The pairs of factors, in the order of their A. Raises SiloBenchError where a tensor has no partner that fits."""
    numbers = {name: number for number, name in enumerate(adapter.names)}
    found, left = [], set(numbers)
    for name, a in numbers.items():
        partner = _renamed(name, "lora_A", "lora_B")
        if partner is None or partner not in numbers:
            continue
        one, two = adapter.shapes[a], adapter.shapes[numbers[partner]]
        if len(one) == len(two) == 2 and one[0] == two[1]:
            found.append(Pair(_prefix(name), a, numbers[partner]))
            left -= {name, partner}
    if left:
        raise SiloBenchError(f"{min(left)} is no factor of a product B A of two matrices")
    return tuple(found)


def with_products(adapter: Layout) -> Layout:
    """``adapter`` and then, per pair, a dense matrix (outputs, inputs). Raises SiloBenchError as ``pairs`` does."""
    both = pairs(adapter)
    names = (*adapter.names, *(str(_renamed(adapter.names[pair.a], "lora_A", PRODUCT)) for pair in both))
    dense = tuple((adapter.shapes[pair.b][0], adapter.shapes[pair.a][1]) for pair in both)
    return Layout(names, (*adapter.shapes, *dense))


def factors(adapter: Layout, flat: NDArray[np.floating]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """(A, B) of every pair, as views into ``flat``, whose first ``adapter.size`` values are an adapter."""
    tensors = [tensor for _, tensor in adapter.tensors(flat[: adapter.size])]
    for pair in pairs(adapter):
        yield tensors[pair.a], tensors[pair.b]


def dense(adapter: Layout, flat: NDArray[np.floating]) -> Iterator[NDArray[Any]]:
    """The dense change of every pair, as views into ``flat`` of the layout ``with_products``."""
    start = adapter.size
    for pair in pairs(adapter):
        shape = (adapter.shapes[pair.b][0], adapter.shapes[pair.a][1])
        yield flat[start : start + shape[0] * shape[1]].reshape(shape)
        start += shape[0] * shape[1]


def widened(adapter: Array, state: Layout) -> Array:
    """An adapter as a state of the layout ``state``, which begins with the adapter's: what follows is 0."""
    return np.concatenate([adapter, np.zeros(state.size - len(adapter), dtype=np.float32)]).astype(np.float32)


def initial_factors(adapter: Layout, rng: np.random.Generator) -> Array:
    """(adapter.size,) A uniform in [-1/sqrt(d), 1/sqrt(d)] with d its input width, B zero: PEFT's default
    initialisation (Kaiming uniform with a = sqrt(5)), drawn from ``rng``."""
    flat = np.zeros(adapter.size, dtype=np.float32)
    for name, tensor in adapter.tensors(flat):
        if "lora_A" in name:
            bound = 1.0 / np.sqrt(tensor.shape[1])
            tensor[...] = rng.uniform(-bound, bound, tensor.shape)
    return flat


def _renamed(name: str, part: str, other: str) -> str | None:
    """``name`` with its component ``part`` replaced, or None where it has none."""
    words = name.split(".")
    return ".".join(other if word == part else word for word in words) if part in words else None


def _prefix(name: str) -> str:
    words = name.split(".")
    return ".".join(words[: words.index("lora_A")])
