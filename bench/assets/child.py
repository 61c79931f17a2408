"""Runs a module as a child that ends with its parent: ``python -m bench.assets.child PARENT MODULE ARGUMENTS``.

Otherwise a killed run would leave a child behind that goes on downloading, converting and filling the disk.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.assets.cache import show_progress

_PR_SET_PDEATHSIG = 1
_PATIENCE = 3600.0


def run_module(
    module: str, arguments: Sequence[str], quiet: bool, environment: Mapping[str, str], bar_on_stdout: bool = False
) -> tuple[int, str]:
    """Run ``module`` to its end, at most an hour; returns its exit status and what it wrote to standard error.

    Where progress is to be shown, the child draws it on our standard error (its standard output is sent there where
    ``bar_on_stdout``, else its standard error, which is then not returned). ``environment`` is added to ours.
    """
    root = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    # -P keeps a stray file in the working directory from being imported in the module's place
    command = [sys.executable, "-P", "-m", "bench.assets.child", str(os.getpid()), module, *arguments]
    drawn = show_progress(quiet)
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno() if drawn and bar_on_stdout else subprocess.DEVNULL,
        stderr=None if drawn and not bar_on_stdout else subprocess.PIPE,
        env={**os.environ, **environment, "PYTHONPATH": search},
        timeout=_PATIENCE,
        check=False,
    )
    return done.returncode, (done.stderr or b"").decode(errors="replace")


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)


if __name__ == "__main__":
    _, _parent, _module, *_arguments = sys.argv
    _end_with(int(_parent))
    sys.argv = [_module, *_arguments]
    runpy.run_module(_module, run_name="__main__", alter_sys=True)
