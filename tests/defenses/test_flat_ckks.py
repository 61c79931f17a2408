"""The ckks channel: sums within the stated error, what travels, who opens, and bytes that others made up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.conformance.channel import checks as channel_checks
from bench.conformance.checks import Finding, run_checks
from bench.core.errors import CannotOpen, SiloBenchError, UsageError
from bench.core.parties import DEALER, SERVER
from bench.core.streams import SecretStreams
from bench.core.update import Form, Grid, Layout, Update
from bench.defense.channel import Knowledge
from bench.defense.public import Public, alike
from defenses import ckks
from defenses.channels.flat_ckks import FlatCKKS
from defenses.channels.seal_parameters import Parameters
from tests.defenses.exchange import one_round, public

SECRET = SecretStreams("silo-0")
SMALL = Layout(("a", "b"), ((2, 3), (5,)))


@pytest.fixture(scope="module")
def channel() -> FlatCKKS:
    return FlatCKKS().for_silos(2)


@pytest.fixture(scope="module")
def keys(channel) -> dict[str, dict[str, bytes]]:
    return {party: dict(held) for party, held in channel.keys(public(SMALL, 2), SECRET).items()}


def seal(channel, values, layout, keys) -> list[bytes]:
    return list(channel.seal(Update(np.asarray(values, np.float32), layout), keys["silo-0"], SECRET, 0))


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 120)), min_size=1, max_size=3),
    st.integers(1, 5),
    st.sampled_from(["silos", "server"]),
    st.sampled_from([1e-2, 1e-4, 1e-7]),
    st.sampled_from([1e-4, 0.05, 1.0]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_an_opened_sum_is_the_sum_within_the_error(shapes, silos, holder, error, size, masked, seed) -> None:
    layout = Layout(tuple(map(str, range(len(shapes)))), tuple(shapes))
    rng = np.random.default_rng(seed)
    support = np.flatnonzero(rng.random(layout.size) < 0.5) if masked else None
    count = layout.size if support is None else len(support)
    values = (rng.standard_normal((silos, count)) * size).clip(-4, 4).astype(np.float32)
    run = one_round(
        FlatCKKS(error, 32.0, holder), layout, [Update(v, layout, support=support) for v in values], support
    )
    expected = Form(layout, None, support).spread(values.sum(0, dtype=np.float64))
    assert set(run.opened) == ({SERVER} if holder == "server" else {f"silo-{i}" for i in range(silos)})
    for opened in run.opened.values():
        assert np.abs(opened - expected).max() <= error
        if support is not None:
            assert not opened[np.setdiff1d(np.arange(layout.size), support)].any()


def test_values_at_the_limit_do_not_wrap(channel) -> None:
    layout = Layout(("a",), ((2048,),))
    signs = np.where(np.random.default_rng(0).random(2048) < 0.5, -1, 1)
    for pattern in (np.ones(2048), signs):
        run = one_round(FlatCKKS(largest=128.0), layout, [np.asarray(128.0 * pattern, np.float32)] * 2)
        np.testing.assert_allclose(run.opened["silo-0"], 256.0 * pattern, atol=1e-4)


def test_room_grows_with_the_public_weights(keys) -> None:
    """A silo of weight 50 may send values 50 times as large, and the prime is chosen for the sum of all weights."""
    layout = Layout(("a",), ((2048,),))
    known = Public(alike(layout), ("silo-0", "silo-1"), {"silo-0": 50, "silo-1": 10_000}, 1, (("silo-0", "silo-1"),))
    channel = FlatCKKS().for_public(known)
    assert channel.parameters().data_bits == 44
    assert FlatCKKS().for_silos(2).parameters().data_bits == 32
    held = channel.keys(known, SECRET)
    total = None
    for weight in known.weights.values():
        update = Update(np.full(2048, 4.0 * weight, np.float32), layout, weight)
        (frame,) = channel.seal(update, held["silo-0"], SECRET, 0)
        total = channel.add(total, frame, held["server"])
    opened = channel.open(iter([channel.finish(total, held["server"])]), held["silo-0"], Form(layout), 2)
    np.testing.assert_allclose(opened, 4.0 * 10_050, atol=channel.error)


def test_what_lies_above_the_limit_is_refused(channel, keys) -> None:
    with pytest.raises(SiloBenchError, match="above 4, its weight times 'largest'"):
        seal(channel, [4.01] + [0.0] * 10, SMALL, keys)


def test_the_stated_error_holds_at_thirty_silos_and_a_small_margin() -> None:
    """The bound is for one value in 2**75; the largest of 2048 x 30 draws is near 4.5 deviations of 10.3."""
    layout = Layout(("a",), ((2048,),))
    values = np.random.default_rng(3).uniform(-4, 4, 2048).astype(np.float32)
    channel = FlatCKKS(1e-5)
    run = one_round(channel, layout, [values] * 30)
    worst = np.abs(run.opened["silo-0"] - 30 * values.astype(np.float64)).max()
    assert 1e-8 < worst < channel.error


def test_bytes_are_half_the_primes_bits_a_value(channel) -> None:
    """4096 coefficients x 2 polynomials x 32 bits for 2048 values: 16 bytes; a masked value costs nothing."""
    layout = Layout(("a",), ((8192,),))
    half = np.arange(0, 8192, 2)
    dense = one_round(FlatCKKS(), layout, [np.ones(8192, np.float32)] * 2)
    masked = one_round(
        FlatCKKS(), layout, [Update(np.ones(4096, np.float32), layout, support=half) for _ in range(2)], half
    )
    for run, expected in ((dense, 16.0), (masked, 8.0)):
        uploads = [m for m in run.messages if m.stage == "upload"]
        # the header of the summands' form is a few dozen bytes
        assert sum(uploads[0].lengths[1:]) / 8192 == expected
        assert uploads[0].lengths[0] < 100
        sums = [m for m in run.messages if m.stage == "sum"]
        assert sum(sums[0].lengths[2:]) / 8192 == expected


@pytest.mark.parametrize("holder", ["silos", "server"])
def test_the_secret_key_reaches_its_holders_only(holder) -> None:
    channel = FlatCKKS(key_holder=holder)
    run = one_round(channel, SMALL, [np.ones(SMALL.size, np.float32)] * 2)
    for party in ("silo-0", "silo-1", SERVER):
        holds = (party == SERVER) == (holder == "server")
        assert ("keys/secret" in run.states[party]) == holds
        if not holds:
            raw = run.states[party]["keys/public"].tobytes()
            assert not channel.for_silos(2).codec().load_context(raw).has_secret_key()
    assert {name.rpartition("/")[2] for name in run.states[DEALER]} == {"secret", "public"}


@pytest.mark.parametrize(
    ("holder", "reader", "reads"), [("silos", SERVER, 0), ("silos", "silo-0", 2), ("server", SERVER, 2)]
)
def test_what_a_party_reads_follows_from_its_key(holder, reader, reads) -> None:
    """With all messages before it, a key holder reads the others' uploads (and the sum where it travels)."""
    channel = FlatCKKS(key_holder=holder)
    values = [np.full(SMALL.size, i + 1.0, np.float32) for i in range(2)]
    run = one_round(channel, SMALL, values)
    held = {k[5:]: v for k, v in run.states[reader].items() if k.startswith("keys/")}
    knowledge = Knowledge(frozenset({reader}), public(SMALL, 2), run.messages, {reader: held}, {})
    found = list(channel.read(knowledge))
    assert len(found) == reads
    for candidate in found:
        np.testing.assert_allclose(candidate.values, sum(values[int(s[-1])] for s in candidate.silos), atol=1e-4)


def test_another_federations_key_opens_noise(channel, keys) -> None:
    upload = seal(channel, np.ones(SMALL.size), SMALL, keys)
    other = FlatCKKS().keys(public(SMALL, 2), SECRET)["silo-0"]
    opened = channel.open(iter(upload), other, Form(SMALL), 0)
    assert np.abs(opened - 1).max() > 1


def test_two_seals_of_one_update_share_nothing(channel, keys) -> None:
    first, second = (seal(channel, np.ones(SMALL.size), SMALL, keys)[0] for _ in range(2))
    blocks = {first[i : i + 16] for i in range(0, len(first), 16)}
    assert not blocks & {second[i : i + 16] for i in range(0, len(second), 16)}


def test_a_ciphertext_looks_uniform(channel, keys) -> None:
    """Top bits of the coefficients: 8192 fair coins up to the prime's 2**-20, 5 deviations of sqrt(8192) / 2."""
    from defenses.channels.seal_ciphertexts import unpack_words

    words = unpack_words(seal(channel, np.ones(SMALL.size), SMALL, keys)[0], 32)
    assert abs(int((words >> np.uint64(31)).sum()) - 4096) < 5 * 45.3


@pytest.mark.parametrize("change", ["fewer", "more", "short", "long", "noise", "empty"])
def test_malformed_uploads_are_refused(channel, keys, change) -> None:
    frames = seal(channel, np.ones(SMALL.size), SMALL, keys)
    broken = {
        "fewer": [],
        "more": [*frames, frames[0]],
        "short": [frames[0][:-1]],
        "long": [frames[0] + b"\0"],
        "noise": [b"\xff" * len(frames[0])],
        "empty": [b""],
    }[change]
    with pytest.raises(CannotOpen):
        channel.open(iter(broken), keys["silo-0"], Form(SMALL), 0)
    if change not in ("fewer", "more"):
        with pytest.raises(SiloBenchError):
            channel.add(None, broken[0], keys["server"])


def test_a_sum_of_more_uploads_than_silos_is_refused(channel, keys) -> None:
    frames = seal(channel, np.ones(SMALL.size), SMALL, keys)
    with pytest.raises(CannotOpen, match="a sum of 3 uploads was not foreseen"):
        channel.open(iter(frames), keys["silo-0"], Form(SMALL), 3)


@pytest.mark.parametrize("held", [{}, {"public": True}, {"secret": b"no key"}])
def test_without_the_secret_key_nothing_opens(channel, keys, held) -> None:
    frames = seal(channel, np.ones(SMALL.size), SMALL, keys)
    key = {"public": keys["server"]["public"]} if held == {"public": True} else held
    with pytest.raises(CannotOpen):
        channel.open(iter(frames), key, Form(SMALL), 0)


def test_what_cannot_be_encrypted_is_refused(channel, keys) -> None:
    values = np.ones(SMALL.size, np.float32)
    with pytest.raises(SiloBenchError, match="not finite"):
        seal(channel, np.where(np.arange(SMALL.size) == 3, np.nan, values), SMALL, keys)
    with pytest.raises(SiloBenchError, match="real values only"):
        list(channel.seal(Update(values.astype(np.int64), SMALL, grid=Grid(8, 1.0)), keys["silo-0"], SECRET, 0))
    with pytest.raises(CannotOpen, match="never sends"):
        channel.open(iter(seal(channel, values, SMALL, keys)), keys["silo-0"], Form(SMALL, Grid(8, 1.0)), 0)


def test_foreign_sums_are_refused(channel, keys) -> None:
    frame = seal(channel, np.ones(SMALL.size), SMALL, keys)[0]
    with pytest.raises(SiloBenchError, match="not started by this channel"):
        channel.add(np.zeros(3), frame, keys["server"])
    with pytest.raises(SiloBenchError, match="nothing to finish"):
        channel.finish(None, keys["server"])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"degree": 2048, "error": 1e-6}, "caps it at 54 bits"),
        ({"degree": 1024}, "caps it at 27 bits"),
        ({"error": 1e-13}, "out of reach"),
    ],
)
def test_options_that_no_secure_parameters_fulfil_are_refused_when_built(wrong, says) -> None:
    with pytest.raises(UsageError, match=says):
        ckks.build(ckks.Config(**wrong))


@pytest.mark.parametrize("wrong", [{"degree": 4095}, {"error": 0}, {"key_holder": "outsider"}, {"bits": 3}])
def test_wrong_options_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        ckks.Config(**wrong)


def finding(channel: FlatCKKS, title: str) -> Finding:
    """One check of the conformance kit."""
    return next(iter(run_checks(check for check in channel_checks(channel) if check.title == title)))


class TooCoarse(FlatCKKS):
    """Broken: a scale 256 times too small for the error that it states."""

    def parameters(self) -> Parameters:
        right = super().parameters()
        return replace(right, scale_bits=right.scale_bits - 8)


class Repeats(FlatCKKS):
    """Broken: what was sealed once is sent again."""

    kept: ClassVar[list[bytes]] = []

    def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
        self.kept[:] = self.kept or list(super().seal(update, keys, secret, round))
        yield from self.kept


class DealsToAll(FlatCKKS):
    """Broken: the server is handed the silos' secret key."""

    def keys(self, public: Public, secret: SecretStreams) -> Mapping[str, Mapping[str, bytes]]:
        dealt = super().keys(public, secret)
        return dict.fromkeys(dealt, dealt["silo-0"])


def test_broken_copies_are_caught() -> None:
    assert finding(FlatCKKS(), "channel: sum").passed
    assert "the channel states" in finding(TooCoarse(), "channel: sum").says
    repeated = finding(Repeats(), "channel: sealing twice")
    assert not repeated.passed
    run = one_round(DealsToAll(), SMALL, [np.ones(SMALL.size, np.float32)] * 2)
    held = {k[5:]: v for k, v in run.states[SERVER].items() if k.startswith("keys/")}
    known = Knowledge(frozenset({SERVER}), public(SMALL, 2), run.messages, {SERVER: held}, {})
    assert len(list(DealsToAll().read(known))) == 3
