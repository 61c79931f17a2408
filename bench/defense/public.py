"""What every party and every adversary knows about a federation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.core.streams import Streams
from bench.core.update import Layout

_AS_SUMMED = Layout((), ())


@dataclass(frozen=True)
class Public:
    """What every party and every adversary knows about the federation.

    ``layout``: of a summand, which is what the channel sums. ``adapter``: of what a silo trains. ``state``: of the
    global adapter, which begins with the tensors of ``adapter``. The latter two are ``layout`` unless the aggregator
    plans otherwise (``bench.Plan``). ``nonce``: the seed of public choices (``generator``),
    and of nothing that must be secret.
    """

    layout: Layout
    silos: tuple[str, ...]
    weights: Mapping[str, int]
    rounds: int
    #: names of the silos that take part, per round (from the public schedule)
    participants: Sequence[tuple[str, ...]]
    nonce: int = 0
    adapter: Layout = _AS_SUMMED
    state: Layout = _AS_SUMMED

    def __post_init__(self) -> None:
        for name in ("adapter", "state"):
            if not getattr(self, name).names:
                object.__setattr__(self, name, self.layout)

    def layouts(self) -> dict[str, object]:
        """The layouts as JSON: ``adapter`` and ``state`` only where they are not ``layout``."""
        all_of_them = {"layout": self.layout, "adapter": self.adapter, "state": self.state}
        return {key: value.to_json() for key, value in all_of_them.items() if key == "layout" or value != self.layout}

    def generator(self, name: str, *indices: int) -> np.random.Generator:
        """Public randomness that everybody can redraw."""
        return Streams(self.nonce).generator(f"public/{name}", *indices)
