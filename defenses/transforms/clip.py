"""Updates cut to an L2 norm: the most that one silo can move a sum by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.update import Update
from bench.defense.contexts import TransformContext
from bench.defense.flow import Flow
from bench.defense.parts import Transform

#: above the rounding of a norm in float64, and of values in float32
_MARGIN = 2.0**-22


class Clip(Transform):
    """Multiplies an update by min(1, bound / norm), as in McMahan et al. 2018 ("Learning Differentially Private
    Recurrent Language Models", flat clipping): all values that travel count together."""

    def __init__(self, bound: float) -> None:
        if not 0 < bound < 1e30:
            raise ValueError(f"a norm bound is a positive number, not {bound}")
        self.bound = bound

    def follow(self, flow: Flow) -> Flow:
        return flow.taken(self, "real").bounded()

    def apply(self, update: Update, context: TransformContext) -> Update:
        """Raises SiloBenchError for an update on a grid."""
        if update.grid is not None:
            raise SiloBenchError("an update that is on a grid can't be clipped any more: put the clip before it")
        return replace(update, values=clipped(update.values, self.bound), norm_bound=self.bound)


def clipped(values: NDArray[np.floating | np.int64], bound: float) -> NDArray[np.float32]:
    """``values`` in their direction, as float32 of L2 norm at most ``bound``, rounding included.

    Values that are not finite make the whole update zero: to stop instead would tell of the silo's records.
    """
    wide = values.astype(np.float64)
    norm = float(np.linalg.norm(wide))
    if not np.isfinite(norm):
        return np.zeros(len(values), dtype=np.float32)
    if norm <= bound * (1 - _MARGIN):
        return values.astype(np.float32)
    return (wide * (bound * (1 - _MARGIN) / norm)).astype(np.float32)


def stated_bound(update: Update) -> float:
    """The norm bound that noise is measured in. Raises SiloBenchError where there is none, or it does not hold."""
    if update.norm_bound is None:
        raise SiloBenchError("noise needs an update with a norm bound: put a clip before it, and nothing between")
    if update.norm > update.norm_bound * (1 + 1e-6):
        raise SiloBenchError(f"an update of norm {update.norm:g} states the bound {update.norm_bound:g}")
    return update.norm_bound
