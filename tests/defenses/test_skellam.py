"""The integer sampler against high-precision values, against itself, and against statistics."""

from __future__ import annotations

import math
from bisect import bisect_right
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from bench.core.errors import UsageError
from bench.core.streams import SecretStreams
from defenses.transforms.skellam import MAX_DEVIATION, PARTS, Table, multiple, table, tail


def thresholds(found: Table) -> list[int]:
    return [(int(h) << 64) | int(low) for h, low in zip(found.high, found.low, strict=True)]


@pytest.mark.parametrize("variance", [1 / PARTS, 0.25, 1.0, 7.5, 400.0])
def test_the_table_is_the_distribution_function_to_100_bits(variance: float) -> None:
    """Against mpmath's Bessel functions at 60 digits."""
    import mpmath

    found = table(multiple(variance))
    with mpmath.workdps(60):
        pmf = [mpmath.exp(-variance) * mpmath.besseli(k, variance) for k in range(found.limit + 1)]
        assert 1 - (pmf[0] + 2 * sum(pmf[1:])) < mpmath.mpf(2) ** -120
        cdf, worst = mpmath.mpf(0), 0.0
        for j, threshold in zip(range(-found.limit, found.limit), thresholds(found), strict=True):
            cdf += pmf[abs(j)]
            worst = max(worst, float(abs(mpmath.mpf(threshold) / mpmath.mpf(2) ** 128 - cdf)))
    assert worst < 2.0**-118


@given(st.floats(0.001, 1e7))
@settings(max_examples=30, deadline=None)
def test_variances_are_rounded_up_to_the_parts_that_are_logged(variance: float) -> None:
    parts = multiple(variance)
    assert Fraction(parts, PARTS) >= Fraction(variance)
    assert parts == 1 or Fraction(parts - 1, PARTS) < Fraction(variance)


@given(st.floats(0.001, 1e9))
@settings(max_examples=30, deadline=None)
def test_the_tail_bound_is_met_and_no_wider_than_needed(variance: float) -> None:
    def exponent(k: int) -> float:
        return k * math.asinh(k / variance) - variance * (math.sqrt(1 + (k / variance) ** 2) - 1)

    limit = tail(variance)
    assert exponent(limit) >= 128 * math.log(2)
    assert limit == 1 or exponent(limit - 1) < 128 * math.log(2)


def sampled(variance: float, count: int, name: str = "x") -> np.ndarray:
    found = table(multiple(variance))
    values = found.draw(count, SecretStreams(name, 5).generator("noise"))
    assert values.dtype == np.int64
    assert np.abs(values).max() <= found.limit
    return values


def misfit(values: np.ndarray, variance: float) -> float:
    """The p-value of Pearson's test against the exact probabilities, in bins of 20 expected samples or more."""
    from scipy.special import ive

    reach = int(np.abs(values).max()) + 1
    ks = np.arange(-reach, reach + 1)
    expected = ive(np.abs(ks), variance) * len(values)
    inner = expected >= 20
    counts = np.array([(values == k).sum() for k in ks[inner]], dtype=float)
    want = expected[inner]
    rest = len(values) - want.sum()
    statistic = ((counts - want) ** 2 / want).sum() + (len(values) - counts.sum() - rest) ** 2 / max(rest, 1e-9)
    return float(chi2.sf(statistic, int(inner.sum())))


@pytest.mark.parametrize("variance", [0.5, 4.0, 90.0])
def test_samples_fit_and_wrong_variances_do_not(variance: float) -> None:
    values = sampled(variance, 100_000)
    assert misfit(values, variance) > 1e-6
    assert misfit(values, variance * 1.1) < 1e-6


def test_shares_add_up_to_the_noise_of_their_total_variance() -> None:
    total = sum(sampled(2.0, 100_000, f"silo-{i}") for i in range(5))
    assert misfit(np.asarray(total), 10.0) > 1e-6
    assert misfit(np.asarray(total), 8.0) < 1e-6  # what one missing share leaves


def test_mean_and_variance_of_wide_noise() -> None:
    """200,000 samples of deviation 5,000: standard errors 11.2 of the mean and .16% of the deviation, 4.9 allowed."""
    values = sampled(5000.0**2, 200_000)
    assert abs(values.mean()) < 4.9 * 5000 / math.sqrt(200_000)
    assert abs(values.std() / 5000 - 1) < 4.9 / math.sqrt(400_000)


class Words:
    """A generator that gives words of a list, whatever is asked."""

    def __init__(self, words: list[int]) -> None:
        self.words = list(words)

    def integers(self, low: int, high: int, size: int | None = None, **_: object) -> object:
        taken = [self.words.pop(0) for _ in range(1 if size is None else size)]
        return taken[0] if size is None else np.array(taken, dtype=np.uint64)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=10),
    st.integers(0, 4),
    st.integers(0, 4),
)
@settings(max_examples=30)
def test_the_lower_word_decides_where_upper_words_are_equal(pairs, high, low) -> None:
    """Thresholds with few distinct words, against bisection of the whole 128-bit numbers."""
    ordered = sorted(pairs)
    words = [np.array([pair[i] for pair in ordered], dtype=np.uint64) for i in (0, 1)]
    found = Table(words[0], words[1], 0).draw(1, Words([high, low]))  # type: ignore[arg-type]
    assert found[0] == bisect_right([(h << 64) | lo for h, lo in ordered], (high << 64) | low)


def test_too_wide_noise_is_refused() -> None:
    with pytest.raises(UsageError, match="coarser grid"):
        table(multiple(1.01 * MAX_DEVIATION**2))
