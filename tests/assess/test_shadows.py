"""Shadow federations: ordinary runs under other plantings, kept in the store and shared by attacks."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from bench.cli.main import main
from bench.corpus.planting import Planting
from bench.spec.config import canonical_json
from bench.spec.result import Result
from bench.spec.run import RunSpec
from bench.store.store import Store

SMALL = (
    "pool.candidates=8",
    "pool.validation=0",
    "pool.heldout=8",
    "pool.population=16",
    "pool.max_tokens=40",
    "federation.local.epochs=1",
    "federation.rounds=1",
    "clinical-notes.notes=200",
)
PLUGIN = '''
"""Mean part of shadows that trained on a candidate, and how the last adapters differ."""
import numpy as np
from bench import Attack, Guesses
from bench import Config as Base

api = 1
version = 1

class Config(Base):
    models: int = 2

class Shadowing(Attack):
    game = "membership"
    needs = frozenset({{"query", "adapter", "upload"}})

    def __init__(self, models):
        self.shadows = models

    def infer(self, view, candidates, tools):
        if len(tools.shadows) != self.shadows:
            raise RuntimeError(f"{{len(tools.shadows)}} shadows")
        share = np.mean([s.member for s in tools.shadows], axis=0)
        known = {{view.last_adapter(v).handle for v in view.victims}}
        for shadow in tools.shadows:
            if shadow.view.victims != view.victims or shadow.view.coalition != view.coalition:
                raise RuntimeError("a shadow's view is another coalition's")
            handles = {{shadow.view.last_adapter(v).handle for v in view.victims}}
            if handles & known:
                raise RuntimeError("a shadow is the target itself")
            tools.token_stats(shadow.view.last_adapter(view.victims[0]), candidates.tokens)
        return Guesses({{"share": share.astype(float), "second": -share.astype(float)}}, ("{name}",))

def build(config: Config) -> Attack:
    return Shadowing(config.models)
'''


def bench(*words: str, store: Path, sets: tuple[str, ...] = SMALL) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*words, "--store", str(store), *(part for value in sets for part in ("--set", value))])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("shadows")
    for name in ("shadow-one", "shadow-two"):
        (where / f"{name.replace('-', '_')}.py").write_text(PLUGIN.format(name=name))
    return where


def run(folder: Path, attack: str, *more: str, adversary: str = "user,silo,server") -> list[Result]:
    plugins = (part for path in sorted(folder.glob("*.py")) for part in ("--plugin", str(path)))
    words = ("run", "--preset", "smoke", "--defense", "fedavg", "--attack", attack, "--adversary", adversary, "--json")
    # attacks that are not built in run apart unless told not to, which takes a process for every question
    apart = () if any("isolate" in word for word in more) else ("--no-isolate",)
    code, out, err = bench(
        *words, *apart, *(w for w in more if w != "default-isolate"), *plugins, store=folder / "store"
    )
    found = [Result.from_json(line) for line in out.splitlines()]
    assert code == 0, (err, [r.note for r in found])
    return found


def test_shadows_are_trained_once_for_all_attacks_and_adversaries(folder: Path) -> None:
    store = Store(folder / "store")
    first = run(folder, "shadow-one")
    assert {r.status for r in first} == {"ok"}
    assert len(list(store.runs())) == 3  # the target and two shadows
    assert all(r.cost["shadows"] == 2 for r in first)
    run(folder, "shadow-one,shadow-two", "--set", "shadow-two.models=3")
    assert len(list(store.runs())) == 4
    plantings = {Planting.from_json(p.read_text()).to_json() for p in (folder / "store" / "plantings").glob("*.json")}
    assert len({json.dumps(json.loads(p)["members"], sort_keys=True) for p in plantings}) == 4


def test_a_shadow_is_a_target_in_turn_and_reuses_the_other_runs(folder: Path) -> None:
    run(folder, "shadow-one")
    store = Store(folder / "store")
    before = set(store.runs())
    found = run(folder, "shadow-one", "--shadow", "1", adversary="server")
    assert set(store.runs()) == before
    assert found[0].spec["run"]["shadow"] == 1
    assert found[0].run in before


def test_a_dry_run_counts_the_federations_to_train(folder: Path, tmp_path: Path) -> None:
    plugin = str(folder / "shadow_one.py")
    words = ("run", "--preset", "smoke", "--defense", "fedavg", "--attack", "shadow-one", "--adversary", "silo,server")
    code, out, _ = bench(*words, "--plugin", plugin, "--dry-run", "--json", store=tmp_path / "empty")
    assert code == 0
    assert [cell["trainings"] for cell in json.loads(out)["cells"]] == [3, 0]


def test_a_dry_run_leaves_out_federations_that_are_trained_already(folder: Path) -> None:
    run(folder, "shadow-one")
    plugins = [part for path in sorted(folder.glob("*.py")) for part in ("--plugin", str(path))]
    words = ["run", "--preset", "smoke", "--defense", "fedavg", "--attack", "shadow-two", "--adversary", "all-but-one"]
    more = ["--set", "shadow-two.models=5", "--dry-run", "--json"]
    code, out, _ = bench(*words, *more, *plugins, store=folder / "store")
    assert code == 0
    (cell,) = json.loads(out)["cells"]
    have = len(list(Store(folder / "store").runs()))
    assert cell["trainings"] == 6 - have < 6


def test_runs_that_are_no_shadow_keep_their_identity() -> None:
    plain = RunSpec.model_validate({"task": {"name": "t"}, "defense": [{"name": "d"}]})
    shadow = plain.model_copy(update={"shadow": 1})
    assert "shadow" not in canonical_json(plain)
    assert plain.run_id(0) != shadow.run_id(0)
    assert plain.planting_id(0) != shadow.planting_id(0)
    assert RunSpec.model_validate(json.loads(canonical_json(shadow))) == shadow


def test_silos_of_a_shadow_take_their_records_in_another_order() -> None:
    from bench.core.streams import Streams

    one, other = (Streams(0, prefix).generator("silo", 0, 0).permutation(30) for prefix in ("", "shadow 1/"))
    assert not np.array_equal(one, other)


def test_an_attack_is_made_on_the_run_that_it_names_and_on_no_other(folder: Path) -> None:
    """On an ordinary run the texts of 'participation' would be members: a figure that means something else."""
    run_id = run(folder, "shadow-one")[0].run
    words = ("attack", run_id, "--attack", "participation,source", "--adversary", "server", "--json")
    code, out, _ = bench(*words, store=folder / "store", sets=())
    assert code == 0
    found = {r.attack: r for r in map(Result.from_json, out.splitlines())}
    assert found["participation"].status == "not-applicable"
    assert "ordinary run" in found["participation"].note
    assert not found["participation"].leakage
    assert found["source"].status == "ok"


def test_an_attack_that_is_not_built_in_runs_apart_and_a_row_that_did_not_is_no_answer(folder: Path) -> None:
    once = run(folder, "shadow-one", adversary="server")[0]
    again = run(folder, "shadow-one", "default-isolate", adversary="server")[0]
    assert "isolated" not in once.provenance
    assert again.provenance["isolated"]
    assert [f.value for f in again.leakage] == [f.value for f in once.leakage]
