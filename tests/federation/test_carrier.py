"""How messages reach the parties: each is built anew for every step, and no channel can tell who carries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from bench.attack.behaviour import Forged
from bench.defense.channel import Message, Outgoing
from bench.defense.compose import Defense
from bench.defense.defaults.plain import PlainChannel
from bench.federation.carrier import Carrier, InProcess
from bench.federation.rounds import Federation
from bench.spec.run import FederationSpec
from bench.transcript.transcript import Transcript
from tests.federation.fakes import DrawnTrainer, make_setup, run

HELLO = Forged(3, "broadcast", "server", ("silo-1",), (b"hello",))


class Echo:
    """Sends back what it was told, and notes when it acts."""

    def __init__(self, name: str, acted: list[str]) -> None:
        self.name, self.acted = name, acted

    def step(self, stage: str, round: int, inbox: Sequence[Message]) -> Iterator[Outgoing]:
        self.acted.append(self.name)
        yield Outgoing(("server",), [f"{self.name} {stage} {round}".encode(), *(f for m in inbox for f in m.frames())])


def test_a_party_is_built_anew_for_every_step_and_handed_its_inbox() -> None:
    built: list[str] = []

    def build(name: str) -> Echo:
        built.append(name)
        return Echo(name, [])

    carrier = InProcess(build)
    sent = [list(carrier.deliver("silo-1", stage, 3, [HELLO])) for stage in ("train", "upload")]
    assert built == ["silo-1", "silo-1"]
    assert [one.receivers for messages in sent for one in messages] == [("server",), ("server",)]
    assert [list(one.frames) for messages in sent for one in messages] == [
        [b"silo-1 train 3", b"hello"],
        [b"silo-1 upload 3", b"hello"],
    ]


def test_what_a_party_sends_is_made_when_it_is_asked_for() -> None:
    acted: list[str] = []
    sending = InProcess(lambda name: Echo(name, acted)).deliver("silo-0", "train", 0, [])
    assert acted == []
    list(sending)
    assert acted == ["silo-0"]


class Copying(Carrier):
    """Another way to travel: every message is taken apart, carried as bytes, and put together again."""

    def __init__(self, inner: Carrier) -> None:
        self.inner = inner
        self.delivered: list[tuple[str, str, int, list[str]]] = []

    def deliver(self, party: str, stage: str, round: int, inbox: Sequence[Message]) -> Iterable[Outgoing]:
        self.delivered.append((party, stage, round, [f"{m.stage} of {m.sender}" for m in inbox]))
        for sent in self.inner.deliver(party, stage, round, [Forged.of(message) for message in inbox]):
            yield Outgoing(tuple(sent.receivers), [bytes(bytearray(frame)) for frame in sent.frames])


@pytest.mark.parametrize("opener", ["server", "silos"])
def test_another_carrier_gives_the_same_transcript(tmp_path: Path, opener: str) -> None:
    channel = PlainChannel(opener)  # type: ignore[arg-type]
    setup = make_setup(FederationSpec(silos=2, rounds=1), Defense(trainer=DrawnTrainer(), channel=channel))
    usual = run(tmp_path / "usual", setup)
    other = Transcript.create(tmp_path / "other", setup.public, setup.initial, {})
    federation = Federation(setup, other)
    federation.carrier = carrier = Copying(federation.carrier)
    federation.run()
    sent = [[(m.stage, m.sender, m.receivers, *m.frames()) for m in one.messages()] for one in (usual, other)]
    assert sent[0] == sent[1]
    np.testing.assert_array_equal(usual.final_adapter(), other.final_adapter())
    opening = [("silo-0", "open", 0, ["sum of server"]), ("silo-1", "open", 0, ["sum of server"])]
    assert carrier.delivered == [
        ("server", "broadcast", 0, []),
        ("silo-0", "train", 0, ["broadcast of server"]),
        ("silo-1", "train", 0, ["broadcast of server"]),
        ("silo-0", "upload", 0, []),
        ("silo-1", "upload", 0, []),
        ("server", "sum", 0, ["upload of silo-0", "upload of silo-1"]),
        *(opening if opener == "silos" else []),
        ("server" if opener == "server" else "silo-0", "release", 0, []),
    ]


def test_a_carrier_given_at_the_start_is_the_one_that_is_used(tmp_path: Path) -> None:
    setup = make_setup(FederationSpec(silos=2, rounds=1))
    asked: list[str] = []

    class Silent(Carrier):
        def deliver(self, party: str, stage: str, round: int, inbox: Sequence[Message]) -> Iterable[Outgoing]:
            asked.append(f"{party} {stage}")
            return ()

    transcript = Transcript.create(tmp_path, setup.public, setup.initial, {})
    Federation(setup, transcript, Silent()).run()
    assert asked == [
        "server broadcast",
        *("silo-0 train", "silo-1 train"),
        *("silo-0 upload", "silo-1 upload"),
        "server sum",
        "server release",
    ]
    assert list(transcript.messages()) == []
