"""The accountant against published figures, another library, closed forms, and what it must refuse."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from bench.core.errors import UsageError
from bench.defense.parts import Mechanism, Promise
from bench.privacy import (
    MAX_CALIBRATED_EPSILON,
    Refused,
    calibrate,
    claim,
    composition,
    default_delta,
    epsilon,
    epsilon_rdp,
    worst,
)
from bench.spec.result import Claim

#: (rate, sigma, steps, delta): epsilon by loss distributions, by Renyi DP
KNOWN = [((0.01, 1, 1000, 1e-5), 1.828, 2.101), ((0.1, 1, 100, 1e-4), 5.966, 6.822), ((1, 4, 20, 1e-3), 3.61, 4.05)]


@pytest.mark.parametrize(("case", "pld", "rdp"), KNOWN)
def test_known_figures(case, pld, rdp) -> None:
    rate, sigma, steps, delta = case
    digits = 0.0006 if steps > 20 else 0.006
    assert epsilon(((rate, sigma, steps),), delta) == pytest.approx(pld, abs=digits)
    assert epsilon_rdp(((rate, sigma, steps),), delta) == pytest.approx(rdp, abs=digits)


@pytest.mark.parametrize(("case", "pld", "rdp"), [*KNOWN, ((8 / 30, 0.8222, 24, 3e-3), 7.99, math.nan)])
def test_agrees_with_opacus_prv_accountant(case, pld, rdp) -> None:
    from opacus.accountants import PRVAccountant

    rate, sigma, steps, delta = case
    other = PRVAccountant()
    other.history = [(sigma, rate, steps)]
    # opacus reports the upper end of its own error of 0.01
    assert epsilon(((rate, sigma, steps),), delta) == pytest.approx(other.get_epsilon(delta), abs=0.02)


def gaussian_epsilon(sigma: float, delta: float) -> float:
    """Balle and Wang 2018, theorem 8: the exact curve of the Gaussian mechanism."""

    def excess(e: float) -> float:
        return float(norm.cdf(0.5 / sigma - e * sigma) - math.exp(e) * norm.cdf(-0.5 / sigma - e * sigma) - delta)

    return float(brentq(excess, 1e-9, 500))


@pytest.mark.parametrize(("sigma", "steps"), [(4, 20), (1, 1), pytest.param(0.5, 3, marks=pytest.mark.slow), (10, 5)])
def test_without_sampling_it_is_the_exact_gaussian_curve(sigma, steps) -> None:
    exact = gaussian_epsilon(sigma / math.sqrt(steps), 1e-3)
    found = epsilon(((1.0, sigma, steps),), 1e-3)
    assert exact - 1e-9 <= found <= exact * 1.001


@pytest.mark.parametrize(
    "steps",
    [
        ((0.3, 1.0, 10),),
        pytest.param(((0.05, 0.7, 200), (1.0, 3.0, 2)), marks=pytest.mark.slow),
        ((0.25, 0.1, 24),),
    ],
)
def test_coarser_steps_only_ever_say_more_and_rdp_the_most(steps) -> None:
    fine, coarse, rdp = epsilon(steps, 1e-3), epsilon(steps, 1e-3, coarse=True), epsilon_rdp(steps, 1e-3)
    assert fine <= coarse * (1 + 1e-6)
    assert coarse <= fine * 1.01
    assert fine < rdp


def test_more_rounds_cost_more_and_no_step_costs_nothing() -> None:
    costs = [epsilon(((0.25, 1.0, steps),), 3e-3, coarse=True) for steps in (1, 8, 24)]
    assert costs == sorted(costs)
    assert len(set(costs)) == 3
    assert epsilon((), 3e-3) == epsilon_rdp((), 3e-3) == 0.0


def test_huge_epsilons_take_no_longer() -> None:
    assert 590 < epsilon(((0.25, 0.1, 24),), 3e-3) < 620  # 604.88 with losses in steps of 1e-4, in 20 s


@pytest.mark.parametrize(
    ("target", "delta", "rate", "steps"),
    [
        (8, 3e-3, 8 / 30, 24),
        pytest.param(1, 3e-3, 0.25, 24, marks=pytest.mark.slow),
        (8, 1e-3, 1.0, 3),
        (1000, 3e-3, 0.25, 24),
    ],
)
def test_calibration_meets_its_target_and_wastes_little(target, delta, rate, steps) -> None:
    sigma = calibrate(target, delta, rate, steps)
    assert 0.98 * target < epsilon(((rate, sigma, steps),), delta) <= target
    assert epsilon(((rate, sigma * 0.995, steps),), delta) > target * 0.99


@pytest.mark.parametrize("target", [0.0, -1.0, MAX_CALIBRATED_EPSILON * 1.1])
def test_calibration_refuses_what_it_cannot_do(target) -> None:
    with pytest.raises(UsageError, match="fix sigma"):
        calibrate(target, 1e-3, 0.5, 10)


@pytest.mark.parametrize(
    ("n", "delta"), [(1, 0.1), (10, 0.01), (11, 0.009), (30, 0.003), (32, 0.003), (90, 0.001), (1000, 1e-4)]
)
def test_delta_of_a_silo(n, delta) -> None:
    assert default_delta(n) == delta


@given(st.integers(1, 10**9))
def test_delta_is_at_most_a_tenth_of_one_over_n_and_has_one_digit(n) -> None:
    delta = default_delta(n)
    assert 0.5 / (10 * n) <= delta <= 1 / (10 * n)
    assert float(f"{delta:.0e}") == delta


# from mechanisms to a claim


def poisson(sigma: float = 1.0, steps: float = 8, rate: float = 0.25, **more: float) -> Mechanism:
    return Mechanism("poisson-gaussian", {"rate": rate, "sigma": sigma, "steps": steps, **more})


RECORD = Promise("record", "add-remove", lambda coalition, victim: victim not in coalition)
SILOS = ("silo-0", "silo-1", "silo-2")
SIZES = dict.fromkeys(SILOS, 30)
LOGGED = {s: [poisson(), poisson(), poisson()] for s in SILOS}
SERVER = frozenset({"server"})


def test_rounds_add_up_and_the_worst_silo_counts() -> None:
    logged = {**LOGGED, "silo-2": [poisson(0.8)] * 3}
    found = claim(logged, [RECORD], SERVER, SILOS, SIZES)
    assert found.epsilon == epsilon(((0.25, 0.8, 24),), 0.003)
    assert found.epsilon_rdp == epsilon_rdp(((0.25, 0.8, 24),), 0.003)
    assert found.epsilon_rdp > found.epsilon > claim(LOGGED, [RECORD], SERVER, SILOS, SIZES).epsilon
    assert (found.delta, found.unit, found.adjacency, found.note) == (0.003, "record", "add-remove", "")
    assert claim(logged, [RECORD], SERVER, ("silo-0",), SIZES).epsilon == epsilon(((0.25, 1.0, 24),), 0.003)


def test_different_mechanisms_of_one_silo_compose() -> None:
    mixed = [poisson(1.0), poisson(2.0, 4), poisson(1.0, 8)]
    assert composition(mixed, "add-remove") == ((0.25, 1.0, 16), (0.25, 2.0, 4))
    both = claim({"silo-0": mixed}, [RECORD], SERVER, ("silo-0",), SIZES).epsilon
    assert both == epsilon(((0.25, 1.0, 16), (0.25, 2.0, 4)), 0.003)
    assert both > epsilon(((0.25, 1.0, 16),), 0.003)


def test_no_promise_is_infinite() -> None:
    found = claim(LOGGED, [], SERVER, SILOS, SIZES)
    assert found.epsilon is None
    assert "no part" in found.note


def test_a_promise_that_does_not_hold_against_this_coalition_is_infinite() -> None:
    only_users = Promise("record", "add-remove", lambda coalition, victim: "server" not in coalition)
    assert claim(LOGGED, [only_users], frozenset(), SILOS, SIZES).epsilon is not None
    found = claim(LOGGED, [only_users], SERVER, SILOS, SIZES)
    assert found.epsilon is None
    assert "silo-0" in found.note
    assert (
        claim(LOGGED, [RECORD], frozenset({"silo-1"}), SILOS, SIZES).epsilon is None
    )  # one victim is in the coalition


@pytest.mark.parametrize(
    ("mechanism", "words"),
    [
        (Mechanism("laplace", {"scale": 1}), "knows no mechanism 'laplace'"),
        (Mechanism("poisson-gaussian", {"rate": 0.5, "sigma": 1}), "lacks 'steps'"),
        (poisson(sigma=0), "no noise"),
        (poisson(rate=1.5), "out of range"),
        (poisson(rate=0), "out of range"),
        (poisson(sigma=math.nan), "out of range"),
        (poisson(sigma=math.inf), "out of range"),
        (poisson(steps=-1), "out of range"),
        (poisson(steps=1.5), "out of range"),
        (Mechanism("shuffled-gaussian", {"sigma": 1, "epochs": 2}), "no 'add-remove' bound"),
        (Mechanism("banded-gaussian", {"sigma": 1, "bands": 1, "separation": 2, "steps": 3}), "no 'add-remove' bound"),
        (Mechanism("poisson-gaussian-counts", {"rate": 0.5, "sigma": 1, "steps": 3}), "lacks 'sigma_count'"),
        (
            Mechanism("poisson-gaussian-counts", {"rate": 0.5, "sigma": 1, "sigma_count": 0, "steps": 3}),
            "added no noise",
        ),
    ],
)
def test_what_the_accountant_does_not_know_is_refused_not_guessed(mechanism, words) -> None:
    logged = {**LOGGED, "silo-1": [poisson(), mechanism]}
    found = claim(logged, [RECORD], SERVER, SILOS, SIZES)
    assert found.epsilon is None
    assert words in found.note
    with pytest.raises(Refused):
        composition([mechanism], "add-remove")


def test_a_silo_that_logged_nothing_is_no_zero() -> None:
    logged = {**LOGGED, "silo-1": []}
    found = claim(logged, [RECORD], SERVER, SILOS, SIZES)
    assert found.epsilon is None
    assert "silo-1" in found.note
    away = claim(logged, [RECORD], SERVER, SILOS, SIZES, absent={"silo-1"})
    assert away.epsilon == epsilon(((0.25, 1.0, 24),), 0.003)
    assert claim({}, [RECORD], SERVER, SILOS, SIZES, absent=SILOS).epsilon == 0.0


def test_shuffled_batches_get_no_amplification() -> None:
    zero_out = Promise("record", "zero-out", lambda coalition, victim: True)
    logged = {"silo-0": [Mechanism("shuffled-gaussian", {"sigma": 2, "epochs": 3})] * 2}
    found = claim(logged, [zero_out], SERVER, ("silo-0",), SIZES)
    assert found.epsilon == pytest.approx(gaussian_epsilon(2 / math.sqrt(6), 0.003), rel=1e-3)
    assert found.adjacency == "zero-out"


def test_replacing_a_record_has_no_bound_here() -> None:
    found = claim(LOGGED, [Promise("record", "replace", lambda coalition, victim: True)], SERVER, SILOS, SIZES)
    assert found.epsilon is None
    assert "'replace'" in found.note


def test_units_do_not_mix() -> None:
    silo = Promise("silo", "zero-out", lambda coalition, victim: True)
    found = claim(LOGGED, [RECORD, silo], SERVER, SILOS, SIZES)
    assert found.epsilon is None
    assert "different units" in found.note


def test_delta_follows_size_and_calibration_and_never_exceeds_a_tenth_over_n() -> None:
    small = claim(LOGGED, [RECORD], SERVER, SILOS, {**SIZES, "silo-1": 1000})
    assert small.delta == 0.003
    assert "own delta" in small.note
    assert small.epsilon == epsilon(((0.25, 1.0, 24),), 1e-4)  # the large silo's, at its smaller delta
    tight = claim({s: [poisson(delta=1e-6)] for s in SILOS}, [RECORD], SERVER, SILOS, SIZES)
    assert tight.delta == 1e-6
    lax = claim({s: [poisson(delta=0.5)] for s in SILOS}, [RECORD], SERVER, SILOS, SIZES)
    assert lax.delta == 0.003
    assert claim(LOGGED, [RECORD], SERVER, SILOS, SIZES, delta=1e-4).delta == 1e-4
    refused = claim(LOGGED, [RECORD], SERVER, SILOS, SIZES, delta=0.01)
    assert refused.epsilon is None
    assert "1/(10 n)" in refused.note


def test_secrets_from_a_number_make_no_claim() -> None:
    found = claim(LOGGED, [RECORD], SERVER, SILOS, SIZES, simulated=True)
    assert found.epsilon is None
    assert "--secret-seed" in found.note


def test_no_victims_no_figure() -> None:
    assert claim(LOGGED, [RECORD], SERVER, (), SIZES).epsilon is None


def test_what_holds_for_every_coalition_is_the_worst_of_each_figure() -> None:
    small, large = Claim(epsilon=7.5, delta=0.03, epsilon_rdp=9.5), Claim(epsilon=8.0, delta=0.003, epsilon_rdp=9.0)
    found = worst([small, large])
    assert found is not None
    assert (found.epsilon, found.delta, found.epsilon_rdp) == (8.0, 0.03, 9.5)
    assert found.note == "each silo at its own delta, of which the largest is shown"
    assert worst([found, found.model_copy(update={"delta": 0.02, "note": "other"})]) == found
    assert worst([small, small.model_copy(update={"epsilon": 7.0})]) == small
    assert worst([small, Claim(note="nothing is promised")]) == Claim(note="nothing is promised")
    assert worst([Claim(epsilon=0.0, delta=0.0, note="absent"), large]) == large
    assert worst([]) is None
