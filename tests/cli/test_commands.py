"""The commands on stored and committed results: leaderboard, verify, attack's target, run's dry run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cli.commands.attack import transcript_directory
from bench.cli.main import main
from bench.core.errors import UsageError
from bench.store.store import Store
from tests.results_factory import result


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with one result that states no figure, so that nothing is missing behind it."""
    found = Store(tmp_path / "store")
    found.save_result(result(status="nothing-opened", leakage=(), scores_sha256=None))
    return found


def test_leaderboard_adds_a_run_makes_markdown_and_checks_it(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "leaderboards"
    folder.mkdir()
    (stored,) = store.results()
    words = ["leaderboard", "--folder", str(folder), "--store", str(store.root)]
    assert main([*words, "--add", stored.run]) == 0
    out = capsys.readouterr().out
    assert out.startswith("1 results added or replaced\n")
    assert f"made {folder / 'README.md'}" in out
    assert main([*words, "--check"]) == 0
    assert main(words) == 0
    assert "the Markdown is up to date" in capsys.readouterr().out

    page = next(path for path in folder.glob("*.md") if path.name != "README.md")
    before = page.read_text()
    page.write_text(before + "an edit\n")
    assert main([*words, "--check"]) == 1
    assert f"{page} differs from what the results give; run 'bench leaderboard'" in capsys.readouterr().out
    assert main([*words, "--check", "--json"]) == 1
    assert str(page) in json.loads(capsys.readouterr().out)["differing"][0]
    assert main(words) == 0
    assert page.read_text() == before


def test_list_shows_the_runs_of_a_store(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (stored,) = store.results()
    (store.root / "runs" / ("0" * 16)).mkdir(parents=True)
    assert main(["list", "runs", "--store", str(store.root)]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert lines[1] == f"  {'0' * 16}  no results yet"
    assert lines[2] == f"  {stored.run}  fedavg on reviews (quick), seed 0: 1 results of mia"
    assert main(["list", "runs", "--json", "--store", str(store.root)]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)["runs"]] == ["0" * 16, stored.run]


def test_leaderboard_refuses_an_unknown_result_and_writes_nothing(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "leaderboards"
    folder.mkdir()
    words = ["leaderboard", "--folder", str(folder), "--store", str(store.root), "--add", "0" * 16]
    assert main(words) == 2
    assert list(folder.iterdir()) == []


def test_verify_says_what_holds(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (stored,) = store.results()
    assert main(["verify", "--store", str(store.root)]) == 0
    assert capsys.readouterr().out.endswith("nothing-to-verify\n1 of 1 results hold\n")
    store.save_result(result(attack="other", scores_sha256="0" * 64))
    assert main(["verify", "--store", str(store.root)]) == 1
    assert "1 of 2 results hold" in capsys.readouterr().out
    assert main(["verify", stored.result, "--store", str(store.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == "nothing-to-verify"
    assert main(["verify", "--store", str(tmp_path / "empty")]) == 0
    assert "there are no results to verify" in capsys.readouterr().out


def test_a_transcript_is_named_by_run_by_its_beginning_or_by_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for run in ("aa11" * 4, "aa22" * 4):
        folder = store.run_dir(run) / "transcript"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    first = store.run_dir("aa11" * 4)
    assert transcript_directory("aa11" * 4, store) == first / "transcript"
    assert transcript_directory("aa1", store) == first / "transcript"
    assert transcript_directory(str(first), store) == first / "transcript"
    assert transcript_directory(str(first / "transcript"), store) == first / "transcript"
    with pytest.raises(UsageError, match="begins the ids of 2 runs"):
        transcript_directory("aa", store)
    with pytest.raises(UsageError, match="is no transcript"):
        transcript_directory(str(tmp_path), store)
    with pytest.raises(UsageError, match="There is no run 'bb'"):
        transcript_directory("bb", store)


def test_a_dry_run_prints_every_cell_and_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "store"
    words = ["run", "--preset", "smoke", "--defense", "fedavg,prune", "--attack", "mia", "--adversary", "server,silo"]
    words += ["--seeds", "0-1", "--store", str(root), "--dry-run"]
    assert main(words) == 0
    assert "8 rows, 0 stored already" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["preset"] == "smoke"
    cells = value["cells"]
    assert {(c["defense"], c["adversary"], c["seed"]) for c in cells} == {
        (d, a, s) for d in ("fedavg", "prune") for a in ("server", "silo") for s in (0, 1)
    }
    assert all(c["stored"] is False and c["seconds"] > 0 for c in cells)
    assert not root.exists()
