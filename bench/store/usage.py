"""How large a store is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bench.store.store import Store


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
