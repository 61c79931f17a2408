"""The rooms of ``bench``: in which order they stand, and that imports run downwards only and never in a ring.

``python -m tests.test_rooms`` prints the lines of code of every room, without comments, docstrings and blank lines.
"""

from __future__ import annotations

import ast
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import bench

ROOT = Path(bench.__file__).parent
#: from the bottom up: a room imports itself and what stands before it. ``bench`` is the package itself: its version
ORDER = (
    "bench",
    "core",
    "stats",
    "spec",
    "plugins",
    "assets",
    "store",
    "corpus",
    "model",
    "defense",
    "privacy",
    "transcript",
    "federation",
    "view",
    "attack",
    "games",
    "training",
    "assess",
    "board",
    "conformance",
    "cli",
    "__main__",
)
#: names modules as text, so that importing ``bench`` stays cheap
LAZY = frozenset({"bench"})
Graph = Mapping[str, frozenset[str]]


def modules(root: Path) -> dict[str, Path]:
    """Dotted name to file, of every module below ``root`` and of its packages."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = [root.name, *path.relative_to(root).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def graph(root: Path) -> dict[str, frozenset[str]]:
    """What each module imports of ``root``: at the top, in functions, under TYPE_CHECKING, and by a name in quotes."""
    known = modules(root)
    return {name: frozenset(_imports(name, path, known)) - {name} for name, path in known.items()}


def _imports(name: str, path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - (node.level - 1)] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield from (one for one in [whole if whole in known else base] if one in known)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and name not in LAZY:
            quoted = node.value.partition(":")[0]
            yield from (one for one in [quoted] if one in known and "." in one)


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def upward(found: Graph, order: tuple[str, ...] = ORDER) -> list[str]:
    """Arrows from a room to one that stands above it."""
    return [
        f"{module} imports {other}"
        for module, imported in found.items()
        for other in sorted(imported)
        if order.index(room(other)) > order.index(room(module))
    ]


def rings(found: Graph) -> list[list[str]]:
    """Modules that import each other, directly or through others, as groups."""
    reach = {name: set(imported) for name, imported in found.items()}
    grew = True
    while grew:
        grew = False
        for known in reach.values():
            more = set().union(*(found[one] for one in known)) - known if known else set()
            grew |= bool(more)
            known |= more
    inside = [name for name in found if name in reach[name]]
    return [
        sorted(group) for group in {frozenset(o for o in inside if o in reach[n] and n in reach[o]) for n in inside}
    ]


def code_lines(path: Path) -> int:
    """Lines that hold a token which is neither a comment nor part of a docstring."""
    source = path.read_text()
    texts: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            texts |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in blank:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - texts)


def test_every_room_has_its_place() -> None:
    assert {room(name) for name in modules(ROOT)} == set(ORDER)
    assert len(set(ORDER)) == len(ORDER)


def test_imports_run_downwards() -> None:
    assert upward(graph(ROOT)) == []


def test_no_modules_import_each_other() -> None:
    assert rings(graph(ROOT)) == []


def test_the_hall_is_empty() -> None:
    assert {path.name for path in ROOT.iterdir()} - {"__pycache__"} - set(ORDER) == {
        "__init__.py",
        "__main__.py",
        "py.typed",
        "models",
    }


def test_every_room_says_what_it_answers() -> None:
    silent = [n for n, path in modules(ROOT).items() if path.name == "__init__.py" and not _docstring(path)]
    assert silent == []


def _docstring(path: Path) -> str | None:
    return ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize(
    ("line", "caught"),
    [
        ("from bench.upper.top import x", "bench.lower.low imports bench.upper.top"),
        ("from bench.upper import top", "bench.lower.low imports bench.upper.top"),
        ("import bench.upper.top", "bench.lower.low imports bench.upper.top"),
        ("def f():\n    from ..upper import top", "bench.lower.low imports bench.upper.top"),
        ("TOP = 'bench.upper.top:x'", "bench.lower.low imports bench.upper.top"),
        ("from bench.lower import low_too", None),
    ],
)
def test_an_arrow_up_is_caught_however_it_is_written(tmp_path: Path, line: str, caught: str | None) -> None:
    root = _house(tmp_path, {"lower/low": line, "lower/low_too": "", "upper/top": "from bench.lower import low_too"})
    found = upward(graph(root), ("bench", "lower", "upper"))
    assert found == ([caught] if caught else [])


def test_a_ring_is_caught_at_any_length_and_under_type_checking(tmp_path: Path) -> None:
    texts = {
        "a/one": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from bench.a.two import x",
        "a/two": "def f():\n    from bench.a import three",
        "a/three": "import bench.a.one",
        "a/four": "from bench.a import one",
    }
    assert rings(graph(_house(tmp_path, texts))) == [["bench.a.one", "bench.a.three", "bench.a.two"]]


def _house(root: Path, texts: Mapping[str, str]) -> Path:
    for name, text in texts.items():
        path = root / "bench" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        (path.parent / "__init__.py").touch()
    (root / "bench" / "__init__.py").touch()
    return root / "bench"


def test_the_core_is_no_longer_than_it_says() -> None:
    text = (Path(__file__).resolve().parents[1] / "docs/architecture.md").read_text()
    section = text.partition("## The core, to be read in an afternoon")[2].partition("\n## ")[0]
    files = re.findall(r"^\| (\d+) \| `([\w/]+\.py)` \| .+ \|$", section, re.MULTILINE)
    assert [int(number) for number, _ in files] == list(range(1, len(files) + 1))
    assert len({name for _, name in files}) == len(files) >= 25
    stated = int(re.findall(r"([\d,]+) lines of code", section)[0].replace(",", ""))
    assert sum(code_lines(ROOT / name) for _, name in files) <= stated


def test_lines_of_code_leave_out_comments_docstrings_and_blank_lines(tmp_path: Path) -> None:
    text = '''
        """Two lines
        of docstring."""

        # a comment
        X = """text that is
        code"""  # counted: two lines


        def f():
            """Docstring."""
            return (
                1
            )
    '''
    (tmp_path / "m.py").write_text(textwrap.dedent(text))
    assert code_lines(tmp_path / "m.py") == 6


def main() -> None:
    from tabulate import tabulate

    table = {name: [0, 0] for name in ORDER}
    for name, path in modules(ROOT).items():
        table[room(name)][0] += 1
        table[room(name)][1] += code_lines(path)
    rows = [[name, *counts] for name, counts in table.items()]
    rows.append(["all", *(sum(column) for column in zip(*table.values(), strict=True))])
    print(tabulate(rows, headers=["room", "files", "code lines"]))
    for folder in ("defenses", "attacks", "tasks"):
        print(folder, sum(code_lines(path) for path in (ROOT.parent / folder).rglob("*.py")))


if __name__ == "__main__":
    main()
