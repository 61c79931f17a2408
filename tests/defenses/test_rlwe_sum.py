"""The lattice sum as secure aggregation's payload: exact sums, and bytes that are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.core.errors import SiloBenchError
from bench.core.streams import SecretStreams
from bench.core.update import Grid, Layout, Update
from defenses.channels.rlwe.parameters import DEGREE, ETA, FRAME_SLOTS, choose
from defenses.channels.rlwe.payload import LatticePayload, open_values, seal_values
from defenses.channels.rlwe.sampling import centred_binomial
from defenses.channels.secagg.packing import unpack
from defenses.channels.secagg.payload import Agreed, Payload


def update(rng: np.random.Generator, size: int, bits: int, support: np.ndarray | None = None) -> Update:
    grid = Grid(bits, 0.1)
    count = size if support is None else len(support)
    values = rng.integers(-grid.levels, grid.levels + 1, count)
    return Update(values, Layout(("a",), ((size,),)), grid=grid, support=support)


def agreed(silos: int, round: int = 0, randomness: bytes = b"r" * 32) -> Agreed:
    return Agreed(round, silos, randomness)


def secret(name: str) -> SecretStreams:
    return SecretStreams(name, secret_seed=17)


def summed(payload: Payload, updates: list[Update], about: Agreed, survivors: list[int]) -> np.ndarray:
    """The sum of the survivors' updates as the protocol would open it."""
    sealed = [payload.seal(u, about, secret(f"silo-{i}")) for i, u in enumerate(updates)]
    frames = [list(s.extras) for s in sealed]
    shape = payload.shape(updates[0].form, about.silos)
    assert all(tuple(map(len, f)) == shape.extras for f in frames)
    vector = np.sum([sealed[i].vector for i in survivors], axis=0)
    assert vector.shape == (shape.count,)
    assert np.abs(vector).max() < 2 ** (shape.bits - 1)
    totals = []
    for index in range(len(shape.extras)):
        total = None
        for i in survivors:
            total = payload.add_extra(total, index, frames[i][index], updates[i].form, about.silos)
        totals.append(total)
    return payload.open(vector, iter(totals), updates[0].form, about)


@settings(max_examples=30, deadline=None)
@given(
    size=st.integers(1, 20_000),
    silos=st.integers(1, 6),
    bits=st.integers(2, 20),
    share=st.sampled_from([None, 0.0, 0.3, 1.0]),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_sums_of_any_survivors_are_equal_to_the_integer(size, silos, bits, share, seed, data) -> None:
    rng = np.random.default_rng(seed)
    support = None if share is None else np.flatnonzero(rng.random(size) <= share)
    updates = [update(rng, size, bits, support) for _ in range(silos)]
    survivors = data.draw(st.sets(st.integers(0, silos - 1), min_size=1).map(sorted))
    found = summed(LatticePayload(), updates, agreed(silos), survivors)
    expected = np.zeros(size)
    total = np.sum([updates[i].values for i in survivors], axis=0)
    expected[slice(None) if support is None else support] = total * updates[0].grid.step
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_values_of_several_frames(sign) -> None:
    size = 4 * (2 * FRAME_SLOTS + 1000)
    updates = [update(np.random.default_rng(i), size, 8) for i in range(3)]
    extreme = [Update(np.full(size, sign * 127), u.layout, grid=u.grid) for u in updates]
    assert len(LatticePayload().shape(updates[0].form, 3).extras) == 3
    for given_updates in (updates, extreme):
        found = summed(LatticePayload(), given_updates, agreed(3), [0, 1, 2])
        np.testing.assert_array_equal(found, np.sum([u.values for u in given_updates], axis=0) * updates[0].grid.step)


class Fixed(np.random.Generator):
    """A generator whose words are all equal: the largest or the least noise."""

    def __init__(self, word: int) -> None:
        super().__init__(np.random.PCG64(0))
        self.word = word

    def integers(self, low, high=None, size=None, dtype=np.int64, endpoint=False):  # type: ignore[no-untyped-def]
        return np.full(size, self.word & (high - 1), dtype=dtype)


@pytest.mark.parametrize("word", [0, 2**64 - 1])
@pytest.mark.parametrize("silos", [2, 3, 10])
def test_the_sum_is_exact_when_every_error_is_at_its_bound(word, silos) -> None:
    parameters = choose(silos, 127)
    rng = np.random.default_rng(1)
    keys = [centred_binomial(Fixed(word), DEGREE) for _ in range(silos)]
    assert set(np.abs(keys[0])) == {ETA}
    values = [rng.choice([-127, 127], 5000) for _ in range(silos)]
    totals = None
    for key, mine in zip(keys, values, strict=True):
        (frame,) = seal_values(mine, parameters, key, bytes(32), Fixed(word))
        part = unpack(frame, parameters.frames(5000)[0], parameters.sent).astype(np.uint64)
        totals = part if totals is None else totals + part
    found = open_values(iter([totals]), 5000, parameters, np.sum(keys, axis=0), bytes(32))
    np.testing.assert_array_equal(found, np.sum(values, axis=0))


@pytest.mark.parametrize("what", ["key", "another's", "lost frame", "wrong frame", "shape"])
def test_a_sum_that_is_not_what_its_keys_say_is_refused(what) -> None:
    given_update = update(np.random.default_rng(0), 4 * FRAME_SLOTS + 5, 8)
    sealed = LatticePayload().seal(given_update, agreed(3), secret("silo-0"))
    payload, form, vector = LatticePayload(), given_update.form, sealed.vector.copy()
    totals = [payload.add_extra(None, i, f, form, 3) for i, f in enumerate(sealed.extras)]
    if what == "key":
        vector[7] += 1
    elif what == "another's":
        other = LatticePayload().seal(given_update, agreed(3), secret("silo-1"))
        totals[0] = payload.add_extra(None, 0, next(iter(other.extras)), form, 3)
    elif what == "lost frame":
        totals.pop()
    elif what == "wrong frame":
        totals.reverse()
    else:
        totals[1] = totals[1][:-1]
    with pytest.raises(SiloBenchError, match=r"do not open|does not hold"):
        payload.open(vector, iter(totals), form, agreed(3))


def test_hostile_inputs_are_refused() -> None:
    payload, good = LatticePayload(), update(np.random.default_rng(0), 1000, 8)
    real = Update(np.zeros(1000, np.float32), good.layout)
    beyond = Update(np.full(1000, 128), good.layout, grid=good.grid)
    short = Update(np.zeros(999, np.int64), good.layout, grid=good.grid)
    least = Update(np.full(1000, -(2**63)), good.layout, grid=good.grid)
    floats = Update(np.zeros(1000, np.float32), good.layout, grid=good.grid)
    for wrong in (short, least, floats):
        with pytest.raises(SiloBenchError, match="integers of its grid"):
            payload.seal(wrong, agreed(3), secret("a"))
    with pytest.raises(SiloBenchError, match="on a grid only"):
        payload.seal(real, agreed(3), secret("a"))
    with pytest.raises(SiloBenchError, match="integers of its grid"):
        payload.seal(beyond, agreed(3), secret("a"))
    frame = next(iter(payload.seal(good, agreed(3), secret("a")).extras))
    for cut in (b"", frame[:-1], frame + b"\0", frame[: len(frame) // 2]):
        with pytest.raises(SiloBenchError, match="bytes are not"):
            payload.add_extra(None, 0, cut, good.form, 3)
    huge = np.zeros(DEGREE, np.int64)
    huge[5] = -3 * ETA - 1
    with pytest.raises(SiloBenchError, match="no small ring element"):
        payload.open(huge, iter([]), good.form, agreed(3))
    with pytest.raises(SiloBenchError, match="no small ring element"):
        payload.open(np.zeros(5, np.int64), iter([]), good.form, agreed(3))


def test_a_flipped_bit_anywhere_is_a_wrong_sum_or_a_refusal_but_never_a_crash() -> None:
    """Ring elements can be altered: adding 2**scale to a slot adds one to a value, and nothing here notices."""
    payload, good = LatticePayload(), update(np.random.default_rng(0), 1000, 8)
    sealed = payload.seal(good, agreed(3), secret("a"))
    frame = bytearray(next(iter(sealed.extras)))
    rng, accepted = np.random.default_rng(5), 0
    for _ in range(60):
        place, bit = int(rng.integers(len(frame))), int(rng.integers(8))
        changed = bytearray(frame)
        changed[place] ^= 1 << bit
        total = payload.add_extra(None, 0, bytes(changed), good.form, 3)
        try:
            found = payload.open(sealed.vector, iter([total]), good.form, agreed(3))
        except SiloBenchError:
            continue
        accepted += 1
        assert np.abs(found).max() <= 3 * 127 * good.grid.step * (1 + 1e-12)
    assert accepted > 0
