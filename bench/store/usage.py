"""How large a store is."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from stat import S_IMODE

from bench.store.store import Store

#: what only its owner may open: the games' secrets, the parties' keys and states, and what is opened with them
PRIVATE = ("plantings", "details", "runs/*/transcript/secrets", "runs/*/transcript/truth", "runs/*/views/*")


@dataclass(frozen=True)
class Usage:
    """What a store holds: numbers of files, bytes on disk, and ``leftovers`` (``*.partial`` of killed processes)."""

    root: Path
    runs: int
    results: int
    scores: int
    plantings: int
    leftovers: int
    bytes: int


def usage(store: Store) -> Usage:
    """Count files and bytes, for ``bench doctor``. Files that vanish meanwhile are left out."""
    counts = {name: len(list((store.root / name).glob("*.json"))) for name in ("results", "scores", "plantings")}
    total = leftovers = 0
    for folder, folders, files in os.walk(store.root):
        leftovers += sum(name.endswith(".partial") for name in (*folders, *files))
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue
    return Usage(store.root, runs=len(list(store.runs())), leftovers=leftovers, bytes=total, **counts)


def exposed(store: Store) -> tuple[int, str]:
    """How many private files others on this machine can open or list, and a command that mends it ("" where none).

    Nobody reaches what lies in a folder of its owner only.
    """
    count, folders = 0, {}
    for pattern in PRIVATE if _open(store.root) else ():
        for folder in store.root.glob(pattern):
            found = sum(len(files) for where, below, files in os.walk(folder) if _enters(Path(where), below))
            if found:
                count += found
                folders[pattern] = f"{shlex.quote(str(store.root))}/{pattern}"
    return count, f"chmod -R go= {' '.join(folders.values())}" if count else ""


def _enters(folder: Path, below: list[str]) -> bool:
    if not _open(folder):
        below.clear()
    return _open(folder)


def _open(path: Path) -> bool:
    try:
        return bool(S_IMODE(path.stat().st_mode) & 0o077)
    except OSError:
        return False
