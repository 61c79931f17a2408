"""Rounding of clipped updates: within its bound whatever happens, unbiased, on a grid that holds every value."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.conformance.fixtures import LAYOUT, transform_context
from bench.core.update import Grid, Update
from defenses.transforms import bounded_rounding
from defenses.transforms.bounded_rounding import BoundedRounding, grid_for, norm_after, rounded
from defenses.transforms.clip import Clip

ZEROS = np.zeros(LAYOUT.size, np.float32)


def test_the_bound_by_hand() -> None:
    """c = 4, d = 1: 5 against sqrt(16 + .25 + 3.7169 * 4.5) = 5.74; c = 400, d = 10,000: sqrt(160000 + 2500 +
    3.7169 * 450) = 405.18 against 500."""
    assert norm_after(4, 1) == 5
    assert norm_after(400, 10_000) == pytest.approx(405.182, abs=0.001)
    assert norm_after(400, 10_000) / 400 - 1 == pytest.approx(1 / (8 * 4**2), abs=0.006)  # as Config says


@given(
    st.lists(st.floats(-3, 3), min_size=1, max_size=40),
    st.floats(0.0, 1.2),
    st.integers(0, 2**32),
)
@settings(max_examples=30)
def test_no_rounded_vector_is_longer_than_the_bound(values: list[float], slack: float, seed: int) -> None:
    """Also where the bound is so tight that most draws are thrown away, or none would fit."""
    units = np.array(values)
    bound = float(np.linalg.norm(units)) + slack
    found = rounded(units, bound, np.random.default_rng(seed))
    assert found.dtype == np.int64
    assert int(np.dot(found, found)) <= bound**2
    assert np.abs(found - units).max() < 1


def test_rounding_without_a_second_try_would_exceed_the_bound(monkeypatch) -> None:
    """A broken copy: 25 halves, and a bound of sqrt(12): about half of all draws are longer."""
    units, rng = np.full(25, 0.5), np.random.default_rng(1)
    assert all(np.linalg.norm(rounded(units, math.sqrt(12), rng)) ** 2 <= 12 + 1e-9 for _ in range(200))
    once = [np.floor(units + rng.random(25)) for _ in range(200)]
    assert sum(np.dot(x, x) > 12 for x in once) > 20


def test_rounding_is_unbiased_where_the_bound_leaves_room() -> None:
    """200,000 values of .3 steps: standard error .00102, 4.9 allowed."""
    units = np.full(200_000, 0.3)
    found = rounded(units, norm_after(float(np.linalg.norm(units)), len(units)), np.random.default_rng(2))
    assert set(np.unique(found)) == {0, 1}
    assert abs(found.mean() - 0.3) < 4.9 * math.sqrt(0.3 * 0.7 / len(units))


def test_draws_are_thrown_away_as_rarely_as_stated() -> None:
    """20,000 draws of the worst vectors; beta is 1/1,000, so that more than 45 happen less than once in 10^6."""
    rng = np.random.default_rng(3)
    for count, steps in ((1, 4.0), (10, 12.6), (200, 56.6)):
        units = np.full(count, steps / math.sqrt(count))
        units = np.floor(units) + 0.5 if count > 1 else units
        units *= min(1.0, steps / np.linalg.norm(units))
        draws = np.floor(units + rng.random((20_000, count)))
        assert int((np.square(draws).sum(1) > norm_after(steps, count) ** 2).sum()) <= 45


def test_the_last_resort_lengthens_nothing(monkeypatch) -> None:
    monkeypatch.setattr(bounded_rounding, "_TRIES", 0)
    np.testing.assert_array_equal(rounded(np.array([1.9, -1.9, 0.4]), 0.1, np.random.default_rng(0)), [1, -1, 0])


def clipped(values: np.ndarray, clip: float = 1.0) -> Update:
    return Clip(clip).apply(Update(values.astype(np.float32), LAYOUT), transform_context(ZEROS))


def random_update(seed: int = 0, clip: float = 1.0) -> Update:
    return clipped(np.random.default_rng(seed).normal(size=LAYOUT.size), clip)


@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0, 100.0])
def test_the_grid_has_the_stated_fineness_and_the_bound_is_in_real_units(scale: float) -> None:
    before = random_update(clip=3.0)
    after = BoundedRounding(scale).apply(before, transform_context(ZEROS))
    assert after.grid is not None
    step = 3.0 / (scale * math.sqrt(LAYOUT.size))
    assert after.grid.step == pytest.approx(step, rel=1e-12)
    assert after.norm_bound == pytest.approx(norm_after(3.0 / step, LAYOUT.size) * step, rel=1e-12)
    assert after.norm <= after.norm_bound
    assert np.abs(after.values * step - before.values).max() < step * (1 + 1e-6)


def test_an_update_that_is_one_large_value_lies_on_the_grid() -> None:
    for sign in (1, -1):
        spike = ZEROS.copy()
        spike[7] = sign * 50.0
        after = BoundedRounding(1.0).apply(clipped(spike), transform_context(ZEROS))
        assert after.grid is not None
        assert abs(int(after.values[7]) - sign * math.sqrt(LAYOUT.size)) <= 1
        assert np.abs(after.values).max() <= after.grid.levels


@given(st.integers(1, 10**9), st.floats(1e-9, 1e6))
@settings(max_examples=30)
def test_the_grid_of_fewest_bits_keeps_the_step(largest: int, step: float) -> None:
    grid = grid_for(largest, step)
    assert grid.levels >= largest
    assert grid.bits == 2 or Grid(grid.bits - 1, 1.0).levels < largest
    assert grid.step == pytest.approx(step, rel=1e-15)
