"""Quantisation: unbiased, within the clip, on a public grid; and by itself before a channel of integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.conformance.fixtures import LAYOUT, transform_context
from bench.core.errors import SiloBenchError, UsageError
from bench.core.update import Grid, Update
from defenses import quantize
from defenses.transforms.quantize import Quantise, rounded

ZEROS = np.zeros(LAYOUT.size, np.float32)


@given(st.integers(2, 24), st.floats(1e-6, 1e3), st.integers(0, 2**32))
def test_no_value_is_off_by_a_step_or_more_within_the_clip_and_all_stay_on_the_grid(bits, clip, seed) -> None:
    grid, rng = Grid(bits, clip), np.random.default_rng(seed)
    values = (rng.uniform(-1, 1, 200) * clip).astype(np.float32)
    units = rounded(values, grid, rng)
    assert units.dtype == np.int64
    assert np.abs(units).max() <= grid.levels
    assert np.abs(units * grid.step - np.clip(values, -clip, clip)).max() < grid.step * (1 + 1e-5)
    far = rounded(values * 1e6, grid, rng)
    assert np.abs(far).max() <= grid.levels


def test_rounding_is_unbiased() -> None:
    """Mean of 200,000 roundings of .3 steps: standard error .00103, allowed 5."""
    grid = Grid(8, 127.0)
    units = rounded(np.full(200_000, 0.3), grid, np.random.default_rng(1))
    assert set(np.unique(units)) == {0, 1}
    assert abs(units.mean() - 0.3) < 5 * 0.00103
    truncated = np.trunc(np.full(200_000, 0.3))
    assert abs(truncated.mean() - 0.3) > 5 * 0.00103  # a broken copy is caught


def test_whole_steps_and_the_ends_are_exact() -> None:
    grid = Grid(3, 3.0)
    given_values = np.array([-9, -3, -2, 0, 1, 3, 9.0])
    np.testing.assert_array_equal(rounded(given_values, grid, np.random.default_rng(0)), [-3, -3, -2, 0, 1, 3, 3])


def test_the_automatic_clip_is_the_public_reach_times_the_largest_weight() -> None:
    context = transform_context(ZEROS)
    context.public.weights["silo-1"] = 30  # type: ignore[index]
    update = Quantise().apply(Update(ZEROS, LAYOUT), context)
    assert update.grid == Grid(8, 30 * 0.1)


def test_two_silos_round_by_their_own_secrets() -> None:
    values = np.full(LAYOUT.size, 0.00321, np.float32)
    one, other = (
        Quantise().apply(Update(values, LAYOUT), transform_context(ZEROS, secret_seed=seed)).values for seed in (1, 2)
    )
    assert (one != other).any()


def test_without_a_public_bound_a_clip_must_be_given() -> None:
    from dataclasses import replace

    context = replace(transform_context(ZEROS), reach=None)
    with pytest.raises(UsageError, match="set the clip"):
        Quantise().apply(Update(ZEROS, LAYOUT), context)
    assert Quantise(clip=0.5).apply(Update(ZEROS, LAYOUT), context).grid == Grid(8, 0.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    values = ZEROS.copy()
    values[3] = bad
    with pytest.raises(SiloBenchError, match="not finite"):
        Quantise().apply(Update(values, LAYOUT), transform_context(ZEROS))


@pytest.mark.parametrize("wrong", [{"bits": 1}, {"bits": 25}, {"clip": "fixed"}])
def test_wrong_options_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        quantize.Config(**wrong)
