"""Record-level DP-SGD (Abadi et al. 2016) on a LoRA adapter.

Batches, clipped sums and noise are made here rather than by Opacus' engine, which draws batches and noise from
PyTorch's generator (not cryptographic), takes the sampling rate from a data loader's length and starts a new ledger
with every engine, hence every round. The accountant is ``bench.privacy``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bench.defense.parts import Mechanism, Promise, TrainJob
from bench.spec.run import LocalSpec
from defenses.trainers.private import Batch, PrivateTrainer, Round, steps_of
from defenses.transforms.budget import others

#: an adaptive clip stays within this factor of the one that it starts from
_CLIP_RANGE = 1e4


@dataclass(frozen=True)
class Quantile:
    """Adaptive clipping (Andrew et al. 2021): after each step the clip moves towards the ``target`` quantile of the
    records' gradient norms, by the factor exp(-rate * (b - target)), where b is a noisy estimate of the share of
    records whose norm was at most the clip.

    ``share``: the part of the step's budget, counted as 1/z^2 of its noise multiplier z, that goes to that estimate.
    """

    target: float = 0.5
    rate: float = 0.2
    share: float = 0.1

    def split(self, z: float) -> tuple[float, float]:
        """(sigma of the gradients' sum in clips, standard deviation of the count's noise) that together are worth one
        Gaussian release of multiplier ``z``: z^-2 = sigma^-2 + (2 sigma_count)^-2 (theorem 1)."""
        return z / math.sqrt(1 - self.share), z / (2 * math.sqrt(self.share))

    def moved(self, clip: float, noisy_halves: float, expected: float, start: float) -> float:
        """The next clip. The count is divided by the public ``expected`` batch, as the true one is secret."""
        below = min(max(noisy_halves / expected + 0.5, 0.0), 1.0)
        moved = clip * math.exp(-self.rate * (below - self.target))
        return min(max(moved, start / _CLIP_RANGE), start * _CLIP_RANGE)


@dataclass(eq=False, kw_only=True)
class DPSGD(PrivateTrainer):
    """Every step: each record joins with probability ``rate``; its gradient over all trained values together is clipped
    to L2 norm ``clip``; the sum gets Gaussian noise of ``sigma * clip`` per value and is divided by the expected batch;
    an optimiser step follows. A step whose batch is empty adds noise and counts like any other.

    The noise for ``epsilon`` is calibrated to a silo that takes part in every round: the schedule of rounds is public,
    so sitting one out is no amplification, only budget left unspent. With ``quantile`` the clip adapts, starting from
    ``clip``, and ``sigma`` is the multiplier of gradients and count together.
    """

    promise = Promise(
        unit="record",
        adjacency="add-remove",
        against=others,
        note="one record of the silo, added or removed, against everyone but the silo itself",
    )

    name: str = "dp-sgd"
    quantile: Quantile | None = None

    def plan(self, rounds: int, local: LocalSpec, nominal_size: int) -> Sequence[Mechanism]:
        """One mechanism per round. Raises UsageError where no noise reaches the epsilon asked for."""
        rate = min(1.0, local.batch / nominal_size)
        steps = steps_of(local, nominal_size)
        sigma = self.multiplier(nominal_size, rate, rounds * steps)
        if self.quantile is None:
            return [self.mechanism("poisson-gaussian", rate=rate, sigma=sigma, steps=float(steps))] * rounds
        sigma, count = self.quantile.split(sigma)
        kind = "poisson-gaussian-counts"
        return [self.mechanism(kind, rate=rate, sigma=sigma, steps=float(steps), sigma_count=count)] * rounds

    def start(self, job: TrainJob, mechanism: Mechanism, records: int) -> Round:
        return PoissonRound(self, job, mechanism, records)

    def sample(self, records: int, rate: float, sampling: np.random.Generator) -> NDArray[np.int64]:
        """Poisson sampling: the indices of the records that join, each independently with probability ``rate``."""
        return np.flatnonzero(sampling.random(records) < rate)

    def randomise(self, batch: Batch, scale: float, noise: np.random.Generator) -> None:
        """Add independent Gaussian noise of standard deviation ``scale`` to every value of the batch's sum."""
        for summed in batch.total:
            drawn = torch.from_numpy(noise.standard_normal(tuple(summed.shape)) * scale)
            summed += drawn.to(device=summed.device, dtype=summed.dtype)


class PoissonRound(Round):
    """One round of DP-SGD at one silo; the adaptive clip goes on from the round before."""

    def __init__(self, trainer: DPSGD, job: TrainJob, mechanism: Mechanism, records: int) -> None:
        self._trainer, self._records, self._state = trainer, records, job.state
        self._rate, self._sigma = mechanism.params["rate"], mechanism.params["sigma"]
        self._sigma_count = mechanism.params.get("sigma_count", 0.0)
        self._sampling = job.secret.generator("dp-sgd sampling", job.round)
        self._noise = job.secret.generator("dp-sgd noise", job.round)
        self._counting = job.secret.generator("dp-sgd count", job.round)
        self.clip = trainer.clip if trainer.quantile is None else float(job.state.get("clip", trainer.clip))
        self.expected = self._rate * job.nominal_size

    def rows(self) -> NDArray[np.int64]:
        return self._trainer.sample(self._records, self._rate, self._sampling)

    def randomise(self, batch: Batch) -> None:
        self._trainer.randomise(batch, self._sigma * self.clip, self._noise)
        if self._trainer.quantile is not None:
            noisy = batch.halves + self._sigma_count * float(self._counting.standard_normal())
            self.clip = self._trainer.quantile.moved(self.clip, noisy, self.expected, self._trainer.clip)

    def finish(self) -> None:
        if self._trainer.quantile is not None:
            self._state["clip"] = np.array(self.clip, dtype=np.float64)
