"""No channel at all: nothing is sent, nothing is summed, and no global model comes to be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.core.update import Update
from bench.defense.channel import Candidate, Channel, Desk, Endpoint, Knowledge, Message, Outgoing, Stage


class Silent(Channel):
    """No stage. The silos are the ones who would open a sum, so that the server sends them the start and no more."""

    opener = "silos"
    accepts = frozenset({"real", "grid"})
    bytes_per_value = 0.0

    def stages(self) -> tuple[Stage, ...]:
        return ()

    def endpoint(self, desk: Desk) -> Endpoint:
        return _Mute()

    def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
        return ()


class _Mute(Endpoint):
    def contribute(self, round: int, update: Update) -> None:
        """What a silo learnt stays where it is."""

    def step(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterable[Outgoing]:
        return ()
