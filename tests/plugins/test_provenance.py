"""Provenance names no machine and no one."""

from __future__ import annotations

import getpass
import json
import os
import platform
import subprocess
from pathlib import Path

from bench.plugins import provenance


def test_provenance_is_json_and_names_no_machine_and_no_one() -> None:
    found = provenance.provenance("cpu")
    text = json.dumps(found)
    assert {"silobench", "commit", "dirty", "python", "platform", "cpu", "cores", "device", "versions", "date"} == set(
        found
    )
    assert found["python"] == platform.python_version()
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert found["versions"]["numpy"]
    assert found["date"].endswith("+00:00")
    for secret in (platform.node(), str(Path.home()), str(Path.cwd()), f"/{getpass.getuser()}"):
        assert len(secret) < 3 or secret not in text


def test_the_commit_is_that_of_a_checkout_of_ours_only(tmp_path: Path) -> None:
    assert provenance._checkout(tmp_path) == (None, None)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    (tmp_path / "file").write_text("1")
    subprocess.run([*git, "init", "-q"], check=True, capture_output=True)
    assert provenance._checkout(tmp_path) == (None, True)
    for words in (["add", "file"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    commit, dirty = provenance._checkout(tmp_path)
    assert commit is not None
    assert len(commit) == 40
    assert dirty is False
    (tmp_path / "file").write_text("2")
    assert provenance._checkout(tmp_path) == (commit, True)
    inside = tmp_path / "venv" / "site-packages"
    inside.mkdir(parents=True)
    assert provenance._checkout(inside) == (None, None)
