"""The mean of LoRA factors over silos (McMahan et al. 2017, Algorithm 1), weighted or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.core.update import Array, Update
from bench.defense.aggregator import Aggregator
from bench.defense.flow import Flow, name_of
from bench.defense.public import Public


class Mean(Aggregator):
    """``weighted``: by nominal size, else every silo counts as one. ``of``: silos contribute their deltas, or their
    whole LoRA weights (as published FedShield does); the resulting adapter is the same up to rounding."""

    def __init__(self, weighted: bool = True, of: Literal["delta", "weights"] = "delta") -> None:
        self.weighted = weighted
        self.of = of

    def follow(self, flow: Flow) -> Flow:
        if self.of == "delta":
            return flow
        unsent = f"the aggregator {name_of(self)} sums whole weights, where unsent would mean 0: they can't be combined"
        whole = f"{name_of(self)} sums whole weights, of which a bound on the update says nothing"
        return flow.barring("sparse", unsent).unbound(self, whole)

    def weight(self, nominal_size: int) -> int:
        return nominal_size if self.weighted else 1

    def summand(self, update: Update, global_adapter: Array, public: Public) -> Update:
        values = update.values.astype(np.float32)
        if self.of == "weights":
            values = values + global_adapter
        # a weighted or shifted summand no longer keeps the bound that held for the delta
        kept = update.norm_bound if self.of == "delta" else None
        bound = None if kept is None else kept * update.weight
        return replace(update, values=values * np.float32(update.weight), norm_bound=bound)

    def apply(
        self, total: NDArray[np.floating], silos: Sequence[str], global_adapter: Array, public: Public
    ) -> NDArray[np.floating]:
        mean = total.astype(np.float64) / sum(public.weights[silo] for silo in silos)
        return np.asarray(mean if self.of == "weights" else global_adapter + mean)

    def implied_total(
        self, before: Array, after: Array, silos: Sequence[str], public: Public
    ) -> NDArray[np.float64] | None:
        mean = after.astype(np.float64) - (before.astype(np.float64) if self.of == "delta" else 0.0)
        return np.asarray(mean * sum(public.weights[silo] for silo in silos), dtype=np.float64)

    def implied_adapter(
        self, summand: NDArray[np.floating], weight: int, global_adapter: Array, public: Public
    ) -> Array:
        own = summand.astype(np.float64) / weight
        return (own if self.of == "weights" else global_adapter + own).astype(np.float32)
