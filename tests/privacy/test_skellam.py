"""The bound for integer noise against exact distributions, closed forms, and what must be refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ive

from bench.core.errors import UsageError
from bench.defense.parts import Mechanism
from bench.privacy import MAX_CALIBRATED_EPSILON, Refused, Skellam, calibrate_skellam, epsilon_skellam
from bench.privacy.skellam import ORDERS


def pmf(variance: float, shift: int = 0, reach: int = 400) -> np.ndarray:
    """exp(-mu) I_|k|(mu) at k = -reach .. reach, moved by ``shift``."""
    return np.asarray(ive(np.abs(np.arange(-reach, reach + 1) - shift), variance))


def divergence(alpha: int, variance: float, shift: int) -> float:
    """The Renyi divergence of order alpha between the shifted and the unshifted noise, summed term by term."""
    p, q = pmf(variance, shift), pmf(variance)
    live = (p > 1e-290) & (q > 1e-290)
    terms = alpha * np.log(p[live]) - (alpha - 1) * np.log(q[live])
    top = terms.max()
    return float((top + math.log(np.exp(terms - top).sum())) / (alpha - 1))


CASES = [(alpha, variance, shift) for alpha in (2, 3, 8, 32) for variance in (1.0, 5.0, 40.0) for shift in (1, 2, 5)]


def test_the_bound_lies_above_the_exact_divergence_and_close_to_it_for_wide_noise() -> None:
    for alpha, variance, shift in CASES:
        exact, bound = divergence(alpha, variance, shift), Skellam(variance, shift, 1).rdp(alpha)
        assert exact <= bound * (1 + 1e-9)
        if variance == 40 and shift <= 2 and alpha <= 3:
            assert bound < exact * 1.06


@pytest.mark.parametrize(("wider", "shorter"), [(2.0, 1.0), (1.0, 2.0), (1.1, 1.0)])
def test_broken_bounds_fall_below_the_exact_divergence(wider: float, shorter: float) -> None:
    """The mean of each Poisson part taken for the variance; half the sensitivity; a tenth too much noise."""
    assert any(Skellam(v * wider, s / shorter, 1).rdp(a) < divergence(a, v, s) for a, v, s in CASES)


@given(
    st.lists(st.integers(-6, 6), min_size=1, max_size=12).filter(any), st.sampled_from([2, 3, 7]), st.floats(2.0, 60.0)
)
@settings(max_examples=30, deadline=None)
def test_vectors_are_within_the_bound_of_their_norm(shifts: list[int], alpha: int, variance: float) -> None:
    exact = sum(divergence(alpha, variance, abs(s)) for s in shifts if s)
    bound = Skellam(variance, float(np.linalg.norm(shifts)), len(shifts))
    assert sum(map(abs, shifts)) <= bound.sensitivity_l1 * (1 + 1e-12)
    assert exact <= bound.rdp(alpha) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("variance", "shift", "rounds", "most"),
    [(9.0, 3, 1, 1.35), (9.0, 3, 4, 1.35), (100.0, 5, 3, 1.35), (2.0, 1, 2, 2.0)],
)
def test_epsilon_is_above_that_of_the_exact_loss_distribution(
    variance: float, shift: int, rounds: int, most: float
) -> None:
    """By ``dp_accounting``'s composition of the exact loss distribution of one value, in both directions."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    keys = range(-250, 251)
    one, other = (dict(zip(keys, np.log(pmf(variance, s, 250) + 1e-300), strict=True)) for s in (shift, 0))
    exact = pld.from_two_probability_mass_functions(
        other, one, value_discretization_interval=1e-3, symmetric=False
    ).self_compose(rounds)
    found = epsilon_skellam([Skellam(variance, shift, 1)] * rounds, 1e-3)
    truth = exact.get_epsilon_for_delta(1e-3)
    assert truth - 1e-3 * rounds <= found < truth * most + 0.2


def test_wide_noise_costs_what_gaussian_noise_of_its_variance_costs() -> None:
    """Variance 10^8, sensitivity 10^4: the Gaussian multiplier is 1."""
    from bench.privacy import epsilon_rdp

    found = epsilon_skellam([Skellam(1e8, 1e4, 10**6)] * 3, 1e-3)
    assert found == pytest.approx(epsilon_rdp(((1.0, 1.0, 3),), 1e-3), rel=5e-3)
    mixed = epsilon_skellam([Skellam(1e8, 1e4, 10**6)], 1e-3, ((1.0, 1.0, 2),))
    assert mixed == pytest.approx(found, rel=1e-3)


def test_l1_is_the_smaller_of_its_two_bounds() -> None:
    assert Skellam(1, 3.0, 10_000).sensitivity_l1 == 9.0  # integers: |z|_1 <= |z|_2^2
    assert Skellam(1, 300.0, 100).sensitivity_l1 == 3000.0


def test_orders_are_whole_numbers_above_one() -> None:
    assert all(isinstance(order, int) and order > 1 for order in ORDERS)
    assert list(ORDERS) == sorted(set(ORDERS))


@pytest.mark.parametrize(("target", "rounds"), [(0.5, 1), (8.0, 3), (100.0, 10)])
def test_calibration_meets_its_target_and_wastes_little(target: float, rounds: int) -> None:
    variance = calibrate_skellam(target, 1e-3, 250.0, 3000, rounds)
    assert epsilon_skellam([Skellam(variance, 250.0, 3000)] * rounds, 1e-3) <= target
    assert epsilon_skellam([Skellam(variance * 0.99, 250.0, 3000)] * rounds, 1e-3) > target * 0.995


@pytest.mark.parametrize("target", [0.0, -1.0, MAX_CALIBRATED_EPSILON * 1.1])
def test_calibration_refuses_what_it_cannot_do(target: float) -> None:
    with pytest.raises(UsageError, match="fix sigma"):
        calibrate_skellam(target, 1e-3, 1.0, 1, 1)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"variance": 1.0, "sensitivity": 1.0}, "lacks 'dimension'"),
        ({"variance": 0.0, "sensitivity": 1.0, "dimension": 3.0}, "no noise"),
        ({"variance": math.nan, "sensitivity": 1.0, "dimension": 3.0}, "out of range"),
        ({"variance": math.inf, "sensitivity": 1.0, "dimension": 3.0}, "out of range"),
        ({"variance": 1.0, "sensitivity": 0.0, "dimension": 3.0}, "out of range"),
        ({"variance": 1.0, "sensitivity": 1.0, "dimension": 2.5}, "out of range"),
    ],
)
def test_integer_noise_that_makes_no_sense_is_refused(params, words) -> None:
    with pytest.raises(Refused, match=words):
        Skellam.of(Mechanism("skellam", params))
