"""Row-space reconstruction from a LoRA update: which tokens a batch held, and in which order.

The first layer reads tokens one by one, and the rows of an update's lora_B lie in the span of what it read. While a
batch has fewer distinct tokens than the rank, the test is exact, and deeper layers give the order; beyond, tokens are
ranked. It adapts to what the view shows was done to the update: entries that were dropped, a grid, several steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from attacks.rowspace.uploads import OnUploads, Rounds, Solver
from bench.attack.attack import Attack, Target
from bench.spec.config import Config as BaseConfig

if TYPE_CHECKING:
    from attacks.rowspace.observe import Observed
    from attacks.rowspace.session import Session
    from bench.view.view import View

api = 1
version = 1


class Config(BaseConfig):
    """``groups``: how many groups of LoRA projections are read, the first for tokens and the others for their order.
    ``rounds``: the rounds that are attacked; in the first, B starts at zero and nothing is lost to rounding. ``pool``:
    tokens are ranked by a silo's uploads of all rounds where those are about the same records."""

    pool: bool = True
    groups: int = Field(3, ge=2, le=64)
    rounds: Rounds = (0,)


class RowSpace(OnUploads):
    """Reads tokens off the span of an update's rows."""

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.groups = config.groups

    def solver(self, session: Session, view: View) -> Solver:
        return session.solve

    def beside(self, view: View, target: Target) -> Sequence[Observed]:
        from attacks.rowspace.observe import others

        return others(view, target) if self.config.pool else ()


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return RowSpace(config)
