"""What attacks have in common that reconstruct records from one silo's upload."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from bench.attack import Attack, Reconstruction, Target, Tools

if TYPE_CHECKING:
    from attacks.rowspace.observe import Observed
    from attacks.rowspace.session import Session
    from bench.spec import RunSpec
    from bench.view import View

Rounds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


class OnUploads(Attack):
    """One reconstruction per target whose silo's upload, and the adapter that it started from, were read."""

    game = "reconstruction"
    needs = frozenset({"upload", "partial"})
    knows = "population"
    #: groups of LoRA projections that are read
    groups = 2

    def work(self, spec: RunSpec) -> float:
        return 0.0

    @abstractmethod
    def solver(self, session: Session, view: View) -> Callable[[Target, Observed], Reconstruction]:
        """What answers the targets of ``view``, one after the other."""

    def reconstruct(self, view: View, targets: Sequence[Target], tools: Tools) -> Sequence[Reconstruction]:
        """Raises SiloBenchError for a model whose first LoRA projection reads more than the token."""
        from attacks.rowspace.observe import observe
        from attacks.rowspace.session import Session

        seen = [(target, observe(view, target.silo, target.round)) for target in targets]
        read = [(target, one) for target, one in seen if one is not None]
        if not read:
            return []
        solve = self.solver(Session(tools, self.groups), view)
        return [solve(target, one) for target, one in read]
