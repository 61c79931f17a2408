"""What a plug-in's source says of itself, read with ``ast`` so that nothing is run."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.core.errors import UsageError

#: bytes of a file
_MOST = 4 * 2**20
_KINDS = {"Defense": "defense", "Attack": "attack", "Task": "task"}


@dataclass(frozen=True)
class Outline:
    """``api``, ``version``, ``name`` and ``kind`` as assigned at the top level (None where not); ``build``: defines it
    or not.

    ``kind`` falls back on the class that ``build`` is annotated to return: Defense, Attack (of whichever game) or Task.
    ``broken`` says, as one sentence, why the file could not be read.
    """

    docstring: str = ""
    api: Any = None
    version: Any = None
    name: str | None = None
    kind: str | None = None
    build: bool = False
    broken: str = ""

    @property
    def summary(self) -> str:
        """The docstring's first line."""
        return self.docstring.strip().partition("\n")[0].strip()

    @property
    def is_plugin(self) -> bool:
        return self.build and self.api is not None


def outline(path: Path) -> Outline:
    """A file's outline; where it can't be read or is not valid Python, one that says so in ``broken``."""
    try:
        return _outline(_read(path), str(path))
    except UsageError as error:
        return Outline(broken=str(error))


# memoised because every registry of a process asks for the same hundred files
@lru_cache(maxsize=512)
def _outline(source: bytes, path: str) -> Outline:
    tree = _parsed(source, path)
    values = _assignments(tree)
    function = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "build"), None)
    name, kind = values.get("name"), values.get("kind")
    return Outline(
        docstring=ast.get_docstring(tree) or "",
        api=values.get("api"),
        version=values.get("version"),
        name=name if isinstance(name, str) else None,
        kind=kind if isinstance(kind, str) else _returned(function),
        build=function is not None,
    )


def parse(path: Path) -> ast.Module:
    """The syntax tree of a file. Raises UsageError naming file and line."""
    return _parsed(_read(path), str(path))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            source = file.read(_MOST + 1)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}.") from None
    if len(source) > _MOST:
        raise UsageError(f"{path} has more than {_MOST} bytes, which no plug-in's file may have.")
    return source


def _parsed(source: bytes, path: str) -> ast.Module:
    try:
        return ast.parse(source, path)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        where = f"{path} line {line}" if line else path
        says = getattr(error, "msg", error if str(error) else "it is nested too deeply")
        raise UsageError(f"{where} is not valid Python: {says}.") from None


def _assignments(tree: ast.Module) -> dict[str, Any]:
    """Top-level ``name = literal`` and ``name: type = literal``; the last one counts."""
    values: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
                values[target.id] = value.value
    return values


def _returned(function: ast.FunctionDef | None) -> str | None:
    annotation = function.returns if function else None
    text = ast.unparse(annotation).strip("'") if annotation else ""
    # one of a game's own class (MembershipAttack) is an attack too
    return next((kind for word, kind in _KINDS.items() if text.endswith(word)), None)


def top_package(file: Path) -> Path:
    """The top folder of the package that a module's file is in, or the file itself where it is in none."""
    top = file
    while (top.parent / "__init__.py").exists():
        top = top.parent
    return top
