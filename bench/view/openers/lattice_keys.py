"""Secret keys of lattice schemes shipped in messages: a serialised TenSEAL context that holds its secret key.

The context may lie anywhere in a frame that the coalition saw; what it decrypts is taken frame by frame.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.defense.channel import Candidate, Knowledge, Message
from bench.view.openers.base import ADAPTER_STAGES, Guess, Hints, sealed
from bench.view.openers.layouts import Source, bodies

#: A context is a protobuf whose first field (this tag, a length of 1 to 4 bytes) holds SEAL parameters.
_FIRST_TAG = 0x0A
_SEAL_MAGIC = b"\x5e\xa1\x10"
_LAST_FIELD = 15
_MOST_CONTEXTS = 64
_MAX_CONTEXT = 64 * 2**20


def shipped_contexts(knowledge: Knowledge, hints: Hints) -> Iterable[Candidate]:
    """Uploads and sums decrypted with a secret key that was sent along with them or in the set-up."""
    pending = [m for m in sealed(knowledge) if hints.targets(m)]
    if not pending:
        return
    contexts = list(_secret_contexts(knowledge.messages, hints))
    size = knowledge.public.layout.size
    for message in pending:
        for context in contexts:
            values = _decrypt(context, message, size)
            if values is None:
                continue
            for silos in hints.targets(message):
                how = f"a secret key shipped in clear opens '{message.stage}' from {message.sender}"
                yield Guess(message.round, silos, values, how, rough=True, factor=True)


def _secret_contexts(messages: Iterable[Message], hints: Hints) -> Iterator[Any]:
    """Contexts with a secret key, of the last ``_MOST_CONTEXTS`` distinct ones that were sent: loading takes long."""
    found = dict(_places(messages))
    if len(found) > _MOST_CONTEXTS:
        hints.untried(f"{len(found) - _MOST_CONTEXTS} of {len(found)} contexts of TenSEAL that were sent, the oldest")
    for message, index, start, stop in list(found.values())[-_MOST_CONTEXTS:]:
        context = _load(message.frame(index)[start:stop])
        if context is not None:
            yield context


def _places(messages: Iterable[Message]) -> Iterator[tuple[bytes, tuple[Message, int, int, int]]]:
    """By their digest, where contexts may lie: message, frame, start, stop."""
    for message in messages:
        if message.stage in ADAPTER_STAGES:
            continue
        for index, frame in enumerate(message.frames()):
            for start in _beginnings(frame):
                raw = frame[start : (stop := _end(frame, start))]
                if len(raw) <= _MAX_CONTEXT:
                    yield hashlib.sha256(raw).digest(), (message, index, start, stop)


def _beginnings(frame: bytes) -> Iterator[int]:
    """Where a context may begin: at the tag of a field that holds a SEAL object."""
    at = frame.find(_SEAL_MAGIC)
    while at >= 0:
        for width in range(1, 5):
            tag = at - width - 1
            if tag >= 0 and frame[tag] == _FIRST_TAG and _varint(frame, tag + 1)[1] == at:
                yield tag
        at = frame.find(_SEAL_MAGIC, at + 1)


def _load(raw: bytes) -> Any | None:
    import tenseal as ts

    try:
        context = ts.context_from(raw, n_threads=1)
        return context if context.has_secret_key() else None
    except Exception:
        # not a context after all: hostile or random bytes may fail in any way
        return None


def _end(data: bytes, start: int) -> int:
    """Where the protobuf that begins at ``start`` ends: after its last well-formed field."""
    at = start
    while at < len(data):
        tag, after = _varint(data, at)
        kind, number = tag & 7, tag >> 3
        if not 1 <= number <= _LAST_FIELD or kind not in (0, 1, 2, 5):
            return at
        if kind == 0:
            _, after = _varint(data, after)
        elif kind == 2:
            length, after = _varint(data, after)
            after += length
        else:
            after += 8 if kind == 1 else 4
        if after > len(data):
            return at
        at = after
    return at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        value |= (data[at] & 0x7F) << shift
        at += 1
        if not data[at - 1] & 0x80:
            return value, at
    return 0, len(data) + 1


def _decrypt(context: Any, message: Message, size: int) -> NDArray[np.float64] | None:
    """``size`` values from all frames, or all but a header or trailing frame; None where that is no decryption."""
    source = Source.of(message)
    for body in bodies(len(source.lengths)):
        values = np.empty(size)
        filled = 0
        for index in body:
            part = _vector(context, source.frame(index))
            if part is None or filled + len(part) > size:
                break
            values[filled : filled + len(part)] = part
            filled += len(part)
        if filled == size:
            return values
    return None


def _vector(context: Any, frame: bytes) -> NDArray[np.float64] | None:
    import tenseal as ts

    for load in (ts.ckks_vector_from, ts.bfv_vector_from):
        try:
            return np.asarray(load(context, frame).decrypt(), dtype=np.float64)
        except Exception:
            continue  # not a ciphertext of this scheme and key
    return None
