"""Intervals against enumeration, SciPy and values worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sps

from bench import stats


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 20), (3, 20), (20, 20), (7, 1000), (500, 1000)])
def test_clopper_pearson_is_scipys(k: int, n: int) -> None:
    expected = sps.binomtest(k, n).proportion_ci(method="exact")
    found = stats.clopper_pearson(k, n)
    assert found.value == k / n
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 5, 13, 40])
def test_clopper_pearson_covers_by_enumeration(n: int) -> None:
    limits = [stats.clopper_pearson(k, n) for k in range(n + 1)]
    for p in np.linspace(0.001, 0.999, 500):
        chance = sps.binom.pmf(np.arange(n + 1), n, p)
        covered = sum(c for c, i in zip(chance, limits, strict=True) if i.low <= p <= i.high)
        assert covered >= 0.95


def test_clopper_pearson_refuses() -> None:
    assert stats.clopper_pearson(0, 0).value is None
    for bad in ((-1, 3), (4, 3)):
        with pytest.raises(ValueError, match="successes"):
            stats.clopper_pearson(*bad)


def test_kish_by_hand() -> None:
    assert stats.kish([1, 1, 1, 1]) == 4
    assert stats.kish([3, 3]) == 2
    assert stats.kish([2, 1, 1]) == pytest.approx(16 / 6)
    assert stats.kish([]) == 0
    assert stats.kish([5, 0]) == 1


def test_unseen_is_clopper_pearson_at_all_successes() -> None:
    for n in (1, 3, 90):
        assert stats.unseen(n) == pytest.approx(sps.binomtest(n, n).proportion_ci(method="exact").low)
    assert stats.unseen(0) == 0


def test_unit_interval_is_the_plain_logit_one_where_nothing_is_rare() -> None:
    variance = 0.8 * 0.2 / 4000
    low, high = stats.unit_interval(0.8, variance, stats.unseen(4000))
    half = 1.959964 * math.sqrt(variance) / 0.16
    assert low == pytest.approx(1 / (1 + math.exp(-(math.log(4) - half))), abs=2e-4)
    assert high == pytest.approx(1 / (1 + math.exp(-(math.log(4) + half))), abs=2e-4)


@given(
    value=st.integers(0, 1000).map(lambda k: k / 1000),
    variance=st.floats(0, 1) | st.just(math.inf),
    pairs=st.integers(0, 1000),
)
@settings(deadline=None)
def test_unit_interval_holds_its_value_and_mirrors(value: float, variance: float, pairs: int) -> None:
    low, high = stats.unit_interval(value, variance, stats.unseen(pairs))
    assert 0 <= low <= value <= high <= 1
    other = stats.unit_interval(1 - value, variance, stats.unseen(pairs))
    assert other == pytest.approx((1 - high, 1 - low), abs=1e-6)


def test_mean_interval_counts_groups_not_values() -> None:
    values = [0.2, 0.4, 0.5, 0.7, 0.9]
    single = stats.mean_interval(values)
    repeated = stats.mean_interval(values * 20, list(range(5)) * 20)
    assert (repeated.value, repeated.low, repeated.high) == pytest.approx((single.value, single.low, single.high))
    careless = stats.mean_interval(values * 20)
    assert careless.high - careless.low < 0.5 * (single.high - single.low)


def test_mean_interval_at_the_ends_is_exact_and_wide_for_one_group() -> None:
    assert stats.mean_interval([1.0] * 10).low == pytest.approx(0.025**0.1)
    assert stats.mean_interval([0.0] * 10).high == pytest.approx(1 - 0.025**0.1)
    alone = stats.mean_interval([0.5, 0.6], ["a", "a"])
    assert alone.low < 0.02
    assert alone.high > 0.98
    assert stats.mean_interval([]).value is None
    with pytest.raises(ValueError, match="0, 1"):
        stats.mean_interval([1.5])
    with pytest.raises(ValueError, match="labels"):
        stats.mean_interval([0.5], ["a", "b"])


def test_mean_interval_of_zeros_and_ones_covers_by_enumeration() -> None:
    for n in (2, 3, 5, 10, 30):
        limits = [stats.mean_interval([1.0] * k + [0.0] * (n - k)) for k in range(n + 1)]
        for p in np.linspace(0.002, 0.998, 400):
            chance = sps.binom.pmf(np.arange(n + 1), n, p)
            assert sum(c for c, i in zip(chance, limits, strict=True) if i.low <= p <= i.high) >= 0.95


def test_combine_is_students_t() -> None:
    found = stats.combine([0.8, 0.9, 1.0])
    expected = sps.t.interval(0.95, 2, loc=0.9, scale=0.1 / math.sqrt(3))
    assert (found.low, found.high) == pytest.approx(expected)
    assert stats.combine([0.8, 0.9, 1.0], minimum=0, maximum=1).high == 1
    assert stats.combine([0.8]).value == 0.8
    assert stats.combine([0.8]).low is None
    assert "two runs" in stats.combine([0.8]).note
    assert stats.combine([]).value is None
    with pytest.raises(ValueError, match="finite"):
        stats.combine([math.nan, 1.0])


def test_bootstrap_resamples_clusters() -> None:
    values = np.random.default_rng(1).random(60)
    rows = np.tile(np.arange(60), 10)

    def mean(index: np.ndarray) -> float:
        return float(values[rows][index].mean())

    together = stats.bootstrap(mean, rows, np.random.default_rng(0), samples=2000)
    apart = stats.bootstrap(mean, np.arange(600), np.random.default_rng(0), samples=2000)
    expected = 2 * sps.t.isf(0.025, 59) * values.std(ddof=1) / math.sqrt(60)
    assert together.high - together.low == pytest.approx(expected, rel=0.1)
    assert apart.high - apart.low == pytest.approx(expected / math.sqrt(10), rel=0.1)
    again = stats.bootstrap(mean, rows, np.random.default_rng(0), samples=2000)
    assert again == together


def test_bootstrap_refuses_what_it_can_not_hold() -> None:
    def undefined(index: np.ndarray) -> float:
        return math.nan if len(set(index)) < 40 else float(index.mean())

    found = stats.bootstrap(undefined, np.arange(60), np.random.default_rng(0), samples=200)
    assert found.low is None
    assert "undefined" in found.note
    few = stats.bootstrap(lambda index: float(index.mean()), np.arange(49), np.random.default_rng(0), samples=200)
    assert (few.value, few.low) == (24, None)
    assert "50 clusters" in few.note
    perfect = stats.bootstrap(lambda index: 1.0, np.arange(60), np.random.default_rng(0), samples=200)
    assert (perfect.value, perfect.low) == (1, None)
    assert "equal" in perfect.note
