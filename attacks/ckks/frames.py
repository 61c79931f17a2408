"""Which frame of a message holds which values, and how it is written.

A sum begins with a header that names its silos, and like an upload with one that names its form; then come
ciphertexts: one or more per tensor (published FedShield), or of all values in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attacks.ckks import blobs
from attacks.ckks.blobs import Ciphertext, Scheme
from attacks.ckks.field import Field, Words
from attacks.ckks.secret import read
from attacks.ckks.slots import Float, Slots
from bench.core.errors import CannotOpen, SiloBenchError
from bench.core.frames import decode_adapter
from bench.core.parties import SERVER
from bench.core.update import Layout
from bench.defense.channel import Knowledge, Message
from bench.defense.sum_channel import summed_silos
from bench.view.openers.base import sealed_by_silos

Parse = Callable[[bytes, Scheme], Ciphertext]
#: (parse, marked) as in ``Lock``
FORMS: tuple[tuple[Parse, bool], ...] = ((blobs.vector, False), (blobs.packed, False), (blobs.packed, True))
_MASK, _CLEAR, _SEALED = b"M", b"P", b"C"
_SUM_HEADERS, _UPLOAD_HEADERS = 2, 1


@dataclass(frozen=True)
class Sum:
    """The ciphertexts of one sum. ``weight``: of its silos, in all; ``count``: how many they are."""

    message: Message
    weight: int
    count: int


def sums(knowledge: Knowledge) -> Iterator[Sum]:
    """What the server sent out as sums."""
    for message in knowledge.messages:
        if message.sender != SERVER or message.stage != "sum" or message.round < 0:
            continue
        try:
            silos = summed_silos(message, knowledge.public)
        except SiloBenchError:
            continue
        yield Sum(message, sum(knowledge.public.weights[s] for s in silos), len(silos))


def uploads(knowledge: Knowledge) -> Iterator[Message]:
    """Single silos' uploads, the coalition's own left out."""
    return (m for m in sealed_by_silos(knowledge) if m.stage == "upload" and m.sender not in knowledge.parties)


def cuts(layout: Layout, slots: int) -> tuple[tuple[slice, ...], ...]:
    """The ways to cut an adapter into ciphertexts: tensor by tensor, and all in a row; once where they are the same."""
    by_tensor = tuple(
        slice(start, min(start + slots, last))
        for first, last in zip(layout.offsets, layout.offsets[1:], strict=False)
        for start in range(first, last, slots)
    )
    in_a_row = tuple(slice(start, min(start + slots, layout.size)) for start in range(0, layout.size, slots))
    return (by_tensor,) if by_tensor == in_a_row else (by_tensor, in_a_row)


@dataclass(frozen=True)
class Lock:
    """How the ciphertexts of a federation are written and cut. ``marked``: a message begins with a mask of the values
    that are sealed, then come those in clear, and a letter before each frame says what it is (selective encryption)."""

    scheme: Scheme
    parse: Parse
    marked: bool
    cut: tuple[slice, ...]
    field: Field
    slots: Slots

    def fits(self, total: Sum) -> bool:
        """Whether a sum has as many ciphertexts as the whole adapter takes, and begins with one of them, of as many
        values as it says, if it says so."""
        if len(total.message.lengths) != _SUM_HEADERS + self.marked + len(self.cut):
            return False
        try:
            first = self.ciphertext(total, 0)
        except CannotOpen:
            return False
        return first.count in (None, self.cut[0].stop - self.cut[0].start)

    def ciphertext(self, total: Sum, index: int) -> Ciphertext:
        """One ciphertext of a sum of which all values are sealed. Raises CannotOpen."""
        if not self.marked:
            return self.parse(_frame(total.message, _SUM_HEADERS + index), self.scheme)
        if _frame(total.message, _SUM_HEADERS) != _MASK:
            raise CannotOpen("some values of a sum are not sealed")
        return self.parse(_unmarked(_frame(total.message, _SUM_HEADERS + 1 + index), _SEALED), self.scheme)

    def open_upload(self, message: Message, key: Words) -> Float:
        """(size,) float64: a silo's summand. Raises CannotOpen."""
        frames = [_frame(message, i) for i in range(_UPLOAD_HEADERS, len(message.lengths))]
        if self.marked:
            return self._open_marked(frames, key)
        values = np.empty(self.cut[-1].stop)
        self._open(frames, self.cut, key, values)
        return values

    def _open_marked(self, frames: list[bytes], key: Words) -> Float:
        """The sealed values are in a row, where the mask says; the others are in clear."""
        size = self.cut[-1].stop
        mask = _mask(frames[0] if frames else b"", size)
        values, sealed = np.empty(size), np.empty(int(mask.sum()))
        clear = [_unmarked(frame, _CLEAR) for frame in frames[1:] if frame[:1] == _CLEAR]
        try:
            values[~mask] = decode_adapter(clear, size - len(sealed))
        except SiloBenchError as error:
            raise CannotOpen(str(error)) from None
        width = self.scheme.slots
        cut = tuple(slice(start, min(start + width, len(sealed))) for start in range(0, len(sealed), width))
        self._open([_unmarked(frame, _SEALED) for frame in frames[1 + len(clear) :]], cut, key, sealed)
        values[mask] = sealed
        return values

    def _open(self, frames: Sequence[bytes], cut: Sequence[slice], key: Words, values: Float) -> None:
        if len(frames) != len(cut):
            raise CannotOpen(f"an upload has {len(frames)} ciphertexts, not {len(cut)}")
        for frame, span in zip(frames, cut, strict=True):
            ciphertext = self.parse(frame, self.scheme)
            if ciphertext.level != self.scheme.fresh:
                raise CannotOpen("an upload is no fresh ciphertext")
            values[span] = read(self.field, self.slots, ciphertext, key)[: span.stop - span.start]
            values[span] /= ciphertext.scale


def _mask(frame: bytes, size: int) -> NDArray[np.bool_]:
    if frame == _MASK:
        return np.ones(size, dtype=np.bool_)
    if frame[:1] != _MASK or len(frame) != 1 + -(-size // 8):
        raise CannotOpen("a message does not begin with the mask of its values")
    return np.unpackbits(np.frombuffer(frame, dtype=np.uint8, offset=1), count=size).astype(np.bool_)


def _unmarked(frame: bytes, mark: bytes) -> bytes:
    if frame[:1] != mark:
        raise CannotOpen("a frame is of another kind than it should be")
    return frame[1:]


def _frame(message: Message, index: int) -> bytes:
    try:
        if index < len(message.lengths):
            return message.frame(index)
    except SiloBenchError as error:
        raise CannotOpen(str(error)) from None
    raise CannotOpen("a message has fewer frames than it should")
