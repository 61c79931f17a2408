"""``federation.partition=auto``: records that name organisations are divided by them, unless asked otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.cli.grid import Request, expand
from bench.cli.main import main
from bench.core.errors import UsageError
from bench.plugins.find import Plugins
from bench.spec.run import PluginSpec, RunSpec

SIZES = {"Klinik Nord": 32, "Ost": 16, "Süd": 8, "West": 4}


def records(path: Path, without: int = 0) -> str:
    """The name of a task of 60 records of four organisations; the first ones name none."""
    silos = [name for name, size in SIZES.items() for _ in range(size)]
    lines: list[dict[str, Any]] = [{"text": f"record {k}", "silo": silo} for k, silo in enumerate(silos)]
    lines[:without] = [{"text": line["text"]} for line in lines[:without]]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"jsonl:{path}"


def run_of(task: str, *sets: str, attack: str = "mia") -> RunSpec:
    asked = Request("fedavg", attack, task=task, adversary="server", preset="smoke", sets=sets)
    return expand(asked, Plugins()).rows[0].run


def test_who_is_named_is_a_silo(tmp_path: Path) -> None:
    federation = run_of(records(tmp_path / "r.jsonl")).federation
    assert (federation.partition, federation.silos) == ("silo", 4)
    assert federation.rounds == 3


def test_what_auto_comes_to_is_what_asking_for_it_gives(tmp_path: Path) -> None:
    task = records(tmp_path / "r.jsonl")
    same = [run_of(task, *sets) for sets in ((), ("federation.partition=auto",), ("federation.partition=silo",))]
    same.append(run_of(task, "federation.partition=silo", "federation.silos=4"))
    assert len({run.run_id(0) for run in same}) == 1


@pytest.mark.parametrize("how", ["iid", "field", "dirichlet"])
def test_unless_asked_otherwise(tmp_path: Path, how: str) -> None:
    federation = run_of(records(tmp_path / "r.jsonl"), f"federation.partition={how}").federation
    assert (federation.partition, federation.silos) == (how, 3)


def test_records_that_name_nobody_are_divided_at_random_as_before(tmp_path: Path) -> None:
    plain = run_of(records(tmp_path / "r.jsonl", without=60))
    assert plain == run_of(records(tmp_path / "r.jsonl", without=60), "federation.partition=iid")
    notes = run_of("clinical-notes", "federation.partition=auto")
    assert (notes.federation.partition, notes.federation.silos) == ("iid", 3)


def test_a_preset_may_say_either(tmp_path: Path) -> None:
    task = records(tmp_path / "r.jsonl")
    for how, found in (("auto", ("silo", 4)), ("iid", ("iid", 2))):
        preset = tmp_path / f"{how}.toml"
        preset.write_text(f'description = "own"\ntask = "{task}"\n[federation]\nsilos = 2\npartition = "{how}"\n')
        federation = expand(Request("fedavg", "mia", preset=str(preset)), Plugins()).rows[0].run.federation
        assert (federation.partition, federation.silos) == found


def test_every_task_of_a_grid_is_divided_by_its_own_records(tmp_path: Path) -> None:
    asked = Request("fedavg", "mia", task=f"clinical-notes,{records(tmp_path / 'r.jsonl')}", preset="smoke")
    found = {row.run.task.name: row.run.federation for row in expand(asked, Plugins()).rows}
    assert {name: (one.partition, one.silos) for name, one in found.items()} == {
        "clinical-notes": ("iid", 3),
        "jsonl": ("silo", 4),
    }


@pytest.mark.parametrize(
    ("sets", "without", "says"),
    [
        (("federation.silos=3",), 0, "federation.silos is 3, and the records name 4 organisations"),
        (("federation.partition=silo", "federation.silos=5"), 0, "leave federation.silos out"),
        ((), 5, "5 of 60 records name no organisation ('silo'), the first of them 'line-1'"),
        (("federation.partition=silo",), 60, "60 of 60 records name no organisation"),
        ((), 56, "56 of 60 records"),
        (("pool.candidates=4",), 0, "'West' has 4 of 60 records and would bring 1 of 16 candidates"),
        (("federation.dropouts=[{'round': 0, 'silo': 4}]".replace("'", '"'),), 0, "there are 4 silos"),
        (("federation.partition=nobody",), 0, "federation.partition=nobody is refused"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_runs(
    tmp_path: Path, sets: tuple[str, ...], without: int, says: str
) -> None:
    with pytest.raises(UsageError) as refused:
        run_of(records(tmp_path / "r.jsonl", without), *sets)
    assert says in str(refused.value)


def test_who_takes_part_is_no_secret_among_organisations_that_are_named(tmp_path: Path) -> None:
    task = records(tmp_path / "r.jsonl")
    with pytest.raises(UsageError, match=r"who takes part is public .* federation\.partition=iid"):
        run_of(task, attack="participation")
    run = run_of(task, "federation.partition=iid", attack="participation")
    assert run.variant == PluginSpec(name="participation")


def test_a_dry_run_shows_organisations_with_their_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--preset", "smoke", "--defense", "fedavg", "--attack", "mia", "--adversary", "server", "--dry-run"]
    words += ["--task", records(tmp_path / "r.jsonl"), "--store", str(tmp_path / "store")]
    words += ["--set", "pool.candidates=6"]
    assert main(words) == 0
    assert (
        "silo-0: Klinik Nord, 13 candidates of 32 records\nsilo-1: Ost, 6 candidates of 16" in capsys.readouterr().out
    )
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["organisations"]
    assert [(one["task"], one["silo"], one["name"]) for one in found][3] == ("jsonl", "silo-3", "West")
    assert {one["name"]: (one["records"], one["candidates"]) for one in found} == {
        "Klinik Nord": (32, 13),
        "Ost": (16, 6),
        "Süd": (8, 3),
        "West": (4, 2),
    }
