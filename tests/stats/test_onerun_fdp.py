"""One-run audits by trade-off functions against jax-privacy, linear programming and mechanisms of known leakage."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.stats import norm

from bench import stats
from tests.stats import validity

REFERENCE = json.loads(Path(__file__).with_name("jax_privacy.json").read_text())


@pytest.mark.parametrize("row", REFERENCE["rows"], ids=str)
def test_gaussian_is_jax_privacys(row: dict[str, float]) -> None:
    canaries, guesses, correct = int(row["members"] + row["nonmembers"]), int(row["hits"] + row["alarms"]), row["hits"]
    found = stats.one_run_epsilon_fdp(canaries, guesses, int(correct), row["delta"], row["significance"])
    assert found == pytest.approx(row["one_run_fdp"], rel=1e-6, abs=2e-6)


def test_tradeoffs_invert_what_they_stand_for() -> None:
    x = np.linspace(0.001, 0.999, 200)
    gaussian = np.array([stats.gaussian_tradeoff(1.5)(value) for value in x])
    assert norm.cdf(norm.ppf(gaussian) + 1.5) == pytest.approx(x)
    assert stats.gaussian_tradeoff(0.0)(0.3) == pytest.approx(0.3)
    epsilon, delta = 1.2, 0.05
    least = np.array([stats.approximate_tradeoff(epsilon, delta)(value) for value in x])
    most = np.minimum.reduce(
        [np.ones(200), delta + math.exp(epsilon) * least, 1 - (1 - delta - least) / math.exp(epsilon)]
    )
    inside = least > 0
    assert most[inside] == pytest.approx(x[inside])
    assert (most[~inside] >= x[~inside]).all()
    assert stats.approximate_tradeoff(0.0, 0.0)(0.3) == pytest.approx(0.3)


def largest_tail(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """The largest P(at least v right) that the paper's inequalities permit under (epsilon, delta)-DP, as a linear
    program over the chances of 0, ..., r right guesses."""
    t = np.arange(r + 1)
    rows, limits = [], []
    for i in range(1, r + 1):
        right, wrong = np.where(t >= i, t / m, 0), np.where(t >= i - 1, (r - t) / m, 0)
        rows += [right - math.exp(epsilon) * wrong, right - math.exp(-epsilon) * wrong]
        limits += [delta, 1 - math.exp(-epsilon) * (1 - delta)]
    found = linprog(-(t >= v).astype(float), A_ub=rows, b_ub=limits, A_eq=[np.ones(r + 1)], b_eq=[1.0])
    assert found.status == 0
    return -float(found.fun)


@pytest.mark.parametrize(("m", "r", "v"), [(4, 4, 4), (6, 6, 4), (9, 5, 4), (12, 12, 9), (20, 10, 10), (8, 8, 1)])
@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 0.0), (0.7, 0.0), (1.5, 0.02), (0.3, 0.2), (3.0, 0.001)])
def test_recursion_finds_the_largest_tail(m: int, r: int, v: int, epsilon: float, delta: float) -> None:
    """Refuted just where the significance is above the linear program's largest tail, so the recursion is valid, and
    no weaker than the inequalities."""
    most = largest_tail(m, r, v, epsilon, delta)
    inverse = stats.approximate_tradeoff(epsilon, delta)
    if most < 1 - 1e-6:
        assert stats.one_run_refuted(m, r, v, min(most + 1e-7, 1 - 1e-9), inverse)
    if most > 1e-6:
        assert not stats.one_run_refuted(m, r, v, most - 1e-7, inverse)


@pytest.mark.parametrize("mu", validity.MUS)
@pytest.mark.parametrize("guesses", [1, 5, 20, 100])
def test_bound_exceeds_a_gaussian_mechanism_no_more_often_than_it_says(guesses: int, mu: float) -> None:
    for canaries in (guesses, 4 * guesses):
        assert validity.gaussian_exceeded(mu, guesses, canaries) <= 0.05


@pytest.mark.parametrize("epsilon", validity.EPSILONS)
@pytest.mark.parametrize("guesses", [1, 5, 20, 60])
def test_approximate_bound_exceeds_a_true_epsilon_no_more_often_than_it_says(guesses: int, epsilon: float) -> None:
    for delta in validity.DELTAS:
        for chances in validity.leaky_response(guesses, epsilon, delta):
            assert validity.exceeded(validity.approximate, chances, guesses, epsilon, delta) <= 0.05 + 1e-12


def test_gaussian_family_is_no_proof_of_epsilon_and_delta() -> None:
    """Randomised response of 3 is (3, 1e-5)-DP, and yet leakier than the Gaussian mechanism of that epsilon."""
    chances = validity.leaky_response(400, 3.0, 0.0)[0]
    assert validity.exceeded(stats.one_run_epsilon_fdp, chances, 400, 3.0, 1e-5) > 0.9
    assert validity.exceeded(validity.approximate, chances, 400, 3.0, 1e-5) <= 0.05


@given(st.integers(1, 60), st.data())
@settings(deadline=None, max_examples=40)
def test_it_rises_with_what_is_right(r: int, data: st.DataObject) -> None:
    v = data.draw(st.integers(1, r))
    for family in ("gaussian", "approximate"):
        found = stats.one_run_epsilon_fdp(r, r, v, 1e-4, family=family)
        assert found >= stats.one_run_epsilon_fdp(r, r, v - 1, 1e-4, family=family)
        assert found >= stats.one_run_epsilon_fdp(r, r, v, 1e-4, 0.01, family)


def test_a_broken_mechanism_is_seen_where_the_plain_bound_sees_less() -> None:
    """Where delta is not tiny for the number of canaries, the plain bound loses most and this one does not."""
    assert stats.one_run_epsilon_fdp(1000, 1000, 960, 1e-5) > 1.8 * stats.one_run_epsilon(1000, 1000, 960, 1e-5)
    assert stats.one_run_epsilon_fdp(1000, 100, 95, 1e-3, family="approximate") > 2
    assert stats.one_run_epsilon(1000, 100, 95, 1e-3) < 0.6


def test_nothing_is_shown() -> None:
    for family in ("gaussian", "approximate"):
        for counts in ((0, 0, 0), (10, 0, 0), (10, 10, 0), (100, 100, 50), (4, 4, 4)):
            assert stats.one_run_epsilon_fdp(*counts, 1e-5, family=family) == 0
    assert stats.one_run_epsilon_fdp(100, 100, 100, 0.0, family="approximate") == pytest.approx(3.49, abs=0.01)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="no finite epsilon"):
        stats.one_run_epsilon_fdp(10, 10, 10, 0.0)
    with pytest.raises(ValueError, match="family"):
        stats.one_run_epsilon_fdp(10, 10, 10, 0.1, family="laplace")  # type: ignore[arg-type]
