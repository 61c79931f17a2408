"""Threshold CKKS in its real endpoints: sums within the stated error, who must be there, bytes, and what it composes
with."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.conformance.fixtures import federate
from bench.core.errors import SiloBenchError, UsageError
from bench.core.parties import SERVER
from bench.core.streams import SecretStreams
from bench.core.update import Layout, Update
from bench.defense.compose import compose
from bench.defense.public import Public, alike
from bench.plugins.find import Plugins
from bench.spec.run import Dropout
from defenses import threshold_ckks
from defenses.channels.threshold_ckks import sampling, scheme
from defenses.channels.threshold_ckks.channel import ThresholdCKKS
from defenses.channels.threshold_ckks.parameters import Parameters
from defenses.channels.threshold_ckks.session import Session, Terms
from tests.defenses.secagg_play import drawn, names
from tests.defenses.threshold_play import CHANNEL, RealPlay, real
from tests.perf.crypto import run


@settings(max_examples=12, deadline=None)
@given(
    silos=st.integers(2, 6),
    size=st.integers(1, 9000),
    log_error=st.floats(-6, -1),
    largest=st.sampled_from([0.5, 4.0, 100.0]),
    share=st.none() | st.floats(0.01, 1),
    seed=st.integers(0, 2**31),
)
def test_a_sum_is_never_off_by_more_than_the_error(silos, size, log_error, largest, share, seed) -> None:
    channel = ThresholdCKKS(10**log_error, largest)
    support = None
    if share is not None:
        chosen = np.random.default_rng(seed).choice(size, max(1, int(share * size)), replace=False)
        support = np.sort(chosen).astype(np.int64)
    updates = real(silos, 1, size, seed, support, largest)
    play = RealPlay(channel, updates, supports={} if support is None else {0: support}).run()
    assert play.right(0, play.opened[0])
    assert play.opened[0].silos == names(silos)


def test_the_error_is_not_stated_ten_times_too_large() -> None:
    play = RealPlay(CHANNEL, real(3, 1, 5000)).run()
    truth = sum(play.updates[0][s].values.astype(np.float64) for s in names(3))
    assert np.abs(play.opened[0].values - truth).max() > CHANNEL.error / 10


def test_every_round_opens_with_one_set_up() -> None:
    play = RealPlay(CHANNEL, real(3, 4)).run()
    assert all(play.right(r, play.opened[r]) for r in range(4))
    assert {m.stage for m in play.messages if m.round == -1} == {s.name for s in CHANNEL.stages() if s.setup}


def test_silos_without_a_part_in_a_round_help_to_open_it() -> None:
    """Also one whose first round is the second, and that does not know the first one's support."""
    support = np.array([3, 5, 8, 50])
    updates = [real(4, 1, support=support)[0], real(4, 1)[0]]
    parts = [names(4)[:2], names(4)[1:]]
    play = RealPlay(CHANNEL, updates, participants=parts, supports={0: support}).run()
    for round, silos in enumerate(parts):
        assert play.opened[round].silos == silos
        assert play.right(round, play.opened[round])
        shares = [m for m in play.messages if (m.stage, m.round) == ("share", round)]
        assert [m.sender for m in shares] == list(names(4))


@pytest.mark.parametrize("stage", ["upload", "share"])
def test_one_missing_silo_stops_the_round_with_a_sentence(stage) -> None:
    play = RealPlay(CHANNEL, real(3), {(0, "silo-1"): stage})
    assert f"the '{stage}' message of every silo in round 0, and silo-1 sent none" in play.refused()
    assert not play.opened


def test_in_a_federation_too() -> None:
    with pytest.raises(SiloBenchError, match="silo-2 sent none"):
        federate(CHANNEL, silos=3, dropouts=[Dropout(round=1, silo=2, stage="share")])


def test_one_silo_alone_is_refused_before_it_trains() -> None:
    play = RealPlay(CHANNEL, real(3, 2), participants=[names(3), names(3)[:1]])
    assert "1 silo takes part in round 1: the sum would be its update" in play.refused()
    assert not play.messages


@pytest.mark.parametrize(
    ("values", "sentence"),
    [([np.nan, 0], "not finite"), ([4.001, 0], "its weight times 'largest'"), ([-np.inf, 0], "not finite")],
)
def test_values_that_can_not_be_sealed_are_refused(values, sentence) -> None:
    updates = real(2)
    update = updates[0]["silo-0"]
    updates[0]["silo-0"] = Update(np.resize(np.float32(values), 60), update.layout)
    assert sentence in RealPlay(CHANNEL, updates).refused()


def test_integers_on_a_grid_are_refused() -> None:
    assert CHANNEL.accepts == {"real"}
    assert "takes real values only" in RealPlay(CHANNEL, drawn(2)).refused()
    assert "different headers" in RealPlay(CHANNEL, [{**real(2)[0], "silo-1": on_support()}]).refused()


def on_support() -> Update:
    layout = Layout(("a", "b"), ((1, 30), (30, 1)))
    return Update(np.zeros(3, np.float32), layout, support=np.array([1, 2, 3]))


def test_bytes_are_those_of_the_parameters() -> None:
    size, rounds = 20_000, 2
    play = RealPlay(CHANNEL, real(3, rounds, size)).run()
    p = Session(play.public, CHANNEL.terms).parameters
    # five polynomials of 4096, three of them under one random half
    assert (p.degree, p.keys, p.groups(size)) == (4096, 3, (3 * 4096, 20_000 - 3 * 4096))
    header = len(json.dumps({"values": size}))
    half = 4096 * p.modulus // 8
    tops = 3 * 4096 * p.sent // 8 + -(-(20_000 - 3 * 4096) * p.sent // 8)
    assert play.bytes("upload") == 3 * rounds * (header + 2 * half + tops + 128)
    assert play.bytes("share") == 3 * rounds * (tops + 64)
    assert play.bytes("sum") == 3 * rounds * (header + 3 * (2 * half + 64))
    assert play.bytes("key") == 3 * (3 * half + 64)
    assert play.bytes("keys") == 3 * 3 * (3 * half + 64)
    assert play.bytes("commit") == play.bytes("reveal") == 3 * 96
    assert play.bytes("commits") == play.bytes("reveals") == 3 * 3 * 96


def test_nothing_random_serves_twice() -> None:
    """The same updates in two rounds: random halves, sealed values and shares all differ, and so do silos' keys."""
    updates = real(3, 1) * 2
    play = RealPlay(CHANNEL, updates).run()
    for stage in ("commit", "reveal", "key", "upload", "share"):
        frames = [f for m in play.messages if m.stage == stage for f in m.content if len(f) >= 32 and f[:1] != b"{"]
        assert len(set(frames)) == len(frames), stage
    secrets = {play.states[s]["keys/round--1/secret"].tobytes() for s in names(3)}
    assert len(secrets) == 3
    other = RealPlay(CHANNEL, updates).run()
    mine, theirs = ({f for m in p.messages if m.round >= 0 for f in m.content if len(f) > 64} for p in (play, other))
    assert not mine & theirs


def test_no_flooding_serves_twice(monkeypatch) -> None:
    """Drawn anew for every group of every share, in every silo, round and run."""
    drawn: list[bytes] = []

    def flooding(generator: np.random.Generator, p: Parameters, count: int) -> np.ndarray:
        drawn.append(sampling.flooding(generator, p, count).tobytes())
        return np.frombuffer(drawn[-1], dtype=np.int64).reshape(count, p.limbs, p.degree).copy()

    monkeypatch.setattr(scheme, "flooding", flooding)
    for _ in range(2):
        RealPlay(CHANNEL, real(3, 2, 20_000)).run()
    assert len(set(drawn)) == len(drawn) == 2 * 2 * 3 * 2


def test_a_run_from_a_secret_seed_can_be_repeated() -> None:
    runs = [RealPlay(CHANNEL, real(2), secret=lambda who: SecretStreams(who, 5)).run() for _ in range(2)]
    assert runs[0].messages == runs[1].messages


def test_steps_are_taken_once() -> None:
    play = RealPlay(CHANNEL, real(2)).run()
    for stage, inbox in (("upload", "keys"), ("share", "sum"), ("commit", "directory")):
        again = [m for m in play.messages if m.stage == inbox and "silo-0" in m.receivers and m.round >= 0]
        with pytest.raises(SiloBenchError, match="asked for twice"):
            play.act("silo-0", stage, 0, again)
    with pytest.raises(SiloBenchError, match="step is missing"):
        play.act(SERVER, "open", 0, [m for m in play.messages if m.stage == "share"])


@pytest.mark.parametrize(("name", "part"), [("prune", "transforms"), ("dp-sgd", "trainer"), ("top-k", "transforms")])
def test_composes_with(name, part) -> None:
    other = Plugins().find("defense", name)
    first = other.build(other.validate({}))
    both = compose([(name, first), ("threshold-ckks", threshold_ckks.build(threshold_ckks.Config()))])
    assert isinstance(both.channel, ThresholdCKKS)
    assert getattr(both, part) == getattr(first, part)


def test_does_not_compose_with_another_channel() -> None:
    with pytest.raises(UsageError, match="channel"):
        compose([(n, threshold_ckks.build(threshold_ckks.Config())) for n in ("threshold-ckks", "other")])


def test_a_row_of_the_table_of_channels() -> None:
    cost = run("threshold-ckks", 5000, 2)
    assert cost.error <= 1e-4
    p = Terms(1e-4, 4.0, 40).parameters(
        Public(alike(Layout(("all",), ((5000,),))), names(2), dict.fromkeys(names(2), 1), 1, ())
    )
    assert p.keys == 1
    halves = 2 * p.element / 5000
    assert halves + 2 * p.sent / 8 <= cost.up <= halves + 2 * p.sent / 8 + 0.1
    assert 2 * halves <= cost.down <= 2 * halves + 0.1
    assert cost.setup > 0
    assert cost.quantised == 0


def test_what_the_defense_says_of_itself() -> None:
    text = Plugins().find("defense", "threshold-ckks").outline.docstring
    assert "neither audited nor constant-time" in text
    channel = threshold_ckks.build(threshold_ckks.Config(error=1e-3, largest=2.0, flooding=50)).channel
    assert isinstance(channel, ThresholdCKKS)
    assert (channel.error, channel.terms) == (1e-3, Terms(1e-3, 2.0, 50))
    assert channel.fewest == 2
    with pytest.raises(UsageError, match="allow a larger error"):
        ThresholdCKKS(1e-15)
