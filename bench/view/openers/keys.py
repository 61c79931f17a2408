"""Keys shipped with what they seal: AES in counter mode, key and nonce looked for in headers, tails and small frames.

GCM is the same with the counter starting at 2. What decrypts to something uneven is then read like any plain message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from bench.core.parties import is_silo
from bench.defense.channel import Candidate, Knowledge, Message
from bench.view.openers.base import Hints, sealed
from bench.view.openers.layouts import Source, bodies
from bench.view.openers.numeric import read_message
from bench.view.openers.uniform import EVEN, SAMPLE, UNEVEN, middle, surprise, surprises

_KEY_SIZES = (16, 32)
_KEY_OFFSETS = (0, 12, 16, 32)
_STARTS = (0, 12, 16, 28, 32, 44, 48, 64)
_SMALL = 64  # bytes of a frame that may be nothing but a key and a nonce
_MOST_KEYS = 64
_TAG = 16


@dataclass(frozen=True)
class _Iv:
    """A first counter block. ``at``: where in a frame it was found, or None where it is a constant."""

    block: bytes
    at: tuple[int, int, bytes] | None = None  # start, stop, what completes it to 16 bytes

    def of(self, frame: bytes) -> bytes:
        """The counter block at the same place in another frame."""
        if self.at is None:
            return self.block
        start, stop, rest = self.at
        found = frame[start:stop] + rest
        return found if len(found) == 16 else self.block


def shipped_keys(knowledge: Knowledge, hints: Hints) -> Iterable[Candidate]:
    """Messages decrypted with keys that lie in them, in small frames of their sender or of the set-up, or that the
    coalition holds."""
    pending = [m for m in sealed(knowledge) if hints.targets(m)]
    if not pending:
        return
    small = _small_frames(knowledge)
    held = _held(knowledge)
    if len(held) > _MOST_KEYS:
        hints.untried(f"{len(held) - _MOST_KEYS} of {len(held)} keys that the coalition holds, the oldest")
    for message in pending:
        source = Source.of(message)
        if not _even(source):
            continue
        shipped = _near(message, small)
        if len(shipped) > _MOST_KEYS:
            hints.untried(f"keys in small frames beyond the {_MOST_KEYS} next to each message")
        keys = dict.fromkeys([*_keys_inside(source), *shipped[:_MOST_KEYS], *held[:_MOST_KEYS]])
        for plain in _decrypted(source, list(keys), message.round, knowledge.public.layout.size):
            yield from read_message(message, plain, knowledge, hints, "AES-CTR, its key shipped or held: ")
            if not hints.targets(message):
                break


def _even(source: Source) -> bool:
    """Only what looks like a stream cipher's output is worth decrypting."""
    return source.size >= 2 * _SMALL and surprise(middle(source.whole())) > EVEN


def _held(knowledge: Knowledge) -> list[bytes]:
    """Distinct keys that the coalition's parties hold, the newest of each party first."""
    newest = zip_longest(*(reversed(list(keys.values())) for keys in knowledge.keys.values()))
    values = (value.tobytes() for one in newest for value in one if value is not None)
    return list(dict.fromkeys(cut for value in values for cut in _cuts(value)))


def _near(message: Message, small: Mapping[str, Sequence[tuple[int, bytes]]]) -> list[bytes]:
    """Distinct keys in the small frames of the message's sender, of everybody else and of the set-up, those of the
    rounds next to it first, of two as near the later one."""
    frames = [(round, frame) for sender in (message.sender, "") for round, frame in small.get(sender, ())]
    frames.sort(key=lambda one: (abs(one[0] - message.round), -one[0]))
    return list(dict.fromkeys(cut for _, frame in frames for cut in _cuts(frame)))


def _small_frames(knowledge: Knowledge) -> dict[str, list[tuple[int, bytes]]]:
    """Distinct frames of at most ``_SMALL`` bytes with their rounds, by sending silo; under "" those of the server, a
    dealer and the set-up."""
    found: dict[str, dict[tuple[int, bytes], None]] = {}
    for message in knowledge.messages:
        owner = message.sender if is_silo(message.sender) and message.round >= 0 else ""
        for index, length in enumerate(message.lengths):
            if _KEY_SIZES[0] <= length <= _SMALL:
                found.setdefault(owner, {})[message.round, message.frame(index)] = None
    return {owner: list(frames) for owner, frames in found.items()}


def _cuts(frame: bytes) -> Iterator[bytes]:
    """Keys that a small byte string may be or hold."""
    if len(frame) > _SMALL:
        return
    for size in _KEY_SIZES:
        for start in range(0, len(frame) - size + 1, 4):
            yield frame[start : start + size]


def _keys_inside(source: Source) -> Iterator[bytes]:
    """Keys that the first or the last frame may begin or end with."""
    for index in {0, len(source.lengths) - 1}:
        frame = source.frame(index)
        for size in _KEY_SIZES:
            for start in _KEY_OFFSETS:
                if start + size <= len(frame):
                    yield frame[start : start + size]
            if size <= len(frame):
                yield frame[len(frame) - size :]


def _ivs(source: Source, first: int, round: int) -> list[_Iv]:
    """Counter blocks: zero, the round's number, and what stands in the header frame or at the ends of the first."""
    fixed = [_Iv(bytes(16)), *(_Iv(round.to_bytes(16, order)) for order in ("big", "little"))]
    found = []
    for index in {0, first}:
        frame = source.frame(index)
        for start in (0, 16, 32, len(frame) - 16):
            if 0 <= start <= len(frame) - 16:
                found.append(_Iv(frame[start : start + 16], (start, start + 16, b"")))
        for start in (0, 16, 32):
            for counter in (0, 1, 2):
                rest = counter.to_bytes(4, "big")
                if start + 12 <= len(frame):
                    found.append(_Iv(frame[start : start + 12] + rest, (start, start + 12, rest)))
    return list({iv.block: iv for iv in [*fixed, *found]}.values())


def _decrypted(source: Source, keys: Sequence[bytes], round: int, size: int) -> Iterator[Source]:
    """What came out uneven, decrypted whole, for every way in which a counter may run over the frames."""
    if source.size > 16 * size + 2**16:
        return
    options = list(bodies(len(source.lengths)))
    for index in dict.fromkeys(body[0] for body in options):
        first = source.frame(index)
        n = min(SAMPLE, len(first) - _STARTS[-1])
        if n < _SMALL:
            continue
        shifted = np.stack([np.frombuffer(first, np.uint8, n, start) for start in _STARTS])
        for iv in _ivs(source, index, round):
            for key in keys:
                stream = np.frombuffer(_ctr(key, iv.block, bytes(n)), np.uint8)
                for row in np.flatnonzero(surprises(shifted ^ stream) < UNEVEN):
                    for body in (b for b in options if b[0] == index):
                        yield from _plans(source, body, key, iv, _STARTS[row])


def _plans(source: Source, body: range, key: bytes, iv: _Iv, start: int) -> Iterator[Source]:
    """One counter over all frames (their own headers within or cut off), or a new one in every frame."""
    frames = [source.frame(i) for i in body]
    yield Source.of_frames([_ctr(key, iv.block, b"".join(frames)[start:])])
    if len(frames) == 1:
        return
    for tag in (0, _TAG):
        cut = [frame[start : len(frame) - tag] for frame in frames]
        yield Source.of_frames([_ctr(key, iv.block, b"".join(cut))])
        yield Source.of_frames([_ctr(key, iv.of(f), c) for f, c in zip(frames, cut, strict=True)])
        yield Source.of_frames([_ctr(key, iv.block, c) for c in cut])


def _ctr(key: bytes, block: bytes, data: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    plain: bytes = Cipher(algorithms.AES(key), modes.CTR(block)).decryptor().update(data)
    return plain
