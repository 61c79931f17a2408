"""A federation that runs secure aggregation's endpoints alone: drop-outs, and messages altered on their way.

Every step is a fresh endpoint built from the party's stored state; secrets under ``keys/`` can't be overwritten.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.parties import DEALER, SERVER, is_silo
from bench.core.streams import SecretStreams
from bench.core.update import Grid, Layout, Update
from bench.defense.channel import Candidate, Channel, Desk, Knowledge, Opened
from bench.defense.public import Public, alike
from tests.defenses.exchange import Sent

#: what becomes of a message on its way to one receiver
Alter = Callable[[Sent, str], Iterable[Sent]]


class OnceOnly(dict[str, NDArray[Any]]):
    """A party's state: secrets are written once and kept."""

    def __setitem__(self, key: str, value: NDArray[Any]) -> None:
        assert isinstance(value, np.ndarray)
        assert value.dtype != object
        assert not (key.startswith("keys/") and key in self), f"{key} is overwritten"
        super().__setitem__(key, value.copy())

    def __delitem__(self, key: str) -> None:
        assert not key.startswith("keys/"), f"{key} is deleted"
        super().__delitem__(key)


def as_sent(message: Sent, receiver: str) -> Iterable[Sent]:
    return (message,)


@dataclass
class Play:
    """``run`` plays all rounds; ``away[(round, silo)]`` is the stage from which on a silo is gone in that round."""

    channel: Channel
    updates: Sequence[Mapping[str, Update]]
    away: Mapping[tuple[int, str], str] = field(default_factory=dict)
    alter: Alter = as_sent
    participants: Sequence[tuple[str, ...]] | None = None
    supports: Mapping[int, NDArray[np.int64]] = field(default_factory=dict)
    secret: Callable[[str], SecretStreams] = SecretStreams

    def __post_init__(self) -> None:
        first = next(iter(self.updates[0].values()))
        self.silos = tuple(self.updates[0])
        everybody = (self.silos,) * len(self.updates)
        weights = dict.fromkeys(self.silos, 1)
        self.public = Public(
            alike(first.layout), self.silos, weights, len(self.updates), self.participants or everybody
        )
        self.states: dict[str, OnceOnly] = defaultdict(OnceOnly)
        self.messages: list[Sent] = []
        self.opened: dict[int, Opened] = {}
        self._mail: dict[str, list[Sent]] = defaultdict(list)

    def run(self) -> Play:
        for round in range(-1, len(self.updates)):
            for stage in self.channel.stages():
                if stage.setup == (round < 0):
                    for actor in self._actors(stage.actors, stage.name, round):
                        self.act(actor, stage.name, round)
        return self

    def refused(self) -> str:
        """The sentence with which the run stops; "" where it does not."""
        try:
            self.run()
        except SiloBenchError as error:
            return str(error)
        return ""

    def act(self, actor: str, stage: str, round: int, inbox: Sequence[Sent] | None = None) -> list[Sent]:
        desk = Desk(actor, self.public, self.states[actor], self.secret(actor), self.supports.get)
        endpoint = self.channel.endpoint(desk)
        if round >= 0 and is_silo(actor):
            endpoint.contribute(round, self.updates[round][actor])
        sent = []
        for outgoing in endpoint.step(stage, round, self._mail.pop(actor, []) if inbox is None else inbox):
            message = Sent(round, stage, actor, outgoing.receivers, tuple(outgoing.frames))
            sent.append(message)
            self.messages.append(message)
            for receiver in outgoing.receivers:
                self._mail[receiver] += list(self.alter(message, receiver))
        for opened_round, opened in endpoint.opened():
            assert opened_round not in self.opened
            self.opened[opened_round] = opened
        return sent

    def _actors(self, kind: str, stage: str, round: int) -> Sequence[str]:
        if kind != "silos":
            return [SERVER if kind == "server" else DEALER]
        return [s for s in self.silos if not self._gone(s, stage, round)]

    def _gone(self, silo: str, stage: str, round: int) -> bool:
        names = [s.name for s in self.channel.stages()]
        since = self.away.get((round, silo))
        return since is not None and names.index(stage) >= names.index(since)

    def expected(self, round: int, silos: Iterable[str]) -> NDArray[np.float64]:
        """The sum in integers, and only then in real values."""
        chosen = [self.updates[round][silo] for silo in silos]
        return chosen[0].form.spread(np.sum([update.values for update in chosen], axis=0))

    def knowledge(self, parties: Iterable[str]) -> Knowledge:
        coalition = frozenset(parties)
        seen = [m for m in self.messages if m.sender in coalition or coalition & set(m.receivers)]
        keys = {p: {k[5:]: v for k, v in self.states[p].items() if k.startswith("keys/")} for p in coalition}
        return Knowledge(coalition, self.public, seen, keys, {}, self.supports)

    def reads(self, parties: Iterable[str]) -> set[tuple[int, frozenset[str]]]:
        """What ``read`` gives this coalition: (round, silos), each exact, or the test fails."""
        found = list(self.channel.read(self.knowledge(parties)))
        for candidate in found:
            assert self.exact(candidate), f"{sorted(candidate.silos)} was read wrong"
        return {(c.round, c.silos) for c in found}

    def exact(self, candidate: Candidate) -> bool:
        return np.array_equal(candidate.values, self.expected(candidate.round, sorted(candidate.silos)))

    def bytes(self, stage: str) -> int:
        return sum(sum(m.lengths) * len(m.receivers) for m in self.messages if m.stage == stage)


def flipped(message: Sent, frame: int, bit: int) -> Sent:
    """One bit of one frame changed."""
    frames = list(message.content)
    raw = bytearray(frames[frame])
    raw[bit // 8] ^= 1 << bit % 8
    frames[frame] = bytes(raw)
    return replace(message, content=tuple(frames))


def names(count: int) -> tuple[str, ...]:
    return tuple(f"silo-{i}" for i in range(count))


def drawn(
    silos: int, rounds: int = 1, size: int = 50, bits: int = 8, seed: int = 0, support: NDArray[np.int64] | None = None
) -> list[dict[str, Update]]:
    """Uniform integers over the whole grid, extremes included."""
    rng = np.random.default_rng(seed)
    grid, layout = Grid(bits, 0.1), Layout(("a", "b"), ((1, size // 2), (size - size // 2, 1)))
    count = size if support is None else len(support)
    found = []
    for _ in range(rounds):
        values = rng.integers(-grid.levels, grid.levels + 1, (silos, count))
        values[:, :2] = grid.levels, -grid.levels
        found.append(
            {n: Update(v, layout, grid=grid, support=support) for n, v in zip(names(silos), values, strict=True)}
        )
    return found
