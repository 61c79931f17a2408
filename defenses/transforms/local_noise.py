"""Gaussian noise that a silo adds to its own update before anybody else sees it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bench.core.errors import SiloBenchError
from bench.core.update import Update
from bench.defense.contexts import RoundContext, TransformContext
from bench.defense.flow import Flow
from bench.defense.parts import Mechanism, Promise, Transform
from defenses.transforms.budget import Budget, others
from defenses.transforms.clip import stated_bound


class LocalGaussian(Transform):
    """Adds N(0, (z b)^2) to every value that travels: z the budget's multiplier, b the update's norm bound.

    What follows is post-processing, whoever does it. The noise is drawn from the silo's own secret and never sent.
    Values are floats: see docs/silo-level-dp.md on what that leaves unproved.
    """

    promise = Promise(
        unit="silo",
        adjacency="zero-out",
        against=others,
        note="one silo's update replaced by zero in every round, against everyone but the silo itself",
    )

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def follow(self, flow: Flow) -> Flow:
        return flow.taken(self, "real").within_bound(self).unbound(self)

    def apply(self, update: Update, context: TransformContext) -> Update:
        """Raises SiloBenchError for an update without a norm bound or on a grid."""
        if update.grid is not None:
            raise SiloBenchError("Gaussian noise is for real values: put it before what makes integers")
        deviation = self.budget.multiplier(context.public) * stated_bound(update)
        noise = context.secret.generator("local noise", context.round).standard_normal(len(update.values))
        values = (update.values.astype(np.float64) + deviation * noise).astype(np.float32)
        return replace(update, values=values, norm_bound=None)

    def mechanism(self, update: Update, context: RoundContext) -> Mechanism:
        public = context.public
        return Mechanism("gaussian", {"sigma": self.budget.multiplier(public), **self.budget.noted(public)})
