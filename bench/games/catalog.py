"""Every game in one place: where its sheet and its play are, and which figure speaks for it. No heavy imports.

A game draws or knows a secret, asks an attack about it, and turns answers into a *sheet* (truth and scores, or grades),
from which anybody recomputes its figures. ``bench.plays.NAME`` asks the questions, ``bench.games`` holds the sheets.
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

    ``play``: the module whose ``play(table, name, attack, adversary, seats)`` asks the questions. ``sheet``: module and
    class of its sheets. ``chance``: what the headline is by guessing, or None where only the baseline says.
    """

    name: str
    headline: str
    label: str
    play: str
    sheet: str
    chance: float | None = None

    @property
    def baseline(self) -> str:
        """The headline of a guesser that sees no view."""
        return f"{self.headline}:baseline"

    def player(self) -> Callable[..., Any]:
        """The function that plays it."""
        found: Callable[..., Any] = import_module(self.play).play
        return found

    def sheet_class(self) -> Any:
        module, _, name = self.sheet.partition(":")
        return getattr(import_module(module), name)


_TRIALS = "bench.games.trials:TrialSheet"
_KNOWN = (
    Game("membership", "auc", "AUC", "bench.plays.membership", "bench.games.membership:MembershipSheet", chance=0.5),
    Game(
        "reconstruction",
        "token_recall",
        "recall",
        "bench.plays.reconstruction",
        "bench.games.reconstruction:ReconstructionSheet",
    ),
    Game("source", "source_accuracy", "accuracy", "bench.plays.source", _TRIALS),
    Game("participation", "participation_accuracy", "accuracy", "bench.plays.participation", _TRIALS, chance=0.5),
    Game("extraction", "discoverable", "discoverable", "bench.plays.extraction", _TRIALS),
    Game("audit", "epsilon", "epsilon at least", "bench.plays.audit", "bench.games.audit:AuditSheet", chance=0.0),
    Game("property", "similarity", "similarity", "bench.plays.property", _TRIALS),
)
GAMES: Mapping[str, Game] = {game.name: game for game in _KNOWN}
