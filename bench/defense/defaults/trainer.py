"""Plain local training: AdamW or SGD on the mean of the records' own losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from bench.core.errors import SiloBenchError
from bench.defense.parts import Trainer, Training, TrainJob
from bench.spec.run import LocalSpec


def batches(n: int, local: LocalSpec, order: np.random.Generator) -> Iterator[tuple[int, ...]]:
    """Indices of every step: each epoch a fresh permutation cut into batches; ``local.steps`` steps where given."""
    if n == 0:
        raise SiloBenchError("a silo has no records to train on")
    done = 0
    epoch = 0
    while True:
        rows = order.permutation(n)
        for start in range(0, n, local.batch):
            if local.steps is not None and done == local.steps:
                return
            yield tuple(int(row) for row in rows[start : start + local.batch])
            done += 1
        epoch += 1
        if local.steps is None and epoch == local.epochs:
            return


def make_optimizer(parameters: list[torch.nn.Parameter], local: LocalSpec, lr: float) -> torch.optim.Optimizer:
    """A fresh optimiser: PyTorch's AdamW (betas .9, .999) or SGD without momentum."""
    if local.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=lr, weight_decay=local.weight_decay)
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=local.weight_decay)


class GradientTrainer(Trainer):
    """Steps over the silo's records in epochs; the loss of a step is the mean over its records of each record's mean
    negative log-likelihood, so that no record's length changes another's weight."""

    def steps(self, job: TrainJob) -> Iterator[tuple[int, ...]]:
        """The records of every step. The next is asked for when a step is done, so that this may look at the model,
        end the round, or put the adapter back at its end."""
        return batches(len(job.tokens), job.local, job.order)

    def penalty(self, parameters: list[torch.nn.Parameter]) -> Callable[[], torch.Tensor] | None:
        """A term that every step's objective gets beside the loss; asked for once, before the first step."""
        return None

    def train(self, job: TrainJob) -> Training:
        """Trains the adapter's parameters that require a gradient."""
        parameters = [p for p in job.model.parameters() if p.requires_grad]
        penalty = self.penalty(parameters)
        optimizer = make_optimizer(parameters, job.local, job.lr)
        losses: list[torch.Tensor] = []
        used: list[tuple[int, ...]] = []
        tokens = 0
        for rows in self.steps(job):
            batch = job.tokens.take(rows)
            optimizer.zero_grad(set_to_none=True)
            loss = job.model.losses(batch).mean()
            torch.autograd.backward(loss if penalty is None else loss + penalty())
            if job.local.max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters, job.local.max_grad_norm)
            optimizer.step()
            losses.append(loss.detach())
            used.append(rows)
            tokens += int(batch.lengths.sum())
        values = tuple(float(loss) for loss in losses)
        if not np.isfinite(values).all():
            raise SiloBenchError(
                f"training diverged in round {job.round} (a loss is not finite): lower federation.local.lr"
            )
        return Training(len(used), tokens, values, tuple(used))
