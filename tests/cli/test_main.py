"""The command line: immediate help, exit codes, one sentence per mistake, no traceback."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.cli import main as cli
from bench.core.errors import SiloBenchError, UsageError
from tests.plugin_files import ATTACK, DEFENSE, write

HEAVY = {"torch", "transformers", "peft", "tenseal", "opacus", "scipy", "sklearn", "pandas", "evaluate", "datasets"}


def bench(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment}, check=False
    )


def imported_by(*words: str) -> set[str]:
    probe = f"import sys\nfrom bench.cli.main import main\ntry: main({list(words)!r})\nexcept SystemExit: pass\n"
    probe += "print('\\n@', *{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.rpartition("@")[2].split())


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["list"], ["list", "--json"], ["--version"]])
def test_help_and_list_import_nothing_heavy(words: list[str]) -> None:
    found = imported_by(*words)
    assert "bench" in found
    assert not found & {*HEAVY, "numpy", "pydantic"}
    assert bench(*words).returncode == 0


def test_help_names_every_command() -> None:
    out = bench("--help").stdout
    assert all(name in out for name in ("run", "attack", "list", "show", "check", "verify", "leaderboard", "doctor"))
    assert bench().stdout == out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["rnu"], "There is no command 'rnu'. Did you mean 'run'?"),
        (["run", "--defence", "x"], "'bench run' takes no '--defence'. Did you mean '--defense'?"),
        (["run", "--attack", "mia"], "Name at least one defense with --defense. Known: "),
        (["run", "--defense", "fedavg"], "Name at least one attack with --attack. Known: "),
        (["run", "--defense", "fedavgg", "--attack", "mia"], "There is no defense 'fedavgg'. Did you mean 'fedavg'?"),
        (["run", "--preset", "quik", "--defense", "fedavg", "--attack", "x"], "Did you mean 'quick'?"),
        (["run", "--secret-seed", "x"], "invalid int value: 'x'"),
        (["run", "--defense"], "expected one argument"),
        (["run", "--rounds", "3"], "'bench run' takes no '--rounds'. Did you mean '--set federation.rounds='?"),
        (["run", "--max-tokens=9"], "Did you mean '--set pool.max_tokens='?"),
        (["verify", "--rounds", "3"], "takes no '--rounds'. See"),
        (["run", "--def", "fedavg"], "'bench run' takes no '--def'"),
        (["run", "--plugin", "none.py", "--defense", "fedavg", "--attack", "x"], "none.py: there is no such file"),
        (["run", "--preset", "smoke", "--attack", "mia", "--defense", "fedavg,fedshield+prune"],
         "'fedshield' and 'prune' can't be combined: each brings its own aggregator"),
        (["list", "defences"], "There is no list 'defences'. Did you mean 'defenses'?"),
        (["show", "fedavgg"], "There is no plug-in 'fedavgg'. Did you mean 'fedavg'?"),
        (["show", "defence", "fedavg"], "There is no kind of plug-in 'defence'. Did you mean 'defense'?"),
        (["check", "none.py"], "there is no such file"),
        (["attack", "0123456789abcdef", "--attack", "mia"], "There is no run '0123456789abcdef' in the store"),
        (["verify", "0123456789abcdef"], "has no result 0123456789abcdef"),
        (["leaderboard", "--folder", "/nowhere/at/all"], "There is no folder /nowhere/at/all"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence_and_exit_code_two(
    words: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SILOBENCH_STORE", str(tmp_path / "store"))
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1
    assert not (tmp_path / "store").exists()


def test_a_mistake_of_a_process_of_its_own_is_one_sentence_too() -> None:
    done = bench("rnu")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("bench: There is no command 'rnu'. Did you mean 'run'?")
    assert done.stderr.count("\n") == 1


def test_list_shows_plug_ins_from_a_path(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", DEFENSE, "is mine")
    done = bench("list", "defenses", "--plugin", str(path))
    assert "mine" in done.stdout
    assert f"A defense that is mine. [{path}]" in done.stdout
    rows = json.loads(bench("list", "--json", "--plugin", str(path)).stdout)
    assert {"defenses", "attacks", "tasks", "adversaries", "presets"} == set(rows)
    mine = [row for row in rows["defenses"] if row["name"] == "mine"]
    assert mine == [{"name": "mine", "summary": "A defense that is mine.", "origin": "path", "source": str(path)}]


def test_list_says_why_a_plug_in_cannot_be_used(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", DEFENSE.replace("api = 1", "api = 7"))
    assert "can't be used: " in bench("list", "defenses", "--plugin", str(path)).stdout


def test_the_listed_adversaries_are_those_of_the_spec() -> None:
    from bench.core.parties import HOLDS
    from bench.spec.run import ADVERSARIES

    assert tuple(HOLDS) == ADVERSARIES


def test_show_gives_every_option_with_type_default_and_bounds(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.py", DEFENSE)
    out = bench("show", "mine", "--plugin", str(path)).stdout
    assert "mine.epsilon = 8.0 (number, > 0, <= 1000)" in out
    assert 'mine.mode = "fast" (string)' in out
    assert "mine.inner.depth = 2 (integer, >= 1, <= 9)" in out
    assert str(path) in out
    shown = json.loads(bench("show", "defense", "mine", "--plugin", str(path), "--json").stdout)
    assert [row["key"] for row in shown["options"]] == ["mine.epsilon", "mine.mode", "mine.inner.depth"]


def test_show_prints_presets() -> None:
    assert 'name = "smollm2-135m"' in bench("show", "quick").stdout
    assert bench("show", "preset", "smoke").stdout == bench("show", "smoke").stdout
    assert "Did you mean 'smoke'" in bench("show", "preset", "smok").stderr


def fake(monkeypatch: pytest.MonkeyPatch, act: Callable[[], int]) -> None:
    monkeypatch.setattr(cli, "import_module", lambda name: SimpleNamespace(main=lambda args: act()))


def raising(error: BaseException) -> Callable[[], int]:
    def act() -> int:
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (UsageError("Not so."), 2, "bench: Not so.\n"),
        (SiloBenchError("It broke."), 1, "bench: It broke.\n"),
        (KeyboardInterrupt(), 130, "bench: interrupted; the same command resumes\n"),
        (OSError(errno.ENOSPC, "No space left", "/x/y"), 2, "the disk is full (/x/y)"),
        (MemoryError(), 1, "memory ran out"),
        (RuntimeError("two\nlines"), 1, "stopped by an unexpected RuntimeError: two lines (set SILOBENCH_TRACEBACK=1"),
    ],
)  # fmt: skip
def test_errors_become_exit_codes_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, says: str
) -> None:
    fake(monkeypatch, raising(error))
    monkeypatch.delenv(cli.TRACEBACK, raising=False)
    assert cli.main(["list"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1


def test_a_traceback_is_shown_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, raising(RuntimeError("x")))
    monkeypatch.setenv(cli.TRACEBACK, "1")
    with pytest.raises(RuntimeError, match="x"):
        cli.main(["list"])


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m bench list | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 141)
    assert done.stderr == ""
    closed = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m bench list >&- ; exec {sys.executable} -m bench list > >(exit 0)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in closed.stderr


def test_parts_that_fail_to_build_leave_nothing_behind(tmp_path: Path) -> None:
    defense = write(tmp_path / "mine.py", DEFENSE.replace("return Defense()", "raise ValueError('never')"))
    attack = write(tmp_path / "other.py", ATTACK)
    store = tmp_path / "store"
    words = ["run", "--preset", "smoke", "--task", "clinical-notes", "--defense", "mine", "--attack", "other"]
    done = bench(*words, "--plugin", str(defense), "--plugin", str(attack), "--store", str(store))
    assert done.returncode in (1, 2)
    assert "failed to build: ValueError: never" in done.stderr
    assert not any(store.rglob("*.json")) if store.exists() else True


def test_value_out_of_range_names_key_value_and_bound() -> None:
    done = bench("run", "--preset", "smoke", "--defense", "fedavg", "--attack", "mia", "--set", "pool.share=1.5")
    assert (done.returncode, done.stderr) == (2, "bench: pool.share=1.5 is refused: it should be less than 1.\n")
