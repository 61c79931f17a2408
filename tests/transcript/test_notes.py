"""The harness's notes for the accountant: mechanisms by round, opened sums, and what a view says of who reads what."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.privacy import Skellam, epsilon_skellam
from bench.spec.run import Dropout
from bench.transcript.notes import logged_mechanisms, opened_sums
from bench.view.exposed import exposed_rows
from tests.defenses.silo_privacy import claimed, federate, named


def view(*readings: tuple[str, list[tuple[int, str, int]]]) -> Any:
    return cast(Any, SimpleNamespace(readings=[SimpleNamespace(kind=kind, terms=terms) for kind, terms in readings]))


def test_rows_are_read_off_the_terms_round_by_round() -> None:
    found = exposed_rows(
        view(
            ("upload", [(0, "silo-0", 1)]),
            ("sum", [(1, "silo-0", 1), (1, "silo-1", 1)]),
            ("partial", [(1, "silo-2", 1)]),
            ("sum", [(0, "silo-1", 1), (1, "silo-1", 1)]),
            ("adapter", []),
            ("metadata", []),
        )
    )
    assert found == {
        0: [{"silo-0": 1}, {"silo-1": 1}],
        1: [{"silo-0": 1, "silo-1": 1}, {"silo-2": 1}, {"silo-1": 1}],
    }


@pytest.mark.parametrize("kind", ["difference", "xor"])
def test_differences_count_as_their_parts(kind: str) -> None:
    """Of the XOR of two plaintexts' words nothing linear is known."""
    found = exposed_rows(view((kind, [(0, "silo-0", 1), (0, "silo-1", -1), (2, "silo-0", -1)])))
    assert found == {0: [{"silo-0": 1}, {"silo-1": 1}], 2: [{"silo-0": 1}]}


def test_notes_of_a_federation(tmp_path) -> None:
    away = (Dropout(round=1, silo=2, stage="upload"),)
    _, transcript = federate(tmp_path, named("dp-fedavg", dp_fedavg={"sigma": 3.0, "clip": 2.0}), dropouts=away)
    first, second = opened_sums(transcript)
    assert (first.round, dict(first.bounds)) == (0, {f"silo-{i}": 2.0 for i in range(4)})
    assert (second.round, set(second.bounds)) == (1, {"silo-0", "silo-1", "silo-3"})
    assert first.noise is not None
    assert (first.noise.kind, dict(first.noise.params)) == ("opener-gaussian", {"deviation": 6.0})
    assert not any(logged_mechanisms(transcript).values())
    _, transcript = federate(tmp_path / "local", named("local-dp", local_dp={"sigma": 3.0}))
    logged = logged_mechanisms(transcript)
    assert {s: [(m.kind, m.round) for m in ms] for s, ms in logged.items()} == {
        f"silo-{i}": [("gaussian", 0), ("gaussian", 1)] for i in range(4)
    }
    assert all(bound is None for s in opened_sums(transcript) for bound in s.bounds.values())


def test_sums_that_silos_open_are_noted_once_for_all_of_them(tmp_path) -> None:
    # noise that is far from the channel's bound on values, which a deviation of 1 passes once in some 10^4 values
    _, transcript = federate(tmp_path, named("local-dp+ckks", local_dp={"sigma": 0.1}))
    assert [(s.round, len(s.bounds)) for s in opened_sums(transcript)] == [(0, 4), (1, 4)]


SECURE = {"distributed_dp": {"sigma": 2.0}}


def shares(transcript: Any, *counts: int) -> float:
    (params,) = {tuple(m.params.values()) for ms in logged_mechanisms(transcript).values() for m in ms}
    return epsilon_skellam([Skellam(c * params[0], params[1], int(params[2])) for c in counts], 0.02)


def test_a_round_whose_frames_were_dropped_counts_one_share(tmp_path) -> None:
    setup, transcript = federate(tmp_path, named("distributed-dp+secagg", **SECURE), rounds=3)
    whole = claimed(tmp_path, setup, transcript, "server").epsilon
    assert whole == pytest.approx(shares(transcript, 4, 4, 4))
    transcript.drop_frames(1)
    thinned = claimed(tmp_path, setup, transcript, "server").epsilon
    assert thinned == pytest.approx(shares(transcript, 4, 1, 4))


def test_a_view_that_fails_counts_one_share_in_every_round(tmp_path, monkeypatch) -> None:
    setup, transcript = federate(tmp_path, named("distributed-dp+secagg", **SECURE))

    def broken(knowledge: Any) -> Any:
        raise ValueError("a channel's own mistake")

    monkeypatch.setattr(setup.parts.channel, "read", broken)
    assert claimed(tmp_path, setup, transcript, "server").epsilon == pytest.approx(shares(transcript, 1, 1))


def test_a_channel_that_leaks_one_upload_costs_its_silo_the_others_noise(tmp_path, monkeypatch) -> None:
    """Nobody declares it: what opened is in the view, and the worst silo's epsilon is the claim."""
    from bench.defense.channel import Candidate

    setup, transcript = federate(tmp_path, named("distributed-dp+secagg", **SECURE))
    read = setup.parts.channel.read

    def leaking(knowledge: Any) -> Any:
        yield from read(knowledge)
        if "server" in knowledge.parties:
            yield Candidate(1, frozenset({"silo-2"}), transcript.truth(1, "silo-2"), "a leak")

    monkeypatch.setattr(setup.parts.channel, "read", leaking)
    assert claimed(tmp_path, setup, transcript, "server").epsilon == pytest.approx(shares(transcript, 4, 1))
    assert claimed(tmp_path, setup, transcript, "silo").epsilon == pytest.approx(shares(transcript, 3, 3))
