"""A silo's share of integer noise, to add up with the others' in a sum of integers."""

from __future__ import annotations

from dataclasses import replace

from bench.core.errors import SiloBenchError, UsageError
from bench.core.update import Update
from bench.defense.contexts import RoundContext, TransformContext
from bench.defense.flow import Flow, name_of
from bench.defense.parts import Mechanism, Promise, Transform
from defenses.transforms.bounded_rounding import grid_for
from defenses.transforms.budget import Budget, others
from defenses.transforms.clip import stated_bound
from defenses.transforms.skellam import PARTS, multiple, table


class SkellamNoise(Transform):
    """Adds Skellam noise of variance v / (n - missing) to every integer, v the budget's for the sum, n the silos that
    the public schedule calls for the round. Shares of n - missing silos and more amount to the budget.

    Nothing is cut: samples are bounded, and the grid is widened so that every value lies on it. Nothing may follow but
    a sum: noise that is taken off one silo's values does not protect them in the sum.
    """

    promise = Promise(
        unit="silo",
        adjacency="zero-out",
        against=others,
        note="one silo's update replaced by zero in every round; counted is the noise that the adversary meets in what "
        "it reads",
    )

    def __init__(self, budget: Budget, missing: int = 0) -> None:
        self.budget, self.missing = budget, missing

    def follow(self, flow: Flow) -> Flow:
        flow = flow.taken(self, "grid").within_bound(self).unbound(self)
        return flow.closing(f"{name_of(self)} adds a share of noise that protects in the sum only")

    def apply(self, update: Update, context: TransformContext) -> Update:
        """Raises SiloBenchError for an update without a norm bound or not on a grid, UsageError where ``missing``
        leaves nobody or the noise is too wide."""
        drawn = table(self._parts(update, context))
        assert update.grid is not None
        noise = drawn.draw(len(update.values), context.secret.generator("noise share", context.round))
        grid = grid_for(update.grid.levels + drawn.limit, update.grid.step)
        return replace(update, values=update.values + noise, grid=grid, norm_bound=None)

    def mechanism(self, update: Update, context: RoundContext) -> Mechanism:
        params = {
            "variance": self._parts(update, context) / PARTS,
            "sensitivity": self._sensitivity(update),
            "dimension": float(len(update.values)),
        }
        return Mechanism("skellam-share", {**params, **self.budget.noted(context.public)})

    def _parts(self, update: Update, context: RoundContext) -> int:
        """The variance of a share, in 1 / PARTS."""
        called = len(context.public.participants[context.round])
        if called <= self.missing:
            raise UsageError(
                f"{self.budget.name}.missing is {self.missing}, and only {called} silos take part in a round: at least "
                "one share must be counted on."
            )
        total = self.budget.variance(context.public, self._sensitivity(update), max(len(update.values), 1))
        return multiple(total / (called - self.missing))

    def _sensitivity(self, update: Update) -> float:
        """In grid steps."""
        if update.grid is None:
            raise SiloBenchError("integer noise is for integers on a grid: put a rounding before it")
        return stated_bound(update) / update.grid.step
