"""The plain channel: updates travel in clear, float32 or small integers; the server sums in float64 or int64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import CannotOpen, SiloBenchError
from bench.core.frames import decode_frame, encode_adapter, encode_integers
from bench.core.streams import SecretStreams
from bench.core.update import Form, Update
from bench.defense.sum_channel import SumChannel


class PlainChannel(SumChannel):
    """No protection at all; the baseline of bytes and of what a server reads."""

    accepts = frozenset({"real", "grid"})

    def __init__(self, opener: Literal["server", "silos"] | None = None) -> None:
        """``opener``: "silos" has the server send them the sum, and each apply it for itself. None: the class's own."""
        self.opener = self.opener if opener is None else opener

    def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
        if update.grid is None:
            return encode_adapter(update.values.astype(np.float32), "float32")
        return encode_integers(update.values.astype(np.int64), update.grid.bits)

    def add(self, total: object | None, frame: bytes, keys: Mapping[str, bytes]) -> object:
        values = decode_frame(frame)
        wide = values.astype(np.int64 if values.dtype.kind == "i" else np.float64)
        if total is None:
            return wide
        if not isinstance(total, np.ndarray) or total.shape != wide.shape or total.dtype != wide.dtype:
            raise SiloBenchError(f"a frame of {len(values)} values can't be added to a sum of other values")
        total += wide
        return total

    def finish(self, total: object, keys: Mapping[str, bytes]) -> bytes:
        if not isinstance(total, np.ndarray):
            raise SiloBenchError("there is nothing to finish: no frame was added")
        return next(encode_integers(total, 64) if total.dtype.kind == "i" else encode_adapter(total, "float64"))

    def open(self, frames: Iterator[bytes], keys: Mapping[str, bytes], form: Form, count: int) -> NDArray[np.floating]:
        values = np.empty(form.count, dtype=np.float64 if form.grid is None else np.int64)
        filled = 0
        for frame in frames:
            part = self._part(frame, form, max(count, 1))
            if filled + len(part) > form.count:
                raise CannotOpen(f"more than the {form.count} values of the adapter")
            values[filled : filled + len(part)] = part
            filled += len(part)
        if filled != form.count:
            raise CannotOpen(f"{filled} values instead of the {form.count} that were sent")
        return form.spread(values)

    def _part(self, frame: bytes, form: Form, count: int) -> NDArray[np.number]:
        try:
            part = decode_frame(frame)
        except SiloBenchError as error:
            raise CannotOpen(str(error)) from None
        if (part.dtype.kind == "i") != (form.grid is not None):
            raise CannotOpen("a frame does not hold the kind of values that the header names")
        most = np.inf if form.grid is None else count * form.grid.levels
        if part.max(initial=0) > most or part.min(initial=0) < -most:
            raise CannotOpen(f"a frame holds integers beyond {most}, which {count} silos can't reach on the grid")
        return part
