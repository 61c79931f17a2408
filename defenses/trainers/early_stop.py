"""Early stopping on a part of the silo's own records, which it does not train on."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.tokens import Tokens
from bench.core.update import Array
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
        lowest, waited, best = math.inf, 0, None
        fresh = False  # steps were made that no loss was taken after
        for number, rows in enumerate(batches(len(rest), job.local, job.order), 1):
            yield tuple(int(rest[row]) for row in rows)
            fresh = number % self.every != 0
            if fresh:
                continue
            lowest, best, waited = _compare(job, probe, lowest, best, waited)
            if waited == self.patience:
                break
        if fresh:
            _, best, _ = _compare(job, probe, lowest, best, waited)
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


def _compare(
    job: TrainJob, probe: Tokens, lowest: float, best: Array | None, waited: int
) -> tuple[float, Array | None, int]:
    """The lowest loss so far, the adapter that had it, and how many looks ago that was."""
    loss = mean_loss(job.model, probe, job.local.batch)
    return (loss, job.model.get_adapter(), 0) if loss < lowest else (lowest, best, waited + 1)


@torch.no_grad()
def mean_loss(model: LoraModel, tokens: Tokens, batch: int) -> float:
    """The mean over records of their mean negative log-likelihood, in nats, ``batch`` records at a time."""
    losses = [
        model.losses(tokens.take(range(start, min(start + batch, len(tokens)))))
        for start in range(0, len(tokens), batch)
    ]
    return float(torch.cat(losses).double().mean())
