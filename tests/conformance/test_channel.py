"""The kit passes channels that keep the rules, and fails a copy for every rule that it breaks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.conformance import channel as kit
from bench.conformance.checks import Finding, run_checks
from bench.conformance.fixtures import LAYOUT
from bench.core.errors import CannotOpen, SiloBenchError
from bench.core.frames import decode_frame
from bench.core.streams import SecretStreams
from bench.core.update import Form, Update
from bench.defense.channel import Channel
from bench.defense.defaults.plain import PlainChannel
from bench.defense.sum_channel import SumChannel

Keys = Mapping[str, bytes]


def findings(channel: Channel) -> dict[str, Finding]:
    return {found.title: found for found in run_checks(kit.checks(channel))}


def failed(channel: Channel) -> dict[str, str]:
    return {title: found.says for title, found in findings(channel).items() if not found.passed}


def test_the_plain_channel_passes() -> None:
    found = findings(PlainChannel())
    assert all(finding.passed for finding in found.values()), found
    assert found["channel: sealing twice"].says == "uploads travel in clear, and no key is needed to read them"
    assert found["channel: drop-out at 'upload'"].says == "round 0 sums 2 of 3 silos, later rounds all"


class Masked(PlainChannel):
    """Frames under a keystream of one key that all silos and the server hold; a salt makes every frame new.

    With ``salted`` False the keystream is used again and again: what the kit must find.
    """

    dealt = True
    salted = True

    def keys(self, public: Any, secret: SecretStreams) -> Mapping[str, Keys]:
        key = {"key": secret.token("key")}
        return dict.fromkeys((*public.silos, "server"), key)

    def _mask(self, frame: bytes, keys: Keys, salt: bytes) -> bytes:
        if "key" not in keys:
            raise SiloBenchError("no key has arrived")
        stream = hashlib.shake_256(keys["key"] + salt).digest(len(frame))
        return (np.frombuffer(frame, np.uint8) ^ np.frombuffer(stream, np.uint8)).tobytes()

    def seal(self, update: Update, keys: Keys, secret: SecretStreams, round: int) -> Iterator[bytes]:
        for frame in super().seal(update, keys, secret, round):
            salt = secret.token("salt", round, size=16) if self.salted else bytes(16)
            yield salt + self._mask(frame, keys, salt)

    def add(self, total: object | None, frame: bytes, keys: Keys) -> object:
        return super().add(total, self._mask(frame[16:], keys, frame[:16]), keys)

    def open(self, frames: Iterator[bytes], keys: Keys, form: Form, count: int) -> NDArray[np.floating]:
        if "key" not in keys:
            raise CannotOpen("no key")
        if count == 0:
            frames = (self._mask(frame[16:], keys, frame[:16]) for frame in frames)
        return super().open(frames, keys, form, count)


def test_a_channel_that_seals_afresh_passes() -> None:
    found = findings(Masked())
    wrong = {title: finding.says for title, finding in found.items() if not finding.passed}
    assert not wrong
    assert found["channel: sealing twice"].says.startswith("the same update is sealed to different bytes")


def test_a_keystream_used_twice_is_found() -> None:
    class Reused(Masked):
        salted = False

    wrong = failed(Reused())
    assert set(wrong) == {"channel: sealing twice"}
    assert "nothing fresh is in them" in wrong["channel: sealing twice"]


def test_a_sum_beyond_the_stated_error_is_found() -> None:
    class Biased(PlainChannel):
        def finish(self, total: object, keys: Keys) -> bytes:
            assert isinstance(total, np.ndarray)
            return super().finish(total + 1e-6, keys)

    assert "is off by 1e-06; the channel states 0" in failed(Biased())["channel: sum"]

    class Honest(Biased):
        error = 2e-6

    assert not failed(Honest())


def test_a_sum_that_forgets_a_silo_is_found() -> None:
    class Forgetful(PlainChannel):
        def add(self, total: object | None, frame: bytes, keys: Keys) -> object:
            return decode_frame(frame).astype(np.float64) if total is None else total

    assert {"channel: sum", "channel: one and two silos"} <= set(failed(Forgetful()))


def test_an_exception_of_another_kind_on_hostile_bytes_is_found() -> None:
    class Careless(PlainChannel):
        def add(self, total: object | None, frame: bytes, keys: Keys) -> object:
            values = np.frombuffer(frame[16:], "<f4").astype(np.float64)
            return values if total is None else total + values  # type: ignore[operator]

    says = failed(Careless())["channel: hostile 'upload'"]
    assert "raised ValueError" in says
    assert "not SiloBenchError" in says


def test_accepting_a_broken_message_is_found() -> None:
    class Tolerant(PlainChannel):
        def add(self, total: object | None, frame: bytes, keys: Keys) -> object:
            count = int.from_bytes(frame[8:16], "little")
            return super().add(total, frame[: 16 + 4 * count], keys)

    assert failed(Tolerant()) == {
        "channel: hostile 'upload'": "a 'upload' message that was padded with a megabyte was accepted."
    }


def test_a_sum_of_no_numbers_is_found() -> None:
    class Infinite(PlainChannel):
        def add(self, total: object | None, frame: bytes, keys: Keys) -> object:
            try:
                return super().add(total, frame, keys)
            except SiloBenchError:
                return np.full_like(total, np.nan) if isinstance(total, np.ndarray) else np.zeros(LAYOUT.size)

    assert "channel: hostile 'upload'" in failed(Infinite())


def test_a_channel_that_refuses_everything_does_not_pass_as_careful() -> None:
    class Dead(PlainChannel):
        def add(self, total: object | None, frame: bytes, keys: Keys) -> object:
            raise SiloBenchError("no")

    assert set(failed(Dead())) == set(findings(Dead()))


def test_a_reading_of_nothing_and_a_wrong_opener_are_found() -> None:
    class Blind(PlainChannel):
        def read(self, knowledge: Any) -> Any:
            raise CannotOpen("will not say")

    assert "channel: reading" in failed(Blind())

    class Both(PlainChannel):
        opener = "silos"

        def stages(self) -> Any:
            return super().stages()[:-1]

    assert "channel: opener" in failed(Both())


def test_channels_of_integers_are_handed_integers() -> None:
    class Integers(SumChannel):
        accepts = frozenset({"grid"})

        def seal(self, update: Update, keys: Keys, secret: SecretStreams, round: int) -> Iterator[bytes]:
            assert update.grid is not None
            yield update.values.astype("<i8").tobytes()

        def add(self, total: object | None, frame: bytes, keys: Keys) -> object:
            if len(frame) != 8 * LAYOUT.size if total is None else len(frame) != total.nbytes:  # type: ignore[attr-defined]
                raise SiloBenchError("a frame of another length")
            values = np.frombuffer(frame, "<i8")
            if np.abs(values).max() > 2**20:
                raise SiloBenchError("a value is out of range")
            return values if total is None else total + values  # type: ignore[operator]

        def finish(self, total: object, keys: Keys) -> bytes:
            assert isinstance(total, np.ndarray)
            return total.tobytes()

        def open(self, frames: Iterator[bytes], keys: Keys, form: Form, count: int) -> NDArray[np.floating]:
            found = b"".join(frames)
            if len(found) != 8 * form.layout.size:
                raise CannotOpen("another length")
            values = np.frombuffer(found, "<i8")
            if np.abs(values).max() > 2**30:
                raise CannotOpen("a value is out of range")
            return values / 1024

    found = findings(Integers())
    wrong = {title: finding.says for title, finding in found.items() if not finding.passed}
    assert not wrong
    assert found["channel: sum"].says == "the largest error of a sum is 0.0e+00"
