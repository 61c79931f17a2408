"""A party's memory between steps: arrays on disk, written with the round that they belong to.

A party lives only while it acts; what it keeps stands here. Writes go to the round in progress and count when that
round is committed. Entries under ``keys/`` are never overwritten or deleted: they are what a coalition knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.core.errors import SiloBenchError, UsageError
from bench.core.files import private_folder
from bench.core.npy import save

_KEY = re.compile(r"[a-z0-9][a-z0-9_.\-]*(/[a-z0-9][a-z0-9_.\-]*)*")


class StateStore:
    """All parties' states of one run: an index from (party, key) to the file that holds the newest committed value."""

    def __init__(self, secrets: Path) -> None:
        self._index: dict[str, dict[str, Path]] = {}
        for directory in sorted((d for d in secrets.glob("[0-9]*") if d.name.isdigit()), key=lambda d: int(d.name)):
            self._scan(directory)
        self._writing: Path | None = None
        self._stale: list[Path] = []

    def _scan(self, directory: Path) -> None:
        for party in sorted(p for p in directory.iterdir() if p.is_dir()):
            entries = self._index.setdefault(party.name, {})
            for path in party.rglob("*.npy"):
                entries[path.relative_to(party).with_suffix("").as_posix()] = path

    def begin(self, directory: Path) -> None:
        """Direct writes to ``directory`` (the round in progress) until ``committed``."""
        self._writing = directory
        self._stale = []

    def committed(self, directory: Path) -> None:
        """The round in progress now lies at ``directory``: point the index there and drop what was replaced."""
        old = self._writing
        self._writing = None
        for entries in self._index.values():
            for key, path in entries.items():
                if old is not None and path.is_relative_to(old):
                    entries[key] = directory / path.relative_to(old)
        for path in self._stale:
            path.unlink(missing_ok=True)
        self._stale = []

    def party(self, name: str) -> PartyState:
        return PartyState(self, name)

    def entries(self, party: str) -> dict[str, Path]:
        return self._index.setdefault(party, {})

    def write(self, party: str, key: str, value: NDArray[Any]) -> None:
        if self._writing is None:
            raise SiloBenchError(f"{party} wrote state outside a round")
        if not _KEY.fullmatch(key):
            raise SiloBenchError(f"{party} used '{key}' as a key of its state: use lower-case words joined by '/'")
        entries = self.entries(party)
        path = self._writing / party / f"{key}.npy"
        former = entries.get(key)
        if former is not None and key.startswith("keys/"):
            raise SiloBenchError(f"{party} overwrote its secret '{key}': name it by its round instead")
        private_folder(path.parent, self._writing.parent)
        # a new name each time: a memory map of the former value stays valid
        temporary = path.with_suffix(".partial")
        save(temporary, np.asarray(value), private=True)
        temporary.rename(path)
        if former is not None and former != path:
            self._stale.append(former)
        entries[key] = path

    def delete(self, party: str, key: str) -> None:
        if key.startswith("keys/"):
            raise SiloBenchError(f"{party} deleted its secret '{key}': secrets are kept for the views")
        self._stale.append(self.entries(party).pop(key))


class PartyState(MutableMapping[str, NDArray[Any]]):
    """One party's entries. Reading maps the file into memory, read-only."""

    def __init__(self, store: StateStore, party: str) -> None:
        self._store = store
        self._party = party

    def __getitem__(self, key: str) -> NDArray[Any]:
        path = self._store.entries(self._party)[key]
        try:
            small = path.stat().st_size < 2**16
            return np.asarray(np.load(path, allow_pickle=False, mmap_mode=None if small else "r"))
        except Exception as error:  # as in ``bench.core.npy.promised``
            raise UsageError(f"{path} is no readable .npy file ({error}): run with --refresh.") from None

    def __setitem__(self, key: str, value: NDArray[Any]) -> None:
        self._store.write(self._party, key, value)

    def __delitem__(self, key: str) -> None:
        self._store.delete(self._party, key)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._store.entries(self._party)))

    def __len__(self) -> int:
        return len(self._store.entries(self._party))
