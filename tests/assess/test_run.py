"""A grid from top to bottom, beside other commands on the same store: who waits for whom, and what is refused."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.assess.harness import Harness, Options
from bench.assess.run import StillTaken, execute
from bench.plugins.find import Plugins
from bench.spec.run import Cell, PluginSpec, Row, RunSpec
from bench.store.locks import Holder
from bench.store.store import Store
from bench.training.materials import Workshop
from tests.assess.test_shadows import PLUGIN


def row(shadow: int = 0, attack: str = "mia", defense: str = "fedavg", **options: object) -> Row:
    run = {
        "task": {"name": "clinical-notes", "config": {"notes": 200, "seed": 0}},
        "model": {"name": "tiny"},
        "pool": {"candidates": 6, "validation": 0, "heldout": 4, "population": 12, "max_tokens": 32},
        "federation": {"silos": 2, "rounds": 1, "local": {"epochs": 1, "batch": 6}},
        "defense": [{"name": defense, "config": {}}],
        "secret_seed": 1,
        "shadow": shadow,
    }
    return Row(run=RunSpec.model_validate(run), attack=PluginSpec(name=attack, config=options), adversary="server")


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugins") / "shadow_one.py"
    path.write_text(PLUGIN.format(name="shadow-one"))
    return path


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Model and records, loaded once. Libraries that load their modules when they are first used can't do so in two
    threads at once: they do here."""
    harness = Harness(Store(tmp_path_factory.mktemp("first")), Plugins(), Options(quiet=True))
    execute([row()], [0], harness)
    return harness.workshop()


@pytest.fixture
def make(tmp_path: Path, plugin: Path, shared: Workshop) -> Callable[..., Harness]:
    def made(**options: object) -> Harness:
        chosen = Options(**{"isolate": False, "quiet": True, **options})  # type: ignore[arg-type]
        harness = Harness(Store(tmp_path / "store"), Plugins([plugin]), chosen, shared)
        for one in (row(), row(attack="shadow-one"), row(attack="source"), row(attack="participation")):
            # sources are read here, since Python 3.11 can't parse in two threads at once
            harness.fingerprints.of_result(one)
            harness.fingerprints.of_training(one.run)
        return harness

    return made


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Callable[[Cell, bool], threading.Event]]:
    """Holds a cell's run, as another command would, until the event that it returns is set."""
    events: list[threading.Event] = []
    threads: list[threading.Thread] = []

    def hold(cell: Cell, passing: bool) -> threading.Event:
        done, has = threading.Event(), threading.Event()

        def work() -> None:
            with Store(tmp_path / "store").lock(cell.row.run.run_id(cell.seed), Holder("computing it", passing)):
                has.set()
                done.wait(60)

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        assert has.wait(10)
        events.append(done)
        return done

    yield hold
    for event in events:
        event.set()
    for thread in threads:
        thread.join()


def test_what_another_command_computes_is_refused_at_the_end_and_all_else_is_done(
    make: Callable[..., Harness], held: Callable[[Cell, bool], threading.Event]
) -> None:
    held(Cell(row(), 0), False)
    with pytest.raises(
        StillTaken, match=rf"Run {row().run.run_id(0)} .*held by another process .*computing it"
    ) as found:
        execute([row()], [0, 1], make())
    assert [result.seed for result in found.value.results] == [1]
    assert found.value.exit_code == 2


def said(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the harness says from now on."""
    words: list[str] = []
    monkeypatch.setattr(harness.progress, "say", words.append)
    return words


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_whoever_waits_says_for_whom_and_finds_the_result_of_the_other(
    make: Callable[..., Harness], held: Callable[[Cell, bool], threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    done, harness = held(Cell(row(), 0), False), make(wait=True)
    words = said(harness, monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(execute, [row()], [0, 1], harness)
        until(lambda: words)
        assert harness.stored(Cell(row(), 1)) is not None  # the other went first
        assert not waiting.done()
        done.set()
        assert [result.seed for result in waiting.result(timeout=60)] == [0, 1]
    (word,) = words
    assert re.fullmatch(rf"waiting for run {row().run.run_id(0)}, held by process \d+, computing it", word)


def test_a_target_that_another_command_only_trains_is_waited_for(
    make: Callable[..., Harness], held: Callable[[Cell, bool], threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    done, harness = held(Cell(row(), 0), True), make()
    words = said(harness, monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(execute, [row()], [0], harness)
        until(lambda: words)
        assert not waiting.done()
        done.set()
        assert waiting.result(timeout=60)[0].status == "ok"


def test_shadows_are_trained_before_the_target_s_lock_is_taken(
    make: Callable[..., Harness], held: Callable[[Cell, bool], threading.Event]
) -> None:
    """The target is somebody else's: its shadows are there all the same, and nothing is held."""
    held(Cell(row(), 0), False)
    harness = make()
    with pytest.raises(StillTaken):
        execute([row(0, "shadow-one")], [0], harness)
    trained = {row(shadow).run.run_id(0) for shadow in (1, 2)}
    assert {r for r in harness.store.runs() if (harness.store.run_dir(r) / "transcript").exists()} == trained
    for run_id in trained:
        with harness.store.lock(run_id):
            pass


def test_no_shadow_is_trained_for_an_attack_that_is_not_for_this_run(make: Callable[..., Harness]) -> None:
    (found,) = execute([row(0, "participation")], [0], make())
    assert found.status == "not-applicable"
    assert len(list(make().store.runs())) == 1


def test_a_result_of_other_code_is_made_anew_and_what_changed_is_said(
    make: Callable[..., Harness], capsys: pytest.CaptureFixture[str]
) -> None:
    harness = make()
    (first,) = execute([row()], [0], harness)
    store = harness.store
    changed = {**store.sources(first.fingerprint), "bench/assess": "other"}
    store.save_sources("ab" * 32, changed)
    store.save_result(first.model_copy(update={"fingerprint": "ab" * 32}))
    (again,) = execute([row()], [0], make(quiet=False))
    assert again.fingerprint == first.fingerprint
    assert again.leakage == first.leakage
    assert "are of other code (changed since: bench/assess): done anew" in capsys.readouterr().err


def test_a_training_of_other_code_is_run_anew_and_what_changed_is_said(
    make: Callable[..., Harness], capsys: pytest.CaptureFixture[str]
) -> None:
    harness = make()
    (first,) = execute([row()], [0], harness)
    known = harness.store.spec(first.run) or {}
    harness.store.save_spec(first.run, {**known, "made_by": {**known["made_by"], "bench/model": "other"}})
    transcript = harness.store.run_dir(first.run) / "transcript" / "manifest.json"
    before = transcript.stat().st_mtime_ns
    execute([row(attack="source")], [0], make(quiet=False))
    assert (
        f"run {first.run} was trained by other code (changed since: bench/model): done anew" in capsys.readouterr().err
    )
    assert transcript.stat().st_mtime_ns > before


def test_a_new_version_of_the_scoring_is_computed_from_the_sheet_and_attacks_nothing(
    make: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = make()
    (first,) = execute([row()], [0], harness)
    store = harness.store
    store.save_sources("cd" * 32, {**store.sources(first.fingerprint), "bench/games": "other"})
    wrong = tuple(f.model_copy(update={"value": 0.123}) for f in first.leakage)
    old = first.versions | {"SCORING": 0}
    store.save_result(first.model_copy(update={"fingerprint": "cd" * 32, "versions": old, "leakage": wrong}))
    monkeypatch.setattr("bench.assess.run._computed", lambda *_: pytest.fail("something was trained or attacked"))
    (again,) = execute([row()], [0], make())
    assert (again.leakage, again.versions, again.fingerprint) == (first.leakage, first.versions, first.fingerprint)
    assert again.cost == first.cost


def test_other_sources_of_the_scoring_at_the_same_version_are_no_reason_to_trust_a_sheet(
    make: Callable[..., Harness],
) -> None:
    harness = make()
    (first,) = execute([row()], [0], harness)
    harness.store.save_sources("ef" * 32, {**harness.store.sources(first.fingerprint), "bench/games": "other"})
    harness.store.save_result(first.model_copy(update={"fingerprint": "ef" * 32}))
    assert make().stored(Cell(row(), 0)) is None


def test_a_plug_in_without_a_version_is_warned_of_and_counts_as_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shared: Workshop
) -> None:
    path = tmp_path / "unversioned.py"
    path.write_text(PLUGIN.format(name="unversioned").replace("version = 1\n", ""))
    harness = Harness(Store(tmp_path / "store"), Plugins([path]), Options(isolate=False), shared)
    (found,) = execute([row(0, "unversioned", models=1)], [0], harness)
    assert found.versions["attack/unversioned"] == 1
    words = capsys.readouterr().err
    assert words.count("attack 'unversioned'") == 1
    assert "says no version, which counts as 1: assign 'version = 1'" in words
