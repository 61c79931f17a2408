"""The run descends: each step takes what the one above it made, in few parameters, and nothing reaches back up."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import bench
from tests.test_rooms import graph, modules

ROOT = Path(bench.__file__).parent
#: the modules of the run, from top to bottom: each may import those that stand after it
DESCENT = ("run", "write", "assess", "harness", "jobs", "tools", "gradient_memo", "progress")
MOST = 5


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and number of parameters, but for ``self`` and ``cls``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            yield node.name, len([name for name in given if name not in ("self", "cls")])


@pytest.mark.parametrize("room", ["assess", "training"])
def test_no_function_of_the_run_takes_more_than_five_parameters(room: str) -> None:
    paths = [*(ROOT / room).glob("*.py"), *(ROOT / room / "variants").glob("*.py")]
    assert {f"{p.name}:{name}" for p in paths for name, count in functions(p) if count > MOST} == set()


def test_no_step_imports_one_above_it() -> None:
    found, order = graph(ROOT), {f"bench.assess.{name}": place for place, name in enumerate(DESCENT)}
    known = {n for n, p in modules(ROOT).items() if n.count(".") == 2 and n.startswith("bench.assess.")}
    folders = {n for n in known if modules(ROOT)[n].name == "__init__.py"}
    assert known - folders - {"bench.assess.rescore"} == set(order)
    back = [(a, b) for a in order for b in found[a] if b in order and order[b] < order[a]]
    # results are made under the type of the assessor that found them, and of the harness that keeps them
    assert back == []


def test_what_is_assessed_reaches_no_store_and_no_harness() -> None:
    found = graph(ROOT)
    seen, waiting = set[str](), ["bench.assess.assess"]
    while waiting:
        name = waiting.pop()
        if name not in seen and name.startswith("bench.assess"):
            seen.add(name)
            waiting += found[name]
    assert not seen & {"bench.assess.run", "bench.assess.harness", "bench.assess.write"}
