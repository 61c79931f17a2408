"""Files in the per-user cache: checked before use, locked while they are made.

Beside every cached file lies ``NAME.checked.json`` with the size and modification time at which its SHA-256 was last
found right. While both still hold, the file is not hashed again; where they differ, it is.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.core.errors import UsageError
from bench.core.files import write_text
from bench.spec.foreign import Foreign, read

#: ends the names of the records, which lie beside the files
RECORD_SUFFIX = ".checked.json"


def cache_dir() -> Path:
    """``SILOBENCH_CACHE`` where it is set and not empty, else the platform's per-user cache directory."""
    named = os.environ.get("SILOBENCH_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("silobench", appauthor=False))


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's contents, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remembered_sha256(path: Path, record: Path) -> str:
    """SHA-256 of ``path``, taken from ``record`` while the file's size and modification time are those recorded.

    A record that can't be written (a shared, read-only cache) costs time and nothing else.
    """
    stat = path.stat()
    now = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    known = _read_record(record)
    if known is not None and {"size": known.size, "mtime_ns": known.mtime_ns} == now:
        return known.sha256
    sha256 = sha256_file(path)
    with suppress(UsageError):
        write_text(record, json.dumps({**now, "sha256": sha256}))
    return sha256


class _Record(Foreign):
    size: int
    mtime_ns: int
    sha256: str


def _read_record(record: Path) -> _Record | None:
    try:
        return read(_Record, record)
    except UsageError:
        return None


def check(path: Path, sha256: str, full: bool = False) -> None:
    """Raise UsageError unless ``path`` has the expected SHA-256; ``full`` hashes it whatever its record says."""
    record = path.with_name(path.name + RECORD_SUFFIX)
    if full:
        with suppress(OSError):
            record.unlink(missing_ok=True)
    try:
        found = remembered_sha256(path, record)
    except OSError as error:
        raise UsageError(
            f"The cached file {path} can't be read ({error.strerror}); delete {path.parent} and run again."
        ) from None
    if found != sha256:
        raise UsageError(
            f"The cached file {path} is corrupt: its SHA-256 is {found} and {sha256} was expected; "
            f"delete it and run again to fetch it anew."
        )


@contextmanager
def making(target: Path, what: str, needed: int, quiet: bool) -> Iterator[Path | None]:
    """Hold the lock of ``target`` and yield an empty work directory beside it, or None where it now exists.

    Another process that makes the same target is waited for. The work directory is removed at the end, and so is one
    that a killed run left. ``needed``: bytes that must be free. Raises UsageError where the cache can't be written.
    """
    from filelock import FileLock, Timeout

    with storage_errors(target.parent, what, needed):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(target.name + ".lock"))
        try:
            lock.acquire(timeout=1)
        except Timeout:
            note(f"Waiting for another run that is fetching {what} ...", quiet)
            lock.acquire()
        # named by the process, because a killed run's child may write for a while yet
        work = target.with_name(f"{target.name}.{os.getpid()}.partial")
        try:
            if target.exists():
                yield None
                return
            for stale in target.parent.glob(f"{glob.escape(target.name)}.*.partial"):
                shutil.rmtree(stale, ignore_errors=True)
            _require_space(target.parent, what, needed)
            work.mkdir()
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
            lock.release()


@contextmanager
def storage_errors(directory: Path, what: str, needed: int) -> Iterator[None]:
    """Turn an OSError about storage into a UsageError that names the directory and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise no_space(directory, what, needed) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise UsageError(
                f"The cache directory {directory} can't be written ({error.strerror}); "
                "set SILOBENCH_CACHE to a directory that can."
            ) from None
        raise


def no_space(directory: Path, what: str, needed: int) -> UsageError:
    """The UsageError for a full disk."""
    return UsageError(
        f"There is not enough space in {directory} for {what}: about {needed / 1e6:.0f} MB must be free; "
        "free some, or set SILOBENCH_CACHE to a directory on a larger disk."
    )


def free_bytes(directory: Path) -> int:
    """Free bytes on the file system that holds ``directory``."""
    return shutil.disk_usage(directory).free


def _require_space(directory: Path, what: str, needed: int) -> None:
    if free_bytes(directory) < needed:
        raise no_space(directory, what, needed)


def show_progress(quiet: bool) -> bool:
    """True where progress should be drawn: a person watches standard error."""
    return not quiet and sys.stderr.isatty()


def note(text: str, quiet: bool) -> None:
    """One line of progress on standard error."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)
