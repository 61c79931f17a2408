"""DP-FTRL with noise that is correlated over steps by a banded matrix: privacy without any assumption on sampling.

DP-FTRL (Kairouz et al. 2021) with the matrix mechanism of Choquette-Choo et al. 2023 ("(Amplified) Banded Matrix
Factorization"), unamplified: records are passed through in a fixed order, and noise that was added in one step is
partly taken back in the next ones, so that sums of gradients over many steps are more exact than with independent
noise. The matrix is the banded square root (``bench.privacy.banded``); the whole run is one Gaussian release.

The noise of step t is n_t = z_t - c_1 n_{t-1} - ... - c_{b-1} n_{t-b+1}, with z_t fresh and c the matrix's first column
(rows of C^-1 Z, since C is Toeplitz). The last b - 1 of them are kept between rounds in the trainer's state, as secret
as a silo's records: who has them can take the noise away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.defense.parts import Mechanism, Promise, TrainJob
from bench.privacy.banded import coefficients, sensitivity
from bench.spec.run import LocalSpec
from defenses.trainers.private import Batch, PrivateTrainer, Round, steps_of
from defenses.transforms.budget import others


@dataclass(eq=False, kw_only=True)
class DPFTRL(PrivateTrainer):
    """Record i is in step t where t = i modulo the period, steps counted over the silo's rounds: participations of a
    record are exactly a period apart, however many records there are. The period is the nominal size over the batch,
    rounded up. A step's sum gets the correlated noise and is divided by the nominal size over the period.

    ``sigma`` is the noise multiplier of the whole run's one release. ``bands``: at most the period, which None stands
    for; 1 is independent noise.
    """

    promise = Promise(
        unit="record",
        adjacency="zero-out",
        against=others,
        note="one record of the silo, made blank in its place, against everyone but the silo itself",
    )

    name: str = "dp-ftrl"
    bands: int | None = None

    def plan(self, rounds: int, local: LocalSpec, nominal_size: int) -> Sequence[Mechanism]:
        """One entry per round, all of one release. ``sigma`` there: of the noise before correlation, in clips."""
        period = math.ceil(nominal_size / local.batch)
        bands = min(self.bands or period, period)
        steps = steps_of(local, nominal_size)
        sigma = self.multiplier(nominal_size, 1.0, 1) * sensitivity(bands, period, rounds * steps)
        sizes = {"bands": float(bands), "separation": float(period), "steps": float(steps)}
        return [self.mechanism("banded-gaussian", sigma=sigma, **sizes)] * rounds

    def start(self, job: TrainJob, mechanism: Mechanism, records: int) -> Round:
        return BandedRound(self, job, mechanism, records)

    def order(self, records: int, period: int, step: int) -> NDArray[np.int64]:
        """The records of a step, counted over the whole run."""
        return np.arange(step % period, records, period, dtype=np.int64)

    def correlate(self, fresh: NDArray[np.float32], history: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """The noise of a step from independent noise and the noise of the steps before, newest first."""
        factors = coefficients(len(history) + 1)
        for factor, earlier in zip(factors[1:], history, strict=True):
            fresh = fresh - np.float32(factor) * earlier
        return fresh


class BandedRound(Round):
    """One round of DP-FTRL at one silo. State: ``step`` (of the run), ``noise`` (steps, values), newest first."""

    def __init__(self, trainer: DPFTRL, job: TrainJob, mechanism: Mechanism, records: int) -> None:
        self._trainer, self._records, self._state = trainer, records, job.state
        self._bands, self._period = int(mechanism.params["bands"]), int(mechanism.params["separation"])
        self._scale = mechanism.params["sigma"] * trainer.clip
        self._noise = job.secret.generator("dp-ftrl noise", job.round)
        self._step = int(job.state["step"]) if "step" in job.state else 0
        self._history = [np.array(row) for row in job.state["noise"]] if "noise" in job.state else []
        if len(self._history) != min(self._step, self._bands - 1):
            raise SiloBenchError(f"the noise of {len(self._history)} earlier steps is stored, not of those needed")
        self.clip = trainer.clip
        self.expected = job.nominal_size / self._period

    def rows(self) -> NDArray[np.int64]:
        rows = self._trainer.order(self._records, self._period, self._step)
        self._step += 1
        return rows

    def randomise(self, batch: Batch) -> None:
        size = sum(summed.numel() for summed in batch.total)
        fresh = (self._noise.standard_normal(size) * self._scale).astype(np.float32)
        # kept as it was added, rounded: later steps take back exactly that
        added = self._trainer.correlate(fresh, self._history)
        ends = np.cumsum([summed.numel() for summed in batch.total])
        for summed, part in zip(batch.total, np.split(added, ends[:-1]), strict=True):
            summed += torch.from_numpy(part).view_as(summed).to(summed.device)
        self._history = [added, *self._history][: self._bands - 1]

    def finish(self) -> None:
        self._state["step"] = np.array(self._step)
        if self._history:
            self._state["noise"] = np.stack(self._history)
