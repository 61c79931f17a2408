"""Privacy of whole silos: whose noise counts for whom."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from bench.defense.parts import Mechanism, Promise
from bench.privacy import Exposure, Refused, Skellam, Sum, claim, composition, epsilon_skellam

# whose noise counts for whom

SILOS = tuple(f"silo-{i}" for i in range(5))
SIZES = dict.fromkeys(SILOS, 30)
EVERYBODY = Promise("silo", "zero-out", lambda coalition, victim: victim not in coalition)
SERVER = frozenset({"server"})


def share(variance: float = 4.0, round: int = 0) -> Mechanism:
    return Mechanism("skellam-share", {"variance": variance, "sensitivity": 2.0, "dimension": 9.0}, round)


def shares(rounds: int = 1, **of: float) -> dict[str, list[Mechanism]]:
    return {s: [share(of.get(s.replace("-", "_"), 4.0), r) for r in range(rounds)] for s in SILOS}


def opened(*silos: str, round: int = 0, bound: float | None = 2.0, noise: Mechanism | None = None) -> Sum:
    return Sum(round, dict.fromkeys(silos, bound), noise)


def variance(exposure: Exposure, logged: dict[str, list[Mechanism]] | None = None, victim: str = "silo-0") -> float:
    (found,) = exposure.protecting(victim, logged or shares(), "silo")
    assert (found.kind, found.params["sensitivity"], found.params["dimension"]) == ("skellam", 2.0, 9.0)
    return found.params["variance"]


ALL = (opened(*SILOS),)


def test_a_secure_sum_has_the_noise_of_everyone_in_it() -> None:
    assert variance(Exposure(SERVER, ALL, {})) == 20.0
    assert variance(Exposure(SERVER, ALL, {}), shares(silo_3=1.5)) == 17.5


def test_those_who_tell_their_share_are_taken_off() -> None:
    assert variance(Exposure(frozenset({"server", "silo-1", "silo-4"}), ALL, {})) == 12.0
    assert variance(Exposure(frozenset({"server", *SILOS[1:]}), ALL, {})) == 4.0


def test_those_who_dropped_out_gave_no_noise() -> None:
    survivors = (opened("silo-0", "silo-2", "silo-3"),)
    assert variance(Exposure(SERVER, survivors, {})) == 12.0
    assert variance(Exposure(frozenset({"silo-2"}), survivors, {})) == 8.0


def test_a_victim_that_nobody_summed_and_nobody_reads_spends_nothing() -> None:
    without = Exposure(SERVER, (opened(*SILOS[1:]),), {})
    assert without.protecting("silo-0", shares(), "silo") == []
    assert claim(shares(), [EVERYBODY], SERVER, ("silo-0",), SIZES, exposure=without).epsilon == 0.0
    read = Exposure(SERVER, (opened(*SILOS[1:]),), {0: [{"silo-0": 1}]})
    assert variance(read) == 4.0


def test_a_single_upload_that_is_read_has_one_share() -> None:
    assert variance(Exposure(SERVER, ALL, {0: [{"silo-0": 1}]})) == 4.0
    assert variance(Exposure(SERVER, ALL, {1: [{"silo-0": 1}]})) == 20.0  # another round's


def test_somebody_elses_upload_takes_off_that_share_only() -> None:
    assert variance(Exposure(SERVER, ALL, {0: [{"silo-3": 1}]})) == 16.0


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        ([{"silo-0": 1, "silo-1": 1}], 2),  # a sum of two, and the sum of all
        ([{"silo-1": 1, "silo-2": 1}], 3),
        ([{"silo-0": 1, "silo-1": 1}, {"silo-1": 1, "silo-2": 1, "silo-0": 1}], 2),
        ([{"silo-0": 1, "silo-1": 1}, {"silo-0": 1, "silo-2": 1}], 1),
        ([{"silo-0": 1, "silo-1": -1}], 1),
        ([{"silo-0": -1, "silo-1": -1, "silo-2": 1}], 2),
    ],
)
def test_of_several_sums_only_noise_that_stays_with_the_victim_counts(rows, count) -> None:
    assert variance(Exposure(SERVER, ALL, {0: rows})) == 4.0 * count


@given(st.lists(st.lists(st.integers(-1, 1), min_size=5, max_size=5), max_size=4), st.integers(0, 2**32))
@settings(max_examples=30)
def test_counted_noise_is_never_more_than_what_least_squares_leaves(rows: list[list[int]], seed: int) -> None:
    """The adversary may combine its readings linearly to estimate the victim's value; with Gaussian noise of the same
    variances the best estimate has the variance 1 / (e' (A S A')^+ e), and the counted noise must not exceed it."""
    matrix = np.array([[1] * 5, *[row for row in rows if any(row)]], dtype=float)
    counted = variance(
        Exposure(SERVER, ALL, {0: [{s: int(c) for s, c in zip(SILOS, row, strict=True) if c} for row in matrix[1:]]})
    )
    column = matrix[:, 0]
    precision = column @ np.linalg.pinv(4.0 * matrix @ matrix.T, rcond=1e-9) @ column
    assert counted <= 1 / precision * (1 + 1e-6)


@pytest.mark.parametrize("rows", [None, {}])
def test_where_the_view_is_not_known_in_full_one_share_counts(rows) -> None:
    assert variance(Exposure(SERVER, ALL, rows, blind={0})) == 4.0
    assert variance(Exposure(SERVER, ALL, None)) == 4.0


def test_broken_counts_are_told_apart() -> None:
    """Noise for all who were called, or for the coalition's own too, gives a smaller epsilon than is true."""
    survivors, coalition = (opened(*SILOS[:3]),), frozenset({"server", "silo-1"})
    true = claim(shares(), [EVERYBODY], coalition, ("silo-0",), SIZES, exposure=Exposure(coalition, survivors, {}))
    assert true.epsilon == epsilon_skellam([Skellam(8.0, 2.0, 9)], 0.02)
    for wrong in (Exposure(coalition, ALL, {}), Exposure(SERVER, survivors, {})):
        too_small = claim(shares(), [EVERYBODY], coalition, ("silo-0",), SIZES, exposure=wrong)
        assert too_small.epsilon < true.epsilon * 0.9


def test_rounds_add_up_each_with_its_survivors() -> None:
    sums = (opened(*SILOS), opened("silo-0", "silo-1", round=1), opened(*SILOS[1:], round=2))
    found = claim(shares(3), [EVERYBODY], SERVER, ("silo-0",), SIZES, exposure=Exposure(SERVER, sums, {}))
    assert found.epsilon == epsilon_skellam([Skellam(20.0, 2.0, 9), Skellam(8.0, 2.0, 9)], 0.02)
    assert (found.unit, found.adjacency, found.delta) == ("silo", "zero-out", 0.02)
    assert "Renyi" in found.note


def test_the_n_of_delta_are_the_silos() -> None:
    many = {f"silo-{i}": 3 for i in range(100)}
    logged = {s: [share()] for s in many}
    exposure = Exposure(SERVER, (opened(*many),), {})
    assert claim(logged, [EVERYBODY], SERVER, tuple(many), many, exposure=exposure).delta == 1e-3
    lax = {s: [replace(share(), params={**share().params, "delta": 1e-6})] for s in many}
    assert claim(lax, [EVERYBODY], SERVER, ("silo-0",), many, exposure=exposure).delta == 1e-6
    refused = claim(logged, [EVERYBODY], SERVER, ("silo-0",), many, delta=0.01, exposure=exposure)
    assert refused.epsilon is None
    assert "100 silos" in refused.note


# noise of a silo's own, and of the opener


def exact(sigma: float, delta: float) -> float:
    from scipy.optimize import brentq

    def excess(e: float) -> float:
        return float(norm.cdf(0.5 / sigma - e * sigma) - math.exp(e) * norm.cdf(-0.5 / sigma - e * sigma) - delta)

    return float(brentq(excess, 1e-9, 500))


def test_noise_of_its_own_counts_whatever_is_read() -> None:
    logged = {s: [Mechanism("gaussian", {"sigma": 3.0}, r) for r in range(4)] for s in SILOS}
    for exposure in (None, Exposure(SERVER, ALL, {0: [{"silo-0": 1}]}), Exposure(SERVER, (), None)):
        found = claim(logged, [EVERYBODY], SERVER, ("silo-0",), SIZES, exposure=exposure)
        assert found.epsilon == pytest.approx(exact(1.5, 0.02), rel=1e-3)
    assert composition(logged["silo-0"], "zero-out") == ((1.0, 3.0, 4),)
    with pytest.raises(Refused, match="'add-remove'"):
        composition(logged["silo-0"], "add-remove")


def noisy(deviation: float, round: int = 0) -> Mechanism:
    return Mechanism("opener-gaussian", {"deviation": deviation}, round)


NOBODY: dict[str, list[Mechanism]] = {s: [] for s in SILOS}


def test_the_openers_noise_is_measured_in_the_norm_that_the_summand_stated() -> None:
    sums = (opened(*SILOS, bound=2.0, noise=noisy(6.0)), opened(*SILOS, round=1, bound=4.0, noise=noisy(6.0, 1)))
    found = Exposure(frozenset(), sums, {}).protecting("silo-0", NOBODY, "silo")
    assert [m.params["sigma"] for m in found] == [3.0, 1.5]
    assert composition(found, "zero-out") == ((1.0, 1.5, 1), (1.0, 3.0, 1))


def refusal(exposure: Exposure, victim: str = "silo-0") -> str:
    found = claim(NOBODY, [EVERYBODY], frozenset(exposure.coalition), (victim,), SIZES, exposure=exposure)
    assert found.epsilon is None
    return found.note


def test_the_openers_noise_protects_from_nobody_who_reads_past_it() -> None:
    sums = (opened(*SILOS, noise=noisy(6.0)),)
    silo = frozenset({"silo-1"})
    assert Exposure(silo, sums, {0: [{"silo-2": 1}]}).protecting("silo-0", NOBODY, "silo")
    assert "no noise is on it" in refusal(Exposure(SERVER, sums, {}))
    assert "no noise is on it" in refusal(Exposure(silo, sums, {0: [{"silo-0": 1, "silo-2": 1}]}))
    assert "no noise is on it" in refusal(Exposure(silo, sums, None))


def test_what_was_not_noted_or_not_bounded_is_refused() -> None:
    assert "nothing was noted that protects" in refusal(Exposure(frozenset(), ALL, {}))
    assert "nothing was noted of silo-0" in refusal(Exposure(frozenset(), (), {}))
    unbounded = (opened(*SILOS, bound=None, noise=noisy(6.0)),)
    assert "states no norm bound" in refusal(Exposure(frozenset(), unbounded, {}))
    silent = (opened(*SILOS, noise=noisy(6.0)), opened(*SILOS, round=1))  # one round without noise
    assert "round 1" in refusal(Exposure(frozenset(), silent, {}))
    none = (opened(*SILOS, noise=noisy(0.0)),)
    assert "added no noise" in refusal(Exposure(frozenset(), none, {}))


def test_shares_without_a_view_are_no_claim_at_all() -> None:
    found = claim(shares(), [EVERYBODY], SERVER, ("silo-0",), SIZES)
    assert found.epsilon is None
    assert "knows no mechanism 'skellam-share'" in found.note


def test_integer_noise_has_no_bound_under_other_adjacencies() -> None:
    other = replace(EVERYBODY, adjacency="add-remove")
    found = claim(shares(), [other], SERVER, ("silo-0",), SIZES, exposure=Exposure(SERVER, ALL, {}))
    assert found.epsilon is None
    assert "zero-out" in found.note


def test_a_records_promise_is_kept_by_what_protects_records_alone() -> None:
    """Noise for whole silos neither replaces nor disturbs it."""
    record = Promise("record", "add-remove", lambda coalition, victim: True)
    steps = Mechanism("poisson-gaussian", {"rate": 0.25, "sigma": 1.0, "steps": 8.0}, 0)
    both = {s: [steps, share()] for s in SILOS}
    assert Exposure(SERVER, ALL, {}).protecting("silo-0", both, "record") == [steps]
    assert claim(shares(), [record], SERVER, SILOS, SIZES, exposure=Exposure(SERVER, ALL, {})).epsilon is None
