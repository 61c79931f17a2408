"""The harness's own openers, each on bytes made for it."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save

from bench.core.streams import SecretStreams
from bench.core.update import Form, Update
from bench.defense.channel import Candidate, Knowledge
from bench.view.openers.base import Guess, Hints, even_spans, plausible
from bench.view.openers.containers import expand
from bench.view.openers.layouts import Source, layouts
from bench.view.openers.uniform import EVEN, UNEVEN, surprise
from tests.view import broken_channels as channels
from tests.view.synthetic import Synthetic, layout_of

Federate = Callable[..., Synthetic]
SIZE = 2000
Write = Callable[[NDArray[np.float32]], list[bytes]]


class Plain(channels.Denies):
    """Uploads are written by ``write`` in clear; its ``read`` denies it."""

    def __init__(self, write: Write) -> None:
        self.write = write

    def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
        yield from self.write(np.asarray(update.values, dtype=np.float32))

    def open(self, frames: Iterator[bytes], keys: Mapping[str, bytes], form: Form, count: int) -> NDArray[np.floating]:
        return np.zeros(form.layout.size)


def quantised(bits: int, unsigned: bool = False) -> Write:
    """Integers of a step that only the sender knows."""

    def write(values: NDArray[np.float32]) -> list[bytes]:
        levels = 2 ** (bits - 1) - 1
        steps = np.rint(values.astype(np.float64) / max(np.abs(values).max(), 1e-9) * levels).astype(np.int64)
        if unsigned:
            return [(steps + levels + 1).astype(f"<u{bits // 8}").tobytes()]
        return [steps.astype(f"<i{bits // 8}").tobytes()]

    return write


def bfloat16(values: NDArray[np.float32]) -> bytes:
    return (values.view("<u4") >> 16).astype("<u2").tobytes()


def archive(values: NDArray[np.float32], compress: bool = False) -> bytes:
    stream = io.BytesIO()
    half = SIZE // 2
    (np.savez_compressed if compress else np.savez)(stream, first=values[:half], second=values[half:])
    return stream.getvalue()


def tensors(values: NDArray[np.float32]) -> bytes:
    """With the layout's own names, which safetensors stores in another order (half floats last)."""
    half = SIZE // 2
    return save({"q.lora_A": values[:half].astype(np.float16), "q.lora_B": values[half:]})


def npy(values: NDArray[np.float32]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values.reshape(2, -1))
    return stream.getvalue()


def framed(values: NDArray[np.float32], per: int = 512, head: int = 20, tail: int = 16) -> list[bytes]:
    rng = np.random.default_rng(0)
    parts = [values[i : i + per] for i in range(0, len(values), per)]
    return [rng.bytes(head) + part.tobytes() + rng.bytes(tail) for part in parts]


WRITERS: dict[str, Write] = {
    "float32": lambda v: [v.astype("<f4").tobytes()],
    "float32 big-endian": lambda v: [v.astype(">f4").tobytes()],
    "float64": lambda v: [v.astype("<f8").tobytes()],
    "float16": lambda v: [v.astype("<f2").tobytes()],
    "bfloat16": lambda v: [bfloat16(v)],
    "int8": quantised(8),
    "uint8": quantised(8, unsigned=True),
    "int16": quantised(16),
    "int32": quantised(32),
    "a header": lambda v: [b"\x01\x02\x03\x04" * 3 + v.tobytes()],
    "a header and a tag": lambda v: [bytes(12) + v.tobytes() + bytes(range(16))],
    "a long trailer": lambda v: [v.tobytes() + bytes(100_000)],
    "frames": lambda v: [v[i : i + 100].tobytes() for i in range(0, len(v), 100)],
    "frames with headers and tags": framed,
    "a header frame": lambda v: [b'{"n": 2000}', v.tobytes()],
    "a trailing frame": lambda v: [v.tobytes(), b"checksum"],
    "zstd": lambda v: [zstandard.compress(v.tobytes())],
    "zstd per frame": lambda v: [zstandard.compress(v[i : i + 500].tobytes()) for i in range(0, len(v), 500)],
    "gzip": lambda v: [gzip.compress(v.tobytes())],
    "zlib behind a header": lambda v: [b"\x00\x00\x07\xd0" + zlib.compress(v.tobytes())],
    "zstd of int8": lambda v: [zstandard.compress(quantised(8)(v)[0])],
    "zstd of zstd": lambda v: [zstandard.compress(zstandard.compress(v.tobytes()))],
    "npz": lambda v: [archive(v)],
    "npz compressed": lambda v: [archive(v, compress=True)],
    "npz cut into frames": lambda v: [archive(v)[i : i + 999] for i in range(0, len(archive(v)), 999)],
    "npy": lambda v: [npy(v)],
    "safetensors": lambda v: [tensors(v)],
    "zstd of safetensors": lambda v: [zstandard.compress(tensors(v))],
    "half the weight": lambda v: [(v / 2).astype("<f4").tobytes()],
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_plain_numbers_are_found(federate: Federate, tmp_path: Path, write: Write) -> None:
    run = federate(Plain(write), size=SIZE, rounds=1, release="none")
    view = run.view(tmp_path / "view", "server", "server")
    assert {next(iter(r.silos)) for r in view.uploads()} == set(run.public.silos)
    for reading in view.uploads():
        truth = run.summand(0, *reading.silos)
        error = float(np.linalg.norm(reading.values - truth) / np.linalg.norm(truth))
        # 8 bits over four standard deviations lose 1% of an update's norm
        assert error < 0.02


class MasksWithFloats(channels.Denies):
    """Adds normal noise in floating point, the same for all silos of a round."""

    def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
        mask = np.random.default_rng(round).normal(0, 1.0, len(update.values))
        yield (update.values + mask).astype("<f8").tobytes()

    def open(self, frames: Iterator[bytes], keys: Mapping[str, bytes], form: Form, count: int) -> NDArray[np.floating]:
        return np.zeros(form.layout.size)


def test_one_float_mask_for_all_silos_is_no_mask(federate: Federate, tmp_path: Path) -> None:
    run = federate(MasksWithFloats(), release="none")
    server = run.view(tmp_path / "server", "server", "server")
    assert {(r.round, r.silos) for r in server.readings if r.kind == "difference"} == {
        (r, frozenset({"silo-0", s})) for r in (0, 1) for s in ("silo-1", "silo-2")
    }
    both = run.view(tmp_path / "both", "server+silo", "server", "silo-0")
    assert {(r.round, *r.silos) for r in both.uploads()} == {(r, s) for r, s in run.updates if s != "silo-0"}


@pytest.mark.parametrize(("size", "opened"), [(63, 0), (64, 3)])
def test_adapters_too_small_to_tell_reading_from_chance_are_left_alone(
    federate: Federate, tmp_path: Path, size: int, opened: int
) -> None:
    run = federate(channels.ForgetsAndDenies(), size=size, rounds=1, release="none")
    assert len(run.view(tmp_path / "view", "server", "server").uploads()) == opened


def test_an_attacks_own_opener_enters_the_view_only_where_it_is_right(federate: Federate, tmp_path: Path) -> None:
    run = federate(channels.Sealing(), release="none")

    def mine(knowledge: Knowledge, hints: Hints) -> Iterable[Candidate]:
        yield Candidate(0, frozenset({"silo-0"}), run.summand(0, "silo-0") * 3, "up to a factor")
        yield Candidate(0, frozenset({"silo-1"}), np.ones(300), "wrong")
        for silo in ("silo-2", "silo-1", "silo-2"):
            yield Guess(1, frozenset({silo}), np.array([7.0]), "its message is long", form="metadata")

    view = run.view(tmp_path / "view", "silo", "silo-1", openers=[mine])
    view = replace(view, readings=tuple(r for r in view.readings if r.kind in ("upload", "metadata")))
    assert [(r.kind, r.how) for r in view.readings] == [
        ("upload", "up to a factor"),
        ("upload", "combined: the channel's own opening of a sum, less its own part"),
        ("metadata", "its message is long"),
    ]
    np.testing.assert_allclose(view.readings[0].values, run.summand(0, "silo-0"), rtol=1e-5)


# -- containers from hostile hands ------------------------------------------------------------------------------------


def opened(data: bytes, size: int = 64) -> list[object]:
    return list(expand(Source.of_frames([data]), layout_of(size)))


def test_a_bomb_is_not_expanded() -> None:
    bomb = b"\0" * 2**28
    assert opened(zstandard.compress(bomb)) == []
    assert opened(zlib.compress(bomb)) == []
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.npy", bomb)
    assert opened(stream.getvalue()) == []


def test_pickled_arrays_are_not_loaded() -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert opened(stream.getvalue()) == []


def test_an_npy_header_that_promises_more_than_there_is() -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros(64, dtype=np.float32))
    data = stream.getvalue().replace(b"(64,)", b"(2**40,)"[:5].ljust(5))
    assert opened(data) == []
    huge = stream.getvalue().replace(b"'shape': (64,), ", b"'shape': (10**9,) ")
    assert opened(huge) == []


def test_a_safetensors_header_of_any_length_is_survived() -> None:
    good = save({"q.lora_A": np.ones(32, np.float32), "q.lora_B": np.zeros(32, np.float32)})
    assert len(opened(good)) == 1
    for length in (0, 1, 2**20, 2**62):
        assert opened(struct.pack("<Q", length) + good[8:]) == []


@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(max_size=400),
    magic=st.sampled_from([b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08"]),
)
def test_no_bytes_break_the_containers(data: bytes, magic: bytes) -> None:
    for content in (magic + data, struct.pack("<Q", len(data)) + b"{" + data):
        for _ in expand(Source.of_frames([content, data]), layout_of(64)):
            pass


# -- sources, uniformity ----------------------------------------------------------------------------------------------


@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=6), data=st.data())
def test_a_stream_reads_like_the_joined_frames(lengths: list[int], data: st.DataObject) -> None:
    frames = [bytes(range(i, i + n)) for i, n in enumerate(lengths)]
    whole = b"".join(frames)
    stream = Source.of_frames(frames).whole()
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole) + 5))
    assert stream.size == len(whole)
    assert stream.read(start, stop) == whole[start:stop]


@given(extra=st.integers(0, 300), frames=st.integers(1, 5), payload=st.integers(1, 200))
def test_every_layout_leaves_room_for_the_payload(extra: int, frames: int, payload: int) -> None:
    total = payload + extra
    cuts = [total * i // frames for i in range(frames + 1)]
    source = Source([b - a for a, b in pairwise(cuts)], lambda i: bytes(cuts[i + 1] - cuts[i]))
    found = list(layouts(source, payload))
    assert all(len(stream.read(offset, offset + payload)) == payload for stream, offset in found)
    assert {offset for stream, offset in found if stream.size == total} >= {0, extra}
    assert list(layouts(source, total + 1)) == []


def test_uniform_bytes_are_even_and_floats_are_not() -> None:
    rng = np.random.default_rng(1)
    scores = [surprise(np.frombuffer(rng.bytes(4096), np.uint8)) for _ in range(300)]
    # the bound says at most 300 x 10^EVEN = 0.03 of these would fall below
    assert min(scores) > EVEN
    for values in (rng.normal(0, 1e-3, 1024).astype("<f4"), np.clip(rng.normal(0, 30, 4096), -127, 127).astype("i1")):
        assert surprise(values.view(np.uint8)) < UNEVEN


def test_the_bound_on_uneven_bytes_is_a_bound() -> None:
    """64 bytes of which 20 are equal: 256 C(64, 20) 256^-20 times the 7 lanes, in the lane of all bytes."""
    sample = np.arange(64, dtype=np.uint8)
    sample[:20] = 7
    # positions 0..19 spread evenly over the 4 lanes, so the whole is the most surprising: with 7 itself, 20 sevens
    assert surprise(sample) == pytest.approx(np.log10(256 * 19619725782651120.0 * 256.0**-20 * 7), abs=1e-6)
    assert surprise(np.zeros(0, dtype=np.uint8)) == 0.0


def test_noise_read_as_floats_is_not_plausible() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        noise = np.frombuffer(rng.bytes(4 * 64), "<f4")
        with np.errstate(all="ignore"):
            assert not plausible(noise)
    assert plausible(rng.normal(0, 1e-3, 64))
    assert not plausible(np.zeros(64))
    assert not plausible(rng.normal(0, 1e-3, 63))


def test_spans_are_within_the_adapter() -> None:
    for size in (1, 100, 512, 513, 10**6):
        spans = even_spans(size)
        assert all(0 <= start < stop <= size for start, stop in spans)
        assert spans[0][0] == 0
        assert spans[-1][1] == size
