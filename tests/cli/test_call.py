"""``bench.run``: the grid of the command line, asked for in Python."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.assess import run as module
from bench.assess.harness import Harness
from bench.cli.grid import Request, expand
from bench.core.errors import UsageError
from bench.plugins.find import Plugins
from tests.plugin_files import ATTACK, write


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be carried out."""
    found: list[Any] = []

    def execute(rows: Any, seeds: Any, harness: Harness) -> list[str]:
        found.append((rows, seeds, harness))
        return ["results"]

    monkeypatch.setattr(module, "execute", execute)
    return found


def test_what_is_asked_is_the_grid_of_the_same_words(asked: list[Any], tmp_path: Path) -> None:
    results = bench.run(
        ["fedavg", "dp-sgd+fedshield"],
        ("mia", "inversion"),
        adversary=["server", "silo"],
        preset="smoke",
        seeds=range(2),
        settings={"dp-sgd.epsilon": 4, "federation.release": "every-round", "fedshield.sparsity_end": 0.5},
        secret_seed=3,
        store=tmp_path / "store",
        refresh=True,
        isolate=True,
        quiet=True,
    )
    assert results == ["results"]
    ((rows, seeds, harness),) = asked
    words = ("dp-sgd.epsilon=4", "federation.release=every-round", "fedshield.sparsity_end=.5")
    request = Request(
        "fedavg,dp-sgd+fedshield", "mia,inversion", None, "server,silo", "smoke", "0-1", words, secret_seed=3
    )
    assert rows == expand(request, Plugins()).rows
    assert len(rows) == 8
    assert seeds == (0, 1)
    assert harness.store.root == tmp_path / "store"
    options = harness.options
    assert (options.preset, options.refresh, options.wait, options.isolate, options.quiet) == (
        "smoke",
        True,
        False,
        True,
        True,
    )


@pytest.mark.parametrize(("seeds", "used"), [(7, (7,)), ([0, 3], (0, 3)), ("0-2", (0, 1, 2)), (None, (0,))])
def test_seeds_are_numbers_or_text(asked: list[Any], tmp_path: Path, seeds: Any, used: tuple[int, ...]) -> None:
    bench.run("fedavg", "mia", preset="smoke", seeds=seeds, store=str(tmp_path))
    assert asked[0][1] == used


def test_plug_ins_of_one_s_own_are_found(asked: list[Any], tmp_path: Path) -> None:
    path = write(tmp_path / "peek.py", ATTACK, "peeks")
    bench.run("fedavg", "peek", preset="smoke", plugins=[str(path)], store=tmp_path)
    assert asked[0][0][0].attack.name == "peek"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"defense": "fedavgg"}, "fedavgg"),
        ({"settings": {"federation.roundz": 3}}, "federation.rounds"),
        ({"settings": {"federation.rounds": "three"}}, "federation.rounds"),
        ({"defense": "ckks+fedshield"}, "each brings its own channel"),
        ({"seeds": [-1]}, "-1"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_done(
    asked: list[Any], tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        bench.run(**{"defense": "fedavg", "attack": "mia", "preset": "smoke", "store": tmp_path, **changes})
    assert asked == []


def test_every_option_is_documented_and_all_but_two_go_by_name() -> None:
    parameters = inspect.signature(bench.run).parameters.values()
    by_place = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert by_place == ["defense", "attack"]
