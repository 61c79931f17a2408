"""Records travel instead of updates: each silo hands the server its own, in clear, before the first round."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from bench.core.errors import SiloBenchError
from bench.core.parties import SERVER, is_silo
from bench.core.streams import SecretStreams, State
from bench.defense.channel import Candidate, Channel, Endpoint, Knowledge, Message, Outgoing, Stage
from bench.defense.public import Public

_PREFIX = "handed/"


class Pooling(Channel):
    """One stage of set-up, ``records`` (silo -> server). The server trains, and broadcasts the model every round."""

    bytes_per_value = 0.0

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("records", "silos", setup=True),)

    def endpoint(self, me: str, public: Public, state: State, secret: SecretStreams) -> Endpoint:
        return _Silo() if is_silo(me) else _Server(public, state)

    def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
        """No update travels. Records that are sent in clear are found by the harness."""
        return ()


class _Silo(Endpoint):
    def step(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterator[Outgoing]:
        if stage == "records":
            yield Outgoing((SERVER,), self.records())


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
        if message.sender not in self.public.silos or f"{_PREFIX}{message.sender}/0" in self.state:
            raise SiloBenchError(f"{message.sender} hands over records, and is no silo or has done so before")
        if not message.lengths:
            raise SiloBenchError(f"{message.sender} hands over nothing")
        for number, frame in enumerate(message.frames()):
            self.state[f"{_PREFIX}{message.sender}/{number}"] = np.frombuffer(frame, dtype=np.uint8)

    def handed(self) -> Mapping[str, Iterable[bytes]]:
        held = {key.removeprefix(_PREFIX).rpartition("/")[0] for key in self.state if key.startswith(_PREFIX)}
        return {silo: self._frames(silo) for silo in sorted(held)}

    def _frames(self, silo: str) -> Iterator[bytes]:
        number = 0
        while (key := f"{_PREFIX}{silo}/{number}") in self.state:
            yield np.asarray(self.state[key], dtype=np.uint8).tobytes()
            number += 1
