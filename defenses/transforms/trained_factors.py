"""Sends only the LoRA matrices that a round trains; the others are what everybody already has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.core.update import Layout, Update
from bench.defense.contexts import RoundContext, TransformContext
from bench.defense.flow import Flow
from bench.defense.parts import Transform
from defenses.trainers.factors import Factors, is_trained


class TrainedFactors(Transform):
    """A public support: the coordinates of the matrices that ``factors`` names for the round."""

    def __init__(self, factors: Factors) -> None:
        self.factors = factors

    def follow(self, flow: Flow) -> Flow:
        return flow.taken(self, "real")

    def support(self, context: RoundContext) -> NDArray[np.int64] | None:
        return coordinates(context.public.layout, self.factors, context.round)

    def apply(self, update: Update, context: TransformContext) -> Update:
        """Drops whatever other parts did to the matrices that this round leaves as they are."""
        return update.restricted(coordinates(update.layout, self.factors, context.round))


def coordinates(layout: Layout, factors: Factors, round: int) -> NDArray[np.int64]:
    """The sorted indices of the trained matrices in a flat adapter."""
    return layout.coordinates(lambda name: is_trained(name, factors, round))
