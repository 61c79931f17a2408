"""Peak memory of a run with 60 silos against one with 3, at the same records per silo.

``python -m tests.perf.memory [--defense fedavg] [--silos 3 60]`` runs each in a process of its own (the whole command
line) and prints the ratio of their peak resident sets.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def peak(silos: int, defense: str, extra: list[str]) -> int:
    """Peak resident bytes of one ``bench run``, from the kernel's accounting of the finished process."""
    with tempfile.TemporaryDirectory() as store:
        command = [sys.executable, "-m", "bench", "run", "--preset", "smoke", "--defense", defense, "--attack", "mia"]
        command += ["--adversary", "server", "--store", store, "--set", f"federation.silos={silos}", *extra]
        before = Path(store) / "log"
        with before.open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status) != 0:
            sys.exit(f"a run with {silos} silos failed:\n{before.read_text()[-2000:]}")
        return usage.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--defense", default="fedavg")
    parser.add_argument("--silos", type=int, nargs=2, default=[3, 60])
    options = parser.parse_args()
    # both draw from the same number of notes, enough for the larger federation
    notes = [f"clinical-notes.notes={options.silos[1] * 30 + 400}"]
    few, many = (peak(n, options.defense, ["--set", *notes]) for n in options.silos)
    print(f"{options.silos[0]} silos: {few / 2**20:.0f} MiB; {options.silos[1]} silos: {many / 2**20:.0f} MiB")
    print(f"ratio: {many / few:.3f}")


if __name__ == "__main__":
    main()
