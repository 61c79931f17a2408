"""The machine that answers are computed on: one thread, and what of it decides the last bits of a sum."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = ("numpy", "torch", "transformers")


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch and every other library: how a sum is divided among threads decides its last bits."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    with threadpool_limits(1):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def made_on() -> dict[str, Any]:
    """Where all of this is the same, answers are the same to the last digit."""
    import torch

    return {
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
        "libraries": {name: metadata.version(name).partition("+")[0] for name in LIBRARIES},
    }


def _processor() -> str:
    """The processor's model as the system names it, and its number where the name is that of a family."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    said = {key.strip(): value.strip() for key, _, value in reversed([line.partition(":") for line in lines])}
    numbers = ".".join(said[key] for key in ("cpu family", "model", "stepping") if key in said)
    return " ".join(part for part in (said.get("model name", ""), numbers) if part)
