"""Records as frames: how a silo hands its records to a server that trains on them, and how they are read again.

A frame is 20 bytes of header (magic ``SBR1``, then as little-endian uint32: records of the frame, tokens per row, the
vocabulary that ids are below, records of the whole message) and, as little-endian int32, ids (rows padded with 0),
lengths and answers; then the marks of predicted tokens, a byte each. Who has the public tokenizer reads the text.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from bench.core.errors import SiloBenchError
from bench.core.tokens import Tokens

_MAGIC = b"SBR1"
_HEADER = struct.Struct("<4s4I")
#: tokens of a frame, padding included: 36 MiB at most
_CHUNK = 2**22
_BYTES_PER_TOKEN = 5
_BYTES_PER_RECORD = 8


def encode_records(tokens: Tokens, vocabulary: int) -> Iterator[bytes]:
    """Frames of all records; one without any where there are none."""
    width = int(tokens.ids.shape[1])
    step = max(1, _CHUNK // max(width, 1))
    for start in range(0, max(len(tokens), 1), step):
        ids, lengths, predicted, answer = (
            part[start : start + step] for part in (tokens.ids, tokens.lengths, tokens.predicted, tokens.answer)
        )
        head = _HEADER.pack(_MAGIC, len(ids), width, vocabulary, len(tokens))
        arrays = (ids.astype("<i4"), lengths.astype("<i4"), answer.astype("<i4"), predicted.astype("u1"))
        yield head + b"".join(array.tobytes() for array in arrays)


def is_records(frame: bytes) -> bool:
    """Whether a frame begins like one of records."""
    return frame[:4] == _MAGIC and len(frame) >= _HEADER.size


def decode_records(frames: Iterable[bytes], vocabulary: int | None = None) -> Tokens:
    """The inverse of ``encode_records``. ``vocabulary``: the model's, for whoever means to train on them.

    Raises SiloBenchError on bytes that are no records, ids outside the vocabulary, or marks outside a record.
    """
    parts: list[Tokens] = []
    totals: set[int] = set()
    for frame in frames:
        tokens, total = _decode(frame, vocabulary)
        parts.append(tokens)
        totals.add(total)
    if totals != {sum(map(len, parts))}:
        raise SiloBenchError(f"a message holds {sum(map(len, parts))} records and says {sorted(totals) or 'nothing'}")
    return joined(parts)


def joined(parts: Sequence[Tokens]) -> Tokens:
    """Records one after the other, padded to the longest."""
    width = max((part.ids.shape[1] for part in parts), default=0)

    def padded(array: np.ndarray) -> np.ndarray:
        return np.pad(array, ((0, 0), (0, width - array.shape[1])))

    return Tokens(
        np.concatenate([padded(part.ids) for part in parts]).astype(np.int32),
        np.concatenate([part.lengths for part in parts]).astype(np.int32),
        np.concatenate([padded(part.predicted) for part in parts]).astype(np.bool_),
        np.concatenate([part.answer for part in parts]).astype(np.int32),
        min((part.lead for part in parts), default=0),
        np.concatenate([part.lengths if part.ends is None else part.ends for part in parts]).astype(np.int32),
    )


def _decode(frame: bytes, vocabulary: int | None) -> tuple[Tokens, int]:
    """A frame's records, and how many its message says that it holds."""
    if not is_records(frame):
        raise SiloBenchError("a frame does not begin with a header of records")
    _, count, width, words, total = _HEADER.unpack_from(frame)
    if count * max(width, 1) > 2 * _CHUNK:
        raise SiloBenchError(f"a frame claims {count} records of {width} tokens, more than one may hold")
    if len(frame) != _HEADER.size + count * (width * _BYTES_PER_TOKEN + _BYTES_PER_RECORD):
        raise SiloBenchError(f"a frame claims {count} records of {width} tokens and has {len(frame)} bytes")
    if vocabulary is not None and words != vocabulary:
        raise SiloBenchError(f"a frame holds ids of {words} tokens, and the model has {vocabulary}")
    numbers = np.frombuffer(frame, "<i4", count * (width + 2), _HEADER.size).astype(np.int32)
    marks = np.frombuffer(frame, "u1", count * width, _HEADER.size + numbers.nbytes).reshape(count, width)
    ids, rest = numbers[: count * width].reshape(count, width), numbers[count * width :]
    tokens = Tokens(ids, rest[:count], marks.astype(np.bool_), rest[count:])
    _check(tokens, marks, words)
    return tokens, total


def _check(tokens: Tokens, marks: np.ndarray, words: int) -> None:
    width = tokens.ids.shape[1]
    inside = np.arange(width) < tokens.lengths[:, None]
    sound = (
        ((tokens.lengths >= 2) & (tokens.lengths <= width)).all()
        and ((tokens.ids >= 0) & (tokens.ids < words)).all()
        and (marks <= 1).all()
        and not (tokens.predicted & ~inside).any()
        and not tokens.predicted[:, :1].any()
        and ((tokens.answer >= -1) & (tokens.answer < np.maximum(tokens.lengths, 0))).all()
    )
    if not sound:
        raise SiloBenchError("a frame of records holds lengths, ids or marks that no record has")
