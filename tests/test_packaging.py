"""What a user installs is complete: packages, data, entry point, licence, and versions that are known to work."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
TOPS = ("attacks", "bench", "defenses", "tasks")
IGNORED = ("__pycache__", ".mypy_cache", ".ruff_cache")

from_source = pytest.mark.skipif(
    not (ROOT / "bench" / "__init__.py").is_file(), reason="no sources here: the tests run on an installed wheel"
)


def sources() -> Iterator[Path]:
    """Every file of ours below the top-level packages, relative to the repository's root."""
    for top in TOPS:
        for path in sorted((ROOT / top).rglob("*")):
            if path.is_file() and not set(path.parts) & set(IGNORED) and ".partial" not in path.name:
                yield path.relative_to(ROOT)


@from_source
def test_every_folder_of_python_files_is_a_listed_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = {".".join(path.parent.parts) for path in sources() if path.suffix == ".py"}
    assert set(project["tool"]["setuptools"]["packages"]) == found
    assert all((ROOT / Path(*name.split(".")) / "__init__.py").is_file() for name in found)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources so that nothing is left in the repository."""
    root = tmp_path_factory.mktemp("wheel")
    for path in [*sources(), *map(Path, ("pyproject.toml", "README.md", "LICENSE"))]:
        (root / "source" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, root / "source" / path)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(root), str(root / "source")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (found,) = root.glob("*.whl")
    return found


@from_source
def test_the_wheel_holds_every_file_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert held == {path.as_posix() for path in sources()}
        for name in held:
            assert archive.read(name) == (ROOT / name).read_bytes(), name


@from_source
def test_the_wheel_states_licence_command_and_requirements(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = {name.partition(".dist-info/")[2]: archive.read(name).decode() for name in archive.namelist()
                if ".dist-info/" in name}  # fmt: skip
    assert "bench = bench.cli.main:main" in info["entry_points.txt"]
    assert "License-Expression: Apache-2.0" in info["METADATA"]
    assert info["licenses/LICENSE"] == (ROOT / "LICENSE").read_text()


@from_source
def test_the_installed_wheel_lists_plug_ins_and_presets_without_the_sources(wheel: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    subprocess.run([*command, str(tmp_path / "site"), str(wheel)], check=True, capture_output=True)
    probe = (
        "import json, sys, bench, bench.assets.assets, bench.plugins.find, bench.cli.presets\n"
        "p = bench.plugins.find.Plugins()\n"
        "paths = [str(x.path) for k in bench.plugins.find.KINDS for x in p.all(k) if x.origin == 'built-in']\n"
        "paths += map(str, p.presets().values())\n"
        "paths.append(str(bench.assets.assets.Assets(quiet=True).model(bench.spec.run.ModelSpec(name='tiny')).path))\n"
        "print(json.dumps([len(paths), [x for x in paths if not x.startswith(sys.argv[1])]]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", probe, str(tmp_path / "site")],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    count, elsewhere = json.loads(done.stdout)
    assert elsewhere == []
    assert count >= 8


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def pins() -> dict[str, str]:
    lines = re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in lines}


def closure() -> dict[str, list[Requirement]]:
    """Everything that ``pip install 'silobench[dev]'`` brings here, with the requirements that ask for it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    waiting = [(Requirement(text), "") for text in asked]
    found: dict[str, list[Requirement]] = {}
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        found.setdefault(name, []).append(requirement)
        for wanted in (requirement.extras or {""}) | {""}:
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                waiting += [(Requirement(text), wanted) for text in metadata.requires(requirement.name) or ()]
    return found


def test_every_package_that_is_needed_has_a_tested_version_within_its_range() -> None:
    known = pins()
    for name, requirements in closure().items():
        if name == "silobench":
            continue
        if sys.platform == "linux" and not name.startswith(("nvidia-", "cuda-", "triton")):
            assert name in known, f"constraints.txt has no version of {name}"
            assert all(r.specifier.contains(known[name], prereleases=True) for r in requirements), name


def test_nothing_is_pinned_that_is_not_needed() -> None:
    assert set(pins()) <= set(closure())


def test_no_local_version_is_pinned() -> None:
    assert not [name for name, version in pins().items() if "+" in version]
