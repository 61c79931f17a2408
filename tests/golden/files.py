"""The files of recorded answers: one per key, written once; a list of their digests that only grows; and their history.

tests/golden/cells/KEY.json.gz       canonical JSON, packed the same whenever it is packed
tests/golden/cells/SHA256SUMS        one line per file, in the order in which they were recorded (``sha256sum -c``)
"""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.spec.config import canonical_json
from bench.store.committed import pack

FOLDER = Path(__file__).with_name("cells")
SUMS = "SHA256SUMS"
ENDING = ".json.gz"


class Recorded(Exception):
    """An answer that is recorded already is not written again."""


def path(folder: Path, key: str) -> Path:
    """The file of one key."""
    return folder / f"{key}{ENDING}"


def read(folder: Path, key: str) -> dict[str, Any]:
    """What is recorded under ``key``."""
    found: dict[str, Any] = json.loads(gzip.decompress(path(folder, key).read_bytes()))
    return found


def known(folder: Path) -> list[str]:
    """Keys that have a file, sorted."""
    return sorted(one.name.removesuffix(ENDING) for one in folder.glob(f"*{ENDING}"))


def add(folder: Path, contents: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Write the keys that are missing and append their digests; the names of the files. Raises Recorded, before
    anything is written, where one of them is there already or was."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = sums((folder / SUMS).read_text()) if (folder / SUMS).exists() else {}
    for key in contents:
        if path(folder, key).exists() or path(folder, key).name in listed:
            raise Recorded(f"{key} is recorded already: goldens are never written again, a new version has a new key.")
    lines = []
    for key, content in contents.items():
        data = pack(canonical_json(content) + "\n")
        path(folder, key).write_bytes(data)
        lines.append(f"{hashlib.sha256(data).hexdigest()}  {path(folder, key).name}\n")
    with (folder / SUMS).open("a") as file:
        file.writelines(lines)
    return [path(folder, key).name for key in contents]


def sums(text: str) -> dict[str, str]:
    """Digest by file name."""
    return {name: digest for digest, _, name in (line.partition("  ") for line in text.splitlines())}


# -- nothing was edited --------------------------------------------------------------------------------------------


def edited(folder: Path) -> list[str]:
    """What is wrong between the files and the list of their digests, as sentences; none where nothing is."""
    text = (folder / SUMS).read_text() if (folder / SUMS).exists() else ""
    listed = sums(text)
    names = {path(folder, key).name for key in known(folder)}
    wrong = [f"{name} is listed and is not there" for name in sorted(listed.keys() - names)]
    wrong += [f"{name} is not listed" for name in sorted(names - listed.keys())]
    wrong += [f"{SUMS} names a file twice"] if len(listed) < len(text.splitlines()) else []
    for name in sorted(names & listed.keys()):
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != listed[name]:
            wrong.append(f"{name} is not what was recorded")
    return wrong


def rewritten(folder: Path) -> list[str] | None:
    """What was changed or removed after it had been recorded, by the history and the working tree, as sentences. None
    where the folder is in no repository of git."""
    if _git(folder, "rev-parse", "--show-toplevel") is None:
        return None
    wrong = []
    history = _git(folder, "log", "--no-renames", "--diff-filter=MD", "--format=", "--name-only", "--", ".") or ""
    now = _git(folder, "diff", "HEAD", "--no-renames", "--diff-filter=MD", "--name-only", "--", ".") or ""
    for when, names in (("in the history", history), ("in the working tree", now)):
        changed = {Path(name).name for name in names.splitlines() if name} - {SUMS}
        wrong += [f"{name} was edited or removed {when}" for name in sorted(changed)]
    return wrong + _lines_lost(folder)


def _lines_lost(folder: Path) -> list[str]:
    """Whether the list of digests ever lost or changed a line, from each commit to what followed it."""
    commits = (_git(folder, "log", "--format=%H %P", "--full-history", "--", SUMS) or "").splitlines()
    wrong = []
    for commit, *parents in (line.split() for line in commits):
        after = set((_git(folder, "show", f"{commit}:./{SUMS}") or "").splitlines())
        for parent in parents:
            before = set((_git(folder, "show", f"{parent}:./{SUMS}") or "").splitlines())
            wrong += [f"commit {commit[:12]} took from {SUMS}: {line}" for line in sorted(before - after)]
    kept = set((folder / SUMS).read_text().splitlines()) if (folder / SUMS).exists() else set()
    committed = set((_git(folder, "show", f"HEAD:./{SUMS}") or "").splitlines())
    return wrong + [f"the working tree took from {SUMS}: {line}" for line in sorted(committed - kept)]


def _git(folder: Path, *words: str) -> str | None:
    """What git answers; None where it can't."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
