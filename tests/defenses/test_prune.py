"""Magnitude pruning: exact counts, deterministic ties, the schedule, and what survives bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from bench.conformance.fixtures import transform_context
from bench.core.errors import SiloBenchError
from bench.core.update import Grid, Layout, Update
from defenses import prune
from defenses.transforms.prune import MagnitudePruning, PruneConfig, Schedule, smallest
from tests.defense.toys import public_of

LAYOUT = Layout(("a", "b"), ((2, 3), (4,)))
ALWAYS = Schedule(start=0, end=0, sparsity_start=0.5, sparsity_end=0.5)


def apply(part: MagnitudePruning, values: list[float], base: list[float], round: int = 0, rounds: int = 1) -> Update:
    context = transform_context(np.array(base, np.float32), round, rounds)
    return part.apply(Update(np.array(values, np.float32), LAYOUT, norm_bound=3.0), context)


finite = st.floats(-4, 4, width=32)
few = st.sampled_from([-1.0, 0.0, 0.5, 1.0])  # many ties


@given(arrays(np.float32, st.integers(0, 60), elements=finite | few), st.floats(0, 1))
def test_exactly_the_rounded_share_goes_and_nothing_kept_is_smaller(values, share) -> None:
    mask = smallest(values, share)
    assert mask.sum() == round(share * values.size)
    assert mask.shape == values.shape
    if 0 < mask.sum() < values.size:
        assert np.abs(values[mask]).max() <= np.abs(values[~mask]).min()


@given(arrays(np.float32, st.integers(1, 60), elements=few), st.floats(0, 1))
def test_ties_go_in_order_as_a_stable_sort_says(values, share) -> None:
    expected = np.zeros(values.size, bool)
    expected[np.argsort(np.abs(values), kind="stable")[: round(share * values.size)]] = True
    np.testing.assert_array_equal(smallest(values, share), expected)


def test_values_that_are_not_finite_are_the_largest() -> None:
    values = np.array([np.nan, 1.0, np.inf, 2.0, np.nan], np.float32)
    np.testing.assert_array_equal(smallest(values, 0.4), [False, True, False, True, False])
    np.testing.assert_array_equal(smallest(values, 0.8), [True, True, True, True, False])


def test_schedule_as_published_at_its_corners() -> None:
    schedule = PruneConfig().schedule()
    shares = [schedule.sparsity(r, 10) for r in range(10)]
    assert shares[0] == 0.0
    assert shares[1] == pytest.approx(0.2)  # round 2 of 10 ends at .2 of the run
    assert shares[5] == pytest.approx(0.35)  # half way from .2 to 1
    assert shares[9] == pytest.approx(0.5)
    assert [schedule.sparsity(r, 3) for r in range(3)] == pytest.approx([0.25, 0.375, 0.5])
    assert schedule.sparsity(0, 1) == pytest.approx(0.5)


def test_the_published_code_counts_rounds_from_zero() -> None:
    """.2 + .3 (r - 40) / 160 of 200 rounds, r counted from 0; nothing before round 40."""
    code = PruneConfig(count="code").schedule()
    assert [code.sparsity(r, 3) for r in range(3)] == pytest.approx([0, 0.25, 0.375])
    assert code.sparsity(39, 200) == 0
    assert [code.sparsity(r, 200) for r in (40, 100, 199)] == pytest.approx(
        [0.2 + 0.3 * (r - 40) / 160 for r in (40, 100, 199)]
    )
    assert "count" not in PruneConfig().model_dump()  # identities from before it stay what they were


def test_schedule_stays_at_its_end() -> None:
    schedule = Schedule(start=0.2, end=0.5, sparsity_start=0.1, sparsity_end=0.4)
    assert [schedule.sparsity(r, 10) for r in (4, 7, 9)] == pytest.approx([0.4, 0.4, 0.4])


def test_weights_are_pruned_not_the_update() -> None:
    base = [1, -1, 0.1, 0, 2, 3, 0, 0, 0, 0]
    update = [-1, 0, 0, 0.5, 0, 0, 4, 3, 2, 1]
    # weights: a = 0, -1, .1, .5, 2, 3   b = 4, 3, 2, 1
    pruned = apply(MagnitudePruning(ALWAYS), update, base)
    weights = np.array(base, np.float32) + pruned.values
    np.testing.assert_array_equal(weights, np.array([0, -1, 0, 0, 2, 3, 4, 3, 0, 0], np.float32))
    assert pruned.norm_bound is None


def test_delta_is_pruned_alone() -> None:
    base = [9.0] * 10
    pruned = apply(MagnitudePruning(ALWAYS, "delta"), [1, 2, 3, -4, 5, -6, 0, 0, 1, 2], base)
    np.testing.assert_array_equal(pruned.values, [0, 0, 0, -4, 5, -6, 0, 0, 1, 2])
    assert pruned.norm_bound == 3.0


def test_a_tensor_of_zeros_is_pruned_like_any_other() -> None:
    pruned = apply(MagnitudePruning(ALWAYS), [0] * 10, [0] * 10)
    np.testing.assert_array_equal(pruned.values, np.zeros(10))


@given(st.integers(0, 2**32 - 1))
def test_survivors_keep_their_update_bit_for_bit_and_the_rest_is_exactly_zero(seed) -> None:
    rng = np.random.default_rng(seed)
    base, update = rng.standard_normal((2, 10)).astype(np.float32)
    context = transform_context(base, 0, 1)
    given_update = Update(update, LAYOUT)
    before = update.copy()
    pruned = MagnitudePruning(ALWAYS).apply(given_update, context)
    weights = base + pruned.values
    gone = weights == 0
    assert gone[:6].sum() == 3
    assert gone[6:].sum() == 2
    np.testing.assert_array_equal(pruned.values[~gone], before[~gone])
    np.testing.assert_array_equal(given_update.values, before)  # the input is left alone


def test_no_pruning_before_the_start_changes_nothing() -> None:
    values = list(range(10))
    pruned = apply(MagnitudePruning(Schedule(start=0.9, end=1)), values, [1.0] * 10, round=0, rounds=5)
    np.testing.assert_array_equal(pruned.values, values)


@pytest.mark.parametrize("change", [{"grid": Grid(8, 1.0)}, {"support": np.arange(10)}])
def test_only_dense_real_updates(change) -> None:
    update = Update(np.zeros(10, np.float32), LAYOUT, **change)
    context = transform_context(np.zeros(10, np.float32), 0, 1)
    with pytest.raises(SiloBenchError, match="dense update"):
        MagnitudePruning().apply(update, context)


@pytest.mark.parametrize("wrong", [{"sparsity_end": 1.5}, {"start": 0.6, "end": 0.5}, {"sparsety": 0.1}])
def test_wrong_options_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        prune.Config(**wrong)


@pytest.mark.parametrize("of", ["weights", "delta"])
def test_the_defense_sums_what_it_prunes_unweighted(of) -> None:
    defense = prune.build(prune.Config(of=of))
    assert defense.channel is None
    assert defense.aggregator is not None
    assert defense.aggregator.weight(77) == 1
    base = np.ones(10, np.float32)
    summand = defense.aggregator.summand(Update(np.full(10, 2, np.float32), LAYOUT), base, public_of([1]))
    assert summand.values[0] == (3 if of == "weights" else 2)
