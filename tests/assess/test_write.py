"""Results as they are written down: every field from where it belongs, kept in the store."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.assess import write as module
from bench.assess.harness import Harness, Options
from bench.assess.plays.table import Assessment
from bench.assess.write import Writer
from bench.core.errors import Refused
from bench.corpus.task import Record
from bench.spec.result import Claim, Data, Leakage, Result, Utility
from bench.spec.run import Cell, PluginSpec, Row, RunSpec
from bench.store.store import Store
from tests.plugin_files import folders

SHEET = '{"a sheet":1}'
FOUND = Assessment(
    "ok",
    ("adapter of round 1",),
    (Leakage(name="auc", value=0.75),),
    SHEET,
    "a note",
    details="private texts",
    cost={"attack_s": 2.0, "up": 7},
    audit={"bound": 1},
)


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Harness:
    monkeypatch.setattr(module, "provenance", lambda device: {"device": device, "commit": "abc"})
    return Harness(Store(tmp_path / "store"), folders(tmp_path), Options(preset="small", quiet=True))


def spec_of(**changes: Any) -> RunSpec:
    values = {"task": PluginSpec(name="words"), "defense": (PluginSpec(name="guard"), PluginSpec(name="two-words"))}
    return RunSpec(**{**values, **changes})


def asked(spec: RunSpec | None = None, **names: str) -> tuple[Cell, Any]:
    """A cell, and an assessor of its run."""
    spec = spec or spec_of()
    materials = SimpleNamespace(
        source=SimpleNamespace(revision="r1", sha256="d" * 64),
        model=SimpleNamespace(device="cpu"),
        pool=SimpleNamespace(names=names, records={"a": Record("a", "one")}),
        corpus=SimpleNamespace(records=(1, 2, 3), left_out={"nothing to predict": 2}, cut={"a"}, seen={}),
        undecided=1,
    )
    case = SimpleNamespace(
        spec=spec,
        run_id=spec.run_id(4),
        materials=materials,
        planting=SimpleNamespace(id="beef" * 4),
        nominal_sizes={"silo-0": 30, "silo-1": 10},
        parts=SimpleNamespace(simulated=("a dealer",)),
    )
    utility = (Utility(name="perplexity", value=2.0, base=3.0),)
    run = SimpleNamespace(case=case, utility=utility, cost={"up": 5, "down": 6}, learned=True)
    claim: Callable[[str], Claim] = lambda adversary: Claim(epsilon=1.5, note=adversary)  # noqa: E731
    row = Row(run=spec, attack=PluginSpec(name="peek"), adversary="silo")
    return Cell(row, 4), SimpleNamespace(run=run, claim=claim)


def measured(harness: Harness, found: Assessment = FOUND, spec: RunSpec | None = None, **attack: Any) -> Result:
    cell, assessor = asked(spec)
    given: Any = SimpleNamespace(**{"adaptive": False, "knows": "candidates", **attack})
    return Writer(harness).measured(cell, assessor, found, given)


def test_what_became_of_the_records_is_written_down(harness: Harness) -> None:
    cell, assessor = asked()
    found = Writer(harness).measured(cell, assessor, FOUND, harness.attack(cell.row.attack))
    expected = Data(given=5, left_out={"nothing to predict": 2}, used=1, cut=1, undecided=1)
    assert Result.from_json(found.to_json()).data == expected
    assert "data" not in json.loads(found.model_copy(update={"data": None}).to_json())


def test_a_result_says_what_was_asked_and_what_made_it(harness: Harness) -> None:
    cell, _ = asked()
    one = measured(harness)
    assert (one.row, one.run, one.result) == (cell.row.row_id, cell.row.run.run_id(4), cell.cell_id)
    assert (one.task, one.defense, one.attack, one.adversary, one.seed) == (
        "words",
        "guard+two-words",
        "peek",
        "silo",
        4,
    )
    assert RunSpec.model_validate(one.spec["run"]) == cell.row.run
    made_by = harness.fingerprints.of_result(cell.row)
    assert one.fingerprint == made_by.text
    assert harness.store.sources(one.fingerprint) == dict(made_by.parts)
    assert one.versions == harness.versions.of(cell.row)
    assert one.provenance == {
        "device": "cpu",
        "commit": "abc",
        "preset": "small",
        "planting": "beef" * 4,
        "model": {"revision": "r1", "sha256": "d" * 64},
    }


def test_a_result_says_which_organisation_a_silo_is(harness: Harness) -> None:
    assert '"organisations"' not in measured(harness).to_json()
    cell, assessor = asked(**{"silo-0": "Klinik Nord", "silo-1": "Süd"})
    given: Any = SimpleNamespace(adaptive=False, knows="candidates")
    found = Writer(harness).measured(cell, assessor, FOUND, given).organisations
    assert [one.model_dump() for one in found] == [
        {"silo": "silo-0", "name": "Klinik Nord", "records": 30},
        {"silo": "silo-1", "name": "Süd", "records": 10},
    ]


def test_a_result_says_what_was_found_and_is_kept_with_its_sheet(harness: Harness) -> None:
    one = measured(harness)
    assert (one.status, one.reads, one.leakage, one.note, one.audit) == (
        "ok",
        FOUND.reads,
        FOUND.leakage,
        "a note",
        {"bound": 1},
    )
    assert one.cost == {"up": 7, "down": 6, "attack_s": 2.0}  # the attack's own over the run's
    assert (one.claim, one.learned) == (Claim(epsilon=1.5, note="silo"), True)
    assert [u.value for u in one.utility] == [2.0]
    assert harness.store.result(one.result) == one
    assert one.scores_sha256 is not None
    assert harness.store.scores(one.scores_sha256) == SHEET
    assert harness.store.details_path(one.scores_sha256).read_text() == "private texts"


def test_without_a_sheet_none_is_named(harness: Harness) -> None:
    one = measured(harness, Assessment("nothing-opened", note="no upload opened"))
    assert (one.status, one.scores_sha256, one.leakage) == ("nothing-opened", None, ())
    assert not (harness.store.root / "scores").exists()


@pytest.mark.parametrize(
    ("attack", "isolated"), [({}, None), ({"confined": "namespaces"}, "namespaces"), ({"confined": ""}, "process only")]
)
def test_an_isolated_attack_says_what_confined_it(harness: Harness, attack: dict[str, str], isolated: Any) -> None:
    assert measured(harness, **attack).provenance.get("isolated") == isolated


@pytest.mark.parametrize("adaptive", [True, False])
def test_an_adaptive_attack_says_so(harness: Harness, adaptive: bool) -> None:
    assert measured(harness, adaptive=adaptive).adaptive is adaptive


@pytest.mark.parametrize("knows", ["candidates", "population"])
def test_it_says_what_an_attack_went_by(harness: Harness, knows: str) -> None:
    assert measured(harness, knows=knows).knows == knows


def test_a_run_of_its_own_says_nothing_of_the_defense_s_usefulness(harness: Harness) -> None:
    one = measured(harness, spec=spec_of(variant=PluginSpec(name="audit")))
    assert (one.utility, one.active) == ((), False)
    assert measured(harness, spec=spec_of(variant=PluginSpec(name="active"))).active


def test_what_is_only_simulated_is_named(harness: Harness) -> None:
    assert measured(harness).simulated == ("a dealer",)
    assert measured(harness, spec=spec_of(secret_seed=0)).simulated == ("secrets from --secret-seed", "a dealer")


def test_a_federation_that_stopped_is_a_result_without_figures(harness: Harness) -> None:
    cell, assessor = asked(spec_of(variant=PluginSpec(name="active"), secret_seed=3))
    one = Writer(harness).refused(cell, assessor.run.case, Refused("silo-1: a bad signature"))
    assert (one.status, one.note, one.active, one.adaptive) == ("refused", "silo-1: a bad signature", True, False)
    assert (one.leakage, one.utility, one.cost, one.claim, one.scores_sha256) == ((), (), {}, None, None)
    assert one.simulated[:1] == ("secrets from --secret-seed",)
    assert (one.result, one.provenance["planting"]) == (cell.cell_id, "beef" * 4)
    assert harness.store.result(cell.cell_id) == one


def test_another_finding_for_the_same_cell_supersedes_the_former(harness: Harness) -> None:
    first = measured(harness)
    assert first.supersedes is None
    assert measured(harness) == first
    assert measured(harness, replace(FOUND, note="another")).supersedes is not None
