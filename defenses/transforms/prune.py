"""Magnitude pruning of an update, tensor by tensor, on a schedule over the run.

FedShield-LLM (Mia and Amini 2025, arXiv 2506.05640) zeroes, before a silo uploads, the LoRA *weights* of smallest
absolute value in each tensor (unstructured, L1). Pruning what a privacy mechanism has already randomised is
post-processing and costs no epsilon.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from bench.core.errors import SiloBenchError, UsageError
from bench.core.update import Update
from bench.defense.contexts import TransformContext
from bench.defense.flow import Flow, name_of
from bench.defense.parts import Transform
from bench.spec.config import Config, later


class PruneConfig(Config):
    """The schedule in fractions of the run, and the share of each tensor that is zeroed at its two ends.

    Before ``start`` nothing is pruned; from there the share grows linearly from ``sparsity_start`` to
    ``sparsity_end``, which it reaches at ``end`` and keeps. The defaults are the published run's (200 rounds, pruned
    from round 40 to 200, from .2 to .5). ``count``: where in the run a round stands. ``paper`` counts rounds from 1, so
    that the last one reaches ``end`` (of 3 rounds: .25, .375, .5); ``code`` from 0, as FedShield's published code does
    (0, .25, .375).
    """

    start: float = Field(0.2, ge=0, le=1)
    end: float = Field(1.0, ge=0, le=1)
    sparsity_start: float = Field(0.2, ge=0, le=1)
    sparsity_end: float = Field(0.5, ge=0, le=1)
    count: Literal["paper", "code"] = later("paper")

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> PruneConfig:
        if self.end < self.start:
            raise ValueError(f"end ({self.end}) must not come before start ({self.start}); both are shares of the run")
        return self

    def schedule(self) -> Schedule:
        return Schedule(self.start, self.end, self.sparsity_start, self.sparsity_end, self.count)


@dataclass(frozen=True)
class Schedule:
    """Which share of each tensor is zeroed in which round; the fields are those of ``PruneConfig``."""

    start: float = 0.2
    end: float = 1.0
    sparsity_start: float = 0.2
    sparsity_end: float = 0.5
    count: Literal["paper", "code"] = "paper"

    def sparsity(self, round: int, rounds: int) -> float:
        """The share for ``round`` (from 0) of ``rounds``, in [0, 1].

        The paper's rounds stand at their ends, (round + 1) / rounds; the code's at round / rounds.
        """
        at = (round + (self.count == "paper")) / rounds
        if at < self.start:
            return 0.0
        done = 1.0 if at >= self.end else (at - self.start) / (self.end - self.start)
        return self.sparsity_start + done * (self.sparsity_end - self.sparsity_start)


def smallest(values: NDArray[np.floating], share: float) -> NDArray[np.bool_]:
    """Where the ``round(share * size)`` values of least magnitude are: a mask of ``values``' shape.

    Among equal magnitudes the first in C order go first, so that the mask is a function of the values alone. NaN
    counts as larger than any number. ``round`` is Python's (half to even), as in PyTorch's ``l1_unstructured``.
    """
    magnitude, count = np.abs(values).ravel(), round(share * values.size)
    if not 0 < count < magnitude.size:
        return np.full(values.shape, count > 0)
    # several times faster than sorting all; NaN stands last, and is equal to nothing
    threshold = np.partition(magnitude, count - 1)[count - 1]
    equal = np.isnan(magnitude) if np.isnan(threshold) else magnitude == threshold
    mask: NDArray[np.bool_] = ~equal if np.isnan(threshold) else magnitude < threshold
    ties = np.flatnonzero(equal)
    mask[ties[: count - int(mask.sum())]] = True
    return mask.reshape(values.shape)


class MagnitudePruning(Transform):
    """``of="weights"`` zeroes the silo's trained LoRA weights (global adapter + update), as FedShield does: the update
    becomes minus the global adapter there and is left alone elsewhere. ``of="delta"`` zeroes the update itself."""

    def __init__(self, schedule: Schedule | None = None, of: Literal["weights", "delta"] = "weights") -> None:
        self.schedule = schedule or Schedule()
        self.of = of

    def follow(self, flow: Flow) -> Flow:
        flow = flow.taken(self, "real")
        if "sparse" in flow.said:
            raise UsageError(
                f"{name_of(self)} compares all values of a tensor, and {flow.said['sparse']} leaves coordinates "
                "unsent: put the pruning before it."
            )
        return flow if self.of == "delta" else flow.unbound(self)

    def apply(self, update: Update, context: TransformContext) -> Update:
        """Raises SiloBenchError for an update on a grid or on a support, which has no tensors to prune."""
        if update.grid is not None or update.support is not None:
            raise SiloBenchError(
                "magnitude pruning needs a dense update of real values; put it before what makes others"
            )
        share = self.schedule.sparsity(context.round, context.rounds)
        values = update.values.astype(np.float32)
        bases = update.layout.tensors(context.global_adapter)
        for (_, tensor), (_, base) in zip(update.layout.tensors(values), bases, strict=True):
            if self.of == "weights":
                mask = smallest(base + tensor, share)
                # not (pruned weights) - base: that would round the survivors' update
                np.copyto(tensor, -base, where=mask)
            else:
                tensor[smallest(tensor, share)] = 0
        bound = update.norm_bound if self.of == "delta" or share == 0 else None
        return replace(update, values=values, norm_bound=bound)
