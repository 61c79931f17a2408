"""Server optimisers (Reddi et al. 2021, "Adaptive Federated Optimization", Algorithm 2): the mean change of a round is
taken for a gradient. They run at whoever opens the sums, and need nothing of a channel but the sums.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.core.streams import State
from bench.defense.aggregator import ServerStep
from bench.defense.flow import Flow

Float = NDArray[np.float64]


class _Optimiser(ServerStep):
    has_memory = True

    def follow(self, flow: Flow) -> Flow:
        return flow.saying("moving", self)


class Momentum(_Optimiser):
    """FedAvgM (Hsu et al. 2019): m <- beta m + change; the adapter moves by ``lr`` m."""

    def __init__(self, lr: float = 1.0, beta: float = 0.9) -> None:
        self.lr, self.beta = lr, beta

    def move(self, change: Float, memory: State) -> Float:
        memory["momentum"] = self.beta * memory.get("momentum", np.zeros_like(change)) + change
        return np.asarray(self.lr * memory["momentum"])

    def undo(self, moved: Float, memory: State) -> Float:
        before = memory.get("momentum", np.zeros_like(moved))
        memory["momentum"] = moved / self.lr
        return np.asarray(memory["momentum"] - self.beta * before)


class Adam(_Optimiser):
    """FedAdam: m <- b1 m + (1 - b1) change, v <- b2 v + (1 - b2) change^2; the adapter moves by lr m / (sqrt(v) + tau).

    As in the paper there is no bias correction. ``tau`` is the paper's degree of adaptivity, and v starts at tau^2.
    """

    def __init__(self, lr: float = 1e-2, b1: float = 0.9, b2: float = 0.99, tau: float = 1e-3) -> None:
        self.lr, self.b1, self.b2, self.tau = lr, b1, b2, tau

    def move(self, change: Float, memory: State) -> Float:
        m, v = self._memory(change, memory)
        memory["m"] = self.b1 * m + (1 - self.b1) * change
        memory["v"] = self.b2 * v + (1 - self.b2) * change**2
        return np.asarray(self.lr * memory["m"] / (np.sqrt(memory["v"]) + self.tau))

    def undo(self, moved: Float, memory: State) -> Float | None:
        """Per value, the change d with lr (b1 m + (1 - b1) d) = moved (sqrt(b2 v + (1 - b2) d^2) + tau): squaring gives
        a quadratic, of whose roots one or both solve the equation. None where some value has two solutions: a move then
        leaves open which change it was (the first move never does)."""
        m, v = self._memory(moved, memory)
        slope, rest = self.lr * (1 - self.b1), self.lr * self.b1 * m - moved * self.tau
        a = slope**2 - moved**2 * (1 - self.b2)
        b = slope * rest
        c = rest**2 - moved**2 * self.b2 * v
        root = np.sqrt(np.maximum(b**2 - a * c, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            both = np.stack([(-b + root) / a, (-b - root) / a])
        both = np.where(np.isfinite(both), both, 0.0)
        off = np.abs(slope * both + rest - moved * np.sqrt(self.b2 * v + (1 - self.b2) * both**2))
        good = off <= off.min(0) + 1e-9 * np.abs(moved)
        if (good.all(0) & (np.abs(both[0] - both[1]) > 1e-6 * np.abs(both).max(0))).any():
            return None
        change = np.where(good[0], both[0], both[1])
        self.move(change, memory)
        return np.asarray(change)

    def _memory(self, change: Float, memory: State) -> tuple[Float, Float]:
        start = np.full_like(change, self.tau**2)
        return np.asarray(memory.get("m", np.zeros_like(change))), np.asarray(memory.get("v", start))
