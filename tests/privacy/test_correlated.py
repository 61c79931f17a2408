"""Noise that is correlated over steps, and a noisy count beside each sum: their sensitivity and their cost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.defense.parts import Mechanism, Promise
from bench.privacy import Refused, claim, composition
from bench.privacy.banded import coefficients, sensitivity
from tests.privacy.test_accounting import SERVER, SIZES, gaussian_epsilon


def patterns(steps: int, separation: int) -> Iterator[tuple[int, ...]]:
    """All sets of steps whose members are ``separation`` apart or more."""
    for bits in range(2**steps):
        chosen = tuple(t for t in range(steps) if bits >> t & 1)
        if all(b - a >= separation for a, b in pairwise(chosen)):
            yield chosen


def square_root(bands: int, steps: int) -> np.ndarray:
    """The banded square root of the matrix of prefix sums, entry by entry."""
    entries = [math.comb(2 * j, j) / 4**j if j < bands else 0.0 for j in range(steps)]
    return np.array([[entries[i - j] if i >= j else 0.0 for j in range(steps)] for i in range(steps)])


@pytest.mark.parametrize(("bands", "separation", "steps"), [(1, 1, 6), (1, 3, 8), (3, 3, 11), (2, 5, 9), (4, 6, 5)])
def test_sensitivity_is_the_worst_over_all_participations_and_all_gradients(bands, separation, steps) -> None:
    """By brute force over patterns, each with contributions of norm 1 in 4 dimensions: equal ones, which are the worst
    for entries that are not negative, and random ones, which must not exceed it."""
    c = square_root(bands, steps)
    rng = np.random.default_rng(0)
    found = sensitivity(bands, separation, steps)
    worst, other = 0.0, 0.0
    for chosen in patterns(steps, separation):
        worst = max(worst, float(np.linalg.norm(c[:, chosen].sum(1))))
        given = rng.normal(size=(len(chosen), 4))
        given /= np.linalg.norm(given, axis=1, keepdims=True)
        other = max(other, float(np.linalg.norm(c[:, chosen] @ given)))
    assert found == pytest.approx(worst, rel=1e-12)
    assert other <= found * (1 + 1e-12)


@given(st.integers(1, 6), st.integers(0, 4), st.integers(0, 30))
@settings(max_examples=30)
def test_more_steps_never_cost_less(bands, more, steps) -> None:
    assert sensitivity(bands, bands + more, steps) <= sensitivity(bands, bands + more, steps + 1)


def test_the_first_column_squares_to_prefix_sums() -> None:
    np.testing.assert_allclose(coefficients(5), [1, 1 / 2, 3 / 8, 5 / 16, 35 / 128])
    np.testing.assert_allclose(square_root(7, 7) @ square_root(7, 7), np.tri(7), atol=1e-14)


@pytest.mark.parametrize(("bands", "separation"), [(3, 2), (0, 2)])
def test_bands_that_reach_the_next_participation_are_refused(bands, separation) -> None:
    with pytest.raises(ValueError, match="separation"):
        sensitivity(bands, separation, 5)


def banded(sigma: float = 3.0, steps: float = 4, bands: float = 2, separation: float = 3) -> Mechanism:
    return Mechanism("banded-gaussian", {"sigma": sigma, "steps": steps, "bands": bands, "separation": separation})


BLANK = Promise("record", "zero-out", lambda coalition, victim: victim not in coalition)


def test_rounds_of_correlated_noise_are_one_release() -> None:
    """2 bands, 8 steps, 3 apart: steps 0, 3 and 6, with columns (1, 1/2), so sensitivity sqrt(3 * 5/4)."""
    assert composition([banded(), banded()], "zero-out") == ((1.0, 3.0 / math.sqrt(3.75), 1),)
    found = claim({"silo-0": [banded(), banded()]}, [BLANK], SERVER, ("silo-0",), SIZES)
    assert found.epsilon == pytest.approx(gaussian_epsilon(3.0 / math.sqrt(3.75), 0.003), rel=1e-3)
    # the last column of 7 steps has one row left
    assert composition([banded(steps=7)], "zero-out") == ((1.0, 3.0 / math.sqrt(2.5 + 1.0), 1),)
    assert composition([banded(steps=0)], "zero-out") == ()


@pytest.mark.parametrize(
    ("logged", "words"),
    [
        ([banded(), banded(sigma=2)], "differ"),
        ([banded(), banded(separation=4)], "differ"),
        ([banded(bands=4)], "reach over participations"),
        ([banded(bands=0)], "reach over participations"),
        ([banded(bands=1.5)], "out of range"),
        ([banded(sigma=0)], "no noise"),
        ([banded(separation=math.nan)], "out of range"),
        ([banded(separation=math.inf)], "out of range"),
        ([banded(steps=1e300)], "out of range"),
    ],
)
def test_correlated_noise_that_does_not_add_up_is_refused(logged, words) -> None:
    with pytest.raises(Refused, match=words):
        composition(logged, "zero-out")


def test_a_noisy_count_beside_the_sum_costs_as_composed() -> None:
    """By hand: (1^-2 + (2 * 0.5)^-2)^(-1/2) = 1/sqrt(2)."""
    logged = Mechanism("poisson-gaussian-counts", {"rate": 0.25, "sigma": 1.0, "sigma_count": 0.5, "steps": 8.0})
    ((rate, sigma, steps),) = composition([logged], "add-remove")
    assert (rate, steps) == (0.25, 8)
    assert sigma == pytest.approx(1 / math.sqrt(2))
    with pytest.raises(Refused, match="no 'zero-out' bound"):
        composition([logged], "zero-out")
