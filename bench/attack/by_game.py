"""One class of attacks per game: what the game asks, and what it wants for an answer. No torch here."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bench.attack.attack import (
    Answers,
    Attack,
    Blank,
    Candidates,
    Filled,
    Guesses,
    Organisation,
    Reconstruction,
    Shares,
    Target,
    Tools,
)
from bench.core.errors import UsageError

if TYPE_CHECKING:
    from bench.view.view import View


class MembershipAttack(Attack):
    """Which candidates were trained on?"""

    game = "membership"

    @abstractmethod
    def infer(self, view: View, candidates: Candidates, tools: Tools) -> Guesses:
        """Scores for every candidate."""


class AuditAttack(MembershipAttack):
    """Which canaries were planted? The score called ``audit`` is the one that is counted."""

    game = "audit"


class ReconstructionAttack(Attack):
    """What did a silo train on in a round?"""

    game = "reconstruction"
    #: the rounds whose records it is asked for
    rounds: tuple[int, ...] = (0,)

    @abstractmethod
    def reconstruct(self, view: View, targets: Sequence[Target], tools: Tools) -> Sequence[Reconstruction]:
        """One answer per target that the view gives material for; a target left out counts as zero."""


class SourceAttack(Attack):
    """Which silo holds a record that was trained on?"""

    game = "source"

    @abstractmethod
    def attribute(self, view: View, records: Candidates, silos: Sequence[str], tools: Tools) -> Answers:
        """For every record, all of them trained on, a score for each of ``silos``. ``records.silos`` are empty."""


class ParticipationAttack(Attack):
    """Which of two organisations that may fill a place does?"""

    game = "participation"

    @abstractmethod
    def took_part(self, view: View, organisations: Sequence[Organisation], tools: Tools) -> Answers:
        """A score for each organisation."""


class PropertyAttack(Attack):
    """Which shares have the labels among a victim's records?"""

    game = "property"

    @abstractmethod
    def label_shares(self, view: View, victims: Sequence[str], tools: Tools) -> Shares:
        """For each victim the shares of ``tools.labels`` among the records that it trained on."""


class ExtractionAttack(Attack):
    """Which secret stands in a record that was trained on?"""

    game = "extraction"

    @abstractmethod
    def fill(self, view: View, blanks: Sequence[Blank], tools: Tools) -> Filled:
        """Which of its choices stands in each blank, and under which reading to measure them."""


#: the method that each game asks
QUESTION: Mapping[str, str] = {
    "membership": "infer",
    "audit": "infer",
    "reconstruction": "reconstruct",
    "source": "attribute",
    "participation": "took_part",
    "property": "label_shares",
    "extraction": "fill",
}


def question(attack: Attack) -> str:
    """The method of ``attack`` that its game asks. Raises UsageError where it names no game, or has no such method."""
    game, name = str(getattr(attack, "game", "")), type(attack).__name__
    if game not in QUESTION:
        raise UsageError(f"{name} plays the game '{game}'; the games are {', '.join(QUESTION)}.")
    if not callable(getattr(attack, QUESTION[game], None)):
        raise UsageError(
            f"{name} plays the {game} game and has no method '{QUESTION[game]}', which the game asks: define it."
        )
    return QUESTION[game]
