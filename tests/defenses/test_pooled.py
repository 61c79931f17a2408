"""Pooling: the server trains on what the silos really sent, reads it, and is seen to; and what it can't go with."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from attacks import lookup
from bench.conformance.fixtures import some_tokens
from bench.core.adversaries import assignments
from bench.core.errors import UsageError
from bench.core.parties import PUBLIC, SERVER
from bench.core.records import decode_records, encode_records, joined
from bench.core.streams import Streams
from bench.core.tokens import Tokens
from bench.defense.compose import compose, fill
from bench.defense.defaults.trainer import GradientTrainer
from bench.defense.parts import Training, TrainJob
from bench.defense.public import alike
from bench.federation.rounds import Federation
from bench.spec.run import FederationSpec, LocalSpec
from bench.transcript.notes import logged_mechanisms, opened_sums
from bench.transcript.traffic import traffic
from bench.transcript.transcript import Transcript
from bench.view.build import build
from bench.view.openers.base import Traits
from bench.view.openers.distinguish import traits
from defenses import ckks, dp_sgd, early_stop, local, pooled, scrub, secagg, top_k
from tests.defenses.training_play import some_tokens as real_tokens
from tests.defenses.training_play import start, tiny
from tests.federation import fakes

SILOS = ("silo-0", "silo-1", "silo-2")
SPEC = FederationSpec(silos=3, rounds=3, release="final")


class Sees(fakes.DrawnTrainer):
    """Notes what it is given to train on."""

    def __init__(self) -> None:
        self.jobs: list[TrainJob] = []

    def train(self, job: TrainJob) -> Training:
        self.jobs.append(job)
        return super().train(job)


def play(root: Path, spec: FederationSpec = SPEC) -> tuple[Transcript, Sees]:
    trainer = Sees()
    setup = fakes.make_setup(spec, replace(pooled.build(pooled.Config()), trainer=trainer))
    setup.model.vocab_size = 100
    setup.tokens = some_tokens
    return fakes.run(root, setup), trainer


def test_each_silo_sends_its_records_once_and_the_server_trains_on_all(tmp_path: Path) -> None:
    transcript, trainer = play(tmp_path)
    sent = {m.sender: m for m in transcript.messages() if m.sender != SERVER}
    assert set(sent) == set(SILOS)
    for name, message in sent.items():
        assert (message.round, message.receivers) == (-1, (SERVER,))
        assert decode_records(message.frames(), 100).digest == some_tokens(name).digest
    together = joined([some_tokens(name) for name in SILOS])
    assert [job.tokens.digest for job in trainer.jobs] == [together.digest] * 3
    assert [job.nominal_size for job in trainer.jobs] == [10 + 20 + 30] * 3


def test_the_model_is_the_server_s_and_everybody_gets_it(tmp_path: Path) -> None:
    transcript, _ = play(tmp_path)
    values = transcript.initial_adapter()
    for round in range(3):
        drawn = Streams(0).generator("server", round).normal(size=fakes.LAYOUT.size).astype(np.float32)
        values = values + drawn
        np.testing.assert_allclose(transcript.truth(round, "adapter"), values, atol=1e-6)
        assert transcript.truth(round, "silo-0") is None
    cost = traffic(transcript.messages(), 3, 3)
    records = sum(len(frame) for name in SILOS for frame in encode_records(some_tokens(name), 100))
    assert cost["setup_bytes"] == records
    assert cost["up_bytes"] == {}
    assert cost["down_bytes"]["broadcast"] == 9 * (16 + 4 * fakes.LAYOUT.size)
    assert sum(PUBLIC in m.receivers for m in transcript.messages()) == 1


def test_an_interrupted_run_asks_for_no_records_again(tmp_path: Path) -> None:
    transcript, trainer = play(tmp_path)
    before = [m.size for m in transcript.messages([-1])]
    setup = fakes.make_setup(SPEC, replace(pooled.build(pooled.Config()), trainer=trainer))
    setup.model.vocab_size = 100
    setup.tokens = lambda name: pytest.fail("the records are asked for again")
    Federation(setup, transcript).run()
    assert [m.size for m in transcript.messages([-1])] == before
    assert len(trainer.jobs) == 3


def test_who_sees_the_records(tmp_path: Path) -> None:
    """The server all; with it a silo, all but its own; a silo and an outsider none. Nothing passes for a sum."""
    transcript, _ = play(tmp_path / "run")
    parts = fill(pooled.build(pooled.Config()))
    assert traits(parts.channel, transcript.public) == Traits()  # no updates that could be told apart
    for adversary in ("outsider", "silo", "server", "server+silo", "all-but-one"):
        one = assignments(adversary, SILOS)[0]
        view = build(transcript, parts, adversary, one, tmp_path / adversary)
        read = {silo: r.values for r in view.readings if r.kind == "records" for silo in r.silos}
        assert set(read) == (set(SILOS) - one.coalition if SERVER in one.coalition else set())
        assert set(lookup.records_read(view)) == set(read)
        for name, ids in read.items():
            held = some_tokens(name)
            assert [row[row >= 0].tolist() for row in ids] == [
                row[:n].tolist() for row, n in zip(held.ids, held.lengths, strict=True)
            ]
        assert {r.kind for r in view.readings} <= {"records", "adapter", "query", "metadata"}


def test_nothing_is_logged_for_silos_and_no_sum_is_opened(tmp_path: Path) -> None:
    transcript, _ = play(tmp_path)
    assert all(not found for found in logged_mechanisms(transcript).values())
    assert opened_sums(transcript) == ()


def test_on_the_model_a_round_is_plain_training_on_the_records_together() -> None:
    """The real trainer at the real server, against the same trainer called by hand."""
    import tempfile

    model, tokens = tiny(), {name: real_tokens(4, seed=i) for i, name in enumerate(SILOS)}
    spec = FederationSpec(silos=3, rounds=1, local=LocalSpec(epochs=2, batch=4))
    setup = fakes.make_setup(spec, pooled.build(pooled.Config()))
    setup.public = replace(setup.public, layouts=alike(model.layout))
    setup.model, setup.initial, setup.tokens = model, start(), tokens.__getitem__
    with tempfile.TemporaryDirectory() as folder:
        found = fakes.run(Path(folder), setup).final_adapter()
        model.set_adapter(start())
        job = TrainJob(
            model, joined(list(tokens.values())), spec.local, spec.local.lr, 0, 1, 60,
            Streams(0).generator("server", 0), setup.secret(SERVER), {},
        )  # fmt: skip
        GradientTrainer().train(job)
    np.testing.assert_array_equal(found, model.get_adapter())
    assert not np.array_equal(found, start())


@pytest.mark.parametrize("other", [ckks, secagg, local])
def test_two_channels_are_refused(other) -> None:
    with pytest.raises(UsageError, match="each brings its own"):
        compose([("pooled", pooled.build(pooled.Config())), ("other", other.build(other.Config()))])


def test_what_works_on_updates_or_promises_something_is_refused_and_the_rest_goes() -> None:
    here = pooled.build(pooled.Config())
    with pytest.raises(UsageError, match="TopK works on updates"):
        fill(compose([("top-k", top_k.build(top_k.Config())), ("pooled", here)]))
    with pytest.raises(UsageError, match="DPSGD promises something"):
        fill(compose([("dp-sgd", dp_sgd.build(dp_sgd.Config())), ("pooled", here)]))
    for kept in (early_stop.build(early_stop.Config()), scrub.build(scrub.Config())):
        fill(compose([("kept", kept), ("pooled", here)]))


def test_looking_finds_members_and_half_finds_others() -> None:
    ids = np.array([[1, 2, 3, 3], [1, 2, 4, 0], [5, 6, 7, 8]], np.int32)
    lengths = np.array([4, 3, 4], np.int32)
    tokens = Tokens(ids, lengths, ids > 0, np.full(3, -1, np.int32))
    from bench.attack.attack import Candidates

    asked = Candidates(("c0", "c1", "c2"), ("silo-0", "silo-0", "silo-1"), ("", "", ""), tokens)
    held = {"silo-0": [Counter([3, 3, 2, 1]), Counter([9])]}
    np.testing.assert_allclose(lookup.overlap(asked, held), [1, 2 / 3, 0])
