"""What the LoRA projections of the base model read, found with hooks, whatever the architecture is called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError

if TYPE_CHECKING:
    from bench.model.lora import LoraModel

_CHUNK = 4096


class _Enough(Exception):
    """Ends a forward pass once the wanted inputs are there."""


class Probe:
    """Runs the model up to its first few groups of LoRA projections and returns what they read.

    A *group* is the projections that read one and the same tensor (query, key and value of a layer), named by their
    prefix in the adapter's layout; ``groups`` holds them in the order in which the model calls them.
    """

    def __init__(self, model: LoraModel) -> None:
        self.model = model
        self._modules = {name: model.module.get_submodule(name) for name in projections(model.layout.names)}
        self.groups = self._find_groups()

    def inputs(self, ids: NDArray[np.integer], groups: int) -> list[NDArray[np.float32]]:
        """Inputs (n, length, width) of the first ``groups`` groups for sequences ``ids`` (n, length), no padding."""
        wanted = {self.groups[i][0]: i for i in range(min(groups, len(self.groups)))}
        found: dict[int, NDArray[np.float32]] = {}

        def keep(name: str, value: torch.Tensor) -> None:
            if name in wanted:
                found[wanted[name]] = value.float().cpu().numpy()
                if len(found) == len(wanted):
                    raise _Enough

        self._run(ids, keep)
        return [found[i] for i in range(len(wanted))]

    def last_inputs(self, ids: NDArray[np.integer], groups: int) -> list[NDArray[np.float64]]:
        """As ``inputs``, at the last position only: (n, width) each."""
        chunks = [self.inputs(ids[i : i + 256], groups) for i in range(0, len(ids), 256)]
        return [np.concatenate([chunk[g][:, -1] for chunk in chunks]).astype(np.float64) for g in range(len(chunks[0]))]

    def vocabulary(self) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """(first token id, inputs (m, width) of the first group) for all tokens, some thousands at a time.

        Raises SiloBenchError where that input depends on more than the token.
        """
        if not self.reads_tokens_only:
            raise SiloBenchError(
                f"the row-space attack needs a model whose first LoRA projection ({self.groups[0][0]}) reads the token "
                "alone; here its input depends on the position or on the tokens before (learned position embeddings, "
                "or no LoRA on the first layer's attention inputs)"
            )
        for start in range(0, self.model.vocab_size, _CHUNK):
            ids = np.arange(start, min(start + _CHUNK, self.model.vocab_size))[:, None]
            yield start, self.inputs(ids, 1)[0][:, 0].astype(np.float64)

    @cached_property
    def reads_tokens_only(self) -> bool:
        """True where the first group's input at a position is a function of the token there."""
        vocabulary = self.model.vocab_size
        a, b, c = (int(vocabulary * share) for share in (0.2, 0.5, 0.8))
        rows = self.inputs(np.array([[a, b, c], [c, a, b], [b, c, a]]), 1)[0]
        same = (rows[0, 0], rows[1, 1], rows[2, 2])
        scale = float(np.abs(rows).max())
        return all(bool(np.abs(other - same[0]).max() <= 1e-4 * scale) for other in same[1:])

    def _find_groups(self) -> tuple[tuple[str, ...], ...]:
        calls: list[tuple[str, torch.Tensor]] = []
        self._run(np.array([[0, 1]]), lambda name, value: calls.append((name, value)))
        groups: list[list[str]] = []
        for i, (name, value) in enumerate(calls):
            if i and value is calls[i - 1][1]:
                groups[-1].append(name)
            else:
                groups.append([name])
        return tuple(tuple(group) for group in groups)

    def _run(self, ids: NDArray[np.integer], keep: Any) -> None:
        handles = [
            module.register_forward_pre_hook(lambda _module, args, name=name: keep(name, args[0]))
            for name, module in self._modules.items()
        ]
        try:
            with torch.no_grad():
                batch = torch.as_tensor(ids, dtype=torch.long, device=self.model.device)
                self.model.module(input_ids=batch, use_cache=False)
        except _Enough:
            pass
        finally:
            for handle in handles:
                handle.remove()


def projections(names: Sequence[str]) -> tuple[str, ...]:
    """Prefixes of an adapter's tensors that are the A or B of a LoRA projection, in canonical order."""
    return tuple(name.split(".lora_A.")[0] for name in names if ".lora_A." in name)
