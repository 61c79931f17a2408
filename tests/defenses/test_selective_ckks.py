"""Selective encryption: which coordinates are sealed, that the rest shows, that sums are right, that mixtures fail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.conformance.fixtures import LAYOUT, federate, random_delta
from bench.core.errors import CannotOpen, SiloBenchError
from bench.core.parties import SERVER
from bench.core.streams import SecretStreams
from bench.core.update import Form, Grid, Layout, Update
from bench.defense.channel import Knowledge
from bench.defense.parts import TrainJob
from defenses import selective_ckks
from defenses.channels.selective import SelectiveCKKS
from tests.defenses.exchange import public
from tests.perf.crypto_route import Router
from tests.perf.crypto_route import public as several_rounds

SECRET = SecretStreams("silo-0")
SMALL = Layout(("a", "b"), ((10, 30), (50,)))


@pytest.fixture(scope="module")
def channel() -> SelectiveCKKS:
    return SelectiveCKKS(0.1).for_public(public(SMALL, 2))


@pytest.fixture(scope="module")
def keys(channel) -> dict[str, dict[str, bytes]]:
    return {party: dict(held) for party, held in channel.keys(public(SMALL, 2), SECRET).items()}


def masked(keys: dict[str, bytes], mask: np.ndarray) -> dict[str, bytes]:
    return {**keys, "mask": np.packbits(mask).tobytes()}


def seal(channel, keys, values, mask=None, support=None) -> list[bytes]:
    held = keys["silo-0"] if mask is None else masked(keys["silo-0"], mask)
    return list(channel.seal(Update(np.asarray(values, np.float32), SMALL, support=support), held, SECRET, 1))


def added(channel, uploads, keys) -> list[bytes]:
    frames = []
    for parts in zip(*uploads, strict=True):
        total = None
        for part in parts:
            total = channel.add(total, part, keys["server"])
        frames.append(channel.finish(total, keys["server"]))
    return frames


@settings(max_examples=15, deadline=None)
@given(st.floats(0, 1), st.booleans(), st.integers(1, 2), st.integers(0, 2**32 - 1))
def test_sums_are_right_under_any_mask_and_support(channel, keys, sealed, sparse, silos, seed) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(SMALL.size) < sealed
    support = np.flatnonzero(rng.random(SMALL.size) < 0.5) if sparse else None
    count = SMALL.size if support is None else len(support)
    values = rng.uniform(-4, 4, (silos, count)).astype(np.float32)
    frames = added(channel, [seal(channel, keys, v, mask, support) for v in values], keys)
    form = Form(SMALL, None, support)
    opened = channel.open(iter(frames), keys["silo-1"], form, silos)
    expected = form.spread(values.sum(0, dtype=np.float64))
    assert np.abs(opened - expected).max() <= channel.error
    clear = np.flatnonzero(~mask) if support is None else support[~mask[support]]
    # the part in clear is a float64 sum of float32 values
    np.testing.assert_array_equal(opened[clear], expected[clear])


def test_the_first_round_is_sealed_whole_and_the_mask_is_the_first_sums() -> None:
    trial = federate(SelectiveCKKS(0.25), rounds=3)
    total = trial.expected(0, trial.transcript.public.silos)
    top = np.zeros(LAYOUT.size, bool)
    top[np.argsort(-np.abs(total))[: round(0.25 * LAYOUT.size)]] = True
    sealed: list[set[int]] = []
    for number in range(3):
        for who in trial.transcript.public.silos:
            frames = trial.frames(number, who)[1:]
            if number == 0:
                assert frames[0] == b"M"
                assert {frame[:1] for frame in frames[1:]} == {b"C"}
                continue
            mask = np.unpackbits(np.frombuffer(frames[0][1:], np.uint8), count=LAYOUT.size).astype(bool)
            sealed.append(set(np.flatnonzero(mask)))
            values = np.frombuffer(frames[1][1 + 16 :], "<f4")
            np.testing.assert_array_equal(values, trial.transcript.truth(number, who)[~mask])
    assert all(found == sealed[0] for found in sealed)
    # near the threshold the ciphertexts' noise decides
    assert len(sealed[0] ^ set(np.flatnonzero(top))) <= 4
    for _, number, opened in trial.sums:
        assert np.abs(opened.values - trial.expected(number, opened.silos)).max() < 1e-4


def test_a_silo_that_missed_the_first_round_agrees_on_the_mask() -> None:
    from bench.spec.run import Dropout

    for stage in ("train", "open"):
        trial = federate(SelectiveCKKS(0.25), rounds=3, dropouts=[Dropout(round=0, silo=0, stage=stage)])
        assert {round for _, round, _ in trial.sums} == {0, 1, 2}
        masks = {trial.frames(2, who)[1] for who in trial.transcript.public.silos}
        assert len(masks) == 1


def test_the_server_reads_what_is_in_clear_and_a_key_holder_all() -> None:
    channel = SelectiveCKKS(0.25)
    router = Router(channel, several_rounds(SMALL, 2, 2))
    router.prepare()
    rng = np.random.default_rng(5)
    values = rng.uniform(-4, 4, (2, 2, SMALL.size)).astype(np.float32)
    seen = []
    for round in range(2):
        router.round(round, [Update(v, SMALL) for v in values[round]])
    mask = np.unpackbits(router.states["silo-0"]["keys/mask"], count=SMALL.size).astype(bool)
    assert mask.sum() == round_half(0.25 * SMALL.size)
    for reader in (SERVER, "silo-0"):
        held = {k[5:]: v for k, v in router.states[reader].items() if k.startswith("keys/")}
        messages = tuple(m for m in router.messages if m.round >= 0)
        known = Knowledge(frozenset({reader}), several_rounds(SMALL, 2, 2), messages, {reader: held}, {})
        seen.append(list(channel.read(known)))
        for found in seen[-1]:
            expected = sum(values[found.round, int(s[-1])] for s in found.silos).astype(np.float64)
            if found.support is None:
                np.testing.assert_allclose(found.values, expected, atol=1e-4)
            else:
                np.testing.assert_array_equal(found.support, np.flatnonzero(~mask))
                np.testing.assert_allclose(found.values[~mask], expected[~mask], atol=1e-6)
                assert not found.values[mask].any()
    server, silo = seen
    assert {(f.round, len(f.silos)) for f in server} == {(1, 1), (1, 2)}
    assert all(f.support is not None for f in server)
    whole = {(f.round, len(f.silos)) for f in silo if f.support is None}
    assert whole == {(0, 1), (0, 2), (1, 1), (1, 2)}


def round_half(value: float) -> int:
    return SMALL.size - round(SMALL.size - value)


def test_two_masks_of_one_round_are_not_added(channel, keys) -> None:
    mask = np.zeros(SMALL.size, bool)
    mask[:35] = True
    first = seal(channel, keys, np.ones(SMALL.size), mask)
    second = seal(channel, keys, np.ones(SMALL.size), np.roll(mask, 1))
    with pytest.raises(SiloBenchError, match="encrypt different coordinates"):
        added(channel, [first, second], keys)


def test_sealed_parts_are_fresh(channel, keys) -> None:
    mask = np.arange(SMALL.size) < 35
    first, second = (seal(channel, keys, np.ones(SMALL.size), mask) for _ in range(2))
    assert first[:2] == second[:2]
    assert not set(first[2:]) & set(second[2:])


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("damage", ["gone", "cut", "longer", "noise", "empty", "swapped"])
def test_malformed_uploads_raise_nothing_but_our_errors(channel, keys, position, damage) -> None:
    mask = np.arange(SMALL.size) < 35
    frames = seal(channel, keys, np.ones(SMALL.size), mask)
    good = list(frames)
    bad = {
        "gone": None,
        "cut": frames[position][:-3],
        "longer": frames[position] + bytes(5),
        "noise": frames[position][:1] + b"\xff" * (len(frames[position]) - 1),
        "empty": b"",
        "swapped": frames[(position + 1) % 3],
    }[damage]
    frames[position : position + 1] = [] if bad is None else [bad]
    with pytest.raises(CannotOpen):
        channel.open(iter(frames), keys["silo-0"], Form(SMALL), 0)
    if damage != "gone" and (position, damage) != (0, "noise"):
        total = channel.add(None, good[position], keys["server"])
        with pytest.raises(SiloBenchError):
            channel.add(total, frames[position], keys["server"])


def test_too_many_frames_are_refused(channel, keys) -> None:
    frames = seal(channel, keys, np.ones(SMALL.size))
    with pytest.raises(CannotOpen, match="more ciphertexts"):
        channel.open(iter([*frames, frames[-1]]), keys["silo-0"], Form(SMALL), 0)


def test_what_it_does_not_carry_is_refused(channel, keys) -> None:
    update = Update(np.zeros(SMALL.size, np.int64), SMALL, grid=Grid(8, 1.0))
    with pytest.raises(SiloBenchError, match="real values only"):
        list(channel.seal(update, keys["silo-0"], SECRET, 0))
    with pytest.raises(SiloBenchError, match="not finite"):
        seal(channel, keys, np.full(SMALL.size, np.nan))


@pytest.mark.parametrize("wrong", [{"share": 0}, {"share": 1}, {"key_holder": "server"}])
def test_wrong_options_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        selective_ckks.Config(**wrong)


def test_all_silos_learn_the_same_mask_from_equal_values() -> None:
    """Equal magnitudes: as many as the share says, and noise in the last digits must not part the silos."""

    def flat(job: TrainJob) -> np.ndarray:
        return np.sign(random_delta(job)).astype(np.float32) * np.float32(0.01)

    trial = federate(SelectiveCKKS(0.3), flat, rounds=2)
    assert {round for _, round, _ in trial.sums} == {0, 1}
