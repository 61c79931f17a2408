"""The lattice sum in the real protocol: exact sums, drop-outs, who reads what, bytes, messages that were changed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from bench.conformance.fixtures import LAYOUT, FixedTrainer, Rehearsal, federate, knowledge, random_delta
from bench.conformance.hostile import Altered
from bench.core.adversaries import Assignment
from bench.core.errors import SiloBenchError
from bench.core.parties import SERVER
from bench.defense.channel import Message, Outgoing
from bench.defense.compose import Parts
from bench.defense.defaults.mean import Mean
from bench.federation.carrier import Carrier
from bench.plugins.find import Plugins
from bench.spec.run import Dropout
from bench.view.build import build
from bench.view.view import View
from defenses import rlwe
from defenses.channels.rlwe.channel import LatticeSum
from defenses.channels.rlwe.parameters import DEGREE, choose
from defenses.channels.secagg.policy import Policy

STAGES = ("train", "advertise", "share", "upload", "unmask")


def assert_exact(rehearsal: Rehearsal, rounds: int) -> None:
    """Equal, not close: a step of the grid is a power of two, so that sums of float32 are exact too."""
    assert [round for _, round, _ in rehearsal.sums] == list(range(rounds))
    for _, round, opened in rehearsal.sums:
        np.testing.assert_array_equal(opened.values, rehearsal.expected(round, opened.silos))


@pytest.mark.parametrize("silos", [2, 3, 5, 8])
@pytest.mark.parametrize("setting", ["curious", "active"])
def test_sums_are_exact(silos, setting) -> None:
    rehearsal = federate(LatticeSum(Policy(setting)), silos=silos)
    assert_exact(rehearsal, 2)
    assert all(len(opened.silos) == silos for _, _, opened in rehearsal.sums)


@pytest.mark.parametrize("stage", STAGES)
def test_one_silo_of_three_may_leave_at_any_stage_and_the_sum_is_of_those_who_uploaded(stage) -> None:
    rehearsal = federate(LatticeSum(), rounds=2, dropouts=[Dropout(round=0, silo=1, stage=stage)])
    assert_exact(rehearsal, 2)
    left = ("silo-0", "silo-2") if stage != "unmask" else ("silo-0", "silo-1", "silo-2")
    assert [opened.silos for _, _, opened in rehearsal.sums] == [left, ("silo-0", "silo-1", "silo-2")]


@pytest.mark.parametrize("stage", STAGES)
def test_two_of_three_leaving_stops_it_with_a_sentence(stage) -> None:
    away = [Dropout(round=0, silo=i, stage=stage) for i in (0, 1)]
    with pytest.raises(SiloBenchError, match="only 1 of 3 silos"):
        federate(LatticeSum(), rounds=1, dropouts=away)


def test_an_upload_is_its_header_its_key_and_its_ring_elements() -> None:
    rehearsal = federate(LatticeSum(), rounds=1)
    uploads = [m for m in rehearsal.transcript.messages([0]) if m.stage == "upload"]
    parameters = choose(3, 127)
    for message in uploads:
        header, *rest, signature = message.frames()
        assert json.loads(header)["values"] == LAYOUT.size
        assert [len(f) for f in rest] == [DEGREE * parameters.key_bits // 8, *parameters.lengths(LAYOUT.size)]
        assert len(rest[1]) == -(-(-(-LAYOUT.size // 4) * 42) // 8)
        assert len(signature) == 64


def view(rehearsal: Rehearsal, channel: LatticeSum, coalition: Sequence[str], folder: Path) -> View:
    silos = rehearsal.transcript.public.silos
    assignment = Assignment(frozenset(coalition), tuple(s for s in silos if s not in coalition))
    name = "-".join(sorted(coalition))
    parts = Parts((), FixedTrainer(random_delta), (), channel, Mean(weighted=False))
    return build(rehearsal.transcript, parts, "server", assignment, folder / name, "float32")


def opened(rehearsal: Rehearsal, channel: LatticeSum, coalition: Sequence[str]) -> set[frozenset[str]]:
    """The sets of silos whose sum the channel's own algorithm gives the coalition; each must be right."""
    found = list(channel.read(knowledge(rehearsal, coalition)))
    for candidate in found:
        np.testing.assert_array_equal(candidate.values, rehearsal.expected(candidate.round, candidate.silos))
    return {candidate.silos for candidate in found}


@pytest.mark.parametrize(("silos", "threshold"), [(3, 2), (3, 3), (4, 2), (4, 3), (5, 3)])
def test_single_uploads_open_from_the_threshold_on(silos, threshold) -> None:
    """Over all coalitions with the server: fewer than the threshold get one sum over all whose key they don't hold."""
    channel = LatticeSum(Policy(threshold=threshold))
    rehearsal = federate(channel, silos=silos, rounds=1)
    names = rehearsal.transcript.public.silos
    for size in range(silos):
        for colluders in combinations(names, size):
            honest = frozenset(names) - set(colluders)
            sums = opened(rehearsal, channel, (SERVER, *colluders))
            assert sums == ({frozenset({s}) for s in honest} if size >= threshold else {honest})
            assert opened(rehearsal, channel, colluders) == set()


@pytest.mark.parametrize("silos", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_a_view_of_the_server_and_colluders_holds_uploads_from_the_threshold_on(tmp_path, silos) -> None:
    """With all of the harness's own openers, too."""
    channel = LatticeSum(Policy(threshold=2))
    rehearsal = federate(channel, silos=silos, rounds=1)
    names = rehearsal.transcript.public.silos
    for size in range(3):
        found = view(rehearsal, channel, (SERVER, *names[:size]), tmp_path)
        read = {silo for reading in found.uploads() for silo in reading.silos}
        assert read == (set(names[size:]) if size >= 2 else set())
        for reading in found.uploads():
            np.testing.assert_allclose(reading.values, rehearsal.expected(0, reading.silos), atol=1e-6)


def test_a_view_of_silos_without_the_server_holds_no_upload(tmp_path) -> None:
    rehearsal = federate(LatticeSum(), silos=4, rounds=2)
    for size in (1, 2):
        assert view(rehearsal, LatticeSum(), rehearsal.transcript.public.silos[:size], tmp_path).uploads() == ()


@pytest.mark.parametrize("stage", ["upload", "unmask"])
def test_a_silo_that_was_away_once_is_not_shown_by_the_sums(stage) -> None:
    """Sums over different survivors differ by one silo's key; keys and masks are fresh in every round."""
    channel = LatticeSum(Policy(threshold=2))
    rehearsal = federate(channel, silos=4, rounds=3, dropouts=[Dropout(round=1, silo=3, stage=stage)])
    assert_exact(rehearsal, 3)
    everyone = frozenset(rehearsal.transcript.public.silos)
    assert opened(rehearsal, channel, (SERVER,)) <= {everyone, everyone - {"silo-3"}}


class Replaces(Carrier):
    """Hands the server other frames for the upload of ``silo-0`` in round 1: ``choose`` picks them from all uploads
    seen, by (round, sender)."""

    def __init__(self, inner: Carrier, source: tuple[int, str], frames: slice) -> None:
        self._inner, self._source, self._frames = inner, source, frames
        self._seen: dict[tuple[int, str], list[bytes]] = {}
        self.replaced = False

    def deliver(self, party: str, stage: str, round: int, inbox: Sequence[Message]) -> Iterable[Outgoing]:
        for message in inbox:
            if message.stage == "upload":
                self._seen[message.round, message.sender] = list(message.frames())
        return self._inner.deliver(party, stage, round, [self._maybe(m) for m in inbox])

    def _maybe(self, message: Message) -> Message:
        if message.stage != "upload" or (message.round, message.sender) != (1, "silo-0"):
            return message
        self.replaced = True
        frames = list(message.frames())
        frames[self._frames] = self._seen[self._source][self._frames]
        return Altered(message.round, message.stage, message.sender, message.receivers, tuple(frames))


@pytest.mark.parametrize("source", [(0, "silo-0"), (1, "silo-1")], ids=["replayed", "another silo's"])
@pytest.mark.parametrize("frames", [slice(1, 2), slice(2, 3), slice(1, 3)], ids=["key", "elements", "both"])
def test_uploads_of_another_round_or_silo_are_refused(source, frames) -> None:
    carriers = []

    def carrier(inner: Carrier) -> Carrier:
        carriers.append(Replaces(inner, source, frames))
        return carriers[0]

    with pytest.raises(SiloBenchError, match="not signed by it as it stands"):
        federate(LatticeSum(), rounds=2, carrier=carrier)
    assert carriers[0].replaced


def test_no_public_elements_serve_two_rounds_and_no_key_two_silos() -> None:
    """The same update again and again: all masked keys and ring elements differ, and so do the rosters of nonces."""
    rehearsal = federate(LatticeSum(), lambda job: np.full(LAYOUT.size, 0.0123, np.float32), rounds=3)
    frames = [f for m in rehearsal.transcript.messages() if m.stage == "upload" for f in list(m.frames())[1:3]]
    assert len(set(frames)) == len(frames) == 2 * 3 * 3
    rosters = {m.frame(0) for m in rehearsal.transcript.messages() if m.stage == "roster"}
    assert len(rosters) == 3


def test_what_the_defense_says_of_itself() -> None:
    text = Plugins().find("defense", "rlwe").outline.docstring
    assert "neither audited nor constant-time" in text
    defense = rlwe.build(rlwe.Config(bits=6, clip=0.5, setting="active", colluders=1))
    assert isinstance(defense.channel, LatticeSum)
    assert defense.channel.policy == Policy("active", 1, None)
    assert defense.channel.accepts == {"grid"}
    assert defense.channel.quantiser is not None
    assert defense.channel.bytes_per_value == choose(3, 127).bytes_per_value
