"""How updates travel and are summed: the interface of a channel, and the base of the simple ones.

A channel is a state machine for each party. In every stage the harness builds a party's endpoint anew from its
stored ``state`` and hands it the messages addressed to it; the endpoint answers with messages. Nothing else passes
between parties. All that must outlive a step stands in ``state`` (arrays only, ``numpy.uint8`` for bytes); entries
whose key starts with ``keys/`` are the party's secrets, are never overwritten, and are what a coalition that
includes the party knows when its view is built.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.defense import State, Transform, Values
from bench.errors import CannotOpen, SiloBenchError
from bench.parties import DEALER, SERVER, is_silo
from bench.streams import SecretStreams, Streams
from bench.update import Form, Layout, Update

MAX_FRAME = 64 * 2**20


class Message(Protocol):
    """A message that was sent. ``frames()`` reads them one by one from the transcript, each at most 64 MiB."""

    @property
    def round(self) -> int:
        """-1 during set-up."""

    @property
    def stage(self) -> str: ...

    @property
    def sender(self) -> str: ...

    @property
    def receivers(self) -> tuple[str, ...]: ...

    def frames(self) -> Iterator[bytes]: ...

    def frame(self, index: int) -> bytes: ...

    @property
    def lengths(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Outgoing:
    """Frames to send, produced lazily, to one or several receivers (the bytes count once per receiver)."""

    receivers: tuple[str, ...]
    frames: Iterable[bytes]


@dataclass(frozen=True)
class Stage:
    """One step of the protocol. ``actors``: who acts. Set-up stages run once, before round 0, with round -1."""

    name: str
    actors: Literal["silos", "server", "dealer"]
    setup: bool = False


_AS_SUMMED = Layout((), ())


@dataclass(frozen=True)
class Public:
    """What every party and every adversary knows about the federation.

    ``layout``: of a summand, which is what the channel sums. ``adapter``: of what a silo trains. ``state``: of the
    global adapter, which begins with the tensors of ``adapter``. The latter two are ``layout`` unless the aggregator
    says otherwise (``Aggregator.summed``, ``Aggregator.state``). ``nonce``: the seed of public choices (``generator``),
    and of nothing that must be secret.
    """

    layout: Layout
    silos: tuple[str, ...]
    weights: Mapping[str, int]
    rounds: int
    #: names of the silos that take part, per round (from the public schedule)
    participants: Sequence[tuple[str, ...]]
    nonce: int = 0
    adapter: Layout = _AS_SUMMED
    state: Layout = _AS_SUMMED

    def __post_init__(self) -> None:
        for name in ("adapter", "state"):
            if not getattr(self, name).names:
                object.__setattr__(self, name, self.layout)

    def layouts(self) -> dict[str, object]:
        """The layouts as JSON: ``adapter`` and ``state`` only where they are not ``layout``."""
        all_of_them = {"layout": self.layout, "adapter": self.adapter, "state": self.state}
        return {key: value.to_json() for key, value in all_of_them.items() if key == "layout" or value != self.layout}

    def generator(self, name: str, *indices: int) -> np.random.Generator:
        """Public randomness that everybody can redraw."""
        return Streams(self.nonce).generator(f"public/{name}", *indices)


@dataclass(frozen=True)
class Opened:
    """A sum that an endpoint opened: flat float values over the full layout, and the silos summed in it."""

    values: NDArray[np.floating]
    silos: tuple[str, ...]


def _dense(round: int) -> NDArray[np.int64] | None:
    return None


def _no_frames() -> Iterable[bytes]:
    raise SiloBenchError("this party holds no records")


class Endpoint(ABC):
    """One party's side of the channel in one step."""

    #: the public support of a round's summands (sorted indices; None: dense), as far as this party holds the adapter
    #: that the round started from. Set by the harness before ``step``.
    supports: Callable[[int], NDArray[np.int64] | None] = staticmethod(_dense)
    #: (silo, where the server trains) its own records as frames (``bench.federation.handed``). Set by the harness.
    records: Callable[[], Iterable[bytes]] = staticmethod(_no_frames)

    @abstractmethod
    def step(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterable[Outgoing]:
        """Act in ``stage``. ``inbox`` may hold messages of earlier stages and rounds (a party that was away)."""

    def contribute(self, round: int, update: Update) -> None:
        """(silo) The summand of this round, before the channel's stages begin."""
        raise SiloBenchError(f"{type(self).__name__} takes no contribution")

    def handed(self) -> Mapping[str, Iterable[bytes]]:
        """(server that trains) The frames of each silo's records, as they arrived."""
        return {}

    def opened(self) -> Iterable[tuple[int, Opened]]:
        """(opener) Sums opened by the last ``step``, as (round, sum), oldest first.

        May be lazy: each sum is applied before the next one is asked for, so that ``supports`` knows the next round.
        """
        return ()


@dataclass(frozen=True)
class Knowledge:
    """What one coalition holds: messages it sent or received, its parties' ``keys/`` entries, its contributions.

    ``contributions[(round, silo)]`` are flat summands over the full layout; ``supports[round]`` the public support of
    a round's summands, where it is not the whole layout.
    """

    parties: frozenset[str]
    public: Public
    messages: Sequence[Message]
    keys: Mapping[str, Mapping[str, NDArray[np.uint8]]]
    contributions: Mapping[tuple[int, str], NDArray[np.floating]]
    supports: Mapping[int, NDArray[np.int64]] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """A guess at a plaintext: the sum of the summands of ``silos`` in ``round`` (one silo: an upload).

    ``support``: sorted indices of the coordinates that it is a guess at (``values`` are 0 elsewhere); None: all.
    """

    round: int
    silos: frozenset[str]
    values: NDArray[np.floating]
    how: str
    support: NDArray[np.int64] | None = None


class Channel(ABC):
    """The interface. ``opener`` says who learns the sum and runs the aggregator."""

    opener: Literal["server", "silos"] = "server"
    #: who trains. "server": the silos hand it their records in a stage of set-up, and no update travels
    trains: Literal["silos", "server"] = "silos"
    accepts: frozenset[Values] = frozenset({"real"})
    #: largest absolute error of an opened sum, per value (0 for exact channels)
    error: float = 0.0
    #: the fewest silos that it carries out a round with
    fewest: int = 1
    #: bytes of an upload per value, for the estimates of ``--dry-run`` only; results count messages
    bytes_per_value: float = 4.0

    @property
    def quantiser(self) -> Transform | None:
        """What an integer channel has put before it where it would be handed real values."""
        return None

    @abstractmethod
    def stages(self) -> tuple[Stage, ...]: ...

    @abstractmethod
    def endpoint(self, me: str, public: Public, state: State, secret: SecretStreams) -> Endpoint: ...

    @abstractmethod
    def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
        """What the channel's own algorithm gets out of all that a coalition holds, sums and single uploads alike.

        Wrong values do no harm: the harness keeps only what agrees with what was sent. Raises CannotOpen.
        """


class SumChannel(Channel):
    """A channel of one upload and one sum per round, from a few functions: keys, seal, add/finish, open.

    The endpoints (``bench.sum_endpoints``) put the summands' ``Form`` before the frames of ``seal``, a header in clear.
    Stages: ``keys`` (set-up, dealer -> parties; only where ``dealt``), ``upload`` (silo -> server), ``sum`` (the server
    adds frame k of every upload into frame k of the sum, one frame of one silo at a time) and, where the silos open,
    ``open`` (they open what the server sent them). The endpoints are in ``bench.sum_endpoints``.
    """

    #: True where a dealer hands out keys before round 0
    dealt: bool = False

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

    def endpoint(self, me: str, public: Public, state: State, secret: SecretStreams) -> Endpoint:
        from bench.sum_endpoints import DealerEndpoint, ServerEndpoint, SiloEndpoint

        kinds = {SERVER: ServerEndpoint, DEALER: DealerEndpoint}
        return kinds.get(me, SiloEndpoint)(self, me, public, state, secret)

    def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
        """Open every upload and every sum with the keys of every party of the coalition in turn."""
        from bench.sum_endpoints import read_all

        return read_all(self, knowledge)


__all__ = [
    "DEALER",
    "MAX_FRAME",
    "SERVER",
    "Candidate",
    "CannotOpen",
    "Channel",
    "Endpoint",
    "Knowledge",
    "Message",
    "Opened",
    "Outgoing",
    "Public",
    "Stage",
    "SumChannel",
    "is_silo",
]
