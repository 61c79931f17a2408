"""Record-level DP-SGD (Abadi et al. 2016) on a LoRA adapter.

Per-record gradients come from Opacus' hooks. The batches, the clipped sum and the noise are made here, because Opacus'
engine draws batches and noise from PyTorch's generator, which is not cryptographic, takes the sampling rate from a data
loader's length and starts a new ledger with every engine, hence every round. The accountant is ``bench.privacy``.

All public quantities (rate, expected batch, steps) come from the nominal number of records, never from the true one.
Noise is a floating-point Gaussian, as in every such library: the proof is for real numbers (Mironov 2012).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from bench.defaults.trainer import make_optimizer
from bench.defense import Mechanism, Promise, Trainer, Training, TrainJob
from bench.errors import SiloBenchError, UsageError
from bench.privacy import calibrate, default_delta
from bench.spec import LocalSpec
from bench.tokens import Tokens

if TYPE_CHECKING:
    from bench.model import LoraModel


def _not_the_victim_itself(coalition: frozenset[str], victim: str) -> bool:
    return victim not in coalition


class DPSGD(Trainer):
    """Every step: each record joins with probability ``rate``; its gradient over all trainable values together is
    clipped to L2 norm ``clip``; the sum gets Gaussian noise of ``sigma * clip`` per value and is divided by the
    expected batch; an optimiser step follows. A step whose batch is empty adds noise and counts like any other.

    Either ``epsilon`` (with ``delta``, None for 1 / (10 n)) or ``sigma`` is given. The noise for ``epsilon`` is
    calibrated to a silo that takes part in every round: the schedule of rounds is public, so sitting one out is no
    amplification, only budget left unspent. ``microbatch`` bounds how many records are in memory at once.
    """

    promise = Promise(
        unit="record",
        adjacency="add-remove",
        against=_not_the_victim_itself,
        note="one record of the silo, added or removed, against everyone but the silo itself",
    )

    def __init__(
        self,
        epsilon: float | None = 8.0,
        sigma: float | None = None,
        clip: float = 1.0,
        delta: float | None = None,
        microbatch: int = 8,
    ) -> None:
        if (epsilon is None) == (sigma is None):
            raise ValueError("give exactly one of epsilon and sigma")
        self.epsilon, self.sigma, self.clip, self.delta, self.microbatch = epsilon, sigma, clip, delta, microbatch

    def plan(self, rounds: int, local: LocalSpec, nominal_size: int) -> Sequence[Mechanism]:
        """One mechanism per round. Raises UsageError where no noise reaches the epsilon asked for."""
        rate = min(1.0, local.batch / nominal_size)
        steps = local.steps or local.epochs * math.ceil(nominal_size / local.batch)
        if self.delta is not None and self.delta > 1 / (10 * nominal_size):
            raise UsageError(
                f"dp-sgd.delta is {self.delta:g}, and a silo of {nominal_size} records needs at most 1/(10 n) = "
                f"{1 / (10 * nominal_size):.2g}: lower it or leave it out."
            )
        sigma = self.sigma
        if sigma is None:
            assert self.epsilon is not None
            sigma = calibrate(self.epsilon, self.delta or default_delta(nominal_size), rate, rounds * steps)
        params = {"rate": rate, "sigma": sigma, "steps": float(steps)}
        if self.delta is not None:
            params["delta"] = self.delta
        return [Mechanism("poisson-gaussian", params)] * rounds

    def train(self, job: TrainJob) -> Training:
        mechanism = self.plan(job.rounds, job.local, job.nominal_size)[job.round]
        rate, steps = mechanism.params["rate"], int(mechanism.params["steps"])
        scale = mechanism.params["sigma"] * self.clip
        expected = rate * job.nominal_size
        sampling = job.secret.generator("dp-sgd sampling", job.round)
        noise = job.secret.generator("dp-sgd noise", job.round)
        parameters = job.model.parameters()
        optimizer = make_optimizer(parameters, job.local, job.lr)
        used: list[tuple[int, ...]] = []
        losses: list[float] = []
        tokens = 0
        with record_gradients(job.model):
            for _ in range(steps):
                rows = self.sample(len(job.tokens), rate, sampling)
                total, batch_losses = self.clipped_sum(job.model, job.tokens, rows)
                self.add_noise(total, scale, noise)
                for parameter, summed in zip(parameters, total, strict=True):
                    parameter.grad = (summed / expected).to(parameter.dtype)
                if job.local.max_grad_norm is not None:  # of what is already private
                    torch.nn.utils.clip_grad_norm_(parameters, job.local.max_grad_norm)
                optimizer.step()
                used.append(tuple(int(row) for row in rows))
                tokens += int(job.tokens.lengths[rows].sum())
                losses.extend(_finite_mean(batch_losses))
        optimizer.zero_grad(set_to_none=True)
        return Training(steps, tokens, tuple(losses), tuple(used), (mechanism,))

    def sample(self, records: int, rate: float, sampling: np.random.Generator) -> NDArray[np.int64]:
        """Poisson sampling: the indices of the records that join, each independently with probability ``rate``."""
        return np.flatnonzero(sampling.random(records) < rate)

    def clipped_sum(
        self, model: LoraModel, tokens: Tokens, rows: NDArray[np.int64]
    ) -> tuple[list[torch.Tensor], list[float]]:
        """The sum over ``rows`` of the records' clipped gradients, a float32 tensor per parameter, and their losses.

        Removing a record changes the sum by at most ``clip`` in L2 norm, whatever the records: a gradient that is not
        finite counts as zero. To be called within ``record_gradients``.
        """
        parameters = model.parameters()
        total = [torch.zeros_like(p, dtype=torch.float32) for p in parameters]
        losses: list[float] = []
        for start in range(0, len(rows), self.microbatch):
            records = tokens.take(rows[start : start + self.microbatch])
            own = model.losses(records)
            own.sum().backward()  # type: ignore[no-untyped-call]
            gradients = _collect(parameters, len(records))
            factors = self.factors(gradients).float()
            finite = factors > 0
            for summed, gradient in zip(total, gradients, strict=True):
                if not finite.all():  # 0 times what is not finite would not be 0
                    gradient = gradient[finite]
                summed += torch.tensordot(factors[finite], gradient.float(), dims=1)
            losses.extend(own.detach().float().tolist())
        return total, losses

    def factors(self, gradients: Sequence[torch.Tensor]) -> torch.Tensor:
        """(records,) float64: what each record's gradient is multiplied by, min(1, clip / norm), 0 if not finite."""
        by_part = [torch.linalg.vector_norm(g.flatten(1), dim=1, dtype=torch.float64) for g in gradients]
        norms = torch.linalg.vector_norm(torch.stack(by_part), dim=0)
        factors = (self.clip / norms.clamp(min=self.clip)).clamp(max=1.0)
        return torch.where(torch.isfinite(norms), factors, torch.zeros_like(factors))

    def add_noise(self, total: Sequence[torch.Tensor], scale: float, noise: np.random.Generator) -> None:
        """Add independent Gaussian noise of standard deviation ``scale`` to every value, in place."""
        for summed in total:
            drawn = torch.from_numpy(noise.standard_normal(tuple(summed.shape)) * scale)
            summed += drawn.to(device=summed.device, dtype=summed.dtype)


@contextmanager
def record_gradients(model: LoraModel) -> Iterator[None]:
    """Within it, a backward pass leaves per-record gradients in the trainable parameters' ``grad_sample``.

    Opacus' hooks are attached without wrapping the model and removed at the end. They only look at modules in training
    mode, which is switched on for those that hold trainable parameters (plain linear maps) and nothing else, so that
    dropout of the base model stays as it was.
    """
    from opacus.grad_sample.grad_sample_module import GradSampleHooks

    module = model.module
    owners = [m for m in module.modules() if any(p.requires_grad for p in m.parameters(recurse=False))]
    modes = [owner.training for owner in owners]
    hooks = GradSampleHooks(module, loss_reduction="sum", strict=True)
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


def _collect(parameters: Sequence[torch.nn.Parameter], records: int) -> list[torch.Tensor]:
    """Take the per-record gradients, each (records, *shape), off the parameters. Raises SiloBenchError."""
    gradients = []
    for parameter in parameters:
        gradient = getattr(parameter, "grad_sample", None)
        if not isinstance(gradient, torch.Tensor) or gradient.shape != (records, *parameter.shape):
            raise SiloBenchError(
                "this model gives no per-record gradients for some trainable values: dp-sgd can't train it"
            )
        parameter.grad_sample = None  # type: ignore[attr-defined]
        parameter.grad = None
        gradients.append(gradient)
    return gradients


def _finite_mean(losses: Sequence[float]) -> list[float]:
    """The mean of the finite losses, or nothing where a batch has none. Stopping instead would tell of a record."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    return [sum(finite) / len(finite)] if finite else []
