"""Signs instead of values: one magnitude per tensor that the silo chooses, or one public step for all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError, UsageError
from bench.core.update import Array, Grid, Update
from bench.defense.contexts import TransformContext
from bench.defense.flow import Flow
from bench.defense.parts import Transform
from defenses.transforms.compress import Compressor


class ScaledSign(Compressor):
    """Each tensor x of n values becomes sign(x) * |x|_1 / n (Karimireddy et al. 2019, Algorithm 1 and equation 3, with
    the scale per tensor). A value of exactly 0 stays 0. Real values: the magnitude is the silo's own.

    |C(x)|_2 <= |x|_1 / sqrt(n) <= |x|_2; the magnitude is rounded down to float32, so that this holds of what is sent.
    """

    def compress(self, values: Array, bounds: Sequence[int]) -> Array:
        sent = np.sign(values)
        for start, stop in pairwise(bounds):
            if stop > start:
                sent[start:stop] *= _down(float(np.abs(values[start:stop], dtype=np.float64).mean()))
        return sent


class Votes(Transform):
    """Signs alone, as integers -1, 0, 1, each worth ``share`` times the round's public reach (signSGD, Bernstein et al.
    2018, with a public step). Their sum is how a vote went, and moves the adapter by its mean. n signs are never longer
    than sqrt(n) steps, whatever the records."""

    def __init__(self, share: float) -> None:
        self.share = share

    def follow(self, flow: Flow) -> Flow:
        return flow.taken(self, "real").bounded().on_grid()

    def apply(self, update: Update, context: TransformContext) -> Update:
        """Raises UsageError where nothing public says how far a round moves a value."""
        if update.grid is not None:
            raise SiloBenchError("an update that is on a grid already can't be made signs")
        if context.reach is None:
            raise UsageError(
                "the votes of 'sign' need a public step, and without AdamW or a gradient norm limit nothing public "
                "says how far a round moves a value: set federation.local.max_grad_norm, or take sign.mode=feedback."
            )
        signs: NDArray[np.int64] = np.sign(update.values).astype(np.int64)
        clip = self.share * context.reach * max(context.public.weights.values())
        return replace(update, values=signs, grid=Grid(2, clip), norm_bound=clip * math.sqrt(len(signs)))


def _down(value: float) -> np.float32:
    """The largest float32 that is not above ``value``, which is 0 or more."""
    near = np.float32(value)
    return np.nextafter(near, np.float32(0)) if float(near) > value else near
