"""Integers modulo 2**bits as a bit string: value i takes the bits from ``bits * i`` on, least significant first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError

Words = NDArray[np.unsignedinteger[Any]]
#: bytes of packed values in one frame, at most
FRAME = 2**20
#: a frame holds a multiple of this many values, so that masks can be cut at the blocks of a cipher
_STEP = 1024
#: 64 values of any width fill whole 64-bit words, so that shifts of whole columns pack them
_GROUP = 64


def dtype_of(bits: int) -> np.dtype[Any]:
    """The narrowest unsigned integers, little-endian, that hold ``bits`` (1 to 64)."""
    size = next(size for size in (1, 2, 4, 8) if bits <= 8 * size)
    return np.dtype(f"<u{size}")


def per_frame(bits: int) -> int:
    """Values in a full frame: the most that fill no more than 1 MiB, a multiple of 1024."""
    return max(1, 8 * FRAME // bits // _STEP) * _STEP


def frame_sizes(count: int, bits: int) -> list[int]:
    """How many values each frame of a vector of ``count`` values holds."""
    full = per_frame(bits)
    return [min(full, count - start) for start in range(0, count, full)]


def packed_size(count: int, bits: int) -> int:
    """Bytes of ``count`` packed values."""
    return -(-count * bits // 8)


def pack(words: Words, bits: int) -> bytes:
    """``words``: shape (count,), unsigned; their ``bits`` lowest bits are packed, into ``packed_size`` bytes."""
    groups = -(-len(words) // _GROUP)
    columns = np.zeros((groups * _GROUP,), dtype=np.uint64)
    columns[: len(words)] = words
    columns &= np.uint64(2**bits - 1)
    columns = np.ascontiguousarray(columns.reshape(groups, _GROUP).T)
    out = np.zeros((bits, groups), dtype=np.uint64)
    for index in range(_GROUP):
        word, shift = divmod(index * bits, 64)
        out[word] |= columns[index] << np.uint64(shift)
        if shift + bits > 64:
            out[word + 1] |= columns[index] >> np.uint64(64 - shift)
    return np.ascontiguousarray(out.T).astype("<u8", copy=False).tobytes()[: packed_size(len(words), bits)]


def unpack(data: bytes, count: int, bits: int) -> Words:
    """The inverse of ``pack``: shape (count,), of ``dtype_of(bits)``. Raises SiloBenchError unless ``data`` is the one
    packing of ``count`` values: the right length, and no bit set after the last value."""
    if len(data) != packed_size(count, bits):
        raise SiloBenchError(f"{len(data)} bytes are not {count} values of {bits} bits")
    spare = 8 * len(data) - count * bits
    if spare and data[-1] >> (8 - spare):
        raise SiloBenchError("packed values end in bits that mean nothing")
    groups = -(-count // _GROUP)
    padded = np.zeros(groups * bits * 8, dtype=np.uint8)
    padded[: len(data)] = np.frombuffer(data, dtype=np.uint8)
    rows = np.ascontiguousarray(padded.view("<u8").reshape(groups, bits).T)
    out = np.empty((_GROUP, groups), dtype=dtype_of(bits))
    mask = np.uint64(2**bits - 1)
    for index in range(_GROUP):
        word, shift = divmod(index * bits, 64)
        value = rows[word] >> np.uint64(shift)
        if shift + bits > 64:
            value = value | (rows[word + 1] << np.uint64(64 - shift))
        out[index] = value & mask
    return np.ascontiguousarray(out.T).reshape(-1)[:count]


def largest(values: NDArray[Any]) -> Any:
    """The largest absolute value, 0 of none, as a Python number: also of the least integer that a type holds. Not a
    number, or infinite, where a value is."""
    return max(-values.min(initial=0).item(), values.max(initial=0).item())


def centred(words: Words, bits: int) -> NDArray[np.int64]:
    """Representatives modulo 2**bits in [-2**(bits-1), 2**(bits-1)); ``bits`` at most 62."""
    half = 2 ** (bits - 1)
    values: NDArray[np.int64] = ((words.astype(np.int64) + half) & (2**bits - 1)) - half
    return values
