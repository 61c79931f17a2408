"""Secure aggregation as a protocol: exact sums, drop-outs, bytes and memory."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.core.errors import UsageError
from bench.core.parties import SERVER
from bench.core.streams import SecretStreams
from bench.core.update import Grid, Layout, Update
from bench.defense.compose import fill
from defenses import secagg
from defenses.channels.secagg import packing, shamir
from defenses.channels.secagg.channel import SecureAggregation
from defenses.channels.secagg.policy import Policy
from tests.defenses.secagg_play import Play, drawn, names

CURIOUS, ACTIVE = SecureAggregation(), SecureAggregation(Policy("active"))
BOTH = pytest.mark.parametrize("channel", [CURIOUS, ACTIVE], ids=["curious", "active"])
#: where a silo may drop out, and whether its upload is in the sum then
LEAVING = {"advertise": False, "share": False, "upload": False, "confirm": True, "unmask": True}


def stages_of(channel: SecureAggregation) -> list[str]:
    return [s.name for s in channel.stages() if s.name in LEAVING]


# exact sums


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_the_sum_of_the_survivors_is_exact(data) -> None:
    silos, rounds = data.draw(st.integers(2, 6)), data.draw(st.integers(1, 2))
    bits, size = data.draw(st.sampled_from([2, 3, 8, 12, 24])), data.draw(st.integers(4, 200))
    channel = data.draw(st.sampled_from([CURIOUS, ACTIVE]))
    support = None
    if data.draw(st.booleans()):
        support = np.flatnonzero(np.random.default_rng(size).random(size) < 0.6).astype(np.int64)
        support = support if len(support) > 1 else np.arange(2)
    updates = drawn(silos, rounds, size, bits, seed=data.draw(st.integers(0, 999)), support=support)
    spare = silos - channel.policy.limits(silos).minimum
    away = {}
    for round in range(rounds):
        gone = data.draw(st.lists(st.sampled_from(names(silos)), max_size=spare, unique=True))
        away |= {(round, silo): data.draw(st.sampled_from(stages_of(channel))) for silo in gone}
    supports = {} if support is None else dict.fromkeys(range(rounds), support)
    play = Play(channel, updates, away, supports=supports).run()
    for round in range(rounds):
        left = {silo for (r, silo), stage in away.items() if r == round and not LEAVING[stage]}
        assert play.opened[round].silos == tuple(s for s in play.silos if s not in left)
        total = play.opened[round].values
        np.testing.assert_array_equal(total, play.expected(round, play.opened[round].silos))
        if support is not None:
            assert not np.delete(total, support).any()


def test_extreme_sums_do_not_wrap() -> None:
    for silos in (2, 3, 5):
        for sign in (-1, 1):
            updates = [{n: replace(u, values=np.full(50, sign * 127)) for n, u in drawn(silos)[0].items()}]
            play = Play(CURIOUS, updates).run()
            assert play.opened[0].values[0] == sign * silos * 127 * Grid(8, 0.1).step


def test_vectors_of_many_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "FRAME", 1280)
    play = Play(CURIOUS, drawn(3, size=5000), {(0, "silo-1"): "upload"}).run()
    upload = next(m for m in play.messages if m.stage == "upload")
    assert upload.lengths[1:] == (1280, 1280, 1280, 1280, 1130, 64)
    np.testing.assert_array_equal(play.opened[0].values, play.expected(0, ["silo-0", "silo-2"]))
    assert play.reads([SERVER]) == {(0, frozenset({"silo-0", "silo-2"}))}


def test_only_the_participants_of_a_round_take_part() -> None:
    participants = [("silo-0", "silo-2", "silo-3"), ("silo-1", "silo-4")]
    play = Play(CURIOUS, drawn(5, 2), participants=participants).run()
    for round, taking_part in enumerate(participants):
        assert play.opened[round].silos == taking_part
        np.testing.assert_array_equal(play.opened[round].values, play.expected(round, taking_part))


# drop-outs


@BOTH
@pytest.mark.parametrize("silos", [3, 4, 5])
def test_silos_drop_out_down_to_the_threshold_at_each_stage(channel: SecureAggregation, silos: int) -> None:
    limits = channel.policy.limits(silos)
    assert limits.minimum == limits.threshold
    for stage in stages_of(channel):
        leaving = names(silos)[: silos - limits.threshold]
        play = Play(channel, drawn(silos), {(0, silo): stage for silo in leaving}).run()
        expected = play.silos if LEAVING[stage] else play.silos[len(leaving) :]
        assert play.opened[0].silos == expected
        np.testing.assert_array_equal(play.opened[0].values, play.expected(0, expected))


@BOTH
@pytest.mark.parametrize("silos", [2, 3, 4, 5])
def test_one_below_the_threshold_stops(channel: SecureAggregation, silos: int) -> None:
    threshold = channel.policy.limits(silos).threshold
    for stage in stages_of(channel):
        leaving = names(silos)[: silos - threshold + 1]
        play = Play(channel, drawn(silos), {(0, silo): stage for silo in leaving})
        assert f"only {threshold - 1} of {silos} silos" in play.refused()
        assert not play.opened
        assert play.reads([SERVER]) == set()


def test_two_honest_survivors_are_needed_besides_the_colluders() -> None:
    channel = SecureAggregation(Policy(colluders=2, threshold=3))
    assert Play(channel, drawn(5), {(0, "silo-0"): "upload"}).run().opened[0].silos == names(5)[1:]
    away = {(0, "silo-0"): "upload", (0, "silo-1"): "upload"}
    assert "with 4 or more (threshold 3, at least two besides 2 colluders)" in Play(channel, drawn(5), away).refused()


def test_silos_that_leave_at_different_stages() -> None:
    away = {(0, "silo-0"): "share", (0, "silo-1"): "upload", (0, "silo-2"): "unmask"}
    play = Play(CURIOUS, drawn(6), away)
    assert "only 3 of 6" in play.refused()  # U5 is silos 3, 4, 5; the threshold is 4
    play = Play(SecureAggregation(Policy(threshold=3)), drawn(6), away).run()
    np.testing.assert_array_equal(play.opened[0].values, play.expected(0, names(6)[2:]))


# what travels


def test_uploads_look_uniform() -> None:
    """Chi-square of the values of masked updates of zeros against uniform ones."""
    layout = Layout(("a",), ((65536,),))
    zeros = Update(np.zeros(65536, np.int64), layout, grid=Grid(4, 0.1))
    play = Play(CURIOUS, [dict.fromkeys(names(3), zeros)]).run()
    for upload in (m for m in play.messages if m.stage == "upload"):
        words = packing.unpack(upload.content[1], 65536, 6)
        counts = np.bincount(words, minlength=64)
        statistic = float(((counts - 1024) ** 2 / 1024).sum())
        assert 20 < statistic < 138  # at 63 degrees of freedom outside of it once in 10^7


# bytes and memory


def test_bytes_of_every_stage() -> None:
    play = Play(ACTIVE, drawn(3, size=2000), {(0, "silo-2"): "unmask"}).run()
    expected = {
        "register": 3 * 32,
        "directory": 4 * 3 * 32,
        "advertise": 3 * (96 + 64),
        "roster": 3 * (1 + 3 * 160),
        "share": 3 * (1 + 2 * 80 + 64),
        "deliver": 3 * (1 + 2 * 80),
        "upload": 3 * (len(drawn(3, size=2000)[0]["silo-0"].form.header()) + 2500 + 64),
        "survivors": 3 * 1,
        "confirm": 3 * (1 + 64),
        "confirmed": 3 * (1 + 3 * 64),
        "unmask": 2 * (2 + 3 * 32 + 64),
    }
    assert {stage: play.bytes(stage) for stage in expected} == expected
    assert {m.stage for m in play.messages} == set(expected)


def test_three_silos_of_eight_bits_take_less_than_one_point_three_bytes_a_value() -> None:
    play = Play(CURIOUS, drawn(3, size=460_800)).run()
    up_and_down = sum(play.bytes(s.name) for s in CURIOUS.stages() if not s.setup)
    assert 1.25 < up_and_down / 3 / 460_800 < 1.26


def test_memory_grows_with_neither_silos_nor_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "FRAME", 2**14)

    def peak(silos: int, size: int) -> int:
        """Of adding the uploads, less what is kept of them."""
        play = Play(CURIOUS, drawn(silos, size=size))
        for round, stage in [(r, s) for r in (-1, 0) for s in CURIOUS.stages() if s.setup == (r < 0)]:
            if stage.name == "survivors":
                tracemalloc.start()
                play.act(SERVER, stage.name, round)
                kept, most = tracemalloc.get_traced_memory()
                tracemalloc.stop()
                return most - kept
            for actor in play._actors(stage.actors, stage.name, round):
                play.act(actor, stage.name, round)
        raise AssertionError

    peak(2, 20_000)
    few, many, longer = peak(2, 20_000), peak(6, 20_000), peak(2, 200_000)
    assert many < 1.5 * few
    assert longer < 1.5 * few


# the named defense


def test_the_named_defense() -> None:
    defense = secagg.build(secagg.Config())
    parts = fill(defense)
    assert [type(t).__name__ for t in parts.encoders] == ["Quantise"]
    assert isinstance(parts.channel, SecureAggregation)
    assert (parts.channel.opener, parts.channel.error) == ("server", 0.0)
    strict = secagg.build(secagg.Config(setting="active", colluders=2, threshold=5, bits=6, clip=0.5)).channel
    assert isinstance(strict, SecureAggregation)
    assert strict.policy == Policy("active", 2, 5)
    assert (strict.quantiser.bits, strict.quantiser.clip) == (6, 0.5)  # type: ignore[union-attr]


@pytest.mark.parametrize("wrong", [{"setting": "lazy"}, {"colluders": -1}, {"threshold": 1}, {"bits": 1}])
def test_wrong_options_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        secagg.Config(**wrong)


def test_settings_that_do_not_fit_the_federation_are_refused_before_anything_is_sent() -> None:
    play = Play(SecureAggregation(Policy("active", threshold=2)), drawn(4))
    with pytest.raises(UsageError, match=r"2 x 2 <= 4 \+ 0"):
        play.run()
    assert not play.messages


def test_what_is_no_sum_of_integers_is_refused() -> None:
    good = drawn(3)
    layout = good[0]["silo-0"].layout
    real = Update(np.zeros(50, np.float32), layout)
    assert "put a quantiser before it" in Play(CURIOUS, [{**good[0], "silo-1": real}]).refused()
    outside = replace(good[0]["silo-0"], values=np.full(50, 128))
    assert "outside its grid" in Play(CURIOUS, [{**good[0], "silo-1": outside}]).refused()
    other = replace(good[0]["silo-0"], grid=Grid(8, 0.2))
    assert "different headers" in Play(CURIOUS, [{**good[0], "silo-1": other}]).refused()


@pytest.mark.parametrize("policy", [Policy(), Policy(threshold=2), Policy("active", colluders=1)])
def test_the_silos_secrets_are_shared_at_the_threshold_and_no_lower(policy: Policy) -> None:
    play = Play(SecureAggregation(policy), drawn(5)).run()
    threshold = policy.limits(5).threshold
    for owner, silo in enumerate(play.silos):
        held = [play.states[other]["keys/round-0/shares"].tobytes() for other in play.silos]
        for place, name in enumerate(("mask", "self-mask")):
            start = 64 * owner + 32 * place
            shares = {point: raw[start : start + 32] for point, raw in enumerate(held, start=1)}
            secret = play.states[silo][f"keys/round-0/{name}"].tobytes()
            last = dict(list(shares.items())[-threshold:])
            assert shamir.recover(shares, threshold) == shamir.recover(last, threshold) == secret
            assert shamir.recover(shares, threshold - 1) != secret


def test_nothing_secret_is_ever_sent_and_no_secret_serves_twice() -> None:
    play = Play(ACTIVE, drawn(4, 2), {(0, "silo-3"): "upload"}).run()
    sent = b"\0".join(frame for message in play.messages for frame in message.content)
    secrets = [
        value.tobytes()[at : at + 32]
        for state in play.states.values()
        for key, value in state.items()
        if key.startswith("keys/") and not key.endswith(("nonce", "shares"))
        for at in range(0, len(value), 32)
    ]
    assert len(secrets) == 4 + 2 * 4 * 3
    assert len(set(secrets)) == len(secrets)
    assert not [secret for secret in secrets if secret in sent]
    nonces = [v.tobytes() for s in play.states.values() for k, v in s.items() if k.endswith("nonce")]
    assert len(set(nonces)) == len(nonces) == 8


def test_a_server_keeps_no_key_and_nothing_of_a_finished_round() -> None:
    play = Play(CURIOUS, drawn(3, 2)).run()
    assert set(play.states[SERVER]) == {"secagg/directory"}
    assert not any(key.startswith("secagg/round-0") for key in play.states["silo-0"])
    assert any(key.startswith("keys/round-0") for key in play.states["silo-0"])


def test_a_simulated_run_repeats_and_another_does_not() -> None:
    def frames(seed: int | None) -> list[bytes]:
        play = Play(CURIOUS, drawn(3), secret=lambda party: SecretStreams(party, seed)).run()
        return [frame for message in play.messages for frame in message.content if len(frame) > 1]

    assert frames(5) == frames(5)
    headers = {drawn(3)[0]["silo-0"].form.header()}
    assert set(frames(5)) & set(frames(6)) == headers
    assert set(frames(None)) & set(frames(None)) == headers
