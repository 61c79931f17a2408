"""The plug-ins that CONTRIBUTING.md shows are complete and pass the conformance kit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.conformance import check
from bench.plugins.find import from_path
from tests.grounds import instead

TEXT = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = {
    match[1]: match[0].partition("\n")[2].removesuffix("```")
    for match in re.finditer(r"```python\n# ((?:defenses|attacks|tasks)/\w+\.py)\n.*?```", TEXT, re.DOTALL)
}


def test_there_is_an_example_of_each_kind_and_no_other_code() -> None:
    assert sorted(BLOCKS) == [
        "attacks/loss_ratio.py",
        "defenses/keep_largest.py",
        "defenses/server_brake.py",
        "tasks/opening_hours.py",
    ]
    assert TEXT.count("```python") == len(BLOCKS)


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_the_example_passes_the_kit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.conformance.attack.playground", instead)
    path = tmp_path / name
    path.parent.mkdir()
    path.write_text(BLOCKS[name])
    plugin = from_path(path)
    assert plugin.kind == name.partition("/")[0].replace("defenses", "defense").removesuffix("s")
    findings = list(check(plugin))
    assert len(findings) >= 5
    assert [f"{f.title}: {f.says}" for f in findings if not f.passed] == []
