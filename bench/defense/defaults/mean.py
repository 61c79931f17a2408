"""The mean of LoRA factors over silos (McMahan et al. 2017, Algorithm 1), weighted or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.core.update import Update
from bench.defense.parts import Aggregator


class Mean(Aggregator):
    """``weighted``: by nominal size, else every silo counts as one. ``of``: silos contribute their deltas, or their
    whole LoRA weights (as published FedShield does); the resulting adapter is the same up to rounding."""

    def __init__(self, weighted: bool = True, of: Literal["delta", "weights"] = "delta") -> None:
        self.weighted = weighted
        self.of = of
        self.sparse = of == "delta"

    def weight(self, nominal_size: int) -> int:
        return nominal_size if self.weighted else 1

    def summand(self, update: Update, global_adapter: NDArray[np.float32]) -> Update:
        values = update.values.astype(np.float32)
        if self.of == "weights":
            values = values + global_adapter
        # a weighted or shifted summand no longer keeps the bound that held for the delta
        kept = update.norm_bound if self.of == "delta" else None
        bound = None if kept is None else kept * update.weight
        return replace(update, values=values * np.float32(update.weight), norm_bound=bound)

    def apply(
        self, total: NDArray[np.floating], weights: Sequence[int], global_adapter: NDArray[np.float32]
    ) -> NDArray[np.floating]:
        mean = total.astype(np.float64) / sum(weights)
        return np.asarray(mean if self.of == "weights" else global_adapter + mean)

    def implied_total(
        self, before: NDArray[np.float32], after: NDArray[np.float32], weights: Sequence[int]
    ) -> NDArray[np.float64] | None:
        mean = after.astype(np.float64) - (before.astype(np.float64) if self.of == "delta" else 0.0)
        return np.asarray(mean * sum(weights), dtype=np.float64)

    def implied_adapter(
        self, summand: NDArray[np.floating], weight: int, global_adapter: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        own = summand.astype(np.float64) / weight
        return (own if self.of == "weights" else global_adapter + own).astype(np.float32)
