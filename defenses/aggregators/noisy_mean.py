"""The mean of clipped updates with noise that the server adds to their sum (McMahan et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.defense.contexts import OpenContext
from bench.defense.defaults.mean import Mean
from bench.defense.parts import Mechanism, Promise
from bench.defense.public import Public
from defenses.transforms.budget import Budget, others_but_the_server


class NoisyMean(Mean):
    """Adds N(0, (z clip)^2) to every value of the sum that travelled, then divides by the number of silos that the
    public schedule called for the round, whoever turned up (the fixed denominator of McMahan et al., section 3): one
    silo more or less moves the mean by at most clip over that number, and the number itself tells nothing.

    Every silo counts as one. The accountant measures the noise in the norm bound that each summand really stated.
    """

    needs_norm = True
    openers = frozenset({"server"})
    promise = Promise(
        unit="silo",
        adjacency="zero-out",
        against=others_but_the_server,
        note="one silo's update replaced by zero in every round, against those who see no sum before the noise",
    )

    def __init__(self, clip: float, budget: Budget) -> None:
        super().__init__(weighted=False)
        self.clip, self.budget = clip, budget

    def weights(self, public: Public, round: int, silos: Sequence[str]) -> list[int]:
        return [public.weights[silo] for silo in public.participants[round]]

    def randomise(
        self, total: NDArray[np.floating], context: OpenContext
    ) -> tuple[NDArray[np.floating], Mechanism | None]:
        deviation = self.budget.multiplier(context.public) * self.clip
        sent = context.support()
        noise = context.secret.generator("sum noise", context.round)
        noisy = total.astype(np.float64)
        if sent is None:
            noisy += deviation * noise.standard_normal(len(noisy))
        else:
            noisy[sent] += deviation * noise.standard_normal(len(sent))
        params = {"deviation": deviation, **self.budget.noted(context.public)}
        return noisy, Mechanism("opener-gaussian", params)
