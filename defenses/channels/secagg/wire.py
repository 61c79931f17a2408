"""Messages: sets of silos as bit maps, records of fixed size, and the signature that ends every message of a silo.

A silo's message is one body frame (an upload: several) and a frame of 64 bytes, its Ed25519 signature over stage,
round, sender, the round's agreed randomness (zeros before there is one), and the SHA-256 of all frames before it. So a
message that is altered, moved to another round or stage, or put in another silo's name is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from bench.core.errors import SiloBenchError
from bench.defense.channel import Message
from defenses.channels.secagg.primitives import SIGNATURE, context, sign, verify

#: stands for the agreed randomness before there is one
NOTHING_AGREED = bytes(32)


def encode_set(members: Iterable[str], silos: Sequence[str]) -> bytes:
    """A bit per silo of the federation, in its public order, least significant first."""
    chosen = set(members)
    bits = sum(1 << place for place, silo in enumerate(silos) if silo in chosen)
    return bits.to_bytes(set_size(silos), "little")


def set_size(silos: Sequence[str]) -> int:
    return -(-len(silos) // 8)


def decode_set(data: bytes, silos: Sequence[str]) -> tuple[str, ...]:
    """The inverse of ``encode_set``. Raises SiloBenchError for another length, or for silos that do not exist."""
    bits = int.from_bytes(data, "little")
    if len(data) != set_size(silos) or bits >> len(silos):
        raise SiloBenchError("a set of silos is malformed, or names silos that do not exist")
    return tuple(silo for place, silo in enumerate(silos) if bits >> place & 1)


def records(data: bytes, size: int, count: int) -> list[bytes]:
    """``count`` records of ``size`` bytes. Raises SiloBenchError where ``data`` is anything else."""
    if len(data) != size * count:
        raise SiloBenchError(f"{len(data)} bytes are not {count} records of {size}")
    return [data[at : at + size] for at in range(0, len(data), size)]


def set_and_records(data: bytes, silos: Sequence[str], size: int) -> dict[str, bytes]:
    """A set of silos, and then a record of ``size`` bytes for each of them in the public order."""
    width = set_size(silos)
    members = decode_set(data[:width], silos)
    return dict(zip(members, records(data[width:], size, len(members)), strict=True))


def only_frame(message: Message, limit: int) -> bytes:
    """The one frame of an unsigned message. Raises SiloBenchError where there are others, or it is too long."""
    if len(message.lengths) != 1 or message.lengths[0] > limit:
        raise SiloBenchError(f"the '{message.stage}' message of {message.sender} does not have the right form")
    return message.frame(0)


class Signing:
    """What is signed: frames are added one by one, in order."""

    def __init__(self, stage: str, round: int, sender: str, agreed: bytes) -> None:
        self._about = (stage, round, sender, agreed)
        self._hash = hashlib.sha256()

    def add(self, frame: bytes) -> bytes:
        """The frame, as it is."""
        self._hash.update(len(frame).to_bytes(8, "little"))
        self._hash.update(frame)
        return frame

    def statement(self) -> bytes:
        return context("message", *self._about, self._hash.digest())


def signed(stage: str, round: int, sender: str, agreed: bytes, frames: Iterable[bytes], key: bytes) -> Iterator[bytes]:
    """``frames``, and then the signature of them all."""
    signing = Signing(stage, round, sender, agreed)
    yield from map(signing.add, frames)
    yield sign(key, signing.statement())


def statement(stage: str, round: int, sender: str, agreed: bytes, body: bytes) -> bytes:
    """What is signed of a message with one body frame."""
    signing = Signing(stage, round, sender, agreed)
    signing.add(body)
    return signing.statement()


def signings(stage: str, round: int, silos: Iterable[str], agreed: bytes) -> dict[str, Signing]:
    return {silo: Signing(stage, round, silo, agreed) for silo in silos}


def check_signed(
    what: str, signed: Mapping[str, Signing], signatures: Mapping[str, bytes], directory: Mapping[str, bytes]
) -> None:
    """Raises SiloBenchError where a silo did not sign what was put to its ``Signing``; ``what``: of it that was."""
    for silo, signing in signed.items():
        if not verify(directory[silo], signing.statement(), signatures[silo]):
            raise SiloBenchError(f"the {what} of {silo} is not signed by it as it stands")


def expect_lengths(messages: Iterable[Message], lengths: tuple[int, ...]) -> None:
    """Raises SiloBenchError where a message does not have those frames."""
    for message in messages:
        if tuple(message.lengths) != lengths:
            raise SiloBenchError(f"the '{message.stage}' message of {message.sender} does not have the right form")


def body_and_signature(message: Message, size: int) -> tuple[bytes, bytes]:
    """The frames of a silo's message with one body frame of ``size`` bytes, unchecked. Raises SiloBenchError where it
    has other ones."""
    expect_lengths([message], (size, SIGNATURE))
    return message.frame(0), message.frame(1)


def signed_body(message: Message, size: int, agreed: bytes, key: bytes) -> tuple[bytes, bytes]:
    """The same, the signature checked against the sender's public ``key``. Raises SiloBenchError."""
    body, signature = body_and_signature(message, size)
    if not verify(key, statement(message.stage, message.round, message.sender, agreed, body), signature):
        raise SiloBenchError(f"the '{message.stage}' message of {message.sender} is not signed by it as it stands")
    return body, signature
