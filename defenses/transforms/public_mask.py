"""One public mask for all silos: the coordinates that a round sends, derived from what everybody knows.

FedShield-LLM (Mia and Amini 2025, arXiv 2506.05640) lets every silo prune the weights that are smallest in its own
copy. Masks that differ between silos save no byte under encryption, and each tells something of its silo's records.
Here the same schedule is kept and the weights are compared in the *global* adapter, which the round started from, so
that every party derives the same mask, nobody need send it, and it depends on no record but through what is public.

A public mask needs one thing more. What it leaves out is not sent, so it does not change, so it would be left out for
ever. A share of each tensor's places therefore goes round: see ``PublicMask``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.core.update import Update
from bench.defense.contexts import RoundContext, TransformContext
from bench.defense.flow import Flow
from bench.defense.parts import Transform
from defenses.transforms.prune import PruneConfig, Schedule, smallest


class PublicMaskConfig(PruneConfig):
    """The schedule of pruning (FedShield's), and how much of what is sent goes round.

    ``rotate``: the share of a tensor's sent coordinates that is taken from all its coordinates in turn; the rest are
    its largest.
    """

    rotate: float = Field(0.25, gt=0, le=1)

    def mask(self) -> PublicMask:
        return PublicMask(self.schedule(), self.rotate)


class PublicMask(Transform):
    """Keeps, of each tensor of n values, n - round(sparsity * n) of them, and at least one.

    A share ``rotate`` of those (rounded, at least one) is the next stretch of a public random order of the tensor's
    coordinates, which is walked round and round: with t of them in every round, each coordinate is sent at least once
    in any ceil(n / t) rounds running. The others are the largest of what remains, by absolute value in the global
    adapter; ties go to the later coordinate.

    Why the adapter itself, and not its change so far: it is the quantity that FedShield compares, everybody who takes
    part in a round holds it, and nothing of earlier rounds need be kept. lora_B starts at 0, so that there the two are
    the same; in lora_A, which starts at random values, the largest are mostly those that began so.

    The first round is dense: lora_B has no magnitudes yet. The adapter that a round starts from is public to its
    parties, so that a mask from it is post-processing and costs no epsilon.
    """

    def __init__(self, schedule: Schedule | None = None, rotate: float = 0.25) -> None:
        self.schedule = schedule or Schedule()
        self.rotate = rotate

    def follow(self, flow: Flow) -> Flow:
        return flow.taken(self, "real")

    def apply(self, update: Update, context: TransformContext) -> Update:
        """The update on the round's support; unchanged in a dense round."""
        support = self.support(context)
        return update if support is None else update.restricted(support)

    def support(self, context: RoundContext) -> NDArray[np.int64] | None:
        """The round's coordinates, sorted; None in a dense round. Of public things alone."""
        if not self._sparsity(context.round, context.rounds):
            return None
        layout = context.public.layout
        masks = [
            self._kept(values.reshape(-1), tensor, context)
            for tensor, (_, values) in enumerate(layout.tensors(context.global_adapter))
        ]
        return np.flatnonzero(np.concatenate(masks)).astype(np.int64)

    def _sparsity(self, number: int, rounds: int) -> float:
        return self.schedule.sparsity(number, rounds) if number > 0 else 0.0

    def _kept(self, values: NDArray[np.floating], tensor: int, context: RoundContext) -> NDArray[np.bool_]:
        """Which values of tensor number ``tensor`` are sent."""
        size = len(values)
        if size == 0:
            return np.zeros(0, dtype=np.bool_)
        counts = [self._counts(size, number, context.rounds) for number in range(context.round + 1)]
        start = sum(turning for _, turning in counts[:-1])
        kept, turning = counts[-1]
        order = context.public.generator("mask", tensor).permutation(size)
        magnitude = np.abs(values).astype(np.float64)
        magnitude[order[(start + np.arange(turning)) % size]] = np.inf
        return ~smallest(magnitude, (size - kept) / size)

    def _counts(self, size: int, number: int, rounds: int) -> tuple[int, int]:
        """Of a tensor of ``size`` values, in round ``number``: how many are sent, and how many of these go round."""
        sparsity = self._sparsity(number, rounds)
        if not sparsity:
            return size, 0
        kept = max(1, size - round(sparsity * size))
        return kept, min(kept, max(1, round(self.rotate * kept)))
