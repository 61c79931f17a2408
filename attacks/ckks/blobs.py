"""SEAL's and TenSEAL's bytes, read without either library. All of it is somebody else's: every length is checked before
anything is allocated, and what does not fit is CannotOpen.

A blob that SEAL wrote has 16 bytes of header (magic 0xA15E, header size 16, version, compression: 0 none, 2 zstd, two
bytes of zero, and the length of all as uint64) before its body, all little-endian. The body of a ciphertext: 32 bytes
that name its parameters, a byte that is 1 in the transformed domain, as uint64 the number of polynomials, N and the
number of primes, the scale as float64, a correction factor as uint64, and the words in a blob of their own with their
count. TenSEAL wraps blobs in protobuf messages.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import CannotOpen

Words = NDArray[np.uint64]

_HEADER = struct.Struct("<HBBBBHQ")
_MAGIC = 0xA15E
_NONE, _ZSTD = 0, 2
_CIPHERTEXT = struct.Struct("<32sBQQQdQ")
_MAX_DEGREE = 32768
_MAX_PRIMES = 64
_MAX_FIELDS = 64


@dataclass(frozen=True)
class Scheme:
    """Public parameters. ``primes``: of the modulus, the special prime last; a fresh ciphertext has all but that.
    ``scale``: what encoded numbers are multiplied by, as TenSEAL labels it."""

    degree: int
    primes: tuple[int, ...]
    scale: float

    @property
    def slots(self) -> int:
        """Numbers in one ciphertext."""
        return self.degree // 2

    @property
    def fresh(self) -> int:
        """Primes of a ciphertext that nobody has rescaled."""
        return max(1, len(self.primes) - 1)


@dataclass(frozen=True)
class Ciphertext:
    """Two polynomials under the first prime, (2, N) words in SEAL's transformed order. ``level``: how many primes it
    has; ``scale``: its label; ``count``: how many values it says that it holds, or None."""

    words: Words
    level: int
    scale: float
    count: int | None = None


def scheme_of(context: bytes) -> Scheme:
    """The parameters in a context that TenSEAL serialised, with or without keys. Raises CannotOpen."""
    fields = list(_fields(context))
    parameters = next((value for number, value in fields if number == 1 and isinstance(value, bytes)), None)
    inner = next((value for number, value in fields if number == 2 and isinstance(value, bytes)), None)
    if parameters is None or inner is None:
        raise CannotOpen("a key is no TenSEAL context")
    scale = next((value for number, value in _fields(inner) if number == 3 and isinstance(value, float)), 0.0)
    if not (math.isfinite(scale) and 1 <= scale <= 2.0**100):
        raise CannotOpen("a context names no scale")
    degree, primes = _parameters(parameters)
    return Scheme(degree, primes, scale)


def _parameters(blob: bytes) -> tuple[int, tuple[int, ...]]:
    """(N, primes) of CKKS parameters: a byte for the scheme (2), N, the number of primes, then a blob for each."""
    body = _body(blob, 64 * (_MAX_PRIMES + 2))
    if len(body) < 17:
        raise CannotOpen("encryption parameters are cut short")
    kind, degree, count = struct.unpack_from("<BQQ", body)
    if kind != 2:
        raise CannotOpen("the encryption parameters are not of CKKS")
    if not 1 <= count <= _MAX_PRIMES or degree not in (2**k for k in range(10, 16)) or degree > _MAX_DEGREE:
        raise CannotOpen(f"encryption parameters of {count} primes at degree {degree} are none of SEAL's")
    primes, at = [], 17
    for _ in range(count):
        size = _length(body, at)
        word = _body(body[at : at + size], 8)
        if len(word) != 8:
            raise CannotOpen("a modulus has not 8 bytes")
        primes.append(int.from_bytes(word, "little"))
        at += size
    if any(not 2**10 < q < 2**61 or (q - 1) % (2 * degree) for q in primes):
        raise CannotOpen("a modulus is no prime that SEAL would take")
    return degree, tuple(primes)


def vector(frame: bytes, scheme: Scheme) -> Ciphertext:
    """A TenSEAL vector of one ciphertext. Raises CannotOpen."""
    fields = list(_fields(frame))
    blobs = [value for number, value in fields if number == 2 and isinstance(value, bytes)]
    sizes = b"".join(value for number, value in fields if number == 1 and isinstance(value, bytes))
    held, end = _varint(sizes, 0)
    if end != len(sizes) or not 1 <= held <= scheme.slots:
        raise CannotOpen(f"a ciphertext has {scheme.slots} slots and no other number of values")
    if len(blobs) != 1:
        raise CannotOpen(f"a frame holds {len(blobs)} ciphertexts, not one")
    most = _CIPHERTEXT.size + 2 * 8 * scheme.fresh * scheme.degree + 64
    body = _body(blobs[0], most)
    if len(body) < _CIPHERTEXT.size:
        raise CannotOpen("a ciphertext is cut short")
    _, transformed, size, degree, level, scale, _ = _CIPHERTEXT.unpack_from(body)
    if (transformed, size, degree) != (1, 2, scheme.degree) or not 1 <= level <= scheme.fresh:
        raise CannotOpen("a ciphertext is of another form than the context's")
    if not (math.isfinite(scale) and 1 <= scale <= 2.0**120):
        raise CannotOpen("a ciphertext has no scale")
    count = 2 * level * degree
    array = _body(body[_CIPHERTEXT.size :], 8 + 8 * count)
    if len(array) != 8 + 8 * count or int.from_bytes(array[:8], "little") != count:
        raise CannotOpen("a ciphertext has another number of words than it says")
    words = np.frombuffer(array, dtype="<u8", offset=8).reshape(2, level, degree)[:, 0]
    return _checked(words, level, scale, scheme, held)


def packed(frame: bytes, scheme: Scheme) -> Ciphertext:
    """Both polynomials' words under a single prime, as many bits each as the prime has, in pairs that fill whole
    bytes. Raises CannotOpen."""
    bits = scheme.primes[0].bit_length()
    if scheme.fresh != 1 or bits % 4 or not 32 <= bits <= 60 or len(frame) != 2 * scheme.degree * bits // 8:
        raise CannotOpen("a frame is no packed ciphertext of one prime")
    rows = np.frombuffer(frame, dtype=np.uint8).reshape(-1, bits // 4)
    wide = np.zeros((len(rows), 16), dtype=np.uint8)
    wide[:, : bits // 4] = rows
    low, high = np.ascontiguousarray(wide).view("<u8").T
    first = low & np.uint64(2**bits - 1)
    second = (low >> np.uint64(bits)) | (high << np.uint64(64 - bits))
    words = np.stack([first, second], axis=1).reshape(2, scheme.degree)
    return _checked(words, 1, scheme.scale, scheme)


def _checked(words: Words, level: int, scale: float, scheme: Scheme, count: int | None = None) -> Ciphertext:
    if int(words.max()) >= scheme.primes[0]:
        raise CannotOpen("a ciphertext holds a word that is not below its prime")
    return Ciphertext(np.ascontiguousarray(words, dtype=np.uint64), level, scale, count)


def _length(data: bytes, at: int) -> int:
    """The length that a SEAL blob at ``at`` states, checked against what is there."""
    if at < 0 or len(data) - at < _HEADER.size:
        raise CannotOpen("a SEAL blob is cut short")
    magic, header, *_, size = _HEADER.unpack_from(data, at)
    if magic != _MAGIC or header != _HEADER.size or not _HEADER.size <= size <= len(data) - at:
        raise CannotOpen("bytes are no SEAL blob, or it is cut short")
    return int(size)


def _body(blob: bytes, most: int) -> bytes:
    """The body of a SEAL blob, of at most ``most`` bytes when unpacked."""
    size = _length(blob, 0)
    compression, data = blob[5], blob[_HEADER.size : size]
    if compression == _ZSTD:
        return _inflate(data, most)
    if compression != _NONE or len(data) > most:
        raise CannotOpen("a SEAL blob is too large, or packed in an unknown way")
    return data


def _inflate(data: bytes, most: int) -> bytes:
    """zstd without a stated size, as SEAL writes it. Never more than ``most`` bytes are made."""
    import zstandard

    try:
        reader = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(data)
        plain: bytes = reader.read(most + 1)
    except (zstandard.ZstdError, MemoryError) as error:
        raise CannotOpen(f"a SEAL blob does not unpack: {error}") from None
    if len(plain) > most:
        raise CannotOpen("a SEAL blob unpacks to more than its parameters allow")
    return plain


def _fields(message: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """(number, value) of a protobuf message's fields: integers, doubles and byte strings. Raises CannotOpen."""
    at = count = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        count += 1
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
        elif wire == 1 and at + 8 <= len(message):
            yield number, struct.unpack_from("<d", message, at)[0]
            at += 8
        elif wire == 2:
            size, at = _varint(message, at)
            if size > len(message) - at:
                raise CannotOpen("a field is longer than its message")
            yield number, message[at : at + size]
            at += size
        else:
            raise CannotOpen("bytes are no message of TenSEAL's")
        if count > _MAX_FIELDS:
            raise CannotOpen("a message has too many fields")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise CannotOpen("bytes are no message of TenSEAL's")
