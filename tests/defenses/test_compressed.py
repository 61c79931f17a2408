"""The compressed plain channel: lossless, smaller where there is something to gain, and no bomb gets through."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import CannotOpen, SiloBenchError
from bench.core.parties import SERVER
from bench.core.update import Form, Grid, Layout, Update
from bench.defense.channel import Knowledge
from bench.defense.compose import Defense
from bench.defense.defaults.plain import PlainChannel
from defenses import plain
from defenses.channels.compressed import CompressedChannel, compress, expand, regroup
from tests.defenses.exchange import one_round, public

LAYOUT = Layout(("a", "b"), ((20, 30), (400,)))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.booleans(), st.integers(2, 20), st.integers(1, 19), st.integers(0, 2**32 - 1))
def test_sums_are_those_of_the_plain_channel(silos, grid, bits, level, seed) -> None:
    rng = np.random.default_rng(seed)
    if grid:
        levels = Grid(bits, 1.0).levels
        updates = [Update(rng.integers(-levels, levels + 1, LAYOUT.size), LAYOUT, grid=Grid(bits, 1.0))] * silos
    else:
        updates = [Update(rng.standard_normal(LAYOUT.size).astype(np.float32), LAYOUT) for _ in range(silos)]
    packed = one_round(CompressedChannel(level), LAYOUT, updates)
    clear = one_round(PlainChannel(), LAYOUT, updates)
    np.testing.assert_array_equal(packed.opened[SERVER], clear.opened[SERVER])


def uploaded(channel, update: Update) -> int:
    run = one_round(channel, update.layout, [update])
    return sum(next(m for m in run.messages if m.stage == "upload").lengths[1:])


def test_what_compression_saves() -> None:
    """By entropy: half zeros cost about 1 bit a value more than the others' 3.4 bytes; normal values of 8 bits at a
    clip of 5 deviations have log2(25.4 sqrt(2 pi e)) = 6.7 bits; random float32 mantissas stay."""
    layout = Layout(("a",), ((60_000,),))
    rng = np.random.default_rng(0)
    values = rng.standard_normal(60_000).astype(np.float32) * np.float32(0.02)
    dense = uploaded(CompressedChannel(), Update(values, layout)) / 60_000
    half = uploaded(CompressedChannel(), Update(np.where(rng.random(60_000) < 0.5, 0, values), layout)) / 60_000
    integers = np.rint(values / 0.02 * 25.4).clip(-127, 127).astype(np.int64)
    gridded = uploaded(CompressedChannel(), Update(integers, layout, grid=Grid(8, 0.1))) / 60_000
    assert 3.2 < dense < 3.6
    assert half < 2.6
    assert 6.7 / 8 < gridded < 0.92
    assert uploaded(PlainChannel(), Update(values, layout)) / 60_000 > 4


@given(st.sampled_from([1, 2, 4, 8]), st.integers(1, 60), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_frames_come_back(width, count, seed) -> None:
    body = np.random.default_rng(seed).bytes(width * count)
    frame = b"SBV1" + bytes(4) + struct.pack("<Q", count) + body
    assert expand(compress(frame, 3)) == frame
    assert regroup(regroup(frame, back=False), back=True) == frame


def test_regrouped_bytes_by_hand() -> None:
    head = bytes(8) + struct.pack("<Q", 3)
    assert regroup(head + bytes([1, 2, 11, 12, 21, 22]), back=False) == head + bytes([1, 11, 21, 2, 12, 22])


def bomb(size: int) -> bytes:
    return zstandard.ZstdCompressor().compress(bytes(size))


def test_bombs_and_other_lies_are_refused_before_they_unfold() -> None:
    good = compress(bytes(8) + struct.pack("<Q", 100) + bytes(400), 3)
    streamed = zstandard.ZstdCompressor().compressobj()
    unsized = streamed.compress(bytes(416)) + streamed.flush()
    lies = [
        b"",
        b"\0\0\0",
        good[:-1],
        good[: len(good) // 2],
        good + b"\0",
        good + good,
        struct.pack("<I", 0) + good[4:],
        struct.pack("<I", 417) + good[4:],
        struct.pack("<I", 2**32 - 1) + bomb(2**28),
        struct.pack("<I", 416) + bomb(2**28),
        struct.pack("<I", 416) + unsized,
        struct.pack("<I", 416) + bytes(500),
        struct.pack("<I", 10) + bomb(10),
        compress(bytes(8) + struct.pack("<Q", 100) + bytes(400), 3)[:4] + bomb(416),
        struct.pack("<I", 416) + zstandard.ZstdCompressor().compress(bytes(8) + struct.pack("<Q", 2**60) + bytes(400)),
        struct.pack("<I", 416) + zstandard.ZstdCompressor().compress(bytes(8) + struct.pack("<Q", 7) + bytes(400)),
    ]
    for lie in lies:
        with pytest.raises(SiloBenchError):
            expand(lie)
        with pytest.raises(CannotOpen):
            CompressedChannel().open(iter([lie]), {}, Form(LAYOUT), 0)


def test_a_frame_with_a_false_size_in_its_header_unfolds_no_further() -> None:
    """A zstd header that states 416 bytes over blocks that hold far more."""
    honest, more = bomb(416), bomb(2**20)
    assert zstandard.frame_content_size(honest) == 416
    # the body of the larger one behind the header of the smaller
    with pytest.raises(SiloBenchError):
        expand(struct.pack("<I", 416) + honest[:7] + more[9:])


def test_everybody_reads_it() -> None:
    values = np.random.default_rng(1).standard_normal(LAYOUT.size).astype(np.float32)
    run = one_round(CompressedChannel(), LAYOUT, [values, 2 * values])
    known = Knowledge(frozenset({SERVER}), public(LAYOUT, 2), run.messages, {}, {})
    found = {min(c.silos): c.values for c in CompressedChannel().read(known) if len(c.silos) == 1}
    np.testing.assert_array_equal(found["silo-1"], 2 * values)


def test_the_named_defense_compresses_or_is_fedavg() -> None:
    assert isinstance(plain.build(plain.Config()).channel, CompressedChannel)
    assert plain.build(plain.Config(level=9)).channel.level == 9
    clear = plain.build(plain.Config(compress=False))
    assert type(clear.channel) is PlainChannel
    assert clear == Defense(channel=clear.channel)
    for opener in ("server", "silos"):
        for zstd in (True, False):
            channel = plain.build(plain.Config(compress=zstd, opener=opener)).channel
            assert channel is not None
            assert channel.opener == opener
            assert ("open" in [stage.name for stage in channel.stages()]) == (opener == "silos")
