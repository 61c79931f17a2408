"""Which LoRA matrices are trained in a round. With one of the two fixed the product B A is linear in what is trained:
noise enters once, and the mean of the silos' factors is exactly the mean of their products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from bench.model.lora import LoraModel

#: ``b``: A stays at its random start (FFA-LoRA, Sun et al. 2024, "Improving LoRA in Privacy-preserving Federated
#: Learning"). ``alternate``: B in even rounds, A in odd ones (RoLoRA, Chen et al. 2024); B first, as A has no gradient
#: while B is zero.
Factors = Literal["both", "b", "alternate"]


def is_trained(name: str, factors: Factors, round: int) -> bool:
    """Whether the LoRA tensor of that name (``bench.core.update.Layout``) is trained in ``round``, counted from 0."""
    wanted: dict[Factors, tuple[str, ...]] = {
        "both": ("lora_A", "lora_B"),
        "b": ("lora_B",),
        "alternate": ("lora_A",) if round % 2 else ("lora_B",),
    }
    return any(part in wanted[factors] for part in name.split("."))


@contextmanager
def training_only(model: LoraModel, factors: Factors, round: int) -> Iterator[list[torch.nn.Parameter]]:
    """Within it the adapter's other parameters need no gradient; they keep their values exactly."""
    parameters = model.parameters()
    if factors == "both":
        yield parameters
        return
    chosen = [is_trained(name, factors, round) for name in model.layout.names]
    frozen = [p for p, trained in zip(parameters, chosen, strict=True) if not trained]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield [p for p, trained in zip(parameters, chosen, strict=True) if trained]
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
