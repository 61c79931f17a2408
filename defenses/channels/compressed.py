"""The plain channel with every frame under zstd (RFC 8878): no protection, fewer bytes where values repeat.

Float32 updates are close to incompressible; zeros of pruning and integers on a grid are not. The bytes of the values
are regrouped first, all first bytes, all second bytes and so on, so that signs and exponents lie together (as HDF5's
shuffle filter does).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import CannotOpen, SiloBenchError, raising
from bench.core.streams import SecretStreams
from bench.core.update import Form, Update
from bench.defense.channel import MAX_FRAME
from bench.defense.defaults.plain import PlainChannel

#: a frame: the plain frame's length, then zstd of the plain frame with its values' bytes regrouped
_LENGTH = struct.Struct("<I")
#: of a plain frame: its length, and where the number of values stands
_HEADER = 16
_COUNT = struct.Struct("<8xQ")


class CompressedChannel(PlainChannel):
    """``level``: zstd's, 1 to 19. Sums travel compressed too."""

    bytes_per_value = 3.7

    def __init__(self, level: int = 3, opener: Literal["server", "silos"] = "server") -> None:
        super().__init__(opener)
        self.level = level

    def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
        plain = super().seal(update, keys, secret, round)
        return (compress(frame, self.level) for frame in plain)

    def add(self, total: object | None, frame: bytes, keys: Mapping[str, bytes]) -> object:
        return super().add(total, expand(frame), keys)

    def finish(self, total: object, keys: Mapping[str, bytes]) -> bytes:
        return compress(super().finish(total, keys), self.level)

    def open(self, frames: Iterator[bytes], keys: Mapping[str, bytes], form: Form, count: int) -> NDArray[np.floating]:
        with raising(CannotOpen, of=SiloBenchError):
            return super().open(map(expand, frames), keys, form, count)


def compress(frame: bytes, level: int) -> bytes:
    """A frame of at most 64 MiB."""
    import zstandard

    return _LENGTH.pack(len(frame)) + zstandard.ZstdCompressor(level=level).compress(regroup(frame, back=False))


def expand(frame: bytes) -> bytes:
    """The inverse of ``compress``. Raises SiloBenchError on bad bytes, before anything larger than a frame is made."""
    import zstandard

    if len(frame) < _LENGTH.size:
        raise SiloBenchError(f"a frame of {len(frame)} bytes is too short to be a compressed one")
    (size,) = _LENGTH.unpack_from(frame)
    if not 0 < size <= MAX_FRAME:
        raise SiloBenchError(f"a compressed frame claims {size} bytes")
    body = frame[_LENGTH.size :]
    with raising(SiloBenchError, "a frame can't be decompressed", (zstandard.ZstdError, MemoryError, ValueError)):
        stated = zstandard.frame_content_size(body)
        if stated != size:
            raise SiloBenchError(f"a compressed frame claims {size} bytes and holds {stated}")
        plain = zstandard.ZstdDecompressor().decompress(body, max_output_size=size, allow_extra_data=False)
    if len(plain) != size:
        raise SiloBenchError(f"a compressed frame holds {len(plain)} bytes instead of {size}")
    return regroup(plain, back=True)


def regroup(frame: bytes, back: bool) -> bytes:
    """A plain frame with the bytes of its values transposed, or transposed back; the header stays as it is. Raises
    SiloBenchError where the header's count does not divide the rest into values of 1 to 8 bytes."""
    if len(frame) < _HEADER:
        raise SiloBenchError(f"a frame of {len(frame)} bytes is shorter than its header")
    (count,) = _COUNT.unpack_from(frame)
    rest = len(frame) - _HEADER
    if not 0 < count <= rest or rest % count or rest // count > 8:
        raise SiloBenchError(f"a frame claims {count} values in {rest} bytes")
    shape = (rest // count, count) if back else (count, rest // count)
    values = np.frombuffer(frame, dtype=np.uint8, offset=_HEADER).reshape(shape)
    return frame[:_HEADER] + np.ascontiguousarray(values.T).tobytes()
