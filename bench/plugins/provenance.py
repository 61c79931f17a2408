"""The circumstances of a run. Nothing here imports a library to learn its version, and nothing names a machine, a user
or a path."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.core.files import read_text
from bench.core.meter import cores
from bench.plugins.fingerprint import LIBRARIES, version

#: libraries that are worth knowing besides
RECORDED = (*LIBRARIES, "scipy", "scikit-learn", "safetensors", "evaluate", "bitsandbytes")
#: the line of ``git status`` that names the commit; "(initial)" before the first
_COMMIT = "# branch.oid "
_ROOT = Path(__file__).resolve().parents[1]


def provenance(device: str) -> dict[str, Any]:
    """The circumstances of a run, as JSON: commit and ``dirty`` (None outside a checkout of SiloBench), versions,
    processor, ``cores`` this process may use, ``device`` (with the name of the graphics card), and the date in UTC."""
    import bench

    commit, dirty = _checkout(_ROOT.parent)
    return {
        "silobench": bench.__version__,
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": cores(),
        "device": _device(device),
        "versions": {name: version(name) for name in RECORDED if version(name) != "absent"},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _checkout(root: Path) -> tuple[str | None, bool | None]:
    """The commit of the work tree whose top is ``root``. An installation inside some other repository has none."""
    if not (root / ".git").exists():
        return None, None
    said = _git(root, "status", "--porcelain=v2", "--branch")  # both in one process, as every result asks
    if said is None:
        return _git(root, "rev-parse", "HEAD") or None, None
    lines = said.splitlines()
    named = [line.removeprefix(_COMMIT) for line in lines if line.startswith(_COMMIT)]
    commit = next((one for one in named if not one.startswith("(")), None)
    return commit, any(not line.startswith("#") for line in lines)


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu() -> str:
    for line in (read_text(Path("/proc/cpuinfo")) or "").splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()


def _device(device: str) -> str:
    """``device``, with the card's name where torch is already loaded and has one."""
    torch = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda"):
        return device
    try:
        return f"{device} ({torch.cuda.get_device_name(device)})"
    except (RuntimeError, AssertionError, ValueError):
        return device
