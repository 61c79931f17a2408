"""Records as frames: what comes back, across frames, and what is refused."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.conformance.fixtures import some_tokens
from bench.core import records as handed
from bench.core.errors import SiloBenchError
from bench.core.records import decode_records, encode_records, is_records, joined
from bench.core.tokens import Tokens

TOKENS = some_tokens("silo-2")


def same(one: Tokens, other: Tokens) -> bool:
    return one.digest == other.digest


def test_what_was_encoded_comes_back_and_takes_the_bytes_it_should() -> None:
    (frame,) = encode_records(TOKENS, 100)
    assert same(decode_records([frame], 100), TOKENS)
    assert same(decode_records([frame]), TOKENS)
    assert len(frame) == 20 + TOKENS.ids.size * 5 + len(TOKENS) * 8
    assert frame[:20] == b"SBR1" + struct.pack("<4I", len(TOKENS), TOKENS.ids.shape[1], 100, len(TOKENS))
    assert is_records(frame)


def test_a_silo_without_records_sends_one_frame_of_none() -> None:
    none = TOKENS.take([])
    frames = list(encode_records(none, 100))
    assert len(frames) == 1
    assert len(decode_records(frames, 100)) == 0


def test_many_records_take_several_frames_of_which_none_may_be_missing(monkeypatch) -> None:
    monkeypatch.setattr(handed, "_CHUNK", 2 * TOKENS.ids.shape[1])
    frames = list(encode_records(TOKENS, 100))
    assert len(frames) == 3  # five records, two to a frame
    assert same(decode_records(frames, 100), TOKENS)
    for wrong in (frames[:-1], [*frames, frames[-1]], [frames[0], frames[0], frames[2]][:2], []):
        with pytest.raises(SiloBenchError, match=r"records and says"):
            decode_records(wrong, 100)


def test_records_of_several_silos_are_padded_to_the_longest() -> None:
    parts = [some_tokens(f"silo-{i}") for i in range(3)]
    together = joined(parts)
    assert len(together) == 3 + 4 + 5
    start = 0
    for part in parts:
        rows = range(start, start + len(part))
        assert same(together.take(rows), part.take(range(len(part))))
        start += len(part)


def frame_with(**change: object) -> bytes:
    (frame,) = encode_records(replace(TOKENS, **change), 100)  # type: ignore[arg-type]
    return frame


def changed(name: str, row: int, value: int) -> bytes:
    array = getattr(TOKENS, name).copy()
    if array.ndim == 2:
        array[0, row] = value
    else:
        array[row] = value
    return frame_with(**{name: array})


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (b"", "does not begin"),
        (b"SBR1", "does not begin"),
        (b"SBV1" + bytes(40), "does not begin"),
        (b"SBR1" + struct.pack("<4I", 2**31, 2**31, 9, 1), "more than one may hold"),
        (b"SBR1" + struct.pack("<4I", 2, 9, 9, 2) + bytes(3), "and has 23 bytes"),
        (changed("ids", 0, 100), "no record has"),
        (changed("ids", 0, -1), "no record has"),
        (changed("lengths", 0, 1), "no record has"),
        (changed("lengths", 0, 99), "no record has"),
        (changed("lengths", 0, -(2**31)), "no record has"),
        (changed("predicted", 0, 1), "no record has"),
        (changed("answer", 0, 99), "no record has"),
        (changed("answer", 0, -2), "no record has"),
        (frame_with()[:-1] + b"\x02", "no record has"),
    ],
)
def test_what_is_no_record_is_refused(frame: bytes, says: str) -> None:
    with pytest.raises(SiloBenchError, match=says):
        decode_records([frame], 100)


def test_marks_beyond_a_record_and_another_vocabulary_are_refused() -> None:
    row = int(np.argmin(TOKENS.lengths))
    predicted = TOKENS.predicted.copy()
    predicted[row, -1] = True
    with pytest.raises(SiloBenchError, match="no record has"):
        decode_records([frame_with(predicted=predicted)])
    with pytest.raises(SiloBenchError, match="ids of 100 tokens, and the model has 99"):
        decode_records([frame_with()], 99)


@settings(max_examples=30)
@given(st.binary(max_size=60), st.integers(0, 200), st.integers(0, 255))
def test_any_bytes_are_records_or_refused(tail: bytes, at: int, value: int) -> None:
    whole = bytearray(frame_with())
    whole[at % len(whole)] = value
    for frame in (bytes(whole), b"SBR1" + tail, tail):
        try:
            found = decode_records([frame])
        except SiloBenchError:
            continue
        assert found.ids.shape == found.predicted.shape
        assert (found.lengths >= 2).all()
