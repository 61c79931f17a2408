"""What each coalition reads of threshold CKKS, by the channel's own ``read`` and in the harness's views."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from bench.core.adversaries import assignments
from bench.core.parties import SERVER
from bench.view.openers.distinguish import traits
from tests.defenses.secagg_play import names
from tests.defenses.threshold_play import CHANNEL, RealPlay, real
from tests.view.synthetic import Synthetic


def expected_reading(coalition: Iterable[str], silos: tuple[str, ...], rounds: int) -> set:
    """The sum opens to whoever has the shares and the sealed values: the server, alone or with whomever."""
    inside = set(coalition)
    if SERVER not in inside or set(silos) <= inside:
        return set()
    return {(r, frozenset(silos)) for r in range(rounds)}


@pytest.mark.parametrize("silos", [2, 3, 4])
def test_every_coalition_reads_what_it_must_and_nothing_else(silos) -> None:
    everybody = names(silos)
    play = RealPlay(CHANNEL, real(silos, 2)).run()
    for size in range(silos + 2):
        for coalition in combinations((SERVER, *everybody), size):
            assert play.reads(coalition) == expected_reading(coalition, everybody, 2), coalition


def test_all_keys_together_open_every_upload_and_all_but_one_none() -> None:
    """The server's messages under stolen keys."""
    play = RealPlay(CHANNEL, real(3, 2)).run()
    keys = play.knowledge(names(3)).keys
    server = play.knowledge([SERVER])
    everything = list(CHANNEL.read(replace(server, keys=keys)))
    assert {(c.round, *c.silos) for c in everything} == {(r, s) for r in range(2) for s in names(3)}
    assert all(play.exact(c) for c in everything)
    for left_out in names(3):
        fewer = {silo: held for silo, held in keys.items() if silo != left_out}
        found = list(CHANNEL.read(replace(server, keys=fewer)))
        assert {(c.round, c.silos) for c in found} == {(r, frozenset(names(3))) for r in range(2)}


def test_keys_stand_for_shares_that_were_not_sent() -> None:
    """A run that stopped before silo 2 shared: its sum opens to a coalition that silo 2 is in, and to no other."""
    play = RealPlay(CHANNEL, real(3), {(0, "silo-2"): "share"})
    assert "silo-2 sent none" in play.refused()
    whole = {(0, frozenset(names(3)))}
    assert play.reads([SERVER]) == play.reads([SERVER, "silo-0"]) == play.reads([SERVER, "silo-0", "silo-1"]) == set()
    assert play.reads([SERVER, "silo-2"]) == play.reads([SERVER, "silo-1", "silo-2"]) == whole


def test_what_an_earlier_round_showed_does_not_open_a_later_one() -> None:
    """With the shares of round 0 put for those of round 1, nothing true comes out."""
    play = RealPlay(CHANNEL, real(3, 2)).run()
    server = play.knowledge([SERVER])
    moved = [replace(m, round=1) for m in server.messages if (m.stage, m.round) == ("share", 0)]
    kept = [m for m in server.messages if (m.stage, m.round) != ("share", 1)]
    found = [c for c in CHANNEL.read(replace(server, messages=[*kept, *moved])) if c.round == 1]
    assert not any(play.exact(c) for c in found)


def test_malformed_messages_count_for_nothing() -> None:
    play = RealPlay(CHANNEL, real(3)).run()
    server = play.knowledge([SERVER])
    for stage in ("upload", "share"):
        for content in ((), (b"",), (b"{}", b"x")):
            messages = [replace(m, content=content) if m.stage == stage else m for m in server.messages]
            assert list(CHANNEL.read(replace(server, messages=messages))) == []


def test_views_of_the_standard_adversaries(tmp_path: Path) -> None:
    run = Synthetic(tmp_path / "run", CHANNEL, silos=3, release="every-round")
    known = traits(CHANNEL, run.public)
    assert not known.deterministic | known.lengths
    assert not known.headers
    for adversary in ("outsider", "silo", "server", "server+silo", "all-but-one"):
        for number, assignment in enumerate(assignments(adversary, run.public.silos)[:1]):
            view = run.view(tmp_path / f"{adversary}-{number}", adversary, *assignment.coalition, traits=known)
            others = frozenset(run.public.silos) - assignment.coalition
            readings = {(r.kind, r.round, r.silos) for r in view.readings if r.kind not in ("adapter", "query")}
            kind = "upload" if len(others) == 1 else "sum"
            # an outsider does not know what round 0 started from
            rounds = {1} if adversary == "outsider" else {0, 1}
            assert readings == {(kind, round, others) for round in rounds}
            for reading in (r for r in view.readings if r.kind == kind):
                truth = sum(run.summand(reading.round, silo) for silo in others)
                np.testing.assert_allclose(reading.values, truth, atol=CHANNEL.error)
