"""Per-record gradients of a LoRA adapter, in one backward pass, and sums of them with a factor for each record.

A LoRA matrix W of a linear map y = x W^T has for record i the gradient G_i = sum over its positions t of dy_it x_it^T
(Goodfellow 2015). ``Fast`` gets it where autograd would have computed the gradient of the whole batch, by one batched
product of the same size; ``bench.model.lora`` gives every record a loss of its own, so that row i of dy is record i's
alone.

Memory beside that of a plain step, in values per record and map of shape (out, in) over T positions: the smaller of
out * in (the gradient itself) and T * (out + in) (dy and x, from which it is formed a second time). For LoRA the first
is usually the smaller: a microbatch of n records takes about n times the adapter.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from typing import Any

import torch

from bench.core.errors import SiloBenchError, UsageError

Piece = tuple[torch.Tensor, torch.Tensor]


class Whole:
    """The gradients of some records with respect to one parameter: themselves, (records, *shape)."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def norms(self) -> torch.Tensor:
        """(records,) float64: their L2 norms; not finite where a value is not."""
        norms: torch.Tensor = torch.linalg.vector_norm(self.values.flatten(1), dim=1, dtype=torch.float64)
        return norms

    def weighted(self, factors: torch.Tensor) -> torch.Tensor:
        """The sum of factor times gradient, float32, in the parameter's shape. A record of factor 0 is left out, not
        multiplied: 0 times what is not finite would not be 0."""
        (values,), factors = _without_zeros((self.values,), factors)
        total: torch.Tensor = torch.tensordot(factors, values.float(), dims=1)
        return total


class Outer:
    """As ``Whole``, held as what the gradients are products of: ``dy`` (records, T, out) and ``x`` (records, T, in)."""

    def __init__(self, dy: torch.Tensor, x: torch.Tensor) -> None:
        self.dy, self.x = dy, x

    def norms(self) -> torch.Tensor:
        # of the products, not by the Gram matrices (x x^T) * (dy dy^T): those lose what cancels between positions
        return Whole(_products(self.dy, self.x)).norms()

    def weighted(self, factors: torch.Tensor) -> torch.Tensor:
        (dy, x), factors = _without_zeros((self.dy, self.x), factors)
        return torch.einsum("nto,nti->oi", dy * factors[:, None, None], x)


Gradient = Whole | Outer


def _without_zeros(
    tensors: tuple[torch.Tensor, ...], factors: torch.Tensor
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    kept = factors != 0
    if kept.all():
        return tensors, factors.float()
    return tuple(t[kept] for t in tensors), factors[kept].float()


def _products(dy: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.bmm(dy.mT, x)


class Backend(ABC):
    """A way to per-record gradients. ``attached`` prepares a model; within it, ``collect`` takes off what a backward
    pass left."""

    _parameters: Sequence[torch.nn.Parameter] = ()

    @contextmanager
    def attached(self, module: Any, parameters: Sequence[torch.nn.Parameter]) -> Iterator[None]:
        """``parameters``: those to be clipped. Raises SiloBenchError where the model would train others beside them,
        and UsageError for a trainable parameter that this backend has no gradients of."""
        chosen = {id(p) for p in parameters}
        beside = [name for name, p in module.named_parameters() if p.requires_grad and id(p) not in chosen]
        if beside:
            raise SiloBenchError(f"{beside[0]} would be trained without being clipped: freeze it")
        for parameter in parameters:
            parameter.grad = None  # of other training of the same model
        self._parameters = parameters
        with self._attached(module):
            yield

    @abstractmethod
    def _attached(self, module: Any) -> Any:
        """The context in which backward passes leave per-record gradients."""

    @abstractmethod
    def collect(self, records: int) -> list[Gradient]:
        """One per parameter, of ``records`` records. Raises SiloBenchError where there is none, or of other records."""


def refuse(what: str) -> SiloBenchError:
    return SiloBenchError(
        f"this model gives no per-record gradients for some trainable values ({what}): they can't be clipped"
    )


class Fast(Backend):
    """Gradients from inside the backward pass of LoRA's own linear maps; nothing else of the model is touched."""

    def __init__(self) -> None:
        self._pieces: dict[int, list[Piece | torch.Tensor]] = {}

    @contextmanager
    def _attached(self, module: Any) -> Iterator[None]:
        maps = _linear_maps(module, self._parameters)
        for linear in maps:
            linear.forward = partial(_forward, linear, self)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for linear in maps:
                del linear.forward
            self._pieces.clear()

    def keep(self, key: int, weight: torch.Tensor, x: torch.Tensor, dy: torch.Tensor) -> None:
        """Called once for every use of a map, from its backward pass. ``key``: of the parameter, which ``weight`` may
        be a detached copy of."""
        x, dy = (t.detach().to(weight.dtype).reshape(len(t), -1, t.shape[-1]) for t in (x, dy))
        whole = weight.numel() <= x.shape[1] * (x.shape[2] + dy.shape[2])
        self._pieces.setdefault(key, []).append(_products(dy, x) if whole else (dy, x))

    def collect(self, records: int) -> list[Gradient]:
        try:
            return [self._one(p, records) for p in self._parameters]
        finally:
            self._pieces.clear()

    def _one(self, parameter: torch.nn.Parameter, records: int) -> Gradient:
        pieces = self._pieces.get(id(parameter), [])
        if parameter.grad is not None:
            raise refuse("one is used outside its linear map")
        if not pieces:
            raise refuse("one takes no part in the loss")
        if any(len(piece if isinstance(piece, torch.Tensor) else piece[0]) != records for piece in pieces):
            raise refuse("one does not see a record per row")
        pairs = [piece for piece in pieces if isinstance(piece, tuple)]
        if len(pairs) == len(pieces):
            return Outer(torch.cat([dy for dy, _ in pairs], 1), torch.cat([x for _, x in pairs], 1))
        # a map that is used several times: a record's gradient is the sum over its uses
        return Whole(reduce(torch.add, (_products(*piece) if isinstance(piece, tuple) else piece for piece in pieces)))


def _forward(linear: torch.nn.Linear, backend: Fast, x: torch.Tensor) -> torch.Tensor:
    """Stands in for one linear map's ``forward``."""
    found: torch.Tensor = _RecordLinear.apply(x, linear.weight, backend)  # type: ignore[no-untyped-call]
    return found


class _RecordLinear(torch.autograd.Function):
    """y = x W^T whose backward pass hands (x, dy) on instead of summing over records.

    Only ``save_for_backward`` holds tensors, so that checkpointing finds and recomputes them.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, backend: Fast) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.backend, ctx.key = backend, id(weight)
        return torch.nn.functional.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        (dy,) = outputs
        x, weight = ctx.saved_tensors
        ctx.backend.keep(ctx.key, weight, x, dy)
        dx = (dy.to(weight.dtype) @ weight).to(x.dtype) if ctx.needs_input_grad[0] else None
        return dx, None, None


def _linear_maps(module: Any, parameters: Sequence[torch.nn.Parameter]) -> list[torch.nn.Linear]:
    """The modules that own ``parameters``, all plain linear maps without a bias. Raises UsageError for others."""
    owners = _owners(module, parameters)
    for name, owner in owners.items():
        if type(owner) is not torch.nn.Linear or owner.bias is not None or "forward" in vars(owner):
            raise UsageError(
                f"gradients=fast knows plain linear maps without bias only, and {name} ({type(owner).__name__}) is "
                "another: take gradients=opacus, or other federation.lora.targets."
            )
    owned = {id(p) for owner in owners.values() for p in owner.parameters(recurse=False)}
    if any(id(p) not in owned for p in parameters):
        raise UsageError("gradients=fast finds no map that owns some of the trainable values: take gradients=opacus.")
    return [*owners.values()]


def _owners(module: Any, parameters: Sequence[torch.nn.Parameter]) -> dict[str, Any]:
    """The modules that hold one of ``parameters`` themselves, by name."""
    wanted = {id(p) for p in parameters}
    return {n: m for n, m in module.named_modules() if any(id(p) in wanted for p in m.parameters(recurse=False))}


class Opacus(Backend):
    """Gradients from Opacus' hooks. Within ``attached``, a backward pass leaves them in the parameters'
    ``grad_sample``.

    The hooks are attached without wrapping the model and removed at the end. They only look at modules in training
    mode, which is switched on for those that hold the parameters (plain linear maps) and nothing else, so that dropout
    of the base model stays as it was. Gradient checkpointing without reentry is more than the hooks can do.
    """

    @contextmanager
    def _attached(self, module: Any) -> Iterator[None]:
        from opacus.grad_sample.grad_sample_module import GradSampleHooks

        modes = [(owner, owner.training) for owner in _owners(module, self._parameters).values()]
        try:
            hooks = GradSampleHooks(module, loss_reduction="sum", strict=True)
        except NotImplementedError as error:
            reason = str(error).strip().splitlines()[0]
            raise UsageError(f"gradients=opacus can't train this model: {reason}") from None
        try:
            for owner, _ in modes:
                owner.training = True
            with warnings.catch_warnings():
                # the first layer's input is the frozen base model's and needs no gradient
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                yield
        finally:
            hooks.cleanup()
            for owner, mode in modes:
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
