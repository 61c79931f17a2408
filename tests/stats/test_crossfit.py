"""Cross-fitting: the split, the choice, and that a best of many on noise stays at chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import stats
from bench.stats.crossfit import by_fold, pooled


def test_split_ignores_order_scores_and_most_labels() -> None:
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(100), 2)
    member = np.repeat(rng.random(100) < 0.5, 2)
    folds = stats.split(cluster, member)
    order = rng.permutation(200)
    assert (stats.split(cluster[order], member[order]) == folds[order]).all()
    other = np.repeat(rng.random(100) < 0.5, 2)
    assert (stats.split(cluster, other) == folds).all()


@given(
    classes=st.lists(st.booleans(), min_size=4, max_size=40).filter(lambda c: 2 <= sum(c) <= len(c) - 2),
    size=st.integers(1, 3),
)
@settings(deadline=None)
def test_split_keeps_clusters_whole_and_both_classes_in_both(classes: list[bool], size: int) -> None:
    member = np.repeat(np.array(classes), size)
    cluster = np.repeat(np.arange(len(classes)), size)
    folds = stats.split(cluster, member)
    assert all(len(set(folds[cluster == c])) == 1 for c in cluster)
    for f in (0, 1):
        assert {True, False} == set(member[folds == f].tolist())
        assert abs(len(set(cluster[folds == f])) - len(classes) / 2) <= 0.5


def test_split_refuses_too_few_clusters() -> None:
    with pytest.raises(stats.TooFewClusters, match="two clusters"):
        stats.split([0, 0, 0, 1, 2], [True, True, True, False, False])


def test_reports_what_the_other_fold_chose() -> None:
    member = np.array([True, False] * 40)
    cluster = np.arange(80)
    folds = stats.split(cluster, member)
    good_on_0 = np.where(folds == 0, member * 1.0, 0.0)
    good_on_1 = np.where(folds == 1, member * 1.0, 0.0)
    choice = stats.crossfit_auc({"zero": good_on_0, "one": good_on_1}, member, cluster, folds)
    # fold 0 chooses "zero", which is constant on fold 1, and the other way round: nothing was found
    assert choice.chosen == ("one", "zero")
    assert choice.interval.value == 0.5
    naive = max(stats.auc(s, member).value or 0 for s in (good_on_0, good_on_1))
    assert naive > 0.7


def test_value_and_variance_by_hand() -> None:
    rng = np.random.default_rng(2)
    member, cluster = np.arange(80) < 40, np.arange(80)
    matrix = rng.normal(0, 1, (2, 80)) + member
    folds = stats.split(cluster, member)
    sides = [np.flatnonzero(folds == f) for f in (0, 1)]
    parts = by_fold(matrix, member, cluster, folds)
    value, variance = pooled(parts, [np.array([1.0, 0.0]), np.array([0.0, 1.0])])
    singles = [stats.auc(matrix[f][sides[f]], member[sides[f]]).value for f in (0, 1)]
    assert value == pytest.approx(np.mean(singles))
    own = [stats.placements(matrix[f][sides[f]], member[sides[f]]).variance([1.0]) for f in (0, 1)]
    apart = [stats.placements(matrix[:, s], member[s]).variance([1.0, -1.0]) for s in sides]
    assert variance == pytest.approx(sum(own) / 4 + math.sqrt(apart[0] * apart[1]) / 8)
    alike = pooled(parts, [np.array([1.0, 0.0])] * 2)[1]
    one = [stats.placements(matrix[0][s], member[s]).variance([1.0]) for s in sides]
    assert alike == pytest.approx(sum(one) / 4)


def test_opposite_scores_count_as_fully_tied() -> None:
    rng = np.random.default_rng(4)
    member, cluster = np.arange(80) < 40, np.arange(80)
    noise = rng.normal(0, 1, 80)
    folds = stats.split(cluster, member)
    parts = by_fold(np.stack([noise, -noise]), member, cluster, folds)
    variance = pooled(parts, [np.array([1.0, 0.0]), np.array([0.0, 1.0])])[1]
    sds = [math.sqrt(part.variance([1.0, 0.0])) for part in parts]
    assert variance == pytest.approx((sds[0] / 2 + sds[1] / 2) ** 2)


def test_single_score_is_its_plain_auc() -> None:
    rng = np.random.default_rng(6)
    member, cluster = np.arange(60) < 30, np.arange(60) // 2
    scores = rng.normal(member, 1)
    folds = stats.split(cluster, member)
    choice = stats.crossfit_auc({"only": scores}, member, cluster, folds)
    assert choice.interval == stats.auc(scores, member, cluster)
    assert choice.chosen == ("only", "only")


def test_exact_lower_limit_at_one_allows_for_the_choice() -> None:
    member, cluster = np.arange(80) < 40, np.arange(80)
    folds = stats.split(cluster, member)
    scores = {f"s{i}": member * 1.0 for i in range(8)}
    found = stats.crossfit_auc(scores, member, cluster, folds)
    pairs = sum(part.pairs for part in by_fold(np.atleast_2d(member * 1.0), member, cluster, folds))
    assert found.chosen == ("s0", "s0")
    assert found.interval.low == pytest.approx((0.025 / 2 / 8) ** (1 / pairs))


@given(seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=25)
def test_order_of_candidates_and_names_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    member = rng.permutation(np.arange(60) < 30)
    cluster = np.arange(60)
    values = {name: np.round(rng.normal(member * 0.7, 1), 1) for name in "abc"}
    folds = stats.split(cluster, member)
    found = stats.crossfit_auc(values, member, cluster, folds)
    order = rng.permutation(60)
    turned = {name: values[name][order] for name in "cab"}
    again = stats.crossfit_auc(turned, member[order], cluster[order], stats.split(cluster[order], member[order]))
    assert again.chosen == found.chosen
    assert again.interval.value == pytest.approx(found.interval.value)
    assert again.interval.low == pytest.approx(found.interval.low)


def test_best_of_many_noises_is_at_chance() -> None:
    """40 scores of noise: the best by eye is far from 1/2, the cross-fitted one within a 10^-6 margin."""
    rng = np.random.default_rng(9)
    member, cluster = np.arange(180) < 90, np.arange(180)
    folds = stats.split(cluster, member)
    scores = {f"{i}": rng.normal(0, 1, 180) for i in range(40)}
    choice = stats.crossfit_auc(scores, member, cluster, folds)
    by_eye = max(stats.auc(s, member).value or 0 for s in scores.values())
    assert by_eye > 0.57
    margin = np.mean([stats.null_margin(member[folds == f], p=5e-7) for f in (0, 1)])
    assert abs((choice.interval.value or 0) - 0.5) < margin


def test_folded_never_compares_across_folds() -> None:
    member, cluster = np.arange(80) < 40, np.arange(80)
    folds = stats.split(cluster, member)
    scores = np.random.default_rng(1).normal(member, 1)
    plain = stats.folded_auc(scores, member, cluster, folds)
    shifted = stats.folded_auc(scores + 100 * folds, member, cluster, folds)
    assert shifted == plain
    sides = [stats.auc(scores[folds == f], member[folds == f]).value for f in (0, 1)]
    assert plain.value == pytest.approx(np.mean(sides))


def test_paired_crossfit_of_equal_attacks_is_zero_and_of_unlike_ones_is_seen() -> None:
    rng = np.random.default_rng(12)
    member, cluster = np.arange(180) < 90, np.arange(180)
    folds = stats.split(cluster, member)
    strong = {"x": rng.normal(2.0 * member, 1), "y": rng.normal(1.0 * member, 1)}
    weak = {"x": rng.normal(0.2 * member, 1), "z": rng.normal(0, 1, 180)}
    nothing = stats.crossfit_paired(strong, strong, member, cluster, folds)
    assert nothing.interval.value == 0
    assert nothing.p == 1
    found = stats.crossfit_paired(strong, weak, member, cluster, folds)
    values = [stats.crossfit_auc(s, member, cluster, folds).interval.value or 0 for s in (strong, weak)]
    assert found.interval.value == pytest.approx(values[0] - values[1])
    assert found.p is not None
    assert found.p < 1e-6
    assert found.interval.low > 0


def test_fold_must_not_cut_clusters() -> None:
    with pytest.raises(ValueError, match="both folds"):
        by_fold(np.zeros((1, 4)), np.array([True, True, False, False]), [0, 0, 1, 1], np.array([0, 1, 0, 1], np.int8))


def test_a_folded_auc_has_the_mean_of_the_folds_deviations_by_hand() -> None:
    """DeLong's variance of each fold from its kernels, not a multiple of it, and the floors of both."""
    from bench.stats.auc import class_floor, placements
    from bench.stats.intervals import unit_interval, unseen

    rng = np.random.default_rng(3)
    member = np.arange(40) % 2 == 0
    scores, folds = rng.normal(size=40) + member, (np.arange(40) // 2 % 2).astype(np.int8)
    values, deviations, pairs = [], [], []
    for f in (0, 1):
        part, of = scores[folds == f], member[folds == f]
        kernel = (part[of][:, None] > part[~of][None]).astype(float)
        values.append(kernel.mean())
        own = kernel.mean(1).var(ddof=1) / of.sum() + kernel.mean(0).var(ddof=1) / (~of).sum()
        deviations.append(own)
        pairs.append(int(min(of.sum(), (~of).sum())))
    value = float(np.mean(values))
    made = placements(scores[folds == 0], member[folds == 0])
    floor = class_floor(value, made.members, made.nonmembers)
    sd = float(np.mean([math.sqrt(own + floor) for own in deviations]))
    found = stats.folded_auc(scores, member, list(range(40)), folds)
    low, high = unit_interval(value, sd**2, unseen(min(pairs), 1 - 0.025))
    assert (found.value, found.low, found.high) == pytest.approx((value, low, high), rel=1e-9)


def test_paired_sides_of_different_width_are_not_mixed() -> None:
    """Three scores against one: the one is the last row, and no choice of the first side."""
    rng = np.random.default_rng(4)
    member = np.arange(40) % 2 == 0
    cluster = list(range(40))
    folds = stats.split(cluster, member)
    first = {name: rng.normal(size=40) + (2.0 * member if name == "c" else 0) for name in "abc"}
    strong = {"z": rng.normal(size=40) + 4.0 * member}
    found = stats.crossfit_paired(first, strong, member, cluster, folds).interval
    alone = stats.crossfit_auc(first, member, cluster, folds).interval
    best = np.mean([part.value[0] for part in by_fold(np.array([strong["z"]]), member, cluster, folds)])
    assert found.value == pytest.approx(alone.value - best)
