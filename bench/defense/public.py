"""What every party and every adversary knows about a federation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.core.streams import Streams
from bench.core.update import Layout


@dataclass(frozen=True)
class Layouts:
    """``adapter``: of what a silo trains. ``summed``: of a summand, which is what the channel sums. ``state``: of the
    global adapter, which begins with the tensors of ``adapter``."""

    adapter: Layout
    summed: Layout
    state: Layout


def alike(layout: Layout) -> Layouts:
    """Where whole adapters are summed, and the model has to carry nothing else."""
    return Layouts(layout, layout, layout)


@dataclass(frozen=True)
class Public:
    """What every party and every adversary knows about the federation.

    ``weights``: by silo. ``participants``: the silos that take part, per round, from the public schedule. ``nonce``:
    the seed of public choices (``generator``), and of nothing that must be secret. ``sizes``: by silo, the nominal
    number of records that it trains on; empty where that is not known. ``names``: of the organisations that silos are,
    where they have any.
    """

    layouts: Layouts
    silos: tuple[str, ...]
    weights: Mapping[str, int]
    rounds: int
    participants: Sequence[tuple[str, ...]]
    nonce: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def layout(self) -> Layout:
        """Of a summand: of what travels."""
        return self.layouts.summed

    @property
    def adapter(self) -> Layout:
        """Of what a silo trains."""
        return self.layouts.adapter

    @property
    def state(self) -> Layout:
        """Of the global adapter."""
        return self.layouts.state

    def generator(self, name: str, *indices: int) -> np.random.Generator:
        """Public randomness that everybody can redraw."""
        return Streams(self.nonce).generator(f"public/{name}", *indices)
