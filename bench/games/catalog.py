"""Every game in one place: where its sheets and their scoring are, and which figure speaks for it. No heavy imports.

A game draws or knows a secret, asks an attack about it, and turns answers into a *sheet* (truth and scores, or grades),
from which anybody recomputes its figures. ``bench.assess.plays.NAME`` asks the questions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Game:
    """``headline``: the figure that attacks of this game are compared by, under a name that no other game uses, so that
    a result's figures say which game it is of; ``label`` is its name for people.

    ``sheet``: module of this room and class of its sheets, whose attribute ``game`` is ``name``. ``scoring``: the
    module whose ``leakage(sheet)`` gives their figures. ``chance``: what the headline is by guessing, or None where
    only the baseline says.
    """

    name: str
    headline: str
    label: str
    sheet: str
    scoring: str
    chance: float | None = None

    @property
    def baseline(self) -> str:
        """The headline of a guesser that sees no view."""
        return f"{self.headline}:baseline"

    def sheet_class(self) -> Any:
        module, _, name = self.sheet.partition(":")
        return getattr(import_module(f"bench.games.{module}"), name)

    def scorer(self) -> Callable[..., Any]:
        """The function from one of its sheets to figures."""
        found: Callable[..., Any] = import_module(f"bench.games.{self.scoring}").leakage
        return found


def _of_trials(name: str, headline: str, label: str, chance: float | None = None) -> Game:
    return Game(name, headline, label, "trials:TrialSheet", "trials", chance)


_KNOWN = (
    Game("membership", "auc", "AUC", "membership:MembershipSheet", "membership", chance=0.5),
    Game("reconstruction", "token_recall", "recall", "reconstruction_sheet:ReconstructionSheet", "reconstruction"),
    _of_trials("source", "source_accuracy", "accuracy"),
    _of_trials("participation", "participation_accuracy", "accuracy", chance=0.5),
    _of_trials("extraction", "discoverable", "discoverable"),
    Game("audit", "epsilon", "epsilon at least", "audit_sheet:AuditSheet", "audit", chance=0.0),
    _of_trials("property", "similarity", "similarity"),
)
GAMES: Mapping[str, Game] = {game.name: game for game in _KNOWN}
