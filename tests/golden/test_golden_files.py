"""Goldens are only ever added: one key for each pair and its versions, files that are what was recorded, and a history
without edits. Each of these checks is shown to find what it is for."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from bench.plugins.find import Plugins
from tests.golden import files, settings
from tests.golden.agreement import unfounded
from tests.golden.checks import PLUGINS

DEFENSES = settings.built_in(PLUGINS, "defense")


def wanted() -> set[str]:
    return {key for d in DEFENSES for key in settings.keys(PLUGINS, d, settings.attacks_on(PLUGINS, d)).values()}


def test_every_pair_has_a_key_of_today_s_versions() -> None:
    missing = sorted(wanted() - set(files.known(files.FOLDER)))
    assert not missing, f"run 'python -m tests.golden.record' and commit what it adds; not recorded: {missing[:5]}"


def test_no_answer_that_was_recorded_is_an_error() -> None:
    cells = [(key, cell) for key in wanted() for cell in files.read(files.FOLDER, key).get("cells", {}).values()]
    assert len(cells) == 6 * sum(len(settings.attacks_on(PLUGINS, d)) for d in DEFENSES)
    assert not [key for key, cell in cells if cell["status"] == "error"]


def test_the_recorded_figures_follow_from_the_recorded_guesses() -> None:
    assert not [line for key in sorted(wanted()) for line in unfounded(files.read(files.FOLDER, key))]


def test_nothing_that_was_recorded_was_edited() -> None:
    assert not files.edited(files.FOLDER)
    # without a history, as where the tests run beside an installed wheel, the digests are what there is
    assert not files.rewritten(files.FOLDER)


def test_a_new_version_changes_the_keys_of_its_attack_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = settings.keys(PLUGINS, "fedavg", ("mia", "lira"))
    plugins = Plugins()
    now = plugins.find("attack", "mia").version
    raised = replace(plugins.find("attack", "mia").outline, version=now + 1)
    monkeypatch.setitem(plugins._all("attack"), "mia", replace(plugins.find("attack", "mia"), outline=raised))
    after = settings.keys(plugins, "fedavg", ("mia", "lira"))
    assert {attack for attack in before if before[attack] != after[attack]} == {"mia"}
    assert after["mia"] == before["mia"].replace(f"mia@{now}", f"mia@{now + 1}")


# -- what the checks find ------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two goldens, each of a commit of its own."""
    cells = tmp_path / "cells"
    git(tmp_path, "init", "-q")
    for key in ("one", "two"):
        files.add(cells, {key: {"value": key}})
        commit(tmp_path)
    return cells


def git(where: Path, *words: str) -> None:
    who = {f"GIT_{role}_{what}": "golden" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(["git", "-C", str(where), *words], check=True, capture_output=True, env=environment)


def commit(where: Path) -> None:
    git(where, "add", "-A")
    git(where, "commit", "-q", "-m", "more")


def pack_again(cells: Path, key: str) -> None:
    """Edit a golden and its digest, as somebody would who wants no test to fail."""
    listed = (cells / files.SUMS).read_text().splitlines(keepends=True)
    kept = [line for line in listed if not line.endswith(f"  {key}{files.ENDING}\n")]
    files.path(cells, key).unlink()
    (cells / files.SUMS).write_text("".join(kept))
    files.add(cells, {key: {"value": "another"}})


def test_goldens_that_were_only_added_are_in_order(folder: Path) -> None:
    assert files.edited(folder) == []
    assert files.rewritten(folder) == []
    files.add(folder, {"three": {}})
    assert files.edited(folder) == files.rewritten(folder) == []


def test_a_golden_is_not_written_again(folder: Path) -> None:
    with pytest.raises(files.Recorded, match="one is recorded already"):
        files.add(folder, {"new": {}, "one": {}})
    files.path(folder, "one").unlink()
    with pytest.raises(files.Recorded, match="one is recorded already"):
        files.add(folder, {"one": {}})
    assert files.known(folder) == ["two"]


def test_an_edit_that_leaves_the_digest_is_found_without_a_history(tmp_path: Path) -> None:
    files.add(tmp_path, {"one": {"value": 1}, "two": {}})
    files.path(tmp_path, "one").write_bytes(files.path(tmp_path, "two").read_bytes())
    assert files.edited(tmp_path) == ["one.json.gz is not what was recorded"]
    files.path(tmp_path, "one").unlink()
    (tmp_path / "new.json.gz").write_bytes(b"")
    assert files.edited(tmp_path) == ["one.json.gz is listed and is not there", "new.json.gz is not listed"]


@pytest.mark.parametrize("committed", [False, True])
def test_an_edit_with_its_digest_is_found_in_the_history(folder: Path, committed: bool) -> None:
    pack_again(folder, "one")
    if committed:
        commit(folder.parent)
    assert files.edited(folder) == []
    found = files.rewritten(folder)
    where = "in the history" if committed else "in the working tree"
    assert found is not None
    assert found[0] == f"one.json.gz was edited or removed {where}"
    assert any(f"took from {files.SUMS}" in line and line.endswith("one.json.gz") for line in found)


@pytest.mark.parametrize("committed", [False, True])
def test_a_removal_is_found_in_the_history_and_even_where_it_was_undone(folder: Path, committed: bool) -> None:
    data = files.path(folder, "two").read_bytes()
    files.path(folder, "two").unlink()
    if committed:
        commit(folder.parent)
        files.path(folder, "two").write_bytes(data)
        commit(folder.parent)
    where = "in the history" if committed else "in the working tree"
    assert files.rewritten(folder) == [f"two.json.gz was edited or removed {where}"]


def test_goldens_of_two_branches_come_together(folder: Path) -> None:
    root = folder.parent
    git(root, "checkout", "-q", "-b", "other")
    files.add(folder, {"three": {}})
    commit(root)
    git(root, "checkout", "-q", "-")
    files.add(folder, {"four": {}})
    commit(root)
    git(root, "merge", "-q", "-X", "ours", "--no-commit", "other")
    digest = f"{files.hashlib.sha256(files.path(folder, 'three').read_bytes()).hexdigest()}  three.json.gz\n"
    text = (folder / files.SUMS).read_text()
    (folder / files.SUMS).write_text(text if digest in text else text + digest)
    commit(root)
    assert files.edited(folder) == files.rewritten(folder) == []
