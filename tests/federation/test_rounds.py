"""The protocol: what is summed, who is away, what survives an interruption."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError, UsageError
from bench.core.frames import decode_adapter, decode_frame
from bench.core.parties import PUBLIC
from bench.core.streams import SecretStreams
from bench.core.update import Form, Update
from bench.defense.channel import Desk
from bench.defense.compose import Defense
from bench.defense.defaults.mean import Mean
from bench.defense.defaults.plain import PlainChannel
from bench.defense.public import Public
from bench.federation.rounds import Federation
from bench.spec.run import Dropout, FederationSpec
from bench.transcript.traffic import traffic
from bench.transcript.transcript import Transcript
from tests.federation.fakes import LAYOUT, DrawnTrainer, drawn, make_setup, run


class PadChannel(PlainChannel):
    """One-time pad dealt to the silos, who open the sum: exercises dealer, keys and the silos' opening.

    Each upload is float32 plus an additive pad of float64 known to every silo; no security is claimed.
    """

    opener = "silos"
    dealt = True

    def keys(self, public: Public, secret: SecretStreams) -> Mapping[str, Mapping[str, bytes]]:
        pad = secret.token("pad")
        return {silo: {"pad": pad} for silo in public.silos}

    def _pad(self, keys: Mapping[str, bytes], count: int) -> NDArray[np.float64]:
        seed = int.from_bytes(keys["pad"], "little")
        return np.random.default_rng(seed).normal(size=LAYOUT.size) * count

    def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
        sealed = Update((update.values + self._pad(keys, 1)).astype(np.float32), update.layout)
        return super().seal(sealed, keys, secret, round)

    def open(self, frames: Iterator[bytes], keys: Mapping[str, bytes], form: Form, count: int) -> NDArray[np.floating]:
        return super().open(frames, keys, form, count) - self._pad(keys, max(count, 1))


CHANNELS = {"plain": PlainChannel, "pad": PadChannel}


def defense(channel: str, aggregator: Mean | None = None) -> Defense:
    return Defense(trainer=DrawnTrainer(), channel=CHANNELS[channel](), aggregator=aggregator)


def expected(setup: Any, rounds: Iterable[Iterable[int]]) -> NDArray[np.float64]:
    """Weighted FedAvg by hand: global += sum(w_i * update_i) / sum(w_i) over the silos that uploaded."""
    values = setup.initial.astype(np.float64)
    for round, silos in enumerate(rounds):
        weights = {i: setup.public.weights[f"silo-{i}"] for i in silos}
        if weights:
            total = sum(weights[i] * drawn(0, i, round).astype(np.float64) for i in weights)
            values = values + total / sum(weights.values())
    return values


@pytest.mark.parametrize("channel", sorted(CHANNELS))
@pytest.mark.parametrize("aggregator", [Mean(), Mean(weighted=False), Mean(weighted=False, of="weights")])
def test_global_adapter_is_fedavg(tmp_path: Path, channel: str, aggregator: Mean) -> None:
    setup = make_setup(FederationSpec(silos=3, rounds=3), defense(channel, aggregator))
    transcript = run(tmp_path, setup)
    np.testing.assert_allclose(transcript.final_adapter(), expected(setup, [[0, 1, 2]] * 3), atol=5e-5)


@pytest.mark.parametrize("channel", sorted(CHANNELS))
@pytest.mark.parametrize("stage", ["train", "upload"])
def test_a_silo_that_drops_out_before_the_upload_is_not_summed(tmp_path: Path, channel: str, stage: str) -> None:
    away = (Dropout(round=1, silo=2, stage=stage),)
    setup = make_setup(FederationSpec(silos=3, rounds=3, dropouts=away), defense(channel))
    transcript = run(tmp_path, setup)
    np.testing.assert_allclose(transcript.final_adapter(), expected(setup, [[0, 1, 2], [0, 1], [0, 1, 2]]), atol=5e-5)
    sent = {(m.round, m.sender) for m in transcript.messages() if m.stage == "upload"}
    assert (1, "silo-2") not in sent
    assert len(sent) == 8


def test_a_silo_away_while_sums_are_opened_catches_up_from_its_mailbox(tmp_path: Path) -> None:
    away = (Dropout(round=0, silo=1, stage="open"), Dropout(round=1, silo=1, stage="train"))
    setup = make_setup(FederationSpec(silos=3, rounds=3, dropouts=away), defense("pad"))
    transcript = run(tmp_path, setup)
    # silo 1 missed two sums; what it uploads in round 2 starts from the same global adapter as the others'
    np.testing.assert_allclose(transcript.final_adapter(), expected(setup, [[0, 1, 2], [0, 2], [0, 1, 2]]), atol=5e-5)


def test_all_silos_away_leaves_the_adapter_as_it_was(tmp_path: Path) -> None:
    away = tuple(Dropout(round=1, silo=i, stage="train") for i in range(2))
    setup = make_setup(FederationSpec(silos=2, rounds=3, dropouts=away))
    transcript = run(tmp_path, setup)
    np.testing.assert_allclose(transcript.final_adapter(), expected(setup, [[0, 1], [], [0, 1]]), atol=5e-5)


def test_an_unknown_stage_of_a_dropout_is_refused(tmp_path: Path) -> None:
    setup = make_setup(FederationSpec(silos=2, rounds=1, dropouts=(Dropout(round=0, silo=0, stage="lunch"),)))
    with pytest.raises(UsageError, match=r"'lunch'.*broadcast, train, upload, sum, release"):
        run(tmp_path, setup)


@pytest.mark.parametrize("channel", sorted(CHANNELS))
def test_client_sampling_follows_the_public_schedule(tmp_path: Path, channel: str) -> None:
    setup = make_setup(FederationSpec(silos=5, rounds=4, client_fraction=0.5), defense(channel))
    transcript = run(tmp_path, setup)
    schedule = [[int(s.split("-")[1]) for s in names] for names in setup.public.participants]
    assert {len(names) for names in schedule} == {3}
    assert len({tuple(names) for names in schedule}) > 1
    np.testing.assert_allclose(transcript.final_adapter(), expected(setup, schedule), atol=5e-5)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


class DyingTrainer(DrawnTrainer):
    """Dies at one silo's step of one round, the first time."""

    def __init__(self) -> None:
        self.armed = True

    def train(self, job: Any) -> Any:
        if self.armed and job.round == 2:
            self.armed = False
            raise Killed
        return super().train(job)


@pytest.mark.parametrize("channel", sorted(CHANNELS))
def test_an_interrupted_run_goes_on_without_redrawing_a_finished_round(tmp_path: Path, channel: str) -> None:
    trainer = DyingTrainer()
    setup = make_setup(
        FederationSpec(silos=3, rounds=4, dropouts=(Dropout(round=1, silo=0, stage="sum"),)),
        Defense(trainer=trainer, channel=CHANNELS[channel]()),
    )
    with pytest.raises(Killed):
        run(tmp_path, setup)
    before = {p: p.read_bytes() for p in sorted((tmp_path / "rounds").rglob("*")) if p.is_file()}
    assert Transcript(tmp_path).committed() == 1
    assert not list(tmp_path.rglob("*.partial"))
    transcript = run(tmp_path, setup)
    assert all(p.read_bytes() == raw for p, raw in before.items())
    np.testing.assert_allclose(transcript.final_adapter(), expected(setup, [[0, 1, 2]] * 4), atol=5e-5)


def test_a_second_run_of_a_finished_transcript_trains_nothing(tmp_path: Path) -> None:
    setup = make_setup(FederationSpec(silos=2, rounds=2))
    run(tmp_path, setup)
    setup.parts = make_setup(FederationSpec(silos=2, rounds=2), Defense(trainer=DyingTrainer())).parts
    run(tmp_path, setup)


@pytest.mark.parametrize(("release", "count"), [("none", 0), ("final", 1), ("every-round", 3)])
@pytest.mark.parametrize("channel", sorted(CHANNELS))
def test_release(tmp_path: Path, channel: str, release: Any, count: int) -> None:
    setup = make_setup(FederationSpec(silos=2, rounds=3, release=release), defense(channel))
    transcript = run(tmp_path, setup)
    public = [m for m in transcript.messages() if PUBLIC in m.receivers]
    assert len(public) == count
    for message in public:
        released = decode_adapter(message.frames(), LAYOUT.size)
        np.testing.assert_array_equal(released, transcript.truth(message.round, "adapter"))


def released_values(transcript: Transcript) -> list[NDArray[Any]]:
    public = [m for m in transcript.messages() if PUBLIC in m.receivers]
    return [np.concatenate([decode_frame(f) for f in m.frames()]) for m in public]


@pytest.mark.parametrize("channel", sorted(CHANNELS))
def test_a_float64_release_carries_the_average_as_it_was_computed(tmp_path: Path, channel: str) -> None:
    federation = FederationSpec(silos=3, rounds=3, release="every-round", release_precision="float64")
    whole = run(tmp_path / "whole", make_setup(federation, defense(channel)))
    adapters = [whole.initial_adapter(), *(whole.truth(r, "adapter") for r in range(3))]
    for round, sent in enumerate(released_values(whole)):
        # the opener's own arithmetic, in float64, on what the channel opened
        summands = [whole.truth(round, f"silo-{i}") for i in range(3)]
        mean = np.sum(np.asarray(summands, np.float64), axis=0) / 60
        np.testing.assert_allclose(sent, adapters[round] + mean, atol=1e-12 if channel == "plain" else 1e-6)
        assert sent.dtype == np.float64
        assert (sent != sent.astype(np.float32)).mean() > 0.9
        # whoever trains on goes on in float32
        np.testing.assert_array_equal(sent.astype(np.float32), adapters[round + 1])

    # the same after an interruption: what is to be released belongs to the releaser's stored state
    cut = tmp_path / "cut"
    setup = make_setup(federation, defense(channel))
    transcript = Transcript.create(cut, setup.public, setup.initial, {})
    with pytest.raises(RuntimeError, match="stop"):
        Federation(setup, transcript).run(on_round=_stop_after_the_second)
    again = run(cut, make_setup(federation, defense(channel)))
    for sent, first in zip(released_values(again), released_values(whole), strict=True):
        np.testing.assert_allclose(sent, first, atol=1e-12 if channel == "plain" else 1e-6)


def _stop_after_the_second(round: int) -> None:
    if round == 1:
        raise RuntimeError("stop")


def test_bytes_are_those_of_the_messages(tmp_path: Path) -> None:
    setup = make_setup(FederationSpec(silos=3, rounds=2))
    transcript = run(tmp_path, setup)
    frame = 16 + 4 * LAYOUT.size
    cost = traffic(transcript.messages(), 3, 2)
    sealed = len(Form(LAYOUT).header()) + frame
    assert cost["up_bytes"] == {"upload": 6 * sealed}
    assert cost["down_bytes"] == {"broadcast": 6 * frame}
    assert cost["released_bytes"] == frame
    assert cost["setup_bytes"] == 0
    assert (cost["up_per_silo_round"], cost["down_per_silo_round"]) == (sealed, frame)


def test_a_dealer_s_keys_and_the_sums_sent_to_silos_are_counted(tmp_path: Path) -> None:
    setup = make_setup(FederationSpec(silos=3, rounds=2), defense("pad"))
    transcript = run(tmp_path, setup)
    cost = traffic(transcript.messages(), 3, 2)
    assert cost["setup_bytes"] == 3 * (len(json.dumps(["pad"])) + 32)
    header = len(json.dumps(["silo-0", "silo-1", "silo-2"])) + len(Form(LAYOUT).header())
    assert cost["down_bytes"]["sum"] == 3 * 2 * (header + 16 + 8 * LAYOUT.size)
    assert cost["down_bytes"]["broadcast"] == 3 * (16 + 4 * LAYOUT.size)


def test_a_budget_thins_middle_rounds_and_says_so(tmp_path: Path) -> None:
    setup = make_setup(FederationSpec(silos=3, rounds=5))
    transcript = Transcript.create(tmp_path, setup.public, setup.initial, {})
    Federation(setup, transcript, budget=1).run()
    thinned = {m.round for m in transcript.messages() if m.thinned}
    assert thinned == {1, 2, 3}
    kept = [m for m in transcript.messages() if not m.thinned]
    assert all(list(m.frames()) for m in kept)
    with pytest.raises(SiloBenchError, match="disk budget"):
        next(m for m in transcript.messages() if m.thinned).frame(0)


class TwiceChannel(PlainChannel):
    """Names a silo twice in what it sends: a server must refuse to sum it twice."""

    def endpoint(self, desk: Desk) -> Any:
        endpoint = super().endpoint(desk)
        if desk.me == "silo-0":
            step = endpoint.step
            endpoint.step = lambda *a: [*step(*a), *type(endpoint).step(endpoint, *a)]  # type: ignore[method-assign]
        return endpoint


def test_a_silo_that_uploads_twice_is_refused(tmp_path: Path) -> None:
    setup = make_setup(FederationSpec(silos=2, rounds=1), Defense(trainer=DrawnTrainer(), channel=TwiceChannel()))
    with pytest.raises(SiloBenchError, match="uploaded twice in round 0"):
        run(tmp_path, setup)
