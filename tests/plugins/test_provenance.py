"""The fingerprint changes with the code that took part and with nothing else; provenance names no machine."""

from __future__ import annotations

import getpass
import json
import os
import platform
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bench.core.errors import UsageError
from bench.plugins import provenance
from bench.plugins.provenance import fingerprint, imported, of_result, taking_part
from tests.results_factory import result

ROOT = Path(provenance.__file__).resolve().parents[1]


def tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small harness and two plug-ins, of which ``shield`` imports parts of its folder in every way there is."""
    tree(
        tmp_path,
        {
            "bench/__init__.py": "",
            "bench/stats/auc.py": "x = 1\n",
            "bench/cli/main.py": "",
            "bench/cli/commands/run.py": "",
            "defenses/__init__.py": "",
            "defenses/shield.py": """
                from bench.defense.compose import Defense
                import numpy
                def build(config):
                    from defenses.channels.lattice import Lattice
                    import defenses.transforms.prune as prune
            """,
            "defenses/other.py": "",
            "defenses/channels/__init__.py": "",
            "defenses/channels/lattice.py": "from .ring import Ring\nfrom ..shared import x\n",
            "defenses/channels/ring.py": "from . import lattice\n",
            "defenses/channels/unused.py": "",
            "defenses/shared.py": "",
            "defenses/transforms/prune.py": "",
            "numpy/__init__.py": "a library that lies beside the plug-ins",
        },
    )
    return tmp_path


def of(project: Path, *names: str) -> str:
    return fingerprint([project / name for name in names], project / "bench")


def test_imports_are_followed_inside_the_folder_only(project: Path) -> None:
    found = {path.relative_to(project).as_posix() for path in imported(project / "defenses" / "shield.py")}
    assert found == {
        "defenses/shield.py",
        "defenses/channels/__init__.py",
        "defenses/channels/lattice.py",
        "defenses/channels/ring.py",
        "defenses/shared.py",
        "defenses/transforms/prune.py",
    }


@pytest.mark.parametrize(
    "changed",
    ["bench/stats/auc.py", "defenses/shield.py", "defenses/channels/ring.py", "defenses/shared.py"],
)
def test_what_took_part_changes_the_fingerprint(project: Path, changed: str) -> None:
    before = of(project, "defenses/shield.py")
    (project / changed).write_text((project / changed).read_text() + "\n# changed\n")
    assert of(project, "defenses/shield.py") != before


@pytest.mark.parametrize(
    "changed",
    [
        "bench/cli/main.py",
        "bench/cli/commands/run.py",
        "defenses/other.py",
        "defenses/channels/unused.py",
        "numpy/__init__.py",
    ],
)
def test_what_took_no_part_does_not(project: Path, changed: str) -> None:
    before = of(project, "defenses/shield.py")
    (project / changed).write_text("x = 2\n")
    assert of(project, "defenses/shield.py") == before


def test_a_new_or_a_renamed_module_of_the_harness_counts(project: Path) -> None:
    before = of(project)
    (project / "bench/stats/auc.py").rename(project / "bench/stats/roc.py")
    renamed = of(project)
    (project / "bench/stats/auc.py").write_text("x = 1\n")
    assert len({before, renamed, of(project)}) == 3


def test_the_place_the_order_and_line_ends_do_not_count(project: Path, tmp_path: Path) -> None:
    names = ["defenses/shield.py", "defenses/other.py"]
    before = of(project, *names)
    assert of(project, *reversed(names)) == before
    moved = tmp_path / "somewhere" / "else"
    shutil.copytree(project / "bench", moved / "bench")
    shutil.copytree(project / "defenses", moved / "defenses")
    assert of(moved, *names) == before
    file = moved / "defenses" / "shield.py"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert of(moved, *names) == before


def test_a_library_counts_and_its_build_does_not(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = dict.fromkeys(provenance.LIBRARIES, "1.0")
    monkeypatch.setattr(provenance, "_version", lambda name: versions[name])
    before = of(project)
    versions["torch"] = "1.0+cu128"
    assert of(project) == before
    for name in provenance.LIBRARIES:
        versions[name] = "1.1"
        assert of(project) != before
        versions[name] = "1.0"


def test_a_plugin_without_a_file_is_passed_over_and_a_missing_one_is_named(project: Path) -> None:
    assert fingerprint([None], project / "bench") == of(project)
    with pytest.raises(UsageError, match=r"gone\.py can't be read"):
        of(project, "defenses/gone.py")


def test_a_plugin_that_is_no_python_still_has_a_fingerprint(project: Path) -> None:
    (project / "defenses" / "other.py").write_text("def (")
    assert len(of(project, "defenses/other.py")) == 64


def test_it_is_quick_and_imports_no_heavy_library() -> None:
    code = """
        import sys, time
        start = time.perf_counter()
        from bench.plugins.provenance import fingerprint, provenance
        fingerprint([])
        provenance("cpu")
        took = time.perf_counter() - start
        assert not {"torch", "transformers", "peft", "tenseal", "opacus", "scipy"} & set(sys.modules), "heavy"
        print(took)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    assert float(done.stdout) < 3  # 0.1 s on an idle machine


def test_a_result_names_the_plugins_that_took_part() -> None:
    one = result(task="jsonl:data.jsonl", defense="dp-sgd+fedshield", attack="mia")
    parts = (("task", "jsonl"), ("defense", "dp-sgd"), ("defense", "fedshield"), ("attack", "mia"))
    assert taking_part(one) == parts


class Registry:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, kind: str, name: str) -> Registry:
        if name == "gone":
            raise UsageError("no such plug-in")
        self.path = self.folder / "defenses" / "other.py"
        return self


def test_the_fingerprint_of_a_result_today(project: Path) -> None:
    registry = Registry(project)
    today = of_result(result(), registry)  # type: ignore[arg-type]
    assert today == fingerprint([project / "defenses" / "other.py"])
    assert of_result(result(defense="gone"), registry) is None  # type: ignore[arg-type]


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
    for words in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "one"]):
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


def test_a_training_s_fingerprint_outlives_changes_of_what_comes_after(tmp_path: Path) -> None:
    root = tmp_path / "bench"
    tree(
        root,
        {"model.py": "", "attack.py": "", "plays/source.py": "", "games/membership.py": "", "games/planting.py": ""},
    )
    before, whole = fingerprint([], root, of="training"), fingerprint([], root)
    for name in ("attack.py", "plays/source.py", "games/membership.py"):
        (root / name).write_text("x = 1\n")
    assert fingerprint([], root, of="training") == before
    assert fingerprint([], root) != whole
    for name in ("model.py", "games/planting.py"):
        (root / name).write_text("x = 2\n")
        assert fingerprint([], root, of="training") != before
        before = fingerprint([], root, of="training")


def test_every_module_that_a_training_is_said_not_to_need_is_there() -> None:
    known = {p.relative_to(ROOT).parts[0].removesuffix(".py") for p in ROOT.rglob("*.py")}
    assert known >= provenance.AFTER_TRAINING
