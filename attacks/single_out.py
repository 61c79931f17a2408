"""A server that puts one silo's upload in the place of everybody's: what is opened as the mean is that silo's model.

It needs no key: a ciphertext added to itself n times decrypts to n times the one update, and whoever opens the sum, or
holds what is released of it, divides by n. The others are sybils in effect. Where uploads are sealed to each other
(pairwise masks, shares of one key) copies don't open.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import Field

from attacks.deviating import Likelihoods
from attacks.mia import Config as Scores
from bench.attack.attack import Attack
from bench.attack.behaviour import Behaviour, Forged, Honest, Scene
from bench.core.parties import SERVER
from bench.defense.channel import Message, Outgoing
from bench.defense.public import Public

api = 1
version = 2


class Config(Scores):
    """``silo``: which of the victims is singled out, from 0. The others: options of the likelihood scores."""

    silo: int = Field(0, ge=0)


class Copies(Behaviour):
    """Every upload of a victim is replaced by the one silo's, in every round in which that silo takes part."""

    def __init__(self, silo: int) -> None:
        self.silo = silo

    def victims(self, victims: tuple[str, ...], public: Public) -> tuple[str, ...]:
        return (victims[self.silo % len(victims)],)

    def act(
        self, party: str, stage: str, round: int, inbox: Sequence[Message], honest: Honest, scene: Scene
    ) -> Iterable[Outgoing]:
        victim = scene.victims[0]
        own = [m for m in inbox if m.stage == "upload" and m.round == round and m.sender == victim]
        if party != SERVER or not own:
            return honest(inbox)
        return honest([_copied(message, own[0]) for message in inbox])


def _copied(message: Message, own: Message) -> Message:
    """``own`` in the name of whoever sent ``message``, where that is an upload of the same round."""
    if message.stage != "upload" or message.round != own.round:
        return message
    return Forged.of(own, sender=message.sender)


class SingleOut(Likelihoods):
    """The likelihood family on the one silo's candidates, under the model that was opened or released."""

    name = "single-out"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.behaviour = Copies(config.silo)


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return SingleOut(config)
