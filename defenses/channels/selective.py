"""Selective encryption after FedML-HE (Jin et al. 2023): the most sensitive coordinates under CKKS, the rest in clear.

What is taken over: one key pair of the silos, a share of the coordinates that is chosen once from what the silos
contribute under encryption, is the same for all silos and rounds, and is known to the server.

What differs from the paper. There, a coordinate's sensitivity is how fast its gradient changes with the true labels,
each silo computes the map before training, and the encrypted maps are summed. Here the map is the magnitude of the
first sum of updates itself: the first round is encrypted whole, its opened sum ranks the coordinates, and from the
second round on only the top ``share`` of them is encrypted. That costs no extra message and no second-order pass, hides
the first round entirely, and follows the change of the model instead of the labels.

What it protects. Nothing but the encrypted coordinates: the server reads the rest of every single upload from the
second round on, as float32, together with which coordinates mattered most. How much of the records that gives away is
what the benchmark measures; the coordinates left in clear are most of the update's dimensions, if not of its energy.
For the encrypted part everything said of CKKS holds (``flat_ckks``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import CannotOpen, SiloBenchError, raising
from bench.core.frames import decode_frame, encode_adapter
from bench.core.parties import is_silo
from bench.core.streams import SecretStreams
from bench.core.update import Form, Update
from bench.defense.channel import Candidate, Desk, Endpoint, Knowledge, Message, Opened
from bench.defense.sum_channel import SiloEndpoint, summed_silos
from defenses.channels.flat_ckks import FlatCKKS
from defenses.channels.homomorphic import Sum
from defenses.transforms.prune import smallest

#: the first byte of a frame says what it is
_MASK, _CLEAR, _SEALED = b"M", b"P", b"C"

Mask = NDArray[np.bool_]


class SelectiveCKKS(FlatCKKS):
    """``share``: of all coordinates that is encrypted, from the second round on. ``error``, ``largest``: of the CKKS
    part. A running sum is the mask (bytes, which every upload of a round repeats), values in clear, or a ``Sum``."""

    def __init__(self, share: float = 0.1, error: float = 1e-4, largest: float = 4.0) -> None:
        super().__init__(error, largest)
        self.share = share
        self.bytes_per_value = share * self.bytes_per_value + (1 - share) * 4 + 1 / 8

    def endpoint(self, desk: Desk) -> Endpoint:
        if is_silo(desk.me):
            return SelectiveSilo(self.for_public(desk.public), desk)
        return super().endpoint(desk)

    def sensitive(self, total: NDArray[np.floating]) -> Mask:
        """(layout.size,): where the ``share`` of largest magnitude of an opened sum is. Rounded to float32 first, so
        that silos on different machines agree."""
        return ~smallest(total.astype(np.float32), 1 - self.share)

    def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
        """The mask of the values that travel; those in clear; the ciphertexts of the others."""
        if update.grid is not None:
            raise SiloBenchError("selective encryption takes real values only")
        values = self.checked(update)
        mask = _mask_of(keys, update.form)
        where = np.arange(update.layout.size) if update.support is None else update.support
        part = Update(update.values[mask], update.layout, update.weight, support=where[mask])
        yield _MASK if mask.all() else _MASK + np.packbits(mask).tobytes()
        for frame in encode_adapter(values[~mask], "float32"):
            yield _CLEAR + frame
        for sealed in super().seal(part, keys, secret, round):
            yield _SEALED + sealed

    def add(self, total: object | None, frame: bytes, keys: Mapping[str, bytes]) -> object:
        kind = frame[:1]
        if kind == _MASK:
            if total is not None and not (isinstance(total, bytes) and total == frame):
                raise SiloBenchError("silos of one round encrypt different coordinates; their uploads can't be added")
            return frame
        if kind == _CLEAR:
            values = _clear_values(frame)
            if total is None:
                return values
            if not isinstance(total, np.ndarray) or total.shape != values.shape:
                raise SiloBenchError(f"a frame of {len(values)} values can't be added to a sum of others")
            return total + values
        if kind != _SEALED:
            raise SiloBenchError("a frame is neither a mask nor values nor a ciphertext")
        if total is not None and not isinstance(total, Sum):
            raise SiloBenchError("a ciphertext can't be added to what is none")
        return super().add(total, frame[1:], keys)

    def finish(self, total: object, keys: Mapping[str, bytes]) -> bytes:
        if isinstance(total, bytes):
            return total
        if isinstance(total, np.ndarray):
            return _CLEAR + next(encode_adapter(total, "float64"))
        if isinstance(total, Sum):
            return _SEALED + super().finish(total, keys)
        raise SiloBenchError("there is nothing to finish: no frame was added")

    def open(self, frames: Iterator[bytes], keys: Mapping[str, bytes], form: Form, count: int) -> NDArray[np.floating]:
        mask, values, rest = self._open_clear(frames, form)
        # positions among the values that travel, as if these were the whole adapter
        sealed = Form(form.layout, None, np.flatnonzero(mask))
        opened = super().open(rest, keys, sealed, count)
        values[mask] = opened[: len(mask)][mask]
        return form.spread(values)

    def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
        """What opens with a key; and, with or without one, what was sent in clear."""
        yield from super().read(knowledge)
        for message in knowledge.messages:
            own = message.sender in knowledge.parties and is_silo(message.sender)
            if message.stage in ("upload", "sum") and not own:
                with contextlib.suppress(CannotOpen, SiloBenchError):
                    yield self.clear_part(message, knowledge)

    def clear_part(self, message: Message, knowledge: Knowledge) -> Candidate:
        """The values that a message shows without any key. Raises CannotOpen where there are none."""
        summed = message.stage == "sum"
        silos = summed_silos(message, knowledge.public) if summed else (message.sender,)
        start = 2 if summed else 1
        if len(message.lengths) <= start:
            raise CannotOpen("the message holds no values")
        support = knowledge.supports.get(message.round)
        form = Form.read(message.frame(start - 1), knowledge.public.layout, support)
        frames = (message.frame(i) for i in range(start, len(message.lengths)))
        mask, values, _ = self._open_clear(frames, form)
        if mask.all():
            raise CannotOpen("every value is encrypted")
        where = np.flatnonzero(~mask) if support is None else support[~mask]
        return Candidate(message.round, frozenset(silos), form.spread(values), "values sent in clear", where)

    def _open_clear(self, frames: Iterator[bytes], form: Form) -> tuple[Mask, NDArray[np.float64], Iterator[bytes]]:
        """(mask, values with 0 where encrypted, the ciphertexts still to come). Raises CannotOpen."""
        if form.grid is not None:
            raise CannotOpen("the header names values on a grid, which this channel never sends")
        mask = _read_mask(next(frames, b""), form.count)
        values = np.zeros(form.count)
        found, missing = [np.empty(0)], int((~mask).sum())
        while missing:
            with raising(CannotOpen, of=SiloBenchError):
                part = _clear_values(next(frames, b""))
            if not 0 < len(part) <= missing:
                raise CannotOpen(f"a frame of {len(part)} values where {missing} are left")
            found.append(part)
            missing -= len(part)
        values[~mask] = np.concatenate(found)
        return mask, values, map(_ciphertext, frames)


class SelectiveSilo(SiloEndpoint):
    """Chooses the mask from the first sum that it opens, which is the same for all silos, and keeps it."""

    channel: SelectiveCKKS

    def opened(self) -> Iterable[tuple[int, Opened]]:
        for round, opened in super().opened():
            if "keys/mask" not in self.state:
                self.state["keys/mask"] = np.packbits(self.channel.sensitive(opened.values))
            yield round, opened


def _mask_of(keys: Mapping[str, bytes], form: Form) -> Mask:
    """(form.count,): which of the values that travel are encrypted; all, until a mask was chosen."""
    if "mask" not in keys:
        return np.ones(form.count, dtype=np.bool_)
    mask = np.unpackbits(np.frombuffer(keys["mask"], dtype=np.uint8), count=form.layout.size).astype(np.bool_)
    return mask if form.support is None else mask[form.support]


def _read_mask(frame: bytes, count: int) -> Mask:
    """One bit per value; no bits at all where every value is encrypted."""
    if frame == _MASK:
        return np.ones(count, dtype=np.bool_)
    if frame[:1] != _MASK or len(frame) != 1 + -(-count // 8):
        raise CannotOpen("the message does not begin with the mask of its values")
    return np.unpackbits(np.frombuffer(frame, dtype=np.uint8, offset=1), count=count).astype(np.bool_)


def _clear_values(frame: bytes) -> NDArray[np.float64]:
    """Raises SiloBenchError."""
    if frame[:1] != _CLEAR:
        raise SiloBenchError("a frame of values is missing")
    values = decode_frame(frame[1:]).astype(np.float64)
    if not np.isfinite(values).all():
        raise SiloBenchError("values in clear are not finite")
    return values


def _ciphertext(frame: bytes) -> bytes:
    if frame[:1] != _SEALED:
        raise CannotOpen("a frame is no ciphertext")
    return frame[1:]
