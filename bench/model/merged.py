"""Dense changes of frozen weights, put on while the model computes and taken off without a trace. Torch inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.update import Array, Layout
from bench.model.products import dense, pairs


class Merged:
    """What was folded into a model's frozen weights.

    Every LoRA layer's own frozen map y = W x gives y + scaling D x instead, by a forward hook, in float32 and then in
    the type of y. So the base keeps its bits, whatever its type (a small change added to a bfloat16 or 4-bit weight
    would be rounded away), and whoever has no such change pays nothing: there is no hook then.
    """

    def __init__(self, module: Any, adapter: Layout, device: torch.device) -> None:
        self._module, self._adapter, self._device = module, adapter, device
        self._handles: list[Any] = []
        self._values: Array | None = None

    @property
    def values(self) -> Array | None:
        """The dense part of the wide state that is on, or None."""
        return self._values

    def set(self, state: NDArray[np.float32] | None) -> None:
        """Put on the dense part of a wide state in place of what was on; None or zeros: take off.

        Raises SiloBenchError where a target is no LoRA layer around a frozen map.
        """
        for handle in self._handles:
            handle.remove()
        self._handles, self._values = [], None
        if state is None:
            return
        self._values = np.array(state[self._adapter.size :], dtype=np.float32)
        for pair, change in zip(pairs(self._adapter), dense(self._adapter, state), strict=True):
            if change.any():
                self._handles.append(self._hook(pair.prefix, change))

    def _hook(self, prefix: str, change: NDArray[np.float32]) -> Any:
        layer = self._module.get_submodule(prefix)
        base, scaling = getattr(layer, "base_layer", None), getattr(layer, "scaling", None)
        if base is None or not scaling:
            raise SiloBenchError(f"{prefix} is no LoRA layer around a frozen weight, and nothing can be folded into it")
        matrix = torch.from_numpy(change).to(self._device) * float(next(iter(scaling.values())))
        return base.register_forward_hook(_adding(matrix))


def _adding(matrix: torch.Tensor) -> Callable[[Any, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]:
    def add(_: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        extra = torch.nn.functional.linear(inputs[0].to(matrix.dtype), matrix)
        return output + extra.to(output.dtype)

    return add
