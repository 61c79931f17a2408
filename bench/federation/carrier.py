"""How messages reach the parties. A channel cannot tell one carrier from another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from bench.defense.channel import Message, Outgoing


class Party(Protocol):
    """A silo, the server or a dealer, for the length of one step."""

    def step(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterable[Outgoing]: ...


class Carrier(ABC):
    """Delivers an inbox to a party that is to act, and brings back what it sends."""

    @abstractmethod
    def deliver(self, party: str, stage: str, round: int, inbox: Sequence[Message]) -> Iterable[Outgoing]: ...


class InProcess(Carrier):
    """Parties in this process, each built anew from its stored state for every step, so that none stays in memory."""

    def __init__(self, build: Callable[[str], Party]) -> None:
        self._build = build

    def deliver(self, party: str, stage: str, round: int, inbox: Sequence[Message]) -> Iterable[Outgoing]:
        return self._build(party).step(stage, round, inbox)
