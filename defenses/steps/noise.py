"""Noise that the server adds to a sum before it is applied (McMahan et al. 2018)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import UsageError
from bench.defense.aggregator import ServerStep
from bench.defense.contexts import OpenContext
from bench.defense.flow import Flow, name_of
from bench.defense.parts import Mechanism, Promise
from defenses.transforms.budget import Budget, others_but_the_server


class SumNoise(ServerStep):
    """Adds N(0, (z clip)^2) to every value of the sum that travelled. It is then divided by the number of silos that
    the public schedule called for the round, whoever turned up (the fixed denominator of McMahan et al., section 3):
    one silo more or less moves the mean by at most clip over that number, and the number itself tells nothing.

    Every silo counts as one. The accountant measures the noise in the norm bound that each summand really stated. Steps
    that follow are post-processing.
    """

    counts_called = True
    promise = Promise(
        unit="silo",
        adjacency="zero-out",
        against=others_but_the_server,
        note="one silo's update replaced by zero in every round, against those who see no sum before the noise",
    )

    def __init__(self, clip: float, budget: Budget) -> None:
        self.clip, self.budget = clip, budget

    def follow(self, flow: Flow) -> Flow:
        if flow.opener != "server":
            raise UsageError(
                f"{name_of(self)} must be run by the server, and with this channel the {flow.opener} open the sums."
            )
        if "moving" in flow.said:
            raise UsageError(
                f"{name_of(self)} adds noise to a sum, before {flow.said['moving']} makes a move of it: name the "
                "defense that brings the noise first."
            )
        return flow.within_bound(self).unbound(self)

    def randomise(
        self, total: NDArray[np.floating], context: OpenContext
    ) -> tuple[NDArray[np.floating], Mechanism | None]:
        deviation = self.budget.multiplier(context.public) * self.clip
        sent = context.support()
        noise = context.secret.generator("sum noise", context.round)
        noisy = total.astype(np.float64)
        at = slice(None) if sent is None else sent
        noisy[at] += deviation * noise.standard_normal(len(noisy[at]))
        params = {"deviation": deviation, **self.budget.noted(context.public)}
        return noisy, Mechanism("opener-gaussian", params)
