"""Locks between processes, each with a word of who holds it. Whoever waits for one holds none, so none wait in a ring.

    FOLDER/<name>.lock   taken by one process at a time; kept, since removing it would let two holders in
    FOLDER/<name>.json   while it is taken: who holds it

The system releases the lock of a killed process.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.core.errors import UsageError
from bench.core.files import write_text, writing
from bench.spec.foreign import read

if TYPE_CHECKING:
    from filelock import BaseFileLock

#: seconds between two looks at a taken lock
POLL = 0.1
#: seconds that a holder may be without a word, when it begins and when it ends
_INTRODUCTION = 2.0


@dataclass(frozen=True)
class Holder:
    """``doing``: what for, as words that follow "which process N". ``passing``: it lets go when the run is trained."""

    doing: str
    passing: bool = False
    pid: int = 0

    def __str__(self) -> str:
        return f"process {self.pid}, {self.doing}"


class Taken(UsageError):
    """Somebody else holds the lock. ``holder``: None where it did not say who."""

    def __init__(self, message: str, holder: Holder | None) -> None:
        super().__init__(message)
        self.holder = holder


class Locks:
    """The locks of one folder, which is created with the first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def held(
        self, name: str, holder: Holder, taken: str, waiting: Callable[[Holder | None], None] | None = None
    ) -> Iterator[None]:
        """Hold ``name``. Raises Taken (``taken`` begins its sentence) where it is held and ``waiting`` is None; else
        ``waiting`` is told for whom, at once and whenever that changes, until it is free."""
        from filelock import FileLock

        path = self.folder / f"{name}.lock"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            self._acquire(lock, name, taken, waiting)
            who = path.with_suffix(".json")
            try:
                write_text(who, json.dumps(asdict(holder) | {"pid": os.getpid()}))
            except BaseException:
                lock.release()
                raise
        try:
            yield
        finally:
            who.unlink(missing_ok=True)
            lock.release()

    def _acquire(
        self, lock: BaseFileLock, name: str, taken: str, waiting: Callable[[Holder | None], None] | None
    ) -> None:
        told: Holder | None = None
        first, silent = True, time.monotonic()
        while not _tried(lock):
            holder = self.holder(name)
            if holder is None and time.monotonic() < silent + _INTRODUCTION:
                time.sleep(POLL)  # it took the lock this moment, or is about to let it go
                continue
            silent = time.monotonic()
            if waiting is None:
                by = f" ({holder})" if holder is not None else ""
                raise Taken(f"{taken}{by}: wait for it (--wait), or name another store with --store.", holder)
            if first or holder != told:
                waiting(holder)
                first, told = False, holder
            time.sleep(POLL)

    def holder(self, name: str) -> Holder | None:
        """Who holds a taken lock, in its own words; None where there are none that can be read."""
        try:
            found = read(Holder, self.folder / f"{name}.json")
        except UsageError:
            return None
        return found if found and found.pid else None


def _tried(lock: BaseFileLock) -> bool:
    from filelock import Timeout

    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True
