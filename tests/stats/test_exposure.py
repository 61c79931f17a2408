"""Exposure by hand, its chance under "never planted", and its limits from a sample by enumeration."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, kstest, norm, skewnorm

from bench import stats


def test_by_hand() -> None:
    assert stats.exposure(1, 1024) == 10
    assert stats.exposure(1024, 1024) == 0
    assert stats.exposure(4, 1024) == 8
    assert stats.exposure(2.5, 10) == pytest.approx(2)
    assert stats.exposure(1, 1) == 0
    for rank, candidates in ((0, 10), (11, 10), (1, 0), (math.nan, 10)):
        with pytest.raises(ValueError, match="rank"):
            stats.exposure(rank, candidates)


def test_rank_by_hand_and_with_ties() -> None:
    assert stats.exposure_rank(3.0, [1, 2, 4, 5]) == 3
    assert stats.exposure_rank(9.0, [1, 2]) == 1
    assert stats.exposure_rank(0.0, [1, 2]) == 3
    assert stats.exposure_rank(2.0, [1, 2, 2, 5]) == 3
    assert stats.exposure_rank(2.0, [2, 2, 2]) == 2.5
    assert stats.exposure_rank(-math.inf, [-math.inf, 0]) == 2.5
    assert stats.exposure_rank(1.0, []) == 1


def test_constant_scores_give_just_under_one_bit() -> None:
    found = stats.exposure(stats.exposure_rank(0.0, np.zeros(9999)), 10_000)
    assert found == pytest.approx(math.log2(2 * 10_000 / 10_001))
    assert 0.999 < found < 1


def test_what_was_never_planted_reaches_b_bits_with_chance_two_to_minus_b() -> None:
    found = np.array([stats.exposure(rank, 4096) for rank in range(1, 4097)])
    assert found.mean() == pytest.approx(1 / math.log(2), abs=0.01)
    for bits in (1, 2.5, 5, 12):
        assert (found >= bits).mean() <= 2.0**-bits


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=30), st.integers(-4, 4))
def test_rank_is_midrank_and_order_is_irrelevant(others: list[int], score: int) -> None:
    found = stats.exposure_rank(score, others)
    assert found == len(others) + 2 - stats.midranks([score, *others])[0]
    assert found == stats.exposure_rank(score, others[::-1])
    assert found == stats.exposure_rank(math.exp(score), np.exp(others))


def test_from_a_sample_by_hand() -> None:
    others = np.arange(99.0)
    found = stats.exposure_from_sample(97.5, others, 10**6)
    assert found.value == pytest.approx(math.log2(100 / 2))
    share = stats.clopper_pearson(1, 99)
    assert share.low is not None
    assert share.high is not None
    expected = [math.log2(10**6 / (1 + p * (10**6 - 1))) for p in (share.high, share.low)]
    assert (found.low, found.high) == pytest.approx(expected)
    best = stats.exposure_from_sample(1000.0, others, 10**6)
    assert (best.value, best.high) == pytest.approx((math.log2(100), math.log2(10**6)))
    assert best.low is not None
    assert 4 < best.low < 5  # the sample alone can't tell more than that
    whole = stats.exposure_from_sample(97.5, others, 100)
    assert whole.value == whole.low == whole.high == stats.exposure(2, 100)


@pytest.mark.parametrize("n", [3, 20, 100])
def test_limits_from_a_sample_hold_the_truth_by_enumeration(n: int) -> None:
    candidates = 10_001
    limits = [stats.exposure_from_sample(0.5, np.arange(n) < above, candidates) for above in range(n + 1)]
    for better in (0, 1, 10, 300, 2500, 9000, 10_000):
        truth = stats.exposure(1 + better, candidates)
        chance = binom.pmf(np.arange(n + 1), n, better / (candidates - 1))
        held = [i.low - 1e-9 <= truth <= i.high + 1e-9 for i in limits if i.low is not None and i.high is not None]
        assert float(chance @ np.array(held, dtype=float)) >= 0.95


@given(st.integers(1, 60), st.data(), st.integers(0, 10**6))
def test_value_lies_within_its_limits(n: int, data: st.DataObject, more: int) -> None:
    above = data.draw(st.integers(0, n))
    found = stats.exposure_from_sample(0.5, np.arange(n) < above, n + 1 + more)
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.value + 1e-9 <= found.high + 2e-9
    assert found.high <= math.log2(n + 1 + more) + 1e-9


def test_sample_refuses() -> None:
    for others, candidates in (([], 10), ([1.0] * 10, 10), ([1.0, math.nan], 10)):
        with pytest.raises(ValueError, match=r"alternatives|NaN"):
            stats.exposure_from_sample(1.0, others, candidates)
    with pytest.raises(ValueError, match="flat"):
        stats.exposure_rank(1.0, [[1.0]])


def test_extrapolation_finds_a_skew_normals_tail() -> None:
    fitted = skewnorm(3.0, 1.0, 2.0)
    others = fitted.ppf((np.arange(20_000) + 0.5) / 20_000)
    for score in (5.0, 8.0):
        found = stats.exposure_extrapolated(score, others, 10**9)
        assert found.value == pytest.approx(-math.log2(fitted.sf(score)), rel=0.03)
        assert found.low is None
    lean = stats.exposure_extrapolated(4.0, norm.ppf((np.arange(5_000) + 0.5) / 5_000), 10**9)
    assert lean.value == pytest.approx(-math.log2(norm.sf(4.0)), rel=0.03)
    assert stats.exposure_extrapolated(1e6, others, 10**9).value == math.log2(10**9)
    assert stats.exposure_extrapolated(-1e6, others, 10**9).value == 0
    left = stats.exposure_extrapolated(1.0, -others, 10**9)
    assert left.value == pytest.approx(min(math.log2(10**9), -math.log2(fitted.cdf(-1.0))), rel=0.1)


def test_extrapolation_says_where_it_does_not_fit() -> None:
    two_humps = np.concatenate([norm.ppf((np.arange(500) + 0.5) / 500) * 0.1 + centre for centre in (-3, 3)])
    note = stats.exposure_extrapolated(4.0, two_humps, 10**6).note
    p = float(note.split("p = ")[1].rstrip(")"))
    assert p < 1e-10
    assert kstest(two_humps, norm(0, two_humps.std()).cdf).pvalue < 1e-10
    for bad in (np.zeros(50), np.arange(19.0), np.append(np.arange(30.0), math.nan)):
        with pytest.raises(ValueError, match=r"fit|NaN"):
            stats.exposure_extrapolated(1.0, bad, 10**6)
