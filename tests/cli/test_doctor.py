"""``bench doctor`` passes a sound installation and names what is broken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.assets.assets import Assets
from bench.cli import doctor
from bench.cli.doctor import Finding, examine
from bench.cli.main import main
from bench.plugins.find import Plugins
from bench.store.store import Store
from tests.plugin_files import DEFENSE, write
from tests.results_factory import result


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Leave the libraries out (one test below takes them in), and look at a cache of our own."""
    monkeypatch.setattr(doctor, "_libraries", lambda: iter(()))
    monkeypatch.setenv("SILOBENCH_CACHE", str(tmp_path / "cache"))


def broken(found: Iterator[Finding]) -> dict[str, str]:
    return {finding.subject: finding.says for finding in found if finding.state == "broken"}


def test_a_sound_installation_has_nothing_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--store", str(tmp_path / "store")]) == 0
    out = capsys.readouterr().out
    assert out.endswith("nothing is broken\n")
    assert "every requirement is met" in out
    assert not (tmp_path / "store").exists()


def test_the_libraries_are_used_and_not_only_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = {finding.subject: finding for finding in doctor._libraries()}
    assert {name: finding.state for name, finding in found.items()} == dict.fromkeys(
        ("torch", "tenseal", "opacus"), "ok"
    )
    assert "encrypts, adds and decrypts" in found["tenseal"].says


def test_json_has_the_same_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--store", str(tmp_path / "store")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"python", "packages", "machine", "plug-ins", "cache", "store"} == {one["subject"] for one in found}
    assert all(set(one) == {"subject", "state", "says"} for one in found)


def test_a_cached_file_with_other_contents_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cache" / "files" / ("0" * 16) / "weights.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"altered")
    assert str(path) in broken(examine(Store(tmp_path / "store"), Plugins(), Assets(tmp_path / "cache")))["cache"]
    assert main(["doctor", "--store", str(tmp_path / "store")]) == 1
    assert "1 broken" in capsys.readouterr().out


def test_a_result_without_its_scores_is_broken(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    kept = store.save_scores("{}")
    store.save_result(result(scores_sha256=kept))
    assert "store" not in broken(examine(store, Plugins()))
    store.scores_path(kept).unlink()
    assert "are gone: run it with --refresh" in broken(examine(store, Plugins()))["store"]
    store.scores_path(kept).write_text("[]")
    assert "is damaged" in broken(examine(store, Plugins()))["store"]


def test_a_result_of_a_newer_silobench_is_broken_and_nothing_else_suffers(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.save_result(result())
    (path,) = (tmp_path / "store" / "results").glob("*.json")
    path.write_text(path.read_text().replace('"schema":2', '"schema":99'))
    found = list(examine(store, Plugins()))
    assert "upgrade silobench" in broken(iter(found))["store"]
    assert {"python", "machine", "plug-ins", "cache"} <= {finding.subject for finding in found}


def test_a_plug_in_that_cannot_be_imported_is_broken(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", "import nothing_like_it\n" + DEFENSE)
    says = broken(examine(Store(tmp_path / "store"), Plugins([path])))["plug-ins"]
    assert "mine.py" in says
    assert "nothing_like_it" in says


def test_a_requirement_that_is_missing_or_too_old_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "peft" else "0.0.1")
    found = [finding.says for finding in doctor._packages() if finding.state == "broken"]
    assert "peft is not installed: reinstall silobench." in found
    assert any(says.startswith("torch is 0.0.1, and silobench needs ") for says in found)


def test_little_memory_and_disk_are_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "MIN_MEMORY", 10**15)
    monkeypatch.setattr(doctor, "MIN_DISK", 10**18)
    found = {finding.subject: finding for finding in examine(Store(tmp_path / "store"), Plugins())}
    assert found["machine"].state == "note"
    assert found["store"].state == "note"


def test_a_store_on_a_file_is_broken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = broken(examine(Store(tmp_path / "file" / "store", any_layout=True), Plugins()))
    assert "store" in found
