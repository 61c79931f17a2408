"""A server that sends each silo another model, so that a securely summed round holds one silo's update alone.

In every round one silo, in turns, gets the global adapter and all others an adapter of zeros. Under it neither lora_A
nor lora_B has a gradient, so that their silos' updates are exactly nothing and the sum, however well protected, is the
update of the one silo. No party but the server sees two of the models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from attacks.deviating import Likelihoods, amplified, as_outgoing, global_adapter, sent_by_silo
from attacks.mia import Config as Scores
from bench.attack.attack import Attack
from bench.attack.behaviour import Behaviour, Honest, Scene
from bench.core.parties import SERVER
from bench.defense.channel import Candidate, Knowledge, Message, Outgoing
from bench.defense.public import Public

if TYPE_CHECKING:
    from bench.view.openers.base import Hints
    from bench.view.view import Reading, View

api = 1
version = 2


class Config(Scores):
    """``amplify``: the silo that is alone gets the global adapter with lora_A times this and lora_B over it, which is
    the same model and learns faster; 1: as it is. The others: options of the likelihood scores."""

    amplify: float = Field(8.0, ge=1, le=1e4)


class SplitView(Behaviour):
    """Whoever takes part and has been alone least often gets the model; the others get zeros."""

    def __init__(self, amplify: float = 1.0) -> None:
        self.amplify = amplify

    def victims(self, victims: tuple[str, ...], public: Public) -> tuple[str, ...]:
        """Those whose turn comes."""
        return tuple(silo for silo in victims if silo in turns(public, victims))

    def act(
        self, party: str, stage: str, round: int, inbox: Sequence[Message], honest: Honest, scene: Scene
    ) -> Iterable[Outgoing]:
        return (
            self._broadcast(round, honest(inbox), scene) if (party, stage) == (SERVER, "broadcast") else honest(inbox)
        )

    def _broadcast(self, round: int, honest: Iterable[Outgoing], scene: Scene) -> Iterator[Outgoing]:
        alone = turns(scene.public, scene.victims)[round]
        for message in honest:
            values = global_adapter(message, scene.public)
            others = tuple(silo for silo in message.receivers if silo != alone and silo not in scene.coalition)
            kept = tuple(silo for silo in message.receivers if silo not in others)
            alive = amplified(values, scene.public.adapter, self.amplify) if alone is not None else values
            for receivers, adapter in ((kept, alive), (others, np.zeros_like(values))):
                if receivers:
                    yield as_outgoing(receivers, adapter)


def turns(public: Public, victims: Sequence[str]) -> tuple[str | None, ...]:
    """Which of ``victims`` is alone in each round: of those that take part, the first that was alone least often. None
    where none takes part."""
    count = dict.fromkeys(victims, 0)
    found: list[str | None] = []
    for names in public.participants:
        present = [silo for silo in victims if silo in names]
        chosen = min(present, key=lambda silo: count[silo]) if present else None
        if chosen is not None:
            count[chosen] += 1
        found.append(chosen)
    return tuple(found)


def nothing(knowledge: Knowledge, hints: Hints) -> Iterator[Candidate]:
    """A silo that was sent zeros contributes nothing. What follows from that, by arithmetic on sums, is the harness's
    to find, and whether it is true, to judge."""
    for (round, silo), adapter in sent_by_silo(knowledge.messages, knowledge.public).items():
        if not adapter.any():
            how = "was sent an adapter of zeros, which has no gradient"
            yield Candidate(round, frozenset({silo}), np.zeros(knowledge.public.layout.size), how)


class Isolated(Likelihoods):
    """The likelihood family on each silo's own adapter in the last round in which it was alone."""

    openers = (nothing,)
    name = "split-view"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.behaviour = SplitView(config.amplify)

    def reading(self, view: View, silo: str) -> Reading | None:
        """The last upload that holds anything; without one, what everybody reads."""
        own = [r for r in view.uploads(silo) if r.handle and np.any(r.values)]
        return own[-1] if own else next(reversed(view.adapters()), None)


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return Isolated(config)
