"""The codec of flat values: exact where the precision allows it, clean refusals elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from bench.core.errors import SiloBenchError
from bench.core.frames import CHUNK, decode_adapter, encode_adapter

FLOATS = npst.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e4, 1e4, width=32))


@given(FLOATS, st.sampled_from(["float32", "float64"]))
def test_float32_and_wider_are_exact(values: np.ndarray, precision: str) -> None:
    np.testing.assert_array_equal(decode_adapter(encode_adapter(values, precision), len(values)), values)


@given(FLOATS)
def test_narrow_precisions_round_as_torch_does(values: np.ndarray) -> None:
    for precision, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16)):
        expected = torch.from_numpy(values).to(dtype).float().numpy()
        np.testing.assert_array_equal(decode_adapter(encode_adapter(values, precision), len(values)), expected)


def test_long_arrays_travel_in_frames() -> None:
    values = np.arange(CHUNK + 3, dtype=np.float32)
    frames = list(encode_adapter(values))
    assert [len(f) for f in frames] == [16 + 4 * CHUNK, 16 + 12]
    np.testing.assert_array_equal(decode_adapter(frames, len(values)), values)


@given(st.binary(max_size=100), st.integers(0, 20))
def test_arbitrary_bytes_are_refused(frame: bytes, size: int) -> None:
    if frame[:4] != b"SBV1":
        with pytest.raises(SiloBenchError):
            decode_adapter([frame], size)


@pytest.mark.parametrize("cut", [1, 5, 17])
def test_a_cut_frame_is_refused(cut: int) -> None:
    frame = next(encode_adapter(np.ones(4, np.float32)))
    with pytest.raises(SiloBenchError):
        decode_adapter([frame[:-cut]], 4)


def test_wrong_sizes_and_values_that_are_not_finite_are_refused() -> None:
    frames = list(encode_adapter(np.ones(4, np.float32)))
    with pytest.raises(SiloBenchError, match="4 values, expected 5"):
        decode_adapter(frames, 5)
    with pytest.raises(SiloBenchError, match="more than the expected 3"):
        decode_adapter(frames, 3)
    with pytest.raises(SiloBenchError, match="not finite"):
        decode_adapter(encode_adapter(np.array([1, np.nan], np.float32)), 2)
