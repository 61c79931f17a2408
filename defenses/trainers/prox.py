"""FedProx (Li et al. 2020, "Federated Optimization in Heterogeneous Networks", equation 2): a silo's objective is its
loss plus mu / 2 times the squared L2 distance from the global adapter that its round started from."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bench.defense.defaults.trainer import GradientTrainer


class ProximalTrainer(GradientTrainer):
    """Plain training with the proximal term; ``mu`` >= 0, 0 is plain training."""

    def __init__(self, mu: float) -> None:
        self.mu = mu

    def penalty(self, parameters: list[torch.nn.Parameter]) -> Callable[[], torch.Tensor]:
        start = [p.detach().clone() for p in parameters]

        def distance() -> torch.Tensor:
            squares = [(p - s).square().sum() for p, s in zip(parameters, start, strict=True)]
            return 0.5 * self.mu * torch.stack(squares).sum()

        return distance
