"""Two workers share the tests (pytest-xdist): each keeps to a core of its own, or their threads would wait for each
other. ``-n 0`` runs them in one process.

What tests write goes to memory where the system has a folder for that, as federations are many small files, and a disk
costs several times the processor's time for each. It is removed at the end; with ``TMPDIR`` set, all goes there and
stays as pytest has it.
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
NAME = "silobench-tests-"
#: bytes that must be free: several times what a run of all tests leaves
ROOM = 4 * 2**30


def pytest_configure(config: pytest.Config) -> None:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker.removeprefix("gw").isdigit():
        if hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})
    elif "TMPDIR" not in os.environ and _roomy():
        _write_to_memory(config)


def pytest_collection_finish() -> None:
    gc.freeze()  # libraries and tests stay for good: no search for garbage need go through them


def _roomy() -> bool:
    """Whether there is such a folder, large enough, and programs in it may be run."""
    try:
        found = os.statvfs(MEMORY)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize >= ROOM and not found.f_flag & os.ST_NOEXEC and os.access(MEMORY, os.W_OK)


def _write_to_memory(config: pytest.Config) -> None:
    for old in MEMORY.glob(f"{NAME}*"):  # of a run that was killed
        if not Path("/proc", old.name.split("-")[2]).exists():
            shutil.rmtree(old, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=f"{NAME}{os.getpid()}-", dir=MEMORY)
    os.environ["TMPDIR"], tempfile.tempdir = folder, None

    def leave() -> None:
        os.environ.pop("TMPDIR", None)
        tempfile.tempdir = None
        shutil.rmtree(folder, ignore_errors=True)

    config.add_cleanup(leave)
