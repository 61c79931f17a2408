"""Records travel instead of updates: each silo hands the server its own, in clear, before the first round."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from bench.core.errors import SiloBenchError
from bench.core.parties import SERVER, is_silo
from bench.core.streams import Prefixed, State
from bench.defense.channel import Candidate, Channel, Desk, Endpoint, Knowledge, Message, Outgoing, Stage
from bench.defense.public import Public


class Pooling(Channel):
    """One stage of set-up, ``records`` (silo -> server). The server trains, and broadcasts the model every round."""

    bytes_per_value = 0.0

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("records", "silos", setup=True),)

    def endpoint(self, desk: Desk) -> Endpoint:
        return _Silo(desk) if is_silo(desk.me) else _Server(desk.public, desk.state)

    def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
        """No update travels. Records that are sent in clear are found by the harness."""
        return ()


class _Silo(Endpoint):
    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def step(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterator[Outgoing]:
        if stage == "records":
            yield Outgoing((SERVER,), self.desk.records())


class _Server(Endpoint):
    """Keeps what arrives as it is (``handed/SILO/NUMBER``); whoever trains on it checks it."""

    def __init__(self, public: Public, state: State) -> None:
        self.public, self.state = public, state

    def step(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterable[Outgoing]:
        for message in inbox:
            if message.stage == "records":
                self._keep(message)
        return ()

    def _keep(self, message: Message) -> None:
        held = self._held(message.sender)
        if message.sender not in self.public.silos or len(held):
            raise SiloBenchError(f"{message.sender} hands over records, and is no silo or has done so before")
        if not message.lengths:
            raise SiloBenchError(f"{message.sender} hands over nothing")
        for number, frame in enumerate(message.frames()):
            held[str(number)] = np.frombuffer(frame, dtype=np.uint8)

    def handed(self) -> Mapping[str, Iterable[bytes]]:
        return {silo: self._frames(silo) for silo in sorted(self.public.silos) if len(self._held(silo))}

    def _held(self, silo: str) -> Prefixed:
        return Prefixed(self.state, f"handed/{silo}/")

    def _frames(self, silo: str) -> Iterator[bytes]:
        held = self._held(silo)
        return (np.asarray(held[str(number)], dtype=np.uint8).tobytes() for number in range(len(held)))
