"""The bfv channel: sums of integers are exact, nothing overflows at the extremes, what doesn't fit is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import CannotOpen, SiloBenchError, UsageError
from bench.core.parties import SERVER
from bench.core.streams import SecretStreams
from bench.core.update import Form, Grid, Layout, Update
from bench.defense.channel import Knowledge
from defenses import bfv
from defenses.channels.bfv import BFV, pack_digits, unpack_digits
from defenses.transforms.quantize import Quantise
from tests.defenses.exchange import one_round, public

SECRET = SecretStreams("silo-0")
LAYOUT = Layout(("a", "b"), ((20, 30), (41,)))


def opened_units(run, grid: Grid) -> np.ndarray:
    """Opened values as whole numbers of steps."""
    found = next(iter(run.opened.values())) / grid.step
    assert np.abs(found - np.rint(found)).max() < 1e-6
    return np.rint(found).astype(np.int64)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(2, 20),
    st.floats(1e-3, 10),
    st.sampled_from(["silos", "server"]),
    st.sampled_from(["random", "top", "bottom", "mixed"]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_sums_are_exact(silos, bits, clip, holder, kind, masked, seed) -> None:
    grid, rng = Grid(bits, clip), np.random.default_rng(seed)
    support = np.flatnonzero(rng.random(LAYOUT.size) < 0.5) if masked else None
    count = LAYOUT.size if support is None else len(support)
    values = {
        "random": rng.integers(-grid.levels, grid.levels + 1, (silos, count)),
        "top": np.full((silos, count), grid.levels),
        "bottom": np.full((silos, count), -grid.levels),
        "mixed": rng.choice([-grid.levels, grid.levels], (silos, count)),
    }[kind]
    updates = [Update(v.astype(np.int64), LAYOUT, grid=grid, support=support) for v in values]
    run = one_round(BFV(key_holder=holder), LAYOUT, updates, support)
    expected = np.zeros(LAYOUT.size, np.int64)
    expected[slice(None) if support is None else support] = values.sum(0)
    np.testing.assert_array_equal(opened_units(run, grid), expected)
    assert len(run.opened) == (1 if holder == "server" else silos)


def test_thirty_silos_at_the_extremes() -> None:
    grid = Grid(8, 1.0)
    for sign in (1, -1):
        values = np.full(LAYOUT.size, sign * grid.levels, np.int64)
        run = one_round(BFV(), LAYOUT, [Update(values, LAYOUT, grid=grid)] * 30)
        np.testing.assert_array_equal(opened_units(run, grid), 30 * values)


@pytest.mark.parametrize(
    ("silos", "bits", "digits"), [(3, 8, 5), (3, 16, 2), (30, 8, 3), (3, 4, 9), (2, 2, 22), (100, 8, 3)]
)
def test_how_many_values_share_a_slot(silos, bits, digits) -> None:
    """The largest power of 2 n L + 1 below t: for 3 silos and 8 bits 763**5 = 2**47.9 < 2**52 < 763**6."""
    channel, grid = BFV().for_silos(silos), Grid(bits, 1.0)
    base = 2 * silos * grid.levels + 1
    modulus = channel.codec().plain_modulus
    assert channel.digits(grid) == digits
    assert base**digits <= modulus < base ** (digits + 1)
    assert modulus % (2 * 4096) == 1


def test_what_no_packing_holds_is_refused() -> None:
    values = np.zeros(LAYOUT.size, np.int64)
    with pytest.raises(
        UsageError, match=r"a sum of 3 silos on a grid of 60 bits needs numbers up to .* take fewer bits"
    ):
        one_round(BFV(), LAYOUT, [Update(values, LAYOUT, grid=Grid(60, 1.0))] * 3)


def test_values_beyond_the_grid_are_refused() -> None:
    for value in (128, -128):
        values = np.zeros(LAYOUT.size, np.int64)
        values[7] = value
        with pytest.raises(SiloBenchError, match="beyond its grid"):
            one_round(BFV(), LAYOUT, [Update(values, LAYOUT, grid=Grid(8, 1.0))])
    with pytest.raises(SiloBenchError, match="integers on a grid only"):
        one_round(BFV(), LAYOUT, [np.zeros(LAYOUT.size, np.float32)])


def test_digits_by_hand() -> None:
    packed = pack_digits(np.array([1, 2, 3, 4, 5]), 3, 10)
    assert packed.tolist() == [321, 54]
    assert unpack_digits(packed, 3, 10).tolist() == [1, 2, 3, 4, 5, 0]


@given(st.integers(2, 800), st.integers(1, 5), st.lists(st.integers(0, 10**6), max_size=40))
@settings(max_examples=30, deadline=None)
def test_digits_come_back(base, digits, numbers) -> None:
    values = np.array(numbers, np.int64) % base
    back = unpack_digits(pack_digits(values, digits, base), digits, base)
    np.testing.assert_array_equal(back[: len(values)], values)
    assert not back[len(values) :].any()


def test_bytes_a_value() -> None:
    """Five values to a slot of 4096, two polynomials of 4096 x 60 bits: 61,440 bytes for 20,480 values."""
    layout = Layout(("a",), ((20480,),))
    run = one_round(BFV(), layout, [Update(np.ones(20480, np.int64), layout, grid=Grid(8, 1.0))] * 3)
    upload = next(m for m in run.messages if m.stage == "upload")
    assert sum(upload.lengths[1:]) / 20480 == 3.0
    assert len(upload.lengths) == 2


class NoRoomForTheSum(BFV):
    """Broken: the base leaves room for one upload only, so digits of a sum carry."""

    def base(self, grid: Grid) -> int:
        return 2 * grid.levels + 1


def test_a_base_that_is_too_small_is_caught() -> None:
    grid = Grid(8, 1.0)
    values = np.full(LAYOUT.size, grid.levels, np.int64)
    run = one_round(NoRoomForTheSum(), LAYOUT, [Update(values, LAYOUT, grid=grid)] * 1)
    np.testing.assert_array_equal(opened_units(run, grid), values)
    try:
        run = one_round(NoRoomForTheSum(), LAYOUT, [Update(values, LAYOUT, grid=grid)] * 3)
    except SiloBenchError:
        return
    assert not np.array_equal(opened_units(run, grid), 3 * values)


def test_what_an_impossible_ciphertext_holds_is_refused() -> None:
    """A slot above base**digits, or a digit beyond what the counted uploads reach, comes from no silo."""
    channel, grid = BFV().for_silos(3), Grid(8, 1.0)
    keys = channel.keys(public(LAYOUT, 3), SECRET)
    update = Update(np.full(LAYOUT.size, 127, np.int64), LAYOUT, grid=grid)
    frames = list(channel.seal(update, keys["silo-0"], SECRET, 0))
    total = None
    for _ in range(3):
        total = channel.add(total, frames[0], keys["server"])
    summed = channel.finish(total, keys["server"])
    np.testing.assert_allclose(channel.open(iter([summed]), keys["silo-0"], Form(LAYOUT, grid), 3), 3.0)
    # said to be over two silos, the third one's share is too much
    with pytest.raises(CannotOpen, match="beyond what so many uploads can sum to"):
        channel.open(iter([summed]), keys["silo-0"], Form(LAYOUT, grid), 2)
    # thousands of copies run over the whole slot
    for _ in range(4000):
        total = channel.add(total, frames[0], keys["server"])
    with pytest.raises(CannotOpen):
        channel.open(iter([channel.finish(total, keys["server"])]), keys["silo-0"], Form(LAYOUT, grid), 3)


def test_a_header_with_another_grid_is_refused_or_opens_other_numbers() -> None:
    channel, grid = BFV().for_silos(2), Grid(8, 1.0)
    keys = channel.keys(public(LAYOUT, 2), SECRET)
    values = np.random.default_rng(0).integers(-127, 128, LAYOUT.size)
    frames = list(channel.seal(Update(values, LAYOUT, grid=grid), keys["silo-0"], SECRET, 0))
    for form in (Form(LAYOUT), Form(LAYOUT, Grid(60, 1.0))):
        with pytest.raises(CannotOpen):
            channel.open(iter(frames), keys["silo-0"], form, 0)
    try:
        opened = channel.open(iter(frames), keys["silo-0"], Form(LAYOUT, Grid(4, 1.0)), 0)
    except CannotOpen:
        return
    assert not np.array_equal(opened, Form(LAYOUT, grid).spread(values))


def test_the_server_reads_nothing_and_a_silo_all() -> None:
    channel, grid = BFV(), Grid(8, 1.0)
    values = np.random.default_rng(1).integers(-127, 128, (2, LAYOUT.size))
    run = one_round(channel, LAYOUT, [Update(v, LAYOUT, grid=grid) for v in values])
    for reader, reads in ((SERVER, 0), ("silo-0", 2)):
        held = {k[5:]: v for k, v in run.states[reader].items() if k.startswith("keys/")}
        known = Knowledge(frozenset({reader}), public(LAYOUT, 2), run.messages, {reader: held}, {})
        found = list(channel.read(known))
        assert len(found) == reads
        for candidate in found:
            expected = sum(values[int(s[-1])] for s in candidate.silos) * grid.step
            np.testing.assert_allclose(candidate.values, expected, rtol=1e-12)


def test_it_brings_its_quantiser() -> None:
    channel = bfv.build(bfv.Config(bits=6, clip=0.5)).channel
    assert isinstance(channel.quantiser, Quantise)
    assert (channel.quantiser.bits, channel.quantiser.clip) == (6, 0.5)
    assert bfv.build(bfv.Config()).channel.quantiser.clip is None
    assert channel.accepts == {"grid"}
