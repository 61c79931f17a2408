"""Aggregators that share only a part of the adapter; the rest is every silo's own."""

from __future__ import annotations

from collections.abc import Sequence

from bench.core.update import Layout
from bench.defense.aggregator import Plan
from bench.defense.defaults.mean import Mean


class SharedFactor(Mean):
    """The mean of one LoRA factor. ``factor``: ``"lora_A"``, ``"lora_B"``, or None, where nothing is shared."""

    def __init__(self, factor: str | None, weighted: bool = True) -> None:
        super().__init__(weighted, "delta")
        self.factor = factor

    def plan(self, adapter: Layout, silos: Sequence[str]) -> Plan:
        own = adapter.coordinates(lambda name: self.factor not in name.split("."))
        return Plan(adapter, adapter, personal=own)
