"""What parties are given at the start: schedules, rates, a round's context, and how a sum becomes an adapter."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.frames import decode_adapter, decode_frame
from bench.core.parties import PUBLIC
from bench.core.records import decode_records
from bench.core.streams import State, Streams
from bench.core.update import Grid, Layout, Update
from bench.defense.aggregator import Aggregator, ServerStep
from bench.defense.channel import Opened
from bench.defense.compose import Defense
from bench.defense.contexts import OpenContext, RoundContext
from bench.defense.defaults.mean import Mean
from bench.defense.parts import Mechanism, Transform
from bench.defense.public import Layouts
from bench.federation import setup as module
from bench.federation.setup import Prefixed, Setup, drop_update, keep_global, load_update, save_update, to_release
from bench.spec.run import FederationSpec, LocalSpec
from tests.federation.fakes import LAYOUT, DrawnTrainer, make_setup, one_token

START = np.linspace(-1, 1, LAYOUT.size, dtype=np.float32)
NOISE = Mechanism("gaussian", {"sigma": 2.0})


class Halving(ServerStep):
    """Moves the adapter half way, and remembers the change; says which noise the opener added."""

    has_memory = True

    def move(self, change: NDArray[np.float64], memory: State) -> NDArray[np.float64]:
        memory["seen"] = change
        return change / 2

    def randomise(self, total: NDArray[np.floating], context: OpenContext) -> tuple[NDArray[np.floating], Mechanism]:
        return total + 60 * context.round, NOISE


class FirstHalf(Transform):
    """Sends the coordinates whose values in the global adapter are not positive."""

    def support(self, context: RoundContext) -> NDArray[np.int64]:
        return np.flatnonzero(context.global_adapter <= 0)

    def apply(self, update: Update, context: Any) -> Update:
        return update.restricted(self.support(context))


def setup_of(
    aggregator: Aggregator | None = None, *transforms: Transform, steps: tuple[ServerStep, ...] = (), **options: Any
) -> Setup:
    defense = Defense(trainer=DrawnTrainer(), aggregator=aggregator, transforms=transforms, steps=steps)
    return make_setup(FederationSpec(**{"silos": 3, "rounds": 4, **options}), defense)


@pytest.mark.parametrize(
    ("silos", "fraction", "count"),
    [(3, 1.0, 3), (5, 0.5, 3), (5, 0.4, 2), (100, 0.07, 7), (100, 0.071, 8), (3, 1e-3, 1)],
)
def test_a_share_of_the_silos_is_called_rounded_up(silos: int, fraction: float, count: int) -> None:
    federation = FederationSpec(silos=silos, rounds=3, client_fraction=fraction)
    schedule = module.participants(federation, Streams(0))
    assert [len(called) for called in schedule] == [count] * 3


@given(st.integers(1, 12), st.floats(0.01, 1), st.integers(0, 2**32))
def test_who_is_called_is_public_distinct_and_in_order(silos: int, fraction: float, seed: int) -> None:
    federation = FederationSpec(silos=silos, rounds=3, client_fraction=fraction)
    schedule = module.participants(federation, Streams(seed))
    assert schedule == module.participants(federation, Streams(seed))
    for called in schedule:
        numbers = [int(name.removeprefix("silo-")) for name in called]
        assert numbers == sorted(set(numbers))
        assert set(numbers) <= set(range(silos))


def test_the_nonce_of_public_choices_is_no_stream_of_the_seed() -> None:
    assert module.public_nonce(0) == 12039010994756394976  # the first 8 bytes of a SHA-256, little-endian
    assert len({module.public_nonce(seed) for seed in range(50)}) == 50


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.8, 0.8, 0.8, 0.8]),
        ("linear", [0.8, 0.6, 0.4, 0.2]),
        ("cosine", [0.8, 0.4 * (1 + math.sqrt(0.5)), 0.4, 0.4 * (1 - math.sqrt(0.5))]),
    ],
)
def test_learning_rates_by_hand(schedule: Any, expected: list[float]) -> None:
    local = LocalSpec(lr=0.8, lr_schedule=schedule)
    assert [module.learning_rate(local, r, 4) for r in range(4)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("local", "steps", "reach"),
    [
        # the largest silo has 30 records: 4 batches of 8, twice; Adam moves a value by about lr in each
        ({}, 8, 8 * 0.002),
        ({"batch": 30}, 2, 2 * 0.002),
        ({"steps": 5, "lr": 0.1}, 5, 0.5),
        ({"optimizer": "sgd"}, 8, None),
        ({"optimizer": "sgd", "max_grad_norm": 0.25}, 8, 8 * 0.002 * 0.25),
    ],
)
def test_steps_and_reach_of_a_round_by_hand(local: dict[str, Any], steps: int, reach: float | None) -> None:
    context = setup_of(local=LocalSpec(**local)).context(0, START)
    assert context.steps == steps
    assert context.reach == (None if reach is None else pytest.approx(reach))


def test_what_a_silo_that_learnt_nothing_sends_is_within_reach() -> None:
    context = setup_of(Mean(of="weights"), local=LocalSpec(steps=1, lr=0.5)).context(0, START)
    assert context.reach == pytest.approx(0.5 + 1.0)


def test_a_round_s_context_has_its_own_rate_and_the_trained_values_only() -> None:
    setup = setup_of(local=LocalSpec(lr=1.0, lr_schedule="linear"))
    context = setup.context(3, np.append(START, np.float32(9)))
    assert (context.round, context.rounds, context.lr, context.public) == (3, 4, 0.25, setup.public)
    np.testing.assert_array_equal(context.global_adapter, START)


def test_records_are_taken_in_the_order_of_the_orders_stream_where_there_is_one() -> None:
    setup = setup_of()
    shadow = replace(setup, orders=Streams(0, "shadow 1/"))
    assert setup.order("silo", 1, 2).random() == Streams(0).generator("silo", 1, 2).random()
    assert shadow.order("silo", 1, 2).random() == Streams(0).generator("shadow 1/silo", 1, 2).random()


def test_parties_of_a_shadow_draw_secrets_of_their_own() -> None:
    """Under a secret seed too, or noise and keys of a shadow would be those of its target."""

    def drawn(prefix: str, party: str = "silo-0") -> list[int]:
        setup = replace(setup_of(), orders=Streams(0, prefix), secret_seed=3)
        return setup.secret(party).generator("noise").integers(0, 2**31, 8).tolist()

    assert drawn("") != drawn("shadow 1/") != drawn("shadow 2/")
    assert drawn("shadow 1/") == drawn("shadow 1/")
    assert drawn("") != drawn("", "silo-1")
    assert not setup_of().secret("silo-0").simulated


def test_a_party_s_desk_derives_supports_from_its_own_adapter_and_only_silos_hold_records() -> None:
    setup = setup_of(None, FirstHalf())
    setup.model.vocab_size = 10
    silo, server = (setup.desk(name, {}, lambda: START) for name in ("silo-1", "server"))
    np.testing.assert_array_equal(server.supports(0), np.arange(22))
    np.testing.assert_array_equal(silo.supports(0), np.arange(22))
    assert decode_records(silo.records(), 10).digest == one_token("silo-1").digest
    with pytest.raises(SiloBenchError, match="holds no records"):
        server.records()


def widened(setup: Setup) -> Setup:
    wide = Layout((*LAYOUT.names, "dense"), (*LAYOUT.shapes, (3,)))
    return replace(setup, public=replace(setup.public, layouts=Layouts(LAYOUT, LAYOUT, wide)))


def test_a_release_goes_to_everybody_without_trailing_zeros_at_its_precision() -> None:
    setup = widened(setup_of(release_precision="float16"))
    idle, carrying = np.append(START, [0.0, 0.0, 0.0]), np.append(START, [0.0, 0.5, 0.0])
    assert len(setup.short(idle)) == 44
    assert len(setup.short(carrying)) == 47
    sent = setup.released(idle)
    assert sent.receivers == (PUBLIC,)
    (frame,) = sent.frames
    assert decode_frame(frame).dtype == np.float16
    np.testing.assert_array_equal(decode_adapter([frame], 47, 44), idle.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(
    ("release", "precision", "dtype", "exact"),
    [
        ("final", "float64", np.float64, True),
        ("every-round", "float64", np.float64, True),
        ("none", "float64", np.float64, False),
        ("final", "float32", np.float64, False),
        ("final", "float64", np.float32, False),
    ],
)
def test_more_than_float32_is_kept_only_where_a_release_carries_it(
    release: Any, precision: Any, dtype: Any, exact: bool
) -> None:
    federation = FederationSpec(release=release, release_precision=precision)
    values, state = np.array([0.1, 0.2], dtype), {"global/exact": np.array([9.0])}
    keep_global(state, federation, values, 7)
    assert state["global/values"].dtype == np.float32
    assert int(state["global/round"]) == 7
    assert ("global/exact" in state) is exact
    released = to_release(state)
    assert released is not None
    np.testing.assert_array_equal(released, values if exact else values.astype(np.float32))


def test_a_party_without_an_adapter_has_nothing_to_release() -> None:
    assert to_release({"keys/pad": np.zeros(1)}) is None


@pytest.mark.parametrize(("me", "noted"), [("server", NOISE), ("silo-1", None)])
def test_an_opened_sum_is_applied_with_the_opener_s_noise_and_noted(me: str, noted: Mechanism | None) -> None:
    setup, state = setup_of(steps=(Halving(),)), {}
    opened = Opened(np.full(LAYOUT.size, 240.0), ("silo-2", "silo-0"))  # weights 30 and 10
    after = setup.applied(me, 2, opened, START, state)
    np.testing.assert_allclose(after, START + (240 + 120) / 40 / 2)
    assert setup.recorder.sums == {(2, ("silo-0", "silo-2")): noted}
    assert state.keys() == {"steps/step-0/seen"}


@given(
    st.lists(st.integers(-7, 7), min_size=1, max_size=5),
    st.integers(1, 100),
    st.none() | st.floats(0.1, 10),
    st.booleans(),
    st.booleans(),
)
def test_an_update_is_read_as_it_was_saved(
    values: list[int], weight: int, bound: float | None, whole: bool, sparse: bool
) -> None:
    layout = Layout(("a",), ((9,),)) if sparse else Layout(("a",), ((len(values),),))
    support = np.arange(len(values)) * 2 if sparse else None
    array = np.array(values, np.int64 if whole else np.float32)
    update = Update(array, layout, weight, Grid(4, 1.5) if whole else None, support, bound)
    state: State = {}
    save_update(state, update, 5)
    found = load_update(state, layout, 5)
    assert found is not None
    np.testing.assert_array_equal(found.values, array)
    assert (found.weight, found.grid, found.norm_bound, found.layout) == (weight, update.grid, bound, layout)
    assert (found.support is None) if support is None else np.array_equal(found.support, support)  # type: ignore[arg-type]


def test_an_update_of_another_round_is_nothing_to_contribute() -> None:
    state: State = {"keys/pad": np.zeros(1)}
    assert load_update(state, LAYOUT, 0) is None
    save_update(state, Update(START, LAYOUT), 1)
    assert load_update(state, LAYOUT, 0) is None
    assert load_update(state, LAYOUT, 2) is None
    assert load_update(state, LAYOUT, 1) is not None
    drop_update(state)
    assert state.keys() == {"keys/pad"}
    assert load_update(state, LAYOUT, 1) is None


@given(st.dictionaries(st.sampled_from(["a", "a/own/b", "own/a", "own/b", "ownx", "own"]), st.integers(0, 9)))
def test_a_part_sees_what_is_under_its_prefix_and_nothing_else(held: dict[str, int]) -> None:
    state: State = {key: np.array(value) for key, value in held.items()}
    part = Prefixed(state, "own/")
    mine = {key.removeprefix("own/"): value for key, value in held.items() if key.startswith("own/")}
    assert {key: int(value) for key, value in part.items()} == mine
    assert len(part) == len(mine)
    part["new"] = np.array(5)
    assert int(state["own/new"]) == 5
    del part["new"]
    assert state.keys() == held.keys()
    with pytest.raises(KeyError):
        part["missing"]
