"""One silo, step by step: what it receives, trains, protects, keeps and sends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.attack.behaviour import Forged
from bench.core.errors import SiloBenchError
from bench.core.frames import decode_adapter, decode_frame, encode_adapter
from bench.core.meter import Meter
from bench.core.parties import PUBLIC, SERVER
from bench.core.update import Layout, Update
from bench.defense.aggregator import Plan
from bench.defense.channel import Channel, Desk, Outgoing
from bench.defense.compose import Defense
from bench.defense.contexts import RoundContext, TransformContext
from bench.defense.defaults.mean import Mean
from bench.defense.defaults.plain import PlainChannel
from bench.defense.flow import Flow
from bench.defense.parts import Mechanism, Trainer, Training, TrainJob, Transform
from bench.federation.setup import Setup
from bench.federation.silo import Silo, metered
from bench.spec.run import FederationSpec, LocalSpec
from tests.federation.fakes import LAYOUT, DrawnTrainer, drawn, make_setup

START = np.linspace(-1, 1, LAYOUT.size, dtype=np.float32)
State = dict[str, NDArray[Any]]


class Adds(Trainer):
    """Adds ``change`` to every value, and notes its jobs."""

    def __init__(self, change: float = 1.0) -> None:
        self.change, self.jobs = change, []

    def train(self, job: TrainJob) -> Training:
        self.jobs.append(job)
        job.state["seen"] = np.array(job.round)
        job.model.set_adapter(job.model.get_adapter() + np.float32(self.change))
        return Training(1, 7, (1.0,), ((0,),), (Mechanism("trained", {}),))


class Times(Transform):
    """Multiplies the update, states a bound, and says so."""

    def __init__(self, factor: float, bound: float | None = None) -> None:
        self.factor, self.bound = factor, bound

    def mechanism(self, update: Update, context: RoundContext) -> Mechanism:
        return Mechanism("times", {"factor": self.factor, "handed": float(update.values[0])})

    def apply(self, update: Update, context: TransformContext) -> Update:
        context.state["handed"] = update.values
        return replace(update, values=update.values * np.float32(self.factor), norm_bound=self.bound)


class Whole(Times):
    """Rounds to integers of 8 bits."""

    def follow(self, flow: Flow) -> Flow:
        return flow.taken(self, "real").on_grid()

    def apply(self, update: Update, context: TransformContext) -> Update:
        from bench.core.update import Grid

        context.state["handed"] = update.values
        return replace(update, values=np.rint(update.values).astype(np.int64), grid=Grid(8, 127.0), norm_bound=None)


def setup_of(
    trainer: Trainer | None = None, *transforms: Transform, channel: Channel | None = None, **options: Any
) -> Setup:
    defense = Defense(trainer=trainer or DrawnTrainer(), transforms=transforms, channel=channel)
    return make_setup(FederationSpec(**{"silos": 3, "rounds": 4, **options}), defense)


def broadcast(values: NDArray[np.floating], round: int = 0) -> Forged:
    return Forged(round, "broadcast", SERVER, ("silo-1",), tuple(encode_adapter(values)))


def step(setup: Setup, state: State, stage: str, *inbox: Forged, round: int = 0) -> list[Forged]:
    """What silo 1 (20 records) sends."""
    sent = Silo("silo-1", setup, state).step(stage, round, inbox)
    return [Forged(round, stage, "silo-1", one.receivers, tuple(one.frames)) for one in sent]


def test_the_newest_adapter_that_was_broadcast_is_the_one_to_start_from() -> None:
    state: State = {}
    step(setup_of(), state, "upload", broadcast(START, 2), broadcast(START * 3, 3), broadcast(START * 2, 1), round=3)
    np.testing.assert_array_equal(state["global/values"], START * 3)
    assert int(state["global/round"]) == 3


def test_an_adapter_of_another_size_is_refused() -> None:
    with pytest.raises(SiloBenchError, match="43 values, expected 44"):
        step(setup_of(), {}, "train", broadcast(START[1:]))


@pytest.mark.parametrize("stage", ["train", "release"])
def test_a_silo_that_was_sent_no_adapter_says_so(stage: str) -> None:
    with pytest.raises(SiloBenchError, match="silo-1 holds no global adapter"):
        step(setup_of(), {}, stage)


def test_a_summand_is_the_weighted_change_and_nothing_is_sent_while_training() -> None:
    setup, state = setup_of(), {}
    assert step(setup, state, "train", broadcast(START)) == []
    summand = np.float32(20) * ((START + drawn(0, 1, 0)) - START)
    np.testing.assert_array_equal(state["update/values"], summand)
    np.testing.assert_array_equal(setup.recorder.summands["silo-1"], summand)
    assert setup.recorder.training["silo-1"] == Training(1, 7, (1.0,), ((0,),))
    assert setup.recorder.bounds == {"silo-1": None}
    assert setup.recorder.own == {}
    (upload,) = step(setup, state, "upload")
    assert upload.receivers == (SERVER,)
    np.testing.assert_array_equal(decode_frame(upload.frame(1)), summand)


def test_what_was_trained_in_another_round_is_not_sent_in_this_one() -> None:
    setup, state = setup_of(), {}
    step(setup, state, "train", broadcast(START))
    assert step(setup, state, "upload", round=1) == []


def test_a_trainer_is_handed_its_silo_s_share_of_the_round() -> None:
    trainer = Adds()
    setup, state = setup_of(trainer, local=LocalSpec(lr=1.0, lr_schedule="linear")), {}
    step(setup, state, "train", broadcast(START), round=3)
    (job,) = trainer.jobs
    assert (job.lr, job.round, job.rounds, job.nominal_size) == (0.25, 3, 4, 20)
    assert job.order.random() == setup.streams.generator("silo", 1, 3).random()
    assert job.secret.owner == "silo-1/0"
    assert int(state["trainer/seen"]) == 3
    np.testing.assert_array_equal(setup.model.get_adapter(), START + 1)


def test_training_that_diverged_is_named_by_silo_and_round() -> None:
    with pytest.raises(SiloBenchError, match="silo-1 diverged in round 2: its update is not finite"):
        step(setup_of(Adds(np.inf)), {}, "train", broadcast(START), round=2)


def test_transforms_act_in_turn_before_the_weight_and_encoders_after_it() -> None:
    setup, state = setup_of(Adds(0.5), Times(2.0), Times(0.4), Whole(1.0)), {}
    step(setup, state, "train", broadcast(np.zeros_like(START)))
    assert [float(state[f"transform-{k}/handed"][0]) for k in range(3)] == pytest.approx([0.5, 1.0, 20 * 0.4])
    np.testing.assert_array_equal(state["update/values"], np.full(44, 8))
    logged = setup.recorder.training["silo-1"].mechanisms
    assert [(m.kind, m.params.get("handed")) for m in logged] == [
        ("trained", None),
        ("times", 0.5),
        ("times", 1.0),
        ("times", pytest.approx(8.0)),
    ]


@pytest.mark.parametrize(
    ("bound", "allowed"), [(None, True), (6.0, True), (5.999998, True), (5.9999, False), (0.0, False)]
)
def test_no_update_above_the_norm_that_it_states_is_sent(bound: float | None, allowed: bool) -> None:
    # 36 values of 1 have norm 6, and 8 are frozen at 0; an unweighted mean keeps the bound
    class Some(Adds):
        def train(self, job: TrainJob) -> Training:
            done = super().train(job)
            job.model.set_adapter(job.model.get_adapter() * (np.arange(44) < 36))
            return done

    defense = Defense(trainer=Some(), transforms=(Times(1.0, bound),), aggregator=Mean(weighted=False))
    setup = make_setup(FederationSpec(silos=3, rounds=1), defense)
    start = broadcast(np.zeros_like(START))
    if allowed:
        step(setup, {}, "train", start)
        assert setup.recorder.bounds == {"silo-1": bound}
    else:
        says = f"silo-1 would send an update of norm 6, above the {bound:g} that it states"
        with pytest.raises(SiloBenchError, match=says):
            step(setup, {}, "train", start)


class Keeps(Transform):
    """Names a support, and sends what it was told to."""

    def __init__(self, named: Sequence[int] | None, sent: Sequence[int] | None) -> None:
        self.named, self.sent = (None if s is None else np.array(s, np.int64) for s in (named, sent))

    def support(self, context: RoundContext) -> NDArray[np.int64] | None:
        return self.named

    def apply(self, update: Update, context: TransformContext) -> Update:
        return update if self.sent is None else update.restricted(self.sent)


@pytest.mark.parametrize(
    ("named", "sent", "allowed"),
    [(None, None, True), ([1, 5], [1, 5], True), ([1, 5], None, False), (None, [1, 5], False), ([1, 5], [1, 6], False)],
)
def test_no_other_coordinates_than_the_public_support_names_are_sent(named: Any, sent: Any, allowed: bool) -> None:
    setup = setup_of(Adds(), Keeps(named, sent))
    if not allowed:
        with pytest.raises(SiloBenchError, match=r"silo-1 would send other coordinates than .* public support names"):
            step(setup, {}, "train", broadcast(START))
        return
    step(setup, {}, "train", broadcast(START))
    assert (None if setup.recorder.support is None else setup.recorder.support.tolist()) == named


def test_nothing_of_a_former_round_s_update_is_left() -> None:
    transform = Keeps([1, 5], [1, 5])
    setup, state = setup_of(Adds(), transform), {}
    step(setup, state, "train", broadcast(START))
    transform.named = transform.sent = None
    step(setup, state, "train", broadcast(START, 1), round=1)
    assert {key for key in state if key.startswith("update/")} == {"update/values", "update/meta"}


def test_values_of_its_own_are_trained_on_and_never_sent() -> None:
    class OwnTail(Mean):
        def plan(self, adapter: Layout, silos: Sequence[str]) -> Plan:
            return Plan(adapter, adapter, personal=np.arange(40, 44))

    defense = Defense(trainer=Adds(), aggregator=OwnTail(weighted=False))
    setup, state = make_setup(FederationSpec(silos=3, rounds=2), defense), {}
    for round in range(2):
        step(setup, state, "train", broadcast(START, round), round=round)
        np.testing.assert_allclose(setup.recorder.own["silo-1"][40:], START[40:] + round + 1)
        np.testing.assert_allclose(setup.recorder.own["silo-1"][:40], START[:40] + 1)
        np.testing.assert_array_equal(state["update/support"], np.arange(40))
        np.testing.assert_allclose(setup.recorder.summands["silo-1"], np.arange(44) < 40, atol=1e-6)


def test_a_silo_that_was_away_opens_what_waits_before_it_trains() -> None:
    setup = setup_of(channel=PlainChannel("silos"))
    state: State = {"global/values": START, "global/round": np.array(0)}
    server: State = {}
    uploads = []
    for name in ("silo-0", "silo-2"):
        own: State = {"global/values": START, "global/round": np.array(0)}
        for stage in ("train", "upload"):
            sent = list(Silo(name, setup, own).step(stage, 0, []))
        uploads.append(Forged(0, "upload", name, (SERVER,), tuple(sent[0].frames)))
    endpoint = setup.parts.channel.endpoint(Desk(SERVER, setup.public, server, setup.secret(SERVER)))
    (total,) = [Forged(0, "sum", SERVER, o.receivers, tuple(o.frames)) for o in endpoint.step("sum", 0, uploads)]

    assert step(setup, state, "train", total, round=1) == []
    mean = (10 * drawn(0, 0, 0).astype(np.float64) + 30 * drawn(0, 2, 0)) / 40
    np.testing.assert_allclose(state["global/values"], START + mean, atol=1e-5)
    assert int(state["global/round"]) == 1
    np.testing.assert_allclose(state["update/values"], 20 * drawn(0, 1, 1), atol=1e-4)
    np.testing.assert_allclose(setup.model.get_adapter(), START + mean + drawn(0, 1, 1), atol=1e-5)
    # others may have taken part in a sum; a silo's own noise in it is nobody else's
    assert setup.recorder.sums == {(0, ("silo-0", "silo-2")): None}


@pytest.mark.parametrize("exact", [True, False])
def test_a_release_is_the_adapter_as_exactly_as_it_is_held(exact: bool) -> None:
    setup = setup_of(release_precision="float64")
    state: State = {"global/values": START}
    if exact:
        state["global/exact"] = START + np.float64(1e-12)
    (sent,) = step(setup, state, "release")
    assert sent.receivers == (PUBLIC,)
    np.testing.assert_array_equal(decode_frame(sent.frame(0)), state["global/exact"] if exact else START)
    np.testing.assert_array_equal(decode_adapter(sent.frames(), 44), START)


def test_phases_are_counted_where_the_work_is_done() -> None:
    setup, state = setup_of(), {}
    step(setup, state, "train", broadcast(START))
    assert {name: phase.calls for name, phase in setup.meter.phases.items()} == {"train": 1, "transform": 1}
    step(setup, state, "upload")
    assert set(setup.meter.phases) == {"train", "transform", "channel:upload"}


def test_frames_are_made_and_counted_when_they_are_asked_for() -> None:
    made: list[int] = []

    def frames() -> Iterator[bytes]:
        for number in range(3):
            made.append(number)
            yield bytes([number])

    setup = setup_of()
    setup.meter = Meter()
    (message,) = metered(setup, "phase", [Outgoing(("silo-0",), frames())])
    assert made == []
    assert setup.meter.phases["phase"].calls == 2  # the message, and that there is no other
    assert list(message.frames) == [b"\0", b"\1", b"\2"]
    assert setup.meter.phases["phase"].calls == 2 + 4
    assert message.receivers == ("silo-0",)
