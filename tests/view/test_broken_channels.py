"""Channels with one mistake each: the row of the views changes by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.defense.channel import Channel
from bench.view.view import View
from tests.view import broken_channels as channels
from tests.view.synthetic import Synthetic

Federate = Callable[..., Synthetic]
OPENED_BY_THE_SERVER = [
    channels.ForgetsToEncrypt(),
    channels.ForgetsAndDenies(),
    channels.ShipsTheKey(),
    channels.ShipsTheKeyInItsOwnFrame(),
]


def name(channel: Channel) -> str:
    return type(channel).__name__


def relative(values: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(values - truth) / np.linalg.norm(truth))


def assert_opened(view: View, run: Synthetic) -> None:
    foreign = {(r, s) for r, s in run.updates if s not in view.coalition}
    assert {(r.round, *r.silos) for r in view.uploads()} == foreign
    for reading in view.uploads():
        assert relative(reading.values, run.summand(reading.round, *reading.silos)) < 1e-3


@pytest.mark.parametrize("channel", OPENED_BY_THE_SERVER, ids=name)
@pytest.mark.parametrize("size", [300, 10_000])  # one frame, and several
def test_the_server_opens_what_was_not_really_sealed(
    federate: Federate, tmp_path: Path, channel: Channel, size: int
) -> None:
    run = federate(channel, size=size, release="none")
    view = run.view(tmp_path / "view", "server", "server")
    assert_opened(view, run)
    # and with the uploads it has the model, although nobody released it
    assert view.adapters()[-1].round == 1
    np.testing.assert_allclose(view.adapters()[-1].values, run.global_adapter, atol=1e-6)


def test_the_same_channel_done_right_gives_the_server_nothing(federate: Federate, tmp_path: Path) -> None:
    for channel in (channels.Sealing(), channels.Denies()):
        run = federate(channel, size=10_000, release="none")
        assert run.view(tmp_path / name(channel), "server", "server").readings == ()


class LongHeader(channels.Denies):
    """The right channel, with the same 64 bytes before every message."""

    def seal_part(self, values: np.ndarray, key: bytes, nonce: bytes) -> bytes:
        return b"protocol 1.0; aes-256-ctr; float32; little-endian; flat; dense. " + super().seal_part(
            values, key, nonce
        )

    def open_part(self, frame: bytes, key: bytes) -> np.ndarray:
        return super().open_part(frame[64:], key)


def test_a_header_that_all_messages_share_is_no_shared_keystream(federate: Federate, tmp_path: Path) -> None:
    run = federate(LongHeader(), release="none")
    assert run.view(tmp_path / "view", "server", "server").readings == ()


def test_a_key_that_the_coalition_holds_is_tried_whatever_the_channel_says(federate: Federate, tmp_path: Path) -> None:
    run = federate(channels.Denies(), release="none")
    run.transcript.drop_frames(-1)  # so that the key is not found in the dealer's message
    view = run.view(tmp_path / "view", "server+silo", "server", "silo-0")
    assert_opened(view, run)
    assert all("AES-CTR" in r.how for r in view.uploads())


@pytest.mark.parametrize("size", [300, 10_000])
def test_a_keystream_reused_by_xor_shows_the_xor_of_two_updates(federate: Federate, tmp_path: Path, size: int) -> None:
    run = federate(channels.ReusesKeystreamPerRound(), size=size, release="none")
    view = run.view(tmp_path / "view", "server", "server")
    found = {r.silos: r for r in view.readings if r.kind == "xor" and r.round == 0}
    assert set(found) == {frozenset({"silo-0", "silo-1"}), frozenset({"silo-0", "silo-2"})}
    for silos, reading in found.items():
        first, second = (run.summand(0, s).view("<u4") for s in sorted(silos))
        np.testing.assert_array_equal(reading.values, first ^ second)
    assert not view.uploads()


def test_across_rounds_too(federate: Federate, tmp_path: Path) -> None:
    run = federate(channels.ReusesKeystream(), silos=1, release="none")
    view = run.view(tmp_path / "view", "server", "server")
    differences = [r for r in view.readings if r.kind == "xor"]
    assert [r.terms for r in differences] == [((0, "silo-0", -1), (1, "silo-0", 1))]


@pytest.mark.parametrize("channel", [channels.ReusesKeystream(), channels.ReusesKeystreamPerRound()], ids=name)
@pytest.mark.parametrize("size", [300, 10_000])
def test_a_plaintext_of_its_own_opens_all_that_share_its_keystream(
    federate: Federate, tmp_path: Path, channel: Channel, size: int
) -> None:
    run = federate(channel, size=size, release="none")
    view = run.view(tmp_path / "view", "server+silo", "server", "silo-1")
    assert_opened(view, run)
    assert all("keystream" in r.how for r in view.uploads())


@pytest.mark.parametrize("size", [300, 10_000])
def test_a_reused_additive_pad_shows_the_difference_of_two_updates(
    federate: Federate, tmp_path: Path, size: int
) -> None:
    run = federate(channels.ReusesAdditivePad(), size=size, release="none")
    view = run.view(tmp_path / "view", "server", "server")
    found = [r for r in view.readings if r.kind == "difference"]
    assert {(r.round, r.silos) for r in found} == {
        (r, frozenset({"silo-0", s})) for r in (0, 1) for s in ("silo-1", "silo-2")
    }
    for reading in found:
        truth = sum(c * run.summand(r, s) for r, s, c in reading.terms)
        assert relative(reading.values, np.asarray(truth)) < 1e-3
    assert not view.uploads()


def test_with_the_released_models_the_differences_give_every_update(federate: Federate, tmp_path: Path) -> None:
    run = federate(channels.ReusesAdditivePad(), rounds=3, release="every-round")
    view = run.view(tmp_path / "view", "server", "server")
    # the sum of each round comes from the adapters before and after it; with the differences, that is every summand
    assert_opened(view, run)
    assert all("combined" in r.how for r in view.uploads())


def test_a_silo_solves_the_additive_pad_with_its_own_update(federate: Federate, tmp_path: Path) -> None:
    run = federate(channels.ReusesAdditivePad(), release="none")
    assert_opened(run.view(tmp_path / "view", "server+silo", "server", "silo-2"), run)


def test_deterministic_sealing_is_named(federate: Federate, tmp_path: Path) -> None:
    run = federate(channels.ReusesKeystreamPerRound(), release="none")
    view = run.view(tmp_path / "view", "server", "server")
    assert "equal updates give equal bytes in 'upload'" in {r.how for r in view.readings if r.kind == "metadata"}
