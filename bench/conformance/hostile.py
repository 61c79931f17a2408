"""A carrier that alters messages on their way, to see whether a channel refuses them cleanly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from bench.defense.channel import Message, Outgoing
from bench.federation.carrier import Carrier

Alter = Callable[[list[bytes]], list[bytes]]


@dataclass(frozen=True)
class Altered:
    """A message whose frames are others than those that were sent."""

    round: int
    stage: str
    sender: str
    receivers: tuple[str, ...]
    contents: tuple[bytes, ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(len(frame) for frame in self.contents)

    def frame(self, index: int) -> bytes:
        return self.contents[index]

    def frames(self) -> Iterator[bytes]:
        return iter(self.contents)


class HostileCarrier(Carrier):
    """Alters the first message of stage ``stage`` that reaches a party of another kind than its sender."""

    def __init__(self, inner: Carrier, stage: str, alter: Alter) -> None:
        self._inner, self._stage, self._alter = inner, stage, alter
        self.altered = False

    def deliver(self, party: str, stage: str, round: int, inbox: Sequence[Message]) -> Iterable[Outgoing]:
        return self._inner.deliver(party, stage, round, [self._maybe(message) for message in inbox])

    def _maybe(self, message: Message) -> Message:
        if self.altered or message.stage != self._stage:
            return message
        self.altered = True
        contents = tuple(self._alter(list(message.frames())))
        return Altered(message.round, message.stage, message.sender, message.receivers, contents)


def _truncate(frames: list[bytes]) -> list[bytes]:
    return [*frames[:-1], frames[-1][: len(frames[-1]) // 2]]


def _empty(frames: list[bytes]) -> list[bytes]:
    return [*frames[:-1], b""]


def _lose(frames: list[bytes]) -> list[bytes]:
    return frames[:-1]


def _repeat(frames: list[bytes]) -> list[bytes]:
    return [*frames, frames[-1]]


def _pad(frames: list[bytes]) -> list[bytes]:
    return [*frames[:-1], frames[-1] + bytes(2**20)]


def _noise(frames: list[bytes]) -> list[bytes]:
    noise = bytes((i * 151 + 43) % 256 for i in range(1000))
    return [*frames[:-1], noise]


#: what must be refused: nothing of the right form is left
REFUSED: dict[str, Alter] = {
    "cut in half": _truncate,
    "emptied": _empty,
    "robbed of a frame": _lose,
    "given a frame too many": _repeat,
    "padded with a megabyte": _pad,
    "replaced by noise": _noise,
}


def flip(position: float) -> Alter:
    """Flip a bit at ``position`` (0 to 1) of the first frame; what comes of it may be wrong, but never a crash."""

    def alter(frames: list[bytes]) -> list[bytes]:
        first = bytearray(frames[0])
        if first:
            first[min(int(position * len(first)), len(first) - 1)] ^= 0x40
        return [bytes(first), *frames[1:]]

    return alter
