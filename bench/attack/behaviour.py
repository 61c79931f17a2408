"""The interface of a behaviour: how parties of a coalition deviate from the protocol. No torch here.

A behaviour belongs to an attack (``Attack.behaviour``), whose ``variant`` asks for a run of its own. It is handed what
its coalition has: the messages that reach its parties, what is public, the base model, the candidates without labels.
It holds no secret of anybody else, and what it sends travels and is recorded like every message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.core.tokens import Tokens
from bench.core.update import Array
from bench.defense.channel import Message, Outgoing
from bench.defense.public import Public
from bench.spec.config import Config
from bench.spec.run import PluginSpec

if TYPE_CHECKING:
    from bench.model.lora import LoraModel
    from bench.spec.run import LocalSpec

#: what the party would have sent on these messages
Honest = Callable[[Sequence[Message]], Iterable[Outgoing]]


@dataclass(frozen=True)
class Scene:
    """What a deviating coalition knows beside its messages. ``candidates``: of its victims, in the order in which the
    game will ask, ``silos[i]`` holding candidate i if anyone does; unlabelled. ``initial``: the first global adapter.
    """

    coalition: frozenset[str]
    victims: tuple[str, ...]
    public: Public
    model: LoraModel
    local: LocalSpec
    initial: Array
    candidates: Tokens
    silos: tuple[str, ...]
    population: Tokens
    rng: np.random.Generator


class Behaviour:
    """Every method's default is honest. A behaviour keeps nothing between steps: an interrupted run goes on with a new
    one."""

    def victims(self, victims: tuple[str, ...], public: Public) -> tuple[str, ...]:
        """Whose records it is after, of the silos that the adversary is asked about; the game asks about these only."""
        return victims

    def act(
        self, party: str, stage: str, round: int, inbox: Sequence[Message], honest: Honest, scene: Scene
    ) -> Iterable[Outgoing]:
        """What ``party`` sends in this step. ``honest(messages)`` lets it act by the protocol, on ``inbox`` or on
        messages that the coalition made up (``Forged``); what it returns may be sent on, changed, or dropped.

        Where a party's own code does not take what it was sent, the federation stops and the row is ``refused``.
        """
        return honest(inbox)

    def records(self, silo: str, own: Tokens, scene: Scene) -> Tokens:
        """What a silo of the coalition trains on, in place of its ``own`` records."""
        return own


def active(name: str, config: Config, adversary: str) -> PluginSpec:
    """The run in which ``adversary`` deviates as the attack ``name`` with these options says."""
    own = {"name": name, "config": config.model_dump(mode="json")}
    return PluginSpec(name="active", config={"attack": own, "adversary": adversary})


@dataclass(frozen=True)
class Forged:
    """A message with another sender, or other bytes, than it came with."""

    round: int
    stage: str
    sender: str
    receivers: tuple[str, ...]
    held: tuple[bytes, ...]

    @classmethod
    def of(cls, message: Message, *, sender: str | None = None, frames: Sequence[bytes] | None = None) -> Forged:
        """``message`` with what is given changed."""
        held = tuple(message.frames()) if frames is None else tuple(frames)
        return cls(message.round, message.stage, sender or message.sender, message.receivers, held)

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(len(frame) for frame in self.held)

    def frames(self) -> Iterator[bytes]:
        return iter(self.held)

    def frame(self, index: int) -> bytes:
        return self.held[index]
