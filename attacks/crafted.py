"""A server that starts the federation from an adapter of its own making, under which silos overfit their records.

The adapter is the same model as the honest one: with lora_B at zero, lora_A may be of any size. At a larger one every
step on lora_B moves the model further, and silos that train as agreed learn their records by heart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from pydantic import Field

from attacks.deviating import Likelihoods, amplified, as_outgoing, global_adapter
from attacks.mia import Config as Scores
from bench.attack.attack import Attack
from bench.attack.behaviour import Behaviour, Honest, Scene
from bench.core.parties import SERVER
from bench.core.update import Array
from bench.defense.channel import Message, Outgoing

api = 1
version = 2


class Config(Scores):
    """``amplify``: lora_A is so many times as large as the protocol draws it. The others: options of the likelihood
    scores."""

    amplify: float = Field(32.0, gt=1, le=1e4)


class Crafted(Behaviour):
    """Every broadcast is what it would be, had the federation started from the crafted adapter."""

    def __init__(self, amplify: float) -> None:
        self.amplify = amplify

    def act(
        self, party: str, stage: str, round: int, inbox: Sequence[Message], honest: Honest, scene: Scene
    ) -> Iterable[Outgoing]:
        return self._broadcast(honest(inbox), scene) if (party, stage) == (SERVER, "broadcast") else honest(inbox)

    def _broadcast(self, honest: Iterable[Outgoing], scene: Scene) -> Iterator[Outgoing]:
        offset = amplified(scene.initial, scene.public.adapter, self.amplify) - scene.initial
        for message in honest:
            yield as_outgoing(message.receivers, moved(global_adapter(message, scene.public), scene.initial, offset))


def moved(values: Array, initial: Array, offset: Array) -> Array:
    """The global adapter ``values`` of a federation that started at ``initial + offset``, from that of a server that
    adds the silos' changes to ``initial``; where silos send whole weights, ``values`` has the offset in it already."""
    size = float(offset.astype(np.float64) @ offset)
    held = float((values.astype(np.float64) - initial) @ offset) / size if size else 0.0
    return values if held > 0.5 else values + offset


class Overfit(Likelihoods):
    """The likelihood family on what the view opens, as a passive attack would read it."""

    name = "crafted"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.behaviour = Crafted(config.amplify)


def build(config: Config) -> Attack:
    """The attack, from its options."""
    return Overfit(config)
