"""Per-record gradients from Opacus' hooks: another implementation of what ``per_record.Fast`` does."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from bench.core.errors import UsageError
from defenses.trainers.per_record import Backend, Gradient, Whole, refuse


class Opacus(Backend):
    """Within ``attached``, a backward pass leaves per-record gradients in the parameters' ``grad_sample``.

    The hooks are attached without wrapping the model and removed at the end. They only look at modules in training
    mode, which is switched on for those that hold the parameters (plain linear maps) and nothing else, so that dropout
    of the base model stays as it was. Gradient checkpointing without reentry is more than the hooks can do.
    """

    @contextmanager
    def _attached(self, module: Any) -> Iterator[None]:
        from opacus.grad_sample.grad_sample_module import GradSampleHooks

        wanted = {id(p) for p in self._parameters}
        owners = [m for m in module.modules() if any(id(p) in wanted for p in m.parameters(recurse=False))]
        modes = [owner.training for owner in owners]
        try:
            hooks = GradSampleHooks(module, loss_reduction="sum", strict=True)
        except NotImplementedError as error:
            reason = str(error).strip().splitlines()[0]
            raise UsageError(f"gradients=opacus can't train this model: {reason}") from None
        try:
            for owner in owners:
                owner.training = True
            with warnings.catch_warnings():
                # the first layer's input is the frozen base model's and needs no gradient
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                yield
        finally:
            hooks.cleanup()
            for owner, mode in zip(owners, modes, strict=True):
                owner.training = mode

    def collect(self, records: int) -> list[Gradient]:
        gradients: list[Gradient] = []
        for parameter in self._parameters:
            values = getattr(parameter, "grad_sample", None)
            if not isinstance(values, torch.Tensor) or values.shape != (records, *parameter.shape):
                raise refuse("Opacus' hooks left none")
            parameter.grad_sample = None  # type: ignore[attr-defined]
            parameter.grad = None
            gradients.append(Whole(values))
        return gradients
