"""Noise is no reading: what is rightly sealed, opened with a wrong key, or guessed from public knowledge."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bench.core.errors import CannotOpen, SiloBenchError
from bench.core.streams import SecretStreams
from bench.core.update import Form, Update
from bench.defense.channel import Candidate, Knowledge
from bench.defense.defaults.mean import Mean
from bench.defense.defaults.plain import PlainChannel
from tests.view import broken_channels as channels
from tests.view.synthetic import Synthetic

Federate = Callable[..., Synthetic]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(size=2, silos=3, seed=8942)  # read as half floats, two random values agree once in a few thousand times
@given(size=st.integers(2, 3000), silos=st.integers(1, 4), seed=st.integers(0, 2**32))
def test_what_is_rightly_sealed_gives_the_server_nothing(size: int, silos: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        run = Synthetic(root / "run", channels.Sealing(), size=size, silos=silos, seed=seed, release="none")
        view = run.view(root / "view", "server", "server")
        assert view.readings == ()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(size=st.integers(2, 2000), seed=st.integers(0, 2**32), truth=st.booleans())
def test_random_bytes_are_no_reading_checked_or_not(size: int, seed: int, truth: bool) -> None:
    class Noise(channels.Denies):
        def seal(self, update: Update, keys: Mapping[str, bytes], secret: SecretStreams, round: int) -> Iterator[bytes]:
            yield rng.bytes(4 * len(update.values) + int(rng.integers(0, 100)))

        def open(
            self, frames: Iterator[bytes], keys: Mapping[str, bytes], form: Form, count: int
        ) -> NDArray[np.floating]:
            return np.zeros(form.layout.size)

    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        run = Synthetic(root / "run", Noise(), size=max(size, 64), seed=seed, release="none", truth=truth)
        view = run.view(root / "view", "server", "server")
        assert {r.kind for r in view.readings} <= {"metadata"}


class WrongKey(channels.Sealing):
    """Reads with a key that is not the one."""

    def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
        for message in knowledge.messages:
            if message.stage == "upload":
                values = np.concatenate([self.open_part(f, bytes(32)) for f in list(message.frames())[1:]])
                yield Candidate(message.round, frozenset({message.sender}), values, "the wrong key")


class Boasts(channels.ForgetsToEncrypt):
    """Sends plaintext, and covers it with noise that it calls its own opening, of an error as large as it likes."""

    error = 1e9

    def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
        rng = np.random.default_rng(3)
        for message in knowledge.messages:
            if message.stage == "upload":
                values = rng.normal(0, 1e-2, knowledge.public.layout.size)
                yield Candidate(message.round, frozenset({message.sender}), values, "noise")


def test_a_wrong_key_is_no_reading(federate: Federate, tmp_path: Path) -> None:
    for truth in (True, False):
        run = federate(WrongKey(), release="none", truth=truth)
        assert run.view(tmp_path / f"view-{truth}", "server", "server").readings == ()


def test_noise_can_not_stand_in_front_of_what_opens(federate: Federate, tmp_path: Path) -> None:
    run = federate(Boasts(), release="none")
    view = run.view(tmp_path / "view", "server", "server")
    assert len(view.uploads()) == 6
    for reading in view.uploads():
        truth = run.summand(reading.round, *reading.silos)
        assert np.linalg.norm(reading.values - truth) < 1e-3 * np.linalg.norm(truth)


def test_a_coarse_opening_is_replaced_by_a_better_one(federate: Federate, tmp_path: Path) -> None:
    class Blurs(channels.ForgetsToEncrypt):
        error = 1e9

        def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
            for round, name in run.updates:
                truth = run.summand(round, name)
                yield Candidate(round, frozenset({name}), truth * 1.05, "within its own error")

    run = federate(Blurs(), release="none")
    view = run.view(tmp_path / "view", "server", "server")
    assert len(view.uploads()) == 6
    for reading in view.uploads():
        assert reading.how.startswith("raw float32")
        np.testing.assert_array_equal(reading.values, run.summand(reading.round, *reading.silos))


class Guesses(channels.Sealing):
    """Says that every upload is what everyone knows: the global adapter that the round started from."""

    def __init__(self, guess: NDArray[np.floating], factor: float) -> None:
        self.guess, self.factor = guess, factor

    def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
        for silo in knowledge.public.silos:
            yield Candidate(0, frozenset({silo}), self.guess * self.factor, "a guess")


@pytest.mark.parametrize("of", ["delta", "weights"])
def test_the_public_adapter_is_no_upload_however_small_the_step(federate: Federate, tmp_path: Path, of: str) -> None:
    aggregator = Mean(weighted=False, of=of)  # type: ignore[arg-type]
    start = federate(channels.Sealing(), aggregator=aggregator, seed=5).adapters[0]
    # whole weights are contributed, and a step of a thousandth of them: the guess is 99.9% right and knows nothing
    run = federate(Guesses(start, 1.0), aggregator=aggregator, seed=5, scale=5e-5, release="none")
    np.testing.assert_array_equal(run.adapters[0], start)
    assert run.view(tmp_path / "view", "server", "server").readings == ()


def test_one_silos_update_is_not_taken_for_anothers(federate: Federate, tmp_path: Path) -> None:
    class Swaps(channels.Sealing):
        def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
            yield Candidate(0, frozenset({"silo-1"}), run.summand(0, "silo-0"), "the wrong silo")
            yield Candidate(1, frozenset({"silo-0"}), run.summand(0, "silo-0"), "the wrong round")
            yield Candidate(0, frozenset({"silo-0", "silo-1"}), run.summand(0, "silo-0"), "not the sum")
            yield Candidate(0, frozenset({"silo-2"}), np.full(300, np.nan), "not a number")

    run = federate(Swaps(), weights=[1, 1, 1], release="none")
    assert run.view(tmp_path / "view", "server", "server").readings == ()


@pytest.mark.parametrize("failure", [RuntimeError("boom"), SiloBenchError("no such frame"), KeyError("shared")])
def test_a_read_that_breaks_is_an_error_that_names_the_channel(
    federate: Federate, tmp_path: Path, failure: Exception
) -> None:
    class Breaks(PlainChannel):
        def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
            raise failure

    run = federate(Breaks())
    with pytest.raises(SiloBenchError, match="channel Breaks failed while reading"):
        run.view(tmp_path / "view", "server", "server")
    assert list(tmp_path.glob("view*")) == []


def test_cannot_open_after_some_readings_keeps_them(federate: Federate, tmp_path: Path) -> None:
    class Stops(channels.Sealing):
        def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
            yield Candidate(0, frozenset({"silo-1"}), run.summand(0, "silo-1"), "luck")
            raise CannotOpen("no more")

    run = federate(Stops(), release="none")
    view = run.view(tmp_path / "view", "server", "server")
    assert [(r.round, r.silos, r.how) for r in view.readings] == [(0, frozenset({"silo-1"}), "luck")]


@pytest.mark.parametrize("values", [np.zeros(299), np.zeros((300, 1))])
def test_a_reading_of_the_wrong_shape_is_an_error(federate: Federate, tmp_path: Path, values: np.ndarray) -> None:
    class Short(channels.Sealing):
        def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
            yield Candidate(0, frozenset({"silo-1"}), values, "")

    run = federate(Short())
    with pytest.raises(SiloBenchError, match="channel Short read values of shape"):
        run.view(tmp_path / "view", "server", "server")


def test_an_update_of_zeros_is_read_without_dividing_by_it(federate: Federate, tmp_path: Path) -> None:
    run = federate(PlainChannel(), scale=0.0)
    view = run.view(tmp_path / "view", "server", "server")
    assert len(view.uploads()) == 6
    assert all(not r.values.any() for r in view.uploads())
    sealed = federate(WrongKey(), scale=0.0, release="none")
    assert sealed.view(tmp_path / "sealed", "server", "server").readings == ()
