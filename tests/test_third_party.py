"""A package of plug-ins that is not ours: installed, it is found, shown, and passes the kit."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cli.main import main
from tests.grounds import instead

SOURCE = Path(__file__).parent / "third_party"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the package was installed by pip, from a copy of its sources."""
    root = tmp_path_factory.mktemp("third-party")
    copy, target = root / "source", root / "site"
    shutil.copytree(SOURCE, copy)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "--target", str(target), str(copy)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def imported(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package can be imported in this process too, where torch and the model's code are imported already."""
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "silobench_example"]:
        del sys.modules[name]


def bench_here(*words: str) -> tuple[int, str]:
    """(exit code, standard output) of the command line in this process."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(words)
    return code, out.getvalue()


def bench(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "bench", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def test_installed_plug_ins_are_listed_beside_ours(site: Path) -> None:
    rows = json.loads(bench(site, "list", "--json").stdout)
    found = {row["name"]: row for section in rows.values() for row in section if row.get("origin") == "installed"}
    assert set(found) == {"norm-clip", "loss-drop", "weather"}
    assert found["weather"]["summary"] == "Invented weather reports, for trying things out."
    assert found["norm-clip"]["source"] == str(site / "silobench_example" / "norm_clip.py")


def test_listing_imports_no_installed_plug_in(site: Path) -> None:
    probe = "import sys; from bench.cli.main import main; main(['list']); print('silobench_example' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_an_installed_plug_in_is_shown_and_named_in_errors(site: Path) -> None:
    assert "norm-clip.bound = 1.0 (number, > 0, <= 1000000.0)" in bench(site, "show", "norm-clip").stdout
    assert "Did you mean 'weather'" in bench(site, "show", "task", "wether").stderr


@pytest.mark.usefixtures("imported")
def test_an_installed_attack_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    words = ["run", "--preset", "smoke", "--defense", "fedavg", "--attack", "loss-drop", "--adversary", "outsider"]
    small = ("pool.candidates=8", "pool.heldout=8", "federation.rounds=1", "federation.local.epochs=1")
    words += [word for value in (*small, "clinical-notes.notes=200") for word in ("--set", value)]
    words += ["--store", str(tmp_path), "--json"]
    code, out = bench_here(*words)
    assert code == 0
    row = json.loads(out)
    assert row["status"] == "ok", row["note"]
    assert row["provenance"]["isolated"]
    code, out = bench_here(*words, "--refresh", "--no-isolate")
    assert code == 0
    here = json.loads(out)
    assert "isolated" not in here["provenance"]
    assert here["scores_sha256"] == row["scores_sha256"]


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize("name", ["norm-clip", "loss-drop", "weather"])
def test_an_installed_plug_in_passes_the_kit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.conformance.attack.playground", instead)
    code, out = bench_here("check", name)
    assert code == 0, out
