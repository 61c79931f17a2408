"""What a process makes for a while, marked as its own by a lock that the system releases with it: whatever is not held
was left by a killed one. Where the system has no such locks, nothing counts as left."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: ends the temporary names of files that are being written, and of folders that are being made or removed
PARTIAL = ".partial"
_NOTHING = -1


def hold(path: Path) -> int | None:
    """Hold a file or folder that was just made, until ``release``. None where there is nothing to hold: whoever was
    sweeping took it, so that it must be made again."""
    if fcntl is None:
        return _NOTHING
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with suppress(OSError):  # a file system without locks
        fcntl.flock(handle, fcntl.LOCK_EX)
    if os.fstat(handle).st_nlink and path.exists():
        return handle
    os.close(handle)
    return None


def release(handle: int | None) -> None:
    """Let go of what ``hold`` returned."""
    if handle is not None and handle != _NOTHING:
        os.close(handle)


def sweep(folder: Path, pattern: str = f"*{PARTIAL}") -> int:
    """Remove files and folders of ours in ``folder`` that nobody holds; how many. What can't be removed stays."""
    count = 0
    for path in folder.glob(pattern) if fcntl is not None else ():
        with suppress(OSError), _free(path) as free:
            if free:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                count += 1
    return count


@contextmanager
def _free(path: Path) -> Iterator[bool]:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        mine = os.fstat(handle).st_uid == os.getuid()
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield mine
    finally:
        os.close(handle)


class Scratch(tempfile.TemporaryDirectory[str]):
    """A temporary folder that is removed with this object. Making one removes those of its ``kind`` that killed
    processes left."""

    def __init__(self, kind: str) -> None:
        prefix = f"silobench-{kind}-"
        sweep(Path(tempfile.gettempdir()), f"{prefix}*")
        handle = None
        while handle is None:
            super().__init__(prefix=prefix)
            handle = hold(Path(self.name))
        weakref.finalize(self, release, handle)
