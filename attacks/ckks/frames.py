"""Which frame of a message holds which values, and how it is written.

A sum begins with a header that names its silos, and like an upload with one that names its form; then come ciphertexts:
one or more per tensor (published FedShield), or of all values in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from attacks.ckks import blobs
from attacks.ckks.blobs import Ciphertext, Scheme
from attacks.ckks.field import Field, Words
from attacks.ckks.secret import read
from attacks.ckks.slots import Float, Slots
from bench.channel import Knowledge, Message
from bench.errors import CannotOpen, SiloBenchError
from bench.openers.base import sealed_by_silos
from bench.parties import SERVER
from bench.sum_endpoints import summed_silos
from bench.update import Layout

Parse = Callable[[bytes, Scheme], Ciphertext]
FORMS: tuple[Parse, ...] = (blobs.vector, blobs.packed)
_SUM_HEADERS, _UPLOAD_HEADERS = 2, 1


@dataclass(frozen=True)
class Sum:
    """The ciphertexts of one sum. ``weight``: of its silos, in all; ``count``: how many they are."""

    message: Message
    weight: int
    count: int

    @property
    def frames(self) -> int:
        return len(self.message.lengths) - _SUM_HEADERS

    def frame(self, index: int) -> bytes:
        """Raises CannotOpen."""
        return _frame(self.message, _SUM_HEADERS + index)


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
    """How the ciphertexts of a federation are written and cut, and the key to them once it is known."""

    scheme: Scheme
    parse: Parse
    cut: tuple[slice, ...]
    field: Field
    slots: Slots

    def open_upload(self, message: Message, key: Words) -> Float:
        """(size,) float64: a silo's summand. Raises CannotOpen."""
        if len(message.lengths) != _UPLOAD_HEADERS + len(self.cut):
            raise CannotOpen("an upload has another number of ciphertexts than sums have")
        values = np.empty(self.cut[-1].stop)
        for number, span in enumerate(self.cut):
            ciphertext = self.parse(_frame(message, _UPLOAD_HEADERS + number), self.scheme)
            if ciphertext.level != self.scheme.fresh:
                raise CannotOpen("an upload is no fresh ciphertext")
            values[span] = read(self.field, self.slots, ciphertext, key)[: span.stop - span.start]
            values[span] /= ciphertext.scale
        return values


def _frame(message: Message, index: int) -> bytes:
    try:
        if index < len(message.lengths):
            return message.frame(index)
    except SiloBenchError as error:
        raise CannotOpen(str(error)) from None
    raise CannotOpen("a message has fewer frames than it should")
