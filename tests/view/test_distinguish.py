"""Two chosen updates through a channel's own endpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError
from bench.core.parties import silo
from bench.core.streams import SecretStreams
from bench.core.update import Form, Layout, Update
from bench.defense.defaults.plain import PlainChannel
from bench.defense.public import Public, alike
from bench.view.openers.base import Traits
from bench.view.openers.distinguish import _setting, traits
from tests.view import broken_channels as channels
from tests.view.synthetic import Synthetic, layout_of

Federate = Callable[..., Synthetic]


def public(silos: int = 3, size: int = 500) -> Public:
    names = tuple(silo(i) for i in range(silos))
    return Public(alike(layout_of(size)), names, dict.fromkeys(names, 5), 2, (names, names))


class Compresses(channels.Denies):
    """Drops trailing zeros before it encrypts: the length tells how much was learnt."""

    def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
        plain = np.asarray(update.values, dtype="<f4").tobytes().rstrip(b"\0")
        nonce = self.nonce(secret, round, 0)
        yield nonce + channels.ctr(keys["shared"], nonce, plain)

    def open(self, frames: Iterator[bytes], keys: Mapping[str, bytes], form: Form, count: int) -> NDArray[np.floating]:
        return np.zeros(form.layout.size)


class TellsTheNorm(channels.Denies):
    """A header in clear says whether the update is large."""

    def seal_part(self, values: np.ndarray, key: bytes, nonce: bytes) -> bytes:
        return nonce + bytes([3, int(np.linalg.norm(values) > 0)]) + channels.ctr(key, nonce, values.tobytes())

    def open_part(self, frame: bytes, key: bytes) -> np.ndarray:
        return np.zeros((len(frame) - 18) // 4)


class RandomLengths(channels.Denies):
    """Pads to a random length, whatever the update is; and counts rounds in its header."""

    def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
        nonce = secret.token("nonce", round, size=16)
        yield nonce + bytes([round % 2, round]) + bytes(secret.token("length", round, size=1)[0])

    def open_part(self, frame: bytes, key: bytes) -> np.ndarray:
        return np.zeros(1)


@pytest.mark.parametrize("silos", [1, 2, 3, 5])
def test_fresh_nonces_tell_nothing(silos: int) -> None:
    assert traits(channels.Sealing(), public(silos)) == Traits()


@pytest.mark.parametrize("silos", [1, 2, 3])
@pytest.mark.parametrize("channel", [PlainChannel(), channels.ReusesKeystream(), channels.ForgetsToEncrypt()])
def test_equal_bytes_for_equal_updates_are_seen(silos: int, channel: channels.Sealing) -> None:
    # ForgetsToEncrypt still draws a nonce, so its bytes differ, but its header bytes tell
    found = traits(channel, public(silos))
    assert found.deterministic == (set() if isinstance(channel, channels.ForgetsToEncrypt) else {"upload"})
    assert found.lengths == set()


@pytest.mark.parametrize("silos", [1, 2, 3])
def test_lengths_that_depend_on_the_update_are_seen(silos: int) -> None:
    assert traits(Compresses(), public(silos)) == Traits(lengths=frozenset({"upload"}))


@pytest.mark.parametrize("silos", [1, 2, 3])
def test_header_bytes_that_depend_on_the_update_are_seen(silos: int) -> None:
    # byte 17 of the second frame: the first is the header of the form
    assert traits(TellsTheNorm(), public(silos)) == Traits(headers=(("upload", (64 + 17,)),))


@pytest.mark.parametrize("silos", [1, 2, 3])
def test_lengths_and_counters_that_depend_on_anything_else_are_not_held_against_a_channel(silos: int) -> None:
    assert traits(RandomLengths(), public(silos)) == Traits()


@pytest.mark.parametrize("silos", [1, 2, 3, 7])
def test_both_updates_are_sealed_twelve_times_and_in_every_round_with_two_silos(silos: int) -> None:
    small, chosen = _setting(public(silos))
    assert sorted(chosen.values()) == [False] * 12 + [True] * 12
    for name in small.silos:
        mine = [chosen[r, name] for r in range(small.rounds)]
        assert 0 < sum(mine) < len(mine)
        assert mine != [r % 2 == 0 for r in range(small.rounds)]
    if len(small.silos) > 1:
        assert all(len({chosen[r, s] for s in small.silos}) == 2 for r in range(small.rounds))
    assert small.layout.size <= 4096


def test_a_large_first_tensor_is_cut() -> None:
    wide = Public(alike(Layout(("a", "b"), ((64, 576), (576, 64)))), ("silo-0",), {"silo-0": 1}, 1, (("silo-0",),))
    assert _setting(wide)[0].layout.shapes == ((4096,),)


def test_a_channel_that_cannot_run_its_own_protocol_is_named() -> None:
    class Fails(PlainChannel):
        def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
            raise ZeroDivisionError("a zero update")

    with pytest.raises(SiloBenchError, match="channel Fails failed on two chosen updates of 250 values: a zero update"):
        traits(Fails(), public())


def test_what_a_message_shows_stands_in_the_view_until_it_is_opened(federate: Federate, tmp_path: Path) -> None:
    run = federate(Compresses(), size=500, release="none")
    view = run.view(tmp_path / "view", "server", "server")
    told = [r for r in view.readings if r.kind == "metadata"]
    assert {(r.round, *r.silos) for r in told} == set(run.updates)
    for reading in told:
        assert reading.how == "the lengths of 'upload' depend on the update"
        assert reading.values.tolist() == [len(b'{"values": 500}'), 16 + 4 * 500]
    # and a view may be handed the traits that were found before
    given = run.view(tmp_path / "given", "server", "server", traits=Traits())
    assert given.readings == ()
