"""Signs: the scale by hand, feedback without loss, votes on a public grid, and norm bounds that hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.conformance.fixtures import transform_context
from bench.core.errors import SiloBenchError, UsageError
from bench.core.streams import SecretStreams, State
from bench.core.update import Grid, Layout, Update
from bench.defense.compose import compose, fill
from bench.defense.defaults.plain import PlainChannel
from bench.defense.flow import Flow
from bench.defense.parts import Transform
from defenses import dp_sgd, fedshield, secagg, sign
from defenses.transforms.sign import ScaledSign, Votes
from tests.defense.toys import public_of

LAYOUT = Layout(("a", "b"), ((2, 3), (4,)))
BASE = np.zeros(10, np.float32)


def apply(part: Transform, values: object, state: State | None = None, **change: object) -> Update:
    update = Update(np.array(values, np.float32), LAYOUT, **change)  # type: ignore[arg-type]
    return part.apply(update, transform_context(BASE, 0, 4, state=state, layout=LAYOUT))


def test_each_tensor_becomes_its_signs_times_its_mean_magnitude() -> None:
    sent = apply(ScaledSign(False), [1, -2, 3, -4, 5, -3, 0, 8, 0, -4])
    np.testing.assert_array_equal(sent.values, [3, -3, 3, -3, 3, -3, 0, 3, 0, -3])
    assert sent.values.dtype == np.float32
    assert sent.grid is None


def test_feedback_by_hand() -> None:
    """Tensor b alone: (4, 0, 0, -8) has mean magnitude 3; what is left over, (1, 0, 0, -5), comes back."""
    state: State = {}
    first = apply(ScaledSign(True), [0] * 6 + [4, 0, 0, -8], state)
    np.testing.assert_array_equal(first.values, [0] * 6 + [3, 0, 0, -3])
    np.testing.assert_array_equal(state["residual"], [0] * 6 + [1, 0, 0, -5])
    second = apply(ScaledSign(True), [0] * 6 + [0, 2, 0, 1], state)  # with what is owed: 1, 2, 0, -4
    np.testing.assert_array_equal(second.values, [0] * 6 + [1.75, 1.75, 0, -1.75])
    np.testing.assert_array_equal(state["residual"], [0] * 6 + [-0.75, 0.25, 0, -2.25])


# multiples of 6 and of 4, so that the first means over tensors of 6 and 4 values are exact in float32
even = st.integers(-(2**6), 2**6).map(lambda n: 240.0 * n)


@settings(max_examples=30)
@given(st.lists(st.lists(even, min_size=10, max_size=10), min_size=1, max_size=4))
def test_sent_and_owed_together_are_the_sum_of_the_updates(updates) -> None:
    """To float32 rounding of the largest value that occurs: after a first round means are no longer whole."""
    state: State = {}
    sent = [apply(ScaledSign(True), update, state).values.astype(np.float64) for update in updates]
    total = np.sum(sent, axis=0) + state["residual"]
    largest = max(float(np.abs(u).max()) for u in updates) * len(updates)
    np.testing.assert_allclose(total, np.sum(updates, axis=0), atol=len(updates) * 4 * largest * 2**-23, rtol=0)
    if len(updates) == 1:
        np.testing.assert_array_equal(total, np.sum(updates, axis=0))


@settings(max_examples=30)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=10, max_size=10), st.integers(-30, 30))
def test_signs_are_never_longer_than_what_they_stand_for(values, exponent) -> None:
    """Also where all magnitudes are equal, and rounding the mean up would break the bound."""
    for given_values in (values, [2.0**exponent * 1.1] * 10):
        exact = np.array(np.array(given_values, np.float32), np.float64)
        bound = float(np.linalg.norm(exact))
        sent = apply(ScaledSign(False), exact, norm_bound=bound)
        assert sent.norm_bound == bound
        for part in (slice(0, 6), slice(6, 10)):
            assert np.abs(sent.values[part]).astype(np.float64).sum() <= np.abs(exact[part]).sum()
        assert np.linalg.norm(sent.values.astype(np.float64)) <= bound * (1 + 1e-15)


def test_with_feedback_no_bound_is_stated() -> None:
    owed: State = {"residual": np.full(10, 100, np.float32)}
    sent = apply(ScaledSign(True), np.ones(10), owed, norm_bound=np.sqrt(10.0))
    assert np.linalg.norm(sent.values) > 10
    assert sent.norm_bound is None
    bounded = Flow().bounded()
    assert [bool(ScaledSign(feedback).follow(bounded).unbounded) for feedback in (True, False)] == [True, False]


def test_votes_are_integers_of_two_bits_at_a_public_step() -> None:
    context = transform_context(BASE, layout=LAYOUT)
    context.public.weights["silo-2"] = 5  # type: ignore[index]
    values = np.array([1e-9, -3, 0, 2, -1, 4, 0, 0, -7, 1], np.float32)
    sent = Votes(0.5).apply(Update(values, LAYOUT), context)
    assert sent.grid == Grid(2, 0.5 * 0.1 * 5)  # the context's reach is .1
    assert sent.values.dtype == np.int64
    np.testing.assert_array_equal(sent.values, [1, -1, 0, 1, -1, 1, 0, 0, -1, 1])
    assert sent.norm_bound == pytest.approx(0.25 * np.sqrt(10))
    assert np.linalg.norm(sent.values) * sent.grid.step <= sent.norm_bound
    # the step is public: other values, same grid
    assert Votes(0.5).apply(Update(-1e6 * values, LAYOUT), context).grid == sent.grid


def test_votes_without_a_public_reach_and_votes_on_votes_are_refused() -> None:
    context = transform_context(BASE, layout=LAYOUT)
    with pytest.raises(UsageError, match="need a public step"):
        Votes(0.5).apply(Update(BASE, LAYOUT), replace(context, reach=None))
    for part in (Votes(0.5), ScaledSign(True)):
        with pytest.raises(SiloBenchError):
            part.apply(Update(BASE.astype(np.int64), LAYOUT, grid=Grid(2, 1.0)), context)


def test_a_sum_of_votes_moves_the_adapter_by_their_mean() -> None:
    aggregator = sign.build(sign.Config(mode="votes")).aggregator
    assert aggregator is not None
    assert aggregator.weight(77) == 1
    context = transform_context(BASE, layout=LAYOUT)
    silos = [[1] * 10, [1] * 5 + [-1] * 5, [-1, 0] * 5]
    total = np.zeros(10)
    for values in silos:
        update = Votes(1.0).apply(Update(np.array(values, np.float32) * 7, LAYOUT), context)
        total += update.form.spread(update.values)
    public = public_of([1, 1, 1])
    after = aggregator.apply(total, public.silos, np.full(10, 2, np.float32), public)
    np.testing.assert_allclose(after, 2 + 0.1 * np.array(silos).sum(axis=0) / 3, rtol=1e-6)


@pytest.mark.parametrize(("part", "size"), [(Votes(0.5), 1), (ScaledSign(True), 4)])
def test_in_clear_votes_travel_as_bytes_and_real_signs_as_floats(part, size) -> None:
    (frame,) = PlainChannel().seal(apply(part, np.ones(10)), {}, SecretStreams("silo-0"), 0)
    assert len(frame) == 16 + size * 10


def test_what_it_combines_with() -> None:
    named = {mode: sign.build(sign.Config(mode=mode)) for mode in ("feedback", "scaled", "votes")}
    for other in (secagg.build(secagg.Config()), dp_sgd.build(dp_sgd.Config(sigma=1.0))):
        for defense in named.values():
            fill(compose([("sign", defense), ("other", other)]))
    votes = fill(compose([("sign", named["votes"]), ("secagg", secagg.build(secagg.Config()))]))
    assert [type(t).__name__ for t in votes.encoders] == ["Votes"]  # no quantiser after it
    with pytest.raises(UsageError, match="each brings its own aggregator"):
        compose([("sign", named["votes"]), ("fedshield", fedshield.build(fedshield.Config()))])


@pytest.mark.parametrize("wrong", [{"mode": "majority"}, {"step": 0}, {"step": 1.5}])
def test_wrong_options_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        sign.Config(**wrong)


def test_votes_are_summed_exactly_under_secure_aggregation(tmp_path) -> None:
    """Three silos through the real protocol: the adapter moves by the mean vote, and the modulus fits three bits."""
    from bench.defense.compose import Defense
    from bench.spec.run import FederationSpec
    from tests.federation import fakes

    spec = FederationSpec(silos=3, rounds=2)
    votes = sign.build(sign.Config(mode="votes", step=0.5))
    trained = Defense(trainer=fakes.DrawnTrainer())
    summed = secagg.build(secagg.Config())
    setup = fakes.make_setup(spec, compose([("drawn", trained), ("sign", votes), ("secagg", summed)]))
    transcript = fakes.run(tmp_path, setup)
    values = setup.initial.astype(np.float64)
    for round in range(2):
        # AdamW's reach: learning rate times steps, 2e-3 x 2 epochs x 4 batches of 8 for the largest silo's 30 records
        ballot = sum(np.sign(fakes.drawn(0, index, round)) for index in range(3))
        values = values + 0.5 * 2e-3 * 8 * ballot / 3
    np.testing.assert_allclose(transcript.final_adapter(), values, atol=1e-6)
