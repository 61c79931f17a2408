"""The server and the dealer, step by step: to whom it broadcasts, what it sums and applies, what it trains on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.attack.behaviour import Forged
from bench.core.errors import SiloBenchError
from bench.core.frames import decode_adapter, decode_frame, encode_adapter
from bench.core.parties import DEALER, PUBLIC, SERVER
from bench.core.records import encode_records
from bench.core.streams import SecretStreams
from bench.core.tokens import Tokens
from bench.core.update import Form
from bench.defense.aggregator import ServerStep
from bench.defense.channel import Channel, Outgoing
from bench.defense.compose import Defense
from bench.defense.defaults.plain import PlainChannel
from bench.defense.parts import Mechanism, Training, TrainJob
from bench.defense.public import Public
from bench.defense.sum_channel import pack_keys
from bench.federation.server import Dealer, Server
from bench.federation.setup import Setup
from bench.spec.run import FederationSpec, LocalSpec
from defenses.channels.pooling import Pooling
from tests.federation.fakes import LAYOUT, DrawnTrainer, make_setup

State = dict[str, NDArray[Any]]
SIZE = LAYOUT.size


def setup_of(channel: Channel | None = None, trainer: Any = None, **options: Any) -> Setup:
    defense = Defense(trainer=trainer or DrawnTrainer(), channel=channel)
    return make_setup(FederationSpec(**{"silos": 3, "rounds": 4, **options}), defense)


def step(setup: Setup, state: State, stage: str, *inbox: Forged, round: int = 0, party: Any = Server) -> list[Forged]:
    me = DEALER if party is Dealer else SERVER
    sent = party(me, setup, state).step(stage, round, inbox)
    return [Forged(round, stage, me, one.receivers, tuple(one.frames)) for one in sent]


def upload(silo: str, values: float, round: int = 0) -> Forged:
    frames = encode_adapter(np.full(SIZE, values, np.float32))
    return Forged(round, "upload", silo, (SERVER,), (Form(LAYOUT).header(), *frames))


# -- broadcasts ----------------------------------------------------------------------------------------------------


def test_a_server_that_opens_sums_sends_each_round_s_adapter_to_its_participants() -> None:
    setup = setup_of(client_fraction=0.5)
    for round in range(4):
        (sent,) = step(setup, {}, "broadcast", round=round)
        assert sent.receivers == setup.public.participants[round]
        assert len(sent.receivers) == 2
        np.testing.assert_array_equal(decode_adapter(sent.frames(), SIZE), setup.initial)
    assert len(set(setup.public.participants)) > 1


def test_where_silos_open_sums_the_start_goes_to_all_of_them_and_nothing_after() -> None:
    setup = setup_of(PlainChannel("silos"), client_fraction=0.5)
    (sent,) = step(setup, {}, "broadcast")
    assert sent.receivers == ("silo-0", "silo-1", "silo-2")
    assert step(setup, {}, "broadcast", round=1) == []


def test_a_broadcast_carries_the_newest_adapter_as_float32_whatever_releases_carry() -> None:
    setup = setup_of(release_precision="float16")
    (sent,) = step(setup, {"global/values": np.full(SIZE, 0.1, np.float32)}, "broadcast")
    frame = decode_frame(sent.frame(0))
    assert frame.dtype == np.float32
    np.testing.assert_array_equal(frame, np.full(SIZE, 0.1, np.float32))


# -- sums ----------------------------------------------------------------------------------------------------------


def test_a_sum_is_applied_to_the_adapter_and_kept_for_the_next_round() -> None:
    setup, state = setup_of(), {}
    assert step(setup, state, "sum", upload("silo-0", 20.0, 2), upload("silo-2", 60.0, 2), round=2) == []
    np.testing.assert_allclose(state["global/values"], setup.initial + 80 / (10 + 30), atol=1e-6)
    assert int(state["global/round"]) == 3
    assert setup.recorder.sums == {(2, ("silo-0", "silo-2")): None}
    # the next sum starts from there
    step(setup, state, "sum", upload("silo-1", 20.0, 3), round=3)
    np.testing.assert_allclose(state["global/values"], setup.initial + 80 / 40 + 20 / 20, atol=1e-6)
    assert {"channel:sum", "aggregate"} <= set(setup.meter.phases)


def test_no_upload_leaves_the_adapter_as_it_was() -> None:
    setup, state = setup_of(), {}
    assert step(setup, state, "sum") == []
    assert state == {}


def test_the_noise_of_a_server_that_opens_is_noted() -> None:
    noise = Mechanism("gaussian", {"sigma": 2.0})

    class Noisy(ServerStep):
        def randomise(self, total: NDArray[np.floating], context: Any) -> tuple[NDArray[np.floating], Mechanism]:
            return total + 30, noise

    setup = make_setup(FederationSpec(silos=3, rounds=1), Defense(trainer=DrawnTrainer(), steps=(Noisy(),)))
    state: State = {}
    step(setup, state, "sum", upload("silo-2", 0.0))
    np.testing.assert_allclose(state["global/values"], setup.initial + 1, atol=1e-6)
    assert setup.recorder.sums == {(0, ("silo-2",)): noise}


def test_where_silos_open_the_server_relays_the_sum_and_holds_no_new_adapter() -> None:
    setup, state = setup_of(PlainChannel("silos")), {}
    (sent,) = step(setup, state, "sum", upload("silo-0", 1.0), upload("silo-1", 2.0))
    assert sent.receivers == ("silo-0", "silo-1", "silo-2")
    np.testing.assert_array_equal(decode_frame(sent.frame(2)), np.full(SIZE, 3.0))
    assert state == {}


# -- releases ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "expected"),
    [({}, None), ({"global/values": 0.5}, 0.5), ({"global/values": 0.5, "global/exact": 0.7}, 0.7)],
)
def test_the_release_is_what_was_computed_last_or_the_start(held: dict[str, float], expected: float | None) -> None:
    setup = setup_of(release_precision="float64")
    state: State = {key: np.full(SIZE, value) for key, value in held.items()}
    (sent,) = step(setup, state, "release")
    assert sent.receivers == (PUBLIC,)
    frame = decode_frame(sent.frame(0))
    assert frame.dtype == np.float64
    np.testing.assert_array_equal(frame, setup.initial if expected is None else np.full(SIZE, expected))


# -- a server that trains ------------------------------------------------------------------------------------------


class Sees(DrawnTrainer):
    """Notes what it is given to train on."""

    def __init__(self) -> None:
        self.jobs: list[TrainJob] = []

    def train(self, job: TrainJob) -> Training:
        self.jobs.append(job)
        job.state["steps"] = np.array(1)
        return super().train(job)


def tokens(*ids: int) -> Tokens:
    predicted = np.arange(len(ids)) > 0
    return Tokens(np.array([ids], np.int32), np.array([len(ids)], np.int32), predicted[None], np.array([-1], np.int32))


def handed(silo: str, *ids: int) -> Forged:
    return Forged(-1, "records", silo, (SERVER,), tuple(encode_records(tokens(*ids), 50)))


def pooled() -> tuple[Setup, Sees]:
    trainer = Sees()
    setup = setup_of(Pooling(), trainer, local=LocalSpec(lr=1.0, lr_schedule="linear"))
    setup.model.vocab_size = 50
    return setup, trainer


def test_a_server_that_trains_takes_all_records_that_it_was_handed_and_no_more() -> None:
    (setup, trainer), state = pooled(), {}
    # what waits for it belongs to the channel, in its own stages too; silo-1 handed over nothing
    assert step(setup, state, "train", handed("silo-2", 7, 8, 9), handed("silo-0", 1, 2), round=1) == []
    (job,) = trainer.jobs
    np.testing.assert_array_equal(job.tokens.ids, [[1, 2, 0], [7, 8, 9]])
    np.testing.assert_array_equal(job.tokens.lengths, [2, 3])
    assert (job.nominal_size, job.round, job.rounds, job.lr) == (10 + 30, 1, 4, 0.75)
    assert job.secret.owner == "server/0"
    drawn = setup.streams.generator("server", 1).normal(size=SIZE).astype(np.float32)
    np.testing.assert_array_equal(state["global/values"], setup.initial + drawn)
    assert int(state["global/round"]) == 2
    assert int(state["trainer/steps"]) == 1
    assert list(setup.recorder.training) == [SERVER]
    assert "channel:catch-up" in setup.meter.phases


def test_a_server_that_was_handed_nothing_says_so() -> None:
    with pytest.raises(SiloBenchError, match="no silo has handed over its records"):
        step(pooled()[0], {}, "train")


def test_records_of_another_vocabulary_are_refused() -> None:
    setup, _ = pooled()
    setup.model.vocab_size = 51
    with pytest.raises(SiloBenchError, match="ids of 50 tokens, and the model has 51"):
        step(setup, {}, "train", handed("silo-0", 1, 2))


# -- keys ----------------------------------------------------------------------------------------------------------


class Dealt(PlainChannel):
    """The server and the silos get a key each, the silos the same one."""

    dealt = True

    def keys(self, public: Public, secret: SecretStreams) -> Mapping[str, Mapping[str, bytes]]:
        return {"server": {"own": b"s"}, **{silo: {"pad": secret.token("pad", size=2)} for silo in public.silos}}


def test_a_dealer_hands_out_keys_and_keeps_a_copy() -> None:
    setup, state = setup_of(Dealt()), {}
    setup.secret_seed = 3
    pad = SecretStreams("dealer/0", 3).token("pad", size=2)
    sent = step(setup, state, "keys", round=-1, party=Dealer)
    assert [(one.receivers, one.held) for one in sent] == [
        (("server",), (b'["own"]', b"s")),
        (("silo-0", "silo-1", "silo-2"), (b'["pad"]', pad)),
    ]
    assert {key: value.tobytes() for key, value in state.items()} == {"keys/group-0/own": b"s", "keys/group-1/pad": pad}
    assert list(setup.meter.phases) == ["channel:keys"]


@pytest.mark.parametrize("stage", ["broadcast", "sum", "release"])
def test_keys_that_wait_for_the_server_are_taken_in_whatever_stage_comes_first(stage: str) -> None:
    setup, state = setup_of(Dealt()), {}
    message = Outgoing((SERVER,), pack_keys({"own": b"s"}))
    step(setup, state, stage, Forged(-1, "keys", DEALER, message.receivers, tuple(message.frames)))
    assert {key: value.tobytes() for key, value in state.items()} == {"keys/own": b"s"}
