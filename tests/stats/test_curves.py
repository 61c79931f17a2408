"""ROC points against scikit-learn and pair counting; curves along rounds by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from bench import stats

candidates = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: 0 < sum(r[1] for r in rows) < len(rows)
)


def arrays(rows: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([r[0] for r in rows], dtype=float), np.array([r[1] for r in rows])


def test_roc_by_hand() -> None:
    fpr, tpr = stats.roc([3, 1, 2, 1, 0], [True, True, False, False, False])
    assert_allclose(fpr, [0, 0, 1 / 3, 2 / 3, 1])
    assert_allclose(tpr, [0, 0.5, 0.5, 1, 1])
    fpr, tpr = stats.roc(np.zeros(5), [True, True, False, False, False])
    assert (fpr.tolist(), tpr.tolist()) == ([0, 1], [0, 1])
    fpr, tpr = stats.roc([math.inf, 0, -math.inf], [True, False, False])
    assert (fpr.tolist(), tpr.tolist()) == ([0, 0, 0.5, 1], [0, 1, 1, 1])


@given(candidates)
@settings(deadline=None)
def test_roc_is_sklearns_and_its_area_the_auc(rows: list[tuple[int, bool]]) -> None:
    from sklearn.metrics import roc_curve

    scores, member = arrays(rows)
    fpr, tpr = stats.roc(scores, member)
    expected = roc_curve(member, scores, drop_intermediate=False)
    assert_allclose(fpr, expected[0])
    assert_allclose(tpr, expected[1])
    assert np.trapezoid(tpr, fpr) == pytest.approx(stats.auc(scores, member).value)
    again = stats.roc(np.exp(scores[::-1]), member[::-1])
    assert_allclose(again, (fpr, tpr))


@given(candidates, st.integers(1, 30))
@settings(deadline=None)
def test_log_roc_never_promises_more_than_a_threshold_gives(rows: list[tuple[int, bool]], per_decade: int) -> None:
    scores, member = arrays(rows)
    fpr, tpr = stats.log_roc(scores, member, per_decade)
    nonmembers = int((~member).sum())
    assert fpr[0] == pytest.approx(1 / nonmembers)
    assert fpr[-1] == 1
    assert (np.diff(fpr) > 0).all()
    assert (np.diff(tpr) >= 0).all()
    assert tpr[-1] == 1
    cuts = [*np.unique(scores), math.inf]
    for at, reached in zip(fpr, tpr, strict=True):
        best = max((scores[member] >= t).mean() for t in cuts if (scores[~member] >= t).mean() <= at + 1e-9)
        assert reached == pytest.approx(best)


def test_log_roc_by_hand() -> None:
    scores = np.concatenate([np.arange(1000.0), np.arange(500, 1500.0)])
    member = np.arange(2000) >= 1000
    fpr, tpr = stats.log_roc(scores, member, per_decade=1)
    assert {0.001, 0.01, 0.1, 1.0} <= {round(float(x), 9) for x in fpr}
    # one false alarm: threshold 999, so the members from 999 to 1499
    assert tpr[0] == pytest.approx(0.501)
    assert tpr[np.searchsorted(fpr, 0.1 - 1e-9)] == pytest.approx(0.6)


def test_bad_curves() -> None:
    for curve in (stats.roc, stats.log_roc):
        with pytest.raises(ValueError, match="no member"):
            curve([1.0, 2.0], [False, False])
        with pytest.raises(ValueError, match="NaN"):
            curve([1.0, math.nan], [True, False])
    with pytest.raises(ValueError, match="per_decade"):
        stats.log_roc([1.0, 2.0], [True, False], 0)


def test_along_rounds_by_hand() -> None:
    leakage = {3: 0.9, 1: 0.6, 2: 0.7, 5: 0.99}
    perplexity = {0: 50.0, 1: 40.0, 2: 30.0, 3: 31.0, 4: 20.0}
    found = stats.along_rounds(leakage, perplexity, higher_is_better=False)
    assert [(p.round, p.leakage, p.utility, p.dominated) for p in found] == [
        (1, 0.6, 40.0, False),
        (2, 0.7, 30.0, False),
        (3, 0.9, 31.0, True),
    ]
    found = stats.along_rounds(leakage, perplexity, higher_is_better=True)
    assert [p.dominated for p in found] == [False, True, True]
    twins = stats.along_rounds({0: 0.5, 1: 0.5}, {0: 1.0, 1: 1.0}, higher_is_better=True)
    assert [p.dominated for p in twins] == [False, False]
    assert stats.along_rounds({}, {}, higher_is_better=True) == ()
    with pytest.raises(ValueError, match="NaN"):
        stats.along_rounds({1: math.nan}, {1: 1.0}, higher_is_better=True)
