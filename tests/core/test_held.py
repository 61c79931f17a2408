"""What killed processes leave is removed at the next start, and nothing of a living one is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bench.core.files import write_text
from bench.core.held import Scratch, hold, release, sweep
from bench.store.store import Store

pytest.importorskip("fcntl")


def killed(code: str, *words: str, **environment: str) -> None:
    """Run the code until it kills itself."""
    command = [sys.executable, "-c", textwrap.dedent(code), *words]
    assert subprocess.run(command, env=os.environ | environment, check=False).returncode == -signal.SIGKILL


INSIDE_FSYNC = """
    import os, signal, sys
    from pathlib import Path
    from bench.core import files
    os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
    files.write_text(Path(sys.argv[1]), "new")
"""


def test_a_file_of_a_killed_process_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    write_text(tmp_path / "x.json", "former")
    killed(INSIDE_FSYNC, str(tmp_path / "x.json"))
    assert len(list(tmp_path.iterdir())) == 2
    mine = tmp_path / "y.json.1-2.partial"
    mine.write_text("being written")
    handle = hold(mine)
    assert sweep(tmp_path) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json", mine.name]
    release(handle)
    assert sweep(tmp_path) == 1
    assert (tmp_path / "x.json").read_text() == "former"


def test_what_was_swept_before_it_was_held_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "x.partial").write_text("")
    assert sweep(tmp_path) == 1
    assert hold(tmp_path / "x.partial") is None


def test_a_link_and_what_lies_behind_it_stay(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").touch()
    (tmp_path / "link.partial").symlink_to(tmp_path / "other")
    assert sweep(tmp_path) == 0
    assert (tmp_path / "other" / "x").exists()


def test_a_store_is_swept_with_its_next_write(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save_scores("{}")
    store.save_planting("d" * 16, "{}")
    killed(INSIDE_FSYNC, str(tmp_path / "scores" / "x.json"))
    (tmp_path / "runs" / f"{'a' * 16}.1234.partial" / "transcript").mkdir(parents=True)
    store.save_planting("b" * 16, "{}")
    assert list(tmp_path.rglob("*.partial"))  # it wrote before
    Store(tmp_path).save_planting("c" * 16, "{}")
    assert not list(tmp_path.rglob("*.partial"))


def test_a_temporary_folder_outlives_its_process_until_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
        import os, signal
        from bench.core.held import Scratch
        kept = Scratch("test")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    killed(code, TMPDIR=str(tmp_path))
    killed(code, TMPDIR=str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Scratch("test") as first, Scratch("test") as second:
        assert sorted(str(path) for path in tmp_path.iterdir()) == sorted((first, second))
    assert not list(tmp_path.iterdir())
