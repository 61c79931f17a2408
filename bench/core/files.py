"""Files written whole or not at all, and operating-system errors as sentences."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from bench.core.errors import UsageError
from bench.core.held import PARTIAL, hold, release

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError while writing at ``path`` into a UsageError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise UsageError(f"There is no disk space left to write {path}: free some and run again.") from None
        raise UsageError(f"{path} can't be written ({error.strerror or error}): check the folder.") from None


def private_folder(path: Path, below: Path | None = None) -> None:
    """Make a folder that only its owner can enter (mode 0700), whatever the umask, or make an existing one so.

    ``below``: a folder above it; those between the two are made private too, and others above ``path`` as usual.
    Raises UsageError as ``write_bytes`` does.
    """
    if below is not None and path.parent != below:
        private_folder(path.parent, below)
    with writing(path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o700)


@contextmanager
def opened(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """A file to write into, in a folder that exists; errors in the body count as errors of writing it.

    ``private``: only its owner can open it (mode 0600, whatever the umask), from the first byte on. Raises UsageError
    as ``write_bytes`` does.
    """
    with writing(path), _created(path, private, os.O_TRUNC) as file:
        yield file


def _created(path: Path, private: bool, how: int) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | how | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags, 0o600 if private else 0o666), "wb")
    if private:
        path.chmod(0o600)
    return file


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """``write_bytes`` of ``text`` in UTF-8, newlines as they are."""
    write_bytes(path, text.encode(), private=private)


def write_bytes(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write ``data`` under a temporary name, flush it to disk, and rename it to ``path``.

    Folders are made. Whoever reads ``path`` meanwhile, or after a kill, finds the former contents or the new ones.
    ``private``: only its owner can open it, nor enter its folder. Raises UsageError where the disk is full or the
    folder can't be written; nothing is left behind then.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")
    with writing(path):
        if private:
            private_folder(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        held = None
        try:
            while held is None:
                file = _created(temporary, private, os.O_CREAT)
                held = hold(temporary)
            with file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        finally:
            release(held)
        _sync_folder(path.parent)


def write_changed(path: Path, data: bytes) -> bool:
    """``write_bytes`` where ``path`` does not hold ``data`` already; whether that was so."""
    changed = read_bytes(path) != data
    if changed:
        write_bytes(path, data)
    return changed


def remove(path: Path) -> None:
    """Remove a file, if it is there. Raises UsageError as ``write_bytes`` does."""
    with writing(path):
        path.unlink(missing_ok=True)


@contextmanager
def folder_held(folder: Path) -> Iterator[None]:
    """Wait until no other process holds ``folder`` (made where it is missing), and hold it; the system releases what a
    killed process held, and nothing is left in the folder. Where the system has no such locks, nothing is held."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut; a system that can't open folders is left to its own guarantees."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def read_text(path: Path) -> str | None:
    """The contents of a UTF-8 file, or None where it does not exist. Raises UsageError where it can't be read."""
    try:
        data = read_bytes(path)
        return None if data is None else data.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{path} is damaged: it is no UTF-8 text; remove it and run again.") from None


def read_bytes(path: Path) -> bytes | None:
    """The contents of a file, or None where it does not exist. Raises UsageError where it can't be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror or error}).") from None
