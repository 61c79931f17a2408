"""Aggregators that share only a part of the adapter; the rest is every silo's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.core.update import Layout
from bench.defense.aggregator import Plan
from bench.defense.defaults.mean import Mean


class SharedFactor(Mean):
    """The mean of one LoRA factor. ``factor``: ``"lora_A"``, ``"lora_B"``, or None, where nothing is shared."""

    def __init__(self, factor: str | None, weighted: bool = True) -> None:
        super().__init__(weighted, "delta")
        self.factor = factor

    def plan(self, adapter: Layout, silos: Sequence[str]) -> Plan:
        return Plan(adapter, adapter, personal=self._own(adapter))

    def _own(self, layout: Layout) -> NDArray[np.int64]:
        spans = zip(layout.names, layout.offsets[:-1], layout.offsets[1:], strict=True)
        own = [np.arange(a, b, dtype=np.int64) for name, a, b in spans if self.factor not in name.split(".")]
        return np.concatenate(own) if own else np.zeros(0, dtype=np.int64)
