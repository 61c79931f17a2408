"""Finds a plug-in by name: a built-in file, an installed entry point, a path. No table lists them.

A plug-in is a Python file that assigns ``api = 1`` and ``version = 1`` and defines ``build``. Listing reads files with
``ast`` and runs nothing, so ``bench list`` imports no plug-in; a plug-in is imported when it is first used. Sources:

* files directly in the installed packages ``defenses``, ``attacks`` and ``tasks``;
* entry points of the groups ``silobench.defenses``, ``silobench.attacks``, ``silobench.tasks`` (value: a module);
* files that the user names with ``--plugin PATH``.

A plug-in's name is its file's stem with ``_`` as ``-``, or ``name = "..."`` where the file assigns it; of an entry
point, the entry point's name. Two plug-ins of one kind never share a name.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, get_args

from bench import API
from bench.core.errors import SiloBenchError, UsageError, unknown_name
from bench.plugins.outline import Outline, outline

if TYPE_CHECKING:
    from bench.spec.config import Config

Kind = Literal["defense", "attack", "task"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: the package that holds the built-in plug-ins of a kind; entry points are in the group ``silobench.<package>``
PACKAGES: dict[Kind, str] = {"defense": "defenses", "attack": "attacks", "task": "tasks"}
#: what ``--set`` addresses beside plug-ins, so no plug-in may be called so
RESERVED = ("model", "pool", "federation")
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Plugin:
    """One plug-in, not yet imported. ``target``: the module to import, or None where ``path`` is loaded as a file.
    ``package``: the installed distribution that brings it, if one does."""

    kind: Kind
    name: str
    path: Path | None
    outline: Outline
    origin: Literal["built-in", "installed", "path"]
    target: str | None = None
    package: str = ""

    @property
    def summary(self) -> str:
        """The first line of the module's docstring, or an empty string."""
        return self.outline.summary

    @property
    def version(self) -> int:
        """What its numbers mean: raised when they change. 1 where the file does not say."""
        return 1 if self.outline.version is None else int(self.outline.version)

    @property
    def where(self) -> str:
        """The file, or the module of an entry point whose file was not found."""
        return str(self.path) if self.path is not None else f"module {self.target}"

    @property
    def broken(self) -> str:
        """Why the plug-in can't be used, as one sentence, or an empty string where nothing speaks against it yet."""
        if self.outline.broken:
            return self.outline.broken
        if not NAME.fullmatch(self.name) or self.name in RESERVED:
            return (
                f"{self.where}: '{self.name}' can't name a plug-in; use lower-case letters and digits joined by '-', "
                f"and none of {', '.join(RESERVED)}."
            )
        if self.outline.api not in (None, API):
            return (
                f"{self.where} asks for plug-in api {self.outline.api!r}, and this silobench offers api {API}: "
                "install the silobench release that the plug-in was written for, or update the plug-in."
            )
        said = self.outline.version
        if said is not None and (not isinstance(said, int) or isinstance(said, bool) or said < 1):
            return f"{self.where} has version {said!r}: it is a whole number from 1 on, raised when its numbers change."
        return ""

    @cached_property
    def _module(self) -> ModuleType:
        try:
            module = import_module(self.target) if self.target else _load(self.path)
        except SiloBenchError:
            raise
        except Exception as error:
            raise UsageError(
                f"{self.kind} '{self.name}' can't be imported from {self.where}: {type(error).__name__}: {error}."
            ) from error
        _check_module(self, module)
        return module

    def module(self) -> ModuleType:
        """Import the plug-in (once). Raises UsageError naming the file and the cause where that fails."""
        return self._module

    @property
    def config_class(self) -> type[Config]:
        """The plug-in's ``Config``."""
        found: type[Config] = self.module().Config
        return found

    def validate(self, values: Mapping[str, Any]) -> Config:
        """``values`` as the plug-in's ``Config``, defaults filled in. Raises UsageError naming key, value and bound."""
        from bench.spec.explain import validated

        return validated(self.config_class, values, self.name)

    def build(self, config: Mapping[str, Any] | Config | None = None) -> Any:
        """The Defense, Attack or Task for ``config`` (a mapping is validated first).

        Raises UsageError on a bad configuration, and SiloBenchError where ``build`` itself fails.
        """
        ready = self.validate(config or {}) if config is None or isinstance(config, Mapping) else config
        try:
            return self.module().build(ready)
        except SiloBenchError:
            raise
        except Exception as error:
            raise SiloBenchError(
                f"{self.kind} '{self.name}' ({self.where}) failed to build: {type(error).__name__}: {error}."
            ) from error


class Plugins:
    """The registry. ``paths``: files from ``--plugin``; ``folders`` replaces the built-in folder of a kind (tests)."""

    def __init__(self, paths: Sequence[Path] = (), folders: Mapping[Kind, Path] | None = None) -> None:
        self._paths = tuple(paths)
        self._folders = folders
        self._found: dict[Kind, dict[str, Plugin]] = {}
        self._hidden: dict[tuple[Kind, str], Plugin] = {}

    def names(self, kind: Kind) -> tuple[str, ...]:
        """Names of all plug-ins of ``kind``, sorted."""
        return tuple(sorted(self._all(kind)))

    def all(self, kind: Kind) -> tuple[Plugin, ...]:
        """All plug-ins of ``kind``, sorted by name."""
        found = self._all(kind)
        return tuple(found[name] for name in sorted(found))

    def find(self, kind: Kind, name: str) -> Plugin:
        """The plug-in called ``name``. Raises UsageError with the nearest name where there is none."""
        found = self._all(kind)
        if name not in found:
            raise unknown_name(kind, name, found)
        if found[name].broken:
            raise UsageError(found[name].broken)
        return found[name]

    def search(self, name: str) -> tuple[Plugin, ...]:
        """Plug-ins of any kind called ``name``. Raises UsageError with the nearest name where there is none."""
        hits = tuple(self._all(kind)[name] for kind in KINDS if name in self._all(kind))
        if not hits:
            raise unknown_name("plug-in", name, {n for kind in KINDS for n in self._all(kind)})
        return hits

    def hidden(self, kind: Kind, name: str) -> Plugin | None:
        """The installed plug-in that is not used, since a built-in one has its name; None where there is none."""
        self._all(kind)
        return self._hidden.get((kind, name))

    def presets(self) -> dict[str, Path]:
        """Preset files beside the tasks (``presets/*.toml``), by name."""
        return {path.stem: path for path in sorted((self._folder("task") / "presets").glob("*.toml"))}

    def _folder(self, kind: Kind) -> Path:
        if self._folders is not None and kind in self._folders:
            return self._folders[kind]
        return package_folder(PACKAGES[kind])

    def _all(self, kind: Kind) -> dict[str, Plugin]:
        if kind not in self._found:
            found: dict[str, Plugin] = {}
            for plugin in self._sources(kind):
                other = found.setdefault(plugin.name, plugin)
                if (other.origin, plugin.origin) == ("built-in", "installed"):
                    self._hidden[kind, plugin.name] = plugin  # no package that happens to be there replaces one of ours
                elif other is not plugin:
                    raise UsageError(
                        f"Two plug-ins are called {kind} '{plugin.name}': {other.where} and {plugin.where}; rename one "
                        "(assign another 'name' in its file)."
                    )
            self._found[kind] = found
        return self._found[kind]

    def _sources(self, kind: Kind) -> Iterator[Plugin]:
        yield from _built_in(kind, self._folder(kind), PACKAGES[kind] if self._folders is None else None)
        yield from _installed(kind)
        for path in self._paths:
            plugin = from_path(path)
            if plugin.kind == kind:
                yield plugin


def package_folder(package: str) -> Path:
    """The folder of an installed top-level package, found without importing it. Raises SiloBenchError."""
    spec = find_spec(package)
    locations = list(spec.submodule_search_locations or ()) if spec else []
    if not locations:
        raise SiloBenchError(f"The package '{package}' of silobench is not installed: reinstall silobench.")
    return Path(locations[0])


def from_path(path: Path) -> Plugin:
    """The plug-in in a file that the user named.

    Its kind is what it assigns to ``kind``, else what ``build`` is annotated to return (Defense, Attack, Task), else
    the folder it lies in (defenses, attacks, tasks). Raises UsageError where the file is no plug-in.
    """
    if not path.is_file():
        raise UsageError(f"--plugin {path}: there is no such file; name a Python file that holds one plug-in.")
    read = outline(path)
    if read.broken:
        raise UsageError(read.broken)
    if not read.is_plugin:
        raise UsageError(f"--plugin {path}: it is no plug-in; one assigns 'api = {API}' and defines 'build'.")
    folders = {folder: kind for kind, folder in PACKAGES.items()}
    kind = read.kind or folders.get(path.resolve().parent.name)
    if kind not in KINDS:
        raise UsageError(f"--plugin {path}: its kind is unknown; annotate build, e.g. 'def build(config) -> Defense'.")
    return Plugin(kind, read.name or stem(path), path.resolve(), read, "path")


def stem(path: Path) -> str:
    """A file's plug-in name: its stem with ``-`` for ``_``."""
    return path.stem.replace("_", "-")


def _built_in(kind: Kind, folder: Path, package: str | None) -> Iterator[Plugin]:
    for path in sorted(folder.glob("*.py")):
        if path.name.startswith("_"):
            continue
        read = outline(path)
        if read.is_plugin or read.broken:
            target = f"{package}.{path.stem}" if package else None
            yield Plugin(kind, read.name or stem(path), path, read, "built-in", target)


def _installed(kind: Kind) -> Iterator[Plugin]:
    from importlib.metadata import entry_points

    for entry in sorted(entry_points(group=f"silobench.{PACKAGES[kind]}"), key=lambda entry: (entry.name, entry.value)):
        path = _module_file(entry.module)
        package = entry.dist.name if entry.dist is not None else ""
        made = outline(path) if path else Outline()
        yield Plugin(kind, entry.name, path, made, "installed", entry.module, package)


def _module_file(module: str) -> Path | None:
    """The source file of a dotted module, without importing its parents; None where it is not plain files."""
    top, *rest = module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for location in spec.submodule_search_locations or ():
        base = Path(location, *rest)
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None


def _load(path: Path | None) -> ModuleType:
    """Import a file under a private package for its folder, so that ``from . import sibling`` works."""
    assert path is not None
    package = f"_silobench_plugins_{hashlib.sha256(str(path.parent).encode()).hexdigest()[:12]}"
    if package not in sys.modules:
        spec = ModuleSpec(package, None, is_package=True)
        spec.submodule_search_locations = [str(path.parent)]
        sys.modules[package] = module_from_spec(spec)
    return import_module(f"{package}.{path.stem}")


def _check_module(plugin: Plugin, module: ModuleType) -> None:
    from bench.spec.config import Config

    api = getattr(module, "api", None)
    if api != API:
        raise UsageError(f"{plugin.where} asks for plug-in api {api!r}, and this silobench offers api {API}.")
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and issubclass(config, Config) and config is not Config):
        raise UsageError(f"{plugin.where} defines no class 'Config' of its own that derives from bench.Config.")
    if not callable(getattr(module, "build", None)):
        raise UsageError(f"{plugin.where} defines no function 'build(config)'.")
