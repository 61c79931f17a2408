"""TPR at an FPR and advantage: thresholds from the other fold, refusals, exact coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from bench import stats

MEMBER = np.arange(200) < 100
CLUSTER = np.arange(200)
FOLDS = stats.split(CLUSTER, MEMBER)


def test_threshold_by_hand() -> None:
    values = np.arange(1.0, 20.0)  # 19 of them: floor(0.1 x 20) = 2, so the second largest
    assert stats.threshold(values, 0.1) == 18
    assert stats.threshold(values, 0.5) == 10
    assert stats.threshold(values[:8], 0.1) == math.inf
    assert stats.threshold([1.0] * 19, 0.1) == 1


@given(n=st.integers(1, 60), fpr=st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.3, 0.5]))
@settings(deadline=None)
def test_a_new_nonmember_passes_at_most_at_the_fpr(n: int, fpr: float) -> None:
    """By enumeration of its rank among n others: any of n + 1 places alike."""
    ranks = np.arange(n + 1)
    passes = [ranks[i] > stats.threshold(np.delete(ranks, i), fpr) for i in range(n + 1)]
    assert np.mean(passes) <= fpr + 1e-12
    assert np.mean(passes) > fpr - 1 / (n + 1) - 1e-12


@pytest.mark.parametrize(("fpr", "enough"), [(0.1, 50), (0.01, 500), (0.001, 5000)])
def test_refused_where_nonmembers_cannot_resolve_it(fpr: float, enough: int) -> None:
    assert stats.refusal(fpr, np.arange(enough + 10) < 10) == ""
    reason = stats.refusal(fpr, np.arange(enough + 9) < 10)
    assert str(enough) in reason
    assert str(enough - 1) in reason
    assert stats.refusal(fpr, [False] * enough) == "there is no member"


def test_refusal_reaches_the_figure() -> None:
    found = stats.tpr_at_fpr(np.zeros(200), MEMBER, 0.01, CLUSTER, FOLDS)
    assert (found.value, found.low, found.high) == (None, None, None)
    assert "500" in found.note


def test_counts_by_hand() -> None:
    scores = np.random.default_rng(0).normal(1.5 * MEMBER, 1)
    hits = alarms = 0
    for f in (0, 1):
        others = np.sort(scores[(folds_other := f != FOLDS) & ~MEMBER])
        cut = others[-math.floor(0.1 * ((folds_other & ~MEMBER).sum() + 1))]
        hits += int((scores[(f == FOLDS) & MEMBER] > cut).sum())
        alarms += int((scores[(f == FOLDS) & ~MEMBER] > cut).sum())
    rates = stats.crossfit_tpr({"s": scores}, MEMBER, CLUSTER, 0.1, FOLDS)
    assert (rates.true_positives, rates.false_positives) == (hits, alarms)
    found = stats.tpr_at_fpr(scores, MEMBER, 0.1, CLUSTER, FOLDS)
    expected = binomtest(hits, 100).proportion_ci(method="exact")
    assert (found.value, found.low, found.high) == pytest.approx((hits / 100, expected.low, expected.high))
    assert f"{alarms}/100" in found.note


def test_perfect_constant_and_tied_scores() -> None:
    perfect = stats.crossfit_tpr({"s": MEMBER * 1.0}, MEMBER, CLUSTER, 0.1, FOLDS)
    assert (perfect.tpr.value, perfect.fpr.value) == (1, 0)
    assert stats.advantage(MEMBER * 1.0, MEMBER, CLUSTER, FOLDS).value == 1
    constant = stats.crossfit_tpr({"s": np.zeros(200)}, MEMBER, CLUSTER, 0.1, FOLDS)
    assert (constant.tpr.value, constant.fpr.value) == (0, 0)
    assert stats.advantage(np.zeros(200), MEMBER, CLUSTER, FOLDS).value == 0
    # a tie at the threshold never lets more than the FPR through
    tied = stats.crossfit_tpr({"s": (np.arange(200) % 3 == 0) * 1.0}, MEMBER, CLUSTER, 0.1, FOLDS)
    assert tied.false_positives == 0


def test_reversed_score_has_no_advantage_that_holds() -> None:
    scores = -np.random.default_rng(3).normal(2.0 * MEMBER, 1)
    found = stats.advantage(scores, MEMBER, CLUSTER, FOLDS)
    assert found.value is not None
    assert found.value < 0.1


def test_best_threshold_by_hand() -> None:
    # above 2: members 3 of 4, non-members 1 of 4
    gain, cut = stats.best_threshold(np.array([1.0, 3.0, 4.0, 5.0]), np.array([0.0, 1.0, 2.0, 6.0]))
    assert (gain, cut) == (0.5, 2.0)
    assert stats.best_threshold(np.zeros(3), np.zeros(3)) == (0, 0)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.lists(st.integers(-3, 3), min_size=1, max_size=12))
@settings(deadline=None)
def test_best_threshold_is_the_best(members: list[int], nonmembers: list[int]) -> None:
    x, y = np.array(members, float), np.array(nonmembers, float)
    gain, cut = stats.best_threshold(x, y)
    assert gain == pytest.approx((x > cut).mean() - (y > cut).mean())
    assert gain == pytest.approx(max((x > t).mean() - (y > t).mean() for t in np.arange(-4, 5)))


def test_newcombe_against_a_published_example() -> None:
    """Newcombe 1998, table II: 56/70 - 48/80 with Wilson limits is [0.0524, 0.3339]."""

    def wilson(k: int, n: int) -> stats.Interval:
        limits = binomtest(k, n).proportion_ci(method="wilson")
        return stats.Interval(k / n, limits.low, limits.high)

    found = stats.newcombe(wilson(56, 70), wilson(48, 80))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert stats.newcombe(stats.Interval(None, None, None, "why"), wilson(1, 2)).note == "why"


@pytest.mark.parametrize(("first", "second"), [(5, 5), (3, 12), (20, 20), (45, 45)])
def test_pooled_tpr_limits_cover_by_enumeration(first: int, second: int) -> None:
    """Given the thresholds, a TPR has one chance per fold: Clopper-Pearson on the sum holds their mean."""
    n = first + second
    limits = [stats.clopper_pearson(k, n) for k in range(n + 1)]
    low, high = (np.array([getattr(i, side) for i in limits]) for side in ("low", "high"))
    for p in np.linspace(0.001, 0.999, 60):
        for q in np.linspace(0.001, 0.999, 60):
            chance = np.convolve(binom.pmf(np.arange(first + 1), first, p), binom.pmf(np.arange(second + 1), second, q))
            mean = (first * p + second * q) / n
            assert chance[(low <= mean) & (mean <= high)].sum() >= 0.95


def test_duplicates_in_clusters_tell_no_more() -> None:
    scores = np.random.default_rng(7).normal(1.5 * MEMBER, 1)
    once = stats.crossfit_advantage({"s": scores}, MEMBER, CLUSTER, FOLDS)
    copies = [np.repeat(a, 4) for a in (scores, MEMBER, CLUSTER, FOLDS)]
    four = stats.crossfit_advantage({"s": copies[0]}, *copies[1:])
    assert four.tpr.value == once.tpr.value
    assert (four.tpr.low, four.tpr.high) == pytest.approx((once.tpr.low, once.tpr.high))
    assert (four.advantage.low, four.advantage.high) == pytest.approx((once.advantage.low, once.advantage.high))
    careless = stats.crossfit_advantage({"s": copies[0]}, copies[1], None, copies[3])
    assert careless.advantage.high - careless.advantage.low < 0.6 * (once.advantage.high - once.advantage.low)


def test_the_rule_comes_from_the_other_fold() -> None:
    on_0 = np.where(FOLDS == 0, MEMBER * 1.0, 0.0)
    on_1 = np.where(FOLDS == 1, MEMBER * 1.0, 0.0)
    rates = stats.crossfit_advantage({"zero": on_0, "one": on_1}, MEMBER, CLUSTER, FOLDS)
    assert rates.chosen == ("one", "zero")
    assert rates.advantage.value == 0
    rates = stats.crossfit_tpr({"zero": on_0, "one": on_1}, MEMBER, CLUSTER, 0.1, FOLDS)
    assert rates.chosen == ("one", "zero")
    assert rates.tpr.value == 0


def test_monotone_transform_changes_nothing() -> None:
    scores = np.random.default_rng(5).normal(MEMBER, 1)
    for measure in (stats.advantage, lambda s, m, c, f: stats.tpr_at_fpr(s, m, 0.1, c, f)):
        assert measure(scores, MEMBER, CLUSTER, FOLDS) == measure(np.exp(scores) - 5, MEMBER, CLUSTER, FOLDS)


def test_disagreeing_rules_widen_the_limits() -> None:
    noise = np.random.default_rng(21).normal(0, 1, 200)
    alone = stats.crossfit_tpr({"a": noise}, MEMBER, CLUSTER, 0.1, FOLDS)
    for seed in range(40):
        noise = np.random.default_rng(seed).normal(0, 1, 200)
        both = stats.crossfit_tpr({"a": noise, "b": -noise}, MEMBER, CLUSTER, 0.1, FOLDS)
        if both.chosen[0] != both.chosen[1]:
            k = both.true_positives
            plain = stats.clopper_pearson(k, 100)
            assert both.tpr.high - both.tpr.low > 1.2 * (plain.high - plain.low)
            break
    else:
        pytest.fail("no seed made the folds choose differently")
    k = alone.true_positives
    assert alone.tpr.low == pytest.approx(stats.clopper_pearson(k, 100).low)


def test_empty_class_is_refused() -> None:
    found = stats.crossfit_advantage({"a": np.zeros(4)}, [True] * 4, None, np.array([0, 1, 0, 1], np.int8))
    assert found.advantage.value is None
    assert "no non-member" in found.advantage.note


def test_folds_are_dealt_where_none_are_given() -> None:
    scores = np.random.default_rng(1).normal(MEMBER, 1)
    dealt = stats.split(range(200), MEMBER)
    assert stats.tpr_at_fpr(scores, MEMBER, 0.1) == stats.tpr_at_fpr(scores, MEMBER, 0.1, None, dealt)
    assert stats.advantage(scores, MEMBER) == stats.advantage(scores, MEMBER, None, dealt)
    one = stats.tpr_at_fpr([1.0, 0.0], [True, False], 0.1)
    assert (one.value, one.note) == (
        None,
        "choosing on one fold and reporting on the other needs two clusters of each class",
    )


def test_how_far_the_choice_of_rules_ties_the_folds_by_hand() -> None:
    """Two folds of four: variances of the first rule 1/4 and 3/16, of half the difference 1/8 and 3/64."""
    from bench.stats.rates import _tied

    folds = np.array([0, 0, 0, 0, 1, 1, 1, 1], np.int8)
    first = np.array([1, 1, 0, 0, 1, 0, 0, 0], bool)
    second = np.array([1, 0, 0, 1, 1, 1, 0, 0], bool)
    differs = [np.array([0, 0.5, 0, -0.5]), np.array([0, -0.5, 0, 0])]
    apart = math.prod(4 * float(half.var()) for half in differs)
    assert apart == pytest.approx((4 * 0.125) * (4 * 0.046875))
    own = 4 * 0.25 + 4 * 0.1875
    assert _tied(np.stack([first, second]), folds) == pytest.approx(2 * math.sqrt(apart) / own)
    assert _tied(np.stack([first, first]), folds) == 0
