"""What the differentially private trainers share: clipped sums of per-record gradients, and the loop of a round.

All public quantities (batches, expected sizes, steps) come from the nominal number of records, never from the true one.
Noise is a floating-point Gaussian, as in every such library: the proof is for real numbers (Mironov 2012).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from bench.core.errors import UsageError
from bench.core.tokens import Tokens
from bench.defense.defaults.trainer import make_optimizer
from bench.defense.parts import Mechanism, Trainer, Training, TrainJob
from bench.model.lora import LoraModel
from bench.privacy import calibrate, default_delta
from bench.spec.run import LocalSpec
from defenses.trainers.factors import Factors, training_only
from defenses.trainers.per_record import Backend, Fast, Opacus

Gradients = Literal["fast", "opacus"]
_BACKENDS: dict[Gradients, type[Backend]] = {"fast": Fast, "opacus": Opacus}


@dataclass(frozen=True)
class Batch:
    """What the records of one step gave. ``total``: the sum of their clipped gradients, a float32 tensor per parameter.
    ``halves``: the sum over records of 1/2 where the norm was at most the clip, -1/2 where it was not."""

    total: list[torch.Tensor]
    losses: list[float] = field(default_factory=list)
    halves: float = 0.0


class Round(ABC):
    """The draws of one round at one silo. ``clip``: the L2 norm that gradients of the next step are cut to.
    ``expected``: the public number of records that a step's sum is divided by."""

    clip: float
    expected: float

    @abstractmethod
    def rows(self) -> NDArray[np.int64]:
        """The records of the next step; may be empty."""

    @abstractmethod
    def randomise(self, batch: Batch) -> None:
        """Add this step's noise to ``batch.total``, in place; records or none."""

    @abstractmethod
    def finish(self) -> None:
        """Store what the next round needs."""


@dataclass(eq=False)
class PrivateTrainer(Trainer):
    """Each step: gradients of the loss of every record of the batch, over all trained values together clipped to an L2
    norm, summed, randomised and divided by a public number; then an optimiser step, which is post-processing.

    Either ``epsilon`` (with ``delta``, None for 1 / (10 n)) or ``sigma``, a noise multiplier, is given. ``microbatch``
    bounds how many records are in memory at once. ``factors``: which LoRA matrices are trained. ``name``: of the
    defense, for messages.
    """

    epsilon: float | None = 8.0
    sigma: float | None = None
    clip: float = 1.0
    delta: float | None = None
    microbatch: int = 8
    _: KW_ONLY
    gradients: Gradients = "fast"
    factors: Factors = "both"
    name: str = ""

    def __post_init__(self) -> None:
        if (self.epsilon is None) == (self.sigma is None):
            raise ValueError("give exactly one of epsilon and sigma")

    def multiplier(self, nominal_size: int, rate: float, releases: int) -> float:
        """``sigma``, or what ``epsilon`` takes. Raises UsageError for a delta of one's own above 1 / (10 n), and where
        no noise reaches the epsilon."""
        if self.delta is not None and self.delta > 1 / (10 * nominal_size):
            raise UsageError(
                f"{self.name}.delta is {self.delta:g}, and a silo of {nominal_size} records needs at most 1/(10 n) = "
                f"{1 / (10 * nominal_size):.2g}: lower it or leave it out."
            )
        if self.sigma is not None:
            return self.sigma
        assert self.epsilon is not None
        return calibrate(self.epsilon, self.delta or default_delta(nominal_size), rate, releases)

    def mechanism(self, kind: str, **params: float) -> Mechanism:
        """With ``delta``, where one was given."""
        return Mechanism(kind, params if self.delta is None else {**params, "delta": self.delta})

    @abstractmethod
    def start(self, job: TrainJob, mechanism: Mechanism, records: int) -> Round:
        """The draws of ``job``'s round, which is one ``mechanism``, over a silo's ``records``."""

    def train(self, job: TrainJob) -> Training:
        mechanism = self.plan(job.rounds, job.local, job.nominal_size)[job.round]
        steps = int(mechanism.params["steps"])
        used: list[tuple[int, ...]] = []
        losses: list[float] = []
        tokens = 0
        with self.prepared(job.model, job.round) as (parameters, backend):
            optimizer = make_optimizer(parameters, job.local, job.lr)
            round = self.start(job, mechanism, len(job.tokens))
            for _ in range(steps):
                rows = round.rows()
                batch = self.clipped_sum(backend, job.model, job.tokens, rows, round.clip)
                round.randomise(batch)
                for parameter, summed in zip(parameters, batch.total, strict=True):
                    parameter.grad = (summed / round.expected).to(parameter.dtype)
                if job.local.max_grad_norm is not None:  # of what is already private
                    torch.nn.utils.clip_grad_norm_(parameters, job.local.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                used.append(tuple(int(row) for row in rows))
                tokens += int(job.tokens.lengths[rows].sum())
                # instead of stopping where a loss is not finite, which would tell of a record
                finite = [loss for loss in batch.losses if math.isfinite(loss)]
                losses += [sum(finite) / len(finite)] if finite else []
            round.finish()
        return Training(steps, tokens, tuple(losses), tuple(used), (mechanism,))

    @contextmanager
    def prepared(self, model: LoraModel, round: int = 0) -> Iterator[tuple[list[torch.nn.Parameter], Backend]]:
        """Within it the model trains this round's factors alone, and ``clipped_sum`` can be called."""
        backend = _BACKENDS[self.gradients]()
        with training_only(model, self.factors, round) as parameters, backend.attached(model.module, parameters):
            yield parameters, backend

    def clipped_sum(
        self, backend: Backend, model: LoraModel, tokens: Tokens, rows: NDArray[np.int64], clip: float
    ) -> Batch:
        """The sum over ``rows`` of the records' gradients, each cut to L2 norm ``clip``.

        Removing a record changes the sum by at most ``clip`` in L2 norm, and the sum of halves by one half, whatever
        the records: a gradient that is not finite counts as zero. To be called within ``prepared``.
        """
        parameters = [p for p in model.parameters() if p.requires_grad]
        total = [torch.zeros_like(p, dtype=torch.float32) for p in parameters]
        losses: list[float] = []
        halves = 0.0
        for start in range(0, len(rows), self.microbatch):
            records = tokens.take(rows[start : start + self.microbatch])
            own = model.losses(records)
            own.sum().backward()  # type: ignore[no-untyped-call]
            gradients = backend.collect(len(records))
            norms = torch.linalg.vector_norm(torch.stack([g.norms() for g in gradients]), dim=0)
            factors = self.cut(norms, clip)
            for summed, gradient in zip(total, gradients, strict=True):
                summed += gradient.weighted(factors)
            halves += float((norms <= clip).double().sub(0.5).sum())
            losses.extend(own.detach().float().tolist())
        return Batch(total, losses, halves)

    def cut(self, norms: torch.Tensor, clip: float) -> torch.Tensor:
        """(records,) float64: what each record's gradient is multiplied by, min(1, clip / norm), 0 if not finite."""
        factors = (clip / norms.clamp(min=clip)).clamp(max=1.0)
        return torch.where(torch.isfinite(norms), factors, torch.zeros_like(factors))


def steps_of(local: LocalSpec, nominal_size: int) -> int:
    """Steps of one round, from public settings."""
    return local.steps or local.epochs * math.ceil(nominal_size / local.batch)
