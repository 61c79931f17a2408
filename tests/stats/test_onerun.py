"""The one-run bound against values by hand, an independent formula, jax-privacy, and mechanisms of known epsilon."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from bench import stats
from tests.stats import validity

REFERENCE = json.loads(Path(__file__).with_name("jax_privacy.json").read_text())


def written_out(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """Theorem 5.2 of Steinke et al. 2023 with sums of single terms."""
    q = math.exp(epsilon) / (1 + math.exp(epsilon))
    chance = [math.comb(r, t) * q**t * (1 - q) ** (r - t) for t in range(r + 1)]
    spread = [sum(chance[v - i : v]) / i for i in range(1, v + 1)]
    return min(1.0, sum(chance[v:]) + 2 * m * delta * max(spread, default=0.0))


@given(st.integers(1, 30), st.data(), st.floats(0, 6), st.sampled_from([0.0, 1e-5, 1e-3, 0.1]))
@settings(deadline=None)
def test_p_value_is_the_theorems(m: int, data: st.DataObject, epsilon: float, delta: float) -> None:
    r = data.draw(st.integers(0, m))
    v = data.draw(st.integers(0, r))
    found = stats.one_run_p_value(m, r, v, epsilon, delta)
    assert found == pytest.approx(written_out(m, r, v, epsilon, delta), abs=1e-12)


def test_by_hand() -> None:
    # one guess, right: P = q + 2 delta (1 - q); at epsilon 0 that is 1/2 + delta
    assert stats.one_run_p_value(1, 1, 1, 0.0, 0.0) == pytest.approx(0.5)
    assert stats.one_run_p_value(1, 1, 1, 0.0, 0.1) == pytest.approx(0.6)
    # two of two, three canaries: q^2 + 6 delta max(2 q (1-q), (1 - q^2) / 2)
    assert stats.one_run_p_value(3, 2, 2, math.log(3), 0.01) == pytest.approx(9 / 16 + 0.06 * 6 / 16)


@pytest.mark.parametrize(("guesses", "epsilon"), [(100, 3.5), (1000, 5.8), (9000, 8.0)])
def test_perfect_guesses(guesses: int, epsilon: float) -> None:
    found = stats.one_run_epsilon(guesses, guesses, guesses, 0.0)
    assert found == pytest.approx(epsilon, abs=0.01)
    root = 0.05 ** (1 / guesses)
    assert found == pytest.approx(math.log(root / (1 - root)), abs=1e-8)
    assert stats.one_run_epsilon_limit(guesses, guesses, 0.0) == found


@pytest.mark.parametrize("row", REFERENCE["rows"], ids=str)
def test_is_jax_privacys(row: dict[str, float]) -> None:
    canaries, guesses, correct = int(row["members"] + row["nonmembers"]), int(row["hits"] + row["alarms"]), row["hits"]
    found = stats.one_run_epsilon(canaries, guesses, int(correct), row["delta"], row["significance"])
    assert found == pytest.approx(row["one_run"], abs=2e-6)


def test_nothing_is_shown() -> None:
    assert stats.one_run_epsilon(10, 0, 0, 0.0) == 0
    assert stats.one_run_epsilon(0, 0, 0, 0.0) == 0
    assert stats.one_run_epsilon(10, 10, 0, 0.0) == 0
    assert stats.one_run_epsilon(100, 100, 50, 1e-5) == 0
    assert stats.one_run_epsilon(4, 4, 4, 0.0) == 0  # 1/16 > 0.05
    assert stats.one_run_epsilon(5, 5, 5, 0.0) > 0  # 1/32
    assert stats.one_run_p_value(5, 5, 5, math.inf, 0.0) == 1


@given(st.integers(5, 200), st.data(), st.sampled_from([0.0, 1e-6, 1e-4]))
@settings(deadline=None, max_examples=40)
def test_what_it_returns_is_just_refuted(m: int, data: st.DataObject, delta: float) -> None:
    r = data.draw(st.integers(1, m))
    v = data.draw(st.integers(0, r))
    found = stats.one_run_epsilon(m, r, v, delta)
    if found:
        assert stats.one_run_p_value(m, r, v, found, delta) <= 0.05
    assert stats.one_run_p_value(m, r, v, found + 1e-6, delta) > 0.05


@given(st.integers(1, 200), st.data())
@settings(deadline=None, max_examples=40)
def test_it_rises_with_what_is_right_and_falls_with_delta_and_canaries(r: int, data: st.DataObject) -> None:
    v = data.draw(st.integers(1, r))
    found = stats.one_run_epsilon(r, r, v, 1e-5)
    assert found >= stats.one_run_epsilon(r, r, v - 1, 1e-5)
    assert found <= stats.one_run_epsilon(r, r, v, 0.0)
    assert found >= stats.one_run_epsilon(2 * r, r, v, 1e-5) - 1e-8
    assert found >= stats.one_run_epsilon(r, r, v, 1e-5, 0.01)
    assert found <= stats.one_run_epsilon_limit(r, r, 1e-5)


@pytest.mark.parametrize("epsilon", validity.EPSILONS)
@pytest.mark.parametrize("guesses", validity.GUESSES[:-1])
def test_bound_exceeds_a_true_epsilon_no_more_often_than_it_says(guesses: int, epsilon: float) -> None:
    """By enumeration: randomised response of exactly epsilon; with delta, one that bares each canary, or all."""
    for delta in (0.0, 0.001, 0.02):
        for chances in validity.leaky_response(guesses, epsilon, delta):
            assert validity.exceeded(stats.one_run_epsilon, chances, guesses, epsilon, delta) <= 0.05 + 1e-12


def test_a_p_value_without_its_delta_term_would_be_caught() -> None:
    everything = validity.leaky_response(20, 1.0, 0.1)[1]

    def careless(m: int, r: int, v: int, delta: float, significance: float) -> float:
        return stats.one_run_epsilon(m, r, v, 0.0, significance)

    assert validity.exceeded(careless, everything, 20, 1.0, 0.1) > 0.09


def test_chosen_number_of_guesses_is_corrected() -> None:
    outcomes = [(10, 10), (50, 45), (100, 80)]
    found = stats.one_run_epsilon_chosen(100, outcomes, 1e-5)
    assert found == max(stats.one_run_epsilon(100, r, v, 1e-5, 0.05 / 3) for r, v in outcomes)
    assert found < max(stats.one_run_epsilon(100, r, v, 1e-5) for r, v in outcomes)
    by_fdp = stats.one_run_epsilon_chosen(100, outcomes, 1e-5, bound=stats.one_run_epsilon_fdp)
    assert by_fdp == max(stats.one_run_epsilon_fdp(100, r, v, 1e-5, 0.05 / 3) for r, v in outcomes)
    with pytest.raises(ValueError, match="no number"):
        stats.one_run_epsilon_chosen(100, [], 1e-5)


def test_choosing_uncorrected_would_be_caught() -> None:
    """The best of five numbers of guesses on the first 10, 20, ..., 50 canaries under randomised response of 1."""
    sizes, accuracy = (10, 20, 30, 40, 50), 1 / (1 + math.exp(-1.0))

    def flagged(significance: float) -> float:
        alive = np.ones(1)  # chance of each number right so far, no bound above 1 yet
        for size in sizes:
            alive = np.convolve(alive, binom.pmf(np.arange(11), 10, accuracy))
            refuted = [stats.one_run_epsilon(50, size, v, 0.0, significance) > 1 for v in range(size + 1)]
            alive = np.where(refuted, 0.0, alive)
        return 1 - float(alive.sum())

    assert flagged(0.05) > 0.06
    assert flagged(0.05 / 5) <= 0.05


def test_guesses_by_hand() -> None:
    scores = [5.0, 1.0, 4.0, 2.0, 3.0, 0.0]
    member = [True, False, False, True, True, False]
    assert stats.one_run_guesses(scores, member, 2) == (2, 1)
    assert stats.one_run_guesses(scores, member, 2, 3) == (5, 3)
    assert stats.one_run_guesses(scores, member, 0, 0) == (0, 0)
    assert stats.one_run_guesses(np.zeros(6), member, 3) == (3, 1)  # ties stand in order
    assert stats.one_run_guesses(np.zeros(6), member, 3, 3) == (6, 2)
    for top, bottom in ((4, 3), (-1, 0), (0, -1)):
        with pytest.raises(ValueError, match="cannot guess"):
            stats.one_run_guesses(scores, member, top, bottom)


@pytest.mark.parametrize("counts", [(10, 11, 5), (10, 5, 6), (10, 5, -1), (-1, -1, -1)])
def test_impossible_counts_are_refused(counts: tuple[int, int, int]) -> None:
    for bound in (stats.one_run_epsilon, stats.one_run_epsilon_fdp):
        with pytest.raises(ValueError, match="correct <= guesses <= canaries"):
            bound(*counts, 1e-5)


@pytest.mark.parametrize(
    ("delta", "significance"), [(-0.1, 0.05), (1.0, 0.05), (0.1, 0.0), (0.1, 1.0), (math.nan, 0.05)]
)
def test_impossible_levels_are_refused(delta: float, significance: float) -> None:
    for bound in (stats.one_run_epsilon, stats.one_run_epsilon_fdp):
        with pytest.raises(ValueError, match="must be in"):
            bound(10, 5, 5, delta, significance)
    with pytest.raises(TypeError):
        stats.one_run_epsilon(10, 5, 4.5, 0.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="epsilon"):
        stats.one_run_p_value(10, 5, 5, -1.0, 0.0)
