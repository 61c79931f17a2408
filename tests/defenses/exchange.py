"""A few lines of routing, to run a channel's endpoints without the harness."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.core.parties import DEALER, SERVER
from bench.core.streams import SecretStreams, State
from bench.core.update import Layout, Update
from bench.defense.channel import Channel, Desk, Endpoint
from bench.defense.public import Public, alike


@dataclass(frozen=True)
class Sent:
    """A message in memory."""

    round: int
    stage: str
    sender: str
    receivers: tuple[str, ...]
    content: tuple[bytes, ...]

    def frames(self) -> Iterator[bytes]:
        return iter(self.content)

    def frame(self, index: int) -> bytes:
        return self.content[index]

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(map(len, self.content))


@dataclass
class Run:
    """What one round left behind."""

    messages: list[Sent]
    states: Mapping[str, State]
    opened: Mapping[str, NDArray[np.floating]]

    def to(self, party: str) -> list[Sent]:
        return [m for m in self.messages if party in m.receivers]


def public(layout: Layout, silos: int) -> Public:
    names = tuple(f"silo-{i}" for i in range(silos))
    return Public(alike(layout), names, dict.fromkeys(names, 1), 1, (names,))


def one_round(
    channel: Channel,
    layout: Layout,
    summands: Sequence[NDArray[np.float32] | Update],
    support: NDArray[np.int64] | None = None,
) -> Run:
    """Every stage of set-up and round 0, every party with a fresh endpoint at every stage. ``support``: that of every
    summand."""
    updates = [s if isinstance(s, Update) else Update(s, layout) for s in summands]
    known = public(layout, len(summands))
    states: dict[str, State] = {p: {} for p in (*known.silos, SERVER, DEALER)}
    who = {"silos": known.silos, "server": (SERVER,), "dealer": (DEALER,)}
    messages: list[Sent] = []
    opened: dict[str, NDArray[np.floating]] = {}
    unread: dict[str, list[Sent]] = {p: [] for p in states}
    for stage in channel.stages():
        round = -1 if stage.setup else 0
        for party in who[stage.actors]:
            desk = Desk(party, known, states[party], SecretStreams(party), lambda round: support)
            endpoint: Endpoint = channel.endpoint(desk)
            if party in known.silos:
                endpoint.contribute(0, updates[known.silos.index(party)])
            inbox, unread[party] = unread[party], []
            for out in endpoint.step(stage.name, round, inbox):
                message = Sent(round, stage.name, party, out.receivers, tuple(out.frames))
                messages.append(message)
                for receiver in out.receivers:
                    unread[receiver].append(message)
            for _, found in endpoint.opened():
                opened[party] = found.values
    return Run(messages, states, opened)
