"""Confines this process by Landlock (Linux 5.13 and later): what it was not given it can't read, and no network.

Landlock is inherited and can't be taken back. Where the kernel has none, nothing is confined, and the caller is told:
a process of its own then still holds nothing of the run, but it could look for files of the same user.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path

#: system calls of every architecture that Linux runs Python on
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_NO_NEW_PRIVILEGES = 38
_BENEATH = 1
#: rights, by the version of the interface that brought them (linux/landlock.h)
_EXECUTE, _WRITE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_FILES = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_NETWORK = {4: 3}
_SCOPES = {6: 3}
#: rights that apply to a file that is no directory
_OF_FILES = _EXECUTE | _WRITE | _READ_FILE | (1 << 14) | (1 << 15)


class _Rules(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """The version of Landlock that the kernel speaks; 0: none."""
    if sys.platform != "linux":
        return 0
    found = ctypes.CDLL(None, use_errno=True).syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    return max(0, int(found))


def confine(read: Iterable[Path], write: Iterable[Path], listed: Iterable[Path] = ()) -> str:
    """From now on this process reads (and runs) only what lies below ``read``, writes only below ``write``, and lists
    directories only there and below ``listed``; it opens no connection. Returns what confines it, or '' for nothing.

    Paths that don't exist are left out. Raises OSError where the kernel has Landlock and refuses.
    """
    known = version()
    if known == 0:
        return ""
    libc = ctypes.CDLL(None, use_errno=True)
    handled = _sum(_FILES, known)
    rules = _Rules(handled, _sum(_NETWORK, known), _sum(_SCOPES, known))
    size = 8 if known < 4 else 16 if known < 6 else 24
    ruleset = _checked(libc.syscall(_CREATE, ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0)))
    try:
        readable = _EXECUTE | _READ_FILE | _READ_DIR
        for paths, allowed in ((read, readable), (write, handled), (listed, _READ_DIR)):
            for path in paths:
                _allow(libc, ruleset, path, allowed & handled)
        _checked(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
        _checked(libc.syscall(_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0)))
    finally:
        os.close(ruleset)
    return f"Landlock {known}"


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, allowed: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rights = allowed if path.is_dir() else allowed & _OF_FILES
        if rights:
            rule = _Beneath(rights, descriptor)
            _checked(
                libc.syscall(
                    _ADD, ctypes.c_int(ruleset), ctypes.c_int(_BENEATH), ctypes.byref(rule), ctypes.c_uint32(0)
                )
            )
    finally:
        os.close(descriptor)


def _sum(rights: dict[int, int], known: int) -> int:
    return sum(bits for since, bits in rights.items() if since <= known)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock refuses: {os.strerror(code)}")
    return int(result)
