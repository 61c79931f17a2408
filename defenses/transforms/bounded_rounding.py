"""Rounding of a clipped update to integers whose norm is certain to stay within a stated bound.

Stochastic rounding of x (in grid steps, d values, |x|_2 <= c) gives an unbiased integer vector y. With probability
1 - beta or more

    |y|_2^2 <= min( (c + sqrt(d))^2,  c^2 + d/4 + sqrt(2 ln(1/beta)) (c + sqrt(d)/2) ) = B^2

(Kairouz, Liu and Steinke 2021, "The Distributed Discrete Gaussian Mechanism for Federated Learning with Secure
Aggregation", the bound of conditional randomised rounding; the first is the triangle inequality and always holds). It
is drawn again until it does, so that the sensitivity of the sum is B steps whatever the update, at the price of a bias
below beta. How often a silo draws depends on its update, and so does the time that it takes.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.update import Grid, Update
from bench.defense.contexts import TransformContext
from bench.defense.flow import Flow
from bench.defense.parts import Transform
from defenses.transforms.clip import stated_bound

BETA = 1e-3
#: after so many draws (chance 1e-48) values are cut towards 0, which lengthens nothing
_TRIES = 16


class BoundedRounding(Transform):
    """Puts an update on a grid on which its norm bound is ``scale * sqrt(values)`` steps."""

    def __init__(self, scale: float = 4.0) -> None:
        if not 0 < scale < 1e9:
            raise ValueError(f"a scale is a positive number, not {scale}")
        self.scale = scale

    def follow(self, flow: Flow) -> Flow:
        return flow.taken(self, "real").within_bound(self).on_grid()

    def apply(self, update: Update, context: TransformContext) -> Update:
        """Raises SiloBenchError for an update without a norm bound, or on a grid."""
        if update.grid is not None:
            raise SiloBenchError("an update that is on a grid already can't be rounded again")
        count, clip = len(update.values), stated_bound(update)
        steps = self.scale * math.sqrt(max(count, 1))
        grid = grid_for(math.ceil(steps) + 1, clip / steps)
        bound = norm_after(steps, count)
        units = update.values.astype(np.float64) / (clip / steps)
        values = rounded(units, bound, context.secret.generator("rounding", context.round))
        return replace(update, values=values, grid=grid, norm_bound=bound * grid.step)


def norm_after(steps: float, count: int, beta: float = BETA) -> float:
    """B above, in grid steps, for c = ``steps`` and d = ``count``."""
    root = math.sqrt(count)
    likely = steps**2 + count / 4 + math.sqrt(2 * math.log(1 / beta)) * (steps + root / 2)
    return min(steps + root, math.sqrt(likely))


def rounded(units: NDArray[np.floating], bound: float, uniform: np.random.Generator) -> NDArray[np.int64]:
    """``units`` rounded up or down at random without bias, in int64, given that the norm is at most ``bound``."""
    wide = units.astype(np.float64)
    for _ in range(_TRIES):
        whole = np.floor(wide + uniform.random(len(wide))).astype(np.int64)
        if int(np.dot(whole, whole)) <= bound * bound:
            return whole
    return np.trunc(wide).astype(np.int64)


def grid_for(largest: int, step: float) -> Grid:
    """The grid of fewest bits on which ``largest`` lies, each unit worth ``step``."""
    bits = largest.bit_length() + 1
    return Grid(bits, step * (2 ** (bits - 1) - 1))
