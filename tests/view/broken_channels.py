"""Channels that hide updates from the server, and the ways in which such channels go wrong.

``Sealing`` is right: silos share a key that the server never sees, AES in counter mode with a fresh nonce per frame;
the server passes the ciphertexts on in one frame, the silos open and add. Every broken one differs from it in one
mistake.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from bench.core.errors import CannotOpen, SiloBenchError
from bench.core.streams import SecretStreams
from bench.core.update import Form, Update
from bench.defense.channel import Candidate, Knowledge
from bench.defense.public import Public
from bench.defense.sum_channel import SumChannel

_LENGTH = struct.Struct("<I")
#: values per frame, so that larger updates travel in several
PER_FRAME = 4096


def ctr(key: bytes, nonce: bytes, data: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR(nonce)).encryptor().update(data)


class Sealing(SumChannel):
    """Right: opens at the silos only."""

    opener = "silos"
    dealt = True
    header = 16

    def keys(self, public: Public, secret: SecretStreams) -> Mapping[str, Mapping[str, bytes]]:
        key = secret.token("shared", size=32)
        return {name: {"shared": key} for name in public.silos}

    def nonce(self, secret: SecretStreams, round: int, index: int) -> bytes:
        return secret.token("nonce", round, index, size=16)

    def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
        values = np.asarray(update.values, dtype="<f4")
        for index, start in enumerate(range(0, len(values), PER_FRAME)):
            yield self.seal_part(values[start : start + PER_FRAME], keys["shared"], self.nonce(secret, round, index))

    def seal_part(self, values: NDArray[np.float32], key: bytes, nonce: bytes) -> bytes:
        return nonce + ctr(key, nonce, values.tobytes())

    def open_part(self, frame: bytes, key: bytes) -> NDArray[np.floating]:
        with np.errstate(invalid="ignore"):  # a wrong key gives signalling NaNs
            return np.frombuffer(ctr(key, frame[:16], frame[16:]), dtype="<f4").astype(np.float64)

    def add(self, total: object | None, frame: bytes, keys: Mapping[str, bytes]) -> object:
        held = total if isinstance(total, list) else []
        return [*held, frame]

    def finish(self, total: object, keys: Mapping[str, bytes]) -> bytes:
        assert isinstance(total, list)
        return b"".join(_LENGTH.pack(len(frame)) + frame for frame in total)

    def open(self, frames: Iterator[bytes], keys: Mapping[str, bytes], form: Form, count: int) -> NDArray[np.floating]:
        if "shared" not in keys:
            raise CannotOpen("there is no key")
        parts = [
            sum(self.open_part(f, keys["shared"]) for f in (_split(frame) if count else [frame])) for frame in frames
        ]
        return form.spread(np.concatenate(parts))


def _split(frame: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(frame):
        (length,) = _LENGTH.unpack_from(frame, at)
        yield frame[at + 4 : at + 4 + length]
        at += 4 + length


class Denies(Sealing):
    """Says that it can't open anything; what is read is then read by the harness alone."""

    def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
        raise CannotOpen("nothing to see here")


class ForgetsToEncrypt(Sealing):
    """The flag that should have turned encryption on was never read."""

    def seal_part(self, values: NDArray[np.float32], key: bytes, nonce: bytes) -> bytes:
        return nonce + values.tobytes()

    def open_part(self, frame: bytes, key: bytes) -> NDArray[np.floating]:
        return np.frombuffer(frame[16:], dtype="<f4").astype(np.float64)

    def open(self, frames: Iterator[bytes], keys: Mapping[str, bytes], form: Form, count: int) -> NDArray[np.floating]:
        return super().open(frames, {"shared": b""}, form, count)


class ForgetsAndDenies(Denies, ForgetsToEncrypt):
    """Plaintext, and a ``read`` that won't admit it."""


class ReusesKeystream(Denies):
    """The nonce is a constant: every message is sealed with the same keystream (SHAKE-256, so that holding the key
    alone, without knowing the construction, opens nothing)."""

    def stream(self, key: bytes, nonce: bytes, size: int) -> NDArray[np.uint8]:
        return np.frombuffer(hashlib.shake_256(key + nonce).digest(size), dtype=np.uint8)

    def seal_part(self, values: NDArray[np.float32], key: bytes, nonce: bytes) -> bytes:
        plain = np.frombuffer(values.tobytes(), dtype=np.uint8)
        return nonce + (plain ^ self.stream(key, nonce, len(plain))).tobytes()

    def open_part(self, frame: bytes, key: bytes) -> NDArray[np.floating]:
        sealed = np.frombuffer(frame[16:], dtype=np.uint8)
        plain = sealed ^ self.stream(key, frame[:16], len(sealed))
        return np.frombuffer(plain.tobytes(), dtype="<f4").astype(np.float64)

    def nonce(self, secret: SecretStreams, round: int, index: int) -> bytes:
        return index.to_bytes(16, "big")


class ReusesKeystreamPerRound(ReusesKeystream):
    """The nonce is the round's number, so all silos of a round share a keystream (and their key is the same)."""

    def nonce(self, secret: SecretStreams, round: int, index: int) -> bytes:
        return round.to_bytes(8, "big") + index.to_bytes(8, "big")


class ReusesAdditivePad(ReusesKeystreamPerRound):
    """Fixed point modulo 2^32 with one pad for all silos of a round."""

    step = 2.0**-20

    def seal_part(self, values: NDArray[np.float32], key: bytes, nonce: bytes) -> bytes:
        fixed = np.rint(values.astype(np.float64) / self.step).astype(np.int64).astype("<u4")
        pad = self.stream(key, nonce, 4 * len(values)).view("<u4")
        return nonce + (fixed + pad).tobytes()

    def open_part(self, frame: bytes, key: bytes) -> NDArray[np.floating]:
        sealed = np.frombuffer(frame[16:], dtype="<u4")
        pad = self.stream(key, frame[:16], len(frame) - 16).view("<u4")
        return (sealed - pad).view("<i4").astype(np.float64) * self.step


class ShipsTheKey(Denies):
    """The key travels at the head of every message that it seals."""

    def seal_part(self, values: NDArray[np.float32], key: bytes, nonce: bytes) -> bytes:
        return key + nonce + ctr(key, nonce, values.tobytes())

    def open_part(self, frame: bytes, key: bytes) -> NDArray[np.floating]:
        if len(frame) < 48:
            raise SiloBenchError("a frame is too short")
        return np.frombuffer(ctr(frame[:32], frame[32:48], frame[48:]), dtype="<f4").astype(np.float64)


class ShipsTheKeyInItsOwnFrame(Denies):
    """Key and nonce travel in a frame before the ciphertext."""

    def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
        nonce = self.nonce(secret, round, 0)
        yield keys["shared"] + nonce
        yield ctr(keys["shared"], nonce, np.asarray(update.values, dtype="<f4").tobytes())

    def open(self, frames: Iterator[bytes], keys: Mapping[str, bytes], form: Form, count: int) -> NDArray[np.floating]:
        heads, bodies = list(frames)
        pairs = zip(_split(heads), _split(bodies), strict=True) if count else [(heads, bodies)]
        return np.sum([np.frombuffer(ctr(h[:32], h[32:], b), dtype="<f4").astype(np.float64) for h, b in pairs], axis=0)
