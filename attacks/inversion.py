"""Row-space reconstruction from a LoRA update: which tokens a batch held, and in which order.

The first layer reads tokens one by one, and the rows of an update's lora_B lie in the span of what it read. While a
batch has fewer distinct tokens than the rank, the test is exact, and deeper layers give the order; beyond, tokens are
ranked. It adapts to what the view shows was done to the update: entries that were dropped, a grid, several steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from bench.attack import Attack, Reconstruction, Target, Tools
from bench.config import Config as BaseConfig

if TYPE_CHECKING:
    from bench.view import View

api = 1


class Config(BaseConfig):
    """``groups``: how many groups of LoRA projections are read, the first for tokens and the others for their order.
    ``rounds``: the rounds that are attacked; in the first, B starts at zero and nothing is lost to rounding. ``pool``:
    tokens are ranked by a silo's uploads of all rounds where those are about the same records."""

    pool: bool = True
    groups: int = Field(3, ge=2, le=64)
    rounds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)


class RowSpace(Attack):
    """One reconstruction per target whose silo's upload, and the adapter that it started from, were read."""

    game = "reconstruction"
    needs = frozenset({"upload", "partial"})
    knows = "population"

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rounds = config.rounds

    def reconstruct(self, view: View, targets: Sequence[Target], tools: Tools) -> Sequence[Reconstruction]:
        """Raises SiloBenchError for a model whose first LoRA projection reads more than the token."""
        from attacks.rowspace.observe import observe, others
        from attacks.rowspace.session import Session

        found: list[Reconstruction] = []
        session: Session | None = None
        for target in targets:
            seen = observe(view, target.silo, target.round)
            if seen is None:
                continue
            session = session or Session(tools, self.config.groups)
            found.append(session.solve(target, seen, others(view, target) if self.config.pool else ()))
        return found


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return RowSpace(config)
