"""Lossy compression of an update at the silo, with error feedback.

What a round's compression leaves out is kept and added to the next round's update (Seide et al. 2014, "1-Bit Stochastic
Gradient Descent", section 2; Stich et al. 2018, "Sparsified SGD with Memory", Algorithm 1; Karimireddy et al. 2019,
"Error Feedback Fixes SignSGD", Algorithm 2; over rounds of several local steps: Basu et al. 2019, Algorithm 1):

    p = u + e        e: what is owed from earlier rounds, 0 at the start
    s = C(p)         what is sent
    e = p - s        what is owed now

so that, over any number of rounds, the sum of what was sent plus what is owed is the sum of the updates. A silo that is
away keeps what it owes. An update that was made and did not arrive (the silo left before its upload) is lost with what
was to be sent, as it is without compression.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bench.core.errors import SiloBenchError
from bench.core.update import Array, Update
from bench.defense.contexts import TransformContext
from bench.defense.flow import Flow
from bench.defense.parts import Transform


class Compressor(Transform):
    """Sends ``compress(update)``; with ``feedback``, of the update and all that is owed (state ``residual``, float32
    over the whole adapter). It works on the coordinates that travel, dense or on a public support.

    A norm bound survives without feedback, since ``compress`` never makes an update longer; with feedback it does not:
    what is owed comes on top.
    """

    def __init__(self, feedback: bool) -> None:
        self.feedback = feedback

    def follow(self, flow: Flow) -> Flow:
        flow = flow.taken(self, "real")
        return flow.unbound(self).saying("owing", self) if self.feedback else flow

    @abstractmethod
    def compress(self, values: Array, bounds: Sequence[int]) -> Array:
        """What is sent of ``values``, a new array of its shape and of no larger L2 norm.

        ``bounds``: where each LoRA tensor begins in ``values``, and ``len(values)`` last.
        """

    def apply(self, update: Update, context: TransformContext) -> Update:
        """Raises SiloBenchError for an update on a grid, whose integers have no magnitudes of their own to compare."""
        if update.grid is not None:
            raise SiloBenchError(f"{type(self).__name__} compresses real values: put it before what makes integers")
        bounds = tensor_bounds(update)
        values = np.asarray(update.values, dtype=np.float32)
        if not self.feedback:
            return replace(update, values=self.compress(values, bounds))
        owed = np.array(context.state.get("residual", np.zeros(update.layout.size)), dtype=np.float32)
        at = slice(None) if update.support is None else update.support
        wanted = values + owed[at]
        sent = self.compress(wanted, bounds)
        owed[at] = wanted - sent
        context.state["residual"] = owed
        return replace(update, values=sent, norm_bound=None)


def tensor_bounds(update: Update) -> list[int]:
    """Where each tensor begins in ``update.values``, and their number last."""
    offsets = update.layout.offsets
    return list(offsets) if update.support is None else np.searchsorted(update.support, offsets).tolist()
