"""Building a view: what the channel reads, what follows from it, what fails and what is left then."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.core.errors import CannotOpen, SiloBenchError
from bench.core.frames import encode_adapter
from bench.core.update import Layout, Update
from bench.defense.aggregator import Plan, ServerStep
from bench.defense.channel import Candidate, Knowledge
from bench.defense.defaults.mean import Mean
from bench.defense.defaults.plain import PlainChannel
from bench.defense.public import Public
from bench.transcript.transcript import RoundWriter
from bench.view import build as module
from bench.view.openers.base import Guess, Hints, Traits
from bench.view.view import View
from tests.view import broken_channels as channels
from tests.view.synthetic import Synthetic

Federate = Callable[..., Synthetic]
Told = Callable[[Knowledge], Iterable[Candidate]]


class Reads(channels.Sealing):
    """Opens to silos only, and reads what it is told to."""

    def __init__(self, told: Told) -> None:
        self.told = told

    def read(self, knowledge: Knowledge) -> Iterable[Candidate]:
        return self.told(knowledge)


def upload(values: NDArray[np.floating], *silos: str) -> Candidate:
    return Candidate(0, frozenset(silos), values, "told")


# -- what a view holds ---------------------------------------------------------------------------------------------


def test_it_holds_neither_seed_nor_truth_nor_a_key(federate: Federate, tmp_path: Path) -> None:
    run = federate(channels.Sealing(), release="none")
    secrets = [value.tobytes() for state in run.states.values() for key, value in state.items() if "keys/" in key]
    truths = [run.summand(r, s).tobytes()[:64] for r, s in run.updates]
    assert secrets
    for adversary, coalition in (("outsider", ()), ("server", ("server",)), ("silo", ("silo-0",))):
        view = run.view(tmp_path / adversary, adversary, *coalition)
        files = [p for p in view.directory.rglob("*") if p.is_file()]
        assert {p.parent.name for p in files} <= {adversary, "readings"}
        content = b"".join(p.read_bytes() for p in files)
        assert not any(secret in content for secret in secrets)
        assert not any(truth in content for truth in truths)
        manifest = json.loads((view.directory / "manifest.json").read_text())
        assert "seed" not in json.dumps(manifest)
        assert manifest["spec"] == {"federation": {"x": 1}}


def test_building_again_replaces_the_view(federate: Federate, tmp_path: Path) -> None:
    run = federate(PlainChannel())
    first = run.view(tmp_path / "view", "server", "server")
    second = run.view(tmp_path / "view", "outsider")
    assert first.readings != second.readings
    assert View.load(tmp_path / "view").adversary == "outsider"
    assert len(list((tmp_path / "view" / "readings").iterdir())) == 1
    assert [p.name for p in tmp_path.glob("view*")] == ["view"]


def test_thinned_messages_are_named_and_nothing_breaks(federate: Federate, tmp_path: Path) -> None:
    run = federate(PlainChannel(), rounds=3)
    run.transcript.drop_frames(1)
    server = run.view(tmp_path / "server", "server", "server")
    assert set(server.thinned) == {(1, "broadcast", "server"), *((1, "upload", s) for s in run.public.silos)}
    assert {r.round for r in server.uploads()} == {0, 2}
    # the sum of round 0 that the server opens gives the adapter that the dropped broadcast would have shown
    assert [r.round for r in server.adapters()] == [0, 1, 2]
    silo = run.view(tmp_path / "silo", "silo", "silo-0")
    assert set(silo.thinned) == {(1, "broadcast", "server"), (1, "upload", "silo-0")}
    assert [r.round for r in silo.adapters()] == [1, 2]
    assert run.view(tmp_path / "outsider", "outsider").thinned == ()


def test_damaged_frames_are_an_error(federate: Federate, tmp_path: Path) -> None:
    run = federate(PlainChannel())
    path = next((run.transcript.root / "rounds").glob("0001/frames.bin"))
    path.write_bytes(bytes(len(path.read_bytes())))
    with pytest.raises(SiloBenchError, match="damaged"):
        run.view(tmp_path / "view", "server", "server")


def test_an_imported_transcript_without_truth_is_read_and_marked(federate: Federate, tmp_path: Path) -> None:
    run = federate(channels.ForgetsAndDenies(), truth=False, release="none")
    view = run.view(tmp_path / "view", "server", "server")
    assert {(r.round, *r.silos) for r in view.uploads()} == set(run.updates)
    for reading in view.uploads():
        assert reading.unchecked
        np.testing.assert_array_equal(reading.values, run.summand(reading.round, *reading.silos))
    assert all(r.unchecked for r in view.adapters())
    assert [r.round for r in view.adapters()] == [0, 1]


def test_an_imported_transcript_that_seals_shows_nothing(federate: Federate, tmp_path: Path) -> None:
    run = federate(channels.Sealing(), truth=False, release="none")
    assert run.view(tmp_path / "view", "server", "server").readings == ()


# -- the channel's own reading -------------------------------------------------------------------------------------


def test_a_channel_whose_reading_fails_is_named_with_the_cause_and_the_former_view_stays(
    federate: Federate, tmp_path: Path
) -> None:
    def fails(knowledge: Knowledge) -> Iterable[Candidate]:
        raise ZeroDivisionError("no luck")

    run = federate(Reads(lambda knowledge: ()), release="none", rounds=1)
    former = run.view(tmp_path / "view", "server", "server", traits=Traits())
    run.parts = replace(run.parts, channel=Reads(fails))
    with pytest.raises(SiloBenchError, match="channel Reads failed while reading: ZeroDivisionError: no luck"):
        run.view(tmp_path / "view", "server", "server", traits=Traits())
    assert View.load(tmp_path / "view") == former
    assert [p.name for p in tmp_path.glob("view*")] == ["view"]


def test_what_was_read_before_nothing_more_opens_is_kept(federate: Federate, tmp_path: Path) -> None:
    def reads(knowledge: Knowledge) -> Iterable[Candidate]:
        yield upload(run.summand(0, "silo-1"), "silo-1")
        raise CannotOpen("no key")

    run = federate(Reads(reads), release="none", rounds=1)
    (reading,) = run.view(tmp_path / "view", "server", "server", traits=Traits()).uploads()
    assert (reading.silos, reading.how, reading.terms) == ({"silo-1"}, "told", ((0, "silo-1", 1),))
    np.testing.assert_array_equal(reading.values, run.summand(0, "silo-1"))


@pytest.mark.parametrize(
    ("size", "silos", "says"),
    [
        (299, ("silo-0",), r"shape \(299,\) for \['silo-0'\]; expected \(300,\)"),
        (300, (), r"for \[\]; expected"),
        (300, ("silo-0", "silo-3"), r"for \['silo-0', 'silo-3'\]; expected .* some of the federation's silos"),
    ],
)
def test_a_reading_of_another_shape_or_of_nobody_is_the_channel_s_fault(
    federate: Federate, tmp_path: Path, size: int, silos: tuple[str, ...], says: str
) -> None:
    run = federate(Reads(lambda knowledge: [upload(np.zeros(size), *silos)]), release="none", rounds=1)
    with pytest.raises(SiloBenchError, match=f"channel Reads read values of {'' if size == 299 else '.*'}{says}"):
        run.view(tmp_path / "view", "server", "server", traits=Traits())


def test_what_is_not_true_is_not_kept(federate: Federate, tmp_path: Path) -> None:
    run = federate(
        Reads(lambda knowledge: [upload(run.summand(0, "silo-1"), "silo-2"), upload(np.ones(300), "silo-1")]),
        release="none",
        rounds=1,
    )
    assert run.view(tmp_path / "view", "server", "server", traits=Traits()).readings == ()


# -- an attack's own openers ---------------------------------------------------------------------------------------


def test_what_shows_without_opening_is_kept_once_and_of_others_only(federate: Federate, tmp_path: Path) -> None:
    def shows(knowledge: Knowledge, hints: Hints) -> Iterable[Candidate]:
        for silo, values in (("silo-2", [0.5]), ("silo-1", []), ("silo-2", [7.0]), ("silo-0", [1.0])):
            yield Guess(0, frozenset({silo}), np.array(values), "lengths", form="metadata")

    run = federate(Reads(lambda knowledge: ()), release="none", rounds=1)
    options: dict[str, Any] = {"openers": (shows,), "traits": Traits()}
    readings = run.view(tmp_path / "view", "silo", "silo-0", **options).readings
    first, second = (r for r in readings if r.kind == "metadata")
    assert [(r.kind, r.round, r.silos, r.how) for r in (first, second)] == [
        ("metadata", 0, {"silo-1"}, "lengths"),
        ("metadata", 0, {"silo-2"}, "lengths"),
    ]
    np.testing.assert_array_equal(second.values, [0.5])
    with pytest.raises(SiloBenchError, match="kind 'metadata' holds no values"):
        _ = first.values


def test_traits_that_are_known_already_are_not_looked_for_again(
    federate: Federate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Traits] = []

    def asks(knowledge: Knowledge, hints: Hints) -> Iterable[Candidate]:
        found.append(hints.traits())
        return ()

    monkeypatch.setattr(module, "find_traits", lambda *_: pytest.fail("looked for again"))
    run = federate(PlainChannel(), rounds=1)
    known = Traits(lengths=frozenset({"upload"}))
    run.view(tmp_path / "view", "server", "server", openers=(asks,), traits=known)
    assert found == [known]


# -- what follows from adapters and sums ---------------------------------------------------------------------------


def test_half_a_unit_in_the_last_place_of_every_precision() -> None:
    assert module.ROUNDING.keys() == {"float64", "float32", "float16", "bfloat16"}
    for name in ("float64", "float32", "float16"):
        assert module.ROUNDING[name] == np.finfo(name).eps / 2
    assert module.ROUNDING["bfloat16"] == 1 / 256


@pytest.mark.parametrize("has_memory", [False, True])
def test_a_sum_is_told_from_two_adapters_unless_an_optimiser_s_memory_is_missing(
    federate: Federate, tmp_path: Path, has_memory: bool
) -> None:
    step = ServerStep()
    step.has_memory = has_memory
    run = federate(channels.Sealing(), rounds=3, release="every-round", silos=1, steps=[step])
    outsider = run.view(
        tmp_path / "outsider", "outsider", traits=Traits()
    )  # it never saw the first adapter, nor the first sum
    assert [(r.round, *r.silos) for r in outsider.uploads()] == ([] if has_memory else [(1, "silo-0"), (2, "silo-0")])
    server = run.view(tmp_path / "server", "server", "server", traits=Traits())
    assert [(r.round, *r.silos) for r in server.uploads()] == [(r, "silo-0") for r in range(3)]


class Slots(Mean):
    """Every silo fills a hundred values of its own."""

    def plan(self, adapter: Layout, silos: Sequence[str]) -> Plan:
        return Plan(adapter, adapter, slots={name: np.arange(100) + 100 * i for i, name in enumerate(silos)})

    def summand(self, update: Update, global_adapter: NDArray[np.float32], public: Public) -> Update:
        values = np.zeros(300, np.float32)
        if update.silo:
            values[self.plan(public.adapter, public.silos).slots[update.silo]] = update.values[:100] * update.weight
        return Update(values, update.layout, update.weight)


class Named(Synthetic):
    """Updates say whose they are."""

    def _sent(self, round: int, name: str) -> Update:
        public = self.public
        update = Update(self.updates[round, name], public.layout, public.weights[name], silo=name)
        return self.aggregator.summand(update, self.adapters[round], public)


def test_whoever_reads_a_sum_of_slots_reads_every_silo_s_own(tmp_path: Path) -> None:
    run = Named(tmp_path / "run", channels.Sealing(), aggregator=Slots(), rounds=1, release="none")
    view = run.view(tmp_path / "view", "silo", "silo-1", traits=Traits())
    assert [(*r.silos,) for r in view.uploads()] == [("silo-0",), ("silo-2",)]
    for reading in view.uploads():
        np.testing.assert_allclose(reading.values, run.summand(0, *reading.silos), atol=1e-6)
        assert "'s own part of a sum" in reading.how


class Deviating(Synthetic):
    """The server sends one silo twice the global adapter."""

    def _broadcast(self, writer: RoundWriter, round: int) -> None:
        writer.send("broadcast", "server", ("silo-0", "silo-2"), encode_adapter(self.global_adapter))
        writer.send("broadcast", "server", ("silo-1",), encode_adapter(self.global_adapter * 2))


def test_a_silo_that_was_sent_another_adapter_began_with_that_one(tmp_path: Path) -> None:
    run = Deviating(tmp_path / "run", PlainChannel(), rounds=2)
    view = run.view(tmp_path / "view", "server", "server", traits=Traits())
    for reading in view.uploads():
        assert reading.before is not None
        assert reading.adapter is not None
        start = run.adapters[reading.round] * (2 if reading.silos == {"silo-1"} else 1)
        np.testing.assert_array_equal(reading.before, start)
        np.testing.assert_allclose(reading.adapter, start + run.updates[reading.round, *reading.silos], atol=1e-6)
    # what it sent beside the protocol is no global adapter
    assert [r.round for r in view.adapters()] == [0, 1]
    np.testing.assert_allclose(view.adapters()[0].values, run.adapters[1], atol=1e-6)
