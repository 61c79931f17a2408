"""What a stored training, its measurement or a result is made by: digests of rooms, plug-ins and libraries.

A fingerprint decides whether a local store may reuse what it holds, and nothing else: it is no part of an identity, and
on a board versions decide (``bench.core.versions``). A *room* is a folder of ``bench`` that holds modules.
"""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from bench.core.errors import UsageError
from bench.spec.config import digest
from bench.spec.run import Row, RunSpec

if TYPE_CHECKING:
    from bench.plugins.find import Kind, Plugins

#: libraries whose versions can change a figure
LIBRARIES = ("torch", "transformers", "peft", "tenseal", "opacus", "numpy", "dp-accounting")
#: rooms, with those inside them, that ask for a run, show one or try a plug-in, and can't change its figures
BESIDE = frozenset({"board", "cli", "conformance", "assess/isolation"})
#: rooms, with those inside them, that a training depends on; a run of its own takes two more
TRAINING = frozenset({"assets", "core", "corpus", "defense", "federation", "model", "privacy", "spec", "training"})
TRAINING |= {"transcript"}
#: rooms that measure a finished training's usefulness
MEASURING = frozenset({"stats", "training/measure"})
#: rooms of runs of their own only: variants, and the behaviours of attacks that deviate in one
OF_ITS_OWN = frozenset({"attack", "training/variants"})
#: rooms that turn a sheet of scores into figures
SCORING = frozenset({"games", "stats"})
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Fingerprint:
    """``parts``: name ("bench/model", "defenses/fedshield.py", "torch") to a digest or a version."""

    parts: Mapping[str, str]

    @cached_property
    def text(self) -> str:
        """64 hexadecimal digits: SHA-256 of all parts."""
        return digest(dict(self.parts), 64)

    def changed(self, former: Mapping[str, str]) -> tuple[str, ...]:
        """Names of the parts in which ``former`` differs, sorted."""
        names = {*self.parts, *former}
        return tuple(sorted(name for name in names if self.parts.get(name) != former.get(name)))


class Fingerprints:
    """Makes fingerprints for one command, and reads every source once. ``root``: of the package ``bench``."""

    def __init__(self, plugins: Plugins, root: Path = _ROOT) -> None:
        self.plugins, self.root = plugins, root
        self._known: dict[Path, tuple[str, str]] = {}

    def of_result(self, row: Row) -> Fingerprint:
        """Of a result of ``row``: all rooms but those beside it, and the task, the defenses and the attack that it
        names. Raises UsageError where a plug-in is not here or can't be read."""
        rooms = (name for name in self._rooms if not _inside(name, BESIDE))
        return self._made(rooms, [*_parts(row.run), ("attack", row.attack.name)])

    def of_training(self, spec: RunSpec) -> Fingerprint:
        """Of a training: the rooms and plug-ins that it depends on, so that it outlives changes of attacks, views and
        games. Raises UsageError like ``of_result``."""
        wanted, apart = (TRAINING, OF_ITS_OWN) if spec.variant is None else (TRAINING | OF_ITS_OWN, frozenset[str]())
        rooms = (name for name in self._rooms if _inside(name, wanted) and not _inside(name, MEASURING | apart))
        named = _parts(spec)
        deviating = {} if spec.variant is None else spec.variant.config.get("attack")
        if isinstance(deviating, dict) and deviating:
            named.append(("attack", deviating["name"]))
        return self._made(rooms, named)

    def of_measuring(self, spec: RunSpec) -> Fingerprint:
        """Of a training's utility. Raises UsageError like ``of_result``."""
        return self._made(MEASURING & self._rooms.keys(), [("task", spec.task.name)])

    def _made(self, rooms: Iterable[str], named: Iterable[tuple[Kind, str]]) -> Fingerprint:
        parts = {f"bench/{name}": self._rooms[name] for name in rooms}
        for kind, name in named:
            path = self.plugins.find(kind, name).path
            if path is not None:
                key, value = self._plugin(path)
                parts[key] = value
        return Fingerprint(parts | {name: version(name).partition("+")[0] for name in LIBRARIES})

    @cached_property
    def _rooms(self) -> dict[str, str]:
        """By room the digest of its own modules; the top folder, which only names what is below, is none."""
        found: dict[str, list[str]] = {}
        for path in sorted(self.root.rglob("*.py")):
            room = path.parent.relative_to(self.root).as_posix()
            if room != ".":
                found.setdefault(room, []).append(f"{path.name} {_digest(path)}")
        return {room: digest(sorted(lines)) for room, lines in found.items()}

    def _plugin(self, path: Path) -> tuple[str, str]:
        """A plug-in's name here (its folder's and its own), and the digest of it and all that it imports from its
        folder."""
        if path not in self._known:
            top = path.resolve().parent
            lines = sorted(f"{Path(os.path.relpath(p, top)).as_posix()} {_digest(p)}" for p in imported(path))
            self._known[path] = f"{top.name}/{path.name}", digest(lines)
        return self._known[path]


def _inside(room: str, rooms: frozenset[str]) -> bool:
    """Whether a room is one of ``rooms``, or lies in one."""
    return any(room == one or room.startswith(f"{one}/") for one in rooms)


def _parts(spec: RunSpec) -> list[tuple[Kind, str]]:
    return [("task", spec.task.name), *(("defense", part.name) for part in spec.defense)]


def imported(file: Path) -> tuple[Path, ...]:
    """``file`` and what it imports from its own folder, directly or through others, at any depth of its code; sorted.

    Followed are relative imports, and absolute ones whose first name is a folder above the importing file (a module
    ``defenses.channels.ckks`` in ``.../defenses/fedshield.py``), so libraries beside it are not.
    """
    found: set[Path] = set()
    waiting = [file.resolve()]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _targets(path)
    return tuple(sorted(found))


def _targets(path: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror}).") from None
    except (SyntaxError, ValueError, RecursionError):
        return  # it can't be imported either; whoever tries says so
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _absolute(path, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            parts = node.module.split(".") if node.module else []
            for alias in node.names:
                names = [*parts, alias.name]
                if node.level:
                    yield from _modules(path.parents[min(node.level, len(path.parents)) - 1], names)
                else:
                    yield from _absolute(path, names)


def _absolute(path: Path, names: list[str]) -> Iterator[Path]:
    for folder in path.parents:
        if folder.name == names[0] != "bench":
            yield from _modules(folder, names[1:])
            return


def _modules(folder: Path, names: list[str]) -> Iterator[Path]:
    """Files that importing ``names`` below ``folder`` runs; the last name may be no module but something in one."""
    for name in names:
        for path in (folder / f"{name}.py", folder / name / "__init__.py"):
            if path.is_file():
                yield path.resolve()
        folder = folder / name


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror}).") from None


@cache
def version(name: str) -> str:
    """An installed library's version, or "absent"."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"
