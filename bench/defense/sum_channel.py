"""A channel of one upload and one sum per round: its parties' sides, and what a coalition reads with its keys."""

from __future__ import annotations

import contextlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import CannotOpen, SiloBenchError
from bench.core.parties import DEALER, SERVER, is_silo
from bench.core.streams import SecretStreams
from bench.core.update import Form, Update
from bench.defense.channel import (
    MAX_FRAME,
    Candidate,
    Channel,
    Desk,
    Endpoint,
    Knowledge,
    Message,
    Opened,
    Outgoing,
    Stage,
)
from bench.defense.public import Public

_MAX_NAME = 100


class SumChannel(Channel):
    """A channel of one upload and one sum per round, from a few functions: keys, seal, add/finish, open.

    The endpoints put the summands' ``Form`` before the frames of ``seal``, a header in clear.
    Stages: ``keys`` (set-up, dealer -> parties; only where ``dealt``), ``upload`` (silo -> server), ``sum`` (the server
    adds frame k of every upload into frame k of the sum, one frame of one silo at a time) and, where the silos open,
    ``open`` (they open what the server sent them).
    """

    #: True where a dealer hands out keys before round 0
    dealt: bool = False

    def for_public(self, public: Public) -> Self:
        """This channel as one federation's parties and readers work with it."""
        return self

    def keys(self, public: Public, secret: SecretStreams) -> Mapping[str, Mapping[str, bytes]]:
        """The dealer's work: for each receiver, named byte strings."""
        return {}

    @abstractmethod
    def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
        """The frames of one upload: as many, of the same lengths in values, for every silo."""

    @abstractmethod
    def add(self, total: object | None, frame: bytes, keys: Mapping[str, bytes]) -> object:
        """Add one sealed frame to a running sum (None: start one). Raises SiloBenchError on bad bytes."""

    @abstractmethod
    def finish(self, total: object, keys: Mapping[str, bytes]) -> bytes:
        """Serialise a running sum to one frame."""

    @abstractmethod
    def open(self, frames: Iterator[bytes], keys: Mapping[str, bytes], form: Form, count: int) -> NDArray[np.floating]:
        """The sum's plaintext over the whole layout (``form.spread``), from the frames of a sum of ``count`` uploads
        (finished), or of a single upload (``count`` 0: not finished). Raises CannotOpen."""

    def stages(self) -> tuple[Stage, ...]:
        setup = (Stage("keys", "dealer", setup=True),) if self.dealt else ()
        opening = (Stage("open", "silos"),) if self.opener == "silos" else ()
        return (*setup, Stage("upload", "silos"), Stage("sum", "server"), *opening)

    def endpoint(self, desk: Desk) -> Endpoint:
        kinds = {SERVER: ServerEndpoint, DEALER: DealerEndpoint}
        return kinds.get(desk.me, SiloEndpoint)(self.for_public(desk.public), desk)

    def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
        """Open every upload and every sum with the keys of every party of the coalition in turn."""
        return read_all(self.for_public(knowledge.public), knowledge)


def pack_keys(keys: Mapping[str, bytes]) -> Iterator[bytes]:
    """A dealer's message: a JSON list of names, then one frame per key."""
    yield json.dumps(list(keys)).encode()
    yield from keys.values()


def unpack_keys(message: Message) -> dict[str, bytes]:
    """The inverse of ``pack_keys``, bounds-checked. Raises SiloBenchError."""
    try:
        names = json.loads(message.frame(0)[: MAX_FRAME // 64])
    except (ValueError, IndexError, RecursionError) as error:
        raise SiloBenchError(f"the key message of {message.sender} is malformed: {error}") from None
    count = len(message.lengths) - 1
    if not isinstance(names, list) or len(names) != count or not all(isinstance(n, str) for n in names):
        raise SiloBenchError(f"the key message of {message.sender} does not name its {count} keys")
    for name in names:
        if not name.replace("-", "").isalnum() or len(name) > _MAX_NAME:
            raise SiloBenchError(f"the key message of {message.sender} holds a key with a bad name")
    return {name: message.frame(i + 1) for i, name in enumerate(names)}


def as_bytes(entries: Mapping[str, NDArray[np.uint8]]) -> dict[str, bytes]:
    """Stored key entries as byte strings."""
    return {name: np.asarray(value, dtype=np.uint8).tobytes() for name, value in entries.items()}


class _SumEndpoint(Endpoint):
    def __init__(self, channel: SumChannel, desk: Desk) -> None:
        self.channel, self.me, self.public = channel, desk.me, desk.public
        self.state, self.secret, self.supports = desk.state, desk.secret, desk.supports

    def keys(self) -> dict[str, bytes]:
        held = {name[5:]: self.state[name] for name in list(self.state) if name.startswith("keys/")}
        return as_bytes(held)

    def absorb_keys(self, inbox: Sequence[Message]) -> None:
        for message in inbox:
            if message.stage == "keys":
                for name, value in unpack_keys(message).items():
                    self.state[f"keys/{name}"] = np.frombuffer(value, dtype=np.uint8)


class DealerEndpoint(_SumEndpoint):
    """Makes the keys in set-up, sends each party its own, keeps a copy (a dealer that colludes knows them all)."""

    def step(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterable[Outgoing]:
        # one message per distinct content: the bytes still count once per receiver
        groups: dict[tuple[tuple[str, bytes], ...], list[str]] = {}
        for party, keys in self.channel.keys(self.public, self.secret).items():
            groups.setdefault(tuple(keys.items()), []).append(party)
        for number, (content, parties) in enumerate(groups.items()):
            for name, value in content:
                self.state[f"keys/group-{number}/{name}"] = np.frombuffer(value, dtype=np.uint8)
            yield Outgoing(tuple(parties), pack_keys(dict(content)))


class SiloEndpoint(_SumEndpoint):
    """Seals its summand in ``upload``; opens the sums that reached it in ``open``."""

    _update: Update | None = None
    _sums: Sequence[Message] = ()

    def contribute(self, round: int, update: Update) -> None:
        self._update = update

    def step(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterable[Outgoing]:
        self.absorb_keys(inbox)
        if stage == "upload" and self._update is not None:
            sealed = self.channel.seal(self._update, self.keys(), self.secret, round)
            yield Outgoing((SERVER,), _chain([self._update.form.header()], sealed))
        self._sums = sorted((m for m in inbox if m.stage == "sum"), key=lambda m: m.round)

    def opened(self) -> Iterable[tuple[int, Opened]]:
        for message in self._sums:
            yield message.round, self._open(message)

    def _open(self, message: Message) -> Opened:
        silos = summed_silos(message, self.public)
        form = Form.read(_frame(message, 1), self.public.layout, self.supports(message.round))
        try:
            values = self.channel.open(_frames(message, 2), self.keys(), form, len(silos))
        except CannotOpen as error:
            raise SiloBenchError(f"{self.me} can't open the sum of round {message.round}: {error}") from None
        return Opened(values, silos)


class ServerEndpoint(_SumEndpoint):
    """Adds the uploads frame by frame; opens the sum itself, or sends it to every silo."""

    _opened: tuple[tuple[int, Opened], ...] = ()

    def step(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterable[Outgoing]:
        self.absorb_keys(inbox)
        uploads = [m for m in inbox if m.stage == "upload" and m.round == round]
        if not uploads:
            return
        silos = tuple(m.sender for m in uploads)
        if len(set(silos)) != len(silos):
            raise SiloBenchError(f"a silo uploaded twice in round {round}")
        headers = {_frame(m, 0) for m in uploads}
        if len(headers) != 1:
            raise SiloBenchError(f"uploads of round {round} have different headers: not all are of one form")
        header = headers.pop()
        frames = self._sum(uploads)
        if self.channel.opener == "silos":
            yield Outgoing(self.public.silos, _chain([json.dumps(list(silos)).encode(), header], frames))
            return
        form = Form.read(header, self.public.layout, self.supports(round))
        try:
            values = self.channel.open(frames, self.keys(), form, len(silos))
        except CannotOpen as error:
            raise SiloBenchError(f"the server can't open the sum of round {round}: {error}") from None
        self._opened = ((round, Opened(values, silos)),)

    def opened(self) -> Iterable[tuple[int, Opened]]:
        return self._opened

    def _sum(self, uploads: Sequence[Message]) -> Iterator[bytes]:
        counts = {len(m.lengths) for m in uploads}
        if len(counts) != 1:
            raise SiloBenchError(f"uploads of one round have different numbers of frames: {sorted(counts)}")
        keys = self.keys()
        for index in range(1, counts.pop()):
            total: object | None = None
            for message in uploads:
                total = self.channel.add(total, message.frame(index), keys)
            yield self.channel.finish(total, keys)


def _chain(head: Iterable[bytes], frames: Iterable[bytes]) -> Iterator[bytes]:
    yield from head
    yield from frames


def _frames(message: Message, start: int) -> Iterator[bytes]:
    return (message.frame(i) for i in range(start, len(message.lengths)))


def _frame(message: Message, index: int) -> bytes:
    if index >= len(message.lengths):
        raise SiloBenchError(f"the '{message.stage}' message of {message.sender} has no frame {index}")
    return message.frame(index)


def summed_silos(message: Message, public: Public) -> tuple[str, ...]:
    """Which silos a ``sum`` message says it is over. Raises SiloBenchError where that is not a set of known silos."""
    try:
        silos = json.loads(message.frame(0)[: MAX_FRAME // 64])
    except (ValueError, IndexError, RecursionError) as error:
        raise SiloBenchError(f"the sum of round {message.round} has no readable header: {error}") from None
    known = set(public.silos)
    if not isinstance(silos, list) or not silos or not all(isinstance(s, str) and s in known for s in silos):
        raise SiloBenchError(f"the sum of round {message.round} names silos that do not exist")
    if len(set(silos)) != len(silos):
        raise SiloBenchError(f"the sum of round {message.round} names a silo twice")
    return tuple(silos)


def read_all(channel: SumChannel, knowledge: Knowledge) -> Iterator[Candidate]:
    """Try every upload and sum with every distinct set of keys that a party of the coalition holds (or with none).

    Uploads of the coalition's own silos are left out: what is in them it knows.
    """
    own = {party for party in knowledge.parties if is_silo(party)}
    held: list[dict[str, bytes]] = []
    for party in sorted(knowledge.keys):
        for keys in _key_sets(as_bytes(knowledge.keys[party])):
            if keys not in held:
                held.append(keys)
    for message in knowledge.messages:
        if message.stage not in ("upload", "sum") or message.sender in own or getattr(message, "thinned", False):
            continue
        for keys in held or [{}]:
            with contextlib.suppress(CannotOpen, SiloBenchError):
                yield _read_one(channel, message, keys, knowledge)


def _key_sets(keys: Mapping[str, bytes]) -> Iterator[dict[str, bytes]]:
    """A party's keys; a dealer's one group after the other, each as its receivers have it."""
    groups: dict[str, dict[str, bytes]] = {}
    for name, value in keys.items():
        group, _, own = name.rpartition("/")
        groups.setdefault(group, {})[own] = value
    yield from groups.values()


def _read_one(channel: SumChannel, message: Message, keys: Mapping[str, bytes], knowledge: Knowledge) -> Candidate:
    public, support = knowledge.public, knowledge.supports.get(message.round)
    if message.stage == "upload":
        form = Form.read(_frame(message, 0), public.layout, support)
        values = channel.open(_frames(message, 1), keys, form, 0)
        return Candidate(message.round, frozenset({message.sender}), values, "the channel's own opening of an upload")
    silos = summed_silos(message, public)
    form = Form.read(_frame(message, 1), public.layout, support)
    values = channel.open(_frames(message, 2), keys, form, len(silos))
    return Candidate(message.round, frozenset(silos), values, "the channel's own opening of a sum")
