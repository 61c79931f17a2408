"""Where a result comes from: the fingerprint of the code that made it, and the circumstances of the run.

The fingerprint decides whether a stored run may be reused; it is no part of a result's identity (DESIGN.md rule 5).
Nothing here imports a library to learn its version, and nothing names a machine, a user or a path.
"""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.core.errors import UsageError
from bench.core.files import read_text

if TYPE_CHECKING:
    from bench.plugins.find import Kind, Plugins
    from bench.spec.result import Result

#: libraries whose versions can change a figure
LIBRARIES = ("torch", "transformers", "peft", "tenseal", "opacus", "numpy", "dp-accounting")
#: further ones that are worth knowing
RECORDED = (*LIBRARIES, "scipy", "scikit-learn", "safetensors", "evaluate", "bitsandbytes")
#: what in ``bench`` asks for a run or shows one, and can't change its figures: the request itself is in the identity
BESIDE = frozenset(
    {
        "__main__",
        "arguments",
        "cli",
        "commands",
        "committed",
        "compare",
        "conformance",
        "doctor",
        "forecast",
        "grid",
        "leaderboard",
    }
    | {"isolation", "markdown", "matrix", "presets", "report", "rows", "tables", "verify"}
)
#: what measures a finished training's usefulness
MEASURING = frozenset({"metrics", "stats", "utility"})
#: what comes after a training, and so can't change one; a run of its own takes its variant's module besides
AFTER_TRAINING = (
    BESIDE
    | MEASURING
    | {
        "adversaries",
        "assess",
        "attack",
        "behaviour",
        "estimate",
        "games",
        "gradient_memo",
        "gradients",
        "jobs",
        "lender",
    }
    | {"logged", "openers"}
    | {"plays", "progress", "provenance", "result", "run", "spec", "store", "tuning", "variants", "view", "views"}
    | {"writer"}
)
#: of those, the modules that a training does take
_IN_TRAINING = frozenset({"games/planting.py", "games/text.py"})
_ROOT = Path(__file__).resolve().parents[1]
Made = Literal["result", "training", "utility"]


def fingerprint(files: Iterable[Path | None], root: Path = _ROOT, *, of: Made = "result") -> str:
    """64 hexadecimal digits: SHA-256 over the source of ``bench``, of the plug-ins in ``files`` and of the modules of
    their own folders that they import, and over the versions of ``LIBRARIES``.

    The same on every machine: file names are relative, line ends normalised, and a build's local version label (the
    ``+cu128`` of a torch wheel) left out. None stands for a plug-in without a source file. ``of``: a ``training``
    depends on less than a result, so that a stored one outlives changes of attacks, views and games; its ``utility``
    on what measures it. Raises UsageError where a file can't be read.
    """
    entries = [f"bench/{path.relative_to(root).as_posix()} {_digest(path)}" for path in _harness(root, of)]
    for file in files:
        if file is not None:
            top = file.resolve().parent
            entries += [f"{Path(os.path.relpath(path, top)).as_posix()} {_digest(path)}" for path in imported(file)]
    entries += [f"{name}=={_version(name).partition('+')[0]}" for name in LIBRARIES]
    return hashlib.sha256("\n".join(sorted(set(entries))).encode()).hexdigest()


def of_result(result: Result, plugins: Plugins) -> str | None:
    """The fingerprint that ``result`` would get today, or None where one of its plug-ins is not installed.

    The plug-ins that take part are the task, every part of the defense, and the attack.
    """
    try:
        return fingerprint([plugins.find(kind, name).path for kind, name in taking_part(result)])
    except UsageError:
        return None


def taking_part(result: Result) -> tuple[tuple[Kind, str], ...]:
    """Kind and name of the plug-ins behind a result. A name ends at ``:`` (``jsonl:PATH``)."""
    defenses: list[tuple[Kind, str]] = [("defense", name) for name in result.defense.split("+")]
    return (("task", result.task.partition(":")[0]), *defenses, ("attack", result.attack))


def _harness(root: Path, of: Made) -> Iterator[Path]:
    for path in root.rglob("*.py"):
        name = path.relative_to(root)
        first = name.parts[0].removesuffix(".py")
        if of == "utility":
            taken = first in MEASURING
        elif of == "training":
            taken = first not in AFTER_TRAINING or name.as_posix() in _IN_TRAINING
        else:
            taken = first not in BESIDE
        if taken:
            yield path


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
def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


def provenance(device: str) -> dict[str, Any]:
    """The circumstances of a run, as JSON: commit and ``dirty`` (None outside a checkout of SiloBench), versions,
    processor, ``cores`` this process may use, ``device`` (with the name of the graphics card), and the date in UTC."""
    import bench

    commit, dirty = _checkout(_ROOT.parent)
    return {
        "silobench": bench.__version__,
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": _cores(),
        "device": _device(device),
        "versions": {name: _version(name) for name in RECORDED if _version(name) != "absent"},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _checkout(root: Path) -> tuple[str | None, bool | None]:
    """The commit of the work tree whose top is ``root``. An installation inside some other repository has none."""
    if not (root / ".git").exists():
        return None, None
    commit, status = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain")
    return commit or None, None if status is None else bool(status)


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu() -> str:
    for line in (read_text(Path("/proc/cpuinfo")) or "").splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _device(device: str) -> str:
    """``device``, with the card's name where torch is already loaded and has one."""
    torch = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda"):
        return device
    try:
        return f"{device} ({torch.cuda.get_device_name(device)})"
    except (RuntimeError, AssertionError, ValueError):
        return device
