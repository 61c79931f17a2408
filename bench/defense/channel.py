"""How updates travel and are summed: the interface of a channel.

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
from inspect import isfunction
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError, UsageError
from bench.core.streams import SecretStreams, State
from bench.core.update import Update, Values
from bench.defense.parts import Transform
from bench.defense.public import Public

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
    """One step of the protocol. ``actors``: who acts: the silos that take part in the round or have mail, the server,
    or the dealer, who may have stages in every round and not only in set-up. ``setup``: run once, before round 0, with
    round -1 and all silos."""

    name: str
    actors: Literal["silos", "server", "dealer"]
    setup: bool = False


@dataclass(frozen=True)
class Opened:
    """A sum that an endpoint opened: flat float values over the full layout, and the silos summed in it."""

    values: NDArray[np.floating]
    silos: tuple[str, ...]


#: the public support of a round's summands: sorted indices, or None where they are dense
Supports = Callable[[int], NDArray[np.int64] | None]


def _dense(round: int) -> NDArray[np.int64] | None:
    return None


def no_records() -> Iterable[bytes]:
    raise SiloBenchError("this party holds no records")


@dataclass(frozen=True)
class Desk:
    """What one party has before it in a step, and nothing of anybody else's.

    ``state``, ``secret``: its memory and randomness. ``supports``: the public support of a round's summands (sorted
    indices; None: dense), as far as the party holds the adapter that the round started from. ``records``: (a silo, in a
    central topology) its own records as frames (``bench.core.records``).
    """

    me: str
    public: Public
    state: State
    secret: SecretStreams
    supports: Supports = _dense
    records: Callable[[], Iterable[bytes]] = no_records


class Endpoint(ABC):
    """One party's side of the channel in one step."""

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
    accepts: frozenset[Values] = frozenset({"real"})
    #: largest absolute error of an opened sum, per value (0 for exact channels): how far a view's reading may be from
    #: what was sent and still count as it, and how far the conformance kit lets a sum be off
    error: float = 0.0
    #: the fewest silos that it carries out a round with
    fewest: int = 1
    #: bytes of an upload per value, for the estimates of ``--dry-run`` only; results count messages
    bytes_per_value: float = 4.0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = cls.__dict__.get("endpoint")
        if isfunction(own) and own.__code__.co_argcount != 2:
            raise UsageError(
                f"{cls.__qualname__}.endpoint is handed one bench.Desk now, with 'me', 'public', 'state', 'secret' and "
                "what was assigned to an endpoint before: write 'def endpoint(self, desk)'."
            )

    @property
    def quantiser(self) -> Transform | None:
        """What an integer channel has put before it where it would be handed real values."""
        return None

    @abstractmethod
    def stages(self) -> tuple[Stage, ...]: ...

    @abstractmethod
    def endpoint(self, desk: Desk) -> Endpoint:
        """The side of the party at ``desk``, made anew for every step."""

    @abstractmethod
    def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
        """What the channel's own algorithm gets out of all that a coalition holds, sums and single uploads alike.

        Wrong values do no harm: the harness keeps only what agrees with what was sent. Raises CannotOpen.
        """
