"""What attacks have in common that reconstruct records from one silo's upload."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from bench.attack.attack import Reconstruction, Target, Tools
from bench.attack.by_game import ReconstructionAttack

if TYPE_CHECKING:
    from attacks.rowspace.observe import Observed
    from attacks.rowspace.session import Session
    from bench.spec.run import RunSpec
    from bench.view.view import View

Solver = Callable[["Target", "Observed", "Sequence[Observed]"], Reconstruction]
Rounds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


class OnUploads(ReconstructionAttack):
    """One reconstruction per target whose silo's upload, and the adapter that it started from, were read."""

    needs = frozenset({"upload", "partial"})
    knows = "population"
    #: groups of LoRA projections that are read
    groups = 2

    def __init__(self, config: Any) -> None:
        self.config = config
        self.rounds = config.rounds

    def work(self, spec: RunSpec) -> float:
        return 0.0

    @abstractmethod
    def solver(self, session: Session, view: View) -> Solver:
        """What answers the targets of ``view``, one after the other, from what is observed of each, other rounds'
        uploads (``beside``), and what is public. It is asked once for all adversaries that observe the same."""

    def beside(self, view: View, target: Target) -> Sequence[Observed]:
        """What is read for a target besides its own round's upload."""
        return ()

    def reconstruct(self, view: View, targets: Sequence[Target], tools: Tools) -> Sequence[Reconstruction]:
        """Raises SiloBenchError for a model whose first LoRA projection reads more than the token."""
        from attacks.rowspace.observe import observe
        from attacks.rowspace.session import Session

        seen = [(target, observe(view, target.silo, target.round)) for target in targets]
        read = [(target, one) for target, one in seen if one is not None]
        if not read:
            return []
        solver = cache(lambda: self.solver(Session(tools, self.groups), view))
        return [self._once(solver, tools, target, [one, *self.beside(view, target)]) for target, one in read]

    def _once(
        self, solver: Callable[[], Solver], tools: Tools, target: Target, seen: Sequence[Observed]
    ) -> Reconstruction:
        key = (type(self).__module__, self.config.model_dump_json(), target, *(one.digest() for one in seen))
        return tools.once(key, lambda: solver()(target, seen[0], seen[1:]))
