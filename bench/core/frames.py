"""Flat arrays as frames: the codec of broadcasts, releases and the plain channel.

A frame is 16 bytes of header (magic ``SBV1``, a precision code, three zero bytes, the number of values as uint64,
little-endian) and the values, little-endian: floats, or signed integers of 8 to 64 bits. Frames hold at most ``CHUNK``
values; each decodes on its own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError

CHUNK = 2**22
_MAGIC = b"SBV1"
_HEADER = struct.Struct("<4sB3xQ")
_CODES = {"float64": 0, "float32": 1, "float16": 2, "bfloat16": 3}
_INTEGERS: dict[int, np.dtype[Any]] = {4: np.dtype("i1"), 5: np.dtype("<i2"), 6: np.dtype("<i4"), 7: np.dtype("<i8")}
_TYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype("<f8"),
    1: np.dtype("<f4"),
    2: np.dtype("<f2"),
    3: np.dtype("<u2"),
    **_INTEGERS,
}


def _to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round to nearest even, on the bit patterns."""
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    result: NDArray[np.uint16] = rounded.astype("<u2")
    return result


def encode_adapter(values: NDArray[np.floating], precision: str = "float32") -> Iterator[bytes]:
    """Frames of a flat array at ``precision`` (float64, float32, float16, bfloat16)."""
    code = _CODES[precision]
    for start in range(0, len(values), CHUNK):
        part = values[start : start + CHUNK]
        raw = _to_bfloat16(part.astype(np.float32)) if precision == "bfloat16" else part.astype(_TYPES[code])
        yield _HEADER.pack(_MAGIC, code, len(part)) + raw.tobytes()


def encode_integers(values: NDArray[np.integer], bits: int) -> Iterator[bytes]:
    """Frames of a flat array of signed integers that fit in ``bits``, in the smallest type that holds as many."""
    code = next(code for code, dtype in _INTEGERS.items() if dtype.itemsize * 8 >= bits)
    for start in range(0, len(values), CHUNK):
        part = values[start : start + CHUNK]
        yield _HEADER.pack(_MAGIC, code, len(part)) + part.astype(_TYPES[code]).tobytes()


def decode_frame(frame: bytes) -> NDArray[Any]:
    """The values of one frame, in their own precision (bfloat16 as float32). Raises SiloBenchError on bad bytes."""
    if len(frame) < _HEADER.size:
        raise SiloBenchError(f"a frame of {len(frame)} bytes is shorter than its {_HEADER.size}-byte header")
    magic, code, count = _HEADER.unpack_from(frame)
    if magic != _MAGIC or code not in _TYPES:
        raise SiloBenchError("a frame does not begin with a header of values")
    dtype = _TYPES[code]
    if count > CHUNK or len(frame) != _HEADER.size + count * dtype.itemsize:
        raise SiloBenchError(f"a frame claims {count} values and has {len(frame)} bytes")
    values: NDArray[Any] = np.frombuffer(frame, dtype=dtype, offset=_HEADER.size)
    if code == _CODES["bfloat16"]:
        values = (values.astype("<u4") << 16).view("<f4")
    return values


def without_zeros(values: NDArray[np.floating], short: int) -> NDArray[np.floating]:
    """The first ``short`` values where all that follow are 0, else all: what ``decode_adapter`` completes."""
    return values if values[short:].any() else values[:short]


def decode_adapter(frames: Iterable[bytes], size: int, short: int | None = None) -> NDArray[np.float32]:
    """A flat float32 array of ``size`` values, or of ``short`` and zeros after them. Raises SiloBenchError on bad
    bytes, a wrong size or a value that is not finite."""
    result = np.zeros(size, dtype=np.float32)
    filled = 0
    for frame in frames:
        part = decode_frame(frame)
        if filled + len(part) > size:
            raise SiloBenchError(f"an adapter has more than the expected {size} values")
        result[filled : filled + len(part)] = part
        filled += len(part)
    if filled not in (size, short):
        raise SiloBenchError(f"an adapter has {filled} values, expected {size}")
    if not np.isfinite(result).all():
        raise SiloBenchError("an adapter holds values that are not finite")
    return result
