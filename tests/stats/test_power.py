"""Power against simulation of the very intervals it speaks of, and against enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from bench import stats
from tests.stats.coverage import exponentials, normals

REPETITIONS = 600


def test_variance_against_simulation() -> None:
    """Exponential scores: Hanley and McNeil's formula is exact for them."""
    rng = np.random.default_rng(3)
    for auc, m, n in ((0.6, 30, 50), (0.9, 50, 30)):
        member = np.arange(m + n) < m
        found = [stats.auc(np.concatenate(exponentials(rng, auc, m, n)), member).value for _ in range(REPETITIONS)]
        deviation = float(np.std(np.array(found, dtype=float)))
        # relative error of a deviation: 1 / sqrt(2 x 600) = 3%, five of them
        assert math.sqrt(stats.auc_variance(auc, m, n)) == pytest.approx(deviation, rel=0.2)
    assert stats.auc_variance(1.0, 10, 10) == 0
    assert stats.auc_variance(0.5, 40, 60) == pytest.approx(101 / (12 * 40 * 60), rel=1e-9)
    assert stats.auc_variance(0.8, 40, 60) == stats.auc_variance(0.8, 60, 40)
    for bad in ((1.2, 5, 5), (0.5, 0, 5)):
        with pytest.raises(ValueError, match="AUC"):
            stats.auc_variance(*bad)


@pytest.mark.parametrize(("m", "n"), [(90, 90), (30, 60)])
def test_least_auc_is_seen_as_often_as_it_says(m: int, n: int) -> None:
    auc = stats.least_auc(m, n)
    assert auc is not None
    member = np.arange(m + n) < m
    for draw in (exponentials, normals(1.0)):
        rng = np.random.default_rng(8)
        seen = 0
        for _ in range(REPETITIONS):
            low = stats.auc(np.concatenate(draw(rng, auc, m, n)), member).low
            seen += low is not None and low > 0.5
        # the interval is a little wider than the plain normal one: less than 0.8, by no more than 0.1
        assert binom.ppf(1e-6, REPETITIONS, 0.7) <= seen <= binom.isf(1e-6, REPETITIONS, 0.82)


def test_least_auc_by_hand() -> None:
    auc = stats.least_auc(90, 90)
    assert auc is not None
    spread = norm.isf(0.025) * math.sqrt(181 / (12 * 8100)) + norm.isf(0.2) * math.sqrt(stats.auc_variance(auc, 90, 90))
    assert auc - 0.5 == pytest.approx(spread, abs=1e-8)
    assert auc == pytest.approx(0.62, abs=0.005)
    assert stats.least_auc(2, 2) is None
    more = [stats.least_auc(k, k) for k in (10, 30, 90, 900)]
    assert all(a is not None and b is not None and a > b for a, b in itertools.pairwise(more))
    assert (stats.least_auc(90, 90, level=0.01) or 0) > auc
    assert (stats.least_auc(90, 90, power=0.99) or 0) > auc
    for bad in ({"level": 0.0}, {"power": 1.0}):
        with pytest.raises(ValueError, match="level and power"):
            stats.least_auc(90, 90, **bad)
    with pytest.raises(ValueError, match="both classes"):
        stats.least_auc(0, 90)


def test_least_difference_is_seen_as_often_as_it_says() -> None:
    """Two independent scores of the same records, as the correlation of 0 supposes."""
    d = stats.least_auc_difference(90, 90, 0.9)
    assert d is not None
    rng, member, seen = np.random.default_rng(4), np.arange(180) < 90, 0
    for _ in range(REPETITIONS):
        scores = [np.concatenate(exponentials(rng, auc, 90, 90)) for auc in (0.9, 0.9 - d)]
        low = stats.paired_auc(*scores, member).interval.low
        seen += low is not None and low > 0
    assert binom.ppf(1e-6, REPETITIONS, 0.72) <= seen <= binom.isf(1e-6, REPETITIONS, 0.88)


def test_least_difference_by_hand() -> None:
    plain, paired = (stats.least_auc_difference(90, 90, 0.9, rho) for rho in (0.0, 0.5))
    assert plain is not None
    assert paired is not None
    variances = stats.auc_variance(0.9, 90, 90), stats.auc_variance(0.9 - plain, 90, 90)
    assert plain == pytest.approx((norm.isf(0.025) + norm.isf(0.2)) * math.sqrt(sum(variances)), abs=1e-8)
    assert paired < plain
    assert stats.least_auc_difference(1, 1, 0.5) is None
    with pytest.raises(ValueError, match="correlation"):
        stats.least_auc_difference(90, 90, 0.9, 1.5)


@pytest.mark.parametrize("bound", [stats.one_run_epsilon, stats.one_run_epsilon_fdp])
def test_one_run_power_by_enumeration(bound: stats.Bound) -> None:
    flagged = np.array([bound(60, 40, v, 1e-4, 0.05) > 1.0 for v in range(41)])
    least = stats.one_run_least_correct(60, 40, 1.0, 1e-4, 0.05, bound)
    assert least == int(np.argmax(flagged))
    for accuracy in (0.5, 0.8, 0.95, 1.0):
        expected = float(binom.pmf(np.arange(41), 40, accuracy) @ flagged)
        assert stats.one_run_power(60, 40, accuracy, 1.0, 1e-4, 0.05, bound) == pytest.approx(expected, abs=1e-12)


def test_one_run_power_of_a_true_claim_is_no_more_than_the_significance() -> None:
    for epsilon in (0.0, 1.0, 4.0):
        accuracy = 1 / (1 + math.exp(-epsilon))
        assert stats.one_run_power(500, 500, accuracy, epsilon, 0.0) <= 0.05
        assert stats.one_run_power(500, 500, accuracy, epsilon, 0.0, 1e-4) <= 1e-4


def test_one_run_power_says_how_many_canaries_a_claim_takes() -> None:
    assert stats.one_run_least_correct(100, 100, 8.0, 0.0) is None
    assert stats.one_run_power(100, 100, 1.0, 8.0, 0.0) == 0
    assert stats.one_run_power(9000, 9000, 1.0, 8.0, 0.0) == 1
    assert stats.one_run_power(8900, 8900, 1.0, 8.0, 0.0) == 0
    assert stats.one_run_power(0, 0, 1.0, 0.0, 0.0) == 0
    with pytest.raises(ValueError, match="accuracy"):
        stats.one_run_power(10, 10, 1.1, 1.0, 0.0)


def test_gaussian_accuracy() -> None:
    assert stats.gaussian_accuracy(2.0) == pytest.approx(norm.cdf(1.0))
    assert stats.gaussian_accuracy(0.0, 0.3) == 0.5
    # the surest where the score is 3 or more away from the middle: out at 4 and above is wrong, in is right
    share = norm.cdf(1 - 3) + norm.cdf(-1 - 3)
    assert stats.gaussian_accuracy(2.0, share) == pytest.approx(norm.cdf(-2) / share)
    rng = np.random.default_rng(2)
    member = rng.random(200_000) < 0.5
    guesses, right = stats.one_run_guesses(rng.normal(1.5 * member, 1), member, 10_000, 10_000)
    # five deviations of 20,000 guesses
    assert right / guesses == pytest.approx(stats.gaussian_accuracy(1.5, 0.1), abs=5 * 0.5 / math.sqrt(20_000))
    for bad in ((-1.0, 0.5), (1.0, 0.0), (1.0, 1.5), (math.nan, 0.5)):
        with pytest.raises(ValueError, match="mu"):
            stats.gaussian_accuracy(*bad)


def test_a_broken_mechanism_is_flagged_where_power_says_so() -> None:
    """Claimed mu = 1/2 at significance 10^-4. No noise to speak of is seen in one run whatever canaries do to each
    other; half the noise, or a fraction sqrt(2) less, takes canaries that don't, counted as runs."""
    claim, delta = stats.gdp_epsilon(0.5, 1e-5), 1e-5
    bound = stats.one_run_epsilon_fdp
    assert stats.one_run_power(1000, 300, stats.gaussian_accuracy(4.0, 0.3), claim, delta, 1e-4, bound) > 0.99
    assert stats.one_run_power(1000, 300, stats.gaussian_accuracy(1.0, 0.3), claim, delta, 1e-4, bound) < 0.01

    def counted(mu: float, each: int) -> float:
        return stats.clopper_pearson_power(
            norm.cdf(mu / 2), norm.cdf(-mu / 2), each, each, claim, delta, 1e-4, "gaussian"
        )

    assert counted(1.0, 1000) > 0.99
    assert counted(math.sqrt(0.5), 2000) < 0.9
    assert counted(0.5, 1000) <= 1e-4


def test_clopper_pearson_power_by_enumeration() -> None:
    tpr, fpr, positives, negatives, epsilon, delta = 0.8, 0.05, 30, 40, 0.5, 0.01
    expected = 0.0
    for hits in range(positives + 1):
        for alarms in range(negatives + 1):
            if stats.clopper_pearson_epsilon(hits, positives, alarms, negatives, delta) > epsilon:
                expected += binom.pmf(hits, positives, tpr) * binom.pmf(alarms, negatives, fpr)
    found = stats.clopper_pearson_power(tpr, fpr, positives, negatives, epsilon, delta)
    assert found == pytest.approx(expected, abs=1e-12)
    expected = 0.0
    for hits in range(positives + 1):
        for alarms in range(negatives + 1):
            if stats.clopper_pearson_epsilon(hits, positives, alarms, negatives, delta, family="gaussian") > epsilon:
                expected += binom.pmf(hits, positives, tpr) * binom.pmf(alarms, negatives, fpr)
    found = stats.clopper_pearson_power(tpr, fpr, positives, negatives, epsilon, delta, family="gaussian")
    assert found == pytest.approx(expected, abs=1e-12)
    assert stats.clopper_pearson_power(1.0, 0.0, 1000, 1000, 8.0, 0.0) == 0
    assert stats.clopper_pearson_power(0.5, 0.5, 0, 0, 0.0, 0.0) == 0
    with pytest.raises(ValueError, match="rates"):
        stats.clopper_pearson_power(1.5, 0.0, 10, 10, 1.0, 0.0)
