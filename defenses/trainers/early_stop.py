"""Early stopping on a part of the silo's own records, which it does not train on."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.tokens import Tokens
from bench.defense.defaults.trainer import GradientTrainer, batches
from bench.defense.parts import TrainJob
from bench.model.lora import LoraModel


class EarlyStopTrainer(GradientTrainer):
    """Plain training on all records but a ``share`` (rounded up), whose mean loss is taken every ``every`` steps and at
    the end. When ``patience`` of these in a row are no lower than the lowest of the round, the round ends. Its adapter
    is that of the lowest of these losses. None is taken before the first step, so that a silo always has an update.

    Which records are held back is drawn once, from a stream beside the public order, and stays (state ``held``):
    records that an earlier round trained on would say that all is well.
    """

    def __init__(self, share: float = 0.2, every: int = 2, patience: int = 2) -> None:
        self.share, self.every, self.patience = share, every, patience

    def steps(self, job: TrainJob) -> Iterator[tuple[int, ...]]:
        held = self.held(job)
        rest = np.setdiff1d(np.arange(len(job.tokens)), held)
        probe = job.tokens.take(held)
        planned = list(batches(len(rest), job.local, job.order))
        lowest, waited, best = math.inf, 0, None
        for number, rows in enumerate(planned, 1):
            yield tuple(int(rest[row]) for row in rows)
            if number % self.every and number < len(planned):
                continue
            loss = mean_loss(job.model, probe, job.local.batch)
            waited += 1
            if loss < lowest:
                lowest, waited, best = loss, 0, job.model.get_adapter()
            if waited == self.patience:
                break
        if best is not None:
            job.model.set_adapter(best)

    def held(self, job: TrainJob) -> NDArray[np.int64]:
        """Indices of the records held back. Raises SiloBenchError where that leaves none to train on."""
        count = len(job.tokens)
        if count < 2:
            raise SiloBenchError(f"a silo of {count} record(s) can't hold one back and train on another")
        if "held" not in job.state:
            order = job.order.spawn(1)[0].permutation(count)
            job.state["held"] = np.sort(order[: min(count - 1, math.ceil(self.share * count))]).astype(np.int64)
        return np.asarray(job.state["held"], dtype=np.int64)


@torch.no_grad()
def mean_loss(model: LoraModel, tokens: Tokens, batch: int) -> float:
    """The mean over records of their mean negative log-likelihood, in nats, ``batch`` records at a time."""
    losses = [
        model.losses(tokens.take(range(start, min(start + batch, len(tokens)))))
        for start in range(0, len(tokens), batch)
    ]
    return float(torch.cat(losses).double().mean())
