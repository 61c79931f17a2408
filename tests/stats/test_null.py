"""The permutation null against enumeration: mean, variance, and tails out to 10^-6."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from bench import stats


def draws(sums: list[int], drawn: int) -> dict[int, int]:
    """How many of the choices of ``drawn`` of the ``sums`` have each total, by dynamic programming, exactly."""
    table: list[dict[int, int]] = [{0: 1}] + [{} for _ in range(drawn)]
    for value in sums:
        for size in range(drawn, 0, -1):
            for total, ways in table[size - 1].items():
                table[size][total + value] = table[size].get(total + value, 0) + ways
    return table[drawn]


def cluster_sums(scores: np.ndarray, cluster: np.ndarray) -> list[int]:
    """Twice the centred midrank sums, integers."""
    centred = 2 * stats.midranks(scores) - (len(scores) + 1)
    return [round(float(centred[cluster == c].sum())) for c in sorted(set(cluster.tolist()))]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=4, max_size=8), st.integers(1, 4))
@settings(deadline=None)
def test_sd_is_that_of_all_draws(rows: list[tuple[int, int]], drawn: int) -> None:
    scores = np.array([float(r[0]) for r in rows])
    cluster = np.array([r[1] for r in rows])
    labels = sorted(set(cluster.tolist()))
    if not 0 < drawn < len(labels):
        return
    sums = dict(zip(labels, cluster_sums(scores, cluster), strict=True))
    member = np.isin(cluster, labels[:drawn])
    found = stats.null_test(scores, member, cluster)
    totals = [sum(sums[c] for c in chosen) / 2 for chosen in itertools.combinations(labels, drawn)]
    assert np.mean(totals) == pytest.approx(0, abs=1e-9)
    scale = int(member.sum()) * int((~member).sum())
    assert found.sd == pytest.approx(float(np.std(totals)) / scale, abs=1e-12)
    area = stats.auc(scores, member, cluster).value
    assert area is not None
    if found.sd > 1e-9:
        assert found.z == pytest.approx((area - 0.5) / found.sd)


def test_without_ties_and_clusters_it_is_mann_whitneys() -> None:
    member = np.arange(25) < 10
    sd = math.sqrt(26 / (12 * 10 * 15))
    assert stats.null_test(np.arange(25.0), member).sd == pytest.approx(sd)
    assert stats.null_margin(member) == pytest.approx(sd * norm.isf(5e-7))
    assert stats.null_margin(member, scores=np.arange(25.0)) == pytest.approx(sd * norm.isf(5e-7))


def test_margin_widens_with_clusters() -> None:
    member = np.repeat(np.arange(40) < 20, 4)
    cluster = np.repeat(np.arange(40), 4)
    blind, known = stats.null_margin(member, cluster), stats.null_margin(member, cluster, np.repeat(np.arange(40.0), 4))
    assert blind == pytest.approx(2 * stats.null_margin(member))
    assert known <= blind * 1.02
    with pytest.raises(ValueError, match="no member"):
        stats.null_margin([False, False])


@pytest.mark.parametrize(
    ("count", "drawn", "kind"),
    [
        (20, 10, "plain"),
        (40, 20, "plain"),
        (60, 15, "plain"),
        (60, 30, "ties"),
        (40, 20, "clusters"),
        (36, 9, "clusters"),
    ],
)
def test_normal_tail_is_an_upper_bound_where_it_decides(count: int, drawn: int, kind: str) -> None:
    """The exact chance of reaching a z whose normal tail is 10^-6 is smaller, by enumeration of all draws."""
    rng = np.random.default_rng(count)
    sizes = rng.choice([1, 1, 1, 2, 5], count) if kind == "clusters" else np.ones(count, int)
    cluster = np.repeat(np.arange(count), sizes)
    scores = rng.permutation(len(cluster)).astype(float)
    if kind == "ties":
        scores = np.floor(scores / 7)
    sums = cluster_sums(scores, cluster)
    found = draws(sums, drawn)
    total = math.comb(count, drawn)
    assert sum(found.values()) == total
    sd = math.sqrt(sum(Fraction(w, total) * t * t for t, w in found.items()))
    for p in (1e-5, 1e-6, 1e-7):
        cut = sd * float(norm.isf(p))
        exact = Fraction(sum(w for t, w in found.items() if t >= cut), total)
        assert exact <= p
    assert stats.null_test(scores, np.isin(cluster, np.arange(drawn)), cluster).p <= 1


def test_a_leak_is_seen_and_a_draw_is_not() -> None:
    member = np.arange(180) % 2 == 0
    rng = np.random.default_rng(1)
    assert stats.null_test(member + rng.normal(0, 0.5, 180), member).p < 1e-12
    assert stats.null_test(-(member + rng.normal(0, 0.5, 180)), member).p > 1 - 1e-9
    assert stats.null_test(-(member + rng.normal(0, 0.5, 180)), member).p_two_sided < 1e-12
    chance = stats.null_test(rng.normal(0, 1, 180), member)
    assert abs(chance.z) < 4.9
    constant = stats.null_test(np.ones(180), member)
    assert (constant.z, constant.p, constant.p_two_sided) == (0, 0.5, 1)


def test_refuses_what_was_not_drawn_by_clusters() -> None:
    with pytest.raises(ValueError, match="whole clusters"):
        stats.null_test([1.0, 2.0, 3.0], [True, False, False], [0, 0, 1])
    with pytest.raises(ValueError, match="no member"):
        stats.null_test([1.0, 2.0], [False, False])


def test_tail_is_accurate_far_out() -> None:
    assert stats.normal_tail(30.0) == pytest.approx(norm.sf(30.0), rel=1e-9)
    assert stats.normal_tail(0.0) == 0.5
