"""Who reads what, out of keys and bytes alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.core.adversaries import assignments
from bench.core.update import Form
from bench.defense.channel import Channel
from bench.defense.defaults.mean import Mean
from bench.defense.defaults.plain import PlainChannel
from bench.view.knowledge import Seen, _possible
from bench.view.view import Reading, View, adapter_handle
from tests.view import broken_channels as channels
from tests.view.synthetic import Synthetic

Federate = Callable[..., Synthetic]


def uploads_read(view: View) -> set[tuple[int, str]]:
    return {(r.round, *r.silos) for r in view.uploads()}  # type: ignore[misc]


def kinds(view: View) -> set[str]:
    return {r.kind for r in view.readings}


def everything(run: Synthetic) -> set[tuple[int, str]]:
    return set(run.updates)


def close(values: np.ndarray, truth: np.ndarray) -> bool:
    return float(np.linalg.norm(values - truth)) <= 1e-4 * float(np.linalg.norm(truth))


@pytest.mark.parametrize("aggregator", [Mean(), Mean(weighted=False), Mean(weighted=False, of="weights")])
def test_under_plain_averaging_the_server_opens_everything(
    federate: Federate, tmp_path: Path, aggregator: Mean
) -> None:
    run = federate(PlainChannel(), aggregator=aggregator)
    view = run.view(tmp_path / "view", "server", "server")
    assert uploads_read(view) == everything(run)
    for reading in view.uploads():
        (silo,) = reading.silos
        assert close(reading.values, run.summand(reading.round, silo))
        before = run.adapters[reading.round]
        assert reading.before is not None
        np.testing.assert_array_equal(reading.before, before)
        assert reading.adapter is not None
        np.testing.assert_allclose(reading.adapter, before + run.updates[reading.round, silo], atol=1e-6)
        assert reading.handle == adapter_handle(reading.adapter)
        assert not reading.unchecked
    assert [r.round for r in view.adapters()] == [0, 1]
    for adapter in view.adapters():
        np.testing.assert_allclose(adapter.values, run.adapters[adapter.round + 1], atol=1e-6)


def test_the_server_knows_the_last_adapter_even_when_nothing_is_released(federate: Federate, tmp_path: Path) -> None:
    run = federate(PlainChannel(), release="none")
    view = run.view(tmp_path / "view", "server", "server")
    assert view.adapters()[-1].round == 1
    np.testing.assert_allclose(view.adapters()[-1].values, run.global_adapter, atol=1e-6)


def test_of_two_silos_each_gets_the_others_update(federate: Federate, tmp_path: Path) -> None:
    run = federate(PlainChannel(), silos=2, rounds=3)
    for me, other in (("silo-0", "silo-1"), ("silo-1", "silo-0")):
        view = run.view(tmp_path / me, "silo", me)
        assert uploads_read(view) == {(r, other) for r in range(3)}
        for reading in view.uploads(other):
            assert "less its own part" in reading.how
            assert close(reading.values, run.summand(reading.round, other))


def test_of_three_silos_one_reads_only_the_sum_of_the_others(federate: Federate, tmp_path: Path) -> None:
    run = federate(PlainChannel())
    view = run.view(tmp_path / "view", "silo", "silo-1")
    assert not view.uploads()
    sums = [r for r in view.readings if r.kind == "sum"]
    assert {(r.round, r.silos) for r in sums} == {(r, frozenset({"silo-0", "silo-2"})) for r in range(2)}
    for reading in sums:
        others = run.summand(reading.round, "silo-0") + run.summand(reading.round, "silo-2")
        assert close(reading.values, others)


@pytest.mark.parametrize("channel", [PlainChannel(), channels.Sealing(), channels.Denies()])
def test_all_but_one_reads_the_last_silo(federate: Federate, tmp_path: Path, channel: Channel) -> None:
    run = federate(channel, silos=4, release="every-round")
    for assignment in assignments("all-but-one", run.public.silos):
        (victim,) = assignment.victims
        view = run.view(tmp_path / victim, "all-but-one", *assignment.coalition)
        assert uploads_read(view) == {(0, victim), (1, victim)}
        for reading in view.uploads(victim):
            assert close(reading.values, run.summand(reading.round, victim))


def test_all_silos_but_one_read_the_last_one_without_the_server(federate: Federate, tmp_path: Path) -> None:
    run = federate(PlainChannel())
    view = run.view(tmp_path / "view", "all-but-one", "silo-0", "silo-2")
    assert uploads_read(view) == {(0, "silo-1"), (1, "silo-1")}


def test_one_shared_key_opens_every_upload_for_server_and_silo_together(federate: Federate, tmp_path: Path) -> None:
    run = federate(channels.Sealing())
    server = run.view(tmp_path / "server", "server", "server")
    both = run.view(tmp_path / "both", "server+silo", "server", "silo-0")
    assert not uploads_read(server)
    assert uploads_read(both) == {(r, s) for r, s in everything(run) if s != "silo-0"}


def test_where_nothing_opens_there_is_no_reading(federate: Federate, tmp_path: Path) -> None:
    run = federate(channels.Sealing(), release="none")
    for adversary, coalition in (("user", ()), ("outsider", ()), ("server", ("server",))):
        view = run.view(tmp_path / adversary, adversary, *coalition)
        assert view.readings == ()
        assert view.last_adapter("silo-0") is None
    assert run.view(tmp_path / "again", "server", "server").initial is not None


def test_a_silo_derives_every_global_adapter_from_the_sums_that_it_opens(federate: Federate, tmp_path: Path) -> None:
    run = federate(channels.Sealing(), rounds=3, release="none")
    view = run.view(tmp_path / "view", "silo", "silo-2")
    assert [r.round for r in view.adapters()] == [0, 1, 2]
    for reading in view.adapters():
        np.testing.assert_allclose(reading.values, run.adapters[reading.round + 1], atol=1e-6)


class Noisy(channels.Sealing):
    """Whatever is opened has an error of its own, as under CKKS: a sum is not the sum of what was opened singly."""

    def open(self, frames: Iterator[bytes], keys: Mapping[str, bytes], form: Form, count: int) -> NDArray[np.floating]:
        values = super().open(frames, keys, form, count)
        bits = int.from_bytes(hashlib.sha256(values.tobytes()).digest()[:8], "little")
        return values + np.random.default_rng(bits).normal(0, 1e-6, len(values))


def test_silos_hold_the_adapter_that_they_train_from_whatever_else_they_read(
    federate: Federate, tmp_path: Path
) -> None:
    run = federate(Noisy(), rounds=3, release="none")
    coalitions = [("silo-0",), ("server", "silo-1"), ("server", "silo-1", "silo-2")]
    views = [run.view(tmp_path / str(n), "silo", *coalition) for n, coalition in enumerate(coalitions)]
    known = [[reading.handle for reading in view.adapters()] for view in views]
    assert known == [[adapter_handle(adapter) for adapter in run.adapters[1:]]] * 3


@pytest.mark.parametrize("release", ["none", "final", "every-round"])
def test_outsider_and_user_have_what_is_released_and_nothing_else(
    federate: Federate, tmp_path: Path, release: str
) -> None:
    run = federate(channels.Sealing(), rounds=3, release=release)
    rounds = {"none": [], "final": [2], "every-round": [0, 1, 2]}[release]
    outsider = run.view(tmp_path / "outsider", "outsider")
    user = run.view(tmp_path / "user", "user")
    assert [r.round for r in outsider.adapters()] == rounds
    assert kinds(user) == ({"query"} if rounds else set())
    assert [r.round for r in user.readings] == rounds
    for reading in user.readings:
        raw = run.adapters[reading.round + 1].astype("<f4").tobytes()
        assert reading.handle == hashlib.sha256(raw).hexdigest()
        assert reading.path is None
        assert reading.adapter is None
    assert outsider.initial is None


def test_released_adapters_of_two_rounds_give_their_sum_away(federate: Federate, tmp_path: Path) -> None:
    run = federate(channels.Sealing(), rounds=3, release="every-round", silos=1)
    view = run.view(tmp_path / "view", "outsider")
    assert uploads_read(view) == {(1, "silo-0"), (2, "silo-0")}
    assert close(view.uploads()[0].values, run.summand(1, "silo-0"))


@pytest.mark.parametrize("precision", ["float64", "float16", "bfloat16"])
def test_a_coarse_release_is_read_with_its_loss(federate: Federate, tmp_path: Path, precision: str) -> None:
    run = federate(PlainChannel(), silos=2, precision=precision, scale=0.05)
    view = run.view(tmp_path / "view", "silo", "silo-0")
    last = view.uploads("silo-1", round=1)
    assert len(last) == 1
    truth = run.summand(1, "silo-1")
    error = np.linalg.norm(last[0].values - truth) / np.linalg.norm(truth)
    assert error <= (1e-4 if precision == "float64" else 0.1)
    # the server, which opened the sum itself, is not bound by what was published
    server = run.view(tmp_path / "server", "server", "server")
    np.testing.assert_allclose(server.adapters()[-1].values, run.global_adapter, atol=1e-6)


def test_the_last_adapter_is_the_victims_own_then_the_global_then_the_query(federate: Federate, tmp_path: Path) -> None:
    run = federate(PlainChannel())
    server = run.view(tmp_path / "server", "server", "server").last_adapter("silo-1")
    silo = run.view(tmp_path / "silo", "silo", "silo-0").last_adapter("silo-1")
    outsider = run.view(tmp_path / "outsider", "outsider").last_adapter("silo-1")
    user = run.view(tmp_path / "user", "user").last_adapter("silo-1")

    def shape(reading: Reading | None) -> tuple[str, int, set[str]]:
        assert reading is not None
        return reading.kind, reading.round, set(reading.silos)

    assert shape(server) == ("upload", 1, {"silo-1"})
    assert shape(silo) == ("adapter", 1, set())
    assert shape(outsider) == ("adapter", 1, set())
    assert shape(user) == ("query", 1, set())


def test_a_dropped_out_silo_is_in_no_sum(federate: Federate, tmp_path: Path) -> None:
    run = federate(PlainChannel(), silos=3, dropped={(0, "silo-2")})
    view = run.view(tmp_path / "view", "silo", "silo-0")
    # in round 0 only two silos are summed, so silo-0 reads silo-1; in round 1 all three
    assert uploads_read(view) == {(0, "silo-1")}
    sums = {(r.round, r.silos) for r in view.readings if r.kind == "sum"}
    assert sums == {(1, frozenset({"silo-1", "silo-2"}))}
    assert close(view.uploads()[0].values, run.summand(0, "silo-1"))


def test_who_was_summed_is_told_by_who_sent() -> None:
    everyone = ("silo-0", "silo-1", "silo-2")
    assert _possible(everyone, {}) == (everyone,)
    assert _possible(everyone, {"upload": ["silo-0", "silo-1", "silo-2"]}) == (everyone,)
    # silo-2 left before the upload, silo-1 after it: those who stayed, then those of each stage, then all
    stages = {"keys": ["silo-0", "silo-1", "silo-2"], "upload": ["silo-0", "silo-1"], "unmask": ["silo-0"]}
    assert _possible(everyone, stages) == (("silo-0",), everyone, ("silo-0", "silo-1"))


def test_a_coalition_is_handed_its_own_messages_keys_and_summands_only(federate: Federate) -> None:
    run = federate(channels.Sealing(), rounds=1)
    held = Seen(run.transcript, frozenset({"silo-1"})).knowledge
    assert set(held.keys) == {"silo-1"}
    assert list(held.contributions) == [(0, "silo-1")]
    assert held.contributions.get((0, "silo-0")) is None
    assert held.contributions.get((0, "adapter")) is None
    assert [(m.stage, m.sender) for m in held.messages] == [
        ("keys", "dealer"),
        ("broadcast", "server"),
        ("upload", "silo-1"),
        ("sum", "server"),
        ("release", "server"),
    ]
    server = Seen(run.transcript, frozenset({"server"})).knowledge
    assert dict(server.keys) == {"server": {}}
    assert len(server.contributions) == 0


def test_a_silo_that_was_not_sampled_knows_no_more_than_it_was_sent(federate: Federate, tmp_path: Path) -> None:
    all_three = ("silo-0", "silo-1", "silo-2")
    run = federate(PlainChannel(), rounds=3, participants=[all_three, ("silo-1", "silo-2"), all_three], release="none")
    view = run.view(tmp_path / "view", "silo", "silo-0")
    # it was sent the adapters at the start of rounds 0 and 2: no two consecutive ones, so no sum
    assert [r.round for r in view.adapters()] == [1]
    assert kinds(view) == {"adapter"}


def _covered(reading: Reading, whole: View) -> bool:
    """Whether ``whole`` holds the reading, less what its coalition knew anyway."""
    rest = reading.silos - whole.coalition
    if reading.silos and not rest:
        return True
    return any(
        r.round == reading.round and r.silos == rest and (r.kind == reading.kind or r.kind == "upload")
        for r in whole.readings
    )


@pytest.mark.parametrize(
    "channel",
    [PlainChannel(), channels.Sealing(), channels.Denies(), channels.ReusesKeystreamPerRound(), channels.ShipsTheKey()],
    ids=lambda channel: type(channel).__name__,
)
def test_a_coalitions_view_contains_that_of_any_part(federate: Federate, tmp_path: Path, channel: Channel) -> None:
    run = federate(channel, silos=3, release="every-round")
    parties = ("server", *run.public.silos)
    views: dict[frozenset[str], View] = {}
    for size in range(len(parties)):
        for coalition in combinations(parties, size):
            folder = tmp_path / "+".join(("view", *coalition))
            views[frozenset(coalition)] = run.view(folder, "server" if coalition else "outsider", *coalition)
    for part, small in views.items():
        for whole, large in views.items():
            if part <= whole:
                opened = {s for _, s in uploads_read(large)}
                for reading in small.readings:
                    # what shows of a message tells nothing more once it is opened
                    told = reading.kind in ("metadata", "difference", "xor") and reading.silos - whole <= opened
                    assert told or _covered(reading, large), (part, whole, reading)
