"""A fingerprint changes with the rooms, plug-ins and libraries that took part and with nothing else, and says which."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bench.core.errors import UsageError
from bench.plugins import fingerprint
from bench.plugins.find import Plugins
from bench.plugins.fingerprint import (
    BESIDE,
    MEASURING,
    OF_ITS_OWN,
    SCORING,
    TRAINING,
    Fingerprint,
    Fingerprints,
    imported,
)
from bench.spec.run import PluginSpec, Row, RunSpec

ROOT = Path(fingerprint.__file__).resolve().parents[1]


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
            "bench/model/lora.py": "",
            "bench/defense/defaults/mean.py": "",
            "bench/attack/attack.py": "",
            "bench/assess/plays/source.py": "",
            "bench/training/training.py": "",
            "bench/training/variants/audit.py": "",
            "bench/training/measure/metrics.py": "",
            "bench/cli/main.py": "",
            "bench/cli/commands/run.py": "",
            "bench/assess/isolation/child.py": "",
            "defenses/__init__.py": "",
            "defenses/shield.py": """
                from bench.defense.compose import Defense
                import numpy
                api = 1
                def build(config):
                    from defenses.channels.lattice import Lattice
                    import defenses.transforms.prune as prune
            """,
            "defenses/other.py": "api = 1\ndef build(config): ...\n",
            "attacks/mia.py": "api = 1\ndef build(config): ...\n",
            "tasks/notes.py": "api = 1\ndef build(config): ...\n",
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


def made(project: Path, defense: str = "shield") -> Fingerprint:
    """Of a result of mia against ``defense`` in ``project``, read afresh."""
    return of(project).of_result(row(defense))


def of(project: Path) -> Fingerprints:
    folders = {"defense": project / "defenses", "attack": project / "attacks", "task": project / "tasks"}
    return Fingerprints(Plugins(folders=folders), project / "bench")  # type: ignore[arg-type]


def row(defense: str = "shield", variant: PluginSpec | None = None) -> Row:
    parts = tuple(PluginSpec(name=name) for name in defense.split("+"))
    run = RunSpec(task=PluginSpec(name="notes"), defense=parts, variant=variant)
    return Row(run=run, attack=PluginSpec(name="mia"), adversary="server")


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
    ("changed", "part"),
    [
        ("bench/stats/auc.py", "bench/stats"),
        ("bench/assess/plays/source.py", "bench/assess/plays"),
        ("defenses/shield.py", "defenses/shield.py"),
        ("defenses/channels/ring.py", "defenses/shield.py"),
        ("defenses/shared.py", "defenses/shield.py"),
        ("attacks/mia.py", "attacks/mia.py"),
        ("tasks/notes.py", "tasks/notes.py"),
    ],
)
def test_what_took_part_changes_the_fingerprint_and_is_named(project: Path, changed: str, part: str) -> None:
    before = made(project)
    (project / changed).write_text((project / changed).read_text() + "\n# changed\n")
    after = made(project)
    assert after.text != before.text
    assert after.changed(before.parts) == (part,)


@pytest.mark.parametrize(
    "changed",
    [
        "bench/cli/main.py",
        "bench/cli/commands/run.py",
        "bench/assess/isolation/child.py",
        "bench/__init__.py",
        "defenses/other.py",
        "defenses/channels/unused.py",
        "numpy/__init__.py",
    ],
)
def test_what_took_no_part_does_not(project: Path, changed: str) -> None:
    before = made(project)
    (project / changed).write_text("api = 1\ndef build(config): ...\nx = 2\n")
    assert made(project) == before


def test_sources_are_read_once_per_command(project: Path) -> None:
    one = of(project)
    before = one.of_result(row())
    (project / "bench/stats/auc.py").write_text("x = 2\n")
    assert one.of_result(row()) == before
    assert made(project) != before


def test_a_new_or_a_renamed_module_of_the_harness_counts(project: Path) -> None:
    before = made(project)
    (project / "bench/stats/auc.py").rename(project / "bench/stats/roc.py")
    renamed = made(project)
    (project / "bench/stats/auc.py").write_text("x = 1\n")
    assert len({before.text, renamed.text, made(project).text}) == 3


def test_the_place_the_order_and_line_ends_do_not_count(project: Path, tmp_path: Path) -> None:
    before = made(project, "shield+other")
    assert made(project, "other+shield") == before
    moved = tmp_path / "somewhere" / "else"
    for name in ("bench", "defenses", "attacks", "tasks"):
        shutil.copytree(project / name, moved / name)
    assert made(moved, "shield+other") == before
    file = moved / "defenses" / "shield.py"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert made(moved, "shield+other") == before


def test_a_library_counts_and_its_build_does_not(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = dict.fromkeys(fingerprint.LIBRARIES, "1.0")
    monkeypatch.setattr(fingerprint, "version", lambda name: versions[name])
    before = made(project)
    versions["torch"] = "1.0+cu128"
    assert made(project) == before
    for name in fingerprint.LIBRARIES:
        versions[name] = "1.1"
        assert made(project).changed(before.parts) == (name,)
        versions[name] = "1.0"


def test_a_plug_in_that_is_not_here_is_a_sentence(project: Path) -> None:
    with pytest.raises(UsageError, match="no defense 'gone'"):
        made(project, "gone")


def test_it_imports_no_heavy_library() -> None:
    code = """
        import sys
        from bench.plugins.find import Plugins
        from bench.plugins.fingerprint import Fingerprints
        from bench.plugins.provenance import provenance
        from bench.spec.run import PluginSpec, RunSpec
        run = RunSpec(task=PluginSpec(name="clinical-notes"), defense=(PluginSpec(name="fedshield"),))
        Fingerprints(Plugins()).of_training(run)
        provenance("cpu")
        assert not {"torch", "transformers", "peft", "tenseal", "opacus", "scipy"} & set(sys.modules), "heavy"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, cwd=ROOT.parent)


def test_a_training_s_fingerprint_outlives_changes_of_what_comes_after(project: Path) -> None:
    def training(variant: PluginSpec | None = None) -> Fingerprint:
        return of(project).of_training(row(variant=variant).run)

    own = PluginSpec(name="audit")
    before, of_its_own = training(), training(own)
    for name in ("attack/attack.py", "assess/plays/source.py", "stats/auc.py", "training/measure/metrics.py"):
        (project / "bench" / name).write_text("x = 3\n")
    (project / "bench/training/variants/audit.py").write_text("x = 3\n")
    assert training() == before
    assert training(own).changed(of_its_own.parts) == ("bench/attack", "bench/training/variants")
    for name in ("model/lora.py", "defense/defaults/mean.py", "training/training.py"):
        (project / "bench" / name).write_text("x = 3\n")
    changed = ("bench/defense/defaults", "bench/model", "bench/training")
    assert training().changed(before.parts) == changed


def test_what_measures_a_training_has_a_fingerprint_of_its_own(project: Path) -> None:
    before = of(project).of_measuring(row().run)
    (project / "bench/model/lora.py").write_text("x = 3\n")
    assert of(project).of_measuring(row().run) == before
    (project / "bench/training/measure/metrics.py").write_text("x = 3\n")
    assert of(project).of_measuring(row().run).changed(before.parts) == ("bench/training/measure",)


def test_every_room_that_is_named_is_there() -> None:
    known = {p.parent.relative_to(ROOT).as_posix() for p in ROOT.rglob("*.py")}
    assert known >= BESIDE | TRAINING | MEASURING | OF_ITS_OWN | SCORING


def test_a_deviating_attack_is_part_of_its_training(project: Path) -> None:
    variant = PluginSpec(name="active", config={"attack": {"name": "mia", "config": {}}, "adversary": "server"})
    assert "attacks/mia.py" in of(project).of_training(row(variant=variant).run).parts
    assert "attacks/mia.py" not in of(project).of_training(row().run).parts
