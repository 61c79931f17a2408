"""Top-k: exact counts and values, and error feedback that loses nothing; broken copies are told apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.conformance.fixtures import transform_context
from bench.core.errors import SiloBenchError
from bench.core.streams import State
from bench.core.update import Grid, Layout, Update
from bench.defense.compose import Defense, compose, fill
from bench.defense.flow import Flow
from bench.defense.parts import Transform
from defenses import plain, prune, secagg, top_k
from defenses.transforms.compress import Compressor
from defenses.transforms.topk import TopK
from defenses.transforms.trained_factors import TrainedFactors

LAYOUT = Layout(("x.lora_A", "x.lora_B"), ((2, 3), (4,)))
BASE = np.zeros(10, np.float32)
VALUES = [1, -7, 2, 0, 3, -4, 0.5, 9, -8, 0.25]


def apply(part: Transform, values: object, state: State | None = None, **change: object) -> Update:
    update = Update(np.array(values, np.float32), LAYOUT, **change)  # type: ignore[arg-type]
    return part.apply(update, transform_context(BASE, 0, 4, state=state, layout=LAYOUT))


def test_the_largest_of_each_tensor_bit_for_bit() -> None:
    sent = apply(TopK(0.5, "tensor", feedback=False), VALUES)
    np.testing.assert_array_equal(sent.values, [0, -7, 0, 0, 3, -4, 0, 9, -8, 0])
    assert sent.values.dtype == np.float32
    assert sent.support is None  # which they are is the silo's own: dense, with zeros


def test_the_largest_of_all() -> None:
    sent = apply(TopK(0.3, "update", feedback=False), VALUES)
    np.testing.assert_array_equal(sent.values, [0, -7, 0, 0, 0, 0, 0, 9, -8, 0])


def test_at_least_one_of_each_tensor_and_the_last_of_equal_ones() -> None:
    sent = apply(TopK(0.01, "tensor", feedback=False), [2, -2, 2, 1, 0, 1, 3, 3, 3, -3])
    np.testing.assert_array_equal(sent.values, [0, 0, 2, 0, 0, 0, 0, 0, 0, -3])


def test_what_was_not_sent_is_added_to_the_next_update() -> None:
    state: State = {}
    part = TopK(0.2, "update")
    first = apply(part, [5, 1, 1, 0, 0, 0, 4, 0, 0, 3], state)
    np.testing.assert_array_equal(first.values, [5, 0, 0, 0, 0, 0, 4, 0, 0, 0])
    np.testing.assert_array_equal(state["residual"], [0, 1, 1, 0, 0, 0, 0, 0, 0, 3])
    second = apply(part, [1, 2, 0, 0, 0, 0, 0, 0, 0, 1], state)
    np.testing.assert_array_equal(second.values, [0, 3, 0, 0, 0, 0, 0, 0, 0, 4])
    np.testing.assert_array_equal(state["residual"], [1, 0, 1, 0, 0, 0, 0, 0, 0, 0])


def test_the_input_and_the_stored_state_are_left_alone() -> None:
    held = np.ones(10, np.float32)
    held.setflags(write=False)
    state: State = {"residual": held}
    values = np.array(VALUES, np.float32)
    kept = values.copy()
    TopK(0.5).apply(Update(values, LAYOUT), transform_context(BASE, 0, 4, state=state, layout=LAYOUT))
    np.testing.assert_array_equal(values, kept)
    np.testing.assert_array_equal(held, np.ones(10))


# multiples of 1/8 below 2**12: every sum of a few of them is exact in float32
dyadic = st.integers(-(2**12), 2**12).map(lambda n: n / 8)
rounds = st.lists(st.lists(dyadic, min_size=10, max_size=10), min_size=1, max_size=6)


def nothing_is_lost(part: Compressor, updates: list[list[float]]) -> bool:
    state: State = {}
    sent = [apply(part, update, state).values.astype(np.float64) for update in updates]
    return np.array_equal(np.sum(sent, axis=0) + state["residual"], np.sum(updates, axis=0))


@settings(max_examples=30)
@given(rounds, st.floats(0.01, 1), st.sampled_from(["tensor", "update"]))
def test_sent_and_owed_together_are_the_sum_of_the_updates(updates, share, per) -> None:
    assert nothing_is_lost(TopK(share, per), updates)


class Forgets(TopK):
    """Keeps what this round left out and drops what was owed before."""

    def apply(self, update, context):  # type: ignore[no-untyped-def]
        sent = super().apply(update, context)
        context.state["residual"] = update.values - sent.values
        return sent


class Doubles(TopK):
    """Sends what is owed and goes on owing it."""

    def apply(self, update, context):  # type: ignore[no-untyped-def]
        before = context.state.get("residual", np.zeros(10, np.float32)).copy()
        sent = super().apply(update, context)
        context.state["residual"] = context.state["residual"] + before
        return sent


@pytest.mark.parametrize("broken", [Forgets, Doubles])
def test_broken_feedback_is_caught(broken) -> None:
    updates = [list(np.arange(10) * 1.0), list(np.arange(10)[::-1] * 1.0), [1.0] * 10]
    assert nothing_is_lost(TopK(0.2), updates)
    assert not nothing_is_lost(broken(0.2), updates)


@settings(max_examples=30)
@given(st.lists(st.floats(-5, 5, width=32), min_size=10, max_size=10), st.floats(0.01, 1))
def test_a_norm_bound_survives_without_feedback_only(values, share) -> None:
    bound = float(np.linalg.norm(np.array(values, np.float64)))
    kept = apply(TopK(share, feedback=False), values, norm_bound=bound)
    assert kept.norm_bound == bound
    assert np.linalg.norm(kept.values.astype(np.float64)) <= bound
    owing = apply(TopK(share), values, {"residual": np.ones(10, np.float32)}, norm_bound=bound)
    assert owing.norm_bound is None
    bounded = Flow().bounded()
    assert [bool(TopK(share, feedback=f).follow(bounded).unbounded) for f in (False, True)] == [False, True]


def test_on_a_public_support_only_its_coordinates_are_sent_and_settled() -> None:
    """B in even rounds, A in odd ones: what is owed on A waits until A is sent."""
    state: State = {"residual": np.array([1, 2, 3, 4, 5, 6, 0, 0, 0, 0.5], np.float32)}
    update = Update(np.array([0, 0, 0, 0, 0, 0, 1, 2, 3, 3], np.float32), LAYOUT)
    context = transform_context(BASE, 0, 4, state=state, layout=LAYOUT)
    sent = TopK(0.5).apply(TrainedFactors("b").apply(update, context), context)
    np.testing.assert_array_equal(sent.support, [6, 7, 8, 9])
    np.testing.assert_array_equal(sent.values, [0, 0, 3, 3.5])
    np.testing.assert_array_equal(state["residual"], [1, 2, 3, 4, 5, 6, 1, 2, 0, 0])


def test_integers_are_refused() -> None:
    with pytest.raises(SiloBenchError, match="put it before what makes integers"):
        apply(TopK(), BASE, grid=Grid(8, 1.0))


def test_it_combines_with_channels_and_other_transforms() -> None:
    part = top_k.build(top_k.Config())
    for other in (plain.build(plain.Config()), secagg.build(secagg.Config()), prune.build(prune.Config(of="delta"))):
        parts = fill(compose([("top-k", part), ("other", other)]))
        assert isinstance(parts.transforms[0], TopK)
    assert fill(Defense(transforms=part.transforms)).promises == ()


def test_zstd_saves_what_is_not_sent() -> None:
    """A tenth of the values sent as float32 with zeros between: 14% of the bytes measured."""
    import zstandard

    values = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    layout = Layout(("x",), ((100_000,),))
    context = transform_context(values, 0, 4, layout=layout)
    sent = TopK(0.1, feedback=False).apply(Update(values, layout), context).values
    ratio = len(zstandard.compress(sent.tobytes(), 3)) / sent.nbytes
    assert 0.1 < ratio < 0.25


@pytest.mark.parametrize("wrong", [{"share": 0}, {"share": 1.1}, {"per": "layer"}, {"k": 3}])
def test_wrong_options_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        top_k.Config(**wrong)


def test_through_the_real_protocol_what_is_owed_is_kept_between_rounds(tmp_path) -> None:
    """Three rounds of two silos, one away in the second: by hand, against the parties' stored states."""
    from bench.spec.run import Dropout, FederationSpec
    from tests.federation import fakes

    spec = FederationSpec(silos=2, rounds=3, dropouts=(Dropout(round=1, silo=1),))
    defense = Defense(trainer=fakes.DrawnTrainer(), transforms=(TopK(0.25),))
    setup = fakes.make_setup(spec, defense)
    transcript = fakes.run(tmp_path, setup)
    for index, rounds in ((0, (0, 1, 2)), (1, (0, 2))):
        owed = np.zeros(fakes.LAYOUT.size, np.float32)
        for round in rounds:
            wanted = owed + fakes.drawn(0, index, round)
            sent = TopK(0.25, feedback=False).compress(wanted, fakes.LAYOUT.offsets)
            owed = wanted - sent
            summand = transcript.truth(round, f"silo-{index}")
            np.testing.assert_allclose(summand, sent * np.float32(10 * (index + 1)), atol=2e-5)
            assert np.count_nonzero(summand) == 6 + 5  # a quarter of 24 and of 20
    assert transcript.truth(1, "silo-1") is None
