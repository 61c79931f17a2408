"""Compressed frames and frames that hold named arrays: zstd, zlib, gzip, npy, npz, safetensors. No pickle.

Sizes are bounded before anything is expanded: the bytes come from others.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from bench.core.update import Layout
from bench.defense.channel import MAX_FRAME
from bench.view.openers.layouts import Source, bodies

MAX_DEPTH = 2
_SEARCH = 64  # bytes in which a container may begin
_ARRAYS = 100_000  # arrays in one container
_INFLATE = {"zstd": b"\x28\xb5\x2f\xfd", "gzip": b"\x1f\x8b\x08", "zlib": b"\x78"}
_ARCHIVES = {"npz": b"PK\x03\x04", "npy": b"\x93NUMPY"}

Flat = NDArray[np.floating]
Named = list[tuple[str, Flat]]


class _NotThis(Exception):
    """The bytes are not what their first ones promise, or are larger than any message of this size should be."""


def expand(source: Source, layout: Layout) -> Iterator[tuple[str, Source | Flat]]:
    """(name, content): decompressed frames as a new source, or the adapter's values in canonical order (where arrays
    bear the layout's names, else as they lie), wherever frames hold a container."""
    if not source.lengths:
        return
    for body in bodies(len(source.lengths)):
        if source.lengths[body[0]] == 0:
            continue
        for name, start in _beginnings(source.frame(body[0])):
            try:
                yield from _expanded(source, body, name, start, layout)
            except _NotThis:
                continue


def _beginnings(frame: bytes) -> Iterator[tuple[str, int]]:
    """Containers that may begin in the first bytes of a frame."""
    head = frame[: _SEARCH + 8]
    for name, magic in (_INFLATE | _ARCHIVES).items():
        start = head.find(magic)
        if 0 <= start < _SEARCH:
            yield name, start
    at = head.find(b"{")
    if 8 <= at < _SEARCH:
        yield "safetensors", at - 8


def _expanded(
    source: Source, body: range, name: str, start: int, layout: Layout
) -> Iterator[tuple[str, Source | Flat]]:
    limit = 16 * layout.size + 2**16
    frames = [source.frame(i)[start:] for i in body] if sum(source.lengths[i] for i in body) <= limit else None
    if name in _INFLATE:
        yield name, Source.of_frames(_inflate(source, body, name, start, limit))
        return
    if frames is None:
        raise _NotThis
    read = _READERS[name]
    try:
        parts = [read(frame, limit) for frame in frames]
    except _NotThis:
        if len(frames) == 1:
            raise
        parts = [read(b"".join([frames[0], *(source.frame(i) for i in body[1:])]), limit)]
    yield name, _arrange([entry for part in parts for entry in part], layout)


def _arrange(entries: Named, layout: Layout) -> Flat:
    named = dict(entries)
    if set(layout.names) <= set(named):
        entries = [(name, named[name]) for name in layout.names]
    values = np.concatenate([array for _, array in entries] or [np.empty(0)])
    if values.shape != (layout.size,):
        raise _NotThis
    return values


def _inflate(source: Source, body: range, name: str, start: int, limit: int) -> list[bytes]:
    """Each frame decompressed, or all of them as one; at most ``limit`` bytes in all."""
    unpack = _zstd if name == "zstd" else _zlib
    frames: list[bytes] = []
    try:
        for i in body:
            frames.append(unpack(source.frame(i)[start:], limit - sum(map(len, frames))))
    except _NotThis:
        if len(body) == 1 or sum(source.lengths[i] for i in body) > limit:
            raise
        joined = source.frame(body[0])[start:] + b"".join(source.frame(i) for i in body[1:])
        frames = [unpack(joined, limit)]
    return frames


def _zstd(data: bytes, limit: int) -> bytes:
    import zstandard

    if limit <= 0:
        raise _NotThis
    try:
        with zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(data) as reader:
            plain: bytes = reader.read(limit + 1)
    except (zstandard.ZstdError, MemoryError):
        raise _NotThis from None
    return _bounded(plain, limit)


def _zlib(data: bytes, limit: int) -> bytes:
    if limit <= 0:
        raise _NotThis
    try:
        return _bounded(zlib.decompressobj(wbits=47).decompress(data, limit + 1), limit)
    except zlib.error:
        raise _NotThis from None


def _bounded(data: bytes, limit: int) -> bytes:
    if not data or len(data) > limit:
        raise _NotThis
    return data


def _npy(data: bytes, limit: int) -> Named:
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(stream)
        rest = len(data) - stream.tell()
        if dtype.hasobject or dtype.kind not in "fiu" or math.prod(shape) * dtype.itemsize > rest:
            raise _NotThis
        stream.seek(0)
        return [("", _flat(np.lib.format.read_array(stream, allow_pickle=False)))]
    except Exception:  # the parser of a hostile header may fail in any way
        raise _NotThis from None


def _npz(data: bytes, limit: int) -> Named:
    """Arrays in the order in which the archive lists them."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > _ARRAYS or sum(e.file_size for e in entries) > limit + 256 * len(entries):
                raise _NotThis
            return [(e.filename.removesuffix(".npy"), _entry(archive, e, limit)) for e in entries]
    except Exception:  # likewise
        raise _NotThis from None


def _entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limit: int) -> Flat:
    with archive.open(entry) as file:
        # what the directory says may be a lie: read no more than it says
        return _npy(file.read(entry.file_size), limit)[0][1]


def _safetensors(data: bytes, limit: int) -> Named:
    """Tensors in the order in which their bytes lie."""
    import safetensors

    if len(data) < 8 or struct.unpack("<Q", data[:8])[0] > min(len(data) - 8, MAX_FRAME):
        raise _NotThis
    try:
        entries = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
    except (safetensors.SafetensorError, ValueError, MemoryError):
        raise _NotThis from None
    if len(entries) > _ARRAYS:
        raise _NotThis
    return [(str(name), _tensor(str(entry["dtype"]), bytes(entry["data"]))) for name, entry in entries]


_TENSOR_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1"}


def _tensor(kind: str, data: bytes) -> Flat:
    if kind == "BF16":
        return (np.frombuffer(data, dtype="<u2").astype("<u4") << np.uint32(16)).view("<f4")
    if kind not in _TENSOR_TYPES:
        raise _NotThis
    return _flat(np.frombuffer(data, dtype=_TENSOR_TYPES[kind]))


def _flat(values: NDArray[np.generic]) -> Flat:
    with np.errstate(over="ignore", invalid="ignore"):
        return values.reshape(-1).astype(np.float64)


_READERS: dict[str, Callable[[bytes, int], Named]] = {"npz": _npz, "npy": _npy, "safetensors": _safetensors}
