"""What the runs of one command share: pinned models, locks with words, and what of the store still counts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.assess import harness as module
from bench.assess.harness import TRANSCRIPT_BUDGET, Harness, Options
from bench.attack.attack import Attack
from bench.corpus.planting import Planting
from bench.plugins.find import Plugins
from bench.spec.config import digest
from bench.spec.result import Result
from bench.spec.run import Cell, ModelSpec, PluginSpec, Row, RunSpec
from bench.store import locks
from bench.store.locks import Taken
from bench.store.store import Store
from bench.training.variant import Variant
from tests.plugin_files import ATTACK, folders, write
from tests.results_factory import result

PLANTING = Planting("ab" * 8, {"silo-0": ("a",)}, {"silo-0": ("b",)})


def spec_of(**changes: Any) -> RunSpec:
    values = {"task": PluginSpec(name="words"), "defense": (PluginSpec(name="guard"),), "secret_seed": 3}
    return RunSpec(**{**values, **changes})


def cell_of(spec: RunSpec | None = None, attack: str = "peek") -> Cell:
    return Cell(Row(run=spec or spec_of(), attack=PluginSpec(name=attack), adversary="server"), 3)


def case_of(spec: RunSpec | None = None) -> Any:
    spec = spec or spec_of()
    return SimpleNamespace(spec=spec, seed=3, run_id=spec.run_id(3))


class Models:
    """A workshop whose assets know one revision, and whose materials are a word."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.assets = self

    def materials(self, spec: RunSpec, seed: int) -> str:
        return f"materials of seed {seed}"

    def model(self, spec: ModelSpec) -> Any:
        self.asked.append(spec.name)
        return SimpleNamespace(revision="commit-1", sha256="d" * 64)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Harness]:
    folders(tmp_path)
    outside = write(tmp_path / "outside" / "foreign.py", ATTACK)
    kinds: Any = {"defense": tmp_path / "defenses", "attack": tmp_path / "attacks", "task": tmp_path / "tasks"}

    def made(**options: Any) -> Harness:
        workshop: Any = Models()
        return Harness(Store(tmp_path / "store"), Plugins([outside], kinds), Options(**options), workshop)

    return made


def test_nothing_is_redone_refused_or_dropped_unless_it_is_asked_for() -> None:
    options = Options()
    assert (options.refresh, options.wait, options.isolate, options.quiet) == (False, False, None, False)
    assert options.transcript_budget == TRANSCRIPT_BUDGET == 8 * 1024**3


@pytest.mark.parametrize(
    ("model", "revision", "asked"),
    [
        (ModelSpec(name="tiny"), None, []),
        (ModelSpec(name="hf:some/model", revision="mine"), "mine", []),
        (ModelSpec(name="hf:some/model"), "commit-1", ["hf:some/model"]),
    ],
)
def test_a_row_s_identity_follows_the_weights(
    make: Callable[..., Harness], model: ModelSpec, revision: str | None, asked: list[str]
) -> None:
    harness, row = make(), cell_of(spec_of(model=model)).row
    pinned = harness.pinned(row)
    assert pinned.run.model.revision == revision
    assert harness.workshop().asked == asked  # type: ignore[attr-defined]
    assert (pinned == row) is (revision == model.revision)
    assert pinned.model_copy(update={"run": row.run}) == row


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What plantings were drawn for."""
    found: list[Any] = []
    monkeypatch.setattr("bench.training.measure.checks.check", lambda materials: None)
    monkeypatch.setattr(
        "bench.training.training.draw_plantings", lambda *given: found.append(given) or (PLANTING, PLANTING)
    )
    return found


def test_a_case_is_made_of_the_store_s_planting_or_of_the_one_it_is_given(
    make: Callable[..., Harness], drawn: list[Any]
) -> None:
    harness, spec = make(quiet=True), spec_of()
    case = harness.case(spec, 3)
    made = (case.spec, case.seed, case.run_id, case.materials, case.plantings)
    assert made == (spec, 3, spec.run_id(3), "materials of seed 3", (PLANTING, PLANTING))
    assert (type(case.variant), len(drawn)) == (Variant, 1)
    other = Planting("cd" * 8, {}, {})
    assert harness.case(spec, 3, (other, other)).planting is other
    assert len(drawn) == 1


def test_a_committed_planting_is_taken_over_before_one_is_drawn(
    make: Callable[..., Harness], drawn: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    harness, wanted = make(quiet=True), spec_of().planting_id(3)
    committed = tmp_path / "committed"
    write(committed / f"{wanted}.json", "the committed one")
    write(committed / f"{'ee' * 8}.json", "of another run")
    monkeypatch.setattr(module, "COMMITTED_PLANTINGS", committed)
    harness.case(spec_of(), 3)
    assert harness.store.planting(wanted) == "the committed one"
    assert harness.store.planting("ee" * 8) is None
    write(committed / f"{wanted}.json", "redrawn")
    harness.case(spec_of(), 3)
    assert harness.store.planting(wanted) == "the committed one"


@pytest.mark.parametrize(
    ("passing", "shadow", "doing"),
    [(False, 0, "computing guard on words, seed 3"), (True, 2, "training guard on words, seed 3 (shadow 2)")],
)
def test_whoever_holds_a_run_says_what_for(
    make: Callable[..., Harness], passing: bool, shadow: int, doing: str
) -> None:
    case = case_of(spec_of(shadow=shadow))
    with make().hold(case, patient=False, passing=passing) as directory:
        assert directory == make().store.run_dir(case.run_id)
        with pytest.raises(Taken, match=doing.replace("(", r"\(").replace(")", r"\)")) as caught:
            make().hold(case, patient=False).__enter__()
    assert caught.value.holder is not None
    assert (caught.value.holder.doing, caught.value.holder.passing) == (doing, passing)


@pytest.mark.parametrize("how", ["hold", "await_run"])
def test_whoever_waits_says_for_whom(
    make: Callable[..., Harness], how: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "POLL", 0.005)
    case, has, done = case_of(), threading.Event(), threading.Event()

    def work() -> None:
        with make().hold(case, patient=False):
            has.set()
            done.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    assert has.wait(10)
    threading.Timer(0.05, done.set).start()
    if how == "hold":
        with make().hold(case, patient=True):
            assert done.is_set()
    else:
        make().await_run(case.run_id)
        assert done.is_set()
    thread.join()
    said = capsys.readouterr().err.splitlines()[0]
    assert said.startswith(f"bench: waiting for run {case.run_id}, held by process ")
    assert said.endswith(", computing guard on words, seed 3")


def kept(harness: Harness, cell: Cell, **changes: Any) -> Result:
    """A stored result of today's code, but for ``changes``."""
    now = harness.fingerprints.of_result(cell.row)
    harness.store.save_sources(now.text, now.parts)
    values = {"fingerprint": now.text, "versions": harness.versions.of(cell.row), "result": cell.cell_id}
    return harness.store.save_result(result(**{**values, **changes}))


def test_a_result_of_today_s_code_is_the_answer(make: Callable[..., Harness]) -> None:
    harness, cell = make(), cell_of()
    assert harness.stored(cell) is None
    one = kept(harness, cell)
    assert harness.stored(cell) == one


def test_an_error_is_no_answer(make: Callable[..., Harness]) -> None:
    harness, cell = make(), cell_of()
    kept(harness, cell, status="error")
    assert harness.stored(cell) is None


def test_an_attack_that_is_not_built_in_runs_apart_unless_it_is_told_not_to(make: Callable[..., Harness]) -> None:
    rows = [cell_of(attack=name).row for name in ("peek", "foreign")]
    assert [make().apart(row) for row in rows] == [False, True]
    for isolate in (True, False):
        assert [make(isolate=isolate).apart(row) for row in rows] == [isolate, isolate]
    assert isinstance(make().attack(PluginSpec(name="peek")), Attack)


def test_a_row_that_ran_apart_answers_both_and_one_that_did_not_answers_none_that_must(
    make: Callable[..., Harness],
) -> None:
    cell = cell_of(attack="foreign")
    kept(make(), cell)
    assert make().stored(cell) is None
    assert make(isolate=False).stored(cell) is not None
    kept(make(), cell, provenance={"isolated": "namespaces"})
    assert make().stored(cell) is not None
    assert make(isolate=False).stored(cell) is not None


def test_a_result_of_other_code_is_none_and_what_changed_is_said_once(
    make: Callable[..., Harness], capsys: pytest.CaptureFixture[str]
) -> None:
    harness, cell = make(), cell_of()
    parts = {**harness.fingerprints.of_result(cell.row).parts, "bench/view": "other", "attacks/peek.py": "other"}
    former = digest(parts, 64)
    harness.store.save_sources(former, parts)
    kept(harness, cell, fingerprint=former)
    assert harness.stored(cell) is None
    assert harness.stored(cell) is None
    said = capsys.readouterr().err
    assert said == (
        f"bench: results in {harness.store.root} are of other code "
        "(changed since: attacks/peek.py, bench/view): done anew\n"
    )


def trained(harness: Harness, case: Any, **other: dict[str, str]) -> None:
    """A run directory as a training of today's code leaves it, but for the sources in ``other``."""
    harness.drop_stale(case)
    known = harness.store.spec(case.run_id) or {}
    harness.store.save_spec(case.run_id, {**known, **{key: {**known[key], **more} for key, more in other.items()}})
    harness.store.save_summary(case.run_id, {"utility": []})
    (harness.store.run_dir(case.run_id) / "transcript").mkdir()


@pytest.mark.parametrize(
    ("other", "transcript", "summary", "said"),
    [
        ({}, True, True, ""),
        ({"measured_by": {"bench/stats": "x"}}, True, False, "was measured by other code (changed since: bench/stats)"),
        ({"made_by": {"bench/model": "x"}}, False, False, "was trained by other code (changed since: bench/model)"),
    ],
)
def test_of_a_run_by_other_code_as_much_is_dropped_as_that_code_made(
    make: Callable[..., Harness],
    capsys: pytest.CaptureFixture[str],
    other: dict[str, dict[str, str]],
    transcript: bool,
    summary: bool,
    said: str,
) -> None:
    harness, case = make(), case_of()
    trained(harness, case, **other)
    harness.drop_stale(case)
    assert (harness.store.run_dir(case.run_id) / "transcript").exists() is transcript
    assert (harness.store.summary(case.run_id) is not None) is summary
    printed = capsys.readouterr().err
    assert printed == (f"bench: run {case.run_id} {said}: done anew\n" if said else "")
    known = harness.store.spec(case.run_id) or {}
    assert RunSpec.model_validate(known["spec"]) == case.spec
    assert known["made_by"] == dict(harness.fingerprints.of_training(case.spec).parts)


@pytest.mark.parametrize(
    ("committed", "other", "complete"), [(1, {}, True), (0, {}, False), (1, {"torch": "0"}, False)]
)
def test_a_training_is_finished_when_all_rounds_are_there_by_today_s_code(
    make: Callable[..., Harness],
    monkeypatch: pytest.MonkeyPatch,
    committed: int,
    other: dict[str, str],
    complete: bool,
) -> None:
    found = SimpleNamespace(committed=lambda: committed, public=SimpleNamespace(rounds=2))
    monkeypatch.setattr("bench.transcript.transcript.Transcript", lambda root: found)
    harness, case = make(), case_of()
    assert harness.finished(case) is None
    trained(harness, case, made_by=other)
    assert harness.finished(case) is None  # without a manifest
    write(harness.store.run_dir(case.run_id) / "transcript" / "manifest.json", "{}")
    assert harness.finished(case) is (found if complete else None)


def test_rounds_are_counted_quietly_where_nobody_looks(make: Callable[..., Harness]) -> None:
    with make(quiet=True).rounds(spec_of()) as step:
        assert [step(round) for round in (-1, 0, 1)] == [None] * 3  # type: ignore[func-returns-value]
