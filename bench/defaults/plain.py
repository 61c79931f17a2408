"""The plain channel: updates travel as float32 in clear, the server sums in float64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from bench.channel import SumChannel
from bench.errors import CannotOpen, SiloBenchError
from bench.federation.adapters import decode_frame, encode_adapter
from bench.streams import SecretStreams
from bench.update import Layout, Update


class PlainChannel(SumChannel):
    """No protection at all; the baseline of bytes and of what a server reads."""

    def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
        return encode_adapter(update.values.astype(np.float32), "float32")

    def add(self, total: object | None, frame: bytes, keys: Mapping[str, bytes]) -> object:
        values = decode_frame(frame)
        if total is None:
            return values.astype(np.float64)
        if not isinstance(total, np.ndarray) or total.shape != values.shape:
            raise SiloBenchError(f"a frame of {len(values)} values can't be added to a sum of another length")
        total += values
        return total

    def finish(self, total: object, keys: Mapping[str, bytes]) -> bytes:
        if not isinstance(total, np.ndarray):
            raise SiloBenchError("there is nothing to finish: no frame was added")
        return next(encode_adapter(total, "float64"))

    def open(
        self, frames: Iterator[bytes], keys: Mapping[str, bytes], layout: Layout, count: int
    ) -> NDArray[np.floating]:
        values = np.empty(layout.size, dtype=np.float64)
        filled = 0
        for frame in frames:
            try:
                part = decode_frame(frame)
            except SiloBenchError as error:
                raise CannotOpen(str(error)) from None
            if filled + len(part) > layout.size:
                raise CannotOpen(f"more than the {layout.size} values of the adapter")
            values[filled : filled + len(part)] = part
            filled += len(part)
        if filled != layout.size:
            raise CannotOpen(f"{filled} values instead of the adapter's {layout.size}")
        return values
