"""Quantisation of a summand to integers on a public grid, with stochastic rounding.

A value x becomes floor(x / step + u), u uniform in [0, 1): its expectation is x / step for every x within the clip, so
that rounding errors of many silos and rounds cancel in the mean (Gupta et al. 2015, "Deep Learning with Limited
Numerical Precision"). The randomness is the silo's own secret.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.core.errors import SiloBenchError, UsageError
from bench.core.update import Grid, Update
from bench.defense.contexts import TransformContext
from bench.defense.flow import Flow
from bench.defense.parts import Transform
from bench.spec.config import Config


class QuantiseConfig(Config):
    """``bits`` of an integer, its sign included. ``clip``: the largest magnitude that is kept, for an update of weight
    1; ``auto`` takes the round's public reach (learning rate times steps for AdamW, which moves a value by about its
    learning rate a step)."""

    bits: int = Field(8, ge=2, le=24)
    clip: Annotated[float, Field(gt=0, lt=1e30)] | Literal["auto"] = Field("auto")

    def quantiser(self) -> Quantise:
        return Quantise(self.bits, None if self.clip == "auto" else self.clip)


class Quantise(Transform):
    """Integers of ``bits`` in [-levels, levels], levels = 2**(bits-1) - 1, each worth ``clip / levels`` times the
    largest public weight; larger values are cut to the clip. ``clip`` None: the context's ``reach``."""

    def __init__(self, bits: int = 8, clip: float | None = None) -> None:
        if clip is not None and not 0 < clip < 1e30:
            raise ValueError(f"a clip is a positive number, not {clip}")
        self.bits, self.clip = bits, clip

    def follow(self, flow: Flow) -> Flow:
        return flow.taken(self, "real").unbound(self).on_grid()

    def apply(self, update: Update, context: TransformContext) -> Update:
        """Raises UsageError where no clip is given and none follows from public settings."""
        if update.grid is not None:
            raise SiloBenchError("an update that is on a grid already can't be quantised again")
        grid = self.grid(context)
        uniform = context.secret.generator("rounding", context.round)
        return replace(update, values=rounded(update.values, grid, uniform), grid=grid, norm_bound=None)

    def grid(self, context: TransformContext) -> Grid:
        """The round's public grid."""
        clip = context.reach if self.clip is None else self.clip
        if clip is None:
            raise UsageError(
                "the quantiser's clip is 'auto', and without AdamW or a gradient norm limit nothing public bounds an "
                "update: set the clip."
            )
        return Grid(self.bits, clip * max(context.public.weights.values()))


def rounded(values: NDArray[Any], grid: Grid, uniform: np.random.Generator) -> NDArray[np.int64]:
    """``values`` on ``grid``: cut to its clip and rounded stochastically, in int64."""
    if not np.isfinite(values).all():
        raise SiloBenchError("an update holds values that are not finite, which no grid has")
    units = np.clip(values.astype(np.float64) / grid.step, -grid.levels, grid.levels)
    whole = np.floor(units + uniform.random(len(units), dtype=np.float32))
    return np.clip(whole, -grid.levels, grid.levels).astype(np.int64)
