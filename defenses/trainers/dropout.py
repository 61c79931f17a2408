"""LoRA dropout: during training, values of the adapter's input are dropped at random."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bench.core.errors import SiloBenchError
from bench.defense.defaults.trainer import GradientTrainer
from bench.defense.parts import Training, TrainJob
from bench.model.lora import LoraModel


class DropoutTrainer(GradientTrainer):
    """Plain training with ``y = W x + scale * B A dropout(x)``, as PEFT's ``lora_dropout``: each value of x is zeroed
    with probability ``share``, independently for every token and projection, and the others are divided by 1 - share
    (Srivastava et al. 2014, in the inverted form). Outside of a round's training the model is as it was.

    The masks come from a stream beside the public order of the records, which itself is that of plain training.
    """

    def __init__(self, share: float) -> None:
        self.share = share

    def train(self, job: TrainJob) -> Training:
        seed = int(job.order.spawn(1)[0].integers(2**63))
        with dropping(job.model, self.share, seed):
            return super().train(job)


class SeededDropout(torch.nn.Module):
    """Dropout from a generator of its own, whatever mode the model is in (the base is always in evaluation mode)."""

    def __init__(self, share: float, generator: torch.Generator) -> None:
        super().__init__()
        self.share, self.generator = share, generator

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        drawn = torch.rand(values.shape, generator=self.generator, device=values.device)
        return values * (drawn >= self.share).to(values.dtype) / (1.0 - self.share)


@contextmanager
def dropping(model: LoraModel, share: float, seed: int) -> Iterator[None]:
    """Within it every LoRA layer drops values of its input. Raises SiloBenchError for a model without LoRA layers."""
    generator = torch.Generator(device=model.device).manual_seed(seed)
    # PEFT keeps a layer's dropout in a ModuleDict, by adapter
    found = (getattr(module, "lora_dropout", None) for module in model.module.modules())
    before = [(layer, dict(layer)) for layer in found if isinstance(layer, torch.nn.ModuleDict)]
    if not before:
        raise SiloBenchError("the model has no LoRA layer whose input could be dropped")
    try:
        for layer, kept in before:
            layer.update({name: SeededDropout(share, generator) for name in kept})
        yield
    finally:
        for layer, kept in before:
            layer.update(kept)
