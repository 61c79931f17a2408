"""AUC, its clustered variance and its interval, against pair counting, scikit-learn and exact enumeration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import stats
from bench.stats.auc import difference

Scores = list[float]


def pair_count(scores: np.ndarray, member: np.ndarray) -> float:
    pairs = [(x > y) + (x == y) / 2 for x in scores[member] for y in scores[~member]]
    return float(np.mean(pairs))


def obuchowski(scores: np.ndarray, member: np.ndarray, cluster: np.ndarray) -> float:
    """The variance as the paper writes it, with explicit sums over pairs."""
    x, y = scores[member], scores[~member]
    cx, cy = cluster[member], cluster[~member]
    m, n = len(x), len(y)
    area = pair_count(scores, member)
    v10 = np.array([np.mean([(a > b) + (a == b) / 2 for b in y]) for a in x])
    v01 = np.array([np.mean([(a > b) + (a == b) / 2 for a in x]) for b in y])
    labels = sorted(set(cluster.tolist()))
    s10 = {c: v10[cx == c].sum() - (cx == c).sum() * area for c in labels}
    s01 = {c: v01[cy == c].sum() - (cy == c).sum() * area for c in labels}
    i10, i01, total = len(set(cx.tolist())), len(set(cy.tolist())), len(labels)
    var10 = i10 / ((i10 - 1) * m) * sum(v**2 for v in s10.values())
    var01 = i01 / ((i01 - 1) * n) * sum(v**2 for v in s01.values())
    cov = total / (total - 1) * sum(s10[c] * s01[c] for c in labels)
    return float(var10 / m + var01 / n + 2 * cov / (m * n))


def delong(scores: np.ndarray, member: np.ndarray) -> float:
    x, y = scores[member], scores[~member]
    kernel = (x[:, None] > y[None]) + (x[:, None] == y[None]) / 2
    return float(kernel.mean(1).var(ddof=1) / len(x) + kernel.mean(0).var(ddof=1) / len(y))


candidates = st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 5)), min_size=6, max_size=30).filter(
    lambda rows: 0 < sum(r[1] for r in rows) < len(rows)
)


def arrays(rows: list[tuple[int, bool, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    score, member, cluster = (np.array(column) for column in zip(*rows, strict=True))
    return score.astype(float), member.astype(bool), cluster


def test_by_hand() -> None:
    # members 3, 1; non-members 2, 1, 0: pairs won 3 of 3, then 0 + 1/2 + 1
    found = stats.auc([3, 1, 2, 1, 0], [True, True, False, False, False])
    assert found.value == pytest.approx(4.5 / 6)


@given(rows=candidates)
@settings(deadline=None)
def test_equals_pair_counting_and_sklearn(rows: list[tuple[int, bool, int]]) -> None:
    from sklearn.metrics import roc_auc_score

    scores, member, cluster = arrays(rows)
    value = stats.auc(scores, member, cluster).value
    assert value == pytest.approx(pair_count(scores, member), abs=1e-12)
    assert value == pytest.approx(roc_auc_score(member, scores), abs=1e-12)


@given(rows=candidates)
@settings(deadline=None)
def test_variance_is_obuchowskis(rows: list[tuple[int, bool, int]]) -> None:
    scores, member, cluster = arrays(rows)
    if min(len(set(cluster[member])), len(set(cluster[~member]))) < 2:
        assert stats.placements(scores, member, cluster).variance([1.0]) == math.inf
        return
    found = stats.placements(scores, member, cluster).variance([1.0])
    assert found == pytest.approx(max(0.0, obuchowski(scores, member, cluster)), abs=1e-12)


@given(rows=candidates)
@settings(deadline=None)
def test_without_clusters_it_is_delongs(rows: list[tuple[int, bool, int]]) -> None:
    scores, member, _ = arrays(rows)
    if not 2 <= member.sum() <= len(member) - 2:
        return
    assert stats.placements(scores, member).variance([1.0]) == pytest.approx(delong(scores, member), abs=1e-12)


@given(rows=candidates)
@settings(deadline=None)
def test_invariances(rows: list[tuple[int, bool, int]]) -> None:
    scores, member, cluster = arrays(rows)
    found = stats.auc(scores, member, cluster)
    figures = (found.value, found.low, found.high)

    def same(other: stats.Interval) -> None:
        assert (other.value, other.low, other.high) == pytest.approx(figures, abs=1e-9)

    same(stats.auc(np.exp(scores / 2) * 7 - 3, member, cluster))
    order = np.random.default_rng(len(rows)).permutation(len(rows))
    same(stats.auc(scores[order], member[order], cluster[order]))
    same(stats.auc(scores, member, [f"person {5 - c}" for c in cluster]))
    for turned in (stats.auc(-scores, member, cluster), stats.auc(scores, ~member, cluster)):
        assert (1 - turned.value, 1 - turned.high, 1 - turned.low) == pytest.approx(figures, abs=1e-9)


def test_duplicated_records_in_clusters_tell_no_more() -> None:
    rng = np.random.default_rng(3)
    member = np.arange(60) < 25
    scores = rng.normal(member * 1.0, 1)
    once = stats.auc(scores, member)
    thrice = stats.auc(np.repeat(scores, 3), np.repeat(member, 3), np.repeat(np.arange(60), 3))
    assert (thrice.value, thrice.low, thrice.high) == pytest.approx((once.value, once.low, once.high))


def test_empty_classes_constants_and_bad_input() -> None:
    for member, reason in (([False, False], "no member"), ([True, True], "no non-member")):
        found = stats.auc([1.0, 2.0], member)
        assert found.value is None
        assert reason in found.note
    constant = stats.auc([7.0] * 20, [True, False] * 10)
    assert constant.value == 0.5
    # the chance that 10 independent pairs all tie is at most (chance of a tie)^10
    tie = 0.025**0.1
    assert constant.low <= tie / 2
    assert constant.high >= 1 - tie / 2
    infinite = stats.auc([math.inf, 1.0, 1.0, -math.inf], [True, True, False, False])
    assert infinite.value == pytest.approx(3.5 / 4)
    with pytest.raises(ValueError, match="NaN"):
        stats.auc([math.nan, 1.0], [True, False])
    with pytest.raises(ValueError, match="same candidates"):
        stats.auc([1.0, 2.0, 3.0], [True, False])
    with pytest.raises(ValueError, match="booleans"):
        stats.auc([1.0, 2.0], [2, 0])
    with pytest.raises(ValueError, match="labels"):
        stats.auc([1.0, 2.0], [True, False], ["a"])


def test_perfect_separation_has_the_stated_bound() -> None:
    member = np.arange(30) < 12
    assert stats.auc(member * 1.0, member).low == pytest.approx(0.025 ** (1 / 12))
    assert stats.auc(member * 1.0, member).high == 1
    assert stats.auc(-1.0 * member, member).high == pytest.approx(1 - 0.025 ** (1 / 12))
    # 3 clusters of members: 3 independent pairs
    cluster = np.where(member, np.arange(30) % 3, 100 + np.arange(30))
    assert stats.auc(member * 1.0, member, cluster).low == pytest.approx(0.025 ** (1 / 3))


@given(data=st.data(), m=st.integers(1, 4), n=st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_perfect_separation_is_never_likelier_than_the_bound_supposes(data: st.DataObject, m: int, n: int) -> None:
    """For any two distributions on four values, by enumeration: P(all in order) <= AUC^min(m, n)."""
    p, q = (np.array(data.draw(st.lists(st.integers(0, 20), min_size=4, max_size=4).filter(any))) for _ in range(2))
    p, q = p / p.sum(), q / q.sum()
    below = np.concatenate([[0], np.cumsum(q)[:-1]])
    area = float((p * (below + q / 2)).sum())
    perfect = sum(math.prod(p[v] for v in x) * q[: min(x)].sum() ** n for x in itertools.product(range(4), repeat=m))
    assert perfect <= area ** min(m, n) + 1e-12


def test_the_bound_is_attained() -> None:
    # members above a constant with chance 0.8, else below: all 5 above with chance 0.8^5
    assert stats.unseen(5) == pytest.approx(0.025 ** (1 / 5))
    area = stats.unseen(5)
    assert area**5 == pytest.approx(0.025)


def test_independent_pairs_with_mixed_clusters() -> None:
    member = np.array([True, False, True, False, True, False])
    assert stats.placements(np.arange(6.0), member, [0, 0, 1, 1, 2, 2]).pairs == 1
    assert stats.placements(np.arange(6.0), member, [0, 1, 2, 3, 4, 5]).pairs == 3
    assert stats.placements(np.arange(6.0), member, [0, 0, 1, 2, 3, 4]).pairs == 2


@pytest.mark.parametrize(("m", "n"), [(2, 2), (3, 3), (3, 6), (5, 5)])
def test_covers_by_enumeration_over_three_values(m: int, n: int) -> None:
    """Every outcome of m and n draws from three values, for 400 pairs of distributions."""
    from scipy.stats import multinomial

    counts = [[c for c in itertools.product(range(k + 1), repeat=3) if sum(c) == k] for k in (m, n)]
    member = np.arange(m + n) < m
    limits = np.array(
        [
            [
                (found.low, found.high)
                for y in counts[1]
                for found in [stats.auc(np.repeat([0, 1, 2, 0, 1, 2], x + y), member)]
            ]
            for x in counts[0]
        ]
    )
    rng = np.random.default_rng(m * 100 + n)
    for shape in rng.choice([0.1, 0.3, 1.0, 3.0], 400):
        p, q = rng.dirichlet([shape] * 3, 2)
        area = float((p * (np.concatenate([[0], np.cumsum(q)[:-1]]) + q / 2)).sum())
        chance = np.outer(multinomial.pmf(counts[0], m, p), multinomial.pmf(counts[1], n, q))
        covered = (limits[..., 0] <= area + 1e-12) & (area - 1e-12 <= limits[..., 1])
        assert chance[covered].sum() >= 0.92


@pytest.mark.parametrize("m", [3, 8, 20, 60, 150])
@pytest.mark.parametrize("family", ["two points", "mostly tied"])
def test_covers_by_enumeration_where_intervals_are_hardest(m: int, family: str) -> None:
    """Non-members tie; k of m members stand out. Every k, over a fine grid of its chance, close to the ends too."""
    from scipy.stats import binom

    n = 150
    member = np.arange(m + n) < m
    rest = -1.0 if family == "two points" else 0.0
    limits = np.empty((m + 1, 2))
    for k in range(m + 1):
        found = stats.auc(np.concatenate([[1.0] * k, [rest] * (m - k), [0.0] * n]), member)
        limits[k] = found.low, found.high
    fine = np.linspace(0.002, 0.998, 300)
    for p in np.concatenate([fine, fine / 30, 1 - fine / 30]):
        area = p if family == "two points" else 0.5 + p / 2
        covered = (limits[:, 0] <= area + 1e-12) & (area - 1e-12 <= limits[:, 1])
        assert binom.pmf(np.arange(m + 1), m, p)[covered].sum() >= 0.92


def test_paired_variance_is_delongs_covariance() -> None:
    rng = np.random.default_rng(5)
    member = np.arange(50) < 20
    a, b = rng.normal(member * 1.5, 1), rng.normal(member * 0.5, 1)
    kernels = [(s[member][:, None] > s[~member][None]).astype(float) for s in (a, b)]
    cov = sum(np.cov([k.mean(axis) for k in kernels]) / size for axis, size in ((1, 20), (0, 30)))
    sd = math.sqrt(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1])
    found = stats.paired_auc(a, b, member)
    value = kernels[0].mean() - kernels[1].mean()
    assert found.interval.value == pytest.approx(value)
    from scipy.stats import norm

    assert found.p == pytest.approx(max(2 * norm.sf(abs(value) / sd), 2 * (1 - abs(value)) ** 20), rel=1e-9)
    assert found.interval.high - value >= 1.959963 * sd - 1e-12
    back = stats.paired_auc(b, a, member)
    assert back.interval.value == pytest.approx(-value)
    assert back.p == pytest.approx(found.p)


@given(st.floats(-1, 1), st.floats(0, 0.2), st.integers(0, 200))
def test_the_p_value_is_what_the_interval_says(value: float, variance: float, pairs: int) -> None:
    """p lies under alpha exactly where the interval at 1 - alpha leaves 0 out."""
    found = difference(value, variance, pairs)
    assert found.p is not None
    for alpha in (0.3, 0.1, 0.05, 0.01, 1e-4):
        interval = difference(value, variance, pairs, 1 - alpha).interval
        assert interval.low is not None
        assert interval.high is not None
        if abs(found.p - alpha) > 1e-9:
            assert (found.p < alpha) == (interval.low > 0 or interval.high < 0)


def test_few_pairs_prove_less_than_the_normal_formula_says() -> None:
    """The limits reach .3 with ten pairs, whatever the variance: an interval that holds 0 stood beside p = .012."""
    found = difference(0.25, 0.01, 10)
    assert found.interval.low is not None
    assert found.interval.low < 0
    assert found.p == pytest.approx(2 * 0.75**10)


def test_pairing_sees_what_separate_intervals_do_not() -> None:
    rng = np.random.default_rng(8)
    member = np.arange(400) < 200
    noise = rng.normal(0, 1, 400)
    a, b = noise + 0.8 * member, noise + 0.5 * member + rng.normal(0, 0.1, 400)
    found = stats.paired_auc(a, b, member)
    assert found.p is not None
    assert found.p < 1e-6
    assert stats.auc(a, member).low < stats.auc(b, member).high


def test_paired_degenerate_cases() -> None:
    member = np.array([True, False] * 10)
    scores = np.arange(20.0)
    same = stats.paired_auc(scores, scores * 2, member)
    assert same.interval.value == 0
    assert same.p == 1
    assert same.interval.high == pytest.approx(1 - 0.025**0.1)
    # a perfect score against a constant one: no variance, and yet no certainty from 10 pairs
    sure = stats.paired_auc(member * 1.0, np.zeros(20), member)
    assert sure.interval.value == 0.5
    assert sure.p == pytest.approx(min(1.0, 2 * math.exp(-10 * 0.25 / 2)))
    assert sure.interval.low < 0
    assert stats.paired_auc(scores, scores, np.zeros(20, bool)).p is None


def check_auc(auc: Callable[..., stats.Interval]) -> None:
    """What any AUC here must do; broken copies must not pass."""
    rng = np.random.default_rng(11)
    member = np.arange(80) < 40
    scores = rng.normal(2.0 * member, 1)
    found = auc(scores, member, np.arange(80))
    assert found.value == pytest.approx(pair_count(scores, member))
    copies = auc(np.repeat(scores, 5), np.repeat(member, 5), np.repeat(np.arange(80), 5))
    assert copies.high - copies.low == pytest.approx(found.high - found.low)
    tied = auc(np.round(scores), member, np.arange(80))
    assert tied.value == pytest.approx(pair_count(np.round(scores), member))
    assert found.low < found.value < found.high


def _flipped(scores: Scores, member: np.ndarray, cluster: np.ndarray) -> stats.Interval:
    return stats.auc(-np.asarray(scores), member, cluster)


def _no_clusters(scores: Scores, member: np.ndarray, cluster: np.ndarray) -> stats.Interval:
    return stats.auc(scores, member, None)


def _ties_lost(scores: Scores, member: np.ndarray, cluster: np.ndarray) -> stats.Interval:
    order = np.argsort(scores, kind="stable")
    return stats.auc(np.argsort(order).astype(float), member, cluster)


def _no_interval(scores: Scores, member: np.ndarray, cluster: np.ndarray) -> stats.Interval:
    value = stats.auc(scores, member, cluster).value
    return stats.Interval(value, value, value)


@pytest.mark.parametrize("broken", [_flipped, _no_clusters, _ties_lost, _no_interval])
def test_broken_copies_are_caught(broken: Callable[..., stats.Interval]) -> None:
    check_auc(stats.auc)
    with pytest.raises(AssertionError):
        check_auc(broken)
