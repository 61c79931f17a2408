"""Defenses over seeds: SciPy's paired t test, refusals, and what agreeing seeds may not feign."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from bench import stats

A = [0.91, 0.93, 0.95, 0.90, 0.94]
B = [0.71, 0.75, 0.74, 0.72, 0.77]


def test_plain_numbers_are_a_paired_t_test() -> None:
    found = stats.across_seeds(A, B)
    expected = ttest_rel(A, B)
    limits = expected.confidence_interval()
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.interval.low, found.interval.high) == pytest.approx((limits.low, limits.high))
    assert found.interval.value == pytest.approx(np.mean(A) - np.mean(B))
    back = stats.across_seeds(B, A)
    assert (back.interval.low, back.interval.high) == pytest.approx((-limits.high, -limits.low))


@pytest.mark.parametrize("seeds", [0, 1, 2, 4])
def test_fewer_than_five_seeds_do_not_speak_of_defenses(seeds: int) -> None:
    found = stats.across_seeds(A[:seeds], B[:seeds])
    assert (found.interval.value, found.interval.low, found.interval.high, found.p) == (None, None, None, None)
    assert "at least 5 seeds" in found.interval.note


def test_a_refused_figure_refuses_the_comparison() -> None:
    found = stats.across_seeds([*A, None], [*B, 0.7])
    assert found.interval.value is None
    assert "1 of 6" in found.interval.note
    found = stats.across_seeds([*A, 0.9], [*B, stats.Interval(None, None, None, "why")])
    assert found.interval.value is None
    with pytest.raises(ValueError, match="finite"):
        stats.across_seeds([*A, math.inf], [*B, 0.7])
    with pytest.raises(ValueError, match="seeds differ"):
        stats.across_seeds(A, B[:4])


def test_seeds_that_agree_feign_no_certainty() -> None:
    plain = stats.across_seeds([1.0] * 5, [0.9] * 5)
    assert (plain.interval.low, plain.interval.high) == (None, None)
    assert plain.p == 1 / 16
    same = stats.across_seeds([1.0] * 5, [1.0] * 5)
    assert same.p == 1
    one = stats.Interval(1.0, 0.7, 1.0)
    known = stats.across_seeds([one] * 5, [one] * 5)
    # sqrt(5 x 0.3^2) / 5 each way
    assert (known.interval.low, known.interval.high) == pytest.approx((-0.3 / math.sqrt(5), 0.3 / math.sqrt(5)))
    assert known.p == 1


def test_limits_are_the_hull_of_both() -> None:
    narrow = [stats.Interval(v, v - 1e-3, v + 1e-3) for v in A], [stats.Interval(v, v - 1e-3, v + 1e-3) for v in B]
    plain = stats.across_seeds(A, B)
    assert stats.across_seeds(*narrow).interval == plain.interval
    wide = [stats.Interval(v, v - 0.3, v + 0.05) for v in A], [stats.Interval(v, v - 0.1, v + 0.2) for v in B]
    found = stats.across_seeds(*wide)
    below, above = math.hypot(0.3, 0.2) / math.sqrt(5), math.hypot(0.05, 0.1) / math.sqrt(5)
    value = found.interval.value
    assert value is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((value - below, value + above))
    assert found.p is not None
    assert plain.p is not None
    assert found.p > 0.01 > plain.p
    assert (found.p < 0.05) == (found.interval.low > 0)


def test_combine_with_intervals_is_the_hull_too() -> None:
    plain = stats.combine([0.8, 0.9, 1.0])
    assert stats.combine([stats.Interval(v, v, v) for v in (0.8, 0.9, 1.0)]) == plain
    known = stats.combine([stats.Interval(1.0, 0.7, 1.0)] * 4, minimum=0, maximum=1)
    assert (known.value, known.low, known.high) == pytest.approx((1, 0.85, 1))
    assert stats.combine([stats.Interval(0.8, None, None), 0.9, 1.0]) == plain
    with pytest.raises(ValueError, match="finite"):
        stats.combine([stats.Interval(None, None, None), 0.5])


def test_mover_by_hand() -> None:
    one, two = stats.Interval(0.5, 0.4, 0.8), stats.Interval(0.2, 0.0, 0.3)
    assert stats.mover([one]) == pytest.approx((0.1, 0.3))
    assert stats.mover([one], [two]) == pytest.approx((math.hypot(0.1, 0.1), math.hypot(0.3, 0.2)))
    assert stats.mover([one, one]) == pytest.approx((0.1 / math.sqrt(2), 0.3 / math.sqrt(2)))
    assert stats.mover([one], [stats.Interval(0.2, None, None)]) is None
