"""Seconds and peak memory, taken where the work is done.

Seconds are taken inside the party's own code only (a generator's frames included, the transcript's writing excluded).
Peak memory is the process's resident set, reset before each phase through ``/proc/self/clear_refs`` where Linux
allows it; elsewhere the peak since the process began is reported and labelled so.
"""

from __future__ import annotations

import os
import resource
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def reset_peak() -> bool:
    """Start a new peak of resident memory. False where the system does not allow it."""
    try:
        with open(_CLEAR, "wb", buffering=0) as file:
            file.write(b"5")
    except OSError:
        return False
    return True


def peak_bytes() -> int:
    """Peak resident memory in bytes since ``reset_peak`` (or since the process began)."""
    try:
        with open(_STATUS, "rb", buffering=0) as file:
            known = file.read().partition(b"\nVmHWM:")[2].split(maxsplit=1)
        if known:
            return int(known[0]) * 1024
    except OSError:
        pass
    scale = 1 if os.uname().sysname == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


@dataclass
class Phase:
    """Totals of one phase: seconds of wall clock and of this process, steps, and the largest resident set."""

    wall: float = 0.0
    process: float = 0.0
    calls: int = 0
    peak: int = 0

    def to_json(self) -> dict[str, float | int]:
        return {
            "wall_s": round(self.wall, 4),
            "process_s": round(self.process, 4),
            "calls": self.calls,
            "peak_bytes": self.peak,
        }


@dataclass
class Meter:
    """Adds up phases by name: ``train``, ``transform``, ``channel:upload``, ``attack:mia``, ..."""

    phases: dict[str, Phase] = field(default_factory=lambda: defaultdict(Phase))

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Count one call of phase ``name``. Phases don't nest."""
        phase = self.phases[name]
        reset_peak()
        wall, process = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            phase.wall += time.perf_counter() - wall
            phase.process += time.process_time() - process
            phase.calls += 1
            phase.peak = max(phase.peak, peak_bytes())

    def stream(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Pass ``items`` on, counting only the time in which they are produced."""
        iterator = iter(items)
        while True:
            with self.measure(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def to_json(self) -> dict[str, Any]:
        return {name: self.phases[name].to_json() for name in sorted(self.phases)}

    def add(self, saved: dict[str, Any]) -> None:
        """Add what an interrupted run had measured before."""
        for name, value in saved.items():
            phase = self.phases[name]
            phase.wall += float(value["wall_s"])
            phase.process += float(value["process_s"])
            phase.calls += int(value["calls"])
            phase.peak = max(phase.peak, int(value["peak_bytes"]))
