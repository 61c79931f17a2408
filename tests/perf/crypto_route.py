"""Runs a channel's endpoints over messages on disk, and measures each party's own work and bytes.

Only the time in which an endpoint computes is counted: making frames, summing, opening. Writing them to disk is not;
reading them back is, as a party would have to receive them.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.core.meter import peak_bytes, reset_peak
from bench.core.parties import DEALER, SERVER
from bench.core.streams import SecretStreams, State
from bench.core.update import Layout, Update
from bench.defense.channel import Channel, Desk, Endpoint, Opened, Outgoing, Stage
from bench.defense.public import Public, alike

T = TypeVar("T")


def public(layout: Layout, silos: int, rounds: int) -> Public:
    names = tuple(f"silo-{i}" for i in range(silos))
    return Public(alike(layout), names, dict.fromkeys(names, 1), rounds, (names,) * rounds)


@dataclass(frozen=True)
class Spooled:
    """A message whose frames lie in a file."""

    file: IO[bytes]
    round: int
    stage: str
    sender: str
    receivers: tuple[str, ...]
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]

    def frame(self, index: int) -> bytes:
        self.file.seek(self.offsets[index])
        return self.file.read(self.lengths[index])

    def frames(self) -> Iterator[bytes]:
        return (self.frame(i) for i in range(len(self.lengths)))


@dataclass
class Ledger:
    """Process seconds by (stage, kind of party), summed over the parties; bytes by stage and direction."""

    seconds: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    sent: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    received: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))


@dataclass
class Router:
    """``support``: that of every update. ``openers``: so many silos open a sum, as all would (None: all do).
    ``sealers``: so many silos seal an upload, and the others' are these in turn (None: all seal); for channels whose
    uploads name nobody. ``rounds[r]`` is what round r cost, ``setup`` what came before."""

    channel: Channel
    known: Public
    support: NDArray[np.int64] | None = None
    openers: int | None = None
    sealers: int | None = None
    setup: Ledger = field(default_factory=Ledger)
    rounds: list[Ledger] = field(default_factory=list)
    opened: dict[str, NDArray[np.floating]] = field(default_factory=dict)
    messages: list[Spooled] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parties = (*self.known.silos, SERVER, DEALER)
        self.states: dict[str, State] = {party: {} for party in self.parties}
        self.unread: dict[str, list[Spooled]] = {party: [] for party in self.parties}
        #: the most that one party needed in one step: resident memory that the step added at its peak, and its state
        self.party_bytes = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object
        self._end = 0

    def prepare(self) -> None:
        """The stages before the first round."""
        for stage in self.channel.stages():
            if stage.setup:
                self._stage(stage, -1, self.setup, ())

    def round(self, number: int, updates: Sequence[Update]) -> None:
        """All stages of one round; ``opened`` holds what each opener got."""
        self.rounds.append(Ledger())
        self.opened.clear()
        for stage in self.channel.stages():
            if not stage.setup:
                self._stage(stage, number, self.rounds[-1], updates)

    def _stage(self, stage: Stage, number: int, ledger: Ledger, updates: Sequence[Update]) -> None:
        actors = {"silos": self.known.silos, "server": (SERVER,), "dealer": (DEALER,)}[stage.actors]
        if stage.name == "open":
            actors = actors[: self.openers]
        if stage.name == "upload" and self.sealers is not None and self.sealers < len(actors):
            before = len(self.messages)
            for party in actors[: self.sealers]:
                self._act(party, stage, number, ledger, updates)
            self._repeat(self.messages[before:], actors[self.sealers :], ledger)
            return
        for party in actors:
            self._act(party, stage, number, ledger, updates)

    def _repeat(self, sealed: Sequence[Spooled], parties: Sequence[str], ledger: Ledger) -> None:
        """The same frames once more, from each of ``parties``."""
        for index, party in enumerate(parties, len(sealed)):
            self.unread[party].clear()
            self._deliver(replace(sealed[index % len(sealed)], sender=party), ledger)

    def _act(self, party: str, stage: Stage, number: int, ledger: Ledger, updates: Sequence[Update]) -> None:
        reset_peak()
        before = peak_bytes() - sum(value.nbytes for value in self.states[party].values())
        self._step(party, stage, number, ledger, updates)
        self.party_bytes = max(self.party_bytes, peak_bytes() - before)

    def _step(self, party: str, stage: Stage, number: int, ledger: Ledger, updates: Sequence[Update]) -> None:
        kind = kind_of(party)
        desk = Desk(party, self.known, self.states[party], SecretStreams(party), lambda round: self.support)
        endpoint: Endpoint = self.channel.endpoint(desk)
        if kind == "silo" and updates:
            endpoint.contribute(number, updates[self.known.silos.index(party)])
        inbox, self.unread[party] = self.unread[party], []
        key = (stage.name, kind)
        for out in metered(lambda: endpoint.step(stage.name, number, inbox), ledger, key):
            self._send(party, stage.name, number, out, ledger)
        for _, found in metered(endpoint.opened, ledger, ("opened", kind)):
            self._note(party, found)

    def _note(self, party: str, found: Opened) -> None:
        # one opener's values are enough; the others' are compared with them
        first = next(iter(self.opened.values()), None)
        if first is None:
            self.opened[party] = found.values
        elif not np.array_equal(first, found.values):
            raise SystemExit(f"{party} opened other values than the first opener")

    def _send(self, party: str, stage: str, number: int, out: Outgoing, ledger: Ledger) -> None:
        offsets, lengths = [], []
        for frame in metered(lambda: out.frames, ledger, (stage, kind_of(party))):
            self._file.seek(self._end)
            self._file.write(frame)
            offsets.append(self._end)
            lengths.append(len(frame))
            self._end += len(frame)
        self._deliver(Spooled(self._file, number, stage, party, out.receivers, tuple(offsets), tuple(lengths)), ledger)

    def _deliver(self, message: Spooled, ledger: Ledger) -> None:
        self.messages.append(message)
        for receiver in message.receivers:
            self.unread.setdefault(receiver, []).append(message)
            ledger.sent[message.stage, kind_of(message.sender)] += sum(message.lengths)
            ledger.received[message.stage, kind_of(receiver)] += sum(message.lengths)


def kind_of(party: str) -> str:
    return {SERVER: "server", DEALER: "dealer"}.get(party, "silo")


def metered(make: Any, ledger: Ledger, key: tuple[str, str]) -> Iterator[Any]:
    """The items that ``make()`` gives; the time until each of them counts."""
    begin = time.process_time()
    items: Iterable[Any] = make()
    iterator = iter(items)
    while True:
        try:
            item = next(iterator)
        except StopIteration:
            ledger.seconds[key] += time.process_time() - begin
            return
        ledger.seconds[key] += time.process_time() - begin
        yield item
        begin = time.process_time()
